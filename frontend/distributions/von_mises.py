"""The von Mises distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.creation import full
from kiln.distributions import constraints, sampling
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.ir.types import float64
from kiln.maths import acos
from kiln.pointwise import sign
from kiln.random import rand
from kiln.special import i0e, i1e

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["VonMises"]


_ROUNDS: Final = (4, 5)
"""Of proposals, each taken with a probability of at least 0.655: what is left over is below 1e-9."""


class VonMises(Distribution):
    """Angles around `loc`: the density exp(concentration cos(x - loc)) / (2 pi I0(concentration)).

    Samples lie in [-pi, pi]. They are drawn by rejection from a wrapped Cauchy distribution (Best and Fisher, 1979:
    "Efficient simulation of the von Mises distribution") in a fixed number of rounds, so that how many numbers are
    drawn depends on the shape alone; with a probability below 1e-9 none is taken, and it is 0 from `loc`."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    _batched = {"loc": 0, "concentration": 0}

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """loc: the direction of the mean."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The circular variance 1 - I1(concentration) / I0(concentration)."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        """concentration cos(value - loc) - log(2 pi I0(concentration))."""
        if self._validate_args:
            self._validate_sample(value)
        k = self.concentration
        return k * (F.cos(value - self.loc) - 1) - math.log(2 * math.pi) - F.log(i0e(k))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Angles in [-pi, pi], without a gradient; computed in float64."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            loc, kappa = self.loc.to(float64), self.concentration.to(float64)
            r = _proposal(kappa)

            def propose(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
                z = F.cos(math.pi * rand(shape, dtype=float64, device=loc.device))
                u = rand(shape, dtype=float64, device=loc.device)
                side = sign(rand(shape, dtype=float64, device=loc.device) - 0.5)
                f = F.clamp((1 + r * z) / (r + z), -1.0, 1.0)
                c = kappa * (r - f)
                return (c * (2 - c) - u > 0) | (F.log(c / u) + 1 - c >= 0), side * acos(f)

            angle = sampling.first_taken(_ROUNDS, full(shape, 0.0, dtype=float64, device=loc.device), propose)
            return ((angle + math.pi + loc) % (2 * math.pi) - math.pi).to(self.loc.dtype)


def _proposal(kappa: Tensor) -> Tensor:
    """The parameter of the wrapped Cauchy distribution, which is 1 / kappa + kappa where kappa is tiny."""
    small = kappa < 1e-5
    k = F.where(small, 1.0, kappa)
    tau = 1 + F.sqrt(1 + 4 * k * k)
    rho = (tau - F.sqrt(2 * tau)) / (2 * k)
    return F.where(small, 1 / kappa + kappa, (1 + rho * rho) / (2 * rho))
