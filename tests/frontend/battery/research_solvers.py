"""Iterations that stop when something small is small enough, as research code writes them."""

from __future__ import annotations

from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


def spd(n: int, seed: int) -> Any:
    """A symmetric positive definite matrix."""
    a = draw(n, n, seed=seed)
    return a @ a.T + n * kiln.eye(n)


@program
def newton_square_root(c: Any) -> None:
    @c
    def root(a: Any, tolerance: float) -> Any:
        x = a.clone()
        while (x * x - a).abs() > tolerance:
            x = 0.5 * (x + a / x)
        return x

    for a in (2.0, 9.0, 2.0, 100.0, 9.0):
        root(kiln.tensor(a), 1e-4)


@program
def bisection(c: Any) -> None:
    @c
    def solve(low: Any, high: Any) -> Any:
        for _ in range(8):
            middle = (low + high) / 2
            if middle**3 - middle - 2 > 0:
                high = middle
            else:
                low = middle
        return (low + high) / 2

    for low, high in ((1.0, 2.0), (0.0, 3.0), (1.0, 2.0), (0.5, 2.0)):
        solve(kiln.tensor(low), kiln.tensor(high))


@program
def fixed_point_with_iteration_count(c: Any) -> None:
    def solve(f: Any, x: Any, tolerance: float = 1e-3, limit: int = 30) -> Any:
        for n in range(limit):
            new = f(x)
            if (new - x).norm() < tolerance:
                return new, n + 1
            x = new
        return x, limit

    g = c(lambda x: solve(lambda y: y.cos(), x))
    for start in (0.7, 3.0, 0.7, -2.0, 0.7):
        g(vector(start, start + 0.1))


@program
def conjugate_gradient(c: Any) -> None:
    @c
    def solve(a: Any, b: Any) -> Any:
        x = kiln.zeros_like(b)
        r = b - a @ x
        p, rr = r, r @ r
        steps = 0
        while rr.sqrt() > 1e-3 and steps < 10:
            ap = a @ p
            alpha = rr / (p @ ap)
            x = x + alpha * p
            r = r - alpha * ap
            new = r @ r
            p = r + (new / rr) * p
            rr = new
            steps += 1
        return x, steps

    for seed in (1, 2, 1):
        solve(spd(3, seed), draw(3, seed=seed))
    solve(spd(4, 1), kiln.zeros(4))
    solve(spd(3, 2), draw(3, seed=2))


@program
def power_iteration(c: Any) -> None:
    @c
    def largest(a: Any, steps: int) -> Any:
        v = kiln.ones(a.shape[0])
        for _ in range(steps):
            v = a @ v
            v = v / v.norm()
        return v @ a @ v, v

    for n, steps in ((3, 4), (2, 6), (3, 4)):
        largest(spd(n, 5), steps)


@program
def power_iteration_until_converged(c: Any) -> None:
    @c
    def largest(a: Any) -> float:
        v, old = kiln.ones(a.shape[0]), float("inf")
        while True:
            v = a @ v
            value = v.norm().item()
            v = v / value
            if abs(value - old) < 0.05:
                break
            old = value
        return value

    for seed in (1, 2, 1, 2):
        largest(spd(3, seed))


@program
def backtracking_line_search(c: Any) -> None:
    def f(x: Any) -> Any:
        return (x**2).sum() + (x - 1).abs().sum()

    @c
    def step(x: Any, rate: float) -> Any:
        x = x.detach().requires_grad_()
        value = f(x)
        (g,) = kiln.autograd.grad(value, [x])
        with kiln.no_grad():
            while f(x - rate * g) > value - 0.5 * rate * (g * g).sum():
                rate *= 0.5
            return x - rate * g, rate

    for x in (vector(3, -2), vector(0.1, 0.2), vector(3, -2)):
        step(x, 1.0)


@program
def gradient_descent_until_flat(c: Any) -> None:
    @c
    def minimise(x: Any, rate: float) -> Any:
        x = x.clone().requires_grad_()
        losses = []
        for _ in range(20):
            loss = ((x - 2) ** 2).sum()
            (g,) = kiln.autograd.grad(loss, x)
            losses.append(loss.detach())
            if g.norm() < 0.5:
                break
            x = (x - rate * g).detach().requires_grad_()
        return x.detach(), kiln.stack(losses)

    for x, rate in ((vector(5), 0.4), (vector(2.1), 0.4), (vector(5), 0.2), (vector(5), 0.4)):
        minimise(x, rate)


@program
def adaptive_ode(c: Any) -> None:
    def slope(y: Any) -> Any:
        return -2 * y

    @c
    def solve(y: Any, end: float, h: float) -> Any:
        t, steps = 0.0, 0
        while t < end:
            h = min(h, end - t)
            whole = y + h * slope(y)
            half = y + h / 2 * slope(y)
            half = half + h / 2 * slope(half)
            error = (whole - half).abs().max()
            if error > 0.05:
                h = h / 2
                continue
            t, y, steps = t + h, half, steps + 1
            if error < 0.005:
                h = h * 2
        return y, steps

    for y in (1.0, 4.0, 1.0):
        solve(vector(y, y / 2), 1.0, 0.25)


