"""Copies and pickles of tensors, parameters, modules and generators."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn


class Named(kiln.Tensor):
    """A subclass with attributes."""

    label = "none"


class Slotted(kiln.Tensor):
    __slots__ = ("label",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["bool", "uint8", "int32", "int64", "float32", "float64", "bfloat16"])
def test_tensors(protocol: int, name: str) -> None:
    dtype = getattr(kiln, name, None)
    if dtype is None:
        pytest.skip("no such dtype")
    for t in (kiln.tensor([[0, 1], [2, 3]], dtype=dtype), kiln.zeros(2, 0, dtype=dtype), kiln.tensor(1, dtype=dtype)):
        back = pickle.loads(pickle.dumps(t, protocol))
        assert back.ttype == t.ttype and back.tolist() == t.tolist() and type(back) is kiln.Tensor
        back.zero_()  # memory of its own


def test_views_and_gradients() -> None:
    x = kiln.arange(12.0).requires_grad_()
    view = kiln.reshape(x, (3, 4)).t()
    back = pickle.loads(pickle.dumps(view))
    assert back.is_contiguous() and back.tolist() == view.tolist()
    assert back.requires_grad and back.is_leaf
    assert pickle.loads(pickle.dumps(x)).requires_grad
    ones = kiln.ones(3).expand(2, 3)
    assert pickle.loads(pickle.dumps(ones)).tolist() == ones.tolist()


def test_parameters_and_modules() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    back = pickle.loads(pickle.dumps(model))
    x = kiln.ones(5, 3)
    assert back(x).tolist() == model(x).tolist()
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf for p in back.parameters())
    tied = pickle.loads(pickle.dumps([model[0].weight, model[0].weight]))
    assert tied[0] is tied[1]  # one object stays one
    assert not pickle.loads(pickle.dumps(nn.Parameter(kiln.ones(2), requires_grad=False))).requires_grad


def test_generators() -> None:
    g = kiln.Generator().manual_seed(7)
    kiln.rand(3, generator=g)
    back = pickle.loads(pickle.dumps(g))
    assert kiln.rand(4, generator=back).tolist() == kiln.rand(4, generator=g).tolist()


def test_subclasses_keep_what_they_added() -> None:
    for cls in (Named, Slotted):
        data = kiln.ones(2)
        t = data.as_subclass(cls)
        t.label = "weights"
        for back in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t), copy.copy(t)):
            assert type(back) is cls and back.label == "weights" and back.tolist() == [1.0, 1.0]
        assert type(t + 1) is cls


def test_dtypes_and_devices() -> None:
    for x in (kiln.float32, kiln.device("cpu"), kiln.device("cuda:1")):
        assert pickle.loads(pickle.dumps(x)) == x


def test_copy_shares_and_deepcopy_does_not() -> None:
    x = kiln.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    shallow, deep = copy.copy(x), copy.deepcopy(x)
    assert shallow.data_ptr() == x.data_ptr() and shallow.requires_grad and shallow is not x
    assert deep.data_ptr() != x.data_ptr() and deep.requires_grad and deep.is_leaf
    assert deep.grad.tolist() == [3.0, 3.0] and deep.grad is not x.grad
    a, b = copy.deepcopy([x, x])
    assert a is b
    with pytest.raises(kiln.GradError, match="only leaves"):
        copy.deepcopy(x * 2)
    y = x * 2
    kiln.grad(copy.copy(y).sum(), x)


def test_weak_references_and_cycles() -> None:
    class Holder:
        pass

    t = kiln.ones(3)
    ref = weakref.ref(t)
    del t
    assert ref() is None
    holder: Any = Holder()
    holder.me, holder.tensor = holder, kiln.ones(3)
    ref = weakref.ref(holder.tensor)
    del holder
    gc.collect()
    assert ref() is None
    x = kiln.ones(3, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    refs = [weakref.ref(y)]
    del y
    z.backward()
    assert refs[0]() is None  # the walk let go of what was saved
    t = kiln.ones(2)
    assert np.asarray(t).base is not None
    t.grad = t  # a tensor that holds itself
    ref = weakref.ref(t)
    del t
    gc.collect()
    assert ref() is None
