"""Every op's declaration against itself: type rule, reference, scalar lowering and view rule must agree."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from kiln.ir.halves import is_float
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Dense, OpDef, OpTypeError, Reduction, Template
from kiln.ir.types import Sym, TensorType, contiguous_strides, int64
from tests import tolerances
from tests.ops.elements import evaluate_element
from tests.ops.samples import Sample, error_samples, samples, specials
from tests.ops.sampling import APART

NAMES = [name for name in OPS if name not in APART]
TRAITS = {
    "elementwise",
    "view",
    "commutative",
    "exact",
    "foldable",
    "window",
    "random",
    "constant",
    "reduction",
    "check",
    "parts",
    "folds",
}


def references(op: OpDef, sample: Sample) -> list[np.ndarray[Any, Any]]:
    found = op.ref(np, *sample.operands, **sample.attrs)
    return [np.asarray(r) for r in (found if isinstance(found, tuple) else (found,))]


def reference(op: OpDef, sample: Sample) -> np.ndarray[Any, Any]:
    """Of an op that has one result."""
    (result,) = references(op, sample)
    return result


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Equal bit for bit, all NaNs being one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "c":
        return same_bits(a.real, b.real) and same_bits(a.imag, b.imag)
    if not is_float(a.dtype):
        return bool((a == b).all())
    nan = a != a
    bits = np.dtype(f"i{a.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool((nan == (b != b)).all() and (equal.reshape(a.shape) | nan).all())


@pytest.mark.parametrize("name", NAMES)
def test_declaration_is_complete(name: str) -> None:
    op = OPS[name]
    assert samples(name) and error_samples(name)
    assert op.doc and op.name == name
    assert op.traits <= TRAITS
    assert ("view" in op.traits) == (op.view is not None)
    assert isinstance(op.lower, Dense | Reduction | Template)
    assert (op.vjp is None) == (op.jvp is None)
    if op.vjp is None:
        assert not op.saved_operands and not op.saved_results
    labels = [s.label for s in samples(name)]
    assert len(labels) == len(set(labels)), "labels must tell samples apart"


@pytest.mark.parametrize("name", NAMES)
def test_references_follow_the_type_rule(name: str) -> None:
    op = OPS[name]
    for sample in samples(name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = references(op, sample)
        for result, wanted in zip(results, op.infer_types(sample.types(), sample.attrs), strict=True):
            assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype.numpy), sample.label


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(OPS[name].lower, Dense)])
def test_elements_are_the_reference(name: str) -> None:
    op = OPS[name]
    for sample in samples(name):
        if name == "constant" and sample.attrs["data"].data.size != 1:
            with pytest.raises(OpTypeError, match="lives in memory"):
                evaluate_element(op, sample.operands, sample.attrs, sample.types())
            continue
        got, failed = evaluate_element(op, sample.operands, sample.attrs, sample.types())
        wanted = reference(op, sample)
        assert not failed, sample.label
        if "exact" in op.traits or name == "uniform":
            assert same_bits(got, wanted), sample.label
        else:
            assert tolerances.close(name, got, wanted), sample.label


@pytest.mark.parametrize("name", [name for name in NAMES if OPS[name].view is not None])
def test_views_are_the_reference(name: str) -> None:
    """The view rule on real memory: placed inside a larger array, at an offset and with the sample's strides."""
    for sample in samples(name):
        demand_view(OPS[name], sample)


def demand_view(op: OpDef, sample: Sample) -> None:
    (x,) = sample.operands
    step = x.itemsize
    strides = tuple(s // step for s in x.strides)
    low = sum(min(0, s * (n - 1)) for s, n in zip(strides, x.shape, strict=True))
    span = sum(max(0, s * max(0, n - 1)) for s, n in zip(strides, x.shape, strict=True)) - low + 1
    memory = np.zeros(span + 8, x.dtype)
    offset = 6 - low if op.name == "view_as_complex" else 5 - low
    place = np.lib.stride_tricks.as_strided(memory[offset:], x.shape, x.strides)
    if x.size:
        place[...] = x
    assert op.view is not None
    placed = op.view(x.shape, strides, offset, sample.attrs)
    if placed is None:
        assert op.name in ("reshape", "view_as_complex") and strides != contiguous_strides(x.shape), sample.label
        return
    shape, new, start = placed
    wanted = reference(op, sample)
    assert shape == wanted.shape
    memory, step = memory[: len(memory) // 2 * 2].view(wanted.dtype), wanted.dtype.itemsize  # parts, or pairs of them
    assert 0 <= start < len(memory)
    got = np.lib.stride_tricks.as_strided(memory[start:], shape, tuple(s * step for s in new))
    assert same_bits(np.array(got), np.array(wanted)), sample.label


@pytest.mark.parametrize("name", NAMES)
def test_type_rule_refuses(name: str) -> None:
    for error in error_samples(name):
        with pytest.raises(OpTypeError, match=error.match) as raised:
            OPS[name].infer_types(error.operands, error.attrs)
        assert (raised.value.kind, raised.value.op) == (error.kind, name), error


SHAPE_GENERIC = (
    "where",
    "cast",
    "matmul",
    "permute",
    "broadcast",
    "pick",
    "gather",
    "reverse",
    "copy",
    "uniform",
    "normal",
    "full",
    "iota",
)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n in SHAPE_GENERIC or {"elementwise", "reduction"} & OPS[n].traits]
)
def test_symbolic_sizes_give_the_same(name: str) -> None:
    """One kernel serves all sizes: types with symbols for sizes must give the same type and the same elements."""
    op = OPS[name]
    for s in samples(name):
        sizes = {f"n{n}": n for x in (*s.operands, np.empty(s.attrs.get("shape", ()))) for n in x.shape if n > 1}

        def symbolic(shape: tuple[int, ...]) -> tuple[Any, ...]:
            return tuple(Sym(f"n{n}") if n > 1 else n for n in shape)

        state = "random" in op.traits  # the state's own size is fixed
        types = [t if state else TensorType(t.dtype, symbolic(t.static_shape())) for t in s.types()]
        attrs = {**s.attrs, "shape": symbolic(s.attrs["shape"])} if "shape" in s.attrs else s.attrs
        (wanted,) = op.infer_types(s.types(), s.attrs)
        (got,) = op.infer_types(types, attrs)
        assert got == TensorType(wanted.dtype, symbolic(wanted.static_shape())), s.label
        if isinstance(op.lower, Dense):
            static, _ = evaluate_element(op, s.operands, s.attrs, s.types())
            dynamic, _ = evaluate_element(op, s.operands, attrs, types, sizes)
            assert same_bits(static, dynamic), s.label


