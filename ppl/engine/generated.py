"""What is done otherwise in the code that torch's compiler generates for a processor."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch._inductor import config, graph, ir
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


class _Tile(cpp.CppTile2DKernel):
    """Where several threads add to a tensor, torch 2.13 counts the place within a tile twice, and adds beside it."""

    def store(self, name: str, index: Any, value: Any, mode: Any = None) -> None:
        turned: Any = self.need_vec_transpose  # torch's compiler has no types
        shared = config.cpp.dynamic_threads or self.num_threads != 1
        counts_twice = mode == "atomic_add" and shared and not turned(self.rename_indexing(index))
        usual: Any = cpp.CppVecKernel if counts_twice else cpp.CppTile2DKernel
        usual.store(self, name, index, value, mode)


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
    """Within, programs for the CPU keep their small tensors (see `kept.h`), and threads that add add at the right places.

    Args: own, those of a loop's carries that its turns may write into, by place.
    """
    common.init_backend_registration()
    usual, usual_part, usual_tile = common.device_codegens["cpu"], graph.SubgraphLowering, cpp.CppTile2DKernel
    common.device_codegens["cpu"] = dataclasses.replace(usual, cpp_wrapper_codegen=_Wrapper)
    graph.SubgraphLowering = _graph_for(own)  # type: ignore[misc]  # which is what a loop's parts are made by
    cpp.CppKernelProxy.tile2d_kernel_cls = _Tile
    try:
        yield
    finally:
        common.device_codegens["cpu"] = usual
        graph.SubgraphLowering = usual_part  # type: ignore[misc]
        cpp.CppKernelProxy.tile2d_kernel_cls = usual_tile
