"""Functions that PyTorch has removed, and that still have their names: they say what to call instead."""

from __future__ import annotations

from typing import Any, NoReturn

from kiln.errors import InvalidValueError

__all__ = ["eig", "lstsq", "matrix_rank", "solve", "symeig"]


def _removed(name: str, instead: str) -> NoReturn:
    raise InvalidValueError("this function was deprecated and is now removed", op=name, fix=f"use {instead}")


def eig(self: Any, eigenvectors: bool = False, *, e: Any = None, v: Any = None) -> NoReturn:
    """Removed: `kiln.linalg.eig` returns complex eigenvalues and eigenvectors."""
    _removed("eig", "kiln.linalg.eig (or eigvals), which returns complex tensors")


def lstsq(input: Any, A: Any, *, out: Any = None) -> NoReturn:
    """Removed: `kiln.linalg.lstsq` takes the matrices in the other order."""
    _removed("lstsq", "kiln.linalg.lstsq, with its arguments in the other order")


def matrix_rank(input: Any, tol: Any = None, symmetric: bool = False, *, out: Any = None) -> NoReturn:
    """Removed: `kiln.linalg.matrix_rank`."""
    _removed("matrix_rank", "kiln.linalg.matrix_rank, where `symmetric` is called `hermitian`")


def solve(input: Any, A: Any, *, out: Any = None) -> NoReturn:
    """Removed: `kiln.linalg.solve` takes the matrices in the other order."""
    _removed("solve", "kiln.linalg.solve, with its arguments in the other order")


def symeig(input: Any, eigenvectors: bool = False, upper: bool = True, *, out: Any = None) -> NoReturn:
    """Removed: `kiln.linalg.eigh`, which looks at the lower triangle by default."""
    _removed("symeig", "kiln.linalg.eigh (or eigvalsh), which looks at the lower triangle by default")
