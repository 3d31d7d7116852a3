"""Learnable transforms: inverses, Jacobians, gradients, parameters, contexts, graphs; row by row of `flow_cases`."""

import copy
import pickle

import pytest
import torch
from flow_cases import CONDITIONAL, CONTEXT, FLOWS, shaken
from torch.autograd.functional import jacobian
from torch.fx.experimental.proxy_tensor import make_fx

import ppl.distributions as dist
from ppl.distributions import transforms
from ppl.distributions.transforms import (
    ComposeTransformModule,
    ConditionalComposeTransformModule,
    ConditionalTransformModule,
    TransformModule,
    iterated,
)

EVERY = [*FLOWS, *CONDITIONAL]
every = pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
unconditional = pytest.mark.parametrize("case", FLOWS, ids=lambda case: case.name)
conditional = pytest.mark.parametrize("case", CONDITIONAL, ids=lambda case: case.name)


def build(case, context=None):
    """The transform, at a context if it takes one, remembering nothing."""
    transform = case.random()
    if isinstance(transform, ConditionalTransformModule):
        transform = transform.condition(torch.tensor([0.4, -1.1]) if context is None else context)
    return transform.with_cache(0)


def draw(case, *batch):
    return torch.randn(*batch, *case.event, generator=torch.Generator().manual_seed(1))


def log_det(case, transform, x, y):
    """The log determinant, summed over the event."""
    found = transform.log_abs_det_jacobian(x, y)
    return found.sum(-1) if case.elementwise else found


