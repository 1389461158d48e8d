"""Convolutions of 16-bit floats by a GPU's tensor cores: their errors, eager against compiled, sizes and layouts of all
kinds, who reaches them, and that a missing barrier shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn, products, there
from kiln.errors import CaptureError
from kiln.ir.gpu_program import CudaProgram
from kiln.ir.ops import OPS
from kiln.ir.types import float32
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import program
from tests.gpu import shim
from tests.gpu.conftest import Gpu
from tests.ops.sampling import Array, Sample, draw, generator

F = nn.functional
NAMES = ("conv2d", "conv2d_input", "conv2d_weight")
needs_compiler = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def sample(name: str, x: Sequence[int], w: Sequence[int], dtype: str, **given: Any) -> Sample:
    """Operands for these images and weights; of gradients one is the result's."""
    attrs = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, **given}
    out = [(n + 2 - k) // s + 1 for n, k, s in zip(x[2:], w[2:], attrs["stride"], strict=True)]
    y = (x[0], w[0], *out)
    shapes = {"conv2d": (x, w), "conv2d_input": (y, w), "conv2d_weight": (x, y)}[name]
    size = {"conv2d": {}, "conv2d_input": {"size": tuple(x[2:])}, "conv2d_weight": {"size": tuple(w[2:])}}[name]
    rng = generator(name, dtype)
    operands = tuple(draw(rng, tuple(shape), dtype, 1.0) for shape in shapes)
    return Sample(name, operands, {**attrs, **size, "tensor_cores": True})


# ----------------------------------------------------------------------------------------- kernels


@needs_compiler
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_errors_are_those_of_float32(dtype: str) -> None:
    """Against float64. Before rounding, one chain of additions has more than the contract's blocks of 256 have, and is
    still within a thousandth of what rounding adds."""
    made, host = [], []
    for name in NAMES:
        for more in ({}, {"dtype": float32}):
            plain = sample(name, (2, 40, 9, 10), (72, 40, 3, 3), dtype, stride=(2, 1))
            given = Sample(plain.label, plain.operands, {**plain.attrs, **more})
            made.append((name, given, program(name, given)))
    host = Host([p for *_, p in made])
    for name, given, p in made:
        op, attrs = OPS[name], {k: v for k, v in given.attrs.items() if k not in ("tensor_cores", "dtype")}
        exact = op.ref(np, *(x.astype(np.float64) for x in given.operands), **attrs)
        ((got,), _) = host.run(p, given.operands)
        (theirs,) = op.bind([kiln.from_numpy(x) for x in given.operands], given.attrs)
        allowed = 1.02 if got.dtype != np.float32 else 2
        assert rms(got - exact) <= allowed * rms(theirs.numpy() - exact), f"{name} {got.dtype}"


@needs_compiler
def test_tiles_change_no_bit() -> None:
    """Of 128 results, of 64, and small ones: an image alone, and many of them."""
    given = sample("conv2d", (1, 8, 8, 8), (72, 8, 1, 1), "bfloat16", padding=(0, 0, 0, 0))
    x, w = given.operands
    many = np.concatenate([x, *[x[:, ::-1]] * 255])
    programs = [program("conv2d", replace(given, operands=(images, w))) for images in (x, many)]
    host = Host(programs)
    (one,), (all_of_them,) = (
        host.run(p, (images, w))[0] for p, images in zip(programs, (x, np.ascontiguousarray(many)), strict=True)
    )
    assert [k.threads for p in programs for k in p.kernels if k.name.startswith("conv2d")] == [128, 256]
    assert one.tobytes() == all_of_them[:1].tobytes()


def without(made: CudaProgram, function: str, what: str, k: int) -> CudaProgram:
    """The program without the k-th `what` of a helper."""

    def changed(text: str) -> str:
        at = text.find(function)
        if at < 0:
            return text
        parts = text[at:].split(what)
        return text[:at] + what.join(parts[: k + 1]) + ";" + what.join(parts[k + 1 :])

    kernels = tuple(replace(t, helpers=tuple(map(changed, t.helpers))) for t in made.kernels)
    return replace(made, kernels=kernels)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "function", "what", "k", "taps"),
    [
        ("conv2d", "\nk_convolve", "__syncthreads();", 1, 3),
        ("conv2d", "\nk_convolve", "k_copies_but_last();", 0, 3),
        ("conv2d", "\nk_put_tile", "__syncthreads();", 0, 3),
        ("conv2d_weight", "\nk_correlate", "__syncthreads();", 1, 3),
        pytest.param("conv2d", "\nk_convolve", "__syncthreads();", 2, 1, marks=pytest.mark.slow),
        pytest.param("conv2d_weight", "\nk_correlate", "k_copies_but_last();", 0, 3, marks=pytest.mark.slow),
    ],
)
def test_a_missing_barrier_shows(name: str, function: str, what: str, k: int, taps: int) -> None:
    """One order of threads or another gives other results."""
    given = sample(name, (1, 32, 6, 11), (24, 32, taps, taps), "bfloat16")
    made = program(name, given)
    planted = without(made, function, what, k)
    assert planted != made

    def found(p: CudaProgram) -> set[bytes]:
        host, results = Host([p]), set()
        for order in shim.ORDERS:
            try:
                results.add(host.run(p, given.operands, order=order)[0][0].tobytes())
            except shim.KernelError as fault:
                results.add(str(fault).encode())
        return results

    right = found(made)
    assert len(right) == 1 and found(planted) != right


