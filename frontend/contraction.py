"""Sums of products: einsum, tensordot, and the named products of vectors, matrices and batches.

Every contraction becomes one `matmul` (whose order is that of ir/order.py) or, where nothing is summed, one `mul`.
Which one, and in which order operands are taken, follows from the equation alone, never from sizes.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, broadcast_to, cast_to, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "cross", "dot", "einsum", "ger", "inner",
    "kron", "mv", "outer", "tensordot", "vdot",
]  # fmt: skip


def _of_rank(name: str, rank: int, *tensors: TensorBase) -> list[Tensor]:
    """Operands that must have `rank` dimensions and one dtype."""
    each = [tensor_arg(name, x) for x in tensors]
    types = [x.ttype for x in each]
    if any(x.ndim != rank for x in each):
        raise ShapeError(f"expects tensors of {rank} dimension{'s' * (rank != 1)}", op=name, operands=types)
    if any(x.dtype is not each[0].dtype for x in each):
        raise DTypeError("operands have different dtypes", op=name, operands=types, fix="cast one with .to()")
    return each


# --------------------------------------------------------------------------------------- named products


def dot(input: TensorBase, tensor: TensorBase) -> Tensor:
    """The sum of products of two vectors of one size."""
    a, b = _of_rank("dot", 1, input, tensor)
    if a.shape != b.shape:
        raise ShapeError("sizes differ", op="dot", operands=[a.ttype, b.ttype])
    return F.matmul(a, b)


def vdot(input: TensorBase, other: TensorBase) -> Tensor:
    """`dot` of the conjugates of `input` with `other`."""
    a = tensor_arg("vdot", input)
    return dot(apply(OPS["conj"], a) if a.dtype.is_complex else a, other)


def inner(input: TensorBase, other: TensorBase) -> Tensor:
    """The sums of products over the last dimensions; with a 0-d tensor, `mul`."""
    a, b = tensor_arg("inner", input), tensor_arg("inner", other)
    if not a.ndim or not b.ndim:
        return F.mul(a, b)
    return tensordot(a, b, ([-1], [-1]))


def mv(input: TensorBase, vec: TensorBase) -> Tensor:
    """A matrix times a vector."""
    (a,), (v,) = _of_rank("mv", 2, input), _of_rank("mv", 1, vec)
    return F.matmul(a, v)


def bmm(input: TensorBase, mat2: TensorBase) -> Tensor:
    """Products of two batches of matrices [B, N, M] and [B, M, P]."""
    a, b = _of_rank("bmm", 3, input, mat2)
    if a.shape[0] != b.shape[0]:
        raise ShapeError("batch sizes differ", op="bmm", operands=[a.ttype, b.ttype])
    return F.matmul(a, b)


def outer(input: TensorBase, vec2: TensorBase) -> Tensor:
    """All products of elements of two vectors, as a matrix."""
    (a,), (b,) = _of_rank("outer", 1, input), _of_rank("outer", 1, vec2)
    return F.mul(F.unsqueeze(a, 1), F.unsqueeze(b, 0))


def ger(input: TensorBase, vec2: TensorBase) -> Tensor:
    """`outer`."""
    return outer(input, vec2)


def _plus(name: str, input: TensorBase, product: Tensor, beta: float, alpha: float) -> Tensor:
    """beta * input + alpha * product; with beta = 0 the input (even NaN) counts nothing."""
    x = tensor_arg(name, input)
    if x.dtype is not product.dtype:
        raise DTypeError(
            "operands have different dtypes", op=name, operands=[x.ttype, product.ttype], fix="cast one with .to()"
        )
    if not product.dtype.is_inexact and float in (type(beta), type(alpha)):
        raise DTypeError(f"beta and alpha must be integers for {product.dtype}", op=name, operands=[x.ttype])
    scaled = product if alpha == 1 else F.mul(product, alpha)
    x = broadcast_to_or_refuse(name, x, product.shape)
    if beta == 0:
        return scaled
    return F.add(x if beta == 1 else F.mul(x, beta), scaled)


def broadcast_to_or_refuse(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x` stretched to `shape`; ShapeError where it does not fit."""
    pairs = zip(reversed(x.shape), reversed(shape), strict=False)
    if x.ndim > len(shape) or any(n not in (1, m) for n, m in pairs):
        raise ShapeError(f"does not fit a product of shape {list(shape)}", op=name, operands=[x.ttype])
    return broadcast_to(x, shape)


