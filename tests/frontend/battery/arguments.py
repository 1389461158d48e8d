"""What is passed in: structure, Python values, objects, containers."""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


class Scaler:
    """An object with a method."""

    def __init__(self, k: float) -> None:
        self.k = k

    def go(self, x: Any) -> Any:
        return x * self.k

    def __call__(self, x: Any) -> Any:
        return x * self.k * 2


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Batch:
    x: Any
    y: Any


def at_one_address(see: Any, call: Any, make: Any) -> None:
    """Call with an object, and then with another one that (if the first was freed) lies at the same address."""
    first = make(2.0)
    address = id(first)
    see(call(first), call(first))
    del first
    tried = []
    for _ in range(200):
        tried.append(make(3.0))
        if id(tried[-1]) == address:
            break
    see(call(tried[-1]), call(tried[-1]))


# ----------------------------------------------------------------------------------- calling forms


@right(captures=3)
def positional_and_keyword(c: Any, see: Any) -> None:
    f = c(lambda x, y: x - y)
    for n in range(3):
        see(f(vector(n), vector(2)), f(x=vector(n), y=vector(2)), f(y=vector(2), x=vector(n)))


@right()
def star_arguments(c: Any, see: Any) -> None:
    def f(*args: Any, **kwargs: Any) -> Any:
        return sum(args) * len(args) + sum(kwargs.values())

    g = c(f)
    for _ in range(2):
        see(g(vector(1)), g(vector(1), vector(2)), g(vector(1), k=vector(5)), g(vector(1), k=vector(5), j=2.0))


@right()
def keyword_names_are_read(c: Any, see: Any) -> None:
    f = c(lambda **kw: {k + "_": v * 2 for k, v in kw.items()})
    for _ in range(2):
        see(f(a=vector(1)), f(b=vector(1)), f(a=vector(1), b=vector(2)), f(b=vector(1), a=vector(2)))


@right()
def keyword_only_and_positional_only(c: Any, see: Any) -> None:
    def f(x: Any, /, y: Any = 1.0, *, z: Any = None) -> Any:
        return x * y if z is None else x * y + z

    g = c(f)
    for _ in range(2):
        see(g(vector(1)), g(vector(1), 2.0), g(vector(1), y=2.0), g(vector(1), z=vector(3)), g(vector(1), z=4))


