"""Element types, dimensions and tensor types: the vocabulary of every graph.

A `TensorType` says what a tensor *is* (element type, logical shape, device slot), never how it lies in
memory: physical layout is codegen's business and stands in a table beside the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. One object per type exists, so comparison is by identity.

    An open record: quantised and narrow float formats add fields with defaults, not subclasses.
    """

    name: str
    kind: str  # "bool", "int", "uint", "float" or "complex"
    bits: int  # of the value; a bool is stored in one byte, a complex number is its two parts
    code: int  # stable number for the native ABI and files

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """NumPy's name for it (bfloat16: that of ml_dtypes, which is imported on first use)."""
        return _NUMPY.get(self) or _numpy_of(self)

    @property
    def itemsize(self) -> int:
        """Bytes per stored element."""
        return max(1, self.bits // 8)

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        """Whether an element is a pair of floats, the real and the imaginary part, one behind the other in memory."""
        return self.kind == "complex"

    @property
    def is_inexact(self) -> bool:
        """Floating point or complex: what has derivatives."""
        return self.kind in ("float", "complex")

    @property
    def part(self) -> DType:
        """The type of the real part of a complex type, and of the imaginary one; any other type is its own."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    @property
    def paired(self) -> DType:
        """The complex type with parts of this floating-point type (of at least 32 bits; no narrower ones exist)."""
        return self if self.is_complex else complex128 if self is float64 else complex64

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned; bool is neither."""
        return self.kind in ("int", "uint")

    @property
    def is_signed(self) -> bool:
        """Whether it has negative numbers."""
        return self.kind in ("int", "float", "complex")

    @property
    def is_half(self) -> bool:
        """A floating-point type of 16 bits: held and moved as bits, computed with in float32 (docs/numerics.md)."""
        return self.kind == "float" and self.bits == 16

    @property
    def least(self) -> int:
        """The smallest number of an integer type."""
        return -(1 << (self.bits - 1)) if self.kind == "int" else 0

    @property
    def most(self) -> int:
        """The largest number of an integer type."""
        return self.least + (1 << self.bits) - 1

    def wrapped(self, value: int) -> int:
        """`value` modulo the range of an integer type."""
        return (value - self.least) % (1 << self.bits) + self.least

    def __repr__(self) -> str:
        return f"kiln.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (dtype_named, (self.name,))


_NUMPY: Final[dict[DType, np.dtype[np.generic]]] = {}


def _numpy_of(dtype: DType) -> np.dtype[np.generic]:
    found: np.dtype[np.generic]
    if dtype.name == "bfloat16":
        import ml_dtypes  # only those who use bfloat16 pay for it

        found = np.dtype(ml_dtypes.bfloat16)
    else:
        found = np.dtype(dtype.name)
    return _NUMPY.setdefault(dtype, found)


bool_: Final = DType("bool", "bool", 1, 0)
int8: Final = DType("int8", "int", 8, 1)
int16: Final = DType("int16", "int", 16, 2)
int32: Final = DType("int32", "int", 32, 3)
int64: Final = DType("int64", "int", 64, 4)
uint8: Final = DType("uint8", "uint", 8, 11)
uint16: Final = DType("uint16", "uint", 16, 12)
uint32: Final = DType("uint32", "uint", 32, 13)
uint64: Final = DType("uint64", "uint", 64, 14)
float16: Final = DType("float16", "float", 16, 5)
bfloat16: Final = DType("bfloat16", "float", 16, 15)
float32: Final = DType("float32", "float", 32, 6)
float64: Final = DType("float64", "float", 64, 7)
complex64: Final = DType("complex64", "complex", 64, 9)
complex128: Final = DType("complex128", "complex", 128, 10)

_INTEGERS: Final = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)

DTYPES: Final = {d.name: d for d in (bool_, *_INTEGERS, float16, bfloat16, float32, float64, complex64, complex128)}
"""Every element type, by name. The wider unsigned types occur inside kernels only (bit patterns, Philox); the
frontend's tensors use `TENSOR_DTYPES`."""

REAL_DTYPES: Final = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64)
"""The element types of tensors that have an order: bool first, then integers, then floats."""

COMPLEX_DTYPES: Final = (complex64, complex128)
"""Pairs of floats: added, multiplied and moved, but not ordered."""

