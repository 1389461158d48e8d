"""Draws programs from the table of `fuzz_table` and `fuzz_table_nn`."""

from __future__ import annotations

import collections
import importlib.util
import inspect
from dataclasses import replace
from typing import Any

import fuzz_table_layers as _layers  # noqa: F401  (fills the table)
import fuzz_table_more as _more  # noqa: F401  (fills the table)
import fuzz_table_nn as _rows  # noqa: F401  (fills the table)
import fuzz_table_numeric as _numeric  # noqa: F401  (fills the table)
import fuzz_table_spaces as _spaces  # noqa: F401  (fills the table)
import fuzz_table_top as _top  # noqa: F401
import numpy as np
from fuzz_programs import LIMITS, Array
from fuzz_table import ANY, TABLE, TOLERANCE, Call, Draw, OracleDifference, TableProgram, Unfit, reads_as
from fuzz_table_nn import CASTS

import kiln
from kiln.errors import DivisionByZeroError
from kiln.ir.halves import is_float

UNTABLED = {
    "empty": "has no defined values", "empty_like": "has no defined values", "from_numpy": "makes the inputs",
    "tensor": "takes no tensors", "as_strided": "can't be captured", "as_strided_": "can't be captured",
    "is_conj": "gives no tensor", "broadcast_shapes": "takes no tensors", "resize_": "leaves memory undefined",
    "resize_as_": "leaves memory undefined", "linalg.LinAlgError": "is an error",
    "Dim": "is a class", "mark_dynamic": "gives nothing",
    "vmap": "takes functions", "bisect": "takes functions", "debug": "takes functions", "apply_": "takes functions",
    "map_": "takes functions", "map2_": "takes functions", "as_strided_copy": "can't be captured",
    "as_strided_scatter": "can't be captured", "set_": "can't be captured", "frombuffer": "takes no tensors",
    "empty_permuted": "has no defined values", "empty_strided": "has no defined values", "typename": "gives no tensor",
    "get_device": "gives no tensor", "set_default_tensor_type": "takes no tensors", "TypedStorage": "is a class",
    "UntypedStorage": "is a class", "DisableTorchFunction": "is a class", "DisableTorchFunctionSubclass": "is a class",
    **{f"{kind}Tensor": "is a class" for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int",
                                                  "Long", "Short")},
    **{f"is_{what}": "gives no tensor" for what in ("inference", "nonzero", "same_size", "signed", "storage")},
}  # fmt: skip
"""Public functions on tensors that have no drawer, and why."""

EAGER_ONLY = frozenset({"argwhere", "index by mask", "masked_select", "nonzero", "unique", "unique_consecutive",
                        "bincount",
                        "allclose", "equal", "masked_scatter", "masked_scatter_"})  # fmt: skip
"""The shapes of their results depend on data, so no capture takes them: they run, alone, against the oracle."""

NOT_ON_TENSORS = frozenset(
    {
        "amp",
        "autograd",
        "constants",
        "control",
        "device",
        "dtypes",
        "errors",
        "exchange",
        "explain",
        "interop",
        "ir.types",
        "jit",
        "printing",
    }
    | {"promotion", "random", "removed", "runtime.threads", "serialization", "settings", "tensor"}
)
"""Modules of public names that compute nothing on tensors."""

SPACES = ("linalg", "special", "fft", "signal.windows")
"""Name spaces of functions on tensors; one that is not there (yet) draws nothing."""

RANDOM = ("bernoulli", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
          "randperm")  # fmt: skip

refused: collections.Counter[str] = collections.Counter()
"""Instructions that kiln refused for their dtypes or said it can't do yet, by name and error."""

eager_only: collections.Counter[str] = collections.Counter()
"""How often those of `EAGER_ONLY` ran."""


def public() -> set[str]:
    """The public functions on tensors."""
    homes = {m.removeprefix("kiln."): names.split() for m, names in kiln._NAMES.items()}
    names = {n.split("=")[0] for m, found in homes.items() if m not in NOT_ON_TENSORS for n in found}
    layers = {n for n in dir(kiln.nn.functional) if not n.startswith("_")}
    functions = {n for n in layers if inspect.isfunction(getattr(kiln.nn.functional, n))}
    writes = {n for n in dir(kiln.Tensor) if n.endswith("_") and not n.startswith("_")}
    spaced = {f"{s}.{n}" for s in SPACES if importlib.util.find_spec(f"kiln.{s}") for n in _listed(s)}
    return (names | functions | set(RANDOM) | writes | spaced) - set(UNTABLED) - {"detach_", "requires_grad_"}


def _listed(space: str) -> list[str]:
    return list(importlib.import_module(f"kiln.{space}").__all__)


