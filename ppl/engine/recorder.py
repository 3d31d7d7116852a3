"""Writing down what a function does with tensors, while it does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ppl.distributions.validation import inside, is_validation_enabled, validation_enabled
from ppl.engine.looks import INSTEAD, Looks
from ppl.engine.program import SMALL, Op, Program, Ref, Spec, mapped, references
from ppl.engine.rewrite import OUTSPOKEN, WithoutLooks
from ppl.engine.split_draws import SPLIT
from ppl.engine.user_code import user_line
from ppl.site import Site
from ppl.stack import Handler, perform
from ppl.tensors.rewind import watcher


class CannotCapture(ValueError):
    """Why a function cannot become a program: the user's line, the site reached, and what to write instead."""

    def __init__(self, reason: str, line: str = "", site: str = "", instead: str = "") -> None:
        where = "".join((f" {line}" if line else "", f" (the latest site before it is '{site}')" if site else ""))
        super().__init__(f"{reason}{' At' + where + '.' if where else ''}{' ' + instead if instead else ''}")
        self.reason, self.line, self.site, self.instead = reason, line, site, instead


def could_not_record(error: Exception) -> CannotCapture:
    """What to raise for any other error that comes up in a recording of what went well before."""
    return CannotCapture(f"Recording it raised {type(error).__name__}: {error}")


@dataclass(slots=True)
class Recording:
    """A program with the tensors that were its inputs when it was recorded."""

    program: Program
    tensors: dict[int, Tensor]  # the tensors from outside by number, all of them inputs
    results: Any  # what the function returned, with tensors replaced by references
    static: set[int] = field(default_factory=set)  # values that depend on nothing that changes from step to step
    written: set[int] = field(default_factory=set)  # inputs that are written into
    looks: list[tuple[Op, Any]] = field(default_factory=list)  # where Python read static values, and what it read
    sites: list[str] = field(default_factory=list)  # the sites met, in order
    memory: dict[int, int] = field(default_factory=dict)  # which values lie in the same memory
    specs: dict[int, Spec] = field(default_factory=dict)  # what each value is like
    originals: dict[int, Tensor] = field(default_factory=dict)  # what inputs held before they were written into

    def number(self, tensor: Tensor) -> int | None:
        """The number of an input."""
        return next((index for index, known in self.tensors.items() if known is tensor), None)


