"""Every op's CUDA text: made for each of its samples, and run on the CPU with the bits of the CPU's own kernels
(tests/gpu/test_nvrtc.py compiles it for GPUs). What a library computes on a CPU and kernels on a GPU has tests of its
own (tests/gpu: test_fft). What the host computes is listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.codegen.cuda.pipeline import TEMPLATES, compile_cuda
from kiln.demo import make_cnn
from kiln.ir.gpu_program import CudaProgram, HostCall
from kiln.ir.graph import Graph, GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Library
from kiln.ir.types import Sym, TensorType, float32, int64
from tests import tolerances
from tests.codegen.cuda_host import Host
from tests.codegen.graphs import Maker, compiled, execute, floats
from tests.gpu import shim
from tests.ops.samples import Sample, samples
from tests.ops.sampling import APART
from tests.ops.test_declarations import same_bits

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in OPS if name not in APART]
WRITTEN = [name for name in NAMES if name in TEMPLATES or not isinstance(OPS[name].lower, Library)]
"""Ops that have kernels."""
EXACT = [name for name in WRITTEN if not isinstance(OPS[name].lower, Library)]
"""Those with the bits of the CPU."""
GROUPS = [EXACT[k::12] for k in range(12)]
"""Ops that are compiled together."""
LONG = ("attention", "attention_backward")
FEW = 3
needs_compiler = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))


def program(name: str, sample: Sample, bounds: bool = False) -> CudaProgram:
    """Of one op, for operands that lie as the sample's do."""
    builder = GraphBuilder(name)
    inputs = [builder.input(t) for t in sample.types()]
    strides = [tuple(s // x.itemsize for s in x.strides) for x in sample.operands]
    return compile_cuda(builder.build(builder.add(OPS[name], inputs, sample.attrs)), strides, bounds=bounds)


def some(name: str, count: int) -> list[Sample]:
    """`count` samples from all over the table, the last one among them; of ops with long kernels fewer."""
    made, count = samples(name), min(count, 3) if name in LONG else count
    picked = sorted({round(k * (len(made) - 1) / max(1, count - 1)) for k in range(count)})
    return [made[k] for k in picked]


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_has_a_program(name: str) -> None:
    """Of kernels, or a call on the host."""
    for sample in samples(name):
        made = program(name, sample)
        assert {launch.kernel for launch in made.launches} == {k.name for k in made.kernels}
        assert any(isinstance(step, HostCall) for step in made.steps) == (name not in WRITTEN)


def test_what_the_host_computes_is_listed() -> None:
    page = (ROOT / "docs" / "cuda.md").read_text()
    listed = {
        name for row in re.findall("^[|] [a-zA-Z]+ [|] (`.*`) [|]$", page, re.M) for name in re.findall("`(.*?)`", row)
    }
    assert listed == {name for name, op in OPS.items() if isinstance(op.lower, Library)} - set(TEMPLATES)


def same_as_the_cpu(host: Host, name: str, sample: Sample, made: CudaProgram) -> None:
    """In every order of threads, or close to it (`tolerances.own_bits`)."""
    operands = [kiln.from_numpy(x) for x in sample.operands]
    wanted = [t.numpy() for t in OPS[name].bind(operands, sample.attrs, receiver=kiln.zeros(1))]
    for order in shim.ORDERS:
        results, failed = host.run(made, [np.array(x) if not x.size else x for x in sample.operands], order=order)
        assert failed is None, f"{name} {sample.label}"
        if tolerances.own_bits(name, sample.attrs) and order == "natural":
            pairs = zip(results, wanted, strict=True)
            assert all(tolerances.close_on_gpu(name, *pair) for pair in pairs), f"{name} {sample.label}"
            wanted = results
        same = [same_bits(got, right) for got, right in zip(results, wanted, strict=True)]
        assert all(same), f"{name} {sample.label}, {order} order"


@needs_compiler
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}-and-{len(names) - 1}-more")
def test_the_bits_are_the_cpus(names: list[str]) -> None:
    """Every other one stops where an access is beyond its buffer."""
    calls = [(name, s, program(name, s, k % 2 == 1)) for name in names for k, s in enumerate(some(name, FEW))]
    host = Host([made for *_, made in calls])
    for name, sample, made in calls:
        same_as_the_cpu(host, name, sample, made)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", EXACT)
def test_the_bits_of_every_sample(name: str) -> None:
    calls = [(s, program(name, s)) for s in samples(name)]
    host = Host([made for _, made in calls])
    for sample, made in calls:
        same_as_the_cpu(host, name, sample, made)


# --------------------------------------------------------------------------------------- whole programs


def cnn_step() -> tuple[kiln.region.Region, Any]:
    """A training step of the demo's classifier, captured."""
    kiln.manual_seed(0)
    model = make_cnn()
    optimizer = kiln.optim.Adam(model.parameters(), lr=2e-3)
    loss_fn = nn.CrossEntropyLoss()

    def step(x: kiln.Tensor, y: kiln.Tensor) -> kiln.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    told = kiln.explain(step, kiln.rand(5, 64), kiln.tensor([0, 9, 3, 3, 1]))
    return told.region, told


def random_inputs(graph: Graph) -> list[Any]:
    """Arrays for a graph's inputs: small positive numbers, so that none is special, and labels."""
    rng = np.random.default_rng(0)
    made = []
    for v in graph.inputs:
        t = v.type
        if t.dtype.is_floating_point:
            made.append(np.asarray(rng.uniform(0.01, 0.2, t.static_shape()), t.dtype.numpy))
        else:
            made.append(np.asarray(rng.integers(0, 2, t.static_shape()), t.dtype.numpy))
    return made


def test_a_training_step_has_text() -> None:
    _, told = cnn_step()
    made = told.cuda()
    stems = {launch.kernel.rpartition("_")[0] for launch in made.launches}
    assert {"conv2d", "conv2d_input", "conv2d_weight", "matmul"} <= stems
    assert told["cuda"] == str(made)
    assert made.plan().count("<<<") == len(made.launches)
    assert "check error" in made.plan()  # of the labels, before a parameter is written


@needs_compiler
def test_a_training_step_has_the_bits_of_the_cpu() -> None:
    region, told = cnn_step()
    made, inputs = told.cuda(), random_inputs(region.graph)
    native = compiled(region.graph)
    theirs = [x.copy() for x in inputs]
    wanted = execute(native, theirs)
    host = Host([made])
    for order in shim.ORDERS:
        mine = [x.copy() for x in inputs]
        got, failed = host.run(made, mine, order=order)
        assert failed is None
        assert all(map(same_bits, got, wanted))
        assert all(map(same_bits, mine, theirs))


@needs_compiler
def test_symbolic_sizes() -> None:
    """One text serves every size: a product, a row reduction, a sort with its workspaces, a scan."""
    builder = GraphBuilder("t")
    n, m = Sym("n"), Sym("m")
    x = builder.input(TensorType(float32, (n, m)))
    y = builder.input(TensorType(float32, (m, n)))
    outputs = [
        *builder.add(OPS["matmul"], [x, y], {}),
        *builder.add(OPS["sum"], [x], {"dims": (1,)}),
        *builder.add(OPS["argsort"], [x], {"descending": False}),
        *builder.add(OPS["topk"], [x], {"k": 3, "descending": True}),
        *builder.add(OPS["cumsum"], [x], {"dim": 0}),
    ]
    graph = builder.build(outputs)
    made = compile_cuda(graph, [None, (Sym("s"), Sym("t"))])
    host = Host([made])
    for shape in ((3, 5), (70, 130), (1, 300), (0, 4), (4, 3)):
        a = floats(0, *shape)
        sizes = {"n": shape[0], "m": shape[1], "s": 1, "t": shape[1]}
        got, failed = host.run(made, [a, a], sizes)
        assert failed is None
        for result, op in zip(got, (v.producer for v in graph.outputs), strict=True):
            assert op is not None
            operands = [kiln.from_numpy(y) for y in ((a, a.T) if op.op.name == "matmul" else (a,))]
            wanted = OPS[op.op.name].bind(operands, op.attrs)[0].numpy()
            assert same_bits(result, wanted), (op.op.name, shape)


@needs_compiler
def test_a_failed_check_is_reported_and_nothing_is_written() -> None:
    m = Maker()
    table, at = m.input(4, 3), m.input(2, dtype=int64)
    rows = {"at": (0,), "place": (-1, 1), "wrap": True}
    (picked,) = m.builder.add(OPS["gather"], [table, at], rows)
    (put,) = m.builder.add(OPS["scatter_add"], [table, picked, at], rows)
    made = compile_cuda(m.build(put, aliases=[(0, 0)]))
    a = floats(0, 4, 3)
    before = a.copy()
    _, failed = Host([made]).run(made, [a, np.array([1, 7])])
    assert failed is not None and failed[1] == 7
    assert made.checks[failed[0]].kind == "index"
    assert same_bits(a, before)
