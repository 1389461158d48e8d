"""Runs programs of effects, eagerly and compiled, tells where they differ, and makes a differing one smaller.

What is under test is capture: what a compiled call does to the world. So captured graphs run op by op with the kernels
that eager calls use, unless the code generator is wanted too; it decides the speed of everything.
"""

from __future__ import annotations

import contextlib
import copy
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any
from unittest import mock

import numpy as np
from fuzz_effects_world import Refused, World
from fuzz_effects_write import DOORS, Program, at, cut, exists, paths, write

import kiln
from kiln import compiled, dispatch, dynamic, region, tree
from kiln.base import layout_of
from kiln.errors import KilnError
from kiln.ir.graph import Graph
from kiln.ir.interpreter import walk
from kiln.ir.ops.base import OPS
from kiln.ir.passes.generalise import instance
from kiln.ir.types import CPU
from kiln.runtime.targets import host_target


class Uncompiled:
    """In place of `kiln.compiled.Code`: the graph itself."""

    reused = ()

    def __init__(
        self,
        graph: Graph,
        strides: Sequence[Any],
        name: str,
        fills: Sequence[Any] = (),
        donated: Sequence[int] = (),
        device: Any = None,
    ) -> None:
        self.graph = graph
        self.fills = tuple(fills)
        self.seconds = 0.0
        self.program = self.executable = None
        self.sizes = ()

    def told(self) -> str:
        return ""


class Interpreted:
    """In place of `kiln.compiled.Compiled`: runs a graph op by op."""

    def __init__(
        self, code: Uncompiled, numbers: Mapping[str, Any] | None = None, places: Mapping[int, Any] | None = None
    ) -> None:
        self.numbers = numbers = numbers or {}
        self.code = code
        self.graph = graph = self.concrete_for(code.graph, numbers)
        self.program = self.executable = self
        self.target = host_target()
        self.held = [compiled._holding(numbers[name], t.at(numbers), CPU) for name, t in code.fills]
        self.aliases = [(a.output, a.input) for a in graph.aliases]
        aliased = {o for o, _ in self.aliases}
        self.layouts = [
            None if k in aliased else layout_of(v.type.dtype, v.type.static_shape())
            for k, v in enumerate(graph.outputs)
        ]

    @staticmethod
    def concrete_for(graph: Graph, numbers: Mapping[str, Any]) -> Graph:
        return instance(graph, numbers) if numbers else graph

    def concrete(self, graph: Graph) -> Graph:
        """`graph` for the numbers of this."""
        return self.concrete_for(graph, self.numbers)

    def run(self, inputs: Sequence[Any], execute: Any = dispatch.execute) -> list[Any]:
        try:
            found = walk(
                self.graph, [*inputs, *self.held], lambda op, operands: dispatch.run(op.op, operands, op.attrs)
            )
        except KilnError as error:
            if execute is dispatch.execute:
                raise
            raise dispatch.CheckFailed(str(error)) from None
        taken = {id(t._buffer) for t in inputs}
        aliased = dict(self.aliases)
        for k, t in enumerate(found):
            fresh = t._layout.contiguous and not t._flags and t._ptr == t._buffer.ptr and id(t._buffer) not in taken
            if k in aliased or not fresh:
                found[k] = dispatch.run(OPS["copy"], (t,), {})[0]
            taken.add(id(found[k]._buffer))
        for o, i in self.aliases:
            np.copyto(inputs[i]._array(), found[o]._array())
        return [None if k in aliased else t._buffer for k, t in enumerate(found)]


@contextlib.contextmanager
def interpreting() -> Iterator[None]:
    """Captured graphs run op by op inside."""
    with (
        mock.patch.multiple(region, Code=Uncompiled, Compiled=Interpreted),
        mock.patch.multiple(tree, Code=Uncompiled, Compiled=Interpreted),
        mock.patch.object(dynamic, "Code", Uncompiled),
        mock.patch.object(dispatch, "fetch_choice", lambda graph, options, sources, choose: choose()),
    ):
        yield


