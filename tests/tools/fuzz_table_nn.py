"""More of the table of `fuzz_table`: indexing, sorting, layers, losses, random numbers, creation, writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from fuzz_programs import ALL, DTYPES, FLOATS, HALVES, INTS
from fuzz_table import ANY, NUMERIC, TABLE, Draw, Drawn, F, Run, Unfit, calling, either, entry, method, through

import kiln
from kiln.ir.halves import converted, widened

# ---- indexing


def indexed(d: Draw, dtypes: Sequence[str] = ANY) -> tuple[int, int, int]:
    """A value, a dim, and an index for gather and scatter along it."""
    k = d.take(dtypes, 1, 3, want=lambda t: 0 not in t.shape)
    dim = d.dim(k)
    shape = list(d.size(k))
    shape[dim] = d.int(1, 6)
    return k, dim, d.index(d.size(k)[dim], tuple(shape))


@entry("gather")
def _(d: Draw) -> Drawn:
    k, dim, i = indexed(d)
    return [k, i], lambda x, i: kiln.gather(x, dim, i), lambda v, i: np.take_along_axis(v, i, dim)


@entry("take_along_dim")
def _(d: Draw) -> Drawn:
    k, dim, i = indexed(d)
    return [k, i], either(d, "take_along_dim", dim), lambda v, i: np.take_along_axis(v, i, dim)


@entry("take")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3, want=lambda t: 0 not in t.shape)
    i = d.index(math.prod(d.size(k)), d.shape(d.int(0, 2)), True)
    return [k, i], either(d, "take"), lambda v, i: np.take(v, i)


@entry("put")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC, 1, 3, want=lambda t: 0 not in t.shape)
    i = d.index(math.prod(d.size(k)), (d.int(1, 40),), True)
    source = d.new(d.size(i), d.name(k))
    return [k, i, source], either(d, "put", accumulate=d.flip()), None


@entry("index_select")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3)
    dim = d.dim(k)
    i = d.index(d.size(k)[dim], (d.int(1, 9),))
    return [k, i], lambda x, i: kiln.index_select(x, dim, i), lambda v, i: np.take(v, i, dim)


def add_scatter(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k, dim, i = indexed(d, NUMERIC)
        source = d.new(d.size(i), d.name(k))
        fn = getattr(kiln, name)
        more = {}
        if name == "scatter_reduce":
            more = {"reduce": d.one(["sum", "prod", "mean", "amax", "amin"]), "include_self": d.flip()}
        return [k, i, source], lambda x, i, s: fn(x, dim, i, s, **more), None

    TABLE[name] = draw


def add_index(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(NUMERIC, 1, 3, want=lambda t: 0 not in t.shape)
        dim = d.dim(k)
        n = d.int(1, 9)
        i = d.index(d.size(k)[dim], (n,))
        if name == "index_fill":
            return [k, i], lambda x, i: kiln.index_fill(x, dim, i, 2), None
        shape = list(d.size(k))
        shape[dim] = n
        fn = getattr(kiln, name)
        more = {"index_add": {"alpha": d.one([1, 2])}, "index_copy": {}}.get(
            name, {"reduce": d.one(["prod", "mean", "amax", "amin"]), "include_self": d.flip()}
        )
        return [k, i, d.new(tuple(shape), d.name(k))], lambda x, i, s: fn(x, dim, i, s, **more), None

    TABLE[name] = draw


for _name in ("scatter", "scatter_add", "scatter_reduce"):
    add_scatter(_name)
for _name in ("index_add", "index_copy", "index_fill", "index_reduce"):
    add_index(_name)


@entry("index_put")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC, 2, 3, want=lambda t: 0 not in t.shape)
    m = d.int(1, 9)
    rows, cols = d.index(d.size(k)[0], (m,), True), d.index(d.size(k)[1], (m,), True)
    values, add = d.new((m, *d.size(k)[2:]), d.name(k)), d.flip()
    return [k, rows, cols, values], lambda x, i, j, v: kiln.index_put(x, (i, j), v, add), None


@entry("index by tensors")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 2, 3, want=lambda t: 0 not in t.shape)
    i = d.index(d.size(k)[0], d.shape(d.int(1, 2)), True)
    if d.flip():
        return [k, i], lambda x, i: x[i, 0:], lambda v, i: v[i, 0:]
    return [k, i], lambda x, i: x[i, None, -1], lambda v, i: v[i, None, -1]


@entry("index by mask")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    return [k, d.new(d.size(k), "bool")], lambda x, m: x[m], lambda v, m: v[m]


@entry("masked_fill")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC)
    return [k, d.partner(k, ("bool",))], either(d, "masked_fill", 3), None


@entry("masked_scatter")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    return [k, d.new(d.size(k), "bool"), d.like(k)], either(d, "masked_scatter"), None


@entry("masked_select")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    return [k, d.new(d.size(k), "bool")], either(d, "masked_select"), lambda v, m: v[m]


@entry("nonzero")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 1)], either(d, "nonzero"), lambda v: np.argwhere(v)


@entry("bincount")
def _(d: Draw) -> Drawn:
    i = d.index(9, (d.int(0, 70),))
    if d.flip():
        return [i], either(d, "bincount", minlength=12), lambda v: np.bincount(v, minlength=12)
    return [i, d.new(d.size(i), d.dtype(("float32", "float64")))], either(d, "bincount", minlength=12), None


@entry("histc")
def _(d: Draw) -> Drawn:
    if d.special:
        raise Unfit
    return [d.take(("float32", "float64"))], either(d, "histc", d.int(1, 9), -2, 2), None


@entry("unique")
def _(d: Draw) -> Drawn:
    if d.flip(0.5):
        return [d.take((*INTS, "bool"))], either(d, "unique", True, True, True), None
    return [d.take(ANY, 1)], either(d, "unique"), None if d.special else np.unique


@entry("unique_consecutive")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 1, 2)], either(d, "unique_consecutive", d.flip()), None


@entry("embedding")
def _(d: Draw) -> Drawn:
    rows = d.int(1, 17)
    i, w = d.index(rows, d.shape(d.int(1, 2))), d.new((rows, d.int(1, 9)), d.dtype(FLOATS))
    return [i, w], calling(F.embedding, d.one([None, 0])), lambda i, w: w[i]


@entry("one_hot")
def _(d: Draw) -> Drawn:
    return [d.index(5, d.shape(d.int(1, 2)))], calling(F.one_hot, d.int(5, 8)), None


# ---- sorting


@entry("sort")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    dim, down = d.dim(k), d.flip()
    return [k], either(d, "sort", dim, down, stable=True), None


@entry("argsort")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    dim = d.dim(k)
    return [k], either(d, "argsort", dim, stable=True), lambda v: np.argsort(v, dim, kind="stable")


@entry("topk")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC, 1)
    dim = d.dim(k)
    return [k], either(d, "topk", d.int(0, d.size(k)[dim]), dim, d.flip()), None


@entry("kthvalue")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC, 1, want=lambda t: 0 not in t.shape)
    dim = d.dim(k)
    return [k], either(d, "kthvalue", d.int(1, d.size(k)[dim]), dim, d.flip()), None


def add_search(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        dtype = d.dtype(NUMERIC)
        k = d.take((dtype,))
        edges = d.put(np.sort(d.numbers((d.int(1, 17),), dtype)))
        right, narrow = d.flip(), d.flip()
        fn = kiln.bucketize if name == "bucketize" else lambda x, e, **kw: kiln.searchsorted(e, x, **kw)
        oracle = None
        if not d.special:
            oracle = lambda v, e: np.searchsorted(e, v, "right" if right else "left")  # noqa: E731
        return [k, edges], calling(fn, right=right, out_int32=narrow), oracle

    TABLE[name] = draw


add_search("bucketize")
add_search("searchsorted")


# ---- layers


def image(d: Draw, spatial: int, channels: int | None = None, dtypes: Sequence[str] = FLOATS) -> int:
    """A batch of signals or images."""
    c = channels or d.int(1, 6)
    least = 5 if spatial == 1 else 4
    good = lambda t: min(t.shape) > 0 and min(t.shape[2:]) >= least and (channels is None or t.shape[1] == c)  # noqa: E731
    if d.flip(0.4):
        return d.take(dtypes, spatial + 2, spatial + 2, want=good)
    return d.put(d.numbers((d.int(1, 3), c, *(d.int(least, 9 if spatial == 2 else 20) for _ in range(spatial))),
                           d.dtype(dtypes)), True)  # fmt: skip


def add_conv(spatial: int, transposed: bool) -> None:
    def draw(d: Draw) -> Drawn:
        depthwise = d.flip(0.25)
        groups = d.int(2, 3) if depthwise else d.one([1, 1, 2])
        k = image(d, spatial, groups if depthwise else groups * d.int(1, 3))
        c, dtype = d.size(k)[1], d.name(k)
        out = groups * d.int(1, 3)
        kernel = tuple(d.int(1, 3) for _ in range(spatial))
        lead = (c, out // groups) if transposed else (out, c // groups)
        w = d.new((*lead, *kernel), dtype)
        args = [k, w] + ([d.new((out,), dtype)] if d.flip() else [])
        padding = d.int(0, 1)  # with it a kernel of 3 steps of 2 fits into 4 elements
        dilation = d.int(1, 2) if padding and not transposed else 1
        more = {"stride": d.int(1, 2), "padding": padding, "groups": groups, "dilation": dilation}
        if transposed and d.flip():
            more["output_padding"] = more["stride"] - 1
        return args, calling(getattr(F, name), **more), None

    name = f"conv{'_transpose' if transposed else ''}{spatial}d"
    TABLE[name] = draw


def add_pool(name: str, spatial: int) -> None:
    def draw(d: Draw) -> Drawn:
        k = image(d, spatial)
        fn = getattr(F, name)
        if name.startswith("adaptive"):
            return [k], calling(fn, d.int(1, 4), *([d.flip()] if "max" in name else [])), None
        if name.startswith("lp"):
            return [k], calling(fn, d.one([1, 2, 3]), d.int(1, 3)), None
        more: dict[str, Any] = {"ceil_mode": d.flip()}
        if "max" in name:
            more |= {"return_indices": d.flip(), "dilation": d.int(1, 2)}
        else:
            more |= {"count_include_pad": d.flip()}
        size = 2 if more.get("dilation") == 2 else d.int(2, 3)
        return [k], calling(fn, size, d.one([None, 1, 2]), d.int(0, 1), **more), None

    TABLE[name] = draw


for _spatial in (1, 2):
    for _transposed in (False, True):
        add_conv(_spatial, _transposed)
    for _name in ("adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "max_pool", "lp_pool"):
        add_pool(f"{_name}{_spatial}d", _spatial)


@entry("unfold")
def _(d: Draw) -> Drawn:
    return [image(d, 2)], calling(F.unfold, d.int(1, 3), d.int(1, 1), d.int(0, 1), d.int(1, 2)), None


@entry("fold")
def _(d: Draw) -> Drawn:
    return [d.new((d.int(1, 2), 4 * d.int(1, 3), 12), d.dtype(FLOATS))], calling(F.fold, (4, 5), 2), None


@entry("unfold by steps")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3)
    dim = d.dim(k)
    if d.size(k)[dim] < 2:
        raise Unfit
    return [k], method("unfold", dim, d.int(1, d.size(k)[dim]), d.int(1, 3)), None


@entry("pad")
def _(d: Draw) -> Drawn:
    if d.flip(0.4):
        k = d.take(ANY, 1)
        amounts = (d.int(-1, 3), d.int(0, 3))
        if d.size(k)[-1] < 2:
            raise Unfit
        return [k], calling(F.pad, amounts, value=d.one([None, 1])), None
    spatial = d.int(1, 2)
    mode = d.one(["reflect", "replicate", "circular"])
    return [image(d, spatial)], calling(F.pad, tuple(d.int(0, 3) for _ in range(2 * spatial)), mode), None


def add_resize(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        spatial = d.int(1, 2)
        modes = ["nearest", "linear" if spatial == 1 else "bilinear"] + (["bicubic"] if spatial == 2 else [])
        mode = d.one([*modes, "area"] if name == "interpolate" else modes)
        more: dict[str, Any] = {"mode": mode}
        if mode not in ("nearest", "area"):
            more["align_corners"] = d.flip()
        more |= {"size": d.int(1, 9)} if d.flip() else {"scale_factor": d.one([2, 0.5, 1.5])}
        return [image(d, spatial)], calling(getattr(F, name), **more), None

    TABLE[name] = draw


add_resize("interpolate")
add_resize("upsample")


@entry("pixel_shuffle")
def _(d: Draw) -> Drawn:
    return (
        [d.new((d.int(1, 2), 4 * d.int(1, 2), d.int(1, 4), d.int(1, 4)), d.dtype(ANY))],
        calling(F.pixel_shuffle, 2),
        None,
    )


@entry("channel_shuffle")
def _(d: Draw) -> Drawn:
    groups = d.int(1, 3)
    x = d.new((d.int(1, 2), groups * d.int(1, 3), d.int(1, 4), d.int(1, 4)), d.dtype(ANY))
    return [x], calling(F.channel_shuffle, groups), None


@entry("multilabel_margin_loss")
def _(d: Draw) -> Drawn:
    n, c = d.int(1, 4), d.int(2, 5)
    target = np.stack([d.rng.permutation(c) for _ in range(n)])
    target[:, d.int(0, c) :] = -1
    args = [d.new((n, c), d.dtype(FLOATS)), d.put(target.astype(np.int64))]
    return args, calling(F.multilabel_margin_loss, reduction=d.one(["none", "mean", "sum"])), None


@entry("pixel_unshuffle")
def _(d: Draw) -> Drawn:
    k = d.new((d.int(1, 2), d.int(1, 3), 2 * d.int(1, 4), 2 * d.int(1, 4)), d.dtype(ANY))
    return [k], calling(F.pixel_unshuffle, 2), None


def add_norm(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = image(d, d.int(1, 2))
        c, dtype = d.size(k)[1], d.name(k)
        args = [k]
        if name in ("layer_norm", "rms_norm"):
            shape: tuple[int, ...] = d.size(k)[d.int(1, d.of(k).ndim - 1) :]
            args += [d.new(shape, dtype) for _ in range((2 if name == "layer_norm" else 1) * d.flip())]
            return args, calling_after(getattr(F, name), 1, shape), None
        args += [d.new((c,), dtype), d.new((c,), dtype)] if d.flip() else []
        if name == "group_norm":
            return args, calling_after(F.group_norm, 1, next(g for g in (3, 2, 1) if c % g == 0)), None
        if name == "batch_norm" and d.flip():

            def with_stats(x: Any, *rest: Any) -> Any:
                mean, var = kiln.zeros(c, dtype=x.dtype), kiln.ones(c, dtype=x.dtype)
                out = F.batch_norm(x, mean, var, *rest, training=training)
                return out, mean, var

            training = d.flip()
            return args, with_stats, None
        more = {"training": True} if name == "batch_norm" else {}
        return args, calling_after(getattr(F, name), 1, None, None, **more), None

    TABLE[name] = draw


def calling_after(fn: Run, n: int, *middle: Any, **named: Any) -> Run:
    """fn(first n operands, attributes, further operands)."""

    def run(*xs: Any) -> Any:
        return fn(*xs[:n], *middle, *xs[n:], **named)

    return run


for _name in ("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"):
    add_norm(_name)


@entry("local_response_norm")
def _(d: Draw) -> Drawn:
    return [image(d, d.int(1, 2))], calling(F.local_response_norm, d.int(1, 3)), None


@entry("normalize")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 1)
    return [k], calling(F.normalize, d.one([1.0, 2.0]), d.dim(k)), None


@entry("cosine_similarity")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 1)
    return [k, d.like(k)], calling(F.cosine_similarity, d.dim(k)), None


@entry("pairwise_distance")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 1)
    return [k, d.like(k)], calling(F.pairwise_distance, d.one([1.0, 2.0])), None


# ---- losses


def add_loss(
    name: str, *, third: bool = False, signs: bool = False, within: bool = False, reducible: bool = True
) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(FLOATS, 1, 3, want=lambda t: 0 not in t.shape)
        dtype = d.name(k)
        if within:
            k = d.new(d.size(k), dtype, positive=True)
        args = [k]
        if name in ("margin_ranking_loss",) or third:
            args.append(d.like(k))
        if signs:
            args.append(d.put(np.asarray(d.rng.choice([-1, 1], d.size(k))).astype("int64")))
        else:
            args.append(d.new(d.size(k), dtype, positive=True))
        if name == "gaussian_nll_loss":
            args.append(d.new(d.size(k), dtype, positive=True))
        return args, calling(getattr(F, name), reduction=d.one(["none", "mean", "sum"])), None

    TABLE[name] = draw


for _name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "kl_div", "poisson_nll_loss",
              "binary_cross_entropy_with_logits", "gaussian_nll_loss", "multilabel_soft_margin_loss"):  # fmt: skip
    add_loss(_name)
add_loss("binary_cross_entropy", within=True)
for _name in ("soft_margin_loss", "hinge_embedding_loss"):
    add_loss(_name, signs=True)
add_loss("margin_ranking_loss", signs=True)
for _name in ("triplet_margin_loss", "triplet_margin_with_distance_loss"):
    add_loss(_name, third=True)


@entry("cosine_embedding_loss")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 2, 2, want=lambda t: 0 not in t.shape)
    y = d.put(np.asarray(d.rng.choice([-1, 1], d.size(k)[0])).astype("int64"))
    return [k, d.like(k), y], calling(F.cosine_embedding_loss, 0.1), None


def add_class_loss(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(FLOATS, 2, 2, want=lambda t: 0 not in t.shape)
        labels = d.index(d.size(k)[1], d.size(k)[:1])
        more: dict[str, Any] = {"reduction": d.one(["none", "mean", "sum"])}
        if name == "cross_entropy":
            more |= {"label_smoothing": d.one([0.0, 0.1]), "ignore_index": d.one([-100, 0])}
        return [k, labels], calling(getattr(F, name), **more), None

    TABLE[name] = draw


for _name in ("cross_entropy", "nll_loss", "multi_margin_loss"):
    add_class_loss(_name)


# ---- random numbers (every run seeds the generator first)


def add_dropout(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = (
            image(d, 1)
            if name == "dropout1d"
            else image(d, 2)
            if "2d" in name or "feature" in name
            else d.take(FLOATS, 1)
        )
        if name == "dropout3d":
            k = d.new((d.int(1, 3), d.int(1, 5), 2, 3, 2), d.dtype(FLOATS))
        return [k], calling(getattr(F, name), d.one([0.0, 0.1, 0.5, 1.0]), True), None

    TABLE[name] = draw


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    add_dropout(_name)


@entry("bernoulli")
def _(d: Draw) -> Drawn:
    return [d.new(d.shape(d.int(1, 3)), d.dtype(FLOATS), positive=True)], either(d, "bernoulli"), None


@entry("multinomial")
def _(d: Draw) -> Drawn:
    k = d.new((d.int(1, 5), d.int(3, 17)), d.dtype(FLOATS), positive=True)
    return [k], either(d, "multinomial", d.int(1, 3), d.flip()), None


@entry("randint_like")
def _(d: Draw) -> Drawn:
    return [d.take(NUMERIC)], calling(kiln.randint_like, 0, 9), None


@entry("normal")
def _(d: Draw) -> Drawn:
    k = d.take(("float32", "float64"))
    return [k, d.new(d.size(k), d.name(k), positive=True)], calling(kiln.normal), None


def add_made(name: str) -> None:
    """Tensors made of nothing, added to an operand's value."""

    def draw(d: Draw) -> Drawn:
        dtype = getattr(kiln, d.dtype([x for x in ALL if x != "bool"] if name not in FLOAT_MADE else FLOATS))
        n, m = d.int(1, 9), d.int(1, 9)
        size = {"randint": (0, 9, (n, m)), "randperm": (n,), "arange": (n,), "linspace": (-1.5, 2.5, n),
                "logspace": (-1, 1, n), "full": ((n, m), 3), "eye": (n, m)}.get(name, (n, m))  # fmt: skip
        if name in ("tril_indices", "triu_indices"):
            return [], calling(getattr(kiln, name), n, m, d.int(-2, 2)), None
        if name == "randperm":
            dtype = kiln.int64
        return [], calling(getattr(kiln, name), *size, dtype=dtype), None

    TABLE[name] = draw


