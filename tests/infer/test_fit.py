"""SVI.fit: batches as arguments, densities scaled to all data, resumption, and what it refuses."""

import collections
import io
import math
import time

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.distributions import constraints
from ppl.infer import SVI, FitResult, Trace_ELBO, TraceEnum_ELBO
from ppl.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from ppl.optim import SGD, Adam

SIZE = 23  # with batches of 5, the last one has 3


def data(dtype=None):
    generator = torch.Generator().manual_seed(1)
    return 1.5 + torch.randn(SIZE, generator=generator, dtype=torch.float64).to(dtype or torch.get_default_dtype())


def loader(*tensors, batch_size=5, **options):
    return DataLoader(TensorDataset(*(tensors or (data(),))), batch_size=batch_size, **options)


def model(x):
    m = ppl.sample("m", dist.Normal(0.0, 2.0))
    with ppl.plate("data", len(x)):
        ppl.sample("x", dist.Normal(m, 1.0), obs=x)


def model_of_size(x):
    m = ppl.sample("m", dist.Normal(0.0, 2.0))
    with ppl.plate("data", SIZE, subsample_size=len(x)):
        ppl.sample("x", dist.Normal(m, 1.0), obs=x)


def point(x):
    ppl.sample("m", dist.Delta(ppl.param("loc", torch.tensor(0.7))))


def normal(x):
    loc, sd = ppl.param("loc", torch.tensor(0.0)), ppl.param("sd", torch.tensor(1.0), constraint=constraints.positive)
    ppl.sample("m", dist.Normal(loc, sd))


def still(program, guide=point, loss=None):
    """An SVI whose parameters stay where they are."""
    return SVI(program, guide, SGD({"lr": 0.0}), loss)


def fit(svi, batches, epochs=1, **options):
    return svi.fit(batches, epochs, progress_bar=False, **options)


# -- scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("program", [model, model_of_size])
def test_an_epoch_of_batches_loses_what_all_data_lose(program, shuffle, dtype):
    torch.set_default_dtype(dtype)
    svi = still(program)
    plate = "data" if program is model else None
    result = fit(svi, loader(shuffle=shuffle), 2, plate=plate)
    whole = svi.evaluate_loss(data())
    by_hand = -dist.Normal(0.0, 2.0).log_prob(torch.tensor(0.7)) - dist.Normal(0.7, 1.0).log_prob(data()).sum()
    assert whole == pytest.approx(by_hand.item(), rel=1e-12 if dtype is torch.float64 else 1e-6)
    assert isinstance(result, FitResult)
    assert result.epoch_losses.tolist() == pytest.approx([whole, whole], rel=1e-12 if dtype is torch.float64 else 1e-6)
    assert result.losses.shape == (10,)
    assert result.losses.dtype == result.epoch_losses.dtype == dtype


def test_each_batch_is_scaled_by_its_own_size():
    losses = fit(still(model), loader(), plate="data").losses
    prior = dist.Normal(0.0, 2.0).log_prob(torch.tensor(0.7))
    batches = data().split(5)
    expected = [-prior - SIZE / len(x) * dist.Normal(0.7, 1.0).log_prob(x).sum() for x in batches]
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-12, atol=0)


def test_local_sites_of_a_guide_are_scaled_too():
    def local_model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(z, 1.0), obs=x)

    def amortised(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", dist.Normal(ppl.param("a", torch.tensor(0.5)) * x, 0.3))

    expected = []
    for x in data().split(5):
        q = dist.Normal(0.5 * x, 0.3)
        z = q.sample()
        bound = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q.log_prob(z)
        expected.append(-SIZE / len(x) * bound.sum())
    ppl.set_rng_seed(0)
    losses = fit(still(local_model, amortised), [[x] for x in data().split(5)], plate="data").losses
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-12, atol=0)


