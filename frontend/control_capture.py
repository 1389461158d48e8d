"""Control flow in a captured function: its functions become graphs, and the whole is one operation.

A function is called once, while an `Inner` listens: nothing is computed, and its tensors have no data. Tensors from
outside that it reads become operands. What it would do to the world outside is refused, but for drawing random numbers:
the state of a generator goes through the operation, and is written afterwards. The operation is then bound like any
other: executed for the values at hand, recorded, put on the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kiln import dispatch
from kiln.autograd.tape import Node, attach_one, write_in_place
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase, layout_of
from kiln.capture import Capture
from kiln.control import Form, agreeing, call, checked_pred, form_of, pair, tensors
from kiln.errors import ArgumentError, CaptureError
from kiln.ir.graph import Attrs, AttrValue, Graph, GraphBuilder, Value
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.types import TensorType
from kiln.location import user_location
from kiln.pytree import flatten, unflatten
from kiln.sketch import Sketch


class _Start(Node):
    """Where the history of what a nested graph is given begins, for the tape."""

    __slots__ = ()

    @property
    def operation(self) -> str:
        return "what a branch or a loop was given"

    def release(self) -> None:
        """Nothing is saved."""


def placeholders(types: Sequence[TensorType], flags: int = 0) -> list[Any]:
    """Tensors without data, through which gradients flow if any are wanted."""
    node = _Start((), types)
    made = []
    for k, t in enumerate(types):
        layout = layout_of(t.dtype, t.static_shape(), None, t.device)
        empty = dispatch.empty(layout)
        tensor = dispatch.tensor_on(empty._buffer, empty._ptr, layout, flags)
        if MODES.grad_enabled and t.dtype.is_inexact:
            attach_one(tensor, node, k)
        made.append(tensor)
    return made


class StateChanged(CaptureError):
    """A function changed Python state when it was called without data. It can't be called again as if it had not."""


