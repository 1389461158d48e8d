"""Functions of `kiln.nn.functional` as torch has them at its top level: there some take their arguments in another
order, and reductions as numbers (0 "none", 1 "mean", 2 "sum")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln import inplace
from kiln import linalg as LA
from kiln.arguments import dim_index
from kiln.base import TensorBase
from kiln.errors import InvalidValueError
from kiln.nn import functional as NF
from kiln.nn.functional import bilinear as bilinear
from kiln.nn.functional import celu as celu
from kiln.nn.functional import cosine_similarity as cosine_similarity
from kiln.nn.functional import hardshrink as hardshrink
from kiln.nn.functional import pairwise_distance as pairwise_distance
from kiln.nn.functional import prelu as prelu
from kiln.nn.functional import rms_norm as rms_norm
from kiln.nn.functional import rrelu as rrelu
from kiln.nn.functional import selu as selu
from kiln.nn.functional import threshold as threshold
from kiln.nn.recurrent import cell_step
from kiln.tensor import Tensor

__all__ = [
    "alpha_dropout", "alpha_dropout_", "batch_norm", "bilinear",
    "binary_cross_entropy_with_logits", "celu", "celu_", "constant_pad_nd", "cosine_embedding_loss",
    "cosine_similarity", "ctc_loss", "dropout", "dropout_", "embedding", "feature_alpha_dropout",
    "feature_alpha_dropout_", "feature_dropout", "feature_dropout_", "frobenius_norm", "group_norm", "gru_cell",
    "hardshrink", "hinge_embedding_loss", "instance_norm", "kl_div", "layer_norm", "lstm_cell", "margin_ranking_loss",
    "norm_except_dim", "nuclear_norm", "pairwise_distance", "poisson_nll_loss", "prelu", "rms_norm",
    "rnn_relu_cell", "rnn_tanh_cell", "rrelu", "rrelu_", "selu", "selu_", "threshold", "threshold_",
    "triplet_margin_loss",
]  # fmt: skip

_REDUCTIONS: Final = ("none", "mean", "sum")


def _reduction(op: str, reduction: int | str) -> str:
    """The name of a reduction; InvalidValueError for a number that stands for none."""
    if isinstance(reduction, str):
        return reduction
    if reduction not in (0, 1, 2):
        raise InvalidValueError(f"{reduction} is no reduction", op=op, fix="0: none, 1: mean, 2: sum")
    return _REDUCTIONS[reduction]


# ---------------------------------------------------------------------------------------------- dropout


def dropout(input: TensorBase, p: float, train: bool) -> Tensor:
    """`nn.functional.dropout`."""
    return NF.dropout(input, p, train)


def alpha_dropout(input: TensorBase, p: float, train: bool) -> Tensor:
    """`nn.functional.alpha_dropout`."""
    return NF.alpha_dropout(input, p, train)


def feature_dropout(input: TensorBase, p: float, train: bool) -> Tensor:
    """Whole channels (of all dimensions behind the second) become 0, each with probability `p`."""
    return NF.dropout2d(input, p, train)


def feature_alpha_dropout(input: TensorBase, p: float, train: bool) -> Tensor:
    """`nn.functional.feature_alpha_dropout`."""
    return NF.feature_alpha_dropout(input, p, train)


dropout_: Callable[..., Tensor] = inplace.variant(dropout, "dropout_")
alpha_dropout_: Callable[..., Tensor] = inplace.variant(alpha_dropout, "alpha_dropout_")
feature_dropout_: Callable[..., Tensor] = inplace.variant(feature_dropout, "feature_dropout_")
feature_alpha_dropout_: Callable[..., Tensor] = inplace.variant(feature_alpha_dropout, "feature_alpha_dropout_")
celu_: Callable[..., Tensor] = inplace.variant(celu, "celu_")
rrelu_: Callable[..., Tensor] = inplace.variant(rrelu, "rrelu_")
selu_: Callable[..., Tensor] = inplace.variant(selu, "selu_")
threshold_: Callable[..., Tensor] = inplace.variant(threshold, "threshold_")


# ---------------------------------------------------------------------------------------- normalization


def batch_norm(
    input: TensorBase,
    weight: TensorBase | None,
    bias: TensorBase | None,
    running_mean: TensorBase | None,
    running_var: TensorBase | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """`nn.functional.batch_norm`, weight and bias first."""
    del cudnn_enabled
    return NF.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: TensorBase,
    weight: TensorBase | None,
    bias: TensorBase | None,
    running_mean: TensorBase | None,
    running_var: TensorBase | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """`nn.functional.instance_norm`, weight and bias first."""
    del cudnn_enabled
    return NF.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def layer_norm(
    input: TensorBase,
    normalized_shape: Sequence[int],
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """`nn.functional.layer_norm`."""
    del cudnn_enable
    return NF.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: TensorBase,
    num_groups: int,
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """`nn.functional.group_norm`."""
    del cudnn_enabled
    return NF.group_norm(input, num_groups, weight, bias, eps)


def frobenius_norm(input: TensorBase, dim: Any, keepdim: bool = False) -> Tensor:
    """The square root of the sum of squared lengths of the elements, over one or two dimensions."""
    return LA.vector_norm(input, 2, dim, keepdim)


def norm_except_dim(v: TensorBase, pow: int = 2, dim: int = 0) -> Tensor:
    """The norm of order `pow` over all dimensions but `dim`, which keep size 1; with dim=-1 over all, 0-d."""
    return LA.vector_norm(v, pow) if dim == -1 else LA.vector_norm(v, pow, _others(v, dim), True)


def _others(v: TensorBase, dim: int) -> list[int]:
    kept = dim_index("norm_except_dim", dim, v.ndim)
    return [k for k in range(v.ndim) if k != kept]


def nuclear_norm(input: TensorBase, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values of matrices."""
    return LA.matrix_norm(input, "nuc", tuple(dim), keepdim)


