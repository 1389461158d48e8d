"""`kiln.testing`: the tolerances and messages are those that torch.testing has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln.testing import assert_close, make_tensor

A = kiln.tensor([1.0, 2.0, 3.0])
NAN = kiln.tensor([float("nan")])


@pytest.mark.parametrize(
    ("actual", "expected", "options"),
    [
        (A, A + 1e-6, {}),
        (A, A.double(), {"check_dtype": False}),
        (A, A + 0.05, {"rtol": 0.1, "atol": 0.0}),
        (NAN, NAN, {"equal_nan": True}),
        (A, kiln.nn.Parameter(A), {}),
        (kiln.zeros(0), kiln.zeros(0), {}),
        ((1.0,), [1.0], {}),
        ({"a": [A, None, True]}, {"a": [A, None, True]}, {}),
        (np.array([1.0]), np.array([1.0]), {}),
        (kiln.tensor([1.0], dtype=kiln.bfloat16), kiln.tensor([1.01], dtype=kiln.bfloat16), {}),
        (kiln.tensor([float("inf")]), kiln.tensor([float("inf")]), {}),
        (1, 1, {}),
        (kiln.zeros(2, 3).t(), kiln.zeros(3, 2), {}),
    ],
)
def test_close(actual: Any, expected: Any, options: Any) -> None:
    assert_close(actual, expected, **options)


DIFFERENT = """Tensor-likes are not close!

