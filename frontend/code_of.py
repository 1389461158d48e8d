"""What a captured function does, as the text of a Python function that runs: `.code`.

It takes the arguments that the captured function takes. Tensors of a module are read through `self`; others from
outside are keyword arguments. Executed with `kiln` in scope it gives the same bits: results, the contents of tensors
that are written in place, gradients that are set, the state of the random numbers. It promises nothing about gradients
that are taken of it.
"""

from __future__ import annotations

import ast
import inspect
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any, Final, NamedTuple

import numpy as np

from kiln.errors import NotYetError
from kiln.graph_code import Writer, aliases_of, numbers, plain, row
from kiln.ir.graph import Constant, Value
from kiln.ir.passes.cut import needed
from kiln.ir.types import CPU
from kiln.journal import Instead
from kiln.pytree import Tree
from kiln.random import default_generator, default_generators
from kiln.reach import Reached
from kiln.reasons import is_tensor, paths
from kiln.region import Region
from kiln.texts import Template


class Captured(NamedTuple):
    """A region, and what the call was that it came from: the function, its name, the call's signature with the objects
    in it, and what the function reaches."""

    function: Callable[..., Any]
    name: str
    key: tuple[Any, ...]
    objects: Sequence[Any]
    reached: Reached
    region: Region


class Code(NamedTuple):
    """The text, the tensors that it takes besides the function's own arguments, and the constants that it does not
    hold itself."""

    text: str
    outside: dict[str, Any]
    constants: dict[str, Constant]


def code_of(captured: Captured, inline: bool = True) -> Code:
    """The text for a region. `inline`: with all constants in it. NotYetError for what can't be written as Python."""
    return _Text(captured, inline).code()


