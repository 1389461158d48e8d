"""Text and prints of traced values: what a compiled call shows is eager's, to the character, in eager's order."""
# ruff: noqa: UP031, UP032, F507, SIM

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError, CaptureWarning
from tests.frontend.test_staging import bits


def vector(*numbers: float, grad: bool = False) -> Any:
    return kiln.tensor([float(x) for x in numbers], requires_grad=grad)


def shown(f: Callable[..., Any], calls: Sequence[Callable[[], tuple[Any, ...]]]) -> list[Any]:
    """What each call returns or raises, what it prints, and what its arguments are afterwards."""
    found: list[Any] = []
    for make in calls:
        args = make()
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("ignore", CaptureWarning)
            try:
                result = bits(f(*args))
            except CaptureError:
                raise
            except Exception as error:  # noqa: BLE001 (whatever it is, it is compared)
                result = type(error), str(error), bits(error.args)
        found.append((result, out.getvalue(), bits(args)))
    return found


VECTORS = [lambda k=k: (vector(k, 2, -3.5),) for k in (1.0, 2.0, 1e6, float("nan"), 1.0, 3.0)]


def check(f: Callable[..., Any], calls: Any = None, door: Any = None, captured: int | None = 1) -> Any:
    """Compiled, `f` shows what it shows eagerly. All calls but `captured` (None: some) of them run what is there."""
    calls = calls or VECTORS
    compiled = door(f) if door is not None else kiln.compile(f, fullgraph=True)
    assert shown(compiled, calls) == shown(f, calls)
    report = compiled.report()
    if captured is not None:
        assert (report.captured, report.decided, report.eager) == (captured, 0, 0), str(report)
        assert report.compiled + report.staged == len(calls) - captured
    return compiled


# ---------------------------------------------------------------------------------------------- text


def _f_strings(x: Any) -> Any:
    s = x.sum()
    return f"{x}", f"{s}", f"{s:>12.3f}|{s!r:>20}|{x!s}|{s=}|{x!a}", f"{{{s:e}}}", f"{s:.3f}" + "!", "<" + f"{s}"


def _functions(x: Any) -> Any:
    s = x.sum()
    return str(x), repr(s), format(s, ".2f"), format(x, ">40"), ascii(x), str(s), format(x), x.shape


def _old_style(x: Any) -> Any:
    s = x.sum()
    return "%s" % x, "%5.1f and %s%%" % (s, x), "%r" % (s,), "%-20s|" % s, "%g %d" % (s, 3), "%10.4s|" % x, 17 % 5


def _new_style(x: Any) -> Any:
    s = x.sum()
    return "{}".format(s), "{1:.1f} {0} {k!r:>30}".format(x, s, k=s), "{{}} {:>9}".format(s), "{a}".format(a=1)


def _joined(x: Any) -> Any:
    parts = [f"{v:.2f}" for v in x]
    return ", ".join(parts), "-".join(f"{k}:{v}" for k, v in enumerate(x)), "".join(("a", "b")), " ".join(["x", str(x)])


def _containers(x: Any) -> Any:
    s = x.sum()
    return (
        f"{[x, 1, 'a']} {(s,)} { {'k': s, 2: (None, 1.5)} }",
        str([x]),
        repr((s, [s])),
        "%s" % [s],
        "{}".format((1, s)),
    )


def _nested(x: Any) -> Any:
    s = x.sum()
    inner = f"{s:.1f}"
    width = 30
    return f"{inner:>10}|{inner!r}|{f'{inner}{s}'}|{s:{width}}|{x!r:{width}}|{f'{s:.{2}f}'}", {"a": [f"{inner}"]}


def _spread(x: Any) -> Any:
    text = f"{x.max():.2f}"
    text += " is the largest"
    text = "# " + text
    return {"text": text, "both": (text, [text])}, len(x)


def _other_types(x: Any) -> Any:
    y = x > 1
    z = x.nan_to_num().long()
    return (
        f"{y} {y.any()} {z} {z.sum()} {z.sum():5d} {x.half()} {x.double().sum()} {x.bfloat16()[0]}",
        f"{x[:0]} {x[None]}",
    )


