"""Composites run as one call: nothing tells them from their ops one by one but the time they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import composite, dispatch
from kiln import functional as F
from kiln.autograd.anomaly import detect_anomaly
from kiln.errors import GradError, KilnIndexError
from kiln.nn import functional as NF

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composite, "CALLS", 2)
    monkeypatch.setattr(composite, "MAX_VARIANTS", 1 << 20)  # whatever other tests have called


def drawn(*shape: int, dtype: Any = kiln.float32, grad: bool = True) -> kiln.Tensor:
    t = kiln.tensor(np.asarray(RNG.standard_normal(shape))).to(dtype)
    return t.requires_grad_() if grad else t


def labels(*shape: int, count: int) -> kiln.Tensor:
    return kiln.tensor(RNG.integers(0, count, shape))


def transposed(*shape: int) -> kiln.Tensor:
    return drawn(*shape[::-1], grad=False).permute(*reversed(range(len(shape)))).detach().requires_grad_()


def expanded(*shape: int) -> kiln.Tensor:
    return drawn(*shape[1:], grad=False).expand(*shape).detach().requires_grad_()


Case = tuple[Callable[..., Any], Callable[[], tuple[Any, ...]], dict[str, Any]]
DTYPES = (kiln.float32, kiln.float64, kiln.bfloat16, kiln.float16)
CASES: dict[str, Case] = {
    **{
        f"linear {d}": (F.linear, lambda d=d: (drawn(9, 7, dtype=d), drawn(5, 7, dtype=d), drawn(5, dtype=d)), {})
        for d in DTYPES
    },
    **{f"softmax {d}": (F.softmax, lambda d=d: (drawn(9, 7, dtype=d), 1), {}) for d in DTYPES},
    **{
        f"cross_entropy {d}": (NF.cross_entropy, lambda d=d: (drawn(9, 7, dtype=d), labels(9, count=7)), {})
        for d in DTYPES
    },
    "linear no bias": (F.linear, lambda: (drawn(2, 3, 7), drawn(5, 7)), {}),
    "linear frozen": (F.linear, lambda: (drawn(9, 7, grad=False), drawn(5, 7), drawn(5, grad=False)), {}),
    "linear plain": (F.linear, lambda: (drawn(9, 7, grad=False), drawn(5, 7, grad=False)), {}),
    "linear transposed": (F.linear, lambda: (transposed(9, 7), transposed(5, 7), drawn(5)), {}),
    "linear expanded": (F.linear, lambda: (expanded(9, 7), drawn(5, 7), drawn(5)), {}),
    "linear empty": (F.linear, lambda: (drawn(0, 7), drawn(5, 7), drawn(5)), {}),
    "linear vector": (F.linear, lambda: (drawn(7), drawn(5, 7), drawn(5)), {}),
    "softmax 0": (F.softmax, lambda: (drawn(4, 300), 0), {}),
    "softmax cast": (F.softmax, lambda: (drawn(4, 30), -1), {"dtype": kiln.float64}),
    "log_softmax": (F.log_softmax, lambda: (drawn(3, 4, 5), 1), {}),
    "log_softmax view": (F.log_softmax, lambda: (transposed(4, 50), 1), {}),
    "log_softmax empty": (F.log_softmax, lambda: (drawn(0, 4), 1), {}),
    "nll_loss": (NF.nll_loss, lambda: (drawn(9, 7), labels(9, count=7)), {"reduction": "sum"}),
    "cross_entropy images": (NF.cross_entropy, lambda: (drawn(2, 7, 3, 3), labels(2, 3, 3, count=7)), {}),
    "cross_entropy none": (NF.cross_entropy, lambda: (drawn(9, 7), labels(9, count=7)), {"reduction": "none"}),
    "cross_entropy ignored": (NF.cross_entropy, lambda: (drawn(9, 3), labels(9, count=3)), {"ignore_index": 1}),
    "cross_entropy weighted": (
        NF.cross_entropy,
        lambda: (drawn(9, 7), labels(9, count=7), drawn(7, grad=False)),
        {"label_smoothing": 0.25},
    ),
    "cross_entropy probabilities": (NF.cross_entropy, lambda: (drawn(9, 7), drawn(9, 7)), {"label_smoothing": 0.1}),
}


def bits(t: Any) -> Any:
    return None if t is None else (str(t.dtype), t.shape, t.detach().double().numpy().tobytes())


def gradients(result: Any, args: Any, seed: Any, **options: Any) -> list[Any]:
    wanted = [x for x in args if isinstance(x, kiln.Tensor) and x.requires_grad]
    if not wanted:
        return []
    return list(kiln.autograd.grad(result, wanted, seed, allow_unused=True, **options))


@pytest.mark.parametrize("case", CASES)
def test_bits(case: str) -> None:
    function, make, options = CASES[case]
    alone = function.__wrapped__  # type: ignore[attr-defined]
    for _ in range(4):
        args = make()
        expected, got = alone(*args, **options), function(*args, **options)
        assert bits(got) == bits(expected)
        assert got.requires_grad == expected.requires_grad
        assert got._layout.contiguous or got._layout.strides == expected._layout.strides
        seed = kiln.tensor(RNG.standard_normal(got.shape)).to(got.dtype)
        pairs = [gradients(r, args, seed) for r in (expected, got)]
        assert [bits(g) for g in pairs[1]] == [bits(g) for g in pairs[0]]


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case: str) -> None:
    function, make, options = CASES[case]
    for _ in range(4):
        args = make()
        found = []
        for f in (function.__wrapped__, function):  # type: ignore[attr-defined]
            result = f(*args, **options)
            firsts = gradients(result, args, kiln.ones_like(result), create_graph=True)
            sums = [(g * g).sum() for g in firsts if g is not None and g.requires_grad]
            found.append([bits(g) for s in sums for g in gradients(s, args, None, retain_graph=True)])
        assert found[0] == found[1]


def run_as_one(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> bool:
    """Whether a call runs no op by itself, after it was called often."""
    for _ in range(3):
        call()
    ran: list[Any] = []
    with monkeypatch.context() as patch:
        run = dispatch.run
        patch.setattr(dispatch, "run", lambda op, *rest: (ran.append(op), run(op, *rest))[1])
        call()
    return not ran


def test_what_runs_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(kiln.Tensor):
        pass

    x, y = drawn(6, 23), labels(6, count=23)
    square = drawn(23, 23)
    mine = x.as_subclass(Mine)
    assert run_as_one(monkeypatch, lambda: NF.cross_entropy(x, y))
    assert run_as_one(monkeypatch, lambda: F.linear(x, square))
    assert run_as_one(monkeypatch, lambda: kiln.nn.Linear.forward(layer, x))
    assert not run_as_one(monkeypatch, lambda: F.linear(x, x))  # its gradient would be a sum
    assert not run_as_one(monkeypatch, lambda: F.softmax(mine, 1))

    def watched() -> Any:
        with detect_anomaly():
            return F.softmax(x, 1)

    assert not run_as_one(monkeypatch, watched)


layer = kiln.nn.Linear(23, 6)


def test_sizes_that_change_all_the_time_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composite, "MAX_VARIANTS", 0)
    assert not run_as_one(monkeypatch, lambda: F.log_softmax(drawn(3, 61), 1))


def test_a_class_out_of_range_is_told_at_its_line() -> None:
    x = drawn(4, 3)
    for _ in range(5):
        NF.cross_entropy(x, labels(4, count=3))
    for _ in range(2):
        with pytest.raises(KilnIndexError) as caught:
            NF.cross_entropy(x, kiln.tensor([0, 1, 2, 3]))
        assert caught.value.loc is not None and caught.value.loc.file == __file__
        assert caught.value.op == "cross_entropy" or caught.value.op


def test_the_tape_is_used_up_and_writes_are_noticed() -> None:
    x, w = drawn(4, 3), drawn(2, 3)
    for _ in range(4):
        loss = F.linear(x, w).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        with pytest.raises(GradError, match=r"linear|permute|matmul"):
            loss.backward()
        loss = F.linear(x, w).sum()
        with kiln.no_grad():
            w.add_(1.0)
        with pytest.raises(GradError, match="modified in place"):
            loss.backward()
        loss = F.log_softmax(x, 1).sum()
        with kiln.no_grad():
            x.mul_(1.0)  # its gradient does not read the input
        loss.backward()


def test_hooks_and_names() -> None:
    x, y = drawn(4, 3), labels(4, count=3)
    for _ in range(3):
        NF.cross_entropy(x, y)
    h = x * 2.0
    loss = NF.cross_entropy(h, y)
    seen: list[Any] = []
    node = loss.grad_fn
    assert node is not None and node.name() == "CrossEntropyBackward0"
    assert node.next_functions == ((h.grad_fn, 0),)
    node.register_hook(lambda made, given: seen.append(("node", len(made), len(given))))
    node.register_prehook(lambda given: seen.append(("before", len(given))))
    h.register_hook(lambda g: seen.append(("tensor", g.shape)))
    loss.register_hook(lambda g: g * 2.0)
    loss.backward()
    assert seen == [("before", 1), ("node", 1, 1), ("tensor", (4, 3))]
    once = x.grad
    x.grad = None
    NF.cross_entropy.__wrapped__(x * 2.0, y).backward()
    assert once is not None and x.grad is not None
    assert bits(once) == bits(x.grad * 2.0)


def test_uses_outside_are_added_in_order() -> None:
    x, w = drawn(5, 5), drawn(5, 5)
    found = []
    for f in (F.linear.__wrapped__, F.linear, F.linear, F.linear):  # type: ignore[attr-defined]
        a = x * 0.1
        out = f(a, w) * (a + 0.3).exp() + f(w, a) + a * a
        found.append([bits(g) for g in kiln.autograd.grad((out * out).sum(), (x, w))])
    assert all(g == found[0] for g in found)


def test_views_learn_of_writes_before() -> None:
    w = drawn(5, 4)
    for _ in range(4):
        base = drawn(4, 4) * 1.0
        row = base[1:3]
        base.mul_(2.0)
        one, two = F.linear(row, w), F.linear.__wrapped__(row, w)  # type: ignore[attr-defined]
        assert one.grad_fn is not None
        grads = [kiln.autograd.grad(r.sum(), (base, w), retain_graph=True) for r in (one, two)]
        assert [bits(g) for g in grads[0]] == [bits(g) for g in grads[1]]


def test_inside_a_captured_function() -> None:
    x, w = drawn(5, 5), drawn(5, 5)

    def f(x: Any) -> Any:
        return F.softmax(F.linear(x, w), 1).sum(0)

    compiled = kiln.compile(f)
    for _ in range(4):
        assert bits(compiled(x)) == bits(f(x))
