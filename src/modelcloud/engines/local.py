"""The engine that runs workers as processes of this machine.

Must never: hold policy, or more state than the supervisor it speaks for.
"""

from __future__ import annotations

from collections.abc import Callable

from modelcloud.node.supervisor import Supervisor
from modelcloud.types import Desired, Observed


class LocalEngine:
    """`engines.base.Engine` over the supervisor of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def want(self, desired: Desired) -> None:
        """Make this so; returns at once."""
        self._supervisor.want(desired)

    def observe(self, service: str) -> Observed:
        """What is there now."""
        return self._supervisor.observe(service)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after anything observable changed."""
        self._supervisor.on_change(callback)
