"""Forward-mode differentiation by hand: dual tensors, `torch.autograd.forward_ad`.

>>> import kiln
>>> import kiln.autograd.forward_ad as fwAD
>>> with fwAD.dual_level():
...     x = fwAD.make_dual(kiln.tensor([1.0, 2.0]), kiln.tensor([1.0, 0.0]))
...     print(fwAD.unpack_dual(x**2).tangent)
tensor([2., 0.])
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from kiln.base import MODES, TensorBase
from kiln.dual import DualLayer
from kiln.errors import ArgumentError, DTypeError, GradError, ShapeError
from kiln.tensor import Tensor

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]


class UnpackedDualTensor(NamedTuple):
    """What a dual tensor holds; `tangent` is None where it has none."""

    primal: Tensor
    tangent: Tensor | None


class _Level(DualLayer):
    """What `dual_level` opens, to be told from a `jvp`."""

    name = "forward_ad"


def _levels() -> list[_Level]:
    return [layer for layer in MODES.layers if isinstance(layer, _Level)]


def enter_dual_level() -> int:
    """Open the level in which dual tensors live; its number. GradError if there is one: they do not nest."""
    if _levels():
        raise GradError("a level of forward_ad is open; they do not nest", op="enter_dual_level", fix="kiln.func.jvp")
    _Level().__enter__()
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level: its dual tensors can't be used any more."""
    found = _levels()
    if not found or level not in (None, 0):
        raise GradError(f"there is no level {level or 0} to close", op="exit_dual_level", fix="enter_dual_level()")
    if MODES.layers[-1] is not found[0]:
        raise GradError("a transform that began inside the level is not over", op="exit_dual_level")
    found[0].__exit__()


class dual_level:
    """`with dual_level():` dual tensors may be made inside."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A tensor that stands for `tensor` and carries `tangent`, of the same dtype and shape, through what is computed
    with it. GradError outside a `dual_level`."""
    found = _levels()
    if not found:
        raise GradError("dual tensors live in a level", op="make_dual", fix="with dual_level():")
    for t in (tensor, tangent):
        if not isinstance(t, TensorBase):
            raise ArgumentError(f"takes tensors, not a {type(t).__name__}", op="make_dual")
    if not tensor.dtype.is_inexact or tangent.dtype is not tensor.dtype:
        raise DTypeError(
            "primal and tangent have one dtype, floating point or complex", op="make_dual",
            operands=[tensor.ttype, tangent.ttype],
        )  # fmt: skip
    if tensor.shape != tangent.shape:
        raise ShapeError(
            "the tangent must have the shape of the primal", op="make_dual", operands=[tensor.ttype, tangent.ttype]
        )
    return found[0].wrap(found[0].open(tensor)[0], tangent)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """Primal and tangent of a tensor; the tangent is None for what carries none."""
    found = _levels()
    if not found:
        raise GradError("dual tensors live in a level", op="unpack_dual", fix="with dual_level():")
    primal, tangent = found[0].open(tensor)
    return UnpackedDualTensor(primal, tangent)
