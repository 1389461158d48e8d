"""What a warm call of a compiled function costs besides its program: guards, and everything around; least of many.

python tests/benchmarks/bench_guards.py
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import kiln
from kiln import nn


class Block(nn.Module):
    """Attention and a perceptron, as in GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.act, self.out = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        """[batch, length, width] to the same."""
        b, t, d = x.shape

        def split(z: Any) -> Any:
            return z.reshape(b, t, self.heads, d // self.heads).transpose(1, 2)

        q, k, v = self.qkv(self.ln1(x)).chunk(3, -1)
        y = nn.functional.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.out(self.act(self.fc(self.ln2(x))))


class Transformer(nn.Module):
    """Blocks one after the other."""

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Any) -> Any:
        """[batch, length, width] to the same."""
        for block in self.blocks:
            x = block(x)
        return self.ln(x)


def least(call: Callable[[], Any], n: int) -> float:
    """The shortest of `n` calls, in µs, without what the clock itself takes."""
    clock = time.perf_counter
    found = idle = float("inf")
    for _ in range(n):
        a = clock()
        b = clock()
        call()
        c = clock()
        idle, found = min(idle, b - a), min(found, c - b)
    return (found - idle) * 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    n = parser.parse_args().calls
    a, b, x = kiln.randn(4), kiln.randn(4), kiln.randn(1, 4, 8)
    cases: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("two tensors", kiln.compile(lambda a, b: a + b), (a, b)),
        ("12 blocks", kiln.compile(Transformer(12, 8, 2).eval()), (x,)),
    ]
    print(f"{'least of ' + str(n) + ' calls, µs':28}{'guards':>10}{'call':>10}{'program':>10}{'around':>10}")
    with kiln.no_grad():
        for name, compiled, arguments in cases:
            compiled(*arguments)
            (entries,) = compiled._entries.values()
            (region,) = compiled.regions()
            inputs = region.inputs.gather(arguments)
            buffers = [t._ptr for t in inputs]
            outputs = region.compile().run(inputs)
            values = [*buffers, *[b.ptr for b in outputs]]
            guards = least(entries[0].reached.guards.hold, n)
            call = least(functools.partial(compiled, *arguments), n)
            program = least(functools.partial(region.compile().executable.run, values), n)
            print(f"{name:28}{guards:10.2f}{call:10.2f}{program:10.2f}{call - program:10.2f}")


if __name__ == "__main__":
    main()
