"""Which launches become one: those of one form that do not need each other, and that may as well run earlier.

The steps are gone through in order. A step joins an earlier one of its form if nothing from there on has to come before
it: what it reads is not written there, what it writes is neither read nor written there, and nothing that can fail
stands there if it overwrites an input. This is decided before values get their memory, so the arena's is in nobody's
way: what pieces read and write counts as needed at one time, and gets places of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda.pieces import Form
from kiln.codegen.layout import Layout, is_in_place
from kiln.codegen.plan import Step
from kiln.ir.graph import Alias, Graph, Value
from kiln.ir.types import product

FEW_BYTES: Final = 1 << 18
"""Results of a step in the arena up to which it may run earlier than in its turn, so that memory stays what it was."""


@dataclass(slots=True)
class Together(Step):
    """Steps that are one launch; the rest tells of the first of them, but for the arguments, which are those of all."""

    pieces: tuple[Step, ...] = ()

    def extra(self) -> Sequence[Value]:
        return [r for step in self.pieces[1:] for r in step.operation.results]

    def reads(self) -> set[Value]:
        return set[Value]().union(*(step.reads() for step in self.pieces))


def gathered(
    steps: Sequence[Step],
    graph: Graph,
    aliases: Sequence[Alias],
    layouts: Mapping[Value, Layout | None],
    form: Callable[[Step], Form | None],
) -> list[Step]:
    """The steps of a graph, some of them together. `aliases`: outputs that are written to the memory of inputs; `form`:
    of what can be a piece."""
    written = {step.operation.result: layouts[step.operation.result] for step in steps if is_in_place(step.operation)}
    same = {v: layout.root for v, layout in written.items() if layout is not None}
    order = _Order({**same, **{graph.outputs[a.output]: graph.inputs[a.input] for a in aliases}})
    outputs = set(graph.outputs)
    latest: dict[Form, int] = {}
    for step in steps:
        known = form(step)
        before = None if known is None or not _light(step, outputs) else latest.get(known)
        at = order.add(step, before)
        if known is not None:
            latest[known] = at
    return [_one(entry) for entry in order.entries]


def _light(step: Step, outputs: Collection[Value]) -> bool:
    """Whether little of the arena is taken for longer if a step runs earlier."""
    total = 0
    for v in step.operation.results:
        nbytes = 0 if v in outputs else product((v.type.dtype.itemsize, *v.type.shape))
        if not isinstance(nbytes, int):
            return False
        total += nbytes
    return total <= FEW_BYTES


def _one(steps: Sequence[Step]) -> Step:
    first = steps[0]
    if len(steps) == 1:
        return first
    args = tuple(a for step in steps for a in step.args)
    return Together(first.operation, first.symbol, first.modules, args, first.lowered, pieces=tuple(steps))


class _Order:
    """The new order while it is being made. `same`: what names the memory of a value that has another's."""

    def __init__(self, same: dict[Value, Value]) -> None:
        self.entries: list[list[Step]] = []
        self._same = same
        self._written: dict[Value, int] = {}  # by the last entry that did so, each
        self._read: dict[Value, int] = {}
        self._failing = -1

    def add(self, step: Step, before: int | None) -> int:
        """The step comes to entry `before`, if it may, or to a new one; which one it was."""
        made = (*step.operation.results, *step.extra())
        reads, writes = ([self._same.get(v, v) for v in some] for some in (step.reads(), made))
        after = [self._written.get(v, -1) for v in (*reads, *writes)] + [self._read.get(v, -1) for v in writes]
        if any(v in self._same for v in made):
            after.append(self._failing)
        at = before
        if at is None or at <= max(after, default=-1):
            at = len(self.entries)
            self.entries.append([])
        self.entries[at].append(step)
        for v in reads:
            self._read[v] = max(at, self._read.get(v, -1))
        for v in writes:
            self._written[v] = max(at, self._written.get(v, -1))
        if step.may_refuse:
            self._failing = at
        return at
