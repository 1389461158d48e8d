"""The walk back over the tape: `backward` and `grad`.

Nodes are visited by descending sequence number, so a node is reached after all its consumers; the gradient of a value
is the left fold over its uses in reverse program order (within one op: in operand order), and a use without a gradient
adds nothing. That order is part of the numerics contract: compiled backwards follow the same one. Hooks of leaves run
when the walk is over, in the order in which the leaves were reached.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from kiln.autograd.anomaly import apply_watched
from kiln.autograd.grad_mode import GradMode
from kiln.autograd.tape import ANOMALY, Edge, Node, edge_of, refresh, resolved, write_in_place
from kiln.base import HOOKED, MODES, READONLY, REQUIRES_GRAD, TensorBase
from kiln.errors import ArgumentError, GradError, InvalidValueError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.promotion import same_place

if TYPE_CHECKING:
    from kiln.tensor import Tensor


class Walk:
    """One walk over the tape: the gradients gathered so far, by node and by leaf."""

    def __init__(self) -> None:
        self.pending: dict[Node, list[Any]] = {}
        self.heap: list[tuple[int | Fraction, Node]] = []
        self.leaves: dict[Tensor, Any] = {}  # tensors hash by identity
        self.shown = False
        """Whether code of the user's saw gradients: it may have kept some, so none of them is taken over."""

    def so_far(self, edge: Edge) -> Any:
        edge = resolved(edge)
        if edge is None:
            return None
        target, index = edge
        if isinstance(target, Node):
            grads = self.pending.get(target)
            return None if grads is None else grads[index]
        return self.leaves.get(target)

    def put(self, edge: Edge, grad: Any) -> None:
        edge = resolved(edge)
        if edge is None or grad is None:
            return
        target, index = edge
        if not isinstance(target, Node):
            self.leaves[target] = grad
            return
        grads = self.pending.get(target)
        if grads is None:
            grads = self.pending[target] = [None] * len(target.results)
            heapq.heappush(self.heap, (-target.sequence, target))
        grads[index] = grad

    def add(self, edge: Edge, grad: Any) -> None:
        """Fold one more use in."""
        if grad is None:
            return
        edge = resolved(edge)
        if edge is None:
            return
        so_far = self.so_far(edge)
        self.put(edge, grad if so_far is None else OPS["add"](so_far, grad))

    def run(self, wanted: dict[Edge, Any], useful: set[Node] | None, retain_graph: bool, above: int = 0) -> None:
        """Visit nodes by descending sequence number, only `useful` ones if given, and those `above` a number; note the
        gradients of the `wanted` edges in that table."""
        while self.heap and -self.heap[0][0] > above:
            _, node = heapq.heappop(self.heap)
            grads = self.pending.pop(node, None)
            if grads is None:  # expanded since it was put here
                continue
            needed = useful is None or node in useful
            if MODES.recorder is not None and (needed or node.hooks is not None):
                MODES.recorder.walk(node)
            if node.continues_fold and node.hooks is not None and _tangled(node, node.hooks.places(), grads):
                self._expand(node, grads)
                continue
            if node.hooks is not None and (needed or any((node, i) in wanted for i in range(len(grads)))):
                grads = node.hooks.on_results(grads)
            if wanted:
                for i, grad in enumerate(grads):
                    if (node, i) in wanted:
                        wanted[(node, i)] = grad
            if not needed:
                continue
            self._apply(node, grads)
            if not retain_graph:
                node.release()

    def _apply(self, node: Node, grads: Sequence[Any]) -> None:
        """Let one node's gradients flow on."""
        self.shown |= node.hooks is not None or node.runs_user_code
        if node.hooks is not None:
            grads = node.hooks.on_node(grads)
        running = [self.so_far(e) for e in node.edges] if node.continues_fold else ()
        made = apply_watched(node, grads, running) if ANOMALY.enabled else node.apply(grads, running)
        if node.hooks is not None:
            made = node.hooks.on_applied(made, grads)
        if node.continues_fold:
            for edge, total in zip(node.edges, made, strict=True):
                self.put(edge, total)
        else:
            for edge, grad in zip(node.edges, made, strict=True):
                self.add(edge, grad)

    def _untangle(self, edges: Sequence[Edge]) -> None:
        """Expand nodes that stand for many where a gradient enters by one result and is wanted at another one that lies
        behind it."""
        places: dict[Node, set[int]] = {}
        for e in edges:
            if e is not None and isinstance(e[0], Node) and e[0].continues_fold:
                places.setdefault(e[0], set()).add(e[1])
        while places:
            entered = _entered(self.pending)
            node = next((n for n, at in places.items() if n in entered and _tangled(n, at, entered[n])), None)
            if node is None:
                return
            if MODES.recorder is not None:
                MODES.recorder.walk(node)
            del places[node]
            self._expand(node, self.pending.pop(node, ()))

    def _expand(self, node: Node, grads: Sequence[Any]) -> None:
        """Put the nodes that a node stands for in its place."""
        node.expand()
        for i, grad in enumerate(grads):
            self.add(resolved((node, i)), grad)

    def find(self, inputs: Sequence[Any], retain_graph: bool) -> list[Any]:
        """Run as far as `inputs` need; their gradients, None where nothing leads to them."""
        self._untangle([resolved(edge_of(t)) for t in inputs])
        edges = [resolved(edge_of(t)) for t in inputs]
        wanted: dict[Edge, Any] = {e: None for e in edges if e is not None and isinstance(e[0], Node)}
        self.run(wanted, _leading_to(edges, self.pending), retain_graph)
        found = []
        for t, e in zip(inputs, edges, strict=True):
            total = wanted[e] if e in wanted else self.so_far(e)
            hooked = total is not None and t._node is None and t._flags & HOOKED
            found.append(t._hooks.on_result(0, total) if hooked else total)
        return found


