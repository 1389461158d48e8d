"""What every tensor is made of: the fixed record, its layout, the operator slots, and the thread's modes.

`TensorBase` owns the storage of a tensor and all operator slots, and knows nothing of any op: the functions
behind the slots are installed once by `kiln.tensor` (so that a native base could take this one's place).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import numpy as np

from kiln.constants import Size
from kiln.ir.graph import Attrs
from kiln.ir.ops.affine import overlaps
from kiln.ir.ops.base import OpDef
from kiln.ir.types import CPU, Device, DType, TensorType, contiguous_strides, float32
from kiln.there import as_numpy

if TYPE_CHECKING:
    from kiln.autograd import Node
    from kiln.autograd.hooks import Hooks
    from kiln.runtime.memory import Buffer
    from kiln.tensor import Tensor

REQUIRES_GRAD: Final = 1
"""Flag: gradients are wanted for this tensor, or flow through it."""
READONLY: Final = 2
"""Flag: the memory must not be written (shared constants, read-only NumPy arrays); views inherit it."""

HOOKED: Final = 4
"""Flag: a leaf with hooks on its gradient, in the slot `_hooks`."""
RETAINS: Final = 8
"""Flag: not a leaf, but keeps its gradient."""
LAYERED: Final = 16
"""Flag: stands for more than it shows (`kiln.layers`): `_ptr` is no address."""
SPENT: Final = 32
"""Flag: a leaf made by a transform whose function has returned (`kiln.transforms`): no history that counts. Or what
stood for a donated tensor in a call that put a result into its memory (`kiln.donation`)."""


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements lie row-major without gaps (strides of size-one dimensions do not matter)."""
    dense = contiguous_strides(shape)
    return 0 in shape or all(d == 1 or s == c for d, s, c in zip(shape, strides, dense, strict=True))


class Layout:
    """dtype, shape, strides (in elements) and device of a tensor, interned by `layout_of`.

    Tensors of one layout share one object, so that dispatch and guards compare by identity. Two equal
    layouts may still be two objects after the table was emptied: identity is a fast path, never a proof of
    difference.
    """

    __slots__ = (
        "contiguous", "device", "dtype", "expanded", "gtype", "nbytes", "numel", "shape", "size", "strides", "ttype",
        "untouched",
    )  # fmt: skip

    def __init__(self, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], device: Device = CPU) -> None:
        self.dtype = dtype
        self.device = device
        self.shape = shape = tuple(shape)  # a plain one: internals are quicker with it
        self.size = Size(shape)
        self.strides = strides
        self.gtype = TensorType(dtype, shape)
        """The type of a value in a graph that stands for such a tensor: it does not say where that is."""
        self.ttype = self.gtype.on(device)
        numel = 1
        for d in shape:
            numel *= d
        self.numel = numel
        self.nbytes = numel * dtype.itemsize
        """Bytes of the elements when stored contiguously."""
        self.contiguous = is_contiguous(shape, strides)
        self.expanded = not self.contiguous and overlaps(shape, strides)
        """Whether several elements may share one place in memory."""
        self.untouched: Any = None
        """What the tape keeps in place of tensors of this layout whose data no derivative reads."""

    def __repr__(self) -> str:
        return f"<Layout {self.ttype} strides {self.strides}>"

    def on(self, device: Device) -> Layout:
        """The same on another device."""
        return self if device is self.device else layout_of(self.dtype, self.shape, self.strides, device)


_LAYOUTS: dict[tuple[Any, ...], Layout] = {}
_MAX_LAYOUTS: Final = 16384


def layout_of(
    dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, device: Device = CPU
) -> Layout:
    """The interned layout; row-major strides when none are given."""
    key: Any = (dtype, shape, contiguous_strides(shape) if strides is None else strides)
    if device is not CPU:
        key = (*key, device)
    found = _LAYOUTS.get(key)
    if found is None:
        if len(_LAYOUTS) >= _MAX_LAYOUTS:
            _LAYOUTS.clear()
        found = _LAYOUTS.setdefault(key, Layout(*key))
    return found


class LayeredLayout(Layout):
    """dtype and shape that a layered tensor shows (`kiln.layers`). None of them is a plain tensor's layout, so whatever
    is looked up by layouts is not confused."""

    __slots__ = ()


_LAYERED: dict[tuple[DType, tuple[int, ...], Device], LayeredLayout] = {}


