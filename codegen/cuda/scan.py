"""Scans on a GPU: short lines are chains, long ones tiles that are scanned side by side (`scan_text`).

A line of up to `SHORT` elements is one chain, as on a CPU. A longer one is cut into tiles: the states of the tiles,
then of all tiles up to each one, then the results, with what comes before. Lines of few tiles that lie along the last
dimension are one block's, with the same order in one launch. So the order of a float's sums depends on its dtype and
the length of its line alone; integers and places of extremes have no order to depend on.

A recurrence of floats (`recur`) is made of tiles only where its factors are at most 1 and its terms not large: then
nothing overflows or cancels that does not in the chain. The first launches look at them; other lines are chains.

Where the length is symbolic, all launches are there, and those of the other kind have no blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.cuda import scan_text as text
from kiln.codegen.cuda.linalg_text import Signature
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.layout import Layout, place
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import INDEX, Expr, Var
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, int32, product

SHORT: Final = 1024
"""Elements of a line that is one chain."""
THREADS: Final = 256
TILES: Final = 4
"""Of a line that one block walks along."""
ROOM: Final = 32768
"""Bytes of shared memory for the elements of several chains."""


@dataclass(frozen=True)
class Sizes:
    """How the work is cut: what tests make small."""

    short: int = SHORT
    threads: int = THREADS
    tiles: int = TILES


SIZES = Sizes()


def expression(d: Dim) -> Expr:
    """A size over the program's."""
    return L.index(d) if isinstance(d, int) else Var(INDEX, d.name)


def above(n: Dim, least: int) -> Expr:
    """1 if a size is more than this, else 0."""
    return L.apply("min", L.apply("div", expression(n), L.index(least + 1)), L.index(1))


def ceiling(e: Expr, by: int) -> Expr:
    """A quotient, rounded up."""
    return L.apply("div", L.add(e, L.index(by - 1)), L.index(by))


def counted(text: CudaText, blocks: Expr) -> CudaText:
    """A kernel with so many blocks."""
    return replace(text, blocks=blocks)


@dataclass(frozen=True, slots=True)
class Lines:
    """Where the lines of an operand begin, as kernels see it: parameters with their values, and a C expression for the
    offset of number `line`; `step`: the parameter from element to element."""

    names: tuple[str, ...]
    sizes: tuple[Dim, ...]
    at: str
    step: str


def lines_of(name: str, value: Value, layouts: Mapping[Value, Layout | None], dim: int) -> Lines:
    """Of an operand of any strides: one line per place of the other dimensions, row-major."""
    strides = place(value, layouts).strides
    parts: list[tuple[Dim, Dim]] = []  # sizes and strides, neighbours taken together where they are one
    for d, (n, s) in enumerate(zip(value.type.shape, strides, strict=True)):
        if d == dim or n == 1:
            continue
        if parts and parts[-1][1] == product((n, s)):
            parts[-1] = (product((parts[-1][0], n)), s)
        else:
            parts.append((n, s))
    names, sizes, terms, rest = [f"{name}_step"], [strides[dim]], [], "line"
    for k in reversed(range(len(parts))):
        names.append(f"{name}_s{k}")
        sizes.append(parts[k][1])
        if k == 0:
            terms.append(f"{rest} * {name}_s0")
            break
        names.append(f"{name}_d{k}")
        sizes.append(parts[k][0])
        terms.append(f"{rest} % {name}_d{k} * {name}_s{k}")
        rest = f"{rest} / {name}_d{k}"
    return Lines(tuple(names), tuple(sizes), " + ".join(terms) or "0", names[0])


