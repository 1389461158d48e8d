"""The demo from end to end, its report, and the drawing of graphs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import kiln
from kiln import demo
from kiln.digits import load_digits
from kiln.drawing import svg
from kiln.ir.parser import parse_graph
from kiln.report import Chapter, Course, report

SVG = "{http://www.w3.org/2000/svg}"


class _Page(HTMLParser):
    """Counts elements and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "data")]


def test_the_demo_trains_saves_and_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.run(epochs=2, seeds=1, out=str(tmp_path / "out")) == 0
    text = capfd.readouterr().out
    assert text.count("bit-identical") == 2 and text.count("held-out digits read rightly") == 2
    assert "\r" not in text, "a progress bar where nobody watches"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cnn.safetensors",
        "mlp.safetensors",
        "report.html",
    ]
    page = _Page()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.fetched == [] and "script" not in page.tags, "the report needs another file"
    assert page.tags["svg"] >= 2 * 3 and page.tags["polyline"] == 2 * 2


def test_a_report_tells_of_a_difference() -> None:
    held_out = load_digits("held-out")
    guesses = held_out.labels.copy()
    guesses[5] = (guesses[5] + 1) % 10
    fused = "graph f(%0 x: float32[2]) { %1 = neg(%0) : float32[2] return %1 }"
    bad = Course(3, [1.0, 0.5], [1.0, np.nextafter(0.5, 1)], 2.0, 1.0, 30.0, 0.99)
    assert not bad.identical and bad.gap == 2.0**-53
    page = report([Chapter("m<l>p", "Model", [bad], guesses, fused)], held_out, {"kiln": "1 & 2"})
    assert "differ by up to 1.11022e-16" in page and "bit for bit<" not in page
    assert "M&lt;L&gt;P" in page and "1 &amp; 2" in page
    assert f"{held_out.labels[5]} read as {guesses[5]}" in page and "seed 3: 1<" in page


def _boxes(drawn: str) -> dict[str, tuple[str, str]]:
    """Title line -> (kind, tooltip) of every box."""
    found = {}
    for g in ElementTree.fromstring(drawn).iter(f"{SVG}g"):
        lines = [t.text or "" for t in g.iter(f"{SVG}text")]
        title = g.find(f"{SVG}title")
        found[lines[0]] = (g.get("class", ""), "" if title is None else title.text or "")
    return found


def test_a_drawing_shows_kernels_and_what_they_read() -> None:
    text = """graph f(%0 x: float32[2, 3], %1 w: float32[3, 4]) {
      %2 = matmul(%0, %1) : float32[2, 4]
      %3 = full() {dtype=float32, shape=(2, 4), value=1.0} : float32[2, 4]
      %4 = add(%2, %3) : float32[2, 4]
      %5 = permute(%4) {dims=(1, 0)} : float32[4, 2]
      %6 = matmul(%4, %5) : float32[2, 2]
      return %6
    }"""
    drawn = svg(parse_graph(text))
    boxes = _boxes(drawn)
    assert list(boxes) == ["x float32[2, 3]", "w float32[3, 4]", "matmul", "add"], "views and literals are not drawn"
    assert boxes["matmul"][0] == "template" and boxes["add"][0] == "other"
    assert "%2" in boxes["add"][1]
    edges = len(re.findall(r'<path d="M', drawn))
    assert edges == 2 + 1 + 1  # x and w into the first product, that into add, add (twice the same) into the second


def test_an_edge_that_passes_ranks_bends_once_for_all_that_read_it() -> None:
    chain = "\n".join(f"%{k} = neg(%{k - 1}) : float32[2]" for k in range(2, 6))
    text = f"""graph f(%0 x: float32[2], %1 y: float32[2]) {{ {chain}
      %6 = add(%5, %0) : float32[2]
      %7 = mul(%5, %0) : float32[2]
      %8 = exp(%0) : float32[2]
      return %6, %7, %8 }}"""
    drawn = svg(parse_graph(text))
    assert drawn.count("<rect") == 2 + 4 + 3
    places = [float(v) for v in re.findall(r'<rect x="([-\d.]+)"', drawn)]
    assert min(places) >= 0, "a box lies outside"
    # the chain, its end to both readers, x to exp, x through four bends, the last of them to both readers
    assert drawn.count('<path d="M') == 4 + 2 + 1 + 4 + 2


def test_an_explanation_draws_its_graphs() -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        return (x.exp() @ x).relu()

    told = kiln.explain(f, kiln.ones(3, 3))
    assert {"matmul"} <= set(_boxes(told.svg()))
    assert {"exp", "matmul", "relu"} <= set(_boxes(told.svg("captured")))
