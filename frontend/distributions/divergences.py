"""The divergences KL(p || q) of kiln's distributions: families with themselves first, then with others, by p's name.

p and q are the distributions, and each rule is the formula. Where p has weight outside of q's support it is infinite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import linalg
from kiln.activation import softplus
from kiln.checks import holds
from kiln.creation import full_like
from kiln.distributions.bernoulli import Bernoulli
from kiln.distributions.beta import Beta
from kiln.distributions.binomial import Binomial
from kiln.distributions.categorical import Categorical
from kiln.distributions.cauchy import Cauchy
from kiln.distributions.continuous_bernoulli import ContinuousBernoulli
from kiln.distributions.dirichlet import Dirichlet
from kiln.distributions.exp_family import ExponentialFamily, bregman_divergence
from kiln.distributions.exponential import Exponential
from kiln.distributions.gamma import Gamma
from kiln.distributions.geometric import Geometric
from kiln.distributions.gumbel import Gumbel
from kiln.distributions.half_normal import HalfNormal
from kiln.distributions.independent import Independent
from kiln.distributions.kl import kl_divergence, register_kl
from kiln.distributions.laplace import Laplace
from kiln.distributions.lowrank_multivariate_normal import (
    LowRankMultivariateNormal,
    lowrank_mahalanobis,
)
from kiln.distributions.multivariate_normal import MultivariateNormal, batch_mahalanobis, half_log_det
from kiln.distributions.normal import Normal
from kiln.distributions.one_hot_categorical import OneHotCategorical
from kiln.distributions.pareto import Pareto
from kiln.distributions.poisson import Poisson
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.uniform import Uniform
from kiln.distributions.utils import euler_constant, sum_rightmost
from kiln.errors import InvalidValueError
from kiln.maths import digamma, lgamma, log1p, xlogy
from kiln.movement import diag_embed
from kiln.selection import broadcast_shapes

if TYPE_CHECKING:
    from kiln.tensor import Tensor

# ------------------------------------------------------------------------------- families with themselves


@register_kl(Bernoulli, Bernoulli)
def _bernoulli_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    ones = F.where(p.probs == 0, 0.0, F.where(q.probs == 0, math.inf, ones))
    zeros = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    return ones + F.where(p.probs == 1, 0.0, F.where(q.probs == 1, math.inf, zeros))


@register_kl(Beta, Beta)
def _beta_beta(p: Beta, q: Beta) -> Tensor:
    p1, p0, q1, q0 = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    norm = lgamma(q1) + lgamma(q0) + lgamma(p1 + p0) - lgamma(p1) - lgamma(p0) - lgamma(q1 + q0)
    return norm + (p1 - q1) * digamma(p1) + (p0 - q0) * digamma(p0) + (q1 + q0 - p1 - p0) * digamma(p1 + p0)


@register_kl(Binomial, Binomial)
def _binomial_binomial(p: Binomial, q: Binomial) -> Tensor:
    if not holds(p.total_count >= q.total_count):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    kl = p.total_count * (p.probs * (p.logits - q.logits) + log1p(-p.probs) - log1p(-q.probs))
    return F.where(p.total_count > q.total_count, math.inf, kl)


@register_kl(Categorical, Categorical)
def _categorical_categorical(p: Categorical, q: Categorical) -> Tensor:
    parts = F.where(q.probs == 0, math.inf, p.probs * (p.logits - q.logits))
    return F.where(p.probs == 0, 0.0, parts).sum(-1)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli_continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    return p.mean * (p.logits - q.logits) + p._log_norm() + log1p(-p.probs) - q._log_norm() - log1p(-q.probs)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet_dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    norm = lgamma(a.sum(-1)) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
    return norm + ((a - b) * (digamma(a) - digamma(a.sum(-1)).unsqueeze(-1))).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential_exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return -F.log(ratio) + ratio - 1


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_family(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    if type(p) is not type(q):
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}: Bregman "
            "divergences are those of one exponential family"
        )
    return bregman_divergence(p, q)


@register_kl(Gamma, Gamma)
def _gamma_gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return b * F.log(p.rate / q.rate) + lgamma(b) - lgamma(a) + (a - b) * digamma(a) + (q.rate - p.rate) * (a / p.rate)


@register_kl(Gumbel, Gumbel)
def _gumbel_gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio, gap = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return -F.log(ratio) + gap + ratio * euler_constant + F.exp(lgamma(1 + ratio) - gap) - (1 + euler_constant)


@register_kl(Geometric, Geometric)
def _geometric_geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - log1p(-q.probs) / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _half_normal_half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal_normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace_laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, gap = p.scale / q.scale, F.abs(p.loc - q.loc)
    return -F.log(ratio) + gap / q.scale + ratio * F.exp(-gap / p.scale) - 1


def _trace(a: Tensor) -> Tensor:
    """Of a a^T."""
    return (a * a).sum((-2, -1))


def _same_event(p: Any, q: Any) -> int:
    """The size of both events."""
    if p.event_shape != q.event_shape:
        raise InvalidValueError(
            "KL-divergence between two (Low Rank) Multivariate Normals with different event shapes cannot be computed: "
            f"{p.event_shape} and {q.event_shape}",
            op="kl_divergence",
        )
    return int(p.event_shape[0])


def _lowrank_distance(p: Any, q: Any) -> Tensor:
    return lowrank_mahalanobis(
        q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag, q.loc - p.loc, q._capacitance_tril
    )


def _woodbury(q: Any) -> Tensor:
    """What q's precision is less than its diagonal's by, as a factor."""
    scaled = q._unbroadcasted_cov_factor.mT / q._unbroadcasted_cov_diag.unsqueeze(-2)
    return linalg.solve_triangular(q._capacitance_tril, scaled, upper=False)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _lowrank_lowrank(p: LowRankMultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    n = _same_event(p, q)
    pd, qd, w, a = p._unbroadcasted_cov_diag, q._unbroadcasted_cov_diag, p._unbroadcasted_cov_factor, _woodbury(q)
    trace = (
        (pd / qd).sum(-1) + _trace(w * F.rsqrt(qd).unsqueeze(-1)) - _trace(a * F.sqrt(pd).unsqueeze(-2)) - _trace(a @ w)
    )
    return 0.5 * (q._log_det() - p._log_det() + trace + _lowrank_distance(p, q) - n)


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _multivariate_lowrank(p: MultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    n, tril = _same_event(p, q), p._unbroadcasted_scale_tril
    trace = _trace(tril * F.rsqrt(q._unbroadcasted_cov_diag).unsqueeze(-1)) - _trace(_woodbury(q) @ tril)
    return 0.5 * (q._log_det() - 2 * half_log_det(tril) + trace + _lowrank_distance(p, q) - n)


def _trace_solved(tril: Tensor, *factors: Tensor) -> Tensor:
    """The trace of inverse(tril tril^T) times the sum of the factors' squares a a^T."""
    total: Any = 0.0
    for a in factors:
        batch = broadcast_shapes(tril.shape[:-2], a.shape[:-2])
        solved = linalg.solve_triangular(
            tril.expand(batch + tril.shape[-2:]), a.expand(batch + a.shape[-2:]), upper=False
        )
        total = total + _trace(solved)
    return total  # type: ignore[no-any-return]


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _lowrank_multivariate(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    n, tril = _same_event(p, q), q._unbroadcasted_scale_tril
    diagonal = diag_embed(F.sqrt(p._unbroadcasted_cov_diag))
    trace = _trace_solved(tril, p._unbroadcasted_cov_factor, diagonal)
    distance = batch_mahalanobis(tril, q.loc - p.loc)
    return 0.5 * (2 * half_log_det(tril) - p._log_det() + trace + distance - n)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    n, mine, tril = _same_event(p, q), p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    distance = batch_mahalanobis(tril, q.loc - p.loc)
    return half_log_det(tril) - half_log_det(mine) + 0.5 * (_trace_solved(tril, mine) + distance - n)


@register_kl(Normal, Normal)
def _normal_normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - F.log(ratio))


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot_one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical_categorical(p._categorical, q._categorical)


