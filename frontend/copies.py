"""What views show as tensors of their own (`*_copy`, `unsafe_*`), and further small functions that PyTorch has beside
its main ones."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kiln import complexes as K
from kiln import functional as F
from kiln import gathering as G
from kiln import movement as M
from kiln import selection as L
from kiln.base import MODES, Operand, TensorBase
from kiln.errors import InvalidValueError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.promotion import full_like_number, tensor_arg
from kiln.spelling import maker_names, numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "alias_copy", "as_strided_copy", "as_strided_scatter", "detach_copy", "diagonal_copy", "empty_permuted",
    "expand_copy", "fill", "narrow_copy", "nonzero_static", "permute_copy", "range", "rsub", "scalar_tensor",
    "select_copy", "slice_copy", "split_copy", "split_with_sizes_copy", "squeeze_copy", "t_copy", "transpose_copy",
    "unbind_copy", "unfold_copy", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze_copy",
    "view_as_complex_copy", "view_as_real_copy", "view_copy",
]  # fmt: skip


def _copied(view: Callable[..., Any], name: str) -> Any:
    """The function that gives the results of `view` in memory of their own."""

    @functools.wraps(view)
    def run(*args: Any, **kwargs: Any) -> Any:
        made = view(*args, **kwargs)
        return F.clone(made) if isinstance(made, TensorBase) else tuple([F.clone(x) for x in made])

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"`{view.__name__}`, in memory of its own."
    return numpy_names(run)


def _sliced(input: TensorBase, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    x = tensor_arg("slice_copy", input)
    lead = (slice(None),) * F.dim_index("slice_copy", dim, x.ndim)
    return x[(*lead, slice(start, end, step))]


def _itself(input: TensorBase) -> Tensor:
    return tensor_arg("alias_copy", input)


def _detached(input: TensorBase) -> Tensor:
    return tensor_arg("detach_copy", input).detach()


alias_copy = _copied(_itself, "alias_copy")
as_strided_copy = _copied(M.as_strided, "as_strided_copy")
detach_copy = _copied(_detached, "detach_copy")
diagonal_copy = _copied(M.diagonal, "diagonal_copy")
expand_copy = _copied(F.expand, "expand_copy")
narrow_copy = _copied(M.narrow, "narrow_copy")
permute_copy = _copied(F.permute, "permute_copy")
select_copy = _copied(M.select, "select_copy")
slice_copy = _copied(_sliced, "slice_copy")
split_copy = _copied(M.split, "split_copy")
split_with_sizes_copy = _copied(L.split_with_sizes, "split_with_sizes_copy")
squeeze_copy = _copied(F.squeeze, "squeeze_copy")
t_copy = _copied(F.t, "t_copy")
transpose_copy = _copied(F.transpose, "transpose_copy")
unbind_copy = _copied(M.unbind, "unbind_copy")
unfold_copy = _copied(M.unfold, "unfold_copy")
unsqueeze_copy = _copied(F.unsqueeze, "unsqueeze_copy")
view_as_complex_copy = _copied(K.view_as_complex, "view_as_complex_copy")
view_as_real_copy = _copied(K.view_as_real, "view_as_real_copy")
view_copy = _copied(F.view, "view_copy")
unsafe_split = _copied(M.split, "unsafe_split")
unsafe_chunk = _copied(M.chunk, "unsafe_chunk")
unsafe_split_with_sizes = _copied(L.split_with_sizes, "unsafe_split_with_sizes")


def as_strided_scatter(
    input: TensorBase, src: TensorBase, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """A copy of `input` in which `as_strided(size, stride, storage_offset)` shows `src`. GradError where gradients are
    wanted, CaptureError in a capture: places are told by strides of memory."""
    made = F.clone(F.contiguous(tensor_arg("as_strided_scatter", input)))
    M.as_strided(made, size, stride, storage_offset).copy_(src)
    return made


def fill(input: TensorBase, value: Operand) -> Tensor:
    """A tensor like `input`, every element `value` (a number or a 0-d tensor)."""
    return tensor_arg("fill", input).clone().fill_(value)


def rsub(input: TensorBase, other: Operand, *, alpha: float = 1) -> Tensor:
    """other - alpha * input."""
    return F.sub(other, input, alpha=alpha)


@numpy_names
def nonzero_static(input: TensorBase, *, size: int, fill_value: int = -1) -> Tensor:
    """The indices of the first `size` elements that are not zero, as rows in order; rows of `fill_value` where there
    are fewer. The shape does not depend on data, so it can be captured.

    >>> import kiln
    >>> kiln.nonzero_static(kiln.tensor([0, 3, 5]), size=3)
    tensor([[ 1],
            [ 2],
            [-1]])
    """
    from kiln.cumulative import cumsum

    x = tensor_arg("nonzero_static", input)
    if size < 0:
        raise InvalidValueError(f"size is {size}", op="nonzero_static", fix="give a number of 0 or more")
    rows = full_like_number(x, T.int64, fill_value, (size + 1, x.ndim)).clone()
    if x._layout.numel:
        there = F.reshape(F.ne(x, 0), (-1,)).to(T.int64)
        place = F.where(there.to(T.bool_), F.clamp(cumsum(there, 0) - 1, max=size), size)
        index, columns = _places(x), []
        for stride, n in zip(T.contiguous_strides(x._layout.shape), x._layout.shape, strict=True):
            columns.append((index // stride) % n)
        if columns:
            rows = G.index_put(rows, (place,), F.stack(columns, 1))
    return F.clone(rows[:size])


def _places(x: Tensor) -> Tensor:
    from kiln.creation import arange

    return arange(x._layout.numel, device=x.device)


@maker_names
def range(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... up to `end` itself, of the default dtype unless told. `kiln.arange` stops before its
    end, as Python's range does."""
    from kiln.creation import arange

    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) / step < 0:
        raise InvalidValueError(f"no steps of {step} lead from {start} to {end}", op="range", fix="change its sign")
    count = int((end - start) / step) + 1
    index = arange(count, dtype=T.float64, device=device)
    made = (index * float(step) + float(start)).to(MODES.default_dtype if dtype is None else dtype)
    return made.requires_grad_() if requires_grad else made


@maker_names
def scalar_tensor(s: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of the default dtype, unless told."""
    from kiln.creation import full

    kind = MODES.default_dtype if dtype is None else dtype
    return full((), s, dtype=kind, device=device, requires_grad=requires_grad)


@maker_names
def empty_permuted(
    size: Sequence[int],
    physical_layout: Sequence[int],
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros of shape `size` whose dimensions lie in memory in the order `physical_layout`, the outermost first."""
    from kiln.creation import empty

    if sorted(physical_layout) != list(builtins.range(len(size))):
        raise InvalidValueError(
            f"{list(physical_layout)} is no order of {len(size)} dimensions", op="empty_permuted", fix="name each once"
        )
    made = empty([size[d] for d in physical_layout], dtype=dtype, device=device)
    back = [list(physical_layout).index(d) for d in builtins.range(len(size))]
    result = F.permute(made, back).detach()
    return result.requires_grad_() if requires_grad else result
