"""Differential fuzzing: random programs, eager against compiled bit for bit, and against float64 NumPy.

    python tests/tools/fuzz.py --n 2000             the full run
    python tests/tools/fuzz.py --n 60 --faults      also plants five faults and demands that each is found
    python tests/tools/fuzz.py --seed 1234 --n 1    one program again, printed when it fails

Programs are of two families, in turn: `fuzz_programs` (checked against float64) and `fuzz_table` (every public
function, every dtype, writes, random numbers). Each program runs eagerly and through `kiln.compile` (forward with
backward outside, everything inside one program, and split in the middle with shared inputs) with 1, 2, 3 and 7
threads, for every x86-64 level that this machine has. Prints how often each op and each kind of view was hit; exit
status 1 on any difference.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_programs import ARITH, COMPARE, FLOATS, Array, Dual, Generator, Instr, Program, Scalar, index_of
from fuzz_table import TABLE, Call, OracleDifference, TableProgram
from fuzz_table_draw import UNTABLED, draw_table, eager_only, public, refused

import kiln
from kiln.ir.halves import is_float
from kiln.runtime import targets, threads

THREADS = (1, 2, 3, 7)
TOLERANCE = {"float32": 2e-3, "float64": 1e-9}  # relative to the largest value seen: long chains of rounding


class Difference(Exception):
    """Two runs that must agree do not."""


# --------------------------------------------------------------------------------- running on kiln


AnyProgram = Program | TableProgram


def apply(instr: Instr | Call, values: list[Any]) -> Any:
    """One instruction on kiln tensors."""
    if isinstance(instr, Call):
        return instr.run(*[values[k] for k in instr.args])
    a = [x.value if isinstance(x, Scalar) else values[x] for x in instr.args]
    op = instr.op
    match op:
        case "sum" | "mean" | "amax" | "amin":
            return getattr(kiln, op)(a[0], dim=instr.attr("dim"), keepdim=instr.attr("keepdim"))
        case "softmax" | "log_softmax":
            return getattr(kiln, op)(a[0], dim=instr.attr("dim"))
        case "reshape":
            return a[0].reshape(instr.attr("shape"))
        case "permute":
            return a[0].permute(instr.attr("dims"))
        case "expand":
            return a[0].expand(instr.attr("shape"))
        case "index":
            return a[0][index_of(instr.attr("index"))]
        case "cat":
            return kiln.cat(a, dim=instr.attr("dim"))
        case "cast":
            to = instr.attr("dtype")
            return a[0].to(kiln.bool if to == "bool" else getattr(kiln, to))
        case "cross_entropy":
            return kiln.nn.functional.cross_entropy(a[0], a[1])
        case "add" | "sub" | "mul" | "div":
            x, y = a
            return {"add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y, "div": lambda: x / y}[op]()
        case _:
            return getattr(kiln, op)(*a)


def lay_out(x: Array, layout: str) -> Any:
    """A kiln tensor equal to x whose memory is laid out as asked."""
    if layout == "transposed" and x.ndim >= 2:
        return kiln.from_numpy(np.swapaxes(x, 0, -1).copy()).transpose(0, -1)
    if layout == "stepped" and x.ndim >= 1:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return kiln.from_numpy(wide)[..., ::2]
    if layout == "offset" and x.ndim >= 1:
        tall = np.zeros((x.shape[0] + 3, *x.shape[1:]), x.dtype)
        tall[2 : 2 + x.shape[0]] = x
        return kiln.from_numpy(tall)[2 : 2 + x.shape[0]]
    return kiln.from_numpy(np.array(x))


def fresh_inputs(program: AnyProgram, grads: bool) -> list[Any]:
    if isinstance(program, TableProgram):
        kiln.manual_seed(program.seed)
    tensors = [lay_out(x, how) for x, how in zip(program.inputs, program.layouts, strict=True)]
    if grads:
        for t in tensors:
            if t.dtype.is_floating_point:
                t.requires_grad_()
    return tensors


def run_range(program: AnyProgram, values: list[Any], start: int, stop: int) -> list[Any]:
    """Instructions start..stop over a list of all earlier values; returns the list, extended."""
    values = list(values)
    for instr in program.instrs[start:stop]:
        out = apply(instr, values)
        values.extend(out if isinstance(out, tuple | list) else [out])
    return values


def loss_of(program: AnyProgram, outputs: list[Any]) -> Any:
    """A scalar that depends on every float output: linearly where float64 says what the gradient is, else such that
    its gradient is not the same everywhere."""
    total: Any = None
    for k, out in enumerate(outputs):
        if out.dtype.is_floating_point:
            each = out * (k + 1.5) if isinstance(program, Program) else out * out * 0.5
            term = each.sum().to(kiln.float64)
            total = term if total is None else total + term
    return total


def write_back(program: AnyProgram, inputs: list[Any], values: list[Any]) -> None:
    """In-place updates of the inputs, as an optimiser would do them."""
    with kiln.no_grad():
        for i, j, kind in program.writes:
            value = values[j].detach()
            if kind == "slice" and inputs[i].ndim and inputs[i].shape[0] > 1:
                inputs[i][1:] = value[1:]
            elif kind in ("add_", "mul_"):
                getattr(inputs[i], kind)(value)
            else:
                inputs[i].copy_(value)


Result = list[Array | None]


def collect(outputs: list[Any], inputs: list[Any]) -> Result:
    """Everything that must agree: outputs, gradients, and the inputs as they are afterwards."""
    result: Result = [o.detach().numpy().copy() for o in outputs]
    for t in inputs:
        result.append(None if t.grad is None else t.grad.numpy().copy())
        result.append(t.detach().numpy().copy())
    return result


def backward(program: AnyProgram, outputs: list[Any]) -> None:
    loss = loss_of(program, outputs)
    if loss is not None and loss.requires_grad:
        loss.backward()


def run_eager(program: AnyProgram) -> Result:
    inputs = fresh_inputs(program, True)
    values = run_range(program, inputs, 0, len(program.instrs))
    outputs = [values[i] for i in program.outputs]
    backward(program, outputs)
    write_back(program, inputs, values)
    return collect(outputs, inputs)


def run_forward(program: AnyProgram) -> Iterator[Result]:
    """Forward compiled, backward and writes outside; capture, then a warm call."""

    @kiln.compile
    def forward(*inputs: Any) -> list[Any]:
        return run_range(program, list(inputs), 0, len(program.instrs))

    for _ in range(2):
        inputs = fresh_inputs(program, True)
        values = forward(*inputs)
        outputs = [values[i] for i in program.outputs]
        backward(program, outputs)
        write_back(program, inputs, values)
        yield collect(outputs, inputs)


def run_whole(program: AnyProgram) -> Iterator[Result]:
    """Forward, backward and in-place writes in one program."""

    @kiln.compile
    def whole(*inputs: Any) -> list[Any]:
        values = run_range(program, list(inputs), 0, len(program.instrs))
        outputs = [values[i] for i in program.outputs]
        backward(program, outputs)
        write_back(program, list(inputs), values)
        return [o.detach() for o in outputs]

    for _ in range(2):
        inputs = fresh_inputs(program, True)
        yield collect(whole(*inputs), inputs)


def run_split(program: AnyProgram) -> Iterator[Result]:
    """The middle third compiled, the rest eager, all sharing values: gradients must fold in one order."""
    n = len(program.instrs)
    a, b = n // 3, n - n // 3

    @kiln.compile
    def middle(*values: Any) -> list[Any]:
        return run_range(program, list(values), a, b)[len(values) :]

    for _ in range(2):
        inputs = fresh_inputs(program, True)
        values = run_range(program, inputs, 0, a)
        values = run_range(program, [*values, *middle(*values)], b, n)
        outputs = [values[i] for i in program.outputs]
        backward(program, outputs)
        write_back(program, inputs, values)
        yield collect(outputs, inputs)


# ------------------------------------------------------------------------------------- comparing


def same_bits(a: Array | None, b: Array | None) -> bool:
    """Equal bit for bit; NaNs count as equal whatever their payload."""
    if a is None or b is None:
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not is_float(a.dtype):
        return bool(np.array_equal(a, b))
    both_nan = (a != a) & (b != b)
    raw = np.dtype(f"u{a.dtype.itemsize}")
    x, y = np.ascontiguousarray(a).view(raw), np.ascontiguousarray(b).view(raw)
    return bool(np.all((x == y) | both_nan))


def demand_same(want: Result, got: Result, what: str) -> None:
    for k, (a, b) in enumerate(zip(want, got, strict=True)):
        if not same_bits(a, b):
            raise Difference(f"{what}: result {k} differs\n  eager    {a!r}\n  compiled {b!r}")


def demand_close(program: Program, got: Result) -> None:
    """Eager against float64: outputs, and the gradient along the program's direction."""
    slope, total, size = 0.0, 0.0, 1.0
    worst = "float64"
    for k, i in enumerate(program.outputs):
        want, have = program.values[i], got[k]
        assert have is not None
        if shows_write(program, i):
            size = float("inf")  # neither this value nor its part of the gradient can be told
        elif want.dtype in FLOATS and want.v.size:
            scale = max(1.0, float(max(np.abs(v.v).max() for v in program.values if v.dtype in FLOATS and v.v.size)))
            precision = lowest(program)
            gap = float(np.abs(have.astype(np.float64) - want.v).max())
            if not gap <= TOLERANCE[precision] * scale:
                raise Difference(f"output {k} is off by {gap:g} from float64")
            worst = precision
            slope += (k + 1.5) * float(want.tangent().sum())
            size = max(size, float(np.abs(want.tangent()).sum()) * (k + 1.5))
        elif not np.array_equal(have, want.v):
            raise Difference(f"output {k} differs from NumPy")
    for i, d in enumerate(program.direction):
        grad = got[len(program.outputs) + 2 * i]
        if grad is not None:
            total += float((grad.astype(np.float64) * d).sum())
            size = max(size, float(np.abs(grad.astype(np.float64) * d).sum()))
    biggest = max([1.0, *(float(np.abs(v.tangent()).max()) for v in program.values if v.t is not None and v.v.size)])
    if not abs(slope - total) <= 10 * TOLERANCE[worst] * max(size, biggest):
        raise Difference(f"gradient along the direction is {total:.9g}, float64 says {slope:.9g}")


