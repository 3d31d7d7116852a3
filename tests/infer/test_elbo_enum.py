"""TraceEnum_ELBO, value and gradients, against sums over the joint of all discrete sites, in float64 to 1e-10."""

import models
import pytest
import torch
from models import MARKS, brute_elbo, nested_elbo, nested_evidence, nested_guide, nested_model

import ppl
import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.handlers import mask, scale
from ppl.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

MARKED = ["parallel", "sequential"]
LEVELS = torch.tensor([-1.0, 0.4, 2.0])


def assert_exact(store, loss, elbo):
    """A loss equals an exact bound, with its gradients by all parameters."""
    assert torch.allclose(-loss, elbo, atol=1e-10, rtol=0), f"{-loss.item()} instead of {elbo.item()}"
    leaves = [leaf for _, leaf in store.named_unconstrained()]
    ours = torch.autograd.grad(-loss, leaves, allow_unused=True)
    theirs = torch.autograd.grad(elbo, leaves, allow_unused=True)
    for name, a, b in zip(store, ours, theirs, strict=True):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        assert torch.allclose(a, b, atol=1e-10, rtol=0), f"gradient of {name}: {a} instead of {b}"


def check(model, guide, in_guide, in_model, *args, **options):
    store = ppl.ParamStore()
    with store:
        elbo = brute_elbo(model, guide, in_guide, in_model, *args)
        loss = TraceEnum_ELBO(**options)(model, guide, *args)
    assert_exact(store, loss, elbo)


def nothing(*args):
    pass


def probs(name, *shape):
    return ppl.param(name, lambda: torch.rand(*shape).softmax(-1), constraint=constraints.simplex)


# -- flat


def chain(marks, expand=False):
    """Three discrete sites, each depending on those before, around data."""

    def model(*args):
        infers = [{"enumerate": m, "expand": expand} for m in marks]
        a = ppl.sample("a", dist.Categorical(probs("pa", 3)), infer=infers[0])
        b = ppl.sample("b", dist.Bernoulli(probs("pb", 3)[a]), infer=infers[1])
        c = ppl.sample("c", dist.Categorical(probs("pc", 3, 2, 3)[a, b.long()]), infer=infers[2])
        ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[c] + b, 1.1), obs=torch.tensor(0.7))

    return model


CHAIN = {"a": (3, ()), "b": (2, ()), "c": (3, ())}


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("marks", [(p, q, r) for p in MARKED for q in MARKED for r in MARKED], ids="-".join)
def test_dependent_sites_of_the_model_are_summed(marks, expand):
    check(chain(marks, expand), nothing, {}, CHAIN)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("marks", [(p, q, r) for p in MARKED for q in MARKED for r in MARKED], ids="-".join)
def test_dependent_sites_of_the_guide_are_averaged(marks, expand):
    def guide():
        infers = [{"enumerate": m, "expand": expand} for m in marks]
        c = ppl.sample("c", dist.Categorical(probs("qc", 3)), infer=infers[2])
        a = ppl.sample("a", dist.Categorical(probs("qa", 3, 3)[c]), infer=infers[0])
        ppl.sample("b", dist.Bernoulli(probs("qb", 3, 3)[a, c]), infer=infers[1])

    check(chain(marks), guide, CHAIN, {})


@pytest.mark.parametrize("mark", MARKED)
def test_some_sites_are_averaged_in_the_guide_and_the_rest_summed_in_the_model(mark):
    def guide():
        ppl.sample("b", dist.Bernoulli(probs("qb", 3)[0]), infer={"enumerate": mark})

    rest = {name: CHAIN[name] for name in ("a", "c")}
    for others in MARKED:
        check(chain((others, mark, others)), guide, {"b": CHAIN["b"]}, rest)


