"""The steps `Product` of a CUDA program: what is found once per tuple of sizes, and what a run does.

The library computes with operands where they lie if their rows (or columns, of turned ones) are without gaps inside,
begin at addresses that are as aligned as those of matrices without any gaps, and all matrices lie one pace apart.
Otherwise it is given a copy. So what it computes, and in which order, never depends on where operands lie.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from kiln.ir.gpu_program import MOST_BLOCKS, Launch, Matrix, Memory, Product, number
from kiln.runtime import cuda_blas
from kiln.runtime.cuda_blas import ALIGNMENT, Blas, Key, Plan, Refused
from kiln.runtime.cuda_driver import WITHIN, local
from kiln.runtime.cuda_kernels import functions

if TYPE_CHECKING:
    from kiln.runtime.cuda_program import CudaExecutable, Frame

_ALIGN: Final = 256
_OP: Final = "matmul"


@dataclass(slots=True)
class _Operand:
    """An operand of a product of known sizes: the layout that the library is told for it where it lies (None: it can't
    be used there; 0 of what is added) and for a copy, which takes `nbytes` and is made by a kernel of `blocks` that
    takes `numbers`. `keep`: whose addresses these are."""

    there: int | None
    copied: int
    nbytes: int
    blocks: int
    numbers: tuple[int, ...]
    keep: Any = None


@dataclass(slots=True)
class Sized:
    """A product of known sizes. `plan` is None where nothing is multiplied: then the result is `rows` rows of nothing
    but what is added. Of the memory at hand, copies of operands begin at `places`, the library's part at `scratch`;
    `nbytes` in all."""

    plan: Plan | None
    blas: Blas | None
    operands: tuple[_Operand, ...]
    places: tuple[int, ...]
    scratch: int
    nbytes: int
    result: int
    rows: int


def sized(product: Product, sizes: Mapping[str, int], blas: Callable[[], Blas]) -> Sized:
    """What follows from the sizes of a run. CudaError of kind "library"."""
    batch = [number(d, sizes) for d in product.batch]
    m, n, k = (number(d, sizes) for d in (product.m, product.n, product.k))
    result = prod(batch) * m * n * product.out.itemsize
    plan = found = None
    operands: list[_Operand] = []
    if result and k:
        shapes = (*batch, m, k), (*batch, k, n)
        turned = [x.turned and 1 not in shape[-2:] for shape, x in zip(shapes, product.operands, strict=False)]
        key = Key(
            product.dtype.name, product.out.name, prod(batch), m, n, k, (turned[0], turned[1]),
            product.bias is not None, product.tf32,
        )  # fmt: skip
        found = blas()
        plan = found.plan(key)
        operands += _matrices(product, sizes, shapes, plan, found)
    if product.bias is not None and result:
        strides = [number(s, sizes) for s in product.bias.strides]
        lies = _dense(strides, (*batch, n))
        operands.append(_operand(product.bias, 0 if lies else None, 0, prod(batch) * n * product.out.itemsize, sizes))
    places, at = [], 0
    for operand in operands:
        places.append(at)
        at += -(-operand.nbytes // _ALIGN) * _ALIGN if operand.there is None else 0
    nbytes = at + (0 if plan is None else plan.workspace)
    return Sized(plan, found, tuple(operands), tuple(places), at, nbytes, result, prod(batch) * m)


def _matrices(
    product: Product, sizes: Mapping[str, int], shapes: Sequence[tuple[int, ...]], plan: Plan, blas: Blas
) -> list[_Operand]:
    """Both matrices, for a plan."""
    matrices = list(zip((product.left, product.right), shapes, plan.key.turned, strict=True))
    size = product.dtype.itemsize
    spans = [_span([number(s, sizes) for s in x.strides], shape, turned, size) for x, shape, turned in matrices]
    told = [None if span is None else plan.layout(which, *span) for which, span in enumerate(spans)]
    whole = [plan.layout(which) for which in range(2)]
    if any(t is not None and t is not w for t, w in zip(told, whole, strict=True)):
        tried = [w if t is None else t for t, w in zip(told, whole, strict=True)]
        told = told if plan.takes(blas, tried[0], tried[1]) else [None, None]
    made = []
    for (x, shape, _), t, w in zip(matrices, told, whole, strict=True):
        made.append(_operand(x, None if t is None else t.ptr, w.ptr, prod(shape) * size, sizes))
        made[-1].keep = t, w
    return made


def _operand(x: Matrix, there: int | None, copied: int, nbytes: int, sizes: Mapping[str, int]) -> _Operand:
    blocks = min(number(x.dense.blocks, sizes), MOST_BLOCKS)
    numbers = tuple(number(d, sizes) for d in x.dense.args if not isinstance(d, Memory))
    return _Operand(there, copied, nbytes, blocks, numbers)


def _span(strides: Sequence[int], shape: Sequence[int], turned: bool, itemsize: int) -> tuple[int, int] | None:
    """The paces of stored rows and of matrices, in elements; None where operands that lie so have to be copied."""
    inner, outer = (-2, -1) if turned else (-1, -2)
    width = shape[inner]
    if width > 1 and strides[inner] != 1:
        return None
    ld = width if shape[outer] == 1 else strides[outer]
    pace = _pace(strides[:-2], shape[:-2], shape[outer] * width)
    if ld < width or pace is None:
        return None
    # Rows that are better or worse aligned than those of matrices without gaps might be computed in another way.
    rows = _aligned(ld * itemsize) if shape[outer] > 1 else ALIGNMENT
    matrices = _aligned(pace * itemsize)
    whole = [_aligned(width * itemsize) if shape[outer] > 1 else ALIGNMENT, _aligned(shape[outer] * width * itemsize)]
    return (ld, pace) if rows == whole[0] and (matrices == whole[1] or prod(shape[:-2]) == 1) else None


def _dense(strides: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether elements lie row-major without gaps."""
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def _pace(strides: Sequence[int], shape: Sequence[int], dense: int) -> int | None:
    """How far matrices are apart; None if not all equally far."""
    dims = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    if not dims:
        return dense
    count, pace = dims[-1]
    for n, s in reversed(dims[:-1]):
        if s != count * pace:
            return None
        count *= n
    return pace if pace >= 0 else None


