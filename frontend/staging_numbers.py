"""Python numbers that tensors decide: what `item()` gives in a captured function, and what a staged branch or loop left
in a variable.

A `Number` is a 0-d tensor (bool, int64 or float64) that acts as the Python number. What it can do exactly as Python
does is recorded (`staging_arithmetic.py`); for anything else it asks for its value, as `item()` does: a decision, or a
refusal where there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_not, methodcaller
from typing import Any, Final

from kiln import dispatch
from kiln.answers import contents, extent, truth
from kiln.base import MODES
from kiln.capture import Capture
from kiln.ir import types as T
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.promotion import cast_to, full_like_number, result_type
from kiln.pytree import flatten, unflatten

DTYPES: Final = {bool: T.bool_, int: T.int64, float: T.float64}
SMALL: Final = 1 << 20
START: Final = 1 << 53
SLOW: Final = 1 << 62
"""Bounds of integers: those that are added to one that a loop changes, those that a loop begins with, and those that it
changes: no loop is long enough to pass that so."""
EXAMPLES: Final = {bool: True, int: 1, float: 1.0}


def fits(x: Any) -> bool:
    """Whether a Python number can be one that tensors decide."""
    return type(x) in (bool, float) or (type(x) is int and abs(x) <= START)


class Group:
    """Numbers that one question about data is for: the elements of a tensor that nothing writes to."""

    __slots__ = ("asked", "tensor", "what")

    def __init__(self, tensor: Any, what: str) -> None:
        self.tensor = tensor
        self.what = what
        self.asked: Any = None


class Lazy:
    """What tensors decide: a number, or text (`staging_text.py`)."""

    __slots__ = ()

    def now(self) -> Any:
        """Its value in this very call, which nothing is told of."""
        raise NotImplementedError

    def known(self) -> Any:
        """Its value, asked for as a question about data."""
        raise NotImplementedError


NOW: Final = methodcaller("now")
KNOWN: Final = methodcaller("known")


class Number(Lazy):
    """See the module. `bound`: no integer is further from zero. `base`, `offset`: it is another one plus so much."""

    __slots__ = ("_tensor", "base", "bound", "group", "kind", "offset", "place")
    __array_ufunc__ = None  # NumPy leaves operators to the number

    def __init__(self, kind: type, tensor: Any, bound: int = SLOW) -> None:
        self.kind = kind
        self._tensor = tensor
        self.bound = bound if kind is int else 1
        self.group = Group(tensor, "item()")
        self.place: int | None = None
        """Which element of the group's tensor it is, if there are others."""
        self.base = self
        self.offset = 0

    @staticmethod
    def of_group(kind: type, group: Group, place: int, bound: int) -> Number:
        """An element of a tensor that holds many numbers."""
        made = Number(kind, None, bound)
        made.group, made.place = group, place
        return made

    @property
    def tensor(self) -> Any:
        """The 0-d tensor, of the capture that listens now."""
        if self.place is None:
            return self._tensor
        capture = _outermost(MODES.recorder)
        if self._tensor is None or capture is None or not _knows(capture, self._tensor):
            made = _element(self.group.tensor, self.place)
            if MODES.recorder is not capture:
                return made  # of a trial
            self._tensor = made
        return self._tensor

    def now(self) -> Any:
        """Its value in this very call, which nothing is told of."""
        return self.kind(self.group.tensor._array().item(self.place or 0))

    def settled(self) -> bool:
        """Whether its value was asked for already."""
        capture = _outermost(MODES.recorder)
        asked = self.group.asked
        return capture is None or (asked is not None and any(q is asked for q in capture.queries))

    def known(self) -> Any:
        """Its value, asked for as a question about data."""
        if not self.settled():
            capture = MODES.recorder
            assert isinstance(capture, Capture)
            tensor = self.group.tensor
            if self.kind is bool and self.place is None:
                capture.ask(tensor, "bool()", truth)
            else:
                capture.ask(tensor, self.group.what, contents)
            self.group.asked = capture.queries[-1]
        asked = self.group.asked
        if MODES.recorder is not None and asked is not None and asked.fold is truth:
            return asked.answer  # which may be given, whatever the data say
        return self.now()

    def extent(self, what: str) -> Any:
        """Its value, asked for since `what` is so large as it says."""
        if self.kind is not int:
            return self.known()
        if self.place is not None:
            return Number(int, self.tensor, self.bound).extent(what)  # the others are of no interest
        if not self.settled():
            capture = MODES.recorder
            assert isinstance(capture, Capture)
            capture.ask(self.group.tensor, what, extent)
            self.group.asked = capture.queries[-1]
        return self.now()

    def truth(self) -> Number:
        """Whether it is not zero; NaN is not."""
        return self if self.kind is bool else Number(bool, OPS["ne"](self.tensor, constant(self.kind, self.kind(0))))

    def as_dtype(self, dtype: DType) -> Any:
        """The 0-d tensor that Python's number becomes beside tensors of this dtype."""
        return cast_to(self.tensor, dtype)

    def __repr__(self) -> str:
        return repr(self.known())

    __str__ = __repr__

    def __kiln_number__(self, name: str, tensor: Any) -> Any:
        """What a tensor's in-place operator takes in its place; others leave it to the number."""
        if not name.startswith("__i") or name == "__invert__":
            return None
        made = fitting(tensor, self) if MODES.recorder is not None and name in _IN_PLACE else None
        return self.known() if made is None else made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.known(), name)

    def __bool__(self) -> bool:
        return bool(self.known() if self.settled() else self.truth().known())

    def __hash__(self) -> int:
        return hash(self.known())

    def __index__(self) -> int:
        value: int = self.known().__index__()
        return value

    def __int__(self) -> int:
        return int(self.known())

    def __float__(self) -> float:
        return float(self.known())

    def __complex__(self) -> complex:
        return complex(self.known())

    def __format__(self, spec: str) -> str:
        return format(self.known(), spec)


