"""`DataLoader`, in this process and with workers."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import data as D
from kiln import nn


class Numbers(D.Dataset[Any]):
    """Sample i is (i, i / 2)."""

    def __init__(self, n: int = 23) -> None:
        self.n = n

    def __getitem__(self, i: int) -> Any:
        return i, kiln.full((2,), i / 2)

    def __len__(self) -> int:
        return self.n


class Stream(D.IterableDataset[int]):
    """0 to n - 1, shared among the workers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        info = D.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


class Faulty(Numbers):
    """Does what a name says when asked for sample 5."""

    def __init__(self, how: str) -> None:
        super().__init__(12)
        self.how = how

    def __getitem__(self, i: int) -> Any:
        if i == 5:
            if self.how == "ends":
                os._exit(3)
            elif self.how == "sleeps":
                time.sleep(60)
            elif self.how == "odd error":
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "odd")
            elif self.how == "local error":

                class Local(Exception):
                    pass

                raise Local("here")
            elif self.how == "not for travel":
                return lambda: i
            raise {"error": ValueError, "key": KeyError, "stop": StopIteration}[self.how](f"sample {i}")
        return i


def values(loader: Any) -> list[Any]:
    return [[x.tolist() for x in batch] if isinstance(batch, list) else batch.tolist() for batch in loader]


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"batch_size": 7}, {"batch_size": None}], ids=str)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_batches(workers: int, options: dict[str, Any]) -> None:
    options = {"batch_size": 4, **options}
    loader = D.DataLoader(Numbers(), num_workers=workers, **options)
    size = options["batch_size"]
    if size is None:
        wanted: Any = [[i, [i / 2] * 2] for i in range(23)]
        got = [[i, t.tolist()] for i, t in loader]
    else:
        starts = range(0, 23 // size * size if options.get("drop_last") else 23, size)
        parts = [range(a, min(a + size, 23)) for a in starts]
        wanted, got = [[[*p], [[i / 2] * 2 for i in p]] for p in parts], values(loader)
    assert got == wanted and len(loader) == len(wanted)
    assert sum(1 for _ in loader) == len(wanted)  # once more


def test_shuffling_is_seeded_and_the_same_with_workers() -> None:
    def orders(workers: int, seed: int) -> list[list[int]]:
        loader = D.DataLoader(
            Numbers(), 5, shuffle=True, num_workers=workers, generator=kiln.Generator(seed), collate_fn=first
        )
        return [joined(loader) for _ in range(2)]

    a = orders(0, 1)
    assert a == orders(2, 1) != orders(0, 2)
    assert sorted(a[0]) == list(range(23)) and a[0] != a[1]
    kiln.manual_seed(5)
    b = joined(D.DataLoader(Numbers(), 5, shuffle=True, collate_fn=first))
    kiln.manual_seed(5)
    assert b == joined(D.DataLoader(Numbers(), 5, shuffle=True, collate_fn=first, num_workers=1))


def joined(loader: Any) -> list[int]:
    return [i for batch in loader for i in batch]


def first(samples: list[Any]) -> list[Any]:
    return [i for i, _ in samples]


def test_a_tensor_dataset_is_gathered_at_once() -> None:
    x = kiln.rand(3, 9).t()
    data = D.TensorDataset(x, kiln.arange(9), kiln.ones(9).bool())
    sampler = [[3, 1, 1], [-1], [8, 0]]
    quick = list(D.DataLoader(data, batch_sampler=sampler))
    slow = list(D.DataLoader(data, batch_sampler=sampler, collate_fn=lambda samples: D.default_collate(samples)))
    for batch, wanted in zip(quick, slow, strict=True):
        assert type(batch) is type(wanted) is list
        assert [(t.ttype, t.tolist()) for t in batch] == [(t.ttype, t.tolist()) for t in wanted]
    quick[0][0].zero_()
    assert x.numpy().any() and data[3][0].numpy().all()  # a copy
    with pytest.raises(kiln.KilnIndexError):
        list(D.DataLoader(data, batch_sampler=[[9]]))
    x.requires_grad_()
    (batch,) = D.DataLoader(data, batch_sampler=[[2, 2]])
    batch[0].sum().backward()
    assert x.grad is not None and x.grad[2].tolist() == [2.0] * 3
    asked: list[int] = []

    class Own(D.TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    list(D.DataLoader(Own(kiln.ones(4)), batch_size=2))
    assert asked == [0, 1, 2, 3]


def test_samplers_are_used() -> None:
    loader = D.DataLoader(Numbers(), 2, sampler=[3, 1, 2], collate_fn=first)
    assert list(loader) == [[3, 1], [2]] and len(loader) == 2
    loader = D.DataLoader(Numbers(), batch_sampler=[[3], [1, 2]], collate_fn=first, num_workers=2)
    assert list(loader) == [[3], [1, 2]] and len(loader) == 2


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_streams(workers: int) -> None:
    got = values(D.DataLoader(Stream(10), batch_size=2, num_workers=workers))
    assert (
        got
        == {
            0: [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]],
            1: [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]],
            2: [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]],
            3: [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]],
        }[workers]
    )
    dropped = values(D.DataLoader(Stream(10), batch_size=4, drop_last=True, num_workers=workers))
    assert (
        dropped
        == {
            0: [[0, 1, 2, 3], [4, 5, 6, 7]],
            1: [[0, 1, 2, 3], [4, 5, 6, 7]],
            2: [[0, 2, 4, 6], [1, 3, 5, 7]],
            3: [[0, 3, 6, 9]],
        }[workers]
    )
    assert sorted(D.DataLoader(Stream(5), batch_size=None, num_workers=workers)) == [0, 1, 2, 3, 4]


