"""The memory of tensors: storages, view(dtype), strides by hand, Python for every element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln

DTYPES = [
    kiln.uint8, kiln.int8, kiln.int16, kiln.int32, kiln.int64, kiln.float16, kiln.float32, kiln.float64, kiln.complex64,
]  # fmt: skip


def numpy_of(dtype: Any) -> Any:
    return np.dtype(str(dtype).split(".")[-1])


class TestViewDtype:
    @pytest.mark.parametrize("old", DTYPES, ids=str)
    @pytest.mark.parametrize("new", DTYPES, ids=str)
    def test_as_numpy_sees_it(self, old: Any, new: Any) -> None:
        x = kiln.arange(16).reshape(2, 8).to(old)
        seen = x.view(new)
        assert seen.dtype is new and seen.data_ptr() == x.data_ptr()
        assert np.array_equal(seen.numpy(), x.numpy().view(numpy_of(new)))
        part = x[1:, :4].view(new) if new.itemsize <= 4 * old.itemsize else x[1:].view(new)
        wanted = x.numpy()[1:, :4] if new.itemsize <= 4 * old.itemsize else x.numpy()[1:]
        assert np.array_equal(part.numpy(), np.ascontiguousarray(wanted).view(numpy_of(new)))

    def test_memory_is_shared(self) -> None:
        x = kiln.zeros(2, 2)
        x.view(kiln.int32)[1, 0] = 1065353216
        assert x.tolist() == [[0.0, 0.0], [1.0, 0.0]]
        y = kiln.ones(2, requires_grad=True) * 1
        z = y.exp() * y
        y.detach().view(dtype=kiln.int32).zero_()
        with pytest.raises(kiln.GradError, match="modified in place"):
            z.sum().backward()

    def test_at_the_edge(self) -> None:
        assert kiln.tensor(1.0).view(kiln.int32).item() == 1065353216
        assert kiln.zeros(0, 4).view(kiln.float64).shape == (0, 2)
        assert kiln.zeros(3, 2).t().view(kiln.int32).stride() == (1, 2)
        assert kiln.tensor([True]).view(kiln.uint8).tolist() == [1]
        assert kiln.tensor([1.0], dtype=kiln.bfloat16).view(kiln.int16).tolist() == [16256]
        assert not kiln.ones(2, requires_grad=True).view(kiln.int32).requires_grad

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x.t().view(kiln.int8), "the last stride is 4"),
            (lambda x: x[:, 1:3].view(kiln.float64), "must be divisible by 2"),
            (lambda x: x[:, :3].view(kiln.float64), "must be divisible by 2"),
            (lambda x: x[0, 0].view(kiln.int8), "0-d tensor"),
            (lambda x: x.view(kiln.bool), "no bools"),
        ],
    )
    def test_refused(self, make: Any, message: str) -> None:
        with pytest.raises((kiln.ShapeError, kiln.NotYetError), match=f"view: .*{message}"):
            make(kiln.zeros(2, 4))
        with pytest.raises(kiln.CaptureError, match=r"view\(dtype\)"):
            kiln.compile(lambda x: x.view(kiln.int32), fullgraph=True)(kiln.zeros(2))


class TestStorage:
    def test_untyped(self) -> None:
        x = kiln.arange(6.0).reshape(2, 3)
        memory = x[1].untyped_storage()
        assert kiln.is_storage(memory) and isinstance(memory, kiln.UntypedStorage) and not kiln.is_storage(x)
        assert memory.nbytes() == len(memory) == memory.size() == 24 and memory.data_ptr() == x.data_ptr()
        assert memory.tolist() == list(x.numpy().tobytes()) and memory[4:8] == [0, 0, 128, 63]
        memory[4:8] = 0
        assert x[0, 1] == 0 and memory[-1] == 64
        assert memory.clone().data_ptr() != memory.data_ptr() and memory.clone().tolist() == memory.tolist()
        assert memory.device == kiln.device("cpu") and not memory.is_shared()
        with pytest.raises(IndexError):
            memory[24]
        with pytest.raises(kiln.GradError, match="read-only"):
            kiln.frombuffer(b"1234", dtype=kiln.int8).untyped_storage()[0] = 1
        with pytest.raises(kiln.CaptureError, match="untyped_storage"):
            kiln.compile(lambda x: x * x.untyped_storage().nbytes(), fullgraph=True)(x)

    def test_typed(self) -> None:
        x = kiln.arange(6.0).reshape(2, 3)
        memory = x[1].storage()
        assert isinstance(memory, kiln.TypedStorage) and memory.dtype is kiln.float32 and memory.size() == 6
        assert memory.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] and memory[1] == 1.0 and memory.element_size() == 4
        memory[1] = 9.0
        assert x[0, 1] == 9.0 and memory.untyped().nbytes() == 24
        assert kiln.tensor([1.5], dtype=kiln.bfloat16).storage()[0] == 1.5

    def test_set(self) -> None:
        x, y = kiln.arange(8.0).reshape(2, 4), kiln.zeros(2)
        assert y.set_(x) is y and y.tolist() == x.tolist() and y.is_set_to(x) and not y.is_set_to(x[1:])
        assert y.set_(x.untyped_storage(), 1, (2, 2), (4, 1)).tolist() == [[1.0, 2.0], [5.0, 6.0]]
        assert y.set_(x.storage()).shape == (8,) and y.set_().shape == (0,)
        y.set_(x)[0, 0] = 7.0
        assert x[0, 0] == 7.0
        with pytest.raises(kiln.InvalidValueError, match="outside the memory"):
            y.set_(x.untyped_storage(), 1, (8,))
        with pytest.raises(kiln.DTypeError, match="of float32"):
            kiln.zeros(2, dtype=kiln.int32).set_(x)
        with pytest.raises(kiln.GradError, match="set_"):
            kiln.ones(2, requires_grad=True).set_(x)
        with pytest.raises(kiln.ArgumentError, match="a tensor or a storage"):
            y.set_(3)

    def test_resize(self) -> None:
        x = kiln.arange(6.0)
        view = x[:2]
        assert x.resize_(2, 2).tolist() == [[0.0, 1.0], [2.0, 3.0]] and x.data_ptr() == view.data_ptr()
        assert x.resize_(2, 3).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and x.data_ptr() == view.data_ptr()
        assert x.resize_(2, 4).tolist() == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 0.0, 0.0]]
        assert view.tolist() == [0.0, 1.0]
        assert kiln.zeros(2).resize_as_(kiln.zeros(3, 1)).shape == (3, 1)
        assert kiln.arange(4.0).reshape(2, 2).t().resize_(3).tolist() == [0.0, 1.0, 2.0]
        with pytest.raises(kiln.InvalidValueError, match="negative"):
            x.resize_(-1)
        with pytest.raises(kiln.CaptureError, match="resize_"):
            kiln.compile(lambda x: (x * 2).resize_(9), fullgraph=True)(kiln.zeros(2))


class TestMaking:
    def test_strided(self) -> None:
        x = kiln.empty_strided((2, 3), (1, 2), dtype=kiln.int64)
        assert x.shape == (2, 3) and x.stride() == (1, 2) and x.dtype is kiln.int64 and x.dim_order() == (1, 0)
        assert kiln.empty_strided((2, 3), (0, 1)).untyped_storage().nbytes() == 12
        assert kiln.empty_strided((2, 3), (4, 1), requires_grad=True).requires_grad
        assert x.new_empty_strided((2,), (3,)).dtype is kiln.int64
        assert kiln.empty_strided((0, 3), (1, 2)).shape == (0, 3) and kiln.empty_strided((), ()).shape == ()
        with pytest.raises(kiln.ShapeError, match="1 sizes with 2 strides"):
            kiln.empty_strided((2,), (1, 2))
        with pytest.raises(kiln.InvalidValueError, match="negative"):
            kiln.empty_strided((2,), (-1,))

    def test_of_buffers(self) -> None:
        data = bytearray(np.arange(4, dtype="float32").tobytes())
        x = kiln.frombuffer(data, dtype=kiln.float32)
        x[0] = 9.0
        assert np.frombuffer(data, "float32").tolist() == [9.0, 1.0, 2.0, 3.0]
        assert kiln.frombuffer(data, dtype=kiln.float32, count=2, offset=4).tolist() == [1.0, 2.0]
        assert kiln.frombuffer(data, dtype=kiln.float32, requires_grad=True).requires_grad
        with pytest.raises(kiln.GradError, match="read-only"):
            kiln.frombuffer(b"1234", dtype=kiln.int8).zero_()

    @pytest.mark.parametrize("arguments", [{"count": 5}, {"offset": 16}, {"offset": 1}, {"count": 0}, {"offset": -1}])
    def test_buffers_that_do_not_fit(self, arguments: Any) -> None:
        with pytest.raises(kiln.InvalidValueError, match="frombuffer"):
            kiln.frombuffer(bytearray(16), dtype=kiln.float32, **arguments)


class TestPythonForEveryElement:
    def test_values(self) -> None:
        x = kiln.arange(4.0).reshape(2, 2)
        assert x.apply_(lambda v: v * 2 + 1) is x and x.tolist() == [[1.0, 3.0], [5.0, 7.0]]
        assert x.map_(kiln.tensor([1.0, 2.0]), lambda a, b: a - b).tolist() == [[0.0, 1.0], [4.0, 5.0]]
        assert x.map2_(x, kiln.tensor(2.0), lambda a, b, c: a * b + c).tolist() == [[2.0, 3.0], [18.0, 27.0]]
        assert kiln.tensor([1, 2]).apply_(lambda v: v / 2).tolist() == [0, 1]
        assert kiln.zeros(0).apply_(lambda v: v).shape == (0,)
        assert kiln.tensor(3.0).apply_(lambda v: -v).item() == -3.0
        assert x.t().apply_(lambda v: 0).tolist() == [[0.0, 0.0], [0.0, 0.0]]

    def test_refused(self) -> None:
        with pytest.raises(kiln.GradError, match="apply_"):
            kiln.ones(2, requires_grad=True).apply_(lambda v: v)

    def test_compiled(self) -> None:
        compiled = kiln.compile(lambda x: (x * 2).apply_(lambda v: v + 1))
        for value in (1.0, 2.0, 1.0):
            assert compiled(kiln.full((2,), value)).tolist() == [2 * value + 1] * 2


def test_version() -> None:
    assert kiln.version.__version__ == kiln.__version__ == kiln.version.version and kiln.version.cuda is None
