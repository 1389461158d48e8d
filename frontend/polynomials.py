"""Orthogonal polynomials of `kiln.special`: of `input`, of degree `n`, a tensor or a number, whose fraction is cut off;
0 for negative degrees. Computed in float64, rounded once, and without history, as in PyTorch: gradients do not pass.

Chebyshev polynomials of higher degrees are the trigonometric and hyperbolic functions that they are; the others go
through their recurrences (DLMF 18.9), step by step. How many steps depends on `n`: where that is a tensor, its data are
looked at, which a whole graph can't hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from kiln import functional as F
from kiln.base import Operand, TensorBase
from kiln.ir import types as T
from kiln.maths import acos, acosh, cosh, sinh
from kiln.pointwise import fmod, trunc
from kiln.promotion import cast_to, floating, full_like_number, number, together

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
    *("shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v"),
    "shifted_chebyshev_polynomial_w",
]

Step = Callable[[int, "Tensor", "Tensor"], "Tensor"]
"""step(k, p[k], p[k - 1]) -> p[k + 1]"""


def _operands(name: str, input: Operand, n: Operand) -> tuple[Tensor, Tensor, T.DType]:
    """The numbers and the degrees as float64, and the dtype of the result."""
    x, degree = (floating(name, t) for t in together(name, input, n))
    kind = x.dtype
    x, degree = cast_to(x.detach(), T.float64), cast_to(degree.detach(), T.float64)
    return x, F.where(F.lt(F.abs(degree), 2.0**63), trunc(degree), -1.0), kind


def _recur(x: Tensor, n: Tensor, most: int, second: Tensor, step: Step) -> Tensor:
    """p[n] for n up to `most`, 0 for negative n."""
    p, q = full_like_number(x, T.float64, 1.0), second
    result = F.where(F.eq(n, 0.0), p, F.where(F.eq(n, 1.0), q, 0.0))
    for k in range(1, most):
        p, q = q, step(k, q, p)
        result = F.where(F.eq(n, float(k + 1)), q, result)
    return result


# ------------------------------------------------------------------------------------------- Chebyshev's

_FEW: Final = 6
"""Up to this degree Chebyshev polynomials come from their recurrence."""


def _chebyshev(name: str, input: Operand, n: Operand, kind: str, shifted: bool = False) -> Tensor:
    x, degree, dtype = _operands(name, input, n)
    x = F.sub(F.add(x, x), 1.0) if shifted else x
    twice = F.add(x, x)
    second = {"t": lambda: x, "u": lambda: twice, "v": lambda: F.sub(twice, 1.0), "w": lambda: F.add(twice, 1.0)}[
        kind
    ]()
    few = _recur(x, degree, _FEW, second, lambda k, q, p: F.sub(F.mul(twice, q), p))
    a = F.abs(x)
    odd, inside = F.ne(fmod(degree, 2.0), 0.0), F.lt(a, 1.0)
    edge = _edge(kind, degree, F.gt(x, 0.0))
    angle = acos(F.where(inside, x, 0.0))
    growth = acosh(F.where(F.gt(a, 1.0), a, 2.0))
    outside = _outside(kind, degree, growth, F.gt(x, 0.0))
    many = F.where(inside, _inside(kind, degree, angle), F.where(F.eq(a, 1.0), edge, outside))
    turned = F.logical_and(odd, F.logical_and(F.logical_not(inside), F.lt(x, 0.0)))
    many = F.where(F.ne(x, x), math.nan, F.where(turned, F.neg(many), many))
    return cast_to(F.where(F.gt(degree, float(_FEW)), many, few), dtype)


def _inside(kind: str, n: Tensor, angle: Tensor) -> Tensor:
    """For x = cos(angle) between -1 and 1."""
    half = F.mul(angle, 0.5)
    match kind:
        case "t":
            return F.cos(F.mul(n, angle))
        case "u":
            return F.div(F.sin(F.mul(F.add(n, 1.0), angle)), F.sin(angle))
        case "v":
            return F.div(F.cos(F.mul(F.add(n, 0.5), angle)), F.cos(half))
        case _:
            return F.div(F.sin(F.mul(F.add(n, 0.5), angle)), F.sin(half))


def _outside(kind: str, n: Tensor, growth: Tensor, positive: Tensor) -> Tensor:
    """For x = cosh(growth) above 1, or below -1 but for the sign of odd degrees."""
    if kind == "t":
        return cosh(F.mul(n, growth))
    if kind == "u":
        return F.div(sinh(F.mul(F.add(n, 1.0), growth)), sinh(growth))
    half, turn = F.mul(growth, 0.5), F.mul(F.add(n, 0.5), growth)
    v, w = F.div(cosh(turn), cosh(half)), F.div(sinh(turn), sinh(half))
    return F.where(positive, v, w) if kind == "v" else F.where(positive, w, v)


def _edge(kind: str, n: Tensor, positive: Tensor) -> Tensor:
    """At 1, and at -1 but for the sign of odd degrees."""
    if kind == "t":
        return full_like_number(n, T.float64, 1.0)
    if kind == "u":
        return F.add(n, 1.0)
    twice = F.add(F.add(n, n), 1.0)
    return F.where(positive, 1.0, twice) if kind == "v" else F.where(positive, twice, 1.0)


def chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """Chebyshev polynomials of the first kind, T_n(input): cos(n t) at cos(t)."""
    return _chebyshev("chebyshev_polynomial_t", input, n, "t")


def chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """Chebyshev polynomials of the second kind, U_n(input): sin((n + 1) t) / sin(t) at cos(t)."""
    return _chebyshev("chebyshev_polynomial_u", input, n, "u")


def chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """Chebyshev polynomials of the third kind, V_n(input): cos((n + 1/2) t) / cos(t / 2) at cos(t)."""
    return _chebyshev("chebyshev_polynomial_v", input, n, "v")


def chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """Chebyshev polynomials of the fourth kind, W_n(input): sin((n + 1/2) t) / sin(t / 2) at cos(t)."""
    return _chebyshev("chebyshev_polynomial_w", input, n, "w")


def shifted_chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """T_n(2 * input - 1)."""
    return _chebyshev("shifted_chebyshev_polynomial_t", input, n, "t", True)


def shifted_chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """U_n(2 * input - 1)."""
    return _chebyshev("shifted_chebyshev_polynomial_u", input, n, "u", True)


def shifted_chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """V_n(2 * input - 1)."""
    return _chebyshev("shifted_chebyshev_polynomial_v", input, n, "v", True)


def shifted_chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """W_n(2 * input - 1)."""
    return _chebyshev("shifted_chebyshev_polynomial_w", input, n, "w", True)


# ------------------------------------------------------------------------------------------- the others

_HERMITE_LIMIT: Final = {T.float32: 128, T.float64: 512}
"""Beyond these degrees PyTorch gives NaN."""


def _degree(name: str, n: Operand, limit: int | None = None) -> int:
    """The largest degree that is asked for, or `limit`."""
    if isinstance(n, TensorBase):
        read = np.asarray(n.detach()._read(name), np.float64)  # type: ignore[attr-defined]
        most = float(np.where(np.abs(read) < 2.0**63, read, -1).max(initial=0.0))
    else:
        most = number(n)
    found = int(most) if abs(most) < 2.0**63 else 0
    return found if limit is None else min(found, limit)


def _hermite(name: str, input: Operand, n: Operand, scale: float) -> Tensor:
    x, degree, dtype = _operands(name, input, n)
    limit = _HERMITE_LIMIT[T.float64 if dtype is T.float64 else T.float32]
    at = F.mul(x, scale)

    def step(k: int, q: Tensor, p: Tensor) -> Tensor:
        return F.sub(F.mul(at, q), F.mul(p, scale * k))

    value = _recur(x, degree, _degree(name, n, limit), at, step)
    return cast_to(F.where(F.gt(degree, float(limit)), math.nan, value), dtype)


def hermite_polynomial_h(input: Operand, n: Operand) -> Tensor:
    """The physicist's Hermite polynomials H_n(input); NaN for n above 128 (float32) or 512 (float64)."""
    return _hermite("hermite_polynomial_h", input, n, 2.0)


