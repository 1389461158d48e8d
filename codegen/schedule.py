"""Logical kernel to CPU kernel: explicit 16-lane vectors, masked tails, reductions in the contract's orders.

- `For(kind="vector")` becomes a serial loop over whole vectors and one masked vector for the rest; with a grain, in
  parallel chunks. Every value that
  depends on the loop variable becomes a vector of `LANES` lanes, whatever its dtype; the others stay scalar.
- `Reduce(order="lanes")` becomes, per block of `BLOCK` elements, `GROUPS` vector accumulators, then shuffles;
  its masked tail holds the identity. `Reduce(order="serial")` becomes chains over blocks of `ROWS`, run in each lane
  of the vector loop around it. Both follow `ir/order.py` to the letter.
- functions like exp are expanded into arithmetic (`mathlib.py`).

Parallel loops stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from kiln.codegen import halves
from kiln.codegen.mathlib import expand
from kiln.ir import loops as L
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import (
    BOOL,
    INDEX,
    Apply,
    Block,
    Const,
    Expr,
    For,
    Kernel,
    Let,
    Load,
    Ramp,
    Reduce,
    Stmt,
    Var,
    Vec,
)
from kiln.ir.loops_walk import expr_children, operands_first, stmt_exprs, walk, with_children
from kiln.ir.ops.base import literal
from kiln.ir.order import BLOCK, GROUPS, LANES, ROWS, identity
from kiln.ir.target import Target

STEP = GROUPS * LANES
CHUNK = 4096
"""Elements of a plain vector loop that a thread takes at a time."""
State = tuple[Expr, ...]


def schedule(kernel: Kernel, target: Target) -> Kernel:
    """The CPU form of a logical kernel. The vector width is the same on every machine (LLVM splits vectors that
    are wider than a register); `target` only decides who widens float16: CPUs with fused multiply-add can."""
    scheduler = _Scheduler(target.fma)
    return replace(kernel, body=scheduler.block(kernel.body, _Scope()))


@dataclass(frozen=True)
class _Scope:
    """The vector loop around a statement: how many lanes there are, and which of them are real (None: all)."""

    lanes: int = 1
    mask: Expr | None = None


class _Scheduler:
    """Rewrites blocks; `_memo` maps old expressions to new ones and keeps sharing."""

    def __init__(self, widens: bool) -> None:
        self._memo: dict[Expr, Expr] = {}
        self._count = 0
        self._widens = widens
        self._starts: set[Expr] = set()
        """What whole vectors of loops begin at: multiples of `LANES`."""

    def var(self, stem: str, type: Vec = INDEX) -> Var:
        self._count += 1
        return Var(type, f"{stem}_{self._count}")

    # --------------------------------------------------------------------------------- expressions

    def expr(self, e: Expr, scope: _Scope) -> Expr:
        """`e` over the rewritten variables, as wide as they make it, functions expanded."""
        for x in operands_first(e, self._memo.__contains__):
            old = expr_children(x)
            new = tuple(self.expr(c, scope) for c in old)
            found = x if all(a is b for a, b in zip(old, new, strict=True)) else self._rebuild(x, new, scope)
            if isinstance(found, Apply) and found.fn in MATH_FUNCTIONS:
                found = expand(found.fn, found.args)
            elif halves.is_conversion(found):
                found = halves.expand(found, self._widens)
            self._memo[x] = found
        return self._memo[e]

    def _rebuild(self, e: Expr, new: State, scope: _Scope) -> Expr:
        lanes = max(c.lanes for c in new)
        if lanes == 1 or e.lanes == lanes:
            return with_children(e, new)
        if isinstance(e, Load):
            return _wide_load(e, new, lanes, scope.mask, self._starts)
        assert isinstance(e, Apply), type(e).__name__
        if e.fn in ("add", "sub") and e.type == INDEX:
            shifted = _shift_ramp(e.fn, *new)
            if shifted is not None:
                return shifted
        wide = tuple(L.splat(c, lanes) for c in new)
        return Apply(Vec(e.dtype, lanes), e.fn, wide)

    def mask(self, mask: Expr | None, scope: _Scope) -> Expr | None:
        """A statement's own mask and that of the vector loop."""
        own = None if mask is None else self.expr(mask, scope)
        if own is None or scope.mask is None:
            return scope.mask if own is None else own
        return L.apply("and", L.splat(own, scope.lanes), scope.mask)

    # ---------------------------------------------------------------------------------- statements

    def block(self, block: Block, scope: _Scope) -> Block:
        out: list[Stmt] = []
        for s in block:
            self._stmt(s, scope, out)
        return tuple(out)

    def instance(self, block: Block, values: State, scope: _Scope, bind: dict[Expr, Expr]) -> tuple[Block, State]:
        """A copy of a block with some variables replaced: one per unrolled step, main loop or tail."""
        saved = self._memo
        self._memo = {**saved, **bind}
        copied = self.block(block, scope)
        results = tuple(self.expr(v, scope) for v in values)
        self._memo = saved
        return copied, results

    def _stmt(self, s: Stmt, scope: _Scope, out: list[Stmt]) -> None:
        match s:
            case Let():
                self._let(s.var, self.expr(s.value, scope), out)
            case L.Store():
                self._store(s, scope, out)
            case L.Verify():
                ok, value = self.expr(s.ok, scope), self.expr(s.value, scope)
                out.append(L.Verify(ok, s.site, value, self.mask(s.mask, scope)))
            case Reduce():
                self._reduce(s, scope, out)
            case For(kind="vector"):
                self._vector(s, scope, out)
            case For(body=(For(kind="vector") as inner,)) if scope.lanes == 1 and _tileable(s, inner):
                self._tiles(s, inner, out)
            case For():
                self._for(s, scope, out)
            case L.If():
                cond = self.expr(s.cond, scope)
                if cond.lanes > 1:
                    raise TypeError("an If on a vector condition: use select or a mask")
                out.append(L.If(cond, self.block(s.then, scope), self.block(s.orelse, scope)))
            case L.Invoke():
                args = tuple(
                    (a[0], self.expr(a[1], scope)) if isinstance(a, tuple) else self.expr(a, scope) for a in s.args
                )
                out.append(L.Invoke(s.symbol, args))
            case L.While():
                self._while(s, scope, out)
            case L.Alloc():
                out.append(s)
            case _:
                raise TypeError(f"no CPU schedule for {type(s).__name__}")

    def _let(self, var: Var, value: Expr, out: list[Stmt]) -> None:
        """Constants and variables are substituted, the rest is bound (each copy of a block to names of its own)."""
        if isinstance(value, Const | Var):
            self._memo[var] = value
            return
        fresh = self.var(var.name, value.type)
        self._memo[var] = fresh
        out.append(Let(fresh, value))

    def _store(self, s: L.Store, scope: _Scope, out: list[Stmt]) -> None:
        indices = tuple(self.expr(i, scope) for i in s.indices)
        value, mask = self.expr(s.value, scope), self.mask(s.mask, scope)
        lanes = max(i.lanes for i in indices) if indices else 1
        if lanes == 1 and value.lanes == 1 and (s.mask is None or mask is None or mask.lanes == 1):
            own = None if s.mask is None else self.expr(s.mask, scope)
            store = L.Store(s.buffer, indices, value)
            out.append(store if own is None else L.If(own, (store,)))
            return
        if lanes == 1:
            raise TypeError(f"the lanes of a store to {s.buffer.name} all hit one element")
        out.append(L.Store(s.buffer, indices, L.splat(value, lanes), None if mask is None else L.splat(mask, lanes)))

    def _for(self, s: For, scope: _Scope, out: list[Stmt]) -> None:
        """A loop that stays one; carried values become as wide as what they carry."""
        lo, hi = self.expr(s.lo, scope), self.expr(s.hi, scope)
        if lo.lanes > 1 or hi.lanes > 1:
            raise TypeError("a loop's bounds differ between the lanes of a vector loop")
        grain = None if s.grain is None else self.expr(s.grain, scope)
        var = self.var(s.var.name)
        lanes = scope.lanes if s.carried else 1
        inits = [L.splat(self.expr(c.init, scope), lanes) for c in s.carried]
        names = [self.var(c.var.name, init.type) for c, init in zip(s.carried, inits, strict=True)]
        bind: dict[Expr, Expr] = {s.var: var, **{c.var: n for c, n in zip(s.carried, names, strict=True)}}
        body, nexts = self.instance(s.body, tuple(c.next for c in s.carried), scope, bind)
        carried = []
        for c, name, init, after in zip(s.carried, names, inits, nexts, strict=True):
            result = self.var(c.result.name, init.type)
            self._memo[c.result] = result
            carried.append(L.Carry(name, init, L.splat(after, lanes), result))
        out.append(For(s.kind, var, lo, hi, body, s.step, tuple(carried), grain))

    def _while(self, s: L.While, scope: _Scope, out: list[Stmt]) -> None:
        """A scalar loop that stays one."""
        if scope.lanes > 1:
            raise TypeError("a While inside a vector loop has no CPU schedule yet")
        inits = [self.expr(c.init, scope) for c in s.carried]
        names = [self.var(c.var.name, c.var.type) for c in s.carried]
        bind: dict[Expr, Expr] = {c.var: n for c, n in zip(s.carried, names, strict=True)}
        body, (test, *nexts) = self.instance(s.body, (s.test, *(c.next for c in s.carried)), scope, bind)
        carried = []
        for c, name, init, after in zip(s.carried, names, inits, nexts, strict=True):
            result = self.var(c.result.name, c.var.type)
            self._memo[c.result] = result
            carried.append(L.Carry(name, init, after, result))
        out.append(L.While(test, body, tuple(carried)))

    # -------------------------------------------------------------------------------- vector loops

    def _vector(self, s: For, scope: _Scope, out: list[Stmt]) -> None:
        """A vector loop; one with a grain is cut into chunks for the threads."""
        if scope.lanes > 1:
            self._for(replace(s, kind="serial", grain=None), scope, out)
            return
        lo, hi = self.expr(s.lo, scope), self.expr(s.hi, scope)
        if not (isinstance(lo, Const) and lo.value == 0 and s.step == 1 and not s.carried):
            raise TypeError("a vector loop runs from 0 in steps of 1 and carries nothing")
        # Chains take wide strips of columns: neighbours in memory are read together, and chains wait for themselves.
        strips = any(isinstance(x, Reduce) or (isinstance(x, For) and x.carried) for x in walk(s.body))
        widths, size = ((STEP, LANES), STEP) if strips else ((LANES,), CHUNK)
        grain = None if s.grain is None else self.expr(s.grain, scope)
        least = int(grain.value) if isinstance(grain, Const) else 0
        if grain is None or (isinstance(hi, Const) and int(hi.value) <= max(size, least)):
            self._span(s, L.index(0), hi, widths, out)
            return
        chunk = self.var("chunk")
        start = L.mul(chunk, L.index(size))
        span: Expr = L.index(size)
        if not (isinstance(hi, Const) and int(hi.value) % size == 0):
            span = L.apply("min", L.sub(hi, start), span)
        inner: list[Stmt] = []
        self._span(s, start, span, widths, inner)
        count = _quotient(L.add(hi, L.index(size - 1)), size)
        worth = _quotient(L.add(grain, L.index(size - 1)), size)
        out.append(For("parallel", chunk, L.index(0), count, tuple(inner), grain=worth))

    def _span(self, s: For, start: Expr, span: Expr, widths: tuple[int, ...], out: list[Stmt]) -> None:
        """`span` iterations of a vector loop from `start` on: whole vectors, then one masked vector."""
        at, left = start, span
        for width in widths:
            whole = _round_down(left, width)
            if not (isinstance(whole, Const) and whole.value == 0):
                base = self.var(s.var.name)
                self._starts.add(base)
                body, _ = self.instance(s.body, (), _Scope(width), {s.var: L.ramp(base, width)})
                out.append(For("serial", base, at, L.add(at, whole), body, width))
            at, left = L.add(at, whole), L.sub(left, whole)
        stop = L.add(at, left)
        self._starts.add(at)
        self._when(_positive(left), lambda: self.instance(s.body, (), *_tail(at, stop, s.var))[0], out)

    def _tiles(self, s: For, inner: For, out: list[Stmt]) -> None:
        """Rows whose elements lie far apart, as in a transposed operand: `LANES` columns of `LANES` rows at a time,
        so that what a row's gathers fetch beside its own elements serves the next rows."""
        hi, width = self.expr(s.hi, _Scope()), self.expr(inner.hi, _Scope())
        tile, whole = self.var("tile"), _round_down(width, LANES)
        first = L.mul(tile, L.index(LANES))
        stop = L.apply("min", hi, L.add(first, L.index(LANES)))

        def rows(scope: _Scope, bind: dict[Expr, Expr]) -> Block:
            row = self.var(s.var.name)
            body, _ = self.instance(inner.body, (), scope, {s.var: row, **bind})
            return (For("serial", row, first, stop, body),)

        body: list[Stmt] = []
        base = self.var(inner.var.name)
        columns = rows(_Scope(LANES), {inner.var: L.ramp(base, LANES)})
        body.append(For("serial", base, L.index(0), whole, columns, LANES))
        self._when(_positive(L.sub(width, whole)), lambda: rows(*_tail(whole, width, inner.var)), body)
        grain = None if s.grain is None else _quotient(L.add(self.expr(s.grain, _Scope()), L.index(LANES - 1)), LANES)
        count = _quotient(L.add(hi, L.index(LANES - 1)), LANES)
        out.append(For(s.kind, tile, L.index(0), count, tuple(body), grain=grain))

    def _when(self, test: bool | Expr, make: Callable[[], Block], out: list[Stmt]) -> None:
        """Statements that run if `test`, decided now where it can be."""
        if test is True:
            out.extend(make())
        elif test is not False:
            out.append(L.If(test, make()))

    # ---------------------------------------------------------------------------------- reductions

    def _reduce(self, s: Reduce, scope: _Scope, out: list[Stmt]) -> None:
        if s.order == "lanes" and scope.lanes == 1:
            state = self._lanes(s, out)
        elif s.order == "lanes":
            raise TypeError("a row reduction inside a vector loop")
        else:
            state = self._serial(s, scope, out)
        for var, value in zip(s.results, state, strict=True):
            self._let(var, value, out)

    def _neutral(self, s: Reduce, lanes: int) -> State:
        """The neutral state; an arg-reduction's index is beyond every real one."""
        dtype = s.values[0].dtype
        first: Expr = L.const(identity(s.combine, dtype), Vec(dtype, lanes))
        return (first, L.const(2**63 - 1, Vec(INDEX.dtype, lanes))) if s.combine == "argmax" else (first,)

    def _finish(self, s: Reduce, state: State, count: Expr) -> State:
        """An empty floating sum is +0.0."""
        if s.combine != "add" or not state[0].dtype.is_floating_point:
            return state
        zero = L.const(0.0, state[0].type)
        if isinstance(count, Const):
            return state if int(count.value) > 0 else (zero,)
        empty = L.splat(L.apply("eq", count, L.index(0)), state[0].lanes)
        return (L.select(empty, zero, state[0]),)

    def _loop(
        self,
        lo: Expr,
        hi: Expr,
        step: int,
        init: State,
        body: Callable[[Var, State, list[Stmt]], State],
        out: list[Stmt],
    ) -> State:
        """A serial loop that carries a state; returns the final state."""
        var = self.var("k")
        names = tuple(self.var("acc", e.type) for e in init)
        inner: list[Stmt] = []
        after = body(var, names, inner)
        results = tuple(self.var("acc", e.type) for e in init)
        carried = tuple(L.Carry(v, i, n, r) for v, i, n, r in zip(names, init, after, results, strict=True))
        out.append(For("serial", var, lo, hi, tuple(inner), step, carried))
        return results

    def _blocks(
        self,
        s: Reduce,
        count: Expr,
        size: int,
        init: State,
        part: Callable[[Expr, Expr, list[Stmt]], State],
        out: list[Stmt],
    ) -> State:
        """Block results combined ascending; a single block stands alone."""
        if isinstance(count, Const) and int(count.value) <= size:
            return self._finish(s, part(L.index(0), count, out), count)

        def one(start: Var, total: State, inner: list[Stmt]) -> State:
            stop = L.apply("min", L.add(start, L.index(size)), count)
            return combine_state(s.combine, total, part(start, stop, inner))

        return self._finish(s, self._loop(L.index(0), count, size, init, one, out), count)

    def _lanes(self, s: Reduce, out: list[Stmt]) -> State:
        ((var, extent),) = s.axes
        scope = _Scope()
        count = self.expr(extent, scope)

        def values(at: Expr, hi: Expr | None, inner: list[Stmt]) -> State:
            """The candidates of one vector at `at`; lanes from `hi` on hold the identity."""
            bind: dict[Expr, Expr] = {var: L.ramp(at, LANES)}
            inside = _Scope(LANES)
            if hi is not None:
                inside, bind = _tail(at, hi, var)
            body, found = self.instance(s.body, s.values, inside, bind)
            inner.extend(body)
            wide = tuple(L.splat(v, LANES) for v in found)
            if inside.mask is None:
                return wide
            neutral = self._neutral(s, LANES)
            return tuple(L.select(inside.mask, v, n) for v, n in zip(wide, neutral, strict=True))

        def part(start: Expr, stop: Expr, inner: list[Stmt]) -> State:
            groups = self._groups(s, start, stop, values, inner)
            return self._across(s, groups, inner)

        return self._blocks(s, count, BLOCK, self._neutral(s, 1), part, out)

    def _groups(
        self,
        s: Reduce,
        start: Expr,
        stop: Expr,
        values: Callable[[Expr, Expr | None, list[Stmt]], State],
        out: list[Stmt],
    ) -> list[State]:
        """The accumulators of one block: whole steps of all groups, then what is left, group by group."""
        width = len(s.values)
        span = L.sub(stop, start)
        whole = L.add(start, _round_down(span, STEP))
        groups: list[State] = [self._neutral(s, LANES) for _ in range(GROUPS)]
        if not (isinstance(span, Const) and int(span.value) < STEP):

            def step(at: Var, flat: State, inner: list[Stmt]) -> State:
                after: list[Expr] = []
                for g in range(GROUPS):
                    state = flat[g * width : (g + 1) * width]
                    fresh = values(L.add(at, L.index(g * LANES)), None, inner)
                    after.extend(combine_state(s.combine, state, fresh))
                return tuple(after)

            flat = self._loop(start, whole, STEP, tuple(e for g in groups for e in g), step, out)
            groups = [flat[g * width : (g + 1) * width] for g in range(GROUPS)]
        for g in range(GROUPS):
            at = L.add(whole, L.index(g * LANES))
            left = L.sub(stop, at)
            if isinstance(left, Const):
                if int(left.value) > 0:
                    fresh = values(at, None if int(left.value) >= LANES else stop, out)
                    groups[g] = combine_state(s.combine, groups[g], fresh)
                continue
            # A loop of at most one round: skipped when nothing is left for this group.
            stop_at = L.apply("min", stop, L.add(at, L.index(1)))
            groups[g] = self._loop(
                at,
                stop_at,
                LANES,
                groups[g],
                lambda v, state, inner: combine_state(s.combine, state, values(v, stop, inner)),
                out,
            )
        return groups

    def _across(self, s: Reduce, groups: list[State], out: list[Stmt]) -> State:
        """(g0 + g1) + (g2 + g3), then the lanes as a tree over halves."""
        low = combine_state(s.combine, groups[0], groups[1])
        state = combine_state(s.combine, low, combine_state(s.combine, groups[2], groups[3]))
        width = LANES // 2
        while width:
            left = tuple(L.shuffle([e], range(width)) for e in state)
            right = tuple(L.shuffle([e], range(width, 2 * width)) for e in state)
            state = combine_state(s.combine, left, right)
            width //= 2
        return state

    def _serial(self, s: Reduce, scope: _Scope, out: list[Stmt]) -> State:
        extents = [self.expr(extent, scope) for _, extent in s.axes]
        count: Expr = L.index(1)
        for extent in extents:
            count = L.mul(count, extent)
        lanes = scope.lanes
        init = self._neutral(s, lanes)

        def row(k: Var, state: State, inner: list[Stmt]) -> State:
            bind: dict[Expr, Expr] = {}
            rest: Expr = k
            for (var, _), extent in reversed(list(zip(s.axes[1:], extents[1:], strict=True))):
                bind[var] = L.apply("mod", rest, extent)
                rest = L.apply("div", rest, extent)
            bind[s.axes[0][0]] = rest
            body, found = self.instance(s.body, s.values, scope, bind)
            inner.extend(body)
            return combine_state(s.combine, state, tuple(L.splat(v, lanes) for v in found))

        def part(start: Expr, stop: Expr, inner: list[Stmt]) -> State:
            return self._loop(start, stop, 1, init, row, inner)

        return self._blocks(s, count, ROWS, init, part, out)


