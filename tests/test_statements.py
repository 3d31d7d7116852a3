"""The statements: what each means without handlers, and what it refuses."""

import random

import numpy
import pytest
import scipy.stats
import torch
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl import handlers


def log_density(model, *args):
    return handlers.trace(model).get_trace(*args).log_prob_sum()


# -- sample


def test_outside_any_handler_sample_draws():
    draws = torch.stack([ppl.sample("x", dist.Normal(3.0, 0.5)) for _ in range(2000)])
    assert abs(draws.mean().item() - 3.0) < 4 * 0.5 / 2000**0.5
    assert abs(draws.std().item() - 0.5) < 4 * 0.5 / (2 * 2000) ** 0.5


def test_obs_is_returned_and_counted():
    obs = torch.tensor([0.5, -1.0])
    assert ppl.sample("x", dist.Normal(0.0, 1.0), obs=obs) is obs
    tr = handlers.trace(lambda: ppl.sample("x", dist.Normal(0.3, 2.0), obs=obs)).get_trace()
    expected = scipy.stats.norm(0.3, 2.0).logpdf([0.5, -1.0]).sum()
    assert tr.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)
    assert tr["x"].observed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_stays_in_the_precision_of_its_data(dtype):
    torch.set_default_dtype(dtype)
    obs = torch.tensor([1.0, 2.0], dtype=dtype)

    def model():
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        scale = ppl.param("scale", torch.tensor(2.0, dtype=dtype), constraint=constraints.positive)
        with ppl.plate("data", 2):
            ppl.sample("obs", dist.Normal(mean, scale), obs=obs)

    tr = handlers.trace(model).get_trace()
    assert {site.tensor.dtype for site in tr.nodes.values() if site.kind != "plate"} == {dtype}
    assert tr.log_prob_sum().dtype == dtype
    mean = tr["mean"].tensor.item()
    expected = scipy.stats.norm.logpdf(mean) + scipy.stats.norm.logpdf([1.0, 2.0], mean, 2.0).sum()
    assert tr.log_prob_sum().item() == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-12)


def test_a_torch_distribution_is_used_as_it_is():
    tr = handlers.trace(lambda: ppl.sample("x", torch.distributions.Gamma(2.0, 3.0), obs=torch.tensor(0.7))).get_trace()
    assert isinstance(tr["x"].fn, torch.distributions.Gamma)
    assert tr.log_prob_sum().item() == pytest.approx(scipy.stats.gamma(2.0, scale=1 / 3).logpdf(0.7), rel=1e-12)


class Triangle(torch.distributions.Distribution):
    """A user's own: density 2x/c² on [0, c], without any expand."""

    arg_constraints = {"c": constraints.positive}
    support = constraints.positive

    def __init__(self, c):
        self.c = torch.as_tensor(c)
        super().__init__(self.c.shape)

    def sample(self, sample_shape=()):
        return self.c * torch.rand((*sample_shape, *self.c.shape)).sqrt()

    def log_prob(self, value):
        return (2 * value / self.c**2).log()


class ExpandingTriangle(Triangle):
    def expand(self, batch_shape, _instance=None):
        return ExpandingTriangle(self.c.expand(batch_shape))


@pytest.mark.parametrize("cls", [Triangle, ExpandingTriangle])
def test_a_users_own_distribution_works_in_a_plate_with_and_without_expand(cls):
    def model(obs=None):
        with ppl.plate("data", 400):
            return ppl.sample("x", cls(torch.tensor(3.0)), obs=obs)

    tr = handlers.trace(model).get_trace()
    draw = tr["x"].tensor
    assert draw.shape == (400,) and len(set(draw.tolist())) == 400
    assert abs(draw.mean().item() - 2.0) < 4 * (0.5 / 400) ** 0.5  # mean 2c/3, variance c²/18
    assert tr.log_prob("x").shape == (400,)
    assert tr.log_prob_sum().item() == pytest.approx((2 * draw / 9).log().sum().item(), rel=1e-12)
    assert log_density(model, torch.full((400,), 1.5)).item() == pytest.approx(400 * numpy.log(3 / 9), rel=1e-12)


def test_a_users_distribution_without_support_can_be_masked():
    class Bare(torch.distributions.Distribution):
        arg_constraints = {}

        def __init__(self):
            super().__init__(validate_args=False)

        def log_prob(self, value):
            return -value.abs()

    def model():
        with ppl.plate("data", 2), handlers.mask(mask=torch.tensor([True, False])):
            ppl.sample("x", Bare(), obs=torch.tensor([2.0, torch.nan]))

    assert log_density(model).item() == -2.0


