"""The trace: what it records, its densities, its pictures, its copies."""

import pickle

import numpy
import pytest
import scipy.stats
import torch
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl import handlers

Y = torch.tensor([0.3, -1.0, 2.5])


def model(y=Y):
    scale = ppl.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    mean = ppl.sample("mean", dist.Normal(1.0, 3.0))
    switch = ppl.sample("switch", dist.Bernoulli(0.25))
    shift = ppl.deterministic("shift", mean + switch)
    with ppl.plate("data", 3):
        ppl.sample("y", dist.Normal(shift, scale), obs=y)
    return shift


def traced(**values):
    data = {"mean": torch.tensor(0.5), "switch": torch.tensor(1.0)} | values
    return handlers.trace(handlers.substitute(model, data=data)).get_trace()


TERMS = {
    "mean": scipy.stats.norm(1.0, 3.0).logpdf(0.5),
    "switch": numpy.log(0.25),
    "y": scipy.stats.norm(1.5, 2.0).logpdf(Y.numpy()).sum(),
}


def test_sites_are_recorded_in_program_order_with_the_result():
    tr = traced()
    assert list(tr) == ["scale", "mean", "switch", "shift", "data", "y"] == list(tr.nodes)
    assert len(tr) == 6 and "mean" in tr and "gone" not in tr
    assert tr["mean"].tensor.item() == 0.5
    assert tr.returned.item() == 1.5


def test_views_sort_the_sites():
    tr = traced()
    assert list(tr.stochastic_nodes) == ["mean", "switch"]
    assert list(tr.observation_nodes) == ["y"]
    assert list(tr.reparameterized_nodes) == ["mean"]
    assert list(tr.nonreparam_stochastic_nodes) == ["switch"]
    assert list(tr.param_nodes) == ["scale"]
    assert list(tr.deterministic_nodes) == ["shift"]


def test_log_densities_agree_with_scipy():
    tr = traced()
    terms = {name: term.sum().item() for name, term in tr.compute_log_prob().items()}
    assert terms == pytest.approx(TERMS, rel=1e-12)
    assert tr.log_prob_sum().item() == pytest.approx(sum(TERMS.values()), rel=1e-12)
    assert tr.log_prob("y").shape == (3,)


def test_a_filter_selects_the_terms():
    tr = traced()
    assert tr.log_prob_sum(lambda name, site: site.observed).item() == pytest.approx(TERMS["y"])
    assert list(tr.compute_log_prob(lambda name, site: name == "mean")) == ["mean"]
    assert tr.log_prob_sum(lambda name, site: False).item() == 0.0


def test_scale_and_mask_are_honoured():
    tr = handlers.trace(
        handlers.scale(
            handlers.mask(
                handlers.substitute(model, data={"mean": torch.tensor(0.5), "switch": torch.tensor(1.0)}),
                mask=torch.tensor([True, False, True]),
            ),
            scale=2.0,
        )
    ).get_trace()
    each = scipy.stats.norm(1.5, 2.0).logpdf(Y.numpy())
    assert tr.log_prob("y").tolist() == pytest.approx([2 * each[0], 0.0, 2 * each[2]])
    assert tr.unscaled_log_prob("y").tolist() == pytest.approx([each[0], 0.0, each[2]])


def test_score_parts_follow_the_sampler_of_each_site():
    parts = handlers.trace(handlers.scale(model, scale=3.0)).get_trace().compute_score_parts()
    assert list(parts) == ["mean", "switch", "y"]
    pathwise, scored = parts["mean"], parts["switch"]
    assert pathwise.score_function == 0.0 and torch.equal(pathwise.entropy_term, pathwise.log_prob)
    assert scored.entropy_term == 0.0 and torch.allclose(3 * scored.score_function, scored.log_prob)


def test_gradients_flow_to_parameters():
    tr = traced()
    leaf = ppl.get_param_store().unconstrained("scale")
    (gradient,) = torch.autograd.grad(tr.log_prob_sum(), leaf)
    residuals = (Y - 1.5).numpy()
    assert gradient.item() == pytest.approx((residuals**2 / 4 - 1).sum(), rel=1e-12)  # d/d log σ


def test_the_log_density_of_a_vectorised_site_has_the_plates_shape():
    def vectorised():
        with ppl.plate("a", 2, dim=-2), ppl.plate("b", 3, dim=-1):
            ppl.sample("x", dist.Dirichlet(torch.ones(4)))

    tr = handlers.trace(vectorised).get_trace()
    assert tr["x"].tensor.shape == (2, 3, 4) and tr.log_prob("x").shape == (2, 3)
    assert tr.log_prob("x").tolist() == [[pytest.approx(numpy.log(6.0))] * 3] * 2


# -- names


def test_a_sample_name_that_stands_twice_is_an_error():
    def twice():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"site 'x' \(sample\) stands twice.*first as a sample.*x_\{i\}.*scope"):
        handlers.trace(twice).get_trace()


