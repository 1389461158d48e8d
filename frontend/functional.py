"""The public functions on tensors: broadcasting, type promotion and argument sugar over the primitives.

Every function here is *defined* as the composition of primitives that it is written as, in that order: a
compiled program fuses it but never reorders it. Names, arguments, promotion and errors follow PyTorch.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from kiln import return_types
from kiln.arguments import Dims as Dims
from kiln.arguments import dim_index as dim_index
from kiln.arguments import dim_tuple as dim_tuple
from kiln.arguments import size_tuple as size_tuple
from kiln.base import MODES, Operand, TensorBase
from kiln.composite import composite
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.types import DType
from kiln.products import at_once, told
from kiln.promotion import (
    apply,
    binary,
    broadcast_shapes,
    broadcast_to,
    brought,
    cast_to,
    floating,
    full_like_number,
    in_float32,
    inexact,
    keeps_number,
    number,
    result_type,
    same_place,
    tensor_arg,
    together,
)
from kiln.promotion import pair as pair
from kiln.promotion import parts as parts
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor


_ADD, _SUB, _MUL, _DIV = OPS["add"], OPS["sub"], OPS["mul"], OPS["div"]
_COPY = OPS["copy"]
_RESHAPE, _PERMUTE, _SUM = OPS["reshape"], OPS["permute"], OPS["sum"]
_WHERE, _PICK, _MATMUL, _CAT = OPS["where"], OPS["pick"], OPS["matmul"], OPS["cat"]
_ADDMM = OPS["addmm"]


# -------------------------------------------------------------------------------------------- arithmetic


def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input + alpha * other, broadcast and promoted; for bools logical or."""
    if alpha != 1:
        other = mul(other, alpha)
    if alpha == 1 and isinstance(input, TensorBase) and input.dtype is T.bool_ and _is_bool(other):
        return logical_or(input, other)
    return binary(_ADD, input, other)


def _is_bool(x: Operand) -> bool:
    return x._layout.dtype is T.bool_ if isinstance(x, TensorBase) else isinstance(x, (bool, np.bool_))


def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """input - alpha * other, broadcast and promoted. DTypeError for bools."""
    if _is_bool(input) or _is_bool(other):
        raise DTypeError("is not defined for bools", op="sub", fix="use logical_xor (!=) or logical_not")
    if alpha != 1:
        other = mul(other, alpha)
    return binary(_SUB, input, other)


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other, broadcast and promoted; for bools logical and."""
    if isinstance(input, TensorBase) and input.dtype is T.bool_ and _is_bool(other):
        return logical_and(input, other)
    return binary(_MUL, input, other)


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, broadcast; integers and bools are divided in the default dtype. With rounding_mode "trunc"
    (towards 0) or "floor" the dtype is the promoted one, and DivisionByZeroError is raised where an integer is divided
    by 0."""
    if rounding_mode is not None:
        return _rounded_div(input, other, rounding_mode)
    a = isinstance(input, TensorBase) and input.dtype.is_inexact
    if a and isinstance(other, (TensorBase, float, int)):
        return binary(_DIV, input, other)
    if isinstance(other, TensorBase) and keeps_number("div", other.dtype, input):
        return binary(_DIV, input, other)
    dtype = result_type(input, other)
    return apply(_DIV, *together("div", input, other, dtype=dtype if dtype.is_inexact else MODES.default_dtype))


def _rounded_div(input: Operand, other: Operand, mode: str) -> Tensor:
    if mode not in ("trunc", "floor"):
        raise InvalidValueError(f'rounding_mode must be None, "trunc" or "floor", got {mode!r}', op="div")
    a, b = together("div", input, other)
    if a.dtype.kind == "bool":
        raise DTypeError(f"is not defined for bools with rounding_mode={mode!r}", op="div", operands=[a.ttype, b.ttype])
    if a.dtype.kind != "float":
        return apply(OPS[f"{mode}_divide_int"], a, b)
    return apply(OPS["floor_divide"], a, b) if mode == "floor" else apply(OPS["trunc"], apply(_DIV, a, b))


def neg(input: TensorBase) -> Tensor:
    """-input. DTypeError for bools."""
    return apply(_NEG, tensor_arg("neg", input))


def abs(input: TensorBase) -> Tensor:
    """The absolute value, of complex numbers their length; the gradient at 0 is 0."""
    x = tensor_arg("abs", input)
    return apply(OPS["modulus"], *parts(x)) if x.dtype.is_complex else apply(_ABS, x)


