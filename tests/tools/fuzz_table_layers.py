"""More of the table of `fuzz_table`: layers over volumes, and those that are seldom used."""

from __future__ import annotations

from typing import Any

from fuzz_programs import FLOATS
from fuzz_table import TABLE, Draw, Drawn, F, calling, entry
from fuzz_table_nn import add_conv, add_pool, image

for _transposed in (False, True):
    add_conv(3, _transposed)
for _name in ("adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "max_pool", "lp_pool"):
    add_pool(f"{_name}3d", 3)


def add_with_indices(name: str, spatial: int) -> None:
    def draw(d: Draw) -> Drawn:
        k, fn = image(d, spatial), getattr(F, name)
        if name.startswith("fractional"):
            samples = d.new((*d.size(k)[:2], spatial), d.name(k), positive=True)
            more = {"return_indices": True} if name.endswith("d") and d.flip() else {}
            return [k, samples], lambda x, u: fn(x, 2, 2, _random_samples=u.detach(), **more), None
        return [k], calling(fn, d.int(1, 3)), None

    TABLE[name] = draw


for _spatial in (1, 2, 3):
    add_with_indices(f"max_pool{_spatial}d_with_indices", _spatial)
    add_with_indices(f"adaptive_max_pool{_spatial}d_with_indices", _spatial)
for _spatial in (2, 3):
    for _end in ("", "_with_indices"):
        add_with_indices(f"fractional_max_pool{_spatial}d{_end}", _spatial)


def add_unpool(spatial: int) -> None:
    def draw(d: Draw) -> Drawn:
        pool, unpool = getattr(F, f"max_pool{spatial}d"), getattr(F, f"max_unpool{spatial}d")
        stride = d.int(1, 2)

        def run(x: Any) -> Any:
            largest, at = pool(x, 2, stride, return_indices=True)
            return unpool(largest, at, 2, stride, 0, x.shape[2:])

        return [image(d, spatial)], run, None

    TABLE[f"max_unpool{spatial}d"] = draw


for _spatial in (1, 2, 3):
    add_unpool(_spatial)


@entry("conv_tbc")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 3, 3, want=lambda t: min(t.shape) > 0)
    taps, out, pad = d.int(1, 3), d.int(1, 3), d.int(1, 2)
    w = d.new((taps, d.size(k)[2], out), d.name(k))
    return [k, w, d.new((out,), d.name(k))], calling(F.conv_tbc, pad), None
