"""What goes wrong in a user's hands: each item's exception type, op, line and fix; and accidents of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn

A, B = kiln.ones(2, 3), kiln.ones(4, 5)
INTS = kiln.tensor([1, 2])


def leaf() -> kiln.Tensor:
    return kiln.ones(2, requires_grad=True)


def written_after_it_was_saved() -> None:
    x = leaf()
    y = x * 1
    z = y * y
    y.add_(1)
    z.sum().backward()


def walked_twice() -> None:
    y = leaf().exp().sum()
    y.backward()
    y.backward()


def anomalous() -> None:
    x = leaf()
    with kiln.autograd.detect_anomaly():
        ((x * 0).sqrt() * 0).sum().backward()


Case = tuple[Callable[[], Any], type[Exception], str]

SHAPES: dict[str, Case] = {
    "matmul": (lambda: A @ B, RuntimeError, "matmul"),
    "mm of a vector": (lambda: kiln.mm(A, kiln.ones(3)), RuntimeError, "mm"),
    "linear layer": (lambda: nn.Linear(3, 2)(kiln.ones(2, 4)), RuntimeError, "matmul"),
    "broadcast": (lambda: A + kiln.ones(4), RuntimeError, "add"),
    "reshape": (lambda: A.reshape(7), RuntimeError, "reshape"),
    "view": (lambda: A.view(7), RuntimeError, "view"),
    "expand": (lambda: A.expand(3, 3), RuntimeError, "expand"),
    "permute": (lambda: A.permute(0, 0), RuntimeError, "permute"),
    "cat": (lambda: kiln.cat([A, B], 0), RuntimeError, "cat"),
    "cat of nothing": (lambda: kiln.cat([]), RuntimeError, "cat"),
    "stack": (lambda: kiln.stack([A, B]), RuntimeError, "stack"),
    "assignment": (lambda: A.clone().__setitem__(0, B), RuntimeError, "copy_"),
    "copy_": (lambda: A.clone().copy_(B), RuntimeError, "copy_"),
    "negative size": (lambda: kiln.zeros(2, -1), RuntimeError, "zeros"),
    "item of many": (lambda: A.item(), RuntimeError, "item"),
    "truth of many": (lambda: bool(A), RuntimeError, ""),
    "gradient of another shape": (lambda: (leaf() * 2).backward(kiln.ones(3)), RuntimeError, "backward"),
    "gradient of many": (lambda: (leaf() * 2).backward(), RuntimeError, "backward"),
    "state of another module": (lambda: nn.Linear(2, 2).load_state_dict({}), RuntimeError, ""),
}

DTYPES: dict[str, Case] = {
    "matmul": (lambda: A @ kiln.ones(3, 2, dtype=kiln.float64), RuntimeError, "matmul"),
    "mean of ints": (lambda: INTS.mean(), RuntimeError, "mean"),
    "where on floats": (lambda: kiln.where(A, A, A), RuntimeError, "where"),
    "float into ints": (lambda: INTS.clone().add_(1.5), RuntimeError, "add_"),
    "quotient into ints": (lambda: INTS.clone().div_(2), RuntimeError, "div_"),
    "gradient of ints": (lambda: INTS.clone().requires_grad_(), RuntimeError, "requires_grad_"),
    "negative power of ints": (lambda: INTS ** (-1), RuntimeError, "pow"),
    "an unknown dtype": (lambda: kiln.zeros(2, dtype="float32"), TypeError, "zeros"),  # type: ignore[arg-type]
    "an integer too large": (lambda: kiln.tensor(2**70), RuntimeError, "tensor"),
}

DIMENSIONS: dict[str, Case] = {
    "sum": (lambda: A.sum(5), IndexError, "sum"),
    "softmax": (lambda: kiln.softmax(A, 7), IndexError, "softmax"),
    "transpose": (lambda: A.transpose(0, 3), IndexError, "transpose"),
    "squeeze": (lambda: A.squeeze(9), IndexError, "squeeze"),
    "unsqueeze": (lambda: A.unsqueeze(-9), IndexError, "unsqueeze"),
    "index": (lambda: A[5], IndexError, "index"),
    "too many indices": (lambda: A[0, 0, 0], IndexError, "index"),
    "mask": (lambda: A[kiln.tensor([True])], IndexError, "index"),
    "argmax of nothing": (lambda: kiln.zeros(0).argmax(), IndexError, "argmax"),
    "label": (lambda: nn.functional.cross_entropy(A, kiln.tensor([0, 7])), IndexError, "pick"),
}

VALUES: dict[str, Case] = {
    "a list for a tensor": (lambda: kiln.exp([1.0]), TypeError, "exp"),  # type: ignore[arg-type]
    "an array for a tensor": (lambda: kiln.exp(np.ones(2)), TypeError, "exp"),  # type: ignore[arg-type]
    "text": (lambda: kiln.tensor("abc"), TypeError, "tensor"),
    "None": (lambda: kiln.tensor(None), TypeError, "tensor"),
    "ragged lists": (lambda: kiln.tensor([[1], [1, 2]]), ValueError, "tensor"),
    "sizes": (lambda: kiln.zeros(2.5), TypeError, "zeros"),
    "arange": (lambda: kiln.arange(0, 5, 0), RuntimeError, "arange"),
    "clamp": (lambda: A.clamp(), RuntimeError, "clamp"),
    "parameter": (lambda: nn.Parameter(3), TypeError, "Parameter"),  # type: ignore[arg-type]
    "negative strides": (lambda: kiln.from_numpy(np.ones(3)[::-1]), ValueError, "from_numpy"),
    "device": (lambda: A.to("cuda"), RuntimeError, "to"),
    "unknown device": (lambda: A.to("tpu"), RuntimeError, "device"),
    "what can't be saved": (lambda: kiln.save({"a": [object()]}, os.devnull), TypeError, "save"),
}

GRADIENTS: dict[str, Case] = {
    "leaf in place": (lambda: leaf().add_(1), RuntimeError, "add_"),
    "view of a leaf in place": (lambda: leaf()[0].zero_(), RuntimeError, "fill_"),
    "expanded in place": (lambda: kiln.ones(3).expand(2, 3).add_(1), RuntimeError, "add_"),
    "read-only in place": (lambda: kiln.from_numpy(np.broadcast_to(1.0, ())).add_(1), RuntimeError, "add_"),
    "saved and written": (written_after_it_was_saved, RuntimeError, "mul"),
    "walked twice": (walked_twice, RuntimeError, "exp"),
    "no gradient wanted": (lambda: A.sum().backward(), RuntimeError, "backward"),
    "an unused input": (lambda: kiln.grad(leaf().sum(), leaf()), RuntimeError, "grad"),
    "no leaf": (lambda: (leaf() * 2).requires_grad_(False), RuntimeError, "requires_grad_"),
    "a NaN": (anomalous, RuntimeError, "sqrt"),
}

CASES = [
    pytest.param(*case, id=f"{group}: {name}")
    for group, cases in [
        ("shapes", SHAPES), ("dtypes", DTYPES), ("dimensions", DIMENSIONS), ("values", VALUES), ("gradients", GRADIENTS)
    ]
    for name, case in cases.items()
]  # fmt: skip


@pytest.mark.parametrize(("use", "error", "op"), CASES)
def test_bad_input(use: Callable[[], Any], error: type[Exception], op: str) -> None:
    with pytest.raises(error) as caught:
        use()
    raised = caught.value
    assert isinstance(raised, kiln.KilnError), repr(raised)
    assert raised.op == op
    assert raised.loc is not None and raised.loc.file == __file__
    assert f"{__file__}:{raised.loc.line}" in str(raised)
    assert raised.fix and f"fix: {raised.fix}" in str(raised)


def test_errors_inside_compiled_functions_name_the_same_line() -> None:
    def f(x: Any, y: Any) -> Any:
        return x @ y  # the line

    seen = []
    for g in (f, kiln.compile(f)):
        with pytest.raises(kiln.ShapeError) as caught:
            g(A, B)
        seen.append((str(caught.value).split("\n  at ")[0], caught.value.loc and caught.value.loc.line))
    assert seen[0] == seen[1]

    def pick(x: Any, i: Any) -> Any:
        return nn.functional.cross_entropy(x, i)

    compiled = kiln.compile(pick)
    compiled(A, kiln.tensor([0, 1]))
    with pytest.raises(IndexError) as caught_index:
        compiled(A, kiln.tensor([0, 7]))  # warm: the check is in the program
    assert isinstance(caught_index.value, kiln.KilnIndexError)
    assert caught_index.value.loc is not None and caught_index.value.loc.function == "pick"


# --------------------------------------------------------------------------------- accidents of the machine


def run(code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "KILN_CACHE_DIR": str(cache), **environment},
    )  # fmt: skip


PROGRAM = """
import warnings
warnings.simplefilter("always")
import kiln
f = kiln.compile(lambda x: (x.exp() * 2).sum())
x = kiln.arange(10.0)
print(f(x).item() == f(x).item(), (x @ x).item())
"""


def test_a_corrupted_cache_is_rebuilt_with_one_warning(tmp_path: Path) -> None:
    first = run(PROGRAM, tmp_path)
    assert (first.stdout, first.stderr) == ("True 285.0\n", "")
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 3
    for k, path in enumerate(files):
        data = path.read_bytes()
        path.write_bytes([data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1])][k % 3])
    second = run(PROGRAM, tmp_path)
    assert second.stdout == first.stdout
    assert second.stderr.count("CacheWarning") == 1, second.stderr
    assert run(PROGRAM, tmp_path).stderr == ""  # and whole again


def test_a_cache_on_a_full_disk_is_done_without(tmp_path: Path) -> None:
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
    done = run(limited + PROGRAM, tmp_path)
    assert done.stdout == "True 285.0\n", done.stderr
    assert done.stderr.count("CacheWarning") == 1, done.stderr
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_fork_in_the_middle() -> None:
    x = kiln.arange(1000.0).requires_grad_()
    f = kiln.compile(lambda x: (x * x).sum())
    loss = f(x)
    loss = f(x)
    child = os.fork()
    if child == 0:  # no test machinery in the child
        good = False
        try:
            loss.backward()  # what the parent began
            again = f(x)  # what it compiled
            new = kiln.compile(lambda x: (x.tanh() + 1).sum())(x)  # and something new
            good = x.grad.tolist() == [2.0 * i for i in range(1000)] and again.item() == loss.item() and bool(new > 0)
        finally:
            os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    loss.backward()
    assert x.grad is not None and x.grad[3].item() == 6.0


def test_memory_that_the_system_refuses() -> None:
    with pytest.raises(MemoryError):
        kiln.ones(2**60)
    assert kiln.ones(3).sum().item() == 3.0
