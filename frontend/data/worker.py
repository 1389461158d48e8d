"""Worker processes of a loader: each takes lists of sample numbers, and sends batches back.

A worker has one connection to the loader. A thread of its own reads the tasks, so that the loader never waits to hand
one over, whatever the worker is doing; batches are sent by the worker's main thread, which waits until the loader takes
them. Whoever goes, the other notices: a loader that ends closes the connection, a worker that dies leaves it.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing.connection
import os
import pickle
import queue
import random
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

import numpy as np

from kiln.creation import from_numpy
from kiln.data.collate import default_collate
from kiln.data.dataset import TensorDataset
from kiln.errors import WorkerError
from kiln.nn.parameter import Parameter
from kiln.random import manual_seed
from kiln.runtime.threads import set_num_threads
from kiln.tensor import Tensor

_GRACE: Final = 5.0
"""Seconds that a worker is given to end by itself."""


@dataclass(frozen=True)
class WorkerInfo:
    """What `get_worker_info` tells a worker: its number, how many there are, its seed, and its copy of the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process of a loader what is known about it, elsewhere None."""
    return _info


# -------------------------------------------------------------------------------- tensors between processes


def _reduce_tensor(x: Tensor) -> tuple[Any, ...]:
    return from_numpy, (x.detach().numpy(),)


def _reduce_parameter(x: Parameter) -> tuple[Any, ...]:
    return _parameter, (x.detach().numpy(), x.requires_grad)


def _parameter(array: np.ndarray[Any, Any], requires_grad: bool) -> Parameter:
    return Parameter(from_numpy(array), requires_grad)


# Between processes (and there only) tensors travel as NumPy arrays, wherever in an object they are.
ForkingPickler.register(Tensor, _reduce_tensor)
ForkingPickler.register(Parameter, _reduce_parameter)


# ------------------------------------------------------------------------------------------ fetching batches


class End(Exception):
    """A stream of samples has no more of them."""


class Fetcher:
    """From a task to a batch: a list of sample numbers (of streams: how many), or the number of one sample."""

    def __init__(
        self, dataset: Any, stream: bool, batched: bool, collate: Callable[[Any], Any], drop_last: bool
    ) -> None:
        self.dataset = dataset
        self.batched = batched
        self.collate = collate
        self.drop_last = drop_last
        self.iterator: Iterator[Any] | None = iter(dataset) if stream else None

    def fetch(self, task: Any) -> Any:
        """The batch; `End` when a stream is over."""
        if self.iterator is not None:
            return self.collate(self._streamed(self.iterator, len(task) if self.batched else None))
        if not self.batched:
            return self.collate(self.dataset[task])
        if type(self.dataset) is TensorDataset and self.collate is default_collate:  # the usual case, made quick
            gathered = self.dataset.batch(task)
            if gathered is not None:
                return gathered
        together = getattr(self.dataset, "__getitems__", None)
        return self.collate(together(task) if together is not None else [self.dataset[i] for i in task])

    def _streamed(self, iterator: Iterator[Any], count: int | None) -> Any:
        samples = []
        for sample in iterator:
            if count is None:
                return sample
            samples.append(sample)
            if len(samples) == count:
                return samples
        if not samples or self.drop_last:
            raise End
        return samples


# ----------------------------------------------------------------------------------------- in the worker


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    dataset: Any
    stream: bool
    batched: bool
    collate: Callable[[Any], Any]
    drop_last: bool
    init: Callable[[int], Any] | None
    count: int
    seed: int

    def fetcher(self) -> Fetcher:
        return Fetcher(self.dataset, self.stream, self.batched, self.collate, self.drop_last)


def work(job: Job, number: int, connection: Connection, foreign: Sequence[Connection]) -> None:
    """A worker's life. `foreign`: the loader's ends of connections, inherited by a forked worker."""
    global _info
    for other in foreign:
        other.close()
    seed = job.seed + number
    random.seed(seed)
    np.random.seed(seed % 2**32)
    manual_seed(seed)
    set_num_threads(1)  # the workers share the processors
    _info = WorkerInfo(number, job.count, seed, job.dataset)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    over = threading.Event()
    threading.Thread(target=_read, args=(connection, tasks, over), daemon=True).start()
    # Interrupts go to every process of a terminal: the loader's is the one to report it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        _serve(job, number, connection, tasks, over)


def _read(connection: Connection, tasks: queue.SimpleQueue[Any], over: threading.Event) -> None:
    """Take tasks in; None, or the end of the connection, is the end."""
    with contextlib.suppress(EOFError, OSError):
        while (task := connection.recv()) is not None:
            tasks.put(task)
    over.set()
    tasks.put(None)


def _serve(job: Job, number: int, connection: Connection, tasks: queue.SimpleQueue[Any], over: threading.Event) -> None:
    fetcher: Fetcher | None = None
    failure: Exception | None = None  # one that leaves no fetcher answers every task
    current = 0
    while (task := tasks.get()) is not None and not over.is_set():
        epoch, wanted = task
        try:
            if failure is not None:
                raise failure
            if current != epoch:
                if current == 0 and job.init is not None:
                    job.init(number)
                current, fetcher = epoch, None
                fetcher = job.fetcher()
            assert fetcher is not None
            reply = _dumps((epoch, "batch", fetcher.fetch(wanted)))
        except End:
            reply = _dumps((epoch, "end", None))
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises is raised again in the loader
            failure = error if fetcher is None else None
            reply = _dumps((epoch, "error", (_type_of(error), traceback.format_exc())))
        connection.send_bytes(reply)


def _dumps(reply: Any) -> bytes:
    buffer = io.BytesIO()
    ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(reply)
    return buffer.getvalue()


def _type_of(error: Exception) -> bytes | None:
    """The class of an exception; None when the loader could not find it."""
    try:
        return pickle.dumps(type(error))
    except (pickle.PicklingError, AttributeError):
        return None


# ----------------------------------------------------------------------------------------- in the loader


@dataclass(frozen=True)
class Answer:
    """What a worker sent: a "batch", an "error" of its code, or the "end" of its stream."""

    worker: int
    kind: str
    value: Any

    def result(self) -> Any:
        """The batch; raises the error."""
        if self.kind == "error":
            raise _again(self.worker, *self.value)
        return self.value


class Workers:
    """The processes of one loader. Each epoch begins with `begin`; then every `submit` is answered by one `receive`."""

    def __init__(self, job: Job, context: Any, timeout: float) -> None:
        self.timeout = timeout
        self.epoch = 0
        self.connections: list[Connection] = []
        self.processes: list[Any] = []
        for k in range(job.count):
            ours, theirs = context.Pipe()
            self.connections.append(ours)
            foreign = tuple(self.connections) if context.get_start_method() == "fork" else ()
            process = context.Process(target=work, args=(job, k, theirs, foreign), daemon=True)
            with warnings.catch_warnings():
                # Python warns of forks while threads run. Those of kiln survive one (runtime/threads.py, llvm.py).
                warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
                process.start()
            theirs.close()
            self.processes.append(process)
        self.close = weakref.finalize(self, _end, os.getpid(), self.connections, self.processes)

    def begin(self) -> int:
        """Forget what is still under way; the number of the new epoch."""
        self.epoch += 1
        return self.epoch

    def submit(self, worker: int, task: Any) -> None:
        """Hand a task to a worker."""
        try:
            self.connections[worker].send((self.epoch, task))
        except (BrokenPipeError, ConnectionResetError):
            raise self._died(worker) from None

    def receive(self, worker: int) -> Answer:
        """The answer to the oldest task of a worker that is still open. WorkerError when it died or took too long."""
        connection, process = self.connections[worker], self.processes[worker]
        limit = time.monotonic() + self.timeout if self.timeout else None
        while True:
            left = None if limit is None else max(0.0, limit - time.monotonic())
            if not multiprocessing.connection.wait([connection, process.sentinel], left):
                raise WorkerError(f"no batch from worker {worker} in {self.timeout} seconds", op="DataLoader")
            try:
                epoch, kind, value = pickle.loads(connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                raise self._died(worker) from None
            if epoch == self.epoch:
                return Answer(worker, kind, value)

    def _died(self, worker: int) -> WorkerError:
        process = self.processes[worker]
        process.join(_GRACE)
        return WorkerError(
            f"worker {worker} (process {process.pid}) ended unexpectedly, with exit code {process.exitcode}",
            op="DataLoader",
        )


def _end(owner: int, connections: Sequence[Connection], processes: Sequence[Any]) -> None:
    """Tell workers to end, and see that they do. Batches that they still send are thrown away."""
    if os.getpid() != owner:  # a forked child holds a copy of this
        return
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(None)
    limit = time.monotonic() + _GRACE
    for connection, process in zip(connections, processes, strict=True):
        while process.is_alive() and time.monotonic() < limit:
            ready = multiprocessing.connection.wait([connection, process.sentinel], 0.1)
            if connection in ready:
                try:
                    connection.recv_bytes()
                except (EOFError, OSError):
                    process.join(max(0.0, limit - time.monotonic()))
        if process.is_alive():
            process.terminate()
        process.join()
        connection.close()


class _Message(str):
    """Text that a KeyError shows as it is, not by its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _again(worker: int, type_: bytes | None, text: str) -> Exception:
    """An exception of a worker's code, with the traceback that it had there."""
    kind: type[Exception] = WorkerError if type_ is None else pickle.loads(type_)
    if issubclass(kind, StopIteration):  # it would end the caller's loop
        kind = WorkerError
    message = f"Caught {kind.__name__} in DataLoader worker process {worker}.\nOriginal {text}"
    try:
        return kind(_Message(message) if issubclass(kind, KeyError) else message)
    except TypeError:  # it takes other arguments
        return WorkerError(message, op="DataLoader")
