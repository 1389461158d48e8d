"""kiln: a graph-capturing JIT compiler over an eager, PyTorch-like frontend.

The name space is lazy (PEP 562): `import kiln` loads nothing but this file, so that a process which only
serves a compiled program stays small. Each public name is imported from its home on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    pass

_HOMES: dict[str, str] = {}
"""Public name -> module that defines it. `tests/test_api.py` holds this table against TYPE_CHECKING's."""

_MODULES = frozenset({"ir", "codegen", "runtime", "nn", "optim", "jit", "autograd", "random", "errors"})


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"kiln.{name}")
    raise AttributeError(f"module 'kiln' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
