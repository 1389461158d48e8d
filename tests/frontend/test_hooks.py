"""Hooks on gradients, retained gradients, gradient modes, what `grad` and `backward` take, anomaly detection."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import autograd


def leaf(*data: float) -> kiln.Tensor:
    return kiln.tensor(data, dtype=kiln.float64, requires_grad=True)


# ------------------------------------------------------------------------------------------------ hooks


def test_hooks_see_and_replace_gradients_in_order() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    seen: list[Any] = []
    first = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * 1 + y).sum().backward(retain_graph=True)
    assert seen == [[2.0, 2.0], [20.0, 20.0]]  # the whole gradient, once
    assert x.grad.tolist() == [60.0, 60.0]
    first.remove()
    first.remove()
    seen.clear()
    (y * 1).sum().backward()
    assert seen == [[10.0, 10.0]]


def test_hooks_of_leaves() -> None:
    x = leaf(1.0, 2.0)
    seen: list[Any] = []
    with x.register_hook(lambda g: g + 1):
        x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
        (x * 2).sum().backward()
        assert seen == [[3.0, 3.0]]
        assert kiln.grad((x * 2).sum(), x)[0].tolist() == [3.0, 3.0]
        assert len(seen) == 1
    (x * 2).sum().backward()
    assert seen[1:] == [[5.0, 5.0]]
    x.backward(kiln.ones(2, dtype=kiln.float64))  # the leaf itself
    assert seen[2:] == [[6.0, 6.0]]


def test_an_optimizer_in_the_backward() -> None:
    x = leaf(1.0)

    def step(t: kiln.Tensor) -> None:
        with kiln.no_grad():
            t -= t.grad
        t.grad = None

    x.register_post_accumulate_grad_hook(step)
    (x * 0.5).sum().backward()
    assert x.tolist() == [0.5] and x.grad is None


def test_what_a_hook_keeps_stays() -> None:
    x = leaf(1.0, 2.0)
    kept: list[kiln.Tensor] = []
    y = kiln.reshape(x, (2, 1))
    y.register_hook(kept.append)
    x.register_hook(kept.append)
    for _ in range(3):
        (y * 2).sum().backward(retain_graph=True)
    assert all(t.reshape(2).tolist() == [2.0, 2.0] for t in kept) and len(kept) == 6
    assert x.grad.tolist() == [6.0, 6.0]


def test_hooks_of_wanted_results_run_and_others_do_not() -> None:
    x = leaf(1.0)
    y = x * 2
    z = y * 3
    ran: list[str] = []
    y.register_hook(lambda g: ran.append("y"))
    z.register_hook(lambda g: g * 2)
    assert kiln.grad(z.sum(), z, retain_graph=True)[0].tolist() == [2.0]
    assert ran == []
    assert kiln.grad(z.sum(), y)[0].tolist() == [6.0]
    assert ran == ["y"]


def test_hook_errors() -> None:
    x = leaf(1.0)
    with pytest.raises(kiln.GradError, match="register_hook"):
        x.detach().register_hook(lambda g: g)
    with pytest.raises(TypeError, match="a hook is a function"):
        x.register_hook(3)  # type: ignore[arg-type]
    with pytest.raises(kiln.GradError, match="leaves only"):
        (x * 1).register_post_accumulate_grad_hook(lambda t: None)
    with x.register_hook(lambda g: g.float()), pytest.raises(kiln.ShapeError, match="dtype or shape"):
        (x * 2).sum().backward()
    with x.register_hook(lambda g: 3), pytest.raises(TypeError, match="returned a int"):  # type: ignore[arg-type,return-value]
        (x * 2).sum().backward()


def test_hooks_of_nodes() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    node = y.grad_fn
    assert node is not None and node.name() == "MulBackward0"
    accumulate, place = node.next_functions[0]
    assert accumulate is not None and accumulate.name() == "AccumulateGrad" and place == 0
    assert accumulate.variable is x and accumulate.next_functions == ()  # type: ignore[union-attr]
    assert node.next_functions == (node.next_functions[0], (None, 0))
    assert repr(node).startswith("<MulBackward0 object at 0x")
    node.register_prehook(lambda grads: (grads[0] * 2,))
    node.register_hook(lambda made, grads: (made[0] + 1, made[1]))
    y.sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_retain_grad() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    y.register_hook(lambda g: g * 2)
    y.retain_grad()
    x.retain_grad()
    assert y.retains_grad and not x.retains_grad
    (y * 5).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [10.0, 10.0]
    (y * 5).sum().backward()
    assert y.grad.tolist() == [20.0, 20.0]
    y = x * 3
    y.retain_grad()
    y.mul_(2)  # goes along with the tensor
    (y * 7).sum().backward()
    assert y.grad.tolist() == [7.0, 7.0]
    base = x * 1
    view = base[0]
    view.retain_grad()
    base.mul_(2)
    (view * 4).backward()
    assert view.grad.item() == 4.0


def test_hooks_around_compiled_functions() -> None:
    w = leaf(2.0, 3.0)
    f = kiln.compile(lambda x: (x * w).exp())
    for create in (False, True):
        for _ in range(3):
            results = []
            for g in (lambda x: (x * w).exp(), f):
                x = leaf(0.5, 1.0)
                seen: list[Any] = []
                x.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
                y = g(x)
                y.retain_grad()
                y.register_hook(lambda g: g * 2)
                y.sum().backward(create_graph=create)
                results.append((x.grad.tolist(), y.grad.tolist(), seen))
            assert results[0] == results[1]


def test_a_new_hook_on_a_parameter_is_noticed() -> None:
    w = leaf(2.0)

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad * 1

    f = kiln.compile(step)
    x = kiln.ones(1, dtype=kiln.float64)
    assert f(x).item() == f(x).item() == 1.0
    first = w.register_hook(lambda g: g * 3)
    assert f(x).item() == f(x).item() == 3.0
    w.register_hook(lambda g: g + 1)
    assert f(x).item() == f(x).item() == 4.0
    first.remove()
    assert f(x).item() == f(x).item() == 2.0


# ------------------------------------------------------------------------------------------------ modes


def test_modes_as_decorators_and_blocks() -> None:
    @kiln.no_grad
    def bare() -> bool:
        return kiln.is_grad_enabled()

    @kiln.no_grad()
    def called() -> bool:
        return kiln.is_grad_enabled()

    @kiln.inference_mode()
    def inference() -> tuple[bool, bool]:
        return kiln.is_grad_enabled(), kiln.is_inference_mode_enabled()

    @kiln.inference_mode
    def inference_bare() -> bool:
        return kiln.is_inference_mode_enabled()

    @kiln.set_grad_enabled(False)
    def switched() -> bool:
        return kiln.is_grad_enabled()

    assert not bare() and not called() and not switched()
    assert inference() == (False, True) and inference_bare()
    assert kiln.is_grad_enabled() and not kiln.is_inference_mode_enabled()
    with kiln.inference_mode():
        x = leaf(1.0) * 2
        assert not x.requires_grad and not x.is_inference()
        with kiln.inference_mode(False):
            assert kiln.is_grad_enabled() and not kiln.is_inference_mode_enabled()
        assert kiln.is_inference_mode_enabled()
    with kiln.set_grad_enabled(False):
        assert not kiln.is_grad_enabled()
        with kiln.enable_grad():
            assert kiln.is_grad_enabled()
    assert kiln.is_grad_enabled()
    kiln.set_grad_enabled(False)
    assert not kiln.is_grad_enabled()
    kiln.set_grad_enabled(True)
    with pytest.raises(TypeError):
        kiln.no_grad(3)  # type: ignore[call-arg]


def test_a_mode_around_a_generator_holds_inside_it_only() -> None:
    @kiln.no_grad()
    def steps(n: int) -> Iterator[bool]:
        try:
            for _ in range(n):
                got = yield kiln.is_grad_enabled()
                assert got in (None, "sent")
        except ValueError:
            yield kiln.is_grad_enabled()

    assert inspect.isgenerator(steps(1))
    generator: Any = steps(5)
    assert next(generator) is False and kiln.is_grad_enabled()
    assert generator.send("sent") is False and kiln.is_grad_enabled()
    assert generator.throw(ValueError()) is False and kiln.is_grad_enabled()
    generator.close()
    assert list(steps(2)) == [False, False]


def test_inference_mode_is_part_of_a_signature() -> None:
    f = kiln.compile(lambda x: x * 2 if kiln.is_inference_mode_enabled() else x * 3)
    x = kiln.ones(1)
    assert f(x).item() == f(x).item() == 3.0
    with kiln.inference_mode():
        assert f(x).item() == f(x).item() == 2.0
    with kiln.no_grad():
        assert f(x).item() == f(x).item() == 3.0


def test_detach_in_place_and_data() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    assert y.detach_() is y and y.is_leaf and not y.requires_grad
    with pytest.raises(kiln.GradError, match="view"):
        (x * 2)[0].detach_()
    x.data.mul_(3)
    assert x.tolist() == [3.0, 6.0] and x.requires_grad and x.is_leaf
    x.data = kiln.ones(3, dtype=kiln.float64)
    assert x.shape == (3,) and x.requires_grad
    with pytest.raises(TypeError):
        x.data = 3  # type: ignore[assignment]
    with pytest.raises(TypeError):
        x.data = kiln.tensor([1, 2])
    for change in (
        lambda t: t.detach_(),
        lambda t: t.requires_grad_(),
        lambda t: setattr(t, "data", kiln.ones(2)),
    ):
        with pytest.raises(kiln.CaptureError, match="from outside"):
            kiln.compile(change, fullgraph=True)(kiln.ones(2))


def test_requires_grad_of_views() -> None:
    x = leaf(1.0, 2.0)
    assert x[0].requires_grad and not x[0].is_leaf
    with kiln.no_grad():
        assert not x[0].requires_grad
    y = kiln.zeros(2, dtype=kiln.float64)
    view = y[0]
    y.copy_(x)
    assert view.requires_grad and not view.is_leaf
    view.backward()
    assert x.grad.tolist() == [1.0, 0.0]


# ------------------------------------------------------------------------------------- grad and backward


def test_grad_in_full() -> None:
    x, z = leaf(1.0, 2.0), leaf(3.0)
    y = (x * x).sum()
    with pytest.raises(kiln.GradError, match="not used"):
        kiln.grad(y, [x, z], retain_graph=True)
    assert kiln.grad(y, [x, z], allow_unused=True, retain_graph=True)[1] is None
    made = kiln.grad(y, [x, z], materialize_grads=True, retain_graph=True)
    assert made[1] is not None and made[1].tolist() == [0.0]
    with pytest.raises(ValueError, match="allow_unused"):
        kiln.grad(y, x, allow_unused=False, materialize_grads=True)
    with pytest.raises(ValueError, match="only_inputs"):
        kiln.grad(y, x, only_inputs=False)
    with pytest.raises(ValueError, match="is_grads_batched"):
        kiln.grad(y, x, is_grads_batched=True)
    with pytest.raises(TypeError, match="with respect to tensors"):
        kiln.grad(y, 3)  # type: ignore[arg-type]
    assert kiln.grad([y, x * 2], x, grad_outputs=[None, kiln.ones(2, dtype=kiln.float64)])[0].tolist() == [4.0, 6.0]
    with pytest.raises(kiln.GradError, match="retain_graph"):
        kiln.grad(y, x)


def test_backward_to_chosen_inputs() -> None:
    x, z = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * z
    (y * 2).sum().backward(inputs=[x, y], retain_graph=True)
    assert x.grad.tolist() == [6.0, 8.0] and z.grad is None and y.grad.tolist() == [2.0, 2.0]
    (y * 2).sum().backward(inputs=z)
    assert z.grad.tolist() == [2.0, 4.0] and x.grad.tolist() == [6.0, 8.0]
    with pytest.raises(ValueError, match="empty"):
        (x * 2).sum().backward(inputs=[])


# ---------------------------------------------------------------------------------------------- anomaly


def test_anomaly_names_the_op_and_the_line() -> None:
    x = leaf(0.0, 4.0)
    with autograd.detect_anomaly():
        assert autograd.is_anomaly_enabled()
        root = (x * 0).sqrt()  # the guilty line
        y = (root * 0).sum()
        with pytest.raises(kiln.GradError) as caught:
            y.backward()
    text = str(caught.value)
    assert not autograd.is_anomaly_enabled()
    assert text.startswith("sqrt: ") or text.startswith("div: ") or text.startswith("rsqrt: "), text
    assert "# the guilty line" in text and "NaN" in text and "fix: " in text
    y = ((x * 0).sqrt() * 0).sum()
    y.backward()  # without it: NaNs pass
    assert np.isnan(x.grad.numpy()).any()


def test_anomaly_notes_the_line_of_other_errors() -> None:
    x = leaf(1.0)
    with autograd.set_detect_anomaly(True, check_nan=False):
        assert not autograd.is_anomaly_check_nan_enabled()
        a = x * 1
        y = a * a  # the line
        a.add_(1)
        with pytest.raises(kiln.GradError) as caught:
            y.backward()
    assert any("MulBackward0" in note and "test_hooks.py" in note for note in caught.value.__notes__)
    autograd.set_detect_anomaly(True)
    autograd.set_detect_anomaly(False)
    assert autograd.is_anomaly_check_nan_enabled() and not autograd.is_anomaly_enabled()


def test_anomaly_looks_into_compiled_functions() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        y = x * 0
        root = y.sqrt()  # the guilty line, compiled
        return (root * 0).sum()

    x = leaf(0.0, 4.0)
    f(x)
    with autograd.detect_anomaly():
        y = f(x)
        with pytest.raises(kiln.GradError, match="the guilty line, compiled"):
            y.backward()