# -- obs_mask


OBS = torch.tensor([1.0, torch.nan, 3.0, torch.nan])
SEEN = torch.tensor([True, False, True, False])


def test_obs_mask_imputes_the_missing_entries_and_keeps_the_others():
    def model():
        with ppl.plate("data", 4):
            return ppl.sample("x", dist.Normal(10.0, 2.0), obs=OBS, obs_mask=SEEN)

    tr = handlers.trace(model).get_trace()
    filled = tr.returned
    assert list(tr.nodes) == ["data", "x_unobserved", "x_observed", "x"]
    assert filled[SEEN].tolist() == [1.0, 3.0]
    assert torch.equal(filled[~SEEN], tr["x_unobserved"].tensor[~SEEN])
    assert torch.equal(tr["x"].tensor, filled)
    assert torch.equal(tr["x_observed"].tensor, filled)  # no NaN for whoever reads it
    density = scipy.stats.norm(10.0, 2.0)
    assert tr.log_prob("x_observed").sum().item() == pytest.approx(density.logpdf([1.0, 3.0]).sum(), rel=1e-12)
    expected = density.logpdf(filled[~SEEN].numpy()).sum()
    assert tr.log_prob("x_unobserved").sum().item() == pytest.approx(expected, rel=1e-12)


def test_nan_under_obs_mask_reaches_neither_density_nor_gradients():
    loc = torch.tensor(0.5, requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)

    def model():
        with ppl.plate("data", 4):
            ppl.sample("x", dist.Normal(loc, scale), obs=OBS, obs_mask=SEEN)

    total = handlers.trace(model).get_trace().log_prob("x_observed").sum()
    d_loc, d_scale = torch.autograd.grad(total, [loc, scale])
    residuals = torch.tensor([0.5, 2.5])
    assert total.item() == pytest.approx(scipy.stats.norm(0.5, 2.0).logpdf([1.0, 3.0]).sum(), rel=1e-12)
    assert d_loc.item() == pytest.approx((residuals / 4).sum().item(), rel=1e-12)
    assert d_scale.item() == pytest.approx((residuals**2 / 8 - 0.5).sum().item(), rel=1e-12)


def test_obs_mask_marks_whole_draws_of_a_multivariate_site():
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    obs = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [0.0, -1.0]])
    mask = torch.tensor([True, False, True])
    loc = torch.zeros(2, requires_grad=True)

    def model():
        with ppl.plate("data", 3):
            return ppl.sample("x", dist.MultivariateNormal(loc, covariance), obs=obs, obs_mask=mask)

    tr = handlers.trace(model).get_trace()
    assert torch.equal(tr.returned[mask], obs[mask]) and tr.returned.isfinite().all()
    reference = scipy.stats.multivariate_normal(numpy.zeros(2), covariance.numpy())
    total = tr.log_prob("x_observed").sum()
    assert total.item() == pytest.approx(reference.logpdf(obs[mask].numpy()).sum(), rel=1e-10)
    (gradient,) = torch.autograd.grad(total, loc)
    torch.testing.assert_close(gradient, covariance.inverse() @ obs[mask].sum(0))


def test_obs_mask_broadcasts_along_outer_plates():
    obs = torch.arange(6.0).reshape(2, 3)
    mask = torch.tensor([[True], [False]])

    def model():
        with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
            return ppl.sample("x", dist.Normal(0.0, 1.0), obs=obs, obs_mask=mask)

    tr = handlers.trace(model).get_trace()
    assert torch.equal(tr.returned[0], obs[0]) and not (tr.returned[1] == obs[1]).any()
    expected = scipy.stats.norm.logpdf([0.0, 1.0, 2.0])
    assert tr.log_prob("x_observed").tolist() == [pytest.approx(list(expected), rel=1e-12), [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("flag", "observed"), [(True, 1.0), (False, 0.0)])
def test_obs_mask_may_be_one_bool(flag, observed):
    tr = handlers.trace(
        lambda: ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(2.0), obs_mask=flag)
    ).get_trace()
    assert (tr.returned.item() == 2.0) is flag
    assert tr.log_prob("x_observed").item() == pytest.approx(observed * scipy.stats.norm.logpdf(2.0))


