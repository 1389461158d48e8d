"""`kiln.ops`: the primitives themselves, by name. `.code` of captured functions is written with these.

A primitive takes tensors of exactly the dtypes and shapes that its rule asks for (no broadcasting, no promotion), and
attributes by name. `kiln.ops.add.__doc__` says what it does.

>>> import kiln
>>> x = kiln.ops.iota(shape=(3,), dtype=kiln.float32, dim=0)
>>> kiln.ops.mul(x, x)
tensor([0., 1., 4.])
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from kiln.base import TensorBase
from kiln.creation import MAKER
from kiln.errors import ArgumentError
from kiln.ir.graph import AttrValue, Constant
from kiln.ir.halves import converted
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Control
from kiln.ir.types import DType

__all__ = ["literal"]


def literal(data: Any, dtype: DType, shape: tuple[int, ...] | None = None) -> Constant:
    """The attribute `data` of `kiln.ops.constant`: nested lists of numbers, or with `shape` the bytes of the elements
    as base64 text."""
    if shape is None:
        return Constant(converted(np.asarray(data), dtype))
    return Constant(np.frombuffer(base64.b64decode(data), dtype.numpy).reshape(shape))


def __getattr__(name: str) -> Any:
    op = OPS.get(name)
    if op is None or isinstance(op.lower, Control) or name == "fusion":
        raise AttributeError(f"module 'kiln.ops' has no attribute {name!r}")

    def primitive(*operands: Any, **attrs: AttrValue) -> Any:
        for x in operands:
            if not isinstance(x, TensorBase):
                raise ArgumentError(f"takes tensors, not {type(x).__name__}", op=name, fix="wrap it in kiln.tensor()")
        results = op.bind(operands, attrs, None if operands else MAKER)
        return results[0] if len(results) == 1 else results

    primitive.__name__ = primitive.__qualname__ = name
    primitive.__doc__ = op.doc
    globals()[name] = primitive
    return primitive


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name, op in OPS.items() if not isinstance(op.lower, Control))} - {"fusion"})