@every
class TestEach:
    def test_it_moves_points_and_keeps_shapes(self, case):
        transform, x = build(case), draw(case, 2, 5)
        y = transform(x)
        assert y.shape == x.shape
        assert (y - x).abs().max() > 0.02
        assert transform.log_abs_det_jacobian(x, y).shape == (x.shape if case.elementwise else (2, 5))
        assert transform.forward_shape(x.shape) == transform.inverse_shape(x.shape) == x.shape
        assert (
            transform.domain.event_dim == transform.codomain.event_dim == (0 if case.elementwise else len(case.event))
        )
        assert transform.bijective
        for shape in ((), (0,), (3, 1)):
            assert transform(draw(case, *shape)).shape == shape + case.event
            assert transform.inv(draw(case, *shape)).shape == shape + case.event

    def test_it_is_undone(self, case):
        transform, x = build(case), draw(case, 20)
        y = transform(x)
        again = transform.inv(y)
        # rounding in y grows by the inverse of the smallest slope
        slopes = torch.stack([torch.linalg.svdvals(flat_jacobian(transform, row))[-1] for row in x])
        loss = (again - x).flatten(1).abs().amax(1) * slopes.clamp_max(1)
        assert loss.max() < 1e-12 * (1 + y.abs().max())
        assert torch.allclose(transform(again), y, rtol=1e-10, atol=1e-10)

    def test_the_jacobian(self, case):
        transform, x = build(case), 1.5 * draw(case, 6)
        y = transform(x)
        expected = torch.stack([torch.linalg.slogdet(flat_jacobian(transform, row))[1] for row in x])
        assert torch.allclose(log_det(case, transform, x, y), expected, rtol=1e-9, atol=1e-9)
        assert torch.allclose(log_det(case, transform.inv, y, x), -expected, rtol=1e-9, atol=1e-9)
        found = transform._inverse_and_log_det(y)[1]
        found = found.sum(-1) if case.elementwise else found
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7)

    def test_the_jacobian_of_the_inverse(self, case):
        """What the inverse gives is differentiable in y, also where it was searched for."""
        transform, x = build(case), draw(case, 3)
        y = transform(x).detach()
        forward = torch.stack([flat_jacobian(transform, row) for row in x])
        inverse = torch.stack([flat_jacobian(transform.inv, row) for row in y])
        eye = torch.eye(forward.shape[-1])
        assert torch.allclose(forward @ inverse, eye.expand_as(forward), atol=1e-7)

    def test_gradients_of_a_density(self, case):
        """In the value and in every parameter, against finite differences."""
        transform = build(case)
        y = transform(draw(case, 3)).detach()
        leaves = leaves_of(transform)
        reals = [y.requires_grad_(), *leaves]

        def density(*_):
            x, found = transform._inverse_and_log_det(y)
            found = found.sum(-1) if case.elementwise else found
            return -0.5 * (x * x).flatten(1).sum(-1) - found

        torch.manual_seed(2)
        grads = torch.autograd.grad(density().sum(), reals, allow_unused=True)
        for value, grad in zip(reals, grads, strict=True):
            direction = torch.randn_like(value)
            slope = 0.0 if grad is None else (grad * direction).sum()
            assert slope == pytest.approx(derivative(density, value, direction), rel=1e-5, abs=1e-5)

    def test_float32(self, case):
        transform, x = build(case), draw(case, 7)
        y, found = transform(x), log_det(case, transform, x, transform(x))
        single = in_single(transform)
        y32 = single(x.float())
        assert y32.dtype == torch.float32
        assert torch.allclose(y32.double(), y, rtol=1e-4, atol=1e-4 * (1 + y.abs().max().item()))
        found32 = log_det(case, single, x.float(), y32)
        assert found32.dtype == torch.float32
        assert torch.allclose(found32.double(), found, rtol=1e-3, atol=1e-3)
        again = single.inv(y32)
        assert again.dtype == torch.float32
        assert torch.allclose(single(again), y32, rtol=1e-3, atol=1e-4 * (1 + y.abs().max().item()))

    def test_it_becomes_a_graph(self, case):
        transform, x = build(case), draw(case, 4)
        y = transform(x).detach()

        def program(x, y):
            again, found = transform._inverse_and_log_det(y)
            return transform(x), again, found, transform.log_abs_det_jacobian(x, y)

        graph = make_fx(program)(torch.zeros_like(x), torch.zeros_like(y))
        for got, expected in zip(graph(x, y), program(x, y), strict=True):
            assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)

    def test_vmap(self, case):
        transform, x = build(case), draw(case, 4)
        y = transform(x).detach()
        assert torch.allclose(torch.vmap(transform)(x), y, rtol=1e-9, atol=1e-9)
        assert torch.allclose(torch.vmap(transform.inv)(y), transform.inv(y), rtol=1e-7, atol=1e-7)
        assert torch.allclose(
            torch.vmap(transform.log_abs_det_jacobian)(x, y), transform.log_abs_det_jacobian(x, y), rtol=1e-9, atol=1e-9
        )

    def test_it_pickles_and_copies(self, case):
        transform, x = case.random(), draw(case, 2)
        context = torch.randn(CONTEXT)
        for other in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
            mine, theirs = transform, other
            if isinstance(transform, ConditionalTransformModule):
                mine, theirs = transform.condition(context), other.condition(context)
            assert torch.equal(mine(x), theirs(x))
            assert not {id(p) for p in transform.parameters()} & {id(p) for p in other.parameters()}

    def test_its_parameters_are_found_and_saved(self, case):
        transform, x = case.random(), draw(case, 2)
        context = torch.randn(CONTEXT)
        is_conditional = isinstance(transform, ConditionalTransformModule)
        y = (transform.condition(context) if is_conditional else transform)(x)
        grads = torch.autograd.grad((y * torch.randn_like(y)).sum(), list(transform.parameters()), allow_unused=True)
        assert sum(g is not None for g in grads) >= 0.5 * len(grads) > 0
        torch.manual_seed(7)
        other = case.build().eval()
        other.load_state_dict(transform.state_dict())
        assert torch.equal((other.condition(context) if is_conditional else other)(x), y)

    def test_starts_near_the_identity(self, case):
        torch.manual_seed(3)
        transform, x = case.build().eval(), draw(case, 50)
        if "permute" in case.name or "block" in case.name or "householder" in case.name:
            pytest.skip("starts as a random rotation, permutation or network")
        if isinstance(transform, ConditionalTransformModule):
            transform = transform.condition(torch.randn(CONTEXT))
        if "stable" not in case.name:
            assert (transform(x) - x).abs().max() < (1.2 if "neural" in case.name or "polynomial" in case.name else 0.3)


def flat_jacobian(transform, x):
    return jacobian(transform, x).reshape(x.numel(), x.numel())


