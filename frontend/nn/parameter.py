"""`Parameter`: a tensor that a module owns and an optimiser trains. `Buffer`: one that only belongs to its state. Both
may wait for their shape."""

from __future__ import annotations

from typing import Any, Self, cast

from kiln.base import MODES, REQUIRES_GRAD
from kiln.constants import Size
from kiln.creation import empty
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OpDef
from kiln.ir.types import DType
from kiln.tensor import Tensor

__all__ = [
    "Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "UninitializedTensorMixin", "is_lazy",
]  # fmt: skip


class Parameter(Tensor):
    """A leaf on the memory of `data` that requires a gradient; a module registers it when it is assigned to an
    attribute.

    Results of ops on parameters are plain tensors. ArgumentError unless `data` is a tensor (without it: an empty one),
    DTypeError unless it is floating point (or `requires_grad` is False).
    """

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        _share(self, "Parameter", data)
        self.requires_grad_(requires_grad)

    def __repr__(self, **_: Any) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = memo[id(self)] = Parameter(self.detach().clone(), self.requires_grad)
        return copied


class Buffer(Tensor):
    """A tensor on the memory of `data` that a module registers as a buffer when it is assigned to an attribute;
    `persistent`: it is saved with the module."""

    __slots__ = ("persistent",)

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        _share(self, "Buffer", data)
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        copied = memo[id(self)] = Buffer(self.detach().clone(), persistent=self.persistent)
        return copied


def _share(x: Tensor, kind: str, data: Tensor | None) -> None:
    """Make the new tensor `x` a leaf on the memory of `data`."""
    if data is None:
        data = empty(0)
    if not isinstance(data, Tensor):
        raise ArgumentError(
            f"a {kind.lower()} is made of a tensor, not {type(data).__name__}", op=kind, fix="wrap it in kiln.tensor"
        )
    data = data.detach()
    x._place(data._buffer, data._ptr, data._layout, data._flags & ~REQUIRES_GRAD)


class UninitializedTensorMixin(Tensor):
    """What waits for its shape."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    @property
    def shape(self) -> Size:
        """There is none: InvalidValueError."""
        raise InvalidValueError("an uninitialized parameter or buffer has no shape", fix="call the module once before")

    def materialize(self, shape: Any, device: Any = None, dtype: DType | None = None) -> None:
        """Become a parameter (or a buffer) of this shape; its elements are not set."""
        if MODES.recorder is not None:
            MODES.recorder.reject("a lazy module's parameters can't be made in a capture", fix="call it once before")
        there = self.device if device is None else device
        made = empty(shape, device=there, dtype=self.dtype if dtype is None else dtype)
        self._buffer, self._ptr, self._layout = made._buffer, made._ptr, made._layout
        object.__setattr__(self, "__class__", Parameter if isinstance(self, Parameter) else Tensor)

    def detach(self) -> Tensor:
        """Itself: it has no history."""
        return self

    def __kiln_bind__(self, op: OpDef, operands: Any, attrs: Attrs) -> tuple[Any, ...]:
        if op.name == "cast":  # Module.to(dtype)
            return (empty(0, dtype=cast("DType", attrs["dtype"]), device=self.device),)
        if op.name == "transfer":  # Module.to(device)
            return (empty(0, dtype=self.dtype, device=attrs["target"]),)
        raise InvalidValueError(
            "an uninitialized parameter or buffer has no value", op=op.name, fix="call the module once before"
        )

    def __repr__(self, **_: Any) -> str:
        return f"<{type(self).__name__}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = type(self)(requires_grad=self.requires_grad, device=self.device, dtype=self.dtype)
        return copied


class UninitializedParameter(UninitializedTensorMixin, Parameter):
    """A parameter whose shape is not known yet; `materialize` makes it one."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: DType | None = None) -> None:
        Parameter.__init__(self, empty(0, device=device, dtype=dtype), requires_grad)


class UninitializedBuffer(UninitializedTensorMixin):
    """A buffer whose shape is not known yet; `materialize` makes it a tensor."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: DType | None = None) -> None:
        made = empty(0, device=device, dtype=dtype)
        self._place(made._buffer, made._ptr, made._layout)
        self.requires_grad_(requires_grad)


def is_lazy(param: object) -> bool:
    """Whether it is a parameter or a buffer that waits for its shape."""
    return isinstance(param, UninitializedTensorMixin)
