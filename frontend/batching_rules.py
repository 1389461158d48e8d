"""How each op is applied to a whole batch: the rules of `vmap`.

A rule gets the op, its operands (those of the layers below), which of them are batched, the size of the batch and the
attributes, and gives results that are batched. The batch is dimension 0 wherever there is one. The ops that a rule
applies are such that each element's result has the bits that the op alone would give it: an order of accumulation
depends on what is reduced (NUMERICS: `ir/order.py`), and the batch is never that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from kiln.ir.graph import Attrs
from kiln.ir.ops.affine import step_matrix
from kiln.ir.ops.base import OPS, OpDef, ints_attr

Rule: TypeAlias = Callable[[OpDef, Sequence[Any], Sequence[bool], int, Attrs], tuple[Any, ...]]

_BROADCAST, _RESHAPE, _PERMUTE, _SLICE, _CAT = (OPS[n] for n in ("broadcast", "reshape", "permute", "slice", "cat"))


def spread(x: Any, batched: bool, size: int) -> Any:
    """`x` with the batch as dimension 0: repeated (strides 0) where it is the same for all elements."""
    if batched:
        return x
    shape = x.ttype.shape
    return _BROADCAST(x, shape=(size, *shape), dims=tuple(range(1, 1 + len(shape))))


def _all(xs: Sequence[Any], batched: Sequence[bool], size: int) -> list[Any]:
    return [spread(x, b, size) for x, b in zip(xs, batched, strict=True)]


def leading(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    """The op takes any leading dimensions, or works element by element."""
    return op.bind(_all(xs, batched, size), attrs)


def _shifted(*keys: str) -> Rule:
    """The op's attributes of these names are dimensions (one or a tuple)."""

    def rule(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
        new: dict[str, Any] = dict(attrs)
        for key in keys:
            value: Any = attrs[key]
            new[key] = tuple([d + 1 for d in value]) if isinstance(value, tuple) else value + 1
        return op.bind(_all(xs, batched, size), new)

    return rule


def loop(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    """The op on each element, one after the other: for what has no rule."""
    rows = []
    for k in range(size):
        rows.append(op.bind([_row(x, k) if b else x for x, b in zip(xs, batched, strict=True)], attrs))
    return tuple([stacked(column) for column in zip(*rows, strict=True)])


def _row(x: Any, k: int) -> Any:
    shape = x.ttype.shape
    part = _SLICE(x, starts=(k, *[0] * (len(shape) - 1)), stops=(k + 1, *shape[1:]), steps=(1,) * len(shape))
    return _RESHAPE(part, shape=shape[1:])


def stacked(rows: Sequence[Any]) -> Any:
    """Tensors of one type one beside the other along a new dimension 0."""
    return _CAT(*[_RESHAPE(r, shape=(1, *r.ttype.shape)) for r in rows], dim=0)


# ------------------------------------------------------------------------------------------ movement


def _reshape(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    return op.bind(xs, {"shape": (size, *ints_attr(attrs, "shape"))})


def _permute(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    return op.bind(xs, {"dims": (0, *[d + 1 for d in ints_attr(attrs, "dims")])})


def _broadcast(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    dims = (0, *[d + 1 for d in ints_attr(attrs, "dims")])
    return op.bind(xs, {"shape": (size, *ints_attr(attrs, "shape")), "dims": dims})


def _slice(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    starts, stops, steps = (ints_attr(attrs, k) for k in ("starts", "stops", "steps"))
    new: Attrs = {"starts": (0, *starts), "stops": (size, *stops), "steps": (1, *steps)}
    return op.bind(_all(xs, batched, size), new)


def _affine(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    """One more dimension of table and elements, walked along by itself."""
    starts = ints_attr(attrs, "starts")
    if "shape" in attrs:
        width = len(ints_attr(attrs, "shape"))
    else:
        width = len(xs[1].ttype.shape) - int(batched[1])
    rows = step_matrix(attrs, len(starts)) if width else [()] * len(starts)
    steps = [1, *[0] * width, *[s for row in rows for s in (0, *row)]]
    new: dict[str, Any] = {"starts": (0, *starts), "steps": tuple(steps)}
    if "shape" in attrs:
        new["shape"] = (size, *ints_attr(attrs, "shape"))
    return op.bind(_all(xs, batched, size), new)


# ------------------------------------------------------------------------------- reading at indices


def _at_indices(tables: int) -> Rule:
    """`gather` (one table) and the scatters (table and elements): the batch is one more dimension of the table, which
    the elements walk along, and which index tensors share if they are batched."""

    def rule(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
        at, place = ints_attr(attrs, "at"), ints_attr(attrs, "place")
        own, indices = any(batched[tables:]), list(xs[tables:])
        if own:
            indices = _all(indices, batched[tables:], size)
        moved = tuple([a + 1 for a in at])
        shifted = tuple([p + 1 if p >= 0 else p for p in place])
        if tables == 1 and not batched[0]:  # all read one table: no dimension of it is the batch
            new = {**attrs, "at": (0, *moved), "place": shifted}
            return op.bind([xs[0], *indices], new)
        new = {**attrs, "at": (0, *moved) if own else moved, "place": (0, *shifted)}
        return op.bind([*_all(xs[:tables], batched[:tables], size), *indices], new)

    return rule


# ------------------------------------------------------------------------------- images and windows


def _into(x: Any, dim: int, size: int) -> Any:
    """The batch (dimension 0) folded into dimension `dim` of the element, ahead of it."""
    shape = x.ttype.shape
    rank = len(shape)
    order = (*range(1, dim + 1), 0, *range(dim + 1, rank))
    moved = x if dim == 0 else _PERMUTE(x, dims=order)
    return _RESHAPE(moved, shape=(*shape[1 : dim + 1], size * shape[dim + 1], *shape[dim + 2 :]))


def _out_of(y: Any, dim: int, size: int) -> Any:
    """What `_into` folded, as dimension 0 again."""
    shape = y.ttype.shape
    split = _RESHAPE(y, shape=(*shape[:dim], size, shape[dim] // size, *shape[dim + 1 :]))
    if dim == 0:
        return split
    return _PERMUTE(split, dims=(dim, *range(dim), *range(dim + 1, len(shape) + 1)))


def _images(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    """The op works on each image (or sequence) alone: more of them."""
    if not size:
        return loop(op, xs, batched, size, attrs)
    images = [_into(x, 0, size) for x in _all(xs, batched, size)]
    return tuple([_out_of(y, 0, size) for y in op.bind(images, attrs)])


def _convolution(op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs) -> tuple[Any, ...]:
    """Batched images alone are more images. Weights of their own make groups of their own."""
    if not batched[1]:
        (y,) = op.bind([_into(xs[0], 0, size), xs[1]], attrs)
        return (_out_of(y, 0, size),)
    images, weight = spread(xs[0], batched[0], size), xs[1]
    groups: Any = attrs["groups"]
    (y,) = op.bind([_into(images, 1, size), _into(weight, 0, size)], {**attrs, "groups": size * groups})
    return (_out_of(y, 1, size),)


def _convolution_weight(
    op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs
) -> tuple[Any, ...]:
    """The sum goes over images, so elements are groups of their own."""
    groups: Any = attrs["groups"]
    x, g = _all(xs, batched, size)
    (y,) = op.bind([_into(x, 1, size), _into(g, 1, size)], {**attrs, "groups": size * groups})
    return (_out_of(y, 0, size),)


def _depthwise_weight(
    op: OpDef, xs: Sequence[Any], batched: Sequence[bool], size: int, attrs: Attrs
) -> tuple[Any, ...]:
    """Channels are last here, and each is alone: more channels."""
    x, g = _all(xs, batched, size)
    (y,) = op.bind([_into(x, 3, size), _into(g, 3, size)], attrs)
    return (_out_of(y, 2, size),)


# ------------------------------------------------------------------------------------------ the table

RULES: Final[dict[str, Rule]] = {
    **{name: leading for name, op in OPS.items() if "elementwise" in op.traits},
    **{name: _shifted("dims") for name, op in OPS.items() if "reduction" in op.traits},
    **dict.fromkeys(("reverse", "fft", "rfft", "irfft"), _shifted("dims")),
    **dict.fromkeys(("cat", "cumsum", "recur", "cumargmax"), _shifted("dim")),
    **dict.fromkeys(
        ("detach", "matmul", "addmm", "pick", "argsort", "topk", "searchsorted", "view_as_real", "view_as_complex"),
        leading,
    ),
    **dict.fromkeys(("inv", "solve", "triangular_solve", "cholesky", "lu_factor", "lu_permutation"), leading),
    **dict.fromkeys(("qr", "qr_complete", "eigh", "svd", "eig", "det", "slogdet", "pinv", "matrix_exp"), leading),
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    **dict.fromkeys(("slice", "slice_scatter"), _slice),
    **dict.fromkeys(("affine", "affine_scatter", "affine_scatter_add"), _affine),
    "gather": _at_indices(1),
    **{name: _at_indices(2) for name in OPS if name.startswith("scatter")},
    **dict.fromkeys(("conv2d", "conv2d_direct", "conv2d_input", "conv2d_input_direct"), _convolution),
    "conv2d_weight": _convolution_weight,
    "depthwise_weight": _depthwise_weight,
    **dict.fromkeys(("max_pool2d", "max_pool2d_index", "max_pool2d_input"), _images),
    **dict.fromkeys(("sum_pool2d", "sum_pool2d_input", "attention", "attention_backward"), _images),
}
"""By op. What is missing is applied to each element (`loop`): the random ops, where elements have generators of their
own. Ops without operands are not batched, `fusion` is codegen's, and functions of control flow run as they are inside
transforms (`control_layers.py`)."""
