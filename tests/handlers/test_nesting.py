"""Handlers inside handlers: which orders agree, and how far many of them carry."""

import itertools

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers


def model():
    w = ppl.param("w", torch.tensor(1.0))
    v = ppl.param("v", torch.tensor(1.0))
    ppl.sample("hidden", dist.Normal(0.0, 1.0))
    fixed = ppl.sample("fixed", dist.Normal(w, 1.0))
    given = ppl.sample("given", dist.Normal(v, 1.0))
    recorded = ppl.sample("recorded", dist.Normal(fixed, 1.0))
    done = ppl.sample("done", dist.Normal(recorded, 1.0))
    moved = ppl.sample("moved", dist.Normal(given, 1.0))
    same = [ppl.sample(f"same_{i}", dist.Normal(done, 1.0)) for i in range(2)]
    with ppl.plate("data", 3):
        z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        ppl.sample("y", dist.Normal(moved + same[1] + z, 1.0), obs=torch.zeros(3))


def noncentred(name, fn, obs):
    return None, fn.loc + ppl.sample(f"{name}_noise", dist.Normal(0.0, 1.0))


def mark_fixed(site):
    return {"is_auxiliary": True} if site.name == "fixed" else None


RECORDED = {"recorded": ppl.site.Site("recorded", "sample", dist.Normal(0.0, 1.0), torch.tensor(0.4))}
DIFFERENT = {
    "block": lambda f: handlers.block(f, hide=["hidden"]),
    "broadcast": handlers.broadcast,
    "condition": lambda f: handlers.condition(f, data={"fixed": torch.tensor(2.0)}),
    "do": lambda f: handlers.do(f, data={"done": torch.tensor(-1.0)}),
    "enum": lambda f: handlers.enum(f, first_available_dim=-3),
    "equalize": lambda f: handlers.equalize(f, sites="same_.*", keep_dist=True),
    "infer_config": lambda f: handlers.infer_config(f, config_fn=mark_fixed),
    "lift": lambda f: handlers.lift(f, prior={"w": dist.Normal(0.0, 1.0)}),
    "markov": handlers.markov,
    "mask": lambda f: handlers.mask(f, mask=torch.tensor([True, False, True])),
    "reparam": lambda f: handlers.reparam(f, config={"moved": noncentred}),
    "replay": lambda f: handlers.replay(f, trace=RECORDED),
    "scale": lambda f: handlers.scale(f, scale=0.25),
    "substitute": lambda f: handlers.substitute(f, data={"given": torch.tensor(7.0), "v": torch.tensor(0.5)}),
}


def facts(program):
    ppl.set_rng_seed(0)
    ppl.clear_param_store()
    tr = handlers.trace(program).get_trace()
    return {
        name: (
            site.kind,
            site.observed,
            site.infer,
            site.enum_dims,
            [(s.step, s.history) for s in site.steps],
            site.tensor.tolist(),
            tr.log_prob(name).tolist() if site.kind == "sample" else None,
        )
        for name, site in tr.nodes.items()
    }


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)))
def test_handlers_that_concern_different_things_commute(one, other):
    a, b = DIFFERENT[one], DIFFERENT[other]
    assert facts(a(b(model))) == facts(b(a(model)))


def test_all_of_them_at_once_each_have_their_effect_in_either_order():
    wraps = list(DIFFERENT.values())
    inwards, outwards = model, model
    for wrap in wraps:
        inwards = wrap(inwards)
    for wrap in reversed(wraps):
        outwards = wrap(outwards)
    found = facts(inwards)
    assert found == facts(outwards)
    kinds = {name: (fact[0], fact[1]) for name, fact in found.items()}
    assert "hidden" not in kinds
    assert kinds["fixed"] == ("sample", True)
    assert kinds["w"] == ("sample", False) and kinds["v"] == ("param", False)
    assert kinds["moved"] == ("deterministic", False)
    assert found["given"][5] == 7.0 and found["v"][5] == 0.5 and found["recorded"][5] == 0.4
    assert found["same_0"][5] == found["same_1"][5]
    assert found["z"][5] == [[[0.0]], [[1.0]]]
    assert [name for name, fact in found.items() if fact[2].is_auxiliary] == ["fixed"]


def test_the_inner_of_two_markov_blocks_is_the_inner_step():
    def program():
        ppl.sample("x", dist.Normal(0.0, 1.0))

    tr = handlers.trace(handlers.markov(handlers.markov(program, history=1), history=5)).get_trace()
    assert [s.history for s in tr["x"].steps] == [5, 1]


def test_a_hundred_handlers_deep():
    program = model
    for i in range(100):
        program = handlers.scale(program, scale=2.0 if i % 2 else 0.5)
    plain = handlers.trace(model).get_trace()
    tr = handlers.trace(handlers.replay(program, trace=plain)).get_trace()
    assert tr.log_prob_sum().item() == plain.log_prob_sum().item()


def test_a_handler_may_run_another_program_inside_handle():
    class nested(ppl.handlers.Handler):
        def handle(self, site):
            inner = handlers.trace(lambda: ppl.sample("inside", dist.Delta(torch.tensor(3.0)))).get_trace()
            return site.replace(value=inner["inside"].tensor)

    with handlers.trace() as outer, nested():
        assert ppl.sample("x", dist.Normal(0.0, 1.0)).item() == 3.0
    assert list(outer) == ["inside"]
