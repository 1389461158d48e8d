"""`kl_divergence(p, q)`: the mean of log p(x) - log q(x) under p, by a formula for the pair of families.

The rules of kiln's own pairs stand in `divergences.py`; `register_kl` adds others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kiln.distributions.distribution import Distribution
from kiln.errors import ArgumentError

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["kl_divergence", "register_kl"]

Rule = Callable[[Any, Any], "Tensor"]
R = TypeVar("R", bound=Callable[..., Any])
Pair = tuple[type[Distribution], type[Distribution]]

_RULES: dict[Pair, Rule] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[R], R]:
    """Decorate a function of p and q as the rule for this pair of classes and their subclasses.

    @register_kl(MyNormal, Normal)
    def divergence(p, q):
        return ...
    """
    for name, kind in (("type_p", type_p), ("type_q", type_q)):
        if not isinstance(kind, type) or not issubclass(kind, Distribution):
            raise ArgumentError(f"Expected {name} to be a Distribution subclass but got {kind}", op="register_kl")

    def register(rule: R) -> R:
        _RULES[type_p, type_q] = rule
        return rule

    return register


def _rule(p: type[Distribution], q: type[Distribution]) -> Rule | None:
    """The most specific one. Warns where it depends on which argument is looked at first."""
    if (p, q) in _RULES:
        return _RULES[p, q]
    matches = [pair for pair in _RULES if issubclass(p, pair[0]) and issubclass(q, pair[1])]
    if not matches:
        return None
    # A class precedes its bases in the order of resolution, so the nearest comes first.
    by_p = min(matches, key=lambda pair: (p.__mro__.index(pair[0]), q.__mro__.index(pair[1])))
    by_q = min(matches, key=lambda pair: (q.__mro__.index(pair[1]), p.__mro__.index(pair[0])))
    if _RULES[by_p] is not _RULES[by_q]:
        warnings.warn(
            f"Ambiguous kl_divergence({p.__name__}, {q.__name__}). "
            f"Please register_kl({by_p[0].__name__}, {by_q[1].__name__})",
            RuntimeWarning,
            stacklevel=3,
        )
    return _RULES[by_p]


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), of the shape of the batch. NotImplementedError where no rule is registered for the pair."""
    rule = _rule(type(p), type(q))
    if rule is None:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
        )
    return rule(p, q)