def combine_state(combine: str, a: State, b: State) -> State:
    """a `combine` b. "argmax" carries (value, index): NaN wins, then the larger value, then the lower index."""
    if combine != "argmax":
        return (L.apply(combine, a[0], b[0]),)
    (av, ai), (bv, bi) = a, b
    better, same = L.apply("gt", bv, av), L.apply("eq", av, bv)
    if av.dtype.is_floating_point:
        a_nan, b_nan = L.apply("ne", av, av), L.apply("ne", bv, bv)
        better = L.apply("or", better, L.apply("and", b_nan, L.apply("not", a_nan)))
        same = L.apply("or", same, L.apply("and", a_nan, b_nan))
    take = L.apply("or", better, L.apply("and", same, L.apply("lt", bi, ai)))
    return L.select(take, bv, av), L.select(take, bi, ai)


def _tail(at: Expr, hi: Expr, var: Var) -> tuple[_Scope, dict[Expr, Expr]]:
    """The scope of a partial vector at `at`: lanes below `hi` are real."""
    lanes = L.ramp(at, LANES)
    mask = L.apply("lt", lanes, L.splat(hi, LANES))
    return _Scope(LANES, mask), {var: lanes}


def _wide_load(e: Load, new: State, lanes: int, real: Expr | None, starts: set[Expr]) -> Expr:
    """A vector load; lanes that are not `real` (past the end of the loop) are not read."""
    n = len(e.indices)
    indices, mask = new[:n], new[n] if e.mask is not None else None
    if real is not None:
        mask = real if mask is None else L.apply("and", L.splat(mask, lanes), real)
    if all(i.lanes == 1 for i in indices):  # a vector mask over one element
        assert mask is not None
        anywhere = Load(Vec(e.dtype), e.buffer, indices, _any_lane(mask))
        return L.select(mask, L.splat(anywhere, lanes), literal(0, Vec(e.dtype, lanes)))
    mask = None if mask is None else L.splat(mask, lanes)
    if indices and e.buffer.strides[-1] == 1 and all(i.lanes == 1 for i in indices[:-1]):
        first, halves = _doubled(indices[-1]), _halved(indices[-1], starts)
        if first is not None:
            return _every_second(e, (*indices[:-1], first), mask, lanes)
        if halves is not None:
            return _twice(e, (*indices[:-1], halves[0]), halves[1], mask, lanes)
    return Load(Vec(e.dtype, lanes), e.buffer, indices, mask)


