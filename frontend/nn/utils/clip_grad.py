"""Gradients kept within bounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.creation import tensor
from kiln.errors import InvalidValueError
from kiln.reductions import vector_norm
from kiln.tensor import Tensor

__all__ = [
    "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm",
]  # fmt: skip


def _listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [g for p in _listed(parameters) if (g := p.grad) is not None]


@no_grad()
def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The p-norm of the p-norms of the tensors: that of all their elements, on the first one's device.
    InvalidValueError if it is not finite and
    `error_if_nonfinite` (which asks for data, so it can't be captured)."""
    norms = [vector_norm(t.detach(), float(norm_type), None) for t in _listed(tensors)]
    if not norms:
        return tensor(0.0)
    total = vector_norm(F.stack([n.to(norms[0].device) for n in norms]), float(norm_type), None)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise InvalidValueError(
            f"the total norm of order {norm_type} is {total.item()}",
            op="clip_grad_norm_",
            fix="look for what overflows, or pass error_if_nonfinite=False",
        )
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Multiply all gradients by min(1, max_norm / (total_norm + 1e-6)), in place."""
    factor = F.clamp(F.div(float(max_norm), F.add(total_norm, 1e-6)), max=1.0)
    for g in _grads(parameters):
        g.mul_(factor.to(g.device, g.dtype))


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; returns the norm before."""
    items = _listed(parameters)
    total = get_total_norm(_grads(items), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(items, max_norm, total, foreach)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Cut every element of the gradients to +-clip_value, in place."""
    bound = float(clip_value)
    for g in _grads(parameters):
        g.copy_(F.clamp(g, -bound, bound))


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`clip_grad_norm_`, under its older name (warns)."""
    message = "`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`."
    warnings.warn(message, FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
