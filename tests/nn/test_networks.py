"""Dense and autoregressive networks: shapes, and which output depends on which input."""

import pytest
import torch
from torch.autograd.functional import jacobian

from ppl.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN, ConditionalDenseNN, DenseNN, MaskedLinear


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("input_dim", [1, 2, 3, 5])
@pytest.mark.parametrize("hidden_dims", [[8], [5, 11, 7]])
def test_outputs_depend_on_all_variables_before_and_no_other(input_dim, context_dim, skip, hidden_dims):
    order = torch.randperm(input_dim)
    network = ConditionalAutoRegressiveNN(input_dim, context_dim, hidden_dims, [3, 1], order, skip, torch.nn.Tanh())
    assert torch.equal(network.get_permutation(), order)
    x = torch.randn(input_dim)
    context = torch.randn(context_dim) if context_dim else None
    for output in range(2):
        depends = jacobian(lambda x, i=output: network(x, context)[i], x)[:, order][..., order] != 0
        assert (depends == torch.ones(input_dim, input_dim).tril(-1).bool()).all()
        if context is not None:
            assert (jacobian(lambda c, i=output: network(x, c)[i], context) != 0).all()


def test_shapes():
    x, context = torch.randn(4, 3), torch.randn(6, 1, 2)
    assert AutoRegressiveNN(3, [5], [1])(x).shape == (4, 3)
    assert [p.shape for p in AutoRegressiveNN(3, [5])(x)] == [(4, 3), (4, 3)]
    assert [p.shape for p in AutoRegressiveNN(3, [5], [4, 1])(x)] == [(4, 4, 3), (4, 1, 3)]
    assert AutoRegressiveNN(3, [5], [4])(x).shape == (4, 4, 3)
    assert [p.shape for p in ConditionalAutoRegressiveNN(3, 2, [5])(x, context)] == [(6, 4, 3)] * 2
    assert [p.shape for p in DenseNN(3, [5], [4, 1])(x)] == [(4, 4), (4, 1)]
    assert DenseNN(3, [], [4])(x).shape == (4, 4)
    assert ConditionalDenseNN(3, 2, [5], [4])(x, context).shape == (6, 4, 4)


def test_masked_linear():
    layer = MaskedLinear(2, 2, torch.tensor([[1, 0], [1, 1]]))
    assert jacobian(layer, torch.randn(2))[0, 1] == 0
    assert "mask" in layer.state_dict()
    with pytest.raises(ValueError, match="mask's shape"):
        MaskedLinear(2, 3, torch.ones(2, 2))


def test_errors():
    with pytest.raises(ValueError, match="give it 4 units at least"):
        AutoRegressiveNN(5, [3])
    with pytest.raises(ValueError, match="give it 5 units at least"):
        ConditionalAutoRegressiveNN(5, 1, [4])
    with pytest.raises(ValueError, match="once each"):
        AutoRegressiveNN(3, [5], permutation=torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="context of 2"):
        ConditionalDenseNN(3, 2, [5])(torch.randn(3))
    with pytest.raises(ValueError, match="input's last dim must be 3"):
        DenseNN(3, [5])(torch.randn(2))