def _aligned(nbytes: int) -> int:
    """The power of two, up to ALIGNMENT, that divides it."""
    return min(nbytes & -nbytes or ALIGNMENT, ALIGNMENT)


class Multiply:
    """One product of a loaded program."""

    def __init__(self, executable: CudaExecutable, product: Product, index: int) -> None:
        self.executable = executable
        self.product = product
        self.index = index
        self.sources = [executable.at(x.memory) for x in product.operands]
        self.result = executable.at(product.result)
        self.spare = executable.base["arena", 0]
        self.dense = [0] * len(product.operands)

    def run(self, frame: Frame) -> None:
        """Issue it on the frame's stream. CudaError."""
        place = self.executable.place
        try:
            leased = self._issue(frame, frame.sized.products[self.index])
            if place.session.debug and local.recording is None:
                frame.stream.handle.synchronize()
        except Refused as refusal:
            raise cuda_blas.failure(refusal, place, self._what(), _OP, self.product.loc) from None
        except place.session.errors as error:
            raise place.failure(error, self._what(), _OP, self.product.loc) from None
        del leased  # what comes later on this stream may have it

    def _what(self) -> str:
        return f"product {self.index} of {self.executable.program.name}"

    def _issue(self, frame: Frame, found: Sized) -> list[Any]:
        """Returns memory that must be kept until all is issued."""
        place, stream, out = self.executable.place, frame.stream, self.result(frame)
        leased: list[Any] = []

        def lease(nbytes: int) -> int:
            leased.append(frame.lease(place, nbytes))
            return int(leased[-1].ptr)

        spare = frame.bases[self.spare] + frame.sized.spare
        first = len(self.sources) - len(found.operands)  # sums of nothing have only what is added
        given = []
        for k, operand in enumerate(found.operands):
            at = self.sources[first + k](frame)
            if operand.there is not None and at % ALIGNMENT == 0:
                given.append((at, operand.there))
                continue
            to = spare + found.places[k] if operand.there is None else lease(operand.nbytes)
            self._copy(first + k, operand, at, to, stream.ptr)
            given.append((to, operand.copied))
        bias = given[-1][0] if given and self.product.bias is not None else 0
        if found.plan is None or found.blas is None:
            self._empty(frame, found, out, bias)
            return leased
        to = out if out % ALIGNMENT == 0 else lease(found.result)
        found.blas.multiply(found.plan, given[0], given[1], to, bias, spare + found.scratch, stream.ptr)
        if to != out:
            place.session.copy(out, to, found.result, WITHIN, stream.ptr)
        return leased

    def _empty(self, frame: Frame, found: Sized, out: int, bias: int) -> None:
        """Sums of nothing."""
        session, stream = self.executable.place.session, frame.stream.ptr
        if found.result and not bias:
            session.runtime.memsetAsync(out, 0, found.result, stream)
        elif found.result:
            row = found.result // found.rows
            per = found.rows * row // found.operands[0].nbytes  # rows of each matrix
            for k in range(found.rows):
                session.copy(out + k * row, bias + k // per * row, row, WITHIN, stream)

    def _copy(self, which: int, operand: _Operand, source: int, to: int, stream: int) -> None:
        """An operand as it would be without gaps."""
        launch: Launch = self.product.operands[which].dense
        place = self.executable.place
        if not self.dense[which]:
            program = self.executable.program
            texts = [k for k in program.kernels if k.name == launch.kernel]
            self.dense[which] = functions(place, program.name, texts)[launch.kernel]
        values = (ctypes.c_int64 * (2 + len(operand.numbers)))(source, to, *operand.numbers)
        first = ctypes.addressof(values)
        params = (ctypes.c_void_p * len(values))(*(first + 8 * k for k in range(len(values))))
        place.session.launch(
            self.dense[which], operand.blocks, 1, 1, launch.threads, 1, 1, 0, stream, ctypes.addressof(params), 0
        )
