"""Differential fuzzing: random programs, eager against compiled bit for bit, and against float64 NumPy.

    python tests/tools/fuzz.py --n 20000 --jobs 2   the full run
    python tests/tools/fuzz.py --n 60 --faults      also plants faults and demands that each is found
    python tests/tools/fuzz.py --seed 1234 --n 1    one program again, printed when it fails

Programs are of two families, in turn: `fuzz_programs` (checked against float64) and `fuzz_table` (every public
function, every dtype, writes, random numbers). Each program runs eagerly and in two of three ways through
`kiln.compile` (forward with backward outside, everything inside one program, split in the middle with shared inputs),
with 1, 2, 3 or 7 threads, for the x86-64 levels with FMA that this machine has; the seed decides (`fuzz_check`).
Prints how often each op and each kind of view was hit; exit status 1 on any difference.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_check import Difference, check, draw
from fuzz_jobs import Outcome, cache_of_a_run, run_here, run_workers
from fuzz_programs import ARITH, COMPARE
from fuzz_table import TABLE, OracleDifference
from fuzz_table_draw import UNTABLED, draw_table, public

import kiln
from kiln.ir.ops import OPS

INTERNAL = frozenset(
    {"fusion", "detach", "cond", "while_loop", "scan", "conv2d_direct", "conv2d_input_direct", "addmm"}
)
"""Primitives that no captured program of these holds: code generation makes them, or control flow does, of which
`tests/frontend/test_control_random.py` makes random programs."""

LONG = 20_000
"""Programs from which on each row of the table is demanded."""
MORE = 100
"""Programs of a row alone, at most."""


class Report:
    """What all programs together did; shows progress."""

    def __init__(self, n: int, stop_after: int) -> None:
        self.n, self.stop_after = n, stop_after
        self.done = self.faults = self.checked = 0
        self.hits: collections.Counter[str] = collections.Counter()
        self.views: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.primitives: collections.Counter[str] = collections.Counter()
        self.dtypes: set[tuple[str, str]] = set()
        self.started = time.perf_counter()

    def add(self, out: Outcome) -> bool:
        """Whether to go on."""
        self.done += 1
        self.checked += out.checked
        self.hits.update(out.hits)
        self.views.update(out.views)
        self.refused.update(out.refused)
        self.primitives.update(out.primitives)
        self.dtypes |= out.dtypes
        if out.fault:
            self.faults += 1
            print(f"{self.clear()}seed {out.seed}: {out.fault}", flush=True)
        if sys.stdout.isatty():
            print(f"\r{self.state()}", end="", flush=True)
        elif self.done % 1000 == 0:
            print(self.state(), flush=True)
        return self.faults < self.stop_after

    def count(self, name: str) -> int:
        return self.hits[name] or self.views[name] or self.primitives[name.removeprefix("primitive ")]

    def clear(self) -> str:
        return "\r\x1b[K" if sys.stdout.isatty() else ""

    def state(self) -> str:
        seconds = time.perf_counter() - self.started
        return f"{self.done}/{self.n} programs, {self.faults} differences, {seconds:.0f} s"

    def summary(self, whole: bool) -> int:
        """Prints the tables; returns how many faults there are, counting what was hit too rarely."""
        print(self.clear(), end="")
        tables = {"ops": self.hits, "views, layouts and writes": self.views, "primitives": self.primitives}
        for title, table in tables.items():
            print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(table.items())))
        needed = {*ARITH, *COMPARE} | (set(TABLE) - set(UNTABLED) if whole else set())
        rare = sorted(n for n in needed if self.hits[n] < 20) + [v for v in sorted(self.views) if self.views[v] < 20]
        if whole:
            rare += [f"primitive {n}" for n in sorted({*OPS} - INTERNAL) if self.primitives[n] < 20]
        print(f"{len(self.dtypes)} pairs of a row of the table and a dtype")
        undrawn = sorted(public() - set(TABLE))
        for what, times in self.refused.most_common(40):
            print(f"refused {times} times: {what}")
        if undrawn:
            print(f"public functions that no row of the table draws: {', '.join(undrawn)}")
            self.faults += whole
        if self.n >= 2000 and rare:
            print(f"hit fewer than 20 times: {', '.join(f'{n} ({self.count(n)})' for n in rare)}")
            self.faults += 1
        each = (time.perf_counter() - self.started) / max(1, self.done)
        print(f"{self.done} programs, {self.checked} also compared with float64 NumPy, {each:.3f} s each: "
              f"{self.faults} differences")  # fmt: skip
        return self.faults


def fuzz(n: int, seed: int, stop_after: int, family: str, jobs: int, thorough: bool) -> int:
    """Run n programs; returns the number that differ. After a long run each row that it hit seldom has programs of its
    own: those that are defined for few dtypes, of which many draws are refused."""
    report, seeds = Report(n, stop_after), range(seed, seed + n)
    whole = n >= LONG or (family == "table" and n >= LONG // 2)
    with cache_of_a_run():
        if jobs == 1:
            run_here(seeds, family, thorough, report.add)
        else:
            run_workers(seeds, jobs, family, thorough, report.add)
        if whole and report.faults < stop_after:
            add_seldom(report, seed, thorough)
    return report.summary(whole)


def add_seldom(report: Report, seed: int, thorough: bool) -> None:
    """Programs of one row each, until it was hit often enough."""
    for row in sorted(set(TABLE) - set(UNTABLED)):
        for k in range(MORE):
            if report.hits[row] >= 20:
                break
            run_here(range(seed + k, seed + k + 1), row, thorough, report.add)


def find_faults(seed: int, limit: int) -> int:
    """Plant each fault in turn and fuzz until it is found; returns how many were not."""
    from fuzz_faults import FAULTS

    missed = 0
    os.environ["KILN_CACHE"] = "0"  # programs with a fault in them must not be found again
    for name, fault in FAULTS.items():
        with fault.plant():
            found = None
            for k in range(limit):
                try:
                    program = draw_table(seed + k, fault.rows) if fault.rows else draw(seed + k, "oracle")
                    check(program, seed + k)
                except (Difference, OracleDifference, kiln.KilnError) as difference:
                    found = (k + 1, str(difference).splitlines()[0])
                    break
        missed += found is None
        told = f"found by program {found[0]}: {found[1]}" if found else "NOT FOUND"
        print(f"planted fault {name}: {told}", flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=("both", "oracle", "table"), default="both")
    parser.add_argument("--faults", action="store_true", help="also plant faults and demand that each is found")
    parser.add_argument("--only-faults", action="store_true")
    parser.add_argument("--stop-after", type=int, default=5, help="give up after so many differences")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run the programs in")
    parser.add_argument("--thorough", action="store_true", help="every program in all ways, not in two of them")
    args = parser.parse_args()
    failures = 0
    if not args.only_faults:
        failures = fuzz(args.n, args.seed, args.stop_after, args.family, args.jobs, args.thorough)
    if args.faults or args.only_faults:
        failures += find_faults(args.seed, 400)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