def test_branches_that_agree_in_value_keep_their_own_gradients():
    """Where both locations start alike, the values tell nothing of the dependence on z."""
    losses, grads = [], []
    for mark in MARKED:
        locs = torch.zeros(2, requires_grad=True)

        def model(mark=mark, locs=locs):
            z = ppl.sample("z", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": mark})
            ppl.sample("x", dist.Normal(locs[z.long()], 1.0), obs=torch.tensor(1.0))

        loss = TraceEnum_ELBO()(model, nothing)
        losses.append(loss)
        grads.append(torch.autograd.grad(loss, locs)[0])
    assert torch.allclose(losses[0], losses[1], atol=1e-12)
    for grad in grads:
        assert torch.allclose(grad, torch.tensor([-0.7, -0.3]), atol=1e-12)


def test_python_may_branch_on_a_sequential_site_and_make_other_sites():
    def model():
        z = ppl.sample("z", dist.Bernoulli(probs("p", 2)[0]), infer={"enumerate": "sequential"})
        loc = ppl.param("loc", torch.tensor(0.0))
        other = ppl.param("other", torch.tensor(0.0))
        if z.item():
            w = ppl.sample("w", dist.Categorical(probs("pw", 3)), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(loc + w, 1.0), obs=torch.tensor(0.8))
        else:
            v = ppl.sample("v", dist.Bernoulli(probs("pv", 2)[0]), infer={"enumerate": "sequential"})
            ppl.sample("y", dist.Normal(other + v, 1.0), obs=torch.tensor(-0.3))

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing)
    p = store
    left = (p["pw"].log() + models.normal_term(0.8, p["loc"] + torch.arange(3.0), 1.0)).logsumexp(0)
    right = (
        models.log_bernoulli(p["pv"][0], models.ZERO_ONE) + models.normal_term(-0.3, p["other"] + models.ZERO_ONE, 1.0)
    ).logsumexp(0)
    evidence = (models.log_bernoulli(p["p"][0], models.ZERO_ONE) + torch.stack([right, left])).logsumexp(0)
    assert_exact(store, loss, evidence)


def test_a_guide_may_branch_on_a_sequential_site():
    def program(mark):
        z = ppl.sample("z", dist.Bernoulli(unit()), infer={"enumerate": mark})
        if z.item():
            ppl.sample("w", dist.Categorical(probs("qw", 3)), infer={"enumerate": "parallel"})

    def unit():
        return ppl.param("q", torch.tensor(0.4), constraint=constraints.unit_interval)

    def model():
        z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        w = (
            ppl.sample("w", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), infer={"enumerate": "parallel"})
            if z.item()
            else torch.zeros(())
        )
        ppl.sample("x", dist.Normal(LEVELS[w.long()] + z, 1.0), obs=torch.tensor(0.5))

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, lambda: program("sequential"))
    q, qw = store["q"], store["qw"]
    zero = models.log_bernoulli(0.3, 0.0) + models.normal_term(0.5, LEVELS[0], 1.0) - (1 - q).log()
    inner = torch.tensor([0.2, 0.3, 0.5]).log() + models.normal_term(0.5, LEVELS + 1, 1.0) - qw.log()
    one = models.log_bernoulli(0.3, 1.0) - q.log() + (qw * inner).sum()
    assert_exact(store, loss, (1 - q) * zero + q * one)


# -- plates


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_nested_plates_are_summed_in_the_model(mark):
    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(nested_model, nothing, MARKS, mark)
    assert_exact(store, loss, nested_evidence(store))


@pytest.mark.parametrize("mark", ["parallel", "sequential"])
def test_nested_plates_are_averaged_in_the_guide(mark):
    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(nested_model, nested_guide, MARKS, mark)
    assert_exact(store, loss, nested_elbo(store))


