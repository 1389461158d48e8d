"""Random numbers: Philox4x32-10, indexed by logical element, with explicit state.

A generator's state is an ordinary int64 tensor [seed, offset]. A random op reads it, and the generator then
advances the offset by the number of elements in place, so that a capture sees both as what they are. All distributions
are made of uniform and normal numbers by ops, so a compiled function draws what the eager one would.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, cast

import numpy as np

from kiln import batched, dispatch, there
from kiln import functional as F
from kiln import pointwise as P
from kiln.base import MODES, TensorBase
from kiln.checks import holds
from kiln.creation import _dtype, _shape, from_numpy, tensor
from kiln.device import placed
from kiln.errors import ArgumentError, DeviceError, DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.graph import Constant
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU, Device, DType
from kiln.layers import plain
from kiln.maths import lgamma
from kiln.promotion import broadcast_shapes, cast_to, full_like_number, tensor_arg
from kiln.sorting import argsort, topk
from kiln.spelling import maker_names
from kiln.tensor import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)


class Generator:
    """A stream of random numbers for one device: `state` is the int64 tensor [seed, offset], which is there.

    `Generator()`, `Generator("cuda")`, or `Generator(5)` for one that starts from the seed 5. From one seed all devices
    draw the same numbers.
    """

    __slots__ = ("state",)

    def __init__(self, device: Any = "cpu") -> None:
        seed = device if isinstance(device, int) and not isinstance(device, bool) else 0
        place = CPU if seed is device else placed("Generator", device)
        self.state = tensor([_signed(seed), 0], dtype=T.int64, device=place)

    @property
    def device(self) -> Device:
        """Where it draws."""
        place: Device = self.state.device
        return place

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`, in place."""
        self.state.copy_(_int64_pair(self.state, _signed(seed), 0))
        return self

    def seed(self) -> int:
        """Start again from a seed that the system draws; returns it."""
        if MODES.recorder is not None:
            MODES.recorder.forbid(self.state, "seed()")
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed that the stream started from."""
        return int(self.state._read("initial_seed()")[0]) % 2**64

    def get_state(self) -> Tensor:
        """A copy of the state, on the CPU."""
        return self.state.to("cpu", copy=True)

    def set_state(self, state: Tensor) -> None:
        """Take over a state that `get_state` gave, in place."""
        if not isinstance(state, TensorBase) or state._layout.gtype != self.state._layout.gtype:
            got = state.ttype if isinstance(state, TensorBase) else type(state).__name__
            raise InvalidValueError(
                f"a state is an int64[2], not {got}", op="set_state", fix="take it from get_state()"
            )
        self.state.copy_(state)

    def draw(self, distribution: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """`shape` numbers by the op `distribution` ("uniform" or "normal"), and advance."""
        count = math.prod(shape)
        if MODES.layers:
            drawn, count = batched.draw(OPS[distribution], self.state, shape, dtype)
        else:
            (drawn,) = OPS[distribution].bind((self.state,), {"shape": shape, "dtype": dtype})
        self.state.add_(_int64_pair(self.state, 0, count))
        return drawn


def _signed(seed: int) -> int:
    """The seed's 64 bits as an int64."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentError(f"a seed is an int, not a {type(seed).__name__}", op="manual_seed")
    if not -(2**63) <= seed < 2**64:
        raise InvalidValueError(f"a seed has 64 bits, got {seed}", op="manual_seed")
    return int(seed) - 2**64 if seed >= 2**63 else int(seed)


@functools.lru_cache(maxsize=1024)
def _pair_on(device: Device, queue: int, a: int, b: int) -> Tensor:
    """On a GPU, for the stream `queue`."""
    return cast("Tensor", dispatch.moved(from_numpy(np.array([a, b], np.int64)), device))


def _int64_pair(receiver: TensorBase, a: int, b: int) -> Tensor:
    pair = np.array([a, b], np.int64)
    if MODES.recorder is None:
        return (
            from_numpy(pair)
            if receiver.device is CPU
            else _pair_on(receiver.device, there.queue(receiver.device), a, b)
        )
    return cast("Tensor", OPS["constant"].bind((), {"data": Constant(pair)}, receiver=receiver)[0])