def draw(seed: int, families: Sequence[str] = ()) -> tuple[Program, list[Any] | None]:
    """The program of a seed, without lines that mostly raise where they were not meant to; and how the eager world
    looks after its steps, if that is known."""
    program = write(seed, families)
    for _ in range(6):
        world = World(program, lambda f: f)
        looks = [world.step(step) for step in program.steps]
        line, often = max(world.raised.items(), key=itemgetter(1), default=(0, 0))
        path = program.line(line)
        if often < 3 or path is None or at(program.body, path).text.startswith(("raise", "assert")):
            return program, looks
        shorter = _changed(program, lambda p, path=path: cut(p.body, path))
        try:
            compile(shorter.source(), "<shorter>", "exec")
        except SyntaxError:  # an `if` without which its `else` can't be
            return program, looks
        program = shorter
    return program, None


def difference(
    program: Program, strict: bool = False, counts: Counter[str] | None = None, expected: list[Any] | None = None
) -> str:
    """Where the compiled program leaves the world otherwise than the eager one; nothing where it never does.
    `expected`: how the eager one looks after each step, if that is known."""
    made: list[Any] = []
    door = DOORS["fullgraph"] if strict else program.door

    def jit(f: Any) -> Any:
        made.append(door(f))
        return made[-1]

    if expected is None:
        eager = World(program, lambda f: f)
        expected = [eager.step(step) for step in program.steps]
    world = World(program, jit)
    try:
        for k, step in enumerate(program.steps):
            found = world.step(step)
            if found != expected[k]:
                return f"step {k}, {step.call}: {told(expected[k], found)}"
    except Refused as error:
        if door is kiln.compile:
            return f"step {k}, {step.call}: refused: {error}"
        if counts is not None:
            counts["refused"] += 1
    if counts is not None:
        for f in made:
            report = f.report()
            for kind in ("compiled", "staged", "decided", "captured", "eager"):
                counts[kind] += getattr(report, kind)
    return ""


def told(expected: Any, found: Any) -> str:
    """What differs, in a line."""
    for what, a, b in zip(("raised", "printed"), expected, found, strict=False):
        if a != b:
            return f"{what}: {a!r}, compiled {b!r}"
    for when, a, b in zip(("after the call", "at the end"), expected[2:], found[2:], strict=True):
        for name in a or ():
            if a[name] != b[name]:
                return f"{when}: {name} is {a[name]}, compiled {b[name]}"
    return "?"


# ------------------------------------------------------------------------------------- smaller programs


def smaller(program: Program, fails: Callable[[Program], bool], seconds: float = 60.0) -> Program:
    """The program without what it takes not to fail."""
    end = time.monotonic() + seconds
    again = True
    while again and time.monotonic() < end:
        again = False
        for attempt in _attempts(program):
            if time.monotonic() > end:
                break
            if _fails(attempt, fails):
                program, again = attempt, True
                break
    return program


def _fails(program: Program, fails: Callable[[Program], bool]) -> bool:
    try:
        return fails(program)
    except SyntaxError:
        return False


def _attempts(program: Program) -> Iterator[Program]:
    """Programs with something left out."""
    for k in reversed(range(len(program.steps))):
        yield _changed(program, lambda p, k=k: p.steps.pop(k))
    for path in [p for p in paths(program.body) if exists(program.body, p)]:
        if re.fullmatch(r"i\d \+= 1", at(program.body, path).text):
            continue  # without it a loop might not end
        yield _changed(program, lambda p, path=path: cut(p.body, path))
        if at(program.body, path).body:
            yield _changed(program, lambda p, path=path: cut(p.body, path, keep=True))
    for k, step in enumerate(program.steps):
        for n in range(len(step.before)):
            yield _changed(program, lambda p, k=k, n=n: p.steps[k].before.pop(n))
        if step.after:
            yield _changed(program, lambda p, k=k: p.steps[k].after.clear())
        if step.without_gradients:
            yield _changed(program, lambda p, k=k: setattr(p.steps[k], "without_gradients", False))
    if program.how != "function":
        yield _changed(program, lambda p: setattr(p, "how", "function"))


def _changed(program: Program, change: Callable[[Program], Any]) -> Program:
    made = copy.deepcopy(program)
    change(made)
    return made
