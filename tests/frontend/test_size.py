"""`kiln.Size`: what shapes are."""

from __future__ import annotations

import copy
import operator
import pickle
from pathlib import Path
from typing import Any

import pytest

import kiln


def test_shapes_are_sizes() -> None:
    x = kiln.zeros(2, 3)
    assert type(x.shape) is type(x.size()) is kiln.Size
    assert repr(x.shape) == str(x.shape) == f"{x.shape}" == "kiln.Size([2, 3])"
    assert x.shape == (2, 3) and hash(x.shape) == hash((2, 3)) and isinstance(x.shape, tuple)
    assert x.shape.numel() == 6 and kiln.tensor(1.0).shape.numel() == 1 and kiln.zeros(0, 2).shape.numel() == 0
    assert x.size(1) == x.shape[1] == 3 and type(x.shape[1]) is int


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda s: s[1:], (3,)),
        (lambda s: operator.add(s, (4,)), (2, 3, 4)),
        (lambda s: operator.add((4,), s), (4, 2, 3)),
        (lambda s: s * 2, (2, 3, 2, 3)),
        (lambda s: 2 * s, (2, 3, 2, 3)),
        (lambda s: s[::-1], (3, 2)),
        (copy.deepcopy, (2, 3)),
        (lambda s: pickle.loads(pickle.dumps(s)), (2, 3)),
    ],
)
def test_what_is_made_of_sizes(made: Any, expected: tuple[int, ...]) -> None:
    result = made(kiln.zeros(2, 3).shape)
    assert type(result) is kiln.Size and result == expected


def test_made_by_hand() -> None:
    assert kiln.Size() == () and kiln.Size([True, 2]) == (1, 2) and kiln.Size(range(2)) == (0, 1)
    with pytest.raises(kiln.ArgumentError, match=r"Size: takes ints .item 1 is a float"):
        kiln.Size([1, 2.5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="can only concatenate a tuple, not a list"):
        operator.add(kiln.Size([1]), [2])
    with pytest.raises(TypeError):
        operator.add([2], kiln.Size([1]))


def test_as_arguments_and_results() -> None:
    x = kiln.arange(6.0)
    assert kiln.zeros(kiln.Size([2, 3])).shape == x.reshape(kiln.Size([2, 3])).shape == (2, 3)
    compiled = kiln.compile(lambda x, size: (x.reshape(size) * 2, size, x.shape))
    for size in (kiln.Size([2, 3]), kiln.Size([3, 2]), kiln.Size([2, 3])):
        y, same, shape = compiled(x, size)
        assert y.shape == same == size and type(shape) is type(same) is kiln.Size and shape == (6,)


def test_saved(tmp_path: Path) -> None:
    kiln.save({"shape": kiln.zeros(2, 3).shape, "plain": (1,)}, tmp_path / "file")
    back = kiln.load(tmp_path / "file")
    assert type(back["shape"]) is kiln.Size and back["shape"] == (2, 3) and type(back["plain"]) is tuple
