"""eigh, svd and pinv on a GPU: what they find decomposes the matrix, is orthonormal and in order, and is the same in
any order of threads. Vectors are compared by that, as they are unique only up to their phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.errors import LinAlgError
from kiln.ir.gpu_program import CudaProgram, HostCall
from kiln.ir.ops import OPS
from tests import tolerances as tol
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import needs_compiler, program
from tests.gpu import shim
from tests.gpu.conftest import Gpu
from tests.ops.samples import samples
from tests.ops.sampling import Sample

Array = np.ndarray[Any, Any]
NAMES = ("eigh", "svd", "pinv")


def adjoint(x: Array) -> Array:
    return np.conj(np.swapaxes(x, -1, -2))


def wide(x: Array) -> Array:
    return x.astype(complex if x.dtype.kind == "c" else float)


def norm(x: Array) -> Array:
    return np.asarray(np.linalg.norm(x, axis=(-2, -1)))


def orthonormal(v: Array, unit: float) -> bool:
    """The columns."""
    n = v.shape[-1]
    return not v.size or bool((norm(adjoint(v) @ v - np.eye(n)) <= tol.SPECTRAL * unit * (n + 2)).all())


def decomposes(a: Array, made: Array, unit: float) -> bool:
    size = max(1, *a.shape[-2:]) + 2
    return not a.size or bool((norm(a - made) <= tol.SPECTRAL * unit * size * norm(a) + np.finfo(float).tiny).all())


def hermitian(a: Array, upper: bool) -> Array:
    """What one triangle says."""
    n = a.shape[-1]
    part = np.triu(a, 1) if upper else np.tril(a, -1)
    made = part + adjoint(part)
    made[..., range(n), range(n)] = np.diagonal(a, 0, -2, -1).real
    return made


def right(name: str, s: Sample, results: list[Array]) -> None:
    """Whether the results are."""
    (x,) = s.operands
    a, unit = wide(x), float(np.finfo(x.dtype).eps)
    assert results[0].dtype.itemsize in (x.itemsize, x.itemsize // 2)
    if name == "eigh":
        w, v = map(wide, results)
        a = hermitian(a, s.attrs["upper"])
        assert w.shape == a.shape[:-1] and v.shape == a.shape and (np.diff(w) >= 0).all()
        assert decomposes(a, (v * w[..., None, :]) @ adjoint(v), unit) and orthonormal(v, unit)
        normal(v)
    elif name == "svd":
        u, values, vh = map(wide, results)
        k = values.shape[-1]
        sides = [x.shape[-2], x.shape[-1]] if s.attrs["full"] else [k, k]
        assert (u.shape[-1], vh.shape[-2], k) == (*sides, min(x.shape[-2:]))
        assert (values >= 0).all() and (np.diff(values) <= 0).all()
        assert decomposes(a, (u[..., :k] * values[..., None, :]) @ vh[..., :k, :], unit)
        assert orthonormal(u, unit) and orthonormal(adjoint(vh), unit)
        normal(adjoint(vh)[..., :k] if a.shape[-2] >= a.shape[-1] else u[..., :k])
    else:
        lower: Any = OPS[name].lower
        with np.errstate(divide="ignore"):
            wanted = lower.run(a, **s.attrs)
        assert results[0].shape == wanted.shape
        if a.size:  # an error is one of the matrix, which its condition magnifies
            far = norm(a) * norm(wanted) + 1
            allowed = tol.SPECTRAL * unit * far * norm(wanted) * (max(x.shape[-2:]) + 2)
            assert (norm(results[0] - wanted) <= allowed).all()


def normal(v: Array) -> None:
    """The largest element of every column is positive."""
    if v.size:
        places = np.abs(v).argmax(axis=-2)[..., None, :]
        largest = np.take_along_axis(v, places, axis=-2)
        with_equals = np.abs(v) >= np.abs(largest) * (1 - 1e-3)  # of equals, roundings choose
        positive = with_equals & (np.abs(v.imag) <= 1e-3 * np.abs(v)) & (v.real > 0)
        assert (positive.any(axis=-2)).all()


def check(calls: list[tuple[str, Sample]], orders: int = 3) -> list[CudaProgram]:
    made = [program(name, s) for name, s in calls]
    assert not any(isinstance(step, HostCall) for p in made for step in p.steps)
    host = Host(made)
    for (name, s), p in zip(calls, made, strict=True):
        found = []
        for order in list(shim.ORDERS)[-orders:]:
            results, failed = host.run(p, [np.array(x) if not x.size else x for x in s.operands], order=order)
            assert failed is None, f"{name} {s.label}"
            found.append(results)
        assert len({tuple(r.tobytes() for r in results) for results in found}) == 1, f"{name} {s.label}"
        try:
            right(name, s, found[0])
        except AssertionError as error:
            raise AssertionError(f"{name} {s.label}") from error
    return made


def few(name: str) -> list[tuple[str, Sample]]:
    """Samples that need few kernels: matrices of float32, stacks of complex128."""
    kinds = {("float32", 2), ("complex128", 3)}
    small = [s for s in samples(name) if max((0, *s.operands[0].shape[-2:])) < 8]
    return [(name, s) for s in small if (s.operands[0].dtype.name, s.operands[0].ndim) in kinds]


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_small_samples(name: str) -> None:
    """Memory of every kind; rows and columns, stacks, and none of them."""
    check(few(name), 2)


@needs_compiler
def test_large_samples() -> None:
    """Of more columns than warps, and than lanes, which they do not divide."""
    x = np.random.default_rng(0).normal(size=(2, 37, 35))
    check(
        [
            ("eigh", Sample("float32", (x[:, :35].astype(np.float32),), {"upper": False})),
            ("svd", Sample("complex128", ((x[0] - 1j * x[1]).T,), {"full": True})),
        ]
    )


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_sample(name: str) -> None:
    check([(name, s) for s in samples(name)])


def difficult(n: int, dtype: str) -> Iterator[tuple[str, Array]]:
    """Of low rank, with equal values, of very different or extreme size, and what has zeros where others have none."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, n)) + (1j * rng.normal(size=(n, n)) if dtype.startswith("complex") else 0)
    q, _ = np.linalg.qr(x)
    limits, k = np.finfo(dtype), np.arange(n)

    def of(values: Any) -> Array:
        return np.asarray((q * values) @ adjoint(q))

    yield "zero", np.zeros((n, n))
    yield "one", np.eye(n)
    yield "ones", np.ones((n, n))
    yield "low rank", of(k % 4 == 1)
    yield "close", of(1 + 1e-6 * k)
    yield "equal", of(np.array([1.0, 2.0, -3.0])[k % 3])
    yield "falling", of(10.0**-k)
    yield "falling rows and columns", 10.0 ** -k[:, None] * (x + adjoint(x)) * 10.0**-k
    yield "huge", of(0.5 + k * 0.01) * (float(limits.max) / 2)
    yield "tiny", of(1.0 + k) * float(limits.tiny)
    yield "turned", np.eye(n)[::-1]
    yield "tridiagonal", np.diag(np.abs(k - n // 2).astype(float)) + np.eye(n, k=1) + np.eye(n, k=-1)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", pytest.param("complex128", marks=pytest.mark.slow)])
def test_difficult_matrices(dtype: str) -> None:
    with np.errstate(under="ignore"):
        stack = np.array([x.astype(dtype) for _, x in difficult(9, dtype)])
    scaled = np.array([x / max(1e-300, float(np.abs(x).max())) for x in wide(stack)])
    calls = [("eigh", Sample("", (stack,), {"upper": False})), ("svd", Sample("", (stack,), {"full": True}))]
    made = [program(name, s) for name, s in calls]
    host = Host(made)
    for (name, s), p in zip(calls, made, strict=True):
        results, failed = host.run(p, [stack], order="shuffled")
        assert failed is None
        for b, x in enumerate(scaled):
            size = max(1e-300, float(np.abs(wide(stack[b])).max()))
            own = [r[b] for r in results]
            values = 0 if name == "eigh" else 1
            own[values] = (own[values].astype(float) / size).astype(own[values].dtype)
            right(name, Sample(f"{name} {b}", (x.astype(dtype),), s.attrs), own)


# --------------------------------------------------------------------------------------------- tensors


def bits(x: Any) -> bytes:
    return bytes(np.ascontiguousarray(x.detach().cpu().numpy()).tobytes())


def symmetric(n: int = 4) -> Any:
    x = np.random.default_rng(n).normal(size=(n, n)) + 3 * np.diag(np.arange(n))
    return kiln.from_numpy(x + x.T)


def test_compiled_is_eager(gpu: Gpu) -> None:
    def decomposed(x: Any) -> Any:
        w, v = kiln.linalg.eigh(x + x.mT)
        return w, v, *kiln.linalg.svd(x[:, :3], full_matrices=False)

    x = symmetric().cuda()
    eager = decomposed(x)
    assert all(y.is_cuda for y in eager)
    assert [bits(y) for y in kiln.compile(decomposed, fullgraph=True)(x)] == [bits(y) for y in eager]


def test_gradients(gpu: Gpu) -> None:
    """Of what does not depend on the vectors' phase."""

    def loss(x: Any) -> Any:
        w, v = kiln.linalg.eigh(x)
        u, s, vh = kiln.linalg.svd(x[:, :3], full_matrices=False)
        return (w**3).sum() + (v[0] ** 4).sum() + s[0] ** 2 + (u @ vh).sum() + kiln.linalg.pinv(x[:3]).sum()

    made = []
    for device in ("cpu", "cuda"):
        x = symmetric().to(device).requires_grad_()
        loss(x).backward()
        assert x.grad is not None
        made.append(x.grad.cpu().numpy())
    assert np.allclose(made[1], made[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_refused(name: str, gpu: Gpu) -> None:
    """On the user's line, and all goes on. What LAPACK makes of it differs from op to op."""
    function = getattr(kiln.linalg, name)
    x = kiln.ones(3, 2, 2, device="cuda")
    x[1] = float("nan") if name == "svd" else float("inf")
    with pytest.raises(LinAlgError, match="did not converge: there are infinities or NaNs") as caught:
        function(x)
    assert name in str(caught.value)
    function(kiln.ones(3, 2, 2, device="cuda"))
