"""Whole programs from the cache on disk, so that a warm process needs neither codegen nor LLVM.

A program's file is named by all that decides its content: the graph, the layouts, the target, and the text of the
sources that generate code. Nothing is ever stale: where any of them changes, the name does.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from kiln.ir.graph import Graph
from kiln.ir.program import Program
from kiln.ir.stored import StoredError, decode, encode, graph_key
from kiln.ir.target import Target
from kiln.ir.types import Dim
from kiln.runtime import cache

if TYPE_CHECKING:
    from kiln.ir.gpu_program import CudaProgram

_Made = TypeVar("_Made")

_KIND: Final = "programs"
_CHOICES: Final = "choices"


def fetch(
    graph: Graph,
    strides: Sequence[tuple[Dim, ...] | None],
    target: Target,
    options: str,
    sources: tuple[str, ...],
    build: Callable[[], Program],
) -> Program:
    """The program of a graph, from the cache or from `build` (and then cached).

    `options`: what else decides it; `sources`: the folders whose files generate code."""
    key = f"{target.key()}|{options}"
    return _fetch(graph, strides, key, sources, build, encode, lambda found, graph: decode(found, graph, target))


def fetch_cuda(
    graph: Graph,
    strides: Sequence[tuple[Dim, ...] | None],
    options: str,
    sources: tuple[str, ...],
    build: Callable[[], CudaProgram],
) -> CudaProgram:
    """`fetch` of a program for GPUs."""
    from kiln.ir import stored_gpu  # most processes never need it

    return _fetch(graph, strides, f"cuda|{options}", sources, build, stored_gpu.encode, stored_gpu.decode)


def _fetch(
    graph: Graph,
    strides: Sequence[tuple[Dim, ...] | None],
    key: str,
    sources: tuple[str, ...],
    build: Callable[[], _Made],
    encode: Callable[[_Made, Graph], bytes],
    decode: Callable[[bytes, Graph], _Made],
) -> _Made:
    if cache.folder() is None:
        return build()
    generator = source_digest(sources)
    text = graph_key(graph)
    if generator is None or text is None:
        return build()
    lying = [None if each is None else [str(s) for s in each] for each in strides]
    whole = f"{cache.FORMAT}|{generator}|{key}|{lying}|{text}"
    name = hashlib.sha256(whole.encode()).hexdigest()
    found = cache.read(_KIND, name)
    if found is not None:
        try:
            return decode(found, graph)
        except StoredError:
            cache.damaged()
    program = build()
    cache.write(_KIND, name, encode(program, graph))
    return program


def fetch_choice(
    graph: Graph, options: str, sources: tuple[str, ...], choose: Callable[[], tuple[int, ...]]
) -> tuple[int, ...]:
    """What a pass chose about a graph, from the cache or from `choose` (and then cached). Arguments as of `fetch`."""
    generator = None if cache.folder() is None else source_digest(sources)
    text = None if generator is None else graph_key(graph)
    if text is None:
        return choose()
    name = hashlib.sha256(f"{cache.FORMAT}|{generator}|{options}|{text}".encode()).hexdigest()
    found = cache.read(_CHOICES, name)
    if found is not None:
        return tuple(map(int, found.split()))
    chosen = choose()
    cache.write(_CHOICES, name, " ".join(map(str, chosen)).encode())
    return chosen


@functools.cache
def source_digest(folders: tuple[str, ...]) -> str | None:
    """A hash of all Python files below `folders`, read once per process (a few ms), with the versions of what runs
    them; None where kiln is installed without its sources. Contents, not times of change: installers may keep those."""
    total = hashlib.sha256(f"{sys.version_info[:2]} {np.__version__}".encode())
    for folder in folders:
        # Not pathlib: this is on the way to every process's first result.
        files = sorted(
            os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".py")
        )
        if not files:
            return None
        for path in files:
            with open(path, "rb") as file:
                data = file.read()
            total.update(f"|{os.path.relpath(path, folder)}|{len(data)}|".encode())
            total.update(data)
    return total.hexdigest()
