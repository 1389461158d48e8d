"""Calls that change Python state: what one call leaves, the next one finds, whatever happens in between."""

from __future__ import annotations

import collections
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def result_kept_and_returned(c: Any) -> None:
    state: dict[str, Any] = {"m": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        state["m"] = 0.5 * state["m"] + x
        return state["m"]

    for n in range(5):
        f(vector(n, 1)).add_(1)
        c.see(state)


@program
def result_of_the_last_call_passed_in(c: Any) -> None:
    state: dict[str, Any] = {"w": vector(1, 2)}

    @c
    def f(w: Any) -> Any:
        state["w"] = state["w"] * 0.5 + w
        return state["w"]

    w = state["w"]
    for n in range(6):
        w = f(w if n != 4 else vector(1, 1))


@program
def two_names_of_one_tensor(c: Any) -> None:
    state: dict[str, Any] = {"a": vector(1, 2), "b": vector(3, 4)}

    @c
    def f(x: Any) -> Any:
        state["a"] = state["b"]
        state["b"] = state["b"] + x
        return state["a"] * 2

    for n in range(6):
        f(vector(n, 1))
        if n == 3:
            state["a"] = state["b"]
        c.see(state["a"] is state["b"])


@program
def names_swapped(c: Any) -> None:
    box: Any = type("Box", (), {})()
    box.a, box.b = vector(1, 2), vector(3, 4)

    @c
    def f(x: Any) -> Any:
        box.a, box.b = box.b, box.a
        return box.a - x

    for n in range(5):
        f(vector(n, 1))


@program
def views_kept(c: Any) -> None:
    state: dict[str, Any] = {}

    @c
    def f(x: Any) -> Any:
        whole = x * 2
        state["row"] = whole[0]
        state["whole"] = whole
        return whole.t()

    for n in range(3):
        f(draw(2, 2, seed=n))
        state["row"].fill_(7.0)
        c.see(state)


@program
def argument_kept(c: Any) -> None:
    kept: list[Any] = [None]

    @c
    def f(x: Any, y: Any) -> Any:
        kept[0] = x
        return x + y

    x = vector(1, 2)
    for n in range(4):
        f(x if n % 2 else vector(n, n), x)
        c.see(kept[0] is x)


@program
def list_of_the_caller_kept(c: Any) -> None:
    kept: dict[str, Any] = {}

    @c
    def f(xs: Any) -> Any:
        kept["xs"] = xs
        xs.append(xs[0] * 2)
        return sum(xs)

    for n in range(3):
        xs = [vector(n, 1)]
        f(xs)
        c.see(kept["xs"] is xs, len(xs))


@program
def list_of_the_caller_that_is_kept_already(c: Any) -> None:
    kept: dict[str, Any] = {"xs": [vector(1, 2)]}

    @c
    def f(xs: Any) -> Any:
        xs.append(xs[0] * 2)
        return sum(kept["xs"])

    f([vector(1, 1)])
    f([vector(2, 1)])
    f(kept["xs"])
    f([vector(2, 1)])
    c.see(kept)


@program
def one_new_list_with_many_names(c: Any) -> None:
    state: dict[str, Any] = {}

    @c
    def f(x: Any) -> Any:
        made = [x * 2]
        state["a"] = made
        state["b"] = {"inner": made}
        return made, [made]

    for n in range(3):
        a, (b,) = f(vector(n, 1))
        c.see(a is b, a is state["a"], a is state["b"]["inner"])
        a.append(1)


@program
def list_that_holds_itself(c: Any) -> None:
    state: dict[str, Any] = {}

    @c
    def f(x: Any) -> Any:
        made: list[Any] = [x * 2]
        made.append(made)
        state["a"] = made
        return x + 1

    for n in range(2):
        f(vector(n, 1))
        c.see(state["a"][1] is state["a"])


@program
def tuple_kept_and_returned(c: Any) -> None:
    state: dict[str, Any] = {"pair": None}

    @c
    def f(x: Any) -> Any:
        pair = (x * 2, x + 1)
        state["pair"] = pair
        return pair

    for n in range(3):
        pair = f(vector(n, 1))
        c.see(pair is state["pair"], pair[0] is state["pair"][0])


@program
def list_given_back(c: Any) -> None:
    found = [vector(1, 2)]

    @c
    def f(xs: Any, x: Any) -> Any:
        return xs, found, {"x": x * found[0]}

    xs = [vector(3, 4)]
    for n in range(3):
        a, b, _ = f(xs, vector(n, 1))
        c.see(a is xs, b is found)


@program
def order_of_a_dictionary(c: Any) -> None:
    table: dict[str, Any] = {"a": vector(1), "b": vector(2), "c": vector(3)}

    @c
    def f(x: Any) -> Any:
        first = next(iter(table))
        moved = table.pop(first)
        table[first] = moved * x
        return table[first]

    for n in range(7):
        f(vector(n + 1))
        c.see(list(table))


@program
def key_deleted(c: Any) -> None:
    table: dict[str, Any] = {"a": vector(1)}

    @c
    def f(x: Any) -> Any:
        return x + table.pop("a", x)

    for n in range(4):
        f(vector(n))
        if n == 1:
            table["a"] = vector(5)


@program
def subclass_of_dict(c: Any) -> None:
    class Loud(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            dict.__setitem__(self, key, value * 2)

        def __getitem__(self, key: str) -> Any:
            return dict.__getitem__(self, key) + 1

    table = Loud(a=vector(1))

    @c
    def f(x: Any) -> Any:
        table["a"] = table["a"] + x
        table["b"] = x
        return table["a"]

    for n in range(5):
        f(vector(n))


@program
def dictionary_with_a_default(c: Any) -> None:
    sums: collections.defaultdict[str, Any] = collections.defaultdict(list)

    @c
    def f(x: Any, key: str) -> Any:
        sums[key].append(x * 2)
        return sum(sums[key])

    for key in ("a", "b", "a", "b"):
        f(vector(1, 2), key)


@program
def ordered_dictionary_changed(c: Any) -> None:
    table: collections.OrderedDict[str, Any] = collections.OrderedDict(a=vector(1), b=vector(2))

    @c
    def f(x: Any) -> Any:
        table.move_to_end("a")
        table["c"] = x
        return sum(table.values())

    for n in range(4):
        f(vector(n))
        if n == 2:
            table.clear()
            table["a"] = vector(1)


@program
def window_of_tensors(c: Any) -> None:
    window = collections.deque([vector(0), vector(0)], maxlen=2)

    @c
    def f(x: Any) -> Any:
        window.append(x * 2)
        return window[0] + window[1]

    for n in range(6):
        f(vector(n))


@program
def names_in_a_set(c: Any) -> None:
    seen: set[str] = set()

    @c
    def f(x: Any, name: str) -> Any:
        first = name not in seen
        seen.add(name)
        return x * (2 if first else 3)

    for name in ("a", "b", "a", "c"):
        f(vector(1), name)


@program
def set_that_shrinks(c: Any) -> None:
    seen = {"a", "b", "c"}

    @c
    def f(x: Any, name: str) -> Any:
        seen.discard(name)
        return x * len(seen)

    for name in ("a", "b", "a"):
        f(vector(1), name)


@program
def nested_argument_changed(c: Any) -> None:
    @c
    def f(batch: Any) -> Any:
        batch["rows"][0]["y"] = batch["rows"][0].pop("x") * 2
        batch["rows"].reverse()
        return batch["rows"][-1]

    for n in range(3):
        batch: Any = {"rows": [{"x": vector(n)}, {"x": vector(1)}]}
        row = batch["rows"][0]
        c.see(f(batch) is row, batch)


@program
def argument_that_is_there_twice(c: Any) -> None:
    @c
    def f(a: Any, b: Any) -> Any:
        a.append(b[0] * 2)
        return len(b)

    for n in range(4):
        a = [vector(n)]
        f(a, a if n % 2 else [vector(1)])
        c.see(a)


@program
def raises_midway(c: Any) -> None:
    state: dict[str, Any] = {"n": 0, "m": vector(0)}

    @c
    def f(x: Any, i: Any) -> Any:
        state["m"] = state["m"] + x
        row = kiln.arange(3)[i]
        state["last"] = row
        return row

    for i in (0, 1, 2, 7, 1, 8, 0):
        try:
            f(vector(i), kiln.tensor(i))
        except IndexError:
            c.see("raised")
        c.see(state)


@program
def raises_by_data(c: Any) -> None:
    state: dict[str, Any] = {"m": vector(0)}

    @c
    def f(x: Any) -> Any:
        state["m"] = state["m"] + x
        if state["m"].sum() > 3:
            raise ValueError("too much")
        return state["m"]

    for n in (1, 1, 1, 1, -3, 1):
        try:
            f(vector(n))
        except ValueError:
            c.see("raised")
        c.see(state)


@program
def branch_that_keeps(c: Any) -> None:
    state: dict[str, Any] = {"best": vector(0)}

    @c
    def f(x: Any) -> Any:
        if x.sum() > state["best"].sum():
            state["best"] = x
        return state["best"]

    for n in (1, 0, 3, 2, 5, 4):
        f(vector(n))


@program
def changed_from_outside(c: Any) -> None:
    state: dict[str, Any] = {"m": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        state["m"] = state["m"] * 0.5 + x
        return state["m"]

    for n in range(10):
        f(vector(n, 1))
        if n == 3:
            state["m"] = vector(1, 2).double()
        if n == 5:
            state["m"] = vector(1, 2)
        if n == 6:
            state["m"] = draw(2, 2)[0]
        if n == 7:
            state["m"] = state["m"].clone().requires_grad_()
        if n == 8:
            state["m"] = 2.0


@program
def state_replaced(c: Any) -> None:
    box: Any = type("Box", (), {})()
    box.state = {"m": vector(0)}

    @c
    def f(x: Any) -> Any:
        box.state["m"] = box.state["m"] + x
        return box.state["m"]

    for n in range(7):
        f(vector(n))
        if n == 3:
            box.state = {"m": vector(5)}


@program
def state_with_history(c: Any) -> None:
    net = linear()
    state: dict[str, Any] = {"h": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        state["h"] = (net(x) + state["h"]).tanh()
        return state["h"].sum()

    for n in range(4):
        f(draw(2, seed=n))


@program
def state_that_is_cut_off(c: Any) -> None:
    net = linear()
    state: dict[str, Any] = {"h": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        out = (net(x) + state["h"]).tanh()
        state["h"] = out.detach()
        return out.sum()

    for n in range(4):
        f(draw(2, seed=n)).backward()
        c.see(net.weight.grad)


@program
def written_in_place_and_replaced(c: Any) -> None:
    state: dict[str, Any] = {"m": vector(0, 0), "old": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        state["m"].add_(x)
        state["old"] = state["m"]
        state["m"] = state["m"] * 2
        return state["old"]

    for n in range(5):
        f(vector(n, 1))


@program
def flag_that_flips(c: Any) -> None:
    class Box:
        on = False

    box = Box()

    @c
    def f(x: Any) -> Any:
        box.on = not box.on
        return x * 2 if box.on else x + 1

    for n in range(6):
        f(vector(n))


@program
def numbers_of_several_types(c: Any) -> None:
    state: dict[str, Any] = {"n": 0}

    @c
    def f(x: Any) -> Any:
        state["n"] = {"0": 0.0, "0.0": -0.0, "-0.0": True}.get(repr(state["n"]), 0)
        return x * state["n"]

    for n in range(6):
        f(vector(n))
        c.see(repr(state["n"]))


@program
def random_numbers_kept(c: Any) -> None:
    state: dict[str, Any] = {"noise": vector(0, 0)}

    @c
    def f(x: Any) -> Any:
        state["noise"] = 0.5 * state["noise"] + kiln.randn(2)
        return x + state["noise"]

    for n in range(5):
        f(vector(n, 1))


@program
def list_sorted_in_place(c: Any) -> None:
    xs = [3, 1, 2]

    @c
    def f(x: Any) -> Any:
        xs.sort()
        xs.insert(0, 5)
        del xs[-1]
        return x * xs[1]

    for n in range(4):
        f(vector(n))
        c.see(xs)


@program
def several_functions_on_one_state(c: Any) -> None:
    state: dict[str, Any] = {"m": vector(0), "log": []}

    @c
    def push(x: Any) -> Any:
        state["m"] = state["m"] + x
        state["log"].append(x)
        return state["m"]

    @c
    def pull() -> Any:
        state["m"] = state["m"] * 0.5
        return state["log"].pop() if state["log"] else None

    for n in range(4):
        push(vector(n))
        push(vector(1))
        pull()
    for _ in range(5):
        pull()


@program
def state_of_the_caller_read_by_both(c: Any) -> None:
    memory: list[Any] = []

    def remember(x: Any) -> None:
        memory.append(x)

    @c
    def f(x: Any, use: Any) -> Any:
        use(x * 2)
        return x

    for n in range(3):
        f(vector(n), remember)
        f(vector(n), memory.append)
    c.see(memory)
