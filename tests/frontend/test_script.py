"""`kiln.jit.script` and its marks, annotations, `freeze`: what is captured, and what is refused."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union  # noqa: UP035 (as TorchScript's users write)

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import ArgumentError, CaptureError, GradError, InvalidValueError, NotYetError
from kiln.jit import ScriptFunction, ScriptModule, freeze, script
from tests.frontend.battery.kit import linear


def bits(x: Any) -> Any:
    return x.ttype, np.ascontiguousarray(x.detach().numpy()).tobytes()


# ------------------------------------------------------------------------------------------- functions


def collatz(n: Any) -> Any:
    steps = kiln.zeros_like(n)
    while n != 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        steps = steps + 1
    return steps


def test_control_flow_is_one_graph_for_all_data() -> None:
    f = script(collatz)
    assert type(f) is ScriptFunction and isinstance(f, kiln.jit.ScriptFunction)
    for n in (1, 6, 27, 97):
        assert f(kiln.tensor(n)).item() == collatz(kiln.tensor(n)).item()
    assert f.report().captured == 1 and f.report().decided == 0 and f.report().eager == 0
    assert "while_loop" in str(f.graph) and "kiln.while_loop(" in f.code
    space: dict[str, Any] = {"kiln": kiln}
    exec(f.code, space)
    assert space["collatz"](kiln.tensor(27)).item() == 111


def test_each_signature_is_captured_on_its_first_call() -> None:
    f = script(lambda x, n=2: x * n)
    assert f(kiln.ones(2)).tolist() == [2.0, 2.0]
    assert f(kiln.ones(3)).tolist() == [2.0] * 3
    assert f(kiln.ones(3), 5).tolist() == [5.0] * 3
    assert len(f.regions()) == 3


def test_examples_are_captured_at_once() -> None:
    f = script(lambda x: x * 2, example_inputs=[(kiln.ones(2),), kiln.ones(3)])
    assert len(f.regions()) == 2
    f(kiln.ones(3))
    assert f.report().captured == 2


def test_as_a_decorator_of_methods() -> None:
    class Scale:
        def __init__(self, by: float) -> None:
            self.by = by

        @script
        def apply(self, x: Any) -> Any:
            return x * self.by

    assert Scale(2.0).apply(kiln.ones(1)).item() == 2.0
    assert Scale(3.0).apply(kiln.ones(1)).item() == 3.0
    bound = Scale(4.0)
    f = script(lambda x: bound.by * x)
    assert f(kiln.ones(1)).item() == 4.0


def item(x: Any) -> Any:
    return kiln.ones(2) * {1: 2.0}[int(x.sum())]


def reading_a_clock(x: Any) -> Any:
    return x if time.monotonic() > 0 else -x


@pytest.mark.parametrize("f", [item, reading_a_clock])
def test_what_no_graph_can_do_is_refused(f: Callable[..., Any]) -> None:
    scripted = script(f)
    for _ in range(2):
        with pytest.raises(CaptureError) as caught:
            scripted(kiln.ones(1))
        assert caught.value.loc is not None and caught.value.loc.function == f.__name__
        assert caught.value.fix
    assert scripted.report().eager == 0


class Colour(NamedTuple):
    red: Any


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: script(nn.Linear), "Linear is a class\n.*\n.*\n  fix: pass an instance"),
        (lambda: script(Colour), "Colour is a class\n.*\n.*\n  fix: script the functions that use it"),
        (lambda: script(3), "takes a function or a module, not int"),
        (lambda: script(abs, True), "optimize has no meaning"),  # type: ignore[arg-type]
    ],
)
def test_what_can_not_be_scripted(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        call()


def test_what_is_scripted_is_given_back() -> None:
    f = script(collatz)
    assert script(f) is f
    assert type(script(kiln.compile(collatz))) is ScriptFunction
    assert type(copy.deepcopy(f)) is ScriptFunction


# --------------------------------------------------------------------------------------------- modules


class Model(nn.Module):
    """A method of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.scale = kiln.full((2,), 3.0)

    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            x = x * self.scale
        return self.helper(x)

    def helper(self, x: Any) -> Any:
        return self.layer(x)

    @kiln.jit.export
    def double(self, x: kiln.Tensor) -> kiln.Tensor:
        return self.layer(x) * 2

    @kiln.jit.ignore
    def note(self, x: Any) -> Any:
        return x.sum().item()

    @kiln.jit.unused
    def never(self, x: Any) -> Any:
        return x.sum().item()


