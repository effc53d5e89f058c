"""Copies of requests, sent to a version on trial: no client waits for them, and none is held up.

Must never: submit a copy before its request, try one again, or keep an answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from modelcloud.codecs.media import FLAG_STREAM
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.frames import Kind
from modelcloud.dataplane.metrics import Counters

if TYPE_CHECKING:
    from modelcloud.dataplane.lookup import Target
    from modelcloud.dataplane.pool import Pool

#: A request with a larger body is not copied, a larger answer is not compared.
MAX_BODY = 1024 * 1024
#: Bytes of copies that one pool may hold.
MAX_HELD = 64 * 1024 * 1024

_REQUEST = int(Kind.REQUEST)


class Mirror:
    """In front of what takes a command's requests: copies a share of them to other pools.

    A copy is not made of a request that was refused, streams, carries headers for its worker or
    has a large body. It is dropped when its pool has no worker, is half full, or holds many bytes
    of copies; it is never tried again, and it has the deadline of its pool.

    Args:
        target: where the requests go.
        shadows: the pools on trial, and the share of requests (0 to 1) that is copied to each,
            unless the request itself went there.
    """

    def __init__(self, target: Target, shadows: Sequence[tuple[Pool, float]]) -> None:
        self.target = target
        self.shadows = tuple(shadows)

    def submit(self, exchange: Exchange) -> None:
        """Send the request on its way, then the copies that are due."""
        self.target.submit(exchange)
        if (
            exchange.finished
            or exchange.codec & FLAG_STREAM
            or exchange.kind != _REQUEST
            or len(exchange.body) > MAX_BODY
        ):
            return
        for pool, share in self.shadows:
            chosen = random.random() < share  # noqa: S311 — no secret depends on it
            if chosen and _has_room(pool, exchange) and not _is_in(pool, exchange):
                if exchange.comparison is None:
                    exchange.comparison = Comparison()
                pool.submit(Copy(exchange, pool, exchange.comparison))


def _is_in(pool: Pool, exchange: Exchange) -> bool:
    link = exchange.link
    return link.pool is pool if link is not None else exchange.queue is pool.queue


def _has_room(pool: Pool, exchange: Exchange) -> bool:
    return (
        bool(pool.links)
        and 2 * len(pool.queue) < pool.limit
        and pool.copies_held + len(exchange.body) <= MAX_HELD
    )


class Copy(Exchange):
    """A request without a client. What it costs and gives counts apart (`Counters.copies`)."""

    __slots__ = ("_counters", "_held", "_pool")

    is_copy = True

    def __init__(self, original: Exchange, pool: Pool, comparison: Comparison) -> None:
        self._counters: Counters | None = None
        super().__init__(None, original.body, original.arrived, original.request_id, b"")
        self.command = original.command
        self.codec = original.codec
        self.key = original.key
        self.idempotent = False
        self.comparison = comparison
        self._pool = pool
        self._held = len(original.body)
        pool.copies_held += self._held

    @property
    def counters(self) -> Counters | None:
        """Those for copies, whatever the link that sends it sets."""
        return self._counters

    @counters.setter
    def counters(self, counters: Counters | None) -> None:
        self._counters = counters.of_copies() if counters is not None else None

    def reply(self, model_head: bytes, status: int, codec: int, body: bytes) -> None:
        """Throw a worker's answer away, once it was compared."""
        if not self.finished and self.comparison is not None and self._counters is not None:
            self.comparison.copied(self._counters, status, body)
        self._end()

    def fail(self, status: int, message: str, *, extra: bytes = b"", **fields: object) -> None:
        """Nobody is to be told."""
        self._end()

    def piece(self, model_head: bytes, status: int, codec: int, data: bytes) -> None:
        """Nor given a piece of an answer; none was asked for."""

    def _end(self) -> None:
        if not self.finished:
            self.finished = True
            self._pool.copies_held -= self._held
            self.body = b""  # a worker that is late with it may hold the exchange for long


class Mark(NamedTuple):
    """What is kept of an answer."""

    status: int
    digest: bytes


class Comparison:
    """Whether copies of one request were answered as the request was.

    It lives as long as an answer to one of them is awaited, so that the requests' own limits of
    number and time are its limits too.
    """

    __slots__ = ("_asked", "_copied")

    def __init__(self) -> None:
        self._asked: Mark | None = None
        self._copied: list[tuple[Counters, Mark]] = []

    def asked(self, status: int, body: bytes) -> None:
        """The client's answer."""
        self._asked = _mark(status, body)
        copied, self._copied = self._copied, []
        for counters, mark in copied:
            self._compare(counters, mark)

    def copied(self, counters: Counters, status: int, body: bytes) -> None:
        """A copy's answer, and what counts it."""
        mark = _mark(status, body)
        if mark is None:
            return
        if self._asked is None:
            self._copied.append((counters, mark))
        else:
            self._compare(counters, mark)

    def _compare(self, counters: Counters, mark: Mark) -> None:
        if self._asked is None:
            return
        if mark == self._asked:
            counters.same += 1
        else:
            counters.different += 1


def _mark(status: int, body: bytes) -> Mark | None:
    if len(body) > MAX_BODY:
        return None
    return Mark(status, blake2b(body, digest_size=16).digest())
