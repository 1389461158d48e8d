"""`kiln.jit.trace` and `trace_module`: examples, checks, and what a trace refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import ArgumentError, CaptureError, InvalidValueError
from kiln.jit import TracedFunction, TracedModule, TracingCheckError, trace, trace_module
from kiln.region import Compiled
from tests.frontend.battery.kit import linear


def bits(x: Any) -> Any:
    return x.ttype, np.ascontiguousarray(x.detach().numpy()).tobytes()


class Model(nn.Module):
    """Two methods, a buffer that calls write, a branch of Python's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.register_buffer("calls", kiln.zeros(()))

    def forward(self, x: Any, scale: Any = None) -> Any:
        self.calls.add_(1)
        return self.layer(x) * (2 if scale is None else scale)

    def weigh(self, x: Any) -> Any:
        return (self.layer.weight * x).sum()


# -------------------------------------------------------------------------------------------- examples


def test_an_example_may_be_a_tensor_a_tuple_or_a_list() -> None:
    x, y = kiln.arange(3.0), kiln.ones(3)
    for example in ((x, y), [x, y]):
        f = trace(lambda a, b: a - b, example)
        assert type(f) is TracedFunction and isinstance(f, kiln.jit.TracedFunction)
        assert f(y, x).tolist() == [1.0, 0.0, -1.0]
    assert trace(lambda a: a * 2, x)(y).tolist() == [2.0] * 3
    assert trace(lambda d: d["a"] * 2, ({"a": x},))({"a": y}).tolist() == [2.0] * 3


def test_several_examples_make_several_signatures() -> None:
    f = trace(lambda x: x.sum(0), [(kiln.ones(2, 3),), (kiln.ones(4, 3),), (kiln.ones(2, 3, dtype=kiln.float64),)])
    assert len(f.regions()) == 3
    assert f(kiln.ones(4, 3)).tolist() == [4.0] * 3
    assert f(kiln.ones(2, 3, dtype=kiln.float64)).dtype is kiln.float64
    with pytest.raises(CaptureError, match="did not show"):
        f(kiln.ones(3, 3))
    with pytest.raises(CaptureError, match="did not show"):
        f(kiln.ones(4, 3, dtype=kiln.float64))
    assert f.report().compiled == 2 and f.report().captured == 3