def test_sums_over_enumerated_sites_are_scaled_from_outside():
    @handlers.infer_config(config_fn=lambda site: {"enumerate": "parallel"} if site.name == "k" else {})
    def mixture(x):
        m = ppl.sample("m", dist.Normal(0.0, 2.0))
        with ppl.plate("data", len(x)):
            k = ppl.sample("k", dist.Bernoulli(0.3))
            ppl.sample("x", dist.Normal(m * k, 1.0), obs=x)

    svi = still(mixture, loss=TraceEnum_ELBO())
    result = fit(svi, loader(), plate="data")
    assert result.epoch_losses.item() == pytest.approx(svi.evaluate_loss(data()), rel=1e-12)


def test_two_plates_may_follow_the_batch_and_vectorised_particles_do_not():
    def twice(x, y):
        m = ppl.sample("m", dist.Normal(0.0, 2.0))
        for name, value in (("first", x), ("second", y)):
            with ppl.plate(name, len(x)):
                ppl.sample(name + "_seen", dist.Normal(m, 1.0), obs=value)

    svi = still(twice, lambda x, y: point(x), Trace_ELBO(3, vectorize_particles=True))
    result = fit(svi, loader(data(), -data()), plate=("first", "second"))
    assert result.epoch_losses.item() == pytest.approx(svi.evaluate_loss(data(), -data()), rel=1e-12)


# -- what it finds


@pytest.mark.parametrize("guide", [normal, AutoNormal(model), AutoDiagonalNormal(model)])
def test_batches_find_the_posterior_of_all_data(guide):
    """The precision of the posterior is 1/4 + 23; unscaled batches would find 1/4 + 5."""
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True))
    fit(svi, loader(shuffle=True), 60, plate="data")
    svi.optimizer.param_groups[0]["lr"] = 0.002
    fit(svi, loader(shuffle=True), 60, plate="data")
    precision = 0.25 + SIZE
    drawn = torch.stack([draw(svi) for _ in range(4000)])
    assert drawn.mean().item() == pytest.approx(data().sum().item() / precision, abs=0.03)
    assert drawn.std().item() == pytest.approx(precision**-0.5, rel=0.1)


def draw(svi):
    with svi.params, torch.no_grad():
        return handlers.trace(svi.guide).get_trace(data())["m"].value


def test_latent_sites_for_each_element_are_found_by_index():
    """z_i given x_i: precision 1 + 4, whichever batches it was seen in."""

    def local_model(x, indices):
        with ppl.plate("data", SIZE, subsample=indices):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(z, 0.5), obs=x)

    guide = AutoNormal(local_model, create_plates=lambda x, indices: ppl.plate("data", SIZE, subsample=indices))
    svi = SVI(local_model, guide, Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True))
    batches = loader(data(), torch.arange(SIZE), shuffle=True)
    fit(svi, batches, 80)
    svi.optimizer.param_groups[0]["lr"] = 0.002
    fit(svi, batches, 60)
    torch.testing.assert_close(svi.params["z_auto_loc"], data() * 4 / 5, atol=0.04, rtol=0)
    torch.testing.assert_close(svi.params["z_auto_scale"], torch.full((SIZE,), 5**-0.5), atol=0, rtol=0.1)


# -- batches


def line(x, y, slope=2.0):
    m = ppl.sample("m", dist.Normal(0.0, 2.0))
    with ppl.plate("data", len(x)):
        ppl.sample("y", dist.Normal(m + slope * x, 1.0), obs=y)


def guide_of_line(*args, **kwargs):
    point(None)


class Rows(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index]}


Pair = collections.namedtuple("Pair", ["x", "y"])


@pytest.mark.parametrize(
    "batches",
    [
        loader(data(), -data()),
        DataLoader(Rows(data(), -data()), batch_size=5),
        [(x, -x) for x in data().split(5)],
        [[x, -x] for x in data().split(5)],
        [Pair(x, -x) for x in data().split(5)],
        [{"x": x, "y": -x} for x in data().split(5)],
        tuple({"x": x, "y": -x, "slope": 2.0} for x in data().split(5)),
    ],
    ids=["tensors", "dicts of a loader", "tuples", "lists", "named tuples", "dicts", "with a number"],
)
def test_tuples_are_positional_and_dicts_keyword_arguments(batches):
    svi = still(line, guide_of_line)
    result = fit(svi, batches, plate="data")
    assert result.epoch_losses.item() == pytest.approx(svi.evaluate_loss(data(), -data()), rel=1e-12)


