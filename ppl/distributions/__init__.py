"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, kl_divergence, register_kl

from ppl.distributions import constraints, transforms
from ppl.distributions.bernoulli import Bernoulli, Geometric
from ppl.distributions.beta import AffineBeta, Beta, BetaProportion, Kumaraswamy
from ppl.distributions.beta_binomial import BetaBinomial, BetaNegativeBinomial, ExtendedBetaBinomial
from ppl.distributions.binomial import Binomial, ExtendedBinomial
from ppl.distributions.categorical import Categorical, OrderedLogistic
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.delta import (
    Delta,
    Unit,
)
from ppl.distributions.discrete_uniform import DiscreteUniform
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import (
    Empirical,
)
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.gamma import Chi2, Exponential, Gamma, InverseGamma
from ppl.distributions.gumbel import Gumbel
from ppl.distributions.independent import Independent
from ppl.distributions.laplace import (
    AsymmetricLaplace,
    AsymmetricLaplaceQuantile,
    Laplace,
    SoftAsymmetricLaplace,
    SoftLaplace,
)
from ppl.distributions.levy import Levy
from ppl.distributions.lifting import lift
from ppl.distributions.log_normal_negative_binomial import LogNormalNegativeBinomial
from ppl.distributions.logistic import Logistic, SkewLogistic
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.multinomial import DirichletMultinomial, Multinomial
from ppl.distributions.multivariate import (
    Dirichlet,
    LKJCholesky,
    LogisticNormal,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Wishart,
)
from ppl.distributions.negative_binomial import GammaPoisson, NegativeBinomial, NegativeBinomial2
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.one_hot import OneHotCategorical, OneHotCategoricalStraightThrough
from ppl.distributions.pareto import DoublyTruncatedPowerLaw, GeneralizedPareto, LowerTruncatedPowerLaw, Pareto
from ppl.distributions.poisson import Poisson
from ppl.distributions.registry import ConstraintRegistry, biject_to, transform_to
from ppl.distributions.relaxed import (
    RelaxedBernoulli,
    RelaxedBernoulliStraightThrough,
    RelaxedOneHotCategorical,
    RelaxedOneHotCategoricalStraightThrough,
)
from ppl.distributions.student import FisherSnedecor, StudentT
from ppl.distributions.transformed import TransformedDistribution
from ppl.distributions.uniform import ContinuousBernoulli, LogUniform, Uniform
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.von_mises import VonMises
from ppl.distributions.weibull import Dagum, Gompertz, Weibull

__all__ = [
    "AffineBeta",
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "BetaNegativeBinomial",
    "BetaProportion",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ConstraintRegistry",
    "ContinuousBernoulli",
    "Dagum",
    "Delta",
    "Dirichlet",
    "DirichletMultinomial",
    "DiscreteUniform",
    "Distribution",
    "DoublyTruncatedPowerLaw",
    "Empirical",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "ExtendedBetaBinomial",
    "ExtendedBinomial",
    "FisherSnedecor",
    "Gamma",
    "GammaPoisson",
    "GeneralizedPareto",
    "Geometric",
    "Gompertz",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "Levy",
    "LogNormal",
    "LogNormalNegativeBinomial",
    "LogUniform",
    "Logistic",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerTruncatedPowerLaw",
    "MaskedDistribution",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "NegativeBinomial2",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "OrderedLogistic",
    "Pareto",
    "Poisson",
    "RelaxedBernoulli",
    "RelaxedBernoulliStraightThrough",
    "RelaxedOneHotCategorical",
    "RelaxedOneHotCategoricalStraightThrough",
    "ScoreParts",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "StudentT",
    "TransformedDistribution",
    "Uniform",
    "Unit",
    "VonMises",
    "Weibull",
    "Wishart",
    "biject_to",
    "constraints",
    "enable_validation",
    "is_validation_enabled",
    "kl_divergence",
    "lift",
    "register_kl",
    "transform_to",
    "transforms",
    "validation_enabled",
]