def grid(marks):
    """A global site, one in each of two crossed plates' outer one, one in the crossing."""

    def model(data):
        a = ppl.sample("a", dist.Categorical(probs("pa", 2)), infer={"enumerate": marks[0]})
        with ppl.plate("i", 2, dim=-2):
            b = ppl.sample("b", dist.Categorical(probs("pb", 2, 2)[a]), infer={"enumerate": marks[1]})
            with ppl.plate("j", 2, dim=-1):
                c = ppl.sample("c", dist.Categorical(probs("pc", 2, 2, 2)[a, b]), infer={"enumerate": marks[2]})
                ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS[:2])[c] + a, 0.9), obs=data)

    return model


DATA = torch.tensor([[0.3, -1.2], [1.7, 0.6]])
GRID = {"a": (2, ()), "b": (2, (2, 1)), "c": (2, (2, 2))}


@pytest.mark.parametrize(
    "marks",
    [
        ("parallel",) * 3,
        ("sequential", "parallel", "parallel"),
        ("parallel", "sequential", "parallel"),
        ("sequential",) * 3,
    ],
    ids="-".join,
)
def test_nested_plates_equal_the_sum_over_the_joint(marks):
    check(grid(marks), nothing, {}, GRID, DATA)


@pytest.mark.parametrize("mark", MARKED)
def test_a_local_site_in_the_guide_and_the_others_in_the_model(mark):
    def guide(data):
        with ppl.plate("i", 2, dim=-2):
            ppl.sample("b", dist.Categorical(probs("qb", 2, 1, 2)), infer={"enumerate": mark})

    def model(data):
        with ppl.plate("i", 2, dim=-2):
            b = ppl.sample("b", dist.Categorical(probs("pb", 2)), infer={"enumerate": mark})
            with ppl.plate("j", 2, dim=-1):
                c = ppl.sample("c", dist.Categorical(probs("pc", 2, 2)[b]), infer={"enumerate": "parallel"})
                ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS[:2])[c], 0.9), obs=data)

    check(model, guide, {"b": GRID["b"]}, {"c": GRID["c"]}, DATA)


def test_a_global_site_in_the_guide_and_the_others_in_the_model():
    def guide(data):
        ppl.sample("a", dist.Categorical(probs("qa", 2)), infer={"enumerate": "parallel"})

    check(grid(("parallel",) * 3), guide, {"a": GRID["a"]}, {n: GRID[n] for n in "bc"}, DATA)


def test_sequential_plates_are_loops():
    def model(data):
        a = ppl.sample("a", dist.Categorical(probs("pa", 2)), infer={"enumerate": "parallel"})
        for i in ppl.plate("i", 2):
            b = ppl.sample(f"b_{i}", dist.Categorical(probs("pb", 2, 2)[a]), infer={"enumerate": "parallel"})
            with ppl.plate(f"j_{i}", 2):
                ppl.sample(f"x_{i}", dist.Normal(ppl.param("locs", LEVELS[:2])[b], 0.9), obs=data[i])

    check(model, nothing, {}, {"a": (2, ()), "b_0": (2, ()), "b_1": (2, ())}, DATA)


@pytest.mark.parametrize("expand", [False, True])
def test_config_enumerate_gives_the_same_as_marks_at_the_sites(expand):
    plain = grid((None,) * 3)
    check(config_enumerate(plain, expand=expand), nothing, {}, GRID, DATA)


@pytest.mark.parametrize("vectorised", [True, False])
def test_particles_do_not_change_an_exact_answer(vectorised):
    check(grid(("parallel",) * 3), nothing, {}, GRID, DATA, num_particles=3, vectorize_particles=vectorised)


@pytest.mark.parametrize("nesting", [2, 3, 5])
def test_a_generous_max_plate_nesting_does_not_change_the_answer(nesting):
    check(grid(("parallel",) * 3), nothing, {}, GRID, DATA, max_plate_nesting=nesting)


