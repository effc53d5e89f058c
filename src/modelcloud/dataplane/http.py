"""The reading half of a client's connection: HTTP/1.1 requests in, with limits on all that waits.

Must never: look into a JSON body or know workers. Strictness of the grammar (Content-Length
beside Transfer-Encoding, bare LF, chunk sizes …) is llhttp's, through httptools; what llhttp
leaves open is refused here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from time import monotonic

import httptools

from modelcloud.codecs.media import Codec
from modelcloud.dataplane import responses
from modelcloud.dataplane.answers import Hub, OrderedAnswers
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.router import RequestHead, route

#: Bodies up to this size are not counted against `Limits.buffered`: `connections` bounds them.
SMALL_BODY = 64 * 1024
LINGER_S = 2.0
BODY_GRACE_S = 5.0

_ids = itertools.count(1)
_id_prefix = os.urandom(6).hex().encode()


class HttpConnection(OrderedAnswers, asyncio.Protocol):
    """One client. Requests may be pipelined; a request is submitted when its last byte is here."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.parser = httptools.HttpRequestParser(self)
        self.in_body = False
        self.head_fed = 0  # bytes read of a head that is not complete
        self.accounted = 0
        self.size = 0

    # ---- connection events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client, or turn it away at once when there are too many."""
        self.transport = transport
        hub = self.hub
        hub.connections_total += 1
        if len(hub.connections) < hub.limits.connections:
            hub.connections.add(self)
            return
        hub.connections.add(self)
        self.on_message_begin()
        self._refuse(503, "too many connections; try again later", "connections",
                     b"retry-after: 1\r\n")  # fmt: skip

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what is pending."""
        hub = self.hub
        hub.connections.discard(self)
        self.transport = None
        self.closing = True
        hub.buffered -= self.accounted
        self.accounted = 0
        for exchange in self.pending:
            hub.buffered -= exchange.accounted
            exchange.connection = None
            if not exchange.finished:
                exchange.finished = True
                hub.release(exchange)
        self.pending.clear()

    def eof_received(self) -> bool:
        """The client sends no more. What a worker has is still answered, what waits is given up.

        Most clients that close their side have left; only a few (`nc`) wait for the answer.
        """
        self.closing = True
        for exchange in list(self.pending):
            if not exchange.tries and not exchange.finished:
                self.hub.release(exchange)
                exchange.keep = False
                exchange.fail(400, "the connection was closed before a worker was free")
        return bool(self.pending)

    def data_received(self, data: bytes) -> None:
        """Parse what came; complete requests are submitted from within."""
        if self.closing:
            return
        if not self.in_body:
            self.head_fed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No upgrade is offered: the request was taken as a plain one, and what follows it may
            # be another protocol.
            self._stop_reading()
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed request: {error}", "bad_request")
            return
        if not self.in_message:
            self.head_fed = 0
        elif not self.in_body and self.head_fed > self.hub.limits.head:
            self._refuse_head()
        if len(self.pending) >= self.hub.limits.pipeline:
            self.pause_reading()

    # ---- parser events

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.closing:
            return
        self.in_message = True
        self.in_body = False
        self.since = monotonic()
        self.url = b""
        self.pieces: list[bytes] = []
        self.size = 0
        self.accounted = 0
        self.head_size = 0
        self.host: bytes | None = None
        self.ctype: bytes | None = None
        self.encoding: bytes | None = None
        self.length = 0
        self.request_id: bytes | None = None
        self.origin: bytes | None = None
        self.wants_stream = False
        self.expects = False
        self.asks_keep_alive = False
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """The request target, or a part of it."""
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; told apart by length first, since most are of no interest."""
        if self.in_body:
            return  # a trailer: nothing may set a header after the body
        size = len(name)
        self.head_size += size + len(value) + 4
        self.headers.append((name, value))
        if size == 4:
            if name.lower() == b"host":
                if self.host is not None:
                    self._refuse(400, "two Host headers", "bad_request")
                self.host = value
        elif size == 6:
            lower = name.lower()
            if lower == b"accept":
                self.wants_stream = b"text/event-stream" in value
            elif lower == b"origin":
                self.origin = value
            elif lower == b"expect":
                self.expects = True
                if value.lower() != b"100-continue":
                    self._refuse(417, "Expect: accepted is 100-continue", "bad_request")
        elif size == 10:
            if name.lower() == b"connection":
                self.asks_keep_alive = value.lower() == b"keep-alive"
        elif size == 12:
            lower = name.lower()
            if lower == b"content-type":
                self.ctype = value
            elif lower == b"x-request-id":
                self.request_id = value
        elif size == 14:
            if name.lower() == b"content-length":
                self.length = int(value)
        elif size == 16:
            if name.lower() == b"content-encoding":
                self.encoding = value
        elif size == 17 and name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            self._refuse(501, "Transfer-Encoding: accepted is chunked", "bad_request")

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what is known to be too much before its body is sent."""
        self.in_body = True
        self.head_fed = 0
        limits = self.hub.limits
        if self.head_size + len(self.url) > limits.head:
            self._refuse_head()
        elif self.host is None and self.parser.get_http_version() != "1.0":
            self._refuse(400, "no Host header", "bad_request")
        elif self.length > limits.body:
            self._refuse_body()
        elif self.expects and not self.pending and not self.closing:
            self.transport.write(responses.CONTINUE)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self.closing:
            return
        self.pieces.append(data)
        self.size += len(data)
        if self.size > SMALL_BODY:
            hub = self.hub
            if self.size > hub.limits.body:
                self._refuse_body()
                return
            hub.buffered += self.size - self.accounted
            self.accounted = self.size
            if hub.buffered > hub.limits.buffered:
                self._refuse(503, "too many large bodies at once; try again later", "buffered",
                             b"retry-after: 1\r\n")  # fmt: skip

    def on_message_complete(self) -> None:
        """The last byte of a request is here: send it on its way."""
        self.in_message = self.in_body = False
        if self.closing:
            return
        hub = self.hub
        now = self.since = monotonic()
        keep = self.parser.should_keep_alive() and not hub.draining
        head = b""
        if not keep:
            self.closing = True
            head = responses.CLOSE
        elif self.asks_keep_alive and self.parser.get_http_version() == "1.0":
            head = responses.KEEP_ALIVE
        if self.origin is not None and hub.cors in {b"*", self.origin}:
            head += b"access-control-allow-origin: %b\r\nvary: origin\r\n" % hub.cors
        pieces = self.pieces
        body = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.pieces = []
        request_id = self.request_id
        if request_id is None or not 0 < len(request_id) <= 128:
            request_id = b"%b-%x" % (_id_prefix, next(_ids))
        exchange = Exchange(self, body, now, request_id, keep, head)
        exchange.accounted = self.accounted
        self.accounted = 0
        self.pending.append(exchange)
        endpoint = hub.lookup.hot.get(self.url)
        if (
            endpoint is not None
            and (self.ctype is None or self.ctype == b"application/json")
            and self.encoding is None
            and not self.wants_stream
            and not hub.access_log
            and self.parser.get_method() == b"POST"
        ):
            exchange.command = endpoint.command
            exchange.idempotent = endpoint.idempotent
            hub.submit(endpoint.pool, exchange)
        else:
            route(hub, exchange, self._request_head())

    def _request_head(self) -> RequestHead:
        peer = self.transport.get_extra_info("peername")
        return RequestHead(
            method=self.parser.get_method().decode("ascii"),
            url=self.url,
            headers=self.headers,
            host=self.host or b"",
            media_type=(self.ctype or b"").split(b";")[0].strip().lower(),
            encoding=(self.encoding or b"identity").lower(),
            wants_stream=self.wants_stream and self.parser.get_http_version() != "1.0",
            preflight=self.origin is not None and self.hub.cors in {b"*", self.origin},
            peer=str(peer[0]) if peer else "",
        )

    # ---- refusing

    def _refuse_head(self) -> None:
        limit = self.hub.limits.head
        self._refuse(431, f"request line and headers: accepted up to {limit} bytes", "head")

    def _refuse_body(self) -> None:
        self._refuse(413, f"body: accepted up to {self.hub.limits.body} bytes", "body")

    def _refuse(self, status: int, message: str, reason: str, extra: bytes = b"") -> None:
        """Answer with an error after which nothing more is read from this connection."""
        if self.closing:
            return
        self.refused = True
        self._stop_reading()
        hub = self.hub
        hub.count_rejected(reason)
        hub.buffered -= self.accounted
        self.accounted = 0
        self.pieces = []
        exchange = Exchange(self, b"", monotonic(), b"%b-%x" % (_id_prefix, next(_ids)),
                            False, responses.CLOSE)  # fmt: skip
        if hub.access_log:
            exchange.log = ("", self.url.decode("latin-1"))
        self.pending.append(exchange)
        self.write_answer(exchange, status, Codec.JSON, responses.error_body(message), extra)

    def _stop_reading(self) -> None:
        self.closing = True
        self.in_message = False
        if not self.pending and not self.refused:
            self.close_after_answers()

    # ---- time

    def check_time(self, now: float) -> None:
        """Called about once a second: end what waits too long."""
        limits = self.hub.limits
        waited = now - self.since
        if self.discarding:
            if waited > LINGER_S:
                self.transport.abort()
        elif self.write_paused:
            if waited > limits.idle_timeout_s:
                self.transport.abort()
        elif self.in_message:
            if self.read_paused:
                return
            if not self.in_body:
                if waited > limits.header_timeout_s:
                    self._refuse(408, f"the head took longer than {limits.header_timeout_s:g} s",
                                 "slow_head")  # fmt: skip
            elif waited > BODY_GRACE_S and self.size < limits.body_min_rate * waited:
                self._refuse(408, f"the body came slower than {limits.body_min_rate} bytes/s",
                             "slow_body")  # fmt: skip
        elif not self.pending and waited > limits.idle_timeout_s:
            self.transport.close()

    def close_if_idle(self) -> None:
        """During a drain: end the connection if no request is under way on it."""
        if not self.pending and not self.in_message and not self.closing:
            self.closing = True
            self.transport.close()
