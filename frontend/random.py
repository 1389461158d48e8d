"""Random numbers: Philox4x32-10, indexed by logical element, with explicit state.

A generator's state is an ordinary int64 tensor [seed, offset]. A random op reads it, and the generator then
advances the offset by the number of elements in place, so that a capture sees both as what they are.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import numpy as np

from kiln.base import MODES, TensorBase
from kiln.creation import _dtype, _shape, from_numpy
from kiln.errors import DTypeError, InvalidValueError
from kiln.ir.graph import Constant
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.tensor import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)


class Generator:
    """A stream of random numbers: `state` is the int64 tensor [seed, offset]."""

    __slots__ = ("state",)

    def __init__(self, seed: int = 0) -> None:
        self.state = from_numpy(np.array([_signed(seed), 0], np.int64))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`, in place."""
        self.state.copy_(_int64_pair(self.state, _signed(seed), 0))
        return self

    def get_state(self) -> Tensor:
        """A copy of the state."""
        return self.state.clone()

    def set_state(self, state: Tensor) -> None:
        """Take over a state that `get_state` gave, in place."""
        self.state.copy_(state)

    def draw(self, distribution: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """`shape` numbers by the op `distribution` ("uniform" or "normal"), and advance."""
        (drawn,) = OPS[distribution].bind((self.state,), {"shape": shape, "dtype": dtype})
        self.state.add_(_int64_pair(self.state, 0, math.prod(shape)))
        return cast("Tensor", drawn)


def _signed(seed: int) -> int:
    """The seed's 64 bits as an int64."""
    if not -(2**63) <= seed < 2**64:
        raise InvalidValueError(f"a seed has 64 bits, got {seed}")
    return seed - 2**64 if seed >= 2**63 else seed


def _int64_pair(receiver: TensorBase, a: int, b: int) -> Tensor:
    pair = np.array([a, b], np.int64)
    if MODES.recorder is None:
        return from_numpy(pair)
    return cast("Tensor", OPS["constant"].bind((), {"data": Constant(pair)}, receiver=receiver)[0])


default_generator = Generator(0)
"""The generator behind every function that is not given one."""


def manual_seed(seed: int) -> Generator:
    """Seed the default generator; returns it."""
    return default_generator.manual_seed(seed)


def _random(name: str, distribution: str, size: Any, dtype: Any, generator: Generator | None, grad: bool) -> Tensor:
    kind = _dtype(name, dtype, MODES.default_dtype)
    if kind.kind != "float":
        raise DTypeError(f"is not defined for {kind}", op=name)
    drawn = (generator or default_generator).draw(distribution, _shape(name, size), kind)
    return drawn.requires_grad_() if grad else drawn


def rand(
    *size: Any, dtype: DType | None = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Uniform numbers in [0, 1), float32 by default."""
    return _random("rand", "uniform", size, dtype, generator, requires_grad)


def randn(
    *size: Any, dtype: DType | None = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal numbers, float32 by default."""
    return _random("randn", "normal", size, dtype, generator, requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None) -> Tensor:
    """`rand` in the shape and dtype of `input`."""
    return rand(input.shape, dtype=dtype or input.dtype)


def randn_like(input: Tensor, *, dtype: DType | None = None) -> Tensor:
    """`randn` in the shape and dtype of `input`."""
    return randn(input.shape, dtype=dtype or input.dtype)


def uniform_(tensor: AnyTensor, low: float = 0.0, high: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """tensor[...] = low + (high - low) * rand, in place."""
    drawn = rand(tensor.shape, dtype=tensor.dtype, generator=generator)
    return tensor.copy_(drawn * float(high - low) + float(low))


def normal_(tensor: AnyTensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """tensor[...] = mean + std * randn, in place."""
    drawn = randn(tensor.shape, dtype=tensor.dtype, generator=generator)
    return tensor.copy_(drawn * float(std) + float(mean))
