"""Functions, decorators, generators, patterns: what a compiled function is made of."""

from __future__ import annotations

import functools
from typing import Any

import kiln
from tests.frontend.battery.kit import Table, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


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


@right()
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