def test_a_module_with_several_doors() -> None:
    model, x = Model(), kiln.randn(3, 2)
    f = script(model)
    assert type(f) is ScriptModule and isinstance(f, Model) and isinstance(f, ScriptModule)
    assert f.original_name == "Model"
    for sign in (1, -1):
        assert bits(f(x * sign)) == bits(model(x * sign))
        assert bits(f.forward(x * sign)) == bits(model(x * sign))
        assert bits(f.double(x * sign)) == bits(model.double(x * sign))
    assert f.report().captured == 1 and f.double.report().captured == 1
    assert f.code.startswith("def forward(self, x):") and f.double.code.startswith("def double(self, x):")
    assert list(f.state_dict()) == list(model.state_dict()) and f.layer is model.layer
    assert f.note(x) == model.note(x)
    with pytest.raises(ArgumentError, match="double: x is int 3"):
        f.double(3)
    assert len(script(Model(), example_inputs={"forward": [(x,)], "double": [x, x[:1]]}).double.regions()) == 2


def test_a_scripted_module_trains() -> None:
    one, two, x = Model(), Model(), kiln.randn(3, 2)
    scripted = script(one)
    for _ in range(2):
        for model, call in ((one, scripted), (two, two)):
            model.zero_grad()
            call(x).sum().backward()
            with kiln.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
    assert all(bits(a) == bits(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_scripted_part_of_a_module() -> None:
    whole = nn.Sequential(script(Model()), nn.ReLU())
    assert len(list(whole.parameters())) == 2
    x = kiln.randn(3, 2)
    assert bits(kiln.compile(whole)(x)) == bits(whole(x))


# ----------------------------------------------------------------------------------------------- marks


def test_marked_functions_are_ordinary_outside() -> None:
    model = Model()
    assert model.note(kiln.ones(2)) == 2.0 and model.never(kiln.ones(2)) == 2.0
    assert kiln.jit.ignore(drop=True)(abs)(-1) == 1 and kiln.jit.ignore()(abs)(-1) == 1
    assert kiln.jit.unused(collatz).__name__ == "collatz"
    assert kiln.compile(model.never)(kiln.ones(2)) == 2.0


@pytest.mark.parametrize(("mark", "match"), [(kiln.jit.ignore, "is Python's"), (kiln.jit.unused, "must not be called")])
def test_marked_functions_are_refused_in_scripts(mark: Any, match: str) -> None:
    @mark
    def clock(x: Any) -> Any:
        return x * next(ticks)

    ticks = iter([1, 2, 3])

    def f(x: Any) -> Any:
        return clock(x) if x.ndim == 2 or not kiln.jit.is_scripting() else x + 1

    scripted = script(f)
    assert scripted(kiln.zeros(1)).item() == 1.0
    with pytest.raises(CaptureError, match=match) as caught:
        scripted(kiln.zeros(1, 1))
    assert caught.value.loc is not None and "clock(x)" in str(caught.value)
    assert f(kiln.ones(1)).item() == 1.0
    assert kiln.jit.script(clock) is clock


def test_is_scripting_inside_branches_and_traces() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            x = x + (1 if kiln.jit.is_scripting() else 2)
        return x

    assert script(f)(kiln.ones(1)).item() == 2.0
    assert f(kiln.ones(1)).item() == 3.0 and not kiln.jit.is_scripting()


def shrink(x: Any) -> Any:
    while x.sum() > 1:
        x = x / 2
    return x


def test_script_if_tracing() -> None:
    either = kiln.jit.script_if_tracing(shrink)
    traced = kiln.jit.trace(lambda x: either(x) + 1, kiln.ones(2))
    for n in (8.0, 0.25):
        x = kiln.full((2,), n)
        assert traced(x).tolist() == (shrink(x) + 1).tolist() == (either(x) + 1).tolist()
    with pytest.raises(CaptureError, match=r"bool\(\) asks"):
        kiln.jit.trace(shrink, kiln.ones(2))


# ----------------------------------------------------------------------------------------- annotations


def annotated(
    x: Optional[kiln.Tensor] = None,  # noqa: UP045
    n: int = 1,
    f: float = 1.0,
    s: str = "",
    xs: List[kiln.Tensor] = [],  # noqa: B006, UP006
    d: Optional[Dict[str, kiln.Tensor]] = None,  # noqa: UP006, UP045
    t: Optional[Tuple[int, str]] = None,  # noqa: UP006, UP045
    u: Union[int, kiln.Tensor] = 1,  # noqa: UP007
    unknown: Nowhere = None,  # type: ignore[name-defined]  # noqa: F821
    *rest: int,
    **more: bool,
) -> Any:
    return kiln.zeros(1)


@pytest.mark.parametrize(
    "given",
    [
        {"x": kiln.ones(1), "n": 3, "f": 2.5, "s": "a", "xs": [kiln.ones(1)], "d": {"a": kiln.ones(1)}},
        {"x": None, "t": (1, "a"), "u": kiln.ones(1)},
        {"n": True, "f": 1, "t": [1, "a"], "xs": (kiln.ones(1),)},  # as TorchScript does
        {"unknown": 3},
        {"other": True},
    ],
)
def test_arguments_that_fit(given: dict[str, Any]) -> None:
    script(annotated)(**given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"x": 3}, r"x is int 3, and is annotated as Optional\[Tensor\]"),
        ({"n": 1.5}, "n is float 1.5, and is annotated as int"),
        ({"n": "a"}, "n is str 'a', and is annotated as int"),
        ({"f": kiln.ones(1)}, r"f is a tensor \(float32\[1\]\), and is annotated as float"),
        ({"s": None}, "s is None, and is annotated as str"),
        ({"xs": [kiln.ones(1), 2]}, r"xs\[1\] is int 2, and is annotated as Tensor"),
        ({"xs": kiln.ones(1)}, r"xs is a tensor .*, and is annotated as List\[Tensor\]"),
        ({"d": {"a": 1}}, r"d is dict .*, and is annotated as Optional\[Dict\[str, Tensor\]\]"),
        ({"t": (1, 2)}, r"t is tuple \(1, 2\), and is annotated as Optional\[Tuple\[int, str\]\]"),
        ({"t": (1,)}, r"t is tuple \(1,\)"),
        ({"u": "a"}, r"u is str 'a', and is annotated as Union\[int, Tensor\]"),
        ({"other": 1.5}, "other is float 1.5, and is annotated as bool"),
    ],
)
def test_arguments_that_do_not_fit(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=f"annotated: {match}"):
        script(annotated)(**given)