class _Text:
    def __init__(self, captured: Captured, inline: bool) -> None:
        self.captured = captured
        self.region = captured.region
        self.graph = captured.region.graph
        self.constants: dict[str, Constant] = {}
        self.outside: dict[str, Any] = {}
        self.signature = _signature(captured.function)
        taken = ("CONSTANTS", "getattr", "complex", "range", "float")
        self.writer = Writer(taken, None if inline else self.constants)
        self.renamed = {name: self.writer.fresh(name) for name in self.signature.parameters}
        self.leaves = _leaves(self.signature, self.renamed, captured.key[0], _is_bound(captured.function))
        self.roots = list(self._roots())

    def code(self) -> Code:
        if self.region.effects:
            raise NotYetError("what a call does besides computing, as Python", op="code")
        if self.region.recipe is not None:
            raise NotYetError("a result that is an object from outside, as Python", op="code")
        writer, graph, region = self.writer, self.graph, self.region
        written = {graph.inputs[a.input]: graph.outputs[a.output] for a in graph.aliases}
        returned = [v for r, v in zip(region.results, region.values, strict=True) if not r.same]
        wanted = [*returned, *written.values()]
        operations = needed(graph.operations, wanted, graph.inputs)
        known = numbers(graph)
        read = {v for operation in operations for v in operation.operands}.union(written, wanted)
        read.update(graph.inputs[r.input] for r in region.results if r.same and r.input is not None)
        for k, v in enumerate(graph.inputs):
            if v in read:
                self._input(k, v)
        writer.operations(operations, known)
        names = self._separate(written, aliases_of(graph, operations))
        if written:
            writer.put("with kiln.no_grad():")
            for v, source in written.items():
                writer.put(f"    {writer.names[v]}.copy_({names[source]})")
        values = [
            writer.names[graph.inputs[r.input]] if r.same and r.input is not None else names[v]
            for r, v in zip(region.results, region.values, strict=True)
        ]
        for write in region.grads:
            if write.argument is not None:
                owner = self._argument(write.argument)
            else:
                owner = self._object(write.tensor) if write.result is None else values[write.result]
            writer.put(f"{owner}.grad = {'None' if write.value is None else f'{values[write.value]}.detach()'}")
        leaves = iter([_leaf(values, k, x) for k, x in region.leaves])
        writer.put(f"return {_built(region.tree, leaves)}")
        head = f"def {self._name()}({self._parameters()}):"
        return Code("\n".join([head, *writer.lines, ""]), self.outside, self.constants)

    def _separate(self, written: dict[Value, Value], shared: dict[Value, frozenset[Value]]) -> dict[Value, str]:
        """The names of all values once inputs are overwritten: copies of those whose memory that changes."""
        writer = self.writer
        names = dict(writer.names)
        for v in {*written.values(), *self.region.values}:
            if any(x in written for x in shared.get(v, ())) and v in names:
                names[v] = writer.fresh("before")
                writer.put(f"{names[v]} = {writer.names[v]}.clone()")
        return names

    # --------------------------------------------------------------------------------------- inputs

    def _input(self, k: int, v: Value) -> None:
        """Give an input of the graph its name, by a line of its own if need be."""
        inputs = self.region.inputs
        argument, owner = inputs.source(k)
        if inputs.objects[k] is not None:
            expression = self._object(inputs.objects[k])
        elif owner is None:
            assert argument is not None
            expression = self._argument(argument)
        else:
            expression = f"{self._object(owner) if argument is None else self._argument(argument)}.grad"
        if not expression.isidentifier():
            name = self.writer.fresh(_word(expression.removeprefix("self.").removeprefix("kiln.")))
            self.writer.put(f"{name} = {expression}")
            expression = name
        self.writer.names[v] = expression

    def _argument(self, position: int) -> str:
        """The expression for a tensor argument by its position among the different ones."""
        for leaf, part in zip(self.leaves, self.captured.key[3:], strict=False):
            if is_tensor(part) and part[4] == position:
                return leaf
        raise NotYetError("a tensor that is an attribute of a tensor, as Python", op="code")

    def _object(self, t: Any) -> str:
        """The expression for a tensor from outside."""
        path = self.captured.reached.guards.paths.get(id(t), "tensor")
        for prefix, expression, root in self.roots:
            rest = path[len(prefix) :]
            if path.startswith(prefix) and _STEPS.fullmatch(rest):
                steps = _STEP.findall(_REGISTERS.sub(_short, rest))
                if _follow(root, steps) is t:
                    return expression + "".join(steps)
        return self._extra(_REGISTERS.sub(_short, path), t)

    def _extra(self, wanted: str, t: Any) -> str:
        for name, known in self.outside.items():
            if known is t:
                return name
        name = self.writer.fresh(_word(wanted))
        self.outside[name] = t
        return name

    def _roots(self) -> Iterator[tuple[str, str, Any]]:
        """Objects that the text can name: what paths to them begin with, the expression, the object."""
        function = self.captured.function
        name = getattr(function, "__name__", type(function).__name__)
        own = next(iter(self.renamed.values()), "self")
        if isinstance(function, MethodType):
            yield f"{name}.__self__", own, function.__self__
        elif _is_module(function):
            yield name, own, function
        yield "the default generator", "kiln.default_generator", default_generator
        for device, generator in default_generators().items():
            if device != CPU:
                path = f"the default generator of {device}"
                yield path, f"kiln.cuda.default_generators[{device.slot}]", generator
        for k, x in enumerate(x for x in self.captured.objects if not isinstance(x, np.ndarray)):
            for leaf, part in zip(self.leaves, self.captured.key[3:], strict=False):
                if part == id(x):
                    yield f"argument {k}", leaf, x
                    break

    # ---------------------------------------------------------------------------------------- the head

    def _name(self) -> str:
        name = self.captured.name if self.captured.name.isidentifier() else "main"
        if _is_module(self.captured.function):
            return "forward"
        return f"{name}_" if keyword.iskeyword(name) or name == "kiln" else name

    def _parameters(self) -> str:
        """The parameters of the function, with the tensors from outside as keywords."""
        told: list[str] = []
        last: Any = None
        starred = False
        for p in self.signature.parameters.values():
            if last is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
                told.append("/")
            starred = starred or p.kind is p.VAR_POSITIONAL
            if p.kind is p.KEYWORD_ONLY and not starred:
                told.append("*")
                starred = True
            if p.kind is p.VAR_KEYWORD:
                told += self._extras(starred)
            told.append(_parameter(p, self.renamed[p.name]))
            last = p.kind
        if last is inspect.Parameter.POSITIONAL_ONLY:
            told.append("/")
        return ", ".join(told if last is inspect.Parameter.VAR_KEYWORD else [*told, *self._extras(starred)])

    def _extras(self, starred: bool) -> list[str]:
        return [*([] if starred or not self.outside else ["*"]), *self.outside]


