"""Factorisations on a GPU, and what is made of them: near the CPU's, with its errors, and the same in any order of
threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda import linalg, linalg_text
from kiln.errors import LinAlgError
from kiln.ir.gpu_program import CudaProgram, HostCall
from kiln.ir.ops import OPS
from tests import tolerances as tol
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import needs_compiler, program, some
from tests.gpu import nvrtc, shim
from tests.gpu.conftest import Gpu
from tests.ops.samples import Sample, samples

Array = np.ndarray[Any, Any]
NAMES = sorted(linalg.TEMPLATES)


def near(got: Array, wanted: Array, size: int) -> bool:
    """Within tolerance, where matrices have `size` rows or columns; NaNs and infinities are where they should be."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if got.dtype.kind in "iu":
        return bool((got == wanted).all())
    fine = np.isfinite(wanted)
    if (np.isfinite(got) != fine).any() or (np.isnan(got) != np.isnan(wanted)).any():
        return False
    unit = np.finfo(got.dtype).eps * tol.FACTORED * (size + 8)
    return not fine.any() or bool(np.abs(got[fine] - wanted[fine]).max() <= unit * np.abs(wanted[fine]).max())


def check(calls: list[tuple[str, Sample]]) -> list[CudaProgram]:
    """In every order of threads the same, and near the library's."""
    made = [program(name, s) for name, s in calls]
    assert not any(isinstance(step, HostCall) for p in made for step in p.steps)
    host = Host(made)
    for (name, s), p in zip(calls, made, strict=True):
        inputs = [np.array(x) if not x.size else x for x in s.operands]
        found = []
        for order in shim.ORDERS:
            results, failed = host.run(p, inputs, order=order)
            assert failed is None, f"{name} {s.label}"
            found.append(results)
        assert len({b"".join(x.tobytes() for x in each) for each in found}) == 1, f"{name} {s.label}: orders differ"
        operands = [kiln.from_numpy(np.array(x)) for x in s.operands]
        wanted = [t.numpy() for t in OPS[name].bind(operands, s.attrs, receiver=kiln.zeros(1))]
        for got, right in zip(found[0], wanted, strict=True):
            assert near(got, right, max(s.operands[0].shape[-2:])), f"{name} {s.label}"
    return made


@needs_compiler
@pytest.mark.parametrize("names", [NAMES[k::3] for k in range(3)], ids=lambda names: names[0])
def test_samples(names: list[str]) -> None:
    check([(name, s) for name in names for s in some(name, 6)])


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_every_sample(name: str) -> None:
    check([(name, s) for s in samples(name)])


PANELS = [n for n in NAMES if n not in ("lu_permutation", "triangular_solve")]
QUICK = ("cholesky", "lu_factor", "matrix_exp", "qr", "slogdet", "solve")


@needs_compiler
@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_matrices_that_do_not_fit_into_shared_memory(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a GPU had none: panels, and singular matrices."""
    monkeypatch.setattr(linalg_text, "SMALL", 0)
    calls = []
    for name in QUICK if quick else PANELS:
        kind = "float64" if name == "matrix_exp" else "complex128" if quick else ""
        several = [s for s in samples(name) if any(w in s.label for w in ("blocks", "flawed", "unchecked"))]
        calls += [(name, s) for s in several if s.label.startswith(kind)]
    made = check(calls)
    assert any(len(p.launches) > 6 for p in made)


@needs_compiler
def test_stacks_in_memory_of_any_kind() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 4)) + 4 * np.eye(4)
    b = rng.normal(size=(3, 2, 4, 2)).swapaxes(0, 1)
    calls = []
    for label, view in (
        ("turned", x.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3)),
        ("mirrored", x[::-1, :, ::-1, ::-1]),
        ("repeated", np.broadcast_to(x[:, :1], x.shape)),
        ("every other", np.repeat(x, 2, axis=1)[:, ::2]),
    ):
        calls += [(name, Sample(label, (view,), attrs)) for name, attrs in (("inv", {"check": True}), ("qr", {}))]
        calls.append(("solve", Sample(label, (view, b), {"check": False})))
        calls.append(("triangular_solve", Sample(label, (view, b), {"upper": True, "unit": False})))
    check(calls)


@needs_compiler
def test_determinants_overflow_only_if_their_value_does() -> None:
    big, small = np.diag([1e200, -1e200, 1e-200, 1e-200]), np.diag([5e-324, 1e300, 2.0])
    lost = np.diag([1e-300, 1e-300, 3.0])
    made = [program("det", Sample("", (x,))) for x in (big, small, lost, big + 0j)]
    host = Host(made)
    found = [host.run(p, [x])[0][0][()] for p, x in zip(made, (big, small, lost, big + 0j), strict=True)]
    assert np.allclose(found[0], -1) and np.allclose(found[1], 5e-324 * 1e300 * 2, rtol=1e-12) and found[2] == 0
    assert np.allclose(found[3], -1)


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["complex128", "float32"])
@pytest.mark.slow
def test_kernels_of_large_matrices_compile(dtype: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They don't spill, and there are registers for all threads of a block."""
    nvrtc.need()
    monkeypatch.setattr(linalg_text, "SMALL", 0)
    every: dict[str, Any] = {}
    for name in PANELS:
        every |= {k.name: k for s in samples(name) if s.label == f"{dtype}-blocks" for k in program(name, s).kernels}
    _, log = nvrtc.compiled(nvrtc.text(list(every.values())), architecture)
    assert not nvrtc.warnings(log)
    for name, usage in nvrtc.usage(log).items():
        assert not usage.spills and not usage.stack, name
        assert usage.registers * every[name].threads <= 1 << 16, name
        assert usage.shared <= 48 << 10, name


# ------------------------------------------------------------------------------------------------ tensors


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return kiln.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def definite(n: int) -> Any:
    x = numbers(2, n, n)
    return x @ x.mT + kiln.eye(n, dtype=kiln.float64)


def both(function: Callable[..., Any], *tensors: Any) -> None:
    """Near the CPU's on a GPU; compiled, eager's bits."""
    there = [x.cuda() for x in tensors]
    wanted, eager, compiled = function(*tensors), function(*there), kiln.compile(function)(*there)
    for right, got, again in zip(wanted, eager, compiled, strict=True):
        assert got.is_cuda and near(got.detach().cpu().numpy(), right.detach().numpy(), 64)
        assert got.detach().cpu().numpy().tobytes() == again.detach().cpu().numpy().tobytes()


def test_compiled_is_eager(gpu: Gpu) -> None:
    def several(a: Any, b: Any) -> Any:
        x = kiln.linalg.solve(a, b)
        lu, pivots, info = kiln.linalg.lu_factor_ex(a)
        q, r = kiln.linalg.qr(a)
        sign, log = kiln.linalg.slogdet(a)
        factor, bad = kiln.linalg.cholesky_ex(a)
        return x, lu, pivots, info, q, r, sign, log, kiln.linalg.inv(a), kiln.linalg.det(a), factor, bad

    both(several, numbers(2, 5, 5) * 0.2 + kiln.eye(5, dtype=kiln.float64), numbers(2, 5, 3, seed=1))


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "cholesky and slogdet": lambda a: kiln.linalg.cholesky(a).sum() + kiln.linalg.slogdet(a)[1].sum(),
    "solve and inv": lambda a: kiln.linalg.solve(a, a.mT * a).sum() + kiln.linalg.inv(a).sum(),
    "qr": lambda a: (kiln.linalg.qr(a)[0] * a).sum() + kiln.linalg.qr(a)[1].sum(),
    "lu": lambda a: kiln.linalg.lu_factor(a)[0].sum() + kiln.linalg.det(a).log().sum(),
    "matrix_exp": lambda a: kiln.linalg.matrix_exp(a * 0.1).sum(),
    "triangular": lambda a: kiln.linalg.solve_triangular(a, a * a, upper=True).sum(),
}
FIRST = ("cholesky and slogdet", "qr")


