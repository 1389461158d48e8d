"""The base of optimisers: parameter groups, state, saving and loading it.

State is created with the optimiser, not in the first step, and consists of tensors only, which `step` updates in place
(docs/decisions/0004). So a step changes no Python object, and a captured training step stays right for ever; that it
sees the numbers which schedules change is the work of `groups.py` (docs/decisions/0006).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from kiln.autograd import enable_grad, no_grad
from kiln.autograd.hooks import RemovableHandle
from kiln.base import MODES
from kiln.complexes import view_as_real
from kiln.errors import ArgumentError, InvalidValueError, LoadError, NotYetError
from kiln.optim.fused import Steps
from kiln.optim.groups import Group
from kiln.pytree import map_tree
from kiln.tensor import Tensor

Parameters: TypeAlias = "Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]"
Number: TypeAlias = "float | Tensor"
"""Options may be 0-d tensors: changing their content needs no new compilation."""

_IMPLEMENTATION = ("foreach", "capturable", "fused")


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` between an optimiser's hooks, unless it is called by a step that overrides it."""

    @functools.wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if type(self).step is not hooked:
            return step(self, *args, **kwargs)
        for hook in tuple(self._pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise ArgumentError("a hook before a step returns None or (args, kwargs)", op=type(self).__name__)
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        for hook in tuple(self._post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return hooked


class Optimizer:
    """Holds `param_groups` (each a mapping of "params" and options) and `state` (tensors by name for each parameter).

    A subclass gives its `defaults`, what state a parameter has, and how to update it. Or it overrides `step`, keeping
    what it likes in `state[p]`.
    """

    assumed: ClassVar[Mapping[str, float]] = {}
    """State that a loaded state may lack, and the number it then is."""

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise ArgumentError("takes an iterable of tensors, not one tensor", op=type(self).__name__)
        self.defaults = defaults
        self._pre_hooks: dict[int, Any] = {}
        self._post_hooks: dict[int, Any] = {}
        self.param_groups: list[Group] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        given = list(params)
        if not given:
            raise InvalidValueError("got no parameters", op=type(self).__name__)
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            if not isinstance(group, Mapping):
                raise ArgumentError(f"expected groups, found {type(group).__name__}", op=type(self).__name__)
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])  # type: ignore[method-assign]

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters (tensors, or pairs of a name and a tensor) with options of their own; what is not given comes
        from the defaults. Their state is created now."""
        name = type(self).__name__
        given = param_group["params"]
        given = [given] if isinstance(given, Tensor) else list(given)
        options = {**self.defaults, **param_group, "params": given}
        if given and isinstance(given[0], tuple):
            options["param_names"] = [str(n) for n, _ in given]
            options["params"] = given = [p for _, p in given]
        known = {id(p) for p in self.state}
        for p in given:
            if not isinstance(p, Tensor):
                raise ArgumentError(f"parameters are tensors, not {type(p).__name__}", op=name)
            if not p.is_leaf:
                raise InvalidValueError("can't train a tensor that was computed", op=name, operands=[p.ttype])
            if id(p) in known:
                raise InvalidValueError("a parameter was given twice", op=name, operands=[p.ttype])
            known.add(id(p))
        self.check(options)
        self.param_groups.append(Group(options, self._complete))
        with no_grad():
            for p in given:
                self.state[p] = self._created(p, options)

    def _complete(self, group: Group) -> None:
        """Add the state that newly set options ask for (a momentum that was 0)."""
        with no_grad():
            for p in group["params"]:
                own = self.state.get(p)
                if own is not None:
                    for name, value in self._created(p, group).items():
                        own.setdefault(name, value)

    def _created(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """New state, which counts as not written to."""
        made = self.create_state(p, group)
        for x in made.values():
            if isinstance(x, Tensor):
                x._buffer.version = 0
        return made

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise InvalidValueError for options that make no sense."""

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors that go with a parameter."""
        return {}

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """One step for one parameter, in place. Numbers among the options that schedules change may be float64
        tensors: `kiln.optim.groups`."""
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    @_hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. `closure`, if given, is called first, with gradients enabled;
        its result is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                fused = self._steps(group)
                try:
                    self._step(group.current(), fused)
                finally:
                    if fused is not None:
                        fused.finish()
        return loss

    def _step(self, options: Mapping[str, Any], fused: Steps | None) -> None:
        """One step of a group."""
        for p in options["params"]:
            grad = p.grad
            if grad is None or (fused is not None and fused.take(p, grad, self.state[p])):
                continue
            if fused is not None:
                fused.finish()  # in order, since memory may be shared
            self.follow(p, options)
            grad = -grad if options.get("maximize") else grad
            if p.dtype.is_complex:
                self._update_parts(p, grad, self.state[p], options)
            else:
                self.update(p, grad, self.state[p], options)

    def follow(self, p: Tensor, options: Mapping[str, Any]) -> bool:
        """Bring state to where its parameter has gone since it was made (`module.cuda()`). What no step has written yet
        also takes the dtype that the parameter has now, as if it were made in the first step. False if all is well."""
        state = self.state[p]
        device, dtype, shape = p._layout.device, p._layout.dtype, p._layout.shape
        own = {name: x for name, x in state.items() if isinstance(x, Tensor)}
        strange = [x for x in own.values() if x.dtype is not dtype and x._layout.shape == shape and shape]
        away = {name: x for name, x in own.items() if x._layout.device is not device}
        fresh = not any(x._buffer.version for x in own.values())
        if not away and not (strange and fresh):
            return False
        recorder, MODES.recorder = MODES.recorder, None  # it is not made in every call of a captured step
        try:
            made = self._created(p, options) if fresh else {name: x.to(device) for name, x in away.items()}
        finally:
            MODES.recorder = recorder
        changed = [n for n, x in made.items() if n not in own or x.ttype != own[n].ttype]
        state.update({name: made[name] for name in changed})
        return bool(changed)

    def before_capture(self) -> None:
        """What a step does once is done before the function is captured that it is part of."""
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if self.state.get(p):
                        self.follow(p, group)

    def _update_parts(self, p: Tensor, grad: Tensor, state: dict[str, Any], options: Mapping[str, Any]) -> None:
        """Complex numbers are trained as their parts are (PyTorch's rule): through views of the same memory."""

        def parts(x: Any) -> Any:
            return view_as_real(x) if isinstance(x, Tensor) and x.dtype.is_complex else x

        self.update(parts(p), parts(grad), {name: parts(x) for name, x in state.items()}, options)

    def _steps(self, group: Group) -> Steps | None:
        """Steps of the group as native calls of their own, if it can have such: not where they are captured."""
        if MODES.recorder is not None:
            return None
        steps = group.steps
        if steps is None or not steps.fit(group):
            steps = group.steps = Steps(self, group)
        steps.near.clear()
        return steps if steps.possible else None

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) before each step, which takes the (args, kwargs) that it returns, if any.
        The handle's `remove()` takes it away."""
        return RemovableHandle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) after each step."""
        return RemovableHandle(self._post_hooks, hook)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or make them zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.detach().zero_()

    # ------------------------------------------------------------------------------------- state

    def _order(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {name: tensor}}, "param_groups": [options, with "params" as numbers]}; parameters are
        numbered in order, those without state are left out. The tensors are the optimiser's own."""
        number = {id(p): i for i, p in enumerate(self._order())}
        groups = [{**group, "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {
            "state": {number.get(id(p), p): dict(state) for p, state in self.state.items() if state},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a `state_dict` into this optimiser, whose groups must be of the same sizes. The state's tensors keep
        their identity where options keep their state. Options and state that only the loaded one has are taken over; a
        parameter without state starts afresh. LoadError, before anything is changed, for a state that does not fit."""
        groups, state = state_dict.get("param_groups"), state_dict.get("state")
        if not isinstance(groups, Sequence) or not isinstance(state, Mapping):
            raise LoadError("not the state of an optimiser: it has no param_groups or no state")
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in groups] != sizes:
            raise LoadError(f"this state has groups of other sizes than the optimiser's {sizes}")
        plan: list[tuple[Tensor, dict[str, Any]]] = []
        options = []
        with no_grad():
            for own, group in zip(self.param_groups, groups, strict=True):
                options.append({k: v for k, v in group.items() if k not in ("params", "param_names")})
                merged = {**own, **options[-1]}
                self.check(merged)
                for n, p in zip(group["params"], own["params"], strict=True):
                    given = {k: v for k, v in state.get(n, {}).items() if v is not None}
                    plan.append((p, self._fitted(n, given, self.create_state(p, merged))))
            for own, new in zip(self.param_groups, options, strict=True):
                own.update(new)
            for p, loaded in plan:
                self.state[p] = _replaced(self.state[p], loaded)

    def _fitted(self, n: int, given: dict[str, Any], created: dict[str, Any]) -> dict[str, Any]:
        """The state of parameter `n` with what was loaded for it in place of what a new one would have."""
        if not created or not given:
            return map_tree(_copied, given) if given else created
        lacking = {k: v for k, v in self.assumed.items() if k in created}
        if set({**lacking, **given}) != set(created):
            raise LoadError(f"parameter {n} has state {sorted(given)}, expected {sorted(created)}")
        for name, value in {**lacking, **given}.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            if not isinstance(value, (Tensor, int, float)) or shape != created[name].shape:
                what = f"shape {list(shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise LoadError(f"{name} of parameter {n}: {what}, expected shape {list(created[name].shape)}")
            created[name].copy_(value)
        return created

    def __repr__(self) -> str:
        groups = []
        for i, group in enumerate(self.param_groups):
            options = "\n".join(f"    {k}: {v}" for k, v in group.items() if k != "params")
            groups.append(f"  group {i}: {len(group['params'])} parameters\n{options}\n")
        return f"{type(self).__name__} (\n{''.join(groups)})"


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _replaced(own: dict[str, Any], loaded: dict[str, Any]) -> dict[str, Any]:
    """`own` with the values of `loaded`: tensors that are there in both stay the same objects."""
    for name in set(own) - set(loaded):
        del own[name]
    for name, value in loaded.items():
        held = own.get(name)
        if isinstance(held, Tensor) and isinstance(value, Tensor) and held.ttype == value.ttype:
            held.copy_(value)
        else:
            own[name] = value
    return own


def check_number(op: str, name: str, value: Any, low: float, high: float = float("inf")) -> None:
    """InvalidValueError unless low <= value < high; tensors are not looked at."""
    if isinstance(value, Tensor):
        return
    if not isinstance(value, (int, float)) or not low <= value < high:
        limit = "" if high == float("inf") else f" and below {high}"
        raise InvalidValueError(
            f"{name} must be in [{low}, {high}), got {value!r}", op=op, fix=f"pass a number of at least {low}{limit}"
        )


def as_pair(betas: Any) -> Any:
    """A tuple of a sequence; what is none is left for `check_betas` to refuse."""
    return tuple(betas) if isinstance(betas, Sequence) else betas


def check_betas(op: str, betas: Any) -> None:
    """InvalidValueError unless a pair of numbers (or tensors) in [0, 1)."""
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise InvalidValueError(f"betas must be a pair, got {betas!r}", op=op, fix="pass two numbers in [0, 1)")
    for i, beta in enumerate(betas):
        check_number(op, f"betas[{i}]", beta, 0.0, 1.0)


def check_implementation(options: Mapping[str, Any], op: str) -> None:
    """The keywords by which PyTorch's optimisers choose an implementation: `foreach`, `capturable` and `fused` change
    nothing here. NotYetError for differentiable=True, ArgumentError for other keywords."""
    for name, value in options.items():
        if name == "differentiable":
            if value:
                raise NotYetError("differentiable=True is not supported", op=op)
        elif name not in _IMPLEMENTATION:
            raise ArgumentError(f"got an unexpected keyword argument {name!r}", op=op)


def present(value: Number) -> bool:
    """Whether an option has a term: a tensor always has, whatever it holds."""
    return isinstance(value, Tensor) or value != 0


def at(value: Tensor, like: Tensor) -> Tensor:
    """A single number that was computed in float64, in the dtype of `like`."""
    return value.to(like.dtype)


def times(x: Tensor, value: Number) -> Tensor:
    """x * value, whether that is a number or a single number in a tensor: the same bits, since 16-bit floats are
    multiplied in float32, and rounded once."""
    if not isinstance(value, Tensor):
        return x * value
    if x.dtype.is_half:
        return (x.float() * value.float()).to(x.dtype)
    return x * value.to(x.dtype)


def scale_(x: Tensor, value: Number) -> None:
    """x = times(x, value), in place."""
    if isinstance(value, Tensor) and x.dtype.is_half:
        x.copy_(times(x, value))
    else:
        x.mul_(value.to(x.dtype) if isinstance(value, Tensor) else value)


def decayed(grad: Tensor, p: Tensor, decay: Number) -> Tensor:
    """grad + decay * p."""
    return grad + times(p, decay) if present(decay) else grad
