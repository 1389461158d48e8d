"""`kiln.distributions`: probability distributions, with the names and the meaning of PyTorch's.

    q = kiln.distributions.Normal(mean, deviation)
    z = q.rsample()
    loss = -decoder(z).log_prob(x).sum() + kl_divergence(q, Normal(0.0, 1.0)).sum()

Each distribution has its module. `constraints.py` says what parameters and samples satisfy, `transforms.py` holds
invertible functions, `constraint_registry.py` finds one for a constraint, `kl.py` and `divergences.py` hold the
divergences, and `sampling.py` says how gamma and binomial numbers are drawn. All random numbers come from kiln's
default generator and are made of its random ops, so that what samples can be captured and compiled, and draws then
the same.
"""

from __future__ import annotations

from kiln.distributions import constraints as constraints
from kiln.distributions import divergences as divergences
from kiln.distributions import kl as kl
from kiln.distributions import transforms as transforms
from kiln.distributions.bernoulli import Bernoulli as Bernoulli
from kiln.distributions.beta import Beta as Beta
from kiln.distributions.binomial import Binomial as Binomial
from kiln.distributions.categorical import Categorical as Categorical
from kiln.distributions.cauchy import Cauchy as Cauchy
from kiln.distributions.chi2 import Chi2 as Chi2
from kiln.distributions.constraint_registry import biject_to as biject_to
from kiln.distributions.constraint_registry import transform_to as transform_to
from kiln.distributions.continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from kiln.distributions.dirichlet import Dirichlet as Dirichlet
from kiln.distributions.distribution import Distribution as Distribution
from kiln.distributions.exp_family import ExponentialFamily as ExponentialFamily
from kiln.distributions.exponential import Exponential as Exponential
from kiln.distributions.fishersnedecor import FisherSnedecor as FisherSnedecor
from kiln.distributions.gamma import Gamma as Gamma
from kiln.distributions.generalized_pareto import GeneralizedPareto as GeneralizedPareto
from kiln.distributions.geometric import Geometric as Geometric
from kiln.distributions.gumbel import Gumbel as Gumbel
from kiln.distributions.half_cauchy import HalfCauchy as HalfCauchy
from kiln.distributions.half_normal import HalfNormal as HalfNormal
from kiln.distributions.independent import Independent as Independent
from kiln.distributions.inverse_gamma import InverseGamma as InverseGamma
from kiln.distributions.kl import kl_divergence as kl_divergence
from kiln.distributions.kl import register_kl as register_kl
from kiln.distributions.kumaraswamy import Kumaraswamy as Kumaraswamy
from kiln.distributions.laplace import Laplace as Laplace
from kiln.distributions.lkj_cholesky import LKJCholesky as LKJCholesky
from kiln.distributions.log_normal import LogNormal as LogNormal
from kiln.distributions.logistic_normal import LogisticNormal as LogisticNormal
from kiln.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal as LowRankMultivariateNormal
from kiln.distributions.mixture_same_family import MixtureSameFamily as MixtureSameFamily
from kiln.distributions.multinomial import Multinomial as Multinomial
from kiln.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from kiln.distributions.negative_binomial import NegativeBinomial as NegativeBinomial
from kiln.distributions.normal import Normal as Normal
from kiln.distributions.one_hot_categorical import OneHotCategorical as OneHotCategorical
from kiln.distributions.one_hot_categorical import OneHotCategoricalStraightThrough as OneHotCategoricalStraightThrough
from kiln.distributions.pareto import Pareto as Pareto
from kiln.distributions.poisson import Poisson as Poisson
from kiln.distributions.relaxed_bernoulli import RelaxedBernoulli as RelaxedBernoulli
from kiln.distributions.relaxed_categorical import RelaxedOneHotCategorical as RelaxedOneHotCategorical
from kiln.distributions.studentT import StudentT as StudentT
from kiln.distributions.transformed_distribution import TransformedDistribution as TransformedDistribution
from kiln.distributions.transforms import AbsTransform as AbsTransform
from kiln.distributions.transforms import AffineTransform as AffineTransform
from kiln.distributions.transforms import CatTransform as CatTransform
from kiln.distributions.transforms import ComposeTransform as ComposeTransform
from kiln.distributions.transforms import CorrCholeskyTransform as CorrCholeskyTransform
from kiln.distributions.transforms import CumulativeDistributionTransform as CumulativeDistributionTransform
from kiln.distributions.transforms import ExpTransform as ExpTransform
from kiln.distributions.transforms import IndependentTransform as IndependentTransform
from kiln.distributions.transforms import LowerCholeskyTransform as LowerCholeskyTransform
from kiln.distributions.transforms import PositiveDefiniteTransform as PositiveDefiniteTransform
from kiln.distributions.transforms import PowerTransform as PowerTransform
from kiln.distributions.transforms import ReshapeTransform as ReshapeTransform
from kiln.distributions.transforms import SigmoidTransform as SigmoidTransform
from kiln.distributions.transforms import SoftmaxTransform as SoftmaxTransform
from kiln.distributions.transforms import SoftplusTransform as SoftplusTransform
from kiln.distributions.transforms import StackTransform as StackTransform
from kiln.distributions.transforms import StickBreakingTransform as StickBreakingTransform
from kiln.distributions.transforms import TanhTransform as TanhTransform
from kiln.distributions.transforms import Transform as Transform
from kiln.distributions.transforms import identity_transform as identity_transform
from kiln.distributions.uniform import Uniform as Uniform
from kiln.distributions.von_mises import VonMises as VonMises
from kiln.distributions.weibull import Weibull as Weibull
from kiln.distributions.wishart import Wishart as Wishart

__all__ = [
    *("AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "CatTransform", "Categorical", "Cauchy"),
    *("Chi2", "ComposeTransform", "ContinuousBernoulli", "CorrCholeskyTransform"),
    *("CumulativeDistributionTransform", "Dirichlet", "Distribution", "ExpTransform", "Exponential"),
    *("ExponentialFamily", "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy"),
    *("HalfNormal", "Independent", "IndependentTransform", "InverseGamma", "Kumaraswamy", "LKJCholesky", "Laplace"),
    *("LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "LowerCholeskyTransform", "MixtureSameFamily"),
    *("Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical"),
    *("OneHotCategoricalStraightThrough", "Pareto", "Poisson", "PositiveDefiniteTransform", "PowerTransform"),
    *("RelaxedBernoulli", "RelaxedOneHotCategorical", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform"),
    *("SoftplusTransform", "StackTransform", "StickBreakingTransform", "StudentT", "TanhTransform", "Transform"),
    *("TransformedDistribution", "Uniform", "VonMises", "Weibull", "Wishart", "biject_to", "identity_transform"),
    *("kl_divergence", "register_kl", "transform_to"),
]
