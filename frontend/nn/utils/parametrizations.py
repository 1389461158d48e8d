"""Known parametrisations: weight and spectral normalisation, orthogonal matrices."""

from __future__ import annotations

from typing import TypeVar

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.creation import eye, zeros
from kiln.errors import InvalidValueError, NotYetError, ShapeError
from kiln.factorizations import householder_product, qr
from kiln.movement import diagonal, tril
from kiln.nn.fn_linear import normalize
from kiln.nn.module import Module
from kiln.nn.utils.parametrize import register_parametrization
from kiln.pointwise import sign, trunc
from kiln.random import randn
from kiln.reductions import vector_norm
from kiln.systems import matrix_exp, solve
from kiln.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

AnyModule = TypeVar("AnyModule", bound=Module)


class _WeightNorm(Module):
    """v * (g / norm(v)), the norm over all dimensions but `dim` (over all for None or -1)."""

    def __init__(self, dim: int | None = 0) -> None:
        self.dim = -1 if dim is None else dim

    def _norm(self, v: Tensor) -> Tensor:
        if self.dim == -1:
            return vector_norm(v, 2.0, None)
        return vector_norm(v, 2.0, [d for d in range(v.ndim) if d != self.dim % v.ndim], keepdim=True)

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return F.mul(weight_v, F.div(weight_g, self._norm(weight_v)))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(norm, weight)."""
        return self._norm(weight), weight


def weight_norm(module: AnyModule, name: str = "weight", dim: int | None = 0) -> AnyModule:
    """The parameter as direction times length (Salimans and Kingma, 2016): `original0` is the length per slice of
    `dim` (one for all with None), `original1` the direction."""
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """weight / sigma, its largest singular value as matrix [size of dim, rest], estimated by power iteration; in
    training each call goes on by some steps, in place in the buffers `_u` and `_v`."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        if not -weight.ndim <= dim < weight.ndim:
            raise ShapeError(f"there is no dimension {dim}", op="spectral_norm", operands=[weight.ttype])
        if n_power_iterations <= 0:
            raise InvalidValueError(f"n_power_iterations must be positive, got {n_power_iterations}")
        self.dim, self.eps, self.n_power_iterations = dim % weight.ndim, eps, n_power_iterations
        if weight.ndim > 1:
            with no_grad():
                matrix = self._matrix(weight)
                for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                    self.register_buffer(
                        name, normalize(randn(size, dtype=weight.dtype, device=weight.device), dim=0, eps=eps)
                    )
                self._iterate(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        others = [d for d in range(weight.ndim) if d != self.dim]
        return F.flatten(F.permute(weight, self.dim, *others), 1)

    def _iterate(self, matrix: Tensor, count: int) -> None:
        for _ in range(count):
            self._u.copy_(normalize(F.matmul(matrix, self._v), dim=0, eps=self.eps))
            self._v.copy_(normalize(F.matmul(matrix.t(), self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            with no_grad():
                self._iterate(matrix.detach(), self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()  # the next call writes into the buffers
        sigma = F.sum(F.mul(u, F.matmul(matrix, v)))
        return F.div(weight, sigma)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


def spectral_norm(
    module: AnyModule,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> AnyModule:
    """The parameter divided by its largest singular value (Miyato et al., 2018); `dim` (default 0, for transposed
    convolutions 1) is the matrix's rows."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise InvalidValueError(f"{type(module).__name__} has no parameter {name!r}", op="spectral_norm")
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


_MAPS = ("matrix_exp", "cayley", "householder")


class _Orthogonal(Module):
    """An orthogonal matrix (or one with orthonormal columns or rows) from the lower triangle of any matrix."""

    base: Tensor

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)
        self.use_trivialization = use_trivialization

    def forward(self, X: Tensor) -> Tensor:
        n, k = X.shape[-2:]
        wide = n < k
        if wide:
            X, n, k = X.mT, k, n
        if self.orthogonal_map == "householder":
            A = tril(X, -1)
            tau = F.div(2.0, F.add(F.sum(F.mul(A, A), -2), 1.0))
            signs = trunc(diagonal(X, 0, -2, -1).detach())
            Q = F.mul(householder_product(A, tau), F.unsqueeze(signs, -2))
        else:
            X = tril(X)
            if n != k:
                X = F.cat([X, zeros(*X.shape[:-2], n, n - k, dtype=X.dtype, device=X.device)], -1)
            A = F.sub(X, X.mT)
            if self.orthogonal_map == "matrix_exp":
                Q = matrix_exp(A)
            else:
                one = eye(n, dtype=A.dtype, device=A.device)
                Q = solve(F.sub(one, F.mul(A, 0.5)), F.add(one, F.mul(A, 0.5)))
            Q = Q if n == k else Q[..., :k]
        if self.use_trivialization:
            Q = F.matmul(self.base, Q)
        return Q.mT if wide else Q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """Minus the identity, with the nearest orthogonal matrix kept as the base."""
        if not self.use_trivialization:
            raise NotYetError(
                "without trivialisation the parameter can't be assigned", op="orthogonal", fix="use_trivialization=True"
            )
        n, k = Q.shape[-2:]
        tall = Q.mT if n < k else Q
        n, k = tall.shape[-2:]
        if n != k:
            tall = F.cat([tall, randn(*tall.shape[:-2], n, n - k, dtype=Q.dtype, device=Q.device)], -1)
        found = qr(tall)
        self.base = F.mul(found.Q, F.unsqueeze(sign(diagonal(found.R, 0, -2, -1)), -2)).detach()
        start = F.mul(Q.detach(), 0.0)
        return start.sub(eye(Q.shape[-2], Q.shape[-1], dtype=Q.dtype, device=Q.device))


def orthogonal(
    module: AnyModule, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> AnyModule:
    """The matrix (or batch of them) as one with orthonormal columns, or rows where it is wide: by the matrix
    exponential or the Cayley map of a skew-symmetric matrix, or as a product of Householder reflections (default: the
    first for square ones, the last for others). With `use_trivialization` it starts from the matrix nearest to the
    present one; without, the parametrisation is of the present values themselves."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise InvalidValueError(f"{type(module).__name__} has no parameter {name!r}", op="orthogonal")
    if weight.ndim < 2:
        raise ShapeError("expects a matrix or a batch of matrices", op="orthogonal", operands=[weight.ttype])
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in _MAPS:
        raise InvalidValueError(f"orthogonal_map is one of {_MAPS}, not {orthogonal_map!r}", op="orthogonal")
    if orthogonal_map == "householder" and not use_trivialization:
        raise NotYetError("Householder reflections need trivialisation", op="orthogonal", fix="use_trivialization=True")
    made = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
