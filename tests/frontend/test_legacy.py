"""`kiln.Tensor(...)`, `kiln.FloatTensor` and its like, types by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: kiln.Tensor([1, 2]), "tensor([1., 2.])"),
        (lambda: kiln.Tensor((2, 3)), "tensor([2., 3.])"),
        (lambda: kiln.Tensor(), "tensor([])"),
        (lambda: kiln.Tensor([]), "tensor([])"),
        (lambda: kiln.Tensor(range(3)), "tensor([0., 1., 2.])"),
        (lambda: kiln.Tensor(np.array([[1, 2]])), "tensor([[1., 2.]])"),
        (lambda: kiln.Tensor([kiln.tensor(1.0), kiln.tensor(2.0)]), "tensor([1., 2.])"),
        (lambda: kiln.Tensor(kiln.tensor([1, 2])), "tensor([1, 2])"),
        (lambda: kiln.FloatTensor([1, 2]), "tensor([1., 2.])"),
        (lambda: kiln.LongTensor([1.7]), "tensor([1])"),
        (lambda: kiln.BoolTensor([0, 2]), "tensor([False,  True])"),
        (lambda: kiln.CharTensor([-1]), "tensor([-1], dtype=kiln.int8)"),
        (lambda: kiln.DoubleTensor(kiln.tensor([1.0], dtype=kiln.float64)), "tensor([1.], dtype=kiln.float64)"),
    ],
)
def test_of_data(make: Any, text: str) -> None:
    assert repr(make()) == text


def test_of_shapes() -> None:
    made = (kiln.Tensor(2, 3), kiln.Tensor(kiln.Size([2, 3])), kiln.FloatTensor(2, 3, device="cpu"))
    for x in made:
        assert x.shape == (2, 3) and x.dtype is kiln.float32
    assert kiln.Tensor(kiln.Size([])).shape == () and kiln.LongTensor(2).dtype is kiln.int64
    assert kiln.BFloat16Tensor(1).dtype is kiln.bfloat16 and kiln.HalfTensor(1).dtype is kiln.float16


def test_a_tensor_is_shared() -> None:
    x = kiln.zeros(2)
    kiln.Tensor(x).add_(1)
    kiln.FloatTensor(x).add_(1)
    assert x.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kiln.Tensor(3.0), "Tensor: takes sizes, or a sequence of data, not a float"),
        (lambda: kiln.Tensor("a"), "not a str"),
        (lambda: kiln.Tensor(2.5, 3), "takes sizes, or one sequence"),
        (lambda: kiln.DoubleTensor(kiln.tensor([1.0])), "DoubleTensor: takes tensors of float64, not of float32"),
        (lambda: kiln.set_default_tensor_type(kiln.LongTensor), "floating-point dtype"),
        (lambda: kiln.set_default_tensor_type(3), "no type of tensors"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
    with pytest.raises(kiln.InvalidValueError, match="negative size"):
        kiln.Tensor(-1)


def test_isinstance() -> None:
    x = kiln.tensor([1])
    assert isinstance(x, kiln.LongTensor) and not isinstance(x, kiln.FloatTensor) and isinstance(x, kiln.Tensor)
    assert isinstance(kiln.nn.Parameter(kiln.ones(2)), kiln.FloatTensor) and not isinstance(3, kiln.LongTensor)
    assert repr(kiln.FloatTensor) == "<class 'kiln.FloatTensor'>" and kiln.FloatTensor.dtype is kiln.float32


def test_types_by_name() -> None:
    x = kiln.tensor([1.5])
    assert x.type() == kiln.typename(x) == "kiln.FloatTensor" and kiln.tensor([1j]).type() == "kiln.ComplexFloatTensor"
    for kind in (kiln.LongTensor, "kiln.LongTensor", "torch.LongTensor", kiln.int64):
        y = x.type(kind)
        assert y.dtype is kiln.int64 and y.tolist() == [1]
    with pytest.raises(kiln.InvalidValueError, match="there is no type 'x'"):
        x.type("x")
    assert kiln.typename(3) == "int" and kiln.typename(kiln.nn.Linear(1, 1)) == "kiln.nn.linear.Linear"


def test_the_default_type() -> None:
    try:
        for kind in (kiln.DoubleTensor, "kiln.DoubleTensor"):
            kiln.set_default_tensor_type(kind)
            assert kiln.tensor([1.0]).dtype is kiln.Tensor(2).dtype is kiln.float64
            kiln.set_default_tensor_type("torch.FloatTensor")
    finally:
        kiln.set_default_dtype(kiln.float32)


class Named(kiln.Tensor):
    """With a constructor of its own."""

    label: str

    @staticmethod
    def __new__(cls: Any, data: Any, label: str) -> Any:
        return super().__new__(cls, data)

    def __init__(self, data: Any, label: str) -> None:
        self.label = label


class Made(kiln.Tensor):
    @staticmethod
    def __new__(cls: Any, data: Any, requires_grad: bool = False) -> Any:
        return kiln.Tensor._make_subclass(cls, data, requires_grad)


class Bare(kiln.Tensor):
    pass


def test_subclasses() -> None:
    x = Named([1, 2], "two")
    assert type(x) is type(x + 1) is Named and x.label == "two" and x.tolist() == [1.0, 2.0]
    assert Bare(2, 3).shape == (2, 3) and type(Bare([1.0])) is Bare
    data = kiln.ones(2)
    y = Made(data, requires_grad=True)
    (y * 3).sum().backward()
    assert y.is_leaf and y.grad is not None and y.grad.tolist() == [3.0, 3.0]
    data.add_(1)
    assert y.tolist() == [2.0, 2.0]
    assert type(y.detach()) is Made


def test_captured() -> None:
    compiled = kiln.compile(lambda x: x + kiln.Tensor([1, 2]) + kiln.FloatTensor(2))
    for _ in range(2):
        assert compiled(kiln.ones(2)).tolist() == [2.0, 3.0]
