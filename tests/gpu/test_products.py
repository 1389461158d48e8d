"""Matrix products that cublasLt computes: right, the same eagerly and compiled, wherever their operands lie.

The fake library adds in an order that depends on everything that the real one might look at, so equal bits mean that
the same was asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.errors import CaptureError, DeviceError, InvalidValueError, OutOfMemoryError
from kiln.ir.gpu_program import Product
from kiln.ir.ops.base import OPS, OpTypeError
from kiln.ir.parser import parse_graph
from kiln.ir.stored_gpu import decode, encode
from kiln.runtime import cuda_blas, cuda_driver
from kiln.runtime.cuda import CudaError
from tests.gpu.conftest import Gpu
from tests.gpu.fake_cublaslt import library, seen
from tests.gpu.test_runtime import Call
from tests.gpu.test_training import adam, mlp, transformer

pytestmark = pytest.mark.usefixtures("blas")
F = nn.functional
ROUNDING = {"float64": 1e-14, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
Function = Callable[..., Any]


def bits(x: Any) -> bytes:
    x = x.detach().cpu()
    return np.ascontiguousarray(x.view(kiln.int16) if x.dtype.itemsize == 2 else x.numpy()).tobytes()


def random(*shape: int, dtype: Any = kiln.float32, seed: int = 0) -> Any:
    data = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return kiln.tensor(data).to(dtype).cuda()


def wide(x: Any) -> Any:
    return x.detach().cpu().double().numpy()


def alike(f: Function, *args: Any) -> Any:
    """What `f` gives, which is the same bits eagerly and compiled, in the first call and a later one."""
    compiled = kiln.compile(f)
    expected = f(*args)
    for _ in range(3):
        made = compiled(*args)
        pairs = zip(expected, made, strict=True) if isinstance(expected, tuple) else [(expected, made)]
        for a, b in pairs:
            assert bits(a) == bits(b)
    return expected


def close(x: Any, expected: Any, k: int) -> None:
    rounding = ROUNDING[str(x.dtype).rpartition(".")[2]]
    np.testing.assert_allclose(wide(x), expected, rtol=rounding, atol=rounding * (k + 1) ** 0.5)


# ------------------------------------------------------------------------------------------------ what is computed


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64, kiln.float16, kiln.bfloat16], ids=str)
def test_types(dtype: Any, blas: Gpu) -> None:
    x, w, v = random(5, 48, dtype=dtype), random(9, 48, dtype=dtype), random(2, 3, 48, dtype=dtype)
    f = lambda x, w, v: (x @ w.t(), F.linear(v, w), x[0] @ w[1], x @ w[2])  # noqa: E731
    made = alike(f, x, w, v)
    a, b, c = wide(x), wide(w), wide(v)
    for y, expected in zip(made, (a @ b.T, c @ b.T, a[0] @ b[1], a @ b[2]), strict=True):
        close(y, expected, 48)
    if not blas.real:
        assert seen.products


@pytest.mark.parametrize(
    "dtype", [kiln.float32, pytest.param(kiln.float64, marks=pytest.mark.slow), kiln.bfloat16], ids=str
)
def test_linear_adds_its_bias_in_the_product(dtype: Any, blas: Gpu) -> None:
    x, w, b = (random(*shape, dtype=dtype) for shape in ((2, 5, 7), (6, 7), (6,)))
    before = len(seen.products)
    made = alike(F.linear, x, w, b)
    close(made, wide(x) @ wide(w).T + wide(b), 7)
    assert blas.real or all(p["bias"] for p in seen.products[before:])
    assert bits(made) != bits(F.linear(x, w))
    alike(F.linear, x[0, 0], w, random(12, dtype=dtype)[::2])
    assert bits(alike(F.linear, x[:, :, :0], w[:, :0], b)) == bits(b.expand(2, 5, 6).clone())
    alike(lambda x, w, b: F.linear(x, w, b * 2).relu(), x, w, b[:1].expand(6))
    alike(lambda x, w: F.linear(x, w, kiln.ones(6, dtype=dtype, device="cuda")), x, w)
    assert F.linear(x[:0], w, b).shape == (0, 5, 6)


def test_a_bias_of_each_matrix() -> None:
    for k in (3, 0):
        operands = [random(*shape) for shape in ((2, 2, 4, k), (2, 2, k, 5), (2, 2, 5))]

        def f(*operands: Any) -> Any:
            (made,) = OPS["addmm"].bind(operands, {"library": "nn"})
            return made

        a, b, c = map(wide, operands)
        close(alike(f, *operands), a @ b + c[..., None, :], 3)
        close(alike(f, *operands[:2], random(2, 2, 10)[..., ::2]), a @ b + wide(random(2, 2, 10))[..., None, ::2], 3)


def test_biases_have_gradients() -> None:
    def step(*given: Any) -> Any:
        leaves = [t.detach().requires_grad_() for t in given]
        return kiln.autograd.grad(F.linear(*leaves).square().sum(), leaves)

    x, w, b = (random(*shape, dtype=kiln.bfloat16) for shape in ((2, 5, 7), (6, 7), (6,)))
    for a, c in zip(alike(step, x, w, b), step(x.cpu().double(), w.cpu().double(), b.cpu().double()), strict=True):
        close(a, wide(c), 2000)
    pushed = kiln.func.jvp(lambda b: F.linear(x.float(), w.float(), b), (b.float(),), (b.float(),))[1]
    close(pushed, np.broadcast_to(wide(b), (2, 5, 6)), 0)


@pytest.mark.slow
def test_complex_numbers_are_four_products() -> None:
    x, w = (kiln.complex(random(4, 5, seed=k), random(4, 5, seed=k + 2)) for k in range(2))
    made = alike(lambda x, w: kiln.view_as_real(x @ w.mT), x, w)
    expected = x.cpu().numpy() @ w.cpu().numpy().T
    np.testing.assert_allclose(made.cpu().numpy()[..., 0], expected.real, rtol=1e-5, atol=1e-5)


def test_integers_are_kilns(fake: Gpu) -> None:
    x = kiln.arange(12, device="cuda").reshape(3, 4)
    assert (x @ x.t()).tolist() == (x.cpu() @ x.cpu().t()).tolist()
    assert not seen.products


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_to_multiply(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    made = alike(lambda x, w: x @ w, random(m, k), random(k, n))
    assert made.shape == (m, n) and not made.cpu().numpy().any()


# ---------------------------------------------------------------------------------------------- where operands lie

PLACES: dict[str, tuple[Function, Function]] = {
    "transposed": (lambda x: x.t(), lambda w: w.t()),
    "parts": (lambda x: x[:, 4:12], lambda w: w[:8, :20]),
    "odd parts": (lambda x: x[1:, 1:8], lambda w: w[3:10, :9]),
    "steps": (lambda x: x[::2, ::2], lambda w: w[:6, ::3]),
    "computed": (lambda x: (x * 2).t(), lambda w: (w + 1).t()[:, 2:]),
    "expanded": (lambda x: x[:1].expand(7, 12), lambda w: w[:, :1].expand(12, 5)),
    "windows": (lambda x: x[0].unfold(0, 5, 2), lambda w: w[0].unfold(0, 3, 1)[:5]),
}


@pytest.mark.parametrize("place", PLACES)
def test_places_of_matrices(place: str) -> None:
    left, right = PLACES[place]
    x, w = random(12, 12), random(12, 24)

    def f(x: Any, w: Any) -> Any:
        a, b = left(x), right(w)
        b = b[: a.shape[1]] if b.shape[0] > a.shape[1] else b
        return a[:, : b.shape[0]] @ b

    made = alike(f, x, w)
    a, b = left(x), right(w)
    k = min(a.shape[1], b.shape[0])
    close(made, wide(a)[:, :k] @ wide(b)[:k], k)
    # What is multiplied decides the bits, not where it lies.
    assert bits(made) == bits(a[:, :k].clone() @ b[:k].clone())


BATCHES: dict[str, Function] = {
    "stacks": lambda x, y: x @ y.mT,
    "heads": lambda x, y: x.transpose(1, 2) @ y.permute(0, 2, 3, 1),
    "broadcast": lambda x, y: x @ y[:1].mT,
    "rows of stacks": lambda x, y: x[:, :, 0] @ y[:, :, 0].mT,
    "grouped": lambda x, y: x @ y[:, :1].mT,
    "one matrix": lambda x, y: x @ y[0, 0].t(),
    "the other is one": lambda x, y: x[0, 0] @ y.mT,
}


@pytest.mark.parametrize("batch", BATCHES)
def test_batches(batch: str) -> None:
    x, y = random(2, 3, 4, 8), random(2, 3, 4, 8, seed=1)
    f = BATCHES[batch]
    close(alike(f, x, y), wide(f(x.cpu().double(), y.cpu().double())), 8)


def test_only_what_lies_badly_is_copied(fake: Gpu) -> None:
    x, w = random(16, 8), random(24, 8)
    F.linear(x, w), x @ x.t().contiguous(), x[:, :4] @ w[:4, :]
    x[4:] @ x[:8], x.reshape(2, 8, 8) @ x.reshape(2, 8, 8), x[:1] @ x[:8]
    kiln.cuda.synchronize()
    fake.counts.clear()
    F.linear(x, w), x[:, :4] @ w[:4, :], x[4:] @ x[:8], x[:1] @ x[:8]
    x.reshape(2, 8, 8) @ x.reshape(2, 8, 8)
    kiln.cuda.synchronize()
    assert not fake.counts["launch"]
    x @ w.t()
    kiln.cuda.synchronize()
    assert fake.counts["launch"] == 1


def test_copies_are_made_where_the_library_wants_none_but_dense_operands(fake: Gpu) -> None:
    x, w = random(16, 8), random(24, 8)
    library().fake_only_dense(1)
    try:
        alike(lambda x, w: F.linear(x[:, :4], w[:, :4]), x, w)
    finally:
        library().fake_only_dense(0)
    assert all(p["ld"] == (4, 4) for p in seen.products)


def test_sizes_that_change() -> None:
    f = kiln.compile(lambda x, w, b: F.linear(x, w).relu() @ b.t() + x @ b.t()[:7], dynamic=True)
    eager = lambda x, w, b: F.linear(x, w).relu() @ b.t() + x @ b.t()[:7]  # noqa: E731
    w, b = random(9, 7), random(5, 9)
    for rows in (3, 4, 1, 12, 3, 64):
        x = random(rows, 7, seed=rows)
        assert bits(f(x, w, b)) == bits(eager(x, w, b))


# ------------------------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("model", [mlp, pytest.param(transformer, marks=pytest.mark.slow)])
def test_training(model: Function) -> None:
    def trained(compiled: bool) -> Any:
        kiln.manual_seed(3)
        net, x, target = model()
        net, x, target = net.cuda(), x.cuda(), target.cuda()
        optimiser = adam(net.parameters())

        def step(x: Any, target: Any) -> Any:
            optimiser.zero_grad()
            loss = F.cross_entropy(net(x), target)
            loss.backward()
            optimiser.step()
            return loss

        run = kiln.compile(step) if compiled else step
        losses = [bits(run(x, target)) for _ in range(3)]
        return losses, [bits(p) for p in net.parameters()], [bits(p.grad) for p in net.parameters()]

    assert trained(False) == trained(True)


@pytest.mark.parametrize("lies", ["linear", "plain", "left"])
def test_gradients(lies: str, blas: Gpu) -> None:
    f: Function = {"linear": F.linear, "plain": lambda x, w: x @ w, "left": lambda x, w: x.t() @ w}[lies]
    x, w = random(6, 8), random(*((10, 8) if lies == "linear" else (8, 10) if lies == "plain" else (6, 10)))

    def step(x: Any, w: Any) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = f(x, w)
        return kiln.autograd.grad((y * y).sum(), (x, w))

    before = len(seen.products)
    made = alike(step, x, w)
    expected = step(x.cpu().double(), w.cpu().double())
    for a, b in zip(made, expected, strict=True):
        close(a, wide(b), 100)
    if lies == "linear" and not blas.real:  # nothing is copied, forwards or backwards
        kinds = {p["turned"] for p in seen.products[before:]}
        assert kinds == {(False, True), (False, False), (True, False)}


def test_second_derivatives() -> None:
    def f(x: Any, w: Any) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        (g,) = kiln.autograd.grad(F.linear(x, w).sin().sum(), x, create_graph=True)
        return kiln.autograd.grad((g * g).sum(), (x, w))

    alike(f, random(3, 4), random(5, 4))


def test_products_that_are_read_transposed() -> None:
    for n in (5, 6, 40):
        alike(lambda x, w: (x @ w).t() * 2, random(9, 31), random(31, n))


def test_loops_and_branches() -> None:
    def f(x: Any, w: Any) -> Any:
        for _ in range(3):
            x = kiln.tanh(x @ w)
        if x.sum() > 0:
            return x @ w.t()
        return F.linear(x, w)

    for sign in (1, -1):
        alike(f, random(4, 4) * sign, random(4, 4, seed=2).abs())


def test_loops_that_stay_loops(blas: Gpu) -> None:
    def f(x: Any, w: Any, steps: Any) -> Any:
        carried, ys = kiln.scan(lambda c, s: (kiln.tanh(c @ w) + s, F.linear(s, w)), x, steps)
        last = kiln.while_loop(lambda y: y.sum() < 100, lambda y: (y @ w.abs() + 1,), (carried.abs(),))
        return carried, ys, last[0]

    alike(f, random(4, 4), random(4, 4, seed=2), random(5, 4, 4))
    assert "product pointer" in kiln.explain(f, random(4, 4), random(4, 4), random(5, 4, 4)).cuda().plan()


def test_what_is_written_may_be_read() -> None:
    def f(w: Any, v: Any) -> Any:
        w.copy_(w @ v)
        return w @ w

    made = []
    for run in (f, kiln.compile(f)):
        w = random(8, 8)
        made.append([bits(run(w, random(8, 8, seed=1))) for _ in range(3)] + [bits(w)])
    assert made[0] == made[1]


def test_maps_over_matrices() -> None:
    alike(lambda x, w: kiln.vmap(lambda a, b: a.t() @ b)(x, w), random(3, 4, 5), random(3, 4, 6))


def test_the_cpus_products_stay_the_cpus() -> None:
    a, b = kiln.randn(5, 40), kiln.randn(40, 3)
    on_gpu = random(5, 3)
    f = lambda a, b, c: (a @ b).cuda() + c  # noqa: E731
    alike(f, a, b, on_gpu)


def test_a_program_is_printed_and_stored() -> None:
    graph = parse_graph("""graph f(%0: float32[n, 7], %1: float32[6, 7]) {
      %2 = permute(%1) {dims=(1, 0)} : float32[7, 6]
      %3 = matmul(%0, %2) {library="nt", tf32=true} : float32[n, 6]
      return %3 }""")
    program = compile_cuda(graph)
    assert "product input0 [7, 1] @ input1 [1, 7] turned -> output0: float32[n, 6], k 7 of tf32" in program.plan()
    (product,) = program.products
    assert isinstance(product, Product) and {k.name for k in program.kernels} >= {product.left.dense.kernel}
    again = decode(encode(program, graph), graph)
    assert str(again) == str(program) and encode(again, graph) == encode(program, graph)
    with pytest.raises(OpTypeError, match="nn, nt, tn or tt"):
        parse_graph(str(graph).replace('"nt"', '"no"'))


def test_plans_are_made_once(fake: Gpu) -> None:
    x, w = random(16, 47), random(24, 47)
    for _ in range(3):
        F.linear(x, w)
    assert seen.calls["heuristics"] == 1
    assert seen.products[-1]["workspace"] == 1024
    alive = library().fake_alive()
    for _ in range(3):
        F.linear(x, w)
    assert library().fake_alive() == alive


def test_plans_of_very_many_shapes_are_forgotten(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_blas, "_MOST_PLANS", 1)
    monkeypatch.setattr(cuda_blas, "_MOST_LAYOUTS", 4)
    x = random(32, 32)
    f = lambda x, n: F.linear(x[:, :n], x[:4, :n])  # noqa: E731
    expected = [bits(f(x, n)) for n in range(8, 32, 4)]
    assert expected == [bits(f(x, n)) for n in range(8, 32, 4)]
    assert [bits(f(x.clone(), n)) for n in range(8, 32, 4)] == expected


# ------------------------------------------------------------------------------------------------------- switches


def test_tf32(fake: Gpu) -> None:
    x, w = random(8, 8), random(8, 8, seed=1)
    f = kiln.compile(lambda x, w: x @ w)
    exact = bits(f(x, w))
    try:
        kiln.set_float32_matmul_precision("high")
        assert kiln.backends.cuda.matmul.allow_tf32 and kiln.get_float32_matmul_precision() == "high"
        rounded = bits(f(x, w))
        assert rounded == bits(x @ w) != exact and seen.products[-1]["tf32"]
        close(x @ w, wide(x) @ wide(w), 8 << 20)
        alike(lambda x, w: x @ w, x.double(), w.double())
        assert not seen.products[-1]["tf32"]
        kiln.backends.cuda.matmul.allow_tf32 = False
        assert kiln.get_float32_matmul_precision() == "highest" and bits(f(x, w)) == exact == bits(x @ w)
        with pytest.raises(CaptureError, match="inside a captured function"):
            kiln.compile(lambda x: kiln.set_float32_matmul_precision("high"), fullgraph=True)(x)
    finally:
        kiln.set_float32_matmul_precision("highest")


def test_without_the_library_the_bits_are_the_cpus(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = random(8, 300), random(300, 8)
    expected = bits(x.cpu() @ w.cpu())
    assert bits(x @ w) != expected
    f = kiln.compile(lambda x, w: x @ w)
    f(x, w)
    assert kiln.backends.cuda.preferred_blas_library("kiln") == "kiln"
    assert bits(x @ w) == expected == bits(f(x, w))
    assert kiln.backends.cuda.preferred_blas_library("cublaslt") == "cublaslt"
    assert bits(x @ w) == bits(f(x, w)) != expected
    with pytest.raises(InvalidValueError, match="cublaslt"):
        kiln.backends.cuda.preferred_blas_library("magma")
    monkeypatch.setenv("KILN_CUBLASLT", "0")
    from kiln import there

    there._multiplies.clear()
    assert bits(x @ w) == expected
    graph = parse_graph("""graph f(%0: float32[4, 4]) {
      %1 = matmul(%0, %0) {library="nn"} : float32[4, 4]
      return %1 }""")
    with pytest.raises(CudaError, match="there is no cublasLt, which this program was made for"):
        Call(compile_cuda(graph), [np.ones((4, 4), np.float32)])()


# --------------------------------------------------------------------------------------------------------- faults


def test_a_refused_product_names_the_op_and_the_line(fake: Gpu) -> None:
    x = random(4, 4)
    seen.statuses["Matmul"] = 13
    with pytest.raises(DeviceError, match="EXECUTION_FAILED") as caught:
        x @ x
    assert "KILN_CUBLASLT=0" in str(caught.value)
    f = kiln.compile(lambda x: (x + 1) @ x)
    f(x), f(x)
    seen.statuses["Matmul"] = 14
    with pytest.raises(DeviceError, match=r"matmul: product 0 of .*INTERNAL_ERROR") as caught:
        f(x)
    assert "test_products.py" in str(caught.value)
    seen.statuses["MatmulAlgoGetHeuristic"] = 15
    with pytest.raises(DeviceError, match="NOT_SUPPORTED"):
        random(4, 71) @ random(71, 4)
    seen.statuses["MatmulAlgoGetHeuristic"] = 3
    with pytest.raises(OutOfMemoryError):
        random(4, 71) @ random(71, 4)
    close(x @ x, wide(x) @ wide(x), 4)


def test_debugging_names_the_product(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver.session(), "debug", True)
    x = random(4, 4)
    f = kiln.compile(lambda x: (x + 1) @ x)
    f(x), f(x)
    place = cuda_driver.gpu(0)
    with fake.deferred():
        from tests.gpu.fake_device import state

        state.device().issue(state.device().null, lambda: state.devices[0].fail(719, "a product broke"))
        with pytest.raises(DeviceError) as caught:
            f(x)
    assert place.fault
    place.fault = ""
    assert fake.errors() and "restart the process" in str(caught.value)


def test_a_library_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: Gpu) -> None:
    (tmp_path / "libcublasLt.so").write_text("no library")
    monkeypatch.setenv("KILN_CUBLASLT", str(tmp_path / "libcublasLt.so"))
    from kiln import there

    there._multiplies.clear()
    with pytest.raises(DeviceError, match="names a library that can't be loaded"):
        random(2, 2) @ random(2, 2)
    with pytest.raises(CudaError):
        cuda_blas.library(13)
