"""Python numbers that tensors decide: in a captured function, after a staged branch or loop changed a variable.

A `Number` is a 0-d tensor (bool, int64 or float64) that acts as the Python number. What it can do exactly as Python
does is recorded; for anything else it asks for its value, as `item()` does: a decision, or a refusal where there are
none. Integers stay far away from where int64 ends: only small constants are added to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from operator import methodcaller
from typing import Any, Final

import numpy as np

from kiln import dispatch
from kiln import functional as F
from kiln.base import MODES, TensorBase
from kiln.capture import current
from kiln.ir import types as T
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.promotion import cast_to, full_like_number, result_type
from kiln.pytree import flatten, unflatten

DTYPES: Final = {bool: T.bool_, int: T.int64, float: T.float64}
_SMALL: Final = 1 << 20
_START: Final = 1 << 53
"""Bounds of integers that are added, and that a loop begins with: no loop is long enough to pass 2**63 so."""
_EXAMPLES: Final = {bool: True, int: 1, float: 1.0}


def fits(x: Any) -> bool:
    """Whether a Python number can be one that tensors decide."""
    return type(x) in (bool, float) or (type(x) is int and abs(x) <= _START)


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
    """See the module."""

    __slots__ = ("kind", "tensor")

    def __init__(self, kind: type, tensor: Any) -> None:
        self.kind = kind
        self.tensor = tensor

    def now(self) -> Any:
        """Its value in this very call, which nothing is told of."""
        return self.kind(self.tensor._array().item())

    def known(self) -> Any:
        """Its value, asked for as a question about data."""
        if current() is None:
            return self.now()
        return bool(self.tensor) if self.kind is bool else self.kind(self.tensor.item())

    def truth(self) -> Number:
        """Whether it is not zero; NaN is not."""
        return self if self.kind is bool else Number(bool, F.ne(self.tensor, _EXAMPLES[self.kind] * 0))

    def as_dtype(self, dtype: DType) -> Any:
        """The 0-d tensor that Python's number becomes beside tensors of this dtype."""
        return cast_to(self.tensor, dtype)

    def __repr__(self) -> str:
        return repr(self.known())

    __str__ = __repr__

    def __kiln_number__(self, name: str) -> Any:
        """What a tensor's in-place operator takes in its place; others leave it to the number."""
        return self.known() if name.startswith("__i") and name != "__invert__" else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.known(), name)

    def __bool__(self) -> bool:
        return bool(self.known())

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


def known(x: Any) -> Any:
    """`x`, or the value of a number that tensors decide."""
    return x.known() if isinstance(x, Lazy) else x


def all_known(x: Any) -> Any:
    """`x`, with the values of such numbers in place of them, in containers, too."""
    if isinstance(x, Lazy):
        return x.known()
    if isinstance(x, slice):
        return slice(known(x.start), known(x.stop), known(x.step))
    if not isinstance(x, (tuple, list, dict)):
        return x
    return mapped(x, KNOWN)


def mapped(x: Any, value: Callable[[Any], Any]) -> Any:
    """A container with `value` of what tensors decide in it; itself where there is nothing of that."""
    leaves, tree = flatten(x)
    if not any(isinstance(leaf, Lazy) for leaf in leaves):
        return x
    return unflatten(tree, iter([value(leaf) if isinstance(leaf, Lazy) else leaf for leaf in leaves]))


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


def _beside(n: Number, x: Any, divides: bool) -> Any:
    """The number as a tensor beside the tensor `x`; None where that is not exactly what Python's number would be."""
    if x.dtype not in (T.float32, T.float64) and (x.dtype is not T.int64 or n.kind is float or divides):
        return None
    if n.kind is bool:
        return None
    return n.as_dtype(result_type(x, _EXAMPLES[n.kind]))


def _small(x: Any) -> bool:
    return type(x) is int and abs(x) <= _SMALL


def _numbers(name: str, a: Any, b: Any) -> tuple[type, Any, Any] | None:
    """For two Python numbers, of which one is staged: the kind of the result, and both as tensors; None where Python's
    result can't be had exactly."""
    kinds = [x.kind if isinstance(x, Number) else type(x) for x in (a, b)]
    if any(k not in (int, float) for k in kinds):
        return None
    if name in _COMPARISONS and kinds == [int, int]:
        if not all(isinstance(x, Number) or abs(x) <= _START for x in (a, b)):
            return None
        return bool, tensor_of(a), tensor_of(b)
    if float in kinds:
        return _floats(name, a, b, kinds)
    constant_right = not isinstance(b, Number)
    if name in ("add", "sub") and (_small(a) or _small(b)):
        return int, tensor_of(a), tensor_of(b)
    if name in ("floordiv", "mod") and constant_right and 0 < b <= _SMALL:
        return int, a.tensor, tensor_of(b)
    return None


