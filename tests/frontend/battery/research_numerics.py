"""Physics, signals, interpolation, polynomials, quantisation."""

from __future__ import annotations

import functools
import math
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def many_bodies(c: Any) -> None:
    @c
    def step(x: Any, v: Any, mass: Any, dt: float, softening: float = 0.1) -> Any:
        d = x[None] - x[:, None]
        r = (d.square().sum(-1) + softening**2).sqrt()
        a = (mass[None, :, None] * d / r[..., None] ** 3).sum(1)
        v = v + dt * a
        return x + dt * v, v

    for n, dt in ((3, 0.1), (2, 0.1), (3, 0.05), (3, 0.1)):
        step(draw(n, 2), kiln.zeros(n, 2), kiln.ones(n), dt)


@program
def bounces_at_walls(c: Any) -> None:
    @c
    def step(x: Any, v: Any, dt: float) -> Any:
        x = x + dt * v
        out = (x < 0) | (x > 1)
        hits = int(out.sum())
        if hits:
            v = kiln.where(out, -v, v)
            x = x.clamp(0, 1)
        return x, v, hits

    x, v = vector(0.2, 0.9), vector(-1, 0.5)
    for _ in range(5):
        x, v, _ = step(x, v, 0.1)


@program
def heat_in_place(c: Any) -> None:
    @c
    def step(u: Any, alpha: float, steps: int) -> Any:
        for _ in range(steps):
            u[1:-1] += alpha * (u[2:] - 2 * u[1:-1] + u[:-2])
        return u.sum()

    u = kiln.zeros(6)
    u[3] = 1.0
    for steps in (1, 2, 1):
        step(u, 0.25, steps)


@program
def heat_until_steady(c: Any) -> None:
    @c
    def settle(u: Any, tolerance: float) -> Any:
        n = 0
        while n < 8:
            new = u.clone()
            new[1:-1] = 0.5 * (u[2:] + u[:-2])
            n += 1
            if (new - u).abs().max() < tolerance:
                break
            u = new
        return u, n

    for end in (1.0, 0.01, 1.0):
        settle(vector(0, 0, 0, end), 0.05)


@program
def wave_with_boundaries(c: Any) -> None:
    @c
    def step(now: Any, before: Any, boundary: str) -> Any:
        if boundary == "periodic":
            second = now.roll(1) + now.roll(-1) - 2 * now
        elif boundary == "fixed":
            second = kiln.zeros_like(now)
            second[1:-1] = now[2:] + now[:-2] - 2 * now[1:-1]
        else:
            raise NotImplementedError(boundary)
        return 2 * now - before + 0.25 * second

    for boundary in ("periodic", "fixed", "periodic"):
        step(draw(5), draw(5, seed=1), boundary)
    try:
        step(draw(5), draw(5, seed=1), "open")
    except NotImplementedError as error:
        c.see(str(error))


@program
def stable_time_step(c: Any) -> None:
    @c
    def step(u: Any, dx: float = 0.1) -> Any:
        speed = u.abs().max()
        dt = min(0.5 * dx / float(speed), 0.05) if speed > 0 else 0.05
        flux = 0.5 * u**2
        return u - dt / dx * (flux - flux.roll(1)), dt

    for u in (vector(1, 2, 1), vector(0, 0, 0), vector(1, 2, 1), vector(0.1, 0.2, 0.1)):
        step(u)


@program
def leapfrog_energy(c: Any) -> None:
    def potential(q: Any) -> Any:
        return (q**4).sum() / 4

    @c
    def energy(q: Any, p: Any, n: int) -> Any:
        force = kiln.func.grad(potential)
        for _ in range(n):
            p = p - 0.05 * force(q)
            q = q + 0.1 * p
            p = p - 0.05 * force(q)
        return potential(q) + (p**2).sum() / 2

    for n in (1, 2, 1):
        energy(vector(1, 0.5, grad=True), vector(0, 0.1), n)


@program
def ising_sweep(c: Any) -> None:
    @c
    def sweep(s: Any, beta: float, parity: int) -> Any:
        near = sum(s.roll(d, k) for d in (1, -1) for k in (0, 1))
        flip = kiln.rand(s.shape) < (-2 * beta * s * near).exp()
        rows, columns = kiln.meshgrid(kiln.arange(2), kiln.arange(2), indexing="ij")
        mask = (rows + columns) % 2 == parity
        return kiln.where(flip & mask, -s, s)

    s = kiln.ones(2, 2)
    for n in range(4):
        s = sweep(s, 0.4, n % 2)