FLOAT_MADE = ("rand", "randn", "linspace", "logspace")
for _name in ("rand", "randn", "randint", "randperm", "arange", "linspace", "logspace", "full", "eye", "ones", "zeros",
              "tril_indices", "triu_indices"):  # fmt: skip
    add_made(_name)


@entry("full_like")
def _(d: Draw) -> Drawn:
    return [d.take(ANY)], calling(kiln.full_like, 1), None


@entry("cast")
def _(d: Draw) -> Drawn:
    name = str(d.rng.choice(ALL))
    to = getattr(kiln, name)
    return [d.take(ANY)], lambda x: x.to(to), as_dtype(name)


def as_dtype(name: str) -> Run:
    """NumPy's cast, by way of int64 where the values may not fit; 16-bit floats are rounded to nearest, even."""

    def cast(v: Any) -> Any:
        if name in HALVES:
            return widened(converted(v, DTYPES[name])).astype(np.float64)
        if name in INTS and v.dtype.kind == "f":
            v = v.astype(np.int64)
        found = v.astype(name)
        return found.astype(np.float64) if name in FLOATS else found

    return cast


@entry("as_tensor")
def _(d: Draw) -> Drawn:
    return [d.take(ANY)], calling(kiln.as_tensor), np.copy


# ---- writes: into a copy of an operand, through a view of it


