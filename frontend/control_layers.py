"""`cond`, `while_loop` and `scan` inside transforms: their functions run as they are, on layered tensors.

Where an answer differs between the elements of a batch, both branches run and each element takes its own; a loop goes
on until the last element is done, and elements that are done keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kiln import creation
from kiln import functional as F
from kiln import movement as M
from kiln.base import MODES, TensorBase
from kiln.errors import ShapeError
from kiln.ir.types import TensorType
from kiln.layers import is_layered, plain
from kiln.pytree import flatten, unflatten


def branch(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """`cond`."""
    if not is_layered(pred) and MODES.recorder is None:
        return _copied((true_fn if pred else false_fn)(*operands))
    (yes, form), (no, other) = (flatten(f(*operands)) for f in (true_fn, false_fn))
    if form != other or any(_type(a) != _type(b) for a, b in zip(yes, no, strict=True)):
        raise ShapeError("the two functions must return the same structure of tensors of the same types", op="cond")
    return unflatten(form, iter(_chosen(pred, yes, no)))


def _type(x: Any) -> Any:
    return x.ttype if isinstance(x, TensorBase) else x


def _copied(result: Any) -> Any:
    leaves, form = flatten(result)
    return unflatten(form, iter([F.clone(x) if isinstance(x, TensorBase) else x for x in leaves]))


def _chosen(pred: Any, yes: Sequence[Any], no: Sequence[Any]) -> list[Any]:
    """Each element's own."""
    one = F.reshape(pred, ())
    return [F.where(one, a, b) if isinstance(a, TensorBase) else a for a, b in zip(yes, no, strict=True)]


def repeat(state: list[Any], test: Callable[[list[Any]], Any], turn: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """`while_loop`: `turn` as often as `test`, a bool tensor of one element, holds."""
    state = [F.clone(t) for t in state]
    while True:
        answer = test(state)
        if not bool(F.any(plain(answer))):
            return state
        new = turn(state)
        state = _chosen(answer, new, state) if is_layered(answer) else new


def walk(
    state: list[Any],
    xs: Sequence[Any],
    count: int,
    reverse: bool,
    turn: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]],
    types: Callable[[], Sequence[TensorType]],
) -> tuple[list[Any], list[Any]]:
    """`scan`: what is carried in the end, and all ys stacked. `types` tells those of one y, when there is no turn."""
    parts = [M.unbind(x) for x in xs]
    state = [F.clone(t) for t in state]
    made: list[list[Any]] = [[]] * count
    for k in reversed(range(count)) if reverse else range(count):
        state, made[k] = turn(state, [part[k] for part in parts])
    if not count:
        return state, [creation.zeros((0, *t.static_shape()), dtype=t.dtype, device=t.device) for t in types()]
    return state, [F.stack(list(column)) for column in zip(*made, strict=True)]
