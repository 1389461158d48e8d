"""The transforms that are functions of their own: exp, sigmoid, affine, stick breaking and so on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import linalg
from kiln.activation import logsigmoid, softplus
from kiln.base import TensorBase
from kiln.creation import arange, eye, full_like
from kiln.distributions import constraints
from kiln.distributions.transform import Shape, Transform
from kiln.distributions.utils import are_numbers, broadcast_all, tril_matrix_to_vec, vec_to_tril_matrix
from kiln.dtypes import finfo
from kiln.errors import InvalidValueError
from kiln.maths import atanh, expm1, log1p
from kiln.movement import diag_embed
from kiln.padding import pad
from kiln.selection import broadcast_shapes

if TYPE_CHECKING:
    from kiln.distributions.distribution import Distribution
    from kiln.tensor import Tensor

__all__ = [
    *("AbsTransform", "AffineTransform", "CorrCholeskyTransform", "CumulativeDistributionTransform", "ExpTransform"),
    *("LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "SigmoidTransform"),
    *("SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform", "TanhTransform"),
]


class _Plain(Transform):
    """A transform without parameters: all of a class are equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self))

    __hash__ = Transform.__hash__


class ExpTransform(_Plain):
    """y = exp(x)."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return F.exp(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return F.log(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """x."""
        return x


def _shape_of(x: Any) -> Shape:
    return x.shape if isinstance(x, TensorBase) else ()


def _same(a: Any, b: Any) -> bool:
    """Whether numbers or tensors are equal."""
    if are_numbers(a, b):
        return bool(a == b)
    return bool((a == b).all())


class PowerTransform(Transform):
    """y = x ** exponent."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        (self.exponent,) = broadcast_all(exponent)

    @property
    def sign(self) -> Any:
        """The exponent's."""
        return self.exponent.sign()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerTransform) and _same(self.exponent, other.exponent)

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |exponent * y / x|."""
        return F.log(F.abs(self.exponent * y / x))

    def forward_shape(self, shape: Shape) -> Shape:
        """Broadcast with the exponent's."""
        return broadcast_shapes(shape, self.exponent.shape)

    inverse_shape = forward_shape


def _clipped_sigmoid(x: Tensor) -> Tensor:
    info = finfo(x.dtype)
    return F.clamp(F.sigmoid(x), info.tiny, 1.0 - info.eps)


class SigmoidTransform(_Plain):
    """y = 1 / (1 + exp(-x)), kept inside of (0, 1)."""

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return _clipped_sigmoid(x)

    def _inverse(self, y: Tensor) -> Tensor:
        info = finfo(y.dtype)
        inside = F.clamp(y, info.tiny, 1.0 - info.eps)
        return F.log(inside) - log1p(-inside)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(y (1 - y)), of x."""
        return -softplus(-x) - softplus(x)


class SoftplusTransform(_Plain):
    """y = log(1 + exp(x)), and x itself from 20 on."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return F.log(-expm1(-y)) + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log of the sigmoid of x."""
        return -softplus(-x)


