"""Tables: initial values, pretrained ones, numbers out of range, empty bags, training."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
from kiln import nn

F = nn.functional


def test_tables_start_and_show() -> None:
    kiln.manual_seed(0)
    layer = nn.Embedding(400, 50, padding_idx=-1)
    values = layer.weight.detach().numpy()
    assert not values[399].any() and values[:399].std() == pytest.approx(1.0, abs=0.02)
    assert repr(layer) == "Embedding(400, 50, padding_idx=399)"
    assert repr(nn.Embedding(3, 2, max_norm=1.0, norm_type=1.0)) == "Embedding(3, 2, max_norm=1.0, norm_type=1.0)"
    assert repr(nn.EmbeddingBag(3, 2, mode="sum", padding_idx=0)) == "EmbeddingBag(3, 2, mode='sum', padding_idx=0)"
    assert list(layer.state_dict()) == ["weight"]


def test_pretrained_tables() -> None:
    table = kiln.randn(4, 2)
    frozen = nn.Embedding.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.data_ptr() == table.data_ptr()
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    bag = nn.EmbeddingBag.from_pretrained(table, mode="sum")
    assert not bag.weight.requires_grad
    x = kiln.tensor([[1, 1, 3]])
    assert bag(x).tolist() == (frozen(x)[:, 0] + frozen(x)[:, 1] + frozen(x)[:, 2]).tolist()


def test_the_padding_row_is_not_trained() -> None:
    layer = nn.Embedding(3, 2, padding_idx=1)
    layer(kiln.tensor([0, 1, 1, 2, 2])).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]  # type: ignore[union-attr]


def test_layouts_of_bags_agree() -> None:
    w = kiln.randn(9, 4)
    x = kiln.tensor([[1, 8, 2], [0, 0, 5]])
    for mode in ("sum", "mean", "max"):
        rows = F.embedding_bag(x, w, mode=mode)
        flat = F.embedding_bag(x.reshape(-1), w, kiln.tensor([0, 3]), mode=mode)
        assert rows.tolist() == flat.tolist()
        assert F.embedding_bag(kiln.zeros(0, dtype=kiln.int64), w, kiln.tensor([0, 0]), mode=mode).tolist() == (
            [[0.0] * 4] * 2
        )
        padded = F.embedding_bag(kiln.tensor([[3, 3]]), w, mode=mode, padding_idx=3)
        assert padded.tolist() == [[0.0] * 4]


def test_training_step_compiled() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(0)
        net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 1))
        opt = kiln.optim.Adam(net.parameters(), lr=0.05)
        y = kiln.randn(5, 1)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            loss = F.mse_loss(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        x = kiln.tensor([[1, 2, 2], [9, 0, 0], [3, 3, 3], [4, 5, 6], [7, 8, 1]])
        return [[f(x).item() for _ in range(5)], net[0].weight.tolist()]

    assert run(True) == run(False)


def test_rows_of_bounded_length_train_compiled() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(0)
        layer = nn.Embedding(5, 3, max_norm=0.7)
        opt = kiln.optim.SGD(layer.parameters(), lr=0.5)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            loss = (layer(x) - 1.0).square().sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss.detach()

        f = kiln.compile(step) if compiled else step
        x = kiln.tensor([1, 1, 4])
        return [[f(x).item() for _ in range(4)], layer.weight.tolist()]

    assert run(True) == run(False)


w = kiln.randn(3, 2)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: F.embedding(kiln.tensor([3]), w), kiln.KilnIndexError),
        (lambda: F.embedding(kiln.tensor([-1]), w), kiln.KilnIndexError),
        (lambda: F.embedding(kiln.tensor([0]), w, sparse=True), kiln.NotYetError),
        (lambda: F.embedding(kiln.tensor([0]), w, scale_grad_by_freq=True), kiln.NotYetError),
        (lambda: F.embedding_bag(kiln.tensor([3]), w, kiln.tensor([0])), kiln.KilnIndexError),
        (lambda: F.embedding_bag(kiln.tensor([0]), w), kiln.ShapeError),
        (lambda: F.embedding_bag(kiln.tensor([[0]]), w, kiln.tensor([0])), kiln.ArgumentError),
        (lambda: F.embedding_bag(kiln.tensor([0]), w, kiln.ones(1)), kiln.DTypeError),
        (lambda: F.embedding_bag(kiln.tensor([[0]]), w, mode="min"), kiln.InvalidValueError),
        (lambda: F.embedding_bag(kiln.tensor([[0]]), w, per_sample_weights=kiln.ones(1, 1)), kiln.InvalidValueError),
        (lambda: F.embedding_bag(kiln.tensor([[0]]), w, padding_idx=3), kiln.KilnIndexError),
        (lambda: nn.Embedding(3, 2, padding_idx=3), kiln.InvalidValueError),
        (lambda: nn.Embedding(3, 2, _weight=kiln.ones(2, 3)), kiln.ShapeError),
        (lambda: nn.Embedding.from_pretrained(kiln.ones(2)), kiln.ShapeError),
        (lambda: nn.EmbeddingBag(3, 2, mode="min"), kiln.InvalidValueError),
        (lambda: nn.Embedding(3.0, 2), kiln.ArgumentError),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
