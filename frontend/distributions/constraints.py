"""Constraints: regions that values lie in. `check` says, for each event of a tensor, whether it does.

A constraint knows the dimensions of one event (`event_dim`) and whether its values are discrete. `dependent` stands for
one that only an instance knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import linalg
from kiln.creation import full
from kiln.dtypes import finfo
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.types import bool_
from kiln.pointwise import isclose

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("Constraint", "MixtureSameFamilyConstraint", "boolean", "cat", "corr_cholesky", "dependent"),
    *("dependent_property", "greater_than", "greater_than_eq", "half_open_interval", "independent"),
    *("integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky", "lower_triangular"),
    *("multinomial", "nonnegative", "nonnegative_integer", "one_hot", "positive", "positive_definite"),
    *("positive_integer", "positive_semidefinite", "real", "real_vector", "simplex", "square", "stack"),
    *("symmetric", "unit_interval"),
]


class Constraint:
    """A region over which a variable is valid."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        """For each event of `value` (its last `event_dim` dimensions), whether it lies in the region: bool."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__[1:]}()"


class _Bounded(Constraint):
    """A constraint with bounds, numbers or tensors, that its representation shows."""

    def __repr__(self) -> str:
        bounds = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__[1:]}({bounds})"


class _Dependent(Constraint):
    """Stands for a constraint that depends on other variables, and so on an instance."""

    def __init__(self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented) -> None:
        self._is_discrete, self._event_dim = is_discrete, event_dim

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether its values are discrete, if every instance agrees."""
        if self._is_discrete is NotImplemented:
            raise NotImplementedError(".is_discrete cannot be determined statically")
        return bool(self._is_discrete)

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """The dimensions of an event, if every instance agrees."""
        if self._event_dim is NotImplemented:
            raise NotImplementedError(".event_dim cannot be determined statically")
        return int(self._event_dim)

    def __call__(self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented) -> Any:
        """The same with more known of it."""
        return _Dependent(
            is_discrete=self._is_discrete if is_discrete is NotImplemented else is_discrete,
            event_dim=self._event_dim if event_dim is NotImplemented else event_dim,
        )

    def check(self, value: Tensor) -> Tensor:
        """Not known: InvalidValueError."""
        raise InvalidValueError("Cannot determine validity of dependent constraint", op="check")


def is_dependent(constraint: object) -> bool:
    """Whether only an instance knows what the constraint is."""
    return isinstance(constraint, _Dependent)


class _DependentProperty(property, _Dependent):
    """A property that is a constraint: a dependent one when asked of the class.

    class Uniform(Distribution):
        @constraints.dependent_property(is_discrete=False, event_dim=0)
        def support(self):
            return constraints.interval(self.low, self.high)
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        is_discrete: Any = NotImplemented,
        event_dim: Any = NotImplemented,
    ) -> None:
        super().__init__(fn)
        self._is_discrete, self._event_dim = is_discrete, event_dim

    def __call__(self, fn: Callable[..., Any]) -> _DependentProperty:  # type: ignore[override]
        """Decorate a method."""
        return _DependentProperty(fn, is_discrete=self._is_discrete, event_dim=self._event_dim)


