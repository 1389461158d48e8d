"""Writes `tests/golden/indexing.json`: 300 random reads and writes by index, with what torch makes of them.

Run it with a Python that has torch: `python tests/tools/make_indexing.py`. Tensors count 0, 1, 2, ... from their first
element. An index is a list of items: an int, null, "...", {"slice": [a, b, c]}, {"list": [...]}, {"tensor": [...]},
{"mask": [...]} (a bool tensor), {"bool": true}. Writes never hit an element twice: torch leaves open who wins.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parent.parent / "golden" / "indexing.json"
COUNT = 300


def nested(rng: random.Random, shape: list[int], draw: Any) -> Any:
    return draw() if not shape else [nested(rng, shape[1:], draw) for _ in range(shape[0])]


def random_item(rng: random.Random, left: list[int], common: list[int]) -> tuple[Any, int]:
    """An item for the dimensions that are left, and how many it uses."""
    kind = rng.choices(["int", "slice", "none", "list", "tensor", "number", "mask", "bool"], [4, 6, 2, 3, 6, 1, 2, 1])[
        0
    ]
    if kind == "none":
        return None, 0
    if kind == "bool":
        return {"bool": rng.random() < 0.7}, 0
    if not left:
        return None, 0
    n = left[0]
    bad = rng.random() < 0.02

    def position() -> int:
        return rng.choice([n, -n - 1, n + 3]) if bad or not n else rng.randint(-n, n - 1)

    if kind == "int":
        return position(), 1
    if kind == "slice":
        ends = [rng.choice([None, rng.randint(-n - 2, n + 2)]) for _ in range(2)]
        return {"slice": [*ends, rng.choice([None, 1, 1, 2, 3, -1 if bad else 1])]}, 1
    if kind == "mask":
        used = rng.choice([1, 1, min(2, len(left))])
        shape = [m + 1 if bad else m for m in left[:used]]
        return {"mask": nested(rng, shape, lambda: rng.random() < 0.5)}, used
    if kind == "number":
        return {"tensor": position()}, 1
    shape = [1 if rng.random() < 0.2 else m for m in common[rng.choice([0, 0, -1]) :]]
    if kind == "list":
        return {"list": nested(rng, shape[-1:], position)}, 1
    return {"tensor": nested(rng, shape, position)}, 1


def random_index(rng: random.Random, shape: list[int]) -> list[Any]:
    left, items, common = list(shape), [], [rng.randint(1, 3) for _ in range(rng.randint(1, 2))]
    dots = rng.random() < 0.25
    for _ in range(rng.randint(0 if dots else 1, 4)):
        item, used = random_item(rng, left, common)
        items.append(item)
        left = left[used:]
    if dots:
        items.insert(rng.randint(0, len(items)), "...")
    return items


def decoded(item: Any) -> Any:
    if not isinstance(item, dict):
        return ... if item == "..." else item
    ((kind, what),) = item.items()
    if kind == "slice":
        return slice(*what)
    if kind == "tensor":
        return torch.tensor(what, dtype=torch.int64)
    return torch.tensor(what, dtype=torch.bool) if kind == "mask" else what


def counted(shape: list[int]) -> torch.Tensor:
    n = 1
    for m in shape:
        n *= m
    return torch.arange(n).reshape(shape)


def value_for(rng: random.Random, shape: list[int]) -> Any:
    """A number, or a tensor that broadcasts to `shape`; rarely one that does not."""
    if rng.random() < 0.3:
        return -7
    cut = [1 if rng.random() < 0.25 else n for n in shape[rng.randint(0, len(shape)) if rng.random() < 0.4 else 0 :]]
    if rng.random() < 0.1:
        cut = [1, *cut]
    if rng.random() < 0.05:
        cut = [*cut, 7]
    return {"shape": cut}


def case(rng: random.Random, write: bool) -> dict[str, Any] | None:
    shape = [rng.choice([0, 1, 2, 2, 3, 3, 4, 5]) for _ in range(rng.choice([0, 1, 2, 2, 3, 3, 3, 4]))]
    index = random_index(rng, shape)
    found: dict[str, Any] = {"shape": shape, "index": index}
    x, key = counted(shape), tuple(decoded(i) for i in index)
    try:
        result = x[key]
    except (IndexError, ValueError) as error:
        if rng.random() < 0.5:
            return None
        return {**found, "error": "ValueError" if isinstance(error, ValueError) else "IndexError"}
    if not write:
        return {**found, "result": list(result.shape), "data": result.flatten().tolist()}
    if result.unique().numel() != result.numel():
        return None
    value = value_for(rng, list(result.shape))
    x = counted(shape)
    try:
        x[key] = -100 - counted(value["shape"]) if isinstance(value, dict) else value
    except RuntimeError:
        return {**found, "value": value, "error": "RuntimeError"}
    return {**found, "value": value, "data": x.flatten().tolist()}


def main() -> None:
    rng, cases = random.Random(20), []
    while len(cases) < COUNT:
        made = case(rng, len(cases) >= COUNT // 2)
        if made is not None:
            cases.append(made)
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
