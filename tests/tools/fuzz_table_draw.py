"""Draws programs from the table of `fuzz_table` and `fuzz_table_nn`."""

from __future__ import annotations

import collections
import inspect
from typing import Any

import fuzz_table_nn as _rows  # noqa: F401  (fills the table)
import numpy as np
from fuzz_programs import Array
from fuzz_table import TABLE, TOLERANCE, Call, Draw, OracleDifference, TableProgram, Unfit, reads_as

import kiln
from kiln.ir.halves import is_float

UNTABLED = {
    "empty": "has no defined values", "empty_like": "has no defined values", "from_numpy": "makes the inputs",
    "tensor": "takes no tensors", "as_strided": "can't be captured",
}  # fmt: skip
"""Public functions on tensors that have no drawer, and why."""

EAGER_ONLY = frozenset({"argwhere", "index by mask", "masked_select", "nonzero", "unique", "unique_consecutive",
                        "bincount",
                        "masked_scatter", "masked_scatter_"})  # fmt: skip
"""The shapes of their results depend on data, so no capture takes them: they run, alone, against the oracle."""

MODULES = ("contraction", "convolution", "creation", "functional", "gathering", "movement", "padding", "pooling",
           "ranges", "sorting")  # fmt: skip
RANDOM = ("bernoulli", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
          "randperm")  # fmt: skip

refused: collections.Counter[str] = collections.Counter()
"""Instructions that kiln refused for their dtypes or said it can't do yet, by name and error."""

eager_only: collections.Counter[str] = collections.Counter()
"""How often those of `EAGER_ONLY` ran."""


def public() -> set[str]:
    """The public functions on tensors."""
    names = {n.split("=")[0] for m in MODULES for n in kiln._NAMES[f"kiln.{m}"].split()}
    layers = {n for n in dir(kiln.nn.functional) if not n.startswith("_")}
    functions = {n for n in layers if inspect.isfunction(getattr(kiln.nn.functional, n))}
    writes = {n for n in dir(kiln.Tensor) if n.endswith("_") and not n.startswith("_")}
    return (names | functions | set(RANDOM) | writes) - set(UNTABLED) - {"detach_", "requires_grad_"}


def draw_table(seed: int, names: tuple[str, ...] = ()) -> TableProgram:
    """One program; `names` restricts its instructions."""
    rng = np.random.default_rng((seed, 7))
    names = names or tuple(TABLE)
    d = Draw(rng, bool(rng.random() < 0.2))
    length, calls, results, outs = int(rng.integers(2, 7)), [], [], []
    kiln.manual_seed(seed)
    tries = 0
    while len(calls) < length and tries < 10 * length:
        tries += 1
        name = names[int(rng.integers(len(names)))]
        kept, d.fresh = len(d.tensors), []
        try:
            args, run, oracle = TABLE[name](d)
        except Unfit:
            forget(d, kept)
            continue
        given = [reads_as(d.tensors[k]) for k in args]
        try:
            with np.errstate(all="ignore"):
                out = run(*(d.tensors[k] for k in args))
        except (kiln.NotYetError, kiln.DTypeError) as error:
            refused[f"{name}({', '.join(d.name(k) for k in args)}): {str(error).splitlines()[0]}"] += 1
            forget(d, kept)
            continue
        values = list(out) if isinstance(out, tuple | list) else [out]
        if (not d.special and any(too_big(t) for t in values)) or any(t.numel() > 20000 for t in values):
            forget(d, kept)
            continue
        shown = ", ".join(f"{d.name(k)}{list(d.size(k))}" for k in args)
        call = Call(name, tuple(args), run, f"{name}({shown}) {attributes(run)}")
        if oracle is not None and not d.special:
            with np.errstate(all="ignore"):
                compare(call, given, oracle(*given), values)
        if name in EAGER_ONLY:
            eager_only[name] += 1
            forget(d, kept)
            continue
        first = len(d.tensors)
        d.tensors.extend(values)
        ids = list(range(first, first + len(values)))
        d.open.extend(k for k in ids if len(ids) < 5 or rng.random() < 0.4)
        outs.append(ids)
        results.append([f"{t.dtype.name}{list(t.shape)}" for t in values])
        calls.append(call)
    return numbered(d, calls, outs, results, seed)


def forget(d: Draw, kept: int) -> None:
    """Undo the inputs made for an instruction that was dropped."""
    del d.tensors[kept:]
    d.open = [k for k in d.open if k < kept]
    for k in [k for k in d.arrays if k >= kept]:
        del d.arrays[k]


def too_big(t: Any) -> bool:
    if not t.dtype.is_floating_point or not t.numel():
        return False
    v = np.abs(reads_as(t))
    return not bool(v.max() < 1e4)


def attributes(run: Any) -> str:
    """What the closure was made with, for the report."""
    names = inspect.getclosurevars(run).nonlocals if inspect.isfunction(run) else {}
    return " ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in names.items())


def compare(call: Call, given: list[Array], want: Any, values: list[Any]) -> None:
    """One instruction's results against the oracle's."""
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in given):
        return
    wants = list(want) if isinstance(want, tuple | list) else [want]
    if len(wants) != len(values):
        raise OracleDifference(f"{call.text}: {len(values)} results, NumPy gives {len(wants)}")
    for w, t in zip(wants, values, strict=True):
        w, got = np.asarray(w), reads_as(t)
        if w.shape != got.shape:
            raise OracleDifference(f"{call.text}: shape {got.shape}, NumPy gives {w.shape}")
        if is_float(got.dtype):
            size = max([1.0, *(float(np.abs(a).max()) ** 2 for a in given if a.size and a.dtype.kind != "b")])
            with np.errstate(all="ignore"):
                gap = np.abs(got - w)
            if gap.size and np.isfinite(w).all() and not gap.max() <= TOLERANCE[t.dtype.name] * size * 10:
                raise OracleDifference(f"{call.text}: off by {gap.max():g} from NumPy")
        elif not np.array_equal(got, w.astype(got.dtype)):
            raise OracleDifference(f"{call.text}: {got!r}, NumPy gives {w!r}")


def numbered(d: Draw, calls: list[Call], outs: list[list[int]], results: list[list[str]], seed: int) -> TableProgram:
    """Inputs first."""
    inputs = sorted(d.arrays)
    new = {k: i for i, k in enumerate([*inputs, *(k for ids in outs for k in ids)])}
    instrs = [Call(c.op, tuple(new[k] for k in c.args), c.run, c.text) for c in calls]
    used = {k for c in instrs for k in c.args}
    made = [new[k] for ids in outs for k in ids]
    ends = [k for k in made if k not in used] or made
    outputs = sorted(d.rng.choice(ends, min(len(ends), 8), replace=False).tolist()) if ends else []
    how = [str(d.rng.choice(["plain", "transposed", "stepped", "offset"], p=[0.55, 0.15, 0.15, 0.15])) for _ in inputs]
    shown = [", ".join(r) for r in results]
    return TableProgram([d.arrays[k] for k in inputs], how, instrs, outputs, d.special, seed, shown)
