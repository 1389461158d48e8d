"""From what users pass to what primitives take: numbers to constants, type promotion, broadcasting.

Promotion is PyTorch's for all dtypes; every function of `functional.py` goes through here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np

from kiln import dispatch
from kiln.base import MODES, Modes, TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError, from_type_error
from kiln.ir import types as T
from kiln.ir.graph import AttrValue
from kiln.ir.halves import round_number
from kiln.ir.ops.base import OPS, OpDef, apart
from kiln.ir.types import CPU, Device, DType

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_BROADCAST, _CAST = OPS["broadcast"], OPS["cast"]
CATEGORY: Final = {"bool": 0, "int": 1, "uint": 1, "float": 2, "complex": 3}
_ARITHMETIC: Final = frozenset({"add", "sub", "mul", "div"})
_NUMBERS: Final = (bool, int, float, complex, np.generic)
_MAX_SHAPES: Final = 16384

_broadcast_shapes: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}


def set_default_dtype(d: DType) -> None:
    """The dtype of Python floats, of creation functions without `dtype`, and of what integers become in floating-point
    functions. DTypeError unless floating point."""
    if not isinstance(d, DType) or not d.is_floating_point:
        raise DTypeError(f"the default dtype must be a floating-point dtype, not {d}", op="set_default_dtype")
    if MODES.recorder is not None:
        MODES.recorder.reject(
            "set_default_dtype() inside a captured function", fix="call it before the compiled function"
        )
    Modes.default_dtype = d


def get_default_dtype() -> DType:
    """The dtype that `set_default_dtype` set; float32 at first."""
    return MODES.default_dtype


def apply(op: OpDef, *operands: Any, **attrs: AttrValue) -> Tensor:
    """Bind `op` to its operands; its first result."""
    first = operands[0]
    if first._layout.dtype.kind == "complex":  # which some ops take by parts
        return cast("Tensor", op.bind(operands, attrs)[0])
    result: Tensor = first.__kiln_bind__(op, operands, attrs)[0]
    return result


def tensor_arg(name: str, x: object) -> Tensor:
    """`x`, which must be a tensor; ArgumentError otherwise."""
    if isinstance(x, TensorBase):
        return cast("Tensor", x)
    maker = "kiln.from_numpy or kiln.tensor" if isinstance(x, np.ndarray) else "kiln.tensor"
    fix = f"make a tensor of it with {maker}"
    if hasattr(type(x), "__torch_function__"):
        fix = "import kiln.overrides, so that the __torch_function__ of classes other than tensors is called"
    raise ArgumentError(f"expected a tensor, got {type(x).__name__}", op=name, fix=fix)


def number(x: Any) -> Any:
    """A Python number: bool, int, float or complex."""
    value = x.item() if isinstance(x, np.generic) else x
    if not isinstance(value, (bool, int, float, complex)):
        raise DTypeError(f"no tensor dtype for {type(x).__name__} numbers")
    return value


def dtype_of_number(value: bool | int | float | complex) -> DType:
    """bool, int64, the default float type, or the complex type of such."""
    if isinstance(value, complex):
        return MODES.default_dtype.paired
    return T.bool_ if isinstance(value, bool) else T.int64 if isinstance(value, int) else MODES.default_dtype


@functools.cache
def promote_types(type1: DType, type2: DType) -> DType:
    """The dtype that holds both: the wider one of the higher category. uint8 with int8 gives int16, float16 with
    bfloat16 gives float32, float64 with complex64 gives complex128."""
    if type1 is type2:
        return type1
    low, high = sorted((type1, type2), key=lambda d: (CATEGORY[d.kind], d.bits, d.kind))
    if CATEGORY[low.kind] == CATEGORY[high.kind] and low.bits == high.bits:
        return T.int16 if low.is_integer else T.float32  # int8 with uint8, float16 with bfloat16
    if low is T.float64 and high.is_complex:
        return T.complex128
    return high


def can_cast(from_: DType, to: DType) -> bool:
    """Whether a cast stays in the category or goes up: not from floats to integers, nor from numbers to bool."""
    return CATEGORY[from_.kind] <= CATEGORY[to.kind]


def _promote_two(strong: DType, weak: DType) -> DType:
    """The result dtype when `weak` (of lower priority) may change only the category of `strong`. Floats become complex
    numbers of their own width (16-bit ones complex64: there is none narrower)."""
    if weak.is_complex and strong.is_floating_point:
        return strong.paired
    return weak if CATEGORY[weak.kind] > CATEGORY[strong.kind] else strong


def result_type(*operands: Any) -> DType:
    """The dtype that operands are brought to: tensors with dimensions decide first, then 0-d tensors, then
    Python numbers; a lower rank counts only when its category (bool < integer < float) is higher."""
    best: list[DType | None] = [None, None, None]  # by rank: tensors with dimensions, 0-d tensors, numbers
    for x in operands:
        if isinstance(x, TensorBase):
            rank, dtype = (0 if x._layout.shape else 1), x._layout.dtype
        else:
            rank, dtype = 2, dtype_of_number(number(x))
        known = best[rank]
        best[rank] = dtype if known is None else promote_types(known, dtype)
    result: DType | None = None
    for candidate in best:
        if candidate is not None:
            result = candidate if result is None else _promote_two(result, candidate)
    assert result is not None
    return result


def full_like_number(
    like: TensorBase, dtype: DType, value: Any, shape: tuple[int, ...] | None = None, *, wraps: bool = False
) -> Tensor:
    """A number as a constant tensor of `like`'s shape: cached when eager, a `full` op when captured. An integer that
    does not fit is refused, or with `wraps` (arithmetic and comparison) wraps if it fits int64."""
    shape = like._layout.shape if shape is None else shape
    try:
        exact = dispatch.PYTHON_TYPES[dtype.kind](value)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"{value!r} can't be converted to {dtype}: {error}") from None
    if dtype.is_integer:
        range_of = T.int64 if wraps else dtype
        least = range_of.least if range_of.is_signed else -range_of.most  # negative numbers wrap to unsigned
        if not least <= exact <= range_of.most:
            raise InvalidValueError(f"{value!r} does not fit {range_of}")
        exact = dtype.wrapped(int(exact))
    if MODES.recorder is None:
        return cast("Tensor", dispatch.constant(shape, dtype, exact, like._layout.device))
    (made,) = OPS["full"].bind((), {"shape": shape, "dtype": dtype, "value": exact}, receiver=like)
    return cast("Tensor", made)


def broadcast_shapes(name: str, *operands: TensorBase) -> tuple[int, ...]:
    """The common shape by the usual rules (right-aligned, 1 stretches); ShapeError naming the dimension."""
    shapes = tuple([x._layout.shape for x in operands])
    found = _broadcast_shapes.get(shapes)
    if found is not None:
        return found
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for d, size in enumerate(shape, rank - len(shape)):
            if size == 1 or size == result[d]:
                continue
            if result[d] != 1:
                raise ShapeError(
                    f"sizes {result[d]} and {size} of dimension {d} can't be broadcast",
                    op=name,
                    operands=[x.ttype for x in operands],
                    fix="make the sizes equal, or one of them 1 (unsqueeze, reshape)",
                )
            result[d] = size
    if len(_broadcast_shapes) >= _MAX_SHAPES:
        _broadcast_shapes.clear()
    return _broadcast_shapes.setdefault(shapes, tuple(result))


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Tensor:
    """`x` stretched to `shape` as a view (strides 0), which must be possible."""
    if x._layout.shape == shape:
        return cast("Tensor", x)
    rank = len(shape)
    return apply(_BROADCAST, x, shape=shape, dims=tuple(range(rank - len(x._layout.shape), rank)))


def cast_to(x: Any, dtype: DType) -> Tensor:
    """`x` with another element type; itself when it has it. A complex number becomes a real one by its real part, and a
    bool by being nonzero."""
    source = x._layout.dtype
    if source is dtype:
        return cast("Tensor", x)
    if source.kind == "complex" or dtype.kind == "complex":
        return _complex_cast(x, dtype)
    return apply(_CAST, x, dtype=dtype)


def _complex_cast(x: Any, dtype: DType) -> Tensor:
    if not x._layout.dtype.is_complex:
        re = cast_to(x, dtype.part)
        return apply(OPS["complex"], re, full_like_number(re, dtype.part, 0.0))
    if dtype is T.bool_:
        return apply(OPS["ne"], x, full_like_number(x, x._layout.dtype, 0.0))
    re = cast_to(apply(OPS["real"], x), dtype.part)
    return apply(OPS["complex"], re, cast_to(apply(OPS["imag"], x), dtype.part)) if dtype.is_complex else re


def brought(name: str, operands: Sequence[Any]) -> list[Any]:
    """Operands with the 0-d tensors of the CPU among them where the others are. DeviceError when there is no such
    place."""
    tensors = [x for x in operands if isinstance(x, TensorBase)]
    if all(x._layout.device is tensors[0]._layout.device for x in tensors):
        return list(operands)
    others = [x for x in tensors if x._layout.shape or x._layout.device is not CPU]
    device = others[0]._layout.device
    same_place(name, others)
    return [transferred(x, device) if isinstance(x, TensorBase) else x for x in operands]


def same_place(name: str, tensors: Sequence[Any]) -> None:
    """DeviceError where not all tensors are on the device of the first: what was called is named, not its last op."""
    device = tensors[0]._layout.device
    for x in tensors:
        if x._layout.device is not device:
            raise from_type_error(apart(name, device, x._layout.device), tensors)


def transferred(x: Any, device: Device, non_blocking: bool = False) -> Tensor:
    """`x` on `device`; itself if it is there."""
    if x._layout.device is device:
        return cast("Tensor", x)
    waits: dict[str, Any] = {"non_blocking": True} if non_blocking else {}
    return apply(OPS["transfer"], x, source=str(x._layout.device), target=str(device), **waits)


def together(name: str, *operands: Any, dtype: DType | None = None) -> tuple[Tensor, ...]:
    """Operands promoted (or cast to `dtype`), numbers made constants, all broadcast to one shape."""
    tensors = [x for x in operands if isinstance(x, TensorBase)]
    if len(tensors) != len(operands):
        for x in operands:
            if not isinstance(x, (TensorBase, *_NUMBERS)):
                tensor_arg(name, x)
    if not tensors:
        raise ArgumentError("expected at least one tensor", op=name)
    if dtype is None:
        dtype = result_type(*operands)
    device = tensors[0]._layout.device
    for x in tensors:
        if x._layout.device is not device:
            return together(name, *brought(name, operands), dtype=dtype)
    shape = broadcast_shapes(name, *tensors)
    return tuple(
        [
            broadcast_to(cast_to(cast("Tensor", x), dtype), shape)
            if isinstance(x, TensorBase)
            else full_like_number(tensors[0], dtype, number(x), shape, wraps=True)
            for x in operands
        ]
    )


def binary(op: OpDef, a: Any, b: Any) -> Tensor:
    """The common case of `together` first: equal types, or a tensor and a number of its own kind."""
    if isinstance(a, TensorBase):
        layout = a._layout
        if isinstance(b, TensorBase):
            other = b._layout
            if other is layout:
                return apply(op, a, b)
            if other.dtype is layout.dtype:
                if other.device is not layout.device:
                    a, b = brought(op.name, (a, b))
                shape = layout.shape if other.shape == layout.shape else broadcast_shapes(op.name, a, b)
                return apply(op, broadcast_to(a, shape), broadcast_to(b, shape))
        elif keeps_number(op.name, layout.dtype, b):
            return cast_to(binary(op, cast_to(a, T.float32), b), layout.dtype)
        elif b.__class__ is float and layout.dtype.kind == "float":
            return apply(op, a, full_like_number(a, layout.dtype, b))
    elif isinstance(b, TensorBase) and keeps_number(op.name, b._layout.dtype, a):
        return cast_to(binary(op, a, cast_to(b, T.float32)), b._layout.dtype)
    return apply(op, *together(op.name, a, b))


def keeps_number(name: str, dtype: DType, value: Any) -> bool:
    """Whether arithmetic of a 16-bit float tensor and the Python number `value` is to be done in float32, because the
    tensor's dtype lacks the number: like every op, it rounds its result only."""
    if not dtype.is_half or name not in _ARITHMETIC or not isinstance(value, (int, float, np.number)):
        return False
    if isinstance(value, int) and abs(value) > 2**63:
        return False  # too large for any tensor: refused later
    return round_number(float(value), dtype) != float(value)


