"""First and second derivatives of a function: eagerly, and in three ways through compiled functions, to the bit; and
compiled ones against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import kiln
from kiln.autograd import gradcheck, gradgradcheck
from tests.ops.sampling import direction, generator
from tests.ops.test_declarations import same_bits

Function = Callable[..., Sequence[Any]]
Results = list[Any]


def leaves(arrays: Sequence[Any]) -> list[Any]:
    """Tensors of copies of arrays; inexact ones want gradients."""
    made = [kiln.from_numpy(np.array(x)) for x in arrays]
    return [t.requires_grad_() if t.dtype.is_inexact else t for t in made]


def differentiable(values: Sequence[Any]) -> list[Any]:
    return [t for t in values if isinstance(t, kiln.Tensor) and t.requires_grad]


def along(tensors: Sequence[Any], *seed: object) -> list[Any]:
    """A random gradient for each tensor."""
    rng = generator("along", *seed)
    return [kiln.tensor(direction(rng, t.detach().numpy()), dtype=t.dtype) for t in tensors]


def first_order(function: Function, grads: Sequence[Any]) -> Function:
    """`function`'s results, and their gradients by what wants one, which are on the tape."""

    def run(*xs: Any) -> Results:
        made = differentiable(function(*xs))
        return [*made, *kiln.grad(made, differentiable(xs), grads, create_graph=True, allow_unused=True)]

    return run


def second_order(first: Function, grads: Sequence[Any], weights: Sequence[Any]) -> Function:
    """What `first` gives, and gradients of the gradients, by the operands and by the gradients that came in."""

    def run(*xs: Any) -> Results:
        made = list(first(*xs))
        found = zip(made[len(grads) :], weights, strict=True)
        slopes = [(g, w) for g, w in found if g is not None and g.requires_grad]
        if not slopes:
            return made
        inputs = [*differentiable(xs), *grads]
        return [*made, *kiln.grad([g for g, _ in slopes], inputs, [w for _, w in slopes], allow_unused=True)]

    return run


def bits(values: Results) -> Results:
    return [None if t is None else t.detach().numpy().copy() for t in values]


def same(found: Results, wanted: Results) -> bool:
    return len(found) == len(wanted) and all(
        a is b if a is None or b is None else same_bits(a, b) for a, b in zip(found, wanted, strict=True)
    )


def demand_eager_bits(function: Function, arrays: Sequence[Any], *seed: object, restart: Any = lambda: None) -> None:
    """Both orders equal eager's bit for bit: through a compiled function, through a compiled first gradient, and in one
    program. `restart` is called before each call of the function."""
    xs = leaves(arrays)
    restart()
    made = differentiable(function(*xs))
    grads = [g.requires_grad_() for g in along(made, "grads", *seed)]
    weights = along(differentiable(xs), "weights", *seed)
    first = first_order(function, grads)
    restart()
    wanted = bits(second_order(first, grads, weights)(*xs))
    compiled = kiln.compile(function, fullgraph=True)
    halfway = kiln.compile(first, fullgraph=True)
    ways = {
        "compiled function": second_order(first_order(compiled, grads), grads, weights),
        "compiled gradient": second_order(halfway, grads, weights),
        "one program": kiln.compile(second_order(first, grads, weights), fullgraph=True),
    }
    for name, way in ways.items():
        for call in ("capture", "program"):
            restart()
            assert same(bits(way(*xs)), wanted), f"{name}, {call}"


def demand_differences(function: Function, arrays: Sequence[Any], restart: Any = lambda: None) -> None:
    """`gradcheck` and `gradgradcheck` of the compiled function."""
    compiled = kiln.compile(function, fullgraph=True)

    def run(*xs: Any) -> tuple[Any, ...]:
        restart()
        return tuple(compiled(*xs))

    assert gradcheck(run, leaves(arrays))
    assert gradgradcheck(run, leaves(arrays))
