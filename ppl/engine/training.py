"""A training step as a program: recorded while it is taken, then run in blocks of many steps."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl.engine.draw import Draw
from ppl.engine.job import Job
from ppl.engine.layout import lay_out
from ppl.engine.loading import loaded
from ppl.engine.noise import Noise, fast_draws
from ppl.engine.optimizers import Plan
from ppl.engine.passes import Parts, divide, prepare
from ppl.engine.program import Spec
from ppl.engine.recorder import CannotCapture, Recorder, Recording, record
from ppl.engine.replay import Replay
from ppl.tensors.rewind import watcher

State = MutableMapping[str, Tensor]
Arguments = tuple[Sequence[Any], Mapping[str, Any]]
#: Steps in a block, at most, and bytes of random numbers that are drawn ahead.
LONGEST, AHEAD = 1024, 2**23
#: Entries of a tensor that is compared before each call, lest it was changed through `.data`, which torch does not count.
SMALL = 1024
#: Operations in a step, and entries that they make, which are so few that a turn of the loop takes several steps.
FEW, SHORT = 250, 2**17


@dataclass(slots=True)
class Step:
    """A training step that was written down while it was taken.

    What it reads from outside are parameters, state, the arguments of the call, and other tensors, which are looked up
    anew before each block.
    """

    recording: Recording
    loss: int
    leaves: list[int]  # which of the parameters have a gradient
    grads: list[int]  # these gradients
    state: dict[str, tuple[int, int]]  # what goes from step to step by name: the value before and after
    parts: Parts
    draws: list[tuple[int, Draw]]
    arguments: dict[int, int]  # inputs that are arguments of the call, by their places among these
    numbers: list[int] = field(default_factory=list)  # of the parameters among the inputs
    bound: tuple[Any, list[Tensor], tuple[list[Tensor], list[Tensor]], Any] | None = None  # what `bind` found last

    def same_as(self, other: Step) -> str:
        """Why another recording of the step is not the same program; empty if it is."""
        if not (self.parts.step.same_as(other.parts.step) and self.parts.before.same_as(other.parts.before)):
            return difference(self.recording, other.recording)
        if self.draws != other.draws or self.arguments != other.arguments or self.leaves != other.leaves:
            return "it draws or reads other things"
        if [value for _, value in self.recording.looks] != [value for _, value in other.recording.looks]:
            return "it reads other values into Python"
        for i in (*self.parts.before.inputs, *self.others()):
            a, b = self.recording.tensors[i], other.recording.tensors[i]
            if a is not b and i not in self.arguments and not torch.equal(a, b):
                return f"a tensor of shape {tuple(a.shape)} that was made outside of torch (by numpy, say) changes"
        return ""

    def entries(self) -> int:
        """How many numbers the operations of a step make."""
        made = (i for op in self.parts.step.ops for i in op.makes())
        return sum(math.prod(self.recording.specs[i].shape) for i in made if i in self.recording.specs)

    def others(self) -> list[int]:
        """The step's static inputs that come from outside as they are."""
        return [i for i in self.parts.given if i in self.recording.tensors]

    def current(self, inputs: Iterable[int], arguments: Sequence[Tensor]) -> list[Tensor]:
        """What inputs from outside are now, which may be arguments."""
        known, places = self.recording.tensors, self.arguments
        return [arguments[places[i]] if i in places else known[i] for i in inputs]

    def bind(self, arguments: Sequence[Tensor]) -> list[Tensor] | None:
        """The static inputs of the step for some arguments; None where they do not fit what was recorded.

        They are those found last, if nothing that they were made from has changed.
        """
        known = self.recording.tensors
        places = self.arguments
        sources = self.current(self.parts.before.inputs, arguments)
        key = [(id(source), None if source.numel() <= SMALL else _version(source)) for source in sources]
        if self.bound is None or key != self.bound[0] or not all(map(_holds_same, *self.bound[2])):
            tensors = {**known, **{i: arguments[place] for i, place in places.items()}}
            if any(Spec.of(tensors[i]) != self.recording.program.inputs[i] for i in places):
                return None
            given = prepare(self.parts, self.recording, tensors)
            if given is None:
                return None
            looked_at = zip(sources, key, strict=True)
            uncounted = [x for x, (_, version) in looked_at if version is None]
            copies = [source.clone() for source in uncounted]
            self.bound = key, given, (uncounted, copies), sources  # which live as long as their ids are known
        return self.bound[1]


def record_step(loss: Callable[[], Tensor], parameters: Sequence[Tensor], state: State, arguments: Arguments) -> Step:
    """Write down how a loss and its gradients are computed, without taking a step.

    Args:
        state: tensors that the loss function replaces from step to step, by name; as before afterwards.
        arguments: positional and named ones; their tensors differ from call to call.
    Raises: CannotCapture with the user's line.
    """
    before = dict(state)

    def run() -> Any:
        value = loss()
        if not value.requires_grad:
            raise CannotCapture("The loss does not depend on any parameter.")
        _check_leaves(value, parameters)
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        found = iter(torch.autograd.grad(value, wanted, allow_unused=True))
        grads = [next(found) if parameter.requires_grad else None for parameter in parameters]
        return _or_nan(value.detach()), grads, dict(state)

    try:
        recording = record(run, [*parameters, *before.values()])
    finally:
        state.clear()
        state.update(before)
    return _understand(recording, parameters, before, arguments)


