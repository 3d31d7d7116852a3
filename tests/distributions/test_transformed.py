"""TransformedDistribution: shapes, densities, supports, moments and bases of every kind."""

import copy
import pickle

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from transform_cases import Scale

import ppl
import ppl.distributions as dist
from ppl.distributions import biject_to, constraints, transforms


def log_normal(**kwargs):
    return dist.TransformedDistribution(
        dist.Normal(torch.tensor([0.5, -1.0]), 2.0), transforms.ExpTransform(), **kwargs
    )


def test_a_single_transform_needs_no_list():
    d = log_normal()
    x = d.sample((3,))
    torch.testing.assert_close(d.log_prob(x), dist.LogNormal(torch.tensor([0.5, -1.0]), 2.0).log_prob(x))
    assert d.batch_shape == (2,) and d.event_shape == ()


class TestShapes:
    def test_a_transform_of_vectors_makes_batch_dims_event_dims(self):
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(5, 3), 1.0), transforms.StickBreakingTransform())
        assert d.batch_shape == (5,) and d.event_shape == (4,)
        x = d.rsample((7,))
        assert x.shape == (7, 5, 4) and d.log_prob(x).shape == (7, 5)

    def test_a_transform_that_adds_an_event_dim(self):
        d = dist.TransformedDistribution(
            dist.Normal(torch.zeros(2, 3), 1.0).to_event(1), transforms.CorrCholeskyTransform()
        )
        assert d.batch_shape == (2,) and d.event_shape == (3, 3)
        assert d.log_prob(d.sample((4,))).shape == (4, 2)

    def test_a_transform_that_removes_an_event_dim(self):
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(4, 2), 1.0), transforms.ComplexTransform())
        assert d.batch_shape == (4,) and d.event_shape == ()
        z = d.sample((3,))
        assert z.is_complex() and d.log_prob(z).shape == (3, 4)

    def test_an_elementwise_transform_of_vectors(self):
        d = dist.TransformedDistribution(dist.Dirichlet(torch.ones(2, 3)), transforms.AffineTransform(0.0, 2.0))
        assert d.batch_shape == (2,) and d.event_shape == (3,)
        x = 2 * torch.tensor([0.2, 0.3, 0.5])
        expected = dist.Dirichlet(torch.ones(3)).log_prob(x / 2) - 3 * torch.tensor(2.0).log()
        torch.testing.assert_close(d.log_prob(x.expand(2, 3)), expected.expand(2), check_stride=False)

    def test_parameters_of_transforms_expand_the_base(self):
        shift = transforms.AffineTransform(torch.zeros(4, 1), torch.ones(3))
        d = dist.TransformedDistribution(dist.Normal(0.0, 1.0), shift)
        assert d.batch_shape == (4, 3)
        x = d.sample()
        assert len(x.unique()) == 12

    @pytest.mark.parametrize("batch", [(2,), (5, 2), (0, 2)])
    def test_expand(self, batch):
        d = log_normal().expand(batch)
        assert isinstance(d, dist.TransformedDistribution)
        assert d.batch_shape == batch and d.sample((3,)).shape == (3, *batch)
        x = d.sample()
        torch.testing.assert_close(d.log_prob(x), log_normal().log_prob(x))

    def test_expand_of_vectors(self):
        base = dist.Normal(torch.zeros(3), 1.0)
        d = dist.TransformedDistribution(base, [transforms.StickBreakingTransform()]).expand((2, 5))
        assert d.sample().shape == (2, 5, 4) and d.log_prob(d.sample((7,))).shape == (7, 2, 5)

    def test_wrappers(self):
        d = log_normal().to_event(1).mask(torch.tensor(True)).expand((3,))
        assert d.log_prob(d.sample()).shape == (3,)

    def test_too_few_dims(self):
        with pytest.raises(ValueError, match="take events of 1 dims, but Normal has the batch shape"):
            dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.StickBreakingTransform())

    def test_no_transform(self):
        with pytest.raises(ValueError, match="must be a transform or a list of them, but got a function"):
            dist.TransformedDistribution(dist.Normal(0.0, 1.0), [torch.exp and (lambda x: x)])


