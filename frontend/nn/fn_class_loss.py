"""Losses of scores against classes: [N, C], [C] or [N, C, d...] against int64 classes [N], [] or [N, d...]."""

from __future__ import annotations

import math
from typing import Any

from kiln import functional as F
from kiln.base import TensorBase
from kiln.composite import composite
from kiln.creation import arange
from kiln.cumulative import cumsum
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.gathering import gather
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.nn.fn_loss import reduced, reduction_of
from kiln.promotion import apply, broadcast_to, cast_to, in_float32, tensor_arg
from kiln.tensor import Tensor

__all__ = ["cross_entropy", "multi_margin_loss", "multilabel_margin_loss", "nll_loss"]

_PICK = OPS["pick"]


def _classes_last(name: str, x: Tensor) -> Tensor:
    """The class dimension (1, or 0 of a vector) moved behind the others."""
    if not x.ndim:
        raise ShapeError("expects at least one dimension", op=name, operands=[x.ttype])
    d = 1 if x.ndim > 1 else 0
    return x if d == x.ndim - 1 else F.permute(x, *[i for i in range(x.ndim) if i != d], d)


def _class_weights(name: str, weight: TensorBase, count: int) -> Tensor:
    w = tensor_arg(name, weight)
    if w.shape != (count,):
        raise ShapeError(f"weights must be one for each of the {count} classes", op=name, operands=[w.ttype])
    return w


class _Classes:
    """Checked targets: which count, a class for each (0 where it does not count), their weights."""

    def __init__(self, name: str, rows: Tensor, target: TensorBase, weight: TensorBase | None, ignore: int) -> None:
        y = tensor_arg(name, target)
        if y.dtype is not T.int64:
            raise DTypeError(f"classes must be int64, not {y.dtype}", op=name, operands=[rows.ttype, y.ttype])
        if y.shape != rows.shape[:-1]:
            raise ShapeError(
                "classes must have the scores' shape without dimension C", op=name, operands=[rows.ttype, y.ttype]
            )
        self.rows = rows
        self.counts = F.ne(y, ignore)
        self.index = F.where(self.counts, y, 0)
        self.weights = None
        if weight is not None:
            w = broadcast_to(_class_weights(name, weight, rows.shape[-1]), rows.shape)
            self.weights = F.where(self.counts, apply(_PICK, w, self.index), 0.0)

    def picked(self) -> Tensor:
        """Minus the score of each class, weighted; 0 where it does not count."""
        loss = F.where(self.counts, F.neg(apply(_PICK, self.rows, self.index)), 0.0)
        return loss if self.weights is None else F.mul(loss, self.weights)

    def averaged(self, loss: Tensor, reduction: str) -> Tensor:
        """Reduced, the mean over the weights of those that count."""
        if reduction != "mean":
            return reduced(loss, reduction)
        weights = self.weights if self.weights is not None else cast_to(self.counts, loss.dtype)
        return F.div(F.sum(loss), F.sum(weights))


