"""What starting costs: `import kiln`, and a first compiled result, in fresh interpreters; the least of 20 runs each.

python tests/benchmarks/bench_import.py
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 20
FIRST_RESULT = (
    "import kiln\n"
    "f = kiln.compile(lambda x, w: kiln.softmax(kiln.tanh(x @ w), 1))\n"
    "x = kiln.ones(8, 64); w = kiln.ones(64, 32)\n"
    "f(x, w); f(x, w)"
)
SCRIPTS = {
    "nothing": "pass",
    "import numpy": "import numpy",
    "import kiln": "import kiln",
    "import kiln, one tensor": "import kiln; kiln.ones(2)",
    "first compiled result, warm cache": FIRST_RESULT,
}
HEAVY = ("llvmlite", "networkx", "scipy", "safetensors")


def seconds(script: str) -> float:
    """Wall time of one fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True)
    return time.perf_counter() - started


def loaded(script: str) -> list[str]:
    """Which heavy packages a script leaves in sys.modules."""
    tail = f"\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", script + tail], check=True, capture_output=True, text=True
    ).stdout.split()


def main() -> None:
    best = {name: float("inf") for name in SCRIPTS}
    for _ in range(RUNS):
        for name, script in SCRIPTS.items():
            best[name] = min(best[name], seconds(script))
    print(f"fresh interpreters, least of {RUNS} runs")
    for name, time_taken in best.items():
        heavy = ", ".join(loaded(SCRIPTS[name])) or "none"
        print(f"  {name:36}{time_taken * 1e3:8.1f} ms   heavy modules: {heavy}")


if __name__ == "__main__":
    main()
