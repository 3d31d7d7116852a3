"""Steps of a loop that share computations give what they give apart, whatever the program does to its tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from random_programs import network
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl.infer import TraceEnum_ELBO, config_enumerate
from ppl.tensors.sharing import Sharing, can_share


def nothing(*_: object) -> None:
    pass


def loss_and_slope(
    model: Callable[[Tensor], None], table: Tensor, share: bool
) -> tuple[Tensor, Tensor, TraceEnum_ELBO]:
    elbo = TraceEnum_ELBO()
    elbo._shares = share
    torch.manual_seed(0)
    loss = elbo(model, nothing, table)
    (slope,) = torch.autograd.grad(loss, table)
    return loss, slope, elbo


def same(model: Callable[[Tensor], None], keeps: bool = True) -> None:
    """Shared and unshared runs agree; `keeps` says whether the program can go on sharing."""
    torch.manual_seed(3)
    table = torch.rand(3, 3, dtype=torch.float64).requires_grad_()
    model = config_enumerate(model)
    apart, slope_apart, _ = loss_and_slope(model, table, False)
    together, slope_together, elbo = loss_and_slope(model, table, True)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope_together, slope_apart, rtol=1e-11, atol=1e-11)
    assert elbo._shares is keeps


DATA = torch.arange(40).reshape(4, 10) % 3


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    net = network(seed, time=True)
    elbo = TraceEnum_ELBO()
    elbo._shares = True
    try:
        loss = elbo(net.model, nothing)
    except ValueError as error:
        assert "cannot be summed out together" in str(error)
        pytest.skip("not tractable")
    expected = net.scale * net.evidence()
    if not expected.isfinite():
        assert not loss.isfinite()
        return
    torch.testing.assert_close(-loss, expected, rtol=1e-10, atol=1e-10)
    leaves = net.leaves()
    for a, b in zip(
        torch.autograd.grad(-loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves),
        torch.autograd.grad(expected, leaves, allow_unused=True) if expected.requires_grad else [None] * len(leaves),
        strict=True,
    ):
        torch.testing.assert_close(
            torch.zeros(()).double() if a is None else a.sum(),
            torch.zeros(()).double() if b is None else b.nan_to_num().sum(),
            rtol=1e-9,
            atol=1e-9,
        )


def test_a_hidden_markov_model() -> None:
    def model(table: Tensor) -> None:
        with ppl.plate("sequence", 4):
            z: Tensor | int = 0
            for t in ppl.markov(range(10)):
                z = ppl.sample(f"z{t}", dist.Categorical(table[z]))
                ppl.sample(f"x{t}", dist.Categorical(table.T[z]), obs=DATA[:, t])
                ppl.sample(f"y{t}", dist.Normal(table[z, 0], table[z, 1].exp()), obs=DATA[:, t].double())

    same(model)


def test_tables_that_change_from_step_to_step() -> None:
    def model(table: Tensor) -> None:
        z: Tensor | int = 0
        now = table
        for t in ppl.markov(range(8)):
            z = ppl.sample(f"z{t}", dist.Categorical(now[z]))
            ppl.sample(f"x{t}", dist.Normal(z + 0.1 * t, 1.0), obs=DATA[0, t].double())
            now = now * 0.9 + 0.1 * table.softmax(-1)

    same(model)


@pytest.mark.parametrize("when", [0, 3, 6])
@pytest.mark.parametrize("what", ["value", "row", "view"])
def test_who_writes_into_a_tensor_shares_nothing(what: str, when: int) -> None:
    def model(table: Tensor) -> None:
        z: Tensor = torch.zeros((), dtype=torch.long)
        for t in ppl.markov(range(8)):
            row = table[z] * 1.0
            if t == when:
                if what == "row":
                    row.mul_(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
                elif what == "view":
                    row[..., 0] = 0.25
            z = ppl.sample(f"z{t}", dist.Categorical(row))
            mean = z.clone()
            if t == when and what == "value":
                mean = z * 1.0
                mean += 1.0
            ppl.sample(f"x{t}", dist.Normal(mean * 1.0, 1.0), obs=DATA[0, t].double())

    torch.manual_seed(3)
    table = torch.rand(3, 3, dtype=torch.float64).requires_grad_()
    apart, slope, _ = loss_and_slope(config_enumerate(model), table, False)
    together, slope_together, _ = loss_and_slope(config_enumerate(model), table, True)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope_together, slope, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bad", [3.0, 1e30])
def test_writing_after_sharing_is_found_out(bad: float) -> None:
    def model(table: Tensor) -> None:
        z: Tensor = torch.zeros((), dtype=torch.long)
        for t in ppl.markov(range(6)):
            row = table[z] * 1.0
            if t == 4:  # by now the same row has served other steps
                row.mul_(torch.tensor([1.0, 2.0, bad], dtype=torch.float64))
            z = ppl.sample(f"z{t}", dist.Categorical(row if t < 5 else table[z]))
            ppl.sample(f"x{t}", dist.Categorical(row.abs().nan_to_num(1.0)), obs=DATA[0, t])

    same(model, keeps=False)


def test_an_error_that_sharing_brings_about_is_no_error() -> None:
    def model(table: Tensor) -> None:
        z: Tensor = torch.zeros((), dtype=torch.long)
        for t in ppl.markov(range(6)):
            row = table[z] * 1.0
            assert t == 5 or bool((row < 1.0).all()), "the row was written to"
            if t == 2:
                row.add_(10.0)
            z = ppl.sample(f"z{t}", dist.Categorical(row))
            row = table[z.clone() * 0] * 1.0 if t == 3 else row

    same(model, keeps=True)

    def broken(table: Tensor) -> None:
        z = ppl.sample("z", dist.Categorical(table[0]))
        rows = [table[z] * 1.0 for _ in range(2)]
        rows[0].zero_()
        assert bool(rows[1].any()), "the other row was written to"

    same(broken, keeps=False)


def test_randomness_is_not_shared() -> None:
    seen: list[Tensor] = []

    def model(table: Tensor) -> None:
        z: Tensor | int = 0
        for t in ppl.markov(range(6)):
            noise = torch.randn(3, dtype=torch.float64)
            seen.append(noise)
            z = ppl.sample(f"z{t}", dist.Categorical((table[z] + noise * 0.1).exp()))
            dropped = torch.nn.functional.dropout(table, 0.5)
            ppl.sample(f"x{t}", dist.Categorical(dropped[z] + 0.1), obs=DATA[0, t])

    same(model)
    assert len({tuple(noise.tolist()) for noise in seen[-6:]}) == 6


def test_a_class_of_the_users_is_made_anew_each_time() -> None:
    made = []

    class Mine(dist.Categorical):
        def __init__(self, probs: Tensor) -> None:
            made.append(self)
            super().__init__(probs)

    def model(table: Tensor) -> None:
        z: Tensor | int = 0
        for t in ppl.markov(range(6)):
            z = ppl.sample(f"z{t}", Mine(table[z]))

    same(model)
    assert len({id(d) for d in made[-6:]}) == 6


def test_sharing_begins_with_the_second_run_of_a_program_with_loops() -> None:
    @config_enumerate
    def chain() -> None:
        for t in ppl.markov(range(3)):
            ppl.sample(f"z{t}", dist.Categorical(torch.ones(2)))

    @config_enumerate
    def single() -> None:
        ppl.sample("z", dist.Categorical(torch.ones(2)))

    for model, shares in ((chain, True), (single, None)):
        elbo = TraceEnum_ELBO()
        elbo(model, nothing)
        assert elbo._shares is shares


def test_what_is_shared_and_when() -> None:
    x, index = torch.rand(3, 3), torch.tensor([0, 2])
    with Sharing() as sharing:
        assert not can_share()  # another one is at work
        first = x[index]
        assert x[index] is first and sharing.is_intact()
        assert x[index, 0] is not first and x[1:2] is x[1:2] and x[0:2] is not x[1:2]
        with torch.no_grad():
            assert x[index] is not first
        assert torch.rand(2) is not torch.rand(2)
        x += 1.0
        second = x[index]
        assert second is not first and torch.equal(second, first + 1.0)
        assert torch.where(x > 0)[0].shape == (9,)
        first.zero_()
    assert not sharing.is_intact()
    assert x[index] is not x[index] and can_share()


def test_not_while_something_else_watches() -> None:
    with torch.device("cpu"):
        assert not can_share()
    assert not torch.vmap(lambda x: x * can_share())(torch.ones(2)).any()
