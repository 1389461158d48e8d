"""Every exception that kiln raises at a user, one documented tree.

Each class also derives from the built-in exception that PyTorch raises in the same place, so that code
written for it keeps catching what it caught:

    KilnError
    ├── ShapeError            (RuntimeError)               shapes do not fit
    ├── DTypeError            (RuntimeError, TypeError)    an op is not defined for these element types
    ├── ArgumentError         (TypeError)                  an argument of the wrong Python type
    ├── InvalidValueError     (ValueError, RuntimeError)   an argument of the right type, a wrong value
    ├── KilnIndexError        (IndexError)                 a dimension, an index or a label out of range
    ├── DeviceError           (RuntimeError)               a device that is not there, operands on different ones
    │   └── OutOfMemoryError  (MemoryError)                a GPU has no room
    ├── ExportError           (BufferError)                another library can't have a tensor as it asks for it
    ├── DivisionByZeroError   (RuntimeError, ZeroDivisionError)  an integer divided by zero
    ├── LinAlgError           (RuntimeError, numpy.linalg.LinAlgError)  a matrix that can't be inverted, factored, ...
    ├── GradError             (RuntimeError)               autograd was asked for what it can't give
    ├── NanError              (RuntimeError)               a compiled call made a NaN, and was asked to look for them
    ├── TransformError        (RuntimeError)               vmap or jvp can't go through what the function does
    ├── CaptureError          (RuntimeError)               a capture would not be faithful
    ├── SpentError            (RuntimeError)               a tensor was used after it was donated to a compiled call
    ├── WorkerError           (RuntimeError)               a worker process of a data loader failed
    ├── NotYetError           (NotImplementedError)        what this version does not do yet
    ├── SaveError             (OSError)                    a file that could not be written
    └── LoadError             (ValueError, RuntimeError)   a file or state that can't be taken

A message names the op, the operands' types, the user's line, and a fix where one is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kiln.ir.graph import SourceLoc
from kiln.ir.ops.base import OpTypeError
from kiln.ir.program import CheckSite
from kiln.ir.types import TensorType
from kiln.location import marked, source_line, user_columns, user_location

if TYPE_CHECKING:
    from kiln.runtime.cuda import CudaError


class KilnError(Exception):
    """Base of all of kiln's exceptions.

    `message` is one sentence; `op`, `operands` (types), `loc` (the user's line, found by itself unless
    given) and `fix` are kept as attributes and written below it.
    """

    checked = False
    """Whether a check on tensor data found it, while a program ran."""
    _marks = False  # whether carets show where on the line

    def __init__(
        self,
        message: str,
        *,
        op: str = "",
        operands: Iterable[TensorType] = (),
        loc: SourceLoc | None = None,
        fix: str = "",
    ) -> None:
        self.message = message
        self.op = op
        self.operands = tuple(operands)
        self.loc = loc if loc is not None else user_location()
        self.fix = fix
        self._columns = user_columns() if loc is None and self._marks else None
        super().__init__(self._text())

    def _text(self) -> str:
        head = f"{self.op}: {self.message}" if self.op else self.message
        lines = [head]
        if self.operands:
            lines.append(f"  operands: {', '.join(map(str, self.operands))}")
        if self.loc is not None:
            where = f" in {self.loc.function}" if self.loc.function else ""
            lines.append(f"  at {self.loc}{where}")
            if text := source_line(self.loc):
                lines.append(f"    {text}")
                if self._columns is not None and (carets := marked(self.loc, self._columns)):
                    lines.append(f"    {carets}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ShapeError(KilnError, RuntimeError):
    """Shapes do not fit together."""


class DTypeError(KilnError, RuntimeError, TypeError):
    """An op is not defined for these element types."""


class ArgumentError(KilnError, TypeError):
    """An argument has the wrong Python type."""


class InvalidValueError(KilnError, ValueError, RuntimeError):
    """An argument has the right type and a wrong value."""


class KilnIndexError(KilnError, IndexError):
    """A dimension, an index or a class label is out of range."""


class DeviceError(KilnError, RuntimeError):
    """A device that is not there or can't be used, or operands on different devices."""


class ExportError(KilnError, BufferError):
    """A tensor can't be handed on to another library in the way it asks for."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A GPU has no room for a tensor."""


class DivisionByZeroError(KilnError, RuntimeError, ZeroDivisionError):
    """An integer was divided by zero."""


class LinAlgError(KilnError, RuntimeError, np.linalg.LinAlgError):
    """A matrix that an algorithm of linear algebra can't be carried out on: singular, not positive definite, ..."""


class GradError(KilnError, RuntimeError):
    """Autograd was asked for what it can't give."""


class NanError(KilnError, RuntimeError):
    """A call of a function compiled with `check_nan` made a NaN. `turns`: of the loops around the op, outermost first,
    from 0."""

    def __init__(
        self,
        message: str,
        *,
        op: str = "",
        operands: Iterable[TensorType] = (),
        loc: SourceLoc | None = None,
        fix: str = "",
        turns: tuple[int, ...] = (),
    ) -> None:
        self.turns = turns
        super().__init__(message, op=op, operands=operands, loc=loc, fix=fix)


class TransformError(KilnError, RuntimeError):
    """A function did what a transform of it (`vmap`, `jvp`, ...) can't go through."""


class CaptureError(KilnError, RuntimeError):
    """What a captured function did could not be replayed faithfully."""

    _marks = True


class SpentError(KilnError, RuntimeError):
    """A tensor was used that had been donated to a compiled call (`kiln.compile(f, donate=...)`)."""


class CaptureWarning(UserWarning):
    """Calls of a compiled function run eagerly: what they do could not be replayed faithfully."""


class WorkerError(KilnError, RuntimeError):
    """A worker process of a data loader died, took too long, or raised what can't be raised again."""


class NotYetError(KilnError, NotImplementedError):
    """This version does not do that yet."""


class SaveError(KilnError, OSError):
    """A file could not be written; one that was there before is as it was. `errno` is the system's."""

    def __str__(self) -> str:
        return self._text()


class LoadError(KilnError, ValueError, RuntimeError):
    """A file or a state that can't be loaded as asked."""


_KINDS: dict[str, type[KilnError]] = {
    "shape": ShapeError,
    "dtype": DTypeError,
    "dim": KilnIndexError,
    "index": KilnIndexError,
    "value": InvalidValueError,
    "zero": DivisionByZeroError,
    "linalg": LinAlgError,
    "device": DeviceError,
}


def from_type_error(error: OpTypeError, operands: Sequence[Any] = ()) -> KilnError:
    """The user's exception for a broken type rule; `operands` are whatever the op was applied to."""
    types = [t.ttype for t in operands]
    return _KINDS[error.kind](error.message, op=error.op, operands=types, fix=error.fix)


def from_cuda(error: CudaError, op: str) -> KilnError:
    """The user's exception for what the GPU, or the way to it, refused to `op`."""
    kind = OutOfMemoryError if error.kind == "memory" else DeviceError
    return kind(error.message, op=error.op or op, loc=error.loc, fix=error.fix)


def from_check(site: CheckSite, value: int, sizes: Mapping[str, int] | None = None) -> KilnError:
    """The user's exception for a check that failed while a program ran. `sizes`: of symbols that the message names."""
    message = site.told(value)
    for name, size in (sizes or {}).items():
        message = message.replace(f"{{{name}}}", str(size))
    fix = "labels and indices run from 0 to the size less one" if site.kind == "index" else ""
    error = _KINDS[site.kind](message, op=site.op, loc=site.loc, fix=fix)
    error.checked = True
    return error
