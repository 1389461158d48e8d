"""The ops that have no CUDA text, each with its reason. docs/cuda.md prints this table; a test holds it to the truth."""

from __future__ import annotations

from typing import Final

_LAPACK: Final = "LAPACK computes it on the host, on whole matrices; a GPU needs a solver library for it"

REASONS: Final[dict[str, str]] = {
    "inv": _LAPACK,
    "solve": _LAPACK,
    "triangular_solve": _LAPACK,
    "cholesky": _LAPACK,
    "lu_factor": _LAPACK,
    "lu_permutation": _LAPACK,
    "qr": _LAPACK,
    "qr_complete": _LAPACK,
    "eigh": _LAPACK,
    "svd": _LAPACK,
}


class NoCudaText(Exception):
    """An op that has no CUDA text: its name and the reason."""

    def __init__(self, op: str) -> None:
        super().__init__(f"{op} has no CUDA text: {REASONS[op]}")
        self.op = op
        self.reason = REASONS[op]