def _or_nan(loss: Tensor) -> Tensor:
    """The loss, or NaN where an eager step would have raised since a matrix could not be factorised."""
    recorder = watcher.get()
    assert isinstance(recorder, Recorder)
    for code in recorder.failures:
        loss = torch.where((code == 0).all(), loss, torch.full_like(loss, float("nan")))
    return loss


def _check_leaves(loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """Raise CannotCapture where an eager step would leave gradients elsewhere than in the parameters, or do more with them."""
    known = {id(parameter) for parameter in parameters}
    waiting: list[Any] = [loss.grad_fn]
    nodes = set(waiting)
    for node in waiting:
        leaf = node.variable if type(node).__name__ == "AccumulateGrad" else None
        if leaf is not None and leaf._post_accumulate_grad_hooks:
            raise CannotCapture(
                f"A parameter of shape {tuple(leaf.shape)} has a hook that runs once its gradient is there.",
                instead="Use register_hook, which is given the gradient, or the optimiser's clip_args.",
            )
        if leaf is not None and id(leaf) not in known:
            raise CannotCapture(
                f"A tensor of shape {tuple(leaf.shape)} requires gradients, which steps would add up in its .grad, but is "
                "none of the parameters that are trained.",
                instead="Write x.detach(), or make it a parameter by ppl.param or ppl.module.",
            )
        following = {one for one, _ in node.next_functions if one is not None} - nodes
        nodes |= following
        waiting += following


def _understand(recording: Recording, parameters: Sequence[Tensor], before: State, arguments: Arguments) -> Step:
    loss, grads, after = recording.results
    if before.keys() != after.keys():
        instead = "Take one step before, by svi.step(…)."
        raise CannotCapture("The first step makes running means that later steps have.", instead=instead)
    program = recording.program
    parts, draws = divide(recording)
    known = {id(t): i for i, t in recording.tensors.items()}
    places = {id(t): place for place, t in enumerate(tensors_in(*arguments))}
    used = [n for n, g in enumerate(grads) if g is not None]
    for n in used:
        if known.get(id(parameters[n])) is None or known[id(parameters[n])] in recording.written:
            raise CannotCapture("A parameter is written into by the program itself.")
    memory = [recording.memory[i] for i in parts.step.inputs if i in recording.tensors]
    if any(memory.count(recording.memory[i]) > 1 for i in recording.written if i in parts.step.inputs):
        raise CannotCapture("The program writes into memory that two tensors from outside share.")
    carried: dict[str, tuple[int, int]] = {}
    for name, ref in after.items():
        old = known.get(id(before[name]))
        if old is None:  # never read
            old = len(recording.specs) + len(draws) + len(carried)
            parts.step.inputs[old] = Spec.of(before[name])
        carried[name] = old, ref.index
    numbers = [known[id(parameters[n])] for n in used]
    accounted = {*numbers, *(old for old, _ in carried.values()), *recording.written, *parts.given}
    for i in set(parts.step.inputs) - accounted - {i for i, _ in draws}:  # parameters without a gradient
        parts.before.inputs[i] = parts.step.inputs[i]
        parts.before.outputs.append(i)
        parts.given.append(i)
    lay_out(parts.before, parts.step, parts.given)
    return Step(
        recording,
        loss.index,
        used,
        [grads[n].index for n in used],
        carried,
        parts,
        draws,
        {i: places[id(t)] for i, t in recording.tensors.items() if id(t) in places and i in program.inputs},
        numbers,
    )


def difference(a: Recording, b: Recording) -> str:
    """Where two recordings that are not alike differ, in words."""
    if a.sites != b.sites:
        only = [name for name in [*a.sites, *b.sites] if name not in set(a.sites) & set(b.sites)]
        return f"its sites change{f' ({only[0]!r} is not always there)' if only else ''}"
    for one, other in zip(a.program.ops, b.program.ops, strict=False):
        if one.target != other.target or str(one) != str(other):
            return f"one operation differs: {one.target}{one.args[:3]} and {other.target}{other.args[:3]}"
    return "it does other operations, or some of other shapes"


def tensors_in(args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """The tensors among arguments and in nests of them, in order."""
    if not kwargs and all(type(t) is Tensor for t in args):
        return list(args)
    return [leaf for leaf in pytree.tree_leaves((args, dict(kwargs or {}))) if isinstance(leaf, Tensor)]


def told_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments, each tensor an object of its own in the same memory.

    One that is given twice, or that is a global of the program too, may be two different ones in the next call.
    """

    def alone(tensor: Tensor) -> Tensor:
        return tensor if type(tensor) is not Tensor or tensor.requires_grad else tensor.detach()

    found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, alone, (tuple(args), dict(kwargs)))
    return found


class Blocks:
    """Steps by the block: what a compiled program needs besides itself, and where its results go.

    Args:
        step: as it was recorded.
        plan: of an optimiser of the parameters that have gradients.
        state: the mapping that `record_step` was given.
    """

    def __init__(self, step: Step, plan: Plan, state: State) -> None:
        self.step, self.plan, self.state = step, plan, state
        per_step = sum(draw.size * draw.dtype.itemsize for _, draw in step.draws)
        self.capacity = max(1, min(LONGEST, AHEAD // max(per_step, 1)))
        self.noise = Noise([draw for _, draw in step.draws], self.capacity)
        self.written = sorted(i for i in step.recording.written if i in step.parts.step.inputs)
        self._blank = plan.rows(1).new_zeros(self.capacity, plan.width)
        self._counts: dict[int, Tensor] = {}
        self.is_compiled = False
        self._loader: Any = None

    def job(self) -> Job:
        """What is to be compiled."""
        step = self.step
        program = step.parts.step
        written = set(self.written)
        spec = step.recording.specs[step.loss]
        return Job(
            program,
            step.loss,
            step.numbers,
            step.grads,
            list(step.state.values()),
            self.written,
            [i for i in step.parts.given if i not in written],
            [(i, *place) for (i, _), place in zip(step.draws, self.noise.places, strict=True)],
            self.plan.packs,
            self.plan.clip,
            [Spec.of(t) for t in self.plan.gather(own=False)],
            Spec.of(self._blank),
            [Spec.of(buffer) for buffer in self.noise.buffers],
            spec.dtype,
            torch.get_num_threads(),
            4 if len(program.ops) <= FEW and step.entries() <= SHORT else 1,
            torch.get_default_dtype(),
        )

    def load(self, package: Path | None) -> None:
        """Load the compiled program; or, without one, get ready to do its operations one by one."""
        if package is None:
            self._loader = Replay(self.job())
        else:
            self._loader = loaded(package)
        self.is_compiled = package is not None
        self.noise.library = fast_draws()

    def bind(self, arguments: Sequence[Tensor]) -> list[Tensor] | None:
        """The step's static inputs for some arguments; None where they do not fit what was recorded."""
        return self.step.bind(arguments)

    def run(self, n: int, arguments: Sequence[Tensor], num_steps: int, done: Callable[[Tensor], None]) -> Tensor | None:
        """Take `n` steps, at most `capacity`; all of them or, on an exception, none.

        Args: num_steps, how many steps there were before; done, called with the losses when the steps count.
        Returns: the losses, (n,); or None where NaN came up or the arguments do not fit, and no step was taken.
        """
        given = self.bind(arguments)
        if given is None:
            return None
        start = torch.get_rng_state()
        try:
            rows = self.plan.rows(n, num_steps)
            if n < self.capacity:
                rows = torch.cat((rows, self._blank[n:]))
            written = self.step.current(self.written, arguments)
            found = self.call(n, self.plan.gather(own=False), rows, given, written)
        except BaseException:
            torch.set_rng_state(start)
            raise
        if found is None:
            torch.set_rng_state(start)
            return None
        losses, carries, others = found
        with uninterrupted():
            self.plan.scatter(carries, n)
            self.plan.commit(n)
            self.forget_gradients()
            self.keep(others, written)
            done(losses)
        return losses

    def call(
        self, n: int, carries: list[Tensor], rows: Tensor, given: list[Tensor], written: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]] | None:
        """Call the program; nothing but the random state changes.

        Args: written, what the program writes into.
        Returns: the losses, the carries, and the other carries, which `keep` takes; None where NaN came up.
        """
        others = [*(self.state[name] for name in self.step.state), *written]
        if n not in self._counts:
            self._counts[n] = torch.tensor(n)
        self.noise.fill(n)
        results = self._loader.boxed_run([self._counts[n], *carries, *others, rows, *self.noise.buffers, *given])
        if not results[-1]:
            return None
        return results[-2][:n], results[: len(carries)], results[len(carries) : -2]

    def forget_gradients(self) -> None:
        """Those of an earlier step are not to be taken for the latest."""
        for leaf in self.plan.leaves:
            leaf.grad = None

    def keep(self, others: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Write state and buffers back that a call has given."""
        if others:
            self.state.update(zip(self.step.state, others, strict=False))
            with torch.no_grad():
                for tensor, value in zip(written, others[len(self.step.state) :], strict=True):
                    tensor.copy_(value)


def _holds_same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was changed; None where that goes uncounted, as by numpy in its own memory, or in inference mode."""
    return None if tensor.is_inference() or not tensor.untyped_storage().resizable() else tensor._version


class uninterrupted:
    """Ctrl-C waits until the end of the block."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before: Iterable[Any] | None = None
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "pthread_sigmask"):
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


_CTRL_C = frozenset({signal.SIGINT})
