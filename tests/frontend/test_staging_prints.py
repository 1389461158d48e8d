"""Prints of captured calls: each compiled call prints what eager's prints, in its order."""
# ruff: noqa: UP031, UP032

from __future__ import annotations

import builtins
import contextlib
import io
import sys
from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError
from tests.frontend.test_staging_text import VECTORS, check, shown, vector


def _prints(x: Any) -> Any:
    print("start")
    print(x, x.sum(), sep=" | ", end=".\n")
    for k, v in enumerate(x):
        print(f"{k}: {v:.2f}", end=" ")
    print()
    print([x, 1], {"s": x.sum()}, x.shape, x.dtype, None, 1.5, flush=True)
    y = x * 2
    print(y)
    y.add_(1)
    x.mul_(2)
    print(y, x, file=None)
    print(*y)
    return y


@pytest.mark.parametrize("door", [None, kiln.jit.script])
def test_prints_come_in_order(door: Any) -> None:
    check(_prints, door=door)


def test_nothing_but_prints() -> None:
    def f(x: Any) -> None:
        print("hello")

    check(f)


def test_prints_in_ways_that_data_choose() -> None:
    def f(x: Any) -> Any:
        print("before")
        if x.sum() > 1:
            print("large", x.sum())
            y = x * 2
        else:
            y = x
        print(y)
        while y.sum() > 4:
            y = y / 2
            print(f"{y}")
        return y

    check(f, [lambda k=k: (vector(k, 1),) for k in (0, 1, 5, 0, 1, 5, -3)], captured=None)


def test_a_failed_check_prints_once() -> None:
    def f(x: Any, k: Any) -> Any:
        print("first", x)
        y = x[k]
        print("then", y)
        return y

    calls = [lambda k=k: (vector(1, 2, 3), kiln.tensor([k])) for k in (0, 1, 7, 2, -9, 0)]
    check(f, calls, captured=None)


def test_errors_after_prints() -> None:
    def f(x: Any) -> Any:
        print("checking", x)
        if x.sum() > 3:
            raise ValueError(f"too large: {x.sum():.2f}")
        if not x[0] > 0:
            raise AssertionError(f"{x} is not positive")
        print("fine")
        return x

    check(f, [lambda k=k: (vector(k, 1),) for k in (1, 5, -1, 1, 5, 1.5)], kiln.compile, captured=None)


def test_errors_that_are_caught() -> None:
    class Wrong(ValueError):
        pass

    def f(x: Any) -> Any:
        try:
            raise Wrong(f"got {x}", x.sum())
        except Wrong as error:
            args = error.args
            print(error, args[0])
        try:
            raise KeyError(f"no {x[0]:.1f}")
        except KeyError as error:
            return f"{error}", str(error), [str(a) for a in error.args], args[0]

    check(f, [lambda k=k: (vector(k),) for k in (1, 2, 1, 2)], captured=None)


def test_errors_that_are_kept() -> None:
    kept: list[Exception] = []

    def f(x: Any) -> Any:
        try:
            raise ValueError(f"got {x}")
        except ValueError as error:
            kept.append(error)
        return x + 1

    compiled = kiln.compile(f)
    for k in (1.0, 2.0, 3.0):
        compiled(vector(k))
        assert kept[-1].args == (f"got {vector(k)}",)
        assert type(kept[-1].args[0]) is str


def test_another_stdout() -> None:
    def f(x: Any) -> Any:
        print(x)
        return x

    check(f)
    compiled = kiln.compile(f, fullgraph=True)
    outs = [io.StringIO() for _ in range(3)]
    for out in outs:
        with contextlib.redirect_stdout(out):
            compiled(vector(1))
    assert [out.getvalue() for out in outs] == ["tensor([1.])\n"] * 3
    with contextlib.redirect_stdout(None):
        compiled(vector(1))


