"""The writing half of a client's connection: answers leave in the order of their requests.

Must never: parse. A connection here is a transport, a line of exchanges, and the rules of ending.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any, Protocol

from modelcloud.codecs.media import Codec
from modelcloud.config import Limits
from modelcloud.dataplane import responses
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.messages import AdminResponse
from modelcloud.dataplane.routes import Lookup


class Hub(Protocol):
    """What the connections of one gateway share."""

    limits: Limits
    lookup: Lookup
    connections: set[Any]
    connections_total: int
    buffered: int  # bytes of large bodies held, all connections together
    draining: bool
    cors: bytes
    access_log: bool
    date: bytes
    ok_head: bytes  # status line and first headers of a JSON 200

    def submit(self, pool: Any, exchange: Exchange) -> None:
        """Send a command's request on its way."""

    def submit_admin(self, exchange: Exchange, head: Any, path: str) -> None:
        """Have the node answer."""

    def release(self, exchange: Exchange) -> None:
        """Nobody waits for this answer any more."""

    def sent(self, exchange: Exchange, size: int) -> None:
        """So many bytes of a streamed answer went out to the client."""

    def count_rejected(self, reason: str) -> None:
        """A request was refused before it reached a model."""

    def log_access(self, exchange: Exchange, status: int, size: int) -> None:
        """One line of the access log."""


class OrderedAnswers:
    """A transport to a client, and the answers that are still owed on it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.transport: Any = None
        self.pending: deque[Exchange] = deque()
        self.since = monotonic()  # when the present phase (idle, head, body, stalled) began
        self.in_message = False
        self.refused = False  # the bytes of this connection mean nothing any more
        self.closing = False  # no further request is read
        self.discarding = False  # shut for writing; what still arrives is thrown away
        self.write_paused = False
        self.read_paused = False

    def write_answer(
        self, exchange: Exchange, status: int, codec: int, body: bytes, extra: bytes
    ) -> None:
        """Write a whole answer, in its turn. `extra` are further header lines."""
        exchange.finished = True
        self._write_whole(exchange, status, self._head(exchange, status, codec, extra), body)

    def _write_whole(self, exchange: Exchange, status: int, head: bytes, body: bytes) -> None:
        if status == 204:
            data = head + b"\r\n"
        elif exchange.head_only:
            data = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
        else:
            data = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        if exchange.log is not None:
            self.hub.log_access(exchange, status, len(body))
        pending = self.pending
        if pending[0] is exchange:
            pending.popleft()
            self.transport.write(data)
            self._after_answer(exchange)
        else:
            exchange.out = [data]
            exchange.ended = True

    def write_raw(self, exchange: Exchange, answer: AdminResponse) -> None:
        """Write the node's own answer, with the content type and headers it chose."""
        exchange.finished = True
        headers = [("content-type", answer.content_type), *answer.headers]
        head = b"HTTP/1.1 %d %b\r\ndate: %b\r\n%b%bx-request-id: %b\r\n" % (
            answer.status,
            responses.REASONS.get(answer.status, b"Unknown"),
            self.hub.date,
            responses.header_lines(headers),
            exchange.head,
            exchange.request_id,
        )
        self._write_whole(exchange, answer.status, head, answer.body)

    def _head(self, exchange: Exchange, status: int, codec: int, extra: bytes) -> bytes:
        hub = self.hub
        if status == 200 and codec == Codec.JSON:
            first = hub.ok_head
        else:
            first = b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: %b\r\n" % (
                status,
                responses.REASONS.get(status, b"Unknown"),
                hub.date,
                responses.CONTENT_TYPES[Codec(codec)],
            )
        return b"%b%b%bx-request-id: %b\r\n" % (first, extra, exchange.head, exchange.request_id)

    def _after_answer(self, exchange: Exchange) -> None:
        """The first in line left; write what waited behind it."""
        if exchange.accounted:
            self.hub.buffered -= exchange.accounted
        pending = self.pending
        while pending:
            following = pending[0]
            if following.out:
                self.transport.write(b"".join(following.out))
                following.out.clear()
            if not following.ended:
                break
            pending.popleft()
            self.hub.buffered -= following.accounted
            exchange = following
        if not exchange.keep or (self.closing and not pending):
            self.close_after_answers()
        elif self.read_paused and len(pending) <= self.hub.limits.pipeline // 2:
            self.resume_reading()
        if not pending and not self.in_message:
            self.since = monotonic()

    # ---- streams

    def begin_stream(self, exchange: Exchange, status: int, codec: int, extra: bytes) -> None:
        """Write the head of an answer of unknown length, or have it wait its turn."""
        exchange.out = []
        self._put(
            exchange,
            self._head(exchange, status, codec, extra)
            + b"cache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n",
        )

    def write_piece(self, exchange: Exchange, data: bytes) -> None:
        """Write a piece of a streamed answer; what cannot leave yet is owed as `unsent`."""
        self._put(exchange, responses.chunk(data))
        if self.write_paused or self.pending[0] is not exchange:
            exchange.unsent += len(data)
        else:
            self.hub.sent(exchange, len(data))

    def end_stream(self, exchange: Exchange) -> None:
        """Write the end of a streamed answer."""
        exchange.finished = True
        self._put(exchange, responses.LAST_CHUNK)
        if exchange.log is not None:
            self.hub.log_access(exchange, 200, 0)
        exchange.ended = True
        if self.pending[0] is exchange:
            self.pending.popleft()
            self._after_answer(exchange)

    def abort_stream(self, exchange: Exchange) -> None:
        """Break off a streamed answer so that the client sees it is not whole."""
        exchange.finished = True
        self.transport.abort()

    def _put(self, exchange: Exchange, data: bytes) -> None:
        if self.pending[0] is exchange:
            self.transport.write(data)
        elif exchange.out is not None:
            exchange.out.append(data)

    # ---- flow

    def pause_writing(self) -> None:
        """The client takes nothing: read no more from it until it does."""
        self.write_paused = True
        self.since = monotonic()
        self.pause_reading()

    def resume_writing(self) -> None:
        """The client took what was waiting."""
        self.write_paused = False
        for exchange in self.pending:
            if exchange.unsent and self.pending[0] is exchange:
                self.hub.sent(exchange, exchange.unsent)
                exchange.unsent = 0
        self.resume_reading()

    def pause_reading(self) -> None:
        """Have the kernel, and so the client, wait."""
        if not self.read_paused and self.transport is not None and not self.discarding:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless the client does not take its answers."""
        if self.read_paused and self.transport is not None and not self.write_paused:
            self.read_paused = False
            self.since = monotonic()
            self.transport.resume_reading()

    def close_after_answers(self) -> None:
        """End the connection so that the last answer arrives even if the client still sends.

        Closing a socket with unread input makes the kernel reset it, which can destroy the answer
        on its way; so only the writing side is shut first, and the rest is read and dropped.
        """
        self.closing = True
        transport = self.transport
        if transport is None:
            return
        if self.refused and transport.can_write_eof():
            self.resume_reading()
            self.discarding = True
            self.since = monotonic()
            transport.write_eof()
        else:
            transport.close()
