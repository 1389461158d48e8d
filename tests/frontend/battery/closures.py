"""Closures that a compiled function reads, and what changes in them between calls."""

from __future__ import annotations

import collections
import operator
import types
import weakref
from typing import Any

import numpy as np

import kiln
from tests.frontend.battery.kit import Table, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


@right(captures=1)
def closure_constant(c: Any, see: Any) -> None:
    k = 3.0
    f = c(lambda x: x * k)
    for n in range(3):
        see(f(vector(n, 1)))


@right(captures=3)
def closure_number_changes(c: Any, see: Any) -> None:
    k = 1.0
    f = c(lambda x: x * k)
    for value in (1.0, 2.0, 2.0, 3.0, 3.0):
        k = value
        see(f(vector(1, 2)))


@right()
def closure_number_changes_type(c: Any, see: Any) -> None:
    k: Any = 1
    f = c(lambda x: x * k)
    for value in (1, 1.0, True, np.float32(1), np.int64(1), 1):
        k = value
        see(f(kiln.tensor([1, 2])))
        see(f(vector(1, 2)))


@right()
def closure_zero_changes_sign(c: Any, see: Any) -> None:
    k = 0.0
    f = c(lambda x: x * k)
    for value in (0.0, -0.0, 0.0, float("nan"), float("nan"), float("-inf")):
        k = value
        see(f(vector(1, 2)))


