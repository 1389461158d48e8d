"""Schedules, schemes of training, and losses of reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


def model() -> Any:
    return nn.Sequential(linear(2, 3), nn.Tanh(), linear(3, 1, seed=5))


@program
def model_agnostic_inner_loop(c: Any) -> None:
    net = model()

    @c
    def outer(x: Any, y: Any, inner: int) -> Any:
        weights = dict(net.named_parameters())
        for _ in range(inner):
            loss = F.mse_loss(kiln.func.functional_call(net, weights, (x,)), y)
            grads = kiln.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {k: w - 0.1 * g for (k, w), g in zip(weights.items(), grads, strict=True)}
        return F.mse_loss(kiln.func.functional_call(net, weights, (x,)), y)

    for inner in (1, 2, 1):
        outer(draw(2, 2), draw(2, 1, seed=1), inner)


@program
def hyper_gradient_of_the_rate(c: Any) -> None:
    rate = kiln.tensor(0.1, requires_grad=True)

    @c
    def unrolled(w: Any, steps: int) -> Any:
        for _ in range(steps):
            (g,) = kiln.autograd.grad((w**4).sum(), w, create_graph=True)
            w = w - rate * g
        return (w**2).sum()

    for steps in (1, 2, 1):
        unrolled(vector(0.5, 1, grad=True), steps)


@program
def gradient_penalty(c: Any) -> None:
    critic = model()

    @c
    def loss(real: Any, fake: Any, weight: float) -> Any:
        value = critic(fake).mean() - critic(real).mean()
        if weight:
            mix = (0.5 * real + 0.5 * fake).detach().requires_grad_()
            (g,) = kiln.autograd.grad(critic(mix).sum(), mix, create_graph=True)
            value = value + weight * (g.norm(dim=1) - 1).square().mean()
        return value

    for weight in (0.0, 10.0, 0.0, 10.0):
        loss(draw(2, 2), draw(2, 2, seed=1), weight)


@program
def registry_of_losses(c: Any) -> None:
    losses: dict[str, Callable[..., Any]] = {}

    def register(name: str) -> Callable[[Any], Any]:
        def enter(f: Any) -> Any:
            losses[name] = f
            return f

        return enter

    @register("l1")
    def absolute(x: Any, y: Any) -> Any:
        return (x - y).abs().mean()

    @register("huber")
    def huber(x: Any, y: Any, d: float = 0.5) -> Any:
        e = (x - y).abs()
        return kiln.where(e < d, 0.5 * e * e, d * (e - 0.5 * d)).mean()

    @c
    def loss(name: str, x: Any, y: Any) -> Any:
        return losses[name](x, y)

    for name in ("l1", "huber", "l1"):
        loss(name, draw(3, grad=True), draw(3, seed=1))
    try:
        loss("l3", draw(3), draw(3))
    except KeyError as error:
        c.see(str(error))


@program
def metrics_kept_beside_training(c: Any) -> None:
    @dataclass
    class Meter:
        values: list[float] = field(default_factory=list)

        def update(self, value: Any) -> None:
            self.values.append(float(value))

    meter = Meter()

    @c
    def step(x: Any) -> Any:
        loss = x.square().mean()
        meter.update(loss)
        return loss

    for n in (1, 2, 1):
        step(vector(n, 2))


@program
def curriculum(c: Any) -> None:
    @c
    def loss(x: Any, y: Any, epoch: int) -> Any:
        each = (x - y).square().mean(1)
        keep = min(len(each), 1 + epoch)
        return each.sort().values[:keep].mean()

    for epoch in (0, 1, 2, 9, 0):
        loss(draw(3, 2, grad=True), draw(3, 2, seed=1), epoch)


@program
def dropout_schedule(c: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = 0.0
            self.layer = linear()

        def forward(self, x: Any) -> Any:
            return F.dropout(self.layer(x), self.p, self.training)

    inner = Net()
    net = c(inner)
    for p in (0.0, 0.5, 0.5, 0.0):
        inner.p = p
        net(draw(4, 2))
    inner.eval()
    net(draw(4, 2))


@program
def stochastic_depth(c: Any) -> None:
    layers = [linear(2, 2, seed=k) for k in range(2)]

    @c
    def run(x: Any, keep: float, training: bool) -> Any:
        for layer in layers:
            if training and kiln.rand(()) > keep:
                continue
            x = x + layer(x)
        return x

    for n in range(5):
        run(draw(2, 2), 0.5, n != 2)


@program
def generator_and_critic_steps(c: Any) -> None:
    g, d = linear(2, 2), model()
    of_g, of_d = kiln.optim.SGD(g.parameters(), lr=0.1), kiln.optim.SGD(d.parameters(), lr=0.1)

    @c
    def step(real: Any, number: int) -> Any:
        fake = g(kiln.randn(2, 2))
        of_d.zero_grad()
        loss = F.softplus(d(fake.detach())).mean() + F.softplus(-d(real)).mean()
        loss.backward()
        of_d.step()
        if number % 2:
            of_g.zero_grad()
            F.softplus(-d(fake)).mean().backward()
            of_g.step()
        return loss.detach()

    for n in range(4):
        step(draw(2, 2, seed=n), n)


@program
def evidence_lower_bound(c: Any) -> None:
    encoder, decoder = linear(2, 4), linear(2, 2, seed=4)

    @c
    def loss(x: Any, beta: float, sample: bool) -> Any:
        mean, logvar = encoder(x).chunk(2, -1)
        z = mean + (0.5 * logvar).exp() * kiln.randn_like(mean) if sample else mean
        kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(-1).mean()
        return F.mse_loss(decoder(z), x) + beta * kl, kl.detach()

    for beta, sample in ((1.0, True), (0.5, True), (1.0, False), (1.0, True)):
        loss(draw(3, 2), beta, sample)


@program
def contrastive_loss(c: Any) -> None:
    @c
    def loss(a: Any, b: Any, temperature: float = 0.1) -> Any:
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        logits = a @ b.T / temperature
        labels = kiln.arange(len(a))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    for n in (2, 3, 2):
        loss(draw(n, 2, grad=True), draw(n, 2, seed=1))


@program
def triplets_mined_in_the_batch(c: Any) -> None:
    @c
    def loss(x: Any, labels: Any, margin: float = 0.5) -> Any:
        d = kiln.cdist(x, x)
        same = labels[:, None] == labels[None]
        positive = d.masked_fill(~same, float("-inf")).amax(1)
        negative = d.masked_fill(same, float("inf")).amin(1)
        value = F.relu(positive - negative + margin)
        active = value > 0
        if not active.any():
            return value.sum()
        return value[active].mean()

    for scale in (1.0, 0.0, 1.0):
        loss(draw(4, 2) * scale + kiln.tensor([[0.0], [9.0], [0.0], [9.0]]) * (1 - scale), kiln.tensor([0, 1, 0, 1]))


@program
def label_smoothing_and_mixup(c: Any) -> None:
    @c
    def loss(logits: Any, y: Any, smoothing: float = 0.0, mix: bool = False) -> Any:
        target = F.one_hot(y, 3).float()
        if smoothing:
            target = target * (1 - smoothing) + smoothing / 3
        if mix:
            a = kiln.rand(())
            target = a * target + (1 - a) * target.flip(0)
        return -(target * logits.log_softmax(-1)).sum(-1).mean()

    for smoothing, mix in ((0.0, False), (0.1, False), (0.1, True), (0.0, False)):
        loss(draw(2, 3, grad=True), kiln.tensor([0, 2]), smoothing, mix)


@program
def focal_loss_with_ignored_labels(c: Any) -> None:
    @c
    def loss(logits: Any, y: Any, ignored: int = -100) -> Any:
        keep = y != ignored
        if not keep.any():
            return logits.sum() * 0
        logits, y = logits[keep], y[keep]
        p = logits.softmax(-1).gather(1, y[:, None])
        return -((1 - p) ** 2 * p.log()).mean()

    for y in ([0, 1, 2], [-100, 1, 2], [-100, -100, -100], [0, 1, 2]):
        loss(draw(3, 3, grad=True), kiln.tensor(y))


@program
def uncertainty_weights(c: Any) -> None:
    class Losses(nn.Module):
        def __init__(self, names: tuple[str, ...]) -> None:
            super().__init__()
            self.log_sigma = nn.ParameterDict({n: nn.Parameter(kiln.zeros(())) for n in names})

        def forward(self, **losses: Any) -> Any:
            return sum((-self.log_sigma[k]).exp() * v + self.log_sigma[k] for k, v in losses.items())

    total = c(Losses(("a", "b")))
    total(a=kiln.tensor(1.0), b=kiln.tensor(2.0)).backward()
    total(a=kiln.tensor(1.0)).backward()
    total(a=kiln.tensor(3.0), b=kiln.tensor(2.0)).backward()