def add_write(name: str, dtypes: Sequence[str], attributes: Sequence[Sequence[Any]]) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(dtypes, 1, 3)
        return [k], through(d.int(0, 4), method(name, *d.one(attributes))), None

    TABLE[name] = draw


for _name in ("fill_", "copy_"):
    add_write(_name, ANY, [(1,)])
add_write("zero_", ANY, [()])
add_write("uniform_", FLOATS, [(), (-1, 1)])
add_write("normal_", FLOATS, [(), (1, 2)])
add_write("bernoulli_", NUMERIC, [(), (0.3,)])
add_write("random_", NUMERIC, [(7,), (1, 5)])
add_write("exponential_", FLOATS, [()])
add_write("log_normal_", FLOATS, [()])
add_write("cauchy_", FLOATS, [()])
add_write("geometric_", FLOATS, [(0.4,)])


def add_tensor_write(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(NUMERIC, 1, 3, want=lambda t: 0 not in t.shape)
        dtype = d.name(k)
        if name == "masked_fill_":
            return [k, d.new(d.size(k), "bool")], through(0, method(name, 2)), None
        if name == "masked_scatter_":
            return [k, d.new(d.size(k), "bool"), d.like(k)], through(0, method(name)), None
        if name in ("put_", "index_put_"):
            n = d.size(k)[0] if name == "index_put_" else math.prod(d.size(k))
            i = d.index(n, (d.int(1, 9),))
            s = d.new(d.size(i) + (d.size(k)[1:] if name == "index_put_" else ()), dtype)
            add = d.flip()
            if name == "put_":
                return [k, i, s], through(0, method(name, accumulate=add)), None
            return [k, i, s], through(0, lambda x, i, s: x.index_put_((i,), s, add)), None
        dim = d.int(0, d.of(k).ndim - 1)
        shape = list(d.size(k))
        shape[dim] = d.int(1, 5)
        i = d.index(d.size(k)[dim], (shape[dim],) if name.startswith("index") else tuple(shape))
        s = d.new(tuple(shape), dtype)
        if name == "index_fill_":
            return [k, i], through(0, lambda x, i: x.index_fill_(dim, i, 3)), None
        more = {"reduce": "amax"} if "reduce" in name else {}
        return [k, i, s], through(0, lambda x, i, s: getattr(x, name)(dim, i, s, **more)), None

    TABLE[name] = draw


for _name in ("masked_fill_", "masked_scatter_", "put_", "index_put_", "scatter_", "scatter_add_", "scatter_reduce_",
              "index_add_", "index_copy_", "index_fill_", "index_reduce_"):  # fmt: skip
    add_tensor_write(_name)


@entry("write by index")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 3, want=lambda t: 0 not in t.shape)
    kind = d.int(0, 2)
    args = [k, d.like(k)] + ([d.new(d.size(k), "bool")] if kind == 2 else [])

    def run(x: Any, y: Any, *mask: Any) -> Any:
        out = x.clone()
        if kind == 0:
            out[::2] = y[::2]
        elif kind == 1:
            out[-1] = y[0]
        else:
            out[mask[0]] = 1
        return out

    return args, run, None


