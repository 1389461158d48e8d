"""Reverse-mode differentiation: the tape, and the walk back over it.

Every op applied while gradients are wanted leaves a `Node` with a sequence number. `backward` visits nodes
by descending number, so a node is reached after all its consumers; the gradient of a value is the left fold
over its uses in reverse program order (within one op: in operand order), and a use without a gradient adds
nothing. That order is part of the numerics contract: compiled backwards follow the same one.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

from kiln import dispatch
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase, View
from kiln.errors import ArgumentError, GradError, ShapeError
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS, Call, OpDef
from kiln.ir.ops.movement import inverse
from kiln.ir.types import TensorType

if TYPE_CHECKING:
    from kiln.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_sequence = itertools.count(1 << 20, 1 << 20)
"""Numbers of tape nodes. Between two of them there is room for the nodes that one node expands to."""


# ------------------------------------------------------------------------------------------ grad modes


class set_grad_enabled:
    """Turn the tape on or off for this thread: at once, within a `with` block, or around a function."""

    def __init__(self, mode: bool) -> None:
        self._before = MODES.grad_enabled
        self._mode = bool(mode)
        MODES.grad_enabled = self._mode

    def __enter__(self) -> None:
        MODES.grad_enabled = self._mode

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODES.grad_enabled = self._before

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate: `function` runs in this mode (which then does not last outside)."""
        MODES.grad_enabled = self._before
        return _decorate(function, self._mode)


def _decorate(function: Callable[P, R], mode: bool) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with _GradMode(mode):
            return function(*args, **kwargs)

    return wrapped


class _GradMode:
    """A `with` block or decorator that sets the mode on entry; may be entered again and nested."""

    mode: bool

    def __init__(self, mode: bool | None = None) -> None:
        if mode is not None:
            self.mode = mode
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(MODES.grad_enabled)
        MODES.grad_enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODES.grad_enabled = self._before.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return _decorate(function, self.mode)


class no_grad(_GradMode):
    """`with no_grad():` or `@no_grad()`: ops leave no trace on the tape."""

    mode = False

    def __init__(self) -> None:
        super().__init__()


class enable_grad(_GradMode):
    """`with enable_grad():` or `@enable_grad()`: the tape records again inside a `no_grad` block."""

    mode = True

    def __init__(self) -> None:
        super().__init__()


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded now."""
    return MODES.grad_enabled


# ------------------------------------------------------------------------------------------------ tape


Edge: TypeAlias = "tuple[Node | Tensor, int] | None"
"""Where a gradient goes: a node and the index of its result, or a leaf tensor and 0; None: nowhere."""


class Node:
    """One entry of the tape. Subclasses say how gradients of results become gradients of inputs."""

    __slots__ = ("edges", "expansion", "results", "sequence")

    continues_fold = False
    """True: `apply` gets the running gradients of its inputs and returns them with its own uses folded in."""

    def __init__(self, edges: Sequence[Edge], results: Sequence[TensorType]) -> None:
        self.sequence = next(_sequence)
        self.edges = tuple(edges)
        self.results = tuple(results)
        self.expansion: tuple[Edge, ...] | None = None
        """Where gradients of the results go instead, once `expand` put finer nodes on the tape."""

    def expand(self) -> None:
        """Called before derivatives of gradients are computed: a node that stands for many may set `expansion`."""

    @property
    def name(self) -> str:
        """What messages and repr call this node."""
        return type(self).__name__

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Gradients of the inputs from those of the results (None: no influence), one per edge.

        `running` holds, only when `continues_fold`, what each input has gathered so far.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Forget what was saved: the graph is not kept."""
        raise NotImplementedError


def edge_of(tensor: TensorBase) -> Edge:
    """Where gradients of `tensor` go."""
    if tensor._node is not None:
        return (tensor._node, tensor._index)
    return (cast("Tensor", tensor), 0) if tensor._flags & REQUIRES_GRAD else None


def resolved(edge: Edge) -> Edge:
    """`edge`, or where it leads when its node was expanded."""
    while edge is not None and isinstance(edge[0], Node) and edge[0].expansion is not None:
        edge = edge[0].expansion[edge[1]]
    return edge


def attach(node: Node, results: Sequence[TensorBase]) -> None:
    """Make `results` the outputs of `node`; those that are not floating point take no part."""
    for i, t in enumerate(results):
        if t._layout.dtype.kind == "float":
            t._node = node
            t._index = i
            t._flags |= REQUIRES_GRAD


