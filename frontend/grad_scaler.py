"""`kiln.amp.GradScaler`: losses are multiplied, so that float16 gradients do not vanish, and gradients divided again.

The scale, how long it has been right, and whether a gradient was infinite or NaN are numbers on the device of the loss.
Gradients are divided and looked at without a wait; `step` waits once, to know whether to do anything.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from kiln import dispatch
from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.base import LAYERED, MODES, READONLY, TensorBase, layout_of
from kiln.casting import suspended
from kiln.creation import full
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.types import Device, DType, Sym, float16, float32, int32
from kiln.location import frames_of_kiln
from kiln.pointwise import isfinite
from kiln.promotion import cast_to, transferred
from kiln.sketch import Sketch, Update, generalised, written
from kiln.tensor import Tensor

if TYPE_CHECKING:
    from kiln.optim.optimizer import Optimizer


class _Turn:
    """What was done with one optimiser's gradients since the last `update`."""

    def __init__(self) -> None:
        self.found: dict[Device, Tensor] = {}
        """By device: 1.0 where a gradient was infinite or NaN, else 0.0."""
        self.unscaled = self.stepped = False


class GradScaler:
    """Scales losses before `backward`, and gradients back before `optimizer.step`, which is left out when one of them
    is infinite or NaN; then `update` makes the scale smaller. After `growth_interval` good steps it grows.

    `device` is "cuda" or "cpu". For "cuda" where there is no GPU it warns and, as with `enabled=False`, passes
    everything through. InvalidValueError for factors on the wrong side of 1.

    >>> import kiln
    >>> p = kiln.ones(2, requires_grad=True)
    >>> optimizer, scaler = kiln.optim.SGD([p], lr=0.5), kiln.amp.GradScaler("cpu", init_scale=4.0)
    >>> scaler.scale(p.sum()).backward()
    >>> scaler.unscale_(optimizer)  # only who looks at gradients, to clip them, needs this
    >>> p.grad.tolist()
    [1.0, 1.0]
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> p.tolist(), scaler.get_scale()
    ([0.5, 0.5], 4.0)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if device not in ("cpu", "cuda"):
            raise InvalidValueError(f"there are no gradients to scale on {device!r}", op="GradScaler", fix='"cuda"')
        self._device = device
        self._enabled = enabled and _possible(device)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._init_scale, self._init_growth_tracker = init_scale, 0
        if self._enabled and (growth_factor <= 1.0 or backoff_factor >= 1.0):
            _refuse("GradScaler", "growth_factor must be above 1, backoff_factor below", "keep the defaults 2 and 0.5")
        self._scale: Tensor | None = None
        """Made by the first call of `scale`, where its loss is; the number of good steps in a row, too."""
        self._growth_tracker: Tensor | None = None
        self._turns: dict[int, _Turn] = {}

    # ------------------------------------------------------------------------------------------- the four steps

    def scale(self, outputs: Any) -> Any:
        """`outputs` (a tensor, or tensors in lists, tuples or other iterables) multiplied by the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, TensorBase):
            return F.mul(outputs, transferred(self._scale_on(outputs._layout.device), outputs._layout.device))
        if isinstance(outputs, Iterable):
            made = map(self.scale, outputs)
            return type(outputs)(made) if isinstance(outputs, (list, tuple)) else made
        raise ArgumentError(f"takes tensors, not {type(outputs).__name__}", op="GradScaler.scale")

    def _scale_on(self, device: Device) -> Tensor:
        if self._scale is None:
            self._scale = full((), self._init_scale, dtype=float32, device=device)
            self._growth_tracker = full((), self._init_growth_tracker, dtype=int32, device=device)
        return self._scale

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimiser's parameters by the scale, in place, and note whether one of them is
        infinite or NaN. `step` does so if it was not done. InvalidValueError the second time before `update`, and for
        float16 gradients (of float16 parameters: mixed precision keeps those in float32)."""
        if not self._enabled:
            return
        scale, _ = self._numbers("unscale_")
        turn = self._turns.setdefault(id(optimizer), _Turn())
        if turn.unscaled or turn.stepped:
            what = "step() was called" if turn.stepped else "unscale_() was called already"
            _refuse("unscale_", f"{what} since the last update()", "call update() at the end of each iteration")
        with no_grad(), suspended():
            inverse = cast_to(F.reciprocal(scale.double()), float32)
            turn.found = _divide(optimizer, inverse)
        turn.unscaled = True

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step(*args, **kwargs) on unscaled gradients, and its result; nothing if one of them is infinite or
        NaN. Waits for the device once. InvalidValueError for closures, the second time before `update`, and when no
        loss was scaled."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(map(callable, args)):
            _refuse("step", "closures are not supported", "scale the loss outside, or pass enabled=False")
        self._numbers("step")
        turn = self._turns.setdefault(id(optimizer), _Turn())
        if turn.stepped:
            _refuse("step", "step() was called since the last update()", "call update() at the end of each iteration")
        if not turn.unscaled:
            self.unscale_(optimizer)
        if not turn.found:
            _refuse("step", "no parameter of the optimizer has a gradient", "call scale(loss).backward() before")
        turn.stepped = True
        if any(found.item() for found in turn.found.values()):
            return None
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Make the scale smaller if a step was left out, larger after `growth_interval` steps that were not; or set it.
        Once an iteration, after `step`. Does not wait."""
        if not self._enabled:
            return
        scale, tracker = self._numbers("update")
        with no_grad(), suspended():
            if new_scale is not None:
                self._set(scale, new_scale)
            else:
                self._adapt(scale, tracker)
        self._turns.clear()  # the same object: a captured function may have seen it

    def _set(self, scale: Tensor, new: Any) -> None:
        if not isinstance(new, TensorBase):
            scale.fill_(float(new))
        elif new._layout.numel != 1 or new.requires_grad:  # type: ignore[attr-defined]
            _refuse("update", "new_scale is a number, or a tensor of one that needs no gradient", "new_scale.detach()")
        else:
            scale.copy_(F.reshape(new, ()))

    def _adapt(self, scale: Tensor, tracker: Tensor) -> None:
        found = [transferred(x, scale._layout.device) for turn in self._turns.values() for x in turn.found.values()]
        if not found:
            _refuse("update", "no gradients were looked at since the last update()", "call step(optimizer) before")
        bad = F.gt(functools.reduce(F.maximum, found), 0.0)
        count = F.add(tracker, 1)
        due = F.eq(count, self._growth_interval)
        larger = F.mul(scale, self._growth_factor)
        grown = F.where(F.logical_and(due, isfinite(larger)), larger, scale)
        scale.copy_(F.where(bad, F.mul(scale, self._backoff_factor), grown))
        tracker.copy_(F.where(F.logical_or(bad, due), 0, count))

    def _numbers(self, name: str) -> tuple[Tensor, Tensor]:
        """The scale, and the number of good steps."""
        if self._scale is None or self._growth_tracker is None:
            _refuse(name, f"{name}() was called before scale()", "call scaler.scale(loss).backward() first")
        return self._scale, self._growth_tracker

    # --------------------------------------------------------------------------------------------------- options

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale, 1.0 if it does nothing. Waits for the device."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(self._scale.item())

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by when it grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by when it grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by when a step was left out."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by when a step was left out."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many good steps in a row it takes to grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many good steps in a row it takes to grow."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return self._init_growth_tracker if self._growth_tracker is None else int(self._growth_tracker.item())

    # ------------------------------------------------------------------------------------------------- to be kept

    def state_dict(self) -> dict[str, Any]:
        """The scale, the number of good steps in a row, and the options; empty if it does nothing."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. InvalidValueError for that of one that did nothing."""
        if not self._enabled:
            return
        if not state_dict:
            _refuse("load_state_dict", "the state is empty: of a GradScaler that was not enabled", "enabled=False")
        self._init_scale = float(state_dict["scale"])
        self._init_growth_tracker = int(state_dict["_growth_tracker"])
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        if self._scale is not None and self._growth_tracker is not None:
            self._scale.fill_(self._init_scale)
            self._growth_tracker.fill_(self._init_growth_tracker)

    def __getstate__(self) -> dict[str, Any]:
        if self._turns:
            _refuse("pickle", "the iteration is not over", "pickle it after update(), or before scale()")
        again = {"_init_scale": self.get_scale(), "_init_growth_tracker": self._get_growth_tracker()}
        return {**vars(self), **again, "_scale": None, "_growth_tracker": None}


