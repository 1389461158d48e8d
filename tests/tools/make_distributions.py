"""Write `tests/golden/distributions.json`: what torch's distributions say in the cases of `distribution_cases.py`.

Usage, where torch is installed: PYTHONPATH=. python tests/tools/make_distributions.py
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.frontend import distribution_cases as cases

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "distributions.json"


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def rounded(x: Any) -> Any:
    """To 15 digits, which is what is compared."""
    return [rounded(y) for y in x] if isinstance(x, list) else float(f"{x:.15g}") if isinstance(x, float) else x


def main() -> None:
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    D = torch.distributions
    golden: dict[str, Any] = {"torch": torch.__version__}
    golden["distributions"] = {name: cases.described(D, tensor, name) for name in cases.DISTRIBUTIONS}
    golden["repr"] = {name: cases.text(make(D, tensor)) for name, (make, _) in cases.DISTRIBUTIONS.items()}
    golden["transforms"] = {name: cases.transformed(D, tensor, name) for name in cases.TRANSFORMS}
    golden["constraints"] = {name: cases.constrained(D, tensor, name) for name in cases.CONSTRAINTS}
    golden["divergences"] = {
        f"{p}, {q}": found
        for family in (cases.PAIRS, cases.PAIRS_OF_VECTORS)
        for p in family
        for q in family
        if (found := divergence(D, p, q)) is not None
    }
    for table in ("distributions", "transforms", "constraints"):
        golden[table] = {name: {k: rounded(v) for k, v in told.items()} for name, told in golden[table].items()}
    golden["divergences"] = {name: rounded(v) for name, v in golden["divergences"].items()}
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def divergence(D: Any, p: str, q: str) -> Any:
    """None where there is no rule, or shapes don't fit."""
    try:
        found = cases.divergence(D, tensor, p, q)
    except (RuntimeError, ValueError):
        return None
    return None if found == "not implemented" else found


if __name__ == "__main__":
    main()
