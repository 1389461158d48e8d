"""Optimisers that scale each element's step by its own past gradients: PyTorch's formulas, in PyTorch's order.

In all of them t counts a parameter's steps (a float64 tensor, as is what depends on it alone), g is
grad + weight_decay * p, and `maximize` turns the gradient round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kiln import functional as F
from kiln.complexes import view_as_real
from kiln.creation import full_like, tensor, zeros, zeros_like
from kiln.errors import InvalidValueError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
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
from kiln.promotion import apply
from kiln.tensor import Tensor


class RMSprop(Optimizer):
    """v = v * alpha + g * (1 - alpha) * g, and p = p - lr * g / (sqrt(v) + eps) (Hinton's lecture 6e).

    `centered` takes the square of g's own running mean from v under the root. With momentum the quotient is gathered
    first: buffer = buffer * momentum + g / (sqrt(v) + eps), and p = p - lr * buffer.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "RMSprop")
        options = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            check_number(type(self).__name__, name, group[name], 0.0)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        state = {"step": zeros(dtype=T.float64, device=p.device), "square_avg": zeros_like(p)}
        if present(group["momentum"]):
            state["momentum_buffer"] = zeros_like(p)
        if group["centered"]:
            state["grad_avg"] = zeros_like(p)
        return state

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        v, alpha, momentum, lr = state["square_avg"], group["alpha"], group["momentum"], group["lr"]
        state["step"].add_(1.0)
        g = decayed(grad, p, group["weight_decay"])
        v.mul_(alpha)
        v.add_(g * (1.0 - alpha) * g)
        if group["centered"]:
            mean = state["grad_avg"]
            mean.add_((g - mean) * (1.0 - alpha))
            v = v - mean * mean
        scale = v.sqrt() + group["eps"]
        if present(momentum):
            buffer = state["momentum_buffer"]
            scale_(buffer, momentum)
            buffer.add_(g / scale)
            p.sub_(times(buffer, lr))
        else:
            p.sub_(times(g, lr) / scale)


class Adagrad(Optimizer):
    """v = v + g * g, and p = p - g * (lr / (1 + (t - 1) * lr_decay)) / (sqrt(v) + eps) (Duchi et al., 2011)."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "Adagrad")
        options = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            check_number(type(self).__name__, name, group[name], 0.0)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        start = float(group["initial_accumulator_value"])
        both = complex(start, start) if p.dtype.is_complex else start
        return {"step": zeros(dtype=T.float64, device=p.device), "sum": full_like(p, both)}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, v = state["step"], state["sum"]
        step.add_(1.0)
        g = decayed(grad, p, group["weight_decay"])
        rate = group["lr"] / (1.0 + (step - 1.0) * group["lr_decay"])
        v.add_(g * g)
        p.sub_(times(g, rate) / (v.sqrt() + group["eps"]))


class Adadelta(Optimizer):
    """v = v * rho + g * (1 - rho) * g; d = sqrt(u + eps) / sqrt(v + eps) * g; u = u * rho + d * (1 - rho) * d, and
    p = p - lr * d (Zeiler, 2012)."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "Adadelta")
        options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_number(type(self).__name__, name, group[name], 0.0)
        if not 0.0 <= group["rho"] <= 1.0:
            raise InvalidValueError(f"rho must be in [0, 1], got {group['rho']!r}", op="Adadelta")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "step": zeros(dtype=T.float64, device=p.device),
            "square_avg": zeros_like(p),
            "acc_delta": zeros_like(p),
        }

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        v, u, rho, eps = state["square_avg"], state["acc_delta"], group["rho"], group["eps"]
        state["step"].add_(1.0)
        g = decayed(grad, p, group["weight_decay"])
        v.mul_(rho)
        v.add_(g * (1.0 - rho) * g)
        delta = (u + eps).sqrt() / (v + eps).sqrt() * g
        u.mul_(rho)
        u.add_(delta * (1.0 - rho) * delta)
        p.sub_(times(delta, group["lr"]))


