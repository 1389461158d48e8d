"""Layers written by hand: norms, gates, embeddings, convolutions, attention of many kinds."""

from __future__ import annotations

import math
from typing import Any

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def root_mean_square_norm(c: Any) -> None:
    @c
    def norm(x: Any, weight: Any = None, eps: float = 1e-6) -> Any:
        y = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        return y if weight is None else y * weight

    for n, weight in ((2, None), (3, draw(3)), (2, draw(2)), (2, None)):
        norm(draw(2, n, grad=True), weight)


@program
def group_norm_by_hand(c: Any) -> None:
    @c
    def norm(x: Any, groups: int) -> Any:
        n, ch, *rest = x.shape
        if ch % groups:
            raise ValueError(f"{ch} channels in {groups} groups")
        y = x.reshape(n, groups, -1)
        return ((y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-5).sqrt()).reshape(n, ch, *rest)

    norm(draw(1, 4, 2), 2)
    norm(draw(1, 4, 2), 4)
    try:
        norm(draw(1, 4, 2), 3)
    except ValueError as error:
        c.see(str(error))
    norm(draw(1, 4, 2, seed=1), 2)


@program
def gated_units(c: Any) -> None:
    layer = linear(2, 4)

    @c
    def gate(x: Any, kind: str) -> Any:
        a, b = layer(x).chunk(2, -1)
        return a * {"glu": b.sigmoid, "reglu": b.relu, "tanh": b.tanh}[kind]()

    for kind in ("glu", "reglu", "glu"):
        gate(draw(2), kind)


@program
def highway(c: Any) -> None:
    t, h = linear(), linear(seed=4)

    @c
    def run(x: Any, depth: int) -> Any:
        for _ in range(depth):
            g = t(x).sigmoid()
            x = g * h(x).tanh() + (1 - g) * x
        return x

    for depth in (1, 2, 1):
        run(draw(2, 2), depth)


@program
def squeeze_and_excite(c: Any) -> None:
    down, up = linear(2, 1), linear(1, 2)

    @c
    def scale(x: Any) -> Any:
        s = x.mean((-1, -2))
        return x * up(down(s).relu()).sigmoid()[..., None, None]

    for n in (2, 3, 2):
        scale(draw(1, 2, n, n))


@program
def positions_by_sine(c: Any) -> None:
    @c
    def encode(x: Any, base: float = 100.0) -> Any:
        n, d = x.shape
        f = base ** (-kiln.arange(0, d, 2) / d)
        angle = kiln.arange(n)[:, None] * f
        out = kiln.empty(n, d)
        out[:, 0::2], out[:, 1::2] = angle.sin(), angle.cos()
        return x + out

    for n, d in ((2, 4), (3, 2), (2, 4)):
        encode(draw(n, d))


