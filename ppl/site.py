"""A site: the immutable message that a statement sends through the handlers, and what comes back from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Self

from torch import Size, Tensor

from ppl.distributions.distribution import Distribution, broadcast_shape, expanded
from ppl.distributions.validation import describe_entries
from ppl.tensors.sharing import shared

Kind = Literal["sample", "param", "deterministic", "plate", "subsample"]
Enumerate = Literal["parallel", "sequential"]
TensorMonteCarlo = Literal["diagonal", "mixture"]
Init = Tensor | float | Callable[[], Tensor] | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One plate around a site. A sequential plate has no dim; its frames carry the index instead."""

    name: str
    size: int  # of the whole plate
    subsample_size: int  # of the part seen in this run; equal to size without subsampling
    dim: int | None  # the negative batch dim that the plate owns
    index: int | None = None  # the iteration, in a sequential plate
    indices: Tensor | None = field(default=None, compare=False, repr=False)  # the subsample; None when it is all

    @property
    def scale(self) -> float:
        """How many elements of the plate each one seen stands for."""
        return self.size / self.subsample_size if self.subsample_size else 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a `markov` loop around a site."""

    loop: int  # which loop: any number of its own on the way, and in a trace the order in which the run met them
    step: int  # how many steps have passed
    history: int  # how many earlier steps this one may depend on


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The step of a running `scan` that a site belongs to."""

    index: int | Tensor  # which step it is; a (batched) tensor where many steps run at once
    together: bool  # whether it is recorded together with other steps, and its enumeration dims named alike
    back: int  # how many steps ahead lies the step that this run prepares: 0 in a run for its own sake
    length: int  # of the whole scan
    history: int  # how many earlier steps one may depend on
    scan: object  # the same object for all sites of one scan
    keep: Callable[[Callable[..., None], Site], None]  # holds a site back for a recorder until all steps are there

    def pick(self, value: Tensor) -> Tensor:
        """This step's part of a value that has all steps on its first dim."""
        if isinstance(self.index, int):
            return value[self.index]
        return value.index_select(0, self.index.reshape(1)).squeeze(0)


@dataclass(frozen=True, slots=True)
class Span:
    """The steps of a scan along a recorded site's first dim."""

    axis: str  # the dim's name
    start: int  # the first step on it; those before are recorded each by itself, as `name[0]`, `name[1]`, …
    size: int
    history: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The control variate of a score-function site: what is expected of its learning signal."""

    decaying_average: bool = True  # subtract a running mean of the signals of earlier steps
    beta: float = 0.9  # how much of the old mean stays, in [0, 1)
    value: Tensor | None = None  # a baseline given by the user, subtracted as well


@dataclass(frozen=True, slots=True)
class Infer:
    """What a user may ask of inference at one site: `sample(…, infer={"enumerate": "parallel"})`."""

    enumerate: Enumerate | None = None  # sum over the site's support instead of drawing
    expand: bool = False  # enumerate with a full batch shape, where False keeps the values small; draws always have it
    baseline: Baseline = Baseline()
    is_auxiliary: bool = False  # a guide's site that the model does not have
    num_samples: int | None = None  # enumerated in parallel: as many draws, alike in weight, instead of the support
    tmc: TensorMonteCarlo | None = None  # how draws follow their parents' draws; None: a set for each of these

    @classmethod
    def of(cls, options: Infer | Mapping[str, Any] | None, site: str = "") -> Infer:
        """Typed options from a dict; raises ValueError for a key that is none."""
        if options is None:
            return NO_OPTIONS
        if isinstance(options, Infer):
            return options
        return NO_OPTIONS.updated(options, site)

    def updated(self, options: Mapping[str, Any], site: str = "") -> Infer:
        """These options with some changed by name."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        baseline: dict[str, Any] = {f.name: getattr(self.baseline, f.name) for f in fields(self.baseline)}
        aliases = {
            "use_decaying_avg_baseline": "decaying_average",
            "baseline_beta": "beta",
            "baseline_value": "value",
        }
        for key, value in options.items():
            if key in aliases:
                baseline[aliases[key]] = value
            elif key == "baseline" and isinstance(value, Mapping):
                baseline.update({aliases.get(str(k), str(k)): v for k, v in value.items()})
            elif key in values:
                values[key] = value
            else:
                raise ValueError(
                    f"site '{site}': unknown inference option '{key}'; known are {', '.join([*values, *aliases])}."
                )
        if values["enumerate"] not in (None, "parallel", "sequential"):
            raise ValueError(
                f"site '{site}': infer['enumerate'] must be 'parallel', 'sequential' or None, "
                f"got {values['enumerate']!r}."
            )
        _check_num_samples(values, site)
        if not isinstance(options.get("baseline"), Baseline):
            values["baseline"] = Baseline(**baseline)
        return Infer(**values)