def leaves_of(transform):
    """The parameters, or what was made from a context, as leaves that can be changed in place."""
    if isinstance(transform, TransformModule):
        return list(transform.parameters())
    found = {name: value for name, value in vars(transform).items() if torch.is_tensor(value) and value.requires_grad}
    for name, value in found.items():
        setattr(transform, name, value.detach().clone().requires_grad_())
    return [getattr(transform, name) for name in found]


def derivative(fn, value, direction, step=1e-6):
    with torch.no_grad():
        start = value.clone()
        value.copy_(start + step * direction)
        high = fn().sum()
        value.copy_(start - step * direction)
        low = fn().sum()
        value.copy_(start)
    return ((high - low) / (2 * step)).item()


def in_single(transform):
    if isinstance(transform, TransformModule):
        other = copy.deepcopy(transform).float()
        if getattr(other, "context", None) is not None:
            other.context = other.context.float()
        return other
    other = copy.copy(transform)
    for name, value in vars(transform).items():
        if torch.is_tensor(value) and value.is_floating_point():
            setattr(other, name, value.detach().float())
    return other


@conditional
def test_a_conditional_twin_is_the_unconditional_transform_of_its_context(case):
    """Entry by entry of a batch of contexts, and of the batch as a whole."""
    twin = case.random()
    contexts, x = torch.randn(4, CONTEXT), draw(case, 4)
    whole = twin.condition(contexts)
    rows = [twin.condition(context) for context in contexts]
    y = whole(x)
    assert torch.allclose(y, torch.stack([row(one) for row, one in zip(rows, x, strict=True)]))
    found = torch.stack([row.log_abs_det_jacobian(a, b) for row, a, b in zip(rows, x, y, strict=True)])
    assert torch.allclose(whole.log_abs_det_jacobian(x, y), found)
    assert torch.allclose(whole.inv(y.detach()), x, atol=1e-6)
    assert not torch.allclose(rows[0](x), rows[1](x))
    assert whole.domain.event_dim == twin.domain.event_dim
    many = twin.condition(contexts[:, None])  # contexts broadcast against values
    assert torch.allclose(many(x)[2], rows[2](x))
    assert torch.allclose(many.inv(x)[2], rows[2].inv(x), atol=1e-9)


@pytest.mark.parametrize(
    ("twin", "plain", "fields"),
    [
        ("conditional_planar", "planar", ("bias", "u", "w")),
        ("conditional_radial", "radial", ("x0", "alpha_prime", "beta_prime")),
        ("conditional_matrix_exponential", "matrix_exponential", ("weights",)),
        ("conditional_householder", "householder", ("u_unnormed",)),
    ],
)
def test_a_twin_at_a_context_equals_the_transform_with_those_parameters(twin, plain, fields):
    at = shaken(getattr(transforms, twin)(3, CONTEXT), 0.4).condition(torch.randn(CONTEXT))
    options = {"count_transforms": 1} if plain == "householder" else {}
    transform = getattr(transforms, plain)(3, **options)
    transform.load_state_dict({name: getattr(at, name).detach() for name in fields})
    x = torch.randn(5, 3)
    assert torch.allclose(transform(x), at(x))
    assert torch.allclose(transform.inv(x), at.inv(x))
    assert torch.allclose(transform.log_abs_det_jacobian(x, at(x)), at.log_abs_det_jacobian(x, at(x)))


