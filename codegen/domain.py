"""Domains: the index space that one generated kernel walks, and where operations read and write in it.

A kernel has a full shape F and a set R of its dimensions that its reductions run over (maybe none). Its values live
on the full domain or on the kept one (F without R), whatever dimensions of size one they have besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kiln.ir import loops as L
from kiln.ir.graph import Constant, Operation
from kiln.ir.loops import Expr, Vec
from kiln.ir.ops.base import Dense, ElementContext, OpDef, Reduction, State, ints_attr
from kiln.ir.types import Shape

Index = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """F and R."""

    full: Shape
    reduced: tuple[int, ...] = ()

    @property
    def kept(self) -> Shape:
        return tuple(d for i, d in enumerate(self.full) if i not in self.reduced)

    def by_rows(self) -> bool:
        """Whether the last logical dimension is reduced."""
        return bool(self.reduced) and self.reduced[-1] == len(self.full) - 1


def stripped(shape: Shape) -> Shape:
    """A shape without its dimensions of size one."""
    return tuple(d for d in shape if d != 1)


def coordinates(domain: Domain) -> list[Expr]:
    """One index variable per dimension of the full domain; 0 where the size is one and nothing is reduced."""
    return [
        L.index(0) if d == 1 and i not in domain.reduced else L.Var(L.INDEX, f"i{i}") for i, d in enumerate(domain.full)
    ]


def align(shape: Shape, domain: Domain, coords: Sequence[Expr]) -> Index | None:
    """The index of a value of `shape` at the point `coords` of the domain; None when it lives on neither the
    full nor the kept domain."""
    plain = stripped(shape)
    if plain == stripped(domain.full):
        left = iter([c for c, d in zip(coords, domain.full, strict=True) if d != 1])
    elif domain.reduced and plain == stripped(domain.kept):
        kept = [(c, d) for i, (c, d) in enumerate(zip(coords, domain.full, strict=True)) if i not in domain.reduced]
        left = iter([c for c, d in kept if d != 1])
    else:
        return None
    return tuple(L.index(0) if d == 1 else next(left) for d in shape)


def same_index(a: Expr, b: Expr) -> bool:
    """Whether two index expressions are the same object or equal literals."""
    return a is b or (isinstance(a, L.Const) and isinstance(b, L.Const) and a.value == b.value)


def same_indices(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    return len(a) == len(b) and all(map(same_index, a, b))


# -------------------------------------------------------------------------------------- operations


def definition(op: Operation) -> OpDef:
    assert isinstance(op.op, OpDef)
    return op.op


def is_literal(op: Operation) -> bool:
    """Constants that cost nothing to repeat: fills, counters, single numbers."""
    if op.op.name == "constant":
        data = op.attrs["data"]
        return isinstance(data, Constant) and data.data.size == 1
    return "constant" in definition(op).traits


def is_reduction(op: Operation) -> bool:
    return isinstance(definition(op).lower, Reduction)


def domain_of(op: Operation) -> Domain:
    """The domain of an operation by itself."""
    if is_reduction(op):
        return Domain(op.operands[0].type.shape, ints_attr(op.attrs, "dims"))
    return Domain(op.result.type.shape)


def operand_indices(op: Operation, index: Index) -> list[tuple[int, Index]]:
    """Where a Dense operation reads its operands when it computes its result at `index`."""
    lower = definition(op).lower
    assert isinstance(lower, Dense)
    if lower.pointwise:
        return [(k, index) for k in range(len(op.operands))]
    reads: list[tuple[int, Index]] = []

    def read(k: int, index: Index, where: Expr | None = None) -> Expr:
        reads.append((k, index))
        return L.Var(Vec(op.operands[k].type.dtype), f"operand{k}")

    def check(ok: Expr, kind: str, message: str, value: Expr) -> None:
        """Where it reads is all that is asked here."""

    def loop(extent: Expr, state: State, step: Callable[[Expr, State], State]) -> State:
        return step(L.Var(L.INDEX, "round"), state)

    types = tuple(v.type for v in op.operands)
    lower.at(ElementContext(types, op.result.type, op.attrs, read, check, _extent, loop), index)
    return reads


def _extent(d: object) -> Expr:
    """A dimension as an index expression."""
    return L.index(d) if isinstance(d, int) else L.Var(L.INDEX, str(d))
