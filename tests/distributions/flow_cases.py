"""The table of learnable transforms: how to build each, what it acts on, and its conditional twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ppl.distributions import transforms


@dataclass(frozen=True)
class FlowCase:
    """One row: a factory with its arguments, the event shape, and how far from where it starts to test it."""

    name: str
    build: Callable[[], Any]
    event: tuple[int, ...] = (3,)
    spread: float = 0.4  # of what is added to the parameters
    elementwise: bool = False

    def random(self, seed: int = 0) -> Any:
        """The transform with parameters away from where they start, in evaluation mode."""
        torch.manual_seed(seed)
        return shaken(self.build(), self.spread).eval()


def shaken(module: Any, spread: float) -> Any:
    """A module with noise added to its parameters and moving statistics."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += spread * torch.randn_like(parameter)
        for name, buffer in module.named_buffers():
            if "moving" in name:
                buffer += 0.5 * torch.rand_like(buffer)
    return module


def _row(name: str, *args: Any, note: str = "", event: tuple[int, ...] = (3,), **options: Any) -> FlowCase:
    fields = {k: options.pop(k) for k in ("spread", "elementwise") if k in options}
    return FlowCase(
        f"{name}{note and '-' + note}", lambda: getattr(transforms, name)(*args, **options), event, **fields
    )


FLOWS = [
    _row("affine_autoregressive", 3),
    _row("affine_autoregressive", 4, [7, 6], note="stable", event=(4,), stable=True),
    _row("affine_autoregressive", 1, note="one", event=(1,)),
    _row("neural_autoregressive", 3),
    _row("neural_autoregressive", 3, note="elu", activation="ELU", width=5),
    _row("neural_autoregressive", 2, note="leaky", event=(2,), activation="leaky_relu"),
    _row("block_autoregressive", 2, event=(2,)),
    _row("block_autoregressive", 2, note="normal", event=(2,), residual="normal", hidden_factors=[4]),
    _row("block_autoregressive", 3, note="gated", residual="gated", activation="sigmoid", hidden_factors=[3]),
    _row("block_autoregressive", 2, note="elu", event=(2,), activation="ELU", residual="normal"),
    _row("block_autoregressive", 2, note="leaky", event=(2,), activation="leaky_relu"),
    _row("spline_autoregressive", 3, spread=0.15),
    _row("spline_autoregressive", 3, note="quadratic", order="quadratic", count_bins=5, bound=2.0, spread=0.15),
    _row("affine_coupling", 4, event=(4,)),
    _row("affine_coupling", 5, [8], note="split", event=(5,), split_dim=1),
    _row("affine_coupling", [4, 2, 3], note="image", event=(4, 2, 3), dim=-3),
    _row("spline_coupling", 4, event=(4,), spread=0.15),
    _row("spline_coupling", 3, note="quadratic", order="quadratic", identity=True, spread=0.15),
    _row("spline", 3, elementwise=True),
    _row("spline", 3, note="quadratic", order="quadratic", count_bins=4, elementwise=True),
    _row("planar", 3),
    _row("radial", 3),
    _row("sylvester", 3),
    _row("sylvester", 5, note="many", event=(5,), count_transforms=4),
    _row("householder", 3),
    _row("householder", 4, note="many", event=(4,), count_transforms=4),
    _row("polynomial", 2, event=(2,)),
    _row("matrix_exponential", 3),
    _row("matrix_exponential", 3, note="weight", normalization="weight", bound=0.7),
    _row("matrix_exponential", 3, note="spectral", normalization="spectral", bound=0.7),
    _row("generalized_channel_permute", event=(3, 2, 4)),
    _row(
        "generalized_channel_permute", note="given", event=(4, 2, 2), channels=4, permutation=torch.tensor([2, 0, 3, 1])
    ),
    _row("batchnorm", 3, elementwise=True),
]
CONTEXT = 2
CONDITIONAL = [
    _row("conditional_affine_autoregressive", 3, CONTEXT),
    _row("conditional_affine_autoregressive", 3, CONTEXT, note="stable", stable=True),
    _row("conditional_neural_autoregressive", 3, CONTEXT, width=6),
    _row("conditional_spline_autoregressive", 3, CONTEXT, spread=0.15),
    _row("conditional_spline_autoregressive", 3, CONTEXT, note="quadratic", order="quadratic", spread=0.15),
    _row("conditional_affine_coupling", 4, CONTEXT, event=(4,)),
    _row("conditional_affine_coupling", [4, 2], CONTEXT, note="image", event=(4, 2), dim=-2),
    _row("conditional_spline_coupling", 4, CONTEXT, event=(4,), spread=0.15),
    _row("conditional_spline", 3, CONTEXT, elementwise=True),
    _row("conditional_spline", 3, CONTEXT, note="quadratic", order="quadratic", elementwise=True),
    _row("conditional_planar", 3, CONTEXT),
    _row("conditional_radial", 3, CONTEXT),
    _row("conditional_householder", 3, CONTEXT, count_transforms=2),
    _row("conditional_matrix_exponential", 3, CONTEXT),
    _row("conditional_matrix_exponential", 3, CONTEXT, note="spectral", normalization="spectral", bound=0.5),
    _row("conditional_generalized_channel_permute", CONTEXT, 3, event=(3, 2, 2)),
]