def demand_types(program: Program, got: Result) -> None:
    for k, i in enumerate(program.outputs):
        want, have = program.values[i], got[k]
        assert have is not None
        if have.dtype.name != want.dtype or have.shape != want.shape:
            raise Difference(f"output {k} is {have.dtype}{have.shape}, expected {want.dtype}{want.shape}")


def shows_write(program: Program, i: int) -> bool:
    """Whether value i is memory of an input that the program overwrites at its end."""
    written = {k for k, *_ in program.writes}
    first = len(program.inputs)
    while i >= first and (program.instrs[i - first].view or _is_itself(program, program.instrs[i - first])):
        i = program.instrs[i - first].args[0]
    return i in written


def _is_itself(program: Program, instr: Instr) -> bool:
    """A cast to the dtype that its operand has gives the operand."""
    return instr.op == "cast" and program.values[instr.args[0]].dtype == instr.attr("dtype")


def lowest(program: Program) -> str:
    """The least precise float dtype that occurs."""
    return "float32" if any(v.dtype == "float32" for v in program.values) else "float64"


def levels() -> list[Any]:
    """The x86-64 levels with FMA that this machine can run, highest first."""
    host = targets.detect()
    return [host, targets.named("avx2")] if host.vector_bits == 512 else [host]


def not_refused(results: Iterator[Result]) -> Iterator[Result]:
    """The results of a mode; none where kiln says that it does not take inputs that overlap and are written."""
    try:
        yield from results
    except kiln.CaptureError as error:
        if "share memory, and one of them is written in place" not in str(error):
            raise
        refused["shared memory written"] += 1


