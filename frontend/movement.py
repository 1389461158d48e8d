"""Functions that move elements and compute nothing: parts, joins, repetitions, diagonals, windows.

What PyTorch returns as a view is a view here: writes through it reach its source, captured or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from kiln import dispatch
from kiln import functional as F
from kiln.base import MODES, REQUIRES_GRAD, TensorBase, layout_of
from kiln.errors import InvalidValueError, NotYetError, ShapeError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, broadcast_shapes, full_like_number, tensor_arg
from kiln.promotion import broadcast_to as _stretch
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "adjoint", "as_strided", "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors",
    "broadcast_to", "cartesian_prod", "chunk", "column_stack", "concat", "concatenate", "diag", "diag_embed",
    "diagflat", "diagonal", "dsplit", "dstack", "expand_as", "flip", "fliplr", "flipud", "hsplit", "hstack", "meshgrid",
    "moveaxis", "movedim", "narrow", "ravel", "repeat", "repeat_interleave", "reshape_as", "roll", "rot90", "select",
    "split", "swapaxes", "swapdims", "tensor_split", "tile", "trace", "tril", "triu", "unbind", "unflatten", "unfold",
    "view_as", "vsplit", "vstack",
]  # fmt: skip

_SLICE, _RESHAPE, _REVERSE, _AFFINE = OPS["slice"], OPS["reshape"], OPS["reverse"], OPS["affine"]
Tensors = Sequence[TensorBase]


# ---------------------------------------------------------------------------------------------- parts


def _part(x: Tensor, d: int, start: int, length: int) -> Tensor:
    """`length` slices of dimension `d` from `start` on, as a view."""
    starts, stops = [0] * x.ndim, list(x.shape)
    starts[d], stops[d] = start, start + length
    return apply(_SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)


def _some(name: str, input: object) -> Tensor:
    """A tensor with at least one dimension."""
    x = tensor_arg(name, input)
    if not x.ndim:
        raise ShapeError("needs at least one dimension", op=name, operands=[x.ttype])
    return x


@numpy_names
def narrow(input: TensorBase, dim: int, start: int | TensorBase, length: int) -> Tensor:
    """`length` slices of `dim` from `start` on; a view. ShapeError where they do not fit."""
    x = _some("narrow", input)
    d = F.dim_index("narrow", dim, x.ndim)
    n, first = x.shape[d], int(start)
    if first < 0:
        first += n
    if length < 0 or not 0 <= first <= n - length:
        raise ShapeError(f"{length} slices from {start} on do not fit size {n}", op="narrow", operands=[x.ttype])
    return _part(x, d, first, length)


@numpy_names
def select(input: TensorBase, dim: int, index: int) -> Tensor:
    """The slice `index` of `dim`, which goes; a view."""
    x = _some("select", input)
    d = F.dim_index("select", dim, x.ndim)
    return x[(*[slice(None)] * d, int(index))]


@numpy_names
def unbind(input: TensorBase, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices of `dim`, which goes; views."""
    x = _some("unbind", input)
    d = F.dim_index("unbind", dim, x.ndim)
    return tuple([select(x, d, i) for i in range(x.shape[d])])


