"""Run the cases of `tests/frontend/nn/golden_cases.py` in PyTorch and store what it computes in `tests/golden/nn.json`.

Usage (in an environment with PyTorch): python tests/tools/make_nn_golden.py

Everything is float64. Per case: the inputs, the state (drawn anew), the results, the gradients of
sum(result * cos(0, 1, 2, ...)) over all floating point results, and the buffers afterwards.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/nn.json"


def cases() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("golden_cases", ROOT / "tests/frontend/nn/golden_cases.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.CASES
    return found


def drawn(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers with few digits, so that text holds them exactly."""
    if kind.startswith("c"):
        return torch.randint(0, int(kind[1:]), shape)
    if kind == "s":
        return torch.randint(0, 2, shape).double() * 2 - 1
    if kind == "b":
        return torch.rand(shape) < 0.3
    if kind == "m":
        return torch.where(torch.rand(shape) < 0.3, -math.inf, 0.0).double()
    if kind == "f":
        return torch.round(torch.randn(shape).double(), decimals=3)
    p = torch.round(torch.rand(shape).double() * 0.9 + 0.05, decimals=3)
    if kind == "dist":
        return p / p.sum(1, keepdim=True)
    return torch.log(p) if kind == "lp" else p


def made(text: Any) -> Any:
    if isinstance(text, list):
        return tuple(made(t) for t in text)
    kind, _, sizes = text.rstrip("!").partition(" ")
    if kind == "o":
        return torch.tensor([int(n) for n in sizes.split(",")])
    x = drawn(kind, tuple(int(n) for n in sizes.split(",")) if sizes else ())
    return x.requires_grad_(x.is_floating_point() and not text.endswith("!"))


def stored(x: Any) -> Any:
    if x is None:
        return None
    if isinstance(x, torch.Tensor):
        flat = [float(f"{v:.13g}") if isinstance(v, float) else v for v in x.detach().reshape(-1).tolist()]
        return {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape), "data": flat}
    if isinstance(x, (tuple, list)):
        return [stored(v) for v in x]
    return x


def tensors(x: Any) -> list[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        return [x]
    return [t for v in x for t in tensors(v)] if isinstance(x, (tuple, list)) else []


def argument(x: Any, kept: list[Any]) -> Any:
    if isinstance(x, dict):
        t = made(x["tensor"] + "!")
        kept.append(stored(t))
        return t
    return x


def run(case: Any) -> dict[str, Any]:
    what, args, kwargs, inputs, options = case
    given = [made(text) for text in inputs]
    result: dict[str, Any] = {"inputs": stored(given)}
    kept: list[Any] = []
    args = [argument(x, kept) for x in args]
    kwargs = {k: argument(x, kept) for k, x in kwargs.items()}
    call = {k: argument(x, kept) for k, x in options.get("call", {}).items()}
    result["arguments"] = kept
    named: dict[str, torch.Tensor] = {}
    if what.startswith("F."):
        function = getattr(torch.nn.functional, what[2:])
        out = function(*given, *args, **kwargs)
    else:
        module = getattr(torch.nn, what)(*args, **kwargs).double()
        module.train(not options.get("eval", False))
        for name, x in module.state_dict().items():
            if x.is_floating_point():
                x.copy_(drawn("p" if name.endswith("running_var") else "f", tuple(x.shape)) * 0.5)
        result["state"] = {k: stored(v) for k, v in module.state_dict().items()}
        for _ in range(options.get("calls", 1)):
            module.zero_grad()
            out = module(*given, **call)
        named = dict(module.named_parameters())
        result["after"] = {k: stored(v) for k, v in module.named_buffers()}
    result["outputs"] = stored(out)
    total = torch.zeros((), dtype=torch.float64)
    for t in tensors(out):
        if t.requires_grad:
            total = total + (t.reshape(-1) * torch.cos(torch.arange(t.numel(), dtype=torch.float64))).sum()
    if total.requires_grad:
        total.backward()
    result["grads"] = [stored(x.grad) for x in tensors(given)]
    result["parameter_grads"] = {k: stored(p.grad) for k, p in named.items()}
    return result


def main() -> None:
    found = {}
    for name, case in cases().items():
        torch.manual_seed(sum(map(ord, name)))
        found[name] = run(case)
    text = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in found.items())
    OUT.write_text("{\n" + text + "\n}\n")
    print(f"{len(found)} cases, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
