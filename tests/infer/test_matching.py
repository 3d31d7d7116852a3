"""What does not fit: each an error that names the site, what was expected, what came, and what to write."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.handlers import trace
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from ppl.infer.autoguide import AutoNormal
from ppl.infer.elbo.terms import to_factor
from ppl.optim import Adam

OBJECTIVES = [Trace_ELBO, TraceEnum_ELBO]


def loss(model, guide, objective, *args):
    return objective().loss(model, guide, *args)


def assert_error(match, model, guide, *args, objectives=OBJECTIVES):
    for objective in objectives:
        with pytest.raises(ValueError, match=match):
            loss(model, guide, objective, *args)
        svi = SVI(model, guide, Adam({"lr": 0.1}), objective())
        with pytest.raises(ValueError, match=match):
            svi.step(*args)


def normal(name, **options):
    return ppl.sample(name, dist.Normal(0.0, 1.0), **options)


def test_a_guide_that_lacks_a_latent_site_is_an_error():
    def model():
        normal("a")
        normal("b")

    assert_error(r"(?s)lacks.*\['b'\].*it has \['a'\].*Add", model, lambda: normal("a"))


def test_a_guide_without_any_site_is_an_error():
    assert_error(r"lacks.*\['a'\].*none", lambda: normal("a"), lambda: None)


def test_a_missing_discrete_site_is_offered_enumeration():
    def model():
        ppl.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(ValueError, match=r"(?s)\['z'\].*config_enumerate.*TraceEnum_ELBO"):
        loss(model, lambda: None, Trace_ELBO)
    with pytest.raises(ValueError, match=r"(?s)\['z'\].*'enumerate': 'parallel'"):
        loss(model, lambda: None, TraceEnum_ELBO)


def test_a_marked_site_is_not_summed_by_the_drawing_objective():
    def model():
        ppl.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    with pytest.raises(ValueError, match=r"(?s)lacks.*\['z'\].*TraceEnum_ELBO"):
        loss(model, lambda: None, Trace_ELBO)


def test_a_site_that_the_model_lacks_is_an_error():
    def guide():
        normal("a")
        normal("typo")

    assert_error(r"(?s)\['typo'\].*latent sites are \['a'\].*is_auxiliary", lambda: normal("a"), guide)


def test_a_site_that_the_model_observes_is_an_error():
    def model():
        normal("a", obs=torch.tensor(1.0))

    assert_error(r"(?s)\['a'\].*observed", model, lambda: normal("a"))


def test_an_auxiliary_site_of_the_guide_is_fine():
    def guide():
        normal("noise", infer={"is_auxiliary": True})
        normal("a")

    for objective in OBJECTIVES:
        assert loss(lambda: normal("a"), guide, objective) == pytest.approx(
            loss(lambda: None, lambda: normal("noise", infer={"is_auxiliary": True}), objective), abs=20
        )


def test_data_that_come_and_go_are_checked_again():
    """The sites keep their names, but one becomes latent."""

    def model(data):
        normal("a", obs=data)

    svi = SVI(model, lambda data: None, Adam({"lr": 0.1}))
    svi.step(torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"lacks.*\['a'\]"):
        svi.step(None)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_dim_under_no_plate_is_an_error_that_names_the_dim(objective):
    def model():
        ppl.sample("a", dist.Normal(torch.zeros(3), 1.0))

    def guide():
        ppl.sample("a", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(ValueError, match=r"(?s)'a'.*size 3 at dim -1.*no plate.*ppl\.plate\('…', 3\).*to_event\(1\)"):
        loss(model, guide, objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_dim_left_of_a_plate_is_an_error_that_names_the_plates_there_are(objective):
    def model():
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(torch.zeros(2, 3), 1.0), obs=torch.zeros(2, 3))

    with pytest.raises(ValueError, match=r"(?s)'x'.*size 2 at dim -2.*'data' at dim -1"):
        loss(model, lambda: None, objective)


def test_a_plate_and_data_of_different_sizes_are_an_error():
    def model(data):
        with ppl.plate("data", 4):
            ppl.sample("x", dist.Normal(torch.zeros(5), 1.0), obs=data)

    assert_error(r"(?s)'x'.*'data' has size 4.*\(5,\)", model, lambda data: None, torch.zeros(5))


def test_event_shapes_that_differ_are_an_error():
    def model():
        ppl.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def guide():
        with ppl.plate("p", 3):
            ppl.sample("a", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(ValueError, match=r"'a'"):
        loss(model, guide, Trace_ELBO)


def test_a_draw_shared_between_repetitions_is_an_error():
    def model():
        with ppl.plate("p", 3):
            normal("a")

    assert_error(r"(?s)'a'.*does not vary over plate 'p' of size 3", model, lambda: normal("a"))


def test_plates_that_differ_are_an_error():
    def program(name, size):
        with ppl.plate(name, size):
            normal("a")

    assert_error(r"'a'", lambda: program("p", 3), lambda: program("q", 2), objectives=[Trace_ELBO])


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_a_site_enumerated_in_one_program_only_is_an_error(mark):
    def program(how):
        ppl.sample("z", dist.Bernoulli(0.5), infer={"enumerate": how})

    with pytest.raises(ValueError, match=r"(?s)'z'.*in the guide, but not in the model"):
        loss(lambda: program(None), lambda: program(mark), TraceEnum_ELBO)
    with pytest.raises(ValueError, match=r"(?s)'z'.*in the model, but the guide draws it.*Remove it"):
        loss(lambda: program(mark), lambda: program(None), TraceEnum_ELBO)
    assert loss(lambda: program(mark), lambda: program(mark), TraceEnum_ELBO) == pytest.approx(0.0, abs=1e-12)
    assert loss(lambda: program(mark), lambda: program(mark), Trace_ELBO) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
@pytest.mark.parametrize("d", [dist.Normal(0.0, 1.0), dist.Poisson(3.0)], ids=["continuous", "unbounded"])
def test_enumerating_an_infinite_support_is_an_error(mark, d):
    def program():
        with ppl.plate("p", 3):
            ppl.sample("y", d, infer={"enumerate": mark})

    with pytest.raises(ValueError, match=rf"(?s)'y'.*p\[3\].*{type(d).__name__} cannot be enumerated.*Remove"):
        loss(program, lambda: None, TraceEnum_ELBO)


def test_config_enumerate_leaves_infinite_supports_alone():
    @config_enumerate
    def model():
        y = normal("y")
        z = ppl.sample("z", dist.Bernoulli(0.5))
        ppl.sample("x", dist.Normal(y + z, 1.0), obs=torch.tensor(0.0))

    assert abs(loss(model, lambda: normal("y"), TraceEnum_ELBO)) < 20


# -- data that do not fit, through SVI


def observed(data, d=None):
    def model(data):
        with ppl.plate("data", 3):
            ppl.sample("x", dist.Normal(torch.zeros(3), 1.0) if d is None else d, obs=data)

    return SVI(model, lambda data: None, Adam({"lr": 0.1})), data


@pytest.mark.parametrize(
    ("data", "d", "match"),
    [
        (torch.zeros(4), None, r"(?s)'x'.*obs.*\(4,\)"),
        (torch.zeros(2, 4), None, r"(?s)'x'.*obs.*\(2, 4\)"),
        (torch.tensor([True, False, True]), None, r"(?s)'x'.*bool"),
        (torch.tensor([0.0, 2.0, 1.0]), dist.Bernoulli(0.5), r"(?s)'x'.*support.*2"),
        (torch.tensor([0.5, -1.0, 1.0]), dist.Gamma(1.0, 1.0), r"(?s)'x'.*support.*-1"),
        ([0.0, 1.0, 2.0], None, r"(?s)'x'.*obs must be a torch\.Tensor.*list"),
    ],
)
def test_data_that_do_not_fit_are_an_error_that_names_the_site(data, d, match):
    svi, data = observed(data, d)
    with pytest.raises(ValueError, match=match):
        svi.step(data)


def test_a_parameter_without_a_first_value_is_an_error():
    svi = SVI(lambda: None, lambda: ppl.param("q"), Adam({"lr": 0.1}))
    with pytest.raises(ValueError, match=r"param 'q'.*no initial value"):
        svi.step()


# -- naming dims


def test_factors_have_an_axis_a_plate_and_an_axis_an_enumerated_site():
    def model():
        with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
            ppl.sample("x", dist.Normal(torch.zeros(3), 1.0))

    site = trace(model).get_trace()["x"]
    factor = to_factor(torch.arange(3.0), site)
    assert factor.axes == ("plate rows", "plate columns")
    assert torch.equal(factor.tensor, torch.arange(3.0).expand(2, 3))
    enumerated = site.replace(enum_dims=((-3, "z"), (-4, "w")))
    factor = to_factor(torch.rand(4, 1, 2, 3), enumerated)
    assert factor.axes == ("w", "plate rows", "plate columns")


def test_an_automatic_guide_of_a_model_without_continuous_sites_is_an_error():
    def model():
        ppl.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(ValueError, match=r"no continuous latent site.*\['z'\]"):
        SVI(model, AutoNormal(model), Adam({"lr": 0.1})).step()


def test_a_parameter_with_another_constraint_in_the_guide_is_an_error():
    def model():
        ppl.sample(
            "x", dist.Normal(ppl.param("p", torch.tensor(1.0), constraint=constraints.real), 1.0), obs=torch.tensor(0.0)
        )

    def guide():
        ppl.param("p", torch.tensor(1.0), constraint=constraints.positive)

    with pytest.raises(ValueError, match=r"'p'.*constraint"):
        SVI(model, guide, Adam({"lr": 0.1})).step()
