"""Saving and loading tensors and plain Python data: `kiln.save` and `kiln.load`.

A file is a safetensors file that any reader of that format opens. Its tensors are named by their place (the keys of
a state dict, joined by dots), and its metadata entry "kiln" holds, as JSON, how they were nested. Nothing is ever
unpickled: a file is data, not code.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kiln.creation import from_numpy
from kiln.errors import ArgumentError, LoadError
from kiln.ir import types as T
from kiln.tensor import Tensor

PathLike: TypeAlias = "str | os.PathLike[str]"
_CODES = {
    **{T.bool_: "BOOL", T.uint8: "U8", T.int8: "I8", T.int16: "I16", T.int32: "I32", T.int64: "I64"},
    **{T.float16: "F16", T.bfloat16: "BF16", T.float32: "F32", T.float64: "F64"},
}
_HEADER_LIMIT = 100_000_000  # bytes of a header that the format's readers accept


def save(obj: Any, path: PathLike) -> None:
    """Write `obj` to `path`: tensors, and dicts (keys: strings and ints), lists, tuples, strings, numbers and None
    around them, nested as they like.

    The file appears complete or not at all: it is written under another name in the same folder, flushed to disk and
    then renamed. Tensors are saved by value, contiguous, without their gradients. ArgumentError names the place of
    anything else.
    """
    target = Path(_checked_path("save", path))
    tensors: dict[str, Tensor] = {}
    structure = _encode(obj, "", tensors)
    # Wide elements first keeps every tensor aligned, as the format's own writer does.
    arrays = {name: np.ascontiguousarray(t._read("save()")) for name, t in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"kiln": json.dumps(structure, ensure_ascii=False, allow_nan=False)}}
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        code = _CODES[tensors[name].dtype]
        header[name] = {"dtype": code, "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise ArgumentError(f"the names and the structure take {len(text):,} bytes, too many for a file", op="save")
    with _replacing(target) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(arrays[name].reshape(-1).view(np.uint8).data)


def load(path: PathLike) -> Any:
    """What `save` wrote to `path`; for other safetensors files a dict of tensors by name.

    Tensors come without `requires_grad`. LoadError for a file that is damaged, that is no safetensors file, or whose
    tensors have dtypes that kiln lacks; OSError (FileNotFoundError, ...) where it can't be read.
    """
    source = Path(_checked_path("load", path))
    from safetensors import SafetensorError, safe_open

    with source.open("rb"):
        pass  # the system's own errors, before the library's
    try:
        with safe_open(str(source), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: _tensor(source, file, name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise LoadError(f"{source} is damaged or no safetensors file: {error}") from None
    if "kiln" not in metadata:
        return tensors
    try:
        left = dict(tensors)
        loaded = _decode(json.loads(metadata["kiln"]), tensors, left)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LoadError(f"{source}: its structure is damaged ({type(error).__name__}: {error})") from None
    if left:
        raise LoadError(f"{source}: its structure does not name {', '.join(sorted(left))}")
    return loaded


def _checked_path(op: str, path: Any) -> str:
    try:
        name: str | bytes = os.fspath(path)
    except TypeError:
        raise ArgumentError(f"expected a path, got {type(path).__name__}", op=op) from None
    if isinstance(name, bytes):
        raise ArgumentError("expected a path of text, got bytes", op=op)
    return name


# ------------------------------------------------------------------------------------------- structure
#
# JSON's own null, booleans, ints, finite floats, strings and lists stand for themselves; everything else is an object
# of one entry: {"tensor": name}, {"tuple": [...]}, {"dict": [[key, value], ...]}, {"float": "inf"}.


def _encode(x: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    kind = type(x)
    if x is None or kind in (bool, int, str):
        return x
    if kind is float:
        return x if math.isfinite(x) else {"float": str(x)}
    if isinstance(x, Tensor):
        name = place or "tensor"
        while name in tensors or name == "__metadata__":
            name += "'"
        tensors[name] = x
        return {"tensor": name}
    if kind in (list, tuple):
        items = [_encode(v, _below(place, i), tensors) for i, v in enumerate(x)]
        return items if kind is list else {"tuple": items}
    if isinstance(x, Mapping):
        for key in x:
            if type(key) not in (str, int):
                raise ArgumentError(f"a key of {place or 'the dict'} is a {type(key).__name__}", op="save")
        return {"dict": [[key, _encode(v, _below(place, key), tensors)] for key, v in x.items()]}
    where = f"{place} is" if place else "got"
    raise ArgumentError(
        f"{where} a {kind.__qualname__}: only tensors and plain Python data can be saved",
        op="save",
        fix="save module.state_dict()" if hasattr(x, "state_dict") else "convert it to numbers, strings or tensors",
    )


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _decode(x: Any, tensors: Mapping[str, Tensor], left: dict[str, Tensor]) -> Any:
    if isinstance(x, list):
        return [_decode(v, tensors, left) for v in x]
    if not isinstance(x, dict):
        return x
    ((tag, body),) = x.items()
    if tag == "tensor":
        left.pop(body, None)
        return tensors[body]
    if tag == "tuple":
        return tuple([_decode(v, tensors, left) for v in body])
    if tag == "float":
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[body]
    if tag == "dict":
        pairs = [(key, _decode(v, tensors, left)) for key, v in body]
        if any(type(key) not in (str, int) for key, _ in pairs):
            raise ValueError("a key is neither a string nor an int")
        return dict(pairs)
    raise ValueError(f"unknown tag {tag!r}")


def _tensor(source: Path, file: Any, name: str) -> Tensor:
    code = file.get_slice(name).get_dtype()
    if code not in _CODES.values():
        raise LoadError(f"{source}: tensor {name} is of dtype {code}; kiln has {', '.join(_CODES.values())}")
    array = file.get_tensor(name)
    return from_numpy(array if array.flags.writeable and array.flags.aligned else array.copy())


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Any]:
    """A file that takes the place of `target` when the block ends well, and vanishes otherwise."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself reaches the disk
    finally:
        os.close(folder)
