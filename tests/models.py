"""The model zoo: small named cases, each with a model, a guide, data, and an answer computed without the library.

`Case.elbo(store)` is the exact bound as a function of the parameters in a store, differentiable: from closed forms,
one-dimensional quadrature, or a sum over all values of the discrete sites, written out by hand with plain torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.distributions import constraints

import ppl
import ppl.distributions as dist
from ppl.handlers import condition, mask, scale, trace

torch.set_default_dtype(torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values)


# -- exact expectations

NODES, WEIGHTS = (torch.from_numpy(x) for x in numpy.polynomial.hermite_e.hermegauss(80))


def gauss(function: Callable[[Tensor], Tensor], loc: Tensor, sd: Tensor) -> Tensor:
    """E f(x) for x normal, entry by entry, by quadrature."""
    x = loc.unsqueeze(-1) + sd.unsqueeze(-1) * NODES
    return (function(x) * WEIGHTS).sum(-1) / math.sqrt(2 * math.pi)


def normal_term(x: Tensor | float, mean: Tensor | float, sd: Tensor | float, variance: Tensor | float = 0.0) -> Tensor:
    """E log N(x; mean, sd), where x and mean together have the variance given."""
    sd = torch.as_tensor(sd)
    return -0.5 * math.log(2 * math.pi) - sd.log() - ((x - mean) ** 2 + variance) / (2 * sd**2)


def normal_entropy(sd: Tensor) -> Tensor:
    return 0.5 * math.log(2 * math.pi * math.e) + sd.log()


def log_bernoulli(p: Tensor | float, z: Tensor | float) -> Tensor:
    p, z = torch.as_tensor(p), torch.as_tensor(z)
    return z * p.log() + (1 - z) * (1 - p).log()


# -- brute force over a joint of discrete sites

Sites = dict[str, tuple[int, tuple[int, ...]]]  # by name: the number of values, and the shape of the plates


def assignments(sites: Sites) -> list[dict[str, Tensor]]:
    """Every joint value of some discrete sites."""
    counts = [math.prod(shape) for _, shape in sites.values()]
    ranges = [range(k) for (k, _), count in zip(sites.values(), counts, strict=True) for _ in range(count)]
    found = []
    for cell in itertools.product(*ranges):
        left, values = list(cell), {}
        for (name, (_, shape)), count in zip(sites.items(), counts, strict=True):
            values[name] = torch.tensor(left[:count], dtype=torch.get_default_dtype()).reshape(shape)
            left = left[count:]
        found.append(values)
    return found


def log_joint(program: Callable[..., Any], values: dict[str, Tensor], *args: Any) -> Tensor:
    """The log density of one run with the sites at some values (as floats; cast to what the site draws)."""
    drawn = trace(program).get_trace(*args)
    fits = {name: value.to(drawn[name].tensor.dtype) for name, value in values.items() if name in drawn}
    return trace(condition(program, data=fits)).get_trace(*args).log_prob_sum()


def brute_elbo(
    model: Callable[..., Any], guide: Callable[..., Any], in_guide: Sites, in_model: Sites, *args: Any
) -> Tensor:
    """Σ_g q(g) (log Σ_m p(g, m, x) - log q(g)), one joint value at a time."""
    total = torch.zeros(())
    for g in assignments(in_guide):
        log_q = log_joint(guide, g, *args)
        log_p = torch.stack([log_joint(model, {**g, **m}, *args) for m in assignments(in_model)]).logsumexp(0)
        total = total + log_q.exp() * (log_p - log_q)
    return total


# -- cases


@dataclass(frozen=True)
class Case:
    """A model with a guide, and the bound between them."""

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    elbo: Callable[[ppl.ParamStore], Tensor]
    args: tuple[Any, ...] = ()
    enumerates: bool = False  # whether its answer holds for TraceEnum_ELBO (True) or for Trace_ELBO (False)

    def __str__(self) -> str:
        return self.name


def positive(name: str, value: Tensor) -> Tensor:
    return ppl.param(name, value, constraint=constraints.positive)


def unit(name: str, value: Tensor) -> Tensor:
    return ppl.param(name, value, constraint=constraints.unit_interval)


HEIGHTS = tensor(0.3, 1.9, -0.4, 1.1)


def normal_normal_model(data: Tensor) -> None:
    mean = ppl.sample("mean", dist.Normal(0.5, 2.0))
    with ppl.plate("data", len(data)):
        ppl.sample("obs", dist.Normal(mean, 0.7), obs=data)


def normal_guide(data: Tensor, reparameterised: bool = True) -> None:
    q = dist.Normal(ppl.param("loc", torch.tensor(0.2)), positive("sd", torch.tensor(0.6)))
    ppl.sample("mean", q.has_rsample_(reparameterised))


def normal_normal_elbo(p: ppl.ParamStore) -> Tensor:
    m, s = p["loc"], p["sd"]
    likelihood = normal_term(HEIGHTS, m, 0.7, s**2).sum()
    return likelihood + normal_term(m, 0.5, 2.0, s**2) + normal_entropy(s)


def normal_normal_posterior() -> tuple[float, float]:
    """Mean and standard deviation of `mean`."""
    precision = 1 / 4 + len(HEIGHTS) / 0.49
    return (0.5 / 4 + HEIGHTS.sum().item() / 0.49) / precision, precision**-0.5


COINS = tensor(1.0, 1.0, 0.0, 1.0, 1.0)


def beta_bernoulli_model(data: Tensor) -> None:
    p = ppl.sample("p", dist.Beta(2.0, 3.0))
    with ppl.plate("data", len(data)):
        ppl.sample("obs", dist.Bernoulli(p), obs=data)


def beta_guide(data: Tensor, reparameterised: bool = True) -> None:
    q = dist.Beta(positive("a", torch.tensor(3.0)), positive("b", torch.tensor(2.5)))
    ppl.sample("p", q.has_rsample_(reparameterised))


def beta_bernoulli_elbo(p: ppl.ParamStore) -> Tensor:
    a, b = p["a"], p["b"]
    log_p, log_1p = a.digamma() - (a + b).digamma(), b.digamma() - (a + b).digamma()
    log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
    log_prior = math.lgamma(5) - math.lgamma(2) - math.lgamma(3)
    heads, tails = COINS.sum(), (1 - COINS).sum()
    prior = log_prior + (2 - 1) * log_p + (3 - 1) * log_1p
    entropy = log_beta - (a - 1) * log_p - (b - 1) * log_1p
    return prior + heads * log_p + tails * log_1p + entropy


COUNTS = tensor(3.0, 1.0, 4.0)


def gamma_poisson_model(data: Tensor) -> None:
    rate = ppl.sample("rate", dist.Gamma(2.0, 1.5))
    with ppl.plate("data", len(data)):
        ppl.sample("obs", dist.Poisson(rate), obs=data)


def gamma_guide(data: Tensor) -> None:
    ppl.sample("rate", dist.Gamma(positive("a", torch.tensor(4.0)), positive("b", torch.tensor(2.0))))


def gamma_poisson_elbo(p: ppl.ParamStore) -> Tensor:
    a, b = p["a"], p["b"]
    log_rate, rate = a.digamma() - b.log(), a / b
    prior = 2 * math.log(1.5) - math.lgamma(2.0) + (2 - 1) * log_rate - 1.5 * rate
    likelihood = (COUNTS * log_rate - rate - (COUNTS + 1).lgamma()).sum()
    entropy = a - b.log() + a.lgamma() + (1 - a) * a.digamma()
    return prior + likelihood + entropy


EFFECTS = tensor(28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = tensor(15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def eight_schools_model(y: Tensor, sigma: Tensor) -> None:
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))
    with ppl.plate("schools", 8):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_guide(y: Tensor, sigma: Tensor) -> None:
    ppl.sample("mu", dist.Normal(ppl.param("mu_loc", torch.tensor(4.0)), positive("mu_sd", torch.tensor(2.0))))
    tau = dist.LogNormal(ppl.param("tau_loc", torch.tensor(1.5)), positive("tau_sd", torch.tensor(0.3)))
    ppl.sample("tau", tau)
    with ppl.plate("schools", 8):
        loc = ppl.param("theta_loc", lambda: torch.linspace(1.0, 8.0, 8))
        ppl.sample("theta", dist.Normal(loc, positive("theta_sd", torch.full((8,), 3.0))))


def eight_schools_elbo(p: ppl.ParamStore) -> Tensor:
    m, s, t, u = p["mu_loc"], p["mu_sd"], p["tau_loc"], p["tau_sd"]
    loc, sd = p["theta_loc"], p["theta_sd"]
    half_cauchy = gauss(lambda x: math.log(2 / (math.pi * 5)) - torch.log1p((x.exp() / 5) ** 2), t, u)
    square = (loc - m) ** 2 + sd**2 + s**2
    theta = -0.5 * math.log(2 * math.pi) - t - 0.5 * square * (-2 * t + 2 * u**2).exp()
    likelihood = normal_term(EFFECTS, loc, ERRORS, sd**2)
    entropy = normal_entropy(s) + normal_entropy(u) + t + normal_entropy(sd).sum()
    return normal_term(m, 0.0, 5.0, s**2) + half_cauchy + theta.sum() + likelihood.sum() + entropy


COVARIATE = torch.tensor([[-1.0, 0.2, 0.9], [0.5, -0.3, 1.4]])  # (group, person)
RESPONSE = torch.tensor([[0.1, 0.4, 1.2], [1.8, 0.9, 3.0]])


def regression_model(x: Tensor, y: Tensor) -> None:
    """Slopes that vary by group around a common one."""
    slope = ppl.sample("slope", dist.Normal(0.0, 2.0))
    with ppl.plate("groups", 2, dim=-2):
        slopes = ppl.sample("slopes", dist.Normal(slope, 0.8))
        with ppl.plate("people", 3, dim=-1):
            ppl.sample("y", dist.Normal(slopes * x, 0.5), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    ppl.sample("slope", dist.Normal(ppl.param("m", torch.tensor(0.5)), positive("s", torch.tensor(0.4))))
    with ppl.plate("groups", 2, dim=-2):
        loc = ppl.param("ms", torch.tensor([[0.2], [1.5]]))
        ppl.sample("slopes", dist.Normal(loc, positive("ss", torch.tensor([[0.3], [0.5]]))))


def regression_elbo(p: ppl.ParamStore) -> Tensor:
    m, s, ms, ss = p["m"], p["s"], p["ms"], p["ss"]
    slopes = normal_term(ms, m, 0.8, ss**2 + s**2).sum()
    likelihood = normal_term(RESPONSE, ms * COVARIATE, 0.5, (ss * COVARIATE) ** 2).sum()
    return normal_term(m, 0.0, 2.0, s**2) + slopes + likelihood + normal_entropy(s) + normal_entropy(ss).sum()


DESIGN = torch.tensor([[1.0, 0.5], [1.0, -1.2], [1.0, 2.0], [1.0, 0.1], [1.0, -0.4]])
LABELS = tensor(1.0, 0.0, 1.0, 0.0, 1.0)


def logistic_model(x: Tensor, y: Tensor, subsample_size: int | None = None) -> None:
    w = ppl.sample("w", dist.Normal(torch.zeros(2), 1.5).to_event(1))
    with ppl.plate("data", 5, subsample_size=subsample_size) as i:
        logits = (w * x[i]).sum(-1)
        ppl.sample("y", dist.Bernoulli(logits=logits), obs=y[i])


def logistic_guide(x: Tensor, y: Tensor, subsample_size: int | None = None) -> None:
    q = dist.Normal(ppl.param("m", tensor(0.1, 0.4)), positive("s", tensor(0.5, 0.8)))
    ppl.sample("w", q.to_event(1))


def logistic_elbo(p: ppl.ParamStore) -> Tensor:
    m, s = p["m"], p["s"]
    loc, sd = DESIGN @ m, (DESIGN**2 @ s**2).sqrt()
    sign = 2 * LABELS - 1
    likelihood = gauss(torch.nn.functional.logsigmoid, sign * loc, sd)
    return normal_term(m, 0.0, 1.5, s**2).sum() + likelihood.sum() + normal_entropy(s).sum()


SWITCHED = torch.tensor(1.3)
LEVELS = tensor(-1.0, 2.0)


def switch_model(mark: str | None = None) -> None:
    """A continuous site below a discrete one."""
    z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": mark})
    y = ppl.sample("y", dist.Normal(LEVELS[z.long()], 1.2))
    ppl.sample("x", dist.Normal(y, 0.9), obs=SWITCHED)


def switch_guide(mark: str | None = None) -> None:
    """The discrete site is drawn (score function) or enumerated, the continuous one below it reparameterised."""
    z = ppl.sample("z", dist.Bernoulli(unit("q", torch.tensor(0.6))), infer={"enumerate": mark}).long()
    locs, sds = ppl.param("locs", tensor(-0.2, 1.4)), positive("sds", tensor(0.7, 1.1))
    ppl.sample("y", dist.Normal(locs[z], sds[z]))


def switch_elbo(p: ppl.ParamStore) -> Tensor:
    q = torch.stack([1 - p["q"], p["q"]])
    m, s = p["locs"], p["sds"]
    inner = normal_term(m, LEVELS, 1.2, s**2) + normal_term(SWITCHED, m, 0.9, s**2) + normal_entropy(s)
    return (q * (tensor(0.7, 0.3).log() + inner - q.log())).sum()


POINTS = tensor(-1.2, 0.3, 2.2)
MIX = tensor(0.5, 0.3, 0.2)


def mixture_model(data: Tensor, mark: str | None = None) -> None:
    with ppl.plate("components", 3):
        locs = ppl.sample("locs", dist.Normal(0.0, 2.0))
    weights = ppl.param("weights", MIX, constraint=constraints.simplex)
    with ppl.plate("data", len(data)):
        z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": mark})
        ppl.sample("x", dist.Normal(take(locs, z), 0.8), obs=data)


def take(locs: Tensor, z: Tensor) -> Tensor:
    """locs[..., z], where both may have batch dims left of their last one."""
    return (torch.nn.functional.one_hot(z, 3) * locs.unsqueeze(-2)).sum(-1)


def mixture_guide(data: Tensor, mark: str | None = None) -> None:
    with ppl.plate("components", 3):
        ppl.sample("locs", dist.Normal(ppl.param("m", tensor(-1.0, 0.1, 1.7)), positive("s", tensor(0.4, 0.3, 0.5))))
    with ppl.plate("data", len(data)):
        probs = ppl.param(
            "probs", torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]), constraint=constraints.simplex
        )
        ppl.sample("z", dist.Categorical(probs), infer={"enumerate": mark})


def mixture_elbo(p: ppl.ParamStore) -> Tensor:
    m, s, probs, weights = p["m"], p["s"], p["probs"], p["weights"]
    likelihood = normal_term(POINTS.unsqueeze(-1), m, 0.8, s**2)
    assigned = (probs * (weights.log() + likelihood - probs.log())).sum()
    return normal_term(m, 0.0, 2.0, s**2).sum() + assigned + normal_entropy(s).sum()


def fixed_mixture_model(data: Tensor, subsample_size: int | None = None) -> None:
    """A mixture whose locations are parameters, so that nothing but the discrete sites is latent."""
    weights = ppl.param("weights", MIX, constraint=constraints.simplex)
    locs = ppl.param("locs", tensor(-1.0, 0.1, 1.7))
    with ppl.plate("data", len(data), subsample_size=subsample_size) as i:
        z = ppl.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        ppl.sample("x", dist.Normal(locs[z], 0.8), obs=data[i])


def fixed_mixture_elbo(p: ppl.ParamStore) -> Tensor:
    return (p["weights"].log() + normal_term(POINTS.unsqueeze(-1), p["locs"], 0.8)).logsumexp(-1).sum()


def empty_guide(*args: Any) -> None:
    pass


MARKS = torch.tensor([[0.5, 1.2, -0.3], [2.0, 1.1, 0.4]])  # (group, person)
ZERO_ONE = tensor(0.0, 1.0)


def nested_model(data: Tensor, mark: str | None = "parallel") -> None:
    """A global, a group's and a person's binary site, each depending on the one above."""
    infer = {"enumerate": mark}
    top = ppl.sample("top", dist.Bernoulli(0.4), infer=infer)
    with ppl.plate("groups", 2, dim=-2):
        group = ppl.sample("group", dist.Bernoulli(0.2 + 0.5 * top), infer=infer)
        with ppl.plate("people", 3, dim=-1):
            person = ppl.sample("person", dist.Bernoulli(0.7 - 0.4 * group), infer=infer)
            ppl.sample(
                "x", dist.Normal(ppl.param("loc", torch.tensor(0.3)) + person + 0.5 * group - top, 0.8), obs=data
            )


def nested_guide(data: Tensor, mark: str | None = None) -> None:
    infer = {"enumerate": mark}
    top = ppl.sample("top", dist.Bernoulli(unit("q_top", torch.tensor(0.35))), infer=infer).long()
    with ppl.plate("groups", 2, dim=-2):
        q_group = unit("q_group", torch.tensor([[0.3], [0.6]]))
        group = ppl.sample("group", dist.Bernoulli(0.5 * q_group + 0.3 * top), infer=infer)
        with ppl.plate("people", 3, dim=-1):
            q_person = unit("q_person", torch.tensor([[0.5, 0.7, 0.2], [0.4, 0.6, 0.3]]))
            ppl.sample("person", dist.Bernoulli(0.8 * q_person + 0.1 * group), infer=infer)


def nested_elbo(p: ppl.ParamStore) -> Tensor:
    """Marginal by marginal, from the top down: each person's and each group's part is summed alone."""
    z = ZERO_ONE
    q_top = torch.stack([1 - p["q_top"], p["q_top"]])
    q1 = (0.5 * p["q_group"].squeeze(-1)).unsqueeze(-1) + 0.3 * z  # (group, top)
    q_group = torch.stack([1 - q1, q1], -1)  # (group, top, g)
    r1 = 0.8 * p["q_person"].unsqueeze(-1) + 0.1 * z  # (group, person, g)
    q_person = torch.stack([1 - r1, r1], -1)  # (group, person, g, i)
    mean = p["loc"] + z + 0.5 * z.reshape(2, 1) - z.reshape(2, 1, 1)  # (top, g, i)
    likelihood = normal_term(MARKS.reshape(2, 3, 1, 1, 1), mean, 0.8)  # (group, person, top, g, i)
    prior = log_bernoulli((0.7 - 0.4 * z).unsqueeze(-1), z)  # (g, i)
    person = (q_person.unsqueeze(2) * (prior + likelihood - q_person.unsqueeze(2).log())).sum(-1)  # (…, top, g)
    group_prior = log_bernoulli((0.2 + 0.5 * z).unsqueeze(-1), z)  # (top, g)
    group = (q_group * (group_prior - q_group.log() + person.sum(1))).sum(-1)  # (group, top)
    return (q_top * (log_bernoulli(torch.tensor(0.4), z) - q_top.log() + group.sum(0))).sum()


def nested_evidence(p: ppl.ParamStore) -> Tensor:
    """log p(x) with all three sites summed, from the bottom up."""
    z = ZERO_ONE
    mean = p["loc"] + z + 0.5 * z.reshape(2, 1) - z.reshape(2, 1, 1)
    likelihood = normal_term(MARKS.reshape(2, 3, 1, 1, 1), mean, 0.8)
    person = (log_bernoulli((0.7 - 0.4 * z).unsqueeze(-1), z) + likelihood).logsumexp(-1).sum(1)  # (group, top, g)
    group = (log_bernoulli((0.2 + 0.5 * z).unsqueeze(-1), z) + person).logsumexp(-1).sum(0)  # (top,)
    return (log_bernoulli(torch.tensor(0.4), z) + group).logsumexp(0)


SEEN = torch.tensor([True, False, True, True])
IMPORTANCE = tensor(0.5, 2.0, 1.0, 3.0)


def weighted_model(data: Tensor) -> None:
    """A person's binary site, masked here and there, and weighed."""
    with ppl.plate("data", 4), mask(mask=SEEN), scale(scale=IMPORTANCE):
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("x", dist.Normal(2 * z, 1.0), obs=data)


