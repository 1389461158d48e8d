"""Reading and writing at indices that are themselves data: `gather`, and the `scatter` family that undoes it.

One scheme serves `take`, `torch.gather` and advanced indexing. The *elements* side has one dimension per way to walk:
some are those of the index tensors (all of one shape), the others are kept dimensions of the *table*. Two attributes
say which is which:

- `at`: the elements' dimensions that the index tensors' own dimensions are, in order;
- `place`: per dimension of the table the elements' dimension that walks along it, or -1 where an index tensor says the
  position: the first -1 takes the first index tensor, and so on. A dimension may be both in `at` and in `place` (as in
  `torch.gather`, whose index has the table's rank); then the table is at least as long there.

`gather` reads table -> elements; the scatters write elements -> table, in ascending row-major order of the elements.
With `wrap`, an index below zero counts from the end. An index out of range is an error that names it.

With `in_place` the memory of a scatter's result is the table's, and holds the table already. That is for who knows that
all indices are in range (`dispatch.write_at`, `codegen/writes.py`). So is `checked`, which changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import (
    OPS,
    Call,
    Check,
    Dense,
    ElementContext,
    OpDef,
    OpTypeError,
    Scatter,
    ints_attr,
    quiet,
    register,
)
from kiln.ir.ops.create import full_like, zeros_of
from kiln.ir.ops.elementwise import ANY, NUMERIC, add, div, eq, logical_and, mul, ne, where
from kiln.ir.types import TENSOR_DTYPES, Dim, Shape, Sym, TensorType, int64

MOST_INDICES: Final = 32
"""No table has more dimensions than these."""


# ------------------------------------------------------------------------------------------- the scheme


def _indexed(attrs: Attrs) -> list[int]:
    """The table's dimensions whose position an index tensor says."""
    return [d for d, p in enumerate(ints_attr(attrs, "place")) if p < 0]


def _elements(op: str, table: TensorType, indices: Sequence[TensorType], attrs: Attrs) -> Shape:
    """The shape of the elements side; OpTypeError when attributes, table and index tensors do not fit."""
    at, place = ints_attr(attrs, "at"), ints_attr(attrs, "place")
    for i in indices:
        if i.dtype is not int64:
            raise OpTypeError(op, f"the index is {i.dtype}, not int64", "dtype")
        if i.shape != indices[0].shape:
            raise OpTypeError(op, f"index tensors have types {indices[0]} and {i}")
    kept = [p for p in place if p >= 0]
    rank = len({*at, *kept})
    dims = _indexed(attrs)
    if (
        len(place) != table.rank
        or len(dims) != len(indices)
        or len(at) != (indices[0].rank if indices else 0)
        or len(set(at)) != len(at)
        or len(set(kept)) != len(kept)
        or {*at, *kept} != set(range(rank))
    ):
        raise OpTypeError(op, f"at {at}, place {place} do not join {len(indices)} indices with {table}", "value")
    index: Shape = indices[0].shape if indices else ()
    shape: list[Dim] = [0 for _ in range(rank)]
    for n, p in zip(table.shape, place, strict=True):
        if p >= 0:
            shape[p] = n
    for m, p in zip(index, at, strict=True):
        most = shape[p]
        if p in kept and isinstance(m, int) and isinstance(most, int) and m > most:
            raise OpTypeError(op, f"an index of {indices[0]} is longer than {table} in a dimension they share")
        shape[p] = m
    if 0 not in index and any(table.shape[d] == 0 for d in dims):
        raise OpTypeError(op, f"there is nothing to index in {table}", "dim", "the dimension has size 0")
    return tuple(shape)


def dimension_names(writes: bool, ranks: Sequence[int], attrs: Attrs) -> list[list[str]]:
    """Names for the operands' dimensions, equal where sizes must be: n0, n1, ... of the table, m0, m1, ... of the
    index tensors."""
    at, place = ints_attr(attrs, "at"), ints_attr(attrs, "place")
    table = [f"n{d}" for d in range(ranks[0])]
    index = [f"m{j}" for j in range(len(at))]
    elements = {p: table[d] for d, p in enumerate(place) if p >= 0} | dict(zip(at, index, strict=True))
    value = [[elements[p] for p in range(len(elements))]] if writes else []
    return [table, *value, *[index for _ in ranks[2 if writes else 1 :]]]


