"""Loaded programs of many ops, and what it takes to run them on tensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from kiln import dispatch, there
from kiln.base import SPENT, Layout, TensorBase, layout_of
from kiln.dispatch import Loaded
from kiln.ir.graph import Constant, Graph
from kiln.ir.ops.base import OPS
from kiln.ir.passes.generalise import Fill, Strides, instance
from kiln.ir.types import CPU, Device, TensorType
from kiln.runtime.targets import host_target

if TYPE_CHECKING:
    from kiln.runtime.cuda import CudaExecutable


class Code:
    """A loaded program of a graph. `fills`: what its last inputs hold; `donated`: inputs whose memory outputs may take
    over, as those of `reused` (output, input) do. `device`: where it runs, whatever its inputs and outputs are."""

    __slots__ = ("aliases", "device", "executable", "fills", "program", "reused", "seconds", "sizes", "strides")

    def __init__(
        self,
        graph: Graph,
        strides: Sequence[Strides],
        name: str,
        fills: Sequence[Fill] = (),
        donated: Sequence[int] = (),
        device: Device = CPU,
    ) -> None:
        started = time.perf_counter()
        self.fills = tuple(fills)
        self.device = device
        self.strides = strides
        self.program = dispatch.build(graph, strides, name=name, donated=donated, device=device)
        self.aliases = tuple(pair for pair in self.program.aliases if pair[1] not in donated)
        self.reused = tuple(pair for pair in self.program.aliases if pair[1] in donated)
        self.executable = dispatch.load(self.program, device)
        self.sizes = tuple(slot.name for slot in self.program.slots if slot.kind == "size")
        self.seconds = time.perf_counter() - started

    def record(self) -> None:
        """Run as CUDA graphs from now on, if it runs on a GPU."""
        if self.device is not CPU:
            cast("CudaExecutable", self.executable).record(self.strides)

    def told(self) -> str:
        """What becomes of that, for reports; empty where nobody asked."""
        return "" if self.device is CPU else cast("CudaExecutable", self.executable).told()


class Compiled:
    """Code with the numbers for which it is run: sizes, and values of fills."""

    __slots__ = (
        "_aliases", "_allocators", "_fills", "_leaving", "_numbers", "_only", "_reused", "_sizes", "code", "executable",
        "layouts", "program", "target",
    )  # fmt: skip

    def __init__(
        self, code: Code, numbers: Mapping[str, Any] | None = None, places: Mapping[int, Device] | None = None
    ) -> None:
        """`places`: of those outputs that are not to be where the code runs."""
        device = code.device
        self._numbers = numbers = {} if numbers is None else dict(numbers)
        self.code = code
        self.program = code.program
        self.executable = code.executable
        aliased = {o for o, _ in code.aliases}
        types = [t.at(numbers) for t in self.program.output_types]
        self.layouts = [
            None if k in aliased else layout_of(t.dtype, t.static_shape(), None, device) for k, t in enumerate(types)
        ]
        self._allocators = [None if layout is None else dispatch.allocator(layout) for layout in self.layouts]
        self._aliases = code.aliases
        self._reused = code.reused
        self.target = host_target()
        self._sizes = [numbers[name] for name in code.sizes]
        self._fills = [_holding(numbers[name], t.at(numbers), device) for name, t in code.fills]
        if self._fills and device is not CPU:
            there.settle(device)

        # The allocator of the only output, where the pointers to the inputs and to it are all that the program takes.
        single = len(self._allocators) == 1 and not (self._aliases or self._sizes or self._fills)
        self._only = self._allocators[0] if single and device is CPU else None
        self._leaving = () if places is None else self._outside(places)

    def _outside(self, places: Mapping[int, Device]) -> tuple[tuple[int, Layout, Layout], ...]:
        """Which outputs go elsewhere, from which layout to which."""
        leaving = []
        for k, device in places.items():
            layout = self.layouts[k]
            if layout is not None and device is not self.code.device:
                self.layouts[k] = layout.on(device)
                leaving.append((k, layout, layout.on(device)))
        return tuple(leaving)

    def concrete(self, graph: Graph) -> Graph:
        """The graph that this is the program of, for these numbers."""
        return instance(graph, self._numbers) if self._numbers else graph

    def run(
        self, inputs: Sequence[TensorBase], execute: Callable[[Loaded, Sequence[int]], None] = dispatch.execute
    ) -> list[Any]:
        """Run on input tensors of the compiled layouts; the buffers of the outputs (None where aliased)."""
        if self._only is None and self.code.device is not CPU:
            return self._run_there(inputs, execute)
        if self._reused:
            return self._take_over(inputs, execute)
        if self._only is not None:
            buffer = self._only()
            execute(self.executable, [*[t._ptr for t in inputs], buffer.ptr])
            return [buffer]
        buffers = [None if allocate is None else allocate() for allocate in self._allocators]
        self._execute(inputs, buffers, execute)
        return buffers

    def _run_there(self, inputs: Sequence[TensorBase], execute: Callable[[Loaded, Sequence[int]], None]) -> list[Any]:
        """`run` on another device than the CPU: what is elsewhere is brought there, and what belongs elsewhere is
        brought back. Bits do not depend on where they are computed, so this is what the ops would give one by one."""
        device = self.code.device
        brought: Sequence[Any] = inputs
        if any(t._layout.device is not device for t in inputs):
            brought = dispatch.brought(inputs, device)
        buffers: list[Any] = [None if allocate is None else allocate() for allocate in self._allocators]
        self._execute(brought, buffers, execute)
        for _, i in self._aliases:
            if brought[i] is not inputs[i]:
                target: Any = inputs[i]
                dispatch.write(target, OPS["copy"], (dispatch.moved(brought[i], target._layout.device),), {})
                target._buffer.version -= 1  # whoever called counts the write
        for k, here, home in self._leaving:
            made = dispatch.tensor_on(buffers[k], buffers[k].ptr, here)
            buffers[k] = dispatch.moved(made, home.device)._buffer
        return buffers

    def _take_over(self, inputs: Sequence[TensorBase], execute: Callable[[Loaded, Sequence[int]], None]) -> list[Any]:
        """`run`, with outputs on the memory of donated inputs; these are marked as spent once they may be written."""
        buffers: list[Any] = [None] * len(self._allocators)
        taken: list[TensorBase] = []
        for o, i in self._reused:
            t, layout = inputs[i], self.layouts[o]
            buffer = t._buffer
            whole = buffer.owner is None and buffer.ptr == t._ptr  # not NumPy's memory, nor a part of more
            if layout is not None and whole and buffer.nbytes == layout.nbytes:
                buffers[o] = buffer
                taken.append(t)
        for o, allocate in enumerate(self._allocators):
            if allocate is not None and buffers[o] is None:
                buffers[o] = allocate()
        written = True
        try:
            self._execute(inputs, buffers, execute)
        except dispatch.CheckFailed:
            written = False
            raise
        finally:
            if written:
                for t in taken:
                    t._buffer.version += 1
                    t._flags |= SPENT
        return buffers

    def _execute(
        self,
        inputs: Sequence[TensorBase],
        buffers: Sequence[Any],
        execute: Callable[[Loaded, Sequence[int]], None],
    ) -> None:
        values = [t._ptr for t in inputs]
        if self._fills:
            values += [t._ptr for t in self._fills]
        count = len(values)
        values += [0 if b is None else b.ptr for b in buffers]
        for o, i in self._aliases:
            values[count + o] = values[i]
        values += self._sizes
        execute(self.executable, values)


def _holding(value: Any, t: TensorType, device: Device) -> Any:
    """A tensor of type `t` that holds a number, or literal data."""
    if isinstance(value, Constant):
        return dispatch.host_array(value.data, layout_of(t.dtype, t.static_shape(), None, device))
    return dispatch.constant((), t.dtype, value, device)
