"""The frames between a gateway and one worker, and how many requests may be inside it.

Must never: choose which worker gets a request, or look into a body.
"""

from __future__ import annotations

import asyncio
import itertools
from copy import copy
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from modelcloud.dataplane.pool import Pool

MIN_CREDIT = 2
MAX_CREDIT = 64
#: Work that may wait inside a worker, seconds: enough to keep it busy over one round trip.
CREDIT_S = 0.001
#: How long after its deadline a request may keep a worker busy before the worker is given up.
OVERDUE_S = 1.0
#: Bodies from this size on are written as they are instead of being joined with their header.
LARGE_BODY = 64 * 1024
#: Request ids are 32 bits wide and come round again.
ID_MASK = 0xFFFFFFFF

_RESPONSE = int(Kind.RESPONSE)  # once: an enumeration's attributes are slow
_hello = msgspec.msgpack.Decoder(tuple[list[str], int, list[str]])


class Blocking(NamedTuple):
    """The call that keeps a worker from all others: its request, and for how long it is known."""

    rid: int
    seen_s: float


class WorkerLink(asyncio.Protocol):
    """The frames to and from one worker."""

    def __init__(self, pool: Pool, address: WorkerAddress) -> None:
        self.pool = pool
        self.address = address
        self.transport: Any = None
        #: Whether the worker said hello, as soon as that is known.
        self.greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        #: command name → its number in this worker and its counters
        self.commands: dict[str, tuple[int, Counters]] = {}
        #: Commands during whose calls the worker does nothing else.
        self.blocking: frozenset[str] = frozenset()
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
        self._call: tuple[int, float] | None = None
        self._call_seen = 0.0
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
        if not self.greeted.done():
            self.greeted.set_result(False)
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
            if kind == _RESPONSE:
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
            if not self.retired:
                self.free = self.credit - len(inflight)
                if self.free > 0 and self.pool.queue:
                    self.pool.drain()
            elif not inflight:
                self.pool.owner.link_idle(self)

    def _special(
        self, kind: int, rid: int, codec: int, status: int, body: bytes, now: float
    ) -> bool:
        """Frames other than a whole response. True if a request is over by it."""
        if kind == Kind.HELLO:
            pool = self.pool
            names, self.least_credit, blocking = _hello.decode(body)
            self.blocking = frozenset(blocking)
            self.credit = max(self.credit, self.least_credit)
            for number, name in enumerate(names):
                counters = pool.owner.counters(
                    pool.service, name, self.address.version, self.address.generation
                )
                self.commands[name] = (number, counters)
            if not self.greeted.done():
                self.greeted.set_result(True)
            if not self.retired:
                self.open()
                pool.drain()  # it may be in use for a while already: a long call delays its hello
            return False
        exchange = self.inflight.get(rid)
        if exchange is None:
            return False
        if kind == Kind.CHUNK:
            if not exchange.finished:
                exchange.deadline = now + self.pool.deadline_s
                exchange.piece(self.head, status, codec, body)
            return False
        if kind == Kind.END:
            del self.inflight[rid]
            if exchange.finished:
                return True  # it was counted when it was given up
            whole = status == 200 and exchange.streaming
            if exchange.counters is not None:
                exchange.counters.record(200 if whole else 502, now - exchange.arrived, now)
            if whole:
                exchange.end()
            else:
                exchange.fail(502, "the worker gave the request up")
            return True
        return False

    # ---- sending

    def open(self) -> None:
        """From now on the link takes requests, as soon as the worker has said hello."""
        self.retired = False
        if self.commands:
            self.free = self.credit - len(self.inflight)

    def send(self, exchange: Exchange) -> None:
        """Give the worker a request; the caller saw that it has credit."""
        entry = self.commands.get(exchange.command)
        if entry is None:
            exchange.fail(404, f"this version has no command {exchange.command!r}")
            return
        inflight = self.inflight
        if not inflight:
            self._last = monotonic()
        number, exchange.counters = entry
        rid = next(self._ids) & ID_MASK
        while rid in inflight:
            rid = next(self._ids) & ID_MASK
        inflight[rid] = exchange
        self.free -= 1
        exchange.link = self
        exchange.rid = rid
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

    def release(self, exchange: Exchange) -> None:
        """The client left. Its request's place stays taken until the worker says it is over."""
        if self._has(exchange):
            self._give_up(exchange, 499)

    def _give_up(self, exchange: Exchange, status: int) -> None:
        now = monotonic()
        if exchange.counters is not None:
            exchange.counters.record(status, now - exchange.arrived, now)
        self._frame(exchange.rid, Kind.CANCEL, b"")

    def sent(self, exchange: Exchange, size: int) -> None:
        """Tell the worker that so much of its stream is on the way to the client."""
        if self._has(exchange):
            self._frame(exchange.rid, Kind.CREDIT, LENGTH.pack(size))

    def _has(self, exchange: Exchange) -> bool:
        return self.inflight.get(exchange.rid) is exchange

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

    def retire(self) -> None:
        """Take no further requests; what is inside is still answered."""
        self.retired = True
        self.free = 0
        if not self.inflight:
            self.pool.owner.link_idle(self)

    # ---- time

    def check_blocked(self, now: float) -> Blocking | None:
        """The call that has blocked the worker since the last look, or one before; None if none.

        A worker takes its requests in order, so those sent after that call have not begun.
        """
        seen, self._call = self._call, None
        for rid, exchange in self.inflight.items():
            if exchange.command in self.blocking:
                self._call = (rid, self._last)
                if self._call == seen:
                    return Blocking(rid, now - self._call_seen)
                self._call_seen = now
                break
        return None

    def take_back(self, after: int, most: int) -> list[Exchange]:
        """Up to so many requests that wait behind a call, oldest first; this worker skips them."""
        taken: list[Exchange] = []
        in_order = iter(list(self.inflight.items()))
        for rid, _ in in_order:
            if rid == after:
                break
        for rid, exchange in in_order:
            if exchange.finished or not exchange.idempotent or len(taken) >= most:
                continue
            if exchange.streaming:
                continue  # it has begun
            place = copy(exchange)  # stays taken until the worker says that it is over
            place.finished, place.connection, place.counters = True, None, Counters()
            self.inflight[rid] = place
            self._frame(rid, Kind.CANCEL, b"")
            exchange.tries -= 1
            taken.append(exchange)
        return taken

    def check_deadlines(self, now: float) -> None:
        """Answer 504 for what is late, and report a worker that stays busy with it."""
        for exchange in list(self.inflight.values()):
            if exchange.deadline > now:
                continue
            if not exchange.finished:
                self._give_up(exchange, 504)
                self.pool.refuse(exchange, "deadline", 504, "the model did not answer in time")
            elif now - exchange.deadline > OVERDUE_S and not self.overdue_told:
                self.overdue_told = True
                self.pool.owner.worker_overdue(self, now - exchange.deadline)
