"""The CTC loss: against sums over all alignments, and PyTorch's handling of odd cases."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.checking import compiles, differentiates

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(2)
T, N, C, S = 5, 4, 4, 3
X = RNG.normal(size=(T, N, C))
X = X - np.log(np.exp(X).sum(-1, keepdims=True))
Y = np.array([[1, 1, 2], [3, 2, 1], [2, 2, 2], [1, 3, 1]])
ENDS, SIZES = [5, 4, 5, 2], [3, 2, 1, 0]


def collapsed(path: tuple[int, ...], blank: int) -> list[int]:
    return [k for k, _ in itertools.groupby(path) if k != blank]


def loss(x: Array, labels: list[int], blank: int) -> float:
    """Minus the log of the sum over all paths that collapse to the labels."""
    steps, count = x.shape
    total = sum(
        math.exp(sum(x[t, k] for t, k in enumerate(path)))
        for path in itertools.product(range(count), repeat=steps)
        if collapsed(path, blank) == labels
    )
    return -math.log(total) if total else math.inf


def losses(blank: int = 0, targets: Array = Y) -> list[float]:
    return [loss(X[: ENDS[n], n], targets[n, : SIZES[n]].tolist(), blank) for n in range(N)]


def ctc(**more: Any) -> Any:
    return lambda x, y: F.ctc_loss(x, y, ENDS, SIZES, reduction="none", **more)


def test_against_all_alignments() -> None:
    x, y = kiln.from_numpy(X), kiln.from_numpy(Y)
    wanted = losses()
    np.testing.assert_allclose(ctc()(x, y).numpy(), wanted, rtol=1e-13)
    whole = lambda r: F.ctc_loss(x, y, tuple(ENDS), kiln.tensor(SIZES), reduction=r).item()  # noqa: E731
    assert whole("sum") == pytest.approx(sum(wanted), rel=1e-13)
    assert whole("mean") == pytest.approx(np.mean(np.array(wanted) / np.maximum(SIZES, 1)), rel=1e-13)
    assert nn.CTCLoss()(x, y, ENDS, SIZES).item() == whole("mean")
    swapped = np.where(Y == 3, 0, Y)
    got = ctc(blank=3)(x, kiln.from_numpy(swapped)).numpy()
    np.testing.assert_allclose(got, losses(3, swapped), rtol=1e-13)


def test_forms_of_targets_and_lengths() -> None:
    x, wanted = kiln.from_numpy(X), ctc()(kiln.from_numpy(X), kiln.from_numpy(Y)).tolist()
    line = np.concatenate([Y[n, : SIZES[n]] for n in range(N)])
    ends, sizes = kiln.tensor(ENDS, dtype=kiln.int32), kiln.tensor(SIZES)
    for targets in (kiln.from_numpy(line), kiln.from_numpy(line.astype(np.int32)), kiln.from_numpy(np.where(Y, Y, -9))):
        assert F.ctc_loss(x, targets, ends, sizes, reduction="none").tolist() == wanted
    one = F.ctc_loss(x[:, 1], kiln.from_numpy(Y[1]), kiln.tensor(4), (2,), reduction="none")
    assert one.shape == () and one.item() == wanted[1]
    f = lambda x, y, a, b: F.ctc_loss(x, y, a, b, reduction="none")  # noqa: E731
    compiles(f, X, Y, np.array(ENDS), np.array(SIZES))
    compiles(f, X.astype(np.float32), line, np.array(ENDS), np.array(SIZES))


def test_no_alignment() -> None:
    """Three equal labels need five steps, and what is longer than its sequence has none."""
    x, y = kiln.from_numpy(X).requires_grad_(), kiln.tensor([[2, 2, 2], [1, 2, 3]])
    for ends, zero, wanted in (([4, 2], False, math.inf), ([4, 2], True, 0.0), ([0, 0], True, 0.0)):
        got = F.ctc_loss(x[:, :2], y, ends, [3, 3], reduction="none", zero_infinity=zero)
        assert got.tolist() == [wanted, wanted]
    (g,) = kiln.grad(F.ctc_loss(x[:, :2], y, [4, 5], [3, 3], reduction="sum", zero_infinity=True), x)
    assert (g[:, 0] == 0).all() and not (g[:, 1] == 0).all() and not g.isnan().any()
    assert F.ctc_loss(x[:, :1], y[:1], [0], [0], reduction="none").tolist() == [0.0]


def test_gradients() -> None:
    y = kiln.from_numpy(Y)
    differentiates(lambda x: F.ctc_loss(x, y, ENDS, SIZES), X)
    differentiates(lambda x: F.ctc_loss(F.log_softmax(x, -1), y, ENDS, SIZES, reduction="sum"), X, second=True)
    empty = kiln.zeros((N, 0), dtype=kiln.int64)
    differentiates(lambda x: F.ctc_loss(x, empty, ENDS, [0] * N), X)
    single = kiln.from_numpy(Y[:, :1].copy())
    differentiates(lambda x: F.ctc_loss(x, single, ENDS, [1] * N), X)


def test_half_precision() -> None:
    x, y = kiln.from_numpy(X.astype(np.float16)), kiln.from_numpy(Y)
    assert ctc()(x, y).tolist() == ctc()(x.float(), y).half().tolist()


@pytest.mark.parametrize(
    "call, kind, match",
    [
        (lambda x, y: F.ctc_loss(x, y, [6, 1, 1, 1], SIZES), kiln.InvalidValueError, "input_lengths: 6"),
        (lambda x, y: F.ctc_loss(x, y, ENDS, [4, 1, 1, 1]), kiln.InvalidValueError, "target_lengths: 4"),
        (lambda x, y: F.ctc_loss(x, y, ENDS[:2], SIZES), kiln.ShapeError, "input_lengths must be one"),
        (lambda x, y: F.ctc_loss(x, y[:2], ENDS, SIZES), kiln.ShapeError, "targets must be"),
        (lambda x, y: F.ctc_loss(x, y, ENDS, SIZES, blank=4), kiln.InvalidValueError, "blank is 4"),
        (lambda x, y: F.ctc_loss(x, y.double(), ENDS, SIZES), kiln.DTypeError, "integer targets"),
        (lambda x, y: F.ctc_loss(x, y, 3.0, SIZES), kiln.ArgumentError, "input_lengths must be ints"),
        (lambda x, y: F.ctc_loss(x, y, ENDS, SIZES, reduction="max"), kiln.InvalidValueError, "reduction"),
    ],
)
def test_refusals(call: Any, kind: Any, match: str) -> None:
    with pytest.raises(kind, match=match):
        call(kiln.from_numpy(X), kiln.from_numpy(Y))
