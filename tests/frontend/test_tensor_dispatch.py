"""Eager execution: which applications share a kernel, and how operands are folded into few dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import dispatch
from kiln.base import READONLY, Layout, layout_of
from kiln.generic import collapse
from kiln.ir import types as T


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3, 4), [(12, 4, 1), (12, 4, 1)], ((24,), [(1,), (1,)])),
        ((2, 3, 4), [(12, 4, 1), (0, 4, 1)], ((2, 12), [(12, 1), (0, 1)])),
        ((2, 3, 4), [(12, 4, 1), (0, 0, 0)], ((24,), [(1,), (0,)])),
        ((2, 3, 4), [(12, 4, 1), (0, 0, 1)], ((6, 4), [(4, 1), (0, 1)])),
        ((3, 2), [(1, 3), (2, 1)], ((3, 2), [(1, 3), (2, 1)])),
        ((1, 5, 1), [(99, 1, 7)], ((5,), [(1,)])),
        ((), [(), ()], ((1,), [(1,), (1,)])),
        ((1, 1), [(0, 0)], ((1,), [(1,)])),
        ((4, 6), [(12, 2)], ((24,), [(2,)])),
    ],
)
def test_collapse(shape: Any, strides: Any, expected: Any) -> None:
    assert collapse(shape, strides) == expected


def test_layouts_are_shared_and_know_themselves() -> None:
    a = layout_of(T.float32, (2, 3))
    assert a is layout_of(T.float32, (2, 3), (3, 1))
    assert kiln.zeros(2, 3)._layout is a
    assert a.contiguous and not a.expanded
    assert (a.numel, a.nbytes) == (6, 24)
    assert Layout(T.float32, (2, 3), (0, 1)).expanded
    assert Layout(T.float32, (1, 3), (0, 1)).contiguous
    assert not Layout(T.float32, (2, 3), (1, 2)).contiguous
    assert Layout(T.int64, (0, 3), (5, 7)).contiguous


def kernels_made(f: Any) -> int:
    before = len(dispatch._kernels)
    f()
    return len(dispatch._kernels) - before


def test_sizes_do_not_make_kernels() -> None:
    def use(n: int) -> None:
        a, b = kiln.rand(n, n + 1), kiln.rand(n, n + 1)
        (a * b + b[0] - 2.0).sum(1).exp()
        (a.t() @ b)[1:, ::2].add_(1.0)
        kiln.cat([a, b, a], 0)
        kiln.softmax(a, 1)

    use(3)  # an even number of columns: every second one folds into one run
    use(4)
    assert kernels_made(lambda: [use(n) for n in (5, 6, 17)]) == 0


def test_values_of_numbers_do_not_make_kernels() -> None:
    x = kiln.ones(3)
    x * 2.5
    assert kernels_made(lambda: [x * float(k) for k in range(10)]) == 0
    assert (x * 7.0).tolist() == [7.0] * 3


def test_number_constants_are_shared_and_read_only() -> None:
    a, b = (dispatch.constant((2, 2), T.float32, 3.0) for _ in range(2))
    assert a is b
    assert a._flags & READONLY
    assert a.stride() == (0, 0)
    signs = [np.signbit(dispatch.constant((), T.float64, v).numpy()) for v in (0.0, -0.0)]
    assert signs == [False, True]
    nan = dispatch.constant((), T.float64, float("nan"))
    assert nan is dispatch.constant((), T.float64, float("nan"))


def test_views_make_no_kernels_and_no_copies() -> None:
    t = kiln.arange(24).reshape(2, 3, 4)

    def views() -> None:
        for v in (t[1], t[:, ::2], t.permute(2, 0, 1), t.reshape(6, 4), t[:, :1].expand(2, 3, 4), t.detach()):
            assert v._buffer is t._buffer

    assert kernels_made(views) == 0


def test_operands_that_coincide() -> None:
    x = kiln.tensor([1.0, 2.0])
    assert (x * x).tolist() == [1, 4]
    a, b = kiln.tensor([1.0, 2.0]), kiln.tensor([3.0, 4.0])
    assert (a * b).tolist() == [3, 8]
    t = kiln.zeros(2)
    dispatch.write(t, dispatch.OPS["add"], (x, x), {})
    assert t.tolist() == [2, 4]
    dispatch.write(t, dispatch.OPS["add"], (a, b), {})
    assert t.tolist() == [4, 6]
    dispatch.write(t, dispatch.OPS["sub"], (a, t), {})
    assert t.tolist() == [-3, -4]


def test_large_sizes() -> None:
    x = kiln.arange(1_000_003).to(kiln.float64)
    assert x.sum().item() == 1_000_003 * 1_000_002 / 2
    assert (x * 2.0)[-1].item() == 2 * 1_000_002
