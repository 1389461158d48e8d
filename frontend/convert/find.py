"""From a code object to its source: the very statement, or lambda, that it was compiled from.

By the code object's own file and positions, never by name or through `__wrapped__`. What is found is compiled once
more and compared with the code object, so that a file that was edited meanwhile is noticed.
"""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import linecache
import sys
import tokenize
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from kiln.errors import CaptureError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

INNER: Final = "__function__"
"""What a function is called while it is compiled: its own name would hide what it means by it."""
_FUTURE: Final = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


class Refused(CaptureError):
    """A function can't be converted; `message` says why."""


def find(code: CodeType, space: dict[str, Any]) -> Definition:
    """The definition that a code object comes from, as a tree of its own. Refused if there is none."""
    lines = linecache.getlines(code.co_filename, space)
    if not lines:
        raise Refused(f"the source of {code.co_qualname} can't be read: {code.co_filename} is not a file")
    found: list[Definition] = []
    if code.co_name != "<lambda>":
        found = _block(lines, code)
    if not found:
        found = _in_file("".join(lines), code)
    for node in found:
        if _same(node, code):
            return node
    raise Refused(
        f"the source of {code.co_qualname} is not at line {code.co_firstlineno} of {code.co_filename}",
        fix="if the file was edited since it was imported, start again",
    )


def _block(lines: list[str], code: CodeType) -> list[Definition]:
    """The definition that begins at the code's first line, parsed where it stands: columns stay what they are."""
    first = code.co_firstlineno
    try:
        block = inspect.getblock(lines[first - 1 :])
        start = "\n" * (first - 2) + "if 1:\n" if block[0][:1].isspace() else "\n" * (first - 1)
        tree = ast.parse(start + "".join(block))
    except (SyntaxError, IndentationError, tokenize.TokenError, IndexError):
        return []
    top = tree.body[0]
    node = top.body[0] if isinstance(top, ast.If) else top
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    return [node]


def _in_file(text: str, code: CodeType) -> list[Definition]:
    """The definitions in a whole file that begin at the code's first line, of the code's name."""
    try:
        by_line = _definitions(text)
    except SyntaxError:
        return []
    candidates = [n for n in by_line.get(code.co_firstlineno, []) if getattr(n, "name", "<lambda>") == code.co_name]
    return [copied(node) for node in candidates]


