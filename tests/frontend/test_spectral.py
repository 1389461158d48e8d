"""Window functions and short-time Fourier transforms: against their definitions in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.signal import windows
from tests.frontend.checking import compiles, differentiates

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(21)
DOUBLE: Any = {"dtype": kiln.float64}


# ------------------------------------------------------------------------------------------- windows


def defined(name: str, m: int, n: int) -> Array:
    """Windows of m elements, with a turn of n steps, from their definitions."""
    k = np.arange(m)
    turn = 2 * np.pi * k / n
    return {
        "hann": lambda: 0.5 - 0.5 * np.cos(turn),
        "hamming": lambda: 0.54 - 0.46 * np.cos(turn),
        "blackman": lambda: 0.42 - 0.5 * np.cos(turn) + 0.08 * np.cos(2 * turn),
        "bartlett": lambda: 1 - np.abs(2 * k / n - 1),
        "kaiser": lambda: np.i0(12 * np.sqrt(1 - (2 * k / n - 1) ** 2)) / np.i0(12),
    }[name]()


@pytest.mark.parametrize("name", ["hann", "hamming", "blackman", "bartlett", "kaiser"])
def test_windows_of_both_name_spaces(name: str) -> None:
    for m in (2, 5, 8, 33):
        for sym in (False, True):
            wanted = defined(name, m, m - 1 if sym else m)
            for got in (
                getattr(kiln, f"{name}_window")(m, not sym, **DOUBLE),
                getattr(windows, name)(m, sym=sym, **DOUBLE),
            ):
                assert got.dtype is kiln.float64
                np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-13, atol=1e-15)
            single = getattr(windows, name)(m, sym=sym)
            assert single.dtype is kiln.float32 and (single.numpy() == wanted.astype(np.float32)).all()
    assert getattr(kiln, f"{name}_window")(0).shape == (0,) and getattr(kiln, f"{name}_window")(1).tolist() == [1]
    assert getattr(windows, name)(0).shape == (0,) and getattr(windows, name)(1).tolist() == [1]
    assert getattr(kiln, f"{name}_window")(4, dtype=kiln.bfloat16).dtype is kiln.bfloat16
    assert getattr(kiln, f"{name}_window")(4, requires_grad=True).requires_grad


def test_other_windows() -> None:
    k = np.arange(6)
    for got, wanted in (
        (windows.cosine(6, **DOUBLE), np.sin(np.pi * (k + 0.5) / 6)),
        (windows.cosine(6, sym=False, **DOUBLE), np.sin(np.pi * (k + 0.5) / 7)),
        (windows.exponential(6, tau=2.0, **DOUBLE), np.exp(-np.abs(k - 2.5) / 2)),
        (windows.exponential(6, center=1.0, sym=False, **DOUBLE), np.exp(-np.abs(k - 1.0))),
        (windows.exponential(6, sym=False, **DOUBLE), np.exp(-np.abs(k - 3.0))),
        (windows.gaussian(6, std=1.5, **DOUBLE), np.exp(-(((k - 2.5) / 1.5) ** 2) / 2)),
        (windows.gaussian(6, sym=False, **DOUBLE), np.exp(-((k - 3.0) ** 2) / 2)),
        (windows.general_cosine(6, a=[0.3, 0.5, 0.2], **DOUBLE),
         0.3 - 0.5 * np.cos(2 * np.pi * k / 5) + 0.2 * np.cos(4 * np.pi * k / 5)),
        (windows.general_hamming(6, alpha=0.6, **DOUBLE), 0.6 - 0.4 * np.cos(2 * np.pi * k / 5)),
        (windows.nuttall(6, sym=False, **DOUBLE)[:1], np.array([0.3635819 - 0.4891775 + 0.1365995 - 0.0106411])),
        (kiln.hamming_window(6, False, 0.3, 0.7, **DOUBLE), 0.3 - 0.7 * np.cos(2 * np.pi * k / 5)),
        (kiln.kaiser_window(6, True, 3.0, **DOUBLE), np.i0(3 * np.sqrt(1 - (k / 3 - 1) ** 2)) / np.i0(3)),
    ):  # fmt: skip
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-13, atol=1e-15)
    assert windows.exponential(1, center=2.0, sym=False, **DOUBLE).tolist() == [pytest.approx(math.exp(-2))]
    compiled = kiln.compile(lambda x: x * kiln.hann_window(5))
    assert compiled(kiln.ones(5)).tolist() == kiln.hann_window(5).tolist()


def test_windows_refuse() -> None:
    for f in (kiln.hann_window, windows.hann, windows.exponential, kiln.kaiser_window, kiln.bartlett_window):
        with pytest.raises(kiln.InvalidValueError, match="negative"):
            f(-1)
        with pytest.raises(kiln.ArgumentError, match="must be an int"):
            f(3.0)  # type: ignore[arg-type]
    with pytest.raises(kiln.DTypeError, match="hann_window"):
        kiln.hann_window(4, dtype=kiln.int32)
    with pytest.raises(kiln.InvalidValueError, match="float32 or float64"):
        windows.hann(4, dtype=kiln.float16)
    for call in (
        lambda: windows.kaiser(4, beta=-1.0),
        lambda: windows.gaussian(4, std=0.0),
        lambda: windows.exponential(4, tau=0.0),
        lambda: windows.exponential(4, center=1.0),
        lambda: windows.general_cosine(4, a=[]),
    ):
        with pytest.raises(kiln.InvalidValueError):
            call()
    with pytest.raises(kiln.ArgumentError, match="general_cosine"):
        windows.general_cosine(4, a=3)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ transforms


def frames_of(x: Array, n: int, hop: int, window: Array, center: bool, pad_mode: str) -> Array:
    """What stft's definition says, one-sided for real numbers."""
    if center:
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)], mode=pad_mode)  # type: ignore[call-overload]
    before = (n - len(window)) // 2
    whole = np.zeros(n)
    whole[before : before + len(window)] = window
    count = 1 + (x.shape[-1] - n) // hop
    cut = np.stack([x[..., t * hop : t * hop + n] * whole for t in range(count)], -1)
    return np.asarray(np.fft.fft(cut, axis=-2) if np.iscomplexobj(x) else np.fft.rfft(cut, axis=-2))