@pytest.mark.parametrize("name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in GRADIENTS])
def test_gradients(name: str, gpu: Gpu) -> None:
    def gradient(a: Any) -> Any:
        a = a.detach().requires_grad_()
        GRADIENTS[name](a).backward()
        return (a.grad,)

    if name in FIRST:
        a = definite(4)
        assert near(gradient(a.cuda())[0].cpu().numpy(), gradient(a)[0].numpy(), 64)
    else:
        both(gradient, definite(4))


def flawed(n: int = 3) -> Any:
    """The matrices (0, 1) and (1, 1) of a stack can't be inverted."""
    x = np.broadcast_to(np.eye(n), (2, 2, n, n)).copy()
    x[0, 1, 1:, 1:] = 0
    x[1, 1] = 0
    return kiln.from_numpy(x)


REFUSED: list[Callable[[Any], Any]] = [
    kiln.linalg.cholesky,
    kiln.linalg.inv,
    lambda a: kiln.linalg.solve(a, a),
    kiln.linalg.lu_factor,
]


@pytest.mark.parametrize("function", REFUSED, ids=["cholesky", "inv", "solve", "lu_factor"])
@pytest.mark.parametrize("shared", [True, False])
def test_errors_are_the_cpus(function: Any, shared: bool, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared:
        monkeypatch.setattr(linalg_text, "SMALL", 0)
    n = 3 if shared else 4
    for a in (flawed(n), flawed(n)[:, 1], flawed(n)[1, 1]):
        with pytest.raises(LinAlgError) as wanted:
            function(a)
        for call in (function, kiln.compile(lambda x: function(x))):
            with pytest.raises(LinAlgError) as caught:
                call(a.cuda())
            assert caught.value.message == wanted.value.message
            assert caught.value.loc is not None and caught.value.loc.file == __file__
            assert caught.value.op == wanted.value.op


def test_pivots_that_are_none(gpu: Gpu) -> None:
    bad = kiln.tensor([[1, 2], [4, 1]], dtype=kiln.int32)
    for device in ("cpu", "cuda"):
        with pytest.raises(LinAlgError, match="rows from 1 to 3"):
            OPS["lu_permutation"](bad.to(device), rows=3)


def test_nan_is_no_error(gpu: Gpu) -> None:
    a = kiln.eye(3)
    a[1, 1] = float("nan")
    for function in (kiln.linalg.cholesky, kiln.linalg.det, lambda a: kiln.linalg.qr(a)[1], kiln.linalg.matrix_exp):
        assert np.isnan(function(a.cuda()).cpu().numpy()).any()
    assert np.isnan(kiln.linalg.solve(a.cuda(), a.cuda()).cpu().numpy()).any()
    assert np.isnan(kiln.linalg.inv_ex(kiln.zeros(2, 2).cuda()).inverse.cpu().numpy()).all()


def test_results_of_no_elements(gpu: Gpu) -> None:
    for shape in ((0, 0), (0, 3, 3), (2, 0, 0)):
        a = kiln.ones(*shape)
        assert kiln.linalg.inv(a.cuda()).shape == shape and kiln.linalg.cholesky(a.cuda()).shape == shape
        assert kiln.linalg.det(a.cuda()).tolist() == kiln.linalg.det(a).tolist()
    q, r = kiln.linalg.qr(kiln.ones(3, 0).cuda(), mode="complete")
    assert q.tolist() == np.eye(3).tolist() and r.shape == (3, 0)
