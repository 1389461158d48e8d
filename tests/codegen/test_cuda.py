"""CUDA text from the same loop nests: golden files, and the places where C would be undefined."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiln.codegen.cuda.emit import emit_kernel
from kiln.codegen.cuda.schedule import Unsupported
from kiln.codegen.lower import lower
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText
from kiln.ir.loops import INDEX, Buffer, For, Kernel, Store, Var
from kiln.ir.parser import parse_graph
from kiln.ir.types import float32, int64, uint64

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cuda"

GRAPHS = {
    "gelu": """graph gelu(%0: float32[1000]) {
      %1 = gelu(%0) : float32[1000]
      return %1 }""",
    "bias_relu": """graph bias_relu(%0: float32[32, 20], %1: float32[20]) {
      %2 = broadcast(%1) {dims=(1,), shape=(32, 20)} : float32[32, 20]
      %3 = add(%0, %2) : float32[32, 20]
      %4 = relu(%3) : float32[32, 20]
      return %4 }""",
    "softmax": """graph softmax(%0: float32[6, 1000]) {
      %1 = amax(%0) {dims=(1,)} : float32[6]
      %2 = broadcast(%1) {dims=(0,), shape=(6, 1000)} : float32[6, 1000]
      %3 = sub(%0, %2) : float32[6, 1000]
      %4 = exp(%3) : float32[6, 1000]
      %5 = sum(%4) {dims=(1,)} : float32[6]
      %6 = broadcast(%5) {dims=(0,), shape=(6, 1000)} : float32[6, 1000]
      %7 = div(%4, %6) : float32[6, 1000]
      return %7 }""",
    "long_rows": """graph long_rows(%0: float32[3, 9001]) {
      %1 = sum(%0) {dims=(1,)} : float32[3]
      return %1 }""",
    "columns": """graph columns(%0: float64[700, 40]) {
      %1 = sum(%0) {dims=(0,)} : float64[40]
      return %1 }""",
    "argmax": """graph argmax(%0: float32[5, 77]) {
      %1 = argmax(%0) {dims=(1,)} : int64[5]
      return %1 }""",
    "labels": """graph labels(%0: float32[9, 10], %1: int64[9]) {
      %2 = pick(%0, %1) : float32[9]
      return %2 }""",
    "narrow": """graph narrow(%0: int16[50], %1: float32[50]) {
      %2 = mul(%0, %0) : int16[50]
      %3 = cast(%1) {dtype=uint8} : uint8[50]
      %4 = cast(%2) {dtype=uint8} : uint8[50]
      %5 = maximum(%3, %4) : uint8[50]
      return %5 }""",
    "halves": """graph halves(%0: bfloat16[4, 50], %1: float64[4]) {
      %2 = mul(%0, %0) : bfloat16[4, 50]
      %3 = sum(%2) {dims=(1,)} : bfloat16[4]
      %4 = cast(%1) {dtype=bfloat16} : bfloat16[4]
      %5 = add(%3, %4) : bfloat16[4]
      return %5 }""",
    "complex": """graph complex(%0: complex64[40], %1: complex64[40], %2: complex128[40]) {
      %3 = mul(%0, %1) : complex64[40]
      %4 = full() {dtype=complex64, shape=(40,), value=complex(0.0, -1.5)} : complex64[40]
      %5 = eq(%3, %0) : bool[40]
      %6 = where(%5, %3, %4) : complex64[40]
      %7 = sqrt(%2) : complex128[40]
      %8 = real(%7) : float64[40]
      %9 = imag(%2) : float64[40]
      %10 = complex(%9, %8) : complex128[40]
      return %6, %10 }""",
    "truncate": """graph truncate(%0: float64[50]) {
      %1 = cast(%0) {dtype=int64} : int64[50]
      %2 = mul(%1, %1) : int64[50]
      return %2 }""",
}


def text_of(name: str) -> CudaText:
    body = parse_graph(GRAPHS[name])
    lowered = lower(body, [None] * len(body.inputs), [None] * len(body.outputs), [])
    return emit_kernel(Kernel(f"k_{name}", lowered.kernel.params, lowered.kernel.body))


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    text = text_of(name)
    path = GOLDEN / f"{name}.cu"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.source)
    assert path.read_text() == text.source


def test_rows_are_shared_out_among_teams() -> None:
    """16 threads carry 4 of the 64 accumulators each; they meet in their warp only."""
    text = text_of("softmax")
    assert text.threads == 32
    assert isinstance(text.blocks, L.Const)
    assert text.blocks.value == 3
    assert "__shfl_xor_sync" in text.source
    assert "__syncthreads" not in text.source


def test_long_rows_meet_in_shared_memory() -> None:
    text = text_of("long_rows")
    assert text.threads == 4 * 16
    assert text.source.count("__syncthreads") == 2


def test_undefined_c_is_never_written() -> None:
    source = text_of("truncate").source
    assert "k_f64_to_i64" in source
    assert "(unsigned long long)" in source  # signed overflow is undefined in C


def test_checks_take_an_error_record() -> None:
    text = text_of("labels")
    assert text.has_checks
    assert "long long *error)" in text.source
    assert "k_fail(error, 0" in text.source


def test_carried_values_may_be_exchanged() -> None:
    out = Buffer("out", float32, (2,), (1,))
    a, b, i = Var(L.Vec(float32), "a"), Var(L.Vec(float32), "b"), Var(INDEX, "i")
    ra, rb = Var(L.Vec(float32), "ra"), Var(L.Vec(float32), "rb")
    carried = (
        L.Carry(a, L.const(1.0, float32), b, ra),
        L.Carry(b, L.const(2.0, float32), a, rb),
    )
    loop = For("serial", i, L.index(0), L.index(3), (), carried=carried)
    body = (loop, Store(out, (L.index(0),), ra), Store(out, (L.index(1),), rb))
    source = emit_kernel(Kernel("swap", (out,), body)).source
    assert "ra = ra_next" in source.replace("rb = rb_next", "ra = ra_next")
    assert "_next = " in source


def test_a_form_without_a_schedule_is_refused() -> None:
    out, i = Buffer("out", int64, (4,), (1,)), Var(INDEX, "i")
    body = (For("vector", i, L.index(1), L.index(4), (Store(out, (i,), i),)),)
    with pytest.raises(Unsupported, match="does not run from 0"):
        emit_kernel(Kernel("late", (out,), body))


def test_literals_and_unsigned_division() -> None:
    """`--1.0f` would not compile, and unsigned numbers do not divide as signed ones."""
    f, u = Buffer("f", float32, (2,), (1,)), Buffer("u", uint64, (1,), (1,))
    two = L.const(2, uint64)
    body = (
        Store(f, (L.index(0),), L.apply("neg", L.const(-1.0, float32))),
        Store(f, (L.index(1),), L.apply("neg", L.const(1.0, float32))),
        Store(u, (L.index(0),), L.apply("div", L.load(u, (L.index(0),)), two)),
    )
    source = emit_kernel(Kernel("literals", (f, u), body)).source
    assert " = 1.0f;" in source
    assert " = -1.0f;" in source
    assert "2ull == 0 ? 0 : t3 / 2ull" in source
