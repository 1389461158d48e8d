"""Writes the programs of `fuzz_effects.py`: a function full of effects, and a row of steps that call it.

A program is text made from templates (`fuzz_effects_table.py`): `<e>` stands for an expression that gives a tensor of
shape (3,), `<t>` for a tensor to write to, and so on. Each program draws from some families of templates only, so that
these meet often. What is written is a tree of lines: a smaller program is one with some of them left out.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzz_effects_table import (
    ALIASED,
    CALLS,
    CHANGES,
    CONSTANTS,
    FORMS,
    FUNCTION,
    PLAIN,
    POSTS,
    PRELUDE,
    QUESTIONS,
    RETURNS,
    STATEMENTS,
    VECTORS,
    WRITES,
    Form,
)

import kiln

CALLED = 10
"""Calls of one program."""
DOORS = {
    "compile": kiln.compile,
    "fullgraph": functools.partial(kiln.compile, fullgraph=True),
    "script": kiln.jit.script,
}
"""What compiles programs."""
_CODE = {
    "compile": "kiln.compile",
    "fullgraph": "lambda f: kiln.compile(f, fullgraph=True)",
    "script": "kiln.jit.script",
}
TURNS = ("compile", "compile", "compile", "fullgraph", "script")
WORD = re.compile(r"\b(?:box|Box|LIST|DICT|SET|G|COUNT|LIMITS|net|opt|kiln|X|Y)\b")
HOLE = re.compile(r"<([a-z])>")


@dataclass
class Line:
    """A line of a program; with a body, the head of a block."""

    text: str
    body: list[Line] | None = None

    def render(self, indent: int) -> Iterator[str]:
        yield "    " * indent + self.text
        if self.body is not None:
            for line in self.body or [Line("pass")]:
                yield from line.render(indent + 1)


def paths(body: list[Line], before: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Where the lines stand, from top to bottom; an empty body has one, too."""
    for k, line in enumerate(body):
        yield (*before, k)
        yield from paths(line.body or ([Line("pass")] if line.body is not None else []), (*before, k))


def at(body: list[Line], path: tuple[int, ...]) -> Line:
    """The line that stands there."""
    for k in path[:-1]:
        body = body[k].body or []
    return body[path[-1]]


def exists(body: list[Line], path: tuple[int, ...]) -> bool:
    """Whether there is such a line."""
    for k in path[:-1]:
        body = body[k].body or []
    return path[-1] < len(body)


def cut(body: list[Line], path: tuple[int, ...], keep: bool = False) -> None:
    """Take out a line; `keep`: what stood below it stays."""
    for k in path[:-1]:
        body = body[k].body or []
    line = body[path[-1]]
    body[path[-1] : path[-1] + 1] = (line.body or []) if keep else []


@dataclass
class Step:
    """What is done before a call, the call, and what is done to its result."""

    before: list[str]
    call: str
    after: list[str]
    without_gradients: bool = False


@dataclass
class Program:
    """See the module. `how`: what of the program is compiled."""

    seed: int
    how: str
    body: list[Line]
    steps: list[Step]
    families: tuple[str, ...] = field(default=())

    @property
    def door(self) -> Callable[[Any], Any]:
        """What compiles it."""
        return DOORS[TURNS[self.seed % len(TURNS)]]

    def source(self) -> str:
        """The function, which stands below `PRELUDE` and above the steps."""
        head, tail = FUNCTION.split("        ...\n")
        lines = [text for line in self.body or [Line("pass")] for text in line.render(2)]
        return head + "\n".join(lines) + "\n" + tail + FORMS[self.how]

    def line(self, number: int) -> tuple[int, ...] | None:
        """Where a line of the source stands in `body`."""
        before = FUNCTION.split("        ...\n")[0].count("\n")
        found = list(paths(self.body))
        path = found[number - before - 1] if before < number <= before + len(found) else None
        return path if path is not None and exists(self.body, path) else None

    def short(self) -> str:
        """What differs from program to program."""
        lines = [text for line in self.body for text in line.render(0)]
        for k, step in enumerate(self.steps):
            inside = "; with no_grad" if step.without_gradients else ""
            lines.append(f"step {k}{inside}: {'; '.join([*step.before, step.call, *step.after])}")
        return f"[{self.how}, {TURNS[self.seed % len(TURNS)]}]\n" + "\n".join(lines) + "\n"

    def script(self) -> str:
        """The program as a file that runs: eagerly with an argument, else compiled."""
        lines = ["import sys", "", "import kiln", "", f"door = {_CODE[TURNS[self.seed % len(TURNS)]]}", ""]
        lines += ["jit = (lambda f: f) if sys.argv[1:] else door", ""]
        lines += [f"kiln.manual_seed({self.seed})", PRELUDE, self.source()]
        lines += ["R = OLD = None"]
        for step in self.steps:
            lines += [*step.before, "OLD = R", "try:"]
            if step.without_gradients:
                lines += ["    with kiln.no_grad():", f"        R = {step.call}"]
            else:
                lines += [f"    R = {step.call}"]
            lines += [*(f"    {a}" for a in step.after)]
            lines += ["except Exception as error:", "    R = error"]
            lines += ["print(repr(R), [vars(box), vars(net), G, COUNT, LIST, DICT, cells(), kiln.get_rng_state()])"]
        return "\n".join(lines) + "\n"


