"""Statements, rewritten: stores and deletions through `__h__`, and control flow that a hook may stage.

An `if` runs where it stands as long as its test is a plain Python value. Otherwise `__h__.if_` gets the number of the
site, and a function that closes over the variables that the branches use: all that it takes to run the branches as
functions of their own (`sites.py`).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from typing import Any, Final

from kiln.convert.expressions import TEST, Expressions, attribute_place, hand_out
from kiln.convert.find import Refused, copied
from kiln.convert.jumps import VALUE, Lowering, leaves, needs_lowering, place
from kiln.convert.scopes import Scope, class_scope, function_scope, mangled
from kiln.convert.sites import HOOKS, Part

_SLOT: Final = "__slot__"
_OPERATORS: Final = {
    ast.Add: "iadd", ast.Sub: "isub", ast.Mult: "imul", ast.MatMult: "imatmul", ast.Div: "itruediv",
    ast.FloorDiv: "ifloordiv", ast.Mod: "imod", ast.Pow: "ipow", ast.LShift: "ilshift", ast.RShift: "irshift",
    ast.BitOr: "ior", ast.BitXor: "ixor", ast.BitAnd: "iand",
}  # fmt: skip


_FOR_TEXT: Final = frozenset({"__str__", "__repr__", "__format__"})
"""Methods that Python calls, and of which it takes nothing but strings."""


class Statements(Expressions):
    """The part of the converter that rewrites statements."""

    lowering: Lowering | None = None
    """Of the function that is being rewritten; None where its jumps stay as they are."""

    # ------------------------------------------------------------------------------------------ blocks

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """A block of statements, never empty."""
        out: list[ast.stmt] = []
        for s in body:
            flag = getattr(s, "_flag", None)
            if flag is not None and self.lowering is not None and flag not in self.lowering.tested:
                continue
            rewrite = getattr(self, f"_s_{type(s).__name__}", None)
            if rewrite is None:
                out.append(self.children(s))
            else:
                out += rewrite(s)
        if not out and body:
            out = [ast.Pass(**place(body[0]))]
        return out

    def apart(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """A block that may be left at any point, or not run: what it binds is not sure afterwards."""
        sure = set(self.sure)
        out = self.block(body)
        self.sure &= sure
        return out

    def function_body(self, body: list[ast.stmt], scope: Scope) -> list[ast.stmt]:
        """The body of a function, in its own scope."""
        before = self.scope, self.names_ok, self.lowering, self.suspensions, self.sure
        self.scope, self.names_ok, self.lowering, self.sure = scope, True, None, set(scope.parameters)
        if scope.stages and needs_lowering(body):
            lowering = Lowering(self.counter)
            if _can_lower(body):
                body = lowering.function(body)
                self.lowering = lowering
                scope.bound |= {VALUE, *lowering.flags}
        declared = [
            s
            for s in (_declaration(ast.Global, scope.outer, body), _declaration(ast.Nonlocal, scope.nonlocals, body))
            if s
        ]
        out = self.block(body)
        doc = 1 if out and isinstance(out[0], ast.Expr) and isinstance(out[0].value, ast.Constant) else 0
        out[doc:doc] = declared
        self.scope, self.names_ok, self.lowering, self.suspensions, self.sure = before
        return out

    # ------------------------------------------------------------------------------------------ definitions

    def _s_FunctionDef(self, s: ast.FunctionDef) -> list[ast.stmt]:
        s.decorator_list = self.values(s.decorator_list)
        self.defaults(s.args)
        if self.note(s.name, bound=True) is None:
            raise Refused(f"it defines the function {s.name} under a global name")
        scope = function_scope(s, self.scope, self.scope.owner)
        before = self.function
        self.function = f"{before}.{s.name}" if self.scope.kind == "class" else f"{before}.<locals>.{s.name}"
        if self.scope.kind == "class" and s.name in _FOR_TEXT:
            hand_out(s.body)
        s.body = self.function_body(s.body, scope)
        self.function = before
        return [s]

    _s_AsyncFunctionDef = _s_FunctionDef

    def _s_ClassDef(self, s: ast.ClassDef) -> list[ast.stmt]:
        s.decorator_list = self.values(s.decorator_list)
        s.bases = self.values(s.bases)
        for keyword in s.keywords:
            keyword.value = self.value(keyword.value)
        if self.note(s.name, bound=True) is None:
            raise Refused(f"it defines the class {s.name} under a global name")
        before = self.scope, self.lowering, self.function, self.sure
        self.scope, self.lowering, self.sure = class_scope(s, self.scope), None, set()
        self.function = f"{self.function}.<locals>.{s.name}"
        s.body = self.block(s.body)
        self.scope, self.lowering, self.function, self.sure = before
        return [s]

    def _s_Global(self, s: ast.Global | ast.Nonlocal) -> list[ast.stmt]:
        return [s] if self.scope.kind == "class" else []  # declared at the top

    _s_Nonlocal = _s_Global

    def _s_Import(self, s: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        for alias in s.names:
            name = alias.asname or alias.name.split(".")[0]
            if self.note(name, bound=True) is None:
                raise Refused(f"it imports under the global name {name}")
        return [s]

    _s_ImportFrom = _s_Import

    # ------------------------------------------------------------------------------------------ stores

    def _s_Assign(self, s: ast.Assign) -> list[ast.stmt]:
        if not any(map(self._hooked, s.targets)):
            s.value = self.value(s.value)
            s.targets = self.values(s.targets)
            return [s]
        value = self.value(s.value)
        if len(s.targets) == 1 and self._steady(s.targets[0]):
            return self._store(s.targets[0], value)
        at = place(s.value)
        slot = ast.Assign([self._temporary(_SLOT, s.value, ast.Store())], ast.List([value], ast.Load(), **at), **at)
        out: list[ast.stmt] = [slot]
        for target in s.targets:
            out += self._store(target, self._take(target, last=target is s.targets[-1]))
        return out

    def _s_AnnAssign(self, s: ast.AnnAssign) -> list[ast.stmt]:
        if s.value is not None and not isinstance(s.target, ast.Name) and self.scope.kind != "class":
            return self._s_Assign(ast.Assign([s.target], s.value, **place(s)))
        if s.value is not None:
            s.value = self.value(s.value)
        if isinstance(s.target, ast.Name):
            self.note(s.target.id, bound=True)
        return [s]

    def _s_AugAssign(self, s: ast.AugAssign) -> list[ast.stmt]:
        target = s.target
        if not self._hooked(target):
            if isinstance(target, ast.Name):
                self.note(target.id)
                self.note(target.id, bound=True)
            s.value = self.value(s.value)
            return [s]
        operator = _OPERATORS[type(s.op)]
        if isinstance(target, ast.Name):
            now = self.value(ast.Name(target.id, ast.Load(), **place(target)))
            return self._store(target, self.hook(operator, s, now, self.value(s.value)))
        where = attribute_place(target, target) if isinstance(target, ast.Attribute) else target
        at = place(where)
        parts = [self.value(target.value)]
        if isinstance(target, ast.Attribute):
            parts.append(self.text(mangled(target.attr, self.scope.owner), target))
        else:
            parts.append(self.value(target.slice))
        kind = "attr" if isinstance(target, ast.Attribute) else "item"
        load = "load_attr" if kind == "attr" else "open_item"
        if self._steady(target):
            now = self.hook(load, where, *parts)
            return [self._say(f"store_{kind}", where, *parts, self.hook(operator, s, now, self.value(s.value)))]
        both = self._fresh("operands")
        pair = ast.Assign([self._temporary(both, where, ast.Store())], ast.Tuple(parts, ast.Load(), **at), **at)

        def operands() -> ast.expr:
            return ast.Starred(self._temporary(both, where, ast.Load()), ast.Load(), **at)

        now = self.hook(load, where, operands())
        new = self.hook(operator, s, now, self.value(s.value))
        drop = ast.Delete([self._temporary(both, where, ast.Del())], **at)
        return [pair, self._say(f"store_{kind}", where, operands(), new), drop]

    def _s_Delete(self, s: ast.Delete) -> list[ast.stmt]:
        if self.scope.kind == "class":
            return [self.children(s)]
        out: list[ast.stmt] = []
        for target in s.targets:
            out += self._delete(target)
        return out

    def _delete(self, t: ast.expr) -> list[ast.stmt]:
        if isinstance(t, ast.Attribute):
            name = self.text(mangled(t.attr, self.scope.owner), t)
            return [self._say("delete_attr", attribute_place(t, t), self.value(t.value), name)]
        if isinstance(t, ast.Subscript):
            return [self._say("delete_item", t, self.value(t.value), self.value(t.slice))]
        if isinstance(t, (ast.Tuple, ast.List)):
            return [s for part in t.elts for s in self._delete(part)] or [ast.Pass(**place(t))]
        assert isinstance(t, ast.Name)
        self.note(t.id)  # a name without a value can't be deleted
        if self.note(t.id, bound=True) is None:
            raise Refused(f"it deletes the global name {t.id}")
        self.sure.discard(t.id)
        return [ast.Delete([t], **place(t))]

    def _hooked(self, target: ast.expr) -> bool:
        """Whether something in a target is stored through a hook."""
        if self.scope.kind == "class":
            return False
        if isinstance(target, ast.Name):
            return self.scope.find(target.id) is None
        if isinstance(target, (ast.Tuple, ast.List)):
            return any(map(self._hooked, target.elts))
        if isinstance(target, ast.Starred):
            return self._hooked(target.value)
        return True

    def _steady(self, target: ast.expr) -> bool:
        """Whether a target can be evaluated before the value: `x.a` and `x[1]` of a parameter, a global name."""
        if isinstance(target, ast.Name):
            return True
        if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Constant):
            return False
        if not isinstance(target, (ast.Attribute, ast.Subscript)) or not isinstance(target.value, ast.Name):
            return False
        return self.scope.kind == "function" and target.value.id in self.scope.steady

    def _store(self, t: ast.expr, value: ast.expr) -> list[ast.stmt]:
        """Statements that store a value in one target."""
        if isinstance(t, ast.Attribute):
            x = self.value(t.value)
            name = self.text(mangled(t.attr, self.scope.owner), t)
            return [self._say("store_attr", attribute_place(t, t), x, name, value)]
        if isinstance(t, ast.Subscript):
            x = self.value(t.value)
            return [self._say("store_item", t, x, self.value(t.slice), value)]
        if isinstance(t, ast.Name):
            if self.note(t.id, bound=True) is not None:
                return [ast.Assign([t], value, **place(t))]
            space = self.member(HOOKS, "globals", t)
            return [self._say("store_global", t, space, self.text(mangled(t.id, self.scope.owner), t), value)]
        assert isinstance(t, (ast.Tuple, ast.List))
        if not self._hooked(t):
            return [ast.Assign([self.value(t)], value, **place(t))]
        parts = [self._fresh("part") for _ in t.elts]
        names: list[ast.expr] = []
        for part_name, element in zip(parts, t.elts, strict=True):
            part: ast.expr = self._temporary(part_name, element, ast.Store())
            names.append(ast.Starred(part, ast.Store(), **place(element)) if isinstance(element, ast.Starred) else part)
        out: list[ast.stmt] = [ast.Assign([ast.Tuple(names, ast.Store(), **place(t))], value, **place(t))]
        for part_name, element in zip(parts, t.elts, strict=True):
            inner = element.value if isinstance(element, ast.Starred) else element
            out += self._store(inner, self._temporary(part_name, element, ast.Load()))
        if parts:
            out.append(ast.Delete([self._temporary(p, t, ast.Del()) for p in parts], **place(t)))
        return out

    def _say(self, hook: str, where: ast.AST, *args: ast.expr) -> ast.stmt:
        return ast.Expr(self.hook(hook, where, *args), **place(where))

    def _fresh(self, kind: str) -> str:
        self.counter[0] += 1
        return f"__{kind}{self.counter[0]}__"

    def _temporary(self, name: str, where: ast.AST, context: ast.expr_context) -> ast.Name:
        """A variable of ours that lives from one of our statements to the next."""
        return ast.Name(name, context, **place(where))

    def _take(self, where: ast.AST, last: bool) -> ast.expr:
        """The value in the slot; taken out by the last who asks, so that nothing keeps it alive."""
        at = place(where)
        if last:
            return ast.Call(self.member(_SLOT, "pop", where), [], [], **at)
        return ast.Subscript(self._temporary(_SLOT, where, ast.Load()), ast.Constant(0, **at), ast.Load(), **at)

    # ------------------------------------------------------------------------------------------ control flow

    def _s_If(self, s: ast.If) -> list[ast.stmt]:
        if isinstance(s.test, ast.Constant):
            return self._decided(s, s.test)
        if not self._stageable(s.body, s.orelse):
            return self._decided(s, self.decision(s.test))
        test = self.truth(s.test)
        start = len(self.log)
        then, orelse = self._branches(s)
        site = self.plan("if", s, start, [Part(then), Part(orelse or [ast.Pass(**place(s))])])
        staged = self._say("if_", s.test, self._temporary(TEST, s.test, ast.Load()), *site)
        otherwise = ast.If(self.is_(TEST, False, s.test, negate=True), [staged], orelse, **place(s))
        return [ast.If(self.is_true(TEST, test, s.test), then, [otherwise], **place(s))]

    def _decided(self, s: ast.If, test: ast.expr) -> list[ast.stmt]:
        s.test = test
        s.body, s.orelse = self._branches(s)
        return [s]

    def _branches(self, s: ast.If) -> tuple[list[ast.stmt], list[ast.stmt]]:
        sure = set(self.sure)
        then = self.block(s.body)
        after, self.sure = self.sure, sure
        orelse = self.block(s.orelse)
        self.sure &= after
        return then, orelse

    def _stageable(self, *blocks: list[ast.stmt]) -> bool:
        """Whether blocks can become functions: no jump leads out of them."""
        return self.scope.stages and not any(leaves(b) for b in blocks)

    def _s_While(self, s: ast.While) -> list[ast.stmt]:
        start = len(self.log)
        if not self._stageable(s.body, s.orelse) or leaves(s.body, True) or isinstance(s.test, ast.Constant):
            self.loops.append(start)
            s.test = self.decision(s.test)
            s.body = self.apart(s.body)
            self.loops.pop()
            s.orelse = self.apart(s.orelse)
            return [s]
        self.loops.append(start)
        test = self.truth(s.test)
        body = self.apart(s.body)
        self.loops.pop()
        site = self.plan("while", s, start, [self.returns(test), Part(body)], getattr(s, "_exit", None))
        loop = ast.While(self.is_true(TEST, test, s.test), body, [], **place(s))
        staged = self._say("while_", s.test, self._temporary(TEST, s.test, ast.Load()), *site)
        after = ast.If(self.is_(TEST, False, s.test, negate=True), [staged], [], **place(s))
        return [loop, after, *self.apart(s.orelse)]

    def _s_For(self, s: ast.For) -> list[ast.stmt]:
        sure = set(self.sure)
        out = self._for(s)
        self.sure &= sure
        return out

    def _for(self, s: ast.For) -> list[ast.stmt]:
        iterable = self.value(s.iter)
        if self.scope.kind == "class":
            s.iter, s.target = iterable, self.value(s.target)
            s.body, s.orelse = self.apart(s.body), self.apart(s.orelse)
            return [s]
        if not self._stageable(s.body, s.orelse) or leaves(s.body, True):
            s.iter = self.hook("iterate", s.iter, iterable)
            self.loops.append(len(self.log))
            s.target, start = self._item(s.target)
            s.body = [*start, *self.apart(s.body)]
            self.loops.pop()
            s.orelse = self.apart(s.orelse)
            return [s]
        start_log = len(self.log)
        flag: str | None = getattr(s, "_exit", None)
        self.loops.append(start_log)
        target, own, part = self._iteration(s, flag)
        self.loops.pop()
        site = self.plan("for", s, start_log, [part], flag)
        at = place(s.iter)
        slot = ast.NamedExpr(self._temporary(_SLOT, s.iter, ast.Store()), ast.List([iterable], ast.Load(), **at), **at)
        loop = ast.For(target, self._take(s.iter, last=True), own, [], **place(s))
        staged = self._say("for_", s.iter, self._take(s.iter, last=True), *site)
        choice = ast.If(self.hook("stages", s.iter, slot, copied(site[0])), [staged], [loop], **place(s))
        return [choice, *self.apart(s.orelse)]

    def _iteration(self, s: ast.For, flag: str | None) -> tuple[ast.expr, list[ast.stmt], Part]:
        """Of a loop: its target and its body where it stays a loop, and the body that takes an item where it is
        staged."""
        item = self._fresh("item")
        self.scope.bound.add(item)
        self.sure.add(item)
        at = place(s.target)
        source, taken = ast.Name(item, ast.Load(), **at), ast.Name(item, ast.Store(), **at)
        if flag is not None:  # once it was left, an item is no longer looked at
            assert self.lowering is not None
            first = ast.Assign([s.target], source, **at)
            guarded = ast.If(test=self.lowering.unset(s, flag), body=[first, *s.body], orelse=[], **place(s))
            body = self.apart([guarded])
            stop = ast.If(self.is_(flag, True, s), [ast.Break(**place(s))], [], **place(s))
            return taken, [*body, stop], Part(body, item)
        if self._hooked(s.target):
            body = [*self._store(s.target, source), *self.apart(s.body)]
            return taken, body, Part(body, item)
        target = self.value(s.target)
        body = self.apart(s.body)
        return target, body, Part([ast.Assign([target], source, **at), *body], item)

    def _item(self, target: ast.expr) -> tuple[ast.expr, list[ast.stmt]]:
        """The target of a loop that stays a loop, and what its body begins with."""
        if not self._hooked(target):
            return self.value(target), []
        name = self._fresh("item")
        return self._temporary(name, target, ast.Store()), self._store(
            target, self._temporary(name, target, ast.Load())
        )

    def _s_AsyncFor(self, s: ast.AsyncFor) -> list[ast.stmt]:
        s.iter = self.value(s.iter)
        s.target, start = self._item(s.target)
        s.body, s.orelse = [*start, *self.apart(s.body)], self.apart(s.orelse)
        return [s]

    def _s_With(self, s: ast.With | ast.AsyncWith) -> list[ast.stmt]:
        item, rest = s.items[0], s.items[1:]
        item.context_expr = self.value(item.context_expr)
        start: list[ast.stmt] = []
        if item.optional_vars is not None:
            item.optional_vars, start = self._item(item.optional_vars)
        if not rest:
            s.body = [*start, *self.apart(s.body)]
            return [s]
        inner = self._s_With(type(s)(items=rest, body=s.body, **place(s)))
        return [type(s)(items=[item], body=[*start, *inner], **place(s))]

    _s_AsyncWith = _s_With

    def _s_Try(self, s: ast.Try | ast.TryStar) -> list[ast.stmt]:
        s.body = self.apart(s.body)
        for handler in s.handlers:
            if handler.type is not None:
                handler.type = self.value(handler.type)
            if handler.name is not None and self.note(handler.name, bound=True) is None:
                raise Refused(f"it catches an exception under the global name {handler.name}")
            handler.body = self.apart(handler.body)
            self.sure.discard(handler.name or "")
        s.orelse, s.finalbody = self.apart(s.orelse), self.apart(s.finalbody)
        return [s]

    _s_TryStar = _s_Try

    def _s_Match(self, s: ast.Match) -> list[ast.stmt]:
        s.subject = self.hook("subject", s.subject, self.value(s.subject))
        sure = set(self.sure)
        for case in s.cases:
            self.sure = set(sure)
            for part in ast.walk(case.pattern):
                name = getattr(part, "rest" if isinstance(part, ast.MatchMapping) else "name", None)
                if isinstance(name, str) and self.note(name, bound=True) is None:
                    raise Refused(f"a pattern captures the global name {name}")
                if isinstance(part, ast.Name):
                    self.note(part.id)
            if case.guard is not None:
                case.guard = self.decision(case.guard)
            case.body = self.apart(case.body)
        self.sure = sure
        return [s]

    def _s_Assert(self, s: ast.Assert) -> list[ast.stmt]:
        if isinstance(s.test, ast.Constant) or self.scope.kind == "class":
            s.test = self.decision(s.test)
            s.msg = s.msg and self.value(s.msg)
            return [s]
        comparison = _last_comparison(s.test)
        where = ast.Pass(**place(comparison if comparison is not None else s.test))
        test = self.truth(s.test)
        start, suspensions = len(self.log), self.suspensions
        s.msg = s.msg and self.value(s.msg)
        if self.suspensions != suspensions:
            s.test = self.hook("truth", s.test, test)
            return [s]
        site = self.plan("assert", s, start, [self.returns(s.msg) if s.msg else None])
        at = place(where)
        staged = self.hook("assert_", s.test, ast.Name(TEST, ast.Load(), **at), *site)
        other = ast.BoolOp(ast.And(), [self.is_(TEST, False, where, negate=True), staged], **at)
        s.test = ast.BoolOp(ast.Or(), [self.is_true(TEST, test, where), other], **at)
        if comparison is None:
            s.test = ast.NamedExpr(ast.Name(TEST, ast.Store(), **at), s.test, **at)
        return [s]


def _last_comparison(test: ast.expr) -> ast.expr | None:
    """The comparison where Python's compiler says that a failed assertion stands (before 3.13), instead of the whole
    statement."""
    if sys.version_info >= (3, 13):
        return None
    if isinstance(test, ast.Compare):
        return test
    parts: list[ast.expr] = []
    if isinstance(test, ast.BoolOp):
        parts = test.values
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        parts = [test.operand]
    elif isinstance(test, ast.IfExp):
        parts = [test.test, test.body, test.orelse]
    found = [c for c in map(_last_comparison, parts) if c is not None]
    return found[-1] if found else None


def _can_lower(body: list[ast.stmt]) -> bool:
    """Whether all jumps can be lowered. Asked before anything is rewritten."""
    for s in body:
        for node in _own(s):
            if isinstance(node, (ast.Try, ast.TryStar)) and leaves(node.finalbody):
                return False
    return True


def _own(node: ast.AST) -> Any:
    """A statement and those inside it, without functions and classes."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield from _own(child)


def _declaration(kind: Callable[..., ast.stmt], names: set[str], body: list[ast.stmt]) -> ast.stmt | None:
    return kind(sorted(names), **place(body[0])) if names else None
