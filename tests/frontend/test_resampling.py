"""Images read between pixels. Expected numbers were computed by PyTorch 2.13."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln.nn import functional as F
from tests.frontend.checking import compiles, differentiates

RNG = np.random.default_rng(4)
IMAGE = (np.arange(12.0) ** 1.5).reshape(1, 1, 3, 4)
GRID = np.array([[[[-1.2, 0.3], [0.1, -0.4], [0.9, 1.1], [2.6, -1.7]]]])
SAMPLED: dict[tuple[str, str], list[list[float]]] = {  # with align_corners, and without
    ("bilinear", "zeros"): [[8.6717575695736, 8.955068426921427, 32.178472452068, 0.0],
                            [1.45823376490863, 6.824722946769013, 8.938303810007795, 0.0]],
    ("bilinear", "border"): [[12.388225099390857, 8.955068426921427, 35.753858280075555, 5.196152422706632],
                             [14.582337649086288, 6.824722946769013, 36.4828726939094, 5.196152422706632]],
    ("bilinear", "reflection"): [[13.44962894594838, 8.955068426921427, 33.97314855900191, 7.115742752749557],
                                 [14.582337649086288, 6.824722946769013, 36.4828726939094, 5.059756081437325]],
    ("nearest", "zeros"): [[8.0, 14.696938456699069, 36.4828726939094, 0.0], [0.0, 2.8284271247461903, 0.0, 0.0]],
    ("nearest", "border"): [[8.0, 14.696938456699069, 36.4828726939094, 5.196152422706632],
                            [8.0, 2.8284271247461903, 36.4828726939094, 5.196152422706632]],
    ("nearest", "reflection"): [[8.0, 14.696938456699069, 36.4828726939094, 11.180339887498949],
                                [8.0, 2.8284271247461903, 36.4828726939094, 8.0]],
    ("bicubic", "zeros"): [[9.680626555986107, 7.278961030215635, 36.8775210425947, 0.0],
                           [1.3812846073496095, 5.539465798118936, 9.716281078452067, 0.0]],
    ("bicubic", "border"): [[12.549241602090744, 7.133751546490302, 37.01275751890749, 4.566588378544921],
                            [15.282039024730327, 5.3121793398920145, 38.098229234959156, 5.196152422706627]],
    ("bicubic", "reflection"): [[14.105074690894446, 6.321935109289003, 36.03226672023571, 4.732470578924039],
                                [15.04316568960083, 5.3121793398920145, 40.34107047782725, 3.4140872456851317]],
}  # fmt: skip


@pytest.mark.parametrize("mode, padding", SAMPLED)
def test_grid_sample(mode: str, padding: str) -> None:
    for align, wanted in zip((True, False), SAMPLED[mode, padding], strict=True):
        f = lambda x, g, align=align: F.grid_sample(x, g, mode, padding, align)  # noqa: E731
        got = f(kiln.from_numpy(IMAGE), kiln.from_numpy(GRID))
        np.testing.assert_allclose(got.numpy().ravel(), wanted, rtol=1e-12, atol=1e-12)
        compiles(f, IMAGE.astype(np.float32), GRID.astype(np.float32))
        x, g = RNG.normal(size=(2, 3, 4, 5)), RNG.uniform(-0.95, 0.95, (2, 3, 2, 2))
        if mode == "nearest":
            at = kiln.from_numpy(g)
            differentiates(lambda t, at=at, f=f: f(t, at), x)
        else:
            differentiates(f, x, g)


def test_grid_sample_inverts_affine_grid() -> None:
    x = kiln.from_numpy(RNG.normal(size=(2, 3, 4, 5, 6)))
    identity = kiln.eye(3, 4, dtype=kiln.float64).expand(2, 3, 4)
    for align in (True, False):
        grid = F.affine_grid(identity, x.shape, align)
        np.testing.assert_allclose(F.grid_sample(x, grid, align_corners=align).numpy(), x.numpy(), atol=1e-13)
        flipped = F.grid_sample(x, grid * kiln.tensor([-1.0, 1.0, 1.0], dtype=kiln.float64), "nearest", "border", align)
        np.testing.assert_array_equal(flipped.numpy(), x.flip(-1).numpy())


def test_affine_grid() -> None:
    theta = np.array([[[1.0, 0.5, -2.0], [0.0, 2.0, 0.25]]])
    got = F.affine_grid(kiln.from_numpy(theta), (1, 1, 2, 3), align_corners=True)
    base = np.array([[[x, y, 1.0] for x in (-1.0, 0.0, 1.0)] for y in (-1.0, 1.0)])
    np.testing.assert_allclose(got.numpy()[0], base @ theta[0].T, rtol=1e-15)
    differentiates(lambda t: F.affine_grid(t, (1, 2, 3, 1), False), theta)
    half = F.affine_grid(kiln.ones(1, 2, 3, dtype=kiln.float16), [1, 1, 2, 2])
    assert half.dtype is kiln.float16 and half.shape == (1, 2, 2, 2)


def test_half_precision_rounds_once() -> None:
    x, g = (kiln.from_numpy(v.astype(np.float16)) for v in (IMAGE, GRID))
    got = F.grid_sample(x, g, align_corners=False)
    assert got.tolist() == F.grid_sample(x.float(), g.float(), align_corners=False).half().tolist()


# fmt: off
BICUBIC = [[1.2100417122950857, 2.105731642757208, 3.722987617736381, 5.904237914283138, 7.745056592624068],
           [19.340761416136534, 22.11921316114952, 25.942896949845704, 29.99855110718384, 33.16573347531766]]
CORNERS = [[0.0, 5.196152422706632], [3.8562129261515334, 12.329787030611076],
           [13.493816462323743, 25.65561233130856], [22.627416997969522, 36.4828726939094]]
AREA = [[5.045084971874737, 7.426426367236052, 10.310444295401005],
        [17.20193922136712, 21.125013736470454, 25.3307117324361]]
# fmt: on


def test_interpolate() -> None:
    cases: list[tuple[dict[str, Any], list[list[float]]]] = [
        ({"size": (2, 5), "mode": "bicubic"}, BICUBIC),
        ({"size": (4, 2), "mode": "bicubic", "align_corners": True}, CORNERS),
        ({"size": (2, 3), "mode": "area"}, AREA),
    ]
    for kwargs, wanted in cases:
        f = lambda x, kwargs=kwargs: F.interpolate(x, **kwargs)  # noqa: E731
        np.testing.assert_allclose(f(kiln.from_numpy(IMAGE)).numpy()[0, 0], wanted, rtol=1e-13)
        compiles(f, IMAGE.astype(np.float32))
        differentiates(f, RNG.normal(size=(2, 2, 3, 4)))
    volume = kiln.arange(8.0).reshape(1, 1, 2, 2, 2)
    got = F.interpolate(volume, size=3, mode="trilinear", align_corners=True)
    assert got[0, 0].tolist() == (kiln.arange(3.0) * 0.5 + (kiln.arange(3.0) + kiln.arange(3.0)[:, None] * 2)[
        :, :, None
    ]).tolist()  # fmt: skip


def test_refusals() -> None:
    x, g = kiln.ones(1, 1, 2, 2), kiln.ones(1, 3, 3, 2)
    with pytest.raises(kiln.NotYetError, match="antialias"):
        F.interpolate(x, size=4, mode="bilinear", antialias=True)
    with pytest.raises(kiln.InvalidValueError, match="grid_sample"):
        F.grid_sample(x, g, "cubic")
    with pytest.raises(kiln.ShapeError, match="grid_sample"):
        F.grid_sample(x, kiln.ones(2, 3, 3, 2))
    with pytest.raises(kiln.DTypeError, match="grid_sample"):
        F.grid_sample(x, g.double())
    with pytest.raises(kiln.ShapeError, match="affine_grid"):
        F.affine_grid(kiln.ones(1, 2, 2), (1, 1, 2, 2))
