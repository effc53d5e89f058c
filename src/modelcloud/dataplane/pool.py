"""The requests of one pool in one gateway, and its links to the workers that answer now.

Must never: decide which workers those are (the route table does) or parse HTTP. A worker gets the
next request only while it has credit, so that a slow one hoards nothing.
"""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from modelcloud.dataplane.dispatch import Waiting, in_order, key_of, waiting_for
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.link import WorkerLink
from modelcloud.dataplane.metrics import Counters
from modelcloud.types import Dispatch

#: Tries of an idempotent request: a second one only because its worker died.
MAX_TRIES = 2


class PoolOwner(Protocol):
    """What a pool needs of its gateway."""

    retried: int

    def count_rejected(self, reason: str) -> None:
        """A request was refused before it reached a model."""

    def counters(self, service: str, command: str, version: int, generation: int) -> Counters:
        """The counters of a command of a generation; the same ones for the same names."""

    def link_idle(self, link: WorkerLink) -> None:
        """A retired link awaits no answer any more."""

    def link_broken(self, link: WorkerLink) -> None:
        """A link that the table names is gone."""

    def worker_overdue(self, link: WorkerLink, overdue_s: float) -> None:
        """A worker keeps a request past its deadline."""


class Pool:
    """Requests that any worker of a set may answer: those that wait, and the links they go to.

    Args:
        owner: its gateway.
        name: unique among the gateway's pools.
        service: what its counters are labelled with; its name when not given.

    Attributes:
        queue: what waits; bounded by `limit`.
        links: the workers that the route table names, open for requests.
        retiring: those it names no more, which still owe answers.
        key_of: what the router is to set an exchange's `key` from, as `dispatch.key_of` says.
        copies_held: bytes of the copies of other pools' requests that are in it.
    """

    def __init__(self, owner: PoolOwner, name: str, service: str = "") -> None:
        self.owner = owner
        self.name = name
        self.service = service or name
        self.links: list[WorkerLink] = []
        self.retiring: set[WorkerLink] = set()
        self.available = True
        self.limit = 0
        self.deadline_s = 60.0
        self.copies_held = 0
        self._dispatch = Dispatch()
        self.key_of = key_of(self._dispatch)
        self.queue: Waiting = waiting_for(self._dispatch)
        self._hung: set[WorkerLink] = set()

    @property
    def dispatch(self) -> Dispatch:
        """The policy; what waits when it is set follows the new one."""
        return self._dispatch

    @dispatch.setter
    def dispatch(self, dispatch: Dispatch) -> None:
        if dispatch == self._dispatch:
            return
        waiting = self.queue.take_all()
        self._dispatch = dispatch
        self.key_of = key_of(dispatch)
        self.queue = waiting_for(dispatch)
        self.queue.follow(self.links, self._hung)
        for exchange in waiting:
            self.queue.put(exchange)
        self.drain()

    def submit(self, exchange: Exchange) -> None:
        """Send it now, or have it wait, or refuse it when too many do."""
        exchange.deadline = exchange.arrived + self.deadline_s
        queue = self.queue
        if not queue or queue.keyed:
            link = queue.choose(self.links, exchange)
            if link is not None:
                link.send(exchange)
                return
        if not self.links and not self.available:
            self._refuse_unavailable(exchange)
        elif len(queue) >= self.limit:
            self.refuse(exchange, "queue_full", 503,
                        "the queue of this service is full; try again later",
                        extra=b"retry-after: 1\r\n")  # fmt: skip
        else:
            exchange.queued = monotonic()
            queue.put(exchange)

    def refuse(
        self, exchange: Exchange, reason: str, status: int, message: str, extra: bytes = b""
    ) -> None:
        """Fail a request that never reached a model, or got no answer from it in time."""
        if not exchange.is_copy:
            self.owner.count_rejected(reason)
        exchange.fail(status, message, extra=extra)

    def _refuse_unavailable(self, exchange: Exchange) -> None:
        self.refuse(exchange, "unavailable", 503,
                    "no worker of this service is running; see /readyz",
                    extra=b"retry-after: 5\r\n")  # fmt: skip

    def drain(self) -> None:
        """Send what waits, as far as there is credit."""
        self.queue.drain(self.links)

    def switch(self, links: list[WorkerLink], *, available: bool) -> None:
        """From this moment new requests, and those that wait, go to these workers only.

        A link that was another pool's is this one's now.
        """
        old = set(self.links)
        self.links = links
        self.available = available
        for link in links:
            if link.pool is not self:
                link.pool.let_go(link)
                link.pool = self
            self.retiring.discard(link)
            link.open()
        for link in old - set(links):
            self.retiring.add(link)
            link.retire()
        self._settle()

    def _settle(self) -> None:
        """Other links are there: what waits goes to them, or is refused where none will come."""
        self.queue.follow(self.links, self._hung)
        if not self.links and not self.available:
            for exchange in self.queue.take_all():
                self._refuse_unavailable(exchange)
        self.drain()

    def let_go(self, link: WorkerLink) -> None:
        """The link is another pool's from now on, with what is inside it, or gone."""
        self.retiring.discard(link)
        if link in self.links:
            self.links = [other for other in self.links if other is not link]
            self.queue.follow(self.links, self._hung)

    def give_to(self, heir: Pool) -> None:
        """Hand over all that waits, in order of arrival, and all links; nothing fails by it.

        The heir's `switch` came before: links that it did not name only answer what they have.
        """
        waiting = in_order([*self.queue.take_all(), *heir.queue.take_all()])
        given = self.links
        for link in (*given, *self.retiring):
            link.pool = heir
        heir.retiring |= self.retiring
        heir.retiring.update(link for link in given if link not in heir.links)
        self.links, self.retiring, self.available = [], set(), False
        self.queue.follow((), ())
        for exchange in waiting:
            heir.queue.put(exchange)
        for link in given:
            if link in heir.retiring:
                link.retire()
        heir._settle()

    def lost(self, link: WorkerLink) -> None:
        """A connection ended: its unanswered requests go to the front of the queue, once."""
        orphans = list(link.inflight.values())
        link.inflight.clear()
        expected = link.retired
        self.let_go(link)
        for exchange in reversed(orphans):
            if exchange.finished:
                continue
            if exchange.streaming or not exchange.idempotent or exchange.tries >= MAX_TRIES:
                if exchange.counters is not None:
                    now = monotonic()
                    exchange.counters.record(502, now - exchange.arrived, now)
                exchange.fail(502, "the worker died while it had this request")
            else:
                self.owner.retried += 1
                self._put_back(exchange)
        if expected:
            self.owner.link_idle(link)
        else:
            self.owner.link_broken(link)
        self.drain()

    def _put_back(self, exchange: Exchange) -> None:
        """Let a request that a worker had go first."""
        exchange.link = None
        exchange.queued = monotonic()
        self.queue.put_first(exchange)

    def check_deadlines(self, now: float) -> None:
        """Called a few times a second."""
        for exchange in self.queue.expired(now):
            self.refuse(exchange, "deadline", 504, "no worker was free in time")
        for link in (*self.links, *self.retiring):
            link.check_deadlines(now)
        self._pass_by_blocked(now)

    def _pass_by_blocked(self, now: float) -> None:
        """Give what waits behind a long call in one worker to others that are free.

        So a hung call costs nobody else more than the time between two looks, or where requests
        belong to one worker, the patience they have with it.
        """
        patience_s = self.queue.patience_s
        blocked = {
            link: call.rid
            for link in (*self.links, *self.retiring)
            if (call := link.check_blocked(now)) is not None and call.seen_s >= patience_s
        }
        for link in blocked:
            link.free = 0  # until it answers
        if self._hung != blocked.keys():
            self._hung = set(blocked)
            self.queue.follow(self.links, self._hung)
        room = sum(max(link.free, 0) for link in self.links)
        for link, rid in blocked.items():
            if room:
                taken = link.take_back(rid, room)
                room -= len(taken)
                for exchange in reversed(taken):
                    self._put_back(exchange)
        self.drain()
