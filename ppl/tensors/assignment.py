"""Matchings of sources to destinations, each destination taking the same number of sources."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Level = tuple[list[list[int]], list[list[int]]]


def best_assignment(weights: Tensor) -> Tensor:
    """The permutation of greatest total weight: the column of each row.

    Successive shortest augmenting paths (Jonker and Volgenant 1987), O(N³), one matrix after the other on the CPU.

    Shapes: (*batch, N, N) -> (*batch, N).
    """
    size = weights.size(-1)
    flat = weights.detach().reshape(-1, size, size).cpu().double()
    found = [_assign(-matrix) for matrix in flat]
    columns = torch.tensor(found, dtype=torch.int64).reshape(weights.shape[:-1])
    return columns.to(weights.device)


def _assign(cost: Tensor) -> list[int]:
    """The columns of rows at the least total cost."""
    size = cost.size(0)
    row_price, column_price = torch.zeros(size + 1).to(cost), torch.zeros(size + 1).to(cost)
    row_of = [size] * (size + 1)  # of each column; the last column and row are a start that costs nothing
    for row in range(size):
        row_of[size] = row
        column = size
        least = torch.full((size,), torch.inf, dtype=cost.dtype)
        came_from = torch.full((size,), size)
        used = torch.zeros(size + 1, dtype=torch.bool)
        while row_of[column] != size:
            used[column] = True
            at = row_of[column]
            reduced = cost[at] - row_price[at] - column_price[:size]
            better = (reduced < least) & ~used[:size]
            least = torch.where(better, reduced, least)
            came_from = torch.where(better, column, came_from)
            open_least = torch.where(used[:size], torch.inf, least)
            column = int(open_least.argmin())
            step = open_least[column]
            for taken in used.nonzero().flatten().tolist():
                row_price[row_of[taken]] += step
            column_price[used] -= step
            least = torch.where(used[:size], least, least - step)
        while column != size:
            previous = int(came_from[column])
            row_of[column] = row_of[previous]
            column = previous
    columns = [0] * size
    for column in range(size):
        columns[row_of[column]] = column
    return columns


@functools.lru_cache(maxsize=16)
def levels(num_destinations: int, capacity: int) -> tuple[tuple[Level, ...], tuple[list[int], ...]]:
    """The states of filling destinations, by the number of sources placed: how each is reached.

    A state is a number with base capacity + 1, a digit for each destination. Returns for each level k >= 1 and state the
    positions of its predecessors in level k - 1 and the destinations taken (-1 pads), and for each level the states.
    """
    base, total = capacity + 1, num_destinations * capacity
    states: list[list[int]] = [[] for _ in range(total + 1)]
    digits: dict[int, list[int]] = {}
    for state in range(base**num_destinations):
        digits[state] = [state // base**j % base for j in range(num_destinations)]
        states[sum(digits[state])].append(state)
    made: list[Level] = []
    for k in range(1, total + 1):
        position = {state: i for i, state in enumerate(states[k - 1])}
        before, taken = [], []
        for state in states[k]:
            choices = [j for j, digit in enumerate(digits[state]) if digit]
            pad = [-1] * (num_destinations - len(choices))
            before.append([position[state - base**j] for j in choices] + [0 for _ in pad])
            taken.append(choices + pad)
        made.append((before, taken))
    return tuple(made), tuple(states)


def count(logits: Tensor, capacity: int) -> list[Tensor]:
    """The log weights of all ways into each state, by level; the last level's only entry is the log partition function.

    All terms are positive, so nothing cancels. O((capacity + 1)^N N) for N destinations.

    Shapes: logits (*batch, N * capacity, N).
    """
    made, _ = levels(logits.size(-1), capacity)
    now = torch.zeros_like(logits[..., 0, :1])
    found = [now]
    for row, (before, taken) in enumerate(made):
        index = torch.tensor(taken, device=logits.device)
        step = logits[..., row, :][..., index.clamp(min=0)]
        into = now[..., torch.tensor(before, device=logits.device)]
        now = torch.where(index >= 0, into + step, -torch.inf).logsumexp(-1)
        found.append(now)
    return found


def draw(logits: Tensor, capacity: int, sample_shape: tuple[int, ...]) -> Tensor:
    """Exact draws, from the last source back to the first: the destination of each source.

    Shapes: (*batch, S, N) -> (*sample, *batch, S).
    """
    made, _ = levels(logits.size(-1), capacity)
    found = count(logits, capacity)
    shape = (*sample_shape, *logits.shape[:-2])
    at = torch.zeros(shape, dtype=torch.int64, device=logits.device)
    drawn = []
    for row in range(len(made) - 1, -1, -1):
        before, taken = (torch.tensor(t, device=logits.device) for t in made[row])
        previous, choice = before[at], taken[at]
        here = found[row].expand((*shape, found[row].size(-1))).gather(-1, previous)
        step = logits[..., row, :].expand((*shape, logits.size(-1))).gather(-1, choice.clamp(min=0))
        noise = -torch.empty_like(step).exponential_().log()
        picked = torch.where(choice >= 0, here + step + noise, -torch.inf).argmax(-1, keepdim=True)
        drawn.append(choice.gather(-1, picked).squeeze(-1))
        at = previous.gather(-1, picked).squeeze(-1)
    return torch.stack(drawn[::-1], -1)


def bethe(logits: Tensor, capacity: int, num_iters: int) -> Tensor:
    """Bethe's approximation of the log partition function, by so many rounds of belief propagation (Vontobel 2013).

    Messages are log odds that a source takes a destination, to that edge from its source and from its destination.

    Shapes: (*batch, S, N) -> (*batch).
    """
    from_destination = torch.zeros_like(logits)
    for _ in range(num_iters):
        from_source = -_symmetric_of_others(logits + from_destination, 1)
        incoming = (logits + from_source).mT
        odds = -_symmetric_of_others(incoming, capacity)
        if capacity > 1:
            odds = odds + _symmetric_of_others(incoming, capacity - 1)
        from_destination = odds.mT
    from_source = -_symmetric_of_others(logits + from_destination, 1)
    sources = (logits + from_destination).logsumexp(-1).sum(-1)
    destinations = _symmetric((logits + from_source).mT, capacity).sum(-1)
    edges = torch.nn.functional.softplus(logits + from_source + from_destination).sum((-1, -2))
    return sources + destinations - edges


def _symmetric(logs: Tensor, degree: int) -> Tensor:
    """The log of an elementary symmetric polynomial of the exponentials over the last dim."""
    nothing = torch.full_like(logs[..., 0], -1e30)  # finite, so that gradients are
    sums = [torch.zeros_like(nothing)] + [nothing] * degree
    for entry in logs.unbind(-1):
        sums = [sums[0], *(torch.logaddexp(sums[d], sums[d - 1] + entry) for d in range(1, degree + 1))]
    return sums[degree]


def _symmetric_of_others(logs: Tensor, degree: int) -> Tensor:
    """The same for each entry, leaving it out."""
    size = logs.size(-1)
    is_self = torch.eye(size, dtype=torch.bool, device=logs.device)
    return _symmetric(torch.where(is_self, -1e30, logs.unsqueeze(-2)), degree)
