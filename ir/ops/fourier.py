"""Discrete Fourier transforms over some dimensions, carried out by a library (NumPy's pocketfft).

`norm` says what the sums are divided by: nothing ("one"), the square root of the number of elements transformed
("root") or that number ("all"). With it, each op is a linear map whose transpose is another of the three; gradients
of complex numbers follow torch: the gradient is that of the real and of the imaginary part, as one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Library, OpDef, OpTypeError, ints_attr, quiet, register
from kiln.ir.ops.create import full_like, iota
from kiln.ir.ops.elementwise import eq, logical_or, mul, where
from kiln.ir.ops.pairs import complex_, imag, real
from kiln.ir.types import Dim, TensorType, complex64, complex128, float32, float64, int64

Array = np.ndarray[Any, Any]

FORWARD: Final = {"one": "backward", "root": "ortho", "all": "forward"}
BACKWARD: Final = {"one": "forward", "root": "ortho", "all": "backward"}
"""What NumPy calls a norm in transforms with a negative and with a positive exponent."""


def _checked(op: str, t: TensorType, attrs: Attrs, among: Sequence[object]) -> TensorType:
    if t.dtype not in among:
        raise OpTypeError(op, f"is not defined for {t.dtype}", "dtype")
    dims = ints_attr(attrs, "dims")
    if not dims or len(set(dims)) != len(dims) or not all(0 <= d < t.rank for d in dims):
        raise OpTypeError(op, f"dims {dims} are no dimensions of {t}", "dim")
    if attrs["norm"] not in FORWARD:
        raise OpTypeError(op, f"norm is {attrs['norm']!r}", "value")
    return t


def _nonempty(op: str, t: TensorType, attrs: Attrs) -> TensorType:
    if any(t.shape[d] == 0 for d in ints_attr(attrs, "dims")):
        raise OpTypeError(op, f"{t} has nothing to transform")
    return t


def _resized(t: TensorType, dim: int, size: Dim, dtype: Any) -> TensorType:
    shape = tuple(size if d == dim else n for d, n in enumerate(t.shape))
    return TensorType(dtype, shape, t.device)


def _half(n: Dim) -> int:
    assert isinstance(n, int)
    return n // 2 + 1


def _op(name: str, doc: str, infer: Any, run: Any, ref: Any, vjp: Any, jvp: Any) -> OpDef:
    return register(OpDef(name, doc, infer, quiet(ref), Library("library", run), vjp=vjp, jvp=jvp, arity=1))


def _whole(a: Array, dims: tuple[int, ...], sign: int, norm: str) -> Array:
    """The transform by its definition, in extended precision: one product per dimension."""
    x, count = a.astype(np.clongdouble), 1
    for d in dims:
        n = a.shape[d]
        turns = np.outer(np.arange(n), np.arange(n)) % n
        angles = turns.astype(np.longdouble) / n * (2 * sign) * np.longdouble(np.pi)
        x = np.moveaxis(np.moveaxis(x, d, -1) @ (np.cos(angles) + 1j * np.sin(angles)), -1, d)
        count *= n
    divisor = {"one": 1, "root": np.sqrt(np.longdouble(count)), "all": count}[norm]
    return np.asarray(x / divisor)


# ------------------------------------------------------------------------------------------------ fft


def _fft_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    return (_nonempty("fft", _checked("fft", operands[0], attrs, (complex64, complex128)), attrs),)


def _fft(a: Array, *, dims: tuple[int, ...], inverse: bool, norm: str) -> Array:
    if inverse:
        return np.fft.ifftn(a, axes=dims, norm=BACKWARD[norm])  # type: ignore[arg-type]
    return np.fft.fftn(a, axes=dims, norm=FORWARD[norm])  # type: ignore[arg-type]


def _fft_ref(xp: Any, a: Any, *, dims: tuple[int, ...], inverse: bool, norm: str) -> Any:
    return _whole(a, dims, 1 if inverse else -1, norm).astype(a.dtype)


def _fft_vjp(call: Call, g: Any) -> Sequence[Any]:
    return (fft(g, **{**call.attrs, "inverse": not call.attrs["inverse"]}),)


fft: Final[OpDef] = _op(
    "fft",
    "fft(a; dims, inverse, norm): sums of a[j] * exp(-2 pi i j k / n) over j, for each k, along each of dims; with "
    "inverse of a[j] * exp(2 pi i j k / n).",
    _fft_types,
    _fft,
    _fft_ref,
    _fft_vjp,
    lambda call, t: (None if t is None else fft(t, **call.attrs),),
)


# ----------------------------------------------------------------------------------------------- rfft


def _rfft_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = _nonempty("rfft", _checked("rfft", operands[0], attrs, (float32, float64)), attrs)
    last = ints_attr(attrs, "dims")[-1]
    return (_resized(t, last, _half(t.shape[last]), t.dtype.paired),)


def _rfft(a: Array, *, dims: tuple[int, ...], norm: str) -> Array:
    return np.fft.rfftn(a, axes=dims, norm=FORWARD[norm])  # type: ignore[arg-type]


def _rfft_ref(xp: Any, a: Any, *, dims: tuple[int, ...], norm: str) -> Any:
    found = _whole(a, dims, -1, norm).astype(np.result_type(a.dtype, np.complex64))
    return np.take(found, np.arange(a.shape[dims[-1]] // 2 + 1), dims[-1])


def _rfft_vjp(call: Call, g: Any) -> Sequence[Any]:
    """What irfft takes twice (all but the frequencies 0 and, of an even number, n / 2) counts half."""
    size = call.operands[0].ttype.shape[ints_attr(call.attrs, "dims")[-1]]
    return (irfft(_weighted(g, call.attrs, size, 0.5), size=size, **call.attrs),)


rfft: Final[OpDef] = _op(
    "rfft",
    "rfft(a; dims, norm): fft of real numbers; along the last of dims only the frequencies 0 to n // 2, of which the "
    "others are the conjugates.",
    _rfft_types,
    _rfft,
    _rfft_ref,
    _rfft_vjp,
    lambda call, t: (None if t is None else rfft(t, **call.attrs),),
)


def _weighted(x: Any, attrs: Attrs, size: Dim, weight: float) -> Any:
    """The half spectrum of `size` numbers, what stands for two frequencies times `weight`."""
    assert isinstance(size, int)
    dim, t = ints_attr(attrs, "dims")[-1], x.ttype
    frequency = iota.bind((), {"shape": t.shape, "dtype": int64, "dim": dim}, receiver=x)[0]
    single = eq(frequency, full_like(frequency, 0))
    if size % 2 == 0:
        single = logical_or(single, eq(frequency, full_like(frequency, size // 2)))
    parts = [where(single, p, mul(p, full_like(p, weight))) for p in (real(x), imag(x))]
    return complex_(*parts)


# ---------------------------------------------------------------------------------------------- irfft


def _irfft_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = _checked("irfft", operands[0], attrs, (complex64, complex128))
    size, last = attrs["size"], ints_attr(attrs, "dims")[-1]
    if not isinstance(size, int) or size < 1:
        raise OpTypeError("irfft", f"size is {size!r}", "value")
    if t.shape[last] != _half(size):
        raise OpTypeError("irfft", f"{size} numbers have {_half(size)} frequencies, {t} has {t.shape[last]}")
    return (_resized(_nonempty("irfft", t, attrs), last, size, t.dtype.part),)


def _irfft(a: Array, *, dims: tuple[int, ...], size: int, norm: str) -> Array:
    sizes = [*(a.shape[d] for d in dims[:-1]), size]
    return np.fft.irfftn(a, sizes, dims, norm=BACKWARD[norm])  # type: ignore[arg-type]


def _irfft_ref(xp: Any, a: Any, *, dims: tuple[int, ...], size: int, norm: str) -> Any:
    """Over the other dimensions first, then with the conjugates filled in; the imaginary parts of the frequencies that
    stand for themselves count nothing."""
    last = dims[-1]
    part = a.real.dtype
    a = np.moveaxis(_whole(a, dims[:-1], 1, norm), last, -1)
    whole = np.zeros((*a.shape[:-1], size), a.dtype)
    whole[..., : a.shape[-1]] = a
    whole[..., 0] = a[..., 0].real
    for k in range(1, (size + 1) // 2):
        whole[..., size - k] = np.conj(a[..., k])
    if size % 2 == 0:
        whole[..., size // 2] = a[..., -1].real
    found = np.moveaxis(_whole(whole, (whole.ndim - 1,), 1, norm).real, -1, last)
    return found.astype(part)


def _irfft_vjp(call: Call, g: Any) -> Sequence[Any]:
    attrs = {k: call.attrs[k] for k in ("dims", "norm")}
    return (_weighted(rfft(g, **attrs), attrs, call.attrs["size"], 2.0),)  # type: ignore[arg-type]


irfft: Final[OpDef] = _op(
    "irfft",
    "irfft(a; dims, size, norm): fft with inverse of a half spectrum, whose other frequencies are the conjugates: "
    "`size` real numbers along the last of dims. The imaginary parts of the frequencies 0 and, if size is even, "
    "size / 2 along that dimension count nothing.",
    _irfft_types,
    _irfft,
    _irfft_ref,
    _irfft_vjp,
    lambda call, t: (None if t is None else irfft(t, **call.attrs),),
)
