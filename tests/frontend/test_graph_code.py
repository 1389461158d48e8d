"""`.code` of captured functions: the text runs, and gives the bits of the capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.code_of import code_of
from kiln.dispatch import CheckFailed
from kiln.errors import ArgumentError, CaptureError, KilnError, NotYetError
from kiln.ir.ops import OPS
from kiln.jit import CompiledFunction
from kiln.pytree import flatten
from kiln.recording import Call
from kiln.region import Region
from kiln.signature import signature
from kiln.tree import Found
from tests.frontend.battery.kit import Program, linear, run
from tests.frontend.test_battery import PROGRAMS
from tests.ops.samples import samples
from tests.ops.sampling import APART


def executed(code: str, **scope: Any) -> Callable[..., Any]:
    """The function that a text defines."""
    space: dict[str, Any] = {"kiln": kiln, **scope}
    exec(code, space)
    (made,) = [f for name, f in space.items() if name not in ("kiln", "__builtins__", *scope)]
    return made  # type: ignore[no-any-return]


def bits(x: Any) -> list[Any]:
    """The leaves, tensors as their bytes."""
    return [
        (x.ttype, np.ascontiguousarray(x.detach().numpy()).tobytes()) if isinstance(x, kiln.Tensor) else x
        for x in flatten(x)[0]
    ]


@pytest.fixture
def captures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine code is made: first calls are eager."""
    monkeypatch.setattr(Region, "compile", lambda self: None)


# ------------------------------------------------------------------------------------------------- ops


@pytest.mark.parametrize("name", [name for name in OPS if name not in APART])
def test_code_of_every_op(name: str, captures_only: None) -> None:
    calls = samples(name)

    def every(*groups: Any) -> Any:
        made = zip(calls, groups, strict=True)
        return [OPS[name].bind(xs, s.attrs, None if xs else kiln.ops.MAKER) for s, xs in made]

    groups = [[kiln.from_numpy(x) for x in s.operands] for s in calls]
    f = kiln.compile(every, fullgraph=True)
    wanted = f(*groups)
    assert bits(executed(f.code)(*groups)) == bits(wanted)
    text, constants = f.code_with_constants
    assert bits(executed(text, CONSTANTS=constants)(*groups)) == bits(wanted)


# ---------------------------------------------------------------------------------------------- battery


def _bound(self: CompiledFunction, keep: tuple[int, ...]) -> list[Any]:
    """What the text of a function takes before the call's own arguments."""
    if isinstance(self._function, kiln.nn.Module):
        return [self._function]
    owner = getattr(self._function, "__self__", None)
    return [] if owner is None or keep else [owner]


