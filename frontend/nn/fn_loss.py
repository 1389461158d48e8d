"""Losses of numbers, probabilities and distances; those of classes stand in `fn_class_loss.py`.

Each loss is computed per element (or sample) and then reduced: "mean", "sum" or "none". `size_average` and `reduce`
are older spellings of `reduction`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from kiln import functional as F
from kiln.activation import logsigmoid
from kiln.base import Operand, TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.location import frames_of_kiln
from kiln.maths import log1p
from kiln.nn.fn_linear import pairwise_distance
from kiln.promotion import cast_to, floating, in_float32, number, tensor_arg
from kiln.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "gaussian_nll_loss",
    "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "multilabel_soft_margin_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip


def check_reduction(op: str, reduction: str) -> None:
    """InvalidValueError unless it is "mean", "sum" or "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise InvalidValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}', op=op)


def reduction_of(op: str, size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that new or old arguments ask for."""
    for old in (size_average, reduce):
        if isinstance(old, str):
            raise ArgumentError(f"got {old!r} for an older argument", op=op, fix=f"pass reduction={old!r} by name")
    if size_average is not None or reduce is not None:
        return "none" if reduce is False else "sum" if size_average is False else "mean"
    check_reduction(op, reduction)
    return reduction


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or the losses themselves."""
    return F.mean(loss) if reduction == "mean" else F.sum(loss) if reduction == "sum" else loss


def _weighted(op: str, loss: Tensor, weight: TensorBase | None) -> Tensor:
    if weight is None:
        return loss
    if weight.shape != loss.shape:
        raise InvalidValueError(f"the weight must have the input's shape {list(loss.shape)}", op=op)
    return F.mul(loss, weight)


def _weighted_mean(op: str, loss: Tensor, weight: TensorBase | None, reduction: str) -> Tensor:
    """Reduced; the mean is over the weights."""
    loss = _weighted(op, loss, weight)
    if weight is not None and reduction == "mean":
        return F.div(F.sum(loss), F.sum(weight))
    return reduced(loss, reduction)


# ------------------------------------------------------------------------------------------ differences


def _difference(op: str, input: TensorBase, target: TensorBase) -> Tensor:
    """input - target. As in PyTorch, what is broadcast is warned of: it seldom is what was meant."""
    a, b = tensor_arg(op, input), tensor_arg(op, target)
    made = F.sub(a, b)
    if a.shape != b.shape:
        warnings.warn(
            f"Using a target size ({b.shape}) that is different to the input size ({a.shape}). This will likely lead "
            "to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=frames_of_kiln(),
        )
    return made


def _real(op: str, x: Tensor) -> Tensor:
    """`x` unless it is complex: a loss is a real number."""
    if x.dtype.is_complex:
        raise DTypeError(f"is not defined for {x.dtype}", op=op, operands=[x.ttype], fix="use view_as_real of both")
    return x


@in_float32
def l1_loss(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: TensorBase | None = None,
) -> Tensor:
    """|input - target|; with weights the mean is sum(weight * loss) / sum(weight)."""
    mode = reduction_of("l1_loss", size_average, reduce, reduction)
    return _weighted_mean("l1_loss", F.abs(_difference("l1_loss", input, target)), weight, mode)


@in_float32
def mse_loss(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: TensorBase | None = None,
) -> Tensor:
    """(input - target) squared; with weights the mean is sum(weight * loss) / sum(weight). DTypeError for complex
    numbers."""
    mode = reduction_of("mse_loss", size_average, reduce, reduction)
    return _weighted_mean("mse_loss", F.square(_real("mse_loss", _difference("mse_loss", input, target))), weight, mode)


@in_float32
def smooth_l1_loss(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """0.5 * d * d / beta where d = |input - target| is below `beta`, else d - 0.5 * beta."""
    mode = reduction_of("smooth_l1_loss", size_average, reduce, reduction)
    if beta < 0:
        raise InvalidValueError(f"beta is {beta}", op="smooth_l1_loss")
    d = F.abs(_difference("smooth_l1_loss", input, target))
    if beta == 0:
        return reduced(d, mode)
    near = F.div(F.mul(F.mul(d, 0.5), d), float(beta))
    return reduced(F.where(F.lt(d, float(beta)), near, F.sub(d, 0.5 * beta)), mode)


@in_float32
def huber_loss(
    input: TensorBase,
    target: TensorBase,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: TensorBase | None = None,
) -> Tensor:
    """0.5 * d * d where d = |input - target| is at most `delta`, else delta * (d - 0.5 * delta)."""
    check_reduction("huber_loss", reduction)
    if delta <= 0:
        raise InvalidValueError(f"delta must be positive, got {delta}", op="huber_loss")
    d = F.abs(_difference("huber_loss", input, target))
    far = F.mul(F.sub(d, 0.5 * delta), float(delta))
    loss = F.where(F.le(d, float(delta)), F.mul(F.mul(d, 0.5), d), far)
    return reduced(_weighted("huber_loss", loss, weight), reduction)


# ---------------------------------------------------------------------------------------- probabilities

_LOG_FLOOR = -100.0  # logarithms of probabilities are cut here
_STEEPEST = 1e12  # and have this slope there


def _log_probability(p: Tensor, other: bool = False) -> Tensor:
    """max(log(p), -100), or of 1 - p for the `other` outcome; its slope where p (or 1 - p) is 0 is 1e12 (that of the
    logarithm would be infinite)."""
    impossible = F.eq(p.detach(), 1.0 if other else 0.0)
    safe = F.where(impossible, 0.5, p)
    exact = log1p(F.neg(safe)) if other else F.log(safe)
    exact = F.where(F.lt(exact, _LOG_FLOOR), _LOG_FLOOR, exact)
    tail = F.add(F.mul(F.sub(p, p.detach()), -_STEEPEST if other else _STEEPEST), _LOG_FLOOR)
    return F.where(impossible, tail, exact)


@in_float32
def binary_cross_entropy(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input)) for probabilities, the logarithms cut at -100; NaN outside
    [0, 1]. ShapeError unless input and target have one shape; `weight` is broadcast."""
    op = "binary_cross_entropy"
    mode = reduction_of(op, size_average, reduce, reduction)
    p, t = tensor_arg(op, input), tensor_arg(op, target)
    if p.shape != t.shape:
        raise ShapeError("input and target must have one shape", op=op, operands=[p.ttype, t.ttype])
    no = F.mul(F.sub(t, 1.0), _log_probability(p, other=True))
    loss = F.sub(no, F.mul(t, _log_probability(p)))
    return reduced(loss if weight is None else F.mul(loss, weight), mode)


@in_float32
def binary_cross_entropy_with_logits(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: TensorBase | None = None,
) -> Tensor:
    """(1 - target) * input - w * logsigmoid(input), with w = (pos_weight - 1) * target + 1 (1 without it):
    `binary_cross_entropy` of sigmoid(input), for any input."""
    op = "binary_cross_entropy_with_logits"
    mode = reduction_of(op, size_average, reduce, reduction)
    x, t = tensor_arg(op, input), tensor_arg(op, target)
    if x.shape != t.shape:
        raise InvalidValueError(f"input and target must have one shape, got {x.ttype} and {t.ttype}", op=op)
    log_p = logsigmoid(x)
    if pos_weight is not None:
        log_p = F.mul(F.add(F.mul(F.sub(pos_weight, 1.0), t), 1.0), log_p)
    loss = F.sub(F.mul(F.sub(1.0, t), x), log_p)
    return reduced(loss if weight is None else F.mul(loss, weight), mode)


def _x_log_x(t: Tensor) -> Tensor:
    """t * log(t), 0 at 0."""
    return F.mul(t, F.log(F.where(F.eq(t, 0.0), 1.0, t)))


@in_float32
def kl_div(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input) for log-probabilities `input`; with `log_target` the target is a logarithm too.
    reduction "batchmean" is the sum over the size of dimension 0."""
    batch = reduction == "batchmean"
    mode = reduction_of("kl_div", size_average, reduce, "sum" if batch else reduction)
    x, t = (_real("kl_div", tensor_arg("kl_div", each)) for each in (input, target))
    loss = F.mul(F.exp(t), F.sub(t, x)) if log_target else F.sub(_x_log_x(t), F.mul(t, x))
    total = reduced(loss, mode)
    return F.div(total, float(x.shape[0])) if batch and x.ndim else total


@in_float32
def poisson_nll_loss(
    input: TensorBase,
    target: TensorBase,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input, or without `log_input` input - target * log(input + eps); `full` adds Stirling's
    approximation of log(target!) for targets above 1."""
    mode = reduction_of("poisson_nll_loss", size_average, reduce, reduction)
    x, t = tensor_arg("poisson_nll_loss", input), tensor_arg("poisson_nll_loss", target)
    if log_input:
        loss = F.sub(F.exp(x), F.mul(t, x))
    else:
        loss = F.sub(x, F.mul(t, F.log(F.add(x, float(eps)))))
    if full:
        large = F.gt(t, 1.0)
        safe = F.where(large, t, 1.0)
        stirling = F.add(F.sub(_x_log_x(safe), safe), F.mul(F.log(F.mul(safe, 2 * math.pi)), 0.5))
        loss = F.add(loss, F.where(large, stirling, 0.0))
    return reduced(loss, mode)


@in_float32
def gaussian_nll_loss(
    input: TensorBase,
    target: TensorBase,
    var: Operand,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """0.5 * (log(v) + (input - target) ** 2 / v) with v = max(var, eps), whose gradient reaches `var` uncut; `full`
    adds 0.5 * log(2 * pi).

    `var`: a number, or a tensor of the input's shape, without its last dimension, or with 1 in its place.
    """
    op = "gaussian_nll_loss"
    check_reduction(op, reduction)
    x = floating(op, input)
    v = tensor_arg(op, var) if isinstance(var, TensorBase) else F.add(F.mul(x.detach(), 0.0), float(number(var)))
    if v.shape != x.shape:
        if x.shape[:-1] == v.shape:
            v = F.unsqueeze(v, -1)
        elif v.ndim != x.ndim or sum(a != b for a, b in zip(v.shape, x.shape, strict=True)) != 1:
            raise InvalidValueError(f"var of {v.ttype} does not fit {x.ttype}", op=op)
    v = F.where(F.lt(v.detach(), float(eps)), F.add(F.sub(v, v.detach()), float(eps)), v)
    d = F.sub(x, target)
    loss = F.mul(F.add(F.log(v), F.div(F.mul(d, d), v)), 0.5)
    if full:
        loss = F.add(loss, 0.5 * math.log(2 * math.pi))
    return reduced(loss, reduction)


# ---------------------------------------------------------------------------------------------- margins


def _positive(x: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 passes."""
    return F.clamp(x, min=0.0)


@in_float32
def hinge_embedding_loss(
    input: TensorBase,
    target: TensorBase,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """input where target is 1, max(0, margin - input) where it is -1 (both for other targets)."""
    mode = reduction_of("hinge_embedding_loss", size_average, reduce, reduction)
    x, t = tensor_arg("hinge_embedding_loss", input), tensor_arg("hinge_embedding_loss", target)
    far = F.where(F.ne(t, 1), _positive(F.sub(float(margin), x)), 0.0)
    return reduced(F.add(far, F.where(F.ne(t, -1), x, 0.0)), mode)


@in_float32
def cosine_embedding_loss(
    input1: TensorBase,
    input2: TensorBase,
    target: TensorBase,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1, with
    cos = sum(a * b) / sqrt((sum(a * a) + 1e-12) * (sum(b * b) + 1e-12)) of the rows [N, D] or vectors [D]."""
    op = "cosine_embedding_loss"
    mode = reduction_of(op, size_average, reduce, reduction)
    a, b, t = floating(op, input1), floating(op, input2), tensor_arg(op, target)
    if a.ndim not in (1, 2) or a.ndim != t.ndim + 1 or b.ndim != a.ndim:
        raise ShapeError("expects [N, D] with targets [N], or [D] with []", op=op, operands=[a.ttype, b.ttype, t.ttype])
    squares = [F.add(F.sum(F.mul(x, x), -1), 1e-12) for x in (a, b)]
    cos = F.div(F.sum(F.mul(a, b), -1), F.sqrt(F.mul(*squares)))
    alike = F.where(F.eq(t, 1), F.sub(1.0, cos), 0.0)
    return reduced(F.add(alike, F.where(F.eq(t, -1), _positive(F.sub(cos, float(margin))), 0.0)), mode)


@in_float32
def margin_ranking_loss(
    input1: TensorBase,
    input2: TensorBase,
    target: TensorBase,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    op = "margin_ranking_loss"
    mode = reduction_of(op, size_average, reduce, reduction)
    a, b, t = tensor_arg(op, input1), tensor_arg(op, input2), tensor_arg(op, target)
    if not a.ndim == b.ndim == t.ndim:
        raise ShapeError("all three must have one rank", op=op, operands=[a.ttype, b.ttype, t.ttype])
    return reduced(_positive(F.add(F.mul(F.neg(t), F.sub(a, b)), float(margin))), mode)


@in_float32
def triplet_margin_loss(
    anchor: TensorBase,
    positive: TensorBase,
    negative: TensorBase,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with `pairwise_distance`; `swap`: the negative's
    distance is the smaller one of those to the anchor and to the positive."""
    mode = reduction_of("triplet_margin_loss", size_average, reduce, reduction)

    def distance(a: TensorBase, b: TensorBase) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return _triplet("triplet_margin_loss", distance, anchor, positive, negative, margin, swap, mode)


@in_float32
def triplet_margin_with_distance_loss(
    anchor: TensorBase,
    positive: TensorBase,
    negative: TensorBase,
    *,
    distance_function: Callable[..., Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with any distance (default: `pairwise_distance`)."""
    name = "triplet_margin_with_distance_loss"
    check_reduction(name, reduction)
    distance = distance_function or pairwise_distance
    return _triplet(name, distance, anchor, positive, negative, margin, swap, reduction)


def _triplet(
    name: str,
    distance: Callable[..., Tensor],
    anchor: TensorBase,
    positive: TensorBase,
    negative: TensorBase,
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if margin <= 0:
        raise InvalidValueError(f"the margin must be positive, got {margin}", op=name)
    parts = [tensor_arg(name, x) for x in (anchor, positive, negative)]
    if len({x.ndim for x in parts}) != 1:
        raise ShapeError("all three must have one rank", op=name, operands=[x.ttype for x in parts])
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = F.minimum(far, distance(positive, negative))
    return reduced(_positive(F.sub(F.add(near, float(margin)), far)), reduction)


@in_float32
def soft_margin_loss(
    input: TensorBase,
    target: TensorBase,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target * input)) as -logsigmoid(target * input), which does not overflow; targets are 1 or -1."""
    mode = reduction_of("soft_margin_loss", size_average, reduce, reduction)
    x = floating("soft_margin_loss", input)
    return reduced(F.neg(logsigmoid(F.mul(cast_to(tensor_arg("soft_margin_loss", target), x.dtype), x))), mode)


@in_float32
def multilabel_soft_margin_loss(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target * logsigmoid(input) + (1 - target) * logsigmoid(-input)), averaged over the last dimension's classes;
    then the reduction."""
    op = "multilabel_soft_margin_loss"
    mode = reduction_of(op, size_average, reduce, reduction)
    x, t = floating(op, input), tensor_arg(op, target)
    if x.shape != t.shape or not x.ndim:
        raise ShapeError("input and target must have one shape", op=op, operands=[x.ttype, t.ttype])
    no = F.mul(F.sub(1.0, t), logsigmoid(F.neg(x)))
    loss = F.neg(F.add(F.mul(t, logsigmoid(x)), no))
    if weight is not None:
        loss = F.mul(loss, weight)
    return reduced(F.div(F.sum(loss, -1), float(x.shape[-1])), mode)
