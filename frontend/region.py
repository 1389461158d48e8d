"""A compiled region: one captured graph, its programs, and what a warm call does with them.

A warm call gathers the input tensors, runs one program, and then makes the world look as after the eager call: outputs
(with their aliasing), in-place writes, `.grad`, and, when outputs require gradients, one tape node that continues the
gradients of its inputs in eager's order (`region_node.py`).
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln import autograd, dispatch, nans
from kiln.autograd import Edge, Node
from kiln.base import READONLY, REQUIRES_GRAD, Layout, TensorBase, View, layout_of, on_memory
from kiln.capture import Capture
from kiln.compiled import Code, Compiled
from kiln.constants import Size
from kiln.dynamic import Family, Problem
from kiln.errors import CaptureError
from kiln.guards import SCALARS
from kiln.history import python_on_the_way
from kiln.inputs import Inputs, device_of, strides_of
from kiln.interop import attributes_of
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.passes.autodiff import Joint
from kiln.ir.passes.cut import given
from kiln.ir.passes.generalise import Strides
from kiln.ir.passes.partition import AtHand, Differentiated, another, nbytes
from kiln.ir.types import Device, DType
from kiln.journal import Draft, Effect, Instead, Journal, Scene, leaf_of
from kiln.pytree import LEAF, Tree, flatten, unflatten
from kiln.runtime.targets import host_target
from kiln.traced import Chain, Entangled, GradSlot, check_names, check_separate

if TYPE_CHECKING:
    from kiln.region_node import RegionNode

_KEPT: Final = (*SCALARS, Size, type, enum.Enum, DType, Device, np.dtype, range, type(...))
"""What a captured function may return besides tensors and containers of them: these can't change."""


@dataclass(frozen=True)
class Result:
    """How a warm call makes one tensor: on the memory of input `input`, or else of output `output`; `delta` bytes in,
    with a layout. `seed`: its position among the values that gradients come in for. `base`: which result it is a
    view of, by `chain` (of an input: of that)."""

    input: int | None
    output: int
    delta: int
    layout: Layout
    flags: int
    seed: int | None
    base: int | None
    chain: Chain | None
    same: bool  # the very input tensor
    viewed: bool  # whether in-place writes and gradients go through the tensor that it is a view of
    cls: type[Any]

    def build(self, inputs: Sequence[Any], buffers: Sequence[Any], made: Sequence[Any]) -> Any:
        if self.input is None:
            buffer = buffers[self.output]
            t = on_memory(self.cls, buffer, buffer.ptr + self.delta, self.layout, self.flags)
            if self.base is not None:
                t._view = View(made[self.base], self.chain, buffer.version)
            return t
        source = inputs[self.input]
        if self.same:
            return source
        flags = self.flags | source._flags & READONLY
        t = on_memory(self.cls, source._buffer, source._ptr + self.delta, self.layout, flags)
        if not self.viewed:
            return t
        base, chain = (source, ()) if source._view is None else (source._view.base, source._view.chain)
        whole = None if chain is None or self.chain is None else (*chain, *self.chain)
        t._view = View(base, whole, source._buffer.version)
        return t


@dataclass(frozen=True)
class GradWrite:
    """A `.grad` that the call sets: of argument `argument`, of result `result`, or of `tensor`; to result `value`,
    or None."""

    tensor: Any
    argument: int | None
    result: int | None
    value: int | None


@dataclass(frozen=True)
class Path:
    """What a gradient that comes in for one seed meets in eager's tape: `nodes` that have saved something (a walk uses
    them up), of these `gone`, which a backward inside the call used up, and `stale`, whose saved memory the call
    overwrote; and which inputs' and outputs' memory they have saved."""

    nodes: frozenset[int]
    gone: bool
    stale: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_SMALL: Final = 4096
"""Bytes of an input that the call overwrites and derivatives of derivatives need: so many are copied, for that case
(the state of random numbers is of this kind)."""