@right(captures=2)
def closure_tensor_is_replaced(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    see(f(vector(3, 4)), f(vector(3, 4)))
    w = vector(5, 6)
    see(f(vector(3, 4)), f(vector(3, 4)))


@right(captures=1)
def closure_tensor_is_written(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    for n in range(4):
        see(f(vector(3, 4)))
        w.add_(float(n))


@right(captures=1)
def closure_tensor_is_written_through_numpy(c: Any, see: Any) -> None:
    a = np.ones(3, np.float32)
    w = kiln.from_numpy(a)
    f = c(lambda x: x * w)
    for n in range(3):
        see(f(vector(3, 4, 5)))
        a[n] = 7.0


@right(captures=1)
def closure_tensor_trained(c: Any, see: Any) -> None:
    w = vector(1, 2, grad=True)
    f = c(lambda x: (x * w).sum())
    for _ in range(4):
        loss = f(vector(3, 4))
        loss.backward()
        with kiln.no_grad():
            w -= w.grad * 0.1
        see(loss, w)
        w.grad = None


@right()
def closure_tensor_changes_shape(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: (x * w).sum())
    for n in (1, 2, 1, 3):
        w = vector(*range(n))
        see(f(vector(2)))


@right()
def closure_tensor_changes_dtype(c: Any, see: Any) -> None:
    w: Any = vector(1, 2)
    f = c(lambda x: x * w)
    for d in (kiln.float32, kiln.int64, kiln.float64, kiln.bool, kiln.float32):
        w = kiln.tensor([0, 1], dtype=d)
        see(f(vector(2, 3)))


@right()
def closure_requires_grad_is_toggled(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: x * w)
    for n in range(6):
        w.requires_grad_(n % 2 == 1)
        see(f(vector(2, 3)))


@right(captures=2)
def closure_list_of_tensors_item_replaced(c: Any, see: Any) -> None:
    ws = [vector(1), vector(2)]
    f = c(lambda x: x * ws[0] + ws[1])
    see(f(vector(5)), f(vector(5)))
    ws[1] = vector(9)
    see(f(vector(5)), f(vector(5)))


@right()
def closure_list_grows(c: Any, see: Any) -> None:
    ws = [vector(1)]
    f = c(lambda x: sum((x * w for w in ws), x))
    for n in range(4):
        see(f(vector(5)), f(vector(5)))
        ws.append(vector(n))


@right()
def closure_list_reordered(c: Any, see: Any) -> None:
    ws = [vector(1), vector(2)]
    f = c(lambda x: x * ws[0] - ws[1])
    for _ in range(3):
        see(f(vector(5)), f(vector(5)))
        ws.reverse()


@right()
def closure_dict_changes(c: Any, see: Any) -> None:
    d: dict[str, Any] = {"a": 2.0, "b": vector(1)}
    f = c(lambda x: x * d["a"] + d.get("c", d["b"]))
    see(f(vector(5)), f(vector(5)))
    d["a"] = 3.0
    see(f(vector(5)), f(vector(5)))
    d["c"] = 10.0
    see(f(vector(5)), f(vector(5)))
    del d["c"]
    see(f(vector(5)), f(vector(5)))


@right()
def closure_dict_iteration_order(c: Any, see: Any) -> None:
    d = {"a": vector(1), "b": vector(2)}
    f = c(lambda x: [x + v for v in d.values()])
    see(f(vector(5)), f(vector(5)))
    d["a"] = d.pop("a")
    see(f(vector(5)), f(vector(5)))


@right()
def closure_nested_containers(c: Any, see: Any) -> None:
    d = {"layers": [{"w": vector(2)}, {"w": vector(3)}]}
    f = c(lambda x: x * d["layers"][0]["w"] * d["layers"][1]["w"])
    see(f(vector(5)), f(vector(5)))
    d["layers"][1]["w"] = vector(4)
    see(f(vector(5)), f(vector(5)))
    d["layers"][0] = {"w": vector(10)}
    see(f(vector(5)), f(vector(5)))


@right()
def closure_set(c: Any, see: Any) -> None:
    s = {1, 2}
    f = c(lambda x: x * len(s) + (3 in s))
    see(f(vector(5)), f(vector(5)))
    s.add(3)
    see(f(vector(5)), f(vector(5)))
    s.discard(1)
    see(f(vector(5)), f(vector(5)))


@right()
def closure_deque(c: Any, see: Any) -> None:
    d = collections.deque([vector(1)], maxlen=2)
    f = c(lambda x: sum(d, x))
    for n in range(3):
        see(f(vector(5)), f(vector(5)))
        d.append(vector(n))


@right()
def closure_ordered_dict_moves(c: Any, see: Any) -> None:
    d = collections.OrderedDict(a=vector(1), b=vector(2))
    f = c(lambda x: [x + v for v in d.values()])
    see(f(vector(5)), f(vector(5)))
    d.move_to_end("a")
    see(f(vector(5)), f(vector(5)))


@right()
def closure_default_dict(c: Any, see: Any) -> None:
    d: Any = collections.defaultdict(float, a=2.0)
    f = c(lambda x: x * d["a"])
    see(f(vector(5)), f(vector(5)))
    d["a"] = 3.0
    see(f(vector(5)))


@right()
def closure_default_dict_makes_an_entry(c: Any, see: Any) -> None:
    d: Any = collections.defaultdict(float)
    f = c(lambda x: x * d["a"])
    see(f(vector(5)))


@right()
def closure_counter_and_chain_map(c: Any, see: Any) -> None:
    d = collections.Counter("aab")
    m = collections.ChainMap({"k": 2.0}, {"j": 3.0})
    f = c(lambda x: x * d["a"] * m["k"] * m["j"])
    see(f(vector(5)), f(vector(5)))
    d.update("aa")
    see(f(vector(5)))
    m.maps[1]["j"] = 1.0
    see(f(vector(5)))


@right()
def closure_numpy_array_changes(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0])
    f = c(lambda x: x * float(a[0]))
    for n in range(3):
        see(f(vector(5)), f(vector(5)))
        a[0] += n


@right()
def closure_numpy_becomes_a_constant(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0], np.float32)
    f = c(lambda x: x * kiln.tensor(a))
    for _ in range(3):
        see(f(vector(5, 6)), f(vector(5, 6)))
        a += 1


@refused()
def closure_numpy_shares_memory(c: Any, see: Any) -> None:
    a = np.array([1.0, 2.0], np.float32)
    f = c(lambda x: x * kiln.from_numpy(a))
    see(f(vector(5, 6)))


@right()
def closure_numpy_view_of_a_changing_array(c: Any, see: Any) -> None:
    a = np.arange(6.0)
    v = a[::2]
    f = c(lambda x: x * float(v.sum()))
    see(f(vector(5)), f(vector(5)))
    a[4] = 100
    see(f(vector(5)), f(vector(5)))


@refused()
def closure_object_array(c: Any, see: Any) -> None:
    a = np.array([1, "a"], dtype=object)
    f = c(lambda x: x * a[0])
    see(f(vector(5)))


@right()
def closure_numpy_polynomial(c: Any, see: Any) -> None:
    p = np.poly1d([1.0, 2.0])
    f = c(lambda x: x * float(p(2.0)))
    see(f(vector(5)), f(vector(5)))
    p.coeffs[0] = 7.0
    see(f(vector(5)))


