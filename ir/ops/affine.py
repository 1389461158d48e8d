"""Views whose index is any affine function of the result's: diagonals, sliding windows; and what undoes them.

Attributes: `starts`, one int per dimension of the table, and `steps`, row by row a matrix of as many rows and one
column per dimension of the elements: element r lies in the table at starts[d] + sum over j of steps[d, j] * r[j].
`affine` reads table -> elements (a view, whose `shape` is an attribute too), the scatters write elements -> table.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import (
    Call,
    Dense,
    ElementContext,
    OpDef,
    OpTypeError,
    Scatter,
    ints_attr,
    quiet,
    register,
    shape_attr,
)
from kiln.ir.ops.create import check_shape, zeros_of
from kiln.ir.types import Shape, TensorType

View = tuple[tuple[int, ...], tuple[int, ...], int]


def step_matrix(attrs: Attrs, rank: int) -> list[tuple[int, ...]]:
    """`steps` as rows, one per dimension of the table."""
    steps = ints_attr(attrs, "steps")
    width = len(steps) // rank if rank else 0
    return [steps[d * width : (d + 1) * width] for d in range(rank)]


def _check(op: str, table: TensorType, shape: Shape, attrs: Attrs) -> None:
    """OpTypeError unless every element of `shape` lies in the table."""
    starts, steps = ints_attr(attrs, "starts"), ints_attr(attrs, "steps")
    if len(starts) != table.rank or len(steps) != table.rank * len(shape):
        raise OpTypeError(
            op, f"{len(starts)} starts and {len(steps)} steps do not fit {table} and {list(shape)}", "value"
        )
    if 0 in shape:
        return
    for d, (n, row) in enumerate(zip(table.shape, step_matrix(attrs, table.rank), strict=True)):
        sizes = [m for m, s in zip(shape, row, strict=True) if s]
        if not isinstance(n, int) or not all(isinstance(m, int) for m in sizes):
            continue  # known when the sizes are
        reach = [s * (m - 1) for m, s in zip(shape, row, strict=True) if s and isinstance(m, int)]
        low, high = (starts[d] + sum(pick(0, r) for r in reach) for pick in (min, max))
        if low < 0 or high >= n:
            raise OpTypeError(op, f"{low}..{high} does not lie in dimension {d} of {table}", "dim")


def overlaps(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements may share a place: no order of the dimensions has each step beyond all that the smaller
    ones reach. (Strides that interleave without meeting count as meeting.)"""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(strides, sizes, strict=True) if n > 1):
        if stride <= reach:
            return 0 not in sizes
        reach += stride * (n - 1)
    return False


# -------------------------------------------------------------------------------------------- reading


def _affine_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), shape = operands, shape_attr(attrs, "shape")
    check_shape("affine", shape)
    _check("affine", t, shape, attrs)
    return (TensorType(t.dtype, shape, t.device),)


def _places(table: Sequence[int], shape: Sequence[int], attrs: Attrs, xp: Any) -> Any:
    """NumPy: the row-major position in the table of every element."""
    grid = xp.indices(tuple(shape), sparse=True)
    position = xp.zeros(tuple(shape), xp.int64)
    rows = step_matrix(attrs, len(table))
    for n, start, row in zip(table, ints_attr(attrs, "starts"), rows, strict=True):
        position = position * n + start + sum((s * g for s, g in zip(row, grid, strict=True)), 0)
    return position


def _affine_ref(xp: Any, x: Any, **attrs: Any) -> Any:
    places = _places(x.shape, attrs["shape"], attrs, xp)
    return x.reshape(-1)[places]


def place_of(attrs: Attrs, rank: int, index: Sequence[L.Expr]) -> tuple[L.Expr, ...]:
    """The index in the table of the element at `index`."""
    found: list[L.Expr] = []
    for start, row in zip(ints_attr(attrs, "starts"), step_matrix(attrs, rank), strict=True):
        at: L.Expr | None = None
        for s, i in zip(row, index, strict=True):
            if s:
                term = L.mul(i, L.index(s))
                at = term if at is None else L.add(at, term)
        found.append(L.index(start) if at is None else L.add(at, L.index(start)))
    return tuple(found)


def _affine_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    return ctx.read(0, place_of(ctx.attrs, ctx.operand_types[0].rank, index))


