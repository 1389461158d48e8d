"""`ir/order.py`: the oracle of fused multiply-adds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from kiln.ir import order

EDGES = [0.0, -0.0, 1.0, -1.0, 1.5, 3.0, 1.0 / 3.0, 1e-3, -7e5, math.inf, -math.inf, math.nan]


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    bits = np.dtype(f"i{a.itemsize}")
    return a.dtype == b.dtype and bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


def plainly(a: Any, b: Any, c: Any) -> Any:
    x, y, z = float(a), float(b), float(c)
    if all(map(math.isfinite, (x, y, z))):
        return order.fma_by_fractions(x, y, z, a.dtype)
    return c if math.isfinite(x) and math.isfinite(y) else a.dtype.type(x * y + z)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fma_is_the_exact_number_rounded_once(dtype: str) -> None:
    """For any bits, for sums that cancel or end near the middle between two numbers, for all edges
    together, and where parts of the product leave the range."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    edges = np.array([*EDGES, info.tiny, info.smallest_subnormal, -info.max, 1 + info.eps], dtype)
    every = np.array(list(itertools.product(edges, repeat=3)), dtype).T
    bits = rng.integers(0, 2**info.bits, (3, 600), np.uint64).astype(f"u{info.bits // 8}").view(dtype)
    x, y = rng.standard_normal((2, 1200)).astype(dtype)
    scale = np.exp2(rng.integers(-3 * info.nmant, 3 * info.nmant, 1200)).astype(dtype)
    near = np.array([x, y, np.where(np.arange(1200) % 2, -x * y, scale * y)], dtype)
    halves = (rng.integers(1, 9, (3, 600)) / 2.0 ** rng.integers(0, 2, (3, 600))).astype(dtype)
    halves[:2] *= np.exp2([[info.nmant // 2], [info.nmant // 2 + 1]])
    low = np.array([x, y, x * y * info.eps])[:, :600] * np.exp2(rng.integers(0, 40, 600) + info.minexp / 2 - 10)
    with np.errstate(all="ignore"):
        small = np.array([*low[:2], low[2] * np.exp2(info.minexp / 2.0)], dtype)
        for a, b, c in (every, bits, near, halves, small):
            wanted = np.array([plainly(*terms) for terms in zip(a, b, c, strict=True)], dtype)
            assert same(order.fma(a, b, c), wanted)


def test_fma_broadcasts() -> None:
    a, b, c = np.arange(3.0), np.arange(2.0)[:, None], np.float64(0.5)
    assert (order.fma(a, b, c) == a * b + c).all()
    assert order.fma(np.float32(2), np.float32(3), np.float32(4)).shape == ()