def checked_position(i: L.Expr, size: L.Expr, dim: int, extent: Dim, wrap: bool, check: Check) -> tuple[L.Expr, L.Expr]:
    """An index as a position, and whether it is one (the position is 0 where not). `extent` names the size in the
    error."""
    position = L.select(L.apply("lt", i, L.index(0)), L.add(i, size), i) if wrap else i
    ok = L.apply("and", L.apply("ge", position, L.index(0)), L.apply("lt", position, size))
    text = f"{{{extent}}}" if isinstance(extent, Sym) else str(extent)
    check(ok, "index", f"index {{value}} is out of bounds for dimension {dim} with size {text}", i)
    return L.select(ok, position, L.index(0)), ok


def no_check(ok: L.Expr, kind: str, message: str, value: L.Expr) -> None:
    """For indices that have been checked."""


def _linear(table: Sequence[Any], elements: Sequence[Any], indices: Sequence[Any], attrs: Attrs, xp: Any) -> Any:
    """NumPy: the row-major position in the table of every element; IndexError out of range."""
    at, place, rest = ints_attr(attrs, "at"), ints_attr(attrs, "place"), iter(indices)
    position = xp.zeros(elements, xp.int64)
    for n, p in zip(table, place, strict=True):
        along = [1] * len(elements)
        if p >= 0:
            along[p] = elements[p]
            step = xp.arange(elements[p])
        else:
            step = next(rest)
            if attrs["wrap"]:
                step = xp.where(step < 0, step + n, step)
            if not ((step >= 0) & (step < n)).all():
                raise IndexError("index is out of bounds")
            for j, q in enumerate(at):
                along[q] = step.shape[j]
            step = xp.transpose(step, sorted(range(len(at)), key=at.__getitem__))
        position = position * n + step.reshape(along)
    return position


# ------------------------------------------------------------------------------------------- gather


def _gather_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    table, *indices = operands
    return (TensorType(table.dtype, _elements("gather", table, indices, attrs), table.device),)


def _gather_ref(xp: Any, x: Any, *indices: Any, **attrs: Any) -> Any:
    types = [TensorType(int64, i.shape) for i in indices]
    shape = _elements("gather", TensorType(int64, x.shape), types, attrs)
    return x.reshape(-1)[_linear(x.shape, shape, indices, attrs, xp)]


def _gather_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    at, place = ints_attr(ctx.attrs, "at"), ints_attr(ctx.attrs, "place")
    here = tuple(index[p] for p in at)
    source: list[L.Expr] = []
    k = 0
    for d, (p, n) in enumerate(zip(place, ctx.operand_types[0].shape, strict=True)):
        if p >= 0:
            source.append(index[p])
            continue
        k += 1
        i = ctx.read(k, here)
        check = no_check if ctx.attrs.get("checked", False) else ctx.check
        source.append(checked_position(i, ctx.extent(n), d, n, bool(ctx.attrs["wrap"]), check)[0])
    return ctx.read(0, tuple(source))


def _gather_vjp(call: Call, g: Any) -> Sequence[Any]:
    table, *indices = call.operands
    undo = scatter_add if any(i.ttype.shape for i in indices) else scatter  # one place: nothing to add up
    dx = undo(zeros_of(table.ttype, g), g, *indices, **call.attrs) if call.needs[0] else None
    return (dx, *[None for _ in indices])


gather: Final[OpDef] = register(
    OpDef(
        "gather",
        "gather(a, *indices; at, place, wrap): result[r] = a at r along kept dimensions and at the index tensors' "
        "numbers along the others (ir/ops/gather.py). An index out of range is an error.",
        _gather_types,
        _gather_ref,
        Dense(_gather_element),
        vjp=_gather_vjp,
        jvp=lambda call, t, *_: (None if t is None else gather(t, *call.operands[1:], **call.attrs),),
        traits=frozenset({"exact", "check"}),
        saved_operands=tuple(range(1, MOST_INDICES)),
    )
)


# ------------------------------------------------------------------------------------------ scatters


