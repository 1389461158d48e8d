"""Devices: `kiln.device`, and what `device=` arguments accept."""

from __future__ import annotations

import re
from typing import Any, cast

from kiln import there
from kiln.base import MODES
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.types import CPU, Device, device_at

_KINDS = ("cpu", "cuda", "meta", "mps", "xpu")
_NUMBER = re.compile("0|[1-9][0-9]{0,2}", re.ASCII)


class _DeviceClass(type):
    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, Device)


class device(metaclass=_DeviceClass):
    """`device("cpu")`, `device("cuda:1")`, `device("cuda", 1)`: a place for tensors, with `type` and `index`.

    Naming a device does not ask for it: one that is not there is a DeviceError where a tensor is to be put on it.
    """

    def __new__(cls, type: Any, index: int | None = None) -> Any:
        if isinstance(type, Device):
            return device_at(type.kind, type.slot)
        if isinstance(type, int) and not isinstance(type, bool):
            return device_at("cuda", type)
        if not isinstance(type, str):
            raise ArgumentError(f"expected a name like 'cpu', got a {type.__class__.__name__}", op="device")
        kind, colon, number = type.partition(":")
        if kind not in _KINDS:
            raise InvalidValueError(f"unknown device {type!r}", op="device", fix='use "cpu" or "cuda"')
        if colon and (index is not None or not _NUMBER.fullmatch(number)):
            raise InvalidValueError(f"{type!r} is no device", op="device", fix='for example "cuda:0"')
        if kind == "cuda" and not colon and index is None:
            return device_at(kind, there.current())
        return device_at(kind, int(number) if colon else index or 0)


def _enter(self: Device) -> Device:
    """`with kiln.device("cuda"):` makes new tensors there that are not told where."""
    _entered().append(MODES.device)
    MODES.device = placed("device", self)
    return MODES.device


def _leave(self: Device, *_: object) -> None:
    MODES.device = _entered().pop()


def _entered() -> list[Device]:
    found: list[Device] = MODES.__dict__.setdefault("entered", [])
    return found


setattr(Device, "__enter__", _enter)  # noqa: B010
setattr(Device, "__exit__", _leave)  # noqa: B010


def placed(op: str, wanted: Any, default: Device | None = None) -> Device:
    """The device that an argument names; None is `default`, by default the one of `set_default_device`. DeviceError for
    one that is not there."""
    if wanted is None:
        return MODES.device if default is None else default
    found = CPU if wanted is CPU else cast("Device", device(wanted))
    if found is not CPU:
        there.check(found, op)
    return found


def gpu_named(op: str, wanted: Any) -> Device:
    """The GPU that an argument names, by default the current one; InvalidValueError for another device."""
    if wanted is not None and cast("Device", device(wanted)).kind != "cuda":
        raise InvalidValueError(f"{wanted} is no GPU", op=op, fix="use .to() or .cpu()")
    return placed(op, "cuda" if wanted is None else wanted)
