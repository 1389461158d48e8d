"""Samples of `kiln.distributions` against their laws, derivatives against differences, compiled code against eager."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import pytest

import kiln
from kiln import distributions as D
from kiln.distributions import sampling
from tests.frontend import distribution_cases as cases
from tests.frontend.checking import same_bits
from tests.frontend.test_distributions import tensor

Array = np.ndarray[Any, Any]
N = 20_000


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    before = kiln.get_default_dtype()
    kiln.set_default_dtype(kiln.float64)
    yield
    kiln.set_default_dtype(before)
    D.Distribution.set_default_validate_args(True)


# ------------------------------------------------------------------------------------------------ laws

MOMENTS: dict[str, Any] = {
    "Normal": lambda: D.Normal(tensor(cases.C), tensor(cases.B)),
    "HalfNormal": lambda: D.HalfNormal(tensor(cases.B)),
    "LogNormal": lambda: D.LogNormal(tensor(cases.C), tensor([0.2, 0.3, 0.1])),
    "Uniform": lambda: D.Uniform(tensor([-1.0, 2.0]), tensor([3.0, 2.5])),
    "Bernoulli": lambda: D.Bernoulli(tensor(cases.P)),
    "ContinuousBernoulli": lambda: D.ContinuousBernoulli(tensor(cases.Q)),
    "Geometric": lambda: D.Geometric(tensor(cases.P)),
    "Binomial": lambda: D.Binomial(
        tensor([3.0, 20.0, 50.0, 100.0, 1000.0, 40.0, 1e6]), tensor([0.3, 0.5, 0.9, 0.25, 0.5, 0.26, 0.3])
    ),
    "NegativeBinomial": lambda: D.NegativeBinomial(tensor([0.5, 3.0, 20.0]), tensor([0.3, 0.5, 0.9])),
    "Poisson": lambda: D.Poisson(tensor([0.3, 4.0, 35.0])),
    "Exponential": lambda: D.Exponential(tensor(cases.A)),
    "Laplace": lambda: D.Laplace(tensor(cases.C), tensor(cases.B)),
    "Gamma": lambda: D.Gamma(tensor([0.05, 0.3, 1.0, 2.5, 50.0]), tensor(2.0)),
    "InverseGamma": lambda: D.InverseGamma(tensor([6.0, 9.0]), tensor([2.0, 1.0])),
    "Beta": lambda: D.Beta(tensor([0.05, 0.5, 2.0, 30.0]), tensor([0.1, 2.0, 2.0, 9.0])),
    "Dirichlet": lambda: D.Dirichlet(tensor([0.05, 0.5, 2.0, 30.0])),
    "StudentT": lambda: D.StudentT(tensor([7.0, 9.0]), 1.0, 2.0),
    "FisherSnedecor": lambda: D.FisherSnedecor(tensor([6.0, 9.0]), tensor([14.0, 20.0])),
    "Gumbel": lambda: D.Gumbel(tensor(cases.C), tensor(cases.B)),
    "Pareto": lambda: D.Pareto(tensor([1.0, 3.0]), tensor([6.0, 8.0])),
    "Weibull": lambda: D.Weibull(tensor([1.0, 3.0]), tensor([2.0, 1.5])),
    "Kumaraswamy": lambda: D.Kumaraswamy(tensor([1.0, 3.0]), tensor([2.0, 0.5])),
    "GeneralizedPareto": lambda: D.GeneralizedPareto(0.5, 2.0, tensor([0.1, 0.0, -0.3])),
    "Multinomial": lambda: D.Multinomial(7, tensor([0.1, 0.4, 0.5])),
    "OneHotCategorical": lambda: D.OneHotCategorical(tensor(cases.ROWS)),
    "MultivariateNormal": lambda: D.MultivariateNormal(tensor(cases.C), tensor(cases.COVARIANCE)),
    "LowRank": lambda: D.LowRankMultivariateNormal(tensor([0.0, 3.0]), tensor([[2.0], [0.3]]), tensor([1.0, 0.5])),
    "Wishart": lambda: D.Wishart(tensor(5.0), tensor([[2.0, 0.3], [0.3, 1.0]])),
    "Mixture": lambda: cases.DISTRIBUTIONS["Mixture"][0](D, tensor),
    "Mixture of vectors": lambda: cases.DISTRIBUTIONS["Mixture of vectors"][0](D, tensor),
}


@pytest.mark.parametrize("name", list(MOMENTS))
def test_moments(name: str) -> None:
    d = MOMENTS[name]()
    kiln.manual_seed(11)
    drawn = d.sample((N,)).numpy()
    assert drawn.shape == (N, *d.batch_shape, *d.event_shape)
    mean, variance = d.mean.numpy(), d.variance.numpy()
    assert (np.abs(drawn.mean(0) - mean) <= 4.5 * np.sqrt(variance / N)).all(), (drawn.mean(0), mean)
    spread = drawn.var(0)
    kurtosis = ((drawn - mean) ** 4).mean(0) / spread**2
    assert (np.abs(spread / variance - 1) <= 5 * np.sqrt(np.maximum(kurtosis - 1, 0.01) / N)).all(), (spread, variance)
    assert d.support.check(tensor(drawn)).all()


def test_circular_moments() -> None:
    concentration = [1e-6, 0.5, 4.0, 300.0]
    d = D.VonMises(tensor([0.5, 3.0, -2.0, 1.0]), tensor(concentration))
    kiln.manual_seed(12)
    drawn = d.sample((N,)).numpy()
    assert (np.abs(drawn) <= math.pi).all()
    for k, kappa in enumerate(concentration):
        wanted = float(mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa))
        assert abs(np.cos(drawn[:, k] - d.loc.numpy()[k]).mean() - wanted) <= 4.5 * math.sqrt(0.5 / N)
        assert abs(np.sin(drawn[:, k] - d.loc.numpy()[k]).mean()) <= 4.5 * math.sqrt(0.5 / N)
        assert abs(float(1 - d.variance[k]) - wanted) <= 1e-12


def test_correlation_matrices() -> None:
    kiln.manual_seed(13)
    for eta in (0.7, 1.0, 3.0):
        factor = D.LKJCholesky(4, eta).sample((N,))
        correlation = (factor @ factor.mT).numpy()
        wanted = 1 / (2 * (eta + 1) + 1)  # each is 2 b - 1 of a beta number b of the concentrations eta - 1 + dim / 2
        for i, j in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 2)):
            r = correlation[:, i, j]
            assert abs(r.mean()) <= 4.5 * math.sqrt(wanted / N)
            assert abs(r.var() / wanted - 1) <= 5 * math.sqrt(2 / N), (eta, i, j, r.var(), wanted)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
LAWS: dict[str, Any] = {
    "Normal": lambda: D.Normal(0.5, 2.0),
    "LogNormal": lambda: D.LogNormal(0.5, 0.7),
    "HalfNormal": lambda: D.HalfNormal(2.0),
    "Laplace": lambda: D.Laplace(0.5, 2.0),
    "Cauchy": lambda: D.Cauchy(0.5, 2.0),
    "HalfCauchy": lambda: D.HalfCauchy(2.0),
    "Exponential": lambda: D.Exponential(2.0),
    "Gamma": lambda: D.Gamma(tensor(3.5), 2.0),
    "Gamma near 1": lambda: D.Gamma(tensor(1.02), 2.0),
    "Gamma small": lambda: D.Gamma(tensor(0.2), 2.0),
    "Chi2": lambda: D.Chi2(tensor(5.0)),
    "InverseGamma": lambda: D.InverseGamma(2.5, 1.0),
    "Beta": lambda: D.Beta(2.0, 3.5),
    "Beta small": lambda: D.Beta(0.3, 0.6),
    "StudentT": lambda: D.StudentT(1.5),
    "FisherSnedecor": lambda: D.FisherSnedecor(3.0, 5.0),
    "Gumbel": lambda: D.Gumbel(0.5, 2.0),
    "Pareto": lambda: D.Pareto(1.0, 1.5),
    "Weibull": lambda: D.Weibull(1.0, 1.7),
    "VonMises": lambda: D.VonMises(tensor(0.2), tensor(1.3)),
    "Kumaraswamy": lambda: D.Kumaraswamy(1.5, 2.5),
    "GeneralizedPareto": lambda: D.GeneralizedPareto(0.0, 1.0, 0.4),
    "ContinuousBernoulli": lambda: D.ContinuousBernoulli(0.2),
    "RelaxedBernoulli": lambda: D.RelaxedBernoulli(tensor(0.7), 0.3),
    "Transformed": lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), [D.TanhTransform(), D.AffineTransform(1, 3)]),
}


@pytest.mark.parametrize("name", list(LAWS))
def test_density_of_samples(name: str) -> None:
    """Kolmogorov and Smirnov's test against the integral of the density from sample to sample."""
    d = LAWS[name]()
    kiln.manual_seed(14)
    n = 4000
    x = np.sort(d.sample((n,)).numpy())
    middle, half = (x[1:] + x[:-1]) / 2, (x[1:] - x[:-1]) / 2
    density = d.log_prob(tensor(middle[:, None] + half[:, None] * NODES)).exp().numpy()
    below = np.concatenate([[0.0], np.cumsum((density * WEIGHTS).sum(-1) * half)]) + 0.5 / n
    distance = np.abs(below - (np.arange(n) + 0.5) / n).max()
    assert distance * math.sqrt(n) <= 1.95, distance  # passed by 99.9% of fair samples


