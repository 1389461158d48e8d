"""The SSA program: values, operations, frozen graphs and the builder that makes them.

A `Graph` is never changed; a pass rebuilds it through a `GraphBuilder`, or returns its argument. Values and
operations compare by identity. Structured control flow and fusion are operations whose attributes are graphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeAlias

import numpy as np

from kiln.ir.types import DType, Sym, TensorType

AttrValue: TypeAlias = (
    "int | float | complex | bool | str | Sym | DType | Graph | Constant | tuple[AttrValue, ...] | None"
)
Attrs: TypeAlias = Mapping[str, AttrValue]


class VerifyError(Exception):
    """A graph breaks a rule of the IR: always kiln's own fault, never the user's."""


class OpLike(Protocol):
    """What a graph needs to know of an op's declaration (`ir.ops.base.OpDef` is the real one)."""

    @property
    def name(self) -> str: ...

    def infer_types(self, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]: ...


@dataclass(frozen=True, slots=True)
class SourceLoc:
    """The user's line that an operation came from."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Constant:
    """A handle on literal data. Compared by identity; the contents are hashed only on `digest`."""

    __slots__ = ("_digest", "data")

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        self.data = np.ascontiguousarray(data).reshape(data.shape)
        self.data.flags.writeable = False
        self._digest: str | None = None

    def digest(self) -> str:
        """SHA-256 of dtype, shape and bytes."""
        if self._digest is None:
            h = hashlib.sha256(f"{self.data.dtype.str}{self.data.shape}".encode())
            h.update(self.data.tobytes())
            self._digest = h.hexdigest()
        return self._digest


class Value:
    """A typed SSA name: a graph input (`producer` None) or the result `index` of an operation."""

    __slots__ = ("builder", "hint", "index", "producer", "type")

    def __init__(self, type: TensorType, producer: Operation | None, index: int, hint: str = "") -> None:
        self.type = type
        self.producer = producer
        self.index = index
        self.hint = hint
        self.builder: GraphBuilder | None = None

    @property
    def ttype(self) -> TensorType:
        """The operand protocol's name for `type` (tensors answer to it too)."""
        return self.type

    def __kiln_bind__(self, op: OpLike, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        """Append `op` to the builder that owns this value (the operand protocol of `ir.ops.base`)."""
        if self.builder is None:
            raise VerifyError(f"{op.name}: operand belongs to a finished graph")
        return self.builder.add(op, operands, attrs)

    def __repr__(self) -> str:
        return f"<Value {self.hint or hex(id(self))}: {self.type}>"


class Operation:
    """One application of an op: operands, attributes (sorted by name), results, the user's line."""

    __slots__ = ("attrs", "loc", "op", "operands", "results")

    def __init__(
        self,
        op: OpLike,
        operands: tuple[Value, ...],
        attrs: dict[str, AttrValue],
        types: Iterable[TensorType],
        loc: SourceLoc | None,
    ) -> None:
        self.op = op
        self.operands = operands
        self.attrs: dict[str, AttrValue] = dict(sorted(attrs.items()))
        self.results = tuple(Value(t, self, i) for i, t in enumerate(types))
        self.loc = loc

    @property
    def result(self) -> Value:
        """The only result of a single-result operation."""
        (value,) = self.results
        return value

    def graphs(self) -> Iterator[Graph]:
        """The graphs that the operation holds."""
        return (value for value in self.attrs.values() if isinstance(value, Graph))

    def __repr__(self) -> str:
        return f"<{self.op.name} -> {', '.join(str(r.type) for r in self.results)}>"


@dataclass(frozen=True, slots=True)
class Alias:
    """Declares that output number `output` is the new content of input number `input` (updated in place)."""

    output: int
    input: int


class Graph:
    """A frozen SSA program: inputs, operations in topological order, outputs, declared aliases."""

    __slots__ = ("aliases", "inputs", "name", "operations", "outputs")

    def __init__(
        self,
        name: str,
        inputs: tuple[Value, ...],
        operations: tuple[Operation, ...],
        outputs: tuple[Value, ...],
        aliases: tuple[Alias, ...] = (),
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.operations = operations
        self.outputs = outputs
        self.aliases = aliases

    def values(self) -> Iterator[Value]:
        """Every value in definition order."""
        yield from self.inputs
        for op in self.operations:
            yield from op.results

    def uses(self) -> dict[Value, list[tuple[Operation, int]]]:
        """For each value its uses as (operation, operand position), in program order. Outputs are not uses."""
        table: dict[Value, list[tuple[Operation, int]]] = {v: [] for v in self.values()}
        for op in self.operations:
            for i, v in enumerate(op.operands):
                table[v].append((op, i))
        return table

    def verify(self) -> Graph:
        """Check definition before use, ownership, inferred types and aliases; returns self. VerifyError."""
        known: set[Value] = set()
        for v in self.inputs:
            if v.producer is not None or v in known:
                raise VerifyError(f"graph {self.name}: bad or repeated input {v!r}")
            known.add(v)
        for op in self.operations:
            for v in op.operands:
                if v not in known:
                    raise VerifyError(f"graph {self.name}: {op.op.name} uses {v!r} before its definition")
            parts = (x for a in op.attrs.values() for x in (a if isinstance(a, tuple) else (a,)))
            sizes = (d for v in (*op.operands, *op.results) for d in v.type.shape)
            symbolic = any(isinstance(x, Sym) for x in chain(parts, sizes))
            # How numbers that are not known yet follow from each other is known to those who made the graph.
            inferred = None if symbolic else op.op.infer_types([v.type for v in op.operands], op.attrs)
            if inferred is not None and inferred != tuple(r.type for r in op.results):
                raise VerifyError(f"graph {self.name}: {op.op.name} has types {op.results}, rule says {inferred}")
            for inner in op.graphs():
                inner.verify()
            for i, r in enumerate(op.results):
                if r.producer is not op or r.index != i or r in known:
                    raise VerifyError(f"graph {self.name}: result {i} of {op.op.name} is not its own")
                known.add(r)
        for v in self.outputs:
            if v not in known:
                raise VerifyError(f"graph {self.name}: output {v!r} is not defined")
        self._verify_aliases()
        return self

    def _verify_aliases(self) -> None:
        for a in self.aliases:
            if not (0 <= a.output < len(self.outputs) and 0 <= a.input < len(self.inputs)):
                raise VerifyError(f"graph {self.name}: {a} is out of range")
            if self.outputs[a.output].type != self.inputs[a.input].type:
                raise VerifyError(f"graph {self.name}: {a} joins different types")
        for side in ([a.output for a in self.aliases], [a.input for a in self.aliases]):
            if len(set(side)) != len(side):
                raise VerifyError(f"graph {self.name}: a value is aliased twice")

    def __str__(self) -> str:
        from kiln.ir.printer import print_graph

        return print_graph(self)


class GraphBuilder:
    """The only mutable thing: collects operations, then `build` freezes them."""

    def __init__(self, name: str = "main", locate: Callable[[], SourceLoc | None] | None = None) -> None:
        self.name = name
        self._inputs: list[Value] = []
        self._operations: list[Operation] = []
        self._locate = locate
        self.loc: SourceLoc | None = None
        """The line of operations that come without one, where nothing locates them."""

    @property
    def count(self) -> int:
        """How many operations there are so far."""
        return len(self._operations)

    def input(self, type: TensorType, hint: str = "") -> Value:
        """Declare the next graph input."""
        v = Value(type, None, len(self._inputs), hint)
        v.builder = self
        self._inputs.append(v)
        return v

    def add(
        self, op: OpLike, operands: Sequence[Value], attrs: Attrs, loc: SourceLoc | None = None
    ) -> tuple[Value, ...]:
        """Append `op` and return its results; result types come from the op's rule."""
        self._own(op, operands)
        types = op.infer_types([v.type for v in operands], attrs)
        if loc is None:
            loc = self.loc if self._locate is None else self._locate()
        return self.append(op, operands, attrs, types, loc)

    def append(
        self, op: OpLike, operands: Sequence[Value], attrs: Attrs, types: Iterable[TensorType], loc: SourceLoc | None
    ) -> tuple[Value, ...]:
        """As `add`, with result types that are known."""
        self._own(op, operands)
        operation = Operation(op, tuple(operands), dict(attrs), types, loc)
        for r in operation.results:
            r.builder = self
        self._operations.append(operation)
        return operation.results

    def _own(self, op: OpLike, operands: Sequence[Value]) -> None:
        for v in operands:
            if v.builder is not self:
                raise VerifyError(f"{op.name}: operand {v!r} belongs to another graph")

    def inputs(self) -> list[Value]:
        """What was declared so far."""
        return self._inputs

    def operations(self) -> list[Operation]:
        """What was appended so far."""
        return self._operations

    def clone(self, operation: Operation, operands: Sequence[Value]) -> tuple[Value, ...]:
        """Append a copy of another graph's operation over this graph's operands, keeping its line; and its types, where
        those of the operands are the same."""
        if any(a.type != b.type for a, b in zip(operands, operation.operands, strict=True)):
            return self.add(operation.op, operands, operation.attrs, operation.loc)
        types = [r.type for r in operation.results]
        return self.append(operation.op, operands, operation.attrs, types, operation.loc)

    def build(self, outputs: Sequence[Value], aliases: Sequence[Alias] = ()) -> Graph:
        """Freeze into a verified Graph; the builder must not be used afterwards."""
        graph = Graph(self.name, tuple(self._inputs), tuple(self._operations), tuple(outputs), tuple(aliases)).verify()
        for v in graph.values():
            v.builder = None
        return graph


def rebuild(graph: Graph) -> tuple[GraphBuilder, dict[Value, Value]]:
    """Start a pass: a builder with `graph`'s name and inputs, and the map from old inputs to new ones."""
    builder = GraphBuilder(graph.name)
    return builder, {v: builder.input(v.type, v.hint) for v in graph.inputs}
