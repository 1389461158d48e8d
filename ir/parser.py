"""Text back to graphs: the inverse of `printer.py`, for tests, files and hand-written examples."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from kiln.ir.graph import Alias, AttrValue, Constant, Graph, GraphBuilder, Value
from kiln.ir.ops import OPS
from kiln.ir.types import CPU, DTYPES, Dim, Sym, TensorType, device_at

_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\s*)*
    (?:(?P<string>"(?:[^"\\]|\\.)*")
      |(?P<number>-?(?:inf|nan)\b|-?\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\d*]))
      |(?P<arrow>->)
      |(?P<word>(?:\d+\*)?[A-Za-z_][\w.]*(?:\*[A-Za-z_][\w.]*)*)
      |(?P<mark>[%$@(){}\[\],:=]))""",
    re.VERBOSE,
)


class ParseError(ValueError):
    """The text is not a graph; the message says where and what was expected."""


def parse_graph(text: str) -> Graph:
    """The graph that `print_graph` would print as `text` (comments are skipped). ParseError otherwise.

    >>> from kiln.ir.parser import parse_graph
    >>> print(parse_graph("graph f(%0: float32[2]) { %1 = neg(%0) : float32[2] return %1 }"))
    graph f(%0: float32[2]) {
      %1 = neg(%0) : float32[2]
      return %1
    }
    """
    parser = _Parser(text)
    graph = parser.graph()
    parser.expect("")
    return graph


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        at, line, counted = 0, 1, 0
        stripped = text.rstrip()
        while at < len(stripped):
            found = _TOKEN.match(stripped, at)
            if found is None:
                if re.fullmatch(r"\s*(?:#[^\n]*\s*)*", stripped[at:]):
                    break
                raise ParseError(f"line {text.count(chr(10), 0, at) + 1}: unexpected {stripped[at : at + 20]!r}")
            kind = found.lastgroup or ""
            start = found.start(kind)
            line, counted = line + text.count("\n", counted, start), start
            self.tokens.append((kind, found.group(kind), line))
            at = found.end()
        self.tokens.append(("end", "", text.count("\n") + 1))
        self.position = 0

    # ---------------------------------------------------------------------------------------- tokens

    @property
    def peek(self) -> str:
        return self.tokens[self.position][1]

    def take(self, kind: str = "") -> str:
        found, text, line = self.tokens[self.position]
        if kind and found != kind:
            raise ParseError(f"line {line}: expected a {kind}, found {text!r}")
        self.position += 1
        return text

    def expect(self, text: str) -> None:
        _, found, line = self.tokens[self.position]
        if found != text:
            raise ParseError(f"line {line}: expected {text or 'the end'!r}, found {found!r}")
        self.position += 1

    def accept(self, text: str) -> bool:
        if self.peek != text or self.tokens[self.position][0] == "string":
            return False
        self.position += 1
        return True

    # ----------------------------------------------------------------------------------------- graph

    def graph(self) -> Graph:
        self.expect("graph")
        builder = GraphBuilder(self.take("word"))
        values: dict[str, Value] = {}
        self.expect("(")
        while not self.accept(")"):
            name = self.name()
            hint = "" if self.peek == ":" else self.take("word")
            self.expect(":")
            values[name] = builder.input(self.type(), hint)
            self.accept(",")
        self.expect("{")
        while not self.accept("return"):
            self.operation(builder, values)
        outputs: list[Value] = []
        while self.peek == "%":
            outputs.append(self.known(values))
            self.accept(",")
        aliases = []
        while self.accept("alias"):
            output = int(self.take("number"))
            self.expect("->")
            aliases.append(Alias(output, int(self.take("number"))))
        self.expect("}")
        return builder.build(outputs, aliases)

    def name(self) -> str:
        self.expect("%")
        return self.take("number")

    def known(self, values: dict[str, Value]) -> Value:
        line = self.tokens[self.position][2]
        name = self.name()
        if name not in values:
            raise ParseError(f"line {line}: %{name} is not defined")
        return values[name]

    def operation(self, builder: GraphBuilder, values: dict[str, Value]) -> None:
        line = self.tokens[self.position][2]
        names = [self.name()]
        while self.accept(","):
            names.append(self.name())
        self.expect("=")
        op_name = self.take("word")
        if op_name not in OPS:
            raise ParseError(f"line {line}: no op is called {op_name!r}")
        self.expect("(")
        operands = []
        while not self.accept(")"):
            operands.append(self.known(values))
            self.accept(",")
        attrs: dict[str, AttrValue] = {}
        if self.accept("{"):
            while not self.accept("}"):
                key = self.take("word")
                self.expect("=")
                attrs[key] = self.attribute()
                self.accept(",")
        self.expect(":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        results = builder.add(OPS[op_name], operands, attrs)
        if [r.type for r in results] != types or len(names) != len(results):
            raise ParseError(f"line {line}: {op_name} gives {', '.join(str(r.type) for r in results)}")
        values.update(zip(names, results, strict=True))

    def type(self) -> TensorType:
        line = self.tokens[self.position][2]
        name = self.take("word")
        if name not in DTYPES:
            raise ParseError(f"line {line}: no dtype is called {name!r}")
        shape = self.shape()
        device = CPU
        if self.accept("@"):
            kind = self.take("word")
            device = device_at(kind, int(self.take("number")) if self.accept(":") else 0)
        return TensorType(DTYPES[name], shape, device)

    def shape(self) -> tuple[Dim, ...]:
        self.expect("[")
        dims: list[Dim] = []
        while not self.accept("]"):
            kind = self.tokens[self.position][0]
            dims.append(int(self.take()) if kind == "number" else Sym(self.take("word")))
            self.accept(",")
        return tuple(dims)

    def attribute(self) -> AttrValue:
        kind, text, line = self.tokens[self.position]
        if kind == "number":
            self.position += 1
            return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
        if kind == "string":
            self.position += 1
            return str(json.loads(text))
        if self.accept("("):
            items: list[AttrValue] = []
            while not self.accept(")"):
                items.append(self.attribute())
                self.accept(",")
            return tuple(items)
        if self.accept("$"):
            symbol: Any = Sym(self.take("word"))
            return symbol  # type: ignore[no-any-return]
        if text == "graph":
            return self.graph()
        word = self.take("word")
        words: dict[str, AttrValue] = {
            "none": None,
            "true": True,
            "false": False,
            "inf": np.inf,
            "nan": np.nan,
            **DTYPES,
        }
        if word == "const":
            return self.constant()
        if word == "complex":
            parts: Any = self.attribute()
            return complex(*parts)
        if word not in words:
            raise ParseError(f"line {line}: {word!r} is not an attribute value")
        return words[word]

    def constant(self) -> Constant:
        self.expect("(")
        dtype = np.dtype(self.take("word"))
        shape = tuple(d for d in self.shape() if isinstance(d, int))
        self.expect(",")
        data = np.frombuffer(bytes.fromhex(json.loads(self.take("string"))), dtype).reshape(shape)
        self.expect(")")
        return Constant(data)
