"""Stochastic variational inference: fit a guide, and a model's parameters, by gradient steps on an ELBO."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ppl.distributions.validation import is_validation_enabled
from ppl.engine.bundle import Bundle
from ppl.engine.undo import undone
from ppl.handlers.replay import replay
from ppl.handlers.trace import trace
from ppl.infer.batches import Device
from ppl.infer.bundles import load_bundle, write_bundle
from ppl.infer.compiled import Compile
from ppl.infer.elbo import ELBO, Trace_ELBO
from ppl.infer.fit import FitResult, fit
from ppl.infer.nan import KEPT, check_gradients, check_parameters, explain_nan
from ppl.infer.programs import Programs
from ppl.infer.run import SVIResult, run
from ppl.infer.way import Way
from ppl.optim import as_optimizer
from ppl.params import ParamStore
from ppl.stack import sketched
from ppl.trace import Trace

Program = Callable[..., Any]


class SVI:
    """Minimise a loss of a model and a guide.

        svi = SVI(model, guide, ppl.optim.Adam({"lr": 0.01}), Trace_ELBO())
        result = svi.run(1000, data)

    Parameters live in `svi.params`, a store of this object's own: run a guide that is a plain function within
    `with svi.params:` to see it fitted. Draws come from torch's generator, which all threads share.

    Args:
        optim: of `ppl.optim`, a torch.optim class, or a function from parameters to a torch optimiser.
        loss: an ELBO; Trace_ELBO() by default.
        params: a store to use instead of a new one.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: Any,
        loss: ELBO | None = None,
        *,
        params: ParamStore | None = None,
    ) -> None:
        for role, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(f"SVI: the {role} must be callable, but got {type(program).__name__}: {program!r}.")
        if loss is not None and not isinstance(loss, ELBO):
            raise ValueError(f"SVI: loss must be an ELBO such as Trace_ELBO(), got {loss!r}.")
        self.model, self.guide = model, guide
        self.optim = as_optimizer(optim)
        self.loss = Trace_ELBO() if loss is None else loss
        self.params = ParamStore() if params is None else params
        self.num_steps = 0  # steps taken so far
        self._optimizer: torch.optim.Optimizer | None = None
        self._scheduler: Any = None
        self._version = -1
        self.trained: list[tuple[str, Tensor]] = []  # names and leaves of what the optimiser updates
        self._pending: dict[str, Any] | None = None
        self._dtype = torch.get_default_dtype()  # of the losses
        self._last = math.nan  # the latest loss
        self.is_checked = False  # whether an eager step has looked at everything
        self.ways: dict[Any, Way] = {}  # how earlier runs took their steps, by the kind of arguments
        self._programs = Programs()  # of `compile`
        self.failed: tuple[Tensor, tuple[Any, ...], dict[str, Any]] | None = None  # the latest step, if it failed

    @property
    def is_ready(self) -> bool:
        """Whether an eager step has looked at everything, and the parameters are still the same."""
        return self.is_checked and self._version == self.params.version

    # -- parameters

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Make all parameters and the optimiser, by running guide and model once; `step` does it when needed."""
        fork = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
        with self.params, torch.no_grad(), fork, sketched():
            with trace() as of_guide:
                self.guide(*args, **kwargs)
            with trace() as of_model:  # at the guide's draws: the prior's may lie where the model breaks down
                replay(self.model, of_guide)(*args, **kwargs)
        self._train(of_guide, of_model)

    def _train(self, *traces: Trace) -> None:
        """Train the parameters of some traces, as well as those known before."""
        known = self._pending["trained"] if self._pending is not None else [name for name, _ in self.trained]
        names = dict.fromkeys([*known, *(name for t in traces for name in t.param_nodes)])
        leaves = [(name, self.params.unconstrained(name)) for name in names if name in self.params]
        self.trained = [(name, leaf) for name, leaf in leaves if leaf.requires_grad]
        self._version = self.params.version
        self._forget()  # programs of other parameters
        self._build()

    def _build(self) -> None:
        """Give the optimiser the parameters it does not have yet."""
        if not self.trained:
            return
        optimizer = self.optimizer
        if optimizer is None:
            self._optimizer = optimizer = self.optim.build(self.trained)
            self._scheduler = self.optim.scheduler(optimizer)
        else:
            known = {id(leaf) for group in optimizer.param_groups for leaf in group["params"]}
            self.optim.extend(optimizer, [(name, leaf) for name, leaf in self.trained if id(leaf) not in known])
        if self._pending is not None:
            optimizer.load_state_dict(self._pending["optimizer"])
            if self._scheduler is not None:
                self._scheduler.load_state_dict(self._pending["scheduler"])
            self._pending = None

    # -- steps

    def step(self, *args: Any, **kwargs: Any) -> float:
        """One gradient step; returns the loss before it.

        Raises: ValueError where NaN comes up, naming step, parameter or site and plate index. The parameters then
            still have their values of before the step. ValueError within torch.no_grad() or torch.inference_mode().
        """
        if not torch.is_grad_enabled():
            raise ValueError(
                "SVI: gradients are switched off here, so that nothing would be trained. Take steps outside of "
                "torch.no_grad() and torch.inference_mode(), and use evaluate_loss inside."
            )
        if self._version != self.params.version:
            self.setup(*args, **kwargs)
        elif self._programs and self._programs.step(self, args, kwargs):
            return self._last
        start, means = torch.get_rng_state(), self.loss.baselines.means.copy()
        try:
            value = self._eager_step(start, args, kwargs)
        except ValueError:
            self.loss.baselines.means.clear()
            self.loss.baselines.means.update(means)
            self.failed = start, args, kwargs
            raise
        self.failed = None
        return value

    def _eager_step(self, start: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        try:
            with self.params:
                loss = self.loss(self.model, self.guide, *args, **kwargs)
        except ValueError as error:
            check_parameters(self.num_steps, self.trained, error)
            if not self.num_steps:
                raise
            raise ValueError(f"step {self.num_steps}: {error} {KEPT}") from error
        if self._version != self.params.version:  # a parameter that the setup run did not meet
            self._train(*(self.loss.last_traces or ()))
        value = loss.item()
        if math.isnan(value):
            check_parameters(self.num_steps, self.trained)
            raise ValueError(explain_nan(self.num_steps, "the loss", reversed(self.loss.last_traces or ())))
        if self.optimizer is not None:
            self._backward(loss)
            if is_validation_enabled():
                check_gradients(self.num_steps, self.trained, value)
            searches = isinstance(self.optimizer, torch.optim.LBFGS)
            self.descend(loss, (lambda: self._again(start, args, kwargs)) if searches else None)
        self.num_steps += 1
        self.is_checked = True
        self.loss.last_traces = None  # a look back is for errors; the tensors are not kept
        self._dtype, self._last = loss.dtype, value
        return value

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the step for arguments of these shapes; no step is taken, and `step` uses the program from then on.

        Python values that model and guide read are frozen at what they are now; tensors that they read are not.

        Raises: ValueError where the program cannot be captured, naming the line, or cannot be compiled.
        """
        self._look_at_everything(args, kwargs)
        self._programs.add(self, args, kwargs, "SVI.compile", compile=True)

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Record the step for arguments of these shapes; no step is taken, and `step` does its operations from then on.

        They are done one after another, without handlers and automatic differentiation, in a half to a quarter of the time:
        at once, and without a compiler. As with `compile`, Python values are frozen and tensors are not.

        Raises: ValueError where the program cannot be captured, naming the line.
        """
        self._look_at_everything(args, kwargs)
        self._programs.add(self, args, kwargs, "SVI.record", compile=False)

    def _look_at_everything(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An eager look at all values before a program is recorded, which does not look; it leaves nothing behind."""
        if self._version != self.params.version:
            self.setup(*args, **kwargs)
        if not self.is_checked:
            with undone():
                self.evaluate_loss(*args, **kwargs)
            self.is_checked = True

    def _forget(self) -> None:
        """Forget compiled programs."""
        self._programs.forget()
        self.ways.clear()

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The torch optimiser; None before the first step, or without parameters."""
        self._programs.flush()
        return self._optimizer

    @property
    def scheduler(self) -> Any:
        """The learning-rate schedule, if there is one."""
        self._programs.flush()
        return self._scheduler

    def count(self, losses: Tensor) -> None:
        """Count steps that a program has taken."""
        self.num_steps += len(losses)
        self._dtype, self._last = losses.dtype, (losses if len(losses) == 1 else losses[-1]).item()

    def _again(self, start: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The loss of this step once more, at other parameters but with the same draws, for a line search."""
        torch.set_rng_state(start)
        with torch.enable_grad():
            with self.params:
                loss = self.loss(self.model, self.guide, *args, **kwargs)
            self._backward(loss)
        return loss

    def _backward(self, loss: Tensor) -> None:
        for _, leaf in self.trained:
            leaf.grad = None
        if loss.requires_grad:
            # what `loss.backward()` comes to, in half its time
            engine: Any = torch.autograd.Variable._execution_engine
            engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), True, True)

    def descend(self, loss: Tensor, closure: Callable[[], Tensor] | None = None) -> None:
        """Let the optimiser and its schedule take their step by the gradients that the parameters have.

        Args: loss, before the step; closure, what computes it anew, for a line search.
        """
        assert self.optimizer is not None
        if self.optim.clip_args:
            self.optim.clip([leaf for _, leaf in self.trained])
        if closure is None:
            self.optimizer.step()
        else:
            self.optimizer.step(cast(Any, closure))
        if self.scheduler is not None:
            self.optim.advance(self.scheduler, self.num_steps + 1, loss.detach())

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss now, without a step."""
        with self.params:
            return self.loss.loss(self.model, self.guide, *args, **kwargs)

    def run(
        self,
        num_steps: int,
        *args: Any,
        progress_bar: bool = True,
        callback: Callable[[int, float], None] | None = None,
        compile: Compile = "auto",
        **kwargs: Any,
    ) -> SVIResult:
        """Take many steps.

        Args:
            num_steps: how many.
            progress_bar: show one on standard error.
            callback: called with the step's number in this run and its loss; steps are then taken one by one.
            compile: "auto" begins with eager steps and, in a long run, compiles the step in the background and goes on with
                that; "always" waits for the compiler; "never" stays eager. The results are the same.
        Returns: losses and parameters. Ctrl-C ends the run after the step or the block of steps that it falls into, a
            second Ctrl-C at once; what is done is kept, and `run` can go on.
        """
        return run(self, num_steps, args, kwargs, progress_bar=progress_bar, callback=callback, compile=compile)

    def fit(
        self,
        dataloader: Iterable[Any],
        epochs: int,
        *,
        plate: str | Sequence[str] | None = None,
        size: int | None = None,
        device: Device = None,
        progress_bar: bool = True,
        callback: Callable[[int, float], None] | None = None,
        compile: Compile = "auto",
        **kwargs: Any,
    ) -> FitResult:
        """Take one step for each batch of a loader, many times over.

            svi.fit(DataLoader(TensorDataset(x, y), batch_size=100, shuffle=True), epochs=10, plate="data")

        Args:
            dataloader: a torch DataLoader, a list of batches, or anything that gives batches whenever it is iterated
                over. A tuple or list becomes the positional arguments of model and guide, a dict the keyword arguments.
            epochs: how often to go through it.
            plate: the plate that a batch's elements are in where the model writes `plate("data", len(x))`, or several:
                it stands for all data, and densities inside are scaled by size / len(x), as `handlers.enlarge` does. Not
                needed where the model says so itself, as in `plate("data", size, subsample_size=len(x))`.
            size: how many elements all data have; by default that of the loader's data set or of a list's batches.
            device: where the tensors of each batch go.
            progress_bar: show one on standard error.
            callback: called at the end of each epoch with its number in this call and its mean loss; a place to keep
                `state_dict()`, from which a later process goes on with the same bits.
            compile: like that of `run`; each shape of batches has a program of its own.
            kwargs: further arguments of model and guide, the same in every step.
        Returns: losses by step and by epoch, and parameters. Ctrl-C ends the training after a step and keeps what is done.
        Raises: ValueError for a loader without batches or one that cannot be gone through again; naming the batch, for
            fields of different lengths or a step that fails; naming plates, for one that is not there.
        """
        return fit(
            self,
            dataloader,
            epochs,
            plate=plate,
            size=size,
            device=device,
            progress_bar=progress_bar,
            callback=callback,
            compile=compile,
            constants=kwargs,
        )

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on with the same bits: parameters, optimiser, loss, RNG."""
        return {
            "params": self.params.state_dict(),
            **copy.deepcopy(self._state_of_optimizer() if self._pending is None else self._pending),
            "loss": self.loss.state_dict(),
            "num_steps": self.num_steps,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _state_of_optimizer(self) -> dict[str, Any]:
        return {
            "trained": [name for name, _ in self.trained],
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; the optimiser takes its part at the next step."""
        self._forget()
        self.params.load_state_dict(state["params"])
        self.loss.load_state_dict(state["loss"])
        self.num_steps = int(state["num_steps"])
        self.is_checked = False
        self._optimizer = self._scheduler = None
        self._version = -1
        self.trained = []
        pending = {key: state[key] for key in ("trained", "optimizer", "scheduler")}
        self._pending = copy.deepcopy(pending) if state["optimizer"] is not None else None
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["rng_cuda"])

    def write_bundle(self, path: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> None:
        """Write a step with all that it starts from to a file, to take it again elsewhere: see `load_bundle`.

        It is the next step, with these arguments; without any, after a step that raised ValueError, that one, with its
        arguments and random numbers. What a closure holds is not in the file, nor are plates' scales that `fit` was told.

        Args: args, kwargs: tensors and plain values, in tuples, lists and dicts.
        Raises: ValueError naming an argument that is something else.
        """
        write_bundle(self, path, args, kwargs)

    def load_bundle(self, path: str | os.PathLike[str], map_location: Any = None) -> Bundle:
        """Take over the state in a file that `write_bundle` wrote, random numbers included; the file is data.

            bundle = svi.load_bundle("step.pt")
            svi.step(*bundle.args, **bundle.kwargs)

        Raises: ValueError for a file of another kind, or one of an SVI with another optimiser or loss.
        """
        return load_bundle(self, path, map_location)
