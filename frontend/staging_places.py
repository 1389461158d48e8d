"""Indices of tensors that are numbers of the program: read by a gather, written by a scatter, which check them as eager
code does. A slice between such numbers must have a length that does not depend on data; other slices ask for it."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Hashable
from typing import Any, Final

from kiln.base import MODES, TensorBase
from kiln.capture import Capture, entangle
from kiln.control_capture import Inner
from kiln.errors import KilnError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.positions import counters
from kiln.promotion import apply
from kiln.staging_arithmetic import checked, staging, value_now
from kiln.staging_merge import enter
from kiln.staging_numbers import Number, as_scalar, constant, mapped_now, tensor_of, with_python_numbers

VIEW: Final = "an item"
"""The site of what is read at a place that data decides: Python has a view there, the program a copy."""
SLICE: Final = "a slice, whose ends say how many elements there are,"


def read(x: Any, key: Any, avoid: Container[Hashable] = frozenset()) -> Any:
    """x[key] of a tensor, for a key with staged numbers or without."""
    parts = _parts(x, key) if _has_numbers(key) and staging() else None
    copied = parts is not None and any(isinstance(k, (list, TensorBase)) for k in parts)
    if parts is None or (not copied and VIEW in avoid) or not _inside(x, parts):
        return x[with_python_numbers(_sized(key))]
    made = _taken(x, key, parts)
    if copied:
        return made
    capture = MODES.recorder
    assert isinstance(capture, Capture)
    if not isinstance(capture, Inner):
        made = _view(capture, x, key, made)
    capture.value_of(x)
    entangle(capture, capture.entries[id(made)].storage, capture.entries[id(x)].storage, VIEW)
    return made


def part_of(x: Any, place: tuple[Any, ...]) -> Any:
    """x[place] of a trial, which Python makes a view: here it is a copy, so neither may be written from here on."""
    made = x[place]
    capture = MODES.recorder
    assert isinstance(capture, Capture)
    capture.value_of(x)
    entangle(capture, capture.entries[id(made)].storage, capture.entries[id(x)].storage, VIEW)
    return made


def opened(x: Any, key: Any) -> Any:
    """x[key] of a tensor that is about to be written there again, changed: a copy, if there are staged numbers."""
    parts = _parts(x, key) if _has_numbers(key) and staging() else None
    if parts is None or any(isinstance(k, slice) and _has_numbers(k) for k in parts):
        return x[with_python_numbers(_sized(key))]
    return _taken(x, key, parts)


def _taken(x: Any, key: Any, parts: list[Any]) -> Any:
    """A copy of x[key]."""
    _look(x, key, parts)
    found, place = _sliced(x, parts)
    return found[tuple([_as_index(k) for k in place])]


def _view(capture: Capture, x: Any, key: Any, copy: Any) -> Any:
    """The view that Python has, known to a capture as what was recorded of `copy`."""
    value = capture.value_of(copy)
    MODES.recorder = None
    try:
        made = x[mapped_now(key)]
    finally:
        MODES.recorder = capture
    if made._node is not None:
        capture.produced[made._node, made._index] = value
    enter(capture, made, value)
    return made


def write(x: Any, key: Any, value: Any) -> None:
    """x[key] = value of a tensor, for a key or a value with staged numbers or without."""
    if isinstance(value, Number):
        made = as_scalar(value, x.dtype) if staging() else None
        value = value.known() if made is None else made
    parts = _parts(x, key) if _has_numbers(key) and staging() else None
    if parts is None or any(isinstance(k, slice) and _has_numbers(k) for k in parts):
        x[with_python_numbers(_sized(key))] = value
        return
    _look(x, key, parts)
    x[tuple([_as_index(k) for k in parts])] = value


def _has_numbers(key: Any) -> bool:
    if isinstance(key, slice):
        return any(isinstance(k, Number) for k in (key.start, key.stop, key.step))
    if isinstance(key, (tuple, list)):
        return any(map(_has_numbers, key))
    return isinstance(key, Number)


def _parts(x: Any, key: Any) -> list[Any] | None:
    """A key as a list of items for all dimensions; None where its numbers must be known."""
    items = list(key) if type(key) is tuple else [key]
    rest: list[Any] = [slice(None)] * (x.ndim - sum(map(_dimensions, items)))
    at = next((k for k, item in enumerate(items) if item is ...), len(items))
    items[at : at + 1] = rest
    return items if all(map(_staged, items)) and not _mixed(items) else None


def _dimensions(item: Any) -> int:
    if isinstance(item, TensorBase) and item.dtype is T.bool_:
        return item.ndim
    return 0 if item is None or item is ... else 1


def _staged(item: Any) -> bool:
    """Whether an item of a key leaves its numbers to the program."""
    if isinstance(item, Number):
        return item.kind is int and not item.settled()
    if isinstance(item, list):
        return bool(item) and all(type(k) is int or (isinstance(k, Number) and k.kind is int) for k in item)
    if isinstance(item, slice):
        return not _has_numbers(item) or (item.step is None and _length(item) is not None)
    return item is None or type(item) is int or isinstance(item, TensorBase)


def _mixed(items: list[Any]) -> bool:
    """Whether slices between numbers stand beside tensors, or new dimensions: they have places of their own."""
    slices = any(isinstance(k, slice) and _has_numbers(k) for k in items)
    return slices and any(k is None or isinstance(k, (list, TensorBase)) for k in items)


def _length(item: slice) -> int | None:
    """How many elements a slice has between two staged numbers that are so far apart."""
    if not all(isinstance(k, Number) and k.kind is int for k in (item.start, item.stop)):
        return None
    return max(item.stop.offset - item.start.offset, 0) if item.start.base is item.stop.base else None


def _look(x: Any, key: Any, parts: list[Any]) -> None:
    """Raise what Python raises where a number is out of range. The check is recorded, and fails here, too."""
    if isinstance(MODES.recorder, Inner):
        return
    recorder, MODES.recorder = MODES.recorder, None
    try:
        x[mapped_now(key)]
    except KilnError:
        MODES.recorder = recorder
        with contextlib.suppress(KilnError):
            x[tuple([_as_index(k) if not isinstance(k, slice) else slice(None) for k in parts])]
        raise
    finally:
        MODES.recorder = recorder


def _as_index(item: Any) -> Any:
    if isinstance(item, Number):
        return item.tensor
    if isinstance(item, list) and _has_numbers(item):
        return OPS["cat"](*[OPS["reshape"](tensor_of(k), shape=(1,)) for k in item], dim=0)
    return item


def _sliced(x: Any, parts: list[Any]) -> tuple[Any, list[Any]]:
    """The tensor with slices between staged numbers taken, and the parts that are left."""
    for d, item in enumerate(parts):
        if isinstance(item, slice) and _has_numbers(item):
            length = _length(item)
            assert length is not None
            offsets = apply(OPS["broadcast"], item.start.tensor, shape=(length,), dims=())
            places = OPS["add"](counters(length, offsets), offsets)
            x = x[(*[slice(None)] * d, places)]
            parts = [*parts[:d], slice(None), *parts[d + 1 :]]
    return x, parts


def _inside(x: Any, parts: list[Any]) -> bool:
    """Whether slices may be taken to lie within the tensor, and to begin at no negative number."""
    for d, item in enumerate(parts):
        if isinstance(item, slice) and _has_numbers(item):
            length, now = _length(item), value_now(item.start)
            assert length is not None
            last = x.shape[d] - length
            start = item.start.tensor
            ok = OPS["logical_and"](OPS["ge"](start, constant(int, 0)), OPS["le"](start, constant(int, last)))
            if not checked(ok, None if now is None else 0 <= now <= last):
                return False
    return True


def _sized(key: Any) -> Any:
    """A key in which the ends of slices are known, each asked for as a size."""
    if isinstance(key, tuple):
        return tuple(map(_sized, key))
    if not isinstance(key, slice):
        return key
    return slice(*[k.extent(SLICE) if isinstance(k, Number) else k for k in (key.start, key.stop, key.step)])
