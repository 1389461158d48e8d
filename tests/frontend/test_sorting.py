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


DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
SIZES = (
    1,
    2,
    3,
    7,
    15,
    16,
    17,
    24,
    25,
    31,
    32,
    33,
    47,
    48,
    63,
    64,
    65,
    127,
    129,
    200,
    255,
    256,
    257,
    260,
    384,
    385,
    511,
    513,
    1000,
    2049,
    4113,
)


def hard_row(dtype: str, n: int, kind: str) -> Any:
    """n elements: few different ones, many, ascending, or descending; floats with NaN, infinities, and both zeros."""
    x = RNG.integers(-3, 4, n) if kind == "ties" else RNG.integers(-9999, 9999, n)
    if kind in ("up", "down"):
        x = np.sort(x) if kind == "up" else -np.sort(-x)
    t = kiln.from_numpy(x).to(getattr(kiln, dtype))
    if t.is_floating_point() and kind in ("ties", "many"):
        odd = kiln.from_numpy(RNG.choice([NAN, float("inf"), -float("inf"), -0.0, 0.0, 1e-42], n)).to(t.dtype)
        t = kiln.where(kiln.from_numpy(RNG.random(n) < 0.2), odd, t)
    return t


def stable(t: Any, descending: bool) -> Any:
    """The positions by NumPy's stable sort of exact keys: NaN largest, zeros equal."""
    x = t.numpy() if t.dtype in (kiln.int64, kiln.int32) else t.to(kiln.float64).numpy()
    if x.dtype.kind != "f":
        x = x.astype(np.int64)
        return np.argsort(-x if descending else x, -1, kind="stable")
    ranks = np.unique(np.where(np.isnan(x), np.inf, x), return_inverse=True)[1].reshape(x.shape)
    ranks = np.where(np.isnan(x), x.size, ranks)
    return np.argsort(-ranks if descending else ranks, -1, kind="stable")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_orders_of_many_sizes_are_the_stable_one(dtype: str, descending: bool) -> None:
    for n in SIZES:
        t = kiln.stack([hard_row(dtype, n, kind) for kind in ("ties", "many", "up", "down")])
        wanted = stable(t, descending)
        assert (t.argsort(descending=descending).numpy() == wanted).all(), n
        for k in (1, 5, 50, 128, 129):
            if k <= n:
                assert (t.topk(k, largest=descending).indices.numpy() == wanted[:, :k]).all(), (n, k)


@pytest.mark.parametrize("k", [2, 15, 16, 17, 64, 127])
def test_topk_of_all_elements_is_a_sort(k: int) -> None:
    for n in (k, k + 1):
        t = kiln.stack([hard_row("float32", n, kind) for kind in ("ties", "many", "up", "down")])
        assert (t.topk(k).indices.numpy() == stable(t, True)[:, :k]).all()


@pytest.mark.parametrize("dtype", ["int16", "bfloat16", "float64"])
def test_orders_of_strided_rows(dtype: str) -> None:
    """Rows and columns of views, whatever their steps, and the same for one thread and several."""
    base = hard_row(dtype, 12 * 300, "ties").reshape(12, 300)
    views = [base, base[::2], base[:, ::3], base[:, 5:281], base.T[::7].T, base.flip(1), base[:1].expand(4, 300)]
    before = kiln.get_num_threads()
    for view in views:
        wanted = stable(view.contiguous(), True)
        for threads in (1, 2):
            kiln.set_num_threads(threads)
            assert (view.argsort(descending=True).numpy() == wanted).all()
            assert (view.topk(6).indices.numpy() == wanted[:, :6]).all()
            assert (view.T.topk(6, 0).indices.numpy() == wanted[:, :6].T).all()
    kiln.set_num_threads(before)


def test_topk_has_gradients_and_compiles() -> None:
    x = kiln.from_numpy(RNG.permutation(600).astype("float64").reshape(2, 300))
    assert gradcheck(lambda t: t.topk(4).values, (x.detach().requires_grad_(),))

    def f(t: Any) -> Any:
        values, indices = t.topk(5)
        return values * 2, indices, t.topk(3, 0, largest=False).indices if t.shape[0] > 2 else t.kthvalue(7)[1]

    compiled = kiln.compile(f)
    for t in (x, x[:, ::2], x[:, :77].contiguous(), x[:1].expand(9, 300), x.reshape(30, 20).T):
        for got, wanted in zip(compiled(t), f(t), strict=True):
            assert got.numpy().tobytes() == wanted.numpy().tobytes()
    assert (kiln.func.vmap(lambda t: t.topk(2).indices)(x).numpy() == x.topk(2).indices.numpy()).all()
    assert (kiln.func.vmap(lambda t: t.topk(2).indices, 1)(x).numpy() == x.T.topk(2).indices.numpy()).all()


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