def weighted_guide(data: Tensor) -> None:
    with ppl.plate("data", 4), mask(mask=SEEN), scale(scale=IMPORTANCE):
        ppl.sample("z", dist.Bernoulli(unit("q", tensor(0.2, 0.5, 0.6, 0.7))))


def weighted_elbo(p: ppl.ParamStore) -> Tensor:
    q = torch.stack([1 - p["q"], p["q"]], -1)
    inner = log_bernoulli(0.3, ZERO_ONE) + normal_term(HEIGHTS.unsqueeze(-1), 2 * ZERO_ONE, 1.0) - q.log()
    return (IMPORTANCE * SEEN * (q * inner).sum(-1)).sum()


def weighted_normal_model(data: Tensor) -> None:
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 4), mask(mask=SEEN), scale(scale=IMPORTANCE):
        local = ppl.sample("local", dist.Normal(mean, 1.0))
        ppl.sample("x", dist.Normal(local, 0.8), obs=data)


def weighted_normal_guide(data: Tensor) -> None:
    ppl.sample("mean", dist.Normal(ppl.param("m", torch.tensor(0.2)), positive("s", torch.tensor(0.6))))
    with ppl.plate("data", 4), mask(mask=SEEN), scale(scale=IMPORTANCE):
        ppl.sample(
            "local",
            dist.Normal(ppl.param("ml", tensor(0.1, 0.5, 0.2, 1.0)), positive("sl", tensor(0.5, 0.4, 0.9, 0.7))),
        )


