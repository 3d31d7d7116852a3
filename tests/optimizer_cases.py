"""Optimisers of every kind, and a fit whose steps are taken eagerly, as SVI takes them, or by a plan."""

import json
import math

import pytest
import torch

from ppl import optim
from ppl.engine.optimizers import plan_of, unpack, update

SHAPES = [(3,), (), (2, 4), (65, 64), (0,), (1, 1)]  # one large, one empty

# greatest differences after 100 steps, relative to the largest entry or to 1, of parameters and of buffers: in single
# precision, torch's own runs differ from those in double precision by up to 4e-6 in the parameters
DOUBLE, SINGLE = (1e-12, 1e-12), (2e-6, 2e-4)


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

    def gradients(self, leaves):
        """Of 2 log cosh(x - c) + sin x, scaled; not linear, and other at every leaf."""
        with torch.no_grad():
            terms = zip(leaves, self.scales, self.centres, strict=True)
            return [s * (2 * torch.tanh(x - c) + x.cos()) for x, s, c in terms]

    def eager(self, num):
        for _ in range(num):
            for leaf, gradient in zip(self.leaves, self.gradients(self.leaves), strict=True):
                leaf.grad = torch.empty_like(leaf).copy_(gradient)  # with the leaf's strides, as autograd sees to
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
            gradients = self.gradients(unpack(statics, carries))
            by_pack = [[gradients[i] for i in static["leaves"]] for static in statics]
            carries = update(statics, carries, by_pack, row, clip)
        plan.scatter(carries, num)
        plan.commit(num)
        self.num_steps += num
        return self


def options_by_name(first, second):
    """Two groups, taken in turn."""
    return lambda name: dict(first if int(name.split()[1]) % 2 else second)


def scheduled(schedule, inner=optim.Adam, inner_args=None, **options):
    return schedule({"optimizer": inner(inner_args or {"lr": 0.05}), **options})


OPTIMISERS = {
    "Adam": lambda: optim.Adam({"lr": 0.05}),
    "Adam, decay": lambda: optim.Adam({"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-4}),
    "Adam, beta1 below a half": lambda: optim.Adam({"lr": 0.05, "betas": (0.3, 0.99), "eps": 0.1}),
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
    "SGD, dampening, not fused": lambda: optim.SGD(
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.4, "foreach": False, "fused": False}
    ),
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
        optim.CyclicLR,
        optim.SGD,
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.1},
        base_lr=0.01,
        max_lr=0.05,
        step_size_up=9,
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
        bound = rel * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)  # gradients are of order 1
        assert (found - expected).abs().sum() == 0 or (found - expected).abs().max() < bound, where
    elif isinstance(expected, dict | list | tuple):
        assert len(found) == len(expected), where
        for (key, one), (other, two) in zip(entries(found), entries(expected), strict=True):
            assert key == other, where
            assert_same(one, two, rel, f"{where}/{key}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-14, abs=1e-300), where
    else:
        assert found == expected or callable(found), where


def assert_same_fit(found, expected, bounds):
    of_leaves, of_state = bounds
    assert_same(
        [leaf.detach() for leaf in found.leaves], [leaf.detach() for leaf in expected.leaves], of_leaves, "leaves"
    )
    assert_same(found.optimizer.state_dict(), expected.optimizer.state_dict(), of_state)
    if expected.scheduler is not None:
        assert_same(found.scheduler.state_dict(), expected.scheduler.state_dict(), of_state, "schedule")
