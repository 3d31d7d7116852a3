"""The table of transforms: a row or more for each public one. `test_transforms.py` runs every law on every row.

A row says how to make the transform and how long an event of its domain is; inputs are drawn through the domain itself
(`draw`, standard normal by default). A learnable transform is made anew, from a fixed seed, in each test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ppl.distributions as dist
from ppl.distributions import transforms as tr
from ppl.distributions.transforms.cholesky import read_lower

Coordinates = Callable[[Tensor], Tensor]


def flat(dims: int) -> Coordinates:
    """All entries of the last dims."""
    return lambda value: value.reshape((*value.shape[: value.dim() - dims], -1)) if dims else value.unsqueeze(-1)


def but_last(value: Tensor) -> Tensor:
    """The free entries of a simplex."""
    return value[..., :-1]


def lower(value: Tensor) -> Tensor:
    """The free entries of a triangular or symmetric matrix."""
    return torch.cat([read_lower(value), value.diagonal(dim1=-2, dim2=-1)], -1)


def free_coefficients(value: Tensor) -> Tensor:
    """Real and imaginary parts of the half spectrum of an even number of reals, without those that are 0 always."""
    return torch.cat([value.real, value.imag[..., 1:-1]], -1)


def half(value: Tensor) -> Tensor:
    """The free entries of a symmetric row."""
    return value[..., : value.shape[-1] // 2 + 1]


@dataclass(frozen=True)
class TransformCase:
    """One row.

    `make(**params)` makes the transform from tensors of the wanted dtype. `event` is an event's shape in the domain,
    `batch` the batch shape of the parameters. `free_x` and `free_y` map an event to its free coordinates, in which the
    Jacobian is square. Laws that a row cannot keep are named in `skips`, each with its reason.
    """

    cls: type
    make: Callable[..., Any]
    event: tuple[int, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    batch: tuple[int, ...] = ()
    draw: Callable[[Tensor], Tensor] = lambda noise: noise  # from standard normal noise to the domain
    free_x: Coordinates | None = None
    free_y: Coordinates | None = None
    is_isometry: bool = False  # the Jacobian is measured by the area of the image, not by free coordinates
    tolerance: float = 1e-9
    float32_tolerance: float = 2e-4
    skips: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, [self.cls.__name__, self.note]))

    def build(self, dtype: torch.dtype = torch.float64) -> Any:
        torch.manual_seed(0)
        made = self.make(**{name: torch.tensor(value, dtype=dtype) for name, value in self.params.items()})
        return made.to(dtype) if isinstance(made, torch.nn.Module) else made

    def inputs(self, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> Tensor:
        """Points of the domain, of the given shape before the batch and event shape."""
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn((*shape, *self.batch, *self.event), generator=generator, dtype=torch.float64)
        return self.draw(noise).to(dtype)


def positive(noise: Tensor) -> Tensor:
    return noise.exp()


def simplex(noise: Tensor) -> Tensor:
    return noise.softmax(-1)


def definite(noise: Tensor) -> Tensor:
    return noise @ noise.mT + torch.eye(noise.shape[-1])


def correlation(noise: Tensor) -> Tensor:
    matrix = definite(noise)
    scale = matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    matrix = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return matrix.tril(-1) + matrix.tril(-1).mT + torch.eye(matrix.shape[-1])


def spectrum(noise: Tensor) -> Tensor:
    return torch.fft.rfftn(noise, dim=(-1,))


NO_JACOBIAN = {"jacobian": "not bijective", "inverse": "not bijective"}
LOC, TRIL = [0.5, -1.0, 2.0], [[1.1, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]]


def elementwise(cls: type, **kwargs: Any) -> TransformCase:
    return TransformCase(cls, cls, **kwargs)


def unpack(vector: Tensor) -> dict[str, Tensor]:
    return {"a": vector[..., 0], "b": vector[..., 1:]}


def pack(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([parts["a"].unsqueeze(-1), parts["b"]], -1)


ELEMENTWISE = [
    elementwise(tr.IdentityTransform),
    elementwise(tr.ExpTransform),
    TransformCase(
        tr.ExpTransform,
        lambda: tr.ExpTransform(domain=dist.constraints.interval(0.0, 1.0)),
        draw=torch.sigmoid,
        note="of-interval",
    ),
    elementwise(tr.SigmoidTransform),
    elementwise(tr.SoftplusTransform),
    elementwise(tr.TanhTransform),
    elementwise(tr.ELUTransform),
    elementwise(tr.LeakyReLUTransform),
    elementwise(tr.AbsTransform, skips=NO_JACOBIAN),
    TransformCase(tr.AffineTransform, lambda: tr.AffineTransform(0.5, -2.0), note="numbers"),
    TransformCase(tr.AffineTransform, tr.AffineTransform, params={"loc": [0.5, 1.0], "scale": [2.0, -3.0]}, batch=(2,)),
    TransformCase(
        tr.AffineTransform,
        lambda loc, scale: tr.AffineTransform(loc, scale, event_dim=1),
        params={"loc": [0.5, 1.0], "scale": 2.0},
        event=(2,),
        note="vector",
    ),
    TransformCase(
        tr.AffineTransform,
        lambda: tr.AffineTransform(1.0, -2.0, domain=dist.constraints.positive),
        draw=positive,
        note="of-positive",
    ),
    TransformCase(tr.PowerTransform, lambda: tr.PowerTransform(-1.5), draw=positive, note="number"),
    TransformCase(tr.PowerTransform, tr.PowerTransform, params={"exponent": [2.0, 0.5]}, batch=(2,), draw=positive),
    TransformCase(tr.PositivePowerTransform, tr.PositivePowerTransform, params={"exponent": [3.0, 0.5]}, batch=(2,)),
    TransformCase(
        tr.CumulativeDistributionTransform,
        lambda loc, scale: tr.CumulativeDistributionTransform(dist.Normal(loc, scale, validate_args=False)),
        params={"loc": 0.3, "scale": 2.0},
    ),
    TransformCase(tr.ComplexTransform, tr.ComplexTransform, (2,), free_y=lambda y: torch.stack([y.real, y.imag], -1)),
]

BOUNDED = [
    TransformCase(tr.GreaterThanTransform, lambda: tr.GreaterThanTransform(-1.5), note="number"),
    TransformCase(tr.GreaterThanTransform, tr.GreaterThanTransform, params={"lower_bound": [0.0, 3.0]}, batch=(2,)),
    TransformCase(tr.LessThanTransform, lambda: tr.LessThanTransform(-1.5), note="number"),
    TransformCase(tr.LessThanTransform, tr.LessThanTransform, params={"upper_bound": [0.0, 3.0]}, batch=(2,)),
    TransformCase(tr.IntervalTransform, lambda: tr.IntervalTransform(-1.5, 2.0), note="numbers"),
    TransformCase(
        tr.IntervalTransform,
        lambda lower_bound, upper_bound: tr.IntervalTransform(lower_bound, upper_bound, is_half_open=True),
        params={"lower_bound": [0.0, 3.0], "upper_bound": [0.1, 7.0]},
        batch=(2,),
        note="half-open",
    ),
]

SIMPLEX = [
    TransformCase(tr.SoftmaxTransform, tr.SoftmaxTransform, (3,), skips=NO_JACOBIAN),
    TransformCase(tr.StickBreakingTransform, tr.StickBreakingTransform, (3,), free_y=but_last),
    TransformCase(tr.StickBreakingTransform, tr.StickBreakingTransform, (1,), free_y=but_last, note="two"),
    TransformCase(tr.SimplexToOrderedTransform, tr.SimplexToOrderedTransform, (4,), draw=simplex, free_x=but_last),
    TransformCase(
        tr.SimplexToOrderedTransform,
        tr.SimplexToOrderedTransform,
        (4,),
        params={"anchor_point": [0.5, -2.0]},
        batch=(2,),
        draw=simplex,
        free_x=but_last,
        note="anchored",
    ),
    TransformCase(tr.OrderedTransform, tr.OrderedTransform, (4,)),
    TransformCase(tr.PositiveOrderedTransform, tr.PositiveOrderedTransform, (4,)),
    TransformCase(tr.L1BallTransform, tr.L1BallTransform, (3,)),
    TransformCase(tr.Normalize, tr.Normalize, (3,), skips=NO_JACOBIAN),
    TransformCase(tr.Normalize, lambda: tr.Normalize(p=1), (3,), skips=NO_JACOBIAN, note="p1"),
    TransformCase(tr.ZeroSumTransform, tr.ZeroSumTransform, (3,), is_isometry=True),
    TransformCase(tr.ZeroSumTransform, lambda: tr.ZeroSumTransform(2), (2, 3), is_isometry=True, note="matrix"),
]

CHOLESKY = [
    TransformCase(tr.LowerCholeskyTransform, tr.LowerCholeskyTransform, (3, 3), skips=NO_JACOBIAN),
    TransformCase(
        tr.LowerCholeskyTransform, lambda: tr.LowerCholeskyTransform(packed=True), (6,), free_y=lower, note="packed"
    ),
    TransformCase(tr.SoftplusLowerCholeskyTransform, tr.SoftplusLowerCholeskyTransform, (3, 3), skips=NO_JACOBIAN),
    TransformCase(
        tr.SoftplusLowerCholeskyTransform,
        lambda: tr.SoftplusLowerCholeskyTransform(packed=True),
        (6,),
        free_y=lower,
        note="packed",
    ),
    TransformCase(tr.ScaledUnitLowerCholeskyTransform, tr.ScaledUnitLowerCholeskyTransform, (6,), free_y=lower),
    TransformCase(
        tr.ScaledUnitLowerCholeskyTransform,
        lambda: tr.ScaledUnitLowerCholeskyTransform(packed=False),
        (3, 3),
        skips=NO_JACOBIAN,
        note="matrix",
    ),
    TransformCase(tr.UnitLowerCholeskyTransform, tr.UnitLowerCholeskyTransform, (3, 3), skips=NO_JACOBIAN),
    TransformCase(
        tr.UnitLowerCholeskyTransform,
        lambda: tr.UnitLowerCholeskyTransform(packed=True),
        (3,),
        free_y=read_lower,
        note="packed",
    ),
    TransformCase(tr.CorrCholeskyTransform, tr.CorrCholeskyTransform, (6,), free_y=read_lower),
    TransformCase(tr.CorrCholeskyTransform, tr.CorrCholeskyTransform, (1,), free_y=read_lower, note="two"),
    TransformCase(tr.CholeskyTransform, tr.CholeskyTransform, (3, 3), draw=definite, free_x=lower, free_y=lower),
    TransformCase(
        tr.CorrMatrixCholeskyTransform,
        tr.CorrMatrixCholeskyTransform,
        (4, 4),
        draw=correlation,
        free_x=read_lower,
        free_y=read_lower,
    ),
    TransformCase(tr.PositiveDefiniteTransform, tr.PositiveDefiniteTransform, (3, 3), skips=NO_JACOBIAN),
    TransformCase(tr.LowerCholeskyAffine, tr.LowerCholeskyAffine, (3,), params={"loc": LOC, "scale_tril": TRIL}),
    TransformCase(
        tr.LowerCholeskyAffine,
        tr.LowerCholeskyAffine,
        (3,),
        params={"loc": [LOC, LOC], "scale_tril": TRIL},
        batch=(2,),
        note="batch",
    ),
]

FOURIER = [
    TransformCase(tr.DiscreteCosineTransform, tr.DiscreteCosineTransform, (5,)),
    TransformCase(tr.DiscreteCosineTransform, lambda: tr.DiscreteCosineTransform(dim=-2), (4, 3), note="matrix"),
    TransformCase(tr.DiscreteCosineTransform, lambda: tr.DiscreteCosineTransform(smooth=1.5), (6,), note="smooth"),
    TransformCase(tr.HaarTransform, tr.HaarTransform, (8,)),
    TransformCase(tr.HaarTransform, lambda: tr.HaarTransform(flip=True), (7,), note="flip"),
    TransformCase(tr.HaarTransform, lambda: tr.HaarTransform(dim=-2), (5, 2), note="matrix"),
    TransformCase(tr.RealFastFourierTransform, tr.RealFastFourierTransform, (6,), free_y=free_coefficients),
    TransformCase(
        tr.RealFastFourierTransform,
        lambda: tr.RealFastFourierTransform((5,)),
        (5,),
        free_y=lambda y: torch.cat([y.real, y.imag[..., 1:]], -1),
        note="odd",
    ),
    TransformCase(
        tr.RealFastFourierTransform,
        lambda: tr.RealFastFourierTransform((3, 2)),
        (3, 2),
        free_y=lambda y: torch.cat([y[..., :2, :].real.flatten(-2), y[..., 1, :].imag], -1),
        note="matrix",
    ),
    TransformCase(
        tr.PackRealFastFourierCoefficientsTransform,
        tr.PackRealFastFourierCoefficientsTransform,
        (6,),
        free_y=free_coefficients,
    ),
    TransformCase(
        tr.PackRealFastFourierCoefficientsTransform,
        lambda: tr.PackRealFastFourierCoefficientsTransform((5,)),
        (5,),
        free_y=lambda y: torch.cat([y.real, y.imag[..., 1:]], -1),
        note="odd",
    ),
    TransformCase(tr.CirculantTransform, tr.CirculantTransform, (4,), free_y=half),
    TransformCase(tr.CirculantTransform, lambda: tr.CirculantTransform(5), (3,), free_y=half, note="odd"),
]

SHAPE = [
    TransformCase(tr.Permute, lambda: tr.Permute([2, 0, 1]), (3,)),
    TransformCase(tr.Permute, lambda: tr.Permute(torch.tensor([2, 0, 1]), dim=-2), (3, 2), note="matrix"),
    TransformCase(tr.PermuteTransform, lambda: tr.PermuteTransform([1, 0]), (2,)),
    TransformCase(tr.ReshapeTransform, lambda: tr.ReshapeTransform((2, 3), (6,)), (2, 3)),
    TransformCase(
        tr.UnpackTransform,
        lambda: tr.UnpackTransform(unpack, pack),
        (3,),
        skips=dict.fromkeys(
            ("jacobian", "sets", "shapes", "dtype", "cache", "graph", "vmap", "batch"), "what comes out is no tensor"
        ),
    ),
]

COMBINED = [
    TransformCase(
        tr.ComposeTransform,
        lambda: tr.ComposeTransform([tr.AffineTransform(0.5, 2.0), tr.StickBreakingTransform()]),
        (3,),
        free_y=but_last,
    ),
    TransformCase(
        tr.ComposeTransform,
        lambda: tr.ComposeTransform(
            [
                tr.ExpTransform(),
                tr.IndependentTransform(tr.AffineTransform(1.0, 2.0), 2),
                tr.Permute([1, 0]),
                tr.ExpTransform().inv,
            ]
        ),
        (3, 2),
        note="dims",
    ),
    TransformCase(tr.IndependentTransform, lambda: tr.IndependentTransform(tr.TanhTransform(), 2), (2, 3)),
    TransformCase(
        tr.IndependentTransform,
        lambda: tr.IndependentTransform(tr.StickBreakingTransform(), 1),
        (2, 3),
        free_y=lambda y: but_last(y).flatten(-2),
        note="simplices",
    ),
    TransformCase(
        tr.CatTransform,
        lambda: tr.IndependentTransform(
            tr.CatTransform([tr.ExpTransform(), tr.TanhTransform()], dim=-1, lengths=[2, 1]), 1
        ),
        (3,),
    ),
    TransformCase(
        tr.CatTransform,
        lambda: tr.CatTransform(
            [tr.StickBreakingTransform(), tr.ExpTransform(), tr.StickBreakingTransform()], -1, [2, 1, 1]
        ),
        (4,),
        free_y=lambda y: y[..., [0, 1, 3, 4]],
        note="growing",
    ),
    TransformCase(
        tr.StackTransform,
        lambda: tr.StackTransform([tr.StickBreakingTransform(), tr.StickBreakingTransform()], dim=-2),
        (2, 3),
        free_y=lambda y: but_last(y).flatten(-2),
        note="simplices",
    ),
    TransformCase(
        tr.StackTransform,
        lambda: tr.StackTransform([tr.ExpTransform(), tr.TanhTransform(), tr.IdentityTransform()], -1),
        (3,),
    ),
    TransformCase(tr.Inverse, lambda: tr.SigmoidTransform().inv, draw=torch.sigmoid),
    TransformCase(
        tr.Inverse, lambda: tr.StickBreakingTransform().inv, (4,), draw=simplex, free_x=but_last, note="simplex"
    ),
]


class Scale(tr.TransformModule):
    """The smallest learnable transform."""

    domain = dist.constraints.real
    codomain = dist.constraints.real
    bijective = True

    def __init__(self, log_scale: float = 0.3, cache_size: int = 1) -> None:
        super().__init__(cache_size)
        self.log_scale = torch.nn.Parameter(torch.tensor(log_scale, dtype=torch.float64))

    def _call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.expand(x.shape)

    def _inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y * (-self.log_scale).exp(), self.log_scale.expand(y.shape)


MODULES = [
    TransformCase(tr.TransformModule, Scale),
    TransformCase(tr.InverseModule, lambda: Scale().inv),
    TransformCase(tr.ComposeTransformModule, lambda: tr.ComposeTransform([Scale(), tr.ExpTransform()])),
    TransformCase(tr.IndependentTransformModule, lambda: tr.IndependentTransform(Scale(), 1), (3,)),
    TransformCase(
        tr.CatTransformModule,
        lambda: tr.CatTransform([Scale(), tr.ExpTransform()], -1, [1, 2]),
        (),
        batch=(3,),
    ),
    TransformCase(tr.StackTransformModule, lambda: tr.StackTransform([Scale(), tr.ExpTransform()], -1), (2,)),
]

CASES: list[TransformCase] = [
    *ELEMENTWISE,
    *BOUNDED,
    *SIMPLEX,
    *CHOLESKY,
    *FOURIER,
    *SHAPE,
    *COMBINED,
    *MODULES,
]
#: Public classes that are not transforms of their own, and are tested elsewhere.
ABSTRACT = {tr.Transform}