def _affine_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View:
    new = ints_attr(attrs, "shape")
    rows = step_matrix(attrs, len(shape))
    if 0 not in new:
        offset += sum(a * s for a, s in zip(ints_attr(attrs, "starts"), strides, strict=True))
    steps = tuple(sum(row[j] * s for row, s in zip(rows, strides, strict=True)) for j in range(len(new)))
    return new, steps, offset


def _affine_vjp(call: Call, g: Any) -> Sequence[Any]:
    attrs = {k: call.attrs[k] for k in ("starts", "steps")}
    return (affine_scatter_add(zeros_of(call.operands[0].ttype, g), g, **attrs),)


affine: Final[OpDef] = register(
    OpDef(
        "affine",
        "affine(a; shape, starts, steps): result[r] = a[starts[d] + sum over j of steps[d, j] * r[j], ...]; a view.",
        _affine_types,
        _affine_ref,
        Dense(_affine_element),
        vjp=_affine_vjp,
        jvp=lambda call, t: (None if t is None else affine(t, **call.attrs),),
        view=_affine_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


# -------------------------------------------------------------------------------------------- writing


def _row_major(shape: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1))[::-1] if shape else []


def _scatter(name: str, doc: str, combine: str, fold: Callable[[Any, Any], Any], alone: bool, vjp: Any) -> OpDef:
    """Register a scatter; `alone`: no two elements may share a place."""

    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        table, value = operands
        if table.dtype is not value.dtype:
            raise OpTypeError(name, f"operands have dtypes {table.dtype} and {value.dtype}", "dtype")
        if combine != "set" and table.dtype.is_complex:
            raise OpTypeError(name, f"is not defined for {table.dtype}", "dtype")
        _check(name, table, value.shape, attrs)
        static = all(isinstance(n, int) for n in (*table.shape, *value.shape))
        if alone and static:
            rows, shape = step_matrix(attrs, table.rank), table.static_shape()
            steps = [sum(r[j] * s for r, s in zip(rows, _row_major(shape), strict=True)) for j in range(value.rank)]
            if overlaps(value.static_shape(), steps):
                raise OpTypeError(name, f"several elements of {value} share one place in {table}", "value")
        return (table,)

    def ref(xp: Any, table: Any, value: Any, **attrs: Any) -> Any:
        out = xp.array(table, order="C").reshape(-1)
        where = _places(table.shape, value.shape, attrs, xp).reshape(-1)
        for i, v in zip(where, value.reshape(-1), strict=True):
            out[i] = fold(out[i], v)
        return out.reshape(table.shape)

    def jvp(call: Call, ta: Any, tv: Any) -> Sequence[Any]:
        if ta is None and tv is None:
            return (None,)
        ta = zeros_of(call.operands[0].ttype, tv) if ta is None else ta
        tv = zeros_of(call.operands[1].ttype, ta) if tv is None else tv
        return (made(ta, tv, **call.attrs),)

    made = register(
        OpDef(
            name,
            f"{name}(a, v; starts, steps): a with v's elements {doc} where affine(a; starts, steps) would read.",
            infer,
            quiet(ref),
            Scatter("scatter", combine),
            vjp=vjp,
            jvp=jvp,
            traits=frozenset({"exact"} if combine == "set" else {"exact", "parts"}),
            arity=2,
        )
    )
    return made


def _read_again(call: Call, g: Any) -> Any:
    return affine(g, shape=call.operands[1].ttype.shape, **call.attrs)


def _set_vjp(call: Call, g: Any) -> Sequence[Any]:
    zeros = zeros_of(call.operands[1].ttype, g)
    base = affine_scatter(g, zeros, **call.attrs) if call.needs[0] else None
    return (base, _read_again(call, g) if call.needs[1] else None)


def _add_vjp(call: Call, g: Any) -> Sequence[Any]:
    return (g if call.needs[0] else None, _read_again(call, g) if call.needs[1] else None)


affine_scatter: Final[OpDef] = _scatter(
    "affine_scatter", "(no two in one place)", "set", lambda old, v: v, True, _set_vjp
)
affine_scatter_add: Final[OpDef] = _scatter(
    "affine_scatter_add", "added, in row-major order,", "add", lambda old, v: old + v, False, _add_vjp
)
