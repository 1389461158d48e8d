"""Normal vectors of a covariance of low rank and a diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln import linalg
from kiln.creation import eye
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.multivariate_normal import batch_mahalanobis, batch_mv, half_log_det
from kiln.distributions.utils import lazy_property
from kiln.errors import InvalidValueError, ShapeError
from kiln.movement import diag_embed
from kiln.random import randn
from kiln.selection import broadcast_shapes

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["LowRankMultivariateNormal"]


def capacitance_tril(factor: Tensor, diagonal: Tensor) -> Tensor:
    """The Cholesky factor of I + factor^T inverse(diagonal) factor."""
    inner = (factor.mT / diagonal.unsqueeze(-2)) @ factor
    return linalg.cholesky(inner + eye(factor.shape[-1], dtype=factor.dtype, device=factor.device))


def lowrank_logdet(diagonal: Tensor, tril: Tensor) -> Tensor:
    """log of the determinant of factor factor^T + diagonal, by its capacitance's factor (the determinant lemma)."""
    return 2 * half_log_det(tril) + F.log(diagonal).sum(-1)


def lowrank_mahalanobis(factor: Tensor, diagonal: Tensor, x: Tensor, tril: Tensor) -> Tensor:
    """x^T inverse(factor factor^T + diagonal) x (Woodbury's identity)."""
    inner = batch_mv(factor.mT / diagonal.unsqueeze(-2), x)
    return (x**2 / diagonal).sum(-1) - batch_mahalanobis(tril, inner)


class LowRankMultivariateNormal(Distribution):
    """Normal vectors [n] of mean `loc` and the covariance cov_factor cov_factor^T + diag(cov_diag); `cov_factor` is
    [n, m], and no matrix larger than that is factored where m is small."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    _batched = {"loc": 1, "cov_factor": 2, "cov_diag": 1}

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        if loc.ndim < 1:
            self._refuse("loc must be at least one-dimensional.")
        event = loc.shape[-1:]
        if cov_factor.ndim < 2:
            self._refuse("cov_factor must be at least two-dimensional, with optional leading batch dimensions")
        if cov_factor.shape[-2:-1] != event:
            self._refuse(f"cov_factor must be a batch of matrices with shape {event[0]} x m")
        if cov_diag.shape[-1:] != event:
            self._refuse(f"cov_diag must be a batch of vectors with shape {event}")
        try:
            batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        except ShapeError as e:
            raise InvalidValueError(
                f"Incompatible batch shapes: loc {loc.shape}, cov_factor {cov_factor.shape}, cov_diag {cov_diag.shape}",
                op=type(self).__name__,
            ) from e
        self.loc, self.cov_diag = loc.expand(batch + event), cov_diag.expand(batch + event)
        self.cov_factor = cov_factor.expand(batch + cov_factor.shape[-2:])
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        self._capacitance_tril = capacitance_tril(cov_factor, cov_diag)
        super().__init__(batch, event, validate_args=validate_args)

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
        diagonal = (self._unbroadcasted_cov_factor**2).sum(-1) + self._unbroadcasted_cov_diag
        return diagonal.expand(self._batch_shape + self._event_shape)

    def _expanded(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape * 2)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of the covariance, by that of I + D^(-1/2) W W^T D^(-1/2)."""
        root = F.sqrt(self._unbroadcasted_cov_diag).unsqueeze(-1)
        scaled = self._unbroadcasted_cov_factor / root
        inner = scaled @ scaled.mT + eye(self._event_shape[0], dtype=root.dtype, device=root.device)
        return self._expanded(root * linalg.cholesky(inner))

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        w = self._unbroadcasted_cov_factor
        return self._expanded(w @ w.mT + diag_embed(self._unbroadcasted_cov_diag))

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance (Woodbury's identity)."""
        scaled = self._unbroadcasted_cov_factor.mT / self._unbroadcasted_cov_diag.unsqueeze(-2)
        a = linalg.solve_triangular(self._capacitance_tril, scaled, upper=False)
        return self._expanded(diag_embed(F.reciprocal(self._unbroadcasted_cov_diag)) - a.mT @ a)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + cov_factor times normal vectors [m] + sqrt(cov_diag) times normal vectors [n]."""
        shape = self._extended_shape(sample_shape)
        small = randn((*shape[:-1], self.cov_factor.shape[-1]), dtype=self.loc.dtype, device=self.loc.device)
        large = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + batch_mv(self._unbroadcasted_cov_factor, small) + F.sqrt(self._unbroadcasted_cov_diag) * large

    def _log_det(self) -> Tensor:
        return lowrank_logdet(self._unbroadcasted_cov_diag, self._capacitance_tril)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        m = lowrank_mahalanobis(
            self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag, value - self.loc, self._capacitance_tril
        )
        return -0.5 * (int(self._event_shape[0]) * math.log(2 * math.pi) + self._log_det() + m)

    def entropy(self) -> Tensor:
        """Half of n (1 + log(2 pi)) and the logarithm of the covariance's determinant."""
        both = int(self._event_shape[0]) * (1.0 + math.log(2 * math.pi)) + self._log_det()
        return (0.5 * both).expand(self._batch_shape)
