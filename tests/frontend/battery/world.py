"""Effects and hidden state: exceptions, prints, clocks, random numbers, threads, processes, scripts."""

from __future__ import annotations

import contextlib
import os
import string
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


# --------------------------------------------------------------------------------------------- exceptions


class Mine(Exception):
    """A user's exception."""


@right()
def exception_on_some_calls(c: Any, see: Any) -> None:
    def f(x: Any, n: int) -> Any:
        x.add_(1.0)
        if n == 2:
            raise Mine(f"at {n}")
        return x * n

    g = c(f)
    x = vector(1)
    for n in (1, 2, 1, 2, 3, 2):
        see.attempt(g, x, n)
        see(x)


@right()
def exception_after_writes(c: Any, see: Any) -> None:
    state = vector(0)

    def f(x: Any) -> Any:
        state.add_(x)
        raise Mine("always")

    g = c(f)
    for n in range(3):
        see.attempt(g, vector(n))
        see(state)


@right()
def exception_caught_inside(c: Any, see: Any) -> None:
    def f(x: Any, k: Any) -> Any:
        try:
            return x * {"a": 2.0}[k]
        except KeyError as error:
            return x, str(error)
        finally:
            x.add_(1.0)

    g = c(f)
    for _ in range(2):
        x = vector(1)
        see(g(x, "a"), g(x, "b"), x)


@right()
def shape_error_inside(c: Any, see: Any) -> None:
    f = c(lambda x, y: x @ y)
    for n in (2, 3, 2, 3):
        see.attempt(f, kiln.ones(2, 2), kiln.ones(n, 2))


