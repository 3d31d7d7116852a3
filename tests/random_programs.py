"""Random programs with discrete sites in random plates, and the sums over their joint distributions.

A `Network` is a list of nodes; `model` and `guide` run it as programs, `joint` writes its log density out as one array
with an axis for every latent entry of every plate. Nothing here uses the library's elimination.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.tensors.indexing import vindex

LARGEST = 3000  # joint states
MOST_RUNS = 16  # of a program with sequential sites


@dataclass(frozen=True)
class Node:
    """A discrete site: its table has shape (*plate sizes, *parents' cardinalities, cardinality)."""

    name: str
    size: int
    plates: tuple[int, ...]  # numbers of plates, in the order in which they are entered
    parents: tuple[str, ...]
    table: Tensor  # log weights, -inf where impossible; plates in increasing order
    mark: str | None  # None for data
    data: Tensor | None = None  # over the plates in increasing order
    mask: Tensor | None = None
    step: int | None = None  # of the markov loop, if it stands in it

    @property
    def home(self) -> tuple[int, ...]:
        return tuple(sorted(self.plates))

    def logits(self) -> Tensor:
        possible = self.table > -torch.inf
        safe = torch.where(possible, self.table, 0.0)
        weights = torch.where(possible, safe, -torch.inf)
        return weights - weights.logsumexp(-1, keepdim=True)


@dataclass(frozen=True)
class Network:
    """A random program; `guide` holds the nodes, by name, that a guide enumerates."""

    plates: tuple[int, ...]
    nodes: tuple[Node, ...]
    guide: tuple[Node, ...] = ()
    scale: float = 1.0
    history: int = 0

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def latent(self) -> list[Node]:
        return [node for node in self.nodes if node.data is None]

    def cells(self, node: Node) -> list[tuple[int, ...]]:
        """The entries of a node's plates."""
        return list(itertools.product(*(range(self.plates[p]) for p in node.home)))

    def leaves(self) -> list[Tensor]:
        """The tables, which gradients are taken by."""
        return [node.table for node in (*self.nodes, *self.guide)]

    # -- as programs

    def model(self) -> None:
        with handlers.scale(scale=self.scale) if self.scale != 1 else contextlib.nullcontext():
            self._run(self.nodes, ppl.plate)

    def run_guide(self) -> None:
        with handlers.scale(scale=self.scale) if self.scale != 1 else contextlib.nullcontext():
            self._run(self.guide, ppl.plate)

    def _run(self, nodes: tuple[Node, ...], make_plate: Any) -> None:
        plates = [make_plate(f"plate_{i}", size, dim=-1 - i) for i, size in enumerate(self.plates)]
        values: dict[str, Tensor] = {}
        for node in (n for n in nodes if n.step is None):
            self._sample(node, plates, values)
        timed = [n for n in nodes if n.step is not None]
        if timed:
            for t in ppl.markov(range(1 + max(n.step for n in timed)), history=self.history):
                for node in (n for n in timed if n.step == t):
                    self._sample(node, plates, values)

    def _sample(self, node: Node, plates: list[Any], values: dict[str, Tensor]) -> None:
        shape = self._shape(node)
        logits = node.logits().reshape(shape + node.table.shape[len(node.plates) :])
        for parent in node.parents[:-1]:
            assert parent in values
        probs = vindex(logits, (..., *(values[p].long() for p in node.parents), slice(None)))
        options: dict[str, Any] = {} if node.mark is None else {"infer": {"enumerate": node.mark}}
        with contextlib.ExitStack() as stack:
            for p in node.plates:
                stack.enter_context(plates[p])
            if node.mask is not None:
                stack.enter_context(handlers.mask(mask=node.mask.reshape(shape)))
            obs = None if node.data is None else node.data.reshape(shape)
            values[node.name] = ppl.sample(node.name, dist.Categorical(logits=probs), obs=obs, **options)

    def _shape(self, node: Node) -> tuple[int, ...]:
        """Of the node's batch, with 1 where it is in no plate."""
        width = max((p + 1 for p in node.plates), default=0)
        return tuple(self.plates[p] if p in node.plates else 1 for p in reversed(range(width)))

    def locate(self, name: str, cell: tuple[int, ...]) -> tuple[str, list[int], tuple[int, ...]]:
        """The site that an entry of a node stands in, the sizes of its plates, and the entry's place in these."""
        ordered = sorted(self.node(name).home, reverse=True)
        return name, [self.plates[p] for p in ordered], tuple(reversed(cell))

    # -- as sums over everything

    def axes(self) -> dict[tuple[str, tuple[int, ...]], int]:
        """An axis for each entry of each latent node."""
        entries = [(node.name, cell) for node in self.latent for cell in self.cells(node)]
        return {entry: axis for axis, entry in enumerate(entries)}

    def count(self) -> int:
        """How many joint states there are."""
        total = 1
        for node in self.latent:
            total *= node.size ** len(self.cells(node))
        return total

    def is_too_large(self) -> bool:
        """Too many joint states, or too many runs of the program value by value."""
        runs = 1
        for node in self.latent:
            runs *= node.size if node.mark == "sequential" else 1
        return self.count() > LARGEST or runs > MOST_RUNS

    def joint(self, nodes: tuple[Node, ...] | None = None, weigh_masked: bool = True) -> Tensor:
        """The log density of all latent entries and the data, an axis for each latent entry.

        Args: weigh_masked, whether the weights of a masked choice's values sum to 1, rather than being 1 each.
        """
        sizes = [self.node(name).size for name, _ in self.axes()]
        choices = [entry for entry in self.axes() if self.node(entry[0]).size > 1]  # torch's sums see 64 dims at most
        axes = {entry: axis for axis, entry in enumerate(choices)}
        total = torch.zeros((1,) * len(axes), dtype=torch.float64)
        for node in self.nodes if nodes is None else nodes:
            logits = node.logits()
            for cell in self.cells(node):
                total = total + self._entry(node, logits, cell, axes, weigh_masked)
        return total.expand([self.node(name).size for name, _ in choices]).reshape(sizes)

    def _entry(
        self, node: Node, logits: Tensor, cell: tuple[int, ...], axes: dict[Any, int], weigh_masked: bool = True
    ) -> Tensor:
        """One entry's log density, with its dims on the right axes; what has no axis has one value."""
        ordered = sorted(node.home, reverse=True)  # the table's plates go from the left, the highest number first
        where = dict(zip(node.home, cell, strict=True))
        entry = logits[tuple(where[p] for p in ordered)]
        names = []
        for parent in node.parents:
            other = self.node(parent)
            names.append((parent, tuple(where[p] for p in other.home)))
        mask = True if node.mask is None else bool(node.mask[tuple(where[p] for p in ordered)])
        if node.data is not None:
            entry = entry[..., int(node.data[tuple(where[p] for p in ordered)])]
            if not mask:
                entry = torch.zeros_like(entry)
        else:
            names.append((node.name, cell))
            if not mask:
                entry = torch.zeros_like(entry) - torch.tensor(float(node.size if weigh_masked else 1)).log()
        has_axis = [name in axes for name in names]
        entry = entry.reshape([size for size, has in zip(entry.shape, has_axis, strict=True) if has])
        dims = [axes[name] for name in names if name in axes]
        order = sorted(range(len(dims)), key=dims.__getitem__)
        entry = entry.permute(order)
        shape = [1] * len(axes)
        for position, size in zip(sorted(dims), entry.shape, strict=True):
            shape[position] = size
        return entry.reshape(shape)

    def evidence(self) -> Tensor:
        """The log density of the data."""
        joint = self.joint()
        return joint.reshape(-1).logsumexp(0) if joint.dim() else joint

    def elbo(self) -> Tensor:
        """E_q[log Σ p - log q], with the guide's nodes averaged and the others summed."""
        named = {node.name for node in self.guide}
        axes = self.axes()
        others = [axis for (name, _), axis in axes.items() if name not in named]
        log_p = self.joint()
        log_p = log_sum(log_p, others) if others else log_p
        log_q = torch.zeros((1,) * len(axes), dtype=torch.float64)
        for node in self.guide:
            logits = node.logits()
            for cell in self.cells(node):
                log_q = log_q + self._entry(node, logits, cell, axes)
        q = log_q.exp()
        log_p = log_p.expand(torch.broadcast_shapes(log_p.shape, q.shape))
        inside = (q > 0).expand(log_p.shape)
        gap = torch.where(inside, log_p, 0.0) - torch.where(inside, log_q.expand(log_p.shape), 0.0)
        return self.scale * (q * gap).sum()

    def marginal(self, name: str, cell: tuple[int, ...]) -> Tensor:
        """The posterior probabilities of one entry."""
        axis = self.axes()[name, cell]
        joint = self.joint()
        others = [i for i in range(joint.dim()) if i != axis]
        log = joint.logsumexp(others) if others else joint
        return log.softmax(0)


def log_sum(log: Tensor, dims: list[int]) -> Tensor:
    """torch.logsumexp with dims kept, whose gradients are zero and not NaN where all is impossible."""
    top = log.detach().amax(dims, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    total = (log - top).exp().sum(dims, keepdim=True)
    return torch.where(total > 0, torch.where(total > 0, total, 1.0).log() + top, -torch.inf)


@dataclass
class Choices:
    """Makes a network of a stream of small decisions."""

    rng: random.Random
    sparse: bool = False  # some entries impossible
    generator: torch.Generator = field(default_factory=torch.Generator)

    def network(self, time: bool = False) -> Network:
        self.generator.manual_seed(self.rng.getrandbits(32))
        rng = self.rng
        plates = tuple(rng.randint(1, 3) for _ in range(rng.randint(0, 3)))
        marks = rng.choice([["parallel"], ["parallel"], ["sequential"], ["parallel", "sequential"]])
        latents: list[Node] = []
        nodes: list[Node] = []
        for number in range(rng.randint(1, 6)):
            home = self._home(len(plates))
            fit = [n for n in latents if set(n.plates) <= set(home)]
            parents = tuple(n.name for n in rng.sample(fit, min(len(fit), rng.randint(0, 2))))
            node = self._node(f"z{number}", rng.randint(1, 4), home, parents, nodes, plates, rng.choice(marks))
            if Network(plates, (*nodes, node)).is_too_large():
                continue
            latents.append(node)
            nodes.append(node)
        for number in range(rng.randint(1, 3)):
            home = self._home(len(plates))
            fit = [n for n in latents if set(n.plates) <= set(home)]
            parents = tuple(n.name for n in rng.sample(fit, min(len(fit), rng.randint(0, 2))))
            nodes.append(self._node(f"x{number}", rng.randint(1, 4), home, parents, nodes, plates, None))
        history = 0
        if time:
            history = rng.randint(1, 2)
            nodes += self._chain(nodes, plates, history, marks[0])
        scale = rng.choice([1.0, 1.0, 2.5])
        return Network(plates, tuple(nodes), scale=scale, history=history)

    def _chain(self, nodes: list[Node], plates: tuple[int, ...], history: int, mark: str) -> list[Node]:
        rng = self.rng
        home = self._home(len(plates))
        size = rng.randint(1, 3)
        fit = [n.name for n in nodes if n.data is None and set(n.plates) <= set(home)]
        root = tuple(rng.sample(fit, min(len(fit), rng.randint(0, 1))))
        found: list[Node] = []
        names: list[str] = []
        for t in range(rng.randint(1, 5)):
            parents = (*root, *names[-history:])
            state = self._node(f"s{t}", size, home, parents, [*nodes, *found], plates, mark, t)
            if Network(plates, (*nodes, *found, state)).is_too_large():
                break
            names.append(state.name)
            found.append(state)
            found.append(self._node(f"y{t}", 3, home, (state.name,), [*nodes, *found], plates, None, t))
        return found

    def with_guide(self, network: Network) -> Network:
        """Some latent nodes get a guide, with tables and parents of its own."""
        rng = self.rng
        picked = [n for n in network.latent if n.step is None and rng.random() < 0.6]
        rng.shuffle(picked)
        guide: list[Node] = []
        for node in picked:
            fit = [n for n in guide if set(n.plates) <= set(node.plates)]
            parents = tuple(n.name for n in rng.sample(fit, min(len(fit), rng.randint(0, 1))))
            made = self._node(node.name, node.size, node.plates, parents, guide, network.plates, node.mark)
            guide.append(Node(**{**vars(made), "mask": None}))
        unmasked = {n.name for n in guide}
        nodes = tuple(Node(**{**vars(n), "mask": None}) if n.name in unmasked else n for n in network.nodes)
        return Network(network.plates, nodes, tuple(guide), network.scale, network.history)

    def _home(self, count: int) -> tuple[int, ...]:
        return tuple(self.rng.sample(range(count), self.rng.randint(0, count)))

    def _node(
        self,
        name: str,
        size: int,
        home: tuple[int, ...],
        parents: tuple[str, ...],
        nodes: list[Node],
        plates: tuple[int, ...],
        mark: str | None,
        step: int | None = None,
    ) -> Node:
        known = {n.name: n.size for n in nodes}
        batch = [plates[p] for p in sorted(home, reverse=True)]
        shape = (*batch, *(known[p] for p in parents), size)
        table = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        if self.sparse and size > 1:
            lost = torch.rand(shape, generator=self.generator) < 0.25
            lost[..., self.rng.randrange(size)] = False
            table = table.masked_fill(lost, -torch.inf)
        data = None if mark else torch.randint(size, batch, generator=self.generator)
        mask = torch.rand(batch, generator=self.generator) < 0.7 if self.rng.random() < 0.25 else None
        table.requires_grad_()
        return Node(name, size, home, parents, table, mark, data, mask, step)


def network(seed: int, time: bool = False, guided: bool = False, sparse: bool = False) -> Network:
    """The random network of a seed."""
    choices = Choices(random.Random(seed), sparse)
    made = choices.network(time)
    return choices.with_guide(made) if guided else made
