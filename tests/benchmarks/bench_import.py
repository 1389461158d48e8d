"""What starting costs: `import kiln`, and first compiled results, in fresh interpreters; the least of 20 runs each.

python tests/benchmarks/bench_import.py

Byte code is kept, as in an installed package, whatever PYTHONDONTWRITEBYTECODE says: without it every process parses
all sources. The caches are in a temporary folder: "warm" scripts have run before, "cold" ones find it empty.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 20
FIRST_RESULT = (
    "import kiln\n"
    "f = kiln.compile(lambda x, w: kiln.softmax(kiln.tanh(x @ w), 1))\n"
    "x = kiln.ones(8, 64); w = kiln.ones(64, 32)\n"
    "f(x, w); f(x, w)"
)
MLP = (
    "import kiln\n"
    "model = kiln.nn.Sequential(kiln.nn.Linear(16, 32), kiln.nn.ReLU(), kiln.nn.Linear(32, 4))\n"
    "f = kiln.compile(model)\n"
    "x = kiln.ones(8, 16)\n"
    "f(x); f(x)"  # the first call captures, the second runs the program
)
WARM = {
    "nothing": "pass",
    "import numpy": "import numpy",
    "import kiln": "import kiln",
    "import kiln, one tensor": "import kiln; kiln.ones(2)",
    "first compiled result": FIRST_RESULT,
    "first compiled result of an MLP": MLP,
}
COLD = {
    "first compiled result, cold cache": FIRST_RESULT,
    "first compiled result of an MLP, cold": MLP,
}
HEAVY = ("llvmlite", "networkx", "scipy", "safetensors", "kiln.codegen.pipeline")


def run(script: str, folder: str) -> str:
    """What one fresh interpreter prints."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"KILN_CACHE_DIR": folder}
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env).stdout


def seconds(script: str, folder: str) -> float:
    """Wall time of one fresh interpreter."""
    started = time.perf_counter()
    run(script, folder)
    return time.perf_counter() - started


def measure(warm: str, empty: Path) -> dict[str, float]:
    """The least seconds of every script."""
    best: dict[str, float] = {}
    for name, script in WARM.items():
        run(script, warm)
        best[name] = float("inf")
    for k in range(RUNS):
        for name, script in WARM.items():
            best[name] = min(best[name], seconds(script, warm))
        for name, script in COLD.items():
            best[name] = min(best.get(name, float("inf")), seconds(script, str(empty / f"{k}{len(name)}")))
    return best


def loaded(script: str, folder: str) -> str:
    """Which heavy modules a script leaves in sys.modules."""
    return run(f"{script}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules], sep=', ')", folder).strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        warm = str(Path(folder) / "warm")
        best = measure(warm, Path(folder))
        print(f"fresh interpreters, least of {RUNS} runs")
        for name, time_taken in best.items():
            heavy = loaded(WARM[name], warm) or "none" if name in WARM else "those that make code"
            print(f"  {name:40}{time_taken * 1e3:8.1f} ms   heavy modules: {heavy}")


if __name__ == "__main__":
    main()
