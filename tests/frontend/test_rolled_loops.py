"""Loops of known length are one turn in the program, and give eager's bits, names and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import kiln
from kiln.staging_rolls import LEAST

N = LEAST + 4


def seen(result: Any) -> tuple[Any, list[tuple[int, int]]]:
    """All that a result shows: bits, layouts, which tensors are one, and which share memory."""
    found: list[Any] = []

    def shown(x: Any) -> Any:
        if isinstance(x, kiln.Tensor):
            found.append(x)
            return str(x.dtype), tuple(x.shape), x.stride(), x.storage_offset(), x.requires_grad, x.numpy().tobytes()
        if isinstance(x, (tuple, list)):
            return type(x), [shown(v) for v in x]
        if isinstance(x, dict):
            return {k: shown(v) for k, v in x.items()}
        return type(x), repr(x)

    what = shown(result)
    names: dict[int, int] = {}
    places: dict[int, int] = {}
    return what, [
        (names.setdefault(id(t), len(names)), places.setdefault(t.untyped_storage().data_ptr(), len(places)))
        for t in found
    ]


def as_eager(f: Callable[..., Any], make: Callable[[], tuple[Any, ...]], calls: int = 3) -> Any:
    """Compiled, `f` does what it does eagerly, to its arguments too."""
    compiled = kiln.compile(f, fullgraph=True)
    args = make()
    wanted = seen((f(*args), args))
    for _ in range(calls):
        args = make()
        assert seen((compiled(*args), args)) == wanted
    return compiled


def operations(compiled: Any) -> int:
    return sum(len(region.graph.operations) for region in compiled.regions())


def rolled(f: Callable[..., Any], make: Callable[[], tuple[Any, ...]], most: int = 12) -> None:
    compiled = as_eager(f, make)
    assert compiled.report().staged == 2, str(compiled.report())
    assert operations(compiled) <= most


def x3() -> tuple[Any, ...]:
    return (kiln.arange(3).float() + 0.5,)


def table(rows: int = N) -> Any:
    return kiln.arange(rows * 3).float().reshape(rows, 3) * 0.01


# -------------------------------------------------------------------------------- any number of turns


def power_iteration(a: Any, v: Any, n: int) -> Any:
    for _ in range(n):
        v = a @ v
        v = v / v.norm()
    return v


def euler(xs: Any, x: Any, n: int) -> Any:
    t = 0.0
    for k in range(n):
        x = x + 0.01 * (x.sin() + k)
        t += 0.01
    return x, t


def rnn(xs: Any, w: Any, u: Any) -> Any:
    h = kiln.zeros(u.shape[0])
    for x in xs:
        h = kiln.tanh(x @ w + h @ u)
    return h


def cumulative(xs: Any) -> Any:
    total, out = 0, []
    for k, x in enumerate(xs):
        total = total + x * k
        out.append(total)
    return kiln.stack(out), total


def lstm(xs: Any, w: Any, u: Any) -> Any:
    h, c, out = kiln.zeros(3), kiln.zeros(3), []
    for t in range(xs.shape[0]):
        i, f, g, o = (xs[t] @ w + h @ u).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return kiln.stack(out, 1), (h, c)


def grid(x: Any, n: int) -> Any:
    for i in range(n):
        for j in range(N):
            x = x * 0.5 + j
        x = x + i
    return x


PROGRAMS: list[tuple[Callable[..., Any], Callable[[int], tuple[Any, ...]]]] = [
    (power_iteration, lambda n: (kiln.rand(4, 4), kiln.rand(4), n)),
    (euler, lambda n: (None, kiln.rand(5), n)),
    (rnn, lambda n: (kiln.rand(n, 3), kiln.randn(3, 3), kiln.randn(3, 3))),
    (cumulative, lambda n: (kiln.rand(n, 2),)),
    (lstm, lambda n: (kiln.rand(n, 2), kiln.randn(2, 12), kiln.randn(3, 12))),
]


@pytest.mark.parametrize(("f", "make"), PROGRAMS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_graph_has_as_many_operations_for_10_000_turns(f: Any, make: Any) -> None:
    sizes = []
    for n in (20, 10_000):
        kiln.manual_seed(0)
        args = make(n)
        compiled = kiln.compile(f, fullgraph=True)
        wanted = seen(compiled(*args))  # this call runs in Python
        assert seen(compiled(*args)) == wanted
        if n == 20:
            assert seen(f(*args)) == wanted
        assert compiled.report().staged == 1
        sizes.append(operations(compiled))
    assert sizes[0] == sizes[1] <= 40


def test_loops_inside_each_other() -> None:
    sizes = []
    for n in (N, 4 * N):
        compiled = as_eager(grid, lambda n=n: (kiln.ones(3), n))  # type: ignore[misc]
        sizes.append(operations(compiled))
    assert sizes[0] == sizes[1] == 2


def test_short_loops_are_unrolled() -> None:
    compiled = as_eager(grid, lambda: (kiln.ones(3), 2))
    assert compiled.report().staged == 2  # the inner one
    compiled = as_eager(power_iteration, lambda: (kiln.ones(2, 2), kiln.ones(2), LEAST - 1))
    assert compiled.report().staged == 0


# --------------------------------------------------------------------------------------- what is read


def test_what_is_looped_over() -> None:
    def zips(x: Any, xs: Any) -> Any:
        for i, (a, b) in zip(range(100, 0, -2), zip(xs, xs * 2, strict=False), strict=False):
            x = x + a * b * i
        return x

    def starts(x: Any, xs: Any) -> Any:
        for k, row in enumerate(xs, 5):
            x = x + row * k
        for k in range(N, -N, -2):
            x = x * 0.5 + k
        return x, k

    def numbers(x: Any, xs: Any) -> Any:
        for v in xs[:, 0]:
            x = x + v
        for row in xs.t().contiguous().t():
            x = x * row
        for row in kiln.ones(1, 3).expand(N, 3):
            x = x + row
        return x

    def items(x: Any, xs: Any) -> Any:
        for k in range(len(xs)):
            x = x + xs[k] * xs[len(xs) - 1 - k] + xs[k - 3]
        return x

    for f in (zips, starts, numbers, items):
        rolled(f, lambda: (*x3(), table()), 24)


def test_what_a_loop_leaves_in_its_variables() -> None:
    def f(x: Any, xs: Any) -> Any:
        for k, row in enumerate(xs):  # noqa: B007
            y, same = x * row, row
        return y, k, row, same is row, row * 1

    rolled(f, lambda: (*x3(), table()), 16)


def test_a_first_turn_of_another_kind() -> None:
    def f(x: Any, xs: Any) -> Any:
        h, total, v = None, 0, 0
        for row in xs:
            h = row * 0.5 if h is None else h * 0.9 + row
            total = total + h
            v = 0.9 * v + total
            x = x - 0.1 * v
        return h, total, x

    rolled(f, lambda: (*x3(), table()), 24)


def test_data_may_end_a_loop() -> None:
    def f(x: Any, limit: float) -> Any:
        for k in range(1000):
            x = x * 1.05 + k
            if x.sum() > limit:
                break
        else:
            x = -x
        return x, k

    compiled = kiln.compile(f, fullgraph=True)
    for limit in (10.0, 500.0, 1e30):
        for scale in (1.0, 3.0):
            x = kiln.ones(3) * scale
            assert seen(compiled(x, limit)) == seen(f(x, limit))
    assert compiled.report().staged == 3
    assert operations(compiled) < 40


def test_random_numbers_in_a_loop() -> None:
    def f(x: Any) -> Any:
        kiln.manual_seed(3)
        for _ in range(N):
            x = x + kiln.rand(3)
        return x, kiln.rand(2)

    rolled(f, x3)


# ------------------------------------------------------------------------------------------- lists


def test_lists_that_grow() -> None:
    def pairs(x: Any) -> Any:
        out, h, c = [], x, x * 2
        for _ in range(N):
            h, c = h * 0.5 + c, c * 0.9
            out.append((h, c))
        hs, cs = zip(*out, strict=True)
        return kiln.stack(hs), kiln.stack(cs, 1), out[3]

    def several(x: Any) -> Any:
        out = [x]
        for _ in range(N):
            x = x * 0.9
            out += [x, x * 2]
            out.extend((x + 1,))
        return kiln.cat(out), kiln.stack(out[1:]), kiln.stack(out, -1), len(out), out[-1]

    def parts(x: Any) -> Any:
        out = []
        for _ in range(N):
            x = x * 0.9
            out.append(x)
        ends = kiln.stack(out[1:]) - kiln.stack(out[:-1])
        return ends, kiln.stack(out[::-1]), kiln.cat(out[2:5]), kiln.stack(out), kiln.stack(out)

    def again(x: Any) -> Any:
        out = []
        for _ in range(N):
            x = x * 0.9
            out.append(x)
        for row in kiln.stack(out):
            x = x + row
        for _ in range(N):
            x = x * 0.9
            out.append(x)
        return kiln.stack(out), x

    for f in (pairs, several, parts, again):
        as_eager(f, x3)
    rolled(pairs, x3, 16)
    rolled(several, x3, 60)
    rolled(again, x3)


def test_the_tensors_of_a_list_are_eagers() -> None:
    def kept(x: Any) -> Any:
        out, late = [], []
        for _ in range(N):
            out.append(x)
            x = x * 0.7
            late.append(x)
        return out, late, x, out[1] is late[0], out[0]

    def written(x: Any) -> Any:
        out, y = [], x * 1
        for _ in range(N):
            z = y * 0.7
            out.append(z)
            z += 1
            old, y = y, z * 0.5
        y += 1
        out[3] *= 5
        old += 1
        return kiln.stack(out), out[-1], out[3], old, y

    for f in (kept, written):
        assert as_eager(f, x3).report().staged == 2


def test_lists_made_in_a_turn() -> None:
    def f(x: Any) -> Any:
        out = []
        for _ in range(N):
            inner = []
            for _ in range(N):
                x = x * 0.99
                inner.append(x)
            out.append(kiln.stack(inner).sum(0))
        return kiln.stack(out), x

    rolled(f, x3)


def test_what_is_read_of_a_list_that_grows_is_not_staged() -> None:
    def last(x: Any) -> Any:
        out = [x]
        for _ in range(N):
            out.append(out[-1] * 0.5 + 1)
        return out[-1], len(out)

    def length(x: Any) -> Any:
        out: list[Any] = []
        other = out
        for _ in range(N):
            x = x * 0.5 + len(other)
            out.append(x)
        return kiln.stack(other)

    def hidden(x: Any) -> Any:
        out = [x]
        box = {"out": out}
        for _ in range(N):
            x = x * 0.5 + box["out"][-1]
            out.append(x)
        return kiln.stack(out)

    def truth(x: Any) -> Any:
        out: list[Any] = []
        for k in range(N):
            if out:
                x = x + 1
            out.append(x * k)
        return kiln.stack(out)

    def through_a_function(x: Any) -> Any:
        out: list[Any] = []

        def push(h: Any) -> None:
            out.append(h)

        for _ in range(N):
            x = x * 0.9 + len(out)
            push(x)
        return kiln.stack(out)

    for f in (last, length, hidden, truth, through_a_function):
        assert as_eager(f, x3).report().staged == 0


# ------------------------------------------------------------------------------------ names and memory


def test_names_that_move_between_variables() -> None:
    def fibonacci(x: Any) -> Any:
        a, b = x, x * 2
        for _ in range(N):
            a, b = b, a * 0.5 + b
        a += 1
        return a, b

    def turning(x: Any) -> Any:
        a, b, c = x * 1, x * 2, x * 3
        first = c
        for _ in range(N):
            a, b, c = b, c, a * 0.5
        return a is first, a, b, c

    def fresh(x: Any) -> Any:
        state = [x, x * 2]
        for _ in range(N):
            state = [state[1], state[0] + state[1] * 0.1]
        return state

    for f in (fibonacci, turning, fresh):
        rolled(f, x3)


def test_names_that_data_or_parity_decide_are_not_staged() -> None:
    def swap(x: Any) -> Any:
        a, b = x * 1, x * 2
        first = a
        for _ in range(N + 1):
            a, b = b, a
        a += 1
        return first * 1, b * 1, a is first

    def doubled(x: Any) -> Any:
        a, b, c = x * 1, x * 2, x * 3
        for _ in range(N):
            a, b, c = c, c, a * 0.5 + b
        a += 1
        return a is b, a, b, c

    def view(x: Any) -> Any:
        a, b = x * 1, x[:1]
        for _ in range(N):
            a = a * 0.5
            b = a[:1]
        a += 1
        return a, b * 1

    for f in (swap, doubled, view):
        assert as_eager(f, x3, 4).report().staged == 0


def left_to_python(fs: Sequence[Callable[..., Any]]) -> None:
    for f in fs:
        assert as_eager(f, x3).report().staged == 0
        scripted = kiln.jit.script(f)
        assert seen(scripted(*x3())) == seen(f(*x3()))


def test_what_cannot_be_staged_is_unrolled_in_script_too() -> None:
    def drift(x: Any) -> Any:
        for _ in range(N):
            x = kiln.cat([x, x[:1]])
        return x

    def rows_written(x: Any) -> Any:
        xs = table()
        for row in xs:
            row += x
        return xs

    def rows_kept(x: Any) -> Any:
        xs, out = table(), []
        for row in xs:
            out.append(row)
        xs += 1
        return kiln.stack(out)

    def written_before(x: Any) -> Any:
        y, out = x * 1, []
        for _ in range(N):
            y += 1
            out.append(y)
            y = y * 0.5
        return kiln.stack(out)

    def strings(x: Any) -> Any:
        s = ""
        for _ in range(N):
            s, x = s + "a", x + 1
        return x, s

    def attributes(x: Any) -> Any:
        class Box:
            value = x

        for _ in range(N):
            Box.value = Box.value * 0.9
        return Box.value

    left_to_python([drift, rows_written, rows_kept, written_before, strings, attributes])


def test_gradients_flow_through_unrolled_loops() -> None:
    w = kiln.tensor([0.5, -1.5, 0.9], requires_grad=True)

    def f(x: Any) -> Any:
        for k in range(N):
            x = x * w + k
        return x.sum()

    compiled, grads = kiln.compile(f, fullgraph=True), []
    for g in (f, compiled, compiled):
        w.grad = None
        g(*x3()).backward()
        grads.append(seen(w.grad))
    assert grads[0] == grads[1] == grads[2]

    def without(x: Any) -> Any:
        with kiln.no_grad():
            for _ in range(N):
                x = x * w
        return x

    rolled(without, x3)


def test_errors_in_a_loop_are_eagers() -> None:
    def f(x: Any, xs: Any) -> Any:
        for k in range(N + 4):
            x = x + xs[k]
        return x

    def unbound(x: Any, xs: Any) -> Any:
        for k in range(N):
            if k > 5:
                y = x * 2
            x = x + y
        return x

    compiled = kiln.compile(f)
    for _ in range(2):
        with pytest.raises(IndexError):
            compiled(*x3(), table())
    assert seen(compiled(*x3(), table(N + 4))) == seen(f(*x3(), table(N + 4)))
    with pytest.raises(UnboundLocalError, match="'y'"):
        kiln.compile(unbound)(*x3(), table())


def test_iterators_that_were_begun() -> None:
    def f(x: Any, xs: Any) -> Any:
        pairs = zip(xs, xs, strict=False)
        first, _ = next(pairs)
        for a, b in pairs:
            x = x + a * b
        left = list(zip(xs, xs, strict=True))
        return x, first * 1, left[3][0] * left[4][1], [a * 1 for _, a in enumerate(xs)], list(pairs)

    as_eager(f, lambda: (*x3(), table()))
