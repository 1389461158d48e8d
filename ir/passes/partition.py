"""What a forward program hands to its backward program, and what backward computes anew.

The joint graph of `autodiff` falls into an *early* part, which needs no gradients (all of the captured graph, and what
derivative rules compute from its values alone), and a *late* part. Early values that late operations read are *stored*
by the forward program, or computed from stored ones by the backward program, with the same ops and so to the same bits.
Which, `ir/passes/mincut.py` chooses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops.base import Control, Dense, OpDef
from kiln.ir.passes.autodiff import Joint
from kiln.ir.passes.cse import structural_key


@dataclass(frozen=True)
class AtHand:
    """Memory of the user's that may be read later, as a program's own: eager's tape saves it too, so that a write to
    it in between is an error. By position.

    `direct`: inputs for what derivative rules read themselves; `inputs`, `outputs`: of the captured graph, also to
    compute other values from. None of the inputs is written by the graph."""

    direct: frozenset[int] = frozenset()
    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


class Early:
    """The early part of a joint graph. Equal values have equal numbers, also in another joint graph of the same
    captured graph if its numbering continues this one's."""

    def __init__(self, joint: Joint, numbering: dict[object, int]) -> None:
        self.joint = joint
        self.numbers: dict[Value, int] = {}
        self.first: dict[int, Value] = {}
        """The first value with a number; its operation is the one that stands for all of them."""
        self.operations: list[Operation] = []
        self.late: list[Operation] = []
        count = len(joint.source.inputs)
        for k, v in enumerate(joint.graph.inputs[:count]):
            self._enter(v, numbering.setdefault(("input", k), len(numbering)))
        for op in joint.graph.operations:
            if any(v not in self.numbers for v in op.operands):
                self.late.append(op)
                continue
            key = (op.op.name, *(self.numbers[v] for v in op.operands), *_attributes(op))
            new = [self._enter(r, numbering.setdefault((k, *key), len(numbering))) for k, r in enumerate(op.results)]
            if any(new):
                self.operations.append(op)
        self.ahead = set(joint.graph.operations[: joint.ahead])
        read = [v for op in self.late for v in op.operands] + list(joint.graph.outputs)
        self.reads = list(dict.fromkeys(self.canonical(v) for v in read if v in self.numbers))
        """Early values that are needed late."""

    def _enter(self, v: Value, number: int) -> bool:
        self.numbers[v] = number
        return self.first.setdefault(number, v) is v

    def canonical(self, v: Value) -> Value:
        """The value that stands for all that are equal to `v`."""
        return self.first[self.numbers[v]]

    def kept(self, at_hand: AtHand) -> dict[int, Value]:
        """The outputs of the captured graph that are at hand, by position."""
        twins = self.joint.twins()
        return {k: self.canonical(twins[self.joint.source.outputs[k]]) for k in sorted(at_hand.outputs)}

    def position(self, v: Value) -> int | None:
        """Which input of the captured graph a value is."""
        return v.index if v.producer is None else None


def _attributes(op: Operation) -> list[object]:
    return [(k, structural_key(v)) for k, v in op.attrs.items()]


def nbytes(v: Value) -> int:
    """The bytes that a value takes; likely ones, where sizes are symbolic."""
    return v.type.likely_numel() * v.type.dtype.itemsize


def is_free(op: Operation) -> bool:
    """Views and literals: made anew wherever they are needed."""
    return isinstance(op.op, OpDef) and (op.op.view is not None or "constant" in op.op.traits)


def is_flow(op: Operation) -> bool:
    """Branches and loops: opaque, and never repeated."""
    return isinstance(op.op, OpDef) and isinstance(op.op.lower, Control)


_NEVER: Final = frozenset({"check", "random"})


def can_repeat(op: Operation) -> bool:
    """Whether an operation may be done twice: pointwise ones and movements, which become part of the kernels that read
    them. What can fail, draws random numbers, reduces, or has a kernel of its own is done once."""
    if not isinstance(op.op, OpDef) or not isinstance(op.op.lower, Dense) or op.op.traits & _NEVER:
        return False
    return op.op.lower.pointwise or "foldable" in op.op.traits


@dataclass(frozen=True)
class Differentiated:
    """`forward`: of the captured graph, whose outputs come first, then what else is stored. `backward`: of `operands`
    ((True, an input of forward) or (False, an output of it)), the output gradients that are given, and the running
    gradients that are given, in this order; its outputs are the gradients of the wanted inputs that have one: `found`
    says for each wanted input which output that is, or None."""

    forward: Graph
    backward: Graph
    operands: tuple[tuple[bool, int], ...]
    found: tuple[int | None, ...]
    stored: Mapping[int, int]
    """The output of forward that has the value of a number."""
    numbering: dict[object, int]
    at_hand: AtHand
    count: int
    """How many of forward's outputs, at the end, are there for backward alone."""
    plain_bytes: int
    """Their bytes, were every early value that a derivative rule reads stored."""
    preserved: Mapping[int, int]
    """For inputs that forward overwrites, and whose content is asked for: the output that is a copy of it."""
    repeated: tuple[str, ...]
    """The ops of forward that backward does again, with how often."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of what is stored for backward alone."""
        return sum(map(nbytes, self.forward.outputs[len(self.forward.outputs) - self.count :]))

    def __str__(self) -> str:
        first = len(self.forward.outputs) - self.count
        types = ", ".join(str(v.type) for v in self.forward.outputs[first:])
        return (
            f"stored for backward: {self.stored_bytes} bytes ({types or 'nothing'})\n"
            f"without recomputation: {self.plain_bytes} bytes\n"
            f"computed again in backward: {', '.join(self.repeated) or 'nothing'}"
        )


