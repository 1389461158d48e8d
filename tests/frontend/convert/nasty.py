"""Programs by hand, for what no generator thinks of. Each defines `run(n)`."""

# ruff: noqa: E501 programs, a line each

PROGRAMS: dict[str, str] = {
    "shadow": "def run(n):\n    if n == 0:\n        return 1\n    return n * run(n - 1)",
    "shadowed_global": "size = len\ndef len(x): return size(x) + 1\ndef run(n):\n    return len([n])",
    "own_name_in_closure": "def make():\n    def run(n):\n        return run(n - 1) if n else 'end'\n    return run\nrun = make()",
    "decorated": (
        "def twice(f):\n    def g(n):\n        return f(n), f(n)\n    return g\n"
        "@twice\n@twice\ndef run(n):\n    return n if n else None"
    ),
    "wraps": (
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def g(n):\n        return ('deco', f(n) if n else 0)\n"
        "    return g\n@deco\ndef run(n):\n    return n"
    ),
    "defaults": "def run(n, a=[], *, k={}):\n    a.append(n)\n    k[n] = len(a)\n    return a, k",
    "cells": (
        "def make():\n    count = 0\n    def run(n):\n        nonlocal count\n        for _ in range(n):\n            count += 1\n"
        "            if count > 3:\n                del count\n                count = 100\n        return peek()\n"
        "    def peek():\n        return count\n    return run\nrun = make()"
    ),
    "unbound_free": "def make():\n    def run(n):\n        return late if n else 0\n    if 0: late = 1\n    return run\nrun = make()",
    "mangled": (
        "class _A:\n    __v = 5\n    def __hidden(self, __x): return __x + self.__v\n"
        "    def run(self, n):\n        __t = self.__hidden(n)\n        if n:\n            __t += 1\n            self.__w = __t\n"
        "            del self.__w\n        def inner():\n            nonlocal __t\n            __t += 1\n            return _A.__v\n"
        "        return inner(), __t, sorted(k for k in vars(self))\nrun = _A().run"
    ),
    "super": (
        "class B:\n    def hi(self, k): return ['B', k]\nclass C(B):\n    def hi(self, k):\n        if k:\n"
        "            return super().hi(k) + [__class__.__name__]\n        return [super().hi(i) if i else 0 for i in ()] or super().hi(9)\n"
        "def run(n):\n    return C().hi(n)"
    ),
    "super_direct": (
        "class B:\n    def run(self, n): return ['B', n]\nclass C(B):\n    def run(self, n):\n        if n > 1:\n"
        "            while n > 2:\n                n -= 1\n                got = super().run(n)\n            return super().run(n)\n"
        "        return (super().run(n) if n else None)\nrun = C().run"
    ),
    "class_cell": "class C:\n    def run(self, n):\n        if n:\n            return __class__.__qualname__\nrun = C().run",
    "staticmethod": "class C:\n    @staticmethod\n    def run(n):\n        return n and C.run(n - 1)\nrun = C.run",
    "classmethod": "class C:\n    k = 3\n    @classmethod\n    def run(cls, n):\n        cls.k += n\n        return cls.k if n else cls\nrun = C.run",
    "property": (
        "class C:\n    @property\n    def v(self):\n        raise KeyError('v')\n    @v.setter\n    def v(self, x):\n        raise ValueError(x)\n"
        "def run(n):\n    c = C()\n    if n:\n        c.v = n\n    return c.v"
    ),
    "dead_code": "x = 1\ndef run(n):\n    if n:\n        return x\n        x = 2\n    print(n)\n    return 0",
    "dead_after_loop": "def run(n):\n    while True:\n        if n: break\n        return 'r'\n        y = 1\n    return y",
    "finally_return": "def run(n):\n    for i in range(3):\n        try:\n            if n == i:\n                return 'try'\n            1 // n\n        finally:\n            if i == 2:\n                return 'finally'",
    "finally_break": "def run(n):\n    for i in range(3):\n        try:\n            1 // n\n        finally:\n            break\n    return i",
    "try_else_jump": "def run(n):\n    for i in range(3):\n        try:\n            if i == n: continue\n        except ValueError:\n            pass\n        else:\n            print('else', i)\n        finally:\n            print('finally', i)\n        print('after', i)\n    else:\n        print('done')",
    "except_name": "def run(n):\n    e = 1\n    try:\n        1 // n\n    except ZeroDivisionError as e:\n        if n == 0:\n            print(e)\n    return e",
    "except_star": "def run(n):\n    try:\n        raise ExceptionGroup('g', [ValueError(n), KeyError(n)])\n    except* ValueError as g:\n        if n: print(g.exceptions)\n    except* KeyError:\n        x = 2 if n else 3\n        print(x)\n    return x",
    "raise_from": "def run(n):\n    try:\n        [][n]\n    except IndexError as e:\n        if n > 1:\n            raise KeyError(n) from e\n        raise",
    "with_suppress": "import contextlib\ndef run(n):\n    with contextlib.suppress(ZeroDivisionError):\n        if n != 2:\n            return 6 // n\n        x = 1 // 0\n    return 'suppressed'",
    "nested_return": "def run(n):\n    for i in range(4):\n        for j in range(4):\n            while True:\n                if i * j == n: return i, j\n                if j > i: break\n                j += 1\n            else:\n                print('no')\n        else:\n            continue\n    return None",
    "loop_variable": "def run(n):\n    i = 'none'\n    for i in range(n):\n        if i == 1:\n            break\n    else:\n        print('else', i)\n    return i",
    "unbound_loop": "def run(n):\n    for i in range(n):\n        pass\n    return i",
    "maybe_unbound": "def run(n):\n    if n > 1:\n        x = n\n    if n > 0:\n        return x\n    return x if n else 0",
    "deleted": "def run(n):\n    x = 1\n    if n:\n        del x\n    return x",
    "chain_once": "def f(x):\n    print('f', x)\n    return x\ndef run(n):\n    return f(0) < f(n) < f(2) <= f(3) != f(1), 1 < n in [n] is not None",
    "walrus": "def run(n):\n    if (m := n * 2) > 2 and (k := m) < 6:\n        print(k)\n    while (m := m - 1) > 0: pass\n    print([y := x for x in range(n)], any((hit := v) > 1 for v in range(n)))\n    return m, y, hit",
    "aug": "class C:\n    def __init__(self): self.v = [1]\n    def __iadd__(self, o):\n        print('iadd', o)\n        return self\ndef g(c):\n    print('g')\n    return c\ndef run(n):\n    c = C()\n    d = {'c': c, n: 1}\n    g(c).v += [n]\n    g(d)['c'] += 3\n    d[g(n)] **= n + 1\n    d[n] <<= 2\n    g(d)[g(7)] += 1 // n",
    "aug_order": "def f(x):\n    print(x)\n    return x\ndef run(n):\n    d = {0: 1}\n    d[f(0)] += f(n) or d.clear() or 5\n    d[0], d[f(1)], *d[2] = f([3, 4, 5, n])\n    a = d[f(5)] = b = f(6)\n    (x, d['a']), [d['b'], (y,)] = (1, 2), [3, (4,)]\n    x, d[x] = 2, f(x)\n    return d, a, b, x, y",
    "unpack_error": "def run(n):\n    d = {}\n    d[0], d[1] = range(n)\n    return d",
    "unpack_loop": "def run(n):\n    for a, b in [(1, 2), (3, 4), (5,)]:\n        if a == n: break\n    return a, b",
    "attribute_lines": "class C: pass\ndef run(n):\n    return (C()\n        .missing\n        .other)",
    "call_lines": "def run(n):\n    return (str(n)\n        .upper()\n        .center(\n            'x'\n        )\n        .lower())",
    "subscript_lines": "def run(n):\n    return [1][\n        n\n    ]",
    "store_lines": "class C: __slots__ = ()\ndef run(n):\n    c = C()\n    if n:\n        (c\n          .x) = 1\n    c.y = [\n        1\n    ]",
    "not_callable": "def run(n):\n    return n(\n        1,\n        2)",
    "wrong_call": "def f(a, *, b): return a\ndef run(n):\n    return f(n, 2) if n else f(*n)",
    "keywords": "def f(**k): return k\ndef run(n):\n    return f(a=1, **{'a': 2})",
    "generator_laziness": "def gen():\n    try:\n        for i in range(5):\n            print('yield', i)\n            yield i\n    finally:\n        print('closed')\ndef run(n):\n    for x in gen():\n        if x == n:\n            break\n    print('left')\n    for x in gen():\n        if x == n:\n            return x",
    "generator": "def run(n):\n    for i in range(n):\n        got = yield i if i else 'zero'\n        if got and i: return 'never'\n    else:\n        yield from ('a', 'b')\n    return 5",
    "lifetime": "class D:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('del', self.n)\n    def __bool__(self): return True\nclass H: pass\ndef run(n):\n    h = H()\n    h.d = D(0)\n    del h.d\n    print(1)\n    if D(1): print('if')\n    x = D(2) and 1\n    print(2)\n    for _ in [D(3)]: pass\n    print(3)\n    h.a, h.b = D(4), D(5)\n    del h.a, _\n    print(4)\n    assert D(6)\n    while not D(7): pass\n    print(5)\n    return None or D(8) if n else D(9)",
    "class_body": "def run(n):\n    class K:\n        items = []\n        for i in range(n):\n            if i == 1: continue\n            items.append(i)\n        if items and n > 2 or not items:\n            flag = 'yes' if items else 'no'\n        both = 0 < n < 3\n        squares = [x * x for x in items if x]\n        def f(self): return self.items if self.both else None\n        items[:1] = [7]\n        f.tag = n\n    return {k: v for k, v in vars(K).items() if k[0] != '_' and k != 'f'}, K().f(), K.f.tag",
    "comprehension_scope": "x = 'global'\ndef run(n):\n    x = [x for x in range(n)]\n    return x, [[(x, y) for y in x] for x in [x]], {k: v for k, v in zip(x, 'abc') if k or v}",
    "fstrings": "class F:\n    def __format__(self, s):\n        print('format', s)\n        return 'F' + s\n    def __repr__(self): return 'rep'\ndef run(n):\n    f = F()\n    return f'{f}{f:a{n}b}{f!r:>8}{n=}{n!s:>{n+3}}{{}}{\"x\" if n else 1:4}'",
    "fstring_error": "def run(n):\n    return f'a{n:\\n}' + f'{object():d}'",
    "match": "class P:\n    __match_args__ = ('x',)\n    def __init__(self, x): self.x = x\ndef run(n):\n    for v in (n, [n, 2, 3], {'k': n, 'z': 1}, P(n), 'str', None):\n        match v:\n            case 0 | 1: r = 'small'\n            case int(k) if k > 1 and k < 3: r = k\n            case [a, *rest]:\n                if a: continue\n                r = rest\n            case {'k': k, **more}: r = more\n            case P(x=0): break\n            case P(x): r = x\n            case str() as s: return s\n            case _: r = None\n        print(v.__class__.__name__, r)\n    return 'end'",
    "global_names": "g = 0\ndef run(n):\n    global g, new\n    for g in range(n):\n        if g == 1: new = g\n    g += 10\n    a, g = g, [n]\n    g[0:] = [a]\n    return new",
    "lambda_line": "run = (lambda n:\n    n if n else\n    -1)",
    "lambdas": "fs = [lambda n: n + 1, lambda n: n + 2]; run = fs[1]",
    "same_lambdas": "fs = [lambda n: n, lambda n: n]; run = fs[1]",
    "lambda_default": "run = lambda n, f=lambda x: x or 'f': (f(n) and n, (y := n), y)",
    "annotated": "def run(n: int, *a: 'x') -> print:\n    x: int = n\n    y: print('never')\n    d: dict = {}\n    d['k']: int = x\n    if n:\n        y = 2\n    return d, y",
    "star_index": "def run(n):\n    class K:\n        def __getitem__(self, k): return k\n    k = K()\n    return k[1:2, ..., ::n], k[*[1, n]], k[n:], k[-n]",
    "delete": "def run(n):\n    d = {0: [1, 2, 3], 1: 1}\n    x = y = 5\n    del d[1], d[0][n:], (x, [y])\n    if n: return d\n    print(x)",
    "assert": "def run(n):\n    assert n != 1\n    assert n - 2, ('msg', n)\n    assert n and not (n < 0 or n > 5), \\\n        f'zero {n}'\n    assert (n !=\n      3)",
    "is_": "def run(n):\n    a = []\n    return a is a, a is not [], not a is None, n in (1, 2), n not in {1: 2}, 'a' in 5 if n else 0",
    "imports": "def run(n):\n    import os.path as o, sys\n    if n:\n        from math import pi as p\n    return o.__name__, sys.__name__, p",
    "docstring": "def run(n):\n    'doc'\n    if n:\n        return run.__doc__\n    def f():\n        'inner doc'\n        if n: return 1\n        return f.__doc__\n    return f(), f.__qualname__, f.__code__.co_qualname",
    "inner_class": "def run(n):\n    class A:\n        def __init__(self, v): self.__v = v\n        def get(self):\n            if self.__v > 1:\n                return self.__v\n            return super().__class__.__name__, __class__.__qualname__\n    class B(A):\n        def get(self):\n            for _ in range(2):\n                if n: return ('B', super().get())\n    return B(n).get(), A(n).get()",
    "args": "def run(n, /, *args, k=1, **kw):\n    if n:\n        n, args = args, n\n    return n, args, k, kw",
    "many_returns": "def run(n):\n    "
    + "\n    ".join(f"if n == {i + 5}: return {i}" for i in range(60))
    + "\n    return n",
    "elifs": "def run(n):\n    if n == 7: return 7\n    "
    + "\n    ".join(f"elif n == {i + 9}: x = {i}" for i in range(50))
    + "\n    else: x = 'no'\n    return x",
    "recursion_limit": "def run(n):\n    def f(k):\n        if k: return f(k - 1)\n        return 0\n    return f(200)",
    "stop_iteration": "def run(n):\n    it = iter(range(n))\n    if n > 1:\n        next(it)\n    return next(it) if n else next(it, 'd')",
    "exception_context": "def run(n):\n    import sys\n    try:\n        1 // 0\n    except ZeroDivisionError:\n        if n:\n            for i in range(2):\n                if sys.exc_info()[0] is None: return 'lost'\n                if i: break\n        return str(sys.exc_info()[1])",
    "stacklevel": "import warnings\ndef warn(): warnings.warn('w', stacklevel=2)\ndef run(n):\n    with warnings.catch_warnings(record=True) as got:\n        warnings.simplefilter('always')\n        if n:\n            warn()\n    return [w.lineno for w in got]",
    "async_": "import asyncio\nasync def one(n):\n    await asyncio.sleep(0)\n    if n: return [x async for x in gen(n)]\n    return 0\nasync def gen(n):\n    for i in range(n):\n        yield i if i else 'z'\ndef run(n):\n    async def main():\n        async with lock as l:\n            return await one(n) or 'zero'\n    lock = Lock()\n    return asyncio.run(main())\nclass Lock:\n    async def __aenter__(self): return 1\n    async def __aexit__(self, *a): print('exit')",
}