def wide(x: Any) -> Any:
    """A tensor of 16-bit floats as float32; anything else as it is."""
    return cast_to(x, T.float32) if isinstance(x, TensorBase) and x._layout.dtype.is_half else x


F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """A composition that counts as one op: tensors of 16-bit floats come to it as float32, and its result (a tensor)
    is rounded once, to the dtype that they promote to."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        dtypes = [x._layout.dtype for x in (*args, *kwargs.values()) if isinstance(x, TensorBase)]
        if not any(d.is_half for d in dtypes):
            return function(*args, **kwargs)
        result = function(*map(wide, args), **{k: wide(x) for k, x in kwargs.items()})
        promoted = functools.reduce(promote_types, dtypes)
        return cast_to(result, promoted) if promoted.is_half else result

    return cast("F", run)


def parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part of a complex tensor, as tensors of their own."""
    return apply(OPS["real"], z), apply(OPS["imag"], z)


def pair(re: Tensor, im: Tensor) -> Tensor:
    """The complex tensor of two parts of one shape."""
    return apply(OPS["complex"], re, im)


def floating(name: str, x: object) -> Tensor:
    """A floating point operand: integers and bools become the default dtype. DTypeError for complex numbers."""
    t = inexact(name, x)
    if t._layout.dtype.is_complex:
        raise DTypeError(f"is not defined for {t.dtype}", op=name, operands=[t.ttype], fix="use .real, .imag or abs()")
    return t


def inexact(name: str, x: object) -> Tensor:
    """A floating point or complex operand: integers and bools become the default dtype."""
    t = tensor_arg(name, x)
    return t if t._layout.dtype.is_inexact else apply(_CAST, t, dtype=MODES.default_dtype)
