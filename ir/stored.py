"""Programs as bytes, for the cache on disk, and the text that decides what a graph compiles to.

Two graphs with equal `graph_key` compile to equal programs but for what they took from the user's process: the lines
that checks name, and literal data. So a stored program refers to those by their place in the graph.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from kiln.ir.arena import Local
from kiln.ir.graph import AttrValue, Constant, Graph, Operation, SourceLoc
from kiln.ir.ops.base import OPS
from kiln.ir.program import (
    BranchCall,
    CarriedPlace,
    CheckSite,
    Entry,
    LibraryCall,
    LoopCall,
    Module,
    Place,
    Program,
    SlicedPlace,
    Slot,
)
from kiln.ir.target import Target
from kiln.ir.types import Dim, DType, Sym, TensorType, device_at, dtype_named

_Json: TypeAlias = Any
_LEVEL: Final = 1  # of compression: texts shrink to a sixth, in no time


class StoredError(Exception):
    """Bytes are no program of this graph."""


# ------------------------------------------------------------------------------------------ the key


def graph_key(graph: Graph) -> str | None:
    """The text of all that decides the code of a graph; None when an op is not one of kiln's own."""
    lines: list[str] = []
    known = _Places(graph)
    if not known.own:
        return None
    _key_lines(graph, known, lines)
    return "\n".join(lines)


class _Places:
    """Where a graph, nested ones included, has its lines and its literal data."""

    def __init__(self, graph: Graph) -> None:
        self.locs: dict[SourceLoc, int] = {}
        self.constants: dict[int, int] = {}
        self.data: list[Constant] = []
        self.own = True
        for op in _operations(graph):
            self.own = self.own and OPS.get(op.op.name) is op.op
            if op.loc is not None:
                self.locs.setdefault(op.loc, len(self.locs))
            for value in _leaves(op.attrs.values()):
                if isinstance(value, Constant) and id(value) not in self.constants:
                    self.constants[id(value)] = len(self.data)
                    self.data.append(value)


def _leaves(values: Iterable[AttrValue]) -> Iterator[AttrValue]:
    for value in values:
        if isinstance(value, tuple):
            yield from _leaves(value)
        else:
            yield value


def _operations(graph: Graph) -> Iterator[Operation]:
    for op in graph.operations:
        yield op
        for value in _leaves(op.attrs.values()):
            if isinstance(value, Graph):
                yield from _operations(value)


def _key_lines(graph: Graph, known: _Places, lines: list[str]) -> None:
    numbers = {v: k for k, v in enumerate(graph.values())}
    lines.append(f"graph {graph.name!r}")
    lines += [f"{v.type} {v.hint!r}" for v in graph.inputs]
    for op in graph.operations:
        attrs = [f"{name}={_attribute(value, known, lines)}" for name, value in op.attrs.items()]
        place = "" if op.loc is None else known.locs[op.loc]
        lines.append(f"{op.op.name} {[numbers[v] for v in op.operands]} {attrs} @{place}")
    lines.append(f"{[numbers[v] for v in graph.outputs]} {[(a.output, a.input) for a in graph.aliases]}")


def _attribute(value: AttrValue, known: _Places, lines: list[str]) -> str:
    """An attribute, of another form for each type. A nested graph's lines go before."""
    if isinstance(value, Graph):
        _key_lines(value, known, lines)
        return "graph"
    if isinstance(value, Constant):  # which one it is counts, too: equal data may be two
        return f"const {known.constants[id(value)]} {value.digest()}"
    if isinstance(value, tuple):
        return f"({', '.join(_attribute(x, known, lines) for x in value)},)"
    if isinstance(value, Sym):
        return f"size {value.name}"
    if isinstance(value, complex):
        return f"complex {_attribute(value.real, known, lines)} {_attribute(value.imag, known, lines)}"
    if isinstance(value, float):
        return f"{math.copysign(1.0, value):.0f}:{value!r}"  # NaNs have signs
    return f"dtype {value.name}" if isinstance(value, DType) else repr(value)


# ---------------------------------------------------------------------------------------- the bytes


def encode(program: Program, graph: Graph) -> bytes:
    """A program that was made of `graph`, for `decode`."""
    known = _Places(graph)
    record = {
        "name": program.name,
        "modules": [[m.name, m.text, m.exports, m.imports, m.plain] for m in program.modules],
        "entries": list(map(_entry_record, program.entries)),
        "slots": [[s.kind, s.index, s.name] for s in program.slots],
        "inputs": [_type_record(t) for t in program.input_types],
        "outputs": [_type_record(t) for t in program.output_types],
        "aliases": program.aliases,
        "arena": program.arena_bytes,
        "locals": [[str(v.nbytes), v.born, v.dies] for v in program.locals],
        "constants": [_constant_record(c, known) for c in program.constants],
        "checks": [[c.kind, c.op, c.message, None if c.loc is None else known.locs[c.loc]] for c in program.checks],
        "work": program.work,
    }
    return zlib.compress(json.dumps(record, separators=(",", ":")).encode(), _LEVEL)


