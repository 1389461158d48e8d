"""Eigenvalues of Hermitian matrices, singular values and pseudoinverses on a GPU.

`eigh` reduces to tridiagonal matrices and iterates with implicit QL; `svd` factors by QR, and iterates with one-sided
Jacobi rotations. Vectors are turned so that their element of largest magnitude, the first of equals, is positive: those
of `eigh`, and of `svd` those of the shorter side (v of matrices with as many rows as columns), whose partners follow.
A matrix that has infinities or NaNs, or an iteration that does not converge, leaves a number in `info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kiln.codegen.cuda import spectral_text as texts
from kiln.codegen.cuda.linalg_text import (
    ARITHMETIC,
    NUMBERS,
    Signature,
    Stack,
    batch_of,
    filled,
    grid,
    pointer,
    spread,
    stack,
)
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.layout import Layout
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Operation, Value
from kiln.ir.program import CheckSite
from kiln.ir.types import DType, float64, int32, int64

Layouts = Mapping[Value, Layout | None]

HELPERS: Final = (ARITHMETIC, texts.WARPS)
MOST: Final = 512
"""Threads of a block that works on a matrix."""
WARPS: Final = 8
"""In a block that works on columns."""


def threads(n: int) -> int:
    """Of the block that works on a matrix of this size."""
    return next((count for count in (32, 64, 128, 256) if n <= count // 2), MOST)


class _Kernels:
    """The launches of a step: what an op takes, its workspaces by name, and its kernels."""

    def __init__(self, op: Operation, layouts: Layouts, results: Mapping[str, DType]) -> None:
        (x,) = op.operands
        self.dtype, self.batch = x.type.dtype, batch_of(x.type)
        self.real = NUMBERS[self.dtype.part if self.dtype.is_complex else self.dtype]
        self.stack: Stack = stack("in0", x, layouts)
        self.pointers = [pointer(self.dtype, "in0", True), *(pointer(d, name) for name, d in results.items())]
        self.rooms: list[Workspace] = []
        self.sizes = dict(zip(self.stack.names, self.stack.sizes, strict=True))
        self.bodies: list[tuple[str, str, tuple[str, ...], int, int]] = []
        self.room("info", int32, 1)
        self.sizes["batch"] = self.batch

    def room(self, name: str, dtype: DType, each: int) -> None:
        """A workspace of so many elements for each matrix."""
        self.pointers.append(pointer(dtype, name))
        self.rooms.append(Workspace(dtype, L.index(self.batch * each)))

    def kernel(self, name: str, body: str, helpers: tuple[str, ...], count: int, blocks: int, **words: object) -> None:
        text = filled(body, **words, at=self.stack.at, T=NUMBERS[self.dtype], R=self.real)
        self.bodies.append((name, text, (*HELPERS, *helpers), count, blocks))

    def columns(self, name: str, body: str, helpers: tuple[str, ...], each: int) -> None:
        """A kernel that has a warp for each of so many columns of a matrix."""
        self.kernel(name, body, helpers, 32 * WARPS, grid(-(-self.batch * each // WARPS)))

    def filled(self, op: Operation, sites: list[CheckSite]) -> Filled:
        """All of it, and what looks for matrices that were refused."""
        self.sizes["site"] = len(sites)
        why = ": there are infinities or NaNs among its elements"
        sites += [
            CheckSite("linalg", op.op.name, f"the iteration did not converge{part}", op.loc) for part in (why, "")
        ]
        signature = Signature(tuple(self.pointers), tuple(self.sizes))
        made: list[CudaText] = []
        for name, body, helpers, count, blocks in self.bodies:
            text = signature.text(name, body, helpers, threads=MOST if "blockDim" in body else count, blocks=blocks)
            made.append(replace(text, threads=count))
        made.append(signature.text("refusals", texts.REFUSALS, (), threads=256, blocks=1, check=True))
        return Filled(tuple(made), tuple(self.rooms), tuple(self.sizes.values()))


def _eigh_kernels(kernels: _Kernels, n: int, upper: bool) -> None:
    """Into `w` and `v`."""
    k, single = kernels, kernels.real == "float"
    for name, dtype, each in (
        ("work", k.dtype, n * n),
        ("basis", k.dtype, n * n),
        ("taus", k.dtype, 2 * n),
        ("numbers", float64, 4 * n + 1),
    ):
        k.room(name, dtype, each)
    k.sizes |= {"n": n, "upper": int(upper)}
    reflect = (texts.REFLECT,)
    k.kernel("tridiagonal", texts.TRIDIAGONAL, reflect, threads(n), grid(k.batch))
    k.columns("reflections", texts.FORM, (texts.REFLECT,), n)
    k.kernel("sweeps", texts.QL, (), threads(n), grid(k.batch), small="3e-8" if single else "1.2e-16")
    k.columns("vectors", texts.EIGH_STORE, (texts.LARGEST,), n)


def _svd_kernels(kernels: _Kernels, rows: int, columns: int, full: bool) -> None:
    """Into `u`, `s` and `vh`."""
    k, single = kernels, kernels.real == "float"
    least, most = min(rows, columns), max(rows, columns)
    left = most if full else least
    for name, dtype, each in (
        ("work", k.dtype, least * most),
        ("squares", k.dtype, 2 * least * least),
        ("ones", k.dtype, left * most),
        ("twos", k.dtype, least * least),
        ("taus", k.dtype, 2 * least),
        ("numbers", float64, 3 * least + 1),
        ("order", int64, least),
    ):
        k.room(name, dtype, each)
    k.sizes |= {"m": most, "k": least, "left": left, "flip": int(rows < columns)}
    unit = "0x1p-24" if single else "0x1p-53"
    count = threads(least)
    for name, body, helpers in (
        ("factor", texts.SVD_FACTOR, (texts.REFLECT,)),
        ("rotate", texts.SVD_ROTATE.replace("@unit@", unit), (texts.ROTATE,)),
        ("arrange", texts.SVD_ARRANGE, (texts.REFLECT,)),
    ):
        k.kernel(name, body, helpers, count, grid(k.batch))
    k.columns("vectors", texts.SVD_STORE, (texts.REFLECT, texts.LARGEST), left)


def _eigh(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    w, v = op.results
    kernels = _Kernels(op, layouts, {"w": w.type.dtype, "v": v.type.dtype})
    _eigh_kernels(kernels, v.type.static_shape()[-1], bool(op.attrs["upper"]))
    return kernels.filled(op, sites)


def _svd(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    (x,), (u, s, vh) = op.operands, op.results
    kernels = _Kernels(op, layouts, {"u": u.type.dtype, "s": s.type.dtype, "vh": vh.type.dtype})
    rows, columns = x.type.static_shape()[-2:]
    _svd_kernels(kernels, rows, columns, bool(op.attrs["full"]))
    return kernels.filled(op, sites)


def _pinv(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """The product of v, the inverse values, and u'."""
    (x,), (y,) = op.operands, op.results
    dtype, part = x.type.dtype, x.type.dtype.part if x.type.dtype.is_complex else x.type.dtype
    rows, columns = x.type.static_shape()[-2:]
    k = min(rows, columns)
    kernels = _Kernels(op, layouts, {"y": y.type.dtype})
    if op.attrs["hermitian"]:
        kernels.room("w", part, k)
        kernels.room("v", dtype, k * k)
        _eigh_kernels(kernels, k, False)
        kernels.sizes["k"] = k
        absolute = "fabsf" if kernels.real == "float" else "fabs"
        last = "size[k - 1]"
        words = {
            "size": "w",
            "most": f"{absolute}(size[0]) > {absolute}({last}) ? {absolute}(size[0]) : {absolute}({last})",
            "own": f"{absolute}(size[c])",
            "sign": "size[c] < 0 ? -1 : 1",
            "right": "v[(b * k + i) * k + c]",
            "left": "v[(b * k + j) * k + c]",
        }
    else:
        kernels.room("u", dtype, rows * k)
        kernels.room("s", part, k)
        kernels.room("vh", dtype, k * columns)
        _svd_kernels(kernels, rows, columns, False)
        words = {
            "size": "s",
            "most": "size[0]",
            "own": "size[c]",
            "sign": "1",
            "right": "k_conj(vh[(b * k + c) * columns + i])",
            "left": "u[(b * rows + j) * k + c]",
        }
    kernels.sizes |= {"rows": rows, "columns": columns}
    blocks = spread(kernels.batch * rows * columns)
    infinite = "__longlong_as_double(0x7ff0000000000000ll)"
    limits = {name: repr(op.attrs[name]).replace("inf", infinite) for name in ("atol", "rtol")}
    kernels.kernel("inverse", texts.INVERSE, (), 256, blocks, **words, **limits)
    return kernels.filled(op, sites)


TEMPLATES: Final[dict[str, Template]] = {"eigh": _eigh, "svd": _svd, "pinv": _pinv}
