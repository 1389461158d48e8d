"""Discrete Fourier transforms (`kiln.fft`), with torch.fft's names and arguments.

Each is one op of ir/ops/fourier.py, which NumPy's pocketfft carries out in the precision of its operand; cutting,
padding and conjugation around it are ops as well, so all of it can be captured and differentiated to any order.

`norm` says what the sums are divided by. Transforms with a negative exponent: None and "backward" nothing, "ortho" the
square root of the number of elements transformed, "forward" that number. Those with a positive one (the inverses): the
other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import creation
from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.complexes import conj
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, KilnIndexError, ShapeError
from kiln.functional import dim_index
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.promotion import apply, cast_to, full_like_number, get_default_dtype, inexact

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

Sizes = Sequence[int] | None
_FORWARD = {None: "one", "backward": "one", "ortho": "root", "forward": "all"}
_INVERSE = {None: "all", "backward": "all", "ortho": "root", "forward": "one"}


# ------------------------------------------------------------------------------------------ arguments


def _norm(name: str, norm: str | None, inverse: bool) -> str:
    if norm not in _FORWARD:
        raise InvalidValueError(f'norm must be "forward", "backward" or "ortho", not {norm!r}', op=name)
    return (_INVERSE if inverse else _FORWARD)[norm]


def _operand(name: str, input: TensorBase, real: bool) -> Tensor:
    """The operand as floats, or as complex numbers. DTypeError for 16-bit floats, and for complex numbers where real
    ones are transformed."""
    x = inexact(name, input)
    if x.dtype.is_half:
        raise DTypeError(f"is not defined for {x.dtype}", op=name, operands=[x.ttype], fix="use .float()")
    if real and x.dtype.is_complex:
        raise DTypeError("expects real numbers", op=name, operands=[x.ttype], fix=f"use .real, or {name.lstrip('ir')}")
    return x if real else cast_to(x, x.dtype.paired)


def _dims(name: str, x: Tensor, s: Sizes, dim: Any) -> tuple[tuple[int, ...], list[int]]:
    """The dimensions to transform, and their sizes (-1: as it is)."""
    if s is not None and not all(isinstance(n, int) for n in s):
        raise ArgumentError(f"s must be ints, not {s!r}", op=name)
    if dim is None:
        dims = tuple(range(x.ndim)) if s is None else tuple(range(x.ndim - len(s), x.ndim))
        if s is not None and len(s) > x.ndim:
            raise ShapeError(f"there are no {len(s)} dimensions to transform", op=name, operands=[x.ttype])
    else:
        dims = tuple([dim_index(name, d, x.ndim) for d in ((dim,) if isinstance(dim, int) else dim)])
    if len(set(dims)) != len(dims):
        raise InvalidValueError(f"the dimensions must differ, got {dim!r}", op=name)
    if any(d >= x.ndim for d in dims):
        raise KilnIndexError("a 0-d tensor has no dimensions to transform", op=name, operands=[x.ttype])
    sizes = [-1] * len(dims) if s is None else list(s)
    if len(sizes) != len(dims):
        raise InvalidValueError(f"s has {len(sizes)} sizes for {len(dims)} dimensions", op=name)
    if any(n < 1 and n != -1 for n in sizes):
        raise InvalidValueError(f"sizes must be positive, got {s!r}", op=name)
    return dims, sizes


def _sized(name: str, x: Tensor, dims: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """`x` cut, or filled up with zeros, to `sizes` along `dims`."""
    for d, n in zip(dims, sizes, strict=True):
        have = x.shape[d]
        if n not in (-1, have):
            x = M.narrow(x, d, 0, n) if n < have else F.cat([x, _zeros(x, d, n - have)], d)
        elif not have:
            raise ShapeError(f"dimension {d} has nothing to transform", op=name, operands=[x.ttype])
    return x


def _zeros(x: Tensor, d: int, n: int) -> Tensor:
    return full_like_number(x, x.dtype, 0, (*x.shape[:d], n, *x.shape[d + 1 :]))


# ----------------------------------------------------------------------------------------- transforms


def _complex(name: str, input: TensorBase, s: Sizes, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    x = _operand(name, input, False)
    dims, sizes = _dims(name, x, s, dim)
    divisor = _norm(name, norm, inverse)
    if not dims:
        return F.clone(x)
    return apply(OPS["fft"], _sized(name, x, dims, sizes), dims=dims, inverse=inverse, norm=divisor)


def _from_real(name: str, input: TensorBase, s: Sizes, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    x = _operand(name, input, True)
    dims, sizes = _dims(name, x, s, dim)
    if not dims:
        raise InvalidValueError("needs at least one dimension", op=name)
    found = apply(OPS["rfft"], _sized(name, x, dims, sizes), dims=dims, norm=_norm(name, norm, inverse))
    return conj(found) if inverse else found


def _to_real(name: str, input: TensorBase, s: Sizes, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    x = _operand(name, input, False)
    dims, sizes = _dims(name, x, s, dim)
    if not dims:
        raise InvalidValueError("needs at least one dimension", op=name)
    size = sizes[-1] if sizes[-1] != -1 else 2 * (x.shape[dims[-1]] - 1)
    if size < 1:
        raise ShapeError(f"{size} numbers can't be made", op=name, operands=[x.ttype], fix="pass n (or s)")
    x = _sized(name, x, dims, [*sizes[:-1], size // 2 + 1])
    x = x if inverse else conj(x)
    return apply(OPS["irfft"], x, dims=dims, size=size, norm=_norm(name, norm, inverse))


def _one(n: int | None) -> Sizes:
    return None if n is None else (n,)


def _single(name: str, dim: Any) -> tuple[int]:
    if not isinstance(dim, int):
        raise ArgumentError(f"dim must be an int, not {dim!r}", op=name)
    return (dim,)


def fft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The sums over j of input[j] * exp(-2 pi i j k / n) for k from 0 to n - 1, along `dim`, which is cut or filled up
    with zeros to `n` first; complex. DTypeError for 16-bit floats."""
    return _complex("fft", input, _one(n), _single("fft", dim), norm, False)


