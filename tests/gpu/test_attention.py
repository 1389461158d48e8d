"""Attention on a GPU: its kernels against float64, eager against compiled, gradients of any order, what stays a
composition, and that a missing barrier shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn, there
from kiln.ir.gpu_program import CudaProgram
from kiln.ir.ops import OPS
from kiln.nn import fn_attention
from kiln.nn.fused_attention import fused
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import program
from tests.gpu import shim
from tests.gpu.conftest import Gpu
from tests.ops.sampling import Array, Sample, draw, generator

F = nn.functional
sdpa = F.scaled_dot_product_attention
needs_compiler = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


# ----------------------------------------------------------------------------------------- kernels


@needs_compiler
@pytest.mark.parametrize(
    ("dtype", "keys", "size", "causal"),
    [("bfloat16", 150, 64, True), ("float16", 70, 100, False), ("float32", 90, 64, True)],
)
def test_errors_are_those_of_the_composition(dtype: str, keys: int, size: int, causal: bool) -> None:
    """Against float64; rounding the weights once makes a half type's error the root of 2 times as large."""
    rng = generator("errors", dtype)
    q, k, v, g = (draw(rng, (1, 2, n, size), dtype, 1.0) for n in (80, keys, keys, 80))
    attrs = {"scale": size**-0.5, "causal": causal, "repeat": 1}
    exact = [x.astype(np.float64) for x in (q, k, v, g)]
    out, lse = OPS["attention"].ref(np, *exact[:3], **attrs)
    delta = (out * exact[3]).sum(-1)
    grads = OPS["attention_backward"].ref(np, *exact, lse, delta, **attrs)
    rows = lse.astype(np.float32), delta.astype(np.float32)
    for name, operands, wanted in (
        ("attention", (q, k, v), (out, lse)),
        ("attention_backward", (q, k, v, g, *rows), grads),
    ):
        made = program(name, Sample("errors", operands, attrs))
        got, _ = Host([made]).run(made, operands)
        composed = OPS[name].bind([kiln.from_numpy(x) for x in operands], attrs)
        for mine, theirs, right in zip(got, composed, wanted, strict=True):
            assert rms(mine - right) <= 2 * rms(theirs.numpy() - right), name


def without(made: CudaProgram, what: str, k: int) -> CudaProgram:
    """The program without the k-th `what` in its kernels' functions."""

    def changed(text: str) -> str:
        if "__shared__" in text or what not in text or "k_attend" not in text:
            return text
        parts = text.split(what)
        return what.join(parts[: k + 1]) + ";" + what.join(parts[k + 1 :])

    kernels = tuple(replace(t, helpers=tuple(map(changed, t.helpers))) for t in made.kernels)
    return replace(made, kernels=kernels)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "what", "k"),
    [
        ("attention", "__syncthreads();", 4),
        ("attention", "k_copies_end();", 2),
        pytest.param("attention", "__syncthreads();", 3, marks=pytest.mark.slow),
        pytest.param("attention_backward", "__syncthreads();", 10, marks=pytest.mark.slow),
    ],
)
def test_a_missing_barrier_shows(name: str, what: str, k: int) -> None:
    """Of the loop over the keys: one order of threads or another gives other results."""
    rng = generator("barriers")
    q, g = (draw(rng, (1, 1, 70, 32), "bfloat16") for _ in range(2))
    k_, v = (draw(rng, (1, 1, 200, 32), "bfloat16") for _ in range(2))
    operands: tuple[Array, ...] = (q, k_, v)
    if name == "attention_backward":
        operands = (q, k_, v, g, *(draw(rng, (1, 1, 70), "float32") for _ in range(2)))
    made = program(name, Sample("barriers", operands, {"scale": 0.2, "causal": False, "repeat": 1}))
    planted = without(made, what, k)
    assert planted != made

    def found(p: CudaProgram) -> set[bytes]:
        host, results = Host([p]), set()
        for order in shim.ORDERS:
            results.add(b"".join(x.tobytes() for x in host.run(p, operands, order=order)[0]))
        return results

    assert len(found(planted)) > 1


# ----------------------------------------------------------------------------------------- through the frontend


