"""The tape entry of a warm call: one node that stands for all ops of a region.

Its backward is one program, which takes the running gradients of the region's inputs in and folds the region's uses
onto them, in eager's order. When derivatives of gradients are wanted, the node *expands*: the region's ops are applied
again, and leave the very nodes on the tape that the eager call would have left, with sequence numbers between those of
the ops before and after the call. So higher derivatives equal eager's bit for bit, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from kiln import dispatch, nans
from kiln.autograd import Edge, Node, attach_one, edge_of, enable_grad, no_grad
from kiln.autograd.hooks import hand_on
from kiln.base import LAYERED, MODES
from kiln.errors import GradError
from kiln.ir import interpreter
from kiln.ir.graph import Value
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.types import TensorType

if TYPE_CHECKING:
    from kiln.compiled import Compiled
    from kiln.region import Region
    from kiln.runtime.memory import Buffer


class Refusal(NamedTuple):
    """Why no gradient may pass."""

    message: str
    op: str
    fix: str

    def error(self) -> GradError:
        return GradError(self.message, op=self.op, fix=self.fix)


class Barrier(Node):
    """Where gradients would pass `edges` on eager's tape, but for what was done to what it had saved."""

    __slots__ = ("refusal",)

    def __init__(
        self, refusal: Refusal, edges: Sequence[Edge], results: Sequence[TensorType], sequence: int | Fraction
    ) -> None:
        super().__init__(edges, results)
        self.refusal = refusal
        self.sequence = sequence

    def name(self) -> str:
        return "CompiledBackward"

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        raise self.refusal.error()

    def release(self) -> None:
        """Nothing is saved."""


class RegionNode(Node):
    """See the module. `inputs` are all inputs of the region, `stored` outputs of its forward program, by position."""

    __slots__ = ("buffers", "inputs", "latest", "origins", "region", "stored", "used", "versions")

    continues_fold = True

    def __init__(
        self, region: Region, inputs: Sequence[Any], stored: dict[int, Any], buffers: Sequence[Buffer | None]
    ) -> None:
        super().__init__([edge_of(inputs[k]) for k in region.wanted], [v.type for v in region.seeds])
        self.region: Region | None = region
        self.inputs = list(inputs)
        self.stored = stored
        self.buffers = [*(t._buffer for t in inputs), *buffers]  # of inputs, then of outputs
        self.versions = [0 if b is None else b.version for b in self.buffers]
        self.used: set[int] = set()
        """Nodes of eager's tape that earlier walks used up."""
        self.origins: dict[int, nans.Origin] = {}
        """Where NaNs in `stored` come from, of a region that looks for them."""
        self.latest: set[int] = set()
        """Those that the latest walk met."""

    def name(self) -> str:
        return "CompiledBackward"

    def behind(self, index: int) -> Set[int]:
        return frozenset() if self.region is None else self.region.behind(index)

    @property
    def operation(self) -> str:
        return "a compiled function"

    def _live(self, given: Sequence[bool]) -> Region:
        """The region, if a walk with these gradients may still pass; GradError as eager's tape would raise it."""
        refusal = self._dead(given)
        if refusal is not None:
            raise refusal.error()
        assert self.region is not None
        return self.region

    def _dead(self, given: Sequence[bool]) -> Refusal | None:
        """Why a walk with these gradients may not pass."""
        region = self.region
        paths = [] if region is None else [p for p, has in zip(region.paths, given, strict=True) if has]
        self.latest = {n for p in paths for n in p.nodes}
        if region is None or self.latest & self.used or any(p.gone for p in paths):
            return Refusal(
                "the tape was already walked here and what it had saved is gone",
                self.operation,
                "call backward or grad with retain_graph=True the first time",
            )
        first = len(self.inputs)
        memory = {k for p in paths for k in (*p.inputs, *(first + o for o in p.outputs))}
        if any(p.stale for p in paths) or self._changed(memory):
            return Refusal(
                f"a tensor that the gradient of {self.operation} needs was modified in place",
                "",
                "do the in-place write before it is read, or write to a clone()",
            )
        return None

    def _changed(self, memory: Iterable[int]) -> bool:
        for k in memory:
            buffer = self.buffers[k]
            if k < len(self.inputs) and self.inputs[k]._buffer is not buffer:
                return True  # its data was replaced
            if buffer is not None and buffer.version != self.versions[k]:
                return True
        return False

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        region = self._live([g is not None for g in grads])
        given, has = tuple(g is not None for g in grads), tuple(r is not None for r in running)
        present = [*(g for g in grads if g is not None), *(r for r in running if r is not None)]
        plan, compiled = region.backward(given, has)
        first, kept = len(self.inputs), len(region.graph.outputs)
        if self._changed(k if is_input else first + k for is_input, k in plan.operands if is_input or k < kept):
            raise GradError(
                "a tensor that the compiled gradient of a function needs was modified in place",
                fix="do the in-place write before the call, or write to a clone()",
            )
        values = [self.inputs[k] if is_input else self.stored[k] for is_input, k in plan.operands]
        if MODES.recorder is not None or any(t._flags & LAYERED for t in present):
            totals = interpreter.run(compiled.concrete(plan.backward), [*values, *present], receiver=present[0])
        else:
            totals = self._run(region, compiled, [*values, *present])
            if region.check_nan:
                known = {n: self.origins[k] for n, (is_input, k) in enumerate(plan.operands) if k in self.origins}
                nans.look_back(plan.backward, [*values, *present], known, totals)
        return [None if k is None else totals[k] for k in plan.found]

    def _run(self, region: Region, compiled: Compiled, operands: Sequence[Any]) -> list[Any]:
        """One native call. The program was compiled for contiguous operands."""
        dense = [t if t._layout.contiguous else dispatch.run(OPS["copy"], (t,), {})[0] for t in operands]
        buffers = compiled.run(dense)
        return [
            dispatch.tensor_on(b, b.ptr, layout) for b, layout in zip(buffers, compiled.layouts, strict=True) if layout
        ]

    def expand(self) -> None:
        """Put the nodes of the region's ops on the tape; gradients of the results go to them from now on. Those of
        results that have none any more are refused if they come."""
        if self.expansion is not None:
            return
        refusal = self._lost()
        if refusal is not None:
            barrier = Barrier(refusal, self.edges, self.results, self.sequence)
            self.expansion = tuple((barrier, k) for k in range(len(self.results)))
            hand_on(self)
            return
        region = self.region
        assert region is not None
        edges = self._unrolled(region)
        for k, edge in enumerate(edges):
            refusal = self._dead([k == other for other in range(len(edges))])
            if refusal is not None:
                edges[k] = (Barrier(refusal, [edge], self.results[k : k + 1], self.sequence), 0)
        self.expansion = tuple(edges)
        hand_on(self)

    def _lost(self) -> Refusal | None:
        """Why the ops can't be applied again to what they were applied to."""
        region = self.region
        if region is None:
            return self._dead([True] * len(self.results))
        assert region.plan is not None
        operations, needed = region.needed()
        needed = [k for k in needed if k not in region.plan.preserved]
        if any(op.op.name == "through" and op.attrs["once"] for op in operations):
            return Refusal(
                "a backward in this compiled function is marked once_differentiable: it has no derivative",
                self.operation,
                "write it with differentiable ops and take the mark away",
            )
        if set(needed) & set(region.written):
            return Refusal(
                "derivatives of gradients through a compiled function that overwrites what it reads",
                "",
                "compute these gradients inside the compiled function, or run it without compiling",
            )
        if self._changed(needed):
            return Refusal(
                "a tensor that a higher derivative of a compiled function needs was modified in place after the call",
                "",
                "do the in-place write before the call, or write to a clone()",
            )
        return None

    def _unrolled(self, region: Region) -> list[Edge]:
        """The ops applied again: where gradients of the results go then."""
        assert region.plan is not None
        kept = region.plan.preserved
        inputs = [_as_it_was(self.stored[kept[k]], t) if k in kept else t for k, t in enumerate(self.inputs)]
        known: dict[Value, Any] = dict(zip(region.graph.inputs, inputs, strict=True))
        operations, _ = region.needed()
        free: set[Value] = set()
        receiver = next((t for t in self.inputs if t._layout.device is region.device), self.inputs[0])
        first = self.sequence - len(operations)
        for number, op in enumerate(operations):
            assert isinstance(op.op, OpDef)
            if free.issuperset(op.operands):
                free.update(op.results)
            operands = _together([(known[v], v in free) for v in op.operands])
            with enable_grad() if op in region.taped else no_grad():
                results = op.op.bind(operands, op.attrs, None if operands else receiver)
            if results[0]._node is not None:
                results[0]._node.sequence = first + number
                results[0]._node.site = op.loc
            known.update(zip(op.results, results, strict=True))
        return [edge_of(known[v]) for v in region.seeds]

    def release(self) -> None:
        """The nodes that the latest walk met are used up; when all are, forget what was saved."""
        region = self.region
        if region is None:
            return
        self.used |= self.latest
        every = {n for p in region.paths for n in p.nodes}
        if every and every <= self.used:
            self.region = None
            self.stored, self.inputs, self.buffers, self.versions = {}, [], [], []