@pytest.mark.parametrize(
    "name", ["Normal", "Laplace", "Cauchy", "Exponential", "Gumbel", "Pareto", "Weibull", "HalfNormal"]
)
def test_quantiles(name: str) -> None:
    d = LAWS[name]()
    q = tensor([0.02, 0.3, 0.5, 0.97])
    assert np.allclose(d.cdf(d.icdf(q)).numpy(), q.numpy(), rtol=0, atol=1e-12)


FREQUENCIES: dict[str, Any] = {
    "Bernoulli": lambda: D.Bernoulli(0.3),
    "Geometric": lambda: D.Geometric(0.3),
    "Binomial few": lambda: D.Binomial(30, tensor(0.2)),
    "Binomial many": lambda: D.Binomial(45, tensor(0.7)),
    "Binomial at the switch": lambda: D.Binomial(20, tensor(0.5)),
    "Poisson": lambda: D.Poisson(4.0),
    "Poisson many": lambda: D.Poisson(15.0),
    "NegativeBinomial": lambda: D.NegativeBinomial(2.5, tensor(0.6)),
    "Categorical": lambda: D.Categorical(tensor([0.1, 0.0, 0.6, 0.3])),
}


@pytest.mark.parametrize("name", list(FREQUENCIES))
def test_frequencies(name: str) -> None:
    """Pearson's test of how often each value came against its probability, rare ones in one class."""
    d = FREQUENCIES[name]()
    kiln.manual_seed(18)
    drawn = d.sample((N,)).numpy().astype(np.int64)
    last = {"Categorical": 3, "Bernoulli": 1}.get(name, 60)
    values = np.arange(int(d.total_count) + 1 if isinstance(d, D.Binomial) else last + 1)
    wanted = d.log_prob(tensor(values.astype(np.float64))).exp().numpy() * N
    found = np.bincount(drawn, minlength=len(values))[: len(values)].astype(np.float64)
    often = wanted >= 10
    rest = N - wanted[often].sum(), N - found[often].sum()
    distance = ((found - wanted)[often] ** 2 / wanted[often]).sum() + (rest[1] - rest[0]) ** 2 / max(rest[0], 10.0)
    degrees = often.sum()
    assert distance <= degrees + 4 * math.sqrt(2 * degrees) + 4, (distance, degrees)


