"""Norms of vectors and matrices (`kiln.linalg`), with torch.linalg's names and arguments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import DTypeError, InvalidValueError, NotYetError, ShapeError
from kiln.functional import Dims, dim_index
from kiln.ir.types import DType
from kiln.promotion import cast_to, in_float32, tensor_arg
from kiln.reductions import vector_norm as vector_norm

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["matrix_norm", "norm", "vector_norm"]


def matrix_norm(
    A: TensorBase, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The norm of the matrices in two dimensions: "fro" (the root of the sum of squares), the largest (or for negative
    `ord` least) sum of magnitudes of a column (1, -1) or row (inf, -inf). NotYetError for 2, -2 and "nuc"."""
    x = tensor_arg("matrix_norm", A)
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="matrix_norm", operands=[x.ttype])
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="matrix_norm", operands=[x.ttype], fix="use .float()")
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise InvalidValueError(f"dim must be two dimensions, got {dim!r}", op="matrix_norm")
    rows, columns = (dim_index("matrix_norm", d, x.ndim) for d in dim)
    if rows == columns:
        raise InvalidValueError(f"the dimensions must differ, got {dim!r}", op="matrix_norm")
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim, dtype=dtype)
    if ord in (2, -2, "nuc"):
        raise NotYetError(f"ord={ord!r} needs singular values", op="matrix_norm", fix='use "fro", 1, -1, inf or -inf')
    if isinstance(ord, str) or ord not in (1, -1, math.inf, -math.inf):
        raise InvalidValueError(f"there is no matrix norm of ord {ord!r}", op="matrix_norm")
    summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    return _extreme_sum(x if dtype is None else cast_to(x, dtype), summed, chosen, ord > 0, keepdim)


@in_float32
def _extreme_sum(x: Tensor, summed: int, chosen: int, largest: bool, keepdim: bool) -> Tensor:
    sums = F.sum(F.abs(x), summed, keepdim=True)
    result = (F.amax if largest else F.amin)(sums, chosen, keepdim=True)
    shape = [n for d, n in enumerate(result.shape) if d not in (summed, chosen)]
    return result if keepdim else F.reshape(result, shape)


def norm(
    A: TensorBase, ord: Any = None, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Without `ord` the root of the sum of squares over `dim` (default: all). Else `vector_norm` over one dimension,
    `matrix_norm` over two; without `dim` the tensor must be a vector or a matrix."""
    x = tensor_arg("norm", A)
    if ord is None:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    if dim is None:
        if x.ndim not in (1, 2):
            raise ShapeError("without dim, ord is for vectors and matrices", op="norm", operands=[x.ttype])
        dim = tuple(range(x.ndim))
    if isinstance(dim, int) or (len(dim) == 1 and not isinstance(ord, str)):
        return vector_norm(x, ord, dim, keepdim, dtype=dtype)
    return matrix_norm(x, ord, tuple(dim), keepdim, dtype=dtype)
