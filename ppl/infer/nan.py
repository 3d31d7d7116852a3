"""Where NaN came up in a step: the parameter, the gradient, or the site and plate index."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ppl.distributions.validation import describe_entries
from ppl.trace import Trace

Named = Sequence[tuple[str, Tensor]]
#: What every error of a step ends with.
KEPT = (
    "The parameters keep their last values; svi.write_bundle('step.pt') keeps this step in a file, from which "
    "svi.load_bundle takes it again elsewhere."
)


def check_parameters(step: int, trained: Named, cause: Exception | None = None) -> None:
    """Raise ValueError naming the first parameter that is NaN, if one is."""
    for name, leaf in trained:
        bad = leaf.detach().isnan()
        if bool(bad.any()):
            raise ValueError(
                f"step {step}: parameter '{name}' is NaN ({describe_entries(bad, leaf.detach())}). It was so before this "
                f"step: load a state_dict from before, or give it another value, as in svi.params['{name}'] = …"
            ) from cause


def check_gradients(step: int, trained: Named, loss: float) -> None:
    """Raise ValueError naming the first parameter whose gradient is not finite, if there is one."""
    sums = [g.sum() if g.dim() else g for _, leaf in trained if (g := leaf.grad) is not None]
    if all(s.is_cpu for s in sums):
        if all(math.isfinite(s.item()) for s in sums):
            return
    elif math.isfinite(torch.stack(sums).sum().item()):  # one transfer from the device
        return
    for name, leaf in trained:
        if leaf.grad is not None and not bool(leaf.grad.isfinite().all()):
            why = (
                "although the loss is. A function in the model has an infinite slope at the value reached, such as sqrt "
                "or log near 0, or the learning rate is too high."
                if math.isfinite(loss)
                else f"and the loss is {loss}: the guide drew values that are impossible under the model."
            )
            raise ValueError(f"step {step}: the gradient of parameter '{name}' is not finite, {why} {KEPT}")


def explain_nan(step: int, what: str, traces: Iterable[Trace]) -> str:
    """A sentence on where NaN came up first, in traces in the order in which they ran backwards."""
    found = [sentence for trace in traces for sentence in trace.describe_nan()]
    causes = "; ".join(found[:3]) or "no single site is NaN: infinities of opposite sign met in the sum"
    return (
        f"step {step}: {what} is NaN. First found: {causes}. Look at the inputs of that site, lower the learning rate, or "
        f"start elsewhere (init_loc_fn). {KEPT}"
    )
