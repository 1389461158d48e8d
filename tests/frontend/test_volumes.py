"""Convolution over volumes: against convolutions over images and PyTorch's rules, gradients of the second order,
compiled as eager, and what is refused. `nn/test_golden.py` holds the layers against PyTorch's results."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.checking import compiles, differentiates

RNG = np.random.default_rng(11)
Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def three(value: Any) -> tuple[int, int, int]:
    return (value, value, value) if isinstance(value, int) else value


def convolve(x: Array, w: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Array:
    """conv3d by its definition, over a volume with zeros around."""
    steps, spread = three(stride), three(dilation)
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in three(padding))))
    o, c = w.shape[:2]
    spans = [d * (k - 1) + 1 for d, k in zip(spread, w.shape[2:], strict=True)]
    size = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, steps, strict=True)]
    out = np.zeros((x.shape[0], o, *size))
    for q, *at in itertools.product(range(o), *map(range, size)):
        first = q // (o // groups) * c
        block = tuple(slice(i * s, i * s + n, d) for i, s, n, d in zip(at, steps, spans, spread, strict=True))
        out[(slice(None), q, *at)] = (x[(slice(None), slice(first, first + c), *block)] * w[q]).sum((1, 2, 3, 4))
    return out


GIVEN: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (3, 1, 2), "padding": (2, 0, 1), "dilation": (2, 1, 1)},
    {"groups": 2, "padding": (1, 0, 0), "dilation": (1, 2, 1)},
]


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("images", [1, 2])
def test_conv3d(given: dict[str, Any], images: int) -> None:
    x, w, b = normal(images, 4, 6, 4, 5), normal(6, 4 // given.get("groups", 1), 3, 2, 2), normal(6)
    got = F.conv3d(*map(kiln.from_numpy, (x, w, b)), **given)
    wanted = convolve(x, w, **given) + b[:, None, None, None]
    assert got.shape == wanted.shape and got.is_contiguous()
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)
    single = F.conv3d(*map(kiln.from_numpy, (x[0], w, b)), **given)
    assert single.numpy().tobytes() == got[0].numpy().tobytes()
    compiles(lambda x, w, b: F.conv3d(x, w, b, **given), x, w, b)
    turned = np.ascontiguousarray(x.T).T
    assert F.conv3d(*map(kiln.from_numpy, (turned, w, b)), **given).numpy().tobytes() == got.numpy().tobytes()


@pytest.mark.parametrize("given", GIVEN[1:], ids=str)
def test_gradients_of_conv3d(given: dict[str, Any]) -> None:
    x, w, b = normal(2, 2, 4, 3, 3), normal(2, 2 // given.get("groups", 1), 2, 2, 2), normal(2)
    differentiates(lambda x, w, b: F.conv3d(x, w, b, **given), x, w, b)
    differentiates(lambda x, w: F.conv3d(x, w, **given), x, w, second=True)


def test_one_plane_is_conv2d() -> None:
    x, w = normal(3, 2, 1, 5, 6), normal(4, 2, 1, 3, 2)
    plane = F.conv2d(kiln.from_numpy(x[:, :, 0]), kiln.from_numpy(w[:, :, 0]), stride=(1, 2), padding=1)
    got = F.conv3d(kiln.from_numpy(x), kiln.from_numpy(w), stride=(1, 1, 2), padding=(0, 1, 1))
    assert got.squeeze(2).numpy().tobytes() == plane.numpy().tobytes()


def test_padding_is_not_multiplied() -> None:
    """0 * inf would be NaN, along the depth as within planes."""
    w = kiln.tensor([np.inf, 1.0, 1.0]).reshape(1, 1, 3, 1, 1)
    assert F.conv3d(kiln.ones(1, 1, 3, 1, 1), w, padding=(1, 0, 0)).flatten().tolist() == [2.0, np.inf, np.inf]


def test_same_padding_has_the_odd_one_behind() -> None:
    x, w = normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (2, 2), (1, 2)))
    got = F.conv3d(kiln.from_numpy(x), kiln.from_numpy(w), padding="same", dilation=(1, 2, 1))
    np.testing.assert_allclose(got.numpy(), convolve(padded, w, dilation=(1, 2, 1)), rtol=1e-12, atol=1e-12)
    valid = F.conv3d(kiln.from_numpy(x), kiln.from_numpy(w), padding="valid")
    np.testing.assert_allclose(valid.numpy(), convolve(x, w), rtol=1e-12, atol=1e-12)


def test_a_kernel_that_meets_only_padding() -> None:
    x, w = kiln.ones(1, 1, 1, 1, 1, requires_grad=True), kiln.ones(1, 1, 1, 1, 1, requires_grad=True)
    y = F.conv3d(x, w, padding=(1, 0, 0), stride=(2, 1, 1))
    assert y.shape == (1, 1, 2, 1, 1) and not y.any()
    y.sum().backward()
    assert x.grad is not None and w.grad is not None and not x.grad.any() and not w.grad.any()


def test_no_images() -> None:
    x, w = kiln.zeros(0, 2, 3, 3, 3), kiln.zeros(4, 2, 2, 2, 2)
    assert F.conv3d(x, w, padding=1).shape == (0, 4, 4, 4, 4)
    assert F.conv_transpose3d(kiln.zeros(0, 4, 3, 3, 3), w).shape == (0, 2, 4, 4, 4)


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"groups": 2, "stride": (3, 1, 2), "dilation": (1, 2, 1), "padding": (0, 1, 0)},
    {"dilation": 2, "output_padding": 1, "padding": (1, 0, 1)},
]


@pytest.mark.parametrize("given", TRANSPOSED, ids=str)
def test_conv_transpose3d_is_the_gradient_of_conv3d(given: dict[str, Any]) -> None:
    groups = given.get("groups", 1)
    x, w = normal(2, 4, 3, 2, 3), normal(4, 6 // groups, 3, 2, 2)
    y = F.conv_transpose3d(*map(kiln.from_numpy, (x, w)), **given)
    forward = {k: v for k, v in given.items() if k != "output_padding"}
    probe = normal(*y.shape)
    seen = convolve(probe, w, **forward)[tuple(slice(n) for n in x.shape)]
    assert np.isclose(float((y.numpy() * probe).sum()), float((seen * x).sum()))
    few, taps = normal(1, 2, 2, 2, 2), normal(2, 2 // groups, 2, 2, 2)
    differentiates(lambda x, w: F.conv_transpose3d(x, w, **given), few, taps, second=True)


def test_output_padding_beyond_the_stride() -> None:
    """What is asked for beyond the end takes the place of padding, and is zeros behind that."""
    x, w = kiln.tensor([[[1.0, 2.0]]]), kiln.tensor([[[1.0, 10.0, 100.0]]])
    y = F.conv_transpose1d(x, w, dilation=4, padding=1)
    assert y.tolist() == [[[2.0, 0.0, 0.0, 10.0, 20.0, 0.0, 0.0, 100.0]]]
    y = F.conv_transpose1d(x, w, dilation=4, padding=1, output_padding=3)
    assert y.tolist() == [[[2.0, 0.0, 0.0, 10.0, 20.0, 0.0, 0.0, 100.0, 200.0, 0.0, 0.0]]]
    x = kiln.ones(1, 1, 1, 1, requires_grad=True)
    y = F.conv_transpose2d(x, kiln.ones(1, 1, 1, 1), kiln.ones(1), stride=3, padding=1, output_padding=2)
    assert y.tolist() == [[[[1.0]]]]
    y.sum().backward()
    assert x.grad is not None and x.grad.item() == 0.0
    image, taps = normal(1, 2, 3, 2), normal(2, 1, 2, 3)
    padded = {"dilation": 3, "padding": (1, 0), "output_padding": (2, 1)}
    differentiates(lambda x, w: F.conv_transpose2d(x, w, **padded), image, taps)  # type: ignore[arg-type]


def test_conv_tbc() -> None:
    x, w, b = normal(5, 2, 3), normal(2, 3, 4), normal(4)
    got = F.conv_tbc(*map(kiln.from_numpy, (x, w, b)), pad=1)
    padded = np.pad(x, ((1, 1), (0, 0), (0, 0)))
    wanted = sum(padded[k : k + 6] @ w[k] for k in range(2)) + b
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)
    differentiates(lambda x, w, b: F.conv_tbc(x, w, b, 1), x, w, b)
    with pytest.raises(kiln.ShapeError, match=r"conv_tbc.*\[T, N, C\]"):
        F.conv_tbc(kiln.zeros(2, 3), kiln.zeros(2, 3, 4), kiln.zeros(4))


def test_layers_with_an_output_size() -> None:
    layer = nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1)
    x = kiln.randn(2, 2, 3, 4, 5)
    assert layer(x).shape == (2, 3, 5, 7, 9)
    assert layer(x, output_size=[6, 7, 10]).shape == (2, 3, 6, 7, 10)
    assert layer(x, output_size=(2, 3, 5, 8, 9)).shape == (2, 3, 5, 8, 9)
    line = nn.ConvTranspose1d(1, 1, 3, stride=2)
    assert line(kiln.ones(1, 1, 4), output_size=kiln.Size([10])).shape == (1, 1, 10)
    assert nn.ConvTranspose2d(1, 1, 3, stride=2)(kiln.ones(1, 3, 3), [8, 7]).shape == (1, 8, 7)
    with pytest.raises(kiln.InvalidValueError, match=r"output_size \[7, 7, 9\] must lie between"):
        layer(x, output_size=[7, 7, 9])
    with pytest.raises(kiln.ArgumentError, match="must have 3 or 5 numbers, got 2"):
        layer(x, output_size=[7, 7])


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes(mode: str) -> None:
    layer = nn.Conv3d(2, 3, (3, 2, 3), padding=(1, 1, 2), padding_mode=mode, dtype=kiln.float64)
    x = normal(1, 2, 4, 4, 5)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (2, 2)), mode={"zeros": "constant", "replicate": "edge",
                    "circular": "wrap"}.get(mode, mode))  # type: ignore[call-overload]  # fmt: skip
    w, b = (p.detach().numpy() for p in layer.parameters())
    wanted = convolve(padded, w) + b[:, None, None, None]
    np.testing.assert_allclose(layer(kiln.from_numpy(x)).detach().numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_devices_of_layers() -> None:
    assert nn.Conv2d(2, 3, 1, device="cpu", dtype=kiln.float64).weight.dtype is kiln.float64
    with pytest.raises(kiln.DeviceError, match="CuPy"):
        nn.Conv3d(2, 3, 1, device="cuda")


def test_half_types_round_once() -> None:
    x, w = (kiln.randn(*s).to(kiln.bfloat16) for s in ((2, 3, 4, 4, 4), (2, 3, 3, 3, 3)))
    wide = F.conv3d(x.float(), w.float(), padding=1).to(kiln.bfloat16)
    assert F.conv3d(x, w, padding=1).equal(wide)


def test_a_training_step_compiles() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(1)
        net = nn.Sequential(nn.LazyConv3d(4, 3, padding=1), nn.ReLU(), nn.LazyConvTranspose3d(2, 2, stride=2))
        x = kiln.randn(2, 3, 4, 4, 4)
        net(x)
        opt = kiln.optim.SGD(net.parameters(), lr=0.1)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            opt.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        return [[f(x).item() for _ in range(3)], [p.tolist() for p in net.parameters()]]

    assert run(True) == run(False)


def test_refusals() -> None:
    x, w = kiln.zeros(1, 2, 4, 4, 4), kiln.zeros(3, 2, 3, 3, 3)
    half, few = kiln.zeros(3, 1, 3, 3, 3), kiln.zeros(1, 3, 2, 2, 2)
    for match, error, call in [
        (r"\[N, C, D, H, W\]", kiln.ShapeError, lambda: F.conv3d(kiln.zeros(4, 4, 4), w)),
        ("weight of 5 dimensions", kiln.ShapeError, lambda: F.conv3d(x, kiln.zeros(3, 2, 3, 3))),
        ("channels in 1 groups", kiln.ShapeError, lambda: F.conv3d(x, half)),
        ("can't be divided into 2 groups", kiln.InvalidValueError, lambda: F.conv3d(x, half, groups=2)),
        ("spans 5 does not fit in 4", kiln.ShapeError, lambda: F.conv3d(x, kiln.zeros(3, 2, 5, 3, 3))),
        ("spans 7 does not fit in 4", kiln.ShapeError, lambda: F.conv3d(x, kiln.zeros(3, 2, 1, 4, 3), dilation=2)),
        ("bias must have shape", kiln.ShapeError, lambda: F.conv3d(x, w, kiln.zeros(2))),
        ("an int or 3 of them", kiln.ArgumentError, lambda: F.conv3d(x, w, stride=(1, 2))),
        ("different dtypes", kiln.DTypeError, lambda: F.conv3d(x, w.double())),
        ("must be smaller", kiln.InvalidValueError, lambda: F.conv_transpose3d(few, w, None, 1, 0, 1)),
        ("makes 3", kiln.ShapeError, lambda: F.conv_transpose3d(x, w)),
    ]:  # fmt: skip
        with pytest.raises(error, match=match):
            call()