def weighted_normal_elbo(p: ppl.ParamStore) -> Tensor:
    m, s, ml, sl = p["m"], p["s"], p["ml"], p["sl"]
    local = normal_term(ml, m, 1.0, sl**2 + s**2) + normal_term(HEIGHTS, ml, 0.8, sl**2) + normal_entropy(sl)
    return normal_term(m, 0.0, 1.0, s**2) + normal_entropy(s) + (IMPORTANCE * SEEN * local).sum()


def subsampled_local_model(data: Tensor, mark: str | None = None) -> None:
    """A binary site a person, in a subsampled plate."""
    with ppl.plate("data", 4, subsample_size=2) as i:
        z = ppl.sample("z", dist.Bernoulli(0.3), infer={"enumerate": mark})
        ppl.sample("x", dist.Normal(2 * z, 1.0), obs=data[i])


def subsampled_local_guide(data: Tensor, mark: str | None = None) -> None:
    with ppl.plate("data", 4, subsample_size=2):
        q = ppl.param("q", tensor(0.2, 0.5, 0.6, 0.7), constraint=constraints.unit_interval, event_dim=0)
        ppl.sample("z", dist.Bernoulli(q), infer={"enumerate": mark})


def subsampled_local_elbo(p: ppl.ParamStore) -> Tensor:
    q = torch.stack([1 - p["q"], p["q"]], -1)
    inner = log_bernoulli(0.3, ZERO_ONE) + normal_term(HEIGHTS.unsqueeze(-1), 2 * ZERO_ONE, 1.0) - q.log()
    return (q * inner).sum()