def addmm(input: TensorBase, mat1: TensorBase, mat2: TensorBase, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return _plus("addmm", input, F.mm(mat1, mat2), beta, alpha)


def addmv(input: TensorBase, mat: TensorBase, vec: TensorBase, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return _plus("addmv", input, mv(mat, vec), beta, alpha)


def addr(input: TensorBase, vec1: TensorBase, vec2: TensorBase, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _plus("addr", input, outer(vec1, vec2), beta, alpha)


def baddbmm(input: TensorBase, batch1: TensorBase, batch2: TensorBase, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2)."""
    return _plus("baddbmm", input, bmm(batch1, batch2), beta, alpha)


def addbmm(input: TensorBase, batch1: TensorBase, batch2: TensorBase, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * sum(bmm(batch1, batch2)) over the batch."""
    products = bmm(batch1, batch2)
    total = cast_to(F.sum(products, 0), products.dtype)  # a sum of narrow integers is an int64
    return _plus("addbmm", input, total, beta, alpha)


def chain_matmul(*matrices: TensorBase) -> Tensor:
    """The product of matrices, from left to right."""
    if not matrices:
        raise InvalidValueError("needs at least one matrix", op="chain_matmul")
    result, *rest = _of_rank("chain_matmul", 2, *matrices)
    for m in rest:
        result = F.matmul(result, m)
    return result


def cross(input: TensorBase, other: TensorBase, dim: int | None = None) -> Tensor:
    """Cross products of vectors of three elements along `dim` (default: the first dimension of size 3); broadcast."""
    a, b = M.broadcast_tensors(tensor_arg("cross", input), tensor_arg("cross", other))
    if dim is None:
        sized = [d for d, n in enumerate(a.shape) if n == 3]
        if not sized:
            raise ShapeError("no dimension has size 3", op="cross", operands=[a.ttype, b.ttype])
        dim = sized[0]
    d = F.dim_index("cross", dim, a.ndim)
    if not a.ndim or a.shape[d] != 3:
        raise ShapeError(f"dimension {dim} must have size 3", op="cross", operands=[a.ttype, b.ttype])
    a1, a2 = M.roll(a, -1, d), M.roll(a, -2, d)
    b1, b2 = M.roll(b, -1, d), M.roll(b, -2, d)
    return F.sub(F.mul(a1, b2), F.mul(a2, b1))


def kron(input: TensorBase, other: TensorBase) -> Tensor:
    """The Kronecker product: each element of input times the whole other, laid out as blocks."""
    a, b = tensor_arg("kron", input), tensor_arg("kron", other)
    rank = max(a.ndim, b.ndim)
    n, m = ((*[1] * (rank - x.ndim), *x.shape) for x in (a, b))
    wide = F.reshape(a, tuple([s for k in n for s in (k, 1)]))
    near = F.reshape(b, tuple([s for k in m for s in (1, k)]))
    return F.reshape(F.mul(wide, near), tuple([x * y for x, y in zip(n, m, strict=True)]))


def tensordot(a: TensorBase, b: TensorBase, dims: Any = 2) -> Tensor:
    """Sums of products over the last `dims` dimensions of a and the first ones of b, or over two lists of
    dimensions."""
    x, y = tensor_arg("tensordot", a), tensor_arg("tensordot", b)
    if isinstance(dims, TensorBase):
        dims = dims.tolist()  # type: ignore[attr-defined]
    if isinstance(dims, int):
        if not 0 <= dims <= min(x.ndim, y.ndim):
            raise InvalidValueError(f"dims must be from 0 to {min(x.ndim, y.ndim)}, got {dims}", op="tensordot")
        left, right = list(range(x.ndim - dims, x.ndim)), list(range(dims))
    else:
        pair = [[v] if isinstance(v, int) else list(v) for v in dims]
        left, right = ([F.dim_index("tensordot", d, t.ndim) for d in v] for v, t in zip(pair, (x, y), strict=True))
    if len(left) != len(right) or len({*left}) != len(left) or len({*right}) != len(right):
        raise InvalidValueError(f"dims {dims} do not pair up", op="tensordot")
    if any(x.shape[i] != y.shape[j] for i, j in zip(left, right, strict=True)):
        raise ShapeError("sizes of paired dimensions differ", op="tensordot", operands=[x.ttype, y.ttype])
    kept = [[d for d in range(t.ndim) if d not in v] for t, v in ((x, left), (y, right))]
    size = math.prod([x.shape[d] for d in left])
    rows, columns = ([t.shape[d] for d in k] for t, k in ((x, kept[0]), (y, kept[1])))
    m = F.reshape(F.permute(x, (*kept[0], *left)), (math.prod(rows), size))
    n = F.reshape(F.permute(y, (*right, *kept[1])), (size, math.prod(columns)))
    return F.reshape(F.matmul(m, n), (*rows, *columns))


# ---------------------------------------------------------------------------------------------- einsum


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products by Einstein's convention: einsum("bij,bjk->bik", a, b). Letters name dimensions; those not
    behind the arrow (default: those that appear twice) are summed; an ellipsis stands for dimensions that broadcast; a
    letter twice in one operand takes its diagonal. Operands are taken from left to right, whatever their sizes. Also
    einsum(a, [0, 1], b, [1, 2], [0, 2]): operands, each with the numbers of its dimensions (below 52; ... is an
    ellipsis), and those of the result at the end (which may be left out)."""
    if not isinstance(equation, str):
        equation, operands = _spelled([equation, *operands])
    given = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    tensors = [tensor_arg("einsum", x) for x in given]
    terms, result = _parse(equation, tensors)
    sizes = _sizes(equation, terms, tensors)
    each = [_unique(x, term) for x, term in zip(tensors, terms, strict=True)]
    (left, labels), *rest = each
    for k, (right, term) in enumerate(rest):
        later = {*result, *[c for _, t in rest[k + 1 :] for c in t]}
        left, labels = _pair(left, labels, right, term, later, sizes)
    summed = tuple([d for d, c in enumerate(labels) if c not in result])
    if summed:
        left = F.sum(left, summed, dtype=left.dtype)
        labels = [c for c in labels if c in result]
    return F.permute(left, tuple([labels.index(c) for c in result]))


def _spelled(given: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation and the operands of the form with lists of numbers."""

    def term(numbers: Any) -> str:
        if not isinstance(numbers, (list, tuple)):
            raise ArgumentError(f"expected a list of dimensions, got {type(numbers).__name__}", op="einsum")
        for n in numbers:
            if n is not Ellipsis and (isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 52):
                raise InvalidValueError(f"dimensions are numbers from 0 to 51, got {n!r}", op="einsum")
        return "".join("..." if n is Ellipsis else string.ascii_letters[n] for n in numbers)

    pairs = len(given) // 2
    left = ",".join(term(given[2 * k + 1]) for k in range(pairs))
    right = "->" + term(given[-1]) if len(given) % 2 else ""
    return left + right, tuple(given[: 2 * pairs : 2])


def _parse(equation: str, tensors: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand and of the result. The dimensions of an ellipsis are labelled "0", "1", ... from the
    last one."""

    def refuse(why: str) -> InvalidValueError:
        return InvalidValueError(f"{equation!r}: {why}", op="einsum", operands=[x.ttype for x in tensors])

    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise refuse(f"{len(parts)} terms for {len(tensors)} operands")
    terms, dots = [], 0
    for part, x in zip(parts, tensors, strict=True):
        head, ellipsis, tail = part.partition("...")
        if not all(c.isascii() and c.isalpha() for c in head + tail):
            raise refuse(f"{part!r} is no list of letters")
        hidden = x.ndim - len(head) - len(tail)
        if hidden < 0 or (hidden and not ellipsis):
            raise refuse(f"{part!r} does not name the {x.ndim} dimensions of its operand")
        dots = max(dots, hidden)
        terms.append([*head, *[str(k) for k in reversed(range(hidden))], *tail])
    everything = [c for term in terms for c in term]
    shared = [str(k) for k in reversed(range(dots))]
    if not arrow:
        once = sorted({c for c in everything if c.isalpha() and everything.count(c) == 1})
        return terms, [*shared, *once]
    head, ellipsis, tail = right.partition("...")
    result = [*head, *(shared if ellipsis else []), *tail]
    if len(set(result)) != len(result) or any(c not in everything for c in head + tail):
        raise refuse(f"{right!r} must name each of its letters once, and only letters of the operands")
    return terms, result


def _sizes(equation: str, terms: Sequence[Sequence[str]], tensors: Sequence[Tensor]) -> dict[str, int]:
    """The size of each label; 1 gives way."""
    sizes: dict[str, int] = {}
    for term, x in zip(terms, tensors, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            known = sizes.setdefault(c, n)
            if known != n and 1 not in (known, n):
                raise ShapeError(
                    f"{equation!r}: {c!r} is both {known} and {n}", op="einsum", operands=[t.ttype for t in tensors]
                )
            sizes[c] = n if known == 1 else known
    return sizes


def _unique(x: Tensor, term: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Labels that appear twice in one operand made its diagonal."""
    labels = list(term)
    for c in dict.fromkeys(term):
        while labels.count(c) > 1:
            a = labels.index(c)
            b = labels.index(c, a + 1)
            if x.shape[a] != x.shape[b]:
                raise ShapeError(f"{c!r} names two sizes of one operand", op="einsum", operands=[x.ttype])
            x = M.diagonal(x, 0, a, b)
            labels = [e for d, e in enumerate(labels) if d not in (a, b)] + [c]
    return x, labels


def _pair(
    a: Tensor, left: Sequence[str], b: Tensor, right: Sequence[str], later: set[str], sizes: dict[str, int]
) -> tuple[Tensor, list[str]]:
    """The product of two operands, summed over the labels that nothing later needs."""
    for labels, other in ((left, right), (right, left)):  # what only one operand has is summed before
        alone = tuple([d for d, c in enumerate(labels) if c not in other and c not in later])
        if alone and labels is left:
            a = F.sum(a, alone, dtype=a.dtype)
        elif alone:
            b = F.sum(b, alone, dtype=b.dtype)
    left = [c for c in left if c in right or c in later]
    right = [c for c in right if c in left or c in later]
    both = [c for c in left if c in right]
    batch, inner = [c for c in both if c in later], [c for c in both if c not in later]
    rows, columns = [c for c in left if c not in both], [c for c in right if c not in both]

    def arranged(x: Tensor, labels: Sequence[str], *groups: Sequence[str]) -> Tensor:
        """Dimensions in the order of the groups, shared ones of size 1 stretched."""
        order = [c for g in groups for c in g]
        x = F.permute(x, tuple([labels.index(c) for c in order]))
        return broadcast_to(x, tuple([sizes[c] if c in both else n for c, n in zip(order, x.shape, strict=True)]))

    if not inner:
        ones = (1,) * len(columns), (1,) * len(rows)
        x, y = arranged(a, left, batch, rows), arranged(b, right, batch, columns)
        x = F.reshape(x, (*x.shape, *ones[0]))
        y = F.reshape(y, (*y.shape[: len(batch)], *ones[1], *y.shape[len(batch) :]))
        return F.mul(x, y), [*batch, *rows, *columns]
    x, y = arranged(a, left, batch, rows, inner), arranged(b, right, batch, inner, columns)
    cut = len(batch)
    shape = x.shape[:cut]
    m, n = x.shape[cut : cut + len(rows)], y.shape[cut + len(inner) :]
    k = math.prod([sizes[c] for c in inner])
    x = F.reshape(x, (*shape, math.prod(m), k))
    y = F.reshape(y, (*shape, k, math.prod(n)))
    return F.reshape(F.matmul(x, y), (*shape, *m, *n)), [*batch, *rows, *columns]
