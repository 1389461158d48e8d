"""The half-Cauchy distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kiln.creation import full_like
from kiln.distributions.cauchy import Cauchy
from kiln.distributions.folded import Folded

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["HalfCauchy"]


class HalfCauchy(Folded):
    """|x| of Cauchy-distributed numbers x around 0."""

    whole = Cauchy

    @property
    def mean(self) -> Tensor:
        """Infinite."""
        return full_like(self.scale, math.inf)

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return full_like(self.scale, math.inf)
