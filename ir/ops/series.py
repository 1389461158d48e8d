"""Chebyshev series: what special functions of one number are made of between their singularities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, quiet, register, same_types
from kiln.ir.ops.elementwise import FLOATS, mul
from kiln.ir.ops.elementwise import _lit as lit
from kiln.ir.types import TensorType


def _coefficients(attrs: Attrs) -> tuple[float, ...]:
    c = attrs["c"]
    assert isinstance(c, tuple)
    return tuple([float(x) for x in c])  # type: ignore[arg-type]


def _types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = same_types("chebyshev", operands, FLOATS)
    c = attrs.get("c")
    if not isinstance(c, tuple) or len(c) < 2 or not all(isinstance(x, float) for x in c):
        raise OpTypeError("chebyshev", f"the coefficients are {c!r}, not two or more floats", "value")
    return (t,)


def _element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    """Clenshaw's recurrence (1955), from the last coefficient on."""
    x, (first, *rest) = ctx.read(0, index), _coefficients(ctx.attrs)
    twice, b, later = L.add(x, x), lit(x, rest[-1]), lit(x, 0)
    for c in reversed(rest[:-1]):
        b, later = L.add(L.sub(L.mul(twice, b), later), lit(x, c)), b
    return L.add(L.sub(L.mul(x, b), later), lit(x, first))


def _ref(xp: Any, a: Any, *, c: tuple[float, ...]) -> Any:
    first, *rest = [a.dtype.type(x) for x in c]
    b, later = xp.full_like(a, rest[-1]), xp.zeros_like(a)
    for x in reversed(rest[:-1]):
        b, later = ((a + a) * b - later) + x, b
    return (a * b - later) + first


def _slope(call: Call, t: Any) -> Any:
    """t times the derivative, a Chebyshev series of one term less."""
    found = [float(x) for x in np.polynomial.chebyshev.chebder(_coefficients(call.attrs))]
    return mul(t, chebyshev(call.operands[0], c=tuple(found if len(found) > 1 else [*found, 0.0])))


chebyshev: Final[OpDef] = register(OpDef(
    "chebyshev",
    "chebyshev(a; c): the sum of c[k] * T_k(a), T_k being Chebyshev polynomials of the first kind.",
    _types, quiet(_ref), Dense(_element, pointwise=True),
    vjp=lambda call, g: (_slope(call, g),),
    jvp=lambda call, t: (None if t is None else _slope(call, t),),
    traits=frozenset({"elementwise"}), saved_operands=(0,), arity=1,
))  # fmt: skip
