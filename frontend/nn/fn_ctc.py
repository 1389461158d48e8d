"""The connectionist temporal classification loss (Graves et al., 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kiln import functional as F
from kiln.base import MODES, TensorBase
from kiln.checks import holds
from kiln.creation import arange, full, tensor
from kiln.cumulative import cumsum
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.gathering import gather, index_select
from kiln.ir import types as T
from kiln.ir.types import Device
from kiln.nn.fn_loss import check_reduction, reduced
from kiln.promotion import cast_to, in_float32, tensor_arg, transferred
from kiln.tensor import Tensor

__all__ = ["ctc_loss"]

_NAME = "ctc_loss"


def _lengths(what: str, given: Any, count: int, most: int, device: Device) -> Tensor:
    """Lengths as int64 [count]; InvalidValueError for one above `most` or below 0."""
    if not isinstance(given, TensorBase):
        if isinstance(given, int):
            given = [given]
        if not isinstance(given, Sequence) or any(isinstance(n, bool) or not isinstance(n, int) for n in given):
            raise ArgumentError(f"{what} must be ints or a tensor of them", op=_NAME)
        _check_range(what, given, most)
        lengths = tensor(list(given), dtype=T.int64, device=device)
    else:
        lengths = tensor_arg(_NAME, given)
        if not lengths.dtype.is_integer:
            raise DTypeError(f"{what} must be integers, not {lengths.dtype}", op=_NAME, operands=[lengths.ttype])
        lengths = F.reshape(cast_to(transferred(lengths, device), T.int64), (-1,))
        if not holds(F.logical_and(F.ge(lengths, 0), F.le(lengths, most))):
            _check_range(what, lengths._array().tolist(), most)
    if lengths.shape != (count,):
        raise ShapeError(f"{what} must be one for each of {count} sequences", op=_NAME, operands=[lengths.ttype])
    return lengths


def _check_range(what: str, lengths: Sequence[int], most: int) -> None:
    for n in lengths:
        if not 0 <= n <= most:
            raise InvalidValueError(f"{what}: {n} is not between 0 and {most}", op=_NAME)


def _labels(targets: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """[N, S] labels, `blank` behind the end of a sequence, of targets [N, S] or [all one after the other]."""
    if targets.ndim == 2:
        padded, size = targets, targets.shape[1]
    else:
        size = targets.shape[0]
        if MODES.recorder is None:  # else the longest is not known, and all of it serves
            size = max(lengths.tolist(), default=0)
        if not size:
            return full((lengths.shape[0], 0), blank, dtype=T.int64, device=targets.device)
        begins = F.sub(cumsum(lengths, 0), lengths)
        places = F.clamp(F.add(F.unsqueeze(begins, 1), arange(size, device=targets.device)), max=targets.shape[0] - 1)
        padded = F.reshape(index_select(targets, 0, F.reshape(places, (-1,))), places.shape)
    return F.where(F.lt(arange(size, device=targets.device), F.unsqueeze(lengths, 1)), padded, blank)


def _log_sum(*terms: Tensor) -> Tensor:
    """log(sum(exp)), where -inf stands for nothing and takes no gradient."""
    largest = terms[0].detach()
    for x in terms[1:]:
        largest = F.maximum(largest, x.detach())
    largest = F.where(F.eq(largest, -math.inf), 0.0, largest)
    total = F.exp(F.sub(terms[0], largest))
    for x in terms[1:]:
        total = F.add(total, F.exp(F.sub(x, largest)))
    nothing = F.eq(total, 0.0)
    return F.where(nothing, -math.inf, F.add(F.log(F.where(nothing, 1.0, total)), largest))


def _shifted(alpha: Tensor, by: int) -> Tensor:
    """Each state's score `by` states ago."""
    return F.cat([full((alpha.shape[0], by), -math.inf, dtype=alpha.dtype, device=alpha.device), alpha[:, :-by]], 1)