class TanhTransform(_Plain):
    """y = tanh(x). Better than sigmoid and affine transforms together, and still in need of a cache near +-1."""

    domain = constraints.real
    codomain = constraints.interval(-1.0, 1.0)
    bijective = True
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return F.tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return atanh(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(1 - tanh(x)^2), as 2 (log 2 - x - softplus(-2 x))."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AbsTransform(_Plain):
    """y = |x|. As its inverse counts the positive one."""

    domain = constraints.real
    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return F.abs(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform):
    """y = loc + scale * x; the last `event_dim` dimensions are the event."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim

    @property
    def event_dim(self) -> int:
        """As given."""
        return self._event_dim

    @property
    def domain(self) -> Any:
        """Real numbers."""
        return constraints.independent(constraints.real, self._event_dim) if self._event_dim else constraints.real

    codomain = domain

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AffineTransform) and _same(self.loc, other.loc) and _same(self.scale, other.scale)

    __hash__ = Transform.__hash__

    @property
    def sign(self) -> Any:
        """The scale's."""
        return (self.scale > 0) - (self.scale < 0) if are_numbers(self.scale) else self.scale.sign()

    def _call(self, x: Tensor) -> Tensor:
        return F.add(self.loc, F.mul(self.scale, x))

    def _inverse(self, y: Tensor) -> Tensor:
        return F.div(F.sub(y, self.loc), self.scale)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |scale|, for each element of the event."""
        shape = x.shape
        if are_numbers(self.scale):
            result = full_like(x, math.log(abs(self.scale)))
        else:
            result = F.log(F.abs(self.scale))
        if self._event_dim:
            result = result.reshape((*result.shape[: -self._event_dim], -1)).sum(-1)
            shape = shape[: -self._event_dim]
        return result.expand(shape)

    def forward_shape(self, shape: Shape) -> Shape:
        """Broadcast with those of the parameters."""
        return broadcast_shapes(shape, _shape_of(self.loc), _shape_of(self.scale))

    inverse_shape = forward_shape


def _enough(op: str, shape: Shape, least: int) -> None:
    if len(shape) < least:
        raise InvalidValueError("Too few dimensions on input", op=op)


class CorrCholeskyTransform(Transform):
    """Vectors of n (n - 1) / 2 real numbers to Cholesky factors [n, n] of correlation matrices.

    As the Stan manual has it: tanh of the numbers fills the strict lower triangle, row by row, and each row's elements
    take their part of what the elements before them left of its length 1."""

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        eps = finfo(x.dtype).eps
        r = vec_to_tril_matrix(F.clamp(F.tanh(x), -1 + eps, 1 - eps), diag=-1)
        left = F.sqrt(1 - r * r).cumprod(-1)
        return (r + eye(r.shape[-1], dtype=r.dtype, device=r.device)) * pad(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Tensor) -> Tensor:
        left = pad((1 - (y * y).cumsum(-1))[..., :-1], [1, 0], value=1)
        t = tril_matrix_to_vec(y, diag=-1) / F.sqrt(tril_matrix_to_vec(left, diag=-1))
        return (log1p(t) - log1p(-t)) / 2  # the inverse of tanh

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """That of breaking the sticks, whose factors are on and below the second lower diagonal, and that of tanh."""
        left = 1 - (y * y).cumsum(-1)
        sticks = 0.5 * F.log(tril_matrix_to_vec(left, diag=-2)).sum(-1)
        return sticks - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Shape) -> Shape:
        """[..., n (n - 1) / 2] to [..., n, n]."""
        _enough("CorrCholeskyTransform", shape, 1)
        count = shape[-1]
        n = round((0.25 + 2 * count) ** 0.5 + 0.5)
        if n * (n - 1) // 2 != count:
            raise InvalidValueError("Input is not a flattened lower-diagonal number", op="CorrCholeskyTransform")
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: Shape) -> Shape:
        """[..., n, n] to [..., n (n - 1) / 2]."""
        _enough("CorrCholeskyTransform", shape, 2)
        if shape[-2] != shape[-1]:
            raise InvalidValueError("Input is not square", op="CorrCholeskyTransform")
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


class SoftmaxTransform(_Plain):
    """y = softmax(x) over the last dimension; as its inverse counts log(y)."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return F.softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return F.log(y)

    def forward_shape(self, shape: Shape) -> Shape:
        """The same."""
        _enough("SoftmaxTransform", shape, 1)
        return shape

    inverse_shape = forward_shape


class StickBreakingTransform(_Plain):
    """Vectors of n real numbers to points [n + 1] of the simplex: each takes its part of what those before it left."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _shift(self, n: int, like: Tensor) -> Tensor:
        """log(n), log(n - 1), ..., log(1): zeros are taken to the middle of the simplex."""
        return F.log(n - arange(n, dtype=like.dtype, device=like.device))

    def _call(self, x: Tensor) -> Tensor:
        z = _clipped_sigmoid(x - self._shift(x.shape[-1], x))
        return pad(z, [0, 1], value=1) * pad((1 - z).cumprod(-1), [1, 0], value=1)

    def _inverse(self, y: Tensor) -> Tensor:
        cut = y[..., :-1]
        left = F.clamp(1 - cut.cumsum(-1), finfo(y.dtype).tiny)
        return F.log(cut) - F.log(left) + self._shift(cut.shape[-1], y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of those of the parts."""
        a = x - self._shift(x.shape[-1], x)
        return (-a + logsigmoid(a) + F.log(y[..., :-1])).sum(-1)

    def forward_shape(self, shape: Shape) -> Shape:
        """[..., n] to [..., n + 1]."""
        _enough("StickBreakingTransform", shape, 1)
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Shape) -> Shape:
        """[..., n + 1] to [..., n]."""
        _enough("StickBreakingTransform", shape, 1)
        return (*shape[:-1], shape[-1] - 1)


class LowerCholeskyTransform(_Plain):
    """Matrices to lower triangles with a positive diagonal, exp of theirs."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + diag_embed(F.exp(x.diagonal(dim1=-2, dim2=-1)))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + diag_embed(F.log(y.diagonal(dim1=-2, dim2=-1)))


class PositiveDefiniteTransform(_Plain):
    """Matrices to positive-definite ones: the product of `LowerCholeskyTransform`'s triangle and its transpose."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(linalg.cholesky(y))


class CumulativeDistributionTransform(Transform):
    """y = distribution.cdf(x)."""

    bijective = True
    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:
        """What the distribution supports."""
        return self.distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log of the density."""
        return self.distribution.log_prob(x)
