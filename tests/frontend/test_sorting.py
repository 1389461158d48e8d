"""Order: against NumPy (NaN last, stable), captured, derived, refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.autograd import gradcheck
from kiln.sorting import lower_median

RNG = np.random.default_rng(8)
NAN = float("nan")


def tied(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Few different numbers, some of them NaN and zeros of both signs."""
    x = RNG.integers(-3, 4, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[RNG.random(shape) < 0.1] = NAN
        x[RNG.random(shape) < 0.1] = -0.0
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sort_is_stable_and_nan_is_last(dtype: str, dim: int) -> None:
    x = tied((5, 33, 7), dtype)
    order = np.argsort(x, axis=dim, kind="stable")
    values, indices = kiln.from_numpy(x).sort(dim)
    assert (indices.numpy() == order).all() and indices.dtype is kiln.int64
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, dim))
    down = np.flip(x.shape[dim] - 1 - np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    assert (kiln.from_numpy(x).argsort(dim, descending=True).numpy() == down).all()


@pytest.mark.parametrize("dtype", [kiln.float16, kiln.bfloat16, kiln.uint8, kiln.int16])
def test_search_takes_narrow_numbers(dtype: Any) -> None:
    row, values = np.array([1, 2, 2, 7]), np.array([0, 2, 3, 7, 9])
    table, v = kiln.from_numpy(row).to(dtype), kiln.from_numpy(values).to(dtype)
    for right, side in ((False, "left"), (True, "right")):
        assert kiln.bucketize(v, table, right=right).tolist() == np.searchsorted(row, values, side).tolist()
        compiled = kiln.compile(lambda t, x, right=right: kiln.searchsorted(t, x, right=right))
        assert compiled(table, v).tolist() == np.searchsorted(row, values, side).tolist()


def test_strided_empty_and_0d() -> None:
    x = tied((8, 6))
    turned = kiln.from_numpy(x)[::2].T
    assert (turned.argsort().numpy() == np.argsort(x[::2].T, kind="stable")).all()
    assert kiln.zeros(0, 3).sort(0).values.shape == (0, 3) and kiln.zeros(3, 0).argsort().shape == (3, 0)
    number = kiln.tensor(2.0)
    assert number.sort().values.item() == 2 and number.argsort().item() == 0 and number.topk(1).indices.item() == 0
    assert number.kthvalue(1).values.item() == 2
    assert kiln.tensor([[3.0, 1.0], [2.0, 4.0]]).msort().tolist() == [[2, 1], [3, 4]]


def test_topk_and_kthvalue() -> None:
    x = kiln.tensor([[1.0, 5.0, 5.0, -2.0], [0.0, NAN, 3.0, 3.0]])
    values, indices = x.topk(2)
    assert indices.tolist() == [[1, 2], [1, 2]] and values[0].tolist() == [5, 5]
    assert x.topk(2, largest=False).indices.tolist() == [[3, 0], [0, 2]]
    assert x.topk(1, dim=0).indices.tolist() == [[0, 1, 0, 1]]
    assert x.topk(0).values.shape == (2, 0)
    assert x.kthvalue(3).indices.tolist() == [1, 3] and x.kthvalue(1, 0, keepdim=True).values.tolist()[0][3] == -2


def test_lower_median() -> None:
    x = kiln.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, NAN, 0.0, NAN]])
    values, indices = lower_median(x, 1)
    assert indices.tolist() == [3, 1] and values[0].item() == 2 and np.isnan(values[1].item())
    assert lower_median(kiln.tensor([[3, 1, 2]]), 1, keepdim=True).values.tolist() == [[2]]
    with pytest.raises(kiln.KilnIndexError, match=r"median: .*no elements"):
        lower_median(kiln.zeros(2, 0), 1)


def test_searchsorted_and_bucketize() -> None:
    row = np.sort(RNG.normal(size=50))
    values = np.concatenate([row[::5], RNG.normal(size=(20,))]).reshape(5, 6)
    for side in ("left", "right"):
        wanted = np.searchsorted(row, values, side)
        table, v = kiln.from_numpy(row), kiln.from_numpy(values)
        assert (kiln.searchsorted(table, v, side=side).numpy() == wanted).all()
        assert (kiln.bucketize(v, table, right=side == "right").numpy() == wanted).all()
    rows = kiln.tensor([[1, 3, 5], [2, 4, 6]])
    assert kiln.searchsorted(rows, kiln.tensor([[3, 9], [1, 4]])).tolist() == [[1, 3], [0, 1]]
    assert kiln.searchsorted(rows[0], 4).item() == 2 and kiln.searchsorted(rows[0], 3.5).item() == 2
    mixed = kiln.tensor([5, 1, 3])
    assert kiln.searchsorted(mixed, kiln.tensor([3]), sorter=mixed.argsort()).tolist() == [1]
    assert kiln.searchsorted(kiln.zeros(0), kiln.ones(2)).tolist() == [0, 0]