def test_reshape_by_runs_of_dimensions() -> None:
    """Symbolic sizes reshape where runs of dimensions match; the index map stays within a run."""
    a, b, c = Sym("a"), Sym("b"), Sym("c")
    sizes = {"a": 3, "b": 4, "c": 5}
    x = np.arange(3 * 4 * 5, dtype=np.int64).reshape(3, 4, 5)
    for shape in [(a, 1, b, c), (a, c, b), (c, b, a), (a, b, c), (1, a, b, c, 1)]:
        types = [TensorType(int64, (a, b, c))]
        got, _ = evaluate_element(OPS["reshape"], (x,), {"shape": shape}, types, sizes)
        assert (got == x.reshape(got.shape)).all()
    with pytest.raises(OpTypeError):
        OPS["reshape"].infer_types([TensorType(int64, (2, 3))], {"shape": (4,)})


@pytest.mark.parametrize("combine", ["amax", "amin", "argmax"])
def test_nan_wins_and_the_first_index_too(combine: str) -> None:
    x = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 2.0, -1.0, -1.0]])
    got = OPS[combine].ref(np, x, dims=(1,))
    wanted = {"amax": [np.nan, 2.0], "amin": [np.nan, -1.0], "argmax": [1, 0]}[combine]
    assert same_bits(got, np.asarray(wanted, got.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum_against_numpy(dtype: str) -> None:
    for s in samples("sum"):
        (x,) = s.operands
        if x.dtype == dtype and np.isfinite(x).all() and np.abs(x).max(initial=0) < 1e9:
            got = OPS["sum"].ref(np, x, **s.attrs)
            wide = x.astype(np.longdouble)
            scale = np.abs(wide).sum(axis=s.attrs["dims"]) * np.finfo(x.dtype).eps
            error = np.abs(got - wide.sum(axis=s.attrs["dims"]))
            assert (error <= tolerances.REASSOCIATED * scale).all(), s.label


def test_signed_zeros_of_sums() -> None:
    minus = np.full((2, 3), -0.0)
    assert np.signbit(OPS["sum"].ref(np, minus, dims=(1,))).all()
    assert not np.signbit(OPS["sum"].ref(np, np.zeros((2, 0)), dims=(1,))).any()


def test_cast_is_total() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -3.99, 2.0**62])
    got = OPS["cast"].ref(np, x, dtype=int64)
    low = -(2**63)
    assert got.tolist() == [low, low, low, low, -3, 2**62]


def test_sign_and_relu_at_zeros_and_nan() -> None:
    x = np.array([0.0, -0.0, np.nan])
    assert same_bits(OPS["sign"].ref(np, x), np.zeros(3))
    assert same_bits(OPS["relu"].ref(np, x), np.array([0.0, 0.0, np.nan]))


def test_pick_checks_every_index() -> None:
    x, index = np.arange(6.0).reshape(3, 2), np.array([1, 2, -1])
    types = Sample("", (x, index)).types()
    got, failed = evaluate_element(OPS["pick"], (x, index), {}, types)
    assert [(kind, value) for kind, _, value in failed] == [("index", 2), ("index", -1)]
    assert got[0] == x[0, 1]
    with pytest.raises(IndexError):
        OPS["pick"].ref(np, x, index)


def test_special_values_are_special() -> None:
    values = specials("float32")
    assert np.isnan(values).any() and np.isinf(values).any() and np.signbit(values[values == 0]).any()
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()
