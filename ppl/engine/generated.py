"""What is done otherwise in the code that torch's compiler generates for a processor."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch._inductor import config, graph, ir
from torch._inductor.codegen import common
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.virtualized import V

HEADER = Path(__file__).with_name("kept.h")


class AddsAtomically(Exception):
    """Raised where code for several threads adds to a tensor at places that another tensor says.

    In tiles of two dims torch 2.13 counts the place within the tile twice, and the code writes beyond the tensor. Code for
    one thread does not.
    """


@dataclasses.dataclass
class Generated:
    """What was seen of the generated code."""

    adds_atomically: bool = False


def _wrapper_for(seen: Generated) -> type[CppWrapperCpu]:
    class Wrapper(CppWrapperCpu):
        @staticmethod
        def create(*_: Any) -> Wrapper:
            return Wrapper()  # type: ignore[no-untyped-call]  # torch's compiler has no types

        def write_header(self) -> None:
            super().write_header()  # type: ignore[no-untyped-call]  # as above
            if not V.graph.is_const_graph:
                self.header.splice(HEADER.read_text())

        def define_kernel(self, kernel_name: str, kernel_body: str, *rest: Any, **named: Any) -> None:
            if "atomic_add" in kernel_body and config.cpp.threads != 1:
                seen.adds_atomically = True
                raise AddsAtomically
            super().define_kernel(kernel_name, kernel_body, *rest, **named)

    return Wrapper


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
def improved(own: range = range(0)) -> Iterator[Generated]:
    """Within, programs for the CPU keep their small tensors (see `kept.h`), and `AddsAtomically` is raised.

    Args: own, those of a loop's carries that its turns may write into, by place.
    """
    common.init_backend_registration()
    usual, seen, usual_part = common.device_codegens["cpu"], Generated(), graph.SubgraphLowering
    common.device_codegens["cpu"] = dataclasses.replace(usual, cpp_wrapper_codegen=_wrapper_for(seen))
    graph.SubgraphLowering = _graph_for(own)  # type: ignore[misc]  # which is what a loop's parts are made by
    try:
        yield seen
    finally:
        common.device_codegens["cpu"] = usual
        graph.SubgraphLowering = usual_part  # type: ignore[misc]
