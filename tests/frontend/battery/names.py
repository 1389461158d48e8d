"""Global names, modules, imports, builtins: what a compiled function finds by name."""

from __future__ import annotations

import operator
from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, importable, linear, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


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


@right()
def global_counter(c: Any, see: Any) -> None:
    m = module("N = 0\ndef f(x):\n    global N\n    N += 1\n    return x * N")
    see(c(m.f)(vector(5)))


@right()
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
