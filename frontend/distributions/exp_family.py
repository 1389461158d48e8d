"""`ExponentialFamily`: entropies and divergences by the derivative of the normaliser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.autograd.backward import grad
from kiln.autograd.grad_mode import enable_grad
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import sum_rightmost

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """A distribution of density exp(t(x) . theta - F(theta) + k(x)), theta being its natural parameters.

    Its entropy follows from F alone: F(theta) - theta . grad F(theta) - E[k(x)] (Nielsen and Nock, 2010: "Entropies and
    cross-entropies of exponential families")."""

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        self._lacks("_natural_params")

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        """F of the natural parameters."""
        self._lacks("_log_normalizer")

    @property
    def _mean_carrier_measure(self) -> Any:
        """E[k(x)]."""
        self._lacks("_mean_carrier_measure")

    def entropy(self) -> Tensor:
        """By the derivative of the normaliser, which is differentiable like any other."""
        result, parameters, slopes = _normaliser(self)
        result = F.sub(result, self._mean_carrier_measure)
        for p, slope in zip(parameters, slopes, strict=True):
            result = result - (p * slope).reshape((*self._batch_shape, -1)).sum(-1)
        return result


def _normaliser(of: ExponentialFamily) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """The logarithm of the normaliser, the natural parameters, and the derivatives by these."""
    with enable_grad():
        parameters = [p + 0.0 if p.requires_grad else p.detach().requires_grad_() for p in of._natural_params]
        value = of._log_normalizer(*parameters)
        slopes: Any = grad(value.sum(), parameters, create_graph=True)
    return value, parameters, slopes


def bregman_divergence(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    """KL(p || q) of two members of one exponential family."""
    normaliser, mine, slopes = _normaliser(p)
    result = q._log_normalizer(*q._natural_params) - normaliser
    for x, y, slope in zip(mine, q._natural_params, slopes, strict=True):
        result = result - sum_rightmost((y - x) * slope, len(q.event_shape))
    return result
