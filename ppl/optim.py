"""Optimisers for SVI: torch's, in the spelling `Adam({"lr": 0.01})`, with options by parameter, clipping and schedules.

`SVI` takes an `Optimizer` of this module, any `torch.optim` class, or any function from a list of parameters to a torch
optimiser.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Options = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]
Factory = Callable[[list[Any]], torch.optim.Optimizer]


class Optimizer:
    """A torch optimiser class with its options, waiting for parameters.

    Args:
        optim_args: keyword arguments of the class, or a function from a parameter's name to them.
        clip_args: `{"clip_norm": x}` bounds the norm of all gradients together, `{"clip_value": x}` each entry.
    Raises: ValueError for a clip option that is neither.
    """

    def __init__(
        self,
        torch_class: Callable[..., torch.optim.Optimizer],
        optim_args: Options | None = None,
        clip_args: Mapping[str, float] | None = None,
    ) -> None:
        self.torch_class, self.optim_args = torch_class, {} if optim_args is None else optim_args
        self.clip_args = dict(clip_args or {})
        unknown = set(self.clip_args) - {"clip_norm", "clip_value"}
        if unknown:
            raise ValueError(f"optimiser: unknown clip_args {sorted(unknown)}; known are clip_norm and clip_value.")

    def groups(self, named: Iterable[tuple[str, Tensor]]) -> list[dict[str, Any]]:
        """Parameters grouped by their options."""
        groups: list[dict[str, Any]] = []
        for name, leaf in named:
            options = dict(self.optim_args(name) if callable(self.optim_args) else self.optim_args)
            for group in groups:
                if group["options"] == options:
                    group["params"].append(leaf)
                    break
            else:
                groups.append({"options": options, "params": [leaf]})
        return [{**group, **group["options"]} for group in groups]

    def build(self, named: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
        """The torch optimiser for some named parameters."""
        groups = self.groups(named)
        if callable(self.optim_args):
            return self.torch_class(groups)
        options = dict(self.optim_args)
        leaves = [leaf for group in groups for leaf in group["params"]]
        made: Any = self.torch_class
        known = isinstance(made, type) and issubclass(made, _FUSED)
        if known and not options.keys() & {"foreach", "fused", "differentiable", "capturable"}:
            options["fused"] = all(leaf.is_floating_point() and leaf.device.type in ("cpu", "cuda") for leaf in leaves)
        optimizer = self.torch_class(leaves, **options)
        if options.get("fused") and not isinstance(optimizer, _Lean):
            optimizer.register_step_post_hook(_count_change)
        return optimizer

    def extend(self, optimizer: torch.optim.Optimizer, named: list[tuple[str, Tensor]]) -> None:
        """Give a torch optimiser more parameters, each to the group with its options, schedule and all."""
        for group in self.groups(named):
            for known in optimizer.param_groups:
                if known.get("options", group["options"]) == group["options"]:
                    known["params"].extend(group["params"])
                    break
            else:
                optimizer.add_param_group(group)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """The learning-rate schedule that goes with an optimiser, or None."""
        return None

    def advance(self, scheduler: Any, num_steps: int, loss: Tensor) -> None:
        """Move a schedule on, after `num_steps` steps in all, the last with the given loss."""

    def clip(self, leaves: list[Tensor]) -> None:
        """Bound the gradients as asked for."""
        if "clip_norm" in self.clip_args:
            torch.nn.utils.clip_grad_norm_(leaves, self.clip_args["clip_norm"])
        if "clip_value" in self.clip_args:
            torch.nn.utils.clip_grad_value_(leaves, self.clip_args["clip_value"])


def _count_change(optimizer: torch.optim.Optimizer, args: Any = (), kwargs: Any = None) -> None:
    """Count what a fused kernel does as a change of the parameters, which it omits and caches of transforms rely on."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            torch.autograd.graph.increment_version(group["params"])


# torch's optimisers that update all parameters in one kernel, which takes a third of the time of a small step
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)


class _Lean(torch.optim.Optimizer):
    """A mixin for torch's optimisers that leaves out what serves torch.compile and the profiler.

    The first of these imports torch's compiler, which takes over a second; together they take as long as the update of a
    small model. What updates the parameters is torch's own code.
    """

    torch_class: type[torch.optim.Optimizer]
    update: Callable[..., Any]  # torch's step without its wrappers
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def step(self, closure: Any = None) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            loss = self.update(closure)
        _count_change(self)
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it for the profiler and for hooks

    def register_step_pre_hook(self, hook: Any) -> Any:
        self._call_hooks()
        return super().register_step_pre_hook(hook)

    def register_step_post_hook(self, hook: Any) -> Any:
        self._call_hooks()
        return super().register_step_post_hook(hook)

    def _call_hooks(self) -> None:
        step = torch.optim.Optimizer.profile_hook_step(type(self).step)
        vars(self)["step"] = types.MethodType(step, self)

    def __reduce__(self) -> Any:
        return _empty, (self.torch_class,), self.__getstate__()


