"""Which worker of a pool gets a request, and the order in which those wait that none can take yet.

Must never: send to a worker that has no credit, or have a request wait behind one that only waits
for a worker which it does not itself want.

With `least_loaded`, `round_robin` and `random` every worker may take every request, so there is
one line, first in, first out. With `consistent_hash` a request belongs to one worker, so there is a
line for each:

- A key's worker is the one with the highest hash of key and worker id (rendezvous hashing), so all
  gateways agree on it, and a worker that comes or goes moves the keys of no other.
- While that worker is in the table and not hung, the key's requests wait for it, whatever credit
  the others have. In one call for more than `HUNG_S`, it counts as gone: its requests go to the
  next best, also those it had not begun, until it answers again.
- A request without a key may go to any worker. Between the line of a worker and the line of those,
  the request that arrived first goes first.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from modelcloud.types import Dispatch, DispatchPolicy

if TYPE_CHECKING:
    from modelcloud.dataplane.exchange import Exchange
    from modelcloud.dataplane.link import WorkerLink

_MORE = sys.maxsize  # than any worker has inside

#: From so long in one call on, a worker does not keep the requests of its keys to itself.
HUNG_S = 1.0


class Line(deque["Exchange"]):
    """One line for all workers: of those with credit, the one with the fewest requests inside.

    Attributes:
        keyed: whether a request may be taken while others wait.
        patience_s: how long a call may last before those behind it are given to other workers.
    """

    __slots__ = ()

    keyed = False
    patience_s = 0.0

    def choose(self, links: Sequence[WorkerLink], exchange: Exchange) -> WorkerLink | None:
        """The worker that takes a request now; None if it has to wait."""
        best: WorkerLink | None = None
        fewest = _MORE
        for link in links:
            if link.free > 0 and len(link.inflight) < fewest:
                best = link
                fewest = len(link.inflight)
        return best

    def put(self, exchange: Exchange) -> None:
        """Have it wait."""
        exchange.queue = self
        self.append(exchange)

    def put_first(self, exchange: Exchange) -> None:
        """Have it wait in front of all others."""
        exchange.queue = self
        self.appendleft(exchange)

    def drain(self, links: Sequence[WorkerLink]) -> None:
        """Send what waits, as far as there is credit."""
        now = monotonic()
        while self:
            link = self.choose(links, self[0])
            if link is None:
                return
            _send(self.popleft(), link, now)

    def expired(self, now: float) -> list[Exchange]:
        """Take out the requests whose time is up."""
        return _expired(self, now)

    def take_all(self) -> list[Exchange]:
        """Take out all requests, in order."""
        waiting = list(self)
        self.clear()
        return waiting

    def follow(self, links: Sequence[WorkerLink], hung: Iterable[WorkerLink]) -> None:
        """Other workers are there now: nothing depends on it here."""


class TurnLine(Line):
    """One line for all workers, which take turns as far as they have credit."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        super().__init__()
        self._last = 0  # id of the worker that had the last turn

    def choose(self, links: Sequence[WorkerLink], exchange: Exchange) -> WorkerLink | None:
        """The next worker in the order of their ids."""
        free = [link for link in links if link.free > 0]
        if not free:
            return None
        chosen = min(free, key=lambda link: (link.address.id <= self._last, link.address.id))
        self._last = chosen.address.id
        return chosen


class ChanceLine(Line):
    """One line for all workers: any of those with credit."""

    __slots__ = ()

    def choose(self, links: Sequence[WorkerLink], exchange: Exchange) -> WorkerLink | None:
        """One at random."""
        free = [link for link in links if link.free > 0]
        return random.choice(free) if free else None  # noqa: S311 — no secret depends on it