def test_positional_rests() -> None:
    with pytest.raises(ArgumentError, match=r"rest\[1\] is str 'a', and is annotated as int"):
        script(annotated)(None, 1, 1.0, "", [], None, None, 1, None, 1, "a")


def test_results_are_held_to_their_annotation() -> None:
    def f(x: Any, n: int) -> Tuple[kiln.Tensor, int]:  # noqa: UP006
        return x if n else (x, n)  # type: ignore[return-value]

    scripted = script(f)
    assert scripted(kiln.ones(1), 0)[1] == 0
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"the result is a tensor .*, and is annotated as"):
            scripted(kiln.ones(1), 1)


def test_annotate_isinstance_and_names() -> None:
    assert kiln.jit.annotate(List[int], []) == []  # noqa: UP006
    with pytest.raises(ArgumentError, match=r"annotate: the value\[0\] is str 'a', not int"):
        kiln.jit.annotate(List[int], ["a"])  # noqa: UP006
    is_one = kiln.jit.isinstance
    assert is_one([1], List[int]) and not is_one([1], List[str]) and is_one([], List[int])  # noqa: UP006
    assert is_one(1, (str, int)) and is_one(None, Optional[int]) and not is_one("a", Optional[int])  # noqa: UP045
    assert kiln.jit.Attribute(3, int).value == 3
    assert issubclass(CaptureError, kiln.jit.Error)
    assert {"script", "trace", "freeze", "compile"} <= set(dir(kiln.jit))
    with pytest.raises(AttributeError, match="nonsense"):
        kiln.jit.nonsense  # noqa: B018


