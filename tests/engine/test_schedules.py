"""Schedules looked ahead, moved and refused."""

import copy

import pytest
import torch
from optimizer_cases import DOUBLE, OPTIMISERS, Fit, assert_same, assert_same_fit, scheduled

from ppl import optim
from ppl.engine.optimizers import Unsupported


class Slowing:
    """A callable with a state of its own."""

    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 1 / self.calls


def test_looking_ahead_changes_nothing():
    for name in ("StepLR", "OneCycleLR", "CyclicLR", "MultiStepLR", "ExponentialLR, clipped"):
        fit = Fit(OPTIMISERS[name]()).eager(2)
        before = copy.deepcopy((fit.optimizer.state_dict(), fit.scheduler.state_dict()))
        plan = fit.plan()
        rows = plan.rows(20, fit.num_steps)
        assert_same((fit.optimizer.state_dict(), fit.scheduler.state_dict()), before, 0)
        assert torch.equal(rows[:1], plan.rows(1, fit.num_steps))
        assert torch.equal(rows, plan.rows(20, fit.num_steps))


def test_a_schedule_may_call_an_object_with_a_state():
    def fit():
        return Fit(scheduled(optim.LambdaLR, lr_lambda=Slowing()))

    expected, found = fit().eager(12), fit().planned(3).planned(4, looked=9).planned(5)
    assert_same_fit(found, expected, DOUBLE)
    assert found.scheduler.lr_lambdas[0].calls == expected.scheduler.lr_lambdas[0].calls


def test_schedules_within_schedules():
    def both(optimizer):
        slow = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
        return torch.optim.lr_scheduler.SequentialLR(
            optimizer, [slow, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)], milestones=[10]
        )

    def fit():
        return Fit(optim._scheduled(both)({"optimizer": optim.SGD({"lr": 0.05})}))

    expected, found = fit().eager(25), fit().planned(8).planned(4, looked=9).eager(1).planned(12)
    assert_same([leaf.detach() for leaf in found.leaves], [leaf.detach() for leaf in expected.leaves], 1e-12)
    one, two = found.scheduler.state_dict(), expected.scheduler.state_dict()
    assert_same(one.pop("_schedulers"), two.pop("_schedulers"), 0)
    assert_same(one, two, 0)


def test_more_steps_than_rows_cannot_be_committed():
    fit = Fit(OPTIMISERS["StepLR"]())
    plan = fit.plan()
    plan.rows(3)
    with pytest.raises(ValueError, match=r"commit\(4\): rows were made for 3"):
        plan.commit(4)


def test_a_schedule_of_other_options_is_refused():
    class Decays(torch.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            for group in self.optimizer.param_groups:
                group["weight_decay"] = 0.01 * self.last_epoch
            return [group["lr"] for group in self.optimizer.param_groups]

    fit = Fit(optim._scheduled(Decays)({"optimizer": optim.Adam({"lr": 0.1})}))
    with pytest.raises(Unsupported, match="other options"):
        fit.plan().rows(3)
    assert fit.scheduler.last_epoch == 0


def test_a_schedule_that_asks_for_the_loss_is_refused():
    fit = Fit(OPTIMISERS["StepLR"]())
    fit.optim.advance = lambda scheduler, num_steps, loss: scheduler.step() if loss.item() > 0 else None
    with pytest.raises(Unsupported, match="looks at the loss"):
        fit.plan().rows(3)


def test_functions_of_a_schedule_that_do_more_than_give_a_rate():
    """They would be called more often than there are steps."""
    seen = []

    def rate(epoch):
        seen.append(epoch)
        return 0.9 ** len(seen)

    fit = Fit(scheduled(optim.LambdaLR, lr_lambda=rate))
    before = list(seen)
    with pytest.raises(Unsupported, match=r"calling rate of the schedule has an effect: it changes what 'seen' holds"):
        fit.plan()
    assert seen == before