def layered_layout(dtype: DType, shape: tuple[int, ...], device: Device = CPU) -> LayeredLayout:
    """The interned layout of layered tensors."""
    key = (dtype, shape, device)
    found = _LAYERED.get(key)
    if found is None:
        if len(_LAYERED) >= _MAX_LAYOUTS:
            _LAYERED.clear()
        found = _LAYERED.setdefault(key, LayeredLayout(dtype, shape, contiguous_strides(shape), device))
    return found


class Recorder(Protocol):
    """What an active capture wants to be told (`kiln.capture.Capture`)."""

    differentiated: bool  # gradients were taken
    caught: bool  # the errors of checks on data may be: each check is a question

    def callee(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is called in place of a function of the user's that kiln is about to call."""

    def execute(self, op: OpDef, operands: Sequence[Tensor], attrs: Attrs, receiver: Tensor) -> tuple[Any, ...]:
        """The results of `op` on `operands` (without: where `receiver` is), before `record` is told."""

    def record(self, op: OpDef, operands: Sequence[Tensor], attrs: Attrs, results: Sequence[Tensor]) -> None:
        """`op` was executed; views (results sharing an operand's buffer) included."""

    def writing(self, tensor: Tensor) -> None:
        """`tensor`'s memory is about to be written."""

    def record_write(self, tensor: Tensor, value: Tensor) -> None:
        """`tensor`'s memory now holds what the recorded `value` holds."""

    def forbid(self, tensor: Tensor, what: str) -> None:
        """`what` (like "data_ptr()") needs to know what no compiled call can tell: raises CaptureError."""

    def ask(self, tensor: Tensor, what: str, fold: Callable[[Any], Hashable]) -> Hashable:
        """`what` (like "item()") needs the data of `tensor`, of which only `fold(data)` matters: that, or what is to be
        taken for it."""

    def reject(self, message: str, fix: str) -> None:
        """Something that no compiled call could repeat is about to happen: raises CaptureError."""

    def grad_read(self, tensor: Tensor) -> None:
        """`tensor.grad` is about to be read."""

    def grad_write(self, tensor: Tensor, grad: Tensor | None) -> None:
        """`tensor.grad` was set to `grad`."""

    def hook(self, tensor: Tensor, what: str) -> None:
        """`what` (like "register_hook") is about to hang something on the gradient of `tensor`."""

    def settle(self) -> None:
        """A result of the latest op is about to be put on the tape by other means than the op's own."""

    def bridge(self, node: Any, arguments: Sequence[Any], outputs: Sequence[Any]) -> None:
        """`outputs` are results of `node`, whose derivative the user wrote, of `arguments`."""

    def change(self, tensor: Tensor, what: str) -> None:
        """`what` (like "detach_") is about to change more of `tensor` than its data."""

    def pass_on(self, tensor: Tensor, heir: Tensor) -> None:
        """From here on `heir` is what `tensor` was."""

    def walk(self, node: Node) -> None:
        """A gradient is about to pass `node` on its way back, or to be shown to its hooks."""

    def depend(self, path: str, read: Callable[[], Any]) -> None:
        """What `read` gives was read, and nobody guards it yet; `path` names it to the user."""


class Modes(threading.local):
    """What holds for the current thread: is the tape recording, is a capture listening. The default dtype, an attribute
    of the class, holds for all threads."""

    grad_enabled: bool = True
    inference: bool = False
    recorder: Recorder | None = None
    compiling: bool = True
    door: str = ""
    """Where the call came in that is being captured: "compile", "script", "trace" (`kiln.jit`); empty when none is."""
    layers: tuple[Any, ...] = ()
    """The transforms whose functions run now, outermost first (`kiln.layers`)."""
    default_dtype: DType = float32
    device: Device = CPU
    """Where tensors are made that are not told where."""
    gpu: int = 0
    """The number of the GPU that "cuda" means (`kiln.cuda.set_device`)."""
    autocast: Any = None
    """What automatic mixed precision does (`kiln.casting.State`); None: nothing, and nothing about it was changed."""


MODES: Final = Modes()


class Products:
    """What computes matrix products and convolutions on a GPU, for all threads: whether a library computes products,
    whether float32 may be rounded to tf32 there, and whether tensor cores compute convolutions of 16-bit floats.
    `mode`: all of it as a number, for keys."""

    __slots__ = ("cores", "library", "mode", "tf32")

    def __init__(self) -> None:
        self.set(True, False, True)

    def set(self, library: bool, tf32: bool, cores: bool) -> None:
        """Change all at once."""
        self.library, self.tf32, self.cores = library, tf32, cores
        self.mode = 4 * cores + 2 * library + tf32


PRODUCTS: Final = Products()


class Stages:
    """Whether control flow on tensor data is staged, or all of it makes decisions."""

    enabled = True


STAGES: Final = Stages()


class View:
    """Where a tensor comes from that was made by view ops while the tape recorded: `base` (not itself a
    view), the ops from it, the version of the memory at which this tensor's history is valid. `chain` is None
    when the view was made with gradients disabled: then its history can't be told to its base."""

    __slots__ = ("_base", "chain", "version")

    def __init__(self, base: Tensor, chain: tuple[tuple[OpDef, Attrs], ...] | None, version: int) -> None:
        self._base = base
        self.chain = chain
        self.version = version

    @property
    def base(self) -> Tensor:
        """The tensor whose memory it is. What was changed in shape since (`transpose_`, ...) is itself a view now, of
        what it was when this view was made."""
        while self._base._view is not None:
            self._base = self._base._view.base
        return self._base


Operand: TypeAlias = "TensorBase | bool | int | float | complex | np.generic[Any]"
"""What arithmetic takes: tensors and numbers."""


class TensorBase:
    """The record behind a tensor. Slots in this order, relied on by native code:

    _ptr     address of the first element
    _layout  dtype, shape, strides and device: an interned `Layout`
    _flags   REQUIRES_GRAD, READONLY, HOOKED, RETAINS, LAYERED, SPENT
    _node    the tape node that produced this tensor, None for leaves
    _index   which result of that node
    _buffer  the memory, with the version that counts in-place writes
    _grad    the accumulated gradient of a leaf
    _view    `View` for differentiable views, else None
    _hooks   hooks on the gradient of a leaf; set only when the flag HOOKED is
    """

    __slots__ = ("_ptr", "_layout", "_flags", "_node", "_index", "_buffer", "_grad", "_view", "_hooks", "__weakref__")  # noqa: RUF023

    _ptr: int
    _layout: Layout
    _flags: int
    _node: Node | None
    _index: int
    _buffer: Buffer
    _grad: Tensor | None
    _view: View | None
    _hooks: Hooks

    __array_priority__ = 1000  # NumPy arrays leave mixed operators to us

    def _place(self, buffer: Buffer, ptr: int, layout: Layout, flags: int = 0) -> None:
        """Make this new tensor one on memory, without history."""
        self._ptr = ptr
        self._layout = layout
        self._flags = flags
        self._node = None
        self._index = 0
        self._buffer = buffer
        self._grad = None
        self._view = None

    def _array(self) -> np.ndarray[Any, Any]:
        """The elements as a NumPy view; of another device than the CPU a read-only copy."""
        layout, itemsize = self._layout, self._layout.dtype.itemsize
        strides = tuple([s * itemsize for s in layout.strides])
        offset, readonly = self._ptr - self._buffer.ptr, bool(self._flags & READONLY)
        return as_numpy(self._buffer, layout.dtype.numpy, layout.shape, strides, offset, readonly)

    @property
    def ttype(self) -> TensorType:
        """dtype, shape and device as the IR's type (the operand protocol)."""
        return self._layout.ttype

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._layout.dtype

    @property
    def shape(self) -> Size:
        """Sizes of the dimensions."""
        return self._layout.size

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._layout.shape)

    @property
    def device(self) -> Any:
        """Where the memory is."""
        return self._layout.device

    @property
    def _offset(self) -> int:
        """Elements from the start of the buffer to the first element."""
        return (self._ptr - self._buffer.ptr) // self._layout.dtype.itemsize

    @property
    def _version(self) -> int:
        """How often the memory was written in place; shared by all views of it."""
        if MODES.recorder is not None:
            MODES.recorder.change(cast("Tensor", self), "_version")
        return self._buffer.version

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # installed by `install_operators`

        def __add__(self, other: Operand) -> Tensor: ...
        def __radd__(self, other: Operand) -> Tensor: ...
        def __sub__(self, other: Operand) -> Tensor: ...
        def __rsub__(self, other: Operand) -> Tensor: ...
        def __mul__(self, other: Operand) -> Tensor: ...
        def __rmul__(self, other: Operand) -> Tensor: ...
        def __truediv__(self, other: Operand) -> Tensor: ...
        def __rtruediv__(self, other: Operand) -> Tensor: ...
        def __pow__(self, other: Operand) -> Tensor: ...
        def __rpow__(self, other: Operand) -> Tensor: ...
        def __matmul__(self, other: TensorBase) -> Tensor: ...
        def __and__(self, other: Operand) -> Tensor: ...
        def __or__(self, other: Operand) -> Tensor: ...
        def __xor__(self, other: Operand) -> Tensor: ...
        def __rand__(self, other: Operand) -> Tensor: ...
        def __ror__(self, other: Operand) -> Tensor: ...
        def __rxor__(self, other: Operand) -> Tensor: ...
        def __lshift__(self, other: Operand) -> Tensor: ...
        def __rshift__(self, other: Operand) -> Tensor: ...
        def __rlshift__(self, other: Operand) -> Tensor: ...
        def __rrshift__(self, other: Operand) -> Tensor: ...
        def __floordiv__(self, other: Operand) -> Tensor: ...
        def __rfloordiv__(self, other: Operand) -> Tensor: ...
        def __mod__(self, other: Operand) -> Tensor: ...
        def __rmod__(self, other: Operand) -> Tensor: ...
        def __lt__(self, other: Operand) -> Tensor: ...
        def __le__(self, other: Operand) -> Tensor: ...
        def __gt__(self, other: Operand) -> Tensor: ...
        def __ge__(self, other: Operand) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __iadd__(self, other: Operand) -> Tensor: ...
        def __isub__(self, other: Operand) -> Tensor: ...
        def __imul__(self, other: Operand) -> Tensor: ...
        def __itruediv__(self, other: Operand) -> Tensor: ...
        def __ifloordiv__(self, other: Operand) -> Tensor: ...
        def __imod__(self, other: Operand) -> Tensor: ...
        def __ipow__(self, other: Operand) -> Tensor: ...
        def __iand__(self, other: Operand) -> Tensor: ...
        def __ior__(self, other: Operand) -> Tensor: ...
        def __ixor__(self, other: Operand) -> Tensor: ...
        def __ilshift__(self, other: Operand) -> Tensor: ...
        def __irshift__(self, other: Operand) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __bool__(self) -> bool: ...
        def __int__(self) -> int: ...
        def __float__(self) -> float: ...
        def __index__(self) -> int: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __contains__(self, item: Operand) -> bool: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Operand) -> None: ...


