"""Parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.errors import ArgumentError, ShapeError
from kiln.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened and joined."""
    parts = [F.reshape(p, (-1,)) for p in parameters]
    if not parts:
        raise ArgumentError("there are no parameters", op="parameters_to_vector")
    return F.cat(parts)


@no_grad()
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the parts of a vector into the parameters. ShapeError when it is too short."""
    start = 0
    for p in parameters:
        end = start + p.numel()
        if end > vec.numel():
            raise ShapeError("the vector is shorter than the parameters", op="vector_to_parameters",
                             operands=[vec.ttype, p.ttype])  # fmt: skip
        p.copy_(F.reshape(vec[start:end], p.shape))
        start = end
