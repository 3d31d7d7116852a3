"""Random programs with a plate as a loop, a plate of which a part is seen, partly observed sites, and supports that depend.

An `Arrangement` is a `Network` with more ways to say things, and with guides that have chains and look at data.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from random_programs import LARGEST, MOST_RUNS, Choices, Network, Node
from torch import Tensor
from torch.nn.functional import logsigmoid

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.tensors.indexing import vindex


@dataclass(frozen=True)
class Piece(Node):
    """A node that may be partly observed, or a number of successes among as many trials as its parent says."""

    seen: Tensor | None = None  # where `data` are data; a latent node elsewhere
    counts: bool = False  # then the table holds logits, one for each place of the plates
    expand: bool = False

    def logits(self) -> Tensor:
        if not self.counts:
            return super().logits()
        n, k = torch.arange(float(self.size)).unsqueeze(-1), torch.arange(float(self.size))
        inside = k <= n
        rest = torch.where(inside, n - k, 0.0)
        ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(rest + 1)
        odds = self.table[..., None, None]
        return torch.where(inside, ways + k * logsigmoid(odds) + rest * logsigmoid(-odds), -torch.inf)

    def alike(self, weigh: bool) -> Tensor:
        """The log weights of a masked place, whose possible values weigh alike; `weigh`, whether the weights sum to 1."""
        like = torch.zeros_like(self.logits()).detach()
        if self.counts:
            like = like.masked_fill(self.logits() == -torch.inf, -torch.inf)
        return like.log_softmax(-1) if weigh else like


@dataclass(frozen=True)
class Arrangement(Network):
    """A network of pieces; all of them stand in plate 0 where that is subsampled."""

    loop: int | None = None  # the plate that is a loop
    whole: int = 0  # the size of plate 0, of which plates[0] are seen; 0 where it is all

    @property
    def factor(self) -> float:
        """What log densities are multiplied with."""
        return self.scale * (self.whole / self.plates[0] if self.whole else 1.0)

    @property
    def latent(self) -> list[Any]:
        return [node for node in self.nodes if node.data is None or node.seen is not None]

    # -- as programs

    def _run(self, nodes: tuple[Any, ...], make_plate: Any) -> None:
        plates = [self._plate(i) for i in range(len(self.plates))]
        values: dict[str, Tensor] = {}
        outside = [n for n in nodes if self.loop not in n.plates]
        self._statements(outside, plates, values, None)
        if len(outside) < len(nodes):
            assert self.loop is not None
            for i, _ in enumerate(plates[self.loop]):
                inside = [n for n in nodes if self.loop in n.plates]
                self._statements(inside, plates, dict(values), i)

    def _plate(self, number: int) -> ppl.plate:
        dim = None if number == self.loop else -1 - number
        if number == 0 and self.whole:
            part = torch.arange(self.whole).flip(0)[: self.plates[0]]
            return ppl.plate("plate_0", self.whole, subsample=part, dim=dim)
        return ppl.plate(f"plate_{number}", self.plates[number], dim=dim)

    def _statements(self, nodes: list[Any], plates: list[Any], values: dict[str, Tensor], at: int | None) -> None:
        for node in (n for n in nodes if n.step is None):
            self._say(node, plates, values, at)
        timed = [n for n in nodes if n.step is not None]
        if timed:
            for t in ppl.markov(range(1 + max(n.step for n in timed)), history=self.history):
                for node in (n for n in timed if n.step == t):
                    self._say(node, plates, values, at)

    def _say(self, node: Any, plates: list[Any], values: dict[str, Tensor], at: int | None) -> None:
        home = tuple(p for p in node.plates if p != self.loop)
        parents = [values[p] if p in values else self._given(self.node(p), at) for p in node.parents]
        table = self._part(node, node.table if node.counts else node.logits(), at)
        if node.counts:
            d: Any = dist.Binomial(parents[0], logits=table)
        else:
            d = dist.Categorical(logits=vindex(table, (..., *(p.long() for p in parents), slice(None))))
        name = node.name if at is None else f"{node.name}_{at}"
        with contextlib.ExitStack() as stack:
            for p in home:
                stack.enter_context(plates[p])
            if node.mask is not None:
                stack.enter_context(handlers.mask(mask=self._part(node, node.mask, at)))
            options: dict[str, Any] = {}
            if node.mark is not None:
                options["infer"] = {"enumerate": node.mark, "expand": node.expand}
            if node.data is not None:
                options["obs"] = self._given(node, at)
            if node.seen is not None:
                options["obs_mask"] = self._part(node, node.seen, at)
            values[node.name] = ppl.sample(name, d, **options)

    def _given(self, node: Any, at: int | None) -> Tensor:
        return self._part(node, node.data, at).to(torch.float64 if node.counts else torch.long)

    def _part(self, node: Node, tensor: Tensor, at: int | None) -> Tensor:
        """What belongs to a turn of the loop, with the plates on their dims."""
        ordered = sorted(node.home, reverse=True)
        rest = tensor.shape[len(ordered) :]
        if self.loop in ordered:
            tensor = tensor.select(ordered.index(self.loop), at or 0)
            ordered.remove(self.loop)
        shape = [self.plates[p] if p in ordered else 1 for p in reversed(range(max(ordered, default=-1) + 1))]
        return tensor.reshape([*shape, *rest])

    def locate(self, name: str, cell: tuple[int, ...]) -> tuple[str, list[int], tuple[int, ...]]:
        where = dict(zip(self.node(name).home, cell, strict=True))
        turn = where.pop(self.loop, None) if self.loop is not None else None
        ordered = sorted(where, reverse=True)
        site = name if turn is None else f"{name}_{turn}"
        return site, [self.plates[p] for p in ordered], tuple(where[p] for p in ordered)

    # -- as sums over everything

    def known(self, node: Any, cell: tuple[int, ...]) -> int | None:
        """The value of an entry, where it is data or the only one."""
        if node.size == 1:
            return 0
        at = tuple(reversed(cell))
        if node.data is None or (node.seen is not None and not bool(node.seen[at])):
            return None
        return int(node.data[at])

    def is_refused(self) -> bool:
        """Whether the data of some place lie outside of the support for all choices in sight there, or a guide's value does."""
        guided = {node.name for node in self.guide if node.mark == "sequential" and not node.counts}
        for node in (n for n in self.nodes if n.counts and not self._has_branches(n)):
            for cell in self.cells(node):
                own = node.size - 1 if node.name in guided else self.known(node, cell)
                seen = node.mask is None or bool(node.mask[tuple(reversed(cell))])
                if own is not None and seen and own > self._trials(node, cell):
                    return True
        return False

    def _has_branches(self, node: Any) -> bool:
        """Whether a node depends on sites that are chosen value by value, of which another one may allow the data."""
        parents = [self.node(p) for p in node.parents]
        return any((p in self.latent and p.mark == "sequential") or self._has_branches(p) for p in parents)

    def _trials(self, node: Any, cell: tuple[int, ...]) -> int:
        """The largest value in sight of the parent whose successes a node counts."""
        parent = self.node(node.parents[0])
        where = dict(zip(node.home, cell, strict=True))
        at = tuple(where[p] for p in parent.home)
        known = self.known(parent, at)
        if known is not None:
            return known
        if not parent.counts or parent.name in {n.name for n in self.guide}:
            return parent.size - 1
        # what one place of a site allows is in sight at all of them
        turn = parent.home.index(self.loop) if self.loop in parent.home else None
        return max(self._trials(parent, c) for c in self.cells(parent) if turn is None or c[turn] == at[turn])

    def axes(self) -> dict[tuple[str, tuple[int, ...]], int]:
        entries = [(n.name, cell) for n in self.latent for cell in self.cells(n) if self.known(n, cell) is None]
        return {entry: axis for axis, entry in enumerate(entries)}

    def count(self) -> int:
        total = 1
        for name, _ in self.axes():
            total *= self.node(name).size
        return total

    def joint(self, nodes: tuple[Node, ...] | None = None, weigh_masked: bool = True) -> Tensor:
        axes = self.axes()
        total = torch.zeros((1,) * len(axes), dtype=torch.float64)
        for node in self.nodes if nodes is None else nodes:
            logits = node.logits()
            for cell in self.cells(node):
                total = total + self._entry(node, logits, cell, axes, weigh_masked)
        return total.expand([self.node(name).size for name, _ in axes])

    def _entry(
        self, node: Any, logits: Tensor, cell: tuple[int, ...], axes: dict[Any, int], weigh_masked: bool = True
    ) -> Tensor:
        where = dict(zip(node.home, cell, strict=True))
        at = tuple(reversed(cell))
        own = self.known(node, cell)
        masked = node.mask is not None and not bool(node.mask[at])
        entry = (
            logits[at] if not masked else node.alike(weigh_masked)[at] if own is None else torch.zeros_like(logits[at])
        )
        places = [(p, tuple(where[i] for i in self.node(p).home)) for p in node.parents] + [(node.name, cell)]
        values = [self.known(self.node(p), c) for p, c in places[:-1]] + [own]
        for position in reversed(range(len(places))):
            value = values[position]
            if value is not None:
                entry = entry.select(position, value)
        dims = [axes[place] for place, value in zip(places, values, strict=True) if value is None]
        order = sorted(range(len(dims)), key=dims.__getitem__)
        entry = entry.permute(order)
        shape = [1] * len(axes)
        for position, size in zip(sorted(dims), entry.shape, strict=True):
            shape[position] = size
        return entry.reshape(shape)

    def elbo(self) -> Tensor:
        return super().elbo() / self.scale * self.factor


