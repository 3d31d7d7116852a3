"""replay runs a program with the values of another run."""

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers

DATA = torch.arange(10.0)


def guide():
    loc = ppl.param("loc", torch.tensor(0.5))
    ppl.sample("x", dist.Normal(loc, 0.1))
    with ppl.plate("data", 10, subsample_size=3):
        ppl.sample("z", dist.Normal(0.0, 1.0))


def model():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 10, subsample_size=3) as indices:
        z = ppl.sample("z", dist.Normal(x, 1.0))
        ppl.sample("y", dist.Normal(z, 1.0), obs=DATA[indices])
    return indices


def test_latents_and_subsamples_are_those_of_the_guide():
    recorded = handlers.trace(guide).get_trace()
    tr = handlers.trace(handlers.replay(model, trace=recorded)).get_trace()
    for name in ("x", "z", "data"):
        assert torch.equal(tr[name].tensor, recorded[name].tensor), name
    assert torch.equal(tr["y"].tensor, DATA[recorded["data"].tensor])
    assert torch.equal(tr.returned, recorded["data"].tensor)
    assert tr["x"].fn.scale.item() == 1.0  # the model's distribution, not the guide's


def test_without_replay_the_subsamples_differ():
    draws = {tuple(model().tolist()) for _ in range(10)}
    assert len(draws) > 5


def test_replaying_a_program_onto_itself_is_the_identity():
    first = handlers.trace(model).get_trace()
    again = handlers.trace(handlers.replay(model, trace=first)).get_trace()
    assert list(again) == list(first)
    for name, site in first.nodes.items():
        assert torch.equal(again[name].tensor, site.tensor), name
    for name, log_prob in first.compute_log_prob().items():
        assert torch.equal(again.log_prob(name), log_prob), name


def test_observed_sites_keep_their_data():
    recorded = handlers.trace(lambda: ppl.sample("x", dist.Normal(0.0, 1.0))).get_trace()
    program = handlers.replay(lambda: ppl.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0)), trace=recorded)
    assert program().item() == 3.0


def test_a_plate_keeps_the_indices_that_the_program_gives_it():
    def given(indices):
        with ppl.plate("data", 10, subsample=indices) as seen:
            return seen

    recorded = handlers.trace(given).get_trace(torch.tensor([1, 2]))
    assert handlers.replay(given, trace=recorded)(torch.tensor([3, 4])).tolist() == [3, 4]


def test_sites_that_the_trace_lacks_are_drawn():
    recorded = handlers.trace(lambda: ppl.sample("x", dist.Normal(0.0, 1.0))).get_trace()

    def longer():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        return ppl.sample("new", dist.Normal(0.0, 1.0))

    run = handlers.replay(longer, trace=recorded)
    assert run().item() != run().item()
    assert handlers.trace(run).get_trace()["x"].tensor.item() == recorded["x"].tensor.item()


def test_params_can_be_given_too():
    tr = handlers.trace(handlers.replay(guide, params={"loc": torch.tensor(7.0)})).get_trace()
    assert tr["x"].fn.loc.item() == 7.0


def test_a_mapping_of_sites_serves_as_a_trace():
    recorded = handlers.trace(model).get_trace()
    tr = handlers.trace(handlers.replay(model, trace={"x": recorded["x"]})).get_trace()
    assert tr["x"].tensor.item() == recorded["x"].tensor.item()
    assert not torch.equal(tr["z"].tensor, recorded["z"].tensor)


# -- bad input


def replayed(recorded_shape, d, size=None):
    recorded = handlers.trace(
        lambda: ppl.sample("x", dist.Normal(torch.zeros(recorded_shape), 1.0).to_event(0))
    ).get_trace()

    def program():
        if size is None:
            return ppl.sample("x", d)
        with ppl.plate("p", size):
            return ppl.sample("x", d)

    return handlers.replay(program, trace=recorded)


@pytest.mark.parametrize(
    ("run", "match"),
    [
        (replayed((4,), dist.Normal(torch.zeros(3), 1.0)), r"\(4,\) does not broadcast with batch shape \(3,\)"),
        (replayed((4,), dist.Normal(torch.zeros(3), 1.0).to_event(1)), r"event shape \(3,\).*shape is \(4,\)"),
        (replayed((), dist.Normal(0.0, 1.0), 3), r"shape \(\) does not vary over plate 'p' of size 3 at dim -1"),
        (replayed((1,), dist.Normal(0.0, 1.0), 3), r"shape \(1,\) does not vary over plate 'p' of size 3 at dim -1"),
    ],
)
def test_a_replayed_value_of_another_shape_is_named(run, match):
    with pytest.raises(ValueError, match=rf"site 'x'.*{match}.*replayed from a trace.*site 'x' one shape"):
        run()


def test_subsamples_of_two_sizes_are_named():
    recorded = handlers.trace(model).get_trace()

    def other():
        with ppl.plate("data", 10, subsample_size=4):
            pass

    with pytest.raises(
        ValueError, match=r"plate 'data' has 4 elements in this run, but 3 in the replayed trace.*create_plates"
    ):
        handlers.replay(other, trace=recorded)()


def test_a_name_that_is_a_plate_here_and_a_sample_there_is_named():
    recorded = handlers.trace(lambda: ppl.sample("data", dist.Normal(0.0, 1.0))).get_trace()
    with pytest.raises(ValueError, match="site 'data' is a plate here, but a sample in the replayed trace"):
        handlers.replay(model, trace=recorded)()


def test_replay_says_what_it_wants():
    with pytest.raises(ValueError, match=r"handlers\.replay: give a trace, params or both"):
        handlers.replay(model)
