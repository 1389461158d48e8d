"""Sequences of different lengths: padded to one length, or packed so that nothing is computed for the padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kiln import functional as F
from kiln.creation import full, tensor
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.gathering import index_select
from kiln.ir import types as T
from kiln.tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


class PackedSequence(_Packed):
    """Sequences step by step: `data` holds the first step of all sequences, longest first, then the second of those
    that have one, and so on; `batch_sizes` (int64) says how many each step has. `sorted_indices` is the order of the
    sequences, `unsorted_indices` the way back; None when they were sorted already.

    Made by `pack_padded_sequence` and `pack_sequence`, taken by RNN, LSTM and GRU.
    """

    _sizes: list[int] | None = None

    def sizes(self) -> list[int]:
        """`batch_sizes` as Python numbers. A capture knows them only of sequences that were packed in it, from lengths
        that are Python numbers."""
        return list(self.batch_sizes.tolist()) if self._sizes is None else self._sizes

    def with_data(self, data: Tensor) -> PackedSequence:
        """The same steps with other data."""
        return _packed(data, self.batch_sizes, self._sizes, self.sorted_indices, self.unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With `data` converted by `Tensor.to`."""
        return self.with_data(self.data.to(*args, **kwargs))

    def cpu(self) -> PackedSequence:
        """Itself: data is on the CPU."""
        return self

    def float(self) -> PackedSequence:
        """With float32 data."""
        return self.with_data(self.data.float())

    def double(self) -> PackedSequence:
        """With float64 data."""
        return self.with_data(self.data.double())


def _packed(
    data: Tensor, batch_sizes: Tensor, sizes: list[int] | None, order: Tensor | None, back: Tensor | None
) -> PackedSequence:
    made = PackedSequence(data, batch_sizes, order, back)
    made._sizes = sizes
    return made


def _inverted(order: Sequence[int]) -> list[int]:
    back = [0] * len(order)
    for place, k in enumerate(order):
        back[k] = place
    return back


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes this one."""
    return (
        None
        if permutation is None
        else tensor(_inverted(permutation.tolist()), dtype=T.int64, device=permutation.device)
    )


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack [time, batch, ...] ([batch, time, ...] with `batch_first`), of which sequence k has lengths[k] steps.

    InvalidValueError unless the lengths are positive and, with `enforce_sorted`, never grow.
    """
    name = "pack_padded_sequence"
    each = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    x = F.transpose(input, 0, 1) if batch_first else input
    if x.ndim < 2 or len(each) != x.shape[1]:
        raise ShapeError(f"{len(each)} lengths do not fit the batch", op=name, operands=[input.ttype])
    if not each or min(each) <= 0 or max(each) > x.shape[0]:
        raise InvalidValueError(f"lengths must be between 1 and {x.shape[0]}, got {each}", op=name)
    order = sorted(range(len(each)), key=lambda k: -each[k])
    permuted = None if enforce_sorted else tensor(order, dtype=T.int64, device=input.device)
    if enforce_sorted and order != list(range(len(each))):
        raise InvalidValueError("lengths must never grow", op=name, fix="sort them, or pass enforce_sorted=False")
    if permuted is not None:
        x = index_select(x, 1, permuted)
    sizes = [sum(n > t for n in each) for t in range(max(each))]
    data = F.cat([x[t, :n] for t, n in enumerate(sizes)], 0)
    back = None if permuted is None else tensor(_inverted(order), dtype=T.int64, device=input.device)
    return _packed(data, tensor(sizes, dtype=T.int64, device="cpu"), sizes, permuted, back)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """(the sequences [time, batch, ...] in their first order, filled up with `padding_value` to the longest one or to
    `total_length`; their lengths)."""
    sizes = sequence.sizes()
    length = len(sizes) if total_length is None else total_length
    if length < len(sizes):
        raise InvalidValueError(f"total_length {length} is below the longest, {len(sizes)}", op="pad_packed_sequence")
    data, rest = sequence.data, sequence.data.shape[1:]
    steps, start = [], 0
    for t in range(length):
        n = sizes[t] if t < len(sizes) else 0
        rows = [data[start : start + n]] if n else []
        if n < sizes[0]:
            rows.append(full((sizes[0] - n, *rest), float(padding_value), dtype=data.dtype, device=data.device))
        steps.append(F.cat(rows, 0))
        start += n
    padded = F.stack(steps, 0)
    lengths = tensor([sum(n > k for n in sizes) for k in range(sizes[0])], dtype=T.int64, device="cpu")
    if sequence.unsorted_indices is not None:
        padded = index_select(padded, 1, sequence.unsorted_indices)
        lengths = index_select(lengths, 0, sequence.unsorted_indices.cpu())
    return F.transpose(padded, 0, 1) if batch_first else padded, lengths


def pad_sequence(
    sequences: Sequence[Tensor] | Tensor,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences [time, ...] as one tensor [time, batch, ...], filled up behind (or with padding_side "left" before)."""
    items = list(sequences)
    if not items or not all(isinstance(x, Tensor) for x in items):
        raise ArgumentError("takes at least one tensor", op="pad_sequence")
    if padding_side not in ("left", "right"):
        raise InvalidValueError(f'padding_side must be "left" or "right", got {padding_side!r}', op="pad_sequence")
    longest = max(x.shape[0] for x in items)
    padded = []
    for x in items:
        if x.shape[1:] != items[0].shape[1:]:
            raise ShapeError("only lengths may differ", op="pad_sequence", operands=[items[0].ttype, x.ttype])
        fill = full(
            (longest - x.shape[0], *x.shape[1:]), float(padding_value), dtype=items[0].dtype, device=items[0].device
        )
        padded.append(F.cat([fill, x] if padding_side == "left" else [x, fill], 0))
    return F.stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded tensor, as views."""
    x = padded_sequences if batch_first else F.transpose(padded_sequences, 0, 1)
    each = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    return [x[k, :n] for k, n in enumerate(each)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """`pack_padded_sequence` of a list of sequences [time, ...]."""
    lengths = [x.shape[0] for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The list of sequences that `pack_sequence` took."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
