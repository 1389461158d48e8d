"""`x[index]` and `x[index] = value`, by PyTorch's rules.

Ints, slices with positive steps, None and Ellipsis make a view: one `slice` (ints keep a dimension of size one there)
and one `reshape` that drops the ints' dimensions and adds those of None. Tensors, lists and arrays of ints, and bool
masks, then read that view with one `gather` (a copy), or write it with one `scatter`.

Index tensors are broadcast together. Their dimensions come where the first of them stood if they stand side by side,
and first if anything is between them. A 0-d int tensor is one more index tensor, but it never decides that place (as
an int would not); unlike in PyTorch its result is a copy. A bool mask stands for the index tensors of its nonzero
elements: how many there are depends on data, so a capture refuses it, except to write what does not depend on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kiln import dispatch
from kiln.autograd import check_writable, write_in_place
from kiln.base import LAYERED, MODES, Operand, TensorBase
from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError, ShapeError
from kiln.inplace import copy_
from kiln.ir import types as T
from kiln.ir.graph import Attrs, Constant
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU, Device
from kiln.positions import positions
from kiln.promotion import apply, broadcast_to, cast_to, full_like_number, number, same_place, transferred

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_SLICE, _RESHAPE, _WHERE = OPS["slice"], OPS["reshape"], OPS["where"]
_GATHER, _SCATTER, _ADD = OPS["gather"], OPS["scatter"], OPS["scatter_add"]


@dataclass
class _Parts:
    """An index taken apart: the view that its basic items make, and the tensors that then index that view."""

    view: Tensor
    tensors: list[tuple[int, Tensor]] = field(default_factory=list)
    """Dimension of the view, and an int64 tensor or a bool mask (over so many dimensions from there on)."""


def get(x: Tensor, index: Any) -> Tensor:
    """x[index]: a view for basic indices, a copy when there are tensors, lists or arrays among them.

    KilnIndexError out of range, InvalidValueError for negative steps, CaptureError for bool masks in a capture.
    """
    parts = _take_apart(x, index)
    return parts.view if not parts.tensors else _read(parts.view, parts.tensors)


def put(x: Tensor, index: Any, value: Operand) -> None:
    """x[index] = value, broadcast to x[index] and cast to x's dtype. Where an element is hit twice, the last one
    (in row-major order of x[index]) stays. Errors as those of reading; ShapeError when `value` does not fit."""
    parts = _take_apart(x, index)
    if not parts.tensors:
        copy_(parts.view, value)
        return
    view, (first, *others) = parts.view, parts.tensors
    chosen = None if others else _masked(view, *first, value)
    if chosen is not None:
        write_in_place(view, "index_put_", _WHERE, chosen, {})
        return
    indices, attrs = _indexed(view, parts.tensors)
    fitted = _fitted(view, value, _elements(view.shape, indices, attrs["at"], attrs["place"]))
    taped = MODES.grad_enabled and (view.requires_grad or fitted.requires_grad)
    if (
        taped
        or MODES.recorder is not None
        or any(t._flags & LAYERED for t in (view, fitted, *indices))
        or not view._layout.contiguous
        or not _in_range(view, indices, attrs["place"])
    ):
        new = apply(_SCATTER, view, fitted, *indices, **attrs)
        write_in_place(view, "index_put_", OPS["copy"], (new,), {})
    else:
        check_writable(view, "index_put_")
        dispatch.write_at(view, fitted, indices, attrs)


def written(x: Tensor, index: tuple[Any, ...], value: Operand, accumulate: bool) -> Tensor:
    """A copy of x with `value` at x[index], or added to what is there. The index is of tensors and full slices."""
    return _replaced(_take_apart(x, index), value, accumulate)


def _replaced(parts: _Parts, value: Operand, accumulate: bool) -> Tensor:
    """The view with a value written at (or added to) what its tensors index."""
    view, (first, *others) = parts.view, parts.tensors
    chosen = None if others or accumulate else _masked(view, *first, value)
    if chosen is not None:
        return apply(_WHERE, *chosen)
    indices, attrs = _indexed(view, parts.tensors)
    fitted = _fitted(view, value, _elements(view.shape, indices, attrs["at"], attrs["place"]))
    return apply(_ADD if accumulate else _SCATTER, view, fitted, *indices, **attrs)


def _indexed(view: Tensor, tensors: Sequence[tuple[int, Tensor]]) -> tuple[list[Tensor], dict[str, Any]]:
    """Index tensors, and the attributes of an op that reads or writes at them."""
    indices, at, place = scheme(view, _without_masks(tensors))
    return indices, {"at": at, "place": place, "wrap": True}


def _in_range(table: Tensor, indices: Sequence[Tensor], place: Sequence[int]) -> bool:
    """Whether all index tensors stay within the dimensions whose positions they say."""
    sizes = [n for n, p in zip(table.shape, place, strict=True) if p < 0]
    if table.device is not CPU:
        return _found_there(sizes, indices, table.device)
    for n, t in zip(sizes, indices, strict=True):
        numbers = t._array()
        if numbers.size and not -n <= int(numbers.min()) <= int(numbers.max()) < n:
            return False
    return True


def _found_there(sizes: Sequence[int], indices: Sequence[Tensor], device: Device) -> bool:
    """The same on a GPU, which says no more than that: the check of a gather, of what takes no memory."""
    if 0 in sizes:
        return not indices[0].numel()
    nothing = dispatch.constant(tuple(sizes), T.bool_, False, device)
    where: Attrs = {"at": tuple(range(indices[0].ndim)), "place": (-1,) * len(sizes), "wrap": True}
    try:
        dispatch.run(_GATHER, (nothing, *indices), where)
    except KilnIndexError:
        return False
    return True


# --------------------------------------------------------------------------------------- basic items


def _take_apart(x: Tensor, index: Any) -> _Parts:
    items = _expand(x, index if isinstance(index, tuple) else (index,))
    starts: list[int] = []
    stops: list[int] = []
    steps: list[int] = []
    shape: list[int] = []
    tensors: list[tuple[int, Tensor]] = []
    for item in items:
        d = len(starts)
        if item is None:
            shape.append(1)
        elif isinstance(item, slice):
            start, stop, step = _slice_bounds(item, x._layout.shape[d])
            shape.append(-(-(stop - start) // step))
            starts.append(start)
            stops.append(stop)
            steps.append(step)
        elif isinstance(item, (TensorBase, np.ndarray)):
            covered = x._layout.shape[d : d + _dimensions(item)]
            if item.dtype in (T.bool_, bool) and item.shape != covered:
                raise KilnIndexError(
                    f"the mask's shape {list(item.shape)} is not that of what it indexes, {list(covered)}",
                    op="index",
                    operands=[x.ttype],
                    fix="make the mask by comparing the tensor itself",
                )
            tensors += _tensors_of(x, item, len(shape))
            shape += covered if covered else (1,)
            starts += [0] * len(covered)
            stops += covered
            steps += [1] * len(covered)
        else:
            start = _position(item, x._layout.shape[d], d)
            starts.append(start)
            stops.append(start + 1)
            steps.append(1)
    whole = all(a == 0 and b == n and s == 1 for a, b, s, n in zip(starts, stops, steps, x.shape, strict=True))
    part = x if whole else apply(_SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    if tuple(shape) != part.shape or (whole and not tensors):
        part = apply(_RESHAPE, part, shape=tuple(shape))
    return _Parts(part, tensors)


def _expand(x: Tensor, items: tuple[Any, ...]) -> list[Any]:
    """Items with Ellipsis and missing dimensions written out, sequences and arrays made tensors."""
    items = tuple([_item(x, item) for item in items])
    used = sum([_dimensions(item) for item in items])
    if used > x.ndim:
        raise KilnIndexError(
            f"{used} indices for {x.ndim} dimensions", op="index", operands=[x.ttype], fix="leave some out"
        )
    if sum([item is Ellipsis for item in items]) > 1:
        raise KilnIndexError("an index can have only one ellipsis")
    rest = [slice(None)] * (x.ndim - used)
    for i, item in enumerate(items):
        if item is Ellipsis:
            return [*items[:i], *rest, *items[i + 1 :]]
    return [*items, *rest]


def _dimensions(item: Any) -> int:
    """How many dimensions an item indexes."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, np.ndarray) or (isinstance(item, TensorBase) and item.dtype is T.bool_):
        return item.ndim
    return 1


