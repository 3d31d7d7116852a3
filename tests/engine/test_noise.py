"""Noise drawn ahead has the bits of eager draws one after another, and leaves the generator where they do."""

import random
import threading
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppl
import ppl.distributions as dist
from ppl.engine import native
from ppl.engine.draw import Draw, read_draw
from ppl.engine.noise import Noise, fast_draws
from ppl.infer import SVI, Trace_ELBO
from ppl.infer.autoguide import AutoNormal
from ppl.optim import Adam

SHAPES = [(), (1,), (7,), (15,), (16,), (17,), (100,), (10, 100), (2, 0)]
REAL = (torch.float32, torch.float64)
ANY = (*REAL, torch.int64)

# a draw's kind and numbers, the dtypes that it has, and how a user writes it
EAGER = {
    "randn": ("normal", (0.0, 1.0), REAL, torch.randn),
    "normal": ("normal", (0.3, 1.7), REAL, lambda shape, dtype: torch.normal(0.3, 1.7, shape, dtype=dtype)),
    "shifted": ("normal", (2.0, 1.0), REAL, lambda shape, dtype: torch.empty(shape, dtype=dtype).normal_(2.0)),
    "rand": ("uniform", (0.0, 1.0), REAL, torch.rand),
    "uniform": ("uniform", (-0.3, 1.7), REAL, lambda shape, dtype: torch.empty(shape, dtype=dtype).uniform_(-0.3, 1.7)),
    "exponential": ("exponential", (2.5,), REAL, lambda shape, dtype: torch.empty(shape, dtype=dtype).exponential_(2.5)),
    "bernoulli": ("bernoulli", (0.3,), (*ANY, torch.bool), lambda shape, dtype: torch.empty(shape, dtype=dtype).bernoulli_(0.3)),
    "log_normal": ("log_normal", (0.3, 0.7), REAL, lambda shape, dtype: torch.empty(shape, dtype=dtype).log_normal_(0.3, 0.7)),
    "cauchy": ("cauchy", (0.3, 1.7), REAL, lambda shape, dtype: torch.empty(shape, dtype=dtype).cauchy_(0.3, 1.7)),
    "geometric": ("geometric", (0.3,), ANY, lambda shape, dtype: torch.empty(shape, dtype=dtype).geometric_(0.3)),
    "random": ("random", (), ANY, lambda shape, dtype: torch.empty(shape, dtype=dtype).random_()),
    "randint": ("randint", (-3, 9), ANY, lambda shape, dtype: torch.randint(-3, 9, shape, dtype=dtype)),
    "wide": ("randint", (-5, 1 << 40), (torch.int64,), lambda shape, dtype: torch.randint(-5, 1 << 40, shape, dtype=dtype)),
    "half": ("normal", (0.0, 1.0), (torch.float16, torch.bfloat16), torch.randn),
    "randperm": ("randperm", (), (torch.int64, torch.float32), lambda shape, dtype: torch.randperm(shape.numel(), dtype=dtype)),
}  # fmt: skip


def case(name, shape, dtype):
    kind, numbers, _, eager = EAGER[name]
    if kind == "randperm":
        shape = torch.Size([torch.Size(shape).numel()])
    shape = torch.Size(shape)
    return Draw(kind, tuple(shape), dtype, numbers=numbers), lambda: eager(shape, dtype=dtype)


def assert_same(noise, eager, n, seed=5, before=lambda: None):
    """Fills n steps and compares numbers, states and what is drawn next with n eager steps."""
    torch.manual_seed(seed)
    before()
    expected = [[draw() for draw in eager] for _ in range(n)]
    state, after = torch.get_rng_state(), torch.randn(3)
    torch.manual_seed(seed)
    before()
    noise.fill(n)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.randn(3), after)
    for index in range(len(eager)):
        rows = noise.rows(index, n)
        for step in range(n):
            assert torch.equal(rows[step], expected[step][index]), (noise.draws[index], step)


@pytest.mark.parametrize("name", EAGER)
def test_each_kind_has_the_bits_of_eager_draws(name, library):
    for dtype in EAGER[name][2]:
        for shape in SHAPES:
            draw, eager = case(name, shape, dtype)
            # a single normal draw before leaves a second one in the generator
            for before in (lambda: None, lambda: torch.randn(()), lambda: torch.rand(())):
                assert_same(Noise([draw], 4, library), [eager], 3, before=before)


