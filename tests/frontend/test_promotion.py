"""Result dtypes against PyTorch's, from the table that `tests/tools/make_promotion.py` made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kiln
from kiln.ir.types import TENSOR_DTYPES

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "promotion.json").read_text())
NAMES: list[str] = [d.name for d in TENSOR_DTYPES]
CODES: dict[str, str] = GOLDEN["dtypes"]
NUMBERS: dict[str, Any] = {"True": True, "2": 2, "0.5": 0.5, "1j": 1j}
DEFAULTS = ("float32", "float64")
PRESENT = {"add", "sub", "mul", "div", "eq", "lt", "where", "logical_and", "result_type", "sum", "mean", "amax"}
"""Ops of the table that must be there; those that kiln lacks are passed over."""
PERMISSIVE = {"argmax", "argmin"}
"""Ops that take dtypes which PyTorch refuses."""
INCOMPLETE = {"pow"}
"""Ops that refuse dtypes which PyTorch takes."""


@pytest.fixture
def default_dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    before = kiln.get_default_dtype()
    kiln.set_default_dtype(getattr(kiln, request.param))
    yield request.param
    kiln.set_default_dtype(before)


def tensor(name: str, *shape: int) -> kiln.Tensor:
    return kiln.ones(*shape, dtype=getattr(kiln, name))


def operand(name: str) -> Any:
    if name in NUMBERS:
        return NUMBERS[name]
    return tensor(name[:-2]) if name.endswith("[]") else tensor(name, 2)


def code(call: Callable[[], Any]) -> str:
    try:
        result = call()
    except (kiln.KilnError, TypeError):
        return "-"
    while isinstance(result, tuple):
        result = result[0]
    return CODES[(result if isinstance(result, kiln.dtype) else result.dtype).name]


def both(name: str, a: Any, b: Any) -> Any:
    if name == "where":
        return kiln.where(tensor("bool", 2), a, b)
    return getattr(kiln, name)(a, b)


def function(name: str) -> Callable[[Any], Any] | None:
    """The op of one operand called `name`; None where kiln has none."""
    special: dict[str, Callable[[Any], Any]] = {
        "matmul": lambda x: x @ x,
        "clamp_min": lambda x: x.clamp(min=x),
        "add_number_int": lambda x: x + 1,
        "add_number_float": lambda x: x + 0.5,
        "div_number": lambda x: x / 2,
    }
    found = special.get(name) or getattr(kiln, name, None)
    if found is not None and name in ("cumsum", "cumprod", "logsumexp"):
        return lambda x: found(x, 0)
    return found


@pytest.mark.parametrize("default_dtype", DEFAULTS, indirect=True)
def test_two_operands(default_dtype: str) -> None:
    seen, wrong = set(), []
    names: list[str] = GOLDEN["operands"]
    known = [i for i, n in enumerate(names) if n in NUMBERS or n.removesuffix("[]") in NAMES]
    for table in GOLDEN["default"][default_dtype]["binary"]:
        rows = [row.split() for row in table["rows"]]
        for op in table["ops"]:
            if not hasattr(kiln, op):
                continue
            seen.add(op)
            for i in known:
                for j in known:
                    if rows[i][j] == "." or (names[i] in NUMBERS and names[j] in NUMBERS):
                        continue  # kiln's functions want a tensor
                    got = code(lambda op=op, i=i, j=j: both(op, operand(names[i]), operand(names[j])))
                    wanted = rows[i][j].replace("c4", "c8")  # there is no complex32
                    pair = {names[k].removesuffix("[]") for k in (i, j)}
                    if wanted == "-" and "float16" in pair and pair & {"complex64", "complex128", "1j"}:
                        continue  # what PyTorch lacks for complex32
                    if got != wanted and not (got == "-" and op in INCOMPLETE):
                        wrong.append(f"{op}({names[i]}, {names[j]}) is {got}, not {wanted}")
    assert not wrong
    assert seen >= PRESENT & {op for t in GOLDEN["default"][default_dtype]["binary"] for op in t["ops"]}


@pytest.mark.parametrize("default_dtype", DEFAULTS, indirect=True)
def test_one_operand(default_dtype: str) -> None:
    seen, wrong = set(), []
    for name, row in GOLDEN["default"][default_dtype]["unary"].items():
        call = function(name)
        if call is None:
            continue
        seen.add(name)
        for dtype, wanted in zip(CODES, row.split(), strict=True):
            if dtype in NAMES:
                got = code(lambda call=call, dtype=dtype: call(tensor(dtype, 2)))
                if got != wanted and not (wanted == "-" and name in PERMISSIVE):
                    wrong.append(f"{name}({dtype}) is {got}, not {wanted}")
    assert not wrong
    assert seen >= PRESENT & set(GOLDEN["default"][default_dtype]["unary"])


def test_promote_types_and_can_cast() -> None:
    for a, row, castable in zip(CODES, GOLDEN["promote_types"], GOLDEN["can_cast"], strict=True):
        for b, wanted, can in zip(CODES, row.split(), castable, strict=True):
            if a in NAMES and b in NAMES:
                x, y = getattr(kiln, a), getattr(kiln, b)
                assert CODES[kiln.promote_types(x, y).name] == wanted, (a, b)
                assert kiln.can_cast(x, y) == (can == "1"), (a, b)


def test_every_dtype_is_in_the_table() -> None:
    assert set(NAMES) <= set(CODES)


def test_where_of_numbers() -> None:
    c = kiln.tensor([True, False])
    assert kiln.where(c, 1, 2).dtype is kiln.int64
    assert kiln.where(c, 1, 2.5).dtype is kiln.float32


# ------------------------------------------------------------------------------- numbers beside integers


def test_numbers_wrap_in_arithmetic_and_comparisons() -> None:
    u = kiln.tensor([1, 200], dtype=kiln.uint8)
    assert (u + 300).tolist() == [45, 244]
    assert (u * -1).tolist() == [255, 56]
    assert (u - 1).tolist() == [0, 199]
    assert (u > -1).tolist() == [False, False]
    i = kiln.tensor([1, -100], dtype=kiln.int8)
    assert (i + 128).tolist() == [-127, 28]
    assert (i * i).tolist() == [1, 16]
    assert (i + 1.5).tolist() == [2.5, -98.5]


def test_numbers_that_are_stored_must_fit() -> None:
    u = kiln.tensor([1, 200], dtype=kiln.uint8)
    for refused in (
        lambda: kiln.tensor([300], dtype=kiln.uint8),
        lambda: kiln.tensor([1e9], dtype=kiln.int8),
        lambda: kiln.full((2,), 300, dtype=kiln.uint8),
        lambda: kiln.full((2,), float("nan"), dtype=kiln.int16),
        lambda: u.fill_(300),
        lambda: kiln.where(u > 1, u, 300),
        lambda: u.clamp(max=300),
    ):
        with pytest.raises(kiln.InvalidValueError, match="fit"):
            refused()
    assert kiln.tensor([-1], dtype=kiln.uint8).tolist() == [255]
    assert kiln.full((2,), -1, dtype=kiln.uint8).tolist() == [255, 255]
    assert kiln.tensor([1.7], dtype=kiln.int8).tolist() == [1]
    assert u.fill_(-1).tolist() == [255, 255]


def test_in_place_keeps_the_dtype() -> None:
    i = kiln.tensor([1, -100], dtype=kiln.int8)
    i += kiln.tensor([1000, 100])
    assert i.dtype is kiln.int8 and i.tolist() == [-23, 0]
    i -= 3
    assert i.tolist() == [-26, -3]
    with pytest.raises(kiln.DTypeError):
        i += 0.5
    with pytest.raises(kiln.DTypeError):
        i /= 2


# -------------------------------------------------------------------------------------- the default dtype


def test_default_dtype_reaches_everything_without_a_dtype() -> None:
    kiln.set_default_dtype(kiln.float64)
    try:
        made = [kiln.zeros(2), kiln.ones(2), kiln.tensor([0.5]), kiln.arange(0.0, 2.0), kiln.eye(2), kiln.rand(2)]
        made += [kiln.tensor([1, 2]) / 2, kiln.exp(kiln.tensor([1])), kiln.tensor([1]) + 0.5, kiln.full((2,), 0.5)]
        assert {x.dtype for x in made} == {kiln.float64}
        assert repr(kiln.zeros(1)) == "tensor([0.])"
        assert repr(kiln.zeros(1, dtype=kiln.float32)) == "tensor([0.], dtype=kiln.float32)"
    finally:
        kiln.set_default_dtype(kiln.float32)
    assert kiln.get_default_dtype() is kiln.float32
    with pytest.raises(kiln.DTypeError):
        kiln.set_default_dtype(kiln.int64)


def test_a_compiled_function_knows_the_default_dtype() -> None:
    halve = kiln.compile(lambda x: x / 2)
    x = kiln.tensor([1, 3])
    assert halve(x).dtype is kiln.float32
    kiln.set_default_dtype(kiln.float64)
    try:
        assert halve(x).dtype is kiln.float64
    finally:
        kiln.set_default_dtype(kiln.float32)
    assert halve(x).dtype is kiln.float32

    def changes(x: kiln.Tensor) -> kiln.Tensor:
        kiln.set_default_dtype(kiln.float64)
        return x / 2

    with pytest.raises(kiln.CaptureError):
        kiln.compile(changes, fullgraph=True)(x)


# ------------------------------------------------------------------------------------- dtypes as objects


def test_aliases_and_limits() -> None:
    assert kiln.float is kiln.float32 and kiln.double is kiln.float64 and kiln.long is kiln.int64
    assert kiln.int is kiln.int32 and kiln.short is kiln.int16
    assert (kiln.iinfo(kiln.int8).min, kiln.iinfo(kiln.int8).max, kiln.iinfo(kiln.int8).bits) == (-128, 127, 8)
    assert (kiln.iinfo(kiln.uint8).min, kiln.iinfo(kiln.uint8).max) == (0, 255)
    info = kiln.finfo(kiln.float32)
    assert (info.max, info.eps, info.tiny) == (3.4028234663852886e38, 2.0**-23, 2.0**-126)
    assert kiln.finfo(kiln.float64).max == 1.7976931348623157e308
    assert kiln.finfo().dtype == "float32"
    with pytest.raises(kiln.DTypeError):
        kiln.iinfo(kiln.float32)
    with pytest.raises(kiln.DTypeError):
        kiln.finfo(kiln.int8)
    with pytest.raises(kiln.ArgumentError):
        kiln.iinfo("int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_goes_round(name: str) -> None:
    """NumPy, lists, printing, views, indexing and casts by method."""
    dtype = getattr(kiln, name)
    x = kiln.tensor([[1, 0, 1], [0, 1, 1]], dtype=dtype)
    assert x.dtype is dtype and x.element_size() == dtype.itemsize
    array = x.numpy()
    assert array.dtype == dtype.numpy and kiln.from_numpy(array).dtype is dtype
    array[0, 0] = 0
    assert x[0, 0].item() == 0  # one memory
    x[0, 0] = 1
    assert x.tolist() == [[1, 0, 1], [0, 1, 1]] and (x.T[1] == x[:, 1]).all()
    assert (f"dtype=kiln.{name}" in repr(x)) == (name not in ("bool", "int64", "float32", "complex64"))
    methods = {"uint8": "byte", "int8": "char", "int16": "short", "int32": "int", "int64": "long", "float32": "float"}
    methods |= {"float64": "double", "float16": "half", "complex64": "cfloat", "complex128": "cdouble"}
    assert getattr(kiln.tensor([1.0, 0.0]), methods.get(name, name))().dtype is dtype
    assert x.is_floating_point() == kiln.is_floating_point(x) == dtype.is_floating_point
    assert x.is_complex() == kiln.is_complex(x) == name.startswith("complex") and x.is_signed() == dtype.is_signed
    assert kiln.zeros_like(x).dtype is dtype and kiln.stack([x, x]).dtype is dtype
