"""Whatever changes between two calls of a compiled function, by whatever road: the next call follows it."""

from __future__ import annotations

import collections
import copy
import ctypes
import dis
import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn.hooks import Hook
from kiln.runtime import facts, places

GLOBAL = 2.0
LISTED = [1.0, 2.0]
SPACE = types.ModuleType("space")
SPACE.factor = 3.0  # type: ignore[attr-defined]


@dataclass
class Config:
    """Options, as models carry them."""

    scale: float = 2.0
    names: list[str] = field(default_factory=lambda: ["a", "b"])


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1.5


class Plain:
    shared = 1.25

    def __init__(self) -> None:
        self.value = 1.5

    @property
    def twice(self) -> float:
        return self.value * 2

    @staticmethod
    def fixed() -> float:
        return 0.5

    @classmethod
    def of_class(cls) -> float:
        return cls.shared


def helper(x: Any, a: float = 1.0, *, b: float = 2.0) -> Any:
    return x * a + b


class Child(nn.Module):
    offset = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(kiln.arange(1.0, 5.0))
        self.register_buffer("shift", kiln.ones(4))
        self.gain = 1.0
        self.first = True

    def forward(self, x: Any) -> Any:
        x = x * self.weight + self.shift * self.gain + self.offset
        return x * 2 if hasattr(self, "first") else x


class Other(Child):
    def forward(self, x: Any) -> Any:
        return super().forward(x) - 7


def make_closure() -> tuple[Callable[[Any], Any], Callable[[float], None]]:
    held = 1.0

    def use(x: Any) -> Any:
        return x * held

    def change(value: float) -> None:
        nonlocal held
        held = value

    return use, change


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = Child()
        self.stack = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.norm = nn.LayerNorm(4)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(4).eval()
        self.scale = 2.0
        self.config = Config()
        self.table = {"k": 1.0, "deep": {"list": [1.0, {"z": 2.0}]}}
        self.items = [1.0, 2.0]
        self.names = {"plus"}
        self.ordered = collections.OrderedDict(a=3.0, b=2.0)
        self.queue = collections.deque([1.0, 2.0])
        self.counts = collections.defaultdict(float, a=1.0)
        self.slotted = Slotted()
        self.plain = Plain()
        self.space = types.SimpleNamespace(value=1.0)
        self.array = np.array([1.0, 2.0])
        self.tensor = kiln.arange(4.0) / 8
        self.partial = functools.partial(helper, a=3.0)
        self.referent = weakref.ref(self.plain)
        self.use, self.change = make_closure()

    def forward(self, x: Any) -> Any:
        x = self.child(x) * self.scale * self.config.scale * len(self.config.names)
        x = self.drop(self.norm(self.stack(x))) + self.bn(x)
        x = x + self.table["k"] + self.table["deep"]["list"][1]["z"] + self.items[0] * len(self.items)  # type: ignore
        for key, value in self.ordered.items():
            x = x * value if key == "a" else x + value
        x = x + self.queue[0] + self.counts["a"] + self.slotted.value + self.plain.value + self.plain.twice
        x = x + self.plain.fixed() + self.plain.of_class() + self.space.value + float(self.array[0])
        x = x + self.tensor + (1.0 if "plus" in self.names else 0.0) + (0.125 if self.referent() is not None else 0.0)
        return kiln.zeros(1) + self.use(self.partial(x)) + GLOBAL + LISTED[0] + SPACE.factor + helper(x)


def through_c(name: str, value: Any) -> Callable[[Any], None]:
    return lambda m: object.__setattr__(m, name, value)


def move(mapping: Any) -> None:
    mapping.move_to_end("a")


def renamed(m: Any) -> None:
    """One attribute goes, another takes its place with the same value: as many as before, in the same order."""
    del m.child.first
    m.child.second = True


def renamed_through_c(m: Any) -> None:
    object.__delattr__(m.child, "first")
    object.__setattr__(m.child, "second", True)


def shadow(m: Any) -> None:
    """A plain attribute hides a parameter."""
    object.__setattr__(m.child, "weight", kiln.full((4,), 9.0))


def no_longer(m: Any) -> None:
    del m.child.gain
    Child.gain = 5.0  # type: ignore[misc]


def code(m: Any) -> None:
    helper.__code__ = _other_helper.__code__


def _other_helper(x: Any, a: float = 1.0, *, b: float = 2.0) -> Any:
    return x - a * b