def _tensors_of(x: Tensor, item: Any, d: int) -> list[tuple[int, Tensor]]:
    """A tensor, or an array of bools as the tensors of its nonzero elements, for the dimensions from `d` on."""
    if isinstance(item, TensorBase):
        return [(d, cast("Tensor", item))]
    return [(d + k, _constant(x, p)) for k, p in enumerate(np.nonzero(np.atleast_1d(item)))]


def _item(x: Tensor, item: Any) -> Any:
    """An item as None, Ellipsis, a slice, an int, an int64 tensor, a bool tensor, or an array of bools."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, (bool, np.bool_)):
        return np.array(bool(item))
    if isinstance(item, (int, np.integer)):
        return item
    if isinstance(item, TensorBase):
        item = cast("Tensor", item)
        if item.device is CPU or not item.ndim:
            item = transferred(item, x.device)
        same_place("index", (x, item))
        return _index_tensor(item)
    if isinstance(item, (list, tuple, range, np.ndarray)):
        if any(isinstance(n, TensorBase) for n in item):
            raise ArgumentError("a list of tensors is no index", fix="separate indices by commas, or use kiln.stack")
        array = np.asarray(item)
        if not array.size and not isinstance(item, np.ndarray):
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise KilnIndexError(f"an index of {array.dtype} elements: ints and bools index")
        return array if array.dtype.kind == "b" else _constant(x, array.astype(np.int64))
    raise ArgumentError(f"indices must be ints, slices, None, ..., tensors, arrays or lists, not {type(item).__name__}")


def _index_tensor(item: Tensor) -> Tensor:
    if item.dtype.kind not in ("int", "bool"):
        raise KilnIndexError(
            f"a tensor of {item.dtype} is no index: signed ints and bools are",
            operands=[item.ttype],
            fix="use .long() for positions, .bool() for a mask",
        )
    return item if item.dtype is T.bool_ else cast_to(item, T.int64)


def _constant(x: Tensor, array: np.ndarray[Any, Any]) -> Tensor:
    (made,) = OPS["constant"].bind((), {"data": Constant(np.array(array, order="C"))}, receiver=x)
    return cast("Tensor", made)


def _position(item: Any, n: int, dim: int) -> int:
    i = int(item)
    if not -n <= i < n:
        raise KilnIndexError(
            f"index {i} is out of range for dimension {dim} of size {n}", op="index", fix=f"use {-n} to {n - 1}"
        )
    return i % n


def _slice_bounds(item: slice, n: int) -> tuple[int, int, int]:
    step = 1 if item.step is None else int(item.step)
    if step <= 0:
        raise InvalidValueError(f"the step of a slice must be positive, got {step}", fix="use kiln.flip")
    start, stop, step = item.indices(n)
    return start, max(start, stop), step


# -------------------------------------------------------------------------------------- index tensors


def _without_masks(tensors: Sequence[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """Masks replaced by the index tensors of their nonzero elements."""
    found: list[tuple[int, Tensor]] = []
    for d, item in tensors:
        if item.dtype is not T.bool_:
            found.append((d, item))
            continue
        what = "a bool mask, whose ones say how many elements there are,"
        found += [(d + k, t) for k, t in enumerate(positions(item, what))]
    return found


def scheme(x: Tensor, tensors: Sequence[tuple[int, Tensor]]) -> tuple[list[Tensor], tuple[int, ...], tuple[int, ...]]:
    """Index tensors of one shape, and the attributes `at` and `place` of `ir/ops/gather.py`, for int64 tensors that
    index the dimensions of `x` that stand beside them."""
    try:
        shape = np.broadcast_shapes(*[i.shape for _, i in tensors])
    except ValueError:
        raise KilnIndexError(
            "index tensors can't be broadcast together", operands=[x.ttype, *[i.ttype for _, i in tensors]]
        ) from None
    numbers = [d for d, i in tensors if not i.ndim]
    indexed = [d for d, _ in tensors]
    visible = [d for d in range(x.ndim) if d not in numbers]
    ranked = [visible.index(d) for d in indexed if d not in numbers]
    beside = all(b == a + 1 for a, b in itertools.pairwise(ranked))
    start = ranked[0] if ranked and beside else 0
    place, kept = [], 0
    for d in range(x.ndim):
        if d in indexed:
            place.append(-1)
        else:
            place.append(kept if kept < start else kept + len(shape))
            kept += 1
    at = tuple(range(start, start + len(shape)))
    return [broadcast_to(i, shape) for _, i in tensors], at, tuple(place)


def _read(x: Tensor, tensors: Sequence[tuple[int, Tensor]]) -> Tensor:
    indices, at, place = scheme(x, _without_masks(tensors))
    return apply(_GATHER, x, *indices, at=at, place=place, wrap=True)


def _elements(
    table: tuple[int, ...], indices: Sequence[Tensor], at: tuple[int, ...], place: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of what is read or written."""
    shape = dict(zip(at, indices[0].shape, strict=True))
    shape.update({p: n for n, p in zip(table, place, strict=True) if p >= 0})
    return tuple([shape[p] for p in range(len(shape))])