def _scatter(
    name: str,
    doc: str,
    combine: str,
    fold: Callable[[Any, Any, Any], Any],
    vjp: Any,
    jvp: Any,
    saved: tuple[int, ...],
    results: tuple[int, ...] = (),
    among: Sequence[Any] = ANY,
) -> OpDef:
    """Register a scatter: `fold(xp, old, value)` is what an element of the table becomes when a value meets it."""

    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        if len(operands) < 2:
            raise OpTypeError(name, f"takes a table, values and indices, got {len(operands)} operands", "value")
        table, value, *indices = operands
        if table.dtype is not value.dtype:
            raise OpTypeError(name, f"operands have dtypes {table.dtype} and {value.dtype}", "dtype")
        if table.dtype not in among:
            raise OpTypeError(name, f"is not defined for {table.dtype}", "dtype")
        shape = _elements(name, table, indices, attrs)
        if value.shape != shape:
            raise OpTypeError(name, f"{value} does not have the shape {list(shape)} that {table} is written with")
        return (table,)

    def ref(xp: Any, table: Any, value: Any, *indices: Any, **attrs: Any) -> Any:
        out = xp.array(table, order="C").reshape(-1)
        where_to = _linear(table.shape, value.shape, indices, attrs, xp).reshape(-1)
        for i, v in zip(where_to, value.reshape(-1), strict=True):
            out[i] = fold(xp, out[i], v)
        return out.reshape(table.shape)

    return register(
        OpDef(
            name,
            f"{name}(a, v, *indices; at, place, wrap): a with, in ascending row-major order of v, {doc} where "
            "gather(a, *indices; at, place, wrap) would read. An index out of range is an error.",
            infer,
            quiet(ref),
            Scatter("scatter", combine),
            vjp=vjp,
            jvp=jvp,
            traits=frozenset({"exact", "check", "parts"} if combine == "add" else {"exact", "check"}),
            saved_operands=(*saved, *range(2, MOST_INDICES)),
            saved_results=results,
        )
    )


def _tangents(call: Call, ta: Any, tv: Any) -> tuple[Any, Any] | None:
    """Both tangents, zeros for a missing one; None when both are missing."""
    if ta is None and tv is None:
        return None
    table, value = call.operands[0].ttype, call.operands[1].ttype
    return (zeros_of(table, tv) if ta is None else ta, zeros_of(value, ta) if tv is None else tv)


def _last_writers(call: Call, receiver: Any) -> Any:
    """Per value: whether no later one overwrote it (bool)."""
    table, value = call.operands[0].ttype, call.operands[1].ttype
    count = 1
    for n in value.static_shape():
        count *= n
    (line,) = OPS["iota"].bind((), {"shape": (count,), "dtype": int64, "dim": 0}, receiver=receiver)
    order, indices = OPS["reshape"](line, shape=value.shape), call.operands[2:]
    nobody = zeros_of(TensorType(int64, table.shape), receiver)
    return eq(gather(scatter(nobody, order, *indices, **call.attrs), *indices, **call.attrs), order)


def _set_vjp(call: Call, g: Any) -> Sequence[Any]:
    value, indices = call.operands[1], call.operands[2:]
    base = scatter(g, zeros_of(value.ttype, g), *indices, **call.attrs) if call.needs[0] else None
    into = None
    if call.needs[1]:
        into = gather(g, *indices, **call.attrs)
        into = where(_last_writers(call, g), into, full_like(into, 0.0))
    return (base, into, *[None for _ in indices])


def _set_jvp(call: Call, ta: Any, tv: Any, *_: Any) -> Sequence[Any]:
    both = _tangents(call, ta, tv)
    return (None if both is None else scatter(*both, *call.operands[2:], **call.attrs),)


scatter: Final[OpDef] = _scatter(
    "scatter", "v's elements written (the last one stays)", "set",
    lambda xp, old, v: v,
    _set_vjp, _set_jvp, (), among=TENSOR_DTYPES,
)  # fmt: skip


def _add_vjp(call: Call, g: Any) -> Sequence[Any]:
    indices = call.operands[2:]
    into = gather(g, *indices, **call.attrs) if call.needs[1] else None
    return (g if call.needs[0] else None, into, *[None for _ in indices])


def _add_jvp(call: Call, ta: Any, tv: Any, *_: Any) -> Sequence[Any]:
    both = _tangents(call, ta, tv)
    return (None if both is None else scatter_add(*both, *call.operands[2:], **call.attrs),)


