"""Transforms: invertible functions of tensors with the logarithms of their Jacobians' determinants.

This file: what all share, and the transforms made of others. `bijectors.py` holds the functions themselves; both are
public in `transforms.py`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kiln import functional as F
from kiln.creation import zeros_like
from kiln.distributions import constraints
from kiln.distributions.utils import sum_rightmost
from kiln.errors import ArgumentError, InvalidValueError

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("CatTransform", "ComposeTransform", "IndependentTransform", "ReshapeTransform", "StackTransform", "Transform"),
    "identity_transform",
]

Self = TypeVar("Self", bound="Transform")
Shape = tuple[int, ...]


class Transform:
    """A function of tensors. `domain` and `codomain` are constraints; a `bijective` one has an inverse `inv`, and
    `log_abs_det_jacobian(x, y)` for y = self(x). `sign` is that of the derivative, if it is the same everywhere.

    With `cache_size=1` the last pair of input and output is kept: the inverse of that output is that very input, for
    functions whose inverses lose digits. Captured functions don't heed the cache of an object from outside.
    """

    bijective = False
    domain: Any
    codomain: Any

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise InvalidValueError("cache_size must be 0 or 1", op=type(self).__name__)
        self._cache_size = cache_size
        self._cached: tuple[Any, Any] = (None, None)

    @property
    def event_dim(self) -> int:
        """The dimensions of an event, where those of the domain and the codomain agree."""
        if self.domain.event_dim == self.codomain.event_dim:
            return int(self.domain.event_dim)
        raise InvalidValueError("Please use either .domain.event_dim or .codomain.event_dim", op=type(self).__name__)

    @property
    def inv(self) -> Transform:
        """The inverse; its inverse is this one."""
        return _InverseTransform(self)

    @property
    def sign(self) -> Any:
        """1 for an increasing function, -1 for a decreasing one; a tensor where elements differ."""
        raise NotImplementedError(f"{type(self).__name__} does not implement sign")

    def with_cache(self: Self, cache_size: int = 1) -> Self:
        """The same with a cache of this size."""
        if self._cache_size == cache_size:
            return self
        Transform.__init__(made := self._copy(), cache_size)
        return made

    def _copy(self: Self) -> Self:
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __call__(self, x: Tensor) -> Tensor:
        """y = f(x)."""
        if not self._cache_size:
            return self._call(x)
        if x is not self._cached[0]:
            self._cached = (x, self._call(x))
        return self._cached[1]  # type: ignore[no-any-return]

    def _inv_call(self, y: Tensor) -> Tensor:
        if not self._cache_size:
            return self._inverse(y)
        if y is not self._cached[1]:
            self._cached = (self._inverse(y), y)
        return self._cached[0]  # type: ignore[no-any-return]

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not implement _call")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not implement _inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx|, of the shape of `x` without the event's dimensions."""
        raise NotImplementedError(f"{type(self).__name__} does not implement log_abs_det_jacobian")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward_shape(self, shape: Shape) -> Shape:
        """The shape of y for an x of this shape."""
        return shape

    def inverse_shape(self, shape: Shape) -> Shape:
        """The shape of x for a y of this shape."""
        return shape

    def _dimensions(self, tensor: Tensor, least: int) -> None:
        if tensor.ndim < least:
            raise InvalidValueError("Too few dimensions on input", op=type(self).__name__, operands=[tensor.ttype])