def first_of(seed: int) -> tuple[str, str]:
    """What the program of this seed begins with, where it can: seeds go through the table, and through all dtypes."""
    turn, names = seed // 2, sorted(TABLE)
    return names[turn % len(names)], ANY[turn // len(names) % len(ANY)]


def draw_table(seed: int, names: tuple[str, ...] = ()) -> TableProgram:
    """One program; `names` restricts its instructions."""
    rng = np.random.default_rng((seed, 7))
    chosen, names = bool(names), names or tuple(sorted(TABLE))
    d = Draw(rng, bool(rng.random() < 0.2))
    main = d.palette[0]
    length, calls, results, outs = int(rng.integers(2, 7)), [], [], []
    kiln.manual_seed(seed)
    tries = 0
    while len(calls) < length and tries < 10 * length:
        tries += 1
        name = names[int(rng.integers(len(names)))]
        if not calls and tries < 10 and not chosen:
            name, dtype = first_of(seed)
            if tries < 5:
                d.palette[:2] = [dtype, dtype]
            elif tries == 5:  # it is not for that dtype
                d.palette[:2] = [main, main]
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
        except (DivisionByZeroError, kiln.LinAlgError):
            forget(d, kept)
            continue
        except (kiln.NotYetError, kiln.DTypeError) as error:
            refused[f"{name}({', '.join(d.name(k) for k in args)}): {str(error).splitlines()[0]}"] += 1
            forget(d, kept)
            continue
        values = list(out) if isinstance(out, tuple | list) else [out]
        if (not d.special and any(too_big(t) for t in values)) or any(t.numel() > 20000 for t in values):
            forget(d, kept)
            continue
        shown = ", ".join(f"{d.name(k)}{list(d.size(k))}" for k in args)
        call = Call(name, tuple(args), run, f"{name}({shown}) {attributes(run)}", dtypes=tuple(d.name(k) for k in args))
        if oracle is not None and not d.special and not any(d.of(k).dtype.is_complex for k in args):
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
    if not (t.dtype.is_floating_point or t.dtype.is_complex) or not t.numel():
        return False
    v = np.abs(reads_as(t))
    return not bool(v.max() < 1e4)


def attributes(run: Any) -> str:
    """What the closure was made with, for the report."""
    names = inspect.getclosurevars(run).nonlocals if inspect.isfunction(run) else {}
    return " ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in names.items())


EXACT = frozenset({"cast", *(f"Tensor.{name}" for name in CASTS)})
"""Instructions of which the oracle knows every bit."""


def compare(call: Call, given: list[Array], want: Any, values: list[Any]) -> None:
    """One instruction's results against the oracle's."""
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in given):
        return
    if any(a.dtype.kind == "c" for a in given) or any(t.dtype.is_complex for t in values):
        return  # the oracles are of real numbers
    wants = list(want) if isinstance(want, tuple | list) else [want]
    if len(wants) != len(values):
        raise OracleDifference(f"{call.text}: {len(values)} results, NumPy gives {len(wants)}")
    for w, t in zip(wants, values, strict=True):
        w, got = np.asarray(w), reads_as(t)
        if w.shape != got.shape:
            raise OracleDifference(f"{call.text}: shape {got.shape}, NumPy gives {w.shape}")
        if is_float(got.dtype):
            size = max([1.0, *(float(np.abs(a).max()) ** 2 for a in given if a.size and a.dtype.kind != "b")])
            limit = 0 if call.op in EXACT else TOLERANCE[t.dtype.name] * 10
            with np.errstate(all="ignore"):
                told = np.abs(w) < LIMITS[t.dtype.name][0] / 2
                off = ~(np.abs(got - w) <= limit * (size + np.abs(w))) & told | (np.isnan(w) & ~np.isnan(got))
            if off.any():
                raise OracleDifference(f"{call.text}: {got[off][:3]}, NumPy gives {w[off][:3]}")
        elif not np.array_equal(got, w.astype(got.dtype)):
            raise OracleDifference(f"{call.text}: {got!r}, NumPy gives {w!r}")


def numbered(d: Draw, calls: list[Call], outs: list[list[int]], results: list[list[str]], seed: int) -> TableProgram:
    """Inputs first."""
    inputs = sorted(d.arrays)
    new = {k: i for i, k in enumerate([*inputs, *(k for ids in outs for k in ids)])}
    instrs = [replace(c, args=tuple(new[k] for k in c.args)) for c in calls]
    used = {k for c in instrs for k in c.args}
    made = [new[k] for ids in outs for k in ids]
    ends = [k for k in made if k not in used] or made
    outputs = sorted(d.rng.choice(ends, min(len(ends), 8), replace=False).tolist()) if ends else []
    how = [str(d.rng.choice(["plain", "transposed", "stepped", "offset"], p=[0.55, 0.15, 0.15, 0.15])) for _ in inputs]
    shown = [", ".join(r) for r in results]
    return TableProgram([d.arrays[k] for k in inputs], how, instrs, outputs, d.special, seed, shown)
