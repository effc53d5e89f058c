"""The queue of one service in one gateway, and its links to the workers that answer now.

Must never: decide which workers those are (the route table does) or parse HTTP. A worker gets the
next request only while it has credit, so that a slow one hoards nothing.
"""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic
from typing import Protocol

from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.link import WorkerLink
from modelcloud.dataplane.metrics import Counters

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
    """Requests of one service: a bounded first-in-first-out queue and the links that empty it."""

    def __init__(self, owner: PoolOwner, name: str) -> None:
        self.owner = owner
        self.name = name
        self.queue: deque[Exchange] = deque()
        self.links: list[WorkerLink] = []  # those the route table names, open for requests
        self.retiring: set[WorkerLink] = set()
        self.available = True
        self.limit = 0
        self.deadline_s = 60.0

    def submit(self, exchange: Exchange) -> None:
        """Dispatch now, or wait in the queue, or be refused when it is full."""
        exchange.deadline = exchange.arrived + self.deadline_s
        if self.queue or not self._dispatch(exchange):
            if not self.links and not self.available:
                self.owner.count_rejected("unavailable")
                exchange.fail(503, "no worker of this service is running; see /readyz",
                              extra=b"retry-after: 5\r\n")  # fmt: skip
            elif len(self.queue) >= self.limit:
                self.owner.count_rejected("queue_full")
                exchange.fail(503, "the queue of this service is full; try again later",
                              extra=b"retry-after: 1\r\n")  # fmt: skip
            else:
                exchange.queue = self.queue
                self.queue.append(exchange)

    def _dispatch(self, exchange: Exchange) -> bool:
        """Give it to the worker with the fewest requests inside; False if none has credit."""
        best: WorkerLink | None = None
        fewest = sys.maxsize
        for link in self.links:
            if link.free > 0 and len(link.inflight) < fewest:
                best = link
                fewest = len(link.inflight)
        if best is None:
            return False
        best.send(exchange)
        return True

    def drain(self) -> None:
        """Dispatch what waits, as far as there is credit."""
        queue = self.queue
        while queue:
            if not self._dispatch(queue[0]):
                return
            queue.popleft()

    def switch(self, links: list[WorkerLink], *, available: bool) -> None:
        """From this moment new requests, and those that wait, go to these workers only."""
        old = set(self.links)
        self.links = links
        self.available = available
        for link in links:
            self.retiring.discard(link)
            link.open()
        for link in old - set(links):
            self.retiring.add(link)
            link.retire()
        if not links and not available:
            while self.queue:
                self.owner.count_rejected("unavailable")
                self.queue.popleft().fail(503, "no worker of this service is running; see /readyz",
                                          extra=b"retry-after: 5\r\n")  # fmt: skip
        self.drain()

    def lost(self, link: WorkerLink) -> None:
        """A connection ended: its unanswered requests go to the front of the queue, once."""
        orphans = list(link.inflight.values())
        link.inflight.clear()
        expected = link.retired
        self.retiring.discard(link)
        if link in self.links:
            self.links = [other for other in self.links if other is not link]
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
        exchange.queue = self.queue
        self.queue.appendleft(exchange)

    def check_deadlines(self, now: float) -> None:
        """Called a few times a second."""
        queue = self.queue
        while queue and queue[0].deadline <= now:
            self.owner.count_rejected("deadline")
            queue.popleft().fail(504, "no worker was free in time")
        for link in (*self.links, *self.retiring):
            link.check_deadlines(now)
        self._pass_by_blocked()

    def _pass_by_blocked(self) -> None:
        """Give what waits behind a long call in one worker to others that are free.

        So a hung call costs nobody else more than the time between two looks.
        """
        blocked = {link: link.check_blocked() for link in (*self.links, *self.retiring)}
        for link, call in blocked.items():
            if call is not None:
                link.free = 0  # until it answers
        room = sum(max(link.free, 0) for link in self.links)
        for link, call in blocked.items():
            if call is not None and room:
                taken = link.take_back(call, room)
                room -= len(taken)
                for exchange in reversed(taken):
                    self._put_back(exchange)
        self.drain()