PAIR = tensor(0.4, 2.1)


def mixed_model(data: Tensor, mark: str = "parallel") -> None:
    """A global site, and below it in each place one averaged in the guide, one drawn and one summed in the model."""
    a = ppl.sample("a", dist.Bernoulli(0.4))
    with ppl.plate("data", 2):
        b = ppl.sample("b", dist.Bernoulli(0.2 + 0.5 * a), infer={"enumerate": mark})
        c = ppl.sample("c", dist.Bernoulli(0.3 + 0.3 * b), infer={"enumerate": "parallel"})
        d = ppl.sample("d", dist.Bernoulli(0.6 - 0.4 * b))
        ppl.sample("x", dist.Normal(a + b + ppl.param("slope", torch.tensor(0.8)) * c - d, 0.7), obs=data)


def mixed_guide(data: Tensor, mark: str = "parallel") -> None:
    a = ppl.sample("a", dist.Bernoulli(unit("qa", torch.tensor(0.45))))
    with ppl.plate("data", 2):
        b = ppl.sample("b", dist.Bernoulli(0.6 * unit("qb", tensor(0.4, 0.7)) + 0.2 * a), infer={"enumerate": mark})
        ppl.sample("d", dist.Bernoulli(0.7 * unit("qd", tensor(0.6, 0.3)) + 0.2 * b))


