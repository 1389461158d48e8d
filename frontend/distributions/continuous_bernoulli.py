"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.checks import holds
from kiln.distributions import constraints
from kiln.distributions.binary import BinaryDistribution, negative_log_likelihood
from kiln.distributions.exp_family import ExponentialFamily
from kiln.distributions.utils import broadcast_all, clamp_probs, lazy_property, logits_to_probs
from kiln.maths import expm1, log1p
from kiln.random import rand

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(BinaryDistribution, ExponentialFamily):
    """Numbers in [0, 1] of a density proportional to probs^x (1 - probs)^(1 - x) (Loaiza-Ganem and Cunningham, 2019:
    "The continuous Bernoulli: fixing a pervasive error in variational autoencoders").

    Where `probs` lies between `lims` the formulas lose their digits, and Taylor series take their place."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _batched = {"probs": 0, "logits": 0}
    _mean_carrier_measure = 0

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        name = self._choose(probs, logits)
        (parameter,) = broadcast_all(logits if probs is None else probs)
        self._lims = lims
        if probs is not None:
            if validate_args and not holds(constraints.unit_interval.check(parameter)):
                self._refuse(f"The parameter probs has invalid values:\n{parameter}")
            parameter = clamp_probs(parameter)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)

    @lazy_property
    def probs(self) -> Tensor:
        """Kept inside of (0, 1)."""
        return clamp_probs(logits_to_probs(self.logits, is_binary=True))

    def _stable(self) -> Tensor:
        """Where the formulas hold."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut_probs(self) -> Tensor:
        return F.where(self._stable(), self.probs, self._lims[0])

    def _log_norm(self) -> Tensor:
        """The logarithm of what the density is multiplied by to have the integral 1."""
        p = self._cut_probs()
        below, above = F.where(p <= 0.5, p, 0.0), F.where(p >= 0.5, p, 1.0)
        gap = F.where(p <= 0.5, log1p(-2.0 * below), F.log(2.0 * above - 1.0))
        formula = F.log(F.abs(log1p(-p) - F.log(p))) - gap
        x = (self.probs - 0.5) ** 2
        return F.where(self._stable(), formula, math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x)

    @property
    def mean(self) -> Tensor:
        """probs / (2 probs - 1) + 1 / log((1 - probs) / probs)."""
        p = self._cut_probs()
        formula = p / (2.0 * p - 1.0) + 1.0 / (log1p(-p) - F.log(p))
        x = self.probs - 0.5
        return F.where(self._stable(), formula, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * x**2) * x)

    @property
    def variance(self) -> Tensor:
        """probs (probs - 1) / (1 - 2 probs)^2 + 1 / log((1 - probs) / probs)^2."""
        p = self._cut_probs()
        formula = p * (p - 1.0) / (1.0 - 2.0 * p) ** 2 + 1.0 / (log1p(-p) - F.log(p)) ** 2
        x = (self.probs - 0.5) ** 2
        return F.where(self._stable(), formula, 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """By inversion of the cdf."""
        return self.icdf(rand(self._extended_shape(sample_shape), dtype=self._param.dtype, device=self._param.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of a Bernoulli distribution, and the normaliser."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return self._log_norm() - negative_log_likelihood(logits, value)

    def cdf(self, value: Tensor) -> Tensor:
        """(probs^value (1 - probs)^(1 - value) + probs - 1) / (2 probs - 1), from 0 to 1."""
        if self._validate_args:
            self._validate_sample(value)
        p = self._cut_probs()
        formula = (p**value * (1.0 - p) ** (1.0 - value) + p - 1.0) / (2.0 * p - 1.0)
        inside = F.where(self._stable(), formula, value)
        return F.where(value <= 0.0, 0.0, F.where(value >= 1.0, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        p = self._cut_probs()
        formula = (log1p(-p + value * (2.0 * p - 1.0)) - log1p(-p)) / (F.log(p) - log1p(-p))
        return F.where(self._stable(), formula, value)

    def entropy(self) -> Tensor:
        """-E[log_prob]."""
        log0, log1 = log1p(-self.probs), F.log(self.probs)
        return self.mean * (log0 - log1) - self._log_norm() - log0

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        (x,) = natural_params
        low, high = self._lims[0] - 0.5, self._lims[1] - 0.5
        stable = (x <= low) | (x > high)
        cut = F.where(stable, x, low)
        formula = F.log(F.abs(expm1(cut))) - F.log(F.abs(cut))
        return F.where(stable, formula, 0.5 * x + x**2 / 24.0 - x**4 / 2880.0)