@lru_cache(maxsize=8)
def _definitions(text: str) -> dict[int, list[Definition]]:
    found: dict[int, list[Definition]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            decorators = getattr(node, "decorator_list", [])
            found.setdefault(min([node.lineno, *(d.lineno for d in decorators)]), []).append(node)
    return found


def copied(node: Any) -> Any:
    """A copy of a tree, to be rewritten."""
    if isinstance(node, list):
        return [copied(part) for part in node]
    if not isinstance(node, ast.AST):
        return node
    copy = type(node)(**{name: copied(getattr(node, name)) for name in node._fields if hasattr(node, name)})
    return ast.copy_location(copy, node)


def owner_of(qualname: str) -> str:
    """The class whose body a function stands in, through functions around it, or "": by its qualified name."""
    parts = qualname.split(".")
    at = len(parts) - 2
    while at >= 0:
        if parts[at] != "<locals>":
            return parts[at]
        at -= 2
    return ""


def assemble(node: Definition, code: CodeType, free: Sequence[str], imported: Iterable[str] = ()) -> CodeType:
    """Compile a definition as if it stood where `code` stands, with these variables around it, in a module that
    imports these names."""
    at: dict[str, Any] = {"lineno": node.lineno, "col_offset": 0, "end_lineno": node.lineno, "end_col_offset": 0}
    inner: ast.stmt = ast.Expr(node, **at) if isinstance(node, ast.Lambda) else node
    owner = owner_of(code.co_qualname).lstrip("_")
    if owner:
        taken = {*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars, *free}
        name = "___" + owner
        while name in taken:
            name = "_" + name
        inner = _CLASS(name=name, bases=[], keywords=[], body=[inner], decorator_list=[], type_params=[], **at)
    outer = definition("__outer__", free, [inner], at)
    imports: list[ast.stmt] = [ast.Import([ast.alias(n, **at) for n in imported], **at)] if imported else []
    module = compile(
        ast.Module([*imports, outer], []),
        code.co_filename,
        "exec",
        flags=code.co_flags & _FUTURE,
        dont_inherit=True,
    )
    result = _inner(_inner(module))
    return _inner(result) if owner else result


_CLASS: Any = ast.ClassDef
_FUNCTION: Any = ast.FunctionDef  # type_params, since Python 3.12, is unknown to the type checker of an older one


def definition(name: str, parameters: Iterable[str], body: list[ast.stmt], at: dict[str, Any]) -> ast.FunctionDef:
    """A function of ours."""
    arguments = ast.arguments([], [ast.arg(n, **at) for n in parameters], None, [], [], None, [])
    made: ast.FunctionDef = _FUNCTION(name, arguments, body, [], type_params=[], **at)
    return made


def _inner(code: CodeType) -> CodeType:
    return next(c for c in reversed(code.co_consts) if isinstance(c, CodeType))


def bare(node: Definition) -> Definition:
    """The definition without what is evaluated around it: decorators (their lines stay), defaults, annotations."""
    given = node.args
    arguments = ast.arguments(
        posonlyargs=_plain(given.posonlyargs),
        args=_plain(given.args),
        vararg=given.vararg and _plain([given.vararg])[0],
        kwonlyargs=_plain(given.kwonlyargs),
        kw_defaults=[d and ast.copy_location(ast.Constant(None), d) for d in given.kw_defaults],
        kwarg=given.kwarg and _plain([given.kwarg])[0],
        defaults=[ast.copy_location(ast.Constant(None), d) for d in given.defaults],
    )
    if isinstance(node, ast.Lambda):
        return ast.copy_location(ast.Lambda(arguments, node.body), node)
    decorators: list[ast.expr] = [ast.copy_location(ast.Name("__outer__", ast.Load()), d) for d in node.decorator_list]
    kind: Any = type(node)
    made: Definition = kind(INNER, arguments, node.body, decorators, type_params=[])
    return ast.copy_location(made, node)


def _plain(arguments: list[ast.arg]) -> list[ast.arg]:
    """Parameters without annotations."""
    return [ast.copy_location(ast.arg(a.arg), a) for a in arguments]


def imported_names(code: CodeType) -> set[str]:
    """Names that the module imports, as far as the code shows it: Python's compiler makes `name.f()` a call of an
    attribute and not of a method for them (and for variables that happen to have such a name)."""
    methods: set[str] = set()
    names: set[str] = set()
    loaded: str | None = None
    argument = 0
    units = code.co_code
    variable: Callable[[int], str] = code._varname_from_oparg  # type: ignore[attr-defined]
    for at in range(0, len(units), 2):
        op, argument = units[at], argument | units[at + 1]
        if op == _EXTENDED:
            argument <<= 8
            continue
        if op in _LOADS:
            loaded = code.co_names[argument >> 1] if op == _LOAD_GLOBAL else variable(argument)
        elif op != _CACHE:
            if loaded is not None and op in _ATTRIBUTES:
                (methods if op == _LOAD_METHOD or (_LOAD_METHOD < 0 and argument & 1) else names).add(loaded)
            loaded = None
        argument = 0
    return names - methods


_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_CACHE: Final = dis.opmap.get("CACHE", 0)
_LOAD_GLOBAL: Final = dis.opmap["LOAD_GLOBAL"]
_LOADS: Final = frozenset({_LOAD_GLOBAL, dis.opmap["LOAD_FAST"], dis.opmap["LOAD_DEREF"]})
_LOAD_METHOD: Final = dis.opmap["LOAD_METHOD"] if sys.version_info < (3, 12) else -1
_ATTRIBUTES: Final = frozenset({_LOAD_METHOD, dis.opmap["LOAD_ATTR"]})


def _same(node: Definition, code: CodeType) -> bool:
    """Whether a definition compiles to this code object. Tests' functions, whose asserts pytest rewrote, are taken by
    their names."""
    again = assemble(bare(node), code, code.co_freevars, sorted(imported_names(code)))
    if again.co_freevars != code.co_freevars or again.co_varnames[: _arity(again)] != code.co_varnames[: _arity(code)]:
        return False
    if "@pytest_ar" in code.co_names or "@py_assert0" in code.co_varnames or "@py_assert1" in code.co_varnames:
        return set(again.co_names) - {"AssertionError"} <= set(code.co_names)
    return (
        again.co_code == code.co_code
        and again.co_names == code.co_names
        and list(map(_constant, again.co_consts)) == list(map(_constant, code.co_consts))
        and list(again.co_positions()) == list(code.co_positions())
    )


def _arity(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount


def _constant(x: Any) -> Any:
    if isinstance(x, frozenset):
        return frozenset(map(_constant, x))
    return CodeType if isinstance(x, CodeType) else (type(x), repr(x))
