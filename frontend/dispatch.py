"""Eager execution: from an op and its operands to one native call. The only file, with `there.py` for GPUs, that
joins codegen and runtime.

An application is looked up by (op, layouts, attributes); what is found is a *launch*: a function that takes
the operands, allocates the results and runs a kernel (or, for views, only makes new tensor records). A launch
is cheap to make: it binds sizes and strides to a *kernel*, which is shape-generic and shared by every launch of
its class (op, dtypes, and per operand which strides are 0, 1, or any). Kernels come from the same pipeline
as compiled graphs, as graphs of one op with symbolic dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

import numpy as np

import kiln.codegen
import kiln.ir
from kiln import errors, there
from kiln.base import MODES, READONLY, Layout, TensorBase, layout_of, maker
from kiln.generic import Strides, Symbols, collapse
from kiln.ir.graph import Alias, Attrs, Constant, Graph, GraphBuilder
from kiln.ir.halves import converted
from kiln.ir.interpreter import follow, walk
from kiln.ir.ops.base import (
    OPS,
    Control,
    Dense,
    Library,
    LibraryError,
    OpDef,
    OpTypeError,
    apart,
    ints_attr,
)
from kiln.ir.program import CheckSite, LibraryCall, Place, Program
from kiln.ir.target import Target
from kiln.ir.types import CPU, Device, DType, Sym, TensorType, bool_, device_named
from kiln.runtime.executable import Executable, ProgramError
from kiln.runtime.executable import load as load_program
from kiln.runtime.library import Performer
from kiln.runtime.memory import Buffer
from kiln.runtime.programs import fetch as fetch_program
from kiln.runtime.programs import fetch_choice, fetch_cuda
from kiln.runtime.targets import host_target

if TYPE_CHECKING:
    from kiln.ir.gpu_program import CudaProgram
    from kiln.ir.passes.autodiff import Joint
    from kiln.ir.passes.partition import AtHand, Differentiated
    from kiln.runtime.cuda import CudaExecutable

Loaded: TypeAlias = "Executable | CudaExecutable"
Results: TypeAlias = "tuple[Any, ...]"
Launch: TypeAlias = Callable[[Sequence[Any]], Results]

_MAX_LAUNCHES: Final = 16384
_MAX_CONSTANTS: Final = 4096
_LARGE_CONSTANT: Final = 1 << 16
"""Bytes; longer counters are made anew each time."""

_SMALL: Final = 4096
"""Bytes of a tensor that is copied to a device together with others."""

_SOURCES: Final = (*kiln.ir.__path__, *kiln.codegen.__path__)  # what decides the code of a graph

_launches: dict[tuple[object, ...], Launch] = {}
_kernels: dict[tuple[object, ...], Kernel] = {}
_constants: dict[tuple[object, ...], TensorBase] = {}
_target: Target | None = None
_class: type[TensorBase] = TensorBase
_tensor: Callable[..., Any] = maker(TensorBase)
_layers: tuple[type[Layout], Callable[..., Results], Callable[..., NoReturn]] | None = None


def register_tensor_class(cls: type[TensorBase]) -> None:
    """Results are made as `cls`; called once by `kiln.tensor`, which lies above this file."""
    global _class, _tensor
    _class, _tensor = cls, maker(cls)


def tensor_on(buffer: Buffer, ptr: int, layout: Layout, flags: int = 0) -> Any:
    """A tensor without history on this memory."""
    return _tensor(buffer, ptr, layout, flags)


def register_layers(layout: type[Layout], bind: Callable[..., Results], refuse: Callable[..., NoReturn]) -> None:
    """Operands of layouts of this class are for `bind` to apply ops to, and can't be written to plain tensors, which
    `refuse` says; called once by `kiln.layers`, which lies above this file."""
    global _layers
    _layers = (layout, bind, refuse)


def _layered(operands: Sequence[Any]) -> bool:
    return _layers is not None and any(t._layout.__class__ is _layers[0] for t in operands)


def tensor_class() -> Any:
    """The class that results are made as."""
    return _class


# ------------------------------------------------------------------------------------- whole programs


def build(
    graph: Graph,
    input_strides: Sequence[Strides],
    *,
    name: str = "",
    stages: bool = False,
    passes: bool = True,
    donated: Sequence[int] = (),
    device: Device = CPU,
) -> Program | CudaProgram:
    """Compile a graph for this machine (`codegen.pipeline.compile_graph`), or take its program from the cache.
    `stages` are made anew. `donated`: inputs whose memory outputs may take over. `device`: where it is to run."""
    options = f"{name}|{passes}|{list(donated)}" if donated else f"{name}|{passes}"
    if device is not CPU:
        options += "|bounds" * there.bounds()
        made = partial(there.build, graph, input_strides, name, passes, donated)
        return fetch_cuda(graph, input_strides, options, _SOURCES, made)
    target = host_target()

    def compiled() -> Program:
        from kiln.codegen.pipeline import compile_graph  # a warm process may never need codegen

        return compile_graph(graph, target, input_strides, name=name, stages=stages, passes=passes, donated=donated)

    if stages:
        return compiled()
    return fetch_program(graph, input_strides, target, options, _SOURCES, compiled)


def stages(
    graph: Graph, input_strides: Sequence[Strides], name: str, donated: Sequence[int], device: Device
) -> tuple[tuple[str, str], ...]:
    """All stages of making a program, by name, as text."""
    if device is not CPU:
        return there.stages(graph, input_strides, name)
    program = build(graph, input_strides, name=name, stages=True, donated=donated)
    assert isinstance(program, Program)
    return program.stages


def partition(joint: Joint, at_hand: AtHand, preserve: Sequence[int]) -> Differentiated:
    """Cut a joint graph into a forward and a backward one (`ir/passes/partition.py`); which values are stored between
    them comes from the cache if it knows."""
    from kiln.ir.passes.partition import Early, split  # only what differentiates compiled functions needs it

    numbering: dict[object, int] = {}
    early = Early(joint, numbering)

    def choose() -> tuple[int, ...]:
        from kiln.ir.passes.mincut import choose  # a warm process knows the answer

        return choose(early, at_hand)

    places = [sorted(part) for part in (at_hand.direct, at_hand.inputs, at_hand.outputs)]
    twins = joint.twins()
    kept = [early.numbers[twins[joint.source.outputs[k]]] for k in places[2]]
    options = f"{len(joint.source.inputs)}|{joint.ahead}|{places[:2]}|{kept}"
    return split(early, numbering, fetch_choice(joint.graph, options, _SOURCES, choose), at_hand, preserve)


def target() -> Target:
    """What code is made for now (tests force lower targets)."""
    return host_target()


def load(program: Program | CudaProgram, device: Device = CPU) -> Loaded:
    """Load a program into this process (`runtime.executable.load`), or onto a device."""
    return load_program(program) if isinstance(program, Program) else there.load(program, device)


class CheckFailed(Exception):
    """A check on data failed in a compiled region; no input was changed."""


def execute_region(executable: Loaded, values: Sequence[int]) -> None:
    """Run a loaded program of many ops. `CheckFailed` when a check fails: the user's exception, and what comes before
    it, is eager's affair."""
    try:
        executable.run(values)
    except ProgramError as failure:
        raise CheckFailed(str(failure)) from None
    except there.faults() as fault:
        raise errors.from_cuda(fault, executable.program.name) from None