class Recorder(TorchDispatchMode):
    """Writes down every tensor operation in its block.

    Args: changing, the tensors from outside that differ from step to step; what is computed from them cannot be read
        into Python.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler, which takes a second

    def __init__(self, changing: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.program = Program()
        self.tensors: dict[int, Tensor] = {}
        self.static: set[int] = set()
        self.originals: dict[int, Tensor] = {}
        self.looks: list[tuple[Op, Any]] = []
        self.checks: list[Op] = []  # those that nobody asked for
        self.failures: list[Tensor] = []  # not 0 where a matrix could not be factorised: eager steps say so
        self.seen = last_site(self)
        self.read_by = Looks(self)
        self._changing = {id(tensor) for tensor in changing}
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # so that no id comes up twice
        self._draws: list[tuple[Any, tuple[Any, ...], Ref, Tensor]] = []
        self._next_draw = 0
        self._refusal: CannotCapture | None = None
        self.outside: FrameType | None = sys._getframe(1)  # what calls the program; its lines are not the program's
        self._stream = torch.get_rng_state()  # as the latest draw left it

    # -- values

    def ref(self, tensor: Tensor) -> Ref:
        """The reference to a tensor that goes into an operation."""
        index = self._numbers.get(id(tensor))
        if index is None:
            index = self._number(tensor)
            self.tensors[index] = tensor
            self.program.inputs[index] = Spec.of(tensor)
            if id(tensor) not in self._changing:
                self.static.add(index)
        return Ref(index)

    def _number(self, tensor: Tensor) -> int:
        if tensor.layout != torch.strided:
            raise self._refuse("sparse tensors cannot be captured; write dense ones, as in Embedding(sparse=False)")
        index = len(self._kept)
        self._kept.append(tensor)
        self._numbers[id(tensor)] = index
        return index

    def _out(self, tensor: Tensor) -> Ref:
        index = self._numbers.get(id(tensor))
        return Ref(self._number(tensor) if index is None else index)

    def is_static(self, tensor: Tensor) -> bool:
        """Whether a value depends on nothing that changes from step to step, as far as is known by now."""
        return self.ref(tensor).index in self.static

    # -- operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if name == "aten.lift_fresh.default":
            return self._constant(args[0])
        for given in (*args, *kwargs.values()):
            if isinstance(given, torch.Generator):
                raise self._refuse(
                    "draws from a torch.Generator of its own cannot be captured", "use torch's default generator"
                )
        if func in SPLIT and self._next_draw <= len(self._draws) and args[0].device.type == "cpu":
            with self:
                drawn = SPLIT[func](*args, **kwargs)
            if drawn is not None:
                return drawn
        if func in OUTSPOKEN:
            with self:
                return OUTSPOKEN[func](*args, **kwargs)
        if name.startswith("aten.set_."):
            raise self._refuse(
                "a tensor is made of another's memory, as copy.deepcopy and pickle do", "write x.clone() instead"
            )
        refs, named = mapped((args, kwargs), Tensor, self.ref)
        numbers = references((refs, named))
        if name == "aten._linalg_check_errors.default":
            self.failures.append(args[0])
            return func(*args, **kwargs)
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        if is_random:
            self.check_stream()
        if is_random and self._next_draw < len(self._draws):
            return self._again(func, args)
        is_static = not is_random and all(i in self.static for i in numbers)
        depends = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
        if depends and name == "aten.index.Tensor":  # its shape depends on values if they are flags alone
            depends = any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        if depends and not is_static:
            what = f"what {name} gives has a shape that depends on values that change from step to step"
            is_shape = torch.Tag.dynamic_output_shape in func.tags or name == "aten.index.Tensor"
            raise self._refuse(what if is_shape else _READ, self.read_by.instead(is_shape))
        written = written_by(func, args, kwargs)
        for tensor in written:
            is_static = not self._save(tensor) and is_static  # from outside: in the next step it holds something else
        result = func(*args, **kwargs)
        out = mapped(result, Tensor, self._out)
        op = Op(name, tuple(refs), named, out)
        if depends and isinstance(result, (bool, int, float, complex)):
            self.looks.append((op, result))
            return result
        if not is_static:
            self.static.difference_update(self.ref(tensor).index for tensor in written)
        if is_static:
            self.static.update(set(references(out)).difference(numbers))
        self.program.ops.append(op)
        if is_random:
            self._remember(func, args, out, result)
        return result

    def read(self, tensor: Tensor) -> None:
        """All values of a tensor become known to Python, as numpy's array or as text.

        Raises: CannotCapture if they change from step to step.
        """
        ref = self.ref(tensor)
        if ref.index not in self.static:
            raise self._refuse(_READ, self.read_by.instead())
        with _disable_current_modes():
            copy = tensor.detach().clone()
        self.looks.append((Op("aten.equal.default", (ref, self.ref(copy)), {}, None), True))

    def _constant(self, tensor: Tensor) -> Tensor:
        """A tensor that the function made of Python numbers: a small one is part of the program."""
        copy = tensor.clone()
        if tensor.numel() > SMALL or tensor.device.type != "cpu":
            ref: Ref = self.ref(tensor)
        else:
            ref = Ref(len(self._kept))
            self._kept.append(tensor)
            self.program.constants[ref.index] = tensor
            self.static.add(ref.index)
        out = Ref(self._number(copy))
        self.static.add(out.index)
        self.program.ops.append(Op("aten.clone.default", (ref,), {}, out))
        return copy

    # -- draws that are made again

    def draws(self) -> int:
        """How many random operations there have been."""
        return self._next_draw

    def go_back(self, draws: int) -> None:
        """The draws from here on repeat those after the first `draws`."""
        self._next_draw = draws
        self._follow_stream()

    def check_stream(self) -> None:
        """Raise CannotCapture if somebody else has set torch's random state."""
        with _disable_current_modes():
            is_same = torch.equal(torch.get_rng_state(), self._stream)
        if not is_same:
            raise self._refuse(
                "the program sets torch's random state, as torch.manual_seed, fork_rng and handlers.seed do",
                "set it before the run",
            )

    def _follow_stream(self) -> None:
        with _disable_current_modes():
            self._stream = torch.get_rng_state()

    def _save(self, tensor: Tensor) -> bool:
        """Keep what a tensor from outside holds before it is written into, be it through a view; whether it was one."""
        self.ref(tensor)
        place = _memory(tensor)
        found = {i: outside for i, outside in self.tensors.items() if _memory(outside) == place}
        self.originals |= {i: outside.detach().clone() for i, outside in found.items() if i not in self.originals}
        if found:
            self.static -= {i for i, known in enumerate(self._kept) if _memory(known) == place}
        return bool(found)

    def _remember(self, func: Any, args: Any, out: Any, result: Any) -> None:
        if isinstance(result, Tensor):
            if str(func).split(".")[1].endswith("_"):  # the tensor may be written into again
                result = result.clone()
                out = self._copy(out, result)
            self._draws.append((func, args, out, result))
        self._next_draw = len(self._draws)
        self._follow_stream()

    def _again(self, func: Any, args: Any) -> Any:
        first, given, out, result = self._draws[self._next_draw]
        name = str(func).split(".")[1]
        by_shape = name.endswith(("_", "_like"))  # the first argument lends its shape alone
        same = all(_same(a, b) for a, b in list(zip(args, given, strict=False))[by_shape:])
        if first is not func or len(args) != len(given) or not same or (by_shape and args[0].shape != given[0].shape):
            raise self._refuse("runs that start from one random state make different draws")
        self._next_draw += 1
        func(*args)  # so that the generator moves on
        self._follow_stream()
        if name.endswith("_"):
            target: Tensor = args[0]
            self.program.ops.append(Op("aten.copy_.default", (self.ref(target), out), {}, self.ref(target)))
            return target
        copy = result.clone()
        self._copy(out, copy)
        return copy

    def _copy(self, ref: Ref, copy: Tensor) -> Ref:
        made = Ref(self._number(copy))
        self.program.ops.append(Op("aten.clone.default", (ref,), {}, made))
        return made

    # -- afterwards

    def finish(self, results: Any) -> Recording:
        """The recording, once the function has returned."""
        if self._refusal is not None:  # the program caught it, and went on otherwise than it does in a step
            raise self._refusal
        if self._next_draw < len(self._draws):
            raise self._refuse("runs that start from one random state make different numbers of draws")
        outputs = mapped(results, Tensor, self.ref)
        self.program.outputs = references(outputs)
        static = self._find_static()
        for op, _ in self.looks:
            if not static.issuperset(op.reads()) and op not in self.checks:
                raise self._refuse(_READ, INSTEAD[""])
        self.looks = [look for look in self.looks if static.issuperset(look[0].reads())]
        memory = {index: _memory(tensor) for index, tensor in enumerate(self._kept)}
        specs = {index: Spec.of(tensor) for index, tensor in enumerate(self._kept)}
        looks, sites, written = self.looks, self.seen.names, set(self.originals)
        return Recording(
            self.program, self.tensors, outputs, static, written, looks, sites, memory, specs, self.originals
        )

    def undo(self) -> None:
        """Give the tensors from outside back what they held before."""
        with torch.no_grad():
            for i, original in self.originals.items():
                self.tensors[i].copy_(original)

    def _find_static(self) -> set[int]:
        """The values that are alike in all steps: made from static inputs alone, in memory that nothing else is written to."""
        program, tainted = self.program, {_memory(self._kept[i]) for i in self.originals}
        while True:
            start = {i for i, t in self.tensors.items() if id(t) not in self._changing}
            static = {i for i in {*start, *program.constants} if _memory(self._kept[i]) not in tainted}
            before = len(tainted)
            for op in program.ops:
                reads, makes = op.reads(), op.makes()
                is_random = torch.Tag.nondeterministic_seeded in op.function.tags
                memory = {_memory(self._kept[i]) for i in makes}
                if not is_random and static.issuperset(reads) and not memory & tainted:
                    static.update(makes)
                elif set(makes) & set(reads):  # written into
                    tainted |= memory
            if len(tainted) == before:
                return static

    def _refuse(self, reason: str, instead: str = "") -> CannotCapture:
        reached = self.seen.names[-1] if self.seen.names else ""
        self._refusal = CannotCapture(_sentence(reason), user_line(self.outside), reached, _sentence(instead))
        return self._refusal


