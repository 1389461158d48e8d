"""Data sets, samplers and collation."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

import kiln
import kiln.utils.data
from kiln import data as D


class Squares(D.Dataset[int]):
    def __init__(self, n: int, start: int = 0) -> None:
        self.n, self.start = n, start

    def __getitem__(self, i: int) -> int:
        return self.start + i * i

    def __len__(self) -> int:
        return self.n


class Count(D.IterableDataset[int]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n))

    def __len__(self) -> int:
        return self.n


def test_both_names_are_one() -> None:
    names = [name for name, value in vars(D).items() if callable(value)]
    assert len(names) == 19
    for name in names:
        assert getattr(kiln.utils.data, name) is getattr(D, name), name


def test_tensor_dataset() -> None:
    x, y = kiln.arange(6).reshape(3, 2), kiln.tensor([1.0, 2.0, 3.0])
    data = D.TensorDataset(x, y)
    assert len(data) == 3 and [t.tolist() for t in data[1]] == [[2, 3], 2.0]
    for bad in ([], [x, kiln.ones(2)]):
        with pytest.raises(kiln.InvalidValueError):
            D.TensorDataset(*bad)


def test_stack_dataset() -> None:
    assert D.StackDataset(Squares(3), Squares(3, 5))[2] == (4, 9)
    named = D.StackDataset(a=Squares(3), b=Squares(3, 5))
    assert named[1] == {"a": 1, "b": 6} and len(named) == 3
    for make in (
        lambda: D.StackDataset(),
        lambda: D.StackDataset(Squares(2), Squares(3)),
        lambda: D.StackDataset(Squares(2), a=Squares(2)),
    ):
        with pytest.raises(kiln.InvalidValueError):
            make()


def test_concat_and_chain() -> None:
    both = Squares(2) + Squares(0) + Squares(3, 10)
    assert isinstance(both, D.ConcatDataset)
    assert len(both) == 5 and [both[i] for i in range(5)] == [0, 1, 10, 11, 14]
    assert both[-1] == 14 and both[-5] == 0
    for i in (5, -6):
        with pytest.raises(IndexError):
            both[i]
    for wrong in ([], [Count(2)]):
        with pytest.raises(kiln.InvalidValueError):
            D.ConcatDataset(wrong)
    chain = Count(2) + Count(3)
    assert list(chain) == [0, 1, 0, 1, 2] and len(chain) == 5
    with pytest.raises(kiln.ArgumentError):
        list(D.ChainDataset([Squares(2)]))


def test_subset_uses_getitems() -> None:
    class Many(Squares):
        asked: ClassVar[list[list[int]]] = []

        def __getitems__(self, indices: list[int]) -> list[int]:
            self.asked.append(indices)
            return [self[i] for i in indices]

    for data in (Squares(9), Many(9)):
        part = D.Subset(data, [7, 3, 5])
        assert part[0] == 49 and len(part) == 3 and part.__getitems__([2, 0]) == [25, 49] == part[[2, 0]]
        assert [b.tolist() for b in D.DataLoader(part, 2)] == [[49, 9], [25]]
    assert Many.asked == [[5, 7], [5, 7], [7, 3], [5]]


def test_random_split() -> None:
    kiln.manual_seed(0)
    parts = D.random_split(Squares(10), [3, 7])
    assert [len(p) for p in parts] == [3, 7]
    assert sorted([*parts[0].indices, *parts[1].indices]) == list(range(10))
    assert [len(p) for p in D.random_split(Squares(10), [0.34, 0.33, 0.33])] == [4, 3, 3]
    assert [len(p) for p in D.random_split(Squares(11), [0.25, 0.5, 0.25])] == [3, 6, 2]
    a, b = ([p.indices for p in D.random_split(Squares(9), [4, 5], kiln.Generator(k))] for k in (3, 3))
    c = [p.indices for p in D.random_split(Squares(9), [4, 5], kiln.Generator(4))]
    assert a == b != c
    for wrong in ([3, 6], [0.5, 0.2], [1.5, -0.5]):
        with pytest.raises(kiln.InvalidValueError):
            D.random_split(Squares(10), wrong)


def test_abstract_ones_say_what_is_missing() -> None:
    class Nothing(D.Dataset[int]):
        pass

    with pytest.raises(NotImplementedError, match="Nothing"):
        Nothing()[0]
    with pytest.raises(NotImplementedError):
        iter(D.IterableDataset())
    with pytest.raises(NotImplementedError):
        iter(D.Sampler())


# --------------------------------------------------------------------------------------------- samplers


def test_sequential_and_subset() -> None:
    assert list(D.SequentialSampler(Squares(4))) == [0, 1, 2, 3] and len(D.SequentialSampler(Squares(4))) == 4
    kiln.manual_seed(1)
    sampler = D.SubsetRandomSampler([5, 7, 9, 11])
    orders = [list(sampler) for _ in range(20)]
    assert all(sorted(order) == [5, 7, 9, 11] for order in orders) and len(sampler) == 4
    assert len({tuple(order) for order in orders}) > 5


def test_random_sampler() -> None:
    data = Squares(5)
    sampler = D.RandomSampler(data, generator=kiln.Generator(2))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4] and first != second
    assert list(D.RandomSampler(data, generator=kiln.Generator(2))) == first
    more = D.RandomSampler(data, num_samples=12)
    drawn = list(more)
    assert len(drawn) == len(more) == 12
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == [0, 1, 2, 3, 4] and len(set(drawn[10:])) == 2
    again = list(D.RandomSampler(data, replacement=True, num_samples=2000, generator=kiln.Generator(0)))
    counts = np.bincount(again, minlength=5)
    assert counts.sum() == 2000 and (abs(counts - 400) < 5 * 20).all()
    assert list(D.RandomSampler(Squares(0))) == []
    with pytest.raises(kiln.InvalidValueError):
        D.RandomSampler(data, num_samples=0)
    with pytest.raises(kiln.ArgumentError):
        D.RandomSampler(data, replacement=1)  # type: ignore[arg-type]


def test_every_order_is_equally_likely() -> None:
    generator = kiln.Generator(7)
    counts = collections.Counter(tuple(D.RandomSampler(Squares(3), generator=generator)) for _ in range(1200))
    assert len(counts) == 6 and all(abs(n - 200) < 5 * 13 for n in counts.values())


def test_weighted_sampler() -> None:
    weights = [0.0, 1.0, 3.0, 0.0, 4.0]
    drawn = list(D.WeightedRandomSampler(weights, 4000, generator=kiln.Generator(0)))
    counts = np.bincount(drawn, minlength=5)
    assert counts[0] == counts[3] == 0
    assert np.abs(counts - np.array([0, 500, 1500, 0, 2000])).max() < 5 * 32
    firsts = collections.Counter()  # type: ignore[var-annotated]
    generator = kiln.Generator(1)
    for _ in range(800):
        one = list(D.WeightedRandomSampler(kiln.tensor(weights), 3, replacement=False, generator=generator))
        assert sorted(one) == [1, 2, 4]
        firsts[one[0]] += 1
    assert abs(firsts[1] - 100) < 50 and abs(firsts[2] - 300) < 70 and abs(firsts[4] - 400) < 70
    for make in (
        lambda: D.WeightedRandomSampler(weights, 0),
        lambda: D.WeightedRandomSampler([[1.0]], 1),
        lambda: D.WeightedRandomSampler([-1.0, 2.0], 1),
        lambda: D.WeightedRandomSampler([0.0, 0.0], 1),
        lambda: D.WeightedRandomSampler(weights, 4, replacement=False),
    ):
        with pytest.raises(kiln.InvalidValueError):
            make()


def test_batch_sampler() -> None:
    for drop, wanted in ((False, [[0, 1], [2, 3], [4]]), (True, [[0, 1], [2, 3]])):
        sampler = D.BatchSampler(D.SequentialSampler(Squares(5)), 2, drop)
        assert list(sampler) == wanted and len(sampler) == len(wanted)
    for size in (0, -1, True, 1.5):
        with pytest.raises(kiln.InvalidValueError):
            D.BatchSampler([], size, False)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- collation


class Pair(collections.namedtuple("Pair", "x y")):
    pass


def as_lists(x: Any) -> Any:
    """Tensors as (dtype, list)."""
    if isinstance(x, kiln.Tensor):
        return str(x.dtype), x.tolist()
    if isinstance(x, dict):
        return type(x)((k, as_lists(v)) for k, v in x.items())
    if isinstance(x, tuple):
        return type(x)(*map(as_lists, x)) if hasattr(x, "_fields") else tuple(map(as_lists, x))
    return [as_lists(v) for v in x] if isinstance(x, list) else x


@pytest.mark.parametrize(
    ("batch", "wanted"),
    [
        ([kiln.ones(2), kiln.zeros(2)], ("float32", [[1, 1], [0, 0]])),
        ([np.ones(1), np.zeros(1)], ("float64", [[1], [0]])),
        ([np.float32(1), np.float32(2)], ("float32", [1, 2])),
        ([1.5, 2], ("float64", [1.5, 2])),
        ([1, 2], ("int64", [1, 2])),
        ([True, False], ("bool", [True, False])),
        (["a", "b"], ["a", "b"]),
        ([(1, 2.0), (3, 4.0)], [("int64", [1, 3]), ("float64", [2, 4])]),
        ([[1, "a"], [3, "b"]], [("int64", [1, 3]), ["a", "b"]]),
        ([{"a": 1, "b": [2]}, {"a": 3, "b": [4]}], {"a": ("int64", [1, 3]), "b": [("int64", [2, 4])]}),
        ([Pair(1, 2), Pair(3, 4)], Pair(("int64", [1, 3]), ("int64", [2, 4]))),
        ([collections.OrderedDict(a=1)] * 2, collections.OrderedDict(a=("int64", [1, 1]))),
        ([range(2), range(2)], [("int64", [0, 0]), ("int64", [1, 1])]),
    ],
)
def test_default_collate(batch: Any, wanted: Any) -> None:
    got = as_lists(D.default_collate(batch))
    assert got == wanted and type(got) is type(wanted)


def test_default_convert() -> None:
    array = np.ones(2)
    got = D.default_convert({"a": array, "b": (1, np.int64(2)), "c": ["x", 1.5], "d": Pair(np.ones(1), None)})
    assert as_lists(got) == {
        "a": ("float64", [1, 1]),
        "b": [1, ("int64", 2)],
        "c": ["x", 1.5],
        "d": Pair(("float64", [1]), None),
    }
    array[0] = 5  # arrays are not copied
    assert got["a"].tolist() == [5, 1]


def test_what_can_t_be_collated() -> None:
    for bad in (None, object(), np.array(["a"])):
        with pytest.raises(kiln.ArgumentError, match="collate_fn"):
            D.default_collate([bad])
    with pytest.raises(kiln.ShapeError, match="different lengths"):
        D.default_collate([[1], [1, 2]])
    with pytest.raises(kiln.ShapeError):
        D.default_collate([kiln.ones(1), kiln.ones(2)])
