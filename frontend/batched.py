"""Batches that look like one of their elements: the layer of `vmap`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from kiln.autograd.tape import write_in_place
from kiln.base import MODES
from kiln.batching_rules import RULES, loop, spread
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.types import DType
from kiln.layers import Content, Layer, content_of, layered, owned
from kiln.tensor import Tensor

RANDOMNESS = ("error", "same", "different")


class Batch(Content):
    """A tensor of the layers below, whose dimension 0 is the batch if it is `batched`."""

    __slots__ = ("batched",)

    def __init__(self, layer: Layer, inner: Tensor, batched: bool) -> None:
        super().__init__(layer, inner)
        self.batched = batched


class BatchLayer(Layer):
    """One `vmap`: `size` elements."""

    name = "vmap"

    def __init__(self, size: int, randomness: str) -> None:
        super().__init__()
        self.size = size
        self.randomness = randomness

    def wrap(self, inner: Tensor, batched: bool) -> Tensor:
        """A tensor of this layer."""
        return layered(Batch(self, inner, batched), inner.shape[1:] if batched else inner.shape)

    def open(self, t: Any) -> tuple[Tensor, bool]:
        """What `t` holds, and whether that is batched; `t` is of this layer or of one below."""
        if not owned(t, self):
            return t, False
        content = content_of(t)
        return content.inner, content.batched

    def apply(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Tensor, ...]:
        inner, batched = zip(*map(self.open, operands), strict=True)
        if not any(batched):
            return tuple([self.wrap(r, False) for r in op.bind(inner, attrs)])
        rule = RULES.get(op.name, loop)
        return tuple([self.wrap(r, True) for r in rule(op, inner, batched, self.size, attrs)])

    def lift(self, t: Tensor) -> Tensor:
        return self.wrap(t, False)

    def like(self, example: Tensor, t: Tensor) -> Tensor:
        if not self.open(example)[1]:
            return self.wrap(t, False)
        return self.wrap(cast("Tensor", OPS["copy"](spread(t, False, self.size))), True)

    def write(self, target: Tensor, name: str, value: Tensor) -> None:
        (into, wide), (new, batched) = self.open(target), self.open(value)
        if batched and not wide:
            self.refuse(
                "an in-place write of batched values into a tensor that is the same for the whole batch",
                op=name,
                operands=[target, value],
                fix="write without the underscore, or make the tensor with zeros_like, new_zeros or clone() of a "
                "batched one",
            )
        write_in_place(into, name, OPS["copy"], (spread(new, batched, self.size) if wide else new,), {})

    def read(self, t: Tensor, what: str) -> Any:
        inner, batched = self.open(t)
        if not batched:
            return inner._read(what)
        self.refuse(
            f"{what} asks for the data of one tensor, which here stands for {self.size}",
            operands=[t],
            fix="compute with tensors (kiln.where instead of if), or move this line out of the function",
        )


def draw(op: OpDef, state: Tensor, shape: tuple[int, ...], dtype: DType) -> tuple[Tensor, int]:
    """Random numbers inside transforms, and how many were drawn: for each element of a batch its own ("different"), or
    the same for all. TransformError where a `vmap` was not told which."""
    layers = [layer for layer in MODES.layers if isinstance(layer, BatchLayer)]
    for layer in layers:
        if layer.randomness == "error":
            layer.refuse(
                "random numbers are drawn: for each element of the batch, or once for all?",
                op=op.name,
                fix='vmap(..., randomness="different") or randomness="same"',
            )
    own = [layer for layer in layers if layer.randomness == "different"]
    whole = (*[layer.size for layer in own], *shape)
    (drawn,) = op.bind((state,), {"shape": whole, "dtype": dtype})
    count = drawn.numel()
    for layer in own:
        drawn = layer.wrap(drawn, True)
    return drawn, count