class Lanes:
    """A line for each worker, and one (None) for requests that any worker may take."""

    keyed = True
    patience_s = HUNG_S

    def __init__(self) -> None:
        self._usable: list[WorkerLink] = []
        self._lanes: dict[WorkerLink | None, deque[Exchange]] = {None: deque()}

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[Exchange]:
        return iter(in_order(chain.from_iterable(self._lanes.values())))

    def choose(self, links: Sequence[WorkerLink], exchange: Exchange) -> WorkerLink | None:
        """The key's worker if it takes a request now; None if that has to wait."""
        own = self._worker_of(exchange)
        if self._lanes[own]:
            return None
        if own is not None:
            return own if own.free > 0 else None
        return min(
            (link for link in self._usable if link.free > 0),
            key=lambda link: len(link.inflight),
            default=None,
        )

    def _worker_of(self, exchange: Exchange) -> WorkerLink | None:
        key = exchange.key
        if not key or not self._usable:
            return None
        return max(self._usable, key=lambda link: affinity(key, link.address.id))

    def put(self, exchange: Exchange) -> None:
        """Have it wait for its worker."""
        exchange.queue = self
        self._lanes[self._worker_of(exchange)].append(exchange)

    def put_first(self, exchange: Exchange) -> None:
        """Have it wait in front of all others for its worker."""
        exchange.queue = self
        self._lanes[self._worker_of(exchange)].appendleft(exchange)

    def remove(self, exchange: Exchange) -> None:
        """Take one out that nobody waits for any more."""
        for lane in self._lanes.values():
            if exchange in lane:
                lane.remove(exchange)
                return

    def drain(self, links: Sequence[WorkerLink]) -> None:
        """Send what waits, as far as there is credit."""
        now = monotonic()
        for link in self._usable:
            lanes = (self._lanes[link], self._lanes[None])
            while link.free > 0 and (waiting := [lane for lane in lanes if lane]):
                first = min(waiting, key=lambda lane: lane[0].arrived)
                _send(first.popleft(), link, now)

    def expired(self, now: float) -> list[Exchange]:
        """Take out the requests whose time is up."""
        return [late for lane in self._lanes.values() for late in _expired(lane, now)]

    def take_all(self) -> list[Exchange]:
        """Take out all requests, in order."""
        waiting = list(self)
        for lane in self._lanes.values():
            lane.clear()
        return waiting

    def follow(self, links: Sequence[WorkerLink], hung: Iterable[WorkerLink]) -> None:
        """Other workers are there now, or others are hung: all that wait choose again."""
        usable = [link for link in links if link not in hung] or list(links)
        if usable == self._usable:
            return
        waiting = self.take_all()
        self._usable = usable
        self._lanes = {None: deque(), **{link: deque() for link in usable}}
        for exchange in waiting:
            self.put(exchange)


Waiting: TypeAlias = Line | Lanes

_LINES: dict[DispatchPolicy, type[Waiting]] = {
    DispatchPolicy.LEAST_LOADED: Line,
    DispatchPolicy.ROUND_ROBIN: TurnLine,
    DispatchPolicy.RANDOM: ChanceLine,
    DispatchPolicy.CONSISTENT_HASH: Lanes,
}


def waiting_for(dispatch: Dispatch) -> Waiting:
    """Where the requests of a pool with this policy wait; empty."""
    return _LINES[dispatch.policy]()


def key_of(dispatch: Dispatch) -> tuple[str, str] | None:
    """What of a request is its key: `header` or `query`, and the name.

    None without a policy that needs one, or with a `key` that is none: a gateway routes on with
    what it is given, where a person is told (`control`). Names of headers are in lower case.
    """
    if dispatch.policy is not DispatchPolicy.CONSISTENT_HASH:
        return None
    kind, _, name = dispatch.key.partition(":")
    if kind not in {"header", "query"} or not name:
        return None
    return kind, name.lower() if kind == "header" else name


def affinity(key: bytes, worker: int) -> bytes:
    """How much a key belongs to a worker, to be compared with that of others."""
    return blake2b(b"%d:%b" % (worker, key), digest_size=8).digest()


def in_order(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """By arrival."""
    return sorted(exchanges, key=lambda exchange: exchange.arrived)


def _expired(line: deque[Exchange], now: float) -> list[Exchange]:
    late = []
    while line and line[0].deadline <= now:
        late.append(line.popleft())
    return late


def _send(exchange: Exchange, link: WorkerLink, now: float) -> None:
    link.send(exchange)
    if exchange.counters is not None:
        exchange.counters.queue_sum += now - exchange.queued
