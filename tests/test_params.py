"""The parameter store."""

import threading

import pytest
import torch
from torch.distributions import constraints

import ppl
from ppl.distributions.constraints import same as same_constraint
from ppl.params import decode_constraint, encode_constraint, save_atomically

CHOLESKY = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
CASES = {
    "real": (constraints.real, torch.tensor([-1.0, 2.0])),
    "positive": (constraints.positive, torch.tensor([0.5, 2.0])),
    "nonnegative": (constraints.nonnegative, torch.tensor(1.5)),
    "unit_interval": (constraints.unit_interval, torch.tensor([0.1, 0.9])),
    "interval": (constraints.interval(-1.0, 3.0), torch.tensor([0.0, 2.5])),
    "interval of tensors": (constraints.interval(torch.tensor([0.0, 1.0]), 5.0), torch.tensor([0.5, 1.5])),
    "greater_than": (constraints.greater_than(2.0), torch.tensor(3.5)),
    "less_than": (constraints.less_than(-1.0), torch.tensor(-4.0)),
    "half_open_interval": (constraints.half_open_interval(0.0, 2.0), torch.tensor(1.25)),
    "simplex": (constraints.simplex, torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])),
    "lower_cholesky": (constraints.lower_cholesky, CHOLESKY),
    "corr_cholesky": (constraints.corr_cholesky, torch.tensor([[1.0, 0.0], [0.6, 0.8]])),
    "positive_definite": (constraints.positive_definite, CHOLESKY @ CHOLESKY.mT),
    "independent": (constraints.independent(constraints.positive, 1), torch.tensor([1.0, 2.0])),
    "stack": (constraints.stack([constraints.real, constraints.positive]), torch.tensor([-1.0, 2.0])),
    "cat": (constraints.cat([constraints.real, constraints.positive], 0, [1, 2]), torch.tensor([-1.0, 2.0, 3.0])),
}
cases = pytest.mark.parametrize(("constraint", "value"), CASES.values(), ids=CASES)


def filled_store():
    store = ppl.ParamStore()
    for name, (constraint, value) in CASES.items():
        store.setdefault(name, value, constraint)
    return store


@cases
def test_a_value_comes_back_through_its_unconstrained_leaf(constraint, value):
    store = ppl.ParamStore()
    torch.testing.assert_close(store.setdefault("p", value, constraint), value)
    leaf = store.unconstrained("p")
    assert leaf.is_leaf and leaf.requires_grad
    assert store["p"].requires_grad
    with torch.no_grad():
        leaf += 0.1 * torch.arange(1.0, leaf.numel() + 1.0).reshape(leaf.shape)
    assert constraint.check(store["p"]).all()
    assert not torch.allclose(store["p"], value)


@cases
def test_a_constraint_survives_being_written_as_data(constraint, value, tmp_path):
    torch.save(encode_constraint(constraint), tmp_path / "c.pt")
    back = decode_constraint(torch.load(tmp_path / "c.pt", weights_only=True))
    assert same_constraint(back, constraint)
    assert back.check(value).all() and back.event_dim == constraint.event_dim


def test_positive_is_stored_as_a_logarithm():
    store = ppl.ParamStore()
    store.setdefault("p", torch.tensor(2.0), constraints.positive)
    assert store.unconstrained("p").item() == pytest.approx(0.6931471805599453)
    (gradient,) = torch.autograd.grad(store["p"], store.unconstrained("p"))
    assert gradient.item() == pytest.approx(2.0)


def test_the_store_is_a_mapping_in_order_of_creation():
    store = filled_store()
    assert store.keys() == list(CASES) == list(store) and len(store) == len(CASES)
    assert "simplex" in store and "nothing" not in store
    for (name, value), expected in zip(store.items(), CASES.values(), strict=True):
        torch.testing.assert_close(value, expected[1], msg=name)
    assert [tuple(v.shape) for v in store.values()] == [tuple(v.shape) for _, v in CASES.values()]
    assert dict(store.named_unconstrained())["positive"] is store.unconstrained("positive")