def ifft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `fft`."""
    return _complex("ifft", input, _one(n), _single("ifft", dim), norm, True)


def rfft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`fft` of real numbers: the frequencies 0 to n // 2, of which the others are the conjugates."""
    return _from_real("rfft", input, _one(n), _single("rfft", dim), norm, False)


def irfft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `rfft`: `n` real numbers, by default the even number 2 * (size - 1)."""
    return _to_real("irfft", input, _one(n), _single("irfft", dim), norm, True)


def hfft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`fft` of numbers of which the second half are the conjugates of the first, which alone is given: `n` real
    numbers, by default 2 * (size - 1)."""
    return _to_real("hfft", input, _one(n), _single("hfft", dim), norm, False)


def ihfft(input: TensorBase, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `hfft`: the first n // 2 + 1 of the numbers."""
    return _from_real("ihfft", input, _one(n), _single("ihfft", dim), norm, True)


def fft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`fftn` over the last two dimensions by default."""
    return _complex("fft2", input, s, dim, norm, False)


def ifft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`ifftn` over the last two dimensions by default."""
    return _complex("ifft2", input, s, dim, norm, True)


def rfft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`rfftn` over the last two dimensions by default."""
    return _from_real("rfft2", input, s, dim, norm, False)


def irfft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`irfftn` over the last two dimensions by default."""
    return _to_real("irfft2", input, s, dim, norm, True)


def hfft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`hfftn` over the last two dimensions by default."""
    return _to_real("hfft2", input, s, dim, norm, False)


def ihfft2(input: TensorBase, s: Sizes = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`ihfftn` over the last two dimensions by default."""
    return _from_real("ihfft2", input, s, dim, norm, True)


def fftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fft` along each of `dim`: by default all dimensions, or as many of the last as `s` has sizes (-1: as it is)."""
    return _complex("fftn", input, s, dim, norm, False)


def ifftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `fftn`."""
    return _complex("ifftn", input, s, dim, norm, True)


def rfftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fftn` of real numbers: along the last of `dim` the frequencies 0 to n // 2."""
    return _from_real("rfftn", input, s, dim, norm, False)


def irfftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `rfftn`: real numbers, along the last of `dim` by default 2 * (size - 1)."""
    return _to_real("irfftn", input, s, dim, norm, True)


def hfftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fftn` of numbers of which half along the last of `dim` are conjugates of the others, which alone are given."""
    return _to_real("hfftn", input, s, dim, norm, False)


def ihfftn(input: TensorBase, s: Sizes = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `hfftn`."""
    return _from_real("ihfftn", input, s, dim, norm, True)


# ---------------------------------------------------------------------------------------- frequencies


def _frequencies(name: str, n: int, d: float, first: int, last: int, dtype: DType | None, device: Any) -> Tensor:
    """The integers from 0 to last - 1 and from first to -1, over n * d."""
    if not isinstance(n, int) or n < 1:
        raise InvalidValueError(f"n must be a positive int, not {n!r}", op=name)
    kind = get_default_dtype() if dtype is None else dtype
    if not isinstance(kind, DType) or kind.kind not in ("float", "complex"):
        raise DTypeError(f"frequencies are no {kind}", op=name, fix="use a floating-point dtype")
    steps = [creation.arange(last, dtype=kind.part, device=device)]
    if first:
        steps.append(creation.arange(first, 0, dtype=kind.part, device=device))
    return cast_to(F.mul(F.cat(steps) if first else steps[0], 1.0 / (n * d)), kind)


def fftfreq(
    n: int, d: float = 1.0, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of `fft` of n numbers that are `d` apart: 0, 1, ..., -2, -1 over n * d."""
    made = _frequencies("fftfreq", n, d, -(n // 2) if isinstance(n, int) else 0, (n + 1) // 2, dtype, device)
    return made.requires_grad_() if requires_grad else made


def rfftfreq(
    n: int, d: float = 1.0, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of `rfft` of n numbers that are `d` apart: 0, 1, ..., n // 2 over n * d."""
    made = _frequencies("rfftfreq", n, d, 0, n // 2 + 1 if isinstance(n, int) else 0, dtype, device)
    return made.requires_grad_() if requires_grad else made


def _shifted(name: str, input: TensorBase, dim: Any, inverse: bool) -> Tensor:
    if not isinstance(input, TensorBase):
        raise ArgumentError(f"expected a tensor, got {type(input).__name__}", op=name)
    dims = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple([dim_index(name, d, input.ndim) for d in dims])
    shifts = [(input.shape[d] + 1) // 2 if inverse else input.shape[d] // 2 for d in dims]
    return M.roll(input, tuple(shifts), dims) if dims else F.clone(input)


def fftshift(input: TensorBase, dim: int | Sequence[int] | None = None) -> Tensor:
    """The frequency 0 moved to the middle of `dim` (by default of all dimensions)."""
    return _shifted("fftshift", input, dim, False)


def ifftshift(input: TensorBase, dim: int | Sequence[int] | None = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _shifted("ifftshift", input, dim, True)
