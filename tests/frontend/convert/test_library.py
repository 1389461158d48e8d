"""Modules of the standard library, with every function converted, do what they did: as Python, and all staged."""

from __future__ import annotations

import importlib.util
import io
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from kiln.convert import PythonHooks, Refused, converted
from tests.frontend.convert.harness import Staging


def fresh(name: str, hooks: Any) -> Any:
    """A copy of a module, its functions and methods converted (None: as they are)."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for accelerator in ("_bisect", "_heapq", "_json", "_statistics"):
            patch.setitem(sys.modules, accelerator, None)
        spec.loader.exec_module(module)
    count = 0
    if hooks is not None:
        for space in (module, *(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name)):
            for key, value in list(vars(space).items()):
                kinds = (types.FunctionType, staticmethod, classmethod)
                if isinstance(value, kinds) and getattr(value, "__module__", name) == name:
                    try:
                        setattr(space, key, converted(value, hooks))
                        count += 1
                    except Refused as refused:
                        assert any(word in refused.message for word in ("frames", "calls", "can't be read")), refused
        assert count > 2
    return module


def _textwrap(m: Any) -> Any:
    text = "The quick  brown fox jumped over\n\n  the lazy-dog and a verylongwordindeed. It ended\there."
    out = [m.wrap(text, width=w) for w in (1, 5, 12, 40)]
    out += [m.fill(text, 20, initial_indent="* ", subsequent_indent="  ", fix_sentence_endings=True)]
    out += [m.shorten(text, 30), m.dedent("  a\n   b\n\n  c"), m.indent(text, "> ", lambda line: "o" in line)]
    return out, m.TextWrapper(max_lines=2, width=15, placeholder="...").wrap(text)


def _heapq(m: Any) -> Any:
    xs = [(k * 37) % 23 for k in range(40)]
    heap: list[int] = []
    for x in xs:
        m.heappush(heap, x)
    out = [m.heappop(heap) for _ in range(10)]
    return out, m.nlargest(4, xs), m.nsmallest(5, xs, key=lambda v: -v), list(m.merge(xs[:3], [1, 5], reverse=False))


def _bisect(m: Any) -> Any:
    a = [1, 2, 2, 3, 9]
    m.insort_left(a, 4)
    m.insort_right(a, 4, key=lambda x: x)
    return a, [m.bisect_left(a, x) for x in range(-1, 12)], [m.bisect_right(a, x, 1, 5) for x in range(5)]


def _statistics(m: Any) -> Any:
    xs = [2.5, 3.25, 5.5, 11.5, 11.75, 2.5]
    out = [m.mean(xs), m.median(xs), m.mode(xs), m.pvariance(xs), m.stdev(xs), m.quantiles(xs, n=3)]
    out += [m.harmonic_mean([40, 60]), m.geometric_mean(xs), m.correlation(xs, xs[::-1]), m.median_grouped(xs)]
    n = m.NormalDist.from_samples(xs)
    return out, n.cdf(4.0), n.inv_cdf(0.3), (n + 2).mean, m.linear_regression(xs, xs[::-1])


def _fractions(m: Any) -> Any:
    f = m.Fraction
    out = [f("3/4") + f(1, 6), f(0.375) ** -2, f("-1.25e2") // 3, f(7, 3).limit_denominator(2), round(f(22, 7), 2)]
    out += [f(3, 2) % 1, divmod(f(7, 2), f(2, 3))[1]]
    return list(map(str, out)), f(1, 3) < 0.5, f(8, 4) == 2, hash(f(1, 7))


def _difflib(m: Any) -> Any:
    a, b = "one two three\nfour five\nsix\n".splitlines(True), "one tree\nfour  five\nseven\nsix\n".splitlines(True)
    matcher = m.SequenceMatcher(None, "qabxcd", "abycdf")
    out = [matcher.get_opcodes(), matcher.ratio(), list(m.unified_diff(a, b)), list(m.ndiff(a, b))]
    return out, m.get_close_matches("appel", ["ape", "apple", "peach"]), list(m.context_diff(a, b, n=1))


def _json(m: Any) -> Any:
    data = {"a": [1, 2.5, None, True, float("inf")], "b": {"c": 'é\n"', "d": []}, "e": {}}
    encoder = m.JSONEncoder(indent=2, sort_keys=True)
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    small = list(m.JSONEncoder(separators=(",", ":")).iterencode(data))
    return encoder.encode(data), small, _fault(encoder.encode, cyclic)


def _scan(m: Any) -> Any:
    scan = m.JSONDecoder()
    scan.parse_string = m.py_scanstring
    scan.scan_once = m.scanner.py_make_scanner(scan)
    good = scan.decode('{"a": [1, -2.5e3, "x\\u00e9\\n", null], "b": {"c": true}}')
    return good, [_fault(scan.decode, text) for text in ("", "[1,", '{"a" 1}', '"\\x"', "[1] 2")]


def _configparser(m: Any) -> Any:
    text = "[DEFAULT]\nroot = /r\n[a]\nx = %(root)s/1\ny: 2\n  more\n; note\n[b]\nflag = yes\nempty\n"
    parser = m.ConfigParser(allow_no_value=True)
    parser.read_string(text)
    out = io.StringIO()
    parser.write(out)
    got = [parser.get("a", "x"), parser.getboolean("b", "flag"), parser["b"].get("none", "fallback"), out.getvalue()]
    return got, [str(_fault(parser.read_string, bad)) for bad in ("x = 1", "[a]\n[a]", "[a]\n = 3")], parser.sections()


def _string(m: Any) -> Any:
    t = m.Template("$a ${b} $$ $c")
    out = [t.safe_substitute(a=1, b=2), m.capwords("the  end of"), t.is_valid(), t.get_identifiers()]
    return out, m.Formatter().format("{0:>5} {x[1]!r} {y.real}", "a", x=[1, "b"], y=3), _fault(t.substitute, {"a": 1})


def _shlex(m: Any) -> Any:
    lexer = m.shlex("a && b 'c d' | e\\ f # note\n g", posix=True, punctuation_chars=True)
    return m.split("a 'b c' \"d\" f\\ g"), list(lexer), m.quote("it's"), m.join(["a b", "c"]), _fault(m.split, "a 'b")


def _colorsys(m: Any) -> Any:
    points = [(r / 3, g / 3, b / 3) for r in range(4) for g in range(4) for b in range(4)]
    pairs = ("hls", "hsv", "yiq")
    return [[getattr(m, f"{p}_to_rgb")(*getattr(m, f"rgb_to_{p}")(*x)) for x in points] for p in pairs]


def _csv(m: Any) -> Any:
    text = "name;age\n'a;b';3\nc;4;5\n"
    dialect = m.Sniffer().sniff(text)
    rows = list(m.DictReader(io.StringIO("a,b\n1,2\n3\n4,5,6\n"), restkey="more", restval="none"))
    out = io.StringIO()
    writer = m.DictWriter(out, ["a", "b"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows([{"a": 1, "b": "x,y"}, {"a": 2, "c": 3}])
    return dialect.delimiter, m.Sniffer().has_header(text), rows, out.getvalue()


def _argparse(m: Any) -> Any:
    parser = m.ArgumentParser(prog="p", description="d", exit_on_error=False)
    parser.add_argument("x", type=int, nargs="+")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--a", choices=["1", "2"])
    group.add_argument("--b", action="store_true")
    good = [vars(parser.parse_args(text.split())) for text in ("1 2 -vv", "3 --a 2", "--b 4")]
    return good, parser.format_help(), [str(_fault(parser.parse_args, t.split())) for t in ("1 --a 3", "z")]


def _fnmatch(m: Any) -> Any:
    names = ["a.py", "b.txt", "[x]", "abc"]
    return m.translate("a[!b-d]*?.py"), m.filter(names, "*.*"), [m.fnmatchcase(n, "[[]x]") for n in names]


def _fault(f: Callable[..., Any], *args: Any) -> Any:
    try:
        return f(*args)
    except Exception as error:  # noqa: BLE001 its type and text are compared
        return type(error).__name__, str(error)


MODULES: dict[str, Callable[[Any], Any]] = {
    "textwrap": _textwrap, "heapq": _heapq, "bisect": _bisect, "statistics": _statistics, "fractions": _fractions,
    "difflib": _difflib, "json.encoder": _json, "json.decoder": _scan, "configparser": _configparser,
    "string": _string, "shlex": _shlex, "colorsys": _colorsys, "csv": _csv, "argparse": _argparse,
    "fnmatch": _fnmatch,
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_same_results(name: str) -> None:
    wanted = repr(MODULES[name](fresh(name, None)))
    assert repr(MODULES[name](fresh(name, PythonHooks()))) == wanted
    staging = Staging()
    assert repr(MODULES[name](fresh(name, staging))) == wanted
    assert staging.sites
