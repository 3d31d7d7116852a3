"""The updates of a graph against torch's own optimisers, stepped eagerly as SVI does."""

import copy
import itertools
import json
import math

import pytest
import torch

from ppl import optim
from ppl.engine.optimizers import Outdated, Unsupported, plan_of, unpack, update

SHAPES = [(3,), (), (2, 4), (65, 64), (0,), (1, 1)]  # one large, one empty
DOUBLE, SINGLE = 1e-12, 2e-5  # relative differences after 100 steps


class Fit:
    """A loss of some leaves, minimised in the way of SVI."""

    def __init__(self, optimiser, dtype=torch.float64, shapes=SHAPES):
        make = torch.Generator().manual_seed(3)
        rand = [torch.randn(s, generator=make, dtype=torch.float64).to(dtype) for s in shapes for _ in range(3)]
        self.leaves = [leaf.clone().requires_grad_() for leaf in rand[::3]]
        self.scales, self.centres = [s.abs() + 0.1 for s in rand[1::3]], [2 * c for c in rand[2::3]]
        self.optim = optim.as_optimizer(optimiser)
        self.optimizer = self.optim.build([(f"leaf {i}", leaf) for i, leaf in enumerate(self.leaves)])
        self.scheduler = self.optim.scheduler(self.optimizer)
        self.num_steps = 0

    def loss(self, leaves):
        """Convex but not quadratic, other at every leaf."""
        terms = zip(leaves, self.scales, self.centres, strict=True)
        return sum((2 * s * torch.log(torch.cosh(x - c)) + s * x.sin()).sum() for x, s, c in terms)

    def eager(self, num):
        for _ in range(num):
            for leaf in self.leaves:
                leaf.grad = None
            self.loss(self.leaves).backward()
            self.optim.clip(self.leaves)
            self.optimizer.step()
            self.num_steps += 1
            if self.scheduler is not None:
                self.optim.advance(self.scheduler, self.num_steps, torch.tensor(0.0))
        return self

    def plan(self):
        return plan_of(self.optimizer, self.leaves, self.optim.clip_args, self.scheduler, self.optim.advance)

    def planned(self, num, plan=None, looked=None):
        """The same steps by the plan, which may be told more than will be taken."""
        plan = self.plan() if plan is None else plan
        statics, clip = json.loads(json.dumps([plan.packs, plan.clip]))
        carries = plan.gather()
        rows = plan.rows(num if looked is None else looked, self.num_steps)
        for row in rows[:num]:
            values = [value.requires_grad_() for value in unpack(statics, carries)]
            grads = torch.autograd.grad(self.loss(values), values)
            grads = [[grads[i] for i in static["leaves"]] for static in statics]
            carries = update(statics, [carry.detach() for carry in carries], grads, row, clip)
        plan.scatter(carries, num)
        plan.commit(num)
        self.num_steps += num
        return self


def options_by_name(first, second):
    """Two groups, taken in turn."""
    return lambda name: dict(first if int(name.split()[1]) % 2 else second)


def scheduled(schedule, inner=optim.Adam, inner_args=None, **options):
    return schedule({"optimizer": inner, "optim_args": inner_args or {"lr": 0.05}, **options})


