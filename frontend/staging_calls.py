"""What converted code calls in place of functions that take Python's numbers, once some of these are the program's own.

Built-in functions that ask their argument's type, or its value where the program could compute what they give, have
stand-ins. Others are known to leave numbers alone, or to compute with them by operators; what is called besides gets
Python's own numbers, asked for.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from kiln.base import MODES
from kiln.convert import made
from kiln.interop import InteropMethods
from kiln.ir.ops.base import OPS
from kiln.location import is_kiln
from kiln.staging_arithmetic import absolute, as_float, checked, kind_of, staging, value_now
from kiln.staging_creation import making, sized
from kiln.staging_items import item, to_bool, to_float, to_int, tolist
from kiln.staging_numbers import EXAMPLES, Number, constant, holds_numbers, tensor_of, with_python_numbers
from kiln.staging_scalars import called, takes
from kiln.staging_text import Text
from kiln.world import PASSING

Call = Callable[..., Any]


def _method(function: Any, of: Call, /, *args: Any, **kwargs: Any) -> Any:
    """A method of a tensor that takes no arguments."""
    return function(*args, **kwargs) if args or kwargs else of(function.__self__)


_TAKING: Final[dict[Any, Call]] = {InteropMethods.item: item, InteropMethods.tolist: tolist}
_CONVERTING: Final[dict[int, Call]] = {id(float): to_float, id(int): to_int, id(bool): to_bool}


def taking(function: Any) -> Any:
    """What stands for a function that makes numbers of tensors; None for any other."""
    if type(function) is MethodType:
        of = _TAKING.get(function.__func__)
        return None if of is None else functools.partial(_method, function, of)
    return _CONVERTING.get(id(function))


# -------------------------------------------------------------------------------------- built-in functions


def _staged(numbers: Sequence[Any]) -> bool:
    """Whether some are staged, and all are Python's numbers."""
    return any(isinstance(x, Number) for x in numbers) and all(kind_of(x) in EXAMPLES for x in numbers)


def _extreme(plain: Call, compare: Call, /, *args: Any, **kwargs: Any) -> Any:
    """max() or min(): the first one that none is beyond, as Python finds it."""
    items = args if len(args) > 1 else args[0] if args and type(args[0]) in (list, tuple) else ()
    if kwargs or not staging() or not _staged(items) or len(set(map(kind_of, items))) > 1:
        return plain(*args, **kwargs)
    best = items[0]
    for x in items[1:]:
        beyond = compare(x, best)
        if not isinstance(beyond, Number):
            best = x if beyond else best
        elif beyond.settled():
            best = x if beyond.now() else best
        else:
            bound = max(x.bound if isinstance(x, Number) else abs(x) if type(x) is int else 1 for x in (x, best))
            chosen = OPS["where"](beyond.tensor, tensor_of(x), tensor_of(best))
            best = Number(kind_of(x), chosen, bound)
    return best


def _joined(plain: Call, op: str, /, *args: Any, **kwargs: Any) -> Any:
    """any() or all()."""
    items = args[0] if len(args) == 1 and not kwargs and type(args[0]) in (list, tuple) else ()
    if not staging() or not _staged(items):
        return plain(*args, **kwargs)
    truths = [x.truth() if isinstance(x, Number) else bool(x) for x in items]
    return Number(bool, functools.reduce(OPS[op], map(tensor_of, truths)))


def among(container: Any, item: Any) -> Any:
    """`item in container`, if that can be staged; None if not."""
    if isinstance(item, Number) and type(container) is range and container.step == 1 and item.kind is not float:
        number: Any = item
        return _joined(all, "logical_and", [number >= container.start, number < container.stop])
    if type(container) not in (tuple, list) or not any(isinstance(x, Number) for x in (item, *container)):
        return None
    if not all(kind_of(x) in EXAMPLES or isinstance(x, (str, type(None))) for x in (item, *container)):
        return None
    return any(x is item for x in container) or _joined(any, "logical_or", [x == item for x in container])


def _sum(*args: Any, **kwargs: Any) -> Any:
    """sum(), which adds floats with more care than `+` from Python 3.12 on."""
    if sys.version_info >= (3, 12) and args:
        args = ((x.known() if isinstance(x, Number) and x.kind is float else x for x in args[0]), *args[1:])
    return sum(*args, **kwargs)


def _isinstance(x: Any, kinds: Any, /) -> bool:
    x = EXAMPLES[x.kind] if isinstance(x, Number) else "" if isinstance(x, Text) else x
    return isinstance(x, kinds)


def _type(*args: Any, **kwargs: Any) -> Any:
    if len(args) == 1 and isinstance(args[0], Number):
        return args[0].kind
    if len(args) == 1 and isinstance(args[0], Text):
        return str
    return type(*args, **kwargs)


