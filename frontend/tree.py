"""The ways that calls of one compiled function can go: a tree of decisions on tensor data, with regions at its ends.

Where a captured function asked about data, a *decision* holds a small program that computes what was asked, and the
answers that are known, each with what comes after it. A warm call goes down the tree, computing and comparing answers,
until it comes to a region, which does the rest. Nothing is written before that, so a call that meets an answer nobody
knows simply runs the function for real, and its capture becomes a new way.

What decisions compute on the way is handed on to later decisions and to the region, where that has no gradients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from kiln import dispatch
from kiln.base import TensorBase
from kiln.capture import Capture
from kiln.compiled import Code, Compiled
from kiln.dynamic import Family
from kiln.errors import CaptureError
from kiln.inputs import Inputs, device_of, strides_of
from kiln.ir.graph import Constant, Graph, Operation, Value
from kiln.ir.passes.cut import needed, part
from kiln.ir.types import Device
from kiln.location import source_line
from kiln.region import Region
from kiln.runtime.targets import host_target
from kiln.traced import Query

MAX_DECISIONS: Final = 256
"""Decisions in one tree. A function that needs more is better off eager, and is told so."""
MAX_ANSWERS: Final = 32
"""Answers known to one decision."""
_MAX_ALTERNATIVES: Final = 4

Place: TypeAlias = "tuple[int, int]"
"""A value of a capture: the number of its operation, and which result of that."""


class Eager:
    """The end of a way that could not be captured to its end."""

    plan = None

    def __init__(self, capture: Capture, arguments: Sequence[TensorBase]) -> None:
        self.graph = capture.builder.build(())
        self.inputs = Inputs(capture, {id(t): k for k, t in enumerate(arguments)})
        self.strides = strides_of(capture, device_of([t for _, t in capture.inputs]))


Position: TypeAlias = "list[Decision | Region | Eager]"
"""What may come next. More than one where it depends on things that are not among the guards (which gradients are
there): the first that fits the call is taken."""


Found: TypeAlias = "tuple[Region, list[Any], list[Any], bool, Sequence[Any]]"
"""Where a call ends: its region, the inputs and what is carried to it, whether decisions led there, and what it is
given."""


class Decision:
    """A question about data, and where its answers lead."""

    def __init__(
        self, query: Query, mark: bytes, inputs: Inputs, source: int | Place | Graph, family: Family | None
    ) -> None:
        self.mark = mark
        """Names what was recorded before the question."""
        self.query = query
        self.inputs = inputs
        self.source = source
        """What holds the data: an input, a value that an earlier decision exports, or the first output of a graph."""
        self.answers: dict[Hashable, Position] = {}
        self.strides: list[Any] = []
        self.operands: list[Place] = []
        self.exports: list[Place] = []
        """What the graph is given besides the first inputs, and what its outputs are."""
        self._family = family
        self._program: Compiled | None = None

    def answer(self, arguments: Sequence[Any], known: dict[Place, Any]) -> Hashable | None:
        """What the data says now, in a tuple, with the exports entered into `known`; None when inputs are not there."""
        inputs = self.inputs.first(self.query.inputs, arguments)
        if inputs is None:
            return None
        if isinstance(self.source, int):
            about = inputs[self.source]
        else:
            if isinstance(self.source, Graph):
                operands = [*inputs, *[known[place] for place in self.operands]]
                program = self.program(self.source, device_of(operands))
                buffers = program.run(operands, dispatch.execute_region)
                made = [
                    dispatch.tensor_on(b, b.ptr, layout)
                    for b, layout in zip(buffers, program.layouts, strict=True)
                    if b is not None and layout is not None
                ]
                known.update(zip(self.exports, made, strict=True))
            about = known[self.exports[0] if isinstance(self.source, Graph) else self.source]
        return (self.query.fold(about._array()),)

    def program(self, graph: Graph, device: Device) -> Compiled:
        """The program for the current target, compiled on first use."""
        if self._program is None or self._program.target is not host_target():
            shared = None if self._family is None else self._family.plain(graph, self.strides, device)
            if shared is None:
                self._program = Compiled(Code(graph, self.strides, graph.name, device=device))
            else:
                self._program = Compiled(shared.form.forward((), graph.name), shared.numbers)
        return self._program


class Tree:
    """All ways of one entry of a compiled function, from its beginning."""

    def __init__(self, family: Family | None = None) -> None:
        self.root: Position = []
        self._family = family
        self.decisions = 0

    # ------------------------------------------------------------------------------------------ warm

    def find(self, arguments: Sequence[Any]) -> Found | Eager | None:
        """Where a call with these tensor arguments ends; None when it goes a way that is not known."""
        root = self.root
        if len(root) == 1 and root[0].__class__ is Region:
            inputs = root[0].inputs.gather(arguments)
            return None if inputs is None else (root[0], inputs, [], False, arguments)
        return self._find(root, arguments, {}, False)

    def _find(
        self, position: Position, arguments: Sequence[Any], known: dict[Place, Any], decided: bool
    ) -> Found | Eager | None:
        while len(position) == 1 and isinstance(position[0], Decision):
            answer = position[0].answer(arguments, known)
            position, decided = position[0].answers.get(answer, []), True
        for each in position:
            if isinstance(each, Region):
                inputs = each.inputs.gather(arguments)
                if inputs is not None:
                    return each, inputs, [known[place] for place in each.places], decided, arguments
            elif isinstance(each, Eager):
                return each
            else:
                values = dict(known)
                answer = each.answer(arguments, values)
                found = self._find(each.answers.get(answer, []), arguments, values, True)
                if found is not None:
                    return found
        return None

    def regions(self) -> Iterator[Region]:
        """All regions, oldest first on each way."""
        todo = [self.root]
        while todo:
            for each in todo.pop(0):
                if isinstance(each, Region):
                    yield each
                elif isinstance(each, Decision):
                    todo += each.answers.values()

    def __str__(self) -> str:
        return "\n".join(_lines(self.root))

    # ---------------------------------------------------------------------------------------- growth

    def grow(self, queries: Sequence[Query], end: Region | Eager) -> None:
        """Enter a way: the questions that a capture was asked, and its end. CaptureError when there are too many."""
        way = _Way(queries, end, self._family)
        position = self.root
        for k, query in enumerate(queries):
            mark = way.mark(query)
            decision = next((d for d in position if isinstance(d, Decision) and d.mark == mark), None)
            if decision is None:
                if self.decisions >= MAX_DECISIONS:
                    raise _too_many(query, f"more than {MAX_DECISIONS} decisions on tensor data")
                decision = way.decision(k, mark)
                _enter(position, decision)
                self.decisions += 1
            way.pass_by(decision)
            answer = (query.answer,)
            if answer not in decision.answers and len(decision.answers) >= MAX_ANSWERS:
                raise _too_many(query, f"more than {MAX_ANSWERS} different answers")
            position = decision.answers.setdefault(answer, [])
        if isinstance(end, Region) and end.plan is None:
            end.carried, end.places = list(way.known), list(way.known.values())
        _enter(position, end)


def _enter(position: Position, each: Decision | Region | Eager) -> None:
    position.insert(0, each)
    del position[_MAX_ALTERNATIVES:]


def _lines(position: Position, indent: str = "") -> Iterator[str]:
    """What comes next, as text: questions with their answers, and the graphs at the ends."""
    for each in position:
        if isinstance(each, Region):
            yield from (indent + line for line in str(each.graph).splitlines())
        elif isinstance(each, Eager):
            yield f"{indent}Python"
        else:
            loc = each.query.loc
            yield f"{indent}{each.query.what}" + (f" of {source_line(loc)}  # line {loc.line}" if loc else "")
            for answer, after in each.answers.items():
                known = answer[0] if isinstance(answer, tuple) else answer
                yield f"{indent}is {known if isinstance(known, (bool, int, str, type(None))) else 'this'}:"
                yield from _lines(after, indent + "    ")


def _too_many(query: Query, what: str) -> CaptureError:
    return CaptureError(
        f"{query.what} led to {what}, each with compiled code of its own",
        fix="compute with tensors (kiln.where instead of if), or move this line out of the compiled function",
        loc=query.loc,
    )


class _Way:
    """One capture as a way through the tree: which of its values are known where."""

    def __init__(self, queries: Sequence[Query], end: Region | Eager, family: Family | None) -> None:
        self.family = family
        self.graph = end.graph
        self.queries = queries
        self.end = end
        self.known: dict[Value, Place] = {}
        """Values that decisions up to here export."""
        self._places: dict[Value, int | Place] = {v: n for n, v in enumerate(self.graph.inputs)}
        for n, op in enumerate(self.graph.operations):
            self._places.update((v, (n, k)) for k, v in enumerate(op.results))
        self._digest = hashlib.sha256()
        self._digested = 0

    def mark(self, query: Query) -> bytes:
        """A digest of a question and of all that was recorded before it. Call in the order of the questions."""
        for op in self.graph.operations[self._digested : query.operations]:
            self._digest.update(f"{op.op.name}{[self._places[v] for v in op.operands]}{_told(op.attrs)};".encode())
        self._digested = query.operations
        self._digest.update(f"?{self._places[query.value]}{query.what}{query.inputs};".encode())
        return self._digest.digest()

    def decision(self, number: int, mark: bytes) -> Decision:
        """The decision for a question, from what is known before it."""
        query = self.queries[number]
        at_hand = self.known.get(query.value, self._places[query.value])
        if isinstance(at_hand, int) or query.value in self.known:
            return Decision(query, mark, self.end.inputs, at_hand, self.family)
        inputs = self.graph.inputs[: query.inputs]
        operations = needed(self.graph.operations, [query.value], {*inputs, *self.known})
        read = {v for op in operations for v in op.operands}
        operands = [v for v in self.known if v in read]
        outputs = [query.value, *[v for v in self._wanted(number + 1, operations) if v is not query.value]]
        graph = part(f"{self.graph.name}_question", inputs, operations, operands, outputs)
        decision = Decision(query, mark, self.end.inputs, graph, self.family)
        decision.strides = [*self.end.strides[: query.inputs], *[None] * len(operands)]
        decision.operands = [self.known[v] for v in operands]
        decision.exports = [place for v in outputs if not isinstance(place := self._places[v], int)]
        return decision

    def _wanted(self, number: int, operations: Sequence[Operation]) -> list[Value]:
        """Results of `operations` that questions from `number` on read, or the region, if it has no gradients: those
        begin at the inputs."""
        made = [v for op in operations for v in op.results]
        later = [q.value for q in self.queries[number:]]
        if self.end.plan is None:
            later += self.graph.outputs
        reading = needed(self.graph.operations, later, {*self.graph.inputs, *self.known, *made})
        wanted = {v for op in reading for v in op.operands}.union(later)
        return [v for v in made if v in wanted]

    def pass_by(self, decision: Decision) -> None:
        """A decision on the way: what it exports is known from here on."""
        for n, k in decision.exports:
            self.known[self.graph.operations[n].results[k]] = (n, k)


def _told(attrs: Mapping[str, Any]) -> str:
    return repr([(k, _content(v)) for k, v in sorted(attrs.items())])


def _content(x: Any) -> Any:
    """What tells an attribute from others: of constants and graphs, what is in them."""
    if isinstance(x, Constant):
        return x.digest()
    if not isinstance(x, Graph):
        return x
    places: dict[Value, Any] = {v: n for n, v in enumerate(x.inputs)}
    told: list[Any] = [str(v.type) for v in x.inputs]
    for n, op in enumerate(x.operations):
        told.append((op.op.name, [places[v] for v in op.operands], _told(op.attrs)))
        places.update((v, (n, k)) for k, v in enumerate(op.results))
    return told, [places[v] for v in x.outputs]
