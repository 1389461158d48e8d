"""Single operations and short chains: kiln eager and compiled beside NumPy, torch, torch.compile and JAX.

python tests/benchmarks/bench_ops.py [--threads 1] [--only matmul]
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import harness
import numpy as np


def chain(x: Any, tanh: Callable[[Any], Any]) -> Any:
    """GELU by tanh, written out: one read and one write when fused."""
    return x * 0.5 * (tanh((x + x * x * x * 0.044715) * 0.7978846) + 1.0)


def normalise(x: Any, mean: Callable[[Any], Any], rsqrt: Callable[[Any], Any]) -> Any:
    """Layer normalisation without weights, written out."""
    centred = x - mean(x)
    return centred * rsqrt(mean(centred * centred) + 1e-5)


class Workload:
    """One function in every library's words, over the same float32 arrays."""

    def __init__(
        self,
        name: str,
        arrays: Sequence[np.ndarray[Any, Any]],
        kiln: Callable[..., Any],
        torch: Callable[[Any], Callable[..., Any]],
        jax: Callable[[Any], Callable[..., Any]],
        flops: float = 0.0,
        moved: float = 0.0,
        numpy: Callable[..., Any] | None = None,
    ) -> None:
        self.name, self.arrays, self.kiln, self.torch, self.jax = name, arrays, kiln, torch, jax
        self.flops, self.moved, self.numpy = flops, moved, numpy

    def case(self) -> harness.Case:
        import kiln

        tensors = [kiln.from_numpy(a) for a in self.arrays]
        compiled = kiln.compile(self.kiln)
        runs: dict[str, harness.Run] = {
            "kiln compiled": lambda: compiled(*tensors),
            "kiln eager": lambda: self.kiln(*tensors),
        }
        if self.numpy is not None:
            function = self.numpy
            runs["numpy"] = lambda: function(*self.arrays)
        if (torch := harness.torch()) is not None:
            inputs = [torch.from_numpy(a) for a in self.arrays]
            eager = self.torch(torch)
            runs["torch eager"] = lambda: eager(*inputs)
            if harness.torch_compiles():
                fused = torch.compile(eager)
                runs["torch.compile"] = lambda: fused(*inputs)
        if (jax := harness.jax()) is not None:
            device = [jax.numpy.asarray(a) for a in self.arrays]
            jitted = jax.jit(self.jax(jax))
            runs["jax jit"] = lambda: jitted(*device).block_until_ready()
        return harness.Case(self.name, runs, self.flops, self.moved)


def products(rng: np.random.Generator) -> list[Workload]:
    """Square products, the demo's layers, a transposed weight, and few rows."""
    sizes = [(64, 64, 64), (64, 64, 128), (256, 256, 256), (1024, 1024, 1024), (8, 768, 3072), (128, 768, 3072)]
    made = []
    for m, k, n in sizes:
        left, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
        for kind, right in (("", np.ascontiguousarray(w.T)), (" transposed", w.T)):
            name, arrays = f"matmul {m}x{k}x{n}{kind}", [left, right]
            work = 2.0 * m * k * n
            same = _in_every_library(operator.matmul)
            made.append(Workload(name, arrays, operator.matmul, same, same, flops=work, numpy=np.matmul))
    return made


def _in_every_library(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    return lambda library: function


def elementwise_and_rows(rng: np.random.Generator) -> list[Workload]:
    """What fusion is for."""
    import kiln

    def mean_of(library: Any, **keep: Any) -> Callable[[Any], Any]:
        return lambda x: library.mean(x, -1, **keep)

    made = []
    for n in (1 << 20, 1 << 24):
        x = rng.standard_normal(n, np.float32)
        made.append(
            Workload(
                f"gelu chain {n}",
                [x],
                partial(chain, tanh=kiln.tanh),
                lambda torch: partial(chain, tanh=torch.tanh),
                lambda jax: partial(chain, tanh=jax.numpy.tanh),
                moved=8 * n,
            )
        )
    rows = rng.standard_normal((4096, 1024), np.float32)
    made.append(
        Workload(
            "softmax 4096x1024",
            [rows],
            lambda x: kiln.softmax(x, 1),
            lambda torch: lambda x: torch.softmax(x, 1),
            lambda jax: lambda x: jax.nn.softmax(x, 1),
            moved=2 * rows.nbytes,
        )
    )
    made.append(
        Workload(
            "layer norm 4096x1024",
            [rows],
            lambda x: normalise(x, mean_of(kiln, keepdim=True), kiln.rsqrt),
            lambda torch: lambda x: normalise(x, mean_of(torch, keepdim=True), torch.rsqrt),
            lambda jax: lambda x: normalise(x, mean_of(jax.numpy, keepdims=True), jax.lax.rsqrt),
            moved=2 * rows.nbytes,
        )
    )
    for dim, total in enumerate((lambda x: x.sum(0), lambda x: x.sum(1))):
        name, same = f"sum over dimension {dim} of 4096x1024", _in_every_library(total)
        made.append(Workload(name, [rows], total, same, same, moved=rows.nbytes))
    small = [rng.standard_normal((4, 4), np.float32) for _ in range(2)]
    same = _in_every_library(operator.add)
    made.append(Workload("add 4x4 (the cost of a call)", small, operator.add, same, same, numpy=np.add))
    return made


def main() -> None:
    options = harness.arguments(__doc__ or "")
    floors = harness.floors(options.threads)
    rng = np.random.default_rng(0)
    for workload in [*products(rng), *elementwise_and_rows(rng)]:
        if options.only in workload.name:
            harness.report(workload.case(), options.rounds, floors)


if __name__ == "__main__":
    main()