_NEG, _ABS = OPS["neg"], OPS["abs"]


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, broadcast and promoted. Integers wrap; a negative exponent gives 0 (only 1 and -1 have such
    powers), and DTypeError where it is a number. DTypeError for bools."""
    if isinstance(input, TensorBase) and isinstance(exponent, float) and input.dtype.kind == "float":
        return binary(OPS["pow"], input, exponent)
    if isinstance(input, TensorBase) and input.dtype.is_complex and type(exponent) is int and exponent == 2:
        return mul(input, input)
    a, b = together("pow", input, exponent)
    if a.dtype.is_inexact:
        return apply(OPS["pow"], a, b)
    if a.dtype.kind == "bool":
        raise DTypeError("is not defined for bools", op="pow", operands=[a.ttype, b.ttype])
    if not isinstance(exponent, TensorBase):
        if number(exponent) < 0:
            raise DTypeError("integers have no negative powers", op="pow", operands=[a.ttype], fix="cast to floats")
        if exponent == 2:
            return apply(_MUL, a, a)
    return apply(OPS["pow_int"], a, b)


def square(input: TensorBase) -> Tensor:
    """input * input; of bools as int64."""
    x = tensor_arg("square", input)
    x = cast_to(x, T.int64) if x.dtype is T.bool_ else x
    return mul(x, x)


def reciprocal(input: TensorBase) -> Tensor:
    """1 / input."""
    return div(1.0, input)


@in_float32
def rsqrt(input: TensorBase) -> Tensor:
    """1 / sqrt(input)."""
    return div(1.0, sqrt(input))


def maximum(input: Operand, other: Operand) -> Tensor:
    """The larger one; NaN if either is NaN; at ties each gets half the gradient."""
    return binary(OPS["maximum"], input, other)


def minimum(input: Operand, other: Operand) -> Tensor:
    """The smaller one; NaN if either is NaN; at ties each gets half the gradient."""
    return binary(OPS["minimum"], input, other)


def clamp(input: TensorBase, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """`input` below `max` and above `min`: where(x < min, min, x), then where(x > max, max, x)."""
    x = tensor_arg("clamp", input)
    if min is None and max is None:
        raise InvalidValueError("needs min or max", op="clamp", fix="clamp(min=0.0)")
    if min is not None:
        x = where(lt(x, min), min, x)
    if max is not None:
        x = where(gt(x, max), max, x)
    return x


# ------------------------------------------------------------------------------- functions of one element


def exp(input: TensorBase) -> Tensor:
    """e to the power of each element."""
    return apply(OPS["exp"], inexact("exp", input))


def log(input: TensorBase) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below."""
    return apply(OPS["log"], inexact("log", input))


def tanh(input: TensorBase) -> Tensor:
    """Hyperbolic tangent."""
    return apply(OPS["tanh"], inexact("tanh", input))


def sqrt(input: TensorBase) -> Tensor:
    """Square root, correctly rounded."""
    return apply(OPS["sqrt"], inexact("sqrt", input))


def erf(input: TensorBase) -> Tensor:
    """Error function."""
    return apply(OPS["erf"], floating("erf", input))


def sin(input: TensorBase) -> Tensor:
    """Sine, of radians."""
    return apply(OPS["sin"], inexact("sin", input))


def cos(input: TensorBase) -> Tensor:
    """Cosine, of radians."""
    return apply(OPS["cos"], inexact("cos", input))


def sigmoid(input: TensorBase) -> Tensor:
    """1 / (1 + exp(-input))."""
    return apply(OPS["sigmoid"], inexact("sigmoid", input))


def relu(input: TensorBase) -> Tensor:
    """max(input, 0), NaN for NaN; the gradient at 0 is 0."""
    return apply(OPS["relu"], tensor_arg("relu", input))


# ---------------------------------------------------------------------------------- comparison and logic


def eq(input: Operand, other: Operand) -> Tensor:
    """input == other, elementwise, as bools."""
    return binary(OPS["eq"], input, other)


def ne(input: Operand, other: Operand) -> Tensor:
    """input != other, elementwise, as bools."""
    return binary(OPS["ne"], input, other)


def lt(input: Operand, other: Operand) -> Tensor:
    """input < other, elementwise, as bools."""
    return binary(OPS["lt"], input, other)


