"""Compiled loops keep the small tensors of a turn for the next one, rather than allocating them anew: see `kept.h`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch._inductor.codegen import common
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.virtualized import V

HEADER = Path(__file__).with_name("kept.h")


class _Wrapper(CppWrapperCpu):
    @staticmethod
    def create(*_: Any) -> _Wrapper:
        return _Wrapper()  # type: ignore[no-untyped-call]

    def write_header(self) -> None:
        super().write_header()  # type: ignore[no-untyped-call]
        if not V.graph.is_const_graph:
            self.header.splice(HEADER.read_text())


@contextlib.contextmanager
def kept_tensors() -> Iterator[None]:
    """Within, programs for the CPU are compiled so."""
    common.init_backend_registration()
    usual = common.device_codegens["cpu"]
    common.device_codegens["cpu"] = dataclasses.replace(usual, cpp_wrapper_codegen=_Wrapper)
    try:
        yield
    finally:
        common.device_codegens["cpu"] = usual
