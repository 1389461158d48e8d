"""How samples are drawn that need more than a formula: exponential, gamma, Dirichlet and binomial numbers.

All of it is made of kiln's random ops and of others, and how many numbers are drawn depends on shapes alone: so it is
captured and compiled like any other code, and draws then what it drew before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kiln import functional as F
from kiln.autograd.function import Function
from kiln.creation import arange, full_like, tensor
from kiln.dtypes import finfo
from kiln.ir.types import Device, DType, float64
from kiln.maths import digamma, expm1, lgamma, log1p
from kiln.pointwise import floor
from kiln.random import _exponential, _wide, rand, randn

if TYPE_CHECKING:
    from kiln.random import Generator
    from kiln.tensor import Tensor

__all__ = ["binomial", "dirichlet", "exponential", "gamma", "log_gamma"]


def exponential(shape: tuple[int, ...], dtype: DType, device: Device) -> Tensor:
    """Standard exponential numbers, above 0."""
    return _exponential("exponential", shape, _wide(dtype), None, device).to(dtype)


Propose = Callable[[tuple[int, ...]], tuple["Tensor", "Tensor"]]


def first_taken(rounds: tuple[int, int], otherwise: Tensor, propose: Propose) -> Tensor:
    """Rejection in a fixed number of rounds, blocks times so many at once: of the proposals for each element the first
    one that is taken; where there is none, `otherwise`. `propose` makes whether each is taken, and what it is."""
    blocks, count = rounds
    number = arange(count, device=otherwise.device).reshape((count, *(1 for _ in otherwise.shape)))
    result, open_ = otherwise, otherwise == otherwise
    for _ in range(blocks):
        taken, value = propose((count, *otherwise.shape))
        first = F.amin(F.where(taken, number, count), 0)
        found = F.where(number == first, value, 0.0).sum(0)
        result = F.where(open_ & (first < count), found, result)
        open_ = open_ & (first == count)
    return result


# --------------------------------------------------------------------------------------- gamma numbers

_ROUNDS: Final = (2, 4)
"""Of proposals for a gamma number, each taken with a probability of at least 0.95: the chance that all are rejected is
below 1e-10, and then the mode is returned."""


def gamma(concentration: Tensor) -> Tensor:
    """Standard gamma numbers of these concentrations, in their dtype and above 0, with implicit gradients."""
    x = F.exp(log_gamma(concentration.to(float64))).to(concentration.dtype)
    return F.clamp(x, finfo(x.dtype).tiny)


def dirichlet(concentration: Tensor) -> Tensor:
    """Points of the simplex, the last dimension, of these concentrations: shares of gamma numbers, whose logarithms
    don't vanish where concentrations are small."""
    shares = F.softmax(log_gamma(concentration.to(float64)), -1).to(concentration.dtype)
    return F.clamp(shares, finfo(shares.dtype).tiny)


def log_gamma(concentration: Tensor) -> Tensor:
    """Logarithms of standard gamma numbers, float64, with implicit gradients of any order."""
    return _LogGamma.apply(concentration)  # type: ignore[no-any-return]


