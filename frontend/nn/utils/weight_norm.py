"""The older weight normalisation: parameters under names of their own, from which the weight is computed."""

from __future__ import annotations

from typing import Any, TypeVar

from kiln.autograd import no_grad
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.nn.utils.computed import compute, parameter, plain_again
from kiln.nn.utils.parametrizations import _WeightNorm
from kiln.tensor import Tensor

__all__ = ["remove_weight_norm", "weight_norm"]

AnyModule = TypeVar("AnyModule", bound=Module)


def weight_norm(module: AnyModule, name: str = "weight", dim: int | None = 0) -> AnyModule:
    """The parameter as length times direction (Salimans and Kingma, 2016): `{name}_g`, the norm of each slice of `dim`
    (of all with None), and `{name}_v`."""
    weight, norm = parameter("weight_norm", module, name), _WeightNorm(dim)
    with no_grad():
        length, direction = norm.right_inverse(weight.detach())
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(length.clone()))
    module.register_parameter(f"{name}_v", Parameter(direction.clone()))

    def read(m: Any) -> Tensor:
        return norm.forward(getattr(m, f"{name}_g"), getattr(m, f"{name}_v"))

    compute(module, name, read)
    return module


def remove_weight_norm(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undo `weight_norm`: the parameter is a plain one again."""
    value = plain_again("remove_weight_norm", module, name)
    delattr(module, f"{name}_g")
    delattr(module, f"{name}_v")
    module.register_parameter(name, Parameter(value))
    return module
