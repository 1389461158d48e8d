"""The tape of reverse-mode differentiation, views, and writes in place.

Every op applied while gradients are wanted leaves a `Node` with a sequence number; `backward.py` walks back over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence, Set
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kiln import dispatch
from kiln.autograd import hooks
from kiln.autograd.grad_mode import enable_grad
from kiln.base import LAYERED, MODES, READONLY, REQUIRES_GRAD, RETAINS, Layout, TensorBase, View, on_memory
from kiln.errors import GradError
from kiln.ir.graph import Attrs, SourceLoc
from kiln.ir.ops.base import OPS, Call, OpDef, Vjp
from kiln.ir.ops.movement import inverse
from kiln.ir.ops.pairs import INVERSES
from kiln.ir.types import TensorType, bool_
from kiln.location import user_location

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_sequence = itertools.count(1 << 20, 1 << 20)
"""Numbers of tape nodes. Between two of them there is room for the nodes that one node expands to."""


def next_sequence() -> int:
    """A number that no node has, between those of the nodes before and after."""
    return next(_sequence)


# ------------------------------------------------------------------------------------------------ tape


Edge: TypeAlias = "tuple[Node | Tensor, int] | None"
"""Where a gradient goes: a node and the index of its result, or a leaf tensor and 0; None: nowhere."""


class _Anomaly:
    """Whether nodes note the line that made them, and whether their gradients are searched for NaNs."""

    def __init__(self) -> None:
        self.enabled = False
        self.check_nan = True


ANOMALY = _Anomaly()


class Node:
    """One entry of the tape. Subclasses say how gradients of results become gradients of inputs."""

    __slots__ = ("edges", "expansion", "hooks", "results", "sequence", "site")

    runs_user_code = False
    continues_fold = False
    """True: `apply` gets the running gradients of its inputs and returns them with its own uses folded in."""

    def __init__(self, edges: Sequence[Edge], results: Sequence[TensorType]) -> None:
        self.sequence: int | Fraction = next(_sequence)
        self.edges = tuple(edges)
        self.results = tuple(results)
        self.expansion: tuple[Edge, ...] | None = None
        """Where gradients of the results go instead, once `expand` put finer nodes on the tape."""
        self.hooks: hooks.Hooks | None = None
        self.site: SourceLoc | None = user_location() if ANOMALY.enabled else None
        """The user's line, noted in anomaly mode."""

    def expand(self) -> None:
        """Called before derivatives of gradients are computed: a node that stands for many may set `expansion`."""

    def behind(self, index: int) -> Set[int]:
        """The other results that result `index` was computed from, for a node that stands for many."""
        return frozenset()

    def name(self) -> str:
        """What messages and repr call this node: "AddBackward0"."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    @property
    def operation(self) -> str:
        """What users call the op of this node."""
        return self.name()

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad | None, int], ...]:
        """Where gradients of the inputs go: (node, index of its result); (AccumulateGrad, 0) for leaves, (None, 0) for
        nowhere.

        >>> import kiln
        >>> x = kiln.ones(2, requires_grad=True)
        >>> y = (x * 2).exp()
        >>> y.grad_fn.name(), y.grad_fn.next_functions[0][0].name()
        ('ExpBackward0', 'MulBackward0')
        >>> y.grad_fn.next_functions[0][0].next_functions[0][0].variable is x
        True
        """
        ends: list[tuple[Node | AccumulateGrad | None, int]] = []
        for edge in map(resolved, self.edges):
            if edge is None:
                ends.append((None, 0))
            else:
                ends.append((edge[0] if isinstance(edge[0], Node) else AccumulateGrad(edge[0]), edge[1]))
        return tuple(ends)

    def register_hook(self, hook: Callable[..., Any]) -> hooks.RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` when this node's gradients are computed; it may return others."""
        if self.continues_fold:
            raise GradError(
                "the gradients inside a compiled function have no single place", op=self.name(), fix="use a prehook"
            )
        return hooks.RemovableHandle(hooks.of_node(self).after, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> hooks.RemovableHandle:
        """Call `hook(grad_outputs)` before this node's gradients are computed; it may return others."""
        return hooks.RemovableHandle(hooks.of_node(self).before, hook)

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Gradients of the inputs from those of the results (None: no influence), one per edge.

        `running` holds, only when `continues_fold`, what each input has gathered so far.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Forget what was saved: the graph is not kept."""
        raise NotImplementedError


class AccumulateGrad:
    """Where a gradient ends: in `.grad` of the leaf `variable`. Equal to others of the same leaf."""

    __slots__ = ("variable",)

    next_functions: tuple[()] = ()

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    def name(self) -> str:
        """ "AccumulateGrad"."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self.variable):#x}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and other.variable is self.variable

    def __hash__(self) -> int:
        return id(self.variable)


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


def nodes_since(outputs: Sequence[Edge], start: int) -> list[Node]:
    """The nodes behind `outputs` that were made since `start`."""
    seen: dict[Node, None] = {}
    todo = list(outputs)
    while todo:
        edge = resolved(todo.pop())
        if edge is not None and isinstance(edge[0], Node) and edge[0].sequence > start and edge[0] not in seen:
            seen[edge[0]] = None
            todo.extend(edge[0].edges)
    return list(seen)


def attach(node: Node, results: Sequence[TensorBase]) -> None:
    """Make `results` the outputs of `node`; those that are neither floating point nor complex take no part."""
    for i, t in enumerate(results):
        if t._layout.dtype.is_inexact:
            t._node = node
            t._index = i
            t._flags |= REQUIRES_GRAD


Saved: TypeAlias = "tuple[Any, Any, int]"
"""A tensor that a derivative will read, its memory then, and the version of that."""


class Untouched:
    """Stands for an operand that was not saved: its type is all a derivative rule may ask for."""

    __slots__ = ("ttype",)

    def __init__(self, ttype: TensorType) -> None:
        self.ttype = ttype

    def __kiln_bind__(self, op: Any, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        raise AssertionError(f"{op.name} was applied to an operand that its rule did not declare as saved")


def untouched(layout: Layout) -> Any:
    """The stand-in for operands of this layout."""
    if layout.untouched is None:
        layout.untouched = Untouched(layout.ttype)
    return layout.untouched


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
        reads, kept = op.saved(self.needs) if op.saves else (op.saved_operands, op.saved_results)
        held: list[Any] = [untouched(t._layout) for t in operands]
        # The memory that the rule will read, with its version: a later in-place write is an error.
        versions: list[Saved] = []
        for i in reads:
            if i < len(held):
                held[i] = t = operands[i]
                versions.append((t, t._buffer, t._buffer.version))
        self.operands: tuple[Any, ...] | None = tuple(held)
        self.saved_results = tuple([_saved_result(results[i], keep_results) for i in kept]) if kept else ()
        for t in self.saved_results:
            versions.append((t, t._buffer, t._buffer.version))
        self.versions = tuple(versions)

    def name(self) -> str:
        name = self.op.name
        if name == "matmul":
            return "MmBackward0" if len(self.results[0].shape) == 2 else "BmmBackward0"
        return f"{_NAMES.get(name) or name.title().replace('_', '')}Backward0"

    @property
    def operation(self) -> str:
        return self.op.name

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        call, vjp = self._call()
        return cast("Sequence[Tensor | None]", vjp(call, *grads))

    def _call(self) -> tuple[Call, Vjp]:
        """What the rule is given, and the rule; GradError when that is gone or there is none."""
        if self.operands is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op=self.op.name,
                fix="call backward or grad with retain_graph=True the first time",
            )
        check_versions(self.op.name, self.versions)
        if self.op.vjp is None or not self.op.derives(self.needs):
            by = "".join(f" by operand {k}" for k in self.op.underived)
            raise GradError(f"{self.op.name} has no derivative{by}", op=self.op.name, fix="detach() what needs none")
        return Call(self.operands, self._call_results(), self.attrs, self.needs), self.op.vjp

    def _call_results(self) -> tuple[Any, ...]:
        """Results as the rule sees them, saved ones joined to this node for higher derivatives."""
        results: list[Any] = [Untouched(t) for t in self.results]
        if not self.saved_results:
            return tuple(results)
        for i, t in zip(self.op.saved(self.needs)[1], self.saved_results, strict=True):
            if t._node is None and MODES.grad_enabled and t._layout.dtype.is_inexact:
                t = on_memory(type(t), t._buffer, t._ptr, t._layout, t._flags)
                attach_one(t, self, i)
            results[i] = t
        return tuple(results)

    def release(self) -> None:
        if self.versions:
            self.operands = None
            self.saved_results = ()
            self.versions = ()


_NAMES: Final = {
    "broadcast": "Expand",
    "cast": "ToCopy",
    "transfer": "ToCopy",
    "conv2d": "Convolution",
    "copy": "Clone",
    "inv": "LinalgInvEx",
    "modulus": "Abs",
    "reshape": "View",
    "reverse": "Flip",
}
"""Ops whose nodes PyTorch calls by another name than ours."""


class FoldNode(OpNode):
    """The tape entry of control flow: its rule adds the gradients of its operands to those that they have already, turn
    by turn."""

    __slots__ = ()

    continues_fold = True

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        from kiln.ir.passes.autodiff import NoDerivative, folded  # few take gradients through control flow

        call, vjp = self._call()
        places = [(k,) if e is None else (id(e[0]), e[1]) for k, e in enumerate(map(resolved, self.edges))]
        try:
            totals = dict(folded(vjp, call, grads, places, running))
        except NoDerivative as error:
            raise GradError(str(error), op=self.op.name, loc=error.operation.loc) from None
        # Of operands with one place, one gives the sum.
        return [totals.pop(place, None) for place in places]

    def expand(self) -> None:
        """Put the nodes of all turns on the tape. A capture can't: how many there are is for the data to say."""
        if self.expansion is None and self.operands is not None and MODES.recorder is None:
            from kiln.unrolled import unroll  # few take derivatives of gradients through control flow

            call, _ = self._call()
            self.expansion = tuple(map(edge_of, unroll(self, self.op, call.operands, self.attrs)))
            hooks.hand_on(self)


def check_versions(op: str, saved: Sequence[Saved]) -> None:
    """GradError if a saved tensor does not hold any more what it held."""
    for t, buffer, version in saved:
        if t._buffer is not buffer or buffer.version != version:
            now = f"at version {buffer.version}" if t._buffer is buffer else "on other memory through .data"
            raise GradError(
                "a tensor that its gradient needs was modified in place after the op "
                f"(it is {now}, was saved at version {version})",
                op=op,
                operands=[t.ttype],
                fix="do the in-place write before the op reads the tensor, or write to a clone()",
            )


def attach_one(tensor: TensorBase, node: Node, index: int) -> None:
    """Make `tensor` result `index` of `node`."""
    tensor._node = node
    tensor._index = index
    tensor._flags |= REQUIRES_GRAD


def _saved_result(t: Any, keep: bool) -> Any:
    """A record on the same memory without the node, so that no reference cycle keeps it alive. A capture
    knows values by their tensors, so there the very tensor is kept."""
    return t if keep else on_memory(type(t), t._buffer, t._ptr, t._layout, t._flags & READONLY)


def record(op: OpDef, operands: Sequence[Any], attrs: Attrs, results: Sequence[Any]) -> None:
    """Put an op that was just executed on the tape if one of its operands wants gradients."""
    flags = 0
    for t in operands:
        if t._view is not None:
            refresh(t)
        flags |= t._flags
    if flags & REQUIRES_GRAD and not flags & LAYERED:  # layers have put theirs on the tape
        kind = FoldNode if "folds" in op.traits else OpNode
        attach(kind(op, operands, attrs, results, MODES.recorder is not None), results)


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
    if view.version == t._buffer.version:
        return
    if view.chain is None:
        if t._node is not None:
            raise GradError(
                "a view that a Function returned was modified in place since, through another view or its base",
                op=t._node.operation,
                operands=[t.ttype],
                fix="return a clone() from forward",
            )
        return
    view.version = t._buffer.version
    before = t._node, t._index
    if not view.base._flags & REQUIRES_GRAD:
        if t._node is not None:  # else it is a leaf in its own right
            t._node = None
            t._flags &= ~REQUIRES_GRAD
        return
    fresh: Any = view.base
    with enable_grad():
        for op, attrs in view.chain:
            (fresh,) = op.bind((fresh,), attrs)
    attach_one(t, fresh._node, fresh._index)
    if t._flags & RETAINS:
        hooks.moved(t, *before)


def check_writable(t: Any, name: str) -> None:
    """Raise unless `t` may be written in place now."""
    if t._flags & READONLY:
        raise GradError("would write to read-only memory", op=name, operands=[t.ttype], fix="write to a clone()")
    if t._layout.expanded:
        raise GradError(
            "writes to an expanded tensor: several elements share one place in memory",
            op=name,
            operands=[t.ttype],
            fix="clone() it first",
        )
    if not MODES.grad_enabled:
        return
    leaf = t._view.base if t._view is not None else t
    if leaf._flags & REQUIRES_GRAD and leaf._node is None:
        what = "a view of a leaf" if t._view is not None else "a leaf"
        raise GradError(
            f"writes in place to {what} that requires a gradient",
            op=name,
            operands=[t.ttype],
            fix="do it inside kiln.no_grad()",
        )


_layers: list[Callable[..., None]] = []


def register_layers(write: Callable[..., None], refuse: Callable[..., None]) -> None:
    """How to write to layered tensors, and how to refuse writing them to others; called once by `kiln.layers`."""
    _layers[:] = [write, refuse]


def write_in_place(t: Any, name: str, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> None:
    """t[...] = op(*operands): memory, version, tape and capture. `op` is pointwise, its result of t's type;
    `operands` may hold `t` itself."""
    check_writable(t, name)
    if t._flags & LAYERED:
        _layers[0](t, name, op, operands, attrs)
        return
    if MODES.recorder is not None:
        MODES.recorder.writing(t)
    taped = MODES.grad_enabled and any(map(wants_grad, (t, *operands)))
    if not taped and MODES.recorder is None:
        dispatch.write(t, op, operands, attrs)
        return
    if taped:
        # The rule may read operands later, when this memory holds the result: it gets a copy.
        saved, _ = op.saved([wants_grad(x) for x in operands])
        operands = [OPS["copy"](x) if x is t and i in saved else x for i, x in enumerate(operands)]
    # A plain copy needs no operation of its own, unless its history differs from its source's.
    new = operands[0] if op.name == "copy" and not taped else op.bind(operands, attrs)[0]
    if new._flags & LAYERED:
        _layers[1](t, name, new)
    if taped:
        rebase(t, name, new)
    dispatch.write(t, OPS["copy"], (new,), {})
    if MODES.recorder is not None:
        MODES.recorder.record_write(t, new)


def overwrite(t: Any, name: str, value: Any) -> None:
    """t[...] = value, of t's type. Gradients go on through `t`, as zeros, where they did before."""
    if MODES.grad_enabled and wants_grad(t) and not _written_in_part(t):
        attrs = {"shape": t.shape, "dtype": bool_, "value": True}
        (everywhere,) = OPS["full"].bind((), attrs, receiver=t)
        write_in_place(t, name, OPS["where"], (everywhere, value, t), {})
    else:
        write_in_place(t, name, OPS["copy"], (value,), {})


def _written_in_part(t: Any) -> bool:
    """Whether `t` shows a part of its base, which keeps the gradients of the rest (and none of this part's)."""
    return t._view is not None and t._view.chain is not None and any(op.name in _PARTS for op, _ in t._view.chain)


_PARTS: Final = frozenset({"slice", "affine"})


def wants_grad(t: Any) -> bool:
    """Whether gradients flow through `t`, or would once the view `t` is brought up to date."""
    return bool(t._flags & REQUIRES_GRAD or (t._view is not None and t._view.base._flags & REQUIRES_GRAD))


def rebase(t: Any, name: str, new: Any) -> None:
    """Give `t` (through its base, when it is a view) the history of `new`."""
    view: View | None = t._view
    if view is None:
        _take_history(t, new)
        return
    if view.chain is None:
        raise GradError(
            "writes to a view that was made with gradients disabled, while they are enabled",
            op=name,
            operands=[t.ttype],
            fix="make the view outside no_grad(), or write to the base",
        )
    _take_history(view.base, put(view.base, view.chain, new))


def _take_history(t: Any, new: Any) -> None:
    """`t` was overwritten by `new`: its gradient goes where that of `new` goes, and nowhere if that has none."""
    before = t._node, t._index
    t._node, t._index = new._node, new._index
    t._flags = (t._flags & ~REQUIRES_GRAD) | (new._flags & REQUIRES_GRAD)
    if t._flags & RETAINS:
        hooks.moved(t, *before)


def put(base: Any, chain: Sequence[tuple[OpDef, Attrs]], value: Any) -> Any:
    """`base` with the part that `chain` views replaced by `value`."""
    if not chain:
        return value
    (op, attrs), rest = chain[0], chain[1:]
    if rest:
        value = put(op(base, **attrs), rest, value)
    if op.name == "slice":
        return OPS["slice_scatter"](base, value, **attrs)
    if op.name == "reshape":
        return OPS["reshape"](value, shape=base.shape)
    if op.name == "permute":
        return OPS["permute"](value, dims=inverse(cast("tuple[int, ...]", attrs["dims"])))
    if op.name == "broadcast" and value.ttype.numel() == base.ttype.numel():
        return OPS["reshape"](value, shape=base.shape)
    if op.name in INVERSES:
        return OPS[INVERSES[op.name]](value)
    if op.name == "affine":
        return OPS["affine_scatter"](base, value, starts=attrs["starts"], steps=attrs["steps"])
    raise GradError(f"no in-place write through {op.name}", fix="write to a clone()")