def test_two_kinds_cannot_share_a_name():
    def mixed():
        ppl.param("x", torch.tensor(1.0))
        ppl.deterministic("x", torch.tensor(1.0))

    with pytest.raises(ValueError, match=r"site 'x' \(deterministic\) stands twice.*first as a param"):
        handlers.trace(mixed).get_trace()


def test_a_param_and_a_whole_plate_may_stand_twice():
    def shared():
        ppl.param("w", torch.tensor(1.0))
        ppl.param("w")
        for name in ("x", "y"):
            with ppl.plate("data", 3):
                ppl.sample(name, dist.Normal(0.0, 1.0))

    assert list(handlers.trace(shared).get_trace()) == ["w", "data", "x", "y"]


@pytest.mark.parametrize("second", [{"size": 4}, {"size": 3, "subsample_size": 2}])
def test_two_different_plates_cannot_share_a_name(second):
    def clash():
        with ppl.plate("data", 3):
            pass
        with ppl.plate("data", **second):
            pass

    with pytest.raises(ValueError, match=r"site 'data' \(plate\) stands twice"):
        handlers.trace(clash).get_trace()


# -- NaN


def test_describe_nan_finds_parameters_values_and_densities():
    def broken():
        w = ppl.param("w", torch.zeros(2))
        with ppl.plate("data", 2):
            x = ppl.sample("x", dist.Normal(0.0, 1.0))
            ppl.sample("y", dist.Normal(x * w, 1.0, validate_args=False), obs=torch.zeros(2))

    ppl.param("w", torch.zeros(2))
    with torch.no_grad():
        ppl.get_param_store().unconstrained("w")[1] = torch.nan
    tr = handlers.trace(broken).get_trace()
    sentences = tr.describe_nan()
    assert len(sentences) == 2
    assert sentences[0].startswith("site 'w': the parameter is NaN")
    assert sentences[1].startswith("site 'y': the log density is NaN at plate 'data' index 1")
    assert traced().describe_nan() == []


# -- the graph of dependencies


def edges(program, *args, params=False):
    return set(handlers.trace(program).get_trace(*args).graph(params=params).edges)


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


def test_the_graph_of_a_model_has_its_data_dependencies():
    assert edges(model) == {("mean", "shift"), ("switch", "shift"), ("shift", "y")}
    assert edges(model, params=True) == {("mean", "shift"), ("switch", "shift"), ("shift", "y"), ("scale", "y")}


def test_nodes_know_kind_observation_and_plates():
    graph = handlers.trace(model).get_trace().graph()
    assert graph.nodes["y"] == {"kind": "sample", "observed": True, "plates": ("data",)}
    assert graph.nodes["shift"]["kind"] == "deterministic"
    assert "scale" not in graph and "data" not in graph


def test_a_deterministic_site_stands_between_its_sources_and_its_users():
    def shortcut():
        x = normal("x")
        doubled = 2 * x
        named = ppl.deterministic("named", doubled)
        normal("through", named)
        normal("around", doubled)

    assert edges(shortcut) == {("x", "named"), ("named", "through"), ("x", "around")}


def test_a_fork_has_two_edges_from_its_top():
    def fork():
        z = normal("z")
        normal("x", z)
        normal("y", 2 * z)

    assert edges(fork) == {("z", "x"), ("z", "y")}


def test_a_collider_has_two_edges_into_it():
    def collider():
        normal("z", normal("x") + normal("y"))

    assert edges(collider) == {("x", "z"), ("y", "z")}


def test_a_chain_has_no_edge_from_grandparents():
    def chain():
        normal("c", normal("b", normal("a")))

    assert edges(chain) == {("a", "b"), ("b", "c")}


def test_program_order_alone_makes_no_edge():
    assert edges(lambda: [normal("a"), normal("b"), normal("c")]) == set()


def test_a_value_read_into_python_steers_everything_later():
    def steered():
        normal("before")
        x = normal("x")
        mean = 1.0 if x.item() > 0 else -1.0
        normal("after", mean)
        normal("later")

    assert edges(steered) == {("x", "after"), ("x", "later")}


@pytest.mark.parametrize(
    "read",
    [bool, float, lambda x: x.tolist(), lambda x: x.numpy(), lambda x: range(int(x))],
    ids=["bool", "float", "tolist", "numpy", "index"],
)
def test_every_way_to_read_a_value_counts(read):
    def reads():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        read(x)
        normal("y")

    assert edges(reads) == {("x", "y")}


def test_assignment_to_an_index_is_followed():
    def assigns():
        buffer = torch.zeros(3)
        buffer[1] = normal("x")
        normal("y", buffer.sum())

    assert edges(assigns) == {("x", "y")}


def test_writing_in_place_through_a_view_is_followed():
    def writes():
        buffer = torch.zeros(3)
        buffer[1].copy_(normal("x"))
        buffer[2:].add_(normal("z"))
        normal("y", buffer.sum())

    assert edges(writes) == {("x", "y"), ("z", "y")}


