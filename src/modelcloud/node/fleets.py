"""The fleets of all deployments: made when they are wanted, looked at in turn, forgotten when gone.

Must never: know of gateways or routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from modelcloud.node.fleet import Fleet
from modelcloud.node.worker import Surroundings, Worker
from modelcloud.types import Desired

#: After so long a look leaves the other deployments to the next one: each process that it starts
#: takes a while, and the gateways wait.
LOOK_S = 0.1


class Fleets:
    """By the keys of their deployments.

    Args:
        around: what the workers of a node share.
        on_touch: called when there is something to `reconcile`.
    """

    def __init__(self, around: Surroundings, on_touch: Callable[[], None]) -> None:
        self._around = around
        self._on_touch = on_touch
        self._fleets: dict[str, Fleet] = {}
        self._numbers = count(1)  # of workers
        self._past_deaths = 0  # of workers of deployments that were forgotten
        self._touched: set[str] = set()
        self._revisions: dict[str, int] = {}  # of each, when `changed` was asked last

    def __iter__(self) -> Iterator[str]:
        return iter(self._fleets)

    def get(self, deployment: str) -> Fleet | None:
        """Its fleet, if anything of it is wanted or left."""
        return self._fleets.get(deployment)

    @property
    def workers(self) -> list[Worker]:
        """Every worker that was not reaped."""
        return [worker for fleet in self._fleets.values() for worker in fleet.workers]

    @property
    def deaths(self) -> int:
        """How many workers have ended unasked so far."""
        return self._past_deaths + sum(fleet.deaths for fleet in self._fleets.values())

    def want(self, desired: Desired) -> None:
        """Make this so for one deployment."""
        key = desired.deployment
        if key not in self._fleets:
            if not desired.generations:
                return
            self._fleets[key] = Fleet(
                key, self._around, numbers=self._numbers, on_change=lambda: self._touch(key)
            )
        self._fleets[key].want(desired)

    def want_nothing(self) -> None:
        """Have no worker of any deployment."""
        for key, fleet in self._fleets.items():
            fleet.want(Desired(deployment=key))

    def touch_all(self) -> None:
        """Have the next `reconcile` look at all of them: time has passed."""
        self._touched.update(self._fleets)

    def reconcile(self) -> None:
        """Bring those that something happened to closer to what is wanted.

        What would take longer than `LOOK_S` is left for the next time, save the first.
        """
        began = time.monotonic()
        touched, self._touched = self._touched, set()
        late = False
        for key in [key for key in self._fleets if key in touched]:
            if late:
                self._touch(key)
                continue
            self._fleets[key].reconcile()
            late = time.monotonic() - began > LOOK_S

    def changed(self) -> list[Fleet]:
        """Those of which something is new since this was last asked."""
        found = [
            fleet
            for key, fleet in self._fleets.items()
            if fleet.revision != self._revisions.get(key)
        ]
        self._revisions.update({fleet.deployment: fleet.revision for fleet in found})
        return found

    def forget(self, routed: Callable[[str], bool]) -> set[str]:
        """Drop those of which nothing is wanted, left or `routed`; returns their keys."""
        gone = {
            key for key, fleet in self._fleets.items() if not fleet.generations and not routed(key)
        }
        for key in gone:
            self._past_deaths += self._fleets.pop(key).deaths
            self._revisions.pop(key, None)
        return gone

    def _touch(self, deployment: str) -> None:
        self._touched.add(deployment)
        self._on_touch()
