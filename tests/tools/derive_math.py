"""Derive the coefficients of `codegen/mathlib.py` and print them as `codegen/math_tables.py`.

Method: minimax polynomials by Remez' exchange in 60-digit arithmetic (mpmath), weighted so that the largest relative
error of the function's *result* is least; the coefficients are then rounded to the dtype.
Run: python tests/tools/derive_math.py > codegen/math_tables.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np

mpmath.mp.dps = 60
Function = Callable[[Any], Any]
GRID = 600


def fit(f: Function, weight: Function, low: Any, high: Any, degree: int) -> list[float]:
    """Coefficients, lowest degree first, of the polynomial p with the least max |weight (f - p)| on [low, high].

    The weight is positive but where it is 0: a quotient like (tanh x - x) / x^3 is undefined there, and the points
    keep clear of it.
    """
    grid = [(low + high) / 2 - (high - low) / 2 * mpmath.cospi((mpmath.mpf(k) + 0.5) / GRID) for k in range(GRID)]
    values, weights = [f(x) for x in grid], [weight(x) for x in grid]
    points = [int((k + 0.5) * GRID / (degree + 2)) for k in range(degree + 2)]
    for _ in range(50):
        rows = [[*(grid[i] ** j for j in range(degree + 1)), (-1) ** k / weights[i]] for k, i in enumerate(points)]
        solution = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([values[i] for i in points]))
        p = list(solution[: degree + 1])
        errors = [w * (v - mpmath.polyval(p[::-1], x)) for x, v, w in zip(grid, values, weights, strict=True)]
        if max(map(abs, errors)) < abs(solution[degree + 1]) * mpmath.mpf("1.01"):
            return [float(c) for c in p]
        points = exchange(errors, degree + 2)
    raise ArithmeticError("Remez' exchange did not converge")


def exchange(errors: list[Any], count: int) -> list[int]:
    """`count` places where the error is extreme, with alternating signs."""
    runs: list[int] = []  # the extremum of each run of one sign
    for i, e in enumerate(errors):
        if runs and (errors[runs[-1]] > 0) == (e > 0):
            runs[-1] = max(runs[-1], i, key=lambda k: abs(errors[k]))
        else:
            runs.append(i)
    while len(runs) > count:  # drop the lesser end, or the least extremum with its lesser neighbour
        k = min(range(len(runs)), key=lambda k: abs(errors[runs[k]]))
        if k in (0, len(runs) - 1) or len(runs) == count + 1:
            del runs[0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1]
        else:
            first = k if abs(errors[runs[k - 1]]) > abs(errors[runs[k + 1]]) else k - 1
            del runs[first : first + 2]
    return runs


def even(f: Function) -> Function:
    """f as a function of z = x * x."""
    return lambda z: f(mpmath.sqrt(z))


def chunks(value: Any, bits: int, count: int) -> list[float]:
    """The binary digits of a number in [0, 1): `count` groups of `bits`, each as a number in [0, 1)."""
    whole = int(mpmath.floor(mpmath.ldexp(value, bits * count)))
    mask = (1 << bits) - 1
    return [(whole >> bits * k & mask) / 2.0**bits for k in reversed(range(count))]


def log_rest(f: Any) -> Any:
    """(log(1 + f) - f + f^2 / 2) / f^3."""
    return (mpmath.log1p(f) - f + f * f / 2) / f**3


def erfcx_of_t(t: Any) -> Any:
    """exp(x^2) erfc(x) as a function of t = 2 / (2 + x)."""
    x = 2 / t - 2
    return mpmath.exp(x * x) * mpmath.erfc(x)


def erfcx_over_t(t: Any) -> Any:
    """exp(x^2) erfc(x) / t for t = 2 / (2 + x), which stays away from 0 however large x is."""
    return erfcx_of_t(t) / t


def erfc_inverse(s: Any) -> Any:
    """The x with erfc(x) = exp(-s^2), by Newton's method."""
    q, x = mpmath.exp(-s * s), s
    for _ in range(60):
        step = (mpmath.erfc(x) - q) * mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(x * x)
        x += step
        if abs(step) < mpmath.mpf(10) ** -50:
            return x
    raise ArithmeticError("Newton's method did not converge")


