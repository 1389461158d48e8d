"""Constructors of torch's first years: `kiln.Tensor(2, 3)`, `kiln.FloatTensor([...])`, and types by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np

from kiln import dispatch
from kiln.base import TensorBase
from kiln.constants import Size
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.overriding import Overridable, adopted
from kiln.promotion import set_default_dtype

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor", "set_default_tensor_type", "typename",
]  # fmt: skip

Self = TypeVar("Self", bound="Constructed")


class Constructed(Overridable):
    """The constructor of `Tensor`, and tensors' types by name."""

    __slots__ = ()

    def __new__(cls: type[Self], *args: Any, device: Any = None) -> Self:
        """A tensor of the default dtype: of a shape given as ints or as a `Size` (of zeros), or of the data of one
        sequence or array; or the given tensor itself, on its memory. `kiln.tensor` takes more, and keeps dtypes.

        ArgumentError for one number; a subclass gets what its instances are made of.
        """
        from kiln.promotion import get_default_dtype

        if len(args) == 1 and isinstance(args[0], TensorBase):
            alias: Self = cast("Any", args[0]).as_subclass(cls)
            return alias
        made = _built("Tensor", args, get_default_dtype(), device)
        return cast("Self", made if cls is dispatch.tensor_class() else adopted(cast("Any", cls), made))

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The name of the type: "kiln.FloatTensor", or "kiln.cuda.FloatTensor" on a GPU. With a dtype, a type
        (`kiln.LongTensor`) or its name (which says the device; also with "torch." in front), the tensor as such a one.
        InvalidValueError for another name."""
        del non_blocking
        if dtype is None:
            place = "kiln.cuda" if self.device.kind == "cuda" else "kiln"
            return f"{place}.{_names()[self.dtype]}"
        if isinstance(dtype, str):
            made = cast("Tensor", self).to(_dtype_called("type", dtype.replace(".cuda.", ".")))
            return made.cpu() if ".cuda." not in dtype else made if made.is_cuda else made.cuda()
        elif isinstance(dtype, _Kind):
            dtype = dtype.dtype
        return cast("Tensor", self).to(dtype)


def _built(name: str, args: Sequence[Any], dtype: DType, device: Any) -> Tensor:
    """A tensor of a shape (zeros), or of data."""
    from kiln.creation import empty, tensor

    if len(args) != 1 or isinstance(args[0], (int, Size)):
        sizes = args[0] if len(args) == 1 and isinstance(args[0], Size) else args
        if all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in sizes):
            return empty(*sizes if sizes or args else (0,), dtype=dtype, device=device)
        if len(args) != 1:
            raise ArgumentError("takes sizes, or one sequence", op=name, fix="kiln.tensor([...])")
    (data,) = args
    if isinstance(data, str) or not (isinstance(data, np.ndarray) or hasattr(data, "__len__")):
        kind = type(data).__name__
        raise ArgumentError(f"takes sizes, or a sequence of data, not a {kind}", op=name, fix="use kiln.tensor")
    given = data if isinstance(data, np.ndarray) else list(data)
    return tensor(given, device=device).to(dtype) if dtype.is_integer else tensor(given, dtype=dtype, device=device)


class _Kind(type):
    """The class of `FloatTensor` and its like: tensors of its dtype are instances, calls make them."""

    dtype: DType

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, TensorBase) and instance._layout.dtype is cls.dtype

    def __call__(cls, *args: Any, device: Any = None) -> Any:
        if len(args) == 1 and isinstance(args[0], TensorBase):
            if args[0]._layout.dtype is not cls.dtype:
                dtype = args[0]._layout.dtype
                raise ArgumentError(f"takes tensors of {cls.dtype}, not of {dtype}", op=cls.__name__, fix="use to()")
            return cast("Any", args[0]).as_subclass(dispatch.tensor_class())
        return _built(cls.__name__, args, cls.dtype, device)


def _kind(name: str, dtype: DType) -> Any:
    text = f"Tensors of {dtype}: `isinstance` tells them, a call makes one as `kiln.Tensor` does."
    return _Kind(name, (), {"dtype": dtype, "__module__": "kiln", "__doc__": text, "is_cuda": False})


FloatTensor: Final = _kind("FloatTensor", T.float32)
DoubleTensor: Final = _kind("DoubleTensor", T.float64)
HalfTensor: Final = _kind("HalfTensor", T.float16)
BFloat16Tensor: Final = _kind("BFloat16Tensor", T.bfloat16)
CharTensor: Final = _kind("CharTensor", T.int8)
ByteTensor: Final = _kind("ByteTensor", T.uint8)
ShortTensor: Final = _kind("ShortTensor", T.int16)
IntTensor: Final = _kind("IntTensor", T.int32)
LongTensor: Final = _kind("LongTensor", T.int64)
BoolTensor: Final = _kind("BoolTensor", T.bool_)


def _names() -> dict[DType, str]:
    """What types are called, by dtype."""
    known = {kind.dtype: kind.__name__ for kind in globals().values() if isinstance(kind, _Kind)}
    return {**known, T.complex64: "ComplexFloatTensor", T.complex128: "ComplexDoubleTensor"}


def _dtype_called(op: str, name: str) -> DType:
    package, _, kind = name.rpartition(".")
    found = {v: k for k, v in _names().items()}.get(kind)
    if found is None or package not in ("kiln", "torch"):
        raise InvalidValueError(f"there is no type {name!r}", op=op, fix='pass a dtype, or "kiln.FloatTensor"')
    return found


def set_default_tensor_type(t: Any) -> None:
    """Make the dtype of a type (`kiln.DoubleTensor`, or its name) the default one. DTypeError unless it is a
    floating-point one."""
    dtype = _dtype_called("set_default_tensor_type", t) if isinstance(t, str) else getattr(t, "dtype", t)
    if not isinstance(dtype, DType):
        raise DTypeError(f"{t!r} is no type of tensors", op="set_default_tensor_type", fix="kiln.FloatTensor")
    set_default_dtype(dtype)


def typename(obj: Any) -> str:
    """The name of a tensor's type ("kiln.FloatTensor"), or of an object's class."""
    if isinstance(obj, TensorBase):
        return str(cast("Tensor", obj).type())
    kind = obj if isinstance(obj, type) or callable(obj) else type(obj)
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", type(obj).__qualname__)
    return name if module in (None, "builtins") else f"{module}.{name}"