def _is_module(function: Any) -> bool:
    return hasattr(type(function), "named_parameters")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """What the text takes: for a module and for a method, the object first."""
    called = function.forward if _is_module(function) else function  # type: ignore[attr-defined]
    try:
        found = inspect.signature(called, follow_wrapped=False)
    except (TypeError, ValueError):  # a callable of C that has none
        found = inspect.signature(lambda *args, **kwargs: None)
    if not _is_bound(function):
        return found
    rest = list(found.parameters.values())
    kind = rest[0].POSITIONAL_ONLY if rest and rest[0].kind is rest[0].POSITIONAL_ONLY else _PLAIN
    own = inspect.Parameter("this" if "self" in found.parameters else "self", kind)
    return found.replace(parameters=[own, *rest])


_PLAIN: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _is_bound(function: Any) -> bool:
    return _is_module(function) or isinstance(function, MethodType)


def _parameter(p: inspect.Parameter, name: str) -> str:
    if p.kind is p.VAR_POSITIONAL:
        return f"*{name}"
    if p.kind is p.VAR_KEYWORD:
        return f"**{name}"
    if p.default is p.empty:
        return name
    known = p.default is None or type(p.default) in (bool, int, float, str)
    return f"{name}={plain(p.default) if known else '...'}"


def _leaf(values: Sequence[str], k: int, x: Any) -> str:
    """A leaf of what is returned (`Region._leaf`)."""
    if k < 0:
        return plain(x)
    if x is None:
        return values[k]
    if isinstance(x, Instead):
        test = values[x.flag] if x.when else f"not {values[x.flag]}"
        return f"({_leaf(values, *x.leaf)} if {test} else {values[k]})"
    if isinstance(x, Template):
        raise NotYetError("text of tensors as Python", op="code", fix="return the tensors")
    return f"{x.__name__}({values[k]})"


def _leaves(signature: inspect.Signature, renamed: dict[str, str], tree: Tree, bound: bool) -> list[str]:
    """Expressions for the leaves of the arguments."""
    positional, named = tree.children
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    plainly = [renamed[p.name] for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((renamed[p.name] for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    more = next((renamed[p.name] for p in parameters if p.kind is p.VAR_KEYWORD), "kwargs")
    found: list[str] = []
    for k, child in enumerate(positional.children):
        found += paths(child, plainly[k] if k < len(plainly) else f"{rest}[{k - len(plainly)}]")
    for key, child in zip(named.keys, named.children, strict=True):
        found += paths(child, renamed.get(key, f"{more}[{key!r}]"))
    return found


# ---------------------------------------------------------------------------------------------- paths

_STEP: Final = re.compile(r"\.[^\W\d]\w*|\[(?:'[^'\[\]\\]*'|\d+)\]")
_STEPS: Final = re.compile(f"(?:{_STEP.pattern})*")
_REGISTERS: Final = re.compile(r"\._(?:modules|parameters|buffers)\['([^\W\d]\w*)'\]")


def _short(register: re.Match[str]) -> str:
    """A module's own parameter, buffer or module as an attribute."""
    name = register[1]
    return register[0] if keyword.iskeyword(name) else f".{name}"


def _word(path: str) -> str:
    """A path as one word."""
    return re.sub(r"\W+", "_", re.sub(r"\._(modules|parameters|buffers)\b|_modules\b", "", path))


def _follow(x: Any, steps: Sequence[str]) -> Any:
    """What attributes and items lead to; None where there is no such thing."""
    for step in steps:
        if step[0] == ".":
            x = getattr(x, step[1:], None)
        elif isinstance(x, dict):
            x = x.get(ast.literal_eval(step[1:-1]))
        else:
            place = ast.literal_eval(step[1:-1])
            x = x[place] if isinstance(x, (list, tuple)) and isinstance(place, int) and place < len(x) else None
    return x


def _built(tree: Tree, leaves: Iterator[str]) -> str:
    """An expression for a container."""
    if tree.kind is None:
        return next(leaves)
    items = [_built(child, leaves) for child in tree.children]
    if tree.kind is dict:
        return "{" + ", ".join(f"{plain(k)}: {x}" for k, x in zip(tree.keys, items, strict=True)) + "}"
    if tree.kind is list:
        return f"[{', '.join(items)}]"
    if tree.keys:
        raise NotYetError(f"a {tree.kind.__name__} as Python", op="code", fix="return tuples, lists and dicts")
    if tree.kind.__module__ == "kiln.return_types":
        return f"kiln.return_types.{tree.kind.__name__}({', '.join(items)})"
    return row(items)