def check(program: AnyProgram, turn: int, modes: list[Callable[[AnyProgram], Iterator[Result]]]) -> None:
    """All runs of one program; raises Difference."""
    want: Result | None = None
    for k, level in enumerate(levels()):
        with targets.use_target(level):
            threads.set_num_threads(THREADS[(turn + k) % 4])
            try:
                eager = run_eager(program)
            except kiln.KilnIndexError:
                if program.special:  # an infinity made a label that is no class: an error is the right answer
                    return
                raise
            if want is None:
                want = eager
                if isinstance(program, Program):
                    demand_types(program, eager)
                    if not program.special and not program.fragile:
                        demand_close(program, eager)
            demand_same(want, eager, f"eager on {level.cpu}")
            lower = k > 0 and isinstance(program, TableProgram)  # the time goes to compiling: there one mode is enough
            for j, mode in enumerate([modes[turn % len(modes)]] if lower else modes):
                count = THREADS[(turn + j + k + 1) % 4]
                threads.set_num_threads(count)
                for call, got in enumerate(not_refused(mode(program))):
                    demand_same(want, got, f"{mode.__name__} on {level.cpu}, {count} threads, call {call}")


def draw(seed: int, family: str = "both") -> AnyProgram:
    """The program of this seed: odd seeds are of the table, even ones compared with float64, unless told."""
    if family == "table" or (family == "both" and seed % 2):
        return draw_table(seed)
    rng = np.random.default_rng(seed)
    return Generator(rng, int(rng.integers(5, 41))).draw()