@register_kl(Pareto, Pareto)
def _pareto_pareto(p: Pareto, q: Pareto) -> Tensor:
    ratio = q.alpha / p.alpha
    kl = q.alpha * F.log(p.scale / q.scale) - F.log(ratio) + ratio - 1
    return F.where(p.scale < q.scale, math.inf, kl)


@register_kl(Poisson, Poisson)
def _poisson_poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (F.log(p.rate) - F.log(q.rate)) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed_transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError(
            "KL(p || q) of transformed distributions is implemented for equal transforms and event shapes"
        )
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Uniform, Uniform)
def _uniform_uniform(p: Uniform, q: Uniform) -> Tensor:
    kl = F.log((q.high - q.low) / (p.high - p.low))
    return F.where((q.low > p.low) | (q.high < p.high), math.inf, kl)


@register_kl(Cauchy, Cauchy)
def _cauchy_cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return F.log((p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2) - F.log(4 * p.scale * q.scale)


@register_kl(Independent, Independent)
def _independent_independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("KL(p || q) of Independent is implemented for equal reinterpreted_batch_ndims")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


# ------------------------------------------------------------------------------------ infinite ones


def _infinite(parameter: str) -> Any:
    """The rule of a pair whose p has weight outside of q's support whatever the parameters are."""

    def rule(p: Any, q: Any) -> Tensor:
        return full_like(getattr(p, parameter), math.inf)

    return rule


_UNIT: Any = (Beta, ContinuousBernoulli, Uniform)
_INFINITE: Any = (
    (Beta, "concentration1", (Pareto,)),
    (ContinuousBernoulli, "probs", (Pareto,)),
    (Exponential, "rate", (*_UNIT, Pareto)),
    (Gamma, "concentration", (*_UNIT, Pareto)),
    (Gumbel, "loc", (*_UNIT, Exponential, Gamma, Pareto)),
    (Laplace, "loc", (*_UNIT, Exponential, Gamma, Pareto)),
    (Normal, "loc", (*_UNIT, Exponential, Gamma, Pareto)),
    (Pareto, "scale", _UNIT),
    (Poisson, "rate", (Bernoulli, Binomial)),
)
for _p, _parameter, _others in _INFINITE:
    for _q in _others:
        register_kl(_p, _q)(_infinite(_parameter))


# ------------------------------------------------------------------------------- families with others


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * F.log(q.rate) - q.rate)


