"""Compiled objects on disk, by content: a module's text and target decide its file, so nothing is ever stale.

Files are written under a temporary name and renamed, so concurrent processes and interruptions are harmless.
Each carries a checksum; a damaged one is rebuilt with a warning. `KILN_CACHE=0` turns the cache off and
`KILN_CACHE_DIR` moves it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kiln.ir.target import Target

FORMAT: Final = 1  # raise when the same text must give another object
_MAGIC: Final = b"kilnobj1"
_warned: set[str] = set()


class CacheWarning(UserWarning):
    """The cache could not be used, or held a damaged file."""


def _warn_once(about: str, message: str) -> None:
    if about not in _warned:
        _warned.add(about)
        warnings.warn(message, CacheWarning, stacklevel=3)


def folder() -> Path | None:
    """Where objects are kept; None when the cache is off."""
    if os.environ.get("KILN_CACHE") == "0":
        return None
    chosen = os.environ.get("KILN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path  # only a first use of the default place pays for the import

    return user_cache_path("kiln")


def key(digest: str, target: Target) -> str:
    """The name of an object: a hash of what decides its content."""
    return hashlib.sha256(f"{FORMAT}|{digest}|{target.key()}".encode()).hexdigest()


def fetch(digest: str, target: Target, build: Callable[[], bytes]) -> bytes:
    """The object for a module, from the cache or from `build` (and then cached)."""
    root = folder()
    if root is None:
        return build()
    name = key(digest, target)
    path = root / "objects" / name[:2] / name[2:]
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    except OSError as error:
        _warn_once("read", f"the cache folder {root} cannot be read ({error.strerror}); compiling without it")
        return build()
    if found:
        body = found[40:]
        if found[:8] == _MAGIC and hashlib.sha256(body).digest() == found[8:40]:
            return body
        _warn_once("damaged", f"a file in the cache folder {root} was damaged; it is rebuilt")
    body = build()
    _write(path, _MAGIC + hashlib.sha256(body).digest() + body, root)
    return body


def _write(path: Path, data: bytes, root: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        _warn_once("write", f"the cache folder {root} cannot be written ({error.strerror}); compiling without it")