def _together(operands: Sequence[tuple[Any, bool]]) -> list[Any]:
    """Operands, of which those that depend on no input (True) are brought to where the others are: a graph does not
    say where they were made."""
    tensors = [t for t, _ in operands]
    if len({t._layout.device for t in tensors}) < 2:
        return tensors
    device = next(t._layout.device for t, free in operands if not free)
    return [dispatch.moved(t, device) if free else t for t, free in operands]


class _Overwritten(Node):
    """Where a copy of an input leads that the region has overwritten since: where the input leads."""

    __slots__ = ()

    def release(self) -> None:
        """Nothing is saved."""


def _as_it_was(copy: Any, t: Any) -> Any:
    """A copy of an input from before it was overwritten, whose gradients are the input's."""
    edge = edge_of(t)
    if edge is None:
        return copy
    own = dispatch.tensor_on(copy._buffer, copy._ptr, copy._layout)
    node = _Overwritten((edge,), (t.ttype,))
    node.expansion = (edge,)
    attach_one(own, node, 0)
    return own


class CompositeNode(RegionNode):
    """The entry of a region that passes for one op (`composite.py`). No input is used twice in it, so its gradients
    are added to what others gathered, as those of any op."""

    __slots__ = ("about",)

    continues_fold = False

    def __init__(
        self, region: Region, inputs: Sequence[Any], stored: dict[int, Any], buffers: Sequence[Buffer | None]
    ) -> None:
        super().__init__(region, inputs, stored, buffers)
        assert region.passes_for is not None
        self.about = region.passes_for

    def name(self) -> str:
        return self.about[0]

    @property
    def operation(self) -> str:
        return self.about[1]

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        return super().apply(grads, (None,) * len(self.edges))
