"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, biject_to, transform_to

from ppl.distributions import constraints, transforms
from ppl.distributions.beta import AffineBeta, Beta, BetaProportion, Kumaraswamy
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.censored import (
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    RightCensoredDistribution,
)
from ppl.distributions.continuous import RelaxedBernoulli
from ppl.distributions.copula import GaussianCopula, GaussianCopulaBeta
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
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import (
    Empirical,
)
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.folded import FoldedDistribution
from ppl.distributions.gamma import Chi2, Exponential, Gamma, InverseGamma
from ppl.distributions.gumbel import Gumbel
from ppl.distributions.hurdle import (
    HurdleDistribution,
    HurdleGamma,
    HurdleLogNormal,
    HurdleNegativeBinomial2,
    HurdlePoisson,
)
from ppl.distributions.improper import ImproperUniform
from ppl.distributions.independent import Independent
from ppl.distributions.kl_pairs import kl_divergence, register_kl
from ppl.distributions.laplace import (
    AsymmetricLaplace,
    AsymmetricLaplaceQuantile,
    Laplace,
    SoftAsymmetricLaplace,
    SoftLaplace,
)
from ppl.distributions.levy import Levy
from ppl.distributions.lifting import lift
from ppl.distributions.log_density import LogDensity
from ppl.distributions.logistic import Logistic, SkewLogistic
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.mixture import MaskedMixture, Mixture, MixtureGeneral, MixtureSameFamily
from ppl.distributions.multivariate import (
    Dirichlet,
    LKJCholesky,
    LogisticNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    RelaxedOneHotCategorical,
    TransformedDistribution,
    Wishart,
)
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.pareto import DoublyTruncatedPowerLaw, GeneralizedPareto, LowerTruncatedPowerLaw, Pareto
from ppl.distributions.student import FisherSnedecor, StudentT
from ppl.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TruncatedDistribution,
    TwoSidedTruncatedDistribution,
)
from ppl.distributions.truncated_families import (
    LeftTruncatedGamma,
    RightTruncatedGamma,
    TruncatedCauchy,
    TruncatedGamma,
    TruncatedNormal,
    TwoSidedTruncatedGamma,
)
from ppl.distributions.uniform import ContinuousBernoulli, LogUniform, Uniform
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.von_mises import VonMises
from ppl.distributions.weibull import Dagum, Gompertz, Weibull
from ppl.distributions.zero_inflated import (
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedNegativeBinomial2,
    ZeroInflatedPoisson,
)

__all__ = [
    "AffineBeta",
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Bernoulli",
    "Beta",
    "BetaProportion",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ContinuousBernoulli",
    "Dagum",
    "Delta",
    "Dirichlet",
    "Distribution",
    "DoublyTruncatedPowerLaw",
    "Empirical",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "FoldedDistribution",
    "Gamma",
    "GaussianCopula",
    "GaussianCopulaBeta",
    "GeneralizedPareto",
    "Geometric",
    "Gompertz",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "HurdleDistribution",
    "HurdleGamma",
    "HurdleLogNormal",
    "HurdleNegativeBinomial2",
    "HurdlePoisson",
    "ImproperUniform",
    "Independent",
    "IntervalCensoredDistribution",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LeftCensoredDistribution",
    "LeftTruncatedDistribution",
    "LeftTruncatedGamma",
    "Levy",
    "LogDensity",
    "LogNormal",
    "LogUniform",
    "Logistic",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerTruncatedPowerLaw",
    "MaskedDistribution",
    "MaskedMixture",
    "Mixture",
    "MixtureGeneral",
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
    "RightCensoredDistribution",
    "RightTruncatedDistribution",
    "RightTruncatedGamma",
    "ScoreParts",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "StudentT",
    "TransformedDistribution",
    "TruncatedCauchy",
    "TruncatedDistribution",
    "TruncatedGamma",
    "TruncatedNormal",
    "TwoSidedTruncatedDistribution",
    "TwoSidedTruncatedGamma",
    "Uniform",
    "Unit",
    "VonMises",
    "Weibull",
    "Wishart",
    "ZeroInflatedDistribution",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedNegativeBinomial2",
    "ZeroInflatedPoisson",
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