class Untouched:
    """Stands for an operand that was not saved: its type is all a derivative rule may ask for."""

    __slots__ = ("ttype",)

    def __init__(self, ttype: TensorType) -> None:
        self.ttype = ttype

    def __kiln_bind__(self, op: Any, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        raise AssertionError(f"{op.name} was applied to an operand that its rule did not declare as saved")


class OpNode(Node):
    """The tape entry of one op: what its derivative rule needs."""

    __slots__ = ("attrs", "needs", "op", "operands", "saved_results", "versions")

    def __init__(
        self, op: OpDef, operands: Sequence[Any], attrs: Attrs, results: Sequence[Any], keep_results: bool
    ) -> None:
        super().__init__([edge_of(t) for t in operands], [t._layout.ttype for t in results])
        self.op = op
        self.attrs = attrs
        self.needs = tuple([e is not None for e in self.edges])
        saved = op.saved_operands
        self.operands: tuple[Any, ...] | None = tuple(
            [t if i in saved else Untouched(t._layout.ttype) for i, t in enumerate(operands)]
        )
        self.saved_results = tuple([_saved_result(t, keep_results) for t in [results[i] for i in op.saved_results]])
        # The memory that the rule will read, with its version: a later in-place write is an error.
        self.versions = tuple(
            [(t._buffer, t._buffer.version) for t in [operands[i] for i in saved]]
            + [(t._buffer, t._buffer.version) for t in self.saved_results]
        )

    @property
    def name(self) -> str:
        return f"{self.op.name.title().replace('_', '')}Backward"

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self.operands is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op=self.op.name,
                fix="call backward or grad with retain_graph=True the first time",
            )
        for buffer, version in self.versions:
            if buffer.version != version:
                raise GradError(
                    "a tensor that its gradient needs was modified in place after the op "
                    f"(it is at version {buffer.version}, was saved at {version})",
                    op=self.op.name,
                    fix="do the in-place write before the op reads the tensor, or write to a clone()",
                )
        if self.op.vjp is None:
            raise GradError(f"{self.op.name} has no derivative", op=self.op.name)
        call = Call(self.operands, self._call_results(), self.attrs, self.needs)
        return cast("Sequence[Tensor | None]", self.op.vjp(call, *grads))

    def _call_results(self) -> tuple[Any, ...]:
        """Results as the rule sees them, saved ones joined to this node for higher derivatives."""
        results: list[Any] = [Untouched(t) for t in self.results]
        for i, t in zip(self.op.saved_results, self.saved_results, strict=True):
            if t._node is None and MODES.grad_enabled:
                t = type(t)(t._buffer, t._ptr, t._layout, t._flags)
                attach_one(t, self, i)
            results[i] = t
        return tuple(results)

    def release(self) -> None:
        if self.op.saved_operands or self.op.saved_results:
            self.operands = None
            self.saved_results = ()
            self.versions = ()


def attach_one(tensor: TensorBase, node: Node, index: int) -> None:
    """Make `tensor` result `index` of `node`."""
    tensor._node = node
    tensor._index = index
    tensor._flags |= REQUIRES_GRAD


def _saved_result(t: Any, keep: bool) -> Any:
    """A record on the same memory without the node, so that no reference cycle keeps it alive. A capture
    knows values by their tensors, so there the very tensor is kept."""
    return t if keep else type(t)(t._buffer, t._ptr, t._layout, t._flags & READONLY)


def record(op: OpDef, operands: Sequence[Any], attrs: Attrs, results: Sequence[Any]) -> None:
    """Put an op that was just executed on the tape if one of its operands wants gradients."""
    for t in operands:
        if t._view is not None:
            refresh(t)
    if any(t._flags & REQUIRES_GRAD for t in operands):
        attach(OpNode(op, operands, attrs, results, MODES.recorder is not None), results)


# ----------------------------------------------------------------------------------- views and writes


def track_view(op: OpDef, operand: Any, attrs: Attrs, result: Any) -> None:
    """Note how `result`, a view on `operand`'s memory, is made, so that in-place writes can be told apart."""
    version = result._buffer.version
    parent: View | None = operand._view
    chain: tuple[tuple[OpDef, Attrs], ...] | None
    if parent is None:
        chain = ((op, attrs),) if MODES.grad_enabled else None
        result._view = View(operand, chain, version)
    else:
        chain = (*parent.chain, (op, attrs)) if parent.chain is not None and MODES.grad_enabled else None
        result._view = View(parent.base, chain, version)


