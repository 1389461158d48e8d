"""Short-time Fourier transforms, under PyTorch's names: `stft` and its inverse, as cuts, products and the ops of
ir/ops/fourier.py, so that they can be captured and differentiated to any order."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.checks import holds
from kiln.complexes import view_as_real
from kiln.convolution import table
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.gathering import index_add
from kiln.ir.ops.base import OPS
from kiln.padding import pad
from kiln.promotion import apply, broadcast_to, cast_to, full_like_number, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["istft", "stft"]

_NO_WINDOW = "no window was given: a rectangular one leaks; pass window=kiln.hann_window(win_length), or kiln.ones(...)"


def _lengths(name: str, n_fft: int, hop: int | None, win: int | None) -> tuple[int, int]:
    """How far frames are apart, and of how many elements their windows are."""
    for what, n in (("n_fft", n_fft), ("hop_length", hop), ("win_length", win)):
        if n is not None and (not isinstance(n, (int, np.integer)) or isinstance(n, bool)):
            raise ArgumentError(f"{what} must be an int, not {type(n).__name__}", op=name)
    return n_fft // 4 if hop is None else int(hop), n_fft if win is None else int(win)


def _checked_window(name: str, x: Tensor, window: TensorBase | None, length: int) -> Tensor | None:
    if window is None:
        warnings.warn(f"{name}: {_NO_WINDOW}", stacklevel=3)
        return None
    w = tensor_arg(name, window)
    if w.shape != (length,):
        raise ShapeError(f"the window must be a vector of {length} elements", op=name, operands=[x.ttype, w.ttype])
    return w


def _centred(window: Tensor, n_fft: int) -> Tensor:
    """Zeros on both sides, up to `n_fft` elements."""
    before = (n_fft - window.shape[0]) // 2
    return pad(window, (before, n_fft - window.shape[0] - before)) if window.shape[0] < n_fft else window


def stft(
    input: TensorBase,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: TensorBase | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """Fourier transforms of frames of `n_fft` elements that are `hop_length` (by default n_fft // 4) apart.

    `input` is a signal [L] or several [B, L], the result [frequencies, frames] or [B, frequencies, frames]. Each frame
    is multiplied by `window`, a vector of `win_length` (by default n_fft) elements, filled up with zeros on both sides.
    `center`: the signal is padded by n_fft // 2 on both sides (`pad_mode` as in nn.functional.pad), so that frame t is
    around element t * hop_length. `normalized`: over sqrt(n_fft). `onesided` (by default for real numbers): the
    frequencies 0 to n_fft // 2, else all n_fft. `return_complex` must be given for real numbers; False returns real and
    imaginary parts in a last dimension. `align_to_window`, without `center`: pads by (n_fft - win_length) // 2, so that
    the first window begins with the signal.

    ShapeError, DTypeError (integers, 16-bit floats) and InvalidValueError for what does not fit. Warns without a
    window, and of return_complex=False, as PyTorch does.
    """
    x = tensor_arg("stft", input)
    hop, win = _lengths("stft", n_fft, hop_length, win_length)
    if center and align_to_window is not None:
        raise InvalidValueError("align_to_window is only for center=False", op="stft")
    w = _checked_window("stft", x, window, win)
    if return_complex is None and not (x.dtype.is_complex or (w is not None and w.dtype.is_complex)):
        raise InvalidValueError("return_complex must be given for real numbers", op="stft", fix="return_complex=True")
    if not x.dtype.is_inexact or x.dtype.is_half:
        raise DTypeError(f"is not defined for {x.dtype}", op="stft", operands=[x.ttype], fix="use .float()")
    if x.ndim not in (1, 2):
        raise ShapeError("expects a signal [L], or several [B, L]", op="stft", operands=[x.ttype])
    if return_complex is False:
        warnings.warn("stft: return_complex=False is deprecated: use view_as_real on the result", stacklevel=2)
    signals = F.reshape(x, (1, 1, -1)) if x.ndim == 1 else F.unsqueeze(x, 0)
    around = n_fft // 2 if center else (n_fft - win) // 2 if align_to_window else 0
    if around > 0:
        signals = pad(signals, (around, around), pad_mode)
    signals = F.squeeze(signals, 0)
    length = signals.shape[1]
    if not 0 < n_fft <= length:
        raise InvalidValueError(f"n_fft must be from 1 to {length}, got {n_fft}", op="stft", operands=[x.ttype])
    if hop < 1:
        raise InvalidValueError(f"hop_length must be positive, got {hop}", op="stft")
    if not 0 < win <= n_fft:
        raise InvalidValueError(f"win_length must be from 1 to n_fft, {n_fft}, got {win}", op="stft")
    frames = M.unfold(signals, 1, n_fft, hop)
    if w is None and win < n_fft:
        w = full_like_number(x, x.dtype, 1, (win,))
    if w is not None:
        frames = F.mul(frames, _centred(w, n_fft))
    found = F.transpose(_transformed(frames, normalized, onesided), 1, 2)
    found = F.squeeze(found, 0) if x.ndim == 1 else found
    return view_as_real(found) if return_complex is False else found


def _transformed(frames: Tensor, normalized: bool, onesided: bool | None) -> Tensor:
    norm = "root" if normalized else "one"
    if not frames.dtype.is_complex and onesided is not False:
        return apply(OPS["rfft"], frames, dims=(2,), norm=norm)
    if onesided:
        raise InvalidValueError(
            "complex signals and windows have no one-sided transform", op="stft", fix="onesided=False"
        )
    return apply(OPS["fft"], cast_to(frames, frames.dtype.paired), dims=(2,), inverse=False, norm=norm)


def istft(
    input: TensorBase,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: TensorBase | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal, or signals, that `stft` with the same arguments made the complex `input` of (Griffin and Lim, 1984:
    "Signal estimation from modified short-time Fourier transform", by least squares).

    The frames are transformed back, multiplied by the window, added up where they overlap, and divided by the sum of
    the squares of the windows there. `length`: of the result, cut or filled up with zeros; by default what the frames
    span. `return_complex`: the signals were complex.

    InvalidValueError where no window covers an element; in a capture that is not asked, such elements are infinite or
    NaN there. Other errors and warnings as in `stft`.
    """
    z = tensor_arg("istft", input)
    hop, win = _lengths("istft", n_fft, hop_length, win_length)
    if not z.dtype.is_complex:
        raise DTypeError("expects what stft makes with return_complex=True", op="istft", operands=[z.ttype])
    if z.ndim not in (2, 3) or not z.numel():
        raise ShapeError("expects [frequencies, frames] or [B, frequencies, frames]", op="istft", operands=[z.ttype])
    if not 0 < win <= n_fft:
        raise InvalidValueError(f"win_length must be from 1 to n_fft, {n_fft}, got {win}", op="istft")
    if not 0 < hop <= win:
        raise InvalidValueError(f"hop_length must be from 1 to win_length, {win}, got {hop}", op="istft")
    half = z.shape[-2] != n_fft if onesided is None else onesided
    wanted = n_fft // 2 + 1 if half else n_fft
    if z.shape[-2] != wanted:
        raise ShapeError(f"expects {wanted} frequencies", op="istft", operands=[z.ttype])
    w = _checked_window("istft", z, window, win)
    w = full_like_number(z, z.dtype.part, 1, (win,)) if w is None else w
    if half and return_complex:
        raise InvalidValueError("complex signals have no one-sided transform", op="istft", fix="return_complex=False")
    if w.dtype.is_complex and not return_complex:
        raise InvalidValueError("with a complex window signals are complex", op="istft", fix="return_complex=True")
    w = _centred(w, n_fft)
    frames = F.transpose(F.unsqueeze(z, 0) if z.ndim == 2 else z, 1, 2)
    norm = "root" if normalized else "all"
    if return_complex:
        frames = apply(OPS["fft"], frames, dims=(2,), inverse=True, norm=norm)
    else:
        frames = M.narrow(frames, 2, 0, n_fft // 2 + 1)
        frames = apply(OPS["irfft"], frames, dims=(2,), size=n_fft, norm=norm)
    span = n_fft + hop * (frames.shape[1] - 1)
    begin = n_fft // 2 if center else 0
    end = span - begin if length is None else begin + length
    squares = broadcast_to(F.reshape(F.mul(w, w), (1, 1, n_fft)), (1, *frames.shape[1:]))
    weights = _overlapped(squares, hop, span)[:, begin:end]
    if not weights.numel():
        raise ShapeError("the frames span no element", op="istft", operands=[z.ttype], fix="pass more frames")
    if not holds(F.gt(F.abs(weights.detach()), 1e-11)):
        raise InvalidValueError(
            "no window covers some element", op="istft", fix="use a window without zeros, or center"
        )
    found = F.div(_overlapped(F.mul(frames, w), hop, span)[:, begin:end], weights)
    if end > span:
        warnings.warn("istft: the frames span less than length, the rest is filled with zeros", stacklevel=2)
        found = pad(found, (0, end - span))
    return F.squeeze(found, 0) if z.ndim == 2 else found


def _overlapped(frames: Tensor, hop: int, span: int) -> Tensor:
    """Frames [B, count, n] added up at their places in a signal: [B, span]."""
    b, count, n = frames.shape
    places = np.arange(count)[:, None] * hop + np.arange(n)[None, :]
    zeros = full_like_number(frames, frames.dtype, 0, (b, span))
    return index_add(zeros, 1, table(frames, places.reshape(-1)), F.reshape(frames, (b, count * n)))
