"""What two graphs have in common, and what is an instance of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kiln.ir.arena import Local, place
from kiln.ir.graph import Graph, GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.parser import parse_graph
from kiln.ir.passes.generalise import Different, Names, aligned, generalise, instance, lifted, match, match_strides
from kiln.ir.types import Sym, TensorType, float32, product, row_major, size_of


def scaled(n: int, k: int = 16, value: float | None = None, dims: tuple[int, ...] = (1,)) -> Graph:
    """The sum of rows of x / n, flat."""
    b = GraphBuilder("scaled")
    x = b.input(TensorType(float32, (n, k)))
    attrs: dict[str, Any] = {"shape": (n, k), "dtype": float32, "value": float(n) if value is None else value}
    (size,) = b.add(OPS["full"], [], attrs)
    (y,) = b.add(OPS["div"], [x, size], {})
    (flat,) = b.add(OPS["reshape"], [y], {"shape": (n * k,)})
    (rows,) = b.add(OPS["sum"], [y], {"dims": dims})
    return b.build([flat, rows])


def test_numbers_that_differ_become_names() -> None:
    general = generalise(scaled(2), scaled(7), Names())
    assert [str(v.type) for v in (*general.inputs, *general.outputs)] == [
        "float32[n0, 16]",
        "float32[16*n0]",
        "float32[n0]",
    ]
    assert match(general, scaled(2), {}) == {"n0": 2, "v0": 2.0}
    assert match(general, scaled(1000), {}) == {"n0": 1000, "v0": 1000.0}
    assert str(instance(general, {"n0": 5, "v0": 5.0})) == str(scaled(5))
    assert str(parse_graph(str(lifted(general)[0]))) == str(lifted(general)[0])


def test_what_is_no_instance() -> None:
    general = generalise(scaled(2), scaled(7), Names())
    assert match(general, scaled(3, 5), {}) is None
    assert match(general, scaled(3, dims=(0,)), {}) is None
    assert match(general, scaled(3), {"n0": 4}) is None
    square = generalise(scaled(2, 2), scaled(3, 3), Names())
    assert match(square, scaled(4, 4), {}) is not None
    assert match(square, scaled(4, 5), {}) is None


def test_signs_of_zeros_differ() -> None:
    general = generalise(scaled(2, value=0.0), scaled(2, value=-0.0), Names())
    (found, other) = (match(general, scaled(2, value=value), {}) for value in (0.0, -0.0))
    assert str(found) == "{'v0': 0.0}"
    assert str(other) == "{'v0': -0.0}"


def test_other_operations() -> None:
    with pytest.raises(Different, match="dims of sum was"):
        generalise(scaled(2), scaled(7, dims=(0,)), Names())


def test_fills_become_inputs() -> None:
    whole, fills = lifted(generalise(scaled(2), scaled(7), Names()))
    assert fills == [("v0", TensorType(float32, ()))]
    assert [str(v.type) for v in whole.inputs] == ["float32[n0, 16]", "float32[]"]
    assert all(op.op.name != "full" for op in whole.operations)


def centred(n: int) -> Graph:
    """x minus its first row: with one row, no broadcast is recorded."""
    b = GraphBuilder("centred")
    x, row = b.input(TensorType(float32, (n, 4))), b.input(TensorType(float32, (1, 4)))
    if n > 1:
        (row,) = b.add(OPS["broadcast"], [row], {"shape": (n, 4), "dims": (0, 1)})
    return b.build(b.add(OPS["sub"], [x, row], {}))


def test_sizes_of_one() -> None:
    one, many = centred(1), centred(5)
    whole = aligned(one, many)
    assert whole is not None
    general = generalise(whole, many, Names())
    assert match(general, centred(9), {}) == {"n0": 9}
    assert aligned(many, one) is None
    back = aligned(centred(1), general)
    assert back is not None
    assert match(general, back, {}) == {"n0": 1}


def test_strides() -> None:
    found: dict[str, Any] = {"n0": 3}
    assert match_strides((1, Sym("n0")), (1, 3), (4, 3), found)
    assert not match_strides((1, Sym("n0")), (1, 4), (4, 3), found)
    assert match_strides((1, Sym("n0")), None, (4, 1), found)
    assert not match_strides(None, (1, 4), (4, 3), found)
    assert match_strides(None, None, (4, 3), found)


def test_products() -> None:
    n, m = Sym("n", 3), Sym("m", 5)
    assert product((n, 2, m, 4)) == product((8, m, n)) == Sym("8*m*n")
    assert product((n, 0)) == 0
    assert product((2, 3)) == 6
    assert row_major((2, n, 4, m)) == (product((4, m, n)), product((4, m)), m, 1)
    assert size_of(product((n, 2, m)), {"n": 3, "m": 5}) == 30
    whole = product((n, 2, m))
    assert isinstance(whole, Sym)
    assert whole.hint == 30


@pytest.mark.parametrize("n", [0, 1, 3, 100])
def test_places_in_an_arena(n: int) -> None:
    values: Sequence[Local] = [
        Local(product((4, Sym("n"))), 0, 2),
        Local(256, 1, 3),
        Local(product((8, Sym("n"))), 3, 4),
        Local(64, 2, 2),
    ]
    offsets, total = place(values, {"n": n})
    spans = [(at, at + size_of(v.nbytes, {"n": n})) for at, v in zip(offsets, values, strict=True)]
    assert all(at % 64 == 0 and end <= total for at, end in spans)
    for k, a in enumerate(values):
        for other, b in enumerate(values[:k]):
            if a.born <= b.dies and b.born <= a.dies:
                assert spans[k][1] <= spans[other][0] or spans[other][1] <= spans[k][0]
