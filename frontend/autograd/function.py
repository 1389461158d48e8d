"""`Function`: an op whose derivative the user writes, as PyTorch has it.

    class Cube(kiln.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 3 * x * x * grad

    y = Cube.apply(x)

`forward` runs without a tape. `backward` runs when gradients flow back, on the tape if these are to be differentiated
again. Inside a compiled function both are captured, also for gradients that are taken outside of it
(`function_capture.py`): there a `backward` that does more than compute, of gradients and of what `ctx` holds, is a
CaptureError.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kiln.autograd.grad_mode import GradMode
from kiln.autograd.tape import Node, Saved, attach_one, check_versions, edge_of, rebase, refresh
from kiln.base import LAYERED, MODES, READONLY, REQUIRES_GRAD, TensorBase, on_memory
from kiln.errors import ArgumentError, DeviceError, GradError, NotYetError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.ir.types import TensorType

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Function", "FunctionCtx", "once_differentiable"]

F = TypeVar("F", bound=Callable[..., Any])


class FunctionCtx:
    """What `forward` tells `backward`: saved tensors, and any attributes that are set on it."""

    needs_input_grad: tuple[bool, ...] = ()
    """For each argument of `forward`, whether its gradient is wanted."""

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._not_differentiable: tuple[Any, ...] = ()
        self._materialize = True
        self._saved: list[tuple[Any, int]] | None = None  # (tensor, which output it is, or -1)
        self._versions: list[Saved] = []
        self._owner: weakref.ref[FunctionNode] | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (or None) for `backward`. Writing to one of them in place makes `backward` a GradError."""
        for t in tensors:
            if t is not None and not isinstance(t, TensorBase):
                raise ArgumentError(
                    f"saves tensors, not a {type(t).__name__}",
                    op="save_for_backward",
                    fix="set it as an attribute of ctx",
                )
        self._to_save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which arguments `forward` wrote to in place; it must return them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which results have no gradient."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default) or None for results that no gradient came to."""
        self._materialize = bool(value)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept. GradError if the tape is gone or a tensor was written to since."""
        node = self._owner() if self._owner is not None else None
        name = node.operation if node is not None else type(self).__name__
        if self._saved is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op=name,
                fix="call backward or grad with retain_graph=True the first time",
            )
        check_versions(name, self._versions)
        found = []
        for t, index in self._saved:
            if index >= 0 and node is not None and t._node is None and MODES.grad_enabled:
                t = on_memory(type(t), t._buffer, t._ptr, t._layout, t._flags)
                attach_one(t, node, index)
            found.append(t)
        return tuple(found)

    def _save(self, outputs: Sequence[Any], name: str) -> None:
        """Take over what `forward` wanted saved. Outputs are kept without their node: no cycle of references."""
        self._saved = []
        positions = {id(t): k for k, t in enumerate(outputs)}
        fixed = {id(t) for t in self._not_differentiable}
        for t in self._to_save:
            if t is None:
                self._saved.append((None, -1))
                continue
            index = positions.get(id(t), -1)
            if index >= 0 and id(t) not in fixed and MODES.recorder is None:  # a capture knows values by their tensors
                t = on_memory(type(t), t._buffer, t._ptr, t._layout, t._flags & READONLY)
            self._saved.append((t, -1 if index >= 0 and id(t) in fixed else index))
            self._versions.append((t, t._buffer, t._buffer.version))
        self._to_save = ()


class FunctionNode(Node):
    """The tape entry of one `Function.apply`. It has an edge for each argument, tensor or not."""

    __slots__ = ("__weakref__", "cls", "ctx", "inputs", "wanted")

    runs_user_code = True

    def __init__(self, cls: type[Function], ctx: FunctionCtx, arguments: Sequence[Any]) -> None:
        super().__init__([edge_of(a) if isinstance(a, TensorBase) else None for a in arguments], ())
        self.cls = cls
        self.ctx: FunctionCtx | None = ctx
        self.inputs = tuple([a.ttype if isinstance(a, TensorBase) else None for a in arguments])
        """Types of the arguments; None for those that are not tensors."""
        self.wanted = tuple([e is not None for e in self.edges])
        """Whether the gradient of an argument is asked for."""

    def name(self) -> str:
        return f"{self.cls.__name__}Backward"

    @property
    def operation(self) -> str:
        return self.cls.__name__

    @property
    def versions(self) -> Sequence[Saved]:
        """What is saved, its memory, and the version of that."""
        return () if self.ctx is None else self.ctx._versions

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `ctx.saved_tensors` gives."""
        return () if self.ctx is None else self.ctx.saved_tensors

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        ctx = self.ctx
        if ctx is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op=self.operation,
                fix="call backward or grad with retain_graph=True the first time",
            )
        if ctx._materialize:
            grads = [self._zeros(grads, k) if g is None else g for k, g in enumerate(grads)]
        made = self.cls.backward(ctx, *grads)
        made = tuple(made) if isinstance(made, (tuple, list)) else (made,)
        while len(made) > len(self.edges) and made[-1] is None:
            made = made[:-1]
        if len(made) != len(self.edges):
            raise GradError(
                f"backward returned {len(made)} gradients for {len(self.edges)} arguments of forward",
                op=self.operation,
                fix="return one for each argument, None for those without",
            )
        return [self._checked(k, g) for k, g in enumerate(made)]

    def _zeros(self, grads: Sequence[Any], k: int) -> Any:
        t: TensorType | None = self.results[k]
        if t is None:
            return None
        receiver = next(g for g in grads if g is not None)
        return OPS["full"].bind((), {"shape": t.shape, "dtype": t.dtype, "value": _zero(t)}, receiver=receiver)[0]

    def _checked(self, k: int, g: Any) -> Any:
        """A gradient as its argument needs it: summed to its shape, cast to its dtype."""
        wanted = self.inputs[k]
        if g is None:
            return None
        if not isinstance(g, TensorBase):
            raise ArgumentError(f"backward returned a {type(g).__name__} as gradient {k}", op=self.operation)
        if wanted is None:
            raise GradError(
                f"backward returned a gradient for argument {k} of forward, which is not a tensor",
                op=self.operation,
                fix="return None there",
            )
        if not self.wanted[k]:
            return None
        if g.ttype == wanted:
            return g
        from kiln import functional  # lies above the tape

        if not _expandable(wanted.static_shape(), g.shape):
            raise ShapeError(
                f"backward returned a gradient of another shape for argument {k}",
                op=self.operation,
                operands=[wanted, g.ttype],
            )
        if g.device is not wanted.device:
            raise DeviceError(
                f"backward returned a gradient on {g.device} for argument {k}, which is on {wanted.device}",
                op=self.operation,
                operands=[wanted, g.ttype],
                fix=f"return it .to({str(wanted.device)!r})",
            )
        lead = g.ndim - len(wanted.shape)
        dims = [*range(lead), *(lead + i for i, n in enumerate(wanted.shape) if n == 1)]
        summed = functional.sum(g, tuple(dims)) if dims else g
        return functional.reshape(summed, wanted.static_shape()).to(wanted.dtype)

    def release(self) -> None:
        if self.ctx is not None and self.ctx._saved:
            self.ctx._saved = None
            self.ctx._versions = []
            self.ctx = None


