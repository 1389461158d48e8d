"""Steps of optimisers, and what stands around them in training code."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


def model() -> Any:
    return nn.Sequential(linear(2, 3), nn.Tanh(), linear(3, 1, seed=5))


@program
def clip_by_norm(c: Any) -> None:
    @c
    def clip(gradients: Any, largest: float) -> Any:
        total = kiln.stack([g.norm() for g in gradients]).norm()
        if total > largest:
            scale = largest / (total + 1e-6)
            for g in gradients:
                g.mul_(scale)
        return total

    for size in (0.1, 5.0, 0.1, 5.0):
        gradients = [vector(size, 1), vector(2 * size)]
        clip(gradients, 2.0)
        c.see(gradients)


@program
def golden_section(c: Any) -> None:
    ratio = (math.sqrt(5) - 1) / 2

    @c
    def minimum(f: Any, a: float, b: float) -> Any:
        a, b = kiln.tensor(a), kiln.tensor(b)
        for _ in range(6):
            p, q = b - ratio * (b - a), a + ratio * (b - a)
            a, b = (a, q) if f(p) < f(q) else (p, b)
        return (a + b) / 2

    f, g = (lambda x: (x - 1) ** 2), (lambda x: (x + 1) ** 2)
    for h in (f, g, f, g):
        minimum(h, -3.0, 3.0)


@program
def newton_with_hessian(c: Any) -> None:
    @c
    def step(x: Any) -> Any:
        x = x.detach().requires_grad_()
        loss = (x**4).sum() + (x[0] * x[1]) ** 2
        (g,) = kiln.autograd.grad(loss, x, create_graph=True)
        rows = [kiln.autograd.grad(g[i], x, retain_graph=True)[0] for i in range(2)]
        h = kiln.stack(rows)
        return (x - kiln.linalg.solve(h + 1e-3 * kiln.eye(2), g)).detach()

    x = vector(1, 2)
    for _ in range(4):
        x = step(x)


@program
def armijo_with_while_else(c: Any) -> None:
    @c
    def search(x: Any, slope: Any) -> Any:
        rate, tries = 1.0, 0
        while tries < 3:
            if ((x - rate * slope) ** 2).sum() < (x**2).sum():
                break
            rate, tries = rate / 4, tries + 1
        else:
            return None, tries
        return x - rate * slope, tries

    for x, s in ((vector(1), vector(1)), (vector(1), vector(20)), (vector(1), vector(-1)), (vector(1), vector(20))):
        search(x, s)


@program
def simulated_annealing(c: Any) -> None:
    @c
    def anneal(x: Any, temperature: float) -> Any:
        best = x
        for _ in range(3):
            new = x + 0.5 * kiln.randn(2)
            worse = (new**2).sum() - (x**2).sum()
            if worse < 0 or kiln.rand(()) < (-worse / temperature).exp():
                x = new
            if (x**2).sum() < (best**2).sum():
                best = x
            temperature *= 0.5
        return best

    for _ in range(5):
        anneal(vector(1, -2), 1.0)


@program
def nelder_mead_reflection(c: Any) -> None:
    def f(x: Any) -> Any:
        return ((x - kiln.tensor([1.0, 2.0])) ** 2).sum(-1)

    @c
    def step(simplex: Any) -> Any:
        order = f(simplex).argsort()
        simplex = simplex[order]
        centre = simplex[:-1].mean(0)
        reflected = 2 * centre - simplex[-1]
        if f(reflected) < f(simplex[0]):
            new = 3 * centre - 2 * simplex[-1]
        elif f(reflected) < f(simplex[-2]):
            new = reflected
        else:
            new = (centre + simplex[-1]) / 2
        return kiln.cat([simplex[:-1], new[None]])

    s = kiln.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for _ in range(6):
        s = step(s)


@program
def early_stopping(c: Any) -> None:
    @c
    def train(w: Any, x: Any, patience: int) -> Any:
        best, bad, history = float("inf"), 0, []
        steps = 0
        for steps in range(6):  # noqa: B007 (it is returned)
            loss = ((w * x - 1) ** 2).mean()
            (g,) = kiln.autograd.grad(loss, w)
            value = loss.item()
            history.append(value)
            if value < best - 1e-2:
                best, bad = value, 0
            else:
                bad += 1
                if bad >= patience:
                    break
            w = (w - 0.3 * g).detach().requires_grad_()
        return w.detach(), best, steps, history

    for start, patience in ((0.0, 1), (0.9, 1), (0.0, 2), (0.0, 1)):
        train(vector(start, grad=True), vector(1.0), patience)


@program
def warm_up_and_cosine_in_the_step(c: Any) -> None:
    def rate(step: int, warm: int = 2, total: int = 6) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))

    @c
    def update(w: Any, g: Any, step: int) -> Any:
        with kiln.no_grad():
            w -= 0.1 * rate(step) * g
        return w

    w = vector(1, 2)
    for step in (0, 1, 2, 3, 0, 1):
        update(w, vector(1, 1), step)


@program
def averaged_weights(c: Any) -> None:
    net, average = model(), copy.deepcopy(model())

    @c
    @kiln.no_grad()
    def update(decay: float) -> None:
        for a, p in zip(average.parameters(), net.parameters(), strict=True):
            a.mul_(decay).add_(p, alpha=1 - decay)

    for decay in (0.9, 0.5, 0.9):
        with kiln.no_grad():
            for p in net.parameters():
                p.add_(1)
        update(decay)


@program
def averaged_weights_from_some_step_on(c: Any) -> None:
    w, average, count = vector(1, 2), vector(0, 0), kiln.tensor(0)

    @c
    def update() -> Any:
        count.add_(1)
        if count > 2:
            average.lerp_(w, 1 / (count - 1))
        return average.clone()

    for _ in range(5):
        w.add_(1)
        update()


@program
def adam_by_hand(c: Any) -> None:
    @dataclass
    class Adam:
        m: Any
        v: Any
        t: Any

        def step(self, w: Any, g: Any, rate: float = 0.1) -> Any:
            self.t += 1
            self.m.mul_(0.9).add_(g, alpha=0.1)
            self.v.mul_(0.99).addcmul_(g, g, value=0.01)
            m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.99**self.t)
            w.sub_(rate * m / (v.sqrt() + 1e-8))
            return w

    adam = Adam(kiln.zeros(2), kiln.zeros(2), kiln.tensor(0.0))
    step = c(adam.step)
    w = vector(1, 2)
    for n in range(4):
        step(w, vector(n, 1))


@program
def adam_that_counts_in_python(c: Any) -> None:
    state: dict[str, Any] = {"t": 0, "m": kiln.zeros(2)}

    @c
    def step(w: Any, g: Any) -> Any:
        state["t"] += 1
        state["m"] = 0.9 * state["m"] + 0.1 * g
        return w - state["m"] / (1 - 0.9 ** state["t"])

    w = vector(1, 2)
    for _ in range(4):
        w = step(w, vector(1, 1))


@program
def gradient_accumulation_by_step_number(c: Any) -> None:
    net = model()
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.1)

    @c
    def micro(x: Any, number: int) -> Any:
        loss = net(x).square().mean() / 2
        loss.backward()
        if (number + 1) % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    for n in range(4):
        micro(draw(2, 2, seed=n), n)


@program
def skip_steps_that_are_not_finite(c: Any) -> None:
    w = vector(1, 2, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)

    @c
    def step(x: Any) -> bool:
        optimizer.zero_grad()
        loss = (w * x).log().sum()
        loss.backward()
        if not kiln.isfinite(loss):
            return False
        optimizer.step()
        return True

    for x in (vector(1, 1), vector(-1, 1), vector(1, 1), vector(0, 1)):
        step(x)


@program
def loss_scaling(c: Any) -> None:
    w = vector(1, 2, grad=True)
    scale = kiln.tensor(1024.0)

    @c
    def step(x: Any) -> Any:
        w.grad = None
        ((w * x).exp().sum() * scale).backward()
        g = w.grad / scale
        if kiln.isinf(g).any() or kiln.isnan(g).any():
            scale.mul_(0.5)
            return None
        with kiln.no_grad():
            w.sub_(0.01 * g)
        scale.mul_(2)
        return g

    for x in (vector(1, 1), vector(90, 1), vector(1, 1), vector(90, 1)):
        step(x)


@program
def weight_decay_for_matrices_only(c: Any) -> None:
    net = model()
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = kiln.optim.AdamW(groups, lr=0.1)

    @c
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).mean()
        loss.backward()
        optimizer.step()
        return loss

    for n in (2, 3, 2):
        step(draw(n, 2))