default_generator = Generator(0)
"""The generator behind every function that is not given one, for tensors on the CPU."""
_defaults: Final[dict[Device, Generator]] = {CPU: default_generator}


def _after_fork() -> None:
    """A forked process can't use GPUs."""
    for device in [d for d in _defaults if d is not CPU]:
        del _defaults[device]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_generators() -> dict[Device, Generator]:
    """Those of all devices that were used so far."""
    if len(_defaults) <= len(there.used()):
        for device in there.used():
            default_generator_of(device)
    return _defaults


def default_generator_of(device: Device) -> Generator:
    """The generator behind every function that is not given one, for tensors on `device`. The first time, it starts
    from the seed that the CPU's has."""
    found = _defaults.get(device)
    if found is None:
        if MODES.recorder is not None:
            MODES.recorder.reject(
                f"the first random number on {device} is drawn", fix="draw one before the compiled function is called"
            )
        made = Generator(str(device)).manual_seed(default_generator.initial_seed())
        found = _defaults.setdefault(device, made)
    return found


def manual_seed(seed: int) -> Generator:
    """Seed the default generators of all devices; returns the CPU's."""
    for generator in list(default_generators().values()):
        generator.manual_seed(seed)
    return default_generator


def seed() -> int:
    """Seed the default generators of all devices from the system, alike; returns the seed."""
    made = default_generator.seed()
    manual_seed(made)
    return made


def initial_seed() -> int:
    """The seed that the default generator started from."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """A copy of the default generator's state, int64[2]."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Give the default generator a state that `get_rng_state` gave."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Numbers drawn inside the `with` block leave no trace on the default generators: those of the CPU and of
    `devices`, by default of all."""
    if not enabled:
        yield
        return
    used = default_generators()
    if devices is not None:
        chosen = [placed("fork_rng", d) for d in devices]
        used = {CPU: default_generator, **{d: default_generator_of(d) for d in chosen}}
    before = {device: generator.state.clone() for device, generator in used.items()}
    try:
        yield
    finally:
        for device, generator in list(_defaults.items()):  # the CPU's first
            if device in before:
                generator.state.copy_(before[device])
            elif devices is None:  # first used inside
                generator.manual_seed(initial_seed())


# ---------------------------------------------------------------------------------- drawing numbers


def _draw(
    name: str, distribution: str, shape: tuple[int, ...], dtype: DType, generator: Generator | None, device: Device
) -> Tensor:
    """Numbers of any inexact dtype. A 16-bit uniform keeps below 1: it is a multiple of its precision. The parts of
    complex numbers are drawn in turn, normal ones with a variance of 1/2 each."""
    if dtype.is_complex:
        drawn = _draw(name, distribution, (*shape, 2), dtype.part, generator, device)
        parts = drawn if distribution == "uniform" else drawn * math.sqrt(0.5)
        return F.pair(parts[..., 0], parts[..., 1])
    source = (default_generator if device is CPU else default_generator_of(device)) if generator is None else generator
    if not isinstance(source, Generator):
        raise ArgumentError(f"generator is a {type(source).__name__}", op=name, fix="pass a kiln.Generator")
    if source.device is not device:
        raise DeviceError(
            f"the generator is on {source.device}, the numbers are to be on {device}",
            op=name,
            fix=f"kiln.Generator({str(device)!r})",
        )
    if dtype.kind != "float":
        raise DTypeError(f"is not defined for {dtype}", op=name)
    if dtype.bits > 16:
        return source.draw(distribution, shape, dtype)
    drawn = source.draw(distribution, shape, T.float32)
    if distribution == "uniform":
        steps = 2.0 ** (11 if dtype.name == "float16" else 8)
        drawn = cast_to(cast_to(drawn * steps, T.int64), T.float32) * (1 / steps)
    return cast_to(drawn, dtype)


def _random(
    name: str, distribution: str, size: Any, dtype: Any, device: Any, generator: Generator | None, grad: bool
) -> Tensor:
    kind = _dtype(name, dtype, MODES.default_dtype)
    drawn = _draw(name, distribution, _shape(name, size), kind, generator, placed(name, device))
    return drawn.requires_grad_() if grad else drawn


@maker_names
def rand(
    *size: Any,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1), of the default dtype unless told."""
    return _random("rand", "uniform", size, dtype, device, generator, requires_grad)


