"""Choosing tokens, and nets that stop early."""

from __future__ import annotations

from typing import Any, NamedTuple

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


def table(n: int = 4, seed: int = 2) -> Any:
    """Logits of the next token, given one."""
    return draw(n, n, seed=seed) * 2


@program
def greedy_decoding(c: Any) -> None:
    @c
    def decode(logits: Any, first: int, end: int, limit: int = 6) -> list[int]:
        tokens = [first]
        while len(tokens) < limit:
            token = int(logits[tokens[-1]].argmax())
            tokens.append(token)
            if token == end:
                break
        return tokens

    for first, seed in ((0, 2), (1, 2), (0, 3), (0, 2)):
        decode(table(seed=seed), first, 3)


@program
def greedy_batch_with_finished_rows(c: Any) -> None:
    @c
    def decode(logits: Any, first: Any, end: int) -> Any:
        tokens = first
        done = kiln.zeros_like(first, dtype=kiln.bool)
        out = [tokens]
        for _ in range(5):
            tokens = logits[tokens].argmax(-1)
            tokens = kiln.where(done, kiln.full_like(tokens, end), tokens)
            done = done | (tokens == end)
            out.append(tokens)
            if done.all():
                break
        return kiln.stack(out, 1)

    for first in ([0, 1], [3, 3], [0, 1, 2], [0, 1]):
        decode(table(), kiln.tensor(first), 3)


@program
def beam_search(c: Any) -> None:
    @c
    def search(logits: Any, width: int, steps: int) -> Any:
        logp = logits.log_softmax(-1)
        scores, beams = kiln.zeros(1), kiln.zeros(1, 1, dtype=kiln.int64)
        for _ in range(steps):
            total = scores[:, None] + logp[beams[:, -1]]
            scores, flat = total.flatten().topk(min(width, total.numel()))
            rows, tokens = flat // logits.shape[1], flat % logits.shape[1]
            beams = kiln.cat([beams[rows], tokens[:, None]], 1)
        return beams, scores

    for width, steps in ((2, 3), (3, 2), (2, 3)):
        search(table(), width, steps)


@program
def beam_search_in_python(c: Any) -> None:
    class Beam(NamedTuple):
        score: float
        tokens: tuple[int, ...]

    @c
    def search(logits: Any, width: int) -> Any:
        logp = logits.log_softmax(-1)
        beams = [Beam(0.0, (0,))]
        for _ in range(2):
            grown = []
            for beam in beams:
                scores, tokens = logp[beam.tokens[-1]].topk(2)
                grown += [
                    Beam(beam.score + s, (*beam.tokens, t))
                    for s, t in zip(scores.tolist(), tokens.tolist(), strict=True)
                ]
            beams = sorted(grown, key=lambda b: -b.score)[:width]
        return beams

    for seed in (2, 3, 2):
        search(table(seed=seed), 2)


@program
def sampling_with_temperature(c: Any) -> None:
    @c
    def sample(logits: Any, temperature: float) -> Any:
        if temperature == 0:
            return logits.argmax(-1)
        return kiln.multinomial((logits / temperature).softmax(-1), 1).squeeze(-1)

    for temperature in (1.0, 0.0, 0.5, 1.0, 0.0):
        sample(table(), temperature)


@program
def nucleus_sampling(c: Any) -> None:
    @c
    def sample(logits: Any, p: float) -> Any:
        probs, order = logits.softmax(-1).sort(descending=True)
        keep = probs.cumsum(0) - probs < p
        probs = probs * keep
        probs = probs / probs.sum()
        return order[kiln.multinomial(probs, 1)]

    for p in (0.5, 0.9, 0.5):
        sample(vector(1, 3, 2, 0), p)


@program
def nucleus_with_compressed_support(c: Any) -> None:
    @c
    def sample(logits: Any, p: float) -> Any:
        probs, order = logits.softmax(-1).sort(descending=True)
        keep = int((probs.cumsum(0) < p).sum()) + 1
        probs = probs[:keep] / probs[:keep].sum()
        return order[:keep], probs

    for logits in (vector(1, 3, 2, 0), vector(5, 0, 0, 0), vector(1, 3, 2, 0)):
        sample(logits, 0.8)


@program
def top_k_filter(c: Any) -> None:
    @c
    def keep(logits: Any, k: int | None = None) -> Any:
        if k is not None:
            smallest = logits.topk(k).values[..., -1, None]
            logits = logits.masked_fill(logits < smallest, float("-inf"))
        return logits.softmax(-1)

    for k in (2, None, 3, 2):
        keep(table(), k)


@program
def repetition_penalty(c: Any) -> None:
    @c
    def penalise(logits: Any, history: list[int], penalty: float = 1.5) -> Any:
        logits = logits.clone()
        for token in set(history):
            if logits[token] > 0:
                logits[token] /= penalty
            else:
                logits[token] *= penalty
        return logits

    for history in ([0, 1], [2], [], [0, 1]):
        penalise(vector(1, -2, 3), history)


@program
def pointer_network(c: Any) -> None:
    @c
    def order(items: Any, query: Any) -> Any:
        chosen: list[int] = []
        mask = kiln.zeros(len(items), dtype=kiln.bool)
        total = kiln.zeros(())
        for _ in range(len(items)):
            logits = (items @ query).masked_fill(mask, float("-inf"))
            index = int(logits.argmax())
            total = total + logits.log_softmax(0)[index]
            chosen.append(index)
            mask = mask.clone()
            mask[index] = True
            query = items[index]
        return chosen, total

    for seed in (1, 2, 1):
        order(draw(3, 2, seed=seed, grad=True), draw(2, seed=9))


@program
def early_exit_layers(c: Any) -> None:
    layers = [linear(2, 2, seed=k) for k in range(3)]

    @c
    def run(x: Any, sure: float) -> Any:
        for depth, layer in enumerate(layers):
            x = layer(x).tanh()
            if x.softmax(-1).max() > sure:
                return x, depth
        return x, len(layers)

    for k in (1, 5, 1, 3):
        run(vector(k, -k), 0.75)


@program
def adaptive_computation_time(c: Any) -> None:
    cell, halt = linear(2, 2), linear(2, 1, seed=4)

    @c
    def ponder(x: Any) -> Any:
        total, weight, out = 0.0, kiln.tensor(1.0), kiln.zeros(2)
        steps = 0
        while total < 0.9 and steps < 5:
            x = cell(x).tanh()
            p = halt(x).sigmoid().squeeze() * weight
            out, weight, total = out + p * x, weight - p, total + p.item()
            steps += 1
        return out + weight * x, steps

    for k in (1, -4, 1):
        ponder(vector(k, k + 1))


@program
def special_tokens_in_text(c: Any) -> None:
    vocabulary = {"a": 0, "b": 1, "<eos>": 2}
    embedding = draw(3, 2, seed=1)

    @c
    def embed(text: str) -> Any:
        ids = [vocabulary[w] for w in text.split() if w in vocabulary]
        if not ids:
            raise ValueError(f"nothing known in {text!r}")
        return embedding[kiln.tensor(ids)].mean(0)

    for text in ("a b", "b <eos>", "a b"):
        embed(text)
    try:
        embed("zzz")
    except ValueError as error:
        c.see(str(error))