@right()
def wrong_calls(c: Any, see: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return x + y

    g = c(f)
    for _ in range(2):
        for call in (lambda: g(), lambda: g(vector(1)), lambda: g(vector(1), z=1), lambda: g(vector(1), 2, 3)):
            try:
                call()
            except TypeError as error:
                see("TypeError", str(error).split("()")[-1])
        see(g(vector(1), vector(2)))


@right()
def kwargs_popped_inside(c: Any, see: Any) -> None:
    def f(x: Any, **kw: Any) -> Any:
        k = kw.pop("k", 1.0)
        return x * k + len(kw)

    g = c(f)
    for _ in range(2):
        see(g(vector(1), k=2.0), g(vector(1)), g(vector(1), k=2.0, j=3))


# ----------------------------------------------------------------------------------- Python values


@right(captures=6)
def ints_bools_and_floats(c: Any, see: Any) -> None:
    f = c(lambda x, k: (x * k, k))
    for _ in range(2):
        for k in (1, True, 1.0, 0, False, 0.0):
            see(f(kiln.tensor([1, 2]), k))


@right()
def special_floats(c: Any, see: Any) -> None:
    f = c(lambda x, k: (x * k, x + k))
    for _ in range(2):
        for k in (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 1e308):
            see(f(vector(1, -2), k))


@right()
def numpy_scalars(c: Any, see: Any) -> None:
    f = c(lambda x, k: x * k)
    for _ in range(2):
        for k in (np.float32(2), np.float64(2), np.int64(2), np.bool_(True), np.float32(-0.0), 2, 2.0):
            see(f(vector(1), k), f(kiln.tensor([3]), k))


@right()
def strings_none_and_bytes(c: Any, see: Any) -> None:
    def f(x: Any, mode: Any) -> Any:
        if mode is None:
            return x
        return x * 2 if mode in ("double", b"double") else (x, mode)

    g = c(f)
    for _ in range(2):
        see(
            g(vector(1), "double"), g(vector(1), None), g(vector(1), "other"), g(vector(1), b"double"), g(vector(1), "")
        )


@right()
def enum_members(c: Any, see: Any) -> None:
    class Mode(enum.Enum):
        ADD = 1
        MUL = 2

    class Number(enum.IntEnum):
        ONE = 1
        TWO = 2

    f = c(lambda x, m: x + 2 if m is Mode.ADD else x * 2 if m is Mode.MUL else x * m)
    for _ in range(2):
        see(f(vector(1), Mode.ADD), f(vector(1), Mode.MUL), f(vector(1), Number.TWO), f(vector(1), 2), f(vector(1), 1))


@right(captures=3)
def dtypes_as_arguments(c: Any, see: Any) -> None:
    f = c(lambda x, d: x.to(d))
    for _ in range(2):
        see(f(vector(1.5), kiln.float64), f(vector(1.5), kiln.int64), f(vector(1.5), kiln.bool))


@right(captures=2)
def number_or_scalar_tensor(c: Any, see: Any) -> None:
    f = c(lambda x, k: x * k)
    for n in range(3):
        see(f(vector(1), 2.0), f(vector(1), kiln.tensor(float(n))))


@right()
def very_large_integers(c: Any, see: Any) -> None:
    f = c(lambda x, n: (x, n, n + 1))
    for n in (2**63, 2**64, 10**30, -(2**70)):
        see(f(vector(1), n), f(vector(1), n))


@right()
def shapes_computed_from_numbers(c: Any, see: Any) -> None:
    f = c(lambda x, n, m: x.reshape(n, m).sum(0) * kiln.ones(m))
    for n, m in ((2, 3), (3, 2), (1, 6), (2, 3)):
        see(f(kiln.arange(6.0), n, m))


@right(captures=3)
def ranges(c: Any, see: Any) -> None:
    f = c(lambda x, r: sum((x * k for k in r), x))
    for n in (2, 3, 4, 2, 3, 4):
        see(f(vector(1), range(n)))


@right(captures=3)
def slices(c: Any, see: Any) -> None:
    f = c(lambda x, s: x[s] * 2)
    for n in (2, 3, 4, 2, 3, 4):
        see(f(kiln.arange(5.0), slice(0, n)))


@right()
def bound_methods(c: Any, see: Any) -> None:
    scalers = {k: Scaler(k) for k in (2.0, 3.0)}
    f = c(lambda x, g: g(x))
    at_one_address(see, lambda g: f(vector(1), g), lambda k: scalers[k].go)


@right(captures=2)
def one_bound_method_again_and_again(c: Any, see: Any) -> None:
    a = Scaler(2.0)
    f = c(lambda x, g: g(x))
    keep = []
    for _ in range(4):
        keep.append(a.go)
        see(f(vector(1), keep[-1]))


@right()
def partials(c: Any, see: Any) -> None:
    f = c(lambda x, g: g(x))
    at_one_address(see, lambda g: f(vector(1), g), lambda k: functools.partial(kiln.mul, other=k))


@right()
def lambdas(c: Any, see: Any) -> None:
    f = c(lambda x, g: g(x))
    for k in (2.0, 3.0, 4.0, 2.0):
        see(f(vector(1), lambda x: x * k))  # noqa: B023


@right()
def functions_by_name(c: Any, see: Any) -> None:
    f = c(lambda x, g: g(x))
    for _ in range(2):
        see(f(vector(1), kiln.exp), f(vector(1), kiln.tanh), f(vector(1), nn.functional.relu), f(vector(1), kiln.exp))


@right()
def compiled_functions_as_arguments(c: Any, see: Any) -> None:
    f = c(lambda x, g: g(x) + 1)
    for k in (2.0, 3.0, 4.0, 2.0):
        see(f(vector(1), c(lambda x: x * k)))  # noqa: B023


@right()
def itemgetters(c: Any, see: Any) -> None:
    f = c(lambda x, get: get((x, x * 2, x * 3, x * 4)))
    at_one_address(see, lambda g: f(vector(1), g), lambda k: operator.itemgetter(int(k)))


@right()
def time_deltas(c: Any, see: Any) -> None:
    f = c(lambda x, d: x * d.days)
    at_one_address(see, lambda d: f(vector(1), d), lambda k: datetime.timedelta(days=k))


@right()
def compiled_functions_at_one_address(c: Any, see: Any) -> None:
    f = c(lambda x, g: g(x))
    at_one_address(see, lambda g: f(vector(1), g), lambda k: kiln.compile(lambda x: x * k))


@right()
def objects(c: Any, see: Any) -> None:
    a, b = Scaler(2.0), Scaler(3.0)
    f = c(lambda x, s: s.go(x) + s(x))
    for _ in range(2):
        see(f(vector(1), a), f(vector(1), b))
    a.k = 7.0
    see(f(vector(1), a), f(vector(1), b))


@right()
def new_objects_each_time(c: Any, see: Any) -> None:
    f = c(lambda x, s: s.go(x))
    for n in range(80):
        see(f(vector(1), Scaler(float(n % 7))))


@right()
def objects_without_attributes(c: Any, see: Any) -> None:
    class A:
        __slots__ = ()

        def go(self, x: Any) -> Any:
            return x * 2

    class B(A):
        __slots__ = ()

        def go(self, x: Any) -> Any:
            return x * 3

    f = c(lambda x, s: s.go(x))
    at_one_address(see, lambda a: f(vector(1), a), lambda k: A() if k == 2.0 else B())


@right()
def classes(c: Any, see: Any) -> None:
    f = c(lambda x, kind: kind(3.0).go(x))
    for kind in (Scaler, type("Other", (Scaler,), {"go": lambda self, x: x - self.k}), Scaler):
        see(f(vector(1), kind))


@right()
def classes_made_each_time(c: Any, see: Any) -> None:
    f = c(lambda x, kind: x * kind.k)
    for k in (1.0, 2.0, 3.0):
        see(f(vector(1), type("T", (), {"k": k})))


@right()
def sets_as_arguments(c: Any, see: Any) -> None:
    f = c(lambda x, s: x * len(s) + (2 in s))
    for s in ({1}, {1, 2}, {3, 4}, frozenset((2,)), {1}):
        see(f(vector(1), s))


@right(captures=1)
def dataclass_batches(c: Any, see: Any) -> None:
    f = c(lambda b: b.x * b.y)
    for n in range(4):
        see(f(Batch(vector(n), vector(2))))


@right(captures=1)
def equal_numpy_arrays(c: Any, see: Any) -> None:
    f = c(lambda x, a: x * float(a[0]))
    for _ in range(4):
        see(f(vector(1), np.array([2.0])))


@right()
def numpy_arrays(c: Any, see: Any) -> None:
    f = c(lambda x, a: x * float(a[0]))
    a = np.array([2.0])
    for n in range(4):
        see(f(vector(1), a), f(vector(1), np.array([float(n)])))
        a += 1


@refused()
def numpy_array_written_inside(c: Any, see: Any) -> None:
    def f(x: Any, a: Any) -> Any:
        a += 1
        return x * float(a[0])

    see(c(f)(vector(1), np.array([2.0])))


@refused()
def random_generator_of_numpy(c: Any, see: Any) -> None:
    see(c(lambda x, rng: x * rng.random())(vector(1), np.random.default_rng(0)))


@refused()
def iterator_as_argument(c: Any, see: Any) -> None:
    see(c(lambda x, it: x * next(it))(vector(1), iter([1.0, 2.0])))


@refused()
def generator_as_argument(c: Any, see: Any) -> None:
    see(c(lambda x, it: x * next(it))(vector(1), (k for k in (1.0, 2.0))))


# -------------------------------------------------------------------------------------- containers


@right(captures=1)
def nested_containers(c: Any, see: Any) -> None:
    f = c(lambda d: d["a"][0] * d["b"][1]["c"] + sum(d["rest"]))
    for n in range(3):
        see(f({"a": [vector(n)], "b": (1, {"c": vector(2)}), "rest": [vector(1), 2.0]}))


@right()
def lengths_of_containers(c: Any, see: Any) -> None:
    f = c(lambda xs: sum(xs) * len(xs))
    for n in (1, 2, 3, 1, 2, 0):
        see.attempt(f, [vector(1)] * n)
        see.attempt(f, [vector(k) for k in range(n)])
        see.attempt(f, tuple(vector(k) for k in range(n)))


@right()
def list_or_tuple(c: Any, see: Any) -> None:
    f = c(lambda xs: xs[0] * 2 if isinstance(xs, tuple) else xs[0] * 3)
    for _ in range(2):
        see(f([vector(1)]), f((vector(1),)), f(Pair(vector(1), 2)))


@right()
def named_tuples(c: Any, see: Any) -> None:
    f = c(lambda p: Pair(p.a * p.b, p.b))
    for n in range(3):
        see(f(Pair(vector(n), vector(2))), f(Pair(vector(n), 2.0)))


@right()
def named_tuple_with_a_new_of_its_own(c: Any, see: Any) -> None:
    class Doubled(collections.namedtuple("Doubled", "a b")):
        __slots__ = ()

        def __new__(cls, a: Any, b: Any) -> Any:
            return super().__new__(cls, a * 2, b)

    f = c(lambda x: Doubled(x, 1))
    for n in range(3):
        see(f(vector(n)))


@right()
def dict_orders_and_keys(c: Any, see: Any) -> None:
    f = c(lambda d: [(k, v * 2) for k, v in d.items()])
    a, b = vector(1), vector(2)
    for _ in range(2):
        see(f({"a": a, "b": b}), f({"b": b, "a": a}), f({"a": a}), f({(1, 2): a, 3: b}), f({}))


@right()
def dict_keys_of_other_types(c: Any, see: Any) -> None:
    f = c(lambda d: [v * k for k, v in d.items()])
    t = kiln.tensor([1, 2])
    see(f({1: t}), f({1.0: t}), f({True: t}), f({1: t}))


@right()
def dict_keys_of_other_signs(c: Any, see: Any) -> None:
    f = c(lambda d: [v * k for k, v in d.items()])
    see(f({0.0: vector(1)}), f({-0.0: vector(1)}))


@right()
def dict_subclasses(c: Any, see: Any) -> None:
    f = c(lambda d: d["a"] * d.get("k", 1.0))
    for n in range(3):
        see(f(collections.OrderedDict(a=vector(n), k=2.0)))
        see(f(collections.defaultdict(float, a=vector(n))))
        see(f({"a": vector(n)}))


@right()
def one_list_twice(c: Any, see: Any) -> None:
    f = c(lambda a, b: a[0] * 2 if a is b else a[0] * 3)
    xs = [vector(1)]
    see(f(xs, xs), f(xs, list(xs)), f(xs, xs))


@right()
def list_argument_appended(c: Any, see: Any) -> None:
    def f(x: Any, out: Any) -> Any:
        out.append(x * 2)
        return x

    see(c(f)(vector(1), []))


@right()
def dict_argument_popped(c: Any, see: Any) -> None:
    def f(batch: Any) -> Any:
        return batch.pop("x") * 2

    see(c(f)({"x": vector(1), "y": 2}))


@right()
def list_argument_item_replaced(c: Any, see: Any) -> None:
    def f(xs: Any) -> Any:
        xs[0] = xs[0] * 2
        return xs[0]

    see(c(f)([vector(1)]))


@right()
def list_argument_returned(c: Any, see: Any) -> None:
    see(c(lambda xs: xs)([vector(1)]))


@right()
def list_argument_copied_and_returned(c: Any, see: Any) -> None:
    f = c(lambda xs: [*xs, xs[0] * 2])
    for n in range(3):
        see(f([vector(n), vector(2)]))


@right()
def object_argument_returned(c: Any, see: Any) -> None:
    f = c(lambda x, s: (s, x * s.k, s.go))
    a, b = Scaler(2.0), Scaler(3.0)
    for s in (a, b, a):
        try:
            got = f(vector(1), s)
        except kiln.CaptureError:  # a bound method is a new object
            got = (s, vector(1) * s.k, s.go)
        see(got[0] is s, got[1], got[2](vector(1)))


@refused()
def tensors_as_keys_of_a_result(c: Any, see: Any) -> None:
    f = c(lambda x: {x: x * 2})
    for n in range(3):
        x = vector(n)
        got = f(x)
        see(next(iter(got)) is x, got)


@right()
def parameters_as_keys_of_a_result(c: Any, see: Any) -> None:
    w = vector(1, grad=True)
    f = c(lambda x: {w: x * w, "n": 1})
    for n in range(3):
        see(f(vector(n)), next(iter(f(vector(n)))) is w)


@refused()
def tensors_as_keys_of_an_argument(c: Any, see: Any) -> None:
    x = vector(1)
    f = c(lambda d: [k * v for k, v in d.items()])
    see(f({x: vector(2)}))
