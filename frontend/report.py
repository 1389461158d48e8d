"""The demo's report: one HTML file that needs nothing else, with what was trained, how it went and what ran."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any

import numpy as np

from kiln.digits import Digits
from kiln.drawing import svg
from kiln.ir.parser import parse_graph

Classes = np.ndarray[Any, np.dtype[np.int64]]
_MISREAD = 24  # at most so many misread digits are drawn


@dataclass(frozen=True)
class Course:
    """One seed, trained eagerly and compiled: every step's loss of both, and how long the steps took."""

    seed: int
    eager_losses: Sequence[float]
    compiled_losses: Sequence[float]
    eager_ms: float
    compiled_ms: float
    first_ms: float  # the first compiled call, with capture and compilation
    accuracy: float

    @property
    def identical(self) -> bool:
        """Whether all losses agree bit for bit."""
        return np.array(self.eager_losses).tobytes() == np.array(self.compiled_losses).tobytes()

    @property
    def gap(self) -> float:
        """The largest difference of two losses."""
        return max(abs(a - b) for a, b in zip(self.eager_losses, self.compiled_losses, strict=True))


@dataclass(frozen=True)
class Chapter:
    """What the report tells of one model; `guesses` are the last seed's, of the held-out rows; `fused` is the text of
    its training step's graph after fusion."""

    name: str
    model: str
    courses: Sequence[Course]
    guesses: Classes
    fused: str


