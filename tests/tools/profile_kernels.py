"""Where the time of a compiled function goes: the processor's cycles of each kernel it calls.

    python tests/tools/profile_kernels.py [--rounds 200] [--threads 2]

profiles the training step of the demo's CNN; `profile` serves for any compiled function. The entry of the program is
given a counter per call: what a kernel takes by itself, least and median (in a loop, that of the last turn).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import kiln
from kiln import demo, dispatch, nn
from kiln.ir.graph import Constant
from kiln.ir.program import Module, Program, Slot

_CALL = re.compile(r"  %s(\d+) = call i32 @(\S+)\(")


def counted(program: Program) -> tuple[Program, np.ndarray[Any, Any], list[str]]:
    """The program with counters: what it is then, where the cycles of each call are added up, and the calls' names."""
    (symbol,), entry = program.entries, program.modules[-1]
    if not isinstance(symbol, str):
        raise ValueError(f"program {program.name} runs in a library: none of its kernels to count")
    lines: list[str] = []
    names: list[str] = []
    arena = program.slots[-1:] if program.arena_bytes else ()
    slot = len(program.slots) - len(arena)  # the arena comes last
    for line in entry.text.splitlines():
        if arena and line.startswith(f"  %slot{slot} = "):
            line = f"  %slot{slot} = getelementptr i64, ptr %args, i64 {slot + 1}"
        call = _CALL.match(line)
        if call is None:
            lines.append(line)
            if line == "start:":
                at = f"getelementptr i64, ptr %args, i64 {slot}"
                lines += [f"  %counters.slot = {at}", "  %counters = load ptr, ptr %counters.slot"]
            continue
        k, counter = call[1], len(names)  # branches and loops have numbers too, but no counter
        names.append(call[2])
        lines += [
            f"  %begin{k} = call i64 @llvm.readcyclecounter()",
            line,
            f"  %end{k} = call i64 @llvm.readcyclecounter()",
            f"  %spent{k} = sub i64 %end{k}, %begin{k}",
            f"  %counter{k} = getelementptr i64, ptr %counters, i64 {counter}",
            f"  store i64 %spent{k}, ptr %counter{k}",
        ]
    text = "\n".join([*lines, "declare i64 @llvm.readcyclecounter()", ""]).replace(f"@{symbol}(", f"@{symbol}_counted(")
    name = f"{symbol}_counted"
    counters = np.zeros(max(1, len(names)), np.int64)
    held = Constant(counters)
    module = Module(name, text, (name,), entry.imports)
    made = replace(
        program,
        modules=(*program.modules[:-1], module),
        entries=(name,),
        slots=(*program.slots[:slot], Slot("constant", len(program.constants)), *arena),
        constants=(*program.constants, held),
    )
    return made, held.data, names


def profile(function: Callable[[], object], compiled: Any, rounds: int) -> dict[str, tuple[float, float]]:
    """Of each kernel that `function`, which calls `compiled`, runs: least and median kilocycles."""
    function()
    function()
    found: dict[str, tuple[float, float]] = {}
    for region in compiled.regions():
        forward = region.compile()
        program, counters, names = counted(forward.program)
        kept, forward.executable = forward.executable, dispatch.load(program)
        taken = []
        for _ in range(rounds):
            function()
            taken.append(counters.copy())
        forward.executable = kept
        each = np.asarray(taken) / 1e3
        for k, name in enumerate(names):
            found[f"{k:3} {name}"] = (float(each[:, k].min()), float(np.median(each[:, k])))
    return found


def show(found: dict[str, tuple[float, float]]) -> None:
    """The kernels, dearest first."""
    total = sum(least for least, _ in found.values())
    for name, (least, median) in sorted(found.items(), key=lambda x: -x[1][0]):
        print(f"{least:10.1f} {100 * least / total:5.1f}% {median:10.1f}  {name}")
    print(f"{total:10.1f} thousand cycles in {len(found)} calls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    kiln.set_num_threads(options.threads)
    model = demo.make_cnn()
    optimizer = kiln.optim.Adam(model.parameters(), lr=2e-3)
    loss_fn = nn.CrossEntropyLoss()
    rng = np.random.default_rng(0)
    xs = kiln.from_numpy(rng.standard_normal((64, 64), np.float32))
    ys = kiln.from_numpy(rng.integers(0, 10, 64))

    def step(x: kiln.Tensor, y: kiln.Tensor) -> kiln.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = kiln.compile(step)
    show(profile(lambda: compiled(xs, ys), compiled, options.rounds))


if __name__ == "__main__":
    main()
