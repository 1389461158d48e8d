"""Tensors as values: creation, memory, indexing, in-place writes, conversion, printing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import kiln


def same(t: Any, expected: Any, dtype: Any = None) -> None:
    """Equal dtype, shape and bits (NaNs count as equal)."""
    array = np.asarray(expected) if dtype is None else np.asarray(expected, dtype)
    got = t.detach().numpy()
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array, strict=True)


class TestCreation:
    def test_default_dtypes(self) -> None:
        assert kiln.tensor(1.5).dtype is kiln.float32
        assert kiln.tensor([1, 2]).dtype is kiln.int64
        assert kiln.tensor([True]).dtype is kiln.bool
        assert kiln.tensor([1, 2.5]).dtype is kiln.float32
        assert kiln.tensor([]).dtype is kiln.float32
        assert kiln.tensor(np.zeros(2)).dtype is kiln.float64

    def test_tensor_copies(self) -> None:
        source = np.arange(3.0)
        t = kiln.tensor(source)
        source[0] = 9
        same(t, [0.0, 1.0, 2.0])

    def test_nested_tensors_and_casts(self) -> None:
        source = kiln.tensor([1.0], requires_grad=True)
        twin = kiln.tensor(source, dtype=kiln.float64)
        assert twin.is_leaf and not twin.requires_grad and twin.dtype is kiln.float64
        assert kiln.tensor(source).data_ptr() != source.data_ptr()
        same(kiln.tensor([kiln.tensor(1.0), 2.0], dtype=kiln.float64), [1.0, 2.0], np.float64)
        same(kiln.tensor([[1, 0], [2, 3]], dtype=kiln.bool), [[True, False], [True, True]])

    def test_fills(self) -> None:
        same(kiln.zeros(2, 3), np.zeros((2, 3), np.float32))
        same(kiln.ones((2,), dtype=kiln.int64), np.ones(2, np.int64))
        same(kiln.full((2, 1), 7), np.full((2, 1), 7, np.int64))
        same(kiln.full((), -0.0), np.float32(-0.0))
        assert np.signbit(kiln.full((3,), -0.0).numpy()).all()
        assert not np.signbit(kiln.full((3,), 0.0).numpy()).any()
        same(kiln.full_like(kiln.zeros(2), True), np.ones(2, np.float32))
        same(kiln.eye(2, 3), np.eye(2, 3, dtype=np.float32))
        same(kiln.empty(0, 4), np.zeros((0, 4), np.float32))

    def test_fills_have_memory_of_their_own(self) -> None:
        a, b = kiln.zeros(3), kiln.zeros(3)
        a.add_(1.0)
        same(b, np.zeros(3, np.float32))

    def test_arange(self) -> None:
        same(kiln.arange(5), np.arange(5))
        same(kiln.arange(2, 9, 3), np.arange(2, 9, 3))
        same(kiln.arange(3, 0, -1), [3, 2, 1])
        same(kiln.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25, np.float32))
        same(kiln.arange(0), np.zeros(0, np.int64))

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="equal lengths"):
            kiln.tensor([[1], [1, 2]])
        with pytest.raises(TypeError):
            kiln.tensor("abc")
        with pytest.raises(TypeError, match="uint32"):
            kiln.from_numpy(np.zeros(2, np.uint32))
        with pytest.raises(ValueError, match="negative"):
            kiln.zeros(2, -1)
        with pytest.raises(ValueError):
            kiln.tensor(2**70)
        with pytest.raises(ValueError, match="lead"):
            kiln.arange(3, 0)


class TestMemory:
    def test_from_numpy_shares(self) -> None:
        array = np.zeros((2, 3), np.float32)
        t = kiln.from_numpy(array)
        t[0, 1] = 5.0
        assert array[0, 1] == 5
        array[1, 2] = 7
        assert t[1, 2].item() == 7

    def test_from_numpy_strided(self) -> None:
        array = np.arange(24.0).reshape(4, 6)
        for view in (array.T, array[1:, ::2], array[:, 3], np.broadcast_to(array[0], (3, 6))):
            same(kiln.from_numpy(view), view)
            same(kiln.from_numpy(view) + 1.0, view + 1)

    def test_from_numpy_refuses_what_it_cannot_share(self) -> None:
        with pytest.raises(ValueError, match="stride"):
            kiln.from_numpy(np.arange(4.0)[::-1])
        odd = np.frombuffer(b"\0" * 17, np.uint8)[1:].view(np.float64)
        with pytest.raises(ValueError, match="unaligned"):
            kiln.from_numpy(odd)

    def test_read_only_arrays_stay_unwritten(self) -> None:
        array = np.zeros(3)
        array.flags.writeable = False
        t = kiln.from_numpy(array)
        same(t + 1.0, np.ones(3))
        with pytest.raises(RuntimeError, match="read-only"):
            t.add_(1.0)
        with pytest.raises(RuntimeError, match="read-only"):
            t[1:].fill_(1.0)
        assert not t.numpy().flags.writeable

    def test_numpy_shares_and_keeps_alive(self) -> None:
        array = kiln.full((1000,), 3.0).numpy()
        for _ in range(3):
            kiln.zeros(1000)
        assert (array == 3).all()

    def test_views_share(self) -> None:
        t = kiln.arange(6).reshape(2, 3)
        t.t()[2, 1] = 50
        same(t, [[0, 1, 2], [3, 4, 50]])
        assert t.reshape(6).data_ptr() == t.data_ptr()
        assert t.detach().data_ptr() == t.data_ptr()
        assert t.clone().data_ptr() != t.data_ptr()
        assert t.contiguous() is t
        assert t.t().contiguous().is_contiguous()

    def test_view_refuses_to_copy(self) -> None:
        t = kiln.zeros(2, 3).t()
        with pytest.raises(RuntimeError, match="reshape"):
            t.view(6)
        assert t.reshape(6).shape == (6,)


class TestIndexing:
    array = np.arange(120).reshape(4, 5, 6)

    @pytest.mark.parametrize(
        "index",
        [
            0, -1, np.int64(2), (1, 2), (1, 2, 3), ..., (..., 0), (0, ...), (..., None), None,
            (None, 1, None, ..., None),
            slice(None), slice(1, 3), slice(-2, None), slice(None, None, 2), (slice(1, 4, 2), 0, slice(None, 4, 3)),
            (slice(5, 2), 1), (slice(3, 100),), (slice(None), slice(0, 0)), (),
        ],
        ids=str,
    )  # fmt: skip
    def test_reads_as_numpy(self, index: Any) -> None:
        t = kiln.from_numpy(self.array)
        same(t[index], self.array[index])
        assert t[index].numel() == 0 or np.shares_memory(t[index].numpy(), self.array)

    @pytest.mark.parametrize("index", [0, (1, 2, 3), (slice(None), 1), (..., slice(0, 6, 4)), None, ...], ids=str)
    def test_writes_as_numpy(self, index: Any) -> None:
        expected, t = self.array.copy(), kiln.tensor(self.array)
        expected[index] = -1
        t[index] = -1
        same(t, expected)
        value = np.arange(expected[index].size).reshape(expected[index].shape)
        expected[index] = value
        t[index] = kiln.from_numpy(value)
        same(t, expected)

    def test_broadcasting_and_casting_assignment(self) -> None:
        t = kiln.zeros(2, 3)
        t[:, 1:] = kiln.tensor([1, 2])
        t[0] += 0.5
        same(t, [[0.5, 1.5, 2.5], [0, 1, 2]], np.float32)
        with pytest.raises(RuntimeError, match="does not fit"):
            t[0] = kiln.zeros(2)

    def test_errors(self) -> None:
        t = kiln.from_numpy(self.array)
        with pytest.raises(IndexError, match="out of range"):
            t[4]
        with pytest.raises(IndexError, match="4 indices for 3"):
            t[0, 0, 0, 0]
        with pytest.raises(IndexError, match="ellipsis"):
            t[..., ...]
        with pytest.raises(ValueError, match="positive"):
            t[::-1]
        with pytest.raises(TypeError):
            t["a"]


class TestInPlace:
    def test_arithmetic(self) -> None:
        t = kiln.tensor([1.0, 2.0])
        original = t
        t += 1
        t *= kiln.tensor(2.0)
        t -= kiln.tensor([1.0, 1.0])
        t /= 2.0
        assert t is original
        same(t, [1.5, 2.5], np.float32)
        same(t.add_(kiln.ones(2), alpha=3.0), [4.5, 5.5], np.float32)
        same(t.zero_(), [0, 0], np.float32)

    def test_on_every_kind_of_view(self) -> None:
        for pick in (
            lambda x: x.T, lambda x: x[..., ::2], lambda x: x[1:, 2:5], lambda x: x[:, 0], lambda x: x.reshape(-1),
        ):  # fmt: skip
            array = np.arange(24.0).reshape(4, 6)
            t = kiln.tensor(array)
            target: Any = pick(array)
            target *= 3
            pick(t).mul_(3.0)
            same(t, array)

    def test_overlapping_operands_read_first(self) -> None:
        t = kiln.arange(6).to(kiln.float32)
        t[1:].copy_(t[:-1])
        same(t, [0, 0, 1, 2, 3, 4], np.float32)
        t[:-1].add_(t[1:])
        same(t, [0, 1, 3, 5, 7, 4], np.float32)
        m = kiln.arange(9).reshape(3, 3)
        m.add_(m.t())
        same(m, [[0, 4, 8], [4, 8, 12], [8, 12, 16]])
        s = kiln.tensor([2.0, 3.0])
        s.mul_(s)
        same(s, [4, 9], np.float32)
        s.mul_(s[0])
        same(s, [16, 36], np.float32)

    def test_dtype_rules(self) -> None:
        ints = kiln.tensor([1, 2])
        ints += True
        same(ints, [2, 3])
        for bad in (lambda: ints.add_(0.5), lambda: ints.div_(2), lambda: ints.mul_(kiln.tensor([0.5, 1.0]))):
            with pytest.raises(TypeError):
                bad()
        single = kiln.tensor([1.0])
        single += kiln.tensor([0.1], dtype=kiln.float64)
        assert single.dtype is kiln.float32
        flags = kiln.tensor([True, False])
        flags += kiln.tensor([True, True])
        same(flags, [True, True])

    def test_refusals(self) -> None:
        t = kiln.zeros(3)
        with pytest.raises(RuntimeError, match="expanded"):
            t[:1].expand(4).add_(1.0)
        with pytest.raises(RuntimeError, match="shape"):
            t.add_(kiln.ones(2, 3))
        assert t.expand(1, 3).add_(1.0).shape == (1, 3)

    def test_versions(self) -> None:
        t = kiln.zeros(4)
        view, before = t[1:], t._version
        view.add_(1.0)
        assert t._version == view._version == before + 1


class TestPython:
    def test_numbers(self) -> None:
        assert kiln.tensor(2.5).item() == 2.5
        assert isinstance(kiln.tensor([[3]]).item(), int)
        assert kiln.tensor(True).item() is True
        assert float(kiln.tensor(2)) == 2.0
        assert int(kiln.tensor(2.9)) == 2
        assert [10, 20, 30][kiln.tensor(1)] == 20
        assert f"{kiln.tensor(1.25):.1f}" == "1.2"
        assert kiln.tensor([[1, 2]]).tolist() == [[1, 2]]
        with pytest.raises(RuntimeError, match="one element"):
            kiln.zeros(2).item()

    def test_truth(self) -> None:
        assert kiln.tensor([1.0])
        assert not kiln.tensor(0)
        for t in (kiln.zeros(2), kiln.zeros(0)):
            with pytest.raises(RuntimeError, match="ambiguous"):
                bool(t)

    def test_containers(self) -> None:
        t = kiln.arange(6).reshape(3, 2)
        assert len(t) == 3
        assert [row.tolist() for row in t] == [[0, 1], [2, 3], [4, 5]]
        assert 5 in t
        assert 7 not in t
        assert len({t, t, kiln.arange(2)}) == 2
        with pytest.raises(TypeError):
            len(kiln.tensor(1))

    def test_equality_with_foreign_objects_is_identity(self) -> None:
        assert (kiln.zeros(2) == None) is False  # noqa: E711
        assert (kiln.zeros(2) != "x") is True
        with pytest.raises(TypeError):
            kiln.zeros(2) + "x"  # type: ignore[operator]

    def test_numpy_protocol(self) -> None:
        t = kiln.tensor([1.0, 4.0])
        np.testing.assert_array_equal(np.sqrt(t), [1, 2])  # type: ignore[call-overload]
        assert np.asarray(t, np.float64).dtype == np.float64
        assert np.shares_memory(np.asarray(t), t.numpy())
        assert not np.shares_memory(np.array(t), t.numpy())
        assert (t + np.ones(2, np.float32)).tolist() == [2.0, 5.0]
        assert (np.float32(2) * t).dtype is kiln.float32

    def test_copies(self) -> None:
        t = kiln.tensor([1.0], requires_grad=True)
        twin = copy.deepcopy({"a": t, "b": t})
        assert twin["a"] is twin["b"] is not t
        assert twin["a"].requires_grad and twin["a"].is_leaf
        with pytest.raises(RuntimeError, match="leaves"):
            copy.deepcopy(t * 2.0)

    def test_shape_queries(self) -> None:
        t = kiln.zeros(2, 3, 4)
        assert (t.size(), t.size(-1), t.dim(), t.numel()) == ((2, 3, 4), 4, 3, 24)
        assert t.stride() == (12, 4, 1)
        assert t[1:].storage_offset() == 12
        assert t.T.shape == (4, 3, 2)
        assert t.mT.shape == (2, 4, 3)
        assert not t.mT.is_contiguous()

    def test_casts(self) -> None:
        t = kiln.tensor([1.7, -1.7, 0.0])
        same(t.long(), [1, -1, 0])
        same(t.bool(), [True, True, False])
        assert t.float() is t
        assert t.double().dtype is t.to(kiln.float64).dtype is kiln.float64
        assert t.to(kiln.float32, copy=True) is not t


class TestRepr:
    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: kiln.tensor([1.0, 2.0]), "tensor([1., 2.])"),
            (lambda: kiln.tensor([1.5, -2.25]), "tensor([ 1.5000, -2.2500])"),
            (lambda: kiln.tensor([[1, 20], [3, 4]]), "tensor([[ 1, 20],\n        [ 3,  4]])"),
            (lambda: kiln.tensor([True, False]), "tensor([ True, False])"),
            (lambda: kiln.tensor(3.0), "tensor(3.)"),
            (lambda: kiln.tensor([1e-9, 1.0]), "tensor([1.0000e-09, 1.0000e+00])"),
            (lambda: kiln.tensor([1.0, float("nan"), float("inf")]), "tensor([1., nan, inf])"),
            (lambda: kiln.tensor([1.0], dtype=kiln.float64), "tensor([1.], dtype=kiln.float64)"),
            (lambda: kiln.tensor([]), "tensor([])"),
            (lambda: kiln.zeros(0, 3), "tensor([], size=(0, 3))"),
            (lambda: kiln.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
            (lambda: kiln.tensor([1.0], requires_grad=True).exp() * 0.0, "tensor([0.], grad_fn=<MulBackward0>)"),
        ],
    )
    def test_as_torch_prints(self, make: Any, text: str) -> None:
        assert repr(make()) == text

    def test_long_tensors_are_shortened(self) -> None:
        text = repr(kiln.arange(2000))
        assert text == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"
