"""The tape: gradients against finite differences, orders, in-place writes, errors, higher derivatives."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import autograd
from kiln import functional as F
from kiln.nn import functional as NF

RNG = np.random.default_rng(11)


def leaf(data: Any, dtype: Any = None) -> kiln.Tensor:
    return kiln.tensor(data, dtype=dtype, requires_grad=True)


def normal(*shape: int) -> kiln.Tensor:
    """A float64 leaf."""
    return leaf(RNG.standard_normal(shape))


def check(f: Callable[..., Any], *inputs: Any, step: float = 1e-6, tolerance: float = 1e-6) -> None:
    """Gradients of a random projection of f against central differences."""
    out = f(*inputs)
    weights = kiln.from_numpy(RNG.standard_normal(out.shape))

    def value() -> float:
        with kiln.no_grad():
            return float((f(*inputs) * weights).sum().item())

    grads = kiln.grad((out * weights).sum(), list(inputs))
    for x, g in zip(inputs, grads, strict=True):
        data = x.detach().numpy()
        assert g is not None and g.shape == x.shape
        for i in np.ndindex(data.shape):
            kept = data[i]
            data[i] = kept + step
            up = value()
            data[i] = kept - step
            slope = (up - value()) / (2 * step)
            data[i] = kept
            assert abs(slope - g[i].item()) <= tolerance * max(1, abs(slope)), (i, slope, g[i].item())


class TestGradients:
    @pytest.mark.parametrize(
        "f",
        [
            lambda a, b: a + b, lambda a, b: a - 2.0 * b, lambda a, b: a * b, lambda a, b: a / (b * b + 1.0),
            lambda a, b: F.maximum(a, b), lambda a, b: F.where(a > 0, a, b), lambda a, b: F.cat([a, b, a], 1),
            lambda a, b: F.stack([a, b], 0), lambda a, b: a @ b.t(), lambda a, b: (a * a + 1.0) ** b,
            lambda a, b: F.softmax(a, 1) * b, lambda a, b: NF.mse_loss(a, b),
        ],
    )  # fmt: skip
    def test_two_operands(self, f: Any) -> None:
        check(f, normal(3, 4), normal(3, 4))

    @pytest.mark.parametrize(
        "f",
        [
            lambda a: a[0] + a[:, 1:2], lambda a: a * a[1], lambda a: a.t().reshape(2, 6), lambda a: a[::2, 1:],
            lambda a: a.sum(0), lambda a: a.mean(), lambda a: a.mean((0, 1), keepdim=True), lambda a: a.amax(1),
            lambda a: a.max(0).values, lambda a: a.min(1, keepdim=True).values, lambda a: F.log_softmax(a, 0),
            lambda a: kiln.gelu(a), lambda a: F.tanh(a), lambda a: F.sigmoid(a), lambda a: F.erf(a), lambda a: F.exp(a),
            lambda a: F.log(a * a + 1.0), lambda a: F.sqrt(a * a + 1.0), lambda a: F.tanh(a) * F.exp(a),
            lambda a: abs(a), lambda a: F.relu(a), lambda a: F.clamp(a, -0.5, 0.5),
            lambda a: a.unsqueeze(1).expand(3, 2, 4), lambda a: NF.cross_entropy(a, kiln.tensor([0, 3, 1])),
            lambda a: a.to(kiln.float64) * 1.0,
            lambda a: (a @ a[0]) @ a, lambda a: F.linear(a.reshape(1, 3, 4), a, a[:, 0]), lambda a: -a.clone(),
        ],
    )  # fmt: skip
    def test_one_operand(self, f: Any) -> None:
        check(f, normal(3, 4))

    def test_batched_matmul(self) -> None:
        check(lambda a, b: a @ b, normal(2, 3, 4), normal(4, 2))
        check(lambda a, b: a @ b, normal(2, 1, 3, 2), normal(3, 2, 2))

    def test_second_derivatives(self) -> None:
        def slope(a: Any) -> Any:
            (g,) = kiln.grad((F.exp(a) * a).sum(), a, create_graph=True)
            return g

        def hessian_vector(a: Any, f: Any) -> Any:
            with kiln.enable_grad():
                (g,) = kiln.grad(f(a), a, create_graph=True)
                (h,) = kiln.grad((g * g).sum(), a, create_graph=True)
            return h

        a = normal(3)
        (second,) = kiln.grad(slope(a).sum(), a)
        x = a.detach().numpy()
        assert second is not None
        np.testing.assert_allclose(second.numpy(), np.exp(x) * (2 + x), rtol=1e-10)
        for f in (lambda v: F.softmax(v, 0)[0], lambda v: F.tanh(v).sum(), lambda v: kiln.gelu(v).mean()):
            check(lambda v, f=f: hessian_vector(v, f), normal(3), tolerance=1e-5)


class TestOrder:
    def test_uses_fold_in_reverse_program_order(self) -> None:
        big, small = 1e8, 0.3
        x = leaf([1.0])
        a, b, c = x * big, x * -big, x * small
        (a + b + c).sum().backward()
        f = np.float32
        assert x.grad is not None
        assert x.grad.item() == f(f(f(small) + f(-big)) + f(big)) != f(small)

    def test_one_sum_per_walk_is_added_to_grad(self) -> None:
        x = leaf([1.0])
        x.grad = kiln.tensor([1e8])
        ((x * 3.0) + (x * 3.0)).sum().backward()
        assert x.grad.item() == np.float32(1e8) + np.float32(6)

    def test_deep_tapes(self) -> None:
        x = leaf([1.0])
        y = x
        for _ in range(5000):
            y = y + 0.0
        y.sum().backward()
        assert x.grad is not None and x.grad.item() == 1

    def test_continued_folds(self) -> None:
        """A node that continues the fold gets what later uses gathered, and its result replaces it."""
        seen = []

        class Region(autograd.Node):
            continues_fold = True

            def apply(self, grads: Any, running: Any) -> Any:
                seen.append([None if r is None else r.tolist() for r in running])
                (g,) = grads
                return [g * 2.0 if running[0] is None else running[0] + g * 2.0]

            def release(self) -> None:
                seen.append("released")

        x = leaf([1.0, 1.0])
        early = x * 5.0
        out = x.detach() * 2.0
        autograd.attach(Region([autograd.edge_of(x)], [out.ttype]), [out])
        late = x * 7.0
        (early + out + late).sum().backward()
        assert seen == [[[7.0, 7.0]], "released"]
        assert x.grad is not None and x.grad.tolist() == [14.0, 14.0]


class TestBackward:
    def test_gradients_gather(self) -> None:
        x = leaf([1.0, 2.0])
        for times in (1, 2):
            (x * x).sum().backward()
            assert x.grad is not None and x.grad.tolist() == [2.0 * times, 4.0 * times]
        kept = x.grad
        (x * 1.0).sum().backward()
        assert x.grad is kept and kept.tolist() == [5.0, 9.0]

    def test_gradients_do_not_share_memory(self) -> None:
        x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        seed = kiln.ones(2)
        (x + y).backward(seed)
        assert x.grad is not None and y.grad is not None
        x.grad.zero_()
        assert y.grad.tolist() == [1, 1]
        assert seed.tolist() == [1, 1]
        z = leaf(kiln.ones(2, 3))
        z.sum().backward()
        assert z.grad is not None and z.grad.is_contiguous()
        z.grad.add_(1.0)
        assert z.grad.tolist() == [[2.0] * 3] * 2
        scalar = leaf(2.0)
        scalar.reshape(()).backward()
        assert scalar.grad is not None
        scalar.grad.add_(1.0)
        assert kiln.ones(()).item() == 1

    def test_several_outputs(self) -> None:
        x = leaf([1.0, 2.0])
        autograd.backward([x * 2.0, (x * x).sum()], [kiln.tensor([1.0, 10.0]), None])
        assert x.grad is not None and x.grad.tolist() == [4.0, 24.0]

    def test_unused_and_integer_paths(self) -> None:
        x = leaf([1.0, 3.0])
        y = x * (x > 2.0).to(kiln.float32)
        y.sum().backward()
        assert x.grad is not None and x.grad.tolist() == [0.0, 1.0]
        assert not (x > 2).requires_grad
        assert not x.argmax().requires_grad

    def test_errors(self) -> None:
        x = leaf([1.0, 2.0])
        with pytest.raises(RuntimeError, match="one element"):
            (x * 2.0).backward()
        with pytest.raises(RuntimeError, match="does not require"):
            kiln.zeros(()).backward()
        with pytest.raises(RuntimeError, match="gradient of a"):
            (x * 2.0).backward(kiln.ones(3))
        y = x.exp().sum()
        y.backward()
        with pytest.raises(RuntimeError, match="retain_graph"):
            y.backward()
        z = x.exp().sum()
        z.backward(retain_graph=True)
        z.backward()
        with pytest.raises(kiln.DTypeError):
            kiln.tensor([1], requires_grad=True)
        with pytest.raises(RuntimeError, match="leaves"):
            (x * 2.0).requires_grad_(False)
        with pytest.raises(RuntimeError, match="detach"):
            x.numpy()
        with pytest.raises(RuntimeError, match="dtype and shape"):
            x.grad = kiln.zeros(3)
        with pytest.raises(TypeError):
            x.grad = 1.0  # type: ignore[assignment]


class TestGrad:
    def test_leaves_and_intermediates(self) -> None:
        x = leaf([2.0])
        y = x * x
        z = y * x
        gx, gy = kiln.grad(z.sum(), [x, y])
        assert gx is not None and gx.item() == 12
        assert gy is not None and gy.item() == 2
        assert x.grad is None

    def test_only_what_leads_to_the_inputs_is_walked(self) -> None:
        x = leaf([2.0])
        y = x.exp()
        z = y.exp()
        kiln.grad(z.sum(), y)
        y.sum().backward()
        assert x.grad is not None

    def test_unused_inputs(self) -> None:
        x, other = leaf([2.0]), leaf([1.0])
        with pytest.raises(RuntimeError, match="allow_unused"):
            kiln.grad((x * x).sum(), [x, other])
        assert kiln.grad((x * x).sum(), [x, other], allow_unused=True)[1] is None
        with pytest.raises(RuntimeError, match="requires_grad_"):
            kiln.grad((x * x).sum(), kiln.zeros(1))

    def test_the_output_itself(self) -> None:
        x = leaf([2.0])
        (g,) = kiln.grad(x, x)
        assert g is not None and g.tolist() == [1.0]
        g.add_(1.0)
        y = x * 2.0
        (g,) = kiln.grad(y, y, kiln.tensor([5.0]))
        assert g is not None and g.item() == 5

    def test_create_graph_gradients_are_on_the_tape(self) -> None:
        x = leaf([2.0])
        (x * x * x).sum().backward(create_graph=True)
        assert x.grad is not None and x.grad.requires_grad
        g = x.grad
        x.grad = None
        g.sum().backward()
        assert x.grad is not None and x.grad.item() == 12


class TestModes:
    def test_no_grad(self) -> None:
        x = leaf([1.0])
        with kiln.no_grad():
            assert not (x * 2.0).requires_grad
            with kiln.enable_grad():
                assert (x * 2.0).requires_grad
            assert not kiln.is_grad_enabled()
        assert kiln.is_grad_enabled()

        @kiln.no_grad()
        def f(y: Any) -> Any:
            return y * 2.0

        assert not f(x).requires_grad
        assert f.__name__ == "f"

    def test_set_grad_enabled(self) -> None:
        with kiln.set_grad_enabled(False):
            assert not kiln.is_grad_enabled()
        assert kiln.is_grad_enabled()
        kiln.set_grad_enabled(False)
        assert not kiln.is_grad_enabled()
        kiln.set_grad_enabled(True)

        @kiln.set_grad_enabled(False)
        def f() -> bool:
            return kiln.is_grad_enabled()

        assert kiln.is_grad_enabled()
        assert f() is False

    def test_errors_restore_the_mode(self) -> None:
        with pytest.raises(ZeroDivisionError), kiln.no_grad():
            raise ZeroDivisionError
        assert kiln.is_grad_enabled()

    def test_detach(self) -> None:
        x = leaf([1.0])
        d = x.detach()
        assert not d.requires_grad and d.is_leaf
        (x * d).sum().backward()
        assert x.grad is not None and x.grad.item() == 1


class TestInPlace:
    def test_leaves_are_protected(self) -> None:
        x = leaf([1.0, 2.0])
        for bad in (lambda: x.add_(1.0), lambda: x[0].zero_(), lambda: x.__setitem__(0, 3.0)):
            with pytest.raises(RuntimeError, match="leaf"):
                bad()
        with kiln.no_grad():
            x.add_(1.0)
        assert x.tolist() == [2, 3]

    def test_history_follows_the_write(self) -> None:
        x = leaf([1.0, 2.0])
        y = x * 1.0
        y.mul_(x)
        y += x
        y[0] = 7.0
        y.sum().backward()
        assert x.grad is not None and x.grad.tolist() == [0.0, 2 * 2 + 1]

    def test_a_tensor_gains_history(self) -> None:
        x, out = leaf([1.0, 2.0]), kiln.zeros(3)
        out[1:] = x * 3.0
        assert out.requires_grad
        (out * out).sum().backward()
        assert x.grad is not None and x.grad.tolist() == [18.0, 36.0]

    def test_views_see_writes_to_their_base(self) -> None:
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        y = x * 1.0
        row, column = y[0], y.t()[1]
        y.mul_(10.0)
        row.add_(column)
        (row.sum() + 2.0 * column.sum() + y.sum()).backward()

        def same() -> Any:
            base = z * 10.0
            new_row = base[0] + base.t()[1]
            base = F.stack([new_row, base[1]])
            return base[0].sum() + 2.0 * base.t()[1].sum() + base.sum()

        z = leaf([[1.0, 2.0], [3.0, 4.0]])
        same().backward()
        assert x.grad is not None and z.grad is not None
        assert x.grad.tolist() == z.grad.tolist()

    def test_writes_through_chains_of_views(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        y = kiln.zeros(2, 3, 4)
        y.permute(2, 0, 1)[1:3].reshape(2, 6)[:, :3].reshape(2, 3)[0].copy_(x)
        (y * y).sum().backward()
        assert x.grad is not None and x.grad.tolist() == [2.0, 4.0, 6.0]

    def test_overwritten_saved_values_are_noticed(self) -> None:
        x = leaf([1.0, 2.0])
        y = x.exp()
        z = y.exp()
        y.add_(1.0)
        with pytest.raises(RuntimeError, match=r"exp: .*modified in place"):
            z.sum().backward()
        a = x * 2.0
        b = a * a
        a[0] = 0.0
        with pytest.raises(RuntimeError, match=r"mul: .*modified in place"):
            b.sum().backward()
        with kiln.no_grad():
            p = leaf([1.0])
        out = (p * p).sum()
        p.detach().add_(1.0)
        with pytest.raises(RuntimeError, match="modified in place"):
            out.backward()

    def test_views_made_without_gradients(self) -> None:
        x = leaf([1.0, 2.0])
        y = x * 1.0
        with kiln.no_grad():
            v = y[0]
        with pytest.raises(RuntimeError, match="gradients disabled"):
            v.mul_(2.0)

    def test_overwritten_tensors_have_zero_gradients_before(self) -> None:
        x = leaf([3.0])
        y = x * 1.0
        part = y[0]
        y.zero_()
        assert y.requires_grad
        assert part.requires_grad
        y.add_(x)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.item() == 1

    def test_write_to_itself(self) -> None:
        x = leaf([3.0])
        y = x * 1.0
        y.mul_(y)
        y.sum().backward()
        assert x.grad is not None and x.grad.item() == 6


class TestMemory:
    def test_results_are_freed_without_the_collector(self) -> None:
        gc.disable()
        try:
            x = leaf([1.0])
            y = x.exp()
            watch = weakref.ref(y)
            del y
            assert watch() is None
        finally:
            gc.enable()

    def test_saved_values_go_with_the_walk(self) -> None:
        x = leaf([1.0])
        y = x.exp()
        z = y * y
        buffer = weakref.ref(y._buffer)
        del y
        out = z.sum()
        del z
        assert buffer() is not None
        out.backward()
        assert buffer() is None


def test_a_view_that_is_a_leaf_stays_one_when_its_memory_is_written() -> None:
    base = kiln.zeros(4)
    view = base[::2].requires_grad_()
    with kiln.no_grad():
        base.add_(1)
        view.mul_(2)
    assert view.requires_grad and view.is_leaf
    (view * 3).sum().backward()
    assert view.grad is not None and view.grad.tolist() == [3.0, 3.0]


PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "mul": lambda a, b: a * b,
    "matmul": lambda a, b: a @ b,
    "div": lambda a, b: a / b,
    "conv2d": lambda a, b: kiln.nn.functional.conv2d(a[None, None], b[None, None]),
    "pow": lambda a, b: a**b,
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("name", "left", "right"), [
    ("mul", True, False), ("mul", False, True), ("matmul", True, False), ("matmul", False, True),
    ("conv2d", True, False), ("conv2d", False, True), ("div", True, False),
])  # fmt: skip
def test_a_product_keeps_only_what_its_gradient_reads(name: str, left: bool, right: bool, compiled: bool) -> None:
    """As torch: the operand that alone wants a gradient may be overwritten, the other one may not."""
    f = kiln.compile(PRODUCTS[name]) if compiled else PRODUCTS[name]
    for overwritten in (0, 1) * 2:
        leaf = kiln.full((3, 3), 2.0).requires_grad_()
        pair = [leaf * 1 if left else kiln.full((3, 3), 3.0), leaf * 1 if right else kiln.full((3, 3), 5.0)]
        y = f(*pair)
        with kiln.no_grad():
            pair[overwritten].zero_()
        if (left, right)[overwritten]:
            y.sum().backward()
            assert leaf.grad is not None
            assert leaf.grad.abs().sum().item() > 0
        else:
            with pytest.raises(kiln.GradError, match="in place"):
                y.sum().backward()


def test_in_place_products_keep_no_copy_that_nothing_reads() -> None:
    leaf = kiln.full((3,), 2.0).requires_grad_()
    x, w = leaf * 1, kiln.full((3,), 4.0)
    x.mul_(w)
    assert x._node is not None
    assert [t.shape for t, _, _ in x._node.versions] == [(3,)]
    x.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [4.0] * 3


OVERWRITES: dict[str, Callable[[Any, Any], Any]] = {
    "fill": lambda x, v: x.fill_(3.0),
    "zero": lambda x, v: x.zero_(),
    "copy of data": lambda x, v: x.copy_(v.detach()),
    "copy": lambda x, v: x.copy_(v * 2),
    "through a turned view": lambda x, v: x.t().fill_(1.0),
    "all of it": lambda x, v: x.__setitem__(slice(None), 1.0),
    "random numbers": lambda x, v: x.uniform_(),
}


@pytest.mark.parametrize("how", OVERWRITES)
def test_what_is_overwritten_keeps_its_gradient_which_is_zero(how: str) -> None:
    """As torch: requires_grad stays, and the leaf behind gets zeros."""

    def run(x: Any, v: Any) -> Any:
        y = x * 2
        OVERWRITES[how](y, v)
        return y, (y * 3).sum()

    for f in (run, kiln.compile(run)):
        for _ in range(2):
            x, v = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([[5.0, 6.0], [7.0, 8.0]])
            y, total = f(x, v)
            assert y.requires_grad
            total.backward()
            assert x.grad is not None
            assert x.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]
            assert (v.grad is None) == (how != "copy")
            if v.grad is not None:
                assert v.grad.tolist() == [[6.0, 6.0], [6.0, 6.0]]


def test_what_is_overwritten_without_gradients_has_none() -> None:
    y = kiln.ones(3).fill_(2.0)
    assert not y.requires_grad
    x = leaf([1.0, 2.0])
    y = x * 2
    with kiln.no_grad():
        y.fill_(0.0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
