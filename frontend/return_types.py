"""`kiln.return_types`: the named tuples of functions with several results, shown as PyTorch shows its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kiln.tensor import Tensor


class Pair(NamedTuple):
    """Elements, and where they lay."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """The smallest and the largest element."""

    min: Tensor
    max: Tensor


class Histogram(NamedTuple):
    """Counts, and the edges between them."""

    hist: Tensor
    bin_edges: Tensor


class HistogramDD(NamedTuple):
    """Counts, and the edges of each dimension."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


class Frexp(NamedTuple):
    """Mantissas in [0.5, 1), and exponents of 2."""

    mantissa: Tensor
    exponent: Tensor


def _shown(self: Any) -> str:
    fields = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"kiln.return_types.{type(self).__name__}(\n{fields})"


def _result(name: str, base: Any) -> Any:
    """The class of one function's result."""
    doc = f"What `kiln.{name}` returns."
    return type(name, (base,), {"__slots__": (), "__repr__": _shown, "__module__": __name__, "__doc__": doc})


sort, topk, kthvalue, median, nanmedian, mode = (
    _result(name, Pair) for name in ("sort", "topk", "kthvalue", "median", "nanmedian", "mode")
)
max, min, cummax, cummin = (_result(name, Pair) for name in ("max", "min", "cummax", "cummin"))
aminmax = _result("aminmax", MinMax)
histogram = _result("histogram", Histogram)
histogramdd = _result("histogramdd", HistogramDD)
frexp = _result("frexp", Frexp)
