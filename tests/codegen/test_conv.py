"""Convolution kernels where samples are too small to go: many images and rows per task, several threads and targets,
several blocks of k. Values are small integers, so that every order gives the same sum, or bits are compared with those
of the same thing computed alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen import conv
from kiln.ir import types as T
from kiln.ir.ops import OPS
from kiln.runtime import targets, threads

Array = np.ndarray[Any, Any]
PADDED: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
# images, weights, attributes
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((70, 3, 8, 8), (33, 3, 3, 3), PADDED),
    ((2, 5, 40, 33), (16, 5, 3, 3), {**PADDED, "stride": (2, 1)}),
    ((3, 70, 9, 7), (50, 70, 3, 3), PADDED),
    ((2, 8, 30, 31), (12, 2, 5, 4), {**PADDED, "stride": (3, 2), "dilation": (2, 1), "groups": 4}),
    ((1, 2, 1, 900), (3, 2, 1, 40), {**PADDED, "padding": (0, 0, 20, 19), "stride": (1, 3)}),
    ((3, 2, 90, 80), (5, 2, 3, 3), PADDED),  # more blocks of positions than few channels add up at once
    ((5, 1, 9, 12), (40, 1, 3, 4), {**PADDED, "padding": (1, 1, 2, 1)}),
]


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = threads.get_num_threads()
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(before)


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(-4, 5, shape).astype(np.float32)


def convolve(x: Array, w: Array, attrs: dict[str, Any]) -> Array:
    """By im2col, in float64."""
    (s0, s1), (d0, d1), groups = attrs["stride"], attrs["dilation"], attrs["groups"]
    top, bottom, left, right = attrs["padding"]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    o, c, kh, kw = w.shape
    height, width = (x.shape[2] - d0 * (kh - 1) - 1) // s0 + 1, (x.shape[3] - d1 * (kw - 1) - 1) // s1 + 1
    out = np.zeros((x.shape[0], groups, o // groups, height, width))
    images = x.reshape(x.shape[0], groups, c, *x.shape[2:])
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * d0, i * d0 + (height - 1) * s0 + 1, s0)
            met = images[:, :, :, rows, j * d1 : j * d1 + (width - 1) * s1 + 1 : s1]
            out += np.einsum("ngchw,goc->ngohw", met, w[:, :, i, j].reshape(groups, o // groups, c))
    return out.reshape(x.shape[0], o, height, width)


@pytest.mark.parametrize(("x_shape", "w_shape", "attrs"), SHAPES, ids=str)
def test_large(x_shape: Any, w_shape: Any, attrs: dict[str, Any], three_threads: None) -> None:
    rng = np.random.default_rng(0)
    x, w = integers(rng, x_shape), integers(rng, w_shape)
    wanted = convolve(x, w, attrs)
    g = integers(rng, wanted.shape)
    xs, ws, gs = map(kiln.from_numpy, (x, w, g))
    for level in (None, "avx2"):
        with targets.use_target(targets.host_target() if level is None else targets.named(level)):
            assert (OPS["conv2d"](xs, ws, **attrs).numpy() == wanted).all()
            # Transposed: each is the other's adjoint, and these sums are exact.
            back = OPS["conv2d_input"](gs, ws, size=x_shape[2:], **attrs).numpy()
            assert (back.astype(np.float64) * x).sum() == (wanted * g).sum()
            for probe in range(3):
                other = integers(np.random.default_rng(probe), x_shape)
                assert (back.astype(np.float64) * other).sum() == (convolve(other, w, attrs) * g).sum()
            turned = OPS["conv2d_weight"](xs, gs, size=w_shape[2:], **attrs).numpy()
            for probe in range(3):
                other = integers(np.random.default_rng(probe), w_shape)
                assert (turned.astype(np.float64) * other).sum() == (convolve(x, other, attrs) * g).sum()


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input"])
def test_an_image_is_what_it_is_alone(name: str, three_threads: None) -> None:
    """Whatever else is in the batch, however its memory lies, with any number of threads."""
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(37, 6, 12, 12)).astype(np.float32), rng.normal(size=(6, 6, 3, 3)).astype(np.float32)
    attrs = {**PADDED, "size": (12, 12)} if name == "conv2d_input" else PADDED
    whole = OPS[name](kiln.from_numpy(x), kiln.from_numpy(w), **attrs).numpy()
    turned = np.ascontiguousarray(x.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    assert OPS[name](kiln.from_numpy(turned), kiln.from_numpy(w), **attrs).numpy().tobytes() == whole.tobytes()
    for n in (0, 20, 36):
        alone = OPS[name](kiln.from_numpy(x[n : n + 1]), kiln.from_numpy(w), **attrs).numpy()
        assert alone.tobytes() == whole[n : n + 1].tobytes()
    for count in (1, 2, 7):
        threads.set_num_threads(count)
        assert OPS[name](kiln.from_numpy(x), kiln.from_numpy(w), **attrs).numpy().tobytes() == whole.tobytes()


def test_no_threads_change_the_gradient_by_the_weights(three_threads: None) -> None:
    rng = np.random.default_rng(2)
    x, g = (kiln.from_numpy(rng.normal(size=(40, c, 9, 9)).astype(np.float32)) for c in (9, 20))
    found = []
    for count in (1, 2, 3, 7):
        threads.set_num_threads(count)
        found.append(OPS["conv2d_weight"](x, g, size=(3, 3), **PADDED).numpy().tobytes())
    assert len(set(found)) == 1


def test_one_kernel_serves_all_sizes() -> None:
    """Other images, rows and columns are only other numbers for the program of an op."""
    from kiln import dispatch

    w = kiln.ones(4, 3, 3, 3)
    OPS["conv2d"](kiln.ones(2, 3, 8, 9), w, **PADDED)
    before = len(dispatch._kernels)
    for shape in [(1, 3, 5, 6), (3, 3, 20, 4), (2, 3, 8, 10)]:
        OPS["conv2d"](kiln.ones(*shape), w, **PADDED)
    assert len(dispatch._kernels) == before


def test_there_are_kernels_for_floats_only() -> None:
    with pytest.raises(TypeError, match="no convolution of int64"):
        conv.conv_module(T.int64, targets.host_target())