class Adamax(Optimizer):
    """Adam with the largest gradient in place of the root mean square (Kingma and Ba, 2015):
    m = m + (g - m) * (1 - beta1); u = max(u * beta2, |g| + eps), and p = p - m * (lr / (1 - beta1 ** t)) / u."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "Adamax")
        options = {"lr": lr, "betas": as_pair(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        _check_adam(type(self).__name__, group)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": zeros(dtype=T.float64, device=p.device), "exp_avg": zeros_like(p), "exp_inf": zeros_like(p)}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, m, u, (beta1, beta2) = state["step"], state["exp_avg"], state["exp_inf"], group["betas"]
        step.add_(1.0)
        g = decayed(grad, p, group["weight_decay"])
        m.add_(times(g - m, 1.0 - beta1))
        u.copy_(F.maximum(times(u, beta2), g.abs() + group["eps"]))
        p.sub_(times(m, group["lr"] / (1.0 - beta1**step)) / u)


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016). With mu(t) = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)), and
    M the product of all mu so far:

        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * (1 - beta2) * g
        d = sqrt(v / (1 - beta2 ** t)) + eps
        p = p - g * (lr * (1 - mu(t)) / (1 - M)) / d
        p = p - m * (lr * mu(t + 1) / (1 - M * mu(t + 1))) / d
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "NAdam")
        options = {
            "lr": lr,
            "betas": as_pair(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        _check_adam(type(self).__name__, group)
        check_number(type(self).__name__, "momentum_decay", group["momentum_decay"], 0.0)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        one = tensor(1.0, dtype=T.float64, device=p.device)
        step = zeros(dtype=T.float64, device=p.device)
        return {"step": step, "mu_product": one, "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, product, m, v = state["step"], state["mu_product"], state["exp_avg"], state["exp_avg_sq"]
        (beta1, beta2), lr, wane = group["betas"], group["lr"], group["momentum_decay"]
        step.add_(1.0)
        g = _weights_decayed(p, grad, group)
        mu = beta1 * (1.0 - 0.5 * (0.96 ** (step * wane)))
        mu_next = beta1 * (1.0 - 0.5 * (0.96 ** ((step + 1.0) * wane)))
        product.mul_(mu)
        m.add_(times(g - m, 1.0 - beta1))
        scale_(v, beta2)
        v.add_(times(g, 1.0 - beta2) * g)
        scale = (v / at(1.0 - beta2**step, p)).sqrt() + group["eps"]
        p.sub_(times(g, lr * (1.0 - mu) / (1.0 - product)) / scale)
        p.sub_(times(m, lr * mu_next / (1.0 - product * mu_next)) / scale)


class RAdam(Optimizer):
    """Adam whose rate is rectified while there are few gradients (Liu et al., 2020). With r = 2 / (1 - beta2) - 1 and
    r(t) = r - 2 * t * beta2 ** t / (1 - beta2 ** t):

        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * (1 - beta2) * g
        d = m / (1 - beta1 ** t) * lr
        p = p - (d * (sqrt(1 - beta2 ** t) / (sqrt(v) + eps)) * rect(t)   if r(t) > 5 else   d)
        rect(t) = sqrt((r(t) - 4) * (r(t) - 2) * r / ((r - 4) * (r - 2) * r(t)))
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "RAdam")
        options = {
            "lr": lr,
            "betas": as_pair(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        _check_adam(type(self).__name__, group)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": zeros(dtype=T.float64, device=p.device), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, m, v, (beta1, beta2) = state["step"], state["exp_avg"], state["exp_avg_sq"], group["betas"]
        step.add_(1.0)
        g = _weights_decayed(p, grad, group)
        m.add_(times(g - m, 1.0 - beta1))
        scale_(v, beta2)
        v.add_(times(g, 1.0 - beta2) * g)
        left = 1.0 - beta2**step
        long = 2.0 / (1.0 - beta2) - 1.0
        length = long - 2.0 * step * (beta2**step) / left
        rect = ((length - 4.0) * (length - 2.0) * long / ((long - 4.0) * (long - 2.0) * length)).sqrt()
        delta = times(m / at(1.0 - beta1**step, p), group["lr"])
        rectified = times(delta * (at(left.sqrt(), p) / (v.sqrt() + group["eps"])), rect)
        p.sub_(F.where(length > 5.0, rectified, delta))


class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun, 1993): each element has a step size, times etas[1] (at most
    step_sizes[1]) when its gradient keeps its sign, times etas[0] (at least step_sizes[0]) when that changes; then the
    gradient counts as 0 once. p = p - sign(g) * size. There is no weight decay."""

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "Rprop")
        options = {"lr": lr, "etas": tuple(etas), "step_sizes": tuple(step_sizes), "maximize": maximize}
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        check_number(type(self).__name__, "lr", group["lr"], 0.0)
        if not 0.0 < group["etas"][0] < 1.0 < group["etas"][1]:
            raise InvalidValueError(f"etas must lie below and above 1, got {group['etas']!r}", op="Rprop")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        size = zeros_like(p)
        (view_as_real(size) if p.dtype.is_complex else size).fill_(group["lr"])
        return {"step": zeros(dtype=T.float64, device=p.device), "prev": zeros_like(p), "step_size": size}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        size, before = state["step_size"], state["prev"]
        (less, more), (smallest, largest) = group["etas"], group["step_sizes"]
        state["step"].add_(1.0)
        turn = grad * before
        turned = turn < 0.0
        factor = F.where(turn > 0.0, more, F.where(turned, less, zeros_like(p) + 1.0))
        size.copy_((size * factor).clamp(smallest, largest))
        g = F.where(turned, 0.0, grad)
        p.sub_(apply(OPS["sign"], g) * size)
        before.copy_(g)


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky, 1992). With eta (lr at first) and mu (1 at first):

        p = p * (1 - lambd * eta) - g * eta
        ax = ax + (p - ax) * mu   (p where mu is 1)
        eta = lr / (1 + lambd * lr * t) ** alpha
        mu = 1 / max(1, t - t0)

    The average is `state[p]["ax"]`.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **implementation: bool | None,
    ) -> None:
        check_implementation(implementation, "ASGD")
        options = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            check_number(type(self).__name__, name, group[name], 0.0)

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        eta = zeros(dtype=T.float64, device=p.device)
        eta.fill_(group["lr"])
        one = tensor(1.0, dtype=T.float64, device=p.device)
        return {"step": zeros(dtype=T.float64, device=p.device), "eta": eta, "mu": one, "ax": zeros_like(p)}

    @elementwise
    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, eta, mu, average, lr = state["step"], state["eta"], state["mu"], state["ax"], group["lr"]
        step.add_(1.0)
        g = decayed(grad, p, group["weight_decay"])
        scale_(p, 1.0 - group["lambd"] * eta)
        p.sub_(times(g, eta))
        average.copy_(F.where(mu == 1.0, p, average + times(p - average, mu)))
        eta.copy_(lr / (1.0 + group["lambd"] * lr * step) ** group["alpha"])
        mu.copy_(1.0 / F.maximum(step - group["t0"], 1.0))


def _check_adam(op: str, group: Mapping[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay"):
        check_number(op, name, group[name], 0.0)
    check_betas(op, group["betas"])


def _weights_decayed(p: Tensor, grad: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The gradient with weight decay in it, or as it is after the weights decayed by themselves."""
    decay = group["weight_decay"]
    if not group["decoupled_weight_decay"]:
        return decayed(grad, p, decay)
    if present(decay):
        scale_(p, 1.0 - group["lr"] * decay)
    return grad