def _tangled(node: Node, places: Iterable[int], grads: Sequence[Any]) -> bool:
    """Whether a gradient that comes in for one result flows past another one, which is one of `places`."""
    behind = {k for i, grad in enumerate(grads) if grad is not None for k in node.behind(i)}
    return not behind.isdisjoint(places)


def _entered(starts: dict[Node, list[Any]]) -> dict[Node, list[Any]]:
    """The nodes reached from `starts`, with something at each result by which a gradient may come in."""
    entered = {node: list(grads) for node, grads in starts.items()}
    todo = list(entered)
    while todo:
        for e in map(resolved, todo.pop().edges):
            node = None if e is None else e[0]
            if e is not None and isinstance(node, Node):
                if node not in entered:
                    entered[node] = [None] * len(node.results)
                    todo.append(node)
                entered[node][e[1]] = True
    return entered


def _leading_to(edges: Sequence[Edge], starts: Iterable[Node]) -> set[Node]:
    """The nodes reached from `starts` whose gradients flow on to one of `edges`."""
    goals = {(id(e[0]), e[1]) for e in edges if e is not None}
    reached: dict[Node, None] = {}
    todo = list(starts)
    while todo:
        node = todo.pop()
        if node not in reached:
            reached[node] = None
            todo.extend(e[0] for e in map(resolved, node.edges) if e is not None and isinstance(e[0], Node))
    useful: set[Node] = set()
    for node in sorted(reached, key=lambda n: n.sequence):  # producers first
        for e in map(resolved, node.edges):
            if e is not None and ((id(e[0]), e[1]) in goals or e[0] in useful):
                useful.add(node)
    return useful


Tensors: TypeAlias = "Tensor | Sequence[Tensor]"
Gradients: TypeAlias = "Tensor | Sequence[Tensor | None] | None"