scatter_add: Final[OpDef] = _scatter(
    "scatter_add", "v's elements added (bool: or)", "add",
    lambda xp, old, v: old + v,
    _add_vjp, _add_jvp, (),
)  # fmt: skip


def _extremum_shares(call: Call, g: Any) -> tuple[Any, Any, Any]:
    """Where base and values equal the result, and 1 / (how many do) per element of the table: ties share evenly."""
    (base, value, *indices), result = call.operands, call.results[0]
    one, zero = full_like(g, 1.0), full_like(g, 0.0)
    mine = eq(base, result)
    theirs = eq(value, gather(result, *indices, **call.attrs))
    ones, zeros = (full_like(value, x) for x in (1.0, 0.0))
    count = scatter_add(where(mine, one, zero), where(theirs, ones, zeros), *indices, **call.attrs)
    return mine, theirs, where(eq(count, zero), zero, div(one, count))


def _extremum_vjp(call: Call, g: Any) -> Sequence[Any]:
    indices = call.operands[2:]
    mine, theirs, share = _extremum_shares(call, g)
    shared = mul(g, share)
    base = where(mine, shared, full_like(g, 0.0)) if call.needs[0] else None
    into = None
    if call.needs[1]:
        into = gather(shared, *indices, **call.attrs)
        into = where(theirs, into, full_like(into, 0.0))
    return (base, into, *[None for _ in indices])


def _extremum_jvp(call: Call, ta: Any, tv: Any, *_: Any) -> Sequence[Any]:
    both = _tangents(call, ta, tv)
    if both is None:
        return (None,)
    base, value = both
    mine, theirs, share = _extremum_shares(call, base)
    held, came = where(mine, base, full_like(base, 0.0)), where(theirs, value, full_like(value, 0.0))
    return (mul(scatter_add(held, came, *call.operands[2:], **call.attrs), share),)


scatter_max: Final[OpDef] = _scatter(
    "scatter_max", "the larger of the two (NaN wins) put", "max",
    lambda xp, old, v: old if old != old or old > v else v,
    _extremum_vjp, _extremum_jvp, (0, 1), (0,),
)  # fmt: skip
scatter_min: Final[OpDef] = _scatter(
    "scatter_min", "the smaller of the two (NaN wins) put", "min",
    lambda xp, old, v: old if old != old or old < v else v,
    _extremum_vjp, _extremum_jvp, (0, 1), (0,),
)  # fmt: skip


def _product_slopes(call: Call) -> tuple[Any, Any]:
    """The derivative of the product towards base (the product of what was multiplied in) and towards each value
    (the product of all others: by division, but for the only zero among them)."""
    base, value, *indices = call.operands
    ones, zeros = full_like(value, 1.0), full_like(value, 0.0)
    others = scatter_mul(full_like(base, 1.0), value, *indices, **call.attrs)
    is_zero = eq(value, zeros)
    none = zeros_of(base.ttype, base)
    zero_count = scatter_add(none, where(is_zero, ones, zeros), *indices, **call.attrs)
    only = logical_and(is_zero, eq(gather(zero_count, *indices, **call.attrs), ones))
    rest = scatter_mul(base, where(only, ones, value), *indices, **call.attrs)
    divided = div(gather(call.results[0], *indices, **call.attrs), where(ne(value, zeros), value, ones))
    return others, where(only, gather(rest, *indices, **call.attrs), divided)


def _product_vjp(call: Call, g: Any) -> Sequence[Any]:
    indices = call.operands[2:]
    base, value = _product_slopes(call)
    into = mul(gather(g, *indices, **call.attrs), value) if call.needs[1] else None
    return (mul(g, base) if call.needs[0] else None, into, *[None for _ in indices])


def _product_jvp(call: Call, ta: Any, tv: Any, *_: Any) -> Sequence[Any]:
    both = _tangents(call, ta, tv)
    if both is None:
        return (None,)
    base, value = _product_slopes(call)
    moved = scatter_add(zeros_of(both[0].ttype, both[0]), mul(both[1], value), *call.operands[2:], **call.attrs)
    return (add(mul(both[0], base), moved),)


scatter_mul: Final[OpDef] = _scatter(
    "scatter_mul", "v's elements multiplied in", "mul",
    lambda xp, old, v: old * v,
    _product_vjp, _product_jvp, (0, 1), (0,), NUMERIC,
)  # fmt: skip