def describe(program: AnyProgram) -> str:
    lines = [
        f"  %{i} = input {x.dtype}{list(x.shape)} {how}"
        for i, (x, how) in enumerate(zip(program.inputs, program.layouts, strict=True))
    ]
    if isinstance(program, TableProgram):
        k = len(program.inputs)
        for call, shown in zip(program.instrs, program.results, strict=True):
            lines.append(f"  %{k}... = {call.text} of {', '.join(f'%{a}' for a in call.args)} : {shown}")
            k += shown.count("[")
        return "\n".join([*lines, f"  outputs {program.outputs}, special {program.special}"])
    for k, instr in enumerate(program.instrs, len(program.inputs)):
        args = ", ".join(repr(a.value) if isinstance(a, Scalar) else f"%{a}" for a in instr.args)
        d: Dual = program.values[k]
        lines.append(f"  %{k} = {instr.op}({args}) {dict(instr.attrs) or ''} : {d.dtype}{list(d.shape)}")
    return "\n".join([*lines, f"  outputs {program.outputs}, writes {program.writes}, special {program.special}"])


MODES: list[Callable[[AnyProgram], Iterator[Result]]] = [run_forward, run_whole, run_split]


def fuzz(n: int, seed: int, stop_after: int, family: str = "both") -> int:
    """Run n programs; returns the number that differ."""
    hits: collections.Counter[str] = collections.Counter()
    views: collections.Counter[str] = collections.Counter()
    failures = checked = 0
    started = time.perf_counter()
    for k in range(n):
        try:
            program = draw(seed + k, family)
        except Exception as error:
            failures += 1
            print(f"\nseed {seed + k}: while drawing: {type(error).__name__}: {error}", flush=True)
            if n == 1:
                raise
            continue
        checked += not (program.special or program.fragile)
        for instr in program.instrs:
            hits[instr.op] += 1
            if instr.view:
                views[instr.view] += 1
        views.update(f"input {how}" for how in program.layouts)
        views.update(f"write {kind}" for *_, kind in program.writes)
        try:
            check(program, k, MODES)
        except (Difference, OracleDifference) as difference:
            failures += 1
            print(f"\nseed {seed + k}: {difference}\n{describe(program)}", flush=True)
        except Exception as error:
            failures += 1
            print(f"\nseed {seed + k}: {type(error).__name__}: {error}\n{describe(program)}", flush=True)
            if n == 1:
                raise
        if failures >= stop_after:
            break
        if sys.stdout.isatty() or (k + 1) % 100 == 0:
            end = "" if sys.stdout.isatty() else "\n"
            print(
                f"\r{k + 1}/{n} programs, {failures} differences, {time.perf_counter() - started:.0f} s",
                end=end,
                flush=True,
            )
    hits.update(eager_only)
    for title, table in (("ops", hits), ("views, layouts and writes", views)):
        print(f"\n{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(table.items())))
    # The table is long: each of its rows is demanded of longer runs only.
    whole = n >= 20_000 or family == "table"
    rare = [
        name
        for counts in (hits, views)
        for name, count in counts.items()
        if count < 20 and (whole or name in {*ARITH, *COMPARE} or name not in TABLE)
    ]
    drawn = set(TABLE) if whole else set()
    missing = sorted({*ARITH, *COMPARE, *drawn} - set(hits) - set(UNTABLED))
    undrawn = sorted(public() - set(TABLE))
    if undrawn:
        print(f"public functions that no row of the table draws: {', '.join(undrawn)}")
    for what, times in refused.most_common(40):
        print(f"refused {times} times: {what}")
    if n >= 2000 and whole and undrawn:
        failures += 1
    if n >= 2000 and (rare or missing):
        print(f"hit fewer than 20 times: {', '.join([*rare, *missing])}")
        failures += 1
    print(f"{n} programs, {checked} also compared with float64 NumPy: {failures} differences")
    return failures


def find_faults(seed: int, limit: int) -> int:
    """Plant each fault in turn and fuzz until it is found; returns how many were not."""
    from fuzz_faults import FAULTS

    missed = 0
    os.environ["KILN_CACHE"] = "0"  # programs with a fault in them must not be found again
    for name, plant in FAULTS.items():
        with contextlib.ExitStack() as stack:
            stack.enter_context(plant())
            found = None
            for k in range(limit):
                try:
                    check(draw(seed + k, "oracle"), k, MODES)
                except (Difference, kiln.KilnError) as difference:
                    found = (k + 1, str(difference).splitlines()[0])
                    break
        missed += found is None
        print(
            f"planted fault {name}: " + (f"found by program {found[0]}: {found[1]}" if found else "NOT FOUND"),
            flush=True,
        )
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=("both", "oracle", "table"), default="both")
    parser.add_argument("--faults", action="store_true", help="also plant five faults and demand that each is found")
    parser.add_argument("--only-faults", action="store_true")
    parser.add_argument("--stop-after", type=int, default=5, help="give up after so many differences")
    args = parser.parse_args()
    failures = 0 if args.only_faults else fuzz(args.n, args.seed, args.stop_after, args.family)
    if args.faults or args.only_faults:
        failures += find_faults(args.seed, 200)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
