"""What a program's functions refer to besides their arguments: whether a run changes it, and how to undo that."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch

from ppl.engine.plain import PLAIN, Plain, are_same, held_by, hooks_of, is_same, values_of
from ppl.engine.random_states import generator_of, global_generators
from ppl.engine.user_code import is_users, line_that_changes, names_in

#: Containers and arrays of more entries are compared by their lengths alone; no more things than this are looked at.
LARGE, MOST, DEEPEST = 4096, 4096, 12
#: The numbers in dictionaries of more entries than this are taken for data.
SMALL = 64

_MISSING = object()
_CONTAINERS = (list, dict, set, deque)


class Change(NamedTuple):
    """Something that a run left different."""

    kind: str  # "variable", "contents", "buffer", or a generator's: "random" or "numpy"
    words: str
    line: str


@dataclass(slots=True)
class _Noted:
    kind: str
    name: str
    words: str
    has_changed: Callable[[], bool]
    restore: Callable[[], None]


class Surroundings:
    """Globals, closures, objects and containers that the user's functions among some things refer to.

    Functions, methods, modules and objects are followed to what they refer to in turn.

    Args: roots, programs and their arguments.
    """

    def __init__(self, *roots: Any) -> None:
        self.iterators: list[Change] = []  # what cannot be looked at without a change
        self._noted: list[_Noted] = []
        self._plain: list[Plain] = []
        self._codes: dict[CodeType, None] = {}
        self._globals: set[tuple[int, str]] = set()
        self._seen: dict[int, Any] = {}  # what was visited, kept alive so that no id comes up twice
        self._common = list(global_generators().values())  # whoever looks at these does it for all functions
        for root in roots:
            self._visit(root, "", 0)

    def changes(self) -> list[Change]:
        """What is different now."""
        return [Change(n.kind, n.words, self._line_of(n.name)) for n in self._noted if n.has_changed()]

    def restore(self) -> None:
        """Put back everything that is different now."""
        for noted in self._noted:
            if noted.has_changed():
                noted.restore()

    def plain(self) -> list[Plain]:
        """The numbers, texts and tensors that the functions refer to: they are fixed in a recorded program."""
        return self._plain

    def modules(self) -> list[torch.nn.Module]:
        """The modules among what the functions refer to."""
        return [thing for thing in self._seen.values() if isinstance(thing, torch.nn.Module)]

    def names(self) -> set[str]:
        """The names of globals and attributes in the user's functions."""
        return {name for code in self._codes for name in names_in(code)}

    def line_that_uses(self, *things: Any) -> str:
        """The first line that names one of some modules, or a method of one of some objects."""
        for visited in self._seen.values():
            if isinstance(visited, FunctionType) and visited.__code__ in self._codes:
                for name in names_in(visited.__code__):
                    value = visited.__globals__.get(name)
                    if any(value is thing or getattr(value, "__self__", None) is thing for thing in things):
                        return line_that_changes(name, [visited.__code__])
        return ""

    # -- walking

    def _visit(self, thing: Any, words: str, depth: int) -> None:
        if isinstance(thing, PLAIN) or id(thing) in self._seen or depth > DEEPEST or len(self._seen) > MOST:
            return
        self._seen[id(thing)] = thing
        with contextlib.suppress(Exception):  # proxies and the like answer questions about themselves with any error
            self._follow(thing, words, depth)

    def _follow(self, thing: Any, words: str, depth: int) -> None:
        if isinstance(thing, FunctionType):
            self._function(thing, depth)
        elif isinstance(thing, MethodType):
            self._visit(thing.__func__, words, depth)
            self._visit(thing.__self__, words, depth)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, thing.args, thing.keywords):
                self._visit(part, words, depth + 1)
        elif isinstance(thing, tuple):
            for part in thing[:LARGE]:
                self._visit(part, words, depth + 1)
        elif isinstance(thing, _CONTAINERS):
            self._container(thing, words, depth)
        elif isinstance(thing, Iterator):
            self.iterators.append(Change("iterator", words, self._line_of(_name_in(words))))
        elif isinstance(thing, type):
            if is_users(_file_of(thing)):
                self._attributes(thing, thing, depth)
        elif not isinstance(thing, ModuleType) and not self._generator(thing, words) and not self._array(thing, words):
            self._object(thing, words, depth)

    def _function(self, function: FunctionType, depth: int) -> None:
        code = function.__code__
        users = is_users(code.co_filename)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
        if users:
            self._codes[code] = None
        for name, cell in cells:
            value = _content(cell)
            if users:
                words = f"the variable '{name}' of the enclosing function"
                self._variable(name, words, functools.partial(_content, cell), functools.partial(_fill, cell))
            self._visit(value, f"'{name}'", depth + 1)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._visit(default, f"a default argument of {function.__name__}", depth + 1)
        self._visit(getattr(function, "__wrapped__", None), "", depth + 1)
        if not users:
            return
        names, space = names_in(code), function.__globals__
        for name in names:
            if (id(space), name) in self._globals:
                continue
            self._globals.add((id(space), name))
            value = space.get(name, _MISSING)
            self._variable(name, f"the global '{name}'", *_entry(space, name))
            if isinstance(value, ModuleType) and is_users(getattr(value, "__file__", None) or "<frozen"):
                for inner in names:
                    words = f"'{value.__name__}.{inner}'"
                    self._variable(inner, words, *_entry(vars(value), inner))
                    self._visit(vars(value).get(inner), words, depth + 1)
            elif value is not _MISSING:
                self._visit(value, f"'{name}'", depth + 1)

    def _object(self, thing: Any, words: str, depth: int) -> None:
        classes = [cls for cls in type(thing).__mro__ if cls is not object]
        users = [cls for cls in classes if is_users(_file_of(cls))]
        for cls in users:
            for part in vars(cls).values():
                self._visit(getattr(part, "__func__", getattr(part, "fget", part)), words, depth + 1)
            self._attributes(cls, cls, depth)
        if isinstance(thing, torch.nn.Module):
            for space, what in ((thing._buffers, "buffer"), (thing._parameters, "parameter")):
                for name in space:
                    text = f"the {what} '{name}' of {type(thing).__name__}"
                    self._variable(name, text, *_entry(space, name), kind="buffer")
            text = f"the attribute 'training' of {type(thing).__name__}"
            self._variable("training", text, *_entry(vars(thing), "training"))
            self._visit(tuple(thing._modules.values()), words, depth)
            for hooks in hooks_of(thing):
                self._visit(tuple(hooks.values()), f"a hook of {type(thing).__name__}", depth)
            held = functools.partial(held_by, thing)
            self._fix("", f"what a module of class {type(thing).__name__} holds", held, held(), are_same)
        if users:
            self._attributes(thing, type(thing), depth, is_mixed=len(users) < len(classes))
        elif hasattr(thing, "__dict__") and depth < DEEPEST // 2:  # a handler or guide around the user's functions
            for name, value in vars(thing).items():
                if isinstance(value, (FunctionType, MethodType, functools.partial, torch.nn.Module)) or (
                    callable(value) and not isinstance(value, type)
                ):
                    self._visit(value, f"'{name}'", depth + 1)

    def _attributes(self, thing: Any, cls: type, depth: int, is_mixed: bool = False) -> None:
        """Note what an object or class of the user's holds; of one that is partly a library's, what functions name."""
        slots = [name for c in cls.__mro__ for name in getattr(c, "__slots__", ()) if isinstance(name, str)]
        for name in [*getattr(thing, "__dict__", {}), *slots]:
            value = getattr(thing, name, _MISSING) if name in slots else vars(thing)[name]
            is_code = isinstance(value, (FunctionType, staticmethod, classmethod, property))
            if name.startswith("__") or (thing is cls and (is_code or name == "_abc_impl")):
                continue
            if isinstance(thing, torch.nn.Module) and name in _OF_MODULES:
                continue
            words = f"the attribute '{name}' of {cls.__name__}"
            self._variable(name, words, *_attribute(thing, name), only_named=is_mixed)
            self._visit(value, words, depth + 1)
        if thing is not cls and hasattr(thing, "__dict__"):
            self._new_attributes(thing, cls, is_mixed)

    def _new_attributes(self, thing: Any, cls: type, is_mixed: bool) -> None:
        space = vars(thing)
        before = set(space)

        def has_changed() -> bool:
            new = [n for n in space if n not in before and (not is_mixed or self._is_named(n))]
            noted.name = new[0] if new else ""
            noted.words = f"the attribute '{noted.name}' of {cls.__name__}"
            return bool(new)

        def restore() -> None:
            for name in set(space) - before:
                if not is_mixed or self._is_named(name):
                    del space[name]

        noted = _Noted("variable", "", "", has_changed, restore)
        self._noted.append(noted)

    def _is_named(self, name: str) -> bool:
        return any(name in names_in(code) for code in self._codes)

    # -- noting

    def _variable(
        self,
        name: str,
        words: str,
        get: Callable[[], Any],
        put: Callable[[Any], None],
        only_named: bool = False,
        kind: str = "variable",
    ) -> None:
        old = get()
        is_fixed = isinstance(old, PLAIN) or not (only_named or isinstance(old, (ModuleType, type)))
        if is_fixed and kind == "variable":
            self._fix(name, words, get, old)

        def has_changed() -> bool:
            if is_same(get(), old):
                return False
            return not only_named or self._is_named(name)

        self._noted.append(_Noted(kind, name, words, has_changed, lambda: put(old)))

    def _fix(
        self, name: str, words: str, get: Callable[[], Any], old: Any, same: Callable[[Any, Any], bool] = is_same
    ) -> None:
        self._plain.append(Plain(words, functools.partial(self._line_of, name), get, old, same))

    def _container(self, thing: Any, words: str, depth: int) -> None:
        size = len(thing)
        old = thing.copy() if size <= LARGE else None

        def has_changed() -> bool:
            if len(thing) != size or old is None:
                return len(thing) != size
            if isinstance(thing, set):
                return bool(thing != old)
            if isinstance(thing, dict) and not all(map(is_same, thing, old)):
                return True
            values = (thing.values(), old.values()) if isinstance(thing, dict) else (thing, old)
            return not all(map(is_same, *values))

        def restore() -> None:
            if old is not None:
                thing.clear()
                thing.extend(old) if isinstance(thing, (list, deque)) else thing.update(old)
            elif isinstance(thing, list):
                del thing[size:]

        text = f"what {words or f'a {type(thing).__name__} among the arguments'} holds"
        self._noted.append(_Noted("contents", _name_in(words), text, has_changed, restore))
        if words:
            self._fix(_name_in(words), f"the length of {words}", thing.__len__, size)
        values = functools.partial(values_of, thing)
        by_item = words and size <= SMALL and isinstance(thing, (dict, list))
        if by_item:
            for key, value in thing.items() if isinstance(thing, dict) else enumerate(thing):
                if isinstance(value, PLAIN):
                    self._fix(_name_in(words), f"{words}[{key!r}]", _item(thing, key), value)
        if old is not None and not (by_item and all(isinstance(value, PLAIN) for value in values())):
            self._fix(_name_in(words), text, values, values(), are_same)
        if old is not None:
            for part in list(old.values() if isinstance(old, dict) else old):
                self._visit(part, words, depth + 1)

    def _generator(self, thing: Any, words: str) -> bool:
        """Note the state of a random generator; returns whether it was one."""
        found = generator_of(thing)
        if found is not None and not any(thing is known for known in self._common):
            old, words = found.state(), f"the generator {words}"
            changed = lambda: found.state() != old  # noqa: E731
            self._noted.append(_Noted(found.kind, _name_in(words), words, changed, lambda: found.set_back(old)))
        return found is not None

    def _array(self, thing: Any, words: str) -> bool:
        numpy: Any = sys.modules.get("numpy")
        if numpy is None or not isinstance(thing, numpy.ndarray):
            return False
        if thing.size <= LARGE and thing.dtype != object:
            old = thing.copy()

            def restore() -> None:
                thing[...] = old

            text = f"what {words or 'an array among the arguments'} holds"
            self._noted.append(
                _Noted("contents", _name_in(words), text, lambda: thing.tobytes() != old.tobytes(), restore)
            )
            self._fix(_name_in(words), text, thing.tobytes, thing.tobytes())
        return True

    def _line_of(self, name: str) -> str:
        return line_that_changes(name, self._codes)


