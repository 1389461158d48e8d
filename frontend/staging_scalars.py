"""Python numbers that tensors decide, beside tensors: they become 0-d tensors of the dtype that Python's number would
have there, which is how eager code rounds it. Where that is not certain they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln import functional as F
from kiln import inplace
from kiln import pointwise as P
from kiln.base import MODES, TensorBase
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.promotion import cast_to, result_type
from kiln.staging_numbers import EXAMPLES, Number

_FLOATS: Final = (T.float32, T.float64)
_INTEGERS: Final = (T.int64, T.int32, T.int16, T.int8, T.uint8)
_COMPARISONS: Final[dict[str, Callable[..., Any]]] = {
    "lt": F.lt, "le": F.le, "gt": F.gt, "ge": F.ge, "eq": F.eq, "ne": F.ne
}  # fmt: skip
_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {"add": F.add, "sub": F.sub, "mul": F.mul, "truediv": F.div}
_DIVISIONS: Final[dict[str, Callable[..., Any]]] = {"floordiv": P.floor_divide, "mod": P.remainder}
_OPERATORS: Final = _COMPARISONS | _ARITHMETIC | _DIVISIONS


def as_scalar(n: Number, dtype: DType) -> Any:
    """The 0-d tensor that `full` makes of Python's number; None where that may raise, or round otherwise."""
    if dtype in _FLOATS:
        return cast_to(n.as_dtype(T.float64), dtype)  # what Python's float() gives, rounded once more
    if n.kind is bool and dtype is T.bool_:
        return n.tensor
    if n.kind is float or dtype not in _INTEGERS:
        return None
    return n.as_dtype(dtype) if dtype is T.int64 or n.kind is bool else None


def beside(name: str, a: Any, b: Any) -> Any:
    """`a op b` of a tensor and a staged number; None where that is not exactly what Python's number would give."""
    function = _OPERATORS.get(name)
    n, x = (a, b) if isinstance(a, Number) else (b, a)
    if function is None:
        return None
    dtype = result_type(x, EXAMPLES[n.kind])
    if name == "truediv" and not dtype.is_inexact:
        dtype = MODES.default_dtype
    if x.dtype.is_half and dtype is x.dtype and name in _ARITHMETIC and n.kind is not bool:
        wide = cast_to(x, T.float32)  # in float32, and rounded once: as every op of such tensors
        made = as_scalar(n, T.float32)
        return cast_to(function(made, wide) if n is a else function(wide, made), x.dtype)
    made = None if n.kind is bool and not dtype.is_floating_point else as_scalar(n, dtype)
    if made is None:
        return None
    return function(made, x) if n is a else function(x, made)


def _fitting(x: Any, n: Any) -> Any:
    """What stands for a number beside a tensor whose dtype it does not change; None if it might."""
    if not isinstance(n, Number):
        return n
    return as_scalar(n, x.dtype) if n.kind is not bool and result_type(x, EXAMPLES[n.kind]) is x.dtype else None


_PLACES: Final[dict[Any, tuple[str, ...]]] = {
    F.add: ("other", "alpha"),
    F.sub: ("other", "alpha"),
    F.mul: ("other",),
    F.div: ("other",),
    F.clamp: ("min", "max"),
    **dict.fromkeys(_COMPARISONS.values(), ("other",)),
    **dict.fromkeys(_DIVISIONS.values(), ("other",)),
    inplace.add_: ("other", "alpha"),
    inplace.sub_: ("other", "alpha"),
    inplace.mul_: ("other",),
    inplace.div_: ("other",),
    inplace.fill_: ("value",),
    inplace.copy_: ("src",),
}
"""Functions of a tensor, and those of their arguments that may be numbers, in their order."""


def takes(function: Any) -> bool:
    """Whether a function of kiln's may be given staged numbers through `called`."""
    try:
        return getattr(function, "__func__", function) in _PLACES
    except TypeError:  # not hashable
        return False


def called(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A call of a function that `takes` numbers, in a list of one; None where they must be asked for."""
    whole = [function.__self__, *args] if hasattr(function, "__self__") else list(args)
    plain = getattr(function, "__func__", function)
    if not whole or not isinstance(x := whole[0], TensorBase):
        return None
    given = dict(kwargs)
    names = [name for name in _PLACES[plain] if name != "alpha"]
    for name, value in zip(names, whole[1:], strict=False):
        if name in given:
            return None
        given[name] = value
    if len(whole) - 1 > len(names):
        return None
    alpha = given.pop("alpha", 1)
    if isinstance(alpha, Number):
        other = given.get("other")
        scale = _fitting(other, alpha) if isinstance(other, TensorBase) else None
        if scale is None:
            return None
        given["other"] = F.mul(other, scale)
    elif type(alpha) is not int or alpha != 1:
        given["alpha"] = alpha
    for name, value in given.items():
        if isinstance(value, Number):
            made = _fitting(x, value) if name in names else None
            if made is None:
                return None
            given[name] = made
    return [plain(x, **given)]
