"""`autograd.Function` inside transforms: its forward is called on layered tensors, its backward is its derivative.

The forward runs once, without any tape; what it saves are tensors of the highest layer. Every layer below that has a
tape gets a node of its own, which lifts gradients into the layer above, has the node there do its work (the user's
`backward`, in the end), and takes the results out again. Tangents come from the backward too: it is linear in the
gradients, so its own derivative by them, applied to the tangents, is the Jacobian times these.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kiln.autograd.backward import grad as walk_back
from kiln.autograd.function import Function, FunctionCtx, FunctionNode, run_forward
from kiln.autograd.grad_mode import enable_grad
from kiln.autograd.tape import Node, attach_one, edge_of
from kiln.base import MODES, REQUIRES_GRAD, TensorBase
from kiln.batched import BatchLayer
from kiln.batching_rules import spread
from kiln.dual import DualLayer
from kiln.ir.ops.base import OPS
from kiln.ir.ops.create import zeros_of
from kiln.layers import Layer, content_of, highest, is_layered, layers_of, on, owned


def apply(cls: type[Function], args: Sequence[Any]) -> Any:
    """`cls.apply(*args)`, where some arguments are layered."""
    layer = highest([a for a in args if isinstance(a, TensorBase)])
    given = [on(layer, a) if isinstance(a, TensorBase) else a for a in args]
    ctx = FunctionCtx()
    tracked = MODES.grad_enabled
    ctx.needs_input_grad = tuple([_wanted(a, tracked) for a in given])
    node = FunctionNode(cls, ctx, given)
    node.wanted = tuple([isinstance(a, TensorBase) and a.dtype.is_inexact for a in given])
    ctx._owner = weakref.ref(node)
    returned = run_forward(cls, ctx, given)
    if ctx._dirty:
        layer.refuse("a Function that writes to its arguments (mark_dirty)", op=cls.__name__, fix="return new tensors")
    outputs = list(returned) if isinstance(returned, tuple) else [returned]
    fixed = {id(t) for t in ctx._not_differentiable}
    constant = {k for k, t in enumerate(outputs) if id(t) in fixed}
    taken = {id(t) for a in given if isinstance(a, TensorBase) for t in layers_of(a)}
    outputs = [
        t if not isinstance(t, TensorBase) else on(layer, t) if id(t) in fixed else _own(layer, t, taken)
        for t in outputs
    ]
    free = [isinstance(t, TensorBase) and k not in constant and t.dtype.is_inexact for k, t in enumerate(outputs)]
    node.results = tuple([t.ttype if isinstance(t, TensorBase) else None for t in outputs])  # type: ignore[misc]
    below = _attach_below(node, layer, given, outputs, free, tracked)
    ctx._save(outputs, cls.__name__)
    if isinstance(layer, DualLayer):
        _push(cls.__name__, layer, below, given, outputs, free)
    if tracked and any(isinstance(a, TensorBase) and a._flags & REQUIRES_GRAD for a in given):
        for k, t in enumerate(outputs):
            if free[k]:
                attach_one(t, node, k)
    return tuple(outputs) if isinstance(returned, tuple) else outputs[0]


def _wanted(a: Any, tracked: bool) -> bool:
    """Whether some derivative by an argument is wanted."""
    if not isinstance(a, TensorBase):
        return False
    tangent = is_layered(a) and getattr(content_of(a), "tangent", None) is not None
    return tangent or (tracked and any(t._flags & REQUIRES_GRAD for t in layers_of(a)))


def _own(layer: Layer, t: Any, taken: set[int]) -> Any:
    """A result as a tensor of the layer, all of whose inner tensors are its own: none can have two histories."""
    parts = list(layers_of(t))
    own = owned(t, layer) and not any(id(x) in taken or x._flags & REQUIRES_GRAD for x in parts)
    made = t if own else layer.apply(OPS["reshape"], (on(layer, t),), {"shape": t.shape})[0]
    taken.update(map(id, layers_of(made)))
    return made


class _Below(Node):
    """The tape entry of a `Function` in a layer below the one that it was called in."""

    __slots__ = ("above", "given", "layer", "outputs")

    def __init__(
        self, above: Node, layer: Layer, given: Sequence[Any], outputs: Sequence[Any], inner: Sequence[Any]
    ) -> None:
        super().__init__([edge_of(a) if isinstance(a, TensorBase) else None for a in inner], ())
        self.above = above
        self.layer = layer
        self.given = tuple([_is_batched(a) for a in given])
        self.outputs = tuple([_is_batched(t) for t in outputs])

    def name(self) -> str:
        return self.above.name()

    @property
    def operation(self) -> str:
        return self.above.operation

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        layer = self.layer
        with contextlib.nullcontext() if layer in MODES.layers else layer, _primals(layer):
            lifted = [_lifted(layer, g, b) for g, b in zip(grads, self.outputs, strict=True)]
            made = self.above.apply(lifted, running)
            return [_lowered(layer, g, b) for g, b in zip(made, self.given, strict=True)]

    def release(self) -> None:
        self.above.release()


@contextlib.contextmanager
def _primals(layer: Layer) -> Iterator[None]:
    """No tangents, which may be of a transform that is over: gradients below are those of the primals."""
    if not isinstance(layer, DualLayer):
        yield
        return
    before = layer.muted
    layer.muted = True
    try:
        yield
    finally:
        layer.muted = before


def _is_batched(t: Any) -> bool:
    return is_layered(t) and bool(getattr(content_of(t), "batched", False))


def _lifted(layer: Any, g: Any, batched: bool) -> Any:
    """A gradient of the layer below as one of this layer."""
    if g is None:
        return None
    return layer.wrap(g, batched) if isinstance(layer, BatchLayer) else layer.lift(g)


def _lowered(layer: Any, g: Any, batched: bool) -> Any:
    """A gradient of this layer as one of the layer below: what is not batched has one for the whole batch."""
    if g is None:
        return None
    if not isinstance(layer, BatchLayer):
        return layer.open(g)[0]
    inner, own = layer.open(g)
    if batched:
        return spread(inner, own, layer.size)
    return OPS["sum"](inner, dims=(0,)) if own else inner


def _attach_below(
    above: Node, layer: Layer, given: Sequence[Any], outputs: Sequence[Any], free: Sequence[bool], tracked: bool
) -> _Below:
    """Nodes in the layers below, as far down as arguments have histories."""
    inner = [content_of(a).inner if isinstance(a, TensorBase) else a for a in given]
    below = _Below(above, layer, given, outputs, inner)
    results = [content_of(t).inner if isinstance(t, TensorBase) else t for t in outputs]
    below.results = tuple([t.ttype if isinstance(t, TensorBase) else None for t in results])  # type: ignore[misc]
    if tracked and any(isinstance(a, TensorBase) and a._flags & REQUIRES_GRAD for a in inner):
        for k, t in enumerate(results):
            if free[k]:
                attach_one(t, below, k)
    deeper = [a for a in inner if is_layered(a)]
    if deeper:
        next_layer = highest(deeper)
        lifted = [on(next_layer, a) if isinstance(a, TensorBase) else a for a in inner]
        for t, r in zip(outputs, results, strict=True):
            if isinstance(t, TensorBase) and not owned(r, next_layer):
                content_of(t).inner = on(next_layer, r)
        lower = [content_of(t).inner if isinstance(t, TensorBase) else t for t in outputs]
        _attach_below(below, next_layer, lifted, lower, free, tracked)
    return below


def _push(
    name: str, layer: DualLayer, below: _Below, given: Sequence[Any], outputs: Sequence[Any], free: Sequence[bool]
) -> None:
    """Give results the tangents that the backward says."""
    positions = [k for k, a in enumerate(given) if isinstance(a, TensorBase) and a.dtype.is_inexact]
    tangents = [layer.open(given[k])[1] for k in positions]
    places = [k for k, is_free in enumerate(free) if is_free]
    results = [content_of(outputs[k]).inner for k in places]
    pushed: Sequence[Any] = (None,) * len(places)
    if any(t is not None for t in tangents):
        rule = _derivative(below, positions, places, results, len(outputs))
        pushed = layer.push(name, rule, tangents, results, ())
    for k, t in zip(places, pushed, strict=True):
        content_of(outputs[k]).become(t)


def _derivative(
    below: _Below, positions: Sequence[int], places: Sequence[int], results: Sequence[Any], count: int
) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The map from tangents of the arguments at `positions` to those of the results: the transpose of the backward."""

    def push(tangents: Sequence[Any]) -> Sequence[Any]:
        with enable_grad():
            seeds = [_seed(r) for r in results]
            grads: list[Any] = [None] * count
            for k, s in zip(places, seeds, strict=True):
                grads[k] = s
            made = below.apply(grads, ())
            pairs = [(made[k], t) for k, t in zip(positions, tangents, strict=True) if t is not None]
            pairs = [(m, t) for m, t in pairs if m is not None and m.requires_grad]
            if not pairs:
                return (None,) * len(places)
            return walk_back(
                [m for m, _ in pairs], seeds, [t for _, t in pairs], create_graph=True, allow_unused=True
            )  # fmt: skip

    return push


def _seed(result: Any) -> Any:
    """A leaf like a result, in its layer."""
    zeros = OPS["copy"](zeros_of(result.ttype, result))
    return (on(content_of(result).layer, zeros) if is_layered(result) else zeros).requires_grad_()
