"""`kiln.amp`: automatic mixed precision, PyTorch's. In an `autocast` region matrix products and convolutions are taken
in 16-bit floats, and what needs precision in float32 (`kiln.casting` has the tables); parameters and their gradients
stay as they are. `GradScaler` keeps float16 gradients from vanishing. docs/amp.md tells more.

>>> import kiln
>>> layer = kiln.nn.Linear(4, 2)
>>> with kiln.autocast("cpu"):
...     y = layer(kiln.ones(3, 4))
>>> y.dtype, (y.float().sum().backward(), layer.weight.grad.dtype)[1]
(kiln.bfloat16, kiln.float32)
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from kiln.autograd.grad_mode import decorated
from kiln.base import MODES, TensorBase
from kiln.casting import KINDS, WEIGHTS, State, set_state, state
from kiln.errors import ArgumentError, InvalidValueError
from kiln.grad_scaler import GradScaler as GradScaler
from kiln.ir.types import DType, float64
from kiln.location import frames_of_kiln
from kiln.promotion import cast_to

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

F = TypeVar("F", bound=Callable[..., Any])


def is_autocast_available(device_type: str) -> bool:
    """Whether there is autocast for devices of this type: for "cpu" and "cuda"."""
    if not isinstance(device_type, str):
        raise ArgumentError(f"device_type is a str, not {type(device_type).__name__}", op="is_autocast_available")
    return device_type in KINDS


def _checked(op: str, device_type: Any) -> str:
    """A device type that there is autocast for."""
    if not isinstance(device_type, str):
        raise InvalidValueError(f"device_type is a str, not {type(device_type).__name__}", op=op, fix='"cpu" or "cuda"')
    if device_type not in KINDS:
        raise InvalidValueError(f"there is no autocast for devices of type {device_type!r}", op=op, fix='"cpu", "cuda"')
    return device_type


class autocast:
    """`with autocast(device_type):` or, around a function, `@autocast(device_type)`: inside, functions take tensors on
    such devices as 16-bit floats or as float32, whichever suits them. Casts are differentiable.

    `dtype`: bfloat16 or float16; by default what `get_autocast_dtype` says: bfloat16 on "cpu", float16 on "cuda".
    `enabled=False` makes an island of full precision within a region. `cache_enabled`: a weight that is used again is
    not cast again, until the outermost region is left. It is for the thread that enters it, and for ops that run while
    it is open: a backward pass belongs outside.

    Warns, and does nothing, for "cuda" where there is no GPU and for other dtypes. Inside of a compiled function it
    works as it does outside, and a function that was compiled outside of a region is compiled anew inside.

    >>> import kiln
    >>> a = kiln.ones(2, 2)
    >>> with kiln.autocast("cpu", dtype=kiln.bfloat16):
    ...     b = a @ a
    ...     with kiln.autocast("cpu", enabled=False):
    ...         c = b.float() @ a
    >>> b.dtype, c.dtype
    (kiln.bfloat16, kiln.float32)
    """

    def __init__(
        self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        self.device = _checked("autocast", device_type)
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else _dtype("autocast", dtype)
        self._cache = state().cache if cache_enabled is None else bool(cache_enabled)
        self._enabled = bool(enabled) and _possible(self.device, self.fast_dtype)
        self._before: list[State | None] = []

    def __enter__(self) -> autocast:
        now = state()
        self._before.append(MODES.autocast)
        set_state(_switched(now, self.device, self._enabled, self.fast_dtype)._replace(cache=self._cache))
        WEIGHTS.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        MODES.autocast = self._before.pop()
        WEIGHTS.depth -= 1
        if not WEIGHTS.depth:
            WEIGHTS.known.clear()

    def __call__(self, function: F) -> F:
        """Decorate: `function` runs in such a region."""
        if not callable(function):
            raise ArgumentError(
                f"decorates a function, not {type(function).__name__}", op="autocast", fix="with autocast(...): ..."
            )
        return cast("F", decorated(self, function))


def _dtype(op: str, dtype: Any) -> DType:
    if not isinstance(dtype, DType):
        raise ArgumentError(f"dtype is a kiln dtype, not {type(dtype).__name__}", op=op, fix="kiln.bfloat16")
    return dtype


def _possible(device: str, dtype: DType) -> bool:
    """Whether a region can be opened; warns if not."""
    why = ""
    if not dtype.is_half:
        why = f"takes bfloat16 and float16, not {dtype}"
    elif device == "cuda":
        from kiln import cuda  # which has this module under an older name

        why = "" if cuda.is_available() else "is for GPUs, and there is none"
    if why:
        warnings.warn(f"autocast({device!r}) {why}: it does nothing", stacklevel=frames_of_kiln())
    return not why


def _switched(now: State, device: str, on: bool, dtype: DType) -> State:
    """`now` with one device type changed."""
    kinds = tuple([k for k in KINDS if (on if k == device else k in now.on)])
    return now._replace(on=kinds, cpu=dtype) if device == "cpu" else now._replace(on=kinds, cuda=dtype)


# ---------------------------------------------------------------------------------------- the state of the thread


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this runs in a region for devices of this type."""
    return _checked("is_autocast_enabled", device_type) in state().on


