"""Distributions, transforms and what is asked of them, for torch (to write the golden file) and for kiln alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Made = Callable[..., Any]
A, B, C = [0.3, 1.5, 2.25], [0.7, 2.0, 0.9], [-0.4, 0.2, 1.3]
P, Q = [0.2, 0.5, 0.93], [0.6, 0.35, 0.4998]
ROWS = [[0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]
COVARIANCE = [[2.0, 0.3, -0.2], [0.3, 1.0, 0.1], [-0.2, 0.1, 0.7]]
TRIL = [[1.2, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 1.5]]
UNIT = [[0.1], [0.5], [0.85]]
POSITIVE = [[0.2], [1.0], [3.5]]
REAL = [[-1.5], [0.0], [2.5]]
COUNTS = [[0.0], [1.0], [4.0]]
SIMPLEX = [[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]]
HOT = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
VECTORS = [[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]]

# name: (what makes it of D and a function that makes tensors, values)
DISTRIBUTIONS: dict[str, tuple[Made, Any]] = {
    "Normal": (lambda D, t: D.Normal(t(C), t(B)), REAL),
    "Normal numbers": (lambda D, t: D.Normal(0.5, 2.0), REAL),
    "LogNormal": (lambda D, t: D.LogNormal(t(C), t(B)), POSITIVE),
    "HalfNormal": (lambda D, t: D.HalfNormal(t(B)), POSITIVE),
    "Uniform": (lambda D, t: D.Uniform(t([0.05, -0.5, 0.0]), t([0.9, 4.0, 5.0])), [[0.1], [0.5], [0.85]]),
    "Uniform wide": (lambda D, t: D.Uniform(t([-9.0, -8.0, -7.0]), t([9.0, 8.0, 7.0])), REAL),
    "Bernoulli": (lambda D, t: D.Bernoulli(t(P)), [[0.0], [1.0]]),
    "Bernoulli logits": (lambda D, t: D.Bernoulli(logits=t(C)), [[0.0], [1.0]]),
    "Bernoulli edges": (lambda D, t: D.Bernoulli(t([0.0, 0.5, 1.0])), [[0.0], [1.0]]),
    "ContinuousBernoulli": (lambda D, t: D.ContinuousBernoulli(t(Q)), UNIT),
    "ContinuousBernoulli logits": (lambda D, t: D.ContinuousBernoulli(logits=t(C)), UNIT),
    "Geometric": (lambda D, t: D.Geometric(t(P)), COUNTS),
    "Geometric logits": (lambda D, t: D.Geometric(logits=t(C)), COUNTS),
    "Binomial": (lambda D, t: D.Binomial(5, t(P)), COUNTS),
    "Binomial counts": (lambda D, t: D.Binomial(t([5.0, 9.0, 4.0]), logits=t(C)), COUNTS),
    "NegativeBinomial": (lambda D, t: D.NegativeBinomial(t(A), t(P)), COUNTS),
    "NegativeBinomial logits": (lambda D, t: D.NegativeBinomial(3, logits=t(C)), COUNTS),
    "Poisson": (lambda D, t: D.Poisson(t(A)), COUNTS),
    "Exponential": (lambda D, t: D.Exponential(t(A)), POSITIVE),
    "Laplace": (lambda D, t: D.Laplace(t(C), t(B)), REAL),
    "Cauchy": (lambda D, t: D.Cauchy(t(C), t(B)), REAL),
    "HalfCauchy": (lambda D, t: D.HalfCauchy(t(B)), POSITIVE),
    "Gamma": (lambda D, t: D.Gamma(t(A), t(B)), POSITIVE),
    "Chi2": (lambda D, t: D.Chi2(t(A)), POSITIVE),
    "InverseGamma": (lambda D, t: D.InverseGamma(t([0.8, 1.5, 3.25]), t(B)), POSITIVE),
    "Beta": (lambda D, t: D.Beta(t(A), t(B)), UNIT),
    "StudentT": (lambda D, t: D.StudentT(t([0.7, 1.6, 5.0]), t(C), t(B)), REAL),
    "FisherSnedecor": (lambda D, t: D.FisherSnedecor(t([1.5, 3.0, 7.0]), t([1.0, 3.5, 9.0])), POSITIVE),
    "Gumbel": (lambda D, t: D.Gumbel(t(C), t(B)), REAL),
    "Pareto": (lambda D, t: D.Pareto(t([0.1, 0.15, 0.2]), t([0.7, 1.5, 3.5])), POSITIVE),
    "Weibull": (lambda D, t: D.Weibull(t(A), t([1.2, 2.0, 0.9])), POSITIVE),
    "VonMises": (lambda D, t: D.VonMises(t(C), t(B)), REAL),
    "Kumaraswamy": (lambda D, t: D.Kumaraswamy(t([1.3, 1.5, 2.25]), t([1.7, 2.0, 1.9])), UNIT),
    "GeneralizedPareto": (lambda D, t: D.GeneralizedPareto(t([0.0, -0.5, 0.1]), t(B), t([0.3, 0.0, 0.7])), POSITIVE),
    "RelaxedBernoulli": (lambda D, t: D.RelaxedBernoulli(t(0.6), t(P)), UNIT),
    "Categorical": (lambda D, t: D.Categorical(t(ROWS)), [[0.0, 2.0], [1.0, 1.0]]),
    "Categorical logits": (lambda D, t: D.Categorical(logits=t([[0.5, -1.0, 2.0], [1.0, 1.0, 0.0]])), [[0.0, 2.0]]),
    "OneHotCategorical": (lambda D, t: D.OneHotCategorical(t(ROWS)), HOT),
    "OneHotCategoricalStraightThrough": (lambda D, t: D.OneHotCategoricalStraightThrough(logits=t(ROWS)), HOT),
    "Multinomial": (lambda D, t: D.Multinomial(4, t(ROWS)), [[1.0, 2.0, 1.0], [0.0, 0.0, 4.0]]),
    "RelaxedOneHotCategorical": (lambda D, t: D.RelaxedOneHotCategorical(t(0.7), t(ROWS)), SIMPLEX),
    "Dirichlet": (lambda D, t: D.Dirichlet(t([A, [0.4, 0.5, 0.9]])), SIMPLEX),
    "LogisticNormal": (lambda D, t: D.LogisticNormal(t([0.3, -0.2]), t([0.7, 1.2])), SIMPLEX),
    "MultivariateNormal": (lambda D, t: D.MultivariateNormal(t(C), t(COVARIANCE)), VECTORS),
    "MultivariateNormal precision": (
        lambda D, t: D.MultivariateNormal(t([C, A]), precision_matrix=t(COVARIANCE)),
        VECTORS,
    ),
    "MultivariateNormal tril": (
        lambda D, t: D.MultivariateNormal(t(C), scale_tril=t([TRIL, COVARIANCE]).tril()),
        VECTORS,
    ),
    "LowRankMultivariateNormal": (
        lambda D, t: D.LowRankMultivariateNormal(t(C), t([[0.5, 1.0], [0.2, -0.3], [0.8, 0.1]]), t(A)),
        VECTORS,
    ),
    "Wishart": (
        lambda D, t: D.Wishart(t([4.5, 3.2]), t(COVARIANCE)),
        [COVARIANCE, [[1.0, 0, 0], [0, 1, 0], [0, 0, 2]]],
    ),
    "Wishart precision": (lambda D, t: D.Wishart(5.0, precision_matrix=t(COVARIANCE)), [COVARIANCE]),
    "LKJCholesky": (
        lambda D, t: D.LKJCholesky(3, t([0.5, 1.0, 2.5])),
        [[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.48, 0.6, 0.64]]],
    ),
    "Independent": (lambda D, t: D.Independent(D.Normal(t(C), t(B)), 1), VECTORS),
    "Mixture": (
        lambda D, t: D.MixtureSameFamily(D.Categorical(t(ROWS)), D.Normal(t([C, A]), t([A, B]))),
        [[-0.5, 0.3], [1.0, 2.0]],
    ),
    "Mixture of vectors": (
        lambda D, t: D.MixtureSameFamily(
            D.Categorical(t(ROWS)), D.Independent(D.Normal(t([[C, A, B]] * 2), t([[A, B, A]] * 2)), 1)
        ),
        [[[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]]],
    ),
    "Transformed": (
        lambda D, t: D.TransformedDistribution(
            D.Normal(t(C), t(B)), [D.AffineTransform(0.5, -2.0), D.SigmoidTransform()]
        ),
        UNIT,
    ),
    "Transformed tanh": (lambda D, t: D.TransformedDistribution(D.Laplace(t(C), t(B)), D.TanhTransform()), UNIT),
}
PROPERTIES = ("mean", "mode", "variance", "stddev")
METHODS = ("entropy", "perplexity")
OF_VALUES = ("log_prob", "cdf")
PAIRS = [
    *("Normal", "HalfNormal", "LogNormal", "Uniform", "Uniform wide", "Bernoulli", "Bernoulli logits", "Geometric"),
    *("ContinuousBernoulli", "Binomial", "Poisson", "Exponential", "Laplace", "Cauchy", "Gamma", "Chi2", "Beta"),
    *("Gumbel", "Pareto", "Weibull", "StudentT", "NegativeBinomial", "VonMises"),
]
PAIRS_OF_VECTORS = [
    *("Categorical", "Categorical logits", "OneHotCategorical", "Dirichlet", "MultivariateNormal", "Independent"),
    *("MultivariateNormal tril", "MultivariateNormal precision", "LowRankMultivariateNormal", "Wishart"),
]
"""Families whose divergences are taken, each with each."""

TRANSFORMS: dict[str, tuple[Made, Any]] = {
    "Exp": (lambda D, t: D.ExpTransform(), REAL),
    "Abs": (lambda D, t: D.AbsTransform(), REAL),
    "Power": (lambda D, t: D.PowerTransform(t(B)), POSITIVE),
    "Sigmoid": (lambda D, t: D.SigmoidTransform(), REAL),
    "Softplus": (lambda D, t: D.SoftplusTransform(), REAL),
    "Tanh": (lambda D, t: D.TanhTransform(), REAL),
    "Affine": (lambda D, t: D.AffineTransform(t(C), t([-0.5, 2.0, 0.3])), VECTORS),
    "Affine numbers": (lambda D, t: D.AffineTransform(1.0, -2.0), REAL),
    "Affine event": (lambda D, t: D.AffineTransform(t(C), t(B), event_dim=1), VECTORS),
    "CorrCholesky": (lambda D, t: D.CorrCholeskyTransform(), VECTORS),
    "Softmax": (lambda D, t: D.SoftmaxTransform(), VECTORS),
    "StickBreaking": (lambda D, t: D.StickBreakingTransform(), VECTORS),
    "LowerCholesky": (lambda D, t: D.LowerCholeskyTransform(), [COVARIANCE, TRIL]),
    "PositiveDefinite": (lambda D, t: D.PositiveDefiniteTransform(), [COVARIANCE, TRIL]),
    "CumulativeDistribution": (lambda D, t: D.CumulativeDistributionTransform(D.Normal(0.5, 2.0)), REAL),
    "Reshape": (lambda D, t: D.ReshapeTransform((3,), (1, 3)), VECTORS),
    "Independent": (lambda D, t: D.IndependentTransform(D.ExpTransform(), 1), VECTORS),
    "Cat": (lambda D, t: D.CatTransform([D.ExpTransform(), D.TanhTransform()], 1, [1, 2]), VECTORS),
    "Cat event": (
        lambda D, t: D.CatTransform(
            [D.IndependentTransform(D.ExpTransform(), 1), D.IndependentTransform(D.TanhTransform(), 1)], -1, [1, 2]
        ),
        VECTORS,
    ),
    "Stack": (lambda D, t: D.StackTransform([D.ExpTransform(), D.TanhTransform()], 0), VECTORS),
    "Compose": (lambda D, t: D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.ExpTransform()]), REAL),
    "Compose event": (
        lambda D, t: D.ComposeTransform([D.AffineTransform(t(C), t(B)), D.StickBreakingTransform()]),
        VECTORS,
    ),
    "Compose none": (lambda D, t: D.identity_transform, REAL),
    "Exp inverse": (lambda D, t: D.ExpTransform().inv, POSITIVE),
    "Compose inverse": (lambda D, t: D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.ExpTransform()]).inv, POSITIVE),
}
CONSTRAINTS: dict[str, Made] = {
    "real": lambda c, t: c.real,
    "real_vector": lambda c, t: c.real_vector,
    "positive": lambda c, t: c.positive,
    "nonnegative": lambda c, t: c.nonnegative,
    "greater_than": lambda c, t: c.greater_than(-0.2),
    "greater_than_eq": lambda c, t: c.greater_than_eq(0.2),
    "less_than": lambda c, t: c.less_than(0.3),
    "interval": lambda c, t: c.interval(-1.0, 0.2),
    "half_open_interval": lambda c, t: c.half_open_interval(-1.0, 0.2),
    "unit_interval": lambda c, t: c.unit_interval,
    "simplex": lambda c, t: c.simplex,
    "corr_cholesky": lambda c, t: c.corr_cholesky,
    "lower_cholesky": lambda c, t: c.lower_cholesky,
    "positive_definite": lambda c, t: c.positive_definite,
    "positive_semidefinite": lambda c, t: c.positive_semidefinite,
    "boolean": lambda c, t: c.boolean,
    "one_hot": lambda c, t: c.one_hot,
    "nonnegative_integer": lambda c, t: c.nonnegative_integer,
    "positive_integer": lambda c, t: c.positive_integer,
    "integer_interval": lambda c, t: c.integer_interval(0, 1),
    "multinomial": lambda c, t: c.multinomial(2),
    "lower_triangular": lambda c, t: c.lower_triangular,
    "square": lambda c, t: c.square,
    "symmetric": lambda c, t: c.symmetric,
    "independent": lambda c, t: c.independent(c.positive, 1),
    "cat": lambda c, t: c.cat([c.positive, c.real], -1, [1, 2]),
    "stack": lambda c, t: c.stack([c.positive, c.real, c.interval(-1.0, 1.0)], -1),
}
CHECKED: list[Any] = [
    *(COVARIANCE, TRIL, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    *([[0.2, 0.5, 0.3], [-1.0, 0.0, 0.2], [0.1, 0.2, -0.2]], [[1.0, 2.0, float("nan")], [2.0, 1.0, 1.0], [0, 0, 0]]),
    [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.48, 0.6, 0.64]],
]
FREE: dict[str, Any] = {"corr_cholesky": VECTORS, "simplex": VECTORS}


def plain(x: Any) -> Any:
    """Tensors as nested lists, shapes as lists."""
    return x.tolist() if hasattr(x, "tolist") else list(x) if isinstance(x, tuple) else x


def text(x: object) -> str:
    """A representation with the names of shapes and tensors that both libraries share."""

    def shape(m: re.Match[str]) -> str:
        sizes = m[1].split(", ")
        return f"({m[1]},)" if len(sizes) == 1 and sizes[0] else f"({m[1]})"

    shown = re.sub(r"(?:torch|kiln)\.Size\(\[([^\]]*)\]\)", shape, repr(x))
    return re.sub(r", dtype=(torch|kiln)\.float64|kiln\.|torch\.", "", shown)


def tried(ask: Callable[[], Any]) -> Any:
    """What is answered, or that it is not implemented."""
    try:
        return plain(ask())
    except NotImplementedError:
        return "not implemented"


def described(D: Any, t: Made, name: str) -> dict[str, Any]:
    """What a distribution says."""
    make, values = DISTRIBUTIONS[name]
    d, value = make(D, t), t(values)
    told = {what: tried(lambda what=what: getattr(d, what)) for what in PROPERTIES}  # type: ignore[misc]
    told |= {what: tried(lambda what=what: getattr(d, what)()) for what in METHODS}  # type: ignore[misc]
    told |= {what: tried(lambda what=what: getattr(d, what)(value)) for what in OF_VALUES}  # type: ignore[misc]
    if not d.event_shape:
        told["icdf"] = tried(lambda: d.icdf(t(UNIT)))
    if d.has_enumerate_support:
        told["enumerate_support"] = tried(lambda: d.enumerate_support())
        told["enumerate_support narrow"] = tried(lambda: d.enumerate_support(False))
    expanded = d.expand((2, *d.batch_shape))
    told["shapes"] = [*map(plain, (d.batch_shape, d.event_shape, expanded.batch_shape, expanded.event_shape))]
    told["expanded"] = tried(lambda: expanded.log_prob(value[:1]))
    told["sample"] = plain(d.sample((2,)).shape)
    told["has"] = [d.has_rsample, d.has_enumerate_support]
    told["dims"] = [d.support.event_dim, d.support.is_discrete]
    return told


def transformed(D: Any, t: Made, name: str) -> dict[str, Any]:
    """What a transform does."""
    make, values = TRANSFORMS[name]
    f, x = make(D, t), t(values)
    y = f(x)
    told = {"y": plain(y), "x": tried(lambda: f.inv(y)), "jacobian": tried(lambda: f.log_abs_det_jacobian(x, y))}
    told["inverse jacobian"] = tried(lambda: f.inv.log_abs_det_jacobian(y, x))
    told["shapes"] = [plain(f.forward_shape(tuple(x.shape))), plain(f.inverse_shape(tuple(y.shape)))]
    told["dims"] = [f.domain.event_dim, f.codomain.event_dim, f.bijective]
    told["sign"] = tried(lambda: f.sign)
    return told


def divergence(D: Any, t: Made, p: str, q: str) -> Any:
    """KL(p || q), q's parameters being 0.9 times those of its case: so it is not p."""

    def less(x: Any) -> Any:
        return t(x) * 0.9

    return tried(lambda: D.kl_divergence(DISTRIBUTIONS[p][0](D, t), DISTRIBUTIONS[q][0](D, less)))


def constrained(D: Any, t: Made, name: str) -> dict[str, Any]:
    """What a constraint finds, and the transforms made for it."""
    c = CONSTRAINTS[name](D.constraints, t)
    told: dict[str, Any] = {"repr": repr(c), "dims": [c.event_dim, c.is_discrete]}
    told["check"] = [tried(lambda x=x: c.check(t(x))) for x in CHECKED]  # type: ignore[misc]
    x = t(FREE.get(name, COVARIANCE))
    told["biject_to"] = tried(lambda: D.biject_to(c)(x))
    told["transform_to"] = tried(lambda: D.transform_to(c)(x))
    return told
