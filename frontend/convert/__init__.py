"""Source conversion: a user's function becomes one that sends control flow and effects through hooks.

It knows nothing of tensors. With `PythonHooks` the converted function is indistinguishable from the original;
docs/conversion.md shows what is rewritten into what.

| module | holds |
|---|---|
| `conversion.py` | `converted`, `refusal`, `source` |
| `find.py` | from a code object to its source, and back to code |
| `scopes.py` | which name means what |
| `jumps.py` | `return`, `break`, `continue` lowered |
| `expressions.py`, `statements.py` | the rewriting |
| `sites.py` | converted code when it runs, branches as functions |
| `hooks.py` | what converted code calls |
"""

from __future__ import annotations

from kiln.convert.conversion import converted as converted
from kiln.convert.conversion import made as made
from kiln.convert.conversion import refusal as refusal
from kiln.convert.conversion import source as source
from kiln.convert.find import Refused as Refused
from kiln.convert.hooks import UNBOUND as UNBOUND
from kiln.convert.hooks import Hooks as Hooks
from kiln.convert.hooks import PythonHooks as PythonHooks
from kiln.convert.hooks import Site as Site
from kiln.convert.hooks import State as State
