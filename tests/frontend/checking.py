"""What every public function is held to: NumPy on awkward memory, compiled results, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import kiln

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
STEP = 1e-6


def layouts(make: Callable[[tuple[int, ...]], Array]) -> Iterator[Array]:
    """Arrays of `make`'s elements whose memory lies differently: 0-d, empty, transposed, strided, contiguous."""
    yield make(())
    yield make((0, 3))
    yield make((4, 5)).T
    yield make((6, 8))[::2, 1::3]
    yield make((37,))


def tensors(arrays: tuple[Any, ...]) -> list[Any]:
    """Arrays as tensors on their memory; anything else as it is."""
    return [kiln.from_numpy(x) if isinstance(x, np.ndarray) else x for x in arrays]


def same_bits(a: Array, b: Array) -> bool:
    """Equal bit for bit, all NaNs being one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "c":
        return same_bits(a.real, b.real) and same_bits(a.imag, b.imag)
    if a.dtype.kind != "f":
        return bool((a == b).all())
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    equal = a.view(f"i{a.itemsize}") == b.view(f"i{b.itemsize}")
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())


def flat(result: Any) -> list[Any]:
    """The tensors of a result."""
    return [result] if isinstance(result, kiln.Tensor) else list(result)


def compiles(f: Function, *arrays: Any) -> None:
    """Compiled twice gives the bits of eager."""
    eager = [x.numpy() for x in flat(f(*tensors(arrays)))]
    compiled = kiln.compile(f)
    for _ in range(2):
        for got, wanted in zip(flat(compiled(*tensors(arrays))), eager, strict=True):
            assert same_bits(got.numpy(), wanted), (got, wanted)


def agrees(f: Function, ref: Callable[..., Any], *arrays: Any, ulp: float = 0.0, scale: float = 0.0) -> None:
    """Eager against NumPy (within `ulp` units of the result, or of `scale`), and compiled against eager."""
    with np.errstate(all="ignore"):
        wanted = np.asarray(ref(*arrays))
    got = f(*tensors(arrays)).numpy()
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, (got.dtype, wanted.dtype, got.shape, wanted.shape)
    if ulp:
        with np.errstate(all="ignore"):
            allowed = ulp * np.spacing(np.maximum(np.abs(np.where(np.isfinite(wanted), wanted, 1)), scale))
            near = (np.abs(got - wanted) <= allowed) | (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        assert near.all(), (got[~near], wanted[~near])
    else:
        assert same_bits(got, wanted), (got, wanted)
    compiles(f, *arrays)


def real_numbers(t: Any) -> Any:
    """A complex tensor as its parts, any other as it is."""
    return kiln.view_as_real(t) if t.is_complex() else t


def _direction(rng: np.random.Generator, x: Any) -> Array:
    """Random numbers, complex ones for complex `x`."""
    made = rng.normal(size=np.shape(x))
    return np.asarray(made + 1j * rng.normal(size=np.shape(x)) if np.iscomplexobj(x) else made)


def differentiates(f: Function, *arrays: Any, tolerance: float = 1e-6, second: bool = False) -> None:
    """Gradients (with `second`: of gradients too) against central differences in float64, and compiled ones against
    eager ones, bit for bit."""
    rng = np.random.default_rng(3)
    wants = [isinstance(x, np.ndarray) and x.dtype.kind in "fc" for x in arrays]
    results = [real_numbers(r).numpy() for r in flat(f(*tensors(arrays)))]
    weights = [kiln.from_numpy(np.asarray(rng.normal(size=r.shape))) for r in results if r.dtype.kind == "f"]

    def number(*operands: Any) -> Any:
        parts = [r for r in map(real_numbers, flat(f(*operands))) if r.dtype.is_floating_point]
        total = (parts[0] * weights[0]).sum()
        for r, w in zip(parts[1:], weights[1:], strict=True):
            total = total + (r * w).sum()
        return total

    _differences(number, arrays, wants, rng, tolerance)
    if second:
        seconds = [kiln.from_numpy(_direction(rng, x)) for x, w in zip(arrays, wants, strict=True) if w]

        def slope(*operands: Any) -> Any:
            leaves = [x for x, w in zip(operands, wants, strict=True) if w]
            grads = kiln.grad(number(*operands), leaves, create_graph=True)
            return sum(
                (real_numbers(g * s).sum() for g, s in zip(grads, seconds, strict=True)),
                start=kiln.zeros((), dtype=kiln.float64),
            )

        _differences(slope, arrays, wants, rng, 10 * tolerance)


def _differences(
    number: Function, arrays: tuple[Any, ...], wants: list[bool], rng: np.random.Generator, tolerance: float
) -> None:
    def fresh() -> list[Any]:
        made = tensors(tuple(np.array(x) if isinstance(x, np.ndarray) else x for x in arrays))
        return [x.requires_grad_() if w else x for x, w in zip(made, wants, strict=True)]

    def gradients(*operands: Any) -> tuple[Any, ...]:
        return tuple(kiln.grad(number(*operands), [x for x, w in zip(operands, wants, strict=True) if w]))

    moves = [_direction(rng, x) if w else 0 for x, w in zip(arrays, wants, strict=True)]
    values = []
    for step in (STEP, -STEP):
        moved = tuple(x + step * m if w else x for x, m, w in zip(arrays, moves, wants, strict=True))
        operands = [x.requires_grad_() if w else x for x, w in zip(tensors(moved), wants, strict=True)]
        values.append(number(*operands).item())
    numeric = (values[0] - values[1]) / (2 * STEP)
    grads = gradients(*fresh())
    along = [m for m, w in zip(moves, wants, strict=True) if w]
    analytic = sum(float(np.vdot(g.numpy(), m).real) for g, m in zip(grads, along, strict=True))
    assert abs(analytic - numeric) <= tolerance * (1 + abs(numeric)), (analytic, numeric)
    compiled = kiln.compile(gradients)
    for _ in range(2):
        for got, wanted in zip(compiled(*fresh()), grads, strict=True):
            assert same_bits(got.numpy(), wanted.numpy())
