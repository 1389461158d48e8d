"""Derivatives against finite differences: `gradcheck` for gradients, `gradgradcheck` for gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kiln import creation
from kiln.autograd.backward import grad
from kiln.autograd.grad_mode import enable_grad, no_grad
from kiln.complexes import view_as_complex, view_as_real
from kiln.errors import ArgumentError, GradError
from kiln.tensor import Tensor

__all__ = ["gradcheck", "gradgradcheck"]

Array = np.ndarray[Any, np.dtype[Any]]


def _tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
) -> bool:
    """Whether gradients of `func(*inputs)` by the inputs that require one agree with central differences.

    Inputs should be float64 or complex128, which count as their parts. `check_undefined_grad` also wants that outputs
    without a gradient count like zeros. The same backward is run twice and must agree within `nondet_tol`. Where no
    output requires a gradient, all differences must be zero. GradError names the pair that differs, unless
    `raise_exception` is False.
    """
    try:
        _check(func, _tuple(inputs), eps, atol, rtol, nondet_tol, check_undefined_grad)
    except GradError:
        if raise_exception:
            raise
        return False
    return True


def _by_parts(func: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of the parts of its complex inputs, which gives the parts of its complex outputs."""
    pairs = [isinstance(x, Tensor) and x.dtype.is_complex for x in inputs]

    def run(*args: Any) -> tuple[Any, ...]:
        given = [view_as_complex(a) if pair else a for a, pair in zip(args, pairs, strict=True)]
        made = _tuple(func(*given))
        return tuple([view_as_real(t) if isinstance(t, Tensor) and t.dtype.is_complex else t for t in made])

    taken = [
        view_as_real(x.detach().clone()).detach().requires_grad_(x.requires_grad) if pair else x
        for x, pair in zip(inputs, pairs, strict=True)
    ]
    return run, tuple(taken)


def _check(
    func: Callable[..., Any],
    inputs: tuple[Any, ...],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    undefined: bool,
) -> None:
    func, inputs = _by_parts(func, inputs)
    places = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        raise ArgumentError("no input requires a gradient", op="gradcheck")
    for k in places:
        if inputs[k].dtype.bits < 64:
            raise ArgumentError(
                f"input {k} is {inputs[k].dtype}: differences need float64", op="gradcheck", fix="pass it as double()"
            )
    with enable_grad():
        called = _tuple(func(*inputs))
    which = [n for n, t in enumerate(called) if isinstance(t, Tensor) and t.requires_grad]
    if not which:
        return _check_constant(func, inputs, places, called, eps)
    outputs = [called[n] for n in which]
    wanted = [inputs[k] for k in places]
    exact, again = _rows(outputs, wanted), _rows(outputs, wanted)
    for i, k in enumerate(places):
        differences = _differences(func, inputs, k, eps, which)
        for o in range(len(outputs)):
            got, want = exact[o][i], differences[o]
            if not np.allclose(got, want, rtol, atol, equal_nan=True):
                raise GradError(
                    f"the gradient of output {o} by input {k} is wrong\n  numerical:\n{want}\n  analytical:\n{got}",
                    op="gradcheck",
                )
            if not np.allclose(got, again[o][i], 0.0, nondet_tol, equal_nan=True):
                raise GradError(f"the gradient of output {o} by input {k} differs from run to run", op="gradcheck")
    if undefined and len(outputs) > 1:
        _check_undefined(outputs, wanted)


def _check_constant(
    func: Callable[..., Any], inputs: tuple[Any, ...], places: Sequence[int], called: tuple[Any, ...], eps: float
) -> None:
    """No output has a gradient: none may depend on the inputs."""
    which = [n for n, t in enumerate(called) if isinstance(t, Tensor) and t.dtype.is_inexact]
    for k in places:
        for n, slope in zip(which, _differences(func, inputs, k, eps, which), strict=True):
            if slope.any():
                raise GradError(
                    f"output {n} requires no gradient, but depends on input {k}\n  numerical:\n{slope}", op="gradcheck"
                )


