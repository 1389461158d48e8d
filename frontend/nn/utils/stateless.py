"""Calling a module with other tensors in place of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kiln.errors import ArgumentError, InvalidValueError
from kiln.nn.module import Module

__all__ = ["functional_call"]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """module(*args, **kwargs) with the tensors of the dicts (by dotted name) in place of its parameters and buffers.

    With `tie_weights` a tensor that the module holds under several names is replaced under all of them. `strict`: the
    dicts must name all parameters and buffers. InvalidValueError for names that do not exist or contradict each other.
    """
    given: dict[str, Any] = {}
    dicts = parameter_and_buffer_dicts
    for each in [dicts] if isinstance(dicts, Mapping) else dicts:
        if twice := sorted(set(given) & set(each)):
            raise InvalidValueError(f"{twice[0]!r} is in two dicts", op="functional_call")
        given.update(each)
    if not isinstance(module, Module):
        raise ArgumentError(f"expected a module, got {type(module).__name__}", op="functional_call")
    places = _places(module)
    wrong = [name for name in given if name not in places]
    wrong += [name for name in places if strict and name not in given]
    if wrong:
        raise InvalidValueError(f"missing or unknown names: {', '.join(map(repr, wrong))}", op="functional_call")
    if tie_weights:
        given = _tied(places, given)
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    with _swapped([(places[name], x) for name, x in given.items()]):
        return module(*positional, **(kwargs or {}))


_Place = tuple[dict[str, Any], str]


def _places(module: Module) -> dict[str, _Place]:
    """Where each parameter and buffer lies, by dotted name."""
    found: dict[str, _Place] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for registry in (vars(part)["_parameters"], vars(part)["_buffers"]):
            for name in registry:
                if registry[name] is not None:
                    found[f"{path}.{name}" if path else name] = (registry, name)
    return found


def _tied(places: dict[str, _Place], given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the other names of each replaced tensor."""
    by_tensor: dict[int, list[str]] = {}
    for name, (registry, key) in places.items():
        by_tensor.setdefault(id(registry[key]), []).append(name)
    result = dict(given)
    for names in by_tensor.values():
        values = [given[name] for name in names if name in given]
        if any(v is not values[0] for v in values):
            raise InvalidValueError(f"{', '.join(names)} are one tensor, but were given several", op="functional_call")
        if values:
            result.update(dict.fromkeys(names, values[0]))
    return result


@contextmanager
def _swapped(changes: list[tuple[_Place, Any]]) -> Iterator[None]:
    before = [registry[key] for (registry, key), _ in changes]
    try:
        for (registry, key), x in changes:
            registry[key] = x
        yield
    finally:
        for ((registry, key), _), x in zip(changes, before, strict=True):
            registry[key] = x
