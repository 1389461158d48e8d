"""Donated arguments of compiled functions: whose memory results take over, what is spent, and what is refused."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import kiln
from kiln.errors import ArgumentError, CaptureWarning, KilnIndexError, NanError, SpentError
from kiln.runtime.memory import Buffer


def numbers(n: int = 100, seed: int = 0) -> Any:
    return kiln.tensor(np.random.default_rng(seed).standard_normal(n), dtype=kiln.float32)


def bits(x: Any) -> bytes:
    found: bytes = x.detach().numpy().tobytes()
    return found


def is_spent(t: Any) -> bool:
    try:
        t.shape  # noqa: B018
    except SpentError:
        return True
    return False


# ------------------------------------------------------------------------------------------------- reuse


def test_results_lie_where_donated_arguments_lay() -> None:
    @kiln.compile(donate="p")
    def step(p: Any, g: Any) -> Any:
        return p - 0.1 * g

    g = numbers(seed=1)
    p = step(numbers(), g)
    want = (numbers() - 0.1 * g).detach()
    assert bits(p) == bits(want)
    for _ in range(5):
        at, old = p.data_ptr(), p
        p, want = step(p, g), want - 0.1 * g
        assert p.data_ptr() == at
        assert bits(p) == bits(want)
        assert is_spent(old)
    tally = step.report()
    assert (tally.captured, tally.compiled, tally.eager, tally.reused) == (1, 5, 0, 5)
    assert "5 results on the memory of donated arguments" in str(tally)


def test_what_is_not_donated_stays() -> None:
    step = kiln.compile(lambda p, g: p - g, donate="p")
    g, before = numbers(seed=1), bits(numbers(seed=1))
    for _ in range(3):
        step(numbers(), g)
        assert bits(g) == before


def test_an_optimisers_step_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    make = Buffer.__init__

    def counting(self: Buffer, ptr: int, nbytes: int, owner: object, size: int) -> None:
        taken.append(nbytes)
        make(self, ptr, nbytes, owner, size)

    def adam(state: dict[str, Any], grads: dict[str, Any]) -> dict[str, Any]:
        m = {k: 0.9 * x + 0.1 * grads[k] for k, x in state["m"].items()}
        v = {k: 0.99 * x + 0.01 * grads[k] * grads[k] for k, x in state["v"].items()}
        return {"m": m, "v": v, "p": {k: x - 0.1 * m[k] / (v[k].sqrt() + 1e-8) for k, x in state["p"].items()}}

    def start() -> dict[str, Any]:
        return {part: {k: numbers(n, n).abs() for k, n in (("a", 64), ("b", 1000))} for part in "mvp"}

    grads = {"a": numbers(64, 7), "b": numbers(1000, 8)}
    counts = {}
    for donate in ((), ("state",)):
        step = kiln.compile(adam, donate=donate)
        state, plain = start(), start()
        for _ in range(4):
            state, plain = step(state, grads), adam(plain, grads)
        with monkeypatch.context() as patched:
            patched.setattr(Buffer, "__init__", counting)
            taken.clear()
            state = step(state, grads)
            counts[donate] = len(taken)
        plain = adam(plain, grads)
        for part in "mvp":
            assert all(bits(state[part][k]) == bits(plain[part][k]) for k in "ab")
        assert (step.report().compiled, step.report().reused) == (4, 4 * 6 if donate else 0)
    assert counts == {(): 6, ("state",): 0}


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "both at once": lambda a, b: (a + b, a * b),
    "crossed": lambda a, b: (b + 1, a + 1),
    "softmax": lambda a, b: (a.softmax(-1), b.softmax(0)),
    "matrix product": lambda a, b: (a @ b, a + 1, b - 1),
    "read after": lambda a, b: (a + 1, b.sum(0) + a.sum(1), (a * b).cumsum(0)),
    "transposed": lambda a, b: (a.T + b, b.T * 2),
    "itself": lambda a, b: (a, b + a),
    "views": lambda a, b: (a.view(-1), b[1:] * 2, b),
    "statistics": lambda a, b: ((a - a.mean()) / a.std(), b / b.sum(1, keepdim=True)),
    "sorted": lambda a, b: (a.sort(0)[0], b.argsort(1), b * 2),
    "rolled": lambda a, b: (a.roll(1, 0) + a, b.roll(1, 1)),
    "written": lambda a, b: (a.add_(1), b * a),
    "written and read": lambda a, b: (a.add_(1) * 2, b * 3),
    "gathered": lambda a, b: (a.gather(0, b.argsort(0)), b + 1),
    "a constant": lambda a, b: (kiln.ones(33, 33) * 2, a.sum()),
    "running sums": lambda a, b: (a.cumsum(0), b - b.cumsum(1)),
    "a loop": lambda a, b: (
        kiln.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2 + b), (kiln.tensor(0), a))[1],
        b + 1,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64])
def test_bits_are_eagers(name: str, dtype: Any) -> None:
    def given(seed: int) -> list[Any]:
        return [numbers(33 * 33, seed + k).reshape(33, 33).to(dtype).clone() for k in (0, 50)]

    f = FUNCTIONS[name]
    compiled = kiln.compile(f, donate=(0, 1))
    for seed in range(4):
        want, found = f(*given(seed)), compiled(*given(seed))
        assert [bits(x) for x in want] == [bits(x) for x in found]
    assert compiled.report().eager == 0
    assert compiled.report().compiled == 3


def test_sizes_share_code() -> None:
    @kiln.compile(donate="p", dynamic=True)
    def step(p: Any, g: Any) -> Any:
        return p - 0.1 * g

    for n in (10, 20, 30, 20, 40, 30):
        p = numbers(n).clone()
        at, want = p.data_ptr(), bits(numbers(n) - 0.1 * numbers(n, 1))
        before = step.report().reused
        found = step(p, numbers(n, 1))
        assert bits(found) == want
        assert step.report().reused == before or found.data_ptr() == at
    assert step.report().generated == 1
    assert step.report().reused >= 2


def test_a_part_of_larger_memory_is_spent_but_not_reused() -> None:
    step = kiln.compile(lambda p: p + 1, donate="p")
    for _ in range(3):
        with kiln.no_grad():
            part = numbers(100).clone()[10:20]
        assert bits(step(part)) == bits(numbers(100)[10:20] + 1)
        assert is_spent(part)


def test_a_result_that_is_a_view_can_be_donated_again() -> None:
    step = kiln.compile(lambda p: (p * 2).reshape(10, 10).T, donate="p")
    p = numbers().reshape(10, 10).clone()
    want = p.clone()
    for _ in range(4):
        p, want = step(p), (want * 2).T
        assert bits(p.contiguous()) == bits(want.contiguous())


def test_memory_of_arrays_that_nobody_has_is_taken() -> None:
    step = kiln.compile(lambda p: p + 1, donate="p")
    p = kiln.from_numpy(np.zeros(3))
    for k in range(3):
        p = step(p)
        assert p.tolist() == [k + 1.0] * 3


def test_decisions() -> None:
    @kiln.compile(donate="p")
    def step(p: Any) -> Any:
        n = p.sum().item()
        return p + 1 if str(n).startswith("3") else p * 2

    for n in (3.0, 4.0, 3.0, 4.0, 3.0):
        p = kiln.tensor([n, 0.0])
        assert step(p).tolist() == ([n + 1, 1.0] if n == 3 else [n * 2, 0.0])
        assert is_spent(p)


def test_staged_branches_and_loops() -> None:
    @kiln.compile(donate="p")
    def step(p: Any) -> Any:
        n = 0
        while p.sum() < 10:
            p = p + 1
            n = n + 1
        return p * 2 if p[0] > 3 else p - 1

    def plain(p: Any) -> Any:
        while p.sum() < 10:
            p = p + 1
        return p * 2 if p[0] > 3 else p - 1

    for k in range(6):
        p = kiln.tensor([float(k), 1.0])
        want = bits(plain(p.clone()))
        assert bits(step(p)) == want
        assert is_spent(p)


# ------------------------------------------------------------------------------------------------- spent

USES: dict[str, Callable[[Any, Any], Any]] = {
    "x + 1": lambda x, y: x + 1,
    "1 + x": lambda x, y: 1 + x,
    "y + x": lambda x, y: y + x,
    "kiln.stack": lambda x, y: kiln.stack([y, x]),
    "kiln.where": lambda x, y: kiln.where(y > 0, y, x),
    "item": lambda x, y: x.item(),
    "numpy": lambda x, y: x.numpy(),
    "np.asarray": lambda x, y: np.asarray(x),
    "np.add": lambda x, y: np.add(np.ones(3), x),
    "print": lambda x, y: print(x),
    "repr": lambda x, y: repr(x),
    "format": lambda x, y: f"{x}",
    "tolist": lambda x, y: x.tolist(),
    "shape": lambda x, y: x.shape,
    "len": lambda x, y: len(x),
    "list": lambda x, y: list(x),
    "bool": lambda x, y: bool(x),
    "==": lambda x, y: x == x,
    "index": lambda x, y: x[0],
    "write": lambda x, y: x.add_(1),
    "write an item": lambda x, y: x.__setitem__(0, 1),
    "write from it": lambda x, y: y.copy_(x),
    "requires_grad_": lambda x, y: x.requires_grad_(),
    "grad": lambda x, y: setattr(x, "grad", None),
    "data_ptr": lambda x, y: x.data_ptr(),
    "copy": lambda x, y: copy.copy(x),
    "deepcopy": lambda x, y: copy.deepcopy(x),
    "pickle": lambda x, y: pickle.dumps(x),
    "from_dlpack": lambda x, y: kiln.from_dlpack(x),
    "compiled": lambda x, y: kiln.compile(lambda a: a + 1)(x),
    "vmap": lambda x, y: kiln.vmap(lambda a: a + 1)(x),
    "Parameter": lambda x, y: kiln.nn.Parameter(x),
    "SGD": lambda x, y: kiln.optim.SGD([x], lr=0.1),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("warm", [False, True])
def test_any_use_raises(use: str, warm: bool) -> None:
    step = kiln.compile(lambda p: p + 1, donate="p")
    for _ in range(2 if warm else 1):
        x = numbers(3)
        step(x)
    assert step.report().compiled == int(warm)
    with pytest.raises(SpentError, match=r"p was donated to"):
        USES[use](x, numbers(3))


def test_the_message() -> None:
    @kiln.compile(donate="params")
    def step(params: Any) -> Any:
        return {"layers": [x + 1 for x in params["layers"]]}

    params = {"layers": [numbers(3), numbers(4)]}
    old = params["layers"][1]
    step(params); line = sys._getframe().f_lineno  # fmt: skip # noqa: E702
    with pytest.raises(SpentError) as caught:
        old * 2
    found = re.sub(r"/\S*/", "", str(caught.value))
    assert found == (
        f"params['layers'][1] was donated to step at test_donation.py:{line}: its memory may hold a result now\n"
        f"  at test_donation.py:{line + 2} in test_the_message\n"
        "    old * 2\n"
        "  fix: use what the call returned, or donate a copy (clone())"
    )


def test_it_is_passed_again() -> None:
    step = kiln.compile(lambda p, g: p + g, donate="p")
    p, g = numbers(), numbers(seed=1)
    step(p, g)
    for args in ((p, g), (g, p)):
        with pytest.raises(SpentError, match="p was donated to"):
            step(*args)
    assert not is_spent(g)


def test_eager_calls_spend_too() -> None:
    def noisy(p: Any) -> Any:
        print("now", p.sum().item() * 0)
        open("/dev/null").close()
        return p + 1

    step = kiln.compile(noisy, donate="p")
    with pytest.warns(CaptureWarning):
        for _ in range(3):
            p = numbers(3)
            assert bits(step(p)) == bits(numbers(3) + 1)
            assert is_spent(p)
    assert step.report().eager


def test_a_call_that_raises_gives_back() -> None:
    step = kiln.compile(lambda p, i: (p * 2, p[i]), donate="p")
    step(numbers(5), kiln.tensor([0]))
    for _ in range(2):
        p = numbers(5)
        with pytest.raises(KilnIndexError):
            step(p, kiln.tensor([9]))
        assert bits(p) == bits(numbers(5))
        assert bits(step(p, kiln.tensor([1]))[0]) == bits(numbers(5) * 2)

    def fails(p: Any) -> Any:
        raise ValueError("no")

    p = numbers(5)
    with pytest.raises(ValueError, match="no"):
        kiln.compile(fails, donate="p")(p)
    assert bits(p + 0) == bits(numbers(5))


def test_nan_checks_look_at_what_was_given() -> None:
    step = kiln.compile(lambda p: p.sqrt(), donate="p", check_nan=True)
    for _ in range(3):
        assert bits(step(numbers().abs())) == bits(numbers().abs().sqrt())
    p = -numbers().abs()
    with pytest.raises(NanError):
        step(p)
    assert bits(p) == bits(-numbers().abs())
    assert step.report().reused == 0


# ------------------------------------------------------------------------------------------------- refused


def refused(what: str, *args: Any, function: Any = None, donate: Any = 0) -> None:
    """Neither the capturing call nor a warm one takes the arguments; none of them is spent."""
    step = kiln.compile(function or (lambda p, *rest: p + 1), donate=donate)
    for _ in range(2):
        with pytest.raises(ArgumentError, match=what):
            step(*args)
        step(numbers(3))
    for t in args:
        if isinstance(t, kiln.Tensor):
            assert not is_spent(t)


def test_memory_that_others_have() -> None:
    shares = r"p shares its memory with another tensor, an array, or a gradient"
    p = numbers(3).clone()
    other = p.view(-1)
    refused(shares, p)
    refused(shares, other)
    p = numbers(3).clone()
    other = p.detach()
    refused(shares, p)
    del other
    array = p.numpy()
    refused(shares, p)
    del array
    kiln.compile(lambda p: p + 1, donate="p")(p)
    assert is_spent(p)
    array = np.ones(3)
    refused("p lies in memory of somebody else", kiln.from_numpy(array))
    refused("p lies in memory of somebody else", kiln.from_numpy(array[1:]))
    array.flags.writeable = False
    refused("p lies in memory that is read-only", kiln.from_numpy(array))


def test_gradients() -> None:
    refused("p requires gradients", numbers(3).requires_grad_())
    refused("p requires gradients", numbers(3).requires_grad_() * 2)
    refused("p is a Parameter", kiln.nn.Parameter(numbers(3)))
    w, p = numbers(3).requires_grad_(), numbers(3, 1)
    y = (w * p).sum()  # has saved p
    refused("p shares its memory with", p)
    y.backward()
    assert bits(w.grad) == bits(numbers(3, 1))
    del y
    kiln.compile(lambda p: p + 1, donate="p")(p)
    assert is_spent(p)


def test_gradients_that_go_back_through_the_call() -> None:
    f = kiln.compile(lambda w, p: (w * p, p + 1), donate="p")
    for seed in range(3):
        w, p = numbers(3).requires_grad_(), numbers(3, seed)
        y, more = f(w, p)
        assert is_spent(p)
        assert bits(more) == bits(numbers(3, seed) + 1)
        y.sum().backward()
        assert bits(w.grad) == bits(numbers(3, seed))
    assert f.report().reused == 0


def test_gradients_inside_the_call() -> None:
    def loss(p: Any, x: Any) -> Any:
        return ((x @ p) ** 2).sum()

    def plain(p: Any, x: Any) -> Any:
        return p - 0.01 * kiln.func.grad(loss)(p, x)

    step = kiln.compile(plain, donate="p")
    x = numbers(60).reshape(6, 10)
    p = want = numbers(10, 1)
    p = p.clone()
    for _ in range(4):
        p, want = step(p, x), plain(want, x)
        assert bits(p) == bits(want)
    assert step.report().reused == 3


def test_two_ways_to_one_tensor() -> None:
    t = numbers(3)
    way = "p is donated to .*, and used in another way while that call runs"
    refused(way, t, t)
    refused(way, t, function=lambda p: p + t)
    refused(way, t, [t], function=lambda p, more=(): p + sum(more))
    refused(r"q is the same tensor as p", t, t, donate=(0, 1), function=lambda p, q=1: p + q)
    refused(r"p\[1\] is the same tensor as p\[0\]", [t, t], function=lambda p: p[0] + p[1])


def test_what_can_not_be_donated() -> None:
    refused(r"p\['m'\] is a Linear", {"m": kiln.nn.Linear(2, 2)}, function=lambda p: p)
    step = kiln.compile(lambda p, n: p + n, donate=("p", "n"))
    assert step(numbers(3), 2).shape == (3,)  # numbers have no memory to give


@pytest.mark.parametrize(
    ("donate", "what"),
    [
        ("q", r"donate names 'q', which is no argument\n.*\n.*\n  fix: one of p, rest"),
        (("p", "x"), "donate names 'x'"),
        (2, "donate has 2, which is no argument"),
        (-3, "donate has -3"),
        (1.5, "donate is 1.5"),
        (True, "donate is True"),
        ([None], r"donate is \[None\]"),
    ],
)
def test_wrong_names(donate: Any, what: str) -> None:
    with pytest.raises(ArgumentError, match=what):
        kiln.compile(lambda p, rest: p, donate=donate)


# ------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("donate", ["p", 0, -2, ["p"], (0,), ("p", 0)])
def test_names_and_positions(donate: Any) -> None:
    step = kiln.compile(lambda p, g: p + g, donate=donate)
    for call in (lambda p, g: step(p, g), lambda p, g: step(p=p, g=g), lambda p, g: step(p, g=g)):
        for _ in range(2):
            p, g = numbers(3), numbers(3, 1)
            call(p, g)
            assert is_spent(p)
            assert not is_spent(g)


def test_rest_and_extra_arguments() -> None:
    step = kiln.compile(lambda a, *rest, b, **more: a + b + sum(rest) + sum(more.values()), donate=("rest", "more"))
    a, b, c, d, e = (numbers(3, k) for k in range(5))
    step(a, c, d, b=b, x=e)
    assert [is_spent(t) for t in (a, b, c, d, e)] == [False, False, True, True, True]
    with pytest.raises(SpentError, match=r"rest\[1\] was donated"):
        d + 1


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclass
class State:
    pair: Pair
    steps: int


def test_containers() -> None:
    @kiln.compile(donate="state")
    def step(state: State, unused: Any = None) -> State:
        return State(Pair(state.pair.w * 2, state.pair.b + 1), state.steps)

    state = State(Pair(numbers(3), numbers(4)), 7)
    for _ in range(3):
        before, at = state, state.pair.w if state is None else None
        state = step(state)
        del at
        with pytest.raises(SpentError, match=r"state\.pair\.w was donated"):
            before.pair.w + 1
    assert bits(state.pair.w) == bits(numbers(3) * 8)
    assert state.steps == 7
    assert step.report().reused == 4


def test_containers_that_the_call_changes() -> None:
    @kiln.compile(donate="p")
    def step(p: dict[str, Any]) -> Any:
        p["sum"] = p["x"].sum()
        p["list"].append(p["x"] * 2)
        return p["x"] + 1

    for _ in range(3):
        inner: list[Any] = []
        p = {"x": numbers(3), "list": inner}
        step(p)
        assert p["list"] is inner
        assert bits(inner[0]) == bits(numbers(3) * 2)
        assert bits(p["sum"]) == bits(numbers(3).sum())
        assert is_spent(p["x"])


def test_modules_and_methods() -> None:
    layer = kiln.nn.Linear(4, 4).requires_grad_(False)
    f = kiln.compile(layer, donate="input")
    for _ in range(3):
        x = numbers(8).reshape(2, 4).clone()
        want = bits(layer(x))
        assert bits(f(x)) == want
        assert is_spent(x)

    class Thing:
        @kiln.compile(donate="p")
        def step(self, p: Any) -> Any:
            return p * 2

    thing = Thing()
    for _ in range(3):
        p = numbers(3)
        assert bits(thing.step(p)) == bits(numbers(3) * 2)
        assert is_spent(p)


def test_inside_other_captures_and_transforms_nothing_is_donated() -> None:
    inner = kiln.compile(lambda p: p + 1, donate="p")
    outer = kiln.compile(lambda x: inner(x) * x)
    for _ in range(2):
        x = numbers(3)
        assert bits(outer(x)) == bits((numbers(3) + 1) * numbers(3))
        assert bits(kiln.vmap(inner)(x)) == bits(numbers(3) + 1)
        assert not is_spent(x)


def test_marks_go_along() -> None:
    step = kiln.compile(lambda p: p + 1, donate="p")
    p = numbers(9)
    kiln.mark_dynamic(p, 0, max=8)
    with pytest.raises(kiln.ShapeError):
        step(p)
    assert not is_spent(p)


def test_one_thread_gets_it() -> None:
    step = kiln.compile(lambda p: p * 2, donate="p")
    step(numbers(1000))
    for seed in range(20):
        t = numbers(1000, seed)
        start = threading.Barrier(4)
        results: list[Any] = []

        def work(t: Any = t, start: Any = start, results: list[Any] = results) -> None:
            start.wait()
            try:
                results.append(step(t))
            except (SpentError, ArgumentError) as error:
                results.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        (found,) = (r for r in results if isinstance(r, kiln.Tensor))
        assert len(results) == 4
        assert bits(found) == bits(numbers(1000, seed) * 2)


def test_explain_shows_it() -> None:
    step = kiln.compile(lambda p: p * 2, donate="p")
    text = str(kiln.explain(step, numbers(3)))
    assert "output0 takes over the memory of input0" in text
