"""Tests that a row of the table says cannot hold for it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def skip_what_cannot_hold(request: pytest.FixtureRequest) -> None:
    """A row names the tests that it cannot pass, each with the reason."""
    call = getattr(request.node, "callspec", None)
    case = call.params.get("case") if call else None
    if hasattr(case, "skips") and request.node.originalname in case.skips:
        pytest.skip(case.skips[request.node.originalname])
