"""Makes tests/golden/promotion.json with PyTorch: the result dtype of ops for every combination of dtypes.

Run by hand where PyTorch is installed: `python tests/tools/make_promotion.py`. The tests read the file only.

Operands are named by what they are: a dtype with `[]` behind it is a 0-d tensor, without it a tensor with dimensions,
and `True`, `2`, `0.5`, `1j` are Python numbers. Each table of two operands has a row per left operand; ops that agree
share a table. Results are named as NumPy abbreviates them (bf2: bfloat16); `-` stands for a refused call, `.` for one
that PyTorch has no signature for (two numbers, numbers where it wants tensors).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]

OUT = Path(__file__).resolve().parents[1] / "golden" / "promotion.json"
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
NUMBERS: dict[str, Any] = {"True": True, "2": 2, "0.5": 0.5, "1j": 1j}
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "true_divide",
    "floor_divide",
    "remainder",
    "fmod",
    "pow",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "atan2",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "where",
    "result_type",
]
UNARY = [
    "neg",
    "abs",
    "angle",
    "conj_physical",
    "sgn",
    "isreal",
    "sign",
    "square",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "erf",
    "erfc",
    "sigmoid",
    "relu",
    "floor",
    "ceil",
    "round",
    "trunc",
    "logical_not",
    "bitwise_not",
    "isnan",
    "isinf",
    "isfinite",
    "clone",
    "clamp_min",
    "sum",
    "mean",
    "prod",
    "any",
    "all",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "max",
    "min",
    "cumsum",
    "cumprod",
    "var",
    "std",
    "median",
    "sort",
    "norm",
    "logsumexp",
    "matmul",
    "add_number_int",
    "add_number_float",
    "div_number",
]


CODES = dict(zip(DTYPES, ("b1", "u1", "i1", "i2", "i4", "i8", "f2", "bf2", "f4", "f8", "c8", "c16"), strict=True))
RESULTS = {**CODES, "complex32": "c4"}
"""Also dtypes that are no operands."""


def tensor(dtype: str, *shape: int) -> Any:
    return torch.ones(shape, dtype=getattr(torch, dtype))


def operands() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {d: lambda d=d: tensor(d, 2) for d in DTYPES}
    found |= {f"{d}[]": lambda d=d: tensor(d) for d in DTYPES}
    return found | {name: lambda value=value: value for name, value in NUMBERS.items()}


def code(call: Callable[[], Any]) -> str:
    """The code of the dtype of a call's result (its first one), or `-`."""
    try:
        result = call()
    except TypeError:
        return "."
    except (RuntimeError, NotImplementedError):
        return "-"
    while isinstance(result, tuple):  # (values, indices)
        result = result[0]
    return RESULTS[str(result if isinstance(result, torch.dtype) else result.dtype).removeprefix("torch.")]


def binary(name: str) -> list[str]:
    made = operands()

    def call(a: Any, b: Any) -> Any:
        if name == "where":
            return torch.where(torch.ones(2, dtype=torch.bool), a, b)
        return getattr(torch, name)(a, b)

    cells = [code(lambda a=a, b=b: call(made[a](), made[b]())) for a in made for b in made]
    n = len(made)
    return [" ".join(cells[i * n : (i + 1) * n]) for i in range(n)]


def unary(name: str) -> str:
    def call(x: Any) -> Any:
        match name:
            case "matmul":
                return torch.matmul(x, x)
            case "clamp_min":
                return torch.clamp(x, min=x)
            case "cumsum" | "cumprod" | "logsumexp":
                return getattr(torch, name)(x, 0)
            case "relu":
                return torch.nn.functional.relu(x)
            case "add_number_int" | "add_number_float":
                return x + (1 if name.endswith("int") else 0.5)
            case "div_number":
                return x / 2
            case _:
                return getattr(torch, name)(x)

    return " ".join(code(lambda d=d: call(tensor(d, 2))) for d in DTYPES)


def main() -> None:
    tables: dict[str, Any] = {}
    for default in ("float32", "float64"):
        torch.set_default_dtype(getattr(torch, default))
        shared: dict[str, Any] = {}
        for name in BINARY:
            rows = binary(name)
            key = "\n".join(rows)
            shared.setdefault(key, {"ops": [], "rows": rows})["ops"].append(name)
        tables[default] = {"binary": list(shared.values()), "unary": {name: unary(name) for name in UNARY}}
    promote = [" ".join(code(lambda a=a, b=b: torch.promote_types(a, b)) for b in _types()) for a in _types()]
    cast = ["".join("01"[torch.can_cast(a, b)] for b in _types()) for a in _types()]
    golden = {
        "made with": f"PyTorch {torch.__version__.split('+')[0]}",
        "dtypes": CODES,
        "operands": list(operands()),
        "promote_types": promote,
        "can_cast": cast,
        "default": tables,
    }
    OUT.write_text(json.dumps(golden, indent=1) + "\n")


def _types() -> list[Any]:
    return [getattr(torch, d) for d in DTYPES]


if __name__ == "__main__":
    main()