@program
def rotary_positions(c: Any) -> None:
    @c
    def rotate(x: Any, offset: int = 0) -> Any:
        n, d = x.shape
        f = 10.0 ** (-kiln.arange(d // 2) * 2 / d)
        angle = (kiln.arange(n) + offset)[:, None] * f
        a, b = x[:, : d // 2], x[:, d // 2 :]
        return kiln.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    for n, offset in ((2, 0), (1, 2), (2, 0), (1, 3)):
        rotate(draw(n, 4), offset)


@program
def rotary_with_complex_numbers(c: Any) -> None:
    @c
    def rotate(x: Any, angle: Any) -> Any:
        z = kiln.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return kiln.view_as_real(z * kiln.polar(kiln.ones_like(angle), angle)).flatten(-2)

    for n in (2, 3, 2):
        rotate(draw(n, 4), draw(n, 2, seed=1))


@program
def relative_bias(c: Any) -> None:
    bias = draw(5, seed=4, grad=True)

    @c
    def attend(q: Any, k: Any) -> Any:
        distance = kiln.arange(len(k))[None] - kiln.arange(len(q))[:, None]
        return (q @ k.T + bias[distance.clamp(-2, 2) + 2]).softmax(-1)

    for n, m in ((2, 3), (4, 4), (2, 3)):
        attend(draw(n, 2), draw(m, 2, seed=1))


@program
def heads(c: Any) -> None:
    class Attention(nn.Module):
        def __init__(self, width: int, count: int) -> None:
            super().__init__()
            self.count = count
            self.qkv, self.out = linear(width, 3 * width), linear(width, width, seed=4)

        def forward(self, x: Any, need_weights: bool = False) -> Any:
            n, d = x.shape
            q, k, v = self.qkv(x).view(n, 3, self.count, d // self.count).permute(1, 2, 0, 3)
            w = (q @ k.transpose(-1, -2) / math.sqrt(d // self.count)).softmax(-1)
            y = self.out((w @ v).transpose(0, 1).reshape(n, d))
            return (y, w) if need_weights else y

    net = c(Attention(4, 2))
    for n, need in ((2, False), (3, True), (2, False), (2, True)):
        net(draw(n, 4), need)


@program
def grouped_queries(c: Any) -> None:
    @c
    def attend(q: Any, k: Any, v: Any) -> Any:
        if k.shape[0] != q.shape[0]:
            k = k.repeat_interleave(q.shape[0] // k.shape[0], 0)
            v = v.repeat_interleave(q.shape[0] // v.shape[0], 0)
        return (q @ k.mT).softmax(-1) @ v

    for h in (1, 2, 1):
        attend(draw(2, 3, 2), draw(h, 3, 2, seed=1), draw(h, 3, 2, seed=2))


@program
def linear_attention(c: Any) -> None:
    @c
    def attend(q: Any, k: Any, v: Any, causal: bool) -> Any:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        if causal:
            state = (k[:, :, None] * v[:, None]).cumsum(0)
            return (q[:, :, None] * state).sum(1) / (q * k.cumsum(0)).sum(1, keepdim=True)
        return q @ (k.T @ v) / (q @ k.sum(0))[:, None]

    for causal in (True, False, True):
        attend(draw(3, 2), draw(3, 2, seed=1), draw(3, 2, seed=2), causal)


@program
def state_space_scan(c: Any) -> None:
    a, b = vector(0.9, 0.5), vector(1, 2)

    @c
    def run(u: Any, state: Any = None) -> Any:
        h = kiln.zeros(2) if state is None else state
        ys = []
        for x in u:
            h = a * h + b * x
            ys.append(h.sum())
        return kiln.stack(ys), h

    _, h = run(draw(3))
    run(draw(2), h)
    run(draw(3))


@program
def gated_recurrent_cell(c: Any) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.h = linear(2, 6), linear(2, 6, seed=4)

        def forward(self, x: Any, h: Any) -> Any:
            a, b = self.x(x).chunk(3, -1), self.h(h).chunk(3, -1)
            r, z = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
            return (1 - z) * (a[2] + r * b[2]).tanh() + z * h

    cell = c(Cell())
    h = kiln.zeros(2)
    for n in range(3):
        h = cell(draw(2, seed=n), h.detach())
        h.sum().backward()
    cell(draw(3, 2), kiln.zeros(3, 2))


@program
def two_directions(c: Any) -> None:
    net = nn.GRU(2, 2, bidirectional=True)

    @c
    def run(x: Any, pool: str) -> Any:
        out, h = net(x)
        return out.mean(0) if pool == "mean" else kiln.cat([h[0], h[1]], -1)

    for n, pool in ((2, "mean"), (2, "last"), (3, "mean"), (2, "mean")):
        run(draw(n, 1, 2), pool)


@program
def depthwise_convolution(c: Any) -> None:
    w = draw(2, 1, 3, seed=5, grad=True)

    @c
    def run(x: Any, causal: bool) -> Any:
        x = F.pad(x, (2, 0) if causal else (1, 1))
        return F.conv1d(x, w, groups=2)

    for n, causal in ((4, True), (4, False), (5, True), (4, True)):
        run(draw(1, 2, n), causal)


@program
def dilated_stack(c: Any) -> None:
    ws = [draw(1, 1, 2, seed=k, grad=True) for k in range(2)]

    @c
    def run(x: Any, layers: int) -> Any:
        skips = kiln.zeros(())
        for k in range(layers):
            y = F.conv1d(F.pad(x, (2**k, 0)), ws[k], dilation=2**k).tanh()
            x, skips = x + y, skips + y.mean()
        return x, skips

    for layers in (1, 2, 1):
        run(draw(1, 1, 5), layers)


@program
def encoder_and_decoder_with_skips(c: Any) -> None:
    down, up = draw(2, 1, 3, seed=1, grad=True), draw(1, 2, 3, seed=2, grad=True)

    @c
    def run(x: Any) -> Any:
        h = F.conv1d(x, down, padding=1).relu()
        low = F.max_pool1d(h, 2)
        back = low.repeat_interleave(2, -1)
        if back.shape[-1] != h.shape[-1]:
            back = F.pad(back, (0, h.shape[-1] - back.shape[-1]))
        return F.conv1d(back + h, up, padding=1)

    for n in (4, 5, 4):
        run(draw(1, 1, n))


@program
def low_rank_adapter(c: Any) -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = linear()
            self.a, self.b = nn.Parameter(draw(1, 2, seed=6)), nn.Parameter(draw(2, 1, seed=7))
            self.merged = False
            self.base.weight.requires_grad_(False)

        def merge(self) -> None:
            with kiln.no_grad():
                self.base.weight += self.b @ self.a
            self.merged = True

        def forward(self, x: Any) -> Any:
            y = self.base(x)
            return y if self.merged else y + x @ self.a.T @ self.b.T

    inner = Adapted()
    net = c(inner)
    net(draw(2))
    net(draw(2)).sum().backward()
    inner.merge()
    net(draw(2))


@program
def weight_shared_between_layers(c: Any) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(3, 2)
            self.head = nn.Linear(2, 3, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Any, target: Any = None) -> Any:
            logits = self.head(self.embed(tokens))
            return logits if target is None else F.cross_entropy(logits, target)

    net = c(Tied())
    net(kiln.tensor([0, 1]))
    net(kiln.tensor([0, 1]), kiln.tensor([1, 2])).backward()
    net(kiln.tensor([2, 1]), kiln.tensor([1, 0])).backward()


@program
def spectral_norm_with_a_buffer(c: Any) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(draw(2, 2, seed=3))
            self.register_buffer("u", vector(1, 0))

        def forward(self, x: Any) -> Any:
            if self.training:
                with kiln.no_grad():
                    v = F.normalize(self.weight.T @ self.u, dim=0)
                    self.u.copy_(F.normalize(self.weight @ v, dim=0))
            v = F.normalize(self.weight.T @ self.u, dim=0).detach()
            return x @ (self.weight / (self.u @ self.weight @ v)).T

    inner = Normed()
    net = c(inner)
    for n in range(4):
        inner.train(n != 2)
        net(draw(2, seed=n)).sum().backward()


@program
def coupling_flow(c: Any) -> None:
    net = linear(1, 2)

    @c
    def flow(x: Any, reverse: bool) -> Any:
        a, b = x.chunk(2, -1)
        s, t = net(a).chunk(2, -1)
        s = s.tanh()
        if reverse:
            return kiln.cat([a, (b - t) * (-s).exp()], -1), -s.sum(-1)
        return kiln.cat([a, b * s.exp() + t], -1), s.sum(-1)

    y, _ = flow(draw(2, 2), False)
    flow(y.detach(), True)
    flow(draw(2, 2, seed=1), False)


@program
def noise_schedule_of_diffusion(c: Any) -> None:
    betas = kiln.linspace(0.01, 0.2, 4)
    kept = (1 - betas).cumprod(0)
    net = linear(3, 2)

    @c
    def loss(x: Any, t: Any) -> Any:
        a = kept[t][:, None]
        noise = kiln.randn_like(x)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        return F.mse_loss(net(kiln.cat([noisy, t[:, None] / 4], 1)), noise)

    for t in ([0, 3], [1, 1], [0, 3, 2]):
        loss(draw(len(t), 2), kiln.tensor(t))
