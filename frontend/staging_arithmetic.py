"""Arithmetic of Python numbers that tensors decide: Python's own to the bit, or a question about data.

Floats are computed as Python computes them: in float64, one rounding an operation. Integers are int64 here and have no
end in Python, so a number knows how far from zero it may be (`Number.bound`): what could pass the end is checked by the
compiled call while it runs (`checks.holds`), as is a division by zero. A call that fails a check runs eagerly.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np

from kiln.base import MODES, TensorBase
from kiln.capture import Capture
from kiln.checks import holds
from kiln.control_capture import Inner
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.staging_numbers import SLOW, SMALL, START, Number, constant, known, tensor_of
from kiln.staging_scalars import beside

COMPARISONS: Final = ("lt", "le", "gt", "ge", "eq", "ne")
_ROUNDED: Final = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div"}
_BITS: Final = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
_MAX_POWER: Final = 16
_PLAIN: Final[dict[str, Callable[..., Any]]] = {
    name: getattr(operator, name + "_" if name in ("and", "or") else name)
    for name in (*COMPARISONS, *_ROUNDED, *_BITS, "floordiv", "mod", "pow", "lshift", "rshift", "matmul")
}
_Pair = tuple[Any, Any]


def staging() -> bool:
    """Whether numbers are being recorded; otherwise they are Python's own."""
    recorder = MODES.recorder
    return isinstance(recorder, Capture) and not MODES.layers and (recorder.hooks is None or not recorder.hooks.quiet)


def kind_of(x: Any) -> type:
    """The type that Python takes a number to have."""
    return x.kind if isinstance(x, Number) else type(x)


def value_now(x: Any) -> Any:
    """What a number is in this very call; None in a trial, where there is no data."""
    if isinstance(MODES.recorder, Inner) and isinstance(x, Number) and not x.settled():
        return None
    return x.now() if isinstance(x, Number) else x


def as_int(x: Any) -> Any:
    """A bool as an integer."""
    if kind_of(x) is not bool:
        return x
    return Number(int, OPS["cast"](x.tensor, dtype=T.int64), 1) if isinstance(x, Number) else int(x)


def as_float(x: Any) -> Any:
    """A number as the float64 tensor that Python converts it to in arithmetic with floats."""
    return x.as_dtype(T.float64) if isinstance(x, Number) else constant(float, float(x))


def bound_of(x: Any) -> int:
    """No integer like it is further from zero."""
    return x.bound if isinstance(x, Number) else abs(x)


def checked(ok: Any, now: bool | None, raises: bool = False) -> bool:
    """Whether a condition may be taken for granted: the compiled call checks the 0-d bool tensor `ok`. `now`: whether
    it holds in this call, if there is data. Where it does not, nothing is recorded, unless Python raises there."""
    if now is False and not raises:
        return False
    return holds(ok)


def within(x: Any) -> bool:
    """Whether a float64 tensor is taken to be within 2**53: then it converts to an integer exactly."""
    now = None if isinstance(MODES.recorder, Inner) else bool(abs(x._array().item()) <= START)
    size = OPS["abs"](x)
    return checked(OPS["le"](size, constant(float, float(START))), now)


# --------------------------------------------------------------------------------------------- integers


def _integers(name: str, a: Any, b: Any) -> Any:
    """`a op b` of integers, of which one is staged; None where it can't be had."""
    if name == "truediv":
        return _quotient(a, b)
    if name in ("floordiv", "mod"):
        return _divided(name, a, b)
    if name in ("lshift", "rshift", "pow"):
        return _by_constant(name, a, b)
    if name in COMPARISONS and any(not isinstance(x, Number) and abs(x) > SLOW for x in (a, b)):
        return _PLAIN[name](*[0 if isinstance(x, Number) else x for x in (a, b)])  # further out than any number here
    if max(bound_of(a), bound_of(b)) > SLOW:
        return None
    if name in COMPARISONS:
        return Number(bool, OPS[name](tensor_of(a), tensor_of(b)))
    if name in _BITS:
        bound = (1 << max(bound_of(a), bound_of(b)).bit_length()) - 1
        return Number(int, OPS[_BITS[name]](tensor_of(a), tensor_of(b)), bound) if bound < SLOW else None
    bound = bound_of(a) * bound_of(b) if name == "mul" else bound_of(a) + bound_of(b)
    if bound > SLOW:
        if name != "mul" and any(not isinstance(x, Number) and abs(x) <= SMALL for x in (a, b)):
            bound = SLOW  # no program is long enough
        elif within(OPS[name](as_float(a), as_float(b))):
            bound = 2 * START
        else:
            return None
    made = Number(int, OPS[name](tensor_of(a), tensor_of(b)), bound)
    if name != "mul" and not isinstance(b, Number):
        made.base, made.offset = a.base, a.offset + (b if name == "add" else -b)
    elif name == "add" and not isinstance(a, Number):
        made.base, made.offset = b.base, b.offset + a
    return made


def _quotient(a: Any, b: Any) -> Any:
    """`a / b` of integers: Python rounds the exact quotient, as a division of floats does that are exact."""
    for x in (a, b):
        if bound_of(x) > START and not (isinstance(x, Number) and within(as_float(x))):
            return None
    return Number(float, OPS["div"](as_float(a), as_float(b))) if _not_zero("truediv", a, b) else None


def _not_zero(name: str, a: Any, b: Any) -> bool:
    """Whether `b` may be taken not to be zero. Where it is zero, Python raises."""
    if not isinstance(b, Number):
        return bool(b != 0)
    now = value_now(b)
    if checked(OPS["ne"](b.tensor, constant(b.kind, b.kind(0))), None if now is None else now != 0, raises=True):
        return True
    x = value_now(a)
    _PLAIN[name](1 if x is None else x, 0.0 if b.kind is float else 0)  # raises
    return False