def le(input: Operand, other: Operand) -> Tensor:
    """input <= other, elementwise, as bools."""
    return binary(OPS["le"], input, other)


def gt(input: Operand, other: Operand) -> Tensor:
    """input > other, elementwise, as bools."""
    return binary(OPS["gt"], input, other)


def ge(input: Operand, other: Operand) -> Tensor:
    """input >= other, elementwise, as bools."""
    return binary(OPS["ge"], input, other)


def logical_and(input: Operand, other: Operand) -> Tensor:
    """Both nonzero, as bools (NaN is nonzero)."""
    return apply(OPS["logical_and"], *together("logical_and", input, other, dtype=T.bool_))


def logical_or(input: Operand, other: Operand) -> Tensor:
    """Either nonzero, as bools (NaN is nonzero)."""
    return apply(OPS["logical_or"], *together("logical_or", input, other, dtype=T.bool_))


def logical_not(input: TensorBase) -> Tensor:
    """Zero, as bools."""
    return apply(OPS["logical_not"], cast_to(tensor_arg("logical_not", input), T.bool_))


def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """`&` of integers and bools, broadcast and promoted."""
    return _bitwise("bitwise_and", input, other)


def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """`|` of integers and bools, broadcast and promoted."""
    return _bitwise("bitwise_or", input, other)


def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """`^` of integers and bools, broadcast and promoted."""
    return _bitwise("bitwise_xor", input, other)


def bitwise_not(input: TensorBase) -> Tensor:
    """`~` of integers and bools."""
    return _bitwise("bitwise_not", tensor_arg("bitwise_not", input))


def _bitwise(name: str, *operands: Operand) -> Tensor:
    made = together(name, *operands)
    if made[0].dtype.is_inexact:
        types = [x.ttype for x in operands if isinstance(x, TensorBase)]
        raise DTypeError(
            f"is not defined for {made[0].dtype}", op=name, operands=types, fix="compare first, as in (a > 0)"
        )
    return apply(OPS[name], *made)


@overload
def where(condition: TensorBase) -> tuple[Tensor, ...]: ...
@overload
def where(condition: TensorBase, input: Operand, other: Operand) -> Tensor: ...
def where(condition: TensorBase, input: Operand | None = None, other: Operand | None = None) -> Any:
    """`input` where `condition` (bool) holds, else `other`; all three are broadcast. With the condition alone, the
    indices where it is not zero: nonzero(condition, as_tuple=True)."""
    c = tensor_arg("where", condition)
    if input is None or other is None:
        if input is not other:
            raise ArgumentError("takes the condition alone, or both input and other", op="where")
        from kiln.gathering import nonzero  # lies above this file

        return cast("tuple[Tensor, ...]", nonzero(c, as_tuple=True))
    if c.dtype is not T.bool_:
        raise DTypeError(
            f"the condition must be bool, not {c.dtype}", op="where", operands=[c.ttype], fix="compare: c != 0"
        )
    dtype = result_type(input, other)
    c, input, other = brought("where", (c, input, other))
    shape = broadcast_shapes("where", *[x for x in (c, input, other) if isinstance(x, TensorBase)])
    sides = [
        broadcast_to(cast_to(tensor_arg("where", x), dtype), shape)
        if isinstance(x, TensorBase)
        else full_like_number(c, dtype, number(x), shape)
        for x in (input, other)
    ]
    return apply(_WHERE, broadcast_to(c, shape), *sides)


# -------------------------------------------------------------------------------------------- reductions


