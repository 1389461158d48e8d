"""Random programs whose control flow depends on tensor data: compiled, each call must leave the world as eager's does.

    python tests/tools/fuzz_flow.py [--n 200] [--seed 0]

A program is a function of three tensors over a tensor and a parameter of its module: arithmetic, in-place writes,
random draws, masks, gradients taken inside, and `if`, `for`, `break`, `continue`, early `return` and `raise` on
questions about data. Every other one is of the kind that is staged: without gradients and with few writes in place,
with `while`, ternaries, conditions joined by `and` and `or`, and Python numbers that branches and loops change. It is
called ten times with inputs that come again, so that known ways are gone again after new ones were found. Compared,
bit for bit: results, arguments, the module's tensors, gradients, the generator's state, exceptions.
"""

from __future__ import annotations

import argparse
import linecache
import random
import sys
import time
import warnings
from collections import Counter
from typing import Any

import kiln
from kiln.errors import CaptureWarning

CALLS = 10
START = (0.5, -0.5, 1.0)


class Writer:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.quiet = seed % 2 == 1
        self.loops = 0
        self.lines: list[str] = []

    def source(self) -> str:
        self.lines = ["def f(x, y, y2):", "    z = x * y", "    n, r, ok = 0, 0.5, False"]
        self.block(1, 0, False, self.random.randint(3, 7))
        self.lines.append(f"    return x * 1, y, z, y2{', n, r, ok' if self.quiet else ''}")
        return "\n".join(self.lines) + "\n"

    def block(self, indent: int, depth: int, looping: bool, count: int) -> None:
        for _ in range(count):
            self.statement("    " * indent, indent, depth, looping)

    def name(self) -> str:
        return self.random.choice(["x", "y", "y2", "z"])

    def question(self) -> str:
        a, b = self.name(), self.name()
        forms = [
            f"{a}.sum() > {b}.sum()",
            f"({a} > 0.3).any()",
            f"bool({a}[0] < {b}[1])",
            f"{a}.mean() < 0.1",
            f"int({a}[1] > 0) == 1",
            f"not ({b} > 0).all()",
            f"{a}.abs().sum() > 1.5 and {b}.min() < 0.2",
            f"kiln.nonzero({a} > 0).shape[0] > 1",
        ]
        if self.quiet:
            forms = [f for f in forms if not f.startswith(("int", "kiln"))]
            forms += ["n > 1", "ok", "not ok", f"{a}.sum() > r", f"n < 2 or {a}.max() > 0.5", "r < 0.7 and n >= 1"]
            forms += [f"-0.5 < {a}.sum() < 1", f"n % 2 == 0 and {a}.sum() < 1", f"0 < n < {a}.abs().sum()"]
        return self.random.choice(forms)

    def number(self) -> str:
        """A statement about Python numbers."""
        forms = [
            "n += 1", "n = n + 2", "n -= 1", "r = r + 0.25", "r = r * 0.5 + n", "ok = not ok", "ok = True", "n = 0",
            f"ok = bool({self.name()}.sum() > 0)", f"r = r if {self.question()} else 0.1", "n = n * 2", "n = int(r)",
            f"n = n + 1 if {self.question()} else n", "r = n / 4", "r = float(n)", "ok = n == 1", "n = n // 2",
        ]  # fmt: skip
        return self.random.choice(forms)

    def expression(self) -> str:
        a, b = self.name(), self.name()
        if self.quiet and self.random.random() < 0.3:
            made = [f"{a} * n", f"{a} + r", f"{a} if {self.question()} else {b} * 0.5", f"{a} / (n + 3)", f"r - {a}"]
            return self.random.choice([*made, a, f"{a}[1:].sum() * {b}", f"kiln.where(ok, {a}, {b})", f"{a} + ok"])
        forms = [
            f"{a} + {b}",
            f"{a} * 0.5 - {b}",
            f"kiln.tanh({a})",
            f"{a}.exp().clamp(max=3.0)",
            f"kiln.maximum({a}, {b})",
            f"{a}.flip(0)",
            f"{a} * state",
            f"kiln.where({a} > {b}, {a}, -{b})",
            f"{a}.detach() * {b}",
            f"w * {a}",
            f"{a} + kiln.rand(3) * 0.1",
            f"{a} * min(3, int(({b} > 0).sum()))",
            f"kiln.cat([{a}[{b} > 0], kiln.zeros(3)])[:3]",
            f"{a} + kiln.autograd.grad((w * {b}.detach()).exp().sum(), w)[0].clamp(-1, 1)",
        ]
        if self.quiet:
            forms = [f for f in forms if "grad" not in f]
        return self.random.choice(forms)

    def statement(self, pad: str, indent: int, depth: int, looping: bool) -> None:
        kind = self.random.random()
        if self.quiet and kind < 0.2:
            self.lines.append(pad + self.number())
        elif self.quiet and 0.60 <= kind < 0.65:
            self.lines.append(f"{pad}if {self.question()}: return {self.name()} * 1, y, z, y2, n, r, ok")
        elif self.quiet and 0.45 <= kind < 0.60 and self.random.random() < 0.9:
            self.lines.append(f"{pad}{self.name()}, {self.name()} = {self.expression()}, {self.expression()}")
        elif kind < 0.45:
            self.lines.append(f"{pad}{self.name()} = {self.expression()}")
        elif kind < 0.55:
            target = self.random.choice(["x", "y2", "state"])
            how = self.random.choice(["add_", "mul_"])
            self.lines.append(f"{pad}{target}.{how}({self.name()}.detach().clamp(-1, 1) * 0.5)")
        elif kind < 0.60:
            self.lines.append(f"{pad}state[{self.random.randint(0, 2)}] = {self.name()}.detach().sum().clamp(-2, 2)")
        elif kind < 0.65:
            self.lines.append(f"{pad}if {self.question()}: return {self.name()}, {self.name()} * 1")
        elif kind < 0.67:
            self.lines.append(f"{pad}if {self.question()}: raise ValueError('no')")
        elif kind < 0.72 and looping:
            self.lines.append(f"{pad}if {self.question()}: {self.random.choice(['break', 'continue'])}")
        elif depth < 2:
            self.nested(pad, indent, depth, looping)
        else:
            self.lines.append(f"{pad}{self.name()} = {self.expression()}")

    def nested(self, pad: str, indent: int, depth: int, looping: bool) -> None:
        looped = self.random.random() < (0.5 if self.quiet else 0.3)
        head = f"for _{depth} in range({self.random.randint(1, 3)}):" if looped else f"if {self.question()}:"
        if looped and self.quiet:
            self.loops += 1
            turns = f"i{self.loops}"
            bound = self.random.choice([f"{turns} < 3", f"{turns} < 2 + n", f"n + {turns} < 4 and {turns} < 5"])
            question = self.random.choice([f"{bound} and ({self.question()})", f"({self.question()}) and {turns} < 4"])
            which = self.random.random()
            if which < 0.6:
                self.lines += [f"{pad}{turns} = 0", f"{pad}while {question}:", f"{pad}    {turns} += 1"]
                head = ""
            elif which < 0.8:
                head = f"for {turns} in range(({self.name()}.abs().sum() * 2).long().clamp(max=4)):"
            elif which < 0.9:
                head = f"for {turns} in {self.name()}:"
        if head:
            self.lines.append(pad + head)
        self.block(indent + 1, depth + 1, looping or looped, self.random.randint(1, 3))
        if not looped and self.random.random() < 0.6:
            self.lines.append(f"{pad}else:")
            self.block(indent + 1, depth + 1, looping, self.random.randint(1, 3))