@right()
def closure_nonlocal_between_calls(c: Any, see: Any) -> None:
    n = 0

    def advance() -> None:
        nonlocal n
        n += 1

    f = c(lambda x: x * n)
    for _ in range(3):
        see(f(vector(5)), f(vector(5)))
        advance()


@right()
def closure_nonlocal_counted_inside(c: Any, see: Any) -> None:
    n = 0

    def f(x: Any) -> Any:
        nonlocal n
        n += 1
        return x * n

    g = c(f)
    see(g(vector(5)))


@right()
def closure_cell_bound_later(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        return x * k  # noqa: F821

    g = c(f)
    see.attempt(lambda: g(vector(1)))
    k = 2.0
    see(g(vector(1)), g(vector(1)))
    del k
    see.attempt(lambda: g(vector(1)))


@right()
def closure_shared_by_two(c: Any, see: Any) -> None:
    state = {"k": 1.0}
    f = c(lambda x: x * state["k"])
    g = c(lambda x: f(x) + state["k"])
    for n in range(3):
        see(f(vector(5)), g(vector(5)), g(vector(5)))
        state["k"] = float(n)


@right()
def closure_helper_function_replaced(c: Any, see: Any) -> None:
    def helper(x: Any) -> Any:
        return x * 2

    f = c(lambda x: helper(x) + 1)
    see(f(vector(5)), f(vector(5)))

    def helper(x: Any) -> Any:  # noqa: F811
        return x * 3

    see(f(vector(5)), f(vector(5)))


@right()
def closure_of_a_helper_changes(c: Any, see: Any) -> None:
    k = 2.0

    def inner(x: Any) -> Any:
        return x * k

    def outer(x: Any) -> Any:
        return inner(x) + 1

    f = c(lambda x: outer(x))
    see(f(vector(5)), f(vector(5)))
    k = 4.0
    see(f(vector(5)), f(vector(5)))


@right()
def factory_of_closures(c: Any, see: Any) -> None:
    def scaled(k: float) -> Any:
        return lambda x: x * k

    fs = [c(scaled(float(k))) for k in range(3)]
    for _ in range(2):
        see([f(vector(5)) for f in fs])


@right()
def late_binding_lambdas(c: Any, see: Any) -> None:
    fs = [lambda x: x * k for k in range(3)]  # noqa: B023
    f = c(lambda x: [g(x) for g in fs])
    see(f(vector(5)), f(vector(5)))


@right()
def functions_in_a_table(c: Any, see: Any) -> None:
    table = {"a": lambda x: x * 2, "b": lambda x: x * 3}
    f = c(lambda x, key: table[key](x))
    see(f(vector(5), "a"), f(vector(5), "b"), f(vector(5), "a"))
    table["a"] = table["b"]
    see(f(vector(5), "a"))


@right()
def range_and_slice_in_closure(c: Any, see: Any) -> None:
    r: Any = range(3)
    s: Any = slice(0, 2)
    f = c(lambda x: sum((x[s] * k for k in r), x[s]))
    see(f(kiln.arange(4.0)), f(kiln.arange(4.0)))
    r = range(2)
    see(f(kiln.arange(4.0)))
    s = slice(1, 4)
    see(f(kiln.arange(4.0)), f(kiln.arange(4.0)))


@right()
def attrgetter_itemgetter(c: Any, see: Any) -> None:
    box = types.SimpleNamespace(w=vector(2))
    get: Any = operator.attrgetter("w")
    first = operator.itemgetter(0)
    f = c(lambda x: x * get(box) + first([x]))
    see(f(vector(5)), f(vector(5)))
    box.w = vector(4)
    see(f(vector(5)), f(vector(5)))


@right()
def weak_reference_to_an_object(c: Any, see: Any) -> None:
    class Box:
        k = 2.0

    boxes = [Box()]
    ref = weakref.ref(boxes[0])

    def f(x: Any) -> Any:
        box = ref()
        return x * box.k if box is not None else -x

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    boxes[0].k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def weak_reference_dies(c: Any, see: Any) -> None:
    import gc

    class Box:
        pass

    boxes = [Box()]
    ref = weakref.ref(boxes[0])
    f = c(lambda x: x * 2 if ref() is None else x * 3)
    see(f(vector(5)), f(vector(5)))
    boxes.clear()
    gc.collect()
    del f  # what a compiled function has seen, it keeps alive; a new one must see the truth
    g = c(lambda x: x * 2 if ref() is None else x * 3)
    see.log.append("the object may live as long as something watches it")
    see(len([g(vector(5))]))