def shifted(self: Any, x: Any) -> Any:
    return x + 19


def _refilled(mapping: dict[str, Any], **values: Any) -> None:
    """A dict is emptied and takes over the keys of another."""
    others = {**mapping, **values}
    mapping.clear()
    mapping.update(others)


def _doubled(module: Any) -> Any:
    with kiln.no_grad():
        module.weight.mul_(2)
    return module


def hook(module: Any, args: Any, result: Any) -> Any:
    return result + 1


def pre_hook(module: Any, args: Any) -> Any:
    return (args[0] + 1,)


CHANGES: dict[str, Callable[[Any], Any]] = {
    # attributes of a module
    "attribute": lambda m: setattr(m, "scale", 3.0),
    "attribute of a child": lambda m: setattr(m.child, "gain", 3.0),
    "attribute by __dict__": lambda m: m.__dict__.__setitem__("scale", 3.0),
    "attribute by vars": lambda m: vars(m.child).update(gain=3.0),
    "attribute by dict.__setitem__": lambda m: dict.__setitem__(vars(m), "scale", 3.0),
    "attribute by object.__setattr__": through_c("scale", 3.0),
    "attribute by super": lambda m: super(nn.Module, m.child).__setattr__("gain", 3.0),
    "other __dict__": lambda m: setattr(m, "__dict__", {**vars(m), "scale": 3.0}),
    "other __dict__ by object.__setattr__": lambda m: through_c("__dict__", {**vars(m), "scale": 3.0})(m),
    "negative zero": lambda m: setattr(m.child, "gain", -0.0),
    "int for float": lambda m: setattr(m, "scale", 2),
    "bool for float": lambda m: setattr(m.child, "gain", True),
    "tensor for float": lambda m: setattr(m, "scale", kiln.full((4,), 2.5)),
    "renamed": renamed,
    "renamed by object.__delattr__": renamed_through_c,
    "a parameter hidden": shadow,
    "an attribute that the class has": no_longer,
    "forward of an instance": lambda m: setattr(m.child, "forward", lambda x: x * 11),
    "forward by object.__setattr__": lambda m: object.__setattr__(m.child, "forward", lambda x: x * 11),
    "forward by vars": lambda m: vars(m.stack[0]).update(forward=lambda x: x * 11),
    "class": lambda m: setattr(m.child, "__class__", Other),
    "class by object.__setattr__": lambda m: object.__setattr__(m.child, "__class__", Other),
    "attribute by |=": lambda m: vars(m).__ior__({"scale": 3.0}),
    "attribute by __ior__ of the other": lambda m: setattr(m, "__dict__", vars(m) | {"scale": 3.0}),
    "attribute by dict.__init__": lambda m: vars(m).__init__({"scale": 3.0}),
    "attribute by dict.__setitem__ and back": lambda m: [vars(m.child).update(gain=v) for v in (3.0, 1.0, 4.0)],
    "attribute by a C function": lambda m: ctypes.pythonapi.PyDict_SetItem(
        ctypes.py_object(vars(m)), ctypes.py_object("scale"), ctypes.py_object(3.0)
    ),
    "attribute by PyObject_SetAttr": lambda m: ctypes.pythonapi.PyObject_SetAttr(
        ctypes.py_object(m), ctypes.py_object("scale"), ctypes.py_object(3.0)
    ),
    "attribute by exec": lambda m: exec("m.child.gain = 3.0", {"m": m}),
    "attribute in a loop": lambda m: [setattr(m.child, "gain", float(k)) for k in range(100)],
    "attributes taken and given": lambda m: vars(m.child).update(gain=vars(m.child).pop("gain") + 1),
    "all attributes anew": lambda m: _refilled(vars(m), scale=3.0),
    "all attributes of a child anew": lambda m: _refilled(vars(m.child), gain=3.0),
    # what modules register
    "parameter": lambda m: setattr(m.child, "weight", nn.Parameter(kiln.full((4,), 3.0))),
    "parameter by register_parameter": lambda m: m.child.register_parameter("weight", nn.Parameter(kiln.zeros(4))),
    "parameter in _parameters": lambda m: m.child._parameters.update(weight=nn.Parameter(kiln.full((4,), 3.0))),
    "parameter by dict.update": lambda m: dict.update(m.stack[0]._parameters, bias=nn.Parameter(kiln.ones(4))),
    "no parameter": lambda m: setattr(m.stack[0], "bias", None),
    "other _parameters": lambda m: setattr(m.child, "_parameters", {"weight": nn.Parameter(kiln.zeros(4))}),
    "other _parameters by vars": lambda m: vars(m.child).update(_parameters={"weight": nn.Parameter(kiln.zeros(4))}),
    "buffer": lambda m: setattr(m.child, "shift", kiln.full((4,), 5.0)),
    "buffer in _buffers": lambda m: m.child._buffers.update(shift=kiln.full((4,), 5.0)),
    "submodule": lambda m: setattr(m, "child", Other()),
    "submodule in _modules": lambda m: m._modules.update(child=Other()),
    "submodule by index": lambda m: m.stack.__setitem__(1, nn.Tanh()),
    "parameters anew": lambda m: _refilled(m.child._parameters, weight=nn.Parameter(kiln.full((4,), 3.0))),
    "parameters by |=": lambda m: m.child._parameters.__ior__({"weight": nn.Parameter(kiln.full((4,), 3.0))}),
    "module taken out": lambda m: m.stack._modules.popitem(),
    "none left": lambda m: m.stack._modules.clear(),
    "swapped": lambda m: m.stack._modules.update({"0": m.stack[2], "2": m.stack[0]}),
    "copied and put in": lambda m: setattr(m, "child", _doubled(copy.deepcopy(m.child))),
    "appended": lambda m: m.stack.append(nn.Tanh()),
    "removed": lambda m: m.stack.__delitem__(1),
    "another order": lambda m: m.stack._modules.update({"1": m.stack._modules.pop("1")}),
    "loaded": lambda m: m.child.load_state_dict({"weight": kiln.zeros(4), "shift": kiln.zeros(4)}),
    "loaded by assigning": lambda m: m.child.load_state_dict(
        {"weight": kiln.zeros(4), "shift": kiln.zeros(4)}, assign=True
    ),
    "forward hook": lambda m: m.child.register_forward_hook(hook),
    "forward hook of a library's layer": lambda m: m.norm.register_forward_hook(hook),
    "forward pre-hook": lambda m: m.child.register_forward_pre_hook(pre_hook),
    "hook in _forward_hooks": lambda m: m.norm._forward_hooks.__setitem__(1, Hook(hook)),
    "hooks by vars": lambda m: vars(m.norm).update(_forward_hooks={1: Hook(hook)}),
    "training": lambda m: m.bn.train(),
    "training by vars": lambda m: vars(m.bn).update(training=True),
    "training by object.__setattr__": lambda m: object.__setattr__(m.bn, "training", True),
    # tensors
    "data": lambda m: setattr(m.child.weight, "data", kiln.full((4,), 3.0)),
    "data in place": lambda m: m.child.weight.data.mul_(3),
    "copied": lambda m: m.child.weight.detach().copy_(kiln.zeros(4)),
    "frozen": lambda m: m.requires_grad_(False),
    "frozen in part": lambda m: m.child.weight.requires_grad_(False),
    "buffer wants a gradient": lambda m: m.child.shift.requires_grad_(),
    "tensor wants a gradient": lambda m: m.tensor.requires_grad_(),
    "set_": lambda m: m.child.shift.set_(kiln.full((4,), 5.0)),
    "tensor in place": lambda m: m.tensor.add_(1),
    "another tensor": lambda m: setattr(m, "tensor", kiln.ones(4)),
    "another shape": lambda m: setattr(m, "tensor", kiln.ones(1)),
    "resized": lambda m: m.tensor.resize_(1),
    "float64": lambda m: m.double(),
    "NumPy's memory": lambda m: m.array.__setitem__(0, 7.0),
    # objects, containers
    "data class": lambda m: setattr(m.config, "scale", 3.0),
    "list in a data class": lambda m: m.config.names.append("c"),
    "another data class": lambda m: setattr(m, "config", Config(5.0)),
    "dict": lambda m: m.table.update(k=2.0),
    "dict deep down": lambda m: m.table["deep"]["list"][1].update(z=9.0),
    "list deep down": lambda m: m.table["deep"]["list"].__setitem__(1, {"z": 9.0}),
    "list": lambda m: m.items.__setitem__(0, 4.0),
    "longer list": lambda m: m.items.append(4.0),
    "list by slice": lambda m: m.items.__setitem__(slice(0, 1), [4.0]),
    "set": lambda m: m.names.clear(),
    "another set": lambda m: setattr(m, "names", set()),
    "order": lambda m: move(m.ordered),
    "deque": lambda m: m.queue.rotate(),
    "defaultdict": lambda m: m.counts.update(a=4.0),
    "slot": lambda m: setattr(m.slotted, "value", 4.0),
    "slot by object.__setattr__": lambda m: object.__setattr__(m.slotted, "value", 4.0),
    "slot by its descriptor": lambda m: Slotted.value.__set__(m.slotted, 4.0),  # type: ignore[attr-defined]
    "plain object": lambda m: setattr(m.plain, "value", 4.0),
    "plain object by vars": lambda m: vars(m.plain).update(value=4.0),
    "name space": lambda m: setattr(m.space, "value", 4.0),
    "partial": lambda m: setattr(m, "partial", functools.partial(helper, a=4.0)),
    "partial's keywords": lambda m: m.partial.keywords.update(a=4.0),
    "partial's state": lambda m: m.partial.__setstate__((helper, (), {"a": 4.0}, {})),
    "weak reference": lambda m: setattr(m, "referent", weakref.ref(Plain())),
    # classes
    "method": lambda m: setattr(Child, "forward", lambda self, x: x * 13),
    "method by type.__setattr__": lambda m: type.__setattr__(Child, "forward", lambda self, x: x * 13),
    "class attribute": lambda m: setattr(Child, "offset", 4.0),
    "class attribute in a loop": lambda m: [setattr(Child, "offset", float(k)) for k in range(100)],
    "method and back": lambda m: [setattr(Child, "forward", f) for f in (Other.forward, Child.forward, shifted)],
    "method of a library's layer": lambda m: setattr(nn.Linear, "forward", lambda self, x: x * 13),
    "call of a library's layer": lambda m: setattr(nn.LayerNorm, "__call__", lambda self, x: x * 13),
    "call of all modules": lambda m: setattr(nn.Module, "__call__", lambda self, *a: self.forward(*a) * 2),
    "attributes of a class": lambda m: setattr(Child, "__getattribute__", _tampered),
    "bases": lambda m: setattr(Child, "__bases__", (Tampered,)),
    "static method": lambda m: setattr(Plain, "fixed", staticmethod(lambda: 8.0)),
    "class method": lambda m: setattr(Plain, "of_class", classmethod(lambda cls: 8.0)),
    "property": lambda m: setattr(Plain, "twice", property(lambda self: 8.0)),
    "attribute of a plain class": lambda m: setattr(Plain, "shared", 8.0),
    # functions, closures, globals
    "global": lambda m: globals().update(GLOBAL=5.0),
    "global by STORE_GLOBAL": lambda m: exec("GLOBAL = 5.0", globals()),
    "global list": lambda m: LISTED.__setitem__(0, 5.0),
    "attribute of a module of Python's": lambda m: setattr(SPACE, "factor", 5.0),
    "built-in hidden": lambda m: globals().update(float=lambda x: 99.0),
    "closure": lambda m: m.change(5.0),
    "cell": lambda m: setattr(m.use.__closure__[0], "cell_contents", 5.0),
    "defaults": lambda m: setattr(helper, "__defaults__", (5.0,)),
    "keyword defaults": lambda m: setattr(helper, "__kwdefaults__", {"b": 5.0}),
    "keyword defaults in place": lambda m: helper.__kwdefaults__.update(b=5.0),
    "code": code,
    "parts of a property": lambda m: vars(Plain)["twice"].__init__(lambda self: 8.0),
    "what a static method calls": lambda m: vars(Plain)["fixed"].__init__(lambda: 8.0),
    # modes
    "default dtype": lambda m: kiln.set_default_dtype(kiln.float64),
}