def test_draws_of_many_kinds_in_any_order_have_the_bits_of_eager_draws(library):
    choice = random.Random(1)
    for seed in range(60):
        pairs = []
        for _ in range(choice.randint(1, 6)):
            name = choice.choice(list(EAGER))
            pairs.append(case(name, choice.choice([*SHAPES, (3,), (), ()]), choice.choice(EAGER[name][2])))
        draws, eager = zip(*pairs, strict=True)
        before = choice.choice([lambda: None, lambda: torch.randn(()), lambda: torch.randn(20)])
        assert_same(Noise(draws, 5, library), eager, choice.randint(0, 5), seed, before)


def test_blocks_follow_each_other_with_eager_draws_between(library):
    pairs = [case("randn", (), torch.float32), case("randn", (8,), torch.float64), case("rand", (), torch.float32)]
    noise = Noise([draw for draw, _ in pairs], 500, library)
    addresses = [buffer.data_ptr() for buffer in noise.buffers]
    torch.manual_seed(0)
    blocks = []
    for n in (500, 1, 0, 77):
        noise.fill(n)
        blocks += [noise.rows(index, n).flatten().clone() for index in range(3)] + [torch.randn(())]
    torch.manual_seed(0)
    for n in (500, 1, 0, 77):
        steps = [[eager() for _, eager in pairs] for _ in range(n)]
        for index in range(3):
            expected = torch.cat([step[index].flatten() for step in steps]) if n else torch.empty(0)
            assert torch.equal(blocks.pop(0), expected)
        assert torch.equal(blocks.pop(0), torch.randn(()))
    assert [buffer.data_ptr() for buffer in noise.buffers] == addresses


def test_draws_share_a_buffer_with_their_dtype():
    shapes = [((), torch.float32), ((8,), torch.float64), ((2, 3), torch.float32), ((0,), torch.float64)]
    noise = Noise([Draw("normal", shape, dtype, numbers=(0.0, 1.0)) for shape, dtype in shapes], 10)
    assert noise.places == [(0, 0, 1), (1, 0, 8), (0, 1, 7), (1, 8, 8)]
    assert [(buffer.dtype, buffer.shape) for buffer in noise.buffers] == [
        (torch.float32, (10, 7)),
        (torch.float64, (10, 8)),
    ]
    noise.fill(10)
    assert torch.equal(noise.rows(2, 10), noise.buffers[0][:, 1:7].unflatten(1, (2, 3)))
    assert Noise([], 3).buffers == []
    Noise([], 3).fill(3)


@pytest.mark.parametrize(
    "like",
    [torch.empty(4, 6).t(), torch.empty(2, 3).t(), torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)],
    ids=["transposed", "small", "channels_last"],
)
def test_a_draw_that_lies_in_another_order_is_drawn_in_that_order(like, library):
    draw = read_draw(torch.ops.aten.randn_like.default, (like,), {}, like)
    assert draw is not None
    assert draw.stride == like.stride()
    assert_same(Noise([draw], 3, library), [lambda: torch.randn_like(like)], 3)


