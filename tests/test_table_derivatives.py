"""First and second derivatives of the public functions, through compiled functions: eagerly's bits, and differences.

Calls come from the table of the fuzzer (`tests/tools/fuzz_table.py`), small and in float64 or complex128. A few
functions of each kind always, with `--slow` the whole table.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from tests.ops.sampling import draw, generator
from tests.ops.second_order import demand_differences, demand_eager_bits, differentiable, leaves

sys.path.append(str(Path(__file__).parent / "tools"))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from fuzz_table import TABLE, Draw, Unfit
    from fuzz_table_draw import EAGER_ONLY
sys.path.pop()

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # functions under older names are drawn too

OFTEN = frozenset(
    {"addmm", "avg_pool2d", "bilinear", "cdist", "conv1d", "cov", "cross_entropy", "cumprod", "embedding", "group_norm",
     "huber_loss", "index_put", "interpolate", "kl_div", "layer_norm", "linalg.cond", "linalg.matrix_norm", "lerp",
     "logsumexp", "mul_", "norm", "pad", "roll", "softmax", "softplus", "sort", "std", "fft.irfft2", "special.entr"}
)  # fmt: skip
"""Those of a run without `--slow`."""

_HALF_DERIVED = "no derivative by the first operand, as in torch"
_STEP = "its gradient is another function's: straight through"
_TRIANGLE = "reads one triangle; its gradient is that by a symmetric matrix, as in torch"
_NEXT = "steps by one unit in the last place: no derivative, as in torch"
NO_DIFFERENCES = {
    **dict.fromkeys(("igamma", "igamma_", "igammac", "igammac_"), _HALF_DERIVED),
    **dict.fromkeys(("special.gammainc", "special.gammaincc", "special.zeta"), _HALF_DERIVED),
    **dict.fromkeys(("cholesky", "cholesky_solve", "linalg.cholesky", "linalg.cholesky_ex"), _TRIANGLE),
    **dict.fromkeys(("linalg.eigh", "linalg.eigvalsh"), _TRIANGLE),
    "gumbel_softmax": _STEP,
    "embedding": "the gradient of row padding_idx is left out",
    **dict.fromkeys(("nextafter", "nextafter_"), _NEXT),
}
"""Functions whose gradient is not the slope of their values, and why."""


class Small(Draw):
    """Draws calls of few numbers, all different, of one dtype where a function takes it."""

    def __init__(self, rng: np.random.Generator, main: str) -> None:
        super().__init__(rng, False)
        self.main = main
        self.palette = [main]

    def dtype(self, dtypes: Sequence[str]) -> str:
        for name in (self.main, "float64", "complex128"):
            if name in dtypes:
                return name
        return str(self.rng.choice(list(dtypes)))

    def shape(self, rank: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self.rng.integers(2, 4, rank))

    def numbers(self, shape: tuple[int, ...], dtype: str, positive: bool = False) -> Any:
        if dtype in ("float64", "complex128") and not positive:
            return draw(self.rng, shape, dtype, 1.0)
        if dtype == "float64":
            return np.asarray(self.rng.uniform(0.1, 0.9, shape))
        return super().numbers(shape, dtype, positive)

    def like(self, k: int, dtypes: Sequence[str] = (), same: bool = True) -> int:
        t = self.tensors[k]
        name = t.dtype.name if same or not dtypes else self.dtype(dtypes)
        return self.put(self.numbers(tuple(t.shape), name), True)


Chosen = tuple[Callable[..., list[Any]], list[Any]]


def finite(values: Sequence[Any]) -> bool:
    return all(np.isfinite(t.detach().numpy()).all() for t in values if t is not None)


def fits(function: Callable[..., list[Any]], arrays: list[Any]) -> bool:
    """Whether a call and its gradients are of finite numbers."""
    kiln.manual_seed(0)
    xs = leaves(arrays)
    made = function(*xs)
    grown = differentiable(made)
    if not grown or not differentiable(xs) or not finite(grown):
        return False
    total = sum((kiln.view_as_real(t.resolve_conj()) if t.dtype.is_complex else t).sum() for t in grown)
    slopes = kiln.grad(total, differentiable(xs), create_graph=True, allow_unused=True)
    return any(g is not None and bool((g != 0).any()) for g in slopes) and finite(slopes)


def call_of(name: str, main: str) -> Chosen | None:
    """The first small call of a function that has gradients; the smallest of those that are larger."""
    best: tuple[int, Chosen] | None = None
    for seed in range(40):
        d = Small(generator("table", name, main, seed), main)
        try:
            args, run, _ = TABLE[name](d)
            arrays = [d.tensors[k].detach().numpy() for k in args]
            if all(x.dtype.name != main for x in arrays) or not all(x.size for x in arrays):
                continue
            if len(set(args)) < len(args):
                continue  # kinks often lie where operands are equal

            def function(*xs: Any, run: Any = run) -> list[Any]:
                out = run(*xs)
                return [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, kiln.Tensor)]

            with np.errstate(all="ignore"):
                if not fits(function, arrays):
                    continue
        except (Unfit, kiln.errors.KilnError):
            continue
        size = sum(x.size for x in arrays)
        if best is None or size < best[0]:
            best = (size, (function, arrays))
        if best[0] <= 24 or (seed > 12 and best[0] < 200):
            break
    return None if best is None else best[1]


def check(name: str, main: str) -> None:
    found = call_of(name, main)
    if found is None:
        pytest.skip("has no gradients")
    function, arrays = found

    def restart() -> None:
        kiln.manual_seed(0)

    restart()
    made = differentiable(function(*leaves(arrays)))
    demand_eager_bits(function, arrays, name, main, restart=restart)
    if name not in NO_DIFFERENCES and all(t.dtype.name in ("float64", "complex128") for t in made):
        demand_differences(function, arrays, restart=restart)


def named(names: Sequence[str]) -> list[Any]:
    return [pytest.param(n, marks=[] if n in OFTEN else [pytest.mark.slow]) for n in names]


NAMES = sorted(set(TABLE) - EAGER_ONLY)


@pytest.mark.parametrize("name", named(NAMES))
def test_second_order_of_public_functions(name: str) -> None:
    check(name, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_second_order_of_complex_numbers(name: str) -> None:
    check(name, "complex128")


def test_names() -> None:
    assert not OFTEN - set(NAMES)
    assert not set(NO_DIFFERENCES) - set(NAMES)
