"""Fourier transforms against NumPy's, their gradients, and torch's corners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import agrees, compiles, differentiates

Array = np.ndarray[Any, Any]
FT = kiln.fft
RNG = np.random.default_rng(11)


def reals(*shape: int) -> Array:
    return np.asarray(RNG.normal(size=shape))


def pairs(*shape: int) -> Array:
    return np.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


ONE = {"fft": pairs, "ifft": pairs, "rfft": reals, "irfft": pairs, "hfft": pairs, "ihfft": reals}
SEVERAL = {"fftn": pairs, "ifftn": pairs, "rfftn": reals, "irfftn": pairs}
TWO = {"fft2": pairs, "ifft2": pairs, "rfft2": reals, "irfft2": pairs}


def close(got: kiln.Tensor, wanted: Array) -> None:
    found = got.numpy()
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    eps = float(np.finfo(wanted.dtype).eps)
    assert (np.abs(found - wanted) <= 64 * eps * (1 + np.abs(wanted).max(initial=0))).all()


@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
@pytest.mark.parametrize("name", ONE)
def test_one_dimension(name: str, norm: str | None) -> None:
    f, ref = getattr(FT, name), getattr(np.fft, name)
    for shape, n, dim in (((8,), None, -1), ((3, 7), None, 1), ((7, 3), None, 0), ((2, 6), 9, -1), ((2, 6), 4, -1),
                          ((2, 6), 5, -1), ((0, 4), None, -1), ((5, 1), 1, 1)):  # fmt: skip
        if name in ("irfft", "hfft") and n is None and shape[dim] == 1:
            continue
        x = ONE[name](*shape)
        close(f(kiln.from_numpy(x), n, dim, norm), ref(x, n, dim, norm))
    x = ONE[name](4, 10)[::2, 1::2]
    close(f(kiln.from_numpy(x), norm=norm), ref(x, norm=norm))
    compiles(lambda t: f(t, 7, 0, norm), x)


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", SEVERAL)
def test_several_dimensions(name: str, norm: str | None) -> None:
    f, ref = getattr(FT, name), getattr(np.fft, name)
    x = SEVERAL[name](4, 5, 6)
    for s, dim in ((None, None), (None, (0, 2)), (None, (2, 0)), ((3, 8), None), ((4, 7, 5), (2, 1, 0)), ((6,), (1,))):
        axes = dim if dim is not None or s is None else tuple(range(3 - len(s), 3))
        close(f(kiln.from_numpy(x), s, dim, norm), ref(x, s, axes, norm))
    close(f(kiln.from_numpy(x.T), norm=norm), ref(x.T, norm=norm))
    compiles(lambda t: f(t, (3, 8), (2, 0), norm), x)


@pytest.mark.parametrize("name", TWO)
def test_two_dimensions(name: str) -> None:
    f, ref = getattr(FT, name), getattr(np.fft, name)
    x = TWO[name](2, 4, 5)
    close(f(kiln.from_numpy(x)), ref(x))
    close(f(kiln.from_numpy(x), (3, 6), (0, 1), "ortho"), ref(x, (3, 6), (0, 1), "ortho"))


def test_half_spectra_of_several_dimensions() -> None:
    """hfftn is fft over all dimensions but the last, then hfft; ihfftn is its inverse."""
    x = pairs(4, 5)
    wanted = np.fft.hfft(np.fft.fft(x, axis=0), 8, 1)
    close(FT.hfftn(kiln.from_numpy(x), (4, 8)), wanted)
    close(FT.hfft2(kiln.from_numpy(x), (4, 8)), wanted)
    close(FT.ihfftn(kiln.from_numpy(wanted)), np.fft.ifft(np.fft.ihfft(wanted, axis=1), axis=0))
    back = FT.hfftn(FT.ihfftn(kiln.from_numpy(wanted)), (4, 8))
    close(back, wanted)
    close(
        FT.ihfft2(kiln.from_numpy(wanted), norm="ortho"),
        np.fft.ifft(np.fft.ihfft(wanted, norm="ortho"), axis=0, norm="ortho"),
    )


def test_dtypes() -> None:
    single, double = kiln.zeros(4), kiln.zeros(4, dtype=kiln.float64)
    assert FT.fft(single).dtype is kiln.complex64 and FT.fft(double).dtype is kiln.complex128
    assert FT.rfft(single).dtype is kiln.complex64 and FT.irfft(FT.rfft(single)).dtype is kiln.float32
    assert (
        FT.fft(kiln.arange(4)).dtype is kiln.complex64
        and FT.rfft(kiln.ones(4, dtype=kiln.bool)).dtype is kiln.complex64
    )
    x = RNG.normal(size=(2, 30)).astype(np.float32)
    close(FT.rfft(kiln.from_numpy(x)), np.fft.rfft(x))
    close(FT.fft(kiln.from_numpy(x)), np.fft.fft(x))


def test_frequencies_and_shifts() -> None:
    for n in (1, 2, 5, 8):
        for f, ref in ((FT.fftfreq, np.fft.fftfreq), (FT.rfftfreq, np.fft.rfftfreq)):
            np.testing.assert_allclose(f(n, 0.5).numpy(), ref(n, 0.5), rtol=1e-6)
            assert f(n, dtype=kiln.float64).dtype is kiln.float64
    assert FT.fftfreq(4).tolist() == [0, 0.25, -0.5, -0.25]
    assert FT.rfftfreq(4, requires_grad=True).requires_grad
    for x in (np.arange(5.0), np.arange(8.0), reals(3, 4), np.zeros((0, 3))):
        agrees(FT.fftshift, np.fft.fftshift, x)
        agrees(FT.ifftshift, np.fft.ifftshift, x)
        agrees(lambda t: FT.fftshift(t, 0), lambda t: np.fft.fftshift(t, 0), x)
        agrees(lambda t: FT.ifftshift(t, (-1,)), lambda t: np.fft.ifftshift(t, (-1,)), x)


def test_of_nothing_at_all() -> None:
    assert FT.fftn(kiln.tensor(2.5)).item() == 2.5
    assert FT.fftn(kiln.ones(2, 2), dim=()).tolist() == [[1, 1], [1, 1]]
    assert FT.fftshift(kiln.tensor(1.0)).item() == 1


@pytest.mark.parametrize(
    ("f", "kind", "message"),
    [
        (lambda: FT.fft(kiln.zeros(0)), kiln.ShapeError, "fft: dimension 0 has nothing"),
        (lambda: FT.fft(kiln.zeros(3), 0), ValueError, "fft: sizes must be positive"),
        (lambda: FT.fft(kiln.zeros(3), norm="x"), ValueError, "fft: norm must be"),
        (lambda: FT.fft(kiln.zeros(3, dtype=kiln.float16)), kiln.DTypeError, "fft: is not defined for float16"),
        (lambda: FT.rfft(kiln.zeros(3, dtype=kiln.complex64)), kiln.DTypeError, "rfft: expects real numbers"),
        (lambda: FT.ihfft(kiln.zeros(3, dtype=kiln.complex64)), kiln.DTypeError, "ihfft: expects real numbers"),
        (lambda: FT.fft(kiln.tensor(1.0)), IndexError, "fft"),
        (lambda: FT.fft(kiln.zeros(3), dim=1), IndexError, "fft"),
        (lambda: FT.fft(kiln.zeros(3), dim=(0,)), TypeError, "dim must be an int"),
        (lambda: FT.irfft(kiln.zeros(1)), kiln.ShapeError, "irfft: 0 numbers"),
        (lambda: FT.rfftn(kiln.tensor(1.0)), ValueError, "at least one dimension"),
        (lambda: FT.irfftn(kiln.zeros(2), dim=()), ValueError, "at least one dimension"),
        (lambda: FT.fftn(kiln.zeros(2, 3), (2, 2, 2)), kiln.ShapeError, "no 3 dimensions"),
        (lambda: FT.fftn(kiln.zeros(2, 3), (2,), (0, 1)), ValueError, "1 sizes for 2"),
        (lambda: FT.fftn(kiln.zeros(2, 3), dim=(0, -2)), ValueError, "must differ"),
        (lambda: FT.fftn(kiln.zeros(2, 3), (2.0, 3.0)), TypeError, "s must be ints"),
        (lambda: FT.fftfreq(0), ValueError, "n must be a positive int"),
        (lambda: FT.rfftfreq(4, dtype=kiln.int64), kiln.DTypeError, "frequencies"),
        (lambda: FT.fftshift([1.0]), TypeError, "expected a tensor"),
    ],
)  # fmt: skip
def test_errors(f: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        f()


# ----------------------------------------------------------------------------------------- gradients


def both(f: Callable[[kiln.Tensor], kiln.Tensor]) -> Callable[..., kiln.Tensor]:
    """`f` of complex numbers as a function of their parts, its result as parts."""

    def parts(re: kiln.Tensor, im: kiln.Tensor) -> kiln.Tensor:
        result = f(kiln.complex(re, im))
        return kiln.view_as_real(result) if result.dtype.is_complex else result

    return parts


DERIVED: dict[str, Callable[[kiln.Tensor], kiln.Tensor]] = {
    "fft": FT.fft,
    "ifft": lambda z: FT.ifft(z, 7, 0, "ortho"),
    "fftn": lambda z: FT.fftn(z, (3, 6), norm="forward"),
    "irfft-odd": lambda z: FT.irfft(z, 5),
    "irfft-even": lambda z: FT.irfft(z, 6, norm="ortho"),
    "irfft-cut": lambda z: FT.irfft(z, 4, 0),
    "irfftn": lambda z: FT.irfftn(z, (4, 6)),
    "hfft": lambda z: FT.hfft(z, 7),
    "hfftn": FT.hfftn,
    "squared": lambda z: FT.ifft(FT.fft(z) * FT.fft(z)),
}


@pytest.mark.parametrize("name", DERIVED)
def test_gradients_of_complex_numbers(name: str) -> None:
    differentiates(both(DERIVED[name]), reals(4, 4), reals(4, 4), second=name == "squared")


@pytest.mark.parametrize("n", [None, 5, 8])
def test_gradients_of_real_numbers(n: int | None) -> None:
    x = reals(3, 6)
    differentiates(lambda t: kiln.view_as_real(FT.rfft(t, n)), x)
    differentiates(lambda t: kiln.view_as_real(FT.ihfft(t, n, 0, "ortho")), x)
    differentiates(lambda t: kiln.view_as_real(FT.rfftn(t, norm="forward")), x)
    differentiates(lambda t: (FT.rfft(t, n).abs() ** 2).log(), x, second=True)
    differentiates(lambda t: kiln.view_as_real(FT.fft(t, n)), x)


def test_a_convolution_by_transforms_learns_in_one_program() -> None:
    signal = kiln.from_numpy(reals(4, 16))
    wanted = FT.irfft(FT.rfft(signal) * FT.rfft(kiln.tensor([1.0, -2.0, 0.5], dtype=kiln.float64), 16), 16)

    def run(compiled: bool) -> list[Any]:
        kernel = kiln.zeros(3, dtype=kiln.float64).requires_grad_()
        optimiser = kiln.optim.Adam([kernel], lr=0.1)

        def step() -> kiln.Tensor:
            optimiser.zero_grad()
            found = FT.irfft(FT.rfft(signal) * FT.rfft(kernel, 16), 16)
            loss = ((found - wanted) ** 2).mean()
            loss.backward()
            optimiser.step()
            return loss.detach()

        go = kiln.compile(step) if compiled else step
        losses = [go().item() for _ in range(20)]
        assert losses[-1] < losses[0] / 4
        return [losses, kernel.detach().tolist()]

    assert run(True) == run(False)