def _expand(outputs: Sequence[Any]) -> None:
    """Expand every node behind `outputs` that can be."""
    todo = [edge_of(t) for t in outputs if isinstance(t, TensorBase)]
    seen: set[Node] = set()
    while todo:
        edge = resolved(todo.pop())
        if edge is not None and isinstance(edge[0], Node) and edge[0] not in seen:
            seen.add(edge[0])
            edge[0].expand()
            todo.extend([edge] if edge[0].expansion is not None else edge[0].edges)


def _tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, TensorBase) or not isinstance(x, Iterable) else tuple(x)


def _start(name: str, outputs: Sequence[Any], gradients: Sequence[Any]) -> Walk:
    """Seed the walk: each output with its gradient, 1 for those of one element."""
    if len(outputs) != len(gradients):
        raise ShapeError(f"{len(gradients)} gradients for {len(outputs)} outputs", op=name)
    walk = Walk()
    if MODES.recorder is not None:
        MODES.recorder.differentiated = True
    for out, grad in zip(outputs, gradients, strict=True):
        if not isinstance(out, TensorBase):
            raise ArgumentError(f"gradients start from tensors, not {type(out).__name__}", op=name)
        if out._view is not None:
            refresh(out)
        if not out._flags & REQUIRES_GRAD:
            raise GradError(
                "this tensor does not require a gradient: nothing it was computed from does",
                op=name,
                operands=[out.ttype],
                fix="call requires_grad_() on an input, and compute it outside no_grad()",
            )
        if grad is None:
            if out._layout.numel != 1:
                raise GradError(
                    "a gradient can start by itself only from a tensor of one element",
                    op=name,
                    operands=[out.ttype],
                    fix="reduce it (for example with sum()), or pass the gradient",
                )
            if out.dtype.is_complex:
                raise GradError(
                    "a gradient can start by itself only from a real number",
                    op=name,
                    operands=[out.ttype],
                    fix="take its abs() or .real, or pass the gradient",
                )
            (grad,) = OPS["full"].bind((), {"shape": out.shape, "dtype": out.dtype, "value": 1.0}, receiver=out)
        elif not isinstance(grad, TensorBase) or grad.ttype != out.ttype:
            if isinstance(grad, TensorBase):
                same_place(name, (out, grad))
            got = grad.ttype if isinstance(grad, TensorBase) else type(grad).__name__
            raise ShapeError(f"the gradient of a {out.ttype} can't be a {got}", op=name, fix="pass one of its shape")
        walk.add(edge_of(out), grad)
    return walk


