"""vmap: what its function may do, against a call for each element; what it may not, and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
import kiln.nn.functional as NF
from kiln import nn
from tests.ops.test_declarations import same_bits

RNG = np.random.default_rng(11)
X = kiln.from_numpy(RNG.normal(size=(4, 3)))
W = kiln.from_numpy(RNG.normal(size=(5, 3)))
I = kiln.tensor([[0, 1], [1, 2], [2, 0], [1, 1]])  # noqa: E741


def written(x: Any) -> Any:
    y = x.clone()
    y[1:] = x[:2]
    y[0] += 1
    y.mul_(x)
    z = y.view(3, 1)
    z.add_(2)
    return y


def masked(x: Any) -> Any:
    y = x.clone()
    y[x > 0] = 0
    return y.masked_fill_(y < -1, 7.0)


def at_indices(x: Any, i: Any) -> Any:
    y = x.clone()
    y[i] = 5.0
    return y.scatter_add_(0, i, x[i])


def made(x: Any) -> Any:
    y = kiln.zeros_like(x)
    y[:2] = x[:2]
    return kiln.cat([y, x.new_ones(2).mul_(x[0]), kiln.full_like(x, 2.0).sub_(x)])


def attended(x: Any) -> Any:
    q = kiln.outer(x, x)
    return NF.scaled_dot_product_attention(q, q, q)


CELL = nn.GRUCell(3, 4).double()
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "arithmetic": (lambda x: (x * 2 - 1) / (x + 3.5) ** 2, (X,), 0),
    "two": (lambda a, b: (a * b).sum(), (X, X + 1), 0),
    "one is whole": (lambda a, w: w @ a, (X, W), (0, None)),
    "last dimensions": (lambda a, w: a @ w, (X.t(), X.t()), (1, -1)),
    "softmax": (lambda x: x.softmax(0).log(), (X,), 0),
    "statistics": (lambda x: kiln.stack([x.std(), x.median(), x.norm(), kiln.quantile(x, 0.3)]), (X,), 0),
    "sorting": (lambda x: kiln.cat([x.sort()[0], x.topk(2).values, x.kthvalue(2).values[None]]), (X,), 0),
    "indices": (lambda x, i: x[i], (X, I), 0),
    "indices of one table": (lambda x, i: x[i], (W, I), (None, 0)),
    "one index of many tables": (lambda x, i: x[i], (X, I[0]), (0, None)),
    "gather": (lambda x, i: x.gather(0, i) + x.take(i), (X, I), 0),
    "scatter": (at_indices, (X, I), 0),
    "embedding": (lambda i, w: NF.embedding(i, w), (I, W), (0, None)),
    "one hot": (lambda i: NF.one_hot(i, 3), (I,), 0),
    "mask": (masked, (X,), 0),
    "writes": (written, (X,), 0),
    "made inside": (made, (X,), 0),
    "shapes": (lambda x: x.reshape(3, 1).expand(3, 2).permute(1, 0).flatten()[::2].flip(0).roll(1), (X,), 0),
    "python": (lambda x: sum(x.unbind()) * len(x) + x.size(0) + max(x.shape), (X,), 0),
    "diagonals": (lambda x: kiln.diag(x).tril() + kiln.outer(x, x).triu().diagonal(), (X,), 0),
    "windows": (lambda x: x.unfold(0, 2, 1).sum(1), (X,), 0),
    "padding": (lambda x: NF.pad(x[None], (1, 2), mode="reflect"), (X,), 0),
    "resampling": (lambda x: NF.interpolate(x[None, None], size=5, mode="linear"), (X,), 0),
    "convolution": (lambda x: NF.conv1d(x[None, None], x[None, None, :2], padding=1), (X,), 0),
    "pooling": (lambda x: NF.max_pool1d(x[None], 2) + NF.avg_pool1d(x[None], 2), (X,), 0),
    "norms": (lambda x: NF.layer_norm(x, (3,)) + NF.normalize(x, dim=0), (X,), 0),
    "losses": (lambda x: NF.cross_entropy(x[None], kiln.tensor([1])) + NF.mse_loss(x, x * 2), (X,), 0),
    "matrices": (lambda x: kiln.linalg.solve(kiln.outer(x, x) + 2 * kiln.eye(3, dtype=x.dtype), x), (X,), 0),
    "spectrum": (lambda x: kiln.fft.rfft(x).abs(), (X,), 0),
    "complex": (lambda x: kiln.view_as_complex(x[:2].clone()).conj() * 2j, (X,), 0),
    "attention": (attended, (X,), 0),
    "a module": (lambda x: CELL(x), (X,), 0),
    "casts": (lambda x: (x * 10).to(kiln.int32).float().bool(), (X,), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_batched_is_each(name: str) -> None:
    function, args, dims = CALLS[name]
    each = (dims,) * len(args) if isinstance(dims, int) else dims
    parts = [x.unbind(d) if d is not None else None for x, d in zip(args, each, strict=True)]
    elements = [[x if p is None else p[k] for x, p in zip(args, parts, strict=True)] for k in range(4)]
    wanted = np.stack([function(*e).detach().numpy() for e in elements])
    for transformed in (
        kiln.vmap(function, in_dims=dims),
        kiln.vmap(function, in_dims=dims, chunk_size=3),
        kiln.compile(kiln.vmap(function, in_dims=dims)),
        kiln.vmap(kiln.compile(function), in_dims=dims),
    ):
        for _ in range(2):
            assert same_bits(transformed(*args).detach().numpy(), wanted)


def test_nested() -> None:
    a, b = kiln.from_numpy(RNG.normal(size=(2, 3, 4))), kiln.from_numpy(RNG.normal(size=(5, 4)))
    pairs = kiln.vmap(kiln.vmap(kiln.vmap(kiln.dot, (None, 0)), (0, None)), (0, None))(a, b)
    np.testing.assert_allclose(pairs.numpy(), np.einsum("ijk,lk->ijl", a.numpy(), b.numpy()), rtol=1e-12)
    assert kiln.vmap(kiln.vmap(lambda x: x), in_dims=1, out_dims=1)(a).tolist() == a.tolist()


def test_places_and_nests() -> None:
    out = kiln.vmap(lambda d, n: {"x": (d["a"] * n, d["b"])}, in_dims=({"a": 1, "b": 0}, None), out_dims=-1)(
        {"a": X.t(), "b": X}, 3
    )
    assert out["x"][0].tolist() == (X.t() * 3).tolist() and out["x"][1].tolist() == X.t().tolist()
    one, two = kiln.vmap(lambda x: (x, x.sum()), out_dims=(1, 0))(X)
    assert one.tolist() == X.t().tolist() and two.shape == (4,)
    same, constant = kiln.vmap(lambda x, w: (w, 7), in_dims=(0, None), out_dims=None)(X, W)
    assert same is W and constant == 7
    assert kiln.vmap(lambda x: kiln.ones(2))(X).shape == (4, 2)
    assert kiln.vmap(lambda x, *, k: k @ x)(X, k=W).shape == (4, 5)
    assert kiln.vmap(lambda x: x * 2)(X[:0]).shape == (0, 3)
    assert kiln.vmap(lambda x: x[0])(X.t()[:, :0].t()).shape == (0,)


def test_writes_to_an_argument_reach_it() -> None:
    y = X.clone()
    kiln.vmap(lambda x: x.add_(1), in_dims=1)(y)
    assert y.tolist() == (X + 1).tolist()


def test_gradients_flow_through() -> None:
    x, w = X.clone().requires_grad_(), W[0].clone().requires_grad_()
    kiln.vmap(lambda x: (x * w).sin().sum())(x).sum().backward()
    slope = (X * W[0]).cos()
    np.testing.assert_allclose(x.grad.numpy(), (slope * W[0]).numpy(), rtol=1e-12)
    np.testing.assert_allclose(w.grad.numpy(), (slope * X).sum(0).numpy(), rtol=1e-12)
    inside = kiln.vmap(lambda x: kiln.grad((y := x.detach().requires_grad_()).pow(3).sum(), y)[0])(X)
    np.testing.assert_allclose(inside.numpy(), 3 * X.numpy() ** 2, rtol=1e-12)


def test_randomness() -> None:
    def draw(x: Any) -> Any:
        return x * 0 + kiln.rand(3, dtype=kiln.float64)

    kiln.manual_seed(4)
    different = kiln.vmap(draw, randomness="different")(X)
    after = kiln.rand(2)
    kiln.manual_seed(4)
    assert (
        different.tolist() == kiln.rand(4, 3, dtype=kiln.float64).tolist() and after.tolist() == kiln.rand(2).tolist()
    )
    kiln.manual_seed(4)
    same = kiln.vmap(draw, randomness="same")(X)
    kiln.manual_seed(4)
    assert same.tolist() == [kiln.rand(3, dtype=kiln.float64).tolist()] * 4
    kiln.manual_seed(1)
    compiled = kiln.compile(kiln.vmap(draw, randomness="different"))
    drawn = [compiled(X).tolist(), compiled(X).tolist()]
    kiln.manual_seed(1)
    assert drawn == [kiln.vmap(draw, randomness="different")(X).tolist() for _ in range(2)]
    kept = kiln.vmap(lambda x: NF.dropout(x, 0.5), randomness="different")(kiln.ones(8, 64))
    assert 0.3 < float((kept != 0).float().mean()) < 0.7 and kept[0].tolist() != kept[1].tolist()
    for function in (
        lambda x: kiln.bernoulli(x.sigmoid()),
        lambda x: kiln.multinomial(x.sigmoid(), 2),
        lambda x: x.clone().normal_(),
        lambda x: kiln.randperm(3),
        lambda x: kiln.poisson(x.exp()),
    ):
        found = kiln.vmap(function, randomness="different")(X)
        assert found.shape[0] == 4
        with pytest.raises(kiln.errors.TransformError, match="randomness"):
            kiln.vmap(function)(X)


Z = kiln.zeros(3, dtype=kiln.float64)
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "item": (lambda x: x.sum().item(), r"item\(\)"),
    "bool": (lambda x: x if x.sum() > 0 else -x, r"bool\(\)"),
    "int": (lambda x: int(x.sum()), r"item\(\)"),
    "numpy": (lambda x: x.numpy(), r"numpy\(\)"),
    "tolist": (lambda x: x.tolist(), r"tolist\(\)"),
    "mask": (lambda x: x[x > 0], "bool mask"),
    "nonzero": (lambda x: x.nonzero(), r"nonzero\(\)"),
    "unique": (lambda x: x.unique(), r"unique\(\)"),
    "address": (lambda x: x.data_ptr(), r"data_ptr\(\)"),
    "captured": (lambda x: Z.add_(x), "in-place write"),
    "not like": (lambda x: kiln.zeros(3, dtype=kiln.float64).copy_(x), "in-place write"),
    "part": (lambda x: kiln.zeros(3, dtype=kiln.float64)[1:].mul_(x[1:]), "in-place write"),
    "random": (lambda x: x + kiln.rand(3), "randomness"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_line(name: str) -> None:
    function, match = REFUSED[name]
    with pytest.raises(kiln.errors.TransformError, match=match) as caught:
        kiln.vmap(function)(X)
    assert caught.value.loc is not None and caught.value.loc.file.endswith("test_vmap.py")
    assert isinstance(caught.value, RuntimeError)
    assert Z.tolist() == [0.0, 0.0, 0.0]


def test_what_is_kept_is_dead() -> None:
    kept: list[Any] = []
    kiln.vmap(lambda x: (kept.append(x), x)[1])(X)
    assert "vmap float64[3]" in repr(kept[0])
    with pytest.raises(kiln.errors.TransformError, match="after the transform was over"):
        kept[0] + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: kiln.vmap(lambda a, b: a)(X, W),
        lambda: kiln.vmap(lambda a, b: a, in_dims=(0,))(X, X),
        lambda: kiln.vmap(lambda a: a, in_dims=2)(X),
        lambda: kiln.vmap(lambda a: a, in_dims="0")(X),
        lambda: kiln.vmap(lambda a: a, in_dims=None)(X),
        lambda: kiln.vmap(lambda a: a, in_dims=({"x": 0},))(X),
        lambda: kiln.vmap(lambda a: a, in_dims=(None,))(X),
        lambda: kiln.vmap(lambda a: a)(3),
        lambda: kiln.vmap(lambda: 3)(),
        lambda: kiln.vmap(lambda a: 3)(X),
        lambda: kiln.vmap(lambda a: None)(X),
        lambda: kiln.vmap(lambda a: a, out_dims=None)(X),
        lambda: kiln.vmap(lambda a: a, out_dims=(0, 0))(X),
        lambda: kiln.vmap(lambda a: a, out_dims=2)(X),
        lambda: kiln.vmap(lambda a: a, randomness="some"),
        lambda: kiln.vmap(lambda a: a, chunk_size=0),
    ],
)
def test_arguments_are_checked(call: Any) -> None:
    with pytest.raises(kiln.InvalidValueError, match="vmap"):
        call()
