"""Batches, features, statistics and tables: what stands around a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kiln
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def collate_with_padding(c: Any) -> None:
    @c
    def collate(items: list[Any], value: float = 0.0) -> Any:
        longest = max(len(x) for x in items)
        out = kiln.full((len(items), longest), value)
        for k, x in enumerate(items):
            out[k, : len(x)] = x
        return out, out != value

    for sizes in ((1, 3), (2, 2), (1, 3)):
        collate([draw(n, seed=n) for n in sizes])


@program
def batches_from_a_loop(c: Any) -> None:
    def batches(x: Any, size: int, drop: bool) -> Iterator[Any]:
        for part in x.split(size):
            if drop and len(part) < size:
                return
            yield part

    f = c(lambda x, size, drop: [b.mean(0) for b in batches(x, size, drop)])
    for drop in (True, False, True):
        f(draw(5, 2), 2, drop)


@program
def shuffled_split(c: Any) -> None:
    @c
    def split(x: Any, share: float) -> Any:
        order = kiln.randperm(len(x))
        cut = int(len(x) * share)
        return x[order[:cut]], x[order[cut:]]

    for share in (0.5, 0.25, 0.5):
        split(draw(4, 2), share)


@program
def one_hot_with_unknowns(c: Any) -> None:
    @c
    def encode(x: Any, classes: int) -> Any:
        known = x < classes
        return F.one_hot(kiln.where(known, x, 0), classes) * known[:, None]

    for x in ([0, 2, 1], [5, 0, 1], [0, 2, 1]):
        encode(kiln.tensor(x), 3)


@program
def standardised_columns(c: Any) -> None:
    @c
    def scale(x: Any, kind: str) -> Any:
        if kind == "z":
            return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
        if kind == "range":
            low, high = x.aminmax(dim=0)
            return (x - low) / (high - low)
        return x / x.abs().amax(0)

    for kind in ("z", "range", "max", "z"):
        scale(draw(3, 2), kind)


@program
def missing_values_filled(c: Any) -> None:
    @c
    def fill(x: Any) -> Any:
        gap = x.isnan()
        if not gap.any():
            return x, 0
        return kiln.where(gap, x.nanmean(0), x), int(gap.sum())

    full, holes = draw(3, 2), draw(3, 2)
    holes[1, 0] = float("nan")
    for x in (full, holes, full, holes):
        fill(x)


@program
def outliers_clipped(c: Any) -> None:
    @c
    def clip(x: Any, share: float) -> Any:
        low, high = x.quantile(kiln.tensor([share, 1 - share]))
        return x.clamp(low, high), ((x < low) | (x > high)).sum()

    for share in (0.1, 0.3, 0.1):
        clip(draw(6), share)


@program
def binned_means(c: Any) -> None:
    @c
    def means(x: Any, y: Any, edges: Any) -> Any:
        k = kiln.bucketize(x, edges)
        n = kiln.bincount(k, minlength=len(edges) + 1)
        total = kiln.zeros(len(edges) + 1).index_add(0, k, y)
        return total / n.clamp(min=1), n

    for edges in (vector(0.0), vector(-1, 0, 1), vector(0.0)):
        means(draw(5), draw(5, seed=1), edges)


@program
def polynomial_features(c: Any) -> None:
    @c
    def features(x: Any, degree: int, bias: bool = True) -> Any:
        columns = [kiln.ones(len(x), 1)] if bias else []
        for d in range(1, degree + 1):
            columns.append(x**d)
        return kiln.cat(columns, 1)

    for degree, bias in ((2, True), (1, False), (2, True)):
        features(draw(3, 2), degree, bias)


@program
def ridge_regression(c: Any) -> None:
    @c
    def fit(x: Any, y: Any, penalty: float) -> Any:
        a = x.T @ x + penalty * kiln.eye(x.shape[1])
        w = kiln.linalg.solve(a, x.T @ y)
        return w, (x @ w - y).square().mean()

    for n, penalty in ((4, 0.1), (3, 1.0), (4, 0.1)):
        fit(draw(n, 2), draw(n, seed=1), penalty)


@program
def principal_components(c: Any) -> None:
    @c
    def project(x: Any, k: int, white: bool) -> Any:
        x = x - x.mean(0)
        values, vectors = kiln.linalg.eigh(x.T @ x / (len(x) - 1))
        top = vectors[:, -k:]
        y = x @ top
        return (y / values[-k:].sqrt()).abs() if white else y.abs()

    for k, white in ((1, False), (2, True), (1, False)):
        project(draw(4, 2), k, white)


@program
def nearest_neighbours_vote(c: Any) -> None:
    @c
    def predict(x: Any, known: Any, labels: Any, k: int) -> Any:
        near = kiln.cdist(x, known).topk(k, largest=False).indices
        votes = F.one_hot(labels[near], 3).sum(1)
        return votes.argmax(1)

    for k in (1, 3, 1):
        predict(draw(2, 2), draw(4, 2, seed=1), kiln.tensor([0, 1, 2, 1]), k)


@program
def decision_stump(c: Any) -> None:
    @c
    def fit(x: Any, y: Any) -> Any:
        best, where = float("inf"), None
        for column in range(x.shape[1]):
            for cut in x[:, column]:
                error = ((x[:, column] > cut) != y).float().mean().item()
                if error < best:
                    best, where = error, (column, cut.item())
        return best, where

    for y in ([True, False], [False, True], [True, False]):
        fit(draw(2, 2), kiln.tensor(y))


@program
def moving_statistics(c: Any) -> None:
    @c
    def move(x: Any, window: int, kind: str = "mean") -> Any:
        parts = x.unfold(0, window, 1)
        return getattr(parts, kind)(-1) if kind != "max" else parts.amax(-1)

    for window, kind in ((2, "mean"), (3, "std"), (2, "max"), (2, "mean")):
        move(draw(5), window, kind)


@program
def differences_until_stationary(c: Any) -> None:
    @c
    def difference(x: Any, limit: float) -> Any:
        order = 0
        while x.mean().abs() > limit and order < 3:
            x, order = x.diff(), order + 1
        return x, order

    for x in (vector(1, 2, 3, 4), vector(1, -1, 1, -1), vector(1, 2, 3, 4), vector(1, 4, 9, 16)):
        difference(x, 0.5)


@program
def bootstrap_interval(c: Any) -> None:
    @c
    def interval(x: Any, rounds: int, level: float = 0.5) -> Any:
        means = x[kiln.randint(0, len(x), (rounds, len(x)))].mean(1).sort().values
        k = int(rounds * (1 - level) / 2)
        return means[k], means[rounds - 1 - k]

    for rounds in (4, 6, 4):
        interval(draw(3), rounds)


@program
def permutation_test(c: Any) -> None:
    @c
    def test(a: Any, b: Any, rounds: int) -> float:
        both = kiln.cat([a, b])
        observed = (a.mean() - b.mean()).abs()
        hits = 0
        for _ in range(rounds):
            p = both[kiln.randperm(len(both))]
            hits += int((p[: len(a)].mean() - p[len(a) :].mean()).abs() >= observed)
        return hits / rounds

    for rounds in (2, 3, 2):
        test(draw(2), draw(2, seed=1), rounds)


@program
def weighted_sampling_of_classes(c: Any) -> None:
    @c
    def sample(labels: Any, count: int) -> Any:
        sizes = kiln.bincount(labels)
        weights = 1.0 / sizes[labels]
        return kiln.multinomial(weights, count, replacement=True)

    for labels in ([0, 0, 1], [0, 1, 1, 1], [0, 0, 1]):
        sample(kiln.tensor(labels), 2)


@program
def run_lengths(c: Any) -> None:
    @c
    def encode(x: Any) -> list[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        for v in x.tolist():
            if out and out[-1][0] == v:
                out[-1] = (v, out[-1][1] + 1)
            else:
                out.append((v, 1))
        return out

    for x in ([1, 1, 2], [3], [1, 1, 2], [1, 2, 2]):
        encode(kiln.tensor(x))


@program
def join_of_tables(c: Any) -> None:
    @c
    def join(left: Any, right: Any, values: Any, default: float | None = None) -> Any:
        hit = left[:, None] == right[None]
        found = hit.any(1)
        if default is None and not found.all():
            raise KeyError(f"{int((~found).sum())} keys are missing")
        y = values[hit.int().argmax(1)]
        return y if default is None else kiln.where(found, y, default)

    right, values = kiln.tensor([3, 5, 7]), vector(1, 2, 3)
    join(kiln.tensor([5, 3]), right, values)
    try:
        join(kiln.tensor([5, 4]), right, values)
    except KeyError as error:
        c.see(str(error))
    join(kiln.tensor([5, 4]), right, values, 0.0)
    join(kiln.tensor([7, 3]), right, values)


@program
def sparse_rows_by_hand(c: Any) -> None:
    @c
    def multiply(values: Any, columns: Any, starts: list[int], x: Any) -> Any:
        rows = [(values[a:b] * x[columns[a:b]]).sum() for a, b in zip(starts[:-1], starts[1:], strict=True)]  # noqa: RUF007
        return kiln.stack(rows)

    for starts in ([0, 2, 3], [0, 0, 3], [0, 2, 3]):
        multiply(draw(3, grad=True), kiln.tensor([0, 1, 1]), starts, draw(2, seed=1))


@program
def checkpoint_of_state(c: Any) -> None:
    net = kiln.nn.Linear(2, 2)
    kept: dict[str, Any] = {k: v.clone() for k, v in net.state_dict().items()}

    @c
    def distance() -> Any:
        return sum((v - kept[k]).square().sum() for k, v in net.named_parameters())

    distance()
    with kiln.no_grad():
        net.weight.add_(1)
    distance()
    net.load_state_dict(kept)
    distance()
