"""Factorizations of matrices that are near ones of low rank, by random projection (Halko, Martinsson and Tropp, 2009:
"Finding structure with randomness")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import InvalidValueError
from kiln.factorizations import adjoint, matrix_arg, qr, svd
from kiln.movement import broadcast_to
from kiln.promotion import tensor_arg
from kiln.random import randn

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["pca_lowrank", "svd_lowrank"]


def _basis(a: Tensor, q: int, niter: int) -> Tensor:
    """Orthonormal columns that nearly span what `a` maps to, from `niter` steps of the power method."""
    found = qr(F.matmul(a, randn(a.shape[-1], q, dtype=a.dtype, device=a.device))).Q
    for _ in range(niter):
        found = qr(F.matmul(adjoint(a), found)).Q
        found = qr(F.matmul(a, found)).Q
    return found


def svd_lowrank(
    A: TensorBase, q: int | None = 6, niter: int | None = 2, M: TensorBase | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S, V) with A (less `M`, broadcast) near U @ diag(S) @ V.mH: the first `q` singular values of matrices of
    about this rank, of random projections."""
    a = matrix_arg("svd_lowrank", A, pairs=True)
    if M is not None:
        a = F.sub(a, broadcast_to(tensor_arg("svd_lowrank", M), a.shape))
    wide = a.shape[-2] < a.shape[-1]
    a = adjoint(a) if wide else a
    basis = _basis(a, 6 if q is None else q, 2 if niter is None else niter)
    u, s, v = svd(F.matmul(adjoint(basis), a), full_matrices=False)
    u, v = F.matmul(basis, u), adjoint(v)
    return (v, s, u) if wide else (u, s, v)


def pca_lowrank(
    A: TensorBase, q: int | None = None, center: bool = True, niter: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """`svd_lowrank` of A less the mean of its rows (unless `center` is False): the principal directions of samples that
    are rows are the columns of V. `q`: at most the smaller size, by default 6."""
    a = matrix_arg("pca_lowrank", A, pairs=True)
    least = min(a.shape[-2:])
    q = min(6, least) if q is None else q
    if not 0 <= q <= least:
        raise InvalidValueError(f"q must be from 0 to {least}, got {q}", op="pca_lowrank", operands=[a.ttype])
    if niter < 0:
        raise InvalidValueError(f"niter must not be negative, got {niter}", op="pca_lowrank")
    return svd_lowrank(F.sub(a, F.mean(a, -2, True)) if center else a, q, niter)
