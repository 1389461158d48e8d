"""Averages of weights: stochastic weight averaging (Izmailov et al., 2018) and exponential moving averages."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from kiln.autograd import no_grad
from kiln.creation import tensor
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir import types as T
from kiln.nn.module import Module
from kiln.nn.normalization import _BatchNorm
from kiln.optim.lr_scheduler import LRScheduler
from kiln.optim.optimizer import Optimizer
from kiln.tensor import Tensor

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip


def _decay(decay: float) -> float:
    if not 0.0 <= decay <= 1.0:
        raise InvalidValueError(f"the decay is between 0 and 1, not {decay}")
    return decay


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[..., None]:
    """The function that moves lists of averages towards parameters: average * decay + parameter * (1 - decay)."""
    _decay(decay)

    def update(ema_param_list: Iterable[Tensor], current_param_list: Iterable[Tensor], _: Any) -> None:
        with no_grad():
            for average, p in zip(ema_param_list, current_param_list, strict=True):
                if average.dtype.is_floating_point:
                    average.lerp_(p.to(average.dtype), 1 - decay)
                else:
                    average.copy_(p)

    return update


def get_swa_multi_avg_fn() -> Callable[..., None]:
    """The function that takes parameters into lists of equal averages."""

    def update(averaged_param_list: Iterable[Tensor], current_param_list: Iterable[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for average, p in zip(averaged_param_list, current_param_list, strict=True):
                if average.dtype.is_floating_point:
                    average.lerp_(p.to(average.dtype), 1 / (float(num_averaged) + 1))
                else:
                    average.copy_(p)

    return update


def get_ema_avg_fn(decay: float = 0.999) -> Callable[..., Tensor]:
    """decay * average + (1 - decay) * parameter, as a function of both."""
    _decay(decay)

    def update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            return decay * ema_param + (1 - decay) * current_param

    return update


def get_swa_avg_fn() -> Callable[..., Tensor]:
    """average + (parameter - average) / (number + 1), as a function of the three."""

    def update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            moved: Tensor = averaged_param + (current_param - averaged_param) / (num_averaged + 1)
            return moved

    return update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages: `update_parameters(model)` takes the model's in.

    The first call copies them; the next ones use `multi_avg_fn(averages, parameters, n)` or `avg_fn(average, parameter,
    n)`, by default the equal average. With `use_buffers` buffers are averaged too, else they are copied. The copy is
    `module`, and calling this calls it.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[..., Tensor] | None = None,
        multi_avg_fn: Callable[..., None] | None = None,
        use_buffers: bool = False,
    ) -> None:
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("takes avg_fn or multi_avg_fn, not both", op="AveragedModel")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=T.int64))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _state(self, model: Module) -> list[Tensor]:
        return [*model.parameters(), *(model.buffers() if self.use_buffers else ())]

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the averages."""
        averages = [x.detach() for x in self._state(self.module)]
        current = [x.detach() for x in self._state(model)]
        with no_grad():
            if self.n_averaged.item() == 0:
                for average, p in zip(averages, current, strict=True):
                    average.copy_(p)
            elif self.avg_fn is not None:
                for average, p in zip(averages, current, strict=True):
                    average.copy_(self.avg_fn(average, p, self.n_averaged))
            else:
                (self.multi_avg_fn or get_swa_multi_avg_fn())(averages, current, self.n_averaged.item())
            if not self.use_buffers:
                for own, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                    own.copy_(theirs)
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of all batch normalisations anew: the plain averages over one pass of the model
    through `loader`, whose batches are tensors, or lists that begin with one."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    training = model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    with no_grad():
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else x.to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """From the present rate to `swa_lr` (one, or one for each group) in `anneal_epochs` steps, along a cosine ("cos")
    or a line ("linear"); constant then."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise InvalidValueError(f'the strategy is "cos" or "linear", not {anneal_strategy!r}', op="SWALR")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise InvalidValueError(f"anneal_epochs is an int, 0 or more, not {anneal_epochs}", op="SWALR")
        groups = optimizer.param_groups
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        if len(rates) != len(groups):
            raise InvalidValueError(f"swa_lr must be one for each of {len(groups)} groups", op="SWALR")
        for group, rate in zip(groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, t: float) -> float:
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """The rates of epoch `last_epoch`."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        span = max(1, self.anneal_epochs)
        before = self._share(max(0, min(1, (step - 1) / span)))
        now = self._share(max(0, min(1, step / span)))
        found = []
        for group in self.optimizer.param_groups:
            lr = float(group["lr"])
            if now == before:
                found.append(lr)
                continue
            first = group["swa_lr"] if before == 1 else (lr - before * group["swa_lr"]) / (1 - before)
            found.append(group["swa_lr"] * now + first * (1 - now))
        return found