@pytest.mark.parametrize(
    "f", [_f_strings, _functions, _old_style, _new_style, _joined, _containers, _nested, _spread, _other_types]
)
@pytest.mark.parametrize("door", [None, kiln.jit.script])
def test_text_of_tensors(f: Any, door: Any) -> None:
    check(f, door=door)


def test_gradients_show_as_in_eager_mode() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        with kiln.no_grad():
            z = x * 2
        return f"{x} {y} {z} {y.sum()}", str(y.detach()), repr(y.view(3, 1)), y

    check(f, [lambda k=k: (vector(k, 2, 3, grad=True),) for k in (1, 2, 3)])
    layer = kiln.nn.Linear(2, 2)

    def g(x: Any) -> Any:
        return f"{layer.bias} {layer(x)}", layer.weight

    compiled = kiln.compile(g, fullgraph=True)
    for k in range(3):
        x = vector(k, 1)
        assert compiled(x)[0] == g(x)[0]
        with kiln.no_grad():
            layer.bias.add_(1)
    assert compiled.report().captured == 1


def test_a_history_from_before_the_call_is_not_known_beforehand() -> None:
    def f(x: Any) -> Any:
        return f"{x}", x.detach() + 1

    calls = [lambda: (vector(1, grad=True) * 2,), lambda: (vector(0, grad=True) + 2,), lambda: (vector(2, grad=True),)]
    check(f, calls, kiln.compile, captured=None)
    with pytest.raises(CaptureError, match="grad_fn"):
        kiln.compile(f, fullgraph=True)(*calls[0]())


def test_print_options_are_those_of_the_call() -> None:
    def f(x: Any) -> Any:
        print(x)
        return f"{x}", f"{x.sum()}", str(x) == "tensor([0.3333, 2.0000])"

    compiled = kiln.compile(f)
    x = vector(1 / 3, 2)
    try:
        for options in ({}, {"precision": 2}, {"sci_mode": True}, {"profile": "default"}):
            kiln.set_printoptions(**options)
            assert shown(compiled, [lambda: (x,)] * 2) == shown(f, [lambda: (x,)] * 2)
    finally:
        kiln.set_printoptions(profile="default")


def test_a_function_that_sets_print_options_is_refused() -> None:
    def f(x: Any) -> Any:
        kiln.set_printoptions(precision=2)
        return f"{x}"

    try:
        with pytest.raises(CaptureError, match="set_printoptions"):
            kiln.compile(f, fullgraph=True)(vector(1 / 3))
    finally:
        kiln.set_printoptions(profile="default")


def test_the_value_is_that_of_the_moment() -> None:
    def f(x: Any) -> Any:
        y = x.clone()
        before = f"{y} {y[0]}"
        y.mul_(2)
        x.add_(1)
        return before, f"{y} {x}", y

    check(f)


def test_where_the_string_itself_is_needed_it_is_asked_for() -> None:
    def f(x: Any) -> Any:
        text = f"{x.sum():.0f}"
        found = {"3": "three"}.get(text, "another")
        kinds = isinstance(text, str), type(text) is str, bool(text), len(text), text[0], text in "345", "3" in text
        return (
            found,
            kinds,
            {text: 1},
            sorted({text, "b"}),
            sorted([text, "2"]),
            text.ljust(9),
            text == "3",
            [*text],
            text * 2,
            text < "3",
        )

    def g(x: Any) -> Any:
        text = str(int(x.sum()) % 3)
        match text:
            case str() as same:
                return same, x + 1
        return x

    def h(x: Any) -> Any:
        name = f"a{x[0]:.0f}"
        table = {"a1": x * 2}
        table[name] = x

        def other(m: Any) -> str:
            return f"{x[1]:.0f}"

        return (
            table,
            re.sub("a", lambda m: f"{x[1]:.0f}", "bab"),
            re.sub("a", other, "bab"),
            sorted("abc", key=lambda c: f"{x[0]}{c}"),
        )

    calls = [lambda k=k: (vector(k, 2),) for k in (1, 2, 1, 2, 1)]
    for each in (f, g, h):
        compiled = check(each, calls, captured=None)
        assert compiled.report().captured == 2


def test_a_long_text_does_not_decide() -> None:
    def f(x: Any) -> Any:
        return x + 1 if "inf" in str(x) else x

    check(f, [lambda: (kiln.arange(900.0),)] * 2, kiln.compile, captured=None)
    with pytest.raises(CaptureError, match="characters"):
        kiln.compile(f, fullgraph=True)(kiln.arange(900.0))


