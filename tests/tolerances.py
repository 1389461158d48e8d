"""Every tolerance of the tests, in one place, each with its reason. What is not listed is compared bit for bit.

Between eager and compiled code there is no tolerance at all; these are for comparisons with other people's
arithmetic (NumPy's scalar functions) and with finite differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kiln.ir.halves import is_half

MATH_ULP = 4
"""Scalar functions against NumPy's, in units of the last place: both are within 1 to 2 of the true value."""

COMPOSED_ULP = {
    "sigmoid": 6,
    "gelu": 16,
    "normal": 32,
    "erfinv": 8,
    "digamma": 8,
    "polygamma": 32,
    **dict.fromkeys(("gammainc", "gammaincc", "zeta"), 512),
    "triangular_solve": 64,
    "lu_factor": 64,
    "matrix_exp": 64,
    **dict.fromkeys(("fft", "rfft", "irfft"), 16),
    **dict.fromkeys(("attention", "attention_backward"), 16),
}
"""Compositions repeat that error: sigmoid has exp, an add and a divide; gelu multiplies an error of erf + 1 (small
where erf is close to -1, hence also the absolute part below); normal has log, sqrt and cos of a rounded angle;
polygamma sums a series; incomplete gamma functions and zeta are exponentials of numbers up to some hundreds. The
references of erfinv and digamma are such compositions themselves. What is factored or substituted element by element
has errors of as many roundings as there are rows (about 40 in the samples), which the references, in extended
precision, have not; an exponential multiplies them by the logarithm of the result.
A Fourier transform's error is a few roundings of its largest result. Attention adds the errors of products over the
head, which an exponential multiplies, in products over the keys; its gradient does so twice."""

COMPOSED_ABS = {
    "gelu": 8,
    "normal": 8,
    "lgamma": 8,
    "digamma": 16,
    "polygamma": 256,
    **dict.fromkeys(("gammainc", "gammaincc"), 16),
    "triangular_solve": 256,
    "lu_factor": 256,
    "matrix_exp": 1024,
    **dict.fromkeys(("fft", "rfft", "irfft"), 256),
    "attention": 64,
    "attention_backward": 512,
}
"""Absolute part in units of epsilon, for results near zero whose relative error cancellation magnifies."""

TRANSFORM = 8
"""Fourier transforms on a GPU against NumPy's in double precision, in units of epsilon of the largest result: each of
some log2(n) steps rounds twice, and roundings add up like a random walk; a length with a large prime factor is three
transforms of twice the length (up to 3.3 found)."""

COMPLEX_ULP = 16
"""Functions of complex numbers against NumPy's, in units of epsilon times the result's absolute value: each part is
made of a few functions of real numbers, and cancels where the other part is large. A power's error grows with the
exponent of e that it is."""

REASSOCIATED = 4
"""Sums against NumPy's, in units of epsilon times the sum of magnitudes: the order of addition differs, and the
error of either order is below that for the lengths tested."""

BATCHED: dict[str, dict[str, float]] = {}
"""Ops whose results for an element of a batch differ from those for that element alone, with what is allowed."""

ON_GPUS = {
    "attention": 2.0**-7,
    "attention_backward": 2.0**-6,
    **dict.fromkeys(("conv2d", "conv2d_input", "conv2d_weight"), 2.0**-7),
}
"""Ops whose GPU kernels have bits of their own, with what is allowed beside the CPU's results of 16-bit floats: so
much of the largest result for bfloat16 (for float16, which has 8 times its precision, an 8th). That is a rounding of
the result, and one of each of the weights that are multiplied. Float32 and float64 are within `COMPOSED_ULP` and
`COMPOSED_ABS`. Convolutions only with `tensor_cores`: sums in another order may round to a neighbour."""

UNROUNDED = 2.0**-20
"""The same of convolutions by tensor cores that give float32: sums in another order, of up to some hundred terms."""


def own_bits(op: str, attrs: Mapping[str, Any]) -> bool:
    """Whether a GPU's kernels have bits of their own for an op."""
    return op in ON_GPUS and (not op.startswith("conv2d") or "tensor_cores" in attrs)


