"""Normal vectors of any covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln import linalg
from kiln.creation import eye
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import lazy_property
from kiln.random import randn
from kiln.selection import broadcast_shapes
from kiln.systems import cholesky_inverse

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["MultivariateNormal"]


def batch_mv(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices [..., m, n] times vectors [..., n], with broadcasting."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def batch_mahalanobis(tril: Tensor, x: Tensor) -> Tensor:
    """|inverse(tril) x|^2 of lower triangles [..., n, n] and vectors [..., n], with broadcasting."""
    batch = broadcast_shapes(tril.shape[:-2], x.shape[:-1])
    n, own = x.shape[-1], tril.ndim - 2
    lead, rest = batch[: len(batch) - own], batch[len(batch) - own :]
    if rest == tril.shape[:-2]:  # the triangles are shared by the leading dimensions: one system of many columns each
        columns = x.expand((*batch, n)).reshape((-1, *rest, n)).movedim(0, -1)
        solved = linalg.solve_triangular(tril, columns, upper=False)
        return (solved * solved).sum(-2).movedim(-1, 0).reshape((*lead, *rest))
    solved = linalg.solve_triangular(tril.expand((*batch, n, n)), x.expand((*batch, n)).unsqueeze(-1), upper=False)
    return (solved * solved).sum((-2, -1))


def precision_to_scale_tril(precision: Tensor) -> Tensor:
    """The Cholesky factor of the inverse of matrices [..., n, n], without inverting them: the factor of the matrix
    turned by half a turn, turned back, is the inverse of what is sought, transposed."""
    turned = linalg.cholesky(precision.flip((-2, -1)))
    inverse = turned.flip((-2, -1)).mT
    identity = eye(precision.shape[-1], dtype=precision.dtype, device=precision.device).expand(precision.shape)
    return linalg.solve_triangular(inverse, identity, upper=False)


def half_log_det(tril: Tensor) -> Tensor:
    """The sum of the logarithms of the diagonals of [..., n, n]."""
    return F.log(tril.diagonal(dim1=-2, dim2=-1)).sum(-1)


def chosen_matrix(owner: Distribution, **given: Tensor | None) -> tuple[str, Tensor]:
    """The one matrix that is given, and its name."""
    named = [(name, matrix) for name, matrix in given.items() if matrix is not None]
    if len(named) != 1:
        owner._refuse("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
    name, matrix = named[0]
    if matrix.ndim < 2:
        owner._refuse(f"{name} must be at least two-dimensional, with optional leading batch dimensions")
    return name, matrix


def factor(name: str, matrix: Tensor) -> Tensor:
    """The Cholesky factor of the covariance that a matrix of this name stands for."""
    if name == "scale_tril":
        return matrix
    return linalg.cholesky(matrix) if name == "covariance_matrix" else precision_to_scale_tril(matrix)


class MultivariateNormal(Distribution):
    """Normal vectors [n] of mean `loc` and of a covariance [n, n] that is given by one of itself, its inverse
    `precision_matrix`, or its Cholesky factor `scale_tril`, which is the fastest."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    _batched = {"loc": 1, "covariance_matrix": 2, "precision_matrix": 2, "scale_tril": 2}

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.ndim < 1:
            self._refuse("loc must be at least one-dimensional.")
        name, matrix = chosen_matrix(
            self, covariance_matrix=covariance_matrix, precision_matrix=precision_matrix, scale_tril=scale_tril
        )
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        vars(self)[name] = matrix.expand((*batch, *matrix.shape[-2:]))
        self.loc = loc.expand((*batch, loc.shape[-1]))
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        self._unbroadcasted_scale_tril = factor(name, matrix)

    def _expanded(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape * 2)

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

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return (self._unbroadcasted_scale_tril**2).sum(-1).expand(self._batch_shape + self._event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + scale_tril times standard normal vectors."""
        noise = randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + batch_mv(self._unbroadcasted_scale_tril, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        m = batch_mahalanobis(self._unbroadcasted_scale_tril, value - self.loc)
        n = int(self._event_shape[0])
        return -0.5 * (n * math.log(2 * math.pi) + m) - half_log_det(self._unbroadcasted_scale_tril)

    def entropy(self) -> Tensor:
        """n (1 + log(2 pi)) / 2 and half the logarithm of the covariance's determinant."""
        half = half_log_det(self._unbroadcasted_scale_tril)
        n = int(self._event_shape[0])
        return (0.5 * n * (1.0 + math.log(2 * math.pi)) + half).expand(self._batch_shape)
