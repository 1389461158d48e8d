"""Modules, globals and settings that change between calls, and inside them."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import importable, module, vector

PROGRAMS = program = Programs()


@program
def global_of_a_module(c: Any) -> None:
    user = module("SCALE = 2.0\ndef f(x):\n    return x * SCALE\n")
    f = c(user.f)
    for scale in (2.0, 2.0, 3.0, 2.0):
        user.SCALE = scale
        f(vector(1, 2))


@program
def global_counter(c: Any) -> None:
    user = module("calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x + calls\n")
    f = c(user.f)
    for _ in range(4):
        f(vector(1, 2))
    c.see(user.calls)


@program
def global_made_on_first_use(c: Any) -> None:
    user = module(
        "table = None\ndef f(x):\n    global table\n    if table is None:\n        table = kiln.arange(2.0)\n"
        "    return x + table\n"
    )
    f = c(user.f)
    for n in range(4):
        f(vector(n, 1))
    user.table = None
    f(vector(1, 1))


@program
def function_replaced_in_a_module(c: Any) -> None:
    user = module("def g(x):\n    return x * 2\ndef f(x):\n    return g(x) + 1\n")
    f = c(user.f)
    f(vector(1, 2))
    f(vector(1, 2))
    user.g = lambda x: x * 3
    f(vector(1, 2))
    f(vector(1, 2))


@program
def kiln_function_replaced(c: Any) -> None:
    user = module("from kiln import nn\nF = nn.functional\ndef f(x):\n    return F.relu(x) + 1\n")
    f = c(user.f)
    f(vector(-1, 2))
    before = kiln.nn.functional.relu
    try:
        kiln.nn.functional.relu = lambda x: x * 10
        f(vector(-1, 2))
    finally:
        kiln.nn.functional.relu = before
    f(vector(-1, 2))


@program
def submodule_imported_inside(c: Any) -> None:
    user = module("K = 2.0\n", name="user_settings_of_state")
    with importable(user):

        @c
        def f(x: Any) -> Any:
            import user_settings_of_state  # type: ignore[import-not-found]  # (made above)

            return x * user_settings_of_state.K

        for k in (2.0, 2.0, 5.0):
            user.K = k
            f(vector(1, 2))


@program
def context_variable(c: Any) -> None:
    scale: contextvars.ContextVar[float] = contextvars.ContextVar("scale", default=1.0)
    f = c(lambda x: x * scale.get())
    f(vector(1, 2))
    for s in (2.0, 3.0, 2.0):
        token = scale.set(s)
        f(vector(1, 2))
        scale.reset(token)
    f(vector(1, 2))


@program
def thread_local_setting(c: Any) -> None:
    local = threading.local()
    local.scale = 1.0
    f = c(lambda x: x * local.scale)
    for s in (1.0, 1.0, 2.0, 1.0):
        local.scale = s
        f(vector(1, 2))


@program
def thread_local_written(c: Any) -> None:
    local = threading.local()

    @c
    def f(x: Any) -> Any:
        local.calls = getattr(local, "calls", 0) + 1
        return x + local.calls

    for _ in range(3):
        f(vector(1, 2))
    c.see(local.calls)


@program
def default_dtype_read(c: Any) -> None:
    f = c(lambda x: kiln.zeros(2) + kiln.tensor([1.5, 2.5]) + x)
    try:
        for dtype in (kiln.float32, kiln.float64, kiln.float32):
            kiln.set_default_dtype(dtype)
            f(2.0)
    finally:
        kiln.set_default_dtype(kiln.float32)


@program
def default_dtype_changed_inside(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        before = kiln.get_default_dtype()
        kiln.set_default_dtype(kiln.float64)
        try:
            return x + kiln.ones(2)
        finally:
            kiln.set_default_dtype(before)

    for n in range(3):
        f(vector(n, 1))


@program
def gradient_mode_of_the_caller(c: Any) -> None:
    f = c(lambda x: (x * 2, kiln.is_grad_enabled()))
    for on in (True, False, True):
        with kiln.set_grad_enabled(on):
            f(vector(1, 2, grad=True))


@program
def interpreter_settings(c: Any) -> None:
    f = c(lambda x: x * sys.getrecursionlimit())
    before = sys.getrecursionlimit()
    f(vector(1))
    try:
        sys.setrecursionlimit(before + 100)
        f(vector(1))
    finally:
        sys.setrecursionlimit(before)
    f(vector(1))
