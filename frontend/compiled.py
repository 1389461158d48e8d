"""Loaded programs of many ops, and what it takes to run them on tensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kiln import dispatch
from kiln.base import TensorBase, layout_of
from kiln.ir.graph import Constant, Graph
from kiln.ir.passes.generalise import Fill, Strides, instance
from kiln.ir.program import Program
from kiln.ir.types import TensorType
from kiln.runtime.executable import Executable
from kiln.runtime.memory import Buffer


class Code:
    """A loaded program of a graph. `fills`: what its last inputs hold."""

    __slots__ = ("executable", "fills", "program", "seconds", "sizes")

    def __init__(self, graph: Graph, strides: Sequence[Strides], name: str, fills: Sequence[Fill] = ()) -> None:
        started = time.perf_counter()
        self.fills = tuple(fills)
        self.program: Program = dispatch.build(graph, strides, name=name)
        self.executable = dispatch.load(self.program)
        self.sizes = tuple(slot.name for slot in self.program.slots if slot.kind == "size")
        self.seconds = time.perf_counter() - started


class Compiled:
    """Code with the numbers for which it is run: sizes, and values of fills."""

    __slots__ = (
        "_aliases", "_allocators", "_fills", "_numbers", "_only", "_sizes", "code", "executable", "layouts", "program",
        "target",
    )  # fmt: skip

    def __init__(self, code: Code, numbers: Mapping[str, Any] | None = None) -> None:
        self._numbers = numbers = {} if numbers is None else dict(numbers)
        self.code = code
        self.program = code.program
        self.executable = code.executable
        aliased = {o for o, _ in self.program.aliases}
        types = [t.at(numbers) for t in self.program.output_types]
        self.layouts = [None if k in aliased else layout_of(t.dtype, t.static_shape()) for k, t in enumerate(types)]
        self._allocators = [None if layout is None else Buffer.allocator(layout.nbytes) for layout in self.layouts]
        self._aliases = self.program.aliases
        self.target = self.program.target
        self._sizes = [numbers[name] for name in code.sizes]
        self._fills = [_holding(numbers[name], t.at(numbers)) for name, t in code.fills]

        # The allocator of the only output, where the pointers to the inputs and to it are all that the program takes.
        single = len(self._allocators) == 1 and not (self._aliases or self._sizes or self._fills)
        self._only = self._allocators[0] if single else None

    def concrete(self, graph: Graph) -> Graph:
        """The graph that this is the program of, for these numbers."""
        return instance(graph, self._numbers) if self._numbers else graph

    def run(
        self, inputs: Sequence[TensorBase], execute: Callable[[Executable, Sequence[int]], None] = dispatch.execute
    ) -> list[Any]:
        """Run on input tensors of the compiled layouts; the buffers of the outputs (None where aliased)."""
        if self._only is not None:
            buffer = self._only()
            execute(self.executable, [*[t._ptr for t in inputs], buffer.ptr])
            return [buffer]
        buffers = [None if allocate is None else allocate() for allocate in self._allocators]
        values = [t._ptr for t in inputs]
        if self._fills:
            values += [t._ptr for t in self._fills]
        count = len(values)
        values += [0 if b is None else b.ptr for b in buffers]
        for o, i in self._aliases:
            values[count + o] = values[i]
        values += self._sizes
        execute(self.executable, values)
        return buffers


def _holding(value: Any, t: TensorType) -> Any:
    """A tensor of type `t` that holds a number, or literal data."""
    if isinstance(value, Constant):
        return dispatch.host_array(value.data, layout_of(t.dtype, t.static_shape()))
    return dispatch.constant((), t.dtype, value)
