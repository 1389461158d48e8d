"""Optimisers that look at a parameter as a whole: Adafactor and Muon, with PyTorch's formulas.

What depends on the number of steps, or is one number for a parameter, is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from kiln import functional as F
from kiln.creation import zeros, zeros_like
from kiln.dtypes import finfo
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.optim.optimizer import (
    Number,
    Optimizer,
    Parameters,
    check_implementation,
    check_number,
    present,
    scale_,
    times,
)
from kiln.tensor import Tensor


def _size(x: Tensor) -> Tensor:
    """The square root of the mean of squares: a float64 number."""
    return F.sqrt(F.sum(F.square(x))).to(T.float64) / math.sqrt(max(x.numel(), 1))


class Adafactor(Optimizer):
    """Adam without momentum, whose second moments of matrices are kept as those of rows and of columns (Shazeer and
    Stern, 2018: "Adafactor: adaptive learning rates with sublinear memory cost").

    With w = t^beta2_decay, row = row + w * (mean of g^2 over columns - row), column likewise, and v is their product
    over the mean of row (for vectors: v = v + w * (g^2 - v)). With u = g / sqrt(max(v, eps[0]^2)),

        p = p - max(eps[1], rms(p)) * min(lr, 1 / sqrt(t)) * u / max(1, rms(u) / d)

    after p = p * (1 - lr * weight_decay). eps[0] None: that of the parameter's dtype.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_implementation({"foreach": foreach}, "Adafactor")
        options = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": tuple(eps),
            "d": d,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        check_number("Adafactor", "lr", group["lr"], 0.0)
        check_number("Adafactor", "weight_decay", group["weight_decay"], 0.0)
        check_number("Adafactor", "d", group["d"], 1.0)
        check_number("Adafactor", "eps[0]", group["eps"][0] or 0.0, 0.0)
        check_number("Adafactor", "eps[1]", group["eps"][1], 0.0)
        if not group["beta2_decay"] <= 0:
            raise InvalidValueError(f"beta2_decay must not be positive, got {group['beta2_decay']}", op="Adafactor")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        if p.dtype.is_complex:
            raise DTypeError("is not defined for complex parameters", op="Adafactor", operands=[p.ttype])
        step = zeros(dtype=T.float64, device=p.device)
        if p.ndim < 2:
            return {"step": step, "variance": zeros_like(p)}
        rows, columns = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        return {
            "step": step,
            "row_var": zeros(rows, dtype=p.dtype, device=p.device),
            "col_var": zeros(columns, dtype=p.dtype, device=p.device),
        }

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        step, lr, (low, floor) = state["step"], group["lr"], group["eps"]
        low = finfo(p.dtype).eps if low is None else low
        step.add_(1.0)
        weight = F.pow(step, float(group["beta2_decay"]))
        rate = F.minimum(F.reciprocal(F.sqrt(step)), lr)
        rate = F.maximum(_size(p), float(floor)) * rate
        if present(group["weight_decay"]):
            scale_(p, 1 - lr * group["weight_decay"])

        def average(old: Tensor, new: Tensor) -> Tensor:
            old.add_(times(new - old, weight))
            return old

        squares = F.square(grad)
        if grad.ndim < 2:
            v = average(state["variance"], squares)
        else:
            row = average(state["row_var"], F.mean(squares, -1, True))
            column = average(state["col_var"], F.mean(squares, -2, True))
            v = (row * column) / F.clamp(F.mean(row, -2, True), min=low)
        change = grad * F.rsqrt(F.clamp(v, min=low * low))
        p.sub_(times(change, rate / F.maximum(_size(change) / float(group["d"]), 1.0)))


_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ADJUSTED: Final = (None, "original", "match_rms_adamw")


def _ratio(kind: str | None, rows: int, columns: int) -> float:
    return 0.2 * math.sqrt(max(rows, columns)) if kind == "match_rms_adamw" else math.sqrt(max(1, rows / columns))


class Muon(Optimizer):
    """Momentum, made orthogonal, for matrices (Jordan et al., 2024: "Muon: an optimizer for hidden layers in neural
    networks"; `adjust_lr_fn` "match_rms_adamw": Liu et al., 2025, "Muon is scalable for LLM training").

    buffer = buffer + (1 - momentum) * (g - buffer); with `nesterov` u = g + momentum * (buffer - g), else u = buffer. u
    is brought near an orthogonal matrix by `ns_steps` steps x = a x + (b x x' + c (x x')^2) x of Newton and Schulz'
    method in bfloat16, and p = p * (1 - lr * weight_decay) - lr * s * u, s being sqrt(max(1, rows / columns)), or
    0.2 * sqrt(max(rows, columns)). ShapeError for parameters that are no matrices.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = _COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients),
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, options)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "weight_decay", "momentum"):
            check_number("Muon", name, group[name], 0.0)
        check_number("Muon", "ns_steps", group["ns_steps"], 0, 100)
        if group["adjust_lr_fn"] not in _ADJUSTED:
            names = '"original" or "match_rms_adamw"'
            raise InvalidValueError(f"adjust_lr_fn must be {names}, got {group['adjust_lr_fn']!r}", op="Muon")
        if len(group["ns_coefficients"]) != 3:
            raise InvalidValueError(f"needs three coefficients, got {group['ns_coefficients']}", op="Muon")

    def create_state(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        if p.ndim != 2:
            raise ShapeError("only trains matrices", op="Muon", operands=[p.ttype], fix="use AdamW for the others")
        if p.dtype.is_complex:
            raise DTypeError("is not defined for complex parameters", op="Muon", operands=[p.ttype])
        return {"momentum_buffer": zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        buffer, lr, rest = state["momentum_buffer"], group["lr"], 1 - group["momentum"]
        buffer.add_(times(grad - buffer, rest))
        u = buffer - times(buffer - grad, rest) if group["nesterov"] else buffer
        u = _orthogonal(u, group["ns_coefficients"], group["ns_steps"], group["eps"])
        scale_(p, 1 - lr * group["weight_decay"])
        p.sub_(times(u.to(p.dtype), lr * _ratio(group["adjust_lr_fn"], *p.shape)))


def _orthogonal(u: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz' iteration. Each of its values is rounded to bfloat16 once."""
    a, b, c = coefficients
    tall = u.shape[0] > u.shape[1]
    x = u.to(T.bfloat16)
    x = x.t() if tall else x
    norm = F.sqrt(F.sum(F.square(x.to(T.float32)))).to(T.bfloat16)
    x = x / F.clamp(norm, min=eps)
    for _ in range(steps):
        wide = x.to(T.float32)
        gram = (wide @ wide.t()).to(T.bfloat16).to(T.float32)
        change = (gram * b + (gram @ gram) * c).to(T.bfloat16).to(T.float32)
        x = (wide * a + change @ wide).to(T.bfloat16)
    return x.t() if tall else x