@in_float32
def _negative_log_likelihood(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """One loss for each sequence; infinite where no alignment exists."""
    steps, count, _ = log_probs.shape
    labels = _labels(cast_to(targets, T.int64), target_lengths, blank)
    size = labels.shape[1]
    states = 2 * size + 1
    blanks = full((count, size, 1), blank, dtype=T.int64, device=log_probs.device)
    pairs = F.reshape(F.cat([blanks, F.unsqueeze(labels, 2)], 2), (count, 2 * size))
    extended = F.cat([pairs, full((count, 1), blank, dtype=T.int64, device=log_probs.device)], 1)
    scores = gather(log_probs, 2, F.expand(extended, steps, count, states))
    place = arange(states, device=log_probs.device)
    alpha = F.where(F.lt(place, 2), scores[0], -math.inf)
    if size > 1:
        changes = F.ne(labels[:, 1:], labels[:, :-1])
        never = full((count, 3), False, dtype=T.bool_, device=log_probs.device)  # to a blank, and to the first label
        odd = F.cat([F.expand(never[:, :1, None], count, size - 1, 1), F.unsqueeze(changes, 2)], 2)
        skips = F.cat([never[:, :2], F.reshape(odd, (count, 2 * size - 2)), never[:, :1]], 1)
    for t in range(1, steps):
        ways = [alpha]
        if size:
            ways.append(_shifted(alpha, 1))
        if size > 1:
            ways.append(F.where(skips, _shifted(alpha, 2), -math.inf))
        moved = F.add(_log_sum(*ways), scores[t])
        alpha = F.where(F.unsqueeze(F.gt(input_lengths, t), 1), moved, alpha)
    last = F.mul(F.unsqueeze(target_lengths, 1), 2)
    final = gather(alpha, 1, F.clamp(F.cat([last, F.sub(last, 1)], 1), min=0))
    empty = F.eq(target_lengths, 0)  # such a target ends in one state
    loss = F.neg(_log_sum(final[:, 0], F.where(empty, -math.inf, final[:, 1])))
    instant = F.where(empty, 0.0, full((count,), math.inf, dtype=loss.dtype, device=loss.device))
    return F.where(F.eq(input_lengths, 0), instant, loss)


def ctc_loss(
    log_probs: TensorBase,
    targets: TensorBase,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of all alignments of each target with its sequence of log-probabilities [T, N, C] (or
    [T, C]). Targets: int classes [N, S], or those of all sequences one after the other; lengths: tensors or ints. With
    "mean" each loss is divided by its target's length (at least 1) before the mean; `zero_infinity` makes losses
    without alignment, and their gradients, 0.

    The gradient is the derivative with respect to `log_probs` as they are given; PyTorch's takes them for results of
    log_softmax, and behind a log_softmax both are equal.
    """
    check_reduction(_NAME, reduction)
    x, y = tensor_arg(_NAME, log_probs), tensor_arg(_NAME, targets)
    y = transferred(y, x.device)
    if x.dtype.kind != "float" or not y.dtype.is_integer:
        raise DTypeError("expects floats and integer targets", op=_NAME, operands=[x.ttype, y.ttype])
    single = x.ndim == 2
    if x.ndim not in (2, 3) or y.ndim not in (1, 2) or (single and y.ndim != 1) or not x.shape[0]:
        message = "expects [T, N, C] and [N, S] or [sum of S], or [T, C] and [S]"
        raise ShapeError(message, op=_NAME, operands=[x.ttype, y.ttype])
    if not 0 <= blank < x.shape[-1]:
        raise InvalidValueError(f"blank is {blank}, there are {x.shape[-1]} classes", op=_NAME)
    x = F.unsqueeze(x, 1) if single else x
    count = x.shape[1]
    if y.ndim == 2 and y.shape[0] != count:
        raise ShapeError(f"targets must be [{count}, S]", op=_NAME, operands=[x.ttype, y.ttype])
    ends = _lengths("input_lengths", input_lengths, count, x.shape[0], x.device)
    sizes = _lengths("target_lengths", target_lengths, count, y.shape[-1], x.device)
    loss = _negative_log_likelihood(x, y, ends, sizes, blank)
    if zero_infinity:
        loss = F.where(F.eq(loss, math.inf), 0.0, loss)
    if reduction == "mean":
        return F.mean(F.div(loss, cast_to(F.clamp(sizes, min=1), loss.dtype)))
    return F.reshape(loss, ()) if single and reduction == "none" else reduced(loss, reduction)