def _floats(name: str, a: Any, b: Any, kinds: list[type]) -> tuple[type, Any, Any] | None:
    """At least one is a float: Python computes in float64, to which small integers convert exactly."""
    if name in ("floordiv", "mod"):
        return None
    if name == "truediv" and (isinstance(b, Number) or b == 0):
        return None  # Python raises where it is divided by 0
    if any(k is int and not isinstance(x, Number) and abs(x) > _START for x, k in zip((a, b), kinds, strict=True)):
        return None
    if name in _COMPARISONS and int in kinds:
        return None  # Python compares exactly
    result = bool if name in _COMPARISONS else float
    x, y = (x.as_dtype(T.float64) if isinstance(x, Number) else constant(float, float(x)) for x in (a, b))
    return result, x, y


_COMPARISONS: Final = {"lt": F.lt, "le": F.le, "gt": F.gt, "ge": F.ge, "eq": F.eq, "ne": F.ne}
_ARITHMETIC: Final = {"add": F.add, "sub": F.sub, "mul": F.mul, "truediv": F.div}


def _binary(name: str, a: Any, b: Any) -> Any:
    """`a op b`, of which one is staged."""
    other = b if isinstance(a, Number) else a
    if isinstance(other, TensorBase):
        function = _COMPARISONS.get(name) or _ARITHMETIC.get(name)
        n = a if isinstance(a, Number) else b
        made = _beside(n, other, name == "truediv") if function is not None else None
        if function is not None and made is not None:
            return function(made, other) if n is a else function(other, made)
    elif isinstance(other, (Number, int, float)):
        found = _numbers(name, a, b) if MODES.recorder is not None else None
        if found is not None:
            kind, x, y = found
            if name in ("floordiv", "mod"):
                op = OPS["floor_divide_int" if name == "floordiv" else "remainder_int"]
                return Number(int, op.bind((x, y), {})[0])
            return Number(kind, (_COMPARISONS.get(name) or _ARITHMETIC[name])(x, y))
    if name in ("eq", "ne") and not isinstance(other, (Number, complex, int, float, np.generic, Fraction, Decimal)):
        return name == "ne" if isinstance(other, (str, type(None), tuple, list, dict)) else NotImplemented
    return _PYTHON[name](known(a), known(b))


_PYTHON: Final[dict[str, Callable[[Any, Any], Any]]] = {}


def _install() -> None:
    import operator

    both = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor", "matmul"]
    for name in both:
        plain = getattr(operator, name + "_" if name in ("and", "or") else name)
        _PYTHON[name] = plain
        setattr(Number, f"__{name}__", lambda a, b, name=name: _binary(name, a, b))
        setattr(Number, f"__r{name}__", lambda a, b, name=name: _binary(name, b, a))
    for name in _COMPARISONS:
        _PYTHON[name] = getattr(operator, name)
        setattr(Number, f"__{name}__", lambda a, b, name=name: _binary(name, a, b))
    for name in ("neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil"):
        plain = {"round": round, "trunc": math.trunc, "floor": math.floor, "ceil": math.ceil}.get(name)
        plain = plain or getattr(operator, name)
        setattr(Number, f"__{name}__", lambda a, *rest, plain=plain: plain(a.known(), *rest))
    setattr(Number, "__hash__", _hash)  # noqa: B010
    setattr(Number, "__divmod__", lambda a, b: divmod(a.known(), known(b)))  # noqa: B010
    setattr(Number, "__rdivmod__", lambda a, b: divmod(known(b), a.known()))  # noqa: B010


def _hash(n: Number) -> int:
    return hash(n.known())


_install()


def like(x: Any, tensor: Any) -> Any:
    """A number of the kind of `x`, held by `tensor`."""
    return Number(x.kind if isinstance(x, Number) else type(x), tensor)


def scalar(pred: Any) -> Any:
    """The truth of a tensor of one element as a 0-d bool tensor."""
    if pred.dtype is not T.bool_:
        zero = full_like_number(pred, pred.dtype, 0)
        pred = OPS["ne"](pred, zero)
    return OPS["reshape"](pred, shape=()) if pred.ndim else pred