def test_obs_mask_works_for_discrete_sites_with_impossible_fillers():
    obs = torch.tensor([2, -1, 0])
    mask = obs >= 0
    probs = torch.tensor([0.2, 0.3, 0.5])

    def model():
        with ppl.plate("data", 3):
            return ppl.sample("x", dist.Categorical(probs), obs=obs, obs_mask=mask)

    tr = handlers.trace(model).get_trace()
    assert tr.returned[mask].tolist() == [2, 0] and tr.returned[1].item() in (0, 1, 2)
    assert tr.log_prob("x_observed").sum().item() == pytest.approx(numpy.log(0.5 * 0.2))


def test_obs_mask_says_what_does_not_fit():
    d = dist.Normal(0.0, 1.0)
    with pytest.raises(ValueError, match="site 'x': obs_mask needs obs"):
        ppl.sample("x", d, obs_mask=SEEN)
    with pytest.raises(ValueError, match=r"site 'x': obs_mask must be boolean.*torch.int64.*obs_mask.bool\(\)"):
        ppl.sample("x", d, obs=OBS, obs_mask=SEEN.long())
    with pytest.raises(
        ValueError, match=r"site 'x': obs_mask of shape \(3,\) does not broadcast to the batch shape \(\) of the site"
    ):
        ppl.sample("x", d, obs=OBS, obs_mask=SEEN[:3])


# -- bad input to sample


def test_an_observation_must_be_a_tensor():
    with pytest.raises(ValueError, match=r"site 'x': obs must be a torch.Tensor, but got float; write torch.as_tensor"):
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=1.0)


def test_an_observation_of_the_wrong_dtype_is_named():
    with pytest.raises(ValueError, match=r"site 'x': obs does not fit. Normal is continuous.*torch.int64"):
        ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1))
    conditioned = handlers.condition(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), data={"x": torch.tensor(1)})
    with pytest.raises(ValueError, match=r"site 'x': obs does not fit. Normal is continuous"):
        conditioned()


def test_an_observation_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"site 'x': obs does not fit.*\(4,\).*batch shape \(3,\)"):
        ppl.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(4))
    with pytest.raises(ValueError, match=r"site 'x': obs does not fit.*event shape \(3,\).*\(4,\)"):
        ppl.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=torch.zeros(4))


def test_an_observation_outside_the_support_is_named_with_its_entries():
    with pytest.raises(ValueError, match=r"site 'x'.*obs must lie in the support.*Gamma.*-1 at index \(1,\).*1 of 3"):
        ppl.sample("x", dist.Gamma(1.0, 1.0), obs=torch.tensor([1.0, -1.0, 2.0]))
    with pytest.raises(ValueError, match=r"site 'x'.*Bernoulli"):
        ppl.sample("x", dist.Bernoulli(0.5), obs=torch.tensor(2.0))


def test_a_bad_argument_inside_a_program_is_reported_with_its_site():
    @handlers.trace
    def model():
        ppl.sample("x", dist.Normal(torch.zeros(2), torch.tensor([1.0, -1.0])).to_event(1))

    with pytest.raises(ValueError, match=r"site 'x': Normal: argument 'scale' must satisfy.*-1 at index \(1,\)"):
        model()


@pytest.mark.parametrize("thing", [3.0, None, torch.zeros(2), dist.Normal, "Normal"])
def test_what_is_not_a_distribution_is_refused(thing):
    with pytest.raises(ValueError, match=rf"site 'x': expected a distribution, but got {type(thing).__name__}"):
        ppl.sample("x", thing)


def test_validation_can_be_switched_off_for_a_block_and_comes_back():
    def model():
        return ppl.sample("x", dist.Bernoulli(0.5, validate_args=False), obs=torch.tensor(2.0))

    assert ppl.is_validation_enabled()
    with ppl.validation_enabled(False):
        assert not ppl.is_validation_enabled()
        assert model().item() == 2.0
    with pytest.raises(ValueError, match="site 'x'"):
        model()


def test_validation_can_be_switched_off_for_the_process_and_torch_keeps_its_own():
    before = torch.distributions.Distribution._validate_args
    ppl.enable_validation(False)
    try:
        assert not ppl.is_validation_enabled()
        assert torch.distributions.Distribution._validate_args == before
    finally:
        ppl.enable_validation(True)
    assert ppl.is_validation_enabled()


# -- param


def test_param_reads_the_current_store():
    store = ppl.ParamStore()
    with store:
        ppl.param("w", torch.tensor(2.0))
    assert "w" not in ppl.get_param_store()
    ppl.param("w", torch.tensor(7.0))
    with store:
        assert ppl.param("w").item() == 2.0
    assert ppl.param("w").item() == 7.0


