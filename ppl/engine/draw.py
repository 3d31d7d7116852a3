"""One random draw of a step of a program, told apart from where its numbers come from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["KINDS", "NUMBERS", "TYPES", "Draw", "read_draw", "usual_stride"]

# How torch draws each kind, from a tensor, the numbers and the generator; the order is that of Kind in draws.cpp.
KINDS: Mapping[str, Callable[..., Tensor]] = {
    "normal": Tensor.normal_,
    "uniform": Tensor.uniform_,
    "exponential": Tensor.exponential_,
    "bernoulli": Tensor.bernoulli_,
    "log_normal": Tensor.log_normal_,
    "cauchy": Tensor.cauchy_,
    "geometric": Tensor.geometric_,
    "random": Tensor.random_,
    "randint": Tensor.random_,
    "randperm": lambda out, generator: torch.randperm(out.numel(), generator=generator, out=out),
}
NUMBERS = {
    "normal": ("mean", "std"),
    "uniform": ("from", "to"),
    "exponential": ("lambd",),
    "bernoulli": ("p",),
    "log_normal": ("mean", "std"),
    "cauchy": ("median", "sigma"),
    "geometric": ("p",),
    "random": (),
    "randint": ("low", "high"),
    "randperm": (),
}
# c10::ScalarType
TYPES = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.bool: 11,
    torch.bfloat16: 15,
}


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Draw:
    """One random draw of every step, from arguments that are no tensors' values.

    Args:
        kind: "normal", "uniform", "exponential", "bernoulli", "log_normal", "cauchy", "geometric", "random"
            (`random_()`), "randint" (`random_(low, high)`) or "randperm" (of as many numbers as `shape` has).
        shape: of the drawn tensor.
        dtype: of the drawn tensor; no complex one.
        device: of the drawn tensor.
        numbers: the distribution's, in the order of torch's method: mean and std, low and high, ...
        stride: of a drawn tensor that lies dense in memory but in another order than its dims', such as
            `randn_like` of a transposed one: torch draws in the order of memory. None is the usual order.
    Raises: ValueError for an unknown kind or dtype, too few or many numbers, or a stride with gaps or overlaps.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device = CPU
    numbers: tuple[float, ...] = ()
    stride: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in NUMBERS:
            raise ValueError(f"no draw is called {self.kind!r}; there are {', '.join(NUMBERS)}")
        if len(self.numbers) != len(NUMBERS[self.kind]):
            expected = f"the numbers ({', '.join(NUMBERS[self.kind])})"
            raise ValueError(f"a {self.kind} draw takes {expected}, it got {self.numbers}")
        if self.dtype not in TYPES:
            raise ValueError(f"a {self.kind} draw cannot have the dtype {self.dtype}; draw its parts as real numbers")
        if self.stride is not None and not _is_dense(self.shape, self.stride):
            raise ValueError(f"a draw of shape {self.shape} must fill its memory; the stride {self.stride} does not")

    @property
    def size(self) -> int:
        """How many numbers are drawn."""
        return math.prod(self.shape)

    def as_json(self) -> dict[str, Any]:
        """Plain data that `from_json` takes."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "numbers": list(self.numbers),
            "stride": None if self.stride is None else list(self.stride),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Draw":
        """The draw that `as_json` wrote down."""
        return cls(
            plain["kind"],
            tuple(plain["shape"]),
            getattr(torch, plain["dtype"]),
            torch.device(plain["device"]),
            tuple(plain["numbers"]),
            None if plain["stride"] is None else tuple(plain["stride"]),
        )


def usual_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """The stride of a contiguous tensor."""
    found, stride = [], 1  # in words that torch's compiler can follow
    for size in shape[::-1]:
        found.append(stride)
        stride *= max(size, 1)
    return tuple(found[::-1])


def _is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a tensor of this layout fills its memory without gaps or overlaps."""
    if len(stride) != len(shape):
        return False
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected and 0 not in shape:
            return False
        expected *= size
    return True


# For aten operations, the kind of draw and what numbers stand for arguments that they do not have.
OPERATIONS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "aten::randn": ("normal", {"mean": 0.0, "std": 1.0}),
    "aten::randn_like": ("normal", {"mean": 0.0, "std": 1.0}),
    "aten::rand": ("uniform", {"from": 0.0, "to": 1.0}),
    "aten::rand_like": ("uniform", {"from": 0.0, "to": 1.0}),
    "aten::normal": ("normal", {}),
    "aten::normal_": ("normal", {}),
    "aten::uniform_": ("uniform", {}),
    "aten::exponential_": ("exponential", {}),
    "aten::bernoulli": ("bernoulli", {}),
    "aten::bernoulli_": ("bernoulli", {}),
    "aten::log_normal_": ("log_normal", {}),
    "aten::cauchy_": ("cauchy", {}),
    "aten::geometric_": ("geometric", {}),
    "aten::random_": ("randint", {"low": 0}),
    "aten::randint": ("randint", {"low": 0}),
    "aten::randint_like": ("randint", {"low": 0}),
    "aten::randperm": ("randperm", {}),
}


def read_draw(
    operation: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> Draw | None:
    """The draw that an aten operation made; None if it is not random, or cannot be drawn ahead.

    The latter are draws with tensors' values as arguments, with a generator of their own, into `out=`, of complex
    numbers, or into a tensor with gaps in its memory. An operation in place gives the draw of its whole tensor,
    whatever that is a view of.

    Args:
        operation, args, kwargs: the call, as a `TorchDispatchMode` sees it.
        out: what it returned; only its layout is looked at.
    """
    schema = operation._schema
    kind, numbers = OPERATIONS.get(schema.name, ("", {}))
    if not kind:
        return None
    bound = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    bound |= dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | dict(kwargs)
    if bound.get("generator") is not None or "out" in bound or out.dtype not in TYPES or out.layout != torch.strided:
        return None
    if schema.name == "aten::random_":
        if "to" not in bound:
            kind = "random"
        else:
            bound |= {"low": bound.get("from", 0), "high": bound["to"]}
    bound = {**numbers, **bound}
    values = tuple(value for name in NUMBERS[kind] if isinstance(value := bound.get(name), (int, float)))
    if len(values) < len(NUMBERS[kind]) or not _is_dense(out.shape, out.stride()):
        return None
    stride = None if out.is_contiguous() else out.stride()
    return Draw(kind, tuple(out.shape), out.dtype, out.device, values, stride)
