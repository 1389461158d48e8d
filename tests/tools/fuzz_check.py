"""One fuzzed program: run eagerly and through `kiln.compile` in several ways, and everything compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fuzz_programs import FLOATS, Array, Dual, Generator, Instr, Program, Scalar, index_of
from fuzz_table import TABLE, Call, TableProgram
from fuzz_table_draw import draw_table, refused

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
            if t.dtype.is_floating_point or t.dtype.is_complex:
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
        if out.dtype.is_complex:
            out = kiln.view_as_real(out)
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

    @kiln.compile(fullgraph=True)
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

    @kiln.compile(fullgraph=True)
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

    @kiln.compile(fullgraph=True)
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
    if a.dtype.kind == "c":
        part = np.dtype(f"f{a.dtype.itemsize // 2}")
        return same_bits(np.ascontiguousarray(a).view(part), np.ascontiguousarray(b).view(part))
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


Mode = Callable[[AnyProgram], Iterator[Result]]
MODES: tuple[Mode, ...] = (run_forward, run_whole, run_split)


@dataclass(frozen=True)
class Variant:
    """One way to run a program compiled."""

    mode: Mode
    level: Any
    threads: int

    def __str__(self) -> str:
        return f"{self.mode.__name__} on {self.level.cpu}, {self.threads} threads"


def variants(seed: int, thorough: bool) -> tuple[list[tuple[Any, int]], list[Variant]]:
    """How the program of this seed runs: eagerly (level and threads), and compiled.

    Compiling takes nearly all the time, so a program runs in two of the modes, one of them on a lower level in half
    of the programs; over many programs every combination comes up. `thorough`: all modes on all levels.
    """
    rng = np.random.default_rng((seed, 11))
    host, *lower = levels()
    if thorough:
        counts = [THREADS[(seed + k) % 4] for k in range(len(MODES) + 1)]
        every = [Variant(mode, level, n) for level in (host, *lower) for mode, n in zip(MODES, counts, strict=False)]
        return [(level, counts[-1]) for level in (host, *lower)], every
    first, second = rng.permutation(len(MODES))[:2]
    a, b, c = (int(n) for n in rng.choice(THREADS, 3))
    other = lower[0] if lower and rng.random() < 0.5 else host
    eager = [(host, a), (lower[0], b)] if lower and rng.random() < 0.1 else [(host, a)]
    return eager, [Variant(MODES[first], host, b), Variant(MODES[second], other, c)]


def check(program: AnyProgram, seed: int, thorough: bool = False) -> None:
    """All runs of one program; raises Difference."""
    want: Result | None = None
    eagerly, compiled = variants(seed, thorough)
    for level, count in eagerly:
        threads.set_num_threads(count)
        with targets.use_target(level):
            try:
                eager = run_eager(program)
            except kiln.KilnIndexError:
                if program.special:  # an infinity made a label that is no class: an error is the right answer
                    return
                raise
            except kiln.GradError as error:  # the program writes over what a gradient needs
                for variant in compiled:
                    demand_refusal(program, variant, error)
                return
        if want is None:
            want = eager
            if isinstance(program, Program):
                demand_types(program, eager)
                if not program.special and not program.fragile:
                    demand_close(program, eager)
        demand_same(want, eager, f"eager on {level.cpu}, {count} threads")
    assert want is not None
    for variant in compiled:
        threads.set_num_threads(variant.threads)
        with targets.use_target(variant.level):
            for call, got in enumerate(not_refused(variant.mode(program))):
                demand_same(want, got, f"{variant}, call {call}")


def demand_refusal(program: AnyProgram, variant: Variant, error: Exception) -> None:
    """What is an error in eager code is the same error in compiled code."""
    threads.set_num_threads(variant.threads)
    with targets.use_target(variant.level):
        try:
            for _ in not_refused(variant.mode(program)):
                raise Difference(f"{variant} gives a result; eager raises {error}")
        except type(error) as raised:
            if str(raised).splitlines()[0] != str(error).splitlines()[0]:
                raise Difference(f"{variant} raises {raised}; eager raises {error}") from None


def draw(seed: int, family: str = "both") -> AnyProgram:
    """The program of this seed: odd seeds are of the table, even ones compared with float64, unless told; or one of a
    single row of the table."""
    if family in TABLE:
        return draw_table(seed, (family,))
    if family == "table" or (family == "both" and seed % 2):
        return draw_table(seed)
    rng = np.random.default_rng(seed)
    return Generator(rng, int(rng.integers(4, 17))).draw()


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