@right()
def shape_error_caught_inside(c: Any, see: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        try:
            return x + y
        except kiln.ShapeError:
            return x.sum() + y.sum()

    g = c(f)
    for n in (2, 3, 2, 3):
        see(g(kiln.ones(2), kiln.ones(n)))


@refused()
def refusal_caught_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        try:
            return x * x.sum().item()
        except Exception:  # noqa: BLE001
            return x * 0

    see(c(f)(vector(2)))


@right()
def stop_iteration_and_early_return(c: Any, see: Any) -> None:
    def f(x: Any, ks: Any) -> Any:
        it = iter(ks)
        while True:
            try:
                k = next(it)
            except StopIteration:
                return x
            if k < 0:
                break
            x = x * k
        return -x

    g = c(f)
    for _ in range(2):
        see(g(vector(1), [2.0, 3.0]), g(vector(1), [2.0, -1.0, 3.0]), g(vector(1), []))


@right()
def assertions(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        assert x.shape == (2,), "two numbers"
        return x * 2

    g = c(f)
    for n in (2, 3, 2):
        see.attempt(g, kiln.ones(n))


@right()
def keyboard_interrupt(c: Any, see: Any) -> None:
    def f(x: Any, stop: bool) -> Any:
        if stop:
            raise KeyboardInterrupt
        return x * 2

    g = c(f)
    for stop in (False, True, False):
        try:
            see(g(vector(1), stop))
        except KeyboardInterrupt:
            see("interrupted")
    see(kiln.ones(2).sum())


@right()
def context_managers(c: Any, see: Any) -> None:
    k = 2.0

    @contextlib.contextmanager
    def scaled(x: Any) -> Any:
        yield x * k

    def f(x: Any) -> Any:
        with scaled(x) as y, contextlib.suppress(ValueError), contextlib.ExitStack() as stack:
            z = stack.enter_context(contextlib.nullcontext(y + 1))
            raise ValueError
        return z

    g = c(f)
    see(g(vector(1)), g(vector(2)))
    k = 3.0
    see(g(vector(1)), g(vector(2)))


# ------------------------------------------------------------------------------------------------ effects


@refused()
def prints(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        print("called", file=sys.stderr)
        return x

    see(c(f)(vector(1)))


@refused()
def clock(c: Any, see: Any) -> None:
    m = module("import time\ndef f(x): return x * (time.time() > 0)")
    see(c(m.f)(vector(1)))


@refused()
def clock_from_import(c: Any, see: Any) -> None:
    m = module("from time import perf_counter as now\ndef f(x): return x * (now() > 0)")
    see(c(m.f)(vector(1)))


@refused()
def dates(c: Any, see: Any) -> None:
    m = module("import datetime\ndef f(x): return x * datetime.datetime.now().year")
    see(c(m.f)(vector(1)) * 0)


@refused()
def python_random(c: Any, see: Any) -> None:
    m = module("import random\ndef f(x): return x * random.random()")
    see(c(m.f)(vector(1)) * 0)


@refused()
def python_random_object(c: Any, see: Any) -> None:
    m = module("import random\nrng = random.Random(0)\ndef f(x): return x * rng.random()")
    see(c(m.f)(vector(1)))


@refused()
def python_random_shuffle(c: Any, see: Any) -> None:
    m = module("import random\ndef f(x):\n    order = [0, 1, 2]\n    random.shuffle(order)\n    return x * order[0]")
    see(c(m.f)(vector(1)) * 0)


@refused()
def numpy_random(c: Any, see: Any) -> None:
    m = module("def f(x): return x * float(np.random.rand())")
    see(c(m.f)(vector(1)) * 0)


@refused()
def numpy_random_generator(c: Any, see: Any) -> None:
    m = module("rng = np.random.default_rng(0)\ndef f(x): return x * float(rng.random())")
    see(c(m.f)(vector(1)))


@refused()
def numpy_random_made_inside(c: Any, see: Any) -> None:
    m = module("def f(x):\n    from numpy.random import default_rng\n    return x * float(default_rng().random())")
    see(c(m.f)(vector(1)) * 0)


@refused()
def file_read(c: Any, see: Any) -> None:
    m = module("def f(x):\n    with open('/dev/null') as file:\n        return x * len(file.read())")
    see(c(m.f)(vector(1)))


@refused()
def path_asked(c: Any, see: Any) -> None:
    m = module("import os\ndef f(x): return x * os.path.exists('/dev/null')")
    see(c(m.f)(vector(1)))


@refused()
def path_object_asked(c: Any, see: Any) -> None:
    m = module("from pathlib import Path\nP = Path('/dev/null')\ndef f(x): return x * P.exists()")
    see(c(m.f)(vector(1)))


@refused()
def process_number(c: Any, see: Any) -> None:
    m = module("import os\ndef f(x): return x * (os.getpid() > 0)")
    see(c(m.f)(vector(1)))


@refused()
def environment_by_getenv(c: Any, see: Any) -> None:
    m = module("import os\ndef f(x): return x * float(os.getenv('BATTERY_NOT_THERE', '2'))")
    see(c(m.f)(vector(1)))


@refused()
def logging_inside(c: Any, see: Any) -> None:
    m = module("import logging\nlog = logging.getLogger('battery')\ndef f(x):\n    log.info('hello')\n    return x")
    see(c(m.f)(vector(1)))


@refused()
def warning_inside(c: Any, see: Any) -> None:
    m = module("import warnings\ndef f(x):\n    warnings.warn('mine')\n    return x")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        see(c(m.f)(vector(1)))


@refused()
def frames_asked(c: Any, see: Any) -> None:
    m = module("import inspect\ndef f(x): return x * inspect.currentframe().f_back.f_locals.get('scale', 1.0)")
    f = c(m.f)
    for scale in (2.0, 2.0, 3.0):
        see(f(vector(scale)))


@refused()
def stack_of_callers(c: Any, see: Any) -> None:
    m = module("import sys\ndef f(x): return x * sys._getframe(1).f_lineno")
    see(c(m.f)(vector(1)) * 0)


@refused()
def number_of_threads(c: Any, see: Any) -> None:
    before = kiln.get_num_threads()
    f = c(lambda x: x * kiln.get_num_threads())
    try:
        for n in (1, 2, 3):
            kiln.set_num_threads(n)
            see(f(vector(1)))
    finally:
        kiln.set_num_threads(before)


@refused()
def number_of_threads_set(c: Any, see: Any) -> None:
    before = kiln.get_num_threads()

    def f(x: Any) -> Any:
        kiln.set_num_threads(3)
        return x

    g = c(f)
    try:
        for _ in range(2):
            kiln.set_num_threads(1)
            see(g(vector(1)), kiln.get_num_threads())
    finally:
        kiln.set_num_threads(before)


@refused()
def queue_inside(c: Any, see: Any) -> None:
    m = module("import queue\nq = queue.Queue()\nfor k in (1.0, 2.0, 3.0): q.put(k)\ndef f(x): return x * q.get()")
    see(c(m.f)(vector(1)))


@refused()
def thread_local_state(c: Any, see: Any) -> None:
    local = threading.local()
    local.k = 2.0
    see(c(lambda x: x * local.k)(vector(1)))


@refused()
def context_variable(c: Any, see: Any) -> None:
    import contextvars

    scale = contextvars.ContextVar("scale", default=2.0)
    see(c(lambda x: x * scale.get())(vector(1)))


@refused()
def lock_in_the_closure(c: Any, see: Any) -> None:
    lock = threading.Lock()

    def f(x: Any) -> Any:
        with lock:
            return x * 2

    g = c(f)
    for n in range(3):
        see(g(vector(n)), lock.locked())


@refused()
def thread_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        out: list[Any] = []
        t = threading.Thread(target=lambda: out.append(x * 2))
        t.start()
        t.join()
        return out[0]

    see(c(f)(vector(1)))


@right()
def template_in_the_closure(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.k = 2.0

    box, template = Box(), "{0.k}"
    f = c(lambda x: x * float(template.format(box)))
    see(f(vector(1)), f(vector(1)))
    box.k = 3.0
    see(f(vector(1)))


@right()
def template_in_the_code(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.k = 2.0

    box = Box()
    f = c(lambda x: (x * float("{0.k}".format(box)), f"{box.k}"))  # noqa: UP030, UP032
    see(f(vector(1)), f(vector(1)))
    box.k = 3.0
    see(f(vector(1)))


@right()
def formatter_of_the_library(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.k = 2.0

    box, template, formatter = Box(), "{0.k}", string.Formatter()
    f = c(lambda x: x * float(formatter.format(template, box)))
    see(f(vector(1)), f(vector(1)))
    box.k = 3.0
    see(f(vector(1)))


@refused()
def representation_of_an_object(c: Any, see: Any) -> None:
    @dataclass
    class Box:
        k: float = 2.0

        def __str__(self) -> str:
            return f"<{self.k}>"

    box = Box()
    f = c(lambda x: (x, repr(box), str(box), box == Box(2.0)))
    see(f(vector(1)), f(vector(1)))
    box.k = 3.0
    see(f(vector(1)))


@right()
def attributes_by_computed_names(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.k1, self.k2 = 2.0, 3.0

    box = Box()
    f = c(lambda x: [x * getattr(box, f"k{n}") for n in (1, 2)])
    see(f(vector(1)), f(vector(1)))
    box.k2 = 5.0
    see(f(vector(1)))


@right()
def attributes_by_vars(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.k1, self.k2 = 2.0, 3.0

    box = Box()
    f = c(lambda x: [x * v for v in box.__dict__.values()])
    see(f(vector(1)), f(vector(1)))
    box.k2 = 5.0
    see(f(vector(1)))
    box.k3 = 7.0
    see(f(vector(1)))


@right()
def attributes_by_pattern(c: Any, see: Any) -> None:
    class Point:
        __match_args__ = ("a", "b")

        def __init__(self) -> None:
            self.a, self.b = 2.0, 3.0

    p = Point()

    def f(x: Any) -> Any:
        match p:
            case Point(first, second):
                return x * first * second
        return x

    def g(x: Any) -> Any:
        match p:
            case Point(b=second):
                return x * second
        return x

    h, k = c(f), c(g)
    see(h(vector(1)), k(vector(1)), h(vector(1)))
    p.b = 5.0
    see(h(vector(1)), k(vector(1)), h(vector(1)))
    p.a = 7.0
    see(h(vector(1)), k(vector(1)), h(vector(1)))


@right()
def attributes_by_dataclass_helpers(c: Any, see: Any) -> None:
    import dataclasses

    @dataclass
    class Box:
        a: float = 2.0
        b: float = 3.0

    box = Box()
    f = c(lambda x: (x * dataclasses.asdict(box)["a"], x * dataclasses.replace(box, b=1.0).a))
    see(f(vector(1)), f(vector(1)))
    box.a = 5.0
    see(f(vector(1)))


@right()
def attributes_by_copying(c: Any, see: Any) -> None:
    import copy

    class Box:
        def __init__(self) -> None:
            self.k = 2.0

    class Holder:
        def __init__(self) -> None:
            self.box = Box()

    holder = Holder()
    copy.deepcopy(holder)  # the first time, Python leaves a note on the class
    f = c(lambda x: x * copy.copy(holder).box.k + copy.deepcopy(holder).box.k)
    see(f(vector(1)), f(vector(1)))
    holder.box.k = 5.0
    see(f(vector(1)))


@right(captures=2)
def objects_in_objects(c: Any, see: Any) -> None:
    class Node:
        def __init__(self, k: float, child: Any = None) -> None:
            self.k, self.child, self.visits = k, child, 0

    tree = Node(2.0, Node(3.0))
    f = c(lambda x: x * tree.k * tree.child.k)
    for n in range(3):
        tree.visits = tree.child.visits = n
        see(f(vector(1)))
    tree.child.k = 5.0
    see(f(vector(1)), f(vector(1)))


@right()
def cyclic_objects(c: Any, see: Any) -> None:
    class Node:
        def __init__(self) -> None:
            self.k, self.me, self.items = 2.0, self, [self]

    node = Node()
    f = c(lambda x: x * node.me.items[0].k)
    see(f(vector(1)), f(vector(1)))
    node.k = 3.0
    see(f(vector(1)))


@refused()
def cyclic_dataclass_as_argument(c: Any, see: Any) -> None:
    @dataclass(eq=False)
    class Node:
        k: Any
        parent: Any = None

    node = Node(2.0)
    node.parent = node
    f = c(lambda x, n: x * n.parent.k)
    see(f(vector(1), node), f(vector(1), node))
    node.k = 3.0
    see(f(vector(1), node))


@refused()
def cyclic_list_as_argument(c: Any, see: Any) -> None:
    xs: list[Any] = [2.0]
    xs.append(xs)
    f = c(lambda x, ys: x * ys[1][0])
    see(f(vector(1), xs), f(vector(1), xs))


@right(captures=1, wrong="all fields of a data class among the arguments are looked at, read or not")
def dataclass_trainer(c: Any, see: Any) -> None:
    @dataclass(eq=False)
    class Trainer:
        w: Any
        losses: list[Any] = field(default_factory=list)
        steps: int = 0

        def step(self, x: Any) -> Any:
            return (self.w * x).sum()

        def fit(self) -> Any:
            for n in range(4):
                self.losses.append(self.step(vector(n, n)).item())
                self.steps += 1
            return self.losses

    Trainer.step = c(Trainer.step)
    see(Trainer(vector(1, 2)).fit())


@right(captures=1, wrong="where code calls hasattr or getattr, all attributes are guarded, read or not")
def trainer_that_asks_with_hasattr(c: Any, see: Any) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.w, self.losses, self.steps = vector(1, 2), [], 0

        def step(self, x: Any) -> Any:
            loss = (self.w * x).sum()
            return loss * self.scale if hasattr(self, "scale") else loss * getattr(self, "factor", 1.0)

        def fit(self) -> Any:
            for n in range(4):
                self.losses.append(self.step(vector(n, n)).item())
                self.steps += 1
            return self.losses

    Trainer.step = c(Trainer.step)
    see(Trainer().fit())


@right(captures=1, wrong="all attributes of a module are guarded, read or not")
def module_with_a_history(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = linear()
            self.steps, self.history = 0, []

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    net = Net()
    f = c(net)
    for n in range(4):
        net.history.append(f(vector(n, 1)).sum().item())
        net.steps += 1
    see(net.history)


@right(captures=1)
def data_and_model_in_one_object(c: Any, see: Any) -> None:
    class Task:
        def __init__(self) -> None:
            self.net = linear()
            self.data = [vector(k, 1) for k in range(4)]
            self.cursor = 0

        def batch(self) -> Any:
            self.cursor += 1
            return self.data[self.cursor - 1]

        def loss(self, x: Any) -> Any:
            return self.net(x).square().mean()

    task = Task()
    f = c(task.loss)
    for _ in range(4):
        see(f(task.batch()))
        task.data[0] = vector(9, 9)


@refused()
def subclasses_asked(c: Any, see: Any) -> None:
    class Base:
        k = 1.0

    class A(Base):
        k = 2.0

    kept = [A]
    f = c(lambda x: sum((x * s.k for s in Base.__subclasses__()), x))
    see(f(vector(1)), f(vector(1)))

    class B(Base):
        k = 3.0

    kept.append(B)
    see(f(vector(1)))


@right()
def registry_by_init_subclass(c: Any, see: Any) -> None:
    class Base:
        registry: dict[str, Any] = {}  # noqa: RUF012

        def __init_subclass__(cls, **kwargs: Any) -> None:
            Base.registry[cls.__name__] = cls

        def go(self, x: Any) -> Any:
            return x

    class A(Base):
        def go(self, x: Any) -> Any:
            return x * 2

    f = c(lambda x, name: Base.registry[name]().go(x))
    see(f(vector(1), "A"), f(vector(1), "A"))

    class A(Base):  # noqa: F811
        def go(self, x: Any) -> Any:
            return x * 3

    see(f(vector(1), "A"))


@right()
def constructor_counts_instances(c: Any, see: Any) -> None:
    class Box:
        made = 0

        def __init__(self) -> None:
            Box.made += 1

    f = c(lambda x: (Box(), x * 2)[1])
    try:
        see(f(vector(1)), Box.made)
        see(f(vector(1)), Box.made)
    except kiln.CaptureError:
        see(vector(2), 1)
        see(vector(2), 2)


@right()
def constructor_with_state(c: Any, see: Any) -> None:
    m = module("K = 2.0\nclass Box:\n    def __init__(self, x): self.y = x * K\ndef f(x): return Box(x).y")
    f = c(m.f)
    see(f(vector(1)), f(vector(1)))
    m.K = 3.0
    see(f(vector(1)))


@right()
def class_made_by_a_table(c: Any, see: Any) -> None:
    m = module(
        "K = 2.0\nclass Box:\n    def __init__(self, x): self.y = x * K\n"
        "TABLE = {'box': Box}\ndef make(kind, x): return kind(x)\ndef f(x): return make(TABLE['box'], x).y"
    )
    f = c(m.f)
    see(f(vector(1)), f(vector(1)))
    m.K = 3.0
    see(f(vector(1)))


@right()
def object_makes_its_like(c: Any, see: Any) -> None:
    m = module(
        "K = 2.0\nclass Box:\n    def __init__(self, x): self.y = x * K\n"
        "    def again(self, x): return self.__class__(x)\n    def more(self, x): return type(self)(x)\n"
        "def f(x): return B.again(x).y + B.more(x).y"
    )
    m.B = m.Box(vector(1))
    f = c(m.f)
    see(f(vector(1)), f(vector(1)))
    m.K = 3.0
    see(f(vector(1)))


@right()
def inherited_state(c: Any, see: Any) -> None:
    m = module(
        "K = 2.0\nclass A:\n    def go(self, x): return self.scale(x)\n    def scale(self, x): return x * K\n"
        "class B(A):\n    def scale(self, x): return super().scale(x) + self.shift\n    shift = 1.0\n"
        "b = B()\ndef f(x): return b.go(x)"
    )
    f = c(m.f)
    see(f(vector(1)), f(vector(1)))
    m.K = 3.0
    see(f(vector(1)))
    m.B.shift = 5.0
    see(f(vector(1)))
    m.A.scale = lambda self, x: x
    see(f(vector(1)))


# ---------------------------------------------------------------------------------------- random numbers


@right(captures=1)
def random_sequence(c: Any, see: Any) -> None:
    f = c(lambda x: (kiln.rand(2), x + kiln.randn(2), kiln.rand_like(x)))
    for n in range(3):
        see(f(vector(n, 1)), kiln.default_generator.get_state())


@right(captures=1)
def random_and_eager_numbers_interleaved(c: Any, see: Any) -> None:
    f = c(lambda: kiln.rand(3))
    for _ in range(3):
        see(kiln.rand(2), f(), kiln.randn(1))


@right(captures=1)
def random_with_a_seed_between(c: Any, see: Any) -> None:
    f = c(lambda: kiln.rand(3))
    for seed in (1, 2, 1, 2**63, -5):
        kiln.manual_seed(seed)
        see(f(), f())


@right(captures=1)
def random_with_a_seed_inside(c: Any, see: Any) -> None:
    def f() -> Any:
        a = kiln.rand(2)
        kiln.manual_seed(3)
        return a, kiln.rand(2)

    g = c(f)
    for _ in range(3):
        see(g(), kiln.rand(1))


@right(captures=1)
def random_with_a_generator(c: Any, see: Any) -> None:
    g = kiln.Generator(5)
    f = c(lambda: (kiln.rand(2, generator=g), kiln.rand(2)))
    for n in range(4):
        see(f(), g.get_state())
        if n == 1:
            g.manual_seed(5)


@right()
def random_state_saved_and_restored(c: Any, see: Any) -> None:
    g = kiln.default_generator

    def f(x: Any) -> Any:
        before = g.get_state()
        y = kiln.rand(2)
        g.set_state(before)
        return x + y, kiln.rand(2)

    h = c(f)
    for n in range(3):
        see(h(vector(n, 1)))


@right()
def random_drawn_and_unused(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        kiln.rand(5)
        return x * 2

    g = c(f)
    for n in range(3):
        see(g(vector(n)), kiln.rand(1))


@right()
def random_of_changing_shapes(c: Any, see: Any) -> None:
    f = c(lambda n: kiln.rand(n, 2))
    for n in (1, 3, 0, 1, 3):
        see(f(n))


@right(captures=1)
def initialised_inside(c: Any, see: Any) -> None:
    layer = linear()

    def f() -> None:
        layer.reset_parameters()

    g = c(f)
    for _ in range(3):
        g()
        see(list(layer.parameters()))


@right(captures=1)
def dropout_in_training(c: Any, see: Any) -> None:
    w = vector(1, 2, grad=True)

    def f(x: Any) -> Any:
        mask = kiln.rand(2) > 0.3
        loss = (x * w * mask / 0.7).sum()
        loss.backward()
        return loss.detach()

    g = c(f)
    w.grad = kiln.zeros(2)
    for n in range(4):
        see(g(vector(n, 1)), w)


@right()
def generator_replaced(c: Any, see: Any) -> None:
    g = kiln.Generator(1)
    f = c(lambda: kiln.rand(2, generator=g))
    see(f(), f())
    g = kiln.Generator(2)
    see(f(), f())


@refused()
def generator_made_inside(c: Any, see: Any) -> None:
    see(c(lambda: kiln.rand(2, generator=kiln.Generator(4)))())


# -------------------------------------------------------------------------------------- data-dependent


@refused()
def branch_on_data(c: Any, see: Any) -> None:
    see(c(lambda x: x if x.sum() > 0 else -x)(vector(1)))


@refused()
def data_as_index(c: Any, see: Any) -> None:
    see(c(lambda x, n: x[int(n)])(vector(1, 2), kiln.tensor(1)))


@refused()
def data_in_a_string(c: Any, see: Any) -> None:
    see(c(lambda x: f"{x}")(vector(1)))


@refused()
def tensor_in_a_list(c: Any, see: Any) -> None:
    xs = [vector(1), vector(2)]
    see(c(lambda x: x in xs)(vector(2)))


@right()
def tensor_found_by_identity(c: Any, see: Any) -> None:
    xs = [vector(1), vector(2)]
    f = c(lambda x: x * 2 if any(x is y for y in xs) else x * 3)
    for x in (vector(5), xs[0], xs[1], vector(5), xs[0]):
        see(f(x))


@right()
def tensors_as_keys(c: Any, see: Any) -> None:
    a, b = vector(1), vector(2)
    table = {a: 2.0}
    f = c(lambda x: x * table.get(x, 3.0))
    for x in (b, a, b, vector(4), a):
        see(f(x))


@refused()
def sorted_by_data(c: Any, see: Any) -> None:
    see(c(lambda x, y: sorted([x, y])[0])(kiln.tensor(2.0), kiln.tensor(1.0)))


@refused()
def stray_tensor(c: Any, see: Any) -> None:
    f = c(lambda x: x + kiln.from_numpy(np.ones(1, np.float32)))
    see(f(vector(1)))


# ---------------------------------------------------------------------------------- threads and processes


@right()
def threads_with_one_function(c: Any, see: Any) -> None:
    w = vector(2, 3)
    f = c(lambda x, k: (x * w * k).sum())
    results: dict[int, Any] = {}

    def work(n: int) -> None:
        results[n] = [f(vector(n, k), float(n % 3)).tolist() for k in range(15)]

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    see([results[n] for n in range(6)])


@right()
def threads_with_gradients(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x).exp().sum())
    results: dict[int, Any] = {}

    def work(n: int) -> None:
        grads = []
        for k in range(10):
            x = vector(0.1 * n, 0.01 * k, grad=True)
            f(x).backward()
            grads.append(x.grad.tolist())
        results[n] = grads

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    see([results[n] for n in range(4)])


@right()
def thread_modes_are_its_own(c: Any, see: Any) -> None:
    f = c(lambda x: x * 2)
    found: list[Any] = []

    def work() -> None:
        found.append([f(vector(1, grad=True)).requires_grad for _ in range(3)])

    with kiln.no_grad():
        t = threading.Thread(target=work)
        t.start()
        t.join()
        see(f(vector(1, grad=True)), f(vector(1, grad=True)))
    see(found)


@right()
def capture_does_not_listen_to_other_threads(c: Any, see: Any) -> None:
    stop = threading.Event()

    def noise() -> None:
        while not stop.is_set():
            (kiln.ones(3) * 2).sum()

    t = threading.Thread(target=noise)
    t.start()
    try:
        for k in range(5):
            f = c(lambda x: (x * k).sum())  # noqa: B023
            see(f(vector(1)), f(vector(2)))
    finally:
        stop.set()
        t.join()


@right()
def forked(c: Any, see: Any) -> None:
    w = kiln.ones(300, 300)
    f = c(lambda x: ((x @ w) * 2).sum())
    see(f(w))
    see(f(w))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            got = f(w).item() + c(lambda x: (x + 1).sum())(w).item()
            os.write(writing, repr(got).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        see(pipe.read())
    os.waitpid(child, 0)
    see(f(w))


SCRIPT = textwrap.dedent(
    """
    import kiln, sys
    compiled = sys.argv[1] == "1"
    c = kiln.compile if compiled else (lambda f: f)
    SCALE = 2.0
    step = 0
    total = kiln.tensor([1.0])
    me = sys.modules["__main__"]

    class Net(kiln.nn.Module):
        def __init__(self):
            self.w = kiln.nn.Parameter(kiln.tensor([3.0]))

        @c
        def forward(self, x):
            return self.w * x * SCALE

    @c
    def f(x):
        import __main__
        return x * me.SCALE + __main__.total

    def log(x):
        return x + 1

    @c
    def g(x):
        return f(log(x)) + total

    net = Net()
    for step in range(4):
        x = kiln.tensor([float(step)])
        loss = net(x).sum()
        loss.backward()
        print(f(x).tolist(), g(x).tolist(), loss.item(), net.w.grad.tolist())
        total.add_(1.0)
    SCALE = 5.0
    print(f(x).tolist(), g(x).tolist(), net(x).tolist())
    if compiled:
        print([len(h.log) for h in (f, g, Net.forward)], file=sys.stderr)
    """
)


def _script(arguments: list[str], text: str | None) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout, done.stderr, done.returncode


@right()
def script(c: Any, see: Any) -> None:
    compiled = "1" if c(_nothing) is not _nothing else "0"
    out, err, code = _script(["-c", SCRIPT, compiled], None)
    assert code == 0, err
    assert compiled == "0" or err.strip() == "[2, 2, 2]", f"captures: {err}"
    see(out)


@right()
def typed_into_the_interpreter(c: Any, see: Any) -> None:
    compiled = "1" if c(_nothing) is not _nothing else "0"
    text = SCRIPT.replace("\n\n    ", "\n    ").replace("\n\n", "\n")
    typed, inside = [], False
    for line in text.split("\n"):
        if inside and line and not line.startswith(" "):
            typed.append("")
            inside = False
        inside = inside or line.endswith(":")
        typed.append(line)
    out, err, code = _script(["-i", "-", compiled], "\n".join([*typed, "", ""]))
    assert code == 0, err
    assert "Traceback" not in err, err
    assert "Error" not in err, err
    see(out)


def _nothing() -> None:
    pass


@right()
def hot_patched_source(c: Any, see: Any) -> None:
    m = module("def g(x): return x * 2\ndef f(x): return g(x)")
    f = c(m.f)
    see(f(vector(1)), f(vector(1)))
    exec("def g(x): return x * 3", vars(m))
    see(f(vector(1)))
    exec("def f(x): return g(x) + 1", vars(m))
    see(f(vector(1)))
