"""Parts, joins, repetitions, diagonals, windows and sums of products: against NumPy, as views, captured, derived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.autograd import gradcheck, gradgradcheck

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 3, 4))
M, N, V, W = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5)), RNG.normal(size=4), RNG.normal(size=3)
TURNED = np.ascontiguousarray(X.T).T

CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Sequence[Array]]] = {
    "split": (lambda x: kiln.split(x, 3, 2), lambda x: np.split(x, [3], 2), [X]),
    "split-sizes": (lambda x: kiln.split(x, [1, 0, 2], 1), lambda x: np.split(x, [1, 1], 1), [X]),
    "chunk": (lambda x: x.chunk(3, -1), lambda x: np.split(x, [2], 2), [X]),
    "tensor_split": (lambda x: x.tensor_split(3, 2), lambda x: np.array_split(x, 3, 2), [X]),
    "tensor_split-at": (lambda x: x.tensor_split([1, -1], 2), lambda x: np.split(x, [1, 3], 2), [X]),
    "hsplit": (lambda x: x.hsplit(3), lambda x: np.hsplit(x, 3), [X]),
    "vsplit": (lambda x: x.vsplit([1]), lambda x: np.vsplit(x, [1]), [X]),
    "dsplit": (lambda x: x.dsplit(2), lambda x: np.dsplit(x, 2), [X]),
    "unbind": (lambda x: x.unbind(1), lambda x: [x[:, i] for i in range(3)], [X]),
    "narrow": (lambda x: x.narrow(-1, 1, 2), lambda x: x[..., 1:3], [X]),
    "select": (lambda x: x.select(1, -1), lambda x: x[:, -1], [X]),
    "movedim": (lambda x: x.movedim((0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0)), [X]),
    "swapaxes": (lambda x: x.swapaxes(0, 2), lambda x: np.swapaxes(x, 0, 2), [X]),
    "adjoint": (lambda x: (x.adjoint(), x.mH), lambda x: [np.swapaxes(x, 1, 2)] * 2, [X]),
    "unflatten": (lambda x: x.unflatten(2, (2, -1)), lambda x: x.reshape(2, 3, 2, 2), [X]),
    "ravel": (lambda x: x.ravel(), lambda x: x.ravel(), [X]),
    "broadcast": (lambda x, w: kiln.broadcast_tensors(x, w), lambda x, w: np.broadcast_arrays(x, w), [X, V]),
    "expand_as": (lambda w, x: (w.expand_as(x), w.broadcast_to((5, 4))), lambda w, x: [x * 0 + w, [w] * 5], [V, X]),
    "atleast": (
        lambda w: (kiln.atleast_1d(w), kiln.atleast_2d(w), *kiln.atleast_3d(w, w[0])),
        lambda w: [w, w[None], w[None, :, None], w[0].reshape(1, 1, 1)],
        [V],
    ),
    "hstack": (lambda a, b: kiln.hstack([a, b]), lambda a, b: np.hstack([a, b]), [X, X]),
    "hstack-vectors": (lambda a, b: kiln.hstack([a, b]), lambda a, b: np.hstack([a, b]), [V, W]),
    "vstack": (lambda a, b: kiln.vstack([a, b]), lambda a, b: np.vstack([a, b]), [M, V]),
    "dstack": (lambda a, b: kiln.dstack([a, b]), lambda a, b: np.dstack([a, b]), [M, M]),
    "column_stack": (lambda a, b: kiln.column_stack([a, b]), lambda a, b: np.column_stack([a, b]), [M, W]),
    "concat": (lambda a, b: kiln.concat([a, b], 1), lambda a, b: np.concatenate([a, b], 1), [M, M]),
    "block_diag": (
        lambda a, b: kiln.block_diag(a, b),
        lambda a, b: np.block([[a, np.zeros((3, 4))], [np.zeros((1, 4)), b[None]]]),
        [M, V],
    ),
    "meshgrid": (lambda a, b: kiln.meshgrid(a, b), lambda a, b: np.meshgrid(a, b, indexing="ij"), [V, W]),
    "meshgrid-xy": (
        lambda a, b: kiln.meshgrid(a, b, a, indexing="xy"),
        lambda a, b: np.meshgrid(a, b, a, indexing="xy"),
        [V, W],
    ),
    "cartesian_prod": (
        lambda a, b: kiln.cartesian_prod(a, b),
        lambda a, b: np.stack([x.ravel() for x in np.meshgrid(a, b, indexing="ij")], 1),
        [V, W],
    ),
    "flip": (lambda x: (x.flip(0, 2), x.flipud(), x.fliplr()), lambda x: [x[::-1, :, ::-1], x[::-1], x[:, ::-1]], [X]),
    "roll": (lambda x: x.roll((1, -3), (1, 2)), lambda x: np.roll(x, (1, -3), (1, 2)), [X]),
    "roll-flat": (lambda x: x.roll(5), lambda x: np.roll(x, 5), [TURNED]),
    "rot90": (
        lambda x: [kiln.rot90(x, k, (2, 1)) for k in range(4)],
        lambda x: [np.rot90(x, k, (2, 1)) for k in range(4)],
        [X],
    ),
    "repeat": (lambda x: (x.repeat(2, 1, 3, 1), x.tile(2)), lambda x: [np.tile(x, (2, 1, 3, 1)), np.tile(x, 2)], [X]),
    "repeat_interleave": (
        lambda x: (x.repeat_interleave(2, 1), kiln.repeat_interleave(x, 3)),
        lambda x: [np.repeat(x, 2, 1), np.repeat(x, 3)],
        [TURNED],
    ),
    "diagonal": (
        lambda x: (x.diagonal(0, 1, 2), x.diagonal(-1, 2, 0), x.diagonal(9)),
        lambda x: [np.diagonal(x, 0, 1, 2), np.diagonal(x, -1, 2, 0), np.zeros((4, 0))],
        [X],
    ),
    "diag": (lambda m, v: (m.diag(1), v.diag(-1)), lambda m, v: [np.diag(m, 1), np.diag(v, -1)], [M, V]),
    "diag_embed": (
        lambda m: kiln.diag_embed(m, 1, 0, 2),
        lambda m: np.moveaxis(np.stack([np.diag(r, 1) for r in m]), (1, 2), (0, 2)),
        [M],
    ),
    "trace": (lambda m: m.trace(), lambda m: np.trace(m), [M]),
    "tril": (lambda x: (x.tril(), x.triu(1)), lambda x: [np.tril(x), np.triu(x, 1)], [X]),
    "unfold": (
        lambda x: x.unfold(2, 3, 1),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, 2),
        [X],
    ),
    "unfold-far": (lambda x: x.unfold(1, 1, 2), lambda x: x[:, ::2, :, None], [TURNED]),
    "outer": (lambda a, b: kiln.outer(a, b), lambda a, b: np.outer(a, b), [V, W]),
    "dot": (lambda a: (a.dot(a), kiln.vdot(a, a)), lambda a: [a @ a] * 2, [V]),
    "inner": (lambda a, b: kiln.inner(a, b), lambda a, b: np.inner(a, b), [X, M]),
    "mv": (lambda m, v: m.mv(v), lambda m, v: m @ v, [M, V]),
    "bmm": (lambda a, b: kiln.bmm(a, b.mT), lambda a, b: a @ b.swapaxes(1, 2), [X, X]),
    "addmm": (
        lambda i, m, n: kiln.addmm(i, m, n, beta=0.5, alpha=2),
        lambda i, m, n: 0.5 * i + 2 * (m @ n),
        [N[0], M, N],
    ),
    "addmv": (lambda i, m, v: i.addmv(m, v), lambda i, m, v: i + m @ v, [W, M, V]),
    "addr": (lambda m, a, b: m.addr(a, b, alpha=3), lambda m, a, b: m + 3 * np.outer(a, b), [M, W, V]),
    "baddbmm": (
        lambda i, a, b: kiln.baddbmm(i, a, b.mT, beta=2),
        lambda i, a, b: 2 * i + a @ b.swapaxes(1, 2),
        [W, X, X],
    ),
    "addbmm": (lambda i, a: i.addbmm(a, a.mT), lambda i, a: i + (a @ a.swapaxes(1, 2)).sum(0), [W, X]),
    "chain": (lambda m, n: kiln.chain_matmul(m, n, n.T), lambda m, n: m @ n @ n.T, [M, N]),
    "kron": (lambda m, v: kiln.kron(m, v), lambda m, v: np.kron(m, v), [M, V]),
    "cross": (lambda a, w: kiln.cross(a, w), lambda a, w: np.cross(a, w), [M.T, W]),
    "tensordot": (
        lambda x, m: (kiln.tensordot(x, m, 0), kiln.tensordot(x, m, ([1, 2], [0, 1]))),
        lambda x, m: [np.tensordot(x, m, 0), np.tensordot(x, m, ([1, 2], [0, 1]))],
        [X, M],
    ),
}

EQUATIONS = (
    ("ij,jk->ik", (M, N)),
    ("ij,jk", (M, N)),
    ("bij,bkj->bik", (X, X)),
    ("bij,bkj->bk", (X, X)),
    ("...ij,jk->...ik", (X, N)),
    ("ij->", (M,)),
    ("ba", (M,)),
    ("iji->j", (np.ascontiguousarray(X.swapaxes(1, 2))[:, :, :2].copy(),)),
    ("i,j,k->kij", (V, W, V)),
    ("ij,ij->i", (M, M)),
    ("bij,ij,j->b", (X, M, V)),
    ("ij,kl->kj", (M, N)),
    ("b...,...->b...", (X, M)),
    ("ik,kj->ij", (M[:, :1].copy(), N)),
)
for _equation, _arrays in EQUATIONS:
    CASES[f"einsum {_equation}"] = (
        lambda *xs, e=_equation: kiln.einsum(e, *xs),
        lambda *xs, e=_equation: np.einsum(e, *xs),
        _arrays,
    )


def listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


@pytest.mark.parametrize("name", CASES)
def test_numpy_says_so(name: str) -> None:
    function, reference, arrays = CASES[name]
    got, wanted = listed(function(*map(kiln.from_numpy, arrays))), listed(reference(*arrays))
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == np.shape(b)
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-13, atol=1e-13)


def test_compiled_is_eager() -> None:
    """Everything in one program; run twice, so that the program itself runs."""
    functions = {name: function for name, (function, _, _) in CASES.items()}

    def every(groups: dict[str, list[kiln.Tensor]]) -> dict[str, Any]:
        return {name: listed(functions[name](*xs)) for name, xs in groups.items()}

    groups = {name: [kiln.from_numpy(a) for a in arrays] for name, (_, _, arrays) in CASES.items()}
    wanted, compiled = every(groups), kiln.compile(every)
    for _ in range(2):
        for name, results in compiled(groups).items():
            for a, b in zip(results, wanted[name], strict=True):
                assert a.numpy().tobytes() == b.numpy().tobytes(), name


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, _, arrays = CASES[name]
    operands = [kiln.from_numpy(np.array(a)).requires_grad_() for a in arrays]

    def numbers(*xs: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        return tuple(r for r in listed(function(*xs)) if r.numel())

    assert gradcheck(numbers, operands)


@pytest.mark.parametrize("name", ["diagonal", "unfold", "diag_embed", "roll", "einsum bij,bkj->bk"])
def test_second_gradients(name: str) -> None:
    function, _, arrays = CASES[name]
    operands = [kiln.from_numpy(np.array(a)).requires_grad_() for a in arrays]

    def number(*xs: kiln.Tensor) -> kiln.Tensor:
        total = sum((r * r * r).sum() for r in listed(function(*xs)) if r.numel())
        assert isinstance(total, kiln.Tensor)
        return total

    assert gradgradcheck(number, operands)


# ---------------------------------------------------------------------------------------------- views


def write_through_views(x: kiln.Tensor) -> kiln.Tensor:
    """Writes through a view of each kind; the next one sees the last."""
    x = x.clone()
    x.diagonal()[1:] += 10
    x.unfold(1, 2, 2)[:, 1] *= -1
    x.T.diagonal(-1).fill_(0.5)
    for k, part in enumerate(x.split(2, 1)):
        part += k
    x.movedim(0, 1).select(0, 0).zero_()
    x.unflatten(1, (2, 2))[0, :, 1] = 7.0
    x.tensor_split(2)[1].narrow(1, 1, 2).mul_(x[0, 0] + 2)
    return x


def test_writes_through_views_reach_the_source() -> None:
    wanted = np.arange(16.0).reshape(4, 4)
    wanted[[1, 2, 3], [1, 2, 3]] += 10
    wanted[:, 2:] *= -1
    wanted[[0, 1, 2], [1, 2, 3]] = 0.5
    wanted[:, 2:] += 1
    wanted[:, 0] = 0
    wanted[0, 1::2] = 7
    wanted[2:, 1:3] *= wanted[0, 0] + 2
    x = kiln.arange(16.0).reshape(4, 4)
    assert (write_through_views(x).numpy() == wanted).all()
    compiled = kiln.compile(write_through_views)
    for _ in range(2):
        assert (compiled(x).numpy() == wanted).all()


def test_writes_through_views_have_gradients() -> None:
    x = kiln.from_numpy(RNG.normal(size=(4, 4))).requires_grad_()
    assert gradcheck(write_through_views, (x,))


def test_a_write_to_overlapping_windows_is_refused() -> None:
    windows = kiln.zeros(5).unfold(0, 3, 1)
    with pytest.raises(kiln.GradError, match="share one place"):
        windows.add_(1)
    kiln.zeros(6).unfold(0, 2, 3).add_(1)


def test_as_strided() -> None:
    x = kiln.arange(12.0)
    view = x[2:].as_strided((2, 3), (4, 1))
    assert view.tolist() == [[2, 3, 4], [6, 7, 8]]
    view[0, 0] = -1
    assert x[2].item() == -1
    assert x.as_strided((2,), (3,), 5).tolist() == [5, 8]
    with pytest.raises(kiln.InvalidValueError, match="outside the memory"):
        x.as_strided((2, 3), (9, 2))
    with pytest.raises(kiln.CaptureError, match="strides of memory"):
        kiln.compile(lambda x: x.as_strided((2,), (1,)), fullgraph=True)(x)
    with pytest.raises(kiln.NotYetError, match="gradient"):
        kiln.zeros(3, requires_grad=True).as_strided((2,), (1,))


def test_sizes_that_are_data_are_questions_in_a_capture() -> None:
    x, times = kiln.arange(3.0), kiln.tensor([2, 0, 1])
    assert x.repeat_interleave(times).tolist() == [0, 0, 2]
    with pytest.raises(kiln.CaptureError, match="repeat_interleave"):
        kiln.jit.trace(lambda x, t: x.repeat_interleave(t), (x, times))
    f = kiln.compile(lambda x, t: x.repeat_interleave(t), fullgraph=True)
    for t, expected in (([2, 0, 1], [0, 0, 2]), ([0, 1, 1], [1, 2]), ([2, 0, 1], [0, 0, 2])):
        assert f(x, kiln.tensor(t)).tolist() == expected


def test_ranges() -> None:
    assert kiln.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert kiln.linspace(3, -3, 1).tolist() == [3] and kiln.linspace(0, 1, 0).shape == (0,)
    assert kiln.linspace(0, 10, 4, dtype=kiln.int64).tolist() == [0, 3, 6, 10]
    assert kiln.logspace(0, 3, 4).tolist() == [1, 10, 100, 1000]
    assert kiln.logspace(1, 3, 3, base=2, dtype=kiln.float64).tolist() == [2, 4, 8]
    line = kiln.linspace(-1, 1, 101, dtype=kiln.float64).numpy()
    assert (line == -line[::-1]).all() and line[0] == -1 and line[-1] == 1
    assert (kiln.tril_indices(3, 4, -1).numpy() == np.tril_indices(3, -1, 4)).all()
    assert (kiln.triu_indices(3, 4, 1).numpy() == np.triu_indices(3, 1, 4)).all()
    compiled = kiln.compile(lambda x: x + kiln.linspace(0, 2, 3))
    for _ in range(2):
        assert compiled(kiln.ones(3)).tolist() == [1, 2, 3]


def test_other_dtypes_and_empty_tensors() -> None:
    flags = kiln.tensor([[True, False], [True, True]])
    assert flags.tril().tolist() == [[True, False], [True, True]] and flags.diag().tolist() == [True, True]
    assert kiln.einsum("ij,j->i", kiln.tensor([[1, 2], [3, 4]]), kiln.tensor([5, 6])).tolist() == [17, 39]
    empty = kiln.zeros(0, 3)
    assert empty.flip(0, 1).shape == (0, 3) and empty.roll(1, 0).shape == (0, 3)
    assert empty.repeat(2, 2).shape == (0, 6) and empty.diagonal().shape == (0,) and empty.trace().item() == 0
    assert kiln.einsum("ij,kj->ik", kiln.zeros(2, 0), kiln.zeros(3, 0)).tolist() == [[0] * 3] * 2
    assert [p.shape for p in empty.split(2)] == [(0, 3)] and len(empty.unbind()) == 0
    number = kiln.tensor(3.0)
    assert number.flip().item() == 3 and number.ravel().shape == (1,) and number.repeat(2).tolist() == [3, 3]


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: kiln.zeros(3).split([1, 1]), kiln.InvalidValueError, "split: .*do not sum up"),
    (lambda: kiln.zeros(3).split(0), kiln.InvalidValueError, "split: .*positive"),
    (lambda: kiln.zeros(()).chunk(2), kiln.ShapeError, "chunk: needs at least one dimension"),
    (lambda: kiln.zeros(3).narrow(0, 2, 2), kiln.ShapeError, "narrow: .*do not fit"),
    (lambda: kiln.zeros(3).select(0, 3), kiln.KilnIndexError, "out of range"),
    (lambda: kiln.zeros(3, 4).hsplit(3), kiln.InvalidValueError, "hsplit: .*equal parts"),
    (lambda: kiln.zeros(2, 3).movedim((0, 1), (0, 0)), kiln.InvalidValueError, "movedim"),
    (lambda: kiln.zeros(6).unflatten(0, (4, -1)), kiln.ShapeError, "unflatten: .*multiply"),
    (lambda: kiln.zeros(6).flip(0, 0), kiln.InvalidValueError, "flip: .*twice"),
    (lambda: kiln.zeros(6).fliplr(), kiln.ShapeError, "fliplr"),
    (lambda: kiln.zeros(2, 3).roll((1, 2)), kiln.InvalidValueError, "roll: several shifts"),
    (lambda: kiln.zeros(2, 3).rot90(1, (0, 0)), kiln.InvalidValueError, "rot90"),
    (lambda: kiln.zeros(2, 3).repeat(2), kiln.ShapeError, "repeat"),
    (lambda: kiln.zeros(2, 3).repeat_interleave(-1), kiln.InvalidValueError, "repeat_interleave: .*negative"),
    (lambda: kiln.zeros(2, 3).diagonal(0, 1, 1), kiln.InvalidValueError, "diagonal: .*different"),
    (lambda: kiln.zeros(2, 3, 4).diag(), kiln.ShapeError, "diag: expects"),
    (lambda: kiln.zeros(2).trace(), kiln.ShapeError, "trace: expects a matrix"),
    (lambda: kiln.zeros(2).tril(), kiln.ShapeError, "tril: needs"),
    (lambda: kiln.zeros(2).unfold(0, 3, 1), kiln.InvalidValueError, "unfold: .*do not fit"),
    (lambda: kiln.meshgrid(kiln.zeros(2), indexing="yx"), kiln.InvalidValueError, "meshgrid: indexing"),
    (lambda: kiln.zeros(2).dot(kiln.zeros(3)), kiln.ShapeError, "dot: sizes differ"),
    (lambda: kiln.zeros(2).dot(kiln.tensor([1, 2])), kiln.DTypeError, "dot: operands have different dtypes"),
    (lambda: kiln.zeros(2, 2).mv(kiln.zeros(2, 2)), kiln.ShapeError, "mv: expects tensors of 1 dimension"),
    (lambda: kiln.bmm(kiln.zeros(2, 3, 4), kiln.zeros(3, 4, 5)), kiln.ShapeError, "bmm: batch sizes"),
    (lambda: kiln.zeros(3).addmm(kiln.zeros(2, 2), kiln.zeros(2, 2)), kiln.ShapeError, "addmm: .*does not fit"),
    (lambda: kiln.cross(kiln.zeros(2), kiln.zeros(2)), kiln.ShapeError, "cross: no dimension"),
    (lambda: kiln.tensordot(kiln.zeros(2), kiln.zeros(3), 1), kiln.ShapeError, "tensordot: sizes"),
    (lambda: kiln.einsum("ij,jk", kiln.zeros(2, 3)), kiln.InvalidValueError, "einsum: .*2 terms for 1"),
    (lambda: kiln.einsum("ij", kiln.zeros(2)), kiln.InvalidValueError, "einsum: .*does not name"),
    (lambda: kiln.einsum("i->j", kiln.zeros(2)), kiln.InvalidValueError, "einsum: .*must name"),
    (lambda: kiln.einsum("i1->i", kiln.zeros(2, 2)), kiln.InvalidValueError, "einsum: .*letters"),
    (lambda: kiln.einsum("i,i", kiln.zeros(2), kiln.zeros(3)), kiln.ShapeError, "einsum: .*both 2 and 3"),
    (lambda: kiln.linspace(0, 1, -1), kiln.InvalidValueError, "linspace: steps"),
    (lambda: kiln.flip([1.0], 0), kiln.ArgumentError, "flip: expected a tensor"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "kind", "match"), ERRORS)
def test_errors(call: Callable[[], Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


def test_addmm_ignores_its_input_when_beta_is_zero() -> None:
    nan = kiln.full((2, 2), float("nan"))
    assert kiln.addmm(nan, kiln.eye(2), kiln.eye(2), beta=0).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_addbmm_of_integers_keeps_their_dtype_and_wraps(dtype: str) -> None:
    x, a, b = (np.random.default_rng(3).integers(0, 90, s).astype(dtype) for s in ((2, 3), (5, 2, 4), (5, 4, 3)))
    found = kiln.addbmm(*map(kiln.from_numpy, (x, a, b))).numpy()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, (x + (a.astype("int64") @ b).sum(0)).astype(dtype))
