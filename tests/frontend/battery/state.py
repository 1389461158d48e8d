"""Python state that a compiled function reads: closures, globals, modules, objects, classes."""

from __future__ import annotations

import collections
import enum
import functools
import operator
import types
import weakref
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, importable, linear, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


# ------------------------------------------------------------------------------------------------ closures


@right(captures=1)
def closure_constant(c: Any, see: Any) -> None:
    k = 3.0
    f = c(lambda x: x * k)
    for n in range(3):
        see(f(vector(n, 1)))


@right(captures=3)
def closure_number_changes(c: Any, see: Any) -> None:
    k = 1.0
    f = c(lambda x: x * k)
    for value in (1.0, 2.0, 2.0, 3.0, 3.0):
        k = value
        see(f(vector(1, 2)))


@right()
def closure_number_changes_type(c: Any, see: Any) -> None:
    k: Any = 1
    f = c(lambda x: x * k)
    for value in (1, 1.0, True, np.float32(1), np.int64(1), 1):
        k = value
        see(f(kiln.tensor([1, 2])))
        see(f(vector(1, 2)))


@right()
def closure_zero_changes_sign(c: Any, see: Any) -> None:
    k = 0.0
    f = c(lambda x: x * k)
    for value in (0.0, -0.0, 0.0, float("nan"), float("nan"), float("-inf")):
        k = value
        see(f(vector(1, 2)))


@right(captures=2)
def closure_tensor_is_replaced(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    see(f(vector(3, 4)), f(vector(3, 4)))
    w = vector(5, 6)
    see(f(vector(3, 4)), f(vector(3, 4)))


@right(captures=1)
def closure_tensor_is_written(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    for n in range(4):
        see(f(vector(3, 4)))
        w.add_(float(n))


@right(captures=1)
def closure_tensor_is_written_through_numpy(c: Any, see: Any) -> None:
    a = np.ones(3, np.float32)
    w = kiln.from_numpy(a)
    f = c(lambda x: x * w)
    for n in range(3):
        see(f(vector(3, 4, 5)))
        a[n] = 7.0


@right(captures=1)
def closure_tensor_trained(c: Any, see: Any) -> None:
    w = vector(1, 2, grad=True)
    f = c(lambda x: (x * w).sum())
    for _ in range(4):
        loss = f(vector(3, 4))
        loss.backward()
        with kiln.no_grad():
            w -= w.grad * 0.1
        see(loss, w)
        w.grad = None


@right()
def closure_tensor_changes_shape(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: (x * w).sum())
    for n in (1, 2, 1, 3):
        w = vector(*range(n))
        see(f(vector(2)))


@right()
def closure_tensor_changes_dtype(c: Any, see: Any) -> None:
    w: Any = vector(1, 2)
    f = c(lambda x: x * w)
    for d in (kiln.float32, kiln.int64, kiln.float64, kiln.bool, kiln.float32):
        w = kiln.tensor([0, 1], dtype=d)
        see(f(vector(2, 3)))


@right()
def closure_requires_grad_is_toggled(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    for n in range(6):
        w.requires_grad_(n % 2 == 1)
        see(f(vector(2, 3)))


@right(captures=2)
def closure_list_of_tensors_item_replaced(c: Any, see: Any) -> None:
    ws = [vector(1), vector(2)]
    f = c(lambda x: x * ws[0] + ws[1])
    see(f(vector(5)), f(vector(5)))
    ws[1] = vector(9)
    see(f(vector(5)), f(vector(5)))


@right()
def closure_list_grows(c: Any, see: Any) -> None:
    ws = [vector(1)]
    f = c(lambda x: sum((x * w for w in ws), x))
    for n in range(4):
        see(f(vector(5)), f(vector(5)))
        ws.append(vector(n))


@right()
def closure_list_reordered(c: Any, see: Any) -> None:
    ws = [vector(1), vector(2)]
    f = c(lambda x: x * ws[0] - ws[1])
    for _ in range(3):
        see(f(vector(5)), f(vector(5)))
        ws.reverse()


@right()
def closure_dict_changes(c: Any, see: Any) -> None:
    d: dict[str, Any] = {"a": 2.0, "b": vector(1)}
    f = c(lambda x: x * d["a"] + d.get("c", d["b"]))
    see(f(vector(5)), f(vector(5)))
    d["a"] = 3.0
    see(f(vector(5)), f(vector(5)))
    d["c"] = 10.0
    see(f(vector(5)), f(vector(5)))
    del d["c"]
    see(f(vector(5)), f(vector(5)))


@right()
def closure_dict_iteration_order(c: Any, see: Any) -> None:
    d = {"a": vector(1), "b": vector(2)}
    f = c(lambda x: [x + v for v in d.values()])
    see(f(vector(5)), f(vector(5)))
    d["a"] = d.pop("a")
    see(f(vector(5)), f(vector(5)))


@right()
def closure_nested_containers(c: Any, see: Any) -> None:
    d = {"layers": [{"w": vector(2)}, {"w": vector(3)}]}
    f = c(lambda x: x * d["layers"][0]["w"] * d["layers"][1]["w"])
    see(f(vector(5)), f(vector(5)))
    d["layers"][1]["w"] = vector(4)
    see(f(vector(5)), f(vector(5)))
    d["layers"][0] = {"w": vector(10)}
    see(f(vector(5)), f(vector(5)))


@right()
def closure_set(c: Any, see: Any) -> None:
    s = {1, 2}
    f = c(lambda x: x * len(s) + (3 in s))
    see(f(vector(5)), f(vector(5)))
    s.add(3)
    see(f(vector(5)), f(vector(5)))
    s.discard(1)
    see(f(vector(5)), f(vector(5)))


@right()
def closure_deque(c: Any, see: Any) -> None:
    d = collections.deque([vector(1)], maxlen=2)
    f = c(lambda x: sum(d, x))
    for n in range(3):
        see(f(vector(5)), f(vector(5)))
        d.append(vector(n))


@right()
def closure_ordered_dict_moves(c: Any, see: Any) -> None:
    d = collections.OrderedDict(a=vector(1), b=vector(2))
    f = c(lambda x: [x + v for v in d.values()])
    see(f(vector(5)), f(vector(5)))
    d.move_to_end("a")
    see(f(vector(5)), f(vector(5)))


@right()
def closure_default_dict(c: Any, see: Any) -> None:
    d: Any = collections.defaultdict(float, a=2.0)
    f = c(lambda x: x * d["a"])
    see(f(vector(5)), f(vector(5)))
    d["a"] = 3.0
    see(f(vector(5)))


@refused()
def closure_default_dict_makes_an_entry(c: Any, see: Any) -> None:
    d: Any = collections.defaultdict(float)
    f = c(lambda x: x * d["a"])
    see(f(vector(5)))


@right()
def closure_counter_and_chain_map(c: Any, see: Any) -> None:
    d = collections.Counter("aab")
    m = collections.ChainMap({"k": 2.0}, {"j": 3.0})
    f = c(lambda x: x * d["a"] * m["k"] * m["j"])
    see(f(vector(5)), f(vector(5)))
    d.update("aa")
    see(f(vector(5)))
    m.maps[1]["j"] = 1.0
    see(f(vector(5)))


@right()
def closure_numpy_array_changes(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0])
    f = c(lambda x: x * float(a[0]))
    for n in range(3):
        see(f(vector(5)), f(vector(5)))
        a[0] += n


@right()
def closure_numpy_becomes_a_constant(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0], np.float32)
    f = c(lambda x: x * kiln.tensor(a))
    for _ in range(3):
        see(f(vector(5, 6)), f(vector(5, 6)))
        a += 1


@refused()
def closure_numpy_shares_memory(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0], np.float32)
    f = c(lambda x: x * kiln.from_numpy(a))
    see(f(vector(5, 6)))