@program
def runge_kutta(c: Any) -> None:
    def solve(f: Any, y: Any, times: Any) -> Any:
        out = [y]
        for t0, t1 in zip(times[:-1], times[1:], strict=True):  # noqa: RUF007 (tensors are sliced)
            h = t1 - t0
            k1 = f(t0, y)
            k2 = f(t0 + h / 2, y + h / 2 * k1)
            k3 = f(t0 + h / 2, y + h / 2 * k2)
            k4 = f(t1, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            out.append(y)
        return kiln.stack(out)

    g = c(lambda y, times: solve(lambda t, y: t * y.sin(), y, times))
    for times in ([0.0, 0.5, 1.0], [0.0, 0.1], [0.0, 0.5, 1.0]):
        g(vector(1, 2), times)
        g(vector(1, 2), kiln.tensor(times))


@program
def secant_with_failure(c: Any) -> None:
    @c
    def solve(f_low: Any, x0: Any, x1: Any) -> Any:
        for _ in range(6):
            y0, y1 = x0**2 - f_low, x1**2 - f_low
            if (y1 - y0).abs() < 1e-6:
                raise ArithmeticError(f"flat near {x1.item():.3f}")
            x0, x1 = x1, x1 - y1 * (x1 - x0) / (y1 - y0)
            if (x1 - x0).abs() < 1e-3:
                return x1
        return None

    for a, x0, x1 in ((2.0, 1.0, 2.0), (4.0, 1.0, -1.0), (2.0, 1.0, 2.0)):
        try:
            solve(kiln.tensor(a), kiln.tensor(x0), kiln.tensor(x1))
        except ArithmeticError as error:
            c.see(str(error))


@program
def jacobi_with_dominance_check(c: Any) -> None:
    @c
    def solve(a: Any, b: Any, sweeps: int = 5) -> Any:
        d = a.diagonal()
        rest = a - kiln.diag(d)
        if not (d.abs() > rest.abs().sum(1)).all():
            return None
        x = kiln.zeros_like(b)
        for _ in range(sweeps):
            x = (b - rest @ x) / d
        return x

    good, bad = spd(3, 1) + 10 * kiln.eye(3), kiln.ones(3, 3)
    for a in (good, bad, good, bad):
        solve(a, vector(1, 2, 3))


@program
def gauss_seidel_in_place(c: Any) -> None:
    @c
    def sweep(a: Any, b: Any, x: Any) -> Any:
        for i in range(len(b)):
            x[i] = (b[i] - a[i] @ x + a[i, i] * x[i]) / a[i, i]
        return (a @ x - b).norm()

    a, x = spd(3, 2), kiln.zeros(3)
    for _ in range(3):
        sweep(a, vector(1, 2, 3), x)
    sweep(spd(2, 2), vector(1, 2), kiln.zeros(2))


@program
def gram_schmidt(c: Any) -> None:
    @c
    def orthonormal(vectors: Any) -> Any:
        basis: list[Any] = []
        for v in vectors:
            for b in basis:
                v = v - (v @ b) * b
            if v.norm() > 1e-4:
                basis.append(v / v.norm())
        return kiln.stack(basis), len(basis)

    full = draw(3, 3, seed=1)
    flat = kiln.stack([full[0], 2 * full[0], full[2]])
    for m in (full, flat, full, flat):
        orthonormal(m)


@program
def pivoted_elimination(c: Any) -> None:
    @c
    def eliminate(a: Any) -> Any:
        a = a.clone()
        swaps = []
        for k in range(a.shape[0] - 1):
            p = int(a[k:, k].abs().argmax()) + k
            if p != k:
                a[[k, p]] = a[[p, k]]
                swaps.append((k, p))
            for i in range(k + 1, a.shape[0]):
                a[i] -= a[i, k] / a[k, k] * a[k]
        return a, swaps

    for seed in (1, 2, 1):
        eliminate(draw(3, 3, seed=seed))


@program
def sinkhorn(c: Any) -> None:
    @c
    def plan(cost: Any, epsilon: float = 0.5, tolerance: float = 1e-2) -> Any:
        k = (-cost / epsilon).exp()
        u = v = kiln.ones(cost.shape[0])
        for n in range(15):
            u_before = u
            u = 1 / (k @ v)
            v = 1 / (k.T @ u)
            if n > 0 and (u - u_before).abs().max().item() < tolerance:
                break
        return u[:, None] * k * v

    for seed in (1, 2, 1):
        plan(draw(3, 3, seed=seed).abs())


@program
def anderson_history(c: Any) -> None:
    @c
    def accelerate(x: Any, memory: int) -> Any:
        xs, fs = [], []
        for _ in range(5):
            f = x.cos()
            xs, fs = [*xs, x][-memory:], [*fs, f - x][-memory:]
            if len(fs) > 1:
                d = fs[-1] - fs[-2]
                w = (fs[-1] @ d) / (d @ d + 1e-8)
                x = f - w * (xs[-1] - xs[-2] + d)
            else:
                x = f
        return x

    for memory in (2, 3, 2):
        accelerate(vector(0.5, 2), memory)
