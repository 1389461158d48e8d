"""`__torch_function__`, subclasses of Tensor, and kiln.overrides."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

import kiln
import kiln.nn.functional as F
from kiln import overrides
from kiln.nn.functional import softmax  # before any subclass exists


class Plain(kiln.Tensor):
    """A subclass that adds nothing."""


class Inner(Plain):
    pass


class Logging(kiln.Tensor):
    """Notes every call."""

    calls: list[tuple[Any, tuple[type, ...]]]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Logging.calls.append((func, tuple(types)))
        return super().__torch_function__(func, types, args, kwargs)


class Doubling(kiln.Tensor):
    """exp is twice what it is."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        return result * 2 if func is kiln.exp else result


class Duck:
    """No tensor; answers what is in its table."""

    handled: ClassVar[dict[Any, Any]] = {}

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in cls.handled:
            return NotImplemented
        return cls.handled[func](*args, **(kwargs or {}))


@pytest.fixture
def x() -> kiln.Tensor:
    return kiln.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def _calls() -> Iterator[None]:
    Logging.calls = []
    yield


class TestDefault:
    @pytest.mark.parametrize(
        "function",
        [
            lambda x, p: x + 1,
            lambda x, p: 1 - x,
            lambda x, p: p + x,
            lambda x, p: p @ x.T,
            lambda x, p: kiln.add(p, x, alpha=2),
            lambda x, p: kiln.cat([p, x]),
            lambda x, p: x.sum(),
            lambda x, p: x[0],
            lambda x, p: x.T,
            lambda x, p: x.detach(),
            lambda x, p: x.data,
            lambda x, p: x.to(kiln.float64),
            lambda x, p: F.softmax(x, 1),
            lambda x, p: softmax(x, 1),
            lambda x, p: kiln.linalg.norm(x),
            lambda x, p: kiln.fft.fft(x),
            lambda x, p: kiln.zeros_like(x),
            lambda x, p: p.add_(x),
            lambda x, p: x.clone(),
            lambda x, p: kiln.nn.Linear(3, 2)(x),
        ],
    )
    def test_results_are_of_the_subclass(self, function: Any, x: kiln.Tensor) -> None:
        result = function(x.as_subclass(Plain), x.clone())
        assert type(result) is Plain

    def test_in_tuples(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Plain)
        assert [type(t) for t in s.split(1)] == [Plain, Plain]
        best = s.max(1)
        assert type(best).__name__ == "max" and type(best.values) is type(best.indices) is Plain
        assert {type(t) for t in s} == {Plain}

    def test_values(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Plain)
        assert np.array_equal((s * 2 + x).numpy(), x.numpy() * 3)
        assert s.shape == (2, 3) and s.tolist() == x.tolist() and bool(s.sum() == 15)
        s.add_(1)
        assert x[0, 0] == 1 and type(s) is Plain  # the same memory
        assert type(s.as_subclass(kiln.Tensor)) is kiln.Tensor

    def test_a_subclass_of_it_wins(self, x: kiln.Tensor) -> None:
        assert type(x.as_subclass(Plain) + x.as_subclass(Inner)) is Inner
        assert type(x.as_subclass(Inner) + x.as_subclass(Plain)) is Inner

    def test_classes_that_know_nothing_of_each_other(self, x: kiln.Tensor) -> None:
        with pytest.raises(kiln.ArgumentError, match="add: __torch_function__ of Plain, Logging"):
            x.as_subclass(Plain) + x.as_subclass(Logging)

    def test_parameters_are_plain(self, x: kiln.Tensor) -> None:
        class Own(kiln.nn.Parameter):
            pass

        assert type(kiln.nn.Parameter(x) + 1) is type(Own(x) + 1) is kiln.Tensor

    def test_gradients_flow_through(self) -> None:
        x = kiln.tensor([1.0, 2.0], dtype=kiln.float64, requires_grad=True)
        s = x.as_subclass(Plain)
        assert s.requires_grad and not s.is_leaf
        (s * s).sum().backward()
        assert x.grad is not None and type(x.grad) is kiln.Tensor
        assert x.grad.tolist() == [2.0, 4.0]
        leaf = kiln.ones(2).as_subclass(Plain).requires_grad_()
        (leaf * 3).sum().backward()
        assert leaf.is_leaf and leaf.grad is not None and leaf.grad.tolist() == [3.0, 3.0]

    def test_copies_and_text(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Plain)
        assert type(copy.deepcopy(s)) is type(pickle.loads(pickle.dumps(s))) is Plain
        assert repr(s[0]) == "Plain([0., 1., 2.])"

    def test_shapes_at_the_edge(self) -> None:
        for t in (kiln.tensor(1.0), kiln.zeros(0, 2), kiln.arange(6.0).reshape(2, 3).T):
            assert np.array_equal((t.as_subclass(Plain) + 1).numpy(), t.numpy() + 1)

    def test_not_a_subclass(self, x: kiln.Tensor) -> None:
        with pytest.raises(kiln.ArgumentError, match="as_subclass"):
            x.as_subclass(int)  # type: ignore[type-var]


