"""Every op on real tensors: eagerly against the references, compiled against eager bit for bit, gradients against
finite differences, first and second order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpDef
from kiln.runtime import targets, threads
from tests import tolerances as tol
from tests.ops.samples import Sample, error_samples, generator, samples, smooth_samples
from tests.ops.sampling import APART, direction, product
from tests.ops.test_declarations import references, same_bits

Array = np.ndarray[Any, Any]
NAMES = [name for name in OPS if name not in APART]
DERIVED = [name for name in NAMES if OPS[name].vjp is not None]
EXACT = {
    "uniform",
    "sum",
    "matmul",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "prod",
    "cumsum",
    "recur",
}  # besides those with the trait: the reference has the contract's order


def tensors(sample: Sample) -> list[kiln.Tensor]:
    """The operands as tensors on the very memory of the arrays, strides and all."""
    return [kiln.from_numpy(x) for x in sample.operands]


def apply(
    op: OpDef, operands: Sequence[kiln.Tensor], attrs: dict[str, Any], receiver: kiln.Tensor
) -> tuple[kiln.Tensor, ...]:
    """The op's results."""
    return op.bind(operands, attrs, receiver=receiver)


def numbers(op: OpDef, operands: Sequence[kiln.Tensor], attrs: dict[str, Any], receiver: kiln.Tensor) -> list[Array]:
    return [r.numpy() for r in apply(op, operands, attrs, receiver)]


def same(found: Sequence[Array], wanted: Sequence[Array]) -> bool:
    return len(found) == len(wanted) and all(map(same_bits, found, wanted))


def anything() -> kiln.Tensor:
    """What ops without operands are bound through."""
    return kiln.zeros(1)


@pytest.mark.parametrize("name", NAMES)
def test_eager_is_the_reference(name: str) -> None:
    op = OPS[name]
    for sample in samples(name):
        found = numbers(op, tensors(sample), sample.attrs, anything())
        for got, wanted in zip(found, references(op, sample), strict=True):
            if "exact" in op.traits or name in EXACT:
                assert same_bits(got, wanted), sample.label
            else:
                assert got.dtype == wanted.dtype and got.shape == wanted.shape, sample.label
                assert tol.close(name, got, wanted), sample.label