def mixed_elbo(p: ppl.ParamStore) -> Tensor:
    in_guide: Sites = {"a": (2, ()), "b": (2, (2,)), "d": (2, (2,))}
    with p:
        return brute_elbo(mixed_model, mixed_guide, in_guide, {"c": (2, (2,))}, PAIR)


def score_normal_guide(data: Tensor) -> None:
    normal_guide(data, reparameterised=False)


def score_beta_guide(data: Tensor) -> None:
    beta_guide(data, reparameterised=False)


DRAWN = [
    Case("normal-normal, pathwise", normal_normal_model, normal_guide, normal_normal_elbo, (HEIGHTS,)),
    Case("normal-normal, score function", normal_normal_model, score_normal_guide, normal_normal_elbo, (HEIGHTS,)),
    Case("beta-bernoulli, pathwise", beta_bernoulli_model, beta_guide, beta_bernoulli_elbo, (COINS,)),
    Case("beta-bernoulli, score function", beta_bernoulli_model, score_beta_guide, beta_bernoulli_elbo, (COINS,)),
    Case("gamma-poisson, pathwise", gamma_poisson_model, gamma_guide, gamma_poisson_elbo, (COUNTS,)),
    Case("eight schools, pathwise", eight_schools_model, eight_schools_guide, eight_schools_elbo, (EFFECTS, ERRORS)),
    Case("hierarchical regression", regression_model, regression_guide, regression_elbo, (COVARIATE, RESPONSE)),
    Case("logistic regression", logistic_model, logistic_guide, logistic_elbo, (DESIGN, LABELS)),
    Case("logistic regression, subsampled", logistic_model, logistic_guide, logistic_elbo, (DESIGN, LABELS, 2)),
    Case("discrete above continuous, both drawn", switch_model, switch_guide, switch_elbo),
    Case("mixture, all drawn", mixture_model, mixture_guide, mixture_elbo, (POINTS,)),
    Case("nested plates, all drawn", nested_model, nested_guide, nested_elbo, (MARKS, None)),
    Case("masked and scaled, score function", weighted_model, weighted_guide, weighted_elbo, (HEIGHTS,)),
    Case("masked and scaled, pathwise", weighted_normal_model, weighted_normal_guide, weighted_normal_elbo, (HEIGHTS,)),
    Case(
        "local discrete, subsampled", subsampled_local_model, subsampled_local_guide, subsampled_local_elbo, (HEIGHTS,)
    ),
]

