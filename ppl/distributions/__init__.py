"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, kl_divergence, register_kl

from ppl.distributions import constraints, transforms
from ppl.distributions.car import CAR
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.circulant_normal import CirculantNormal
from ppl.distributions.continuous import (
    Beta,
    Chi2,
    ContinuousBernoulli,
    Exponential,
    FisherSnedecor,
    Gamma,
    GeneralizedPareto,
    InverseGamma,
    Kumaraswamy,
    Pareto,
    RelaxedBernoulli,
    StudentT,
    Uniform,
    Weibull,
)
from ppl.distributions.delta import (
    Delta,
    Unit,
)
from ppl.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    Multinomial,
    NegativeBinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
)
from ppl.distributions.discrete_hmm import DiscreteHMM
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import (
    Empirical,
)
from ppl.distributions.euler_maruyama import EulerMaruyama
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.gamma_gaussian_hmm import GammaGaussianHMM
from ppl.distributions.gaussian_hmm import GaussianHMM
from ppl.distributions.gaussian_mrf import GaussianMRF
from ppl.distributions.gumbel import Gumbel
from ppl.distributions.independent import Independent
from ppl.distributions.independent_hmm import IndependentHMM
from ppl.distributions.laplace import (
    AsymmetricLaplace,
    AsymmetricLaplaceQuantile,
    Laplace,
    SoftAsymmetricLaplace,
    SoftLaplace,
)
from ppl.distributions.lifting import lift
from ppl.distributions.linear_hmm import LinearHMM
from ppl.distributions.logistic import Logistic, SkewLogistic
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.multivariate import (
    Dirichlet,
    LKJCholesky,
    LogisticNormal,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    RelaxedOneHotCategorical,
    TransformedDistribution,
    Wishart,
)
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.registry import ConstraintRegistry, biject_to, transform_to
from ppl.distributions.state_space import GaussianRandomWalk, GaussianStateSpace
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.von_mises import VonMises
from ppl.distributions.zero_sum_normal import ZeroSumNormal

__all__ = [
    "CAR",
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "CirculantNormal",
    "ConstraintRegistry",
    "ContinuousBernoulli",
    "Delta",
    "Dirichlet",
    "DiscreteHMM",
    "Distribution",
    "Empirical",
    "EulerMaruyama",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "Gamma",
    "GammaGaussianHMM",
    "GaussianHMM",
    "GaussianMRF",
    "GaussianRandomWalk",
    "GaussianStateSpace",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentHMM",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LinearHMM",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "MaskedDistribution",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
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
    "ZeroSumNormal",
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
