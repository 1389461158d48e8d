"""Anomaly detection: which op of the forward pass gave a backward that makes NaNs, and on which line it stands."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from kiln.autograd.tape import ANOMALY, Node
from kiln.errors import GradError


class set_detect_anomaly:
    """Turn anomaly detection on or off: at once, or within a `with` block.

    While it is on, every entry of the tape notes the line that made it. An error inside its backward tells that line;
    with `check_nan`, so does a backward that gives a NaN, which is a GradError. Slow: for finding faults.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = ANOMALY.enabled, ANOMALY.check_nan
        ANOMALY.enabled, ANOMALY.check_nan = bool(mode), bool(check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        ANOMALY.enabled, ANOMALY.check_nan = self._before


class detect_anomaly(set_detect_anomaly):
    """`with detect_anomaly():` the forward and the backward pass that are to be examined."""

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan

    def __enter__(self) -> None:
        super().__init__(True, self._check_nan)


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return ANOMALY.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly detection looks for NaNs."""
    return ANOMALY.check_nan


def apply_watched(node: Node, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
    """`node.apply`, with the line of the forward op in its errors, and a look at what it gives."""
    try:
        made = node.apply(grads, running)
    except Exception as error:
        if node.site is not None:
            error.add_note(f"  in the backward of {node.name()}, applied at {node.site}")
        raise
    if ANOMALY.check_nan:
        for k, g in enumerate(made):
            if g is not None and np.isnan(g._read("detect_anomaly()")).any():
                clean = not any(x is not None and np.isnan(x._read("detect_anomaly()")).any() for x in grads)
                came = "" if clean else " (from a gradient that held NaNs already)"
                raise GradError(
                    f"its backward gave a NaN in the gradient of operand {k}{came}",
                    op=node.operation,
                    operands=[g.ttype],
                    loc=node.site,
                    fix="look at the values on the line above: a division by 0, or a root or logarithm of 0",
                )
    return made
