"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily, kl_divergence, register_kl

from ppl.distributions import constraints, transforms
from ppl.distributions.cauchy import Cauchy, HalfCauchy
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
from ppl.distributions.diagonal_mixtures import (
    GaussianScaleMixture,
    MixtureOfDiagNormals,
    MixtureOfDiagNormalsSharedCovariance,
)
from ppl.distributions.directional import ProjectedNormal, VonMises3D
from ppl.distributions.dirichlet import Dirichlet
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
from ppl.distributions.inverse_wishart import InverseWishart, InverseWishartCholesky
from ppl.distributions.laplace import (
    AsymmetricLaplace,
    AsymmetricLaplaceQuantile,
    Laplace,
    SoftAsymmetricLaplace,
    SoftLaplace,
)
from ppl.distributions.lifting import lift
from ppl.distributions.lkj import LKJ, LKJCholesky
from ppl.distributions.logistic import Logistic, SkewLogistic
from ppl.distributions.logistic_normal import LogisticNormal
from ppl.distributions.low_rank_normal import LowRankMultivariateNormal
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.matrix_normal import MatrixNormal
from ppl.distributions.multivariate import (
    MixtureSameFamily,
    RelaxedOneHotCategorical,
    TransformedDistribution,
)
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.multivariate_student import MultivariateStudentT
from ppl.distributions.nan_masked import NanMaskedMultivariateNormal, NanMaskedNormal
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.registry import ConstraintRegistry, biject_to, transform_to
from ppl.distributions.toroidal import SineBivariateVonMises, SineSkewed
from ppl.distributions.transport_normal import AVFMultivariateNormal, OMTMultivariateNormal
from ppl.distributions.validation import (
    enable_validation,
    is_validation_enabled,
    validation_enabled,
)
from ppl.distributions.von_mises import VonMises
from ppl.distributions.wishart import Wishart, WishartCholesky

__all__ = [
    "LKJ",
    "AVFMultivariateNormal",
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
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
    "GaussianScaleMixture",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "InverseWishart",
    "InverseWishartCholesky",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "MaskedDistribution",
    "MatrixNormal",
    "MixtureOfDiagNormals",
    "MixtureOfDiagNormalsSharedCovariance",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "MultivariateStudentT",
    "NanMaskedMultivariateNormal",
    "NanMaskedNormal",
    "NegativeBinomial",
    "Normal",
    "OMTMultivariateNormal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "ProjectedNormal",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ScoreParts",
    "SineBivariateVonMises",
    "SineSkewed",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "StudentT",
    "TransformedDistribution",
    "Uniform",
    "Unit",
    "VonMises",
    "VonMises3D",
    "Weibull",
    "Wishart",
    "WishartCholesky",
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
