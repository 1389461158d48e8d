"""Saving and loading tensors and plain Python data: `kiln.save` and `kiln.load`.

A file is a safetensors file that any reader of that format opens (`tensorfile.py`). Its tensors are named by their
place (the keys of a state dict, joined by dots), and its metadata entry "kiln" holds, as JSON, how they were nested.
Nothing is ever unpickled: a file is data, not code.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np

from kiln import tensorfile
from kiln.constants import Size
from kiln.creation import from_numpy
from kiln.device import placed
from kiln.errors import ArgumentError, DeviceError, LoadError, SaveError
from kiln.ir.types import Device, DType, dtype_named
from kiln.tensor import Tensor
from kiln.tensorfile import Part

PathLike: TypeAlias = "str | os.PathLike[str]"


def save(obj: Any, f: PathLike | IO[bytes]) -> None:
    """Write `obj` to a path or to an open binary file: tensors, and dicts (keys: strings and ints), ordered dicts,
    counters, lists, tuples, sets, strings, bytes, numbers, None, dtypes and devices around them, nested as they like.

    At a path the file appears complete or not at all: it is written under another name in the same folder, flushed to
    disk and then renamed. Tensors are saved by value, contiguous, without their gradients; those that are the same
    memory seen in the same way are kept once, and come back as one tensor. ArgumentError names the place of anything
    else; SaveError when the disk is full or fails.
    """
    writer = _Encoder()
    structure = json.dumps(writer.encode(obj, (), ""), ensure_ascii=False, allow_nan=False)
    parts = {name: Part(t.dtype, t._read("save()")) for name, t in writer.tensors.items()}
    about = {"kiln": structure}
    places = {name: str(t.device) for name, t in writer.tensors.items() if t.is_cuda}
    if places:
        about["kiln_devices"] = json.dumps(places)
    if hasattr(f, "write"):
        tensorfile.write(cast("IO[bytes]", f), parts, about)
        return
    with replacing(Path(_checked_path("save", f))) as file:
        tensorfile.write(file, parts, about)


def load(
    f: PathLike | IO[bytes], map_location: Any = None, *, weights_only: bool | None = True, mmap: bool | None = None
) -> Any:
    """What `save` wrote to a path or to an open binary file; for other safetensors files a dict of tensors by name.

    Tensors come without `requires_grad`, on the devices that they were saved from, or where `map_location` says: a
    device for all, a mapping from names of devices to devices, or a function of a tensor on the CPU and the name of the
    place where it was, which returns it where it is to be (None: as if there was no function). DeviceError for a device
    that is not there.
    LoadError for a file that is damaged, that is no safetensors file, or whose tensors have dtypes that kiln lacks;
    OSError (FileNotFoundError, ...) where it can't be read. Nothing is ever unpickled, whatever `weights_only` says: a
    LoadError tells pickles by their first bytes. `mmap` changes nothing.
    """
    del weights_only, mmap
    if isinstance(map_location, Mapping):
        for place in map_location.values():
            placed("load", place)
    elif map_location is not None and not callable(map_location):
        map_location = placed("load", map_location)
    if hasattr(f, "read"):
        source = str(getattr(f, "name", "the file"))
        parts, metadata = tensorfile.read(cast("IO[bytes]", f), source)
    else:
        source = _checked_path("load", f)
        with open(source, "rb") as file:
            parts, metadata = tensorfile.read(file, source)
    places = _places(metadata.get("kiln_devices", "{}"), source)
    tensors = {
        name: _mapped(from_numpy(part.array), places.get(name, "cpu"), map_location) for name, part in parts.items()
    }
    if "kiln" not in metadata:
        return tensors
    left = dict(tensors)
    try:
        loaded = _decode(json.loads(metadata["kiln"]), tensors, left)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise tensorfile.damaged(source, f"its structure makes no sense ({type(error).__name__}: {error})") from None
    if left:
        raise LoadError(f"{source} is damaged: its structure does not name {', '.join(sorted(left))}", op="load")
    return loaded


def _places(text: str, source: str) -> dict[str, str]:
    """The devices that tensors were saved from, by their names in the file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(place, str) for place in found.values()):
        raise tensorfile.damaged(source, "it does not say where its tensors were")
    return found


def _mapped(t: Tensor, saved_from: str, map_location: Any) -> Tensor:
    """A tensor of a file, on the CPU, where it is to be."""
    if callable(map_location):
        made = map_location(t, saved_from)
        if made is not None:
            return cast("Tensor", made)
        map_location = None
    if isinstance(map_location, Mapping):
        map_location = map_location.get(saved_from)
    if map_location is not None:
        return t.to(placed("load", map_location))
    try:
        return t.to(placed("load", saved_from))
    except DeviceError as error:
        told = f"a tensor was saved from {saved_from}: {error.message}"
        raise DeviceError(told, op="load", fix='kiln.load(f, map_location="cpu")') from None


def _checked_path(op: str, path: Any) -> str:
    try:
        name: str | bytes = os.fspath(path)
    except TypeError:
        raise ArgumentError(f"expected a path or a binary file, got {type(path).__name__}", op=op) from None
    if isinstance(name, bytes):
        raise ArgumentError("expected a path of text, got bytes", op=op)
    return name


# ------------------------------------------------------------------------------------------- structure
#
# JSON's own null, booleans, ints, finite floats, strings and lists stand for themselves; everything else is an object
# of one entry: {"tensor": name}, {"tuple": [...]}, {"dict": [[key, value], ...]}, {"float": "inf"}, ...


