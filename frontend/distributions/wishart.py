"""The Wishart distribution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from kiln import functional as F
from kiln import linalg
from kiln.base import TensorBase
from kiln.checks import holds
from kiln.creation import arange, tensor
from kiln.distributions import constraints
from kiln.distributions.chi2 import Chi2
from kiln.distributions.exp_family import ExponentialFamily
from kiln.distributions.multivariate_normal import chosen_matrix, factor, half_log_det
from kiln.distributions.utils import lazy_property
from kiln.dtypes import finfo
from kiln.maths import digamma
from kiln.movement import diag_embed
from kiln.random import randn
from kiln.selection import broadcast_shapes
from kiln.special import multigammaln
from kiln.systems import cholesky_inverse, cholesky_solve

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Wishart"]


def _multivariate_digamma(x: Tensor, p: int) -> Tensor:
    return digamma(x.unsqueeze(-1) - arange(p, dtype=x.dtype, device=x.device) / 2).sum(-1)


class Wishart(ExponentialFamily):
    """Matrices [p, p]: sums of the squares v v^T of `df` normal vectors of mean 0 and of a covariance that is given by
    one of itself, its inverse `precision_matrix`, or its Cholesky factor `scale_tril`.

    Samples are made by Bartlett's decomposition and are differentiable. `df` lies above p - 1; between that and p,
    samples may round to singular matrices, of which the constructor warns."""

    support = constraints.positive_definite
    has_rsample = True
    _batched = {"df": 0, "covariance_matrix": 2, "precision_matrix": 2, "scale_tril": 2, "_dist_chi2": 1}
    _mean_carrier_measure = 0

    def __init__(
        self,
        df: Any,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name, matrix = chosen_matrix(
            self, covariance_matrix=covariance_matrix, precision_matrix=precision_matrix, scale_tril=scale_tril
        )
        event = matrix.shape[-2:]
        degrees = df if isinstance(df, TensorBase) else tensor(df, dtype=matrix.dtype, device=matrix.device)
        batch = broadcast_shapes(matrix.shape[:-2], degrees.shape)
        self.df = cast("Tensor", degrees).expand(batch)
        p = event[-1]
        if not holds(self.df > p - 1):
            self._refuse(f"Value of df={df} expected to be greater than ndim - 1 = {p - 1}.")
        if not holds(self.df >= p):
            warnings.warn(
                "Low df values detected. Singular samples are highly likely to occur for ndim - 1 < df < ndim.",
                stacklevel=2,
            )
        vars(self)[name] = matrix.expand(batch + event)
        super().__init__(batch, event, validate_args=validate_args)
        self._unbroadcasted_scale_tril = factor(name, matrix)
        self._dist_chi2 = Chi2(self.df.unsqueeze(-1) - arange(p, dtype=matrix.dtype, device=matrix.device))

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """`df` depends on the size of the matrices."""
        return {
            "covariance_matrix": constraints.positive_definite,
            "precision_matrix": constraints.positive_definite,
            "scale_tril": constraints.lower_cholesky,
            "df": constraints.greater_than(self.event_shape[-1] - 1),
        }

    def _expanded(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of the covariance."""
        return self._expanded(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self._expanded(self._unbroadcasted_scale_tril @ self._unbroadcasted_scale_tril.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return self._expanded(cholesky_inverse(self._unbroadcasted_scale_tril))

    def _degrees(self) -> Tensor:
        return self.df.unsqueeze(-1).unsqueeze(-1)

    @property
    def mean(self) -> Tensor:
        """df times the covariance."""
        return self._degrees() * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        """(df - p - 1) times the covariance; NaN where that is not positive."""
        times = self._degrees() - (int(self._event_shape[-1]) + 1)
        return F.where(times <= 0, math.nan, times) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        """df (v_ij^2 + v_ii v_jj) of the covariance v."""
        v = self.covariance_matrix
        diagonal = v.diagonal(dim1=-2, dim2=-1)
        return self._degrees() * (v**2 + diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """a a^T of scale_tril times a triangle with normal numbers below roots of chi-squared ones on the diagonal."""
        roots = F.sqrt(self._dist_chi2.rsample(sample_shape))
        roots = F.clamp(roots, finfo(roots.dtype).eps)
        drawn = randn(self._extended_shape(sample_shape), dtype=roots.dtype, device=roots.device)
        noise = drawn.tril(-1) + diag_embed(roots)
        a = self._unbroadcasted_scale_tril @ noise
        return a @ a.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        nu, p, tril = self.df, int(self._event_shape[-1]), self._unbroadcasted_scale_tril
        solved = cholesky_solve(value, tril.expand((*value.shape[:-2], p, p)))
        trace = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        norm = nu * (p * math.log(2) / 2 + half_log_det(tril)) + multigammaln(nu / 2, p)
        return (nu - p - 1) / 2 * linalg.slogdet(value).logabsdet - trace / 2 - norm

    def entropy(self) -> Tensor:
        """-E[log_prob]."""
        nu, p = self.df, int(self._event_shape[-1])
        return (
            (p + 1) * (p * math.log(2) / 2 + half_log_det(self._unbroadcasted_scale_tril))
            + multigammaln(nu / 2, p)
            - (nu - p - 1) / 2 * _multivariate_digamma(nu / 2, p)
            + nu * p / 2
        )

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return -self.precision_matrix / 2, (self.df - self._event_shape[-1] - 1) / 2

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        x, y = natural_params
        p = int(self._event_shape[-1])
        a = y + (p + 1) / 2
        return a * (-linalg.slogdet(-2 * x).logabsdet + math.log(2) * p) + multigammaln(a, p)
