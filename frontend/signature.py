"""What tells calls of a compiled function apart before anything else: structure, dtypes, shapes, strides and flags of
the arguments, Python values among them, which of them are the same, and modes of the thread."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from types import MethodType
from typing import Any, Final

import numpy as np

from kiln.autograd import refresh
from kiln.base import HOOKED, MODES, PRODUCTS, REQUIRES_GRAD, TensorBase
from kiln.composite import plain_classes
from kiln.constants import Size
from kiln.errors import CaptureError
from kiln.guards import SCALARS
from kiln.interop import attributes_of
from kiln.ir.types import CPU
from kiln.pytree import flatten


def signature(keep: tuple[int, ...], args: Any, kwargs: Any) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    """(key, tensor arguments without repetition, other objects to guard)."""
    containers: list[Any] = []
    try:
        leaves, tree = flatten((args, kwargs), containers, keep)
    except RecursionError:
        raise CaptureError(
            "an argument holds itself, directly or through others", fix="keep it in a variable that the function reads"
        ) from None
    key: list[Any] = [tree, modes(), _repeated(containers)]
    tensors: list[Any] = []
    objects: list[Any] = []
    known: dict[int, int] = {}
    buffers: dict[int, int] = {}
    plain = plain_classes()
    for x in leaves:  # to which attributes of tensors are added on the way
        if isinstance(x, TensorBase):
            position = known.setdefault(id(x), len(tensors))
            if position == len(tensors):
                tensors.append(x)
                if x.__class__ not in plain:
                    attributes = attributes_of(x)
                    key.append((x.__class__, tuple(attributes)))
                    leaves += attributes.values()
            key.append(_tensor(x, position, buffers.setdefault(id(x._buffer), position)))
        elif x.__class__ in _BY_VALUE:
            key.append((x.__class__, repr(x) if isinstance(x, float | complex | np.generic) else x))
        else:
            key.append(_known_by(x))
            objects.append(x)
    return tuple(key), tensors, objects


def _tensor(x: Any, position: int, shared: int) -> tuple[Any, ...]:
    """What is told of a tensor. `position`: its own among all; `shared`: that of the first one on its memory."""
    tied = False
    if x._view is not None:
        refresh(x)
        tied = bool(x._view.base._flags & REQUIRES_GRAD)
    return x._layout, x._flags, x._node is None, tied, position, shared, x.__class__


def brief(keep: tuple[int, ...], args: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]] | None:
    """(key, tensor arguments) of the plainest calls: only tensors, each on memory of its own and no view, numbers and
    strings, after an object whose id is in `keep`. Calls that are alike in this are alike in `signature`. None for
    other calls."""
    usual = MODES.autocast is None and MODES.device is CPU and not MODES.gpu
    rest = usual or (MODES.autocast, MODES.device, MODES.gpu)
    key: list[Any] = [keep, MODES.grad_enabled, MODES.inference, MODES.default_dtype, rest, PRODUCTS.mode]
    tensors: list[Any] = []
    plain = plain_classes()
    for x in args:
        kind = x.__class__
        if kind in plain:
            if x._view is not None:
                return None
            key += (kind, x._layout, x._flags, x._node is None)
            tensors.append(x)
        elif kind in _BRIEF:
            key += (kind, repr(x) if kind is float else x)
        elif x is not args[0] or not keep or isinstance(x, _NOT_BRIEF):
            return None
    if len(tensors) > 1 and len(set(map(_buffer_of, tensors))) < len(tensors):
        return None
    return tuple(key), tensors


_buffer_of = attrgetter("_buffer")


def beside(tensors: Sequence[Any], others: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]] | None:
    """(key, all tensors without repetition) for tensors that a call reads beside its tensor arguments; the key says of
    them what `signature` says of those. None when one is no plain tensor."""
    found = list(tensors)
    known = {id(t): n for n, t in enumerate(tensors)}
    buffers: dict[int, int] = {}
    for n, t in enumerate(tensors):
        buffers.setdefault(id(t._buffer), n)
    key: list[Any] = []
    plain = plain_classes()
    for x in others:
        if x.__class__ not in plain or x._flags & HOOKED:
            return None
        position = known.setdefault(id(x), len(found))
        if position == len(found):
            found.append(x)
        key.append(_tensor(x, position, buffers.setdefault(id(x._buffer), position)))
    return tuple(key), found


_BRIEF: Final = frozenset({int, float, bool, str, type(None)})
_NOT_BRIEF: Final = (tuple, np.ndarray, MethodType, TensorBase)
"""Objects that `signature` does not tell by their ids alone."""


def modes() -> tuple[Any, ...]:
    """What holds for the thread and decides what a call does."""
    return (
        MODES.grad_enabled,
        MODES.inference,
        MODES.default_dtype,
        MODES.device,
        MODES.gpu,
        PRODUCTS.mode,
        MODES.autocast,
    )


_BY_VALUE: Final = frozenset({*SCALARS, Size, range}) - {np.generic} | set(np.sctypeDict.values())
"""Types of leaves that are told by what they are."""


def _known_by(x: Any) -> Any:
    """What tells an object among the arguments: its contents where those are all, else which object it is."""
    if type(x) is np.ndarray and not x.dtype.hasobject:
        return (np.ndarray, x.dtype.str, x.shape, x.tobytes())
    if type(x) is slice and all(type(part) in (int, type(None)) for part in (x.start, x.stop, x.step)):
        return (slice, x.start, x.stop, x.step)
    if type(x) is MethodType:
        return (MethodType, id(x.__self__), id(x.__func__))
    return id(x)


def _repeated(containers: Sequence[Any]) -> tuple[int, ...]:
    """For each list and dict, where the same one came first; empty when all differ (but for the keyword arguments)."""
    if len(containers) < 3:
        return ()
    first: dict[int, int] = {}
    places = tuple([first.setdefault(id(x), k) for k, x in enumerate(containers)])
    return () if len(first) == len(places) else places
