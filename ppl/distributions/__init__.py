"""The distribution framework: every torch distribution extended, and what torch lacks.

See `ppl.distributions.distribution` for the contract on shapes.
"""

from torch.distributions import ExponentialFamily

from ppl.distributions import constraints, transforms
from ppl.distributions.bernoulli import Bernoulli, Geometric
from ppl.distributions.beta import AffineBeta, Beta, BetaProportion, Kumaraswamy
from ppl.distributions.beta_binomial import BetaBinomial, BetaNegativeBinomial, ExtendedBetaBinomial
from ppl.distributions.binomial import Binomial, ExtendedBinomial
from ppl.distributions.car import CAR
from ppl.distributions.categorical import Categorical, OrderedLogistic
from ppl.distributions.cauchy import Cauchy, HalfCauchy
from ppl.distributions.censored import IntervalCensoredDistribution, LeftCensoredDistribution, RightCensoredDistribution
from ppl.distributions.circulant_normal import CirculantNormal
from ppl.distributions.coalescent import CoalescentRateLikelihood, CoalescentTimes, CoalescentTimesWithRate
from ppl.distributions.conditional import (
    ConditionalDistribution,
    ConditionalTransformedDistribution,
    ConstantConditionalDistribution,
)
from ppl.distributions.copula import GaussianCopula, GaussianCopulaBeta
from ppl.distributions.delta import Delta, Unit
from ppl.distributions.diagonal_mixtures import (
    GaussianScaleMixture,
    MixtureOfDiagNormals,
    MixtureOfDiagNormalsSharedCovariance,
)
from ppl.distributions.directional import ProjectedNormal, VonMises3D
from ppl.distributions.dirichlet import Dirichlet
from ppl.distributions.discrete_hmm import DiscreteHMM
from ppl.distributions.discrete_uniform import DiscreteUniform
from ppl.distributions.distribution import Distribution, ScoreParts
from ppl.distributions.empirical import Empirical
from ppl.distributions.euler_maruyama import EulerMaruyama
from ppl.distributions.expanded import ExpandedDistribution
from ppl.distributions.folded import FoldedDistribution
from ppl.distributions.gamma import Chi2, Exponential, Gamma, InverseGamma
from ppl.distributions.gamma_gaussian_hmm import GammaGaussianHMM
from ppl.distributions.gaussian_hmm import GaussianHMM
from ppl.distributions.gaussian_mrf import GaussianMRF
from ppl.distributions.grouped_normal_normal import GroupedNormalNormal
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
from ppl.distributions.independent_hmm import IndependentHMM
from ppl.distributions.inverse_wishart import InverseWishart, InverseWishartCholesky
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
from ppl.distributions.linear_hmm import LinearHMM
from ppl.distributions.lkj import LKJ, LKJCholesky
from ppl.distributions.log_density import LogDensity
from ppl.distributions.log_normal_negative_binomial import LogNormalNegativeBinomial
from ppl.distributions.logistic import Logistic, SkewLogistic
from ppl.distributions.logistic_normal import LogisticNormal
from ppl.distributions.low_rank_normal import LowRankMultivariateNormal
from ppl.distributions.masked import MaskedDistribution
from ppl.distributions.masked_mixture import MaskedMixture
from ppl.distributions.matching import OneOneMatching, OneTwoMatching
from ppl.distributions.matrix_normal import MatrixNormal
from ppl.distributions.mixture import Mixture, MixtureGeneral, MixtureSameFamily
from ppl.distributions.multinomial import DirichletMultinomial, Multinomial
from ppl.distributions.multivariate_normal import MultivariateNormal
from ppl.distributions.multivariate_student import MultivariateStudentT
from ppl.distributions.nan_masked import NanMaskedMultivariateNormal, NanMaskedNormal
from ppl.distributions.negative_binomial import GammaPoisson, NegativeBinomial, NegativeBinomial2
from ppl.distributions.normal import HalfNormal, LogNormal, Normal
from ppl.distributions.one_hot import OneHotCategorical, OneHotCategoricalStraightThrough
from ppl.distributions.pareto import DoublyTruncatedPowerLaw, GeneralizedPareto, LowerTruncatedPowerLaw, Pareto
from ppl.distributions.poisson import Poisson
from ppl.distributions.polya_gamma import TruncatedPolyaGamma
from ppl.distributions.registry import ConstraintRegistry, biject_to, transform_to
from ppl.distributions.rejector import Rejector
from ppl.distributions.relaxed import (
    RelaxedBernoulli,
    RelaxedBernoulliStraightThrough,
    RelaxedOneHotCategorical,
    RelaxedOneHotCategoricalStraightThrough,
)
from ppl.distributions.spanning_tree import SpanningTree
from ppl.distributions.stable import Stable, StableWithLogProb
from ppl.distributions.state_space import GaussianRandomWalk, GaussianStateSpace
from ppl.distributions.student import FisherSnedecor, StudentT
from ppl.distributions.switching_linear_hmm import SwitchingLinearHMM, SwitchingPath
from ppl.distributions.toroidal import SineBivariateVonMises, SineSkewed
from ppl.distributions.transformed import TransformedDistribution
from ppl.distributions.transforms import (
    ComposeTransformModule,
    ConditionalTransform,
    ConditionalTransformModule,
    ConstantConditionalTransform,
    TransformModule,
)
from ppl.distributions.transport_normal import AVFMultivariateNormal, OMTMultivariateNormal
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
from ppl.distributions.validation import enable_validation, is_validation_enabled, validation_enabled
from ppl.distributions.von_mises import VonMises
from ppl.distributions.weibull import Dagum, Gompertz, Weibull
from ppl.distributions.wishart import Wishart, WishartCholesky
from ppl.distributions.zero_inflated import (
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedNegativeBinomial2,
    ZeroInflatedPoisson,
)
from ppl.distributions.zero_sum_normal import ZeroSumNormal

