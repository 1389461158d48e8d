"""What a capture knows of the tape: which operations gradients flow back through, and from which values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from kiln.base import TensorBase
from kiln.ir.graph import Operation, Value
from kiln.ir.types import TensorType


class History:
    """The part of `Capture` that follows the tape."""

    def __init__(self) -> None:
        self.hooked: dict[int, str] = {}
        """What was hung on nodes during the capture, by their id (operations keep what they produced alive)."""
        self.taped: set[Operation] = set()
        self.produced: dict[tuple[Any, int], Value] = {}
        """What each result of a node on the tape held when the node was made."""
        self.severed: set[Value] = set()
        """Values that were written, with gradients disabled, over tensors that gradients flow to."""
        self._latest: tuple[Operation, Sequence[TensorBase]] | None = None
        self.rederived: set[Operation] = set()

    def refuse(self, message: str, *, operands: Sequence[TensorType] = (), fix: str = "") -> NoReturn:
        """Raise CaptureError."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Note whether the latest operation went on the tape (which happens after it was recorded, and which a
        later in-place write to its result would hide)."""
        if self._latest is not None:
            operation, results = self._latest
            for t, v in zip(results, operation.results, strict=True):
                if t._node is not None:
                    self.taped.add(operation)
                    self.produced[t._node, t._index] = v
            self._latest = None

    def seed_of(self, t: TensorBase) -> Value:
        """The value whose gradient the tape takes to be that of `t`: not what `t` holds if it was overwritten with
        gradients disabled."""
        self._settle()
        found = self.produced.get((t._node, t._index))
        if found is None:
            self.refuse(
                "a tensor was returned whose gradient goes to something outside the call",
                operands=[t.ttype],
                fix="return a result of the call, or detach() it",
            )
        return found

    def check_history(self, seeds: Sequence[Value]) -> None:
        """Refuse when gradients of `seeds` would flow through a value of `severed`: eager's flow past it, to what the
        tensor was before the write."""
        self._settle()
        taped = self.taped_operations()
        todo, seen = list(seeds), set(seeds)
        while todo and self.severed:
            v = todo.pop()
            if v in self.severed:
                self.refuse(
                    "gradients flow through a tensor that was overwritten with gradients disabled, and then used",
                    operands=[v.type],
                    fix="write to a clone(), or compute the gradients inside the function",
                )
            if v.producer is not None and v.producer in taped:
                fresh = [x for x in v.producer.operands if x not in seen]
                seen.update(fresh)
                todo += fresh

    def taped_operations(self) -> frozenset[Operation]:
        """Operations that are on the tape: gradients flow back through them and through no other."""
        self._settle()
        return frozenset(self.taped | self.rederived)