_READ = "the program reads a value into Python that changes from step to step"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _same(a: Any, b: Any) -> bool:
    """Whether two arguments are the same tensor, or equal and no tensors."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def written_by(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes into, as its signature says."""
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]
    return found


class last_site(Handler):
    """Remembers which sites a program has reached, and looks at data, so that other data are looked at as well."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.names: list[str] = []
        self.recorder = recorder
        self.looks = is_validation_enabled()

    def handle(self, site: Site) -> Site:
        self.names.append(site.name)
        site = perform(site)
        if self.looks and site.kind == "sample" and site.observed and not (site.branch or site.enum_dims):
            fine = inside(site.distribution, site.value)
            if fine is not None and site.mask is not False:
                fine = fine if not isinstance(site.mask, Tensor) else fine | ~site.mask
                if self.recorder.is_static(fine):
                    bool(fine.all())  # written down: another answer means that eager steps must say what is wrong
                    self.recorder.checks.append(self.recorder.looks[-1][0])
        return site


def record(function: Callable[[], Any], changing: Sequence[Tensor] = ()) -> Recording:
    """Run a function once, without a trace, and write down what it does with tensors.

    Torch's random state, and tensors from outside that the function writes into, are as before afterwards.

    Args: changing, the tensors that differ from step to step, such as parameters.
    Raises: CannotCapture naming the user's line where a changing value is read into Python.
    """
    recorder = Recorder(changing)
    token = watcher.set(recorder)
    try:
        rng = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
        with rng, validation_enabled(False), recorder.seen, WithoutLooks(), recorder.read_by, recorder:
            results = function()
            recorder.check_stream()
        return recorder.finish(results)
    finally:
        watcher.reset(token)
        recorder.undo()
        recorder.outside = None


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
