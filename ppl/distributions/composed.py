"""Distributions that torch builds from another one, checked in our words."""

from __future__ import annotations

from typing import Any


class Composed:
    """A mixin for distributions whose __init__ in torch builds another distribution and hands `validate_args` to it.

    The inner one is built unchecked, so that only the outer one's arguments are checked, by their own names, and
    nothing is checked where validation is off. Stands before torch's class in the bases.
    """

    expands_without_init = True

    def __init__(self, *args: Any, validate_args: bool | None = None, **kwargs: Any) -> None:
        torchs: Any = super()
        torchs.__init__(*args, validate_args=False, **kwargs)
        this: Any = self
        this._check(validate_args)