# ---------------------------------------------------------------------------------------------- freeze


class Net(nn.Module):
    """Parameters, buffers, and tensors in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.LSTM(3, 2))
        self.shifts = [kiln.ones(2)]
        self.scale = nn.Parameter(kiln.full((2,), 2.0))

    def forward(self, x: Any) -> Any:
        x = self.layers[2](self.layers[1](self.layers[0](x)))
        return self.layers[3](x)[0] * self.scale + self.shifts[0]

    @kiln.jit.export
    def shift(self, x: Any) -> Any:
        return x + self.shifts[0]


def test_frozen_tensors_are_constants() -> None:
    model, x = Net().eval(), kiln.randn(4, 2)
    wanted = bits(model(x))
    for given in (model, script(model), kiln.jit.trace(model, x)):
        frozen = freeze(given)
        assert type(frozen).__name__ == "FrozenModule" and isinstance(frozen, ScriptModule)
        for _ in range(2):
            assert bits(frozen(x)) == wanted and not frozen(x).requires_grad
        assert len(frozen.graph.inputs) == 1 and "constant" in str(frozen.graph)
        assert list(frozen.parameters()) == [] and not frozen.state_dict()
        assert bits(frozen.shift(x)) == bits(model.shift(x))
        assert len(frozen.shift.graph.inputs) == 1
    assert len(list(model.parameters())) == 9
    space: dict[str, Any] = {"kiln": kiln}
    exec(frozen.code, space)
    assert bits(space["forward"](None, x)) == wanted


def test_a_frozen_module_does_not_see_changes() -> None:
    model, x = Net().eval(), kiln.randn(4, 2)
    frozen, wanted = freeze(model), bits(model(x))
    with kiln.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert bits(frozen(x)) == wanted != bits(model(x))


def test_preserved_attributes_may_change() -> None:
    model, x = Net().eval(), kiln.randn(4, 2)
    frozen = freeze(model, ["scale", "layers.0.bias"])
    assert [n for n, _ in frozen.named_parameters()] == ["scale", "layers.0.bias"]
    frozen(x)
    with kiln.no_grad():
        frozen.scale.zero_()
    assert frozen(x).tolist() == [[1.0, 1.0]] * 4
    with pytest.raises(InvalidValueError, match="the module has no nothing"):
        freeze(model, ["nothing"])


def test_what_can_not_be_frozen() -> None:
    with pytest.raises(InvalidValueError, match=r"the module is in training mode\n(.*\n)*  fix: call .eval\(\)"):
        freeze(Net())
    model = Net().eval()
    model.layers[1].train()
    with pytest.raises(InvalidValueError, match=r"its layers.1 is in training mode"):
        freeze(model)
    with pytest.raises(ArgumentError, match="takes a module, not builtin_function_or_method"):
        freeze(abs)
    frozen = freeze(Net().eval())
    assert frozen.eval() is not None and frozen.train(False) is frozen
    with pytest.raises(InvalidValueError, match="can't be trained"):
        frozen.train()
    with pytest.raises(NotYetError, match="a copy of a frozen module"):
        copy.deepcopy(frozen)


def test_a_frozen_module_writes_to_none_of_its_tensors() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", kiln.zeros(()))

        def forward(self, x: Any) -> Any:
            self.count.add_(1)
            return x + self.count

    with pytest.raises(GradError, match="read-only memory"):
        freeze(Counter().eval())(kiln.zeros(1))
    kept = freeze(Counter().eval(), ["count"])
    assert [kept(kiln.zeros(1)).item() for _ in range(3)] == [1.0, 2.0, 3.0]


def test_optimize_for_inference() -> None:
    model, x = Net().eval(), kiln.randn(4, 2)
    frozen = kiln.jit.optimize_for_inference(script(model))
    assert bits(frozen(x)) == bits(model(x))
    assert kiln.jit.optimize_for_inference(frozen) is frozen
