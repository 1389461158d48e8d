"""Compiled objects and programs on disk, by content: what decides them names their files, so nothing is ever stale.

Files are written under a temporary name and renamed, so concurrent processes and interruptions are harmless.
Each carries a checksum; a damaged one is rebuilt with a warning. `KILN_CACHE=0` turns the cache off and
`KILN_CACHE_DIR` moves it. Its size is bounded: now and then a write removes what was unused for longest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kiln.ir.target import Target

FORMAT: Final = 1  # raise when the same text must give another object
LIMIT: Final = 512 << 20
"""Bytes that the files may take before those unused for longest are removed."""
KINDS: Final = ("objects", "programs", "choices", "cubins")

_MAGIC: Final = b"kilnobj1"
_USED_AGAIN: Final = 86400.0  # seconds after which a use is noted in a file's time: once a day is often enough
_LINUX: Final = sys.platform.startswith("linux")
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
    if _LINUX:  # what platformdirs says, without the time of its import
        home = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")
        return Path(home) / "kiln"
    from platformdirs import user_cache_path

    return user_cache_path("kiln")


def key(digest: str, target: Target) -> str:
    """The name of an object: a hash of what decides its content."""
    return hashlib.sha256(f"{FORMAT}|{digest}|{target.key()}".encode()).hexdigest()


def fetch(digest: str, target: Target, build: Callable[[], bytes]) -> bytes:
    """The object for a module, from the cache or from `build` (and then cached)."""
    name = key(digest, target)
    found = read("objects", name)
    if found is not None:
        return found
    body = build()
    write("objects", name, body)
    return body


def read(kind: str, name: str) -> bytes | None:
    """What was written under `name`; None when there is nothing (or the cache is off, or what it has is damaged)."""
    root = folder()
    if root is None:
        return None
    path = _path(root, kind, name)
    try:
        with open(path, "rb") as file:
            found = file.read()
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_once("read", f"the cache folder {root} cannot be read ({error.strerror}); compiling without it")
        return None
    if found[:8] != _MAGIC or hashlib.sha256(found[40:]).digest() != found[8:40]:
        damaged()
        return None
    if age > _USED_AGAIN:
        with contextlib.suppress(OSError):  # a folder that cannot be written
            os.utime(path)
    return found[40:]


def write(kind: str, name: str, body: bytes) -> None:
    """Keep `body` under `name`, a hash of what decides it."""
    root = folder()
    if root is None:
        return
    _write(_path(root, kind, name), _MAGIC + hashlib.sha256(body).digest() + body, root)
    if name.endswith("00"):  # one file in 256, whichever process writes it
        prune(root)


def damaged() -> None:
    """Warn, once per process, of a damaged file."""
    _warn_once("damaged", f"a file in the cache folder {folder()} was damaged; it is rebuilt")


def prune(root: Path, limit: int = LIMIT) -> None:
    """When the files below `root` take more than `limit` bytes, remove those unused for longest, down to 3/4 of it."""
    found: list[tuple[float, int, Path]] = []
    for kind in KINDS:
        for path in (root / kind).glob("*/*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in sorted(found):
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
        if total <= limit * 3 // 4:
            return


def _path(root: Path, kind: str, name: str) -> Path:
    return root / kind / name[:2] / name[2:]


def _write(path: Path, data: bytes, root: Path) -> None:
    # Not tempfile, whose import takes longer than all of a first process's files.
    passing = path.with_name(f"tmp{os.urandom(8).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            passing.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                passing.unlink()
            raise
    except OSError as error:
        _warn_once("write", f"the cache folder {root} cannot be written ({error.strerror}); compiling without it")