_MAPPINGS: dict[type, str] = {dict: "dict", collections.OrderedDict: "ordered_dict", collections.Counter: "counter"}


class _Encoder:
    """Turns data into JSON, and gathers the tensors by the names they get."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._open: set[int] = set()

    def encode(self, x: Any, keys: tuple[str, ...], place: str) -> Any:
        """JSON for `x`, which was reached by `keys` (`place`: the same for messages)."""
        kind = type(x)
        if x is None or kind in (bool, int, str):
            return x
        if kind is float:
            return x if math.isfinite(x) else {"float": str(x)}
        if isinstance(x, Tensor):
            return {"tensor": self._tensor(x, keys)}
        if kind is bytes:
            return {"bytes": base64.b64encode(x).decode()}
        if isinstance(x, DType):
            return {"dtype": x.name}
        if isinstance(x, Device):
            return {"device": str(x)}
        if kind not in (list, tuple, Size, set, frozenset) and kind not in _MAPPINGS:
            self._refuse(x, place)
        if id(x) in self._open:
            raise ArgumentError(f"{place or 'the object'} contains itself", op="save", fix="save its items")
        self._open.add(id(x))
        try:
            return self._container(x, keys, place)
        except RecursionError:
            raise ArgumentError("the data are nested too deeply", op="save", fix="flatten them") from None
        finally:
            self._open.discard(id(x))

    def _container(self, x: Any, keys: tuple[str, ...], place: str) -> Any:
        kind = type(x)
        if kind in _MAPPINGS:
            for key in x:
                if type(key) not in (str, int):
                    what = f"a key of {place or 'the dict'} is a {type(key).__name__}"
                    raise ArgumentError(what, op="save", fix="use strings or ints as keys")
            pairs = [
                [key, self.encode(v, (*keys, str(key)), f"{place}.{key}" if place else str(key))]
                for key, v in x.items()
            ]
            return {_MAPPINGS[kind]: pairs}
        items = [self.encode(v, (*keys, str(i)), f"{place}[{i}]") for i, v in enumerate(x)]
        if kind in (set, frozenset):
            items.sort(key=lambda item: json.dumps(item, sort_keys=True))  # the same file from run to run
        return items if kind is list else {kind.__name__: items}

    def _tensor(self, t: Tensor, keys: tuple[str, ...]) -> str:
        same = (id(t._buffer), t._ptr, t._layout.dtype, t._layout.shape, t._layout.strides)
        known = self._known.get(same)
        if known is not None:
            return known
        name = ".".join(keys) or "tensor"
        while name in self.tensors or name == "__metadata__":
            name += "'"
        self._known[same] = name
        self.tensors[name] = t
        return name

    def _refuse(self, x: Any, place: str) -> None:
        fix = "convert it to numbers, strings or tensors"
        if hasattr(x, "state_dict"):
            fix = "save its state_dict()"
        elif isinstance(x, np.ndarray | np.generic):
            fix = (
                "kiln.tensor(...) makes a tensor of it" if isinstance(x, np.ndarray) else "item() makes a number of it"
            )
        elif isinstance(x, Mapping):
            fix = "dict(...) makes a plain one of it"
        raise ArgumentError(
            f"{f'{place} is' if place else 'got'} a {type(x).__qualname__}: "
            "only tensors and plain Python data can be saved",
            op="save",
            fix=fix,
        )


def _decode(x: Any, tensors: Mapping[str, Tensor], left: dict[str, Tensor]) -> Any:
    if isinstance(x, list):
        return [_decode(v, tensors, left) for v in x]
    if not isinstance(x, dict):
        return x
    ((tag, body),) = x.items()
    if tag == "tensor":
        left.pop(body, None)
        return tensors[body]
    if tag in _MAPPINGS.values():
        pairs = [(key, _decode(v, tensors, left)) for key, v in body]
        if any(type(key) not in (str, int) for key, _ in pairs):
            raise ValueError("a key is neither a string nor an int")
        made = dict(pairs)
        return made if tag == "dict" else next(kind for kind, name in _MAPPINGS.items() if name == tag)(made)
    if tag in _GROUPS:
        return _GROUPS[tag](_decode(v, tensors, left) for v in body)
    if tag in _ATOMS:
        return _ATOMS[tag](body)
    raise ValueError(f"unknown tag {tag!r}")


_GROUPS: dict[str, Callable[[Iterator[Any]], Any]] = {
    "tuple": tuple,
    "Size": Size,
    "set": set,
    "frozenset": frozenset,
}
_ATOMS: dict[str, Callable[[Any], Any]] = {
    "float": lambda body: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[body],
    "bytes": lambda body: base64.b64decode(body, validate=True),
    "dtype": dtype_named,
    "device": lambda body: Device(*_device(body)),
}


def _device(text: str) -> tuple[str, int]:
    kind, _, slot = text.partition(":")
    return kind, int(slot or 0)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Any]:
    """A file that takes the place of `target` when the block ends well, and vanishes otherwise."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            failed = SaveError(
                f"{target} could not be written ({error.strerror}); "
                + ("the file that was there is as it was" if target.exists() else "no file was left behind"),
                op="save",
                fix="make room, or choose another place",
            )
            failed.errno, failed.strerror, failed.filename = error.errno, error.strerror, str(target)
            raise failed from error
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself reaches the disk
    finally:
        os.close(folder)