def test_an_init_that_is_a_function_is_called_only_when_needed():
    calls = []

    def init():
        calls.append(1)
        return torch.tensor(4.0)

    assert [ppl.param("w", init, constraint=constraints.positive).item() for _ in range(3)] == pytest.approx([4.0] * 3)
    assert len(calls) == 1
    handlers.substitute(lambda: ppl.param("v", init), data={"v": torch.tensor(1.0)})()
    assert len(calls) == 1


def test_a_number_is_a_good_init():
    assert ppl.param("w", 2.5).item() == 2.5


def test_an_unknown_param_without_init_says_what_is_there():
    ppl.param("here", torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"param 'gone' is not in the current store \(it has here\).*svi.params"):
        ppl.param("gone")


def test_an_init_outside_its_constraint_or_of_integers_is_refused():
    with pytest.raises(ValueError, match=r"param 'w': the value -1.0 does not satisfy positive"):
        ppl.param("w", torch.tensor(-1.0), constraint=constraints.positive)
    with pytest.raises(ValueError, match=r"param 'w': the initial value must be floating point, got torch.int64"):
        ppl.param("w", torch.tensor([1, 2]))


# -- deterministic, factor, subsample


def test_deterministic_records_and_returns_its_value_without_density():
    value = torch.tensor([1.0, 2.0])
    tr = handlers.trace(lambda: ppl.deterministic("d", value)).get_trace()
    assert tr.returned is value and tr["d"].tensor is value
    assert tr.log_prob_sum().item() == 0.0
    assert list(tr.deterministic_nodes) == ["d"]


def test_deterministic_refuses_what_is_no_tensor():
    with pytest.raises(ValueError, match=r"site 'd': a deterministic value must be a torch.Tensor, but got float"):
        ppl.deterministic("d", 2.0)


@pytest.mark.parametrize(
    ("log_factor", "total"), [(1.5, 1.5), (torch.tensor([1.0, -0.25]), 0.75), (torch.tensor(2), 2.0)]
)
def test_factor_adds_its_term(log_factor, total):
    tr = handlers.trace(lambda: ppl.factor("f", log_factor)).get_trace()
    assert tr.log_prob_sum().item() == total and tr.log_prob_sum().is_floating_point()
    assert list(tr.observation_nodes) == ["f"]


def test_factor_counts_once_for_each_element_of_a_plate():
    def model():
        with ppl.plate("p", 3):
            ppl.factor("f", 1.5)

    assert log_density(model).item() == 4.5


@pytest.mark.parametrize("has_rsample", [True, False])
def test_has_rsample_of_a_factor_decides_how_it_is_differentiated(has_rsample):
    term = torch.tensor(0.5, requires_grad=True)
    tr = handlers.trace(lambda: ppl.factor("f", term, has_rsample=has_rsample)).get_trace()
    parts = tr.compute_score_parts()["f"]
    assert parts.log_prob.item() == 0.5
    pathwise, score = parts.entropy_term, parts.score_function
    pathwise, score = torch.as_tensor(pathwise).detach(), torch.as_tensor(score).detach()
    assert (pathwise.item(), score.item()) == ((0.5, 0.0) if has_rsample else (0.0, 0.5))


def test_a_nan_factor_is_named():
    with pytest.raises(ValueError, match="site 'f': log_factor is NaN"):
        ppl.factor("f", torch.tensor([0.0, torch.nan]))


def test_subsample_selects_what_the_plates_around_it_do():
    data = torch.arange(12.0).reshape(4, 3)
    with ppl.plate("rows", 4, subsample=torch.tensor([2, 0]), dim=-2):
        assert ppl.subsample(data, event_dim=0).tolist() == [[6.0, 7.0, 8.0], [0.0, 1.0, 2.0]]
        with ppl.plate("columns", 3, subsample=torch.tensor([1]), dim=-1):
            assert ppl.subsample(data, event_dim=0).tolist() == [[7.0], [1.0]]
    with ppl.plate("rows", 4, subsample=torch.tensor([3]), dim=-1):
        assert ppl.subsample(data, event_dim=1).tolist() == [[9.0, 10.0, 11.0]]
    assert ppl.subsample(data, event_dim=0) is data


def test_subsample_takes_data_that_is_already_a_part():
    part = torch.tensor([5.0, 6.0])
    with ppl.plate("rows", 4, subsample=torch.tensor([2, 0])):
        assert ppl.subsample(part, event_dim=0) is part
        with pytest.raises(ValueError, match=r"subsample' in plate 'rows'.*size 4 or subsample size 2.*\(3,\)"):
            ppl.subsample(torch.zeros(3), event_dim=0)


