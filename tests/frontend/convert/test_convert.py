"""What is converted, what is refused, what hooks are told, and how branches see variables."""

from __future__ import annotations

import functools
import gc
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from kiln.convert import UNBOUND, PythonHooks, Refused, Site, State, converted, refusal, source
from tests.frontend.convert.harness import Staging, load


def _module(text: str) -> Any:
    return load(text)


class Recording(Staging):
    """Notes sites and effects."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def _at(self, state: State, site: Site) -> None:
        super()._at(state, site)
        self.calls.append((site.kind, site.line, tuple(n for n in site.names if not n.startswith("__"))))

    def load_attr(self, x: Any, name: str) -> Any:  # type: ignore[override]
        self.calls.append(("load_attr", name))
        return getattr(x, name)

    def store_attr(self, x: Any, name: str, value: Any) -> None:  # type: ignore[override]
        self.calls.append(("store_attr", name, value))
        setattr(x, name, value)

    def load_item(self, x: Any, key: Any) -> Any:  # type: ignore[override]
        self.calls.append(("load_item", key))
        return x[key]

    def open_item(self, x: Any, key: Any) -> Any:  # type: ignore[override]
        self.calls.append(("open_item", key))
        return x[key]

    def store_item(self, x: Any, key: Any, value: Any) -> None:  # type: ignore[override]
        self.calls.append(("store_item", key, value))
        x[key] = value

    def load_global(self, name: str, value: Any) -> Any:  # type: ignore[override]
        self.calls.append(("load_global", name))
        return value

    def store_global(self, space: dict[str, Any], name: str, value: Any) -> None:  # type: ignore[override]
        self.calls.append(("store_global", name, value))
        space[name] = value

    def load_local(self, name: str, value: Any) -> Any:  # type: ignore[override]
        if not name.startswith("__"):
            self.calls.append(("load_local", name))
        return value

    @staticmethod
    def callee(function: Any) -> Any:
        return (lambda *a: ("len", *a)) if function is len else function

    def format_(self, value: Any, spec: str) -> str:  # type: ignore[override]
        self.calls.append(("format", value, spec))
        return format(value, spec)


def _recorded(text: str, *arguments: Any) -> list[Any]:
    hooks = Recording()
    converted(_module(text).run, hooks)(*arguments)
    return hooks.calls


def test_sites_and_their_names() -> None:
    text = """\
def run(n):
    x = 0
    if n > 1:
        x = y = n
    while x < 4:
        x += 1
        z = x
    for i in range(2):
        w = i
    assert n
    return (x if n else 0) or w
