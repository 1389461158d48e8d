"""`DataLoader`: from a data set to batches, in this process or by workers."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kiln.data.collate import default_collate, default_convert
from kiln.data.dataset import IterableDataset
from kiln.data.sampler import BatchSampler, RandomSampler, SequentialSampler, uniform
from kiln.data.worker import End, Fetcher, Job, Workers
from kiln.errors import ArgumentError, InvalidValueError, WorkerError
from kiln.random import Generator


class DataLoader:
    """Iterates over batches of `dataset`.

    The order of samples: `sampler` (anything that gives their numbers), at random with `shuffle`, or as they are; in
    batches of `batch_size`, the last left out with `drop_last` when it is short; or `batch_sampler` gives lists of
    numbers. With batch_size None samples come one by one. `collate_fn` makes a batch of a list of samples:
    `default_collate`, or `default_convert` for single samples. Random orders and the seeds of workers come from
    `generator`, or from kiln's default one: they are the same for every number of workers.

    With `num_workers` processes batches are made ahead (`prefetch_factor` for each worker), and come in the same order
    as without. An exception of the data set's code is raised here, with its traceback. `worker_init_fn(number)` runs
    first in each worker; `persistent_workers` live as long as the loader, others for one iteration. WorkerError when
    one dies, or lets the loader wait for more than `timeout` seconds (0: any time is right).

    With `pin_memory`, the batches' tensors come in pinned memory (`Tensor.pin_memory`); without a GPU they do not,
    which a warning says. An IterableDataset is copied to each worker: see `get_worker_info`.

    >>> import kiln
    >>> from kiln.data import DataLoader, TensorDataset
    >>> data = TensorDataset(kiln.arange(5), kiln.arange(5) * 2)
    >>> for x, y in DataLoader(data, batch_size=2):
    ...     print(x, y)
    tensor([0, 1]) tensor([0, 2])
    tensor([2, 3]) tensor([4, 6])
    tensor([4]) tensor([8])
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        stream = isinstance(dataset, IterableDataset)
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise InvalidValueError(
                "an IterableDataset has an order of its own: no shuffle, no sampler", op="DataLoader"
            )
        if sampler is not None and shuffle:
            raise InvalidValueError("shuffle and sampler exclude each other", op="DataLoader")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise InvalidValueError(
                "batch_sampler excludes batch_size, shuffle, sampler and drop_last", op="DataLoader"
            )
        if batch_size is None and drop_last:
            raise InvalidValueError("without batches there is no last one to drop", op="DataLoader")
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.generator = generator
        self.drop_last = drop_last
        self.batch_size = None if batch_sampler is not None else batch_size
        if sampler is None and not stream:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_sampler is None and batch_size is not None:
            if stream:
                BatchSampler([], batch_size, drop_last)  # checks them
            else:
                assert sampler is not None
                batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self._stream = stream
        self._batched = batch_sampler is not None or batch_size is not None
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self._workers: Workers | None = None

    def __len__(self) -> int:
        """How many batches there are; of a stream with a length, by that."""
        if not self._stream:
            return len(self.batch_sampler if self._batched else self.sampler)  # type: ignore[arg-type]
        n = len(self.dataset)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """A new pass over the data. Workers start now, not with the first batch."""
        if not self.pin_memory:
            return self._pass()
        from kiln.data.pin import pinning

        return pinning(self._pass())

    def _pass(self) -> Iterator[Any]:
        job = Job(
            self.dataset,
            self._stream,
            self._batched,
            self.collate_fn,
            self.drop_last,
            self.worker_init_fn,
            self.num_workers,
            int(uniform(1, self.generator)[0] * 2**53),
        )
        if not self.num_workers:
            return _Alone(job.fetcher(), self._tasks())
        workers = self._workers
        if workers is None:
            workers = Workers(job, self._context(), self.timeout)
            if self.persistent_workers:
                self._workers = workers
        return _Together(workers, self._tasks(), self.prefetch_factor or 2, self.persistent_workers)

    def _tasks(self) -> Iterator[Any]:
        """What there is to fetch: lists of numbers, numbers; for a stream the same again and again."""
        if self._stream:
            return itertools.repeat(None if self.batch_size is None else range(self.batch_size))
        tasks = self.batch_sampler if self._batched else self.sampler
        assert tasks is not None
        return iter(tasks)

    def _context(self) -> Any:
        context = self.multiprocessing_context
        if context is None or isinstance(context, str):
            return multiprocessing.get_context(context)
        return context


class _Alone(Iterator[Any]):
    """A pass over the data in this process."""

    def __init__(self, fetcher: Fetcher, tasks: Iterator[Any]) -> None:
        self.fetcher = fetcher
        self.tasks = tasks

    def __next__(self) -> Any:
        task = next(self.tasks)
        try:
            return self.fetcher.fetch(task)
        except End:
            raise StopIteration from None


class _Together(Iterator[Any]):
    """A pass over the data by workers. Tasks go round among them: each answer is followed by a new task for the same
    worker, unless its stream is over; so answers that are taken in the order of the tasks are batches in order."""

    def __init__(self, workers: Workers, tasks: Iterator[Any], ahead: int, persistent: bool) -> None:
        self.workers = workers
        self.tasks = tasks
        self.persistent = persistent
        self.waiting: collections.deque[int] = collections.deque()
        """The workers of the tasks that are under way."""
        self.epoch = workers.begin()
        for _, k in itertools.product(range(ahead), range(len(workers.processes))):
            self._submit(k)

    def _submit(self, worker: int) -> None:
        for task in itertools.islice(self.tasks, 1):
            self.workers.submit(worker, task)
            self.waiting.append(worker)

    def __next__(self) -> Any:
        if self.workers.epoch != self.epoch:
            raise WorkerError("another pass of the same workers was begun", op="DataLoader")
        while self.waiting:
            k = self.waiting[0]
            answer = self.workers.receive(k)
            self.waiting.popleft()
            if answer.kind == "end":
                continue
            self._submit(k)
            return answer.result()
        if not self.persistent:
            self.workers.close()
        raise StopIteration


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool) -> None:
    if not isinstance(num_workers, int) or isinstance(num_workers, bool):
        raise ArgumentError(f"num_workers must be an int, got {num_workers!r}", op="DataLoader")
    if num_workers < 0 or timeout < 0:
        raise InvalidValueError("num_workers and timeout are not negative", op="DataLoader")
    if not num_workers and (prefetch_factor is not None or persistent_workers):
        raise InvalidValueError("prefetch_factor and persistent_workers need num_workers", op="DataLoader")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise InvalidValueError(f"prefetch_factor must be at least 1, got {prefetch_factor!r}", op="DataLoader")
