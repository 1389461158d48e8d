"""Shared pytest set-up: the --slow flag and an object cache of the run's own."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import pytest

# Tests must neither read nor fill the user's cache. Set before kiln reads it; children inherit it.
os.environ.setdefault("KILN_CACHE_DIR", tempfile.mkdtemp(prefix="kiln-test-cache-"))


PARSED: set[str] = set()
"""Texts of graphs that were looked at."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run exhaustive and long tests")
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files with what is produced")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="needs --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tens of thousands of collected tests are no garbage: no collection walks them, neither those that come by
    themselves meanwhile nor those that tests ask for."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves() -> Iterator[None]:
    """Code and programs that are kept for later: programs that collect garbage need not walk those of other modules."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def settings_are_as_before() -> Iterator[None]:
    """A test that leaves a setting of the process or of the thread changed fails, not one that runs after it."""
    from kiln.base import MODES, PRODUCTS, STAGES

    switches: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (PRODUCTS, ("library", "mode", "tf32", "cores")),
        (STAGES, ("enabled",)),
        (MODES, ("autocast", "compiling", "default_dtype", "device", "door")),
        (MODES, ("gpu", "grad_enabled", "inference", "layers", "recorder")),
    )

    def settings() -> list[Any]:
        return [getattr(holder, name) for holder, names in switches for name in names]

    before = settings()
    yield
    if (after := settings()) != before:
        places = [(holder, name) for holder, names in switches for name in names]
        changed = [(*place, *pair) for place, *pair in zip(places, before, after, strict=True) if pair[0] != pair[1]]
        for holder, name, was, _ in changed:
            setattr(holder, name, was)
        pytest.fail(f"left changed: {', '.join(f'{name} is {now}, was {was}' for _, name, was, now in changed)}")


@pytest.fixture(scope="session", autouse=True)
def captured_graphs_parse_back() -> Iterator[None]:
    """Every graph that any test captures prints to text that parses back to an equal graph."""
    from kiln.capture import Capture
    from kiln.ir.graph import Graph, Value
    from kiln.ir.parser import parse_graph
    from kiln.ir.printer import print_graph

    finish = Capture.finish

    def checked(self: Capture, outputs: list[Value]) -> Graph:
        graph = finish(self, outputs)
        text = print_graph(graph)
        if text not in PARSED:
            PARSED.add(text)
            assert print_graph(parse_graph(text), locations=False) == print_graph(graph, locations=False)
        return graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Capture, "finish", checked)
        yield
