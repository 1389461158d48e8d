"""Where a warm call finds the tensors that a captured graph reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kiln.base import Layout, TensorBase
from kiln.capture import Capture
from kiln.ir.types import CPU, Device


class Inputs:
    """The inputs of a capture, in order: kept objects, arguments, and gradients of either. `positions`: of the tensor
    arguments, by their ids in the capture."""

    def __init__(self, capture: Capture, positions: Mapping[int, int]) -> None:
        self.objects: list[Any] = []
        self._arguments: list[tuple[int, int]] = []
        self._gradients: list[tuple[int, Any, int | None, Layout, int]] = []
        for n, (kind, t) in enumerate(capture.inputs):
            self.objects.append(t if kind == "object" else None)
            if kind == "argument":
                self._arguments.append((n, positions[id(t)]))
            elif kind == "grad":
                owner = next(s.tensor for s in capture.grads.values() if s.before is t)
                self._gradients.append((n, owner, positions.get(id(owner)), t._layout, t._flags))
        self._guarded = [
            (
                slot.tensor,
                positions.get(id(slot.tensor)),
                slot.before is not None,
                -1 if slot.before is None else positions.get(id(slot.before), -1),
                capture.reachable.get(id(slot.before)),
            )
            for slot in capture.grads.values()
            if slot.read and not capture.made(slot.tensor)
        ]
        self._quick = not (self._guarded or self._gradients)  # no gradient matters
        self._reachable = capture.reachable

    def source(self, k: int) -> tuple[int | None, Any]:
        """Where input `k` comes from: (the position of an argument, None), for gradients (the position of the argument
        that it belongs to if it does to one, the tensor), for objects (None, None)."""
        for n, position in self._arguments:
            if n == k:
                return position, None
        return next(((p, owner) for n, owner, p, *_ in self._gradients if n == k), (None, None))

    def gather(self, arguments: Sequence[TensorBase]) -> list[Any] | None:
        """The input tensors; None when gradients are not there (or are) as they were in the capture."""
        if self._quick:
            inputs = self.objects.copy()
            for n, position in self._arguments:
                inputs[n] = arguments[position]
            return inputs
        for tensor, k, present, argument, kept in self._guarded:
            grad = (tensor if k is None else arguments[k])._grad
            if (grad is not None) is not present:
                return None
            if present and argument != next((n for n, t in enumerate(arguments) if t is grad), -1):
                return None  # an argument is that very gradient now, or no longer
            if present and kept is not self._reachable.get(id(grad)):
                return None  # likewise a tensor that the function reaches otherwise
        return self.first(len(self.objects), arguments)

    def first(self, count: int, arguments: Sequence[TensorBase]) -> list[Any] | None:
        """The first `count` of them, as far as these alone can tell."""
        inputs = self.objects[:count]
        for n, k in self._arguments:
            if n < count:
                inputs[n] = arguments[k]
        for n, owner, position, layout, flags in self._gradients:
            if n < count:
                grad = (owner if position is None else arguments[position])._grad
                if grad is None or grad._layout is not layout or grad._flags != flags:
                    return None
                inputs[n] = grad
        return inputs


def strides_of(capture: Capture, device: Device) -> list[tuple[int, ...] | None]:
    """Strides of the inputs of a capture; None for contiguous ones, as those become that are brought to `device`."""
    tensors = [t for _, t in capture.inputs]
    return [None if t._layout.contiguous or t._layout.device is not device else t._layout.strides for t in tensors]


def device_of(tensors: Sequence[TensorBase]) -> Device:
    """Where code on these tensors runs: on the first GPU that one of them is on."""
    return next((t._layout.device for t in tensors if t._layout.device is not CPU), CPU)
