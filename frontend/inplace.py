"""Methods that write into their tensor. The result is that of the function without the underscore, cast to the
tensor's dtype; `autograd.write_in_place` sees to memory, versions, tape and capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from kiln import dispatch
from kiln import functional as F
from kiln.autograd import check_writable, overwrite, write_in_place
from kiln.base import MODES, REQUIRES_GRAD, Operand, TensorBase
from kiln.errors import DTypeError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.ir.types import float32
from kiln.promotion import (
    CATEGORY,
    apply,
    broadcast_to,
    cast_to,
    full_like_number,
    keeps_number,
    number,
    together,
    transferred,
)

if TYPE_CHECKING:
    from kiln.tensor import Tensor

Self = TypeVar("Self", bound="Tensor")


def add_(self: Self, other: Operand, *, alpha: float = 1) -> Self:
    """self += alpha * other, broadcast to self."""
    return _write(self, "add", other if alpha == 1 else F.mul(other, alpha))


def sub_(self: Self, other: Operand, *, alpha: float = 1) -> Self:
    """self -= alpha * other, broadcast to self."""
    return _write(self, "sub", other if alpha == 1 else F.mul(other, alpha))


def mul_(self: Self, other: Operand) -> Self:
    """self *= other, broadcast to self."""
    return _write(self, "mul", other)


def div_(self: Self, other: Operand, *, rounding_mode: str | None = None) -> Self:
    """self /= other, broadcast to self; DTypeError for integers and bools without `rounding_mode`."""
    if rounding_mode is not None:
        return write_result(self, "div_", F.div(self, other, rounding_mode=rounding_mode))
    if not self.dtype.is_inexact:
        raise DTypeError(
            f"a quotient can't be written to {self.dtype}", op="div_", operands=[self.ttype], fix="float() first"
        )
    return _write(self, "div", other)


def _write(self: Self, function: str, other: Operand) -> Self:
    name = f"{function}_"
    a: Tensor = self
    if isinstance(other, TensorBase) and other._layout is self._layout:
        b = cast("Tensor", other)
    elif keeps_number(function, self._layout.dtype, other):
        a = cast_to(self, float32)
        b = full_like_number(a, float32, other)
    elif other.__class__ is float and self._layout.dtype.kind == "float":
        b = full_like_number(self, self._layout.dtype, other)
    else:
        a, b = together(name, self, other)
    if a.shape != self.shape:
        raise ShapeError(f"the result has shape {list(a.shape)}", op=name, operands=[self.ttype, b.ttype])
    if CATEGORY[a.dtype.kind] > CATEGORY[self.dtype.kind]:
        raise DTypeError(
            f"a result of {a.dtype} can't be written to {self.dtype}", op=name, fix="leave out the underscore"
        )
    if a is self and self.dtype.kind != "bool":
        write_in_place(self, name, OPS[function], (a, b), {})
        return self
    value = getattr(F, function)(a, b) if a.dtype.kind == "bool" else apply(OPS[function], a, b)
    write_in_place(self, name, OPS["copy"], (cast_to(value, self.dtype),), {})
    return self


Variant: TypeAlias = "Callable[..., Any]"


def write_result(self: Self, name: str, value: Tensor) -> Self:
    """self[...] = value, where an op of that name made `value` of `self`: it has self's shape, and a dtype that may be
    cast to self's without leaving its category (bool, integer, float)."""
    if value.shape != self.shape:
        raise ShapeError(f"the result has shape {list(value.shape)}", op=name, operands=[self.ttype])
    if CATEGORY[value.dtype.kind] > CATEGORY[self.dtype.kind]:
        raise DTypeError(f"a result of {value.dtype} can't be written to {self.dtype}", op=name, operands=[self.ttype])
    write_in_place(self, name, OPS["copy"], (cast_to(value, self.dtype),), {})
    return self


def variant(function: Callable[..., Any], name: str) -> Variant:
    """The method that writes `function` of its tensor to it."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_writable(self, name)
        source = self
        tensors = [x for x in (self, *args, *kwargs.values()) if isinstance(x, TensorBase)]
        if MODES.grad_enabled and any(cast("Tensor", x).requires_grad for x in tensors):
            source = F.clone(self)  # the derivative may need what is about to be overwritten
            args = tuple([source if x is self else x for x in args])
        return write_result(self, name, function(source, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"self[...] = {function.__name__}(self, ...), cast to self's dtype; its shape must be self's."
    return method


def copy_(self: Self, src: Operand, non_blocking: bool = False) -> Self:
    """self[...] = src, broadcast and cast to self's dtype. With `non_blocking`, pinned memory of the CPU (`pin_memory`)
    is read or written while the program goes on, if the other tensor is on a GPU."""
    if not isinstance(src, TensorBase):
        return fill_(self, src)
    same = src._buffer is self._buffer and src._ptr == self._ptr and src._layout is self._layout
    if same and (self.requires_grad or not cast("Tensor", src).requires_grad):
        return self  # as at the end of x[i] += 1; but what was detached takes on the history of its own memory
    shape = src.shape
    while len(shape) > self.ndim and shape[0] == 1:  # assignment drops leading dimensions of size one
        shape = shape[1:]
    pairs = zip(reversed(shape), reversed(self.shape), strict=False)
    if len(shape) > self.ndim or any(n not in (1, m) for n, m in pairs):
        raise ShapeError(f"a {src.ttype} does not fit a {self.ttype}", op="copy_", fix="make the shapes broadcast")
    if non_blocking and _is_plain_copy(self, src):
        check_writable(self, "copy_")
        dispatch.fetch(self, src)
        return self
    value = cast_to(transferred(src, self._layout.device, non_blocking), self.dtype)
    if shape != src.shape:
        value = F.reshape(value, shape)
    overwrite(self, "copy_", broadcast_to(value, self.shape))
    return self


def _is_plain_copy(target: TensorBase, src: TensorBase) -> bool:
    """Whether the bytes of a tensor on a GPU can go to pinned memory as they are, and nobody looks on."""
    if MODES.recorder is not None or MODES.layers or target._view is not None or not target._buffer.pinned:
        return False
    if MODES.grad_enabled and (target._flags | src._flags) & REQUIRES_GRAD:
        return False
    a, b = target._layout, src._layout
    alike = a.dtype is b.dtype and a.shape == b.shape and a.contiguous and b.contiguous
    return b.device.kind == "cuda" and alike


def fill_(self: Self, value: Operand) -> Self:
    """Every element becomes `value` (a number or a 0-d tensor)."""
    if isinstance(value, TensorBase):
        return copy_(self, value)
    constant = full_like_number(self, self.dtype, number(value))
    overwrite(self, "fill_", constant)
    return self


def zero_(self: Self) -> Self:
    """Every element becomes 0."""
    return fill_(self, 0)
