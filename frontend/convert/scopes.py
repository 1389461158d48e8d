"""Which name means what: the scopes of a function's source, as Python's own compiler sees them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def mangled(name: str, owner: str) -> str:
    """A private name as Python stores it inside the class `owner` ("" outside of classes)."""
    stripped = owner.lstrip("_")
    if not stripped or not name.startswith("__") or name.endswith("__") or "." in name:
        return name
    return f"_{stripped}{name}"


@dataclass(eq=False)
class Scope:
    """One function, lambda, comprehension or class body."""

    kind: Literal["root", "function", "lambda", "comprehension", "class"]
    parent: Scope | None
    owner: str
    """The class whose name private names carry."""
    bound: set[str] = field(default_factory=set)
    outer: set[str] = field(default_factory=set)
    """Names declared global here."""
    nonlocals: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    """Names that functions inside declare nonlocal: a call can change them."""
    stages: bool = True
    """Whether statements can be staged here: not in generators, coroutines, class bodies."""
    first: str = ""
    """The name of the function's first positional parameter."""
    parameters: frozenset[str] = frozenset()
    steady: set[str] = field(default_factory=set)
    """Parameters that are never bound again."""

    def find(self, name: str) -> Scope | None:
        """The scope that a name used here lives in; None for a global name or a built-in one."""
        scope: Scope | None = self
        while scope is not None:
            if scope is self or scope.kind != "class":
                if name in scope.outer:
                    return None
                if name in scope.bound:
                    return scope
                if scope.kind == "root" and mangled(name, self.owner) in scope.bound:
                    return scope
            scope = scope.parent
        return None

    def within(self) -> Scope:
        """The function or class that a comprehension's named expressions bind in."""
        scope = self
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        return scope

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


def parameters(arguments: ast.arguments) -> list[ast.arg]:
    """All parameters, in the order of a call."""
    named = [*arguments.posonlyargs, *arguments.args]
    if arguments.vararg:
        named.append(arguments.vararg)
    named += arguments.kwonlyargs
    if arguments.kwarg:
        named.append(arguments.kwarg)
    return named


def function_scope(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, parent: Scope, owner: str) -> Scope:
    """The scope of a function's body."""
    scope = Scope("lambda" if isinstance(node, ast.Lambda) else "function", parent, owner)
    names = parameters(node.args)
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    suspends = bind(body, scope)
    scope.steady = {a.arg for a in names} - scope.bound - scope.shared
    scope.parameters = frozenset(a.arg for a in names)
    scope.bound |= scope.parameters
    scope.stages = not suspends and not isinstance(node, ast.AsyncFunctionDef)
    first = [*node.args.posonlyargs, *node.args.args]
    scope.first = first[0].arg if first else ""
    return scope


def class_scope(node: ast.ClassDef, parent: Scope) -> Scope:
    """The scope of a class's body."""
    scope = Scope("class", parent, node.name, stages=False)
    bind(node.body, scope)
    return scope


def comprehension_scope(generators: Iterable[ast.comprehension], parent: Scope) -> Scope:
    """The scope of what a comprehension computes for each element."""
    scope = Scope("comprehension", parent, parent.owner, stages=parent.stages)
    for generator in generators:
        bind([generator.target], scope)
    return scope


def bind(body: Iterable[ast.AST], scope: Scope) -> bool:
    """Note what a body binds. Returns whether it yields or awaits, which makes it another kind of function."""
    suspends = False
    stack = list(body)
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is ast.Name:
            if not isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
                scope.bound.add(node.id)  # type: ignore[attr-defined]
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope.bound.add(node.name)
            scope.shared |= _declared_inside(node)
            stack += node.decorator_list
            if isinstance(node, ast.ClassDef):
                stack += [*node.bases, *(k.value for k in node.keywords)]
            else:
                stack += [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
            continue
        if isinstance(node, ast.Lambda):
            stack += [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
            continue
        if isinstance(node, COMPREHENSIONS):
            scope.bound |= _named_inside(node)
            suspends = suspends or _awaits(node)
            continue
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith)):
            suspends = True
        elif isinstance(node, ast.alias):
            scope.bound.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Global):
            scope.outer.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            scope.nonlocals.update(node.names)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            if node.name:
                scope.bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            scope.bound.add(node.rest)
        stack += ast.iter_child_nodes(node)
    scope.bound -= scope.outer | scope.nonlocals
    return suspends


def _declared_inside(node: ast.AST) -> set[str]:
    return {name for child in ast.walk(node) if isinstance(child, ast.Nonlocal) for name in child.names}


def _named_inside(node: ast.AST) -> set[str]:
    """Targets of named expressions in a comprehension, which bind outside of it."""
    found: set[str] = set()
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.NamedExpr):
            found.add(part.target.id)
        if not isinstance(part, ast.Lambda):
            stack += ast.iter_child_nodes(part)
    return found


def _awaits(node: ast.AST) -> bool:
    """Whether a comprehension awaits; a generator expression does that when it is run."""
    if isinstance(node, ast.GeneratorExp):
        return any(isinstance(part, ast.Await) for part in ast.walk(node.generators[0].iter))
    return any(isinstance(part, ast.Await) or getattr(part, "is_async", 0) for part in ast.walk(node))