@register_kl(Beta, ContinuousBernoulli)
def _beta_continuous_bernoulli(p: Beta, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - p.mean * q.logits - log1p(-q.probs) - q._log_norm()


@register_kl(Beta, Exponential)
def _beta_exponential(p: Beta, q: Exponential) -> Tensor:
    return -p.entropy() - F.log(q.rate) + q.rate * p.mean


@register_kl(Beta, Gamma)
def _beta_gamma(p: Beta, q: Gamma) -> Tensor:
    norm = lgamma(q.concentration) - q.concentration * F.log(q.rate)
    log_mean = digamma(p.concentration1) - digamma(p.concentration1 + p.concentration0)
    return -p.entropy() + norm - (q.concentration - 1) * log_mean + q.rate * p.mean


def _to_normal(entropy: Tensor, mean: Tensor, variance: Tensor, q: Normal) -> Tensor:
    """From what has this entropy, mean and variance to a normal distribution."""
    return -entropy + 0.5 * math.log(2 * math.pi) + F.log(q.scale) + (variance + (mean - q.loc) ** 2) / (2 * q.scale**2)


@register_kl(Beta, Normal)
@register_kl(ContinuousBernoulli, Normal)
@register_kl(Exponential, Normal)
@register_kl(Gamma, Normal)
@register_kl(Gumbel, Normal)
@register_kl(Laplace, Normal)
@register_kl(Uniform, Normal)
def _any_normal(p: Any, q: Any) -> Tensor:
    return _to_normal(p.entropy(), p.mean, p.variance, q)


@register_kl(Beta, Uniform)
@register_kl(ContinuousBernoulli, Uniform)
def _unit_uniform(p: Any, q: Any) -> Tensor:
    kl = -p.entropy() + F.log(q.high - q.low)
    return F.where((q.low > 0.0) | (q.high < 1.0), math.inf, kl)


@register_kl(ContinuousBernoulli, Exponential)
def _continuous_bernoulli_exponential(p: ContinuousBernoulli, q: Exponential) -> Tensor:
    return -p.entropy() - F.log(q.rate) + q.rate * p.mean


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    ratio = q.rate / p.rate
    a = q.concentration
    return -a * F.log(ratio) + ratio + lgamma(a) + a * euler_constant - (1 + euler_constant)


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Exponential, q: Gumbel) -> Tensor:
    product, start = p.rate * q.scale, q.loc / q.scale
    return F.log(product) - 1 - start + F.exp(start) * product / (product + 1) + F.reciprocal(product)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Gamma, q: Exponential) -> Tensor:
    return -p.entropy() - F.log(q.rate) + q.rate * p.concentration / p.rate