class _Scan:
    """The kernels of one op."""

    def __init__(self, op: Operation, layouts: Mapping[Value, Layout | None]) -> None:
        self.op, self.cut = op, SIZES
        dim = op.attrs["dim"]
        assert isinstance(dim, int)
        shape, dtype = op.result.type.shape, op.operands[0].type.dtype
        self.n, self.inner = shape[dim], product(shape[dim + 1 :])
        self.lines = product((*shape[:dim], *shape[dim + 1 :]))
        self.state = text.state(op.op.name, dtype)
        self.element, self.out = text.memory_type(dtype), text.memory_type(op.result.type.dtype)
        self.nbytes = max(dtype.itemsize, op.result.type.dtype.itemsize)
        own = op.result.type.dtype.itemsize if self.element != self.out else 0
        self.held = len(op.operands) * dtype.itemsize + own  # bytes of an element in shared memory
        self.each = 8 if self.nbytes == 8 else 16
        self.tile = self.each * self.cut.threads
        self.wild = op.op.name == "recur" and dtype.is_floating_point
        self.places = [lines_of(f"in{k}", v, layouts, dim) for k, v in enumerate(op.operands)]
        numbers = [(n, s) for p in self.places for n, s in zip(p.names, p.sizes, strict=True)]
        numbers += [("lines", self.lines), ("n", self.n), ("inner", self.inner)]
        numbers.append(("reverse", int(bool(op.attrs.get("reverse", False)))))
        self.numbers = dict(numbers)
        self.rows = self.inner == 1
        self.limit = max(self.cut.tiles * self.tile, self.cut.short) if self.rows and not self.wild else self.cut.short
        self.workspaces: list[Workspace] = []
        self.texts: list[CudaText] = []

    def filled(self) -> Filled:
        """All launches: of lines of some length those that such need."""
        known = self.n if isinstance(self.n, int) else None
        if many := known is None or known > self.limit:
            self._rooms()
        signature = self._signature(many)
        if known is None or known <= self.cut.short:
            self._short(signature)
        if self.limit > self.cut.short and (known is None or self.cut.short < known <= self.limit):
            self._walk(signature)
        if many:
            self._long(signature)
        return Filled(tuple(self.texts), tuple(self.workspaces), tuple(self.numbers.values()))

    def _rooms(self) -> None:
        """Workspaces: the states of all tiles, and which lines are chains after all."""
        tiles = L.mul(expression(self.lines), ceiling(expression(self.n), self.tile))
        size = L.mul(above(self.n, self.limit), tiles)
        self.workspaces += [Workspace(dtype, size) for _, dtype in self.state.members]
        if self.wild:
            self.workspaces.append(Workspace(int32, expression(self.lines)))

    def _signature(self, many: bool) -> Signature:
        pointers = [f"const {self.element} *in{k}" for k in range(len(self.places))] + [f"{self.out} *out0"]
        if many:
            pointers += [f"{kind} *kept{k}" for k, (kind, _) in enumerate(self.state.members)]
            pointers += ["int *wild"] if self.wild else []
        return Signature(tuple(pointers), tuple(self.numbers))

    def _add(self, signature: Signature, name: str, body: str, words: Mapping[str, object], blocks: Expr) -> None:
        two = len(self.places) == 2
        every = {
            "skip": "",
            "leave": "",
            "look": "",
            **words,
            "second": ("room1" if two else "room0") if "rooms" in words else ("x1" if two else "x0"),
            "S": self.state.name,
            "O": self.out,
            "E": self.each,
            "N": self.cut.threads,
            "W": self.cut.threads // 32,
            "TILE": self.tile,
            "kept": ", ".join(f"kept{k}" for k in range(len(self.state.members))),
        }
        body = text.filled(body, [(k, str(v)) for k, v in every.items()])
        helpers = (*text.HELP, *self.state.text)
        made = signature.text(name, body, helpers, threads=self.cut.threads, blocks=0)
        self.texts.append(counted(made, blocks))

    def _shared(self, count: int, made: bool = True) -> str:
        """Shared memory for so many elements of every operand, and `made`, of the result, which may be the same."""
        rooms = [f"__shared__ {self.element} room{k}[{count}];" for k in range(len(self.places))]
        if made and self.element != self.out:
            rooms.append(f"__shared__ {self.out} made[{count}];")
        elif made:
            rooms.append(f"{self.out} *const made = room0;")
        return "\n".join(rooms)

    # --------------------------------------------------------------------------------------- short lines

    def _short(self, signature: Signature) -> None:
        """One chain per line."""
        now = L.sub(L.index(1), above(self.n, self.cut.short))
        now = L.mul(now, L.apply("min", expression(self.n), L.index(1)))
        if self.rows:
            piece = self.cut.short
            while isinstance(self.n, int) and piece >= 2 * max(self.n, 16):
                piece //= 2
            together = max(1, min(self.cut.threads, ROOM // self.held // piece))
            self._chains(signature, now, piece, together, {})
            return
        words = {
            "ahead": " ".join(f"{self.element} x{k}[8];" for k in range(len(self.places))),
            "few": " ".join(f"x{k}[k] = in{k}[{p.at} + m * {p.step}];" for k, p in enumerate(self.places)),
        }
        blocks = ceiling(expression(self.lines), self.cut.threads)
        self._add(signature, "chains", text.CHAINS_ACROSS, words, L.mul(now, blocks))

    def _chains(self, signature: Signature, now: Expr, piece: int, together: int, words: Mapping[str, object]) -> None:
        """Some lines brought to shared memory together."""
        fetch = [f"room{k}[at] = in{k}[{p.at} + (low + p) * {p.step}];" for k, p in enumerate(self.places)]
        words = {
            **words,
            "rooms": self._shared(together * (piece + 1)),
            "fetch": " ".join(fetch),
            "G": together,
            "P": piece,
        }
        self._add(signature, "chains", text.CHAIN, words, L.mul(now, ceiling(expression(self.lines), together)))

    # ---------------------------------------------------------------------------------------- long lines

    def _tiles(self) -> dict[str, object]:
        """How elements of tiles are read."""
        if not self.rows:
            here = [f"in{k}[{p.at} + m * {p.step}]" for k, p in enumerate(self.places)]
            return {"first_here": here[0], "second_here": here[-1]}
        bring = [
            f"k_bring<@E@, @N@>(room{k}, in{k} + ({p.at}), {p.step}, low, count, reverse);"
            for k, p in enumerate(self.places)
        ]
        return {"bring": " ".join(bring)}

    def _room(self, made: bool = True) -> dict[str, object]:
        return {"rooms": self._shared((self.each + 1) * self.cut.threads, made)} if self.rows else {}

    def _walk(self, signature: Signature) -> None:
        """A block per line."""
        now = L.sub(above(self.n, self.cut.short), above(self.n, self.limit))
        words = {**self._tiles(), **self._room()}
        self._add(signature, "walk", text.WALK, words, L.mul(now, expression(self.lines)))

    def _long(self, signature: Signature) -> None:
        """Three launches; of recurrences of floats one more before and one after."""
        now, lines = above(self.n, self.limit), expression(self.lines)
        blocks = lines if self.rows else ceiling(lines, self.cut.threads // 32)
        blocks = L.mul(now, L.mul(blocks, ceiling(expression(self.n), self.tile)))
        look, leave, skip = "", "", ""
        if self.wild:
            self._add(signature, "start", text.START, {}, L.mul(now, ceiling(lines, self.cut.threads)))
            look = text.LOOK.replace("@place@", "(base + thread * @E@ + k)" if self.rows else "p")
            leave, skip = "if (wild[line]) continue;", " && !wild[line]"
        sums, apply = (text.SUMS, text.APPLY) if self.rows else (text.SUMS_ACROSS, text.APPLY_ACROSS)
        self._add(signature, "sums", sums, {**self._tiles(), **self._room(False), "look": look}, blocks)
        self._add(signature, "carries", text.CARRIES, {}, L.mul(now, lines))
        words = {**self._tiles(), **self._room(), "leave": leave, "skip": skip}
        self._add(signature, "apply", apply, words, blocks)
        if self.wild:
            words = {"leave": "if (!wild[first]) continue;", "skip": ""}
            self._chains(signature, now, self.cut.short, 1, words)


def _fill(op: Operation, layouts: Mapping[Value, Layout | None], sites: Sequence[CheckSite]) -> Filled:
    return _Scan(op, layouts).filled()


TEMPLATES: Final[dict[str, Template]] = {"cumsum": _fill, "recur": _fill, "cumargmax": _fill}