def _fitted(x: Tensor, value: Operand, shape: tuple[int, ...]) -> Tensor:
    """`value` in x's dtype, broadcast to `shape`; leading dimensions of size one may be too many."""
    if not isinstance(value, TensorBase):
        return full_like_number(x, x.dtype, number(value), shape)
    cut = value.shape
    while len(cut) > len(shape) and cut[0] == 1:
        cut = cut[1:]
    pairs = zip(reversed(cut), reversed(shape), strict=False)
    if len(cut) > len(shape) or any(n not in (1, m) for n, m in pairs):
        raise ShapeError(f"a {value.ttype} does not fit what is written, of shape {list(shape)}", op="index_put_")
    if all(n == 1 for n in cut):
        value = transferred(value, x.device)
    same_place("index_put_", (x, value))
    cast_ = cast_to(cast("Tensor", value), x.dtype)
    return broadcast_to(cast_ if cut == value.shape else apply(_RESHAPE, cast_, shape=cut), shape)


def _masked(x: Tensor, d: int, mask: Tensor, value: Operand) -> tuple[Tensor, Tensor, Tensor] | None:
    """What `where` takes to put `value` where the mask holds, if `value` is the same for all of its ones; else None."""
    if mask.dtype is not T.bool_:
        return None
    after = x._layout.shape[d + max(1, mask.ndim) :]
    shape = value.shape if isinstance(value, TensorBase) else ()
    if len(shape) > len(after) and shape[-1 - len(after)] != 1:
        return None
    before = x._layout.shape[:d]
    one = _fitted(x, value, (*before, 1, *after))
    ones = (1,) * max(1, mask.ndim)
    spread = broadcast_to(apply(_RESHAPE, one, shape=(*before, *ones, *after)), x.shape)
    chosen = apply(_RESHAPE, mask, shape=(*(1,) * d, *(mask.shape or (1,)), *(1,) * len(after)))
    return broadcast_to(chosen, x.shape), spread, x