TorchDistribution = Distribution  # the name that Pyro's users inherit from

__all__ = [
    "CAR",
    "LKJ",
    "AVFMultivariateNormal",
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
    "CirculantNormal",
    "CoalescentRateLikelihood",
    "CoalescentTimes",
    "CoalescentTimesWithRate",
    "ComposeTransformModule",
    "ConditionalDistribution",
    "ConditionalTransform",
    "ConditionalTransformModule",
    "ConditionalTransformedDistribution",
    "ConstantConditionalDistribution",
    "ConstantConditionalTransform",
    "ConstraintRegistry",
    "ContinuousBernoulli",
    "Dagum",
    "Delta",
    "Dirichlet",
    "DirichletMultinomial",
    "DiscreteHMM",
    "DiscreteUniform",
    "Distribution",
    "DoublyTruncatedPowerLaw",
    "Empirical",
    "EulerMaruyama",
    "ExpandedDistribution",
    "Exponential",
    "ExponentialFamily",
    "ExtendedBetaBinomial",
    "ExtendedBinomial",
    "FisherSnedecor",
    "FoldedDistribution",
    "Gamma",
    "GammaGaussianHMM",
    "GammaPoisson",
    "GaussianCopula",
    "GaussianCopulaBeta",
    "GaussianHMM",
    "GaussianMRF",
    "GaussianRandomWalk",
    "GaussianScaleMixture",
    "GaussianStateSpace",
    "GeneralizedPareto",
    "Geometric",
    "Gompertz",
    "GroupedNormalNormal",
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
    "IndependentHMM",
    "IntervalCensoredDistribution",
    "InverseGamma",
    "InverseWishart",
    "InverseWishartCholesky",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LeftCensoredDistribution",
    "LeftTruncatedDistribution",
    "LeftTruncatedGamma",
    "Levy",
    "LinearHMM",
    "LogDensity",
    "LogNormal",
    "LogNormalNegativeBinomial",
    "LogUniform",
    "Logistic",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerTruncatedPowerLaw",
    "MaskedDistribution",
    "MaskedMixture",
    "MatrixNormal",
    "Mixture",
    "MixtureGeneral",
    "MixtureOfDiagNormals",
    "MixtureOfDiagNormalsSharedCovariance",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "MultivariateStudentT",
    "NanMaskedMultivariateNormal",
    "NanMaskedNormal",
    "NegativeBinomial",
    "NegativeBinomial2",
    "Normal",
    "OMTMultivariateNormal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "OneOneMatching",
    "OneTwoMatching",
    "OrderedLogistic",
    "Pareto",
    "Poisson",
    "ProjectedNormal",
    "Rejector",
    "RelaxedBernoulli",
    "RelaxedBernoulliStraightThrough",
    "RelaxedOneHotCategorical",
    "RelaxedOneHotCategoricalStraightThrough",
    "RightCensoredDistribution",
    "RightTruncatedDistribution",
    "RightTruncatedGamma",
    "ScoreParts",
    "SineBivariateVonMises",
    "SineSkewed",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "SpanningTree",
    "Stable",
    "StableWithLogProb",
    "StudentT",
    "SwitchingLinearHMM",
    "SwitchingPath",
    "TorchDistribution",
    "TransformModule",
    "TransformedDistribution",
    "TruncatedCauchy",
    "TruncatedDistribution",
    "TruncatedGamma",
    "TruncatedNormal",
    "TruncatedPolyaGamma",
    "TwoSidedTruncatedDistribution",
    "TwoSidedTruncatedGamma",
    "Uniform",
    "Unit",
    "VonMises",
    "VonMises3D",
    "Weibull",
    "Wishart",
    "WishartCholesky",
    "ZeroInflatedDistribution",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedNegativeBinomial2",
    "ZeroInflatedPoisson",
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