def execute(executable: Loaded, values: Sequence[int]) -> None:
    """Run a loaded program; a failed check raises the user's exception."""
    try:
        executable.run(values)
    except ProgramError as failure:
        raise errors.from_check(failure.site, failure.value) from None
    except there.faults() as fault:
        raise errors.from_cuda(fault, executable.program.name) from None


# ------------------------------------------------------------------------------------------ eager ops


def run(op: OpDef, operands: Sequence[Any], attrs: Attrs, receiver: Any = None) -> Results:
    """Execute `op` now. View ops return records on the same memory where their rule allows it. Results of ops without
    operands are where tensor `receiver` is."""
    if not operands:
        return _host_made(op, attrs, CPU if receiver is None else receiver._layout.device)
    if host_target() is not _target:
        _retarget()
    key = (op, *[t._layout for t in operands], *attrs.items())
    launch = _launches.get(key)
    if launch is None:
        launch = _prepare(op, operands, attrs)
        if len(_launches) >= _MAX_LAUNCHES:
            _launches.clear()
        _launches[key] = launch
    return launch(operands)


def write(target: Any, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> None:
    """target[...] = op(*operands), elementwise, straight into the memory of `target` (any strides).

    `op` must be pointwise with a result of `target`'s type. Operands may be `target` itself or share its
    memory; the result is as if all of them were read first. Counts as one in-place write.
    """
    if host_target() is not _target:
        _retarget()
    operands = [_private(target, t) for t in operands]
    key = ("write", op, target._layout, *[t is target or t._layout for t in operands], *attrs.items())
    launch = _launches.get(key)
    if launch is None:
        launch = _prepare_write(target, op, operands, attrs)
        if len(_launches) >= _MAX_LAUNCHES:
            _launches.clear()
        _launches[key] = launch
    launch([target, *operands])
    target._buffer.version += 1


def write_at(target: Any, value: Any, indices: Sequence[Any], attrs: Attrs) -> None:
    """The op `scatter`, of `target`, straight into its contiguous memory. All indices must be in range: what is written
    before one is found that is not would stay. Counts as one in-place write."""
    if host_target() is not _target:
        _retarget()
    scatter = OPS["scatter"]
    operands = [
        target,
        *[run(OPS["copy"], (t,), {})[0] if t._buffer is target._buffer else t for t in (value, *indices)],
    ]
    key = ("write", scatter, *[t._layout for t in operands], *attrs.items())
    launch = _launches.get(key)
    if launch is None:
        layouts = [t._layout for t in operands]
        for layout in layouts:
            if layout.device is not layouts[0].device:
                raise errors.from_type_error(apart("index_put_", layouts[0].device, layout.device), operands)
        executable, sizes, _ = _bound_kernel(scatter, layouts, {**attrs, "in_place": True}, (target._layout,))

        def launch(operands: Sequence[Any]) -> Results:
            execute(executable, [*[t._ptr for t in operands], operands[0]._ptr, *sizes])
            return ()

        _launches[key] = launch
    if value._layout.numel:
        launch(operands)
    target._buffer.version += 1


def _private(target: Any, operand: Any) -> Any:
    """`operand`, or a copy when writing `target` elementwise could change what is still to be read of it."""
    if operand._buffer is not target._buffer or operand is target:
        return operand
    if operand._ptr == target._ptr and operand._layout is target._layout:
        return target
    return run(OPS["copy"], (operand,), {})[0]


def empty(layout: Layout) -> Any:
    """A tensor of fresh, uninitialised memory; `layout` must be contiguous."""
    buffer = Buffer.allocate(layout.nbytes) if layout.device is CPU else there.allocator(layout)()
    return _tensor(buffer, buffer.ptr, layout)


def allocator(layout: Layout) -> Callable[[], Buffer]:
    """What makes memory for tensors of a contiguous layout."""
    return Buffer.allocator(layout.nbytes) if layout.device is CPU else there.allocator(layout)


def moved(t: Any, device: Device, non_blocking: bool = False) -> Any:
    """The elements of `t` in contiguous memory on `device`, without history; `t` itself if that is where it is."""
    if t._layout.device is device:
        return t
    if not t._layout.contiguous:
        t = run(OPS["copy"], (t,), {})[0]
    out = empty(t._layout.on(device))
    there.copy(out, t, non_blocking)
    return out


def brought(tensors: Sequence[Any], device: Device) -> list[Any]:
    """`moved`, of each; what is small on the CPU (numbers above all) in one copy."""
    made = list(tensors)
    small = []
    for k, t in enumerate(tensors):
        layout = t._layout
        if layout.device is device:
            continue
        if layout.device is CPU and layout.contiguous and 0 < layout.nbytes <= _SMALL:
            small.append(k)
        else:
            made[k] = moved(t, device)
    if len(small) == 1:
        made[small[0]] = moved(tensors[small[0]], device)
    elif small:
        buffer, places = there.together([tensors[k] for k in small], device)
        for k, offset in zip(small, places, strict=True):
            made[k] = _tensor(buffer, buffer.ptr + offset, tensors[k]._layout.on(device))
    return made


def fetch(target: Any, source: Any) -> None:
    """The bytes of `source`, on a GPU, to `target` in pinned memory, without a wait. Counts as one in-place write."""
    there.copy(target, source, True)
    target._buffer.version += 1


def restore(t: Any, data: np.ndarray[Any, Any]) -> None:
    """Put elements back to the memory of `t`; this counts as no write."""
    if t._layout.device is CPU:
        t._array()[...] = data
        return
    version = t._buffer.version
    held = host_array(np.ascontiguousarray(data), layout_of(t._layout.dtype, t._layout.shape))
    write(t, OPS["copy"], (moved(held, t._layout.device),), {})
    t._buffer.version = version


def constant(shape: tuple[int, ...], dtype: DType, value: bool | int | float | complex, device: Device = CPU) -> Any:
    """A read-only tensor with `value` everywhere (strides 0, one element of memory), cached.

    `value` must be of the Python type that belongs to `dtype`; floats are rounded to `dtype` first.
    """
    place = 0 if device is CPU else (device.slot, there.queue(device))  # devices take long to hash
    if isinstance(value, complex):
        key: tuple[object, ...] = (shape, dtype, repr(value), place)
    else:
        sign = math.copysign(1.0, value) if value == 0 else 0.0
        key = (shape, dtype, value if value == value else "nan", sign, place)
    found = _constants.get(key)
    if found is None:
        data = converted(np.asarray(value), dtype)
        found = host_array(data, layout_of(dtype, shape, (0,) * len(shape), device))
        _keep_constant(key, found)
    return found


def _keep_constant(key: tuple[object, ...], made: TensorBase) -> None:
    if made._buffer.nbytes > _LARGE_CONSTANT:
        return
    if len(_constants) >= _MAX_CONSTANTS:
        _constants.clear()
    _constants[key] = made


def _host_made(op: OpDef, attrs: Attrs, device: Device) -> Results:
    """The result of an op without operands, as read-only memory of as few elements as will do."""
    if op.name == "full":  # the hot one: number constants and the seeds of gradients
        dtype = cast("DType", attrs["dtype"])
        value = PYTHON_TYPES[dtype.kind](attrs["value"])
        return (constant(cast("tuple[int, ...]", attrs["shape"]), dtype, value, device),)
    try:
        (result,) = op.infer_types((), attrs)
    except OpTypeError as error:
        raise errors.from_type_error(error) from None
    dtype, shape = result.dtype, result.static_shape()
    if op.name == "iota":
        dim = cast("int", attrs["dim"])
        key = ("iota", dtype, shape, dim, device, 0 if device is CPU else there.queue(device))
        found = _constants.get(key)
        if found is None:
            data = converted(np.arange(shape[dim], dtype=np.int64), dtype)
            strides = tuple(int(d == dim) for d in range(len(shape)))
            found = host_array(data, layout_of(dtype, shape, strides, device))
            _keep_constant(key, found)
        return (found,)
    assert op.name == "constant", f"{op.name} has no operands and no host data"
    return (host_array(cast("Constant", attrs["data"]).data, layout_of(dtype, shape, None, device)),)


def host_array(data: np.ndarray[Any, Any], layout: Layout) -> Any:
    """A read-only tensor of `layout` over NumPy memory, which is kept alive; on another device over a copy."""
    ptr = data.__array_interface__["data"][0]
    if layout.device is not CPU:
        buffer = there.uploaded(ptr, data.nbytes, layout.device)
        return _tensor(buffer, buffer.ptr, layout, READONLY)
    return _tensor(Buffer.wrap(ptr, data.nbytes, data), ptr, layout, READONLY)


def _retarget() -> None:
    """Forget launches made for another target (tests force lower ones)."""
    global _target
    _target = host_target()
    _launches.clear()


def _prepare(op: OpDef, operands: Sequence[Any], attrs: Attrs) -> Launch:
    """The launch for operands of these layouts; checks the op's type rule."""
    if _layered(operands):
        assert _layers is not None
        apply = _layers[1]
        return lambda tensors: apply(op, tensors, attrs)
    try:
        types = op.infer_types([t.ttype for t in operands], attrs)
    except OpTypeError as error:
        raise errors.from_type_error(error, operands) from None
    if op.name == "transfer":
        return _transfer_launch(attrs)
    results = tuple(layout_of(t.dtype, t.static_shape(), None, t.device) for t in types)
    layouts = [t._layout for t in operands]
    device = results[0].device if results else CPU
    if any(layout.device is not device for layout in layouts):
        return lambda tensors: run(op, [moved(t, device) for t in tensors], attrs)
    if op.view is not None:
        return _view_launch(op, layouts[0], attrs, results[0])
    if isinstance(op.lower, Library):
        make = _library_launch if layouts[0].device is CPU else _sized_launch
        return make(op, layouts, attrs, results)
    if isinstance(op.lower, Control):
        return _control_launch(op, attrs, layouts[0].device)
    special = _SPECIAL.get(op.name)
    if special is not None:
        return special(layouts, attrs, results[0])
    return _kernel_launch(op, layouts, attrs, results)


# ------------------------------------------------------------------------------ views, constants, moves


def _transfer_launch(attrs: Attrs) -> Launch:
    """Fresh memory in any case, also where the elements are there already."""
    device, waits_not = device_named(cast("str", attrs["target"])), bool(attrs.get("non_blocking", False))

    def transfer(operands: Sequence[Any]) -> Results:
        if operands[0]._layout.device is device:
            return run(OPS["copy"], operands, {})
        return (moved(operands[0], device, waits_not),)

    return transfer


def _view_launch(op: OpDef, layout: Layout, attrs: Attrs, result: Layout) -> Launch:
    """Same memory under another layout; through a contiguous copy where no strides can express it."""
    assert op.view is not None
    if op.name == "reshape" and result.shape == layout.shape:
        placed: Any = (layout.shape, layout.strides, 0)
    else:
        placed = op.view(layout.shape, layout.strides, 0, attrs)
    if placed is None:

        def through_copy(operands: Sequence[Any]) -> Results:
            return run(op, run(OPS["copy"], operands, {}), attrs)

        return through_copy
    shape, strides, offset = placed
    viewed = layout_of(result.dtype, shape, strides, layout.device)
    assert viewed.shape == result.shape, f"{op.name}: view rule and type rule disagree"
    delta = offset * result.dtype.itemsize

    def view(operands: Sequence[Any]) -> Results:
        t = operands[0]
        return (_tensor(t._buffer, t._ptr + delta, viewed, t._flags & READONLY),)

    return view


def _cat(layouts: Sequence[Layout], attrs: Attrs, result: Layout) -> Launch:
    """Each operand is copied to its place, so no kernel depends on how many there are."""
    dim = cast("int", attrs["dim"])
    offset, places = 0, []
    for layout in layouts:
        size = layout.shape[dim]
        part = layout_of(result.dtype, layout.shape, result.strides, result.device)
        places.append((part, offset * result.strides[dim] * result.dtype.itemsize))
        offset += size

    def cat(operands: Sequence[Any]) -> Results:
        out = empty(result)
        for t, (part, delta) in zip(operands, places, strict=True):
            write(_tensor(out._buffer, out._ptr + delta, part), OPS["copy"], (t,), {})
        out._buffer.version = 0
        return (out,)

    return cat


def _slice_scatter(layouts: Sequence[Layout], attrs: Attrs, result: Layout) -> Launch:
    """A copy of the base with the value copied over the slice."""
    region = OPS["slice"].view
    assert region is not None
    starts, stops, steps = (ints_attr(attrs, k) for k in ("starts", "stops", "steps"))
    placed = region(result.shape, result.strides, 0, {"starts": starts, "stops": stops, "steps": steps})
    assert placed is not None
    part = layout_of(result.dtype, placed[0], placed[1], result.device)
    delta = placed[2] * result.dtype.itemsize

    def slice_scatter(operands: Sequence[Any]) -> Results:
        out = empty(result)
        write(out, OPS["copy"], (operands[0],), {})
        write(_tensor(out._buffer, out._ptr + delta, part), OPS["copy"], (operands[1],), {})
        out._buffer.version = 0
        return (out,)

    return slice_scatter


PYTHON_TYPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bool": bool,
    "int": int,
    "uint": int,
    "float": float,
    "complex": complex,
}
"""The Python type of a dtype's numbers, by dtype kind."""

