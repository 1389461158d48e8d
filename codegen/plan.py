"""Which memory every value gets: inputs, outputs, constants, or a place in one arena.

A program is a list of steps in order. Values that are alive at the same time get different places in the arena
(`ir/arena.py`); where sizes are known at run time only, the runtime finds the places. An output that is the new content
of an input is written straight to that input's memory when nothing can go wrong afterwards (`in_place`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kiln.codegen.domain import same_index
from kiln.codegen.layout import Layout
from kiln.codegen.lower import Lowered
from kiln.codegen.writes import may_refuse
from kiln.ir.arena import Local, place
from kiln.ir.graph import Alias, Constant, Graph, Operation, Value
from kiln.ir.program import Module
from kiln.ir.types import Dim, DType, Sym, product


@dataclass(frozen=True, slots=True)
class Pointer:
    """An argument: the memory of `root`, `offset` elements of `element` (default: the root's dtype) in."""

    root: Value
    offset: int = 0
    element: DType | None = None

    @property
    def nbytes(self) -> int:
        """The offset in bytes."""
        return self.offset * (self.element or self.root.type.dtype).itemsize


def pointer(v: Value, layout: Layout | None) -> Pointer:
    """Where `v` lies, whose layout is given."""
    return Pointer(v) if layout is None else Pointer(layout.root, layout.offset, v.type.dtype)


Argument = Pointer | Dim


@dataclass(slots=True)
class Step:
    """One call: `symbol` of `module` (the last of `modules`), with pointers and sizes."""

    operation: Operation
    symbol: str
    modules: tuple[Module, ...]
    args: tuple[Argument, ...]
    lowered: Lowered | None = None  # of generated kernels
    site: int | None = None  # of a library's: what its refusal means, among the program's checks
    strides: tuple[tuple[int, ...], ...] = ()  # of a library's operands

    def parts(self) -> Sequence[tuple[str, Sequence[Step], Sequence[Value]]]:
        """What it holds: names, steps, and the values that are read when a part is done."""
        return ()

    def extra(self) -> Sequence[Value]:
        """Further memory that it needs while it runs."""
        return ()

    def reads(self) -> set[Value]:
        written = set(self.operation.results)
        return {a.root for a in self.args if isinstance(a, Pointer) and a.root not in written}

    @property
    def may_refuse(self) -> bool:
        """Whether it may fail on account of data."""
        return may_refuse(self.operation) if self.lowered is None else self.lowered.checks


@dataclass(slots=True)
class Plan:
    """Where everything is. `arena` maps values to byte offsets; `targets` maps values to (kind, index); `bound` maps
    inputs and outputs of nested graphs to values outside."""

    steps: list[Step]
    targets: dict[Value, tuple[str, int]] = field(default_factory=dict)
    arena: dict[Value, int] = field(default_factory=dict)
    arena_bytes: int = 0
    locals: list[Local] = field(default_factory=list)
    """Where sizes are symbolic: what the arena holds, each with a slot of its own."""
    constants: list[Constant] = field(default_factory=list)
    bound: dict[Value, Pointer] = field(default_factory=dict)
    pointers: int = 0  # how many loops move
    moving: dict[Operation, tuple[int, ...]] = field(default_factory=dict)
    """For each loop its moving pointers: to what is read (carried values, slices), then to what is written."""
    reused: list[tuple[int, int]] = field(default_factory=list)
    """(output, input): outputs that take over the memory of inputs which were donated."""

    def locate(self, a: Pointer) -> tuple[Value, int]:
        """The value that has the memory, and how many bytes in."""
        root, offset = a.root, a.nbytes
        while root in self.bound:
            a = self.bound[root]
            root, offset = a.root, offset + a.nbytes
        return root, offset

    def __str__(self) -> str:
        names: dict[Value, str] = {}
        for v, (kind, index) in self.targets.items():
            names[v] = f"{kind}{index}"
        for v, offset in self.arena.items():
            names[v] = f"arena+{offset}"
        lines = [f"arena {self.arena_bytes:,} bytes"]
        lines += [f"local{k}: {v.nbytes} bytes in steps {v.born} to {v.dies}" for k, v in enumerate(self.locals)]
        lines += [f"output{o} takes over the memory of input{i}" for o, i in self.reused]
        for k, step in enumerate(self.steps):
            lines += self._step(f"{k:3}", step, names)
        return "\n".join(lines)

    def _step(self, number: str, step: Step, names: dict[Value, str]) -> list[str]:
        args = ", ".join(self._argument(a, names) for a in step.args)
        lines = [f"{number} {step.symbol}({args})"]
        indent = " " * len(number)
        for part, steps, _ in step.parts():
            lines.append(f"{indent} {part}")
            for k, inner in enumerate(steps):
                lines += self._step(f"{indent} {k:3}", inner, names)
        return lines

    def _argument(self, a: Argument, names: dict[Value, str]) -> str:
        if not isinstance(a, Pointer):
            return str(a)
        if a.root in self.bound:
            root, offset = self.locate(a)
            return names.get(root, "?") + (f"[{offset} bytes:]" if offset else "")
        return names.get(a.root, "?") + (f"[{a.offset}:]" if a.offset else "")


def in_place(
    graph: Graph,
    alias: Alias,
    steps: Sequence[Step],
    layouts: dict[Value, Layout | None],
    strides: tuple[Dim, ...] | None,
) -> bool:
    """Whether the output of `alias` may be computed straight into its input's memory: no later step reads the
    old content, this step reads it only at the element being written, and no step from here on can
    fail on account of data."""
    v, source = graph.outputs[alias.output], graph.inputs[alias.input]
    at = next((k for k, s in enumerate(steps) if v in s.operation.results), None)
    if at is None or any(s.may_refuse for s in steps[at:]) or any(source in s.reads() for s in steps[at + 1 :]):
        return False
    if strides is not None and any(v in s.reads() for s in steps[at + 1 :]):
        return False  # later steps were written for a row-major value
    step = steps[at]
    if source not in step.reads():
        return True
    lowered = step.lowered
    if lowered is None:
        return False
    written = lowered.writes[step.operation.results.index(v)]
    for k, operand in enumerate(step.operation.operands):
        layout = layouts[operand]
        root = operand if layout is None else layout.root
        if root is not source:
            continue
        if operand.type.dtype is not source.type.dtype:  # parts of complex numbers, or they as pairs
            return False
        if layout is not None and (layout.offset != 0 or layout.strides != strides):
            return False
        if k not in lowered.reads:  # read in ways that are not told
            return False
        for index in lowered.reads[k]:
            if len(index) != len(written) or not all(same_index(a, b) for a, b in zip(index, written, strict=True)):
                return False
    return True


def take_over(
    graph: Graph,
    donated: Sequence[int],
    steps: Sequence[Step],
    layouts: dict[Value, Layout | None],
    strides: Sequence[tuple[Dim, ...] | None],
) -> list[Alias]:
    """Outputs that can be computed straight into the memory of inputs which nobody needs any more, each input taken
    once; none that would need a copy."""
    taken = {a.output for a in graph.aliases}
    written = {a.input for a in graph.aliases}
    found: list[Alias] = []
    for i in donated:
        if strides[i] is not None or i in written:
            continue
        kind = graph.inputs[i].type
        for o, v in enumerate(graph.outputs):
            if o not in taken and v.type == kind and in_place(graph, alias := Alias(o, i), steps, layouts, None):
                taken.add(o)
                found.append(alias)
                break
    return found


class _Lives:
    """When each value is needed first and last. What a step holds counts like steps of its own, before its end."""

    def __init__(self, wanted: set[Value]) -> None:
        self.wanted = wanted
        self.born: dict[Value, int] = {}
        self.dies: dict[Value, int] = {}
        self.now = 0

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            begin = self.now
            for v in (*step.operation.results, *step.extra()):
                if v in self.wanted:
                    self.born[v] = begin
            for _, inner, outputs in step.parts():
                self.run(inner)
                self.dies.update({v: self.now for v in outputs if v in self.wanted})
            for v in (*step.operation.results, *step.extra(), *step.reads()):
                if v in self.wanted:
                    self.dies[v] = self.now
            self.now += 1


def allocate(plan: Plan, values: Iterable[Value]) -> None:
    """Give each value a place in the arena for as long as some step needs it."""
    lives = _Lives(set(values))
    lives.run(plan.steps)
    born, dies = lives.born, lives.dies
    found = [Local(product((v.type.dtype.itemsize, *v.type.shape)), born[v], dies[v]) for v in born]
    if any(isinstance(each.nbytes, Sym) for each in found):
        plan.locals += found
        plan.targets.update((v, ("local", k)) for k, v in enumerate(born))
        return
    offsets, plan.arena_bytes = place(found, {})
    plan.arena.update(zip(born, offsets, strict=True))
