"""State that lives outside of arguments: clocks, generators of numbers, caches, the environment, modules, files."""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import logging
import os
import random
import shutil
import string
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import vector

PROGRAMS = program = Programs()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, of the same name in each run."""
    path = Path(tempfile.gettempdir()) / f"kiln-battery-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


@program
def clock_that_counts(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        start = time.perf_counter()
        y = x * 2
        return y, time.perf_counter() >= start

    for n in range(3):
        f(vector(n))


@program
def clock_replaced_by_the_user(c: Any) -> None:
    ticks = itertools.count(5)

    def now() -> int:
        return next(ticks)

    @c
    def f(x: Any) -> Any:
        return x * now()

    for _ in range(4):
        f(vector(1, 2))


@program
def todays_date(c: Any) -> None:
    f = c(lambda x: x + (datetime.date.today().year > 2000) * 2)
    for n in range(3):
        f(vector(n))


@program
def random_module(c: Any) -> None:
    f = c(lambda x: x * random.random() + random.randint(1, 5))
    for _ in range(4):
        f(vector(1, 2))


@program
def random_object_in_a_closure(c: Any) -> None:
    rng = random.Random(3)

    @c
    def f(x: Any) -> Any:
        return x if rng.random() < 0.5 else -x

    for n in range(5):
        f(vector(n, 1))


@program
def random_seeded_inside(c: Any) -> None:
    @c
    def f(x: Any, seed: int) -> Any:
        return x * random.Random(seed).random()

    for seed in (1, 2, 1):
        f(vector(1, 2), seed)


@program
def numpy_random(c: Any) -> None:
    f = c(lambda x: x + np.random.rand(2).astype(np.float32).sum())
    for _ in range(4):
        f(vector(1, 2))


@program
def numpy_generator(c: Any) -> None:
    rng = np.random.default_rng(3)

    @c
    def f(x: Any) -> Any:
        return x * float(rng.normal())

    for _ in range(4):
        f(vector(1, 2))


@program
def kiln_generator_of_ones_own(c: Any) -> None:
    g = kiln.Generator()
    g.manual_seed(5)
    f = c(lambda x: x + kiln.rand(2, generator=g))
    for n in range(4):
        f(vector(n, 1))
        if n == 1:
            g.manual_seed(5)


@program
def seeded_between_calls(c: Any) -> None:
    f = c(lambda x: x + kiln.randn(2))
    for n in range(4):
        kiln.manual_seed(n // 2)
        f(vector(n, 1))


@program
def seeded_inside(c: Any) -> None:
    @c
    def f(x: Any, seed: int) -> Any:
        kiln.manual_seed(seed)
        return x + kiln.rand(2)

    for seed in (1, 2, 1):
        f(vector(1, 2), seed)
        c.see(kiln.rand(1))


@program
def environment_read(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        return x * float(os.environ.get("KILN_BATTERY_SCALE", "1"))

    try:
        f(vector(1, 2))
        for scale in ("2", "3", "2"):
            os.environ["KILN_BATTERY_SCALE"] = scale
            f(vector(1, 2))
    finally:
        os.environ.pop("KILN_BATTERY_SCALE", None)
    f(vector(1, 2))


@program
def environment_written(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        os.environ["KILN_BATTERY_SEEN"] = str(len(x))
        return x + 1

    for n in (1, 2, 1):
        f(vector(*range(n)))
        c.see(os.environ.pop("KILN_BATTERY_SEEN"))


@program
def cache_of_a_function(c: Any) -> None:
    @functools.lru_cache(maxsize=2)
    def table(n: int) -> Any:
        return kiln.arange(n) * 2.0

    @c
    def f(x: Any) -> Any:
        return x + table(len(x))

    for n in (2, 3, 2, 4, 2):
        f(vector(*range(n)))
    c.see(table.cache_info())


@program
def cache_cleared_between_calls(c: Any) -> None:
    scale = [1.0]

    @functools.cache
    def made(n: int) -> float:
        return scale[0] * n

    @c
    def f(x: Any) -> Any:
        return x * made(3)

    f(vector(1))
    scale[0] = 2.0
    f(vector(1))
    made.cache_clear()
    f(vector(1))


@program
def file_read(c: Any) -> None:
    with folder() as path:
        path = path / "scale"

        @c
        def f(x: Any) -> Any:
            return x * float(path.read_text())

        for text in ("2", "3", "2"):
            path.write_text(text)
            f(vector(1, 2))


@program
def file_written(c: Any) -> None:
    with folder() as place:
        path = str(place / "log")

        @c
        def f(x: Any) -> Any:
            with open(path, "a") as file:
                file.write(f"{len(x)}\n")
            return x + 1

        for n in (1, 2, 1):
            f(vector(*range(n)))
            c.see(Path(path).read_text())


@program
def file_looked_for(c: Any) -> None:
    with folder() as path:
        path = path / "flag"
        f = c(lambda x: x * 2 if path.exists() else x)
        f(vector(1, 2))
        path.touch()
        f(vector(1, 2))
        path.unlink()
        f(vector(1, 2))


@program
def logged(c: Any) -> None:
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger = logging.getLogger("kiln.battery.state")
    logger.handlers, logger.propagate = [Keep()], False
    logger.setLevel(logging.INFO)

    @c
    def f(x: Any) -> Any:
        logger.info("size %d", len(x))
        return x * 2

    for n in (1, 2, 1):
        f(vector(*range(n)))
        c.see(records)
    logger.setLevel(logging.ERROR)
    f(vector(1))
    c.see(records)


@program
def warned(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        if len(x) > 1:
            warnings.warn("long", UserWarning, stacklevel=1)
        return x * 2

    for n in (1, 2, 1, 2):
        f(vector(*range(n)))


@program
def unique_names(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        return x * 2, len(uuid.uuid4().hex), string.Template("$a").substitute(a=len(x))

    for n in range(3):
        f(vector(n))
