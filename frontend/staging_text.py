"""Text of tensors and of numbers that tensors decide, in a captured function: it is made after the program ran.

A `Text` acts as the string in converted code. Put together, printed, returned or given to an exception, it stays text
that depends on data; for anything else (comparing, slicing, a dict's key, a call of what was not converted) the string
itself is asked for, as a question about data: a decision, or a refusal where there are none.
"""

from __future__ import annotations

import builtins
import functools
import operator
import re
import string
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, WrapperDescriptorType
from typing import Any, Final

from kiln import dispatch
from kiln.base import LAYERED, MODES, TensorBase
from kiln.capture import Capture, current
from kiln.composite import plain_classes
from kiln.constants import Size
from kiln.control_capture import Inner
from kiln.convert import PythonHooks
from kiln.errors import CaptureError
from kiln.ir.ops.base import OPS
from kiln.ir.types import Device, DType
from kiln.printing import described
from kiln.staging_merge import enter, in_plain_python
from kiln.staging_numbers import NOW, Lazy, Number, all_known, known, mapped
from kiln.texts import Hole, Part, Print, Respelled, Shown, Spelled, Template, Within, holes, moved, spelled
from kiln.world import paused

_MAX_TEXT: Final = 1024
"""Characters of a text that may decide how a call goes on."""
_CONSTANT: Final = (str, int, float, complex, bool, bytes, type(None), DType, Device, Size, range, type(...))
"""What is spelled the same in every call."""
_DEEPEST: Final = 16
_PLAIN: Final[dict[str, Callable[[Any], str]]] = {"str": str, "repr": repr, "ascii": ascii}
_OF_LETTER: Final = {"s": "str", "r": "repr", "a": "ascii"}


class Text(Lazy):
    """See the module. The string of this very call is made at once, as everything in a capture is."""

    __slots__ = ("parts", "value")

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)
        self.value = spelled(self.parts, _elements)

    def now(self) -> str:
        """The string in this very call, which nothing is told of."""
        return self.value

    def known(self) -> str:
        """The string, asked for as a question about data."""
        capture = current()
        if capture is not None:
            if len(self.value) > _MAX_TEXT:
                capture.reject(
                    "text of that many characters decides how the call goes on", "compare what it is made of"
                )
            for hole in holes(self.parts):
                capture.ask(hole.at, "text", hole.make)
        return self.value

    def __kiln_text__(self, place: Callable[[Any], int]) -> Template:
        """The text of a region, where tensors are results."""
        return Template(moved(self.parts, place))

    def __str__(self) -> str:
        return self.known()

    def __repr__(self) -> str:
        return repr(self.known())

    def __format__(self, spec: str) -> str:
        return format(self.known(), spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.known(), name)

    def __add__(self, other: Any) -> Any:
        parts = _of_text(other)
        return self.known() + other if parts is None else Text((*self.parts, *parts))

    def __radd__(self, other: Any) -> Any:
        parts = _of_text(other)
        return other + self.known() if parts is None else Text((*parts, *self.parts))

    def __hash__(self) -> int:
        return hash(self.known())

    def __bool__(self) -> bool:
        return bool(self.known())


def _install() -> None:
    for name in ("eq", "ne"):
        setattr(Text, f"__{name}__", lambda a, b, same=name == "eq": _equal(a, b, same))
    for name in ("lt", "le", "gt", "ge", "mod"):
        plain = getattr(operator, name)
        setattr(Text, f"__{name}__", lambda a, b, plain=plain: plain(a.known(), known(b)))
    for name in ("mul", "rmul", "getitem", "contains"):
        plain = operator.contains if name == "contains" else operator.getitem if name == "getitem" else operator.mul
        setattr(Text, f"__{name}__", lambda a, b, plain=plain: plain(a.known(), known(b)))
    setattr(Text, "__hash__", lambda a: hash(a.known()))  # noqa: B010
    setattr(Text, "__len__", lambda a: len(a.known()))  # noqa: B010
    setattr(Text, "__iter__", lambda a: iter(a.known()))  # noqa: B010


def _equal(a: Text, b: Any, same: bool) -> Any:
    if type(b) in (type(None), bool, int, float, bytes, list, tuple, dict):
        return not same
    return (a.known() == known(b)) is same


_install()


def _elements(t: Any) -> Any:
    return t._array()


def _of_text(x: Any) -> Sequence[Part] | None:
    """The parts of a string of either sort."""
    if isinstance(x, Text):
        return x.parts
    return (x,) if type(x) is str else None


# ------------------------------------------------------------------------------------------ spelling


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
    if not _listening():
        return None  # what computed it was before the call: the capture let go
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
            if type(key) not in _CONSTANT:
                return None
            found.append(f"{key!r}: ")
        if type(item) in _CONSTANT:
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


