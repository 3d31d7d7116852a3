"""Optimisers for SVI in all their spellings, against updates by hand."""

import copy
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ppl
from ppl import optim
from ppl.distributions import constraints
from ppl.infer import SVI


def cost(weights=(1.0, 1.0)):
    """Loss wa (a - 3)² + wb (b + 1)², without a random site: gradients are known."""
    a, b = ppl.param("a", torch.tensor(0.0)), ppl.param("b", torch.tensor(0.0))
    ppl.factor("f", -(weights[0] * (a - 3) ** 2 + weights[1] * (b + 1) ** 2))


def svi_with(optimiser, model=cost):
    return SVI(model, lambda *args: None, optimiser)


def values(svi):
    return [svi.params[name].item() for name in ("a", "b")]


SPELLINGS = {
    "of ppl": optim.SGD({"lr": 0.1}),
    "of ppl, by function": optim.SGD(lambda name: {"lr": 0.1}),
    "a factory": lambda params: torch.optim.SGD(params, lr=0.1),
    "the core": optim.Optimizer(torch.optim.SGD, {"lr": 0.1}),
}


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_every_spelling_takes_the_same_step(name):
    svi = svi_with(SPELLINGS[name])
    assert svi.step() == pytest.approx(10.0)
    assert values(svi) == pytest.approx([0.1 * 6.0, -0.1 * 2.0])
    svi.step()
    assert values(svi) == pytest.approx([0.6 + 0.1 * 2 * 2.4, -0.2 - 0.1 * 2 * 0.8])


def test_a_class_of_torch_is_used_with_its_defaults():
    svi = svi_with(torch.optim.Adam)
    svi.step()
    assert type(svi.optimizer) is torch.optim.Adam and svi.optimizer.param_groups[0]["lr"] == 1e-3
    assert values(svi) == pytest.approx([1e-3, -1e-3], rel=1e-6)  # Adam's first step is its learning rate


@pytest.mark.parametrize(
    "name",
    [
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "ASGD",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    ],
)
def test_our_spelling_equals_torchs_optimiser(name):
    svi = svi_with(getattr(optim, name)({"lr": 0.05}))
    a, b = torch.tensor(0.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    plain = getattr(torch.optim, name)([a, b], lr=0.05)
    for _ in range(5):
        svi.step()
        plain.zero_grad()
        ((a - 3) ** 2 + (b + 1) ** 2).backward()
        plain.step()
    assert values(svi) == pytest.approx([a.item(), b.item()], abs=1e-12)
    assert getattr(optim, name).__name__ == name


def test_options_by_parameter_go_to_that_parameter():
    svi = svi_with(optim.SGD(lambda name: {"lr": 0.1 if name == "a" else 0.01}))
    svi.step()
    assert values(svi) == pytest.approx([0.6, -0.02])
    assert [group["lr"] for group in svi.optimizer.param_groups] == [0.1, 0.01]


def test_equal_options_share_a_group():
    svi = svi_with(optim.Adam(lambda name: {"lr": 0.1}))
    svi.step()
    assert [len(group["params"]) for group in svi.optimizer.param_groups] == [2]


# -- clipping


def test_the_norm_of_all_gradients_together_is_bounded():
    svi = svi_with(optim.SGD({"lr": 1.0}, clip_args={"clip_norm": 1.0}))
    svi.step()
    norm = math.hypot(6.0, 2.0)
    assert values(svi) == pytest.approx([6.0 / norm, -2.0 / norm], rel=1e-5)


def test_each_entry_of_the_gradients_is_bounded():
    svi = svi_with(optim.SGD({"lr": 1.0}, clip_args={"clip_value": 2.5}))
    svi.step()
    assert values(svi) == pytest.approx([2.5, -2.0])


def test_an_unknown_bound_is_an_error():
    with pytest.raises(ValueError, match=r"\['norm'\].*clip_norm and clip_value"):
        optim.Adam({"lr": 0.1}, clip_args={"norm": 1.0})


def test_clipped_adam_against_a_computation_by_hand():
    """Gradient entries within ±clip_norm, the learning rate times lrd before each step, then Adam."""
    lr, lrd, bound, beta1, beta2, eps = 0.1, 0.9, 4.0, 0.8, 0.95, 1e-8
    svi = svi_with(optim.ClippedAdam({"lr": lr, "lrd": lrd, "clip_norm": bound, "betas": (beta1, beta2), "eps": eps}))
    x, m, v = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 8):
        svi.step()
        for k, centre in enumerate((3.0, -1.0)):
            g = min(max(2 * (x[k] - centre), -bound), bound)
            m[k] = beta1 * m[k] + (1 - beta1) * g
            v[k] = beta2 * v[k] + (1 - beta2) * g * g
            step = lr * lrd**t * (m[k] / (1 - beta1**t)) / (math.sqrt(v[k] / (1 - beta2**t)) + eps)
            x[k] -= step
        assert values(svi) == pytest.approx(x, abs=1e-12)


