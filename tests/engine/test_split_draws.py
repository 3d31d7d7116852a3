"""Random operations with tensors as arguments, split into draws and arithmetic, give torch's bits."""

import pytest
import torch

from ppl.engine.split_draws import SPLIT

aten = torch.ops.aten
SHAPES = [(), (1,), (3,), (7, 1), (5, 4), (40, 3)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def positive(shape, dtype):
    return torch.rand(shape, dtype=torch.float64).add(0.1).to(dtype)


def probs(shape, dtype):
    return torch.rand(shape, dtype=torch.float64).to(dtype)


def expanded(dtype):
    return probs((3, 1), dtype).expand(3, 20)


ARGUMENTS = {
    "both": (aten.normal.Tensor_Tensor, lambda s, d: (positive(s, d), positive(s, d))),
    "broadcast": (aten.normal.Tensor_Tensor, lambda s, d: (positive((), d), positive((2, 9), d))),
    "mean": (aten.normal.Tensor_float, lambda s, d: (positive(s, d), 1.7)),
    "std": (aten.normal.float_Tensor, lambda s, d: (0.3, positive(s, d))),
    "bernoulli": (aten.bernoulli.default, lambda s, d: (probs(s, d),)),
    "bernoulli, expanded": (aten.bernoulli.default, lambda s, d: (expanded(d),)),
    "bernoulli, transposed": (aten.bernoulli.default, lambda s, d: (probs((4, 6), d).t(),)),
    "bernoulli_": (aten.bernoulli_.Tensor, lambda s, d: (torch.zeros(s, dtype=d), probs(s, d))),
    "bernoulli_, integers": (aten.bernoulli_.Tensor, lambda s, d: (torch.zeros((4, *s), dtype=torch.int64), probs(s, d))),
    "bernoulli like": (aten.bernoulli.Tensor, lambda s, d: (torch.zeros(s, dtype=torch.float64), probs(s, d))),
    "multinomial": (aten.multinomial.default, lambda s, d: (positive((6, 5), d), 1, True)),
    "multinomial, one row": (aten.multinomial.default, lambda s, d: (positive((50,), d), 1)),
    "multinomial, transposed": (aten.multinomial.default, lambda s, d: (positive((6, 5), d).t(), 1)),
    "without replacement": (aten.multinomial.default, lambda s, d: (positive((6, 5), d), 3, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_split_draw_has_the_bits_and_the_layout_of_torchs(name):
    operation, make = ARGUMENTS[name]
    for dtype in DTYPES:
        for shape in SHAPES:
            args = make(shape, dtype)
            expected, actual = [], []
            for results, call in ((expected, operation), (actual, SPLIT[operation])):
                torch.manual_seed(3)
                for _ in range(20):
                    mine = [arg.clone() if name.startswith("bernoulli_") else arg for arg in args]
                    results.append(call(*mine))
                results.append(torch.get_rng_state())
            for a, b in zip(actual, expected, strict=True):
                assert a.dtype == b.dtype
                assert a.stride() == b.stride()
                assert torch.equal(a, b), (dtype, shape)


def test_bernoulli_in_place_returns_the_tensor():
    x = torch.zeros(5)
    assert SPLIT[aten.bernoulli_.Tensor](x, torch.ones(5)) is x
    assert x.sum() == 5


def test_what_has_no_such_form_is_not_split():
    assert SPLIT[aten.multinomial.default](torch.ones(5), 2, True) is None
    assert SPLIT[aten.bernoulli_.Tensor](torch.ones(2, 3).t(), torch.ones(3, 2)) is None


def test_a_generator_is_used():
    for operation, args in (
        (aten.normal.Tensor_Tensor, (torch.zeros(3), torch.ones(3))),
        (aten.normal.Tensor_float, (torch.zeros(3), 2.0)),
        (aten.normal.float_Tensor, (0.0, torch.ones(3))),
        (aten.bernoulli.default, (torch.full((40,), 0.5),)),
        (aten.bernoulli.Tensor, (torch.zeros(40), torch.full((40,), 0.5))),
        (aten.bernoulli_.Tensor, (torch.zeros(40), torch.full((40,), 0.5))),
        (aten.multinomial.default, (torch.ones(9, 4), 1)),
    ):
        expected, actual = (
            call(*args, generator=torch.Generator().manual_seed(1)).clone() for call in (operation, SPLIT[operation])
        )
        assert torch.equal(actual, expected), operation
