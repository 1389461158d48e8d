"""The operations of a graph as lines of Python: calls of `kiln.ops`, and of `kiln.cond` and its like."""

from __future__ import annotations

import base64
import keyword
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from kiln.errors import NotYetError
from kiln.ir.graph import AttrValue, Constant, Graph, Operation, Value
from kiln.ir.ops.base import OpDef
from kiln.ir.ops.control import CONTROL, nested, number, scan_parts
from kiln.ir.types import DType, Sym

_INLINE: Final = 16
"""Elements of a constant that are written as numbers."""


class Writer:
    """The lines of one function's body. `taken` are names that mean something else there."""

    def __init__(self, taken: Iterable[str], constants: dict[str, Constant] | None = None) -> None:
        self.lines: list[str] = []
        self.names: dict[Value, str] = {}
        self._taken = {*taken, "kiln"}
        self._indent = "    "
        self._stem = "t"
        self._constants = constants
        """Where constants of many elements are put, instead of into the text."""

    def put(self, line: str) -> None:
        """One more line."""
        self.lines.append(self._indent + line)

    def fresh(self, wanted: str) -> str:
        """A name that nothing has, as much like `wanted` as can be."""
        stem = "".join(c if c.isalnum() or c == "_" else "_" for c in wanted).strip("_") or "x"
        stem = f"x{stem}" if stem[0].isdigit() else f"{stem}_" if keyword.iskeyword(stem) else stem
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    # ----------------------------------------------------------------------------------- operations

    def operations(self, operations: Sequence[Operation], known: Mapping[Value, int]) -> None:
        """A line for each. `known`: the numbers of the values in the graph's own text."""
        for operation in operations:
            operands = [self.names[v] for v in operation.operands]
            for v in operation.results:
                self.names[v] = self.fresh(f"{self._stem}{known[v]}")
            made = [self.names[v] for v in operation.results]
            if operation.op.name in CONTROL:
                self._control(operation, operands, made)
            else:
                attrs = [f"{k}={self.attribute(v)}" for k, v in operation.attrs.items()]
                self.put(f"{', '.join(made)} = kiln.ops.{operation.op.name}({', '.join([*operands, *attrs])})")

    def _control(self, operation: Operation, operands: list[str], made: list[str]) -> None:
        attrs = operation.attrs
        if operation.op.name == "cond":
            then = self._function("then", nested(attrs, "then"), [len(operands) - 1], [])
            other = self._function("otherwise", nested(attrs, "else"), [len(operands) - 1], [])
            self.put(f"{row(made)} = kiln.cond({operands[0]}, {then}, {other}, {row(operands[1:])})")
        elif operation.op.name == "while_loop":
            count = len(made)
            test = self._function("test", nested(attrs, "test"), [count], operands[count:], single=True)
            body = self._function("body", nested(attrs, "body"), [count], operands[count:])
            self.put(f"{row(made)} = kiln.while_loop({test}, {body}, {row(operands[:count])})")
        else:
            carried, xs, constants = scan_parts(operands, attrs)
            body = self._function("body", nested(attrs, "body"), [-len(carried), -len(xs)], list(constants))
            length = f"length={number(attrs, 'length')}, reverse={attrs['reverse']}"
            rows = row(list(xs)) if xs else "None"
            parts = f"{row(made[: len(carried)])}, {row(made[len(carried) :])}"
            self.put(f"{parts} = kiln.scan({body}, {row(list(carried))}, {rows}, {length})")

    def _function(
        self, name: str, graph: Graph, given: Sequence[int], outer: Sequence[str], single: bool = False
    ) -> str:
        """Define the function of a nested graph, and give its name. `given` counts its arguments, below zero those that
        come as one tuple (of a scan, whose function has two); what follows them is `outer`, read from where it stands.
        `single`: it gives one tensor."""
        name = self.fresh(name)
        inputs = iter(graph.inputs)
        arguments, unpacked = [], []
        for count in given:
            taken = [next(inputs) for _ in range(abs(count))]
            for v in taken:
                self.names[v] = self.fresh("a")
            own = [self.names[v] for v in taken]
            if len(given) == 1:
                arguments += own
            else:
                whole = self.fresh("row")
                arguments.append(whole)
                unpacked += [f"{row(own)} = {whole}"] if own else []
        self.names.update(zip(inputs, outer, strict=True))
        self.put(f"def {name}({', '.join(arguments)}):")
        before, stem = self._indent, self._stem
        self._indent, self._stem = before + "    ", "s"
        for line in unpacked:
            self.put(line)
        self.operations(graph.operations, numbers(graph))
        made = [self.names[v] for v in graph.outputs]
        if len(given) == 2:
            carried = -given[0]
            self.put(f"return {row(made[:carried])}, {row(made[carried:])}")
        else:
            self.put(f"return {made[0] if single else row(made)}")
        self._indent, self._stem = before, stem
        return name

    # ----------------------------------------------------------------------------------- attributes

    def attribute(self, value: AttrValue) -> str:
        """An expression for an attribute. NotYetError for symbolic sizes."""
        if isinstance(value, Constant):
            return self._literal(value)
        if isinstance(value, tuple):
            return row([self.attribute(x) for x in value])
        if isinstance(value, Sym | Graph):
            raise NotYetError(f"a {type(value).__name__} as Python", op="code")
        return plain(value)

    def _literal(self, constant: Constant) -> str:
        data = constant.data
        if self._constants is not None and data.size > 1:
            name = f"c{len(self._constants)}"
            self._constants[name] = constant
            return f"CONSTANTS.{name}"
        dtype = f"kiln.{data.dtype.name}"
        if data.size <= _INLINE and data.dtype.kind in "biu" and (data.size or data.ndim == 1):
            return f"kiln.ops.literal({data.tolist()!r}, {dtype})"
        text = base64.b64encode(data.tobytes()).decode()
        return f'kiln.ops.literal("{text}", {dtype}, {data.shape!r})'


def plain(value: Any) -> str:
    """An expression for a Python value. NotYetError for what there is none for."""
    if isinstance(value, float) and not isinstance(value, np.generic):
        return {"inf": "kiln.inf", "-inf": "-kiln.inf", "nan": "kiln.nan"}.get(repr(value), repr(value))
    if type(value) is complex:
        return f"complex({plain(value.real)}, {plain(value.imag)})"
    if value is None or type(value) in (bool, int, str, bytes, range, type(...)):
        return repr(value)
    if isinstance(value, DType):
        return f"kiln.{value.name}"
    if type(value).__module__ == "kiln.constants" and type(value).__name__ == "Size":
        return f"kiln.Size({row([plain(x) for x in value])})"
    raise NotYetError(f"a {type(value).__name__} as Python", op="code", fix="return tensors, numbers and strings")


def row(names: Sequence[str]) -> str:
    """A tuple of them."""
    return f"({names[0]},)" if len(names) == 1 else f"({', '.join(names)})"


def numbers(graph: Graph) -> dict[Value, int]:
    return {v: n for n, v in enumerate(graph.values())}


def aliases_of(graph: Graph, operations: Sequence[Operation]) -> dict[Value, frozenset[Value]]:
    """For each value, the inputs that its memory may be part of when the operations run one by one."""
    known: dict[Value, frozenset[Value]] = {v: frozenset((v,)) for v in graph.inputs}
    for operation in operations:
        view = isinstance(operation.op, OpDef) and operation.op.view is not None
        shared = known[operation.operands[0]] if view else frozenset()
        known.update((v, shared) for v in operation.results)
    return known
