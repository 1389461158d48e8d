"""The text of one pass of a Fourier transform on a GPU: transforms of lines that fit into shared memory.

A pass is the step of Stockham's algorithm (Govindaraju et al., 2008) with a radix that is large itself: of a transform
of `whole` numbers, of which the radices before multiply to `done`, line (high, low) has the numbers sub + r * S, where
sub = high * done + low and S = whole / radix. They are turned by exp(-2 pi i low r / (done * radix)), transformed, and
stored from high * done * radix + low on, `done` apart. Within a block of threads the same happens with small radices,
each thread holding a few butterflies in registers, which go through shared memory from one step to the next.

A transform with a positive exponent is one with a negative exponent of numbers whose parts are exchanged.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kiln.codegen.cuda.linalg_text import Signature
from kiln.codegen.cuda.prelude import HELPERS
from kiln.ir.gpu_program import CudaText

Array = np.ndarray[Any, Any]

THREADS: Final = 256
"""Wanted in a block."""
SHARED: Final = 48 << 10
_PI_REST: Final = np.longdouble(1.2246467991473532e-16)
"""Of pi, what a double lacks."""


# --------------------------------------------------------------------------------------- butterflies


def roots(n: int, numbers: Array | None = None) -> Array:
    """exp(-2 pi i k / n) for these k, all by default, in extended precision: by angles of an eighth turn at most, so
    that what lies on an axis is exact."""
    k = (np.arange(n, dtype=np.int64) if numbers is None else numbers) % n
    quarter, rest = 4 * k // n, 4 * k % n
    far = 2 * rest > n
    angle = np.where(far, n - rest, rest).astype(np.longdouble) / n * (np.longdouble(np.pi) / 2 + _PI_REST / 2)
    a, b = np.cos(angle), np.sin(angle)
    x, y = np.where(far, b, a), np.where(far, a, b)
    made = np.empty(k.shape, np.clongdouble)
    made.real = np.choose(quarter, [x, -y, -x, y])
    made.imag = -np.choose(quarter, [y, x, -y, -x])
    return made


def _odd(p: int) -> str:
    """The butterfly of an odd prime, sums and differences of opposite numbers taken first."""
    half = range(1, p // 2 + 1)
    lines = [f"template <class C> __device__ __forceinline__ void k_fft(C (&v)[{p}])", "{"]
    lines += [f"    const C s{k} = k_fft_add(v[{k}], v[{p - k}]), d{k} = k_fft_sub(v[{k}], v[{p - k}]);" for k in half]
    lines += ["    const C first = v[0];", "    C a, b;"]
    lines += [f"    v[0] = k_fft_add(v[0], s{k});" for k in half]
    for j in half:
        lines.append("    a = first;")
        for k in half:
            turn = roots(p)[j * k % p]
            cosine, sine = float(turn.real), -float(turn.imag)
            lines.append(f"    a = k_fft_fma(s{k}, {cosine!r}, a);")
            start = f"k_fft_times(d{k}, {sine!r})" if k == 1 else f"k_fft_fma(d{k}, {sine!r}, b)"
            lines.append(f"    b = {start};")
        lines.append(f"    v[{j}].x = a.x + b.y, v[{j}].y = a.y - b.x, v[{p - j}].x = a.x - b.y;")
        lines.append(f"    v[{p - j}].y = a.y + b.x;")
    return "\n".join([*lines, "}"])


_WORDS: Final = """\
__device__ __forceinline__ C k_fft_add(C a, C b) { a.x += b.x, a.y += b.y; return a; }
__device__ __forceinline__ C k_fft_sub(C a, C b) { a.x -= b.x, a.y -= b.y; return a; }
__device__ __forceinline__ C k_fft_times(C a, double s) { a.x *= (R)s, a.y *= (R)s; return a; }
__device__ __forceinline__ C k_fft_fma(C a, double s, C c)
{ c.x = fma_(a.x, (R)s, c.x), c.y = fma_(a.y, (R)s, c.y); return c; }
__device__ __forceinline__ C k_fft_mul(C a, C b)
{ C made; made.x = fma_(a.x, b.x, -(a.y * b.y)), made.y = fma_(a.x, b.y, a.y * b.x); return made; }
__device__ __forceinline__ C k_fft_far(C a, double2 low, double2 high)
{
    C turn;
    turn.x = (R)fma(low.x, high.x, -(low.y * high.y)), turn.y = (R)fma(low.x, high.y, low.y * high.x);
    return k_fft_mul(a, turn);
}"""

_EVEN: Final = """\
template <class C> __device__ __forceinline__ void k_fft(C (&)[1]) {}
template <class C> __device__ __forceinline__ void k_fft(C (&v)[2])
{ const C a = v[0]; v[0] = k_fft_add(a, v[1]), v[1] = k_fft_sub(a, v[1]); }
template <class C> __device__ __forceinline__ void k_fft_four(C &p, C &q, C &r, C &s)
{
    const C a = k_fft_add(p, r), b = k_fft_sub(p, r), c = k_fft_add(q, s), d = k_fft_sub(q, s);
    p = k_fft_add(a, c), r = k_fft_sub(a, c);
    q.x = b.x + d.y, q.y = b.y - d.x, s.x = b.x - d.y, s.y = b.y + d.x;
}
template <class C> __device__ __forceinline__ void k_fft(C (&v)[4]) { k_fft_four(v[0], v[1], v[2], v[3]); }
template <class C> __device__ __forceinline__ void k_fft(C (&v)[8])
{
    k_fft_four(v[0], v[2], v[4], v[6]);
    k_fft_four(v[1], v[3], v[5], v[7]);
    C a = v[3], b = v[5], c = v[7];
    a.x = v[3].x + v[3].y, a.y = v[3].y - v[3].x, a = k_fft_times(a, 0.70710678118654752440);
    b.x = v[5].y, b.y = -v[5].x;
    c.x = v[7].y - v[7].x, c.y = -(v[7].x + v[7].y), c = k_fft_times(c, 0.70710678118654752440);
    const C d = v[0], e = v[2], f = v[4], g = v[6], h = v[1];
    v[0] = k_fft_add(d, h), v[4] = k_fft_sub(d, h), v[1] = k_fft_add(e, a), v[5] = k_fft_sub(e, a);
    v[2] = k_fft_add(f, b), v[6] = k_fft_sub(f, b), v[3] = k_fft_add(g, c), v[7] = k_fft_sub(g, c);
}"""


@functools.cache
def _helpers(real: str) -> tuple[str, ...]:
    words = _WORDS.replace("fma_", "fmaf" if real == "float" else "fma")
    words = words.replace("(R)", f"({real})").replace("C ", f"{real}2 ")
    return (words, _EVEN, *(_odd(p) for p in (3, 5, 7)), HELPERS["k_div_i64"], HELPERS["k_mod_i64"])


# -------------------------------------------------------------------------------------------- passes


def radices(n: int) -> tuple[int, ...]:
    """The small radices of a line of n numbers (whose prime factors are 2, 3, 5 and 7), in order."""
    found, twos = [], 0
    while n % 2 == 0:
        n, twos = n // 2, twos + 1
    for p in (7, 5, 3):
        while n % p == 0:
            n //= p
            found.append(p)
    assert n == 1, "other prime factors"
    if twos == 1:
        found.append(2)
    else:
        fours = -twos % 3
        found += [8] * ((twos - 2 * fours) // 3) + [4] * fours
    return tuple(found) or (1,)


def pitch(n: int, nbytes: int) -> int:
    """Numbers of shared memory from line to line, odd, with gaps so that threads that are a power of two apart meet
    other banks."""
    return (n + (n >> _gap(nbytes))) | 1


def _gap(nbytes: int) -> int:
    """Logarithm of the numbers that a row of banks has."""
    return 4 if nbytes == 8 else 3


def fits(n: int, nbytes: int) -> bool:
    """Whether a line goes through shared memory."""
    return pitch(n, nbytes) * nbytes <= SHARED


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of the lines: its size, and the distance of neighbours in source and target."""

    size: int
    source: int
    target: int
    role: str = ""
    """"high" or "low" of the coordinates that are part of the transform."""