def _rows(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[list[Array]]:
    """For each output and input: the derivatives, [input elements, output elements]."""
    found = []
    for out in outputs:
        rows = [np.zeros((x.numel(), out.numel())) for x in inputs]
        for k in range(out.numel()):
            seed = np.zeros(out.shape, out.dtype.numpy)
            seed.reshape(-1)[k] = 1
            grads = grad(out, inputs, creation.from_numpy(seed).to(out.device), retain_graph=True, allow_unused=True)
            for row, g, x in zip(rows, grads, inputs, strict=True):
                if g is None:
                    continue
                if g.ttype != x.ttype:
                    raise GradError(
                        "a gradient has another dtype or shape", op="gradcheck", operands=[x.ttype, g.ttype]
                    )
                row[:, k] = g.detach().cpu().numpy().reshape(-1)
        found.append(rows)
    return found


def _differences(
    func: Callable[..., Any], inputs: tuple[Any, ...], place: int, eps: float, which: Sequence[int]
) -> list[Array]:
    """Central differences of the outputs by one input, [input elements, output elements]."""
    base = np.array(inputs[place].detach().cpu().numpy())

    def values(data: Array) -> list[Array]:
        given = creation.from_numpy(data).to(inputs[place].device)
        with no_grad():
            out = _tuple(func(*inputs[:place], given, *inputs[place + 1 :]))
        return [np.array(out[n].detach().cpu().numpy()).reshape(-1) for n in which]

    rows: list[list[Array]] = []
    for k in range(base.size):
        up, down = base.copy(), base.copy()
        up.reshape(-1)[k] += eps
        down.reshape(-1)[k] -= eps
        rows.append([(a - b) / (2 * eps) for a, b in zip(values(up), values(down), strict=True)])
    sizes = [len(v) for v in values(base.copy())]
    return [np.array([r[n] for r in rows]).reshape(base.size, size) for n, size in enumerate(sizes)]


def _check_undefined(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """A gradient that is not there has the effect of zeros."""
    seeds = [creation.ones_like(t) for t in outputs]
    for k, out in enumerate(outputs):
        alone = grad(out, inputs, seeds[k], retain_graph=True, allow_unused=True)
        zeros = [s if n == k else creation.zeros_like(s) for n, s in enumerate(seeds)]
        together = grad(outputs, inputs, zeros, retain_graph=True, allow_unused=True)
        for a, b in zip(alone, together, strict=True):
            x = 0.0 if a is None else a.detach().cpu().numpy()
            y = 0.0 if b is None else b.detach().cpu().numpy()
            if not np.allclose(x, y, equal_nan=True):
                raise GradError("a missing gradient is not treated like zeros", op="gradcheck")


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
) -> bool:
    """`gradcheck` of the gradients of `func`, by its inputs and by the gradients that flow in (random unless given)."""
    given = _tuple(inputs)
    with enable_grad():
        outputs = [t for t in _tuple(func(*given)) if isinstance(t, Tensor) and t.requires_grad]
    if not outputs:
        raise GradError("no output requires a gradient", op="gradgradcheck")
    if grad_outputs is None:
        draw = np.random.default_rng(0).standard_normal
        seeds = tuple(
            [creation.tensor(draw(t.shape), dtype=t.dtype, device=t.device, requires_grad=True) for t in outputs]
        )
    else:
        seeds = _tuple(grad_outputs)
    count = len(given)
    places = [k for k, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]

    def gradients(*args: Any) -> tuple[Any, ...]:
        with enable_grad():
            by = [a if a.requires_grad else a.detach().requires_grad_() for a in (args[k] for k in places)]
            called = list(args[:count])
            for k, t in zip(places, by, strict=True):
                called[k] = t
            out = [t for t in _tuple(func(*called)) if isinstance(t, Tensor) and t.requires_grad]
            found = grad(out, by, args[count:], create_graph=True, allow_unused=True)
        return tuple([creation.zeros_like(t) if g is None else g for g, t in zip(found, by, strict=True)])

    return gradcheck(
        gradients, (*given, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad,
    )  # fmt: skip
