"""Random Python programs full of effects: compiled, each call must leave the world as eager's does.

    python tests/tools/fuzz_effects.py [--n 200] [--seed 0] [--jobs 1] [--strict] [--codegen] [--faults]

A program is a function of tensors that reads and writes arguments, attributes, containers, globals, closure cells,
modules and gradients, prints, raises, draws random numbers, asks about data, and differentiates. It is called ten
times, with arguments and state that come again and vary. Two worlds are built, one compiled; after each call they are
compared bit for bit: results and their identities and memory, arguments, everything that is reachable, what was printed
and raised, the generator, modes. A program that differs is made smaller and printed.

Most programs are compiled with `kiln.compile`, some with `fullgraph=True` (with `--strict`, all) or `kiln.jit.script`,
where a call may also be refused: what is not refused must be equal.
`--codegen`: graphs are compiled, too, instead of run op by op.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from typing import Any

from fuzz_effects_faults import FAULTS
from fuzz_effects_run import difference, draw, interpreting, smaller
from fuzz_effects_write import Program


def check(seed: int, strict: bool, counts: Counter[str], short: bool = False) -> str:
    """One program; what differs, with the program made smaller, or nothing."""
    program, expected = draw(seed)
    counts["programs"] += 1
    found = attempt(program, strict, counts, expected)
    if not found:
        return ""
    kind = kind_of(found)
    program = smaller(program, lambda p: kind_of(attempt(p, strict)) == kind)
    return f"# seed {seed}: {attempt(program, strict)}\n{program.short() if short else program.script()}"


def attempt(
    program: Program, strict: bool, counts: Counter[str] | None = None, expected: list[Any] | None = None
) -> str:
    """What differs; an error of the compiler's own is a difference, too."""
    try:
        return difference(program, strict, counts, expected)
    except SyntaxError:
        raise
    except Exception:  # noqa: BLE001  (whatever it is, it is a fault)
        return f"step ?, : crash: {traceback.format_exc()}"


def kind_of(found: str) -> str:
    """What kind of difference it is, so that a smaller program differs likewise."""
    return ":".join(found.split(": ", 2)[1:2])


def run(seeds: range, strict: bool, codegen: bool, short: bool, counts: Counter[str]) -> int:
    """How many programs differ."""
    wrong = 0
    with contextlib.nullcontext() if codegen else interpreting():
        gc.collect()
        gc.freeze()
        gc.disable()  # it takes long and comes often, since compiled functions switch it on and off
        for seed in seeds:
            if seed % 50 == 0:
                gc.collect()
            found = check(seed, strict, counts, short)
            if found:
                wrong += 1
                print(found, flush=True)
    return wrong


def found_after(name: str, seeds: range) -> int:
    """How many programs it takes until one differs because of a planted fault; 0 when none of these does."""
    fault = FAULTS[name]
    with interpreting(), fault.plant():
        return next(
            (k for k, seed in enumerate(seeds, 1) if attempt(draw(fault.first + seed, fault.families)[0], False)), 0
        )


def _part(task: tuple[range, bool, bool, bool]) -> tuple[int, Counter[str]]:
    counts: Counter[str] = Counter()
    return run(*task, counts), counts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--codegen", action="store_true")
    parser.add_argument("--faults", action="store_true", help="plant faults: each must be found")
    parser.add_argument("--short", action="store_true", help="print less of a program that differs")
    options = parser.parse_args(argv)
    seeds = range(options.seed, options.seed + options.n)
    if options.faults:
        found = {name: found_after(name, seeds) for name in FAULTS}
        print("\n".join(f"{name}: {f'program {n}' if n else 'not found'}" for name, n in found.items()))
        return 0 if all(found.values()) else 1
    start = time.monotonic()
    if options.jobs > 1:  # in small parts: a process grows with what it has run
        parts = [
            (seeds[k : k + 250], options.strict, options.codegen, options.short) for k in range(0, len(seeds), 250)
        ]
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=4) as pool:
            done = list(pool.imap_unordered(_part, parts))
    else:
        done = [_part((seeds, options.strict, options.codegen, options.short))]
    wrong = sum(n for n, _ in done)
    counts = sum((c for _, c in done), Counter[str]())
    told = ", ".join(f"{n} {kind}" for kind, n in counts.items() if kind != "programs")
    print(f"{options.n} programs, {wrong} differences; calls: {told}; {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
