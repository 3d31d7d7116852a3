"""Learnable linear maps of the channels of an image: 1 x 1 convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppl.distributions import constraints
from ppl.distributions.transforms.conditional import ConditionalTransformModule
from ppl.distributions.transforms.module import TransformModule
from ppl.distributions.transforms.networks import DenseNN, calmed
from ppl.distributions.transforms.transform import Transform

_IMAGE = constraints.independent(constraints.real, 3)


class ChannelMap(Transform):
    """Channels mixed by P L U: what `GeneralizedChannelPermute` is, or its conditional twin at a context.

    Shapes: permutation (C,), where row i of P has its 1; signs (C,), of U's diagonal; LU (*, C, C), L below the
    diagonal (whose own is 1), U above it, and the logarithm of U's absolute diagonal.
    """

    domain = _IMAGE
    codomain = _IMAGE
    bijective = True
    permutation: Tensor
    signs: Tensor
    LU: Tensor

    def __init__(self, permutation: Tensor, signs: Tensor, LU: Tensor) -> None:  # noqa: N803, as in the paper
        super().__init__(cache_size=1)
        self.permutation, self.signs, self.LU = permutation, signs, LU

    def _factors(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.LU.shape[-1], dtype=self.LU.dtype, device=self.LU.device)
        diagonal = self.signs * self.LU.diagonal(dim1=-2, dim2=-1).exp()
        return self.LU.tril(-1) + eye, self.LU.triu(1) + diagonal.diag_embed()

    def _log_det(self, image: Tensor) -> Tensor:
        count = image.shape[-1] * image.shape[-2]
        return (count * self.LU.diagonal(dim1=-2, dim2=-1).sum(-1)).expand(image.shape[:-3])

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        weight = (lower @ upper).index_select(-2, self.permutation)
        y = (weight @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
        return y, self._log_det(y)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        ordered = y.index_select(-3, self.permutation.argsort()).flatten(-2)
        between = torch.linalg.solve_triangular(lower, ordered, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, between, upper=True).unflatten(-1, y.shape[-2:])
        return x, self._log_det(x)


class GeneralizedChannelPermute(ChannelMap, TransformModule):
    """A learnable linear map of the channels, the same for every pixel of an image (*, channels, height, width).

    Args:   permutation, of the channels at first, kept as P; by default a random rotation, decomposed.
    Source: Glow, Kingma & Dhariwal 2018, section 3.2, equations 10 and 11.
    """

    def __init__(self, channels: int = 3, permutation: Tensor | None = None) -> None:
        TransformModule.__init__(self, cache_size=1)
        self.channels = channels
        if permutation is None:
            rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
            matrix, lower, upper = torch.linalg.lu(rotation)
            permutation, diagonal = matrix.argmax(-1), upper.diagonal()
            packed = lower.tril(-1) + upper.triu(1) + diagonal.abs().log().diag()
            signs = diagonal.sign()
        else:
            permutation = _checked(type(self).__name__, permutation, channels)
            packed, signs = torch.zeros(channels, channels), torch.ones(channels)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", signs)
        self.LU = nn.Parameter(packed)


class ConditionalGeneralizedChannelPermute(ConditionalTransformModule):
    """`GeneralizedChannelPermute` with L and U from a network of a context.

    Args: nn, a `DenseNN` of the context with one output of channels²; permutation, of the channels, kept as P; by
          default at random.
    """

    domain = _IMAGE
    codomain = _IMAGE
    bijective = True
    permutation: Tensor
    signs: Tensor

    def __init__(self, nn: nn.Module, channels: int = 3, permutation: Tensor | None = None) -> None:
        super().__init__()
        self.nn, self.channels = nn, channels
        chosen = torch.randperm(channels) if permutation is None else permutation
        self.register_buffer("permutation", _checked(type(self).__name__, chosen, channels))
        self.register_buffer("signs", torch.ones(channels))

    def condition(self, context: Tensor) -> ChannelMap:
        """The transform of this context."""
        packed = self.nn(context).unflatten(-1, (self.channels, self.channels))
        return ChannelMap(self.permutation, self.signs, packed)


def _checked(name: str, permutation: Tensor, channels: int) -> Tensor:
    permutation = torch.as_tensor(permutation, dtype=torch.long)
    if permutation.shape != (channels,) or sorted(permutation.tolist()) != [*range(channels)]:
        raise ValueError(
            f"{name}: the permutation must list 0 to {channels - 1} once each, but got {permutation.tolist()}."
        )
    return permutation


def generalized_channel_permute(**kwargs: Any) -> GeneralizedChannelPermute:
    """A `GeneralizedChannelPermute`."""
    return GeneralizedChannelPermute(**kwargs)


def conditional_generalized_channel_permute(
    context_dim: int, channels: int = 3, hidden_dims: Sequence[int] | None = None
) -> ConditionalGeneralizedChannelPermute:
    """A `ConditionalGeneralizedChannelPermute` with a network of its own: by default two layers of 10 units a channel."""
    hidden = [10 * channels] * 2 if hidden_dims is None else hidden_dims
    network = calmed(DenseNN(context_dim, hidden, (channels * channels,)))
    return ConditionalGeneralizedChannelPermute(network, channels)