def _of_float(plain: Call, of: Callable[[Any], Any], whole: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A predicate of math; `whole` is the answer for integers."""
    if len(args) != 1 or kwargs or not isinstance(args[0], Number) or not staging() or args[0].settled():
        return plain(*with_python_numbers(args), **with_python_numbers(kwargs))
    return Number(bool, of(args[0].tensor)) if args[0].kind is float else whole


def _is_infinite(x: Any) -> Any:
    return OPS["eq"](OPS["abs"](x), constant(float, math.inf))


def _is_finite(x: Any) -> Any:
    return OPS["lt"](OPS["abs"](x), constant(float, math.inf))


def _sqrt(*args: Any) -> Any:
    """math.sqrt(), whose result is the exact one, rounded."""
    if len(args) != 1 or not isinstance(args[0], Number) or not staging() or args[0].settled():
        return math.sqrt(*with_python_numbers(args))
    x, now = as_float(args[0]), value_now(args[0])
    ok = OPS["logical_not"](OPS["lt"](x, constant(float, 0.0)))
    if not checked(ok, None if now is None else not now < 0, raises=True):
        return math.sqrt(now)  # raises
    return Number(float, OPS["sqrt"](x))


def _fabs(*args: Any) -> Any:
    if len(args) != 1 or not isinstance(args[0], Number) or not staging() or args[0].settled():
        return math.fabs(*with_python_numbers(args))
    return absolute(Number(float, as_float(args[0])))


_part = functools.partial
_STANDING: Final[dict[int, Call]] = {
    id(max): _part(_extreme, max, operator.gt),
    id(min): _part(_extreme, min, operator.lt),
    id(any): _part(_joined, any, "logical_or"),
    id(all): _part(_joined, all, "logical_and"),
    id(sum): _sum,
    id(isinstance): _isinstance,
    id(type): _type,
    id(math.isnan): _part(_of_float, math.isnan, lambda x: OPS["ne"](x, x), False),
    id(math.isinf): _part(_of_float, math.isinf, _is_infinite, False),
    id(math.isfinite): _part(_of_float, math.isfinite, _is_finite, True),
    id(math.sqrt): _sqrt,
    id(math.fabs): _fabs,
}


def standing(function: Any) -> Any:
    """What stands for a function that would ask its argument's type or value; None for any other."""
    return _STANDING.get(id(function))


# ----------------------------------------------------------------------------- functions as they are

_OPERATORS: Final = (
    *("abs", "add", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg", "pos", "sub", "truediv"),
)
_LEAVING: Final = frozenset(
    map(
        id,
        [
            *(abs, divmod, round, pow, len, iter, next, callable, list, tuple, zip, enumerate, reversed, slice, sorted),
            *(math.floor, math.ceil, math.trunc, math.prod),
            *(getattr(operator, name) for name in _OPERATORS),
        ],
    )
)
_OF_LISTS: Final = frozenset({"append", "extend", "reverse", "clear", "copy", "sort", "count", "index", "remove"})


def leaves_numbers(function: Any) -> bool:
    """Whether a call may be given staged numbers: converted code, and functions that compute by operators, or hand on
    what they are given."""
    while isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, FunctionType):
        return made(function.__code__)
    if id(function) in _LEAVING:
        return True
    if hasattr(type(function), "named_parameters"):  # a module, which hands on what it is given
        hooked = any(vars(function).get(f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward"))
        return is_kiln(type(function).__call__.__module__) and not hooked
    if isinstance(function, BuiltinFunctionType):
        return type(function.__self__) is list and function.__name__ in _OF_LISTS
    return isinstance(function, type) and _is_plain(function)


def _is_plain(kind: type) -> bool:
    """A named tuple, or a data class, whose instances are made of their fields and nothing else."""
    init: Any = type.__getattribute__(kind, "__init__")
    if hasattr(kind, "__dataclass_fields__"):
        made_by_python = getattr(init, "__code__", None)
        more = hasattr(kind, "__post_init__") or hasattr(kind, "__slots__") or type(kind) is not type
        return not more and made_by_python is not None and made_by_python.co_filename == "<string>"
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and init is object.__init__


def asked(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A call that takes Python's own numbers only."""
    return function(*with_python_numbers(args), **with_python_numbers(kwargs))


def _in_library(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A call of Python code that is neither the user's nor kiln's."""
    hooks = getattr(MODES.recorder, "hooks", None)
    if hooks is None:
        return function(*args, **kwargs)
    hooks.quiet += 1
    try:
        return function(*with_python_numbers(args), **with_python_numbers(kwargs))
    finally:
        hooks.quiet -= 1


def _computed(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A call of a function of kiln's, which may take numbers beside tensors, or make tensors of them."""
    if staging() and holds_numbers((*args, *kwargs.values())):
        if takes(function):
            made_of = called(function, args, kwargs)
            if made_of is not None:
                return made_of[0]
        elif (make := making(function)) is not None and _fits(make, args, kwargs):
            found = make(*args, **kwargs)
            if found is not None:
                return found
        args = tuple([sized(function, x) for x in args])
        kwargs = {name: sized(function, x) for name, x in kwargs.items()}
    return function(*with_python_numbers(args), **with_python_numbers(kwargs))


def _fits(make: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call has the arguments that matter, and no others."""
    try:
        inspect.signature(make).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def with_numbers(function: Any) -> Any:
    """A function as it is called where there are staged numbers."""
    stand_in = standing(function)
    if stand_in is not None:
        return stand_in
    if leaves_numbers(function):
        return function
    plain = getattr(function, "__func__", function)
    if not isinstance(plain, FunctionType):
        return functools.partial(asked, function)
    return functools.partial(_computed if is_kiln(plain.__module__ or "") else _in_library, function)


PASSING.update({asked.__code__, _computed.__code__, _in_library.__code__})
