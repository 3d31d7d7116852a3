"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, kl_divergence, register_kl

from ppl.distributions import constraints, transforms
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.conditional import (
    ConditionalDistribution,
    ConditionalTransformedDistribution,
    ConstantConditionalDistribution,
)
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
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import (
    Empirical,
)
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.gumbel import Gumbel
from ppl.distributions.independent import Independent
from ppl.distributions.laplace import (
    AsymmetricLaplace,
    AsymmetricLaplaceQuantile,
    Laplace,
    SoftAsymmetricLaplace,
    SoftLaplace,
)
from ppl.distributions.lifting import lift
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
    Wishart,
)
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.registry import ConstraintRegistry, biject_to, transform_to
from ppl.distributions.transformed import TransformedDistribution
from ppl.distributions.transforms import (
    ComposeTransformModule,
    ConditionalTransform,
    ConditionalTransformModule,
    ConstantConditionalTransform,
    TransformModule,
)
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.von_mises import VonMises

__all__ = [
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransformModule",
    "ConditionalDistribution",
    "ConditionalTransform",
    "ConditionalTransformModule",
    "ConditionalTransformedDistribution",
    "ConstantConditionalDistribution",
    "ConstantConditionalTransform",
    "ConstraintRegistry",
    "ContinuousBernoulli",
    "Delta",
    "Dirichlet",
    "Distribution",
    "Empirical",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
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
    "TransformModule",
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
