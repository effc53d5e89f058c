"""The writing half of a client's connection: answers leave in the order of their requests.

Must never: parse. A connection here is a transport, a line of exchanges, and the rules of ending.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from time import monotonic
from typing import Any, Protocol

import msgspec

from modelcloud.codecs.media import Codec
from modelcloud.config import Limits
from modelcloud.dataplane import responses
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.messages import LENGTH, AdminResponse
from modelcloud.dataplane.sites import OpenSite

#: Bodies and answers up to this size are not counted against `Limits.buffered`: `connections`
#: and `pipeline` bound them.
SMALL_BODY = 64 * 1024
#: How long a client that was refused may go on sending before the connection is cut.
LINGER_S = 2.0


_JSON = int(Codec.JSON)  # once: an enumeration's attributes are slow
_site_headers = msgspec.msgpack.Decoder(list[tuple[str, str]])


class Hub(Protocol):
    """What the connections of one gateway share."""

    limits: Limits
    connections: set[Any]
    turned_away: set[Any]  # clients too many, being told so
    connections_total: int
    buffered: int  # bytes of large bodies and answers held, all connections together
    cors: bytes
    access_log: bool
    date: bytes
    ok_head: bytes  # status line and first headers of a JSON 200
    presented: dict[str, float]  # digest of a token → monotonic seconds of its last request
    starting: bool  # what is not there may come: nobody has said yet what is to be reached

    def submit_admin(self, exchange: Exchange, head: Any, path: str) -> None:
        """Have the node answer."""

    def count_rejected(self, reason: str) -> None:
        """A request was refused before it reached a model."""

    def log_access(self, exchange: Exchange, status: int, size: int) -> None:
        """One line of the access log."""


class OrderedAnswers(ABC):
    """A transport to a client, and the answers that are still owed on it."""

    def __init__(self, hub: Hub, site: OpenSite) -> None:
        self.hub = hub
        self.site = site
        self.transport: Any = None
        self.pending: deque[Exchange] = deque()
        #: Pipelined requests beyond the limit that came in one read with those before them.
        self.parked: deque[tuple[Exchange, Any]] = deque()
        self.since = monotonic()  # when the present phase (idle, head, body, stalled) began
        self.in_message = False
        self.refused = False  # the bytes of this connection mean nothing any more
        self.closing = False  # no further request is read
        self.discarding = False  # shut for writing; what still arrives is thrown away
        self.write_paused = False
        self.read_paused = False
        self.untaken = 0  # bytes that the client does not take, counted in the hub's `buffered`

    def write_answer(
        self, exchange: Exchange, status: int, codec: int, body: bytes, extra: bytes
    ) -> None:
        """Write a whole answer, in its turn. `extra` are further header lines."""
        exchange.finished = True
        exchange.body = b""  # a worker that is late with it may hold the exchange for long
        self._write_whole(exchange, status, self._head(exchange, status, codec, extra), body)

    def write_site(self, exchange: Exchange, status: int, answer: bytes, model_head: bytes) -> None:
        """Write a web application's answer, with the headers it chose (`Codec.SITE`)."""
        (size,) = LENGTH.unpack_from(answer)
        start = LENGTH.size + size
        try:
            headers = _site_headers.decode(answer[LENGTH.size : start])
            lines = responses.header_lines(headers)
        except (ValueError, msgspec.MsgspecError):
            exchange.fail(502, "the application answered with headers that HTTP does not have")
            return
        exchange.finished = True
        exchange.body = b""
        head = b"HTTP/1.1 %d %b\r\ndate: %b\r\n%b%b%bx-request-id: %b\r\n" % (
            status,
            responses.REASONS.get(status, b"Unknown"),
            self.hub.date,
            lines,
            model_head,
            exchange.head,
            exchange.request_id,
        )
        self._write_whole(exchange, status, head, answer[start:])

    def _write_whole(self, exchange: Exchange, status: int, head: bytes, body: bytes) -> None:
        if exchange.log is not None:
            self.hub.log_access(exchange, status, len(body))
        rest = b""
        if status in {204, 304} or (exchange.head_only and b"\r\ncontent-length:" in head):
            data = head + b"\r\n"
        elif exchange.head_only:
            data = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
        elif len(body) < SMALL_BODY:
            data = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        else:  # not copied
            data = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
            rest = body
        pending = self.pending
        if pending[0] is exchange:
            pending.popleft()
            self.transport.write(data)
            if rest:
                self.transport.write(rest)
            if self.write_paused:
                self._count_untaken()
            self._after_answer(exchange)
        else:
            self._settle(exchange)
            exchange.out = []
            self._hold(exchange, data + rest)
            exchange.ended = True

    def write_raw(self, exchange: Exchange, answer: AdminResponse) -> None:
        """Write the node's own answer, with the content type and headers it chose.

        Raises:
            ValueError: one of its headers cannot be written.
        """
        headers = [("content-type", answer.content_type), *answer.headers]
        head = b"HTTP/1.1 %d %b\r\ndate: %b\r\n%b%bx-request-id: %b\r\n" % (
            answer.status,
            responses.REASONS.get(answer.status, b"Unknown"),
            self.hub.date,
            responses.header_lines(headers),
            exchange.head,
            exchange.request_id,
        )
        exchange.finished = True
        self._write_whole(exchange, answer.status, head, answer.body)

    def _head(self, exchange: Exchange, status: int, codec: int, extra: bytes) -> bytes:
        hub = self.hub
        if status == 200 and codec == _JSON:
            first = hub.ok_head
        else:
            first = b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: %b\r\n" % (
                status,
                responses.REASONS.get(status, b"Unknown"),
                hub.date,
                responses.CONTENT_TYPES.get(codec, b"application/octet-stream"),
            )
        return b"%b%b%bx-request-id: %b\r\n" % (first, extra, exchange.head, exchange.request_id)

    def _after_answer(self, exchange: Exchange) -> None:
        """The first in line left; write what waited behind it."""
        if exchange.accounted:
            self._settle(exchange)
        pending = self.pending
        while pending:
            following = pending[0]
            if following.out:
                self.transport.write(b"".join(following.out))
                following.out.clear()
                self._settle(following)
                if self.write_paused:
                    self._count_untaken()
                elif following.unsent:
                    self._told_sent(following)
            if not following.ended:
                break
            pending.popleft()
        if not pending:
            if self.closing:
                self.close_after_answers()
            if not self.in_message:
                self.since = monotonic()
        if self.parked:
            self.take_up()
        if self.read_paused:
            self.resume_reading()

    @abstractmethod
    def take_up(self) -> None:
        """Send requests on their way that waited for earlier answers to leave."""

    # ---- bytes held

    def _settle(self, exchange: Exchange) -> None:
        """What was counted for this exchange is held no longer."""
        self.hub.buffered -= exchange.accounted
        exchange.accounted = 0

    def _hold(self, exchange: Exchange, data: bytes) -> None:
        """Keep a piece of an answer until those before it have left."""
        assert exchange.out is not None
        exchange.out.append(data)
        if len(data) > SMALL_BODY:
            exchange.accounted += len(data)
            self.hub.buffered += len(data)
            self._check_held()

    def _count_untaken(self) -> None:
        """Count what the client does not take as held."""
        size = self.transport.get_write_buffer_size()
        self.hub.buffered += size - self.untaken
        self.untaken = size
        self._check_held()

    def _check_held(self) -> None:
        """Beyond the limit, let go of the client for whom more would have to be held."""
        if self.hub.buffered > self.hub.limits.buffered:
            self.hub.count_rejected("buffered")
            self.transport.abort()

    # ---- streams

    def begin_stream(self, exchange: Exchange, status: int, codec: int, extra: bytes) -> None:
        """Write the head of an answer of unknown length, or have it wait its turn."""
        exchange.out = []
        self._put(
            exchange,
            self._head(exchange, status, codec, extra)
            + b"cache-control: no-store\r\nx-accel-buffering: no\r\n"
            b"transfer-encoding: chunked\r\n\r\n",
        )

    def write_piece(self, exchange: Exchange, data: bytes) -> None:
        """Write a piece of a streamed answer; what cannot leave yet is owed as `unsent`."""
        self._put(exchange, responses.chunk(data))
        if self.write_paused or self.pending[0] is not exchange:
            exchange.unsent += len(data)
        else:
            exchange.sent(len(data))

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

    def take_back(self, exchange: Exchange) -> bool:
        """Forget what a stream has given so far; False if some of it has left for the client."""
        if self.pending[0] is exchange:
            return False
        self._settle(exchange)
        exchange.streaming = False
        return True

    def break_off(self, exchange: Exchange) -> None:
        """End the connection inside a streamed answer, so that the client sees it is not whole."""
        exchange.finished = True
        self.closing = True
        self.transport.close()

    def _put(self, exchange: Exchange, data: bytes) -> None:
        if self.pending[0] is not exchange:
            self._hold(exchange, data)
            return
        self.transport.write(data)
        if self.write_paused:
            self._count_untaken()

    def _told_sent(self, exchange: Exchange) -> None:
        size, exchange.unsent = exchange.unsent, 0
        exchange.sent(size)

    # ---- flow

    def pause_writing(self) -> None:
        """The client takes nothing: read no more from it until it does."""
        self.write_paused = True
        self.since = monotonic()
        self._count_untaken()
        self.pause_reading()

    def resume_writing(self) -> None:
        """The client took what was waiting."""
        self.write_paused = False
        self.since = monotonic()
        self.hub.buffered -= self.untaken
        self.untaken = 0
        if self.pending and self.pending[0].unsent:
            self._told_sent(self.pending[0])
        if self.parked:
            self.take_up()
        self.resume_reading()

    def pause_reading(self) -> None:
        """Have the kernel, and so the client, wait."""
        if not self.read_paused and self.transport is not None and not self.discarding:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless the client does not take its answers or is owed many."""
        few = len(self.pending) <= self.hub.limits.pipeline // 2
        if self.read_paused and few and self.transport is not None and not self.write_paused:
            self.read_paused = False
            self.since = monotonic()
            self.transport.resume_reading()

    def close_after_answers(self) -> None:
        """End the connection so that the last answer arrives even if the client still sends.

        Closing a socket with unread input makes the kernel reset it, which can destroy the answer
        on its way; so only the writing side is shut first, and the rest is read and dropped.
        """
        transport = self.transport
        if self.refused and transport.can_write_eof():
            self.resume_reading()
            self.discarding = True
            self.since = monotonic()
            transport.write_eof()
        else:
            transport.close()

    # ---- time

    def check_taking(self, now: float) -> bool:
        """End a connection whose client takes no answers, or asks for none, for too long.

        Returns:
            Whether it waits for the client to take something, or to ask.
        """
        idle_timeout_s = self.hub.limits.idle_timeout_s
        waited = now - self.since
        if self.write_paused:
            before = self.untaken
            self._count_untaken()
            if self.untaken < before:
                self.since = now  # slow, but it takes its answers
            elif waited > idle_timeout_s:
                self.transport.abort()
        elif self.discarding:
            unsent = self.transport.get_write_buffer_size()
            if waited > (idle_timeout_s if unsent else LINGER_S):
                self.transport.abort()
        elif self.in_message:
            return False
        elif not self.pending and waited > idle_timeout_s:
            if self.transport.is_closing():
                self.transport.abort()  # the client does not take the last bytes of its answer
            else:
                self.transport.close()
        return True

    def close_if_idle(self) -> None:
        """Its site closes: end the connection if no request is under way on it."""
        if not self.pending and not self.in_message and not self.closing:
            self.closing = True
            self.transport.close()
