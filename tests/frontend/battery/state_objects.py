"""Objects with behaviour of their own: iterators, descriptors, metaclasses, proxies, caches, finalisers."""

from __future__ import annotations

import collections
import copy
import gc
import heapq
import pickle
import types
import weakref
from typing import Any

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def deque_as_a_window(c: Any) -> None:
    window: collections.deque[Any] = collections.deque(maxlen=2)

    @c
    def f(x: Any) -> Any:
        window.append(x)
        return sum(window)

    for n in range(4):
        f(vector(n, 1))


@program
def deque_read(c: Any) -> None:
    recent = collections.deque([1.0, 2.0], maxlen=2)
    f = c(lambda x: x * sum(recent))
    for k in (3.0, 4.0, 3.0):
        f(vector(1, 2))
        recent.append(k)


@program
def heap_of_scores(c: Any) -> None:
    heap: list[tuple[float, int]] = []

    @c
    def f(x: Any, number: int) -> Any:
        heapq.heappush(heap, (x.max().item(), number))
        return x * heap[0][0]

    for n in (3, 1, 2):
        f(vector(n, n + 1), n)


@program
def heap_within_the_call(c: Any) -> None:
    @c
    def smallest(xs: list[Any], k: int) -> list[float]:
        heap = [x.sum().item() for x in xs]
        heapq.heapify(heap)
        return [heapq.heappop(heap) for _ in range(k)]

    for seed, k in ((1, 2), (5, 1), (1, 2)):
        smallest([draw(2, seed=seed + n) for n in range(3)], k)


@program
def default_dictionary_that_grows(c: Any) -> None:
    scales: dict[int, float] = collections.defaultdict(lambda: 2.0)
    f = c(lambda x: x * scales[len(x)])
    for n in (1, 2, 1):
        f(vector(*range(n)))
    scales[1] = 5.0
    f(vector(3))


@program
def counter_updated(c: Any) -> None:
    seen: collections.Counter[int] = collections.Counter()

    @c
    def f(x: Any) -> Any:
        seen[len(x)] += 1
        return x * seen[len(x)]

    for n in (1, 2, 1, 1):
        f(vector(*range(n)))


@program
def ordered_dictionary_reordered(c: Any) -> None:
    layers = collections.OrderedDict(a=linear(seed=1), b=linear(seed=2))

    @c
    def f(x: Any) -> Any:
        for layer in layers.values():
            x = layer(x).tanh()
        return x

    f(vector(1, 2))
    layers.move_to_end("a")
    f(vector(1, 2))
    f(vector(1, 2))


@program
def mutable_default(c: Any) -> None:
    def f(x: Any, seen: list[int] = []) -> Any:  # noqa: B006 (users write it)
        seen.append(len(x))
        return x + len(seen)

    g = c(f)
    for _ in range(4):
        g(vector(1, 2))


@program
def default_replaced(c: Any) -> None:
    def f(x: Any, scale: float = 2.0) -> Any:
        return x * scale

    g = c(f)
    g(vector(1, 2))
    f.__defaults__ = (5.0,)
    g(vector(1, 2))


@program
def function_attributes(c: Any) -> None:
    def f(x: Any) -> Any:
        f.calls += 1  # type: ignore[attr-defined]
        return x + f.calls  # type: ignore[attr-defined]

    f.calls = 0  # type: ignore[attr-defined]
    g = c(f)
    for _ in range(3):
        g(vector(1, 2))


@program
def identity_of_arguments(c: Any) -> None:
    @c
    def f(a: Any, b: Any) -> Any:
        return a * 2 if a is b else a + b

    x, y = vector(1, 2), vector(1, 2)
    for a, b in ((x, y), (x, x), (x, y), (y, y)):
        f(a, b)


@program
def id_as_a_key(c: Any) -> None:
    names: dict[int, str] = {}
    x, y = vector(1, 2), vector(3, 4)
    names[id(x)] = "x"

    @c
    def f(t: Any) -> Any:
        return t * 2 if names.get(id(t)) == "x" else t

    for t in (x, y, x):
        f(t)
    names[id(y)] = "x"
    f(y)


@program
def tensors_as_keys(c: Any) -> None:
    x, y = vector(1, 2), vector(3, 4)
    scales = {x: 2.0}

    @c
    def f(t: Any) -> Any:
        return t * scales.get(t, 1.0)

    for t in (x, y, x, y):
        f(t)
    scales[y] = 3.0
    f(y)


