"""What is known of a tensor, told by the object and its version counter."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class Seen:
    """What is known of a tensor, as long as it is the same object and nobody writes into it.

    It is not kept alive, and is no part of what is copied or written to a file: there nothing is known.
    """

    __slots__ = ("_known", "_of", "_version")

    def __init__(self, tensor: Tensor | None = None, known: Any = None) -> None:
        self._of = None if tensor is None else weakref.ref(tensor)
        self._version, self._known = -1 if tensor is None else _version(tensor), known

    def of(self, tensor: Tensor) -> Any:
        """What is known, if this is the tensor, unchanged; else None.

        So it is for tensors made in inference mode too, whose writes nobody counts.
        It is one question, because other threads may put another object of this class in its place meanwhile.
        """
        same = self._of is not None and self._of() is tensor and -1 != self._version == _version(tensor)
        return self._known if same else None

    def __reduce__(self) -> tuple[type[Seen], tuple[()]]:
        return Seen, ()


def _version(tensor: Tensor) -> int:
    """The version counter, which every write raises; -1 where there is none."""
    return -1 if tensor.is_inference() else tensor._version
