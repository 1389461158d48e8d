"""Random numbers: distributions against their laws, generators, in-place fills, and the same numbers compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import random

N = 20_000


def values(t: kiln.Tensor) -> np.ndarray[Any, Any]:
    return t.detach().numpy().astype(np.float64)


DRAWS: dict[str, Callable[[kiln.Generator | None], kiln.Tensor]] = {
    "rand": lambda g: kiln.rand(3, 4, generator=g),
    "randn": lambda g: kiln.randn((3, 4), dtype=kiln.float64, generator=g),
    "rand_like": lambda g: kiln.rand_like(kiln.zeros(5), generator=g),
    "randn_like": lambda g: kiln.randn_like(kiln.zeros(5), generator=g),
    "randint": lambda g: kiln.randint(3, 17, (4, 2), generator=g),
    "randint_like": lambda g: kiln.randint_like(kiln.zeros(5), 9, generator=g),
    "randperm": lambda g: kiln.randperm(33, generator=g),
    "bernoulli": lambda g: kiln.bernoulli(kiln.full((7,), 0.4), generator=g),
    "bernoulli p": lambda g: kiln.bernoulli(kiln.zeros(7), 0.4, generator=g),
    "normal": lambda g: kiln.normal(2.0, 3.0, (4,), generator=g),
    "normal tensors": lambda g: kiln.normal(kiln.ones(4, 1), kiln.full((3,), 0.5), generator=g),
    "multinomial": lambda g: kiln.multinomial(kiln.tensor([[0.2, 0.0, 0.3], [1.0, 2.0, 3.0]]), 2, generator=g),
    "multinomial again": lambda g: kiln.multinomial(kiln.tensor([0.2, 0.0, 0.3]), 9, True, generator=g),
    "uniform_": lambda g: kiln.zeros(6).uniform_(-1, 2, generator=g),
    "normal_": lambda g: kiln.zeros(6).normal_(1, 2, generator=g),
    "bernoulli_": lambda g: kiln.zeros(6).bernoulli_(0.3, generator=g),
    "bernoulli_ tensor": lambda g: kiln.zeros(6).bernoulli_(kiln.tensor(0.3), generator=g),
    "random_": lambda g: kiln.zeros(6, dtype=kiln.int64).random_(generator=g),
    "random_ to": lambda g: kiln.zeros(6).random_(2, 9, generator=g),
    "exponential_": lambda g: kiln.zeros(6).exponential_(2.0, generator=g),
    "log_normal_": lambda g: kiln.zeros(6).log_normal_(0.0, 0.5, generator=g),
    "cauchy_": lambda g: kiln.zeros(6).cauchy_(1.0, 2.0, generator=g),
    "geometric_": lambda g: kiln.zeros(6).geometric_(0.2, generator=g),
}


@pytest.mark.parametrize("name", list(DRAWS))
def test_compiled_draws_what_eager_draws(name: str) -> None:
    draw = DRAWS[name]
    compiled = kiln.compile(lambda: draw(None))
    kiln.manual_seed(5)
    eager = [draw(None) for _ in range(3)]
    after = kiln.get_rng_state().tolist()
    kiln.manual_seed(5)
    again = [compiled() for _ in range(3)]
    assert compiled.log == ["first call"]
    for a, b in zip(eager, again, strict=True):
        assert a.ttype == b.ttype and np.array_equal(a.numpy(), b.numpy())
    assert kiln.get_rng_state().tolist() == after
    assert not np.array_equal(eager[0].numpy(), eager[1].numpy()) or eager[0].numel() < 8


@pytest.mark.parametrize("name", list(DRAWS))
def test_generators_of_ones_own(name: str) -> None:
    draw = DRAWS[name]
    kiln.manual_seed(3)
    before = kiln.get_rng_state().tolist()
    first, second = draw(kiln.Generator(9)), draw(kiln.Generator(9))
    assert np.array_equal(first.numpy(), second.numpy())
    assert kiln.get_rng_state().tolist() == before  # the default one was left alone
    g = kiln.Generator(9)
    compiled = kiln.compile(lambda: draw(g))
    assert np.array_equal(compiled().numpy(), first.numpy())
    compiled()
    g.manual_seed(9)
    assert np.array_equal(compiled().numpy(), first.numpy())


# ---------------------------------------------------------------------------------------- distributions


def near(data: np.ndarray[Any, Any], mean: float, deviation: float) -> None:
    """The mean of independent numbers, to five standard errors."""
    assert abs(data.mean() - mean) < 5 * deviation / math.sqrt(data.size), (data.mean(), mean)


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64])
def test_moments(dtype: Any) -> None:
    g = kiln.Generator(1)
    x = kiln.empty(N, dtype=dtype)
    u = values(x.uniform_(-1, 3, generator=g))
    near(u, 1, 4 / math.sqrt(12))
    assert u.min() >= -1 and u.max() < 3
    n = values(x.normal_(2, 3, generator=g))
    near(n, 2, 3)
    near((n - 2) ** 2, 9, 9 * math.sqrt(2))
    e = values(x.exponential_(4, generator=g))
    near(e, 0.25, 0.25)
    near(e**2, 2 / 16, math.sqrt(20) / 16)
    assert e.min() > 0
    log = np.log(values(x.log_normal_(0.5, 0.7, generator=g)))
    near(log, 0.5, 0.7)
    b = values(x.bernoulli_(0.3, generator=g))
    near(b, 0.3, math.sqrt(0.21))
    assert set(b) == {0.0, 1.0}
    t = values(x.geometric_(0.25, generator=g))
    near(t, 4, math.sqrt(12))
    assert t.min() == 1 and (t == np.trunc(t)).all()
    c = values(x.cauchy_(1, 2, generator=g))
    near(c > 1, 0.5, 0.5)
    near(np.abs(c - 1) < 2, 0.5, 0.5)  # the quartiles


def test_16_bit_numbers() -> None:
    dtypes = [getattr(kiln, n) for n in ("float16", "bfloat16") if hasattr(kiln, n)]
    for dtype in dtypes:
        u = values(kiln.rand(N, dtype=dtype, generator=kiln.Generator(1)).float())
        near(u, 0.5, math.sqrt(1 / 12))
        assert u.max() < 1 and u.min() >= 0
        near(values(kiln.randn(N, dtype=dtype).float()), 0, 1)


def test_integers() -> None:
    g = kiln.Generator(2)
    x = kiln.randint(-3, 4, (N,), generator=g)
    counts = np.bincount(x.numpy() + 3, minlength=7)
    assert x.dtype is kiln.int64 and (np.abs(counts - N / 7) < 5 * math.sqrt(N / 7)).all()
    assert kiln.randint(5, (3,)).shape == (3,) and kiln.randint(1, (0,)).tolist() == []
    assert kiln.randint(2, (3,), dtype=kiln.float64).dtype is kiln.float64
    wide = kiln.randint(0, 2**53, (1000,), generator=g).numpy()
    assert wide.max() > 2**52 and wide.min() >= 0 and len(set(wide.tolist())) == 1000
    assert kiln.randint(-(2**63), -(2**63) + 3, (5,)).numpy().max() < -(2**63) + 3
    x = kiln.zeros(1000, dtype=kiln.int32).random_(generator=g)
    assert 2**30 < x.numpy().max() <= 2**31 - 1 and x.numpy().min() >= 0
    assert set(kiln.zeros(100).random_(3, generator=g).tolist()) == {0.0, 1.0, 2.0}
    assert kiln.zeros(1000).random_(generator=g).numpy().max() > 2**23
    assert kiln.zeros(64, dtype=kiln.bool).random_(generator=g).dtype is kiln.bool


def test_permutations() -> None:
    g = kiln.Generator(3)
    for n in (0, 1, 2, 5000):
        p = kiln.randperm(n, generator=g)
        assert p.dtype is kiln.int64 and sorted(p.tolist()) == list(range(n))
    first = np.array([kiln.randperm(4, generator=g).tolist() for _ in range(4000)])
    for column in first.T:
        assert (np.abs(np.bincount(column, minlength=4) - 1000) < 150).all()
    assert kiln.randperm(3, dtype=kiln.int32).dtype is kiln.int32


def test_multinomial() -> None:
    g = kiln.Generator(4)
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    x = kiln.multinomial(kiln.tensor(weights), N, True, generator=g)
    assert x.shape == (N,) and x.dtype is kiln.int64
    assert (np.abs(np.bincount(x.numpy(), minlength=4) / N - weights / 10) < 0.02).all()
    rows = kiln.multinomial(kiln.tensor([[1.0, 0.0], [0.0, 5.0]]), 7, True, generator=g)
    assert rows.tolist() == [[0] * 7, [1] * 7]
    once = np.array([kiln.multinomial(kiln.tensor(weights), 3, generator=g).tolist() for _ in range(2000)])
    assert all(sorted(r) == [0, 2, 3] for r in once.tolist())
    near(once[:, 0] == 3, 0.6, 0.49)
    near(once[once[:, 0] == 3, 1] == 2, 0.75, 0.44)  # of those that are left


def test_multinomial_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = kiln.tensor([0.2, 0.5, 0.3])
    whole = kiln.multinomial(weights, 100, True, generator=kiln.Generator(5))
    monkeypatch.setattr(random, "_CHUNK", 30)
    assert kiln.multinomial(weights, 100, True, generator=kiln.Generator(5)).tolist() == whole.tolist()


# ------------------------------------------------------------------------------------------- generators


def test_seeds_and_states() -> None:
    g = kiln.manual_seed(11)
    assert g is kiln.default_generator and kiln.initial_seed() == 11
    a = kiln.rand(5)
    state = kiln.get_rng_state()
    b = kiln.rand(5)
    kiln.set_rng_state(state)
    assert kiln.rand(5).tolist() == b.tolist()
    kiln.manual_seed(11)
    assert kiln.rand(5).tolist() == a.tolist()
    one, two = kiln.seed(), kiln.seed()
    assert one != two and kiln.initial_seed() == two and 0 <= two < 2**64
    assert kiln.manual_seed(-1).initial_seed() == 2**64 - 1
    with random.fork_rng():
        kiln.rand(3)
        kiln.manual_seed(0)
    assert kiln.initial_seed() == 2**64 - 1
    assert kiln.Generator().device == kiln.device("cpu") and kiln.Generator("cpu").initial_seed() == 0
    with pytest.raises(kiln.CaptureError):
        kiln.compile(lambda: kiln.seed(), fullgraph=True)()


def test_in_place_fills_return_the_tensor_and_bump_its_version() -> None:
    x = kiln.zeros(2, 3)
    view = x.t()[1:]
    assert view.uniform_() is view and (x.numpy()[:, 0] == 0).all() and (x.numpy()[:, 1:] != 0).any()
    leaf = kiln.zeros(3, requires_grad=True)
    with pytest.raises(kiln.GradError, match="leaf"):
        leaf.normal_()
    with kiln.no_grad():
        leaf.normal_()
    y = kiln.ones(3, requires_grad=True) * 2
    z = y * y
    y.uniform_()
    with pytest.raises(kiln.GradError, match="modified in place"):
        z.sum().backward()
    assert kiln.zeros(0).normal_().shape == (0,)


@pytest.mark.parametrize(
    ("use", "error", "op"),
    [
        (lambda: kiln.randint(3, 3, (2,)), RuntimeError, "randint"),
        (lambda: kiln.randint(0, 2**60, (2,)), ValueError, "randint"),
        (lambda: kiln.randint(1.5, (2,)), TypeError, "randint"),
        (lambda: kiln.randint(3), TypeError, "randint"),
        (lambda: kiln.randperm(-1), RuntimeError, "randperm"),
        (lambda: kiln.randperm(2.0), TypeError, "randperm"),
        (lambda: kiln.bernoulli(kiln.tensor([0.5, 1.5])), RuntimeError, "bernoulli"),
        (lambda: kiln.zeros(2).bernoulli_(-0.1), RuntimeError, "bernoulli_"),
        (lambda: kiln.zeros(2).uniform_(2, 1), RuntimeError, "uniform_"),
        (lambda: kiln.zeros(2).normal_(0, -1), RuntimeError, "normal_"),
        (lambda: kiln.zeros(2, dtype=kiln.int64).normal_(), RuntimeError, "normal_"),
        (lambda: kiln.zeros(2).exponential_(0), RuntimeError, "exponential_"),
        (lambda: kiln.zeros(2).geometric_(1.0), RuntimeError, "geometric_"),
        (lambda: kiln.zeros(2).cauchy_(0, 0), RuntimeError, "cauchy_"),
        (lambda: kiln.zeros(2).log_normal_(0, 0), RuntimeError, "log_normal_"),
        (lambda: kiln.normal(0.0, -1.0, (2,)), RuntimeError, "normal"),
        (lambda: kiln.normal(0.0, 1.0), TypeError, "normal"),
        (lambda: kiln.multinomial(kiln.tensor([0.5, float("nan")]), 1), RuntimeError, "multinomial"),
        (lambda: kiln.multinomial(kiln.tensor([0.5, -1.0]), 1), RuntimeError, "multinomial"),
        (lambda: kiln.multinomial(kiln.tensor([0.0, 0.0]), 1), RuntimeError, "multinomial"),
        (lambda: kiln.multinomial(kiln.tensor([0.5, 0.5]), 3), RuntimeError, "multinomial"),
        (lambda: kiln.multinomial(kiln.tensor([0.5, 0.0]), 2), RuntimeError, "multinomial"),
        (lambda: kiln.multinomial(kiln.tensor([1, 2]), 1), RuntimeError, "multinomial"),
        (lambda: kiln.rand(2, dtype=kiln.int64), RuntimeError, "rand"),
        (lambda: kiln.rand(2, generator=3), TypeError, "rand"),  # type: ignore[arg-type]
        (lambda: kiln.rand(-1), RuntimeError, "rand"),
        (lambda: kiln.manual_seed("a"), TypeError, "manual_seed"),  # type: ignore[arg-type]
        (lambda: kiln.manual_seed(2**64), RuntimeError, "manual_seed"),
        (lambda: kiln.set_rng_state(kiln.zeros(2)), RuntimeError, "set_state"),
        (lambda: kiln.Generator("cuda"), RuntimeError, "Generator"),
    ],
)
def test_errors(use: Callable[[], Any], error: type[Exception], op: str) -> None:
    with pytest.raises(error) as caught:
        use()
    assert isinstance(caught.value, kiln.KilnError) and caught.value.op == op
