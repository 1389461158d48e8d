"""`Module`: parameters, buffers and submodules under names, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from kiln.autograd import no_grad
from kiln.errors import ArgumentError, LoadError, NotYetError
from kiln.ir.types import DType
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

Self = TypeVar("Self", bound="Module")


class KeyReport(NamedTuple):
    """What `load_state_dict` did not find a partner for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all layers and models: assign parameters, buffers and modules as attributes, define `forward`."""

    training: bool

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise NotYetError(f"{type(self).__name__} does not define forward", op="Module")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # ------------------------------------------------------------------------------------ attributes

    def _tables(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        own = self.__dict__
        if "_parameters" not in own:
            raise ArgumentError(f"call super().__init__() first in {type(self).__name__}.__init__", op="Module")
        return own["_parameters"], own["_buffers"], own["_modules"]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) or (
            "_parameters" in self.__dict__ and any(name in table for table in self._tables())
        ):
            self._register(name, value)
        else:
            object.__setattr__(self, name, value)

    def _register(self, name: str, value: Any) -> None:
        parameters, buffers, modules = self._tables()
        if isinstance(value, Parameter):
            home = parameters
        elif isinstance(value, Module):
            home = modules
        else:
            home = next(table for table in (parameters, buffers, modules) if name in table)
            if value is not None and not (home is buffers and isinstance(value, Tensor)):
                what = "a Parameter" if home is parameters else "a Tensor" if home is buffers else "a Module"
                raise ArgumentError(f"{name} takes {what} or None, not {type(value).__name__}", op="Module")
        for table in (self.__dict__, parameters, buffers, modules):
            if table is not home:
                table.pop(name, None)
        home[name] = value

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(table, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in self._tables():
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter, or the name of one that is absent."""
        self._tables()[0][name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained."""
        if not persistent:
            raise NotYetError("buffers that state_dict leaves out", op="register_buffer")
        self._tables()[1][name] = tensor

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name."""
        self._tables()[2][name] = module

    # --------------------------------------------------------------------------------------- walking

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for child_name, child in module._modules.items():
                if child is not None:
                    yield from walk(child, f"{name}.{child_name}" if name else child_name)

        yield from walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules."""
        return ((k, m) for k, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return (m for _, m in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for name, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for key, value in module.__dict__[table].items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{name}.{key}" if name else key), value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, each once."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names, each once."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def apply(self: Self, function: Callable[[Module], object]) -> Self:
        """Call `function` on every module below and on this one; returns self."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ----------------------------------------------------------------------------------------- state

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode on (or off) here and below; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Training mode off; returns self."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Ask for gradients of all parameters, or stop asking; returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget (or zero) the gradients of all parameters."""
        for p in self.parameters():
            if set_to_none or p.grad is None:
                p.grad = None
            else:
                p.grad.zero_()

    def to(self: Self, dtype: DType) -> Self:
        """Floating point parameters and buffers become `dtype`, in place of the old ones; returns self."""
        for module in self.modules():
            for key, p in module._parameters.items():
                if p is not None and p.is_floating_point() and p.dtype is not dtype:
                    module._parameters[key] = Parameter(p.detach().to(dtype), p.requires_grad)
            for key, b in module._buffers.items():
                if b is not None and b.is_floating_point():
                    module._buffers[key] = b.to(dtype)
        return self

    def float(self: Self) -> Self:
        """Floating point state as float32; returns self."""
        from kiln.ir.types import float32

        return self.to(float32)

    def double(self: Self) -> Self:
        """Floating point state as float64; returns self."""
        from kiln.ir.types import float64

        return self.to(float64)

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers by dotted name, sharing memory with the module."""
        state: dict[str, Tensor] = {}
        for name, module in self.named_modules(prefix.rstrip(".")):
            for table in ("_parameters", "_buffers"):
                for key, value in module.__dict__[table].items():
                    if value is not None:
                        state[f"{name}.{key}" if name else key] = value.detach()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> KeyReport:
        """Copy tensors of these names into the module. LoadError when shapes differ, or with `strict` when
        names are missing or unexpected; then nothing was copied."""
        own = self.state_dict()
        report = KeyReport([k for k in own if k not in state], [k for k in state if k not in own])
        problems = [f"missing {k!r}" for k in report.missing_keys] if strict else []
        problems += [f"unexpected {k!r}" for k in report.unexpected_keys] if strict else []
        for key, value in own.items():
            if key in state and state[key].shape != value.shape:
                problems.append(f"{key!r} has shape {list(state[key].shape)}, the module's {list(value.shape)}")
        if problems:
            raise LoadError(f"the state does not fit: {'; '.join(problems)}", op=type(self).__name__)
        with no_grad():
            for key, value in own.items():
                if key in state:
                    value.copy_(state[key])
        return report

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [f"({k}): " + repr(m).replace("\n", "\n  ") for k, m in self._modules.items()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *children]) + "\n)"
