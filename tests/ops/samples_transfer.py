"""Samples of `transfer`, within the CPU: what there is to move between, only a machine with a GPU knows."""

from __future__ import annotations

import numpy as np

from tests.ops.sampling import ANY, ErrorSample, Sample, draw, generator, layouts, t

_HERE = {"source": "cpu", "target": "cpu"}


def _samples() -> list[Sample]:
    rng = generator("transfer", "any")
    found = [Sample(f"{dtype}-line", (draw(rng, (7,), dtype),), _HERE) for dtype in ANY]
    return found + [Sample(f"laid-{label}", (make(),), _HERE) for label, make in layouts(rng, "float32")]


def _smooth() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [Sample("plain", (rng.normal(size=(3, 4)),), _HERE), Sample("0-d", (rng.normal(size=()),), _HERE)]


SAMPLES = {"transfer": _samples}
SMOOTH = {"transfer": _smooth}
ERRORS = {
    "transfer": [
        ErrorSample((t("float32", 3),) * 2, _HERE, "value", "takes 1 operand"),
        ErrorSample((t("float32", 3),), {"source": "cpu", "target": 3}, "value", "target is 3"),
        ErrorSample((t("float32", 3),), {"target": "cpu"}, "value", "source is None"),
    ]
}