# -- module


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.frozen = torch.nn.Parameter(torch.tensor(5.0), requires_grad=False)

    def encode(self, x):
        return self.layer(x) + self.frozen

    def forward(self, x):
        return 2 * self.encode(x)


X = torch.tensor([1.0, 2.0])
VALUES = {"net.layer.weight": torch.tensor([[3.0, 4.0]]), "net.layer.bias": torch.tensor([0.5])}


def test_module_declares_its_trainable_parameters_and_returns_itself():
    net = Net()
    tr = handlers.trace(lambda: ppl.module("net", net)).get_trace()
    assert tr.returned is net
    assert list(tr.param_nodes) == ["net.layer.weight", "net.layer.bias"]
    assert ppl.get_param_store().unconstrained("net.layer.weight") is net.layer.weight


def test_a_modules_parameters_come_back_from_a_saved_store():
    saved, fresh = Net(), Net()
    ppl.module("net", saved)
    store = ppl.ParamStore()
    store.load_state_dict(ppl.get_param_store().state_dict())
    with store:
        ppl.module("net", fresh)
    assert torch.equal(fresh.layer.weight, saved.layer.weight)
    assert store.unconstrained("net.layer.weight") is fresh.layer.weight


def test_another_module_of_the_same_name_keeps_its_own_parameters():
    first, second = Net(), Net()
    before = second.layer.weight.detach().clone()
    ppl.module("net", first)
    ppl.module("net", second)
    assert torch.equal(second.layer.weight, before)
    assert ppl.get_param_store().unconstrained("net.layer.weight") is second.layer.weight


def test_substituted_parameters_are_used_in_forward_and_in_methods_and_the_module_is_untouched():
    net = Net()
    before = net.layer.weight.detach().clone()

    @handlers.substitute(data=VALUES)
    def run():
        other = ppl.module("net", net)
        return other(X), other.encode(X), net(X)

    forward, method, own = run()
    assert forward.item() == 2 * (11.0 + 0.5 + 5.0)
    assert method.item() == 11.0 + 0.5 + 5.0
    assert own.item() == net(X).item() != forward.item()
    assert torch.equal(net.layer.weight, before)


def test_lifted_parameters_are_random_and_differentiable():
    net = Net()
    loc = torch.zeros(1, 2, requires_grad=True)

    @handlers.trace
    @handlers.lift(prior={"net.layer.weight": dist.Normal(loc, 1.0).to_event(2)})
    def run():
        return ppl.module("net", net)(X)

    tr = run.get_trace()
    assert list(tr.stochastic_nodes) == ["net.layer.weight"]
    weight = tr["net.layer.weight"].tensor
    assert tr.returned.item() == pytest.approx(2 * (weight @ X + net.layer.bias + 5.0).item())
    (gradient,) = torch.autograd.grad(tr.returned.sum(), loc)
    assert gradient.tolist() == [[2.0, 4.0]]


def test_a_parameter_shared_by_two_layers_is_substituted_in_both():
    net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    net[1].weight = net[0].weight
    run = handlers.substitute(lambda: ppl.module("n", net)(torch.ones(1)), data={"n.0.weight": torch.tensor([[3.0]])})
    assert run().item() == 9.0


def test_a_recurrent_module_uses_substituted_parameters():
    net = torch.nn.RNN(1, 1, bias=False)
    data = {"n.weight_ih_l0": torch.tensor([[0.5]]), "n.weight_hh_l0": torch.tensor([[0.0]])}
    run = handlers.substitute(lambda: ppl.module("n", net)(torch.ones(1, 1))[0], data=data)
    assert run().item() == pytest.approx(numpy.tanh(0.5))


def test_update_module_params_writes_into_the_module():
    net = Net()
    run = handlers.substitute(lambda: ppl.module("net", net, update_module_params=True), data=VALUES)
    assert run() is net
    assert net.layer.weight.tolist() == [[3.0, 4.0]] and net.layer.bias.tolist() == [0.5]
    assert isinstance(net.layer.weight, torch.nn.Parameter)


def test_module_refuses_what_is_no_module():
    with pytest.raises(ValueError, match=r"module 'net': expected a torch.nn.Module, but got function"):
        ppl.module("net", lambda x: x)


# -- seeds


def test_set_rng_seed_repeats_torch_numpy_and_python():
    def draw():
        ppl.set_rng_seed(7)
        return ppl.sample("x", dist.Normal(0.0, 1.0)).item(), numpy.random.rand(), random.random()

    first = draw()
    assert draw() == first
    ppl.set_rng_seed(8)
    assert ppl.sample("x", dist.Normal(0.0, 1.0)).item() != first[0]
