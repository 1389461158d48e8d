"""SGD, Adam and AdamW: each update is a few tensor operations in the order written here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kiln import functional as F
from kiln.creation import zeros, zeros_like
from kiln.errors import InvalidValueError
from kiln.ir.types import float32, float64
from kiln.optim.optimizer import Optimizer, Params
from kiln.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch states it.

    g += weight_decay p;  b = momentum b + (1 - dampening) g (b starts as g);  g = g + momentum b (nesterov) or b;
    p -= lr g.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InvalidValueError("nesterov needs a momentum and no dampening", op="SGD")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def init_group(self, group: dict[str, Any]) -> None:
        if group["momentum"]:
            for p in group["params"]:
                # `seen` is 0 before the first step, in which the buffer becomes the plain gradient.
                self.state[p] = {"momentum_buffer": zeros_like(p), "seen": zeros((), dtype=p.dtype)}

    def update(self, group: dict[str, Any], p: Tensor, grad: Tensor, shared: Sequence[Tensor]) -> None:
        if group["weight_decay"]:
            grad = F.add(grad, F.mul(p, group["weight_decay"]))
        momentum = group["momentum"]
        if momentum:
            buffer, seen = self.state[p]["momentum_buffer"], self.state[p]["seen"]
            grown = F.add(F.mul(buffer, momentum), F.mul(grad, 1.0 - group["dampening"]))
            buffer.copy_(F.where(F.eq(seen, 0.0), grad, grown) if group["dampening"] else grown)
            if group["dampening"]:
                seen.fill_(1.0)
            grad = F.add(grad, F.mul(buffer, momentum)) if group["nesterov"] else buffer
        p.sub_(F.mul(grad, group["lr"]))


class Adam(Optimizer):
    """D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, as PyTorch states it.

    g += weight_decay p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g g;
    p -= (lr / (1 - b1^t)) m / (sqrt(v) / sqrt(1 - b2^t) + eps).

    The step count t is a float32 tensor that the parameters of a group share; its powers are computed in float64.
    """

    decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check(self, group: Any) -> None:
        super().check(group)
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise InvalidValueError(f"betas={group['betas']} do not lie in [0, 1)", op=type(self).__name__)

    def init_group(self, group: dict[str, Any]) -> None:
        step = zeros((), dtype=float32)
        for p in group["params"]:
            self.state[p] = {"step": step, "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def begin(self, group: dict[str, Any]) -> Sequence[Tensor]:
        """Count the step; lr / (1 - b1^t) and sqrt(1 - b2^t)."""
        step = self.state[group["params"][0]]["step"]
        step.add_(1.0)
        t = step.to(float64)
        corrections = []
        for beta in group["betas"]:
            decayed = F.exp(F.mul(t, math.log(beta))) if beta else F.mul(t, 0.0)
            corrections.append(F.sub(1.0, decayed))
        return F.div(group["lr"], corrections[0]), F.sqrt(corrections[1])

    def update(self, group: dict[str, Any], p: Tensor, grad: Tensor, shared: Sequence[Tensor]) -> None:
        (beta1, beta2), (step_size, root) = group["betas"], shared
        decay = group["weight_decay"]
        if decay and self.decoupled:
            p.mul_(1.0 - group["lr"] * decay)
        elif decay:
            grad = F.add(grad, F.mul(p, decay))
        mean, square = self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"]
        mean.copy_(F.add(F.mul(mean, beta1), F.mul(grad, 1.0 - beta1)))
        square.copy_(F.add(F.mul(square, beta2), F.mul(F.mul(grad, grad), 1.0 - beta2)))
        denominator = F.add(F.div(F.sqrt(square), root.to(p.dtype)), group["eps"])
        p.sub_(F.mul(F.div(mean, denominator), step_size.to(p.dtype)))


class AdamW(Adam):
    """I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019: p *= 1 - lr weight_decay first."""

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
