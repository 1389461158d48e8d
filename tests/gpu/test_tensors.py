"""Tensors on a GPU: the CPU's bits, PyTorch's rules, and clear refusals."""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.errors import ArgumentError, DeviceError, InvalidValueError, KilnIndexError, LinAlgError
from kiln.ir.ops import OPS
from tests.gpu.conftest import Gpu
from tests.ops.samples import Sample, samples
from tests.ops.sampling import APART
from tests.ops.test_declarations import same_bits

pytestmark = pytest.mark.usefixtures("gpu")
GPU = kiln.device("cuda")


def bits(x: Any) -> bytes:
    """What tells tensors apart, wherever they are."""
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return kiln.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def check(function: Callable[..., Any], *tensors: Any) -> Any:
    """`function` gives on a GPU what it gives on the CPU, there."""
    made = function(*[x.cuda() for x in tensors])
    for got, wanted in zip(
        *[x if isinstance(x, (tuple, list)) else (x,) for x in (made, function(*tensors))], strict=True
    ):
        assert got.device == GPU
        assert got.dtype is wanted.dtype
        assert got.shape == wanted.shape
        assert bits(got) == bits(wanted)
    return made


# --------------------------------------------------------------------------------------------- where tensors are


def test_properties_and_transfers(gpu: Gpu) -> None:
    x = kiln.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.cuda()
    assert (y.device, y.is_cuda, y.is_cpu, y.get_device()) == (GPU, True, False, 0)
    assert (x.is_cuda, x.get_device(), str(y.device), repr(y.device)) == (
        False, -1, "cuda:0", "device(type='cuda', index=0)",
    )  # fmt: skip
    assert y.to("cuda") is y and y.cuda() is y and x.cpu() is x and y.to(GPU, copy=True) is not y
    assert y.tolist() == x.tolist() and y[1, 0].item() == 3.0 and bool(y[0, 0])
    assert bits(y.t().cpu()) == bits(x.t())
    assert y.to("cpu", kiln.int64).tolist() == [[1, 2], [3, 4]]
    assert y.to(x).device.type == "cpu" and x.to(y).is_cuda
    assert x.to("cuda", non_blocking=True).data_ptr() != 0
    assert repr(y) == "tensor([[1., 2.],\n        [3., 4.]], device='cuda:0')"
    assert x.pin_memory().is_pinned() and not x.is_pinned()


def test_functions_that_make_tensors() -> None:
    """All take a device."""
    like = kiln.zeros(2, device="cuda")
    for made in (
        kiln.zeros(2, 3, device="cuda"), kiln.ones(4, device=GPU), kiln.full((2,), 7, device="cuda:0"),
        kiln.empty(2, device=0), kiln.arange(5, device="cuda"), kiln.eye(3, device="cuda"),
        kiln.tensor([1, 2], device="cuda"), kiln.linspace(0, 1, 3, device="cuda"), kiln.as_tensor([1.0], device="cuda"),
        kiln.zeros_like(like), kiln.full_like(like, 2), like.new_tensor([1, 2]), like.new_zeros(2, 2),
        kiln.ones_like(kiln.zeros(2), device="cuda"), kiln.empty_strided((2, 2), (1, 2), device="cuda"),
        kiln.tril_indices(3, 3, device="cuda"), kiln.hann_window(4, device="cuda"), kiln.tensor(like),
    ):  # fmt: skip
        assert made.device == GPU
    assert kiln.full((2,), 7, device="cuda").tolist() == [7, 7]
    assert kiln.arange(3, device="cuda").tolist() == [0, 1, 2]
    assert kiln.zeros_like(like, device="cpu").is_cpu


def test_the_default_device() -> None:
    with kiln.device("cuda"):
        assert kiln.zeros(2).is_cuda and kiln.get_default_device() == GPU
        with kiln.device("cpu"):
            assert kiln.tensor([1.0]).is_cpu
    kiln.set_default_device("cuda")
    try:
        assert kiln.arange(2).is_cuda and kiln.tensor([1.0, 2.0]).is_cuda and kiln.from_numpy(np.ones(2)).is_cpu
    finally:
        kiln.set_default_device(None)
    assert kiln.zeros(2).is_cpu


