"""Numbers that a captured function takes out of tensors: `item()`, `tolist()`, `float(t)`, `int(t)`, `bool(t)`."""

from __future__ import annotations

from typing import Any, Final

from kiln.base import LAYERED, MODES, TensorBase
from kiln.capture import Capture
from kiln.control_capture import Inner
from kiln.interop import InteropMethods
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.staging_arithmetic import as_float, as_int, rounded, staging, within
from kiln.staging_numbers import DTYPES, START, Group, Number, scalar
from kiln.staging_trial import Trial

_KINDS: Final = {"bool": bool, "int": int, "uint": int, "float": float}
_MAX_NUMBERS: Final = 128
"""Elements of a tensor that become numbers of their own; a longer one is asked for."""


def _numbers(t: Any) -> bool:
    """Whether a tensor's elements can become numbers of the program."""
    recorder = MODES.recorder
    if not staging() or not isinstance(recorder, Capture) or t._flags & LAYERED:
        return False
    if t._layout.dtype.kind not in _KINDS or not 0 < t._layout.numel <= _MAX_NUMBERS:
        return False
    at: Any = recorder
    while isinstance(at, Inner):
        if not isinstance(at, Trial):
            return False  # a function that `kiln.cond` and its like call: what it returns are tensors
        at = at.parent
    recorder.hooks.numbers()
    return True


def _wide(t: Any, dtype: DType, shape: tuple[int, ...]) -> Any:
    """The elements now, in a tensor that nobody else has, and through which no gradients flow."""
    before, MODES.grad_enabled = MODES.grad_enabled, False
    try:
        made = t if t._layout.shape == shape else OPS["reshape"](t, shape=shape)
        return OPS["copy"](made) if t._layout.dtype is dtype else OPS["cast"](made, dtype=dtype)
    finally:
        MODES.grad_enabled = before


def _bound(dtype: DType, wide: Any) -> int | None:
    """How far from zero integers of this dtype are; None where one is too far for exact arithmetic."""
    if dtype is not T.int64:
        return max(abs(dtype.least), dtype.most) if dtype.is_integer else 1
    sizes = OPS["cast"](OPS["abs"](wide), dtype=T.float64)
    if sizes.ndim:
        sizes = OPS["amax"](sizes, dims=tuple(range(sizes.ndim)), keepdim=False)
    return START if within(sizes) else None


def item(t: Any) -> Any:
    """t.item()"""
    if t._layout.numel != 1 or not _numbers(t):
        return InteropMethods.item(t)
    kind = _KINDS[t._layout.dtype.kind]
    made = _wide(t, DTYPES[kind], ())
    bound = _bound(t._layout.dtype, made)
    return InteropMethods.item(t) if bound is None else Number(kind, made, bound)


def tolist(t: Any) -> Any:
    """t.tolist()"""
    if not _numbers(t):
        return InteropMethods.tolist(t)
    if not t.ndim:
        return item(t)
    kind = _KINDS[t._layout.dtype.kind]
    made = _wide(t, DTYPES[kind], t._layout.shape)
    bound = _bound(t._layout.dtype, made)
    if bound is None:
        return InteropMethods.tolist(t)
    group = Group(made, "tolist()")
    numbers = iter([Number.of_group(kind, group, k, bound) for k in range(made._layout.numel)])
    return _nested(numbers, t._layout.shape)


def _nested(numbers: Any, shape: tuple[int, ...]) -> Any:
    if not shape:
        return next(numbers)
    return [_nested(numbers, shape[1:]) for _ in range(shape[0])]


def to_float(*args: Any) -> Any:
    """float(...)"""
    (x,) = args if len(args) == 1 else (None,)
    if isinstance(x, TensorBase) and x._layout.numel == 1 and _numbers(x):
        x = item(x)
    if not isinstance(x, Number) or not staging() or x.settled():
        return float(*args)
    return x if x.kind is float else Number(float, as_float(x))


def to_int(*args: Any, **kwargs: Any) -> Any:
    """int(...)"""
    (x,) = args if len(args) == 1 and not kwargs else (None,)
    if isinstance(x, TensorBase) and x._layout.numel == 1 and _numbers(x):
        x = item(x)
    if not isinstance(x, Number) or not staging() or x.settled():
        return int(*args, **kwargs)
    return rounded("trunc", x, int) if x.kind is float else as_int(x)


def to_bool(*args: Any) -> Any:
    """bool(...)"""
    (x,) = args if len(args) == 1 else (None,)
    if isinstance(x, TensorBase) and x._layout.numel == 1 and _numbers(x):
        before, MODES.grad_enabled = MODES.grad_enabled, False
        try:
            truth = scalar(x)
            return Number(bool, OPS["copy"](truth) if x.dtype is T.bool_ else truth)
        finally:
            MODES.grad_enabled = before
    if not isinstance(x, Number) or not staging() or x.settled():
        return bool(*args)
    return x.truth()