def report(chapters: Sequence[Chapter], held_out: Digits, environment: dict[str, str]) -> str:
    """The text of the HTML file: no script, no other file, no network."""
    facts = " · ".join(f"{escape(k)} {escape(v)}" for k, v in environment.items() if k not in ("cache", "features"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>kiln demo</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        "<h1>kiln demo: handwritten digits</h1>"
        "<p>Each model was trained twice from the same seed: eagerly, and with the whole training step compiled into "
        "one program. Compiling never changes a number, so both courses must be the same to the last bit.</p>"
        f"<p class=faint>{facts}</p>{''.join(_chapter(c, held_out) for c in chapters)}"
        "<footer class=faint>Data: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI "
        "Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0.</footer></body></html>\n"
    )


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1d2433;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d8dde5}h3{margin:1.4rem 0 .4rem}.faint{color:#5b6472;font-size:13px}
table{border-collapse:collapse}th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #e3e7ed}
th{font-weight:600}.row{display:flex;flex-wrap:wrap;gap:2rem;align-items:flex-start}
.good{color:#137a3a}.bad{color:#b3261e;font-weight:600}pre{overflow:auto;font-size:12px;background:#f6f7f9;padding:1rem}
.scroll{overflow:auto;border:1px solid #e3e7ed;text-align:center}.graph{max-width:100%;height:auto}
figure{margin:0}figcaption{font-size:12px;color:#5b6472}
.digits{display:flex;flex-wrap:wrap;gap:.8rem}.digits figure{text-align:center}svg text{font:11px system-ui,sans-serif}
"""


def _chapter(chapter: Chapter, held_out: Digits) -> str:
    wrong = np.flatnonzero(chapter.guesses != held_out.labels)
    accuracy = statistics.median(c.accuracy for c in chapter.courses)
    last = chapter.courses[-1].seed
    return (
        f"<h2>{escape(chapter.name.upper())}: {accuracy:.2%} of {len(held_out.labels)} held-out digits read rightly "
        f"<span class=faint>(median of {len(chapter.courses)})</span></h2>"
        f"{_table(chapter.courses)}<div class=row>"
        f"<div><h3>Loss of every step</h3>{_curves(chapter.courses)}</div>"
        f"<div><h3>Confusion matrix, seed {last}</h3>{_confusion(chapter.guesses, held_out.labels)}</div></div>"
        f"<h3>Misread by seed {last}: {len(wrong)}</h3>{_misread(wrong[:_MISREAD], chapter.guesses, held_out)}"
        "<h3>The compiled training step, fused</h3><p class=faint>A box is a kernel: blue for fused loops, orange for "
        "matrix products, convolutions and the like. Hover for its text.</p>"
        f"<div class=scroll>{svg(parse_graph(chapter.fused))}</div>"
        f"<details><summary>The same as text</summary><pre>{escape(chapter.fused)}</pre></details>"
        f"<details><summary>The model</summary><pre>{escape(chapter.model)}</pre></details>"
    )


def _table(courses: Sequence[Course]) -> str:
    rows = ""
    for c in courses:
        same = "<td class=good>bit for bit" if c.identical else f"<td class=bad>differ by up to {c.gap:g}"
        rows += (
            f"<tr><td>{c.seed}<td>{c.accuracy:.2%}<td>{len(c.eager_losses)}{same}<td>{c.eager_ms:.3f} ms"
            f"<td>{c.compiled_ms:.3f} ms<td>{c.eager_ms / c.compiled_ms:.1f}&times;<td>{c.first_ms:.0f} ms</tr>"
        )
    return (
        "<table><tr><th>seed<th>accuracy<th>losses<th>eager and compiled<th>eager step<th>compiled step<th>ratio"
        f"<th>first compiled call</tr>{rows}</table>"
    )


def _curves(courses: Sequence[Course], width: int = 560, height: int = 300) -> str:
    """Loss over steps on a logarithmic scale: the eager course wide and pale, the compiled one thin on top of it."""
    finite = [v for c in courses for v in (*c.eager_losses, *c.compiled_losses) if 0 < v < float("inf")]
    low, high = (log10(min(finite)), log10(max(finite))) if finite else (-1.0, 0.0)
    span = max(high - low, 1e-9)
    steps = max(len(c.eager_losses) for c in courses)

    def path(losses: Sequence[float], style: str) -> str:
        points = (
            f"{48 + (width - 60) * i / max(steps - 1, 1):.1f},{8 + (height - 40) * (high - log10(v)) / span:.1f}"
            for i, v in enumerate(losses)
            if 0 < v < float("inf")
        )
        return f'<polyline points="{" ".join(points)}" fill="none" {style}/>'

    colours = ("#3b7dd8", "#d07b1c", "#2a9d6f", "#9b4dca", "#b3261e")
    lines, legend = "", ""
    for k, c in enumerate(courses):
        colour = colours[k % len(colours)]
        lines += path(c.eager_losses, f'stroke="{colour}" stroke-width="5" stroke-opacity=".25"')
        lines += path(c.compiled_losses, f'stroke="{colour}" stroke-width="1.2"')
        legend += f'<text x="{width - 70}" y="{20 + 15 * k}" fill="{colour}">seed {c.seed}</text>'
    ticks = ""
    for decade in range(int(np.ceil(low)), int(np.floor(high)) + 1):
        y = 8 + (height - 40) * (high - decade) / span
        ticks += (
            f'<line x1="48" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e7ed"/>'
            f'<text x="42" y="{y + 4:.1f}" text-anchor="end" fill="#5b6472">{10.0**decade:g}</text>'
        )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="loss curves">{ticks}{lines}{legend}<text x="{width / 2}" y="{height - 6}" fill="#5b6472" '
        f'text-anchor="middle">step, 0 to {steps - 1}</text></svg>'
        "<figcaption>Wide and pale: eager. Thin: compiled.</figcaption></figure>"
    )


def _confusion(guesses: Classes, labels: Classes, cell: int = 27) -> str:
    """Rows: what it is; columns: what it was taken for."""
    counts = np.zeros((10, 10), np.int64)
    np.add.at(counts, (labels, guesses), 1)
    body = ""
    for i in range(10):
        body += f'<text x="18" y="{40 + i * cell}" text-anchor="middle">{i}</text>'
        body += f'<text x="{44 + i * cell}" y="16" text-anchor="middle">{i}</text>'
        for j in range(10):
            count = int(counts[i, j])
            share = count / max(int(counts[i].sum()), 1)
            colour, strength = ("59,125,216", 0.75 * share) if i == j else ("179,38,30", min(1.0, 0.15 + 3 * share))
            body += (
                f'<rect x="{31 + j * cell}" y="{23 + i * cell}" width="{cell - 1}" height="{cell - 1}" '
                f'fill="rgba({colour},{strength if count else 0.03:.2f})"/>'
            )
            if count:
                body += f'<text x="{44 + j * cell}" y="{40 + i * cell}" text-anchor="middle">{count}</text>'
    size = 34 + 10 * cell
    return (
        f'<figure><svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img" '
        f'aria-label="confusion matrix">{body}</svg><figcaption>Row: the digit. Column: what it was taken for.'
        "</figcaption></figure>"
    )


def _misread(rows: np.ndarray[Any, np.dtype[np.int64]], guesses: Classes, held_out: Digits) -> str:
    figures = "".join(
        f"<figure>{_digit(held_out.images[i])}"
        f"<figcaption>{held_out.labels[i]} read as {guesses[i]}</figcaption></figure>"
        for i in rows
    )
    return f"<div class=digits>{figures}</div>"


def _digit(image: np.ndarray[Any, np.dtype[np.float32]], pixel: int = 9) -> str:
    cells = "".join(
        f'<rect x="{pixel * (k % 8)}" y="{pixel * (k // 8)}" width="{pixel}" height="{pixel}" '
        f'fill="rgb({grey},{grey},{grey})"/>'
        for k, grey in enumerate(255 - np.rint(image * 255).astype(int))
    )
    size = 8 * pixel
    return (
        f'<svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img" aria-label="a digit">{cells}</svg>'
    )