@entry("shared write")
def _(d: Draw) -> Drawn:
    """Into a value itself: all its views, earlier and later, see it."""
    k = d.take((*INTS, "bool"), 1, 3)
    kind = d.int(0, 3)

    def run(x: Any) -> Any:
        if kind == 0:
            x.fill_(1)
        elif kind == 1:
            x[1:].copy_(x[:-1].clone())
        elif kind == 2:
            x[..., ::2].zero_()
        else:
            x.transpose(0, -1).mul_(1)
        return x[:1]

    return [k], run, None


# ---- what only tensors have: methods and operators


def add_method(name: str, dtypes: Sequence[str], lo: int = 0) -> None:
    def draw(d: Draw) -> Drawn:
        return [d.take(dtypes, lo)], method(name), None

    TABLE[f"Tensor.{name}"] = draw


CASTS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64", "char": "int8",
         "byte": "uint8", "short": "int16", "int": "int32", "long": "int64", "bool": "bool"}  # fmt: skip


def add_cast(name: str, dtype: str) -> None:
    def draw(d: Draw) -> Drawn:
        return [d.take(ANY)], method(name), as_dtype(dtype)

    TABLE[f"Tensor.{name}"] = draw


add_method("contiguous", ANY)
for _name, _dtype in CASTS.items():
    add_cast(_name, _dtype)


