"""`kiln.utils.checkpoint`: functions whose results need not be kept for the gradient. They are kept: a checkpoint calls
its function, with the same results and gradients. (A compiled function decides itself what to compute again.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kiln.errors import ArgumentError

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Any = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs); the options change nothing."""
    del preserve_rng_state, context_fn, determinism_check, debug, early_stop
    if use_reentrant and kwargs:
        raise ArgumentError(f"got unexpected keyword arguments {sorted(kwargs)}", op="checkpoint")
    return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """The functions (a list, or an `nn.Sequential`) one after the other."""
    del segments, use_reentrant, kwargs
    steps: Sequence[Callable[..., Any]] = list(functions)
    for step in steps:
        input = step(input)
    return input