class TestHandlers:
    def test_what_is_seen(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Logging)
        s + 1
        kiln.exp(s)
        s.numel()
        assert s.shape == (2, 3)
        softmax(s, 1)
        s[0]
        names = [overrides.resolve_name(func) for func, _ in Logging.calls]
        assert names == [
            "kiln.add",
            "kiln.exp",
            "kiln.Tensor.numel",
            "kiln.Tensor.shape.__get__",
            "kiln.nn.functional.softmax",
            "kiln.Tensor.__getitem__",
        ]
        assert {types for _, types in Logging.calls} == {(Logging,)}

    def test_a_changed_function(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Doubling)
        assert np.array_equal(kiln.exp(s).numpy(), 2 * kiln.exp(x).numpy())
        assert np.array_equal(s.exp().numpy(), 2 * x.exp().numpy())

    def test_disabled(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Logging)
        with overrides.DisableTorchFunctionSubclass():
            assert type(s + 1) is kiln.Tensor
        assert not Logging.calls
        assert type(s + 1) is Logging

    def test_kiln_s_functions_stay_what_they_are(self) -> None:
        assert kiln.add is kiln.Tensor.add and kiln.add.__name__ == "add"
        assert str(inspect.signature(kiln.add)).startswith("(input")
        with pytest.raises(TypeError, match="add"):
            kiln.add(kiln.ones(1), kiln.ones(1), 2)  # type: ignore[misc]


class TestDucks:
    def test_functions_and_operators(self) -> None:
        d = Duck(3.0)
        Duck.handled = {kiln.mean: lambda a: a.value, kiln.add: lambda a, b: "sum", kiln.cat: lambda ts: len(ts)}
        assert kiln.mean(d) == 3.0  # type: ignore[arg-type]
        assert kiln.ones(2) + d == "sum"  # type: ignore[operator]
        assert kiln.ones(2).add(d) == "sum"  # type: ignore[arg-type]
        assert kiln.cat([kiln.ones(2), d]) == 2  # type: ignore[list-item]
        with pytest.raises(kiln.ArgumentError, match="sum: __torch_function__ of Duck returned NotImplemented"):
            kiln.sum(d)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unsupported operand"):
            kiln.ones(2) * d  # type: ignore[operator]

    def test_plain_tensors_pay_nothing_before(self) -> None:
        text = """
import kiln
code = kiln.add.__code__
class Duck:
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func.__name__
try:
    kiln.mean(Duck())
except kiln.ArgumentError as error:
    assert "import kiln.overrides" in str(error), error
assert kiln.ones(2) + Duck() == "add"
kiln.nn.Linear(1, 1)
assert kiln.add.__code__ is code
import kiln.overrides
assert kiln.mean(Duck()) == "mean"
"""
        subprocess.run([sys.executable, "-c", text], check=True)


class TestModes:
    def test_plain_calls_are_seen(self, x: kiln.Tensor) -> None:
        class Names(overrides.TorchFunctionMode):
            def __init__(self) -> None:
                self.seen: list[str] = []

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                self.seen.append(func.__name__)
                return func(*args, **(kwargs or {}))

        with Names() as outer, overrides.BaseTorchFunctionMode(), Names() as inner:
            assert isinstance(outer, Names) and isinstance(inner, Names)
            softmax(kiln.zeros(2) + x[0, 0], 0)
        assert outer.seen == inner.seen == ["zeros", "__getitem__", "add", "softmax"]
        x + 1
        assert len(outer.seen) == 4

    def test_subclasses_are_asked_behind_it(self, x: kiln.Tensor) -> None:
        with overrides.BaseTorchFunctionMode():
            assert type(x.as_subclass(Logging).exp()) is Logging
        assert kiln.exp in [func for func, _ in Logging.calls]