def backward(
    tensors: Tensors,
    grad_tensors: Gradients = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Gradients = None,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of `tensors` to the `.grad` of every leaf they depend on, or of `inputs` alone.

    `grad_tensors` are the gradients to start from (1 for one-element tensors when not given). What the tape
    saved is dropped unless `retain_graph` (default: `create_graph`); with `create_graph` the gradients are
    themselves on the tape. GradError when nothing requires a gradient, or the tape is gone.
    """
    if grad_variables is not None:
        raise ArgumentError("grad_variables is an old name", op="backward", fix="call it grad_tensors")
    outputs = _tuple(tensors)
    given = _tuple(grad_tensors) if grad_tensors is not None else (None,) * len(outputs)
    retain = create_graph if retain_graph is None else retain_graph
    chosen = None if inputs is None else _inputs("backward", inputs)
    if chosen == ():
        raise InvalidValueError("inputs is empty", op="backward", fix="leave it out to reach every leaf")
    if create_graph or ANOMALY.enabled:
        _expand(outputs)
    with GradMode(create_graph):
        walk = _start("backward", outputs, given)
        if chosen is None:
            walk.run({}, None, retain)
            totals = walk.leaves
        else:
            totals = dict(zip(chosen, walk.find(chosen, retain), strict=True))
        taken = {id(g._buffer) for g in given if g is not None}
        for leaf, total in totals.items():
            if total is None:
                continue
            hooked = leaf._flags & HOOKED
            if hooked and chosen is None:
                total = leaf._hooks.on_result(0, total)
            if hooked or walk.shown:
                taken.add(id(total._buffer))
            _accumulate(leaf, total, taken, create_graph)
            if hooked:
                leaf._hooks.on_accumulated(leaf)


def _accumulate(leaf: Any, grad: Any, taken: set[int], create_graph: bool) -> None:
    """leaf.grad += grad. Without create_graph an existing gradient is updated in place, and a new one gets
    memory of its own: gradients of several leaves may be views of one tensor."""
    before = leaf.grad
    if before is not None:
        if create_graph:
            leaf.grad = OPS["add"](before, grad)
        else:
            write_in_place(before, "backward", OPS["add"], (before, grad), {})
        return
    shared = id(grad._buffer) in taken or not grad._layout.contiguous
    if grad._flags & READONLY or (shared and not create_graph):
        grad = OPS["copy"](grad)
    taken.add(id(grad._buffer))
    leaf.grad = grad


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Gradients = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of `outputs` with respect to `inputs`, one per input, without touching any `.grad`.

    Arguments as in `backward`. An input that no output depends on is a GradError, None in the result with
    `allow_unused`, or zeros with `materialize_grads`.
    """
    if not only_inputs:
        raise InvalidValueError("only_inputs must be True", op="grad", fix="use backward to fill .grad")
    if is_grads_batched:
        rest = (retain_graph, create_graph, True, allow_unused, False, materialize_grads)
        return _batched(outputs, inputs, grad_outputs, rest)
    if materialize_grads and allow_unused is False:
        raise InvalidValueError("materialize_grads needs allow_unused", op="grad", fix="leave allow_unused out")
    outs, ins = _tuple(outputs), _inputs("grad", inputs)
    given = _tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outs)
    retain = create_graph if retain_graph is None else retain_graph
    if create_graph or ANOMALY.enabled:
        _expand(outs)
    with GradMode(create_graph):
        found = _start("grad", outs, given).find(ins, retain)
        for k, (t, g) in enumerate(zip(ins, found, strict=True)):
            if g is None and materialize_grads:
                (found[k],) = OPS["full"].bind((), {"shape": t.shape, "dtype": t.dtype, "value": 0.0}, receiver=t)
            elif g is None and not allow_unused:
                raise GradError(
                    "an input was not used in computing the outputs",
                    op="grad",
                    operands=[t.ttype],
                    fix="pass allow_unused=True to get None for it",
                )
        # The user may write to a result or set flags on it: never hand out a shared constant.
        return tuple([g if g is None or not g._flags & READONLY else OPS["copy"](g) for g in found])


def _batched(outputs: Tensors, inputs: Tensors, grad_outputs: Gradients, rest: Sequence[Any]) -> tuple[Any, ...]:
    """`grad` for a batch of gradients: dimension 0 of each, and of the results."""
    from kiln.vmap import vmap  # lies above this file

    if grad_outputs is None:
        raise InvalidValueError("is_grads_batched without grad_outputs", op="grad", fix="pass a batch of them")
    unused: list[bool] = []

    def one(*gradients: Any) -> Any:
        found = grad(outputs, inputs, gradients, *rest)
        unused[:] = [g is None for g in found]
        return tuple([g for g in found if g is not None])

    made = iter(vmap(one)(*_tuple(grad_outputs)))
    return tuple([None if missing else next(made) for missing in unused])


def _inputs(name: str, inputs: Any) -> tuple[Any, ...]:
    """Tensors to differentiate with respect to."""
    tensors = _tuple(inputs)
    for t in tensors:
        if not isinstance(t, TensorBase):
            raise ArgumentError(f"gradients are taken with respect to tensors, not a {type(t).__name__}", op=name)
        if t._view is not None:
            refresh(t)
        if not t._flags & REQUIRES_GRAD:
            raise GradError(
                "an input does not require a gradient", op=name, operands=[t.ttype], fix="requires_grad_() it first"
            )
    return tensors