def test_widths_that_data_decide() -> None:
    def f(x: Any) -> Any:
        n = 0
        while x.sum() > 1:
            x, n = x / 2, n + 1
        return f"{x[0]:{n + 1}.1f}|{n}|{n:03d}|{n!r}|{n=}", n, "%d turns" % n, "{:>4}".format(n)

    check(f, [lambda k=k: (vector(k, 2),) for k in (1, 9, 2, 9)], captured=None)


def test_numbers_that_tensors_decide() -> None:
    def f(x: Any) -> Any:
        n, big = 0, 0.5
        while x.sum() > 1:
            x, n = x / 2, n + 1
            big = big * 1.5
        return f"{n} turns, {big:.3f}, {[n, big]}, {n:>4d}", "%d of %.2f %s" % (n, big, n), str(n) + repr(big)

    check(f, [lambda k=k: (vector(k, 2),) for k in (1, 9, 2, 90)])


def test_wrong_formats_are_eagers_errors() -> None:
    def f(x: Any, spec: str) -> Any:
        if spec == "%":
            return "%d %d" % (x[0],)
        if spec == "+":
            return f"{x}" + 1  # type: ignore[operator]
        return f"{x:{spec}}", format(x[0], spec)

    for spec in (".2f", "%", "+", "q"):
        check(f, [lambda spec=spec: (vector(1, 2), spec)] * 2, kiln.compile, captured=None)


def test_formats_that_fail_for_some_data_only() -> None:
    def f(x: Any) -> Any:
        return "%d" % x.sum(), "%c" % int(x.sum())

    def g(x: Any) -> Any:
        y = x.clone()
        if x.sum() > 0:
            y = y + 1
            f"{x.sum():d}"
        return y

    for each in (f, g):
        check(each, [lambda k=k: (vector(k),) for k in (65, -1, float("nan"), 65)], kiln.compile, captured=None)


def test_texts_kept_outside_or_in_objects() -> None:
    class Log:
        lines: list[str]

        def __init__(self) -> None:
            self.lines = []

    def kept(log: Log) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            line = f"{x.sum():.1f}"
            log.lines.append(line)
            return x + 1

        return f

    one, other = Log(), Log()
    compiled, plain = kiln.compile(kept(one)), kept(other)
    for k in (1.0, 2.0, 1.0, 2.0):
        assert shown(compiled, [lambda k=k: (vector(k),)]) == shown(plain, [lambda k=k: (vector(k),)])
        assert one.lines == other.lines
        assert {type(line) for line in one.lines} == {str}

    def local(x: Any) -> Any:
        class Pair:
            def __init__(self, a: Any) -> None:
                self.a = a

            def __str__(self) -> str:
                if len(self.a) > 2:
                    return f"<{self.a} {x}>"
                return f"{x}"

            def __format__(self, spec: str) -> str:
                return f"{x[0]}" + spec

        pair = Pair(f"{x.sum()}")
        return pair.a, str(pair), f"{pair}", f"{pair:>3}", "%s" % pair

    check(local, [lambda k=k: (vector(k),) for k in (1, 2, 1)], captured=None)


def test_closures_and_generators_with_text() -> None:
    def f(x: Any) -> Any:
        text = f"{x.sum()}"

        def inner(y: Any) -> str:
            return f"{text} {y}"

        def lines() -> Any:
            yield text
            yield f"{x}"

        return inner(x), list(lines()), [*map(inner, [1])], (lambda y: f"{y}!")(x), "".join(inner(k) for k in range(2))

    check(f, captured=None)


# ------------------------------------------------------------------------------- branches and state


def _numbers(*starts: float) -> list[Callable[[], tuple[Any, ...]]]:
    return [lambda k=k: (vector(k, 1),) for k in starts]


def _marked(x: Any) -> Any:
    s = x.sum()
    text = f"sum {s:.2f}" + (" !" if s > 3 else "")
    if s > 5:
        note = f"large {x.max()}"
    elif s < 0:
        note = "negative"
    else:
        note = "normal"
        text = text + f" {x * 2}"
    print(text)
    return text, note + "."