def _possible(device: str) -> bool:
    """Whether there are such devices; warns if not."""
    from kiln import cuda  # which has this class under an older name

    if device == "cpu" or cuda.is_available():
        return True
    warnings.warn("GradScaler is for GPUs, and there is none: it does nothing", stacklevel=frames_of_kiln())
    return False


def _refuse(op: str, message: str, fix: str) -> NoReturn:
    raise InvalidValueError(message, op=op, fix=fix)


# -------------------------------------------------------------------------------------------------- gradients

_FEW = 5
"""Elements of the gradient that is sketched with."""


def _gradients(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                if p.grad.dtype is float16:
                    raise InvalidValueError(
                        "can't unscale float16 gradients",
                        op="unscale_",
                        operands=[p.grad.ttype],
                        fix="keep the parameters in float32, and let autocast cast them",
                    )
                yield p.grad


def _divide(optimizer: Optimizer, inverse: Tensor) -> dict[Device, Tensor]:
    """Multiply gradients by `inverse`; by device, 1.0 if one of them was infinite or NaN."""
    found: dict[Device, Tensor] = {}
    inverses: dict[Device, Tensor] = {}
    for grad in list(_gradients(optimizer)):
        device: Device = grad._layout.device
        if device not in found:
            found[device] = full((), 0.0, dtype=float32, device=device)
            inverses[device] = transferred(inverse, device)
        tensors = grad, inverses[device], found[device]
        fits = grad._layout.contiguous and grad._layout.dtype.kind == "float" and grad._layout.numel
        if fits and MODES.recorder is None and not grad._flags & (LAYERED | READONLY):
            _program(grad._layout.dtype, device).run(tensors, (grad._layout.numel,))
        else:
            _look_and_divide(*tensors)
    return found


def _look_and_divide(grad: Tensor, inverse: Tensor, found: Tensor) -> None:
    """The work for one gradient. Products with 16-bit floats are taken in float32."""
    bad = F.logical_not(F.all(isfinite(grad)))
    found.copy_(F.maximum(found, cast_to(bad, float32)))
    if grad.dtype.is_half:
        grad.copy_(cast_to(F.mul(cast_to(grad, float32), inverse), grad.dtype))
    else:
        grad.mul_(inverse)


@functools.lru_cache(maxsize=64)
def _program(dtype: DType, device: Device) -> Update:
    """The same as one program, for contiguous gradients of every size."""
    made: list[Any] = [
        dispatch.empty(layout_of(kind, shape, None, device))
        for kind, shape in ((dtype, (_FEW,)), (float32, ()), (float32, ()))
    ]
    run: Callable[..., None] = _look_and_divide
    with Sketch("unscale", made) as sketch:
        run(*made)
        graph = generalised(sketch.finish([]), lambda d: Sym("n") if d == _FEW else d)
    return Update(graph, written(made), device)
