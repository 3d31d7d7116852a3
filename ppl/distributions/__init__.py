"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, biject_to, kl_divergence, register_kl, transform_to

from ppl.distributions import constraints, transforms
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.censored import (
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    RightCensoredDistribution,
)
from ppl.distributions.continuous import (
    Beta,
    Chi2,
    ContinuousBernoulli,
    Exponential,
    FisherSnedecor,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    InverseGamma,
    Kumaraswamy,
    Pareto,
    RelaxedBernoulli,
    StudentT,
    Uniform,
    VonMises,
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
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import (
    Empirical,
)
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.folded import FoldedDistribution
from ppl.distributions.hurdle import (
    HurdleDistribution,
    HurdleGamma,
    HurdleLogNormal,
    HurdleNegativeBinomial2,
    HurdlePoisson,
)
from ppl.distributions.independent import Independent
from ppl.distributions.laplace import Laplace
from ppl.distributions.lifting import lift
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
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.zero_inflated import (
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedNegativeBinomial2,
    ZeroInflatedPoisson,
)

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ContinuousBernoulli",
    "Delta",
    "Dirichlet",
    "Distribution",
    "Empirical",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "FoldedDistribution",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "HurdleDistribution",
    "HurdleGamma",
    "HurdleLogNormal",
    "HurdleNegativeBinomial2",
    "HurdlePoisson",
    "Independent",
    "IntervalCensoredDistribution",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LeftCensoredDistribution",
    "LeftTruncatedDistribution",
    "LeftTruncatedGamma",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
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