def close_on_gpu(op: str, got: Any, wanted: Any) -> bool:
    """Whether results of a GPU are those of the CPU, within the tolerance of an op of `ON_GPUS`."""
    if not is_half(got.dtype) and not op.startswith("conv2d"):
        return close(op, got, wanted)
    exact, found = np.asarray(wanted, np.float64), np.asarray(got, np.float64)
    share = ON_GPUS[op] / (8 if got.dtype == np.float16 else 1) if is_half(got.dtype) else UNROUNDED
    return bool((np.abs(found - exact) <= share * np.abs(exact).max(initial=0.0)).all())


SCANNED = 4
"""Running sums of floats in tiles, against longer numbers, in units of epsilon of the largest: up to 2.3 found, as what
is added to what is joined by doubling distances."""

SCANNED_CHAIN = 64
"""The same against a CPU's chain, which has a rounding for each of some thousand elements, and has been off by 30 after
20,000."""


DIFFERENCE_STEP = 1e-5
"""Step of central differences in float64: truncation error about step**2, rounding error epsilon / step."""

DIFFERENCE = 2e-6
"""First derivatives against central differences, relative to 1 + |value|: 1e-10 truncation times third
derivatives up to some 1e3, plus 1e-11 rounding, with a margin."""

SECOND_DIFFERENCE = 2e-5
"""Second derivatives against differences of analytic first ones: the same with fourth derivatives."""

TRANSPOSE = 1e-12
"""<g, J t> against <J^T g, t> in float64: two roundings of short sums, relative to 1 + |value|."""


HALF_ULP = 1
"""16-bit floats: results that differ in the last places of float32 may round to neighbours."""

FACTORED = 2
"""Factorisations of a GPU against LAPACK's, and what is made of them, in units of epsilon times (n + 8) times the
largest of the results, for well conditioned matrices of n rows: a number is a sum of up to n products in another
order."""


SPECTRAL = 4
"""Eigenvectors and singular vectors on a GPU: how far they are from orthonormal, and what they are composed to from
the matrix (relative to its norm), in units of epsilon times (n + 2): each of some n rotations or reflections rounds
every element a few times (up to 2 found, of small matrices). Of pseudoinverses their condition numbers magnify it."""


def _half_close(got: Any, wanted: Any) -> bool:
    """Equal, or neighbours; NaNs agree."""

    def order(x: Any) -> Any:
        bits = np.ascontiguousarray(x).view(np.int16).astype(np.int32).reshape(x.shape)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    nan = wanted != wanted
    return bool(((nan == (got != got)) & (nan | (np.abs(order(got) - order(wanted)) <= HALF_ULP))).all())


def close(op: str, got: Any, wanted: Any) -> bool:
    """Whether `got` is within the tolerance of scalar function `op` around `wanted`: NaNs and infinities agree, and
    finite values within some ulp."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if is_half(got.dtype):
        return _half_close(got, wanted)
    if got.dtype.kind == "c" and got.dtype == wanted.dtype:
        ulp = (8 if op == "pow" else 1) * COMPLEX_ULP * np.finfo(got.dtype).eps
        with np.errstate(invalid="ignore"):  # infinities are compared by parts
            if bool((np.abs(got - wanted) <= ulp * np.abs(wanted)).all()):
                return True
        return close(op, got.real, wanted.real) and close(op, got.imag, wanted.imag)
    if got.dtype.kind != "f":
        return bool((got == wanted).all())
    finite = np.isfinite(wanted)
    if not (np.isnan(got) == np.isnan(wanted)).all():
        return False
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        # The largest finite number may round to infinity, one ulp away.
        edge = np.abs(wanted) >= info.max * (1 - 8 * info.eps)
        same = (got == wanted) | np.isnan(wanted) | (edge & (np.abs(got) >= info.max * (1 - 8 * info.eps)))
        ulp = np.spacing(np.where(finite, np.abs(wanted), 1)).astype(np.float64)
        allowed = ulp * COMPOSED_ULP.get(op, MATH_ULP) + COMPOSED_ABS.get(op, 0) * float(info.eps)
        near = finite & np.isfinite(got) & (np.abs(got.astype(np.float64) - wanted.astype(np.float64)) <= allowed)
    return bool((same | near).all())
