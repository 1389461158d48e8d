"""What all optimisers share: parameter groups, state, gradients to zero, saving and loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kiln.autograd import no_grad
from kiln.errors import ArgumentError, InvalidValueError, LoadError
from kiln.tensor import Tensor

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """Base class. State tensors are made when a group is added, not in the first step, so that a captured step
    meets the same state in every call; they are updated in place."""

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.param_groups: list[dict[str, Any]] = []
        items = list(params)
        if not items:
            raise InvalidValueError("an optimizer needs at least one parameter", op=type(self).__name__)
        for group in items if isinstance(items[0], dict) else [{"params": items}]:
            self.add_param_group(group)  # type: ignore[arg-type]

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own; what the group does not set is the default."""
        found = group["params"]
        params = [found] if isinstance(found, Tensor) else list(found)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise ArgumentError("parameters are leaf tensors", op=type(self).__name__)
            if id(p) in known:
                raise InvalidValueError("a parameter is in two places", op=type(self).__name__)
            known.add(id(p))
        added = {**self.defaults, **group, "params": params}
        self.check(added)
        self.param_groups.append(added)
        with no_grad():
            self.init_group(added)

    def check(self, group: Mapping[str, Any]) -> None:
        """InvalidValueError for settings out of range."""
        for name in ("lr", "weight_decay", "momentum", "eps"):
            if group.get(name, 0) < 0:
                raise InvalidValueError(f"{name}={group[name]} is negative", op=type(self).__name__)

    def init_group(self, group: dict[str, Any]) -> None:
        """Make the state of a group's parameters."""

    def update(self, group: dict[str, Any], p: Tensor, grad: Tensor, shared: Sequence[Tensor]) -> None:
        """Update one parameter in place; `shared` is what `begin` returned."""
        raise NotImplementedError

    def begin(self, group: dict[str, Any]) -> Sequence[Tensor]:
        """Called once per group and step: numbers that the updates of all its parameters share."""
        return ()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        with no_grad():
            for group in self.param_groups:
                shared = self.begin(group)
                for p in group["params"]:
                    grad = p.grad
                    if grad is not None:
                        self.update(group, p, grad, shared)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget (or zero) the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """State by parameter number, and the groups with parameter numbers, as PyTorch lays it out."""
        numbers = {id(p): k for k, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in self.param_groups]
        return {
            "state": {numbers[id(p)]: {k: t.clone() for k, t in s.items()} for p, s in self.state.items()},
            "param_groups": [{k: v for k, v in g.items() if not isinstance(v, Tensor)} for g in groups],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over state and settings; LoadError when they belong to other parameters."""
        groups = state["param_groups"]
        sizes = [len(g["params"]) for g in self.param_groups]
        if [len(g["params"]) for g in groups] != sizes:
            raise LoadError("the state has other parameter groups", op=type(self).__name__)
        params = [p for g in self.param_groups for p in g["params"]]
        with no_grad():
            for k, p in enumerate(params):
                saved = state["state"].get(k, {})
                if set(saved) != set(self.state.get(p, {})):
                    raise LoadError(f"the state of parameter {k} has other entries", op=type(self).__name__)
                for name, t in saved.items():
                    self.state[p][name].copy_(t)
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update({k: v for k, v in group.items() if k != "params"})
