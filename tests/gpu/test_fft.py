"""Fourier transforms on a GPU: every length and form near the library's numbers, in any order of threads the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda import fft, fft_text
from kiln.ir.gpu_program import CudaProgram, HostCall
from kiln.ir.ops import OPS
from tests import tolerances as tol
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import needs_compiler, program, some
from tests.gpu import nvrtc, shim
from tests.gpu.conftest import Gpu
from tests.ops.sampling import Sample

Array = np.ndarray[Any, Any]


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if dtype.startswith("complex") else x).astype(dtype)


def sample(dtype: str, shape: tuple[int, ...], *dims: int, norm: str = "one", **attrs: Any) -> Sample:
    label = f"{dtype}-{shape}-{dims}"
    return Sample(label, (numbers(shape, dtype),), {"dims": dims, "norm": norm, **attrs})


def wanted(name: str, s: Sample) -> Array:
    """In double precision."""
    (x,) = s.operands
    lower: Any = OPS[name].lower
    return np.asarray(lower.run(x.astype(complex if x.dtype.kind == "c" else float), **s.attrs))


def check(calls: list[tuple[str, Sample]]) -> list[CudaProgram]:
    made = [program(name, s) for name, s in calls]
    assert not any(isinstance(step, HostCall) for p in made for step in p.steps)
    host = Host(made)
    for (name, s), p in zip(calls, made, strict=True):
        inputs = [np.array(x) if not x.size else x for x in s.operands]
        results = [host.run(p, inputs, order=order)[0][0] for order in shim.ORDERS]
        assert len({r.tobytes() for r in results}) == 1, f"{name} {s.label}: orders differ"
        right = wanted(name, s)
        assert results[0].shape == right.shape
        if right.size:
            unit = np.finfo(results[0].dtype).eps * np.abs(right).max()
            error = np.abs(results[0] - right).max() / unit
            assert error < tol.TRANSFORM, f"{name} {s.label}: {error:.1f}"
    return made


@needs_compiler
@pytest.mark.parametrize("name", ["fft", "rfft", "irfft"])
def test_samples(name: str) -> None:
    check([(name, s) for s in some(name, 9)])


LENGTHS = (1, 2, 7, 11, 16, 27, 210, 512)
MORE = (3, 4, 5, 6, 8, 30, 49, 63, 64, 97, 100, 128, 243, 343, 1000, 1024, 2048, 2187, 2560, 2700)


@needs_compiler
@pytest.mark.parametrize("lengths", [LENGTHS, pytest.param(MORE, marks=pytest.mark.slow)])
def test_every_radix(lengths: tuple[int, ...]) -> None:
    check([("fft", sample(f"complex{64 << k % 2}", (3, n), 1, inverse=k % 3 == 0)) for k, n in enumerate(lengths)])


@needs_compiler
def test_memory_of_every_kind() -> None:
    x = numbers((6, 20, 4), "complex64")
    calls = []
    for k, order in enumerate([(0, 1, 2), (2, 1, 0)]):
        laid = x.transpose(order).copy().transpose(np.argsort(order))
        for view in (laid, laid[::-1, ::-2], np.broadcast_to(laid[:1], laid.shape)):
            attrs = {"dims": (1, 0) if k else (1,), "norm": "root", "inverse": False}
            calls.append(("fft", Sample(f"order {order} strides {view.strides}", (view,), attrs)))
    check(calls)


@needs_compiler
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lines_that_do_not_fit_into_shared_memory(slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes through workspaces, two and more: of lengths that would need them, or of a GPU that has less memory."""
    sizes = (4802, 8100, 8101, 1) if slow else (66, 480, 37, 3)
    if not slow:
        monkeypatch.setattr(fft_text, "SHARED", 512)
        monkeypatch.setattr(fft, "LONGEST", 8)
    half, n, prime, other = sizes
    calls = [
        ("fft", sample("complex128", (2, n, other), 1, 2, inverse=True, norm="all")),
        ("rfft", sample("float64", (other, prime), 1, 0)),
        ("irfft", sample("complex64", (other, prime // 2 + 1), 0, 1, size=prime)),
        ("fft", sample("complex64", (8100 if slow else 64,), 0, inverse=False)),  # more lines in a block than there are
    ]
    if slow:
        calls += [
            ("fft", sample("complex64", (prime, 2), 0, inverse=True)),
            ("rfft", sample("float32", (2, n), 1)),
            ("irfft", sample("complex128", (2, n // 2 + 1), 1, size=n)),
            ("irfft", sample("complex64", (other, half + 1), 0, 1, size=2 * half)),
        ]
    made = check(calls)
    assert all(len(p.launches) > 1 for p in made)


def test_tables_are_exact() -> None:
    for n in (1, 2, 3, 4, 7, 8, 12, 100, 1023):
        k = np.arange(n)
        made = fft_text.roots(n)
        assert np.abs(made - np.exp(-2j * np.pi * k / n)).max() < 1e-14
        assert np.abs(np.abs(made) - 1).max() < 1e-18 or np.finfo(np.longdouble).eps > 1e-18
        for where, value in ((0, 1), (n / 4, -1j), (n / 2, -1), (3 * n / 4, 1j)):
            if where == int(where) and where < n:
                assert made[int(where)] == value
    assert [fft.convolved(n) for n in (11, 13, 97, 1009)] == [24, 30, 240, 2048]


def test_no_kernel_of_a_long_line_spills() -> None:
    """The lines that need the most registers, for both targets."""
    nvrtc.need()
    cases = [
        ("fft", sample("complex128", (2, 2187), 1, inverse=True)),
        ("irfft", sample("complex128", (2, 4051), 1, size=8100)),
    ]
    kernels = {k.name: k for name, s in cases for k in program(name, s).kernels}
    for architecture in nvrtc.ARCHITECTURES:
        _, log = nvrtc.compiled(nvrtc.text(list(kernels.values())), architecture)
        assert not nvrtc.warnings(log)
        assert not [name for name, usage in nvrtc.usage(log).items() if usage.spills]


# --------------------------------------------------------------------------------------------- tensors


def bits(x: Any) -> bytes:
    return bytes(np.ascontiguousarray(x.detach().cpu().numpy()).tobytes())


def near(got: Any, right: Any) -> bool:
    a, b = got.detach().cpu().numpy(), right.detach().cpu().numpy()
    return a.shape == b.shape and np.abs(a - b).max() <= tol.TRANSFORM * np.finfo(a.dtype).eps * np.abs(b).max()


def filtered(x: Any) -> Any:
    """A low pass: out of real numbers, through a spectrum of two dimensions."""
    spectrum = kiln.fft.rfft2(x)
    kept = kiln.fft.fftshift(spectrum, dim=0) * 0.5
    return kiln.fft.irfft2(kept, s=x.shape)


def test_compiled_is_eager(gpu: Gpu) -> None:
    x = kiln.from_numpy(numbers((6, 10), "float32"))
    eager = filtered(x.cuda())
    assert eager.is_cuda and near(eager, filtered(x))
    assert bits(kiln.compile(filtered, fullgraph=True)(x.cuda())) == bits(eager)


def test_gradients(gpu: Gpu) -> None:
    made = []
    for device in ("cpu", "cuda"):
        x = kiln.from_numpy(numbers((2, 6), "complex128")).to(device).requires_grad_()
        (kiln.fft.fft(x, norm="ortho") ** 2).abs().sum().backward()
        y = kiln.from_numpy(numbers((3, 4), "float64")).to(device).requires_grad_()
        (kiln.fft.rfft(y).real ** 2).sum().backward()
        made.append((x.grad, y.grad))
    assert all(map(near, made[1], made[0]))


def test_equal_tables_are_one(gpu: Gpu) -> None:
    def twice(x: Any) -> Any:
        return kiln.fft.ifft(kiln.fft.fft(x) * 2)

    told = kiln.explain(twice, kiln.from_numpy(numbers((3, 30), "complex64")))
    made = told.cuda()
    assert len(made.constants) == 1 and made.constants[0].data.shape == (30,)
    assert [str(launch).count("constant0") for launch in made.launches].count(1) == 2
