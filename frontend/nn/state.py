"""Gathering and loading the state of a tree of modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kiln.autograd import no_grad
from kiln.errors import ArgumentError, LoadError
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

if TYPE_CHECKING:
    from kiln.nn.module import Module

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def _own(module: Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and persistent buffers of one module."""
    for name, x in module._parameters.items():
        if x is not None:
            yield name, x
    for name, b in module._buffers.items():
        if b is not None and name not in vars(module).get("_non_persistent_buffers_set", ()):
            yield name, b


def persists(module: Module, name: str) -> None:
    """From now on a buffer of this name is saved."""
    vars(module).get("_non_persistent_buffers_set", set()).discard(name)


def _has_extra(module: Module) -> bool:
    from kiln.nn.module import Module  # it imports this file

    return type(module).get_extra_state is not Module.get_extra_state


def _call(module: Module, kind: str, *args: Any) -> None:
    for hook in list(vars(module).get("_state_hooks", {}).get(kind, {}).values()):
        hook(module, *args)


def state_dict(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> dict[str, Any]:
    """Put the state of `module` and all below it into `destination`."""
    _call(module, "save_pre", prefix, keep_vars)
    for name, x in _own(module):
        destination[prefix + name] = x if keep_vars or is_lazy(x) else x.detach()
    if _has_extra(module):
        destination[prefix + EXTRA] = module.get_extra_state()
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    _call(module, "save_post", destination, prefix, {})
    return destination


class _Load:
    """One `load_state_dict`: first everything is looked at, then everything is written."""

    def __init__(self, state: dict[str, Any], strict: bool, assign: bool) -> None:
        self.state, self.strict, self.assign = state, strict, assign
        self.writes: list[Callable[[], None]] = []
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.errors: list[str] = []
        self.known: set[str] = set()

    def look(self, module: Module, prefix: str) -> None:
        """Plan the writes for `module` and all below it, or note why they can't be."""
        lists = (self.missing, self.unexpected, self.errors)
        _call(module, "load_pre", self.state, prefix, {}, self.strict, *lists)
        for name, x in _own(module):
            self._entry(module, name, prefix + name, x)
        if _has_extra(module):
            key = prefix + EXTRA
            self.known.add(key)
            if key in self.state:
                self.writes.append(lambda: module.set_extra_state(self.state[key]))
            else:
                self.missing.append(key)
        for name, child in module._modules.items():
            if child is not None:
                self.look(child, f"{prefix}{name}.")

    def _entry(self, module: Module, name: str, key: str, x: Tensor) -> None:
        self.known.add(key)
        if key not in self.state:
            self.missing.append(key)
            return
        given = self.state[key]
        if not isinstance(given, Tensor):
            self.errors.append(
                f'While copying the parameter named "{key}", expected a tensor but received {type(given).__name__}'
            )
        elif is_lazy(given) or is_lazy(x):
            self._lazy(module, name, key, x, given)
        elif given.shape != x.shape:
            self.errors.append(
                f"size mismatch for {key}: copying a param with shape {list(given.shape)} from checkpoint, "
                f"the shape in current model is {list(x.shape)}."
            )
        elif not self.assign:
            self.writes.append(lambda: _copy(x, given))
        elif isinstance(x, Parameter):
            wanted = x.requires_grad
            taken = given if isinstance(given, Parameter) else Parameter(given, wanted)
            self.writes.append(lambda: setattr(module, name, taken.requires_grad_(wanted)))
        else:
            self.writes.append(lambda: setattr(module, name, given))

    def _lazy(self, module: Module, name: str, key: str, x: Any, given: Tensor) -> None:
        """An entry that has no shape, here or there."""
        if not is_lazy(x):
            self.errors.append(f"{key} has no shape in the state (from a lazy module that was never called).")
        elif not is_lazy(given) and self.assign:
            taken = Parameter(given, x.requires_grad) if isinstance(x, Parameter) else given
            self.writes.append(lambda: setattr(module, name, taken))
        elif not is_lazy(given):
            self.writes.append(lambda: x.materialize(given.shape))
            self.writes.append(lambda: _copy(x, given))


def is_lazy(x: Tensor) -> bool:
    """Whether it waits for its shape, as parameters of lazy modules do."""
    return hasattr(type(x), "materialize")


def _copy(x: Tensor, given: Tensor) -> None:
    with no_grad():
        x.copy_(given)


def load_state_dict(module: Module, state: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See `Module.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise ArgumentError(f"a state is a dict, not a {type(state).__name__}", op="load_state_dict")
    load = _Load(OrderedDict(state), strict, assign)
    load.look(module, "")
    load.unexpected += [key for key in load.state if key not in load.known]
    errors = list(load.errors)
    if strict and load.unexpected:
        errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(load.unexpected)}. ")
    if strict and load.missing:
        errors.insert(0, f"Missing key(s) in state_dict: {_quoted(load.missing)}. ")
    if errors:
        lines = "\n\t".join(errors)
        raise LoadError(
            f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{lines}",
            fix="strict=False",
        )
    for write in load.writes:
        write()
    result = IncompatibleKeys(load.missing, load.unexpected)
    for part in reversed(list(module.modules())):
        _call(part, "load_post", result)
    return result


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
