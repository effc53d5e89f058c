"""Which worker of the node is which replica of the cluster, and how many each application needs.

Must never: send, wait or read a clock: plain data, told what happened and the time.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

#: An application keeps its replicas for so long after a worker of it ended: another mostly follows.
KEEP_S = 5.0
#: Applications and replicas that the bridge finds have so long for a worker to claim them.
CLAIM_S = 60.0


class Match(NamedTuple):
    """The worker is this replica from now on. `known`: the replica says so itself already."""

    worker: int
    replica: str
    known: bool


class _Replica:
    def __init__(self, app: str, claims: int) -> None:
        self.app = app
        self.claims = claims  # the worker that it says it is; 0: none
        self.worker = 0


class Slots:
    """Workers that the node wants (slots), and the replicas that are there.

    Args:
        now: monotonic seconds, when this began.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._apps: dict[int, str] = {}  # worker → application
        self._replicas: dict[str, _Replica] = {}
        self._most: dict[str, tuple[int, float]] = {}  # application → wanted lately, until when

    def begin(self, worker: int, app: str) -> None:
        """The node wants this worker."""
        self._apps[worker] = app

    def end(self, worker: int, now: float) -> None:
        """It is gone, or wanted no more. Its replica may become another one."""
        app = self._apps.get(worker)
        if app is None:
            return
        count = self._count(app)
        self._most[app] = (max(count, self._lately(app, now)), now + KEEP_S)
        del self._apps[worker]
        for replica in self._replicas.values():
            if replica.worker == worker:
                replica.worker = replica.claims = 0

    def arrived(self, replica: str, app: str, claims: int) -> None:
        """A replica has called, and says which worker it is, if it is one."""
        self._replicas[replica] = _Replica(app, claims)

    def left(self, replica: str) -> int:
        """A replica is gone; gives the worker that it was, or 0."""
        gone = self._replicas.pop(replica, None)
        return 0 if gone is None else gone.worker

    def replica_of(self, worker: int) -> str:
        """The replica that a worker is; "" while there is none."""
        for name, replica in self._replicas.items():
            if replica.worker == worker:
                return name
        return ""

    def worker_of(self, replica: str) -> int:
        """The worker that a replica is; 0: none."""
        found = self._replicas.get(replica)
        return 0 if found is None else found.worker

    def workers(self, app: str) -> list[int]:
        """Those that an application is to hold."""
        return [worker for worker, theirs in self._apps.items() if theirs == app]

    def match(self) -> list[Match]:
        """Give every worker without a replica one that is free, first of all its own.

        One that holds a loaded model of a worker that is no more comes before an empty one.
        """
        found = []
        for name, replica in self._replicas.items():
            claimed = replica.claims
            if not replica.worker and self._is_free(claimed) and self._apps[claimed] == replica.app:
                replica.worker = claimed
                found.append(Match(claimed, name, known=True))
        for worker, app in self._apps.items():
            if not self._is_free(worker):
                continue
            free = [
                (not replica.claims, name)
                for name, replica in self._replicas.items()
                if replica.app == app and not replica.worker
            ]
            if free:
                name = min(free)[1]
                self._replicas[name].worker = self._replicas[name].claims = worker
                found.append(Match(worker, name, known=False))
        return found

    def _is_free(self, worker: int) -> bool:
        return worker in self._apps and not self.replica_of(worker)

    def wanted(self, found: dict[str, int], now: float) -> dict[str, int]:
        """How many replicas each application is to have; one that is not in it is to go.

        Args:
            found: those there are, and their replicas.
            now: monotonic seconds.
        """
        counts = Counter(self._apps.values())
        wanted = dict(counts)
        for app in [*self._most]:
            lately = self._lately(app, now)
            if not lately:
                del self._most[app]
            elif app in found or app in counts:
                wanted[app] = max(wanted.get(app, 0), lately)
        if now - self._began < CLAIM_S:
            for app, replicas in found.items():
                wanted[app] = max(wanted.get(app, 0), replicas)
        return wanted

    def _count(self, app: str) -> int:
        return sum(theirs == app for theirs in self._apps.values())

    def _lately(self, app: str, now: float) -> int:
        count, until = self._most.get(app, (0, 0.0))
        return count if now < until else 0
