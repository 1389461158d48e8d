"""Functions that torch has at its top level beside those of nn.functional, methods as functions, copies of views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
import kiln.nn.functional as F
from kiln import free, nn


def drawn(*shape: int, seed: int = 0) -> kiln.Tensor:
    return kiln.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=kiln.float32)


X, Y, Z = drawn(3, 4), drawn(3, 4, seed=1), drawn(3, 4, seed=2)
IMAGES, CHANNELS = drawn(2, 4, 5, 5), (drawn(4, seed=3), drawn(4, seed=4), drawn(4, seed=5), drawn(4, seed=6).exp())
SIGNS = kiln.tensor([1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: kiln.layer_norm(X, (4,), CHANNELS[0]), lambda: F.layer_norm(X, (4,), CHANNELS[0])),
        (lambda: kiln.group_norm(IMAGES, 2, *CHANNELS[:2]), lambda: F.group_norm(IMAGES, 2, *CHANNELS[:2])),
        (
            lambda: kiln.batch_norm(IMAGES, *CHANNELS, False, 0.1, 1e-5),
            lambda: F.batch_norm(IMAGES, CHANNELS[2], CHANNELS[3], CHANNELS[0], CHANNELS[1]),
        ),
        (
            lambda: kiln.instance_norm(IMAGES, *CHANNELS[:2], None, None, True, 0.1, 1e-5),
            lambda: F.instance_norm(IMAGES, weight=CHANNELS[0], bias=CHANNELS[1]),
        ),
        (lambda: kiln.embedding(X, kiln.tensor([2, 0])), lambda: X[[2, 0]]),
        (lambda: kiln.dropout(X, 0.5, False), lambda: X),
        (lambda: kiln.constant_pad_nd(X, (1, 2), 3.0), lambda: F.pad(X, (1, 2), value=3.0)),
        (lambda: kiln.adaptive_max_pool1d(X, 2)[0], lambda: F.adaptive_max_pool1d(X, 2)),
        (lambda: kiln.max_pool1d_with_indices(X, 2)[0], lambda: F.max_pool1d(X, 2)),
        (lambda: kiln.kl_div(X, Y.exp(), 2), lambda: F.kl_div(X, Y.exp(), reduction="sum")),
        (
            lambda: kiln.binary_cross_entropy_with_logits(X, Y.sigmoid(), None, Z.exp(), 0),
            lambda: F.binary_cross_entropy_with_logits(X, Y.sigmoid(), reduction="none", pos_weight=Z.exp()),
        ),
        (
            lambda: kiln.cosine_embedding_loss(X, Y, SIGNS, 0.1),
            lambda: F.cosine_embedding_loss(X, Y, SIGNS, margin=0.1),
        ),
        (
            lambda: kiln.hinge_embedding_loss(X[0, :3], SIGNS, 0.5, 0),
            lambda: F.hinge_embedding_loss(X[0, :3], SIGNS, margin=0.5, reduction="none"),
        ),
        (
            lambda: kiln.margin_ranking_loss(X[:, 0], Y[:, 0], SIGNS, 0.5, 2),
            lambda: F.margin_ranking_loss(X[:, 0], Y[:, 0], SIGNS, margin=0.5, reduction="sum"),
        ),
        (lambda: kiln.poisson_nll_loss(X, Y.exp(), True, False, 1e-8, 1), lambda: F.poisson_nll_loss(X, Y.exp())),
        (lambda: kiln.triplet_margin_loss(X, Y, Z, 2.0), lambda: F.triplet_margin_loss(X, Y, Z, margin=2.0)),
        (lambda: kiln.frobenius_norm(X, (0, 1)), lambda: kiln.linalg.matrix_norm(X)),
        (lambda: kiln.nuclear_norm(X), lambda: kiln.linalg.svdvals(X).sum()),
        (lambda: kiln.threshold(X, 0.1, 7.0), lambda: F.threshold(X, 0.1, 7.0)),
        (lambda: kiln.cosine_similarity(X, Y), lambda: F.cosine_similarity(X, Y)),
        (lambda: kiln.celu_(X.clone()), lambda: F.celu(X)),
        (lambda: kiln.threshold_(X.clone(), 0.1, 7.0), lambda: F.threshold(X, 0.1, 7.0)),
    ],
)
def test_as_in_nn_functional(theirs: Any, ours: Any) -> None:
    np.testing.assert_allclose(theirs().numpy(), ours().numpy(), rtol=1e-6)


def test_reductions_are_numbers() -> None:
    with pytest.raises(kiln.InvalidValueError, match="kl_div: 3 is no reduction"):
        kiln.kl_div(X, Y, 3)


def test_dropout() -> None:
    kiln.manual_seed(0)
    kept = (kiln.feature_dropout(kiln.ones(4, 50, 3), 0.5, True) != 0).sum(2)
    assert set(kept.reshape(-1).tolist()) == {0, 3}
    x = kiln.ones(100)
    assert kiln.dropout_(x, 0.5, True) is x and set(x.tolist()) == {0.0, 2.0}


def test_cells() -> None:
    x, h, c = drawn(2, 3), drawn(2, 4, seed=1), drawn(2, 4, seed=2)
    lstm, gru, tanh, relu = nn.LSTMCell(3, 4), nn.GRUCell(3, 4), nn.RNNCell(3, 4), nn.RNNCell(3, 4, nonlinearity="relu")

    def of(cell: Any) -> tuple[Any, ...]:
        return cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh

    for got, wanted in zip(kiln.lstm_cell(x, (h, c), *of(lstm)), lstm(x, (h, c)), strict=True):
        assert got.tolist() == wanted.tolist()
    assert kiln.gru_cell(x, h, *of(gru)).tolist() == gru(x, h).tolist()
    assert kiln.rnn_tanh_cell(x, h, *of(tanh)).tolist() == tanh(x, h).tolist()
    assert kiln.rnn_relu_cell(x, h, *of(relu)).tolist() == relu(x, h).tolist()


def test_methods_as_functions() -> None:
    for name in free.__all__:
        assert getattr(kiln, name) is getattr(kiln.Tensor, name)
    x = kiln.tensor([-1.0, 2.0])
    assert kiln.relu_(x) is x and x.tolist() == [0.0, 2.0]
    assert kiln.zero_(kiln.fill_(x, 3)).tolist() == [0.0, 0.0]
    assert kiln.is_signed(x) and kiln.is_same_size(x, x) and not kiln.is_nonzero(x[0]) and kiln.get_device(x) == -1


# ------------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize(
    ("name", "view", "args"),
    [
        ("alias_copy", lambda x: x, ()),
        ("detach_copy", lambda x: x, ()),
        ("diagonal_copy", lambda x: np.diagonal(x, 1), (1,)),
        ("expand_copy", lambda x: np.broadcast_to(x, (2, 3, 4)), ((2, 3, 4),)),
        ("narrow_copy", lambda x: x[:, 1:3], (1, 1, 2)),
        ("permute_copy", lambda x: x.T, ((1, 0),)),
        ("select_copy", lambda x: x[:, 2], (1, 2)),
        ("slice_copy", lambda x: x[:, 1:4:2], (1, 1, 4, 2)),
        ("squeeze_copy", lambda x: x, ()),
        ("t_copy", lambda x: x.T, ()),
        ("transpose_copy", lambda x: x.T, (0, 1)),
        ("unsqueeze_copy", lambda x: x[:, None], (1,)),
        ("view_copy", lambda x: x.reshape(4, 3), ((4, 3),)),
        ("as_strided_copy", lambda x: x.reshape(-1)[1::5][:2], ((2,), (5,), 1)),
    ],
)
def test_copies(name: str, view: Any, args: Any) -> None:
    x = drawn(3, 4)
    made = getattr(kiln, name)(x, *args)
    assert np.array_equal(made.numpy(), view(x.numpy()))
    made.fill_(9.0)
    assert 9.0 not in x.numpy()
    if name != "as_strided_copy":
        compiled = kiln.compile(getattr(kiln, name))
        for _ in range(2):
            assert np.array_equal(compiled(x, *args).numpy(), view(x.numpy()))


def test_copies_of_parts() -> None:
    x = drawn(3, 4)
    for made in (kiln.split_copy(x, 2), kiln.unsafe_split(x, 2), kiln.unsafe_split_with_sizes(x, [2, 1])):
        assert [t.tolist() for t in made] == [x[:2].tolist(), x[2:].tolist()]
        made[0].zero_()
    assert [t.tolist() for t in kiln.unbind_copy(x)] == x.tolist()
    assert [t.shape for t in kiln.unsafe_chunk(x, 2, 1)] == [(3, 2), (3, 2)]
    z = kiln.complex(x, x)
    assert kiln.view_as_real_copy(z).shape == (3, 4, 2) and kiln.view_as_complex_copy(drawn(3, 2)).shape == (3,)
    w = drawn(3, 4).requires_grad_()
    kiln.narrow_copy(w, 0, 0, 1).sum().backward()
    assert w.grad is not None and w.grad.sum(1).tolist() == [4.0, 0.0, 0.0]


def test_as_strided_scatter() -> None:
    x = kiln.zeros(2, 3)
    made = kiln.as_strided_scatter(x, kiln.tensor([1.0, 2.0]), (2,), (4,), 1)
    assert made.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]] and x.sum() == 0


@pytest.mark.parametrize("data", [[0, 3, 5, 0, 7], [[1, 0], [0, 2]], [], 5, 0, [[True, False]]])
@pytest.mark.parametrize("size", [0, 1, 3, 8])
def test_nonzero_static(data: Any, size: int) -> None:
    x = kiln.tensor(data)
    found = np.argwhere(x.numpy())[:size]
    wanted = np.vstack([found, np.full((size - len(found), x.ndim), -1)])
    made = kiln.nonzero_static(x, size=size)
    assert made.dtype is kiln.int64 and made.shape == wanted.shape and np.array_equal(made.numpy(), wanted)
    compiled = kiln.compile(lambda x: kiln.nonzero_static(x, size=size))
    assert np.array_equal(compiled(x).numpy(), wanted) and np.array_equal(compiled(x).numpy(), wanted)


def test_numbers() -> None:
    assert kiln.rsub(kiln.tensor([1.0, 2.0]), 5, alpha=2).tolist() == [3.0, 1.0]
    assert kiln.range(1, 4).tolist() == [1.0, 2.0, 3.0, 4.0] and kiln.range(0, 1, 0.4).shape == (3,)
    assert kiln.range(3, 1, -1, dtype=kiln.int64).tolist() == [3, 2, 1]
    with pytest.raises(kiln.InvalidValueError, match="range: no steps"):
        kiln.range(1, 3, -1)
    assert kiln.scalar_tensor(3).dtype is kiln.scalar_tensor(True).dtype is kiln.float32
    assert kiln.scalar_tensor(3, dtype=kiln.int8).item() == 3
    x = kiln.zeros(2)
    assert kiln.fill(x, 3).tolist() == [3.0, 3.0] and x.tolist() == [0.0, 0.0]
    made = kiln.empty_permuted((2, 3, 4), (1, 2, 0))
    assert made.shape == (2, 3, 4) and made.stride() == (1, 8, 2)
    with pytest.raises(kiln.InvalidValueError, match="no order"):
        kiln.empty_permuted((2, 3), (0, 0))


def test_methods_of_copies() -> None:
    x = kiln.tensor([[6.0, 4.0], [0.0, 9.0]])
    assert x.narrow_copy(0, 0, 1).tolist() == [[6.0, 4.0]] and x.nonzero_static(size=1).tolist() == [[0, 0]]
    assert (
        [t.tolist() for t in x.unsafe_split(1)] == [t.tolist() for t in x.unsafe_chunk(2)] == [[r] for r in x.tolist()]
    )
    n = kiln.tensor([6, 4])
    assert n.gcd_(kiln.tensor([4, 6])).tolist() == [2, 2] and kiln.lcm_(n, kiln.tensor([3, 5])).tolist() == [6, 10]
    y = kiln.tensor([3.0])
    assert kiln.i0_(y.clone()).tolist() == y.i0().tolist() and y.clone().mvlgamma_(2).tolist() == y.mvlgamma(2).tolist()
    assert x.to_dense() is x and not x.is_neg() and not x.is_distributed()
