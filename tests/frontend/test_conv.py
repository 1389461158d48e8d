"""Convolution, pooling, padding and resizing, as functions and layers: against plain NumPy, hand-computed values of
PyTorch's, finite differences; compiled against eager bit for bit; what they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
RNG = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def pairs(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def close(got: kiln.Tensor, wanted: Array, tolerance: float = 1e-12) -> None:
    assert got.shape == wanted.shape
    assert np.allclose(got.detach().numpy(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def gradients(f: Callable[..., kiln.Tensor], *given: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
    """The result of `f` and its gradients, eagerly and compiled: equal bit for bit."""

    def run(*inputs: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        y = f(*leaves)
        return y.detach(), *kiln.autograd.grad((y * y).sum(), leaves)

    eager, compiled = run(*given), kiln.compile(run)(*given)
    assert [x.numpy().tobytes() for x in eager] == [x.numpy().tobytes() for x in compiled]
    return eager


# ---------------------------------------------------------------------------------------- NumPy's side


def convolve(
    x: Array,
    w: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    """conv2d by its definition, over an image with zeros around."""
    (s0, s1), (p0, p1), (d0, d1) = pairs(stride), pairs(padding), pairs(dilation)
    x = np.pad(x, ((0, 0), (0, 0), (p0, p0), (p1, p1)))
    o, c, kh, kw = w.shape
    height, width = (x.shape[2] - d0 * (kh - 1) - 1) // s0 + 1, (x.shape[3] - d1 * (kw - 1) - 1) // s1 + 1
    out = np.zeros((x.shape[0], o, height, width))
    for q, i, j in itertools.product(range(o), range(height), range(width)):
        first = q // (o // groups) * c
        rows = slice(i * s0, i * s0 + d0 * (kh - 1) + 1, d0)
        patch = x[:, first : first + c, rows, j * s1 : j * s1 + d1 * (kw - 1) + 1 : d1]
        out[:, q, i, j] = (patch * w[q]).sum((1, 2, 3))
    return out if bias is None else out + bias[:, None, None]


def windows(x: Array, kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1, fill: float = np.nan) -> Array:
    """[..., OH, OW, KH * KW]: the elements of every window, `fill` in the padding."""
    (k0, k1), (s0, s1), (p0, p1), (d0, d1) = pairs(kernel), pairs(stride), pairs(padding), pairs(dilation)
    lead = [(0, 0)] * (x.ndim - 2)
    x = np.pad(x, (*lead, (p0, p0), (p1, p1)), constant_values=fill)
    height, width = (x.shape[-2] - d0 * (k0 - 1) - 1) // s0 + 1, (x.shape[-1] - d1 * (k1 - 1) - 1) // s1 + 1
    cut = []
    for i, j in itertools.product(range(k0), range(k1)):
        rows = slice(i * d0, i * d0 + (height - 1) * s0 + 1, s0)
        cut.append(x[..., rows, j * d1 : j * d1 + (width - 1) * s1 + 1 : s1])
    return np.stack(cut, -1)


# ------------------------------------------------------------------------------------------ what holds for all


def check(f: Function, *arrays: Array, smooth: bool = True) -> None:
    """Compiled as eager, also of transposed memory; the gradient against a central difference."""

    def number(*operands: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        y = f(*operands)
        total = (y * weight).sum()
        return (y.detach(), *kiln.grad(total, list(operands)))

    def tensors(values: Sequence[Array]) -> list[kiln.Tensor]:
        return [kiln.from_numpy(np.ascontiguousarray(v.T).T).requires_grad_() for v in values]

    weight = kiln.from_numpy(np.random.default_rng(3).normal(size=f(*tensors(arrays)).shape))
    eager = [t.numpy() for t in number(*tensors(arrays))]
    compiled = kiln.compile(number)
    for _ in range(2):
        for got, wanted in zip(compiled(*tensors(arrays)), eager, strict=True):
            assert got.numpy().tobytes() == wanted.tobytes()
    if not smooth:
        return
    direction = [np.random.default_rng(5).normal(size=a.shape) for a in arrays]
    step = 1e-6
    values = []
    for scale in (step, -step):
        moved = [a + scale * d for a, d in zip(arrays, direction, strict=True)]
        values.append(float((f(*map(kiln.from_numpy, moved)) * weight).sum().item()))
    numeric = (values[0] - values[1]) / (2 * step)
    analytic = sum(float((g * d).sum()) for g, d in zip(eager[1:], direction, strict=True))
    assert abs(analytic - numeric) <= 1e-6 * (1 + abs(numeric))


# ----------------------------------------------------------------------------------------- convolution

CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 3), "padding": (2, 0), "dilation": (1, 2)},
    {"groups": 2, "padding": 1},
]


@pytest.mark.parametrize("given", CONVOLUTIONS, ids=str)
def test_conv2d(given: dict[str, Any]) -> None:
    groups = given.get("groups", 1)
    x, w, b = normal(2, 4, 7, 8), normal(6, 4 // groups, 3, 2), normal(6)
    close(F.conv2d(*map(kiln.from_numpy, (x, w, b)), **given), convolve(x, w, b, **given))
    close(F.conv2d(*map(kiln.from_numpy, (x[0], w)), **given), convolve(x[:1], w, **given)[0])
    check(lambda x, w, b: F.conv2d(x, w, b, **given), x, w, b)


def test_conv1d_is_a_row() -> None:
    x, w, b = normal(2, 3, 11), normal(4, 3, 3), normal(4)
    wanted = convolve(x[:, :, None], w[:, :, None], b, (1, 2), (0, 1), (1, 2))[:, :, 0]
    close(F.conv1d(*map(kiln.from_numpy, (x, w, b)), stride=2, padding=1, dilation=2), wanted)
    check(lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2), x, w, b)


def test_same_padding_has_the_odd_one_behind() -> None:
    x, w = normal(1, 2, 5, 6), normal(3, 2, 2, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (3, 3)))
    close(
        F.conv2d(kiln.from_numpy(x), kiln.from_numpy(w), padding="same", dilation=(1, 2)),
        convolve(padded, w, dilation=(1, 2)),
    )
    close(F.conv2d(kiln.from_numpy(x), kiln.from_numpy(w), padding="valid"), convolve(x, w))


def test_padding_is_not_multiplied() -> None:
    """0 * inf would be NaN."""
    w = kiln.tensor([[[[np.inf, 1.0, 1.0]]]])
    y = F.conv2d(kiln.ones(1, 1, 1, 3), w, padding=(0, 1))
    assert y.tolist() == [[[[2.0, np.inf, np.inf]]]]


@pytest.mark.parametrize(
    "given",
    [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "stride": (1, 3), "dilation": (2, 1)}],
    ids=str,
)
def test_conv_transpose2d_is_the_gradient_of_conv2d(given: dict[str, Any]) -> None:
    groups = given.get("groups", 1)
    x, w, b = normal(2, 4, 3, 4), normal(4, 6 // groups, 3, 2), normal(6)
    y = F.conv_transpose2d(*map(kiln.from_numpy, (x, w, b)), **given)
    bare = y - kiln.from_numpy(b).reshape(6, 1, 1)
    forward = {k: v for k, v in given.items() if k != "output_padding"}
    probe = normal(*y.shape)
    seen = convolve(probe, w, **forward)
    assert np.isclose(float((bare.numpy() * probe).sum()), float((seen * x).sum()))
    check(lambda x, w, b: F.conv_transpose2d(x, w, b, **given), x, w, b)


def test_conv_transpose1d_by_hand() -> None:
    y = F.conv_transpose1d(kiln.tensor([[[1.0, 2.0]]]), kiln.tensor([[[1.0, 10.0, 100.0]]]), stride=2, output_padding=1)
    assert y.tolist() == [[[1.0, 10.0, 102.0, 20.0, 200.0, 0.0]]]


def test_convolution_refuses() -> None:
    x, w = kiln.zeros(1, 2, 5, 5), kiln.zeros(3, 2, 3, 3)
    y = kiln.zeros(2, 1, 3, 3)
    for match, error, call in [
        ("expects an input of shape", kiln.ShapeError, lambda: F.conv2d(kiln.zeros(5, 5), w)),
        ("weight of 4 dimensions", kiln.ShapeError, lambda: F.conv2d(x, kiln.zeros(3, 2, 3))),
        ("channels in 1 groups", kiln.ShapeError, lambda: F.conv2d(x, kiln.zeros(3, 1, 3, 3))),
        ("dtypes", kiln.DTypeError, lambda: F.conv2d(x, w.to(kiln.float64))),
        ("not defined for int64", kiln.DTypeError, lambda: F.conv2d(x.to(kiln.int64), w.to(kiln.int64))),
        ("does not fit", kiln.ShapeError, lambda: F.conv2d(x, kiln.zeros(3, 2, 6, 3))),
        ("bias must have shape", kiln.ShapeError, lambda: F.conv2d(x, w, kiln.zeros(2))),
        ("stride must be at least 1", kiln.InvalidValueError, lambda: F.conv2d(x, w, stride=0)),
        ("needs stride 1", kiln.InvalidValueError, lambda: F.conv2d(x, w, stride=2, padding="same")),
        ('"same" or "valid"', kiln.InvalidValueError, lambda: F.conv2d(x, w, padding="full")),
        ("an int or 2 of them", kiln.ArgumentError, lambda: F.conv2d(x, w, stride=1.5)),  # type: ignore[arg-type]
        ("expected a tensor", kiln.ArgumentError, lambda: F.conv2d(np.zeros((1, 2, 5, 5)), w)),  # type: ignore[arg-type]
        ("output_padding 2 must be smaller", kiln.InvalidValueError, lambda: F.conv_transpose2d(x, y, None, 2, 0, 2)),
    ]:  # fmt: skip
        with pytest.raises(error, match=match):
            call()


def test_third_derivative_of_a_convolution() -> None:
    """sum(conv(x, w) ** 3) is cubic in x: its third derivative along u is 6 * sum(conv(u, w) ** 3)."""
    x, u, w = (kiln.from_numpy(normal(*s)) for s in ((1, 2, 4, 4), (1, 2, 4, 4), (2, 2, 3, 3)))
    x.requires_grad_()
    value = (F.conv2d(x, w, padding=1) ** 3.0).sum()
    for _ in range(3):
        (g,) = kiln.grad(value, [x], create_graph=True)
        value = (g * u).sum()
    wanted = 6 * (F.conv2d(u, w, padding=1) ** 3.0).sum().item()
    assert np.isclose(value.item(), wanted)


def test_unfold_and_fold() -> None:
    x = normal(2, 3, 7, 8)
    cut = windows(x, (2, 3), (2, 1), 1, 2, fill=0.0)
    wanted = cut.reshape(2, 3, -1, 6).swapaxes(2, 3).reshape(2, 18, -1)
    close(F.unfold(kiln.from_numpy(x), (2, 3), dilation=2, padding=1, stride=(2, 1)), wanted)
    patches = normal(*wanted.shape)
    folded = F.fold(kiln.from_numpy(patches), (7, 8), (2, 3), dilation=2, padding=1, stride=(2, 1))
    assert np.isclose(float((folded.numpy() * x).sum()), float((patches * wanted).sum()))
    check(lambda x: F.unfold(x, 2), normal(3, 4, 5))
    check(lambda x: F.fold(x, (4, 5), 2, padding=1), normal(2, 8, 30))
    with pytest.raises(kiln.ShapeError, match="expects"):
        F.fold(kiln.zeros(1, 8, 11), (4, 5), 2)


# --------------------------------------------------------------------------------------------- pooling

POOLS: list[tuple[Any, Any, Any]] = [(2, 2, 0), ((3, 2), (2, 1), 1), (3, 3, (0, 1))]


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS, ids=str)
def test_max_pool2d(kernel: Any, stride: Any, padding: Any) -> None:
    x = np.random.default_rng(1).permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7) * 0.1
    got, at = F.max_pool2d(kiln.from_numpy(x), kernel, stride, padding, return_indices=True)
    close(got, windows(x, kernel, stride, padding, fill=-np.inf).max(-1))
    assert (
        np.take_along_axis(x.reshape(2, 3, -1), at.numpy().reshape(2, 3, -1), 2) == got.numpy().reshape(2, 3, -1)
    ).all()
    check(lambda x: F.max_pool2d(x, kernel, stride, padding), x)


def test_the_first_maximum_takes_the_gradient() -> None:
    x = kiln.tensor([[[3.0, 3.0, 1.0, np.nan, 5.0, np.nan]]], requires_grad=True)
    y, at = F.max_pool1d(x, 3, return_indices=True)
    assert y[0, 0, 0].item() == 3.0 and np.isnan(y[0, 0, 1].item()) and at.tolist() == [[[0, 3]]]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]]


def test_ceil_mode() -> None:
    """A last window may begin inside and end outside; never begin in the padding behind."""
    x = kiln.from_numpy(np.arange(7.0).reshape(1, 1, 7))
    assert F.max_pool1d(x, 3, 2).tolist() == [[[2.0, 4.0, 6.0]]]
    assert F.max_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[1.0, 3.0, 5.0, 6.0]]]
    assert F.avg_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[0.5, 2.5, 4.5, 6.0]]]
    assert F.max_pool1d(x, 2, 4, 1, ceil_mode=True).tolist() == [[[0.0, 4.0]]]
    check(lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), normal(1, 2, 6, 8))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS, ids=str)
def test_avg_pool2d(kernel: Any, stride: Any, padding: Any, include: bool) -> None:
    x = normal(2, 3, 6, 7)
    parts = windows(x, kernel, stride, padding)
    count = parts.shape[-1] if include else (~np.isnan(parts)).sum(-1)
    got = F.avg_pool2d(kiln.from_numpy(x), kernel, stride, padding, count_include_pad=include)
    close(got, np.nansum(parts, -1) / count)
    check(lambda x: F.avg_pool2d(x, kernel, stride, padding, count_include_pad=include), x)


def test_avg_pool_divisor_and_lines() -> None:
    x = normal(2, 3, 9)
    close(F.avg_pool1d(kiln.from_numpy(x), 3), x.reshape(2, 3, 3, 3).mean(-1))
    got = F.avg_pool2d(kiln.from_numpy(x[None]), (1, 3), divisor_override=7)
    close(got, x[None].reshape(1, 2, 3, 3, 3).sum(-1) / 7)
    powers = (np.abs(x).reshape(2, 3, 3, 3) ** 3).sum(-1) ** (1 / 3)
    close(F.lp_pool1d(kiln.from_numpy(np.abs(x)), 3, 3), powers)


@pytest.mark.parametrize("out", [(3, 2), (4, 5), (None, 1), (1, 1), 2], ids=str)
def test_adaptive_pools(out: Any) -> None:
    x = np.random.default_rng(2).permutation(2 * 2 * 6 * 8).reshape(2, 2, 6, 8) * 0.1
    rows, columns = (
        n if m is None else m for n, m in zip((6, 8), (out, out) if isinstance(out, int) else out, strict=True)
    )
    parts = [
        [
            x[:, :, i * 6 // rows : -(-(i + 1) * 6 // rows), j * 8 // columns : -(-(j + 1) * 8 // columns)]
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    t = kiln.from_numpy(x)
    mean = np.stack([np.stack([p.mean((2, 3)) for p in line], -1) for line in parts], -2)
    largest = np.stack([np.stack([p.max((2, 3)) for p in line], -1) for line in parts], -2)
    close(F.adaptive_avg_pool2d(t, out), mean)
    got, at = F.adaptive_max_pool2d(t, out, return_indices=True)
    close(got, largest)
    flat = np.take_along_axis(x.reshape(2, 2, -1), at.numpy().reshape(2, 2, -1), 2)
    assert (flat == largest.reshape(2, 2, -1)).all()
    check(lambda x: F.adaptive_avg_pool2d(x, out), x)
    check(lambda x: F.adaptive_max_pool2d(x, out), x)


def test_adaptive_pools_of_lines_and_large_windows() -> None:
    x = normal(2, 3, 12)
    close(F.adaptive_avg_pool1d(kiln.from_numpy(x), 4), x.reshape(2, 3, 4, 3).mean(-1))
    close(F.adaptive_max_pool1d(kiln.from_numpy(x), 5)[:, :, 0], x[:, :, :3].max(-1))
    large = normal(2, 3, 40, 30)
    close(F.adaptive_avg_pool2d(kiln.from_numpy(large), 1), large.mean((2, 3), keepdims=True))
    check(lambda x: F.adaptive_avg_pool2d(x, 1), large)


def test_programs_do_not_grow_with_windows() -> None:
    x = kiln.zeros(1, 2, 30, 30)
    for f in (
        lambda x, n: F.max_pool2d(x, n),
        lambda x, n: F.avg_pool2d(x, n, padding=n // 2),
        lambda x, n: F.adaptive_avg_pool2d(x, n),
        lambda x, n: F.adaptive_max_pool2d(x, n),
        lambda x, n: F.unfold(x, n),
        lambda x, n: F.fold(F.unfold(x, n), (30, 30), n),
        lambda x, n: F.pad(x, (n, n, n, n), mode="reflect"),
        lambda x, n: F.local_response_norm(x, n),
    ):
        small, large = (len(str(kiln.explain(lambda x, f=f, n=n: f(x, n), x))) for n in (17, 27))
        assert large < 1.5 * small


@pytest.mark.parametrize("kernel", [2, 7, 40])
def test_windows_of_any_size(kernel: int) -> None:
    """Values, gradients, and compiled equal to eager bit for bit."""
    x = np.random.default_rng(3).permutation(2 * 45 * 43).reshape(1, 2, 45, 43).astype(np.float32) * 0.01
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::3, ::2]
    close(F.max_pool2d(kiln.from_numpy(x), kernel, (3, 2)), windows.max((-1, -2)))
    close(F.avg_pool2d(kiln.from_numpy(x), kernel, (3, 2)), windows.mean((-1, -2)), 1e-4)
    weights = kiln.from_numpy(normal(*windows.shape[:4]).astype(np.float32))

    for pool in (F.max_pool2d, F.avg_pool2d):

        def gradient(x: kiln.Tensor, pool: Any = pool) -> kiln.Tensor:
            x = x.detach().requires_grad_()
            (pool(x, kernel, (3, 2)) * weights).sum().backward()
            return cast("kiln.Tensor", x.grad)

        eager, compiled = gradient(kiln.from_numpy(x)), kiln.compile(gradient)(kiln.from_numpy(x))
        assert eager.numpy().tobytes() == compiled.numpy().tobytes()
        wanted = np.zeros_like(x)
        for p, q in np.ndindex(*windows.shape[2:4]):
            part = wanted[:, :, 3 * p : 3 * p + kernel, 2 * q : 2 * q + kernel]
            source = x[:, :, 3 * p : 3 * p + kernel, 2 * q : 2 * q + kernel]
            hit = source == source.max((2, 3), keepdims=True) if pool is F.max_pool2d else np.full((), kernel**-2.0)
            part += (hit * weights.numpy()[:, :, p, q][..., None, None]).astype(np.float32)
        close(eager, wanted, 1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("width", [5, 16, 37])
def test_depthwise_convolution_is_one_convolution_per_channel(stride: int, width: int) -> None:
    x, w = kiln.from_numpy(normal(2, 5, 9, width)), kiln.from_numpy(normal(5, 1, 3, 5))
    together = gradients(lambda x, w: F.conv2d(x, w, None, stride, (1, 2), groups=5), x, w)
    for c in range(5):
        # Three equal filters: enough for the kernels of many channels, which have an order in common with the others.
        part, filters = x[:, c : c + 1], kiln.cat([w[c : c + 1]] * 3)
        alone = F.conv2d(part, filters, None, stride, (1, 2))
        assert alone[:, :1].numpy().tobytes() == together[0][:, c : c + 1].contiguous().numpy().tobytes()
        single = gradients(lambda x, w: F.conv2d(x, w, None, stride, (1, 2)), part, w[c : c + 1])
        assert single[1].numpy().tobytes() == together[1][:, c : c + 1].contiguous().numpy().tobytes()
        assert single[2].numpy().tobytes() == together[2][c : c + 1].contiguous().numpy().tobytes()


def test_pools_of_nothing_and_of_integers() -> None:
    assert F.max_pool2d(kiln.zeros(0, 3, 4, 4), 2).shape == (0, 3, 2, 2)
    assert F.avg_pool2d(kiln.zeros(2, 0, 4, 4), 2).shape == (2, 0, 2, 2)
    assert F.max_pool1d(kiln.tensor([[3, 1, 2, 5]]), 2).tolist() == [[3, 5]]


def test_pooling_refuses() -> None:
    x = kiln.zeros(1, 2, 5, 5)
    for match, error, call in [
        ("more than half", kiln.InvalidValueError, lambda: F.max_pool2d(x, 2, 2, 2)),
        ("does not fit", kiln.ShapeError, lambda: F.max_pool2d(x, 6)),
        ("does not fit", kiln.ShapeError, lambda: F.avg_pool2d(kiln.zeros(1, 1, 0, 4), 1)),
        ("kernel_size must be at least 1", kiln.InvalidValueError, lambda: F.avg_pool2d(x, 0)),
        ("divisor_override is 0", kiln.InvalidValueError, lambda: F.avg_pool2d(x, 2, divisor_override=0)),
        ("expects an input", kiln.ShapeError, lambda: F.max_pool2d(kiln.zeros(5), 2)),
        ("not defined for bool", kiln.DTypeError, lambda: F.max_pool2d(x > 0, 2)),
        ("output_size must be", kiln.ArgumentError, lambda: F.adaptive_avg_pool2d(x, (1, 2, 3))),
    ]:
        with pytest.raises(error, match=match):
            call()


# ------------------------------------------------------------------------------------ padding, resizing


@pytest.mark.parametrize(
    ("mode", "numpy"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_pad(mode: str, numpy: Any) -> None:
    x = normal(2, 3, 5, 6)
    wanted = np.pad(x, ((0, 0), (0, 0), (4, 0), (2, 1)), mode=numpy)
    close(F.pad(kiln.from_numpy(x), (2, 1, 4, 0), mode=mode), wanted)
    check(lambda x: F.pad(x, (2, 1, 4, 0), mode=mode), x)
    cropped = np.pad(x[:, :, :, 1:], ((0, 0), (0, 0), (0, 0), (0, 2)), mode=numpy)
    close(F.pad(kiln.from_numpy(x), (-1, 2, 0, 0), mode=mode), cropped)


def test_pad_with_a_value_in_any_dimension() -> None:
    x = normal(3, 4)
    close(F.pad(kiln.from_numpy(x), (0, 0, 1, 2), value=2.5), np.pad(x, ((1, 2), (0, 0)), constant_values=2.5))
    assert F.pad(kiln.zeros(2, 3), (-3, 0)).shape == (2, 0)
    assert F.pad(kiln.tensor([1, 2]), (1, 1)).tolist() == [0, 1, 2, 0]


def test_pad_refuses() -> None:
    x = kiln.zeros(1, 2, 3)
    for match, error, call in [
        ("at most 3 pairs", kiln.InvalidValueError, lambda: F.pad(x, (1,))),
        ("sequence of ints", kiln.ArgumentError, lambda: F.pad(x, (1.0, 1))),  # type: ignore[arg-type]
        ("leave nothing", kiln.ShapeError, lambda: F.pad(x, (-2, -2))),
        ("must be smaller than dimension", kiln.ShapeError, lambda: F.pad(x, (3, 0), mode="reflect")),
        ("must not be larger", kiln.ShapeError, lambda: F.pad(x, (4, 0), mode="circular")),
        ("pads the dimensions behind", kiln.ShapeError, lambda: F.pad(x, (1, 1, 1, 1, 1, 1), mode="reflect")),
        ("mode must be", kiln.InvalidValueError, lambda: F.pad(x, (1, 1), mode="edge")),
        ("constant padding", kiln.InvalidValueError, lambda: F.pad(x, (1, 1), mode="reflect", value=1.0)),
    ]:
        with pytest.raises(error, match=match):
            call()


def test_nearest() -> None:
    x = normal(1, 2, 3, 5)
    t = kiln.from_numpy(x)
    close(F.interpolate(t, scale_factor=2), x.repeat(2, 2).repeat(2, 3))
    close(F.interpolate(t, size=(2, 7)), x[:, :, [0, 1]][:, :, :, [0, 0, 1, 2, 2, 3, 4]])
    close(F.interpolate(t, size=(3, 2), mode="nearest-exact"), x[:, :, :, [1, 3]])
    check(lambda x: F.interpolate(x, size=(2, 7)), x)
    check(lambda x: F.interpolate(x, scale_factor=(3, 1)), x)


def test_linear() -> None:
    t = kiln.tensor([[[0.0, 10.0, 20.0]]], dtype=kiln.float64)
    close(F.interpolate(t, size=5, mode="linear", align_corners=True), np.array([[[0.0, 5.0, 10.0, 15.0, 20.0]]]))
    close(F.interpolate(t, scale_factor=2, mode="linear"), np.array([[[0.0, 2.5, 7.5, 12.5, 17.5, 20.0]]]))
    x = normal(2, 2, 3, 4)
    wide = F.interpolate(kiln.from_numpy(x), size=(5, 4), mode="bilinear", align_corners=True)
    close(wide[:, :, 1], (x[:, :, 0] + x[:, :, 1]) / 2)
    check(lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), x)
    check(lambda x: F.interpolate(x, size=(2, 9), mode="bilinear", align_corners=True), x)


def test_interpolate_refuses() -> None:
    x = kiln.zeros(1, 1, 4, 4)
    for match, error, call in [
        ("either size or scale_factor", kiln.InvalidValueError, lambda: F.interpolate(x)),
        ("is not for 4 dimensions", kiln.ShapeError, lambda: F.interpolate(x, size=3, mode="linear")),
        ("align_corners is not for", kiln.InvalidValueError, lambda: F.interpolate(x, size=3, align_corners=True)),
        ("antialias", kiln.NotYetError, lambda: F.interpolate(x, size=3, mode="bicubic", antialias=True)),
        ("makes size", kiln.ShapeError, lambda: F.interpolate(x, scale_factor=0.1)),
        ("mode must be", kiln.InvalidValueError, lambda: F.interpolate(x, size=3, mode="cubic")),
    ]:
        with pytest.raises(error, match=match):
            call()


def test_pixel_shuffle() -> None:
    x = np.arange(8.0).reshape(1, 4, 1, 2)
    y = F.pixel_shuffle(kiln.from_numpy(x), 2)
    assert y.tolist() == [[[[0.0, 2.0, 1.0, 3.0], [4.0, 6.0, 5.0, 7.0]]]]
    close(F.pixel_unshuffle(y, 2), x)
    check(lambda x: F.pixel_shuffle(x, 3), normal(2, 9, 2, 3))
    with pytest.raises(kiln.ShapeError, match=r"C \* 4"):
        F.pixel_shuffle(kiln.zeros(3, 2, 2), 2)


# ---------------------------------------------------------------------------------------------- layers


def test_layers_have_pytorchs_shapes_and_words() -> None:
    shapes = {
        "Conv2d(4, 6, kernel_size=(3, 2), stride=(1, 1), padding=same, groups=2, bias=False)": (
            nn.Conv2d(4, 6, (3, 2), padding="same", groups=2, bias=False),
            {"weight": (6, 2, 3, 2)},
        ),
        "Conv1d(4, 6, kernel_size=(3,), stride=(2,), padding=(1,), padding_mode=reflect)": (
            nn.Conv1d(4, 6, 3, 2, 1, padding_mode="reflect"),
            {"weight": (6, 4, 3), "bias": (6,)},
        ),
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1), groups=2)": (
            nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, groups=2),
            {"weight": (4, 3, 3, 3), "bias": (6,)},
        ),
        "ConvTranspose1d(4, 6, kernel_size=(3,), stride=(1,), dilation=(2,))": (
            nn.ConvTranspose1d(4, 6, 3, dilation=2),
            {"weight": (4, 6, 3), "bias": (6,)},
        ),
        "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)": (nn.MaxPool2d(2), {}),
        "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))": (nn.AvgPool1d(2), {}),
        "AvgPool2d(kernel_size=3, stride=1, padding=1)": (nn.AvgPool2d(3, 1, 1), {}),
        "AdaptiveAvgPool2d(output_size=(None, 3))": (nn.AdaptiveAvgPool2d((None, 3)), {}),
        "ZeroPad2d((1, 1, 1, 1))": (nn.ZeroPad2d(1), {}),
        "ConstantPad1d(padding=(1, 2), value=3.0)": (nn.ConstantPad1d((1, 2), 3.0), {}),
        "ReflectionPad2d((1, 0, 2, 1))": (nn.ReflectionPad2d((1, 0, 2, 1)), {}),
        "Upsample(scale_factor=2.0, mode='bilinear')": (nn.Upsample(scale_factor=2, mode="bilinear"), {}),
        "PixelShuffle(upscale_factor=2)": (nn.PixelShuffle(2), {}),
        "Unfold(kernel_size=2, dilation=1, padding=0, stride=1)": (nn.Unfold(2), {}),
        "Fold(output_size=(4, 5), kernel_size=2, dilation=1, padding=0, stride=1)": (nn.Fold((4, 5), 2), {}),
    }
    for text, (layer, wanted) in shapes.items():
        assert repr(layer) == text
        assert {name: t.shape for name, t in layer.state_dict().items()} == wanted


def test_layers_compute_what_the_functions_do() -> None:
    kiln.manual_seed(0)
    x = kiln.randn(2, 4, 6, 6)
    conv = nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")
    wanted = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), conv.weight, conv.bias)
    layers: list[tuple[nn.Module, kiln.Tensor]] = [
        (conv, wanted),
        (nn.MaxPool2d(3, 2, 1), F.max_pool2d(x, 3, 2, 1)),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
        (nn.AdaptiveMaxPool2d(4), F.adaptive_max_pool2d(x, 4)),
        (nn.ReplicationPad2d((1, 0, 2, 0)), F.pad(x, (1, 0, 2, 0), mode="replicate")),
        (nn.Upsample((3, 9)), F.interpolate(x, (3, 9))),
        (nn.UpsamplingBilinear2d(scale_factor=2), F.interpolate(x, None, 2, "bilinear", True)),
        (nn.PixelShuffle(2), F.pixel_shuffle(x, 2)),
        (nn.Unfold(3, stride=2), F.unfold(x, 3, stride=2)),
        (nn.LPPool2d(2, 3), F.lp_pool2d(x, 2, 3)),
    ]
    for layer, y in layers:
        assert layer(x).detach().numpy().tobytes() == y.detach().numpy().tobytes(), repr(layer)


def test_initial_values_are_uniform_within_the_bound() -> None:
    kiln.manual_seed(1)
    for layer, seen in [(nn.Conv2d(16, 64, 3, groups=2), 72), (nn.ConvTranspose1d(16, 64, 5), 320)]:
        bound = seen**-0.5
        assert layer.bias is not None
        for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.9 * bound
        assert abs(layer.weight.detach().numpy().std() - bound / 3**0.5) < 0.1 * bound


def test_layers_refuse() -> None:
    for match, call in [
        ("can't be divided", lambda: nn.Conv2d(3, 4, 3, groups=2)),
        ("padding_mode", lambda: nn.Conv2d(3, 4, 3, padding_mode="edge")),
        ("padding_mode", lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect")),
        ("needs stride 1", lambda: nn.Conv1d(3, 4, 3, stride=2, padding="same")),
        ("groups must be at least 1", lambda: nn.Conv2d(3, 4, 3, groups=0)),
    ]:
        with pytest.raises(kiln.InvalidValueError, match=match):
            call()


def test_a_training_step_of_a_cnn_compiled_is_eager() -> None:
    def run(compiled: bool) -> list[float]:
        kiln.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 7, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(7, 4),
        )
        optimizer = kiln.optim.SGD(model.parameters(), lr=0.1)
        x, y = kiln.randn(6, 1, 10, 10), kiln.tensor([0, 1, 2, 3, 0, 1])

        def step(x: kiln.Tensor, y: kiln.Tensor) -> kiln.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        call = kiln.compile(step) if compiled else step
        return [float(call(x, y).item()) for _ in range(4)]

    eager = run(False)
    assert run(True) == eager and eager[-1] < eager[0]


@pytest.mark.parametrize("dtype", [kiln.float16, kiln.bfloat16], ids=str)
def test_half_types_are_summed_in_float32(dtype: Any) -> None:
    """One rounding, at the end; gradients come back in the half type."""
    kiln.manual_seed(4)
    x, w, b = (kiln.randn(*s).to(dtype) for s in ((2, 8, 5, 5), (3, 8, 3, 3), (3,)))
    wide = [t.to(kiln.float32) for t in (x, w, b)]
    for f, operands in [
        (lambda x, w, b: F.conv2d(x, w, b, padding=1), 3),
        (lambda x, w: F.conv_transpose2d(x[:, :3], w, stride=2), 2),
        (lambda x: F.avg_pool2d(x, 3, 2, 1), 1),
        (lambda x: F.adaptive_avg_pool2d(x, 2), 1),
        (lambda x: F.max_pool2d(x, 2), 1),
        (lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"), 1),
    ]:
        got, wanted = f(*(x, w, b)[:operands]), f(*wide[:operands])
        assert got.dtype is dtype
        assert got.to(kiln.float32).numpy().tobytes() == wanted.to(dtype).to(kiln.float32).numpy().tobytes()
    x.requires_grad_()
    F.avg_pool2d(F.conv2d(x, w, b), 3).sum().backward()
    assert x.grad is not None and x.grad.dtype is dtype


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"])
def test_dtypes_are_not_mixed(name: str) -> None:
    line = name.endswith("1d")
    x, w = kiln.zeros((1, 2, 5) if line else (1, 2, 5, 5)), kiln.zeros((2, 2, 3) if line else (2, 2, 3, 3))
    f = getattr(F, name)
    for operands in ((x.half(), w), (x, w.bfloat16()), (x, w, kiln.zeros(2).half()), (x.double(), w)):
        with pytest.raises(kiln.DTypeError, match=f"{name}: input, weight and bias"):
            f(*operands)
    with pytest.raises(kiln.DTypeError, match=name):
        f(x, weight=w, bias=kiln.zeros(2).double())
    assert f(x.half(), w.half()).dtype is kiln.float16
