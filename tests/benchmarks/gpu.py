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
import os
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
PEAK = float(os.environ.get("KILN_PEAK_TFLOPS", "989"))  # of 16-bit products on an H100 or H200; an A100 has 312


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
        f"{f'cublasLt {found.version}' if (found := cuda.products_library()) else 'no cublasLt'}, "
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

    def row(self, name: str, mine: float, peer: float | None, note: str, who: str = "torch") -> None:
        beside = "" if peer is None else f"   {who} {text(peer)}, kiln takes {mine / peer:5.2f} of it"
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

    # ---------------------------------------------------------------------------------------- scans, sorts, masks

    def scans(self) -> None:
        R, C, N = self.size(16, 2), self.size(131072, 1500), self.size(1 << 20, 2500)
        host, line = self.numbers(R, C), self.numbers(N)
        x, row = kiln.from_numpy(host).cuda(), kiln.from_numpy(line).cuda()
        given = None if self.torch is None else self.torch.from_numpy(host).cuda()
        theirs = None if self.torch is None else self.torch.from_numpy(line).cuda()
        moved = 8 * R * C
        exact = np.cumsum(host.astype(np.float64), 1)
        assert np.abs(x.cumsum(1).cpu().numpy() - exact).max() < 1e-5 * np.abs(exact).max()
        self.bandwidth(f"cumsum {R}x{C}", lambda: x.cumsum(1), moved, self.peer(lambda t: lambda: given.cumsum(1)))
        turned = kiln.from_numpy(np.ascontiguousarray(host.T)).cuda()
        other = None if given is None else given.T.contiguous()
        self.bandwidth(f"cumsum {C}x{R}", lambda: turned.cumsum(0), moved, self.peer(lambda t: lambda: other.cumsum(0)))
        assert np.array_equal(row.argsort().cpu().numpy(), np.argsort(line, kind="stable"))
        peer = self.peer(lambda t: lambda: t.sort(theirs, stable=True))
        self.rate(f"sort {N}", lambda: kiln.sort(row), N, peer)
        self.rate(f"topk of 50 {R}x{C}", lambda: x.topk(50), R * C, self.peer(lambda t: lambda: given.topk(50)))
        M = self.size(1 << 24, 3000)
        many = kiln.from_numpy(self.numbers(M)).cuda()
        mask = many > 0
        assert len(many[mask]) == mask.sum().item()
        if self.torch is not None:
            large = self.torch.from_numpy(many.cpu().numpy()).cuda()
            picked = large > 0
        self.rate(f"mask {M}", lambda: many[mask], M, self.peer(lambda t: lambda: large[picked]))

    def rate(self, name: str, run: Run, elements: int, peer: float | None) -> None:
        """A row with elements per second."""
        took = kiln_time(run)
        self.row(name, took, peer, f"{elements / took / 1e9:6.2f} billion elements/s")

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
                for library in ("default", "kiln"):
                    kiln.backends.cuda.preferred_blas_library(library)
                    if library == "kiln" and n > 1024:
                        continue
                    how = " by kiln's kernels" if library == "kiln" else ""
                    took = kiln_time(lambda x=x: x @ x)
                    peer = self.peer(lambda t, given=given: lambda: given @ given)
                    self.row(f"{dtype} product {n}^3{how}", took, peer, f"{2 * n**3 / took / 1e12:6.2f} TFLOP/s")
                kiln.backends.cuda.preferred_blas_library("default")
                took = kiln_time(lambda x=x: kiln.nn.functional.linear(x, x, x[0]))
                peer = self.peer(lambda t, given=given: lambda: t.nn.functional.linear(given, given, given[0]))
                self.row(f"{dtype} linear {n}^3", took, peer, f"{2 * n**3 / took / 1e12:6.2f} TFLOP/s")

    def attention(self) -> None:
        """Of heads like a language model's; the share is of `PEAK`, or of what KILN_PEAK_TFLOPS says."""
        N, H, L = (4, 16, 4096) if not self.small else (1, 2, 70)
        F = kiln.nn.functional
        for dtype, size, causal in itertools.product(("bfloat16", "float16"), (64, 128), (False, True)):
            if self.small and (dtype, size) != ("bfloat16", 64):
                continue
            host = [np.random.default_rng(k).standard_normal((N, H, L, size), dtype=np.float32) for k in range(4)]
            q, k, v, g = (kiln.from_numpy(x).cuda().to(getattr(kiln, dtype)) for x in host)
            for x in (q, k, v):
                x.requires_grad_()
            given: list[Any] = []
            if self.torch is not None:
                given = [self.torch.from_numpy(x).cuda().to(getattr(self.torch, dtype)) for x in host]
                for x in given[:3]:
                    x.requires_grad_()
            run = lambda q=q, k=k, v=v, c=causal: F.scaled_dot_product_attention(q, k, v, is_causal=c)  # noqa: E731
            last = host[0][0, 0, -1] @ host[1][0, 0].T / size**0.5
            weights = np.exp(last - last.max())
            assert np.allclose(
                run().detach()[0, 0, -1].float().cpu().numpy(), weights @ host[2][0, 0] / weights.sum(), atol=0.05
            )
            flops = 4 * N * H * L * L * size / (2 if causal else 1)
            name = f"{dtype} attention, {size}{', causal' if causal else ''}"

            def peer(torch: Any, given: list[Any] = given, causal: bool = causal) -> Run:
                sdpa = torch.nn.functional.scaled_dot_product_attention
                return lambda: sdpa(*given[:3], is_causal=causal)

            def both(torch: Any, given: list[Any] = given, peer: Any = peer) -> Run:
                return lambda: torch.autograd.grad(peer(torch)(), given[:3], given[3])

            backward = lambda q=q, k=k, v=v, g=g, run=run: kiln.grad(run(), [q, k, v], g)  # noqa: E731
            for what, mine, theirs, times in (("", run, peer, 1.0), (" and gradient", backward, both, 3.5)):
                took = kiln_time(mine)
                rate = times * flops / took / 1e12
                self.row(
                    name + what, took, self.peer(theirs), f"{rate:6.1f} TFLOP/s, {100 * rate / PEAK:4.1f}% of peak"
                )

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
        peer = fused = None
        if self.torch is not None:
            run, _ = step_of(self.torch, lambda f: f)
            peer = torch_time(self.torch, run)
        begin = time.perf_counter()
        compiled, _ = step_of(kiln, kiln.compile)
        compiled()
        kiln.cuda.synchronize()
        print(f"{'first compiled training step':<34}{text(time.perf_counter() - begin)}   (host, once)")
        graph, _ = step_of(kiln, lambda f: kiln.compile(f, mode="reduce-overhead"))
        for _ in range(4):
            graph()
        if self.torch is not None:
            begin = time.perf_counter()
            run, _ = step_of(self.torch, self.torch.compile)
            run()
            print(f"{'the same of torch.compile':<34}{text(time.perf_counter() - begin)}")
            fused = torch_time(self.torch, run)
        self.row("training step, eager", kiln_time(eager), peer, "")
        self.row("training step, compiled", kiln_time(compiled), fused, "", "torch.compile")
        self.row("training step, as a graph", kiln_time(graph), fused, "", "torch.compile")

    # ---------------------------------------------------------------------------------------- the host's time

    def host(self) -> None:
        x = kiln.ones(16, 16, device="cuda")
        given = None if self.torch is None else self.torch.ones(16, 16, device="cuda")
        wait = kiln.cuda.synchronize
        calls = self.size(200, 2)
        peer = None if self.torch is None else host_time(lambda: given + given, self.torch.cuda.synchronize, calls)
        self.row("host: eager x + x", host_time(lambda: x + x, wait, calls), peer, "")

        def many(x: Any) -> Any:
            for _ in range(15):  # more would be a loop
                x = (x @ x).softmax(-1)
            return x

        call = kiln.compile(many)
        launches = len(kiln.explain(many, x).cuda().launches)
        took = host_time(lambda: call(x), wait, calls)
        self.row(f"host: {launches} launches compiled", took, None, f"{took / launches * 1e6:6.2f} us per launch")
        took = host_time(lambda: x.sum().item(), wait, calls)
        peer = None if self.torch is None else host_time(lambda: given.sum().item(), self.torch.cuda.synchronize, calls)
        self.row("host: x.sum().item()", took, peer, "")

    # ---------------------------------------------------------------------------------------- CUDA graphs

    def graphs(self) -> None:
        """What the host and the GPU take for many small kernels, launched one by one and as graphs."""
        wait, calls = kiln.cuda.synchronize, self.size(200, 2)
        x = kiln.ones(16, 16, device="cuda")

        def many(x: Any) -> Any:
            for _ in range(15):  # more would be a loop
                x = (x @ x).softmax(-1)
            return x

        plain, graph = kiln.compile(many), kiln.compile(many, mode="reduce-overhead")
        for _ in range(4):
            same(graph(x), plain(x))
        launches = len(kiln.explain(many, x).cuda().launches)
        for name, run in (("one by one", plain), ("one graph", graph)):
            took = host_time(lambda run=run: run(x), wait, calls)
            self.row(f"host: {launches} launches, {name}", took, None, f"{took / launches * 1e6:6.2f} us per launch")
            self.row(f"GPU: {launches} launches, {name}", kiln_time(lambda run=run: run(x)), None, "")
        self.decode()

    def decode(self) -> None:
        """A token at a time through a small transformer: what keeps a caller waiting is the launches."""
        width, heads, layers, length = self.size(1024, 8), self.size(16, 2), self.size(12, 1), self.size(512, 4)
        host = self.numbers(1, 1, width)

        def step_of(library: Any) -> tuple[Run, Any, Any]:
            kind = block_of(library)
            blocks = [kind(width, heads).to("cuda") for _ in range(layers)]
            shape = (1, heads, length, width // heads)
            caches = [[library.zeros(shape, device="cuda") for _ in range(2)] for _ in blocks]
            mask = library.zeros(1, 1, 1, length, device="cuda")

            def step(x: Any, at: Any) -> Any:
                for block, cache in zip(blocks, caches, strict=True):
                    x = block(x, cache, at, mask)
                return x

            return step, library.from_numpy(host).to("cuda"), library.arange(1, device="cuda")

        def latency(run: Any, token: Any, at: Any) -> float:
            return host_time(lambda: run(token, at).sum().item(), lambda: None, self.size(20, 1))

        peers: dict[str, float] = {}
        if self.torch is not None:
            with self.torch.no_grad():
                theirs, x, where = step_of(self.torch)
                peers["eager"] = latency(theirs, x, where)
                fused = self.torch.compile(theirs, mode="reduce-overhead")
                for _ in range(4):
                    fused(x, where)
                peers["torch.compile"] = latency(fused, x, where)
        step, token, at = step_of(kiln)
        with kiln.no_grad():
            runs = {
                "eager": step, "compiled": kiln.compile(step), "as a graph": kiln.compile(step, mode="reduce-overhead")
            }  # fmt: skip
            wanted = step(token, at)
            for name, run in runs.items():
                for _ in range(4):
                    same(run(token, at), wanted)
                who = "eager" if name == "eager" else "torch.compile"
                peer, took = peers.get(who), latency(run, token, at)
                note = "from call to number, on the host"
                self.row(f"a token, {layers} layers, {name}", took, peer, note, "torch" if who == "eager" else who)
            print(f"    {runs['as a graph'].report().graphs[0]}")


def same(x: Any, y: Any) -> None:
    """The bits of two results."""
    assert np.array_equal(x.detach().cpu().numpy(), y.detach().cpu().numpy()), "results differ"


def block_of(library: Any) -> Any:
    """A block of a transformer that sees one token at a time, of kiln's modules or torch's."""
    nn, F = library.nn, library.nn.functional

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any, cache: Any, at: Any, mask: Any) -> Any:
            q, k, v = self.qkv(self.first(x)).reshape(1, 1, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            keys, values = cache
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            seen = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            x = x + self.out(seen.transpose(1, 2).reshape(1, 1, -1))
            return x + self.down(F.gelu(self.up(self.second(x))))

    return Block


def sections(bench: Bench) -> Iterator[tuple[str, Run]]:
    """By name, those that matter most first; all but the first need what it finds."""
    for run in (
        bench.copy, bench.elementwise, bench.rows, bench.scans, bench.host, bench.gemm, bench.attention,
        bench.training, bench.graphs,
    ):  # fmt: skip
        yield run.__name__, run


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only whether there is what this needs")
    parser.add_argument("--small", action="store_true", help="tiny cases: whether it works, not how fast")
    parser.add_argument(
        "--only",
        default="",
        help="sections whose name contains this: copy, elementwise, rows, scans, host, attention, ...",
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
