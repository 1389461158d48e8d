"""Walking loop kernels: the children of expressions and statements, rebuilding, iterating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kiln.ir.loops import (
    Apply,
    Block,
    Carry,
    Expr,
    For,
    If,
    Invoke,
    Let,
    Load,
    Ramp,
    Reduce,
    Shuffle,
    Splat,
    Stmt,
    Store,
    Verify,
    Warp,
    While,
)
from kiln.ir.loops_gpu import Move, Rank


def expr_children(e: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression."""
    if isinstance(e, Apply):
        return e.args
    if isinstance(e, Load):
        return e.indices if e.mask is None else (*e.indices, e.mask)
    if isinstance(e, Ramp):
        return (e.base,)
    if isinstance(e, Splat | Warp):
        return (e.value,)
    if isinstance(e, Shuffle):
        return e.operands
    return ()


def operands_first(e: Expr, known: Callable[[Expr], bool]) -> Iterator[Expr]:
    """`e` and the applications below it that are not known yet, operands before their users; the caller makes each
    known before it asks for the next one. Recursion would go as deep as the expression, which may be hundreds."""
    stack = [e]
    while stack:
        x = stack[-1]
        if known(x):
            stack.pop()
            continue
        for a in x.args if isinstance(x, Apply) else ():
            if not known(a):
                stack.append(a)
                break
        else:
            stack.pop()
            yield x


def map_expr(e: Expr, f: Callable[[Expr], Expr], memo: dict[Expr, Expr]) -> Expr:
    """Rebuild bottom-up: `f` is given each node with its children already mapped, and returns it or another.
    `memo` keeps sharing; types must be preserved by `f` or handled by it."""
    found = memo.get(e)
    if found is not None:
        return found
    old = expr_children(e)
    new = tuple(map_expr(c, f, memo) for c in old)
    out = e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)
    out = f(out)
    memo[e] = out
    return out


def substituted(e: Expr, memo: dict[Expr, Expr]) -> Expr:
    """`e` with what `memo` knows replaced, which keeps what was made of the rest."""
    return map_expr(e, lambda x: x, memo)


def with_children(e: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node over other operands (of the same types)."""
    if isinstance(e, Apply):
        return Apply(e.type, e.fn, new)
    if isinstance(e, Load):
        n = len(e.indices)
        return Load(e.type, e.buffer, new[:n], new[n] if e.mask is not None else None)
    if isinstance(e, Ramp):
        return Ramp(e.type, new[0])
    if isinstance(e, Splat):
        return Splat(e.type, new[0])
    if isinstance(e, Warp):
        return Warp(e.type, new[0], e.xor)
    if isinstance(e, Shuffle):
        return Shuffle(e.type, new, e.picks)
    return e


def stmt_exprs(s: Stmt) -> tuple[Expr, ...]:
    """The expressions a statement evaluates itself (not those of its blocks)."""
    match s:
        case Let():
            return (s.value,)
        case Store():
            return (*s.indices, s.value) if s.mask is None else (*s.indices, s.value, s.mask)
        case For():
            grain = () if s.grain is None else (s.grain,)
            return (s.lo, s.hi, *grain, *(c.init for c in s.carried))
        case While():
            return tuple(c.init for c in s.carried)
        case If():
            return (s.cond,)
        case Reduce():
            return tuple(hi for _, hi in s.axes)
        case Verify():
            return (s.ok, s.value) if s.mask is None else (s.ok, s.value, s.mask)
        case Rank():
            return (s.count,)
        case Move():
            return (*s.indices, s.count) if s.at is None else (*s.indices, s.count, s.at)
        case Invoke():
            return tuple(a[1] if isinstance(a, tuple) else a for a in s.args)
        case _:
            return ()


def stmt_blocks(s: Stmt) -> tuple[tuple[Block, tuple[Expr, ...]], ...]:
    """The blocks of a statement, each with the expressions evaluated at its end (carried `next`s, a While's
    test, a Reduce's values)."""
    match s:
        case For():
            return ((s.body, tuple(c.next for c in s.carried)),)
        case While():
            return ((s.body, (s.test, *(c.next for c in s.carried))),)
        case If():
            return ((s.then, ()), (s.orelse, ()))
        case Reduce():
            return ((s.body, s.values),)
        case _:
            return ()


def rewritten(block: Block, of: Callable[[Expr], Expr], store: Callable[[Store], Store] = lambda s: s) -> Block:
    """A block with `of` applied to its expressions, and then `store` to its stores."""

    def carries(carried: tuple[Carry, ...]) -> tuple[Carry, ...]:
        return tuple(replace(c, init=of(c.init), next=of(c.next)) for c in carried)

    def one(s: Stmt) -> Stmt:
        match s:
            case Let():
                return Let(s.var, of(s.value))
            case Store():
                mask = None if s.mask is None else of(s.mask)
                return store(Store(s.buffer, tuple(map(of, s.indices)), of(s.value), mask))
            case If():
                return If(of(s.cond), inside(s.then), inside(s.orelse))
            case For():
                return replace(s, lo=of(s.lo), hi=of(s.hi), body=inside(s.body), carried=carries(s.carried))
            case While():
                return replace(s, test=of(s.test), body=inside(s.body), carried=carries(s.carried))
            case Reduce():
                axes = tuple((var, of(n)) for var, n in s.axes)
                return replace(s, axes=axes, body=inside(s.body), values=tuple(map(of, s.values)))
            case Verify():
                return replace(s, ok=of(s.ok), value=of(s.value), mask=None if s.mask is None else of(s.mask))
            case _:
                return s

    def inside(b: Block) -> Block:
        return tuple(map(one, b))

    return inside(block)


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


def evaluated(block: Block) -> list[Expr]:
    """What the statements of a block evaluate, those inside others among them."""
    return [e for s in walk(block) for e in (*stmt_exprs(s), *(e for _, ends in stmt_blocks(s) for e in ends))]


def walk(block: Block) -> Iterator[Stmt]:
    """Every statement, outer before inner."""
    for s in block:
        yield s
        for inner, _ in stmt_blocks(s):
            yield from walk(inner)
