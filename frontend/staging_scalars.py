"""Python numbers that tensors decide, beside tensors: they become 0-d tensors of the dtype that Python's number would
have there, which is how eager code rounds it. Where that is not certain they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Final

from kiln import functional as F
from kiln import inplace
from kiln import pointwise as P
from kiln.base import MODES, TensorBase
from kiln.ir import types as T
from kiln.promotion import cast_to, result_type
from kiln.staging_numbers import EXAMPLES, Number, as_scalar, fitting

_COMPARISONS: Final[dict[str, Callable[..., Any]]] = {
    "lt": F.lt, "le": F.le, "gt": F.gt, "ge": F.ge, "eq": F.eq, "ne": F.ne
}  # fmt: skip
_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {"add": F.add, "sub": F.sub, "mul": F.mul, "truediv": F.div}
_DIVISIONS: Final[dict[str, Callable[..., Any]]] = {"floordiv": P.floor_divide, "mod": P.remainder}
_OPERATORS: Final = _COMPARISONS | _ARITHMETIC | _DIVISIONS


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


_PLACES: Final[dict[Any, tuple[str, ...]]] = {
    F.add: ("other", "alpha"),
    F.sub: ("other", "alpha"),
    F.mul: ("other",),
    F.div: ("other",),
    F.clamp: ("min", "max"),
    P.clip: ("min", "max"),
    P.clamp_min: ("min",),
    P.clamp_max: ("max",),
    **dict.fromkeys([*_COMPARISONS.values(), *_DIVISIONS.values()], ("other",)),
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
    plain = getattr(function, "__func__", function)
    return isinstance(plain, FunctionType) and plain in _PLACES


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
        if not isinstance(other, TensorBase) or (scale := fitting(other, alpha)) is None:
            return None
        given["other"] = F.mul(other, scale)
    elif type(alpha) is not int or alpha != 1:
        given["alpha"] = alpha
    for name, value in given.items():
        if isinstance(value, Number):
            made = fitting(x, value) if name in names else None
            if made is None:
                return None
            given[name] = made
    return [plain(x, **given)]