class _IndependentConstraint(Constraint):
    """A constraint of which the last `reinterpreted_batch_ndims` dimensions of the batch belong to the event."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: Any) -> None:
        _be_constraints("independent", base_constraint)
        if not isinstance(reinterpreted_batch_ndims, int):
            kind = type(reinterpreted_batch_ndims).__name__
            raise ArgumentError(f"reinterpreted_batch_ndims must be an int, got {kind}", op="independent")
        if reinterpreted_batch_ndims < 0:
            raise InvalidValueError(
                f"reinterpreted_batch_ndims must be >= 0, got {reinterpreted_batch_ndims}", op="independent"
            )
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims: int = reinterpreted_batch_ndims

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """That of the base."""
        return self.base_constraint.is_discrete

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """That of the base, and those taken from the batch."""
        return self.base_constraint.event_dim + self.reinterpreted_batch_ndims

    def check(self, value: Tensor) -> Tensor:
        """An event is valid if all of its parts are."""
        result = self.base_constraint.check(value)
        if result.ndim < self.reinterpreted_batch_ndims:
            raise InvalidValueError(f"Expected value.dim() >= {self.event_dim} but got {value.ndim}", op="check")
        return _all_of_last(result, self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"{type(self).__name__[1:]}({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamilyConstraint(Constraint):
    """What all components of a mixture support; the dimension of the components is put in for the check."""

    def __init__(self, base_constraint: Constraint) -> None:
        _be_constraints("MixtureSameFamilyConstraint", base_constraint)
        self.base_constraint = base_constraint

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """That of the components."""
        return self.base_constraint.is_discrete

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """That of the components."""
        return self.base_constraint.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Whether every component would take the value."""
        if value.ndim < self.event_dim:
            raise InvalidValueError(f"Expected value.dim() >= {self.event_dim} but got {value.ndim}", op="check")
        result = self.base_constraint.check(value.unsqueeze(-1 - self.event_dim))
        return _all_of_last(result, result.ndim - (value.ndim - self.event_dim))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_constraint!r})"


def _all_of_last(result: Tensor, dims: int) -> Tensor:
    return result.reshape((*result.shape[: result.ndim - dims], -1)).all(-1)


def _be_constraints(op: str, *constraints: object) -> None:
    for c in constraints:
        if not isinstance(c, Constraint):
            raise ArgumentError(f"expected a Constraint, got {type(c).__name__}", op=op)


def _whole(value: Tensor) -> Tensor:
    return value % 1 == 0


class _Boolean(Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value == 0) | (value == 1)


class _OneHot(Constraint):
    is_discrete = True
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == 1)


class _IntegerInterval(_Bounded):
    is_discrete = True

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    def check(self, value: Tensor) -> Tensor:
        return _whole(value) & F.ge(value, self.lower_bound) & F.le(value, self.upper_bound)


class _IntegerGreaterThan(_Bounded):
    is_discrete = True

    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound

    def check(self, value: Tensor) -> Tensor:
        return _whole(value) & F.ge(value, self.lower_bound)


class _Real(Constraint):
    def check(self, value: Tensor) -> Tensor:
        return value == value  # not NaN


class _GreaterThan(_Bounded):
    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound

    def check(self, value: Tensor) -> Tensor:
        return F.gt(value, self.lower_bound)


class _GreaterThanEq(_Bounded):
    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound

    def check(self, value: Tensor) -> Tensor:
        return F.ge(value, self.lower_bound)


class _LessThan(_Bounded):
    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Tensor) -> Tensor:
        return F.lt(value, self.upper_bound)


class _Interval(_Bounded):
    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    def check(self, value: Tensor) -> Tensor:
        return F.ge(value, self.lower_bound) & F.le(value, self.upper_bound)


class _HalfOpenInterval(_Interval):
    def check(self, value: Tensor) -> Tensor:
        return F.ge(value, self.lower_bound) & F.lt(value, self.upper_bound)


class _Simplex(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-6)


class _Multinomial(Constraint):
    """Counts that add up to at most `upper_bound`."""

    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(-1) & F.le(value.sum(-1), self.upper_bound)


class _LowerTriangular(Constraint):
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (value.tril() == value).all(-1).all(-1)