@right()
def closure_numpy_view_of_a_changing_array(c: Any, see: Any) -> None:
    a = np.arange(6.0)
    v = a[::2]
    f = c(lambda x: x * float(v.sum()))
    see(f(vector(5)), f(vector(5)))
    a[4] = 100
    see(f(vector(5)), f(vector(5)))


@refused()
def closure_object_array(c: Any, see: Any) -> None:
    a = np.array([1, "a"], dtype=object)
    f = c(lambda x: x * a[0])
    see(f(vector(5)))


@right()
def closure_numpy_polynomial(c: Any, see: Any) -> None:
    p = np.poly1d([1.0, 2.0])
    f = c(lambda x: x * float(p(2.0)))
    see(f(vector(5)), f(vector(5)))
    p.coeffs[0] = 7.0
    see(f(vector(5)))


@right()
def closure_nonlocal_between_calls(c: Any, see: Any) -> None:
    n = 0

    def advance() -> None:
        nonlocal n
        n += 1

    f = c(lambda x: x * n)
    for _ in range(3):
        see(f(vector(5)), f(vector(5)))
        advance()


@refused()
def closure_nonlocal_counted_inside(c: Any, see: Any) -> None:
    n = 0

    def f(x: Any) -> Any:
        nonlocal n
        n += 1
        return x * n

    g = c(f)
    see(g(vector(5)))