@pytest.mark.parametrize("name", NAMES)
def test_compiled_is_eager(name: str) -> None:
    """All samples of an op in one program, and one of them alone; called twice, so that the program itself runs."""
    op, calls = OPS[name], samples(name)

    def every(receiver: kiln.Tensor, *groups: list[kiln.Tensor]) -> list[tuple[kiln.Tensor, ...]]:
        return [apply(op, xs, s.attrs, receiver) for s, xs in zip(calls, groups, strict=True)]

    def single(receiver: kiln.Tensor, *operands: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        return apply(op, operands, calls[-1].attrs, receiver)

    groups = [tensors(s) for s in calls]
    eager = [[x.numpy() for x in results] for results in every(anything(), *groups)]
    compiled = kiln.compile(every)
    for _ in range(2):
        for sample, got, wanted in zip(calls, compiled(anything(), *groups), eager, strict=True):
            assert same([x.numpy() for x in got], wanted), sample.label
    alone = kiln.compile(single)
    for _ in range(2):
        assert same([x.numpy() for x in alone(anything(), *groups[-1])], eager[-1])


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = threads.get_num_threads()
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_targets_and_threads_agree(name: str, three_threads: None, request: pytest.FixtureRequest) -> None:
    """Eager on AVX2 with three threads gives the bits of the machine's best target with one. Each sample has a kernel
    to compile for either; without --slow eight of them are taken, from all over the op's."""
    try:
        lower = targets.named("avx2")
    except targets.TargetError as error:
        pytest.skip(str(error))
    op, calls = OPS[name], samples(name)
    if not request.config.getoption("--slow"):
        calls = calls[:: -(-len(calls) // 8)]
    threads.set_num_threads(1)
    wanted = [numbers(op, tensors(s), s.attrs, anything()) for s in calls]
    threads.set_num_threads(3)
    with targets.use_target(lower):
        for sample, bits in zip(calls, wanted, strict=True):
            assert same(numbers(op, tensors(sample), sample.attrs, anything()), bits), sample.label


def test_no_thread_count_changes_a_bit(three_threads: None) -> None:
    """Work large enough to be shared out."""
    rng = generator("large")
    x, y = (kiln.from_numpy(rng.normal(size=(900, 1100)).astype(np.float32)) for _ in range(2))
    turned = kiln.from_numpy(np.ascontiguousarray(y.numpy().T))

    def work() -> list[bytes]:
        results = [OPS["sum"](x, dims=dims) for dims in ((0,), (1,), (0, 1))]
        results += [OPS["argmax"](x, dims=(d,)) for d in (0, 1)]
        results += [
            OPS["exp"](x),
            OPS["add"](x, OPS["permute"](turned, dims=(1, 0))),
            OPS["matmul"](x, turned),
        ]
        return [r.numpy().tobytes() for r in results]

    threads.set_num_threads(1)
    wanted = work()
    for n in (2, 3, 7):
        threads.set_num_threads(n)
        assert work() == wanted


# `full` is what every Python number becomes: the frontend converts the number itself, and checks nothing twice.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "full"])
def test_eager_refuses_what_the_rule_refuses(name: str) -> None:
    op = OPS[name]
    for error in error_samples(name):
        if any(t.dtype not in kiln.ir.types.TENSOR_DTYPES for t in error.operands):
            continue  # there are no such tensors
        operands = [kiln.from_numpy(np.zeros(t.static_shape(), t.dtype.numpy)) for t in error.operands]
        with pytest.raises(kiln.errors.KilnError, match=error.match) as raised:
            op.bind(operands, error.attrs, receiver=anything())
        kinds = {
            "dtype": kiln.errors.DTypeError,
            "shape": kiln.errors.ShapeError,
            "dim": kiln.errors.KilnIndexError,
            "value": kiln.errors.InvalidValueError,
        }
        assert isinstance(raised.value, kinds[error.kind])
        assert raised.value.loc is not None and raised.value.loc.file == __file__


def test_pick_out_of_bounds_raises_eager_and_compiled() -> None:
    x = kiln.zeros(3, 4)
    pick = OPS["pick"]
    compiled = kiln.compile(lambda a, i: pick(a, i))
    compiled(x, kiln.tensor([0, 3, 1]))
    for bad in (4, -1):
        for run in (pick, compiled):
            with pytest.raises(IndexError, match=f"index {bad} is out of bounds"):
                run(x, kiln.tensor([0, bad, 1]))


# ---------------------------------------------------------------------------------------- derivatives


def floats(arrays: Sequence[Array], *seed: object) -> list[Array]:
    rng = generator("ops", *seed)
    return [direction(rng, x) for x in arrays if x.dtype.kind in "fc"]


def wanting(arrays: Sequence[Array]) -> list[kiln.Tensor]:
    """Tensors of copies of `arrays`; floating-point ones want gradients."""
    made = [kiln.from_numpy(np.array(x)) for x in arrays]
    return [t.requires_grad_() if t.dtype.is_inexact else t for t in made]


def leaves(operands: Sequence[kiln.Tensor]) -> list[kiln.Tensor]:
    return [t for t in operands if t.requires_grad]


Function = Callable[[Sequence[kiln.Tensor]], kiln.Tensor]


def weighted(op: OpDef, sample: Sample) -> Function:
    """A number that depends on the operands: the sum of op(...) times fixed random weights."""
    weights = [kiln.from_numpy(w) for w in floats(references(op, sample), "weight", op.name, sample.label)]

    def run(operands: Sequence[kiln.Tensor]) -> kiln.Tensor:
        results = [r for r in sample.bind(op, operands, operands[0]) if r.dtype.is_inexact]
        totals = [(r * weight).sum().real for r, weight in zip(results, weights, strict=True)]
        total = totals[0]
        for more in totals[1:]:
            total = total + more
        return total

    return run


def gradients(run: Function, operands: Sequence[kiln.Tensor], create_graph: bool = False) -> list[kiln.Tensor | None]:
    value = run(operands)
    if not value.requires_grad:
        return [None for _ in leaves(operands)]
    return list(kiln.grad(value, leaves(operands), create_graph=create_graph, allow_unused=True))


def slope(run: Function, arrays: Sequence[Array], along: Sequence[Array]) -> float:
    """Central difference of a number along `along`."""
    values = []
    for scale in (tol.DIFFERENCE_STEP, -tol.DIFFERENCE_STEP):
        moves = iter(along)
        moved = [x + scale * next(moves) if x.dtype.kind in "fc" else x for x in arrays]
        values.append(run(wanting(moved)).item())
    return float(values[0] - values[1]) / (2 * tol.DIFFERENCE_STEP)


def dot(grads: Sequence[kiln.Tensor | None], along: Sequence[Array]) -> float:
    return sum(product(g.numpy(), d) for g, d in zip(grads, along, strict=True) if g is not None)


SMOOTH = [pytest.param(OPS[name], s, id=f"{name}-{s.label}") for name in DERIVED for s in smooth_samples(name)]


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_gradients_first_and_second_order(op: OpDef, sample: Sample) -> None:
    run, arrays = weighted(op, sample), sample.operands
    along = floats(arrays, "direction", op.name, sample.label)
    seconds = [kiln.from_numpy(x) for x in floats(arrays, "seconds", op.name, sample.label)]
    numeric = slope(run, arrays, along)
    analytic = dot(gradients(run, wanting(arrays)), along)
    assert abs(analytic - numeric) <= tol.DIFFERENCE * (1 + abs(numeric))

    def number(operands: Sequence[kiln.Tensor]) -> kiln.Tensor:
        """The gradient along `seconds`, itself on the tape."""
        total = kiln.zeros(1, dtype=kiln.float64).sum()
        for g, w in zip(gradients(run, operands, create_graph=True), seconds, strict=True):
            total = total if g is None else total + (g * w).sum().real
        return total

    numeric = slope(number, arrays, along)
    analytic = dot(gradients(number, wanting(arrays)), along)
    assert abs(analytic - numeric) <= tol.SECOND_DIFFERENCE * (1 + abs(numeric))


@pytest.mark.parametrize(("op", "sample"), [p for p in SMOOTH if "0-d" not in str(p.id)])
def test_compiled_gradients_are_eager(op: OpDef, sample: Sample) -> None:
    """Forward and backward in one program, and compiled forward with backward outside, both to the bit."""
    run = weighted(op, sample)

    def both(*operands: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        value = run(operands)
        return (
            value.detach(),
            *[g for g in kiln.grad(value, leaves(operands), allow_unused=True) if g is not None],
        )

    def forward(*operands: kiln.Tensor) -> kiln.Tensor:
        return run(operands)

    eager = [x.numpy() for x in both(*wanting(sample.operands))]
    compiled, outside = kiln.compile(both), kiln.compile(forward)
    for _ in range(2):
        for got, wanted in zip(compiled(*wanting(sample.operands)), eager, strict=True):
            assert same_bits(got.numpy(), wanted)
        operands = wanting(sample.operands)
        outside(*operands).backward()
        grads = [t.grad for t in leaves(operands) if t.grad is not None]
        for grad, wanted in zip(grads, eager[1:], strict=True):
            assert same_bits(grad.numpy(), wanted)
