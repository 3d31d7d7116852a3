"""NaN in a parameter, a density, a gradient or the loss: the error says where and when, and nothing is lost."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from ppl.optim import Adam

OBJECTIVES = [Trace_ELBO, TraceEnum_ELBO]


class Bent(dist.Normal):
    """A normal whose log density is NaN at 2."""

    def log_prob(self, value):
        return torch.where(value == 2.0, torch.nan, super().log_prob(value))


def model(data):
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
        ppl.sample("x", Bent(mean, ppl.param("sd", torch.tensor(1.0))), obs=data)


def guide(data):
    ppl.sample("mean", dist.Normal(ppl.param("loc", torch.tensor(0.3)), 0.5))


GOOD = torch.zeros(2, 3)
BAD = torch.zeros(2, 3)
BAD[1, 2] = 2.0


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("validate", [True, False])
def test_a_nan_density_is_located_and_the_parameters_keep_their_values(objective, validate):
    svi = SVI(model, guide, Adam({"lr": 0.1}), objective())
    for _ in range(3):
        svi.step(GOOD)
    before = {name: value.clone() for name, value in svi.params.items()}
    moments = [s["exp_avg"].clone() for s in svi.optimizer.state.values()]
    with ppl.validation_enabled(validate), pytest.raises(ValueError) as error:
        svi.step(BAD)
    message = str(error.value)
    for part in ("step 3", "'x'", "plate 'rows' index 1", "plate 'columns' index 2"):
        assert part in message, message
    assert all(torch.equal(svi.params[name], value) for name, value in before.items())
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(svi.optimizer.state.values(), moments, strict=True))
    assert svi.num_steps == 3
    svi.run(2, GOOD, progress_bar=False)  # and it goes on
    assert svi.num_steps == 5


def test_the_index_of_a_subsampled_plate_is_that_in_the_whole_plate():
    data = torch.zeros(10)
    data[7] = 2.0

    def local(subsample):
        with ppl.plate("data", 10, subsample=subsample) as i:
            ppl.sample("x", Bent(ppl.param("p", torch.tensor(0.0)), 1.0), obs=data[i])

    svi = SVI(local, lambda subsample: None, Adam({"lr": 0.1}))
    svi.step(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"step 1: .*'x'.*plate 'data' index 7"):
        svi.step(torch.tensor([0, 7, 3]))


def test_a_sequential_plate_names_its_iteration():
    def loop():
        for i in ppl.plate("steps", 3):
            ppl.sample(f"x_{i}", Bent(ppl.param("p", torch.tensor(0.0)), 1.0), obs=torch.tensor(float(i)))

    with pytest.raises(ValueError, match=r"'x_2'.*plate 'steps' index 2"):
        SVI(loop, lambda: None, Adam({"lr": 0.1})).step()


@pytest.mark.parametrize("validate", [True, False])
def test_a_nan_parameter_is_named(validate):
    svi = SVI(model, guide, Adam({"lr": 0.1}))
    svi.step(GOOD)
    with torch.no_grad():
        svi.params.unconstrained("loc").fill_(torch.nan)
    with ppl.validation_enabled(validate), pytest.raises(ValueError) as error:
        svi.step(GOOD)
    assert "step 1" in str(error.value) and ("'loc'" in str(error.value) or "'mean'" in str(error.value))
    if not validate:
        assert "'loc'" in str(error.value)


def test_a_nan_in_the_data_is_named_when_the_checks_are_off():
    svi = SVI(model, guide, Adam({"lr": 0.1}))
    with ppl.validation_enabled(False), pytest.raises(ValueError, match=r"step 0: .*'x'.*'columns' index 1"):
        svi.step(torch.tensor([[0.0, torch.nan, 0.0], [0.0, 0.0, 0.0]]))


def test_a_nan_in_the_data_is_an_error_of_the_support_when_the_checks_are_on():
    svi = SVI(model, guide, Adam({"lr": 0.1}))
    with pytest.raises(ValueError, match=r"(?s)'x'.*nan"):
        svi.step(torch.tensor([[0.0, torch.nan, 0.0], [0.0, 0.0, 0.0]]))


def test_infinities_of_opposite_sign_in_the_loss_are_told_apart():
    def opposite():
        ppl.param("p", torch.tensor(0.0))
        ppl.factor("up", torch.tensor(torch.inf))
        ppl.factor("down", torch.tensor(-torch.inf))

    with pytest.raises(ValueError, match=r"step 0: the loss is NaN.*opposite sign"):
        SVI(opposite, lambda: None, Adam({"lr": 0.1})).step()


def test_a_gradient_that_is_not_finite_is_named():
    def steep():
        p = ppl.param("p", torch.tensor(0.0))
        ppl.param("q", torch.tensor(1.0))
        ppl.factor("f", -p.abs().sqrt())

    svi = SVI(steep, lambda: None, Adam({"lr": 0.1}))
    with pytest.raises(ValueError, match=r"step 0: .*gradient.*'p'.*not finite"):
        svi.step()
    assert svi.params["p"] == 0.0 and svi.num_steps == 0


def test_a_nan_does_not_poison_the_baseline_of_later_steps():
    def discrete(data):
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("x", Bent(z, 1.0), obs=data)

    def drawn(data):
        ppl.sample("z", dist.Bernoulli(ppl.param("q", torch.tensor(0.4))))

    svi = SVI(discrete, drawn, Adam({"lr": 0.01}))
    svi.step(torch.tensor(1.0))
    with pytest.raises(ValueError, match="step 1"):
        svi.step(torch.tensor(2.0))
    assert svi.step(torch.tensor(1.0)) > 0
    assert svi.loss.baselines.means["z"].isfinite()


def test_a_loss_of_infinity_is_no_nan():
    def impossible():
        ppl.param("p", torch.tensor(0.0))
        ppl.factor("f", torch.tensor(-torch.inf))

    svi = SVI(impossible, lambda: None, Adam({"lr": 0.1}))
    assert svi.step() == torch.inf
