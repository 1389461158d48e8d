"""Pooling over volumes, back to where the largest elements were, and over windows that lie at random: against NumPy,
finite differences, compiled as eager. `nn/test_golden.py` holds the layers against PyTorch's results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.checking import compiles, differentiates

RNG = np.random.default_rng(5)
Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def shuffled(*shape: int) -> Array:
    """Numbers that all differ, by more than a finite difference moves them."""
    return RNG.permutation(math.prod(shape)).reshape(shape) * 0.1


def pooled(x: Array, spans: list[list[tuple[int, int]]], f: Callable[..., Any]) -> Array:
    """f of each window of the last three dimensions; `spans` are the (begin, end) along each."""
    out = np.zeros((*x.shape[:-3], *map(len, spans)), x.dtype)
    for at in itertools.product(*(range(len(s)) for s in spans)):
        (a, b), (c, d), (e, g) = (s[i] for s, i in zip(spans, at, strict=True))
        window = x[..., a:b, c:d, e:g]
        out[(..., *at)] = f(window.reshape(*x.shape[:-3], -1))
    return out


def spans(n: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    found = range(0, n + 2 * padding - kernel + 1, stride)
    return [(max(0, i - padding), min(n, i - padding + kernel)) for i in found]


WINDOWS: list[tuple[Any, Any, Any]] = [(2, 2, 0), ((2, 3, 1), (1, 2, 3), (1, 1, 0)), (3, 2, 1)]


def each(value: Any) -> tuple[int, int, int]:
    return (value,) * 3 if isinstance(value, int) else value


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS, ids=str)
def test_max_pool3d(kernel: Any, stride: Any, padding: Any) -> None:
    x = shuffled(2, 2, 5, 6, 4)
    where = [spans(*a) for a in zip(x.shape[2:], each(kernel), each(stride), each(padding), strict=True)]
    got, at = F.max_pool3d(kiln.from_numpy(x), kernel, stride, padding, return_indices=True)
    assert (got.numpy() == pooled(x, where, lambda v: v.max(-1))).all()
    flat = np.take_along_axis(x.reshape(2, 2, -1), at.numpy().reshape(2, 2, -1), 2)
    assert (flat == got.numpy().reshape(2, 2, -1)).all()
    compiles(lambda x: F.max_pool3d(x, kernel, stride, padding, return_indices=True), x)
    differentiates(lambda x: F.max_pool3d(x, kernel, stride, padding), shuffled(1, 2, 4, 3, 3))


def test_the_first_of_equal_ones_in_row_major_order() -> None:
    x = kiln.tensor([[[1.0, 3.0], [3.0, 2.0]], [[3.0, 0.0], [0.0, 3.0]]]).reshape(1, 2, 2, 2).requires_grad_()
    largest, at = kiln.max_pool3d(x, 2), F.max_pool3d_with_indices(x, 2)[1]
    assert largest.item() == 3.0 and at.item() == 1
    largest.sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    x = kiln.tensor([1.0, np.nan, 5.0, np.nan]).reshape(1, 4, 1, 1)
    largest, at = F.max_pool3d_with_indices(x, (4, 1, 1))
    assert np.isnan(largest.item()) and at.item() == 1


@pytest.mark.parametrize("dtype", [kiln.int32, kiln.bfloat16, kiln.float32])
def test_max_pool3d_of_other_dtypes(dtype: kiln.dtype) -> None:
    x = kiln.arange(2 * 27).reshape(2, 3, 3, 3).to(dtype)
    assert F.max_pool3d(x, 3).flatten().tolist() == [26, 53] and F.max_pool3d(x, 3).dtype is dtype


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS, ids=str)
def test_avg_pool3d(kernel: Any, stride: Any, padding: Any, include: bool) -> None:
    x = normal(2, 3, 5, 6, 4)
    where = [spans(*a) for a in zip(x.shape[2:], each(kernel), each(stride), each(padding), strict=True)]
    size = math.prod(each(kernel))
    wanted = pooled(x, where, (lambda v: v.sum(-1) / size) if include else (lambda v: v.mean(-1)))
    got = F.avg_pool3d(kiln.from_numpy(x), kernel, stride, padding, count_include_pad=include)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)
    small = normal(1, 2, 4, 3, 3)
    differentiates(lambda x: F.avg_pool3d(x, kernel, stride, padding, False, include), small)
    halves = kiln.from_numpy(x).to(kiln.bfloat16)
    wide = F.avg_pool3d(halves.float(), kernel, stride, padding, count_include_pad=include)
    assert F.avg_pool3d(halves, kernel, stride, padding, count_include_pad=include).equal(wide.bfloat16())


def test_avg_pool3d_with_a_divisor_and_ceil_mode() -> None:
    x = np.arange(27.0).reshape(1, 3, 3, 3)
    assert F.avg_pool3d(kiln.from_numpy(x), 3, divisor_override=2).item() == x.sum() / 2
    corner = F.avg_pool3d(kiln.from_numpy(x), 2, ceil_mode=True)
    assert corner.shape == (1, 2, 2, 2) and corner[0, 1, 1, 1].item() == 26.0
    assert F.max_pool3d(kiln.from_numpy(x), 2, ceil_mode=True)[0, :, 0, 0].tolist() == [13.0, 22.0]
    powers = F.lp_pool3d(kiln.from_numpy(x), 2, 3)
    assert np.isclose(powers.item(), np.sqrt((x**2).sum()))


@pytest.mark.parametrize("out", [2, (3, 4, 2), (None, 1, None), 1, (5, 6, 4)], ids=str)
def test_adaptive_pools(out: Any) -> None:
    x = shuffled(2, 2, 5, 6, 4)
    counts = [n if m is None else m for n, m in zip(x.shape[2:], each(out), strict=True)]
    where = [[(i * n // m, -(-(i + 1) * n // m)) for i in range(m)] for n, m in zip(x.shape[2:], counts, strict=True)]
    t = kiln.from_numpy(x)
    mean = F.adaptive_avg_pool3d(t, out)
    np.testing.assert_allclose(mean.numpy(), pooled(x, where, lambda v: v.mean(-1)), rtol=1e-12)
    got, at = F.adaptive_max_pool3d(t, out, True)
    assert (got.numpy() == pooled(x, where, lambda v: v.max(-1))).all()
    flat = np.take_along_axis(x.reshape(2, 2, -1), at.numpy().reshape(2, 2, -1), 2)
    assert (flat == got.numpy().reshape(2, 2, -1)).all()
    compiles(lambda x: F.adaptive_max_pool3d(x, out, True), x)
    few = shuffled(1, 2, 3, 4, 2)
    differentiates(lambda x: F.adaptive_avg_pool3d(x, (2, 3, 1)), few)
    differentiates(lambda x: F.adaptive_max_pool3d(x, (2, 3, 1)), few)


def test_no_windows_and_no_images() -> None:
    x = kiln.ones(2, 3, 4, 4, 4)
    assert F.adaptive_avg_pool3d(x, (2, 0, 3)).shape == (2, 3, 2, 0, 3)
    assert [t.shape for t in F.adaptive_max_pool3d(x, 0, True)] == [(2, 3, 0, 0, 0)] * 2
    assert F.max_pool3d(kiln.ones(0, 3, 4, 4, 4), 2).shape == (0, 3, 2, 2, 2)
    assert F.avg_pool3d(kiln.ones(0, 3, 4, 4, 4), 2).shape == (0, 3, 2, 2, 2)


def test_with_indices() -> None:
    line, image = kiln.from_numpy(shuffled(2, 6)), kiln.from_numpy(shuffled(2, 6, 6))
    for got, wanted in [
        (kiln.max_pool1d_with_indices(line, 2), F.max_pool1d(line, 2, return_indices=True)),
        (F.max_pool2d_with_indices(image, 2, padding=1), F.max_pool2d(image, 2, padding=1, return_indices=True)),
        (kiln.adaptive_max_pool1d(line, 2), F.adaptive_max_pool1d(line, 2, True)),
        (F.adaptive_max_pool2d_with_indices(image, 2, False), F.adaptive_max_pool2d(image, 2, True)),
    ]:
        assert [x.tolist() for x in got] == [x.tolist() for x in wanted]


# ------------------------------------------------------------------------------------------ unpooling

UNPOOLED: list[tuple[Any, Any, tuple[int, ...]]] = [
    (F.max_pool1d, F.max_unpool1d, (2, 3, 8)),
    (F.max_pool2d, F.max_unpool2d, (3, 6, 4)),
    (F.max_pool3d, F.max_unpool3d, (2, 2, 4, 6, 2)),
]


@pytest.mark.parametrize(("pool", "unpool", "shape"), UNPOOLED, ids=["1", "2", "3"])
def test_unpooling_puts_elements_back(pool: Any, unpool: Any, shape: tuple[int, ...]) -> None:
    x = shuffled(*shape)
    largest, at = pool(kiln.from_numpy(x), 2, return_indices=True)
    back = unpool(largest, at, 2)
    kept = back.numpy() != 0
    assert back.shape == shape and (back.numpy()[kept] == x[kept]).all()
    assert np.isclose(back.numpy().sum(), largest.numpy().sum())
    compiles(lambda v, at: unpool(v, at, 2), largest.numpy(), at.numpy())
    differentiates(lambda v: unpool(v, at, 2), largest.numpy())


def test_unpooling_to_a_size() -> None:
    x = kiln.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]]])
    largest, at = F.max_pool1d(x, 2, return_indices=True)
    assert F.max_unpool1d(largest, at, 2).tolist() == [[[0, 2, 0, 4, 0, 6, 0, 8]]]
    for size in (x.shape, [9]):
        assert F.max_unpool1d(largest, at, 2, output_size=size).tolist() == [[[0, 2, 0, 4, 0, 6, 0, 8, 0]]]
    assert nn.MaxUnpool1d(2)(largest, at, output_size=x.size()).shape == (1, 1, 9)
    twice = kiln.tensor([[1.0, 2.0]], requires_grad=True)
    y = F.max_unpool1d(twice, kiln.tensor([[3, 3]]), 2)
    y.sum().backward()
    assert y.tolist() == [[0, 0, 0, 2]] and twice.grad is not None and twice.grad.tolist() == [[0, 1]]
    whole = kiln.tensor([[5, 6]])
    assert F.max_unpool1d(whole, kiln.tensor([[1, 2]]), 2).tolist() == [[0, 5, 6, 0]]


# --------------------------------------------------------------------------------- fractional pooling


def fractional(x: Array, kernel: tuple[int, ...], out: tuple[int, ...], samples: Array) -> Array:
    """Of volumes, as PyTorch defines the windows."""
    found = np.zeros((*x.shape[:2], *out))
    for n, c in np.ndindex(*x.shape[:2]):
        begins = []
        for d in range(3):
            room, u = x.shape[2 + d] - kernel[d], samples[n, c, d]
            step = room / max(1, out[d] - 1)
            begins.append([*(int((i + u) * step) - int(u * step) for i in range(out[d] - 1)), room])
        for at in np.ndindex(*out):
            window = tuple(slice(b[i], b[i] + k) for b, i, k in zip(begins, at, kernel, strict=True))
            found[(n, c, *at)] = x[(n, c, *window)].max()
    return found


@pytest.mark.parametrize(("kernel", "out"), [((2, 3, 1), (3, 2, 4)), ((2, 2, 2), (1, 1, 5)), ((3, 2, 2), (2, 4, 3))])
def test_fractional_max_pool(kernel: tuple[int, ...], out: tuple[int, ...]) -> None:
    x, samples = shuffled(2, 3, 6, 7, 8), RNG.random((2, 3, 3))
    u = kiln.from_numpy(samples)
    got, at = F.fractional_max_pool3d(kiln.from_numpy(x), kernel, out, return_indices=True, _random_samples=u)
    assert (got.numpy() == fractional(x, kernel, out, samples)).all()
    flat = np.take_along_axis(x.reshape(2, 3, -1), at.numpy().reshape(2, 3, -1), 2)
    assert (flat == got.numpy().reshape(2, 3, -1)).all()
    compiles(lambda x, u: F.fractional_max_pool3d_with_indices(x, kernel, out, _random_samples=u), x, samples)
    differentiates(lambda x: F.fractional_max_pool3d(x, kernel, out, _random_samples=u), x)
    plane, one = x[:, :, :1], np.concatenate([samples[:, :, :1], samples[:, :, 1:]], -1)
    flat_kernel, flat_out = (1, *kernel[1:]), (1, *out[1:])
    turned = kiln.from_numpy(np.ascontiguousarray(samples[:, :, :0:-1]))  # columns before rows
    image = F.fractional_max_pool2d(kiln.from_numpy(x[:, :, 0]), kernel[1:], out[1:], _random_samples=turned)
    assert (image.numpy() == fractional(plane, flat_kernel, flat_out, one)[:, :, 0]).all()


def test_fractional_max_pool_draws() -> None:
    x = kiln.randn(2, 3, 13, 11)
    layer = nn.FractionalMaxPool2d(2, output_ratio=0.5, return_indices=True)
    kiln.manual_seed(4)
    first, at = layer(x)
    assert first.shape == (2, 3, 6, 5) and at.dtype is kiln.int64
    second = layer(x)[0]
    kiln.manual_seed(4)
    assert layer(x)[0].equal(first) and not second.equal(first)
    assert "_random_samples" in nn.FractionalMaxPool3d(2, 2, _random_samples=kiln.rand(1, 1, 3)).state_dict()


def test_refusals() -> None:
    x, at = kiln.ones(1, 2, 3, 3), kiln.zeros(1, 2, 3, 3, dtype=kiln.int64)
    pool2, pool3 = F.fractional_max_pool2d, F.fractional_max_pool3d
    samples = kiln.rand(1, 2, 3)
    for match, error, call in [
        ("indices must be int64", kiln.DTypeError, lambda: F.max_unpool2d(x, x, 2)),
        ("same shape", kiln.ShapeError, lambda: F.max_unpool2d(x, at[:, :1], 2)),
        (r"\[N, C, D, H, W\]", kiln.ShapeError, lambda: F.max_unpool3d(x[0], at[0], 2)),
        ("out of range", kiln.KilnIndexError, lambda: F.max_unpool2d(x, at + 36, 2)),
        (r"\[9, 6\] must lie less than", kiln.InvalidValueError, lambda: F.max_unpool2d(x, at, 2, None, 0, [9, 6])),
        ("must have 2 or 4 numbers", kiln.ArgumentError, lambda: F.max_unpool2d(x, at, 2, None, 0, [9])),
        ("need at least 4 elements", kiln.ShapeError, lambda: pool2(x, 2, 3)),
        ("needs output_size or", kiln.ArgumentError, lambda: pool2(x, 2)),
        (r"must have shape \[1, 2, 2\]", kiln.ShapeError, lambda: pool2(x, 2, 1, _random_samples=samples)),
        ("output_size must be at least 1", kiln.InvalidValueError, lambda: pool2(x, 2, output_ratio=0.2)),
        (r"\[C, D, H, W\]", kiln.ShapeError, lambda: pool3(x[0], 2, 1)),
        ("either output_size or", kiln.ArgumentError, lambda: nn.FractionalMaxPool2d(2, 2, 0.5)),
        ("between 0 and 1", kiln.InvalidValueError, lambda: nn.FractionalMaxPool2d(2, output_ratio=1.5)),
        ("does not fit in 2 elements", kiln.ShapeError, lambda: F.max_pool3d(kiln.ones(1, 2, 3, 3), 3)),
        ("divisor_override is 0", kiln.InvalidValueError, lambda: F.avg_pool3d(x, 1, divisor_override=0)),
    ]:
        with pytest.raises(error, match=match):
            call()