def test_a_stream_that_not_every_worker_shares() -> None:
    """Batches go round among the workers that still have some."""

    class Uneven(D.IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            info = D.get_worker_info()
            assert info is not None
            return iter([info.id * 10 + k for k in range(1 + 2 * info.id)])

    assert values(D.DataLoader(Uneven(), num_workers=3, prefetch_factor=4)) == [
        [n] for n in (0, 10, 20, 11, 21, 12, 22, 23, 24)
    ]


def info(_: list[Any]) -> Any:
    known = D.get_worker_info()
    assert known is not None
    return known.id, known.num_workers, known.seed, known.dataset.n, os.getpid()


def test_worker_info_and_seeds() -> None:
    assert D.get_worker_info() is None
    loader = D.DataLoader(Numbers(), 2, num_workers=2, collate_fn=info, generator=kiln.Generator(4))
    seen = set(loader)
    assert {(i, n, size) for i, n, _, size, _ in seen} == {(0, 2, 23), (1, 2, 23)}
    assert len({pid for *_, pid in seen} | {os.getpid()}) == 3
    seeds = {i: seed for i, _, seed, _, _ in seen}
    assert seeds[1] == seeds[0] + 1

    def draw(_: Any) -> Any:
        return kiln.rand(1).item(), random.random(), np.random.random()

    def numbers(seed: int) -> list[Any]:
        return list(D.DataLoader(Numbers(4), 1, num_workers=2, collate_fn=draw, generator=kiln.Generator(seed)))

    drawn = numbers(1)
    assert drawn == numbers(1) != numbers(2)
    assert all(len(set(column)) == 4 for column in zip(*drawn, strict=True))


def test_init_function() -> None:
    def init(number: int) -> None:
        os.environ["KILN_TEST_WORKER"] = str(number)

    def read(_: Any) -> str:
        return os.environ["KILN_TEST_WORKER"]

    assert list(D.DataLoader(Numbers(4), num_workers=2, worker_init_fn=init, collate_fn=read)) == ["0", "1", "0", "1"]

    def fail(number: int) -> None:
        raise ValueError(f"no start {number}")

    loader = iter(D.DataLoader(Numbers(4), num_workers=2, worker_init_fn=fail))
    for k in (0, 1, 0, 1):
        with pytest.raises(ValueError, match=f"no start {k}"):
            next(loader)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("error", ValueError, "sample 5"),
        ("key", KeyError, "sample 5"),
        ("odd error", kiln.WorkerError, "UnicodeDecodeError"),
        ("local error", kiln.WorkerError, "Local: here"),
        ("stop", kiln.WorkerError, "StopIteration: sample 5"),
        ("not for travel", kiln.WorkerError, "pickle"),
    ],
)
def test_exceptions_of_workers(how: str, kind: type[Exception], text: str) -> None:
    loader = iter(D.DataLoader(Faulty(how), None, num_workers=2))
    assert [next(loader) for _ in range(5)] == [0, 1, 2, 3, 4]
    expected = (kind, AttributeError) if how == "not for travel" else kind
    with pytest.raises(expected, match=r"(?s)in DataLoader worker process 1.*Original Traceback") as caught:
        next(loader)
    assert text in str(caught.value) and "\n" in str(caught.value)
    assert list(loader) == [6, 7, 8, 9, 10, 11]  # it goes on


def test_exceptions_without_workers() -> None:
    loader = iter(D.DataLoader(Faulty("error"), None))
    assert [next(loader) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="sample 5"):
        next(loader)
    assert list(loader) == [6, 7, 8, 9, 10, 11]


def test_a_worker_that_dies() -> None:
    loader = D.DataLoader(Faulty("ends"), 2, num_workers=2)
    with pytest.raises(kiln.WorkerError, match=r"worker 0 .*exit code 3"):
        list(loader)


def test_a_worker_that_takes_too_long() -> None:
    loader = D.DataLoader(Faulty("sleeps"), 2, num_workers=2, timeout=0.5)
    started = time.monotonic()
    passing = iter(loader)
    next(passing), next(passing)
    with pytest.raises(kiln.WorkerError, match=r"no batch from worker 0 in 0.5 seconds"):
        next(passing)
    for process in passing.workers.processes:  # type: ignore[attr-defined]
        process.terminate()
    assert time.monotonic() - started < 10


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    return [p for p in pids if Path(f"/proc/{p}/stat").exists() and " Z " not in Path(f"/proc/{p}/stat").read_text()]


def pid_of(_: Any) -> int:
    return os.getpid()


