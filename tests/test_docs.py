"""Every example in docstrings and in the Markdown files runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FOLDERS = {"frontend": "kiln", "ir": "kiln.ir", "codegen": "kiln.codegen", "runtime": "kiln.runtime"}


def module_names() -> list[str]:
    """Modules with examples, by their import names (importing by path would make second module objects)."""
    names = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text() and path.name != "__main__.py":
                parts = list(path.relative_to(ROOT / folder).with_suffix("").parts)
                names.append(".".join([package, *(p for p in parts if p != "__init__")]))
    return names


PAGES = sorted(p for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if ">>> " in p.read_text())


@pytest.mark.parametrize("name", module_names())
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages(page: Path) -> None:
    # A fence ends an example as a blank line does.
    text = "\n".join("" if line.startswith("```") else line for line in page.read_text().split("\n"))
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page.name, str(page), 0))
    assert runner.tries > 0
    assert runner.failures == 0


def test_the_tour_has_examples() -> None:
    assert ROOT / "docs" / "tour.md" in PAGES


def test_links_between_pages_resolve() -> None:
    import re

    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