def _check_num_samples(values: Mapping[str, Any], site: str) -> None:
    count = values["num_samples"]
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ValueError(
            f"site '{site}': infer['num_samples'] must be a positive int, or None for the whole support, got {count!r}."
        )
    if count is not None and values["enumerate"] == "sequential":
        raise ValueError(
            f"site '{site}': infer['num_samples'] is for parallel enumeration, but the site is marked 'sequential'. Write "
            f"infer={{'enumerate': 'parallel', 'num_samples': {count}}}."
        )
    if values["tmc"] not in (None, "diagonal", "mixture"):
        raise ValueError(f"site '{site}': infer['tmc'] must be 'diagonal', 'mixture' or None, got {values['tmc']!r}.")


NO_OPTIONS = Infer()


@dataclass(frozen=True, slots=True)
class Site:
    """One statement of a program on its way through the handlers.

    A handler never changes a site; it passes on another one made by `replace`.
    """

    name: str
    kind: Kind
    distribution: Distribution | None = None  # of a sample site
    value: Tensor | None = None  # None until someone decides it; the default draws it
    observed: bool = False  # whether the value is data
    drawn: bool = False  # whether it was drawn from the distribution here, no handler having decided it
    plates: tuple[Frame, ...] = ()  # outermost first
    scale: Tensor | float = 1.0  # multiplies the log density
    mask: Tensor | bool | None = None  # where the log density counts; None is everywhere
    infer: Infer = NO_OPTIONS
    enum_dims: tuple[tuple[int, str], ...] = ()  # the enumeration dims in use here: (negative dim, enumerated site)
    mixed: tuple[str, ...] = ()  # the enumerated sites over whose draws the proposal of this one's draws is a mixture
    steps: tuple[Step, ...] = ()  # the markov steps around the site, outermost first
    branch: bool = False  # whether this is one of several runs, for the choices that this site is or depends on
    moments: tuple[Moment, ...] = ()  # the steps of the running scans around the site, outermost first
    spans: tuple[Span, ...] = ()  # of a recorded site: the scans whose steps lie along its first dims, outermost first
    step_of: str = ""  # of a step that is recorded by itself: the site's name in the scan
    recorded: bool = True  # false in a run that only prepares another one: handlers act on the site, traces pass it by
    sketched: bool = (
        False  # the run only looks for plates and parameters: a scan may leave out steps that are like others
    )
    intervened: bool = False  # set by `do`: later sites see another value than this one's
    init: Init = None  # of a param site: its first value, or how to make it
    leaf: Tensor | None = None  # of a param site: the unconstrained tensor to use, owned by a module
    constraint: Any = None  # of a param site; None takes what the store has, or real
    event_dim: int | None = None  # of a param, deterministic or subsample site

    def replace(self, **changes: Any) -> Self:
        """This site with some fields changed."""
        draft = _copied(self)
        for name, value in changes.items():
            setattr(draft, name, value)
        draft.__class__ = Site
        return draft  # type: ignore[no-any-return]

    @property
    def fn(self) -> Distribution:
        """The distribution of a sample site; ValueError for any other."""
        if self.distribution is None:
            raise ValueError(f"site '{self.name}' is a {self.kind} and has no distribution.")
        return self.distribution

    @property
    def tensor(self) -> Tensor:
        """The value, known to be there; ValueError while nobody has decided it."""
        if self.value is None:
            raise ValueError(f"site '{self.name}' has no value yet.")
        return self.value

    @property
    def is_enumerated(self) -> bool:
        """Whether the value is the site's whole support (or draws in its place), on a dim of its own."""
        names = [name for _, name in self.enum_dims]
        if self.name in names or not self.moments:
            return self.name in names
        return any(name.startswith(f"{self.name}[") for name in names)

    def __getitem__(self, key: str) -> Any:
        """Raises: TypeError naming the attribute, for those who know sites as dicts."""
        known = {"is_observed": "observed", "type": "kind", "cond_indep_stack": "plates", "log_prob": "log_prob"}
        name = known.get(key, key)
        if name == "log_prob":
            raise TypeError(f"a site is no dict: write trace.log_prob('{self.name}').")
        raise TypeError(
            f"a site is no dict: write site.{name if hasattr(self, name) else 'value, site.fn or site.observed'}."
        )

    def __str__(self) -> str:
        plates = ", ".join(f"{f.name}[{f.subsample_size}]" for f in self.plates)
        return f"site '{self.name}'" + (f" (in plates {plates})" if plates else "")


