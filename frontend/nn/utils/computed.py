"""Parameters that are computed each time that they are read: what older normalisations and pruning have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kiln.autograd import no_grad
from kiln.errors import InvalidValueError
from kiln.nn.module import Module
from kiln.tensor import Tensor

__all__ = ["compute", "parameter", "plain_again", "readers"]

Read = Callable[[Any], Tensor]


def readers(module: Module) -> Mapping[str, Any]:
    """By name: what computes it."""
    found: Mapping[str, Any] = vars(type(module)).get("_computed", {})
    return found


def compute(module: Module, name: str, read: Read) -> None:
    """From now on `module.name` is read(module): the module gets a class of its own."""
    _become(module, {**readers(module), name: read})


def plain_again(op: str, module: Module, name: str) -> Tensor:
    """Undo `compute`; the last value."""
    found = dict(readers(module))
    if name not in found:
        raise InvalidValueError(f"{type(module).__name__} has no normalised or pruned {name!r}", op=op)
    with no_grad():
        value: Tensor = getattr(module, name).detach().clone()
    del found[name]
    _become(module, found)
    return value


def parameter(op: str, module: Module, name: str) -> Tensor:
    """The parameter of this name, which there must be."""
    found = module._parameters.get(name)
    if found is None:
        raise InvalidValueError(f"{type(module).__name__} has no parameter {name!r}", op=op)
    return found


def _become(module: Any, found: dict[str, Read]) -> None:
    """Give the module its own class with these attributes computed. Classes are never changed: copies of the module
    share them."""
    cls = type(module)
    base = cls.__bases__[0] if "_computed" in vars(cls) else cls
    if found:
        # A class of this library: what it does is not the user's code.
        members: dict[str, Any] = {"__module__": __name__, "_computed": found, "__reduce_ex__": _reduced}
        base = type(base.__name__, (base,), {**members, **{n: property(read) for n, read in found.items()}})
    object.__setattr__(module, "__class__", base)


def _reduced(module: Any, protocol: Any) -> tuple[Any, ...]:
    """How such a module is pickled and copied."""
    cls = type(module)
    return _restored, (cls.__bases__[0], dict(readers(module))), vars(module)


def _restored(base: type[Module], found: dict[str, Read]) -> Module:
    made = base.__new__(base)
    _become(made, found)
    return made
