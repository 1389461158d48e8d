"""Complex tensors: against NumPy on awkward memory, compiled as eager, gradients by differences of real functions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, compiles, differentiates, layouts

DTYPES = ("complex64", "complex128")
T = kiln.Tensor


def numbers(shape: tuple[int, ...], dtype: str = "complex128", seed: int = 0) -> Array:
    rng = np.random.default_rng([seed, *shape])
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


MOVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "transpose": (lambda t: t.T, lambda a: a.T),
    "flip": (lambda t: t.flip(0), lambda a: np.flip(a, 0)),
    "slice": (lambda t: t[1:, ::2], lambda a: a[1:, ::2]),
    "reshape": (lambda t: t.t().reshape(-1), lambda a: a.T.reshape(-1)),
    "cat": (lambda t: kiln.cat([t, t * 2], 1), lambda a: np.concatenate([a, a * 2], 1)),
    "stack": (lambda t: kiln.stack([t, t]), lambda a: np.stack([a, a])),
    "expand": (lambda t: t.expand(3, *t.shape).clone(), lambda a: np.broadcast_to(a, (3, *a.shape)).copy()),
    "where": (lambda t: kiln.where(t.real > 0, t, 0), lambda a: np.where(a.real > 0, a, 0).astype(a.dtype)),
    "index": (lambda t: t[:, kiln.tensor([1, 0, 1])], lambda a: a[:, [1, 0, 1]]),
    "roll": (lambda t: kiln.roll(t, 3, 1), lambda a: np.roll(a, 3, 1)),
    "tril": (kiln.tril, np.tril),
    "repeat": (lambda t: t.repeat(2, 3), lambda a: np.tile(a, (2, 3))),
    "conj": (kiln.conj, np.conj),
    "mH": (lambda t: t.mH, lambda a: a.T.conj()),
    "real": (lambda t: t.real.clone(), lambda a: a.real.copy()),
    "imag": (lambda t: t.imag * 1, lambda a: a.imag.copy()),
    "view_as_real": (lambda t: kiln.view_as_real(t) * 1, lambda a: np.stack([a.real, a.imag], -1)),
    "complex": (lambda t: kiln.complex(t.imag, t.real), lambda a: (a.imag + 1j * a.real).astype(a.dtype)),
    "neg": (lambda t: -t, np.negative),
    "add": (lambda t: t + (1 - 2j), lambda a: a + a.dtype.type(1 - 2j)),
    "sub": (lambda t: 1 - t, lambda a: 1 - a),
    "eq": (lambda t: t == t.conj(), lambda a: a == a.conj()),
    "ne": (lambda t: t != t.flip(0), lambda a: a != np.flip(a, 0)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(MOVES))
def test_what_is_exact(name: str, dtype: str) -> None:
    ours, theirs = MOVES[name]
    for a in (numbers((4, 6), dtype), numbers((35, 4), dtype).T, numbers((6, 12), dtype)[::2, 1::3]):
        agrees(ours, theirs, a)


@pytest.mark.parametrize("name", sorted(set(MOVES) - {"eq", "ne"}))
def test_gradients_of_moves(name: str) -> None:
    differentiates(MOVES[name][0], numbers((4, 5)))


# ------------------------------------------------------------------------------------------- functions

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: getattr(np, name) for name in ("log1p", "log2", "log10", "exp2", "expm1", "reciprocal", "square", "abs")},
    **{f"a{name}": getattr(np, f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "rsqrt": lambda z: 1 / np.sqrt(z),
    "sgn": lambda z: z / np.abs(z),
    "angle": np.angle,
}


def near(got: Array, wanted: Array, ulp: float = 32) -> bool:
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, (got.dtype, wanted.dtype, got.shape, wanted.shape)
    return bool((np.abs(got - wanted) <= ulp * np.finfo(got.dtype).eps * np.abs(wanted)).all())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name: str) -> None:
    ours = getattr(kiln, name)
    for dtype in DTYPES:
        for a in layouts(lambda shape, dtype=dtype: numbers(shape, dtype)):  # type: ignore[misc]
            assert near(
                ours(kiln.from_numpy(a)).numpy(),
                np.asarray(FUNCTIONS[name](a)).astype(ours(kiln.tensor(a)).numpy().dtype),
            )
        compiles(ours, numbers((37,), dtype))
    differentiates(ours, numbers((3, 4)), second=True)


PAIRS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide),
    "pow": (lambda a, b: a**b, np.power),
    "matmul": (lambda a, b: a @ b.mH, lambda a, b: a @ b.conj().T),
    "vdot": (lambda a, b: kiln.vdot(a.flatten(), b.flatten()), np.vdot),
    "outer": (lambda a, b: kiln.outer(a[0], b[0]), lambda a, b: np.outer(a[0], b[0])),
    "einsum": (lambda a, b: kiln.einsum("ij,kj->ki", a, b), lambda a, b: np.einsum("ij,kj->ki", a, b)),
    "tensordot": (lambda a, b: kiln.tensordot(a, b, ([1], [1])), lambda a, b: np.tensordot(a, b, ([1], [1]))),
    "bmm": (lambda a, b: kiln.bmm(a[None], b.mT[None]), lambda a, b: (a @ b.T)[None]),
    "addmm": (
        lambda a, b: kiln.addmm(a @ b.mT, a, b.mT, beta=2, alpha=1j),
        lambda a, b: 2 * (a @ b.T) + 1j * (a @ b.T),
    ),
    "linear": (kiln.nn.functional.linear, lambda a, b: a @ b.T),
    "mixed": (lambda a, b: a * b.real + b.imag, lambda a, b: a * b.real + b.imag),
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_two_operands(name: str) -> None:
    ours, theirs = PAIRS[name]
    for dtype in DTYPES:
        a, b = numbers((4, 5), dtype), numbers((4, 5), dtype, seed=1)
        wanted = np.asarray(theirs(a, b)).astype(dtype)
        got = ours(kiln.from_numpy(a), kiln.from_numpy(b)).numpy()
        assert got.dtype == wanted.dtype
        assert np.abs(got - wanted).max() <= 64 * np.finfo(dtype).eps * np.abs(wanted).max()
        compiles(ours, a, b)
    differentiates(ours, numbers((4, 5)), numbers((4, 5), seed=1), second=True)


SUMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sum": (lambda t: t.sum(1), lambda a: a.sum(1)),
    "total": (lambda t: t.sum(), lambda a: a.sum()),
    "mean": (lambda t: t.mean(0, keepdim=True), lambda a: a.mean(0, keepdims=True)),
    "prod": (lambda t: t.prod(1), lambda a: a.prod(1)),
    "all of prod": (lambda t: t.prod(), lambda a: a.prod()),
    "cumsum": (lambda t: t.cumsum(1), lambda a: a.cumsum(1)),
    "cumprod": (lambda t: t.cumprod(0), lambda a: a.cumprod(0)),
    "var": (lambda t: t.var(1), lambda a: a.var(1, ddof=1)),
    "std": (lambda t: t.std(), lambda a: a.std(ddof=1)),
    "norm": (lambda t: t.norm(), np.linalg.norm),
    "norm of order 1": (lambda t: t.norm(1, 1), lambda a: np.abs(a).sum(1)),
    "logsumexp": (lambda t: t.logsumexp(1), lambda a: np.log(np.exp(a).sum(1))),
    "trace": (lambda t: t[:, :3].trace(), lambda a: a[:, :3].trace()),
}


@pytest.mark.parametrize("name", sorted(SUMS))
def test_reductions(name: str) -> None:
    ours, theirs = SUMS[name]
    for dtype in DTYPES:
        for a in (numbers((3, 5), dtype), numbers((5, 3), dtype).T):
            got, wanted = ours(kiln.from_numpy(a)).numpy(), np.asarray(theirs(a))
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            assert np.abs(got - wanted).max() <= 64 * np.finfo(dtype).eps * np.abs(wanted).max()
            compiles(ours, a)
    differentiates(ours, numbers((3, 5)), second=name not in ("sum", "total", "mean", "cumsum", "trace"))


def test_reductions_of_nothing() -> None:
    z = kiln.zeros(0, 3, dtype=kiln.complex64)
    assert z.sum().item() == 0 and z.prod().item() == 1 and z.prod(0).tolist() == [1, 1, 1]
    assert z.cumprod(0).shape == (0, 3) and z.norm().item() == 0
    one = kiln.tensor(2 + 1j)
    assert one.sum().item() == one.prod().item() == one.cumsum(0).item() == one.cumprod(0).item() == 2 + 1j


def test_division_by_zero_and_infinities() -> None:
    """What PyTorch gives."""
    inf, nan = float("inf"), float("nan")
    got = (kiln.tensor([1 + 2j, -1j, 0j]) / 0).tolist()
    assert got[0] == complex(inf, inf) and got[1].imag == -inf and got[2] != got[2]
    assert kiln.abs(kiln.tensor([complex(inf, nan), complex(nan, -inf)])).tolist() == [inf, inf]
    huge = kiln.tensor([1e38 + 1e38j, 1e-30 + 1e-30j])
    assert near((huge / huge).numpy(), np.ones(2, np.complex64))
    assert near(huge.abs().numpy(), np.array([2**0.5 * 1e38, 2**0.5 * 1e-30], np.float32))  # squares leave float32
    assert kiln.sqrt(kiln.tensor([-4 + 0j, complex(-4, -0.0), 0j])).tolist() == [2j, -2j, 0]
    assert kiln.exp(kiln.tensor([complex(inf, 0.0)])).tolist() == [complex(inf, 0)]
    odd = kiln.tensor([complex(nan, 1), complex(1, inf), 1 + 1j, complex(-inf, nan)])
    assert odd.isnan().tolist() == [True, False, False, True]
    assert odd.isinf().tolist() == [False, True, False, True]
    assert odd.isfinite().tolist() == [False, False, True, False]
    assert kiln.nan_to_num(odd, 7.0, 8.0, 9.0).tolist() == [7 + 1j, 1 + 8j, 1 + 1j, 9 + 7j]
    assert kiln.isreal(kiln.tensor([1 + 0j, 1j])).tolist() == [True, False]


def test_gradients_at_zero() -> None:
    """As PyTorch has them."""
    for f in (kiln.abs, kiln.angle, lambda t: kiln.sgn(t).real, lambda t: t.norm()):
        z = kiln.zeros(2, dtype=kiln.complex128, requires_grad=True)
        f(z).sum().backward()
        assert z.grad is not None and z.grad.tolist() == [0, 0]


# ---------------------------------------------------------------------------------- views and writes


def test_views_share_memory() -> None:
    a = numbers((3, 4), "complex64")
    z = kiln.from_numpy(a)
    z.real[0] = 5
    z.imag = kiln.zeros(3, 4)
    kiln.view_as_real(z)[1, 1, 1] = 7
    assert (a[0] == 5).all() and a[1, 1].imag == 7 and a.imag.sum() == 7
    pairs = np.zeros((3, 2), np.float32)
    w = kiln.view_as_complex(kiln.from_numpy(pairs))
    w += 1 - 2j
    assert (pairs == [1, -2]).all() and w.stride() == (1,)
    assert z.real.stride() == (8, 2) and z.T.imag.stride() == (2, 8)
    x = kiln.ones(2)
    assert kiln.real(x) is x and kiln.conj(x) is x and x.real is x


def write_everywhere(x: T) -> tuple[T, T]:
    z = x.clone()
    z[1] = 7 + 1j
    z.real[2] = 3.0
    z.imag += 1.0
    kiln.view_as_real(z)[3] = 0.5
    z *= 2j
    z[:, kiln.tensor([0, 2])] = 1j
    kiln.view_as_complex(kiln.view_as_real(z))[0] -= 3
    z.masked_fill_(z.real > 100, 0)
    return z, z.T.real


def test_writes_through_views() -> None:
    a = numbers((5, 4), "complex64")
    wanted = a.copy()
    wanted[1] = 7 + 1j
    wanted.real[2] = 3
    wanted.imag += 1
    wanted[3] = 0.5 + 0.5j
    wanted *= 2j
    wanted[:, [0, 2]] = 1j
    wanted[0] -= 3
    assert near(write_everywhere(kiln.from_numpy(a))[0].numpy(), wanted)
    compiles(write_everywhere, a)
    differentiates(write_everywhere, numbers((5, 4)))


def test_a_compiled_function_writes_its_arguments() -> None:
    def f(z: T, x: T) -> T:
        z.imag.mul_(2.0)
        z.add_(1j)
        kiln.view_as_complex(x).mul_(1j)
        return z.sum()

    compiled = kiln.compile(f)
    for seed in range(3):
        a, b = numbers((9,), "complex64", seed), numbers((9,), "complex64", seed)
        x, y = (np.arange(6, dtype=np.float32).reshape(3, 2) for _ in range(2))
        assert (
            compiled(kiln.from_numpy(a), kiln.from_numpy(x)).item() == f(kiln.from_numpy(b), kiln.from_numpy(y)).item()
        )
        assert (a == b).all() and (x == y).all()


# ------------------------------------------------------------------------------ making, reading, keeping


def test_making_and_reading() -> None:
    z = kiln.tensor([[1, 2j], [0.5, 3 - 1j]])
    assert z.dtype is kiln.complex64 and z.is_complex() and not z.is_floating_point()
    assert z.tolist() == [[1, 2j], [0.5, 3 - 1j]] and z[1, 1].item() == complex(z[1, 1]) == 3 - 1j
    assert kiln.tensor([1j], dtype=kiln.cdouble).dtype is kiln.complex128 is kiln.tensor(1.0).cdouble().dtype
    assert kiln.full((2,), 1j).tolist() == [1j, 1j] and kiln.full_like(z, 2).tolist() == [[2, 2], [2, 2]]
    assert kiln.eye(2, dtype=kiln.complex64).tolist() == [[1, 0], [0, 1]]
    assert kiln.polar(kiln.tensor([2.0]), kiln.tensor([0.0])).tolist() == [2]
    assert kiln.complex(kiln.tensor([1.0, 2.0]), kiln.tensor(3.0)).tolist() == [1 + 3j, 2 + 3j]
    assert z.to(kiln.float64).tolist() == [[1, 0], [0.5, 3]] and z.bool().tolist() == [[True, True], [True, True]]
    assert (z.to(kiln.complex128) == z).all() and float(z[0, 0]) == 1 and int(z[0, 0]) == 1
    assert (kiln.from_dlpack(z) == z).all() and (np.from_dlpack(z) == z.numpy()).all()
    assert (2 * np.complex64(1j) + z).dtype is kiln.complex64
    assert kiln.finfo(kiln.complex64).eps == kiln.finfo(kiln.float32).eps
    drawn = kiln.randn(20000, dtype=kiln.complex64, generator=kiln.Generator().manual_seed(1))
    assert abs(drawn.var().item() - 1) < 0.05 and abs(drawn.real.var().item() - 0.5) < 0.03
    assert kiln.rand(5, dtype=kiln.complex128).real.min() >= 0


def test_pickles_and_files(tmp_path: Any) -> None:
    made = {d: kiln.tensor(numbers((2, 3), d)) for d in DTYPES}
    kiln.save(made, tmp_path / "z.safetensors")
    for found in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), kiln.load(tmp_path / "z.safetensors")):
        for name, z in made.items():
            assert found[name].dtype is z.dtype and (found[name] == z).all()


def test_printing() -> None:
    assert repr(kiln.tensor([1 + 2j, -0.5j])) == "tensor([1.+2.0000j, -0.-0.5000j])"
    assert repr(kiln.tensor([1 + 2j])) == "tensor([1.+2.j])"
    assert repr(kiln.tensor(3j, dtype=kiln.complex128)) == "tensor(0.+3.j, dtype=kiln.complex128)"


def test_what_has_no_order_is_refused() -> None:
    z = kiln.tensor([1 + 1j, 2j])
    refused: list[Callable[[], Any]] = [
        *[lambda f=f: f(z) for f in (T.max, T.amin, T.argmax, T.sort, T.median, T.floor, T.round, T.sign, T.relu)],
        *[lambda f=f: f(z, z) for f in (kiln.lt, kiln.maximum, kiln.fmax, kiln.remainder, kiln.floor_divide)],
        lambda: kiln.softmax(z, 0),
        lambda: z.clamp(0),
        lambda: z & 1,
        lambda: kiln.erf(z),
        lambda: kiln.unique(z),
        lambda: z.cummax(0),
        lambda: float(z[0]),
        lambda: kiln.tensor([1j], dtype=kiln.float32),
        lambda: kiln.ones(2).add_(1j),
        lambda: kiln.imag(kiln.ones(2)),
        lambda: kiln.complex(kiln.ones(2), kiln.ones(2, dtype=kiln.float64)),
        lambda: kiln.view_as_complex(kiln.ones(2, 2, dtype=kiln.int64)),
    ]
    for k, call in enumerate(refused):
        with pytest.raises(kiln.DTypeError):
            print(k, call())
    with pytest.raises(kiln.ShapeError):
        kiln.view_as_complex(kiln.ones(3))
    for odd in (kiln.ones(7)[1:5].reshape(2, 2), kiln.ones(2, 3).T):
        with pytest.raises((kiln.InvalidValueError, kiln.ShapeError)):
            kiln.view_as_complex(odd)
    with pytest.raises(kiln.GradError, match="real number"):
        kiln.tensor(1j, requires_grad=True).exp().backward()
    with pytest.raises(kiln.InvalidValueError):
        kiln.ones(2).fill_(1j)


# ------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Rprop", "Adadelta", "Adamax", "NAdam"])
def test_optimizers_train_parts(name: str) -> None:
    """A complex parameter goes the way of its parts."""
    start = numbers((3,))
    z = kiln.tensor(start, requires_grad=True)
    x = kiln.tensor(np.stack([start.real, start.imag], -1), requires_grad=True)
    target = kiln.tensor(numbers((3,), seed=5))
    options = {"momentum": 0.5, "dampening": 0.1} if name == "SGD" else {}
    each = [getattr(kiln.optim, name)([p], lr=0.1, **options) for p in (z, x)]
    for _ in range(4):
        for optimizer, made in zip(each, (lambda: z, lambda: kiln.view_as_complex(x)), strict=True):
            optimizer.zero_grad()
            (made() - target).abs().square().sum().backward()
            optimizer.step()
    assert np.array_equal(kiln.view_as_real(z.detach()).numpy(), x.detach().numpy())


def test_modules_keep_complex_parameters() -> None:
    m = kiln.nn.Linear(3, 2)
    m.register_parameter("phase", kiln.nn.Parameter(kiln.ones(2, dtype=kiln.complex64)))
    m.double()
    assert m.weight.dtype is kiln.float64 and m.phase.dtype is kiln.complex64
    with pytest.raises(kiln.DTypeError):
        m.to(kiln.float32)
    assert m.to(kiln.complex128).weight.dtype is kiln.complex128 is m.phase.dtype


def test_gradcheck() -> None:
    z = kiln.tensor(numbers((3,)), requires_grad=True)
    assert kiln.autograd.gradcheck(lambda t: t * t.conj().exp(), (z,))
    assert kiln.autograd.gradgradcheck(lambda t: t * t.conj().exp(), (z,))

    class Wrong(kiln.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: T) -> T:
            return x * 1j

        @staticmethod
        def backward(ctx: Any, g: T) -> T:
            return g * 1j  # not the conjugate

    assert not kiln.autograd.gradcheck(Wrong.apply, (z,), raise_exception=False)


# ------------------------------------------------------------------------------------------- captured


def test_complex_numbers_are_arguments_of_compiled_functions() -> None:
    """A number is part of the signature, as are signs of zeros; a float tensor in a complex one's place is another."""
    f = kiln.compile(lambda x, k: x * k)
    x = kiln.tensor([1 + 1j, 2])
    for k in (1j, 2j, 1j, complex(0.0, -1.0), 1.0, True, -0.0j):
        assert np.array_equal(f(x, k).numpy(), (x * k).numpy())
    for x in (kiln.ones(2), kiln.ones(2, dtype=kiln.complex64), kiln.ones(2)):
        assert f(x, 2).dtype is x.dtype