@pytest.mark.parametrize("repeats", [1, 3])
def test_iterated(repeats):
    flow = iterated(repeats, transforms.affine_autoregressive, 3, [5], stable=True)
    assert isinstance(flow, ComposeTransformModule) and len(flow.parts) == repeats
    assert len(list(flow.parameters())) == 4 * repeats
    shaken(flow, 0.3)
    x = torch.randn(7, 3)
    assert torch.allclose(flow.inv(flow(x).detach()), x)
    twin = iterated(repeats, transforms.conditional_affine_autoregressive, 3, 2, [5])
    assert isinstance(twin, ConditionalComposeTransformModule)
    assert len(list(twin.parameters())) == 4 * repeats
    assert twin.condition(torch.randn(7, 2))(x).shape == (7, 3)
    with pytest.raises(ValueError, match="repeats"):
        iterated(0, transforms.planar, 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("affine_autoregressive", {}),
        ("neural_autoregressive", {}),
        ("block_autoregressive", {}),
        ("block_autoregressive", {"residual": "gated"}),
        ("spline_autoregressive", {}),
        ("affine_coupling", {}),
        ("spline_coupling", {"order": "quadratic"}),
        ("spline", {}),
        ("planar", {}),
        ("radial", {}),
        ("sylvester", {}),
        ("householder", {}),
        ("polynomial", {}),
        ("matrix_exponential", {}),
        ("batchnorm", {}),
    ],
)
def test_densities_integrate_to_one(name, options):
    """By a sum over a grid of the plane; of the line for two that make steep peaks. No value is a draw of ours."""
    torch.manual_seed(5)
    dim = 1 if name == "polynomial" or (name == "block_autoregressive" and not options) else 2
    flow = shaken(getattr(transforms, name)(dim, **options), 0.15).eval()
    d = dist.TransformedDistribution(dist.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1), [flow])
    size = 4001 if dim == 1 else 61 if name in ("block_autoregressive", "neural_autoregressive") else 301
    with torch.no_grad():
        draws = d.sample((20_000,))
        margin = 0.1 * (draws.amax(0) - draws.amin(0))
        low, high = draws.amin(0) - margin, draws.amax(0) + margin
        sides = [torch.linspace(a, b, size) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        density = d.log_prob(torch.cartesian_prod(*sides).reshape(-1, dim)).exp()
    assert not density.isnan().any()
    assert density.sum() * ((high - low) / (size - 1)).prod() == pytest.approx(1, abs=1e-2)


def test_a_bounded_network_has_no_density_beyond_its_image():
    flow = transforms.block_autoregressive(2)
    d = dist.TransformedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1), [flow])
    far = torch.tensor([[1e3, 0.0], [0.0, -1e3], [-50.0, 1e3]])
    assert (d.log_prob(far) == -torch.inf).all()
    assert flow.inv(far)[0, 0] == torch.inf and flow.inv(far)[1, 1] == -torch.inf
    assert d.log_prob(d.sample((5,))).isfinite().all()


def test_fitting_beats_a_normal_on_held_out_data():
    """A crescent, which a normal with full covariance cannot follow."""
    torch.manual_seed(0)
    noise = torch.randn(600, 2)
    data = torch.stack([noise[:, 0], 0.7 * (noise[:, 0] ** 2 - 1) + 0.3 * noise[:, 1]], -1)
    train, test = data[:300], data[300:]
    flow = ComposeTransformModule(
        [
            transforms.spline_coupling(2, hidden_dims=[16], bound=4.0),
            transforms.Permute(torch.tensor([1, 0])),
            transforms.spline_coupling(2, hidden_dims=[16], bound=4.0),
        ]
    )
    d = dist.TransformedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)), [flow])
    adam = torch.optim.Adam(flow.parameters(), lr=0.01)
    for _ in range(300):
        adam.zero_grad()
        loss = -d.log_prob(train).mean()
        loss.backward()
        adam.step()
    normal = dist.MultivariateNormal(train.mean(0), train.T.cov())
    assert d.log_prob(test).mean() > normal.log_prob(test).mean() + 0.3


class TestBatchNorm:
    def test_training_standardises_the_batch_and_moves_the_statistics(self):
        t = transforms.BatchNorm(3, momentum=0.25).train()
        y = 4 + 2 * torch.randn(50, 2, 3)
        x = t.inv(y)
        rows = x.reshape(-1, 3)
        assert torch.allclose(rows.mean(0), torch.zeros(3), atol=1e-12)
        assert torch.allclose(rows.var(0, correction=0), torch.ones(3), atol=1e-4)
        assert torch.allclose(t.moving_mean, 0.25 * y.reshape(-1, 3).mean(0))
        assert torch.allclose(t.moving_variance, 0.75 + 0.25 * y.reshape(-1, 3).var(0, correction=0))
        expected = 0.5 * (y.reshape(-1, 3).var(0, correction=0) + 1e-5).log()
        assert torch.allclose(t.log_abs_det_jacobian(x, y), expected.expand(50, 2, 3))
        # and if nothing was remembered
        assert torch.allclose(t.log_abs_det_jacobian(x.clone(), y.clone()), expected.expand(50, 2, 3))

    def test_evaluation_uses_the_moving_statistics_and_leaves_them(self):
        t = shaken(transforms.BatchNorm(3), 0.3).eval()
        before = t.moving_mean.clone()
        y = torch.randn(5, 3)
        expected = (y - t.moving_mean) * t.gamma / (t.moving_variance + t.epsilon).sqrt() + t.beta
        assert torch.allclose(t.inv(y), expected)
        assert torch.allclose(t(t.inv(y).clone()), y)
        assert torch.equal(t.moving_mean, before)

    def test_one_row_cannot_be_trained_on(self):
        with pytest.raises(ValueError, match=r"two rows.*eval"):
            transforms.BatchNorm(2).inv(torch.zeros(1, 2))


