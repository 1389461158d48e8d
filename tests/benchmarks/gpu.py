"""How fast things are on a GPU: a table of what was measured, with what a copy reaches in the same run as the measure.

    python tests/benchmarks/gpu.py            # the first GPU; about three minutes
    python tests/benchmarks/gpu.py --check    # only whether there is what it needs
    python tests/benchmarks/gpu.py --only softmax --small

Needs kiln with CuPy and a GPU; torch with CUDA for the peers, which are left out without it. Times are those of the
GPU between two events, medians over rounds of enough repetitions; `host` says whose clock is the host's. Bandwidths
count what must be read and written. Nothing here asserts a time; results are compared before they are timed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import kiln
from kiln.runtime import cuda

Run = Callable[[], Any]
ROUNDS = 9
SAMPLE = 20e-3  # seconds that a sample should take


def torch_module() -> Any:
    """torch with CUDA, or None."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch


def ready() -> bool:
    """Whether there is what this needs; says what there is, or what to do."""
    try:
        kiln.cuda.init()
        x = kiln.ones(5, device="cuda") + 1  # through NVRTC, a launch and a copy
        assert x.cpu().tolist() == [2.0] * 5, "an addition on the GPU went wrong"
    except kiln.KilnError as error:
        print(f"no GPU can be measured: {error}")
        return False
    p = kiln.cuda.get_device_properties()
    peer = torch_module()
    runtime = sys.modules["cupy"].cuda.runtime
    print(
        f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB; driver {runtime.driverGetVersion()}, "
        f"CuPy {sys.modules['cupy'].__version__}, NVRTC {sys.modules['cupy'].cuda.nvrtc.getVersion()}, "
        f"{'torch ' + peer.__version__ if peer is not None else 'no torch with CUDA: its columns are left out'}"
    )
    return True


# ------------------------------------------------------------------------------------------------------------ timing


def on_device(run: Run, start: Run, seconds: Callable[[Any, Any], float]) -> float:
    """Seconds of the GPU for one `run`: `start` makes a recorded event, `seconds` takes the time between two."""
    run()
    run()
    first = start()
    run()
    repeat = max(1, min(1000, int(SAMPLE / max(seconds(first, start()), 1e-7))))
    samples = []
    for _ in range(ROUNDS):
        first = start()
        for _ in range(repeat):
            run()
        samples.append(seconds(first, start()) / repeat)
    return statistics.median(samples)


def kiln_time(run: Run) -> float:
    def start() -> Any:
        event = kiln.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(a: Any, b: Any) -> float:
        b.synchronize()
        return float(a.elapsed_time(b)) * 1e-3

    return on_device(run, start, seconds)


def torch_time(torch: Any, run: Run) -> float:
    def start() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(a: Any, b: Any) -> float:
        b.synchronize()
        return float(a.elapsed_time(b)) * 1e-3

    return on_device(run, start, seconds)


def host_time(run: Run, wait: Run, calls: int = 200) -> float:
    """Seconds of the host for one `run`, which does not wait for the GPU."""
    run()
    samples = []
    for _ in range(ROUNDS):
        wait()
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        samples.append((time.perf_counter() - begin) / calls)
    wait()
    return statistics.median(samples)


def text(seconds: float) -> str:
    return f"{seconds * 1e6:9.1f} us" if seconds < 1e-2 else f"{seconds * 1e3:9.1f} ms"


# ------------------------------------------------------------------------------------------------------------- cases