def refresh(t: Any) -> None:
    """Bring a view's history up to date: after its memory was written through another view or its base, its
    gradient goes through the base's new history."""
    view: View = t._view
    if view.version == t._buffer.version or view.chain is None:
        return
    view.version = t._buffer.version
    if not view.base._flags & REQUIRES_GRAD:
        t._node = None
        t._flags &= ~REQUIRES_GRAD
        return
    fresh: Any = view.base
    with enable_grad():
        for op, attrs in view.chain:
            (fresh,) = op.bind((fresh,), attrs)
    attach_one(t, fresh._node, fresh._index)


def check_writable(t: Any, name: str) -> None:
    """Raise unless `t` may be written in place now."""
    if t._flags & READONLY:
        raise GradError(f"{name} would write to read-only memory", operands=[t.ttype], fix="write to a clone()")
    if t._layout.expanded:
        raise GradError(
            f"{name} on an expanded tensor: several elements share one place in memory",
            operands=[t.ttype],
            fix="clone() it first",
        )
    if not MODES.grad_enabled:
        return
    leaf = t._view.base if t._view is not None else t
    if leaf._flags & REQUIRES_GRAD and leaf._node is None:
        what = "a view of a leaf" if t._view is not None else "a leaf"
        raise GradError(
            f"{name} on {what} that requires a gradient",
            operands=[t.ttype],
            fix="do it inside kiln.no_grad()",
        )


