"""What is done otherwise in the code that torch's compiler generates for a processor."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch._inductor import graph, ir
from torch._inductor.codegen import common, cpp
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.virtualized import V

HEADER = Path(__file__).with_name("kept.h")


class _Wrapper(CppWrapperCpu):
    @staticmethod
    def create(*_: Any) -> _Wrapper:
        return _Wrapper()  # type: ignore[no-untyped-call]  # torch's compiler has no types

    def write_header(self) -> None:
        super().write_header()  # type: ignore[no-untyped-call]  # as above
        if not V.graph.is_const_graph:
            self.header.splice(HEADER.read_text())


class _Adds:
    """A loop's body in which additions at places that a tensor says are plain ones: its loop is no other thread's.

    Torch 2.13 makes them atomic, so that their order, and with it the last digits of the sum, is left to the threads; and in
    tiles of two dims it counts the place within the tile twice, and writes beyond the tensor.
    """

    adds = False
    num_threads: int

    def store(self, name: str, index: Any, value: Any, mode: Any = None) -> None:
        usual: Any = super()
        threads = self.num_threads
        if mode == "atomic_add":
            self.adds, self.num_threads = True, 1
        usual.store(name, index, value, mode)
        self.num_threads = threads


class _Scalar(_Adds, cpp.CppKernel):
    pass


class _Vector(_Adds, cpp.CppVecKernel):
    pass


class _Tile(_Vector, cpp.CppTile2DKernel):
    pass


class _Loop(cpp.CppKernelProxy):
    """A loop, which one thread runs if its body adds."""

    kernel_cls, vec_kernel_cls, tile2d_kernel_cls = _Scalar, _Vector, _Tile

    @property
    def adds(self) -> bool:
        return any(getattr(kernel, "adds", False) for kernel in self.kernels)

    def decide_parallel_depth(self, deepest: Any, threads: int) -> Any:
        return _depth(super().decide_parallel_depth, deepest, 1 if self.adds else threads)


class _Loops(cpp.OuterLoopFusedKernel):
    """Several loops within one, as `_Loop`."""

    def decide_parallel_depth(self, deepest: Any, threads: int) -> Any:
        adds = any(getattr(loop.get_kernel(), "adds", False) for loop in self.inner)
        return _depth(super().decide_parallel_depth, deepest, 1 if adds else threads)


def _depth(usual: Any, deepest: Any, threads: int) -> Any:
    """How many of a loop's dims are shared out among threads: none for one thread."""
    return usual(deepest, threads) if threads > 1 else dataclasses.replace(deepest, parallel_depth=0)


class _Scheduling(cpp.CppScheduling):
    kernel_proxy_cls = _Loop


def _graph_for(own: range) -> type[graph.SubgraphLowering]:
    class Part(graph.SubgraphLowering):
        def placeholder(self, target: str, args: Any, kwargs: Any) -> Any:  # type: ignore[override]
            found = super().placeholder(target, args, kwargs)
            name, place = self.graph_input_names[-1], len(self.graph_input_names) - 1
            given = self.graph_inputs_original[name]
            if "while_loop_body" not in self.name or place not in own or type(given) is not ir.InputBuffer:
                return found
            own_one = ir.DonatedBuffer(name=name, layout=given.layout)
            found = ir.TensorBox.create(own_one)
            self.graph_inputs[name], self.graph_inputs_original[name] = found, own_one
            return found

    return Part


@contextlib.contextmanager
def improved(own: range = range(0)) -> Iterator[None]:
    """Within, programs for the CPU keep their small tensors (see `kept.h`), and add in order (see `_Adds`).

    Args: own, those of a loop's carries that its turns may write into, by place.
    """
    common.init_backend_registration()
    usual = common.device_codegens["cpu"], graph.SubgraphLowering, cpp.OuterLoopFusedKernel
    _use(dataclasses.replace(usual[0], scheduling=_Scheduling, cpp_wrapper_codegen=_Wrapper), _graph_for(own), _Loops)
    try:
        yield
    finally:
        _use(*usual)


def _use(cpu: common.DeviceCodegen, part: type[graph.SubgraphLowering], loops: type[cpp.OuterLoopFusedKernel]) -> None:
    common.device_codegens["cpu"] = cpu
    graph.SubgraphLowering = part  # type: ignore[misc]  # which is what a loop's parts are made by
    cpp.OuterLoopFusedKernel = loops  # type: ignore[misc]
