"""Normal vectors on a circle, by the Fourier transform."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor
from torch.distributions.utils import lazy_property

from ppl.distributions import constraints
from ppl.distributions.distribution import ShapeLike, broadcast_shape
from ppl.distributions.family import Family


class CirculantNormal(Family):
    """A normal vector whose covariance is circulant: row i is the first row turned by i places. O(n log n) throughout.

    Its eigenvalues are the discrete Fourier transform of the row, which is real, because the row is even.

    Args: covariance_row, the first row, or covariance_rfft, its real Fourier transform (the eigenvalues): one of them.
    Shapes: loc (*batch, n), covariance_row (*batch, n), covariance_rfft (*batch, n // 2 + 1); a draw (*batch, | n).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_row": constraints.positive_definite_circulant_vector,
        "covariance_rfft": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        loc: Tensor,
        covariance_row: Tensor | None = None,
        covariance_rfft: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (covariance_row is None) == (covariance_rfft is None):
            raise ValueError("CirculantNormal: pass exactly one of covariance_row and covariance_rfft.")
        if covariance_row is not None:
            n, name, got = covariance_row.shape[-1], "covariance_row", covariance_row
        else:
            assert covariance_rfft is not None
            n, name, got = loc.shape[-1], "covariance_rfft", covariance_rfft
        if loc.shape[-1] != n or (covariance_row is None and got.shape[-1] != n // 2 + 1):
            raise ValueError(
                f"CirculantNormal: argument '{name}' has shape {tuple(got.shape)}, which does not fit loc's "
                f"{tuple(loc.shape)}: expected n entries for covariance_row, n // 2 + 1 for covariance_rfft."
            )
        self._take({"loc": loc, name: got}, (n,), validate_args)
        spectrum = _waves(got).real if covariance_row is not None else got
        self._keep("_spectrum", spectrum, 1)

    @lazy_property
    def covariance_row(self) -> Tensor:
        """The first row of the covariance."""
        return self._from_waves(self._spectrum)

    @lazy_property
    def covariance_rfft(self) -> Tensor:
        """The eigenvalues of the covariance, each pair of equal ones once."""
        return self._spectrum

    @property
    def covariance_matrix(self) -> Tensor:
        """The whole covariance. Shapes: (*batch, n, n)."""
        steps = torch.arange(self.event_shape[0], device=self.loc.device)
        return self.covariance_row[..., (steps - steps[:, None]) % len(steps)]

    def _multiplicity(self) -> Tensor:
        """How often each of the n // 2 + 1 eigenvalues occurs among the n."""
        n = self.event_shape[0]
        k = torch.arange(n // 2 + 1, device=self.loc.device)
        return torch.where((k == 0) | (2 * k == n), 1.0, 2.0).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density. Shapes: (*sample, *batch, n) -> (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        n, count = self.event_shape[0], self._multiplicity()
        waves = _waves(value - self.loc)
        square: Tensor = waves.real.square() + waves.imag.square()
        terms: Tensor = square / (n * self._spectrum) + self._spectrum.log()
        return -0.5 * ((count * terms).sum(-1) + n * math.log(2 * math.pi))

    def rsample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw, differentiably: noise times the symmetric root of the covariance."""
        noise = torch.randn(self.shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self._from_waves(_waves(noise) * self._spectrum.sqrt())

    def _from_waves(self, waves: Tensor) -> Tensor:
        n = self.event_shape[0]
        if waves.numel() == 0:  # torch's transforms cannot take an empty batch
            return self.loc.new_zeros((*waves.shape[:-1], n))
        x: Tensor = torch.fft.irfft(waves, n=n)
        return x

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        n = self.event_shape[0]
        return ((self._multiplicity() * self._spectrum).sum(-1, True) / n).expand(self.shape())

    def entropy(self) -> Tensor:
        """Expected -log density."""
        n = self.event_shape[0]
        return 0.5 * ((self._multiplicity() * self._spectrum.log()).sum(-1) + n * (1 + math.log(2 * math.pi)))

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        batch = broadcast_shape(*(Size(s)[:-1] for s in arg_shapes.values()))
        return batch, Size(arg_shapes["loc"])[-1:]


def _waves(x: Tensor) -> Tensor:
    """The real Fourier transform. Shapes: (*, n) -> (*, n // 2 + 1), complex."""
    if x.numel() == 0:
        return torch.complex(*[x.new_zeros((*x.shape[:-1], x.shape[-1] // 2 + 1))] * 2)
    waves: Tensor = torch.fft.rfft(x)
    return waves
