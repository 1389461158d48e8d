"""Hooks of modules: functions that are called around `forward` and when gradients pass a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from kiln.autograd import Node, attach_one, edge_of
from kiln.autograd.hooks import RemovableHandle
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase
from kiln.errors import ArgumentError
from kiln.ir.types import TensorType

if TYPE_CHECKING:
    from kiln.nn.module import Module
    from kiln.tensor import Tensor


class Hook(NamedTuple):
    """A hook and how it is to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def _of(module: Module, kind: str) -> dict[int, Any]:
    """Hooks of one kind. Those that were never asked for are not made: a call changes nothing."""
    found: dict[int, Any] = vars(module).get(kind, {})
    return found


def register(hooks: dict[int, Any], hook: Any, prepend: bool = False) -> RemovableHandle:
    """Put `hook` behind the others, or before them."""
    function = hook.function if isinstance(hook, Hook) else hook
    others = dict(hooks)
    handle = RemovableHandle(hooks, function)
    hooks[handle.id] = hook
    if prepend:
        for key in others:  # behind the new one
            hooks[key] = hooks.pop(key)
    return handle


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`forward` of a module that has hooks."""
    for hook in list(_of(module, "_forward_pre_hooks").values()):
        args, kwargs = _before(module, hook, args, kwargs)
    backward = None
    if _of(module, "_backward_hooks") or _of(module, "_backward_pre_hooks"):
        if MODES.recorder is not None:
            MODES.recorder.reject(
                f"{type(module).__name__} has backward hooks, which a compiled backward would not call",
                fix="remove the hooks before compiling",
            )
        backward = _BackwardHooks(module)
        args = backward.on_inputs(args)
    called: set[int] = set()
    try:
        forward = module.forward if MODES.recorder is None else MODES.recorder.callee(module.forward)
        result = forward(*args, **kwargs)
        for key, hook in list(_of(module, "_forward_hooks").items()):
            called.add(key)
            changed = _after(module, hook, args, kwargs, result)
            result = result if changed is None else changed
    except Exception:
        for key, hook in list(_of(module, "_forward_hooks").items()):
            if hook.always_call and key not in called:
                _after(module, hook, args, kwargs, None)
        raise
    return result if backward is None else backward.on_outputs(result)


def _before(
    module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if hook.with_kwargs:
        changed = hook.function(module, args, kwargs)
        if changed is None:
            return args, kwargs
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise ArgumentError("a forward pre-hook with kwargs must return None or a tuple (args, kwargs)")
        return changed
    changed = hook.function(module, args)
    if changed is None:
        return args, kwargs
    return changed if isinstance(changed, tuple) else (changed,), kwargs


def _after(module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    return hook.function(module, args, kwargs, result) if hook.with_kwargs else hook.function(module, args, result)


# ------------------------------------------------------------------------------------------- backward


class _BackwardHooks:
    """One call of a module with backward hooks. An identity node behind its results sees their gradients, and one
    before its arguments sees theirs; the hooks run when the latter are complete."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.grad_output: tuple[Tensor | None, ...] = ()
        self.inputs: Sequence[bool] = ()  # which arguments want gradients

    def on_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """`args` with its tensors behind a node."""
        self.inputs = [_wants_grad(x) for x in args]
        return tuple(_behind(_InputNode, self, args, self.inputs))

    def on_outputs(self, result: Any) -> Any:
        """`result` (a tensor, or a tuple or list with some) behind a node."""
        if isinstance(result, TensorBase):
            return _behind(_OutputNode, self, [result], [_wants_grad(result)])[0]
        if not isinstance(result, (tuple, list)):
            return result
        made = _behind(_OutputNode, self, result, [_wants_grad(x) for x in result])
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return type(result)(*made)
        return type(result)(made)

    def outputs_arrived(self, grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Gradients of the results: run the pre-hooks, which may replace them."""
        found = tuple(grads)
        for hook in list(_of(self.module, "_backward_pre_hooks").values()):
            found = _replaced(hook(self.module, found), found, "pre-hook")
        self.grad_output = found
        if not any(self.inputs):
            self.inputs_arrived([None] * len(self.inputs))
        return found

    def inputs_arrived(self, grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments: run the hooks, which may replace them."""
        found = tuple(grads)
        for hook in list(_of(self.module, "_backward_hooks").values()):
            found = _replaced(hook(self.module, found, self.grad_output), found, "hook")
        return found


def _replaced(changed: Any, before: tuple[Tensor | None, ...], what: str) -> tuple[Tensor | None, ...]:
    if changed is None:
        return before
    after = changed if isinstance(changed, (tuple, list)) else (changed,)
    if len(after) != len(before):
        raise ArgumentError(f"a backward {what} returned {len(after)} gradients instead of {len(before)}")
    return tuple(after)


def _wants_grad(x: Any) -> bool:
    return isinstance(x, TensorBase) and MODES.grad_enabled and bool(cast("Tensor", x).requires_grad)


class _Identity(Node):
    """Passes gradients on, through the hooks. Position k of the hooks' tuples is edge k, None for what is no tensor
    with a gradient."""

    __slots__ = ("watcher",)

    runs_user_code = True

    def __init__(self, edges: Sequence[Any], results: Sequence[TensorType], watcher: _BackwardHooks) -> None:
        super().__init__(edges, results)
        self.watcher = watcher

    def release(self) -> None:
        """Nothing was saved."""


class _InputNode(_Identity):
    __slots__ = ()

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return self.watcher.inputs_arrived(grads)


class _OutputNode(_Identity):
    __slots__ = ()

    def apply(self, grads: Sequence[Tensor | None], running: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return self.watcher.outputs_arrived(grads)


def _behind(kind: type[_Identity], hooks: _BackwardHooks, items: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """`items` with those that want gradients replaced by read-only tensors on the same memory behind a new node (a
    write would bypass the hooks)."""
    if not any(wanted):
        return list(items)
    edges = [edge_of(x) if w else None for x, w in zip(items, wanted, strict=True)]
    node = kind(edges, [x.ttype if isinstance(x, TensorBase) else None for x in items], hooks)  # type: ignore[misc]
    made = list(items)
    for k, (x, w) in enumerate(zip(items, wanted, strict=True)):
        if w:
            made[k] = x.detach()
            made[k]._flags |= REQUIRES_GRAD | READONLY
            attach_one(made[k], node, k)
    return made
