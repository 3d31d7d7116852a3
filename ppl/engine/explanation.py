"""Whether a model and a guide can become a program, and what that takes: said before it is done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl.engine.cost import Cost, cost_of
from ppl.engine.plain import Plain
from ppl.engine.recorder import CannotCapture, Recorder, could_not_record
from ppl.engine.training import Step, record_step
from ppl.engine.undo import undone
from ppl.engine.watch import Effect, watch
from ppl.params import ParamStore, get_param_store
from ppl.site import Site
from ppl.stack import Handler, perform
from ppl.tensors.rewind import watcher

#: What makes the objective of `explain` where none is given; `ppl.infer` puts it here.
default_loss: list[Callable[[], Any]] = []


@dataclass(frozen=True)
class Explanation:
    """Whether a program can be captured, and what it takes; `print` it."""

    is_captured: bool  # whether it can become a program
    reason: str  # why not
    line: str  # of the user's code, that stops it
    site: str  # the latest one before that line
    instead: str  # what to write there
    effects: tuple[Effect, ...]  # what compiled steps would not do again; with compile="auto" the run stays eager then
    frozen: tuple[str, ...]  # Python numbers that model and guide refer to, which are fixed in the program
    cost: Cost | None  # where it can be captured

    def __str__(self) -> str:
        lines = []
        if self.is_captured:
            lines.append("The program can be captured.")
        else:
            lines.append("The program cannot be captured; steps are taken eagerly.")
            rows = {"why": self.reason, "where": self.line, "after": self.site and f"site '{self.site}'"}
            lines += [f"  {name:7} {text}" for name, text in {**rows, "instead": self.instead}.items() if text]
        if self.effects:
            lines.append('Compiled steps would not do all that it does; with compile="auto" it stays eager, because')
            for effect in self.effects:
                at = f" at {effect.line}" if effect.line else ""
                lines += [f"- {effect.what}{at}:", f"  {effect.frozen}. {effect.instead}"]
        if self.frozen:
            lines.append(f"Fixed in the program, as they are now: {', '.join(self.frozen)}.")
        if self.cost is not None:
            lines.append(str(self.cost))
        return "\n".join(lines)


def explain(
    model: Callable[..., Any], guide: Callable[..., Any], *args: Any, loss: Any = None, **kwargs: Any
) -> Explanation:
    """Tell whether SVI's steps for a model and a guide can be compiled, and what they cost.

        print(ppl.engine.explain(model, guide, data))

    The programs run a few times, with the current parameters (`with svi.params:` for those of an SVI). Nothing of it
    shows: parameters, buffers, random states and what the programs change, print or write are as before.

    Args:
        args: of model and guide, as are kwargs.
        loss: an ELBO; Trace_ELBO() by default.
    Raises: whatever the programs themselves raise in an eager step.
    """
    objective = copy.copy(default_loss[0]() if loss is None else loss)
    if hasattr(objective, "baselines"):
        objective.baselines = copy.deepcopy(objective.baselines)
    means: dict[str, Tensor] = objective.baselines.means if hasattr(objective, "baselines") else {}
    store = _beside(get_param_store())
    everything = watch(model, guide, args, kwargs)
    used_up = everything.look()
    if used_up:
        return _refused(CannotCapture("Even one more run would change something."), used_up, [])

    def record() -> tuple[Step, list[tuple[int, str]]]:
        marks: list[tuple[int, str]] = []

        def run() -> Tensor:
            with store:
                value: Tensor = objective(
                    _marked(model, "model", marks), _marked(guide, "guide", marks), *args, **kwargs
                )
            _mark(marks, "gradients")
            return value

        leaves = [leaf for _, leaf in store.named_unconstrained() if leaf.requires_grad]
        return record_step(run, leaves, means, (args, kwargs)), marks

    with undone(everything.modules), everything, store:
        objective(model, guide, *args, **kwargs)  # a first step, which makes and looks at more than later ones
        with watch(model, guide, args, kwargs) as seen:
            objective(model, guide, *args, **kwargs)
        try:
            step, marks = record()
            torch.rand(())  # another step's random numbers
            other, _ = record()
            why = other.same_as(step)
        except CannotCapture as error:
            return _refused(error, seen.effects, seen.plain)
        except Exception as error:  # the eager step went well
            return _refused(could_not_record(error), seen.effects, seen.plain)
    if why:
        instead = "Sites, shapes and numbers must be the same in all steps, or depend on the arguments' shapes alone."
        return _refused(
            CannotCapture(f"The program changes from step to step: {why}.", instead=instead), seen.effects, seen.plain
        )
    return Explanation(True, "", "", "", "", tuple(seen.effects), _numbers(seen.plain), cost_of(step, marks))


def _refused(error: CannotCapture, effects: list[Effect], plain: list[Plain]) -> Explanation:
    return Explanation(
        False, error.reason, error.line, error.site, error.instead, tuple(effects), _numbers(plain), None
    )


def _numbers(plain: list[Plain]) -> tuple[str, ...]:
    numbers = [one for one in plain if isinstance(one.value, (bool, int, float, complex))]
    return tuple(
        f"{one.words} = {one.value!r}"
        for one in numbers
        if not one.words.startswith(("the length of", "the attribute 'training'"))
    )


def _beside(store: ParamStore) -> ParamStore:
    """A store with the same leaves, to which others can be added."""
    result = ParamStore()
    for name, leaf in store.named_unconstrained():
        result.setdefault(name, None, store.constraint(name), leaf)
    return result


# -- which operations come after which site


class _marking(Handler):
    """Writes down how many operations there had been when each site was reached."""

    def __init__(self, role: str, marks: list[tuple[int, str]]) -> None:
        super().__init__()
        self._role, self._marks = role, marks

    def handle(self, site: Site) -> Site:
        _mark(self._marks, f"{self._role} '{site.name}'")
        return perform(site)


def _mark(marks: list[tuple[int, str]], name: str) -> None:
    recorder = watcher.get()
    if isinstance(recorder, Recorder):
        marks.append((len(recorder.program.ops), name))


def _marked(program: Callable[..., Any], role: str, marks: list[tuple[int, str]]) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        with _marking(role, marks):
            result = program(*args, **kwargs)
        _mark(marks, "densities" if role == "model" else f"after the {role}")
        return result

    return marked
