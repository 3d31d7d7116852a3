"""Draws are read from aten operations, and survive being written down."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ppl.engine.draw import Draw, read_draw


class Last(TorchDispatchMode):
    """What `read_draw` says of the random operations that run inside."""

    def __init__(self):
        super().__init__()
        self.draws = []

    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.draws.append(read_draw(func, args, kwargs or {}, out))
        return out


def read(call):
    with Last() as last:
        call()
    (draw,) = last.draws
    return draw


F32, F64, I64 = torch.float32, torch.float64, torch.int64
READ = {
    "randn": (lambda: torch.randn(2, 3), Draw("normal", (2, 3), F64, numbers=(0.0, 1.0))),
    "randn_like": (lambda: torch.randn_like(torch.zeros(4), dtype=F32), Draw("normal", (4,), F32, numbers=(0.0, 1.0))),
    "rand": (lambda: torch.rand(()), Draw("uniform", (), F64, numbers=(0.0, 1.0))),
    "rand_like": (lambda: torch.rand_like(torch.zeros(4)), Draw("uniform", (4,), F64, numbers=(0.0, 1.0))),
    "torch.normal": (lambda: torch.normal(0.5, 2.0, (3,)), Draw("normal", (3,), F64, numbers=(0.5, 2.0))),
    "normal_": (lambda: torch.empty(3).normal_(), Draw("normal", (3,), F64, numbers=(0.0, 1.0))),
    "normal_(std)": (lambda: torch.empty(3).normal_(std=2.0), Draw("normal", (3,), F64, numbers=(0.0, 2.0))),
    "uniform_": (lambda: torch.empty(3).uniform_(-1, 4), Draw("uniform", (3,), F64, numbers=(-1.0, 4.0))),
    "exponential_": (lambda: torch.empty(3).exponential_(2.0), Draw("exponential", (3,), F64, numbers=(2.0,))),
    "bernoulli_": (lambda: torch.empty(3).bernoulli_(0.25), Draw("bernoulli", (3,), F64, numbers=(0.25,))),
    "bernoulli": (lambda: torch.bernoulli(torch.zeros(3), 0.25), Draw("bernoulli", (3,), F64, numbers=(0.25,))),
    "dropout": (lambda: torch.dropout(torch.ones(3), 0.25, True), Draw("bernoulli", (3,), F64, numbers=(0.75,))),
    "log_normal_": (lambda: torch.empty(3).log_normal_(), Draw("log_normal", (3,), F64, numbers=(1.0, 2.0))),
    "cauchy_": (lambda: torch.empty(3).cauchy_(), Draw("cauchy", (3,), F64, numbers=(0.0, 1.0))),
    "geometric_": (lambda: torch.empty(3).geometric_(0.25), Draw("geometric", (3,), F64, numbers=(0.25,))),
    "random_": (lambda: torch.empty(3, dtype=I64).random_(), Draw("random", (3,), I64)),
    "random_(to)": (lambda: torch.empty(3).random_(7), Draw("randint", (3,), F64, numbers=(0, 7))),
    "random_(from, to)": (lambda: torch.empty(3).random_(2, 7), Draw("randint", (3,), F64, numbers=(2, 7))),
    "randint": (lambda: torch.randint(7, (2, 2)), Draw("randint", (2, 2), I64, numbers=(0, 7))),
    "randint(low)": (lambda: torch.randint(2, 7, (2,), dtype=F32), Draw("randint", (2,), F32, numbers=(2, 7))),
    "randint_like": (lambda: torch.randint_like(torch.zeros(2), 2, 7), Draw("randint", (2,), F64, numbers=(2, 7))),
    "randperm": (lambda: torch.randperm(6), Draw("randperm", (6,), I64)),
    "transposed": (
        lambda: torch.randn_like(torch.zeros(2, 3).t()),
        Draw("normal", (3, 2), F64, numbers=(0.0, 1.0), stride=(1, 3)),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_draw_is_read_from_what_a_user_writes(name):
    call, expected = READ[name]
    torch.manual_seed(0)
    assert read(call) == expected


NOT_READ = {
    "probabilities in a tensor": lambda: torch.bernoulli(torch.full((3,), 0.5)),
    "probabilities in a tensor, in place": lambda: torch.empty(3).bernoulli_(torch.full((3,), 0.5)),
    "mean in a tensor": lambda: torch.normal(torch.zeros(3), 1.0),
    "mean and std in tensors": lambda: torch.normal(torch.zeros(3), torch.ones(3)),
    "categories": lambda: torch.multinomial(torch.ones(3), 2),
    "gamma": lambda: torch._standard_gamma(torch.ones(3)),
    "generator": lambda: torch.randn(3, generator=torch.Generator()),
    "generator in place": lambda: torch.empty(3).normal_(generator=torch.Generator()),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "gaps": lambda: torch.empty(6)[::2].normal_(),
    "the full range": lambda: torch.empty(3, dtype=I64).random_(-5, None),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_cannot_be_drawn_ahead_is_not_read(name):
    assert read(NOT_READ[name]) is None


def test_an_operation_that_draws_nothing_is_not_read():
    x = torch.ones(3)
    assert read_draw(torch.ops.aten.add.Tensor, (x, x), {}, x) is None


@pytest.mark.parametrize("name", READ)
def test_a_draw_survives_json(name):
    draw = READ[name][1]
    again = Draw.from_json(json.loads(json.dumps(draw.as_json())))
    assert again == draw
    assert hash(again) == hash(draw)
    assert [type(x) for x in again.numbers] == [type(x) for x in draw.numbers]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no draw is called 'gamma'; there are normal, uniform"):
        Draw("gamma", (3,), F64)
    with pytest.raises(ValueError, match=r"a normal draw takes the numbers \(mean, std\), it got \(1.0,\)"):
        Draw("normal", (3,), F64, numbers=(1.0,))
    with pytest.raises(ValueError, match="cannot have the dtype"):
        Draw("normal", (3,), torch.complex64, numbers=(0.0, 1.0))
    for stride in ((2,), (0,), (1, 1)):
        with pytest.raises(ValueError, match="must fill its memory"):
            Draw("normal", (3,), F64, numbers=(0.0, 1.0), stride=stride)
