"""Fourier transforms on a GPU: along one dimension after the other, passes over lines in shared memory (`fft_text`).

Lengths whose prime factors are 2, 3, 5 and 7 are transformed as they are: what fits into shared memory in one pass,
else in several, through workspaces. Other lengths are a convolution (Bluestein, 1970) of a length that has those
factors alone: with c(k) = exp(-pi i k k / n), the transform is c times the convolution of c times the numbers with
conj(c). Roots of unity and c are tables, made here in extended precision. What is added to what depends on the length
alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from kiln.codegen.cuda.fft_text import Array, Axis, Load, Pass, Save, fits, pass_text, roots
from kiln.codegen.cuda.linalg_text import Signature, pointer
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.layout import Layout, place
from kiln.ir import loops as L
from kiln.ir.gpu_program import Workspace
from kiln.ir.graph import Constant, Operation, Value
from kiln.ir.ops.base import ints_attr
from kiln.ir.program import CheckSite
from kiln.ir.types import contiguous_strides

LONGEST: Final = 1024
"""The longest line of a transform that takes several passes: so that a block has some lines that are neighbours."""
PRIMES: Final = (2, 3, 5, 7)


def factors(n: int) -> list[int]:
    """The prime factors of n, the largest first; [] if it has others than `PRIMES`."""
    found = []
    for p in PRIMES[::-1]:
        while n % p == 0:
            n //= p
            found.append(p)
    return found if n == 1 else []


def lines_of(n: int, nbytes: int) -> tuple[int, ...]:
    """The lengths of the lines of the passes that transform n numbers of `nbytes`; () if n has other prime factors."""
    if n == 1:
        return (1,)
    primes = factors(n)
    if not primes or fits(n, nbytes):
        return (n,) if primes else ()
    for count in itertools.count(2):
        parts = [1] * count
        for p in primes:
            k = parts.index(min(parts))
            parts[k] *= p
        if max(parts) <= LONGEST:
            return tuple(parts)
    raise AssertionError


@functools.cache
def convolved(n: int) -> int:
    """The length of the convolution for n numbers: at least 2 n - 1, with few other factors than two."""
    return min(odd << max(0, math.ceil(math.log2((2 * n - 1) / odd))) for odd in (1, 3, 5, 9, 15))


@functools.cache
def chirp(n: int) -> Array:
    """exp(-pi i k k / n)."""
    k = np.arange(n, dtype=np.int64)
    return roots(2 * n, k * k % (2 * n))


@functools.cache
def filter_of(n: int) -> Array:
    """The transform of conj(`chirp`) around 0, over its length."""
    m, c = convolved(n), np.conj(chirp(n)).astype(np.complex128)
    around = np.zeros(m, np.complex128)
    around[:n], around[m - n + 1 :] = c, c[:0:-1]
    return np.fft.fft(around) / m


# -------------------------------------------------------------------------------------------- places


@dataclass(frozen=True)
class Place:
    """Numbers of all transforms: a parameter, and the strides of every dimension."""

    name: str
    strides: tuple[int, ...]


class _Plan:
    """The passes of one op, the tables and the workspaces that they need."""

    def __init__(self, op: Operation, layouts: Mapping[Value, Layout | None]) -> None:
        (x,), (y,) = op.operands, op.results
        self.kind, self.x, self.y = op.op.name, x.type, y.type
        self.dims = ints_attr(op.attrs, "dims")
        self.inverse = self.kind == "irfft" or bool(op.attrs.get("inverse", False))
        paired = x.type.dtype.paired if self.kind == "rfft" else x.type.dtype
        self.dtype, self.real, self.nbytes = paired, "float" if paired.itemsize == 8 else "double", paired.itemsize
        self.lengths = [(x if self.kind != "irfft" else y).type.static_shape()[d] for d in self.dims]
        self.tables: dict[str, Array] = {}
        self.rooms: list[int] = []
        self.passes: list[Pass] = []
        strides = tuple(s for s in place(x, dict(layouts)).strides if isinstance(s, int))
        self._along_dims(Place("x", strides), str(op.attrs["norm"]))

    def _along_dims(self, here: Place, norm: str) -> None:
        total = math.prod(self.lengths)
        scale = {"one": 1.0, "root": 1 / math.sqrt(total), "all": 1 / total}[norm]
        order = list(range(len(self.dims)))[::-1]
        if self.kind == "irfft":
            order = [*order[1:], order[0]]
        shape = list(self.x.static_shape())
        result = Place("y", contiguous_strides(self.y.static_shape()))
        for k in order:
            last, special = k == order[-1], k == len(self.dims) - 1
            dim, n = self.dims[k], self.lengths[k]
            load, save = Load(of=n, swap=self.inverse), Save(of=n, swap=self.inverse, scale=scale if last else 1.0)
            if special and self.kind == "rfft":
                load, save = replace(load, form="real"), replace(save, form="half")
            elif special and self.kind == "irfft":
                load, save = replace(load, form="half"), replace(save, form="real")
            target = result
            if self.kind == "irfft" and not last:
                target = here if here.name != "x" else self._room(math.prod(shape), contiguous_strides(tuple(shape)))
            self._transform(here, target, shape, dim, n, load, save)
            shape[dim] = n // 2 + 1 if save.form == "half" else n
            here = target

    # ---------------------------------------------------------------------------------------- one dimension

    def _transform(
        self, here: Place, there: Place, shape: Sequence[int], dim: int, n: int, load: Load, save: Save
    ) -> None:
        stack = [d for d in range(len(shape)) if d != dim]
        if radices := lines_of(n, self.nbytes):
            self._chain(here, there, shape, stack, dim, n, radices, load, save)
            return
        m = convolved(n)
        radices = lines_of(m, self.nbytes)
        sizes = [m if d == dim else size for d, size in enumerate(shape)]
        room = self._room(math.prod(sizes), _line_by_line(sizes, dim))
        factor = self._table(f"c{n}", lambda: chirp(n))
        spread = self._table(f"f{n}", lambda: filter_of(n))
        self._chain(
            here, room, sizes, stack, dim, m, radices, replace(load, limit=n, factor=factor), Save(factor=spread)
        )
        back = replace(save, swap=True, factor=factor, again=save.swap, limit=n)
        self._chain(room, there, sizes, stack, dim, m, radices, Load(swap=True), back)

    def _chain(
        self,
        here: Place,
        there: Place,
        shape: Sequence[int],
        stack: Sequence[int],
        dim: int,
        n: int,
        radices: Sequence[int],
        load: Load,
        save: Save,
    ) -> None:
        """The passes of transforms of n numbers."""
        sizes = [n if d == dim else size for d, size in enumerate(shape)]
        done, rooms = 1, self._rooms(sizes, dim, len(radices) - 1)
        for k, radix in enumerate(radices):
            source, target = here if k == 0 else rooms[(k - 1) % 2], there if k == len(radices) - 1 else rooms[k % 2]
            axes = _axes(shape, stack, source.strides, target.strides)
            steps = source.strides[dim], target.strides[dim]
            if done > 1:
                axes.append(Axis(done, steps[0], steps[1], "low"))
            if n > done * radix:
                axes.append(Axis(n // (done * radix), done * steps[0], done * radix * steps[1], "high"))
            by_target = k == len(radices) - 1
            axes.sort(key=lambda a: abs(a.target if by_target else a.source), reverse=True)
            self.passes.append(
                Pass(
                    radix,
                    n,
                    done,
                    self.real,
                    source.name,
                    target.name,
                    tuple(axes),
                    steps,
                    self._table(f"r{radix}", functools.partial(roots, radix)),
                    self._far(done * radix) if done > 1 else None,
                    load if k == 0 else Load(),
                    save if by_target else Save(),
                )
            )
            done *= radix

    def _far(self, order: int) -> tuple[str, str, int]:
        """Tables of doubles, the products of which are the roots of this order."""
        count = 1 << (order.bit_length() // 2)
        low = self._table(f"l{order}", lambda: roots(order, np.arange(count)))
        high = self._table(f"h{order}", lambda: roots(order, np.arange(-(-order // count)) * count))
        return low, high, count

    def _table(self, name: str, make: Callable[[], Array]) -> str:
        if name not in self.tables:
            kind = np.complex128 if name[0] in "lh" else self.dtype.numpy
            self.tables[name] = make().astype(kind)
        return name

    def _rooms(self, shape: Sequence[int], dim: int, count: int) -> list[Place]:
        """Workspaces to go to and fro."""
        return [self._room(math.prod(shape), _line_by_line(shape, dim)) for _ in range(min(2, count))]

    def _room(self, size: int, strides: tuple[int, ...]) -> Place:
        self.rooms.append(size)
        return Place(f"room{len(self.rooms) - 1}", strides)


def _line_by_line(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """Strides with `dim` innermost."""
    order = [*(d for d in range(len(shape)) if d != dim), dim]
    packed = contiguous_strides(tuple(shape[d] for d in order))
    return tuple(packed[order.index(d)] for d in range(len(shape)))


def _axes(shape: Sequence[int], stack: Sequence[int], source: Sequence[int], target: Sequence[int]) -> list[Axis]:
    """The dimensions that are stacked, by their distance in the target, neighbours taken together where they can be."""
    found: list[Axis] = []
    for d in sorted(stack, key=lambda d: -target[d]):
        if shape[d] == 1:
            continue
        a = Axis(shape[d], source[d], target[d])
        if found and (found[-1].source, found[-1].target) == (a.size * a.source, a.size * a.target):
            found[-1] = Axis(found[-1].size * a.size, a.source, a.target)
        else:
            found.append(a)
    return found


# ----------------------------------------------------------------------------------------- templates


def _fill(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled:
    plan = _Plan(op, layouts)
    sizes: dict[str, int] = {}
    for k, p in enumerate(plan.passes):
        sizes |= p.sizes(str(k))
    wide = plan.dtype
    pointers = [pointer(plan.x.dtype, "x", True), pointer(plan.y.dtype, "y")]
    pointers += [pointer(wide, f"room{k}") for k in range(len(plan.rooms))]
    for name in plan.tables:
        pointers.append(f"const {'double2' if name[0] in 'lh' else plan.real + '2'} *{name}")
    signature = Signature(tuple(pointers), tuple(sizes))
    return Filled(
        tuple(pass_text(p, str(k), signature) for k, p in enumerate(plan.passes)),
        tuple(Workspace(wide, L.index(n)) for n in plan.rooms),
        tuple(sizes.values()),
        constants=tuple(map(Constant, plan.tables.values())),
    )


TEMPLATES: Final[dict[str, Template]] = {"fft": _fill, "rfft": _fill, "irfft": _fill}
