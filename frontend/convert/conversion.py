"""A user's function → the same function, asking hooks."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Final

from kiln.convert.find import INNER, Definition, Refused, assemble, bare, definition, find, imported_names, owner_of
from kiln.convert.hooks import PythonHooks
from kiln.convert.jumps import place
from kiln.convert.scopes import Scope, bind, function_scope, mangled
from kiln.convert.sites import HOOKS, Context, Part, Runtime
from kiln.convert.statements import Statements


@dataclass(frozen=True, eq=False)
class Conversion:
    """What a code object became."""

    node: Definition
    code: CodeType
    context: Context


_CONVERSIONS: Final[dict[int, tuple[weakref.ref[CodeType], Conversion | str]]] = {}
"""By the id of the code object: equal code objects may come from different files."""
_MADE: Final[dict[int, weakref.ref[CodeType]]] = {}
"""Code that conversions made, with that of the functions inside."""


def converted(function: Callable[..., Any], hooks: Any = None) -> Any:
    """A function that does what `function` does, through hooks (Python's own unless given).

    It shares globals, closure cells, defaults and attributes with the original. Partials, bound methods, objects that
    can be called and static and class methods are looked through. Refused, a CaptureError, says why something can't
    be converted.

    >>> from kiln.convert import converted, PythonHooks
    >>> class Loud(PythonHooks):
    ...     def callee(self, function):
    ...         print("calling", function.__name__)
    ...         return function
    >>> def size(x):
    ...     return len(x)
    >>> converted(size, Loud())("abc")
    calling len
    3
    """
    hooks = hooks if hooks is not None else _PYTHON
    if isinstance(function, FunctionType):
        return _function(function, hooks)
    if isinstance(function, MethodType):
        return MethodType(converted(function.__func__, hooks), function.__self__)
    if type(function) is partial:
        return partial(converted(function.func, hooks), *function.args, **function.keywords)
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(converted(function.__func__, hooks))
    if isinstance(function, type):
        raise Refused(f"{function.__qualname__} is a class: what is called is its __init__")
    call = next((vars(c)["__call__"] for c in type(function).__mro__ if "__call__" in vars(c)), None)
    if isinstance(call, FunctionType):
        return MethodType(_function(call, hooks), function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    raise Refused(f"{name} is not written in Python: it is a {type(function).__module__}.{type(function).__qualname__}")


def refusal(function: Callable[..., Any]) -> str | None:
    """Why a function can't be converted; None if it can."""
    try:
        converted(function)
    except Refused as refused:
        return refused.message
    return None


def source(function: Callable[..., Any]) -> str:
    """The rewritten code as text. Refused, like `converted`."""
    while not isinstance(function, FunctionType):
        if isinstance(function, (MethodType, staticmethod, classmethod)):
            function = function.__func__
        elif type(function) is partial:
            function = function.func
        else:
            converted(function)  # or say why not
            function = type(function).__call__
    node = _conversion(function.__code__, function.__globals__).node
    if isinstance(node, ast.Lambda):
        return ast.unparse(node)
    name, node.name = node.name, function.__name__
    text = ast.unparse(node)
    node.name = name
    return text


def _function(function: FunctionType, hooks: Any) -> FunctionType:
    made = _MADE.get(id(function.__code__))
    if made is not None and made() is function.__code__:
        return function  # it asks hooks already
    conversion = _conversion(function.__code__, function.__globals__)
    cells: dict[str, CellType] = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells[HOOKS] = CellType(Runtime(conversion.context, hooks, function.__globals__))
    closure = tuple([cells[name] for name in conversion.code.co_freevars])
    result = FunctionType(conversion.code, function.__globals__, function.__name__, function.__defaults__, closure)
    result.__kwdefaults__ = function.__kwdefaults__
    result.__qualname__ = function.__qualname__
    result.__module__ = function.__module__
    result.__doc__ = function.__doc__
    result.__dict__.update(function.__dict__)
    annotations = "__annotate__" if hasattr(function, "__annotate__") else "__annotations__"
    for name in (annotations, "__type_params__"):  # what newer Pythons have
        if hasattr(function, name):
            setattr(result, name, getattr(function, name))
    return result


def _conversion(code: CodeType, space: dict[str, Any]) -> Conversion:
    entry = _CONVERSIONS.get(id(code))
    if entry is not None and entry[0]() is code:
        found = entry[1]
    else:
        try:
            found = _convert(code, space)
        except Refused as refused:
            found = refused.message
        key = id(code)
        _CONVERSIONS[key] = (weakref.ref(code, lambda _: _CONVERSIONS.pop(key, None)), found)
    if isinstance(found, str):
        raise Refused(found)
    return found


def _convert(code: CodeType, space: dict[str, Any]) -> Conversion:
    for inner in _codes(code):
        for name in (*inner.co_names, *inner.co_varnames, *inner.co_cellvars, *inner.co_freevars):
            if name in _TAKEN or name == HOOKS:
                raise Refused(f"it uses the name {name}, which conversion needs")
    node = bare(find(code, space))
    context = Context(code.co_filename)
    root = Scope("root", None, owner_of(code.co_qualname), set(code.co_freevars), stages=False)
    scope = function_scope(node, root, root.owner)
    model = code.replace(co_consts=())  # not `code`: what is kept for it must not keep it

    def compile_part(function: str) -> Callable[[Part, Sequence[str]], CodeType]:
        return lambda part, visible: _part(part, visible, model, function)

    statements = Statements(context, root, imported_names(code), code.co_qualname, compile_part)
    if isinstance(node, ast.Lambda):
        statements.scope = scope
        node.body = statements.value(node.body)
    else:
        node.body = statements.function_body(node.body, scope)
    made = assemble(node, code, [*code.co_freevars, HOOKS])
    made = _renamed(made, made.co_qualname, code.co_qualname, code.co_name)
    _register(made)
    return Conversion(node, made, context)


_TAKEN: Final = frozenset({"__s__", "__slot__", "__value__", "__returned__", "__outer__", INNER})


def _part(part: Part, visible: Sequence[str], code: CodeType, function: str) -> CodeType:
    """Compile a branch as a function over the variables around it."""
    where = part.body[0]
    at = place(where)
    scope = Scope("function", None, "")
    bind(part.body, scope)
    owner = owner_of(function) or owner_of(code.co_qualname)
    changed = sorted(n for n in scope.bound if mangled(n, owner) in visible and n != part.parameter)
    start: list[ast.stmt] = [ast.Nonlocal(changed, **at)] if changed else []
    node = definition(INNER, [part.parameter] if part.parameter else [], [*start, *part.body], at)
    standing = code.replace(co_qualname=function)
    free = [n for n in visible if n != part.parameter]
    made = assemble(node, standing, free)
    made = _renamed(made, made.co_qualname, function, function.rpartition(".")[2] or code.co_name)
    _register(made)
    return made


def _codes(code: CodeType) -> list[CodeType]:
    found = [code]
    for c in code.co_consts:
        if isinstance(c, CodeType):
            found += _codes(c)
    return found


def _renamed(code: CodeType, made: str, wanted: str, name: str) -> CodeType:
    """Code under the name that the user gave it, with that inside."""

    def qualified(c: CodeType) -> CodeType:
        name = wanted + c.co_qualname[len(made) :] if c.co_qualname.startswith(made + ".") else c.co_qualname
        consts: list[Any] = [qualified(x) if isinstance(x, CodeType) else x for x in c.co_consts]
        if "__qualname__" in c.co_names:  # a class
            consts = [name if x == c.co_qualname else x for x in consts]
        return c.replace(co_consts=tuple(consts), co_qualname=name)

    return qualified(code).replace(co_name=name, co_qualname=wanted)


def made(code: CodeType) -> bool:
    """Whether a conversion made this code, or code around it."""
    known = _MADE.get(id(code))
    return known is not None and known() is code


def _register(code: CodeType) -> None:
    for c in _codes(code):
        key = id(c)
        _MADE[key] = weakref.ref(c, lambda _, key=key: _MADE.pop(key, None))  # type: ignore[misc]


_PYTHON: Final = PythonHooks()
