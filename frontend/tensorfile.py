"""The safetensors format: named arrays and a table of texts in one file (https://github.com/huggingface/safetensors).

Eight bytes give the length of a JSON header, which gives dtype, shape and place of every array; their bytes follow.
A file is data, not code: reading it runs nothing. Files written here carry a CRC-32 of header and data.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np

from kiln.errors import ArgumentError, LoadError
from kiln.ir import types as T
from kiln.ir.types import DType

Array = np.ndarray[Any, Any]

_NAMES: Final = {
    **{"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"},
    **{"complex64": "C64"},
}
"""What the format calls kiln's element types. It has none for complex128: such an array is written as F64 with a last
dimension of size 2, and its name is put into the texts, under `_PAIRS`."""
_HEADER_LIMIT: Final = 100_000_000  # bytes of a header that the format's readers accept
_METADATA: Final = "__metadata__"
_CHECKSUM: Final = "kiln_crc32"
_PAIRS: Final = "kiln_complex128"
_PIECE: Final = 1 << 24  # bytes that are written, and summed, at a time


@dataclass(frozen=True)
class Part:
    """An array to write: `dtype` may be one that NumPy knows only as bits."""

    dtype: DType
    array: Array


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def _codes() -> dict[str, DType]:
    """The format's names of the dtypes that tensors have."""
    return {_NAMES[d.name]: d for d in T.TENSOR_DTYPES if d.name in _NAMES}


# ---------------------------------------------------------------------------------------------- writing


def write(file: IO[bytes], parts: Mapping[str, Part], metadata: Mapping[str, str]) -> None:
    """Write arrays and texts."""
    pairs = sorted(name for name, part in parts.items() if part.dtype is T.complex128)
    if pairs:
        doubled = {name: Part(T.float64, _as_parts(parts[name].array)) for name in pairs}
        parts, metadata = {**parts, **doubled}, {**metadata, _PAIRS: json.dumps(pairs)}
    # Wide elements first keeps every array aligned, as the format's own writer does.
    order = sorted(parts, key=lambda name: (-parts[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name in order:
        begin, end = end, end + parts[name].array.nbytes
        shape = list(parts[name].array.shape)
        header[name] = {"dtype": _NAMES[parts[name].dtype.name], "shape": shape, "data_offsets": [begin, end]}
    summed = zlib.crc32(_text(header))
    for name in order:
        for piece in _pieces(parts[name].array):
            summed = zlib.crc32(piece, summed)
    header[_METADATA][_CHECKSUM] = f"{summed:08x}"
    text = _text(header)
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise ArgumentError(f"the names and the structure take {len(text):,} bytes, too many for a file", op="save")
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        for piece in _pieces(parts[name].array):
            file.write(piece)


def _as_parts(array: Array) -> Array:
    """complex128 as float64, with a last dimension of size 2."""
    return np.ascontiguousarray(array).reshape(-1).view(np.float64).reshape(*array.shape, 2)


def _as_pairs(parts: dict[str, Part], metadata: dict[str, str], source: str) -> None:
    """What `write` made float64 becomes complex128 again."""
    names = json.loads(metadata.pop(_PAIRS, "[]"))
    for name in names:
        part = parts.get(name)
        if part is None or part.dtype is not T.float64 or part.array.shape[-1:] != (2,):
            raise damaged(source, f"tensor {name} is not the pairs that the texts call it")
        shape = part.array.shape[:-1]
        parts[name] = Part(T.complex128, part.array.reshape(-1).view(np.complex128).reshape(shape))


def _text(header: Any) -> bytes:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _pieces(array: Array) -> list[memoryview]:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return [flat[k : k + _PIECE].data for k in range(0, flat.size, _PIECE)]


# ---------------------------------------------------------------------------------------------- reading


def read(file: IO[bytes], source: str) -> tuple[dict[str, Part], dict[str, str]]:
    """The arrays, in memory of their own, and the texts. LoadError says what is wrong with the file `source`."""
    start = file.read(8)
    if len(start) < 8:
        raise damaged(source, f"it ends after {len(start)} bytes")
    (length,) = struct.unpack("<Q", start)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and length > _HEADER_LIMIT):
        raise LoadError(
            f"{source} is a pickle or a zip archive of pickles (as torch.save writes): it could run any code",
            op="load",
            fix="save it with safetensors.torch.save_file, or with kiln.save",
        )
    if length > _HEADER_LIMIT:
        raise damaged(source, f"its header would take {length:,} bytes (is it a safetensors file?)")
    text = file.read(length)
    if len(text) < length:
        raise damaged(source, f"it ends inside its header, {len(text):,} of {length:,} bytes in")
    header = _parsed(text, source)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged(source, "its metadata are not texts")
    entries = sorted((_entry(name, x, source) for name, x in header.items()), key=lambda e: (e.begin, e.end))
    checksum = metadata.pop(_CHECKSUM, None)
    summed = zlib.crc32(_text({_METADATA: metadata, **header}))
    parts: dict[str, Part] = {}
    place = 0
    for e in entries:
        if e.begin != place:
            raise damaged(source, f"tensor {e.name} begins at byte {e.begin:,} of the data, not at {place:,}")
        data = _bytes(file, e, source)
        for piece in _pieces(data):
            summed = zlib.crc32(piece, summed)
        if e.dtype is T.bool_ and data.size and data.max() > 1:
            raise damaged(source, f"tensor {e.name} holds bools that are neither 0 nor 1")
        parts[e.name] = Part(e.dtype, data.view(e.dtype.numpy).reshape(e.shape))
        place = e.end
    if file.read(1):
        raise damaged(source, "bytes follow its last tensor")
    if checksum is not None and checksum != f"{summed:08x}":
        raise damaged(source, f"its checksum is {summed:08x}, not {checksum}: bytes were changed")
    _as_pairs(parts, metadata, source)
    return parts, metadata


def damaged(source: str, why: str) -> LoadError:
    """The error for a file that is not as it was written."""
    return LoadError(f"{source} is damaged: {why}", op="load", fix="copy or write it again")


def _parsed(text: bytes, source: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name stands there twice")
        return made

    try:
        header = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise damaged(source, f"its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise damaged(source, "its header is no JSON object")
    return header


def _entry(name: str, x: Any, source: str) -> _Entry:
    """One tensor's entry in the header, checked."""
    try:
        code, shape, (begin, end) = x["dtype"], tuple(x["shape"]), x["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise damaged(source, f"the entry of tensor {name} is incomplete") from None
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise damaged(source, f"tensor {name} has a size or an offset that is no number")
    dtype = _codes().get(code) if isinstance(code, str) else None
    if dtype is None:
        raise LoadError(f"{source}: tensor {name} is of dtype {code}; kiln has {', '.join(_codes())}", op="load")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise damaged(source, f"tensor {name}, {dtype}{list(shape)}, does not take {end - begin:,} bytes")
    return _Entry(name, dtype, shape, begin, end)


def _bytes(file: IO[bytes], e: _Entry, source: str) -> Array:
    """The bytes of one tensor. Read piece by piece: a header may claim more than memory holds."""
    size = e.end - e.begin
    pieces = []
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise damaged(source, f"it ends inside tensor {e.name}, {size - left:,} of {size:,} bytes in")
        pieces.append(np.frombuffer(piece, np.uint8))
        left -= len(piece)
    if len(pieces) == 1:
        return pieces[0].copy()  # memory that may be written, aligned
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
