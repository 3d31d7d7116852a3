"""What a data loader gives: batches as arguments of a program, and the size of the data that they are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, SubsetRandomSampler

Device = torch.device | str | None
_HOW = "Give a torch DataLoader, such as DataLoader(TensorDataset(x, y), batch_size=100, shuffle=True), or a list of batches"

EMPTY = (
    "SVI.fit: the loader gives no batches. Look at the size of its data set; with drop_last=True, a batch_size above it "
    "leaves none."
)


@dataclass(frozen=True)
class Batch:
    """The arguments of a model and a guide for one step."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int | None  # the length of its tensors' first dims; None where no field is a tensor with dims

    @classmethod
    def of(cls, given: Any, device: Device = None, constants: Mapping[str, Any] | None = None) -> Batch:
        """A tuple or list as positional arguments, a mapping as keyword ones, anything else as the only one.

        Args: device, where tensors go, those inside nested fields too; constants, keyword arguments of every batch,
            which are where they belong already.
        Raises: ValueError naming the fields, for lengths that differ, no elements, or keys that cannot be arguments.
        """
        args: tuple[Any, ...] = (given,)
        kwargs: dict[str, Any] = {}
        if isinstance(given, Mapping):
            args, kwargs = (), dict(given)
        elif isinstance(given, (tuple, list)) and not isinstance(given, PackedSequence):
            args = tuple(given)
        size = _common_length({**dict(enumerate(args)), **kwargs})
        bad = [key for key in kwargs if not isinstance(key, str) or key in (constants or {})]
        if bad:
            raise ValueError(
                f"the batch's keys must be names of arguments that are not given to fit as well, but {bad} are not."
            )
        return cls(moved(args, device), {**moved(kwargs, device), **(constants or {})}, size)


def _common_length(fields: Mapping[Any, Any]) -> int | None:
    lengths = {
        repr(name): len(field) if isinstance(field, Tensor) else int(field.batch_sizes[0])
        for name, field in fields.items()
        if isinstance(field, PackedSequence) or (isinstance(field, Tensor) and field.dim())
    }
    sizes = set(lengths.values())
    if len(sizes) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(
            f"the fields of the batch have different lengths on their first dims: {found}. What is the same in every "
            "batch goes to fit as a keyword argument; what is laid out otherwise can stand in a list, whose inside is "
            "not compared."
        )
    if 0 in sizes:
        raise ValueError("the batch has no elements; leave it out.")
    return sizes.pop() if sizes else None


def moved(value: Any, device: Device) -> Any:
    """A nest of tuples, lists and mappings with its tensors on a device, unless that is None."""
    if device is None:
        return value
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, PackedSequence):
        return value.to(cast(Any, device))  # torch declares what `to` takes for dtypes alone
    if isinstance(value, Mapping):
        return {key: moved(part, device) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)  # a named tuple takes fields
    return value


def check_loader(loader: Any, epochs: int) -> None:
    """Check that something can be iterated over, a batch at a time and as often as needed.

    Raises: ValueError saying what came and what to write.
    """
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"SVI.fit: epochs must be a positive int, got {epochs!r}.")
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise ValueError(
            "SVI.fit: got a data set, which gives single elements. Write DataLoader(dataset, batch_size=100, shuffle=True)."
        )
    if isinstance(loader, (Tensor, Mapping, str)) or not isinstance(loader, Iterable):
        raise ValueError(f"SVI.fit: batches cannot be taken from a {type(loader).__name__}. {_HOW}.")
    if isinstance(loader, Iterator) and epochs > 1:
        raise ValueError(
            f"SVI.fit: a {type(loader).__name__} gives its batches once, but epochs={epochs} asks for them again. {_HOW}, "
            "such as list(batches)."
        )
    if length_of(loader) == 0:
        raise ValueError(EMPTY)


def find_size(loader: Any) -> int | str:
    """How many elements the data have that a loader takes its batches from, or in words why that cannot be told.

    Raises: ValueError naming a batch of a list that cannot be one.
    """
    if isinstance(loader, (list, tuple)):
        return _count(loader)
    dataset = getattr(loader, "dataset", None)
    size = length_of(dataset)
    if size is None:
        return f"the {type(loader).__name__} has no data set with a length"
    if not isinstance(loader, DataLoader) or isinstance(dataset, IterableDataset):
        return size
    if loader.batch_sampler is None:
        return "its data set gives whole batches"
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, SubsetRandomSampler):
        return len(sampler)
    if isinstance(sampler, (RandomSampler, SequentialSampler)) or length_of(sampler) == size:
        return size
    return f"its {type(sampler).__name__} may leave out some of the data set's {size} elements"


def _count(batches: Sequence[Any]) -> int | str:
    total = 0
    for number, given in enumerate(batches):
        try:
            size = Batch.of(given).size
        except ValueError as error:
            raise ValueError(f"SVI.fit, batch {number}: {error}") from error
        if size is None:
            return f"batch {number} has no tensor whose elements could be counted"
        total += size
    return total


def length_of(thing: Any) -> int | None:
    """The length, where there is one."""
    try:
        return len(thing) if isinstance(thing, Sized) else None
    except (TypeError, NotImplementedError, AssertionError):  # what torch's data sets and samplers say for unknown
        return None
