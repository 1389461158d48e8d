"""More of the table of `fuzz_table`: windows and short-time Fourier transforms."""

from __future__ import annotations

from fuzz_table import TABLE, Draw, Drawn, Unfit, calling, either, entry

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
