"""Clustering, mixtures, sampling, dynamic programming, graphs."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def k_means(c: Any) -> None:
    @c
    def cluster(x: Any, k: int, limit: int = 5) -> Any:
        centres = x[:k].clone()
        for n in range(limit):
            nearest = kiln.cdist(x, centres).argmin(1)
            new = kiln.stack([x[nearest == j].mean(0) if (nearest == j).any() else centres[j] for j in range(k)])
            if kiln.allclose(new, centres, atol=1e-3):
                return centres, nearest, n
            centres = new
        return centres, nearest, limit

    for seed in (1, 2, 1):
        cluster(draw(6, 2, seed=seed), 2)


@program
def k_means_plus_plus(c: Any) -> None:
    @c
    def start(x: Any, k: int) -> Any:
        centres = [x[0]]
        while len(centres) < k:
            d = kiln.stack([(x - m).square().sum(1) for m in centres]).amin(0)
            centres.append(x[kiln.multinomial(d / d.sum(), 1).item()])
        return kiln.stack(centres)

    for k in (2, 3, 2):
        start(draw(4, 2), k)


@program
def mixture_of_normals(c: Any) -> None:
    @c
    def step(x: Any, mean: Any, var: Any, weight: Any) -> Any:
        logp = -0.5 * ((x[:, None] - mean) ** 2 / var + var.log()) + weight.log()
        r = logp.softmax(1)
        n = r.sum(0)
        if (n < 1e-3).any():
            n = n + 1e-3
        mean = (r * x[:, None]).sum(0) / n
        var = (r * (x[:, None] - mean) ** 2).sum(0) / n + 1e-3
        return mean, var, n / n.sum(), logp.logsumexp(1).sum()

    state: Any = (vector(-1, 1), vector(1, 1), vector(0.5, 0.5))
    for _ in range(3):
        *state, _ = step(draw(5), *state)
    step(draw(5), vector(0, 50), vector(1, 0.1), vector(0.5, 0.5))


@program
def metropolis(c: Any) -> None:
    def logp(x: Any) -> Any:
        return -0.5 * (x**2).sum()

    @c
    def chain(x: Any, steps: int, width: float) -> Any:
        accepted = 0
        for _ in range(steps):
            new = x + width * kiln.randn(2)
            if kiln.rand(()).log() < logp(new) - logp(x):
                x, accepted = new, accepted + 1
        return x, accepted / steps

    x = vector(0, 0)
    for width in (0.5, 3.0, 0.5, 3.0):
        x, _ = chain(x, 2, width)


@program
def hamiltonian_monte_carlo(c: Any) -> None:
    @c
    def step(q: Any, size: float, steps: int) -> Any:
        def slope(q: Any) -> Any:
            q = q.detach().requires_grad_()
            return kiln.autograd.grad(0.5 * (q**2).sum(), q)[0]

        p = kiln.randn_like(q)
        start = 0.5 * (q**2).sum() + 0.5 * (p**2).sum()
        new, p = q, p - size / 2 * slope(q)
        for k in range(steps):
            new = new + size * p
            p = p - (size if k < steps - 1 else size / 2) * slope(new)
        end = 0.5 * (new**2).sum() + 0.5 * (p**2).sum()
        return new if kiln.rand(()) < (start - end).exp() else q

    q = vector(1, 2)
    for size in (0.3, 1.9, 0.3, 1.9):
        q = step(q, size, 2)


@program
def particle_filter(c: Any) -> None:
    @c
    def step(particles: Any, weights: Any, seen: float) -> Any:
        particles = particles + 0.1 * kiln.randn(len(particles))
        weights = weights * (-0.5 * (particles - seen) ** 2).exp()
        weights = weights / weights.sum()
        effective = 1 / (weights**2).sum()
        if effective < len(particles) / 2:
            particles = particles[kiln.multinomial(weights, len(particles), replacement=True)]
            weights = kiln.full_like(weights, 1 / len(particles))
        return particles, weights

    state = (draw(4), kiln.full((4,), 0.25))
    for seen in (0.0, 4.0, 0.0, 0.0):
        state = step(*state, seen)


@program
def kalman_filter_with_gaps(c: Any) -> None:
    @c
    def run(observed: list[float | None]) -> Any:
        m, p, out = kiln.tensor(0.0), kiln.tensor(1.0), []
        for z in observed:
            p = p + 0.1
            if z is not None:
                gain = p / (p + 0.5)
                m, p = m + gain * (z - m), (1 - gain) * p
            out.append(m)
        return kiln.stack(out), p

    run([1.0, None, 2.0])
    run([None, None])
    run([1.0, None, 2.0])
    run([3.0, None, 2.0])


@program
def viterbi(c: Any) -> None:
    @c
    def decode(emission: Any, transition: Any) -> list[int]:
        score, back = emission[0], []
        for e in emission[1:]:
            score, index = (score[:, None] + transition).max(0)
            score = score + e
            back.append(index)
        best = [int(score.argmax())]
        for index in reversed(back):
            best.append(int(index[best[-1]]))
        return best[::-1]

    for n, seed in ((3, 1), (2, 1), (3, 2), (3, 1)):
        decode(draw(n, 2, seed=seed), draw(2, 2, seed=9))


@program
def forward_algorithm(c: Any) -> None:
    @c
    def likelihood(emission: Any, transition: Any, lengths: Any = None) -> Any:
        alpha = emission[0]
        for t in range(1, emission.shape[0]):
            new = (alpha[:, None] + transition).logsumexp(0) + emission[t]
            alpha = new if lengths is None else kiln.where(t < lengths, new, alpha)
        return alpha.logsumexp(0)

    likelihood(draw(3, 2, grad=True), draw(2, 2, seed=1, grad=True))
    likelihood(draw(3, 2, grad=True), draw(2, 2, seed=1, grad=True), kiln.tensor(2))
    likelihood(draw(2, 2, grad=True), draw(2, 2, seed=1, grad=True))
    likelihood(draw(3, 2, grad=True), draw(2, 2, seed=1, grad=True))


@program
def ctc_forward(c: Any) -> None:
    @c
    def loss(logp: Any, labels: list[int], blank: int = 0) -> Any:
        ext = [blank]
        for label in labels:
            ext += [label, blank]
        never = kiln.tensor(-1e30)
        alpha = [logp[0, ext[0]], logp[0, ext[1]]] + [never] * (len(ext) - 2)
        for t in range(1, logp.shape[0]):
            new = []
            for s, k in enumerate(ext):
                ways = [alpha[s]]
                if s > 0:
                    ways.append(alpha[s - 1])
                if s > 1 and k != blank and k != ext[s - 2]:
                    ways.append(alpha[s - 2])
                new.append(kiln.stack(ways).logsumexp(0) + logp[t, k])
            alpha = new
        return -kiln.logaddexp(alpha[-1], alpha[-2])

    for labels in ([1], [2, 1], [1]):
        loss(draw(3, 3, grad=True).log_softmax(-1), labels)


@program
def edit_distance(c: Any) -> None:
    @c
    def distance(a: Any, b: Any) -> Any:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a):
            new = [i + 1]
            for j, y in enumerate(b):
                cost = 0 if x == y else 1
                new.append(min(row[j + 1] + 1, new[-1] + 1, row[j] + cost))
            row = new
        return row[-1]

    for a, b in (([1, 2], [1, 3]), ([1], [2, 1]), ([1, 2], [1, 2]), ([1, 2], [1, 3])):
        distance(kiln.tensor(a), kiln.tensor(b))


@program
def dynamic_time_warping(c: Any) -> None:
    @c
    def warp(a: Any, b: Any, soft: bool) -> Any:
        d = (a[:, None] - b[None]).abs()
        r = [[kiln.tensor(math.inf)] * (len(b) + 1) for _ in range(len(a) + 1)]
        r[0][0] = kiln.tensor(0.0)
        for i in range(len(a)):
            for j in range(len(b)):
                ways = kiln.stack([r[i][j], r[i][j + 1], r[i + 1][j]])
                r[i + 1][j + 1] = d[i, j] + (-(-ways).logsumexp(0) if soft else ways.amin())
        return r[-1][-1]

    for soft in (True, False, True):
        warp(draw(2, grad=True), draw(3, seed=1), soft)


@program
def knapsack_in_place(c: Any) -> None:
    @c
    def best(values: Any, weights: list[int], room: int) -> Any:
        table = kiln.zeros(room + 1)
        for v, w in zip(values, weights, strict=True):
            table[w:] = kiln.maximum(table[w:], table[: room + 1 - w].clone() + v)
        return table[-1]

    for room in (3, 4, 3):
        best(vector(1, 2, 5), [1, 2, 3], room)


@program
def shortest_paths(c: Any) -> None:
    @c
    def paths(d: Any) -> Any:
        for k in range(d.shape[0]):
            d = kiln.minimum(d, d[:, k, None] + d[None, k])
        if (d.diagonal() < 0).any():
            raise ValueError("a negative cycle")
        return d

    good = draw(3, 3).abs().fill_diagonal_(0)
    paths(good)
    paths(good * 2)
    try:
        paths(good - 1)
    except ValueError as error:
        c.see(str(error))
    paths(good)


@program
def message_passing(c: Any) -> None:
    class Reduce(Enum):
        SUM = "sum"
        MEAN = "mean"

    layer = linear(2, 2)

    @c
    def propagate(x: Any, edges: Any, reduce: Reduce) -> Any:
        source, target = edges
        out = kiln.zeros_like(x).index_add(0, target, layer(x[source]))
        if reduce is Reduce.MEAN:
            degree = kiln.bincount(target, minlength=len(x)).clamp(min=1)
            out = out / degree[:, None]
        return (x + out).relu()

    edges = kiln.tensor([[0, 1, 2], [1, 1, 0]])
    propagate(draw(3, 2), edges, Reduce.SUM)
    propagate(draw(3, 2), edges, Reduce.MEAN)
    propagate(draw(3, 2), edges[:, :2], Reduce.SUM)
    propagate(draw(3, 2), edges, Reduce.MEAN)


@program
def graph_attention(c: Any) -> None:
    w = draw(2, seed=1, grad=True)

    @c
    def attend(x: Any, adjacency: Any) -> Any:
        scores = (x @ w)[:, None] + (x @ w)[None]
        scores = kiln.where(adjacency, scores, float("-inf"))
        alone = ~adjacency.any(1)
        weights = scores.softmax(1)
        if alone.any():
            weights = weights.masked_fill(alone[:, None], 0.0)
        return weights @ x

    full, gap = kiln.ones(3, 3, dtype=kiln.bool), kiln.tensor([[True, True, False], [False] * 3, [True] * 3])
    for adjacency in (full, gap, full, gap):
        attend(draw(3, 2), adjacency)


@program
def label_propagation_until_stable(c: Any) -> None:
    @c
    def propagate(a: Any, labels: Any) -> Any:
        for n in range(5):
            new = (a @ kiln.nn.functional.one_hot(labels, 2).float()).argmax(1)
            if kiln.equal(new, labels):
                return labels, n
            labels = new
        return labels, -1

    a = kiln.eye(3) + kiln.tensor([[0.0, 2, 0], [0, 0, 2], [0, 0, 0]])
    for labels in ([0, 0, 1], [1, 1, 1], [0, 0, 1]):
        propagate(a, kiln.tensor(labels))


@program
def page_rank(c: Any) -> None:
    @c
    def rank(a: Any, damping: float = 0.85) -> Any:
        n = len(a)
        p = a / a.sum(0).clamp(min=1)
        r = kiln.full((n,), 1 / n)
        while True:
            new = damping * (p @ r) + (1 - damping) / n
            change = (new - r).abs().sum()
            r = new
            if change < 0.05:
                return r

    for seed in (1, 2, 1):
        rank((draw(3, 3, seed=seed) > 0).float())


@program
def experts_with_routing(c: Any) -> None:
    experts = kiln.nn.ModuleList([linear(2, 2, seed=k) for k in range(3)])
    gate = linear(2, 3, seed=9)

    @c
    def mix(x: Any, k: int) -> Any:
        weight, chosen = gate(x).softmax(-1).topk(k)
        out = kiln.zeros_like(x)
        for n, expert in enumerate(experts):
            rows, places = kiln.where(chosen == n)
            if len(rows) == 0:
                continue
            out = out.index_add(0, rows, weight[rows, places, None] * expert(x[rows]))
        return out

    for k, seed in ((1, 1), (2, 1), (1, 2), (1, 1)):
        mix(draw(3, 2, seed=seed), k)


@program
def experts_weighted_densely(c: Any) -> None:
    experts = [linear(2, 2, seed=k) for k in range(3)]
    gate = linear(2, 3, seed=9)

    @c
    def mix(x: Any, noise: bool) -> Any:
        logits = gate(x)
        if noise:
            logits = logits + kiln.randn_like(logits)
        top = logits.topk(2)
        gates = kiln.full_like(logits, float("-inf")).scatter(1, top.indices, top.values).softmax(1)
        out = sum(gates[:, k, None] * e(x) for k, e in enumerate(experts))
        return out, gates.sum(0).var()

    for noise in (True, False, True):
        mix(draw(3, 2), noise)
