"""Packed sequences against sequences alone, shapes and states, errors, training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn.utils import rnn as R


def same(a: Any, b: Any) -> None:
    assert a.shape == b.shape and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


def parts(x: Any) -> list[Any]:
    return list(x) if isinstance(x, tuple) else [x]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
def test_packed_sequences_are_the_sequences_alone(kind: str, given: bool) -> None:
    kiln.manual_seed(0)
    layer = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True)
    lengths = [2, 5, 1, 5, 3]
    alone = [kiln.randn(n, 3) for n in lengths]
    hx = [kiln.randn(4, 5, 4) for _ in range(2 if kind == "LSTM" else 1)] if given else None
    state: Any = None if hx is None else tuple(hx) if kind == "LSTM" else hx[0]
    packed = R.pack_sequence(alone, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [5, 4, 3, 2, 2]
    out, last = layer(packed, state)
    padded, found = R.pad_packed_sequence(out)
    assert found.tolist() == lengths and padded.shape == (5, 5, 8)
    for k, x in enumerate(alone):
        begin = None if hx is None else tuple(h[:, k] for h in hx) if kind == "LSTM" else hx[0][:, k]
        wanted, end = layer(x, begin)
        same(padded[: lengths[k], k], wanted)
        assert not padded[lengths[k] :, k].any().item()
        for a, b in zip(parts(last), parts(end), strict=True):
            same(a[:, k], b)


def test_gradients_reach_packed_sequences() -> None:
    layer = nn.LSTM(2, 3, bidirectional=True)
    x = kiln.randn(4, 2, 2, requires_grad=True)
    out, (h, _) = layer(R.pack_padded_sequence(x, [4, 2]))
    (R.pad_packed_sequence(out)[0].sum() + h.sum()).backward()
    assert x.grad is not None
    g = x.grad.numpy()
    assert g[:2].all() and g[2:, 0].all() and not g[2:, 1].any()


def test_packing_and_padding() -> None:
    a, b, c = kiln.tensor([1, 2, 3]), kiln.tensor([4, 5]), kiln.tensor([6])
    padded = R.pad_sequence([b, a, c])
    assert padded.tolist() == [[4, 1, 6], [5, 2, 0], [0, 3, 0]]
    assert R.pad_sequence([c, b], batch_first=True, padding_value=9, padding_side="left").tolist() == [[9, 6], [4, 5]]
    packed = R.pack_padded_sequence(padded, kiln.tensor([2, 3, 1]), enforce_sorted=False)
    assert packed.data.tolist() == [1, 4, 6, 2, 5, 3] and packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 2]  # type: ignore[union-attr]
    assert [x.tolist() for x in R.unpack_sequence(packed)] == [[4, 5], [1, 2, 3], [6]]
    back, lengths = R.pad_packed_sequence(packed, batch_first=True, padding_value=-1, total_length=4)
    assert back.tolist() == [[4, 5, -1, -1], [1, 2, 3, -1], [6, -1, -1, -1]] and lengths.tolist() == [2, 3, 1]
    assert packed.to(kiln.float64).data.dtype is kiln.float64 and packed.cpu() is packed
    assert R.invert_permutation(kiln.tensor([2, 0, 1])).tolist() == [1, 2, 0]  # type: ignore[union-attr]
    rebuilt = R.PackedSequence(packed.data, packed.batch_sizes)
    assert rebuilt.sizes() == [3, 2, 1] and R.pad_packed_sequence(rebuilt)[0].tolist()[0] == [1, 4, 6]


def test_packing_in_a_compiled_call() -> None:
    layer = nn.GRU(2, 3)

    def run(x: kiln.Tensor) -> kiln.Tensor:
        out, h = layer(R.pack_padded_sequence(x, [3, 1]))
        return R.pad_packed_sequence(out)[0].sum() + h.sum()

    compiled = kiln.compile(run)
    for _ in range(2):
        x = kiln.randn(3, 2, 2)
        same(compiled(x), run(x))


def test_training_step_compiled() -> None:
    def losses(compiled: bool) -> list[float]:
        kiln.manual_seed(4)
        net, head = nn.LSTM(3, 8, num_layers=2, dropout=0.3), nn.Linear(8, 1)
        opt = kiln.optim.Adam([*net.parameters(), *head.parameters()], lr=0.02)
        x = kiln.randn(6, 4, 3)
        y = x.sum((0, 2)).reshape(4, 1)

        def step() -> kiln.Tensor:
            loss = nn.functional.mse_loss(head(net(x)[0][-1]), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        return [f().item() for _ in range(12)]

    eager = losses(False)
    assert eager[-1] < eager[0] and losses(True) == eager


def test_names_shapes_and_representation() -> None:
    layer = nn.LSTM(2, 3, 2, bidirectional=True, proj_size=1)
    assert repr(layer) == "LSTM(2, 3, proj_size=1, num_layers=2, bidirectional=True)"
    assert layer.weight_ih_l1_reverse.shape == (12, 2) and layer.weight_hr_l0.shape == (1, 3)
    assert [len(w) for w in layer.all_weights] == [5] * 4
    bound = 1 / math.sqrt(3)
    assert all(abs(p.detach().numpy()).max() <= bound for p in layer.parameters())
    out, (h, c) = layer(kiln.randn(4, 5, 2))
    assert out.shape == (4, 5, 2) and h.shape == (4, 5, 1) and c.shape == (4, 5, 3)
    assert repr(nn.GRUCell(2, 3, bias=False)) == "GRUCell(2, 3, bias=False)"
    assert repr(nn.RNNCell(2, 3, nonlinearity="relu")) == "RNNCell(2, 3, nonlinearity=relu)"
    assert nn.GRU(2, 3, batch_first=True)(kiln.randn(4, 5, 2))[0].shape == (4, 5, 3)
    with pytest.warns(UserWarning, match="lies between layers"):
        nn.GRU(2, 3, dropout=0.5)


def test_a_step_does_not_depend_on_the_batch() -> None:
    layer = nn.LSTM(3, 5)
    x = kiln.randn(4, 6, 3)
    out, _ = layer(x)
    same(out[:, 2], layer(x[:, 2])[0])
    cell = nn.LSTMCell(3, 5)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    state: Any = None
    for t in range(4):
        state = cell(x[t], state)
        assert np.array_equal(state[0].detach().numpy(), out[t].detach().numpy())


x3 = kiln.ones(2, 2, 3)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), kiln.InvalidValueError),
        (lambda: nn.RNN(3, 0), kiln.InvalidValueError),
        (lambda: nn.RNN(3.0, 4), kiln.ArgumentError),
        (lambda: nn.LSTM(3, 4, proj_size=4), kiln.InvalidValueError),
        (lambda: nn.LSTM(3, 4, dropout=2.0), kiln.InvalidValueError),
        (lambda: nn.RNNBase("ABC", 3, 4), kiln.InvalidValueError),
        (lambda: nn.GRU(4, 4)(x3), kiln.ShapeError),
        (lambda: nn.GRU(3, 4)(kiln.ones(3)), kiln.ShapeError),
        (lambda: nn.GRU(3, 4)(kiln.ones(0, 2, 3)), kiln.ShapeError),
        (lambda: nn.GRU(3, 4)(x3, kiln.ones(1, 3, 4)), kiln.ShapeError),
        (lambda: nn.GRU(3, 4)([1.0]), kiln.ArgumentError),
        (lambda: nn.LSTM(3, 4)(x3, (kiln.ones(1, 2, 4),)), kiln.ArgumentError),
        (lambda: nn.LSTMCell(3, 4)(kiln.ones(2, 4)), kiln.ShapeError),
        (lambda: nn.GRUCell(3, 4)(kiln.ones(2, 3), kiln.ones(1, 4)), kiln.ShapeError),
        (lambda: R.pack_padded_sequence(x3, [1, 2]), kiln.InvalidValueError),
        (lambda: R.pack_padded_sequence(x3, [2, 0]), kiln.InvalidValueError),
        (lambda: R.pack_padded_sequence(x3, [2, 3], enforce_sorted=False), kiln.InvalidValueError),
        (lambda: R.pack_padded_sequence(x3, [2]), kiln.ShapeError),
        (lambda: R.pad_packed_sequence(R.pack_padded_sequence(x3, [2, 1]), total_length=1), kiln.InvalidValueError),
        (lambda: R.pad_sequence([]), kiln.ArgumentError),
        (lambda: R.pad_sequence([kiln.ones(2, 3), kiln.ones(2, 4)]), kiln.ShapeError),
        (lambda: R.pad_sequence([kiln.ones(2)], padding_side="top"), kiln.InvalidValueError),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