def test_certain_samples() -> None:
    sure = D.Binomial(tensor([0.0, 5.0, 5.0, 400.0, 400.0]), tensor([0.5, 0.0, 1.0, 0.0, 1.0])).sample((50,))
    assert (sure == tensor([0.0, 0.0, 5.0, 0.0, 400.0])).all()
    assert (D.Bernoulli(tensor([0.0, 1.0])).sample((50,)) == tensor([0.0, 1.0])).all()
    assert (D.Geometric(tensor(1.0)).sample((50,)) == 0).all()
    assert (D.NegativeBinomial(0.0, tensor(0.5)).sample((50,)) == 0).all()
    assert (D.Poisson(0.0).sample((50,)) == 0).all()
    assert (D.Categorical(tensor([0.0, 1.0, 0.0])).sample((50,)) == 1).all()
    large = D.Binomial(1e12, tensor([0.3])).sample((200,))
    assert (((large - 3e11) / math.sqrt(2.1e11)).abs() < 5).all()
    assert (D.Gamma(tensor([1e-3, 1e8]), 1.0).sample((200,)) > 0).all()


def test_float32_and_half() -> None:
    kiln.set_default_dtype(kiln.float32)
    kiln.manual_seed(15)
    for dtype in (kiln.float32, kiln.bfloat16):
        one = kiln.ones(3, dtype=dtype)
        for d in (D.Normal(one, one), D.Gamma(one, one), D.Beta(one, one), D.Exponential(one), D.Poisson(one)):
            drawn = d.sample((7,))
            assert drawn.dtype is dtype and drawn.shape == (7, 3)
            assert d.log_prob(drawn).dtype is dtype
    tiny = D.Gamma(kiln.tensor(1e-4), 1.0).sample((1000,))
    assert (tiny > 0).all()
    shares = D.Dirichlet(kiln.full((5,), 1e-4)).sample((1000,))
    assert shares.isfinite().all() if hasattr(shares, "isfinite") else np.isfinite(shares.numpy()).all()
    assert np.allclose(shares.sum(-1).numpy(), 1)