def test_workers_go_with_their_pass() -> None:
    loader = D.DataLoader(Numbers(), 2, num_workers=2, collate_fn=pid_of)
    assert not alive(list(loader))
    big = D.DataLoader(Numbers(), 2, num_workers=2, collate_fn=lambda _: (os.getpid(), np.zeros(1_000_000)))
    passing = iter(big)  # workers are left waiting with batches that nobody takes
    pids = [next(passing)[0] for _ in range(2)]
    assert alive(pids) == pids
    del passing
    gc.collect()
    assert not alive(pids)


def test_persistent_workers() -> None:
    loader = D.DataLoader(Numbers(7), 2, num_workers=2, collate_fn=pid_of, persistent_workers=True)
    one, two = list(loader), list(loader)
    assert len(one) == 4 and set(one) == set(two) and alive(one) == one
    passing = iter(loader)
    next(passing)
    assert list(loader) == one  # nothing is left of the pass that was broken off
    with pytest.raises(kiln.WorkerError, match="another pass"):
        next(passing)
    streaming = D.DataLoader(Stream(10), 2, num_workers=2, persistent_workers=True)
    assert values(streaming) == values(streaming) == [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]]
    del loader, passing
    gc.collect()
    assert not alive(one)


def test_large_tasks_and_batches_do_not_block_each_other() -> None:
    n = 200_000
    sampler = [list(range(n))] * 6

    class Wide(D.Dataset[Any]):
        def __getitems__(self, indices: list[int]) -> Any:
            return np.asarray(indices)

    loader = D.DataLoader(Wide(), batch_sampler=sampler, num_workers=1, prefetch_factor=4, collate_fn=kiln.from_numpy)
    assert [t.sum().item() for t in loader] == [n * (n - 1) // 2] * 6


def test_workers_compute_with_kiln_after_a_fork() -> None:
    """The thread pool and the compiler were in use when the worker was forked; it uses both itself."""
    threads = kiln.get_num_threads()
    kiln.set_num_threads(2)
    weights = kiln.rand(64, 64)
    function = kiln.compile(lambda x: (x @ weights).tanh().sum())
    function(kiln.ones(300, 64))
    function(kiln.ones(300, 64))

    class Computing(D.Dataset[Any]):
        def __getitem__(self, i: int) -> Any:
            kiln.set_num_threads(2)
            x = kiln.full((300 + i, 64), 1.0)  # a new shape: compiled here
            return function(x), function(x), (x @ weights).tanh().sum()

        def __len__(self) -> int:
            return 4

    try:
        for a, b, c in D.DataLoader(Computing(), num_workers=2, timeout=60):
            assert a.item() == b.item() == c.item()
    finally:
        kiln.set_num_threads(threads)


def test_other_ways_to_start_processes() -> None:
    data = D.TensorDataset(kiln.arange(6), nn.Parameter(kiln.ones(6, 2)).detach())
    got = values(D.DataLoader(data, 3, num_workers=1, multiprocessing_context="spawn"))
    assert got == [[[0, 1, 2], [[1.0, 1.0]] * 3], [[3, 4, 5], [[1.0, 1.0]] * 3]]


def test_tensors_travel_wherever_they_are() -> None:
    class Holder:
        def __init__(self, x: Any) -> None:
            self.x = x

    def held(samples: list[Any]) -> Any:
        return Numbers(samples[0][0]), {"p": nn.Parameter(kiln.ones(2)), "t": samples[0][1].unsqueeze(0)[:, ::2]}

    (_, got), (numbers, _) = list(D.DataLoader(Numbers(2), collate_fn=held, num_workers=1))
    assert type(got["p"]) is nn.Parameter and got["p"].requires_grad and got["t"].tolist() == [[0.0]]
    assert numbers.n == 1
    got["t"].fill_(3.0)
    assert got["t"].tolist() == [[3.0]]


def test_wrong_arguments() -> None:
    data = Numbers(3)
    for options in (
        {"num_workers": -1},
        {"timeout": -1},
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"num_workers": 1, "prefetch_factor": 0},
        {"shuffle": True, "sampler": [1]},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"batch_sampler": [[1]], "shuffle": True},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
    ):
        with pytest.raises(kiln.InvalidValueError):
            D.DataLoader(data, **options)  # type: ignore[arg-type]
    for extra in ({"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}, {"batch_size": 0}):
        with pytest.raises(kiln.InvalidValueError):
            D.DataLoader(Stream(3), **extra)  # type: ignore[arg-type]
    with pytest.raises(kiln.ArgumentError):
        D.DataLoader(data, num_workers=True)
    loader = D.DataLoader(data, pin_memory=True, pin_memory_device="cuda", in_order=True)
    if not kiln.cuda.is_available():
        with pytest.warns(UserWarning, match="there is no GPU: batches are not pinned"):
            assert len(list(loader)) == 3


def test_inside_a_capture_it_is_refused() -> None:
    loader = D.DataLoader(Numbers(3))
    with pytest.raises(kiln.CaptureError):
        kiln.compile(lambda: next(iter(loader))[1], fullgraph=True)()