class Tampered(nn.Module):
    def __call__(self, *args: Any) -> Any:
        return super().__call__(*args) - 3


def _tampered(self: Any, name: str) -> Any:
    return 17.0 if name == "gain" else object.__getattribute__(self, name)


@pytest.fixture
def _restored() -> Iterator[None]:
    """Classes, functions and globals as they were."""
    classes = (Child, Other, Plain, nn.Linear, nn.LayerNorm, nn.Module)
    before = [dict(vars(c)) for c in classes]
    bases, function = Child.__bases__, (helper.__defaults__, dict(helper.__kwdefaults__ or {}), helper.__code__)
    parts = [(vars(Plain)["twice"], Plain.twice.fget), (vars(Plain)["fixed"], Plain.fixed)]  # type: ignore[attr-defined]
    yield
    for whole, part in parts:
        whole.__init__(part)
    Child.__bases__ = bases
    for c, attributes in zip(classes, before, strict=True):
        for name in [n for n in vars(c) if n not in attributes]:
            delattr(c, name)
        for name, value in attributes.items():
            if vars(c)[name] is not value:
                setattr(c, name, value)
    helper.__defaults__, helper.__kwdefaults__, helper.__code__ = function
    globals().update(GLOBAL=2.0)
    globals().pop("float", None)
    LISTED[:] = [1.0, 2.0]
    SPACE.factor = 3.0  # type: ignore[attr-defined]
    kiln.set_default_dtype(kiln.float32)


