"""Orthogonal and nearly orthogonal maps along dims: cosine, Haar and Fourier transforms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from ppl.distributions import constraints
from ppl.distributions.transforms.transform import Transform


class AlongDim(Transform):
    """The base of volume-preserving linear maps along one dim, counted from the right."""

    bijective = True

    def __init__(self, dim: int = -1, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        if not isinstance(dim, int) or dim >= 0:
            raise ValueError(
                f"{type(self).__name__}: dim must be a negative integer, counted from the right, got {dim}."
            )
        self.dim = dim
        self.domain = self.codomain = constraints.independent(constraints.real, -dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.dim() + self.dim])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim})"


class DiscreteCosineTransform(AlongDim):
    """The orthonormal discrete cosine transform (type II) along a dim.

    Args: smooth, the power of the frequency that coefficients are weighed with (weights have product 1). With 0 white
        noise becomes white noise, with 1 Brownian noise does, with -1 violet noise.
    """

    def __init__(self, dim: int = -1, smooth: float = 0.0, cache_size: int = 0) -> None:
        super().__init__(dim, cache_size)
        self.smooth = float(smooth)

    def _weights(self, x: Tensor) -> Tensor:
        frequency = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) + 0.5
        log_weights = self.smooth * frequency.log()
        return (log_weights - log_weights.mean()).exp()

    def _call(self, x: Tensor) -> Tensor:
        y = dct(x.movedim(self.dim, -1))
        return (y * self._weights(y) if self.smooth else y).movedim(-1, self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.movedim(self.dim, -1)
        return idct(y / self._weights(y) if self.smooth else y).movedim(-1, self.dim)

    def __repr__(self) -> str:
        return f"DiscreteCosineTransform(dim={self.dim}, smooth={self.smooth})"


class HaarTransform(AlongDim):
    """The orthonormal Haar wavelet transform along a dim of any size: the coarsest coefficients come first.

    Args: flip, whether to reverse the dim first.
    """

    def __init__(self, dim: int = -1, flip: bool = False, cache_size: int = 0) -> None:
        super().__init__(dim, cache_size)
        self.flip = flip

    def _call(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        return haar(x.flip(-1) if self.flip else x).movedim(-1, self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        x = ihaar(y.movedim(self.dim, -1))
        return (x.flip(-1) if self.flip else x).movedim(-1, self.dim)

    def __repr__(self) -> str:
        return f"HaarTransform(dim={self.dim}, flip={self.flip})"


class RealFastFourierTransform(Transform):
    """The discrete Fourier transform of real arrays over the last dims: the half of the coefficients that is free.

    Args: transform_shape, the sizes of the last dims, needed by the inverse where the last one is odd;
        transform_ndims, their number where no shape is given.

    The log determinant is with respect to the free real and imaginary parts.
    """

    bijective = True

    def __init__(
        self, transform_shape: tuple[int, ...] | int | None = None, transform_ndims: int = 1, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        shape = (transform_shape,) if isinstance(transform_shape, int) else transform_shape
        self.transform_shape = None if shape is None else tuple(shape)
        self.transform_ndims = transform_ndims if shape is None else len(shape)
        self.domain = constraints.independent(constraints.real, self.transform_ndims)
        self.codomain = constraints.independent(constraints.complex, self.transform_ndims)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-self.transform_ndims, 0))

    def _call(self, x: Tensor) -> Tensor:
        shape = self.forward_shape(x.shape)
        if x.numel() == 0:
            return torch.zeros(shape, dtype=x.dtype.to_complex(), device=x.device)
        return torch.fft.rfftn(x, dim=self._dims)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        shape = self.inverse_shape(y.shape)
        if y.numel() == 0:
            return torch.zeros(shape, dtype=y.dtype.to_real(), device=y.device)
        sizes = shape[len(shape) - self.transform_ndims :]
        return torch.fft.irfftn(y, s=sizes, dim=self._dims)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        sizes = x.shape[x.dim() - self.transform_ndims :]
        total = math.prod(sizes)
        real = math.prod(2 if size % 2 == 0 else 1 for size in sizes)  # coefficients without an imaginary part
        log_det = 0.5 * (total * math.log(total) - (total - real) * math.log(2)) if total else 0.0
        return x.new_full(x.shape[: x.dim() - self.transform_ndims], log_det)

    def forward_shape(self, shape: Size) -> Size:
        sizes = self._sizes(shape)
        if self.transform_shape is not None and sizes != self.transform_shape:
            raise ValueError(
                f"RealFastFourierTransform: the last dims must be {self.transform_shape}, got the shape {tuple(shape)}."
            )
        return Size((*shape[:-1], sizes[-1] // 2 + 1))

    def inverse_shape(self, shape: Size) -> Size:
        sizes = self._sizes(shape)
        if self.transform_shape is None:
            return Size((*shape[:-1], 2 * (sizes[-1] - 1)))
        expected = (*self.transform_shape[:-1], self.transform_shape[-1] // 2 + 1)
        if sizes != expected:
            raise ValueError(
                f"RealFastFourierTransform: the last dims must be {expected}, got the shape {tuple(shape)}."
            )
        return Size((*shape[: len(shape) - len(sizes)], *self.transform_shape))

    def _sizes(self, shape: Size) -> tuple[int, ...]:
        if len(shape) < self.transform_ndims:
            raise ValueError(
                f"RealFastFourierTransform needs at least {self.transform_ndims} dims, got the shape {tuple(shape)}."
            )
        return tuple(shape[len(shape) - self.transform_ndims :])

    def __repr__(self) -> str:
        return f"RealFastFourierTransform({self.transform_shape}, transform_ndims={self.transform_ndims})"


class PackRealFastFourierCoefficientsTransform(Transform):
    """The n // 2 + 1 Fourier coefficients of n real numbers from their n free real and imaginary parts.

    The real parts come first, then the imaginary parts of those that have one.

    Args: transform_shape, (n,), needed by the inverse where n is odd.
    """

    domain = constraints.real_vector
    codomain = constraints.independent(constraints.complex, 1)
    bijective = True

    def __init__(self, transform_shape: tuple[int, ...] | int | None = None, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        shape: Any = (transform_shape,) if isinstance(transform_shape, int) else transform_shape
        if shape is not None and len(shape) != 1:
            raise ValueError(
                f"PackRealFastFourierCoefficientsTransform: transform_shape must have one size, got {tuple(shape)}."
            )
        self.transform_shape = None if shape is None else tuple(shape)

    def _call(self, x: Tensor) -> Tensor:
        self.forward_shape(x.shape)
        count = x.shape[-1] // 2 + 1
        real, rest = x.split([count, x.shape[-1] - count], -1)
        imaginary = torch.nn.functional.pad(rest, (1, count - 1 - rest.shape[-1]))
        return torch.complex(real, imaginary)

    def _inverse(self, y: Tensor) -> Tensor:
        size = self.inverse_shape(y.shape)[-1]
        return torch.cat([y.real, y.imag[..., 1 : size - y.shape[-1] + 1]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: Size) -> Size:
        self._check(shape, None if self.transform_shape is None else self.transform_shape[0])
        return Size((*shape[:-1], shape[-1] // 2 + 1))

    def inverse_shape(self, shape: Size) -> Size:
        self._check(shape, None if self.transform_shape is None else self.transform_shape[0] // 2 + 1)
        size = 2 * (shape[-1] - 1) if self.transform_shape is None else self.transform_shape[0]
        return Size((*shape[:-1], size))

    def _check(self, shape: Size, size: int | None) -> None:
        if len(shape) < 1 or (size is not None and shape[-1] != size):
            wanted = "a vector" if size is None else f"{size} entries in the last dim"
            raise ValueError(f"PackRealFastFourierCoefficientsTransform needs {wanted}, got the shape {tuple(shape)}.")

    def __repr__(self) -> str:
        return f"PackRealFastFourierCoefficientsTransform({self.transform_shape})"


class CirculantTransform(Transform):
    """First rows of positive definite circulant matrices from the logarithms of their spectra.

    Shapes: (*batch, n // 2 + 1) -> (*batch, n). Args: size, n; even if not given.
    The log determinant is with respect to the first n // 2 + 1 entries of a row.
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, size: int | None = None, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.size = size
        self.codomain = constraints.positive_definite_circulant_vector(size)

    def _call(self, x: Tensor) -> Tensor:
        shape = self.forward_shape(x.shape)
        if x.numel() == 0:
            return x.new_zeros(shape)
        size = shape[-1]
        spectrum = x.exp()
        return torch.fft.irfft(torch.complex(spectrum, torch.zeros_like(spectrum)), n=size)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        shape = self.inverse_shape(y.shape)
        if y.numel() == 0:
            return y.new_zeros(shape)
        x: Tensor = torch.fft.rfft(y).real
        return x.clamp(min=torch.finfo(y.dtype).tiny).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        size = y.shape[-1]
        # the cosine matrix from half a spectrum to half a row
        half = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        times = torch.where((half == 0) | (2 * half == size), 1.0, 2.0).to(x.dtype)
        cosines = times * (2 * math.pi / size * half.unsqueeze(-1) * half).cos() / size
        log_det: Tensor = torch.linalg.slogdet(cosines)[1]
        return x.sum(-1) + log_det

    def forward_shape(self, shape: Size) -> Size:
        if len(shape) < 1 or (self.size is not None and shape[-1] != self.size // 2 + 1):
            raise ValueError(f"CirculantTransform: the last dim must be size // 2 + 1, got the shape {tuple(shape)}.")
        return Size((*shape[:-1], 2 * (shape[-1] - 1) if self.size is None else self.size))

    def inverse_shape(self, shape: Size) -> Size:
        if len(shape) < 1 or (self.size is None and shape[-1] % 2) or self.size not in (None, shape[-1]):
            raise ValueError(
                f"CirculantTransform of size {self.size or 'even'}: a row of {shape[-1] if shape else 0} entries does not "
                "fit; for rows of odd length n use constraints.positive_definite_circulant_vector(n)."
            )
        return Size((*shape[:-1], shape[-1] // 2 + 1))

    def __repr__(self) -> str:
        return f"CirculantTransform({self.size})"


def dct(x: Tensor) -> Tensor:
    """The orthonormal discrete cosine transform, type II, over the last dim, by one Fourier transform of its size.

    Source: Makhoul, A fast cosine transform in one and two dimensions (1980).
    """
    if x.numel() == 0:  # which the library of Fourier transforms refuses
        return x
    size = x.shape[-1]
    shuffled = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    spectrum = torch.fft.fft(shuffled)
    cos, sin = _quarter_waves(x)
    y: Tensor = spectrum.real * cos + spectrum.imag * sin
    return y * _dct_scale(x, size)


def idct(y: Tensor) -> Tensor:
    """The inverse of `dct`."""
    if y.numel() == 0:
        return y
    size = y.shape[-1]
    y = y / _dct_scale(y, size)
    cos, sin = _quarter_waves(y)
    mirrored = torch.cat([torch.zeros_like(y[..., :1]), y[..., 1:].flip(-1)], -1)
    spectrum = torch.complex(y * cos + mirrored * sin, y * sin - mirrored * cos)
    shuffled: Tensor = torch.fft.ifft(spectrum).real
    half = (size + 1) // 2
    even, odd = shuffled[..., :half], shuffled[..., half:].flip(-1)
    paired = torch.stack([even[..., : size - half], odd], -1).flatten(-2)
    return torch.cat([paired, even[..., size - half :]], -1)


def haar(x: Tensor) -> Tensor:
    """The orthonormal Haar transform over the last dim."""
    details: list[Tensor] = []
    while x.shape[-1] > 1:
        half, left = divmod(x.shape[-1], 2)
        pairs = x[..., : 2 * half].unflatten(-1, (half, 2))
        details.append((pairs[..., 1] - pairs[..., 0]) * math.sqrt(0.5))
        sums = (pairs[..., 0] + pairs[..., 1]) * math.sqrt(0.5)
        x = torch.cat([sums, x[..., 2 * half :]], -1) if left else sums
    return torch.cat([x, *reversed(details)], -1)


def ihaar(y: Tensor) -> Tensor:
    """The inverse of `haar`."""
    sizes, size = [], y.shape[-1]
    while size > 1:
        sizes.append(size)
        size = size - size // 2
    x, y = y[..., :size], y[..., size:]
    for size in reversed(sizes):
        half = size // 2
        detail, y = y[..., :half], y[..., half:]
        sums = x[..., :half]
        pairs = torch.stack([sums - detail, sums + detail], -1) * math.sqrt(0.5)
        x = torch.cat([pairs.flatten(-2), x[..., half:]], -1)
    return x


def _quarter_waves(x: Tensor) -> tuple[Tensor, Tensor]:
    size = x.shape[-1]
    angle = torch.arange(size, dtype=x.dtype, device=x.device) * (math.pi / (2 * max(size, 1)))
    return angle.cos(), angle.sin()


def _dct_scale(x: Tensor, size: int) -> Tensor:
    first = torch.arange(size, device=x.device) == 0
    return torch.where(first, math.sqrt(1 / max(size, 1)), math.sqrt(2 / max(size, 1))).to(x.dtype)