def test_an_unknown_name_says_what_is_there():
    store = ppl.ParamStore()
    with pytest.raises(KeyError, match="there is no parameter 'w' in this store; it has none"):
        _ = store["w"]
    store["v"] = torch.tensor(1.0)
    for access in (store.__getitem__, store.constraint, store.unconstrained, store.__delitem__):
        with pytest.raises(KeyError, match="it has v"):
            access("w")


def test_assignment_keeps_constraint_and_leaf():
    store = ppl.ParamStore()
    store.setdefault("p", torch.tensor([1.0, 2.0]), constraints.positive)
    leaf = store.unconstrained("p")
    store["p"] = torch.tensor([3.0, 4.0])
    assert store.unconstrained("p") is leaf and store.constraint("p") is constraints.positive
    torch.testing.assert_close(store["p"].detach(), torch.tensor([3.0, 4.0]))
    store["p"] = torch.tensor([5.0])
    assert store.unconstrained("p").shape == (1,) and store.constraint("p") is constraints.positive
    with pytest.raises(ValueError, match=r"param 'p': the value .* does not satisfy positive"):
        store["p"] = torch.tensor([-1.0])
    with pytest.raises(ValueError, match=r"param 'p': a value must be a torch.Tensor, but got float"):
        store["p"] = 1.0
    assert store["p"].item() == pytest.approx(5.0)


def test_nan_is_no_value_for_a_parameter():
    with pytest.raises(ValueError, match="param 'p': the value nan does not satisfy real"):
        ppl.ParamStore().setdefault("p", torch.tensor(torch.nan))


def test_version_grows_when_the_leaves_change_and_only_then():
    store, versions = ppl.ParamStore(), []
    store.setdefault("p", torch.tensor(1.0))
    versions.append(store.version)
    store.setdefault("p", torch.tensor(2.0))
    store["p"] = torch.tensor(3.0)
    assert store.version == versions[0]
    store["p"] = torch.zeros(2)
    versions.append(store.version)
    del store["p"]
    versions.append(store.version)
    store.clear()
    versions.append(store.version)
    assert versions == sorted(set(versions)) and len(store) == 0


def test_match_selects_by_a_regular_expression_from_the_start():
    store = ppl.ParamStore()
    for name in ("net.0.weight", "net.0.bias", "net.1.weight", "other.net.0"):
        store[name] = torch.tensor(1.0)
    assert list(store.match(r"net\.0")) == ["net.0.weight", "net.0.bias"]
    assert list(store.match(r".*weight$")) == ["net.0.weight", "net.1.weight"]
    assert store.match("nothing") == {}


def test_a_constraint_cannot_be_replaced_and_the_error_says_so():
    ppl.param("p", torch.tensor(0.5), constraint=constraints.positive)
    with pytest.raises(ValueError, match=r"param 'p' has the constraint positive.*cannot be replaced by unit_interval"):
        ppl.param("p", torch.tensor(0.5), constraint=constraints.unit_interval)
    assert ppl.param("p").item() == pytest.approx(0.5)  # without a constraint the stored one holds
    assert ppl.param("p", constraint=constraints.greater_than(0.0)).item() == pytest.approx(0.5)  # the same set
    del ppl.get_param_store()["p"]
    assert ppl.param("p", torch.tensor(0.25), constraint=constraints.unit_interval).item() == pytest.approx(0.25)


def test_constraints_are_the_same_when_their_arguments_are():
    interval, real = constraints.interval, constraints.real
    two, three = torch.zeros(2), torch.zeros(3)
    assert same_constraint(interval(0.0, 1.0), constraints.unit_interval)
    assert not same_constraint(interval(0.0, 1.0), interval(0.0, 2.0))
    assert same_constraint(interval(two, 1.0), interval(torch.zeros(2), 1.0))
    assert not same_constraint(interval(two, 1.0), interval(three, 1.0))
    assert not same_constraint(interval(two, 1.0), interval(0.0, 1.0))
    assert not same_constraint(constraints.independent(real, 1), constraints.independent(real, 2))
    assert not same_constraint(constraints.cat([real], 0, [1]), constraints.cat([constraints.positive], 0, [1]))


