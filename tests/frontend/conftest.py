"""What processes that share the tests tell each other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Notes:
    """Answers by name, each found once by whichever process needs it first. They are kept as JSON."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def find(self, name: str, answer: Callable[[], Any]) -> Any:
        """What is noted under this name, or `answer()`, which is noted then."""
        file = self._folder / f"{name}.json"
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(answer()))
            part.replace(file)
        return json.loads(file.read_text())


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Notes:
    """Notes of this run of the tests."""
    base = tmp_path_factory.getbasetemp()
    return Notes((base if not hasattr(request.config, "workerinput") else base.parent) / "notes")
