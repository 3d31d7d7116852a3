"""What is known of a tensor holds for that object, until somebody writes into it."""

from __future__ import annotations

import copy
import pickle

import torch

from ppl.tensors.seen import Seen


def test_the_same_object_is_known_and_no_other() -> None:
    x = torch.ones(3)
    seen = Seen(x, known=7)
    assert seen.is_of(x) and seen.known == 7
    assert not seen.is_of(x.clone()) and not seen.is_of(x.view(3)) and not Seen().is_of(x)


def test_a_write_is_noticed_through_a_view_too() -> None:
    for write in (lambda x: x.add_(1), lambda x: x[:1].zero_(), lambda x: x.detach().mul_(2)):
        x = torch.ones(3)
        seen = Seen(x)
        write(x)
        assert not seen.is_of(x)


def test_what_is_written_down_or_copied_knows_nothing() -> None:
    x = torch.ones(3)
    for other in (pickle.loads(pickle.dumps(Seen(x, 1))), copy.deepcopy(Seen(x, 1))):
        assert not other.is_of(x) and other.known is None


def test_a_tensor_is_not_kept_alive_and_its_place_may_be_taken() -> None:
    x = torch.ones(3)
    seen = Seen(x)
    del x
    assert not any(seen.is_of(torch.ones(3)) for _ in range(20))


def test_nothing_is_known_of_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.ones(3)
    assert not Seen(x).is_of(x)  # somebody may write into it, and nobody would know