# ----------------------------------------------------------------------------------------- through the frontend


def operands(device: str, dtype: Any) -> list[Any]:
    """Images, weights, a bias, weights of groups, sequences and theirs."""
    shapes = ((2, 16, 7, 6), (24, 16, 3, 3), (24,), (16, 8, 2, 2), (2, 5, 9), (3, 5, 2))
    rng = generator("convolutions")
    made = [kiln.from_numpy(draw(rng, s, "float32", 0.2)) for s in shapes]
    return [x.to(dtype).to(device).requires_grad_() for x in made]


def calls(x: Any, w: Any, b: Any, v: Any, s: Any, k: Any) -> list[Any]:
    """Convolutions of many kinds."""
    return [
        F.conv2d(x, w, b, padding=1),
        F.conv2d(x.transpose(2, 3)[:, :, 1:, ::2], w, stride=(2, 1)),
        F.conv2d(x, v, groups=2, padding="same", dilation=2),
        F.conv_transpose2d(x, v, stride=2, groups=2, output_padding=1),
        F.conv1d(s, k, dilation=2),
        F.conv3d(x.unsqueeze(2), w.unsqueeze(2), b, stride=2),
        F.conv2d(x[:0], w, b),
        F.conv2d(x[:, :, :1, :1], v[:, :, :1, :1], groups=2),
    ]


def step(*given: Any) -> list[Any]:
    made = calls(*given)
    total = sum((y.float() * y.float()).sum() for y in made)
    return [*(y.detach() for y in made), *kiln.grad(total, given)]