def calls(q: Any, k: Any, v: Any, seen: Any, bias: Any) -> list[Any]:
    """Attention in many ways, of q [2, 4, 5, 6], k and v [2, 2, 7, 6], a mask [5, 7] and numbers [2, 1, 1, 7]."""
    kk, vv = (F.pad(x, (0, 0, 0, 0, 1, 1)) for x in (k, v))
    nothing = k[:, :, :0]
    return [
        sdpa(q, kk, vv),
        sdpa(q, k, v, is_causal=True, enable_gqa=True),
        sdpa(q, kk, vv, seen, scale=0.3),
        sdpa(q, kk, vv, bias),
        sdpa(q[0, 0], k[0, 0], v[0, 0], seen),
        sdpa(q[:, 0], k[:, 1], v[:, 1], is_causal=True, scale=-0.5),
        sdpa(q.unsqueeze(1), kk.unsqueeze(1), vv.unsqueeze(1)),
        sdpa(q, k[:1, :1], v[:, :1]),
        sdpa(q.transpose(1, 2), kk.transpose(1, 2)[:, :5], vv.transpose(1, 2)[:, :5]),
        sdpa(q, nothing[:, :1], nothing[:, :1], seen[:, :0]),
    ]


def operands(device: str, dtype: Any) -> list[Any]:
    rng = generator("calls")
    made = [kiln.from_numpy(draw(rng, s, "float32", 1.0)) for s in ((2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 6))]
    made = [x.to(dtype).to(device).requires_grad_() for x in made]
    seen = kiln.from_numpy(np.arange(35).reshape(5, 7) % 3 != 0)
    seen[2] = False
    bias = kiln.from_numpy(draw(rng, (2, 1, 1, 7), "float32", 1.0)).to(dtype)
    return [*made, seen.to(device), bias.to(device)]


def close(found: Any, wanted: Any, allowed: float) -> bool:
    """Within so much of the largest result."""
    found, wanted = (x.detach().float().cpu().numpy() for x in (found, wanted))
    return bool(np.abs(found - wanted).max(initial=0) <= allowed * max(1, np.abs(wanted).max(initial=0)))


def test_calls_of_all_kinds(gpu: Gpu) -> None:
    with kiln.no_grad():
        found, wanted = calls(*operands("cuda", kiln.float32)), calls(*operands("cpu", kiln.float32))
    assert all(close(*pair, 2e-6) for pair in zip(found, wanted, strict=True))
    assert not found[2][:, :, 2].any().item() and not found[4][2].any().item()  # who sees nothing gets zeros


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.bfloat16], ids=str)
def test_products_beyond_all_numbers(gpu: Gpu, dtype: Any) -> None:
    """A query whose products are all -inf has NaN, or zeros where there is a mask; others have numbers."""
    large = kiln.full((1, 1, 2, 8), 1e38)
    large[..., 1, :] = 1e-38
    for mask in (None, kiln.ones(2, 3, dtype=kiln.bool)):
        found = []
        for device in ("cpu", "cuda"):
            q, k = (x.detach().to(dtype).to(device).requires_grad_() for x in (large, kiln.full((1, 1, 3, 8), -1e38)))
            out = sdpa(q, k, kiln.ones_like(k), None if mask is None else mask.to(device))
            out.sum().backward()
            found.append([x.detach().float().cpu().isnan().tolist() for x in (out, q.grad, k.grad)])
            assert mask is not None or found[-1][0] == [[[[True] * 8, [False] * 8]]]
        assert found[0] == found[1]


def test_compiled_is_eager(gpu: Gpu) -> None:
    def step(q: Any, k: Any, v: Any, g: Any) -> tuple[Any, ...]:
        out = sdpa(q, k, v, is_causal=True)
        return out.detach(), *kiln.grad(out, [q, k, v], g)

    def given(device: str) -> list[Any]:
        rng = generator("step")
        made = [kiln.from_numpy(draw(rng, (1, 2, 70, 24), "bfloat16", 1.0)).to(device) for _ in range(4)]
        return [*(x.requires_grad_() for x in made[:3]), made[3]]

    eager = step(*given("cuda"))
    assert all(close(*pair, 2e-2) for pair in zip(eager, step(*given("cpu")), strict=True))
    compiled = kiln.compile(step)
    for _ in range(2):
        assert list(map(bits, compiled(*given("cuda")))) == list(map(bits, eager))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "allowed"), [(kiln.float32, 2e-6), (kiln.bfloat16, 2e-2)])