def _of_printf(template: str, args: tuple[Any, ...]) -> list[Part] | None:
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
        return None if lazy_in(x) or type(x) not in _CONSTANT else [field % x]
    if isinstance(x, Number):
        if kind in "di" and x.kind is float:
            return None  # not every float is an integer
        return [Hole(_held(x.tensor), Spelled(x.kind, "%", field))]
    if isinstance(x, TensorBase):
        real = x._layout.numel == 1 and not x.dtype.is_complex and _readable(x)
        return [Hole(_held(x), Spelled(float, "%", field))] if real and kind not in "di" else None
    return [field % x] if type(x) in _CONSTANT else None


def _of_fields(template: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Part] | None:
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
            if type(x) not in _CONSTANT:
                return None
            parts = [_PLAIN[_OF_LETTER[conversion]](x)]
        return [Within(tuple(parts), Respelled("format", spec))] if spec else parts
    parts = parts_of(x, "format", spec)
    if parts is None:
        return [format(x, spec)] if type(x) in _CONSTANT else None
    return parts


# ------------------------------------------------------------------------------------------ printing


def _printed(x: Any, known: Set[CodeType]) -> Any:
    """What `print` makes of something: a text, or the parts of one; None if a compiled call could not make it again."""
    kind: Any = type(x)
    parts = parts_of(x, "str")
    if parts is not None:
        return parts
    if kind in _CONSTANT or kind is type or isinstance(x, (Lazy, TensorBase)):
        return (str(x),)
    if kind in (list, tuple, dict):
        inside = [*x, *x.values()] if kind is dict else x
        return (str(x),) if all(_printed(item, known) is not None for item in inside) else None
    if isinstance(x, BaseException):
        plain = isinstance(kind.__str__, WrapperDescriptorType) and isinstance(kind.__repr__, WrapperDescriptorType)
        return (str(x),) if plain and all(_printed(item, known) is not None for item in x.args) else None
    spells = kind.__str__ if kind.__str__ is not object.__str__ else kind.__repr__
    return (str(x),) if isinstance(spells, FunctionType) and spells.__code__ in known else None


