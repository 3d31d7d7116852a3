"""How a plan lays out an optimiser, what it refuses, and what a graph gets of it."""

import copy
import subprocess
import sys

import pytest
import torch
from optimizer_cases import DOUBLE, OPTIMISERS, Fit, assert_same, assert_same_fit, options_by_name, scheduled
from torch.fx.experimental.proxy_tensor import make_fx

from ppl import optim
from ppl.engine.optimizers import Outdated, Unsupported, plan_of, unpack, update

# -- layout


def test_small_leaves_share_a_vector_and_a_large_one_keeps_its_shape():
    fit = Fit(optim.Adam({"lr": 0.1}))
    plan = fit.plan()
    assert [pack["leaves"] for pack in plan.packs] == [[0, 1, 2, 4, 5], [3]]
    assert [carry.shape for carry in plan.gather()] == [(13,)] * 3 + [(65, 64)] * 3
    assert plan.rows(5).shape == (5, 2) == (5, plan.width)
    for value, leaf in zip(unpack(plan.packs, plan.gather()), fit.leaves, strict=True):
        assert torch.equal(value, leaf)


def test_what_is_gathered_has_memory_of_its_own():
    fit = Fit(optim.SGD({"lr": 0.1, "momentum": 0.9}), shapes=[(3,), (64, 64), (5000,)])
    fit.eager(1)
    before = copy.deepcopy(fit.optimizer.state_dict()), [leaf.detach().clone() for leaf in fit.leaves]
    for carry in fit.plan().gather():
        assert not carry.requires_grad
        carry.fill_(7.0)
    assert_same((fit.optimizer.state_dict(), [leaf.detach() for leaf in fit.leaves]), before, 0)


def test_large_leaves_need_not_be_copied():
    fit = Fit(optim.SGD({"lr": 0.1, "momentum": 0.9}), shapes=[(3,), (64, 64), (1,), (70, 60)]).eager(1)
    fit.leaves[3].data = fit.leaves[3].data.t().contiguous().t()
    plan = fit.plan()
    for one, two in zip(plan.gather(own=False), plan.gather(), strict=True):
        assert torch.equal(one, two) and one.is_contiguous() and not one.requires_grad
    large = fit.leaves[1]
    assert plan.gather(own=False)[2].data_ptr() == large.data_ptr() != plan.gather()[2].data_ptr()


def test_going_back_to_the_start_of_a_block():
    for name in ("Adam", "SGD, dampening", "RMSprop, all"):
        for before in (0, 2):
            fit = Fit(OPTIMISERS[name]()).eager(before)
            start = copy.deepcopy((fit.optimizer.state_dict(), [leaf.detach() for leaf in fit.leaves]))
            plan = fit.plan()
            carries = plan.gather()
            with torch.no_grad():
                fit.leaves[0].fill_(float("nan"))
            plan.scatter(carries, 0)
            assert_same((fit.optimizer.state_dict(), [leaf.detach() for leaf in fit.leaves]), start, 0)


def test_packs_differ_in_dtype_group_and_number_of_steps():
    fit = Fit(optim.Adam(options_by_name({"lr": 0.1}, {"lr": 0.2})), shapes=[(2,)] * 6)
    fit.leaves[2].data = fit.leaves[2].data.float()
    fit.leaves[3].grad = torch.ones(2)
    fit.optimizer.step()  # leaf 3 is ahead of the others
    plan = fit.plan()
    assert [pack["leaves"] for pack in plan.packs] == [[0, 4], [1, 5], [2], [3]]
    assert plan.rows(2).dtype == torch.float64
    assert plan.width == 6  # group 0, group 1, and group 1 a step ahead


def with_late_leaves(optimiser, planned):
    """Ten steps of four leaves, the last two of which join after three steps; different dtypes too."""
    fit = Fit(optimiser(), shapes=[(2,), (3,), (4,), (70, 70)])
    single = fit.leaves[1].detach().float().requires_grad_()
    fit.optimizer.param_groups[0]["params"][1] = fit.leaves[1] = single
    fit.scales[1], fit.centres[1] = fit.scales[1].float(), fit.centres[1].float()
    kept = fit.leaves, fit.scales, fit.centres
    fit.leaves, fit.scales, fit.centres = ([*k[:2]] for k in kept)
    (fit.planned if planned else fit.eager)(3)
    fit.leaves, fit.scales, fit.centres = kept
    return (fit.planned if planned else fit.eager)(7)


@pytest.mark.parametrize("name", ["Adam", "SGD, dampening, not fused", "RMSprop, all", "clip_norm", "AdamW"])
def test_leaves_may_differ_in_dtype_and_in_the_number_of_steps(name):
    expected, found = (with_late_leaves(OPTIMISERS[name], planned) for planned in (False, True))
    assert_same_fit(found, expected, (1e-6, 1e-6))
    for i in (0, 2, 3) if name != "clip_norm" else ():
        assert_same(found.leaves[i], expected.leaves[i], 1e-13)
    assert len({id(leaf) for leaf in found.leaves}) == 4


def test_leaves_with_other_strides_keep_them():
    def fit():
        made = Fit(optim.Adam({"lr": 0.1}), shapes=[(3, 2), (70, 60)])
        for leaf in made.leaves:
            leaf.data = leaf.data.t().contiguous().t()
        return made

    assert not fit().leaves[0].is_contiguous()
    assert_same_fit(fit().planned(5), fit().eager(5), DOUBLE)


