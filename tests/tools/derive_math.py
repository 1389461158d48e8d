"""Derive the polynomials of `codegen/mathlib.py` and print them as `codegen/math_tables.py`.

Method: Chebyshev interpolation in 60-digit arithmetic (mpmath), which is within a few per cent of the minimax
polynomial; the coefficients are then rounded to the dtype.
Run: python tests/tools/derive_math.py > codegen/math_tables.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np

mpmath.mp.dps = 60
Function = Callable[[Any], Any]


def fit(f: Function, low: Any, high: Any, degree: int, dtype: type[np.floating[Any]]) -> list[float]:
    """Coefficients, lowest degree first, of a polynomial close to f on [low, high], rounded to dtype.

    Quotients like (tanh x - x) / x^3 are undefined at 0: there the value nearby stands in.
    """
    near = mpmath.mpf("1e-12")
    best = mpmath.chebyfit(lambda x: f(x if abs(x) > near else near), [low, high], degree + 1)
    return [float(dtype(float(c))) for c in reversed(best)]


def even(f: Function) -> Function:
    """f as a function of z = x * x."""
    return lambda z: f(mpmath.sqrt(z))


HALF_LN2 = mpmath.log(2) / 2 * mpmath.mpf("1.001")
SQRT2_S = (mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1)


def exp_rest(r: Any) -> Any:
    """(e^r - 1 - r) / r^2."""
    return (mpmath.expm1(r) - r) / r**2


def log_rest(f: Any) -> Any:
    """(log(1 + f) - f + f^2 / 2) / f^3."""
    return (mpmath.log1p(f) - f + f * f / 2) / f**3


def atanh_rest(s: Any) -> Any:
    """(log((1 + s) / (1 - s)) - 2 s) / (s z) with z = s^2, so that R = z * poly(z)."""
    return (2 * mpmath.atanh(s) - 2 * s) / s**3


def atanh_tail(s: Any) -> Any:
    """(log((1 + s) / (1 - s)) - 2 s - 2/3 s^3) / s^5."""
    return (2 * mpmath.atanh(s) - 2 * s - 2 * s**3 / 3) / s**5


def tanh_rest(x: Any) -> Any:
    """(tanh x - x) / x^3."""
    return (mpmath.tanh(x) - x) / x**3


def erf_rest(x: Any) -> Any:
    """erf(x) / x - 1."""
    return mpmath.erf(x) / x - 1


def erfcx_of_t(t: Any) -> Any:
    """exp(x^2) erfc(x) as a function of t = 2 / (2 + x)."""
    x = 2 / t - 2
    return mpmath.exp(x * x) * mpmath.erfc(x)


def log_erfc(x: Any) -> Any:
    return mpmath.log(mpmath.erfc(x))


def sinpi_rest(x: Any) -> Any:
    """(sin(pi x) / x - pi) / x^2."""
    return (mpmath.sinpi(x) / x - mpmath.pi) / x**2


def cospi_rest(x: Any) -> Any:
    """(cos(pi x) - 1) / x^2."""
    return (mpmath.cospi(x) - 1) / x**2


def sin_rest(r: Any) -> Any:
    """(sin r - r) / r^3."""
    return (mpmath.sin(r) - r) / r**3


def cos_rest(r: Any) -> Any:
    """(cos r - 1 + r^2 / 2) / r^4."""
    return (mpmath.cos(r) - 1 + r * r / 2) / r**4


def chunks(value: Callable[[], Any], bits: int, count: int) -> list[float]:
    """The binary digits of a number in [0, 1): `count` groups of `bits`, each as a number in [0, 1)."""
    with mpmath.workprec(bits * count + 64):
        whole = int(mpmath.floor(mpmath.ldexp(value(), bits * count)))
    mask = (1 << bits) - 1
    return [(whole >> bits * k & mask) / 2.0**bits for k in reversed(range(count))]


def two_over_pi() -> Any:
    return 2 / mpmath.pi


def tables() -> dict[str, list[float]]:
    f32, f64 = np.float32, np.float64
    half, quarter = HALF_LN2, mpmath.mpf(1) / 16
    eighth = (mpmath.pi / 4) ** 2 * mpmath.mpf("1.001")
    low, high = mpmath.sqrt(mpmath.mpf(1) / 2) - 1, mpmath.sqrt(2) - 1
    return {
        "EXP_F32": fit(exp_rest, -half, half, 4, f32),
        "EXP_F64": fit(exp_rest, -half, half, 9, f64),
        "LOG_F32": fit(log_rest, low, high, 8, f32),
        "LOG_F64": fit(even(atanh_rest), 0, SQRT2_S**2 * mpmath.mpf("1.001"), 6, f64),
        "POW_F64": fit(even(atanh_tail), 0, SQRT2_S**2 * mpmath.mpf("1.001"), 7, f64),
        "TANH_F32": fit(even(tanh_rest), 0, mpmath.mpf("0.391"), 5, f32),
        "ERF_SMALL_F32": fit(even(erf_rest), 0, mpmath.mpf("0.85"), 6, f32),
        "ERF_LARGE_F32": fit(log_erfc, mpmath.mpf("0.92"), mpmath.mpf(4), 8, f32),
        "ERF_SMALL_F64": fit(even(erf_rest), 0, mpmath.mpf("0.77"), 12, f64),
        "ERFCX_F64": fit(erfcx_of_t, mpmath.mpf("0.25"), mpmath.mpf("0.7"), 19, f64),
        "SINPI_F32": fit(even(sinpi_rest), 0, quarter, 3, f32),
        "COSPI_F32": fit(even(cospi_rest), 0, quarter, 3, f32),
        "SINPI_F64": fit(even(sinpi_rest), 0, quarter, 6, f64),
        "COSPI_F64": fit(even(cospi_rest), 0, quarter, 6, f64),
        # For float32, the reduction leaves a float64.
        "SIN_F32": fit(even(sin_rest), 0, eighth, 3, f64),
        "COS_F32": fit(even(cos_rest), 0, eighth, 2, f64),
        "SIN_F64": fit(even(sin_rest), 0, eighth, 5, f64),
        "COS_F64": fit(even(cos_rest), 0, eighth, 5, f64),
        "TWO_OVER_PI_F32": chunks(two_over_pi, 29, 7),
        "TWO_OVER_PI_F64": chunks(two_over_pi, 53, 23),
    }


def main() -> None:
    print('"""Coefficients of `mathlib.py`, lowest degree first. Made by tests/tools/derive_math.py: do not edit."""')
    print("\nfrom __future__ import annotations\n\nfrom typing import Final\n")
    for name, coefficients in tables().items():
        inside = "".join(f"    {c!r},\n" for c in coefficients)
        print(f"{name}: Final = (\n{inside})")


if __name__ == "__main__":
    main()