def split(
    early: Early, numbering: dict[object, int], chosen: Sequence[int], at_hand: AtHand, preserve: Sequence[int] = ()
) -> Differentiated:
    """Cut a joint graph in two; `chosen` are the numbers of the values to store. Forward's copies of the inputs
    `preserve` are further outputs."""
    source = early.joint.source
    builder, mapped = rebuild(source)
    made = dict(zip(early.joint.graph.inputs, mapped.values(), strict=False))
    for op, twin in zip(source.operations, early.joint.graph.operations, strict=False):
        results = builder.clone(op, [mapped[v] for v in op.operands])
        mapped.update(zip(op.results, results, strict=True))
        made.update(zip(twin.results, results, strict=True))

    def get(v: Value) -> Value:
        v = early.canonical(v)
        if v not in made:
            op = v.producer
            assert op is not None
            made.update(zip(op.results, builder.clone(op, [get(x) for x in op.operands]), strict=True))
        return made[v]

    outputs = [mapped[v] for v in source.outputs]
    stored = {early.numbers[v]: k for k, v in early.kept(at_hand).items()}
    preserved = {k: len(outputs) + n for n, k in enumerate(preserve)}
    outputs += [mapped[source.inputs[k]] for k in preserve]
    for number in chosen:
        stored[number] = len(outputs)
        outputs.append(get(early.first[number]))
    forward = builder.build(outputs, source.aliases)
    backward, operands, repeated = _backward(early, stored, at_hand)
    return Differentiated(
        forward,
        backward,
        operands,
        early.joint.found,
        stored,
        numbering,
        at_hand,
        len(chosen),
        _plain_bytes(early, at_hand),
        preserved,
        repeated,
    )


def another(joint: Joint, usual: Differentiated) -> Differentiated:
    """The backward program for other gradients, from what the usual forward program stores. Fewer gradients need no
    more than all of them."""
    early = Early(joint, usual.numbering)
    backward, operands, repeated = _backward(early, usual.stored, usual.at_hand)
    return replace(usual, backward=backward, operands=operands, found=joint.found, repeated=repeated)


def _backward(
    early: Early, stored: Mapping[int, int], at_hand: AtHand
) -> tuple[Graph, tuple[tuple[bool, int], ...], tuple[str, ...]]:
    """The late part with what it needs of the early one: the graph, where its operands come from, what it repeats."""
    joint = early.joint
    needed = _needed(early, stored)
    back = GraphBuilder(f"{joint.source.name}_backward")
    inside: dict[Value, Value] = {}
    operands: list[tuple[bool, int]] = []
    for v in needed:
        k = early.position(v)
        output = stored.get(early.numbers[v])
        assert output is not None or k in at_hand.direct, "a value that backward needs was not stored"
        operands.append((True, k) if output is None and k is not None else (False, output or 0))
        inside[v] = back.input(v.type, "saved")
    for g in joint.graph.inputs[len(joint.source.inputs) :]:
        inside[g] = back.input(g.type, g.hint)
    repeated: Counter[str] = Counter()

    def get(v: Value) -> Value:
        v = early.canonical(v) if v in early.numbers else v
        if v not in inside:
            op = v.producer
            assert op is not None and op not in late
            if op in early.ahead and not is_free(op):
                repeated[op.op.name] += 1
            inside.update(zip(op.results, back.clone(op, [get(x) for x in op.operands]), strict=True))
        return inside[v]

    late = set(early.late)
    for op in early.late:
        inside.update(zip(op.results, back.clone(op, [get(v) for v in op.operands]), strict=True))
    backward = back.build([get(v) for v in joint.graph.outputs])
    return backward, tuple(operands), tuple(f"{n} {name}" for name, n in sorted(repeated.items()))


def _needed(early: Early, stored: Container[int]) -> list[Value]:
    """The stored values and inputs from which the values that are needed late are made."""
    todo = early.reads[::-1]
    seen: set[Value] = set()
    found: list[Value] = []
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        if early.numbers[v] in stored or v.producer is None:
            found.append(v)
        else:
            todo += [early.canonical(x) for x in reversed(v.producer.operands)]
    return found


def _plain_bytes(early: Early, at_hand: AtHand) -> int:
    """Bytes to store when nothing but views and literals is repeated, and nothing computed ahead."""
    todo, seen, total = list(early.reads), set(early.kept(at_hand).values()), 0
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        op = v.producer
        if op is None:
            total += 0 if early.position(v) in at_hand.direct else nbytes(v)
        elif is_free(op) or op not in early.ahead:
            todo += [early.canonical(x) for x in op.operands]
        else:
            total += nbytes(v)
    return total