_SPECIAL: Final[dict[str, Callable[[Sequence[Layout], Attrs, Layout], Launch]]] = {
    "cat": _cat,
    "slice_scatter": _slice_scatter,
}
"""Ops that would need a kernel per size or arity: they are copies to places."""


# ---------------------------------------------------------------------------------------------- kernels


class Kernel:
    """A loaded program of one op, its sizes symbolic wherever they can be."""

    __slots__ = ("executable", "sizes")

    def __init__(self, graph: Graph, strides: Sequence[Strides], name: str, device: Device) -> None:
        with unwatched():
            program = build(graph, strides, name=name, passes=False, device=device)
            self.executable = load(program, device)
        self.sizes = tuple(slot.name for slot in program.slots if slot.kind == "size")
        """Names of the size slots in order."""

    def bind(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(sizes[name] for name in self.sizes)


def unwatched() -> AbstractContextManager[None]:
    """Not watched by the audit of a capture, which would slow the making of code down several times."""
    if MODES.recorder is None:
        return nullcontext()
    from kiln.world import paused  # loaded already: a capture is going on

    return paused()


def _kernel_launch(op: OpDef, layouts: Sequence[Layout], attrs: Attrs, results: tuple[Layout, ...]) -> Launch:
    executable, sizes, named = _bound_kernel(op, layouts, attrs, results)
    return _allocating_launch(executable, results, sizes, named)


def _bound_kernel(
    op: OpDef, layouts: Sequence[Layout], attrs: Attrs, results: tuple[Layout, ...]
) -> tuple[Loaded, tuple[int, ...], dict[str, int]]:
    """The kernel of an op for these layouts, the sizes to call it with, and their names."""
    pointwise = isinstance(op.lower, Dense) and op.lower.pointwise and bool(layouts)
    if pointwise:
        shape, strides = collapse(layouts[0].shape, [layout.strides for layout in layouts])
        operands = [(layout.dtype, shape, s) for layout, s in zip(layouts, strides, strict=True)]
    else:
        operands = [(layout.dtype, layout.shape, layout.strides) for layout in layouts]
    symbols = Symbols(op, operands, attrs)
    if not pointwise:
        _derived_sizes(op, symbols, attrs, results)
    if "random" in op.traits:  # element i depends on i alone: one kernel over a flat size serves all shapes
        symbols.sizes["n"] = results[0].numel
        attrs = cast("Attrs", {**attrs, "shape": (Sym("n"),)})
    device = results[0].device
    key = (_target if device is CPU else device, op, symbols.key(), *attrs.items())
    kernel = _kernels.get(key)
    if kernel is None:
        builder = GraphBuilder(op.name)
        inputs = [builder.input(t) for t in symbols.types]
        outputs = builder.add(op, inputs, attrs)
        kernel = Kernel(builder.build(outputs), symbols.strides, op.name, device)
        _kernels[key] = kernel
    sizes = kernel.bind(symbols.sizes)
    return kernel.executable, sizes, dict(zip(kernel.sizes, sizes, strict=True))


def _derived_sizes(op: OpDef, symbols: Symbols, attrs: Attrs, results: tuple[Layout, ...]) -> None:
    """Sizes of results that are none of the operands' (a type rule names them after what they follow from)."""
    for t, layout in zip(op.infer_types(symbols.types, attrs), results, strict=True):
        for d, size in zip(t.shape, layout.shape, strict=True):
            if isinstance(d, Sym):
                symbols.sizes.setdefault(d.name, size)


def _allocating_launch(
    executable: Loaded, results: tuple[Layout, ...], sizes: tuple[int, ...], named: Mapping[str, int]
) -> Launch:
    """Allocate results, run. Empty results need no run: no op has a check on elements that do not exist. `named`:
    the sizes that the message of a failed check may name."""
    if all(layout.numel == 0 for layout in results):
        return lambda operands: tuple(map(empty, results))
    run, make = executable.runner() if isinstance(executable, Executable) else _runner(executable), _tensor
    if len(results) > 1:

        def many(operands: Sequence[Any]) -> Results:
            made = tuple(map(empty, results))
            execute(executable, [*[t._ptr for t in operands], *[t._ptr for t in made], *sizes])
            return made

        return many
    layout = results[0]
    allocate = allocator(layout)

    def launch(operands: Sequence[Any]) -> Results:
        buffer = allocate()
        ptr = buffer.ptr
        try:
            run(*[t._ptr for t in operands], ptr, *sizes)
        except ProgramError as failure:
            raise errors.from_check(failure.site, failure.value, named) from None
        except there.faults() as fault:
            raise errors.from_cuda(fault, executable.program.name) from None
        return (make(buffer, ptr, layout),)

    return launch


def _runner(executable: CudaExecutable) -> Callable[..., None]:
    run = executable.run
    return lambda *values: run(values)


def _library_launch(op: OpDef, layouts: Sequence[Layout], attrs: Attrs, results: tuple[Layout, ...]) -> Launch:
    """Allocate results, have the library compute them: what a compiled program does in the same place."""
    places = [Place(k, 0, layout.ttype, layout.strides) for k, layout in enumerate((*layouts, *results))]
    count = len(layouts)
    perform = Performer(LibraryCall(op.name, tuple(attrs.items()), tuple(places[:count]), tuple(places[count:])))

    def launch(operands: Sequence[Any]) -> Results:
        made = tuple(map(empty, results))
        try:
            perform([t._ptr for t in (*operands, *made)])
        except LibraryError as refusal:
            raise errors.from_check(CheckSite("linalg", op.name, str(refusal)), 0) from None
        return made

    return launch


def _sized_launch(op: OpDef, layouts: Sequence[Layout], attrs: Attrs, results: tuple[Layout, ...]) -> Launch:
    """A program for these sizes alone: of an op that a library computes on a CPU."""
    builder = GraphBuilder(op.name)
    outputs = builder.add(op, [builder.input(layout.ttype) for layout in layouts], attrs)
    strides = [layout.strides for layout in layouts]
    made = Kernel(builder.build(outputs), strides, op.name, layouts[0].device)
    return _allocating_launch(made.executable, results, (), {})


def _control_launch(op: OpDef, attrs: Attrs, device: Device) -> Launch:
    """The ops of the graphs, one by one. Results share memory with nothing."""
    receiver = constant((), bool_, False, device)

    def inside(graph: Graph, operands: Sequence[Any]) -> list[Any]:
        return walk(graph, operands, lambda each, given: run(cast("OpDef", each.op), given, each.attrs, receiver))

    def control(operands: Sequence[Any]) -> Results:
        made = follow(op, operands, attrs, inside, truth, slices, stack)
        return tuple([run(OPS["copy"], (t,), {})[0] for t in made])

    def truth(t: Any) -> bool:
        return bool(t._array())

    def slices(x: Any, k: int) -> Any:
        layout = layout_of(x._layout.dtype, x._layout.shape[1:], x._layout.strides[1:], x._layout.device)
        return _tensor(x._buffer, x._ptr + k * x._layout.strides[0] * x._layout.dtype.itemsize, layout)

    def stack(parts: Sequence[Any], t: TensorType) -> Any:
        out = empty(layout_of(t.dtype, t.static_shape(), None, device))
        for k, part in enumerate(parts):
            write(slices(out, k), OPS["copy"], (part,), {})
        out._buffer.version = 0
        return out

    return control


def _prepare_write(target: Any, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> Launch:
    """A kernel whose output is declared to alias its first input, which has `target`'s strides."""
    if _layered(operands):
        assert _layers is not None
        _layers[2](target, f"{op.name}_", next(t for t in operands if _layered((t,))))
    try:
        (result,) = op.infer_types([t.ttype for t in operands], attrs)
    except OpTypeError as error:
        raise errors.from_type_error(error, operands) from None
    if result.device != target._layout.device:
        raise errors.from_type_error(apart(op.name, target._layout.device, result.device), [target, *operands])
    assert result == target.ttype, f"{op.name}: result {result} written to {target.ttype}"
    assert isinstance(op.lower, Dense) and op.lower.pointwise
    if any(t._layout.device is not result.device for t in operands):

        def brought(tensors: Sequence[Any]) -> Results:
            near = [moved(t, tensors[0]._layout.device) for t in tensors]
            return _prepare_write(near[0], op, near[1:], attrs)(near)

        return brought
    if target._layout.numel == 0:
        return lambda tensors: ()
    others = [t for t in operands if t is not target]
    fresh = iter(range(1, 1 + len(others)))
    positions = tuple(0 if t is target else next(fresh) for t in operands)
    layouts = [t._layout for t in (target, *others)]
    shape, strides = collapse(target.shape, [layout.strides for layout in layouts])
    symbols = Symbols(op, [(layout.dtype, shape, s) for layout, s in zip(layouts, strides, strict=True)], attrs)
    device = target._layout.device
    key = ("write", _target if device is CPU else device, op, positions, symbols.key(), *attrs.items())
    kernel = _kernels.get(key)
    if kernel is None:
        builder = GraphBuilder(f"{op.name}_")
        inputs = [builder.input(t) for t in symbols.types]
        outputs = builder.add(op, [inputs[p] for p in positions], attrs)
        graph = builder.build(outputs, [Alias(0, 0)])
        kernel = Kernel(graph, symbols.strides, f"{op.name}_", device)
        _kernels[key] = kernel
    executable, sizes = kernel.executable, kernel.bind(symbols.sizes)
    keep = [0, *[1 + i for i, t in enumerate(operands) if t is not target]]

    def launch(tensors: Sequence[Any]) -> Results:
        pointers = [tensors[k]._ptr for k in keep]
        execute(executable, [*pointers, pointers[0], *sizes])
        return ()

    return launch
