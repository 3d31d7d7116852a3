"""Constraints: what lies inside, how to reach it from all reals, and how to write it down."""

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import ppl.distributions as dist
from ppl.distributions import biject_to, constraints, transform_to, transforms
from ppl.params import decode_constraint, encode_constraint

c = constraints
EYE = [[1.0, 0.0], [0.0, 1.0]]


@dataclass(frozen=True)
class Row:
    """A constraint with values inside and outside it; `size`, the length of an unconstrained event."""

    constraint: Any
    inside: tuple[Any, ...]
    outside: tuple[Any, ...]
    size: tuple[int, ...] = ()
    event: tuple[int, ...] | None = None  # the shape of a value, where it is not `size`
    loose: tuple[int, ...] | None = None  # the shape of transform_to's input, where that is another
    limit: float = 30.0  # how far from 0 an unconstrained entry may lie for its image to be told from the edge
    name: str = ""

    def __str__(self) -> str:
        return self.name or repr(self.constraint)


def tensors(value: Any) -> Any:
    return torch.tensor(value)


LOW, HIGH = torch.tensor([0.0, -3.0]), torch.tensor([0.5, 7.0])
CONTINUOUS = [
    Row(c.real, (0.0, -1e300), (float("nan"),)),
    Row(c.real_vector, ([1.0, 2.0],), ([1.0, float("nan")],), (2,)),
    Row(c.real_matrix, (EYE,), ([[1.0, float("nan")]],), (2, 2)),
    Row(c.positive, (1e-300, 5.0), (0.0, -1.0, float("nan"))),
    Row(c.nonnegative, (0.0, 5.0), (-1e-9,)),
    Row(c.softplus_positive, (1e-300, 5.0), (0.0, -1.0)),
    Row(c.greater_than(2.0), (2.1,), (2.0, 1.0)),
    Row(c.greater_than(torch.tensor([-1.0, 2.0])), ([0.0, 3.0],), (), (2,), name="greater_than-tensor"),
    Row(c.greater_than_eq(2.0), (2.0,), (1.9,)),
    Row(c.less_than(-2.0), (-2.1,), (-2.0, 0.0)),
    Row(c.unit_interval, (0.0, 1.0, 0.3), (-0.1, 1.1)),
    Row(c.interval(-3.0, -1.0), (-3.0, -2.0), (-3.1, 0.0)),
    Row(c.interval(LOW, HIGH), ([0.2, -3.0],), (), (2,), name="interval-tensor"),
    Row(c.half_open_interval(-3.0, -1.0), (-3.0, -2.0), (-1.0,)),
    Row(c.half_open_interval(LOW, HIGH), ([0.2, -3.0],), (), (2,), name="half_open_interval-tensor"),
    Row(c.circular, (3.14, -3.14), (3.2,)),
    Row(c.complex, (1.0 + 2.0j,), (complex(float("nan"), 0.0), 1.0), (2,), ()),
    Row(c.simplex, ([0.2, 0.8], [0.0, 1.0]), ([0.5, 0.6], [-0.1, 1.1]), (3,), (4,), (4,)),
    Row(c.ordered_vector, ([-1.0, 2.0],), ([2.0, 2.0], [2.0, 1.0], [0.0, float("nan")]), (3,)),
    Row(c.positive_ordered_vector, ([0.1, 2.0],), ([-1.0, 2.0], [2.0, 1.0]), (3,)),
    Row(c.sphere, ([0.6, 0.8],), ([0.6, 0.9],), (2,)),
    Row(c.sphere(p=1), ([0.6, -0.4],), ([0.6, 0.8],), (2,)),
    Row(c.l1_ball, ([0.6, -0.4], [0.0, 0.0]), ([0.6, 0.5],), (3,)),
    Row(c.zero_sum(1), ([1.0, -1.0],), ([1.0, 1.0],), (2,), (3,)),
    Row(c.zero_sum(2), ([[1.0, -1.0], [-1.0, 1.0]],), ([[1.0, -1.0], [1.0, -1.0]],), (2, 1), (3, 2)),
    Row(
        c.positive_definite_circulant_vector,
        ([2.0, 0.5, 0.1, 0.5],),
        ([2.0, 0.5, 0.1, 0.4], [0.1, 2.0, 0.0, 2.0]),
        (3,),
        (4,),
        limit=6.0,  # a spectrum with a condition beyond 1 / eps is lost in the row
    ),
    Row(c.positive_definite_circulant_vector(5), ([2.0, 0.5, 0.1, 0.1, 0.5],), (), (3,), (5,), limit=6.0),
    Row(c.lower_cholesky, (EYE,), ([[1.0, 1.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]), (6,), (3, 3), (3, 3)),
    Row(c.softplus_lower_cholesky, (EYE,), ([[1.0, 1.0], [0.0, 1.0]],), (6,), (3, 3), (3, 3)),
    Row(c.scaled_unit_lower_cholesky, (EYE,), ([[1.0, 1.0], [0.0, 1.0]],), (6,), (3, 3), (3, 3)),
    Row(
        c.unit_lower_cholesky,
        ([[1.0, 0.0], [9.0, 1.0]],),
        ([[1.0, 0.0], [9.0, 2.0]], [[1.0, 1.0], [9.0, 1.0]]),
        (3,),
        (3, 3),
        (3, 3),
    ),
    Row(c.corr_cholesky, ([[1.0, 0.0], [0.6, 0.8]],), ([[1.0, 0.0], [0.6, 0.9]],), (3,), (3, 3), limit=15.0),
    Row(
        c.corr_matrix,
        ([[1.0, 0.6], [0.6, 1.0]],),
        ([[1.0, 0.6], [0.6, 1.1]], [[1.0, 1.6], [1.6, 1.0]]),
        (3,),
        (3, 3),
        limit=2.0,
    ),
    Row(c.positive_definite, ([[2.0, 1.0], [1.0, 2.0]],), ([[1.0, 2.0], [2.0, 1.0]],), (6,), (3, 3), (3, 3), limit=2.0),
    Row(
        c.positive_semidefinite,
        ([[1.0, 1.0], [1.0, 1.0]],),
        ([[1.0, 2.0], [2.0, 1.0]],),
        (6,),
        (3, 3),
        (3, 3),
        limit=2.0,
    ),
    Row(c.independent(c.positive, 1), ([1.0, 2.0],), ([1.0, -2.0],), (2,)),
    Row(c.independent(c.simplex, 1), ([[0.2, 0.8]],), ([[0.2, 0.8], [0.5, 0.6]],), (2, 3), (2, 4), (2, 4)),
    Row(c.MixtureSameFamilyConstraint(c.positive), (1.0,), (-1.0,)),
    Row(c.MixtureSameFamilyConstraint(c.interval(LOW, HIGH)), (0.2,), (-1.0, 1.0), name="mixture-interval"),
    Row(c.cat([c.positive, c.real], -1, [2, 1]), ([1.0, 2.0, -1.0],), ([-1.0, 2.0, -1.0],), (3,), name="cat"),
    Row(
        c.cat([c.simplex, c.positive], -1, [3, 1]),
        ([0.2, 0.3, 0.5, 9.0],),
        ([0.2, 0.3, 0.6, 9.0], [0.2, 0.3, 0.5, -9.0]),
        (3,),
        (4,),
        (4,),
        name="cat-simplex",
    ),
    Row(c.stack([c.positive, c.real], -1), ([1.0, -1.0],), ([-1.0, -1.0],), (2,), name="stack"),
    Row(
        c.stack([c.simplex, c.simplex], -2),
        ([[0.2, 0.8], [0.1, 0.9]],),
        ([[0.2, 0.8], [0.2, 0.9]],),
        (2, 3),
        (2, 4),
        (2, 4),
        name="stack-simplex",
    ),
]
DISCRETE = [
    Row(c.boolean, (0.0, 1.0), (0.5, 2.0)),
    Row(c.one_hot, ([0.0, 1.0],), ([1.0, 1.0],)),
    Row(c.integer, (-3.0, 7.0), (0.5, float("nan"))),
    Row(c.nonnegative_integer, (0.0, 7.0), (-1.0, 0.5)),
    Row(c.positive_integer, (1.0,), (0.0,)),
    Row(c.integer_greater_than(3), (3.0,), (2.0, 3.5)),
    Row(c.integer_interval(2, 4), (2.0, 4.0), (1.0, 2.5, 5.0)),
    Row(c.multinomial(3), ([1.0, 2.0],), ([1.0, 1.0], [-1.0, 4.0], [1.5, 1.5])),
]
UNREACHED = [
    Row(c.square, (EYE,), ()),
    Row(c.symmetric, (EYE,), ([[1.0, 1.0], [0.0, 1.0]],)),
    Row(c.lower_triangular, (EYE,), ([[1.0, 1.0], [0.0, 1.0]],)),
]
every = pytest.mark.parametrize("row", [*CONTINUOUS, *DISCRETE, *UNREACHED], ids=str)
continuous = pytest.mark.parametrize("row", CONTINUOUS, ids=str)
bijected = pytest.mark.parametrize(
    "row", [r for r in CONTINUOUS if not isinstance(r.constraint, type(c.sphere))], ids=str
)
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def test_every_public_constraint_has_a_row():
    rows = [row.constraint for row in (*CONTINUOUS, *DISCRETE, *UNREACHED)]
    missing = []
    for name in constraints.__all__:
        thing = getattr(constraints, name)
        if isinstance(thing, type) and issubclass(thing, constraints.Constraint):
            if not any(isinstance(row, thing) for row in rows):
                missing.append(name)
        elif isinstance(thing, constraints.Constraint) and not any(thing is row for row in rows):
            missing.append(name)
    assert set(missing) == {"dependent", "dependent_property"}


@every
def test_inside_and_outside(row):
    for value in row.inside:
        ok = row.constraint.check(tensors(value))
        assert ok.all() and ok.dtype == torch.bool
    for value in row.outside:
        assert not row.constraint.check(tensors(value)).all()


@every
def test_a_check_removes_the_event_dims(row):
    value = tensors(row.inside[0])
    batch = value.expand((3, *value.shape))
    assert row.constraint.check(batch).shape == batch.shape[: batch.dim() - row.constraint.event_dim]


@every
def test_reads_well(row):
    text = repr(row.constraint)
    assert text and not text.startswith("_") and "object at" not in text


@every
def test_survives_being_written_down_copied_and_pickled(row, tmp_path):
    torch.save(encode_constraint(row.constraint), tmp_path / "c.pt")
    back = decode_constraint(torch.load(tmp_path / "c.pt", weights_only=True))
    for other in (back, copy.deepcopy(row.constraint), pickle.loads(pickle.dumps(row.constraint))):
        assert constraints.same(other, row.constraint)
        assert other.check(tensors(row.inside[0])).all()
    for name in constraints.__all__:
        if getattr(constraints, name) is row.constraint:
            assert encode_constraint(row.constraint) == name and back is row.constraint


def noise(row, dtype, scale, shape):
    return scale * torch.randn((200, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def placed(constraint, dtype):
    """The same constraint with bounds of another dtype."""
    if isinstance(constraint, c.MixtureSameFamilyConstraint):
        return type(constraint)(placed(constraint.base_constraint, dtype))
    bounds = {k: v for k, v in vars(constraint).items() if k in ("lower_bound", "upper_bound")}
    if any(isinstance(v, torch.Tensor) for v in bounds.values()):
        return type(constraint)(**{k: v.to(dtype) for k, v in bounds.items()})
    return constraint


@pytest.mark.parametrize("registry", [biject_to, transform_to], ids=["biject_to", "transform_to"])
@precisions
@continuous
def test_transforms_land_inside_and_come_back(row, dtype, registry):
    constraint = placed(row.constraint, dtype)
    if registry is biject_to and isinstance(constraint, type(c.sphere)):
        return
    t = registry(constraint)
    shape = row.size if registry is biject_to or row.loose is None else row.loose
    x = noise(row, dtype, 1.0, shape)
    y = t(x)
    assert y.dtype in (dtype, dtype.to_complex())
    assert t.forward_shape(x.shape) == y.shape and t.inverse_shape(y.shape) == x.shape
    assert y.shape == (200, *(row.size if row.event is None else row.event))
    assert constraint.check(y).all()
    tolerance = 1e-7 if dtype is torch.float64 else 2e-3
    torch.testing.assert_close(t(t.inv(y)), y, rtol=tolerance, atol=tolerance)
    if registry is biject_to:
        assert t.bijective
        torch.testing.assert_close(t.inv(y), x, rtol=tolerance, atol=tolerance)
        log_det = t.log_abs_det_jacobian(x, y)
        assert log_det.isfinite().all() and log_det.dtype == dtype
        assert log_det.shape == x.shape[: x.dim() - t.domain.event_dim]


@precisions
@bijected
def test_far_draws_land_inside_too(row, dtype):
    constraint = placed(row.constraint, dtype)
    limit = row.limit if dtype is torch.float64 else row.limit / 3
    for t in (biject_to(constraint), transform_to(constraint)):
        shape = row.size if t.bijective or row.loose is None else row.loose
        x = noise(row, dtype, limit / 2, shape).clamp(-limit, limit)
        corners = torch.tensor([-limit, limit], dtype=dtype)[
            torch.randint(2, x.shape, generator=torch.Generator().manual_seed(1))
        ]
        for point in (x, corners):
            y = t(point)
            assert constraint.check(y).all()
            assert t.inv(y).isfinite().all()
            if t.bijective:
                assert t.log_abs_det_jacobian(point, y).isfinite().all()


@bijected
def test_gradients_are_finite_far_out(row):
    t = biject_to(row.constraint)
    x = noise(row, torch.float64, row.limit / 2, row.size).clamp(-row.limit, row.limit).requires_grad_()
    y = t(x)
    real = torch.view_as_real(y) if y.is_complex() else y
    loss = real.sum() + t.log_abs_det_jacobian(x, y).sum()
    (gradient,) = torch.autograd.grad(loss, [x])
    assert gradient.isfinite().all()


def test_an_event_of_zero_is_the_middle():
    torch.testing.assert_close(biject_to(c.simplex)(torch.zeros(3)), torch.full((4,), 0.25))
    torch.testing.assert_close(biject_to(c.interval(2.0, 4.0))(torch.zeros(())), torch.tensor(3.0))
    torch.testing.assert_close(biject_to(c.corr_matrix)(torch.zeros(3)), torch.eye(3))
    torch.testing.assert_close(biject_to(c.positive_definite)(torch.zeros(6)), torch.eye(3))


def test_no_part_changes_nothing():
    for constraint in (c.positive, c.unit_interval, c.simplex, c.real, c.greater_than(0)):
        assert not isinstance(biject_to(constraint), transforms.ComposeTransform)
    assert biject_to(c.real) is transforms.identity_transform


def test_bounds_keep_their_device_and_gradient():
    low = torch.tensor([0.0, 1.0], requires_grad=True)
    y = biject_to(c.interval(low, low + 1))(torch.zeros(2))
    (gradient,) = torch.autograd.grad(y.sum(), [low])
    torch.testing.assert_close(gradient, torch.ones(2))
    meta = biject_to(c.greater_than(torch.zeros(2, device="meta")))(torch.zeros(2, device="meta"))
    assert meta.is_meta and meta.shape == (2,)


class Wedge(constraints.Constraint):
    """Numbers above the constraint's own bound."""

    def __init__(self, bound):
        self.bound = bound

    def check(self, value):
        return value > self.bound


def test_a_new_constraint_takes_three_lines(monkeypatch):
    for registry in (biject_to, transform_to):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    with pytest.raises(
        NotImplementedError, match=r"biject_to does not know .* Wedge(.|\n)*@biject_to.register\(Wedge\)"
    ):
        biject_to(Wedge(1.0))

    @biject_to.register(Wedge)
    @transform_to.register(Wedge)
    def _(constraint):
        return transforms.GreaterThanTransform(constraint.bound)

    class Narrow(Wedge):
        pass

    for constraint in (Wedge(1.0), Narrow(1.0)):
        for registry in (biject_to, transform_to):
            assert constraint.check(registry(constraint)(torch.randn(5))).all()
    assert biject_to(c.independent(Wedge(2.0), 1))(torch.zeros(3)).shape == (3,)


def test_what_torch_was_taught_is_known_here():
    code = (
        "import torch, ppl.distributions as dist\n"
        "from torch.distributions import constraints, transforms\n"
        "class Mine(constraints.Constraint): pass\n"
        "torch.distributions.biject_to.register(Mine, lambda c: transforms.ExpTransform())\n"
        "assert type(dist.biject_to(Mine())) is transforms.ExpTransform\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (c.sphere, "no continuous image"),
        (c.boolean, "is discrete"),
        (c.dependent, "depends on parameters"),
        (c.symmetric, r"@biject_to.register\(_Symmetric\)"),
    ],
)
def test_what_cannot_be_reached_says_why(constraint, message):
    with pytest.raises(NotImplementedError, match=message):
        biject_to(constraint)


def test_only_constraints_are_registered():
    with pytest.raises(TypeError, match="class of constraints"):
        biject_to.register(int, lambda constraint: None)


def test_torchs_own_objects_are_kept():
    for name in (
        "real",
        "positive",
        "unit_interval",
        "simplex",
        "lower_cholesky",
        "real_vector",
        "interval",
        "independent",
    ):
        assert getattr(constraints, name) is getattr(torch.distributions.constraints, name)
    for name in ("cat", "stack", "multinomial"):
        assert issubclass(getattr(constraints, name), getattr(torch.distributions.constraints, name))


def test_the_supports_of_distributions_are_reached():
    for d in (
        dist.Normal(0.0, 1.0),
        dist.Gamma(1.0, 1.0),
        dist.Uniform(torch.tensor(-1.0), 1.0),
        dist.Dirichlet(torch.ones(3)),
    ):
        draw = d.sample()
        t = biject_to(d.support)
        torch.testing.assert_close(t(t.inv(draw)), draw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: c.zero_sum(0), "at least 1"),
        (lambda: c.cat([c.real], 0, [1, 2]), "2 lengths"),
        (lambda: c.cat([c.real], -1, [2]).check(torch.zeros(3)), "must have the size 2"),
        (lambda: c.stack([c.real], -1).check(torch.zeros(3)), "must have the size 1"),
    ],
)
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