def test_a_tensor_is_one_argument_and_what_is_no_tensor_passes_through():
    seen = []

    def takes(*args, **kwargs):
        seen.append((args, kwargs))

    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    batches = [torch.ones(2), "text", (3, "text", None), {"a": [torch.ones(2), "text"]}, packed]
    fit(still(takes, takes), batches, scale=2)
    assert [args for args, _ in seen[2:][::2]] == [(batches[0],), ("text",), (3, "text", None), (), (packed,)]
    assert all(kwargs.pop("scale") == 2 for _, kwargs in seen[::2])
    assert [kwargs for _, kwargs in seen[2:][::2]] == [{}, {}, {}, {"a": batches[3]["a"]}, {}]


def test_tensors_go_to_the_device_wherever_they_stand():
    seen = []

    def takes(*args, **kwargs):
        seen.append((args, kwargs))

    batch = (
        torch.ones(2),
        Pair([torch.ones(2)], 3),
        {"a": torch.ones(2)},
        pack_sequence([torch.ones(2), torch.ones(1)]),
    )
    fit(still(takes, takes), [batch], device="meta", fixed=torch.ones(3))
    (x, pair, named, packed), kwargs = seen[-1]
    assert isinstance(pair, Pair)
    assert pair.y == 3
    assert {t.device.type for t in (x, pair.x[0], named["a"], packed.data, kwargs["fixed"])} == {"meta"}


def test_the_size_is_that_of_the_part_that_is_sampled():
    part = list(range(0, SIZE, 2))
    svi = still(model)
    batches = DataLoader(TensorDataset(data()), batch_size=5, sampler=SubsetRandomSampler(part))
    whole = svi.evaluate_loss(data()[part])
    assert fit(svi, batches, plate="data").epoch_losses.item() == pytest.approx(whole, rel=1e-12)
    grouped = DataLoader(TensorDataset(data()), batch_sampler=BatchSampler(SubsetRandomSampler(part), 5, False))
    assert fit(svi, grouped, plate="data").epoch_losses.item() == pytest.approx(whole, rel=1e-12)


def test_one_epoch_of_a_generator_with_its_size():
    svi = still(model)
    result = fit(svi, (x for x in data().split(5)), plate="data", size=SIZE)
    assert result.epoch_losses.item() == pytest.approx(svi.evaluate_loss(data()), rel=1e-12)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(data().split(5))


def test_a_stream_of_batches_with_its_size():
    svi = still(model)
    whole = svi.evaluate_loss(data())
    for batches in (Stream(), DataLoader(Stream(), batch_size=None)):
        result = fit(svi, batches, 2, plate="data", size=SIZE)
        assert result.epoch_losses.tolist() == pytest.approx([whole] * 2, rel=1e-12)


# -- the run


def test_the_callback_hears_of_each_epoch_and_a_schedule_may_follow_it():
    optim = ppl.optim.StepLR(
        {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.01}, "every": None, "step_size": 1, "gamma": 0.5}
    )
    svi = SVI(model, normal, optim)
    heard = []

    def callback(epoch, loss):
        heard.append((epoch, loss, svi.optimizer.param_groups[0]["lr"]))
        svi.scheduler.step()

    result = fit(svi, loader(), 3, plate="data", callback=callback)
    assert [epoch for epoch, *_ in heard] == [0, 1, 2]
    assert [loss for _, loss, _ in heard] == result.epoch_losses.tolist()
    assert [rate for *_, rate in heard] == [0.01, 0.005, 0.0025]
    assert svi.num_steps == 15
    assert result.params.keys() == {"loc", "sd"}
    assert not any(value.requires_grad for value in result.params.values())
    assert not result.interrupted


