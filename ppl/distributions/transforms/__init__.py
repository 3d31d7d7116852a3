"""Invertible maps with known Jacobians."""

from torch.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    identity_transform,
)

from ppl.distributions.transforms.compose import ComposeTransform, ComposeTransformModule
from ppl.distributions.transforms.conditional import (
    ConditionalComposeTransformModule,
    ConditionalTransform,
    ConditionalTransformModule,
    ConstantConditionalTransform,
    ConstantConditionalTransformModule,
)
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.transform import Inverse, Transform

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "CatTransform",
    "ComposeTransform",
    "ComposeTransformModule",
    "ConditionalComposeTransformModule",
    "ConditionalTransform",
    "ConditionalTransformModule",
    "ConstantConditionalTransform",
    "ConstantConditionalTransformModule",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "ExpTransform",
    "IndependentTransform",
    "Inverse",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "TanhTransform",
    "Transform",
    "TransformModule",
    "identity_transform",
]
