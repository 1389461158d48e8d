"""Sequences of views and in-place writes, as `tests/golden/views.json` writes them: one player for torch (which makes
the table, `tests/tools/make_views.py`) and kiln (which is tested by it). Imports neither."""

from __future__ import annotations

from typing import Any


def view_of(x: Any, kind: str, args: list[Any]) -> Any:
    """A view (or whatever the method returns) of a tensor."""
    if kind == "index":
        return x[tuple(slice(*a) if isinstance(a, list) else ... if a == "..." else a for a in args)]
    return getattr(x, kind)(*args)


def write_to(tensors: list[Any], target: int, kind: str, args: list[Any]) -> None:
    """An in-place write; {"t": k} among the arguments is the k-th tensor."""
    x = tensors[target]
    values = [tensors[a["t"]] if isinstance(a, dict) else a for a in args]
    if kind == "put":
        index, value = values
        x[index] = value
    elif kind == "fill-above":
        x.masked_fill_(x > values[0], values[1])
    else:
        getattr(x, kind)(*values)


def compute(tensors: list[Any], kind: str, args: list[int]) -> Any:
    """An ordinary op on some of the tensors: its gradient may need what it read or made."""
    xs = [tensors[k] for k in args]
    if kind == "mul":
        return xs[0] * xs[1].sum()
    return getattr(xs[0], kind)()


def play(base: Any, steps: list[list[Any]], errors: tuple[type[Exception], ...]) -> tuple[list[Any], list[int]]:
    """All tensors of a sequence that starts with `base`, and the numbers of the writes that were refused."""
    tensors, refused = [base], []
    for number, (what, target, kind, args) in enumerate(steps):
        if what == "view":
            tensors.append(view_of(tensors[target], kind, args))
        elif what == "compute":
            tensors.append(compute(tensors, kind, args))
        else:
            try:
                write_to(tensors, target, kind, args)
            except errors:
                refused.append(number)
    return tensors, refused


def loss_of(leaf: Any, tensors: list[Any]) -> Any:
    """A number that depends on the leaf and on every tensor, each with a weight of its own."""
    total = leaf.sum()
    for k, t in enumerate(tensors, 2):
        total = total + t.sum() * (1.0 / k)
    return total