class Bench:
    def __init__(self, small: bool) -> None:
        self.small = small
        self.torch = torch_module()
        self.copied = 0.0  # bytes a second

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def numbers(self, *shape: int) -> np.ndarray[Any, Any]:
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def row(self, name: str, mine: float, peer: float | None, note: str) -> None:
        beside = "" if peer is None else f"   torch {text(peer)}, kiln takes {mine / peer:5.2f} of it"
        print(f"{name:<34}{text(mine)}   {note}{beside}", flush=True)

    def peer(self, run: Callable[[Any], Run]) -> float | None:
        """torch's time for what `run` makes of torch."""
        return None if self.torch is None else torch_time(self.torch, run(self.torch))

    def bandwidth(self, name: str, run: Run, moved: int, peer: float | None) -> None:
        took = kiln_time(run)
        rate = moved / took
        self.row(name, took, peer, f"{rate / 1e12:6.3f} TB/s, {100 * rate / self.copied:5.1f}% of a copy's")

    # ---------------------------------------------------------------------------------------- bandwidth

    def copy(self) -> None:
        n = self.size(1 << 28, 1 << 12)
        a, b = cuda.DeviceBuffer.allocate(n), cuda.DeviceBuffer.allocate(n)
        took = kiln_time(lambda: cuda.copy_on_device(b, 0, a, 0, n))
        self.copied = 2 * n / took
        self.row(f"copy, {n >> 20} MiB", took, None, f"{self.copied / 1e12:6.3f} TB/s read and written")

    def elementwise(self) -> None:
        n = self.size(1 << 26, 1 << 8)
        host = self.numbers(n)
        x = kiln.from_numpy(host).cuda()
        given = None if self.torch is None else self.torch.from_numpy(host).cuda()
        F = kiln.nn.functional
        for name, mine, theirs in (
            ("x * 2 + 1, relu", lambda x: kiln.relu(x * 2 + 1), lambda t, x: t.relu(x * 2 + 1)),
            ("gelu(x) * x", lambda x: F.gelu(x) * x, lambda t, x: t.nn.functional.gelu(x) * x),
        ):
            call = kiln.compile(mine)
            peer = self.peer(lambda t, theirs=theirs: lambda: theirs(t, given))
            self.bandwidth(name, lambda call=call: call(x), 8 * n, peer)

    def rows(self) -> None:
        R, C = self.size(16384, 3), self.size(4096, 70)
        host = self.numbers(R, C)
        x, w = kiln.from_numpy(host).cuda(), kiln.ones(C, device="cuda")
        F = kiln.nn.functional
        moved = 8 * R * C
        given = None if self.torch is None else self.torch.from_numpy(host).cuda()
        ones = None if self.torch is None else self.torch.ones(C, device="cuda")
        softmax = kiln.compile(lambda x: F.softmax(x, -1))
        e = np.exp(host[:2] - host[:2].max(1, keepdims=True))
        assert np.allclose(softmax(x)[:2].cpu().numpy(), e / e.sum(1, keepdims=True), atol=1e-6)
        self.bandwidth(f"softmax {R}x{C}", lambda: softmax(x), moved, self.peer(lambda t: lambda: t.softmax(given, -1)))
        norm = kiln.compile(lambda x, w: F.layer_norm(x, (C,), w, w))
        peer = self.peer(lambda t: lambda: t.nn.functional.layer_norm(given, (C,), ones, ones))
        self.bandwidth(f"layer_norm {R}x{C}", lambda: norm(x, w), moved, peer)
        total = kiln.compile(lambda x: x.sum(-1))
        self.bandwidth(f"sum of rows {R}x{C}", lambda: total(x), moved // 2, self.peer(lambda t: lambda: given.sum(-1)))
        across = kiln.compile(lambda x: x.sum(0))
        peer = self.peer(lambda t: lambda: given.sum(0))
        self.bandwidth(f"sum of columns {R}x{C}", lambda: across(x), moved // 2, peer)

    # ---------------------------------------------------------------------------------------- products, training

    def gemm(self) -> None:
        for dtype in ("float32", "bfloat16"):
            for n in (1024, 4096) if not self.small else (20,):
                host = self.numbers(n, n)
                x = kiln.from_numpy(host).cuda().to(getattr(kiln, dtype))
                given = (
                    None if self.torch is None else self.torch.from_numpy(host).cuda().to(getattr(self.torch, dtype))
                )
                got = (x @ x)[:1].float().cpu().numpy()
                assert np.allclose(got, host[:1] @ host, atol=n**0.5 * (0.2 if dtype == "bfloat16" else 1e-4))
                took = kiln_time(lambda x=x: x @ x)
                peer = self.peer(lambda t, given=given: lambda: given @ given)
                self.row(f"{dtype} product {n}^3", took, peer, f"{2 * n**3 / took / 1e12:6.2f} TFLOP/s")

    def training(self) -> None:
        batch, widths = self.size(256, 4), (784, 1024, 1024, 10) if not self.small else (12, 8, 10)
        x, y = self.numbers(batch, widths[0]), np.arange(batch) % 10

        def step_of(library: Any, wrap: Callable[[Run], Run]) -> tuple[Run, Run]:
            nn, tensor = library.nn, lambda a: library.from_numpy(a).to("cuda")
            layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
            model = nn.Sequential(*layers[:-1]).to("cuda")
            optimizer = library.optim.Adam(model.parameters(), lr=1e-3)
            xs, ys = tensor(x), tensor(y)

            def step() -> Any:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(xs), ys)
                loss.backward()
                optimizer.step()
                return loss.detach()

            return wrap(step), lambda: float(step())

        eager, loss = step_of(kiln, lambda f: f)
        first = loss()
        assert 1.5 < first < 4 and loss() < first, "training does not go down"
        peer = None
        if self.torch is not None:
            run, _ = step_of(self.torch, lambda f: f)
            peer = torch_time(self.torch, run)
        begin = time.perf_counter()
        compiled, _ = step_of(kiln, kiln.compile)
        compiled()
        kiln.cuda.synchronize()
        print(f"{'first compiled training step':<34}{text(time.perf_counter() - begin)}   (host, once)")
        self.row("training step, compiled", kiln_time(compiled), peer, "")
        self.row("training step, eager", kiln_time(eager), peer, "")

    # ---------------------------------------------------------------------------------------- the host's time

    def host(self) -> None:
        x = kiln.ones(16, 16, device="cuda")
        given = None if self.torch is None else self.torch.ones(16, 16, device="cuda")
        wait = kiln.cuda.synchronize
        calls = self.size(200, 2)
        peer = None if self.torch is None else host_time(lambda: given + given, self.torch.cuda.synchronize, calls)
        self.row("host: eager x + x", host_time(lambda: x + x, wait, calls), peer, "")

        def many(x: Any) -> Any:
            for _ in range(20):
                x = (x @ x).softmax(-1)
            return x

        call = kiln.compile(many)
        launches = len(kiln.explain(many, x).cuda().launches)
        took = host_time(lambda: call(x), wait, calls)
        self.row(f"host: {launches} launches compiled", took, None, f"{took / launches * 1e6:6.2f} us per launch")
        took = host_time(lambda: x.sum().item(), wait, calls)
        peer = None if self.torch is None else host_time(lambda: given.sum().item(), self.torch.cuda.synchronize, calls)
        self.row("host: x.sum().item()", took, peer, "")


def sections(bench: Bench) -> Iterator[tuple[str, Run]]:
    """By name, those that matter most first; all but the first need what it finds."""
    for run in (bench.copy, bench.elementwise, bench.rows, bench.host, bench.training, bench.gemm):
        yield run.__name__, run


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only whether there is what this needs")
    parser.add_argument("--small", action="store_true", help="tiny cases: whether it works, not how fast")
    parser.add_argument(
        "--only", default="", help="sections whose name contains this: copy, elementwise, rows, host, ..."
    )
    parser.add_argument("--seconds", type=float, default=200, help="start no section after these")
    options = parser.parse_args(given)
    if not ready():
        return 1
    if options.check:
        return 0
    begin, failed = time.perf_counter(), []
    bench = Bench(options.small)
    for name, run in sections(bench):
        if name != "copy" and options.only not in name:
            continue
        if time.perf_counter() - begin > options.seconds:
            print(f"{name}: left out, {options.seconds:.0f} seconds are over")
            continue
        try:
            run()
        except (kiln.KilnError, AssertionError) as error:
            failed.append(name)
            print(f"{name}: FAILED: {error}")
    outcome = f"failed: {', '.join(failed)}" if failed else "all sections worked"
    print(f"took {time.perf_counter() - begin:.0f} s; {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
