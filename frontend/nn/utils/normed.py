"""The older weight and spectral normalisation: parameters under names of their own (`weight_g`, `weight_orig`, ...),
from which the weight is computed each time that it is read. And two layers made one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.errors import InvalidValueError
from kiln.nn.fn_linear import normalize
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.nn.utils.parametrizations import _WeightNorm
from kiln.random import randn
from kiln.tensor import Tensor

__all__ = [
    "fuse_conv_bn_eval", "remove_spectral_norm", "remove_weight_norm", "skip_init", "spectral_norm", "weight_norm",
]  # fmt: skip

AnyModule = TypeVar("AnyModule", bound=Module)


def _compute(module: Module, name: str, read: Callable[[Any], Tensor]) -> None:
    """From now on `module.name` is read(module): the module gets a class of its own."""
    cls = type(module)
    if "_computed" not in vars(cls):
        cls = type(cls.__name__, (cls,), {"__module__": __name__, "_computed": {}})
        object.__setattr__(module, "__class__", cls)
    vars(cls)["_computed"][name] = read
    setattr(cls, name, property(read))


def _plain_again(op: str, module: Module, name: str) -> Tensor:
    """Undo `_compute`; the last value."""
    cls = type(module)
    if name not in vars(cls).get("_computed", {}):
        raise InvalidValueError(f"{cls.__name__} has no normalised {name!r}", op=op)
    with no_grad():
        value: Tensor = getattr(module, name).detach().clone()
    delattr(cls, name)
    del vars(cls)["_computed"][name]
    if not vars(cls)["_computed"]:
        object.__setattr__(module, "__class__", cls.__bases__[0])
    return value


def _parameter(op: str, module: Module, name: str) -> Tensor:
    found = module._parameters.get(name)
    if found is None:
        raise InvalidValueError(f"{type(module).__name__} has no parameter {name!r}", op=op)
    return found


def weight_norm(module: AnyModule, name: str = "weight", dim: int | None = 0) -> AnyModule:
    """The parameter as length times direction (Salimans and Kingma, 2016): `{name}_g`, the norm of each slice of `dim`
    (of all with None), and `{name}_v`."""
    weight, norm = _parameter("weight_norm", module, name), _WeightNorm(dim)
    with no_grad():
        length, direction = norm.right_inverse(weight.detach())
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(length.clone()))
    module.register_parameter(f"{name}_v", Parameter(direction.clone()))

    def read(m: Any) -> Tensor:
        return norm.forward(getattr(m, f"{name}_g"), getattr(m, f"{name}_v"))

    _compute(module, name, read)
    return module


def remove_weight_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `weight_norm`: the parameter is a plain one again."""
    value = _plain_again("remove_weight_norm", module, name)
    delattr(module, f"{name}_g")
    delattr(module, f"{name}_v")
    module.register_parameter(name, Parameter(value))
    return module


def spectral_norm(
    module: AnyModule,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> AnyModule:
    """The parameter (`{name}_orig`) divided by its largest singular value (Miyato et al., 2018), which power iteration
    estimates: each read while training goes on by some steps, in the buffers `{name}_u` and `{name}_v`."""
    weight = _parameter("spectral_norm", module, name)
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
            module.register_buffer(f"{name}_{part}", normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))
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

    _compute(module, name, read)
    return module


def remove_spectral_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `spectral_norm`: the parameter is a plain one again, divided as it was."""
    training = module.training
    module.training = False
    value = _plain_again("remove_spectral_norm", module, name)
    module.training = training
    for part in ("orig", "u", "v"):
        if hasattr(module, f"{name}_{part}"):
            delattr(module, f"{name}_{part}")
    module.register_parameter(name, Parameter(value))
    return module


def skip_init(module_cls: type[AnyModule], *args: Any, **kwargs: Any) -> AnyModule:
    """module_cls(*args, **kwargs). (Initial values are cheap; they are not left out.)"""
    return module_cls(*args, **kwargs)


def fuse_conv_bn_eval(conv: AnyModule, bn: Any, transpose: bool = False) -> AnyModule:
    """A copy of a convolution that computes what it and a batch normalisation behind it do, both in evaluation."""
    if conv.training or bn.training:
        raise InvalidValueError("fusing is for evaluation", op="fuse_conv_bn_eval", fix="call .eval() on both")
    made: Any = copy.deepcopy(conv)
    with no_grad():
        scale = (bn.running_var + bn.eps).rsqrt()
        scale = scale if bn.weight is None else scale * bn.weight
        shape = [1] * made.weight.ndim
        shape[1 if transpose else 0] = -1
        shift = -bn.running_mean if made.bias is None else made.bias - bn.running_mean
        bias = shift * scale if bn.bias is None else shift * scale + bn.bias
        weight = F.mul(made.weight, F.reshape(scale, shape)).to(made.weight.dtype)
    made.weight = Parameter(weight, conv.weight.requires_grad)
    made.bias = Parameter(bias.to(weight.dtype), made.weight.requires_grad)
    fused: AnyModule = made
    return fused