def test_nothing_is_scaled_outside_of_the_steps():
    svi = still(model)
    found = []
    fit(svi, loader(), plate="data", callback=lambda *_: found.append(svi.evaluate_loss(data()[:5])))
    assert found == [svi.evaluate_loss(data()[:5])]


def test_fit_takes_the_steps_that_a_loop_takes():
    one, other = SVI(model, normal, Adam({"lr": 0.05})), SVI(model, normal, Adam({"lr": 0.05}))
    losses = fit(one, [[x] for x in data().split(5)], 2, plate="data").losses
    ppl.set_rng_seed(0)
    by_hand = []
    for _ in range(2):
        for x in data().split(5):
            with handlers.enlarge(sizes={"data": SIZE}):
                by_hand.append(other.step(x))
    assert losses.tolist() == by_hand
    assert torch.equal(one.params["loc"], other.params["loc"])


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("own", [False, True], ids=["torch's generator", "a generator of the loader's"])
def test_a_later_process_goes_on_with_the_same_bits(own):
    def batches(state=None):
        generator = torch.Generator().manual_seed(3) if own else None
        if own and state is not None:
            generator.set_state(state)
        return loader(shuffle=True, generator=generator)

    kept = []
    svi, first = SVI(model, normal, Adam({"lr": 0.05})), batches()

    def keep(epoch, loss):
        kept.append((through_a_file(svi.state_dict()), first.generator.get_state() if own else None))

    result = fit(svi, first, 4, plate="data", callback=keep)
    ppl.set_rng_seed(99)
    again = SVI(model, normal, Adam({"lr": 0.05}))
    again.load_state_dict(kept[1][0])
    rest = fit(again, batches(kept[1][1]), 2, plate="data")
    assert torch.equal(rest.losses, result.losses[10:])
    assert torch.equal(rest.epoch_losses, result.epoch_losses[2:])
    assert all(torch.equal(rest.params[name], value) for name, value in result.params.items())


@pytest.mark.parametrize("stop", [0, 7])
def test_ctrl_c_keeps_what_is_done_and_fit_can_go_on(stop):
    count = 0

    def stopped(x):
        nonlocal count
        count += 1
        if count == 2 * stop + 3:  # after the first look at the program, in the model
            raise KeyboardInterrupt
        normal(x)
        count += 1

    svi = SVI(model, stopped, Adam({"lr": 0.05}))
    result = fit(svi, loader(), 3, plate="data")
    assert result.interrupted
    assert len(result.losses) == svi.num_steps == stop
    assert len(result.epoch_losses) == stop // 5
    assert torch.equal(result.params["loc"], svi.params["loc"].detach())
    assert fit(svi, loader(), 1, plate="data").losses.shape == (5,)


def test_ctrl_c_in_a_callback_keeps_the_epoch():
    def callback(epoch, loss):
        raise KeyboardInterrupt

    result = fit(SVI(model, normal, Adam({"lr": 0.05})), loader(), 3, plate="data", callback=callback)
    assert result.interrupted
    assert (len(result.losses), len(result.epoch_losses)) == (5, 1)


def test_the_bar_shows_epochs_and_the_mean_loss(capsys):
    svi = still(model)
    svi.fit(loader(), 2, plate="data")
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert f"loss {svi.evaluate_loss(data()):.4g}" in shown


def test_the_bar_moves_within_a_long_epoch(capsys):
    def slowly(x):
        time.sleep(0.11)
        return x

    batches = DataLoader(list(data().split(5)), batch_size=None, collate_fn=slowly)
    still(model).fit(batches, 1, plate="data", size=SIZE)
    assert ", batch 2" in capsys.readouterr().err


def test_ctrl_c_between_a_step_and_its_loss_keeps_both():
    class Stopped(SVI):
        def step(self, *args, **kwargs):
            super().step(*args, **kwargs)
            raise KeyboardInterrupt

    svi, other = (kind(model, normal, Adam({"lr": 0.05})) for kind in (Stopped, SVI))
    result = fit(svi, [data()])
    ppl.set_rng_seed(0)
    assert result.losses.tolist() == fit(other, [data()]).losses.tolist()
    assert result.interrupted


