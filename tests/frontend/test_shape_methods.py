"""Methods that change a tensor's shape in place, small answers, and names that PyTorch programs use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.utils.checkpoint import checkpoint, checkpoint_sequential


def matrix() -> kiln.Tensor:
    return kiln.arange(12.0).reshape(3, 4)


def test_shapes_in_place() -> None:
    x = matrix()
    row = x[0]
    assert x.t_() is x and x.shape == (4, 3) and x.tolist() == matrix().t().tolist()
    assert x.unsqueeze_(0).transpose_(0, 2).shape == (3, 4, 1) and x.squeeze_().swapaxes_(0, 1).shape == (4, 3)
    x.add_(1.0)
    assert row.tolist() == [1, 2, 3, 4]
    assert matrix().resize_(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert matrix().as_strided_((3,), (5,)).tolist() == [0, 5, 10]
    assert matrix().resize_(13).tolist() == [*range(12), 0]


def test_views_made_before_a_change_of_shape() -> None:
    """They stay views of what the tensor was; the gradients of what is written through either are the same compiled."""

    def f(x: kiln.Tensor) -> kiln.Tensor:
        whole = x * 2
        row = whole[0]
        whole.transpose_(0, 1)
        whole.mul_(2)
        before = row * 1
        row.mul_(3)
        return before.sum() + (whole * whole).sum()

    grads = []
    for run in (f, kiln.compile(f)):
        x = kiln.arange(6.0).reshape(2, 3).requires_grad_()
        run(x).backward()
        assert x.grad is not None
        grads.append(x.grad.tolist())
    assert grads == [[[4.0, 292.0, 580.0], [96.0, 128.0, 160.0]]] * 2


def test_a_diagonal_is_filled_in_compiled_code() -> None:
    for shape, wrap in (((3, 4), False), ((7, 3), True), ((3, 3, 3), False)):

        def f(x: kiln.Tensor, wrap: bool = wrap) -> kiln.Tensor:
            return (x * 1).fill_diagonal_(5.0, wrap) * 1

        x = kiln.arange(float(np.prod(shape))).reshape(shape)
        assert kiln.compile(f)(x).tolist() == f(x).tolist()


def test_gradients_through_shapes_in_place() -> None:
    w = kiln.ones(3, 4, requires_grad=True)
    z = w * 2
    z.t_()
    (z * kiln.arange(12.0).reshape(4, 3)).sum().backward()
    assert w.grad is not None and w.grad.tolist() == (2 * kiln.arange(12.0).reshape(4, 3).t()).tolist()
    with pytest.raises(kiln.GradError, match="t_"):
        w.t_()
    with kiln.no_grad():
        w.squeeze_()
    with pytest.raises(kiln.CaptureError):
        kiln.compile(lambda x: x.t_(), fullgraph=True)(matrix())


def test_fill_diagonal() -> None:
    for shape, wrap in (((3, 4), False), ((8, 3), True), ((3, 3, 3), False), ((9, 2), False)):
        x, wanted = kiln.zeros(shape), np.zeros(shape)
        np.fill_diagonal(wanted, 5, wrap)
        assert x.fill_diagonal_(5, wrap=wrap) is x
        np.testing.assert_array_equal(x.numpy(), wanted)
    with pytest.raises(kiln.ShapeError, match="fill_diagonal_"):
        kiln.zeros(2, 3, 4).fill_diagonal_(1)


def test_answers() -> None:
    x = matrix()
    assert (x.nelement(), x.ndimension(), x.itemsize, x.nbytes) == (12, 2, 4, 48)
    assert not (x.is_sparse or x.is_quantized or x.is_pinned() or x.is_shared()) and x.layout is kiln.strided
    assert x.type() == "kiln.FloatTensor" and x.type(kiln.int64).type() == "kiln.LongTensor"
    assert x.type("kiln.DoubleTensor").dtype is kiln.float64 and kiln.tensor(1).is_nonzero()
    assert x.sum_to_size(1, 4).tolist() == x.sum(0, keepdim=True).tolist()
    assert x.expand(2, 3, 4).sum_to_size(3, 1).tolist() == (2 * x.sum(1, keepdim=True)).tolist()
    assert x.sum_to_size(3, 4) is not None
    assert x.new([1, 2]).dtype is kiln.float32 and x.new(2, 3).shape == (2, 3)
    with pytest.raises(kiln.ShapeError, match="sum_to_size"):
        x.sum_to_size(2, 4)
    with pytest.raises(kiln.InvalidValueError, match="type"):
        x.type("kiln.Nothing")


def test_more_functions_in_place() -> None:
    x = matrix()
    assert x.clone().tril_().tolist() == x.tril().tolist()
    assert kiln.ones(3, 3).addmm_(x, x.t()).tolist() == (x @ x.t() + 1).tolist()
    assert x.clone().greater_(3).tolist() == (x > 3).float().tolist()
    assert kiln.less(x, 3).tolist() == (x < 3).tolist() and kiln.not_equal(x, 3).tolist() == (x != 3).tolist()


def test_names() -> None:
    assert (kiln.pi, kiln.e, kiln.inf, kiln.newaxis) == (math.pi, math.e, math.inf, None) and math.isnan(kiln.nan)
    assert isinstance(matrix().shape, kiln.Size) and kiln.Size([2, 3]) == (2, 3)
    assert repr(kiln.channels_last) == "kiln.channels_last" and isinstance(kiln.channels_last, kiln.memory_format)
    x = kiln.zeros(2, 3, 4, 4).to(memory_format=kiln.channels_last)
    assert x.contiguous(memory_format=kiln.channels_last).is_contiguous(memory_format=kiln.channels_last)
    assert x.clone(memory_format=kiln.preserve_format).shape == x.shape
    assert kiln.zeros_like(x, memory_format=kiln.preserve_format).shape == x.shape


def test_ways_to_make_tensors() -> None:
    kiln.manual_seed(3)
    x = kiln.randn(size=(2, 3))
    kiln.manual_seed(3)
    out = kiln.empty(2, 3, pin_memory=False, layout=kiln.strided)
    assert kiln.randn(2, 3, out=out) is out and out.tolist() == x.tolist()
    assert kiln.zeros(size=(2,)).tolist() == kiln.full(size=(2,), fill_value=0.0).tolist() == [0, 0]
    with pytest.raises(kiln.ArgumentError, match="sizes are given twice"):
        kiln.ones(2, size=(2,))


def test_switches() -> None:
    kiln.use_deterministic_algorithms(True, warn_only=True)
    assert kiln.are_deterministic_algorithms_enabled() and kiln.is_deterministic_algorithms_warn_only_enabled()
    kiln.set_deterministic_debug_mode("default")
    assert not kiln.are_deterministic_algorithms_enabled() and kiln.get_deterministic_debug_mode() == 0
    kiln.set_float32_matmul_precision("high")
    assert kiln.get_float32_matmul_precision() == "high"
    kiln.set_float32_matmul_precision("highest")
    kiln.set_num_interop_threads(1)
    assert kiln.get_num_interop_threads() == 1 and not kiln.set_flush_denormal(True)
    kiln.set_warn_always(False)
    assert not kiln.is_warn_always_enabled() and str(kiln.get_default_device()) == "cpu"
    kiln.set_default_device("cpu")
    for call in (
        lambda: kiln.set_float32_matmul_precision("low"),
        lambda: kiln.set_num_interop_threads(0),
        lambda: kiln.set_deterministic_debug_mode(3),
    ):
        with pytest.raises(kiln.InvalidValueError):
            call()
    kiln.backends.cudnn.benchmark = True
    kiln.backends.cuda.matmul.allow_tf32 = True
    assert kiln.get_float32_matmul_precision() == "high"
    kiln.backends.cuda.matmul.allow_tf32 = False
    assert kiln.get_float32_matmul_precision() == "highest"
    assert not kiln.backends.mps.is_available() and kiln.backends.cudnn.version() is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    def f(a: Any, b: Any) -> Any:
        return (a * b).sin()

    a, b = kiln.tensor(2.0, requires_grad=True), kiln.tensor(3.0)
    assert checkpoint(f, a, b, use_reentrant=reentrant).item() == f(a, b).item()
    steps = kiln.nn.Sequential(kiln.nn.Linear(2, 2), kiln.nn.Tanh())
    x = kiln.ones(1, 2)
    assert checkpoint_sequential(steps, 2, x).tolist() == steps(x).tolist()
    with pytest.raises(kiln.ArgumentError, match="checkpoint"):
        checkpoint(f, a, use_reentrant=True, b=b)


@pytest.mark.parametrize("name, args", [("unsqueeze_", (0,)), ("transpose_", (0, 1)), ("t_", ()), ("squeeze_", ())])
def test_changed_inside_a_captured_call(name: str, args: tuple[int, ...]) -> None:
    """What was changed in shape is computed with, and written through, as outside of a capture."""

    def run(x: Any) -> Any:
        base = x.clone()
        getattr(base, name)(*args)
        base[..., 1:].mul_(3)
        return base, base.exp(), base * 1

    def results(function: Any) -> list[Any]:
        x = kiln.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
        out = function(x)
        kiln.stack([(t * t).sum() for t in out]).sum().backward()
        return [*(t.tolist() for t in out), x.grad.tolist()]

    wanted = results(run)
    compiled = kiln.compile(run)
    assert results(compiled) == wanted
    assert results(compiled) == wanted