def told(call: Any, model: Any, x: Any) -> tuple[Any, ...]:
    """All that there is to see of a call, and of the gradients that go back through it."""
    kiln.manual_seed(1)
    t = call(x)
    made: list[Any] = [t.dtype, t.shape, t.requires_grad, t.detach().numpy().tobytes()]
    if t.requires_grad:
        t.sum().backward()
    for p in [*model.parameters(), *model.buffers(), model.tensor]:
        made.append(None if p.grad is None else p.grad.numpy().tobytes())
        p.grad = None
    return tuple(made)


SAME = {"another set", "renamed", "renamed by object.__delattr__", "int for float", "bool for float", "another shape"}
"""Changes after which this model may happen to compute the same."""


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_followed(change: str) -> None:
    kiln.manual_seed(0)
    model = Model().eval()
    x = kiln.arange(4.0).reshape(1, 4) + 0.5
    x = kiln.cat([x, x * 2, x - 3])
    compiled = kiln.compile(model)
    before = told(model, model, x)
    assert [told(compiled, model, x) for _ in range(3)] == [before] * 3
    assert compiled.report().compiled == 2, compiled.report()
    CHANGES[change](model)
    after = told(model, model, x)
    assert after != before or change in SAME, "the change changes nothing: it tests nothing"
    for _ in range(3):
        assert told(compiled, model, x) == after