class Inner(Sketch):
    """The recording of one function of a branch or a loop. `given` are the tensors that it gets, which are its own."""

    def __init__(self, parent: Capture | None, what: str, given: Sequence[TensorBase] = ()) -> None:
        self.parent = parent
        self.what = what
        self.given = list(given)
        self.states: dict[int, TensorBase] = {}
        """What random numbers were drawn from: the states of generators."""
        self._kept: list[tuple[TensorBase, Any, int]] = []
        self._depth: int = parent._depth + 1 if isinstance(parent, Inner) else 1
        Capture.__init__(self, "main", given, {}, user_location)
        self.answers = False
        self.hooks = parent.hooks if parent is not None else None
        if self._depth > _MAX_DEPTH:
            self.refuse(
                "branches and loops inside each other without end: a function calls itself on a condition of tensors",
                fix="write a while_loop",
            )

    def run(self, watched: Callable[..., Any], function: Callable[..., Any], *of: Any) -> Any:
        """What `function(*of)` returns, recorded. `watched` is the user's part of it."""
        before = _modes()
        outer = MODES.recorder
        held = _held(watched)
        MODES.recorder = self
        try:
            result = function(*of)
        finally:
            MODES.recorder = outer
            for t, data, version in reversed(self._kept):
                dispatch.write(t, OPS["copy"], (data,), {})
                t._buffer.version = self.entries[id(t)].storage.version = version
            if _held(watched) != held:
                raise StateChanged(
                    f"{self.what} changes a variable or a container from outside",
                    fix="return what changes, and take it",
                )
        if self.refused is not None:  # and the function's own code caught it
            raise self.refused
        if _modes() != before:
            self.refuse(
                f"{self.what} left gradients, inference mode, autocast or the default dtype changed",
                fix="use a with block",
            )
        if self.parent is not None and self.differentiated:
            self.parent.differentiated = True
        return result

    def _outside(self, t: TensorBase) -> bool:
        """Whether a tensor, or what it is a view of, is not this function's own."""
        storage = (self.entries.get(id(t)) or self._lift(t)).storage
        return storage.input is not None and all(storage.root is not x for x in self.given)

    # ---------------------------------------------------------------------------- what tensors report

    def record(self, op: OpDef, operands: Sequence[Any], attrs: Attrs, results: Sequence[Any]) -> None:
        super().record(op, operands, attrs, results)
        if "random" in op.traits and self._outside(operands[0]):
            self.states[id(operands[0])] = operands[0]

    def writing(self, tensor: TensorBase) -> None:
        if not self._outside(tensor):
            return
        if id(tensor) not in self.states:
            self.refuse(
                f"{self.what} writes in place to a tensor from outside",
                operands=[tensor.ttype],
                fix="return its new content, and write that afterwards",
            )
        self._kept.append((tensor, dispatch.run(OPS["copy"], (tensor,), {})[0], tensor._buffer.version))

    def draws(self, state: TensorBase) -> None:
        """What is recorded next writes to the state of a generator, from which it drew."""
        if self._outside(state):
            self.states[id(state)] = state

    def check_aliasing(self, written: Sequence[Any]) -> None:
        """What is written here is this function's own."""

    def forbid(self, tensor: TensorBase, what: str) -> None:
        self.refuse(
            f"{what} asks for tensor data inside {self.what}, which is one graph for all data",
            operands=[tensor.ttype],
            fix="compute with tensors: kiln.cond or kiln.where instead of if",
        )

    def refuse(self, message: str, *, operands: Sequence[TensorType] = (), fix: str = "") -> NoReturn:
        self.refused = self.refused or CaptureError(message, operands=operands, fix=fix)
        raise self.refused

    def grad_read(self, tensor: TensorBase) -> None:
        if self.parent is not None and self._outside(tensor):
            self.parent.grad_read(tensor)
        else:
            super().grad_read(tensor)

    def grad_write(self, tensor: TensorBase, grad: TensorBase | None) -> None:
        if self._outside(tensor):
            self.refuse(
                f"{self.what} sets the gradient of a tensor from outside",
                operands=[tensor.ttype],
                fix="return the gradient (kiln.autograd.grad)",
            )
        super().grad_write(tensor, grad)

    def hook(self, tensor: TensorBase, what: str) -> None:
        self.refuse(
            f"{what} inside {self.what}; the compiled gradient does not run it",
            operands=[tensor.ttype],
            fix="register it outside, on what goes in or comes out",
        )

    def depend(self, path: str, read: Callable[[], Any]) -> None:
        if self.parent is not None:
            self.parent.depend(path, read)

    def _lift(self, t: TensorBase) -> Any:
        rows, k = self.rows.get(id(t), (None, 0))
        if rows is not None:
            return rows.enter(self, k)
        if self.parent is not None:
            self.parent.value_of(t)  # refuses what it can't know
        return self._input("object", t)

    # ------------------------------------------------------------------------------------------ result

    def lifted(self) -> list[TensorBase]:
        """The tensors from outside that are read."""
        return [t for _, t in self.inputs[len(self.given) :]]

    def values(self, results: Sequence[TensorBase]) -> list[Value]:
        """What was computed; refused where gradients would pass code that a graph does not run."""
        for t in results:
            self._check_nodes(t)
        found = [self.value_of(t) for t in results]
        self.check_history(found)
        return found

    def _check_nodes(self, t: Any) -> None:
        todo, seen = [t._node], set()
        while todo:
            node = todo.pop()
            if node is None or node in seen or node.sequence < self._began:
                continue
            seen.add(node)
            if node.runs_user_code:
                self.refuse(
                    f"gradients pass {node.operation} inside {self.what}; its Python code would not run then",
                    fix="write it with kiln's functions, or detach() its result",
                )
            todo += [e[0] for e in node.edges if e is not None and isinstance(e[0], Node)]

    def graph(self, outputs: Sequence[Value], order: Sequence[TensorBase]) -> Graph:
        """The graph, with inputs for the tensors of `order`. `detach` stands where no gradients flow although an
        operand has some."""
        builder = GraphBuilder(self.builder.name)
        mapped: dict[Value, Value] = {}
        known = {id(t): v for (_, t), v in zip(self.inputs, self.builder.inputs(), strict=True)}
        wanting: set[Value] = set()
        for t in order:
            made = builder.input(t._layout.gtype)
            v = known.get(id(t))
            if v is not None:
                mapped[v] = made
                if t._flags & REQUIRES_GRAD or (t._view is not None and t._view.base._flags & REQUIRES_GRAD):
                    wanting.add(v)
        taped = self.taped_operations()
        detached: dict[Value, Value] = {}
        for op in self.builder.operations():
            operands = [mapped[v] for v in op.operands]
            flows = any(r.type.dtype.is_inexact for r in op.results) and any(v in wanting for v in op.operands)
            if flows and op in taped:
                wanting.update(r for r in op.results if r.type.dtype.is_inexact)
            elif flows:
                for k, v in enumerate(op.operands):
                    if v in wanting:
                        if v not in detached:
                            (detached[v],) = builder.add(OPS["detach"], [mapped[v]], {})
                        operands[k] = detached[v]
            mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
        return builder.build([mapped[v] for v in outputs])