def test_gradients_of_all_kinds(gpu: Gpu, dtype: Any, allowed: float) -> None:
    """As on the CPU but for rounding; compiled with eager's bits."""

    def step(*given: Any) -> list[Any]:
        made = calls(*given)
        total = sum((x * x).sum() for x in made)
        return [*(x.detach() for x in made), *kiln.grad(total, given[:3])]

    wanted, eager = step(*operands("cpu", dtype)), step(*operands("cuda", dtype))
    assert all(close(*pair, allowed) for pair in zip(eager, wanted, strict=True))
    compiled = kiln.compile(step)
    for _ in range(2):
        assert list(map(bits, compiled(*operands("cuda", dtype)))) == list(map(bits, eager))


def test_one_kernel_serves_all_lengths(fake: Gpu) -> None:
    def call(n: int, batch: int) -> Any:
        q = kiln.ones(batch, 2, n, 8, device="cuda")
        return sdpa(q, q, q)

    call(5, 1)
    before = fake.counts["compile"]
    assert (call(131, 3).cpu().numpy() == 1).all()
    assert fake.counts["compile"] == before


@pytest.mark.slow
def test_derivatives_of_higher_order(gpu: Gpu) -> None:
    rng = generator("orders")
    arrays = [draw(rng, (1, 1, 3, 2), "float64", 1.0) for _ in range(3)]

    def second(device: str) -> list[Array]:
        q, k, v = (kiln.from_numpy(x).to(device).requires_grad_() for x in arrays)
        (first,) = kiln.grad(sdpa(q, k, v).sum(), [q], create_graph=True)
        return [x.cpu().numpy() for x in kiln.grad((first * first).sum(), [q, k, v])]

    assert all(np.allclose(a, b, rtol=1e-11, atol=1e-13) for a, b in zip(second("cuda"), second("cpu"), strict=True))


# ----------------------------------------------------------------------------------------- who reaches it


def test_modules_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensors are elsewhere than on "the CPU", it is asked for; what it has no kernel for is composed."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(fn_attention, "CPU", None)
    monkeypatch.setattr(fn_attention, "fused", lambda *given: asked.append(given))
    x, mask = kiln.zeros(2, 3, 4), nn.Transformer.generate_square_subsequent_mask(3)
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    layer(x, x, x, need_weights=False)
    layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
    assert [given[0].shape for given in asked] == [(2, 2, 3, 2)] * 2
    assert [(given[3], given[4]) for given in asked] == [(None, False), (None, True)]
    encoder = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
    encoder(x, src_key_padding_mask=kiln.tensor([[False, False, True]] * 2))
    nn.TransformerDecoderLayer(4, 2, 4, dropout=0.0, batch_first=True)(x, x)
    assert len(asked) == 5 and asked[2][3] is not None


def test_old_gpus_lack_the_instructions(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    q = kiln.from_numpy(np.zeros((1, 1, 2, 8), np.float16)).to("cuda")
    assert fused(q, q, q, None, False, 1.0, False) is not None
    monkeypatch.setattr(kiln.cuda, "get_device_capability", lambda device: (7, 5))
    there.has_tensor_cores.cache_clear()
    assert fused(q, q, q, None, False, 1.0, False) is None
    there.has_tensor_cores.cache_clear()


def test_what_stays_a_composition(gpu: Gpu) -> None:
    q = kiln.zeros(1, 2, 3, 4, device="cuda")
    rest: tuple[Any, ...] = (None, False, 1.0, False)
    assert fused(q, q, q, *rest) is not None
    wide = kiln.zeros(1, 1, 2, 257, device="cuda")
    assert fused(wide, wide, wide, *rest) is None
    assert fused(q, q, q.double(), *rest) is None
    numbers = kiln.zeros(3, 3, device="cuda", requires_grad=True)
    assert fused(q, q, q, numbers, False, 1.0, False) is None
    assert fused(q, q, q, numbers.detach().double(), False, 1.0, False) is None
    assert fused(q.cpu(), q.cpu(), q.cpu(), *rest) is None
    inside: list[bool] = []

    def each(x: Any) -> Any:
        inside.append(fused(x, x, x, *rest) is None)
        return x

    kiln.vmap(each)(q)
    kiln.func.jvp(each, (q,), (q,))
    assert inside == [True, True]
    with pytest.raises(kiln.ShapeError, match="scaled_dot_product_attention"):
        sdpa(q, q[:, :, :2], q)
