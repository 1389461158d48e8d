"""Tensors made of Python numbers that tensors decide: `kiln.tensor([n, m])`, `kiln.full(size, n)`, `kiln.where`; and
sizes that are such numbers, which are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Final

from kiln import creation, gathering
from kiln import functional as F
from kiln.base import TensorBase
from kiln.interop import InteropMethods
from kiln.ir.ops.base import OPS
from kiln.promotion import dtype_of_number, result_type, transferred
from kiln.staging_numbers import EXAMPLES, Number, as_scalar, constant

_MAX_NUMBERS: Final = 256


def _example(x: Any) -> Any:
    return EXAMPLES[x.kind] if isinstance(x, Number) else x


def _spread(n: Number, like: Any) -> Any:
    """A new tensor that is full of a number; None where that may raise, or round otherwise."""
    one = as_scalar(n, like.dtype)
    if one is None:
        return None
    return OPS["copy"](OPS["broadcast"](transferred(one, like.device), shape=like._layout.shape, dims=()))


def _full(size: Any, fill_value: Any, *, dtype: Any = None) -> Any:
    if not isinstance(fill_value, Number):
        return None
    example = creation.full(size, _example(fill_value), dtype=dtype)
    return _spread(fill_value, example)


def _full_like(input: Any, fill_value: Any, *, dtype: Any = None) -> Any:
    if not isinstance(fill_value, Number):
        return None
    example = creation.full_like(input, _example(fill_value), dtype=dtype)
    return _spread(fill_value, example)


def _new_full(x: Any, size: Any, fill_value: Any, *, dtype: Any = None) -> Any:
    if not isinstance(fill_value, Number):
        return None
    example = x.new_full(size, _example(fill_value), dtype=dtype)
    return _spread(fill_value, example)


def _where(condition: Any, input: Any, other: Any) -> Any:
    if isinstance(condition, Number) or not isinstance(condition, TensorBase):
        return None
    dtype = result_type(_example(input), _example(other))
    sides = [as_scalar(x, dtype) if isinstance(x, Number) else x for x in (input, other)]
    return None if any(x is None for x in sides) else F.where(condition, *sides)


def _masked_fill(input: Any, mask: Any, value: Any) -> Any:
    made = as_scalar(value, input.dtype) if isinstance(value, Number) and isinstance(input, TensorBase) else None
    return None if made is None else gathering.masked_fill(input, mask, made)


def _tensor(data: Any, *, dtype: Any = None) -> Any:
    numbers: list[Any] = []
    shape = _shape(data, numbers)
    if shape is None or not 0 < len(numbers) <= _MAX_NUMBERS:
        return None
    kind = dtype
    if kind is None:
        kinds = {type(_example(x)) for x in numbers}
        kind = dtype_of_number(EXAMPLES[float if float in kinds else int if int in kinds else bool])
    made: list[Any] = []
    for x in numbers:
        one = as_scalar(x if isinstance(x, Number) else Number(type(x), constant(type(x), x)), kind)
        if one is None:
            return None
        made.append(OPS["reshape"](one, shape=(1,)))
    line = OPS["cat"](*made, dim=0)
    return OPS["copy"](line if shape == (len(made),) else OPS["reshape"](line, shape=shape))


def _shape(data: Any, numbers: list[Any]) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers; None for other data."""
    if isinstance(data, Number) or type(data) in (bool, float) or (type(data) is int and abs(data) <= 2**53):
        numbers.append(data)
        return ()
    if type(data) not in (list, tuple):
        return None
    inner = {_shape(x, numbers) for x in data}
    if len(inner) != 1:
        return None
    (first,) = inner
    return None if first is None else (len(data), *first)


_MAKING: Final[dict[Any, Callable[..., Any]]] = {
    creation.full: _full,
    creation.full_like: _full_like,
    InteropMethods.new_full: _new_full,
    creation.tensor: _tensor,
    F.where: _where,
    gathering.masked_fill: _masked_fill,
}
_SIZED: Final = frozenset(
    {"arange", "chunk", "diagonal", "empty", "expand", "eye", "full", "linspace", "narrow", "new_empty", "new_full"}
    | {"new_ones", "new_zeros", "normal", "one_hot", "ones", "pad", "rand", "randint", "randn", "randperm", "repeat"}
    | {"repeat_interleave", "reshape", "split", "tile", "topk", "unflatten", "unfold", "view", "zeros"}
)
"""Functions of kiln's whose integers say how many elements there are."""


def making(function: Any) -> Callable[..., Any] | None:
    """What makes the same tensor of staged numbers; that gives None where they must be asked for."""
    plain = getattr(function, "__func__", function)
    found = _MAKING.get(plain) if isinstance(plain, FunctionType) else None
    if found is None or plain is function:
        return found
    return lambda *args, **kwargs: found(function.__self__, *args, **kwargs)


def sized(function: Any, x: Any) -> Any:
    """An argument of a function of kiln's in which integers that are sizes are known, each asked for as one."""
    name = getattr(function, "__name__", "")
    if name not in _SIZED or not str(getattr(function, "__module__", "")).startswith("kiln"):
        return x
    return _known(x, f"{name}(), whose argument says how many elements there are,")


def _known(x: Any, what: str) -> Any:
    if isinstance(x, Number):
        return x.extent(what)
    if type(x) in (tuple, list):
        items: Sequence[Any] = [_known(item, what) for item in x]
        return type(x)(items)
    return x
