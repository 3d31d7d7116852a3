"""Broadcasting indices, against loops."""

import itertools

import pytest
import torch

from ppl.tensors.indexing import Vindex, vindex


def test_two_indices_on_dims_of_their_own():
    table = torch.randn(3, 4, 5)
    i, j = torch.arange(3).reshape(3, 1, 1), torch.arange(4).reshape(4, 1)
    picked = vindex(table, (..., i, j, slice(None)))
    assert picked.shape == (3, 4, 1, 5)
    assert torch.equal(picked[:, :, 0], table)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1, 3)])
@pytest.mark.parametrize("shapes", [((), ()), ((3,), ()), ((2, 1), (3,)), ((4, 1, 1), (2, 3))])
def test_batch_dims_broadcast_with_indices(batch, shapes):
    torch.manual_seed(0)
    table = torch.randn((*batch, 5, 4, 6))
    i, j = torch.randint(5, shapes[0]), torch.randint(4, shapes[1])
    out = torch.broadcast_shapes(batch, i.shape, j.shape)
    picked = vindex(table, (..., i, j, slice(None)))
    assert picked.shape == (*out, 6)
    full, i, j = table.expand((*out, 5, 4, 6)), i.expand(out), j.expand(out)
    for place in itertools.product(*map(range, out)):
        assert torch.equal(picked[place], full[place][i[place], j[place]])


def test_slices_between_and_missing_indices():
    table = torch.randn(2, 3, 4, 5)
    i = torch.tensor([0, 1, 1])
    assert torch.equal(vindex(table, (i, slice(None), i)), table[i[:, None], :, i[:, None]].squeeze(1))
    assert torch.equal(vindex(table, i), table[i])
    assert torch.equal(vindex(table, (..., 1)), table[..., 1])
    assert torch.equal(vindex(table, (...,)), table)
    assert torch.equal(Vindex(table)[..., i, :], vindex(table, (..., i, slice(None))))


def test_gradients():
    table = torch.randn(3, 4, requires_grad=True)
    vindex(table, (torch.tensor([0, 2]), torch.tensor([1, 1]))).sum().backward()
    assert table.grad.sum() == 2 and table.grad[0, 1] == 1


@pytest.mark.parametrize("index", [(0.5,), (slice(1, 2),), (torch.tensor(0.5),), (0, 0, 0), (0, ...), None])
def test_what_it_refuses(index):
    with pytest.raises(IndexError, match="vindex"):
        vindex(torch.zeros(2, 3), index)
