"""Devices: `kiln.device`, and what `device=` arguments accept."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from kiln.errors import ArgumentError, DeviceError, InvalidValueError
from kiln.ir.types import CPU, Device

_KINDS = ("cpu", "cuda", "meta", "mps", "xpu")


class _DeviceClass(type):
    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, Device)


class device(metaclass=_DeviceClass):
    """`device("cpu")`, `device("cuda:1")`, `device("cuda", 1)`: a place for tensors, with `type` and `index`.

    Naming a device does not ask for it: one that is not there is a DeviceError where a tensor is to be put on it.
    """

    def __new__(cls, type: Any, index: int | None = None) -> Any:
        if isinstance(type, Device):
            return type
        if not isinstance(type, str):
            raise ArgumentError(f"expected a name like 'cpu', got a {type.__class__.__name__}", op="device")
        kind, colon, number = type.partition(":")
        if kind not in _KINDS:
            raise InvalidValueError(f"unknown device {type!r}", op="device", fix='use "cpu"')
        if colon and (index is not None or not number.isdecimal()):
            raise InvalidValueError(f"{type!r} is no device", op="device", fix='for example "cuda:0"')
        return Device(kind, int(number) if colon else index or 0)


def placed(op: str, wanted: Any) -> Device:
    """The device that an argument names: None and the CPU are the CPU. DeviceError for one that is not there."""
    if wanted is None or wanted is CPU:
        return CPU
    found: Device = device(wanted)
    if found == CPU:
        return CPU
    if found.kind != "cuda":
        raise DeviceError(f"there is no device {found}", op=op, fix='use "cpu"')
    if find_spec("cupy") is None:
        raise DeviceError(
            f"device {found} needs CuPy, which is not installed", op=op, fix="pip install cupy-cuda12x, or use the CPU"
        )
    raise DeviceError(f"this version keeps tensors on the CPU; {found} can't hold one", op=op, fix="leave device= out")
