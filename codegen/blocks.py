"""Small words for writing kernels in the loop IR by hand: index arithmetic, and blocks that name what they compute."""

from __future__ import annotations

from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Block, Expr, Let, Stmt, Var


def variables(names: str) -> list[Var]:
    return [Var(INDEX, name) for name in names.split()]


def minimum(a: Expr, b: Expr | int) -> Expr:
    return L.apply("min", a, L.as_index(b))


def maximum(a: Expr, b: Expr | int) -> Expr:
    return L.apply("max", a, L.as_index(b))


def quotient(a: Expr, b: Expr | int) -> Expr:
    return L.apply("div", a, L.as_index(b))


def remainder(a: Expr, b: Expr | int) -> Expr:
    return L.apply("mod", a, L.as_index(b))


def ceil_div(a: Expr, b: Expr | int) -> Expr:
    return quotient(L.add(a, L.as_index(b) - 1), b)


def is_(a: Expr, b: int) -> Expr:
    return L.apply("eq", a, L.index(b))


def disjunction(a: Expr, b: Expr) -> Expr:
    return L.apply("or", a, b)


def conjunction(a: Expr, b: Expr) -> Expr:
    return L.apply("and", a, b)


def negation(a: Expr) -> Expr:
    return L.apply("not", a)


class Names:
    """A block being written: `let("k", e)` adds a Let and gives the variable."""

    def __init__(self) -> None:
        self.statements: list[Stmt] = []

    def let(self, name: str, value: Expr) -> Var:
        var = Var(value.type, name)
        self.statements.append(Let(var, value))
        return var

    def split(self, t: Expr, n: Expr) -> tuple[Var, Var]:
        """Quotient and remainder of t by n."""
        whole = self.let("quotient", quotient(t, n))
        return whole, self.let("remainder", L.sub(t, L.mul(whole, n)))

    def add(self, *statements: Stmt) -> None:
        self.statements.extend(statements)

    def block(self) -> Block:
        return tuple(self.statements)


def transposed(rows: list[Expr]) -> list[Expr]:
    """A square block of vectors, turned: result i, lane e is rows[e], lane i. log2(lanes) rounds of exchanges
    between rows whose numbers differ in one bit."""
    size = len(rows)
    bit = 1
    while bit < size:
        low = [e if not e & bit else (e ^ bit) + size for e in range(size)]
        high = [e | bit if not e & bit else e + size for e in range(size)]
        after = list(rows)
        for i in range(size):
            if not i & bit:
                pair = (rows[i], rows[i | bit])
                after[i], after[i | bit] = L.shuffle(pair, low), L.shuffle(pair, high)
        rows = after
        bit *= 2
    return rows
