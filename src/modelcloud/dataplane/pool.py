"""The queue of one service in one gateway, and its links to the workers that answer now.

Must never: decide which workers those are (the route table does) or parse HTTP. A worker gets the
next request only while it has credit, so that a slow one hoards nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import deque
from time import monotonic
from typing import Any, Protocol

import msgspec

from modelcloud.codecs.media import FLAG_NAN, Codec
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.frames import (
    HEADER_SIZE,
    MAX_ANSWER,
    Kind,
    pack_header,
    unpack_header,
)
from modelcloud.dataplane.messages import LENGTH, WorkerAddress
from modelcloud.dataplane.metrics import Counters

MIN_CREDIT = 2
MAX_CREDIT = 64
#: Work that may wait inside a worker, seconds: enough to keep it busy over one round trip.
CREDIT_S = 0.001
#: Tries of an idempotent request: a second one only because its worker died.
MAX_TRIES = 2
#: How long after its deadline a request may keep a worker busy before the worker is given up.
OVERDUE_S = 1.0
#: Bodies from this size on are written as they are instead of being joined with their header.
LARGE_BODY = 64 * 1024

_hello = msgspec.msgpack.Decoder(tuple[list[str], int])


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


class WorkerLink(asyncio.Protocol):
    """The frames to and from one worker."""

    def __init__(self, pool: Pool, address: WorkerAddress) -> None:
        self.pool = pool
        self.address = address
        self.transport: Any = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: command name → its number in this worker and its counters
        self.commands: dict[str, tuple[int, Counters]] = {}
        self.head = b"x-model-version: %d\r\nx-model-generation: %d\r\n" % (
            address.version,
            address.generation,
        )
        self.inflight: dict[int, Exchange] = {}
        self.credit = self.least_credit = MIN_CREDIT
        self.free = 0  # none until the worker said hello
        self.retired = False
        self.overdue_told = False
        self._ids = itertools.count(1)
        self._out: list[bytes] = []
        self._flush_due = False
        self._per_request = 0.0
        self._last = 0.0
        self._partial = bytearray()
        self._need = 0
        self._call_soon = asyncio.get_running_loop().call_soon

    # ---- events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected; the worker says hello next."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker died, or was retired."""
        self.free = 0
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the worker closed before it said hello"))
        self.pool.lost(self)

    def data_received(self, data: bytes) -> None:
        """Answers, as many as the worker wrote at once."""
        partial = self._partial
        if partial:
            partial += data
            if len(partial) < self._need:
                return
            data = bytes(partial)
            partial.clear()
        offset = 0
        size = len(data)
        completed = 0
        now = monotonic()
        inflight = self.inflight
        while size - offset >= HEADER_SIZE:
            length, rid, kind, codec, status = unpack_header(data, offset)
            if length > MAX_ANSWER:
                self.transport.abort()
                return
            start = offset + HEADER_SIZE
            end = start + length
            if size < end:
                break
            offset = end
            if kind == Kind.RESPONSE:
                exchange = inflight.pop(rid, None)
                if exchange is None:
                    continue
                completed += 1
                counters = exchange.counters
                if codec & FLAG_NAN:
                    codec ^= FLAG_NAN
                    counters.nan_outputs += 1  # type: ignore[union-attr]  # set when dispatched
                if not exchange.finished:
                    counters.record(status, now - exchange.arrived, now)  # type: ignore[union-attr]
                    exchange.reply(self.head, status, codec, data[start:end])
            else:
                completed += self._special(kind, rid, codec, status, data[start:end], now)
        if offset < size:
            partial += data[offset:] if offset else data
            self._need = HEADER_SIZE
            if len(partial) >= HEADER_SIZE:
                self._need += unpack_header(partial, 0)[0]
        if completed:
            if self._last:
                each = (now - self._last) / completed
                self._per_request += (each - self._per_request) * 0.1
                adapted = min(MAX_CREDIT, int(CREDIT_S / (self._per_request + 1e-9)))
                self.credit = max(self.least_credit, adapted)
            self._last = now if inflight else 0.0
            self._refill()

    def _special(
        self, kind: int, rid: int, codec: int, status: int, body: bytes, now: float
    ) -> bool:
        """Frames other than a whole response. True if a request is over by it."""
        if kind == Kind.HELLO:
            pool = self.pool
            names, self.least_credit = _hello.decode(body)
            self.credit = max(self.credit, self.least_credit)
            for number, name in enumerate(names):
                counters = pool.owner.counters(
                    pool.name, name, self.address.version, self.address.generation
                )
                self.commands[name] = (number, counters)
            if not self.ready.done():
                self.ready.set_result(None)
            return False
        exchange = self.inflight.get(rid)
        if exchange is None:
            return False
        if kind == Kind.CHUNK:
            exchange.deadline = now + self.pool.deadline_s
            exchange.piece(self.head, status, codec, body)
            return False
        if kind == Kind.END:
            del self.inflight[rid]
            if exchange.counters is not None:
                exchange.counters.record(status, now - exchange.arrived, now)
            if status == 200:
                exchange.end()
            else:
                exchange.fail(status, "the stream broke off")
            return True
        return False

    # ---- sending

    def open(self) -> None:
        """From now on the link takes requests."""
        self.retired = False
        self.free = self.credit - len(self.inflight)

    def send(self, exchange: Exchange) -> None:
        """Give the worker a request; the caller saw that it has credit."""
        entry = self.commands.get(exchange.command)
        if entry is None:
            exchange.fail(404, f"this version has no command {exchange.command!r}")
            return
        if not self.inflight:
            self._last = monotonic()
        number, exchange.counters = entry
        rid = next(self._ids) & 0xFFFFFFFF
        self.inflight[rid] = exchange
        self.free -= 1
        exchange.tries += 1
        body = exchange.body
        out = self._out
        out.append(pack_header(len(body), rid, exchange.kind, exchange.codec, number))
        if len(body) < LARGE_BODY:
            out.append(body)
            if not self._flush_due:
                self._flush_due = True
                self._call_soon(self._flush)
        else:
            self._flush()
            self.transport.write(body)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for this request; its place stays taken until the worker says it is over."""
        for rid, candidate in self.inflight.items():
            if candidate is exchange:
                self._frame(rid, Kind.CANCEL, b"")
                return

    def sent(self, exchange: Exchange, size: int) -> None:
        """Tell the worker that so much of its stream is on the way to the client."""
        for rid, candidate in self.inflight.items():
            if candidate is exchange:
                self._frame(rid, Kind.CREDIT, LENGTH.pack(size))
                return

    def _frame(self, rid: int, kind: Kind, body: bytes) -> None:
        self._out += (pack_header(len(body), rid, kind, Codec.BINARY, 0), body)
        if not self._flush_due:
            self._flush_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._out and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def _refill(self) -> None:
        if self.retired:
            if not self.inflight:
                self.pool.owner.link_idle(self)
            return
        self.free = self.credit - len(self.inflight)
        if self.free > 0 and self.pool.queue:
            self.pool.drain()

    def retire(self) -> None:
        """Take no further requests; what is inside is still answered."""
        self.retired = True
        self.free = 0
        if not self.inflight:
            self.pool.owner.link_idle(self)

    # ---- time

    def check_deadlines(self, now: float) -> None:
        """Answer 504 for what is late, and report a worker that stays busy with it."""
        for exchange in list(self.inflight.values()):
            if exchange.deadline > now:
                continue
            if not exchange.finished:
                self.cancel(exchange)
                if exchange.counters is not None:
                    exchange.counters.record(504, now - exchange.arrived, now)
                exchange.fail(504, "the model did not answer in time")
                self.pool.owner.count_rejected("deadline")
            elif now - exchange.deadline > OVERDUE_S and not self.overdue_told:
                self.overdue_told = True
                self.pool.owner.worker_overdue(self, now - exchange.deadline)


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
            exchange = queue[0]
            if exchange.finished or self._dispatch(exchange):
                queue.popleft()
            else:
                return

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
                self.queue.appendleft(exchange)
        if expected:
            self.owner.link_idle(link)
        else:
            self.owner.link_broken(link)
        self.drain()

    def release(self, exchange: Exchange) -> None:
        """The client left: forget the request, wherever it is."""
        if exchange.tries:
            for link in (*self.links, *self.retiring):
                link.cancel(exchange)
        # One that still waits is marked finished; `drain` and `check_deadlines` drop it.

    def sent(self, exchange: Exchange, size: int) -> None:
        """So much of a stream went out to the client."""
        for link in (*self.links, *self.retiring):
            link.sent(exchange, size)

    def check_deadlines(self, now: float) -> None:
        """Called a few times a second."""
        queue = self.queue
        while queue and (queue[0].finished or queue[0].deadline <= now):
            exchange = queue.popleft()
            if not exchange.finished:
                self.owner.count_rejected("deadline")
                exchange.fail(504, "no worker was free in time")
        for link in (*self.links, *self.retiring):
            link.check_deadlines(now)