def test_a_constraint_of_the_users_own_cannot_be_written_and_the_error_says_so():
    class Even(constraints.Constraint):
        pass

    with pytest.raises(ValueError, match=r"cannot be written to a file; use one of ppl.distributions.constraints"):
        encode_constraint(Even())


# -- scope


def test_with_store_scopes_nest_and_end():
    default, outer, inner = ppl.get_param_store(), ppl.ParamStore(), ppl.ParamStore()
    with outer:
        assert ppl.get_param_store() is outer
        with inner:
            assert ppl.get_param_store() is inner
            with outer:
                assert ppl.get_param_store() is outer
            assert ppl.get_param_store() is inner
        assert ppl.get_param_store() is outer
        ppl.clear_param_store()
    assert ppl.get_param_store() is default


def test_a_scope_ends_after_an_error():
    default = ppl.get_param_store()
    with pytest.raises(ArithmeticError), ppl.ParamStore():
        raise ArithmeticError("on purpose")
    assert ppl.get_param_store() is default


def test_clear_param_store_clears_the_current_one_only():
    ppl.param("p", 1.0)
    with ppl.ParamStore() as store:
        ppl.param("q", 1.0)
        ppl.clear_param_store()
        assert len(store) == 0
    assert ppl.get_param_store().keys() == ["p"]


def test_a_scope_holds_in_its_own_thread_only():
    seen = []
    with ppl.ParamStore() as store:
        thread = threading.Thread(target=lambda: seen.append(ppl.get_param_store()))
        thread.start()
        thread.join()
        assert ppl.get_param_store() is store
    assert seen == [ppl.get_param_store()]


# -- state


def test_state_dict_goes_through_a_weights_only_file_with_every_constraint(tmp_path):
    store = filled_store()
    torch.save(store.state_dict(), tmp_path / "state.pt")
    other = ppl.ParamStore()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.keys() == store.keys()
    for name in store:
        assert torch.equal(other.unconstrained(name), store.unconstrained(name)), name
        assert torch.equal(other[name], store[name]), name
        assert same_constraint(other.constraint(name), store.constraint(name)), name
        assert other.unconstrained(name).requires_grad and other.unconstrained(name).is_leaf


def test_a_state_dict_is_a_copy():
    store = filled_store()
    state = store.state_dict()
    store["positive"] = torch.tensor([7.0, 7.0])
    torch.testing.assert_close(state["leaves"]["positive"].exp(), torch.tensor([0.5, 2.0]))


def test_loading_fills_leaves_in_place_drops_others_and_replaces_other_shapes():
    store, other = ppl.ParamStore(), ppl.ParamStore()
    store["same"], store["shape"] = torch.tensor([1.0, 2.0]), torch.tensor([1.0])
    other["same"], other["shape"], other["extra"] = torch.zeros(2), torch.zeros(3), torch.zeros(1)
    leaf = other.unconstrained("same")
    other.load_state_dict(store.state_dict())
    assert other.keys() == ["same", "shape"]
    assert other.unconstrained("same") is leaf and leaf.tolist() == [1.0, 2.0]
    assert other["shape"].tolist() == [1.0]


def test_save_and_load(tmp_path):
    store = filled_store()
    store.save(tmp_path / "store.pt")
    other = ppl.ParamStore()
    other.load(tmp_path / "store.pt")
    assert {n: v.tolist() for n, v in other.items()} == {n: v.tolist() for n, v in store.items()}


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "store.pt"
    save_atomically({"a": torch.tensor(1.0)}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError), match=r"pickle|local"):
        save_atomically({"a": lambda: None}, path)
    assert torch.load(path, weights_only=True)["a"].item() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["store.pt"]


def test_the_store_prints_names_shapes_and_constraints():
    store = ppl.ParamStore()
    store.setdefault("w", torch.zeros(2, 3))
    store.setdefault("s", torch.tensor(1.0), constraints.positive)
    assert repr(store) == "ParamStore(w: (2, 3) real; s: () positive (> 0))"
