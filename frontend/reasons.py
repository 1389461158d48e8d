"""Why a call of a compiled function is captured again: which argument differs, and where."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from kiln.base import READONLY, REQUIRES_GRAD
from kiln.pytree import Tree


def leaf_names(function: Callable[..., Any], tree: Tree) -> list[str]:
    """What the leaves of (args, kwargs), nested like `tree`, are called: `x`, `batch['image']`, `pair[0]`."""
    positional, named = tree.children
    names: list[str] = []
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a callable of C that has none
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    for k, child in enumerate(positional.children):
        names += paths(child, plain[k] if k < len(plain) else f"{rest}[{k - len(plain)}]")
    for key, child in zip(named.keys, named.children, strict=True):
        names += paths(child, str(key))
    return names


def paths(tree: Tree, path: str) -> Iterator[str]:
    """The leaves of what `path` names, as expressions."""
    if tree.kind is None:
        yield path
        return
    for k, child in enumerate(tree.children):
        if not tree.keys:
            yield from paths(child, f"{path}[{k}]")
        elif tree.kind is dict:
            yield from paths(child, f"{path}[{tree.keys[k]!r}]")
        else:
            yield from paths(child, f"{path}.{tree.keys[k]}")


def difference(function: Callable[..., Any], known: tuple[Any, ...], key: tuple[Any, ...]) -> str:
    """What tells a call's signature from a known one."""
    if known[0] != key[0]:
        return "the arguments have another structure"
    names = leaf_names(function, key[0])
    named = len(names) == len(key) - 3  # no attributes of tensors among the leaves
    for k, (a, b) in enumerate(zip(known[3:], key[3:], strict=False)):
        if a != b:
            return _leaf(names[k] if named else f"argument leaf {k}", a, b)
    return (
        "gradients, inference mode, autocast or the default dtype changed"
        if known[1] != key[1]
        else "the arguments differ"
    )


def _leaf(name: str, known: Any, now: Any) -> str:
    if is_tensor(known) and is_tensor(now):
        before, after = known[0].ttype, now[0].ttype
        if before.dtype is after.dtype and len(before.shape) == len(after.shape) and before.shape != after.shape:
            d = next(d for d, (m, n) in enumerate(zip(before.shape, after.shape, strict=True)) if m != n)
            return f"dimension {d} of {name} is {after.shape[d]}, known was {before.shape[d]}"
    return f"{name} is {told(now)}, known was {told(known)}"


def is_tensor(part: Any) -> bool:
    """Whether a part of a signature tells of a tensor."""
    return isinstance(part, tuple) and len(part) == 7


def told(part: Any) -> str:
    """A part of a signature in words."""
    if is_tensor(part):
        layout, flags, leaf = part[:3]
        words = f"{layout.ttype} with strides {list(layout.strides)}"
        if flags & REQUIRES_GRAD:
            words += ", requires grad" if leaf else ", computed with gradients"
        return words + (", read-only" if flags & READONLY else "")
    if isinstance(part, tuple) and len(part) == 2:
        return f"{part[0].__name__} {part[1]}"
    if isinstance(part, tuple):
        return f"another {part[0].__name__}"
    return "another object"