OPTIMISERS = {
    "Adam": lambda: optim.Adam({"lr": 0.05}),
    "Adam, decay": lambda: optim.Adam({"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-4}),
    "Adam, beta1 below a half": lambda: optim.Adam({"lr": 0.05, "betas": (0.3, 0.9)}),
    "Adam, amsgrad": lambda: optim.Adam({"lr": 0.05, "amsgrad": True}),
    "Adam, maximize": lambda: optim.Adam({"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "Adam, not fused": lambda: optim.Adam({"lr": 0.05, "fused": False, "foreach": False, "amsgrad": True}),
    "Adam, foreach": lambda: optim.Adam({"lr": 0.05, "foreach": True}),
    "torch's Adam": lambda: torch.optim.Adam,
    "torch's AdamW, by function": lambda: lambda params: torch.optim.AdamW(params, lr=0.05),
    "AdamW": lambda: optim.AdamW({"lr": 0.05, "weight_decay": 0.1}),
    "AdamW, amsgrad": lambda: optim.AdamW({"lr": 0.05, "amsgrad": True, "maximize": True}),
    "SGD": lambda: optim.SGD({"lr": 0.05}),
    "SGD, decay": lambda: optim.SGD({"lr": 0.05, "weight_decay": 0.1}),
    "SGD, maximize": lambda: optim.SGD({"lr": 0.01, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    "SGD, momentum": lambda: optim.SGD({"lr": 0.02, "momentum": 0.9}),
    "SGD, dampening": lambda: optim.SGD({"lr": 0.05, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    "SGD, nesterov": lambda: optim.SGD({"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "RMSprop": lambda: optim.RMSprop({"lr": 0.02}),
    "RMSprop, decay": lambda: optim.RMSprop({"lr": 0.02, "weight_decay": 0.1, "alpha": 0.9, "eps": 1e-5}),
    "RMSprop, momentum": lambda: optim.RMSprop({"lr": 0.01, "momentum": 0.7, "maximize": True, "weight_decay": 0.1}),
    "RMSprop, centered": lambda: optim.RMSprop({"lr": 0.01, "centered": True, "eps": 1e-3}),
    "RMSprop, all": lambda: optim.RMSprop({"lr": 0.01, "centered": True, "momentum": 0.5, "eps": 1e-3}),
    "ClippedAdam": lambda: optim.ClippedAdam({"lr": 0.1, "clip_norm": 0.3, "lrd": 0.97}),
    "ClippedAdam, defaults": lambda: optim.ClippedAdam(),
    "two groups": lambda: optim.Adam(options_by_name({"lr": 0.1}, {"lr": 0.02, "betas": (0.7, 0.9), "amsgrad": True})),
    "two groups of SGD": lambda: optim.SGD(options_by_name({"lr": 0.02, "momentum": 0.9}, {"lr": 0.05})),
    "two groups of AdamW": lambda: optim.AdamW(options_by_name({"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.02})),
    "clip_norm": lambda: optim.Adam({"lr": 0.05}, {"clip_norm": 2.0}),
    "clip_value": lambda: optim.SGD({"lr": 0.05, "momentum": 0.5}, {"clip_value": 0.2}),
    "clip both": lambda: optim.SGD(options_by_name({"lr": 0.1}, {"lr": 0.2}), {"clip_norm": 5.0, "clip_value": 0.1}),
    "StepLR": lambda: scheduled(optim.StepLR, step_size=7, gamma=0.7),
    "ExponentialLR": lambda: scheduled(optim.ExponentialLR, gamma=0.99),
    "ExponentialLR, every 5": lambda: scheduled(optim.ExponentialLR, gamma=0.8, every=5),
    "ExponentialLR, never": lambda: scheduled(optim.ExponentialLR, gamma=0.8, every=None),
    "ExponentialLR, clipped": lambda: scheduled(
        optim.ExponentialLR, optim.ClippedAdam, {"lr": 0.1, "lrd": 0.99, "clip_norm": 0.5}, gamma=0.99
    ),
    "ExponentialLR, AdamW": lambda: scheduled(optim.ExponentialLR, optim.AdamW, gamma=0.97),
    "CosineAnnealingLR": lambda: scheduled(optim.CosineAnnealingLR, optim.SGD, T_max=30),
    "LambdaLR": lambda: scheduled(optim.LambdaLR, lr_lambda=lambda epoch: 1 / math.sqrt(1 + epoch)),
    "MultiStepLR": lambda: scheduled(optim.MultiStepLR, optim.RMSprop, {"lr": 0.02}, milestones=[5, 50]),
    "OneCycleLR": lambda: scheduled(optim.OneCycleLR, max_lr=0.1, total_steps=200),
    "OneCycleLR of SGD": lambda: scheduled(
        optim.OneCycleLR, optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}, max_lr=0.05, total_steps=200
    ),
    "OneCycleLR of RMSprop": lambda: scheduled(
        optim.OneCycleLR, optim.RMSprop, {"lr": 0.01, "momentum": 0.9}, max_lr=0.01, total_steps=200
    ),
    "CyclicLR": lambda: scheduled(
        optim.CyclicLR, optim.SGD, {"lr": 0.01, "momentum": 0.9, "dampening": 0.1}, base_lr=0.01, max_lr=0.05, step_size_up=9
    ),
    "schedule of two groups": lambda: scheduled(
        optim.LambdaLR,
        inner_args=options_by_name({"lr": 0.05}, {"lr": 0.1}),
        lr_lambda=[lambda epoch: 0.99**epoch, lambda epoch: 0.95**epoch],
    ),
}


def entries(state):
    return state.items() if isinstance(state, dict) else enumerate(state)


def assert_same(found, expected, rel, where="state"):
    """Same keys, types, shapes, dtypes and strides; values up to a relative difference."""
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.device == expected.device, where
        assert found.shape == expected.shape and found.stride() == expected.stride(), where
        assert found.requires_grad == expected.requires_grad, where
        scale = expected.abs().max().item() if expected.numel() else 1.0
        assert torch.allclose(found, expected, rtol=rel, atol=rel * scale), where
    elif isinstance(expected, dict | list | tuple):
        assert len(found) == len(expected), where
        for (key, one), (other, two) in zip(entries(found), entries(expected), strict=True):
            assert key == other, where
            assert_same(one, two, rel, f"{where}/{key}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-14, abs=1e-300), where
    else:
        assert found == expected or callable(found), where


def assert_same_fit(found, expected, rel):
    assert_same([leaf.detach() for leaf in found.leaves], [leaf.detach() for leaf in expected.leaves], rel, "leaves")
    assert_same(found.optimizer.state_dict(), expected.optimizer.state_dict(), rel)
    if expected.scheduler is not None:
        assert_same(found.scheduler.state_dict(), expected.scheduler.state_dict(), rel, "schedule")


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_steps_are_those_of_torch(name):
    expected = Fit(OPTIMISERS[name]()).eager(100)
    start = Fit(OPTIMISERS[name]()).leaves
    assert any((a - b).abs().max() > 0.03 for a, b in zip(start, expected.leaves, strict=True) if a.numel())
    assert_same_fit(Fit(OPTIMISERS[name]()).planned(100), expected, DOUBLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_steps_in_single_precision(name):
    expected = Fit(OPTIMISERS[name](), torch.float32).eager(100)
    assert_same_fit(Fit(OPTIMISERS[name](), torch.float32).planned(100), expected, SINGLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_eager_and_planned_steps_may_alternate(name):
    expected = Fit(OPTIMISERS[name]()).eager(43)
    found = Fit(OPTIMISERS[name]()).eager(3)
    plan = found.plan()
    found.planned(1, plan).planned(7, plan, looked=20).eager(11).planned(20, plan).eager(1)
    assert plan.current()
    assert_same_fit(found, expected, DOUBLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_state_dict_made_after_planned_steps_can_be_gone_on_from(name):
    expected = Fit(OPTIMISERS[name]()).eager(30)
    first, second = Fit(OPTIMISERS[name]()).planned(10), Fit(OPTIMISERS[name]())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    if second.scheduler is not None:
        second.scheduler.load_state_dict(copy.deepcopy(first.scheduler.state_dict()))
    with torch.no_grad():
        for mine, theirs in zip(second.leaves, first.leaves, strict=True):
            mine.copy_(theirs)
    second.num_steps = 10
    assert_same_fit(second.planned(10).eager(10), expected, DOUBLE)