def log_gamma_quotient(w: Any) -> Any:
    """log gamma(2 + w) / (w (w + 1))."""
    return 1 - mpmath.euler if w == 0 else mpmath.loggamma(2 + w) / (w * (w + 1))


def stirling_rest(z: Any) -> Any:
    """x times what log gamma(x) has beside its leading terms, as a function of z = 1 / x^2."""
    x = 1 / mpmath.sqrt(z)
    return (mpmath.loggamma(x) - (x - mpmath.mpf("0.5")) * mpmath.log(x) + x - mpmath.log(2 * mpmath.pi) / 2) * x


def relative(f: Function, low: str, high: str, degree: int, centre: str = "0") -> list[float]:
    """f(x) as a polynomial in x - centre with the least relative error on [low, high]."""
    c = mpmath.mpf(centre)
    return fit(lambda u: f(u + c), lambda u: 1 / abs(f(u + c)), mpmath.mpf(low) - c, mpmath.mpf(high) - c, degree)


def gamma_tables() -> dict[str, list[float]]:
    """For `codegen/gamma.py`, all float64."""
    mp = mpmath
    root = mp.findroot(mp.digamma, 1.4616)
    inverse = even(lambda x: mp.erfinv(x) / x)
    return {
        "ERFINV_NEAR": relative(inverse, "1e-9", "0.5626", 22),
        "ERFINV_MIDDLE": relative(erfc_inverse, "1.17", "2.91", 22, "2"),
        "ERFINV_FAR": relative(erfc_inverse, "2.89", "6.1", 20, "4.5"),
        "LGAMMA": relative(log_gamma_quotient, "-0.5001", "0.5001", 19),
        "STIRLING": fit(stirling_rest, lambda z: mp.mpf(1), mp.mpf("1e-6"), mp.mpf(1) / 64, 6),
        "DIGAMMA": relative(lambda x: mp.digamma(x) / (x - root), "0.9999", "2.0001", 23, "1.5"),
    }


