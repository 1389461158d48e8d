"""Sorting on a GPU: one block of threads per row, one thread per element.

Runs of 1, 2, 4, ... elements are merged pairwise as on a CPU, but every element finds its place by itself: its place in
its own run, plus how many elements of the other run come before it (a binary search; the left one of equals comes
first). A stable order of one set of keys is unique, so the result is the CPU's.
"""

from __future__ import annotations

from collections.abc import Sequence

from kiln.codegen.lower import Lowered, Steps, Style
from kiln.codegen.sort import Lowering
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Carry, Expr, For, Let, Store, Var, While
from kiln.ir.types import int64


def lower_sort(op: Operation, strides: Sequence[Steps], style: Style) -> Lowered:
    """The kernel of an argsort or searchsorted; its result is row-major."""
    lowering = _Lowering(op, strides, style)
    return lowering.lowered(lowering.sort() if op.op.name == "argsort" else lowering.search())


class _Lowering(Lowering):
    def sort(self) -> Block:
        names = ("keys", "other_keys", "other_places")
        keys, other_keys, other_places = (self._like_out(name) for name in names)
        i, width = Var(INDEX, "i"), Var(INDEX, "width")
        here = (*self.lead, i)
        fill = (Store(keys, here, self.key(L.load(self.inputs[0], here))), Store(self.out, here, i))
        there = self._pass("a", width, (keys, self.out), (other_keys, other_places))
        back = self._pass("b", L.mul(width, L.index(2)), (other_keys, other_places), (keys, self.out))
        carried = Carry(width, L.index(1), L.mul(width, L.index(4)), Var(INDEX, "done"))
        row: Block = (
            For("vector", i, L.index(0), self.n, fill),
            While(L.apply("lt", width, self.n), (there, back), (carried,)),
        )
        scratch = tuple(Alloc(b) for b in (keys, other_keys, other_places))
        return (*scratch, *self.rows(row, self.n))

    def _like_out(self, name: str) -> Buffer:
        return Buffer(name, int64, self.out.shape, self.out.strides, "workspace")

    def _pass(self, tag: str, width: Expr, source: tuple[Buffer, Buffer], target: tuple[Buffer, Buffer]) -> For:
        """Runs of `width` of the source (keys and places) merged by two into the target."""

        def var(stem: str) -> Var:
            return Var(INDEX, f"{stem}_{tag}")

        i, low, middle, high, key = var("i"), var("low"), var("middle"), var("high"), var("key")
        span = L.mul(width, L.index(2))
        start = L.mul(L.apply("div", i, span), span)
        on_right = Var(L.BOOL, f"on_right_{tag}")
        first, last, between, found = var("first"), var("last"), var("between"), var("found")
        other = var("other")
        ties = L.apply("and", on_right, L.apply("eq", other, key))
        before = Var(L.BOOL, f"before_{tag}")
        search = While(
            L.apply("lt", first, last),
            (
                Let(between, L.apply("div", L.add(first, last), L.index(2))),
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