@right()
def closure_cell_bound_later(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        return x * k  # noqa: F821

    g = c(f)
    see.attempt(lambda: g(vector(1)))
    k = 2.0
    see(g(vector(1)), g(vector(1)))
    del k
    see.attempt(lambda: g(vector(1)))


@right()
def closure_shared_by_two(c: Any, see: Any) -> None:
    state = {"k": 1.0}
    f = c(lambda x: x * state["k"])
    g = c(lambda x: f(x) + state["k"])
    for n in range(3):
        see(f(vector(5)), g(vector(5)), g(vector(5)))
        state["k"] = float(n)


@right()
def closure_helper_function_replaced(c: Any, see: Any) -> None:
    def helper(x: Any) -> Any:
        return x * 2

    f = c(lambda x: helper(x) + 1)
    see(f(vector(5)), f(vector(5)))

    def helper(x: Any) -> Any:  # noqa: F811
        return x * 3

    see(f(vector(5)), f(vector(5)))


@right()
def closure_of_a_helper_changes(c: Any, see: Any) -> None:
    k = 2.0

    def inner(x: Any) -> Any:
        return x * k

    def outer(x: Any) -> Any:
        return inner(x) + 1

    f = c(lambda x: outer(x))
    see(f(vector(5)), f(vector(5)))
    k = 4.0
    see(f(vector(5)), f(vector(5)))


@right()
def factory_of_closures(c: Any, see: Any) -> None:
    def scaled(k: float) -> Any:
        return lambda x: x * k

    fs = [c(scaled(float(k))) for k in range(3)]
    for _ in range(2):
        see([f(vector(5)) for f in fs])


@right()
def late_binding_lambdas(c: Any, see: Any) -> None:
    fs = [lambda x: x * k for k in range(3)]  # noqa: B023
    f = c(lambda x: [g(x) for g in fs])
    see(f(vector(5)), f(vector(5)))


@right()
def functions_in_a_table(c: Any, see: Any) -> None:
    table = {"a": lambda x: x * 2, "b": lambda x: x * 3}
    f = c(lambda x, key: table[key](x))
    see(f(vector(5), "a"), f(vector(5), "b"), f(vector(5), "a"))
    table["a"] = table["b"]
    see(f(vector(5), "a"))


@right()
def range_and_slice_in_closure(c: Any, see: Any) -> None:
    r: Any = range(3)
    s: Any = slice(0, 2)
    f = c(lambda x: sum((x[s] * k for k in r), x[s]))
    see(f(kiln.arange(4.0)), f(kiln.arange(4.0)))
    r = range(2)
    see(f(kiln.arange(4.0)))
    s = slice(1, 4)
    see(f(kiln.arange(4.0)), f(kiln.arange(4.0)))


@right()
def attrgetter_itemgetter(c: Any, see: Any) -> None:
    box = types.SimpleNamespace(w=vector(2))
    get: Any = operator.attrgetter("w")
    first = operator.itemgetter(0)
    f = c(lambda x: x * get(box) + first([x]))
    see(f(vector(5)), f(vector(5)))
    box.w = vector(4)
    see(f(vector(5)), f(vector(5)))


@right()
def weak_reference_to_an_object(c: Any, see: Any) -> None:
    class Box:
        k = 2.0

    boxes = [Box()]
    ref = weakref.ref(boxes[0])

    def f(x: Any) -> Any:
        box = ref()
        return x * box.k if box is not None else -x

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    boxes[0].k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def weak_reference_dies(c: Any, see: Any) -> None:
    import gc

    class Box:
        pass

    boxes = [Box()]
    ref = weakref.ref(boxes[0])
    f = c(lambda x: x * 2 if ref() is None else x * 3)
    see(f(vector(5)), f(vector(5)))
    boxes.clear()
    gc.collect()
    del f  # what a compiled function has seen, it keeps alive; a new one must see the truth
    g = c(lambda x: x * 2 if ref() is None else x * 3)
    see.log.append("the object may live as long as something watches it")
    see(len([g(vector(5))]))


# ------------------------------------------------------------------------------------------------- globals


@right(captures=2)
def global_number(c: Any, see: Any) -> None:
    m = module("SCALE = 2.0\ndef f(x): return x * SCALE")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    m.SCALE = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def global_appears_and_hides_a_builtin(c: Any, see: Any) -> None:
    m = module("def f(x): return x * abs(-2.0)")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    m.abs = lambda x: 7.0
    see(f(vector(5)), f(vector(5)))
    del m.abs
    see(f(vector(5)))


@right()
def global_deleted(c: Any, see: Any) -> None:
    m = module("SCALE = 2.0\ndef f(x): return x * SCALE")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    del m.SCALE
    see.attempt(lambda: f(vector(5)))


@refused()
def global_counter(c: Any, see: Any) -> None:
    m = module("N = 0\ndef f(x):\n    global N\n    N += 1\n    return x * N")
    see(c(m.f)(vector(5)))


@refused()
def global_list_appended(c: Any, see: Any) -> None:
    m = module("LOG = []\ndef f(x):\n    LOG.append(1)\n    return x")
    see(c(m.f)(vector(5)))


@right(captures=2)
def global_function_replaced(c: Any, see: Any) -> None:
    m = module("def g(x): return x * 2\ndef f(x): return g(x) + 1")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    m.g = lambda x: x * 3
    see(f(vector(5)), f(vector(5)))


@right(captures=2)
def global_of_another_module(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    m = module("def f(x): return x * config.SCALE", config=config)
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)), f(vector(5)))


@right(captures=1)
def unused_global_of_another_module(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0\nOTHER = 1")
    m = module("def f(x): return x * config.SCALE", config=config)
    f = c(m.f)
    for n in range(4):
        config.OTHER = n
        see(f(vector(5)))


@right(captures=1)
def unused_global_of_the_same_module(c: Any, see: Any) -> None:
    m = module("step = 0\ndef f(x): return x * 2")
    f = c(m.f)
    for n in range(4):
        m.step = n
        see(f(vector(5)))


@right(captures=2)
def module_under_another_name(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    m = module("def f(x):\n    cfg = config\n    return x * cfg.SCALE", config=config)
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)), f(vector(5)))


@right(captures=2)
def module_in_a_dict(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    table = {"config": config}
    f = c(lambda x: x * table["config"].SCALE)
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def module_by_getattr_constant(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    f = c(lambda x: x * getattr(config, "SCALE") * getattr(config, "OTHER", 1.0))  # noqa: B009
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)), f(vector(5)))
    config.OTHER = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def module_by_getattr_with_an_argument(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    f = c(lambda x, name: x * getattr(config, name))
    see(f(vector(5), "SCALE"), f(vector(5), "SCALE"))
    config.SCALE = 3.0
    see(f(vector(5), "SCALE"))


@right()
def module_by_getattr_with_a_made_name(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    prefix = "SC"
    f = c(lambda x: x * getattr(config, prefix + "ALE"))
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)))


@right()
def module_by_dict(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    m = module("def f(x): return x * config.__dict__['SCALE']", config=config)
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)))


@refused()
def module_by_vars(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    f = c(lambda x: x * vars(config)["SCALE"])
    see(f(vector(5)))


@refused()
def globals_function(c: Any, see: Any) -> None:
    m = module("SCALE = 2.0\ndef f(x): return x * globals()['SCALE']")
    see(c(m.f)(vector(5)))


@right()
def attrgetter_on_a_module(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    get = operator.attrgetter("SCALE")
    f = c(lambda x: x * get(config) + (0 if config.SCALE else 1))
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)))


@right()
def attrgetter_alone_on_a_module(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0")
    get = operator.attrgetter("SC" + "ALE")
    f = c(lambda x: x * get(config))
    see(f(vector(5)), f(vector(5)))
    config.SCALE = 3.0
    see(f(vector(5)))


@right(captures=2)
def import_inside(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0", "battery_config_a")
    m = module("def f(x):\n    import battery_config_a\n    return x * battery_config_a.SCALE")
    with importable(config):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)), f(vector(5)))


@right(captures=2)
def from_import_inside(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0", "battery_config_b")
    m = module("def f(x):\n    from battery_config_b import SCALE as s\n    return x * s")
    with importable(config):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)), f(vector(5)))