def close(found: Any, wanted: Any, allowed: float) -> bool:
    """Within so much of the largest result."""
    found, wanted = (x.detach().float().cpu().numpy() for x in (found, wanted))
    return bool(np.abs(found - wanted).max(initial=0) <= allowed * max(1e-3, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize(("dtype", "allowed"), [(kiln.bfloat16, 2e-2), (kiln.float16, 2e-3)], ids=str)
def test_compiled_is_eager(gpu: Gpu, dtype: Any, allowed: float) -> None:
    """Results and gradients, close to the CPU's."""
    wanted, eager = step(*operands("cpu", dtype)), step(*operands("cuda", dtype))
    assert [x.dtype for x in eager] == [x.dtype for x in wanted]
    assert all(close(*pair, allowed) for pair in zip(eager, wanted, strict=True))
    compiled = kiln.compile(step)
    for _ in range(2):
        assert list(map(bits, compiled(*operands("cuda", dtype)))) == list(map(bits, eager))


def test_one_kernel_serves_all_sizes(fake: Gpu) -> None:
    w = kiln.ones(8, 8, 3, 3, dtype=kiln.float16, device="cuda")

    def call(batch: int, height: int, width: int) -> Any:
        return F.conv2d(kiln.ones(batch, 8, height, width, dtype=kiln.float16, device="cuda"), w)

    call(2, 5, 9)
    before = fake.counts["compile"]
    assert (call(3, 8, 7).cpu().numpy() == 72).all()
    assert fake.counts["compile"] == before


def kernels(f: Any, *given: Any) -> list[str]:
    """The ops that a compiled function launches."""
    return [launch.kernel.rpartition("_")[0] for launch in kiln.explain(f, *given).cuda().launches]


def test_copies_are_shared_and_made_on_the_way(gpu: Gpu) -> None:
    """What is channels-last stays where it is, what a kernel computes is written so, gradients share what they read."""
    x, w = (kiln.ones(*s, dtype=kiln.bfloat16, device="cuda") for s in ((2, 16, 5, 5), (16, 16, 3, 3)))
    last, weights = (v.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for v in (x, w))
    assert kernels(F.conv2d, x, w) == ["copy", "copy", "conv2d"]
    assert kernels(F.conv2d, last, weights) == ["conv2d"]
    assert bits(F.conv2d(last, weights)) == bits(F.conv2d(x, w))

    def chain(x: Any, w: Any) -> Any:
        return F.conv2d(F.conv2d(x, w).relu(), w)

    def read(x: Any, w: Any) -> Any:
        y = F.conv2d(x, w).relu()
        return F.conv2d(y, w).relu(), y.sum()

    assert kernels(chain, x, w) == ["copy", "copy", "conv2d", "relu", "conv2d"]
    assert kernels(read, x, w).count("copy") == 3

    def gradients(x: Any, w: Any, g: Any) -> Any:
        return OPS["conv2d_input"](g, w, size=(5, 5), **attrs), OPS["conv2d_weight"](x, g, size=(3, 3), **attrs)

    attrs = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "tensor_cores": True}
    assert kernels(gradients, x, w, x).count("copy") == 3 - 1  # w, and x, which is also the gradient


def test_transforms(gpu: Gpu) -> None:
    x, w, *_ = (v.detach() for v in operands("cuda", kiln.bfloat16))
    each = kiln.vmap(lambda x: F.conv2d(x.unsqueeze(0), w).squeeze(0))(x)
    assert bits(each) == bits(F.conv2d(x, w))
    out, tangent = kiln.func.jvp(lambda w: F.conv2d(x, w), (w,), (w,))
    assert bits(out) == bits(tangent)


# ----------------------------------------------------------------------------------------- who reaches it


def uses(x: Any, w: Any, **given: Any) -> bool:
    """Whether a convolution goes through tensor cores."""
    captured = str(kiln.explain(lambda x, w: F.conv2d(x, w, **given), x, w)["captured"])
    return "tensor_cores" in captured


def test_who_reaches_it(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*shape: int, dtype: Any = kiln.float16, device: str = "cuda") -> Any:
        return kiln.zeros(*shape, dtype=dtype, device=device)

    x = of(1, 16, 4, 4)
    assert uses(x, of(2, 16, 1, 1)) and uses(of(1, 1, 4, 4), of(1, 1, 1, 1)) and uses(x, of(16, 4, 1, 1), groups=4)
    assert not uses(x, of(16, 1, 1, 1), groups=16) and not uses(x, of(8, 4, 1, 1), groups=4)
    assert not uses(of(1, 16, 4, 4, dtype=kiln.float32), of(2, 16, 1, 1, dtype=kiln.float32))
    assert not uses(of(1, 16, 4, 4, device="cpu"), of(2, 16, 1, 1, device="cpu"))
    assert products.tensor_cores(x, x, 1, ()) and not products.tensor_cores(x, x, 1, (1 << 26,))
    monkeypatch.setattr(kiln.cuda, "get_device_capability", lambda device: (7, 5))
    there.has_tensor_cores.cache_clear()
    assert not products.tensor_cores(x, x, 1, ())
    there.has_tensor_cores.cache_clear()


def test_the_switch_gives_the_bits_of_the_cpu(gpu: Gpu) -> None:
    """Captures are made anew for it."""
    cudnn, x, w = kiln.backends.cudnn, *(v.detach() for v in operands("cuda", kiln.float16)[:2])
    f = kiln.compile(lambda x, w: F.conv2d(x, w))
    f(x, w)
    assert cudnn.enabled and uses(x, w)
    try:
        cudnn.enabled = False
        assert not uses(x, w)
        assert bits(f(x, w)) == bits(F.conv2d(x, w)) == bits(F.conv2d(x.cpu(), w.cpu()))
    finally:
        cudnn.enabled = True

    def changes(x: Any) -> Any:
        cudnn.enabled = False
        return x

    with pytest.raises(CaptureError, match="enabled inside"):
        kiln.compile(changes, fullgraph=True)(x)