def _zero(t: TensorType) -> bool | int | float:
    return {"bool": False, "float": 0.0}.get(t.dtype.kind, 0)


def _expandable(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether `large` is `small` broadcast."""
    lead = len(large) - len(small)
    return lead >= 0 and all(s in (1, n) for s, n in zip(small, large[lead:], strict=True))


class Function:
    """Base of ops with a derivative of their own; see the module's example.

    Subclasses define static methods: `forward(ctx, *args)` and `backward(ctx, *grads)`, which returns one gradient (or
    None) for each argument of `forward`. Or `forward(*args)` and `setup_context(ctx, inputs, output)`.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The op itself."""
        raise NotYetError("a Function needs a forward", fix="define it as a static method")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """What `backward` will need, when `forward` takes no `ctx`."""
        raise NotYetError("setup_context is not defined")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of the arguments from those of the results."""
        raise NotYetError(
            "a Function whose gradient is wanted needs a backward", fix="define it as a static method of the class"
        )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` on `args`, and put the op on the tape if the gradient of one of them is wanted."""
        for a in args:
            if isinstance(a, TensorBase) and a._view is not None:
                refresh(a)
        if any(isinstance(a, TensorBase) and a._flags & LAYERED for a in args):
            from kiln import layered_function  # lies above this file

            return layered_function.apply(cls, args)
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple([isinstance(a, TensorBase) and bool(a._flags & REQUIRES_GRAD) for a in args])
        node = None
        if MODES.grad_enabled and any(ctx.needs_input_grad):
            node = FunctionNode(cls, ctx, args)  # notes the edges of the arguments before forward writes to them
            ctx._owner = weakref.ref(node)
        returned = run_forward(cls, ctx, args)
        if node is None:
            return returned
        plain = not isinstance(returned, tuple)
        outputs = [returned] if plain else list(returned)
        made = _attach(cls, ctx, node, args, outputs)
        return made[0] if plain else tuple(made)


def run_forward(cls: type[Function], ctx: FunctionCtx, args: Sequence[Any]) -> Any:
    """What `forward` returns; no tape sees it."""
    with GradMode(False):
        if cls.setup_context is not Function.setup_context:
            returned = cls.forward(*args)
            cls.setup_context(ctx, tuple(args), returned)
            return returned
        return cls.forward(ctx, *args)


def _attach(
    cls: type[Function], ctx: FunctionCtx, node: FunctionNode, arguments: Sequence[Any], outputs: list[Any]
) -> list[Any]:
    """Make the outputs results of the node."""
    name = cls.__name__
    given, dirty = {id(a) for a in arguments if isinstance(a, TensorBase)}, {id(t) for t in ctx._dirty}
    fixed, seen = {id(t) for t in ctx._not_differentiable}, set()
    if not dirty <= {id(t) for t in outputs}:
        raise GradError("an argument that was marked dirty was not returned", op=name, fix="return it from forward")
    for k, t in enumerate(outputs):
        if not isinstance(t, TensorBase) or id(t) in fixed or not t.dtype.is_inexact:
            continue
        if id(t) in dirty:
            if id(t) not in given:
                raise GradError("a tensor that is no argument was marked dirty", op=name, operands=[t.ttype])
            _check_dirty(name, t)
        elif id(t) in given or id(t) in seen or t._flags & REQUIRES_GRAD:
            with GradMode(False):  # a tensor can't have two histories: another one on the same memory
                (outputs[k],) = OPS["reshape"].bind((t,), {"shape": t.shape})
        seen.add(id(outputs[k]))
    node.results = tuple([t.ttype if isinstance(t, TensorBase) else None for t in outputs])  # type: ignore[misc]
    ctx._save(outputs, name)
    recorder = MODES.recorder
    if recorder is not None:
        recorder.settle()
    for k, t in enumerate(outputs):
        if not isinstance(t, TensorBase) or id(t) in fixed or not t.dtype.is_inexact:
            continue
        if id(t) in dirty:
            with GradMode(False):
                (new,) = OPS["reshape"].bind((t,), {"shape": t.shape})
            attach_one(new, node, k)
            rebase(t, name, new)
        else:
            attach_one(t, node, k)
    if recorder is not None and not dirty:
        recorder.bridge(node, arguments, outputs)
    ctx._dirty = ctx._not_differentiable = ()
    return outputs


def _check_dirty(name: str, t: Any) -> None:
    base = t if t._view is None else t._view.base
    if base._flags & REQUIRES_GRAD and base._node is None:
        raise GradError(
            f"writes in place to a {'leaf' if base is t else 'view of a leaf'} that requires a gradient",
            op=name,
            operands=[t.ttype],
            fix="pass a clone() of it",
        )


# ---------------------------------------------------------------------------------- once differentiable


class _OnceNode(Node):
    """Behind the results of a backward that is not to be differentiated."""

    __slots__ = ("function",)

    def __init__(self, function: str, arguments: Sequence[Any], results: Sequence[TensorType]) -> None:
        super().__init__([edge_of(a) for a in arguments], results)
        self.function = function

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        raise GradError(
            "this backward is marked once_differentiable: it has no derivative",
            op=self.function,
            fix="write it with differentiable ops and take the mark away",
        )

    def release(self) -> None:
        pass


def once_differentiable(function: F) -> F:
    """Decorate a `backward` that uses what can't be differentiated: it runs without a tape, and derivatives of its
    results are a GradError."""

    @functools.wraps(function)
    def wrapped(ctx: Any, *args: Any) -> Any:
        with GradMode(False):
            made = function(ctx, *args)
        if not MODES.grad_enabled:
            return made
        wanting = [a for a in args if isinstance(a, TensorBase) and a._flags & REQUIRES_GRAD]
        saved = ctx._saved or ()
        wanting += [t for t, _ in saved if t is not None and t._flags & REQUIRES_GRAD]
        if not wanting:
            return made
        results = list(made) if isinstance(made, (tuple, list)) else [made]
        tensors = [t for t in results if isinstance(t, TensorBase)]
        with GradMode(False):
            fresh = [OPS["reshape"].bind((t,), {"shape": t.shape})[0] for t in tensors]
        node = _OnceNode(function.__qualname__, wanting, [t.ttype for t in fresh])
        for k, t in enumerate(fresh):
            attach_one(t, node, k)
        given = iter(fresh)
        return tuple([next(given) if isinstance(t, TensorBase) else t for t in results])

    return wrapped  # type: ignore[return-value]
