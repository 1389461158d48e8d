"""`Module`: a function with parameters, and the tree that modules form.

What a module registers lies in three plain dicts, `_parameters`, `_buffers` and `_modules`; assigning to an attribute
sorts it there by type, and reading one looks there. The walks below are all there is to it. Saving and loading stand
in `state.py`, hooks in `hooks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, cast

from kiln.autograd.hooks import RemovableHandle
from kiln.base import MODES
from kiln.creation import empty
from kiln.device import gpu_named, placed
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.ir import types as T
from kiln.ir.types import CPU, Device, DType
from kiln.nn import hooks as H
from kiln.nn import state as S
from kiln.nn.hooks import Hook
from kiln.nn.parameter import Buffer, Parameter
from kiln.tensor import Tensor


class _OnUse:
    """A container of a module's own that is made when it is first asked for. Most modules never have hooks, and guards
    of compiled calls look at everything that is there."""

    __slots__ = ("_make", "_name")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        return self if module is None else vars(module).setdefault(self._name, self._make())


class Module:
    """Base of layers and models. A subclass assigns parameters (`Parameter`) and submodules to attributes and
    defines `forward`; calling the module calls it, with the hooks around it."""

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str] = cast("set[str]", _OnUse(set))
    _forward_pre_hooks: dict[int, Hook] = cast("dict[int, Hook]", _OnUse(dict))
    _forward_hooks: dict[int, Hook] = cast("dict[int, Hook]", _OnUse(dict))
    _backward_pre_hooks: dict[int, Callable[..., Any]] = cast("dict[int, Callable[..., Any]]", _OnUse(dict))
    _backward_hooks: dict[int, Callable[..., Any]] = cast("dict[int, Callable[..., Any]]", _OnUse(dict))
    _state_hooks: dict[str, dict[int, Callable[..., Any]]] = cast("dict[str, dict[int, Any]]", _OnUse(dict))

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # Here and not in __init__: a subclass need not call super().__init__() first.
        self = super().__new__(cls)
        vars(self).update(training=True, _parameters={}, _buffers={}, _modules={})
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.__dict__
        if (
            "_forward_pre_hooks" in own
            or "_forward_hooks" in own
            or "_backward_hooks" in own
            or "_backward_pre_hooks" in own
        ):
            return H.call_with_hooks(self, args, kwargs)
        if MODES.recorder is not None:
            return MODES.recorder.callee(self.forward)(*args, **kwargs)
        return self.forward(*args, **kwargs)

    # ------------------------------------------------------------------------------------- attributes

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        for registry in ("_parameters", "_buffers", "_modules"):
            if name in own.get(registry, ()):
                return own[registry][name]
        raise AttributeError(_no_attribute(self, name), name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._forget(name, self._parameters)
            self.register_parameter(name, value)
        elif name in self._parameters:
            if value is not None:
                raise ArgumentError(
                    f"{name} is a parameter and can't become a {type(value).__name__}",
                    fix="wrap it in nn.Parameter, or copy_() into the parameter inside kiln.no_grad()",
                )
            self._parameters[name] = None
        elif isinstance(value, Module):
            self._forget(name, self._modules)
            self.add_module(name, value)
        elif name in self._modules:
            if value is not None:
                raise ArgumentError(f"{name} is a submodule and can't become a {type(value).__name__}")
            self._modules[name] = None
        elif isinstance(value, Buffer) or name in self._buffers:
            self._set_buffer(name, value)
        else:
            object.__setattr__(self, name, value)

    def _set_buffer(self, name: str, value: Any) -> None:
        if isinstance(value, Buffer):
            self._forget(name, self._buffers)
            self.register_buffer(name, value, value.persistent)
        elif value is None or isinstance(value, Tensor):
            self._buffers[name] = value
        else:
            raise ArgumentError(f"{name} is a buffer and can't become a {type(value).__name__}")

    def _forget(self, name: str, keep: Mapping[str, Any]) -> None:
        """Drop what has this name, but for its place in `keep`."""
        vars(self).pop(name, None)
        for registry in (self._parameters, self._buffers, self._modules):
            if registry is not keep:
                cast("dict[str, Any]", registry).pop(name, None)
        if keep is not self._buffers:
            S.persists(self, name)

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del cast("dict[str, Any]", registry)[name]
                S.persists(self, name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*super().__dir__(), *self._parameters, *self._buffers, *self._modules}
        return sorted(n for n in names if not n[0].isdigit())

    # ------------------------------------------------------------------------------------- registering

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or None for one that is left out. ArgumentError for another type, or for a tensor that was
        computed; InvalidValueError for a name with dots or one that is taken."""
        self._check_name(name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentError(
                f"{name} must be a Parameter or None, not {type(param).__name__}", fix="wrap it in nn.Parameter"
            )
        if param is not None and not param.is_leaf:
            raise ArgumentError(f"{name} was computed: a parameter is a leaf", fix="compute it in forward instead")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state but is not trained; `persistent`: it is saved."""
        self._check_name(name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentError(f"{name} must be a tensor or None, not {type(tensor).__name__}")
        self._buffers[name] = tensor
        if persistent:
            S.persists(self, name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under any name without dots, also one that is no identifier."""
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{name} must be a module or None, not {type(module).__name__}")
        self._check_name(name, self._modules)
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """Alias of `add_module`."""
        self.add_module(name, module)

    def _check_name(self, name: str, registry: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise ArgumentError(f"a name must be a string, not {type(name).__name__}")
        if not name or "." in name:
            raise InvalidValueError(f"{name!r} can't name a part of a module: a name has no dots and is not empty")
        taken = name in vars(self) or any(
            name in r for r in (self._parameters, self._buffers, self._modules) if r is not registry
        )
        # An attribute of the class would hide what is registered; properties are looked up, not run.
        if taken or (name not in registry and any(name in vars(c) for c in type(self).__mro__)):
            raise InvalidValueError(f"{type(self).__name__} has an attribute {name!r} already")

    # ------------------------------------------------------------------------------------- walking the tree

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module ("" or `prefix`) and all below it, with dotted names, parents first; each once, or with
        `remove_duplicate=False` under each of its names."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, _joined(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once."""
        return (child for _, child in self.named_children())

    def _named(self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, x in vars(module)[registry].items():
                if x is not None and id(x) not in seen:
                    if remove_duplicate:
                        seen.add(id(x))
                    yield _joined(path, name), x

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once (or under each name); only this module's own without `recurse`."""
        found = self._named("_parameters", prefix, recurse, remove_duplicate)
        return cast("Iterator[tuple[str, Parameter]]", found)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once."""
        return (x for _, x in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, each once (or under each name)."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, each once."""
        return (x for _, x in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name ("" is this one); AttributeError when there is none."""
        found = self
        for name in target.split(".") if target else ():
            child = found._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(found).__name__} has no submodule {name!r} (looking for {target!r})")
            found = child
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` where `target` (a dotted name) says; with `strict` something must be there already."""
        path, _, name = target.rpartition(".")
        if not name:
            raise InvalidValueError("an empty name can't be set", op="set_submodule")
        parent = self.get_submodule(path)
        if strict:
            parent.get_submodule(name)
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with this dotted name; AttributeError when there is none."""
        return cast("Parameter", self._get("_parameters", "parameter", target))

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with this dotted name; AttributeError when there is none."""
        return self._get("_buffers", "buffer", target)

    def _get(self, registry: str, kind: str, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = vars(owner)[registry].get(name)
        if found is None:
            raise AttributeError(f"{type(owner).__name__} has no {kind} {name!r} (looking for {target!r})")
        return cast("Tensor", found)

    # ------------------------------------------------------------------------------------- state

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name, on the module's own memory, detached unless
        `keep_vars`. Tensors that are shared appear under each of their names; `get_extra_state`, where a class defines
        it, adds "_extra_state". The entries are put into `destination` if it is given."""
        return S.state_dict(self, {} if destination is None else destination, prefix, keep_vars)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> S.IncompatibleKeys:
        """Copy a `state_dict` into the parameters and buffers; with `assign` take over its tensors instead.

        LoadError lists every missing, unexpected (both only if `strict`) and unfitting entry, and then nothing was
        changed. Returns the names of the missing and unexpected ones.
        """
        return S.load_state_dict(self, state_dict, strict, assign)

    def get_extra_state(self) -> Any:
        """More state to save; subclasses that define it define `set_extra_state` too."""
        raise NotImplementedError(f"{type(self).__name__} has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Take over what `get_extra_state` gave."""
        raise NotImplementedError(f"{type(self).__name__} has no extra state")

    # ------------------------------------------------------------------------------------- hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call hook(module, args) before `forward`; what it returns, unless None, replaces `args`. `with_kwargs`:
        hook(module, args, kwargs), which returns None or (args, kwargs)."""
        return H.register(self._forward_pre_hooks, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call hook(module, args, result) after `forward`; what it returns, unless None, replaces the result.
        `with_kwargs`: hook(module, args, kwargs, result). `always_call`: also when `forward` raises."""
        return H.register(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_output) when the gradients of the results are known; what it returns, unless None,
        replaces them. A module with backward hooks can't be captured."""
        return H.register(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_input, grad_output) when the gradients of the positional arguments are known; what
        it returns, unless None, replaces grad_input. A module with backward hooks can't be captured."""
        return H.register(self._backward_hooks, hook, prepend)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, prefix, keep_vars) before this module's state is gathered."""
        return H.register(self._state_hooks.setdefault("save_pre", {}), hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata) when it is gathered, to edit it in place."""
        return H.register(self._state_hooks.setdefault("save_post", {}), hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        before this module's part of a state is looked at; it may edit `state_dict` (a copy) in place."""
        return H.register(self._state_hooks.setdefault("load_pre", {}), hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, incompatible_keys) when a state was loaded."""
        return H.register(self._state_hooks.setdefault("load_post", {}), hook)

    # ------------------------------------------------------------------------------------- changing

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and below."""
        if not isinstance(mode, bool):
            raise InvalidValueError("the training mode is True or False", op="train")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
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

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on all modules, children before parents."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """to(dtype), to(device), to(device, dtype), to(tensor): convert floating point and complex parameters and
        buffers (and gradients) to a dtype, and move all to a device, keeping the tensor objects.

        DTypeError for dtypes that are neither, and for a floating point one where there are complex parameters or
        buffers (`float()` and `double()` leave those alone); CaptureError while a function is captured.
        """
        dtype, device, non_blocking = _target(args, kwargs)
        if device is not None:
            self._transfer(device, non_blocking)
        if dtype is None:
            return self
        if not dtype.is_inexact:
            raise DTypeError(f"a module's parameters are floating point or complex, not {dtype}", op="to")
        for x in [*self.parameters(), *self.buffers()]:
            if x.dtype.is_complex and not dtype.is_complex:
                types, fix = [x.ttype], "use float() or double(), which leave complex numbers alone"
                raise DTypeError(f"complex numbers would lose a part as {dtype}", op="to", operands=types, fix=fix)
        return self._convert(dtype)

    def _convert(self, dtype: DType) -> Self:
        """Floating point parameters and buffers as `dtype`; complex ones if that is complex."""
        if MODES.recorder is not None:
            MODES.recorder.reject("Module.to() can't be captured", fix="convert the module before")
        for x in [*self.parameters(), *self.buffers()]:
            converts = x.dtype.is_floating_point or (x.dtype.is_complex and dtype.is_complex)
            if converts and x.dtype is not dtype:
                grad = x.grad
                x.grad = None
                _move(x, x.detach().to(dtype))
                x.grad = None if grad is None else grad.to(dtype)
        return self

    def _transfer(self, device: Device, non_blocking: bool = False) -> Self:
        """Parameters, buffers and gradients on `device`."""
        moving = [x for x in (*self.parameters(), *self.buffers()) if x.device is not device]
        if moving and MODES.recorder is not None:
            MODES.recorder.reject("Module.to() can't be captured", fix="move the module before")
        for x in moving:
            grad = x.grad
            x.grad = None
            _move(x, x.detach().to(device, non_blocking=non_blocking))
            x.grad = None if grad is None else grad.to(device, non_blocking=non_blocking)
        return self

    def type(self, dst_type: DType) -> Self:
        """`to(dst_type)`."""
        return self.to(dst_type)

    def cpu(self) -> Self:
        """Parameters, buffers and gradients on the CPU."""
        return self._transfer(CPU)

    def cuda(self, device: Any = None) -> Self:
        """Parameters, buffers and gradients on a GPU (the current one unless told). DeviceError when there is none."""
        return self._transfer(gpu_named("cuda", device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """The same parameters and buffers on `device`, of zeros: what they held is not moved. `recurse`: those of all
        modules in this one, too."""
        there = placed("to_empty", device)
        for module in self.modules() if recurse else (self,):
            for x in (*module._parameters.values(), *module._buffers.values()):
                if x is not None:
                    _move(x, empty(x._layout.shape, dtype=x.dtype, device=there))
                    x.grad = None
        return self

    def float(self) -> Self:
        """Floating point parameters and buffers as float32; complex ones stay."""
        return self._convert(T.float32)

    def double(self) -> Self:
        """Floating point parameters and buffers as float64; complex ones stay."""
        return self._convert(T.float64)

    def half(self) -> Self:
        """Floating point parameters and buffers as float16; complex ones stay."""
        return self._convert(T.float16)

    def bfloat16(self) -> Self:
        """Floating point parameters and buffers as bfloat16; complex ones stay."""
        return self._convert(T.bfloat16)

    # ------------------------------------------------------------------------------------- showing

    def _get_name(self) -> str:
        return self.__class__.__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's repr."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): " + repr(m).replace("\n", "\n  ") for name, m in self._modules.items()]
        lines = [*(extra.split("\n") if extra else []), *children]
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _no_attribute(module: Module, name: str) -> str:
    import difflib  # only for messages: start-up time

    near = [] if name.startswith("__") else difflib.get_close_matches(name, dir(module), n=1)
    hint = f". Did you mean: {near[0]!r}?" if near else ""
    return f"{type(module).__name__!r} object has no attribute {name!r}{hint}"


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[DType | None, Device | None, bool]:
    """The dtype and the device that the arguments of `to` ask for, and whether not to wait. ArgumentError for what they
    can't be."""
    known = {"device", "dtype", "tensor", "non_blocking", "copy", "memory_format"}
    if unknown := sorted(set(kwargs) - known):
        raise ArgumentError(f"unknown argument {unknown[0]!r}", op="to")
    found: DType | None = None
    device: Device | None = None
    for x in [*args, *(kwargs[k] for k in ("device", "dtype", "tensor") if k in kwargs)]:
        if isinstance(x, (DType, Tensor)):
            found = x if isinstance(x, DType) else x.dtype
            device = x.device if isinstance(x, Tensor) else device
        elif isinstance(x, (str, Device)) or (isinstance(x, int) and not isinstance(x, bool)):
            device = placed("to", x)
        elif x is not None and not isinstance(x, bool):
            raise ArgumentError(f"to() takes a kiln dtype, a device or a tensor, not {type(x).__name__}")
    return found, device, any(x is True for x in args) or bool(kwargs.get("non_blocking"))


def _move(x: Tensor, converted: Tensor) -> None:
    """`x` becomes a name for the memory of `converted`."""
    x._buffer, x._ptr, x._layout = converted._buffer, converted._ptr, converted._layout
