"""Values that a program reads into Python, seen where torch's operations do not show it; and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

#: What to write in place of functions that cannot be captured, by their names. The empty one stands for all others.
INSTEAD = {
    "__bool__": "for `if`, `while`, `and`, `or` and `not` write torch.where, a mask, or an enumerated site",
    "__contains__": "write (x == value).any() and torch.where in place of `in`",
    "item": "compute with the tensor itself instead of .item()",
    "__float__": "compute with the tensor itself instead of float()",
    "__complex__": "compute with the tensor itself instead of complex()",
    "__int__": "compute with the tensor itself (.long(), .floor()) instead of int()",
    "__index__": "for a length or a number of repetitions that is drawn, run to the largest one and leave the rest out with a "
    "mask, as in ppl.handlers.mask(mask=i < n), or enumerate the site; index tensors rather than lists",
    "numpy": "compute with torch: what numpy gives has no gradient, and would stay as it is in all steps",
    "tolist": "compute with the tensor itself instead of a list of its entries",
    "tensor": "make one tensor of others by torch.stack or torch.cat: torch.tensor([...]) copies their numbers, without gradient",
    "text": "take the text out (a print, an f-string or a name made of it); SVI.run's callback can print, and ppl.deterministic "
    "keeps a value under a name",
    "mask": "for x[mask] write torch.where(mask, x, 0), or a density with ppl.handlers.mask: the number of entries that a mask "
    "keeps may not change",
    "nonzero": "keep the mask itself and write torch.where(mask, x, 0): how many entries there are may not change",
    "repeat_interleave": "give repeat_interleave its output_size, if that is always the same",
    "full": "write x.expand(shape) instead of torch.full(shape, x)",
    "allclose": "write the condition as a tensor, (x - y).abs().max() < tolerance, and torch.where",
    "equal": "write the condition as a tensor, (x == y).all(), and torch.where",
    "clone": "write x.clone() instead of copy.deepcopy(x) or pickle",
    "": "write torch.where, a mask, or an enumerated site instead",
}
_SAME = {
    "__array__": "numpy",
    "__array_wrap__": "numpy",
    "__dlpack__": "numpy",
    "__deepcopy__": "clone",
    "__reduce_ex__": "clone",
    "untyped_storage": "numpy",
    "__repr__": "text",
    "__str__": "text",
    "__format__": "text",
    "as_tensor": "tensor",
    "asarray": "tensor",
    "zeros": "__index__",
    "ones": "__index__",
    "empty": "__index__",
    "rand": "__index__",
    "randn": "__index__",
    "masked_select": "mask",
    "__getitem__": "mask",
    "__setitem__": "mask",
    "argwhere": "nonzero",
    "where": "nonzero",
    "unique": "nonzero",
    "unique_consecutive": "nonzero",
}
#: What gives values to Python without an operation that a recorder would see.
_HIDDEN = frozenset(["numpy", "tolist", "text"])


class Reader(Protocol):
    """Who writes a program down."""

    def read(self, tensor: Tensor) -> None:
        """All values of a tensor become known to Python; raises CannotCapture if they change from step to step."""
        ...


class Looks(TorchFunctionMode):
    """While active, tells a recorder what Python reads, and remembers by which function.

    Args: reader, the recorder.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader
        self.asked = ""  # what the user called, as a key of `INSTEAD`

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        self.asked = _SAME.get(name, name)
        if self.asked in _HIDDEN and args:
            self._reader.read(args[0])
        elif self.asked == "tensor" and args and not isinstance(args[0], Tensor):
            for part in pytree.tree_leaves(args[0]):
                if isinstance(part, Tensor):
                    self._reader.read(part)
        try:
            return func(*args, **kwargs)
        finally:
            self.asked = ""

    def instead(self, is_shape: bool = False) -> str:
        """What to write in place of the function that is running.

        Args: is_shape, whether a shape depends on values, rather than Python asking for a number.
        """
        asked = "__index__" if self.asked == "mask" and not is_shape else self.asked
        return INSTEAD.get(asked, INSTEAD[""])