ENUMERATED = [
    Case(
        "discrete above continuous, enumerated in the guide",
        switch_model,
        switch_guide,
        switch_elbo,
        ("parallel",),
        True,
    ),
    Case(
        "discrete above continuous, sequential in the guide",
        switch_model,
        switch_guide,
        switch_elbo,
        ("sequential",),
        True,
    ),
    Case("mixture, enumerated in the guide", mixture_model, mixture_guide, mixture_elbo, (POINTS, "parallel"), True),
    Case("mixture, enumerated in the model", fixed_mixture_model, empty_guide, fixed_mixture_elbo, (POINTS,), True),
    Case("mixture, enumerated, subsampled", fixed_mixture_model, empty_guide, fixed_mixture_elbo, (POINTS, 2), True),
    Case(
        "local discrete, subsampled, enumerated in the guide",
        subsampled_local_model,
        subsampled_local_guide,
        subsampled_local_elbo,
        (HEIGHTS, "parallel"),
        True,
    ),
    Case("drawn, averaged and summed sites", mixed_model, mixed_guide, mixed_elbo, (PAIR,), True),
    Case("drawn, averaged sequentially and summed", mixed_model, mixed_guide, mixed_elbo, (PAIR, "sequential"), True),
    Case("nested plates, enumerated in the guide", nested_model, nested_guide, nested_elbo, (MARKS, "parallel"), True),
    Case("nested plates, enumerated in the model", nested_model, empty_guide, nested_evidence, (MARKS,), True),
]

CASES = {case.name: case for case in DRAWN + ENUMERATED}