_MAX_DEPTH = 24


def _modes() -> tuple[Any, ...]:
    return MODES.grad_enabled, MODES.inference, MODES.default_dtype, MODES.device, MODES.gpu, MODES.autocast


def _held(function: Any, seen: frozenset[int] = frozenset()) -> list[int]:
    """What a function holds in its cells: which objects, and those in containers and plain objects of these."""
    found: list[int] = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            x = cell.cell_contents
        except ValueError:  # empty
            found.append(0)
            continue
        found.append(id(x))
        if callable(x) and id(x) not in seen and not isinstance(x, TensorBase):
            found += _held(x, seen | {id(x)})
        if isinstance(x, (list, dict, set)):
            found += [len(x), *map(id, flatten(list(x) if isinstance(x, set) else x)[0])]
        elif hasattr(x, "__dict__") and not isinstance(x, (type, TensorBase)):
            found += [id(v) for v in vars(x).values()]
    return found


# --------------------------------------------------------------------------------------- operations


def _union(*lists: Sequence[TensorBase]) -> list[TensorBase]:
    return list({id(t): t for each in lists for t in each}.values())


def _bind(capture: Capture, op: str, operands: Sequence[Any], attrs: dict[str, AttrValue], states: Any) -> list[Any]:
    """Apply the operation; its last results are the new states."""
    return _written(capture, op, list(OPS[op].bind(operands, attrs)), states)


def _written(capture: Capture, op: str, results: list[Any], states: Sequence[Any]) -> list[Any]:
    """`results` without the new states, which are the last ones and are written."""
    first = len(results) - len(states)
    for state, new in zip(states, results[first:], strict=True):
        if isinstance(capture, Inner):
            capture.draws(state)
        write_in_place(state, op, OPS["copy"], (new,), {})
    return results[:first]


def _scalar(pred: Any) -> Any:
    """A predicate without dimensions."""
    return OPS["reshape"](pred, shape=()) if pred.ndim else pred


def staged(capture: Capture, make: Callable[..., Any], *of: Any) -> list[Any]:
    """[make(capture, *of)]; nothing where that is refused, by a capture that lets go: then the call goes on eagerly."""
    try:
        return [make(capture, *of)]
    except StateChanged:
        raise
    except CaptureError as refusal:
        capture.refused = capture.refused or refusal
        capture.give_up(refusal)  # raises, or lets the call go on eagerly
        return []


def captured_cond(
    capture: Capture, pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any]
) -> Any:
    """`kiln.cond` as one operation."""
    sides = []
    for what, function in (("true_fn", true_fn), ("false_fn", false_fn)):
        inner = Inner(capture, what)
        leaves, tree = flatten(inner.run(function, function, *operands))
        sides.append((inner, leaves, tree))
    (one, leaves, tree), (other, others, other_tree) = sides
    _check_branches(leaves, Form(tree, (False,) * len(leaves)), others, Form(other_tree, (False,) * len(others)))
    places = [k for k, x in enumerate(leaves) if isinstance(x, TensorBase)]
    states = _union(list(one.states.values()), list(other.states.values()))
    if not places and not states:
        raise CaptureError("the branches of cond give no tensors", fix="return what they compute")
    outputs = [inner.values([*(found[k] for k in places), *states]) for inner, found, _ in sides]
    order = _union(states, one.lifted(), other.lifted())
    graphs = [inner.graph(values, order) for (inner, _, _), values in zip(sides, outputs, strict=True)]
    attrs: dict[str, AttrValue] = dict(zip(("then", "else"), graphs, strict=True))
    made = _bind(capture, "cond", [_scalar(pred), *order], attrs, states)
    for k, t in zip(places, made, strict=True):
        leaves[k] = t
    return unflatten(tree, iter(leaves))