@composite
@in_float32
def nll_loss(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[target] * input[target] of log-probabilities; classes equal to `ignore_index` count nothing. The mean is
    over the weights (1 without) of the others.

    KilnIndexError for a class outside [0, C).
    """
    mode = reduction_of("nll_loss", size_average, reduce, reduction)
    rows = _classes_last("nll_loss", tensor_arg("nll_loss", input))
    classes = _Classes("nll_loss", rows, target, weight, ignore_index)
    return classes.averaged(classes.picked(), mode)


@composite
@in_float32
def cross_entropy(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """nll_loss(log_softmax(input)) over the class dimension (1, or 0 of a vector); classes are int64.

    `label_smoothing` s mixes with the loss of all classes: (1 - s) * nll + s / C * -sum(weight * log_softmax).
    A floating point target of the input's shape holds class probabilities t: -sum(weight * t * log_softmax) with
    t * (1 - s) + s / C; the mean is over the samples. KilnIndexError for a class outside [0, C).
    """
    name = "cross_entropy"
    mode = reduction_of(name, size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise InvalidValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}", op=name)
    x, y = tensor_arg(name, input), tensor_arg(name, target)
    rows = _classes_last(name, F.log_softmax(x, 1 if x.ndim > 1 else 0))
    if y.shape == x.shape and y.dtype.kind == "float":
        return _of_probabilities(rows, _classes_last(name, y), weight, label_smoothing, mode)
    classes = _Classes(name, rows, y, weight, ignore_index)
    loss = classes.averaged(classes.picked(), mode)
    if not label_smoothing:
        return loss
    count = rows.shape[-1]
    weighted = rows if weight is None else F.mul(rows, _class_weights(name, weight, count))
    smooth = classes.averaged(F.where(classes.counts, F.neg(F.sum(weighted, -1)), 0.0), mode)
    return F.add(F.mul(loss, 1.0 - label_smoothing), F.mul(smooth, label_smoothing / count))


def _of_probabilities(rows: Tensor, t: Tensor, weight: Any, smoothing: float, reduction: str) -> Tensor:
    count = rows.shape[-1]
    if smoothing:
        t = F.add(F.mul(t, 1.0 - smoothing), smoothing / count)
    terms = F.mul(rows, t)
    if weight is not None:
        terms = F.mul(terms, _class_weights("cross_entropy", weight, count))
    loss = F.neg(F.sum(terms, -1))
    if reduction == "mean":
        return F.div(F.sum(loss), float(math.prod(rows.shape[:-1])))
    return reduced(loss, reduction)


@in_float32
def multi_margin_loss(
    input: TensorBase,
    target: TensorBase,
    p: int = 1,
    margin: float = 1.0,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over the classes c other than y of weight[y] * max(0, margin - input[y] + input[c]) ** p, over C; for
    [N, C] or [C]."""
    name = "multi_margin_loss"
    mode = reduction_of(name, size_average, reduce, reduction)
    x = tensor_arg(name, input)
    if p not in (1, 2):
        raise InvalidValueError(f"p must be 1 or 2, got {p}", op=name)
    if x.ndim not in (1, 2):
        raise ShapeError("expects [N, C] or [C]", op=name, operands=[x.ttype])
    classes = _Classes(name, x, target, None, -1 << 62)
    count = x.shape[-1]
    own = F.unsqueeze(apply(_PICK, x, classes.index), -1)
    term = F.clamp(F.add(F.sub(float(margin), own), x), min=0.0)
    term = F.mul(term, term) if p == 2 else term
    if weight is not None:
        w = broadcast_to(_class_weights(name, weight, count), x.shape)
        term = F.mul(term, F.unsqueeze(apply(_PICK, w, classes.index), -1))
    others = F.ne(arange(count, device=x.device), F.unsqueeze(classes.index, -1))
    return reduced(F.div(F.sum(F.where(others, term, 0.0), -1), float(count)), mode)


@in_float32
def multilabel_margin_loss(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over classes y of the target and classes c outside it of max(0, 1 - input[y] + input[c]), over C; for
    [N, C] or [C], with int64 targets of that shape: classes up to the first negative number."""
    name = "multilabel_margin_loss"
    mode = reduction_of(name, size_average, reduce, reduction)
    x, y = tensor_arg(name, input), tensor_arg(name, target)
    if x.ndim not in (1, 2) or y.shape != x.shape or y.dtype is not T.int64:
        raise ShapeError("expects [N, C] or [C], and int64 targets of that shape", op=name, operands=[x.ttype, y.ttype])
    count = x.shape[-1]
    counts = F.eq(cumsum(cast_to(F.lt(y, 0), T.int64), -1), 0)
    own = F.unsqueeze(gather(x, -1, F.where(counts, y, 0)), -1)  # [..., C, 1]
    classes = F.eq(F.unsqueeze(y, -1), arange(count, device=x.device))
    inside = F.any(F.logical_and(classes, F.unsqueeze(counts, -1)), -2)
    term = F.clamp(F.add(F.sub(1.0, own), F.unsqueeze(x, -2)), min=0.0)
    taken = F.logical_and(F.unsqueeze(counts, -1), F.logical_not(F.unsqueeze(inside, -2)))
    return reduced(F.div(F.sum(F.where(taken, term, 0.0), (-2, -1)), float(count)), mode)
