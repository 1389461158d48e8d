"""SGD, Adam and AdamW: PyTorch's formulas, each written as a few tensor ops in a stated order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kiln import functional as F
from kiln.creation import zeros, zeros_like
from kiln.errors import InvalidValueError
from kiln.ir import types as T
from kiln.optim.fused import elementwise
from kiln.optim.optimizer import (
    Number,
    Optimizer,
    Parameters,
    as_pair,
    at,
    check_betas,
    check_implementation,
    check_number,
    decayed,
    present,
    scale_,
    times,
)
from kiln.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent. With g = grad + weight_decay * p, and where there is momentum

        buffer = momentum * buffer + (1 - dampening) * g   (the first time: g)
        g = g + momentum * buffer if nesterov else buffer

    the step is p = p - lr * g. Terms that an option of 0 makes empty are left out; `maximize` turns the gradient round.
    """

    assumed: ClassVar[Mapping[str, float]] = {"started": 1.0}

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "SGD")
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_number(type(self).__name__, name, group[name], 0.0)
        if group["nesterov"] and (not present(group["momentum"]) or group["dampening"]):
            raise InvalidValueError("nesterov needs momentum and no dampening", op="SGD")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if present(group["momentum"]):
            state["momentum_buffer"] = zeros_like(p)
            if present(group["dampening"]):
                state["started"] = zeros(dtype=p.dtype.part, device=p.device)  # 0 before the first step, then 1
        return state

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        momentum, dampening = group["momentum"], group["dampening"]
        g = decayed(grad, p, group["weight_decay"])
        if present(momentum):
            buffer = state["momentum_buffer"]
            share = g
            if present(dampening):
                share = g * (1.0 - state["started"] * dampening)
                state["started"].fill_(1.0)
            scale_(buffer, momentum)
            buffer.add_(share)
            g = g + times(buffer, momentum) if group["nesterov"] else buffer
        p.sub_(times(g, group["lr"]))


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015). For every parameter, t counting its steps and g = grad + weight_decay * p:

        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * (1 - beta2) * g
        p = p - m * (lr / (1 - beta1 ** t)) / (sqrt(v) / sqrt(1 - beta2 ** t) + eps)

    With `amsgrad` the largest v so far takes v's place in the last line (Reddi et al., 2018). With
    `decoupled_weight_decay` it is AdamW. `maximize` turns the gradient round. t is a float64 tensor, and so are the two
    factors that depend on it alone.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, type(self).__name__)
        options = {
            "lr": lr,
            "betas": as_pair(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_number(type(self).__name__, name, group[name], 0.0)
        check_betas(type(self).__name__, group["betas"])

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        state = {"step": zeros(dtype=T.float64, device=p.device), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(p)
        return state

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        step.add_(1.0)
        g = grad
        if group["decoupled_weight_decay"]:
            if present(decay):
                scale_(p, 1.0 - lr * decay)
        else:
            g = decayed(g, p, decay)
        m.add_(times(g - m, 1.0 - beta1))
        scale_(v, beta2)
        v.add_(times(g, 1.0 - beta2) * g)
        if group["amsgrad"]:
            largest = state["max_exp_avg_sq"]
            largest.copy_(F.maximum(largest, v))
            v = largest
        rate = lr / (1.0 - beta1**step)
        scale = (1.0 - beta2**step).sqrt()
        p.sub_(times(m, rate) / (v.sqrt() / at(scale, p) + group["eps"]))


class AdamW(Adam):
    """Adam whose weights decay by themselves (Loshchilov and Hutter, 2019): before the step p = p * (1 - lr *
    weight_decay), and the gradient stays as it is."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
            **implementation,
        )
