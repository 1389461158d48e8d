"""NumPy's names of arguments, `out=`, and NumPy functions called with tensors."""

from __future__ import annotations

import numpy as np
import pytest

import kiln
from kiln.errors import ArgumentError, ShapeError

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "std", "var", "any", "all", "argmax", "argmin"])
def test_numpy_functions_of_tensors(name: str) -> None:
    got = getattr(np, name)(kiln.tensor(X))
    assert isinstance(got, kiln.Tensor)
    np.testing.assert_allclose(got.numpy(), getattr(np, name)(X), rtol=1e-6)


@pytest.mark.parametrize("name", ["sum", "mean", "std", "var", "cumsum", "argmax"])
def test_numpy_functions_along_an_axis(name: str) -> None:
    got = getattr(np, name)(kiln.tensor(X), axis=1)
    np.testing.assert_allclose(got.numpy(), getattr(np, name)(X, axis=1), rtol=1e-6)


def test_axis_and_keepdims_are_dim_and_keepdim() -> None:
    x = kiln.tensor(X)
    assert x.amax(axis=1, keepdims=True).shape == (2, 1)
    assert kiln.cat([x, x], axis=1).shape == (2, 6)
    assert kiln.stack(tensors=[x, x], axis=2).shape == (2, 3, 2)
    assert kiln.softmax(x, axis=0).sum(axis=0).tolist() == [1.0, 1.0, 1.0]
    assert x.max(axis=0).indices.tolist() == [1, 1, 1]
    with pytest.raises(ArgumentError, match=r"sum: axis and dim are the same argument"):
        x.sum(dim=0, axis=0)


def test_out_gets_the_result_and_is_returned() -> None:
    x, out = kiln.tensor(X), kiln.empty(2, dtype=kiln.float64)
    assert kiln.sum(x, dim=1, out=out) is out
    assert out.tolist() == [3.0, 12.0] and out.dtype is kiln.float64
    assert kiln.sum(x, out=None).item() == 15.0
    with pytest.raises(ShapeError, match=r"sum: out has shape \[2\], the result \[3\]"):
        kiln.sum(x, dim=0, out=out)
    assert out.tolist() == [3.0, 12.0]
    with pytest.raises(ArgumentError, match=r"sort: out= takes one tensor"):
        kiln.sort(x, out=(out, out))


def test_out_in_compiled_code() -> None:
    @kiln.compile
    def f(x: kiln.Tensor, out: kiln.Tensor) -> kiln.Tensor:
        return kiln.sum(x, axis=1, out=out)

    out = kiln.zeros(2)
    f(kiln.tensor(X), out)
    assert out.tolist() == [3.0, 12.0]
    assert f(kiln.tensor(X) + 1, out).tolist() == out.tolist() == [6.0, 15.0]


def test_an_array_times_a_tensor_is_a_tensor() -> None:
    x = kiln.tensor(X)
    assert (X.T @ x).tolist() == (X.T @ X).tolist()
    assert (x @ X.T).tolist() == (X @ X.T).tolist()