def test_clipped_adam_has_pyros_defaults():
    svi = svi_with(optim.ClippedAdam({"lr": 0.1}))
    svi.step()
    assert (svi.optimizer.clip_norm, svi.optimizer.lrd) == (10.0, 1.0)
    assert values(svi) == pytest.approx([0.1, -0.1], rel=1e-6)


# -- schedules

SCHEDULES = {
    "ExponentialLR": ({"gamma": 0.9}, lambda n: 0.1 * 0.9**n),
    "StepLR": ({"step_size": 2, "gamma": 0.5}, lambda n: 0.1 * 0.5 ** (n // 2)),
    "MultiStepLR": ({"milestones": [1, 4], "gamma": 0.5}, lambda n: 0.1 * 0.5 ** ((n >= 1) + (n >= 4))),
    "LambdaLR": ({"lr_lambda": lambda n: 1 / (1 + n)}, lambda n: 0.1 / (1 + n)),
    "CosineAnnealingLR": ({"T_max": 10}, lambda n: 0.05 * (1 + math.cos(math.pi * n / 10))),
    "ConstantLR": ({"factor": 0.5, "total_iters": 3}, lambda n: 0.05 if n < 3 else 0.1),
}


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_the_learning_rate_after_n_steps_is_the_schedules(name):
    options, expected = SCHEDULES[name]
    svi = svi_with(getattr(optim, name)({"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, **options}))
    a = 0.0
    for n in range(6):
        svi.setup() if n == 0 else None
        assert svi.optimizer.param_groups[0]["lr"] == pytest.approx(expected(n), abs=1e-12)
        svi.step()
        a -= expected(n) * 2 * (a - 3)
        assert svi.params["a"].item() == pytest.approx(a, abs=1e-12)


def test_a_schedule_may_wrap_our_spelling_and_options_by_parameter():
    inner = optim.SGD(lambda name: {"lr": 0.1 if name == "a" else 0.01})
    svi = svi_with(optim.ExponentialLR({"optimizer": inner, "gamma": 0.5}))
    for _ in range(3):
        svi.step()
    assert [group["lr"] for group in svi.optimizer.param_groups] == pytest.approx([0.1 / 8, 0.01 / 8])


def test_a_schedule_may_be_clipped_by_itself_or_by_the_optimiser_inside():
    options = {"optim_args": {"lr": 1.0}, "gamma": 0.5}
    bound = {"clip_value": 1.0}
    outer = optim.ExponentialLR({"optimizer": torch.optim.SGD, **options}, clip_args=bound)
    inner = optim.ExponentialLR({"optimizer": optim.SGD({"lr": 1.0}, clip_args=bound), "gamma": 0.5})
    for optimiser in (outer, inner):
        svi = svi_with(optimiser)
        svi.step()
        assert values(svi) == pytest.approx([1.0, -1.0])


def test_a_schedule_without_an_optimiser_is_an_error():
    with pytest.raises(ValueError, match="a schedule needs its optimiser"):
        optim.ExponentialLR({"gamma": 0.9})


# -- what SVI takes


def test_one_optimiser_may_serve_two_svis():
    shared = optim.Adam({"lr": 0.1})
    one, two = svi_with(shared), svi_with(shared)
    one.run(5, progress_bar=False)
    two.run(5, progress_bar=False)
    assert values(one) == values(two) and one.optimizer is not two.optimizer


def test_an_optimiser_bound_to_parameters_is_an_error():
    bound = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    with pytest.raises(ValueError, match=r"already bound.*ppl\.optim\.Adam"):
        svi_with(bound)


def test_what_is_no_optimiser_is_an_error():
    with pytest.raises(ValueError, match="expected an optimiser"):
        svi_with("adam")


def test_a_program_without_parameters_takes_steps_all_the_same():
    svi = SVI(lambda: ppl.factor("f", torch.tensor(-2.0)), lambda: None, optim.Adam({"lr": 0.1}))
    assert [svi.step(), svi.step()] == [2.0, 2.0] and svi.optimizer is None


def test_a_frozen_module_parameter_stays():
    layer = torch.nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    before = layer.bias.clone()

    def model():
        ppl.module("layer", layer)
        ppl.factor("f", -layer(torch.ones(1)).square().sum())

    svi = svi_with(optim.SGD({"lr": 0.1}), model)
    svi.run(3, progress_bar=False)
    assert torch.equal(layer.bias, before) and svi.params.keys() == ["layer.weight"]


def test_constrained_parameters_move_in_unconstrained_space():
    def model():
        p = ppl.param("p", torch.tensor(2.0), constraint=constraints.positive)
        ppl.factor("f", -3.0 * p.log())

    svi = svi_with(optim.SGD({"lr": 0.1}), model)
    svi.step()
    assert svi.params["p"].item() == pytest.approx(math.exp(math.log(2.0) - 0.3))


def test_a_fused_step_counts_as_a_change_of_the_parameters():
    leaf = torch.zeros(2, requires_grad=True)
    optimizer = ppl.optim.Adam({"lr": 0.1}).build([("leaf", leaf)])
    leaf.grad = torch.ones(2)
    before = leaf._version
    optimizer.step()
    assert leaf._version > before


# -- without torch's compiler


LEAN = [
    (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.Adam, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-6, "maximize": True}),
    (torch.optim.Adam, {"lr": torch.tensor(0.05)}),
    (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (torch.optim.RMSprop, {"lr": 0.05, "centered": True}),
    (torch.optim.Adagrad, {"lr": 0.05}),
    (torch.optim.NAdam, {"lr": 0.05}),
    (torch.optim.LBFGS, {"lr": 0.5}),
]


def leaves_and_loss():
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((), (3,), (2, 5))]

    def loss():
        for leaf in leaves:
            leaf.grad = None
        total = sum(((leaf - 1.0).square() * (leaf + 2.0).cos()).sum() for leaf in leaves)
        total.backward()
        return total

    return leaves, loss


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(("torch_class", "options"), LEAN, ids=[c.__name__ for c, _ in LEAN])
def test_steps_have_the_same_bits_as_torchs(torch_class, options, fused):
    ours, our_loss = leaves_and_loss()
    theirs, their_loss = leaves_and_loss()
    if fused is not None and torch_class in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad):
        options = {**options, "fused": fused}
    one = getattr(optim, torch_class.__name__)(options).build([(str(i), leaf) for i, leaf in enumerate(ours)])
    two = torch_class(theirs, **{**options, **({"fused": True} if one.defaults.get("fused") else {})})
    for _ in range(10):
        our_loss(), their_loss()
        one.step(our_loss if torch_class is torch.optim.LBFGS else None)
        two.step(their_loss if torch_class is torch.optim.LBFGS else None)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    mine, yours = one.state_dict(), two.state_dict()
    assert mine["param_groups"] == yours["param_groups"]
    torch.testing.assert_close(mine["state"], yours["state"], rtol=0, atol=0)
    two.load_state_dict(mine)
    one.load_state_dict(yours)


@pytest.mark.parametrize("torch_class", [torch.optim.Adam, torch.optim.AdamW])
def test_parameters_without_gradients_and_of_several_types_have_the_same_bits_as_torchs(torch_class):
    def leaves():
        return [
            torch.ones(2, requires_grad=True),
            torch.ones(3, dtype=torch.float32, requires_grad=True),
            torch.ones(1),
        ]

    ours, theirs = leaves(), leaves()
    one = getattr(optim, torch_class.__name__)({"lr": 0.05}).build([(str(i), leaf) for i, leaf in enumerate(ours)])
    two = torch_class(theirs, lr=0.05, fused=True)
    for step in range(4):
        for i, (a, b) in enumerate(zip(ours[:2], theirs[:2], strict=True)):
            a.grad = torch.full_like(a, step - 1.5) if i or step != 2 else None
            b.grad = None if a.grad is None else a.grad.clone()
        one.step(), two.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    torch.testing.assert_close(one.state_dict()["state"], two.state_dict()["state"], rtol=0, atol=0)


def test_hooks_of_a_step_are_called():
    leaf = torch.zeros(2, requires_grad=True)
    leaf.grad = torch.ones(2)
    optimizer = optim.Adam({"lr": 0.1}).build([("leaf", leaf)])
    seen = []
    optimizer.register_step_pre_hook(lambda *args: seen.append(leaf.tolist()))
    optimizer.register_step_post_hook(lambda *args: seen.append(leaf.tolist()))
    optimizer.step()
    assert seen == [[0.0, 0.0], pytest.approx([-0.1, -0.1])]


def test_optimisers_survive_pickling_and_copying():
    leaf = torch.zeros(2, requires_grad=True)
    leaf.grad = torch.ones(2)
    optimizer = optim.Adam({"lr": 0.1}).build([("leaf", leaf)])
    optimizer.step()
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert type(twin) is type(optimizer) and isinstance(twin, torch.optim.Adam)
        (other,) = twin.param_groups[0]["params"]
        other.grad = torch.ones(2)
        twin.step()
        assert other.tolist() == pytest.approx([-0.2, -0.2])


def test_the_first_step_does_not_import_torchs_compiler():
    program = """
import sys, torch, ppl
from ppl.infer import SVI
for optimiser in (ppl.optim.Adam, ppl.optim.ClippedAdam, ppl.optim.SGD, ppl.optim.RMSprop, ppl.optim.AdamW):
    svi = SVI(lambda: ppl.factor("f", ppl.param("a", torch.tensor(1.0))), lambda: None, optimiser({"lr": 0.1}))
    svi.step()
    svi.load_state_dict(svi.state_dict())
    svi.step()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(ppl.__file__).parent.parent)