def _update_adam(optimizer: torch.optim.Adam, closure: Any = None) -> Any:
    """torch's step of Adam or AdamW, straight to its kernel where there is nothing to decide."""
    found = [_state_of(optimizer, group) for group in optimizer.param_groups]
    usual = [tensors for tensors in found if tensors is not None]
    if closure is not None or len(usual) < len(found):
        return _STEP_OF_ADAM(optimizer, closure)
    for group, (*lists, steps) in zip(optimizer.param_groups, usual, strict=True):
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        kernel: Any = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            *(*lists, [], steps),
            amsgrad=False,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )
    return None


_STEP_OF_ADAM: Any = inspect.unwrap(torch.optim.Adam.step)
_NUMBERS = (int, float)


def _state_of(optimizer: torch.optim.Adam, group: dict[str, Any]) -> tuple[list[Tensor], ...] | None:
    """What the kernel works on: parameters, gradients, both moments and step counts. None where torch must see to it."""
    usual = group["fused"] and not group["amsgrad"] and "decoupled_weight_decay" in group
    if not usual or not all(isinstance(x, _NUMBERS) for x in (group["lr"], *group["betas"])):
        return None
    if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
        return None
    leaves = [leaf for leaf in group["params"] if leaf.grad is not None]
    grads = [leaf.grad for leaf in leaves]
    states = [optimizer.state[leaf] for leaf in leaves]
    if not leaves or not all(states):  # the first step makes the state
        return None
    dtype = leaves[0].dtype
    if not all(x.dtype is dtype and x.is_cpu and not x.is_sparse for x in (*leaves, *grads)):
        return None
    return leaves, grads, *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))


_made: dict[type[torch.optim.Optimizer], type[torch.optim.Optimizer]] = {}


