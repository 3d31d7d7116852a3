"""Repeat a step over time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl.distributions.distribution import Distribution
from ppl.distributions.steps import MixedSteps, Steps, take_apart
from ppl.distributions.validation import is_validation_enabled, validation_enabled
from ppl.site import Moment, Site, Span
from ppl.stack import Handler, check_value, perform
from ppl.tensors.nest import leaves, map_nest, refill
from ppl.tensors.provenance import Provenance
from ppl.trace import log_density

Step = Callable[[Any, Any], tuple[Any, Any]]
Recorder = Callable[..., None]
Body = Callable[[Any, list[Tensor], list[Tensor]], list[Tensor]]


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


class _Kept(NamedTuple):
    """A site that a recorder waits for."""

    add: Recorder
    site: Site


class _Scan(Handler):
    """Runs the steps, and tells each of their sites which step it belongs to."""

    def __init__(self, step: Step, xs: Any, length: int, history: int) -> None:
        super().__init__()
        self.step, self.xs, self.length, self.history = step, xs, length, history
        self._moment: Moment | None = None
        self._recording = True
        self._kept: list[_Kept] = []
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
        self._kept.append(_Kept(add, site))

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
        self._record(rows, 0)
        return carry, _stacked(ys)

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
            return carry, _stacked(ys)
        before = self._moved(init, carry) if first == 1 else None
        if before is None:
            before = self._approach(init, first)
        out, rest, record = self._all(first, before, False)
        if not _is_steady(out, carry):
            out, rest, record = self._all(first, self._carries(init, first), True)
        record()
        last = map_nest(lambda leaf: leaf[-1] if isinstance(leaf, Tensor) else leaf, out)
        return last, _joined(ys, rest)

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
        carry, path = map_nest(_tensor, init), []
        for index in range(self.length - self.history):
            path.append(carry)
            carry, _ = self._run(index, carry, self._x(index), back=far)
            carry = map_nest(_tensor, carry)
        carries: Any = _stacked([path[index] for index in range(first - self.history, self.length - self.history)])
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
        index = torch.arange(start, start + count, device=_device(carry, xs))
        nests: list[Any] = []
        kept: list[_Kept] = []

        def body(at: int | Tensor, x: list[Tensor], given: list[Tensor]) -> list[Tensor]:
            self._run_into(nests, kept, at, refill_tensors(xs, x), refill_tensors(carry, given), back)
            return [leaf for leaf in leaves(nests[-1]) if isinstance(leaf, Tensor)]

        arguments = index, _tensors(xs), _tensors(carry)
        try:
            with validation_enabled(False):
                tensors = _at_once(body, arguments, differs)
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
        found = [_unpacked(one, pack, span) for one, pack in zip(kept, packs, strict=True)]

        def record() -> None:
            for one, (site, log_prob) in zip(kept, found, strict=True):
                if site.observed and is_validation_enabled() and site.kind == "sample":
                    check_value(site, site.fn, site.tensor)
                _hand_over(one, site, log_prob)

        return out, y, record

    def _run_into(self, nests: list[Any], kept: list[_Kept], at: int | Tensor, x: Any, carry: Any, back: int) -> None:
        out, y = self._run(at, carry, x, together=True, back=back)
        kept[:] = self._kept
        nests.append((map_nest(_tensor, out), map_nest(_tensor, y), [_packed(one.site, density=True) for one in kept]))

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
            _hand_over(one, one.site.replace(name=name, step_of=one.site.name), None)

    def _record(self, rows: list[list[_Kept]], start: int) -> None:
        """Record the sites of steps that ran one after another as one site each."""
        names = [[one.site.name for one in row] for row in rows]
        for index, row in enumerate(names):
            if row != names[0]:
                raise ValueError(
                    f"scan: the step has sites {names[0]} at step 0, but {row} at step {index}. Every step must have the same "
                    "sites; mask those that a step does not need with handlers.mask."
                )
        for steps in zip(*rows, strict=True):
            packs = [_packed(one.site, density=False) for one in steps]
            whole = [
                [_shape(leaf) for leaf in leaves(pack[1:])] + _law_shapes(one.site)
                for pack, one in zip(packs, steps, strict=True)
            ]
            for index, shape in enumerate(whole):
                if shape != whole[0]:
                    raise ValueError(
                        f"scan: {steps[0].site} has another shape at step {index} ({_shapes(steps[index].site)}) than at step 0 "
                        f"({_shapes(steps[0].site)}). Give `init` the shape that the carry has later."
                    )
            laws = [one.site.distribution for one in steps]
            parts = [[type(law), *map(_shape, pack[0])] for law, pack in zip(laws, packs, strict=True)]
            mixed = [law for law in laws if law is not None] if any(part != parts[0] for part in parts) else []
            if mixed:
                packs = [[[], *pack[1:]] for pack in packs]
            columns = zip(*([leaf for leaf in leaves(pack) if isinstance(leaf, Tensor)] for pack in packs), strict=True)
            tensors = [
                column[0].expand(len(rows), *column[0].shape)
                if all(t is column[0] for t in column)
                else torch.stack(column)
                for column in columns
            ]
            span = Span(self._axis, start, len(rows), self.history)
            site, log_prob = _unpacked(steps[-1], refill_tensors(packs[-1], tensors), span, mixed)
            _hand_over(steps[-1], site, log_prob)


def _at_once(body: Body, arguments: tuple[Tensor, list[Tensor], list[Tensor]], differs: bool) -> list[Tensor]:
    """What the body gives for all steps, steps first; what does not differ between steps is repeated without copying."""
    alike: list[Tensor | None] = []

    def batched(at: Tensor, x: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        found = body(at, x, given)
        differing = [torch._C._functorch.is_batchedtensor(tensor) for tensor in found]
        alike[:] = [None if own else tensor for tensor, own in zip(found, differing, strict=True)]
        return [at, *(tensor for tensor, own in zip(found, differing, strict=True) if own)]

    dims = (0, 0, 0 if differs else None)
    at, *tensors = torch.vmap(batched, dims, randomness="different")(*arguments)
    rest = iter(tensors)
    return [next(rest) if tensor is None else tensor.expand(len(at), *tensor.shape) for tensor in alike]


def _hand_over(one: _Kept, site: Site, log_prob: Tensor | None) -> None:
    """Give a site to its recorder, or to the scan around this one, which keeps it until its own steps are there."""
    outer = one.site.moments[:-1]
    if outer:
        outer[-1].keep(one.add, site.replace(moments=outer))
    else:
        one.add(site.replace(moments=()), log_prob)


# What of a recorded site is tensors: its distribution's, its value, mask, scale and log density.


def _packed(site: Site, density: bool) -> list[Any]:
    d, value = site.distribution, site.tensor
    event = len(d.event_shape) if d is not None else 0
    rank = max(len(d.batch_shape) if d is not None else 0, value.dim() - event)
    value = value.reshape((1,) * (rank + event - value.dim()) + value.shape)
    log_prob = log_density(site) if density and site.kind == "sample" else None
    mask = site.mask if not isinstance(site.mask, Tensor) else _padded(site.mask, rank)
    scale = site.scale if not isinstance(site.scale, Tensor) or not site.scale.dim() else _padded(site.scale, rank)
    return [take_apart(d)[0] if d is not None else [], value, mask, scale, log_prob]


def _unpacked(
    one: _Kept, pack: list[Any], span: Span, mixed: Sequence[Distribution] = ()
) -> tuple[Site, Tensor | None]:
    """A site and its log density. Args: mixed, the steps' distributions where they are not of one kind."""
    tensors, value, mask, scale, log_prob = pack
    d = one.site.distribution
    if d is not None:
        rank = value.dim() - 1 - len(d.event_shape)
        d = MixedSteps(mixed, rank) if mixed else Steps(d, tensors, span.size, rank)
    spans = (span, *one.site.spans)
    site = one.site.replace(distribution=d, value=value, mask=mask, scale=scale, spans=spans)
    return site, log_prob


