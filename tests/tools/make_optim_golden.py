"""Write `tests/golden/optim.json`: what torch's optimisers and schedules give in the runs of `optim_cases.py`.

Usage, where torch is installed: PYTHONPATH=. python tests/tools/make_optim_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.frontend import optim_cases as cases

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "optim.json"


def main() -> None:
    torch.set_default_dtype(torch.float64)  # so that counters and rates are kept in float64, as kiln keeps them
    golden = {
        "torch": torch.__version__,
        "optimisers": [cases.optimised(torch, *case, torch.float64) for case in cases.OPTIMISERS],
        "float32": [cases.optimised(torch, *case, torch.float32) for case in cases.OPTIMISERS],
        "matrices": [cases.of_matrices(torch, *case, torch.float64) for case in cases.MATRICES],
        "LBFGS": [cases.valley(torch, options) for options in cases.LBFGS],
        "schedules": {name: cases.scheduled(torch, name) for name in cases.SCHEDULES},
    }
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
