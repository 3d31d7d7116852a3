"""Random spanning trees of complete graphs."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions.constraints import Constraint

from ppl.distributions import constraints
from ppl.distributions.distribution import ShapeLike
from ppl.distributions.family import Family

_MOST_ENUMERATED = 6


class SpanningTreeConstraint(Constraint):
    """Spanning trees of `num_vertices` vertices, as (V - 1, 2) tensors of the edges' ends."""

    is_discrete = True
    event_dim = 2

    def __init__(self, num_vertices: int) -> None:
        self.num_vertices = num_vertices
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether edges have distinct ends among the vertices and connect all of them."""
        v = self.num_vertices
        if value.shape[-2:] != (v - 1, 2):
            return torch.zeros(value.shape[:-2], dtype=torch.bool, device=value.device)
        inside = ((value >= 0) & (value < v) & (value == value.round() if value.is_floating_point() else True)).all(-1)
        ends = torch.where(inside.unsqueeze(-1), value, 0).long()
        one, two = ends.unbind(-1)
        vertices = torch.arange(v, device=value.device)
        joined = ((one.unsqueeze(-1) == vertices).unsqueeze(-1) & (two.unsqueeze(-1) == vertices).unsqueeze(-2)).any(-3)
        return inside.all(-1) & _reachable(joined | joined.mT)[..., 0, :].all(-1)  # V - 1 edges connect: no cycle

    def __repr__(self) -> str:
        return f"SpanningTreeConstraint({self.num_vertices})"


class SpanningTree(Family):
    """A spanning tree of the complete graph of V vertices, with probability proportional to the product of its edges'
    weights exp(edge_logits).

    A draw lists the edges as pairs (i, j), i < j, in the order of `edge_logits`: (0, 1), (0, 2), (1, 2), (0, 3), …, which
    is the strict lower triangle row by row, edge (i, j) at i + j (j - 1) / 2.

    The partition function eliminates one vertex after the other (the star-mesh transform, which is Gauss elimination of
    the Laplacian in the matrix-tree theorem) in log space, with additions only, so that it is accurate for all logits.
    The sampler undoes the eliminations: exact, without loops on values.

    Shapes: edge_logits (*batch, V (V - 1) / 2); value (*batch, V - 1, 2).
    Args: sampler_options, accepted for the sake of other libraries' programs, and not needed.
    """

    arg_constraints = {"edge_logits": constraints.real_vector}
    has_enumerate_support = True
    edge_logits: Tensor

    def __init__(
        self,
        edge_logits: Tensor,
        sampler_options: dict[str, Any] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        edges = edge_logits.size(-1) if edge_logits.dim() else 0
        self.num_vertices = round(0.5 + (0.25 + 2 * edges) ** 0.5)
        if edges == 0 or self.num_vertices * (self.num_vertices - 1) // 2 != edges:
            raise ValueError(
                "SpanningTree: the last dim of edge_logits must have V (V - 1) / 2 entries for V >= 2 vertices, but its "
                f"shape is {tuple(edge_logits.shape)}."
            )
        self.sampler_options = sampler_options
        self._take({"edge_logits": edge_logits}, (self.num_vertices - 1, 2), validate_args)

    @classmethod
    def infer_shapes(cls, **arg_shapes: ShapeLike) -> tuple[Size, Size]:
        shape = Size(arg_shapes["edge_logits"])
        return shape[:-1], Size((round(0.5 + (0.25 + 2 * shape[-1]) ** 0.5) - 1, 2))

    @property
    def support(self) -> Any:
        return SpanningTreeConstraint(self.num_vertices)

    @property
    def log_partition_function(self) -> Tensor:
        """The log of the sum over all trees of the products of their weights."""
        return _eliminate(self._matrix(self.edge_logits))[1]

    @property
    def edge_mean(self) -> Tensor:
        """The probability of each edge, as a symmetric (V, V) matrix with a diagonal of 0."""

        def total(logits: Tensor) -> Tensor:
            return _eliminate(self._matrix(logits))[1].sum()

        marginals: Tensor = torch.func.grad(total)(self.edge_logits)
        matrix = self._matrix(marginals)
        return torch.where(torch.eye(self.num_vertices, dtype=torch.bool, device=matrix.device), 0.0, matrix)

    def _ends(self) -> tuple[Tensor, Tensor]:
        """The ends (i, j), i < j, of the edges in order."""
        pairs = [(i, j) for j in range(self.num_vertices) for i in range(j)]
        one, two = torch.tensor(pairs, device=self.edge_logits.device).unbind(-1)
        return one, two

    def _matrix(self, per_edge: Tensor) -> Tensor:
        """A symmetric matrix of the edges' values; the diagonal is of no account."""
        v = torch.arange(self.num_vertices, device=per_edge.device)
        low, high = torch.minimum(v, v.unsqueeze(-1)), torch.maximum(v, v.unsqueeze(-1))
        edge = torch.where(low == high, 0, low + high * (high - 1) // 2)
        return per_edge[..., edge]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        is_tree = self.support.check(value)
        ends = torch.where(is_tree.unsqueeze(-1).unsqueeze(-1), value.long(), 0)
        low, high = ends.amin(-1), ends.amax(-1)
        edge = torch.where(low == high, 0, low + high * (high - 1) // 2)
        shape = torch.broadcast_shapes(edge.shape[:-1], self.batch_shape)
        logits = self.edge_logits.expand((*shape, self.edge_logits.size(-1)))
        chosen = logits.gather(-1, edge.expand((*shape, edge.size(-1))))
        return torch.where(is_tree, chosen.sum(-1) - self.log_partition_function, -torch.inf)

    def sample(self, sample_shape: ShapeLike = Size()) -> Tensor:
        """Draw: eliminate vertices, draw the tree of the two that remain, and put the others back one by one.

        A new vertex replaces the edges that were made by its elimination; each connected part that their removal leaves
        is tied to it by one edge.
        """
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            logits = self.edge_logits.expand((*shape, self.edge_logits.size(-1)))
            stages, _ = _eliminate(self._matrix(logits))
            v = self.num_vertices
            tree = torch.zeros((*shape, v, v), dtype=torch.bool, device=logits.device)
            for vertex in range(1, v):
                before, after = stages[vertex], stages[vertex - 1] if vertex > 1 else stages[vertex]
                kept = tree[..., :vertex, :vertex]
                if vertex > 1:
                    own = before[..., :vertex, :vertex] - after[..., :vertex, :vertex]
                    uniform = torch.rand_like(own).triu(1)
                    kept = kept & ((uniform + uniform.mT).log() < own)
                noise = -torch.empty_like(logits[..., :vertex]).exponential_().log() + before[..., vertex, :vertex]
                top = torch.where(_reachable(kept), noise.unsqueeze(-2), -torch.inf).amax(-1)
                tied = noise >= top
                tree = torch.zeros_like(tree)
                tree[..., :vertex, :vertex] = kept
                tree[..., vertex, :vertex] = tied
                tree[..., :vertex, vertex] = tied
            one, two = self._ends()
            present = tree[..., one, two].to(torch.uint8)
            edge = present.sort(dim=-1, descending=True, stable=True).indices[..., : v - 1]
            return torch.stack([one[edge], two[edge]], -1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All trees, by their Prüfer codes, in lexicographic order of their edges.

        Raises: ValueError for more than 6 vertices: there are V^(V - 2) trees.
        """
        v = self.num_vertices
        if v > _MOST_ENUMERATED:
            raise ValueError(
                f"SpanningTree of {v} vertices has {v ** (v - 2)} values, too many to enumerate; at most "
                f"{_MOST_ENUMERATED} vertices are. Draw samples instead."
            )
        trees = sorted(_decode(code, v) for code in itertools.product(range(v), repeat=v - 2))
        values = torch.tensor([[(i, j) for j, i in tree] for tree in trees], device=self.edge_logits.device)
        values = values.reshape((-1, *(1 for _ in self.batch_shape), v - 1, 2))
        return values.expand((-1, *self.batch_shape, v - 1, 2)) if expand else values

    @property
    def mode(self) -> Tensor:
        """The tree of greatest weight, grown from vertex 0 (Prim's algorithm)."""
        with torch.no_grad():
            v, weights = self.num_vertices, self._matrix(self.edge_logits)
            inside = torch.zeros((*self.batch_shape, v), dtype=torch.bool, device=weights.device)
            inside[..., 0] = True
            edges = []
            for _ in range(v - 1):
                leaving = inside.unsqueeze(-1) & ~inside.unsqueeze(-2)
                best = torch.where(leaving, weights, -torch.inf).flatten(-2).argmax(-1)
                one, two = best // v, best % v
                inside = inside | (torch.arange(v, device=weights.device) == two.unsqueeze(-1))
                low, high = torch.minimum(one, two), torch.maximum(one, two)
                edges.append(low + high * (high - 1) // 2)
            edge = torch.stack(edges, -1).sort(-1).values
            first, second = self._ends()
            return torch.stack([first[edge], second[edge]], -1)

    def entropy(self) -> Tensor:
        """The entropy, from the edges' probabilities."""
        one, two = self._ends()
        marginals = self.edge_mean[..., one, two]
        return self.log_partition_function - (marginals * self.edge_logits).sum(-1)


def _eliminate(log_weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """Eliminate vertices from the last on: the log weights between the vertices 0 … k at index k, and the log partition."""
    size = log_weights.size(-1)
    stages = [log_weights] * size
    total = torch.zeros_like(log_weights[..., 0, 0])
    for vertex in range(size - 1, 0, -1):
        star = log_weights[..., vertex, :vertex]
        degree = star.logsumexp(-1)
        total = total + degree
        mesh = star.unsqueeze(-1) + star.unsqueeze(-2) - degree.unsqueeze(-1).unsqueeze(-1)
        log_weights = torch.logaddexp(log_weights[..., :vertex, :vertex], mesh)
        stages[vertex - 1] = log_weights
    return stages, total


def _reachable(adjacent: Tensor) -> Tensor:
    """Which vertices are connected, from a symmetric matrix of which are adjacent."""
    size = adjacent.size(-1)
    reach = (adjacent | torch.eye(size, dtype=torch.bool, device=adjacent.device)).float()
    for _ in range(max(size - 1, 1).bit_length()):
        reach = ((reach @ reach) > 0).float()
    return reach > 0


def _decode(code: tuple[int, ...], size: int) -> list[tuple[int, int]]:
    """The edges (j, i), i < j, of the tree with a Prüfer code."""
    degree = [1 + code.count(i) for i in range(size)]
    leaves = [i for i in range(size) if degree[i] == 1]
    heapq.heapify(leaves)
    edges = []
    for vertex in code:
        leaf = heapq.heappop(leaves)
        edges.append((max(leaf, vertex), min(leaf, vertex)))
        degree[vertex] -= 1
        if degree[vertex] == 1:
            heapq.heappush(leaves, vertex)
    one, two = heapq.heappop(leaves), heapq.heappop(leaves)
    edges.append((max(one, two), min(one, two)))
    return sorted(edges)
