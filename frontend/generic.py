"""What one kernel serves: calls of an op with types and strides of symbolic sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from kiln.base import is_contiguous
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OpDef, Scatter
from kiln.ir.ops.gather import dimension_names as gather_names
from kiln.ir.types import Dim, DType, Sym, TensorType

Strides: TypeAlias = "tuple[Dim, ...] | None"

_CONVOLUTIONS: Final = frozenset({"conv2d", "conv2d_input", "conv2d_weight", "conv2d_direct", "conv2d_input_direct"})
_ATTENTION: Final = frozenset({"attention", "attention_backward"})


def collapse(
    shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Fewest dimensions that visit the same elements in the same order: size-one dimensions go, neighbours
    merge where every operand steps through them evenly. At least one dimension remains.

    >>> collapse((2, 3, 4), [(12, 4, 1), (0, 4, 1)])
    ((2, 12), [(12, 1), (0, 1)])
    """
    sizes: list[int] = []
    steps: list[list[int]] = []  # per kept dimension the stride of each operand; outermost first
    for d, size in enumerate(shape):
        step = [s[d] for s in strides]
        if size == 1:
            continue
        if sizes and all(outer == inner * size for outer, inner in zip(steps[-1], step, strict=True)):
            sizes[-1] *= size
            steps[-1] = step
        else:
            sizes.append(size)
            steps.append(step)
    if not sizes:
        sizes, steps = [1], [[1] * len(strides)]
    return tuple(sizes), [tuple(step[k] for step in steps) for k in range(len(strides))]


class Symbols:
    """Symbolic types and strides for operands of given sizes: what one kernel serves.

    A stride stays a number where code depends on it (0: broadcast, 1 in the last dimension, or in that of channels
    for tensor cores: contiguous runs); every other one, and every dimension, becomes a `Sym` with its value in `sizes`.
    """

    def __init__(
        self, op: OpDef, operands: Sequence[tuple[DType, tuple[int, ...], tuple[int, ...]]], attrs: Attrs
    ) -> None:
        self.sizes: dict[str, int] = {}
        self.types: list[TensorType] = []
        self.strides: list[Strides] = []
        names = _dimension_names(op, [len(shape) for _, shape, _ in operands], attrs)
        for k, (dtype, shape, strides) in enumerate(operands):
            self.types.append(TensorType(dtype, tuple(map(self._dim, names[k], shape))))
            self.strides.append(self._strides(k, shape, strides, "tensor_cores" in attrs))

    def _dim(self, name: str, size: int) -> Dim:
        if not name:
            return size
        known = self.sizes.setdefault(name, size)
        assert known == size, f"dimension {name} is both {known} and {size}"
        return Sym(name)

    def _strides(self, k: int, shape: tuple[int, ...], strides: tuple[int, ...], neighbours: bool) -> Strides:
        if is_contiguous(shape, strides):
            return None
        symbolic: list[Dim] = []
        for d, step in enumerate(strides):
            if step == 0 or (step == 1 and (neighbours or d == len(strides) - 1)):
                symbolic.append(step)
            else:
                name = f"s{k}_{d}"
                self.sizes[name] = step
                symbolic.append(Sym(name))
        return tuple(symbolic)

    def key(self) -> tuple[object, ...]:
        return (*self.types, *self.strides)


def _dimension_names(op: OpDef, ranks: Sequence[int], attrs: Attrs) -> list[list[str]]:
    """Names of the operands' dimensions, "" for fixed ones; the op's type rule decides which must be equal."""
    if "random" in op.traits:
        return [[""] * rank for rank in ranks]
    if op.name in ("matmul", "addmm"):
        batch = [f"n{d}" for d in range(ranks[0] - 2)]
        return [[*batch, "m", "k"], [*batch, "k", "n"], [*batch, "n"]][: len(ranks)]
    if op.name in _ATTENTION:  # how many heads there are, and of which size, is known to the kernel
        q, k, row = ["n", "", "l", ""], ["n", "", "s", ""], ["n", "", "l"]
        return [q, k, k, ["n", "", "l", "s"]] if op.name == "attention" else [q, k, k, q, row, row, ["n", "", "l", "s"]]
    if op.name == "searchsorted":
        lead = [f"n{d}" for d in range(ranks[0] - 1)]
        return [[*lead, "n"], [*lead, "m"]]
    if isinstance(op.lower, Scatter) and "steps" in attrs:
        return [[f"n{d}" for d in range(ranks[0])], [f"m{d}" for d in range(ranks[1])]]
    if op.name in _CONVOLUTIONS:  # channels and taps are known to the kernel
        image, weight, result = ["n", "", "h", "w"], [""] * 4, ["n", "", "oh", "ow"]
        roles = {"conv2d": [image, weight], "conv2d_input": [result, weight], "conv2d_weight": [image, result]}
        return roles[op.name.removesuffix("_direct")]
    if op.name == "depthwise_weight":
        return [["n", "h", "w", "c"], ["n", "oh", "ow", "c"]]
    if "place" in attrs:
        return gather_names(isinstance(op.lower, Scatter), ranks, attrs)
    return [[f"n{d}" for d in range(rank)] for rank in ranks]
