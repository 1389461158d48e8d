"""`Module`: a function with parameters, and the tree that modules form.

A module's parameters, buffers and submodules are its ordinary attributes, found by type, in the order in which they
were first assigned. There is no hidden registry: what `vars(module)` shows is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from kiln.autograd import no_grad
from kiln.base import MODES
from kiln.errors import ArgumentError, CaptureError, DTypeError, InvalidValueError, LoadError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

Self = TypeVar("Self", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of layers and models. A subclass assigns parameters (`Parameter`) and submodules to attributes and
    defines `forward`; calling the module calls it."""

    training: bool = True
    _buffers: tuple[str, ...] = ()  # names of tensors that belong to the state but are not trained
    _transient: tuple[str, ...] = ()  # those of them that are not saved

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        fits = value is None or isinstance(value, Parameter)
        if not fits and isinstance(vars(self).get(name), Parameter):
            raise ArgumentError(
                f"{name} is a parameter and can't become a {type(value).__name__}",
                fix="wrap it in nn.Parameter, or copy_() into the parameter inside kiln.no_grad()",
            )
        object.__setattr__(self, name, value)

    # ------------------------------------------------------------------------------------- registering

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Assign a parameter, or None for one that is left out."""
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentError(f"{name} must be a Parameter or None, not {type(param).__name__}")
        setattr(self, _key(name), param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Assign a tensor that belongs to the module's state but is not trained; `persistent`: it is saved."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentError(f"{name} must be a tensor or None, not {type(tensor).__name__}")
        setattr(self, _key(name), tensor)
        self._buffers = (*[n for n in self._buffers if n != name], name)
        self._transient = (*[n for n in self._transient if n != name], *([] if persistent else [name]))

    def add_module(self, name: str, module: Module | None) -> None:
        """Assign a submodule under any name, also one that is no identifier."""
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{name} must be a module or None, not {type(module).__name__}")
        setattr(self, _key(name), module)

    # ------------------------------------------------------------------------------------- walking the tree

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("" or `prefix`) and all below it, with dotted names, each once, parents first."""
        seen: set[int] = set()

        def walk(module: Module, path: str) -> Iterator[tuple[str, Module]]:
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module
                for name, child in module._children():
                    yield from walk(child, f"{path}.{name}" if path else name)

        return walk(self, prefix)

    def _children(self) -> Iterator[tuple[str, Module]]:
        return ((name, x) for name, x in vars(self).items() if isinstance(x, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        unique = {id(x): (name, x) for name, x in reversed(list(self._children()))}
        return reversed(list(unique.values()))

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once."""
        return (child for _, child in self.named_children())

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name ("" is this one); AttributeError when there is none."""
        found = self
        for name in target.split(".") if target else ():
            child = vars(found).get(name)
            if not isinstance(child, Module):
                raise AttributeError(f"{type(found).__name__} has no submodule {name!r} (looking for {target!r})")
            found = child
        return found

    def _tensors(self) -> Iterator[tuple[str, Tensor, bool]]:
        """(name, tensor, is it a parameter) of this module alone: its parameters and buffers."""
        for name, x in vars(self).items():
            if isinstance(x, Parameter):
                yield name, x, True
            elif name in self._buffers and isinstance(x, Tensor):
                yield name, x, False

    def _named(self, parameters: bool, prefix: str, recurse: bool) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, x, is_parameter in module._tensors():
                if is_parameter == parameters and id(x) not in seen:
                    seen.add(id(x))
                    yield f"{path}.{name}" if path else name, x

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once; only this module's own without `recurse`."""
        return ((name, x) for name, x in self._named(True, prefix, recurse) if isinstance(x, Parameter))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once."""
        return (x for _, x in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, each once."""
        return self._named(False, prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, each once."""
        return (x for _, x in self.named_buffers(recurse=recurse))

    # ------------------------------------------------------------------------------------- state

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """All parameters and persistent buffers by dotted name, detached, on the module's own memory. Tensors that
        are shared appear under each of their names."""
        state = {f"{prefix}{name}": x.detach() for name, x in self._saved()}
        return state

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        for name, x, _ in self._tensors():
            if name not in self._transient:
                yield name, x
        for name, child in self._children():
            for path, x in child._saved():
                yield f"{name}.{path}", x

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> IncompatibleKeys:
        """Copy a `state_dict` into the parameters and buffers.

        LoadError lists every missing, unexpected (both only if `strict`) and unfitting entry, and then nothing was
        changed. Returns the names of the missing and unexpected ones.
        """
        own = dict(self._saved())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        wrong = [
            f"{name}: shape {list(x.shape)} in the state, {list(own[name].shape)} here"
            if isinstance(x, Tensor)
            else f"{name}: not a tensor but {type(x).__name__}"
            for name, x in state_dict.items()
            if name in own and (not isinstance(x, Tensor) or x.shape != own[name].shape)
        ]
        if strict:
            wrong += [f"{name}: missing" for name in missing] + [f"{name}: unexpected" for name in unexpected]
        if wrong:
            raise LoadError(f"this state does not fit {type(self).__name__}:\n  " + "\n  ".join(wrong))
        with no_grad():
            for name, x in own.items():
                if name in state_dict:
                    x.copy_(state_dict[name])
        return IncompatibleKeys(missing, unexpected)

    # ------------------------------------------------------------------------------------- changing

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and below."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: Self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Ask for gradients of all parameters, or stop asking."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or make them zero."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.detach().zero_()

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on all modules, children before parents."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self: Self, dtype: DType) -> Self:
        """Convert floating point parameters and buffers (and gradients) to `dtype`, keeping the tensor objects.

        DTypeError for other dtypes, CaptureError while a function is captured.
        """
        if not isinstance(dtype, DType):
            raise ArgumentError(f"to() takes a kiln dtype, not {type(dtype).__name__}")
        if not dtype.is_floating_point:
            raise DTypeError(f"a module's parameters are floating point, not {dtype}")
        if MODES.recorder is not None:
            raise CaptureError("Module.to() can't be captured", fix="convert the module before")
        for _, x in [*self._named(True, "", True), *self._named(False, "", True)]:
            if x.dtype.is_floating_point and x.dtype is not dtype:
                grad = x.grad
                x.grad = None
                _move(x, x.detach().to(dtype))
                x.grad = None if grad is None else grad.to(dtype)
        return self

    def float(self: Self) -> Self:
        """`to(kiln.float32)`."""
        return self.to(T.float32)

    def double(self: Self) -> Self:
        """`to(kiln.float64)`."""
        return self.to(T.float64)

    # ------------------------------------------------------------------------------------- showing

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._children()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        body = "\n  ".join([extra, *lines] if extra else lines)
        return f"{type(self).__name__}(\n  {body}\n)"


def _key(name: str) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise InvalidValueError(f"{name!r} can't name a part of a module: a name has no dots and is not empty")
    if hasattr(Module, name):
        raise InvalidValueError(f"{name!r} is a member of Module already")
    return name


def _move(x: Tensor, converted: Tensor) -> None:
    """`x` becomes a name for the memory of `converted`."""
    x._buffer, x._ptr, x._layout = converted._buffer, converted._ptr, converted._layout
