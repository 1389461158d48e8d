"""The exception tree and what its messages tell."""

from __future__ import annotations

import inspect

import pytest

import kiln
from kiln import errors
from kiln.ir.ops.base import OpTypeError
from kiln.ir.program import CheckSite
from kiln.location import source_line, user_location


def test_every_class_is_documented_and_derives_from_a_builtin() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.KilnError)]
    assert len(classes) >= 10
    for c in classes:
        assert c.__doc__
        assert c.__name__ in (errors.__doc__ or "")
        if c is not errors.KilnError:
            assert any(
                issubclass(c, b) for b in (BufferError, IndexError, OSError, RuntimeError, TypeError, ValueError)
            )


def test_message_names_op_operands_line_and_fix() -> None:
    a, b = kiln.zeros(2, 3), kiln.zeros(2, 4)
    with pytest.raises(kiln.ShapeError) as caught:
        a + b  # the line that is shown
    error, text = caught.value, str(caught.value)
    assert error.op == "add"
    assert "float32[2, 3], float32[2, 4]" in text
    assert error.loc is not None and error.loc.file == __file__
    assert error.loc.function == "test_message_names_op_operands_line_and_fix"
    assert "a + b  # the line that is shown" in text
    assert "fix: " in text


def test_the_users_line_is_the_innermost_one() -> None:
    def helper() -> kiln.Tensor:
        return kiln.zeros(2).sum(dim=3)

    with pytest.raises(IndexError) as caught:
        helper()
    assert isinstance(caught.value, kiln.KilnIndexError)
    assert caught.value.loc is not None and caught.value.loc.function == "helper"


def test_location_of_this_line() -> None:
    here = user_location()
    assert here is not None
    assert here.file == __file__
    assert source_line(here) == "here = user_location()"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("shape", kiln.ShapeError),
        ("dtype", kiln.DTypeError),
        ("dim", kiln.KilnIndexError),
        ("value", kiln.InvalidValueError),
    ],
)
def test_type_rules_become_user_errors(kind: str, expected: type[kiln.KilnError]) -> None:
    error = errors.from_type_error(OpTypeError("frob", "no good", kind, "do better"), [kiln.zeros(2)])
    assert type(error) is expected
    assert str(error).startswith("frob: no good\n  operands: float32[2]")
    assert str(error).endswith("fix: do better")


def test_checks_become_user_errors() -> None:
    site = CheckSite("index", "pick", "index {value} is out of range")
    error = errors.from_check(site, 17)
    assert isinstance(error, IndexError)
    assert str(error).startswith("pick: index 17 is out of range")


def test_primitive_rules_reach_the_user() -> None:
    with pytest.raises(kiln.DTypeError) as caught:
        kiln.relu(kiln.tensor([True]))
    assert caught.value.operands == (kiln.tensor([True]).ttype,)


def test_a_bad_label_names_its_value() -> None:
    with pytest.raises(IndexError, match="5"):
        kiln.nn.functional.cross_entropy(kiln.zeros(2, 3), kiln.tensor([0, 5]))
    with pytest.raises(IndexError, match="-1"):
        kiln.nn.functional.cross_entropy(kiln.zeros(2, 3), kiln.tensor([0, -1]))