TENSOR_DTYPES: Final = (*REAL_DTYPES, *COMPLEX_DTYPES)
"""The element types of tensors."""


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
    """A size known only at run time: a name, or a product of names and a number ("8*m*n", in the order of `product`).
    Equal names are equal sizes. `hint`: a size that it was seen with, for choices that change no result."""

    name: str
    hint: int = field(default=1, compare=False)

    def factors(self) -> tuple[int, tuple[str, ...]]:
        """The number and the names that it is the product of."""
        if "*" not in self.name:
            return 1, (self.name,)
        number, names = 1, []
        for part in self.name.split("*"):
            if part.isdigit():
                number *= int(part)
            else:
                names.append(part)
        return number, tuple(names)

    def __mul__(self, other: Dim) -> Dim:
        return product((self, other))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.name


Dim = int | Sym
Shape = tuple[Dim, ...]


def product(dims: Iterable[Dim]) -> Dim:
    """The product of sizes, in the one form that equal products have: the number first, then the names in order.

    >>> str(product((Sym("n"), 4, Sym("m"), 2)))
    '8*m*n'
    """
    number, hint = 1, 1
    names: list[str] = []
    for d in dims:
        if isinstance(d, int):
            number, hint = number * d, hint * d
        else:
            known, more = d.factors()
            number, hint = number * known, hint * d.hint
            names += more
    if not names or number == 0:
        return number
    text = "*".join(sorted(names))
    return Sym(text if number == 1 else f"{number}*{text}", hint)


def size_of(d: Dim, sizes: Mapping[str, int]) -> int:
    """What a size is where its names have these `sizes`."""
    if isinstance(d, int):
        return d
    number, names = d.factors()
    for name in names:
        number *= sizes[name]
    return number


@dataclass(frozen=True, slots=True)
class Device:
    """Where a tensor lies: `kind` "cpu" or "cuda", and which one of these. Compared by content."""

    kind: str = "cpu"
    slot: int = 0

    @property
    def type(self) -> str:
        """ "cpu" or "cuda"."""
        return self.kind

    @property
    def index(self) -> int | None:
        """Which one; None for the CPU."""
        return None if self.kind == "cpu" else self.slot

    def __repr__(self) -> str:
        return f"device(type={self.kind!r})" if self.kind == "cpu" else f"device(type={self.kind!r}, index={self.slot})"

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.slot}"


CPU: Final = Device()
_DEVICES: Final[dict[tuple[str, int], Device]] = {("cpu", 0): CPU}


def device_at(kind: str, slot: int = 0) -> Device:
    """The one `Device` object of a place: layouts are told apart by it."""
    return _DEVICES.setdefault((kind, slot), Device(kind, slot))


def device_named(name: str) -> Device:
    """The device that prints as `name`: "cpu", "cuda:0"."""
    kind, _, slot = name.partition(":")
    return device_at(kind, int(slot or 0))


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype, logical shape and device of a value. Hashable, compared by content. The values of graphs have no place of
    their own, which is to say the CPU: where a graph is run decides."""

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

    def likely_numel(self) -> int:
        """The number of elements, with the hints of symbolic dimensions."""
        return math.prod(d if isinstance(d, int) else d.hint for d in self.shape)

    def on(self, device: Device) -> TensorType:
        """The type on another device."""
        return self if device is self.device else TensorType(self.dtype, self.shape, device)

    def at(self, sizes: Mapping[str, int]) -> TensorType:
        """The type where the names of sizes have these."""
        return TensorType(self.dtype, tuple(size_of(d, sizes) for d in self.shape), self.device)

    def __str__(self) -> str:
        """`float32[64, s0]`, with `@cuda:0` behind it off the CPU: what the printer writes and the parser reads."""
        where = "" if self.device == CPU else f"@{self.device}"
        return f"{self.dtype.name}[{', '.join(str(d) for d in self.shape)}]{where}"


def row_major(shape: Shape) -> tuple[Dim, ...]:
    """As `contiguous_strides`, also of a symbolic shape: [m, 4, n] -> (4*n, n, 1)."""
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.append(step)
        step = product((step, d if d != 0 else 1))
    return tuple(reversed(strides))


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements: (2, 3, 4) -> (12, 4, 1). Zero-size dimensions count as one."""
    strides = [0] * len(shape)
    step = 1
    for i in range(len(shape) - 1, -1, -1):
        strides[i] = step
        step *= max(1, shape[i])
    return tuple(strides)
