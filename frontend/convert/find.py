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
import tokenize
from collections.abc import Iterable, Sequence
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
        tree = ast.parse("if 1:\n" + "".join(block) if block[0][:1].isspace() else "\n" + "".join(block))
    except (SyntaxError, IndentationError, tokenize.TokenError, IndexError):
        return []
    top = tree.body[0]
    node = top.body[0] if isinstance(top, ast.If) else top
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    ast.increment_lineno(node, first - 2)
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
    at = {"lineno": node.lineno, "col_offset": 0, "end_lineno": node.lineno, "end_col_offset": 0}
    inner: ast.stmt = ast.Expr(node, **at) if isinstance(node, ast.Lambda) else node
    owner = owner_of(code.co_qualname).lstrip("_")
    if owner:
        taken = {*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars, *free}
        name = "___" + owner
        while name in taken:
            name = "_" + name
        inner = ast.ClassDef(name=name, bases=[], keywords=[], body=[inner], decorator_list=[], type_params=[], **at)
    arguments = ast.arguments([], [ast.arg(n, **at) for n in free], None, [], [], None, [])
    outer = ast.FunctionDef("__outer__", arguments, [inner], [], type_params=[], **at)
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


def _inner(code: CodeType) -> CodeType:
    return next(c for c in reversed(code.co_consts) if isinstance(c, CodeType))


def bare(node: Definition) -> Definition:
    """The definition without what is evaluated around it: decorators (their lines stay), defaults, annotations."""
    nothing = ast.Constant(None)
    arguments = node.args
    if any(map(_evaluated, ast.iter_child_nodes(arguments))) or not isinstance(node, ast.Lambda):
        strip = lambda args: [ast.copy_location(ast.arg(a.arg), a) for a in args]  # noqa: E731
        one = lambda a: a and strip([a])[0]  # noqa: E731
        arguments = ast.arguments(
            posonlyargs=strip(arguments.posonlyargs),
            args=strip(arguments.args),
            vararg=one(arguments.vararg),
            kwonlyargs=strip(arguments.kwonlyargs),
            kw_defaults=[d and ast.copy_location(nothing, d) for d in arguments.kw_defaults],
            kwarg=one(arguments.kwarg),
            defaults=[ast.copy_location(ast.Constant(None), d) for d in arguments.defaults],
        )
    if isinstance(node, ast.Lambda):
        return ast.copy_location(ast.Lambda(arguments, node.body), node)
    decorators: list[ast.expr] = [ast.copy_location(ast.Name("__outer__", ast.Load()), d) for d in node.decorator_list]
    kind = type(node)
    return ast.copy_location(kind(INNER, arguments, node.body, decorators, type_params=[]), node)


def imported_names(code: CodeType) -> set[str]:
    """Global names that the module imports, as far as the code shows it: Python's compiler makes `name.f()` a call of
    an attribute and not of a method for them."""
    methods: set[str] = set()
    loaded, argument = -1, 0
    units = code.co_code
    for at in range(0, len(units), 2):
        op, argument = units[at], argument | units[at + 1]
        if op == _EXTENDED:
            argument <<= 8
            continue
        if loaded >= 0 and op in _METHODS and (op == _LOAD_METHOD or argument & 1):
            methods.add(code.co_names[loaded])
        if op != _CACHE:
            loaded = argument >> 1 if op == _LOAD_GLOBAL else -1
        argument = 0
    return {n for n in code.co_names if n.isidentifier()} - methods


_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_CACHE: Final = dis.opmap.get("CACHE", 0)
_LOAD_GLOBAL: Final = dis.opmap["LOAD_GLOBAL"]
_LOAD_METHOD: Final = dis.opmap.get("LOAD_METHOD", -1)
_METHODS: Final = frozenset({_LOAD_METHOD, dis.opmap["LOAD_ATTR"]} if _LOAD_METHOD < 0 else {_LOAD_METHOD})


def _evaluated(node: ast.AST) -> bool:
    return not isinstance(node, ast.arg)


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
    return CodeType if isinstance(x, CodeType) else (type(x), repr(x))
