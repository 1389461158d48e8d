"""Shared pytest set-up: the --slow flag and an object cache of the run's own."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Iterator

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
    """A test that leaves a setting of the process or the thread changed fails, not one that runs after it."""
    from kiln.base import MODES, PRODUCTS, STAGES

    def settings() -> dict[str, object]:
        switches = {name: getattr(PRODUCTS, name) for name in ("library", "tf32")}
        modes = {name: getattr(MODES, name) for name in ("grad_enabled", "inference", "recorder", "compiling", "door")}
        where = {name: getattr(MODES, name) for name in ("layers", "default_dtype", "device", "gpu")}
        return {**switches, **modes, **where, "staging": STAGES.enabled}

    before = settings()
    yield
    after = settings()
    if after != before:
        PRODUCTS.set(before["library"] is True, before["tf32"] is True)
        pytest.fail(f"left changed: {({k: (before[k], v) for k, v in after.items() if v != before[k]})}")


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
