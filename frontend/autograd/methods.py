"""What tensors know of gradients, as methods: mixed into `Tensor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from kiln import dispatch
from kiln.autograd import hooks
from kiln.autograd.backward import backward as walk_back
from kiln.autograd.tape import Node, refresh
from kiln.base import MODES, READONLY, REQUIRES_GRAD, RETAINS, TensorBase
from kiln.errors import ArgumentError, DTypeError, GradError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.promotion import same_place

if TYPE_CHECKING:
    from kiln.tensor import Tensor

Self = TypeVar("Self", bound="GradMethods")


class GradMethods(TensorBase):
    """The part of `Tensor` that deals with gradients."""

    __slots__ = ()

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted for this tensor or flow through it."""
        if self._view is not None:
            refresh(self)
        return bool(self._flags & REQUIRES_GRAD)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Ask for gradients of this leaf (or stop asking). DTypeError unless floating point or complex."""
        if requires_grad and not self.dtype.is_inexact:
            raise DTypeError(
                f"only floating point and complex tensors can require gradients, not {self.dtype}",
                op="requires_grad_",
                fix="use float()",
            )
        if not requires_grad and self._node is not None:
            raise GradError("only leaves can stop requiring a gradient", op="requires_grad_", fix="use detach()")
        if MODES.recorder is not None and bool(self._flags & REQUIRES_GRAD) is not bool(requires_grad):
            MODES.recorder.change(cast("Tensor", self), "requires_grad_")
        self._flags = self._flags | REQUIRES_GRAD if requires_grad else self._flags & ~REQUIRES_GRAD
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no op on the tape produced it."""
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        """The tape node that produced it."""
        if self._view is not None:
            refresh(self)
        if MODES.recorder is not None and self._node is not None:
            MODES.recorder.change(cast("Tensor", self), "grad_fn")
        return self._node

    @property
    def grad(self) -> Tensor | None:
        """The gradient gathered by `backward`; None before. May be set to a tensor of this one's type."""
        if MODES.recorder is not None:
            MODES.recorder.grad_read(cast("Tensor", self))
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, TensorBase):
                raise ArgumentError(f".grad must be a tensor or None, not {type(value).__name__}")
            same_place(".grad", (self, value))
            if value.ttype != self.ttype:
                raise ShapeError(
                    "the gradient must have the tensor's dtype and shape", operands=[self.ttype, value.ttype]
                )
        self._grad = value
        if MODES.recorder is not None:
            MODES.recorder.grad_write(cast("Tensor", self), value)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """`kiln.autograd.backward` of this tensor."""
        walk_back(cast("Tensor", self), gradient, retain_graph, create_graph, inputs=inputs)

    def detach(self) -> Tensor:
        """The same memory without history: gradients stop here."""
        (result,) = dispatch.run(OPS["reshape"], (self,), {"shape": self.shape})
        if MODES.recorder is not None:
            MODES.recorder.record(OPS["reshape"], (cast("Tensor", self),), {"shape": self.shape}, (result,))
        return cast("Tensor", result)

    def detach_(self: Self) -> Self:
        """Drop the history of this very tensor: it becomes a leaf that needs no gradient. GradError for views."""
        if self._view is not None and (self._view.chain is not None or self._node is not None):
            raise GradError(
                "a view can't be detached in place: its base would not know",
                op="detach_",
                operands=[self.ttype],
                fix="use detach()",
            )
        if MODES.recorder is not None:
            MODES.recorder.change(cast("Tensor", self), "detach_")
        self._node, self._index = None, 0
        self._flags &= ~(REQUIRES_GRAD | RETAINS)
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history, as `detach()`. Set it to let this tensor take over another one's memory."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, TensorBase):
            raise ArgumentError(f".data is a tensor, not a {type(value).__name__}", op="data")
        if value.dtype is not self.dtype and self._flags & REQUIRES_GRAD and not value.dtype.is_inexact:
            raise DTypeError("requires a gradient, so its data must be floating point or complex", op="data")
        if MODES.recorder is not None:
            MODES.recorder.change(cast("Tensor", self), "setting .data")
        self._buffer, self._ptr, self._layout = value._buffer, value._ptr, value._layout
        self._flags = (self._flags & ~READONLY) | (value._flags & READONLY)
        self._view = None

    # ----------------------------------------------------------------------------------------- hooks

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> hooks.RemovableHandle:
        """Call `hook(grad)` whenever a gradient of this tensor was computed; what it returns, unless None, is used
        instead. GradError if no gradient is wanted. Hooks run in the order of their registration."""
        return hooks.register_hook(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> hooks.RemovableHandle:
        """Call `hook(tensor)` after a backward has added to this leaf's `.grad`."""
        return hooks.register_post_accumulate_grad_hook(self, hook)

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this tensor, although it is no leaf."""
        hooks.retain_grad(self)

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called (False for leaves)."""
        return bool(self._flags & RETAINS)

    @property
    def output_nr(self) -> int:
        """Which result of `grad_fn` this is."""
        return self._index

    def is_inference(self) -> bool:
        """False: tensors made in inference mode are ordinary ones."""
        return False