def get_autocast_dtype(device_type: str) -> DType:
    """What products are taken in on devices of this type, in this region or in one without `dtype`."""
    return state().cpu if _checked("get_autocast_dtype", device_type) == "cpu" else state().cuda


def _told(op: str) -> None:
    if MODES.recorder is not None:
        MODES.recorder.reject(f"{op}() inside a captured function", fix="use a with block of kiln.autocast")


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Turn autocast on or off for this thread, for devices of this type. `autocast` does so for a `with` block."""
    _told("set_autocast_enabled")
    device = _checked("set_autocast_enabled", device_type)
    set_state(_switched(state(), device, bool(enabled), get_autocast_dtype(device)))


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """What products are taken in on devices of this type, in this thread. InvalidValueError for other dtypes than
    bfloat16 and float16."""
    _told("set_autocast_dtype")
    device = _checked("set_autocast_dtype", device_type)
    if not _dtype("set_autocast_dtype", dtype).is_half:
        raise InvalidValueError(f"takes bfloat16 and float16, not {dtype}", op="set_autocast_dtype")
    set_state(_switched(state(), device, device in state().on, dtype))


def is_autocast_cache_enabled() -> bool:
    """Whether a weight is cast once in a region, rather than at each use."""
    return state().cache


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Keep cast weights for the rest of a region, or not."""
    _told("set_autocast_cache_enabled")
    set_state(state()._replace(cache=bool(enabled)))


def clear_autocast_cache() -> None:
    """Forget cast weights; leaving the outermost region does so, too."""
    WEIGHTS.known.clear()


# ------------------------------------------------------------------------------------------- functions of one's own


def _cast_all(value: Any, kind: str, dtype: DType) -> Any:
    """Floating point tensors of a device type as `dtype`, but for those of float64; also in containers."""
    if isinstance(value, TensorBase):
        d = value._layout.dtype
        fits = d.kind == "float" and d is not float64 and value._layout.device.kind == kind
        return cast_to(value, dtype) if fits else value
    if isinstance(value, (str, bytes, np.ndarray)):
        return value
    if isinstance(value, Mapping):
        return {_cast_all(k, kind, dtype): _cast_all(v, kind, dtype) for k, v in value.items()}
    if isinstance(value, Iterable):
        made = (_cast_all(v, kind, dtype) for v in value)
        return type(value)(made) if isinstance(value, (list, tuple)) else made
    return value


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: DType | None = None
) -> Callable[..., Any]:
    """Decorates the `forward` of an `autograd.Function`; `custom_bwd` goes around its `backward`.

    With `cast_inputs`, in a region, tensors come to it in that dtype (but for float64 ones), and it runs without
    autocast. Without, it runs in the region. Outside of a region nothing is changed.

    >>> import kiln
    >>> class Product(kiln.autograd.Function):
    ...     @staticmethod
    ...     @kiln.amp.custom_fwd(device_type="cpu", cast_inputs=kiln.float32)
    ...     def forward(ctx, a, b):
    ...         ctx.save_for_backward(a, b)
    ...         return a @ b
    ...     @staticmethod
    ...     @kiln.amp.custom_bwd(device_type="cpu")
    ...     def backward(ctx, grad):
    ...         a, b = ctx.saved_tensors
    ...         return grad @ b.T, a.T @ grad
    >>> with kiln.autocast("cpu"):
    ...     Product.apply(kiln.ones(2, 2, dtype=kiln.bfloat16), kiln.ones(2, 2)).dtype
    kiln.float32
    """
    _checked("custom_fwd", device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        inside = is_autocast_enabled(device_type)
        ctx._dtype = get_autocast_dtype(device_type)
        ctx._fwd_used_autocast = inside and cast_inputs is None
        if cast_inputs is None or not inside:
            return fwd(ctx, *args, **kwargs)
        with autocast(device_type, enabled=False):
            given = _cast_all(args, device_type, cast_inputs)
            return fwd(ctx, *given, **_cast_all(kwargs, device_type, cast_inputs))

    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Callable[..., Any]:
    """Decorates the `backward` of an `autograd.Function` whose `forward` has `custom_fwd`: it runs with autocast as it
    was there."""
    _checked("custom_bwd", device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *grads: Any) -> Any:
        with autocast(device_type, enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return bwd(ctx, *grads)

    return backward
