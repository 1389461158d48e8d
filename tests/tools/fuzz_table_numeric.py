"""More of the table of `fuzz_table`: windows, short-time Fourier transforms, runs, boxes, low rank."""

from __future__ import annotations

import numpy as np
from fuzz_programs import FLOATS
from fuzz_table import TABLE, VIEWS, Draw, Drawn, Unfit, calling, either, entry, method, through

import kiln
from kiln.signal import windows

WIDE = ("float32", "float64")


def add_window(name: str, space: object, full: str) -> None:
    def draw(d: Draw) -> Drawn:
        more = {"a": [0.4, 0.5, 0.1]} if name == "general_cosine" else {}
        return [], calling(getattr(space, name), d.int(0, 40), dtype=getattr(kiln, d.dtype(WIDE)), **more), None

    TABLE[full] = draw


for _name in ("bartlett", "blackman", "hamming", "hann", "kaiser"):
    add_window(f"{_name}_window", kiln, f"{_name}_window")
for _name in windows.__all__:
    add_window(_name, windows, f"signal.windows.{_name}")


def _frames(d: Draw) -> tuple[int, int, int]:
    n = d.int(4, 12)
    win = d.int(2, n)
    return n, d.int(1, max(1, win // 2)), win


@entry("stft")
def _(d: Draw) -> Drawn:
    n, hop, win = _frames(d)
    dtype = d.dtype((*WIDE, "complex64", "complex128"))
    k = d.new((*d.one([(), (2,)]), d.int(n, 40)), dtype)
    run = either(d, "stft", n, hop, win, center=d.flip(), normalized=d.flip(), return_complex=True)
    return [k, d.new((win,), d.dtype(WIDE))], lambda x, w: run(x, window=w), None


@entry("istft")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    n, hop, win = _frames(d)
    k = d.new((d.int(1, 3), n // 2 + 1, d.int(3, 6)), d.dtype(("complex64", "complex128")))
    norm = d.flip()
    return [k], lambda x: kiln.istft(x, n, hop, win, kiln.ones(win, dtype=kiln.float64), normalized=norm), None


# ---- runs, boxes, low rank


@entry("segment_reduce")
def _(d: Draw) -> Drawn:
    parts = [d.int(0, 4) for _ in range(d.int(1, 5))]
    k = d.new((sum(parts), *d.one([(), (3,)])), d.dtype(FLOATS))
    run = calling(kiln.segment_reduce, d.one(["sum", "mean", "prod", "max", "min"]), initial=d.one([None, 0.5]))
    return [k, d.put(np.asarray(parts, np.int64))], lambda x, n: run(x, lengths=n), None


@entry("histogramdd")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    k = d.new((d.int(1, 20), 2), d.dtype(WIDE))
    return [k], lambda x: kiln.histogramdd(x.detach(), [2, 3], range=(-2.0, 2.0, -1.0, 3.0)).hist, None


@entry("binomial")
def _(d: Draw) -> Drawn:
    k = d.new(d.shape(d.int(1, 2)), d.dtype(WIDE), positive=True)
    return [k], lambda x: kiln.binomial(x * 10, kiln.full_like(x, 0.3)), None


@entry("svd_lowrank", "pca_lowrank")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    k = d.put((d.rng.standard_normal((6, 5)) * 2).astype(d.dtype(WIDE)))
    fn = d.one([kiln.svd_lowrank, kiln.pca_lowrank])
    return [k], lambda x: fn(x.detach(), 3)[1], None


@entry("norm_except_dim")
def _(d: Draw) -> Drawn:
    k = d.take(WIDE, 1, 3, want=lambda t: 0 not in t.shape)
    return [k], calling(kiln.norm_except_dim, 2, d.int(-1, len(d.size(k)) - 1)), None


def add_write(name: str, *rest: object) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.new(d.shape(d.int(1, 2)), d.dtype(FLOATS), positive=True)
        run = through(d.int(0, VIEWS), method(name, *rest))
        return [k], lambda x: run(x.detach() + 3), None

    TABLE[name] = draw


add_write("i0_")
add_write("mvlgamma_", 2)
add_write("polygamma_", 1)
