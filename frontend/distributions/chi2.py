"""The chi-squared distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln.distributions import constraints
from kiln.distributions.gamma import Gamma

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Chi2"]


class Chi2(Gamma):
    """The sum of the squares of `df` standard normal numbers: Gamma(df / 2, 1 / 2)."""

    arg_constraints = {"df": constraints.positive}
    _batched = Gamma._batched

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Tensor:
        """2 concentration."""
        return self.concentration * 2
