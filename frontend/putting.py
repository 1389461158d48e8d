"""Writes through views, as values: the whole with a part replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kiln.ir.graph import Value
from kiln.ir.ops.base import OPS, ints_attr
from kiln.ir.ops.movement import inverse
from kiln.ir.ops.pairs import INVERSES
from kiln.traced import Chain

if TYPE_CHECKING:
    from kiln.capture import Capture


def put(capture: Capture, base: Value, chain: Chain, value: Value) -> Value:
    """`base` with the part that a chain of views shows replaced by `value`."""
    if not chain:
        return value
    (op, attrs), rest = chain[0], chain[1:]
    if rest:
        value = put(capture, capture.derive(op, [base], attrs), rest, value)
    if op.name == "slice":
        return capture.derive(OPS["slice_scatter"], [base, value], attrs)
    if op.name == "reshape":
        return capture.derive(op, [value], {"shape": base.type.shape})
    if op.name == "permute":
        return capture.derive(op, [value], {"dims": inverse(ints_attr(attrs, "dims"))})
    if op.name == "broadcast" and value.type.numel() == base.type.numel():
        return capture.derive(OPS["reshape"], [value], {"shape": base.type.shape})
    if op.name in INVERSES:
        return capture.derive(OPS[INVERSES[op.name]], [value], {})
    if op.name == "affine":
        places = {k: attrs[k] for k in ("starts", "steps")}
        return capture.derive(OPS["affine_scatter"], [base, value], places)
    capture.refuse(f"an in-place write through {op.name}", fix="write to a clone()")