def decode(data: bytes, graph: Graph, target: Target) -> Program:
    """The program that `encode` wrote for a graph of the same `graph_key`; StoredError when it did not."""
    try:
        return _program(json.loads(zlib.decompress(data)), _Places(graph), target)
    except (zlib.error, ValueError, LookupError, TypeError) as error:
        raise StoredError(f"{type(error).__name__}: {error}") from None


def _program(record: Mapping[str, _Json], known: _Places, target: Target) -> Program:
    locs = list(known.locs)
    return Program(
        name=record["name"],
        target=target,
        modules=tuple(
            Module(n, text, tuple(exports), tuple(imports), plain)
            for n, text, exports, imports, plain in record["modules"]
        ),
        entries=_entries(record["entries"]),
        slots=tuple(Slot(kind, index, name) for kind, index, name in record["slots"]),
        input_types=tuple(map(_type, record["inputs"])),
        output_types=tuple(map(_type, record["outputs"])),
        aliases=tuple((output, input) for output, input in record["aliases"]),
        arena_bytes=record["arena"],
        locals=tuple(Local(_dim(size), born, dies) for size, born, dies in record["locals"]),
        constants=tuple(_constant(c, known) for c in record["constants"]),
        checks=tuple(
            CheckSite(kind, op, message, None if loc is None else locs[loc])
            for kind, op, message, loc in record["checks"]
        ),
        work=record["work"],
    )


def _type_record(t: TensorType) -> _Json:
    shape = [d.name if isinstance(d, Sym) else d for d in t.shape]
    return [t.dtype.name, shape, t.device.kind, t.device.slot]


def _type(record: _Json) -> TensorType:
    name, shape, kind, slot = record
    return TensorType(
        dtype_named(name), tuple(Sym(d) if isinstance(d, str) else d for d in shape), device_at(kind, slot)
    )


def _dim(text: str) -> Dim:
    return int(text) if text.isdigit() else Sym(text)


def _entry_record(entry: Entry) -> _Json:
    match entry:
        case str():
            return entry
        case LibraryCall(op, attrs, operands, results, check):
            return ["library", op, attrs, list(map(_place_record, operands)), list(map(_place_record, results)), check]
        case BranchCall(pred, then, other):
            return ["branch", _place_record(pred), list(map(_entry_record, then)), list(map(_entry_record, other))]
        case LoopCall(test, pred, body, carried, sliced, length, reverse):
            moved = [[c.read, c.written, *map(_place_record, (c.source, c.first, c.second))] for c in carried]
            walked = [[x.pointer, _place_record(x.start), x.pace] for x in sliced]
            parts = [list(map(_entry_record, part)) for part in (test, body)]
            return ["loop", *parts, None if pred is None else _place_record(pred), moved, walked, length, reverse]


def _entries(records: _Json) -> tuple[Entry, ...]:
    return tuple(map(_entry, records))


def _entry(record: _Json) -> Entry:
    if isinstance(record, str):
        return record
    kind, *rest = record
    if kind == "branch":
        pred, then, other = rest
        return BranchCall(_place(pred), _entries(then), _entries(other))
    if kind == "loop":
        test, body, pred, moved, walked, length, reverse = rest
        carried = tuple(CarriedPlace(read, written, *map(_place, places)) for read, written, *places in moved)
        sliced = tuple(SlicedPlace(pointer, _place(start), pace) for pointer, start, pace in walked)
        tested = None if pred is None else _place(pred)
        return LoopCall(_entries(test), tested, _entries(body), carried, sliced, length, reverse)
    op, attrs, operands, results, check = rest
    if op not in OPS:
        raise StoredError(f"there is no op {op}")
    found = tuple((name, _tuples(value)) for name, value in attrs)
    return LibraryCall(op, found, tuple(map(_place, operands)), tuple(map(_place, results)), check)


def _place_record(place: Place) -> _Json:
    return [place.slot, place.offset, _type_record(place.type), place.strides]


def _place(record: _Json) -> Place:
    slot, offset, type, strides = record
    return Place(slot, offset, _type(type), tuple(strides))


def _tuples(value: _Json) -> _Json:
    """An attribute of a library call (numbers, strings, tuples of such), which JSON gives back with lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _constant_record(constant: Constant, known: _Places) -> _Json:
    place = known.constants.get(id(constant))
    if place is not None:
        return place
    data = constant.data
    return [data.dtype.name, data.shape, base64.b85encode(data.tobytes()).decode()]


def _constant(record: _Json, known: _Places) -> Constant:
    if isinstance(record, int):
        return known.data[record]
    name, shape, text = record
    return Constant(np.frombuffer(base64.b85decode(text), dtype_named(name).numpy).reshape(shape))
