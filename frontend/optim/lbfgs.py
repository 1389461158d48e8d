"""L-BFGS: steps along directions from a history of gradients, for functions that can be evaluated again.

Two-loop recursion: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.4; line search: ibid. algorithms
3.5 and 3.6 with the cubic interpolation of (3.59). The decisions and tolerances are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kiln import functional as F
from kiln.autograd import enable_grad, no_grad
from kiln.base import MODES
from kiln.creation import zeros
from kiln.errors import ArgumentError, InvalidValueError, NotYetError
from kiln.optim.optimizer import Number, Optimizer, Parameters, check_number
from kiln.tensor import Tensor

_ARMIJO, _CURVATURE = 1e-4, 0.9


class LBFGS(Optimizer):
    """Minimise by L-BFGS. `step(closure)` takes up to `max_iter` iterations and `max_eval` evaluations (by default a
    quarter more than max_iter) and returns the loss that it began with; `closure` clears the gradients, computes the
    loss, calls `backward()` and returns it.

    It ends early when no gradient is above `tolerance_grad`, or when steps or losses change by less than
    `tolerance_change`. `line_search_fn` is None (a step of `lr`) or "strong_wolfe". There is one group of parameters.

    What it does next depends on tensor data, so it can't be part of a compiled function (CaptureError); its closure
    may be one.
    """

    def __init__(
        self,
        params: Parameters,
        lr: Number = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, options)
        if len(self.param_groups) != 1:
            raise InvalidValueError("takes one group of parameters", op="LBFGS")
        self._params: list[Tensor] = self.param_groups[0]["params"]
        if any(x.dtype.is_complex for x in self._params):
            raise NotYetError("complex parameters are not supported", op="LBFGS", fix="train view_as_real of them")

    def check(self, group: Mapping[str, Any]) -> None:
        check_number(type(self).__name__, "lr", group["lr"], 0.0)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise InvalidValueError(
                f'line_search_fn must be None or "strong_wolfe", got {group["line_search_fn"]!r}', op="LBFGS"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterate as the class says; the first loss."""
        if closure is None:
            raise ArgumentError("needs a closure that computes the loss and its gradients", op="LBFGS.step")
        if MODES.recorder is not None:
            MODES.recorder.forbid(self._params[0], "LBFGS.step()")
        with no_grad():
            return self._minimise(closure)

    def _minimise(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        lr, tolerance = float(group["lr"]), group["tolerance_change"]
        state = self.state[self._params[0]]
        for name in ("func_evals", "n_iter"):
            state.setdefault(name, 0)
        first, loss, g = self._evaluate(closure)
        evaluations, state["func_evals"] = 1, state["func_evals"] + 1
        if _largest(g) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, g, group["history_size"])
            before, state["prev_flat_grad"] = loss, g.clone()
            t = min(1.0, 1.0 / _number(g.abs().sum())) * lr if state["n_iter"] == 1 else lr
            slope = _dot(g, d)
            state["d"], state["t"], state["prev_loss"] = d, t, before
            if slope > -tolerance:
                break
            used = 0
            if group["line_search_fn"] is not None:
                search = _LineSearch(self._along(closure, d), loss, g, slope, _largest(d), tolerance)
                loss, g, t, used = search.run(t, group["max_eval"] - evaluations)
                state["t"] = t
                self._move(t, d)
            else:
                self._move(t, d)
                if iteration != group["max_iter"]:  # after the last step nobody needs the loss
                    _, loss, g = self._evaluate(closure)
                    used = 1
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or _largest(g) <= group["tolerance_grad"]
                or _largest(d * t) <= tolerance
                or abs(loss - before) < tolerance
            ):
                break
        return first

    def _direction(self, state: dict[str, Any], g: Tensor, history: int) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient, after the last step went into the history."""
        if state["n_iter"] == 1:
            state["old_dirs"], state["old_stps"], state["ro"], state["H_diag"] = [], [], [], 1.0
            return -g
        dirs, steps, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = g - state["prev_flat_grad"], state["d"] * state["t"]
        ys = _dot(y, s)
        if ys > 1e-10:
            if len(dirs) == history:
                for kept in (dirs, steps, ro):
                    kept.pop(0)
            dirs.append(y)
            steps.append(s)
            ro.append(1.0 / ys)
            state["H_diag"] = ys / _dot(y, y)
        q = -g
        shares = [0.0] * len(dirs)
        for i in reversed(range(len(dirs))):
            shares[i] = _dot(steps[i], q) * ro[i]
            q = q - dirs[i] * shares[i]
        r: Tensor = q * state["H_diag"]
        for i in range(len(dirs)):
            r = r + steps[i] * (shares[i] - _dot(dirs[i], r) * ro[i])
        return r

    # ------------------------------------------------------------------ parameters as one vector

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[Any, float, Tensor]:
        """What the closure returned, as a number too, and the gradient."""
        with enable_grad():
            loss = closure()
        flat = [
            zeros(p.numel(), dtype=p.dtype, device=p.device) if p.grad is None else p.grad.detach().reshape(-1)
            for p in self._params
        ]
        return loss, float(loss), F.cat(flat)

    def _move(self, t: float, d: Tensor) -> None:
        offset = 0
        for p in self._params:
            p.add_(d[offset : offset + p.numel()].reshape(p.shape) * t)
            offset += p.numel()

    def _along(self, closure: Callable[[], Any], d: Tensor) -> Callable[[float], tuple[float, Tensor, float]]:
        """Loss, gradient and slope as a function of the step along `d`; the parameters stay where they are."""
        start = [p.detach().clone() for p in self._params]

        def evaluate(t: float) -> tuple[float, Tensor, float]:
            self._move(t, d)
            _, loss, g = self._evaluate(closure)
            for p, value in zip(self._params, start, strict=True):
                p.copy_(value)
            return loss, g, _dot(g, d)

        return evaluate


class _Point:
    """A step along the direction: its length, and loss, gradient and slope there."""

    def __init__(self, t: float, loss: float, g: Tensor, slope: float) -> None:
        self.t, self.loss, self.g, self.slope = t, loss, g, slope


class _LineSearch:
    """A step length that meets the strong Wolfe conditions, first bracketed and then narrowed down."""

    def __init__(
        self,
        along: Callable[[float], tuple[float, Tensor, float]],
        loss: float,
        g: Tensor,
        slope: float,
        size: float,
        tolerance: float,
    ) -> None:
        self.along = along
        self.start = _Point(0.0, loss, g, slope)
        self.size = size
        self.tolerance = tolerance
        self.evaluations = 0

    def run(self, t: float, limit: int) -> tuple[float, Tensor, float, int]:
        """(loss, gradient, step, evaluations), beginning with step `t`."""
        bracket, iterations = self._bracket(t, limit)
        best = self._narrow(bracket, iterations, limit) if len(bracket) == 2 else bracket[0]
        return best.loss, best.g, best.t, self.evaluations

    def _at(self, t: float) -> _Point:
        self.evaluations += 1
        return _Point(t, *self.along(t))

    def _too_high(self, p: _Point) -> bool:
        return p.loss > self.start.loss + _ARMIJO * p.t * self.start.slope

    def _flat(self, p: _Point) -> bool:
        return abs(p.slope) <= -_CURVATURE * self.start.slope

    def _bracket(self, t: float, limit: int) -> tuple[list[_Point], int]:
        """One point that will do, or two with such a point between them."""
        before, point = self.start, self._at(t)
        for iteration in range(limit):
            if self._too_high(point) or (iteration > 1 and point.loss >= before.loss):
                return [before, point], iteration
            if self._flat(point):
                return [point], iteration
            if point.slope >= 0:
                return [before, point], iteration
            low, high = point.t + 0.01 * (point.t - before.t), point.t * 10
            t = _interpolate(before, point, low, high)
            before, point = point, self._at(t)
        return [self.start, point], limit

    def _narrow(self, bracket: list[_Point], iterations: int, limit: int) -> _Point:
        low, high = _ordered(bracket)
        stuck = False
        for _ in range(iterations, limit):
            left, right = min(low.t, high.t), max(low.t, high.t)
            if (right - left) * self.size < self.tolerance:
                break
            t = _interpolate(bracket[0], bracket[1], left, right)
            margin = 0.1 * (right - left)
            if min(right - t, t - left) < margin:  # too close to an end
                if stuck or t >= right or t <= left:
                    t = right - margin if abs(t - right) < abs(t - left) else left + margin
                    stuck = False
                else:
                    stuck = True
            else:
                stuck = False
            point = self._at(t)
            at_low, at_high = bracket.index(low), bracket.index(high)
            if self._too_high(point) or point.loss >= low.loss:
                bracket[at_high] = point
                low, high = _ordered(bracket)
                continue
            if self._flat(point):
                return point
            if point.slope * (high.t - low.t) >= 0:
                bracket[at_high] = high = low
            bracket[at_low] = low = point
        return low


def _ordered(bracket: list[_Point]) -> tuple[_Point, _Point]:
    """The two points, the one with the lower loss first."""
    a, b = bracket
    return (a, b) if a.loss <= b.loss else (b, a)


def _interpolate(a: _Point, b: _Point, low: float, high: float) -> float:
    """The minimum of the cubic through two points with their slopes, kept within bounds; their middle without one."""
    if a.t > b.t:
        a, b = b, a
    if a.t == b.t:
        return (low + high) / 2.0
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return (low + high) / 2.0
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor), low), high)


def _number(x: Tensor) -> float:
    return float(x.item())


def _dot(a: Tensor, b: Tensor) -> float:
    return _number((a * b).sum())


def _largest(x: Tensor) -> float:
    return _number(x.abs().max())
