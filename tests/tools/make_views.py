"""Writes `tests/golden/views.json`: 100 random sequences of views and in-place writes, with what torch makes of them.

Run it from the repository with a Python that has torch: `python -m tests.tools.make_views`. A case is a shape (the
first tensor counts 0, 0.25, 0.5, ...), steps (see `tests/frontend/views.py`), and of every tensor at the end its shape,
values, strides and the first tensor whose memory it shares; the writes that are refused; and the gradient of `loss_of`,
or null where backward fails because something it needs was overwritten.

Left out is where kiln differs. Torch refuses some copies between parts of one memory, and others read what they have
just written (kiln reads first); it lets an op's result have the strides of its operand (in kiln it is row-major); it
fills expanded tensors and writes through their parts (kiln refuses); and it keeps the history of what was overwritten
altogether, so that backward may fail over memory that no gradient needs.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from tests.frontend.views import compute, loss_of, play, view_of, write_to

GOLDEN = Path(__file__).parent.parent / "golden" / "views.json"
COUNT = 100
FAILING = 12
"""Cases at the beginning whose backward fails."""


def random_view(rng: random.Random, x: torch.Tensor) -> tuple[str, list[Any]]:
    rank = x.ndim
    if not rank:
        return rng.choice([("unsqueeze", [0]), ("reshape", [1]), ("clone", [])])
    d, e = rng.randrange(rank), rng.randrange(rank)
    n = x.shape[d]
    kinds = "narrow select permute transpose reshape unsqueeze squeeze index index flatten contiguous detach"
    kind = rng.choice(
        [*kinds.split(), *(["diagonal"] * 2 if rank > 1 else []), *["unfold"] * (n > 1), "expand", "view"]
    )
    if kind == "narrow":
        start = rng.randrange(n)
        return kind, [d, start, rng.randint(1, n - start)]
    if kind == "select":
        return kind, [d, rng.randrange(-n, n)]
    if kind == "permute":
        return kind, rng.sample(range(rank), rank)
    if kind == "transpose":
        return kind, [d, e]
    if kind in ("reshape", "view"):
        return kind, [-1] if rng.random() < 0.5 else [x.shape[0], -1]
    if kind in ("unsqueeze", "squeeze"):
        return kind, [d]
    if kind == "index":
        return kind, [[rng.randrange(n), None, rng.choice([1, 2])] if k == d else [None] for k in range(d + 1)]
    if kind == "diagonal":
        return kind, [rng.choice([0, 0, 1, -1]), d, (d + 1) % rank]
    if kind == "unfold":
        size = rng.randint(1, n)
        return kind, [d, size, size]
    if kind == "expand":
        return kind, [rng.choice([1, 2]), *x.shape]
    return kind, []


def random_write(rng: random.Random, tensors: list[torch.Tensor], target: int) -> tuple[str, list[Any]]:
    kind = rng.choice(["add_", "mul_", "fill_", "zero_", "copy_", "copy_", "put", "fill-above", "add_tensor"])
    x = tensors[target]
    memory = x.untyped_storage().data_ptr()
    apart = [k for k, t in enumerate(tensors) if t.untyped_storage().data_ptr() != memory and t.ndim <= x.ndim]
    other = {"t": rng.choice([target, *apart, *apart])}
    if kind in ("copy_", "add_tensor"):
        return ("copy_" if kind == "copy_" else "add_"), [other]
    if kind == "zero_":
        return kind, []
    if kind == "put":
        n = x.shape[0] if x.ndim else 0
        return (kind, [rng.sample(range(n), rng.randint(1, n)), -3.0]) if n else ("fill_", [2.0])
    number = rng.choice([-1.0, 0.5, 2.0, 3.0])
    return kind, [rng.choice([1.0, 2.0]), number] if kind == "fill-above" else [number]


def random_steps(rng: random.Random, base: torch.Tensor) -> list[list[Any]]:
    """Steps that torch can take, or refuse when they write."""
    tensors, steps, stretched = [base], [], set[int]()
    while len(steps) < 9:
        what = rng.choice(["view", "view", "view", "write", "write", "compute"] if len(steps) > 1 else ["view"])
        target = rng.randrange(len(tensors))
        if target in stretched and what == "view":
            continue
        try:
            if what == "view":
                kind, args = random_view(rng, tensors[target])
                made = view_of(tensors[target], kind, args)
                if not made.numel() or (kind == "clone" and not made.is_contiguous()):
                    continue
                if 0 in made.stride():
                    stretched.add(len(tensors))
                tensors.append(made)
            elif what == "compute":
                kind = rng.choice(["exp", "sin", "square", "relu", "mul", "neg"])
                args = [target, rng.randrange(len(tensors))] if kind == "mul" else [target]
                made = compute(tensors, kind, args)
                if not made.is_contiguous():
                    continue
                tensors.append(made)
            else:
                kind, args = random_write(rng, tensors, target) if target not in stretched else ("mul_", [2.0])
                write_to(tensors, target, kind, args)
        except (RuntimeError, IndexError):
            if what != "write" or rng.random() < 0.5:
                continue
        steps.append([what, target, kind, args])
    return steps


def leaf_of(shape: list[int]) -> torch.Tensor:
    n = 1
    for m in shape:
        n *= m
    return (torch.arange(n, dtype=torch.float64) / 4).reshape(shape).requires_grad_()


WHOLE = ("fill_", "zero_", "copy_", "put")
"""Writes that may overwrite all of a tensor."""


def case(rng: random.Random) -> dict[str, Any] | None:
    shape = [rng.choice([1, 2, 3, 4]) for _ in range(rng.randint(1, 3))]
    steps = random_steps(rng, leaf_of(shape).clone())
    leaf = leaf_of(shape)
    tensors, refused = play(leaf.clone(), steps, (RuntimeError,))
    memory = [t.untyped_storage().data_ptr() for t in tensors]
    found: dict[str, Any] = {"shape": shape, "steps": steps, "refused": refused}
    found["tensors"] = [
        {"shape": list(t.shape), "values": [round(v, 9) for v in t.detach().flatten().tolist()], "strides": t.stride()}
        for t in tensors
    ]
    found["memory"] = [memory.index(p) for p in memory]
    try:
        loss_of(leaf, tensors).backward()
    except RuntimeError:
        return None if any(kind in WHOLE for _, _, kind, _ in steps) else {**found, "gradient": None}
    assert leaf.grad is not None
    return {**found, "gradient": [round(v, 9) for v in leaf.grad.flatten().tolist()]}


def main() -> None:
    rng, cases = random.Random(11), []
    while len(cases) < COUNT:
        made = case(rng)
        if made is not None and len(cases) < FAILING and made["gradient"] is not None:
            continue
        if made is not None and all(abs(v) < 1e6 for t in made["tensors"] for v in t["values"]):
            cases.append(made)
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