class Region:
    """One capture, ready for warm calls. Made while the capture still listens.

    `arguments` are the tensor arguments, `owned` the ids of objects that outlive the call (those that guards watch),
    `family` the captures that may share code with it, `journal` what the call changed in Python.
    """

    def __init__(
        self,
        capture: Capture,
        arguments: Sequence[TensorBase],
        returned: Any,
        owned: Container[int],
        name: str,
        family: Family | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.name = name
        self.staged = capture.hooks is not None and capture.hooks.staged_here > 0
        """Whether control flow of Python became operations."""
        self._positions = {id(t): k for k, t in enumerate(arguments)}
        self._outputs: list[Value] = []
        self._indices: dict[int, int] = {}
        self._kept: list[TensorBase] = []  # while results are described, so that ids stay theirs
        self.seeds: list[Value] = []
        self.results: list[Result] = []
        self.values: list[Value] = []
        """What each result holds."""
        draft = Draft(lambda x: self._leaf(x, capture, owned), owned, journal.given if journal else {})
        self.effects: list[Effect] = journal.effects(draft) if journal else []
        """What calls do to Python besides computing, in order."""
        self.recipe = draft.returned(returned) if journal else None
        """What calls return, where that is not made of tensors and numbers alone."""
        self.lasting = bool(self.effects) or self.recipe is not None
        """Whether calls change Python state, or return what was there: one at a time."""
        leaves, self.tree = flatten(tuple(draft.leaves) if self.recipe else returned, keep=owned)
        _check_keys(self.tree, owned)
        self.leaves = [self._leaf(x, capture, owned) for x in leaves]
        self.effects[:0] = [said(lambda t: self._result(t, capture)) for said in capture.prints]
        self.grads = [
            write
            for slot in list(capture.grads.values())
            if slot.written and (write := self._grad_write(slot, capture, owned)) is not None
        ]
        check_names(
            capture, [*leaves, *draft.leaves], self._kept, {id(g.final) for g in capture.grads.values() if g.written}
        )
        capture.check_history(self.seeds)
        self.graph = capture.finish(self._outputs)
        self.taped = capture.taped_operations()
        self.device = device_of([*[t for _, t in capture.inputs], *self._kept])
        """Where its code runs."""
        self.strides = strides_of(capture, self.device)
        self._places = [t._layout.device for _, t in capture.inputs]
        self.written = [a.input for a in self.graph.aliases]
        self.wanted = [k for k, (_, t) in enumerate(capture.inputs) if t._flags & REQUIRES_GRAD]
        self._find_paths(capture)
        self.inputs = Inputs(capture, self._positions)
        del self._positions, self._outputs, self._indices, self._kept
        self._behind: dict[int, frozenset[int]] = {}
        self.passes_for: tuple[str, str] | None = None
        """What its nodes on the tape and the op are called, where it passes for an op."""
        alone = self.tree is LEAF and self.leaves == [(0, None)] and len(self.results) == 1
        more = self.written or self.grads or self.effects or self.recipe is not None
        self._only = None if more or not alone else self.results[0]
        """What a call returns, where that is one tensor and, but for gradients, there is nothing else to be done."""
        self.places: list[tuple[int, int]] = []
        self.carried: list[Value] = []
        """Values of the graph that a warm call is given, since decisions before it computed them."""
        self.check_nan = False
        """Whether calls look for NaNs in their results."""
        self.recorded = False
        """Whether its programs run as CUDA graphs where they can."""
        self.forward: Compiled | None = None
        self.backwards: dict[tuple[object, ...], tuple[Differentiated, Compiled]] = {}
        self.problem = Problem(
            self.graph, self.strides, self.seeds, self.wanted, self.taped, self.written, self.at_hand, self.device
        )
        self.donated: tuple[int, ...] = ()
        """Inputs that the callers have given up, so that results may take over their memory."""
        self.idle = False
        """Whether it has no code, as there is nothing to compute: calls run eagerly until others make code for it."""
        self._family = family
        self.shared = None if family is None else family.find(self.problem, self._partition)
        """The form whose code it runs, if that is not its own."""
        self.shares = self.shared is not None and self.shared.form.instances > 1
        """Whether that was there before."""
        self.plan = self._differentiate() if self.shared is None else self.shared.form.plan

    def pass_for(self, node: str, op: str) -> bool:
        """Let the region pass for one op; False when it can't, since it does more than to make one new tensor, or
        since the gradient of an input would be a sum."""
        (result,) = self.results if len(self.results) == 1 else (None,)
        new = result is not None and result.input is None and result.base is None and result.delta == 0
        if (
            not new
            or self.leaves != [(0, None)]
            or self.written
            or self.grads
            or self.effects
            or any(self.inputs.objects)
        ):
            return False
        reads = [v for operation in self.taped for v in operation.operands]
        if any(reads.count(self.graph.inputs[k]) > 1 for k in self.wanted):
            return False
        self.passes_for = node, op
        return True

    # -------------------------------------------------------------------------------- after a capture

    def _leaf(self, x: Any, capture: Capture, owned: Container[int]) -> tuple[int, Any]:
        """A leaf of what was returned: (position among results, None, or of which kind of number, or what it is instead
        for some data), (0, what text is made of), or (-1, the object itself)."""
        if isinstance(x, TensorBase):
            twin = capture.twins.get(id(x))
            if twin is None:
                return self._result(x, capture), None
            flag = self._result(twin.flag, capture)
            return self._result(x, capture), Instead(flag, twin.when, self._leaf(twin.original, capture, owned))
        if hasattr(type(x), "__kiln_text__"):
            return 0, x.__kiln_text__(lambda t: self._result(t, capture))
        if hasattr(type(x), "__kiln_number__"):
            return self._result(x.tensor, capture), x.kind
        if not isinstance(x, _KEPT) and id(x) not in owned:
            raise CaptureError(
                f"the call returned a new {type(x).__module__}.{type(x).__qualname__}, "
                "which a compiled call could not make again",
                fix="return tensors, numbers and strings, in tuples, lists and dicts",
            )
        return -1, x

    def _result(self, t: TensorBase, capture: Capture) -> int:
        """Describe a tensor; its position among the results."""
        known = self._indices.get(id(t))
        if known is not None:
            return known
        if t._view is not None:
            autograd.refresh(t)
        value = capture.value_of(t)
        storage = capture.entries[id(t)].storage
        if storage.input is not None:
            made = self._on_input(t, capture)
        else:
            sites, _ = capture.entangled.get(id(storage), (frozenset(), ()))
            if sites and t._view is not None and id(t._view.base) not in capture.entries:
                raise Entangled("what is returned is a part of a tensor from outside, as data decides", sites)
            base = None if t._view is None else self._result(t._view.base, capture)
            made = self._on_output(t, value, capture, base)
        self._kept.append(t)
        self._indices[id(t)] = len(self.results)
        self.results.append(made)
        self.values.append(value)
        return len(self.results) - 1

    def _seed(self, t: TensorBase, capture: Capture) -> int | None:
        if t._node is None:
            return None
        self.seeds.append(capture.seed_of(t))
        return len(self.seeds) - 1

    def _on_input(self, t: TensorBase, capture: Capture) -> Result:
        entry = capture.entries[id(t)]
        same = t is entry.storage.root
        seed = None if same else self._seed(t, capture)
        flags = 0 if seed is not None else t._flags & REQUIRES_GRAD
        chain = None if t._view is not None and t._view.chain is None else entry.chain
        delta = t._ptr - entry.storage.root._ptr
        source, viewed = entry.storage.input, t._view is not None
        cls = type(t) if same else _class_of(t)
        return Result(source, 0, delta, t._layout, flags, seed, None, chain, same, viewed, cls)

    def _on_output(self, t: TensorBase, value: Value, capture: Capture, base: int | None) -> Result:
        storage = capture.entries[id(t)].storage
        root = storage.root
        seed = self._seed(t, capture)
        flags = 0 if seed is not None else t._flags & REQUIRES_GRAD
        if root._layout.contiguous:
            whole, delta, layout = storage.value, t._ptr - root._ptr, t._layout
        else:  # a shared constant: one element in memory, and read-only; a warm call makes it whole
            whole, delta, layout = value, 0, layout_of(t._layout.dtype, t._layout.shape, None, t._layout.device)
        if whole not in self._outputs:
            self._outputs.append(whole)
        chain = None if t._view is None else t._view.chain
        viewed, output = base is not None, self._outputs.index(whole)
        return Result(None, output, delta, layout, flags, seed, base, chain, False, viewed, _class_of(t))

    def _grad_write(self, slot: GradSlot, capture: Capture, owned: Container[int]) -> GradWrite | None:
        """What a warm call does about a gradient that was set; None when its tensor was the call's own."""
        t = slot.tensor
        argument, result = self._positions.get(id(t)), self._indices.get(id(t))
        if argument is None and result is None and id(t) not in owned:
            if not capture.made(t):
                raise CaptureError(
                    "a gradient went to a tensor that is neither an argument nor reachable from the function",
                    operands=[t.ttype],
                    fix="pass it as an argument, or keep it in a variable that the function reads",
                )
            return None
        value = None if slot.final is None else self._result(slot.final, capture)
        if argument is not None:
            return GradWrite(None, argument, None, value)
        return GradWrite(t, None, None, value) if id(t) in owned else GradWrite(None, None, result, value)

    def _find_paths(self, capture: Capture) -> None:
        """Follow the tape from each result to the inputs. CaptureError when it ends in a leaf that the call made."""
        ends = {autograd.edge_of(t) for _, t in capture.inputs}
        written = set(self.written)
        inputs = {id(t._buffer): k for k, (_, t) in enumerate(capture.inputs)}
        outputs = {id(t._buffer): r.output for t, r in zip(self._kept, self.results, strict=True) if r.input is None}
        # Without inputs that want gradients, the leaf is why the result requires one.
        visible = {id(t) for t in self._kept} if self.wanted else None
        self.paths: list[Path] = []
        self.at_hand = AtHand()
        numbers: dict[Node, int] = {}
        for t, result in zip(self._kept, self.results, strict=True):
            if result.seed is not None:
                nodes = list(_behind(t, ends, visible))
                saving = [n for n in nodes if getattr(n, "versions", ()) or _is_gone(n)]
                if self.wanted and not any(map(_is_gone, nodes)):
                    _check_nodes(capture, nodes)
                saved = [each for n in nodes for each in getattr(n, "versions", ())]
                memory = {id(buffer) for _, buffer, _ in saved}
                self.paths.append(
                    Path(
                        frozenset(numbers.setdefault(n, len(numbers)) for n in saving),
                        gone=any(map(_is_gone, nodes)),
                        stale=any(buffer.version != version for _, buffer, version in saved),
                        inputs=tuple(k for b, k in inputs.items() if b in memory),
                        outputs=tuple(k for b, k in outputs.items() if b in memory),
                    )
                )
        if self.paths:
            some = {k for p in self.paths for k in p.inputs}
            every = set.intersection(*(set(p.inputs) for p in self.paths))
            kept = set.intersection(*(set(p.outputs) for p in self.paths))
            self.at_hand = AtHand(*(frozenset(part) for part in (some - written, every - written, kept)))

    def _differentiate(self) -> Differentiated | None:
        """Forward with what is stored for backward, for the usual case that every seed gets a gradient."""
        if not self.problem.differentiable:
            return None
        return self._partition(self.problem.joint(*self.problem.usual), self.graph)

    def _partition(self, joint: Joint, graph: Graph) -> Differentiated:
        _, needed = self.needed()
        small = [k for k in self.written if k in needed and nbytes(graph.inputs[k]) <= _SMALL]
        return dispatch.partition(joint, self.at_hand, small)

    def needed(self) -> tuple[list[Operation], list[int]]:
        """The operations that differentiable results depend on, in order, and the inputs that these read."""
        live = set(self.seeds)
        operations = []
        for op in reversed(self.graph.operations):
            if any(r in live for r in op.results):
                operations.append(op)
                live.update(op.operands)
        return operations[::-1], [k for k, v in enumerate(self.graph.inputs) if v in live]

    def behind(self, seed: int) -> frozenset[int]:
        """Which other seeds gradients of this one flow past."""
        found = self._behind.get(seed)
        if found is None:
            start = self.seeds[seed]
            reached = {start}
            for op in reversed(self.graph.operations):
                if op in self.taped and any(r in reached for r in op.results):
                    reached.update(op.operands)
            found = self._behind[seed] = frozenset(k for k, v in enumerate(self.seeds) if v in reached and k != seed)
        return found

    def program(self) -> tuple[Graph, Sequence[Strides]]:
        """The graph of a warm call, and the strides of its inputs."""
        if self.shared is not None:
            return self.shared.form.program(self._carried())[:2]
        if self.plan is not None:
            return self.plan.forward, self.strides
        if not self.carried:
            return self.graph, self.strides
        return given(self.graph, self.carried), [*self.strides, *[None] * len(self.carried)]

    def compile(self) -> Compiled:
        """The forward program for the current target, compiled on first use."""
        if self.forward is None or self.forward.target is not host_target():
            self._join()
            if self.shared is None:
                code, numbers = Code(*self.program(), self.name, donated=self._free(), device=self.device), None
            else:
                code = self.shared.form.forward(self._carried(), self.name, self._free())
                numbers = self.shared.numbers
            places = {r.output: r.layout.device for r in self.results if r.input is None}
            self.forward = Compiled(code, numbers, places)
            if self.recorded:
                code.record()
            dump(self)
        return self.forward

    def give_up(self, capture: Capture, donated: Container[int]) -> None:
        """Callers have given up those arguments whose ids in the capture are `donated`. What is returned, or may be
        written to, stays where it is."""
        there = {*self.written, *[r.input for r in self.results]}
        self.donated = tuple(
            k
            for k, (kind, t) in enumerate(capture.inputs)
            if kind == "argument" and id(t) in donated and k not in there and self.strides[k] is None
        )

    def _free(self) -> tuple[int, ...]:
        """Inputs whose memory results may take over: none where gradients may go back through the call, or where what
        it was given is looked at afterwards."""
        return () if self.plan is not None or self.check_nan else self.donated

    @property
    def reused(self) -> int:
        """How many results of a call take over the memory of a donated argument."""
        return 0 if self.forward is None else len(self.forward.code.reused)

    def _join(self) -> None:
        """Take code that was made since the capture for others; or have code of its own."""
        if self.forward is None and self.shared is None and self._family is not None:
            self.shared = self._family.known(self.problem)
            self.plan = self.plan if self.shared is None else self.shared.form.plan
        if self.shared is not None and self.carried and not self.shared.plain:
            self.shared = None  # values that decisions hand on are found by position

    def _carried(self) -> list[int]:
        """The positions of what a warm call is given among the values of the graph."""
        positions = {v: k for k, v in enumerate(self.graph.values())} if self.carried else {}
        return [positions[v] for v in self.carried]

    # ------------------------------------------------------------------------------------- warm calls

    def run(
        self,
        inputs: Sequence[Any],
        arguments: Sequence[Any],
        carried: Sequence[Any] = (),
        containers: Sequence[Any] = (),
    ) -> Any:
        """One warm call on gathered inputs, and what decisions before it computed already. `containers`: the lists,
        dicts and records among the arguments."""
        compiled = self.compile()  # which may change what is known of the region
        if self._only is not None and self.plan is None and not self.check_nan:
            buffers = compiled.run([*inputs, *carried] if carried else inputs, dispatch.execute_region)
            return self._only.build(inputs, buffers, ())
        if self.written:
            check_separate(inputs, self.written)
        given = nans.before(self, inputs) if self.check_nan else inputs
        buffers = compiled.run([*inputs, *carried] if carried else inputs, dispatch.execute_region)
        for k in self.written:
            inputs[k]._buffer.version += 1
        origins = nans.look(self, given, inputs, buffers) if self.check_nan else {}
        made: list[Any] = []
        for result in self.results:
            made.append(result.build(inputs, buffers, made))
        if self.plan is not None:
            self._attach(self.plan, inputs, buffers, made).origins = origins
        for write in self.grads:
            if write.argument is not None:
                owner = arguments[write.argument]
            else:
                owner = write.tensor if write.result is None else made[write.result]
            owner._grad = None if write.value is None else made[write.value]
        if self.effects or self.recipe is not None:
            scene = Scene(made, containers)
            for effect in self.effects:
                effect.commit(scene)
            if self.recipe is not None:
                return self.recipe.build(scene)
        if self.tree is LEAF and self.leaves[0] == (0, None):
            return made[0]
        return unflatten(self.tree, iter([leaf_of(made, k, x) for k, x in self.leaves]))

    def _attach(
        self, plan: Differentiated, inputs: Sequence[Any], buffers: Sequence[Any], made: Sequence[Any]
    ) -> RegionNode:
        """Put the region on the tape as one node."""
        from kiln.region_node import CompositeNode, RegionNode

        layouts = self.compile().layouts
        stored: dict[int, Any] = {}
        for k in (*plan.stored.values(), *plan.preserved.values()):
            layout = layouts[k]
            assert layout is not None
            stored[k] = dispatch.tensor_on(buffers[k], buffers[k].ptr, layout)
        node = (RegionNode if self.passes_for is None else CompositeNode)(self, inputs, stored, buffers)
        for result, t in zip(self.results, made, strict=True):
            if result.seed is not None:
                autograd.attach_one(t, node, result.seed)
        return node

    def backward(self, given: tuple[bool, ...], running: tuple[bool, ...]) -> tuple[Differentiated, Compiled]:
        """The backward program for a pattern of gradients that are there."""
        key = (given, running, host_target())
        found = self.backwards.get(key)
        if found is None:
            assert self.plan is not None
            name = f"{self.name}_backward"
            if self.shared is not None:
                plan, code, numbers = self.shared.backward((given, running), name)
                found = plan, Compiled(code, numbers, self._homes(plan))
            else:
                plan = another(self.problem.joint(given, running), self.plan)
                code = Code(plan.backward, [None] * len(plan.backward.inputs), name, device=self.device)
                found = plan, Compiled(code, None, self._homes(plan))
            self.backwards[key] = found
            if self.recorded:
                code.record()
        return found

    def _homes(self, plan: Differentiated) -> dict[int, Device]:
        """Where the gradients of the inputs belong, by the output of the backward program."""
        return {o: self._places[k] for k, o in zip(self.wanted, plan.found, strict=True) if o is not None}

    def rests(self) -> bool:
        """Whether an idle region still has no code."""
        self._join()
        self.idle = self.shared is None
        return self.idle

    def is_empty(self) -> bool:
        """Whether an input has no elements."""
        return any(0 in v.type.shape for v in self.graph.inputs)

    def code(self) -> list[Code]:
        """What was compiled for it so far, or for others that share it."""
        backward = [compiled.code for _, compiled in self.backwards.values()]
        return backward if self.forward is None else [self.forward.code, *backward]


def _class_of(t: Any) -> type[Any]:
    """The class of a tensor that the call made. CaptureError if the tensor has attributes of its own."""
    if attributes_of(t):
        raise CaptureError(
            f"the call returned a new {type(t).__name__} with attributes, which a compiled call could not make again",
            operands=[t.ttype],
            fix="return a plain tensor (as_subclass(kiln.Tensor)), and set attributes outside",
        )
    return type(t)


def _check_nodes(capture: Capture, nodes: Sequence[Node]) -> None:
    """Refuse what a program made from the ops alone would pass over on the way back: user's code on the tape."""
    for node in nodes:
        passes = capture.bridges is not None and capture.bridges.passes(node)
        what = node.operation if node.runs_user_code and not passes else capture.hooked.get(id(node))
        if what is not None:
            raise python_on_the_way(what)


def _is_gone(node: Any) -> bool:
    """Whether a walk has used up what a node had saved."""
    return getattr(node, "operands", node) is None or getattr(node, "ctx", node) is None


def _behind(t: Any, ends: Container[Edge], visible: Container[int] | None) -> Iterator[Node]:
    """The nodes of the call that the gradient of `t` passes. CaptureError when it ends in a leaf that the call made and
    whose gradient somebody could see: one of `visible`, or any (None)."""
    todo: list[Any] = [t._node]
    seen: set[Node] = set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        for edge in map(autograd.resolved, node.edges):
            if edge is None or edge in ends:
                continue
            if isinstance(edge[0], Node):
                todo.append(edge[0])
            elif visible is None or id(edge[0]) in visible:
                raise CaptureError(
                    "a result's gradient flows to a leaf that the call made",
                    operands=[edge[0].ttype],
                    fix="make the leaf outside, or compute its gradient inside the function",
                )


def _check_keys(tree: Tree, owned: Container[int]) -> None:
    """CaptureError for a dict key that a warm call could not make again."""
    for key in tree.keys:
        if not isinstance(key, _KEPT) and id(key) not in owned:
            raise CaptureError(
                f"the call returned a dict with a {type(key).__name__} as a key",
                fix="use numbers or strings as keys",
            )
    for child in tree.children:
        _check_keys(child, owned)


def stages_of(region: Region) -> tuple[tuple[str, str], ...]:
    """All stages of a region's forward program; before them, what it stores for its backward program."""
    graph, strides = region.program()
    stages = dispatch.stages(graph, strides, region.name, region._free(), region.device)
    return stages if region.plan is None else (("partition", str(region.plan)), *stages)


def dump(region: Region) -> None:
    """Print what KILN_DUMP asks for: 1 for everything, else stage names separated by commas."""
    wanted = os.environ.get("KILN_DUMP", "")
    if not wanted or wanted == "0":
        return
    names = None if wanted == "1" else tuple(wanted.split(","))
    for stage, text in stages_of(region):
        if names is None or stage.startswith(names):
            print(f"---- {region.name}: {stage} ----\n{text.rstrip()}\n", file=sys.stderr)