def test_many_binary_sites_in_a_plate_are_cheap():
    """2²⁰⁰ joint values."""
    data = torch.randn(200)

    def model():
        top = ppl.sample("top", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
        with ppl.plate("n", 200):
            z = ppl.sample("z", dist.Bernoulli(0.2 + 0.5 * top), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(z, 1.0), obs=data)

    z = models.ZERO_ONE
    likelihood = models.normal_term(data.unsqueeze(-1), z, 1.0)
    inner = (models.log_bernoulli((0.2 + 0.5 * z).unsqueeze(-1), z).unsqueeze(1) + likelihood).logsumexp(-1).sum(-1)
    expected = (models.log_bernoulli(0.4, z) + inner).logsumexp(0)
    assert abs(TraceEnum_ELBO().loss(model, nothing) + expected.item()) < 1e-9


# -- masks, scales, impossible values, subsamples


@pytest.mark.parametrize("how", MARKED)
def test_masks_go_inside_the_sum(how):
    seen = torch.tensor([True, False, True])
    data = torch.tensor([0.3, -1.2, 1.7])

    def model():
        with ppl.plate("n", 3):
            z = ppl.sample("z", dist.Categorical(probs("p", 3)), infer={"enumerate": how})
            with mask(mask=seen):
                ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[z], 1.0), obs=data)

    check(model, nothing, {}, {"z": (3, (3,))})


@pytest.mark.parametrize("how", MARKED)
@pytest.mark.parametrize("whole", [False, True])
def test_a_masked_place_adds_nothing_to_the_bound(how, whole):
    """As where the site is drawn: the evidence of what is seen, and not log K more for every place that is not."""
    seen = torch.tensor([True, False, True])
    data = torch.tensor([0.3, -1.2, 1.7])

    def model():
        with mask(mask=False if whole else seen), ppl.plate("n", 3):
            z = ppl.sample("z", dist.Categorical(probs("p", 3)), infer={"enumerate": how})
            ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[z], 1.0), obs=data)

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing)
    if whole:
        assert abs(loss.item()) < 1e-12
        return
    inner = (store["p"].log() + models.normal_term(data.unsqueeze(-1), store["locs"], 1.0)).logsumexp(-1)
    assert_exact(store, loss, (inner * seen).sum())


def test_the_unobserved_part_of_a_partly_observed_site_is_summed():
    seen = torch.tensor([True, False, True])
    values, data = torch.tensor([0, 9, 2]), torch.tensor([0.3, -1.2, 1.7])

    def model():
        with ppl.plate("n", 3):
            d = dist.Categorical(probs("p", 3))
            z = ppl.sample("z", d, obs=values.clamp(max=2), obs_mask=seen, infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[z], 1.0), obs=data)

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing)
    table = store["p"].log() + models.normal_term(data.unsqueeze(-1), store["locs"], 1.0)
    assert_exact(store, loss, table[0, 0] + table[1].logsumexp(-1) + table[2, 2])


def test_a_mask_on_an_averaged_site_of_the_guide_leaves_its_probabilities_alone():
    seen = torch.tensor([True, False, True])

    def model(data):
        with ppl.plate("n", 3):
            with mask(mask=seen):
                z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(2 * z, 1.0), obs=data)

    def guide(data):
        with ppl.plate("n", 3), mask(mask=seen):
            q = ppl.param("q", torch.tensor([0.2, 0.5, 0.7]), constraint=constraints.unit_interval)
            ppl.sample("z", dist.Bernoulli(q), infer={"enumerate": "parallel"})

    data = torch.tensor([0.3, 1.2, 1.7])
    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, guide, data)
    q = torch.stack([1 - store["q"], store["q"]], -1)
    own = torch.where(seen.unsqueeze(-1), models.log_bernoulli(0.3, models.ZERO_ONE) - q.log(), torch.zeros(()))
    elbo = (q * (own + models.normal_term(data.unsqueeze(-1), 2 * models.ZERO_ONE, 1.0))).sum()
    assert_exact(store, loss, elbo)