def test_copies_and_files() -> None:
    x = numbers(3).cuda().requires_grad_()
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), copy.copy(x)):
        assert y.is_cuda and y.requires_grad and bits(y) == bits(x)
    file = io.BytesIO()
    kiln.save({"gpu": x.detach(), "cpu": x.detach().cpu()}, file)
    for where, wanted in ((None, "cuda"), ("cpu", "cpu"), ({"cuda:0": "cpu"}, "cpu"), (lambda t, _: t, "cpu")):
        file.seek(0)
        loaded = kiln.load(file, map_location=where)
        assert loaded["gpu"].device.type == wanted and loaded["cpu"].is_cpu
        assert bits(loaded["gpu"]) == bits(x)


# ------------------------------------------------------------------------------------------------------- ops

TOGETHER: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    ("broadcast", lambda a, b: a * b + 1.5, (numbers(3, 4), numbers(4, seed=1))),
    ("strided", lambda a: a.t() - a.t().flip(0), (numbers(3, 4),)),
    ("softmax", lambda a: a.softmax(-1), (numbers(3, 5),)),
    ("matmul", lambda a, b: a @ b, (numbers(3, 4), numbers(4, 5, seed=1))),
    ("reductions", lambda a: (a.sum(), a.amax(0), a.argmax(1), a.mean(1)), (numbers(3, 5),)),
    ("sort", lambda a: tuple(a.sort(-1)), (numbers(3, 5),)),
    ("scan", lambda a: a.cumsum(0), (numbers(3, 5),)),
    ("cat", lambda a, b: kiln.cat([a, b], 1), (numbers(3, 2), numbers(3, 1, seed=1))),
    ("gather", lambda a, i: a[i], (numbers(5, 2), kiln.tensor([4, 0, -1]))),
    ("scatter", lambda a, i: a.index_add(0, i, a[:2]), (numbers(3, 2), kiln.tensor([2, 2]))),
    ("masked", lambda a: (a[a > 0], a.masked_fill(a > 0, 0.0)), (numbers(3, 4),)),
    ("library", lambda a: kiln.linalg.eigvals(a), (numbers(3, 3, dtype=np.float64),)),
    ("conv", lambda x, w: kiln.nn.functional.conv2d(x, w, padding=1), (numbers(1, 2, 5, 5), numbers(3, 2, 3, 3))),
    ("pool", lambda x: kiln.nn.functional.max_pool2d(x, 2), (numbers(1, 2, 4, 4),)),
    ("bfloat16", lambda a: a.bfloat16().exp() * 2, (numbers(6),)),
    ("complex", lambda a: kiln.complex(a, a * 2).abs(), (numbers(4),)),
    ("integers", lambda a: a // 3 + (a % 5) ** 2, (kiln.tensor([-7, 8, 9]),)),
    ("host results", lambda a: (kiln.unique(a), kiln.nonzero(a > 1)), (kiln.tensor([3, 1, 3, 2]),)),
    ("loop", lambda a: kiln.while_loop(lambda s: s.sum() < 40, lambda s: (s * 2,), (a,))[0], (numbers(2).abs(),)),
    ("empty", lambda a: (a[:0] + 1, a[:0].sum(0)), (numbers(3, 2),)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "tensors"), [x[1:] for x in TOGETHER], ids=[x[0] for x in TOGETHER])
def test_ops_have_the_cpus_bits(function: Callable[..., Any], tensors: tuple[Any, ...]) -> None:
    check(function, *tensors)


def bound(name: str, sample: Sample) -> None:
    host = [kiln.from_numpy(np.array(x)) if not x.flags.writeable else kiln.from_numpy(x) for x in sample.operands]
    wanted = OPS[name].bind(host, sample.attrs, receiver=kiln.zeros(1))
    made = OPS[name].bind([t.cuda() for t in host], sample.attrs, receiver=kiln.zeros(1).cuda())
    for got, tensor in zip(made, wanted, strict=True):
        assert got.device == GPU, f"{name} {sample.label}"
        assert same_bits(got.cpu().numpy(), tensor.numpy()), f"{name} {sample.label}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPS if name not in (*APART, "transfer")])