class _LogGamma(Function):
    """Samples, and how they move with the concentration when the probability of less stays what it is (M. Figurnov, S.
    Mohamed and A. Mnih, 2018: "Implicit reparameterization gradients")."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        y = _sample(a)
        ctx.save_for_backward(a, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * log_gamma_slope(*ctx.saved_tensors)


def _sample(a: Tensor) -> Tensor:
    """G. Marsaglia and W. W. Tsang, 2000: "A simple method for generating gamma variables". Below 1 it draws for a + 1,
    and multiplies by a uniform number to the power of 1 / a."""
    low = a < 1.0
    d = F.where(low, a + 1.0, a) - 1.0 / 3.0
    c = F.rsqrt(9.0 * d)

    def propose(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        z, u = randn(shape, dtype=float64, device=a.device), rand(shape, dtype=float64, device=a.device)
        t = 1.0 + c * z
        positive = t > 0.0
        log_cube = 3.0 * F.log(F.where(positive, t, 1.0))
        score = 0.5 * z * z + d * (1.0 - F.exp(log_cube) + log_cube)
        return positive & (F.log(1.0 - u) < score), log_cube

    log_v = first_taken(_ROUNDS, full_like(a, 0.0), propose)
    power = exponential(a.shape, float64, a.device) / F.where(low, a, 1.0)
    return F.log(d) + log_v - F.where(low, power, 0.0)


_TERMS: Final = 20
"""Of the series up to x = 1, where what is left out is below 1e-18 of the sum."""
_REACH: Final = 40.0
"""The integrand beyond 1 is followed until it fell by exp of this."""
_NODES: Final = (
    0.0013680690752592183, 0.007194244227365833, 0.017618872206246784, 0.03254696203113015, 0.05183942211697394,
    0.07531619313371501, 0.1027581020160288, 0.13390894062985517, 0.1684778665348924, 0.20614212137961885,
    0.2465500455338853, 0.2893243619346823, 0.33406569885893617, 0.38035631887393145, 0.42776401920860174,
    0.4758461671561308, 0.5241538328438692, 0.5722359807913983, 0.6196436811260685, 0.6659343011410638,
    0.7106756380653176, 0.7534499544661147, 0.7938578786203812, 0.8315221334651076, 0.8660910593701449,
    0.8972418979839712, 0.9246838068662849, 0.9481605778830261, 0.9674530379688698, 0.9823811277937532,
    0.9928057557726342, 0.9986319309247408,
)  # fmt: skip
_WEIGHTS: Final = (
    0.003509305004735048, 0.008137197365452835, 0.01269603265463103, 0.017136931456510716, 0.02141794901111334,
    0.025499029631188087, 0.029342046739267772, 0.032911111388180925, 0.03617289705442425, 0.039096947893535156,
    0.041655962113473374, 0.043826046502201906, 0.045586939347881945, 0.04692219954040228, 0.04781936003963743,
    0.0482700442573639, 0.0482700442573639, 0.04781936003963743, 0.04692219954040228, 0.045586939347881945,
    0.043826046502201906, 0.041655962113473374, 0.039096947893535156, 0.03617289705442425, 0.032911111388180925,
    0.029342046739267772, 0.025499029631188087, 0.02141794901111334, 0.017136931456510716, 0.01269603265463103,
    0.008137197365452835, 0.003509305004735048,
)  # fmt: skip
"""Gauss and Legendre's rule of 32 points on [0, 1], from 40 digits."""


def log_gamma_slope(a: Tensor, y: Tensor) -> Tensor:
    """dy/da of the logarithm y of a standard gamma number of concentration a, float64: -(dP/da) / (dP/dy), P being the
    probability of less. It has 11 digits or more for a up to 1e6 wherever samples lie; being made of ops, it has
    derivatives itself.

    With x = exp(y) it is the sum over n >= 0 of x^n (digamma(a + n + 1) - y) / (a (a + 1) ... (a + n)), whose terms are
    positive up to x = 1 save the first. Beyond, it is the integral over t > 0 of

        exp(s a t - x (exp(s t) - 1)) |y + s t - digamma(a)|,

    s being the sign of y - digamma(a), which takes the tail whose derivative has no cancellation.
    """
    near = y <= 0.0
    series = _slope_near(a, F.where(near, y, 0.0))
    return F.where(near, series, _slope_far(a, F.where(near, 1.0, y)))


def _slope_near(a: Tensor, y: Tensor) -> Tensor:
    x = F.exp(y)
    factor, psi = F.reciprocal(a), digamma(a + 1.0)
    total = factor * (psi - y)
    for n in range(1, _TERMS):
        factor = factor * x / (a + float(n))
        psi = psi + F.reciprocal(a + float(n))
        total = total + factor * (psi - y)
    return total