# ---------------------------------------------------------------------------- look-ups, padding, pooling


def embedding(
    weight: TensorBase,
    indices: TensorBase,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`nn.functional.embedding`, the table first; the row `padding_idx`, unless negative, gets no gradient."""
    padding = None if padding_idx < 0 else padding_idx
    return NF.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def constant_pad_nd(input: TensorBase, pad: Sequence[int], value: float = 0) -> Tensor:
    """`nn.functional.pad` with a constant."""
    return NF.pad(input, pad, "constant", value)


# ---------------------------------------------------------------------------------------------- losses


def binary_cross_entropy_with_logits(
    input: TensorBase,
    target: TensorBase,
    weight: TensorBase | None = None,
    pos_weight: TensorBase | None = None,
    reduction: int | str = 1,
) -> Tensor:
    """`nn.functional.binary_cross_entropy_with_logits`."""
    how = _reduction("binary_cross_entropy_with_logits", reduction)
    return NF.binary_cross_entropy_with_logits(input, target, weight, reduction=how, pos_weight=pos_weight)


def cosine_embedding_loss(
    input1: TensorBase, input2: TensorBase, target: TensorBase, margin: float = 0.0, reduction: int | str = 1
) -> Tensor:
    """`nn.functional.cosine_embedding_loss`."""
    how = _reduction("cosine_embedding_loss", reduction)
    return NF.cosine_embedding_loss(input1, input2, target, margin, reduction=how)


def ctc_loss(
    log_probs: TensorBase,
    targets: TensorBase,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int | str = 1,
    zero_infinity: bool = False,
) -> Tensor:
    """`nn.functional.ctc_loss`."""
    how = _reduction("ctc_loss", reduction)
    return NF.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, how, zero_infinity)


def hinge_embedding_loss(
    input: TensorBase, target: TensorBase, margin: float = 1.0, reduction: int | str = 1
) -> Tensor:
    """`nn.functional.hinge_embedding_loss`."""
    return NF.hinge_embedding_loss(input, target, margin, reduction=_reduction("hinge_embedding_loss", reduction))


def kl_div(input: TensorBase, target: TensorBase, reduction: int | str = 1, *, log_target: bool = False) -> Tensor:
    """`nn.functional.kl_div`."""
    return NF.kl_div(input, target, reduction=_reduction("kl_div", reduction), log_target=log_target)


def margin_ranking_loss(
    input1: TensorBase, input2: TensorBase, target: TensorBase, margin: float = 0.0, reduction: int | str = 1
) -> Tensor:
    """`nn.functional.margin_ranking_loss`."""
    how = _reduction("margin_ranking_loss", reduction)
    return NF.margin_ranking_loss(input1, input2, target, margin, reduction=how)


def poisson_nll_loss(
    input: TensorBase, target: TensorBase, log_input: bool, full: bool, eps: float, reduction: int | str
) -> Tensor:
    """`nn.functional.poisson_nll_loss`."""
    how = _reduction("poisson_nll_loss", reduction)
    return NF.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=how)


def triplet_margin_loss(
    anchor: TensorBase,
    positive: TensorBase,
    negative: TensorBase,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int | str = 1,
) -> Tensor:
    """`nn.functional.triplet_margin_loss`."""
    how = _reduction("triplet_margin_loss", reduction)
    return NF.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=how)


# ----------------------------------------------------------------------------------------------- cells


def lstm_cell(
    input: TensorBase,
    hx: Sequence[TensorBase],
    w_ih: TensorBase,
    w_hh: TensorBase,
    b_ih: TensorBase | None = None,
    b_hh: TensorBase | None = None,
) -> tuple[Tensor, Tensor]:
    """What `nn.LSTMCell` computes from `input` and hx = (h, c): the new h and c."""
    h, c = cell_step("LSTM", input, hx, w_ih, w_hh, b_ih, b_hh)
    return h, c


def gru_cell(
    input: TensorBase,
    hx: TensorBase,
    w_ih: TensorBase,
    w_hh: TensorBase,
    b_ih: TensorBase | None = None,
    b_hh: TensorBase | None = None,
) -> Tensor:
    """What `nn.GRUCell` computes from `input` and the state `hx`."""
    return cell_step("GRU", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh_cell(
    input: TensorBase,
    hx: TensorBase,
    w_ih: TensorBase,
    w_hh: TensorBase,
    b_ih: TensorBase | None = None,
    b_hh: TensorBase | None = None,
) -> Tensor:
    """What `nn.RNNCell` computes from `input` and the state `hx`, with tanh."""
    return cell_step("RNN_TANH", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(
    input: TensorBase,
    hx: TensorBase,
    w_ih: TensorBase,
    w_hh: TensorBase,
    b_ih: TensorBase | None = None,
    b_hh: TensorBase | None = None,
) -> Tensor:
    """What `nn.RNNCell` computes from `input` and the state `hx`, with relu."""
    return cell_step("RNN_RELU", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]
