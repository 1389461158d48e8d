"""`vmap`: a function of one element made one of a whole batch (the layer is `kiln.batched`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.batched import RANDOMNESS, BatchLayer
from kiln.errors import InvalidValueError
from kiln.pytree import LEAF, Tree, flatten, unflatten

__all__ = ["vmap"]

Function = Callable[..., Any]


def vmap(
    func: Function,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Function:
    """func of each element of a batch, computed for all at once.

    `in_dims`: which dimension of the arguments counts the elements: an int, or a tuple of one for each (None: the
    argument is the same for all), nested as the arguments are or less deeply. Inside func tensors look like one
    element. `out_dims`: where that dimension stands in the results. `randomness`: whether func may draw random numbers:
    "error", "same" for all elements, or "different" ones. `chunk_size`: how many elements to compute at once. Keyword
    arguments are the same for all elements.

    InvalidValueError for dimensions that do not fit; TransformError where func asks for data (`item()`, `bool()`) of a
    batched tensor, or writes batched values into a tensor that is not.

    >>> import kiln
    >>> kiln.vmap(kiln.dot)(kiln.tensor([[1.0, 2.0], [3.0, 4.0]]), kiln.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([1., 4.])
    """
    if randomness not in RANDOMNESS:
        raise InvalidValueError(f"randomness is {randomness!r}", op="vmap", fix=f"one of {', '.join(RANDOMNESS)}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise InvalidValueError(f"chunk_size is {chunk_size}", op="vmap", fix="a positive number, or None")

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = flatten((args, kwargs))
        dims = _in_dims(in_dims, args)
        dims += [None] * (len(leaves) - len(dims))
        size = _size(leaves, dims)
        moved = [x if d is None else M.movedim(x, d, 0) for x, d in zip(leaves, dims, strict=True)]
        places = [d is not None for d in dims]
        if chunk_size is None or chunk_size >= size:
            return _call(func, moved, places, tree, size, out_dims, randomness)
        return _chunked(func, moved, places, tree, size, out_dims, randomness, chunk_size)

    return run


def _in_dims(in_dims: Any, args: tuple[Any, ...]) -> list[int | None]:
    """For each leaf of the arguments the dimension that counts elements."""
    if not isinstance(in_dims, (int, tuple, list)) or isinstance(in_dims, bool):
        raise InvalidValueError(f"in_dims is a {type(in_dims).__name__}", op="vmap", fix="an int, or a tuple")
    if not args:
        raise InvalidValueError("the function was called without positional arguments", op="vmap")
    given = (in_dims,) * len(args) if isinstance(in_dims, int) else tuple(in_dims)
    if len(given) != len(args):
        raise InvalidValueError(f"in_dims {in_dims} does not fit {len(args)} arguments", op="vmap")
    found = [d for dim, x in zip(given, args, strict=True) for d in _spread(dim, flatten(x)[1], in_dims, "in_dims")]
    checked: list[int | None] = []
    for k, (x, d) in enumerate(zip(flatten(args)[0], found, strict=True)):
        if d is None:
            checked.append(None)
        elif not isinstance(x, TensorBase):
            raise InvalidValueError(
                f"in_dims takes dimension {d} of argument leaf {k}, a {type(x).__name__}", op="vmap",
                fix="give it None in in_dims",
            )  # fmt: skip
        elif not -x.ndim <= d < x.ndim:
            raise InvalidValueError(
                f"in_dims takes dimension {d} of a tensor of {x.ndim} dimensions", op="vmap", operands=[x.ttype]
            )
        else:
            checked.append(d % x.ndim)
    return checked


def _spread(dims: Any, tree: Tree, whole: Any, what: str) -> list[int | None]:
    """Dimensions for each leaf of `tree`, which `dims` is nested like, or less deeply."""
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool)):
        return [dims] * _count(tree)
    inner = flatten(dims)[1]
    if inner is LEAF:
        raise InvalidValueError(f"{what} holds a {type(dims).__name__}", op="vmap", fix="it holds ints and None")
    fits = len(inner.children) == len(tree.children) and (inner.kind is tree.kind or {inner.kind, tree.kind} <= {
        list, tuple
    })  # fmt: skip
    if not fits or (inner.kind is dict and set(inner.keys) != set(tree.keys)):
        raise InvalidValueError(f"{what} {whole} is not nested as what it is for", op="vmap")
    parts = [dims[k] for k in tree.keys] if inner.kind is dict else list(dims)
    return [d for part, child in zip(parts, tree.children, strict=True) for d in _spread(part, child, whole, what)]


def _count(tree: Tree) -> int:
    return 1 if tree.kind is None else sum(map(_count, tree.children))


def _size(leaves: Sequence[Any], dims: Sequence[int | None]) -> int:
    sizes = [x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None]
    if not sizes:
        raise InvalidValueError(
            "there is nothing to map over: every in_dim is None, or there are no tensors", op="vmap"
        )
    if len(set(sizes)) > 1:
        raise InvalidValueError(
            f"the mapped dimensions must have one size, got {sizes}", op="vmap",
            operands=[x.ttype for x, d in zip(leaves, dims, strict=True) if d is not None],
        )  # fmt: skip
    return int(sizes[0])


def _call(
    func: Function,
    leaves: Sequence[Any],
    places: Sequence[bool],
    tree: Tree,
    size: int,
    out_dims: Any,
    randomness: str,
) -> Any:
    """One call of `func` in a layer; `leaves` have the batch as dimension 0 where `places` says so."""
    with BatchLayer(size, randomness) as layer:
        given = [layer.wrap(x, True) if b else x for x, b in zip(leaves, places, strict=True)]
        args, kwargs = unflatten(tree, iter(given))
        found, out_tree = flatten(func(*args, **kwargs))
        opened = [layer.open(x) for x in found]
    dims = _out_dims(out_dims, out_tree)
    made = [_placed(x, batched, d, size) for (x, batched), d in zip(opened, dims, strict=True)]
    return unflatten(out_tree, iter(made))


def _out_dims(out_dims: Any, tree: Tree) -> list[int | None]:
    if tree.kind is None and isinstance(out_dims, tuple) and len(out_dims) == 1:
        return _spread(out_dims[0], tree, out_dims, "out_dims")
    return _spread(out_dims, tree, out_dims, "out_dims")


def _placed(x: Any, batched: bool, d: int | None, size: int) -> Any:
    """A result with the batch as dimension `d`."""
    if not isinstance(x, TensorBase) and d is not None:
        raise InvalidValueError(
            f"the function must return tensors, not a {type(x).__name__}", op="vmap", fix="give it None in out_dims"
        )
    if d is None:
        if batched:
            raise InvalidValueError(
                "the function returned a batched tensor where out_dims is None", op="vmap", operands=[x.ttype]
            )
        return x
    rank = x.ndim if batched else x.ndim + 1
    if not -rank <= d < rank:
        raise InvalidValueError(f"out_dims {d} is not a dimension of a result of {rank}", op="vmap", operands=[x.ttype])
    return M.movedim(x if batched else F.expand(x, (size, *x.shape)), 0, d)


def _chunked(
    func: Function,
    leaves: Sequence[Any],
    places: Sequence[bool],
    tree: Tree,
    size: int,
    out_dims: Any,
    randomness: str,
    chunk: int,
) -> Any:
    """Parts of the batch one after the other, their results joined."""
    columns: list[list[Any]] = []
    out_tree: Tree = LEAF
    for start in range(0, size, chunk):
        count = min(chunk, size - start)
        part = [M.narrow(x, 0, start, count) if b else x for x, b in zip(leaves, places, strict=True)]
        found, out_tree = flatten(_call(func, part, places, tree, count, out_dims, randomness))
        columns.append(found)
    dims = _out_dims(out_dims, out_tree)
    joined = [
        column[0] if d is None else F.cat(column, d) for column, d in zip(zip(*columns, strict=True), dims, strict=True)
    ]
    return unflatten(out_tree, iter(joined))