class Checker:
    """Before each warm call of a compiled function, its code is run, and then all tensors are put back."""

    def __init__(self) -> None:
        self.checked = 0
        self._run = CompiledFunction._run

    def __call__(self, compiled: CompiledFunction, keep: Any, args: Any, kwargs: Any) -> Any:
        call = Call(args, kwargs, keep, *signature(keep, args, kwargs))
        entry, found = compiled._find(call)
        if not isinstance(found, Found):
            return self._run(compiled, keep, args, kwargs)
        try:
            text, outside, _ = code_of(compiled._told_of(call.key, entry, found.region))
        except NotYetError:
            return self._run(compiled, keep, args, kwargs)
        tensors = [*found.inputs, *call.tensors, *(w.tensor for w in found.region.grads if w.tensor is not None)]
        before = [(t, t.detach().numpy().copy(), t._grad, t._buffer.version) for t in tensors]
        try:
            mine = executed(text)(*_bound(compiled, keep), *args, **kwargs, **outside)
        except KilnError:  # which the compiled call must find, too
            with pytest.raises(CheckFailed):
                found.region.run(found.inputs, call.tensors, found.carried)
            return self._run(compiled, keep, args, kwargs)
        after = [bits([t, t._grad]) for t in tensors]
        mine = bits(mine)
        for t, data, grad, version in before:
            if t.detach().numpy().tobytes() != data.tobytes():
                with kiln.no_grad():
                    t.copy_(kiln.from_numpy(data))
            t._grad, t._buffer.version = grad, version
        wanted = self._run(compiled, keep, args, kwargs)
        assert mine == bits(wanted)
        assert after == [bits([t, t._grad]) for t in tensors]
        self.checked += 1
        return wanted


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.values[0].expected == "right"])
def test_code_of_the_battery(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    checker = Checker()
    monkeypatch.setattr(CompiledFunction, "_run", lambda *of: checker(*of))
    outcome = run(program, compiled=True)
    if outcome.error is not None:
        raise outcome.error


# ------------------------------------------------------------------------------------------------ texts


def compiled(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Captured with these arguments."""
    made = kiln.compile(function, fullgraph=True)
    made(*args, **kwargs)
    return made


def test_the_text_names_arguments_and_one_op_a_line() -> None:
    f = compiled(lambda x, scale=2: (x * scale).sum(), kiln.ones(3))
    assert f.code == (
        "def main(x, scale=2):\n"
        "    t1 = kiln.ops.full(dtype=kiln.float32, shape=(3,), value=2.0)\n"
        "    t2 = kiln.ops.mul(x, t1)\n"
        "    t3 = kiln.ops.sum(t2, dims=(0,))\n"
        "    return t3\n"
    )
    assert str(f.graph).startswith("graph main(%0: float32[3]) {")
    assert f.inlined_graph is f.graph


class Model(nn.Module):
    """Parameters at several places, and a buffer that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(linear(), nn.Tanh())
        self.extra = [kiln.ones(2)]
        self.register_buffer("calls", kiln.zeros((), dtype=kiln.int64))

    def forward(self, x: Any, *, twice: bool = False) -> Any:
        self.calls.add_(1)
        x = self.layers(x) + self.extra[0]
        return {"x": x, "twice": (x, x * 2) if twice else None}

    def part(self, x: Any) -> Any:
        return self.layers(x)


def test_the_text_of_a_module_takes_the_module() -> None:
    model, other = Model(), Model()
    x = kiln.randn(3, 2)
    f = compiled(model, x, twice=True)
    assert f.code.startswith("def forward(self, x, *, twice=False):")
    assert f.code_inputs == {}
    for each in (model, other):
        wanted = each(x, twice=True)
        made = executed(f.code)(each, x, twice=True)
        assert list(made) == ["x", "twice"] and bits(made) == bits(wanted)
    assert model.calls.item() == 3 and other.calls.item() == 2


def test_the_text_of_a_bound_method() -> None:
    model, x = Model(), kiln.randn(3, 2)
    f = compiled(model.part, x)
    assert f.code.startswith("def part(self, x):")
    assert bits(executed(f.code)(model, x)) == bits(model.part(x))


def test_tensors_from_outside_are_keywords() -> None:
    model, shift, x = linear(), kiln.ones(2), kiln.randn(3, 2)
    f = compiled(lambda x: model(x) + shift, x)
    assert list(f.code_inputs) == ["model_weight", "model_bias", "shift"]
    assert f.code.startswith("def main(x, *, model_weight, model_bias, shift):")
    assert bits(executed(f.code)(x, **f.code_inputs)) == bits(model(x) + shift)


def control(x: Any, n: Any) -> Any:
    """Every kind of control flow, inside each other, with random numbers."""

    def turn(i: Any, s: Any) -> Any:
        noise = kiln.rand(())
        return i + 1, kiln.cond(s.sum() > 3, lambda s: s * noise, lambda s: s + x.mean(), (s,))

    _, s = kiln.while_loop(lambda i, s: i < n, turn, (kiln.tensor(0), x))
    carry, rows = kiln.scan(lambda c, r: (c + r * s[0], (c, r)), kiln.zeros(()), x, reverse=True)
    nothing, counted = kiln.scan(lambda c, _: (c, s), (), None, length=2)
    return s, carry, rows, nothing, counted


@pytest.mark.parametrize("n", [0, 1, 5])
def test_control_flow(n: int) -> None:
    x, steps = kiln.randn(4), kiln.tensor(n)
    f = compiled(control, x, kiln.tensor(2))
    state = kiln.default_generator.get_state()
    wanted, after = bits(control(x, steps)), bits(kiln.default_generator.state)
    kiln.default_generator.set_state(state)
    assert bits(executed(f.code)(x, steps)) == wanted
    assert bits(kiln.default_generator.state) == after
    assert f.code.count("\n") < 60


def test_writes_happen_after_everything_was_read() -> None:
    def swap(x: Any, y: Any) -> Any:
        before = x.clone()
        x.copy_(y)
        y.copy_(before)
        return x, y, before, x[1:]

    one, two = kiln.arange(3.0), kiln.arange(3.0) * 7
    f = compiled(swap, one.clone(), two.clone())
    a, b = one.clone(), two.clone()
    made = executed(f.code)(a, b)
    assert made[0] is a and made[1] is b
    assert bits(made) == bits((two, one, one, two[1:]))


def test_constants_of_every_dtype() -> None:
    from kiln.ir.types import TENSOR_DTYPES

    for dtype in TENSOR_DTYPES:
        for shape in ((), (0,), (0, 2), (3,), (5, 7)):
            data = kiln.ones(*shape).to(dtype).numpy()

            def f(x: Any, data: Any = data) -> Any:
                made = kiln.ops.constant(data=kiln.ops.literal(data.tolist(), x.dtype) if data.size else _empty(data))
                return made, x

            like = kiln.zeros(1, dtype=dtype)
            g = compiled(f, like)
            assert bits(executed(g.code)(like)) == bits(f(like)), (dtype, shape)


def _empty(data: Any) -> Any:
    from kiln.ir.graph import Constant

    return Constant(data)


def test_names_that_mean_something_else() -> None:
    def f(t1: Any, kiln: Any, *args: Any, self: Any, **more: Any) -> Any:
        return t1 * kiln + args[0] * self + more["for"]

    xs = [kiln.full((2,), float(n)) for n in range(5)]
    g = compiled(f, xs[0], xs[1], xs[2], self=xs[3], **{"for": xs[4]})
    made = executed(g.code)(xs[0], xs[1], xs[2], self=xs[3], **{"for": xs[4]})
    assert bits(made) == bits(f(xs[0], xs[1], xs[2], self=xs[3], **{"for": xs[4]}))


def test_graph_for_and_code_for_tell_captures_apart() -> None:
    f = kiln.compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    with pytest.raises(CaptureError, match="was not captured yet"):
        f.graph  # noqa: B018
    f(kiln.ones(2))
    f(-kiln.ones(2))
    f(kiln.ones(3))
    assert "mul" in str(f.graph_for(kiln.ones(2))) and "sub" in str(f.graph_for(-kiln.ones(2)))
    assert "sub" in f.code_for(-kiln.ones(2))
    assert f.graph is f.graph_for(kiln.ones(3))
    with pytest.raises(CaptureError, match="not captured for these arguments"):
        f.graph_for(kiln.ones(4))


def test_what_is_not_python_is_said() -> None:
    f = compiled(lambda x: {"x": x, "kind": np.float32}, kiln.ones(2))
    with pytest.raises(NotYetError, match="a type as Python"):
        f.code  # noqa: B018


# -------------------------------------------------------------------------------------------- kiln.ops


def test_ops_are_the_primitives() -> None:
    assert kiln.ops.add(kiln.ones(2), kiln.ones(2)).tolist() == [2.0, 2.0]
    assert "add" in dir(kiln.ops) and "cond" not in dir(kiln.ops) and "fusion" not in dir(kiln.ops)
    assert kiln.ops.mul.__doc__
    with pytest.raises(ArgumentError, match="takes tensors, not int"):
        kiln.ops.add(1, 2)
    with pytest.raises(kiln.ShapeError):
        kiln.ops.add(kiln.ones(2), kiln.ones(3))
    with pytest.raises(AttributeError, match="nonsense"):
        kiln.ops.nonsense  # noqa: B018
    f = kiln.compile(lambda x: kiln.ops.mul(x, kiln.ops.full(shape=(2,), dtype=kiln.float32, value=3.0)))
    for _ in range(2):
        assert f(kiln.ones(2)).tolist() == [3.0, 3.0]