class TestSplines:
    @pytest.mark.parametrize("order", ["linear", "quadratic"])
    def test_smooth_at_the_bound_and_the_identity_beyond(self, order):
        t = shaken(transforms.Spline(1, order=order, bound=2.0), 0.5)
        for edge in (-2.0, 2.0):
            near = torch.tensor([[edge - 1e-9], [edge], [edge + 1e-9]])
            assert torch.allclose(t(near), near, atol=1e-8)
            assert torch.allclose(t.log_abs_det_jacobian(near, t(near)), torch.zeros(3, 1), atol=1e-6)
        far = torch.tensor([[-1e6], [-2.5], [2.5], [torch.inf]])
        assert torch.equal(t(far), far) and torch.equal(t.inv(far), far)
        assert torch.equal(t.log_abs_det_jacobian(far, far), torch.zeros(4, 1))

    @pytest.mark.parametrize("order", ["linear", "quadratic"])
    def test_the_slope_is_continuous_and_positive_at_every_knot(self, order):
        t = shaken(transforms.Spline(2, order=order), 0.4)
        x = torch.linspace(-3, 3, 20001)[:, None].expand(-1, 2)
        slope = t.log_abs_det_jacobian(x, t(x)).exp()
        assert (slope > 0).all()
        steps = (t(x)[1:] - t(x)[:-1]) / (x[1:] - x[:-1])
        assert torch.allclose(steps, 0.5 * (slope[1:] + slope[:-1]), rtol=0.05, atol=5e-3)

    def test_bad_options(self):
        with pytest.raises(ValueError, match="order must be"):
            transforms.Spline(2, order="cubic")
        with pytest.raises(ValueError, match="count_bins"):
            transforms.Spline(2, count_bins=0)
        with pytest.raises(ValueError, match="bound"):
            transforms.Spline(2, bound=-1.0)


def test_what_is_remembered_spares_the_inverse_and_yields_to_a_step():
    flow = transforms.affine_autoregressive(3)
    d = dist.TransformedDistribution(dist.Normal(torch.zeros(3), torch.ones(3)), [flow])
    calls = []
    flow.autoregressive_nn.register_forward_hook(lambda *_: calls.append(1))
    z = d.rsample((4,))
    d.log_prob(z)
    assert len(calls) == 1
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1
    expected = dist.TransformedDistribution(d.base_dist, [flow.with_cache(0)]).log_prob(z.detach())
    assert torch.allclose(d.log_prob(z), expected)
    assert len(calls) > 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: transforms.affine_autoregressive(5, [3]), "too small for 5 variables"),
        (lambda: transforms.affine_coupling(1), "two parts"),
        (lambda: transforms.affine_coupling(4, dim=-2), "event shape of 2 dims"),
        (lambda: transforms.BlockAutoregressive(2, activation="relu"), "activation must be"),
        (lambda: transforms.BlockAutoregressive(2, residual="full"), "residual must be"),
        (lambda: transforms.neural_autoregressive(2, activation="relu"), "activation must be"),
        (lambda: transforms.MatrixExponential(2, normalization="weight"), "needs a positive bound"),
        (lambda: transforms.Householder(2, 0), "count_transforms"),
        (lambda: transforms.GeneralizedChannelPermute(3, torch.tensor([0, 1, 1])), "0 to 2 once each"),
        (lambda: transforms.affine_autoregressive(3)(torch.zeros(4)), "last dim must be 3"),
        (lambda: transforms.conditional_planar(3, 2).condition(torch.zeros(5)), "last dim must be 2"),
    ],
)
def test_errors_name_the_fix(make, words):
    with pytest.raises(ValueError, match=words):
        make()