@program
def sets_of_tensors(c: Any) -> None:
    x, y = vector(1, 2), vector(3, 4)
    frozen = {x}
    f = c(lambda t: t.detach() if t in frozen else t * 2)
    for t in (x, y, x):
        f(t)
    frozen.add(y)
    f(y)
    frozen.discard(x)
    f(x)


@program
def tensor_in_a_list_of_tensors(c: Any) -> None:
    known = [vector(1.0), vector(2.0)]
    f = c(lambda t: known.index(t) if t in known else -1)
    for v in (1.0, 2.0, 3.0, 1.0):
        f(vector(v))


@program
def weak_references(c: Any) -> None:
    class Box:
        def __init__(self, scale: float) -> None:
            self.scale = scale

    box: Box | None = Box(2.0)
    ref = weakref.ref(box)

    @c
    def f(x: Any) -> Any:
        held = ref()
        return x * held.scale if held is not None else x

    f(vector(1, 2))
    box.scale = 3.0  # type: ignore[union-attr]
    f(vector(1, 2))


@program
def weak_dictionary(c: Any) -> None:
    class Key:
        pass

    keys = [Key(), Key()]
    scales: Any = weakref.WeakKeyDictionary({keys[0]: 2.0})
    f = c(lambda x, k: x * scales.get(k, 1.0))
    for k in (keys[0], keys[1], keys[0]):
        f(vector(1, 2), k)
    scales[keys[1]] = 4.0
    f(vector(1, 2), keys[1])


@program
def finalisers(c: Any) -> None:
    gone: list[str] = []

    class Guard:
        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            gone.append(self.name)

    @c
    def f(x: Any) -> Any:
        guard = Guard(f"size {len(x)}")
        y = x * len(guard.name)
        del guard
        return y

    for n in (1, 2, 1):
        f(vector(*range(n)))
        gc.collect()
        c.see(gone)


@program
def copies_of_arguments(c: Any) -> None:
    @c
    def f(state: dict[str, Any], deep: bool) -> Any:
        new = copy.deepcopy(state) if deep else copy.copy(state)
        new["x"].add_(1)
        return new

    for deep in (True, False, True):
        state = {"x": vector(1, 2), "k": [1]}
        f(state, deep)
        c.see(state)


@program
def pickled_inside(c: Any) -> None:
    @c
    def f(settings: dict[str, float], x: Any) -> Any:
        return x * pickle.loads(pickle.dumps(settings))["scale"]

    for s in (1.0, 2.0, 1.0):
        f({"scale": s}, vector(1, 2))


@program
def module_deep_copied_inside(c: Any) -> None:
    net = linear()

    @c
    def f(x: Any) -> Any:
        other = copy.deepcopy(net)
        with kiln.no_grad():
            other.weight.zero_()
        return net(x) - other(x)

    for n in range(3):
        f(vector(n, 1))


@program
def arrays_that_alias_tensors(c: Any) -> None:
    array = np.ones(2, np.float32)
    t = kiln.from_numpy(array)
    f = c(lambda x: x + t)
    for _ in range(3):
        f(vector(1, 2))
        array += 1


@program
def array_written_inside(c: Any) -> None:
    array = np.ones(2, np.float32)

    @c
    def f(x: Any) -> Any:
        array[0] += 1
        return x * float(array[0])

    for _ in range(3):
        f(vector(1, 2))


@program
def array_of_a_result(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        y = x * 2
        return y, y.numpy()

    for n in (1, 2, 1):
        y, array = f(vector(n, 1))
        y.add_(1)
        c.see(array)


@program
def namespace_object(c: Any) -> None:
    space = types.SimpleNamespace(scale=2.0, w=vector(1, 2))
    f = c(lambda x: x * space.scale + space.w)
    f(vector(1, 2))
    space.scale = 3.0
    f(vector(1, 2))
    space.w = vector(5, 5)
    f(vector(1, 2))
    del space.scale
    try:
        f(vector(1, 2))
    except AttributeError as error:
        c.see(str(error))


@program
def buffers_registered_late(c: Any) -> None:
    net = nn.Module()
    net.w = nn.Parameter(vector(1, 2))

    @c
    def f(x: Any) -> Any:
        if not hasattr(net, "mean"):
            net.register_buffer("mean", x.detach().clone())
        return (x - net.mean) * net.w

    for n in range(4):
        f(vector(n, 1))