class TestSupport:
    @pytest.mark.parametrize(
        ("base", "parts", "expected"),
        [
            (dist.HalfNormal(1.0), [transforms.AffineTransform(1.0, 2.0)], constraints.greater_than_eq(1.0)),
            (dist.Gamma(1.0, 1.0), [transforms.AffineTransform(1.0, -2.0)], constraints.less_than(1.0)),
            (dist.Beta(1.0, 1.0), [transforms.AffineTransform(-1.0, 2.0)], constraints.interval(-1.0, 1.0)),
            (dist.Uniform(0.0, 1.0), [transforms.SigmoidTransform().inv], constraints.real),
            (dist.Uniform(0.0, 2.0), [transforms.ExpTransform().inv], constraints.less_than(torch.tensor(2.0).log())),
            (dist.Normal(0.0, 1.0), [transforms.ExpTransform()], constraints.positive),
            (
                dist.Normal(0.0, 1.0),
                [transforms.ExpTransform(), transforms.AffineTransform(3.0, 1.0)],
                constraints.greater_than(3.0),
            ),
        ],
    )
    def test_follows_the_transforms(self, base, parts, expected):
        d = dist.TransformedDistribution(base, parts)
        got = d.support
        assert type(got) is type(expected)
        for name, bound in vars(expected).items():
            assert torch.as_tensor(getattr(got, name)) == pytest.approx(float(bound))
        draws = d.sample((100,))
        assert got.check(draws).all()
        t = biject_to(got)
        torch.testing.assert_close(t(t.inv(draws)), draws)

    def test_of_events(self):
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(2, 3), 1.0).to_event(2), transforms.ExpTransform())
        assert d.support.event_dim == 2 and d.event_shape == (2, 3)
        assert not d.support.check(-torch.ones(2, 3))

    def test_values_outside(self):
        with pytest.raises(ValueError, match="TransformedDistribution: the value must lie in the support positive"):
            log_normal().log_prob(torch.tensor(-1.0))
        with dist.validation_enabled(False):
            d = log_normal()
        assert (d.log_prob(torch.tensor(-1.0)) == -torch.inf).all()
        d = dist.TransformedDistribution(
            dist.HalfNormal(1.0, validate_args=False), transforms.AffineTransform(1.0, 2.0), validate_args=False
        )
        assert d.log_prob(torch.tensor(0.0)) == -torch.inf


class TestDistributionFunctions:
    @pytest.mark.parametrize("scale", [2.0, -2.0, torch.tensor([2.0, -2.0])])
    def test_cdf_and_icdf(self, scale):
        d = dist.TransformedDistribution(dist.Gumbel(torch.zeros(2), 1.0), transforms.AffineTransform(1.0, scale))
        p = torch.tensor([[1e-6], [0.1], [0.5], [0.9]]).expand(4, 2)
        x = d.icdf(p)
        torch.testing.assert_close(d.cdf(x), p, rtol=1e-6, atol=1e-12)
        assert (x.diff(dim=0) > 0).all()
        draws = d.sample((4000,))
        torch.testing.assert_close((draws < x[2]).double().mean(0), torch.full((2,), 0.5), atol=0.03, rtol=0.0)

    def test_outside_the_support(self):
        d = log_normal()
        torch.testing.assert_close(d.cdf(torch.tensor([-1.0, 0.0])), torch.zeros(2))
        assert d.cdf(torch.tensor(torch.inf)).eq(1).all()

    def test_of_vectors_there_is_none(self):
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), transforms.StickBreakingTransform())
        with pytest.raises(NotImplementedError, match="only a distribution of numbers"):
            d.cdf(torch.full((4,), 0.25))

    def test_of_what_is_not_monotone_there_is_none(self):
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), transforms.AbsTransform())
        with pytest.raises(NotImplementedError, match="not known to be monotone"):
            d.cdf(torch.ones(3))


class TestMoments:
    def test_of_affine_images(self):
        base = dist.Gamma(torch.tensor([2.0, 3.0]), 1.5)
        parts = [transforms.AffineTransform(1.0, -2.0), transforms.AffineTransform(torch.tensor([0.5, 1.0]), 3.0)]
        d = dist.TransformedDistribution(base, parts)
        torch.testing.assert_close(d.mean, torch.tensor([0.5, 1.0]) + 3 * (1 - 2 * base.mean))
        torch.testing.assert_close(d.variance, 36 * base.variance)
        torch.testing.assert_close(d.entropy(), base.entropy() + torch.tensor(6.0).log())
        torch.testing.assert_close(d.to_event(1).entropy(), d.entropy().sum())

    def test_of_others_there_are_none(self):
        for what in (lambda: log_normal().mean, lambda: log_normal().variance, lambda: log_normal().entropy()):
            with pytest.raises(NotImplementedError, match="no closed form, except after affine maps"):
                what()