Mismatched elements: 3 / 3 (100.0%)
Greatest absolute difference: 1.0 at index (0,) (up to 1e-05 allowed)
Greatest relative difference: 0.5 at index (0,) (up to 1.3e-06 allowed)"""


@pytest.mark.parametrize(
    ("actual", "expected", "options", "message"),
    [
        (A, A + 1, {}, DIFFERENT),
        (
            A,
            kiln.tensor([1.0, 2.0, 3.1]),
            {},
            "Tensor-likes are not close!\n\nMismatched elements: 1 / 3 (33.3%)\n"
            "Greatest absolute difference: 0.09999990463256836 at index (2,) (up to 1e-05 allowed)\n"
            "Greatest relative difference: 0.032258033752441406 at index (2,) (up to 1.3e-06 allowed)",
        ),
        (
            kiln.arange(6.0).reshape(2, 3),
            kiln.zeros(2, 3),
            {},
            "Tensor-likes are not close!\n\nMismatched elements: 5 / 6 (83.3%)\n"
            "Greatest absolute difference: 5.0 at index (1, 2) (up to 1e-05 allowed)\n"
            "Greatest relative difference: inf at index (0, 1) (up to 1.3e-06 allowed)",
        ),
        (
            kiln.tensor([1, 2]),
            kiln.tensor([1, 3]),
            {},
            "Tensor-likes are not equal!\n\nMismatched elements: 1 / 2 (50.0%)\n"
            "Greatest absolute difference: 1 at index (1,)\n"
            "Greatest relative difference: 0.3333333432674408 at index (1,)",
        ),
        (
            kiln.tensor([True, False]),
            kiln.tensor([True, True]),
            {},
            "Tensor-likes are not equal!\n\nMismatched elements: 1 / 2 (50.0%)\n"
            "Greatest absolute difference: 1 at index (1,)\nGreatest relative difference: 1.0 at index (1,)",
        ),
        (
            kiln.tensor([1.0, 2.0], dtype=kiln.float16),
            kiln.tensor([1.0, 2.1], dtype=kiln.float16),
            {},
            "Tensor-likes are not close!\n\nMismatched elements: 1 / 2 (50.0%)\n"
            "Greatest absolute difference: 0.099609375 at index (1,) (up to 1e-05 allowed)\n"
            "Greatest relative difference: 0.047454833984375 at index (1,) (up to 0.001 allowed)",
        ),
        (
            kiln.tensor([1 + 1j]),
            kiln.tensor([1 + 2j]),
            {},
            "Tensor-likes are not close!\n\nMismatched elements: 1 / 1 (100.0%)\n"
            "Greatest absolute difference: 1.0 at index (0,) (up to 1e-05 allowed)\n"
            "Greatest relative difference: 0.4472135901451111 at index (0,) (up to 1.3e-06 allowed)",
        ),
        (
            kiln.tensor(1.0),
            kiln.tensor(2.0),
            {},
            "Scalars are not close!\n\nExpected 2.0 but got 1.0.\nAbsolute difference: 1.0 (up to 1e-05 allowed)\n"
            "Relative difference: 0.5 (up to 1.3e-06 allowed)",
        ),
        (
            1,
            2,
            {},
            "Scalars are not equal!\n\nExpected 2 but got 1.\nAbsolute difference: 1\nRelative difference: 0.5",
        ),
        (
            1.0,
            float("nan"),
            {},
            "Scalars are not close!\n\nExpected nan but got 1.0.\nAbsolute difference: nan (up to 1e-07 allowed)\n"
            "Relative difference: nan (up to 1e-07 allowed)",
        ),
        (
            A,
            kiln.tensor([1.0, 2.0]),
            {},
            "The values for attribute 'shape' do not match: kiln.Size([3]) != kiln.Size([2]).",
        ),
        (A, A.double(), {}, "The values for attribute 'dtype' do not match: kiln.float32 != kiln.float64."),
        (
            kiln.zeros(2, 3).t(),
            kiln.zeros(3, 2),
            {"check_stride": True},
            "The values for attribute 'stride()' do not match: (1, 3) != (2, 1).",
        ),
        (1, 1.0, {}, "The (d)types do not match: <class 'int'> != <class 'float'>."),
        (True, False, {}, "Booleans mismatch: True is not False"),
        (None, 3, {}, "None mismatch: None is not 3"),
        ([A, A], [A, A + 1], {}, f"{DIFFERENT}\n\nThe failure occurred for item [1]"),
        ({"x": [A]}, {"x": [A + 1]}, {}, f"{DIFFERENT}\n\nThe failure occurred for item ['x'][0]"),
        ([A, A], [A], {}, "The length of the sequences mismatch: 2 != 1"),
        (
            {"x": A},
            {"y": A},
            {},
            "The keys of the mappings do not match:\nMissing keys in the actual mapping: ['y']\n"
            "Additional keys in the actual mapping: ['x']",
        ),
        (A, A + 1, {"msg": "hi"}, "hi"),
        (A, A + 1, {"msg": lambda text: f"before\n{text}"}, f"before\n{DIFFERENT}"),
    ],
)
def test_not_close(actual: Any, expected: Any, options: Any, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_close(actual, expected, **options)
    assert str(caught.value) == message


def test_what_cannot_be_compared() -> None:
    for actual, expected in ((A, [1.0]), (A, np.ones(3)), ("a", "a"), (object(), object())):
        with pytest.raises(kiln.ArgumentError, match="No comparison pair"):
            assert_close(actual, expected)
    with pytest.raises(kiln.ArgumentError):
        assert_close(A, kiln.nn.Parameter(A), allow_subclasses=False)
    with pytest.raises(kiln.InvalidValueError, match="got no atol"):
        assert_close(A, A, rtol=0.1)


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [
        (kiln.float32, -9, 9),
        (kiln.float64, -9, 9),
        (kiln.bfloat16, -9, 9),
        (kiln.int8, -9, 9),
        (kiln.int64, -9, 9),
        (kiln.uint8, 0, 9),
        (kiln.bool, 0, 1),
        (kiln.complex64, -9, 9),
    ],
)
def test_made(dtype: Any, least: float, most: float) -> None:
    x = make_tensor((20, 50), dtype=dtype, device="cpu")
    assert x.dtype is dtype and x.shape == (20, 50)
    values = (kiln.view_as_real(x) if dtype.is_complex else x).double()
    assert least <= values.min().item() < least + 0.6 and most - 0.6 < values.max().item() <= most


def test_made_otherwise() -> None:
    x = make_tensor(2, 3, dtype=kiln.float32, device="cpu", low=1, high=2, noncontiguous=True, requires_grad=True)
    assert x.shape == (2, 3) and x.stride() == (6, 2) and x.requires_grad
    assert bool(((x >= 1) & (x < 2)).all())
    y = make_tensor(500, dtype=kiln.int32, device="cpu", low=-1, high=2, exclude_zero=True)
    assert set(y.tolist()) == {-1, 1}
    assert set(make_tensor(4, dtype=kiln.int32, device="cpu", low=1.5, high=2.5).tolist()) == {2}
    assert make_tensor((), dtype=kiln.float32, device="cpu").shape == ()
    for options, message in (
        ({"dtype": kiln.float32, "low": 5, "high": 4}, "`low` must be less than `high`, but got 5 >= 4"),
        ({"dtype": kiln.uint8, "low": 300, "high": 301}, "only supports"),
        ({"dtype": kiln.float32, "low": float("nan")}, "cannot be NaN"),
    ):
        with pytest.raises(kiln.InvalidValueError, match=message):
            make_tensor(3, device="cpu", **options)  # type: ignore[arg-type]
    with pytest.raises(kiln.DTypeError, match="requires_grad=True"):
        make_tensor(3, dtype=kiln.int64, device="cpu", requires_grad=True)
