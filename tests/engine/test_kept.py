"""Compiled loops use the memory of their tensors again, but never of tensors that somebody still has."""

import threading

import pytest
import rough_runs
import torch

from ppl.engine.job import decode_job
from ppl.engine.loading import loaded
from ppl.infer import compiled as programs


@pytest.fixture
def call(package):
    """One call of a compiled program of so many steps, on inputs that differ by seed."""
    svi = rough_runs.schools()
    svi.setup(*rough_runs.ARGS)
    job = decode_job(programs.blocks_of(svi, programs.rehearse(svi, rough_runs.ARGS, {}).step).job().encode())

    def run(n, seed):
        generator = torch.Generator().manual_seed(seed)
        inputs = [
            torch.rand(x.shape, dtype=x.dtype, generator=generator).add(0.5) if x.is_floating_point() else x.clone()
            for x in job.examples()[1:]
        ]
        return loaded(package).boxed_run([torch.tensor(n), *inputs])

    return run


def test_results_stay_what_they_are(call):
    results = [call(n, seed) for seed, n in enumerate((1, 2, 5, 1, 8, 8, 3))]
    copies = [[x.clone() for x in found] for found in results]
    for seed in range(20):
        call(7, 100 + seed)
    for found, copy in zip(results, copies, strict=True):
        torch.testing.assert_close(found, copy, rtol=0, atol=0)


def test_so_do_views_and_arrays_of_results_that_are_gone(call):
    views, arrays, copies = [], [], []
    for seed in range(4):
        found = call(3, seed)
        views.append([x.view(-1)[:1] for x in found])
        arrays.append([x.numpy() for x in found])
        copies.append([x.clone() for x in found])
        del found
        call(3, 50 + seed)
    for view, array, copy in zip(views, arrays, copies, strict=True):
        torch.testing.assert_close(view, [x.view(-1)[:1] for x in copy], rtol=0, atol=0)
        torch.testing.assert_close([torch.from_numpy(x) for x in array], copy, rtol=0, atol=0)


def test_calls_do_not_depend_on_those_before(call):
    first = [x.clone() for x in call(5, 0)]
    marked = call(5, 1)
    for x in marked:
        x.fill_(0)
        if x.is_floating_point():
            x.requires_grad_()
    del marked
    again = call(5, 0)
    assert not any(x.requires_grad for x in again)
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_threads_have_their_own(call):
    expected = [[x.clone() for x in call(6, seed)] for seed in range(4)]
    wrong = []

    def work(seed):
        for _ in range(30):
            try:
                torch.testing.assert_close(call(6, seed), expected[seed], rtol=0, atol=0)
            except AssertionError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