def test_every_op_has_the_cpus_bits(name: str) -> None:
    made = samples(name)
    for k in sorted({0, len(made) // 2, len(made) - 1}):
        bound(name, made[k])


def test_views_launch_nothing(gpu: Gpu) -> None:
    x = numbers(4, 6).cuda()
    base = x.cpu()
    before = gpu.counts["launch"]
    views = [
        lambda t: t[1:3, ::2],
        lambda t: t.t().reshape(6, 4),
        lambda t: t.view(2, 12)[1],
        lambda t: t.expand(2, 4, 6),
    ]
    made = [view(x) for view in views]
    assert gpu.counts["launch"] == before
    for view, t in zip(views, made, strict=True):
        assert t.is_cuda and t._buffer is x._buffer and bits(t) == bits(view(base))


def test_writes_in_place() -> None:
    def written(x: Any) -> Any:
        x = x.clone()
        x[1] = 7.0
        x[:, ::2] += 1.0
        x[x < 0] = 0.0
        x[kiln.tensor([0, 2], device=x.device), 1] = kiln.tensor([5.0, 6.0], device=x.device)
        x.t()[3].mul_(2.0)
        return x.clamp_(max=6.5)

    check(written, numbers(3, 4))
    x = kiln.zeros(3, device="cuda")
    x.copy_(kiln.tensor([1, 2, 3]))  # from the CPU, of another dtype
    assert x.tolist() == [1.0, 2.0, 3.0]
    y = kiln.zeros(2, 3)
    y[0] = x
    assert y.tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]


def test_random_numbers_are_the_cpus() -> None:
    draws = [
        lambda device: kiln.rand(5, device=device),
        lambda device: kiln.randn(4, dtype=kiln.float64, device=device),
        lambda device: kiln.randint(10, (4,), device=device),
        lambda device: kiln.randperm(6, device=device),
        lambda device: kiln.zeros(3, device=device).uniform_(1, 2),
        lambda device: kiln.nn.functional.dropout(kiln.ones(8, device=device), 0.5),
    ]
    kiln.manual_seed(3)
    wanted = [draw("cpu") for draw in draws]
    kiln.manual_seed(3)
    made = [draw("cuda") for draw in draws]
    assert [bits(x) for x in made] == [bits(x) for x in wanted]
    generator = kiln.Generator("cuda").manual_seed(5)
    own = kiln.rand(3, device="cuda", generator=generator)
    assert bits(own) == bits(kiln.rand(3, generator=kiln.Generator(5)))
    state = generator.get_state()
    first = kiln.rand(2, device="cuda", generator=generator)
    generator.set_state(state)
    assert state.is_cpu and bits(kiln.rand(2, device="cuda", generator=generator)) == bits(first)
    with pytest.raises(DeviceError, match="the generator is on cpu"):
        kiln.rand(2, device="cuda", generator=kiln.Generator())


# -------------------------------------------------------------------------------------------------- gradients


def test_gradients_have_the_cpus_bits() -> None:
    def first(x: Any, w: Any) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        loss = ((x @ w).tanh() * x.sum()).sum()
        loss.backward()
        return x.grad, w.grad

    def second(x: Any) -> Any:
        x = x.detach().requires_grad_()
        (g,) = kiln.autograd.grad((x * x * x).sum(), x, create_graph=True)
        (h,) = kiln.autograd.grad((g * g).sum(), x)
        return g, h

    check(first, numbers(2, 3), numbers(3, 3, seed=1))
    check(second, numbers(4))


def test_gradients_of_branches_and_loops() -> None:
    def through(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = kiln.cond(x.sum() > 100, lambda x: x, lambda x: x * x, (x,))
        (y,) = kiln.while_loop(lambda s: s.detach().sum() < 40, lambda s: (s * x,), (y,))
        _, ys = kiln.scan(lambda c, row: (c * row, c + row), y.sum(), x)
        (g,) = kiln.autograd.grad(ys.sum(), x)
        return g

    check(through, numbers(3).abs() + 1.5)


def test_transforms() -> None:
    check(lambda x: kiln.vmap(lambda row: row.sum() * 2)(x), numbers(2, 3))
    check(lambda x: kiln.func.jvp(lambda x: x * x, (x,), (x,)), numbers(3))
    check(lambda x: kiln.func.jacrev(lambda x: x * x)(x), numbers(3))


def test_gradients_go_back_where_tensors_came_from() -> None:
    x = numbers(3).requires_grad_()
    y = x.cuda()
    assert y.grad_fn is not None and y.grad_fn.name() == "ToCopyBackward0"
    (y * y).sum().cpu().backward()
    assert x.grad is not None and x.grad.is_cpu and bits(x.grad) == bits(2 * x)
    weight = kiln.ones(3, device="cuda", requires_grad=True)
    (weight.cpu() * x.detach()).sum().backward()
    assert weight.grad is not None and weight.grad.is_cuda and bits(weight.grad) == bits(x)
    scale = kiln.tensor(2.0, requires_grad=True)  # a number of the CPU joins, and gets its gradient there
    (scale * y.detach()).sum().backward()
    assert scale.grad is not None and scale.grad.is_cpu


# ---------------------------------------------------------------------------------------------------- refusals


def test_operands_on_different_devices() -> None:
    x, y = kiln.ones(3), kiln.ones(3, device="cuda")
    for use in (
        lambda: x + y, lambda: y * x, lambda: kiln.cat([x, y]), lambda: y.add_(x), lambda: x @ y,
        lambda: kiln.where(y > 0, y, x), lambda: y[kiln.tensor([0])] + x,
    ):  # fmt: skip
        with pytest.raises(DeviceError, match=r"operands are on c.* and on c") as caught:
            use()
        assert "]@cuda:0" in str(caught.value) and ".to('cuda:0')" in str(caught.value)
        assert caught.value.loc is not None and caught.value.loc.file == __file__
    assert (y + kiln.tensor(2.0)).is_cuda and (kiln.tensor(2) * y).tolist() == [2.0] * 3
    with pytest.raises(DeviceError):
        kiln.tensor(2.0, device="cuda") + x  # the other way round no number joins


def test_what_the_host_can_not_have() -> None:
    x = kiln.ones(2, device="cuda")
    for use in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(DeviceError, match=r"on cuda:0[^$]*cpu\(\)"):
            use()
    assert x.__dlpack_device__() == (2, 0) and x.numpy(force=True).tolist() == [1.0, 1.0]
    with pytest.raises(DeviceError, match="pinned"):
        x.pin_memory()
    with pytest.raises(ArgumentError, match="on the CPU"):
        kiln.ones(1).record_stream(None)
    with pytest.raises(InvalidValueError, match="no GPU"):
        x.cuda("cpu")


def test_failed_checks_name_the_users_line() -> None:
    x = kiln.arange(4.0, device="cuda")
    with pytest.raises(KilnIndexError) as caught:
        x[kiln.tensor([7], device="cuda")].sum().item()
    assert caught.value.loc is not None and caught.value.loc.file == __file__
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(LinAlgError):
        kiln.linalg.inv(kiln.zeros(2, 2, device="cuda")).sum().item()


@pytest.mark.parametrize(
    ("cupy", "device", "told"),
    [("None", "cuda", "CuPy"), ("none_there()", "cuda", ""), ("fake()", "cuda:9", "cuda:9|no GPU 9|number 9")],
)
def test_without_a_gpu(cupy: str, device: str, told: str) -> None:
    """One DeviceError at the first use, with the op, the line, and what to do."""
    program = f"""
import sys
from tests.gpu import fake_cupy, fake_device
def fake(): fake_cupy.install()
def none_there(): fake_cupy.install(); fake_device.state.devices.clear()
sys.modules["cupy"] = None
{cupy}
import kiln
for use in (lambda: kiln.zeros(2, device={device!r}), lambda: kiln.zeros(2).to({device!r})):
    try:
        use()
    except kiln.DeviceError as error:
        print(error)
assert kiln.zeros(2).is_cpu
"""
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.count("zeros: ") == 1 and ran.stdout.count("to: ") == 1, ran.stdout
    assert ran.stdout.count("fix: ") == 2
    assert any(part in ran.stdout for part in told.split("|")), ran.stdout


def test_nothing_is_imported_for_a_gpu_before_it_is_used() -> None:
    program = "import sys, kiln; kiln.zeros(2) + 1; kiln.device('cuda'); print([m for m in sys.modules if 'cuda' in m])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() in ("[]", "['kiln.cuda']")


def test_numbers_of_an_op_need_no_copies(gpu: Gpu) -> None:
    """Constants are on the GPU already the second time."""
    x = kiln.ones(4, device="cuda")
    (x * 2.5).cpu()
    before = gpu.counts["memcpy"]
    y = x * 2.5
    assert gpu.counts["memcpy"] == before
    assert math.isclose(y[0].item(), 2.5)
