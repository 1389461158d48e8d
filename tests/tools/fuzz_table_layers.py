"""More of the table of `fuzz_table`: layers over volumes, and those that are seldom used."""

from __future__ import annotations

from fuzz_programs import FLOATS
from fuzz_table import Draw, Drawn, F, calling, entry
from fuzz_table_nn import add_conv

for _transposed in (False, True):
    add_conv(3, _transposed)


@entry("conv_tbc")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 3, 3, want=lambda t: min(t.shape) > 0)
    taps, out, pad = d.int(1, 3), d.int(1, 3), d.int(1, 2)
    w = d.new((taps, d.size(k)[2], out), d.name(k))
    return [k, w, d.new((out,), d.name(k))], calling(F.conv_tbc, pad), None
