"""Makes tests/golden/autocast.json with PyTorch: the result dtypes of functions in autocast regions.

Run by hand where PyTorch is installed: `python tests/tools/make_autocast.py`. The tests read the file only. GPUs are
PyTorch's fake ones: tensors without data, for which it decides all it would.

For each device, dtype of the region, and call of `tests/frontend/amp_cases.py`: the dtypes of the results (those that
are tensors) by mix of operands, joined by spaces; `-` where PyTorch refuses, `?` where it can't be had (by a fake GPU).
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]
from torch._subclasses.fake_tensor import FakeTensorMode  # type: ignore[import-not-found]
from torch.utils._pytree import tree_leaves  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "golden" / "autocast.json"
sys.path.insert(0, str(ROOT / "frontend"))

from amp_cases import CASES, MIXES, Case, numbers, value  # noqa: E402


def told(case: Case, mix: str, device: str, low: str) -> str:
    """The dtypes of the results of one call."""
    result = outcome(case, mix, device, low, True)
    return "?" if result == "-" and outcome(case, "float32", device, low, False) == "-" else result


def outcome(case: Case, mix: str, device: str, low: str, enabled: bool) -> str:
    """The same; `-` for an error."""
    operands = []
    for k, (shape, regular) in enumerate(zip(case.shapes, case.regular, strict=True)):
        dtype = low if mix == "low" or (mix == "mixed" and not k) else "float64" if mix == "float64" else "float32"
        x = torch.tensor(numbers(shape, regular), device=device).reshape(shape).to(getattr(torch, dtype))
        operands.append(x)

    def i(*values: int) -> Any:
        return torch.tensor(values, device=device)

    names = {"t": torch, "F": torch.nn.functional, "i": i}
    torch.set_autocast_enabled(device, enabled)
    torch.set_autocast_dtype(device, getattr(torch, low))
    try:
        made = value(case, names, operands)
    except (RuntimeError, NotImplementedError, IndexError, AssertionError):
        return "-"
    finally:
        torch.set_autocast_enabled(device, False)
    return " ".join(str(x.dtype).removeprefix("torch.") for x in tree_leaves(made) if isinstance(x, torch.Tensor))


def main() -> None:
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"made with": f"PyTorch {torch.__version__.split('+')[0]}", "mixes": MIXES}
    for device, low in (("cpu", "bfloat16"), ("cpu", "float16"), ("cuda", "float16"), ("cuda", "bfloat16")):
        with FakeTensorMode() if device == "cuda" else contextlib.nullcontext():
            table = {case.name: [told(case, mix, device, low) for mix in MIXES] for case in CASES}
        found[f"{device} {low}"] = table
    OUT.write_text(json.dumps(found, indent=1).replace("\n   ", " ").replace("\n  ]", "]") + "\n")


if __name__ == "__main__":
    main()
