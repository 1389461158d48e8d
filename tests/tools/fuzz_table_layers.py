"""More of the table of `fuzz_table`: layers over volumes, and those that are seldom used."""

from __future__ import annotations

from typing import Any

from fuzz_programs import FLOATS
from fuzz_table import TABLE, VIEWS, Draw, Drawn, F, calling, entry, through
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


def add_in_place(name: str, rest: tuple[Any, ...]) -> None:
    def draw(d: Draw) -> Drawn:
        view = d.one([0, 1, 2, 3, VIEWS])
        k = d.take(FLOATS, 1 if view else 0)
        return [k], through(view, calling(getattr(F, name), *rest)), None

    TABLE[name] = draw


for _name, _rest in (
    ("relu_", ()), ("elu_", (0.7,)), ("selu_", ()), ("celu_", (0.7,)), ("leaky_relu_", (0.3,)),
    ("hardtanh_", (-0.4, 0.6)), ("threshold_", (0.1, 2.0)), ("rrelu_", (0.1, 0.3, True)),
):  # fmt: skip
    add_in_place(_name, _rest)


@entry("upsample_nearest", "upsample_bilinear")
def _(d: Draw) -> Drawn:
    upsample = d.one([F.upsample_nearest, F.upsample_bilinear])
    more = {"size": d.int(1, 9)} if d.flip() else {"scale_factor": d.one([2, 0.5, 1.5])}
    return [image(d, 2)], calling(upsample, **more), None


@entry("native_channel_shuffle")
def _(d: Draw) -> Drawn:
    groups = d.int(1, 3)
    return [image(d, 2, groups * d.int(1, 2))], calling(F.native_channel_shuffle, groups), None
