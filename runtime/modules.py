"""Modules loaded into this process: each (text, target, imported code) is compiled, or fetched from the cache, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.runtime import cache, llvm, loader

_Key = tuple[str, str, tuple[int, ...]]
_loaded: Final[dict[_Key, dict[str, int]]] = {}


def load_module(module: Module, target: Target, resolve: Callable[[str], int | None]) -> dict[str, int]:
    """Addresses of the module's exports. `resolve` finds what `module.imports` names; LoadError when it does not,
    and when the code refers to anything else but libc."""
    imports = {name: _imported(module, name, resolve) for name in module.imports}
    # The same text bound to other code is another module.
    key = (module.digest(), target.key(), tuple(imports.values()))
    found = _loaded.get(key)
    if found is not None:
        return found
    with llvm.lock:  # whoever comes second finds it done
        found = _loaded.get(key)
        if found is None:
            found = _loaded[key] = _load(module, target, imports)
    return found


def _imported(module: Module, name: str, resolve: Callable[[str], int | None]) -> int:
    address = resolve(name)
    if address is None:
        raise loader.LoadError(f"module {module.name} imports {name!r}, which no earlier module exports")
    return address


def _load(module: Module, target: Target, imports: dict[str, int]) -> dict[str, int]:
    def build() -> bytes:
        return llvm.compile_object(module, target)  # imports llvmlite: on a cache miss only

    def find(name: str) -> int | None:
        return imports[name] if name in imports else loader.libc_address(name)

    exports = loader.load_object(cache.fetch(module.digest(), target, build), find)
    missing = [name for name in module.exports if name not in exports]
    if missing:
        raise loader.LoadError(f"module {module.name} does not define {', '.join(missing)}")
    return {name: exports[name] for name in module.exports}
