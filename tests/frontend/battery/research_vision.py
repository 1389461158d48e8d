"""Boxes, images, augmentation, metrics."""

from __future__ import annotations

from typing import Any

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear

PROGRAMS = program = Programs()


def boxes(*rows: tuple[float, float, float, float]) -> Any:
    return kiln.tensor(rows)


def area(b: Any) -> Any:
    return (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])


def overlap(a: Any, b: Any) -> Any:
    low = kiln.maximum(a[:, None, :2], b[None, :, :2])
    high = kiln.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    return inner / (area(a)[:, None] + area(b)[None] - inner)


SOME = ((0.0, 0.0, 2.0, 2.0), (0.1, 0.0, 2.0, 2.1), (4.0, 4.0, 5.0, 6.0))


@program
def intersection_over_union(c: Any) -> None:
    f = c(overlap)
    f(boxes(*SOME), boxes(*SOME[:2]))
    f(boxes(SOME[0]), boxes(SOME[2]))
    f(boxes(*SOME), boxes(*SOME[1:]))


@program
def greedy_suppression(c: Any) -> None:
    @c
    def suppress(b: Any, scores: Any, limit: float) -> Any:
        order = scores.argsort(descending=True)
        keep = []
        while order.numel() > 0:
            best = order[0]
            keep.append(int(best))
            if order.numel() == 1:
                break
            others = order[1:]
            order = others[overlap(b[best][None], b[others])[0] <= limit]
        return keep

    for scores in ([0.9, 0.8, 0.7], [0.1, 0.8, 0.9], [0.9, 0.8, 0.7]):
        suppress(boxes(*SOME), kiln.tensor(scores), 0.5)
    suppress(boxes(*SOME), kiln.tensor([0.9, 0.8, 0.7]), 0.95)


@program
def soft_suppression(c: Any) -> None:
    @c
    def suppress(b: Any, scores: Any, sigma: float = 0.5) -> Any:
        scores = scores.clone()
        order = []
        for _ in range(len(scores)):
            i = scores.argmax()
            if scores[i] < 0.2:
                break
            order.append(i)
            decay = (-(overlap(b[i][None], b)[0] ** 2) / sigma).exp()
            scores = scores * decay
            scores[i] = -1.0
        return kiln.stack(order)

    for scores in ([0.9, 0.8, 0.7], [0.9, 0.3, 0.1], [0.9, 0.8, 0.7]):
        suppress(boxes(*SOME), kiln.tensor(scores))


@program
def anchors_matched_to_truth(c: Any) -> None:
    @c
    def match(anchors: Any, truth: Any) -> Any:
        if truth.shape[0] == 0:
            return kiln.full((anchors.shape[0],), -1)
        o = overlap(anchors, truth)
        value, index = o.max(1)
        index = kiln.where(value < 0.3, -1, index)
        for j in range(truth.shape[0]):
            index[o[:, j].argmax()] = j
        return index

    match(boxes(*SOME), boxes(SOME[0]))
    match(boxes(*SOME), boxes(*SOME[1:]))
    match(boxes(*SOME), kiln.zeros(0, 4))
    match(boxes(*SOME), boxes(SOME[2]))


@program
def random_crop_and_flip(c: Any) -> None:
    @c
    def augment(image: Any, size: int) -> Any:
        top = int(kiln.randint(0, image.shape[-2] - size + 1, ()))
        left = int(kiln.randint(0, image.shape[-1] - size + 1, ()))
        image = image[..., top : top + size, left : left + size]
        if kiln.rand(()) < 0.5:
            image = image.flip(-1)
        return image

    for n in range(5):
        augment(draw(1, 3, 3, seed=n), 2)


@program
def random_erasing_in_place(c: Any) -> None:
    @c
    def erase(images: Any, p: float) -> Any:
        for image in images:
            if kiln.rand(()) < p:
                image[:, :1, :2] = 0
        return images.mean()

    for p in (0.5, 0.5, 0.0, 1.0):
        x = draw(2, 1, 2, 3)
        erase(x, p)


