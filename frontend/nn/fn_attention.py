"""Attention, as the composition that it is written as: scores, mask, softmax over the keys, dropout, weighted sum."""

from __future__ import annotations

import math
from typing import NamedTuple

from kiln import functional as F
from kiln.base import TensorBase
from kiln.creation import arange, zeros
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.types import CPU, Device
from kiln.nn.fn_dropout import dropout
from kiln.nn.fused_attention import fused
from kiln.promotion import cast_to, in_float32, tensor_arg
from kiln.tensor import Tensor

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def causal(rows: int, columns: int, device: Device) -> Tensor:
    """Bools [rows, columns]: True where column <= row."""
    return F.le(F.unsqueeze(arange(columns, device=device), 0), F.unsqueeze(arange(rows, device=device), 1))


def _softmax_of_masked(scores: Tensor) -> Tensor:
    """softmax over the last dimension; 0 in rows where everything is masked (-inf)."""
    top = F.amax(scores.detach(), -1, keepdim=True)
    e = F.exp(F.sub(scores, F.where(F.eq(top, -math.inf), 0.0, top)))
    total = F.sum(e, -1, keepdim=True)
    return F.div(e, F.where(F.eq(total, 0.0), 1.0, total))


def scaled_dot_product_attention(
    query: TensorBase,
    key: TensorBase,
    value: TensorBase,
    attn_mask: TensorBase | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax((query * scale) @ key.T + attn_mask) @ value, for [..., L, E], [..., S, E] and [..., S, V].

    `attn_mask` (broadcast to [..., L, S]): bools that are True where a query may see a key, or numbers that are added.
    `is_causal`: query i sees keys 0..i. `scale` defaults to 1/sqrt(E). `enable_gqa`: keys and values have fewer heads
    (dimension -3), each for several neighbouring query heads. A query that sees no key gets zeros.

    On a GPU this is one kernel, and two for its gradient, that hold no scores in memory (docs/cuda.md).
    """
    name = "scaled_dot_product_attention"
    q, k, v = (tensor_arg(name, x) for x in (query, key, value))
    types = [q.ttype, k.ttype, v.ttype]
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError("expects [..., L, E], [..., S, E] and [..., S, V]", op=name, operands=types)
    if enable_gqa:
        for x in (k, v):
            if q.ndim < 3 or x.ndim < 3 or not x.shape[-3] or q.shape[-3] % x.shape[-3]:
                raise ShapeError("query heads must be a multiple of key heads", op=name, operands=[q.ttype, x.ttype])
    mask = None if attn_mask is None else tensor_arg(name, attn_mask)
    if is_causal and mask is not None:
        raise InvalidValueError("is_causal and attn_mask exclude each other", op=name)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None and q.shape[-1] else 1.0 if scale is None else float(scale)
    if q._layout.device is not CPU and not dropout_p:
        out = fused(q, k, v, mask, is_causal, scale, enable_gqa)
        if out is not None:
            return out
    return _composition(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa)


@in_float32
def _composition(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool, scale: float, grouped: bool
) -> Tensor:
    """Attention as the ops that it is written as."""
    if grouped:
        k, v = _grouped(q, k), _grouped(q, v)
    scores = F.matmul(F.mul(q, scale), F.transpose(k, -2, -1))
    if is_causal:
        scores = F.where(causal(scores.shape[-2], scores.shape[-1], scores.device), scores, -math.inf)
    if mask is None or not scores.shape[-1]:
        weights = F.softmax(scores, -1)
    else:
        masked = F.where(mask, scores, -math.inf) if mask.dtype is T.bool_ else F.add(scores, mask)
        weights = _softmax_of_masked(masked)
    return F.matmul(dropout(weights, dropout_p) if dropout_p else weights, v)


def _grouped(q: Tensor, x: Tensor) -> Tensor:
    """Each head of keys or values as often as query heads share it."""
    times = q.shape[-3] // x.shape[-3]
    batch, heads, rest = x.shape[:-3], x.shape[-3], x.shape[-2:]
    repeated = F.expand(F.unsqueeze(x, -3), *batch, heads, times, *rest)
    return F.reshape(repeated, (*batch, heads * times, *rest))


# ------------------------------------------------------------------------------------------ several heads


class Projection(NamedTuple):
    """The weights of the three projections: query, key and value, each [embed_dim, its size], and one bias for all."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None

    def apply(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three projected, each by a product of its own."""
        size = self.query.shape[0]
        biases = [None] * 3 if self.bias is None else [self.bias[n * size : (n + 1) * size] for n in range(3)]
        return F.linear(q, self.query, biases[0]), F.linear(k, self.key, biases[1]), F.linear(v, self.value, biases[2])


def added_mask(name: str, mask: TensorBase | None, like: Tensor) -> Tensor | None:
    """A mask as numbers to add: bools are True where a key must not be seen."""
    if mask is None:
        return None
    m = tensor_arg(name, mask)
    if m.dtype is T.bool_:
        return cast_to(F.where(m, -math.inf, zeros(m.shape, device=m.device)), like.dtype)
    if m.dtype.kind != "float":
        raise DTypeError("a mask holds bools or floating point numbers", op=name, operands=[m.ttype])
    return m


def _heads(x: Tensor, count: int) -> Tensor:
    """[time, batch, embed] as [batch, head, time, embed / head]."""
    time, batch, size = x.shape
    return F.permute(F.reshape(x, (time, batch, count, size // count)), 1, 2, 0, 3)


def _with_column(mask: Tensor | None) -> Tensor | None:
    """One more key that everyone sees."""
    return None if mask is None else F.cat([mask, zeros(*mask.shape[:-1], 1, dtype=mask.dtype, device=mask.device)], -1)


def _joined_masks(
    name: str, attention: Tensor | None, padding: Tensor | None, batch: int, heads: int, rows: int, columns: int
) -> Tensor | None:
    """Both masks as one that is broadcast to [batch, head, rows, columns]."""
    if attention is not None:
        if attention.shape == (batch * heads, rows, columns) and attention.ndim == 3:
            attention = F.reshape(attention, (batch, heads, rows, columns))
        elif attention.shape != (rows, columns):
            expected = f"[{rows}, {columns}] or [{batch * heads}, {rows}, {columns}]"
            raise ShapeError(f"attn_mask must have shape {expected}", op=name, operands=[attention.ttype])
    if padding is None:
        return attention
    if padding.shape != (batch, columns):
        raise ShapeError(f"key_padding_mask must be [{batch}, {columns}]", op=name, operands=[padding.ttype])
    shaped = F.reshape(padding, (batch, 1, 1, columns))
    return shaped if attention is None else F.add(attention, shaped)


class Extras(NamedTuple):
    """More keys and values: learnt ones [1, 1, embed_dim], and zeros."""

    bias_k: Tensor | None = None
    bias_v: Tensor | None = None
    zero: bool = False


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    projection: Projection,
    extras: Extras,
    dropout_p: float,
    key_padding_mask: TensorBase | None,
    attn_mask: TensorBase | None,
    need_weights: bool,
    is_causal: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention with several heads, before the output projection, for [time, batch, size] inputs.

    Returns [time, batch, embed_dim] and, with `need_weights`, the weights [batch, head, time, keys].
    """
    name = "multi_head_attention_forward"
    if is_causal and attn_mask is None:
        raise InvalidValueError("is_causal is a hint about attn_mask, which is missing", op=name)
    rows, batch = query.shape[:2]
    padding, mask = added_mask(name, key_padding_mask, query), added_mask(name, attn_mask, query)
    if is_causal and padding is None and not need_weights:
        mask = None
    else:
        is_causal = False
    q, k, v = projection.apply(query, key, value)
    if extras.bias_k is not None and extras.bias_v is not None:
        size = (1, batch, k.shape[-1])
        k, v = F.cat([k, F.expand(extras.bias_k, *size)], 0), F.cat([v, F.expand(extras.bias_v, *size)], 0)
        mask, padding = _with_column(mask), _with_column(padding)
    q, k, v = _heads(q, num_heads), _heads(k, num_heads), _heads(v, num_heads)
    if extras.zero:
        nothing = zeros(*k.shape[:2], 1, k.shape[3], dtype=k.dtype, device=k.device)
        k, v = F.cat([k, nothing], 2), F.cat([v, nothing], 2)
        mask, padding = _with_column(mask), _with_column(padding)
    mask = _joined_masks(name, mask, padding, batch, num_heads, rows, k.shape[2])
    weights = None
    if need_weights:
        scores = F.matmul(F.mul(q, 1 / math.sqrt(q.shape[-1])), F.transpose(k, -2, -1))
        weights = F.softmax(scores if mask is None else F.add(scores, mask), -1)
        if dropout_p:
            weights = dropout(weights, dropout_p)
        out = F.matmul(weights, v)
    else:
        out = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)
    return F.reshape(F.permute(out, 2, 0, 1, 3), (rows, batch, out.shape[1] * out.shape[3])), weights


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What `nn.MultiheadAttention` computes, for [time, batch, size] (or [time, size]) inputs: (output, weights).

    in_proj_weight [3 * embed_dim, embed_dim] holds the three projections unless `use_separate_proj_weight`. Masks:
    bools are True where a key must not be seen, numbers are added to the scores. The weights [batch, time, keys] are
    the heads' average, or with head as second dimension; None without `need_weights`.
    """
    name = "multi_head_attention_forward"
    if static_k is not None or static_v is not None:
        raise ArgumentError("static_k and static_v are not supported", op=name, fix="project them like the others")
    types = [query.ttype, key.ttype, value.ttype]
    if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
        raise ShapeError("expects three tensors of 2 or of 3 dimensions", op=name, operands=types)
    if query.shape[-1] != embed_dim_to_check or embed_dim_to_check % num_heads:
        raise ShapeError(f"expected embeddings of size {embed_dim_to_check}", op=name, operands=types)
    if key.shape[:-1] != value.shape[:-1]:
        raise ShapeError("keys and values must be equally many", op=name, operands=types)
    single = query.ndim == 2
    if single:
        query, key, value = (F.unsqueeze(x, 1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else F.unsqueeze(key_padding_mask, 0)
    if use_separate_proj_weight:
        separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        n, w = embed_dim_to_check, in_proj_weight
        separate = (None,) * 3 if w is None else (w[:n], w[n : 2 * n], w[2 * n :])
    wq, wk, wv = separate
    if wq is None or wk is None or wv is None:
        raise ArgumentError("the projections' weights are missing", op=name)
    out, weights = attend(
        query, key, value, num_heads, Projection(wq, wk, wv, in_proj_bias), Extras(bias_k, bias_v, add_zero_attn),
        dropout_p if training else 0.0, key_padding_mask, attn_mask, need_weights, is_causal,
    )  # fmt: skip
    out = F.linear(out, out_proj_weight, out_proj_bias)
    if weights is not None and average_attn_weights:
        weights = F.mean(weights, 1)
    if single:
        return F.squeeze(out, 1), None if weights is None else F.squeeze(weights, 0)
    return out, weights