@program
def horner(c: Any) -> None:
    def polynomial(x: Any, *coefficients: float) -> Any:
        return functools.reduce(lambda total, a: total * x + a, coefficients)

    f = c(polynomial)
    x = vector(1, 2, grad=True)
    f(x, 1.0, 2.0, 3.0)
    f(x, 1.0, 2.0)
    f(x, 1.0, 2.0, 3.0)
    f(x, 4.0, 2.0, 3.0)


@program
def chebyshev_recurrence(c: Any) -> None:
    @c
    def evaluate(a: Any, x: Any) -> Any:
        before, now = kiln.ones_like(x), x
        total = a[0] * before
        for k in range(1, len(a)):
            total = total + a[k] * now
            before, now = now, 2 * x * now - before
        return total

    for n in (3, 1, 3):
        evaluate(draw(n, grad=True), vector(0.1, 0.5))


@program
def interpolation_table(c: Any) -> None:
    @c
    def look_up(xs: Any, ys: Any, x: Any, outside: str = "clamp") -> Any:
        if outside == "raise" and ((x < xs[0]) | (x > xs[-1])).any():
            raise ValueError(f"{x.min().item():.2f} to {x.max().item():.2f} is outside")
        k = kiln.searchsorted(xs, x).clamp(1, len(xs) - 1)
        t = ((x - xs[k - 1]) / (xs[k] - xs[k - 1])).clamp(0, 1)
        return ys[k - 1] + t * (ys[k] - ys[k - 1])

    xs, ys = vector(0, 1, 3), vector(0, 2, 1)
    look_up(xs, ys, vector(0.5, 2))
    look_up(xs, ys, vector(0.5, 9))
    look_up(xs, ys, vector(0.5, 2), "raise")
    try:
        look_up(xs, ys, vector(0.5, 9), "raise")
    except ValueError as error:
        c.see(str(error))
    look_up(xs, ys, vector(0.7, 2), "raise")


@program
def cubic_spline_kernel(c: Any) -> None:
    @c
    def kernel(r: Any, h: float) -> Any:
        q = r / h
        inner = 1 - 1.5 * q**2 + 0.75 * q**3
        outer = 0.25 * (2 - q) ** 3
        return kiln.where(q < 1, inner, kiln.where(q < 2, outer, 0.0)) / (math.pi * h**3)

    for h in (1.0, 0.5, 1.0):
        kernel(vector(0.2, 1.2, 3), h)


@program
def exponents_in_log_space(c: Any) -> None:
    @c
    def log_mean_exp(x: Any, dim: int | None = None) -> Any:
        top = x.max() if dim is None else x.max(dim, keepdim=True).values
        if kiln.isinf(top).any():
            top = kiln.where(kiln.isinf(top), kiln.zeros_like(top), top)
        y = (x - top).exp()
        return (y.mean() if dim is None else y.mean(dim, keepdim=True)).log() + top

    log_mean_exp(draw(2, 3))
    log_mean_exp(draw(2, 3), 1)
    log_mean_exp(kiln.full((2, 3), -math.inf))
    log_mean_exp(draw(2, 3, seed=1))
    log_mean_exp(draw(2, 3, seed=1), 1)


@program
def integrals_to_a_tolerance(c: Any) -> None:
    def simpson(f: Any, a: float, b: float, tolerance: float, depth: int = 0) -> Any:
        m = (a + b) / 2
        coarse = (b - a) / 6 * (f(a) + 4 * f(m) + f(b))
        fine = (b - a) / 12 * (f(a) + 4 * f((a + m) / 2) + 2 * f(m) + 4 * f((m + b) / 2) + f(b))
        if depth > 3 or (fine - coarse).abs() < tolerance:
            return fine
        return simpson(f, a, m, tolerance / 2, depth + 1) + simpson(f, m, b, tolerance / 2, depth + 1)

    g = c(lambda w, end: simpson(lambda x: (w * x).sin(), 0.0, end, 1e-3))
    for w, end in ((1.0, 1.0), (6.0, 1.0), (1.0, 1.0), (6.0, 1.0)):
        g(kiln.tensor(w, requires_grad=True), end)


@program
def matrix_power_by_squaring(c: Any) -> None:
    @c
    def power(a: Any, n: int) -> Any:
        out = kiln.eye(len(a), dtype=a.dtype)
        while n:
            if n & 1:
                out = out @ a
            a, n = a @ a, n >> 1
        return out

    for n, dtype in ((3, kiln.float32), (0, kiln.float32), (5, kiln.float64), (3, kiln.float32)):
        power(draw(2, 2).to(dtype), n)