def write(seed: int, families: Sequence[str] = ()) -> Program:
    """The program of a seed, from some families of templates."""
    return _Writer(seed, families).program()


class _Writer:
    def __init__(self, seed: int, families: Sequence[str]) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        share = self.random.choice([0.25, 0.4, 0.7])
        drawn = [name for name in STATEMENTS if self.random.random() < share]
        writes = self.random.sample(list(WRITES), self.random.choice([0, 0, 1, 1, 2]))
        self.families = list(families) or [*drawn, *writes]
        self.table = {**STATEMENTS, **WRITES}
        self.views = 0
        self.quiet = self.random.random() < 0.3
        """Whether branches and loops do nothing but compute, so that they can be staged."""

    def program(self) -> Program:
        how = self.random.choices(list(FORMS), [12, 3, 3, 2, 2])[0]
        body = [Line("z = z * net.w")] if self.random.random() < 0.3 else []
        body += self.block(0, self.random.choice([2, 3, 4, 6]))
        returns = RETURNS if "numbers" not in self.families or self.random.random() < 0.6 else ["return z * 1, k"]
        body.append(Line(self.fill(self.random.choice(returns), 0)))
        text = " ".join(line for each in body for line in each.render(0))
        return Program(self.seed, how, body, self.steps(text), tuple(self.families))

    # -------------------------------------------------------------------------------------- statements

    def block(self, depth: int, count: int, looping: bool = False) -> list[Line]:
        lines: list[Line] = []
        for _ in range(count):
            lines += self.statement(depth, looping)
        return lines

    def statement(self, depth: int, looping: bool) -> list[Line]:
        kind = self.random.random()
        if self.quiet and depth and kind > 0.24:
            quiet = [*["<l> = <e>"] * 3, "k = k + 1", "k = <i> * k", "<l>, <l> = <v>, <e>", "z = z * k"]
            return [Line(self.fill(self.random.choice(quiet), 0))]
        if depth < 2 and kind < 0.14:
            return self.branch(depth, looping)
        if depth < 2 and kind < 0.18:
            return self.loop(depth)
        if looping and kind < 0.24:
            return [Line(f"if {self.question(0)}:", [Line(self.random.choice(["break", "continue"]))])]
        if not self.families or kind < 0.45:
            return [Line(self.fill("<l> = <e>", 0))]
        return self.lines(self.random.choice(self.table[self.random.choice(self.families)]), depth)

    def lines(self, form: Form, depth: int) -> list[Line]:
        """A template: lines, of which those that end with a colon take what is indented below them."""
        roots: list[Line] = []
        stack: list[tuple[int, list[Line]]] = [(-1, roots)]
        for text in form.split("\n"):
            indent = len(text) - len(text.lstrip())
            while stack[-1][0] >= indent:
                stack.pop()
            if text.strip() == "<b>":
                stack[-1][1].extend(self.block(depth + 1, self.random.randint(1, 2)))
                continue
            line = Line(self.fill(text.strip(), 0))
            stack[-1][1].append(line)
            if text.endswith(":"):
                line.body = []
                stack.append((indent, line.body))
        return roots

    def branch(self, depth: int, looping: bool) -> list[Line]:
        count = self.random.randint(1, 2)
        lines = [Line(f"if {self.question(0)}:", self.block(depth + 1, count, looping))]
        if self.random.random() < 0.2:
            lines.append(Line(f"elif {self.question(0)}:", self.block(depth + 1, 1, looping)))
        if self.random.random() < 0.5:
            lines.append(Line("else:", self.block(depth + 1, count, looping)))
        return lines

    def loop(self, depth: int) -> list[Line]:
        heads = (
            "for i in range(<i>):",
            "for u in box.items:",
            "for u, r in zip(box.items, [x, y]):",
            "for i, u in enumerate(LIST):",
            "for name, u in DICT.items():",
            "for i in range(min(3, int((<v> > 0).sum()))):",
            "for u in <v>:",
            "for i in range(box.n % 3):",
        )
        lines = [Line(self.fill(self.random.choice(heads), 0), self.block(depth + 1, self.random.randint(1, 2), True))]
        if any("LIST.append" in text for text in lines[0].render(0)):  # or it might not end
            lines[0].text = lines[0].text.replace("(LIST)", "(LIST[:])")
        if self.random.random() < 0.25:
            turn = [Line(f"i{depth} += 1"), *(lines[0].body or [])]
            lines = [Line(f"i{depth} = 0"), Line(self.fill(f"while i{depth} < <i> and (<q>):", 0), turn)]
        if self.random.random() < 0.15:
            lines.append(Line("else:", self.block(depth + 1, 1)))
        return lines

    # ------------------------------------------------------------------------------------- expressions

    def fill(self, text: str, depth: int) -> str:
        return HOLE.sub(lambda hole: self.hole(hole[1], depth), text)

    def hole(self, kind: str, depth: int) -> str:
        choose = self.random.choice
        if kind == "e":
            text = self.fill(choose(VECTORS["simple" if depth else choose(["simple", *self.reading()])]), depth + 1)
            return f"({text})"
        if kind == "q":
            return self.question(depth)
        return {
            "v": lambda: choose(["x", "y", "z", "z", *self.reachable()]),  # to read
            "l": lambda: choose(["x", "y", "z", "z"]),  # a local variable
            "t": lambda: choose(["x", "y", "z", "v", *self.reachable()]),  # to write to
            "m": lambda: choose(["x", "y", "z", *self.reachable()]),  # likewise, but whole
            "i": lambda: choose(["1", "2", "3"]),
            "k": lambda: choose(CONSTANTS),
            "s": lambda: self.fill(choose(["<v>.sum()", "<v>.max()", "<v>[1]", "<v>.mean()"]), depth),
            "n": lambda: choose(["k", "box.n", "COUNT", "cell_n", 'LIMITS["n"]', "1", "2"]),
        }[kind]()

    def reading(self) -> Sequence[str]:
        return [name for name in VECTORS if name != "simple" and name in self.families]

    def reachable(self) -> list[str]:
        """Tensors from outside that this program looks at."""
        known = {
            "attributes": ["box.t", "box.items[0]"],
            "containers": ["LIST[0]", 'DICT["a"]'],
            "cells": ["cell_t"],
            "globals": ["G"],
            "statistics": ["net.mean"],
        }
        return [each for name, found in known.items() if name in self.families for each in found]

    def question(self, depth: int) -> str:
        return self.fill(self.random.choice(QUESTIONS), depth)

    # ------------------------------------------------------------------------------------------- steps

    def steps(self, body: str) -> list[Step]:
        kinds = [PLAIN, *self.random.choices([PLAIN, ALIASED, CALLS], [2, 3, 4], k=self.random.randint(1, 2))]
        calls = [self.random.choice(kind) for kind in kinds]
        seen = [c for c in CHANGES if re.search(rf"\b{WORD.findall(c)[-1 if 'no_grad' in c else 0]}\b", body)]
        changes = [self.random.choice(seen or CHANGES), self.random.choice(CHANGES)]
        often = self.random.choice([0.0, 0.1, 0.3])
        follow = self.random.choice([0.0, 0.5])
        made = []
        for k in range(CALLED):
            call = self.random.choice(calls) if k > 2 else calls[k // 2 % len(calls)]
            *before, call = call.split("; ")
            if k and self.random.random() < often:
                before += self.random.choice(changes).split("; ")
            after = [self.random.choice(POSTS)] if self.random.random() < follow else []
            numbers = self.random.choice([0, 0, 1, 2])
            call = call.replace("#", str(numbers))
            made.append(Step([b.replace("#", str(numbers)) for b in before], call, after, self.random.random() < 0.06))
        return made