def _outermost(recorder: Any) -> Capture | None:
    """The capture of the call, in whose branches others listen."""
    found = recorder if isinstance(recorder, Capture) else None
    while isinstance(parent := getattr(found, "parent", None), Capture):
        found = parent
    return found


def _knows(capture: Capture, t: Any) -> bool:
    entry = capture.entries.get(id(t))
    return entry is not None and entry.tensor is t


def _element(t: Any, place: int) -> Any:
    """One element of a tensor as a 0-d tensor of its own."""
    line = OPS["reshape"](t, shape=(t._layout.numel,))
    one = OPS["slice"](line, starts=(place,), stops=(place + 1,), steps=(1,))
    return OPS["copy"](OPS["reshape"](one, shape=()))


_IN_PLACE: Final = frozenset({"__iadd__", "__isub__", "__imul__", "__itruediv__"})


def as_scalar(n: Number, dtype: DType) -> Any:
    """The 0-d tensor that `full` makes of Python's number; None where that may raise, or round otherwise."""
    if dtype in (T.float32, T.float64):
        return cast_to(n.as_dtype(T.float64), dtype)  # what Python's float() gives, rounded once more
    if n.kind is bool and dtype is T.bool_:
        return n.tensor
    return n.tensor if n.kind is int and dtype is T.int64 else None


def fitting(x: Any, n: Any) -> Any:
    """What stands for a number beside a tensor whose dtype it does not change; None if it might."""
    if not isinstance(n, Number):
        return n
    return as_scalar(n, x.dtype) if n.kind is not bool and result_type(x, EXAMPLES[n.kind]) is x.dtype else None


def known(x: Any) -> Any:
    """`x`, or the value of a number that tensors decide."""
    return x.known() if isinstance(x, Lazy) else x


