"""The one seam to where workers run. Everything above decides on data; everything below acts.

Must never: hold policy. An engine is told the whole wanted set and makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from modelcloud.types import Desired, Observed


class Engine(Protocol):
    """Runs the workers of generations: as processes of this machine, or on a cluster."""

    def want(self, desired: Desired) -> None:
        """Make this so, in place of the earlier wish; returns at once and may be repeated."""

    def observe(self, service: str) -> Observed:
        """What is there now."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` (on the event loop, coalesced) after anything observable changed."""