@pytest.mark.parametrize("factor", [2.5, torch.tensor(0.4)])
def test_a_scale_around_all_connected_sites_multiplies_the_logarithm_of_the_sum(factor):
    data = torch.tensor([0.3, -1.2, 1.7])

    def model():
        with scale(scale=factor), ppl.plate("n", 3):
            z = ppl.sample("z", dist.Categorical(probs("p", 3)), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[z], 1.0), obs=data)

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing)
    inner = store["p"].log() + models.normal_term(data.unsqueeze(-1), store["locs"], 1.0)
    assert_exact(store, loss, factor * inner.logsumexp(-1).sum())


def test_a_tensor_scale_weighs_the_averaged_costs_of_the_guide_one_by_one():
    weights = torch.tensor([0.5, 2.0, 3.0])
    data = torch.tensor([0.3, 1.2, 1.7])

    def model():
        with ppl.plate("n", 3), scale(scale=weights):
            z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(2 * z, 1.0), obs=data)

    def guide():
        with ppl.plate("n", 3), scale(scale=weights):
            q = ppl.param("q", torch.tensor([0.2, 0.5, 0.7]), constraint=constraints.unit_interval)
            ppl.sample("z", dist.Bernoulli(q), infer={"enumerate": "parallel"})

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, guide)
    q = torch.stack([1 - store["q"], store["q"]], -1)
    inner = models.log_bernoulli(0.3, models.ZERO_ONE) + models.normal_term(
        data.unsqueeze(-1), 2 * models.ZERO_ONE, 1.0
    )
    assert_exact(store, loss, (weights * (q * (inner - q.log())).sum(-1)).sum())


def test_unequal_scales_of_connected_sites_are_an_error_that_names_them():
    def model():
        z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with ppl.plate("n", 3, subsample_size=2):
            ppl.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))

    with pytest.raises(ValueError, match=r"(?s)'z'.*'x'.*1\.5"):
        TraceEnum_ELBO().loss(model, nothing)


def test_impossible_values_give_finite_gradients_and_the_right_sum():
    """Transition probabilities with zeros, as logits of -inf."""
    jumps = torch.tensor([[0.0, -torch.inf, -1.0], [-torch.inf, 0.3, -torch.inf], [0.2, 0.1, -torch.inf]])

    def model(mark="parallel"):
        shift = ppl.param("shift", torch.zeros(3, 3))
        a = ppl.sample("a", dist.Categorical(probs("pa", 3)), infer={"enumerate": mark})
        b = ppl.sample("b", dist.Categorical(logits=jumps[a] + shift[a]), infer={"enumerate": mark})
        c = ppl.sample("c", dist.Categorical(logits=jumps[b] + shift[b]), infer={"enumerate": mark})
        ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[c], 1.0), obs=torch.tensor(0.5))

    for mark in MARKED:
        store = ppl.ParamStore()
        with store:
            loss = TraceEnum_ELBO()(model, nothing, mark)
        log_jumps = (jumps + store["shift"]).log_softmax(-1)
        likelihood = models.normal_term(0.5, store["locs"], 1.0)
        total = []
        for a in range(3):
            for b in range(3):
                for c in range(3):
                    path = jumps[a, b] + jumps[b, c]
                    if path.isfinite():
                        total.append(store["pa"][a].log() + log_jumps[a, b] + log_jumps[b, c] + likelihood[c])
        assert_exact(store, loss, torch.stack(total).logsumexp(0))  # which is finite, gradients and all


