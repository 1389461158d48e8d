"""Known parametrisations: weight and spectral normalisation."""

from __future__ import annotations

from typing import TypeVar

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.errors import InvalidValueError, ShapeError
from kiln.nn.fn_linear import normalize
from kiln.nn.module import Module
from kiln.nn.utils.parametrize import register_parametrization
from kiln.random import randn
from kiln.reductions import vector_norm
from kiln.tensor import Tensor

__all__ = ["spectral_norm", "weight_norm"]

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
                    self.register_buffer(name, normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))
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
