"""The engine that runs workers as processes of this machine.

Must never: hold policy, or more state than the supervisor it speaks for.
"""

from __future__ import annotations

from collections.abc import Callable

from modelcloud.node.supervisor import Supervisor
from modelcloud.types import Desired, Observed, Routing


class LocalEngine:
    """`engines.base.Engine` over the supervisor of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def want(self, desired: Desired) -> None:
        """Make this so for one deployment; returns at once."""
        self._supervisor.want(desired)

    def route(self, routing: Routing) -> None:
        """Reach the services like this; returns at once."""
        self._supervisor.route(routing)

    def observe(self, deployment: str) -> Observed:
        """What is there now of a deployment."""
        return self._supervisor.observe(deployment)

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with each deployment that has changed; the result ends that."""
        return self._supervisor.on_change(callback)
