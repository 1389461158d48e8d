"""How tensors print, digit for digit as PyTorch prints them: one format for all elements, long tensors shortened."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln import dispatch
from kiln.base import MODES
from kiln.errors import InvalidValueError
from kiln.ir import types as T
from kiln.overriding import opted_out

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["set_printoptions"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES: Final = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How tensors print: digits behind the point, the number of elements from which only `edgeitems` at both ends of
    each dimension are shown, characters in a line, and whether numbers have exponents (None: where they need them).
    `profile` sets all of them: "default", "short" or "full"."""
    global _options
    if MODES.recorder is not None:
        MODES.recorder.reject("set_printoptions() can't be captured", fix="call it before the compiled function")
    if profile is not None:
        if profile not in _PROFILES:
            raise InvalidValueError(
                f"no profile {profile!r}", op="set_printoptions", fix=f"there are {', '.join(_PROFILES)}"
            )
        _options = _PROFILES[profile]
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None and not value >= 0:
            raise InvalidValueError(f"{name} is {value!r}", op="set_printoptions", fix="give a number of 0 or more")
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    _options = replace(_options, **changes, sci_mode=sci_mode)


@dataclass(frozen=True)
class Described:
    """What a tensor's text says besides the elements."""

    prefix: str
    shape: tuple[int, ...]
    dtype: T.DType
    default: T.DType
    history: str
    device: str = ""

    def text(self, data: Array) -> str:
        """The text, for elements `data`, as the options are now."""
        prefix, suffixes = self.prefix, []
        known: tuple[T.DType, ...] = (T.bool_, T.int64, self.default, self.default.paired)  # these one sees
        if 0 in self.shape:
            text = "[]"
            if len(self.shape) != 1:
                suffixes.append(f"size={self.shape}")
            known = (self.default,)
        else:
            shorten = data.size > _options.threshold
            if shorten and not _options.edgeitems:
                text = "[...]"
                suffixes.append(f"size={self.shape}")
            else:
                text = _text(data, len(prefix), shorten)
        if self.device:
            suffixes.append(f"device={self.device!r}")
        if self.dtype not in known:
            suffixes.append(f"dtype={self.dtype!r}")
        if self.history:
            suffixes.append(self.history)
        return _with_suffixes(prefix + text, suffixes, len(prefix))


def described(t: Tensor) -> Described:
    """What the text of a tensor says besides the elements."""
    named = not opted_out(type(t)) and type(t) is not dispatch.tensor_class()
    node = t.grad_fn
    history = "requires_grad=True" if t.requires_grad else ""
    if node is not None:
        history = f"grad_fn=<{node.name()}>"
    prefix = f"{type(t).__name__}(" if named else "tensor("
    place = "" if t.device == T.CPU else str(t.device)
    return Described(prefix, tuple(t.shape), t.dtype, MODES.default_dtype, history, place)


def tensor_repr(t: Tensor, data: Array) -> str:
    """`tensor([[1., 2.]], dtype=kiln.float64, requires_grad=True)`, for elements `data`."""
    return described(t).text(data)


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Suffixes behind the text, on lines of their own where they would be too long."""
    width = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if width + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            width = indent + len(suffix)
        else:
            text += ", " + suffix
            width += len(suffix) + 2
    return text + ")"


def _text(data: Array, indent: int, shorten: bool) -> str:
    edge = _options.edgeitems
    shown = data
    if shorten:
        for axis, n in enumerate(data.shape):
            if n > 2 * edge:
                shown = np.take(shown, [*range(edge), *range(n - edge, n)], axis)
    form = _PairFormat(shown) if data.dtype.kind == "c" else _Format(shown)
    return _nested(data, indent, shorten, form)


def _nested(data: Array, indent: int, shorten: bool, form: _Format | _PairFormat) -> str:
    """The elements in brackets, dimension within dimension."""
    if not data.ndim:
        return form(data)
    edge = _options.edgeitems
    cut = shorten and len(data) > 2 * edge
    rows = [*data[:edge], *data[len(data) - edge :]] if cut else list(data)
    if data.ndim == 1:
        return _row(rows, indent, cut, form)
    parts = [_nested(row, indent + 1, shorten, form) for row in rows]
    if cut:
        parts.insert(edge, "...")
    return "[" + ("," + "\n" * (data.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _row(values: list[Any], indent: int, cut: bool, form: _Format | _PairFormat) -> str:
    """One dimension, broken into lines."""
    items = [form(x) for x in values]
    if cut:
        items.insert(_options.edgeitems, " ...")
    count = max(1, (_options.linewidth - indent) // (form.width + 2))
    lines = [", ".join(items[k : k + count]) for k in range(0, len(items), count)]
    return "[" + ("," + "\n" + " " * (indent + 1)).join(lines) + "]"


class _Format:
    """One number format for all elements, as wide as the widest."""

    def __init__(self, data: Array) -> None:
        self._spec = ""
        if data.dtype.kind == "f":
            finite = np.isfinite(data) & (data != 0)
            values = data[finite].astype(np.float64)
            self._spec = _float_spec(values)
            widths = [len(self._plain(x)) for x in values]
        else:
            widths = [len(str(x)) for x in data.reshape(-1)]
        self.width = max(widths, default=1)

    def _plain(self, x: Any) -> str:
        if not self._spec:
            return str(x)
        text = format(float(x), self._spec)
        return f"{text}." if self._spec == ".0f" and math.isfinite(x) else text

    def __call__(self, x: Any) -> str:
        return self._plain(x).rjust(self.width)


class _PairFormat:
    """A format for the real and one for the imaginary parts of complex numbers."""

    def __init__(self, data: Array) -> None:
        self._parts = _Format(data.real), _Format(data.imag)
        self.width = self._parts[0].width + self._parts[1].width + 1

    def __call__(self, z: Any) -> str:
        re, im = self._parts[0](z.real), self._parts[1](z.imag).lstrip()
        return f"{re}{im}j" if im.startswith("-") else f"{re}+{im}j"


def _float_spec(values: Array) -> str:
    """The format of finite numbers that are not 0: whole numbers without digits, exponents where sizes differ much."""
    if not values.size:
        return ".0f"
    sizes = np.abs(values)
    low, high = float(sizes.min()), float(sizes.max())
    whole = bool(np.all(values == np.ceil(values)))
    exponents = high / low > 1000.0 or high > 1e8 or (low < 1e-4 and not whole)
    if _options.sci_mode is not None:
        exponents = _options.sci_mode
    if exponents:
        return f".{_options.precision}e"
    return ".0f" if whole else f".{_options.precision}f"
