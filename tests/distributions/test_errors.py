"""What every distribution says of bad input: its name, the argument, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, Case
from torch.distributions import constraints

import ppl.distributions as dist


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


OWN = [case for case in CASES if case.build_from is None]


def floating(case: Case) -> dict[str, torch.Tensor]:
    """The parameters of the row that a distribution declares a constraint for."""
    declared = case.cls.arg_constraints if isinstance(case.cls.arg_constraints, dict) else {}
    return {k: v for k, v in case.tensors().items() if v.is_floating_point() and k in declared}


@named(OWN)
def test_nan_in_a_parameter(case: Case) -> None:
    for name, value in floating(case).items():
        if constraints.is_dependent(case.cls.arg_constraints[name]):
            continue
        bad = value.clone(memory_format=torch.contiguous_format)
        bad.view(-1)[-1] = float("nan")
        with pytest.raises(ValueError, match=f"{case.cls.__name__}: argument '{name}' must satisfy .*[nN]a[nN]"):
            case.of(**{**case.tensors(), name: bad})


@named(OWN)
def test_negative_where_positive_is_asked(case: Case) -> None:
    for name, value in floating(case).items():
        constraint = case.cls.arg_constraints[name]
        while isinstance(constraint, constraints.independent):
            constraint = constraint.base_constraint
        bound = getattr(constraint, "lower_bound", None)
        if not isinstance(bound, (int, float)):
            continue
        with pytest.raises(ValueError, match=f"{case.cls.__name__}: argument '{name}' must satisfy"):
            case.of(**{**case.tensors(), name: torch.full_like(value, bound - 1.0)})


@named([case for case in OWN if len(case.params) > 1 and case.batch])
def test_parameters_that_do_not_broadcast(case: Case) -> None:
    tensors = case.tensors()
    name = next(iter(floating(case)), None)
    if name is None:
        pytest.skip("no floating point parameter")
    longer = tensors[name].unsqueeze(0).expand(7, *tensors[name].shape)
    others = {k: v.unsqueeze(0).expand(5, *v.shape) for k, v in tensors.items() if k != name}
    with pytest.raises(ValueError, match=case.cls.__name__) as caught:
        case.of(**{**others, name: longer})
    assert name in str(caught.value)


@named(CASES)
def test_value_of_a_wrong_event_shape(case: Case) -> None:
    if not case.event or 0 in case.event:
        pytest.skip("a number has no event shape")
    value = torch.ones((*case.batch, *(size + 1 for size in case.event)), dtype=torch.float64)
    with pytest.raises(ValueError, match="event shape"):
        case.build().log_prob(value)


@named(CASES)
def test_value_whose_batch_does_not_broadcast(case: Case) -> None:
    if not case.batch or case.batch[-1] == 1:
        pytest.skip("everything broadcasts with a batch of 1")
    value = case.build().sample()
    if not value.numel():
        pytest.skip("no value")
    size = case.batch[-1] + 1
    dim = len(case.batch) - 1
    value = value.select(dim, 0).unsqueeze(dim).expand(*case.batch[:-1], size, *case.event)
    with pytest.raises(ValueError, match="does not broadcast with batch shape"):
        case.build().log_prob(value)


@named(CASES)
def test_value_that_is_no_tensor(case: Case) -> None:
    with pytest.raises(ValueError, match=r"must be a torch\.Tensor"):
        case.build().log_prob([0.5])


@named(CASES)
def test_value_that_is_nan(case: Case) -> None:
    d = case.build()
    if 0 in case.event or not case.integrates or isinstance(d, dist.MaskedDistribution):
        pytest.skip("no value, or none that counts")
    value = d.sample().double().clone(memory_format=torch.contiguous_format)
    value.view(-1)[-1] = float("nan")
    with pytest.raises(ValueError, match="must lie in the support"):
        d.log_prob(value)


@named(CASES)
def test_rsample_where_there_is_none(case: Case) -> None:
    d = case.build()
    if d.has_rsample:
        pytest.skip("there is one")
    with pytest.raises(NotImplementedError, match="reparameterised"):
        d.rsample()


@named(CASES)
def test_enumeration_of_an_infinite_support(case: Case) -> None:
    d = case.build()
    if d.has_enumerate_support:
        pytest.skip("it is finite")
    with pytest.raises(ValueError, match="cannot be enumerated"):
        d.enumerate_support()


def test_integers_for_a_continuous_site() -> None:
    import ppl

    with (
        pytest.raises(ValueError, match=r"'x'.*continuous and needs a floating point value"),
        ppl.handlers.condition(data={"x": torch.tensor(3)}),
    ):
        ppl.sample("x", dist.Normal(0.0, 1.0))