_OF_MODULES = frozenset(vars(torch.nn.Module()))


def _file_of(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" or cls.__name__ in (
        "SimpleNamespace",
        "Namespace",
    ):  # these hold what is the user's
        return "<main>"
    return getattr(module, "__file__", None) or "<frozen"


def _name_in(words: str) -> str:
    """The name that is quoted in words such as "the global 'x'"."""
    parts = words.split("'")
    return parts[1].split(".")[-1] if len(parts) > 2 else ""


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _fill(cell: Any, value: Any) -> None:
    if value is _MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value


def _entry(space: Any, name: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """How to read and to write an entry of a dictionary."""

    def put(value: Any) -> None:
        if value is _MISSING:
            space.pop(name, None)
        else:
            space[name] = value

    return (lambda: space.get(name, _MISSING)), put


def _item(container: Any, key: Any) -> Callable[[], Any]:
    """How to read an item that may no longer be there."""

    def get() -> Any:
        try:
            return container[key]
        except LookupError:
            return _MISSING

    return get


def _attribute(thing: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """How to read and to write an attribute."""
    if not isinstance(thing, type) and name in getattr(thing, "__dict__", {}):
        return _entry(vars(thing), name)

    def get() -> Any:  # of a class, or in a slot
        return vars(thing).get(name, _MISSING) if isinstance(thing, type) else getattr(thing, name, _MISSING)

    def put(value: Any) -> None:
        if value is _MISSING:
            delattr(thing, name)
        else:
            setattr(thing, name, value)

    return get, put