def test_a_table_is_all_that_a_plain_model_needs() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))
    compiled = kiln.compile(model)
    compiled(kiln.ones(2, 4))
    ((entry,),) = compiled._entries.values()
    assert facts.available() and entry.reached.guards._plain


@pytest.mark.parametrize("change", ["attribute", "dict", "list", "parameter in _parameters", "cell", "frozen", "class"])
@pytest.mark.usefixtures("_restored")
@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
def test_without_native_checking(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "available", lambda: False)
    test_every_change_is_followed(change)


@pytest.mark.parametrize("change", [c for k, c in enumerate(CHANGES) if k % 6 == 0 or "loop" in c or "anew" in c])
@pytest.mark.usefixtures("_restored")
@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
def test_without_version_tags(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "tag_word", lambda: None)
    monkeypatch.setattr(places, "dict_word", lambda kind: None)
    test_every_change_is_followed(change)


def store(x: Any, values: Any, seen: Callable[[], object]) -> list[Any]:
    """The interpreter makes the assignment's instruction a special one, which writes in a way of its own."""
    found = []
    for value in values:
        x.value = value
        found.append(seen())
    return found


def fresh(function: Any) -> Any:
    """A function whose code has not run yet."""
    return types.FunctionType(function.__code__.replace(), function.__globals__)


class Few:
    def __init__(self) -> None:
        self.value, self.other = 0.5, 1.0


class Many:
    def __init__(self) -> None:
        for k in range(64):
            setattr(self, f"a{k}", float(k))
        self.value = 0.5


class Typed:
    value = 0.5


class Numbers(dict[str, float]):
    def __init__(self) -> None:
        self.value = 0.5


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = 0.5