# -- bad input


def test_a_batch_weighed_as_all_data_is_warned_of_once():
    with pytest.warns(
        UserWarning, match=r"plate 'data' has the 5 elements of a batch, of 23 in all.*'m'.*plate='data'"
    ) as w:
        fit(still(model), loader(), 2)
    assert len(w) == 1
    assert w[0].filename == __file__


def scaled_by_hand(x):
    with handlers.scale(scale=SIZE / len(x)):
        model(x)


def without_shared(x):
    with ppl.plate("data", len(x)):
        ppl.sample("x", dist.Normal(ppl.param("loc", torch.tensor(0.0)), 1.0), obs=x)


@pytest.mark.parametrize(
    ("svi", "options"),
    [
        (still(model_of_size), {}),
        (still(scaled_by_hand), {}),
        (still(without_shared, lambda x: None), {}),
        (still(model), {"plate": ()}),
        (still(model), {"plate": "data"}),
        (still(model), {"batch_size": SIZE}),
    ],
)
def test_nothing_else_is_warned_of(svi, options):
    fit(svi, loader(batch_size=options.pop("batch_size", 5)), **options)


@pytest.mark.parametrize(
    ("batches", "epochs", "match"),
    [
        (
            (x for x in data().split(5)),
            2,
            r"a generator gives its batches once, but epochs=2.*DataLoader.*list\(batches\)",
        ),
        (zip(data().split(5), data().split(5), strict=True), 3, r"a zip gives its batches once, but epochs=3"),
        (data(), 1, r"batches cannot be taken from a Tensor. Give a torch DataLoader"),
        ({"x": data()}, 1, r"batches cannot be taken from a dict"),
        (lambda: iter(data().split(5)), 1, r"batches cannot be taken from a function"),
        (3, 1, r"batches cannot be taken from a int"),
        (TensorDataset(data()), 1, r"got a data set, which gives single elements. Write DataLoader\(dataset"),
        ([], 1, r"the loader gives no batches"),
        ((), 1, r"the loader gives no batches"),
        (loader(batch_size=50, drop_last=True), 1, r"the loader gives no batches.*drop_last=True"),
        ([data()[:0]], 1, r"batch 0: the batch has no elements"),
        ([data()], 0, r"epochs must be a positive int, got 0"),
        ([data()], 2.5, r"epochs must be a positive int, got 2.5"),
        (
            [(data(), data()), (data()[:5], data()[:4])],
            1,
            r"batch 1: the fields of the batch have different lengths .* 0 has 5, 1 has 4",
        ),
        (
            [{"x": data(), "y": data()[:4]}],
            1,
            r"batch 0: the fields of the batch have different lengths on their first dims: 'x' has 23, 'y' has 4",
        ),
        ([{"x": data(), "size": 3, 4: 5}], 1, r"batch 0: the batch's keys must be names of arguments .*\[4\]"),
    ],
)
def test_a_loader_that_cannot_serve_is_refused(batches, epochs, match):
    svi = still(line, guide_of_line)
    with pytest.raises(ValueError, match=rf"^SVI.fit.*{match}"):
        fit(svi, batches, epochs, plate=())


def test_a_batch_that_cannot_be_one_is_told_by_epoch():
    batches = DataLoader(list(data().split(5)), batch_size=None, collate_fn=lambda x: (x, data()[:5]))
    with pytest.raises(ValueError, match=r"SVI.fit, epoch 0, batch 4: the fields .* 0 has 3, 1 has 5"):
        fit(still(line, guide_of_line), batches, plate=())


def test_a_keyword_that_batches_have_too_is_refused():
    with pytest.raises(ValueError, match=r"not given to fit as well, but \['y'\] are not"):
        fit(still(line, guide_of_line), [{"x": data(), "y": data()}], y=data())


class Once:
    """Gives its batches again, but has none left."""

    def __init__(self):
        self.batches = iter(data().split(5))

    def __iter__(self):
        yield from self.batches


