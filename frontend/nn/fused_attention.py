"""Attention by the kernels that GPUs have for it (the op `attention`)."""

from __future__ import annotations

from kiln import functional as F
from kiln import there
from kiln.ir import types as T
from kiln.ir.ops.attention import FLOATS, MOST
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU
from kiln.layers import is_layered
from kiln.promotion import apply, broadcast_to
from kiln.tensor import Tensor

__all__ = ["fused"]


def fused(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float, grouped: bool
) -> Tensor | None:
    """Attention as one op; None where that is not possible: then it is a composition, which also finds what is wrong.

    Queries, keys and values of one dtype on one GPU (16-bit floats from compute capability 8.0 on), heads of at most
    256, a mask of bools or of that dtype that wants no gradient; no transform (`vmap`, `jvp`) goes on."""
    tensors = [q, k, v] if mask is None else [q, k, v, mask]
    device, dtype = q._layout.device, q._layout.dtype
    if device is CPU or dtype.name not in FLOATS:
        return None
    if any(x._layout.device is not device or is_layered(x) for x in tensors):
        return None
    if k._layout.dtype is not dtype or v._layout.dtype is not dtype:
        return None
    if mask is not None and (mask._layout.dtype not in (T.bool_, dtype) or mask.requires_grad or is_causal):
        return None
    if dtype.is_half and not there.has_tensor_cores(device):
        return None
    shapes = [x._layout.shape for x in (q, k, v)]
    if not all(1 <= s[-1] <= MOST for s in shapes):
        return None
    repeat = shapes[0][-3] // max(1, shapes[1][-3]) if grouped else 1
    if grouped and shapes[1][-3] != shapes[2][-3]:
        return None
    apart = 3 if grouped else 2  # the heads are not broadcast
    lead = _common([s[:-apart] for s in shapes])
    if lead is None:
        return None
    heads = [(*lead, *s[-3:-2]) if grouped else lead for s in shapes]
    q, k, v = (_as_heads(x, h) for x, h in zip((q, k, v), heads, strict=True))
    attrs = {"scale": float(scale), "causal": bool(is_causal), "repeat": repeat}
    rows, columns, size = q._layout.shape[2], k._layout.shape[2], v._layout.shape[3]
    if mask is None:
        out = apply(OPS["attention"], q, k, v, **attrs)
    else:
        shown = (*heads[0], rows, columns)
        if _common([mask._layout.shape, shown]) != shown:
            return None
        out = apply(OPS["attention"], q, k, v, _as_heads(mask, heads[0], rows), **attrs)
    return F.reshape(out, (*heads[0], rows, size))


def _common(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that these are broadcast to; None when there is none."""
    rank = max(map(len, shapes))
    found = [1] * rank
    for shape in shapes:
        for d, size in enumerate(shape, rank - len(shape)):
            if found[d] == 1:
                found[d] = size
            elif size not in (1, found[d]):
                return None
    return tuple(found)


def _as_heads(x: Tensor, lead: tuple[int, ...], rows: int = -1) -> Tensor:
    """[..., rows, size] for these dimensions in front, as [batch, head, rows, size]."""
    inner = x._layout.shape[-2:] if rows < 0 else (rows, x._layout.shape[-1])
    x = broadcast_to(x, (*lead, *inner))
    if len(lead) == 2:
        return x
    if len(lead) < 2:
        return F.unsqueeze(x, 1) if lead else F.unsqueeze(F.unsqueeze(x, 0), 0)
    batch = 1
    for size in lead[:-1]:
        batch *= size
    return F.reshape(x, (batch, lead[-1], *inner))
