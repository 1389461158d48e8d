"""The half-normal distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kiln.distributions.folded import Folded
from kiln.distributions.normal import Normal

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["HalfNormal"]


class HalfNormal(Folded):
    """|x| of normal numbers x of mean 0 and deviation `scale`."""

    whole = Normal

    @property
    def mean(self) -> Tensor:
        """scale sqrt(2 / pi)."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """scale^2 (1 - 2 / pi)."""
        return self.scale**2 * (1 - 2 / math.pi)