@register_kl(Gamma, Gumbel)
def _gamma_gumbel(p: Gamma, q: Gumbel) -> Tensor:
    product, start, a = p.rate * q.scale, q.loc / q.scale, p.concentration
    body = (a - 1) * digamma(a) - lgamma(a) - a + F.log(product) + a / product
    return body + F.exp(start) * (1 + F.reciprocal(product)) ** -a - start


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Normal, q: Gumbel) -> Tensor:
    gap, square = (p.loc - q.loc) / q.scale, (p.scale / q.scale) ** 2
    return gap + F.exp(0.5 * square - gap) - 0.5 * F.log(square) - 0.5 * (1 + math.log(2 * math.pi))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    gap = p.loc - q.loc
    distance = math.sqrt(2 / math.pi) * p.scale * F.exp(-0.5 * (gap / p.scale) ** 2)
    distance = distance + gap * F.erf(math.sqrt(0.5) * gap / p.scale)
    return distance / q.scale - F.log(p.scale / q.scale) - 0.5 * (1 + math.log(0.5 * math.pi))


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Pareto, q: Exponential) -> Tensor:
    product = p.scale * q.rate
    kl = F.log(p.alpha / product) - F.reciprocal(p.alpha) + p.alpha * product / (p.alpha - 1) - 1
    return F.where(p.alpha <= 1, math.inf, kl)


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Pareto, q: Gamma) -> Tensor:
    log_mean = F.log(p.scale) + F.reciprocal(p.alpha)
    norm = lgamma(q.concentration) - q.concentration * F.log(q.rate)
    mean = q.rate * p.alpha * p.scale / (p.alpha - 1)
    kl = F.log(p.alpha) - log_mean + norm + (1 - q.concentration) * log_mean + mean - 1
    return F.where(p.alpha <= 1, math.inf, kl)


@register_kl(Pareto, Normal)
def _pareto_normal(p: Pareto, q: Normal) -> Tensor:
    return F.where(p.alpha <= 2, math.inf, _to_normal(p.entropy(), p.mean, p.variance, q))


def _mean_log(low: Tensor, high: Tensor) -> Tensor:
    """Of the logarithms of uniform numbers."""
    return (xlogy(high, high) - xlogy(low, low)) / (high - low) - 1


@register_kl(Uniform, Beta)
def _uniform_beta(p: Uniform, q: Beta) -> Tensor:
    a, b = q.concentration1, q.concentration0
    logs = (a - 1) * _mean_log(p.low, p.high) + (b - 1) * _mean_log(1 - p.high, 1 - p.low)
    kl = lgamma(a) + lgamma(b) - lgamma(a + b) - F.log(p.high - p.low) - logs
    return F.where((p.high > 1.0) | (p.low < 0.0), math.inf, kl)


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Uniform, q: ContinuousBernoulli) -> Tensor:
    kl = -p.entropy() - p.mean * q.logits - log1p(-q.probs) - q._log_norm()
    return F.where((p.high > 1.0) | (p.low < 0.0), math.inf, kl)


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Uniform, q: Exponential) -> Tensor:
    kl = q.rate * (p.high + p.low) / 2 - F.log((p.high - p.low) * q.rate)
    return F.where(p.low < 0.0, math.inf, kl)


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Uniform, q: Gamma) -> Tensor:
    norm = lgamma(q.concentration) - q.concentration * F.log(q.rate)
    kl = norm - F.log(p.high - p.low) + (1 - q.concentration) * _mean_log(p.low, p.high) + q.rate * p.mean
    return F.where(p.low < 0.0, math.inf, kl)


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Uniform, q: Gumbel) -> Tensor:
    ratio, high, low = q.scale / (p.high - p.low), (p.high - q.loc) / q.scale, (p.low - q.loc) / q.scale
    return F.log(ratio) + 0.5 * (high + low) - ratio * (F.exp(-high) - F.exp(-low))


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Uniform, q: Pareto) -> Tensor:
    norm = F.log(q.alpha) + q.alpha * F.log(q.scale) + F.log(p.high - p.low)
    kl = _mean_log(p.low, p.high) * (q.alpha + 1) - norm
    return F.where(p.low < q.scale, math.inf, kl)