def on_memory(cls: type[Any], buffer: Buffer, ptr: int, layout: Layout, flags: int = 0) -> Any:
    """A tensor of class `cls` without history, whatever the constructor of the class takes."""
    made = object.__new__(cls)
    made._place(buffer, ptr, layout, flags)
    return made


def maker(cls: type[Any]) -> Callable[..., Any]:
    """`on_memory` for one class, as quick as it goes: every op makes its results so."""
    new = object.__new__

    def make(buffer: Buffer, ptr: int, layout: Layout, flags: int = 0) -> Any:
        made = new(cls)
        made._ptr = ptr
        made._layout = layout
        made._flags = flags
        made._node = None
        made._index = 0
        made._buffer = buffer
        made._grad = None
        made._view = None
        return made

    return make


_OPERANDS: Final = (TensorBase, int, float, complex, np.generic)


def install_operators(binary: Mapping[str, Callable[[Any, Any], Any]], other: Mapping[str, Callable[..., Any]]) -> None:
    """Fill the operator slots of `TensorBase`.

    A `binary` slot takes NumPy arrays as tensors, and answers NotImplemented to operands that are neither tensors nor
    numbers, as Python expects; the `other` ones are installed as they are.
    """
    for name, function in binary.items():
        setattr(TensorBase, name, _binary_slot(name, function))
    for name, function in other.items():
        if function.__module__ in ("kiln.tensor", "kiln.indexing"):  # no public function, but the operator itself
            function.__name__ = function.__qualname__ = name
        setattr(TensorBase, name, function)


def _binary_slot(name: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def slot(self: Any, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return function(self, other)
        if isinstance(other, np.ndarray):
            from kiln.creation import tensor  # lies above this file

            return function(self, tensor(other))
        if hasattr(type(other), "__torch_function__"):
            from kiln.overriding import operator_result  # lies above this file

            return operator_result(function, self, other)
        if hasattr(type(other), "__kiln_number__"):  # a Python number in a capture; it computes with tensors by itself
            value = other.__kiln_number__(name, self)
            return NotImplemented if value is None else function(self, value)
        return NotImplemented

    slot.__name__ = slot.__qualname__ = name
    return slot