def test_views_of_parts_are_arguments_and_results() -> None:
    z = kiln.tensor(numbers((6,), "complex64"))
    f = kiln.compile(lambda re, im: (re + im * 2, kiln.complex(im, re)))
    for operands in ((z.real, z.imag), (z.imag, z.real)):
        for _ in range(2):
            got, (re, im) = f(*operands), operands
            assert (got[0] == re + im * 2).all() and (got[1] == kiln.complex(im, re)).all()
    add = kiln.compile(lambda re: re.add_(1.0) * 2)
    before = z.imag.clone()
    for _ in range(3):
        wanted = (z.real + 1) * 2
        assert (add(z.real) == wanted).all() and (z.imag == before).all()
    part = kiln.compile(lambda t: t.real)
    for _ in range(2):
        part(z).zero_()
    assert (z.real == 0).all() and (z.imag == before).all()


def test_a_compiled_training_step() -> None:
    def train(compiled: bool) -> list[float]:
        kiln.manual_seed(0)
        layer = kiln.nn.Linear(3, 3).to(kiln.complex64)
        optimizer = kiln.optim.Adam(layer.parameters(), lr=0.05)
        x = kiln.randn(8, 3, dtype=kiln.complex64)

        def step(x: T) -> T:
            optimizer.zero_grad()
            loss = (layer(x) - x * 1j).abs().square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = kiln.compile(step) if compiled else step
        return [run(x).item() for _ in range(20)]

    losses = train(False)
    assert losses == train(True) and losses[-1] < losses[0] / 4
