"""Ten training scripts, written for torch, run on kiln with nothing but their imports rewritten.

A script's `main(seed)` returns a history of losses. It must begin and end where torch's does: `ranges.json` holds
between what values ten seeds begin and end with torch (`tests/tools/measure_scripts.py`), and other random numbers may
go half that range beyond it.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("test_"))
RANGES: dict[str, dict[str, tuple[float, float]]] = json.loads((HERE / "ranges.json").read_text())


def rewritten(source: str) -> str:
    """The source with `torch` in its import lines replaced, and nothing else."""
    lines = []
    for line in source.splitlines():
        if line == "import torch":
            line = "import kiln as torch"
        elif re.match(r"(import|from) torch\b", line):
            line = re.sub(r"^(import|from) torch\b", r"\1 kiln", line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def history(path: Path) -> list[float]:
    spec = importlib.util.spec_from_file_location(f"kiln_script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[float] = module.main(seed=0)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_as_with_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(rewritten((HERE / f"{name}.py").read_text()))
    losses = history(path)
    for got, (low, high) in ((losses[0], RANGES[name]["first"]), (losses[-1], RANGES[name]["last"])):
        margin = (high - low) / 2 + 0.02 * abs(high)
        assert low - margin <= got <= high + margin, f"{got} is not between {low} and {high}"
    assert losses[-1] < losses[0]


def test_only_imports_are_rewritten() -> None:
    source = (
        "import torch\nimport torch.nn as nn\nfrom torch.utils.data import X\nimport torchvision\nx = 'import torch'\n"
    )
    assert rewritten(source) == (
        "import kiln as torch\nimport kiln.nn as nn\nfrom kiln.utils.data import X\nimport torchvision\n"
        "x = 'import torch'\n"
    )


def test_every_script_has_its_ranges() -> None:
    assert sorted(RANGES) == SCRIPTS and len(SCRIPTS) == 10
    for name, found in RANGES.items():
        assert found["last"][1] < found["first"][0] or name == "dataset", name
