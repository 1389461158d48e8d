"""NVRTC compiles every op's kernels for sm_80 and sm_90 without a warning and without spilling a register. What they
need of a GPU is what the tables say (`tests/gpu/golden`, rewritten by --update-golden)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from kiln.codegen.cuda.contraction import CONTRACTIONS
from kiln.codegen.cuda.pipeline import TEMPLATES, compile_cuda
from kiln.ir.gpu_program import CudaText
from kiln.ir.graph import AttrValue, GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.types import DType, TensorType, bfloat16, float32, float64, int64
from tests.codegen.test_cuda_ops import GROUPS, WRITTEN, cnn_step, program, some
from tests.codegen.test_cuda_pieces import scaled_sums
from tests.gpu import nvrtc
from tests.gpu.nvrtc import ARCHITECTURES, Usage
from tests.ops.samples import Sample, samples

GOLDEN = Path(__file__).parent / "golden"
FEW = 4
"""Samples per op that always run, of long texts written by hand three; `--slow` runs all, which takes some minutes."""
TOGETHER = 100
"""Kernels per compilation."""


def kernels(name: str, calls: Iterable[Sample]) -> dict[str, CudaText]:
    return {k.name: k for sample in calls for k in program(name, sample).kernels}


def needs(texts: Iterable[CudaText], architecture: str) -> dict[str, Usage]:
    """What each kernel needs; a warning or a spill fails."""
    found: dict[str, Usage] = {}
    for part in batches(list(texts)):
        _, log = nvrtc.compiled(nvrtc.text(part), architecture)
        assert not nvrtc.warnings(log)
        found |= nvrtc.usage(log)
    spilling = {name: usage for name, usage in found.items() if usage.spills}
    assert not spilling
    return found


def batches(texts: Sequence[CudaText]) -> Iterator[Sequence[CudaText]]:
    for start in range(0, len(texts), TOGETHER):
        yield texts[start : start + TOGETHER]


def table(made: dict[str, dict[str, CudaText]], found: dict[str, Usage]) -> str:
    """One line per op: how many kernels, and the most that one of them needs."""
    lines = [
        f"NVRTC {'.'.join(map(str, nvrtc.version()))}",
        f"{'op':24}{'kernels':>8}{'registers':>10}{'shared':>8}{'stack':>8}",
    ]
    for name, texts in made.items():
        each = [found[k] for k in texts]
        most = max(u.registers for u in each), max(u.shared for u in each), max(u.stack for u in each)
        lines.append(f"{name:24}{len(each):8}{most[0]:10}{most[1]:8}{most[2]:8}")
    return "\n".join(lines) + "\n"


def heads(size: int) -> dict[str, CudaText]:
    """The kernels of attention with heads of bfloat16 of this size."""
    q, rows = TensorType(bfloat16, (1, 1, 64, size)), TensorType(float32, (1, 1, 64))
    found: dict[str, CudaText] = {}
    for name, types in (("attention", (q, q, q)), ("attention_backward", (q, q, q, q, rows, rows))):
        builder = GraphBuilder(name)
        inputs = [builder.input(t) for t in types]
        outputs = builder.add(OPS[name], inputs, {"scale": 0.125, "causal": True, "repeat": 1})
        found |= {k.name: k for k in compile_cuda(builder.build(outputs)).kernels}
    return found


def convolutions(channels: int) -> dict[str, CudaText]:
    """The kernels of a convolution of bfloat16 between so many channels, and of its gradients."""
    x, w, y = (
        TensorType(bfloat16, s) for s in ((32, channels, 28, 28), (channels, channels, 3, 3), (32, channels, 14, 14))
    )
    attrs = {"stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "tensor_cores": True}
    found: dict[str, CudaText] = {}
    for name, types, more in (
        ("conv2d", (x, w), {}),
        ("conv2d", (x, w), {"dtype": float32}),
        ("conv2d_input", (y, w), {"size": (28, 28)}),
        ("conv2d_weight", (x, y), {"size": (3, 3)}),
    ):
        builder = GraphBuilder(name)
        inputs = [builder.input(t) for t in types]
        made = compile_cuda(builder.build(builder.add(OPS[name], inputs, {**attrs, **more})))
        found |= {k.name: k for k in made.kernels if k.name.startswith("conv2d")}
    return found


def long_lines(name: str, dtype: DType, dim: int = 1) -> dict[str, CudaText]:
    """The kernels of a scan or a sort of long lines."""
    attrs: dict[str, AttrValue] = {"descending": False} if name in ("argsort", "topk") else {"dim": dim}
    attrs |= {"k": 50} if name == "topk" else {"reverse": False} if name in ("cumsum", "recur") else {}
    builder = GraphBuilder(name)
    inputs = [builder.input(TensorType(dtype, (50000, 50000))) for _ in range(2 if name == "recur" else 1)]
    return {k.name: k for k in compile_cuda(builder.build(builder.add(OPS[name], inputs, attrs))).kernels}


LONG = (
    ("cumsum", float32, (0, 1)),
    ("cumsum", int64, (1,)),
    ("recur", float64, (0, 1)),
    ("cumargmax", float64, (0, 1)),
    ("argsort", float32, (1,)),
    ("argsort", int64, (1,)),
    ("topk", float64, (1,)),
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_and_need_what_they_did(architecture: str, request: pytest.FixtureRequest) -> None:
    """The tables are those of one version of NVRTC; with another one only warnings and spills count."""
    nvrtc.need()
    made = {
        name: kernels(name, some(name, 3 if name in TEMPLATES and name not in CONTRACTIONS else FEW))
        for name in WRITTEN
    }
    made |= {f"attention, heads of {size}": heads(size) for size in (64, 128)}
    made |= {f"convolution, {n} channels": convolutions(n) for n in (64, 256)}
    made["pieces of one launch"] = {k.name: k for k in compile_cuda(scaled_sums(56, 1000, 257, "n")).kernels}
    made |= {
        f"{name}, long, {dtype}": {k: t for d in dims for k, t in long_lines(name, dtype, d).items()}
        for name, dtype, dims in LONG
    }
    every = {k.name: k for texts in made.values() for k in texts.values()}
    text, path = table(made, needs(every.values(), architecture)), GOLDEN / f"{architecture}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    wanted = path.read_text()
    if wanted.splitlines()[0] == text.splitlines()[0]:
        assert text == wanted


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}-and-{len(names) - 1}-more")
def test_every_sample_compiles(names: list[str], architecture: str) -> None:
    nvrtc.need()
    every: dict[str, CudaText] = {}
    for name in names:
        every |= kernels(name, samples(name))
    needs(every.values(), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_step_compiles(architecture: str) -> None:
    nvrtc.need()
    needs(cnn_step()[1].cuda().kernels, architecture)


def test_kernels_take_what_launches_give() -> None:
    """64-bit numbers, as many as the machine code says."""
    nvrtc.need()
    names = [
        "matmul",
        "where",
        "sum",
        "gather",
        "scatter_add",
        "topk",
        "cumsum",
        "conv2d",
        "fft",
        "cholesky",
        "attention",
    ]
    programs = [program(name, sample) for name in names for sample in some(name, 1)]
    wanted = {x.kernel: len(x.args) + bool(x.error) for p in programs for x in p.launches}
    every = {k.name: k for p in programs for k in p.kernels}
    code, _ = nvrtc.compiled(nvrtc.text(list(every.values())), "sm_90")
    found = nvrtc.MachineCode(code)
    assert found.end == len(code) and found.architecture == 90 and every.keys() <= found.functions
    given = {name: found.parameters[name] for name in wanted}
    assert given == {name: [(8 * k, 8) for k in range(count)] for name, count in wanted.items()} and len(wanted) > 10


def test_a_warning_and_a_spill_are_seen() -> None:
    nvrtc.need()
    _, log = nvrtc.compiled('extern "C" __global__ void f(int *a) { int unused; a[0] = 1; }')
    assert any("unused" in line for line in nvrtc.warnings(log))
    values = ", ".join(f"v{k} = a[{k}]" for k in range(200))
    uses = " ".join(f"a[{k} * n] = v{k} * v{(k * 7) % 200};" for k in range(200))
    greedy = f'extern "C" __global__ void __launch_bounds__(1024) f(float *a, int n) {{ float {values}; {uses} }}'
    (found,) = nvrtc.usage(nvrtc.compiled(greedy)[1]).values()
    assert found.spills > 0 and found.registers == 64
