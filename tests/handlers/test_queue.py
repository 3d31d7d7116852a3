"""queue enumerates the complete runs of a program with discrete choices."""

import itertools
import math
import queue

import pytest
import torch

import ppl
import ppl.distributions as dist
from ppl import handlers

P_RAIN, P_TOSS = 0.3, torch.tensor([0.2, 0.5, 0.3])


def branching():
    """When it rains, two more choices; when not, one of three."""
    rain = ppl.sample("rain", dist.Bernoulli(P_RAIN))
    if rain.item() == 1:
        first = ppl.sample("first", dist.Bernoulli(0.6))
        second = ppl.sample("second", dist.Bernoulli(0.9 if first.item() == 1 else 0.1))
        return first + second
    return ppl.sample("toss", dist.Categorical(P_TOSS)).to(rain.dtype)


def all_runs(program, traces=None, **options):
    traces = traces or queue.Queue()
    traces.put(handlers.Trace())
    search = handlers.queue(handlers.trace(program).get_trace, traces, **options)
    found = []
    while not traces.empty():
        found.append(search())
    return found


def brute_force():
    """The probability of each result of `branching`, summed by hand."""
    result = dict.fromkeys((0.0, 1.0, 2.0), 0.0)
    for first, second in itertools.product((0, 1), repeat=2):
        p_second = 0.9 if first else 0.1
        p = P_RAIN * (0.6 if first else 0.4) * (p_second if second else 1 - p_second)
        result[float(first + second)] += p
    for toss, p in enumerate(P_TOSS.tolist()):
        result[float(toss)] += (1 - P_RAIN) * p
    return result


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue])
def test_all_runs_are_found_once_and_their_probabilities_sum_to_one(kind):
    runs = all_runs(branching, kind())
    assert len(runs) == 2 * 2 + 3
    assert len({tuple((n, s.tensor.item()) for n, s in tr.nodes.items()) for tr in runs}) == len(runs)
    assert sum(tr.log_prob_sum().exp().item() for tr in runs) == pytest.approx(1.0, rel=1e-12)


def test_marginals_are_those_of_brute_force():
    found = dict.fromkeys((0.0, 1.0, 2.0), 0.0)
    for tr in all_runs(branching):
        found[tr.returned.item()] += tr.log_prob_sum().exp().item()
    assert found == pytest.approx(brute_force(), rel=1e-12)


def test_observations_weigh_the_runs():
    def model():
        z = ppl.sample("z", dist.Categorical(P_TOSS))
        ppl.sample("x", dist.Normal(z.double(), 1.0), obs=torch.tensor(1.5))

    evidence = sum(tr.log_prob_sum().exp() for tr in all_runs(model))
    densities = dist.Normal(torch.arange(3.0), 1.0).log_prob(torch.tensor(1.5)).exp()
    assert evidence.item() == pytest.approx((P_TOSS * densities).sum().item(), rel=1e-12)


def test_a_batch_of_choices_is_tried_in_every_combination():
    def model():
        with ppl.plate("coins", 3):
            return ppl.sample("x", dist.Bernoulli(torch.tensor([0.1, 0.5, 0.8]))).sum()

    runs = all_runs(model)
    assert len(runs) == 8
    assert sum(tr.log_prob_sum().exp().item() for tr in runs) == pytest.approx(1.0, rel=1e-12)
    none = next(tr for tr in runs if tr.returned.item() == 0)
    assert none.log_prob_sum().exp().item() == pytest.approx(0.9 * 0.5 * 0.2)


def test_one_hot_choices_keep_their_event_dims():
    runs = all_runs(lambda: ppl.sample("x", dist.OneHotCategorical(P_TOSS)))
    assert [tr.returned.tolist() for tr in runs] == torch.eye(3).tolist()


def test_draws_made_before_a_choice_are_kept_in_all_that_follow():
    def model():
        ppl.sample("noise", dist.Normal(0.0, 1.0))
        with ppl.plate("data", 100, subsample_size=2):
            pass
        ppl.sample("coin", dist.Bernoulli(0.5))

    one, other = all_runs(model)
    assert one["noise"].tensor.item() == other["noise"].tensor.item()
    assert torch.equal(one["data"].tensor, other["data"].tensor)
    assert {one["coin"].tensor.item(), other["coin"].tensor.item()} == {0.0, 1.0}


def test_the_plain_result_of_the_program_is_returned():
    traces = queue.Queue()
    traces.put(handlers.Trace())
    search = handlers.queue(lambda p: ppl.sample("x", dist.Bernoulli(p)), traces)
    assert [search(0.3).item(), search(0.3).item()] == [0.0, 1.0]


def test_extend_fn_decides_what_is_tried_and_escape_fn_what_is_chosen():
    def model():
        n = ppl.sample("n", dist.Poisson(2.0))
        ppl.sample("left alone", dist.Bernoulli(0.5))
        return n.item()

    def up_to_five(trace, site):
        for n in range(6):
            longer = trace.copy()
            longer.add(site.replace(value=torch.tensor(float(n))))
            yield longer

    runs = all_runs(
        model,
        extend_fn=up_to_five,
        escape_fn=lambda trace, site: site.name == "n" and "n" not in trace,
    )
    assert [tr.returned for tr in runs] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert runs[3].log_prob("n").item() == pytest.approx(3 * math.log(2.0) - 2.0 - math.log(6.0))


def test_an_exit_of_the_programs_own_is_not_caught():
    traces = queue.Queue()
    traces.put(handlers.Trace())
    inner = handlers.escape(lambda: ppl.sample("x", dist.Bernoulli(0.5)), escape_fn=lambda site: True)
    with pytest.raises(handlers.NonlocalExit):
        handlers.queue(inner, traces)()
    assert not ppl.stack.is_running()


def test_an_empty_queue_says_so():
    with pytest.raises(ValueError, match=r"handlers\.queue: the queue is empty.*queue\.put\(handlers\.Trace\(\)\)"):
        handlers.queue(branching, queue.Queue())()


def test_passing_max_tries_says_so():
    traces = queue.Queue()
    traces.put(handlers.Trace())
    with pytest.raises(ValueError, match=r"handlers\.queue: no complete run after max_tries=2"):
        handlers.queue(branching, traces, max_tries=2)()


def test_a_choice_without_finite_support_is_named():
    with pytest.raises(ValueError, match=r"site 'n': Poisson has no finite support.*extend_fn"):
        all_runs(lambda: ppl.sample("n", dist.Poisson(1.0)))


def test_what_is_not_callable_and_a_bad_max_tries_are_refused():
    with pytest.raises(TypeError, match=r"handlers\.queue wraps a callable, but got int"):
        handlers.queue(3, queue.Queue())
    with pytest.raises(ValueError, match=r"handlers\.queue: max_tries must be a positive int, got 0"):
        handlers.queue(branching, queue.Queue(), max_tries=0)
