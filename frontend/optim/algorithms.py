"""SGD, Adam and AdamW: PyTorch's formulas, each written as a few tensor ops in a stated order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kiln.creation import zeros, zeros_like
from kiln.errors import InvalidValueError
from kiln.ir import types as T
from kiln.optim.optimizer import Number, Optimizer, Parameters, check_number
from kiln.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent. With g = grad + weight_decay * p, and where there is momentum

        buffer = momentum * buffer + (1 - dampening) * g   (the first time: g)
        g = g + momentum * buffer if nesterov else buffer

    the step is p = p - lr * g. Terms that an option of 0 makes empty are left out.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, group[name], 0.0)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise InvalidValueError("nesterov needs momentum and no dampening", op="SGD")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        if group["momentum"]:
            state["momentum_buffer"] = zeros_like(p)
        if group["dampening"]:
            state["started"] = zeros(dtype=p.dtype)  # 0 before the first step, then 1
        return state

    def update(self, p: Tensor, grad: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> None:
        momentum, dampening = group["momentum"], group["dampening"]
        g = grad
        if group["weight_decay"]:
            g = g + p * group["weight_decay"]
        if momentum:
            buffer = state["momentum_buffer"]
            share = g
            if dampening:
                share = g * (1.0 - state["started"] * dampening)
                state["started"].fill_(1.0)
            buffer.mul_(momentum)
            buffer.add_(share)
            g = g + buffer * momentum if group["nesterov"] else buffer
        p.sub_(g * group["lr"])


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015). For every parameter, t counting its steps and g = grad + weight_decay * p:

        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * g * (1 - beta2)
        p = p - m / (sqrt(v) / sqrt(1 - beta2 ** t) + eps) * (lr / (1 - beta1 ** t))

    t is a float64 tensor, and so are the two factors that depend on it alone.
    """

    decoupled = False
    """Whether weights decay by themselves instead of through the gradient."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_number(name, group[name], 0.0)
        if len(group["betas"]) != 2:
            raise InvalidValueError(f"betas must be a pair, got {group['betas']!r}")
        for i, beta in enumerate(group["betas"]):
            check_number(f"betas[{i}]", beta, 0.0, 1.0)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"step": zeros(dtype=T.float64), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> None:
        step, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        step.add_(1.0)
        g = grad
        if decay and self.decoupled:
            p.mul_(1.0 - lr * decay)
        elif decay:
            g = g + p * decay
        m.add_((g - m) * (1.0 - beta1))
        v.mul_(beta2)
        v.add_(g * g * (1.0 - beta2))
        rate = lr / (1.0 - beta1**step)
        scale = (1.0 - beta2**step).sqrt()
        p.sub_(m / (v.sqrt() / scale + group["eps"]) * rate)


class AdamW(Adam):
    """Adam whose weights decay by themselves (Loshchilov and Hutter, 2019): before the step p = p * (1 - lr *
    weight_decay), and the gradient stays as it is."""

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