def test_compiled_is_eager() -> None:
    def every(x: kiln.Tensor, row: kiln.Tensor) -> list[kiln.Tensor]:
        found = [*(x * 2).sort(0), *x.topk(3, 1), *x.T.kthvalue(2), *lower_median(x, 1)]
        return [*found, kiln.searchsorted(row, x), x.argsort(descending=True) + 1]

    x, row = kiln.from_numpy(tied((9, 40))), kiln.linspace(-2, 2, 11)
    wanted, compiled = every(x, row), kiln.compile(every)
    for _ in range(2):
        for a, b in zip(compiled(x, row), wanted, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()


def test_gradients_go_to_the_elements() -> None:
    x = kiln.from_numpy(RNG.permutation(24).reshape(4, 6) / 7.0).requires_grad_()
    functions: list[Callable[[kiln.Tensor], Any]] = [
        lambda t: t.sort(0).values * 2,
        lambda t: t.topk(2).values,
        lambda t: t.kthvalue(3, 0).values,
        lambda t: lower_median(t, 1).values,
        lambda t: t.msort(),
    ]
    for function in functions:
        assert gradcheck(function, (x,))
    values, indices = x.sort()
    assert values.requires_grad and not indices.requires_grad


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: kiln.zeros(3).sort(1), kiln.KilnIndexError, "sort: dimension 1"),
    (lambda: kiln.zeros(3).topk(4), kiln.InvalidValueError, "topk: k is 4, there are 3"),
    (lambda: kiln.zeros(3).kthvalue(0), kiln.InvalidValueError, "kthvalue: k is 0"),
    (lambda: kiln.searchsorted(kiln.zeros(()), 1.0), kiln.ShapeError, "searchsorted: .*needs a dimension"),
    (lambda: kiln.searchsorted(kiln.zeros(2, 3), kiln.zeros(3, 3)), kiln.ShapeError, "searchsorted: all dimensions"),
    (lambda: kiln.searchsorted(kiln.zeros(2), kiln.tensor([1])), kiln.DTypeError, "searchsorted: both"),
    (lambda: kiln.searchsorted(kiln.zeros(2), 1.0, side="up"), kiln.InvalidValueError, "searchsorted: side"),
    (lambda: kiln.bucketize(1.0, kiln.zeros(2, 2)), kiln.ShapeError, "bucketize: boundaries"),
]


@pytest.mark.parametrize(("call", "kind", "match"), ERRORS)
def test_errors(call: Callable[[], Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


RESULTS: dict[str, Callable[[Any], Any]] = {
    "max": lambda x: x.max(1),
    "min": lambda x: kiln.min(x, 1),
    "sort": lambda x: x.sort(),
    "topk": lambda x: x.topk(2),
    "kthvalue": lambda x: x.kthvalue(1),
    "median": lambda x: x.median(1),
    "nanmedian": lambda x: x.nanmedian(1),
    "mode": lambda x: x.mode(),
    "cummax": lambda x: x.cummax(0),
    "cummin": lambda x: x.cummin(0),
}


@pytest.mark.parametrize("name", RESULTS)
def test_named_results(name: str) -> None:
    for x in (kiln.tensor([[3.0, 1.0, 2.0]]), kiln.tensor([[3.0, 1.0, 2.0]] * 2).T[:, :1].T):
        found = RESULTS[name](x)
        values, indices = found
        assert type(found) is getattr(kiln.return_types, name) and isinstance(found, tuple)
        assert found.values is values and found.indices is indices and found[1] is indices
        assert repr(found) == f"kiln.return_types.{name}(\nvalues={values!r},\nindices={indices!r})"
        assert type(pickle.loads(pickle.dumps(found))) is type(found)
        compiled = kiln.compile(RESULTS[name])
        for _ in range(2):
            again = compiled(x)
            assert type(again) is type(found) and again.indices.tolist() == indices.tolist()


def test_named_results_of_numbers() -> None:
    x = kiln.tensor(2.0)
    for name in ("max", "sort", "median", "nanmedian", "mode"):
        found = getattr(x, name)(0)
        assert type(found) is getattr(kiln.return_types, name) and found.indices.item() == 0
    assert repr(kiln.aminmax(x)) == "kiln.return_types.aminmax(\nmin=tensor(2.),\nmax=tensor(2.))"
