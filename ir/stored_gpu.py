"""CUDA programs as bytes, for the cache on disk (`ir/stored.py` is the same for the CPU's programs): what they are made
of, class by class, as lists that begin with the name of the class."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from kiln.ir import gpu_program as G
from kiln.ir import loops as L
from kiln.ir.arena import Local
from kiln.ir.graph import Constant, Graph, SourceLoc
from kiln.ir.ops.base import OPS
from kiln.ir.program import CheckSite, Slot
from kiln.ir.stored import StoredError, _constant, _constant_record, _Places, _type, _type_record
from kiln.ir.types import DType, Sym, TensorType, dtype_named

_LEVEL: Final = 1
_CLASSES: Final[dict[str, Callable[..., Any]]] = {
    c.__name__: c
    for c in (
        G.CudaProgram, G.CudaText, G.Memory, G.Workspace, G.Piece, G.Launch, G.Matrix, G.Product, G.Look, G.Array,
        G.HostCall, G.Branch, G.Carried, G.Sliced, G.Loop, L.Vec, L.Const, L.Var, L.Apply, Local, Slot, CheckSite,
    )
}  # fmt: skip


def encode(program: G.CudaProgram, graph: Graph) -> bytes:
    """A program that was made of `graph`, for `decode`."""
    record = _record(program, _Places(graph))
    return zlib.compress(json.dumps(record, separators=(",", ":")).encode(), _LEVEL)


def decode(data: bytes, graph: Graph) -> G.CudaProgram:
    """The program that `encode` wrote for a graph of the same `graph_key`; StoredError when it did not."""
    try:
        known = _Places(graph)
        made = _value(json.loads(zlib.decompress(data)), known, list(known.locs))
    except (zlib.error, ValueError, LookupError, TypeError) as error:
        raise StoredError(f"{type(error).__name__}: {error}") from None
    if not isinstance(made, G.CudaProgram):
        raise StoredError(f"a {type(made).__name__} is no program")
    unknown = [s.op for s in G.every(made.steps) if isinstance(s, G.HostCall) and s.op not in OPS]
    if unknown:
        raise StoredError(f"there is no op {unknown[0]}")
    return made


def _record(x: Any, known: _Places) -> Any:
    match x:
        case None | bool() | int() | float() | str():
            return x
        case tuple():
            return ["", *(_record(each, known) for each in x)]
        case SourceLoc():
            return ["line", known.locs[x]]
        case DType():
            return ["dtype", x.name]
        case Sym():
            return ["size", x.name]
        case TensorType():
            return ["type", _type_record(x)]
        case Constant():
            return ["constant", _constant_record(x, known)]
    name = type(x).__name__
    if name not in _CLASSES:
        raise TypeError(f"a {name} can't be stored")
    return [name, *(_record(getattr(x, f.name), known) for f in fields(x))]


def _value(record: Any, known: _Places, lines: list[SourceLoc]) -> Any:
    if not isinstance(record, list):
        return record
    kind, *rest = record
    match kind:
        case "line":
            return lines[rest[0]]
        case "dtype":
            return dtype_named(rest[0])
        case "size":
            return Sym(rest[0])
        case "type":
            return _type(rest[0])
        case "constant":
            return _constant(rest[0], known)
    values = [_value(each, known, lines) for each in rest]
    return tuple(values) if kind == "" else _CLASSES[kind](*values)