def test_leaves_without_gradients_are_left_alone():
    fit = Fit(optim.Adam({"lr": 0.1}), shapes=[(2,), (3,)])
    idle = fit.leaves.pop()
    before, version = idle.detach().clone(), idle._version
    fit.scales.pop(), fit.centres.pop()
    fit.planned(3)
    assert torch.equal(idle, before) and idle._version == version and idle not in fit.optimizer.state


def test_scatter_writes_in_place_and_counts_as_a_change():
    fit = Fit(optim.Adam({"lr": 0.1}))
    versions, places = [x._version for x in fit.leaves], [x.data_ptr() for x in fit.leaves]
    fit.planned(2)
    assert all(x._version > v for x, v in zip(fit.leaves, versions, strict=True))
    assert places == [x.data_ptr() for x in fit.leaves]


def test_no_step_makes_no_state():
    fit = Fit(optim.Adam({"lr": 0.1}))
    plan = fit.plan()
    plan.scatter([carry + 1 for carry in plan.gather()], 0)
    plan.commit(0)
    assert fit.optimizer.state_dict()["state"] == {}
    assert torch.allclose(fit.leaves[0], Fit(optim.Adam({"lr": 0.1})).leaves[0] + 1)


# -- what does not fit


class Halved(torch.optim.Adam):
    def step(self, closure=None):
        return super().step(closure)


class Renamed(torch.optim.Adam):
    """The same update, other defaults."""

    def __init__(self, params):
        super().__init__(params, lr=0.07)


def test_a_subclass_that_only_has_other_defaults_is_known():
    found, expected = Fit(lambda params: Renamed(params)), Fit(lambda params: Renamed(params))
    assert_same_fit(found.planned(5), expected.eager(5), DOUBLE)


@pytest.mark.parametrize(
    ("optimiser", "reason"),
    [
        (optim.Adagrad({"lr": 0.1}), "Adagrad has an update rule"),
        (optim.NAdam({"lr": 0.1}), "NAdam has an update rule"),
        (torch.optim.Rprop, "Rprop has an update rule"),
        (Halved, "Halved has an update rule"),
        (optim.Adam({"lr": torch.tensor(0.1), "fused": True}), "option lr is a tensor"),
        (optim.SGD({"lr": 0.1, "differentiable": True}), "option differentiable is set"),
        (scheduled(optim.ReduceLROnPlateau), "ReduceLROnPlateau follows the losses"),
    ],
)
def test_what_no_graph_can_hold_is_refused(optimiser, reason):
    with pytest.raises(Unsupported, match=reason):
        Fit(optimiser).plan()


def test_hooks_and_foreign_parameters_are_refused():
    fit = Fit(optim.Adam({"lr": 0.1}))
    with pytest.raises(Unsupported, match="in no group"):
        plan_of(fit.optimizer, [torch.zeros(2, requires_grad=True)])
    fit.optimizer.register_step_post_hook(lambda *args: None)
    with pytest.raises(Unsupported, match="hooks"):
        fit.plan()
    half = Fit(optim.Adam({"lr": 0.1}), torch.bfloat16)
    with pytest.raises(Unsupported, match="bfloat16"):
        half.plan()


def test_a_step_put_on_the_object_is_refused():
    fit = Fit(torch.optim.SGD)
    fit.optimizer.step = lambda closure=None: None
    with pytest.raises(Unsupported, match="SGD has an update rule"):
        fit.plan()


def test_a_plan_notices_that_options_have_changed():
    fit = Fit(optim.Adam({"lr": 0.1}))
    plan = fit.plan()
    fit.optimizer.param_groups[0]["lr"] = 0.2  # no constant
    assert plan.current() and plan.rows(1)[0, 0].item() == pytest.approx(0.2 / (1 - 0.9))
    fit.optimizer.param_groups[0]["weight_decay"] = 0.1
    assert not plan.current()
    with pytest.raises(Outdated):
        plan.rows(1)


def test_a_plan_notices_that_leaves_are_out_of_step():
    fit = Fit(optim.Adam({"lr": 0.1}))
    plan = fit.plan()
    fit.leaves[0].grad = torch.ones_like(fit.leaves[0])
    fit.optimizer.step()
    assert not plan.current()


# -- graphs


@pytest.mark.parametrize(("name", "most"), [("Adam", 20), ("SGD", 8), ("RMSprop, all", 25), ("clip both", 40)])
def test_the_update_is_a_graph_of_few_operations(name, most):
    fit = Fit(OPTIMISERS[name](), shapes=[(2,)] * 30)
    plan = fit.plan()
    carries, row = plan.gather(), plan.rows(3)[1]
    grads = [[torch.full((2,), 0.3) for _ in pack["leaves"]] for pack in plan.packs]

    def step(carries, grads, row):
        return update(plan.packs, carries, grads, row, plan.clip)

    graph = make_fx(step)(carries, grads, row)
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    reshapes = [node for node in calls if "view" in str(node.target)]
    assert len(calls) - len(reshapes) <= most
    assert not any(str(node.target).split(".")[1].endswith("_") for node in calls)  # nothing in place
    for one, two in zip(graph(carries, grads, row), step(carries, grads, row), strict=True):
        assert torch.equal(one, two)
    for carry, again in zip(carries, plan.gather(), strict=True):
        assert torch.equal(carry, again)


def test_importing_the_module_does_not_import_the_compiler():
    code = "import sys, ppl.engine.optimizers; print('torch._dynamo' in sys.modules, 'torch._inductor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