@maker_names
def randn(
    *size: Any,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers, of the default dtype unless told."""
    return _random("randn", "normal", size, dtype, device, generator, requires_grad)


@maker_names
def rand_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`rand` in the shape and dtype of `input`."""
    kind = input.dtype if dtype is None else dtype
    place = input.device if device is None else device
    return _random("rand_like", "uniform", input.shape, kind, place, generator, requires_grad)


@maker_names
def randn_like(
    input: Tensor,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randn` in the shape and dtype of `input`."""
    kind = input.dtype if dtype is None else dtype
    place = input.device if device is None else device
    return _random("randn_like", "normal", input.shape, kind, place, generator, requires_grad)


def _integers(
    name: str, low: int, high: int, shape: tuple[int, ...], generator: Generator | None, device: Device
) -> Tensor:
    """int64 from [low, high), every one as likely as the others to within 2^-53: trunc((high - low) * u) + low.
    Rounding never reaches `high`, since u is at most 1 - 2^-53."""
    for x in (low, high):
        if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
            raise ArgumentError(f"bounds are ints, not {type(x).__name__}", op=name)
    if low >= high:
        raise InvalidValueError(
            f"there is no integer from {low} to below {high}", op=name, fix="low must be below high"
        )
    if high - low > 2**53 or low < -(2**63) or high > 2**63:
        raise InvalidValueError(f"the range from {low} to {high} is too wide", op=name, fix="at most 2**53 integers")
    u = _draw(name, "uniform", shape, T.float64, generator, device)
    return cast_to(u * float(high - low), T.int64) + int(low)


@maker_names
def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """randint(high, size) or randint(low, high, size): integers from low (0) to below high, int64 unless told."""
    if size is None:
        low, high, size = 0, low, high
    place = placed("randint", device)
    if size is None:
        raise ArgumentError("size is missing", op="randint", fix="randint(low, high, size)")
    kind = _dtype("randint", dtype, T.int64)
    drawn = cast_to(_integers("randint", low, high, _shape("randint", (size,)), generator, place), kind)
    return drawn.requires_grad_() if requires_grad else drawn


@maker_names
def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randint` in the shape and dtype of `input`."""
    low, high = (0, low) if high is None else (low, high)
    kind = input.dtype if dtype is None else dtype
    place = input.device if device is None else device
    return randint(low, high, input.shape, dtype=kind, device=place, generator=generator, requires_grad=requires_grad)


@maker_names
def randperm(
    n: int,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A random permutation of 0 ... n - 1, int64 unless told: what sorts n uniform numbers."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ArgumentError(f"n is an int, not a {type(n).__name__}", op="randperm")
    if n < 0:
        raise InvalidValueError(f"n is negative: {n}", op="randperm")
    place = placed("randperm", device)
    kind = _dtype("randperm", dtype, T.int64)
    made = argsort(_draw("randperm", "uniform", (int(n),), T.float64, generator, place), stable=True)
    made = cast_to(made, kind)
    return made.requires_grad_() if requires_grad else made


# ---------------------------------------------------------------------------------- other distributions


def _exponential(
    name: str, shape: tuple[int, ...], dtype: DType, generator: Generator | None, device: Device
) -> Tensor:
    """-log(1 - u), and never 0: at least half the spacing of u."""
    u = _draw(name, "uniform", shape, dtype, generator, device)
    return F.maximum(-F.log(1.0 - u), _constant_like(u, 2.0**-25 if dtype.bits == 32 else 2.0**-54))


def _constant_like(x: Tensor, value: float) -> Tensor:
    return full_like_number(x, x.dtype, value)


def _wide(dtype: DType) -> DType:
    """What to draw in: 16-bit floats are computed in float32."""
    return T.float32 if dtype.kind == "float" and dtype.bits < 32 else dtype


def _probability(name: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise InvalidValueError(f"the probability is {p}", op=name, fix="it lies between 0 and 1")
    return float(p)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 where a uniform number is below the probability in `input` (or `p`), else 0; shape and dtype of `input`."""
    shape = tensor_arg("bernoulli", input).shape
    if p is not None:
        u = _draw("bernoulli", "uniform", shape, T.float64, generator, input.device)
        return cast_to(u < _probability("bernoulli", p), input.dtype)
    u = _draw("bernoulli", "uniform", shape, _wide(input.dtype), generator, input.device)
    _check_data("bernoulli", input, lambda a: [(a >= 0) & (a <= 1)], "probabilities lie between 0 and 1")
    return cast_to(u < cast_to(input.detach(), u.dtype), input.dtype)


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    dtype: DType | None = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """normal(mean, std) with tensors (broadcast), or with numbers and a size: mean + std * standard normal numbers."""
    tensors = [x for x in (mean, std) if isinstance(x, TensorBase)]
    place = placed("normal", device, tensors[0].device if tensors else None)
    if bool(tensors) is (size is not None):
        raise ArgumentError("takes either a tensor or a size", op="normal", fix="normal(0.0, 1.0, (2, 3))")
    if not isinstance(std, TensorBase) and not std >= 0:
        raise InvalidValueError(f"the deviation is {std}", op="normal", fix="it is 0 or more")
    shape = broadcast_shapes("normal", *tensors) if tensors else _shape("normal", (size,))
    kind = tensors[0].dtype if tensors else _dtype("normal", dtype, MODES.default_dtype)
    drawn: Tensor = _draw("normal", "normal", shape, kind, generator, place) * std + mean
    return drawn.requires_grad_() if requires_grad else drawn


_TERMS: Final = 64
"""Of the probabilities of a Poisson number: those left out of a rate below 10 add up to less than 2^-53."""
_ROUNDS: Final = 12
"""Of proposals for a Poisson number of rate 10 or more: the chance that all are rejected is below 1e-10."""


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson-distributed numbers of the rates in `input` (floats, not negative), in its shape and dtype.

    Below rate 10 by inversion: how many sums of probabilities a uniform number reaches. Else by transformed rejection
    (Hoermann, 1993: "The transformed rejection method for generating Poisson random variables"), in a fixed number of
    rounds, so that how many numbers are drawn depends on the shape alone."""
    rates = tensor_arg("poisson", input).detach()
    if rates.dtype.kind != "float":
        raise DTypeError(f"is not defined for {rates.dtype}", op="poisson", operands=[rates.ttype])
    _check_data("poisson", rates, lambda a: [a >= 0], "rates are not negative")
    rate = cast_to(rates, T.float64)
    low = rate < 10.0
    small, large = F.where(low, rate, 1.0), F.where(low, 10.0, rate)
    few, many = _poisson_below_10(small, generator), _poisson_from_10(large, generator)
    return cast_to(F.where(low, few, many), rates.dtype)


def _poisson_below_10(rate: Tensor, generator: Generator | None) -> Tensor:
    u = _draw("poisson", "uniform", rate.shape, T.float64, generator, rate.device)
    term = F.exp(-rate)
    total, count = term, _constant_like(rate, 0.0)
    for k in range(1, _TERMS):
        count = count + cast_to(u >= total, T.float64)
        term = term * rate / float(k)
        total = total + term
    return count


def _poisson_from_10(rate: Tensor, generator: Generator | None) -> Tensor:
    b = F.sqrt(rate) * 2.53 + 0.931
    a = b * 0.02483 - 0.059
    scale = F.log(1.1328 / (b - 3.4) + 1.1239)
    quick, log_rate = 0.9277 - 3.6224 / (b - 2.0), F.log(rate)
    result, open_ = P.floor(rate), _constant_like(rate, 1.0) > 0.0
    for _ in range(_ROUNDS):
        u = _draw("poisson", "uniform", rate.shape, T.float64, generator, rate.device) - 0.5
        v = _draw("poisson", "uniform", rate.shape, T.float64, generator, rate.device)
        gap = 0.5 - F.abs(u)
        k = P.floor((2.0 * a / gap + b) * u + rate + 0.43)
        whole = F.clamp(k, min=0.0)
        score = F.log(v) + scale - F.log(a / (gap * gap) + b)
        taken = F.logical_and(k >= 0.0, score <= whole * log_rate - rate - lgamma(whole + 1.0))
        taken = F.logical_and(taken, F.logical_or(gap >= 0.013, v <= gap))
        taken = F.logical_and(open_, F.logical_or(taken, F.logical_and(gap >= 0.07, v <= quick)))
        result = F.where(taken, whole, result)
        open_ = F.logical_and(open_, F.logical_not(taken))
    return result


_CHUNK: Final = 1 << 22


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """`num_samples` indices, int64, for each row of weights in `input` [n] or [rows, n], drawn in proportion to them;
    without `replacement` each index at most once.

    An index of weight w comes first with probability w / sum when w / e is the largest, e being exponential (Efraimidis
    and Spirakis, 2006: "Weighted random sampling with a reservoir"). Weights are finite, not negative, not all zero.
    """
    weights = tensor_arg("multinomial", input).detach()
    if weights.ndim not in (1, 2) or weights.dtype.kind != "float":
        raise ShapeError("weights are floats [n] or [rows, n]", op="multinomial", operands=[weights.ttype])
    n = weights.shape[-1]
    if num_samples <= 0 or (not replacement and num_samples > n):
        raise InvalidValueError(
            f"{num_samples} samples of {n}", op="multinomial", fix="at least 1, and without replacement no more than n"
        )
    _check_weights(weights, 1 if replacement else num_samples)
    weights = cast_to(weights, _wide(weights.dtype))
    if replacement:
        most = max(1, _CHUNK // max(1, weights.numel()))
        rounds = []
        while num_samples:
            count = min(most, num_samples)
            e = _exponential("multinomial", (count, *weights.shape), weights.dtype, generator, weights.device)
            rounds.append(F.argmax(weights / e, -1))
            num_samples -= count
        drawn = F.cat(rounds, 0)
        return F.contiguous(F.transpose(drawn, 0, 1)) if weights.ndim == 2 else drawn
    scores = weights / _exponential("multinomial", weights.shape, weights.dtype, generator, weights.device)
    return topk(scores, num_samples).indices


def _check_weights(weights: Tensor, least: int) -> None:
    def proper(a: Any) -> list[Any]:
        return [(a >= 0) & (a < math.inf), (a > 0).sum(-1) >= least]

    _check_data(
        "multinomial", weights, proper, f"weights are finite, not negative, and at least {least} of a row are not zero"
    )


def _check_data(name: str, t: Tensor, rules: Callable[[Any], Sequence[Any]], told: str) -> None:
    """InvalidValueError unless all that `rules` make of the data is true. They are given an array, or a tensor while a
    capture listens."""
    if MODES.recorder is None:
        good = all(rule.all() for rule in rules(plain(t)._read(name).astype(np.float64)))
    else:
        good = all(map(holds, rules(t.detach())))
    if not good:
        raise InvalidValueError(told, op=name, operands=[t.ttype])


# ------------------------------------------------------------------------------------- filling in place


def _floating(name: str, tensor: Tensor) -> DType:
    """The dtype to draw in for a tensor of floats."""
    if tensor_arg(name, tensor).dtype.kind != "float":
        raise DTypeError(f"is not defined for {tensor.dtype}", op=name, operands=[tensor.ttype])
    return _wide(tensor.dtype)


def uniform_(tensor: AnyTensor, low: float = 0.0, high: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """tensor[...] = low + (high - low) * rand, in place."""
    _floating("uniform_", tensor)
    if not low <= high:
        raise InvalidValueError(f"from {low} to {high}", op="uniform_", fix="the first is not above the second")
    drawn = _draw("uniform_", "uniform", tensor.shape, tensor.dtype, generator, tensor.device)
    return tensor.copy_(drawn * float(high - low) + float(low))


def normal_(tensor: AnyTensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """tensor[...] = mean + std * randn, in place."""
    if not tensor_arg("normal_", tensor).dtype.is_complex:
        _floating("normal_", tensor)
    if not std >= 0:
        raise InvalidValueError(f"the deviation is {std}", op="normal_", fix="it is 0 or more")
    drawn = _draw("normal_", "normal", tensor.shape, tensor.dtype, generator, tensor.device)
    return tensor.copy_(drawn * float(std) + float(mean))


def bernoulli_(tensor: AnyTensor, p: Any = 0.5, *, generator: Generator | None = None) -> AnyTensor:
    """1 with probability `p` (a number, or a tensor of them), else 0, in place."""
    if isinstance(p, TensorBase):
        return tensor.copy_(bernoulli(F.expand(cast("Tensor", p), tensor.shape), generator=generator))
    u = _draw("bernoulli_", "uniform", tensor.shape, T.float64, generator, tensor.device)
    return tensor.copy_(cast_to(u < _probability("bernoulli_", p), tensor.dtype))


def random_(
    tensor: AnyTensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None
) -> AnyTensor:
    """random_(), random_(high) or random_(low, high): integers from low (0) to below high, in place. Without a bound:
    up to the largest that the dtype holds, for floats as far as they hold every integer, at most 2**53."""
    if high is None and low:
        low, high = 0, low
    if high is None:
        digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
        bits = digits.get(tensor.dtype.name, min(tensor.dtype.bits - (tensor.dtype.kind == "int"), 53))
        high = 2**bits + (tensor.dtype.kind == "float" and bits < 53)
    drawn = _integers("random_", low, high, tensor.shape, generator, tensor.device)
    return tensor.copy_(cast_to(drawn, tensor.dtype))


def exponential_(tensor: AnyTensor, lambd: float = 1.0, *, generator: Generator | None = None) -> AnyTensor:
    """Exponential numbers of rate `lambd`, in place."""
    if not lambd > 0:
        raise InvalidValueError(f"the rate is {lambd}", op="exponential_", fix="it is above 0")
    kind = _floating("exponential_", tensor)
    return tensor.copy_(_exponential("exponential_", tensor.shape, kind, generator, tensor.device) / float(lambd))


def log_normal_(
    tensor: AnyTensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> AnyTensor:
    """exp of normal numbers, in place."""
    if not std > 0:
        raise InvalidValueError(f"the deviation is {std}", op="log_normal_", fix="it is above 0")
    drawn = _draw("log_normal_", "normal", tensor.shape, _floating("log_normal_", tensor), generator, tensor.device)
    return tensor.copy_(F.exp(drawn * float(std) + float(mean)))


def cauchy_(
    tensor: AnyTensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> AnyTensor:
    """median + sigma * tan(pi * (u - 1/2)), in place."""
    if not sigma > 0:
        raise InvalidValueError(f"the scale is {sigma}", op="cauchy_", fix="it is above 0")
    angle = (
        _draw("cauchy_", "uniform", tensor.shape, _floating("cauchy_", tensor), generator, tensor.device) - 0.5
    ) * math.pi
    return tensor.copy_(F.sin(angle) / F.cos(angle) * float(sigma) + float(median))


def geometric_(tensor: AnyTensor, p: float, *, generator: Generator | None = None) -> AnyTensor:
    """How many trials of success `p` until the first success (1, 2, ...), in place."""
    if not 0 < p < 1:
        raise InvalidValueError(f"the probability is {p}", op="geometric_", fix="it lies between 0 and 1")
    e = _exponential("geometric_", tensor_arg("geometric_", tensor).shape, T.float64, generator, tensor.device)
    return tensor.copy_(cast_to(cast_to(e / -math.log1p(-p), T.int64) + 1, tensor.dtype))
