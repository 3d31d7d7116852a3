"""The update rules of Adam, AdamW, SGD and RMSprop as pure functions of tensors, for use inside a graph.

What is the same in every step is a constant of the graph and stands in a pack's *static* description, a dict that JSON
can hold. What changes with the number of the step or with a schedule comes as a row of numbers, one row a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppl.engine.packing import join, split

Static = dict[str, Any]
Group = Mapping[str, Any]
Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True)
class Rule:
    """How one kind of optimiser updates a tensor.

    Its momentum is what schedules may cycle: Adam's beta1, or the option of that name.
    """

    constants: Callable[[Group], Static]  # a group's options that the update needs, the momentum too, but not the lr
    states: Callable[[Static], list[str]]  # names of the buffers, as torch calls them
    columns: Callable[..., dict[str, Any]]  # (static, lr, momentum, number of the step from 1) -> entries of the row
    step: Callable[[Static, Tensor, list[Tensor], Tensor, Mapping[str, Tensor]], list[Tensor]]  # -> parameter, buffers
    counts: bool = True  # whether torch keeps the number of steps of each parameter


# -- Adam and AdamW: torch/optim/adam.py


def _adam_constants(group: Group) -> Static:
    return {
        "momentum": group["betas"][0],
        "beta2": group["betas"][1],
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "decoupled": bool(group["decoupled_weight_decay"]),
        "amsgrad": bool(group["amsgrad"]),
        "maximize": bool(group["maximize"]),
    }


def _adam_states(static: Static) -> list[str]:
    return ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if static["amsgrad"] else [])]


def _adam_columns(static: Static, lr: Value, momentum: Value, number: Value) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "step_size": lr / (1 - momentum**number),
        "bias": (1 - static["beta2"] ** number) ** 0.5,
    }
    if static["decoupled"] and static["weight_decay"]:
        columns["keep"] = 1 - lr * static["weight_decay"]
    if static["momentum"] is None:
        columns["gain"] = 1 - momentum
    return columns


def _adam_step(
    static: Static, value: Tensor, states: list[Tensor], grad: Tensor, row: Mapping[str, Tensor]
) -> list[Tensor]:
    mean, square, *largest = states
    if "keep" in row:
        value = value * row["keep"]
    elif static["weight_decay"]:
        grad = torch.add(grad, value, alpha=static["weight_decay"])
    if static["momentum"] is None:
        mean = mean + (grad - mean) * row["gain"]
    else:
        mean = torch.lerp(mean, grad, 1 - static["momentum"])
    square = torch.addcmul(square * static["beta2"], grad, grad, value=1 - static["beta2"])
    largest = [torch.maximum(old, square) for old in largest]
    scale = (largest or [square])[0].sqrt() / row["bias"] + static["eps"]
    return [value - row["step_size"] * mean / scale, mean, square, *largest]


# -- SGD: torch/optim/sgd.py


def _sgd_constants(group: Group) -> Static:
    return {
        "momentum": group["momentum"],
        "dampening": group["dampening"],
        "weight_decay": group["weight_decay"],
        "nesterov": bool(group["nesterov"]),
        "maximize": bool(group["maximize"]),
    }


def _sgd_states(static: Static) -> list[str]:
    return [] if static["momentum"] == 0 else ["momentum_buffer"]


def _sgd_columns(static: Static, lr: Value, momentum: Value, number: Value) -> dict[str, Any]:
    columns: dict[str, Any] = {"lr": lr}
    if static["states"] and static["dampening"]:  # torch does not dampen the first gradient
        later = (number > 1).to(number.dtype) if isinstance(number, Tensor) else number > 1
        columns["gain"] = 1 - static["dampening"] * later
    if static["momentum"] is None:
        columns["momentum"] = momentum
    return columns


def _sgd_step(
    static: Static, value: Tensor, states: list[Tensor], grad: Tensor, row: Mapping[str, Tensor]
) -> list[Tensor]:
    if static["weight_decay"]:
        grad = torch.add(grad, value, alpha=static["weight_decay"])
    if states:
        momentum = row["momentum"] if static["momentum"] is None else static["momentum"]
        states = [states[0] * momentum + (grad * row["gain"] if "gain" in row else grad)]
        grad = grad + states[0] * momentum if static["nesterov"] else states[0]
    return [value - row["lr"] * grad, *states]


# -- RMSprop: torch/optim/rmsprop.py


def _rmsprop_constants(group: Group) -> Static:
    return {
        "momentum": group["momentum"],
        "alpha": group["alpha"],
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "centered": bool(group["centered"]),
        "maximize": bool(group["maximize"]),
    }


def _rmsprop_states(static: Static) -> list[str]:
    momentum = [] if static["momentum"] == 0 else ["momentum_buffer"]
    return ["square_avg", *momentum, *(["grad_avg"] if static["centered"] else [])]


def _rmsprop_columns(static: Static, lr: Value, momentum: Value, number: Value) -> dict[str, Any]:
    return {"lr": lr} if static["momentum"] is not None else {"lr": lr, "momentum": momentum}


def _rmsprop_step(
    static: Static, value: Tensor, states: list[Tensor], grad: Tensor, row: Mapping[str, Tensor]
) -> list[Tensor]:
    known = dict(zip(static["states"], states, strict=True))
    if static["weight_decay"]:
        grad = torch.add(grad, value, alpha=static["weight_decay"])
    square = torch.addcmul(known["square_avg"] * static["alpha"], grad, grad, value=1 - static["alpha"])
    known["square_avg"] = variance = square
    if static["centered"]:
        known["grad_avg"] = mean = torch.lerp(known["grad_avg"], grad, 1 - static["alpha"])
        variance = torch.addcmul(square, mean, mean, value=-1)
    scale = variance.sqrt() + static["eps"]
    if "momentum_buffer" in known:
        momentum = row["momentum"] if static["momentum"] is None else static["momentum"]
        known["momentum_buffer"] = buffer = known["momentum_buffer"] * momentum + grad / scale
        return [value - row["lr"] * buffer, *known.values()]
    return [value - row["lr"] * grad / scale, *known.values()]


RULES = {
    "adam": Rule(_adam_constants, _adam_states, _adam_columns, _adam_step),
    "sgd": Rule(_sgd_constants, _sgd_states, _sgd_columns, _sgd_step, counts=False),
    "rmsprop": Rule(_rmsprop_constants, _rmsprop_states, _rmsprop_columns, _rmsprop_step),
}


# -- all packs together


def _clipped(grads: list[Tensor], clip: Mapping[str, float]) -> list[Tensor]:
    """Gradients bounded as `torch.nn.utils.clip_grad_norm_` and then `clip_grad_value_` do, all packs together."""
    if "clip_norm" in clip and grads:
        norms = [torch.linalg.vector_norm(grad) for grad in grads]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        factor = torch.clamp(clip["clip_norm"] / (norm + 1e-6), max=1.0)
        grads = [grad * factor for grad in grads]
    if "clip_value" in clip:
        grads = [grad.clamp(-clip["clip_value"], clip["clip_value"]) for grad in grads]
    return grads


def update(
    statics: Sequence[Static],
    carries: Sequence[Tensor],
    grads: Sequence[Sequence[Tensor]],
    row: Tensor,
    clip: Mapping[str, float],
) -> list[Tensor]:
    """The carries after one step; a pure function that neither reads a value nor writes in place.

    Shapes: grads by pack and by leaf, each of its leaf's shape; row (R,), one of `Plan.rows`.
    Args:
        statics: of the packs, as they are or after a passage through JSON.
        carries: for each pack its parameters and then its buffers, as `Plan.gather` gives them.
        clip: the `clip_args` of the optimiser.
    """
    joined = _clipped([join(static, parts) for static, parts in zip(statics, grads, strict=True)], clip)
    entries: dict[int, Tensor] = {}
    updated: list[Tensor] = []
    for static, grad in zip(statics, joined, strict=True):
        value, *states = carries[len(updated) : len(updated) + 1 + len(static["states"])]
        for column in static["columns"].values():
            if column not in entries:
                entries[column] = row[column]
        if static["clip"] is not None:
            grad = grad.clamp(-static["clip"], static["clip"])
        if static["maximize"]:
            grad = -grad
        rule, own = RULES[static["rule"]], {name: entries[column] for name, column in static["columns"].items()}
        updated += rule.step(static, value, states, grad, own)
    return updated


def unpack(statics: Sequence[Static], carries: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that lie in the carries, in the order of the leaves, as views with their shapes."""
    found: dict[int, Tensor] = {}
    for static, packed in zip(statics, parameters(statics, carries), strict=True):
        found |= zip(static["leaves"], split(static, packed), strict=True)
    return [found[leaf] for leaf in sorted(found)]


def parameters(statics: Sequence[Static], carries: Sequence[Tensor]) -> list[Tensor]:
    """The packs of parameters among the carries, without the optimiser's buffers."""
    ends = itertools.accumulate(1 + len(static["states"]) for static in statics)
    return [carries[at] for at in (0, *ends)[: len(statics)]]