def test_a_loader_that_runs_dry_is_told_by_its_epoch():
    svi = still(model)
    with pytest.raises(ValueError, match=r"gave no batch in epoch 1, although it did before"):
        fit(svi, Once(), 2, plate="data", size=SIZE)
    assert svi.num_steps == 5


def test_a_plate_that_is_not_there_is_refused_before_any_step():
    svi = still(model)
    with pytest.raises(ValueError, match=r"epoch 0, batch 0: the program has no plate 'dta'; it has 'data'\."):
        fit(svi, loader(), plate="dta")
    assert svi.num_steps == 0
    with pytest.raises(ValueError, match=r"no plate 'data'; it has none"):
        fit(still(lambda x: point(x)), loader(), plate="data")


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        (Once(), "the Once has no data set with a length"),
        (DataLoader(Stream(), batch_size=None), "the DataLoader has no data set with a length"),
        (DataLoader(list(data().split(5)), batch_size=None), "its data set gives whole batches"),
        ([data(), 4], "batch 1 has no tensor"),
        (loader(sampler=[1, 2, 3]), "its list may leave out some of the data set's 23 elements"),
    ],
)
def test_a_size_that_cannot_be_told_is_asked_for(batches, why):
    with pytest.raises(
        ValueError, match=rf"how many elements plate 'data' stands for cannot be told: .*{why}.*Give size="
    ):
        fit(still(model), batches, plate="data")


def test_no_batches_are_no_matter_of_size():
    for batches in ([], loader(data()[:0]), loader(batch_size=50, drop_last=True)):
        with pytest.raises(ValueError, match=r"the loader gives no batches"):
            fit(still(model), batches, plate="data")


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"size=30 says how many .*plate='data'"):
        fit(still(model), loader(), size=30)
    with pytest.raises(ValueError, match=r"size of plate 'data' must be a positive int, got 0"):
        fit(still(model), loader(), plate="data", size=0)
    with pytest.raises(ValueError, match=r"batch 0: .*plate 'data' shows 5 elements, more than the 4"):
        fit(still(model), loader(), plate="data", size=4)


def test_a_step_that_fails_is_told_by_epoch_and_batch():
    x = data()
    x[17] = math.nan
    svi = still(model)
    with (
        ppl.validation_enabled(False),
        pytest.raises(ValueError, match=r"SVI.fit, epoch 0, batch 3: step 3: the loss is NaN"),
    ):
        fit(svi, loader(x), plate="data")


def local(x, size=None, **options):
    with ppl.plate("data", size or len(x), **options):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta, AutoDiagonalNormal])
def test_automatic_guides_refuse_latent_sites_for_each_element_of_a_batch(kind):
    match = rf"site 'z' is local to plate 'data', .*{kind.__name__}.*subsample=indices\).*create_plates"
    with pytest.raises(ValueError, match=match):
        fit(still(local, kind(local)), loader(), plate="data")
    if kind is not AutoDiagonalNormal:
        drawn = lambda x: local(x, SIZE, subsample_size=len(x))  # noqa: E731
        with pytest.raises(ValueError, match=match):
            fit(still(drawn, kind(drawn)), loader())
    fit(still(local, kind(local)), loader(batch_size=SIZE), plate="data")  # all data at once


def test_automatic_guides_may_have_latent_sites_in_a_plate_that_the_model_draws_by_itself():
    def grouped(x):
        with ppl.plate("groups", 4, subsample_size=2):
            ppl.sample("z", dist.Normal(0.0, 1.0))
        model(x)

    assert fit(SVI(grouped, AutoNormal(grouped), Adam({"lr": 0.1})), loader(), plate="data").losses.shape == (5,)


def test_automatic_guides_ask_for_the_plate_whose_indices_come_with_the_batch():
    def told(x, indices):
        local(x, SIZE, subsample=indices)

    match = (
        r"AutoNormal: site 'z' is local to plate 'data', whose indices the model is told.*create_plates=.*'data', 23"
    )
    with pytest.raises(ValueError, match=match):
        fit(still(told, AutoNormal(told)), loader(data(), torch.arange(SIZE)))