def test_stdout_redirected_inside() -> None:
    class Lines:
        def __init__(self) -> None:
            self.found: list[str] = []

        def write(self, text: str) -> None:
            self.found.append(text)

        def flush(self) -> None:
            pass

    lines = Lines()

    def f(x: Any) -> Any:
        with contextlib.redirect_stdout(lines):  # type: ignore[type-var]
            print("inside", x)
        print("outside")
        return x + 1

    def g(x: Any) -> Any:
        print("to stderr", file=sys.stderr)
        return x

    def h(x: Any) -> Any:
        print("to it", x, file=lines)  # type: ignore[call-overload]
        return x

    for each in (f, h):
        plain = shown(each, VECTORS), list(lines.found)
        lines.found.clear()
        with pytest.raises(CaptureError):
            kiln.compile(each, fullgraph=True)(vector(1))
        lines.found.clear()
        assert repr((shown(kiln.compile(each), VECTORS), lines.found)) == repr(plain)
        lines.found.clear()
    with pytest.raises(CaptureError):
        kiln.compile(g, fullgraph=True)(vector(1))


def test_a_patched_print(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Any) -> Any:
        print("value", x)
        return x + 1

    compiled = kiln.compile(f)
    told: list[Any] = []
    check_one = [lambda: (vector(1),)]
    assert shown(compiled, check_one * 2) == shown(f, check_one * 2)
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "print", lambda *args: told.append(len(args)))
        assert shown(compiled, check_one * 2) == shown(f, check_one * 2)
    assert told == [2, 2, 2, 2]
    assert shown(compiled, check_one) == shown(f, check_one)


def test_what_print_refuses() -> None:
    class Thing:
        pass

    class Named:
        count = 0

        def __str__(self) -> str:
            return f"named {self.count}"

    thing, named = Thing(), Named()

    def f(x: Any) -> Any:
        print(thing)
        return x

    def g(x: Any) -> Any:
        print(named)
        return x

    def h(x: Any) -> Any:
        print("a", sep=1)  # type: ignore[call-overload]

    def k(x: Any) -> Any:
        print("a", no=1)  # type: ignore[call-overload]

    with pytest.raises(CaptureError):
        kiln.compile(f, fullgraph=True)(vector(1))
    compiled = kiln.compile(g, fullgraph=True)
    assert shown(compiled, VECTORS[:2]) == shown(g, VECTORS[:2])
    named.count = 5
    assert shown(compiled, VECTORS[:2]) == shown(g, VECTORS[:2])
    for each in (h, k):
        check(each, VECTORS[:2], kiln.compile, captured=None)


def test_prints_of_a_checkpoint_are_repeated() -> None:
    def part(x: Any) -> Any:
        print("part")
        return x.exp()

    def f(x: Any) -> Any:
        return kiln.utils.checkpoint.checkpoint(part, x, use_reentrant=False)

    with pytest.raises(CaptureError, match="print"):
        kiln.compile(f, fullgraph=True)(vector(1, grad=True))


def test_prints_in_gradients_and_transforms() -> None:
    def f(x: Any) -> Any:
        def loss(y: Any) -> Any:
            print("loss", y.shape)
            return (y * y).sum()

        return kiln.func.grad(loss)(x), kiln.vmap(lambda y: y * 2)(x)

    def g(x: Any) -> Any:
        y = (x * x).sum()
        print(y)
        (d,) = kiln.autograd.grad(y, x)
        print(d)
        return d

    check(f, captured=None)
    check(g, [lambda k=k: (vector(k, 1, grad=True),) for k in (1, 2, 3)])


def test_prints_of_a_function_inside_another() -> None:
    @kiln.compile
    def inner(x: Any) -> Any:
        print("inner", x)
        return x * 2

    def f(x: Any) -> Any:
        print("outer")
        return inner(x) + 1

    check(f)


def test_prints_of_a_scripted_function_in_a_trace() -> None:
    @kiln.jit.script
    def inner(x: Any) -> Any:
        print("inner", x)
        return x * 2

    def f(x: Any) -> Any:
        return inner(x) + 1

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            traced = kiln.jit.trace(f, (vector(1),))
        except CaptureError:
            return
    calls = [lambda k=k: (vector(k),) for k in (1, 2)]
    assert shown(traced, calls) == shown(f, calls)


def test_prints_in_threads_of_text_that_no_tensor_holds() -> None:
    def f(x: Any, name: str) -> Any:
        print(name, len(name), f"{name!r:>8}", "%s" % name, "{}".format(name), sep="")
        return x

    check(f, [lambda n=n: (vector(1), n) for n in ("a", "b", "a", "b")], captured=2)
