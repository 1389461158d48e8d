"""What text of tensors, of numbers that tensors decide, and of containers of such is made of (`staging_text.py`)."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln import dispatch
from kiln.base import LAYERED, MODES, TensorBase
from kiln.capture import Capture, current
from kiln.composite import plain_classes
from kiln.constants import Size
from kiln.control_capture import Inner
from kiln.ir.ops.base import OPS
from kiln.ir.types import Device, DType
from kiln.printing import described
from kiln.staging_merge import enter, in_plain_python
from kiln.staging_numbers import Lazy, Number
from kiln.staging_text import Text
from kiln.texts import Hole, Part, Respelled, Shown, Spelled, Within

CONSTANT: Final = (str, int, float, complex, bool, bytes, type(None), DType, Device, Size, range, type(...))
"""What is spelled the same in every call."""
_DEEPEST: Final = 16
PLAIN: Final[dict[str, Callable[[Any], str]]] = {"str": str, "repr": repr, "ascii": ascii}
_OF_LETTER: Final = {"s": "str", "r": "repr", "a": "ascii"}


def _held(t: Any) -> Any:
    """A tensor of its own that holds what `t` holds at this moment, and stays so. CaptureError for those that the
    capture can't know."""
    capture = MODES.recorder
    assert isinstance(capture, Capture)
    value = capture.value_of(t)
    capture._settle()
    (copied,) = capture.builder.add(OPS["copy"], [value], {})
    (made,) = in_plain_python(dispatch.run, OPS["copy"], (t,), {})
    enter(capture, made, copied)
    return made


def _readable(t: Any) -> bool:
    """Whether the text of a tensor is only about its elements, and about what is the same in every call."""
    plain = type(t) in plain_classes() and not MODES.layers and not t._flags & LAYERED
    return plain and isinstance(MODES.recorder, Capture)


def _of_tensor(t: Any, conversion: str, spec: str) -> list[Part] | None:
    if not _readable(t):
        return None
    if conversion == "format" and not t.ndim:
        return [Hole(_held(t), Spelled(None, "format", spec))]
    said = described(t)
    capture = current()
    if capture is None or (said.history and isinstance(capture, Inner)):
        return None  # it let go; or names of what is tried out are not eager's
    before = "" if type(t) is dispatch.tensor_class() else "Parameter containing:\n"
    shown: list[Part] = [Hole(_held(t), Shown(said, before))]
    if conversion == "ascii" or (conversion == "format" and spec):
        return [Within(tuple(shown), Respelled("escape" if conversion == "ascii" else conversion, spec))]
    return shown


def parts_of(x: Any, conversion: str, spec: str = "") -> Sequence[Part] | None:
    """What `repr`, `str`, `ascii` or `format` make of something; None if that does not depend on data, or if what it
    depends on must be asked for."""
    if isinstance(x, Number):
        if spec.endswith("c"):
            return None  # not every number is a character
        return [Hole(_held(x.tensor), Spelled(x.kind, conversion, spec))]
    if isinstance(x, Text):
        plain = conversion == "str" or (conversion == "format" and not spec)
        return x.parts if plain else [Within(x.parts, Respelled(conversion, spec))]
    if isinstance(x, TensorBase):
        return None if spec.endswith("c") else _of_tensor(x, conversion, spec)
    if isinstance(x, BaseException) and conversion in ("str", "format") and not spec:
        plain = type(x).__str__ is BaseException.__str__ and type(x).__format__ is object.__format__
        said = (x.args if len(x.args) > 1 else x.args[0]) if plain and lazy_in(x.args) else None
        return None if said is None else parts_of(said, "str")
    if type(x) in (list, tuple, dict) and not spec and lazy_in(x):
        found = _of_container(x)
        if found is None or conversion != "ascii":
            return found
        return [Within(tuple(found), Respelled("escape", ""))]
    return None


def lazy_in(x: Any, deep: int = 0) -> bool:
    """Whether something holds tensors, or numbers or text that they decide."""
    if isinstance(x, (Lazy, TensorBase)):
        return True
    if type(x) in (list, tuple, dict) and deep < _DEEPEST:
        return any(lazy_in(v, deep + 1) for v in (x.values() if type(x) is dict else x))
    return False