def _is_recomputed() -> bool:
    """Whether the caller is inside a checkpoint, which calls it again on the way back."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "kiln.utils.checkpoint":
        frame = frame.f_back
    return frame is not None


def _listening() -> bool:
    return isinstance(MODES.recorder, Capture)


class TextHooks(PythonHooks):
    """Hooks that make text of what tensors decide. `known` is the user's code."""

    def __init__(self, known: Set[CodeType]) -> None:
        self._known = known
        self._stdout = sys.stdout
        self._errors: list[BaseException] = []

    def refuse_call(self, what: str, why: str) -> None:
        """A call that can't be repeated."""

    def numbers(self) -> None:
        """From here on there may be what tensors decide."""

    def _text(self, spell: Callable[..., Sequence[Part] | None], *of: Any) -> Any:
        """A text, or a string where it has no holes; None where the string must be asked for."""
        try:
            parts = spell(*of)
        except CaptureError as refusal:
            capture = current()
            if capture is None:  # it let go
                return None
            capture.give_up(refusal)
            return None
        if parts is None:
            return None
        if not any(True for _ in holes(parts)):
            return spelled(parts, _elements)
        self.numbers()
        return Text(parts)

    # --------------------------------------------------------------------------------------- f-strings

    def format_(self, value: Any, spec: Any = "") -> Any:
        """See `Hooks`."""
        spec = known(spec)
        made = self._text(parts_of, value, "format", spec) if _listening() and type(spec) is str else None
        return format(value, spec) if made is None else made

    def repr_(self, value: Any) -> Any:
        """See `Hooks`."""
        return self._spell(value, "repr")

    def str_(self, value: Any) -> Any:  # type: ignore[override]
        """See `Hooks`."""
        return self._spell(value, "str")

    def ascii_(self, value: Any) -> Any:
        """See `Hooks`."""
        return self._spell(value, "ascii")

    def _spell(self, value: Any, conversion: str) -> Any:
        made = self._text(parts_of, value, conversion) if _listening() else None
        return _PLAIN[conversion](value) if made is None else made

    def joined(self, parts: tuple[Any, ...]) -> Any:  # type: ignore[override]
        """See `Hooks`."""
        if any(isinstance(part, Text) for part in parts):
            return Text([p for part in parts for p in (part.parts if isinstance(part, Text) else (part,))])
        return "".join(parts)

    def mod(self, a: Any, b: Any) -> Any:
        """See `Hooks`."""
        if type(a) is str and _listening() and lazy_in(b) and type(b) is not dict:
            made = self._text(_of_printf, a, b if type(b) is tuple else (b,))
            return a % all_known(b) if made is None else made
        return a % b

    def contains(self, container: Any, item: Any) -> bool:
        """See `Hooks`."""
        return (item.known() if isinstance(item, Text) else item) in container

    def subject(self, value: Any) -> Any:
        """See `Hooks`."""
        return all_known(value)

    def result_of_lambda(self, value: Any) -> Any:
        """See `Hooks`. Who calls a lambda may be code in C, which takes nothing for a string but strings."""
        return value.known() if isinstance(value, Text) else value

    # ------------------------------------------------------------------------------------------- calls

    def text_callee(self, function: Any) -> Any:
        """What is called in place of a built-in function that makes text; None for others."""
        kind = type(function)
        if kind is BuiltinFunctionType:
            name, owner = function.__name__, function.__self__
            if type(owner) is str and name in ("format", "join"):
                return _Method(self, owner, name)
            if owner is builtins and name == "print":
                return self._print
            if owner is builtins and name in ("repr", "format", "ascii"):
                return functools.partial(self._builtin, function)
        elif function is str:
            return self._make_string
        elif kind is type and _is_plain_error(function):
            return functools.partial(self._make_error, function)
        return None

    def _builtin(self, function: Callable[..., str], *args: Any, **kwargs: Any) -> Any:
        """A call of `repr`, `ascii` or `format`."""
        name = function.__name__
        if not kwargs and len(args) == 1:
            return self.format_(args[0]) if name == "format" else self._spell(args[0], name)
        if not kwargs and len(args) == 2 and name == "format":
            return self.format_(*args)
        return function(*args, **kwargs)

    def _make_string(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            return self.str_(args[0])
        return str(*map(all_known, args), **all_known(kwargs))

    def _make_error(self, kind: type[BaseException], *args: Any, **kwargs: Any) -> BaseException:
        """An exception, whose arguments may be what tensors decide as long as the call goes on."""
        error = kind(*args, **kwargs)
        if lazy_in(args):
            self._errors.append(error)
        return error

    def settle_errors(self, raised: BaseException | None) -> None:
        """Exceptions have Python's own arguments again, and so has what was `raised` with those that led to it."""
        todo = [*self._errors, *([] if raised is None else [raised])]
        seen: set[int] = set()
        while todo:
            error = todo.pop()
            if id(error) not in seen:
                seen.add(id(error))
                args = mapped(error.args, NOW)
                if args is not error.args:
                    error.args = args
                todo += [e for e in (error.__cause__, error.__context__) if e is not None]
        self._errors = []

    def _print(self, *args: Any, **kwargs: Any) -> None:
        """A call of `print`: it prints now, as every capture does what it records, and in each compiled call."""
        capture = current()
        if capture is None or not _PRINT_TAKES.issuperset(kwargs):
            print(*map(all_known, args), **all_known(kwargs))
            return
        file = kwargs.pop("file", None)
        options = [known(kwargs.get(name, default)) for name, default in (("sep", " "), ("end", "\n"))]
        flush = known(kwargs.get("flush", False))
        plain = all(type(x) in (str, type(None)) for x in options) and type(flush) in (bool, int)
        here = (file is None or file is sys.stdout) and sys.stdout is self._stdout
        texts = [self._text(_printed, x, self._known) for x in args]
        if isinstance(capture, Inner) or not (plain and here) or any(x is None for x in texts) or _is_recomputed():
            self.refuse_call("print", "a branch that prints")
            with paused():
                print(*map(all_known, args), sep=options[0], end=options[1], file=file, flush=flush)
            return
        now = [x.now() if isinstance(x, Text) else x for x in texts]

        def said(place: Callable[[Any], int]) -> Print:
            placed = [x.__kiln_text__(place) if isinstance(x, Text) else x for x in texts]
            return Print(tuple(placed), options[0], options[1], bool(flush))

        capture.prints.append(said)
        if capture.forced is not None:
            return  # a way that is looked into, and not taken
        with paused():
            print(*now, sep=options[0], end=options[1], flush=flush)


def _is_plain_error(kind: type) -> bool:
    """Whether instances of an exception class do nothing with what they are given but keep it."""
    init: Any = getattr(kind, "__init__")  # noqa: B009
    if not issubclass(kind, BaseException) or not isinstance(init, WrapperDescriptorType):
        return False
    own = any("__new__" in vars(c) for c in kind.__mro__ if c.__module__ != "builtins")
    return not own and init.__objclass__.__basicsize__ == BaseException.__basicsize__


_PRINT_TAKES: Final = frozenset({"sep", "end", "file", "flush"})


class _Method:
    """`format` or `join` of a string."""

    def __init__(self, hooks: TextHooks, owner: str, name: str) -> None:
        self._hooks, self._owner, self._name = hooks, owner, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name == "join" and len(args) == 1 and not kwargs:
            return self._join(args[0])
        if self._name == "format" and lazy_in([*args, *kwargs.values()]):
            made = self._hooks._text(_of_fields, self._owner, args, kwargs)
            if made is not None:
                return made
        return getattr(self._owner, self._name)(*map(all_known, args), **all_known(kwargs))

    def _join(self, items: Any) -> Any:
        items = items if type(items) in (list, tuple) else list(items)
        if not any(isinstance(x, Text) for x in items) or not all(isinstance(x, (str, Text)) for x in items):
            return self._owner.join(map(known, items))
        found: list[Part] = []
        for n, x in enumerate(items):
            found += [self._owner] if n else []
            found += x.parts if isinstance(x, Text) else ["".join((x, ""))]
        return Text(found)