def test_a_generator_of_its_own_leaves_the_default_one_alone(library):
    draws = [case(name, (20,), torch.float32)[0] for name in ("randn", "exponential")]
    noise = Noise(draws, 2, library, torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    noise.fill(2)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(3)
    for step in range(2):
        assert torch.equal(noise.rows(0, 2)[step], torch.randn(20, generator=generator, dtype=torch.float32))
        assert torch.equal(
            noise.rows(1, 2)[step], torch.empty(20, dtype=torch.float32).exponential_(2.5, generator=generator)
        )


def test_draws_elsewhere_do_not_disturb_those_on_the_cpu(library):
    elsewhere = Draw("uniform", (5,), torch.float32, torch.device("meta"), (0.0, 1.0))
    draw, eager = case("randn", (5,), torch.float32)
    noise = Noise([elsewhere, draw], 3, library)
    assert [buffer.device.type for buffer in noise.buffers] == ["meta", "cpu"]
    torch.manual_seed(0)
    noise.fill(3)
    torch.manual_seed(0)
    assert torch.equal(noise.rows(1, 3), torch.stack([eager() for _ in range(3)]))


def test_threads_that_draw_meanwhile_share_the_stream_without_a_number_twice(library):
    noise = Noise([case("rand", (3,), torch.float64)[0]], 3000, library)
    mine, theirs, done = [], [], threading.Event()

    def draw_on():
        while not done.is_set():
            theirs.append(torch.rand(2, dtype=torch.float64))

    torch.manual_seed(7)
    thread = threading.Thread(target=draw_on)
    thread.start()
    for _ in range(5 if library is None else 60):
        noise.fill(3000)
        mine.append(noise.rows(0, 3000).clone())
    done.set()
    thread.join()
    found = torch.cat([*(x.flatten() for x in mine), *theirs])
    torch.manual_seed(7)
    assert torch.equal(found.sort().values, torch.rand(len(found), dtype=torch.float64).sort().values)


class Silent(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was seen")


def test_the_library_calls_no_operation_that_python_sees(compiled):
    pairs = [case(name, (40,), EAGER[name][2][0]) for name in EAGER]
    noise = Noise([draw for draw, _ in pairs], 2, compiled)
    torch.manual_seed(5)
    with Silent():
        noise.fill(2)
    torch.manual_seed(5)
    for step in range(2):
        for index, (_, eager) in enumerate(pairs):
            assert torch.equal(noise.rows(index, 2)[step], eager())


def test_the_library_may_come_while_the_noise_is_in_use(compiled):
    draw, eager = case("randn", (3,), torch.float32)
    noise = Noise([draw], 4)
    torch.manual_seed(1)
    noise.fill(4)
    first = noise.rows(0, 4).clone()
    noise.library = compiled
    noise.fill(4)
    torch.manual_seed(1)
    assert torch.equal(torch.cat([first, noise.rows(0, 4)]), torch.stack([eager() for _ in range(8)]))


def test_what_torch_refuses_is_refused_and_the_generator_stays_free(library):
    noise = Noise([case("randn", (3,), torch.float32)[0], Draw("normal", (3,), torch.float32, numbers=(0.0, -1.0))], 4)
    noise.library = library
    with pytest.raises(RuntimeError, match="std >= 0"):
        noise.fill(2)
    torch.randn(2)


def test_counts_of_steps_are_checked():
    noise = Noise([case("randn", (3,), torch.float32)[0]], 4)
    for n in (5, -1):
        with pytest.raises(ValueError, match=f"holds 0 to 4 steps, it was asked for {n}"):
            noise.fill(n)
    with pytest.raises(ValueError, match="at least 1 step, it got 0"):
        Noise([], 0)


@pytest.mark.parametrize("wrong", ["numbers", "nothing"])
def test_a_library_that_draws_other_numbers_is_not_used(monkeypatch, compiled, wrong):
    class Other(SimpleNamespace):
        _handle = wrong

    def ppl_fill(rows, count, plan, generator):
        if wrong == "numbers":
            compiled.ppl_fill(rows, count, plan, generator)
            compiled.ppl_fill(rows, count, plan, None)  # draws once more, from another generator

    other = Other(ppl_fill=ppl_fill)
    monkeypatch.setattr(native, "library", lambda name, build, store: other)
    torch.manual_seed(9)
    with pytest.warns(RuntimeWarning, match="other numbers than torch's"):
        assert fast_draws() is None
    assert fast_draws() is None


class Draws(TorchDispatchMode):
    """Writes down the random draws of what runs inside, and what they gave."""

    def __init__(self):
        super().__init__()
        self.found = []

    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            draw = read_draw(func, args, kwargs or {}, out)
            if draw is not None:
                self.found.append((draw, out.clone()))
        return out


def test_the_noise_of_steps_of_svi_is_known_ahead(library):
    def schools(y, sigma):
        mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        tau = ppl.sample("tau", dist.HalfCauchy(5.0))
        with ppl.plate("schools", 8):
            theta = ppl.sample("theta", dist.Normal(mu, tau))
            ppl.sample("obs", dist.Normal(theta, sigma), obs=y)

    data = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]), torch.full((8,), 12.0)
    svi = SVI(schools, AutoNormal(schools), Adam({"lr": 0.01}), Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(3):
        svi.step(*data)
    state = torch.get_rng_state()
    steps = []
    for _ in range(5):
        with Draws() as recorded:
            svi.step(*data)
        steps.append(recorded.found)
    end = torch.get_rng_state()
    assert sum(draw.size for draw, _ in steps[0]) == 10
    noise = Noise([draw for draw, _ in steps[0]], 5, library)
    torch.set_rng_state(state)
    noise.fill(5)
    assert torch.equal(torch.get_rng_state(), end)
    for index in range(len(steps[0])):
        assert torch.equal(noise.rows(index, 5), torch.stack([step[index][1] for step in steps]))
