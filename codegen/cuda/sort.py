"""Sorting on a GPU: one block of threads per row, one thread per element.

Runs of 1, 2, 4, ... elements are merged pairwise as on a CPU, but every element finds its place by itself: its place in
its own run, plus how many elements of the other run come before it (a binary search; the left one of equals comes
first). A stable order of one set of keys is unique, so the result is the CPU's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kiln.codegen.lower import Lowered, Steps, Style
from kiln.codegen.sort import Lowering
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Carry, Expr, For, Let, Store, Var, While
from kiln.ir.types import DType, TensorType, int64


def lower_sort(op: Operation, strides: Sequence[Steps], style: Style) -> Lowered:
    """The kernel of an op of `SORTS`; its result is row-major."""
    lowering = _Lowering(op, strides, style)
    return lowering.lowered(lowering.body())


class _Lowering(Lowering):
    def sort(self) -> Block:
        keys, other_keys, other_places = self._scratch()
        row = self._sorted_row((keys, self.out), (other_keys, other_places))
        return (*map(Alloc, (keys, other_keys, other_places)), *self.rows(row, self.n))

    def top(self) -> Block:
        """The first k of all positions in order."""
        k, i = self.op.attrs["k"], Var(INDEX, "first")
        assert isinstance(k, int)
        scratch = *self._scratch(), self._row_major("places", int64)
        keys, other_keys, other_places, places = scratch
        first = For(
            "vector", i, L.index(0), L.index(k), (Store(self.out, (*self.lead, i), L.load(places, (*self.lead, i))),)
        )
        row = (*self._sorted_row((keys, places), (other_keys, other_places)), first)
        return (*map(Alloc, scratch), *self.rows(row, self.n))

    def _sorted_row(self, source: tuple[Buffer, Buffer], other: tuple[Buffer, Buffer]) -> Block:
        """The keys and places of a row into the source, in order."""
        keys, places = source
        i, width = Var(INDEX, "i"), Var(INDEX, "width")
        here = (*self.lead, i)
        fill = (Store(keys, here, self.key(L.load(self.inputs[0], here))), Store(places, here, i))
        there = self._pass("a", width, source, other)
        back = self._pass("b", L.mul(width, L.index(2)), other, source)
        carried = Carry(width, L.index(1), L.mul(width, L.index(4)), Var(INDEX, "done"))
        return (
            For("vector", i, L.index(0), self.n, fill),
            While(L.apply("lt", width, self.n), (there, back), (carried,)),
        )

    def _scratch(self) -> tuple[Buffer, Buffer, Buffer]:
        """Keys, and the other keys and places that are merged to."""
        kinds = {"keys": self.kind, "other_keys": self.kind, "other_places": int64}
        keys, other_keys, other_places = (self._row_major(name, kind) for name, kind in kinds.items())
        return keys, other_keys, other_places

    def _row_major(self, name: str, kind: DType) -> Buffer:
        """Memory for something of every element."""
        like = self.op.operands[0].type
        made = self.buffer(name, TensorType(kind, like.shape, like.device), None)
        return replace(made, scope="workspace")

    def _pass(self, tag: str, width: Expr, source: tuple[Buffer, Buffer], target: tuple[Buffer, Buffer]) -> For:
        """Runs of `width` of the source (keys and places) merged by two into the target."""

        def var(stem: str) -> Var:
            return Var(INDEX, f"{stem}_{tag}")

        i, low, middle, high = var("i"), var("low"), var("middle"), var("high")
        key, other = (Var(L.Vec(self.kind), f"{stem}_{tag}") for stem in ("key", "other"))
        span = L.mul(width, L.index(2))  # a power of two
        start = L.sub(i, L.apply("and", i, L.sub(span, L.index(1))))
        on_right = Var(L.BOOL, f"on_right_{tag}")
        first, last, between, found = var("first"), var("last"), var("between"), var("found")
        ties = L.apply("and", on_right, L.apply("eq", other, key))
        before = Var(L.BOOL, f"before_{tag}")
        search = While(
            L.apply("lt", first, last),
            (
                Let(between, L.apply("shr", L.add(first, last), L.index(1))),
                Let(other, L.load(source[0], (*self.lead, between))),
                Let(before, L.apply("or", L.apply("lt", other, key), ties)),
            ),
            (
                Carry(
                    first, L.select(on_right, low, middle), L.select(before, L.add(between, L.index(1)), first), found
                ),
                Carry(last, L.select(on_right, middle, high), L.select(before, last, between), var("end")),
            ),
        )
        place = (*self.lead, L.add(L.sub(i, middle), found))
        body: Block = (
            Let(low, start),
            Let(middle, L.apply("min", L.add(low, width), self.n)),
            Let(high, L.apply("min", L.add(low, span), self.n)),
            Let(key, L.load(source[0], (*self.lead, i))),
            Let(on_right, L.apply("ge", i, middle)),
            search,
            Store(target[0], place, key),
            Store(target[1], place, L.load(source[1], (*self.lead, i))),
        )
        return For("vector", i, L.index(0), self.n, body)