class TestTools:
    def test_answers(self, x: kiln.Tensor) -> None:
        s = x.as_subclass(Plain)
        assert not overrides.has_torch_function((x, 1)) and overrides.has_torch_function((1, s))
        assert overrides.has_torch_function_unary(s) and overrides.has_torch_function_variadic(x, s)
        assert overrides.is_tensor_like(x) and overrides.is_tensor_like(Duck(1.0)) and not overrides.is_tensor_like(1)
        assert overrides.resolve_name(kiln.gt) == "kiln.gt" and overrides.resolve_name(len) is None
        assert overrides.resolve_name(kiln.Tensor.T.__get__) == "kiln.Tensor.T.__get__"
        assert overrides.is_tensor_method_or_property(kiln.Tensor.numel)
        assert not overrides.is_tensor_method_or_property(kiln.cat)
        assert kiln.Tensor.grad.__get__ in overrides.get_default_nowrap_functions()
        assert kiln.exp in overrides.get_overridable_functions()[kiln]
        assert kiln.is_tensor in overrides.get_ignored_functions()

    def test_a_function_of_the_user_s(self, x: kiln.Tensor) -> None:
        @overrides.wrap_torch_function(lambda a: (a,))
        def own(a: Any) -> Any:
            if overrides.has_torch_function((a,)):
                return overrides.handle_torch_function(own, (a,), a)
            return a + 1

        assert type(own(x.as_subclass(Logging))) is Logging
        assert [func for func, _ in Logging.calls] == [own]


SCALE = 3.0


class Scaled(kiln.Tensor):
    """neg multiplies by an attribute and a global."""

    scale: Any

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with overrides.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            return result * args[0].scale * SCALE if func is kiln.neg else result


class TestCompiled:
    @pytest.mark.parametrize("kind", [Plain, Doubling])
    def test_as_eager(self, kind: Any, x: kiln.Tensor) -> None:
        def function(x: kiln.Tensor) -> Any:
            return (x * 2).exp().sum(0), x[0]

        compiled = kiln.compile(function)
        s = x.as_subclass(kind)
        expected = function(s)
        for _ in range(3):
            for got, wanted in zip(compiled(s), expected, strict=True):
                assert type(got) is type(wanted) is kind
                assert np.array_equal(got.numpy(), wanted.numpy())
        assert type(compiled(x)[0]) is kiln.Tensor

    def test_what_a_handler_reads_is_guarded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compiled = kiln.compile(lambda x: kiln.neg(x))
        s = kiln.ones(2).as_subclass(Scaled)
        for scale in (2.0, 5.0, kiln.tensor(7.0), kiln.tensor(8.0)):
            s.scale = scale
            assert compiled(s).tolist() == compiled(s).tolist() == [-3.0 * float(scale)] * 2
        monkeypatch.setattr(sys.modules[__name__], "SCALE", 1.0)
        assert compiled(s).tolist() == [-8.0, -8.0]

    def test_new_attributes_are_refused(self) -> None:
        def function(x: kiln.Tensor) -> Any:
            made = (x * 2).as_subclass(Scaled)
            made.scale = 1.0
            return made

        with pytest.raises(kiln.CaptureError, match="new Scaled with attributes"):
            kiln.compile(function, fullgraph=True)(kiln.ones(2))


def test_frames_can_be_looked_at() -> None:
    """As debuggers and failing tests do: also those of functions with cells, which enter through a route."""
    with pytest.raises(kiln.ShapeError) as caught:
        F.mse_loss(kiln.ones(2, 3), kiln.ones(4))  # in float32: a function around the loss
    frames = [entry.frame.raw for entry in caught.traceback]
    entered = [f for f in frames if f.f_code.co_name == "mse_loss" and "_kiln_route" in f.f_locals]
    assert entered and all("function" in f.f_locals for f in entered)
