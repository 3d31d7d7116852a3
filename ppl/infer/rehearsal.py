"""A step that is recorded without being taken, and what the programs would do in it besides computing tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ppl.engine.plain import Plain
from ppl.engine.recorder import CannotCapture, could_not_record
from ppl.engine.training import Step, record_step, told_apart
from ppl.engine.watch import Effect, watch
from ppl.stack import active, is_running

if TYPE_CHECKING:
    from ppl.infer.svi import SVI


@dataclass(slots=True)
class Rehearsal:
    """A recorded step."""

    step: Step
    effects: list[Effect]  # what compiled steps would not do again
    plain: list[Plain]  # the numbers and tensors that model and guide refer to by names

    def changed(self) -> list[Plain]:
        """Which of these names now refer to something else, so that the recording is out of date."""
        return [one for one in self.plain if one.has_changed()]


def rehearse(svi: SVI, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Rehearsal:
    """Record a step without taking it; nothing of it shows.

    Raises: CannotCapture with the user's line.
    """

    args, kwargs = told_apart(args, kwargs)

    def loss() -> Tensor:
        with svi.params:
            return svi.loss(svi.model, svi.guide, *args, **kwargs)

    leaves = [leaf for _, leaf in svi.trained]
    hooks = [tuple((leaf._backward_hooks or {}).values()) for leaf in leaves]
    seen = watch(svi.model, svi.guide, svi.loss, args, dict(kwargs), *hooks, *(active() if is_running() else ()))
    used_up = seen.look()
    if used_up:
        raise CannotCapture(describe(used_up))
    with seen:
        try:
            step = record_step(loss, leaves, svi.loss.baselines.means, (args, dict(kwargs)))
        except CannotCapture:
            raise
        except Exception as error:  # eager steps went well, and go on
            raise could_not_record(error) from error
    return Rehearsal(step, seen.effects, seen.plain)


def describe(effects: Sequence[Effect]) -> str:
    """Effects in words, as warnings say them."""
    text = str(effects[0])
    more = (
        f" (There are {len(effects) - 1} more such things; ppl.engine.explain names them.)" if len(effects) > 1 else ""
    )
    return f"{text[:1].upper()}{text[1:]}{more}"


def changing(plain: Plain) -> CannotCapture:
    """Why there is no program: a number that model or guide refer to changes between steps."""
    return CannotCapture(
        f"The program refers to {plain.words}, which changes from step to step.",
        plain.line(),
        instead="Make it a tensor that is written into, as in x.fill_(value), or an argument.",
    )
