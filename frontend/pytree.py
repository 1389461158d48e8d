"""Nested containers as a flat list of leaves and a shape to rebuild them: lists, tuples, named tuples, dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tree:
    """The structure of a nested container: `kind` None is a leaf; `keys` are those of a dict."""

    kind: type | None
    keys: tuple[Any, ...] = ()
    children: tuple[Tree, ...] = ()


LEAF = Tree(None)


def flatten(tree: Any) -> tuple[list[Any], Tree]:
    """The leaves in order and the structure. Anything that is not a container of the kinds above is a leaf.

    >>> from kiln.pytree import flatten, unflatten
    >>> leaves, shape = flatten({"a": 1, "b": [2, (3,)]})
    >>> leaves
    [1, 2, 3]
    >>> unflatten(shape, iter([4, 5, 6]))
    {'a': 4, 'b': [5, (6,)]}
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(x: Any, leaves: list[Any]) -> Tree:
    kind = type(x)
    if kind is dict:
        return Tree(dict, tuple(x), tuple(_flatten(v, leaves) for v in x.values()))
    if kind is list or kind is tuple or (isinstance(x, tuple) and hasattr(kind, "_fields")):
        return Tree(kind, (), tuple(_flatten(v, leaves) for v in x))
    leaves.append(x)
    return LEAF


def unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    """The container again, its leaves taken in order."""
    if tree.kind is None:
        return next(leaves)
    if tree.kind is dict:
        return {k: unflatten(c, leaves) for k, c in zip(tree.keys, tree.children, strict=True)}
    items = [unflatten(c, leaves) for c in tree.children]
    if tree.kind in (list, tuple):
        return tree.kind(items)
    return tree.kind(*items)


def containers(tree: Any) -> Iterator[Any]:
    """Every list and dict in it, itself included."""
    if type(tree) is dict:
        yield tree
        for v in tree.values():
            yield from containers(v)
    elif isinstance(tree, (list, tuple)):
        if type(tree) is list:
            yield tree
        for v in tree:
            yield from containers(v)


def map_tree(f: Callable[[Any], Any], tree: Any) -> Any:
    """The same container with `f` applied to every leaf."""
    leaves, shape = flatten(tree)
    return unflatten(shape, iter([f(x) for x in leaves]))
