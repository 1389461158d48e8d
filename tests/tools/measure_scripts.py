"""Write `tests/scripts/ranges.json`: between what the scripts' histories begin and end with torch, over some seeds.

Usage, where torch is installed: PYTHONPATH=. python tests/tools/measure_scripts.py [name ...]
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
RANGES = SCRIPTS / "ranges.json"
SEEDS = 10


def history(path: Path, seed: int) -> list[float]:
    """What a script's `main` returns; what it prints is thrown away."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()):
        found: list[float] = module.main(seed)
    return found


def main() -> None:
    ranges: dict[str, Any] = json.loads(RANGES.read_text()) if RANGES.exists() else {}
    names = sys.argv[1:] or [p.stem for p in sorted(SCRIPTS.glob("*.py")) if not p.stem.startswith("test_")]
    for name in names:
        started = time.perf_counter()
        runs = [history(SCRIPTS / f"{name}.py", seed) for seed in range(SEEDS)]
        firsts, lasts = [run[0] for run in runs], [run[-1] for run in runs]
        ranges[name] = {
            "first": [round(min(firsts), 5), round(max(firsts), 5)],
            "last": [round(min(lasts), 5), round(max(lasts), 5)],
        }
        print(f"{name:12} {ranges[name]}  {(time.perf_counter() - started) / SEEDS:.2f} s a run")
    RANGES.write_text(json.dumps(ranges, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
