"""Python numbers that a captured function takes out of tensors: they live in its program, and are Python's own to the
bit, whatever is computed with them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

import kiln
from kiln.errors import CaptureError
from tests.frontend.test_staging import bits

Function = Callable[..., Any]
DOORS = [lambda f: kiln.compile(f, fullgraph=True), kiln.jit.script]


def outcome(f: Function, args: Sequence[Any]) -> tuple[Any, ...]:
    """What a call gives, or raises, and what it leaves in its arguments."""
    own = [x.clone() if isinstance(x, kiln.Tensor) else x for x in args]
    try:
        given: Any = bits(f(*own))
    except CaptureError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is)
        given = type(error), str(error).partition("\n")[0]
    return given, [bits(x) for x in own]


def check(f: Function, calls: Sequence[Any], captured: int = 1, eager: int = 0) -> None:
    """Through both doors `f` does what it does eagerly, as one program. A call is the only argument, or a tuple."""
    for door in DOORS:
        compiled = door(f)
        for call in calls:
            args = call if isinstance(call, tuple) else (call,)
            assert outcome(compiled, args) == outcome(f, args), call
        report = compiled.report()
        assert (report.captured, report.eager, report.decided) == (captured, eager, 0), str(report)


FLOATS = [1.5, -2.5, 0.0, -0.0, 3.0, 1e300, -1e-300, 5e-324, math.inf, -math.inf, 0.1, 2.0**53, 7.0]
INTEGERS = [3, -7, 0, 1, -1, 12, 2**31, -(2**40), 2**53, -(2**53), 5]


def pairs(values: Sequence[Any], dtype: Any) -> list[Any]:
    """0-d tensors of all pairs of values."""
    return [(kiln.tensor(a, dtype=dtype), kiln.tensor(b, dtype=dtype)) for a in values for b in values]


# ------------------------------------------------------------------------------------------ taking


def test_item_float_int_and_bool_are_one_program() -> None:
    def f(x: Any) -> Any:
        v = x.sum().item()
        return x / (v + 1), v, int(v), float(x[0]) * 2, bool(x[0]), int(x[1]), float(x.argmax()), bool(v)

    check(f, [kiln.tensor(v) for v in ([1.0, 2.0], [-3.5, 0.25], [0.0, 8.0], [0.5, -0.5])])


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64, kiln.float16, kiln.bfloat16])
def test_floats_of_every_dtype(dtype: Any) -> None:
    def f(x: Any) -> Any:
        return x.item(), float(x), bool(x), x.item() * 0.1

    check(f, [kiln.tensor(v, dtype=dtype) for v in (0.1, -0.0, math.inf, math.nan, 3.0)])


@pytest.mark.parametrize("dtype", [kiln.int8, kiln.int32, kiln.int64, kiln.uint8, kiln.bool])
def test_integers_of_every_dtype(dtype: Any) -> None:
    def f(x: Any) -> Any:
        return x.item(), int(x), float(x), bool(x), int(x) * 3 - 1

    check(f, [kiln.tensor(v, dtype=dtype) for v in (1, 0, 1)])


def test_an_item_is_what_the_tensor_held_then() -> None:
    def f(x: Any) -> Any:
        v, row = x[0].item(), x.tolist()
        x += 1
        x[0] = 9
        return v, row, x[0].item()

    check(f, [kiln.tensor([1.0, 2.0]), kiln.tensor([3.0, 4.0])])


def test_lists_of_numbers() -> None:
    def f(x: Any) -> Any:
        rows = x.tolist()
        return rows, sum(rows[0]), max(rows[1]), [a - b for a, b in zip(*rows, strict=True)], x.sum(0).tolist()[0]

    check(f, [kiln.tensor([[1.0, 2.5], [0.5, k]]) for k in (3.0, -1.0, 8.0)])
    check(lambda x: (x.tolist(), x[0].tolist()), [kiln.tensor([k, 5]) for k in (3, 0)])


def test_no_gradient_flows_through_a_number() -> None:
    def f(x: Any) -> Any:
        return (x * x.sum().item()).sum()

    for door in DOORS:
        compiled = door(f)
        for k in (1.0, 2.0, 3.0):
            x, y = (kiln.tensor([k, 2.0], requires_grad=True) for _ in range(2))
            f(x).backward()
            compiled(y).backward()
            assert bits(x.grad) == bits(y.grad)
        assert compiled.report().captured == 1


def test_more_elements_than_one_raise_as_always() -> None:
    check(lambda x: x.item(), [kiln.ones(2)], captured=1)
    check(lambda x: float(x), [kiln.ones(2)], captured=1)


# -------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: (a + b, a - b, a * b),
        lambda a, b: (a < b, a <= b, a > b, a >= b, a == b, a != b),
        lambda a, b: (-a, +a, abs(a), abs(b) - a, a + 0.1, 0.1 - a, a / 3.0, 2 * a, a - 1),
        lambda a, b: (max(a, b), min(a, b), max([a, b, 1.0]), min(0.5, a), max(a, a)),
        lambda a, b: (math.isnan(a), math.isinf(a), math.isfinite(a), math.fabs(a), bool(a), not a),
        lambda a, b: (isinstance(a, float), type(a) is float, a is None, a in (0.0, 3.0, None), a not in [b]),
        lambda a, b: (any([a, b]), all([a, b]), a and b, a or b, 0 < a < b, a if a > b else b),
    ],
)
def test_floats(f: Function) -> None:
    def taken(x: Any, y: Any) -> Any:
        return f(x.item(), y.item())

    check(lambda x, y: taken(x, y), pairs([*FLOATS, math.nan], kiln.float64))


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: (a < b, a <= b, a > b, a >= b, a == b, a != b, a == 1.0, a < 0.5, a > 2**70 - 1 > 0),
        lambda a, b: (a + 5, 7 - b, -a, +a, abs(a), ~a, a // 3, a % 3, a // -4, a % -4, a << 2, a >> 1, divmod(a, 5)),
        lambda a, b: (a & b, a | b, a ^ b, a & 255, float(a), a * 0.5, a + 0.5, bool(a), not b, round(a), int(a)),
        lambda a, b: (max(a, b), min(a, b, 2), isinstance(a, int), type(b), a in (0, 3), b not in (1, 2), a is None),
        lambda a, b: (a and b, a or b, a if a > b else b, 0 <= a <= 5, a in range(2, 6)),
    ],
)
def test_integers(f: Function) -> None:
    def taken(x: Any, y: Any) -> Any:
        return f(x.item(), y.item())

    check(lambda x, y: taken(x, y), pairs(INTEGERS[:8], kiln.int64))


def test_products_and_sums_of_integers() -> None:
    def f(x: Any, y: Any) -> Any:
        a, b = x.item(), y.item()
        return a * b, a + b, a - b, a**2, a**3, a / 7, sum([a, b, 1]), (a + 1) * (b - 1)

    check(f, pairs(INTEGERS[:6], kiln.int64))


def test_integers_beyond_those_of_a_program_are_pythons() -> None:
    def f(x: Any, y: Any) -> Any:
        return x.item() * y.item(), x.item() + 1

    small, large = kiln.tensor(3), kiln.tensor(2**62)
    compiled = kiln.compile(f)
    for a, b in ((small, small), (large, small), (large, large), (small, small)):
        assert outcome(compiled, (a, b)) == outcome(f, (a, b))
    compiled = kiln.compile(f)
    for a, b in ((large, large), (small, small), (large, small)):
        assert outcome(compiled, (a, b)) == outcome(f, (a, b))


def test_bools() -> None:
    def f(x: Any, y: Any) -> Any:
        a, b = x.item(), y.item()
        return a & b, a | b, a ^ b, a + b, a * 2, a < b, a == b, not a, a and b, a or b, sum([a, b]), a is True, -a

    calls = [(kiln.tensor(a), kiln.tensor(b)) for a in (True, False) for b in (True, False)]
    compiled = kiln.compile(f)
    for args in calls * 2:
        assert outcome(compiled, args) == outcome(f, args)


@pytest.mark.parametrize("values", [[3.7, -3.7, 2.5, 3.5, -0.5, 1e15, 0.0], [1e15, 0.4]])
def test_rounding(values: list[float]) -> None:
    def f(x: Any) -> Any:
        v = x.item()
        return int(v), round(v), math.floor(v), math.ceil(v), math.trunc(v), int(v) + 1

    check(f, [kiln.tensor(v, dtype=kiln.float64) for v in values])


@pytest.mark.parametrize("f", [int, round, math.floor, math.ceil])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_integer_raises_pythons_error(f: Function, value: float) -> None:
    def run(x: Any) -> Any:
        return f(x.item())

    for door in DOORS:
        compiled = door(run)
        for v in (value, 1.5, value, 2.5):
            x = kiln.tensor(v)
            assert outcome(compiled, (x,)) == outcome(run, (x,))


@pytest.mark.parametrize(
    "f",
    [lambda a, b: a / b, lambda a, b: 1 / b, lambda a, b: a // b, lambda a, b: a % b, lambda a, b: divmod(a, b)],
)
def test_division_by_zero_raises_pythons_error(f: Function) -> None:
    def run(x: Any, y: Any) -> Any:
        return f(x.item(), y.item())

    for dtype in (kiln.int64, kiln.float64):
        if dtype is kiln.float64 and f(5.5, 2.0) != 5.5 / 2.0 and f(5.5, 2.0) != 0.5:
            continue
        calls = [(kiln.tensor(a, dtype=dtype), kiln.tensor(b, dtype=dtype)) for a, b in ((7, 2), (5, 0), (-9, 4))]
        for door in DOORS:
            compiled = door(run)
            for args in calls:
                assert outcome(compiled, args) == outcome(run, args)
            report = compiled.report()
            assert (report.captured, report.eager) == (1, 1), str(report)


def test_square_roots() -> None:
    def f(x: Any) -> Any:
        return math.sqrt(x.item())

    check(f, [kiln.tensor(v, dtype=kiln.float64) for v in (2.0, 0.1, 0.0, -0.0, 1e300, math.inf, math.nan)])
    check(f, [kiln.tensor(v) for v in (4.0, -1.0, 9.0)], eager=1)


def test_what_c_computes_is_asked_for() -> None:
    def f(x: Any) -> Any:
        return math.exp(x.item()), f"{x.item():.2f}", {x.item(): 1}, x.item() ** 0.5

    compiled = kiln.compile(f)
    for v in (1.0, 2.0, 1.0, 0.5):
        x = kiln.tensor(v)
        assert outcome(compiled, (x,)) == outcome(f, (x,))
    with pytest.raises(CaptureError, match="asks for tensor data"):
        kiln.jit.script(f)(kiln.tensor(1.0))


# ----------------------------------------------------------------------------------- control flow


def test_tests_of_numbers_are_staged() -> None:
    def f(x: Any) -> Any:
        value = x.abs().max().item()
        if value > 2.0:
            x, count = x / value, 1
        elif 0.5 < value <= 2.0:
            count = 2
            x = x * 1.0
        else:
            count = 3
            x = x + 1
        return x, count, value

    for door in DOORS:
        compiled = door(f)
        for v in (1.0, 5.0, 0.1, 3.0):
            x = kiln.tensor([v, -v])
            assert outcome(compiled, (x,)) == outcome(f, (x,))
        assert (compiled.report().captured, compiled.report().staged) == (1, 3)


def test_loops_over_numbers_are_staged() -> None:
    def f(x: Any, n: Any) -> Any:
        total, turns = 0.0, 0
        for k in range(n.item()):
            total = total + x[k].item() * k
            turns += 1
        while total > 10.0:
            total = total / 2
            turns = turns + 1
        return total, turns

    for door in DOORS:
        compiled = door(f)
        for n in (3, 0, 4, 1):
            args = kiln.tensor([4.0, 7.0, 9.0, 1.0]), kiln.tensor(n)
            assert outcome(compiled, args) == outcome(f, args)
        assert (compiled.report().captured, compiled.report().staged) == (1, 3)


def test_numbers_in_a_loop_are_checked_at_every_turn() -> None:
    def f(x: Any) -> Any:
        product, k = 1, 0
        while k < len(x):
            product = product * x[k].item()
            k += int(x[0] > 0)
        return product

    compiled = kiln.compile(f)
    for row in ([3, 5, 7], [2, 2, 2], [2**40, 2**40, 5], [1, 1, 1]):
        x = kiln.tensor(row)
        assert outcome(compiled, (x,)) == outcome(f, (x,))


# ------------------------------------------------------------------------------------- containers


def test_numbers_in_lists_that_the_call_made() -> None:
    class Pair(NamedTuple):
        left: Any
        right: Any

    def f(x: Any) -> Any:
        out: list[Any] = []
        for k in range(3):
            out.append(x[k].item())
            out.extend([k, x.sum().item()])
        out[0] = out[0] + 1
        table = {"a": out[1], "b": x[0].item()}
        return out, table, Pair(x[1].item(), out[-1]), list(enumerate(out)), out[::2]

    check(f, [kiln.tensor([k, 2.0, 5.0]) for k in (1.0, 4.0)])


def test_lists_from_outside_hold_pythons_numbers() -> None:
    history: list[Any] = []

    def f(x: Any) -> Any:
        history.append(x.sum().item())
        history.extend([x[0].item()])
        return x * 2

    compiled = kiln.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in (1.0, 2.0):
            compiled(kiln.tensor([k, 1.0]))
    assert list(map(type, history)) == [float] * 4
    assert history == [2.0, 1.0, 3.0, 2.0]


def test_attributes_hold_pythons_numbers() -> None:
    class Meter:
        value = 0.0

    def f(x: Any) -> Any:
        meter = Meter()
        meter.value = x.sum().item()
        return x * meter.value

    compiled = kiln.compile(f)
    for k in (1.0, 2.0, 1.0):
        x = kiln.tensor([k, 1.0])
        assert bits(compiled(x)) == bits(f(x))


def test_a_list_that_is_handed_on_stays_the_list_it_is() -> None:
    import heapq

    def f(x: Any) -> Any:
        heap = [x[0].item(), 9.0]
        heapq.heappush(heap, 2.0)
        return heap

    compiled = kiln.compile(f)
    for k in (1.0, 5.0):
        x = kiln.tensor([k])
        assert bits(compiled(x)) == bits(f(x))


# --------------------------------------------------------------------------------- beside tensors


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64, kiln.int64, kiln.float16, kiln.bfloat16])
@pytest.mark.parametrize("source", [kiln.float64, kiln.int64])
def test_scalars_beside_tensors(dtype: Any, source: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        n = y.item()
        out = [x + n, n - x, x * n, x / 3 * n, x < n, n >= x, x == n]
        out += [x.add(n), kiln.mul(x, n), x.sub(x, alpha=2), kiln.maximum(x, x * n)]
        return out

    x = kiln.tensor([1, 2, -3], dtype=dtype)
    calls = [(x, kiln.tensor(v, dtype=source)) for v in ((0.1, -3.7, 1e-3) if source is kiln.float64 else (3, -1, 0))]
    compiled = kiln.compile(f)
    for args in calls * 2:
        assert outcome(compiled, args) == outcome(f, args)


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64])
def test_scalars_as_arguments(dtype: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        n = y.item()
        z = x.clone()
        z += n
        z *= n
        z[0] = n
        w = kiln.zeros_like(x).fill_(n)
        return z, w, x.clamp(min=n), x.clamp(-1, n), x.add(x, alpha=n), x / n, x // n, x % n, n / x

    x = kiln.tensor([1.0, 0.3, -3.0], dtype=dtype)
    check(f, [(x, kiln.tensor(v, dtype=kiln.float64)) for v in (0.1, -3.7, 1e-3, 1 / 3)])


def test_gradients_pass_tensors_beside_numbers() -> None:
    def f(x: Any, y: Any) -> Any:
        n = y.item()
        return ((x * n).clamp(min=n) / (x + n) + n / x).sum()

    compiled = kiln.compile(f, fullgraph=True)
    for k in (0.1, 2.0, -3.3):
        y = kiln.tensor(k, dtype=kiln.float64)
        a, b = (kiln.tensor([1.0, 2.0, -0.7], requires_grad=True) for _ in range(2))
        f(a, y).backward()
        compiled(b, y).backward()
        assert bits(a.grad) == bits(b.grad)
    assert compiled.report().captured == 1


# ---------------------------------------------------------------------------------------- indices

TABLE = kiln.arange(12.0).reshape(3, 4)


def places(*numbers: int) -> list[Any]:
    return [(TABLE, kiln.tensor(n)) for n in numbers]


def test_reading_at_a_number() -> None:
    def f(x: Any, t: Any) -> Any:
        n = t.item()
        return x[n] * 2, x[n, 1] + 1, x[..., n].sum(), x[[n, 0]], x[n][n].item(), x[n - 1, None] * 1, x[1:, n] + 0

    check(f, places(1, 2, 0, -1, -2))


@pytest.mark.parametrize("first", [1, 5])
def test_a_place_out_of_range_raises_the_same(first: int) -> None:
    def f(x: Any, t: Any) -> Any:
        return x[int(t)] * 2

    for door in DOORS:
        compiled = door(f)
        for args in places(first, 5, 1, -4, 2):
            assert outcome(compiled, args) == outcome(f, args)


def test_writing_at_a_number() -> None:
    def f(x: Any, t: Any, v: Any) -> Any:
        n = int(t)
        x[n] = 7.0
        x[n, 0] = v.item()
        x[[n, 0]] = x[[0, n]]
        x[..., n] = x.sum(1)
        return x * 1

    check(f, [(TABLE, kiln.tensor(n), kiln.tensor(0.1 * n)) for n in (1, 2, -1, 0)])


def test_changing_what_is_at_a_number() -> None:
    def f(x: Any, t: Any, v: Any) -> Any:
        n, counts = int(t), [0, 0, 0]
        x[n] += 1
        x[n, 1] *= v.item()
        x[..., n] -= x.sum(1)
        counts[n] += 1
        return x * 1

    compiled = kiln.compile(f)
    for n in (1, 2, 0, 1):
        args = TABLE, kiln.tensor(n), kiln.tensor(0.1 * n)
        assert outcome(compiled, args) == outcome(f, args)

    def g(x: Any, t: Any) -> Any:
        x[t.item()] += 1
        return x[t.item()] * 2

    check(g, places(1, 2, 0, -1))


def test_writing_out_of_range_raises_the_same() -> None:
    def f(x: Any, t: Any) -> Any:
        x[0, 0] = 5.0
        x[int(t)] = 1.0
        return x + 1

    check(f, places(1, 3, 2), eager=1)


def test_windows_of_a_length_that_data_does_not_decide() -> None:
    def f(x: Any, s: Any, t: Any) -> Any:
        top, left = int(s), int(t)
        return x[top : top + 2, left : left + 2] * 1, x[top - 1 : top + 1].sum(0), x[..., left : left + 3] + 1

    calls = [(TABLE, kiln.tensor(a), kiln.tensor(b)) for a, b in ((1, 0), (1, 1), (1, 0))]
    check(f, calls)
    beyond = [(TABLE, kiln.tensor(a), kiln.tensor(b)) for a, b in ((2, 0), (0, 1), (1, 3), (-1, -2))]
    compiled = kiln.compile(f)
    for args in [*calls, *beyond]:
        assert outcome(compiled, args) == outcome(f, args)


def test_a_length_that_data_decides_is_asked_for() -> None:
    def f(x: Any, t: Any) -> Any:
        n = int(t)
        return x[:n].sum(0), x[n:].sum(0)

    compiled = kiln.compile(f)
    for args in places(1, 2, 1, 0, -1):
        assert outcome(compiled, args) == outcome(f, args)
    assert "a slice" in str(compiled._entries) or compiled.report().captured == 4


def test_one_of_many_numbers_is_asked_for_as_a_size() -> None:
    def f(x: Any, t: Any) -> Any:
        return [row[:n].sum() for row, n in zip(x, t.tolist(), strict=True)], t.tolist()

    for door in DOORS:
        compiled = door(f)
        for sizes in ([1, 3, 2], [2, 2, 1], [1, 3, 2]):
            args = TABLE, kiln.tensor(sizes)
            assert outcome(compiled, args) == outcome(f, args)
        assert compiled.report().captured == 2


def test_a_view_that_is_returned_or_written_is_a_view() -> None:
    def returned(x: Any, t: Any) -> Any:
        return x[t.item()]

    def written(x: Any, t: Any) -> Any:
        row = x[t.item()]
        row += 1
        return x * 2

    def seen(x: Any, t: Any) -> Any:
        row = x[t.item()]
        x[0] = 5
        return row * 1

    for f in (returned, written, seen):
        compiled = kiln.compile(f)
        for n in (1, 0, 1, 2):
            a, b = TABLE.clone(), TABLE.clone()
            one, other = f(a, kiln.tensor(n)), compiled(b, kiln.tensor(n))
            one += 1
            other += 1
            assert (bits(one), bits(a)) == (bits(other), bits(b))