def test_containers_unpacking_and_stacking_are_followed():
    def nests():
        x = ppl.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        first, _ = x
        normal("unpacked", first)
        normal("stacked", torch.stack([v * 2 for v in x]).sum())
        a, b = x.split(1)
        ppl.sample("wrapped", dist.Normal(torch.cat([a, b]), 1.0).to_event(1).mask(True))

    assert edges(nests) == {("x", "unpacked"), ("x", "stacked"), ("x", "wrapped")}


def test_indexing_by_a_discrete_value_is_a_dependency():
    def mixture():
        means = torch.tensor([0.0, 10.0])
        z = ppl.sample("z", dist.Categorical(torch.ones(2) / 2))
        normal("x", means[z])

    assert edges(mixture) == {("z", "x")}


def test_an_intervention_cuts_the_edge():
    def chain():
        normal("c", normal("b", normal("a")))

    cut = handlers.do(chain, data={"b": torch.tensor(1.0)})
    assert edges(cut) == {("a", "b")}


def test_the_graph_needs_the_program():
    for tr in (traced().copy(), pickle.loads(pickle.dumps(traced())), handlers.Trace()):
        with pytest.raises(ValueError, match=r"graph\(\) runs the program again, and this trace does not know it"):
            tr.graph()


def test_the_graph_repeats_the_run_with_its_values():
    def branches():
        z = ppl.sample("z", dist.Bernoulli(0.5))
        if z > 0:
            normal("only if one")

    for _ in range(10):
        tr = handlers.trace(branches).get_trace()
        assert ("only if one" in tr) == (tr["z"].tensor.item() == 1.0)
        assert set(tr.graph().nodes) == set(tr.nodes)


# -- the table of shapes

TABLE = """\
Trace shapes:
                      batch | event
        param scale         |
         dist mean          |
        value               |
        plate groups      2 |
        plate data        3 |
         dist x         2 3 | 4      groups@-2, data@-1
        value           2 3 | 4
     log_prob           2 3 |
deterministic total         |"""


def shapes():
    ppl.param("scale", torch.tensor(1.0))
    ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("groups", 2, dim=-2), ppl.plate("data", 3, dim=-1):
        x = ppl.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    ppl.deterministic("total", x.sum())


def test_format_shapes_is_an_aligned_table():
    tr = handlers.trace(shapes).get_trace()
    tr.log_prob("x")
    assert tr.format_shapes() == TABLE
    assert str(tr) == tr.format_shapes()


# -- copies


def test_a_copy_is_another_trace_of_the_same_sites():
    tr = traced()
    other = tr.copy()
    assert other.nodes == tr.nodes and other.nodes is not tr.nodes
    assert other.log_prob_sum().item() == tr.log_prob_sum().item()
    del other.nodes["mean"]
    assert "mean" in tr


def test_detach_cuts_the_values_from_the_graph():
    loc = torch.tensor(0.5, requires_grad=True)
    tr = handlers.trace(lambda: ppl.sample("x", dist.Normal(loc, 1.0))).get_trace()
    assert tr["x"].tensor.requires_grad
    other = tr.detach()
    assert not other["x"].tensor.requires_grad and other["x"].tensor.item() == tr["x"].tensor.item()
    (gradient,) = torch.autograd.grad(other.log_prob_sum(), loc)
    assert gradient.item() == pytest.approx((tr["x"].tensor - 0.5).item())  # pathwise it would be zero
    assert tr["x"].tensor.requires_grad


def test_a_pickled_trace_comes_back_with_values_and_densities():
    tr = traced()
    other = pickle.loads(pickle.dumps(tr))
    assert list(other) == list(tr)
    for name in ("scale", "mean", "switch", "shift", "y"):
        assert torch.equal(other[name].tensor, tr[name].tensor), name
    assert other.log_prob_sum().item() == tr.log_prob_sum().item()
    assert other["y"].plates == tr["y"].plates and other["y"].observed
    assert other.returned.item() == 1.5


def test_a_trace_with_torchs_and_the_users_distributions_can_be_pickled():
    def foreign():
        with ppl.plate("data", 2):
            ppl.sample("x", torch.distributions.Gamma(2.0, 3.0))
            ppl.sample("z", dist.Normal(0.0, 1.0).mask(torch.tensor([True, False])))
        ppl.factor("f", torch.tensor(0.5))

    tr = handlers.trace(foreign).get_trace()
    assert pickle.loads(pickle.dumps(tr)).log_prob_sum().item() == tr.log_prob_sum().item()


def test_the_density_of_a_value_that_does_not_fit_names_the_site():
    site = ppl.site.Site("x", "sample", dist.Normal(torch.zeros(3), 1.0), torch.zeros(4))
    tr = handlers.Trace()
    tr.add(site)
    with pytest.raises(ValueError, match=r"site 'x': the log density of a value of shape \(4,\) under Normal.*\(3,\)"):
        tr.log_prob("x")
