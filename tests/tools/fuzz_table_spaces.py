"""More of the table of `fuzz_table`: `kiln.linalg`, `kiln.fft`, `kiln.special`, complex numbers, distances, parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fuzz_programs import FLOATS, INTS
from fuzz_table import ANY, COMPLEX, TABLE, VIEWS, Draw, Drawn, F, Run, Unfit, calling, either, entry, method, through

import kiln
from kiln import fft, linalg, special

WIDE = ("float32", "float64")

# ---- kiln.special

for _name in special.__all__:

    def _special(d: Draw, name: str = _name) -> Drawn:
        fn = getattr(special, name)
        k = d.take(ANY, 1)
        match name:
            case "softmax" | "log_softmax" | "logsumexp":
                return [k], calling(fn, d.dim(k)), None
            case "xlogy" | "xlog1py":
                return [k, d.partner(k)], calling(fn), None
            case "multigammaln":
                return [d.new(d.size(k), d.dtype(ANY), positive=True)], lambda x: fn(x + 3, 2), None
            case "polygamma":
                n = d.int(0, 3)
                return [k], lambda x: fn(n, x), None
            case "gammainc" | "gammaincc" | "zeta":
                size, dtype = d.size(k), d.dtype(FLOATS)
                a = [d.new(size, dtype, positive=True), d.new(size, dtype, positive=True)]
                return a, (lambda x, q: fn(x.detach() + 1.5, q)), None
            case str() if "_polynomial_" in name:
                return [k], calling(fn, d.int(-1, 9)), None
            case _:
                return [k], calling(fn), None

    TABLE[f"special.{_name}"] = _special

TABLE["i0"], TABLE["polygamma"] = TABLE["special.i0"], TABLE["special.polygamma"]
TABLE["mvlgamma"] = TABLE["special.multigammaln"]
TABLE["igamma"], TABLE["igammac"] = TABLE["special.gammainc"], TABLE["special.gammaincc"]


@entry("igamma_", "igammac_")
def _(d: Draw) -> Drawn:
    k = d.new(d.shape(d.int(1, 3)), d.dtype(FLOATS), positive=True)
    return [k, d.like(k)], lambda a, x: a.detach().clone().igamma_(x.abs()) * 1, None


# ---- kiln.fft

for _name in fft.__all__:

    def _transform(d: Draw, name: str = _name) -> Drawn:
        fn = getattr(fft, name)
        if name.endswith("freq"):
            return [], calling(fn, d.int(1, 20)), None
        many = name.endswith(("2", "n"))
        k = d.take(ANY, 2 if many else 1, want=lambda t: min(t.shape) > 1)
        if name.endswith("shift"):
            return [k], calling(fn, d.one([None, d.dim(k)])), None
        if many:
            return [k], calling(fn, norm=d.one([None, "ortho", "forward"])), None
        return [k], calling(fn, d.one([None, d.int(1, 12)]), d.dim(k), d.one([None, "ortho", "forward"])), None

    TABLE[f"fft.{_name}"] = _transform


# ---- kiln.linalg, and the older names


def matrix(d: Draw, dtype: str = "", definite: bool = False) -> int:
    """A square matrix, or a stack of them, that can be inverted well; `definite`: symmetric and positive."""
    if d.special:
        raise Unfit
    n, lead = d.int(1, 6), d.one([(), (), (2,)])
    a = d.rng.standard_normal((*lead, n, n))
    a = a @ np.swapaxes(a, -1, -2) + np.eye(n) if definite else a + 3 * np.sqrt(n) * np.eye(n)
    return d.put(a.astype(dtype or d.dtype(WIDE)))


def _tall(x: Any) -> Any:
    """With one row more than it has columns."""
    return kiln.cat([x, x[..., :1, :]], -2)


def beside(d: Draw, k: int) -> int:
    """Right-hand sides for the matrix k."""
    return d.new((*d.size(k)[:-1], d.int(1, 3)), d.name(k))


def add_square(name: str, run: Callable[[Draw], Run], definite: bool = False) -> None:
    def draw(d: Draw) -> Drawn:
        return [matrix(d, definite=definite)], run(d), None

    TABLE[name] = draw


for _name in ("cholesky", "cholesky_ex", "eigh", "eigvalsh"):
    add_square(f"linalg.{_name}", lambda d, name=_name: calling(getattr(linalg, name)), definite=True)
for _name in ("det", "inv", "inv_ex", "lu", "lu_factor", "lu_factor_ex", "matrix_exp", "pinv", "qr", "slogdet",
              "svdvals", "matrix_rank", "cond", "eig", "eigvals"):  # fmt: skip
    add_square(f"linalg.{_name}", lambda d, name=_name: calling(getattr(linalg, name)))  # type: ignore[misc]
for _name in ("det", "inverse", "logdet", "lu", "matrix_exp", "pinverse", "qr", "slogdet"):
    add_square(_name, lambda d, name=_name: calling(getattr(kiln, name)))  # type: ignore[misc]
add_square("linalg.qr complete", lambda d: lambda x: tuple(linalg.qr(_tall(x.detach()), mode="complete")))
add_square("qr complete", lambda d: lambda x: tuple(kiln.qr(_tall(x.detach()), some=False)))
add_square("linalg.matrix_power", lambda d: calling(linalg.matrix_power, d.int(-2, 3)))
add_square("matrix_power", lambda d: calling(kiln.matrix_power, d.int(-2, 3)))
add_square("cholesky", lambda d: calling(kiln.cholesky, d.flip()), definite=True)
add_square("cholesky_inverse", lambda d: lambda x: kiln.cholesky_inverse(x.tril()), definite=True)
# Singular vectors are arbitrary up to a sign, and their gradients are refused: only values without one are looked at.
add_square("linalg.svd", lambda d: lambda x: tuple(linalg.svd(x.detach())))
add_square("svd", lambda d: lambda x: tuple(kiln.svd(x.detach())))


def add_system(name: str, run: Run, definite: bool = False) -> None:
    def draw(d: Draw) -> Drawn:
        k = matrix(d, definite=definite)
        return [k, beside(d, k)], run, None

    TABLE[name] = draw


add_system("linalg.solve", linalg.solve)
add_system("linalg.solve_ex", linalg.solve_ex)
add_system("linalg.lstsq", lambda a, b: linalg.lstsq(a, b).solution)
add_system("linalg.solve_triangular", lambda a, b: linalg.solve_triangular(a, b, upper=True))
add_system("triangular_solve", lambda a, b: tuple(kiln.triangular_solve(b, a)))
add_system("linalg.lu_solve", lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b))
add_system("lu_solve", lambda a, b: kiln.lu_solve(b, *linalg.lu_factor(a)))
add_system("cholesky_solve", lambda a, b: kiln.cholesky_solve(b, linalg.cholesky(a)), definite=True)
add_square("lu_unpack", lambda d: lambda x: tuple(kiln.lu_unpack(*linalg.lu_factor(x))))


def add_reflections(name: str, fn: Run) -> None:
    def draw(d: Draw) -> Drawn:
        rows, columns, dtype = d.int(3, 6), d.int(1, 3), d.dtype(WIDE)
        return [d.new((rows, columns), dtype, True), d.new((columns,), dtype, True)], calling(fn), None

    TABLE[name] = draw


add_reflections("linalg.householder_product", linalg.householder_product)
add_reflections("orgqr", kiln.orgqr)


@entry("linalg.cross", "linalg.vecdot")
def _(d: Draw) -> Drawn:
    k = d.new((d.int(1, 9), 3), d.dtype(ANY))
    return [k, d.like(k)], calling(d.one([linalg.cross, linalg.vecdot])), None


@entry("linalg.diagonal")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 2)], calling(linalg.diagonal, offset=d.int(-2, 2)), None


@entry("linalg.matmul")
def _(d: Draw) -> Drawn:
    m, n, o, dtype = d.int(1, 17), d.int(1, 17), d.int(1, 17), d.dtype(ANY)
    return [d.new((m, n), dtype), d.new((n, o), dtype)], calling(linalg.matmul), None


@entry("linalg.multi_dot")
def _(d: Draw) -> Drawn:
    a, b, c, e, dtype = d.int(1, 9), d.int(1, 9), d.int(1, 9), d.int(1, 9), d.dtype(ANY)
    return [d.new((a, b), dtype), d.new((b, c), dtype), d.new((c, e), dtype)], lambda *x: linalg.multi_dot(x), None


@entry("linalg.tensorinv")
def _(d: Draw) -> Drawn:
    k = matrix(d)
    n = d.size(k)[-1]
    return [k], lambda x: linalg.tensorinv(x.reshape((-1, n, n))[0].reshape((n, 1, n)), 1), None


@entry("linalg.tensorsolve")
def _(d: Draw) -> Drawn:
    k = matrix(d)
    n = d.size(k)[-1]
    b = d.new((n,), d.name(k))
    return [k, b], lambda x, b: linalg.tensorsolve(x.reshape((-1, n, n))[0], b), None


@entry("linalg.vander", "vander")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 1, 1, want=lambda t: t.numel() < 40)], calling(linalg.vander, N=d.int(2, 4)), None


# ---- complex numbers

PARTS = ("angle", "conj", "conj_physical", "imag", "real", "resolve_conj", "resolve_neg", "view_as_real")


def add_part(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        dtypes = COMPLEX if name in ("imag", "view_as_real") or d.flip() else ANY
        k = d.take(dtypes, 1)
        return [k], lambda x: getattr(kiln, name)(x) * 1, None

    TABLE[name] = draw


for _name in PARTS:
    add_part(_name)


def add_pair(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(WIDE, 1)
        return [k, d.like(k)], calling(getattr(kiln, name)), None

    TABLE[name] = draw


add_pair("complex")
add_pair("polar")


@entry("view_as_complex")
def _(d: Draw) -> Drawn:
    return [d.new((*d.shape(d.int(0, 2)), 2), d.dtype(WIDE))], lambda x: kiln.view_as_complex(x.contiguous()) * 1, None


# ---- distances, parts, and others


@entry("cdist")
def _(d: Draw) -> Drawn:
    m, n, dtype = d.int(1, 9), d.int(1, 5), d.dtype(FLOATS)
    return [d.new((m, n), dtype), d.new((d.int(1, 9), n), dtype)], calling(kiln.cdist, d.one([1.0, 2.0, 3.0])), None


@entry("pdist")
def _(d: Draw) -> Drawn:
    return [d.new((d.int(1, 9), d.int(1, 5)), d.dtype(FLOATS))], calling(kiln.pdist, d.one([1.0, 2.0])), None


@entry("renorm")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 2, 3, want=lambda t: 0 not in t.shape)
    return [k], either(d, "renorm", 2.0, d.dim(k), 1.0), None


@entry("frexp")
def _(d: Draw) -> Drawn:
    return [d.take(FLOATS, 1)], lambda x: tuple(kiln.frexp(x)), None


@entry("gradient")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3, want=lambda t: min(t.shape) > 2)
    return [k], calling(kiln.gradient, dim=d.one([None, d.dim(k)]), edge_order=d.int(1, 2)), None


def add_integers(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(INTS, 1)
        return [k, d.like(k)], either(d, name), getattr(np, name)

    TABLE[name] = draw


add_integers("gcd")
add_integers("lcm")


@entry("gcd_", "lcm_")
def _(d: Draw) -> Drawn:
    k = d.take(INTS, 1, 3)
    return [k, d.like(k)], through(d.int(0, VIEWS), method(d.one(["gcd_", "lcm_"]))), None


@entry("combinations")
def _(d: Draw) -> Drawn:
    return [d.new((d.int(2, 6),), d.dtype(ANY))], calling(kiln.combinations, 2, d.flip()), None


@entry("diagonal_scatter")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 2, 2, want=lambda t: 0 not in t.shape)
    return [k, d.new((min(d.size(k)),), d.name(k))], calling(kiln.diagonal_scatter), None


@entry("select_scatter")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3, want=lambda t: 0 not in t.shape)
    return [k, d.new(d.size(k)[1:], d.name(k))], calling(kiln.select_scatter, 0, d.int(0, d.size(k)[0] - 1)), None


@entry("slice_scatter")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3, want=lambda t: t.shape[0] > 1)
    return [k, d.new((d.size(k)[0] - 1, *d.size(k)[1:]), d.name(k))], calling(kiln.slice_scatter, 0, 1), None


@entry("histogram")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    return [d.take(WIDE, 1)], lambda x: tuple(kiln.histogram(x.detach(), 5, range=(-2.0, 2.0))), None


@entry("isin")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    return [k, d.new((d.int(1, 9),), d.name(k))], calling(kiln.isin, invert=d.flip()), None


@entry("split_with_sizes")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    n = d.size(k)[0]
    return [k], either(d, "split_with_sizes", [n // 2, n - n // 2]), None


@entry("unravel_index")
def _(d: Draw) -> Drawn:
    return [d.index(24, d.shape(d.int(1, 2)))], calling(kiln.unravel_index, (2, 3, 4)), None


@entry("poisson")
def _(d: Draw) -> Drawn:
    return [d.new(d.shape(d.int(1, 2)), d.dtype(WIDE), positive=True)], calling(kiln.poisson), None


@entry("affine_grid")
def _(d: Draw) -> Drawn:
    n, align = d.int(1, 3), d.flip()
    size = (n, 2, d.int(1, 5), d.int(1, 5))
    return [d.new((n, 2, 3), d.dtype(WIDE))], calling(F.affine_grid, size, align_corners=align), None


@entry("grid_sample")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    n, dtype = d.int(1, 2), d.dtype(WIDE)
    args = [d.new((n, d.int(1, 3), d.int(2, 5), d.int(2, 5)), dtype), d.new((n, d.int(1, 4), d.int(1, 4), 2), dtype)]
    more = {"mode": d.one(["bilinear", "nearest"]), "padding_mode": d.one(["zeros", "border", "reflection"])}
    return args, calling(F.grid_sample, align_corners=d.flip(), **more), None


@entry("ctc_loss")
def _(d: Draw) -> Drawn:
    steps, batch, classes = d.int(4, 8), d.int(1, 3), d.int(2, 5)
    labels = d.put(np.asarray(d.rng.integers(1, classes, (batch, 2))))
    lengths, found = d.put(np.full(batch, steps)), d.put(np.full(batch, 2))

    def run(x: Any, *rest: Any) -> Any:
        return F.ctc_loss(kiln.log_softmax(x, 2), *rest)

    return [d.new((steps, batch, classes), d.dtype(WIDE)), labels, lengths, found], run, None


# ---- other names, and what writes in place

for _name, _same in (("greater", "gt"), ("greater_equal", "ge"), ("less", "lt"), ("less_equal", "le"),
                     ("not_equal", "ne")):  # fmt: skip

    def _compared(d: Draw, name: str = _name) -> Drawn:
        k = d.take(ANY)
        return [k, d.partner(k)], either(d, name), None

    TABLE[_name], TABLE[f"{_name}_"] = _compared, TABLE[f"{_same}_"]

TABLE["row_stack"] = TABLE["vstack"]
TABLE["asarray"] = TABLE["as_tensor"]
for _name in ("arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "conj_physical"):

    def _unary_write(d: Draw, name: str = f"{_name}_") -> Drawn:
        return [d.take(ANY, 1, 3)], through(d.int(0, VIEWS), method(name)), None

    TABLE[f"{_name}_"] = _unary_write

TABLE["arctan2_"] = TABLE["atan2_"]
TABLE["true_divide_"] = TABLE["div_"]


def add_shaped_write(name: str, *options: Sequence[Any], lo: int = 2) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(FLOATS if name == "renorm_" else ANY, lo, 2, want=lambda t: 0 not in t.shape)
        rest = d.one(options)

        def run(x: Any) -> Any:
            base = x.clone()
            return getattr(base, name)(*rest) * 1

        return [k], run, None

    TABLE[name] = draw


for _name, _options in (
    ("fill_diagonal_", [(1,)]), ("renorm_", [(2.0, 0, 1.0)]), ("squeeze_", [(), (0,)]), ("swapaxes_", [(0, 1)]),
    ("swapdims_", [(0, 1)]), ("t_", [()]), ("transpose_", [(0, -1)]), ("tril_", [(), (1,)]), ("triu_", [(), (-1,)]),
    ("unsqueeze_", [(0,), (-1,)]),
):  # fmt: skip
    add_shaped_write(_name, *_options)


def add_product_write(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        args, _, _ = TABLE[name[:-1]](d)
        return args, through(0, method(name)), None

    TABLE[name] = draw


for _name in ("addbmm_", "addmm_", "addmv_", "addr_", "baddbmm_"):
    add_product_write(_name)
