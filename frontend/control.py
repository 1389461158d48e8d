"""Control flow that tensors decide: `cond`, `while_loop`, `scan`, `map`, as in torch's higher-order ops and in JAX.

Eagerly these are plain Python. While a function is captured each is one operation, whose functions are graphs: they are
called once, whatever the number of turns, on tensors without data (`control_capture.py`). Both give the same bits.

What goes in and what comes out are containers of tensors (`kiln.pytree`). Results have memory of their own.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kiln.autograd.grad_mode import no_grad
from kiln.base import MODES, TensorBase
from kiln.capture import current
from kiln.control_nodes import ended, parted, passed, slices
from kiln.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from kiln.ir.types import TensorType, bool_
from kiln.pytree import Tree, flatten, unflatten
from kiln.tensor import Tensor

__all__ = ["cond", "map", "scan", "while_loop"]


def cond(
    pred: Tensor | bool, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()
) -> Any:
    """`true_fn(*operands)` if `pred` is true, else `false_fn(*operands)`.

    `pred` is a bool tensor of one element; the results are then copies, which share memory with nothing. (With a Python
    bool this is a mere call.) In a
    captured function both functions are captured, must return the same structure of tensors of the same dtypes and
    shapes (other items must be equal), and may write to no tensor from outside; the gradient of what the branch that
    ran does not use is zero. ArgumentError, DTypeError, ShapeError.

    >>> import kiln
    >>> x = kiln.tensor(3.0)
    >>> kiln.cond(x > 2, lambda x: x * 2, lambda x: x - 1, (x,))
    tensor(6.)
    """
    if not isinstance(operands, (tuple, list)):
        raise ArgumentError(
            f"operands is a {type(operands).__name__}", op="cond", fix="pass a tuple, even of one operand"
        )
    _callable("cond", true_fn, false_fn)
    if isinstance(pred, builtins.bool):
        return (true_fn if pred else false_fn)(*operands)
    checked_pred("cond", pred)
    if MODES.layers:
        from kiln.control_layers import branch  # loaded already, but for this file

        return branch(pred, true_fn, false_fn, operands)
    capture = current()
    if capture is not None:
        from kiln.control_capture import captured_cond, staged

        for result in staged(capture, captured_cond, pred, true_fn, false_fn, operands):
            return result
    return _own((true_fn if pred else false_fn)(*operands))


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried: Any) -> Any:
    """`carried` after `carried = body_fn(*carried)` as often as `cond_fn(*carried)` is true before.

    `carried` is a tuple or list of tensors (or of containers of them), which the functions get as arguments, and of
    whose structure, dtypes and shapes what `body_fn` returns must be; anything else than a tuple or list is passed as
    the only argument. `cond_fn` returns a bool tensor of one element. The results are copies. ArgumentError,
    DTypeError, ShapeError.

    >>> import kiln
    >>> kiln.while_loop(lambda i, s: i < 4, lambda i, s: (i + 1, s + i), (kiln.tensor(0), kiln.tensor(0)))
    (tensor(4), tensor(6))
    """
    _callable("while_loop", cond_fn, body_fn)
    leaves, form = form_of(carried)
    state = tensors("while_loop", "carried", leaves, form)
    if not state:
        raise ArgumentError("nothing is carried", op="while_loop", fix="pass tensors that the loop changes")
    types = [t.ttype for t in state]
    if MODES.layers:
        from kiln.control_layers import repeat

        def test(now: Sequence[Any]) -> Any:
            answer = call(cond_fn, form, now)
            checked_pred("while_loop", answer, "what cond_fn returns")
            return answer

        def turn(now: Sequence[Any]) -> list[Any]:
            return agreeing("while_loop", "body_fn returns", *form_of(call(body_fn, form, now)), types, form)

        return form.build(repeat(state, test, turn))
    capture = current()
    if capture is not None:
        from kiln.control_capture import captured_while, staged

        for result in staged(capture, captured_while, cond_fn, body_fn, state, form):
            return result
    state = passed(state)
    while _goes_on(call(cond_fn, form, state)):
        made = form_of(call(body_fn, form, state))
        state = passed(agreeing("while_loop", "body_fn returns", *made, types, form))
    return form.build(state)


def _goes_on(answer: Any) -> bool:
    checked_pred("while_loop", answer, "what cond_fn returns")
    return builtins.bool(answer)


def scan(f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> Any:
    """`(carry, ys)` after `carry, y = f(carry, x)` for each slice `x` of `xs` along the first dimension, from `init`.

    `init` and `xs` are containers of tensors; those of `xs` have one first dimension, of which `x` gets the slices,
    read-only. `ys` holds all `y`, stacked along a new first dimension; with `reverse` the last slices come first, and
    each `y` stands at the place of its `x`. Without `xs`, `length` says how many turns there are, and `x` is None.
    `carry` keeps its structure, dtypes and shapes. ArgumentError, DTypeError, ShapeError.

    >>> import kiln
    >>> kiln.scan(lambda c, x: (c + x, c * x), kiln.tensor(0), kiln.tensor([1, 2, 3]))
    (tensor(6), tensor([0, 2, 9]))
    """
    _callable("scan", f)
    return _scan("scan", f, init, xs, length, reverse)


def _scan(name: str, f: Callable[..., Any], init: Any, xs: Any, length: int | None, reverse: bool) -> Any:
    leaves, form = form_of(init)
    state = tensors(name, "init", leaves, form)
    rows, shape = form_of(xs)
    sliced = tensors(name, "xs", rows, shape)
    count = _length(name, sliced, length)
    if MODES.layers:
        return _scan_in_layers(name, f, (state, form), (sliced, shape), count, reverse)
    capture = current()
    if capture is not None:
        from kiln.control_capture import captured_scan, staged

        for result in staged(capture, captured_scan, name, f, (state, form), (sliced, shape), count, reverse):
            return result
    types = [t.ttype for t in state]
    state = passed(state)
    parts = [slices(x) for x in sliced]
    made: list[list[Any]] = [[]] * count
    y_form, y_types = _shape_of_y(name, f, state, form, sliced, shape) if count == 0 else (None, [])
    for k in reversed(range(count)) if reverse else range(count):
        carry, y = pair(name, f(form.build(state), shape.build([part[k] for part in parts])))
        made[k], found = form_of(y)
        tensors(name, "y", made[k], found)
        if y_form is None:
            y_form, y_types = found, [y.ttype for y in made[k]]
        agreeing(name, "the second result of f is", made[k], found, y_types, y_form)
        state = passed(agreeing(name, "the first result of f is", *form_of(carry), types, form))
        made[k] = parted(made[k])
    assert y_form is not None
    stacks = [[row[n] for row in made] for n in range(len(y_types))]
    results = ended(stacks, state, y_types)
    after = len(y_types)
    return form.build(results[after:]), y_form.build(results[:after])


def _scan_in_layers(
    name: str, f: Callable[..., Any], init: tuple[Any, Form], xs: tuple[Any, Form], count: int, reverse: bool
) -> Any:
    """`_scan` inside transforms."""
    from kiln.control_layers import walk

    (state, form), (sliced, shape) = init, xs
    types = [t.ttype for t in state]
    known: list[tuple[Form, list[TensorType]]] = []

    def turn(now: Sequence[Any], rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        carry, y = pair(name, f(form.build(now), shape.build(rows)))
        made, found = form_of(y)
        if not known:
            known.append((found, [t.ttype for t in tensors(name, "y", made, found)]))
        ys = agreeing(name, "the second result of f is", made, found, known[0][1], known[0][0])
        return agreeing(name, "the first result of f is", *form_of(carry), types, form), ys

    def unknown() -> list[TensorType]:
        known.append(_shape_of_y(name, f, state, form, sliced, shape))
        return known[0][1]

    carried, ys = walk(state, sliced, count, reverse, turn, unknown)
    return form.build(carried), known[0][0].build(ys)


def _shape_of_y(
    name: str, f: Callable[..., Any], state: Sequence[Any], form: Form, sliced: Sequence[Any], shape: Form
) -> tuple[Form, list[TensorType]]:
    """What `f` would return; it is called on tensors without data."""
    from kiln.control_capture import foreseen

    def run(made: Sequence[Any], rows: Sequence[Any]) -> Any:
        return pair(name, f(form.build(made), shape.build(rows)))[1]

    parts = [TensorType(x.dtype, x.shape[1:], x.device) for x in sliced]
    with no_grad():
        ys, found = form_of(foreseen(run, [t.ttype for t in state], parts))
    return found, [y.ttype for y in tensors(name, "y", ys, found)]


def _length(name: str, xs: Sequence[Any], length: int | None) -> int:
    """How many turns there are."""
    if length is not None and (isinstance(length, builtins.bool) or not isinstance(length, int) or length < 0):
        raise ArgumentError(f"length is {length!r}", op=name, fix="pass a number of turns")
    if not xs:
        if length is None:
            raise ArgumentError("neither xs nor length says how many turns there are", op=name)
        return length
    for x in xs:
        if not x.ndim:
            raise ShapeError("xs have a first dimension to walk along", op=name, operands=[x.ttype])
    sizes = {x.shape[0] for x in xs} | ({length} if length is not None else set())
    if len(sizes) > 1:
        raise ShapeError(f"different numbers of turns: {sorted(sizes)}", op=name, operands=[x.ttype for x in xs])
    return sizes.pop()


def map(f: Callable[..., Any], xs: Any, *args: Any) -> Any:
    """`f(x, *args)` for each slice `x` of `xs` along the first dimension, stacked along a new first dimension. As
    `scan`, with nothing carried.

    >>> import kiln
    >>> kiln.map(lambda x: x.flip(0), kiln.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    _callable("map", f)
    return _scan("map", lambda _, x: ((), f(x, *args)), (), xs, None, False)[1]


# ----------------------------------------------------------------------------------------- arguments


@dataclass(frozen=True)
class Form:
    """The structure of a container of tensors; None is nothing in it."""

    tree: Tree
    empty: tuple[builtins.bool, ...]
    """Which leaves are None."""

    def build(self, leaves: Iterable[Any]) -> Any:
        """The container again."""
        rest = iter(leaves)
        return unflatten(self.tree, iter([None if nothing else next(rest) for nothing in self.empty]))

    def paths(self) -> list[str]:
        """How a user would index each tensor."""
        found = zip(_paths(self.tree), self.empty, strict=True)
        return [path for path, nothing in found if not nothing]

    def __str__(self) -> str:
        return _told(self.tree, iter(self.empty))


def form_of(x: Any) -> tuple[list[Any], Form]:
    """What a container holds, and its structure."""
    leaves, tree = flatten(x)
    return [t for t in leaves if t is not None], Form(tree, tuple([t is None for t in leaves]))


def _callable(name: str, *functions: Any) -> None:
    for f in functions:
        if not callable(f):
            raise ArgumentError(f"expected a function, got {type(f).__name__}", op=name)


def checked_pred(name: str, pred: Any, what: str = "pred") -> None:
    """Raise unless `pred` is a bool tensor of one element."""
    if not isinstance(pred, TensorBase):
        raise ArgumentError(f"{what} is a {type(pred).__name__}", op=name, fix="compare tensors: it is a bool tensor")
    if pred.dtype is not bool_:
        raise DTypeError(f"{what} is no bool tensor", op=name, operands=[pred.ttype], fix="compare it: x != 0")
    if pred._layout.numel != 1:
        raise ShapeError(f"{what} has not one element", op=name, operands=[pred.ttype], fix="use all() or any()")


def call(f: Callable[..., Any], form: Form, state: Sequence[Any]) -> Any:
    """`f` on what is carried: the items of a tuple or list, or the thing itself."""
    carried = form.build(state)
    return f(*carried) if form.tree.kind in (tuple, list) else f(carried)


def pair(name: str, result: Any) -> tuple[Any, Any]:
    """What the function of a scan returns."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        what = f"{len(result)} things" if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
        raise ArgumentError(f"f returns {what}, not (carry, y)", op=name)
    return result[0], result[1]


def _paths(tree: Tree, before: str = "") -> list[str]:
    if tree.kind is None:
        return [before]
    named = tree.kind is not dict and tree.keys
    keys = [f".{k}" if named else f"[{k!r}]" for k in (tree.keys or range(len(tree.children)))]
    return [p for k, child in zip(keys, tree.children, strict=True) for p in _paths(child, before + k)]


def _told(tree: Tree, empty: Iterator[builtins.bool]) -> str:
    if tree.kind is None:
        return "None" if next(empty) else "*"
    parts = [_told(c, empty) for c in tree.children]
    if tree.kind is dict:
        return "{" + ", ".join(f"{k!r}: {part}" for k, part in zip(tree.keys, parts, strict=True)) + "}"
    inside = ", ".join(parts)
    return f"[{inside}]" if tree.kind is list else f"{'' if tree.kind is tuple else tree.kind.__name__}({inside})"


def tensors(name: str, what: str, leaves: Sequence[Any], form: Form) -> list[Any]:
    """`leaves`, which must be tensors."""
    for x, path in zip(leaves, form.paths(), strict=True):
        if not isinstance(x, TensorBase):
            raise ArgumentError(f"{what}{path} is a {type(x).__name__}", op=name, fix="make a tensor of it")
    return list(leaves)


def agreeing(
    name: str, what: str, leaves: Sequence[Any], form: Form, types: Sequence[TensorType], wanted: Form
) -> list[Any]:
    """`leaves`, which must have these types and this structure; else an error that names what differs."""
    if form != wanted:
        raise ArgumentError(f"{what} {form}, where {wanted} is wanted", op=name, fix="return the same structure")
    tensors(name, f"{what} ...", leaves, form)
    for t, wanted_type, path in zip(leaves, types, form.paths(), strict=True):
        if t.ttype == wanted_type:
            continue
        place = f" at {path}" if path else ""
        if t.dtype is not wanted_type.dtype:
            raise DTypeError(
                f"{what} {t.dtype}{place}, where {wanted_type.dtype} is wanted",
                op=name,
                operands=[t.ttype, wanted_type],
                fix=f"convert it with .to(kiln.{wanted_type.dtype})",
            )
        if t.device is not wanted_type.device:
            raise DeviceError(
                f"{what} a tensor on {t.device}{place}, where one on {wanted_type.device} is wanted",
                op=name,
                operands=[t.ttype, wanted_type],
                fix=f"bring it there with .to({str(wanted_type.device)!r})",
            )
        raise ShapeError(
            f"{what} of shape {list(t.shape)}{place}, where {list(wanted_type.shape)} is wanted",
            op=name,
            operands=[t.ttype, wanted_type],
        )
    return list(leaves)


def _own(result: Any) -> Any:
    """What a branch returned, its tensors beyond a border."""
    leaves, tree = flatten(result)
    places = [k for k, x in enumerate(leaves) if isinstance(x, TensorBase)]
    if places:
        for k, t in zip(places, passed([leaves[k] for k in places]), strict=True):
            leaves[k] = t
    return unflatten(tree, iter(leaves))
