"""Python as it is written around tensors: containers, generators, contexts, exceptions, text."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


class Batch(NamedTuple):
    x: Any
    y: Any
    weight: Any = None


class Mode(Enum):
    MEAN = auto()
    SUM = auto()


@dataclass
class Config:
    scale: float = 1.0
    bias: Any = None
    mode: Mode = Mode.MEAN


@program
def named_tuples_in_and_out(c: Any) -> None:
    @c
    def step(batch: Batch) -> Batch:
        w = 1.0 if batch.weight is None else batch.weight
        return batch._replace(y=batch.y * w + batch.x, weight=batch.x.mean())

    b = Batch(draw(2), draw(2, seed=1))
    for _ in range(3):
        b = step(b)
    step(Batch(draw(3), draw(3)))


@program
def dataclass_of_settings(c: Any) -> None:
    @c
    def reduce(x: Any, config: Config) -> Any:
        x = x * config.scale
        if config.bias is not None:
            x = x + config.bias
        return x.mean() if config.mode is Mode.MEAN else x.sum()

    reduce(draw(3), Config())
    reduce(draw(3), Config(2.0, draw(3, seed=1)))
    reduce(draw(3), Config(mode=Mode.SUM))
    reduce(draw(3), Config(2.0, draw(3, seed=2)))


@program
def dataclass_returned(c: Any) -> None:
    @dataclass
    class Output:
        loss: Any
        parts: dict[str, Any]
        done: bool

    @c
    def step(x: Any, detail: bool) -> Output:
        a, b = x.square().mean(), x.abs().mean()
        return Output(a + b, {"a": a, "b": b} if detail else {}, bool(a > 1))

    for k, detail in ((1, True), (3, False), (1, True), (3, True)):
        out = step(vector(k, 0.5), detail)
        c.see(out.loss, out.done)


@program
def frozen_dataclass_replaced(c: Any) -> None:
    @dataclass(frozen=True)
    class State:
        x: Any
        v: Any
        t: float = 0.0

    @c
    def step(s: State, dt: float) -> State:
        return dataclasses.replace(s, x=s.x + dt * s.v, v=s.v - dt * s.x)

    s = State(vector(1), vector(0))
    for dt in (0.1, 0.2, 0.1):
        s = step(s, dt)


@program
def dictionary_of_tensors(c: Any) -> None:
    @c
    def total(parts: dict[str, Any], skip: tuple[str, ...] = ()) -> Any:
        return sum(v.sum() * (k + 1) for k, (name, v) in enumerate(sorted(parts.items())) if name not in skip)

    total({"b": draw(2), "a": draw(3)})
    total({"a": draw(3)})
    total({"a": draw(3), "b": draw(2)})
    total({"b": draw(2), "a": draw(3)}, ("b",))


@program
def dictionary_argument_extended(c: Any) -> None:
    @c
    def normalise(batch: dict[str, Any]) -> dict[str, Any]:
        batch["mean"] = batch["x"].mean()
        batch["x"] = batch["x"] - batch["mean"]
        return {k: v for k, v in batch.items() if k != "x"}

    for n in (2, 3, 2):
        b = {"x": draw(n, seed=n)}
        normalise(b)
        c.see(b)


@program
def grouped_by_key(c: Any) -> None:
    @c
    def group(x: Any, keys: list[str]) -> dict[str, Any]:
        groups = defaultdict(list)
        for row, key in zip(x, keys, strict=True):
            groups[key].append(row)
        return {k: kiln.stack(v).mean(0) for k, v in groups.items()}

    for keys in (["a", "b", "a"], ["b", "b", "b"], ["a", "b", "a"]):
        group(draw(3, 2), keys)


@program
def nested_containers(c: Any) -> None:
    def scale(tree: Any, by: Any) -> Any:
        if isinstance(tree, dict):
            return {k: scale(v, by) for k, v in tree.items()}
        if isinstance(tree, (list, tuple)):
            return type(tree)(scale(v, by) for v in tree)
        return tree * by

    f = c(scale)
    f({"a": [draw(2), (draw(1), 3.0)]}, 2.0)
    f([draw(2)], kiln.tensor(3.0))
    f({"a": [draw(2), (draw(1), 3.0)]}, 2.0)


@program
def generator_of_chunks(c: Any) -> None:
    def chunks(x: Any, size: int) -> Iterator[Any]:
        for k in range(0, len(x), size):
            yield x[k : k + size]

    @c
    def total(x: Any, size: int) -> Any:
        return sum(part.square().sum() * n for n, part in enumerate(chunks(x, size), 1))

    for n, size in ((4, 2), (5, 2), (4, 2)):
        total(draw(n), size)


@program
def generator_that_stops_on_data(c: Any) -> None:
    def halve(x: Any) -> Iterator[Any]:
        while x.abs().max() > 1:
            yield x
            x = x / 2

    @c
    def path(x: Any) -> list[Any]:
        return list(halve(x))

    for x in (vector(3, 1), vector(0.5), vector(3, 1), vector(2, 1)):
        path(x)


@program
def delegating_generators(c: Any) -> None:
    def leaves(tree: Any) -> Iterator[Any]:
        for item in tree:
            if isinstance(item, list):
                yield from leaves(item)
            else:
                yield item

    f = c(lambda tree: kiln.stack([x * n for n, x in enumerate(leaves(tree))]))
    f([draw(2), [draw(2), [draw(2)]]])
    f([draw(2)])
    f([draw(2), [draw(2), [draw(2, seed=1)]]])


@program
def comprehension_with_a_condition(c: Any) -> None:
    @c
    def pick(rows: list[Any], limit: float) -> Any:
        kept = [r * 2 for r in rows if r.sum() > limit]
        return kiln.stack(kept) if kept else None

    for limit in (0.0, 99.0, 0.0, -9.0):
        pick([draw(2, seed=k) for k in range(3)], limit)


@program
def sets_and_dicts_comprehended(c: Any) -> None:
    @c
    def sizes(x: Any) -> Any:
        values = {int(v) for v in x}
        return {k: (x == k).sum() for k in sorted(values)}

    for x in ([1, 2, 1], [3, 3, 3], [1, 2, 1]):
        sizes(kiln.tensor(x))


@program
def sorted_by_a_tensor(c: Any) -> None:
    @c
    def rank(items: dict[str, Any]) -> list[str]:
        return sorted(items, key=lambda k: -items[k].norm())

    rank({"a": vector(1), "b": vector(2)})
    rank({"a": vector(3), "b": vector(2)})
    rank({"a": vector(1), "b": vector(2)})


@program
def any_and_all_over_tensors(c: Any) -> None:
    @c
    def check(parts: list[Any]) -> Any:
        if any(p.isnan().any() for p in parts):
            return "nan"
        if all((p > 0).all() for p in parts):
            return kiln.stack(parts).sum()
        return max(p.max() for p in parts)

    nan = float("nan")
    for parts in ((1, 2), (-1, 2), (nan, 1), (1, 2), (-1, 2)):
        check([vector(p) for p in parts])


@program
def unpacking(c: Any) -> None:
    layer = linear()

    @c
    def f(*xs: Any, scale: float = 1.0, **named: Any) -> Any:
        first, *rest = xs
        (a, b), last = first, rest[-1] if rest else None
        out = layer(kiln.stack([a, b])) * scale
        for value in named.values():
            out = out + value
        return out if last is None else (out, last)

    f(draw(2))
    f(draw(2), draw(1), scale=2.0)
    f(draw(2), z=draw(2, seed=1), y=1.0)
    f(draw(2))
