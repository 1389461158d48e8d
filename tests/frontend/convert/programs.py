"""Programs made from every construct alone and from every pair of them, one inside the other."""

# ruff: noqa: E501 programs, a line each

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator

PRELUDE = '''
import contextlib
log = []

def p(name, value=None):
    print(name, value)
    return value

class T:
    """A value whose truth can be seen to be asked for."""
    def __init__(self, name, truth):
        self.name, self.truth = name, bool(truth)
        if truth == 7:
            self.truth = None
    def __bool__(self):
        print("bool", self.name)
        if self.truth is None:
            raise ValueError(self.name)
        return self.truth
    def __repr__(self):
        return f"T({self.name}, {self.truth})"
    def __eq__(self, other):
        print("eq", self.name)
        return self.truth
    __hash__ = None

@contextlib.contextmanager
def manager(name):
    print("enter", name)
    try:
        yield name
    except KeyError as e:
        print("swallow", e)
    finally:
        print("exit", name)

def items(*values):
    try:
        for v in values:
            print("item", v)
            yield v
    finally:
        print("closed")
'''

# Each has one or more places for a body: {b}. {k} tells the two levels of a pair apart.
STATEMENTS: dict[str, str] = {
    "if": "if p('if{k}', n > {k}):\n    {b}",
    "if_else": "if p('if{k}', n % 2):\n    {b}\nelse:\n    z = p('else{k}', n)",
    "else": "if T('e{k}', n > 1):\n    y{k} = p('then{k}', n)\nelse:\n    {b}",
    "elif": "if n == 0:\n    p('zero')\nelif p('elif{k}', n == 1):\n    {b}\nelif n == 2:\n    z = 2\nelse:\n    {b}",
    "while": "i{k} = 0\nwhile p('while{k}', i{k} < n):\n    i{k} += 1\n    {b}\n    p('again{k}')",
    "while_else": "i{k} = 0\nwhile i{k} < 3:\n    i{k} += 1\n    {b}\nelse:\n    p('orelse{k}', i{k})",
    "while_true": "i{k} = 0\nwhile True:\n    i{k} += 1\n    if i{k} > n + 1:\n        break\n    {b}",
    "for": "for x{k} in items(1, 2, n):\n    {b}\n    p('next{k}')",
    "for_else": "for x{k}, w{k} in zip(range(n), xs):\n    {b}\nelse:\n    p('orelse{k}')",
    "for_targets": "for box['i'] in xs[:n]:\n    {b}",
    "with": "with manager('{k}') as m{k}, manager('two{k}'):\n    {b}\n    p('in{k}', m{k})",
    "try_except": "try:\n    {b}\n    p('tried{k}', 6 // (n - 1))\nexcept ZeroDivisionError as e:\n    z = p('caught{k}', str(e))",
    "except": "try:\n    1 // (n - 2)\n    p('fine{k}')\nexcept ZeroDivisionError:\n    {b}",
    "finally": "try:\n    {b}\n    p('tried{k}')\nfinally:\n    p('finally{k}', n)",
    "try_all": "try:\n    {b}\nexcept KeyError:\n    p('key{k}')\nelse:\n    p('else{k}')\n    {b}\nfinally:\n    z = p('finally{k}')",
    "in_finally": "try:\n    q = 1 // n\nfinally:\n    p('finally{k}')\n    {b}",
    "match": "match [n, xs]:\n    case [0, _]:\n        p('none{k}')\n    case [1 | 2 as got{k}, [first, *_]] if p('guard{k}', T('g', first)):\n        {b}\n    case _:\n        p('other{k}')",
    "def": "def inner{k}(a, *b, c=n):\n    nonlocal n\n    n += 0\n    if a:\n        return a\n    return c\nif inner{k}(n):\n    {b}",
}

LEAVES: dict[str, str] = {
    "plain": "z = p('z', n)",
    "return": "return p('ret', n)",
    "if_return": "if n == 2: return p('early', n)",
    "break": "break",
    "if_break": "if p('b', n > 1): break",
    "continue": "continue",
    "if_continue": "if T('c', n != 1): continue",
    "raise": "if n == 2: raise KeyError('k') from None",
    "fail": "log.append(10 // (n - 2))",
    "unbound": "print(late)\nlate = n",
    "del": "if n: del z",
    "assert": "assert T('a', n != 3), f'bad {n!r:>4}'",
}
_LOOPS = frozenset({"while", "while_else", "while_true", "for", "for_else", "for_targets"})
_NEED_LOOP = frozenset({"break", "if_break", "continue", "if_continue"})

FRAMES: dict[str, tuple[str, str]] = {
    "function": ("def run(n, xs, box):\n    z = 0\n    {b}\n    p('end', z)\n    return z, n", "run"),
    "method": (
        "class Base:\n    def hi(self): return 'hi'\nclass C(Base):\n    def hi(self):\n        return 'C'\n"
        "    def run(self, n, xs, box):\n        z = self.__z = super().hi()\n        {b}\n        p('end', z)\n"
        "        return self.__z, super().hi()\nc = C()",
        "c.run",
    ),
    "closure": (
        "def make():\n    z = 0\n    def run(n, xs, box):\n        nonlocal z\n        {b}\n        z = (z, n)\n"
        "        return z\n    def look(): return z\n    return run, look\nrun, look = make()\n",
        "run",
    ),
    "inner": (
        "def run(n, xs, box):\n    z = 0\n    def body():\n        nonlocal z, n\n        {b}\n        p('end', z)\n"
        "        return n\n    got = body()\n    return got, z",
        "run",
    ),
    "generator": ("def run(n, xs, box):\n    z = 0\n    yield 1\n    {b}\n    yield z\n    p('end')", "run"),
    "in_class": ("def run(n, xs, box):\n    class K:\n        z = n\n        {b}\n    return vars(K).get('z')", "run"),
}


