"""What a function did, as data: a list of tensor operations with inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Constants of more entries than this are inputs of a program rather than part of it.
SMALL = 64


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of a program, by its number."""

    index: int


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: its name such as "aten.add.Tensor", and its arguments, in which tensors are references."""

    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any  # a reference, or a nest of them
    _reads: tuple[int, ...] | None = field(default=None, init=False, compare=False, repr=False)
    _makes: tuple[int, ...] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def function(self) -> Any:
        """The operation itself."""
        return operation(self.target)

    def reads(self) -> tuple[int, ...]:
        """The numbers of the values that go in."""
        if self._reads is None:
            object.__setattr__(self, "_reads", (*references(self.args), *references(dict(self.kwargs))))
        return self._reads or ()

    def makes(self) -> tuple[int, ...]:
        """The numbers of the values that come out; one that went in was written into."""
        if self._makes is None:
            object.__setattr__(self, "_makes", tuple(references(self.out)))
        return self._makes or ()


@dataclass(frozen=True, slots=True)
class Spec:
    """The shape of a tensor, and what else is fixed about an input."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Spec:
        """What a tensor is like."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def encode(self) -> list[Any]:
        """As nested lists, strings and numbers."""
        return [list(self.shape), list(self.strides), encode(self.dtype), encode(self.device)]

    @classmethod
    def decode(cls, code: Sequence[Any]) -> Spec:
        """What `encode` wrote."""
        shape, strides, dtype, device = code
        return cls(tuple(shape), tuple(strides), decode(dtype), decode(device))

    def example(self) -> Tensor:
        """A tensor like that, of zeros."""
        empty = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)
        return empty.zero_()


@dataclass(slots=True)
class Program:
    """A function of tensors without Python: operations in the order in which they ran."""

    inputs: dict[int, Spec] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def run(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """Do all operations; returns all values by number, those given among them.

        Args: values, of all inputs; what the program writes into is written into.
        """
        known = {**self.constants, **values}
        for op in self.ops:
            args, kwargs = mapped((op.args, dict(op.kwargs)), Ref, lambda ref: known[ref.index])
            bind(op.out, op.function(*args, **kwargs), known)
        return known

    # -- as text

    def encode(self) -> dict[str, Any]:
        """The program as nested lists, strings and numbers."""
        return {
            "inputs": [[index, spec.encode()] for index, spec in self.inputs.items()],
            "constants": [[index, encode(t.tolist()), encode(t.dtype)] for index, t in self.constants.items()],
            "ops": [[op.target, encode(op.args), encode(dict(op.kwargs)), encode(op.out)] for op in self.ops],
            "outputs": self.outputs,
        }

    @classmethod
    def decode(cls, code: Mapping[str, Any]) -> Program:
        """The program that `encode` wrote."""
        program = cls(outputs=list(code["outputs"]))
        for index, spec in code["inputs"]:
            program.inputs[index] = Spec.decode(spec)
        for index, values, dtype in code["constants"]:
            program.constants[index] = torch.tensor(decode(values), dtype=decode(dtype))
        for target, args, kwargs, out in code["ops"]:
            program.ops.append(Op(target, tuple(decode(args)), decode(kwargs), decode(out)))
        return program

    def same_as(self, other: Program) -> bool:
        """Whether another program does the same with the same numbers."""
        if self.inputs != other.inputs or self.outputs != other.outputs:
            return False
        if self.ops != other.ops and repr(self.ops) != repr(other.ops):  # NaN is not equal to itself
            return False
        constants = zip(self.constants.items(), other.constants.items(), strict=False)
        return self.constants.keys() == other.constants.keys() and all(
            i == j and a.dtype == b.dtype and a.shape == b.shape and repr(a.tolist()) == repr(b.tolist())
            for (i, a), (j, b) in constants
        )

    def __str__(self) -> str:
        lines = [f"%{i}: input {_shape(spec)}" for i, spec in self.inputs.items()]
        lines += [f"%{i} = {c.tolist()}" for i, c in self.constants.items()]
        for op in self.ops:
            words = [_word(a) for a in op.args] + [f"{key}={_word(value)}" for key, value in op.kwargs.items()]
            lines.append(f"{_word(op.out)} = {op.target}({', '.join(words)})")
        return "\n".join([*lines, f"return {', '.join(f'%{i}' for i in self.outputs)}"])


def operation(target: str) -> Any:
    """The operation of a name such as "aten.add.Tensor"."""
    found: Any = torch.ops
    for part in target.split("."):
        found = getattr(found, part)
    return found


def mapped(nest: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """A nest of arguments with a function applied to all parts of one type."""
    if isinstance(nest, kind):
        return function(nest)
    if isinstance(nest, (list, tuple)):
        parts = [mapped(part, kind, function) for part in nest]
        return parts if isinstance(nest, list) else tuple(parts)
    if isinstance(nest, dict):
        return {key: mapped(part, kind, function) for key, part in nest.items()}
    return nest


def references(nest: Any) -> list[int]:
    """The numbers of all values in a nest of arguments."""
    if isinstance(nest, Ref):
        return [nest.index]
    if isinstance(nest, (list, tuple)):
        return [index for part in nest for index in references(part)]
    if isinstance(nest, dict):
        return [index for part in nest.values() for index in references(part)]
    return []


def bind(out: Any, result: Any, known: dict[int, Any]) -> None:
    """Write the parts of a result down under the numbers of a nest like it."""
    if isinstance(out, Ref):
        known[out.index] = result
    elif isinstance(out, (list, tuple)):
        for part, one in zip(out, result, strict=True):
            bind(part, one, known)


# -- encoding

_TORCH = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}


def encode(value: Any) -> Any:
    """An argument of an operation as lists, strings and numbers.

    Raises: ValueError for what cannot be written down.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Ref):
        return {"ref": value.index}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    if isinstance(value, dict):
        return {"dict": {key: encode(part) for key, part in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    for kind, name in _TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    raise ValueError(f"an argument of type {type(value).__name__} cannot be part of a program: {value!r}.")


def decode(code: Any) -> Any:
    """The argument that `encode` wrote."""
    if isinstance(code, list):
        return [decode(part) for part in code]
    if not isinstance(code, dict):
        return code
    (kind, content), *_ = code.items()
    if kind == "ref":
        return Ref(content)
    if kind == "dict":
        return {key: decode(part) for key, part in content.items()}
    if kind == "device":
        return torch.device(content)
    if kind == "complex":
        return complex(*content)
    return getattr(torch, content)


def _shape(spec: Spec) -> str:
    return f"{str(spec.dtype).removeprefix('torch.')}{list(spec.shape)}"


def _word(argument: Any) -> str:
    if isinstance(argument, Ref):
        return f"%{argument.index}"
    if isinstance(argument, (list, tuple)):
        return f"[{', '.join(_word(part) for part in argument)}]"
    return str(argument)