def _slope_far(a: Tensor, y: Tensor) -> Tensor:
    x, distance = F.exp(y), y - digamma(a)
    up = distance >= 0.0
    s = F.where(up, 1.0, full_like(a, -1.0))
    end = _end(a.detach(), x.detach(), up)
    t = end.unsqueeze(-1) * tensor(_NODES, dtype=float64, device=end.device)
    a, x, s, gap = (v.unsqueeze(-1) for v in (a, x, s, s * distance))
    values = F.exp(s * a * t - x * expm1(s * t)) * (gap + t)
    return end * (values * tensor(_WEIGHTS, dtype=float64, device=end.device)).sum(-1)


def _end(a: Tensor, x: Tensor, up: Tensor) -> Tensor:
    """Where the exponent fell to -`_REACH`, from what bounds it: (x - a) t + x t^2 / 2, then x (exp(t) - 1 - t)
    upwards, and (a - x) t + x t^2 / (2 + t) downwards."""
    line = F.clamp(F.where(up, x - a, a - x), 0.0)
    above = 2.0 * _REACH / (line + F.sqrt(line * line + 2.0 * _REACH * x))
    above = F.minimum(above, log1p(_REACH / x + above))
    b = 2.0 * line - _REACH
    below = 4.0 * _REACH / (b + F.sqrt(b * b + 8.0 * _REACH * a))
    return F.where(up, above, below)


# ------------------------------------------------------------------------------------- binomial numbers

_FEW: Final = 64
"""Of the probabilities of a binomial number of mean below 10: those left out add up to less than 2^-53."""
_PROPOSALS: Final = (3, 6)
"""For a binomial number of mean 10 or more, each taken with a probability of at least 0.705: the chance that all are
rejected is below 1e-9, and then the mean is returned, rounded."""


def binomial(count: Tensor, probs: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed, of one shape with `probs` and in their dtype; without a gradient.

    Of success and failure the rarer is drawn: below a mean of 10 by inversion, else by transformed rejection (W.
    Hoermann, 1993: "The generation of binomial random variates") in a fixed number of rounds."""
    n, p = count.detach().to(float64), probs.detach().to(float64)
    rare = F.minimum(p, 1.0 - p)
    low = n * rare < 10.0
    few = _few(F.where(low, n, 1.0), F.where(low, rare, 0.25), generator)
    many = _many(F.where(low, 100.0, n), F.where(low, 0.25, rare), generator)
    drawn = F.where(low, few, many)
    return F.where(p > 0.5, n - drawn, drawn).to(probs.dtype)


def _few(n: Tensor, p: Tensor, generator: Generator | None) -> Tensor:
    u = rand(n.shape, dtype=float64, device=n.device, generator=generator)
    odds, term = p / (1.0 - p), F.exp(n * log1p(-p))
    total, count = term, full_like(n, 0.0)
    for k in range(_FEW):
        count = count + (u >= total).to(float64)
        term = term * F.clamp(n - float(k), 0.0) / float(k + 1) * odds
        total = total + term
    return F.minimum(count, n)


def _many(n: Tensor, p: Tensor, generator: Generator | None) -> Tensor:
    spread = F.sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    scale, quick = (2.83 + 5.1 / b) * spread, 0.92 - 4.2 / b
    log_odds, top = F.log(p) - log1p(-p), floor((n + 1.0) * p)
    highest = lgamma(top + 1.0) + lgamma(n - top + 1.0)

    def propose(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        u = rand(shape, dtype=float64, device=n.device, generator=generator) - 0.5
        v = rand(shape, dtype=float64, device=n.device, generator=generator)
        gap = 0.5 - F.abs(u)
        k = floor((2.0 * a / gap + b) * u + n * p + 0.5)
        inside = (k >= 0.0) & (k <= n)
        whole = F.where(inside, k, top)
        score = highest - lgamma(whole + 1.0) - lgamma(n - whole + 1.0) + (whole - top) * log_odds
        taken = F.log(v * scale / (a / (gap * gap) + b)) <= score
        return inside & (taken | ((gap >= 0.07) & (v <= quick))), whole

    return first_taken(_PROPOSALS, floor(n * p + 0.5), propose)
