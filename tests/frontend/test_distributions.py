"""`kiln.distributions` against what torch's said (`tests/golden/distributions.json`), and its errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import distributions as D
from kiln.distributions import exp_family
from tests.frontend import distribution_cases as cases

GOLDEN: dict[str, Any] = json.loads((Path(__file__).resolve().parents[1] / "golden" / "distributions.json").read_text())


def tensor(x: Any) -> kiln.Tensor:
    return kiln.tensor(x, dtype=kiln.float64)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    before = kiln.get_default_dtype()
    kiln.set_default_dtype(kiln.float64)
    yield
    kiln.set_default_dtype(before)


def agree(got: Any, wanted: Any, within: float, what: object) -> None:
    if got == wanted or isinstance(wanted, str) or isinstance(got, str):
        assert got == wanted, what
        return
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert a.shape == b.shape, (what, got, wanted)
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.abs(a - b) <= within * (1 + np.abs(b))) | (np.isnan(a) & np.isnan(b))
    assert close.all(), (what, got, wanted)


LOOSE = {"VonMises": 2e-7, "Gamma": 1e-10, "Chi2": 1e-10, "InverseGamma": 1e-10}
"""torch's Bessel functions are polynomials of float32's precision; incomplete gamma functions are lengthy series."""


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
@pytest.mark.filterwarnings("ignore:Low df")
def test_distribution(name: str) -> None:
    wanted = GOLDEN["distributions"][name]
    got = cases.described(D, tensor, name)
    assert got.keys() == wanted.keys()
    for what, value in wanted.items():
        agree(got[what], value, LOOSE.get(name, 1e-12), (name, what))


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
@pytest.mark.filterwarnings("ignore:Low df")
def test_representation(name: str) -> None:
    wanted = GOLDEN["repr"][name]
    if name.startswith("Mixture"):  # torch keeps what was computed on the way, and then shows it
        wanted = wanted.replace(", logits: (2, 3)", "")
    assert cases.text(cases.DISTRIBUTIONS[name][0](D, tensor)) == wanted


@pytest.mark.parametrize("name", list(cases.TRANSFORMS))
def test_transform(name: str) -> None:
    wanted = GOLDEN["transforms"][name]
    got = cases.transformed(D, tensor, name)
    for what, value in wanted.items():
        agree(got[what], value, 1e-12, (name, what))


@pytest.mark.parametrize("name", list(cases.CONSTRAINTS))
def test_constraint(name: str) -> None:
    wanted = GOLDEN["constraints"][name]
    got = cases.constrained(D, tensor, name)
    assert got["repr"] == wanted["repr"]
    for what in ("dims", "biject_to", "transform_to"):
        agree(got[what], wanted[what], 1e-12, (name, what))
    for k, (a, b) in enumerate(zip(got["check"], wanted["check"], strict=True)):
        agree(a, b, 0.0, (name, k))


FAMILIES = [(p, family) for family in (cases.PAIRS, cases.PAIRS_OF_VECTORS) for p in family]


@pytest.mark.parametrize(("p", "family"), FAMILIES, ids=[p for p, _ in FAMILIES])
@pytest.mark.filterwarnings("ignore:Low df")
def test_divergence(p: str, family: list[str]) -> None:
    for q in family:
        wanted = GOLDEN["divergences"].get(f"{p}, {q}")
        if wanted is not None:
            agree(cases.divergence(D, tensor, p, q), wanted, 1e-11, (p, q))


@pytest.mark.parametrize(
    "name", ["Normal", "Bernoulli", "ContinuousBernoulli", "Exponential", "Gamma", "Chi2", "Beta", "Dirichlet"]
)
def test_exponential_families(name: str) -> None:
    """Entropies and divergences from the normaliser alone are those of the formulas, and so are their derivatives."""
    make, _ = cases.DISTRIBUTIONS[name]
    leaves: list[kiln.Tensor] = []

    def leaf(x: Any) -> kiln.Tensor:
        leaves.append(tensor(x).requires_grad_())
        return leaves[-1]

    p, q = make(D, leaf), make(D, lambda x: tensor(x) * 0.9)
    pairs = [(exp_family.bregman_divergence(p, q), D.kl_divergence(p, q))]
    if name not in ("Beta", "Dirichlet"):
        pairs.append((D.ExponentialFamily.entropy(p), p.entropy()))
    for a, b in pairs:
        assert np.allclose(a.tolist(), b.tolist(), rtol=0, atol=1e-7)
        slopes = [kiln.grad(f.sum(), leaves, retain_graph=True, materialize_grads=True) for f in (a, b)]
        for x, y in zip(*slopes, strict=True):
            assert np.allclose(x.tolist(), y.tolist(), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[Any, str]] = {
    "parameter": (lambda: D.Normal(tensor([1.0, 2.0]), -1.0), r"Expected parameter scale \(Tensor of shape \(2,\)\)"),
    "NaN": (lambda: D.Normal(math.nan, 1.0), "to satisfy the constraint Real"),
    "sample": (lambda: D.Bernoulli(0.5).log_prob(tensor(0.3)), r"within the support \(Boolean\(\)\)"),
    "no tensor": (lambda: D.Normal(0.0, 1.0).log_prob(0.5), "must be a Tensor"),
    "shape": (
        lambda: D.Normal(tensor(cases.C), 1.0).log_prob(tensor([1.0, 2.0])),
        "not broadcastable with batch_shape",
    ),
    "event": (lambda: D.Dirichlet(tensor(cases.A)).log_prob(tensor([0.5, 0.5])), "right-most size of value"),
    "parameters": (lambda: D.Normal("a", 1.0), "must all be instances of Number"),
    "both": (lambda: D.Bernoulli(0.5, 0.5), "Either `probs` or `logits` must be specified"),
    "neither": (lambda: D.Categorical(), "Either `probs` or `logits` must be specified"),
    "0-d": (lambda: D.Categorical(tensor(0.5)), "at least one-dimensional"),
    "simplex": (lambda: D.Categorical(tensor([-0.5, 1.5])), "Simplex"),
    "concentration": (lambda: D.Dirichlet(tensor(0.5)), "at least one-dimensional"),
    "order": (lambda: D.Uniform(1.0, 0.0), "LessThan"),
    "geometric": (lambda: D.Geometric(tensor([0.0, 0.5])), "to be positive"),
    "count": (lambda: D.Binomial(tensor(1.5), tensor(0.5)), "IntegerGreaterThan"),
    "matrix": (lambda: D.MultivariateNormal(tensor(cases.C), -tensor(cases.COVARIANCE)), "PositiveDefinite"),
    "no matrix": (lambda: D.MultivariateNormal(tensor(cases.C)), "Exactly one of covariance_matrix"),
    "vector": (lambda: D.MultivariateNormal(tensor(cases.C), tensor(cases.C)), "at least two-dimensional"),
    "low rank": (
        lambda: D.LowRankMultivariateNormal(tensor(cases.C), tensor([[1.0]]), tensor(cases.A)),
        "with shape 3 x m",
    ),
    "degrees": (lambda: D.Wishart(1.5, tensor(cases.COVARIANCE)), "greater than ndim - 1 = 2"),
    "dim": (lambda: D.LKJCholesky(1), "greater than or equal to 2"),
    "independent": (lambda: D.Independent(D.Normal(0.0, 1.0), 1), "reinterpreted_batch_ndims <="),
    "mixture": (lambda: D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(0.0, 1.0)), "Mixture distribution needs"),
    "components": (
        lambda: D.MixtureSameFamily(D.Categorical(tensor(cases.A)), D.Normal(tensor([0.0, 1.0]), 1.0)),
        "does not equal `component_distribution",
    ),
    "transforms": (lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), [1]), "must be a Transform or a list"),
    "too small": (
        lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), D.StickBreakingTransform()),
        "needs to have shape with size at least 1",
    ),
    "cache": (lambda: D.ExpTransform(cache_size=2), "cache_size must be 0 or 1"),
    "reshape": (lambda: D.ReshapeTransform((2, 3), (5,)), "different numbers of elements"),
    "reshaped": (lambda: D.ReshapeTransform((2,), (1, 2)).forward_shape((3,)), "Shape mismatch"),
    "triangle": (lambda: D.CorrCholeskyTransform()(tensor([1.0, 2.0])), "cannot be expressed as the lower triangular"),
    "dimensions": (lambda: D.IndependentTransform(D.ExpTransform(), 1)(tensor(1.0)), "Too few dimensions"),
    "stack": (lambda: D.StackTransform([D.ExpTransform()])(tensor([1.0, 2.0])), "must be 1"),
    "dependent": (lambda: D.constraints.dependent.check(tensor(1.0)), "Cannot determine validity"),
    "divergence": (
        lambda: D.kl_divergence(
            D.MultivariateNormal(tensor(cases.C), tensor(cases.COVARIANCE)),
            D.MultivariateNormal(tensor([0.0]), tensor([[1.0]])),
        ),
        "different event shapes",
    ),
    "default": (lambda: D.Distribution.set_default_validate_args(2), "expected a bool"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refusals(name: str) -> None:
    ask, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        ask()
    assert isinstance(caught.value, kiln.KilnError)


LACKING: dict[str, Any] = {
    "cdf": lambda: D.StudentT(3.0).cdf(tensor(0.5)),
    "icdf": lambda: D.Gamma(1.0, 1.0).icdf(tensor(0.5)),
    "rsample": lambda: D.Poisson(1.0).rsample(),
    "mean": lambda: D.LKJCholesky(3).mean,
    "enumerate_support": lambda: D.Normal(0.0, 1.0).enumerate_support(),
    "entropy": lambda: D.NegativeBinomial(3.0, tensor(0.5)).entropy(),
    "No KL": lambda: D.kl_divergence(D.StudentT(3.0), D.Normal(0.0, 1.0)),
    "Bregman": lambda: D.kl_divergence(D.Poisson(1.0), D.Normal(0.0, 1.0)),
    "Cannot transform _Boolean": lambda: D.biject_to(D.constraints.boolean),
    "Inhomogeneous": lambda: D.Binomial(tensor([1.0, 2.0]), tensor(0.5)).entropy(),
    "inhomogeneous": lambda: D.Multinomial(tensor(2), tensor(cases.ROWS)),
    "cartesian product": lambda: D.Independent(D.Bernoulli(tensor(cases.P)), 1).enumerate_support(),
    "q.total_count > p.total_count": lambda: D.kl_divergence(D.Binomial(2, tensor(0.5)), D.Binomial(3, tensor(0.5))),
    "_inverse": lambda: D.Transform()._inverse(tensor(0.5)),
}


@pytest.mark.parametrize("message", list(LACKING))
def test_what_is_not_implemented(message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        LACKING[message]()


def test_wrong_types() -> None:
    for ask in (
        lambda: D.constraints.independent(1, 1),
        lambda: D.CatTransform([1]),
        lambda: D.biject_to.register(int, lambda c: None),
        lambda: D.register_kl(int, D.Normal),
    ):
        with pytest.raises(TypeError):
            ask()


def test_validation_can_be_turned_off() -> None:
    assert math.isnan(float(D.Normal(0.0, -1.0, validate_args=False).log_prob(tensor(1.0))))
    assert float(D.Uniform(0.0, 1.0, validate_args=False).log_prob(tensor(2.0))) == -math.inf
    D.Distribution.set_default_validate_args(False)
    try:
        D.Normal(0.0, -1.0)
        with pytest.raises(ValueError, match="scale"):
            D.Normal(0.0, -1.0, validate_args=True)
    finally:
        D.Distribution.set_default_validate_args(True)


# ------------------------------------------------------------------------------------- what users add


class Shifted(D.Normal):
    """A subclass that keeps the constructor."""


class Renamed(D.Normal):
    """A subclass with another constructor."""

    def __init__(self, middle: float) -> None:
        super().__init__(middle, 1.0)


class Bare(D.Distribution):
    """One that says nothing of itself."""


def test_subclasses() -> None:
    wide = Shifted(tensor(cases.C), 1.0).expand((2, 3))
    assert type(wide) is Shifted and wide.batch_shape == (2, 3) and wide.loc.shape == (2, 3)
    with pytest.raises(NotImplementedError, match="must also define a custom"):
        Renamed(0.5).expand((2,))
    with pytest.raises(NotImplementedError, match="expand"):
        Bare(validate_args=False).expand((2,))
    with pytest.warns(UserWarning, match="does not define `arg_constraints`"):
        bare = Bare()
    with pytest.warns(UserWarning, match="does not define `support`"), pytest.raises(NotImplementedError):
        bare._validate_sample(tensor(1.0))
        bare.log_prob(tensor(1.0))


def test_divergences_of_users() -> None:
    p, q = Shifted(0.5, 1.0), D.Normal(0.0, 1.0)
    assert float(D.kl_divergence(p, q)) == 0.125  # by the base's rule

    @D.register_kl(Shifted, D.Normal)
    def _rule(p: Any, q: Any) -> Any:
        return p.loc * 0 + 7.0

    @D.register_kl(D.Normal, Shifted)
    def _other(p: Any, q: Any) -> Any:
        return p.loc * 0 + 8.0

    try:
        assert float(D.kl_divergence(p, q)) == 7.0
        with pytest.warns(RuntimeWarning, match="Ambiguous kl_divergence"):
            assert float(D.kl_divergence(p, p)) == 7.0
    finally:
        for pair in ((Shifted, D.Normal), (D.Normal, Shifted)):
            del D.kl._RULES[pair]


def test_registries_of_users() -> None:
    class Even(D.constraints.Constraint):
        pass

    @D.transform_to.register(Even)
    def _make(constraint: Any) -> Any:
        return D.SigmoidTransform()

    assert isinstance(D.transform_to(Even()), D.SigmoidTransform)
    with pytest.raises(NotImplementedError):
        D.biject_to(Even())


def test_caches() -> None:
    f = D.TanhTransform(cache_size=1)
    x = tensor([30.0])
    y = f(x)
    assert f.inv(y) is x and f(x) is y
    assert np.isinf(D.TanhTransform().inv(y).numpy()).all()
    both = D.ComposeTransform([D.TanhTransform(), D.AffineTransform(1.0, 2.0)]).with_cache()
    assert both.inv(both(x)).tolist() == [30.0]
    assert f.with_cache() is f and f.with_cache(0)._cache_size == 0


def test_equality() -> None:
    assert D.ExpTransform() == D.ExpTransform() != D.TanhTransform()
    assert D.AffineTransform(tensor(1.0), 2.0) == D.AffineTransform(1.0, tensor(2.0)) != D.AffineTransform(1.0, 3.0)
    assert D.PowerTransform(tensor(2.0)) == D.PowerTransform(tensor(2.0)) != D.PowerTransform(tensor(3.0))
    assert D.ExpTransform().inv == D.ExpTransform().inv
    assert D.ComposeTransform([D.ExpTransform()]) == D.ComposeTransform([D.ExpTransform()])
    assert D.ExpTransform().inv.inv == D.ExpTransform()
    assert repr(D.ComposeTransform([D.ExpTransform(), D.TanhTransform().inv])) == (
        "ComposeTransform(\n    ExpTransform(),\n    _InverseTransform(TanhTransform())\n)"
    )


def test_half_open_edges() -> None:
    """What a uniform distribution ends at belongs to its support, and has no density."""
    d = D.Uniform(0.0, 2.0)
    assert d.log_prob(tensor([0.0, 2.0])).tolist() == [-math.log(2.0), -math.inf]
    unit = D.Uniform(0.0, 1.0)  # the whole support of the other
    assert float(D.kl_divergence(D.ContinuousBernoulli(0.5), unit)) == pytest.approx(0.0, abs=1e-12)
    assert float(D.kl_divergence(unit, D.ContinuousBernoulli(0.5))) == pytest.approx(0.0, abs=1e-12)
    assert float(D.kl_divergence(unit, D.Beta(1.0, 1.0))) == pytest.approx(0.0, abs=1e-12)


def test_empty() -> None:
    for d in (D.Normal(kiln.zeros(0), 1.0), D.Gamma(kiln.ones(0, 3), 1.0), D.Categorical(kiln.ones(0, 3) / 3)):
        assert d.sample((2,)).shape == (2, *d.batch_shape)
        assert d.entropy().shape == d.batch_shape
    assert D.Normal(0.0, 1.0).sample((0, 2)).shape == (0, 2)
    assert D.Binomial(30, tensor([0.5])).sample((0,)).shape == (0, 1)


def test_views_and_vectors() -> None:
    """Parameters that are views, and functions of distributions under `kiln.func`."""
    table = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    d = D.Normal(table.t(), table.t()[:, :1])
    wanted = D.Normal(table.t() + 0.0, table.t()[:, :1] + 0.0).log_prob(table.t())
    assert d.log_prob(table.t()).tolist() == wanted.tolist()
    each = kiln.vmap(lambda m: D.Normal(m, 1.0).log_prob(kiln.zeros(3)))(table)
    assert each.tolist() == D.Normal(table, 1.0).log_prob(kiln.zeros(3)).tolist()
    refused = kiln.vmap(lambda m: D.Normal(m, -m).log_prob(kiln.zeros(3)))(table)  # no data to ask for
    assert np.isnan(refused.numpy()).all()
    drawn = kiln.vmap(lambda a: D.Gamma(a, 1.0).rsample(), randomness="different")(table)
    assert drawn.shape == (2, 3) and (drawn > 0).all()
    assert (kiln.func.grad(lambda a: D.Gamma(a, 1.0).rsample().sum())(table) > 0).all()
    slope = kiln.func.grad(lambda m: D.Normal(m, 1.0).log_prob(kiln.ones(3)).sum())(kiln.zeros(3))
    assert slope.tolist() == [1.0, 1.0, 1.0]


def test_names() -> None:
    import kiln.distributions.kl
    from kiln.distributions.normal import Normal
    from kiln.distributions.utils import broadcast_all

    assert Normal is D.Normal and kiln.distributions.kl.kl_divergence is D.kl_divergence
    assert [x.shape for x in broadcast_all(1.0, kiln.zeros(3))] == [(3,), (3,)]
    assert all(hasattr(D, name) for name in D.__all__)
    with pytest.warns(FutureWarning, match="sample_n"):
        assert D.Normal(0.0, 1.0).sample_n(3).shape == (3,)