def mapped(x: Any, value: Callable[[Any], Any]) -> Any:
    """A container with `value` of what tensors decide in it; itself where there is nothing of that."""
    leaves, tree = flatten(x)
    if not any(isinstance(leaf, Lazy) for leaf in leaves):
        return x
    return unflatten(tree, iter([value(leaf) if isinstance(leaf, Lazy) else leaf for leaf in leaves]))


def holds_numbers(x: Any) -> bool:
    """Whether there are such numbers in nested lists and tuples."""
    return isinstance(x, Number) or (isinstance(x, (tuple, list)) and any(map(holds_numbers, x)))


def with_python_numbers(x: Any) -> Any:
    """`x` with the values of such numbers in place of them. Containers stay the objects that they are, but for
    tuples."""
    return _replaced(x, KNOWN, set())


def with_numbers_of_now(x: Any) -> Any:
    """The same with what they are in this very call, which nothing is told of."""
    return _replaced(x, NOW, set())


def _replaced(x: Any, value: Callable[[Any], Any], seen: set[int]) -> Any:
    if isinstance(x, Lazy):
        return value(x)
    kind = type(x)
    if kind is slice:
        return slice(*[_replaced(part, value, seen) for part in (x.start, x.stop, x.step)])
    if isinstance(x, tuple):
        items = [_replaced(item, value, seen) for item in x]
        return tuple.__new__(kind, items) if any(map(is_not, items, x)) else x
    if kind in (list, dict) and id(x) not in seen:
        seen.add(id(x))
        if kind is dict and any(isinstance(k, Lazy) for k in x):
            items = [(_replaced(k, value, seen), v) for k, v in x.items()]
            x.clear()
            x.update(items)
        for k, item in list(enumerate(x)) if kind is list else list(x.items()):
            if (new := _replaced(item, value, seen)) is not item:
                x[k] = new
    elif hasattr(kind, "__dataclass_fields__"):
        _replaced(getattr(x, "__dict__", None), value, seen)
    return x


def mapped_now(key: Any) -> Any:
    """A key with Python's own numbers of this very call."""
    if isinstance(key, (tuple, list)):
        return type(key)(map(mapped_now, key))
    if isinstance(key, slice):
        return slice(*map(mapped_now, (key.start, key.stop, key.step)))
    return key.now() if isinstance(key, Number) else key


def keyed(x: Any) -> Any:
    """`x` with Python's own numbers as keys of dicts and items of sets."""
    if type(x) is dict:
        if any(isinstance(k, Lazy) for k in x):
            return {known(k): keyed(v) for k, v in x.items()}
        changed = {k: keyed(v) for k, v in x.items()}
        return x if all(changed[k] is x[k] for k in x) else changed
    if type(x) in (set, frozenset):
        return type(x)(map(known, x)) if any(isinstance(k, Lazy) for k in x) else x
    if type(x) in (list, tuple):
        items = [keyed(v) for v in x]
        return x if all(a is b for a, b in zip(items, x, strict=True)) else type(x)(items)
    return x


def constant(kind: type, value: Any) -> Any:
    """A 0-d tensor of a Python number, of the graph that is being recorded."""
    attrs: Attrs = {"shape": (), "dtype": DTYPES[kind], "value": value}
    (made,) = OPS["full"].bind((), attrs, receiver=dispatch.constant((), T.bool_, False))
    return made


def tensor_of(x: Any) -> Any:
    """The 0-d tensor of a number of either sort."""
    return x.tensor if isinstance(x, Number) else constant(type(x), x)


def like(x: Any, tensor: Any) -> Any:
    """A number of the kind of `x`, held by `tensor`."""
    return Number(x.kind if isinstance(x, Number) else type(x), tensor)


def scalar(pred: Any) -> Any:
    """The truth of a tensor of one element as a 0-d bool tensor."""
    if pred.dtype is not T.bool_:
        zero = full_like_number(pred, pred.dtype, 0)
        pred = OPS["ne"](pred, zero)
    return OPS["reshape"](pred, shape=()) if pred.ndim else pred