def _law_shapes(site: Site) -> list[Any]:
    return [] if site.distribution is None else [site.distribution.batch_shape, site.distribution.event_shape]


def _shape(leaf: Any) -> Any:
    return leaf.shape if isinstance(leaf, Tensor) else None


def _padded(tensor: Tensor, rank: int) -> Tensor:
    return tensor.reshape((1,) * (rank - tensor.dim()) + tensor.shape)


def _shapes(site: Site) -> str:
    batch = f"batch {tuple(site.distribution.batch_shape)}, " if site.distribution is not None else ""
    return f"{batch}value {tuple(site.tensor.shape)}"


# Nests of tensors.


def _tensor(leaf: Any) -> Any:
    """A number as a tensor, because it may be another one at another step."""
    return torch.as_tensor(leaf) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool) else leaf


def _tensors(nest: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(nest) if isinstance(leaf, Tensor)]


def refill_tensors(nest: Any, tensors: Any) -> Any:
    """A nest with its tensors replaced, in order; what is no tensor stays."""
    new = iter(tensors)
    return map_nest(lambda leaf: next(new) if isinstance(leaf, Tensor) else leaf, nest)


def _device(*nests: Any) -> torch.device | None:
    return next((t.device for nest in nests for t in _tensors(nest)), None)


def _stacked(nests: list[Any]) -> Any:
    """The leaves of many nests of one form, stacked."""
    rows = [leaves(map_nest(_tensor, nest)) for nest in nests]
    columns = []
    for column in zip(*rows, strict=True):
        if not all(isinstance(leaf, Tensor) for leaf in column):
            columns.append(column[0])
            continue
        shape = torch.broadcast_shapes(*(leaf.shape for leaf in column))
        columns.append(torch.stack([leaf.expand(shape) for leaf in column]))
    return refill(nests[0], iter(columns))


def _joined(first: list[Any], rest: Any) -> Any:
    """The ys of the first steps before those of the others."""
    if not _tensors(rest):
        return rest
    head = _stacked(first)
    rows = []
    for a, b in zip(leaves(head), leaves(rest), strict=True):
        if not isinstance(a, Tensor):
            rows.append(a)
            continue
        shape = torch.broadcast_shapes(a.shape[1:], b.shape[1:])
        rows.append(torch.cat([a.expand(len(a), *shape), b.expand(len(b), *shape)]))
    return refill(rest, iter(rows))


def _is_steady(out: Any, carry: Any) -> bool:
    """Whether the carry out of all steps is the one out of the step before them."""
    ours, known = leaves(out), leaves(map_nest(_tensor, carry))
    if len(ours) != len(known):
        raise ValueError(
            f"scan: the carry must keep its form, but has {len(known)} parts out of the first step and {len(ours)} later."
        )
    return all(_is_constant(a, b) for a, b in zip(ours, known, strict=True))


def _is_constant(stacked: Any, leaf: Any) -> bool:
    if not isinstance(stacked, Tensor) or not isinstance(leaf, Tensor):
        return stacked is leaf or bool(stacked == leaf)
    if stacked.shape[1:] != leaf.shape or stacked.dtype != leaf.dtype:
        return False
    rows = stacked[:1] if stacked.stride(0) == 0 else stacked
    return torch.equal(rows.detach(), leaf.detach().expand_as(rows))


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
