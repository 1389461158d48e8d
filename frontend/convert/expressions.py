"""Expressions, rewritten to go through `__h__`.

Each new node stands where the user's stood, so that lines and columns in tracebacks are the original's. `value` gives
an expression of the same value, `truth` one that is True, False, or to be staged.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, TypeVar

from kiln.convert.find import Refused, copied
from kiln.convert.hooks import Site
from kiln.convert.jumps import place
from kiln.convert.scopes import Scope, comprehension_scope, function_scope, mangled
from kiln.convert.sites import HOOKS, Context, Part, Plan

TEST: Final = "__s__"
_FRAMES: Final = {
    "locals": "it calls locals(), which would see the converter's variables",
    "eval": "it calls eval(), which would see the converter's variables, and runs code that can't be converted",
    "exec": "it calls exec(), which would see the converter's variables, and runs code that can't be converted",
    "vars": "it calls vars() without an argument, which would see the converter's variables",
    "dir": "it calls dir() without an argument, which would see the converter's variables",
}
_WITH_ARGUMENT: Final = ("vars", "dir")
_LOOKS_AT_FRAMES: Final = frozenset({"_getframe", "currentframe"})
_CONVERSIONS: Final = {ord("r"): "repr_", ord("s"): "str_", ord("a"): "ascii_"}

Log = tuple[str, Scope, bool]
PartCompiler = Callable[[str], Callable[[Part, Sequence[str]], CodeType]]
_T = TypeVar("_T", bound=ast.AST)


class HandedOut(ast.expr):
    """What a function returns to callers that take nothing but what Python makes."""

    _fields = ("value",)
    value: ast.expr


def hand_out(body: Sequence[ast.stmt]) -> None:
    """Mark what the statements of a function return."""
    todo: list[ast.AST] = list(body)
    for s in todo:
        if isinstance(s, ast.Return) and s.value is not None:
            marked = ast.copy_location(HandedOut(), s.value)
            marked.value, s.value = s.value, marked
        elif not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            todo += ast.iter_child_nodes(s)


class Expressions:
    """The part of the converter that rewrites expressions."""

    def __init__(
        self, context: Context, root: Scope, imported: set[str], function: str, compile_part: PartCompiler
    ) -> None:
        self.context = context
        self.imported = imported
        self.scope = root
        self.function = function
        self.compile_part = compile_part
        self.log: list[Log] = []
        """Variables as they are met: name, the scope it lives in, whether it was bound or deleted."""
        self.names_ok = True
        """Whether a named expression may stand here."""
        self.suspensions = 0
        self.counter = [0]
        self.loops: list[int] = []
        """Where in the log the loops begin that stand around."""
        self.closed: set[str] = set()
        """Variables that functions inside read: at any time."""
        self.sure: set[str] = set()
        """Variables of the function that are bound on every path to where we are now."""
        self._table: dict[type, Callable[[Any], ast.expr]] = {
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Subscript: self._subscript,
            ast.Slice: self._slice,
            ast.Call: self._call,
            ast.BoolOp: self._boolean_value,
            ast.UnaryOp: self._unary,
            ast.IfExp: lambda n: self._ifexp(n, self.value),
            ast.Compare: lambda n: self._compare(n, self.value),
            ast.NamedExpr: self._named,
            ast.Lambda: self._lambda,
            ast.ListComp: self._comprehension,
            ast.SetComp: self._comprehension,
            ast.DictComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
            ast.FormattedValue: self._field,
            HandedOut: lambda n: self.hook("handed_out", n, self.value(n.value)),
            ast.JoinedStr: self._joined_text,
            ast.BinOp: self._binary,
            ast.Yield: self._suspension,
            ast.YieldFrom: self._suspension,
            ast.Await: self._suspension,
            ast.Constant: lambda n: n,
        }

    # ------------------------------------------------------------------------------------------ building

    def hook(self, name: str, where: ast.AST, *args: ast.expr) -> ast.Call:
        """A call of a hook, at a place."""
        function = self.member(HOOKS, name, where)
        return ast.Call(function, list(args), [], **place(where))

    def member(self, x: str, name: str, where: ast.AST) -> ast.Attribute:
        """`x.name`, on one line: Python's compiler says that a method call stands where its name ends."""
        at = place(where)
        at["end_lineno"], at["end_col_offset"] = at["lineno"], at["col_offset"]
        return ast.Attribute(ast.Name(x, ast.Load(), **at), name, ast.Load(), **at)

    def text(self, x: Any, where: ast.AST) -> ast.Constant:
        """A constant, at a place."""
        return ast.Constant(x, **place(where))

    def plan(
        self, kind: str, where: ast.AST, start: int, parts: Sequence[Part | None], exit: str | None = None
    ) -> list[ast.expr]:
        """Note a site whose parts mention what the log has from `start` on. Returns what is said of it to a hook: its
        number, and a function that closes over its variables."""
        chain = set(self.scope.chain())
        seen = [(name, owner, bound) for name, owner, bound in self.log[start:] if owner in chain]
        shared = [(name, s) for s in chain for name in s.shared if self.scope.find(name) is s]
        mentioned = {name: owner for name, owner, _ in seen} | dict(shared)
        changed = {name for name, _, bound in seen if bound} | {name for name, _ in shared}
        assigned = tuple(sorted(name for name in changed if mentioned[name].kind != "comprehension"))
        cells = tuple(mangled(n, self.scope.owner) for n in assigned)
        live = self._live(kind in ("for", "while"), start, frozenset(assigned))
        site = Site(kind, self.context.file, getattr(where, "lineno", 0), self.function, assigned, exit, live)
        self.context.plans.append(Plan(site, tuple(parts), cells, self.compile_part(self.function)))
        at = place(where)
        names: list[ast.expr] = [ast.Name(n, ast.Load(), **at) for n in sorted({HOOKS, *mentioned})]
        nothing = ast.arguments([], [], None, [], [], None, [])
        scope = ast.Lambda(nothing, ast.Tuple(names, ast.Load(), **at), **at)
        return [ast.Constant(len(self.context.plans) - 1, **at), scope]

    def _live(self, loop: bool, start: int, assigned: frozenset[str]) -> Callable[[], frozenset[str]]:
        """Which of a place's variables may be read after it, once all is converted. The place, perhaps a loop itself,
        began at `start`. What is read in a loop around it is read again, by the place itself, too."""
        log, end, closed = self.log, len(self.log), self.closed
        again = min(self.loops, default=None)
        begin = end if again is None or (loop and again == start) else again
        targets = set(_first_bound(log[start:end]))

        @lru_cache(maxsize=1)
        def live() -> frozenset[str]:
            own = {name for name, _, bound in log[max(begin, start) : end] if not bound} - targets
            read = own.union(name for name, _, bound in (*log[begin:start], *log[end:]) if not bound)
            return frozenset(assigned & (read | closed))

        return live

    def returns(self, expression: ast.expr) -> Part:
        """A part that has a value."""
        return Part([ast.Return(expression, **place(expression))])

    @property
    def in_class(self) -> bool:
        """Whether names here are a class body's, which functions can't see."""
        return self.scope.within().kind == "class"

    # ------------------------------------------------------------------------------------------ entries

    def value(self, n: ast.expr) -> ast.expr:
        """An expression with the value of the user's."""
        rewrite = self._table.get(type(n))
        return rewrite(n) if rewrite is not None else self.children(n)

    def truth(self, n: ast.expr) -> ast.expr:
        """An expression with the truth of the user's: True, False, or what is to be staged."""
        if isinstance(n, ast.BoolOp):
            return self._boolean(n, self.truth)
        if isinstance(n, ast.Compare) and len(n.ops) > 1:
            return self._compare(n, self.truth)
        if isinstance(n, ast.IfExp):
            return self._ifexp(n, self.truth)
        if isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.Not) and not hasattr(n, "_flag"):
            return self.hook("test", n, self.hook("not_", n, self.truth(n.operand)))
        if isinstance(n, ast.Constant):
            return self.text(bool(n.value), n)
        return self.hook("test", n, self.value(n))

    def decision(self, n: ast.expr) -> ast.expr:
        """An expression with the truth of the user's: True or False."""
        if isinstance(n, ast.Constant):
            return n
        if self.names_ok and not self.in_class:
            leaf = not isinstance(n, (ast.BoolOp, ast.Compare, ast.IfExp, ast.UnaryOp))
            return self.hook("truth", n, self.value(n) if leaf else self.truth(n))
        if isinstance(n, ast.BoolOp):
            n.values = [self.decision(v) for v in n.values]
        elif isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.Not):
            n.operand = self.decision(n.operand)
        elif isinstance(n, ast.IfExp):
            n.test, n.body, n.orelse = self.decision(n.test), self.decision(n.body), self.decision(n.orelse)
        elif isinstance(n, ast.Compare) and len(n.ops) > 1:
            return self.children(n)
        else:
            return self.hook("truth", n, self.value(n))
        return n

    def values(self, nodes: Iterable[ast.expr]) -> list[ast.expr]:
        """Each of a list."""
        return [self.value(n) for n in nodes]

    def children(self, n: _T) -> _T:
        """A node of a kind that nothing is done about, with its parts rewritten."""
        for name in n._fields:
            part = getattr(n, name, None)
            if isinstance(part, ast.expr):
                setattr(n, name, self.value(part))
            elif isinstance(part, list):
                setattr(n, name, [self.value(p) if isinstance(p, ast.expr) else p for p in part])
        return n

    # ------------------------------------------------------------------------------------------ names

    def note(self, name: str, bound: bool = False) -> Scope | None:
        """A variable is met. Returns the scope that it lives in."""
        owner = self.scope.find(name)
        if owner is not None:
            self.log.append((name, owner, bound))
            if owner is not self.scope.within():
                self.closed.add(name)
            if bound and owner is self.scope.within():
                self.sure.add(name)
        return owner

    def _name(self, n: ast.Name) -> ast.expr:
        if not isinstance(n.ctx, ast.Load):
            self.note(n.id, bound=True)
            return n
        owner = self.note(n.id)
        if owner is not None:
            if owner.kind == "function" and n.id not in self.sure and owner is self.scope.within():
                return self.hook("load_local", n, self.text(n.id, n), n)
            return n
        if n.id in _FRAMES:
            raise Refused(_FRAMES[n.id])
        if n.id == "__class__" and self._has_class():
            self.log.append((n.id, self._class_cell(), False))
        if n.id in ("__class__", "__debug__"):
            return n
        return self.hook("load_global", n, self.text(mangled(n.id, self.scope.owner), n), n)

    def _named(self, n: ast.NamedExpr) -> ast.expr:
        value = self.value(n.value)
        if self.note(n.target.id, bound=True) is None:
            raise Refused(f"it gives the global name {n.target.id} a value inside an expression")
        n.value = value
        return n

    def _attribute(self, n: ast.Attribute) -> ast.expr:
        if n.attr in _LOOKS_AT_FRAMES:
            raise Refused(f"it looks at frames ({n.attr}), where converted code shows")
        if not isinstance(n.ctx, ast.Load):  # of a class body, whose statements stay as they are
            return self.children(n)
        x = self.value(n.value)
        return self.hook("load_attr", attribute_place(n, n), x, self.text(mangled(n.attr, self.scope.owner), n))

    def _subscript(self, n: ast.Subscript) -> ast.expr:
        if not isinstance(n.ctx, ast.Load):
            return self.children(n)
        return self.hook("load_item", n, self.value(n.value), self.value(n.slice))

    def _slice(self, n: ast.Slice) -> ast.expr:
        where = place(n)
        parts = [self.value(p) if p is not None else ast.Constant(None, **where) for p in (n.lower, n.upper, n.step)]
        return self.hook("slice", n, *parts)

    # ------------------------------------------------------------------------------------------ calls

    def _call(self, n: ast.Call) -> ast.expr:
        f = n.func
        if isinstance(f, ast.Name) and self.scope.find(f.id) is None:
            if f.id == "super" and not n.args and not n.keywords:
                return self._super(n)
            if f.id in _WITH_ARGUMENT and len(n.args) == 1:
                n.func = self.hook("callee", f, self.hook("load_global", f, self.text(f.id, f), f))
                n.args = self.values(n.args)
                return n
        where = attribute_place(n, f) if isinstance(f, ast.Attribute) and self._is_method(n, f) else n
        n.func = self.hook("callee", f if where is n else where, self.value(f))
        n.args = self.values(n.args)
        for keyword in n.keywords:
            keyword.value = self.value(keyword.value)
        return ast.copy_location(n, where)

    def _is_method(self, n: ast.Call, f: ast.Attribute) -> bool:
        """Whether Python's compiler makes this the call of a method."""
        simple = all(k.arg for k in n.keywords) and not any(isinstance(a, ast.Starred) for a in n.args)
        return simple and not (isinstance(f.value, ast.Name) and f.value.id in self.imported)

    def _super(self, n: ast.Call) -> ast.expr:
        """`super()` finds its class and instance through the frame that it is called from; in a branch, that is not
        the method's."""
        method = self.scope
        in_method = method.kind == "function" and method.first and not method.bound & {"__class__"}
        if not in_method or not self._has_class():
            return n
        f = n.func
        self.log.append(("__class__", self._class_cell(), False))
        self.note(method.first)
        kind = self.hook("callee", f, self.hook("load_global", f, self.text("super", f), f))
        at = place(n)
        names = [ast.Name(name, ast.Load(), **at) for name in ("super", "__class__", method.first)]
        arguments = self.hook("super_", n, *names)
        return ast.Call(kind, [ast.Starred(arguments, ast.Load(), **at)], [], **at)

    def _has_class(self) -> bool:
        return any(s.kind == "class" or "__class__" in s.bound for s in self.scope.chain())

    def _class_cell(self) -> Scope:
        """Where `__class__` lives: around the method."""
        scope = self.scope.within()
        return scope.parent if scope.parent is not None else scope

    # ------------------------------------------------------------------------------------------ choices

    def _unary(self, n: ast.UnaryOp) -> ast.expr:
        if isinstance(n.op, ast.Not):
            if hasattr(n, "_flag"):  # a flag of ours needs no test
                return self.hook("not_", n, self.value(n.operand))
            return self.hook("not_", n, self.hook("test", n, self.value(n.operand)))
        return self.children(n)

    def _boolean_value(self, n: ast.BoolOp) -> ast.expr:
        """For its value. Python asks each operand for its truth once, even where `and` and `or` are mixed, so
        `(a or b) and c` becomes `c if a else b and c`."""
        mixed = next((k for k, v in enumerate(n.values[:-1]) if isinstance(v, ast.BoolOp)), None)
        if mixed is None or self.in_class:
            return self._boolean(n, self.value)
        if mixed:
            n.values[mixed:] = [ast.BoolOp(n.op, n.values[mixed:], **place(n))]
            return self._boolean(n, self.value)
        first = n.values[0]
        assert isinstance(first, ast.BoolOp)
        at, rest = place(n), n.values[1:]
        if type(first.op) is type(n.op):
            return self._boolean_value(ast.BoolOp(n.op, [*first.values, *rest], **at))
        before, last = first.values[:-1], first.values[-1]
        test = before[0] if len(before) == 1 else ast.BoolOp(first.op, before, **place(first))
        through = ast.BoolOp(n.op, [last, *rest], **at)
        alone = copied(rest[0] if len(rest) == 1 else ast.BoolOp(n.op, rest, **at))
        then, orelse = (alone, through) if isinstance(n.op, ast.And) else (through, alone)
        return self._ifexp(ast.IfExp(test, then, orelse, **at), self.value)

    def _boolean(self, n: ast.BoolOp, rewrite: Callable[[ast.expr], ast.expr]) -> ast.expr:
        return self._joined(n, [lambda v=v: rewrite(v) for v in n.values], n.op)  # type: ignore[misc]

    def _joined(self, n: ast.expr, makers: Sequence[Callable[[], ast.expr]], op: ast.boolop) -> ast.expr:
        """`a and b and ...`, from left to right, as `a and (b and ...)`."""
        if len(makers) == 1:
            return makers[0]()
        left = makers[0]()
        start, suspensions = len(self.log), self.suspensions
        sure = set(self.sure)
        right = self._joined(n, makers[1:], op)
        self.sure = sure
        at = place(n)
        if self.in_class or self.suspensions != suspensions:
            return ast.BoolOp(op, [left, right], **at)
        kind = "and" if isinstance(op, ast.And) else "or"
        chosen = self.hook("both" if kind == "and" else "either", left, left)
        operation = ast.BoolOp(op, [chosen, right], **at)
        return self.hook("result", n, operation, *self.plan(kind, n, start, [self.returns(right)]))

    def _ifexp(self, n: ast.IfExp, rewrite: Callable[[ast.expr], ast.expr]) -> ast.expr:
        stages = self.names_ok and not self.in_class
        test = self.truth(n.test) if stages else self.decision(n.test)
        start, suspensions = len(self.log), self.suspensions
        sure = set(self.sure)
        then = rewrite(n.body)
        self.sure = set(sure)
        orelse = rewrite(n.orelse)
        self.sure = sure
        at = place(n)
        if not stages:
            return ast.IfExp(test, then, orelse, **at)
        if self.suspensions != suspensions:
            return ast.IfExp(self.hook("truth", n.test, test), then, orelse, **at)
        number = len(self.context.plans)
        name = TEST if self.scope.kind != "comprehension" else f"__s{number}__"
        site = self.plan("ifexp", n, start, [self.returns(then), self.returns(orelse)])
        staged = self.hook("ifexp", n, ast.Name(name, ast.Load(), **at), *site)
        otherwise = ast.IfExp(self.is_(name, False, n.test, negate=True), staged, orelse, **at)
        return ast.IfExp(self.is_true(name, test, n.test), then, otherwise, **at)

    def is_true(self, name: str, test: ast.expr, where: ast.AST) -> ast.expr:
        """`(name := test) is True`."""
        at = place(where)
        named = ast.NamedExpr(ast.Name(name, ast.Store(), **at), test, **at)
        return ast.Compare(named, [ast.Is()], [ast.Constant(True, **at)], **at)

    def is_(self, name: str, value: bool, where: ast.AST, negate: bool = False) -> ast.expr:
        """`name is value`."""
        at = place(where)
        op = ast.IsNot() if negate else ast.Is()
        return ast.Compare(ast.Name(name, ast.Load(), **at), [op], [ast.Constant(value, **at)], **at)

    def _compare(self, n: ast.Compare, rewrite: Callable[[ast.expr], ast.expr]) -> ast.expr:
        if len(n.ops) == 1:
            left = self.value(n.left)
            return self._pair(n, left, n.ops[0], self.value(n.comparators[0]))
        if not self.names_ok or self.in_class:
            return self.children(n)
        left = self.value(n.left)
        makers: list[Callable[[], ast.expr]] = []
        middle = [self._middle(n) for _ in n.ops[:-1]]
        for k, (op, right) in enumerate(zip(n.ops, n.comparators, strict=True)):

            def make(k: int = k, op: ast.cmpop = op, right: ast.expr = right) -> ast.expr:
                a = left if k == 0 else self._use(middle[k - 1], n)
                b = self.value(right)
                if k < len(middle):
                    self.note(middle[k], bound=True)
                    b = ast.NamedExpr(ast.Name(middle[k], ast.Store(), **place(right)), b, **place(right))
                pair = self._pair(n, a, op, b)
                return pair if rewrite == self.value else self.hook("test", n, pair)

            makers.append(make)
        return self._joined(n, makers, ast.And())

    def _middle(self, n: ast.Compare) -> str:
        """A variable for an operand that two comparisons share."""
        self.counter[0] += 1
        name = f"__middle{self.counter[0]}__"
        self.scope.within().bound.add(name)
        return name

    def _use(self, name: str, where: ast.AST) -> ast.Name:
        self.note(name)
        return ast.Name(name, ast.Load(), **place(where))

    def _pair(self, n: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
        if isinstance(op, ast.Is):
            return self.hook("is_", n, left, right)
        if isinstance(op, ast.IsNot):
            return self.hook("is_not", n, left, right)
        if isinstance(op, (ast.In, ast.NotIn)):
            at = place(n)  # Python evaluates the item first
            both = ast.Tuple([left, right], ast.Load(), **at)
            turned = ast.Subscript(both, ast.Slice(None, None, ast.Constant(-1, **at), **at), ast.Load(), **at)
            found = self.hook("contains", n, ast.Starred(turned, ast.Load(), **at))
            return found if isinstance(op, ast.In) else self.hook("not_", n, found)
        return ast.Compare(left, [op], [right], **place(n))

    # ------------------------------------------------------------------------------------------ inner scopes

    def _lambda(self, n: ast.Lambda) -> ast.expr:
        self.defaults(n.args)
        before, names_ok, sure = self.scope, self.names_ok, self.sure
        suspensions = self.suspensions
        self.scope = function_scope(n, before, before.owner)
        self.sure = set()
        n.body = self.hook("handed_out", n.body, self.value(n.body))
        self.scope, self.names_ok, self.sure, self.suspensions = before, names_ok, sure, suspensions
        return n

    def defaults(self, arguments: ast.arguments) -> None:
        """Default values, which are evaluated around the function."""
        arguments.defaults = self.values(arguments.defaults)
        arguments.kw_defaults = [d and self.value(d) for d in arguments.kw_defaults]

    def _comprehension(self, n: Any) -> ast.expr:
        generators: list[ast.comprehension] = n.generators
        before, names_ok, sure = self.scope, self.names_ok, set(self.sure)
        inner = comprehension_scope(generators, before)
        for k, g in enumerate(generators):
            self.names_ok = False  # not in what is iterated over
            g.iter = self.hook("iterate", g.iter, self.value(g.iter)) if not g.is_async else self.value(g.iter)
            if k == 0:
                self.scope = inner
            self.names_ok = names_ok and not self.in_class
            self._bind_items(g.target)
            g.ifs = [self.decision(test) for test in g.ifs]
            self.suspensions += bool(g.is_async)
        for name in ("key", "value") if isinstance(n, ast.DictComp) else ("elt",):
            setattr(n, name, self.value(getattr(n, name)))
        self.scope, self.names_ok, self.sure = before, names_ok, sure
        return n  # type: ignore[no-any-return]

    def _bind_items(self, target: ast.expr) -> None:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                self.note(part.id, bound=not isinstance(part.ctx, ast.Load))

    # ------------------------------------------------------------------------------------------ the rest

    def _field(self, n: ast.FormattedValue) -> ast.expr:
        value = self.value(n.value)
        if n.conversion in _CONVERSIONS:
            value = self.hook(_CONVERSIONS[n.conversion], n, value)
        spec = self.value(n.format_spec) if n.format_spec is not None else self.text("", n)
        return self.hook("format_", n, value, spec)

    def _joined_text(self, n: ast.JoinedStr) -> ast.expr:
        if not any(isinstance(part, ast.FormattedValue) for part in n.values):
            return n
        parts = self.values(n.values)
        if len(parts) == 1:
            return parts[0]
        return self.hook("joined", n, ast.Tuple(parts, ast.Load(), **place(n)))

    def _binary(self, n: ast.BinOp) -> ast.expr:
        if not isinstance(n.op, ast.Mod):
            return self.children(n)
        left = self.value(n.left)
        return self.hook("mod", n, left, self.value(n.right))

    def _suspension(self, n: Any) -> ast.expr:
        self.suspensions += 1
        return self.children(n)  # type: ignore[no-any-return]


def attribute_place(node: ast.expr, attribute: ast.Attribute) -> ast.AST:
    """Where Python's compiler says that a method call or an attribute stands: on the line of its name."""
    end_line, end = attribute.end_lineno, attribute.end_col_offset
    if node.lineno == end_line or end_line is None or end is None:
        return node
    where = ast.Pass(lineno=end_line, col_offset=max(end - len(attribute.attr), 0), end_lineno=node.end_lineno)
    where.end_col_offset = node.end_col_offset
    return where


def _first_bound(log: Sequence[tuple[str, Any, bool]]) -> Iterator[str]:
    """The targets of a `for` loop, where a place begins with the next item's assignment to them."""
    begun = False
    for name, _, bound in log:
        if bound:
            begun = True
            yield name
        elif begun or not name.startswith("__"):  # what the conversion itself reads
            return
