"""Orders of elements: `argsort`, `topk` and `searchsorted`, along the last dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OpDef, OpTypeError, Template, register
from kiln.ir.types import REAL_DTYPES, TensorType, int64

# ------------------------------------------------------------------------------------------- argsort

LONGEST: Final = 1 << 32
"""Elements that a row of an `argsort` has less of, unless they have 64 bits: key and position share an integer."""


def _ordered(op: str, t: TensorType) -> None:
    """Refuse what has no order."""
    if t.dtype not in REAL_DTYPES:
        raise OpTypeError(op, f"is not defined for {t.dtype}", "dtype")
    if t.rank == 0:
        raise OpTypeError(op, f"{t} has no dimension to sort along")


def _argsort_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,) = operands
    _ordered("argsort", t)
    n = t.shape[-1]
    if t.dtype.bits < 64 and isinstance(n, int) and n >= LONGEST:
        raise OpTypeError("argsort", f"rows of {t} are too long for elements of less than 64 bits", "value")
    return (TensorType(int64, t.shape, t.device),)


def _keys(xp: Any, x: Any) -> Any:
    """int64 in the order of x: NaN is the largest number, zeros are equal."""
    if x.dtype.kind != "f":
        return x.astype(xp.int64)
    bits = (x.astype(xp.float64) + 0.0).view(xp.int64)
    keys = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    return xp.where(xp.isnan(x), np.int64(2**63 - 1), keys)


def _argsort_ref(xp: Any, x: Any, *, descending: bool) -> Any:
    keys = _keys(xp, xp.asarray(x, order="C"))
    return xp.argsort(~keys if descending else keys, axis=-1, kind="stable").astype(xp.int64)


argsort: Final[OpDef] = register(
    OpDef(
        "argsort",
        "argsort(a; descending): the positions along the last dimension in the order of their elements, int64. "
        "Stable; NaN is larger than every number, zeros of either sign are equal.",
        _argsort_types,
        _argsort_ref,
        Template("argsort"),
        traits=frozenset({"exact"}),
        arity=1,
    )
)


# ---------------------------------------------------------------------------------------------- topk

MOST: Final = 128
"""The largest k of `topk`: more are the first elements of an `argsort`."""


def _topk_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,) = operands
    _ordered("topk", t)
    k, n = attrs["k"], t.shape[-1]
    if not isinstance(k, int) or not 1 <= k <= MOST:
        raise OpTypeError("topk", f"k is {k}, not a number from 1 to {MOST}", "value")
    if isinstance(n, int) and k > n:
        raise OpTypeError("topk", f"k is {k}, but rows of {t} have {n} elements", "value")
    return (TensorType(int64, (*t.shape[:-1], k), t.device),)


def _topk_ref(xp: Any, x: Any, *, k: int, descending: bool) -> Any:
    return _argsort_ref(xp, x, descending=descending)[..., :k]


topk: Final[OpDef] = register(
    OpDef(
        "topk",
        f"topk(a; k, descending): the first k (1 to {MOST}) positions of argsort(a; descending), int64.",
        _topk_types,
        _topk_ref,
        Template("topk"),
        traits=frozenset({"exact"}),
        arity=1,
    )
)


# -------------------------------------------------------------------------------------- searchsorted


def _search_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    table, values = operands
    if table.dtype is not values.dtype:
        raise OpTypeError("searchsorted", f"operands have dtypes {table.dtype} and {values.dtype}", "dtype")
    if table.dtype not in REAL_DTYPES[1:]:
        raise OpTypeError("searchsorted", f"is not defined for {table.dtype}", "dtype")
    if table.rank == 0 or table.rank != values.rank or table.shape[:-1] != values.shape[:-1]:
        raise OpTypeError("searchsorted", f"{values} can't be looked up in rows of {table}")
    return (TensorType(int64, values.shape, values.device),)


def _search_ref(xp: Any, table: Any, values: Any, *, right: bool) -> Any:
    out = xp.zeros(values.shape, xp.int64)
    for at in np.ndindex(values.shape):
        row, v = table[at[:-1]], values[at]
        low, high = 0, len(row)
        while low < high:
            middle = (low + high) // 2
            beyond = row[middle] > v if right else row[middle] >= v
            low, high = (low, middle) if beyond else (middle + 1, high)
        out[at] = low
    return out


searchsorted: Final[OpDef] = register(
    OpDef(
        "searchsorted",
        "searchsorted(a, v; right): per element of v how many elements of its row of a (ascending) come before it, "
        "int64, by bisection: elements smaller than it, with `right` also those equal to it.",
        _search_types,
        _search_ref,
        Template("searchsorted"),
        traits=frozenset({"exact"}),
        arity=2,
    )
)
