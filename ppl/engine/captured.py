"""Any function that runs programs, as a graph of parameters, data and random state."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.fx
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl.engine.background import CompileError
from ppl.engine.calls import Calls
from ppl.engine.draw import Draw
from ppl.engine.marks import undone
from ppl.engine.passes import Parts, divide, prepare
from ppl.engine.program import Program, Ref, Spec
from ppl.engine.recorder import CannotCapture, Recorder, Recording, record
from ppl.engine.signature import PLAIN, Arguments
from ppl.engine.training import difference, told_apart
from ppl.params import ParamStore, where_stored
from ppl.tensors.carried import State, carried, carry
from ppl.tensors.rewind import watcher


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that a captured function reads.

    Attributes:
        kind: "argument"; "parameter", of a store or of a module; "mean", one that is replaced from call to call; "buffer",
            another one that is written into; "outside", any other, such as data in a closure.
        name: of an argument, a parameter in a store, or a mean; else "".
        index: its number in the program.
        is_written: whether the function writes into it.
    """

    kind: str
    name: str
    index: int
    spec: Spec
    is_written: bool

    def __str__(self) -> str:
        shape = f"{str(self.spec.dtype).removeprefix('torch.')}{list(self.spec.shape)}"
        return (
            f"{self.kind}{f' {self.name}' if self.name else ''}: {shape}{', written into' if self.is_written else ''}"
        )


