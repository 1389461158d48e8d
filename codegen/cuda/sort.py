"""Sorts on a GPU: tiles of rows in shared memory, then merges, each a launch of many blocks per row (`sort_text`).

Rows of up to a tile are done with one launch, those of up to `FEW` elements by a warp each. The first few of a long row
are the first few of the first few of its tiles. A stable order of one set of keys is unique, so the result is the
CPU's. Where the length of rows is symbolic, there are as many launches as the longest would need; those that a row does
not need have no blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda import sort_text as text
from kiln.codegen.cuda.function import emit_function
from kiln.codegen.cuda.linalg_text import Signature, filled
from kiln.codegen.cuda.literals import C_TYPES, literal
from kiln.codegen.cuda.scan import above, ceiling, counted, expression, lines_of
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.layout import Layout
from kiln.codegen.sort import key_of, key_type
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import Expr
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, int32, int64, product

THREADS: Final = 256
FEW: Final = 64
"""Elements of a row that a warp sorts."""
LONGEST: Final = 36
"""Bits of the length of the longest row there may be."""


@dataclass(frozen=True)
class Sizes:
    """How the work is cut: what tests make small."""

    threads: int = THREADS


SIZES = Sizes()


class _Sort:
    """The kernels of one op."""

    def __init__(self, op: Operation, layouts: Mapping[Value, Layout | None]) -> None:
        (x,) = op.operands
        dtype, descending = x.type.dtype, bool(op.attrs["descending"])
        self.n, self.lines = x.type.shape[-1], product(x.type.shape[:-1])
        self.kind = key_type(dtype)
        self.known = self.n if isinstance(self.n, int) else None
        self.threads = SIZES.threads
        while self.known is not None and self.threads > 32 and self.threads // 2 * text.EACH >= self.known:
            self.threads //= 2
        self.tile = self.threads * text.EACH
        long_places = dtype.bits == 64 and (self.known is None or self.known >= 1 << 32)
        self.places = int64 if long_places else int32
        self.place = "unsigned long long" if long_places else "unsigned int"
        self.row = lines_of("in0", x, layouts, len(x.type.shape) - 1)
        self.numbers: dict[str, Dim] = dict(zip(self.row.names, self.row.sizes, strict=True))
        self.numbers |= {"lines": self.lines, "n": self.n}
        self.pointers = [f"const {C_TYPES[dtype]} *in0", "long long *out0"]
        key = L.Var(L.Vec(dtype), "x")
        name = f"k_sort_key_{dtype.name}_{'down' if descending else 'up'}"
        self.words: dict[str, object] = {
            "key": name,
            "at": self.row.at,
            "K": C_TYPES[self.kind],
            "P": self.place,
            "MOST": literal(L.const(self.kind.most, self.kind)),
            "TILE": self.tile,
            "N": self.threads,
        }
        self.helpers = (*emit_function(name, key, key_of(key, descending)), text.MERGE)
        self.workspaces: list[Workspace] = []

    def several(self) -> bool:
        """Whether a row may have more than one tile."""
        return self.known is None or self.known > self.tile

    def blocks(self, tiles: Expr) -> Expr:
        return L.mul(expression(self.lines), tiles)

    def room(self, name: str, size: Expr) -> None:
        """A workspace for keys and their places."""
        self.pointers += [f"{self.words['K']} *keys{name}", f"{self.place} *places{name}"]
        self.workspaces += [Workspace(self.kind, size), Workspace(self.places, size)]

    def text(self, signature: Signature, name: str, body: str, blocks: Expr, **words: object) -> CudaText:
        body = filled(body, **words, **self.words)
        return counted(signature.text(name, body, self.helpers, threads=self.threads, blocks=0), blocks)

    def signature(self) -> Signature:
        return Signature(tuple(self.pointers), tuple(self.numbers) + (("turn",) if self.several() else ()))

    def filled(self, texts: list[CudaText], turns: list[int]) -> Filled:
        return Filled(
            tuple(texts),
            tuple(self.workspaces),
            tuple(self.numbers.values()),
            tuple(turns) if self.several() else (),
        )


def _ranked(sort: _Sort, few: Dim) -> Filled:
    """The first `few` of short rows."""
    sort.numbers["few"] = few
    warps = SIZES.threads // 32
    sort.threads = sort.words["N"] = SIZES.threads
    blocks = ceiling(expression(sort.lines), warps)
    turns = -(-(sort.known or 1) // 32)
    return sort.filled([sort.text(sort.signature(), "ranks", text.RANKS, blocks, M=turns)], [])


def argsort(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled:
    """One launch, or one for the tiles and one for every doubling of the runs."""
    sort = _Sort(op, layouts)
    if sort.known is not None and sort.known <= FEW:
        return _ranked(sort, sort.n)
    n, tiles = expression(sort.n), ceiling(expression(sort.n), sort.tile)
    if not sort.several():
        return sort.filled(
            [sort.text(sort.signature(), "sort", text.SORT, sort.blocks(tiles), store=text.TO_RESULT)], []
        )
    now = above(sort.n, sort.tile)
    for name in "01":
        sort.room(name, L.mul(now, sort.blocks(n)))
    signature = sort.signature()
    store = f"if (tiles == 1) {text.TO_RESULT}\n        else {text.TO_RUNS}"
    texts, turns = [sort.text(signature, "sort", text.SORT, sort.blocks(tiles), store=store)], [0]
    longest = sort.known if sort.known is not None else 1 << LONGEST
    while sort.tile << (len(texts) - 1) < longest:
        turn = len(texts) - 1
        blocks = L.mul(above(sort.n, sort.tile << turn), sort.blocks(tiles))
        texts.append(sort.text(signature, "merge", text.MERGE_RUNS, blocks))
        turns.append(turn)
    return sort.filled(texts, turns)


def topk(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled:
    """One launch, or one for every time that tiles are left."""
    sort, k = _Sort(op, layouts), op.attrs["k"]
    assert isinstance(k, int)
    if sort.known is not None and sort.known <= FEW:
        return _ranked(sort, k)
    sort.numbers["few"] = k
    tiles = _tiles_left(sort, k)
    for name, count in zip("01", tiles[:-1], strict=False):
        sort.room(name, sort.blocks(L.mul(count, L.index(k))))
    signature, texts, active = sort.signature(), list[CudaText](), expression(1)
    for turn, count in enumerate(tiles):
        bring, place, to = "@key@(in0[@at@ + (base + q) * in0_step])", "from", str(turn % 2)
        if turn:
            source = str((turn - 1) % 2)
            bring, place = f"keys{source}[line * m + base + q]", f"(from < m ? places{source}[line * m + from] : 0)"
        store = f"if (tiles == 1) out0[line * few + q] = (long long){place};"
        if turn < len(tiles) - 1:
            keep = f"keys{to}[at * few + q] = keys[k_sort_at(q)], places{to}[at * few + q] = (@P@){place};"
            store += f"\n        else {keep}"
        blocks = L.mul(active, sort.blocks(count))
        start = text.NARROWED if sort.several() else text.WHOLE
        texts.append(sort.text(signature, "first", text.FIRST, blocks, start=start, bring=bring, store=store))
        active = L.apply("min", L.apply("div", count, L.index(2)), L.index(1))
    return sort.filled(texts, list(range(len(texts))))


def _tiles_left(sort: _Sort, k: int) -> list[Expr]:
    """How many tiles a row has, and after each time, until there is one of the longest row."""
    tiles = ceiling(expression(sort.n), sort.tile)
    found, longest = [tiles], -(-(sort.known or 1 << LONGEST) // sort.tile)
    while longest > 1:
        tiles = ceiling(L.mul(tiles, L.index(k)), sort.tile)
        longest = -(-longest * k // sort.tile)
        found.append(tiles)
    return found


TEMPLATES: Final[dict[str, Template]] = {"argsort": argsort, "topk": topk}
