"""Runs the programs of many seeds, in this process or in several, and gathers what happened.

Workers are processes of their own: one that dies or hangs is a fault of the program it was at, named by its seed, and
another goes on behind it. Eager kernels serve programs of any sizes, so all processes share them through the cache on
disk; what a program compiles for itself is used once and is not kept.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

from fuzz_check import check, describe, draw
from fuzz_faults import as_kiln
from fuzz_table import Call
from fuzz_table_draw import eager_only, refused

from kiln import dispatch
from kiln.ir.graph import Graph
from kiln.runtime import cache

RECYCLED = 1500
"""Programs that one process runs: code once loaded stays, so a process grows with every program."""
PATIENCE = 300.0
"""Seconds after which a program counts as hanging."""


@dataclass
class Outcome:
    """What the program of one seed did."""

    seed: int
    fault: str = ""
    checked: bool = False  # against float64
    hits: collections.Counter[str] = field(default_factory=collections.Counter)
    views: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    primitives: collections.Counter[str] = field(default_factory=collections.Counter)
    dtypes: set[tuple[str, str]] = field(default_factory=set)
    """Instructions with the dtype of their first operand."""


def run_one(seed: int, family: str, thorough: bool) -> Outcome:
    """Draw and check one program; any exception is its fault."""
    out = Outcome(seed)
    compiled.clear()
    refused.clear()
    eager_only.clear()
    try:
        program = draw(seed, family)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is a fault of this program)
        out.fault = f"while drawing: {type(error).__name__}: {error}"
        return out
    out.checked = not (program.special or program.fragile)
    for instr in program.instrs:
        out.hits[instr.op] += 1
        if instr.view:
            out.views[instr.view] += 1
        if isinstance(instr, Call):
            out.dtypes.update((instr.op, name) for name in instr.dtypes[:1])
    out.hits.update(eager_only)
    out.views.update(f"input {how}" for how in program.layouts)
    out.views.update(f"write {kind}" for *_, kind in program.writes)
    try:
        check(program, seed, thorough)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is a fault of this program)
        out.fault = f"{type(error).__name__}: {error}\n{describe(program)}"
    out.refused, out.primitives = collections.Counter(refused), collections.Counter(compiled)
    return out


# ------------------------------------------------------------------- what is compiled, and the cache

compiled: collections.Counter[str] = collections.Counter()
"""In how many graphs each primitive was."""


@contextlib.contextmanager
def shared_kernels() -> Iterator[None]:
    """Inside, the cache on disk keeps the kernels of eager ops and nothing else; what programs compile is counted."""
    making = False
    folder, init, build = cache.folder, dispatch.Kernel.__init__, dispatch.build

    def make(self: dispatch.Kernel, *args: Any) -> None:
        nonlocal making
        making = True
        try:
            init(self, *args)
        finally:
            making = False

    def counted(graph: Graph, *args: Any, **named: Any) -> Any:
        names = {op.op.name for op in graph.operations}
        if not making:
            compiled.update(names)
        return build(graph, *args, **named)

    with (
        mock.patch.object(dispatch.Kernel, "__init__", as_kiln(make)),
        mock.patch.object(dispatch, "build", as_kiln(counted)),
        mock.patch.object(cache, "folder", lambda: folder() if making else None),
    ):
        yield


@contextlib.contextmanager
def cache_of_a_run() -> Iterator[None]:
    """A folder for the cache, unless one is given: a run leaves nothing behind."""
    if "KILN_CACHE_DIR" in os.environ or os.environ.get("KILN_CACHE") == "0":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kiln-fuzz-") as folder, mock.patch.dict(os.environ, KILN_CACHE_DIR=folder):
        yield


# ----------------------------------------------------------------------------------------- workers


def worker(pipe: Connection, seeds: range, family: str, thorough: bool, log: str) -> None:
    """The life of a worker: outcomes of its seeds, in order."""
    with open(log, "w") as file, shared_kernels():
        faulthandler.enable(file)
        for seed in seeds:
            pipe.send(run_one(seed, family, thorough))
    pipe.close()


class Worker:
    """A worker process as its parent sees it."""

    def __init__(self, seeds: range, options: tuple[str, bool], folder: str) -> None:
        self.seeds = seeds
        self.done = 0
        self.since = time.monotonic()
        self.log = Path(folder) / f"{seeds[0]}.log"
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self.process = multiprocessing.get_context("spawn").Process(
            target=worker, args=(theirs, seeds[:RECYCLED], *options, str(self.log)), daemon=True
        )
        self.process.start()
        theirs.close()

    def receive(self) -> Outcome:
        """The next outcome. EOFError when the worker has ended."""
        got = self.pipe.recv()
        assert isinstance(got, Outcome)
        self.since = time.monotonic()
        self.done += 1
        return got

    def ended(self, why: str = "") -> Outcome | None:
        """After its end: what it died of, if it did."""
        self.process.join()
        if self.process.exitcode == 0 and not why:
            return None
        said = self.log.read_text() if self.log.exists() else ""
        where = self.seeds[min(self.done, len(self.seeds) - 1)]
        return Outcome(where, f"the process died ({why or f'exit code {self.process.exitcode}'})\n{said}")

    def rest(self, died: bool) -> range:
        """The seeds that are left for its successor."""
        return self.seeds[self.done + died :]

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_workers(seeds: range, jobs: int, family: str, thorough: bool, report: Callable[[Outcome], bool]) -> None:
    """All seeds over `jobs` processes; `report` gets every outcome and says whether to go on."""
    with tempfile.TemporaryDirectory(prefix="kiln-fuzz-log-") as folder:
        parts = [p for k in range(jobs) if (p := seeds[k::jobs])]
        running = [Worker(part, (family, thorough), folder) for part in parts]
        try:
            while running:
                ready = wait([w.pipe for w in running], timeout=5)
                for w in list(running):
                    outcome, over = None, False
                    if w.pipe in ready:
                        try:
                            outcome = w.receive()
                        except EOFError:
                            outcome, over = w.ended(), True
                    elif time.monotonic() - w.since > PATIENCE:
                        w.process.kill()
                        outcome, over = w.ended(f"after {PATIENCE:.0f} s without an end"), True
                    if over:
                        running.remove(w)
                        w.pipe.close()
                        left = w.rest(outcome is not None)
                        if left:
                            running.append(Worker(left, (family, thorough), folder))
                    if outcome is not None and not report(outcome):
                        return
        finally:
            for w in running:
                w.end()


def run_here(seeds: range, family: str, thorough: bool, report: Callable[[Outcome], bool]) -> None:
    """All seeds in this process."""
    faulthandler.enable()
    with shared_kernels():
        for seed in seeds:
            if not report(run_one(seed, family, thorough)):
                return
