"""Device functions of one number, for kernels written by hand: kiln's own functions and conversions, as text."""

from __future__ import annotations

from kiln.codegen.cuda.emit import Emitter
from kiln.codegen.cuda.literals import C_TYPES
from kiln.codegen.cuda.prelude import HELPERS
from kiln.ir.loops import Expr, Var


def emit_function(name: str, x: Var, result: Expr) -> tuple[str, ...]:
    """The helpers that the function calls, and its text: `name(x)` is `result`."""
    return _Function().texts(name, x, result)


class _Function(Emitter):
    def texts(self, name: str, x: Var, result: Expr) -> tuple[str, ...]:
        self._names[x] = self._fresh(x.name)
        last = self._expr(result)
        head = f"__device__ __forceinline__ {C_TYPES[result.dtype]} {name}({C_TYPES[x.dtype]} {self._names[x]})"
        text = "\n".join([head, "{", *self._lines, f"    return {last};", "}"])
        return (*(HELPERS[name] for name in HELPERS if name in self._helpers), text)