def hermite_polynomial_he(input: Operand, n: Operand) -> Tensor:
    """The probabilist's Hermite polynomials He_n(input); NaN for n above 128 (float32) or 512 (float64)."""
    return _hermite("hermite_polynomial_he", input, n, 1.0)


def laguerre_polynomial_l(input: Operand, n: Operand) -> Tensor:
    """Laguerre polynomials L_n(input)."""
    x, degree, dtype = _operands("laguerre_polynomial_l", input, n)

    def step(k: int, q: Tensor, p: Tensor) -> Tensor:
        top = F.sub(F.mul(F.sub(2.0 * k + 1.0, x), q), F.mul(p, float(k)))
        return F.div(top, k + 1.0)

    most = _degree("laguerre_polynomial_l", n)
    return cast_to(_recur(x, degree, most, F.sub(1.0, x), step), dtype)


def legendre_polynomial_p(input: Operand, n: Operand) -> Tensor:
    """Legendre polynomials P_n(input)."""
    x, degree, dtype = _operands("legendre_polynomial_p", input, n)

    def step(k: int, q: Tensor, p: Tensor) -> Tensor:
        top = F.sub(F.mul(F.mul(x, 2.0 * k + 1.0), q), F.mul(p, float(k)))
        return F.div(top, k + 1.0)

    return cast_to(_recur(x, degree, _degree("legendre_polynomial_p", n), x, step), dtype)
