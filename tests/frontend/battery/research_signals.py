"""Signals, quantisation, and gradients of one's own making."""

from __future__ import annotations

import math
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw

PROGRAMS = program = Programs()


@program
def windows_by_name(c: Any) -> None:
    @c
    def apply(x: Any, name: str) -> Any:
        n = x.shape[-1]
        match name:
            case "hann":
                w = kiln.hann_window(n)
            case "box" | "none":
                w = kiln.ones(n)
            case str() if name.startswith("gauss"):
                t = kiln.linspace(-1, 1, n)
                w = (-0.5 * (t / float(name[5:])) ** 2).exp()
            case _:
                raise KeyError(name)
        return x * w

    for n, name in ((4, "hann"), (4, "box"), (3, "gauss0.5"), (4, "hann"), (4, "none")):
        apply(draw(n), name)


@program
def low_pass_filter(c: Any) -> None:
    @c
    def keep(x: Any, cut: int) -> Any:
        f = kiln.fft.rfft(x)
        f[..., cut:] = 0
        return kiln.fft.irfft(f, n=x.shape[-1])

    for n, cut in ((8, 2), (6, 3), (8, 2)):
        keep(draw(n, seed=1), cut)


@program
def spectral_derivative(c: Any) -> None:
    @c
    def slope(x: Any, order: int) -> Any:
        n = x.shape[-1]
        k = 2j * math.pi * kiln.fft.fftfreq(n)
        return kiln.fft.ifft(kiln.fft.fft(x) * k**order).real

    for n, order in ((4, 1), (4, 2), (5, 1), (4, 1)):
        slope(draw(n), order)


@program
def overlap_and_add(c: Any) -> None:
    @c
    def frames(x: Any, size: int, hop: int) -> Any:
        parts = x.unfold(0, size, hop) * kiln.hann_window(size)
        out = kiln.zeros((len(parts) - 1) * hop + size)
        for k, part in enumerate(parts):
            out[k * hop : k * hop + size] += part
        return out

    for size, hop in ((4, 2), (2, 1), (4, 2)):
        frames(draw(8), size, hop)


@program
def exponential_smoothing(c: Any) -> None:
    @c
    def smooth(x: Any, alpha: float | None) -> Any:
        if alpha is None:
            return x
        y = [x[0]]
        for v in x[1:]:
            y.append(alpha * v + (1 - alpha) * y[-1])
        return kiln.stack(y)

    for alpha in (0.5, None, 0.2, 0.5):
        smooth(draw(4, grad=True), alpha)


@program
def peaks(c: Any) -> None:
    @c
    def find(x: Any, height: float) -> Any:
        inner = x[1:-1]
        top = (inner > x[:-2]) & (inner > x[2:]) & (inner > height)
        places = top.nonzero().flatten() + 1
        if places.numel() == 0:
            return None
        return places, x[places].max()

    for seed, height in ((1, 0.0), (2, 0.0), (1, 9.0), (1, 0.0)):
        find(draw(7, seed=seed), height)


@program
def simulated_quantisation(c: Any) -> None:
    @c
    def fake(x: Any, bits: int, symmetric: bool) -> Any:
        top = 2 ** (bits - 1) - 1
        if symmetric:
            scale = x.abs().max() / top
            zero = kiln.zeros(())
        else:
            scale = (x.max() - x.min()) / (2 * top)
            zero = (-x.min() / scale).round() - top
        q = (x / scale + zero).round().clamp(-top, top)
        return x + ((q - zero) * scale - x).detach()

    for bits, symmetric in ((8, True), (4, False), (8, True)):
        fake(draw(5, grad=True), bits, symmetric)


@program
def observers_that_calibrate(c: Any) -> None:
    class Observer:
        def __init__(self) -> None:
            self.low, self.high = kiln.tensor(math.inf), kiln.tensor(-math.inf)
            self.enabled = True

        def __call__(self, x: Any) -> Any:
            if self.enabled:
                self.low.copy_(kiln.minimum(self.low, x.min()))
                self.high.copy_(kiln.maximum(self.high, x.max()))
            scale = (self.high - self.low) / 255
            return ((x - self.low) / scale).round() * scale + self.low

    observer = Observer()
    f = c(observer)
    for n in range(5):
        observer.enabled = n < 3
        f(draw(3, seed=n))


@program
def straight_through_estimator(c: Any) -> None:
    class Step(kiln.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, clip: float) -> Any:
            ctx.save_for_backward(x)
            ctx.clip = clip
            return (x > 0).float()

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad * (x.abs() < ctx.clip), None

    f = c(lambda x, clip: (Step.apply(x, clip) * x).sum())
    for clip in (1.0, 0.1, 1.0):
        f(draw(4, grad=True), clip)


@program
def function_with_many_outputs(c: Any) -> None:
    class Polar(kiln.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            r = (x * x + y * y).sqrt()
            ctx.save_for_backward(x, y, r)
            ctx.mark_non_differentiable(mask := r > 1)
            return r, mask

        @staticmethod
        def backward(ctx: Any, grad: Any, _: Any) -> Any:
            x, y, r = ctx.saved_tensors
            return grad * x / r, grad * y / r if ctx.needs_input_grad[1] else None

    f = c(Polar.apply)
    for grad in (True, False, True):
        f(draw(3, grad=True), draw(3, seed=1, grad=grad))


@program
def gradient_reversal(c: Any) -> None:
    class Reverse(kiln.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, amount: float) -> Any:
            ctx.amount = amount
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return -ctx.amount * grad, None

    f = c(lambda x, amount: Reverse.apply(x, amount).sin().sum())
    for amount in (1.0, 0.5, 1.0):
        f(draw(2, grad=True), amount)


@program
def vector_quantisation(c: Any) -> None:
    codes = draw(3, 2, seed=4, grad=True)
    counts = kiln.zeros(3)

    @c
    def quantise(x: Any, training: bool) -> Any:
        k = kiln.cdist(x, codes).argmin(1)
        q = codes[k]
        if training:
            counts.index_add_(0, k, kiln.ones(len(x)))
        loss = (q - x.detach()).square().mean() + 0.25 * (q.detach() - x).square().mean()
        return x + (q - x).detach(), loss, k

    for training in (True, False, True):
        quantise(draw(3, 2, grad=True), training)


@program
def batch_norm_by_hand(c: Any) -> None:
    class Norm(kiln.nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.weight = kiln.nn.Parameter(kiln.ones(n))
            self.register_buffer("mean", kiln.zeros(n))
            self.register_buffer("var", kiln.ones(n))
            self.register_buffer("seen", kiln.tensor(0))

        def forward(self, x: Any) -> Any:
            if self.training:
                mean, var = x.mean(0), x.var(0, unbiased=False)
                with kiln.no_grad():
                    self.seen += 1
                    self.mean.mul_(0.9).add_(0.1 * mean)
                    self.var.copy_(0.9 * self.var + 0.1 * var)
            else:
                mean, var = self.mean, self.var
            return self.weight * (x - mean) / (var + 1e-5).sqrt()

    inner = Norm(2)
    net = c(inner)
    for n in range(5):
        inner.train(n != 2)
        net(draw(3, 2, seed=n)).square().sum().backward()
