"""`Tensor`: what a user holds. Storage and slots lie in `base.py`, functions in `F.py`; this file
ties them together, and `__kiln_bind__` is the one gate that every op passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from kiln import autograd, dispatch, indexing, inplace, printing
from kiln import functional as F
from kiln import pointwise as P
from kiln.base import MODES, READONLY, REQUIRES_GRAD, Operand, TensorBase, install_operators
from kiln.errors import ArgumentError, DTypeError, GradError, NotYetError, ShapeError
from kiln.ir import types as T
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.types import DType
from kiln.methods import Methods
from kiln.promotion import cast_to

Self = TypeVar("Self", bound="Tensor")


class _Casts(Methods):
    """Methods named like built-in types, kept out of `Tensor` where they would hide those types."""

    __slots__ = ()

    def float(self) -> Tensor:
        """As float32."""
        return cast_to(cast("Tensor", self), T.float32)

    def double(self) -> Tensor:
        """As float64."""
        return cast_to(cast("Tensor", self), T.float64)

    def long(self) -> Tensor:
        """As int64: floats are cut towards zero."""
        return cast_to(cast("Tensor", self), T.int64)

    def bool(self) -> Tensor:
        """As bools: whether nonzero."""
        return cast_to(cast("Tensor", self), T.bool_)


class Tensor(_Casts):
    """An n-dimensional array of one dtype on the CPU, with PyTorch's methods.

    Made by `kiln.tensor`, `kiln.zeros`, `kiln.from_numpy` and so on, or by ops on other tensors.
    """

    __slots__ = ()

    def __kiln_bind__(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        """Apply an op: execute it now, tell the capture if one listens, and the tape if gradients are wanted.

        Compiled and differentiated code reaches tensors through this gate too: there is no other way in.
        """
        results = dispatch.run(op, operands, attrs)
        if MODES.recorder is not None:
            MODES.recorder.record(op, operands, attrs, results)
        if MODES.grad_enabled:
            for t in operands:
                if t._flags & REQUIRES_GRAD or t._view is not None:
                    autograd.record(op, operands, attrs, results)
                    break
        if op.view is not None and results[0]._buffer is operands[0]._buffer:
            autograd.track_view(op, operands[0], attrs, results[0])
        return results

    # ------------------------------------------------------------------------------------- autograd

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted for this tensor or flow through it."""
        if self._view is not None:
            autograd.refresh(self)
        return bool(self._flags & REQUIRES_GRAD)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Ask for gradients of this leaf (or stop asking). DTypeError unless floating point."""
        if requires_grad and self.dtype.kind != "float":
            raise DTypeError(f"only floating point tensors can require gradients, not {self.dtype}")
        if not requires_grad and self._node is not None:
            raise GradError("only leaves can stop requiring a gradient", fix="use detach()")
        self._flags = self._flags | REQUIRES_GRAD if requires_grad else self._flags & ~REQUIRES_GRAD
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no op on the tape produced it."""
        return self._node is None

    @property
    def grad_fn(self) -> autograd.Node | None:
        """The tape node that produced it."""
        if self._view is not None:
            autograd.refresh(self)
        return self._node

    @property
    def grad(self) -> Tensor | None:
        """The gradient gathered by `backward`; None before. May be set to a tensor of this one's type."""
        if MODES.recorder is not None:
            MODES.recorder.grad_read(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise ArgumentError(f".grad must be a tensor or None, not {type(value).__name__}")
            if value.ttype != self.ttype:
                raise ShapeError(
                    "the gradient must have the tensor's dtype and shape", operands=[self.ttype, value.ttype]
                )
        self._grad = value
        if MODES.recorder is not None:
            MODES.recorder.grad_write(self, value)

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """`kiln.autograd.backward` of this tensor."""
        autograd.backward(self, gradient, retain_graph, create_graph)

    def detach(self) -> Tensor:
        """The same memory without history: gradients stop here."""
        (result,) = dispatch.run(OPS["reshape"], (self,), {"shape": self.shape})
        if MODES.recorder is not None:
            MODES.recorder.record(OPS["reshape"], (self,), {"shape": self.shape}, (result,))
        return cast("Tensor", result)

    # --------------------------------------------------------------------------------- to and from Python

    def _read(self, what: str) -> np.ndarray[Any, Any]:
        """The elements as a NumPy view; a capture may forbid it."""
        if MODES.recorder is not None:
            MODES.recorder.forbid(self, what)
        layout, itemsize = self._layout, self.dtype.itemsize
        strides = tuple([s * itemsize for s in layout.strides])
        offset, readonly = self._ptr - self._buffer.ptr, bool(self._flags & READONLY)
        return self._buffer.as_numpy(layout.dtype.numpy, layout.shape, strides, offset, readonly)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A NumPy array on the same memory. GradError when gradients are required: detach() first."""
        if self.requires_grad:
            raise GradError("numpy() on a tensor that requires a gradient", fix="use detach().numpy()")
        return self._read("numpy()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise DTypeError(f"{self.dtype} as {dtype} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> bool | int | float:
        """The only element as a Python number; ShapeError when there are more or none."""
        if self._layout.numel != 1:
            raise ShapeError("item() needs a tensor of one element", operands=[self.ttype])
        return cast("bool | int | float", self._read("item()").item())

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a 0-d tensor."""
        return self._read("tolist()").tolist()

    def __repr__(self, **_: Any) -> str:
        return printing.tensor_repr(self, self._read("repr()"))

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim else format(repr(self), spec)

    def __copy__(self) -> Tensor:
        return F.clone(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise GradError("only leaves can be deep-copied", fix="detach() it first")
        copied = F.clone(self.detach())
        if self._flags & REQUIRES_GRAD:
            copied.requires_grad_()
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotYetError("tensors can't be pickled", fix="use kiln.save and kiln.load, or .numpy()")

    # ----------------------------------------------------------------------------------- shape and type

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size."""
        return self.shape if dim is None else self.shape[F.dim_index("size", dim, self.ndim)]

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements, or one of them."""
        strides = self._layout.strides
        return strides if dim is None else strides[F.dim_index("stride", dim, self.ndim)]

    def storage_offset(self) -> int:
        """Elements between the start of the memory and the first element."""
        return self._offset

    def data_ptr(self) -> int:
        """Address of the first element."""
        return self._ptr

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self._layout.numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def is_contiguous(self) -> bool:
        """Whether elements lie row-major without gaps."""
        return self._layout.contiguous

    def is_floating_point(self) -> bool:
        """Whether the dtype is float32 or float64."""
        return self.dtype.kind == "float"

    def to(self, target: Any, copy: bool = False) -> Tensor:
        """With another dtype (a `kiln` dtype, or the dtype of a tensor); itself when it has it already."""
        dtype = target.dtype if isinstance(target, TensorBase) else target
        if not isinstance(dtype, DType):
            raise ArgumentError(f"to() takes a dtype or a tensor, not {type(target).__name__}")
        cast_ = cast_to(self, dtype)
        return F.clone(cast_) if copy and cast_ is self else cast_

    def type_as(self, other: Tensor) -> Tensor:
        """With the dtype of `other`."""
        return self.to(other.dtype)

    @property
    def T(self) -> Tensor:
        """Dimensions in reverse order."""
        return F.permute(self, tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Tensor:
        """The last two dimensions exchanged."""
        return F.transpose(self, -2, -1)

    # ------------------------------------------------------------------------- the functions, as methods
    # fmt: off

    add, sub, mul, div, true_divide, pow = F.add, F.sub, F.mul, F.div, F.div, F.pow
    neg, abs, square, sqrt, rsqrt, reciprocal = F.neg, F.abs, F.square, F.sqrt, F.rsqrt, F.reciprocal
    exp, log, tanh, erf, sin, cos = F.exp, F.log, F.tanh, F.erf, F.sin, F.cos
    sigmoid, relu, softmax, log_softmax = F.sigmoid, F.relu, F.softmax, F.log_softmax
    maximum, minimum, clamp = F.maximum, F.minimum, F.clamp
    eq, ne, lt, le, gt, ge = F.eq, F.ne, F.lt, F.le, F.gt, F.ge
    logical_and, logical_or, logical_not = F.logical_and, F.logical_or, F.logical_not
    sum, mean, amax, amin, all, any = F.sum, F.mean, F.amax, F.amin, F.all, F.any
    max, min, argmax, argmin = F.max, F.min, F.argmax, F.argmin
    reshape, view, flatten, squeeze, unsqueeze = F.reshape, F.view, F.flatten, F.squeeze, F.unsqueeze
    permute, transpose, t, expand = F.permute, F.transpose, F.t, F.expand
    clone, contiguous, matmul, mm = F.clone, F.contiguous, F.matmul, F.mm

    add_, sub_, mul_, div_ = inplace.add_, inplace.sub_, inplace.mul_, inplace.div_
    copy_, fill_, zero_ = inplace.copy_, inplace.fill_, inplace.zero_

    # fmt: on


# ------------------------------------------------------------------------------------------ operator slots


def _truth(x: Tensor) -> bool:
    if x._layout.numel != 1:
        raise ShapeError(
            "the truth of a tensor of more than one element, or none, is ambiguous",
            operands=[x.ttype],
            fix="use .any() or .all()",
        )
    return bool(x._read("bool()").item())


def _index(x: Tensor) -> int:
    if x.dtype.kind == "float" or x.ndim:
        raise ArgumentError("only 0-d integer tensors can be indices", operands=[x.ttype])
    return int(x.item())


def _length(x: Tensor) -> int:
    if not x.ndim:
        raise ArgumentError("len() of a 0-d tensor")
    return x.shape[0]


def _iterate(x: Tensor) -> Iterator[Tensor]:
    if not x.ndim:
        raise ArgumentError("iteration over a 0-d tensor")
    return iter([x[i] for i in range(x.shape[0])])


def _contains(x: Tensor, item: Operand) -> bool:
    return bool(F.eq(x, item).any())


def _set_item(x: Tensor, index: Any, value: Operand) -> None:
    inplace.copy_(indexing.get(x, index), value)


install_operators(
    binary={
        "__add__": F.add,
        "__radd__": lambda a, b: F.add(b, a),
        "__sub__": F.sub,
        "__rsub__": lambda a, b: F.sub(b, a),
        "__mul__": F.mul,
        "__rmul__": lambda a, b: F.mul(b, a),
        "__truediv__": F.div,
        "__rtruediv__": lambda a, b: F.div(b, a),
        "__pow__": F.pow,
        "__rpow__": lambda a, b: F.pow(b, a),
        "__matmul__": F.matmul,
        "__and__": F.bitwise_and,
        "__rand__": lambda a, b: F.bitwise_and(b, a),
        "__or__": F.bitwise_or,
        "__ror__": lambda a, b: F.bitwise_or(b, a),
        "__xor__": F.bitwise_xor,
        "__rxor__": lambda a, b: F.bitwise_xor(b, a),
        "__lshift__": P.bitwise_left_shift,
        "__rlshift__": lambda a, b: P.bitwise_left_shift(b, a),
        "__rshift__": P.bitwise_right_shift,
        "__rrshift__": lambda a, b: P.bitwise_right_shift(b, a),
        "__floordiv__": P.floor_divide,
        "__rfloordiv__": lambda a, b: P.floor_divide(b, a),
        "__mod__": P.remainder,
        "__rmod__": lambda a, b: P.remainder(b, a),
        "__lt__": F.lt,
        "__le__": F.le,
        "__gt__": F.gt,
        "__ge__": F.ge,
        "__eq__": F.eq,
        "__ne__": F.ne,
        "__iadd__": inplace.add_,
        "__isub__": inplace.sub_,
        "__imul__": inplace.mul_,
        "__itruediv__": inplace.div_,
        "__ifloordiv__": Methods.floor_divide_,
        "__imod__": Methods.remainder_,
        "__ipow__": Methods.pow_,
        "__iand__": Methods.bitwise_and_,
        "__ior__": Methods.bitwise_or_,
        "__ixor__": Methods.bitwise_xor_,
        "__ilshift__": Methods.bitwise_left_shift_,
        "__irshift__": Methods.bitwise_right_shift_,
    },
    other={
        "__neg__": F.neg,
        "__abs__": F.abs,
        "__invert__": F.bitwise_not,
        "__pos__": P.positive,
        "__bool__": _truth,
        "__int__": lambda x: int(x.item()),
        "__float__": lambda x: float(x.item()),
        "__index__": _index,
        "__len__": _length,
        "__iter__": _iterate,
        "__contains__": _contains,
        "__getitem__": indexing.get,
        "__setitem__": _set_item,
    },
)
dispatch.register_tensor_class(Tensor)
