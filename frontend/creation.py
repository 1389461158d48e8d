"""Making tensors: from Python and NumPy data, and filled with constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from kiln import dispatch
from kiln.base import LAYERED, MODES, READONLY, TensorBase, layout_of
from kiln.device import placed
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.functional import size_tuple
from kiln.ir import types as T
from kiln.ir.graph import Attrs, Constant
from kiln.ir.halves import converted
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU, Device, DType, dtype_of_numpy
from kiln.promotion import dtype_of_number
from kiln.runtime.memory import Buffer
from kiln.spelling import maker_names
from kiln.tensor import Tensor

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "ones", "ones_like",
    "tensor", "zeros", "zeros_like",
]  # fmt: skip


class _Maker:
    """Receives ops without operands (the operand protocol) for a device: executes them, tells a capture."""

    def __init__(self, device: Device) -> None:
        self._layout = layout_of(T.bool_, (), None, device)
        self.ttype = self._layout.ttype

    def __kiln_bind__(self, op: Any, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        results = dispatch.run(op, operands, attrs, self)
        if MODES.recorder is not None:
            MODES.recorder.record(op, operands, attrs, results)
        return results


maker_on = functools.cache(_Maker)
"""The one of a device."""
MAKER = maker_on(CPU)


def _made(op: str, attrs: Attrs, requires_grad: bool, device: Device) -> Tensor:
    """The result of an op without operands, in memory of its own."""
    (shared,) = OPS[op].bind((), attrs, receiver=MAKER if device is CPU else maker_on(device))
    own = cast("Tensor", OPS["copy"](shared))
    return own.requires_grad_() if requires_grad else own


def _dtype(name: str, dtype: Any, default: DType) -> DType:
    if dtype is None:
        return default
    if not isinstance(dtype, DType):
        raise ArgumentError(f"dtype must be a kiln dtype, not {dtype!r}", op=name, fix="for example kiln.float32")
    if dtype not in T.TENSOR_DTYPES:
        raise DTypeError(f"tensors of {dtype} are not supported", op=name)
    return dtype


def tensor(
    data: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested sequences, NumPy arrays or tensors (by default on the device
    of these).

    Without `dtype`: Python floats become the default dtype (float32), ints int64, bools bool; arrays keep theirs.
    ArgumentError for other data, InvalidValueError for ragged nesting and numbers that do not fit `dtype`,
    DeviceError for `pin_memory` where there is no GPU.
    """
    if pin_memory:
        made = tensor(data, dtype=dtype, device=device).pin_memory()
        return made.requires_grad_() if requires_grad else made
    if isinstance(data, TensorBase):
        there = placed("tensor", device, data.device)
        copied = cast("Tensor", data).detach().to(there, _dtype("tensor", dtype, data.dtype), copy=True)
        return copied.requires_grad_() if requires_grad else copied
    there = placed("tensor", device)
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        wanted = _dtype("tensor", dtype, numpy_dtype(array.dtype))
    else:
        array = _array_of(data)
        wanted = _dtype("tensor", dtype, _default_dtype(array))
        _check_fits("tensor", array, wanted)
        _check_real("tensor", array, wanted)
    return _constant(converted(array, wanted), wanted, requires_grad, there)


def _check_real(name: str, array: np.ndarray[Any, Any], dtype: DType) -> None:
    """DTypeError for complex numbers in a dtype of real ones."""
    if array.dtype.kind == "c" and not dtype.is_complex:
        raise DTypeError(f"complex numbers do not fit {dtype}", op=name, fix="pass dtype=kiln.complex64")


def _check_fits(name: str, array: np.ndarray[Any, Any], dtype: DType) -> None:
    """InvalidValueError for numbers that an integer dtype lacks (negative ones wrap to unsigned, as in PyTorch)."""
    if not dtype.is_integer or not array.size:
        return
    least = dtype.least if dtype.is_signed else -dtype.most
    with np.errstate(invalid="ignore"):
        whole = np.trunc(array) if array.dtype.kind == "f" else array
        if not bool(np.all((whole >= float(least)) & (whole <= float(dtype.most)))):
            raise InvalidValueError(f"a number does not fit {dtype}", op=name)