def fill(template: str, body: str) -> str:
    """A template with a body at each of its places, indented as they are."""
    lines = []
    for line in template.split("\n"):
        if line.strip() == "{b}":
            lines.append(textwrap.indent(body, line[: len(line) - len(line.lstrip())]))
        else:
            lines.append(line)
    return "\n".join(lines)


def statement_programs(frames: tuple[str, ...], leaves: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(name, text, what to call) of all pairs of statements around all leaves."""
    for frame in frames:
        shell, get = FRAMES[frame]
        for outer in ("none", *STATEMENTS):
            for inner in STATEMENTS:
                for leaf in leaves:
                    if leaf in _NEED_LOOP and not {outer, inner} & _LOOPS:
                        continue
                    body = fill(STATEMENTS[inner].replace("{k}", "2"), LEAVES[leaf])
                    if outer != "none":
                        body = fill(STATEMENTS[outer].replace("{k}", "1"), body + "\np('after')")
                    text = PRELUDE + fill(shell, body)
                    yield f"{frame}-{outer}-{inner}-{leaf}", text, get


EXPRESSIONS: dict[str, str] = {
    "ifexp": "(p('then', {e}) if T('t', n > 1) else p('else', n))",
    "ifexp_test": "('yes' if {e} else 'no')",
    "and": "(T('l', n) and {e} and p('r', 2))",
    "or": "(T('l', n < 2) or {e} or p('r', 0))",
    "not": "(not {e})",
    "chain": "(0 < p('m', n) <= p('e', ({e}) == 1) < 3)",
    "in": "({e} in [p('c', n), 1, 2] if n else p('i', 1) not in xs)",
    "is": "({e} is None, {e} is not n)",
    "walrus": "[w := {e}, w]",
    "call": "p('call', *[{e}], **{{}})",
    "method": "[{e}].index(p('arg', {e}))",
    "lambda": "(lambda a, b={e}: a and b or n)(n)",
    "list": "[({e}, j) for j in range(n) if T('if', j) for k in [j]]",
    "dict": "{{j: {e} for j in xs if j > 1 if n}}",
    "generator": "list(({e}) for j in items(1, n) if j)",
    "set": "len({{j for j in xs if not j is n}}) + bool({e})",
    "fstring": 'f"{{{e}!r:>{{n + 20}}}}|{{n=}}|{{xs[0]:{{n}}d}}"',
    "item": "[{e}, 2][0], xs[n - 3], xs[:{e} and 1], xs[::2]",
    "attribute": "p.__name__.upper().join([str({e}),\n        'x'\n    ]).title()",
    "star": "[*xs, *[{e}]], {{**box, 'k': {e}}}",
    "unpack": "[q for q, *r in [({e}, n)]]",
    "compare": "({e} == 1, n < 2)",
    "raises": "({e}, 1 // (n - 1))",
    "condition": "(1 if (T('a', n) and not {e}) or T('b', n != 2) and 0 < n < 3 else 2)",
}

EXPRESSION_FRAMES: dict[str, tuple[str, str]] = {
    "function": ("def run(n, xs, box):\n    if {e}:\n        return {e}\n    return 'no'", "run"),
    "while": ("def run(n, xs, box):\n    c = 0\n    while c < 2 and {e}:\n        c += 1\n    assert {e}, {e}", "run"),
    "method": ("class C:\n    def run(self, n, xs, box):\n        self.v = box[n] = {e}\n        self.v, box['a'] = box[n], 1\n"
               "        return self.v\nc = C()", "c.run"),
    "closure": ("def make(n, xs):\n    def run(n_, xs, box):\n        return {e}\n    return run\nrun = make(2, [1, 2])", "run"),
    "lambda": ("run = lambda n, xs, box: {e}", "run"),
    "lambdas": ("both = [lambda n: 0, lambda n, xs, box: {e}, lambda n, xs, box: n]; run = both[1]", "run"),
    "comprehension": ("def run(n, xs, box):\n    return [{e} for n in (n, 1)]", "run"),
    "iterated": ("def run(n, xs, box):\n    return [a for a in [{e}] for b in [a, 1]]", "run"),
    "class": ("def run(n, xs, box):\n    class K:\n        z = n\n        v = {e}\n    return K.v", "run"),
    "generator": ("def run(n, xs, box):\n    got = yield {e}\n    yield got or {e}", "run"),
    "global": ("g = 1\ndef run(n, xs, box):\n    global g, h\n    g, h = {e}, 2\n    g += 1\n    return g", "run"),
    "default": ("def run(n, xs, box):\n    def f(a={e}):\n        return a\n    return f()", "run"),
}  # fmt: skip


def expression_programs(frames: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(name, text, what to call) of all pairs of expressions."""
    for frame in frames:
        shell, get = EXPRESSION_FRAMES[frame]
        for outer in ("none", *EXPRESSIONS):
            for inner in EXPRESSIONS:
                leaf = EXPRESSIONS[inner].replace("{e}", "p('leaf', n)").replace("{{", "{").replace("}}", "}")
                if outer != "none":
                    parts = EXPRESSIONS[outer].split("{e}")
                    inside = f"({leaf})"
                    leaf = inside.join(part.replace("{{", "{").replace("}}", "}") for part in parts)
                text = PRELUDE + shell.replace("{e}", f"({leaf})")
                yield f"{frame}-{outer}-{inner}", text, get


def possible(text: str) -> bool:
    """Whether Python takes a program: jumps, returns, named expressions may not stand everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "<program>", "exec")
        except SyntaxError:
            return False
    return True


def arguments(n: int) -> tuple[int, list[int], dict[str, int]]:
    """What a program is called with."""
    return n, [1, 2, 3], {"i": 0}
