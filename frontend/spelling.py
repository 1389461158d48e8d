"""How else a call may be spelt: NumPy's names of arguments, and `out=`.

torch takes `axis` for `dim`, `keepdims` for `keepdim`, and `out=` in nearly every function; `np.sum(tensor)`,
`np.std(tensor)` and their like call the tensor's own method with NumPy's names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from kiln.base import TensorBase
from kiln.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from kiln.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_NUMPY = {"axis": "dim", "keepdims": "keepdim", "ddof": "correction"}


def numpy_names(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which then also takes `axis`, `keepdims` and `out`.

    `out=` gets the result (of the same shape; a dtype that it can be cast to) and is returned.

    >>> import numpy as np, kiln
    >>> x = kiln.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.sum(axis=0), np.sum(x), kiln.sum(x, 1, out=kiln.empty(2))
    (tensor([4., 6.]), tensor(10.), tensor([3., 7.]))
    """
    name = getattr(function, "__name__", "function")

    @functools.wraps(function)
    def spelt(*args: Any, **kwargs: Any) -> Any:
        if not kwargs or kwargs.keys().isdisjoint(_SPELLINGS):
            return plain(*args, **kwargs)
        for theirs, ours in _NUMPY.items():
            if theirs in kwargs:
                if ours in kwargs:
                    raise ArgumentError(f"{theirs} and {ours} are the same argument", op=name, fix=f"pass {ours} only")
                kwargs[ours] = kwargs.pop(theirs)
        out = kwargs.pop("out", None)
        if kwargs.get("dtype", name) is None:
            del kwargs["dtype"]
        result = plain(*args, **kwargs)
        return result if out is None else written(name, out, result)

    plain = cast("Callable[..., Any]", function)
    return cast("Callable[P, R]", spelt)


_SPELLINGS = frozenset({*_NUMPY, "out"})


_HEEDLESS = ("layout", "memory_format")
"""What PyTorch's functions that make tensors take too, and what changes nothing here."""
_SIZED = ("empty", "ones", "rand", "randn", "zeros")
_MAKING = frozenset({*_HEEDLESS, "out", "pin_memory", "size"})


def maker_names(function: Callable[P, R]) -> Callable[P, R]:
    """A function that makes tensors, which then also takes `out`, sizes as `size=`, `pin_memory`, and `layout` and
    `memory_format`, which change nothing."""
    name = getattr(function, "__name__", "function")
    plain = cast("Callable[..., Any]", function)

    @functools.wraps(function)
    def spelt(*args: Any, **kwargs: Any) -> Any:
        if not kwargs or kwargs.keys().isdisjoint(_MAKING):
            return plain(*args, **kwargs)
        for ignored in _HEEDLESS:
            kwargs.pop(ignored, None)
        if "size" in kwargs and name in _SIZED:
            if args:
                raise ArgumentError("sizes are given twice", op=name, fix="pass them once")
            args = (kwargs.pop("size"),)
        out, pinned = kwargs.pop("out", None), kwargs.pop("pin_memory", False)
        result = plain(*args, **kwargs)
        if out is None:
            return _pinned(result) if pinned else result
        return written(name, out, result)

    return cast("Callable[P, R]", spelt)


def _pinned(made: Tensor) -> Tensor:
    """In pinned memory."""
    result = made.detach().pin_memory()
    return result.requires_grad_() if made.requires_grad else result


def written(name: str, out: object, result: Tensor) -> Tensor:
    """`result` in the memory of `out`, which is returned."""
    if not isinstance(out, TensorBase) or not isinstance(result, TensorBase):
        raise ArgumentError("out= takes one tensor, for one result", op=name, fix="assign the result instead")
    target = cast("Tensor", out)
    if target.shape != result.shape:
        raise ShapeError(
            f"out has shape {list(target.shape)}, the result {list(result.shape)}",
            op=name,
            operands=[target.ttype],
            fix="pass a tensor of the result's shape",
        )
    return target.copy_(result)