def test_examples_by_keyword() -> None:
    f = trace(lambda x, *, y: x - y, example_kwarg_inputs={"x": kiln.ones(2), "y": kiln.zeros(2)})
    assert f(x=kiln.zeros(2), y=kiln.ones(2)).tolist() == [-1.0, -1.0]
    with pytest.raises(CaptureError, match="structure"):
        f(kiln.zeros(2), y=kiln.ones(2))
    both = trace(lambda x: x, example_kwarg_inputs=[{"x": kiln.ones(1)}, {"x": kiln.ones(2)}])
    assert len(both.regions()) == 2


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: trace(abs), ArgumentError, "one of the two"),
        (lambda: trace(abs, kiln.ones(1), example_kwarg_inputs={}), ArgumentError, "one of the two"),
        (lambda: trace(abs, example_kwarg_inputs=[3]), ArgumentError, "is a dict, or a list of dicts"),
        (lambda: trace(abs, kiln.ones(1), optimize=True), ArgumentError, "optimize has no meaning"),
        (lambda: trace(abs, kiln.ones(1), check_tolerance=-1.0), InvalidValueError, "check_tolerance is -1.0"),
        (lambda: trace(3, kiln.ones(1)), ArgumentError, "takes a function or a module, not int"),
        (lambda: trace_module(abs, {"forward": 1}), ArgumentError, "takes a module"),
        (lambda: trace_module(linear(), kiln.ones(1)), ArgumentError, "inputs is a Tensor"),
        (lambda: trace_module(linear(), {"nothing": 1}), AttributeError, "nothing"),
    ],
)
def test_wrong_arguments(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_what_is_traced_or_scripted_already_is_given_back() -> None:
    f = trace(lambda x: x * 2, kiln.ones(2))
    assert trace(f, kiln.ones(3)) is f
    scripted = kiln.jit.script(lambda x: x * 2)
    assert trace(scripted, kiln.ones(3)) is scripted
    compiled = trace(kiln.compile(lambda x: x * 2), kiln.ones(2))
    assert type(compiled) is TracedFunction


def test_inside_a_captured_function_there_is_no_tracing() -> None:
    def outer(x: Any) -> Any:
        return trace(lambda y: y + 1, x)(x)

    with pytest.raises(CaptureError, match="trace inside a captured function"):
        kiln.compile(outer, fullgraph=True)(kiln.ones(2))


# --------------------------------------------------------------------------------------------- modules


def test_a_module_keeps_its_parameters_and_state() -> None:
    model = Model()
    x = kiln.randn(3, 2)
    traced = trace(model, (x,))
    assert type(traced) is TracedModule and isinstance(traced, Model) and traced.original_name == "Model"
    calls = model.calls.item()
    assert bits(traced(x)) == bits(model(x)) and model.calls.item() == calls + 2
    assert bits(traced.forward(x)) == bits(traced(x))
    assert list(traced.state_dict()) == list(model.state_dict())
    assert [id(p) for p in traced.parameters()] == [id(p) for p in model.parameters()]
    with kiln.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.fill_(1.0)
    assert traced(x).tolist() == [[2.0, 2.0]] * 3
    assert traced.code.startswith("def forward(self, x, scale=None):")


def test_several_methods() -> None:
    model = Model()
    x = kiln.randn(3, 2)
    traced = trace_module(model, {"forward": (x,), "weigh": kiln.ones(2)})
    assert bits(traced.weigh(kiln.full((2,), 3.0))) == bits(model.weigh(kiln.full((2,), 3.0)))
    assert isinstance(traced.weigh, TracedFunction) and traced.weigh.code.startswith("def weigh(self, x):")
    with pytest.raises(CaptureError, match="did not show"):
        traced.weigh(kiln.ones(3, 2))
    only = trace_module(model, {"weigh": [(kiln.ones(2),), (kiln.ones(1),)]})
    assert len(only.weigh.regions()) == 2
    with pytest.raises(CaptureError, match="did not show"):
        only(x)
    named = trace_module(model, {"weigh": {"x": kiln.ones(2)}}, example_inputs_is_kwarg=True)
    assert bits(named.weigh(x=kiln.ones(2))) == bits(model.weigh(kiln.ones(2)))


def test_a_bound_method() -> None:
    model = Model()
    f = trace(model.weigh, kiln.ones(2))
    assert bits(f(kiln.full((2,), 2.0))) == bits(model.weigh(kiln.full((2,), 2.0)))


def test_a_copy_traces_itself() -> None:
    model = Model()
    x = kiln.randn(3, 2)
    traced = trace_module(model, {"forward": [(x,), (x[:1],)], "weigh": kiln.ones(2)})
    other = copy.deepcopy(traced)
    assert type(other) is TracedModule and other.layer is not model.layer
    assert bits(other(x)) == bits(traced(x)) and bits(other(x[:1])) == bits(traced(x[:1]))
    assert bits(other.weigh(kiln.ones(2))) == bits(traced.weigh(kiln.ones(2)))
    with pytest.raises(CaptureError, match="did not show"):
        other(x[:2])


def test_training_through_a_trace() -> None:
    x = kiln.randn(3, 2)
    one, two = Model(), Model()
    traced = trace(one, x)
    for _ in range(3):
        for model, call in ((one, traced), (two, two)):
            model.zero_grad()
            call(x).sum().backward()
            with kiln.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
    assert all(bits(a) == bits(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_changed_module_is_refused() -> None:
    class Switch(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if self.training else x

    model = Switch()
    traced = trace(model, kiln.ones(2))
    model.eval()
    with pytest.raises(CaptureError, match="training"):
        traced(kiln.ones(2))
    model.train()
    assert traced(kiln.ones(2)).tolist() == [2.0, 2.0]


# ------------------------------------------------------------------------------------------ soundness


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x * int(x.sum()),
        lambda x: x * float(x[0]),
        lambda x: x[: int(x.sum())],
        lambda x: kiln.ones(int(x.max())),
        lambda x: list(x.tolist()),
        lambda x: x[x > 0],
    ],
)
def test_what_depends_on_data_is_refused(f: Any) -> None:
    with pytest.raises(CaptureError) as caught:
        trace(f, kiln.ones(3))
    assert caught.value.loc is not None and caught.value.loc.file == __file__
    assert caught.value.fix


def test_is_tracing() -> None:
    told = []

    def f(x: Any) -> Any:
        return x + (1 if kiln.jit.is_tracing() else 0) + (2 if kiln.jit.is_scripting() else 0)

    assert f(kiln.zeros(1)).item() == 0
    assert trace(f, kiln.zeros(1))(kiln.zeros(1)).item() == 1
    assert kiln.compile(f)(kiln.zeros(1)).item() == 0
    assert not told


# ------------------------------------------------------------------------------------------------ checks


def test_checks_leave_no_trace() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    x, y = kiln.randn(4, 2), kiln.randn(4, 2)
    other = copy.deepcopy(model)
    kiln.manual_seed(5)
    trace(model, x, check_inputs=[(y,), x])
    after = kiln.default_generator.get_state()
    kiln.manual_seed(5)
    other(x)
    assert bits(after) == bits(kiln.default_generator.state)
    assert [bits(v) for v in model.state_dict().values()] == [bits(v) for v in other.state_dict().values()]


def test_check_inputs_must_be_shown() -> None:
    with pytest.raises(CaptureError, match="did not show"):
        trace(lambda x: x * 2, kiln.ones(2), check_inputs=[(kiln.ones(3),)])


def test_arguments_that_are_written_are_checked() -> None:
    def f(x: Any, y: Any) -> Any:
        y.add_(x)
        x.grad = y * 2
        return y[1:], {"n": 3}

    x, y = kiln.ones(3), kiln.zeros(3)
    trace(f, (x, y), check_inputs=[(kiln.full((3,), 2.0), kiln.ones(3))])
    assert y.tolist() == [1.0] * 3 and x.grad is not None


def test_other_bits_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Compiled.run

    def wrong(self: Any, *of: Any) -> Any:
        buffers = run(self, *of)
        np.frombuffer((__import__("ctypes").c_char * 4).from_address(buffers[0].ptr), np.float32)[:] += 1
        return buffers

    f = trace(lambda x: x * 2, kiln.ones(2), check_trace=False)
    assert f(kiln.ones(2)).tolist() == [2.0, 2.0]
    monkeypatch.setattr(Compiled, "run", wrong)
    with pytest.raises(TracingCheckError, match="gives other bits than Python"):
        trace(lambda x: x * 2, kiln.ones(2))
    with pytest.raises(TracingCheckError, match="gives other bits than Python"):
        trace(lambda x: x * 2, kiln.ones(2), check_trace=False, check_inputs=[kiln.ones(2)])
    trace(lambda x: x * 2, kiln.ones(2), check_trace=False)


def test_strict_or_not_containers_are_rebuilt() -> None:
    for strict in (True, False):
        f = trace(lambda x: {"a": [x, (x * 2,)]}, kiln.ones(1), strict=strict)
        assert f(kiln.full((1,), 3.0))["a"][1][0].item() == 6.0