def _lean(torch_class: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """A class of torch's, made lean; always the same one."""
    if torch_class not in _made:
        update: Any = inspect.unwrap(torch_class.step)
        fields = {
            "torch_class": torch_class,
            "update": _update_adam if update is _STEP_OF_ADAM else update,
            "__doc__": torch_class.__doc__,
        }
        _made[torch_class] = type(torch_class.__name__, (_Lean, torch_class), fields)
    return _made[torch_class]


def _empty(torch_class: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    cls = _lean(torch_class)
    return cls.__new__(cls)


class _Scheduled(Optimizer):
    """An optimiser with a schedule, stepped by SVI after every step, or every so many (`"every": n`).

    With `"every": None`, never: then write `svi.scheduler.step()` where an epoch ends.
    """

    def __init__(
        self,
        torch_scheduler: Callable[..., Any],
        optim_args: Mapping[str, Any],
        clip_args: Mapping[str, float] | None = None,
    ) -> None:
        options = dict(optim_args)
        try:
            inner = options.pop("optimizer")
        except KeyError:
            raise ValueError(
                "a schedule needs its optimiser: write {'optimizer': torch.optim.Adam, 'optim_args': {'lr': 0.01}, …}."
            ) from None
        inner_options = options.pop("optim_args", {})
        if isinstance(inner, Optimizer):
            clip_args = inner.clip_args if clip_args is None else clip_args
            inner_options, inner = inner.optim_args, inner.torch_class
        super().__init__(inner, inner_options, clip_args)
        self.every: int | None = options.pop("every", 1)
        if self.every is not None and (not isinstance(self.every, int) or self.every < 1):
            raise ValueError(f"a schedule's 'every' must be a positive int or None, got {self.every!r}.")
        self.torch_scheduler, self.schedule_args = torch_scheduler, options

    def advance(self, scheduler: Any, num_steps: int, loss: Tensor) -> None:
        if self.every is None or num_steps % self.every:
            return
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item())
        else:
            scheduler.step()

    def step(self, *args: Any) -> None:
        """Raises: TypeError, because it is the SVI that holds the schedule."""
        raise TypeError(
            "a schedule is stepped by svi.step. To step it yourself, an epoch at a time, give {'every': None, …} and write "
            "svi.scheduler.step()."
        )

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return self.torch_scheduler(optimizer, **self.schedule_args)


class _ClippedAdam(torch.optim.Adam):
    """Adam whose gradient entries are clipped and whose learning rate shrinks by a factor each step; to be made lean."""

    def __init__(self, params: Any, clip_norm: float = 10.0, lrd: float = 1.0, **options: Any) -> None:
        super().__init__(params, **options)
        self.clip_norm, self.lrd = clip_norm, lrd

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = group["lr"] * self.lrd
            for leaf in group["params"]:
                if leaf.grad is not None:
                    leaf.grad.clamp_(-self.clip_norm, self.clip_norm)
        return _update_adam(self, closure)


def _spelled(torch_class: type[torch.optim.Optimizer]) -> Callable[..., Optimizer]:
    def make(optim_args: Options | None = None, clip_args: Mapping[str, float] | None = None) -> Optimizer:
        return Optimizer(_lean(torch_class), optim_args, clip_args)

    name = torch_class.__name__.strip("_")
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"torch.optim.{name} for SVI; see `Optimizer` for the arguments."
    return make


def _scheduled(torch_scheduler: Callable[..., Any]) -> Callable[..., Optimizer]:
    def make(optim_args: Mapping[str, Any], clip_args: Mapping[str, float] | None = None) -> Optimizer:
        return _Scheduled(torch_scheduler, optim_args, clip_args)

    name = torch_scheduler.__name__
    make.__name__ = make.__qualname__ = name
    make.__doc__ = (
        f"The schedule torch.optim.lr_scheduler.{name}, stepped once a step: "
        f"`{name}({{'optimizer': torch.optim.Adam, 'optim_args': {{'lr': 0.01}}, …}})`."
    )
    return make


def _clipped_adam(optim_args: Options | None = None) -> Optimizer:
    """Adam with gradient entries clipped to ±`clip_norm` (10) and a learning rate multiplied by `lrd` (1) each step."""
    return Optimizer(_lean(_ClippedAdam), optim_args)


ClippedAdam = _clipped_adam
Adadelta = _spelled(torch.optim.Adadelta)
Adafactor = _spelled(torch.optim.Adafactor)
Adagrad = _spelled(torch.optim.Adagrad)
Adam = _spelled(torch.optim.Adam)
AdamW = _spelled(torch.optim.AdamW)
Adamax = _spelled(torch.optim.Adamax)
ASGD = _spelled(torch.optim.ASGD)
LBFGS = _spelled(torch.optim.LBFGS)
NAdam = _spelled(torch.optim.NAdam)
RAdam = _spelled(torch.optim.RAdam)
RMSprop = _spelled(torch.optim.RMSprop)
Rprop = _spelled(torch.optim.Rprop)
SGD = _spelled(torch.optim.SGD)
SparseAdam = _spelled(torch.optim.SparseAdam)

ConstantLR = _scheduled(torch.optim.lr_scheduler.ConstantLR)
CosineAnnealingLR = _scheduled(torch.optim.lr_scheduler.CosineAnnealingLR)
CosineAnnealingWarmRestarts = _scheduled(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts)
CyclicLR = _scheduled(torch.optim.lr_scheduler.CyclicLR)
ExponentialLR = _scheduled(torch.optim.lr_scheduler.ExponentialLR)
LambdaLR = _scheduled(torch.optim.lr_scheduler.LambdaLR)
LinearLR = _scheduled(torch.optim.lr_scheduler.LinearLR)
MultiStepLR = _scheduled(torch.optim.lr_scheduler.MultiStepLR)
MultiplicativeLR = _scheduled(torch.optim.lr_scheduler.MultiplicativeLR)
OneCycleLR = _scheduled(torch.optim.lr_scheduler.OneCycleLR)
PolynomialLR = _scheduled(torch.optim.lr_scheduler.PolynomialLR)
ReduceLROnPlateau = _scheduled(torch.optim.lr_scheduler.ReduceLROnPlateau)
StepLR = _scheduled(torch.optim.lr_scheduler.StepLR)


def as_optimizer(optim: Any) -> Optimizer:
    """Whatever a user may give to SVI, as an `Optimizer`.

    Raises: ValueError naming what came and what to write.
    """
    if isinstance(optim, Optimizer):
        return optim
    if isinstance(optim, torch.optim.Optimizer):
        raise ValueError(
            f"SVI: got a torch optimiser that is already bound to parameters ({type(optim).__name__}); SVI finds the "
            f"parameters itself, so write ppl.optim.{type(optim).__name__}({{'lr': …}}) or "
            f"lambda params: torch.optim.{type(optim).__name__}(params, lr=…)."
        )
    if isinstance(optim, type) and issubclass(optim, torch.optim.lr_scheduler.LRScheduler):
        raise ValueError(
            f"SVI: {optim.__name__} is a schedule and needs an optimiser; write "
            f"ppl.optim.{optim.__name__}({{'optimizer': torch.optim.Adam, 'optim_args': {{'lr': 0.01}}, …}})."
        )
    if callable(optim):
        return Optimizer(optim)
    raise ValueError(
        f"SVI: expected an optimiser such as ppl.optim.Adam({{'lr': 0.01}}) or torch.optim.Adam, got {optim!r}."
    )
