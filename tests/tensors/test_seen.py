"""What is known of a tensor holds for that object, until somebody writes into it."""

from __future__ import annotations

import copy
import pickle

import torch

from ppl.tensors.seen import Seen


def test_the_same_object_is_known_and_no_other() -> None:
    x = torch.ones(3)
    seen = Seen(x, known=7)
    assert seen.of(x) == 7
    assert seen.of(x.clone()) is None and seen.of(x.view(3)) is None and Seen().of(x) is None


def test_a_write_is_noticed_through_a_view_too() -> None:
    for write in (lambda x: x.add_(1), lambda x: x[:1].zero_(), lambda x: x.detach().mul_(2)):
        x = torch.ones(3)
        seen = Seen(x, 7)
        write(x)
        assert seen.of(x) is None


def test_what_is_written_down_or_copied_knows_nothing() -> None:
    x = torch.ones(3)
    seen = Seen(x, 7)
    for other in (pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen)):
        assert other.of(x) is None and seen.of(x) == 7


def test_a_tensor_is_not_kept_alive_and_its_place_may_be_taken() -> None:
    x = torch.ones(3)
    seen = Seen(x, 7)
    del x
    assert all(seen.of(torch.ones(3)) is None for _ in range(20))


def test_nothing_is_known_of_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.ones(3)
    assert Seen(x, 7).of(x) is None  # somebody may write into it, and nobody would know
