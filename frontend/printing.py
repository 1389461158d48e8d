"""How tensors print: PyTorch's rules (four digits, one format for all elements, long tensors shortened)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kiln.base import MODES
from kiln.ir import types as T

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_THRESHOLD = 1000
_EDGE = 3
_LINE = 80


def tensor_repr(t: Tensor, data: np.ndarray[Any, Any]) -> str:
    """`tensor([[1., 2.]], dtype=kiln.float64, requires_grad=True)`, for elements `data`."""
    suffix = ""
    shown = (T.bool_, T.int64, MODES.default_dtype)  # these one sees
    if t.dtype not in shown or (t.numel() == 0 and t.dtype is not MODES.default_dtype):
        suffix += f", dtype={t.dtype!r}"
    if t.numel() == 0 and t.ndim != 1:
        suffix = f", size={t.shape}" + suffix
    node = t.grad_fn
    if node is not None:
        suffix += f", grad_fn=<{node.name}>"
    elif t.requires_grad:
        suffix += ", requires_grad=True"
    if t.numel() == 0:
        return f"tensor([]{suffix})"
    text = np.array2string(
        data,
        separator=", ",
        prefix="tensor(",
        suffix=suffix + ")",
        max_line_width=_LINE,
        threshold=_THRESHOLD,
        edgeitems=_EDGE,
        formatter={"all": _Format(_shown(data))},
    )
    return f"tensor({text}{suffix})"


def _shown(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements that will be printed: the edges of a large tensor."""
    if data.size > _THRESHOLD:
        for axis, n in enumerate(data.shape):
            if n > 2 * _EDGE:
                data = np.take(data, [*range(_EDGE), *range(n - _EDGE, n)], axis)
    return data


class _Format:
    """One number format for all elements, as wide as the widest."""

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        self._spec = "" if data.dtype.kind != "f" else self._float_spec(data)
        finite = data if data.dtype.kind != "f" else data[np.isfinite(data)]
        self._width = max((len(self._plain(x)) for x in finite.flat), default=0)

    @staticmethod
    def _float_spec(data: np.ndarray[Any, Any]) -> str:
        finite = np.abs(data[np.isfinite(data) & (data != 0)].astype(np.float64))
        if not finite.size:
            return ".0f"
        low, high = float(finite.min()), float(finite.max())
        wide = high / low > 1000.0 or high > 1e8
        if bool(np.all(finite == np.ceil(finite))):
            return ".4e" if wide else ".0f"
        return ".4e" if wide or low < 1e-4 else ".4f"

    def _plain(self, x: Any) -> str:
        text = format(x.item(), self._spec) if self._spec else str(x)
        return f"{text}." if self._spec == ".0f" and np.isfinite(x) else text

    def __call__(self, x: Any) -> str:
        return self._plain(x).rjust(self._width)