@right()
def import_of_a_submodule_inside(c: Any, see: Any) -> None:
    package, sub = module("SCALE = 2.0", "battery_package"), module("", "battery_package.sub")
    package.__path__, package.sub = [], sub
    m = module("def f(x):\n    import battery_package.sub\n    return x * battery_package.SCALE")
    with importable(package, sub):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        package.SCALE = 3.0
        see(f(vector(5)))


@right(captures=2)
def import_of_a_submodule_as(c: Any, see: Any) -> None:
    package, sub = module("", "battery_package_b"), module("SCALE = 2.0", "battery_package_b.sub")
    package.__path__, package.sub = [], sub
    m = module("def f(x):\n    import battery_package_b.sub as s\n    return x * s.SCALE")
    with importable(package, sub):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        sub.SCALE = 3.0
        see(f(vector(5)), f(vector(5)))


def _package(level: str) -> tuple[Any, ...]:
    top = module("", "battery_p")
    middle, config = module("", "battery_p.q"), module("SCALE = 2.0", "battery_p.config")
    inner = module("SCALE = 4.0", "battery_p.q.config")
    for m in (top, middle):
        m.__path__ = []
    user = module(
        f"__package__ = 'battery_p.q'\ndef f(x):\n    from {level} import SCALE\n    return x * SCALE", "battery_p.q.m"
    )
    top.q, top.config, middle.config = middle, config, inner
    return user, config, inner, (top, middle, config, inner)


@right(captures=2)
def relative_import_inside(c: Any, see: Any) -> None:
    user, _, config, modules = _package(".config")
    with importable(*modules):
        f = c(user.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)), f(vector(5)))


@right()
def relative_import_of_level_two_inside(c: Any, see: Any) -> None:
    user, config, _, modules = _package("..config")
    with importable(*modules):
        f = c(user.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)))


@refused()
def import_by_importlib(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0", "battery_config_c")
    m = module("import importlib\ndef f(x): return x * importlib.import_module('battery_config_c').SCALE")
    with importable(config):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)))


@refused()
def import_by_dunder(c: Any, see: Any) -> None:
    config = module("SCALE = 2.0", "battery_config_d")
    m = module("def f(x): return x * __import__('battery_config_d').SCALE")
    with importable(config):
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        config.SCALE = 3.0
        see(f(vector(5)))


@refused()
def module_with_getattr(c: Any, see: Any) -> None:
    config = module("def __getattr__(name): return 2.0")
    f = c(lambda x: x * config.anything)
    see(f(vector(5)))


@right()
def module_named_like_a_standard_one(c: Any, see: Any) -> None:
    m = module("SCALE = 2.0\ndef f(x): return x * SCALE", "profile")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    m.SCALE = 3.0
    see(f(vector(5)))


@right()
def module_named_main(c: Any, see: Any) -> None:
    m = module("SCALE = 2.0\nstep = 0\ndef f(x): return x * SCALE", "__main__")
    f = c(m.f)
    see(f(vector(5)), f(vector(5)))
    m.SCALE = 3.0
    see(f(vector(5)))


@right()
def executed_without_a_name(c: Any, see: Any) -> None:
    space: dict[str, Any] = {"SCALE": 2.0}
    exec("def g(x): return x * SCALE\ndef f(x): return g(x) + 1", space)
    f = c(space["f"])
    see(f(vector(5)), f(vector(5)))
    space["SCALE"] = 3.0
    see(f(vector(5)))


@right(captures=1)
def executed_twice_like_a_notebook_cell(c: Any, see: Any) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "kiln": kiln, "c": c}
    exec("W = kiln.tensor([2.0])\n@c\ndef f(x): return x * W", space)
    for n in range(3):
        exec(f"out = f(kiln.tensor([{n}.0]))\nx = {n}\ny = out", space)
        see(space["out"])


@right()
def name_in_builtins(c: Any, see: Any) -> None:
    import builtins

    builtins.BATTERY_SCALE = 2.0  # type: ignore[attr-defined]
    try:
        m = module("def f(x): return x * BATTERY_SCALE")
        f = c(m.f)
        see(f(vector(5)), f(vector(5)))
        builtins.BATTERY_SCALE = 3.0  # type: ignore[attr-defined]
        see(f(vector(5)))
    finally:
        del builtins.BATTERY_SCALE  # type: ignore[attr-defined]


@right()
def kiln_function_patched(c: Any, see: Any) -> None:
    before = nn.functional.relu
    f = c(lambda x: nn.functional.relu(x))
    try:
        see(f(vector(5)), f(vector(5)))
        nn.functional.relu = lambda x: x * 9  # type: ignore[assignment]
        see(f(vector(5)))
    finally:
        nn.functional.relu = before


@right()
def kiln_layer_patched(c: Any, see: Any) -> None:
    layer = linear(1, 1)
    before = nn.Linear.forward
    f = c(layer)
    try:
        see(f(vector(5)), f(vector(5)))
        nn.Linear.forward = lambda self, x: x * 9  # type: ignore[method-assign,assignment]
        see(f(vector(5)))
    finally:
        nn.Linear.forward = before  # type: ignore[method-assign]


@right()
def compiled_function_as_global_named_like_an_attribute(c: Any, see: Any) -> None:
    m = module("def total(x): return x.sum()\ndef f(x): return sum(x) + total(x) + me.sum(x)", me=None)
    m.sum = c(lambda x: x[0] * 2)
    m.me = m
    f = c(m.f)
    for n in range(4):
        see(f(vector(n, 2)), m.sum(vector(n, 3)))
    logs = getattr(f, "log", ["once"]), getattr(m.sum, "log", ["once"])
    see.log.append([len(log) for log in logs])


