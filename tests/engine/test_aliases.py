"""Tensors that come in two roles: given twice, given and a global, written into and read elsewhere."""

import pytest
import torch
from rough_runs import X, close, fresh, normal

import ppl
import ppl.distributions as dist
from ppl.optim import Adagrad, Adam

pytestmark = pytest.mark.usefixtures("alone")


def both(model, data, args, optim=None, steps=40):
    """The losses of eager and recorded steps with arguments that follow on each other, and what tensors hold afterwards."""
    found = []
    before = [tensor.detach().clone() for tensor in data]
    for compile in ("never", "auto"):
        for tensor, old in zip(data, before, strict=True):
            tensor.data.copy_(old)
        svi = fresh(model, lambda *args: guide(), optim)
        result = svi.fit(
            [args[i * len(args) // steps] for i in range(steps)], 1, plate=(), compile=compile, progress_bar=False
        )
        found.append((result.losses, [tensor.detach().clone() for tensor in data]))
    (expected, held), (losses, mine) = found
    close(losses, expected)
    close(mine, held)


def guide():
    ppl.sample("loc", dist.Normal(ppl.param("a", torch.tensor(0.0)), 0.1))
    ppl.sample("scale", dist.LogNormal(ppl.param("b", torch.tensor(0.0)), 0.1))


def test_arguments_that_are_one_tensor_at_first(quick):
    def model(x, y):
        normal(torch.cat([x, 2 * y]))

    both(model, [], [(X, X), (X, X + 3), (X + 1, X)])
    assert sum(n for n, _ in quick) > 30


def test_an_argument_that_is_a_global_as_well(quick):
    both(lambda x: normal(x + X), [], [(X,), (X + 3,)])
    assert sum(n for n, _ in quick) > 30


@pytest.mark.parametrize("optim", [Adam({"lr": 0.01}), Adagrad({"lr": 0.01})])
def test_an_argument_that_is_written_into(optim, quick):
    def model(x, counts):
        counts[0].add_(0.1)
        normal(x + counts[0])

    counts = [torch.zeros(()), torch.ones(())]
    both(model, counts, [(X, [count]) for count in counts], optim=optim)
    assert [count.item() for count in counts] == pytest.approx([2.1, 3.0])  # the first one by the setup, too


def test_data_that_a_buffer_which_changes_is_part_of(quick):
    count = torch.zeros(())

    def model(x):
        shifted = x + count
        count.add_(0.1)
        normal(shifted)

    both(model, [count], [(X,)])
    assert sum(n for n, _ in quick) > 30


def test_a_parameter_that_is_written_into_and_not_trained(quick):
    rate = torch.nn.Parameter(torch.tensor(1.0))

    def model(x):
        with torch.no_grad():
            rate.mul_(0.99)
        normal(x * rate.detach())

    both(model, [rate], [(X,)])
    assert sum(n for n, _ in quick) > 30


def test_memory_that_is_written_into_and_read_through_another_tensor(quick):
    count = torch.zeros(3)
    first = count[:1]

    def model(x):
        count.add_(0.1)
        normal(x + first)

    with pytest.warns(UserWarning, match="writes into memory that two tensors from outside share"):
        both(model, [count], [(X,)])
    assert not quick
