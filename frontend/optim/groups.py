"""Parameter groups: dictionaries of options whose scheduled numbers a compiled step reads from memory.

A number that a captured function reads is compiled in and guarded, so a learning rate that changed every epoch would
mean a compilation every epoch. `Group` therefore keeps each number that schedules change ("lr", "momentum", "betas")
twice: as the Python number that users see and set, and as a float64 0-d tensor that is filled whenever the number is
set. An eager step computes with the numbers, a captured one with the tensors: in both, what is derived from them is
float64 arithmetic that is cast to the parameter's dtype at the end, so their results agree bit for bit. A momentum of
0 stays a number in both, since it decides which terms there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Self

from kiln.autograd import no_grad
from kiln.base import MODES
from kiln.creation import tensor
from kiln.ir import types as T
from kiln.tensor import Tensor

SCHEDULED: Final = ("lr", "momentum", "betas")
"""Options that schedules change."""


class Group(MutableMapping[str, Any]):
    """The options of one group, "params" among them. `changed` is called after an option was set that may ask for
    other state: one that is not scheduled, or a number that became 0 or was 0. `stamp` counts the changes that do not
    show in the content of the same tensors."""

    def __init__(self, options: Mapping[str, Any], changed: Callable[[Group], None]) -> None:
        self._options: dict[str, Any] = {}
        self._traced: dict[str, Any] = {}
        for name, value in options.items():
            self._options[name] = value
            self._traced[name] = _mirror(name, value, None)
        self._changed = changed
        self.stamp = 0
        self.steps: Any = None
        """What `fused.py` knows about steps of this group."""

    def current(self) -> Mapping[str, Any]:
        """The options that a step computes with: numbers, or their tensors while a function is captured."""
        return self._options if MODES.recorder is None else self._traced

    def traced(self) -> Mapping[str, Any]:
        """The options with tensors in place of scheduled numbers."""
        return self._traced

    def __getitem__(self, name: str) -> Any:
        value = self._options[name]
        if MODES.recorder is not None and self._traced[name] is not value:  # compiled in, so it has to be guarded
            MODES.recorder.depend(f"an optimiser's {name!r}", lambda: self._options.get(name))
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if MODES.recorder is not None:
            MODES.recorder.reject(
                f"the call changed Python state: an optimiser's {name!r}; a compiled call could not repeat that",
                fix="set it outside the compiled function; a compiled step sees the new value",
            )
        self._options[name] = value
        before = self._traced.get(name)
        self._traced[name] = after = _mirror(name, value, before)
        if after is not before:
            self.stamp += 1
            self._changed(self)

    def __delitem__(self, name: str) -> None:
        del self._options[name]
        del self._traced[name]
        self.stamp += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __repr__(self) -> str:
        return repr(self._options)

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards look at: everything but the numbers that are read from memory."""
        return (self._traced,)


def _mirror(name: str, value: Any, held: Any) -> Any:
    """The tensors for a scheduled option, `held` again where it can be; other options as they are."""
    if name in SCHEDULED and isinstance(value, tuple):
        parts = held if isinstance(held, tuple) and len(held) == len(value) else (None,) * len(value)
        new = tuple([_mirror(name, v, h) for v, h in zip(value, parts, strict=True)])
        return held if all(a is b for a, b in zip(new, parts, strict=True)) else new
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name not in SCHEDULED or not number or (name == "momentum" and value == 0):
        return value
    if not isinstance(held, _Mirror):
        return _Mirror(value)
    with no_grad():
        held.fill_(float(value))
    return held


class _Mirror(Tensor):
    """A float64 0-d tensor that follows a number; no tensor of a user's is ever one."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, value: float) -> None:
        own = tensor(float(value), dtype=T.float64, device="cpu")
        self._place(own._buffer, own._ptr, own._layout)
