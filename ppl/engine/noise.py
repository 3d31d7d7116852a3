"""The random draws of many steps at once, bit for bit what the steps would draw one after another."""

import ctypes
import warnings
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ppl.engine import native
from ppl.engine.draw import KINDS, NUMBERS, TYPES, Draw, usual_stride

__all__ = ["Noise", "fast_draws"]


class _Draw(ctypes.Structure):
    """A draw as draws.cpp reads it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "type", "contiguous", "size", "row", "dims")),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("stride", ctypes.POINTER(ctypes.c_int64)),
        ("data", ctypes.c_void_p),
        ("first", ctypes.c_double),
        ("second", ctypes.c_double),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
    ]


class Noise:
    """Buffers with the draws of up to `capacity` steps, a row a step, and what fills them.

    The numbers and the generator's state afterwards are those of eager steps that draw one after another. With a
    library (see `fast_draws`), draws on the CPU take a call for all steps, else one for each draw.

    Attributes:
        buffers: one (capacity, total) tensor for each dtype and device among the draws; filled again and again.
        places: for each draw, its buffer's index, and its first and past-the-last column there.
        library: what draws on the CPU; None is torch called from Python. It may be set at any time.
    Args:
        draws: the random draws of a step, in order.
        capacity: the most steps that are drawn at once, at least 1.
        library: as the attribute.
        generator: what draws on the CPU come from; torch's default one if None.
    Raises: ValueError for a capacity below 1.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        capacity: int,
        library: ctypes.CDLL | None = None,
        generator: Generator | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"noise needs a capacity of at least 1 step, it got {capacity}")
        self.draws, self.capacity = tuple(draws), capacity
        self.library, self.generator = library, generator
        kinds = list(dict.fromkeys((draw.dtype, draw.device) for draw in self.draws))
        totals = [0] * len(kinds)
        self.places: list[tuple[int, int, int]] = []
        for draw in self.draws:
            index = kinds.index((draw.dtype, draw.device))
            self.places.append((index, totals[index], totals[index] + draw.size))
            totals[index] += draw.size
        self.buffers = [
            torch.empty(capacity, total, dtype=dtype, device=device)
            for total, (dtype, device) in zip(totals, kinds, strict=True)
        ]
        self._on_cpu = [i for i, draw in enumerate(self.draws) if draw.device.type == "cpu"]
        self._elsewhere = [i for i, draw in enumerate(self.draws) if draw.device.type != "cpu"]
        self._plan = (_Draw * len(self._on_cpu))(*map(self._planned, self._on_cpu))

    def fill(self, n: int) -> None:
        """Draws for `n` steps, into rows 0 to n - 1.

        Raises: ValueError if n is negative or exceeds the capacity.
        """
        if not 0 <= n <= self.capacity:
            raise ValueError(f"this noise holds 0 to {self.capacity} steps, it was asked for {n}")
        if self.library is None:
            self._fill_plainly(n, self._on_cpu, self.generator)
        else:
            self._fill_by(self.library, n)
        self._fill_plainly(n, self._elsewhere, None)

    def rows(self, index: int, n: int) -> Tensor:
        """A view of what draw number `index` is in the first `n` steps: (n, *shape)."""
        buffer, (_, start, _), draw = self.buffers[self.places[index][0]], self.places[index], self.draws[index]
        stride = draw.stride or usual_stride(draw.shape)
        return buffer.as_strided((n, *draw.shape), (buffer.shape[1], *stride), start)

    def _fill_plainly(self, n: int, indices: Sequence[int], generator: Generator | None) -> None:
        calls = [(KINDS[self.draws[i].kind], self.rows(i, n), self.draws[i].numbers) for i in indices]
        for row in range(n):
            for draw, rows, numbers in calls:
                draw(rows[row], *numbers, generator=generator)

    def _fill_by(self, library: ctypes.CDLL, n: int) -> None:
        # without a generator, the library takes torch's default one
        generator = None if self.generator is None else ctypes.c_void_p(self.generator._cdata)  # type: ignore[attr-defined]
        wrong = library.ppl_fill(ctypes.c_int64(n), ctypes.c_int64(len(self._plan)), self._plan, generator)
        if wrong is not None:
            raise RuntimeError(f"the engine's noise could not be drawn: {wrong.decode(errors='replace')}")

    def _planned(self, index: int) -> _Draw:
        draw, (buffer, start, _) = self.draws[index], self.places[index]
        dims, rows = len(draw.shape), self.buffers[buffer]
        first, second = (float(x) for x in (*draw.numbers, 0.0, 0.0)[:2])
        low, high = draw.numbers if draw.kind == "randint" else (0, 0)
        return _Draw(
            kind=list(NUMBERS).index(draw.kind),
            type=TYPES[draw.dtype],
            contiguous=draw.stride is None,
            size=draw.size,
            row=rows.shape[1],
            dims=dims,
            shape=(ctypes.c_int64 * dims)(*draw.shape),
            stride=(ctypes.c_int64 * dims)(*(draw.stride or usual_stride(draw.shape))),
            data=rows.data_ptr() + start * rows.element_size(),
            first=first,
            second=second,
            low=int(low),
            high=int(high),
        )


_agreeing: dict[int, bool] = {}


def fast_draws(build: bool = False, store: native.Store | None = None) -> ctypes.CDLL | None:
    """The library that `Noise` draws with on the CPU, if it is compiled and draws here what torch does.

    The latter is tried once a process, on generators of its own: some thousand numbers must have the same bits. If
    they have not, which no machine is known for, a RuntimeWarning says so once.

    Args:
        build: whether to compile it now if need be, some seconds; else it is None until someone has.
        store: where compiled libraries are kept, see `native.library`.
    Raises: as `native.library`.
    """
    library = native.library("draws", build, store)
    if library is None:
        return None
    library.ppl_fill.restype = ctypes.c_char_p
    if library._handle not in _agreeing:
        _agreeing[library._handle] = _agrees_with_torch(library)
        if not _agreeing[library._handle]:
            message = (
                "the engine's compiled draws are other numbers than torch's here, so that noise is drawn more slowly"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    return library if _agreeing[library._handle] else None


def _agrees_with_torch(library: ctypes.CDLL) -> bool:
    draws = [
        Draw(kind, (size,), dtype, numbers=(0.0, 1.0))
        for size in (1, 7, 17)
        for kind in ("normal", "uniform")
        for dtype in (torch.float32, torch.float64)
    ]
    tried, plain = (Noise(draws, 40, chosen, Generator().manual_seed(0)) for chosen in (library, None))
    tried.fill(40)
    plain.fill(40)
    ends = [noise.generator.get_state() for noise in (tried, plain) if noise.generator is not None]
    return torch.equal(*ends) and all(map(torch.equal, tried.buffers, plain.buffers))
