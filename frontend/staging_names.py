"""Tensors by the names that Python knows them by.

Where a branch that is staged gives a tensor that was there before, the capture goes on with another tensor on the same
memory: a *twin*, so that the graph can tell them apart. Python must not see it: when a call is over, the places that it
has changed, and what it returns, hold the tensors that they hold without a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kiln.base import REQUIRES_GRAD, TensorBase
from kiln.journal import Journal
from kiln.places import SEQUENCES
from kiln.pytree import is_named_tuple
from kiln.traced import GradSlot


class Originals:
    """Puts tensors in place of their twins. `real`: the tensor that a twin stands for, or what it is given."""

    def __init__(self, real: Callable[[Any], Any]) -> None:
        self._real = real
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, x: Any) -> Any:
        """`x` without twins: lists and dicts stay the objects that they are."""
        if isinstance(x, TensorBase):
            return self._real(x)
        if not isinstance(x, (list, dict, tuple)):
            return x
        if id(x) in self._known:
            return self._known[id(x)][1]
        if isinstance(x, tuple):
            items = [self.of(each) for each in x]
            same = all(a is b for a, b in zip(items, x, strict=True))
            plain = type(x) is tuple or is_named_tuple(type(x))
            whole = x if same or not plain else tuple.__new__(type(x), items)
            self._known[id(x)] = x, whole
            return whole
        self._known[id(x)] = x, x
        if isinstance(x, list):
            found = [self.of(each) for each in x]
            if any(a is not b for a, b in zip(found, x, strict=True)):
                list.__setitem__(x, slice(None), found)
            return x
        for key, each in list(dict.items(x)):
            real = self.of(each)
            if real is not each:
                dict.__setitem__(x, key, real)
        return x

    def settle(self, journal: Journal | None, gradients: Iterable[GradSlot]) -> None:
        """Nothing that outlives the call holds a twin."""
        for slot in gradients:
            if slot.written and slot.final is not None and slot.tensor._grad is slot.final:
                slot.tensor._grad = self._real(slot.final)
        for spot in () if journal is None else journal.places():
            kind, container, before, now = spot.kind, spot.container, spot.before, spot.held()
            if isinstance(now, set):
                continue
            if kind in SEQUENCES:
                items = [self.of(x) if k >= len(before) or before[k] is not x else x for k, x in enumerate(now)]
                if any(a is not b for a, b in zip(items, now, strict=True)):
                    kind.put(container, 0, items)
                continue
            for key, x in now.items():
                found = x if key in before and before[key] is x else self.of(x)
                if found is not x:
                    kind.put(container, key, found)

    def tell(self, twins: Iterable[Any]) -> None:
        """What was done to twins themselves was done to the tensors."""
        for t in twins:
            real = self._real(t)
            if t._flags & REQUIRES_GRAD and t._node is None:
                real._flags |= REQUIRES_GRAD
            if t._grad is not None:
                real._grad = self._real(t._grad)
