"""`kiln.save` and `kiln.load`: tensors in safetensors files, never pickles.

A dict of tensors becomes a plain safetensors file that other tools read. Other nestings of dicts, lists, tuples,
numbers and strings keep their structure as JSON in the file's metadata. Anything else is refused by name. A file
is written under a temporary name, flushed to disk and renamed, so an interruption never leaves half a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kiln.base import TensorBase
from kiln.creation import from_numpy
from kiln.errors import ArgumentError, LoadError

_KEY = "kiln"


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write tensors, and dicts, lists, tuples, numbers, strings and None around them, to `path`.

    ArgumentError names what can't be saved; OSError when the disk refuses: then an old file at `path` is untouched.
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    if isinstance(obj, dict) and obj and all(type(k) is str and isinstance(v, TensorBase) for k, v in obj.items()):
        for key, value in obj.items():
            arrays[key] = _array(value)
        metadata = None
    else:
        metadata = {_KEY: json.dumps(_encode(obj, arrays, "the object"))}
    _write(Path(path), to_bytes(arrays, metadata))


def _array(t: Any) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(t.detach().numpy())


def _encode(x: Any, arrays: dict[str, np.ndarray[Any, Any]], path: str) -> Any:
    if isinstance(x, TensorBase):
        name = f"tensor{len(arrays)}"
        array = _array(x)
        arrays[name] = array.reshape(x.shape)
        return {"tensor": name}
    if x is None or type(x) in (bool, int, str):
        return x
    if type(x) is float:
        return {"float": x.hex()}
    if type(x) in (list, tuple):
        return {type(x).__name__: [_encode(v, arrays, f"{path}[{k}]") for k, v in enumerate(x)]}
    if type(x) is dict:
        return {
            "dict": [
                [_encode(k, arrays, f"a key of {path}"), _encode(v, arrays, f"{path}[{k!r}]")] for k, v in x.items()
            ]
        }
    raise ArgumentError(
        f"{path} is a {type(x).__module__}.{type(x).__qualname__}, which can't be saved",
        op="save",
        fix="save tensors, numbers, strings and None in dicts, lists and tuples (for a module: its state_dict())",
    )


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote, or any safetensors file (as a dict of tensors). LoadError when the file is damaged
    or of another kind; nothing in it is ever executed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: from_numpy(np.array(file.get_tensor(name))) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise LoadError(f"{os.fspath(path)} is not a whole safetensors file: {error}", op="load") from None
    if _KEY not in metadata:
        return tensors
    try:
        return _decode(json.loads(metadata[_KEY]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{os.fspath(path)} has a damaged structure: {error}", op="load") from None


def _decode(x: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "float":
        return float.fromhex(value)
    if kind == "list":
        return [_decode(v, tensors) for v in value]
    if kind == "tuple":
        return tuple(_decode(v, tensors) for v in value)
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in value}
    raise ValueError(f"unknown entry {kind!r}")