def _divided(name: str, a: Any, b: Any) -> Any:
    if bound_of(a) > SLOW or bound_of(b) > SLOW or not _not_zero(name, a, b):
        return None
    op = OPS["floor_divide_int" if name == "floordiv" else "remainder_int"]
    return Number(int, op(tensor_of(a), tensor_of(b)), bound_of(a) if name == "floordiv" else bound_of(b))


def _by_constant(name: str, a: Any, b: Any) -> Any:
    """Shifts and powers by constants."""
    if isinstance(b, Number) or not 0 <= b <= _MAX_POWER:
        return None
    if name == "lshift":
        return _integers("mul", a, 1 << b)
    if name == "rshift":
        return _integers("floordiv", a, 1 << b)
    made: Any = a if b else 1
    for _ in range(b - 1):
        made = _integers("mul", made, a)
        if made is None:
            return None
    return made


# ----------------------------------------------------------------------------------------------- floats


def _floats(name: str, a: Any, b: Any) -> Any:
    """`a op b`, of which one is a float and one is staged; None where it can't be had."""
    for x in (a, b):
        if kind_of(x) is int and not isinstance(x, Number) and abs(x) > START:
            return None
        if kind_of(x) is int and name in COMPARISONS and bound_of(x) > START and not within(as_float(x)):
            return None  # Python compares exactly
    if name in COMPARISONS:
        return Number(bool, OPS[name](as_float(a), as_float(b)))
    if name not in _ROUNDED or (name == "truediv" and not _not_zero(name, a, b)):
        return None
    return Number(float, OPS[_ROUNDED[name]](as_float(a), as_float(b)))


def numbers(name: str, a: Any, b: Any) -> Any:
    """`a op b` of two Python numbers, of which one is staged; None where Python's result can't be had exactly."""
    kinds = kind_of(a), kind_of(b)
    if any(k not in (bool, int, float) for k in kinds):
        return None
    if kinds == (bool, bool) and name in (*_BITS, "eq", "ne"):
        op = {"and": "logical_and", "or": "logical_or"}.get(name, "eq" if name == "eq" else "ne")
        return Number(bool, OPS[op](tensor_of(a), tensor_of(b)))
    a, b = as_int(a), as_int(b)
    if float in kinds:
        return _floats(name, a, b)
    return _integers(name, a, b)


def binary(name: str, a: Any, b: Any) -> Any:
    """`a op b`, of which one is staged."""
    other = b if isinstance(a, Number) else a
    if isinstance(other, TensorBase):
        made = beside(name, a, b) if staging() else None
        if made is not None:
            return made
    elif isinstance(other, (Number, bool, int, float)):
        if staging() and not all(x.settled() for x in (a, b) if isinstance(x, Number)):
            made = numbers(name, a, b)
            if made is not None:
                return made
    elif name in ("eq", "ne") and not isinstance(other, (complex, np.generic, Fraction, Decimal)):
        return name == "ne" if isinstance(other, (str, type(None), tuple, list, dict)) else NotImplemented
    return _PLAIN[name](known(a), known(b))


# ---------------------------------------------------------------------------------------- one operand


def rounded(op: str, x: Number, plain: Callable[[Any], Any]) -> Any:
    """A float as an integer: "floor", "ceil", "trunc" or "round" (half to even)."""
    if x.kind is not float:
        return as_int(x)
    if not staging() or x.settled():
        return plain(x.known())
    made = OPS[op](x.tensor)
    now = value_now(x)
    if now is not None and not math.isfinite(now):
        checked(OPS["le"](OPS["abs"](made), constant(float, float(START))), False, raises=True)
        return plain(now)  # raises
    return Number(int, OPS["cast"](made, dtype=T.int64), START) if within(made) else plain(x.known())


def _unary(name: str, x: Number) -> Any:
    plain: Callable[[Any], Any] = getattr(operator, name)
    if not staging() or x.settled() or (name == "invert" and x.kind is not int):
        return plain(x.known())
    x = as_int(x)
    if name == "pos":
        return x
    if x.kind is int and x.bound > SLOW:
        return plain(x.known())
    if name == "invert":
        return Number(int, OPS["bitwise_not"](x.tensor), x.bound + 1)
    return Number(x.kind, OPS[name](x.tensor), x.bound)


def absolute(x: Any) -> Any:
    """abs(x)"""
    return _unary("abs", x)


def _round(x: Number, digits: Any = None) -> Any:
    if known(digits) is not None:
        return round(x.known(), known(digits))
    return rounded("round", x, round)


def _divmod(a: Any, b: Any) -> Any:
    if staging() and all(kind_of(x) in (bool, int) for x in (a, b)):
        return binary("floordiv", a, b), binary("mod", a, b)
    return divmod(known(a), known(b))


def _install() -> None:
    for name in _PLAIN:
        setattr(Number, f"__{name}__", lambda a, b, name=name: binary(name, a, b))
        if name not in COMPARISONS:
            setattr(Number, f"__r{name}__", lambda a, b, name=name: binary(name, b, a))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(Number, f"__{name}__", lambda x, name=name: _unary(name, x))
    for name in ("trunc", "floor", "ceil"):
        setattr(Number, f"__{name}__", lambda x, name=name: rounded(name, x, getattr(math, name)))
    setattr(Number, "__round__", _round)  # noqa: B010
    setattr(Number, "__hash__", lambda x: hash(x.known()))  # noqa: B010
    setattr(Number, "__divmod__", _divmod)  # noqa: B010
    setattr(Number, "__rdivmod__", lambda a, b: _divmod(b, a))  # noqa: B010


_install()