class _InverseTransform(Transform):
    """A transform the other way round."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self._inv = transform

    @property
    def domain(self) -> Any:
        return self._inv.codomain

    @property
    def codomain(self) -> Any:
        return self._inv.domain

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self._inv.bijective

    @property
    def sign(self) -> Any:
        return self._inv.sign

    @property
    def inv(self) -> Transform:
        return self._inv

    def with_cache(self, cache_size: int = 1) -> Any:
        return self._inv.with_cache(cache_size).inv

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InverseTransform) and self._inv == other._inv

    __hash__ = Transform.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inv!r})"

    def __call__(self, x: Tensor) -> Tensor:
        return self._inv._inv_call(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._inv.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Shape) -> Shape:
        return self._inv.inverse_shape(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        return self._inv.forward_shape(shape)


class ComposeTransform(Transform):
    """Transforms one after another, the first one first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [part.with_cache(cache_size) for part in parts] if cache_size else list(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposeTransform) and self.parts == other.parts

    __hash__ = Transform.__hash__

    @property
    def domain(self) -> Any:
        """The domain of the first, with as many dimensions as the parts need."""
        if not self.parts:
            return constraints.real
        need = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            need = max(need + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
        return _with_dimensions(self.parts[0].domain, need)

    @property
    def codomain(self) -> Any:
        """The codomain of the last, with as many dimensions as the parts need."""
        if not self.parts:
            return constraints.real
        need = self.parts[0].domain.event_dim
        for part in self.parts:
            need = max(need + part.codomain.event_dim - part.domain.event_dim, part.codomain.event_dim)
        return _with_dimensions(self.parts[-1].codomain, need)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.bijective for part in self.parts)

    @property
    def sign(self) -> Any:
        """The product of the parts'."""
        return functools.reduce(operator.mul, (part.sign for part in self.parts), 1)

    @property
    def inv(self) -> Transform:
        """The parts' inverses, the last one first."""
        return ComposeTransform([part.inv for part in reversed(self.parts)])

    def with_cache(self, cache_size: int = 1) -> Any:
        """The same with caches of this size in all parts."""
        return self if self._cache_size == cache_size else ComposeTransform(self.parts, cache_size)

    def __call__(self, x: Tensor) -> Tensor:
        """All of them in turn."""
        for part in self.parts:
            x = part(x)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of the parts', each summed over the dimensions that only others take for an event's."""
        if not self.parts:
            return zeros_like(x)
        values = [x]
        for part in self.parts[:-1]:
            values.append(part(values[-1]))
        values.append(y)
        terms, event_dim = [], self.domain.event_dim
        for part, a, b in zip(self.parts, values[:-1], values[1:], strict=True):
            terms.append(sum_rightmost(part.log_abs_det_jacobian(a, b), event_dim - part.domain.event_dim))
            event_dim += part.codomain.event_dim - part.domain.event_dim
        return functools.reduce(operator.add, terms)

    def forward_shape(self, shape: Shape) -> Shape:
        """Through all parts."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Shape) -> Shape:
        """Back through all parts."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        parts = ",\n    ".join(map(repr, self.parts))
        return f"{type(self).__name__}(\n    {parts}\n)"


def _with_dimensions(constraint: Any, need: int) -> Any:
    more = need - constraint.event_dim
    return constraints.independent(constraint, more) if more else constraint


identity_transform = ComposeTransform([])


class IndependentTransform(Transform):
    """A transform of which the last `reinterpreted_batch_ndims` dimensions of the batch belong to the event."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.base_transform = base_transform.with_cache(cache_size)
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims

    def with_cache(self, cache_size: int = 1) -> Any:
        """The same with a cache of this size, in the base too."""
        if self._cache_size == cache_size:
            return self
        return IndependentTransform(self.base_transform, self.reinterpreted_batch_ndims, cache_size)

    @property
    def domain(self) -> Any:
        """The base's, of more dimensions."""
        return constraints.independent(self.base_transform.domain, self.reinterpreted_batch_ndims)

    @property
    def codomain(self) -> Any:
        """The base's, of more dimensions."""
        return constraints.independent(self.base_transform.codomain, self.reinterpreted_batch_ndims)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        """Whether the base is."""
        return self.base_transform.bijective

    @property
    def sign(self) -> Any:
        """The base's."""
        return self.base_transform.sign

    def _call(self, x: Tensor) -> Tensor:
        self._dimensions(x, self.domain.event_dim)
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        self._dimensions(y, self.codomain.event_dim)
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The base's, summed over the dimensions taken from the batch."""
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_transform!r}, {self.reinterpreted_batch_ndims})"

    def forward_shape(self, shape: Shape) -> Shape:
        """The base's."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        """The base's."""
        return self.base_transform.inverse_shape(shape)