@program
def colour_jitter_pipeline(c: Any) -> None:
    def brightness(x: Any) -> Any:
        return x * (0.5 + kiln.rand(()))

    def contrast(x: Any) -> Any:
        return (x - x.mean()) * (0.5 + kiln.rand(())) + x.mean()

    class Compose:
        def __init__(self, *steps: Any) -> None:
            self.steps = steps

        def __call__(self, x: Any) -> Any:
            for step in self.steps:
                x = step(x)
            return x.clamp(0, 1)

    pipeline = c(Compose(brightness, contrast))
    for n in (1, 2, 1):
        pipeline(draw(3, n, n).abs())


@program
def normalise_with_given_statistics(c: Any) -> None:
    @c
    def normalise(x: Any, mean: tuple[float, ...], std: tuple[float, ...] | None = None) -> Any:
        m = kiln.tensor(mean).view(-1, 1, 1)
        if x.dtype == kiln.uint8:
            x = x.float() / 255
        return x - m if std is None else (x - m) / kiln.tensor(std).view(-1, 1, 1)

    image = (draw(2, 2, 2).abs() * 50).to(kiln.uint8)
    normalise(image, (0.5, 0.4), (0.2, 0.2))
    normalise(image.float(), (0.5, 0.4))
    normalise(image, (0.5, 0.4), (0.2, 0.1))
    normalise(image, (0.5, 0.4), (0.2, 0.2))


