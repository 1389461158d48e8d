"""The base of optimisers: parameter groups, state, saving and loading it.

State is created with the optimiser, not in the first step, and consists of tensors only, which `step` updates in place
(docs/decisions/0004). So a step changes no Python object, and a captured training step stays right for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from kiln.autograd import enable_grad, no_grad
from kiln.errors import ArgumentError, InvalidValueError, LoadError
from kiln.tensor import Tensor

Parameters: TypeAlias = "Iterable[Tensor] | Iterable[Mapping[str, Any]]"
Number: TypeAlias = "float | Tensor"
"""Options may be 0-d tensors: changing their content needs no new compilation."""


class Optimizer:
    """Holds `param_groups` (each a dict of "params" and options) and `state` (tensors by name for each parameter).

    A subclass gives its `defaults`, what state a parameter has, and how to update it.
    """

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise ArgumentError("takes an iterable of tensors, not one tensor", op=type(self).__name__)
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        given = list(params)
        if not given:
            raise InvalidValueError("got no parameters", op=type(self).__name__)
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            if not isinstance(group, Mapping):
                raise ArgumentError(f"expected groups, found {type(group).__name__}", op=type(self).__name__)
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own; what is not given comes from the defaults. Their state is
        created now."""
        name = type(self).__name__
        params = param_group["params"]
        group = {
            **self.defaults,
            **param_group,
            "params": [params] if isinstance(params, Tensor) else list(params),
        }
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise InvalidValueError(f"no option {', '.join(sorted(unknown))}", op=name)
        known = {id(p) for p in self.state}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise ArgumentError(f"parameters are tensors, not {type(p).__name__}", op=name)
            if not p.is_leaf:
                raise InvalidValueError("can't train a tensor that was computed", op=name, operands=[p.ttype])
            if id(p) in known:
                raise InvalidValueError("a parameter was given twice", op=name, operands=[p.ttype])
            known.add(id(p))
        self.check(group)
        self.param_groups.append(group)
        with no_grad():
            for p in group["params"]:
                self.state[p] = self.create_state(p, group)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise InvalidValueError for options that make no sense."""

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors that go with a parameter."""
        raise NotImplementedError(f"{type(self).__name__} does not define create_state()")

    def update(self, p: Tensor, grad: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> None:
        """One step for one parameter, in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. `closure`, if given, is called first, with gradients enabled;
        its result is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    grad = p.grad
                    if grad is not None:
                        self.update(p, grad, self.state[p], group)
        return loss

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
        numbered in order. The tensors are the optimiser's own."""
        number = {id(p): i for i, p in enumerate(self._order())}
        groups = [{**group, "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {
            "state": {number[id(p)]: dict(state) for p, state in self.state.items()},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a `state_dict` into this optimiser, whose groups must be of the same sizes. The state's tensors keep
        their identity. LoadError, before anything is changed, for a state that does not fit."""
        groups, state = state_dict.get("param_groups"), state_dict.get("state")
        if not isinstance(groups, Sequence) or not isinstance(state, Mapping):
            raise LoadError("not the state of an optimiser: it has no param_groups or no state")
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in groups] != sizes:
            raise LoadError(f"this state has groups of other sizes than the optimiser's {sizes}")
        numbers = [n for group in groups for n in group["params"]]
        copies: list[tuple[Tensor, Tensor]] = []
        for n, p in zip(numbers, self._order(), strict=True):
            loaded, own = state.get(n, {}), self.state[p]
            if set(loaded) != set(own):
                raise LoadError(f"parameter {n} has state {sorted(loaded)}, expected {sorted(own)}")
            for name, value in loaded.items():
                if not isinstance(value, Tensor) or value.shape != own[name].shape:
                    what = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                    raise LoadError(f"{name} of parameter {n}: {what}, expected shape {list(own[name].shape)}")
                copies.append((own[name], value))
        for group, loaded_group in zip(self.param_groups, groups, strict=True):
            self.check({**group, **{k: v for k, v in loaded_group.items() if k in self.defaults}})
        with no_grad():
            for own_tensor, value in copies:
                own_tensor.copy_(value)
        for group, loaded_group in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in loaded_group.items() if k in self.defaults})

    def __repr__(self) -> str:
        groups = []
        for i, group in enumerate(self.param_groups):
            options = "\n".join(f"    {k}: {v}" for k, v in group.items() if k != "params")
            groups.append(f"  group {i}: {len(group['params'])} parameters\n{options}\n")
        return f"{type(self).__name__} (\n{''.join(groups)})"


def check_number(name: str, value: Any, low: float, high: float = float("inf")) -> None:
    """InvalidValueError unless low <= value < high; tensors are not looked at."""
    if isinstance(value, Tensor):
        return
    if not isinstance(value, (int, float)) or not low <= value < high:
        raise InvalidValueError(f"{name} must be in [{low}, {high}), got {value!r}")