class Arranger(Choices):
    """Makes an arrangement, and a guide for it that may have chains and look at data."""

    def chain(self) -> Network:
        """One site above a chain, in few small plates, so that the chain can be long."""
        rng = self.rng
        self.generator.manual_seed(rng.getrandbits(32))
        plates = tuple(rng.randint(1, 2) for _ in range(rng.randint(0, 2)))
        top = self._node("z0", rng.randint(1, 2), self._home(len(plates)), (), [], plates, "parallel")
        history = rng.randint(1, 2)
        return Network(plates, (top, *self._chain([top], plates, history, "parallel")), history=history)

    def arrangement(self, guided: bool, chain: bool) -> Arrangement:
        rng = self.rng
        self.share = 0.1 if chain else 0.25  # of sites that are partly observed
        plain = self.chain() if chain else self.network(time=rng.random() < 0.5)
        plates = plain.plates
        self.loop = rng.randrange(len(plates)) if plates and rng.random() < 0.5 else None
        self.whole = plates[0] + rng.randint(1, 4) if plates and rng.random() < 0.3 else 0
        self.history = plain.history
        nodes: list[Any] = []
        for node in plain.nodes:
            nodes.append(self._piece(node, plain, nodes))
        made = self._made(plates, nodes, plain.scale)
        if guided:
            made = self._made(plates, *self._guided(made), plain.scale)
        return made

    def _made(self, plates: tuple[int, ...], nodes: Any, *more: Any) -> Arrangement:
        guide, scale = more if len(more) == 2 else ((), *more)
        return Arrangement(plates, tuple(nodes), tuple(guide), scale, self.history, self.loop, self.whole)

    def _piece(self, node: Node, plain: Network, nodes: list[Any]) -> Piece:
        """A node again, with what an arrangement has to add; where a part of plate 0 is seen, all stand in it.

        If it would make the joint larger than LARGEST, it is observed; if the runs more than MOST_RUNS, it is parallel.
        """
        rng = self.rng
        home = node.plates
        if self.whole and 0 not in home:
            home = (0, *home)
        parents = node.parents
        on = {n.name: n for n in nodes}
        size, counts = node.size, False
        if len(parents) == 1 and node.step is None and rng.random() < 0.5:
            size, counts = on[parents[0]].size, True
        fresh = self._node(node.name, size, home, parents, nodes, plain.plates, node.mark, node.step)
        values = {f.name: getattr(fresh, f.name) for f in fields(Node)}
        batch = fresh.table.shape[: len(home)]
        if counts:
            values["table"] = torch.randn(batch, generator=self.generator, dtype=torch.float64).requires_grad_()
        piece = Piece(**values, counts=counts, expand=rng.random() < 0.2)
        if node.mark is not None and rng.random() < self.share:  # partly observed
            data = torch.zeros(batch, dtype=torch.long)  # a value that any support has
            seen = torch.rand(batch, generator=self.generator) < 0.5
            piece = replace(piece, data=data, seen=seen)
        if node.mark == "sequential" and self._runs(plain.plates, [*nodes, piece]) > MOST_RUNS:
            piece = replace(piece, mark="parallel")
        if node.mark is not None and self._made(plain.plates, [*nodes, piece], 1.0).count() > LARGEST:
            seen = torch.ones(batch, dtype=torch.bool)  # nothing is left to sum
            piece = replace(piece, data=torch.zeros(batch, dtype=torch.long), seen=seen)
        return piece

    def _runs(self, plates: tuple[int, ...], nodes: list[Any]) -> int:
        """How often a program runs, value by value."""
        runs = 1
        for node in self._made(plates, nodes, 1.0).latent:
            turns = plates[self.loop] if self.loop is not None and self.loop in node.plates else 1
            runs *= node.size**turns if node.mark == "sequential" else 1
        return runs

    def _guided(self, model: Arrangement) -> tuple[list[Piece], list[Piece]]:
        """The model with guided nodes unmasked, and the guide."""
        rng = self.rng
        guide: list[Piece] = []
        data = [n for n in model.nodes if n.data is not None and n.seen is None]
        for node in model.nodes:
            if node.data is not None or rng.random() < (0.2 if node.step is not None else 0.4):
                continue
            fit = [n for n in guide if set(n.plates) <= set(node.plates) and (n.step is None or n.step == node.step)]
            past = [n.name for n in guide if n.step is not None and node.step is not None]
            recent = [
                n for n in past[-self.history :] if self.history and model.node(n).step >= node.step - self.history
            ]
            parents = [n.name for n in rng.sample(fit, min(len(fit), rng.randint(0, 1))) if n.name not in recent]
            looks = [n.name for n in data if set(n.plates) <= set(node.plates)]
            parents += recent + rng.sample(looks, min(len(looks), rng.randint(0, 1)))
            if node.counts and rng.random() < 0.8:  # a guide that does not count proposes what is impossible
                if not any(n.name in node.parents for n in guide):
                    continue
                parents = [*node.parents]
            made = self._node(
                node.name, node.size, node.plates, tuple(parents), [*model.nodes], model.plates, node.mark, node.step
            )
            piece = Piece(**{**vars(made), "mask": None}, expand=rng.random() < 0.2)
            if node.counts and parents == [*node.parents]:
                table = torch.randn(node.table.shape, generator=self.generator, dtype=torch.float64).requires_grad_()
                piece = replace(piece, table=table, counts=True)
            guide.append(piece)
        named = {n.name for n in guide}
        nodes = [replace(n, mask=None) if n.name in named else n for n in model.nodes]
        for i, node in enumerate(nodes):
            if node.counts and node.data is not None and node.parents[0] in named and rng.random() < 0.8:
                nodes[i] = replace(node, data=torch.zeros_like(node.data))  # which all that the guide proposes allows
        return nodes, guide


def arrangement(seed: int, guided: bool = False, chain: bool = False) -> Arrangement:
    """The random arrangement of a seed."""
    return Arranger(random.Random(seed)).arrangement(guided, chain)