def _check_branches(one: Sequence[Any], form: Form, other: Sequence[Any], other_form: Form) -> None:
    """Raise unless both branches of a cond return the same kind of thing."""
    if form != other_form:
        raise ArgumentError(
            f"true_fn returns {form}, false_fn {other_form}", op="cond", fix="return the same structure"
        )
    for a, b, path in zip(one, other, form.paths(), strict=True):
        place = f" at {path}" if path else ""
        if isinstance(a, TensorBase) and isinstance(b, TensorBase):
            agreeing("cond", f"false_fn returns a tensor{place}:", *form_of(b), [a.ttype], form_of(a)[1])
        elif type(a) is not type(b) or (a is not b and a != b):
            raise ArgumentError(
                f"true_fn returns {_short(a)}{place}, false_fn {_short(b)}",
                op="cond",
                fix="return tensors, or what is equal in both",
            )


def _short(x: Any) -> str:
    return "a tensor" if isinstance(x, TensorBase) else f"{type(x).__name__} {x!r}"


def captured_while(
    capture: Capture, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], state: list[Any], form: Form
) -> Any:
    """`kiln.while_loop` as one operation."""
    types = [t.ttype for t in state]
    test = Inner(capture, "cond_fn", placeholders(types))
    answer = test.run(cond_fn, _answer, cond_fn, form, test.given)
    if test.states:
        test.refuse("cond_fn draws random numbers", fix="draw them in body_fn, and carry them")
    body = Inner(capture, "body_fn", placeholders(types))
    made = form_of(body.run(body_fn, call, body_fn, form, body.given))
    results = agreeing("while_loop", "body_fn returns", *made, types, form)
    states = list(body.states.values())
    tested, outputs = test.values([answer]), body.values([*results, *states])
    constants = [t for t in _union(test.lifted(), body.lifted()) if id(t) not in body.states]
    attrs: dict[str, AttrValue] = {
        "test": test.graph(tested, [*test.given, *states, *constants]),
        "body": body.graph(outputs, [*body.given, *states, *constants]),
    }
    return form.build(_bind(capture, "while_loop", [*state, *states, *constants], attrs, states))


def _answer(cond_fn: Callable[..., Any], form: Form, state: Sequence[Any]) -> Any:
    answer = call(cond_fn, form, state)
    checked_pred("while_loop", answer, "what cond_fn returns")
    return _scalar(answer)


def captured_scan(
    capture: Capture,
    name: str,
    f: Callable[..., Any],
    init: tuple[list[Any], Form],
    xs: tuple[list[Any], Form],
    length: int,
    reverse: bool,
) -> Any:
    """`kiln.scan` as one operation."""
    (state, form), (sliced, shape) = init, xs
    types = [t.ttype for t in state]
    given = placeholders(types)
    parts = placeholders([TensorType(x.dtype, x.shape[1:], x.device) for x in sliced], READONLY)
    body = Inner(capture, "the function of a scan", [*given, *parts])

    def turn() -> Any:
        return f(form.build(given), shape.build(parts))

    carry, y = pair(name, body.run(f, turn))
    results = agreeing(name, "the first result of f is", *form_of(carry), types, form)
    ys, y_form = form_of(y)
    tensors(name, "y", ys, y_form)
    if not results and not ys:
        return form.build(()), y_form.build(())
    states = list(body.states.values())
    outputs = body.values([*results, *states, *ys])
    constants = [t for t in body.lifted() if id(t) not in body.states]
    attrs: dict[str, AttrValue] = {
        "body": body.graph(outputs, [*given, *states, *parts, *constants]),
        "carried": len(given) + len(states),
        "xs": len(parts),
        "length": length,
        "reverse": bool(reverse),
    }
    operands = [*state, *states, *sliced, *constants]
    if not operands:
        raise CaptureError(f"{name} computes with nothing from outside", fix="compute it without a loop")
    count = len(given) + len(states)
    bound = list(OPS["scan"].bind(operands, attrs))
    # The states stand before what is stacked.
    ordered = [*bound[: len(given)], *bound[count:], *bound[len(given) : count]]
    made = _written(capture, "scan", ordered, states)
    return form.build(made[: len(given)]), y_form.build(made[len(given) :])


def foreseen(function: Callable[..., Any], *types: Sequence[TensorType]) -> Any:
    """What `function` returns for lists of tensors of these types, without data."""
    given = [placeholders(each) for each in types]
    return Inner(None, "the function of a scan", [t for each in given for t in each]).run(function, function, *given)