class TestBases:
    def test_foreign_ones(self):
        base = torch.distributions.Normal(torch.zeros(2), 1.0)
        d = dist.TransformedDistribution(base, [transforms.ExpTransform()])
        assert isinstance(d.base_dist, dist.Distribution)
        assert d.expand((3, 2)).sample().shape == (3, 2)

    def test_those_without_reparametrised_draws(self):
        base = dist.Normal(torch.zeros(2), 1.0).has_rsample_(False)
        d = dist.TransformedDistribution(base, [transforms.ExpTransform()])
        assert not d.has_rsample
        forced = log_normal().has_rsample_(False)
        assert not forced.has_rsample and not forced.expand((3, 2)).has_rsample
        x = forced.sample()
        parts = forced.score_parts(x)
        torch.testing.assert_close(parts.score_function, forced.log_prob(x))

    def test_no_enumeration(self):
        d = dist.TransformedDistribution(dist.Bernoulli(torch.tensor([0.5])), [transforms.AffineTransform(1.0, 2.0)])
        assert not d.has_enumerate_support

    def test_torch_transforms(self):
        d = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [torch.distributions.transforms.ExpTransform()])
        torch.testing.assert_close(d.log_prob(torch.tensor(2.0)), dist.LogNormal(0.0, 1.0).log_prob(torch.tensor(2.0)))


class TestLearning:
    def test_density_and_draw_of_a_module_share_its_cache(self):
        t = Scale()
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [t])
        x = d.rsample()
        gradients = torch.autograd.grad(d.log_prob(x).sum(), [t.log_scale])
        torch.testing.assert_close(gradients[0], torch.tensor(-2.0))
        assert d.log_prob(x.detach()).requires_grad

    def test_a_score_function_gradient_sees_the_inverse(self):
        t = Scale()
        d = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [t])
        x = d.sample()
        (got,) = torch.autograd.grad(d.log_prob(x).sum(), [t.log_scale])
        scaled = x * (-t.log_scale).exp().detach()
        torch.testing.assert_close(got, (scaled**2 - 1).sum())

    def test_a_program_registers_the_transform(self):
        t = Scale()

        def model():
            ppl.module("flow", t)
            ppl.sample("x", dist.TransformedDistribution(dist.Normal(0.0, 1.0), [t]))

        with ppl.ParamStore() as store, ppl.handlers.trace():
            model()
        assert store.keys() == ["flow$$$log_scale"] or [name for name in store if "log_scale" in name]

    def test_captured_as_a_graph(self):
        t = Scale()

        def run(x, log_scale):
            def density(x):
                d = dist.TransformedDistribution(
                    dist.Normal(torch.zeros(2), 1.0, validate_args=False),
                    [t, transforms.ExpTransform()],
                    validate_args=False,
                )
                return d.log_prob(x)

            del log_scale
            return density(x)

        x = torch.tensor([0.5, 2.0])
        graph = make_fx(run)(x, t.log_scale)
        torch.testing.assert_close(graph(2 * x, t.log_scale), run(2 * x, t.log_scale))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize(
    "parts",
    [
        lambda: [transforms.SigmoidTransform().inv],
        lambda: [
            transforms.ComposeTransform([transforms.AffineTransform(0.5, 0.1), transforms.SigmoidTransform().inv])
        ],
        lambda: [Scale().inv],
    ],
)
def test_pickles_with_inverse_transforms(parts, copier):
    d = dist.TransformedDistribution(dist.Uniform(torch.zeros(2), 1.0), parts())
    x = d.sample()
    other = copier(d)
    torch.testing.assert_close(other.log_prob(x), d.log_prob(x))
    assert other.event_shape == d.event_shape


def test_shapes_are_not_inferred():
    with pytest.raises(ValueError, match="build one and read them"):
        dist.TransformedDistribution.infer_shapes(base_distribution=())


def test_kl_of_two_by_the_same_transform():
    p, q = (
        dist.TransformedDistribution(dist.Normal(torch.zeros(2), scale), [transforms.ExpTransform()])
        for scale in (1.0, 2.0)
    )
    expected = dist.kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(0.0, 2.0))
    torch.testing.assert_close(dist.kl_divergence(p, q), expected.expand(2))
