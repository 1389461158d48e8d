"""Modules loaded into this process: each (text, target) is compiled, or fetched from the cache, once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.runtime import cache, loader

_loaded: dict[tuple[str, str], dict[str, int]] = {}
_lock = threading.RLock()


def load_module(module: Module, target: Target, resolve: Callable[[str], int | None]) -> dict[str, int]:
    """Addresses of the module's exports. `resolve` finds what it imports (used on the first load only)."""
    key = (module.digest(), target.key())
    found = _loaded.get(key)
    if found is not None:
        return found
    with _lock:
        found = _loaded.get(key)
        if found is None:
            found = _load(module, target, resolve)
            _loaded[key] = found
    return found


def _load(module: Module, target: Target, resolve: Callable[[str], int | None]) -> dict[str, int]:
    def build() -> bytes:
        from kiln.runtime.llvm import compile_object  # LLVM is loaded on the first miss only

        return compile_object(module.text, target, module.name)

    def find(name: str) -> int | None:
        address = resolve(name)
        return loader.libc_address(name) if address is None else address

    exports = loader.load_object(cache.fetch(module.digest(), target, build), find)
    missing = [name for name in module.exports if name not in exports]
    if missing:
        raise loader.LoadError(f"module {module.name} does not define {', '.join(missing)}")
    return {name: exports[name] for name in module.exports}