@numpy_names
def split(tensor: TensorBase, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of `dim` of a given size (the last one may be smaller), or of given sizes that sum up; views."""
    x = _some("split", tensor)
    d = F.dim_index("split", dim, x.ndim)
    n = x.shape[d]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size < 0 or (size == 0 and n):
            raise InvalidValueError(f"the size of parts must be positive, got {size}", op="split")
        sizes = [min(size, n - at) for at in range(0, n, size)] if n else [0]
    else:
        sizes = [int(s) for s in split_size_or_sections]
        if sum(sizes) != n or any(s < 0 for s in sizes):
            raise InvalidValueError(f"sizes {sizes} do not sum up to {n}", op="split")
    starts = np.cumsum([0, *sizes]).tolist()
    return tuple([_part(x, d, a, s) for a, s in zip(starts, sizes, strict=False)])


@numpy_names
def chunk(input: TensorBase, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of `dim`, all of the same size but the last; views."""
    x = _some("chunk", input)
    d = F.dim_index("chunk", dim, x.ndim)
    if chunks < 1:
        raise InvalidValueError(f"chunks must be positive, got {chunks}", op="chunk")
    n = x.shape[d]
    return split(x, -(-n // chunks), d) if n else tuple([_part(x, d, 0, 0) for _ in range(chunks)])


def tensor_split(input: TensorBase, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts of `dim`, the first ones larger by one where needed; or the parts between given indices; views."""
    x = _some("tensor_split", input)
    d = F.dim_index("tensor_split", dim, x.ndim)
    n = x.shape[d]
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1:
            raise InvalidValueError(f"sections must be positive, got {indices_or_sections}", op="tensor_split")
        small, more = divmod(n, indices_or_sections)
        return split(x, [small + (k < more) for k in range(indices_or_sections)], d)
    ends = [slice(None, int(i)).indices(n)[1] for i in indices_or_sections] + [n]
    starts = [0, *ends[:-1]]
    return tuple([_part(x, d, a, max(0, b - a)) for a, b in zip(starts, ends, strict=True)])


def _split_along(name: str, dim: int, least: int) -> Callable[..., tuple[Tensor, ...]]:
    def function(input: TensorBase, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        x = tensor_arg(name, input)
        if x.ndim < least:
            raise ShapeError(f"needs at least {least} dimensions", op=name, operands=[x.ttype])
        d = 0 if x.ndim == 1 else dim
        if isinstance(indices_or_sections, int) and (indices_or_sections < 1 or x.shape[d] % indices_or_sections):
            raise InvalidValueError(f"size {x.shape[d]} has no {indices_or_sections} equal parts", op=name)
        return tensor_split(x, indices_or_sections, d)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`tensor_split` along dimension {dim}" + (" (0 of a vector)." if least == 1 else ".")
    return function


hsplit: Final = _split_along("hsplit", 1, 1)
vsplit: Final = _split_along("vsplit", 0, 2)
dsplit: Final = _split_along("dsplit", 2, 3)


# ---------------------------------------------------------------------------------------- dimensions


@numpy_names
def movedim(input: TensorBase, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places, the others kept in order; a view."""
    x = tensor_arg("movedim", input)
    pairs = [[v] if isinstance(v, int) else list(v) for v in (source, destination)]
    froms, tos = ([F.dim_index("movedim", d, x.ndim) for d in dims] for dims in pairs)
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise InvalidValueError(f"{source} can't be moved to {destination}", op="movedim")
    moved = dict(zip(tos, froms, strict=True))
    rest = iter([d for d in range(x.ndim) if d not in froms])
    return F.permute(x, tuple([moved[d] if d in moved else next(rest) for d in range(x.ndim)]))


moveaxis = movedim


def swapaxes(input: TensorBase, axis0: int, axis1: int) -> Tensor:
    """`transpose`."""
    return F.transpose(input, axis0, axis1)


def swapdims(input: TensorBase, dim0: int, dim1: int) -> Tensor:
    """`transpose`."""
    return F.transpose(input, dim0, dim1)


def adjoint(input: TensorBase) -> Tensor:
    """The last two dimensions exchanged and conjugated; of real numbers a view."""
    x = F.transpose(input, -2, -1)
    return apply(OPS["conj"], x) if x.dtype.is_complex else x


def ravel(input: TensorBase) -> Tensor:
    """As a vector, row-major; a view where strides allow it."""
    return F.reshape(input, (-1,))


@numpy_names
def unflatten(input: TensorBase, dim: int, sizes: Sequence[int]) -> Tensor:
    """`dim` as several dimensions of `sizes` (one may be -1); a view."""
    x = _some("unflatten", input)
    d = F.dim_index("unflatten", dim, x.ndim)
    wanted = [int(n) for n in sizes]
    known = math.prod([n for n in wanted if n != -1])
    if wanted.count(-1) == 1 and known > 0 and x.shape[d] % known == 0:
        wanted[wanted.index(-1)] = x.shape[d] // known
    if not wanted or math.prod(wanted) != x.shape[d] or any(n < 0 for n in wanted):
        raise ShapeError(f"sizes {list(sizes)} do not multiply up to {x.shape[d]}", op="unflatten", operands=[x.ttype])
    return apply(_RESHAPE, x, shape=(*x.shape[:d], *wanted, *x.shape[d + 1 :]))


def broadcast_to(input: TensorBase, size: Sequence[int]) -> Tensor:
    """`expand`."""
    return F.expand(input, tuple(size))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All stretched to their common shape; views."""
    parts = _several("broadcast_tensors", tensors)
    if not parts:
        return ()
    shape = broadcast_shapes("broadcast_tensors", *parts)
    return tuple([_stretch(x, shape) for x in parts])


def _several(name: str, tensors: Sequence[Any]) -> list[Tensor]:
    """Tensors given as f(a, b) or f([a, b])."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tensors[0]
    return [tensor_arg(name, x) for x in tensors]


def expand_as(input: TensorBase, other: TensorBase) -> Tensor:
    """`expand` to the shape of `other`."""
    return F.expand(input, other.shape)


def view_as(input: TensorBase, other: TensorBase) -> Tensor:
    """`view` in the shape of `other`."""
    return F.view(input, other.shape)


def reshape_as(input: TensorBase, other: TensorBase) -> Tensor:
    """`reshape` to the shape of `other`."""
    return F.reshape(input, other.shape)


def _at_least(name: str, grow: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def function(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], TensorBase):
            return grow(tensor_arg(name, tensors[0]))
        return tuple([grow(x) for x in _several(name, tensors)])

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Tensors with dimensions of size one added where they have too few; one, or a tuple of several."
    return function


def _grow_2d(x: Tensor) -> Tensor:
    return x if x.ndim > 1 else F.reshape(x, (1, -1))


def _grow_3d(x: Tensor) -> Tensor:
    return x if x.ndim > 2 else F.unsqueeze(x, -1) if x.ndim == 2 else F.reshape(x, (1, -1, 1))


atleast_1d: Final = _at_least("atleast_1d", lambda x: x if x.ndim else F.reshape(x, (1,)))
atleast_2d: Final = _at_least("atleast_2d", _grow_2d)
atleast_3d: Final = _at_least("atleast_3d", _grow_3d)


# --------------------------------------------------------------------------------------------- joins


@numpy_names
def concat(tensors: Tensors, dim: int = 0) -> Tensor:
    """`cat`."""
    return F.cat(tensors, dim)


concatenate = concat


def hstack(tensors: Tensors) -> Tensor:
    """Joined along dimension 1 (0 for vectors and numbers)."""
    parts = [atleast_1d(tensor_arg("hstack", x)) for x in tensors]
    return F.cat(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Tensors) -> Tensor:
    """Joined along dimension 0; vectors and numbers are rows."""
    return F.cat([atleast_2d(tensor_arg("vstack", x)) for x in tensors], 0)


def dstack(tensors: Tensors) -> Tensor:
    """Joined along dimension 2, as `atleast_3d` makes it."""
    return F.cat([atleast_3d(tensor_arg("dstack", x)) for x in tensors], 2)


def column_stack(tensors: Tensors) -> Tensor:
    """Joined along dimension 1; vectors and numbers are columns."""
    parts = [tensor_arg("column_stack", x) for x in tensors]
    return F.cat([F.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in parts], 1)


def block_diag(*tensors: TensorBase) -> Tensor:
    """Matrices (vectors: rows) along the diagonal of a larger one, zeros elsewhere."""
    blocks = [_grow_2d(tensor_arg("block_diag", x)) for x in tensors]
    if any(b.ndim > 2 for b in blocks):
        raise ShapeError("blocks must have at most 2 dimensions", op="block_diag", operands=[b.ttype for b in blocks])
    width, at, rows = sum([b.shape[1] for b in blocks]), 0, []
    for b in blocks:
        n, m = b.shape
        left, right = (full_like_number(b, b.dtype, 0, (n, k)) for k in (at, width - at - m))
        rows.append(F.cat([left, b, right], 1))
        at += m
    return F.cat(rows, 0)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Each vector along a dimension of its own, stretched along the others; with indexing="xy" the first two
    dimensions exchanged. Views."""
    parts = _several("meshgrid", tensors)
    if indexing not in ("ij", "xy"):
        raise InvalidValueError(f'indexing must be "ij" or "xy", got {indexing!r}', op="meshgrid")
    if any(x.ndim > 1 for x in parts):
        raise ShapeError("expects vectors", op="meshgrid", operands=[x.ttype for x in parts])
    turn = indexing == "xy" and len(parts) > 1
    if turn:
        parts[:2] = parts[1::-1]
    shape = tuple([x.numel() for x in parts])
    ones = [1] * len(parts)
    made = [_stretch(F.reshape(x, (*ones[:k], shape[k], *ones[k + 1 :])), shape) for k, x in enumerate(parts)]
    if turn:
        made[:2] = made[1::-1]
    return tuple(made)


def cartesian_prod(*tensors: TensorBase) -> Tensor:
    """All combinations of elements of vectors, one per row, the last one changing fastest; of one vector: itself."""
    parts = _several("cartesian_prod", tensors)
    if len(parts) == 1:
        return parts[0]
    return F.stack([ravel(x) for x in meshgrid(*parts)], 1)


# --------------------------------------------------------------------------------- order, repetition


@numpy_names
def flip(input: TensorBase, *dims: Any) -> Tensor:
    """The elements along `dims` in reverse order (a copy)."""
    x = tensor_arg("flip", input)
    each = [F.dim_index("flip", d, x.ndim) for d in F.size_tuple("flip", dims)]
    if len(set(each)) != len(each):
        raise InvalidValueError(f"dimension {each} appears twice", op="flip")
    return apply(_REVERSE, x, dims=tuple(each) if x.ndim else ())


def fliplr(input: TensorBase) -> Tensor:
    """Dimension 1 in reverse order."""
    if tensor_arg("fliplr", input).ndim < 2:
        raise ShapeError("needs at least 2 dimensions", op="fliplr", operands=[input.ttype])
    return flip(input, 1)


def flipud(input: TensorBase) -> Tensor:
    """Dimension 0 in reverse order."""
    return flip(_some("flipud", input), 0)


@numpy_names
def roll(input: TensorBase, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved on by `shifts` along `dims`, what leaves the end coming in at the start; without `dims` along
    the flattened tensor."""
    x = tensor_arg("roll", input)
    if dims is None:
        if not isinstance(shifts, int):
            raise InvalidValueError("several shifts need dims", op="roll")
        return F.reshape(roll(F.reshape(x, (-1,)), shifts, 0), x.shape)
    moves = [shifts] if isinstance(shifts, int) else list(shifts)
    along = [dims] if isinstance(dims, int) else list(dims)
    if len(moves) != len(along):
        raise InvalidValueError(f"{len(moves)} shifts for {len(along)} dims", op="roll")
    result = x
    for move, dim in zip(moves, along, strict=True):
        d = F.dim_index("roll", dim, x.ndim)
        n = x.shape[d] if x.ndim else 0
        if n and move % n:
            at = n - move % n
            result = F.cat([_part(result, d, at, n - at), _part(result, d, 0, at)], d)
    return F.clone(x) if result is x else result


def rot90(input: TensorBase, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned `k` times by 90 degrees in the plane of two dimensions, from the first towards the second."""
    x = tensor_arg("rot90", input)
    if len(dims) != 2:
        raise InvalidValueError(f"needs two dimensions, got {list(dims)}", op="rot90")
    a, b = (F.dim_index("rot90", d, x.ndim) for d in dims)
    if a == b:
        raise InvalidValueError("needs two different dimensions", op="rot90")
    turns = k % 4
    if turns == 0:
        return F.clone(x)
    if turns == 2:
        return flip(x, a, b)
    return F.transpose(flip(x, b), a, b) if turns == 1 else flip(F.transpose(x, a, b), b)


def repeat(input: TensorBase, *sizes: Any) -> Tensor:
    """The whole tensor repeated: so many times along each dimension, new ones in front (a copy)."""
    x, times = tensor_arg("repeat", input), F.size_tuple("repeat", sizes)
    if len(times) < x.ndim or any(n < 0 for n in times):
        raise ShapeError(f"can't be repeated {list(times)} times", op="repeat", operands=[x.ttype])
    shape = (*[1] * (len(times) - x.ndim), *x.shape)
    pairs = [m for pair in zip(times, shape, strict=True) for m in pair]
    once = F.reshape(x, tuple([m for n in shape for m in (1, n)]))
    result = tuple([n * m for n, m in zip(times, shape, strict=True)])
    return F.reshape(F.clone(_stretch(once, tuple(pairs))), result)


@numpy_names
def tile(input: TensorBase, *dims: Any) -> Tensor:
    """As `repeat`; leading ones may be left out."""
    x, times = tensor_arg("tile", input), F.size_tuple("tile", dims)
    return repeat(x, (*[1] * (x.ndim - len(times)), *times))


def repeat_interleave(
    input: TensorBase, repeats: int | TensorBase, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each slice of `dim` (default: of the flattened tensor) repeated in place, all equally often or by a vector of
    int64. CaptureError for a vector in a capture: the result's size is data."""
    x = tensor_arg("repeat_interleave", input)
    if dim is None:
        x, d = F.reshape(x, (-1,)), 0
    else:
        d = F.dim_index("repeat_interleave", dim, x.ndim)
    n = x.shape[d]
    if isinstance(repeats, TensorBase):
        times = tensor_arg("repeat_interleave", repeats)
        if times.dtype is not T.int64 or times.ndim > 1 or times.numel() not in (1, n):
            raise ShapeError(f"repeats must be {n} int64 numbers", op="repeat_interleave", operands=[times.ttype])
        counts = np.broadcast_to(times._read("repeat_interleave() by a tensor"), (n,))
        if (counts < 0).any():
            raise InvalidValueError("repeats must not be negative", op="repeat_interleave")
        source = np.repeat(np.arange(n), counts)
        if output_size is not None and output_size != len(source):
            raise InvalidValueError(f"output_size is {output_size}, not {len(source)}", op="repeat_interleave")
        return x[(*[slice(None)] * d, source)]
    if repeats < 0:
        raise InvalidValueError(f"repeats must not be negative, got {repeats}", op="repeat_interleave")
    wide = _stretch(F.unsqueeze(x, d + 1), (*x.shape[: d + 1], repeats, *x.shape[d + 1 :]))
    return F.reshape(F.clone(wide), (*x.shape[:d], n * repeats, *x.shape[d + 1 :]))


# --------------------------------------------------------------------------- diagonals, triangles, windows


def diagonal(input: TensorBase, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements at (i, i + offset) of two dimensions, as the last one; a view."""
    return _diagonal(tensor_arg("diagonal", input), offset, dim1, dim2)


def _diagonal(x: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    a, b = F.dim_index("diagonal", dim1, x.ndim), F.dim_index("diagonal", dim2, x.ndim)
    if a == b:
        raise InvalidValueError("needs two different dimensions", op="diagonal")
    starts = [0] * x.ndim
    starts[a], starts[b] = max(-offset, 0), max(offset, 0)
    length = max(0, min(x.shape[a] - starts[a], x.shape[b] - starts[b]))
    others = [d for d in range(x.ndim) if d not in (a, b)]
    steps = [[int(d == o) for o in others] + [int(d in (a, b))] for d in range(x.ndim)]
    if not length:
        starts = [0] * x.ndim
    return _windows(x, (*[x.shape[d] for d in others], length), starts, steps)


def _windows(x: Tensor, shape: tuple[int, ...], starts: Sequence[int], steps: Sequence[Sequence[int]]) -> Tensor:
    return apply(_AFFINE, x, shape=shape, starts=tuple(starts), steps=tuple([s for row in steps for s in row]))


def diag(input: TensorBase, diagonal: int = 0) -> Tensor:
    """A matrix with a vector on a diagonal (0: the main one, positive: above), or a copy of a matrix's diagonal."""
    x = tensor_arg("diag", input)
    if x.ndim == 1:
        return diag_embed(x, diagonal)
    if x.ndim != 2:
        raise ShapeError("expects a vector or a matrix", op="diag", operands=[x.ttype])
    return F.clone(_diagonal(x, diagonal, 0, 1))


def diagflat(input: TensorBase, offset: int = 0) -> Tensor:
    """A matrix with the flattened tensor on a diagonal."""
    return diag_embed(ravel(input), offset)


def diag_embed(input: TensorBase, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last dimension on a diagonal of two new ones, zeros elsewhere."""
    x = _some("diag_embed", input)
    rank, size = x.ndim + 1, x.shape[-1] + abs(offset)
    a, b = F.dim_index("diag_embed", dim1, rank), F.dim_index("diag_embed", dim2, rank)
    if a == b:
        raise InvalidValueError("needs two different dimensions", op="diag_embed")
    lead = x.ndim - 1
    zeros = full_like_number(x, x.dtype, 0, (*x.shape[:-1], size, size))
    starts = [0] * lead + [max(-offset, 0), max(offset, 0)]
    steps = [[int(d == j) for j in range(lead)] + [int(d >= lead)] for d in range(rank)]
    flat = tuple([s for row in steps for s in row])
    made = apply(OPS["affine_scatter"], zeros, x, starts=tuple(starts), steps=flat)
    return movedim(made, (-2, -1), (a, b))


def trace(input: TensorBase) -> Tensor:
    """The sum of a matrix's diagonal."""
    x = tensor_arg("trace", input)
    if x.ndim != 2:
        raise ShapeError("expects a matrix", op="trace", operands=[x.ttype])
    return F.sum(diagonal(x))


def tril(input: TensorBase, diagonal: int = 0) -> Tensor:
    """Zeros above a diagonal (0: the main one, positive: above) of the last two dimensions."""
    return _triangle("tril", input, diagonal, OPS["le"])


def triu(input: TensorBase, diagonal: int = 0) -> Tensor:
    """Zeros below a diagonal (0: the main one, positive: above) of the last two dimensions."""
    return _triangle("triu", input, diagonal, OPS["ge"])


def _triangle(name: str, input: TensorBase, offset: int, keeps: Any) -> Tensor:
    x = tensor_arg(name, input)
    if x.ndim < 2:
        raise ShapeError("needs at least 2 dimensions", op=name, operands=[x.ttype])
    shape = x.shape[-2:]
    row, column = (OPS["iota"].bind((), {"shape": shape, "dtype": T.int64, "dim": d}, receiver=x)[0] for d in (0, 1))
    kept = apply(keeps, F.sub(column, row), full_like_number(x, T.int64, offset, shape))
    return F.where(_stretch(kept, x.shape), x, full_like_number(x, x.dtype, 0))


def unfold(input: TensorBase, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements along a dimension, `step` apart, as a new last dimension; a view. (The method
    Tensor.unfold.)"""
    x = tensor_arg("unfold", input)
    d = F.dim_index("unfold", dimension, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if step < 1 or not 0 <= size <= n:
        raise InvalidValueError(f"windows of {size}, {step} apart, do not fit size {n}", op="unfold")
    if not x.ndim:
        return F.reshape(x, (1,))[:size]
    shape = (*x.shape[:d], (n - size) // step + 1, *x.shape[d + 1 :], size)
    steps = [[(step if k == d else 1) if k == j else 0 for j in range(x.ndim)] + [int(k == d)] for k in range(x.ndim)]
    return _windows(x, shape, [0] * x.ndim, steps)


def as_strided(
    input: TensorBase, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """Any strides (in elements) over the memory of a tensor; a view, without gradients. CaptureError in a capture."""
    x = tensor_arg("as_strided", input)
    if MODES.recorder is not None:
        MODES.recorder.reject("as_strided(): a view by strides of memory can't be captured", fix="index, or use unfold")
    if MODES.grad_enabled and x._flags & REQUIRES_GRAD:
        raise NotYetError("has no gradient", op="as_strided", fix="use unfold or diagonal, or detach()")
    if len(size) != len(stride) or any(n < 0 for n in (*size, *stride)):
        raise InvalidValueError(f"size {list(size)} and strides {list(stride)} do not fit", op="as_strided")
    offset = x.storage_offset() if storage_offset is None else storage_offset
    last = offset + sum([(n - 1) * s for n, s in zip(size, stride, strict=True)])
    if offset < 0 or (0 not in size and (last + 1) * x.element_size() > x._buffer.nbytes):
        raise InvalidValueError(f"elements {offset}..{last} lie outside the memory", op="as_strided")
    ptr = x._buffer.ptr + offset * x.element_size()
    layout = layout_of(x.dtype, tuple(size), tuple(stride), x.device)
    return cast("Tensor", dispatch.tensor_on(x._buffer, ptr, layout, x._flags & ~REQUIRES_GRAD))