CASES = [
    ((100,), 16, None, 16, True, "reflect"), ((3, 64), 16, 5, 12, True, "reflect"),
    ((3, 64), 15, 4, 15, False, "reflect"), ((100,), 8, 3, 7, True, "constant"), ((2, 40), 40, 1, 40, False, "reflect"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_stft(case: Any, kind: str) -> None:
    shape, n, hop, win, center, pad_mode = case
    x = RNG.normal(size=shape) + (1j * RNG.normal(size=shape) if kind == "complex" else 0)
    window = np.hanning(win + 2)[1:-1]

    def f(t: Any, w: Any) -> Any:
        return kiln.stft(t, n, hop, win, w, center, pad_mode, return_complex=True)

    wanted = frames_of(x, n, hop or n // 4, window, center, pad_mode)
    got = f(kiln.from_numpy(x), kiln.from_numpy(window))
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        kiln.from_numpy(x).stft(n, hop, win, kiln.from_numpy(window), center, pad_mode, True, return_complex=True),
        wanted / math.sqrt(n),
        rtol=1e-12,
        atol=1e-12,
    )
    compiles(f, x, window)
    differentiates(f, x, window, second=True)


def test_stft_shapes_and_dtypes() -> None:
    x, w = kiln.randn(2, 60), kiln.hann_window(12)
    assert x.stft(12, window=w, return_complex=True).dtype is kiln.complex64
    assert x.stft(12, window=w.double(), return_complex=True).dtype is kiln.complex128
    assert x.stft(12, window=w, onesided=False, return_complex=True).shape == (2, 12, 21)
    assert x.stft(12, window=w.cfloat()).shape == (2, 12, 21)
    whole, half = (x.stft(12, window=w, onesided=s, return_complex=True) for s in (False, True))
    np.testing.assert_allclose(whole[:, :7].numpy(), half.numpy(), atol=1e-5)
    with pytest.warns(UserWarning, match="deprecated"):
        assert x.stft(12, window=w, return_complex=False).shape == (2, 7, 21, 2)
    with pytest.warns(UserWarning, match="no window"):
        plain = x.stft(12, win_length=6, return_complex=True)
    np.testing.assert_allclose(plain, x.stft(12, 3, 6, kiln.ones(6), return_complex=True), atol=1e-6)
    aligned = x.stft(12, 3, 6, kiln.ones(6), center=False, return_complex=True, align_to_window=True)
    np.testing.assert_allclose(aligned.numpy()[:, 0, 0], x.numpy()[:, :6].sum(1), atol=1e-5)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_istft_undoes_stft(kind: str) -> None:
    for shape, n, hop, win in (((64,), 16, 4, 16), ((2, 60), 12, 3, 10), ((2, 45), 15, 5, 15)):
        x = RNG.normal(size=shape) + (1j * RNG.normal(size=shape) if kind == "complex" else 0)
        w = np.hanning(win + 2)[1:-1]

        def back(t: Any, w: Any, n: int = n, hop: int = hop, win: int = win, complex_: bool = kind == "complex") -> Any:
            z = kiln.stft(t, n, hop, win, w, return_complex=True)
            return kiln.istft(z, n, hop, win, w, return_complex=complex_)

        got = back(kiln.from_numpy(x), kiln.from_numpy(w)).numpy()
        np.testing.assert_allclose(got, x[..., : got.shape[-1]], rtol=1e-11, atol=1e-11)
        compiles(back, x, w)
        z = kiln.stft(kiln.from_numpy(x), n, hop, win, kiln.from_numpy(w), return_complex=True).numpy()
        differentiates(
            lambda z, w, n=n, hop=hop, win=win: kiln.istft(z, n, hop, win, w, return_complex=kind == "complex"), z, w
        )


def test_istft_lengths_and_norms() -> None:
    x, w = kiln.randn(100, dtype=kiln.float64), kiln.hann_window(16, dtype=kiln.float64)
    z = x.stft(16, window=w, normalized=True, onesided=False, return_complex=True)
    np.testing.assert_allclose(z.istft(16, window=w, normalized=True), x, atol=1e-12)
    np.testing.assert_allclose(z.istft(16, window=w, normalized=True, length=37), x[:37], atol=1e-12)
    half = x.stft(16, window=w, return_complex=True)
    with pytest.warns(UserWarning, match="filled"):
        long = half.istft(16, window=kiln.ones(16), length=120)
    assert long.shape == (120,) and long[108:].tolist() == [0] * 12
    with pytest.warns(UserWarning, match="no window"):
        assert half.istft(16).shape == (100,)


def test_transforms_refuse() -> None:
    x, w = kiln.randn(40), kiln.hann_window(8)
    for error, call in (
        (kiln.InvalidValueError, lambda: x.stft(8, window=w)),
        (kiln.DTypeError, lambda: x.long().stft(8, window=w, return_complex=True)),
        (kiln.DTypeError, lambda: x.half().stft(8, window=w, return_complex=True)),
        (kiln.ShapeError, lambda: x.reshape(2, 4, 5).stft(8, window=w, return_complex=True)),
        (kiln.ShapeError, lambda: x.stft(8, window=kiln.ones(7), return_complex=True)),
        (kiln.InvalidValueError, lambda: x.stft(8, 0, window=w, return_complex=True)),
        (kiln.InvalidValueError, lambda: x.stft(8, 2, 9, kiln.ones(9), return_complex=True)),
        (kiln.InvalidValueError, lambda: x.stft(41, window=kiln.ones(41), center=False, return_complex=True)),
        (kiln.InvalidValueError, lambda: x.stft(8, window=w, align_to_window=True, return_complex=True)),
        (kiln.InvalidValueError, lambda: x.cfloat().stft(8, window=w, onesided=True)),
        (kiln.ArgumentError, lambda: x.stft(8.0, window=w, return_complex=True)),  # type: ignore[arg-type]
    ):
        with pytest.raises(error, match="stft"):
            call()
    z = x.stft(8, window=w, return_complex=True)
    for error, call in (
        (kiln.DTypeError, lambda: x.istft(8, window=w)),
        (kiln.ShapeError, lambda: z[0].istft(8, window=w)),
        (kiln.ShapeError, lambda: z[:, :0].istft(8, window=w)),
        (kiln.ShapeError, lambda: z.istft(10, window=kiln.ones(10))),
        (kiln.ShapeError, lambda: z.istft(8, onesided=False, window=w)),
        (kiln.ShapeError, lambda: z.istft(8, window=kiln.ones(7))),
        (kiln.InvalidValueError, lambda: z.istft(8, 0, window=w)),
        (kiln.InvalidValueError, lambda: z.istft(8, 2, 9, window=kiln.ones(9))),
        (kiln.InvalidValueError, lambda: z.istft(8, window=w, return_complex=True)),
        (kiln.InvalidValueError, lambda: z.istft(8, window=w, center=False)),
    ):
        with pytest.raises(error, match="istft"):
            call()