@pytest.mark.parametrize("kind", [Few, Many, Typed, Numbers, Holder, types.SimpleNamespace, types.FunctionType])
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_special_instructions_are_followed(kind: Any, early: bool) -> None:
    """Loops of assignments, hot before the first call or only after it, whatever kind of object they write to."""
    if kind is Typed:
        held = Typed
        held.value = 0.5
    elif kind is types.FunctionType:
        held = fresh(store)
        held.value = 0.5
    else:
        held = kind(value=0.5) if kind is types.SimpleNamespace else kind()
    hot = fresh(store)
    if early:
        hot(held, map(float, range(100)), lambda: None)

    @kiln.compile
    def f(x: Any) -> Any:
        return x * held.value

    one = kiln.ones(1)
    held.value = 0.25
    f(one), f(one)
    before = f.report()
    # As often as possible without running out of captures; a turn without a call must not hide the next.
    values = [float(k // 4) for k in range(1000)]
    calls = iter(range(1000))
    found = hot(held, values, lambda: f(one).item() if next(calls) % 8 in (3, 4) else None)
    assert all(got is None or got == wanted for got, wanted in zip(found, values, strict=True))
    assert f.report().captured > before.captured


@pytest.mark.skipif(places.tag_word() is None, reason="no version tags here")
def test_tags_move_with_special_instructions() -> None:
    """The test above is one: the loop's instruction is special, and each of its writes moves the tag of the dict."""
    held = Many()
    attributes, hot, word = vars(held), fresh(store), places.tag_word()
    tags = hot(held, map(float, range(1000)), lambda: places.word_at(id(attributes) + word))
    assert len(set(tags)) == 1000
    adaptive = {"adaptive": True} if sys.version_info >= (3, 11) else {}
    assert "STORE_ATTR_WITH_HINT" in {i.opname for i in dis.get_instructions(hot, **adaptive)}


def test_a_change_undone_is_no_change() -> None:
    """Dicts that were written to and hold what they held: no new capture, and the next look is a short one again."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))
    compiled, x = kiln.compile(model), kiln.ones(2, 4)
    wanted = compiled(x).tolist()
    ((entry,),) = compiled._entries.values()
    check = entry.reached.guards._unchanged
    for _ in range(3):
        weight = model[0]._parameters["weight"]
        model[0]._parameters["weight"] = nn.Parameter(kiln.zeros(4, 4))
        assert not check()
        model[0]._parameters["weight"] = weight
        vars(model[2])["extra"] = 1
        assert not check()
        del vars(model[2])["extra"]
        assert check()
        assert compiled(x).tolist() == wanted
    assert compiled.report().captured == 1
    vars(model)["_parameters"] = vars(model)["_parameters"].copy()  # an equal dict is another dict
    assert not check()


def test_equal_values_are_no_change() -> None:
    """What was replaced by an equal number or string is looked at once, and then quickly again."""

    @kiln.compile
    def f(x: Any) -> Any:
        return x * held.value + len(held.name)

    held = types.SimpleNamespace(value=1234.5, name="a name")
    f(kiln.ones(2))
    held.value, held.name = float("1234.5"), "".join(["a", " name"])
    f(kiln.ones(2))
    assert f.report().captured == 1
    ((entry,),) = f._entries.values()
    assert entry.reached.guards._unchanged()


def test_many_threads_compile_each_shape_once() -> None:
    @kiln.compile
    def f(x: Any, k: int) -> Any:
        return (x * k + 1).sum() if x.sum() > 0 else x.sum()

    failures: list[Any] = []
    start = threading.Barrier(32)

    def work(seed: int) -> None:
        start.wait()
        for n in range(60):
            size, k = (n * 7 + seed) % 5 + 1, (n + seed) % 3
            got, sign = f(x := kiln.full((size,), 1.0 if n % 2 else -1.0), k), 1.0 if n % 2 else -1.0
            wanted = size * (k + 1.0) if sign > 0 else -float(size)
            if got.item() != wanted or x.shape != (size,):
                failures.append((seed, n, got, wanted))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert f.report().captured == 5 * 3
    assert f.report().eager == 0


def test_addresses_are_not_mistaken_for_objects() -> None:
    """Equal values that took the place of others, while something else did not hold; then others at their addresses."""

    @kiln.compile
    def f(x: Any) -> Any:
        return x * held.value + held.other

    held = types.SimpleNamespace(value=float("1234.5"), other=1.0)
    f(kiln.ones(2))
    for k in range(50):
        held.value, held.other = float("1234.5"), 2.0
        assert f(kiln.ones(2)).tolist() == [1236.5] * 2
        held.value, held.other = 1000.0 + k, 1.0
        assert f(kiln.ones(2)).tolist() == [1001.0 + k] * 2