def _reduced(x: Tensor, result: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """With `keepdim` the reduced dimensions come back with size 1."""
    if not keepdim:
        return result
    return apply(_RESHAPE, result, shape=tuple(1 if d in dims else n for d, n in enumerate(x.shape)))


def reduce(op: OpDef, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """A reduction over `dim` (default: all); a 0-d tensor is copied."""
    dims = dim_tuple(op.name, dim, x.ndim)
    result = apply(op, x, dims=dims) if dims else apply(_COPY, x)
    return _reduced(x, result, dims, keepdim)


@numpy_names
def sum(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum over `dim` (default: all), in the order of docs/numerics.md; bools and integers sum as int64."""
    x = tensor_arg("sum", input)
    if dtype is None:
        dtype = x.dtype if x.dtype.is_inexact else T.int64
    return reduce(_SUM, cast_to(x, dtype), dim, keepdim)


@numpy_names
def mean(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """sum / count over `dim` (default: all). DTypeError for integers and bools without `dtype`."""
    x = tensor_arg("mean", input)
    if dtype is not None:
        x = cast_to(x, dtype)
    if not x.dtype.is_inexact:
        raise DTypeError(f"is not defined for {x.dtype}", op="mean", operands=[x.ttype], fix="pass dtype=kiln.float32")
    return _mean(x, dim, keepdim)


@in_float32
def _mean(x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    count = math.prod([x._layout.shape[d] for d in dim_tuple("mean", dim, x.ndim)])
    return div(sum(x, dim, keepdim), float(count))


@numpy_names
def amax(input: TensorBase, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The maximum over `dim` (default: all); NaN wins; ties share the gradient evenly."""
    return reduce(OPS["amax"], tensor_arg("amax", input), dim, keepdim)


@numpy_names
def amin(input: TensorBase, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The minimum over `dim` (default: all); NaN wins; ties share the gradient evenly."""
    return reduce(OPS["amin"], tensor_arg("amin", input), dim, keepdim)


@numpy_names
def all(input: TensorBase, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero: a bool (of uint8, as in PyTorch, a uint8)."""
    return _decided(OPS["all"], tensor_arg("all", input), dim, keepdim)


@numpy_names
def any(input: TensorBase, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero: a bool (of uint8, as in PyTorch, a uint8)."""
    return _decided(OPS["any"], tensor_arg("any", input), dim, keepdim)


def _decided(op: OpDef, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    result = reduce(op, cast_to(x, T.bool_), dim, keepdim)
    return cast_to(result, T.uint8) if x.dtype is T.uint8 else result


def _arg(op: OpDef, input: TensorBase, dim: int | None, keepdim: bool) -> Tensor:
    x = tensor_arg(op.name, input)
    if dim is None:
        flat = apply(op, reshape(x, (-1,)), dims=(0,))
        return _reduced(x, flat, tuple(range(x.ndim)), keepdim)
    d = dim_index(op.name, dim, x.ndim)
    if not x.ndim:
        return apply(op, reshape(x, (1,)), dims=(0,))
    return _reduced(x, apply(op, x, dims=(d,)), (d,), keepdim)


@numpy_names
def argmax(input: TensorBase, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """int64 index of the maximum along `dim` (default: of the flattened tensor); the first one, NaN wins."""
    return _arg(OPS["argmax"], input, dim, keepdim)


@numpy_names
def argmin(input: TensorBase, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """int64 index of the minimum along `dim` (default: of the flattened tensor); the first one, NaN wins. It is
    the argmax of what reverses the order exactly: -x of floats, -1 - x of integers (which wraps), not x of bools."""
    x = tensor_arg("argmin", input).detach()
    reverse = {"float": neg, "bool": logical_not}.get(x.dtype.kind, lambda v: sub(-1, v))
    return _arg(OPS["argmax"], reverse(x), dim, keepdim)


@numpy_names
def max(input: TensorBase, dim: Any = None, keepdim: bool = False) -> Any:
    """max(input): the largest element (as `amax`). max(input, other): `maximum`. max(input, dim): (values,
    indices) along one dimension, whose gradient goes to the picked element."""
    return _extremum(return_types.max, amax, maximum, argmax, input, dim, keepdim)


@numpy_names
def min(input: TensorBase, dim: Any = None, keepdim: bool = False) -> Any:
    """As `max`, for the smallest."""
    return _extremum(return_types.min, amin, minimum, argmin, input, dim, keepdim)


def _extremum(made: Any, whole: Any, pair: Any, arg: Any, input: TensorBase, dim: Any, keepdim: bool) -> Any:
    if dim is None:
        return whole(input)
    if isinstance(dim, TensorBase):
        return pair(input, dim)
    x = tensor_arg(arg.__name__, input)
    if not x.ndim:
        return made(clone(x), arg(x, dim))
    d = dim_index(arg.__name__, dim, x.ndim)
    indices = arg(x, d)
    values = apply(_PICK, _to_last(x, d), indices)
    return made(_reduced(x, values, (d,), keepdim), _reduced(x, indices, (d,), keepdim))


def _to_last(x: Tensor, d: int) -> Tensor:
    """Dimension `d` moved behind the others."""
    if d == x.ndim - 1:
        return x
    return apply(_PERMUTE, x, dims=(*[i for i in range(x.ndim) if i != d], d))


# ---------------------------------------------------------------------------------------------- movement


def _resolve(name: str, x: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with -1 worked out; ShapeError when the element counts differ."""
    numel = x._layout.numel
    known = math.prod([n for n in shape if n != -1])
    wild = shape.count(-1)
    if wild == 1 and known > 0 and numel % known == 0:
        return tuple([numel // known if n == -1 else n for n in shape])
    if wild or known != numel or builtins.any(n < 0 for n in shape):
        raise ShapeError(
            f"{list(shape)} does not fit {numel} elements", op=name, operands=[x.ttype], fix="one size may be -1"
        )
    return shape


def reshape(input: TensorBase, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape (one size may be -1): a view where strides
    allow it, else a copy."""
    x = tensor_arg("reshape", input)
    return apply(_RESHAPE, x, shape=_resolve("reshape", x, size_tuple("reshape", shape)))


def view(input: TensorBase, *shape: Any, dtype: DType | None = None) -> Tensor:
    """As `reshape`, but always a view: ShapeError when the strides do not allow it. With a dtype, view(dtype): the same
    memory as elements of that, without history; the last dimension changes where elements have another size."""
    x = tensor_arg("view", input)
    if dtype is not None or (len(shape) == 1 and isinstance(shape[0], DType)):
        from kiln.storage import seen_as  # lies above this file

        return seen_as(x, shape[0] if dtype is None else dtype)
    target = _resolve("view", x, size_tuple("view", shape))
    assert _RESHAPE.view is not None
    if target != x.shape and _RESHAPE.view(x.shape, x._layout.strides, 0, {"shape": target}) is None:
        raise ShapeError(
            f"strides {list(x._layout.strides)} can't be viewed as {list(target)}",
            op="view",
            operands=[x.ttype],
            fix="use reshape(), which copies",
        )
    return apply(_RESHAPE, x, shape=target)


def flatten(input: TensorBase, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim..end_dim made one."""
    x = tensor_arg("flatten", input)
    first, last = (dim_index("flatten", d, x.ndim) for d in (start_dim, end_dim))
    if not x.ndim:
        return reshape(x, (1,))
    if first > last:
        raise ShapeError(f"start_dim {start_dim} lies behind end_dim {end_dim}", op="flatten", operands=[x.ttype])
    return reshape(
        x, (*x._layout.shape[:first], math.prod(x._layout.shape[first : last + 1]), *x._layout.shape[last + 1 :])
    )


@numpy_names
def squeeze(input: TensorBase, dim: Dims = None) -> Tensor:
    """Without the size-one dimensions (of those in `dim`, default all); a view."""
    x = tensor_arg("squeeze", input)
    dims = dim_tuple("squeeze", dim, x.ndim)
    return reshape(x, tuple([n for d, n in enumerate(x.shape) if n != 1 or d not in dims]))


@numpy_names
def unsqueeze(input: TensorBase, dim: int) -> Tensor:
    """With a new dimension of size one at `dim`; a view."""
    x = tensor_arg("unsqueeze", input)
    d = dim_index("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x._layout.shape[:d], 1, *x._layout.shape[d:]))


def permute(input: TensorBase, *dims: Any) -> Tensor:
    """Dimensions in another order; a view."""
    x = tensor_arg("permute", input)
    order = tuple([dim_index("permute", d, x.ndim) for d in size_tuple("permute", dims)])
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(
            f"{list(order)} is no order of {x.ndim} dimensions", op="permute", operands=[x.ttype], fix="name each once"
        )
    return apply(_PERMUTE, x, dims=order)


def transpose(input: TensorBase, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged; a view."""
    x = tensor_arg("transpose", input)
    a, b = dim_index("transpose", dim0, x.ndim), dim_index("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    if order:
        order[a], order[b] = b, a
    return apply(_PERMUTE, x, dims=tuple(order))


def t(input: TensorBase) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are. A view."""
    x = tensor_arg("t", input)
    if x.ndim > 2:
        raise ShapeError(f"expects at most 2 dimensions, got {x.ndim}", op="t", operands=[x.ttype], fix="use transpose")
    return apply(_PERMUTE, x, dims=tuple(reversed(range(x.ndim))))


def expand(input: TensorBase, *sizes: Any) -> Tensor:
    """Size-one dimensions stretched to `sizes` (-1 keeps one) as a view; new ones may be added in front."""
    x = tensor_arg("expand", input)
    shape = size_tuple("expand", sizes)
    new = len(shape) - x.ndim
    if new < 0:
        raise ShapeError(f"{list(shape)} has fewer dimensions than the tensor", op="expand", operands=[x.ttype])
    result = []
    for d, n in enumerate(shape):
        old = x._layout.shape[d - new] if d >= new else 1
        size = old if n == -1 and d >= new else n
        if size < 0 or (size != old and old != 1):
            raise ShapeError(
                f"{list(shape)}: size {old} can't become {n}",
                op="expand",
                operands=[x.ttype],
                fix="only sizes of 1 expand; repeat copies",
            )
        result.append(size)
    return broadcast_to(x, tuple(result))


@numpy_names
def cat(tensors: Sequence[TensorBase], dim: int = 0) -> Tensor:
    """Tensors joined along `dim`; other sizes must agree. dtypes are promoted."""
    parts = [tensor_arg("cat", x) for x in tensors]
    if not parts:
        raise InvalidValueError("needs at least one tensor", op="cat", fix="check that the list is not empty")
    if not parts[0].ndim:
        raise ShapeError("0-d tensors can't be joined", op="cat", fix="use stack")
    dtype = result_type(*parts)
    return apply(_CAT, *[cast_to(x, dtype) for x in parts], dim=dim_index("cat", dim, parts[0].ndim))


@numpy_names
def stack(tensors: Sequence[TensorBase], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    parts = [tensor_arg("stack", x) for x in tensors]
    if not parts:
        raise InvalidValueError("needs at least one tensor", op="stack", fix="check that the list is not empty")
    for x in parts[1:]:
        if x.shape != parts[0].shape:
            raise ShapeError(
                "tensors must have one shape", op="stack", operands=[parts[0].ttype, x.ttype], fix="use cat, or pad"
            )
    same_place("stack", parts)
    return cat([unsqueeze(x, dim) for x in parts], dim_index("stack", dim, parts[0].ndim + 1))


def clone(input: TensorBase, *, memory_format: Any = None) -> Tensor:
    """A contiguous copy, whatever the memory format; gradients pass through."""
    return apply(_COPY, tensor_arg("clone", input))


def contiguous(input: TensorBase, memory_format: Any = None) -> Tensor:
    """Itself if its elements lie row-major without gaps, else a copy that does; so for every memory format."""
    x = tensor_arg("contiguous", input)
    return x if x._layout.contiguous else apply(_COPY, x)


# ----------------------------------------------------------------------------------------- linear algebra


def matmul(input: TensorBase, other: TensorBase) -> Tensor:
    """Matrix product by the usual rules: vectors become rows and columns, leading dimensions broadcast.

    [..., M, K] @ [K, N] is one product of the rows [... * M, K]; otherwise matrices are multiplied batch by
    batch. dtypes must agree (DTypeError), as must the inner sizes (ShapeError).
    """
    return _product(tensor_arg("matmul", input), tensor_arg("matmul", other), {})


def _product(a: Tensor, b: Tensor, attrs: dict[str, Any], lies: str = "nn") -> Tensor:
    """`lies`: which operands are meant to be transposed (`products.told`)."""
    types = [a.ttype, b.ttype]
    if a.dtype is not b.dtype:
        raise DTypeError("operands have different dtypes", op="matmul", operands=types, fix="cast one with .to()")
    if a.dtype.is_complex:
        return _complex_product(a, b, attrs, lies)
    if not a.ndim or not b.ndim:
        raise ShapeError("needs at least one dimension", op="matmul", operands=types, fix="use * for numbers")
    inner = b._layout.shape[-2] if b.ndim > 1 else b._layout.shape[0]
    if a._layout.shape[-1] != inner:
        raise ShapeError(
            f"inner sizes {a._layout.shape[-1]} and {inner} differ",
            op="matmul",
            operands=types,
            fix="transpose one operand (.t(), .mT), or make the layer's sizes fit",
        )
    if a.ndim == 2 and b.ndim == 2:
        return apply(_MATMUL, a, b, **attrs, **told(a, b, lies))
    if a.ndim == 1:
        product = _product(reshape(a, (1, -1)), b if b.ndim > 1 else reshape(b, (-1, 1)), attrs, lies)
        return reshape(product, (*b._layout.shape[:-2], *b._layout.shape[-1:]) if b.ndim > 1 else ())
    if b.ndim == 1:
        return reshape(_product(a, reshape(b, (-1, 1)), attrs, lies), a._layout.shape[:-1])
    if b.ndim == 2:
        rows = reshape(a, (math.prod(a._layout.shape[:-1]), a._layout.shape[-1]))
        return reshape(
            apply(_MATMUL, rows, b, **attrs, **told(a, b, lies)), (*a._layout.shape[:-1], b._layout.shape[-1])
        )
    batch = _batch_shape(a, b)
    a, b = broadcast_to(a, (*batch, *a._layout.shape[-2:])), broadcast_to(b, (*batch, *b._layout.shape[-2:]))
    return apply(_MATMUL, a, b, **attrs, **told(a, b, lies))


def _complex_product(a: Tensor, b: Tensor, attrs: dict[str, Any], lies: str) -> Tensor:
    """Four real products: (re re - im im, re im + im re)."""
    (ar, ai), (br, bi) = parts(a), parts(b)
    re = sub(_product(ar, br, attrs, lies), _product(ai, bi, attrs, lies))
    return pair(re, add(_product(ar, bi, attrs, lies), _product(ai, br, attrs, lies)))


def _batch_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a._layout.shape[:-2], b._layout.shape[:-2])
    except ValueError:
        raise ShapeError("leading dimensions can't be broadcast", op="matmul", operands=[a.ttype, b.ttype]) from None


def mm(input: TensorBase, mat2: TensorBase) -> Tensor:
    """The product of two matrices; ShapeError for other ranks."""
    a, b = tensor_arg("mm", input), tensor_arg("mm", mat2)
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError("expects two matrices", op="mm", operands=[a.ttype, b.ttype], fix="use matmul")
    return matmul(a, b)


@composite
def linear(input: TensorBase, weight: TensorBase, bias: TensorBase | None = None) -> Tensor:
    """matmul(input, weight.t()) + bias, for input [..., in], weight [out, in], bias [out]. Of 16-bit floats the sum is
    rounded, not the product."""
    x = tensor_arg("linear", input)
    if bias is not None and (how := at_once(x, weight, bias)):
        rows = reshape(x, (-1, x._layout.shape[-1])) if x.ndim != 2 else x
        made = apply(_ADDMM, rows, t(weight), contiguous(bias), **how)
        return reshape(made, (*x._layout.shape[:-1], weight._layout.shape[0])) if x.ndim != 2 else made
    if bias is None or not x.dtype.is_half:
        product = _product(x, t(weight), {}, "nt")
        return product if bias is None else add(product, bias)
    if tensor_arg("linear", bias).dtype is not x.dtype:
        types = [x.ttype, weight.ttype, bias.ttype]
        raise DTypeError("operands have different dtypes", op="linear", operands=types, fix="cast one with .to()")
    return cast_to(add(_product(x, t(weight), {"dtype": T.float32}, "nt"), cast_to(bias, T.float32)), x.dtype)


# ----------------------------------------------------------------------------------------------- softmax


@numpy_names
@composite
def softmax(input: TensorBase, dim: int, dtype: DType | None = None) -> Tensor:
    """e / sum(e) with e = exp(x - max(x)) along `dim`; the maximum takes no part in the gradient."""
    return _softmax(_floats("softmax", input, dtype), dim)


@in_float32
def _softmax(x: Tensor, dim: int) -> Tensor:
    e = exp(_centred("softmax", x, dim))
    return div(e, sum(e, dim, keepdim=True))


@numpy_names
@composite
def log_softmax(input: TensorBase, dim: int, dtype: DType | None = None) -> Tensor:
    """z - log(sum(exp(z))) with z = x - max(x) along `dim`; the maximum takes no part in the gradient."""
    return _log_softmax(_floats("log_softmax", input, dtype), dim)


@in_float32
def _log_softmax(x: Tensor, dim: int) -> Tensor:
    z = _centred("log_softmax", x, dim)
    return sub(z, log(sum(exp(z), dim, keepdim=True)))


def _floats(name: str, input: TensorBase, dtype: DType | None) -> Tensor:
    x = tensor_arg(name, input)
    x = cast_to(x, dtype) if dtype is not None else x
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op=name, operands=[x.ttype], fix="pass dtype=kiln.float32")
    return x


def _centred(name: str, x: Tensor, dim: int) -> Tensor:
    """x - max(x), with no gradient of the maximum."""
    d = dim_index(name, dim, x.ndim)
    if 0 in x.shape:
        return x
    return sub(x, amax(x.detach(), d, keepdim=True))