# ---------------------------------------------------------------------------------------- derivatives


def parameters(name: str) -> tuple[list[kiln.Tensor], Any]:
    """The tensors that a case is made of, and what makes it of such."""
    make, _ = cases.DISTRIBUTIONS[name]
    found: list[kiln.Tensor] = []

    def noted(x: Any) -> kiln.Tensor:
        found.append(tensor(x))
        return found[-1]

    make(D, noted)
    symmetric = {k for k, x in enumerate(found) if x.tolist() == cases.COVARIANCE}

    def again(*given: kiln.Tensor) -> Any:
        left = iter([(x + x.mT) / 2 if k in symmetric else x for k, x in enumerate(given)])
        return make(D, lambda _: next(left))

    return found, again


FLAT = {"Normal numbers", "Bernoulli edges"}
BLACK_BOX = [name for name in cases.DISTRIBUTIONS if name not in FLAT]


@pytest.mark.parametrize("name", BLACK_BOX)
@pytest.mark.filterwarnings("ignore:Low df")
def test_gradients_of_densities(name: str) -> None:
    D.Distribution.set_default_validate_args(False)  # differences leave symmetric matrices and the simplex
    given, make = parameters(name)
    value = tensor(cases.DISTRIBUTIONS[name][1])

    leaves = tuple(x.requires_grad_() for x in given)
    try:
        has_entropy = make(*leaves).entropy().requires_grad
    except NotImplementedError:
        has_entropy = False

    def told(*xs: kiln.Tensor) -> Any:
        d = make(*xs)
        density = d.log_prob(value).sum()
        return (density, d.entropy().sum()) if has_entropy else density

    assert kiln.autograd.gradcheck(told, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


REPARAMETERISED = [
    *(
        "Normal",
        "LogNormal",
        "HalfNormal",
        "Uniform",
        "Laplace",
        "Cauchy",
        "Exponential",
        "Gumbel",
        "Weibull",
        "Pareto",
    ),
    *("ContinuousBernoulli", "Kumaraswamy", "GeneralizedPareto", "RelaxedBernoulli", "RelaxedOneHotCategorical"),
    *("LogisticNormal", "MultivariateNormal tril", "LowRankMultivariateNormal", "Independent", "Transformed"),
]


@pytest.mark.parametrize("name", REPARAMETERISED)
def test_gradients_of_samples(name: str) -> None:
    """The same random numbers, with the parameters moved a little."""
    D.Distribution.set_default_validate_args(False)
    given, make = parameters(name)

    def drawn(*xs: kiln.Tensor) -> Any:
        kiln.manual_seed(3)
        return make(*xs).rsample((4,))

    leaves = tuple(x.requires_grad_() for x in given)
    assert kiln.autograd.gradcheck(drawn, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_slope_of_gamma_numbers() -> None:
    """Against the definition, -(dP/da) / (x p(x)), in 30 digits."""
    points = [
        (a, a + z * math.sqrt(a)) for a in (0.6, 1.0, 3.0, 9.0, 80.0) for z in (-2.5, -1.0, -0.3, 0.0, 0.4, 1.5, 4.0)
    ] + [(1e-3, 1e-5), (0.01, 1e-30), (0.05, 0.5), (0.3, 0.999), (0.3, 1.001), (0.02, 3.0), (1.5, 30.0), (2.0, 1e-6)]
    points = [(a, x) for a, x in points if x > 0]
    a, x = (tensor(column) for column in zip(*points, strict=True))
    found = sampling.log_gamma_slope(a, x.log()).numpy()
    with mpmath.workdps(40):
        for (alpha, at), got in zip(points, found, strict=True):
            at = mpmath.mpf(at)
            slope = mpmath.diff(
                lambda s, at=at: mpmath.gammainc(s, 0, at, regularized=True), alpha, h=mpmath.mpf("1e-14")
            )
            density = mpmath.exp((alpha - 1) * mpmath.log(at) - at) / mpmath.gamma(alpha)
            wanted = -slope / (at * density)
            assert abs(got / float(wanted) - 1) <= 1e-11, (alpha, at, got, wanted)


def test_slope_has_derivatives() -> None:
    a = tensor([0.3, 0.9, 2.0, 15.0, 15.0]).requires_grad_()
    y = tensor([-3.0, 0.4, 0.1, 2.9, 2.4]).requires_grad_()
    assert kiln.autograd.gradcheck(sampling.log_gamma_slope, (a, y), eps=1e-6, atol=1e-6, rtol=1e-5)


def means(make: Any, *values: Any) -> None:
    """The mean of the samples' gradients is the gradient of the mean, and likewise of the mean square's."""
    kiln.manual_seed(16)
    leaves = [tensor([x] * 20).requires_grad_() for x in values]  # twenty batches, for the error of the mean
    d = make(*leaves)
    x = d.rsample((N // 20,))
    for power in (1, 2):
        moment = d.mean if power == 1 else d.variance + d.mean**2
        if not moment.requires_grad:
            continue
        shape = moment.shape[1:]
        weights = tensor(np.linspace(1.0, 2.0, math.prod(shape)).reshape(shape))
        wanted = kiln.grad((moment * weights).sum(), leaves, retain_graph=True, materialize_grads=True)
        found = kiln.grad((x**power * weights).mean(0).sum(), leaves, retain_graph=True)
        for i, (w, parts) in enumerate(zip(wanted, found, strict=True)):
            error = parts.numpy().std(0) / math.sqrt(19)
            gap = np.abs(parts.numpy().mean(0) - w[0].numpy())
            assert (gap <= 5 * error + 1e-9).all(), (power, i, gap, error)


def test_means_of_implicit_gradients() -> None:
    means(lambda a, r: D.Gamma(a, r), [0.3, 1.0, 4.0], [1.0, 2.0, 0.5])
    means(lambda a, b: D.Beta(a, b), [0.4, 2.0], [0.7, 3.0])
    means(lambda a: D.Dirichlet(a), [[0.4, 2.0, 1.0]])
    means(lambda a, b: D.StudentT(a, 0.0, b), [7.0, 9.0], [1.0, 2.0])
    means(lambda a: D.Chi2(a), [1.0, 5.0])
    means(lambda a, v: D.Wishart(a, scale_tril=v), 5.0, [[1.2, 0.0], [0.4, 0.8]])


def test_second_derivatives_of_samples() -> None:
    """d2y/da2 is the slope's derivative along the curve."""
    a = tensor([0.4, 2.5, 9.0]).requires_grad_()
    kiln.manual_seed(17)
    y = sampling.log_gamma(a)
    (first,) = kiln.grad(y.sum(), a, create_graph=True)
    (second,) = kiln.grad(first.sum(), a)
    h = 1e-5
    base, at = a.detach(), y.detach()
    slope = sampling.log_gamma_slope
    ahead = slope(base + h, at + h * slope(base + h / 2, at + h / 2 * first.detach()))
    behind = slope(base - h, at - h * slope(base - h / 2, at - h / 2 * first.detach()))
    assert np.allclose(second.numpy(), ((ahead - behind) / (2 * h)).numpy(), rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------------------- compiled


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
@pytest.mark.filterwarnings("ignore:Low df")
def test_compiled(name: str) -> None:
    """Samples, densities and entropies are eager's, bit for bit, and so is the generator after it."""
    given, make = parameters(name)
    value = tensor(cases.DISTRIBUTIONS[name][1])

    def told(value: kiln.Tensor, *xs: kiln.Tensor) -> Any:
        d = make(*xs)
        results = [d.sample((3,)), d.log_prob(value)]
        if d.has_rsample:
            results.append(d.rsample())
        return tuple(results)

    kiln.manual_seed(4)
    eager = [told(value, *given) for _ in range(2)]
    state = kiln.get_rng_state().tolist()
    compiled = kiln.compile(told)
    kiln.manual_seed(4)
    again = [compiled(value, *given) for _ in range(2)]
    assert compiled.log == ["first call"]
    assert kiln.get_rng_state().tolist() == state
    for wanted, got in zip(eager, again, strict=True):
        for a, b in zip(wanted, got, strict=True):
            assert same_bits(a.numpy(), b.numpy())


def test_compiled_autoencoder() -> None:
    """A loss of the kind of a variational autoencoder's: value and gradients are eager's, bit for bit."""
    kiln.manual_seed(5)
    x = kiln.rand(6, 8)
    weights = [kiln.randn(8, 4) * 0.3, kiln.randn(8, 4) * 0.3, kiln.randn(4, 8) * 0.3]

    def loss(x: kiln.Tensor, mean: kiln.Tensor, spread: kiln.Tensor, back: kiln.Tensor) -> kiln.Tensor:
        q = D.Normal(x @ mean, (x @ spread).exp())
        z = q.rsample()
        p = D.Independent(D.Bernoulli(logits=z @ back), 1)
        divergence = D.kl_divergence(q, D.Normal(kiln.zeros(4), 1.0)).sum(-1)
        return (divergence - p.log_prob((x > 0.5).to(x.dtype))).mean()

    outcomes = []
    for f in (loss, kiln.compile(loss)):
        kiln.manual_seed(6)
        for _ in range(2):
            leaves = [w.clone().requires_grad_() for w in weights]
            value = f(x, *leaves)
            value.backward()
            outcomes.append([value.detach().numpy(), *(w.grad.numpy() for w in leaves)])
    for wanted, got in zip(outcomes[:2], outcomes[2:], strict=True):
        assert all(same_bits(a, b) for a, b in zip(wanted, got, strict=True))
    assert not np.array_equal(outcomes[0][0], outcomes[1][0])


def test_compiled_implicit_gradients() -> None:
    def gradient(a: kiln.Tensor) -> Any:
        x = D.Gamma(a, 2.0).rsample()
        b = D.Beta(a, 1.5).rsample()
        return kiln.grad((x * b + x * x).sum(), a)[0]

    a = tensor([0.4, 1.0, 7.0]).requires_grad_()
    kiln.manual_seed(7)
    eager = gradient(a).numpy()
    kiln.manual_seed(7)
    assert same_bits(kiln.compile(gradient)(a).numpy(), eager)


def test_implicit_gradients_outside() -> None:
    """They go through Python code, which is traced with the call."""
    a = tensor([0.4, 1.0, 7.0]).requires_grad_()
    kiln.manual_seed(7)
    D.Gamma(a, 2.0).rsample().sum().backward()
    wanted, a.grad = a.grad, None
    compiled = kiln.compile(lambda a: D.Gamma(a, 2.0).rsample().sum())
    for _ in range(2):
        kiln.manual_seed(7)
        a.grad = None
        compiled(a).backward()
        assert wanted is not None and a.grad is not None and same_bits(a.grad.numpy(), wanted.numpy())
    assert compiled.report().compiled == 1


def test_transforms_compile() -> None:
    for name, (make, values) in cases.TRANSFORMS.items():
        f = make(D, tensor)

        def both(x: kiln.Tensor, f: Any = f) -> Any:
            y = f(x)
            return y, f.inv(y)

        x = tensor(values)
        for a, b in zip(both(x), kiln.compile(both)(x), strict=True):
            assert same_bits(a.numpy(), b.numpy()), name


def test_seeds() -> None:
    d = D.Gamma(tensor([0.5, 2.0]), 1.0)
    kiln.manual_seed(8)
    a = d.sample((5,))
    kiln.manual_seed(8)
    assert np.array_equal(a.numpy(), d.sample((5,)).numpy())
    assert not np.array_equal(a.numpy(), d.sample((5,)).numpy())
