"""Parametrisations: a parameter that is computed, by modules, from another one each time it is read.

The module gets a class of its own, with a property in the parameter's place; the parameter lies in
`module.parametrizations[name].original` (`original0`, `original1`, ... when it is made of several).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from kiln.autograd import no_grad
from kiln.base import MODES
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.nn.containers import ModuleDict, ModuleList
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "type_before_parametrizations",
]  # fmt: skip

AnyModule = TypeVar("AnyModule", bound=Module)


class ParametrizationList(ModuleList):
    """The modules that compute one parameter, one after the other, and what they start from."""

    is_tensor: bool
    ntensors: int

    def __init__(self, modules: Sequence[Module], original: Tensor) -> None:
        super().__init__(modules)
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with suppress(NotImplementedError):  # then the tensor itself is the original
                        new = module.right_inverse(new)
        if not isinstance(new, (Tensor, tuple, list)):
            raise ArgumentError(f"right_inverse gave a {type(new).__name__}", op="register_parametrization")
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            self._hold("original", original, new)
        else:
            for k, part in enumerate(new):
                self._hold(f"original{k}", original, part)

    def _hold(self, name: str, original: Tensor, value: Tensor) -> None:
        """Register `value`; in the object `original` where that fits."""
        if self.is_tensor and value.ttype == original.ttype:
            with no_grad():
                original.copy_(value)
            value = original
        if isinstance(original, Parameter):
            kept = value if isinstance(value, Parameter) else Parameter(value.clone(), original.requires_grad)
            self.register_parameter(name, kept)
        else:
            self.register_buffer(name, value)

    def originals(self) -> list[Tensor]:
        """What the first module gets."""
        names = ["original"] if self.is_tensor else [f"original{k}" for k in range(self.ntensors)]
        return [getattr(self, name) for name in names]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parameter becomes `value`."""
        with no_grad():
            new: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise InvalidValueError(
                        f"{type(module).__name__} has no right_inverse: the parameter can't be assigned"
                    )
                new = module.right_inverse(new)
            for original, part in zip(self.originals(), [new] if self.is_tensor else new, strict=True):
                original.copy_(part)

    def forward(self) -> Tensor:
        """The parameter."""
        first, *others = self
        x: Tensor = first(*self.originals())
        for module in others:
            x = module(x)
        return x


_cache: dict[tuple[int, str], Tensor] | None = None
"""What was computed in the outermost `cached` block."""


@contextmanager
def cached() -> Iterator[None]:
    """Inside the `with` block each parametrised tensor is computed once, when it is first read. CaptureError inside a
    captured function."""
    global _cache
    if MODES.recorder is not None:
        MODES.recorder.reject("cached() inside a captured function", fix="leave it out there")
    outermost = _cache is None
    if outermost:
        _cache = {}
    try:
        yield
    finally:
        if outermost:
            _cache = None


def _property(name: str) -> property:
    def get(module: Module) -> Tensor:
        key = (id(module), name)
        if _cache is not None and key in _cache:
            return _cache[key]
        computed: Tensor = module.parametrizations[name]()
        if _cache is not None:
            _cache[key] = computed
        return computed

    def put(module: Module, value: Tensor) -> None:
        if _cache is not None:
            _cache.pop((id(module), name), None)
        module.parametrizations[name].right_inverse(value)

    return property(get, put)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has a parametrisation (of this name)."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def register_parametrization(
    module: AnyModule, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> AnyModule:
    """From now on `module.tensor_name` is parametrization(original); a second one gets the result of the first.

    A `right_inverse` of the parametrization is asked for the originals (one, or several) that give the value now, and
    allows assignments. Unless `unsafe`, dtype and shape must stay as they are (ShapeError).
    """
    op = "register_parametrization"
    if is_parametrized(module, tensor_name):
        steps: ParametrizationList = module.parametrizations[tensor_name]
        now = getattr(module, tensor_name)
        _check(op, parametrization(now), now, unsafe)
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                steps.right_inverse(parametrization.right_inverse(now))
        steps.append(parametrization)
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise InvalidValueError(f"{type(module).__name__} has no parameter or buffer {tensor_name!r}", op=op)
    original: Tensor = getattr(module, tensor_name)
    with no_grad():
        before = original.clone()
    steps = ParametrizationList([parametrization], original)
    try:
        _check(op, steps(), before, unsafe)
    except ShapeError:
        with no_grad():
            original.copy_(before)
        raise
    delattr(module, tensor_name)
    if not is_parametrized(module):
        cls = type(module)
        # A class of this library: what it does is not the user's code.
        object.__setattr__(module, "__class__", type(f"Parametrized{cls.__name__}", (cls,), {"__module__": __name__}))
        module.add_module("parametrizations", ModuleDict())
    setattr(type(module), tensor_name, _property(tensor_name))
    module.parametrizations[tensor_name] = steps
    return module


def _check(op: str, after: Any, before: Tensor, unsafe: bool) -> None:
    if not unsafe and (not isinstance(after, Tensor) or after.ttype != before.ttype):
        got = after.ttype if isinstance(after, Tensor) else type(after).__name__
        raise ShapeError(f"a {before.ttype} would become a {got}", op=op, fix="pass unsafe=True if this is meant")


def remove_parametrizations(module: AnyModule, tensor_name: str, leave_parametrized: bool = True) -> AnyModule:
    """The parameter is a plain one again: with its computed value, or else with its original one."""
    if not is_parametrized(module, tensor_name):
        raise InvalidValueError(
            f"{type(module).__name__} has no parametrisation of {tensor_name!r}", op="remove_parametrizations"
        )
    steps: ParametrizationList = module.parametrizations[tensor_name]
    first = steps.originals()[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach().clone()
            if steps.is_tensor and first.ttype == value.ttype:
                first.copy_(value)
                value = first
            elif isinstance(first, Parameter):
                value = Parameter(value, first.requires_grad)
    elif steps.is_tensor:
        value = first
    else:
        raise InvalidValueError(
            "a parameter made of several tensors has no original value", op="remove_parametrizations"
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        object.__setattr__(module, "__class__", type(module).__bases__[0])
    if isinstance(value, Parameter):
        module.register_parameter(tensor_name, value)
    else:
        module.register_buffer(tensor_name, cast("Tensor", value))
    return module
