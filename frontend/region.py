"""A compiled region: one captured graph, its programs, and what a warm call does with them.

A warm call gathers the input tensors, runs one program, and then makes the world look as after the eager call: outputs
(with their aliasing), in-place writes, `.grad`, and, when outputs require gradients, one tape node that continues the
gradients of its inputs in eager's order.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kiln import autograd, dispatch
from kiln.autograd import Node, edge_of
from kiln.base import MODES, REQUIRES_GRAD, Layout, TensorBase, View, layout_of
from kiln.capture import Capture, Chain
from kiln.errors import CaptureError, GradError
from kiln.ir import interpreter
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.passes.autodiff import Differentiated, NoDerivative, differentiate
from kiln.ir.program import Program
from kiln.pytree import Tree, flatten, unflatten
from kiln.runtime.memory import Buffer


@dataclass(frozen=True)
class Result:
    """How a warm call rebuilds one tensor: memory of input `input`, or of output `output`; `delta` bytes in,
    with a layout. `seed`: its position among the values that gradients come in for."""

    input: int | None
    output: int
    delta: int
    layout: Layout
    flags: int
    seed: int | None
    chain: Chain
    same: bool  # the very input tensor

    def build(self, inputs: Sequence[Any], buffers: Sequence[Any], cls: Any) -> Any:
        if self.same:
            assert self.input is not None
            return inputs[self.input]
        if self.input is None:
            buffer = buffers[self.output]
            return cls(buffer, buffer.ptr + self.delta, self.layout, self.flags)
        t = inputs[self.input]
        made = cls(t._buffer, t._ptr + self.delta, self.layout, self.flags)
        base, chain = (t, ()) if t._view is None else (t._view.base, t._view.chain)
        made._view = View(base, None if chain is None else (*chain, *self.chain), t._buffer.version)
        return made


class Compiled:
    """A program with what is needed to run it on tensors."""

    __slots__ = ("executable", "layouts", "program", "seconds")

    def __init__(self, graph: Graph, strides: Sequence[tuple[int, ...] | None], name: str) -> None:
        started = time.perf_counter()
        self.program: Program = dispatch.build(graph, strides, name=name)
        self.executable = dispatch.load(self.program)
        aliased = {o for o, _ in self.program.aliases}
        self.layouts = [
            None if i in aliased else layout_of(t.dtype, t.static_shape())
            for i, t in enumerate(self.program.output_types)
        ]
        self.seconds = time.perf_counter() - started

    def run(self, inputs: Sequence[TensorBase]) -> list[Any]:
        """Run on input tensors of the compiled layouts; the buffers of the outputs (None where aliased)."""
        buffers = [None if layout is None else Buffer.allocate(layout.nbytes) for layout in self.layouts]
        pointers = [t._ptr for t in inputs]
        values = [*pointers, *(0 if b is None else b.ptr for b in buffers)]
        for o, i in self.program.aliases:
            values[len(pointers) + o] = pointers[i]
        dispatch.execute(self.executable, values)
        return buffers


class Region:
    """One capture, ready for warm calls."""

    def __init__(self, capture: Capture, arguments: Sequence[TensorBase], returned: Any, name: str) -> None:
        self.name = name
        self.returned, self.tree = flatten(returned)
        self.cls = type(arguments[0]) if arguments else _tensor_class()
        self.inputs = capture.inputs
        self.positions = {id(t): k for k, t in enumerate(arguments)}
        self.sources = [self._source(kind, t, capture) for kind, t in capture.inputs]
        self._values: list[Value] = []
        self._seeds: list[Value] = []
        self.results = [self._result(x, capture) if isinstance(x, TensorBase) else x for x in self.returned]
        self.grads = [
            (
                slot.tensor,
                self.positions.get(id(slot.tensor)),
                None if slot.final is None else self._result(slot.final, capture),
            )
            for slot in capture.grads.values()
            if slot.written and id(slot.tensor) in {id(t) for _, t in capture.inputs}
        ]
        self.guarded_grads = [
            (slot.tensor, self.positions.get(id(slot.tensor)), slot.before is not None)
            for slot in capture.grads.values()
            if slot.read
        ]
        outputs = self._values
        self.graph = capture.finish(outputs)
        self.taped = capture.taped_operations()
        self.strides = [t._layout.strides if not t._layout.contiguous else None for _, t in capture.inputs]
        self.written = [a.input for a in self.graph.aliases]
        self.wanted = [k for k, (_, t) in enumerate(capture.inputs) if t._flags & REQUIRES_GRAD]
        self.released = any(_is_released(x._node) for x in self.returned if isinstance(x, TensorBase) and x._node)
        del self.returned
        self.forward: Compiled | None = None
        self.backwards: dict[tuple[tuple[bool, ...], tuple[bool, ...]], tuple[Differentiated, Compiled]] = {}
        self.plan = self._differentiate() if self._seeds and self.wanted else None

    # -------------------------------------------------------------------------------- after a capture

    def _source(self, kind: str, t: TensorBase, capture: Capture) -> Callable[[Sequence[Any]], Any]:
        """How a warm call finds an input."""
        if kind == "argument":
            k = self.positions[id(t)]
            return lambda arguments: arguments[k]
        if kind == "object":
            return lambda arguments: t
        owner = next(s.tensor for s in capture.grads.values() if s.before is t)
        k = self.positions.get(id(owner), -1)
        return lambda arguments: (arguments[k] if k >= 0 else owner)._grad

    def _result(self, t: TensorBase, capture: Capture) -> Result:
        value = capture.value_of(t)
        entry = capture.entries[id(t)]
        seed = None
        if t._node is not None:
            seed = len(self._seeds)
            self._seeds.append(value)
        root = entry.storage.root
        flags = 0 if seed is not None else t._flags & REQUIRES_GRAD
        if entry.storage.input is not None:
            delta = t._ptr - root._ptr
            same = t is root
            return Result(entry.storage.input, 0, delta, t._layout, flags, None if same else seed, entry.chain, same)
        if root._layout.contiguous:
            base, delta, layout = entry.storage.value, t._ptr - root._ptr, t._layout
        else:  # a shared constant: one element in memory; a warm call makes it whole
            base, delta, layout = value, 0, layout_of(t._layout.dtype, t._layout.shape)
        if base not in self._values:
            self._values.append(base)
        return Result(None, self._values.index(base), delta, layout, flags, seed, (), False)

    def _differentiate(self) -> Differentiated:
        """Forward with residuals, for the usual case that every seed gets a gradient."""
        given, running = (True,) * len(self._seeds), (False,) * len(self.wanted)
        try:
            return differentiate(self.graph, self._seeds, given, self.wanted, running, self.taped)
        except NoDerivative as error:
            raise GradError(str(error), loc=error.operation.loc, op=error.operation.op.name) from None

    def compile(self) -> Compiled:
        """The forward program, compiled on first use."""
        if self.forward is None:
            graph = self.graph if self.plan is None else self.plan.forward
            self.forward = Compiled(graph, self.strides, self.name)
            dump(self)
        return self.forward

    # ------------------------------------------------------------------------------------- warm calls

    def matches(self, arguments: Sequence[TensorBase]) -> bool:
        """Whether gradients that the capture read or found are there (or not) as they were."""
        for tensor, k, present in self.guarded_grads:
            t = tensor if k is None else arguments[k]
            if (t._grad is not None) is not present:
                return False
        for source, (_, first) in zip(self.sources, self.inputs, strict=True):
            t = source(arguments)
            if t._layout is not first._layout or (t._flags ^ first._flags) & REQUIRES_GRAD:
                return False
        return True

    def run(self, arguments: Sequence[TensorBase]) -> Any:
        """One warm call."""
        inputs = [source(arguments) for source in self.sources]
        if self.written:
            self._check_separate(inputs)
        compiled = self.compile()
        buffers = compiled.run(inputs)
        for k in self.written:
            inputs[k]._buffer.version += 1
        tensors = [r.build(inputs, buffers, self.cls) if isinstance(r, Result) else r for r in self.results]
        made = list(zip(self.results, tensors, strict=True))
        grads = [(t if k is None else arguments[k], r) for t, k, r in self.grads]
        for owner, r in grads:
            g = None if r is None else r.build(inputs, buffers, self.cls)
            owner._grad = g
            if r is not None:
                made.append((r, g))
        if self.plan is not None:
            self._attach(self.plan, inputs, buffers, made)
        return unflatten(self.tree, iter(tensors))

    def _check_separate(self, inputs: Sequence[TensorBase]) -> None:
        buffers = [id(t._buffer) for t in inputs]
        for k in self.written:
            if buffers.count(buffers[k]) > 1:
                raise CaptureError(
                    "two tensors from outside share memory, and one of them is written in place",
                    operands=[inputs[k].ttype],
                    fix="pass the whole tensor and take the views inside the function",
                )

    def _attach(self, plan: Differentiated, inputs: Sequence[Any], buffers: Sequence[Any], made: Sequence[Any]) -> None:
        """Put the region on the tape as one node."""
        if not MODES.grad_enabled:
            return
        saved = []
        for is_input, k in plan.saved:
            if is_input:
                saved.append(inputs[k])
            else:
                layout = self.compile().layouts[k]
                assert layout is not None
                saved.append(self.cls(buffers[k], buffers[k].ptr, layout))
        node = RegionNode(self, inputs, saved)
        for r, t in made:
            if isinstance(r, Result) and r.seed is not None:
                autograd.attach_one(t, node, r.seed)

    def backward(self, given: tuple[bool, ...], running: tuple[bool, ...]) -> tuple[Differentiated, Compiled]:
        """The backward program for a pattern of gradients that are there."""
        found = self.backwards.get((given, running))
        if found is None:
            plan = differentiate(self.graph, self._seeds, given, self.wanted, running, self.taped)
            found = plan, Compiled(plan.backward, [None] * len(plan.backward.inputs), f"{self.name}_backward")
            self.backwards[given, running] = found
        return found

    @property
    def seconds(self) -> float:
        """Seconds spent compiling so far."""
        return sum(
            c.seconds for c in ([self.forward] if self.forward else []) + [c for _, c in self.backwards.values()]
        )


class RegionNode(Node):
    """The tape entry of a warm call."""

    __slots__ = ("inputs", "region", "saved", "versions")

    continues_fold = True

    def __init__(self, region: Region, inputs: Sequence[Any], saved: Sequence[Any]) -> None:
        super().__init__([edge_of(inputs[k]) for k in region.wanted], [v.type for v in region._seeds])
        self.region: Region | None = None if region.released else region
        self.inputs = list(inputs)
        self.saved = list(saved)
        self.versions = [(t._buffer, t._buffer.version) for t in saved]

    @property
    def name(self) -> str:
        return "CompiledBackward"

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        region = self.region
        if region is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op="a compiled function",
                fix="call backward or grad with retain_graph=True the first time",
            )
        if any(buffer.version != version for buffer, version in self.versions):
            raise GradError(
                "a tensor that the gradient of a compiled function needs was modified in place after the call",
                fix="do the in-place write before the call, or write to a clone()",
            )
        given, has = tuple(g is not None for g in grads), tuple(r is not None for r in running)
        present = [*(g for g in grads if g is not None), *(r for r in running if r is not None)]
        plan, compiled = region.backward(given, has)
        if MODES.grad_enabled or MODES.recorder is not None:
            totals = interpreter.run(plan.joint, [*self.inputs, *present], receiver=present[0])
        else:
            totals = self._run(region, plan, compiled, present)
        return [None if k is None else totals[k] for k in plan.found]

    def _run(self, region: Region, plan: Differentiated, compiled: Compiled, present: Sequence[Any]) -> list[Any]:
        """One native call. The program was compiled for contiguous operands."""
        usual = region.plan
        assert usual is not None
        where = dict(zip(usual.residuals, self.saved, strict=True))
        values = [where[v] for v in plan.residuals]  # fewer gradients need no more than all of them
        operands = [t if t._layout.contiguous else dispatch.run(_COPY, (t,), {})[0] for t in [*values, *present]]
        buffers = compiled.run(operands)
        return [region.cls(b, b.ptr, layout) for b, layout in zip(buffers, compiled.layouts, strict=True) if layout]

    def release(self) -> None:
        self.region = None
        self.saved, self.inputs, self.versions = [], [], []


def _is_released(node: Any) -> bool:
    """Whether a backward inside the captured call used up the tape behind this node."""
    todo, seen = [node], set()
    while todo:
        n = todo.pop()
        if n is None or id(n) in seen or not isinstance(n, Node):
            continue
        seen.add(id(n))
        if getattr(n, "operands", ()) is None or getattr(n, "region", n) is None:
            return True
        todo += [e[0] for e in n.edges if e is not None]
    return False


def stages_of(region: Region) -> tuple[tuple[str, str], ...]:
    """All stages of a region's forward program."""
    graph = region.graph if region.plan is None else region.plan.forward
    return dispatch.build(graph, region.strides, name=region.name, stages=True).stages


def dump(region: Region) -> None:
    """Print what KILN_DUMP asks for: 1 for everything, else stage names separated by commas."""
    wanted = os.environ.get("KILN_DUMP", "")
    if not wanted or wanted == "0":
        return
    names = None if wanted == "1" else tuple(wanted.split(","))
    for stage, text in stages_of(region):
        if names is None or stage.startswith(names):
            print(f"---- {region.name}: {stage} ----\n{text.rstrip()}\n", file=sys.stderr)


def _tensor_class() -> Any:
    from kiln.tensor import Tensor

    return Tensor


def _copy_op() -> Any:
    from kiln.ir.ops.base import OPS

    return OPS["copy"]


_COPY = _copy_op()
__all__ = ["Compiled", "Operation", "Region", "RegionNode", "Tree"]
