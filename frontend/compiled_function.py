"""Functions that capture themselves: what `kiln.compile` gives, and what the other doors derive from.

A compiled function keeps *regions*, one per signature (structure of the arguments, their dtypes, shapes and strides,
Python values, modes) and state of what the function reaches (`guards.py`), as ends of a tree of decisions on tensor
data (`tree.py`). The first call that goes a new way is a capture: it runs eagerly and its results are eager's. Later
calls run compiled programs. Calls that can't be compiled run eagerly.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from kiln.autograd.tape import ANOMALY
from kiln.base import MODES
from kiln.capturing import MAX_CAPTURES, Capturing
from kiln.compiled import Code
from kiln.dims import check_marks
from kiln.dispatch import CheckFailed
from kiln.entry import Call, Entry, find
from kiln.errors import CaptureError
from kiln.location import user_frames
from kiln.pytree import flatten
from kiln.readable import Readable
from kiln.region import Region
from kiln.signature import brief, signature
from kiln.tally import Tally


class CompiledFunction(Capturing, Readable):
    """A function that captures itself on its first call per signature and runs compiled from then on.

    Attributes of the wrapped function or module are reachable through it.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._donations is not None:
                return self._donations.call(self._run, self._name, (), args, kwargs)
            return self._run((), args, kwargs)
        except CaptureError as refusal:
            raise refusal.with_traceback(user_frames(refusal.__traceback__)) from None

    def _run_on(self, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call as a method: what is read of the instance is for the guards to find out."""
        if self._donations is not None:
            return self._donations.call(self._run, self._name, (id(instance),), (instance, *args), kwargs)
        return self._run((id(instance),), (instance, *args), kwargs)

    def _run(self, keep: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Inside another capture or a transform it is part of that; where NaNs are looked for, each op has to be seen.
        if MODES.recorder is not None or MODES.layers or ANOMALY.enabled or not MODES.compiling:
            return self._inside(args, kwargs)
        plain = None if kwargs else brief(keep, args)
        try:
            if self._ranges is not None:
                self._ranges.check(args, kwargs)
            if plain is not None and (entries := self._brief.get(plain[0])) is not None:
                check_marks(plain[1])
                _, found = find(entries, plain[1])
                if found.__class__ is tuple and not found[0].idle:
                    return (
                        self._repeat(plain[1], entries, (args, kwargs, keep)) if found[0].lasting else self._warm(found)
                    )
            call = Call(args, kwargs, keep, *signature(keep, args, kwargs))
            check_marks(call.tensors)
            entries = self._entries.get(call.key, [])
            _, found = find(entries, call.tensors)
            if found.__class__ is tuple:
                if found[0].idle and found[0].rests():
                    return self._uncompiled(args, kwargs)
                if plain is not None:
                    self._remember(plain[0], entries)
                return self._repeat(call.tensors, entries, call[:3]) if found[0].lasting else self._warm(found)
        except CheckFailed:  # nothing was written: eager does what comes before the error, and raises it
            return self._uncompiled(args, kwargs)
        except CaptureError as error:  # the arguments can't be told apart, or share memory
            return self._eagerly(error, args, kwargs)
        if found is None:
            with self._lock:
                # Another thread may have captured it meanwhile.
                entry, found = find(self._entries.get(call.key, []), call.tensors)
                if found is None:
                    return self._capture(call, entry)
        return self._run(keep, args, kwargs) if isinstance(found, tuple) else self._uncompiled(args, kwargs)

    def _repeat(self, tensors: list[Any], entries: list[Entry], call: tuple[Any, ...]) -> Any:
        """A warm call that changes Python state: one at a time, as captures are, or that returns what was there."""
        args, kwargs, keep = call
        with self._lock:
            entry, found = find(entries, tensors)
            if not isinstance(found, tuple) or entry is None:  # another thread has changed what it reads
                return self._run(keep, args, kwargs)
            containers: list[Any] = []
            flatten((args, kwargs), containers, keep)
            if found[0].effects and any(id(x) in entry.reached.seen for x in containers):
                raise CaptureError(
                    "the call changes Python state, and an argument is a container that the function also reaches by "
                    "itself",
                    fix="pass it, or reach it by itself, but not both",
                )
            return self._warm(found, containers)

    def _warm(self, found: Any, containers: Sequence[Any] = ()) -> Any:
        """A call of a compiled region."""
        region, inputs, carried, decided, given = found
        returned = region.run(inputs, given, carried, containers)
        if decided and self._door != "script":  # that has all ways from the first call on
            self._tally.decided += 1
        elif decided or region.staged:
            self._tally.staged += 1
        else:
            self._tally.compiled += 1
        self._tally.reused += region.reused
        return returned

    def _remember(self, key: tuple[Any, ...], entries: list[Entry]) -> None:
        """Where calls of this brief key are found, until something is captured."""
        with self._lock:
            if entries in self._entries.values():
                if len(self._brief) >= MAX_CAPTURES:
                    self._brief.clear()
                self._brief[key] = entries

    def _inside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call as part of something else."""
        return self._function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method, bound like a function."""
        return self if instance is None else functools.partial(self._run_on, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_function" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes go to the wrapped function or module, but for this object's own."""
        own = "_lock" not in self.__dict__ or name in self.__dict__
        if own or name.startswith("__"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._function, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The type; for a compiled module the module's, so that it is a submodule of what holds it."""
        function = self.__dict__.get("_function")
        return type(function) if issubclass(type(self), CompiledModule) else type(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """Compiled anew, of a copy of the function or module."""
        return self._again(copy.deepcopy(self._function, memo))

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        """Another function, compiled like this one."""
        return type(self)(
            function,
            fullgraph=self._strict,
            on_recompile=self._on_recompile,
            dynamic=self._dynamic,
            check_nan=self._check_nan,
            donate=self._donate,
            mode=self._mode,
        )

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards of other captured functions look at."""
        return (self._function,)

    def __repr__(self) -> str:
        count = len(self.regions())
        return f"<compiled {getattr(self._function, '__name__', self._function)!s}, {count} captures>"

    def report(self) -> Tally:
        """What became of the calls so far.

        >>> import kiln
        >>> f = kiln.compile(lambda x: x * x.sum().item())
        >>> values = [f(kiln.tensor([n])).item() for n in (1.0, 1.0, -1.0, -1.0)]
        >>> print(f.report())
        0 compiled, 0 staged, 2 decided, 2 captured, 0 eager
        captured: first call
        captured: a question about tensor data had another answer
        """
        return dataclasses.replace(
            self._tally,
            captures=tuple(self.log),
            refusals=(*self._told, *(self._family.refusals if self._family else ())),
            graphs=tuple(told for code in self.pieces() if (told := code.told())),
            generated=len({id(r.forward.code) for r in self.regions() if r.forward is not None}),
        )

    def regions(self) -> list[Region]:
        """All compiled regions, oldest first."""
        return [r for entries in self._entries.values() for entry in entries for r in entry.tree.regions()]

    @property
    def compile_seconds(self) -> float:
        """Seconds spent generating code for this function so far."""
        return sum(code.seconds for code in self.pieces())

    def pieces(self) -> list[Code]:
        """What was compiled, each piece once, however many regions share it."""
        return list(dict.fromkeys(code for region in self.regions() for code in region.code()))


class CompiledModule(CompiledFunction):
    """A compiled module: a container's items are reached through it, too."""

    def __len__(self) -> int:
        return len(self._function)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._function[index]  # type: ignore[index]

    def __iter__(self) -> Any:
        return iter(self._function)  # type: ignore[call-overload]

    def __contains__(self, item: Any) -> bool:
        return item in self._function  # type: ignore[operator]


class Methods(CompiledModule):
    """A module with several doors: itself, and methods by their names."""

    _methods: dict[str, Any]

    @property
    def original_name(self) -> str:
        """The class of the module."""
        return type(self._function).__name__

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The captured call."""
        return self(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = self.__dict__.get("_methods", {}).get(name)
        return super().__getattr__(name) if method is None else method
