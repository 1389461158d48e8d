"""Effects and hidden state: exceptions, prints, clocks, threads, processes, scripts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np

import kiln
from tests.frontend.battery.kit import Table, module, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


# -------------------------------------------------------------------------------------- exceptions


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
            return x * float(x.sum().numpy())
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


# ----------------------------------------------------------------------------------------- effects


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


@refused(always=True)
def frames_asked(c: Any, see: Any) -> None:
    m = module("import inspect\ndef f(x): return x * inspect.currentframe().f_back.f_locals.get('scale', 1.0)")
    f = c(m.f)
    for scale in (2.0, 2.0, 3.0):
        see(f(vector(scale)))


@refused(always=True)
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


# ---------------------------------------------------------------------------------- data-dependent


@right(captures=2)
def branch_on_data(c: Any, see: Any) -> None:
    f = c(lambda x: x if x.sum() > 0 else -x)
    for n in (1, -1, 2, -3, 0):
        see(f(vector(n)))


@right(captures=2)
def data_as_index(c: Any, see: Any) -> None:
    f = c(lambda x, n: x[int(n)])
    for n in (1, 0, 1, 0):
        see(f(vector(1, 2), kiln.tensor(n)))


@right(captures=2)
def data_in_a_string(c: Any, see: Any) -> None:
    f = c(lambda x: f"{x}")
    for n in (1, 2, 1, 2):
        see(f(vector(n)))


@right(captures=3)
def tensor_in_a_list(c: Any, see: Any) -> None:
    xs = [vector(1), vector(2)]
    f = c(lambda x: x in xs)
    for n in (2, 1, 3, 2, 1):
        see(f(vector(n)))


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


@right(captures=2)
def sorted_by_data(c: Any, see: Any) -> None:
    f = c(lambda x, y: sorted([x, y])[0] * 1)
    for a, b in ((2.0, 1.0), (1.0, 2.0), (3.0, 0.0), (1.0, 1.0)):
        see(f(kiln.tensor(a), kiln.tensor(b)))


@right(captures=4)
def loop_until_data_says_stop(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        n = 0
        while x.sum() < 10:
            x, n = x * 2, n + 1
        return x, n

    f = c(f)
    for n in (1, 3, 20, 1, 2, 30):
        see(f(vector(n, n)))


@right(captures=2)
def branch_on_data_with_gradients(c: Any, see: Any) -> None:
    w = vector(1, 2, grad=True)

    def f(x: Any) -> Any:
        y = x * w
        return y.exp() if y.sum() > 0 else (y * x).sin()

    f = c(f)
    for n in (1, -1, 2, -2):
        w.grad = None
        x = vector(n, n)
        f(x).sum().backward()
        see(x, w.grad)


@right(captures=4)
def writes_before_and_after_a_branch_on_data(c: Any, see: Any) -> None:
    total = vector(0, 0)

    def f(x: Any) -> Any:
        total.add_(x)
        if total.sum() > 5:
            total.zero_()
            return x * 0
        if x[0] > 1:
            x.mul_(2)
        return total + x

    f = c(f)
    for n in (1, 2, 1, 3, -4, 2, 1, 1, 2):
        x = vector(n, n)
        see(f(x), x, total)


@right(captures=3)
def random_numbers_around_a_branch_on_data(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        noise = kiln.rand(2)
        if noise[0] > 0.5:
            return x + noise
        return x - kiln.rand(2) if noise[1] > 0.5 else x * noise

    f = c(f)
    for n in range(12):
        see(f(vector(n, 1)))


@right()
def exception_for_some_data(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        if (x < 0).any():
            raise ValueError(f"negative: {x.min().item()}")
        return x.sqrt()

    f = c(f)
    for n in (1, -1, 4, -1, -2, 9):
        see.attempt(f, vector(n))


@right(captures=2)
def gradient_taken_after_a_branch_on_data(c: Any, see: Any) -> None:
    w = vector(1, 2, grad=True)

    def step(x: Any) -> Any:
        loss = (w * x).square().sum()
        if loss > 3:
            loss = loss * 0.5
        loss.backward()
        return loss.detach()

    step = c(step)
    for n in (1, 2, 0, 3):
        w.grad = None
        see(step(vector(n, n)), w.grad)


@right(captures=2)
def number_asked_for_twice(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        s = x.sum()
        a = 1 if s > 0 else 2
        b = 10 if s > 0 else 20
        return x * (a + b), a, b

    f = c(f)
    for n in (1, -1, 2, -2):
        see(f(vector(n)))


@refused()
def stray_tensor(c: Any, see: Any) -> None:
    f = c(lambda x: x + kiln.from_numpy(np.ones(1, np.float32)))
    see(f(vector(1)))


# --------------------------------------------------------------------------- threads and processes


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