def _returned(x: Any) -> Any:
    if x.sum() > 2:
        return f"big {x}", 1
    return "small", 2


def _in_each_other(x: Any) -> Any:
    s = x.sum()
    if s > 2:
        t = "c" if s > 5 else "d"
        if s > 10:
            t = t + f"{x}"
    else:
        t = "e"
    w = t + "?"
    if x[0] > 1:
        w = w + "!"
    return t, [w], {"both": f"{t:>9}{w!r}"}


def _before_and_after(x: Any) -> Any:
    line = f"{x}"
    other = line
    if x.sum() > 2:
        line = f"{line} and {x.sum()}"
    return line, other, len(x)


@pytest.mark.parametrize("f", [_marked, _returned, _in_each_other, _before_and_after])
@pytest.mark.parametrize("door", [None, kiln.jit.script])
def test_text_that_branches_choose(f: Any, door: Any) -> None:
    compiled = check(f, _numbers(1, 4, -5, 2, 0, 9, 12, 1), door)
    assert compiled.report().staged == 7


def test_the_string_that_a_branch_chose_is_needed() -> None:
    def f(x: Any) -> Any:
        name = "large" if x.sum() > 2 else "small"
        text = f"{x}" if x.sum() > 2 else name
        return {"large": x * 2, "small": x}[name], text.upper()

    def g(x: Any) -> Any:
        t, _, _ = _in_each_other(x)
        return {"e": 1}.get(t, 2), t

    for each in (f, g):
        check(each, _numbers(1, 4, -5, 2, 0, 9, 12, 1) * 2, kiln.compile, captured=None)


def test_names_that_a_script_chooses() -> None:
    def f(x: Any) -> Any:
        name = "large" if x.sum() > 2 else "small"
        return {"large": x * 2, "small": x}[name], name

    check(f, _numbers(1, 4, -5, 2, 0, 9), kiln.jit.script, captured=None)


def test_loops_do_not_carry_text() -> None:
    def f(x: Any) -> Any:
        line = "start"
        while x.sum() > 2:
            x = x / 2
            line = line + f" {x.sum():.2f}"
        return line, x

    check(f, _numbers(1, 4, 9, 4, 1), captured=None)


def test_text_made_and_dropped_in_a_loop_is_staged() -> None:
    def f(x: Any) -> Any:
        while x.sum() > 2:
            x = x / 2
            f"{x} {x.sum():.3f}"
        return x

    assert check(f, _numbers(1, 4, 9, 4, 1)).report().staged == 4


def test_text_of_gradients_in_branches() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        if x.detach().sum() > 2:
            text = f"{y} {y * 3}"
        else:
            text = f"{x.exp()}"
        return text, y

    check(f, [lambda k=k: (vector(k, 1, grad=True),) for k in (1, 4, 1, 9)], captured=None)


def test_lines_collected_in_a_list() -> None:
    def collecting(lines: list[Any]) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            lines.append(f"line {x.sum():.1f}")
            lines.append([f"{x}", x.sum().item()])
            return x + 1

        return f

    kept: list[Any] = []
    expected: list[Any] = []
    compiled, plain = kiln.compile(collecting(kept), fullgraph=True), collecting(expected)
    for k in (1.0, 2.0, 3.0, 4.0):
        assert bits(compiled(vector(k))) == bits(plain(vector(k)))
        assert bits(kept) == bits(expected)
        if k == 2:
            kept.clear()
            expected.clear()
    assert compiled.report().compiled >= 1


def test_a_script_in_a_trace_gives_no_text() -> None:
    @kiln.jit.script
    def words(x: Any) -> Any:
        return f"{x}", x + 1

    with pytest.raises(CaptureError, match="text"):
        kiln.jit.trace(lambda x: words(x), (vector(1),))


def test_annotated_results() -> None:
    def f(x: Any) -> str:
        return f"{x}" + ("!" if x.sum() > 2 else "")

    check(f, _numbers(1, 4, 1, 4), kiln.jit.script)


def test_code_of_what_prints_is_not_written() -> None:
    def f(x: Any) -> Any:
        print(x)
        return x

    def g(x: Any) -> Any:
        return f"{x}"

    for each in (f, g):
        scripted = kiln.jit.script(each)
        shown(scripted, VECTORS)
        with pytest.raises(NotImplementedError):
            _ = scripted.code