def test_a_value_that_the_guide_excludes_costs_nothing():
    """q = 0 where p = 0: 0 · log 0 is 0, in value and gradient."""

    def model():
        z = ppl.sample(
            "z", dist.Categorical(logits=torch.tensor([0.0, 0.5, -torch.inf])), infer={"enumerate": "parallel"}
        )
        ppl.sample("x", dist.Normal(LEVELS[z], 1.0), obs=torch.tensor(0.5))

    def guide():
        free = ppl.param("free", torch.tensor([0.3, -0.2]))
        logits = torch.cat([free, torch.tensor([-torch.inf])])
        ppl.sample("z", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, guide)
    log_q = store["free"].log_softmax(-1)
    log_p = torch.tensor([0.0, 0.5]).log_softmax(-1) + models.normal_term(0.5, LEVELS[:2], 1.0)
    assert_exact(store, loss, (log_q.exp() * (log_p - log_q)).sum())


@pytest.mark.parametrize("mark", MARKED)
def test_a_subsampled_plate_scales_the_sum_of_its_part(mark):
    data = torch.tensor([0.3, -1.2, 1.7, 0.1])
    part = torch.tensor([3, 1])

    def model(subsample):
        with ppl.plate("n", 4, subsample=subsample) as i:
            z = ppl.sample("z", dist.Categorical(probs("p", 3)), infer={"enumerate": mark})
            ppl.sample("x", dist.Normal(ppl.param("locs", LEVELS)[z], 1.0), obs=data[i])

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing, part)
    inner = store["p"].log() + models.normal_term(data[part].unsqueeze(-1), store["locs"], 1.0)
    assert_exact(store, loss, 2.0 * inner.logsumexp(-1).sum())


# -- what cannot be done


def test_an_intractable_structure_is_an_error_that_names_plates_and_sites():
    def model():
        with ppl.plate("rows", 2, dim=-2):
            a = ppl.sample("a", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with ppl.plate("columns", 3, dim=-1):
            b = ppl.sample("b", dist.Bernoulli(0.6), infer={"enumerate": "parallel"})
        with ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1):
            ppl.sample("x", dist.Normal(a + b, 1.0), obs=torch.zeros(2, 3))

    with pytest.raises(ValueError) as error:
        TraceEnum_ELBO().loss(model, nothing)
    for name in ("'rows'", "'columns'", "'a'", "'b'", "'x'"):
        assert name in str(error.value)


@pytest.mark.parametrize("mark", MARKED)
@pytest.mark.parametrize("where", ["model", "guide"])
def test_a_site_outside_of_a_plate_must_not_depend_on_an_enumerated_site_inside(mark, where):
    def program(outer_depends):
        with ppl.plate("inside", 3):
            z = ppl.sample("z", dist.Bernoulli(ppl.param("p", torch.tensor(0.3))), infer={"enumerate": mark})
        loc = z[..., :1].squeeze(-1) if mark == "sequential" else z
        ppl.sample("y", dist.Normal(loc if outer_depends else torch.tensor(0.0), 1.0))

    def model():
        program(where == "model")

    def guide():
        if where == "guide":
            program(True)
        else:
            ppl.sample("y", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"(?s)'y'.*'z'.*'inside'"):
        TraceEnum_ELBO().loss(model, guide)


def test_a_site_outside_of_a_plate_that_depends_on_nothing_inside_is_fine_after_sequential_enumeration():
    """Its density is the same in every branch, and differentiable."""

    def guide():
        ppl.sample("mean", dist.Normal(ppl.param("m", torch.tensor(0.4)), 1.0))

    losses = []
    for mark in MARKED:

        def marked(mark=mark):
            mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
            with ppl.plate("inside", 3):
                z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": mark})
                ppl.sample("x", dist.Normal(mean + z, 1.0), obs=torch.tensor([0.3, 1.2, 0.4]))

        torch.manual_seed(3)
        ppl.clear_param_store()
        loss = TraceEnum_ELBO()(marked, guide)
        losses.append((loss, *torch.autograd.grad(loss, ppl.get_param_store().unconstrained("m"))))
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), atol=1e-12)


