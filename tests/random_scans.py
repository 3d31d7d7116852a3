"""Random programs with a scan, and the same programs written out step by step as networks of nodes."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from typing import Any

import torch
from random_programs import LARGEST, Network, Node
from torch import Tensor

import ppl
import ppl.distributions as dist
from ppl import handlers
from ppl.tensors.indexing import vindex

Parent = tuple[str, int]  # a site's name and how many steps ago; "root" stands outside of the scan


@dataclass(frozen=True)
class Part:
    """A site of the step. Its table has shape (T, *plate, *parents' sizes, size); T is 1 where all steps share it."""

    name: str
    size: int
    in_plate: bool
    parents: tuple[Parent, ...]
    table: Tensor
    data: Tensor | None = None  # (T, *plate)
    mask: Tensor | None = None  # (T, *plate)


@dataclass(frozen=True)
class Scanned:
    """A program with one scan, in a plate or with a plate in it."""

    length: int
    history: int
    plate: int  # its size; 0 for none
    parts: tuple[Part, ...]
    root: Node | None
    after: Node | None
    scale: float

    def leaves(self) -> list[Tensor]:
        """What gradients are taken by."""
        return [p.table for p in self.parts] + [n.table for n in (self.root, self.after) if n is not None]

    def part(self, name: str) -> Part:
        return next(p for p in self.parts if p.name == name)

    # -- as a program

    def model(self) -> None:
        with handlers.scale(scale=self.scale) if self.scale != 1 else contextlib.nullcontext():
            self._model()

    def _model(self) -> None:
        values: dict[str, Tensor] = {}
        if self.root is not None:
            logits = self.root.logits()
            values["root"] = ppl.sample("root", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

        def step(carry: Any, x: Any) -> Any:
            past = {(name, lag): carry[lag - 1][name] for lag in range(1, self.history + 1) for name in carry[0]}
            now: dict[str, Tensor] = {}
            for part, (table, data, mask) in zip(self.parts, x, strict=True):
                if table is None:
                    table = part.table[0]
                now[part.name] = self._sample(
                    part, table, data, mask, {**past, **{(n, 0): v for n, v in now.items()}}, values
                )
            latent = {name: now[name] for name in carry[0]}
            return [latent, *carry[:-1]], None

        zero = {p.name: torch.zeros((), dtype=torch.long) for p in self.parts if p.data is None}
        xs = [(p.table if len(p.table) > 1 or self.length == 1 else None, p.data, p.mask) for p in self.parts]
        carry, _ = ppl.scan(step, [zero] * self.history, xs, length=self.length, history=self.history)
        if self.after is not None:
            (parent,) = self.after.parents
            value = carry[0][parent.split("[")[0]]
            with ppl.plate("plate_0", self.plate, dim=-1) if self.after.plates else contextlib.nullcontext():
                probs = vindex(self.after.logits(), (..., value.long(), slice(None)))
                ppl.sample("after", dist.Categorical(logits=probs), obs=self.after.data)

    def _sample(
        self, part: Part, table: Tensor, data: Tensor | None, mask: Tensor | None, known: Any, outside: Any
    ) -> Tensor:
        logits = table - table.logsumexp(-1, keepdim=True)
        index = [outside["root"] if name == "root" else known[name, lag] for name, lag in part.parents]
        probs = vindex(logits, (..., *(i.long() for i in index), slice(None)))
        with contextlib.ExitStack() as stack:
            if part.in_plate:
                stack.enter_context(ppl.plate("plate_0", self.plate, dim=-1))
            if mask is not None:
                stack.enter_context(handlers.mask(mask=mask))
            options: dict[str, Any] = {} if data is not None else {"infer": {"enumerate": "parallel"}}
            return ppl.sample(part.name, dist.Categorical(logits=probs), obs=data, **options)

    # -- written out

    def network(self) -> Network:
        nodes = [] if self.root is None else [self.root]
        for t in range(self.length):
            nodes += [self._node(part, t) for part in self.parts]
        if self.after is not None:
            nodes.append(self.after)
        return Network((self.plate,) if self.plate else (), tuple(nodes), scale=self.scale)

    def _node(self, part: Part, t: int) -> Node:
        table = part.table[t if len(part.table) > 1 else 0]
        parents = []
        dim = int(part.in_plate)
        for name, lag in part.parents:
            if name == "root":
                parents.append("root")
                dim += 1
            elif t - lag < 0:
                table = table.select(dim, 0)
            else:
                parents.append(f"{name}[{t - lag}]")
                dim += 1
        data, mask = (None if x is None else x[t] for x in (part.data, part.mask))
        mark = "parallel" if data is None else None
        plates = (0,) if part.in_plate else ()
        return Node(f"{part.name}[{t}]", part.size, plates, tuple(parents), table, mark, data, mask)


def scanned(seed: int) -> Scanned:
    """The random program of a seed."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    while True:
        made = _made(rng, generator)
        if made.network().count() <= LARGEST:
            return made


def _made(rng: random.Random, generator: torch.Generator) -> Scanned:
    history = rng.choice([1, 1, 1, 2])
    length, plate = rng.randint(1, 6), rng.choice([0, 0, 1, 2, 3])
    sparse = rng.random() < 0.3

    def table(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if sparse and shape[-1] > 1:
            lost = torch.rand(shape, generator=generator) < 0.25
            lost[..., 0] = False
            values = values.masked_fill(lost, -torch.inf)
        return values.requires_grad_()

    root = None
    if rng.random() < 0.4:
        size = rng.randint(2, 3)
        root = Node("root", size, (), (), table(size), "parallel")
    parts: list[Part] = []
    for number in range(rng.randint(1, 3)):
        in_plate = bool(plate) and rng.random() < 0.6
        parts.append(_part(rng, generator, table, f"s{number}", None, parts, in_plate, length, plate, history, root))
    for number in range(rng.randint(0, 2)):
        in_plate = bool(plate) and rng.random() < 0.6
        parts.append(_part(rng, generator, table, f"y{number}", True, parts, in_plate, length, plate, history, root))
    after = None
    if rng.random() < 0.4:
        parent = rng.choice([p for p in parts if p.data is None])
        batch = (plate,) if parent.in_plate else ()
        data = torch.randint(3, batch, generator=generator)
        values = table(*batch, parent.size, 3)
        after = Node("after", 3, (0,) if batch else (), (f"{parent.name}[{length - 1}]",), values, None, data)
    return Scanned(length, history, plate, tuple(parts), root, after, rng.choice([1.0, 1.0, 2.5]))


def _part(
    rng: random.Random,
    generator: torch.Generator,
    table: Any,
    name: str,
    observed: bool | None,
    parts: list[Part],
    in_plate: bool,
    length: int,
    plate: int,
    history: int,
    root: Node | None,
) -> Part:
    size = rng.randint(1, 3) if not observed else 3
    fit = [p for p in parts if p.data is None and p.in_plate <= in_plate]
    sizes = {p.name: p.size for p in fit}
    candidates: list[Parent] = [(p.name, lag) for p in fit for lag in range(history + 1)]
    if not observed:
        candidates += [(name, lag) for lag in range(1, history + 1)] * 2
        sizes[name] = size
    if root is not None:
        candidates.append(("root", 0))
        sizes["root"] = root.size
    parents = tuple(dict.fromkeys(rng.sample(candidates, min(len(candidates), rng.randint(0, 2)))))
    batch = (plate,) if in_plate else ()
    steps = rng.choice([1, length])
    values = table(steps, *batch, *(sizes[p] for p, _ in parents), size)
    data = torch.randint(size, (length, *batch), generator=generator) if observed else None
    mask = torch.rand((length, *batch), generator=generator) < 0.7 if rng.random() < 0.25 else None
    return Part(name, size, in_plate, parents, values, data, mask)
