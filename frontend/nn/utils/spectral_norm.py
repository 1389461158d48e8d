"""The older spectral normalisation: parameters under names of their own, from which the weight is computed."""

from __future__ import annotations

from typing import Any, TypeVar

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.errors import InvalidValueError
from kiln.nn.fn_linear import normalize
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.nn.utils.computed import compute, parameter, plain_again
from kiln.random import randn
from kiln.tensor import Tensor

__all__ = ["remove_spectral_norm", "spectral_norm"]

AnyModule = TypeVar("AnyModule", bound=Module)


def spectral_norm(
    module: AnyModule,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> AnyModule:
    """The parameter (`{name}_orig`) divided by its largest singular value (Miyato et al., 2018), which power iteration
    estimates: each read while training goes on by some steps, in the buffers `{name}_u` and `{name}_v`."""
    weight = parameter("spectral_norm", module, name)
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    if n_power_iterations <= 0:
        raise InvalidValueError(f"n_power_iterations must be positive, got {n_power_iterations}", op="spectral_norm")
    first = F.dim_index("spectral_norm", dim, weight.ndim)
    order = (first, *[d for d in range(weight.ndim) if d != first])

    def matrix_of(w: Tensor) -> Tensor:
        return F.reshape(F.permute(w, order), (w.shape[first], -1))

    with no_grad():
        for part, size in zip("uv", matrix_of(weight).shape, strict=True):
            module.register_buffer(
                f"{name}_{part}", normalize(randn(size, dtype=weight.dtype, device=weight.device), dim=0, eps=eps)
            )
    delattr(module, name)
    module.register_parameter(f"{name}_orig", Parameter(weight.detach(), weight.requires_grad))

    def read(m: Any) -> Tensor:
        w: Tensor = getattr(m, f"{name}_orig")
        u, v, matrix = getattr(m, f"{name}_u"), getattr(m, f"{name}_v"), matrix_of(w)
        if m.training:
            with no_grad():
                for _ in range(n_power_iterations):
                    v.copy_(normalize(F.matmul(matrix.detach().t(), u), dim=0, eps=eps))
                    u.copy_(normalize(F.matmul(matrix.detach(), v), dim=0, eps=eps))
        u, v = u.clone(), v.clone()  # the next read writes into the buffers
        return F.div(w, F.sum(F.mul(u, F.matmul(matrix, v))))

    compute(module, name, read)
    return module


def remove_spectral_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `spectral_norm`: the parameter is a plain one again, divided as it was."""
    training = module.training
    module.training = False
    value = plain_again("remove_spectral_norm", module, name)
    module.training = training
    for part in ("orig", "u", "v"):
        if hasattr(module, f"{name}_{part}"):
            delattr(module, f"{name}_{part}")
    module.register_parameter(name, Parameter(value))
    return module