class ReshapeTransform(Transform):
    """The last dimensions, `in_shape`, as `out_shape`."""

    bijective = True

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if functools.reduce(operator.mul, self.in_shape, 1) != functools.reduce(operator.mul, self.out_shape, 1):
            raise InvalidValueError(
                f"in_shape, out_shape have different numbers of elements: {self.in_shape}, {self.out_shape}",
                op="ReshapeTransform",
            )

    @property
    def domain(self) -> Any:
        """Real numbers of the one shape."""
        return constraints.independent(constraints.real, len(self.in_shape))

    @property
    def codomain(self) -> Any:
        """Real numbers of the other."""
        return constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape((*x.shape[: x.ndim - len(self.in_shape)], *self.out_shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape((*y.shape[: y.ndim - len(self.out_shape)], *self.in_shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0."""
        return x.new_zeros(x.shape[: x.ndim - len(self.in_shape)])

    def forward_shape(self, shape: Shape) -> Shape:
        """With `out_shape` in place of `in_shape`, which it must end in."""
        return self._exchanged(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        """With `in_shape` in place of `out_shape`, which it must end in."""
        return self._exchanged(shape, self.out_shape, self.in_shape)

    def _exchanged(self, shape: Shape, old: Shape, new: Shape) -> Shape:
        cut = len(shape) - len(old)
        if cut < 0:
            raise InvalidValueError("Too few dimensions on input", op="ReshapeTransform")
        if tuple(shape[cut:]) != old:
            raise InvalidValueError(f"Shape mismatch: expected {old} but got {shape[cut:]}", op="ReshapeTransform")
        return (*shape[:cut], *new)


class _Sequence(Transform):
    """Transforms side by side along `dim`."""

    transforms: list[Transform]

    def __init__(self, tseq: Sequence[Transform], dim: int, cache_size: int) -> None:
        for t in tseq:
            if not isinstance(t, Transform):
                raise ArgumentError(f"expected Transforms, got {type(t).__name__}", op=type(self).__name__)
        super().__init__(cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.dim = dim

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return all(t.bijective for t in self.transforms)

    def with_cache(self: Self, cache_size: int = 1) -> Self:
        """The same with caches of this size in all of them."""
        if self._cache_size == cache_size:
            return self
        made: Any = self._copy()
        Transform.__init__(made, cache_size)
        made.transforms = [t.with_cache(cache_size) for t in made.transforms]
        return made  # type: ignore[no-any-return]

    def _sized(self, length: int, *tensors: Tensor) -> None:
        for t in tensors:
            if not -t.ndim <= self.dim < t.ndim:
                raise InvalidValueError(
                    f"dim {self.dim} out of range for tensor with {t.ndim} dimensions", op=type(self).__name__
                )
            if t.shape[self.dim] != length:
                raise InvalidValueError(
                    f"the size of dim {self.dim} is {t.shape[self.dim]}, and must be {length}", op=type(self).__name__
                )


class CatTransform(_Sequence):
    """Transforms of the pieces of these lengths that a tensor is cut into along `dim`, as `kiln.cat` joins them."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ) -> None:
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise InvalidValueError(
                f"lengths ({len(self.lengths)}) must match transforms ({len(self.transforms)})", op="CatTransform"
            )

    @property
    def event_dim(self) -> int:
        """The most of any of them."""
        return max(t.event_dim for t in self.transforms)

    @property
    def length(self) -> int:
        """Of all pieces."""
        return sum(self.lengths)

    def _pieces(self, x: Tensor) -> list[Tensor]:
        starts = [sum(self.lengths[:k]) for k in range(len(self.lengths))]
        return [x.narrow(self.dim, start, length) for start, length in zip(starts, self.lengths, strict=True)]

    def _call(self, x: Tensor) -> Tensor:
        self._sized(self.length, x)
        return F.cat([t(a) for t, a in zip(self.transforms, self._pieces(x), strict=True)], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        self._sized(self.length, y)
        return F.cat([t.inv(b) for t, b in zip(self.transforms, self._pieces(y), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The pieces' side by side, or added where the event holds `dim`."""
        self._sized(self.length, x, y)
        parts = [
            sum_rightmost(t.log_abs_det_jacobian(a, b), self.event_dim - t.event_dim)
            for t, a, b in zip(self.transforms, self._pieces(x), self._pieces(y), strict=True)
        ]
        dim = (self.dim - x.ndim if self.dim >= 0 else self.dim) + self.event_dim
        return F.cat(parts, dim) if dim < 0 else functools.reduce(operator.add, parts)

    @property
    def domain(self) -> Any:
        """The domains side by side."""
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self) -> Any:
        """The codomains side by side."""
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)


class StackTransform(_Sequence):
    """Transforms of the slices of a tensor along `dim`, as `kiln.stack` joins them."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, cache_size)

    def _each(self, apply: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        self._sized(len(self.transforms), *tensors)
        made = [apply(t, *(x.select(self.dim, i) for x in tensors)) for i, t in enumerate(self.transforms)]
        return F.stack(made, self.dim)

    def _call(self, x: Tensor) -> Tensor:
        return self._each(lambda t, a: t(a), x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._each(lambda t, b: t.inv(b), y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The slices', stacked."""
        return self._each(lambda t, a, b: t.log_abs_det_jacobian(a, b), x, y)

    @property
    def domain(self) -> Any:
        """The domains, stacked."""
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @property
    def codomain(self) -> Any:
        """The codomains, stacked."""
        return constraints.stack([t.codomain for t in self.transforms], self.dim)