def tables() -> dict[str, list[float]]:
    mp, one = mpmath, mpmath.mpf(1)
    half = mp.log(2) / 2 * mp.mpf("1.001")
    low, high = mp.sqrt(one / 2) - 1, mp.sqrt(2) - 1
    s2 = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.001")
    eighth = (mp.pi / 4) ** 2 * mp.mpf("1.001")
    sixteenth = one / 16

    def exp(degree: int) -> list[float]:
        """e^r = 1 + r + r^2 p(r)."""
        return fit(lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / mp.exp(r), -half, half, degree)

    def tanh(top: str, degree: int) -> list[float]:
        """tanh x = x + x^3 p(x^2)."""
        rest, weight = even(lambda x: (mp.tanh(x) - x) / x**3), even(lambda x: x**3 / mp.tanh(x))
        return fit(rest, weight, mp.mpf(0), mp.mpf(top) ** 2, degree)

    def erf(top: str, degree: int) -> list[float]:
        """erf x = x + x p(x^2)."""
        rest, weight = even(lambda x: mp.erf(x) / x - 1), even(lambda x: x / mp.erf(x))
        return fit(rest, weight, mp.mpf(0), mp.mpf(top) ** 2, degree)

    def atan(degree: int) -> list[float]:
        """atan x = x + x^3 p(x^2) up to tan(pi / 8)."""
        rest, weight = even(lambda x: (mp.atan(x) - x) / x**3), even(lambda x: x**3 / mp.atan(x))
        return fit(rest, weight, mp.mpf(0), (high * mp.mpf("1.0001")) ** 2, degree)

    def sinpi(degree: int) -> list[float]:
        """sin(pi x) = pi x + x^3 p(x^2)."""
        rest, weight = even(lambda x: (mp.sinpi(x) / x - mp.pi) / x**2), even(lambda x: x**3 / mp.sinpi(x))
        return fit(rest, weight, mp.mpf(0), sixteenth, degree)

    def cospi(degree: int) -> list[float]:
        """cos(pi x) = 1 + x^2 p(x^2)."""
        return fit(even(lambda x: (mp.cospi(x) - 1) / x**2), lambda z: z, mp.mpf(0), sixteenth, degree)

    def sin(degree: int) -> list[float]:
        """sin r = r + r^3 p(r^2)."""
        rest, weight = even(lambda r: (mp.sin(r) - r) / r**3), even(lambda r: r**3 / mp.sin(r))
        return fit(rest, weight, mp.mpf(0), eighth, degree)

    def cos(degree: int) -> list[float]:
        """cos r = 1 - r^2 / 2 + r^4 p(r^2)."""
        rest = even(lambda r: (mp.cos(r) - 1 + r * r / 2) / r**4)
        return fit(rest, lambda z: z**2 / mp.cos(mp.sqrt(z)), mp.mpf(0), eighth, degree)

    return {
        "EXP_F32": exp(4),
        "EXP_F64": exp(9),
        "LOG_F32": fit(log_rest, lambda f: abs(f**3 / mp.log1p(f)), low, high, 8),
        # log((1 + s) / (1 - s)) = 2 s + s z p(z) with z = s^2, and with 2 s + 2/3 s z + s z^2 p(z).
        "LOG_F64": fit(even(lambda s: (2 * mp.atanh(s) - 2 * s) / s**3), lambda z: z, mp.mpf(0), s2, 6),
        "POW_F64": fit(
            even(lambda s: (2 * mp.atanh(s) - 2 * s - 2 * s**3 / 3) / s**5), lambda z: z**2, mp.mpf(0), s2, 7
        ),
        "TANH_F32": tanh("0.8001", 6),
        "TANH_F64": tanh("0.6251", 11),
        "ERF_SMALL_F32": erf("0.9201", 6),
        # Here the error of log erfc is one of erfc relative to itself, not to erf.
        "ERF_LARGE_F32": fit(lambda x: mp.log(mp.erfc(x)), lambda x: mp.erfc(x), mp.mpf("0.92"), mp.mpf(4), 8),
        "ERF_SMALL_F64": erf("0.8751", 12),
        "ERFCX_F64": fit(erfcx_of_t, lambda t: mp.exp(-((2 / t - 2) ** 2)), mp.mpf("0.25"), mp.mpf("0.6957"), 17),
        "ERFCX_FAR_F64": fit(erfcx_over_t, lambda t: 1 / erfcx_over_t(t), mp.mpf("0.0685"), mp.mpf("0.8005"), 21),
        "ATAN_F64": atan(10),
        "SINPI_F32": sinpi(3),
        "COSPI_F32": cospi(3),
        "SINPI_F64": sinpi(6),
        "COSPI_F64": cospi(6),
        # For float32 the reduction leaves a float64, and the result is rounded once more.
        "SIN_F32": sin(3),
        "COS_F32": cos(3),
        "SIN_F64": sin(5),
        "COS_F64": cos(5),
    }


def main() -> None:
    print('"""Coefficients of `mathlib.py`, lowest degree first. Made by tests/tools/derive_math.py: do not edit."""')
    print("\nfrom __future__ import annotations\n\nfrom typing import Final\n")
    made = {
        name: [float(np.float32(c)) for c in p] if name.endswith("_F32") and name not in ("SIN_F32", "COS_F32") else p
        for name, p in {**tables(), **gamma_tables()}.items()
    }
    with mpmath.workprec(23 * 53 + 64):
        made["TWO_OVER_PI_F32"] = chunks(2 / mpmath.pi, 29, 7)
        made["TWO_OVER_PI_F64"] = chunks(2 / mpmath.pi, 53, 23)
    for name, coefficients in made.items():
        inside = "".join(f"    {c!r},\n" for c in coefficients)
        print(f"{name}: Final = (\n{inside})")


if __name__ == "__main__":
    main()
