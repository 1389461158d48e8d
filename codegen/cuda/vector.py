"""Several neighbouring points per thread, 16 bytes per access: the form of elementwise loops whose memory is dense.

A thread takes the chunk [first, first + lanes) of the innermost loop. What is read at neighbouring places comes to
registers first, by `Move`, the points are computed one by one in an unrolled loop, and what they store goes to memory
by `Move` again. A chunk at the end of a row, or at an address that does not allow it, moves element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kiln.ir import loops as L
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Expr, For, If, Let, Load, Store, Var
from kiln.ir.loops_gpu import Move
from kiln.ir.loops_walk import expr_children, map_expr, stmt_exprs

BYTES: Final = 16
"""The widest access."""
WEIGHT: Final = 600
"""The most operations, over all points of a thread."""
COSTLY: Final = 40
"""Operations of a function that is expanded."""


def vectorised(
    loop: For, alone: bool, inside: Block, fresh: Callable[[str], Var]
) -> tuple[int, Callable[[Var], Block]] | None:
    """How many points of `loop`, whose body is `inside`, a thread takes, and its block for the first of them. None
    where that has no form, or is worth nothing. `alone`: there are no loops around it, whose rounds would begin at
    addresses that do not allow wide accesses."""
    lets = {s.var: s.value for s in inside if isinstance(s, Let)}
    stores = [s for s in inside if isinstance(s, Store)]
    if len(lets) + len(stores) != len(inside):
        return None
    if any(s.mask is not None or step(s.buffer, s.indices, loop.var, lets) != 1 for s in stores):
        return None
    every = reachable([e for s in inside for e in stmt_exprs(s)])
    moved, rest = [], False
    for e in every:
        if isinstance(e, Load):
            found = None if e.mask is not None else step(e.buffer, e.indices, loop.var, lets)
            if found == 1:
                moved.append(e)
            rest = rest or found is None or found > 1
    sizes = [b.dtype.itemsize for b in (*(e.buffer for e in moved), *(s.buffer for s in stores))]
    lanes = BYTES // max(sizes)
    weight = sum(COSTLY if isinstance(e, L.Apply) and e.fn in MATH_FUNCTIONS else 1 for e in every)
    extent = int(loop.hi.value) if isinstance(loop.hi, L.Const) else None

    def fits(lanes: int) -> bool:
        return extent is None or (extent >= lanes if alone else extent % lanes == 0)

    while lanes > 1 and not (lanes * weight <= WEIGHT and fits(lanes)):
        lanes //= 2
    if lanes < 2:
        return None
    return lanes, lambda first: _chunk(loop, inside, moved, rest, lanes, first, fresh)


def _chunk(
    loop: For, inside: Block, moved: Sequence[Load], rest: bool, lanes: int, first: Var, fresh: Callable[[str], Var]
) -> Block:
    count, lane = fresh("count"), fresh("lane")
    out: list[L.Stmt] = [Let(count, L.sub(loop.hi, first))]
    at_first: dict[Expr, Expr] = {loop.var: first}
    at_lane: dict[Expr, Expr] = {loop.var: L.add(first, lane)}
    put: list[L.Stmt] = []
    points: list[L.Stmt] = []

    def registers(of: Buffer) -> Buffer:
        made = Buffer(f"{of.name}_{fresh('part').name}", of.dtype, (lanes,), (1,), "register")
        out.append(Alloc(made))
        return made

    def there(e: Expr) -> Expr:
        return map_expr(e, lambda x: x, at_first)

    for s in inside:
        if isinstance(s, Let):
            at_first[s.var] = there(s.value)
    for e in moved:
        part = registers(e.buffer)
        out.append(Move(e.buffer, tuple(map(there, e.indices)), part, count, False))
        at_lane[e] = L.load(part, (lane,))
    for s in inside:
        if isinstance(s, Let):
            at_lane[s.var] = map_expr(s.value, lambda x: x, at_lane)
        elif isinstance(s, Store):
            part = registers(s.buffer)
            points.append(Store(part, (lane,), map_expr(s.value, lambda x: x, at_lane)))
            put.append(Move(s.buffer, tuple(map(there, s.indices)), part, count, True))
    body = (If(L.apply("lt", lane, count), tuple(points)),) if rest else tuple(points)
    return (*out, For("unrolled", lane, L.index(0), L.index(lanes), body), *put)


def step(buffer: Buffer, indices: Sequence[Expr], var: Var, lets: dict[Var, Expr]) -> int | None:
    """By how many elements the place that is indexed moves with `var`; None where that is not one number."""
    total, known = 0, dict[Expr, "int | None"]()
    for i, stride in zip(indices, buffer.strides, strict=True):
        each = slope(i, var, lets, known)
        if each is None or (each != 0 and not isinstance(stride, int)):
            return None
        total += each * stride if isinstance(stride, int) else 0
    return total


def slope(e: Expr, var: Var, lets: dict[Var, Expr], known: dict[Expr, int | None]) -> int | None:
    """By how much an index grows when `var` grows by 1; None where that is not one number."""
    if e not in known:
        known[e] = _slope(e, var, lets, known)
    return known[e]


def _slope(e: Expr, var: Var, lets: dict[Var, Expr], known: dict[Expr, int | None]) -> int | None:
    if isinstance(e, Var):
        return 1 if e is var else slope(lets[e], var, lets, known) if e in lets else 0
    parts = [slope(x, var, lets, known) for x in expr_children(e)]
    if all(p == 0 for p in parts):
        return 0
    if isinstance(e, L.Apply) and e.type == INDEX and None not in parts:
        a, b = (*parts, 0)[:2]
        assert a is not None and b is not None
        if e.fn == "add":
            return a + b
        if e.fn == "sub":
            return a - b
        if e.fn == "mul" and isinstance(e.args[1], L.Const):
            return a * int(e.args[1].value)
        if e.fn == "mul" and isinstance(e.args[0], L.Const):
            return b * int(e.args[0].value)
    return None


def reachable(roots: Sequence[Expr]) -> list[Expr]:
    """These and all that they are made of, once each, in a fixed order."""
    found: dict[Expr, None] = {}
    stack = list(reversed(roots))
    while stack:
        e = stack.pop()
        if e not in found:
            found[e] = None
            stack += reversed(expr_children(e))
    return list(found)
