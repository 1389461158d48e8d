"""`kiln.testing`: comparing results in tests, and tensors to test with. Names, tolerances and messages are those of
torch.testing."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import numpy as np

from kiln.base import TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.functional import size_tuple
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.promotion import cast_to, promote_types

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["assert_close", "make_tensor"]

Message: TypeAlias = "str | Callable[[str], str] | None"

_TOLERANCES: Final = {
    T.float16: (1e-3, 1e-5),
    T.bfloat16: (1.6e-2, 1e-5),
    T.float32: (1.3e-6, 1e-5),
    T.float64: (1e-7, 1e-7),
    T.complex64: (1.3e-6, 1e-5),
    T.complex128: (1e-7, 1e-7),
}
"""Relative and absolute ones by dtype; integers and bools must be equal."""


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Message = None,
) -> None:
    """AssertionError unless |actual - expected| <= atol + rtol * |expected| for all elements, of the same shape and
    dtype. Takes tensors, NumPy arrays, numbers, None, and sequences and mappings of these.

    The tolerances, given both or neither, are by default those of the dtypes, the looser ones: 1.3e-6 and 1e-5 for
    float32, 1e-7 and 1e-7 for float64, 1e-3 and 1e-5 for float16, 1.6e-2 and 1e-5 for bfloat16, 0 for integers. Without
    `check_dtype` both are promoted first. `msg` takes the place of the message, or makes one of it. ArgumentError for
    values that can't be compared.

    >>> import kiln
    >>> kiln.testing.assert_close(kiln.tensor([1.0, 2.0]), kiln.tensor([1.0, 2.5]))
    Traceback (most recent call last):
    AssertionError: Tensor-likes are not close!
    <BLANKLINE>
    Mismatched elements: 1 / 2 (50.0%)
    Greatest absolute difference: 0.5 at index (1,) (up to 1e-05 allowed)
    Greatest relative difference: 0.20000000298023224 at index (1,) (up to 1.3e-06 allowed)
    """
    del check_device, check_layout  # all are on the CPU, and strided
    if (rtol is None) is not (atol is None):
        missing = "rtol" if rtol is None else "atol"
        raise InvalidValueError(
            f"Both 'rtol' and 'atol' must be either specified or omitted, but got no {missing}.", op="assert_close"
        )
    tolerances = None if rtol is None or atol is None else (rtol, atol)
    rules = _Rules(allow_subclasses, tolerances, equal_nan, check_dtype, check_stride, msg)
    _compare(rules, actual, expected, ())


@dataclass(frozen=True)
class _Rules:
    """How to compare."""

    allow_subclasses: bool
    tolerances: tuple[float, float] | None
    equal_nan: bool
    check_dtype: bool
    check_stride: bool
    message: Message

    def fail(self, message: str, place: tuple[Any, ...]) -> NoReturn:
        if place:
            message += f"\n\nThe failure occurred for item {''.join(str([key]) for key in place)}"
        raise AssertionError(self.message(message) if callable(self.message) else self.message or message)

    def allowed(self, *dtypes: DType) -> tuple[float, float]:
        if self.tolerances is not None:
            return self.tolerances
        found = [_TOLERANCES.get(d, (0.0, 0.0)) for d in dtypes]
        return max(r for r, _ in found), max(a for _, a in found)


def _compare(rules: _Rules, actual: Any, expected: Any, place: tuple[Any, ...]) -> None:
    """Compare what lies at `place` (keys and indices from the outside in)."""
    plain = (str, bytes, TensorBase, np.ndarray)
    if all(isinstance(x, Sequence) and not isinstance(x, plain) for x in (actual, expected)):
        if len(actual) != len(expected):
            rules.fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", place)
        for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
            _compare(rules, a, b, (*place, k))
    elif isinstance(actual, Mapping) and isinstance(expected, Mapping):
        _same_keys(rules, actual, expected, place)
        for key in sorted(actual, key=repr):
            _compare(rules, actual[key], expected[key], (*place, key))
    elif actual is None or expected is None:
        if actual is not expected:
            rules.fail(f"None mismatch: {actual} is not {expected}", place)
    elif all(isinstance(x, (bool, np.bool_)) for x in (actual, expected)):
        if bool(actual) is not bool(expected):
            rules.fail(f"Booleans mismatch: {bool(actual)} is not {bool(expected)}", place)
    elif all(isinstance(x, (int, float, complex, np.number)) for x in (actual, expected)):
        _compare_numbers(rules, _python(actual), _python(expected), place)
    elif _comparable(rules, actual, expected):
        _compare_tensors(rules, _as_tensor(actual), _as_tensor(expected), place)
    else:
        raise ArgumentError(
            f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.",
            op="assert_close",
            fix="make tensors of both",
        )


def _same_keys(rules: _Rules, actual: Mapping[Any, Any], expected: Mapping[Any, Any], place: tuple[Any, ...]) -> None:
    missing = [key for key in expected if key not in actual]
    additional = [key for key in actual if key not in expected]
    if missing or additional:
        rules.fail(
            "The keys of the mappings do not match:\n"
            f"Missing keys in the actual mapping: {sorted(missing, key=repr)}\n"
            f"Additional keys in the actual mapping: {sorted(additional, key=repr)}",
            place,
        )


def _comparable(rules: _Rules, actual: Any, expected: Any) -> bool:
    if not all(isinstance(x, (TensorBase, np.ndarray)) for x in (actual, expected)):
        return False
    if not rules.allow_subclasses:
        return type(actual) is type(expected)
    return isinstance(actual, type(expected)) or isinstance(expected, type(actual))


def _python(x: Any) -> Any:
    return x.item() if isinstance(x, np.number) else x


def _as_tensor(x: Any) -> Tensor:
    from kiln.creation import from_numpy

    made: Tensor = from_numpy(np.ascontiguousarray(x).reshape(x.shape)) if isinstance(x, np.ndarray) else x
    return made.detach()


def _compare_numbers(rules: _Rules, actual: Any, expected: Any, place: tuple[Any, ...]) -> None:
    if rules.check_dtype and type(actual) is not type(expected):
        rules.fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.", place)
    kinds = {int: T.int64, bool: T.bool_, float: T.float64, complex: T.complex128}
    rtol, atol = rules.allowed(kinds[type(actual)], kinds[type(expected)])
    _scalars(rules, actual, expected, rtol, atol, place)


def _scalars(rules: _Rules, actual: Any, expected: Any, rtol: float, atol: float, place: tuple[Any, ...]) -> None:
    difference = abs(actual - expected)
    if actual == expected or (rules.equal_nan and actual != actual and expected != expected):
        return
    if cmath.isfinite(difference) and difference <= atol + rtol * abs(expected):
        return
    relative = difference / abs(expected) if expected != 0 else math.inf
    exact = rtol == atol == 0
    rules.fail(
        f"Scalars are not {'equal' if exact else 'close'}!\n\nExpected {expected} but got {actual}.\n"
        f"Absolute difference: {difference}{_limit(exact, atol)}\n"
        f"Relative difference: {relative}{_limit(exact, rtol)}",
        place,
    )


def _limit(exact: bool, tolerance: float) -> str:
    return "" if exact else f" (up to {tolerance} allowed)"


def _compare_tensors(rules: _Rules, actual: Tensor, expected: Tensor, place: tuple[Any, ...]) -> None:
    def differs(attribute: str, a: Any, b: Any) -> NoReturn:
        rules.fail(f"The values for attribute '{attribute}' do not match: {a} != {b}.", place)

    if actual.shape != expected.shape:
        differs("shape", actual.shape, expected.shape)
    if rules.check_stride and actual.stride() != expected.stride():
        differs("stride()", actual.stride(), expected.stride())
    if rules.check_dtype and actual.dtype is not expected.dtype:
        differs("dtype", repr(actual.dtype), repr(expected.dtype))
    rtol, atol = rules.allowed(actual.dtype, expected.dtype)
    common = promote_types(actual.dtype, expected.dtype)
    a, b = (cast_to(x, common)._read("assert_close()") for x in (actual, expected))
    if not a.shape:
        same = _matches(a, b, rtol, atol, rules.equal_nan)
        if not same:
            _scalars(rules, a.item(), b.item(), rtol, atol, place)
        return
    matches = _matches(a, b, rtol, atol, rules.equal_nan)
    if not matches.all():
        rules.fail(_mismatch(a, b, matches, rtol, atol), place)


Array: TypeAlias = "np.ndarray[Any, Any]"


def _matches(a: Array, b: Array, rtol: float, atol: float, equal_nan: bool) -> Array:
    """Which elements are close, in arithmetic of their dtype."""
    close = np.asarray(a == b)
    if equal_nan:
        close = close | ((a != a) & (b != b))
    if rtol == atol == 0 or a.dtype.kind == "b":
        return close
    with np.errstate(all="ignore"):
        error = np.abs(a - b)
        return np.asarray(close | (np.isfinite(error) & (error <= atol + np.abs(rtol * b))))


def _mismatch(a: Array, b: Array, matches: Array, rtol: float, atol: float) -> str:
    if a.dtype.kind in "biu":
        a, b = a.astype(np.int64), b.astype(np.int64)
    with np.errstate(all="ignore"):
        absolute = np.abs(a - b)
        relative = absolute / (np.abs(b).astype(np.float32) if a.dtype.kind == "i" else np.abs(b))
    lines = []
    exact = rtol == atol == 0
    for kind, difference, tolerance in (("absolute", absolute, atol), ("relative", relative, rtol)):
        difference = np.where(matches, np.zeros_like(difference), difference)
        if difference.dtype.kind == "f" and a.dtype.kind == "i":
            difference = difference.astype(np.float32)
        at = int(np.argmax(difference))
        index = tuple(map(int, np.unravel_index(at, matches.shape)))
        lines.append(
            f"Greatest {kind} difference: {difference[index].item()} at index {index}{_limit(exact, tolerance)}"
        )
    wrong = int(matches.size - matches.sum())
    return (
        f"Tensor-likes are not {'equal' if exact else 'close'}!\n\n"
        f"Mismatched elements: {wrong} / {matches.size} ({wrong / matches.size:.1%})\n" + "\n".join(lines)
    )


# -------------------------------------------------------------------------------------------- making tensors


def make_tensor(
    *shape: Any,
    dtype: DType,
    device: Any = None,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor of random elements from `low` to below `high`: of floats and complex numbers' parts from -9 to 9, of
    integers from -9 (unsigned: 0) to 9, by default. `noncontiguous`: every other element of memory, in the last
    dimension; `exclude_zero`: zeros become the smallest positive number.

    InvalidValueError for limits that leave nothing or that the dtype lacks, DTypeError for a gradient of integers.
    """
    from kiln import random
    from kiln.creation import empty

    del memory_format
    sizes = size_tuple("make_tensor", shape)
    if requires_grad and not dtype.is_inexact:
        raise DTypeError(
            f"`requires_grad=True` is not supported for boolean and integral dtypes, but got dtype={dtype!r}",
            op="make_tensor",
        )
    least, most = _limits(dtype, low, high)
    drawn = (*sizes[:-1], sizes[-1] * 2) if noncontiguous and math.prod(sizes) > 1 else sizes
    if dtype.is_inexact:
        part = dtype.part if dtype.is_complex else dtype
        made = empty((*drawn, 2) if dtype.is_complex else drawn, dtype=part, device=device)
        random.uniform_(made, least, most)
        made = _complex(made) if dtype.is_complex else made
    else:
        made = random.randint(math.ceil(least), math.ceil(most), drawn).to(dtype)
    if drawn != sizes:
        made = made[..., ::2]
    if exclude_zero:
        made.masked_fill_(made == 0, 1 if not dtype.is_inexact else float(np.finfo(np.float32).tiny))
    return made.requires_grad_() if requires_grad else made


def _complex(pairs: Tensor) -> Tensor:
    from kiln.complexes import view_as_complex

    return view_as_complex(pairs)


def _limits(dtype: DType, low: float | None, high: float | None) -> tuple[float, float]:
    """Where elements begin and end, the end not included."""
    first: float = 0 if dtype is T.bool_ or not dtype.is_signed else -9
    last: float = 2 if dtype is T.bool_ else 9 if dtype.is_inexact else 10
    least, most = first if low is None else low, last if high is None else high
    if math.isnan(least) or math.isnan(most):
        raise InvalidValueError(
            f"`low` and `high` cannot be NaN, but got low={least!r} and high={most!r}", op="make_tensor"
        )
    if least >= most:
        raise InvalidValueError(f"`low` must be less than `high`, but got {least} >= {most}", op="make_tensor")
    if dtype.is_inexact:
        return least, most
    lowest, above = (0, 2) if dtype is T.bool_ else (dtype.least, dtype.most + 1)
    if most <= lowest or least >= above:
        raise InvalidValueError(
            f"The value interval specified by `low` and `high` is [{least}, {most}), but {dtype!r} only supports "
            f"[{lowest}, {above})",
            op="make_tensor",
        )
    return max(least, lowest), min(most, above)