class Captured:
    """A function as a program: what `capture` returns.

    Called with arguments like the first ones, it gives what the function would give now: with the current values of
    parameters and of all other tensors that the function reads, and the random numbers that the function would draw. What
    is not a tensor is as it was when captured.

    Attributes:
        inputs: what the program reads.
        program: all operations, as data.
        is_compiled: whether `compile` was called.
    Raises, when called: ValueError naming the argument or parameter, where it is not like the first one; where values of
        the arguments are read into Python, and are others than then; where torch refuses to factorise a matrix.
    """

    def __init__(self, name: str, arguments: Arguments, recording: Recording, states: Sequence[State]) -> None:
        self._name, self._arguments, self._recording, self._states = name, arguments, recording, states
        self._default = torch.get_default_dtype()
        self._results, self._after, self._failed = recording.results
        self._flat = pytree.tree_flatten(self._results)
        self.program: Program = recording.program
        self._parts: Parts
        self._draws: list[tuple[int, Draw]]
        self._parts, self._draws = divide(recording)
        self._calls = Calls(recording, self._parts.step, self._draws, self.program.outputs)
        self._calls.load(None)
        self._stored: dict[int, tuple[ParamStore, str]] = {}
        self._carried: dict[int, tuple[State, str]] = {}
        self._places: dict[int, int] = {}
        self.inputs = [self._describe(i, spec) for i, spec in self.program.inputs.items()]

    def _describe(self, index: int, spec: Spec) -> Input:
        tensor = self._recording.tensors[index]
        written = index in self._recording.written
        kind, name = "buffer" if written else "outside", ""
        place = next((k for k, (_, known) in enumerate(self._arguments.tensors) if known is tensor), None)
        held = [(state, key) for state in self._states for key, known in state.items() if known is tensor]
        if place is not None:
            self._places[index] = place
            kind, name = "argument", self._arguments.tensors[place][0]
        elif held:
            self._carried[index] = held[0]
            kind, name = "mean", held[0][1]
        elif tensor.requires_grad and tensor.is_leaf:
            kind, stored = "parameter", where_stored(tensor)
            if stored is not None:
                self._stored[index] = stored
                name = stored[1]
        return Input(kind, name, index, spec, written)

    @property
    def is_compiled(self) -> bool:
        """Whether a compiled program does the work, instead of one operation after another."""
        return self._calls.is_compiled

    # -- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values = dict(zip(self.program.inputs, self.bind(*args, **kwargs), strict=True))
        given = prepare(self._parts, self._recording, values)
        if given is None:
            raise ValueError(
                f"{self._owner}: values that Python reads, or shapes that depend on them, are others than when it was "
                "captured; capture it again for such data."
            )
        needed = {**values, **dict(zip(self._parts.given, given, strict=True))}
        results = self._calls.run(needed)
        assert results is not None  # nothing is watched
        found, written = results
        known = {**needed, **found}
        if any(bool(known[ref.index].any()) for ref in self._failed):
            raise ValueError(
                f"{self._owner}: a matrix is singular or not positive definite; the function itself says where."
            )
        with torch.no_grad():
            for i, value in written.items():
                values[i].copy_(value)
        for state, after in zip(self._states, self._after, strict=True):
            carry(state)
            state.update({key: known[ref.index] for key, ref in after.items()})
        leaves, structure = self._flat
        return pytree.tree_unflatten([known[one.index] if isinstance(one, Ref) else one for one in leaves], structure)

    def bind(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The tensors that the program would read now, in the order of `inputs`. Raises: ValueError as a call does."""
        if torch.get_default_dtype() != self._default:
            raise ValueError(
                f"{self._owner}: torch's default dtype was {self._default}, but is {torch.get_default_dtype()}; capture it again."
            )
        tensors = self._arguments.match(args, kwargs)
        found = []
        for one in self.inputs:
            i = one.index
            if i in self._places:
                found.append(tensors[self._places[i]])
                continue
            tensor = self._current(i)
            if Spec.of(tensor) != one.spec:
                now = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
                raise ValueError(f"{self._owner}: {one} when captured, but is {now} now; capture it again.")
            found.append(tensor)
        return found

    def _current(self, index: int) -> Tensor:
        if index in self._carried:
            state, key = self._carried[index]
            return state[key]
        if index in self._stored:
            store, name = self._stored[index]
            if name not in store:
                raise ValueError(f"{self._owner}: parameter '{name}' is no longer in its store; capture it again.")
            return store.unconstrained(name)
        return self._recording.tensors[index]

    def compile(self) -> Self:
        """Have the program compiled, which takes half a minute unless it is in the cache; later calls use that.

        Raises: ValueError saying why it cannot be compiled; nothing has changed then.
        """
        try:
            self._calls.compile()
        except CompileError as error:
            raise ValueError(f"{self._owner}: {error}") from error
        return self

    @property
    def _owner(self) -> str:
        return f"captured {self._name}"

    # -- looking inside

    def graph_module(self) -> torch.fx.GraphModule:
        """The program as a graph of torch: placeholders are the `inputs`, the output is what the function returns.

            with torch.no_grad():
                captured.graph_module()(*captured.bind(data))

        It draws from torch's generator and writes into its inputs where the function does; running means that are replaced
        from call to call are a second output, where there are any: a list of dicts.
        """
        graph = torch.fx.Graph()
        root = torch.nn.Module()
        nodes: dict[int, Any] = {}
        for one in self.inputs:
            nodes[one.index] = graph.placeholder(re.sub(r"\W+", "_", f"{one.kind}_{one.name or one.index}"))
        for i, constant in self.program.constants.items():
            root.register_buffer(f"constant_{i}", constant)
            nodes[i] = graph.get_attr(f"constant_{i}")

        def as_nodes(nest: Any) -> Any:
            return pytree.tree_map_only(Ref, lambda ref: nodes[ref.index], nest)

        for op in self.program.ops:
            node = graph.call_function(op.function, as_nodes(op.args), as_nodes(dict(op.kwargs)))
            if isinstance(op.out, Ref):
                nodes[op.out.index] = node
            elif isinstance(op.out, (list, tuple)):
                for place, part in enumerate(op.out):
                    if isinstance(part, Ref):
                        nodes[part.index] = graph.call_function(operator.getitem, (node, place))
        graph.output(as_nodes((self._results, self._after) if self._after else self._results))
        return torch.fx.GraphModule(root, graph)

    def explain(self) -> str:
        """What the program reads, does and gives, in a few lines."""
        ops = [op.target.split(".")[1] for op in self.program.ops]
        often = ", ".join(f"{name} {count}" for name, count in Counter(ops).most_common(6))
        drawn = sum(draw.size for _, draw in self._draws)
        lines = [f"{self._name}: {len(ops)} operations ({often}), {'compiled' if self.is_compiled else 'one by one'}"]
        lines += [f"  {one}" for one in self.inputs]
        if self._draws:
            lines.append(f"  draws {drawn} random number{'s' if drawn > 1 else ''} in {len(self._draws)} places")
        for op, value in self._recording.looks:
            lines.append(f"  {op.target.split('.')[1]} is read into Python, and must stay {value}")
        outputs = [
            self._recording.specs[ref.index] for ref in pytree.tree_leaves(self._results) if isinstance(ref, Ref)
        ]
        shapes = [f"{str(spec.dtype).removeprefix('torch.')}{list(spec.shape)}" for spec in outputs]
        lines.append(f"  gives {', '.join(shapes) or 'no tensor'}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.explain()


def capture(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Captured:
    """A function that runs programs, as one graph of (parameters, data, random state).

        captured = capture(lambda x: trace(model).get_trace(x).log_prob_sum().detach(), data)
        captured(other_data)
        captured.compile()(other_data)

    The function is run a few times, without a trace: parameters that it makes stay, at their first values; the random
    state and all tensors that were there before are afterwards as before. Handlers and `with store:` around this call are
    part of the program.

    Args: args, kwargs: what to call it with. Tensors in them, in lists, tuples and dicts too, become inputs of the program
        (one that is a parameter as well is an argument); all other values become part of it.
    Raises: CannotCapture, a ValueError with the user's line, where a value that changes from call to call is read into
        Python, and where the function does something else each time; ValueError where a result requires gradients.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    args, kwargs = told_apart(args, kwargs)
    arguments = Arguments(f"captured {name}", fn, args, kwargs)
    with undone() as marks:  # makes parameters and looks at everything
        _check_results(name, fn(*args, **kwargs))
    if marks.has_gradients:
        raise CannotCapture(f"{name} calls backward(); let it return torch.autograd.grad(loss, parameters) instead.")
    changing = [*marks.leaves, *marks.means]
    call = _Call(fn, args, kwargs)
    try:
        recording = call.record([*changing, *(tensor for _, tensor in arguments.tensors)])
        changing += [tensor for _, tensor in arguments.tensors]
    except CannotCapture:  # what depends on arguments alone may be read, as long as it stays the same
        recording = call.record(changing)
    again = call.record(changing)
    why = _difference(recording, again)
    if why:
        raise CannotCapture(f"{name} changes from call to call: {why}.")
    captured = Captured(name, arguments, again, call.states)
    with undone():
        captured(*args, **kwargs)
        if not torch.equal(torch.get_rng_state(), call.end):
            raise CannotCapture(
                f"{name} sets torch's random state (by a seed, or by torch.random.fork_rng), which a program cannot."
            )
    return captured


class _Call:
    """A call of a function, to be recorded."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self.states: list[State] = []  # what it carries
        self.end = torch.empty(0)  # torch's random state after it

    def record(self, changing: Sequence[Tensor]) -> Recording:
        """Write down what it gives, and what the mappings that it carries hold then."""

        def run() -> Any:
            results = self._fn(*self._args, **self._kwargs)
            self.end = torch.get_rng_state()
            if any(state.keys() != before.keys() for state, before in noted):
                raise CannotCapture("Its first call makes running means that later ones have; call it once before.")
            recorder = watcher.get()
            failures = recorder.failures if isinstance(recorder, Recorder) else []
            return results, [dict(state) for state, _ in noted], [code.clone() for code in failures]

        with carried() as noted:
            recording = record(run, changing)
        self.states = [state for state, _ in noted]
        return recording


def _check_results(name: str, results: Any) -> None:
    for path, leaf in pytree.tree_flatten_with_path(results)[0]:
        place = f"{name}: its result{pytree.keystr(path)}"
        if isinstance(leaf, Tensor):
            if leaf.requires_grad:
                raise ValueError(
                    f"{place} requires gradients, which a program does not have. Take them inside, by "
                    "torch.autograd.grad(loss, parameters), or return the tensor's detach()."
                )
        elif not isinstance(leaf, PLAIN):
            raise ValueError(
                f"{place} is of type {type(leaf).__name__}; expected tensors, in tuples, lists and dicts if there are several."
            )


def _difference(a: Recording, b: Recording) -> str:
    """Why two recordings are not of one program; empty if they are."""
    if not a.program.same_as(b.program):
        return difference(a, b)
    if [value for _, value in a.looks] != [value for _, value in b.looks] or a.results != b.results:
        return "it reads other values into Python, or gives others"
    for i, j in zip(a.program.inputs, b.program.inputs, strict=True):
        one, other = a.tensors[i], b.tensors[j]
        if one is not other and not torch.equal(one, other):
            return f"a tensor of shape {tuple(one.shape)} that was made outside of torch (by numpy, say) changes"
    return ""
