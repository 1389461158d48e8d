"""Scans: results of which each depends on the one before it along a dimension.

The order is the plain one: element by element, ascending along `dim`, or descending with `reverse`. 16-bit floats are
carried in float32, and each result is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, OpDef, OpTypeError, Template, quiet, register, same_types
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import ANY, NUMERIC, add, mul
from kiln.ir.ops.movement import cat, slice_
from kiln.ir.types import Dim, DType, TensorType, int64

SCANS: Final = ("cumsum", "recur", "cumargmax")


def _dim(attrs: Attrs) -> int:
    return cast("int", attrs["dim"])


def _checked(op: str, operands: Sequence[TensorType], attrs: Attrs, among: Sequence[DType]) -> TensorType:
    t = same_types(op, operands, among)
    if not 0 <= _dim(attrs) < t.rank:
        raise OpTypeError(op, f"dimension {_dim(attrs)} is out of range for {t}", "dim")
    return t


def _turned(attrs: Attrs) -> dict[str, Any]:
    """The scan from the other end."""
    return {"dim": attrs["dim"], "reverse": not attrs["reverse"]}


def _runs(x: Any, dim: int, reverse: bool) -> Any:
    """`x` with the scanned dimension first, in the scan's order: a view."""
    moved = np.moveaxis(x, dim, 0)
    return moved[::-1] if reverse else moved


# ------------------------------------------------------------------------------------------- cumsum


def _cumsum_ref(xp: Any, x: Any, *, dim: int, reverse: bool) -> Any:
    out = np.array(x)
    run = _runs(out, dim, reverse)
    for k in range(1, len(run)):
        run[k] = run[k - 1] + run[k]
    return out


cumsum: Final[OpDef] = register(
    OpDef(
        "cumsum",
        "cumsum(a; dim, reverse): y[i] = y[i - 1] + a[i] along dim, y[0] = a[0]; from the end if reverse. Integers "
        "wrap.",
        lambda operands, attrs: (_checked("cumsum", operands, attrs, NUMERIC),),
        quiet(_cumsum_ref),
        Template("cumsum"),
        vjp=lambda call, g: (cumsum(g, **_turned(call.attrs)),),
        jvp=lambda call, t: (None if t is None else cumsum(t, **call.attrs),),
        traits=frozenset({"parts"}),
        arity=1,
    )
)


# -------------------------------------------------------------------------------------------- recur


def _part(x: Any, dim: int, start: Dim, stop: Dim) -> Any:
    shape = x.ttype.shape
    starts: list[Dim] = [0] * len(shape)
    stops: list[Dim] = list(shape)
    starts[dim], stops[dim] = start, stop
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(shape))


def _before(x: Any, attrs: Attrs, first: Any = None) -> Any:
    """Of every element the one before it in the scan's order; for the first one `first`, or whichever is at hand."""
    n, dim = x.ttype.shape[_dim(attrs)], _dim(attrs)
    if n == 0:
        return x
    if attrs["reverse"]:
        kept = _part(x, dim, 0, 1) if first is None else first
        return cat(_part(x, dim, 1, n), kept, dim=dim)
    kept = _part(x, dim, n - 1, n) if first is None else first
    return cat(kept, _part(x, dim, 0, n - 1), dim=dim)


def _zero_row(x: Any, attrs: Attrs) -> Any:
    shape = x.ttype.shape
    return full_like(_part(x, _dim(attrs), 0, 1), 0.0) if shape[_dim(attrs)] != 0 else None


def _recur_ref(xp: Any, a: Any, b: Any, *, dim: int, reverse: bool) -> Any:
    out = np.array(b)
    run, factors = _runs(out, dim, reverse), _runs(a, dim, reverse)
    for k in range(1, len(run)):
        run[k] = factors[k] * run[k - 1] + run[k]
    return out


def _recur_vjp(call: Call, g: Any) -> Sequence[Any]:
    """The gradient by b obeys the recurrence from the other end, with each factor one place on; that by a is it times
    the result before."""
    turned = _turned(call.attrs)
    by_b = recur(_before(call.operands[0], turned), g, **turned)
    if not call.needs[0]:
        return (None, by_b)
    y = call.results[0]
    return (mul(by_b, _before(y, call.attrs, _zero_row(y, call.attrs))), by_b if call.needs[1] else None)


def _recur_jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
    if ta is None and tb is None:
        return (None,)
    y = call.results[0]
    parts = [] if tb is None else [tb]
    if ta is not None:
        parts.append(mul(ta, _before(y, call.attrs, _zero_row(y, call.attrs))))
    source = parts[0] if len(parts) == 1 else add(*parts)
    return (recur(call.operands[0], source, **call.attrs),)


recur: Final[OpDef] = register(
    OpDef(
        "recur",
        "recur(a, b; dim, reverse): y[i] = a[i] * y[i - 1] + b[i] along dim, two roundings, y[0] = b[0]; from the end "
        "if reverse. Integers wrap.",
        lambda operands, attrs: (_checked("recur", operands, attrs, NUMERIC),),
        quiet(_recur_ref),
        Template("recur"),
        vjp=_recur_vjp,
        jvp=_recur_jvp,
        saved_operands=(0,),
        saved_results=(0,),
        arity=2,
    )
)


def products(x: Any, dim: int, reverse: bool) -> Any:
    """The running products of floats along `dim`, exactly as multiplied: x * y + -0.0 is x * y."""
    attrs = {"dim": dim, "reverse": reverse}
    n = x.ttype.shape[dim]
    if n == 0:
        return x
    first = _part(x, dim, n - 1, n) if reverse else _part(x, dim, 0, 1)
    rest = full_like(_part(x, dim, 0, n - 1), -0.0)
    return recur(x, cat(*((rest, first) if reverse else (first, rest)), dim=dim), **attrs)


def products_before(x: Any, dim: int, reverse: bool) -> Any:
    """The running products without the element itself; the first one is 1. `dim` is not empty."""
    attrs = {"dim": dim, "reverse": reverse}
    return products(_before(x, attrs, full_like(_part(x, dim, 0, 1), 1.0)), dim, reverse)


# ---------------------------------------------------------------------------------------- cumargmax


def _cumargmax_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = _checked("cumargmax", operands, attrs, ANY)
    return (TensorType(int64, t.shape, t.device),)


def _cumargmax_ref(xp: Any, x: Any, *, dim: int) -> Any:
    out = np.zeros(x.shape, np.int64)
    run, places = np.moveaxis(x, dim, 0), np.moveaxis(out, dim, 0)
    best: Any = run[0] if len(run) else None
    for k in range(1, len(run)):
        takes = (run[k] != run[k]) | ((best == best) & (run[k] >= best))
        best = np.where(takes, run[k], best)
        places[k] = np.where(takes, k, places[k - 1])
    return out


cumargmax: Final[OpDef] = register(
    OpDef(
        "cumargmax",
        "cumargmax(a; dim): where the largest of the elements up to each one along dim is, int64; the last of equals, "
        "and the last NaN once there is one.",
        _cumargmax_types,
        _cumargmax_ref,
        Template("cumargmax"),
        traits=frozenset({"exact"}),
        arity=1,
    )
)
