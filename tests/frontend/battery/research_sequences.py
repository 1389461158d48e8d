"""Recurrent nets, decoding, attention: programs over sequences of differing lengths."""

from __future__ import annotations

from typing import Any

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear

PROGRAMS = program = Programs()


def table(n: int = 4, seed: int = 2) -> Any:
    """Logits of the next token, given one."""
    return draw(n, n, seed=seed) * 2


@program
def rnn_cell_over_time(c: Any) -> None:
    w, u = draw(3, 3, seed=1), draw(2, 3, seed=2)

    @c
    def run(xs: Any, h: Any = None) -> Any:
        if h is None:
            h = kiln.zeros(xs.shape[1], 3)
        out = []
        for x in xs:
            h = (x @ u + h @ w).tanh()
            out.append(h)
        return kiln.stack(out), h

    h = None
    for steps in (2, 3, 2):
        _, h = run(draw(steps, 2, 2), h)


@program
def lstm_by_hand(c: Any) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = linear(2 + 3, 12)

        def forward(self, x: Any, state: Any) -> Any:
            h, memory = state
            i, f, g, o = self.gates(kiln.cat([x, h], -1)).chunk(4, -1)
            memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
            return o.sigmoid() * memory.tanh(), memory

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, xs: Any) -> Any:
            state = (kiln.zeros(3), kiln.zeros(3))
            for x in xs.unbind(0):
                state = self.cell(x, state)
            return state[0]

    net = c(Net())
    for n in (1, 3, 1, 3):
        net(draw(n, 2, seed=n)).sum().backward()


@program
def ragged_batch(c: Any) -> None:
    lstm = nn.LSTM(2, 3, batch_first=True)

    @c
    def encode(sequences: list[Any]) -> Any:
        lengths = kiln.tensor([len(s) for s in sequences])
        longest = int(lengths.max())
        padded = kiln.stack([F.pad(s, (0, 0, 0, longest - len(s))) for s in sequences])
        out, _ = lstm(padded)
        return out[kiln.arange(len(sequences)), lengths - 1]

    for sizes in ((2, 3), (1, 2), (2, 3)):
        encode([draw(n, 2, seed=n) for n in sizes])


@program
def packing_by_length(c: Any) -> None:
    @c
    def means(padded: Any, lengths: Any) -> Any:
        return kiln.stack([row[:n].mean(0) for row, n in zip(padded, lengths.tolist(), strict=True)])

    for lengths in ([1, 3], [2, 2], [1, 3]):
        means(draw(2, 3, 2), kiln.tensor(lengths))


@program
def masked_mean(c: Any) -> None:
    @c
    def pool(x: Any, lengths: Any = None) -> Any:
        if lengths is None:
            return x.mean(1)
        mask = kiln.arange(x.shape[1])[None] < lengths[:, None]
        return (x * mask[..., None]).sum(1) / lengths[:, None]

    pool(draw(2, 3, 2), kiln.tensor([1, 3]))
    pool(draw(2, 3, 2))
    pool(draw(2, 4, 2), kiln.tensor([2, 4]))
    pool(draw(2, 3, 2), kiln.tensor([3, 2]))


@program
def attention_with_optional_mask(c: Any) -> None:
    @c
    def attend(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Any:
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if causal:
            mask = kiln.ones(q.shape[-2], k.shape[-2], dtype=kiln.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v

    x = draw(2, 3, 4, grad=True)
    mask = kiln.tensor([[True, False, True]] * 3)
    attend(x, x, x)
    attend(x, x, x, mask)
    attend(x, x, x, None, True)
    attend(x[:, :2], x, x)
    attend(x, x, x, mask)


@program
def attention_with_a_cache(c: Any) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = linear(2, 6)

        def forward(self, x: Any, cache: dict[str, Any] | None = None) -> Any:
            q, k, v = self.qkv(x).chunk(3, -1)
            if cache is not None and "k" in cache:
                k, v = kiln.cat([cache["k"], k], 0), kiln.cat([cache["v"], v], 0)
            out = (q @ k.T).softmax(-1) @ v
            return out, {"k": k, "v": v}

    net = c(Attention())
    cache: Any = None
    for n in range(3):
        _, cache = net(draw(1, 2, seed=n), cache)
    net(draw(1, 2), None)


@program
def preallocated_cache(c: Any) -> None:
    cache = kiln.zeros(4, 2)

    @c
    def step(x: Any, position: int) -> Any:
        cache[position] = x
        keys = cache[: position + 1]
        return (keys @ x).softmax(0) @ keys

    for n in (0, 1, 2, 1):
        step(draw(2, seed=n), n)


@program
def cache_at_a_tensor_position(c: Any) -> None:
    cache, position = kiln.zeros(4, 2), kiln.tensor(0)

    @c
    def step(x: Any) -> Any:
        cache.index_copy_(0, position.reshape(1), x[None])
        position.add_(1)
        return cache.sum(0)

    for n in range(4):
        step(draw(2, seed=n))


@program
def sliding_window_attention(c: Any) -> None:
    @c
    def attend(x: Any, window: int) -> Any:
        out = []
        for t in range(x.shape[0]):
            near = x[max(0, t - window) : t + 1]
            out.append((near @ x[t]).softmax(0) @ near)
        return kiln.stack(out)

    for n, window in ((3, 1), (4, 2), (3, 1)):
        attend(draw(n, 2), window)


@program
def teacher_forcing(c: Any) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(2, 2)
            self.ratio = 0.5

        def forward(self, target: Any) -> Any:
            x, out = kiln.zeros(2), []
            for t in range(target.shape[0]):
                x = self.layer(x).tanh()
                out.append(x)
                if self.training and kiln.rand(()) < self.ratio:
                    x = target[t]
            return kiln.stack(out)

    decoder = Decoder()
    net = c(decoder)
    for n in range(6):
        decoder.train(n != 3)
        net(draw(2, 2, seed=n))
