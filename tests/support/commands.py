"""How a command of the command line ended."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple


class Said(NamedTuple):
    """Exit status, and what went to stdout and stderr."""

    status: int
    out: str
    err: str


Run = Callable[..., Said]


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        """It is one."""
        return True