def add_likeness(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1)
        other = d.like(k, ANY, same=False)
        return [k, other], method(name), None

    TABLE[f"Tensor.{name}"] = draw


for _name in ("expand_as", "reshape_as", "view_as", "type_as"):
    add_likeness(_name)


@entry("Tensor.repeat")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 0, 3)
    times = tuple(d.int(1, 3) for _ in range(d.of(k).ndim + d.int(0, 1)))
    return [k], method("repeat", *times), lambda v: np.tile(v, times)


@entry("Tensor.view")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    return [k], lambda x: x.clone().view(-1), None


@entry("Tensor.new_full")
def _(d: Draw) -> Drawn:
    shape = d.shape(2)
    return [d.take(NUMERIC)], lambda x: (x.new_full(shape, 3), x.new_zeros(shape), x.new_ones(shape)), None


@entry("Tensor.mT")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 2)], lambda x: x.mT, lambda v: np.swapaxes(v, -1, -2)


@entry("operators")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC)
    kind, number = d.int(0, 4), d.one([2, 3, -1, 0.5])

    def run(x: Any) -> Any:
        if kind == 0:
            return number - x
        if kind == 1:
            return number / x
        if kind == 2:
            return -x * number + x
        if kind == 3:
            return (x < number) == (x >= number)
        return x @ x.mT if x.ndim > 1 else abs(x) + number

    return [k], run, None