@pytest.mark.parametrize("mark", MARKED)
def test_a_site_after_a_plate_need_not_depend_on_what_is_enumerated_inside(mark):
    """The checks of arguments that look at values are no branches of the program."""

    def model():
        with ppl.plate("inside", 3):
            z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": mark})
            ppl.sample("x", torch.distributions.Normal(z, 1.0), obs=torch.tensor([0.3, 1.2, 0.4]))
            ppl.sample("y", dist.Normal(z, 1.0), obs=torch.tensor([0.3, 1.2, 0.4]))
        ppl.sample("after", dist.Normal(ppl.param("m", torch.tensor(0.4)), 1.0), obs=torch.tensor(2.0))

    store = ppl.ParamStore()
    with store:
        loss = TraceEnum_ELBO()(model, nothing)
    data = torch.tensor([[0.3], [1.2], [0.4]])
    inner = models.log_bernoulli(0.3, models.ZERO_ONE) + 2 * models.normal_term(data, models.ZERO_ONE, 1.0)
    assert_exact(store, loss, inner.logsumexp(-1).sum() + models.normal_term(2.0, store["m"], 1.0))


def test_a_plate_left_of_max_plate_nesting_is_an_error_that_says_what_to_give():
    with pytest.raises(ValueError, match=r"(?s)'i'.*dim -2.*at least 2"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(grid(("parallel",) * 3), nothing, DATA)


def test_a_plate_of_the_model_on_an_enumerated_dim_of_the_guide_is_an_error():
    def inner():
        with ppl.plate("j", 2, dim=-1):
            return ppl.sample("c", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": "parallel"})

    def model():
        inner()
        with ppl.plate("i", 2, dim=-2):
            ppl.sample("x", dist.Normal(torch.zeros(2, 1), 1.0), obs=torch.zeros(2, 1))

    with pytest.raises(ValueError, match=r"(?s)'x'.*'i'.*dim -2.*at least 2"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(model, inner)


def test_a_small_max_plate_nesting_with_vectorised_particles_is_an_error_that_says_what_to_give():
    elbo = TraceEnum_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    with pytest.raises(ValueError, match="at least 2"):
        elbo.loss(grid(("parallel",) * 3), nothing, DATA)


@pytest.mark.parametrize("has_rsample", [True, False])
def test_without_enumerated_sites_it_is_trace_elbo(has_rsample):
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        with ppl.plate("data", 3):
            ppl.sample("y", dist.Normal(x, 1.0), obs=torch.tensor([0.5, 1.0, -2.0]))

    loc = torch.tensor(0.3).requires_grad_()

    def guide():
        ppl.sample("x", dist.Normal(loc, 0.7).has_rsample_(has_rsample))

    found = []
    for loss in (Trace_ELBO(), TraceEnum_ELBO()):
        torch.manual_seed(0)
        value = loss(model, guide)
        found.append((value.item(), torch.autograd.grad(value, loc)[0].item()))
    assert found[0] == found[1]


def test_scale_that_varies_along_the_plate_of_enumerated_sites():
    """Rows that stand for several equal ones: the same as writing them all out."""
    counts, rows = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.2, -1.0, 1.5])
    weights, loc = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0])

    def model(rows, counts):
        with ppl.plate("rows", len(rows)), ppl.handlers.scale(scale=counts):
            z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            ppl.sample("x", dist.Normal(loc[z], 1.0), obs=rows)

    written_out = rows.repeat_interleave(counts.long())
    nothing = lambda *args: None  # noqa: E731
    short = TraceEnum_ELBO()(model, nothing, rows, counts)
    long = TraceEnum_ELBO()(model, nothing, written_out, torch.ones(6))
    assert torch.allclose(short, long, rtol=1e-12)

    def crossed():
        z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        with ppl.plate("rows", 3), ppl.handlers.scale(scale=counts):
            ppl.sample("x", dist.Normal(loc[z], 1.0), obs=rows)

    with pytest.raises(ValueError, match=r"must share one scale|must not vary there"):
        TraceEnum_ELBO()(crossed, nothing)