def _every_second(e: Load, indices: State, mask: Expr | None, lanes: int) -> Expr:
    """Every second element from `indices` on: two vectors without the elements between, which may not be there, put
    together. Gathering them costs several times as much."""
    halves = []
    for part in range(2):
        picks = [part * lanes // 2 + lane // 2 if lane % 2 == 0 else lanes for lane in range(lanes)]
        there = L.const(True, Vec(BOOL.dtype, lanes)) if mask is None else mask
        even = L.shuffle([there, L.const(False, there.type)], picks)
        at = L.ramp(L.add(indices[-1], L.index(part * lanes)), lanes)
        halves.append(Load(Vec(e.dtype, lanes), e.buffer, (*indices[:-1], at), even))
    return L.shuffle(halves, range(0, 2 * lanes, 2))


def _twice(e: Load, indices: State, odd: int, mask: Expr | None, lanes: int) -> Expr:
    """Every element from `indices` on in two lanes; if `odd`, the first one in one lane."""
    there = L.const(True, Vec(BOOL.dtype, lanes)) if mask is None else mask
    off = L.const(False, there.type)
    left, right = (
        L.shuffle([there, off], [k if 0 <= k < lanes else lanes for k in range(shift - odd, 2 * lanes, 2)][:lanes])
        for shift in (0, 1)
    )
    at = L.ramp(indices[-1], lanes)
    found = Load(Vec(e.dtype, lanes), e.buffer, (*indices[:-1], at), L.apply("or", left, right))
    return L.shuffle([found], [(k + odd) // 2 for k in range(lanes)])


def _halved(e: Expr, starts: set[Expr]) -> tuple[Expr, int] | None:
    """The first of indices that are half of a ramp's, and whether that one is odd; None for others. What vectors
    start at (`starts`) is even, so only the literals beside it count."""
    if not (isinstance(e, Apply) and e.fn == "shr" and isinstance(e.args[0], Ramp)):
        return None
    (ramp, by), shift = e.args, 0
    assert isinstance(ramp, Ramp)
    base = ramp.base
    while isinstance(base, Apply) and base.fn in ("add", "sub") and isinstance(base.args[1], Const):
        shift += int(base.args[1].value) * (1 if base.fn == "add" else -1)
        base = base.args[0]
    if isinstance(base, Const):
        shift += int(base.value)
    elif base not in starts:
        return None
    if not (isinstance(by, Const) and by.value == 1):
        return None
    return L.apply("shr", ramp.base, L.index(1)), shift % 2


def _doubled(e: Expr) -> Expr | None:
    """The first of indices that grow by two from lane to lane; None for others."""
    if not isinstance(e, Apply) or len(e.args) != 2:
        return None
    a, b = e.args
    if e.fn == "mul" and isinstance(a, Ramp) and isinstance(b, Const) and b.value == 2:
        return L.mul(a.base, L.index(2))
    if e.fn in ("add", "sub") and isinstance(b, Const | L.Splat):
        first = _doubled(a)
        shift = L.index(int(b.value)) if isinstance(b, Const) else b.value
        if first is not None:
            return L.add(first, shift) if e.fn == "add" else L.sub(first, shift)
    return None


def _any_lane(mask: Expr) -> Expr:
    """Whether some lane of a mask is true."""
    width = mask.lanes // 2
    while width:
        mask = L.apply("or", L.shuffle([mask], range(width)), L.shuffle([mask], range(width, 2 * width)))
        width //= 2
    return mask


def _shift_ramp(fn: str, a: Expr, b: Expr) -> Expr | None:
    """A ramp plus or minus a scalar stays a ramp, so that the access stays contiguous."""
    if isinstance(a, Ramp) and b.lanes == 1:
        return L.ramp(L.add(a.base, b) if fn == "add" else L.sub(a.base, b), a.lanes)
    if fn == "add" and isinstance(b, Ramp) and a.lanes == 1:
        return L.ramp(L.add(b.base, a), b.lanes)
    return None


def _round_down(n: Expr, step: int) -> Expr:
    """The largest multiple of a power of two that is not above n (n >= 0)."""
    if isinstance(n, Const):
        return L.index(int(n.value) // step * step)
    return L.apply("and", n, L.index(-step))


def _tileable(rows: For, loop: For) -> bool:
    """Whether rows of a plain vector loop read elements that are not neighbours in memory, and may be visited in
    another order: they are independent by their kind, or because nothing that they write is read or written by
    another row."""
    from_zero = all(isinstance(x.lo, Const) and x.lo.value == 0 and x.step == 1 and not x.carried for x in (rows, loop))
    if not from_zero or rows.kind not in ("parallel", "serial") or loop.grain is not None:
        return False
    if any(isinstance(x, Reduce | For | L.While | L.Invoke | L.Verify) for x in walk(loop.body)):
        return False
    if rows.var in _reachable([loop.hi]):
        return False
    loads = [e for e in _reachable([e for x in walk(loop.body) for e in stmt_exprs(x)]) if isinstance(e, Load)]
    if rows.kind == "serial":
        stores = [x for x in walk(loop.body) if isinstance(x, L.Store)]
        if {x.buffer for x in stores} & {e.buffer for e in loads}:
            return False
        if any(rows.var not in x.indices or loop.var not in x.indices for x in stores):
            return False
    steps = [s for e in loads for i, s in zip(e.indices, e.buffer.strides, strict=True) if i is loop.var]
    return any(not isinstance(s, int) or s not in (0, 1) for s in steps)


def _reachable(roots: list[Expr]) -> set[Expr]:
    """The expressions and everything they are made of."""
    seen: set[Expr] = set()
    pending = list(roots)
    while pending:
        e = pending.pop()
        if e not in seen:
            seen.add(e)
            pending.extend(expr_children(e))
    return seen


def _quotient(n: Expr, divisor: int) -> Expr:
    """n / divisor for n >= 0."""
    return L.index(int(n.value) // divisor) if isinstance(n, Const) else L.apply("div", n, L.index(divisor))


def _positive(n: Expr) -> bool | Expr:
    """Whether n > 0, decided now where it is known."""
    if isinstance(n, Const):
        return int(n.value) > 0
    return L.apply("gt", n, L.index(0))