"""
    calls = [c for c in _recorded(text, 2) if c[0] in ("if", "while", "for", "assert", "ifexp", "or")]
    expected = [("if", 3, ("x", "y")), *[("while", 5, ("x", "z"))] * 2, *[("for", 8, ("i", "w"))] * 2]
    assert calls == [*expected, ("assert", 10, ()), ("ifexp", 11, ()), ("or", 11, ())]


def test_effects() -> None:
    text = "g = 1\ndef run(c, d):\n    global g\n    g = c.x + d[0]\n    c.y = d[1:] = [g]\n"
    text += "    d[0] += 1\n    return f'{g:>3}'"
    calls = _recorded(text, types.SimpleNamespace(x=1), [2, 3])
    assert calls == [
        *[("load_attr", "x"), ("load_item", 0), ("store_global", "g", 3), ("load_global", "g")],
        *[("store_attr", "y", [3]), ("store_item", slice(1, None), [3])],
        *[("open_item", 0), ("store_item", 0, 3), ("load_global", "g"), ("format", 3, ">3")],
    ]


def test_variables_bound_on_one_path_are_read_through_a_hook() -> None:
    text = "def run(n):\n    a = 1\n    if n:\n        b = c = 2\n    else:\n        c = 3\n    return a, c, b"
    assert [c for c in _recorded(text, 1) if c[0] == "load_local"] == [("load_local", "b")]


def test_built_in_functions_can_be_replaced() -> None:
    assert converted(_module("def run(x): return len(x)").run, Recording())("ab") == ("len", "ab")


def test_both_branches_can_be_run() -> None:
    class Both(PythonHooks):
        seen: Any = None

        @staticmethod
        def test(value: Any) -> Any:  # type: ignore[override]
            return value if value == "t" else bool(value)

        def if_(self, test: Any, then: Any, orelse: Any, state: State, site: Site) -> None:
            before = state.get()
            then()
            first = state.get()
            state.set(before)
            orelse()
            self.seen = site.names, before, first, state.get()

    text = "def run(t):\n    x = 1\n    if t:\n        x = 2\n        y = [v for v in (x,)]\n    else:\n        del x\n"
    hooks = Both()
    converted(_module(text).run, hooks)("t")
    assert hooks.seen == (("x", "y"), (1, UNBOUND), (2, [2]), (UNBOUND, UNBOUND))


def test_an_early_return_becomes_an_else_branch() -> None:
    calls = _recorded("def run(n):\n    if n > 1:\n        return 'a'\n    n += 1\n    return 'b'", 1)
    assert [c[:2] for c in calls if c[0] == "if"] == [("if", 2)]
    assert "__returned__" not in source(_module("def run(n):\n    if n: return 1\n    n += 1\n    return n").run)


def test_user_functions_are_converted_on_demand() -> None:
    class Deep(PythonHooks):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def callee(self, function: Any) -> Any:  # type: ignore[override]
            self.seen.append(function.__name__)
            return converted(function, self) if isinstance(function, types.FunctionType) else function

    text = (
        "def f(n): return g(n)\ndef g(n): return abs(n)\ndef run(n):\n    def inner(): return f(n)\n    return inner()"
    )
    hooks = Deep()
    assert converted(_module(text).run, hooks)(-3) == 3
    assert hooks.seen == ["inner", "f", "g", "abs"]


# ------------------------------------------------------------------------------------------ what is kept


def test_what_belongs_to_the_function_stays() -> None:
    module = _module("def run(a, b=[1], *, c={}) -> int:\n    'doc'\n    return len(b) if a else c")
    module.run.tag = 7
    again = converted(module.run)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "tag"):
        assert getattr(again, name) is getattr(module.run, name) or getattr(again, name) == getattr(module.run, name)
    assert again.__globals__ is module.run.__globals__
    assert again.__defaults__[0] is module.run.__defaults__[0]
    assert again.__annotations__ == {"return": int}
    assert again.__code__.co_firstlineno == module.run.__code__.co_firstlineno
    assert again.__code__.co_filename == module.run.__code__.co_filename


def test_cells_are_shared() -> None:
    text = "def make():\n    n = 0\n    def add():\n        nonlocal n\n        n += 1\n"
    text += "        return n if n else 0\n    return add"
    add = _module(text).make()
    again = converted(add)
    assert [add(), again(), add(), again()] == [1, 2, 3, 4]


def test_what_is_looked_through() -> None:
    module = _module(
        "class C:\n    def __call__(self, n): return ('call', n) if n else self\n"
        "    @classmethod\n    def c(cls, n): return cls if n else n\n"
        "    @staticmethod\n    def s(n): return n or 's'\n"
        "    def m(self, n): return (self, n) if n else 0\n"
    )
    c = module.C()
    assert converted(c)(1) == ("call", 1)
    assert converted(c.m)(2) == (c, 2)
    assert converted(functools.partial(c.m, 3))() == (c, 3)
    assert converted(module.C.c)(1) is module.C
    assert isinstance(converted(vars(module.C)["s"]), staticmethod)
    assert converted(module.C.s)(0) == "s"


def test_a_wrapped_function_is_not_taken_for_its_wrapper() -> None:
    text = (
        "import functools\ndef deco(f):\n"
        "    @functools.wraps(f)\n    def g(n): return -f(n) if n else 0\n    return g\n"
        "@deco\ndef run(n): return n"
    )
    assert converted(_module(text).run)(4) == -4


def test_converted_twice_is_converted_once() -> None:
    run = converted(_module("def run(n):\n    def g(): return n if n else 0\n    return g").run)
    assert converted(run) is run
    assert converted(run(3)).__code__ is run(3).__code__


def test_the_code_is_cached() -> None:
    run = _module("def run(n): return n if n else 0").run
    assert converted(run).__code__ is converted(run).__code__


# ------------------------------------------------------------------------------------------ refusals


REFUSED: dict[str, tuple[str, str]] = {
    "locals": ("def run(n): return locals()", "locals()"),
    "eval": ("def run(n): return eval('n')", "eval()"),
    "exec": ("def run(n): exec('n = 1')", "exec()"),
    "vars": ("def run(n): return vars()", "vars()"),
    "dir": ("def run(n):\n    def f(): return dir()\n    return f()", "dir()"),
    "passed on": ("def run(n): return list(map(eval, ['1']))", "eval()"),
    "frames": ("import sys\ndef run(n): return sys._getframe()", "_getframe"),
    "global def": ("def run(n):\n    global f\n    def f(): pass", "the function f under a global name"),
    "global class": ("def run(n):\n    global C\n    class C: pass", "the class C under a global name"),
    "global import": ("def run(n):\n    global sys\n    import sys", "imports under the global name sys"),
    "global del": ("g = 1\ndef run(n):\n    global g\n    del g", "deletes the global name g"),
    "global walrus": ("def run(n):\n    global g\n    return (g := n)", "global name g"),
    "global except": ("def run(n):\n    global e\n    try: n\n    except E as e: pass", "global name e"),
    "global match": ("def run(n):\n    global g\n    match n:\n        case g: pass", "global name g"),
    "name": ("def run(n):\n    __h__ = n\n    return __h__", "__h__"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, part = REFUSED[name]
    run = _module(text).run
    reason = refusal(run)
    assert reason is not None and part in reason
    with pytest.raises(Refused, match=r"it |name"):
        converted(run)


def test_arguments_make_them_harmless() -> None:
    module = _module("def run(n): return sorted(vars(n)), [k for k in dir(n) if k == 'x']")
    assert refusal(module.run) is None
    assert converted(module.run)(types.SimpleNamespace(x=1)) == (["x"], ["x"])


def test_a_name_of_the_users_own_may_be_called_locals() -> None:
    module = _module("def run(locals): return locals() if locals else 0")
    assert converted(module.run)(lambda: 5) == 5


def test_without_source() -> None:
    space: dict[str, Any] = {}
    exec("def run(n): return n", space)
    assert "source of run can't be read: <string> is not a file" in (refusal(space["run"]) or "")


def test_a_file_that_was_edited(tmp_path: Any) -> None:
    path = tmp_path / "edited.py"
    path.write_text("def run(n):\n    return n + 1\n")
    space: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    path.write_text("def run(n):\n    return n + 2\n")
    assert "is not at line 1" in (refusal(space["run"]) or "")


@pytest.mark.parametrize("function", [len, "".join, functools.lru_cache(lambda: 0), int, str.upper])
def test_not_in_python(function: Callable[..., Any]) -> None:
    assert refusal(function) is not None


# ------------------------------------------------------------------------------------------ text, time


def test_source_is_text_that_compiles() -> None:
    run = _module("def run(n):\n    for i in range(n):\n        if i == 2: break\n    return [x for x in (i,)]").run
    compile(source(run), "<source>", "exec")
    assert source(_module("run = lambda n: n or 1").run).startswith("lambda n:")
    assert "__h__.if_" not in source(_module("class C:\n    def __call__(self): return 1\nrun = C()").run)


def test_conversion_is_fast() -> None:
    lines = "".join(
        f"    if n > {k}:\n        total += helper(n, {k})[0] * 2\n    x{k} = n.real if total else k\n"
        for k in range(9)
    )
    text = f"k = 1\ndef helper(n, k): return [n, k]\ndef run(n):\n    total = 0\n{lines}    return total\n"
    best = min(_seconds(_module(text).run) for _ in range(7))
    assert best < 0.012  # 3 ms on an idle machine


def _seconds(function: Callable[..., Any]) -> float:
    start = time.process_time()
    converted(function)
    return time.process_time() - start


# ------------------------------------------------------------------------------------------ memory


def test_what_is_kept_of_a_function_goes_with_it() -> None:
    """The branches are compiled from what was kept, as long as the function is there."""
    run = _module("def run(n):\n    for i in range(n):\n        if i > 1:\n            return i\n    return n").run
    assert converted(run, Staging())(5) == 2
    code = weakref.ref(run.__code__)
    del run
    gc.collect()
    assert code() is None
