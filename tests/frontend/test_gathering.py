"""Functions that read and write at indices: against NumPy, captured, derived, refused. Expected numbers of reductions
were computed by PyTorch where NumPy has no such function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.autograd import gradcheck
from kiln.nn import functional as NF
from kiln.runtime import threads

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(6)
X, S = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
ROWS = np.array([2, 0, 2, 3, 2])
I = RNG.integers(0, 4, (5, 3))  # noqa: E741
J = RNG.integers(0, 3, (2, 7))
MASK = RNG.random((4, 3)) < 0.5


def scattered(x: Array, index: Array, source: Array, fold: Callable[[Any, Any], Any]) -> Array:
    """Along dimension 0, one element after the other."""
    out = x.copy()
    for i, j in np.ndindex(*index.shape):
        out[index[i, j], j] = fold(out[index[i, j], j], source[i, j])
    return out


def added(x: Array, rows: Array, source: Array) -> Array:
    out = x.copy()
    for k, r in enumerate(rows):
        out[r] += source[k]
    return out


def replaced(x: Array, where: Any, value: Any) -> Array:
    out = x.copy()
    out[where] = value
    return out


FLAT = np.array([[5, -1], [0, 5]])
Case = tuple[Callable[..., Any], Callable[..., Any], Sequence[Array]]
CASES: dict[str, Case] = {
    "gather-0": (lambda x, i: x.gather(0, i), lambda x, i: np.take_along_axis(x, i, 0), [X, I]),
    "gather-1": (lambda x, i: x.gather(-1, i), lambda x, i: np.take_along_axis(x[:2], i, 1), [X, J]),
    "index_select": (lambda x, r: x.index_select(0, r), lambda x, r: x[r], [X, ROWS]),
    "index_select-1": (lambda x, r: x.index_select(1, r[:2]), lambda x, r: x[:, r[:2]], [X, ROWS]),
    "take": (lambda x, i: x.take(i), lambda x, i: x.take(i), [X, FLAT]),
    "take_along_dim": (
        lambda x, i: x.take_along_dim(i[:, :1], 0),
        lambda x, i: np.take_along_axis(x, np.broadcast_to(i[:, :1], (5, 3)), 0),
        [X, I],
    ),
    "take_along_dim-flat": (lambda x, r: x.take_along_dim(r), lambda x, r: x.ravel()[r], [X, ROWS]),
    "embedding": (lambda r, x: NF.embedding(r, x), lambda r, x: x[r], [I, X]),
    "masked_fill": (lambda x, m: x.masked_fill(m, 2), lambda x, m: np.where(m, 2.0, x), [X, MASK]),
    "masked_fill-row": (lambda x, m: x.masked_fill(m[0], 2), lambda x, m: np.where(m[0], 2.0, x), [X, MASK]),
    "scatter": (
        lambda x, i, s: x.scatter(0, i, s),
        lambda x, i, s: scattered(x, i, s, lambda old, v: v),
        [X, I, S],
    ),
    "scatter-value": (
        lambda x, i: x.scatter(0, i, 7.0),
        lambda x, i: scattered(x, i, x[i, 0], lambda old, v: 7.0),
        [X, I],
    ),
    "scatter-multiply": (
        lambda x, i, s: x.scatter(0, i, s, reduce="multiply"),
        lambda x, i, s: scattered(x, i, s, lambda old, v: old * v),
        [X, I, S],
    ),
    "scatter_add": (
        lambda x, i, s: x.scatter_add(0, i, s),
        lambda x, i, s: scattered(x, i, s, lambda old, v: old + v),
        [X, I, S],
    ),
    "scatter_add-part": (
        lambda x, i, s: x.scatter_add(0, i[:2, 1:], s),
        lambda x, i, s: scattered(x, i[:2, 1:], s, lambda old, v: old + v),
        [X, I, S],
    ),
    "index_add": (lambda x, r, s: x.index_add(0, r, s), added, [X, ROWS, S]),
    "index_add-alpha": (
        lambda x, r, s: x.index_add(0, r, s, alpha=-2),
        lambda x, r, s: added(x, r, -2 * s),
        [X, ROWS, S],
    ),
    "index_copy": (
        lambda x, r, s: x.index_copy(0, r, s),
        lambda x, r, s: replaced(x, r, s),
        [X, ROWS, S],
    ),
    "index_fill": (
        lambda x, r: x.index_fill(0, r - 4, -1),
        lambda x, r: replaced(x, r, -1),
        [X, ROWS],
    ),
    "index_put": (
        lambda x, r, s: x.index_put((r[1:3], r[:2]), s[:2, 0]),
        lambda x, r, s: replaced(x, (r[1:3], r[:2]), s[:2, 0]),
        [X, ROWS, S],
    ),
    "index_put-add": (
        lambda x, r, s: x.index_put((r,), s, accumulate=True),
        added,
        [X, ROWS, S],
    ),
    "put": (
        lambda x, i, s: x.put(i, s[:2, :2], accumulate=True),
        lambda x, i, s: added(x.ravel(), i.ravel(), s[:2, :2].ravel()).reshape(x.shape),
        [X, FLAT, S],
    ),
    "amax": (
        lambda x, i, s: x.scatter_reduce(0, i, s, "amax"),
        lambda x, i, s: scattered(x, i, s, max),
        [X, I, S],
    ),
    "prod": (
        lambda x, i, s: x.scatter_reduce(0, i, s, "prod"),
        lambda x, i, s: scattered(x, i, s, lambda old, v: old * v),
        [X, I, S],
    ),
}


def arguments(arrays: Sequence[Array]) -> list[kiln.Tensor]:
    return [kiln.from_numpy(np.array(a)) for a in arrays]


@pytest.mark.parametrize("name", CASES)
def test_numpy_says_so(name: str) -> None:
    function, reference, arrays = CASES[name]
    got, wanted = function(*arguments(arrays)), reference(*arrays)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-14)


def test_compiled_is_eager() -> None:
    functions = {name: function for name, (function, _, _) in CASES.items()}

    def every(groups: dict[str, list[kiln.Tensor]]) -> dict[str, kiln.Tensor]:
        return {name: functions[name](*xs) for name, xs in groups.items()}

    groups = {name: arguments(arrays) for name, (_, _, arrays) in CASES.items()}
    wanted, compiled = every(groups), kiln.compile(every)
    for _ in range(2):
        for name, got in compiled(groups).items():
            assert got.numpy().tobytes() == wanted[name].numpy().tobytes(), name


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, _, arrays = CASES[name]
    operands = arguments(arrays)
    assert gradcheck(function, [x.requires_grad_() if x.dtype is kiln.float64 else x for x in operands])


def test_reductions_without_the_old_values() -> None:
    x, i = kiln.tensor([10.0, 20.0, 30.0]), kiln.tensor([0, 0, 2, 0])
    v = kiln.tensor([1.0, 2.0, 5.0, 6.0])
    wanted = {"sum": [9, 20, 5], "prod": [12, 20, 5], "mean": [3, 20, 5], "amax": [6, 20, 5], "amin": [1, 20, 5]}
    for reduce, numbers in wanted.items():
        assert x.scatter_reduce(0, i, v, reduce, include_self=False).tolist() == numbers
    assert x.scatter_reduce(0, i, v, "mean").tolist() == [19 / 4, 20, 17.5]
    assert x.index_reduce(0, i, v, "amin").tolist() == [1, 20, 5]
    whole = kiln.tensor([-5, 2]).scatter_reduce(0, kiln.tensor([0]), kiln.tensor([-9]), "amax", include_self=False)
    assert whole.tolist() == [-9, 2]


def test_methods_with_an_underscore_write_in_place() -> None:
    x, i, v = kiln.zeros(4), kiln.tensor([1, 1, 3]), kiln.ones(3)
    assert x.scatter_add_(0, i, v) is x and x.tolist() == [0, 2, 0, 1]
    x.index_add_(0, i, v).index_fill_(0, kiln.tensor([0]), 9).masked_fill_(x > 3, 5.0)
    assert x.tolist() == [5, 5, 0, 2]
    x.put_(kiln.tensor([2]), kiln.tensor([8.0])).index_copy_(0, kiln.tensor([3]), kiln.tensor([7.0]))
    x.index_put_((kiln.tensor([0, 1]),), kiln.tensor(1.0)).scatter_(0, kiln.tensor([1]), 2.0)
    assert x.tolist() == [1, 2, 8, 7]
    x.masked_scatter_(x > 5, kiln.tensor([-1.0, -2.0, -3.0])).scatter_reduce_(0, kiln.tensor([0]), v, "amax")
    assert x.tolist() == [1, 2, -1, -2]


def test_masks_and_counts_found_on_the_host() -> None:
    x, m = kiln.from_numpy(X.copy()), kiln.from_numpy(MASK)
    assert (x.masked_select(m).numpy() == X[MASK]).all()
    source = kiln.arange(12.0, dtype=kiln.float64)
    wanted = X.copy()
    wanted[MASK] = np.arange(MASK.sum())
    assert (x.masked_scatter(m, source).numpy() == wanted).all()
    assert (m.nonzero().numpy() == np.argwhere(MASK)).all() and (kiln.argwhere(m).numpy() == np.argwhere(MASK)).all()
    assert all((a.numpy() == b).all() for a, b in zip(m.nonzero(as_tuple=True), np.nonzero(MASK), strict=True))
    assert kiln.tensor(3.0).nonzero().shape == (1, 0) and kiln.zeros(0, 2).nonzero().shape == (0, 2)
    assert gradcheck(lambda t: t.masked_select(m) * 3, [x.requires_grad_()])


def test_unique() -> None:
    x = kiln.tensor([[3, 1, 3], [1, 1, 2]])
    values, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    assert values.tolist() == [1, 2, 3] and counts.tolist() == [3, 1, 2]
    assert inverse.tolist() == [[2, 0, 2], [0, 0, 1]]
    rows, counts = kiln.tensor([[1, 2], [0, 1], [1, 2]]).unique(dim=0, return_counts=True)
    assert rows.tolist() == [[0, 1], [1, 2]] and counts.tolist() == [1, 2]
    runs, inverse, counts = x.unique_consecutive(return_inverse=True, return_counts=True)
    assert runs.tolist() == [3, 1, 3, 1, 2] and counts.tolist() == [1, 1, 1, 2, 1]
    assert inverse.tolist() == [[0, 1, 2], [3, 3, 4]]
    assert kiln.zeros(0).unique().shape == (0,) and kiln.zeros(0).unique_consecutive().shape == (0,)
    assert kiln.tensor([1.0, 1.0, float("nan"), float("nan")]).unique().shape == (3,)


def test_histograms() -> None:
    x = kiln.tensor([0, 3, 3, 1])
    assert x.bincount().tolist() == [1, 1, 0, 2] and x.bincount(minlength=6).tolist() == [1, 1, 0, 2, 0, 0]
    assert kiln.bincount(x, kiln.tensor([0.5, 1, 2, 4])).tolist() == [0.5, 4, 0, 3]
    assert kiln.bincount(kiln.tensor([], dtype=kiln.int64), minlength=2).tolist() == [0, 0]
    values = kiln.from_numpy(RNG.normal(size=500))
    for low, high in ((0.0, 0.0), (-1.0, 1.5)):
        got = kiln.histc(values, 13, low, high).numpy()
        wanted = np.histogram(values.numpy(), 13, None if low == high else (low, high))[0]
        assert np.abs(got - wanted).max() <= 1 and got.sum() == wanted.sum()
    assert kiln.histc(kiln.tensor([1.0, 2.0, 1.0]), 4, 0, 3).tolist() == [0, 2, 1, 0]
    fixed = kiln.compile(lambda v: kiln.histc(v, 13, -1, 1.5))
    for _ in range(2):
        assert (fixed(values).numpy() == kiln.histc(values, 13, -1, 1.5).numpy()).all()


def test_one_hot_and_embedding() -> None:
    classes = kiln.tensor([[0, 2], [1, 1]])
    assert NF.one_hot(classes).tolist() == np.eye(3, dtype=int)[classes.numpy()].tolist()
    assert NF.one_hot(classes, 4).shape == (2, 2, 4)
    with pytest.raises(kiln.KilnIndexError, match="index 2 is out of bounds for dimension 2 with size 2"):
        NF.one_hot(classes, 2)
    table = kiln.ones(3, 2, requires_grad=True)
    NF.embedding(classes, table, padding_idx=-2).sum().backward()
    assert table.grad is not None and table.grad.tolist() == [[1, 1], [0, 0], [1, 1]]
    with pytest.raises(kiln.KilnIndexError, match="index -1 is out of bounds for dimension 0 with size 3"):
        NF.embedding(kiln.tensor([-1]), table)


def test_sums_do_not_depend_on_threads() -> None:
    """Large enough to be shared out: rows of a table, and along each dimension."""
    x = kiln.from_numpy(RNG.normal(size=(300, 700)).astype(np.float32))
    v = kiln.from_numpy(RNG.normal(size=(2000, 700)).astype(np.float32))
    rows = kiln.from_numpy(RNG.integers(0, 300, 2000))
    wide = kiln.from_numpy(RNG.integers(0, 300, (2000, 700)))

    def work() -> list[bytes]:
        turned = kiln.scatter_add(x.T.contiguous(), 1, wide.T.contiguous(), v.T.contiguous()).T.contiguous()
        return [t.numpy().tobytes() for t in (x.index_add(0, rows, v), x.scatter_add(0, wide, v), turned)]

    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        wanted = work()
        assert wanted[1] == wanted[2]
        for n in (2, 3, 7):
            threads.set_num_threads(n)
            assert work() == wanted
    finally:
        threads.set_num_threads(before)


LONG = kiln.tensor([0, 1])
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: kiln.zeros(3).gather(0, kiln.zeros(2)), kiln.DTypeError, "gather: the index must be int64"),
    (lambda: kiln.zeros(3, 3).gather(0, LONG), kiln.ShapeError, "gather: .*as many dimensions"),
    (lambda: kiln.zeros(3).gather(0, kiln.tensor([-1])), kiln.KilnIndexError, "index -1 is out of bounds"),
    (lambda: kiln.zeros(1, 3).gather(1, kiln.zeros(2, 1).long()), kiln.ShapeError, "longer than"),
    (lambda: kiln.zeros(3).index_select(0, kiln.tensor([[0]])), kiln.ShapeError, "index_select: .*vector"),
    (lambda: kiln.zeros(3).take(kiln.tensor([3])), kiln.KilnIndexError, "index 3 is out of bounds"),
    (lambda: kiln.zeros(3).scatter(0, LONG, kiln.ones(1)), kiln.ShapeError, "scatter: src must be"),
    (lambda: kiln.zeros(3).scatter(0, LONG), kiln.ArgumentError, "scatter: takes either"),
    (lambda: kiln.zeros(3).scatter(0, LONG, 1.0, reduce="max"), kiln.InvalidValueError, "scatter: reduce"),
    (lambda: kiln.zeros(3).scatter_add(0, LONG, LONG), kiln.DTypeError, "scatter_add: both must have one dtype"),
    (lambda: kiln.zeros(3).scatter_reduce(0, LONG, kiln.ones(2), "x"), kiln.InvalidValueError, "scatter_reduce"),
    (lambda: kiln.zeros(3).index_add(0, LONG, kiln.ones(3)), kiln.ShapeError, r"index_add: .*shape \[2\]"),
    (lambda: LONG.index_fill(0, LONG, 1.5), kiln.DTypeError, "index_fill: a value of float32"),
    (lambda: kiln.zeros(3).masked_fill(LONG, 1), kiln.DTypeError, "masked_fill: the mask must be bool"),
    (lambda: kiln.zeros(3).masked_fill_(kiln.ones(2, 3) > 0, 1), kiln.ShapeError, "masked_fill_: .*shape"),
    (lambda: kiln.zeros(2).masked_scatter(kiln.ones(2) > 0, kiln.ones(1)), kiln.ShapeError, "masked_scatter: .*2 ones"),
    (lambda: kiln.bincount(kiln.tensor([-1])), kiln.InvalidValueError, "bincount: .*negative"),
    (lambda: kiln.histc(LONG), kiln.DTypeError, "histc"),
    (lambda: NF.embedding(LONG, kiln.zeros(3)), kiln.ShapeError, "embedding: the table"),
    (lambda: NF.embedding(LONG, kiln.zeros(3, 2), 3), kiln.KilnIndexError, "embedding: padding_idx 3"),
    (lambda: kiln.jit.trace(lambda x: x.nonzero(), LONG), kiln.CaptureError, "nonzero"),
    (lambda: kiln.jit.trace(lambda x: x.unique(), LONG), kiln.CaptureError, "unique"),
    (lambda: kiln.jit.trace(lambda x: x.bincount(), LONG), kiln.CaptureError, "bincount"),
    (lambda: kiln.jit.trace(lambda x: NF.one_hot(x), LONG), kiln.CaptureError, "one_hot"),
]


@pytest.mark.parametrize(("call", "kind", "match"), ERRORS)
def test_errors(call: Callable[[], Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_gradient_of_a_reduction_written_in_place(reduce: str) -> None:
    """The derivative reads what the tensor was before."""

    def through(x: Any, s: Any, by_index: bool) -> Any:
        base = x.clone()
        if by_index:
            base[1:].index_reduce_(0, kiln.tensor([0, 1, 1]), s, reduce)
        else:
            base[1:].scatter_reduce_(0, kiln.tensor([0, 1, 1]), s, reduce)
        return base * 2

    for by_index in (False, True):
        x, s = kiln.tensor([9.0, 2, 3], requires_grad=True), kiln.tensor([5.0, 1, 4], requires_grad=True)
        part = (kiln.index_reduce if by_index else kiln.scatter_reduce)(x[1:], 0, kiln.tensor([0, 1, 1]), s, reduce)
        wanted = kiln.autograd.grad((2 * part).sum() + 2 * x[0], (x, s))
        for f in (through, kiln.compile(through)):
            found = kiln.autograd.grad(f(x, s, by_index).sum(), (x, s))
            assert [g.tolist() for g in found] == [g.tolist() for g in wanted]