@right()
def compiled_functions_of_one_module_call_each_other(c: Any, see: Any) -> None:
    m = module(
        "@c\ndef log(x): return x * 2\n@c\ndef f(x): return log(x) + me.log(x)\n"
        "@c\ndef g(x): return me.f(x) + f(x) + log(x)",
        c=c,
        me=None,
    )
    m.me = m
    for n in range(4):
        see(m.f(vector(n)), m.g(vector(n)), m.log(vector(n)))
    see.log.append([len(getattr(m.__dict__[k], "log", [0])) for k in ("f", "g", "log")])


# ------------------------------------------------------------------------------------------------- objects


class Box:
    """Any attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@right(captures=2)
def attribute_replaced(c: Any, see: Any) -> None:
    box = Box(w=vector(2))
    f = c(lambda x: x * box.w)
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))


@right(captures=1)
def attribute_that_is_not_read_changes(c: Any, see: Any) -> None:
    box = Box(w=vector(2), step=0)
    f = c(lambda x: x * box.w)
    for n in range(4):
        box.step = n
        see(f(vector(5)))


@right(captures=1)
def trainer_keeps_a_history(c: Any, see: Any) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.w, self.losses, self.steps = vector(1, 2), [], 0

        def step(self, x: Any) -> Any:
            return (self.w * x).sum()

        def fit(self) -> Any:
            for n in range(4):
                self.losses.append(self.step(vector(n, n)).item())
                self.steps += 1
            return self.losses

    Trainer.step = c(Trainer.step)
    see(Trainer().fit())


@right()
def attribute_added_and_removed(c: Any, see: Any) -> None:
    box: Any = Box()
    f = c(lambda x: x * getattr(box, "scale", 1.0) + hasattr(box, "shift"))
    see(f(vector(5)), f(vector(5)))
    box.scale = 3.0
    see(f(vector(5)), f(vector(5)))
    box.shift = None
    see(f(vector(5)), f(vector(5)))
    del box.scale
    see(f(vector(5)), f(vector(5)))


@right()
def attribute_by_name_in_an_argument(c: Any, see: Any) -> None:
    box = Box(a=2.0, b=3.0)
    f = c(lambda x, name: x * getattr(box, name))
    see(f(vector(5), "a"), f(vector(5), "b"), f(vector(5), "a"))
    box.a = 7.0
    see(f(vector(5), "a"), f(vector(5), "b"))


@refused()
def attribute_counted_inside(c: Any, see: Any) -> None:
    box = Box(n=0)

    def f(x: Any) -> Any:
        box.n += 1
        return x * box.n

    see(c(f)(vector(5)))


@refused()
def attribute_keeps_a_result(c: Any, see: Any) -> None:
    box = Box(last=None)

    def f(x: Any) -> Any:
        box.last = x * 2
        return box.last + 1

    see(c(f)(vector(5)))


@right()
def attribute_set_and_restored(c: Any, see: Any) -> None:
    box = Box(k=2.0)

    def f(x: Any) -> Any:
        before, box.k = box.k, 5.0
        y = x * box.k
        box.k = before
        return y * box.k

    g = c(f)
    see(g(vector(5)), g(vector(5)), box.k)
    box.k = 3.0
    see(g(vector(5)), g(vector(5)), box.k)


@refused()
def attribute_memoised(c: Any, see: Any) -> None:
    box: Any = Box()

    def f(x: Any) -> Any:
        if not hasattr(box, "cache"):
            box.cache = x * 2
        return x + box.cache

    see(c(f)(vector(5)))


@right()
def attribute_memoised_before(c: Any, see: Any) -> None:
    box: Any = Box()

    def f(x: Any) -> Any:
        if not hasattr(box, "cache"):
            box.cache = x * 2
        return x + box.cache

    f(vector(7))
    g = c(f)
    see(g(vector(5)), g(vector(5)))
    box.cache = vector(100)
    see(g(vector(5)), g(vector(5)))


@right()
def slots(c: Any, see: Any) -> None:
    class Slotted:
        __slots__ = ("k", "w")

        def __init__(self) -> None:
            self.w = vector(2)

    box = Slotted()
    f = c(lambda x: x * box.w * getattr(box, "k", 1.0))
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))
    box.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def private_slots_of_a_base(c: Any, see: Any) -> None:
    class Base:
        __slots__ = ("__k",)

        def set(self, k: float) -> None:
            self.__k = k

        def get(self) -> float:
            return self.__k

    class Derived(Base):
        __slots__ = ()

    box = Derived()
    box.set(2.0)
    f = c(lambda x: x * box.get())
    see(f(vector(5)), f(vector(5)))
    box.set(3.0)
    see(f(vector(5)), f(vector(5)))


@right()
def class_attribute(c: Any, see: Any) -> None:
    class Box:
        k: ClassVar[float] = 2.0

    box = Box()
    f = c(lambda x: x * box.k)
    see(f(vector(5)), f(vector(5)))
    Box.k = 3.0
    see(f(vector(5)), f(vector(5)))
    box.k = 4.0  # type: ignore[misc]
    see(f(vector(5)), f(vector(5)))
    del box.k
    see(f(vector(5)), f(vector(5)))


@right()
def class_attribute_of_a_base(c: Any, see: Any) -> None:
    class Base:
        k = 2.0

    class Derived(Base):
        pass

    f = c(lambda x: x * Derived.k)
    see(f(vector(5)), f(vector(5)))
    Base.k = 3.0
    see(f(vector(5)), f(vector(5)))
    Derived.k = 4.0
    see(f(vector(5)), f(vector(5)))


@right()
def class_of_an_object_replaced(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        def go(self, x: Any) -> Any:
            return x * 3

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.__class__ = B
    see(f(vector(5)), f(vector(5)))


@right()
def class_of_a_slotted_object_replaced(c: Any, see: Any) -> None:
    class A:
        __slots__ = ("k",)

        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        __slots__ = ("k",)

        def go(self, x: Any) -> Any:
            return x * 3

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.__class__ = B
    see(f(vector(5)), f(vector(5)))


@right()
def bases_of_a_class_replaced(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        def go(self, x: Any) -> Any:
            return x * 3

    class Derived(A):
        pass

    box = Derived()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    Derived.__bases__ = (B,)
    see(f(vector(5)), f(vector(5)))


@right()
def method_patched_on_the_class(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    box = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    A.go = lambda self, x: x * 3  # type: ignore[method-assign]
    see(f(vector(5)), f(vector(5)))


@right()
def method_patched_on_the_object(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.go = lambda x: x * 3
    see(f(vector(5)), f(vector(5)))


@right()
def bound_method_compiled(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        def go(self, x: Any) -> Any:
            return x * self.w

    box = A()
    f = c(box.go)
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))


@right(captures=4)
def decorated_method(c: Any, see: Any) -> None:
    class A:
        def __init__(self, k: float) -> None:
            self.k = k

        @c
        def go(self, x: Any) -> Any:
            return x * self.k

    a, b = A(2.0), A(3.0)
    for _ in range(3):
        see(a.go(vector(5)), b.go(vector(5)), A.go(a, vector(6)))
    a.k = 7.0
    see(a.go(vector(5)), b.go(vector(5)))


@right()
def decorated_static_and_class_methods(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        @staticmethod
        @c
        def plain(x: Any) -> Any:
            return x * 2

        @classmethod
        @c
        def of_class(cls, x: Any) -> Any:
            return x * cls.k

    class B(A):
        k = 3.0

    for _ in range(3):
        see(
            A.plain(vector(5)),
            A().plain(vector(5)),
            A.of_class(vector(5)),
            B.of_class(vector(5)),
            B().of_class(vector(5)),
        )
    A.k = 9.0
    see(A.of_class(vector(5)), B.of_class(vector(5)))


@right()
def decorated_property(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        @property
        @c
        def double(self) -> Any:
            return self.w * 2

    a = A()
    for n in range(3):
        see(a.double)
        a.w.add_(float(n))


@right()
def decorated_call(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        @c
        def __call__(self, x: Any) -> Any:
            return x * self.w

    a = A()
    for n in range(3):
        see(a(vector(5)))
        a.w.add_(float(n))


@right()
def super_of_a_compiled_method(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        @c
        def go(self, x: Any) -> Any:
            return x * self.k

    class B(A):
        @c
        def go(self, x: Any) -> Any:
            return super().go(x) + 1

    b = B()
    for _ in range(3):
        see(b.go(vector(5)))
    A.k = 5.0
    see(b.go(vector(5)), b.go(vector(5)))


@right()
def callable_object_compiled(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.k = 2.0

        def __call__(self, x: Any) -> Any:
            return x * self.k

    a = A()
    f = c(a)
    see(f(vector(5)), f(vector(5)))
    a.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def property_with_logic(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self._k = 2.0

        @property
        def k(self) -> float:
            return self._k * self.unit

        unit = 10.0

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    a._k = 3.0
    see(f(vector(5)), f(vector(5)))
    A.unit = 1.0
    see(f(vector(5)), f(vector(5)))


@refused()
def cached_property_filled_inside(c: Any, see: Any) -> None:
    class A:
        @functools.cached_property
        def w(self) -> Any:
            return vector(2) * 2

    a = A()
    see(c(lambda x: x * a.w)(vector(5)))


@right()
def cached_property_filled_before(c: Any, see: Any) -> None:
    class A:
        @functools.cached_property
        def w(self) -> Any:
            return vector(2) * 2

    a = A()
    see(a.w)
    f = c(lambda x: x * a.w)
    see(f(vector(5)), f(vector(5)))
    a.w = vector(9)
    see(f(vector(5)), f(vector(5)))


@right()
def dynamic_attributes(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.table = {"k": 2.0}

        def __getattr__(self, name: str) -> Any:
            return self.__dict__["table"][name]

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    a.table["k"] = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def intercepted_attributes(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        def __getattribute__(self, name: str) -> Any:
            found = object.__getattribute__(self, name)
            return found * 10 if name == "k" else found

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    A.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def descriptor_with_state(c: Any, see: Any) -> None:
    class Descriptor:
        def __init__(self) -> None:
            self.k = 2.0

        def __get__(self, instance: Any, owner: Any = None) -> float:
            return self.k

    d = Descriptor()

    class A:
        k = d

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    d.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def metaclass_with_state(c: Any, see: Any) -> None:
    class Meta(type):
        k = 2.0

        @property
        def scale(cls) -> float:
            return cls.k

    class A(metaclass=Meta):
        pass

    f = c(lambda x: x * A.scale)
    see(f(vector(5)), f(vector(5)))
    Meta.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def operators_of_the_users(c: Any, see: Any) -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = k

        def __mul__(self, x: Any) -> Any:
            return x * self.k

        def __getitem__(self, n: int) -> float:
            return self.k + n

        def __len__(self) -> int:
            return int(self.k)

        def __bool__(self) -> bool:
            return self.k > 2.5

        def __iter__(self) -> Any:
            yield from (self.k, 1.0)

        def __contains__(self, n: float) -> bool:
            return n == self.k

        def __enter__(self) -> float:
            return self.k

        def __exit__(self, *_: object) -> None:
            pass

    s = Scale(2.0)

    def f(x: Any) -> Any:
        with s as k:
            y = s * x * s[1] * len(s) + (3 if s else 4) + sum(s) + (2.0 in s)
            return y * k

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    s.k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def dataclass_state(c: Any, see: Any) -> None:
    @dataclass
    class Config:
        k: float = 2.0
        tags: list[str] = field(default_factory=list)

    config = Config()
    f = c(lambda x: x * config.k + len(config.tags))
    see(f(vector(5)), f(vector(5)))
    config.k = 3.0
    see(f(vector(5)), f(vector(5)))
    config.tags.append("a")
    see(f(vector(5)), f(vector(5)))


@right()
def dataclass_made_inside(c: Any, see: Any) -> None:
    @dataclass(frozen=True)
    class Pair:
        a: Any
        b: Any

    f = c(lambda x: Pair(x * 2, x * 3).a)
    see(f(vector(5)), f(vector(5)))


@right()
def named_tuple_state(c: Any, see: Any) -> None:
    class Pair(NamedTuple):
        a: Any
        b: float

    pair = Pair(vector(2), 3.0)
    f = c(lambda x: x * pair.a * pair.b)
    see(f(vector(5)), f(vector(5)))
    pair = pair._replace(b=5.0)
    see(f(vector(5)), f(vector(5)))


@right()
def enum_decides(c: Any, see: Any) -> None:
    class Mode(enum.Enum):
        ADD = 1
        MUL = 2

    mode = Mode.ADD
    f = c(lambda x: x + 2 if mode is Mode.ADD else x * 2)
    see(f(vector(5)), f(vector(5)))
    mode = Mode.MUL
    see(f(vector(5)), f(vector(5)))


@right()
def enum_member_with_an_attribute(c: Any, see: Any) -> None:
    class Mode(enum.Enum):
        A = 1

    Mode.A.scale = 2.0  # type: ignore[attr-defined]
    f = c(lambda x: x * Mode.A.scale)  # type: ignore[attr-defined]
    see(f(vector(5)), f(vector(5)))
    Mode.A.scale = 3.0  # type: ignore[attr-defined]
    see(f(vector(5)))


@right()
def string_with_an_attribute(c: Any, see: Any) -> None:
    class Name(str):
        pass

    name: Any = Name("a")
    name.scale = 2.0
    f = c(lambda x: x * name.scale)
    see(f(vector(5)), f(vector(5)))
    name.scale = 3.0
    see(f(vector(5)))


@right()
def simple_namespace(c: Any, see: Any) -> None:
    args = types.SimpleNamespace(lr=0.1, layers=[1, 2])
    f = c(lambda x: x * args.lr * sum(args.layers))
    see(f(vector(5)), f(vector(5)))
    args.lr = 0.2
    see(f(vector(5)), f(vector(5)))
    args.layers[0] = 4
    see(f(vector(5)), f(vector(5)))


@right()
def dict_subclass_with_attribute_access(c: Any, see: Any) -> None:
    class Attributes(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    config = Attributes(k=2.0)
    f = c(lambda x: x * config.k)
    see(f(vector(5)), f(vector(5)))
    config["k"] = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def list_subclass_with_state(c: Any, see: Any) -> None:
    class Items(list):  # type: ignore[type-arg]
        scale = 1.0

    items = Items([2.0])
    f = c(lambda x: x * items[0] * items.scale)
    see(f(vector(5)), f(vector(5)))
    items.scale = 3.0
    see(f(vector(5)), f(vector(5)))
    items[0] = 5.0
    see(f(vector(5)), f(vector(5)))


@right()
def default_arguments(c: Any, see: Any) -> None:
    w = vector(2)

    def f(x: Any, k: float = 2.0, *, w: Any = w, items: Any = (1, 2)) -> Any:
        return x * k * w * len(items)

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    f.__defaults__ = (3.0,)
    see(g(vector(5)), g(vector(5)))
    w.add_(1.0)
    see(g(vector(5)), g(vector(5)))
    f.__kwdefaults__["items"] = (1,)
    see(g(vector(5)), g(vector(5)))


@refused()
def mutable_default_argument(c: Any, see: Any) -> None:
    def f(x: Any, seen: Any = []) -> Any:  # noqa: B006
        seen.append(1)
        return x * len(seen)

    see(c(f)(vector(5)))


@right()
def function_attributes(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        return x * f.k

    f.k = 2.0
    g = c(f)
    see(g(vector(5)), g(vector(5)))
    f.k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def attributes_of_the_compiled_function(c: Any, see: Any) -> None:
    @c
    def f(x: Any) -> Any:
        return x * f.k

    f.k = 2.0
    see(f(vector(5)), f(vector(5)), f.k)
    f.k = 3.0
    see(f(vector(5)), f(vector(5)), f.k)


@right()
def code_replaced(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2

    def other(x: Any) -> Any:
        return x * 3

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    f.__code__ = other.__code__
    see(g(vector(5)), g(vector(5)))


@right()
def wrapped_function(c: Any, see: Any) -> None:
    k = 2.0

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) * k

        return wrapper

    @c
    @decorate
    @decorate
    def f(x: Any) -> Any:
        return x + 1

    see(f(vector(5)), f(vector(5)))
    k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def decorator_around_a_compiled_function(c: Any, see: Any) -> None:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args) * 2

        wrapper.calls = 0
        return wrapper

    @decorate
    @c
    def f(x: Any) -> Any:
        return x + 1

    for _ in range(3):
        f.calls += 1
        see(f(vector(5)), f.calls, f.__name__)


@right()
def partial_functions(c: Any, see: Any) -> None:
    def f(x: Any, k: float, shift: Any = 0.0) -> Any:
        return x * k + shift

    p = functools.partial(f, k=2.0)
    q = functools.partial(p, shift=vector(1))
    g = c(q)
    h = c(lambda x: p(x) + q(x))
    see(g(vector(5)), g(vector(5)), h(vector(5)), h(vector(5)))
    p.keywords["k"] = 3.0
    see(g(vector(5)), g(vector(5)), h(vector(5)), h(vector(5)))


@right()
def partial_method(c: Any, see: Any) -> None:
    class A:
        k = 1.0

        def scale(self, k: float, x: Any) -> Any:
            return x * k * self.k

        double = functools.partialmethod(scale, 2.0)

    a = A()
    f = c(lambda x: a.double(x))
    see(f(vector(5)), f(vector(5)))
    a.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def single_dispatch(c: Any, see: Any) -> None:
    @functools.singledispatch
    def scale(k: Any, x: Any) -> Any:
        return x

    scale.register(int, lambda k, x: x * k)
    scale.register(str, lambda k, x: x * len(k))
    scale(1, 1), scale("a", 1), scale(1.0, 1)  # fills its cache
    f = c(lambda x, k: scale(k, x))
    see(f(vector(5), 3), f(vector(5), "ab"), f(vector(5), 3), f(vector(5), 2.0))


@refused()
def lru_cache_inside(c: Any, see: Any) -> None:
    @functools.lru_cache
    def table(n: int) -> float:
        return 2.0 * n

    see(c(lambda x: x * table(3))(vector(5)))


@right()
def recursion_on_a_number(c: Any, see: Any) -> None:
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else x * power(x, n - 1)

    f = c(power)
    see(f(vector(2), 3), f(vector(2), 3), f(vector(2), 4), f(vector(3), 3))


@right()
def recursion_through_the_compiled_name(c: Any, see: Any) -> None:
    @c
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else x * power(x, n - 1)

    see(power(vector(2), 3), power(vector(2), 3), power(vector(2), 2), power(vector(3), 3))


@right()
def deep_recursion(c: Any, see: Any) -> None:
    def down(x: Any, n: int) -> Any:
        return x if n == 0 else down(x + 1, n - 1)

    f = c(down)
    see(f(vector(1), 150), f(vector(2), 150))


@right()
def too_deep_recursion(c: Any, see: Any) -> None:
    def down(x: Any) -> Any:
        return down(x) + 1

    f = c(down)
    try:
        f(vector(1))
    except RecursionError:
        see("RecursionError")
    see(kiln.ones(2) + 1)


@right()
def generators_and_comprehensions(c: Any, see: Any) -> None:
    def steps(x: Any, n: int) -> Any:
        for k in range(n):
            x = x * 2
            yield x, k

    def f(x: Any) -> Any:
        total = sum(y * k for y, k in steps(x, 3))
        table = {k: y for y, k in steps(x, 2)}
        return total, [y for y, _ in steps(x, 2) if _], table[1], {len(y.shape) for y, _ in steps(x, 3)} == {1}

    g = c(f)
    see(g(vector(5)), g(vector(6)), g(vector(5)))


@refused()
def generator_from_outside(c: Any, see: Any) -> None:
    numbers = (float(n) for n in range(10))
    see(c(lambda x: x * next(numbers))(vector(5)))


@refused()
def iterator_from_outside(c: Any, see: Any) -> None:
    numbers = iter([1.0, 2.0, 3.0])
    see(c(lambda x: x * next(numbers))(vector(5)))


@refused()
def zip_from_outside(c: Any, see: Any) -> None:
    pairs = zip([1.0, 2.0], [3.0, 4.0], strict=True)
    see(c(lambda x: sum((x * a * b for a, b in pairs), x))(vector(5)))


@right()
def local_class(c: Any, see: Any) -> None:
    k = 2.0

    def f(x: Any) -> Any:
        class Local:
            scale = k

            def go(self, x: Any) -> Any:
                return x * self.scale

        return Local().go(x)

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def inner_functions_and_lambdas(c: Any, see: Any) -> None:
    k = 2.0

    def f(x: Any) -> Any:
        n = 0

        def bump(y: Any) -> Any:
            nonlocal n
            n += 1
            return y * n * k

        return bump(x) + bump(x) + (lambda z: z * n)(x)

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def match_statement(c: Any, see: Any) -> None:
    def f(x: Any, command: Any) -> Any:
        match command:
            case ("scale", k):
                return x * k
            case {"shift": s}:
                return x + s
            case [a, *rest]:
                return x * a + len(rest)
            case _:
                return x

    g = c(f)
    for _ in range(2):
        see(g(vector(5), ("scale", 2.0)), g(vector(5), {"shift": 3.0}), g(vector(5), [2, 3, 4]), g(vector(5), None))


@right()
def isinstance_and_abstract_classes(c: Any, see: Any) -> None:
    import abc

    class Base(abc.ABC):
        @abc.abstractmethod
        def go(self, x: Any) -> Any: ...

    class A(Base):
        def go(self, x: Any) -> Any:
            return x * 2 if isinstance(self, Base) else x

    a = A()
    f = c(lambda x: a.go(x))
    see(f(vector(5)), f(vector(5)))


@right()
def class_registered_between(c: Any, see: Any) -> None:
    import abc

    class Base(abc.ABC):  # noqa: B024
        pass

    class A:
        pass

    a = A()
    f = c(lambda x: x * 2 if isinstance(a, Base) else x)
    see(f(vector(5)), f(vector(5)))
    Base.register(A)
    see(f(vector(5)))


@right()
def strings_and_formats(c: Any, see: Any) -> None:
    name = "a"
    f = c(lambda x, k: (x * k, f"{name}-{k:.2f}", "%s" % k, name.upper(), x.shape, str(x.dtype)))  # noqa: UP031
    see(f(vector(5), 2.0), f(vector(5), 2.0))
    name = "b"
    see(f(vector(5), 2.0), f(vector(5), 2.5))


@refused()
def environment_variable(c: Any, see: Any) -> None:
    import os

    os.environ["BATTERY_SCALE"] = "2"
    m = module("import os\ndef f(x): return x * float(os.environ['BATTERY_SCALE'])")
    f = c(m.f)
    try:
        see(f(vector(5)), f(vector(5)))
        os.environ["BATTERY_SCALE"] = "3"
        see(f(vector(5)), f(vector(5)))
    finally:
        del os.environ["BATTERY_SCALE"]