def shown(x: Any) -> Any:
    """All there is to see of a value."""
    if isinstance(x, kiln.Tensor):
        grad = None if x.grad is None else shown(x.grad)
        return x.detach().numpy().tobytes(), tuple(x.shape), x.requires_grad, grad
    return repr(x)


def run(source: str, seed: int, compiled: bool) -> tuple[list[Any], Any]:
    """What the calls showed, and (compiled) the report."""
    file = f"<flow {seed}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    kiln.manual_seed(seed)
    state, w = kiln.tensor(START), kiln.tensor([0.1, 0.2, -0.3], requires_grad=seed % 2 == 0)
    space: dict[str, Any] = {"kiln": kiln, "__name__": "flow", "state": state, "w": w}
    exec(compile(source, file, "exec"), space)
    function = kiln.compile(space["f"]) if compiled else space["f"]
    choose = random.Random(seed + 1)
    pool = [[round(choose.uniform(-1.5, 1.5), 2) for _ in range(9)] for _ in range(4)]
    log = []
    for k in range(CALLS):
        numbers = pool[k % 4] if k < 4 else choose.choice(pool)
        x, y, y2 = (kiln.tensor(numbers[i : i + 3]) for i in (0, 3, 6))
        y.requires_grad_(seed % 6 == 0)
        if k % 4 == 0:
            state.copy_(kiln.tensor(START))
            kiln.manual_seed(seed + k)
        try:
            returned = function(x, y, y2)
            if k % 2 and returned[0].requires_grad:
                returned[0].sum().backward()
        except Exception as error:  # noqa: BLE001 (whatever it is, both must raise it)
            returned = (type(error).__name__,)
        seen = (*returned, x, y, y2, state, w, kiln.default_generator.state)
        log.append([shown(t) for t in seen])
    return log, function.report() if compiled else None


def check(seed: int, counts: Counter[str]) -> str:
    """One program; what differs, or nothing."""
    source = Writer(seed).source()
    eager, _ = run(source, seed, False)
    compiled, report = run(source, seed, True)
    for kind in ("compiled", "staged", "decided", "captured", "eager"):
        counts[kind] += getattr(report, kind)
    wrong = next((k for k, (a, b) in enumerate(zip(eager, compiled, strict=True)) if a != b), None)
    return "" if wrong is None else f"seed {seed}, call {wrong}:\n{source}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore", CaptureWarning)
    counts: Counter[str] = Counter()
    wrong, start = 0, time.monotonic()
    for seed in range(options.seed, options.seed + options.n):
        difference = check(seed, counts)
        if difference:
            wrong += 1
            print(difference, flush=True)
        if (seed - options.seed) % 100 == 99 and sys.stderr.isatty():
            print(f"{seed - options.seed + 1}/{options.n}", file=sys.stderr)
    told = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    print(f"{options.n} programs, {wrong} differences; calls: {told}; {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
