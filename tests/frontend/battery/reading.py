"""Ways to read attributes, and state that is there but not read; random numbers."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


class Holder:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@dataclass
class Trainee:
    a: float


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


@right(captures=1)
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


@right(captures=1)
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


@right(captures=1)
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


@right(captures=5)
def answers_of_hasattr_and_getattr_change(c: Any, see: Any) -> None:
    config = Holder(other=1)

    def f(x: Any) -> Any:
        return x * config.scale if hasattr(config, "scale") else x + getattr(config, "shift", 1.0)

    g = c(f)
    for change in ({}, {"other": 2}, {"shift": 3.0}, {"scale": 5.0}, {"scale": 7.0}, {"shift": 4.0}):
        vars(config).update(change)
        see(g(vector(1, 2)), g(vector(2, 3)))


@right()
def names_made_up_for_getattr(c: Any, see: Any) -> None:
    config = Holder(a=1.0, b=2.0)
    f = c(lambda x, which: x * getattr(config, which) + getattr(config, "a" + which, 0.0))
    for _ in range(3):
        see(f(vector(1), "a"), f(vector(1), "b"))
        config.b += 1
        config.ab = config.a


@right()
def setattr_of_a_name_in_the_code(c: Any, see: Any) -> None:
    config = Holder(steps=0)

    def f(x: Any) -> Any:
        setattr(config, "steps", config.steps + 1)  # noqa: B010
        return x * 2

    g = c(f)
    see(g(vector(1)), g(vector(1)), config.steps)


@right()
def data_classes_compared(c: Any, see: Any) -> None:
    @dataclass(order=True)
    class Config:
        a: float
        b: float

    one, two = Config(1.0, 2.0), Config(1.0, 3.0)
    f = c(lambda x: x * 2 if one == two else x * 3 if one < two else x * 4)
    for value in (2.0, 3.0, 3.0, 100.0):
        one.b = value
        see(f(vector(1)), f(vector(2)))


@refused()
def data_class_shown(c: Any, see: Any) -> None:
    one = Trainee(1.0)
    f = c(lambda x: x * len(repr(one)))
    see(f(vector(1)))


@right()
def data_class_changed_and_compared(c: Any, see: Any) -> None:
    @dataclass
    class Config:
        a: float

    one, two = Config(1.0), Config(2.0)

    def f(x: Any) -> Any:
        one.a += 1.0
        return x * 2 if one == two else x * 3

    g = c(f)
    see(g(vector(1)), g(vector(1)))


@right(captures=5)
def attributes_of_a_module_that_are_read(c: Any, see: Any) -> None:
    class Net(nn.Module):
        bias = 1.0

        def __init__(self) -> None:
            self.layer, self.scale, self.unread = linear(), 2.0, 0

        @property
        def doubled(self) -> float:
            return self.scale * 2

        def helper(self, x: Any) -> Any:
            return x * self.doubled + self.bias

        def forward(self, x: Any) -> Any:
            return self.helper(self.layer(x))

        def report(self) -> Any:
            return self.unread

    net = Net()
    f = c(net)
    for change in ({}, {"unread": 1}, {"scale": 3.0}, {"bias": 2.0}, {"helper": lambda x: x}, {"unread": 2}):
        for name, value in change.items():
            setattr(net, name, value)
        see(f(vector(1, 2)), f(vector(2, 1)), net.report())
    net.eval()
    see(f(vector(1, 2)))


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


# ---------------------------------------------------------------------------------- random numbers


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


@right()
def generator_made_inside(c: Any, see: Any) -> None:
    see(c(lambda: kiln.rand(2, generator=kiln.Generator(4)))())
