"""Tensors that stand for more than they show: the operands of transforms of functions.

A transform (`vmap`, `jvp`, `linearize`) calls the user's function once, with `Layered` tensors. Such a tensor looks
like what the function expects (its dtype, the shape of one element of the batch), and holds in place of an address a
`Content`: the `Layer` that it belongs to, a tensor of the layers below, and whatever the layer adds (whether there is a
batch dimension, the tangent). An op on layered tensors is carried out by the highest layer among its operands, as ops
on what those hold; so transforms nest in any order, and a capture, which records ops on plain tensors, sees nothing
but those.

The tape works on layered tensors as on plain ones: each layer's nodes hold tensors of that layer. Operands of lower
layers are constants there; what they depend on is on the tapes of the lower layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Self, cast

from kiln import dispatch
from kiln.autograd import tape
from kiln.base import (
    LAYERED,
    MODES,
    READONLY,
    REQUIRES_GRAD,
    LayeredLayout,
    TensorBase,
    layered_layout,
    on_memory,
)
from kiln.errors import TransformError
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS, OpDef
from kiln.overriding import disabled_torch_function
from kiln.tensor import Tensor


class Content:
    """What a layered tensor holds. Layers add to it."""

    __slots__ = ("inner", "layer")

    def __init__(self, layer: Layer, inner: Tensor) -> None:
        self.layer = layer
        self.inner = inner


class Layer:
    """One transform while its function runs: `with layer:` around the call."""

    name = ""

    def __init__(self) -> None:
        self.depth = len(MODES.layers)
        self.over = False

    def __enter__(self) -> Any:
        self.depth, self.over = len(MODES.layers), False  # a backward may come back to a layer that was left
        MODES.layers = (*MODES.layers, self)
        return self

    def __exit__(self, *_: object) -> None:
        MODES.layers = MODES.layers[:-1]
        self.over = True

    def apply(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Tensor, ...]:
        """The results of an op, as tensors of this layer; operands are of this layer or of those below."""
        raise NotImplementedError

    def lift(self, t: Tensor) -> Tensor:
        """A tensor of the layers below as one of this layer."""
        raise NotImplementedError

    def like(self, example: Tensor, t: Tensor) -> Tensor:
        """`t`, new memory of the layers below in the shape of `example`, as what may be written where `example` may."""
        raise NotImplementedError

    def write(self, target: Tensor, name: str, value: Tensor) -> None:
        """target[...] = value, both of this layer and of one type."""
        raise NotImplementedError

    def read(self, t: Tensor, what: str) -> Any:
        """The elements of `t` for `what` (like "item()"), or TransformError."""
        raise NotImplementedError

    def refuse(self, message: str, *, op: str = "", operands: Sequence[Any] = (), fix: str = "") -> NoReturn:
        """Raise a TransformError of this transform."""
        raise TransformError(f"{self.name}: {message}", op=op, operands=[t.ttype for t in operands], fix=fix)


class Layered(Tensor):
    """A tensor of a layer. `_ptr` holds its content, `_buffer` is that of the tensor inside, so that versions count."""

    __slots__ = ()
    __torch_function__ = disabled_torch_function

    def __new__(cls, buffer: Any, content: Any, layout: Any, flags: int = 0) -> Self:
        return cast("Self", on_memory(cls, buffer, content, layout, flags | LAYERED))

    def __kiln_bind__(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        if not operands:
            return cast("Tensor", content_of(self).inner).__kiln_bind__(op, operands, attrs)
        return bind(op, operands, attrs)

    def detach(self) -> Tensor:
        """The same elements without history in this layer: gradients stop here."""
        layer: Layer = content_of(self).layer
        return layer.apply(OPS["reshape"], (self,), {"shape": self.shape})[0]

    def _read(self, what: str, fold: Any = None) -> Any:
        return content_of(self).layer.read(self, what)

    def _located(self, what: str) -> None:
        content_of(self).layer.refuse(f"{what} of a tensor that has no memory of its own", operands=[self])

    def __repr__(self, **_: Any) -> str:
        content = content_of(self)
        return f"<{content.layer.name} {self.ttype} of {content.inner!r}>"

    def __copy__(self) -> Any:
        made = Layered(self._buffer, self._ptr, self._layout, self._flags)
        made._node, made._index, made._view = self._node, self._index, self._view
        return made

    def __deepcopy__(self, memo: Any) -> Any:
        content_of(self).layer.refuse("deepcopy of a tensor inside a transformed function", fix="use clone()")

    def __reduce_ex__(self, protocol: Any) -> Any:
        content_of(self).layer.refuse("a tensor inside a transformed function can't be pickled")


def content_of(t: TensorBase) -> Any:
    """What a layered tensor holds."""
    return t._ptr


def layered(content: Content, shape: tuple[int, ...], flags: int = 0) -> Tensor:
    """A tensor of a layer, which shows `shape`."""
    inner = content.inner
    return Layered(
        inner._buffer,
        content,
        layered_layout(inner.dtype, shape, inner._layout.device),
        flags | inner._flags & READONLY,
    )


def is_layered(x: object) -> bool:
    """Whether `x` is a tensor of some layer."""
    return isinstance(x, TensorBase) and bool(x._flags & LAYERED)


def owned(t: Any, layer: Layer) -> bool:
    """Whether `t` is a tensor of this very layer."""
    return t.__class__ is Layered and content_of(t).layer is layer


def on(layer: Layer, t: Any) -> Tensor:
    """`t` as a tensor of `layer`; it must not be of a higher one."""
    return cast("Tensor", t) if owned(t, layer) else layer.lift(t)


def layers_of(t: Any) -> Iterator[Any]:
    """The layered tensors from `t` inwards, and then the plain tensor."""
    yield t
    while t.__class__ is Layered:
        t = content_of(t).inner
        yield t


def plain(t: Any) -> Tensor:
    """The plain tensor that all layers of `t` are around."""
    return cast("Tensor", list(layers_of(t))[-1])


def highest(operands: Sequence[Any]) -> Layer:
    """The highest layer among operands. TransformError for what outlived its transform."""
    found: Layer | None = None
    for t in operands:
        if t.__class__ is Layered:
            layer: Layer = content_of(t).layer
            if layer.over:
                layer.refuse(
                    "a tensor from inside the transformed function is used after the transform was over",
                    operands=[t],
                    fix="return it from the function",
                )
            if found is None or layer.depth > found.depth:
                found = layer
    assert found is not None
    return found


def bind(op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
    """Apply an op to operands of which some are layered."""
    layer = highest(operands)
    results = layer.apply(op, operands, attrs)
    if MODES.grad_enabled:
        flags = 0
        for t in operands:
            if owned(t, layer):
                if t._view is not None:
                    tape.refresh(t)
                flags |= t._flags
        if flags & REQUIRES_GRAD:
            own = [on(layer, t) for t in operands]
            tape.attach(tape.OpNode(op, own, attrs, results, False), results)
    if op.view is not None and results[0]._buffer is operands[0]._buffer:
        tape.track_view(op, operands[0], attrs, results[0])
    return results


def write(target: Any, name: str, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> None:
    """target[...] = op(*operands), where `target` is layered: the tape of its layer, then the memory inside."""
    layer: Layer = content_of(target).layer
    taped = MODES.grad_enabled and any(tape.wants_grad(t) for t in operands if owned(t, layer))
    taped = taped or (MODES.grad_enabled and tape.wants_grad(target))
    if taped:  # the rule may read operands later, when this memory holds the result
        saved, _ = op.saved([owned(x, layer) and tape.wants_grad(x) for x in operands])
        operands = [OPS["copy"](x) if x is target and i in saved else x for i, x in enumerate(operands)]
    new = operands[0] if op.name == "copy" and not taped else op.bind(operands, attrs)[0]
    if new.__class__ is Layered and highest((new, target)) is not layer:
        refuse_write(target, name, new)
    new = on(layer, new)
    if taped:
        tape.rebase(target, name, new)
    layer.write(target, name, new)


def refuse_write(target: Any, name: str, value: Any) -> NoReturn:
    """TransformError: `value` has more to it than `target` can hold."""
    highest((value,)).refuse(
        "an in-place write of a tensor of the transform into one that is not: it can't hold what belongs to it",
        op=name,
        operands=[target, value],
        fix="write without the underscore, or make the tensor with zeros_like, new_zeros or clone() of one that is",
    )


def new_like(example: Any, made: Tensor) -> Tensor:
    """`made`, a new tensor, as one that can hold what a layered `example` can. (`zeros_like` and its kin.)"""
    if example.__class__ is not Layered or made.__class__ is Layered:
        return made
    content = content_of(example)
    return cast("Layer", content.layer).like(example, new_like(content.inner, made))


dispatch.register_layers(LayeredLayout, bind, refuse_write)
tape.register_layers(write, refuse_write)