def _constant(array: np.ndarray[Any, Any], dtype: DType, requires_grad: bool, device: Device) -> Tensor:
    """A tensor that owns a fresh array, or a copy on another device."""
    if MODES.recorder is not None:
        return _made("constant", {"data": Constant(array)}, requires_grad, device)
    result = cast("Tensor", dispatch.moved(from_numpy(np.ascontiguousarray(array).reshape(array.shape)), device))
    return result.requires_grad_() if requires_grad else result


def _array_of(data: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.array(_plain(data))
    except ValueError:
        raise InvalidValueError(
            "nested sequences must have equal lengths", op="tensor", fix="pad the shorter ones"
        ) from None
    if array.dtype.kind in "uO" and all(isinstance(x, int) for x in array.flat):
        raise InvalidValueError("an integer does not fit int64", op="tensor", fix="make it a float")
    if array.dtype.kind not in "bifc" and array.size:
        raise ArgumentError(
            f"no tensor of {type(data).__name__} with {array.dtype} elements", op="tensor", fix="pass numbers"
        )
    return array


def _plain(data: Any) -> Any:
    """Nested sequences with 0-d tensors read as numbers."""
    if isinstance(data, (list, tuple)):
        return [_plain(x) for x in data]
    if isinstance(data, TensorBase):
        return cast("Tensor", data).tolist()
    return data


def _default_dtype(array: np.ndarray[Any, Any]) -> DType:
    if not array.size:
        return MODES.default_dtype
    floats = MODES.default_dtype
    return {"b": T.bool_, "i": T.int64, "f": floats, "c": floats.paired}[array.dtype.kind]


def numpy_dtype(dtype: np.dtype[Any]) -> DType:
    """The tensor dtype of NumPy's; DTypeError where there is none."""
    found = dtype_of_numpy(dtype)
    if not dtype.isnative:
        raise DTypeError(f"the elements of {dtype} are in a foreign byte order", fix="array.astype(array.dtype.name)")
    if found is None or found not in T.TENSOR_DTYPES:
        names = ", ".join(str(d) for d in T.TENSOR_DTYPES)
        raise DTypeError(f"no tensor dtype for NumPy's {dtype}; there are {names}", fix="convert it with .astype()")
    return found


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of `array`: writes to one show in the other.

    DTypeError for other dtypes, InvalidValueError for negative or odd strides. The tensor of a read-only
    array refuses in-place writes.
    """
    if not isinstance(array, np.ndarray):
        raise ArgumentError(
            f"expected a NumPy array, got {type(array).__name__}", op="from_numpy", fix="kiln.tensor takes other data"
        )
    dtype = numpy_dtype(array.dtype)
    size = dtype.itemsize
    if (
        any(s < 0 or s % size for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
        or not array.flags.aligned
    ):
        raise InvalidValueError("negative or unaligned strides", op="from_numpy", fix="pass array.copy()")
    strides = tuple([s // size if n > 1 else 1 for s, n in zip(array.strides, array.shape, strict=True)])
    layout = layout_of(dtype, array.shape, None if array.flags.c_contiguous else strides)
    span = 0 if not array.size else size * (1 + sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True)))
    ptr = array.__array_interface__["data"][0]
    flags = 0 if array.flags.writeable else READONLY
    return cast("Tensor", dispatch.tensor_on(Buffer.wrap(ptr, span, array), ptr, layout, flags))


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where possible (tensors, NumPy arrays of the right dtype)."""
    if isinstance(data, np.ndarray) and dtype_of_numpy(data.dtype) in T.TENSOR_DTYPES:
        data = from_numpy(data)
        device = placed("as_tensor", device)
    if isinstance(data, Tensor):
        there, kind = placed("as_tensor", device, data.device), data.dtype if dtype is None else dtype
        return data if there is data.device and kind is data.dtype else data.to(there, kind)
    return tensor(data, dtype=dtype, device=device)


@maker_names
def full(
    size: Any,
    fill_value: bool | int | float | complex,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Every element `fill_value`; the dtype defaults to that of the number."""
    there = placed("full", device)
    shape = _shape("full", (size,) if isinstance(size, int) else size)
    kind = _dtype("full", dtype, dtype_of_number(fill_value))
    _check_fits("full", np.asarray(fill_value), kind)
    _check_real("full", np.asarray(fill_value), kind)
    value = dispatch.PYTHON_TYPES[kind.kind](fill_value)
    if kind.is_integer:
        value = kind.wrapped(int(value))
    return _made("full", {"shape": shape, "dtype": kind, "value": value}, requires_grad, there)


def _shape(name: str, sizes: Sequence[Any]) -> tuple[int, ...]:
    shape = size_tuple(name, sizes)
    if any(n < 0 for n in shape):
        raise InvalidValueError(f"negative size in {list(shape)}", op=name, fix="sizes are 0 or more")
    return shape


@maker_names
def zeros(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros, of the default dtype unless told; sizes as zeros(2, 3) or zeros((2, 3))."""
    there, kind = placed("zeros", device), _dtype("zeros", dtype, MODES.default_dtype)
    return full(_shape("zeros", size), 0, dtype=kind, device=there, requires_grad=requires_grad)


@maker_names
def ones(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones, of the default dtype unless told."""
    there, kind = placed("ones", device), _dtype("ones", dtype, MODES.default_dtype)
    return full(_shape("ones", size), 1, dtype=kind, device=there, requires_grad=requires_grad)


@maker_names
def empty(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros: kiln has no uninitialised tensors, so that programs stay deterministic."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


@maker_names
def zeros_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape, dtype and device of `input`."""
    there = placed("zeros_like", device, input.device)
    return like(input, zeros(input.shape, dtype=dtype or input.dtype, device=there), requires_grad)


@maker_names
def ones_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape, dtype and device of `input`."""
    there = placed("ones_like", device, input.device)
    return like(input, ones(input.shape, dtype=dtype or input.dtype, device=there), requires_grad)


@maker_names
def empty_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """As `zeros_like`."""
    return zeros_like(input, dtype=dtype, device=device, requires_grad=requires_grad)


@maker_names
def full_like(
    input: Tensor,
    fill_value: bool | int | float | complex,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`fill_value` in the shape, dtype and device of `input`."""
    there = placed("full_like", device, input.device)
    return like(input, full(input.shape, fill_value, dtype=dtype or input.dtype, device=there), requires_grad)


def like(input: TensorBase, made: Tensor, requires_grad: bool) -> Tensor:
    """`made`, a new tensor: inside transforms as one that can hold what `input` can."""
    if input._flags & LAYERED:
        from kiln.layers import new_like  # lies above this file

        made = new_like(input, made)
    return made.requires_grad_() if requires_grad else made


@maker_names
def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... below `end` (arange(end) starts at 0): int64 for ints, else the default dtype.

    Element i is start + i * step, computed in float64 for floats and then rounded.
    """
    there = placed("arange", device)
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) / step < 0:
        raise InvalidValueError(
            f"no steps of {step} lead from {start} to {end}", op="arange", fix="give step the sign of end - start"
        )
    integral = all(isinstance(x, int) for x in (start, end, step))
    kind = _dtype("arange", dtype, T.int64 if integral else MODES.default_dtype)
    count = -(-(int(end) - int(start)) // int(step)) if integral else math.ceil((end - start) / step)
    index: np.ndarray[Any, Any] = np.arange(count, dtype=np.int64 if integral else np.float64)
    return _constant(converted(start + index * step, kind), kind, requires_grad, there)


@maker_names
def eye(
    n: int, m: int | None = None, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The n x m matrix (square by default) with ones on the diagonal."""
    there, kind = placed("eye", device), _dtype("eye", dtype, MODES.default_dtype)
    return _constant(converted(np.eye(n, m), kind), kind, requires_grad, there)
