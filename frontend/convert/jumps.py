"""`return`, `break` and `continue` inside control flow, lowered: to else-branches where that says it all, to flags
elsewhere.

A branch that may be staged must end where it ends. So `if t: return a` with what follows it becomes an `if` with an
`else`; what can jump only sometimes sets a flag, and what follows asks for it:

    __skipN__      the rest of this iteration of loop N is over (by any jump)
    __breakN__     loop N is over (`break`, or `return` from inside)
    __returned__   the function is over; `__value__` is its result

Whether a statement contains a jump is asked of the original statements, before any of them is rewritten.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

from kiln.convert.scopes import Scope, bind

VALUE: Final = "__value__"
RETURNED: Final = "__returned__"
_SITES: Final = (ast.If, ast.While, ast.For)


class Leaves(IntEnum):
    """Whether control leaves a block by a jump."""

    NEVER = 0
    SOMETIMES = 1
    ALWAYS = 2


def leaves(block: Sequence[ast.AST], inside: bool = False) -> Leaves:
    """Whether jumps leave a block; `inside` a loop of that block, only `return` does."""
    result = Leaves.NEVER
    for statement in block:
        found = _leaves(statement, inside)
        if found is Leaves.ALWAYS:
            return Leaves.ALWAYS
        result = max(result, found)
    return result


def _leaves(s: ast.AST, inside: bool) -> Leaves:
    if isinstance(s, ast.Return):
        return Leaves.ALWAYS
    if isinstance(s, (ast.Break, ast.Continue)):
        return Leaves.NEVER if inside else Leaves.ALWAYS
    if isinstance(s, ast.If):
        then, orelse = leaves(s.body, inside), leaves(s.orelse, inside)
        return then if then is orelse else Leaves.SOMETIMES
    if isinstance(s, ast.While) and isinstance(s.test, ast.Constant) and s.test.value and not _breaks(s.body):
        return Leaves.ALWAYS if leaves(s.body, True) else Leaves.NEVER  # by `return`, or by an exception
    parts: list[Leaves] = []
    if isinstance(s, (ast.For, ast.AsyncFor, ast.While)):
        parts = [leaves(s.body, True), leaves(s.orelse, inside)]
    elif isinstance(s, (ast.With, ast.AsyncWith)):
        parts = [leaves(s.body, inside)]
    elif isinstance(s, (ast.Try, ast.TryStar)):
        blocks = [s.body, s.orelse, s.finalbody, *(h.body for h in s.handlers)]
        parts = [leaves(b, inside) for b in blocks]
    elif isinstance(s, ast.Match):
        parts = [leaves(c.body, inside) for c in s.cases]
    return Leaves.SOMETIMES if any(parts) else Leaves.NEVER


def needs_lowering(body: Sequence[ast.AST], staged: bool = False) -> bool:
    """Whether a jump stands inside a statement that may be staged."""
    for s in body:
        if isinstance(s, (ast.Return, ast.Break, ast.Continue)):
            if staged:
                return True
            continue
        if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        deeper = staged or isinstance(s, _SITES)
        if any(needs_lowering(block, deeper) for block in _blocks(s)):
            return True
    return False


def _blocks(s: ast.AST) -> list[list[ast.stmt]]:
    blocks = [getattr(s, name, None) or [] for name in ("body", "orelse", "finalbody")]
    blocks += [part.body for part in (*getattr(s, "handlers", ()), *getattr(s, "cases", ()))]
    return blocks


class Lowering:
    """Lowers one function's body. `counter` numbers loops, over all functions of one conversion."""

    def __init__(self, counter: list[int]) -> None:
        self.counter = counter
        self.loops: list[int] = []
        self.tested: set[str] = set()
        self.flags: set[str] = set()

    def function(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The body without jumps but for a last `return`. None may stand in `finally`, where it drops an exception."""
        doc = [s for s in body[:1] if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
        rest = body[len(doc) :]
        last = place(rest[-1])
        if leaves(rest) is not Leaves.ALWAYS:
            rest = [*rest, ast.Return(value=None, **last)]
        lowered = self._block(rest)
        start = [self._set(RETURNED, False, rest[0])]
        while lowered and hasattr(lowered[-1], "_flag"):
            lowered.pop()
        end = lowered[-1]
        if isinstance(end, ast.Assign) and isinstance(end.targets[0], ast.Name) and end.targets[0].id == VALUE:
            lowered[-1] = ast.Return(value=end.value, **place(end))
        else:
            lowered.append(ast.Return(value=ast.Name(VALUE, ast.Load(), **last), **last))
        return [*doc, *start, *lowered]

    def _set(self, flag: str, value: bool, where: ast.AST) -> ast.stmt:
        self.flags.add(flag)
        at = place(where)
        node = ast.Assign([ast.Name(flag, ast.Store(), **at)], ast.Constant(value, **at), **at)
        node._flag = flag  # type: ignore[attr-defined]
        return node

    def unset(self, where: ast.AST, flag: str) -> ast.expr:
        """The test that a flag is not set."""
        self.tested.add(flag)
        self.flags.add(flag)
        at = place(where)
        node = ast.UnaryOp(ast.Not(), ast.Name(flag, ast.Load(), **at), **at)
        node._flag = flag  # type: ignore[attr-defined]
        return node

    def _guard(self, body: list[ast.stmt], flag: str | None = None) -> list[ast.stmt]:
        """A block that runs unless a jump came before it."""
        if not body:
            return []
        if flag is None:
            flag = f"__skip{self.loops[-1]}__" if self.loops else RETURNED
        test = self.unset(body[0], flag)
        return [ast.If(test=test, body=self._block(body), orelse=[], **place(body[0]))]

    def _block(self, block: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for n, s in enumerate(block):
            rest = block[n + 1 :]
            left = _leaves(s, False)
            if isinstance(s, (ast.Return, ast.Break, ast.Continue)):
                return [*out, *self._jump(s), *_unreachable(rest)]
            if left is Leaves.NEVER:
                out += self._plain(s)
            elif isinstance(s, ast.If):
                return [*out, *self._if(s, left, rest)]
            else:
                return [*out, *self._plain(s), *self._guard(rest)]
        return out

    def _if(self, s: ast.If, left: Leaves, rest: list[ast.stmt]) -> list[ast.stmt]:
        """An `if` with a jump inside, and what follows it."""
        then, orelse = leaves(s.body), leaves(s.orelse)
        after: list[ast.stmt] = []
        if left is Leaves.ALWAYS:
            s.body, s.orelse, after = self._block(s.body), self._block(s.orelse), _unreachable(rest)
        elif then is Leaves.ALWAYS:
            s.body, s.orelse = self._block(s.body), self._block([*s.orelse, *rest])
        elif orelse is Leaves.ALWAYS:
            s.body, s.orelse = self._block([*s.body, *rest]), self._block(s.orelse)
        else:
            s.body, s.orelse, after = self._block(s.body), self._block(s.orelse), self._guard(rest)
        return [s, *after]

    def _jump(self, s: ast.Return | ast.Break | ast.Continue) -> list[ast.stmt]:
        over = [f"__skip{n}__" for n in self.loops[-1:]]
        out: list[ast.stmt] = []
        if isinstance(s, ast.Return):
            at = place(s)
            value = s.value if s.value is not None else ast.Constant(None, **at)
            out.append(ast.Assign([ast.Name(VALUE, ast.Store(), **at)], value, **at))
            over = [RETURNED, *(f"__{kind}{n}__" for n in self.loops for kind in ("skip", "break"))]
        elif isinstance(s, ast.Break):
            over.append(f"__break{self.loops[-1]}__")
        return [*out, *(self._set(flag, True, s) for flag in over)]

    def _plain(self, s: ast.stmt) -> list[ast.stmt]:
        """A statement that is not a jump, with its blocks lowered."""
        if isinstance(s, (ast.For, ast.While)):
            return self._loop(s)
        if isinstance(s, ast.If):
            s.body, s.orelse = self._block(s.body), self._block(s.orelse)
        elif isinstance(s, ast.With):
            s.body = self._block(s.body)
        elif isinstance(s, ast.Match):
            for case in s.cases:
                case.body = self._block(case.body)
        elif isinstance(s, (ast.Try, ast.TryStar)):
            jumps = leaves(s.body)
            s.body = self._block(s.body)
            for handler in s.handlers:
                handler.body = self._block(handler.body)
            s.orelse = self._guard(s.orelse) if jumps else self._block(s.orelse)
            s.finalbody = self._block(s.finalbody)
        return [s]

    def _loop(self, s: ast.For | ast.While) -> list[ast.stmt]:
        """A loop; its `else` becomes a block behind it."""
        self.counter[0] += 1
        number = self.counter[0]
        over, skip = f"__break{number}__", f"__skip{number}__"
        ends = _breaks(s.body) or bool(leaves(s.body, True))
        s._exit = over if ends else None  # type: ignore[union-attr]
        orelse, s.orelse = s.orelse, []
        out: list[ast.stmt] = []
        if ends:
            out.append(self._set(over, False, s))
            test = self.unset(s, over)
            if isinstance(s, ast.While):
                s.test = ast.BoolOp(ast.And(), [test, s.test], **place(s.test))
        self.loops.append(number)
        start = self._set(skip, False, s.body[0])
        s.body = [start, *self._block(s.body)]
        self.loops.pop()
        return [*out, s, *(self._guard(orelse, over) if ends else self._block(orelse))]


def _breaks(block: Sequence[ast.AST]) -> bool:
    """Whether a `break` of the loop around it stands in a block."""
    for s in block:
        if isinstance(s, ast.Break):
            return True
        if isinstance(s, (ast.For, ast.AsyncFor, ast.While)):
            if _breaks(s.orelse):
                return True
        elif not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and any(map(_breaks, _blocks(s))):
            return True
    return False


def _unreachable(block: list[ast.stmt]) -> list[ast.stmt]:
    """What is left of statements behind a jump: they never run, but the names that they bind are local."""
    scope = Scope("function", None, "")
    bind(block, scope)
    if not scope.bound:
        return []
    at = place(block[0])
    names: list[ast.expr] = [ast.Name(name, ast.Store(), **at) for name in sorted(scope.bound)]
    return [
        ast.If(
            test=ast.Constant(False, **at), body=[ast.Assign(names, ast.Constant(None, **at), **at)], orelse=[], **at
        )
    ]


def place(node: ast.AST) -> dict[str, Any]:
    """Where a node stands, to make others that stand there."""
    return {
        "lineno": node.lineno,  # type: ignore[attr-defined]
        "col_offset": node.col_offset,  # type: ignore[attr-defined]
        "end_lineno": node.end_lineno,  # type: ignore[attr-defined]
        "end_col_offset": node.end_col_offset,  # type: ignore[attr-defined]
    }
