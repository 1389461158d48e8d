"""Attention as one op, and its gradient: what a GPU has kernels for that never hold all scores at once.

    scores = scale * (q @ k') + mask, of keys that a query sees     k' is the transpose
    lse    = log(sum(exp(scores))) of each query, 0 where it sees no key
    weights = exp(scores - lse)
    out    = weights @ v

q is [N, H, L, D], k [N, G, S, D], v [N, G, S, V], the results are [N, H, L, V] and [N, H, L]; each of the G heads of
keys and values serves `repeat` neighbouring heads of queries. A mask [N, H, L, S] holds bools, True where a query sees
a key, or numbers that are added; `causal`: query i sees keys 0 to i. Of 16-bit floats all is computed in float32 and
rounded once, and lse is float32.

Where there is no such kernel, an op is the composition `parts` of others (`Composed`), which is also what derivatives
of the gradient are made of.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Composed, OpDef, OpTypeError, quiet, register
from kiln.ir.ops.cast import cast as cast_op
from kiln.ir.ops.create import full_like, iota
from kiln.ir.ops.elementwise import add, div, eq, exp, le, log, mul, neg, sub, where
from kiln.ir.ops.linalg import matmul, transposed
from kiln.ir.ops.movement import broadcast, reshape
from kiln.ir.ops.reduce import amax, sum_
from kiln.ir.types import DType, TensorType, bool_, float32, float64, int64, product

FLOATS: Final = ("float16", "bfloat16", "float32", "float64")
MOST: Final = 256
"""The largest size of heads."""


def totals(dtype: DType) -> DType:
    """What sums over keys are held in."""
    return float64 if dtype is float64 else float32


# ------------------------------------------------------------------------------------------ type rules


def _repeat(attrs: Attrs) -> int:
    return cast("int", attrs["repeat"])


def _scale(attrs: Attrs) -> float:
    return cast("float", attrs["scale"])


def _check(op: str, operands: Sequence[TensorType], mask: Sequence[TensorType], attrs: Attrs) -> None:
    """OpTypeError unless these are queries, keys and values, and a mask of them or none."""
    q, k, v = operands
    if q.dtype.name not in FLOATS:
        raise OpTypeError(op, f"is not defined for {q.dtype}", "dtype")
    for t in (k, v):
        if t.dtype is not q.dtype:
            raise OpTypeError(op, f"operands have dtypes {q.dtype} and {t.dtype}", "dtype")
    if not q.rank == k.rank == v.rank == 4:
        raise OpTypeError(op, f"takes tensors [N, heads, length, size], got {q}, {k} and {v}")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise OpTypeError(op, f"{q}, {k} and {v} are no queries, keys and values")
    if q.shape[1] != product((k.shape[1], _repeat(attrs))):
        raise OpTypeError(op, f"{q} has not {_repeat(attrs)} times the heads of {k}")
    for size in (q.shape[3], v.shape[3]):
        if not isinstance(size, int) or not 1 <= size <= MOST:
            raise OpTypeError(op, f"heads have a size of 1 to {MOST}, not {size}", "value")
    for m in mask:
        if m.dtype is not bool_ and m.dtype is not q.dtype:
            raise OpTypeError(op, f"a mask holds bools or {q.dtype}, not {m.dtype}", "dtype")
        if m.shape != (*q.shape[:3], k.shape[2]):
            raise OpTypeError(op, f"{m} is no mask for {q} and {k}")


def _types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(operands) not in (3, 4):
        raise OpTypeError("attention", f"takes 3 or 4 operands, got {len(operands)}", "value")
    _check("attention", operands[:3], operands[3:], attrs)
    q, _, v = operands[:3]
    return TensorType(q.dtype, (*q.shape[:3], v.shape[3])), TensorType(totals(q.dtype), q.shape[:3])


def _backward_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    op = "attention_backward"
    if len(operands) not in (6, 7):
        raise OpTypeError(op, f"takes 6 or 7 operands, got {len(operands)}", "value")
    _check(op, operands[:3], operands[6:], attrs)
    q, _, v, g, *rows = operands[:6]
    if g != TensorType(q.dtype, (*q.shape[:3], v.shape[3])):
        raise OpTypeError(op, f"{g} is no gradient of the result for {q} and {v}")
    for t in rows:
        if t != TensorType(totals(q.dtype), q.shape[:3]):
            raise OpTypeError(op, f"{t} is not a number for each query of {q}")
    return tuple(operands[:3])


# ------------------------------------------------------------------------------------------ words of the formulas


def _wide(x: Any) -> Any:
    return cast_op(x, dtype=float32) if x.ttype.dtype.is_half else x


def _as(x: Any, like: Any) -> Any:
    """`x` rounded to the dtype of `like`."""
    return x if x.ttype.dtype is like.ttype.dtype else cast_op(x, dtype=like.ttype.dtype)


def _times(x: Any, number: float) -> Any:
    return mul(x, full_like(x, number))


def _repeated(x: Any, times: int) -> Any:
    """Each head so many times."""
    if times == 1:
        return x
    n, g, s, d = x.ttype.shape
    wide = broadcast(x, shape=(n, g, times, s, d), dims=(0, 1, 3, 4))
    return reshape(wide, shape=(n, product((g, times)), s, d))


def _gathered(x: Any, like: Any, times: int) -> Any:
    """The sums over the heads that share one of `like`, in its dtype."""
    if times > 1:
        n, g, s, d = like.ttype.shape
        x = sum_(reshape(x, shape=(n, g, times, s, d)), dims=(2,))
    return _as(x, like)


def _spread(row: Any, like: Any) -> Any:
    """A number of each query, for each key."""
    return broadcast(row, shape=like.ttype.shape, dims=(0, 1, 2))


def _rows(x: Any) -> Any:
    """The sum over the keys of each query."""
    return sum_(x, dims=(3,))


def _scores(q: Any, k: Any, mask: Sequence[Any], attrs: Attrs) -> Any:
    """-inf for a key that a query does not see. Operands are wide, keys repeated."""
    found = matmul(_times(q, _scale(attrs)), transposed(k))
    if attrs["causal"]:
        rows, columns = (
            iota.bind((), {"shape": found.ttype.shape, "dtype": int64, "dim": d}, receiver=found)[0] for d in (2, 3)
        )
        found = where(le(columns, rows), found, full_like(found, -np.inf))
    for m in mask:
        found = where(m, found, full_like(found, -np.inf)) if m.ttype.dtype is bool_ else add(found, _wide(m))
    return found


def _attention_parts(q: Any, k: Any, v: Any, *mask: Any, **attrs: Any) -> tuple[Any, ...]:
    qw, kw, vw = _wide(q), _repeated(_wide(k), attrs["repeat"]), _repeated(_wide(v), attrs["repeat"])
    scores = _scores(qw, kw, mask, attrs)
    if scores.ttype.shape[3] == 0:
        return _as(matmul(scores, vw), q), _rows(scores)
    top = amax(scores, dims=(3,))
    top = where(eq(top, full_like(top, -np.inf)), full_like(top, 0.0), top)
    e = exp(sub(scores, _spread(top, scores)))
    total = _rows(e)
    total = where(eq(total, full_like(total, 0.0)), full_like(total, 1.0), total)
    return _as(matmul(div(e, _spread(total, e)), vw), q), add(top, log(total))


class _Backward:
    """What the gradient and its derivatives are made of: everything wide, keys and values repeated."""

    def __init__(self, operands: Sequence[Any], attrs: Attrs) -> None:
        self.operands, self.attrs = operands, attrs
        q, k, v, g, self.lse, self.delta = operands[:6]
        times = _repeat(attrs)
        self.q, self.g = _wide(q), _wide(g)
        self.k, self.v = _repeated(_wide(k), times), _repeated(_wide(v), times)
        scores = _scores(self.q, self.k, operands[6:], attrs)
        self.p = exp(sub(scores, _spread(self.lse, scores)))

    @functools.cached_property
    def x(self) -> Any:
        return sub(matmul(self.g, transposed(self.v)), _spread(self.delta, self.p))

    @functools.cached_property
    def z(self) -> Any:
        return mul(self.p, self.x)

    def gathered(self, x: Any, k: int) -> Any:
        """A gradient by the k-th operand."""
        return None if x is None else _gathered(x, self.operands[k], _repeat(self.attrs) if k in (1, 2) else 1)

    def scaled(self, x: Any) -> Any:
        return _times(x, _scale(self.attrs))

    def tangents(self, *tangents: Any) -> tuple[Any, Any, Any]:
        """Of the weights, of `x` and of `z`; None where they are zero. Tangents are wide and repeated."""
        tq, tk, tv, tg, tlse, tdelta = tangents
        ts = _sum(
            None if tq is None else self.scaled(matmul(tq, transposed(self.k))),
            None if tk is None else self.scaled(matmul(self.q, transposed(tk))),
            None if tlse is None else neg(_spread(tlse, self.p)),
        )
        tx = _sum(
            None if tg is None else matmul(tg, transposed(self.v)),
            None if tv is None else matmul(self.g, transposed(tv)),
            None if tdelta is None else neg(_spread(tdelta, self.p)),
        )
        tp = None if ts is None else mul(self.p, ts)
        tz = _sum(None if tp is None else mul(tp, self.x), None if tx is None else mul(self.p, tx))
        return tp, tx, tz


def _sum(*terms: Any) -> Any:
    """Of those that are not None; None when all are."""
    found = None
    for term in terms:
        found = term if found is None else found if term is None else add(found, term)
    return found


def _backward_parts(*operands: Any, **attrs: Any) -> tuple[Any, ...]:
    made = _Backward(operands, attrs)
    dq, dk = matmul(made.z, made.k), matmul(transposed(made.z), made.q)
    dv = matmul(transposed(made.p), made.g)
    return made.gathered(made.scaled(dq), 0), made.gathered(made.scaled(dk), 1), made.gathered(dv, 2)


# ------------------------------------------------------------------------------------------ derivatives


def _attention_vjp(call: Call, g: Any, glse: Any) -> Sequence[Any]:
    out, lse = call.results
    delta = full_like(lse, 0.0) if g is None else sum_(mul(_wide(g), _wide(out)), dims=(3,))
    if glse is not None:
        delta = sub(delta, glse)
    g = full_like(out, 0.0) if g is None else g
    made = attention_backward(*call.operands[:3], g, lse, delta, *call.operands[3:], **call.attrs)
    grads = [x if need else None for x, need in zip(made, call.needs, strict=False)]
    return (*grads, *[None] * len(call.operands[3:]))


def _attention_jvp(call: Call, *tangents: Any) -> Sequence[Any]:
    q, k, v, *mask = call.operands
    out, lse = call.results
    nothing = full_like(out, 0.0), full_like(lse, 0.0)
    made = _Backward((q, k, v, nothing[0], lse, nothing[1], *mask), call.attrs)
    tq, tk, tv = _wide_tangents(tangents[:3], call.attrs)
    tp, _, _ = made.tangents(tq, tk, None, None, None, None)
    if tp is None:
        return (None, None) if tv is None else (_as(matmul(made.p, tv), out), None)
    tlse = _rows(tp)
    tp = sub(tp, mul(made.p, _spread(tlse, tp)))
    tout = _sum(matmul(tp, made.v), None if tv is None else matmul(made.p, tv))
    return _as(tout, out), tlse


def _wide_tangents(tangents: Sequence[Any], attrs: Attrs) -> list[Any]:
    """Of q, k, v and perhaps more: wide, those of keys and values repeated."""
    times = (1, _repeat(attrs), _repeat(attrs), 1, 1, 1)
    return [None if t is None else _repeated(_wide(t), n) for t, n in zip(tangents, times, strict=False)]


def _backward_vjp(call: Call, *grads: Any) -> Sequence[Any]:
    made = _Backward(call.operands, call.attrs)
    a, b, c = _wide_tangents(grads, call.attrs)
    zb = _sum(
        None if a is None else made.scaled(matmul(a, transposed(made.k))),
        None if b is None else made.scaled(matmul(made.q, transposed(b))),
    )
    pb = _sum(
        None if c is None else matmul(made.g, transposed(c)),
        None if zb is None else mul(zb, made.x),
    )
    xb = None if zb is None else mul(zb, made.p)
    sb = None if pb is None else mul(pb, made.p)
    gq = _sum(
        None if b is None else made.scaled(matmul(made.z, b)),
        None if sb is None else made.scaled(matmul(sb, made.k)),
    )
    gk = _sum(
        None if a is None else made.scaled(matmul(transposed(made.z), a)),
        None if sb is None else made.scaled(matmul(transposed(sb), made.q)),
    )
    gv = None if xb is None else matmul(transposed(xb), made.g)
    gg = _sum(
        None if c is None else matmul(made.p, c),
        None if xb is None else matmul(xb, made.v),
    )
    return (
        *[made.gathered(x, k) for k, x in enumerate((gq, gk, gv, gg))],
        None if sb is None else neg(_rows(sb)),
        None if xb is None else neg(_rows(xb)),
        *[None] * len(call.operands[6:]),
    )


def _backward_jvp(call: Call, *tangents: Any) -> Sequence[Any]:
    made = _Backward(call.operands, call.attrs)
    wide = _wide_tangents(tangents[:6], call.attrs)
    tp, _, tz = made.tangents(*wide)
    tq, tk, _, tg, _, _ = wide
    dq = _sum(
        None if tz is None else made.scaled(matmul(tz, made.k)),
        None if tk is None else made.scaled(matmul(made.z, tk)),
    )
    dk = _sum(
        None if tz is None else made.scaled(matmul(transposed(tz), made.q)),
        None if tq is None else made.scaled(matmul(transposed(made.z), tq)),
    )
    dv = _sum(
        None if tp is None else matmul(transposed(tp), made.g),
        None if tg is None else matmul(transposed(made.p), tg),
    )
    return [made.gathered(x, k) for k, x in enumerate((dq, dk, dv))]


# ------------------------------------------------------------------------------------------ references


def _ref_scores(q: Any, k: Any, mask: Sequence[Any], scale: float, causal: bool) -> Any:
    found = np.matmul(q * q.dtype.type(scale), np.swapaxes(k, 2, 3))
    rows, columns = np.arange(q.shape[2])[:, None], np.arange(k.shape[2])
    if causal:
        found = np.where(columns <= rows, found, -np.inf)
    for m in mask:
        found = np.where(m, found, -np.inf) if m.dtype == bool else found + m
    return found.astype(q.dtype)


def _attention_ref(
    xp: Any, q: Any, k: Any, v: Any, *mask: Any, scale: float, causal: bool, repeat: int
) -> tuple[Any, Any]:
    k, v = np.repeat(k, repeat, 1), np.repeat(v, repeat, 1)
    scores = _ref_scores(q, k, mask, scale, causal)
    top = np.max(scores, axis=3, initial=-np.inf)
    top = np.where(top == -np.inf, 0, top).astype(q.dtype)
    e = np.exp(scores - top[..., None])
    total = e.sum(3)
    total = np.where(total == 0, 1, total).astype(q.dtype)
    return np.matmul(e / total[..., None], v), top + np.log(total)


def _backward_ref(
    xp: Any, q: Any, k: Any, v: Any, g: Any, lse: Any, delta: Any, *mask: Any, scale: float, causal: bool, repeat: int
) -> tuple[Any, Any, Any]:
    def gathered(x: Any, like: Any) -> Any:
        return x.reshape(*like.shape[:2], repeat, *like.shape[2:]).sum(2) if repeat > 1 else x

    kr, vr, factor = np.repeat(k, repeat, 1), np.repeat(v, repeat, 1), q.dtype.type(scale)
    p = np.exp(_ref_scores(q, kr, mask, scale, causal) - lse[..., None])
    z = p * (np.matmul(g, np.swapaxes(vr, 2, 3)) - delta[..., None])
    dk = gathered(np.matmul(np.swapaxes(z, 2, 3), q), k)
    return np.matmul(z, kr) * factor, dk * factor, gathered(np.matmul(np.swapaxes(p, 2, 3), g), v)


attention: Final[OpDef] = register(
    OpDef(
        "attention",
        "attention(q, k, v[, mask], scale=, causal=, repeat=): (out, lse), see the module.",
        _types,
        quiet(_attention_ref),
        Composed("attention", _attention_parts),
        vjp=_attention_vjp,
        jvp=_attention_jvp,
        saved_operands=(0, 1, 2, 3),
        saved_results=(0, 1),
        underived=(3,),
    )
)

attention_backward: Final[OpDef] = register(
    OpDef(
        "attention_backward",
        "attention_backward(q, k, v, g, lse, delta[, mask], scale=, causal=, repeat=): the gradients of q, k and v, "
        "where `g` is that of out, and `delta` the sum over each row of g * out (less the gradient of lse): with "
        "z = weights * (g @ v' - delta), they are scale * z @ k, scale * z' @ q and weights' @ g.",
        _backward_types,
        quiet(_backward_ref),
        Composed("attention_backward", _backward_parts),
        vjp=_backward_vjp,
        jvp=_backward_jvp,
        saved_operands=(0, 1, 2, 3, 4, 5, 6),
        underived=(6,),
    )
)
