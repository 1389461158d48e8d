"""Element types, dimensions and tensor types: the vocabulary of every graph.

A `TensorType` says what a tensor *is* (element type, logical shape, device slot), never how it lies in
memory: physical layout is codegen's business and stands in a table beside the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. One object per type exists, so comparison is by identity.

    An open record: quantised and narrow float formats add fields with defaults, not subclasses.
    """

    name: str
    kind: str  # "bool", "int", "uint" or "float"
    bits: int  # of the value; a bool is stored in one byte
    code: int  # stable number for the native ABI and files
    numpy: np.dtype[np.generic] = field(repr=False)

    @property
    def itemsize(self) -> int:
        """Bytes per stored element."""
        return max(1, self.bits // 8)

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "float"

    def __repr__(self) -> str:
        return f"kiln.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (dtype_named, (self.name,))


def _make(name: str, kind: str, bits: int, code: int) -> DType:
    return DType(name, kind, bits, code, np.dtype("bool" if kind == "bool" else name))


bool_: Final = _make("bool", "bool", 1, 0)
int32: Final = _make("int32", "int", 32, 3)
int64: Final = _make("int64", "int", 64, 4)
uint32: Final = _make("uint32", "uint", 32, 13)
uint64: Final = _make("uint64", "uint", 64, 14)
float32: Final = _make("float32", "float", 32, 6)
float64: Final = _make("float64", "float", 64, 7)

DTYPES: Final = {d.name: d for d in (bool_, int32, int64, uint32, uint64, float32, float64)}
"""Every element type, by name. int32 and the unsigned types occur inside kernels (bit patterns, Philox);
the frontend's tensors use `TENSOR_DTYPES`."""

TENSOR_DTYPES: Final = (bool_, int64, float32, float64)


def dtype_named(name: str) -> DType:
    """The element type called `name`; KeyError naming the known ones otherwise."""
    try:
        return DTYPES[name]
    except KeyError:
        raise KeyError(f"no dtype named {name!r}; known: {', '.join(DTYPES)}") from None


def dtype_of_numpy(dtype: np.dtype[np.generic]) -> DType | None:
    """The element type stored like NumPy's `dtype` (native byte order), or None."""
    found = DTYPES.get(dtype.name)
    return found if found is not None and found.numpy == dtype else None


@dataclass(frozen=True, slots=True)
class Sym:
    """A dimension known only at run time. Equal names are equal sizes."""

    name: str

    def __str__(self) -> str:
        return self.name


Dim = int | Sym
Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A device slot, bound to a real device when a program is loaded."""

    kind: str = "cpu"
    slot: int = 0

    def __str__(self) -> str:
        return self.kind if self.slot == 0 else f"{self.kind}:{self.slot}"


CPU: Final = Device()


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype, logical shape and device slot of a value. Hashable, compared by content."""

    dtype: DType
    shape: Shape
    device: Device = CPU

    @property
    def rank(self) -> int:
        return len(self.shape)

    def static_shape(self) -> tuple[int, ...]:
        """The shape as plain ints; ValueError when a dimension is symbolic."""
        if any(isinstance(d, Sym) for d in self.shape):
            raise ValueError(f"{self} has symbolic dimensions")
        return tuple(d for d in self.shape if isinstance(d, int))

    def numel(self) -> int:
        n = 1
        for d in self.static_shape():
            n *= d
        return n

    def __str__(self) -> str:
        """`float32[64, s0]`, with `@cuda` behind it off the CPU: what the printer writes and the parser reads."""
        where = "" if self.device == CPU else f"@{self.device}"
        return f"{self.dtype.name}[{', '.join(str(d) for d in self.shape)}]{where}"


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements: (2, 3, 4) -> (12, 4, 1). Zero-size dimensions count as one."""
    strides = [0] * len(shape)
    step = 1
    for i in range(len(shape) - 1, -1, -1):
        strides[i] = step
        step *= max(1, shape[i])
    return tuple(strides)