class _LowerCholesky(_LowerTriangular):
    def check(self, value: Tensor) -> Tensor:
        return super().check(value) & (value.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


class _CorrCholesky(_LowerCholesky):
    """Rows have the length 1, within 10 roundings for each of their elements."""

    def check(self, value: Tensor) -> Tensor:
        tolerance: float = finfo(value.dtype).eps * value.shape[-1] * 10
        length = linalg.norm(value.detach(), dim=-1)
        return super().check(value) & ((length - 1.0).abs() <= tolerance).all(-1)


class _Square(Constraint):
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return full(value.shape[:-2], value.shape[-2] == value.shape[-1], dtype=bool_, device=value.device)


class _Symmetric(_Square):
    def check(self, value: Tensor) -> Tensor:
        if value.shape[-2] != value.shape[-1]:
            return super().check(value)
        return isclose(value, value.mT, atol=1e-6).all(-2).all(-1)


class _PositiveSemidefinite(_Symmetric):
    def check(self, value: Tensor) -> Tensor:
        symmetric = super().check(value)
        if value.shape[-2] != value.shape[-1]:
            return symmetric
        return symmetric & (linalg.eigvalsh(value) >= 0).all(-1)


class _PositiveDefinite(_Symmetric):
    def check(self, value: Tensor) -> Tensor:
        symmetric = super().check(value)
        if value.shape[-2] != value.shape[-1]:
            return symmetric
        return symmetric & (linalg.cholesky_ex(value).info == 0)


class _Sequence(Constraint):
    """Constraints side by side along `dim`."""

    cseq: list[Constraint]

    def __init__(self, op: str, cseq: Sequence[Constraint], dim: int) -> None:
        _be_constraints(op, *cseq)
        self.cseq, self.dim = list(cseq), dim

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether any of them is."""
        return any(c.is_discrete for c in self.cseq)

    def _inside(self, value: Tensor) -> None:
        if not -value.ndim <= self.dim < value.ndim:
            raise InvalidValueError(
                f"dim {self.dim} out of range for value with {value.ndim} dimensions",
                op=type(self).__name__[1:].lower(),
            )


class _Cat(_Sequence):
    """Of the pieces of these lengths that a tensor is cut into along `dim`, as `kiln.cat` joins them."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> None:
        super().__init__("cat", cseq, dim)
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.cseq):
            raise InvalidValueError(f"lengths ({len(self.lengths)}) must match cseq ({len(self.cseq)})", op="cat")

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """The most of any of them."""
        return max(c.event_dim for c in self.cseq)

    def check(self, value: Tensor) -> Tensor:
        """Every piece by its constraint."""
        self._inside(value)
        checks, start = [], 0
        for c, length in zip(self.cseq, self.lengths, strict=True):
            checks.append(c.check(value.narrow(self.dim, start, length)))
            start += length
        return F.cat(checks, self.dim)


class _Stack(_Sequence):
    """Of the slices of a tensor along `dim`, as `kiln.stack` joins them."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        super().__init__("stack", cseq, dim)

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """The most of any of them, and one for `dim` if that lies in the event."""
        most = max(c.event_dim for c in self.cseq)
        return most + 1 if self.dim + most < 0 else most

    def check(self, value: Tensor) -> Tensor:
        """Every slice by its constraint."""
        self._inside(value)
        checks = [c.check(value.select(self.dim, i)) for i, c in enumerate(self.cseq)]
        return F.stack(checks, self.dim)


dependent = _Dependent()
dependent_property = _DependentProperty
independent = _IndependentConstraint
boolean = _Boolean()
one_hot = _OneHot()
nonnegative_integer = _IntegerGreaterThan(0)
positive_integer = _IntegerGreaterThan(1)
integer_interval = _IntegerInterval
real = _Real()
real_vector = independent(real, 1)
positive = _GreaterThan(0.0)
nonnegative = _GreaterThanEq(0.0)
greater_than = _GreaterThan
greater_than_eq = _GreaterThanEq
less_than = _LessThan
multinomial = _Multinomial
unit_interval = _Interval(0.0, 1.0)
interval = _Interval
half_open_interval = _HalfOpenInterval
simplex = _Simplex()
lower_triangular = _LowerTriangular()
lower_cholesky = _LowerCholesky()
corr_cholesky = _CorrCholesky()
square = _Square()
symmetric = _Symmetric()
positive_semidefinite = _PositiveSemidefinite()
positive_definite = _PositiveDefinite()
cat = _Cat
stack = _Stack
