"""Nested containers as a flat list of leaves and a shape to rebuild them: lists, tuples, named tuples, dicts, and
instances of data classes that have nothing but their fields."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tree:
    """The structure of a nested container: `kind` None is a leaf; `keys` are those of a dict, and `told` tells apart
    those that Python takes to be equal (1, 1.0 and True; 0.0 and -0.0)."""

    kind: type | None
    keys: tuple[Any, ...] = ()
    children: tuple[Tree, ...] = ()
    told: tuple[Any, ...] = ()


LEAF = Tree(None)


def flatten(tree: Any, containers: list[Any] | None = None, keep: Container[int] = ()) -> tuple[list[Any], Tree]:
    """The leaves in order and the structure. Anything that is not a container of the kinds above is a leaf, as is an
    instance of a data class whose id is in `keep`. Those containers that have an identity are added to `containers`.

    >>> from kiln.pytree import flatten, unflatten
    >>> leaves, shape = flatten({"a": 1, "b": [2, (3,)]})
    >>> leaves
    [1, 2, 3]
    >>> unflatten(shape, iter([4, 5, 6]))
    {'a': 4, 'b': [5, (6,)]}
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves, containers, keep)


def _flatten(x: Any, leaves: list[Any], containers: list[Any] | None, keep: Container[int]) -> Tree:
    kind = type(x)
    record = id(x) not in keep and is_record(x)
    if containers is not None and (kind is list or kind is dict or record):
        containers.append(x)
    if record:
        fields = vars(x)
        return Tree(kind, tuple(fields), tuple([_flatten(v, leaves, containers, keep) for v in fields.values()]))
    if kind is dict:
        children = tuple([_flatten(v, leaves, containers, keep) for v in x.values()])
        return Tree(dict, tuple(x), children, tuple([k if type(k) is str else _told(k) for k in x]))
    if kind is list or kind is tuple or is_named_tuple(x):
        return Tree(kind, (), tuple([_flatten(v, leaves, containers, keep) for v in x]))
    leaves.append(x)
    return LEAF


def _told(key: Any) -> Any:
    return (type(key), repr(key)) if isinstance(key, (float, complex)) else (type(key), key)


def is_record(x: Any) -> bool:
    """An instance of a data class (not the class itself) that has its fields and nothing else."""
    if not hasattr(type(x), "__dataclass_fields__"):
        return False
    fields = getattr(x, "__dict__", None)
    return not isinstance(x, type) and fields is not None and fields.keys() == type(x).__dataclass_fields__.keys()


def is_named_tuple(x: Any) -> bool:
    """A named tuple that has nothing but its fields."""
    return isinstance(x, tuple) and hasattr(type(x), "_fields") and not getattr(x, "__dict__", None)


def unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    """The container again, its leaves taken in order."""
    if tree.kind is None:
        return next(leaves)
    if tree.kind is dict:
        return {k: unflatten(c, leaves) for k, c in zip(tree.keys, tree.children, strict=True)}
    items = [unflatten(c, leaves) for c in tree.children]
    if tree.keys:
        made: Any = object.__new__(tree.kind)
        vars(made).update(zip(tree.keys, items, strict=True))
        return made
    if tree.kind in (list, tuple):
        return tree.kind(items)
    return tuple.__new__(tree.kind, items)  # its own __new__ may do more, and did it already


def map_tree(f: Callable[[Any], Any], tree: Any) -> Any:
    """The same container with `f` applied to every leaf."""
    leaves, shape = flatten(tree)
    return unflatten(shape, iter([f(x) for x in leaves]))
