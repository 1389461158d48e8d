"""Hooks on gradients: functions of the user's that see, and may replace, what flows through a point of the tape.

Hooks of a leaf stand on the tensor, those of any other tensor on the node that made it: a later in-place write gives
the tensor another node, and leaves the hooks with the value that they were registered for. `retain_grad` goes along.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from kiln.base import HOOKED, MODES, REQUIRES_GRAD, RETAINS, TensorBase
from kiln.errors import ArgumentError, GradError, ShapeError
from kiln.ir.ops.base import OPS

if TYPE_CHECKING:
    from kiln.autograd.tape import Node

Table: TypeAlias = "dict[int, Callable[..., Any]]"

_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook gives: `remove()` takes the hook away; so does the end of a `with` block."""

    __slots__ = ("_table", "id")

    def __init__(self, table: Table, hook: Callable[..., Any]) -> None:
        if not callable(hook):
            raise ArgumentError(f"a hook is a function, not a {type(hook).__name__}")
        self.id = next(_numbers)
        self._table = table
        table[self.id] = hook

    def remove(self) -> None:
        """Take the hook away; more than once does no harm."""
        self._table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Hooks:
    """All hooks of a node or a leaf: of its results by index, of retained gradients, before and after the node."""

    __slots__ = ("after", "before", "retained", "tensor")

    def __init__(self) -> None:
        self.tensor: dict[int, Table] = {}
        self.retained: dict[int, weakref.ref[Any]] = {}
        self.before: Table = {}
        self.after: Table = {}
        """Of a node: after its gradients were computed. Of a leaf: after its gradient was accumulated."""

    def places(self) -> set[int]:
        """The results of the node whose gradients are looked at."""
        return {k for k, table in self.tensor.items() if table} | self.retained.keys()

    def on_result(self, index: int, grad: Any) -> Any:
        """The gradient of a result once its hooks have seen it, in the order of their registration."""
        for hook in list(self.tensor.get(index, {}).values()):
            new = hook(grad)
            if new is not None:
                grad = _checked(new, grad)
        return grad

    def on_results(self, grads: Sequence[Any]) -> list[Any]:
        """`on_result` for all results of a node, then `retain_grad`."""
        made = [g if g is None else self.on_result(i, g) for i, g in enumerate(grads)]
        for index, reference in self.retained.items():
            t = reference()
            if t is not None and made[index] is not None:
                before = t.grad
                t.grad = OPS["copy"](made[index]) if before is None else OPS["add"](before, made[index])
        return made

    def on_node(self, grads: Sequence[Any]) -> Sequence[Any]:
        """Gradients of a node's results after the hooks before it."""
        for hook in list(self.before.values()):
            new = hook(tuple(grads))
            if new is not None:
                grads = _checked_all(new, grads)
        return grads

    def on_applied(self, made: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        """Gradients of a node's inputs after the hooks behind it."""
        for hook in list(self.after.values()):
            new = hook(tuple(made), tuple(grads))
            if new is not None:
                made = _checked_all(new, made)
        return made

    def on_accumulated(self, leaf: Any) -> None:
        """Tell a leaf's hooks that its `.grad` is ready."""
        for hook in list(self.after.values()):
            hook(leaf)


def _checked(new: Any, old: Any) -> Any:
    if not isinstance(new, TensorBase):
        raise ArgumentError(f"a hook returned a {type(new).__name__}; it returns a tensor or None", op="register_hook")
    if new.ttype != old.ttype:
        raise ShapeError(
            "a hook changed the dtype or shape of a gradient", op="register_hook", operands=[old.ttype, new.ttype]
        )
    return new


def _checked_all(new: Any, old: Sequence[Any]) -> list[Any]:
    made = [new] if isinstance(new, TensorBase) else list(new)
    if len(made) != len(old):
        raise ShapeError(f"a hook returned {len(made)} gradients for {len(old)}", op="register_hook")
    return [n if n is None or o is None else _checked(n, o) for n, o in zip(made, old, strict=True)]


# ----------------------------------------------------------------------------------------- registration


def of_node(node: Node) -> Hooks:
    """The hooks of a node, to add to."""
    if node.hooks is None:
        node.hooks = Hooks()
    return node.hooks


def of_leaf(t: Any) -> Hooks:
    """The hooks of a leaf, to add to."""
    if not t._flags & HOOKED:
        t._hooks = Hooks()
        t._flags |= HOOKED
    found: Hooks = t._hooks
    return found


def _wanting(t: Any, name: str) -> None:
    """Bring the tensor up to date, and check that gradients flow to it."""
    from kiln.autograd.tape import refresh

    if t._view is not None:
        refresh(t)
    if not t._flags & REQUIRES_GRAD:
        raise GradError(
            "no gradient will come to a tensor that does not require one",
            op=name,
            operands=[t.ttype],
            fix="call requires_grad_() on an input first",
        )
    if MODES.recorder is not None:
        MODES.recorder.hook(t, name)


def hand_on(node: Node) -> None:
    """Hooks of the results of a node that was expanded go to the nodes that have these results now."""
    if node.hooks is None:
        return
    assert node.expansion is not None
    for index, edge in enumerate(node.expansion):
        if edge is not None and not isinstance(edge[0], TensorBase):
            target = of_node(edge[0])
            if index in node.hooks.tensor:
                target.tensor.setdefault(edge[1], {}).update(node.hooks.tensor[index])
            if index in node.hooks.retained:
                target.retained[edge[1]] = node.hooks.retained[index]


def register_hook(t: Any, hook: Callable[[Any], Any]) -> RemovableHandle:
    """See `Tensor.register_hook`."""
    _wanting(t, "register_hook")
    hooks = of_leaf(t) if t._node is None else of_node(t._node)
    return RemovableHandle(hooks.tensor.setdefault(t._index, {}), hook)


def register_post_accumulate_grad_hook(t: Any, hook: Callable[[Any], None]) -> RemovableHandle:
    """See `Tensor.register_post_accumulate_grad_hook`."""
    _wanting(t, "register_post_accumulate_grad_hook")
    if t._node is not None:
        raise GradError(
            "gradients are accumulated in leaves only",
            op="register_post_accumulate_grad_hook",
            operands=[t.ttype],
            fix="use register_hook",
        )
    return RemovableHandle(of_leaf(t).after, hook)


def retain_grad(t: Any) -> None:
    """See `Tensor.retain_grad`."""
    _wanting(t, "retain_grad")
    if t._node is not None:
        t._flags |= RETAINS
        moved(t, None, 0)


def moved(t: Any, before: Node | None, index: int) -> None:
    """`t`, whose gradient is retained, was result `index` of the node `before`, and is one of another node now."""
    if before is not None and before.hooks is not None:
        before.hooks.retained.pop(index, None)
    if t._node is not None:
        of_node(t._node).retained[t._index] = weakref.ref(t)