def write_in_place(t: Any, name: str, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> None:
    """t[...] = op(*operands): memory, version, tape and capture. `op` is pointwise, its result of t's type;
    `operands` may hold `t` itself."""
    check_writable(t, name)
    taped = MODES.grad_enabled and any(map(_wants_grad, (t, *operands)))
    if not taped and MODES.recorder is None:
        dispatch.write(t, op, operands, attrs)
        return
    if taped:
        # The rule may read operands later, when this memory holds the result: it gets a copy.
        operands = [OPS["copy"](x) if x is t and i in op.saved_operands else x for i, x in enumerate(operands)]
    # A plain copy needs no operation of its own, unless its history differs from its source's.
    new = operands[0] if op.name == "copy" and not taped else op.bind(operands, attrs)[0]
    if taped:
        _rebase(t, name, new)
    dispatch.write(t, OPS["copy"], (new,), {})
    if MODES.recorder is not None:
        MODES.recorder.record_write(t, new)


def _wants_grad(t: Any) -> bool:
    """Whether gradients flow through `t`, or would once the view `t` is brought up to date."""
    return bool(t._flags & REQUIRES_GRAD or (t._view is not None and t._view.base._flags & REQUIRES_GRAD))


def _rebase(t: Any, name: str, new: Any) -> None:
    """Give `t` (through its base, when it is a view) the history of `new`."""
    view: View | None = t._view
    if view is None:
        _take_history(t, new)
        return
    if view.chain is None:
        raise GradError(
            f"{name} on a view that was made with gradients disabled, while they are enabled",
            operands=[t.ttype],
            fix="make the view outside no_grad(), or write to the base",
        )
    _take_history(view.base, _put(view.base, view.chain, new))


def _take_history(t: Any, new: Any) -> None:
    """`t` was overwritten by `new`: its gradient goes where that of `new` goes, and nowhere if that has none."""
    t._node, t._index = new._node, new._index
    t._flags = (t._flags & ~REQUIRES_GRAD) | (new._flags & REQUIRES_GRAD)


def _put(base: Any, chain: Sequence[tuple[OpDef, Attrs]], value: Any) -> Any:
    """`base` with the part that `chain` views replaced by `value`."""
    if not chain:
        return value
    (op, attrs), rest = chain[0], chain[1:]
    if rest:
        value = _put(op(base, **attrs), rest, value)
    if op.name == "slice":
        return OPS["slice_scatter"](base, value, **attrs)
    if op.name == "reshape":
        return OPS["reshape"](value, shape=base.shape)
    if op.name == "permute":
        return OPS["permute"](value, dims=inverse(cast("tuple[int, ...]", attrs["dims"])))
    raise GradError(f"no in-place write through {op.name}", fix="write to a clone()")


# ------------------------------------------------------------------------------------------- backward


class _Walk:
    """One walk over the tape: the gradients gathered so far, by node and by leaf."""

    def __init__(self) -> None:
        self.pending: dict[Node, list[Any]] = {}
        self.heap: list[tuple[int, Node]] = []
        self.leaves: dict[Tensor, Any] = {}  # tensors hash by identity

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
        if edge is None or grad is None:
            return
        so_far = self.so_far(edge)
        self.put(edge, grad if so_far is None else OPS["add"](so_far, grad))

    def run(self, wanted: dict[Edge, Any], useful: set[Node] | None, retain_graph: bool) -> None:
        """Visit nodes by descending sequence number, only `useful` ones if given; note the gradients of the
        `wanted` edges in that table."""
        while self.heap:
            _, node = heapq.heappop(self.heap)
            grads = self.pending.pop(node)
            for i, grad in enumerate(grads):
                if (node, i) in wanted:
                    wanted[(node, i)] = grad
            if useful is not None and node not in useful:
                continue
            if node.continues_fold:
                totals = node.apply(grads, [self.so_far(e) for e in node.edges])
                for edge, total in zip(node.edges, totals, strict=True):
                    self.put(edge, total)
            else:
                for edge, grad in zip(node.edges, node.apply(grads, ()), strict=True):
                    self.add(edge, grad)
            if not retain_graph:
                node.release()


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
    return (x,) if isinstance(x, TensorBase) or x is None else tuple(x)


def _start(outputs: Sequence[Any], gradients: Sequence[Any]) -> _Walk:
    """Seed the walk: each output with its gradient, 1 for those of one element."""
    if len(outputs) != len(gradients):
        raise ShapeError(f"{len(gradients)} gradients for {len(outputs)} outputs")
    walk = _Walk()
    for out, grad in zip(outputs, gradients, strict=True):
        if not isinstance(out, TensorBase):
            raise ArgumentError(f"gradients start from tensors, not {type(out).__name__}")
        if out._view is not None:
            refresh(out)
        if not out._flags & REQUIRES_GRAD:
            raise GradError(
                "this tensor does not require a gradient: nothing it was computed from does",
                operands=[out.ttype],
                fix="call requires_grad_() on an input, and compute it outside no_grad()",
            )
        if grad is None:
            if out._layout.numel != 1:
                raise GradError(
                    "a gradient can start by itself only from a tensor of one element",
                    operands=[out.ttype],
                    fix="reduce it (for example with sum()), or pass the gradient",
                )
            (grad,) = OPS["full"].bind((), {"shape": out.shape, "dtype": out.dtype, "value": 1.0}, receiver=out)
        elif not isinstance(grad, TensorBase) or grad.ttype != out.ttype:
            got = grad.ttype if isinstance(grad, TensorBase) else type(grad).__name__
            raise ShapeError(f"the gradient of a {out.ttype} can't be a {got}")
        walk.add(edge_of(out), grad)
    return walk


def backward(
    tensors: Tensors,
    grad_tensors: Gradients = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradients of `tensors` to the `.grad` of every leaf they depend on.

    `grad_tensors` are the gradients to start from (1 for one-element tensors when not given). What the tape
    saved is dropped unless `retain_graph` (default: `create_graph`); with `create_graph` the gradients are
    themselves on the tape. GradError when nothing requires a gradient, or the tape is gone.
    """
    outputs = _tuple(tensors)
    given = _tuple(grad_tensors) if grad_tensors is not None else (None,) * len(outputs)
    retain = create_graph if retain_graph is None else retain_graph
    if create_graph:
        _expand(outputs)
    with _GradMode(create_graph):
        walk = _start(outputs, given)
        walk.run({}, None, retain)
        taken = {id(g._buffer) for g in given if g is not None}
        for leaf, total in walk.leaves.items():
            _accumulate(leaf, total, taken, create_graph)


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
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of `outputs` with respect to `inputs`, one per input, without touching any `.grad`.

    Arguments as in `backward`. An input that no output depends on is a GradError, or None in the result
    with `allow_unused`.
    """
    outs, ins = _tuple(outputs), _tuple(inputs)
    given = _tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outs)
    retain = create_graph if retain_graph is None else retain_graph
    for t in ins:
        if t._view is not None:
            refresh(t)
        if not t._flags & REQUIRES_GRAD:
            raise GradError(
                "an input of grad() does not require a gradient",
                operands=[t.ttype],
                fix="requires_grad_() it first",
            )
    if create_graph:
        _expand(outs)
    edges = [resolved(edge_of(t)) for t in ins]
    with _GradMode(create_graph):
        walk = _start(outs, given)
        wanted: dict[Edge, Any] = {e: None for e in edges if e is not None and isinstance(e[0], Node)}
        walk.run(wanted, _leading_to(edges, walk.pending), retain)
        found = [wanted[e] if e in wanted else walk.so_far(e) for e in edges]
        for t, g in zip(ins, found, strict=True):
            if g is None and not allow_unused:
                raise GradError(
                    "an input was not used in computing the outputs",
                    operands=[t.ttype],
                    fix="pass allow_unused=True to get None for it",
                )
        # The user may write to a result or set flags on it: never hand out a shared constant.
        return tuple([g if g is None or not g._flags & READONLY else OPS["copy"](g) for g in found])
