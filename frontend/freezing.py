"""`kiln.jit.freeze`: a module whose parameters and other tensors are constants of its graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kiln.base import READONLY, TensorBase
from kiln.errors import ArgumentError, InvalidValueError, NotYetError
from kiln.jit import CompiledFunction
from kiln.pytree import flatten
from kiln.scripting import ScriptModule


class FrozenModule(ScriptModule):
    """What `freeze` makes. Its tensors are read-only, and no parameters."""

    def freeze(self, tensors: frozenset[int]) -> None:
        """Take these tensors, by id, for constants."""
        for each in (self, *self._methods.values()):
            each._frozen = tensors

    def train(self, mode: bool = True) -> FrozenModule:
        """InvalidValueError: a frozen module does not learn."""
        if mode:
            raise InvalidValueError("a frozen module can't be trained", op="train", fix="train the module it is from")
        return self

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        raise NotYetError("a copy of a frozen module", op="deepcopy", fix="freeze the module again")


def freeze(mod: Any, preserved_attrs: Sequence[str] | None = None, optimize_numerics: bool = True) -> FrozenModule:
    """A copy of a module in eval mode, whose parameters, buffers and other tensors are constants of its graphs.

    The copy has no parameters and no state; what computes with constants alone is computed once. `mod` is left as it
    is, and later changes to it are not seen. `preserved_attrs` names tensors ("scale", "layer.weight") that stay as
    they are and may change. `optimize_numerics` makes no difference: the bits are the same in any case.
    InvalidValueError when the module is in training mode.

    >>> import kiln
    >>> frozen = kiln.jit.freeze(kiln.nn.Linear(2, 2).eval())
    >>> frozen(kiln.zeros(1, 2)).shape, list(frozen.parameters())
    (kiln.Size([1, 2]), [])
    """
    module: Any = mod._function if isinstance(mod, CompiledFunction) else mod
    if not hasattr(type(module), "named_parameters"):
        raise ArgumentError(f"takes a module, not {type(module).__name__}", op="freeze")
    training = next((name for name, m in module.named_modules() if m.training), None)
    if training is not None:
        name = f"its {training}" if training else "the module"
        raise InvalidValueError(f"{name} is in training mode", op="freeze", fix="call .eval() on the module before")
    module = copy.deepcopy(module)
    kept = frozenset(preserved_attrs or ())
    known = {f"{path}{'.' if path else ''}{name}" for path, m in module.named_modules() for name in _names(m)}
    for name in sorted(kept - known):
        raise InvalidValueError(f"the module has no {name}", op="freeze", fix="name attributes: 'scale', 'part.weight'")
    found: dict[int, Any] = {}
    for path, part in list(module.named_modules()):
        for name in list(_names(part)):
            if f"{path}{'.' if path else ''}{name}" not in kept:
                found.update(_settled(part, name))
    for t in found.values():
        t._flags |= READONLY
    made = FrozenModule(module)
    made.freeze(frozenset(found))
    return made


def _names(module: Any) -> Iterator[str]:
    yield from module._parameters
    yield from module._buffers
    yield from (name for name in vars(module) if not name.startswith("_") and name != "training")


def _settled(module: Any, name: str) -> Iterator[tuple[int, Any]]:
    """Make an attribute a plain one, without gradients; the tensors in it."""
    for register in (module._parameters, module._buffers):
        if register.get(name) is not None:
            t = register.pop(name).detach()
            vars(module)[name] = t
            yield id(t), t
            return
    for t in flatten(vars(module).get(name))[0]:
        if isinstance(t, TensorBase):
            yield id(t), t


def optimize_for_inference(mod: Any, other_methods: Sequence[str] | None = None) -> FrozenModule:
    """`freeze`, unless that was done: programs are optimised in any case. `other_methods` are tensors or methods to
    keep, as `preserved_attrs`; methods marked with `kiln.jit.export` are kept anyway."""
    return mod if isinstance(mod, FrozenModule) else freeze(mod, other_methods)
