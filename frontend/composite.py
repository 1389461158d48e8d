"""Functions that are compositions of ops, run as one native call each in eager code (docs/decisions/0010).

A `composite` that is called again and again with tensors of the same layouts is sketched, and compiled like a captured
function: one program for it, and one for its gradient. The results are those of its ops one by one, bit for bit; so are
gradients of any order, since its node on the tape expands to theirs where those are wanted.

Only what can't be told from the ops one by one is run like this: not where a capture listens, NaNs are looked for or
autocast is on (a public function turns that off for what it calls), not with subclasses of `Tensor`, nor where an input
is used twice on the way back (the uses of a value are added up one after the other, also those outside). And where a
check on data fails, the ops run one by one, to fail at their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from kiln import dispatch
from kiln.autograd.tape import ANOMALY, refresh
from kiln.base import MODES, PRODUCTS, REQUIRES_GRAD, Layout, TensorBase
from kiln.errors import CaptureError
from kiln.runtime.memory import Buffer
from kiln.runtime.targets import host_target

if TYPE_CHECKING:
    from kiln.region import Region

F = TypeVar("F", bound=Callable[..., Any])

CALLS: Final = 16
"""After so many calls with the same layouts a composite is compiled."""
MAX_VARIANTS: Final = 64
"""Compiled variants of one composite; sizes that change all the time are better served by ops one by one."""
_MAX_COUNTED: Final = 4096

_NUMBERS: Final = frozenset({bool, int, float, str, type(None)})


class _Composite:
    """What is known of one: how often it was called with what, and what was compiled (None: can't be)."""

    __slots__ = ("counts", "function", "regions")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.counts: dict[tuple[Any, ...], int] = {}
        self.regions: dict[tuple[Any, ...], Region | None] = {}

    def region(self, key: tuple[Any, ...], args: Sequence[Any], kwargs: dict[str, Any]) -> Region | None:
        """What to run for a call that is not known yet; None: its ops."""
        count = self.counts[key] = self.counts.get(key, 0) + 1
        if count < CALLS:
            if len(self.counts) > _MAX_COUNTED:
                self.counts.clear()
            return None
        made = _sketch(self.function, args, kwargs) if len(self.regions) < MAX_VARIANTS else None
        self.regions[key] = made
        return made

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards look at."""
        return (self.function,)


def composite(function: F) -> F:
    """Run `function` as one call when it is called often. It must look at nothing but its arguments' types, layouts and
    numbers, write to nothing, and return one new tensor."""
    known = _Composite(function)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if MODES.recorder is None and MODES.autocast is None and not ANOMALY.enabled:
            tensors: list[Any] = []
            key = _key(args, kwargs, tensors)
            if key is not None:
                regions = known.regions
                region = regions[key] if key in regions else known.region(key, args, kwargs)
                if region is not None:
                    try:
                        return region.run(tensors, ())
                    except dispatch.CheckFailed:
                        return function(*args, **kwargs)
        return function(*args, **kwargs)

    return cast("F", run)


def _key(args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Any]) -> tuple[Any, ...] | None:
    """What decides a call, which must be a plain one (else None); its tensors are put to `tensors`."""
    key: list[Any] = [len(args), MODES.grad_enabled, MODES.inference, MODES.default_dtype, host_target(), PRODUCTS.mode]
    plain = plain_classes()
    operands = (*args, *kwargs, *kwargs.values()) if kwargs else args
    for x in operands:
        if x.__class__ in plain:
            if x._view is not None:
                refresh(x)
            key.append(x._layout)
            key.append(x._flags & REQUIRES_GRAD)
            tensors.append(x)
        elif x.__class__ in _NUMBERS:
            key.append(x.__class__)
            key.append(repr(x) if x.__class__ is float else x)
        else:
            return None
    if len(set(map(id, tensors))) != len(tensors):
        return None
    return tuple(key)


@functools.cache
def plain_classes() -> frozenset[Any]:
    """The classes whose tensors behave as tensors do."""
    from kiln.nn.parameter import Parameter  # above this file

    return frozenset({dispatch.tensor_class(), Parameter})


def _sketch(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Region | None:
    """The compiled composite; None when it would differ from its ops in what can be seen."""
    from kiln.region import Region  # not before something is compiled
    from kiln.sketch import Sketch

    made: list[Any] = []

    def stand_in(x: Any) -> Any:
        if not isinstance(x, TensorBase):
            return x
        made.append(_like(x._layout, x._flags & REQUIRES_GRAD))
        return made[-1]

    sketched = [stand_in(x) for x in args], {k: stand_in(x) for k, x in kwargs.items()}
    name = function.__name__
    try:
        with Sketch(name, made) as sketch:
            result = function(*sketched[0], **sketched[1])
            region = Region(sketch, made, result, frozenset(), name)
    except CaptureError:
        return None
    node = "".join(part.title() for part in name.split("_"))
    return region if region.pass_for(f"{node}Backward0", name) else None


def _like(layout: Layout, flags: int) -> Any:
    """A tensor of this layout whose memory nobody reads."""
    extent = 1 + sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True) if n)
    buffer = Buffer.allocate(max(1, extent) * layout.dtype.itemsize)
    return dispatch.tensor_on(buffer, buffer.ptr, layout, flags)