@dataclass(frozen=True, slots=True)
class Load:
    """How numbers are read: "complex", "real", or "half" of a spectrum of `of` numbers; those from `limit` on are
    zeros. Then parts are exchanged, then comes a factor from a table."""

    form: str = "complex"
    of: int = 0
    limit: int = 0
    swap: bool = False
    factor: str = ""


@dataclass(frozen=True, slots=True)
class Save:
    """How results are stored: parts exchanged, times a factor from a table, exchanged again, times `scale`; as
    "complex", "real" (their real parts), or "half" (the frequencies up to of / 2); those from `limit` on are not."""

    form: str = "complex"
    of: int = 0
    limit: int = 0
    swap: bool = False
    factor: str = ""
    again: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """One launch: pointers and tables are the names of parameters; `steps`: from number to number of a transform in
    source and target; `table`: of the roots of unity of order `radix`; `far`: two tables, whose products are those of
    order done * radix, and how many the first one has."""

    radix: int
    whole: int
    done: int
    real: str
    source: str
    target: str
    axes: tuple[Axis, ...]  # the slowest first
    steps: tuple[int, int]
    table: str
    far: tuple[str, str, int] | None = None
    load: Load = field(default_factory=Load)
    save: Save = field(default_factory=Save)

    @property
    def lines(self) -> int:
        return math.prod(a.size for a in self.axes)

    @property
    def threads(self) -> int:
        """That share a line: each has one butterfly of the largest radix, of small ones two."""
        most = max(radices(self.radix))
        return -(-self.radix // (most if most > 4 else 2 * most))

    @property
    def together(self) -> int:
        """Lines of a block."""
        nbytes = 8 if self.real == "float" else 16
        room = SHARED // (pitch(self.radix, nbytes) * nbytes)
        return max(1, min(room, THREADS // self.threads))

    def sizes(self, tag: str) -> dict[str, int]:
        """The parameters that are this pass's own."""
        found = {f"lines{tag}": self.lines, f"i{tag}": self.steps[0], f"o{tag}": self.steps[1]}
        for k, a in enumerate(self.axes):
            if not a.role:
                found |= {f"n{tag}_{k}": a.size, f"i{tag}_{k}": a.source, f"o{tag}_{k}": a.target}
        return found


def pass_text(p: Pass, tag: str, signature: Signature) -> CudaText:
    """The kernel of a pass."""
    body = _Body(p, tag)
    return signature.text(
        "fft", body.text(), _helpers(p.real), threads=p.threads * p.together, blocks=-(-p.lines // p.together)
    )


class _Body:
    """Writes the lines of a kernel."""

    def __init__(self, p: Pass, tag: str) -> None:
        self.p, self.tag = p, tag
        self.radices = radices(p.radix)
        self.c = f"{p.real}2"
        self.nbytes = 8 if p.real == "float" else 16
        self.lines: list[str] = []

    def text(self) -> str:
        p = self.p
        several = len(self.radices) > 1
        if several:
            self.lines.append(f"__shared__ {self.c} room[{p.together * pitch(p.radix, self.nbytes)}];")
        start, step = f"(long long)blockIdx.x * {p.together}", f"(long long)gridDim.x * {p.together}"
        self.lines.append(f"for (long long first = {start}; first < lines{self.tag}; first += {step}) {{")
        done = 1
        for k, radix in enumerate(self.radices):
            self._step(k, radix, done)
            done *= radix
        if several:
            self._line("__syncthreads();")
        return "\n".join([*self.lines, "}"])

    def _line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def _across(self, k: int) -> bool:
        """Whether neighbouring threads have neighbouring lines in this step: where those are nearer to each other than
        the numbers of a line."""
        p = self.p
        if k == 0:
            line, own = p.axes[-1].source if p.axes else 0, p.steps[0] * (p.whole // p.radix)
        else:
            line, own = p.axes[-1].target if p.axes else 0, p.steps[1] * p.done
        return p.together > 1 and bool(p.axes) and abs(line) < abs(own)

    def _step(self, k: int, radix: int, done: int) -> None:
        """One small radix. Between two others, a thread reads all that it has before it writes."""
        p, first, last = self.p, k == 0, k == len(self.radices) - 1
        rounds = -(-p.radix // radix // p.threads)
        self._line("{")
        if self._across(k):
            self._line(f"const int line = threadIdx.x % {p.together}, place = threadIdx.x / {p.together};", 2)
        else:
            self._line(f"const int line = threadIdx.x / {p.threads}, place = threadIdx.x % {p.threads};", 2)
        if first or last:
            self._line(f"const bool exists = first + line < lines{self.tag};", 2)
            self._coordinates(first, last)
            self._rounds(radix, "1")
            self._line(f"{self.c} v[{radix}];", 3)
            self._read(radix, "v", first)
            self._write(radix, done, "v", last)
            self._line("}", 2)
        else:
            self._line(f"{self.c} v[{rounds}][{radix}];", 2)
            self._rounds(radix)
            self._read(radix, "v[b]", False)
            self._line("}", 2)
            self._line("__syncthreads();", 2)
            self._rounds(radix)
            self._write(radix, done, "v[b]", False)
            self._line("}", 2)
        if not last:
            self._line("__syncthreads();", 2)
        self._line("}")

    def _rounds(self, radix: int, unroll: str = "") -> None:
        """The start of a loop over the butterflies of a thread."""
        p = self.p
        count = p.radix // radix
        rounds = -(-count // p.threads)
        self._line(f"#pragma unroll {unroll}".rstrip(), 2)
        self._line(f"for (int b = 0; b < {rounds}; b++) {{", 2)
        self._line(f"const int at = place + b * {p.threads};", 3)
        if count % p.threads:
            self._line(f"if (at >= {count}) break;", 3)

    def _read(self, radix: int, v: str, first: bool) -> None:
        self._unrolled(radix)
        self._line(f"const int r = at + q * {self.p.radix // radix};", 4)
        if first:
            self._load(f"{v}[q]")
        else:
            self._line(f"{v}[q] = room[{self._place('r')}];", 4)
        self._line("}", 3)

    def _write(self, radix: int, done: int, v: str, last: bool) -> None:
        """What has been read is turned, transformed and written."""
        p = self.p
        self._line(f"const int low = {f'at % {done}' if done > 1 else '0'};", 3)
        if done > 1:
            turn = f"{p.table}[q * low * {p.radix // (done * radix)}]"
            self._line("#pragma unroll", 3)
            self._line(f"for (int q = 1; q < {radix}; q++) {v}[q] = k_fft_mul({v}[q], {turn});", 3)
        self._line(f"k_fft({v});", 3)
        self._unrolled(radix)
        self._line(f"const int r = (at - low) * {radix} + low + q * {done};", 4)
        if last:
            self._save(f"{v}[q]")
        else:
            self._line(f"room[{self._place('r')}] = {v}[q];", 4)
        self._line("}", 3)

    def _unrolled(self, radix: int) -> None:
        self._line("#pragma unroll", 3)
        self._line(f"for (int q = 0; q < {radix}; q++) {{", 3)

    def _place(self, r: str) -> str:
        return f"line * {pitch(self.p.radix, self.nbytes)} + {r} + ({r} >> {_gap(self.nbytes)})"

    def _coordinates(self, first: bool, last: bool) -> None:
        """Of the line: where it begins in source and target, and its place in the transform."""
        p = self.p
        rest, source, target = "first + line", ["0"], ["0"]
        names = {"high": "0", "low": "0"}
        for k in reversed(range(len(p.axes))):
            a = p.axes[k]
            own = a.role or f"c{k}"
            size = str(a.size) if a.role else f"n{self.tag}_{k}"
            if k == 0:
                self._line(f"const long long {own} = {rest};", 2)
            else:
                self._line(f"const long long {own} = k_mod_i64({rest}, {size});", 2)
                self._line(f"const long long rest{k} = k_div_i64({rest}, {size});", 2)
            rest = f"rest{k}"
            if a.role:
                names[a.role] = own
            else:
                source.append(f"{own} * i{self.tag}_{k}")
                target.append(f"{own} * o{self.tag}_{k}")
        if first:
            self._line(f"const long long source = {' + '.join(source[1:]) or '0'};", 2)
            self._line(f"const long long sub = {names['high']} * {p.done} + {names['low']};", 2)
            if p.far:
                self._line(f"const long long turn = {names['low']};", 2)
        if last:
            self._line(f"const long long target = {' + '.join(target[1:]) or '0'};", 2)
            self._line(f"const long long begin = {names['high']} * {p.done * p.radix} + {names['low']};", 2)

    def _load(self, to: str) -> None:
        """Number r of the line."""
        p, load = self.p, self.p.load
        self._line(f"const long long i = sub + r * {p.whole // p.radix}ll;", 4)
        self._line(f"{self.c} z;", 4)
        self._line("z.x = 0, z.y = 0;", 4)
        limit = f" && i < {load.limit}" if load.limit else ""
        at = f"{p.source}[source + i * i{self.tag}]"
        if load.form == "real":
            self._line(f"if (exists{limit}) z.x = {at};", 4)
        elif load.form == "half":
            other = f"{p.source}[source + (2 * i <= {load.of} ? i : {load.of} - i) * i{self.tag}]"
            self._line(f"if (exists{limit}) z = {other};", 4)
            self._line(f"if (2 * i > {load.of}) z.y = -z.y;", 4)
            self._line(f"if (i == 0 || 2 * i == {load.of}) z.y = 0;", 4)
        else:
            self._line(f"if (exists{limit}) z = {at};", 4)
        if load.swap:
            self._line("{ const auto part = z.x; z.x = z.y, z.y = part; }", 4)
        if load.factor:
            self._line(f"if (i < {load.limit}) z = k_fft_mul(z, {load.factor}[i]);", 4)
        if p.far:
            low, high, count = p.far
            self._line("const long long e = exists ? turn * r : 0;", 4)
            self._line(f"z = k_fft_far(z, {low}[e % {count}], {high}[e / {count}]);", 4)
        self._line(f"{to} = z;", 4)

    def _save(self, value: str) -> None:
        """Result r of the line."""
        p, save = self.p, self.p.save
        swap = "{ const auto part = z.x; z.x = z.y, z.y = part; }"
        self._line(f"const long long i = begin + r * {p.done}ll;", 4)
        test = ["exists"]
        if save.limit:
            test.append(f"i < {save.limit}")
        if save.form == "half":
            test.append(f"2 * i <= {save.of}")
        self._line(f"if ({' && '.join(test)}) {{", 4)
        self._line(f"{self.c} z = {value};", 5)
        if save.swap:
            self._line(swap, 5)
        if save.factor:
            self._line(f"z = k_fft_mul(z, {save.factor}[i]);", 5)
        if save.again:
            self._line(swap, 5)
        if save.scale != 1:
            self._line(f"z = k_fft_times(z, {save.scale!r});", 5)
        part = ".x" if save.form == "real" else ""
        self._line(f"{p.target}[target + i * o{self.tag}] = z{part};", 5)
        self._line("}", 4)
