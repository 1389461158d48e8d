"""From constraints to transforms that fulfil them: `biject_to` gives bijections from real numbers, `transform_to` what
optimises well, bijective or not.

    scale = transform_to(constraints.positive)(free)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from kiln.distributions import bijectors, constraints, transform
from kiln.distributions.constraints import Constraint
from kiln.distributions.transform import Transform
from kiln.distributions.utils import are_numbers
from kiln.errors import ArgumentError

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]

Factory = TypeVar("Factory", bound=Callable[[Any], Transform])


class ConstraintRegistry:
    """Makes a transform for a constraint, by the constraint's class.

    @transform_to.register(MyConstraint)
    def make(constraint):
        return MyTransform(constraint.bound)
    """

    def __init__(self) -> None:
        self._registry: dict[type[Constraint], Callable[[Any], Transform]] = {}

    @overload
    def register(self, constraint: Any, factory: None = None) -> Callable[[Factory], Factory]: ...

    @overload
    def register(self, constraint: Any, factory: Factory) -> Factory: ...

    def register(self, constraint: Any, factory: Any = None) -> Any:
        """Let `factory` make transforms for constraints of a class (an instance stands for its class); without
        `factory` this is a decorator."""
        if factory is None:
            return lambda factory: self.register(constraint, factory)
        kind = type(constraint) if isinstance(constraint, Constraint) else constraint
        if not isinstance(kind, type) or not issubclass(kind, Constraint):
            raise ArgumentError(
                f"Expected constraint to be either a Constraint subclass or instance, but got {constraint}",
                op="register",
            )
        self._registry[kind] = factory
        return factory

    def __call__(self, constraint: Constraint) -> Transform:
        """The transform whose codomain is the constraint. NotImplementedError if none is registered."""
        factory = self._registry.get(type(constraint))
        if factory is None:
            raise NotImplementedError(f"Cannot transform {type(constraint).__name__} constraints")
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _both(*kinds: Any) -> Callable[[Factory], Factory]:
    """Register with both."""

    def register(factory: Factory) -> Factory:
        for kind in kinds:
            biject_to.register(kind, factory)
            transform_to.register(kind, factory)
        return factory

    return register


@_both(constraints.real)
def _real(constraint: Any) -> Transform:
    return transform.identity_transform


@_both(constraints.greater_than, constraints.greater_than_eq)
def _greater_than(constraint: Any) -> Transform:
    bound = constraint.lower_bound
    if are_numbers(bound) and bound == 0:
        return bijectors.ExpTransform()
    return transform.ComposeTransform([bijectors.ExpTransform(), bijectors.AffineTransform(bound, 1)])


@_both(constraints.less_than)
def _less_than(constraint: Any) -> Transform:
    return transform.ComposeTransform([bijectors.ExpTransform(), bijectors.AffineTransform(constraint.upper_bound, -1)])


@_both(constraints.interval, constraints.half_open_interval)
def _interval(constraint: Any) -> Transform:
    low, high = constraint.lower_bound, constraint.upper_bound
    if are_numbers(low, high) and (low, high) == (0, 1):
        return bijectors.SigmoidTransform()
    return transform.ComposeTransform([bijectors.SigmoidTransform(), bijectors.AffineTransform(low, high - low)])


@_both(constraints.corr_cholesky)
def _corr_cholesky(constraint: Any) -> Transform:
    return bijectors.CorrCholeskyTransform()


@biject_to.register(constraints.simplex)
def _biject_to_simplex(constraint: Any) -> Transform:
    return bijectors.StickBreakingTransform()


@transform_to.register(constraints.simplex)
def _transform_to_simplex(constraint: Any) -> Transform:
    return bijectors.SoftmaxTransform()


@transform_to.register(constraints.lower_cholesky)
def _lower_cholesky(constraint: Any) -> Transform:
    return bijectors.LowerCholeskyTransform()


@transform_to.register(constraints.positive_semidefinite)
@transform_to.register(constraints.positive_definite)
def _positive_definite(constraint: Any) -> Transform:
    return bijectors.PositiveDefiniteTransform()


def _of_others(registry: ConstraintRegistry) -> None:
    """Constraints made of others, by the same registry."""

    @registry.register(constraints.independent)
    def _independent(constraint: Any) -> Transform:
        return transform.IndependentTransform(
            registry(constraint.base_constraint), constraint.reinterpreted_batch_ndims
        )

    @registry.register(constraints.cat)
    def _cat(constraint: Any) -> Transform:
        return transform.CatTransform([registry(c) for c in constraint.cseq], constraint.dim, constraint.lengths)

    @registry.register(constraints.stack)
    def _stack(constraint: Any) -> Transform:
        return transform.StackTransform([registry(c) for c in constraint.cseq], constraint.dim)


_of_others(biject_to)
_of_others(transform_to)
