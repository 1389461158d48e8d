"""Compiled writes into parts of what comes from outside, on a GPU (`tests/frontend/test_writes_in_place.py`)."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
from kiln.errors import KilnIndexError
from kiln.ir.gpu_program import Look
from tests.frontend.writing import HAZARDS, READS, WRITES, arguments, outcome, told
from tests.gpu.conftest import Gpu

pytestmark = pytest.mark.usefixtures("gpu")
ALL = WRITES | READS | HAZARDS


@pytest.mark.parametrize("name", ALL)
def test_nobody_can_tell(name: str) -> None:
    compiled = kiln.compile(ALL[name])
    for position in (1, 2):
        assert outcome(compiled, arguments(position, "cuda")) == outcome(ALL[name], arguments(position))


class Decoder(kiln.nn.Module):
    """A layer of a decoder, one word at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = kiln.nn.Linear(8, 24)
        self.register_buffer("k", kiln.zeros(1, 2, 64, 4))
        self.register_buffer("v", kiln.zeros(1, 2, 64, 4))

    def forward(self, x: Any, at: Any, mask: Any) -> Any:
        q, k, v = self.qkv(x).view(1, 1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        self.k.index_copy_(2, at, k)
        self.v[:, :, at] = v
        return kiln.nn.functional.scaled_dot_product_attention(q, self.k, self.v, attn_mask=mask)


def test_a_decoder_reads_its_caches_where_they_are(fake: Gpu) -> None:
    """Also in CUDA graphs; a position out of range changes nothing."""
    kiln.manual_seed(0)
    layer = Decoder().cuda()
    plain = Decoder().cuda()
    plain.load_state_dict(layer.state_dict())
    run = kiln.compile(layer, mode="reduce-overhead")
    mask = kiln.zeros(1, 1, 1, 64, device="cuda")
    with kiln.no_grad():
        for k in range(7):
            x, at = kiln.randn(1, 1, 8).cuda(), kiln.tensor([k if k != 5 else 64]).cuda()
            where = layer.k.data_ptr(), layer.v.data_ptr()
            if k == 5:
                for one in (run, plain):
                    with pytest.raises(KilnIndexError, match="index 64 is out of bounds for dimension 2 with size 64"):
                        one(x, at, mask)
            else:
                assert told(run(x, at, mask)) == told(plain(x, at, mask))
            assert told([layer.k, layer.v]) == told([plain.k, plain.v])
            assert where == (layer.k.data_ptr(), layer.v.data_ptr())
    assert fake.counts["capture"] and "checks" in run.report().graphs[0]
    caches = 2 * layer.k.nbytes
    with kiln.no_grad():
        program = kiln.explain(plain, x, kiln.tensor([1]).cuda(), mask).cuda()
    assert program.arena_bytes < caches // 2
    looks = [k for k, step in enumerate(program.steps) if isinstance(step, Look)]
    assert len(looks) == 1, "the host waits once"
