"""A capture without a run: ops are recorded and their results described, but nothing is computed.

For functions of kiln's own that look at types and shapes of tensors and at nothing else: what they do can then be
known before it is done. A question about data is refused as in every capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kiln import dispatch
from kiln.base import TensorBase, layout_of
from kiln.capture import Capture
from kiln.errors import from_type_error
from kiln.ir.graph import Alias, Attrs, AttrValue, Graph, GraphBuilder, Value
from kiln.ir.ops.base import OpDef, OpTypeError
from kiln.ir.types import Device, Dim, Sym, TensorType


class Sketch(Capture):
    """A capture whose tensors hold no data: the memory of results is theirs, but nothing was written to it. Its
    operations have no lines: what fails does so at the line of the call that runs them."""

    def __init__(self, name: str, arguments: Sequence[TensorBase]) -> None:
        super().__init__(name, arguments, {}, None)

    def execute(self, op: OpDef, operands: Sequence[Any], attrs: Attrs, receiver: Any) -> tuple[Any, ...]:
        """Results of the right types; views are views."""
        if op.view is not None or op.name == "transfer":
            return dispatch.run(op, operands, attrs)
        try:
            types = op.infer_types([t.ttype for t in operands], attrs)
        except OpTypeError as error:
            raise from_type_error(error, operands) from None
        device = receiver._layout.device
        return tuple([dispatch.empty(layout_of(t.dtype, t.static_shape(), None, device)) for t in types])

    def ask(self, tensor: TensorBase, what: str, fold: Callable[[Any], Any]) -> Any:
        """There is no data."""
        self.forbid(tensor, what)


def generalised(graph: Graph, dim: Callable[[int], Dim]) -> Graph:
    """`graph` with every size replaced by what `dim` makes of it, in types and in shapes among attributes. For graphs
    of elementwise ops and of ops without operands, for which it means the same at other sizes."""
    builder = GraphBuilder(graph.name)
    inputs = {v: builder.input(_sized(v.type, dim), v.hint) for v in graph.inputs}
    return builder.build(_again(graph, builder, inputs, dim), graph.aliases)


def _sized(t: TensorType, dim: Callable[[Any], Dim]) -> TensorType:
    return TensorType(t.dtype, tuple([dim(d) for d in t.shape]))


def _again(graph: Graph, builder: GraphBuilder, mapped: dict[Value, Value], dim: Callable[[Any], Dim]) -> list[Value]:
    """The results of a graph, whose operations are added to another one, with other sizes. `mapped`: its inputs."""
    for op in graph.operations:
        attrs: dict[str, AttrValue] = dict(op.attrs)
        if "shape" in attrs:
            attrs["shape"] = _sized(op.result.type, dim).shape
        mapped.update(zip(op.results, builder.add(op.op, [mapped[v] for v in op.operands], attrs, op.loc), strict=True))
    return [mapped[v] for v in graph.outputs]


def repeated(graph: Graph, own: int, times: int) -> Graph:
    """`graph` done `times` times, each time on first `own` inputs of their own, and all on the same others, which come
    last. What its sizes are called gets a number, in which names have the order of the times."""
    builder = GraphBuilder(graph.name)

    def numbered(k: int) -> Callable[[Dim], Dim]:
        return lambda d: Sym(f"{d.name}{k:04}") if isinstance(d, Sym) else d

    sizes = [numbered(k) for k in range(times)]
    inputs = [[builder.input(_sized(v.type, dim), v.hint) for v in graph.inputs[:own]] for dim in sizes]
    shared = [builder.input(v.type, v.hint) for v in graph.inputs[own:]]
    outputs, aliases = list[Value](), list[Alias]()
    for k, dim in enumerate(sizes):
        aliases += [Alias(a.output + len(outputs), a.input + k * own) for a in graph.aliases]
        outputs += _again(graph, builder, dict(zip(graph.inputs, [*inputs[k], *shared], strict=True)), dim)
    return builder.build(outputs, tuple(aliases))


def written(made: Sequence[TensorBase]) -> list[tuple[int, int]]:
    """Which of the tensors of a sketch it wrote to, and how often."""
    return [(k, t._buffer.version) for k, t in enumerate(made) if t._buffer.version]


class Update:
    """The program of a sketch that only wrote to its arguments (all are on one device): to run on others. It is made
    when it is first run. `bumps`: how often it wrote to which."""

    __slots__ = ("_many", "_program", "bumps", "device", "graph")

    def __init__(self, graph: Graph, bumps: Sequence[tuple[int, int]], device: Device) -> None:
        self._program: tuple[Any, tuple[int, ...]] | None = None
        self._many: dict[int, Update] = {}
        self.graph = graph
        self.bumps = tuple(bumps)
        self.device = device

    def many(self, own: int, times: int) -> Update:
        """`times` of it in one, for arguments of which the first `own` are each one's: theirs, one after the other, and
        then those of all. It must not write to these."""
        if times == 1:
            return self
        found = self._many.get(times)
        if found is None:
            bumps = [(k + own * n, count) for n in range(times) for k, count in self.bumps]
            found = self._many[times] = Update(repeated(self.graph, own, times), bumps, self.device)
        return found

    def run(self, tensors: Sequence[TensorBase], sizes: Sequence[int]) -> None:
        """Give `tensors` (contiguous, writable, apart in memory) their new contents; versions count every write."""
        executable, written = self._program or self._load()
        values = [t._ptr for t in tensors]
        executable.run([*values, *[values[k] for k in written], *sizes])
        for k, count in self.bumps:
            tensors[k]._buffer.version += count

    def _load(self) -> tuple[Any, tuple[int, ...]]:
        """What runs, and the arguments that it writes to."""
        program = dispatch.build(self.graph, [None] * len(self.graph.inputs), name=self.graph.name, device=self.device)
        written = tuple([i for _, i in sorted(program.aliases)])
        self._program = dispatch.load(program, self.device), written
        return self._program
