"""The one seam to where workers run. Everything above decides on data; everything below acts.

Must never: hold policy. An engine is told the whole wanted set and makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from modelcloud.types import Desired, Observed, Routing


class Engine(Protocol):
    """Runs the workers of generations: as processes of this machine, or on a cluster."""

    def want(self, desired: Desired) -> None:
        """Make this so, in place of that deployment's earlier wish; returns at once.

        It may be repeated.
        """

    def route(self, routing: Routing) -> None:
        """Reach the services like this from now on; returns at once."""

    def observe(self, deployment: str) -> Observed:
        """What is there now of a deployment."""

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with the key of a deployment after anything observable of it changed.

        It is called on the event loop, once for many changes.

        Returns:
            A function that ends it.
        """
