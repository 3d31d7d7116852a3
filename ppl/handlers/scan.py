"""Repeat a step over time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl.distributions.validation import is_validation_enabled, validation_enabled
from ppl.recording import Kept, Recorder, hand_over, join_sites, packed, unpacked
from ppl.site import Moment, Site, Span
from ppl.stack import Handler, check_value, perform
from ppl.tensors.nest import (
    at_once,
    device_of,
    is_repeated,
    join_nests,
    leaves,
    map_nest,
    number_as_tensor,
    refill,
    refill_tensors,
    stack_nests,
    tensors_in,
)
from ppl.tensors.provenance import Provenance

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(step: Step, init: Any, xs: Any = None, length: int | None = None, history: int = 1) -> tuple[Any, Any]:
    """Repeat a step: `carry, y = step(carry, x)` for each x of `xs`, from `init` on.

        def step(z, x):
            z = ppl.sample("z", dist.Categorical(transition[z]))
            ppl.sample("x", dist.Normal(mean[z], 1.0), obs=x)
            return z, None

        ppl.scan(step, 0, data)

    A site in the step is one site of the program, whose value has the steps on its first dim: (T, *site). So that is how
    handlers are given values for it (`condition`, `replay`), and how traces show it.

    Where the step's discrete sites are enumerated, it runs once for all T, whatever T is, and they are summed out in O(log T)
    depth. The carry may then depend on the enumerated sites of the last `history` steps, and on all else without limit.

    Args:
        step: from (carry, x) to (carry, y); both may be tensors, or tuples, lists and dicts of tensors, or None.
        init: the first carry.
        xs: tensors with T on their first dim, in any nest; or None.
        length: T, needed without `xs`.
        history: how many steps back enumerated sites reach through the carry, at least 1.
    Returns: the last carry, and the y of all steps, stacked on the first dim.
    Raises: ValueError for lengths that do not agree, for a step that returns no pair, and for a carry that depends on
        enumerated sites further back than `history` steps.
    """
    if not callable(step):
        raise TypeError(f"scan: the step must be a function of (carry, x), got {type(step).__name__}: {step!r}.")
    if not isinstance(history, int) or isinstance(history, bool) or history < 1:
        raise ValueError(f"scan: history must be a positive int, got {history!r}.")
    return _Scan(step, xs, _length(xs, length), history).run(init)


def _length(xs: Any, length: int | None) -> int:
    sizes = set()
    for x in leaves(xs):
        if x is not None:
            if not isinstance(x, Tensor) or not x.dim():
                raise ValueError(
                    f"scan: xs must hold tensors with the steps on their first dim, but got {type(x).__name__}: {x!r}."
                )
            sizes.add(len(x))
    if length is not None:
        sizes.add(length)
    if len(sizes) != 1:
        raise ValueError(
            "scan: give xs or length, to say how many steps there are."
            if not sizes
            else f"scan: xs and length must agree on the number of steps, but got {sorted(sizes)}."
        )
    (size,) = sizes
    if size < 1:
        raise ValueError("scan: there must be at least one step, got 0; leave the scan out where there is no data.")
    return size


class _Scan(Handler):
    """Runs the steps, and tells each of their sites which step it belongs to."""

    def __init__(self, step: Step, xs: Any, length: int, history: int) -> None:
        super().__init__()
        self.step, self.xs, self.length, self.history = step, xs, length, history
        self._moment: Moment | None = None
        self._recording = True
        self._kept: list[Kept] = []
        self._plates: dict[str, Tensor] = {}  # the indices of the plates in the step, the same in all steps
        self._axis = ""  # the name of the time dim
        self._sketched = False  # whether steps like others may be left out
        self._enumerates = False  # whether a site of the step is enumerated
        self._supports: list[Tensor] = []  # the values of the latest step's enumerated sites, with the site's dim first

    # -- the sites of a step

    def handle(self, site: Site) -> Site:
        if site.kind == "plate":
            known = self._plates.get(site.name)
            given = site if known is None or site.value is not None else site.replace(value=known)
            done = perform(given.replace(recorded=site.recorded and known is None))
            self._plates[site.name] = done.tensor
            return done
        if site.kind not in ("sample", "deterministic"):
            return perform(site)
        assert self._moment is not None
        recorded = site.recorded and self._recording
        done = perform(site.replace(moments=(self._moment, *site.moments), recorded=recorded))
        self._sketched = done.sketched
        if done.kind == "sample":
            self._axis = self._axis or f"time {done.name}"
            dims = [dim for dim, name in done.enum_dims if name.startswith(f"{done.name}[")]
            self._enumerates = self._enumerates or bool(dims)
            if dims and done.tensor.dim() - len(done.fn.event_shape) == -max(dims):
                self._supports.append(done.tensor)
        return done

    def _keep(self, add: Recorder, site: Site) -> None:
        self._kept.append(Kept(add, site))

    def _run(
        self, index: int | Tensor, carry: Any, x: Any, *, together: bool = False, back: int = 0
    ) -> tuple[Any, Any]:
        """One step, or many at once."""
        self._moment = Moment(index, together, back, self.length, self.history, self, self._keep)
        self._recording, self._kept, self._supports = back == 0, [], []
        with self:
            out = self.step(carry, x)
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            raise ValueError(
                f"scan: the step must return a pair (carry, y), but returned {type(out).__name__}; write "
                "`return carry, None` where there is nothing to collect."
            )
        return out[0], out[1]

    def _x(self, index: int) -> Any:
        return map_nest(lambda x: None if x is None else x[index], self.xs)

    # -- all steps

    def run(self, init: Any) -> tuple[Any, Any]:
        """The last carry and all ys."""
        try:
            return self._run_all(init)
        finally:  # the sites know this object, and it them: else their tensors would wait for the garbage collector
            self._moment, self._kept, self._supports, self._plates = None, [], [], {}

    def _run_all(self, init: Any) -> tuple[Any, Any]:
        carry, y = self._run(0, init, self._x(0))
        if self._enumerates:
            return self._run_enumerated(init, carry, y)
        ys, rows = [y], [self._kept]
        count = min(self.length, self.history + 1) if self._sketched else self.length
        for index in range(1, count):
            carry, y = self._run(index, carry, self._x(index))
            ys.append(y)
            rows.append(self._kept)
        for steps in (ys, rows):
            steps += [steps[-1]] * (self.length - count)
        join_sites(rows, Span(self._axis, 0, self.length, self.history))
        return carry, stack_nests(ys)

    def _run_enumerated(self, init: Any, carry: Any, y: Any) -> tuple[Any, Any]:
        """The first steps one by one, because their carry is another one; then all others at once."""
        first = self._first()
        ys = [y]
        self._record_alone(0)
        for index in range(1, first):
            carry, y = self._run(index, self._approach(init, index), self._x(index))
            self._record_alone(index)
            ys.append(y)
        if first == self.length:
            return carry, stack_nests(ys)
        before = self._moved(init, carry) if first == 1 else None
        if before is None:
            before = self._approach(init, first)
        out, rest, record = self._all(first, before, False)
        if not is_repeated(out, carry):
            out, rest, record = self._all(first, self._carries(init, first), True)
        record()
        last = map_nest(lambda leaf: leaf[-1] if isinstance(leaf, Tensor) else leaf, out)
        return last, join_nests(ys, rest)

    def _first(self) -> int:
        """How many steps run by themselves: as many as one may look back, and the rest of a division by that number."""
        steps = self.length - self.history
        return self.length if steps <= 0 else self.history + steps % self.history

    def _approach(self, init: Any, target: int) -> Any:
        """The carry into a step, as a function of the states before it, each on the dim where that step looks for it."""
        carry = init
        for index in range(target):
            carry, _ = self._run(index, carry, self._x(index), back=target - index)
        return carry

    def _moved(self, init: Any, carry: Any) -> Any:
        """The carry out of the first step as the second one takes it, if it holds nothing but states and what it began with."""
        old, new = leaves(init), []
        for position, leaf in enumerate(leaves(carry)):
            if any(leaf is support for support in self._supports):
                new.append(leaf.unsqueeze(1))  # from the site's dim to the next one on the left
            elif position < len(old) and leaf is old[position]:
                new.append(leaf)
            else:
                return None
        return refill(carry, iter(new))

    def _carries(self, init: Any, first: int) -> Any:
        """The carries into all steps from `first` on, where they differ from step to step.

        Along a path on which every enumerated site has one value the carries are found first; from there, each step's carry
        follows from the last `history` steps, all of them at once.
        """
        self._check_reach(init)
        far = self.history + 1
        carry, path = map_nest(number_as_tensor, init), []
        for index in range(self.length - self.history):
            path.append(carry)
            carry, _ = self._run(index, carry, self._x(index), back=far)
            carry = map_nest(number_as_tensor, carry)
        carries: Any = stack_nests([path[index] for index in range(first - self.history, self.length - self.history)])
        for back in range(self.history, 0, -1):
            carries, _, _ = self._all(first - back, carries, True, self.length - first, back)
        return carries

    def _check_reach(self, init: Any) -> None:
        """Does the carry forget what lies further back than `history` steps?"""
        provenance = Provenance()
        carry = init
        with provenance, _name(provenance, self) as names, torch.no_grad():
            for index in range(min(self.history + 1, self.length)):
                names.step = index
                carry, _ = self._run(index, carry, self._x(index), back=self.history + 1)
        sources = provenance.of(carry)
        if any(name.startswith("0 ") for name in sources) and self.length > self.history:
            found = sorted(name[2:] for name in sources if name.startswith("0 "))
            raise ValueError(
                f"scan: the carry depends on the enumerated sites {found} of more than {self.history} steps before. Give "
                f"scan(…, history={self.history + 1}) if that is how far it reaches; a carry that never forgets, such as a "
                "running sum of states, cannot be summed out."
            )

    # -- many steps at once

    def _all(
        self, start: int, carry: Any, differs: bool, count: int | None = None, back: int = 0
    ) -> tuple[Any, Any, Callable[[], None]]:
        """Run `count` steps from `start` on at once.

        Args: differs, whether the carry has the steps on its first dim.
        Returns: carries and ys, steps first, and a function that hands the sites to those who record them.
        """
        count = self.length - start if count is None else count
        xs = map_nest(lambda x: None if x is None else x[start : start + count], self.xs)
        index = torch.arange(start, start + count, device=device_of(carry, xs))
        nests: list[Any] = []
        kept: list[Kept] = []

        def body(at: int | Tensor, x: list[Tensor], given: list[Tensor]) -> list[Tensor]:
            self._run_into(nests, kept, at, refill_tensors(xs, x), refill_tensors(carry, given), back, checked)
            return [leaf for leaf in leaves(nests[-1]) if isinstance(leaf, Tensor)]

        checked = is_validation_enabled()  # by `record`, because within vmap no value can be looked at
        arguments = index, tensors_in(xs), tensors_in(carry)
        try:
            with validation_enabled(False):
                tensors = at_once(body, arguments, differs)
        except (RuntimeError, ValueError, TypeError) as error:
            nests.clear()
            tensors = self._loop(body, arguments, differs)
            warnings.warn(
                "scan: the step cannot be run for all steps at once, so they run one by one, which takes longer. It must not "
                f"branch on values, nor read them into Python (.item()). The reason given: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
        nest = nests[-1]
        out, y, packs = refill_tensors(nest, tensors)
        span = Span(self._axis, start, count, self.history)
        found = [unpacked(one, pack, span) for one, pack in zip(kept, packs, strict=True)]

        def record() -> None:
            for one, (site, log_prob) in zip(kept, found, strict=True):
                if site.observed and is_validation_enabled() and site.kind == "sample":
                    check_value(site, site.fn, site.tensor)
                hand_over(one, site, log_prob)

        return out, y, record

    def _run_into(
        self, nests: list[Any], kept: list[Kept], at: int | Tensor, x: Any, carry: Any, back: int, checked: bool
    ) -> None:
        out, y = self._run(at, carry, x, together=True, back=back)
        kept[:] = self._kept
        nests.append(
            (
                map_nest(number_as_tensor, out),
                map_nest(number_as_tensor, y),
                [packed(one.site, density=True, checked_later=checked) for one in kept],
            )
        )

    def _loop(self, body: Any, arguments: tuple[Any, ...], differs: bool) -> list[Tensor]:
        """What vmap does, step by step, for a step that vmap refuses."""
        index, xs, carry = arguments
        rows = [
            body(at, [x[i] for x in xs], [c[i] for c in carry] if differs else carry)
            for i, at in enumerate(index.tolist())
        ]
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    # -- records

    def _record_alone(self, index: int) -> None:
        """Record the sites of one step by themselves."""
        for one in self._kept:
            name = f"{one.site.name}[{index}]"
            hand_over(one, one.site.replace(name=name, step_of=one.site.name), None)


class _name(Handler):
    """Names the values of the enumerated sites of a scan by their steps."""

    def __init__(self, provenance: Provenance, owner: _Scan) -> None:
        super().__init__()
        self.provenance, self.owner, self.step = provenance, owner, 0

    def handle(self, site: Site) -> Site:
        done = perform(site)
        inside = any(m.scan is self.owner for m in site.moments)
        marked = inside and done.infer.enumerate is not None and not (site.observed or done.observed or done.drawn)
        return done.replace(value=self.provenance.name(done.tensor, f"{self.step} {site.name}")) if marked else done