# Sites are made and copied as drafts, which have the same slots, but are not frozen, by functions that name every field: these
# are the hottest lines of the language.
_Draft: Any = type("Site", (), {"__slots__": tuple(f.name for f in fields(Site))})


def _compiled(head: str, lines: Iterable[str], **names: Any) -> Any:
    """The function `made` of some source, for which the given names are known."""
    exec("\n    ".join([f"def made({head}):", *lines]), names)
    return names["made"]


_copied: Callable[[Site], Any] = _compiled(
    "site",
    ["draft = new(Draft)", *(f"draft.{f.name} = site.{f.name}" for f in fields(Site)), "return draft"],
    new=object.__new__,
    Draft=_Draft,
)
Site.__init__ = functools.wraps(Site.__init__)(  # type: ignore[method-assign]
    _compiled(
        ", ".join(["site", *(f.name if f.default is MISSING else f"{f.name}=_{f.name}" for f in fields(Site))]),
        [
            "thaw(site, '__class__', Draft)",
            *(f"site.{f.name} = {f.name}" for f in fields(Site)),
            "site.__class__ = Site",
        ],
        thaw=object.__setattr__,
        Draft=_Draft,
        Site=Site,
        **{f"_{f.name}": f.default for f in fields(Site)},
    )
)


def part_for(site: Site, value: Tensor | None) -> Tensor | None:
    """What of a value for all steps of the scans around, which lie on its first dims, belongs to this site's step.

    Raises: ValueError naming the site where there are not as many entries as steps.
    """
    if not isinstance(value, Tensor):
        return value
    for moment in site.moments:
        if not value.dim() or len(value) != moment.length:
            raise ValueError(
                f"{site}: a value for a site of a scan has the scan's {moment.length} steps on its first dim, but the one "
                f"given has shape {tuple(value.shape)}."
            )
        value = moment.pick(value)
    return value


def plate_shape(frames: Iterable[Frame]) -> Size:
    """The batch shape that vectorised plates ask for, 1 where no plate stands."""
    shape: list[int] = []
    for frame in frames:
        dim = frame.dim
        if dim is not None:
            if -dim > len(shape):
                shape = [1] * (-dim - len(shape)) + shape
            shape[dim] = frame.subsample_size
    return Size(shape)


def expand_to_plates(site: Site, d: Distribution, only_check: bool = False) -> Distribution:
    """The distribution with its batch shape expanded to the plates around the site.

    Args: only_check, leave it as it is where it fits.
    Raises: ValueError naming the site, the plate and both sizes where they differ.
    """
    shape, batch = plate_shape(site.plates), d.batch_shape
    if batch == shape:
        return d
    if only_check:
        _check_plates(site, batch)
        return d
    return shared(_expanded, site, d, shape, key=(id(d), shape))


def _expanded(site: Site, d: Distribution, shape: Size) -> Distribution:
    _check_plates(site, d.batch_shape)
    return expanded(d, broadcast_shape(d.batch_shape, shape))


def _check_plates(site: Site, batch: Size) -> None:
    for frame in site.plates:
        if frame.dim is not None and -frame.dim <= len(batch) and batch[frame.dim] not in (1, frame.subsample_size):
            raise ValueError(
                f"{site}: plate '{frame.name}' has size {frame.subsample_size} at dim {frame.dim}, but the "
                f"distribution's batch shape {tuple(batch)} has size {batch[frame.dim]} there. Make the sizes agree, "
                f"index the data with the plate's indices, or declare the dim with .to_event(1)."
            )


def locate(bad: Tensor, site: Site) -> str:
    """Where in its plates a batch of flags is first true: "plate 'data' index 3", for an error message."""
    if not site.plates:
        return ""
    index = bad.nonzero()[0].tolist()
    found = []
    for frame in site.plates:
        if frame.index is not None:
            found.append(f"plate '{frame.name}' index {frame.index}")
        elif frame.dim is not None and -frame.dim <= bad.dim():
            position = index[frame.dim]
            if frame.indices is not None:
                position = int(frame.indices[position])
            found.append(f"plate '{frame.name}' index {position}")
    return ", ".join(found)


def describe_nan(site: Site, value: Tensor, what: str) -> str | None:
    """One sentence about the NaN entries of a tensor that belongs to a site; None where there are none."""
    bad = value.isnan()
    if not bool(bad.any()):
        return None
    where = locate(bad, site)
    return f"site '{site.name}': {what} is NaN{f' at {where}' if where else ''} ({describe_entries(bad, value)})"