def _of_container(x: Any, deep: int = 0) -> list[Part] | None:
    """The `repr` of a list, tuple or dict; None where an item would have to be asked."""
    found: list[Part] = []
    for n, item in enumerate(x.items() if type(x) is dict else x):
        found += [", "] if n else []
        key, item = item if type(x) is dict else (None, item)
        if type(x) is dict:
            if type(key) not in CONSTANT:
                return None
            found.append(f"{key!r}: ")
        if type(item) in CONSTANT:
            found.append(repr(item))
            continue
        inner = type(item) in (list, tuple, dict)
        made = (_of_container(item, deep + 1) if deep < _DEEPEST else None) if inner else parts_of(item, "repr")
        if made is None:
            return None
        found += made
    if type(x) is tuple:
        return ["(", *found, ",)" if len(x) == 1 else ")"]
    return ["[", *found, "]"] if type(x) is list else ["{", *found, "}"]


_PRINTF: Final = re.compile(r"%(?:%|([#0\- +]*)(\d+)?(?:\.(\d+))?([srafFeEgGdi]))")


def of_printf(template: str, args: tuple[Any, ...]) -> list[Part] | None:
    """What `template % args` makes; None where it must be asked for."""
    rest = list(args)
    found: list[Part] = []
    end = 0
    for match in re.finditer(r"%", template):
        if match.start() < end:
            continue
        field = _PRINTF.match(template, match.start())
        if field is None:
            return None
        found.append(template[end : field.start()])
        end = field.end()
        if field[0] == "%%":
            found.append("%")
            continue
        if not rest:
            return None
        made = _of_field(field[0], field[4], rest.pop(0))
        if made is None:
            return None
        found += made
    return None if rest else [*found, template[end:]]


def _of_field(field: str, kind: str, x: Any) -> Sequence[Part] | None:
    """One field of a `%`."""
    if kind in "sra":
        parts = parts_of(x, _OF_LETTER[kind])
        if parts is not None:
            return parts if len(field) == 2 else [Within(tuple(parts), Respelled("%", f"{field[:-1]}s"))]
        return None if lazy_in(x) or type(x) not in CONSTANT else [field % x]
    if isinstance(x, Number):
        if kind in "di" and x.kind is float:
            return None  # not every float is an integer
        return [Hole(_held(x.tensor), Spelled(x.kind, "%", field))]
    if isinstance(x, TensorBase):
        real = x._layout.numel == 1 and not x.dtype.is_complex and _readable(x)
        return [Hole(_held(x), Spelled(float, "%", field))] if real and kind not in "di" else None
    return [field % x] if type(x) in CONSTANT else None


def of_fields(template: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Part] | None:
    """What `template.format(*args, **kwargs)` makes; None where it must be asked for."""
    found: list[Part] = []
    count = 0
    numbered = None
    for text, name, spec, conversion in string.Formatter().parse(template):
        found.append(text)
        if name is None:
            continue
        if "{" in (spec or "") or not (name == "" or name.isidentifier() or name.isdecimal()):
            return None
        if not name.isidentifier():
            if numbered not in (None, name != ""):
                return None
            numbered = name != ""
            at, count = (count, count + 1) if name == "" else (int(name), count)
            if at >= len(args):
                return None
            x = args[at]
        elif name in kwargs:
            x = kwargs[name]
        else:
            return None
        made = _of_replaced(x, conversion, spec or "")
        if made is None:
            return None
        found += made
    return found


def _of_replaced(x: Any, conversion: str | None, spec: str) -> Sequence[Part] | None:
    """A replacement field."""
    if conversion:
        parts = parts_of(x, _OF_LETTER[conversion])
        if parts is None:
            if type(x) not in CONSTANT:
                return None
            parts = [PLAIN[_OF_LETTER[conversion]](x)]
        return [Within(tuple(parts), Respelled("format", spec))] if spec else parts
    parts = parts_of(x, "format", spec)
    if parts is None:
        return [format(x, spec)] if type(x) in CONSTANT else None
    return parts