@program
def patches_and_positions(c: Any) -> None:
    position = draw(4, 12, seed=3, grad=True)

    @c
    def embed(x: Any, size: int = 2) -> Any:
        n, ch, h, w = x.shape
        if h % size or w % size:
            raise ValueError(f"{h} x {w} is not a multiple of {size}")
        x = x.reshape(n, ch, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return x + position[: x.shape[1]]

    embed(draw(1, 3, 4, 4))
    embed(draw(2, 3, 2, 4))
    embed(draw(1, 3, 4, 4))
    try:
        embed(draw(1, 3, 3, 4))
    except ValueError as error:
        c.see(str(error))


@program
def residual_block_with_projection(c: Any) -> None:
    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            kiln.manual_seed(3)
            self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(outputs)
            self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

        def forward(self, x: Any) -> Any:
            y = self.norm(self.conv(x)).relu()
            return y + (x if self.skip is None else self.skip(x))

    for inputs, outputs in ((1, 2), (2, 2)):
        block = Block(inputs, outputs)
        net = c(block)
        net(draw(1, inputs, 3, 3)).sum().backward()
        block.eval()
        net(draw(1, inputs, 3, 3))
        block.train()
        net(draw(1, inputs, 3, 3, seed=2))


@program
def pooling_pyramid(c: Any) -> None:
    @c
    def pyramid(x: Any, levels: tuple[int, ...]) -> Any:
        return kiln.cat([F.adaptive_avg_pool2d(x, n).flatten(1) for n in levels], 1)

    for levels in ((1, 2), (2,), (1, 2)):
        pyramid(draw(1, 2, 4, 4), levels)


@program
def accuracy_at_k(c: Any) -> None:
    @c
    def accuracy(logits: Any, y: Any, ks: tuple[int, ...]) -> list[float]:
        top = logits.topk(max(ks)).indices
        hit = top == y[:, None]
        return [hit[:, :k].any(1).float().mean().item() for k in ks]

    for ks, seed in (((1, 2), 1), ((1,), 2), ((1, 2), 1), ((1, 2), 3)):
        accuracy(draw(3, 4, seed=seed), kiln.tensor([0, 1, 2]), ks)


@program
def precision_recall_f1(c: Any) -> None:
    @c
    def scores(predicted: Any, y: Any) -> dict[str, float]:
        true = (predicted & y).sum().item()
        p = true / max(predicted.sum().item(), 1)
        r = true / max(y.sum().item(), 1)
        return {"precision": p, "recall": r, "f1": 2 * p * r / (p + r) if p + r else 0.0}

    y = kiln.tensor([True, False, True, True])
    for predicted in ([True, True, False, True], [False] * 4, [True, True, False, True]):
        scores(kiln.tensor(predicted), y)


@program
def confusion_matrix(c: Any) -> None:
    total = kiln.zeros(3, 3, dtype=kiln.int64)

    @c
    def update(predicted: Any, y: Any) -> Any:
        total.add_(kiln.bincount(y * 3 + predicted, minlength=9).reshape(3, 3))
        return total.diagonal().sum() / total.sum()

    for p in ([0, 1, 2], [2, 2], [0, 1, 1]):
        update(kiln.tensor(p), kiln.arange(len(p)))


@program
def area_under_the_curve(c: Any) -> None:
    @c
    def auc(scores: Any, y: Any) -> Any:
        positives = int(y.sum())
        if positives in (0, len(y)):
            return float("nan")
        order = scores.argsort()
        ranks = kiln.empty(len(y))
        ranks[order] = kiln.arange(1.0, len(y) + 1)
        total = ranks[y].sum()
        return (total - positives * (positives + 1) / 2) / (positives * (len(y) - positives))

    for y in ([True, False, True], [True, True, True], [True, False, True], [False, False, True]):
        auc(draw(3, seed=2), kiln.tensor(y))


@program
def running_mean_over_batches(c: Any) -> None:
    class Mean:
        def __init__(self) -> None:
            self.total = kiln.zeros(())
            self.count = kiln.zeros(())

        def __call__(self, x: Any) -> Any:
            self.total += x.sum()
            self.count += x.numel()
            return self.total / self.count

    mean = Mean()
    update = c(mean)
    for n in (2, 3, 2):
        update(draw(n, seed=n))


@program
def dice_over_classes(c: Any) -> None:
    @c
    def dice(logits: Any, y: Any, skip_background: bool) -> Any:
        p = logits.softmax(1)
        out = []
        for k in range(int(skip_background), logits.shape[1]):
            t = (y == k).float()
            out.append(2 * (p[:, k] * t).sum() / (p[:, k].sum() + t.sum() + 1e-6))
        return 1 - kiln.stack(out).mean()

    for skip in (True, False, True):
        dice(draw(1, 3, 2, 2, grad=True), kiln.tensor([[[0, 1], [2, 1]]]), skip)


@program
def saliency(c: Any) -> None:
    net = nn.Sequential(nn.Flatten(), linear(4, 3))

    @c
    def explain(x: Any, label: Any = None) -> Any:
        x = x.clone().requires_grad_()
        logits = net(x)
        if label is None:
            label = logits.argmax(1)
        logits.gather(1, label[:, None]).sum().backward()
        return x.grad.abs()

    explain(draw(2, 2, 2))
    explain(draw(2, 2, 2), kiln.tensor([0, 1]))
    explain(draw(1, 2, 2))
    explain(draw(2, 2, 2, seed=3))


@program
def adversarial_steps(c: Any) -> None:
    net = linear(2, 3)

    @c
    def attack(x: Any, y: Any, radius: float, steps: int) -> Any:
        best = x
        for _ in range(steps):
            best = best.detach().requires_grad_()
            loss = F.cross_entropy(net(best), y)
            (g,) = kiln.autograd.grad(loss, best)
            best = x + (best + radius / 2 * g.sign() - x).clamp(-radius, radius)
            if (net(best).argmax(1) != y).all():
                break
        return best.detach()

    for radius, seed in ((0.1, 1), (3.0, 1), (0.1, 2), (0.1, 1)):
        attack(draw(2, 2, seed=seed), kiln.tensor([0, 1]), radius, 2)


@program
def letterbox(c: Any) -> None:
    @c
    def fit(image: Any, size: int) -> Any:
        h, w = image.shape[-2:]
        scale = size / max(h, w)
        image = F.interpolate(image, (round(h * scale), round(w * scale)), mode="bilinear", align_corners=False)
        h, w = image.shape[-2:]
        return F.pad(image, ((size - w) // 2, (size - w + 1) // 2, (size - h) // 2, (size - h + 1) // 2), value=0.5)

    for h, w in ((2, 4), (3, 2), (2, 4)):
        fit(draw(1, 1, h, w), 5)
