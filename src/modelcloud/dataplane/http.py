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

from modelcloud.codecs.media import FLAG_WRAPPED
from modelcloud.dataplane import responses
from modelcloud.dataplane.answers import SMALL_BODY, Hub, OrderedAnswers
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.lookup import WRAPPED
from modelcloud.dataplane.peer import address_of
from modelcloud.dataplane.repeat import RepeatedHead, learn
from modelcloud.dataplane.router import RequestHead, route
from modelcloud.dataplane.sites import OpenSite

#: Pieces of a body below this size are joined as they come: objects take many times their size.
SMALL_PIECE = 4 * 1024
BODY_GRACE_S = 5.0
#: Heads that are remembered in a row without one of them coming again: some clients send
#: another one each time.
LESSONS = 4
#: Clients over the limit of connections who are told so; those beyond are dropped without a word.
MAX_TURNED_AWAY = 1024

_ids = itertools.count(1)
_id_prefix = os.urandom(6).hex().encode()


class HttpConnection(OrderedAnswers, asyncio.Protocol):
    """One client. Requests may be pipelined; a request is submitted when its last byte is here."""

    def __init__(self, hub: Hub, site: OpenSite) -> None:
        super().__init__(hub, site)
        self.parser = httptools.HttpRequestParser(self)
        self.in_body = False
        self.head_fed = 0  # bytes read of a head, chunk extension or trailer that goes on
        self.accounted = self.size = 0
        self.taking_up = False
        self.read = b""  # what is being parsed, if it began with a request
        self.repeated: RepeatedHead | None = None
        self.lessons = LESSONS

    # ---- connection events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client, or turn it away at once when there are too many, or nothing for it."""
        self.transport = transport
        hub = self.hub
        if not self.site.named:
            self.closing = True
            self.transport.close()
            return
        hub.connections_total += 1
        if len(hub.connections) < hub.limits.connections:
            hub.connections.add(self)
            return
        if len(hub.turned_away) >= MAX_TURNED_AWAY:
            hub.count_rejected("connections")
            self.transport.abort()
            return
        hub.turned_away.add(self)
        self.on_message_begin()
        self._refuse(503, "too many connections; try again later", "connections",
                     b"retry-after: 1\r\n")  # fmt: skip

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what is pending."""
        hub = self.hub
        hub.connections.discard(self)
        hub.turned_away.discard(self)
        self.transport = None
        self.closing = True
        hub.buffered -= self.accounted + self.untaken
        self.accounted = self.untaken = 0
        self.parked.clear()
        for exchange in self.pending:
            self._settle(exchange)
            exchange.connection = None
            if not exchange.finished:
                exchange.finished = True
                exchange.release()
        self.pending.clear()

    def eof_received(self) -> bool:
        """The client sends no more. What a worker has is still answered, what waits is given up.

        Most clients that close their side have left; only a few (`nc`) wait for the answer.
        """
        self.closing = True
        for exchange in list(self.pending):
            if not exchange.tries and not exchange.finished:
                exchange.release()
                exchange.fail(400, "the connection was closed before a worker was free")
        return bool(self.pending) and bool(self.transport.can_write_eof())  # TLS has no half

    def data_received(self, data: bytes) -> None:
        """Parse what came; complete requests are submitted from within."""
        if self.closing:
            return
        if not self.in_message:
            if self.repeated is not None and self._take_repeated(self.repeated, data):
                return
            self.read = data
        self.head_fed += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._feed_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:  # a mistake in this package
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a request could not be taken", "exception": error.__context__ or error}
            )
            self.closing = True
            self.transport.abort()
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed request: {error}", "bad_request")
            return
        if not self.in_message:
            self.head_fed = 0
        elif self.head_fed > self.hub.limits.head:
            self._refuse_head()
        if len(self.pending) >= self.hub.limits.pipeline:
            self.pause_reading()

    def _take_repeated(self, head: RepeatedHead, data: bytes) -> bool:
        """Submit a request without parsing it again, if it is one more with the same head."""
        hub, site = self.hub, self.site
        if (
            head.lookup is not site.lookup
            or site.closing
            or self.write_paused
            or self.parked
            or len(self.pending) >= hub.limits.pipeline
        ):
            return False
        body = head.body_of(data)
        if body is None or len(body) > SMALL_BODY or len(body) > hub.limits.body:
            return False
        self.lessons = LESSONS
        now = self.since = monotonic()
        exchange = Exchange(self, body, now, b"%b-%x" % (_id_prefix, next(_ids)), b"")
        self.pending.append(exchange)
        endpoint = head.endpoint
        exchange.command = endpoint.command
        exchange.idempotent = endpoint.idempotent
        exchange.codec = endpoint.codec
        endpoint.target.submit(exchange)
        if len(self.pending) >= hub.limits.pipeline:
            self.pause_reading()
        return True

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Parse a request that offers another protocol again without that offer.

        The parser takes even its body for the other protocol: a POST of Java's client loses it.
        """
        while True:
            if not self.in_message:  # CONNECT: it was answered, and what follows is for others
                self.refused = self.closing = True
                if not self.pending:
                    self.close_after_answers()
            if self.closing:
                return
            version = self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
            lines += [b"%b: %b" % h for h in self.headers if h[0].lower() != b"upgrade"]
            data = b"\r\n".join([*lines, b"", rest])
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:  # of a request behind it
                rest = data[upgrade.args[0] :]
            else:
                return

    # ---- parser events

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.closing:
            return
        self.in_message = True
        self.in_body = False
        self.since = monotonic()
        self.url = b""
        self.pieces: list[bytes | bytearray] = []
        self.accounted = self.size = self.head_size = 0
        self.host: bytes | None = None
        self.ctype: bytes | None = None
        self.encoding: bytes | None = None
        self.length = 0
        self.request_id: bytes | None = None
        self.origin: bytes | None = None
        self.wants_stream = False
        self.expects = False
        self.asks_upgrade = False
        self.asks_keep_alive = False
        self.chunked = False
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
        elif size == 7:
            self.asks_upgrade |= name.lower() == b"upgrade"
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
        elif size == 17 and name.lower() == b"transfer-encoding":
            self.chunked = True
            if value.strip().lower() != b"chunked":
                self._refuse(501, "Transfer-Encoding: accepted is chunked", "bad_request")

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what is known to be too much before its body is sent."""
        if self.asks_upgrade and self.parser.should_upgrade():
            return  # it is parsed again
        self.in_body = True
        self.head_fed = 0
        limits = self.hub.limits
        old = (self.host is None or self.chunked or self.expects) and (
            self.parser.get_http_version() == "1.0"
        )
        if self.head_size + len(self.url) > limits.head:
            self._refuse_head()
        elif self.host is None and not old:
            self._refuse(400, "no Host header", "bad_request")
        elif self.chunked and old:
            self._refuse(400, "Transfer-Encoding: not known in HTTP/1.0", "bad_request")
        elif self.length > limits.body:
            self._refuse_body()
        elif self.expects and not old and not self.pending and not self.closing:
            self.transport.write(responses.CONTINUE)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self.closing:
            return
        pieces = self.pieces
        if not pieces or len(data) >= SMALL_PIECE:
            pieces.append(data)
        elif isinstance(pieces[-1], bytearray):
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))
        self.head_fed = 0
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
        if self.closing or (self.asks_upgrade and self.parser.should_upgrade()):
            return  # in the latter case it is parsed again
        self.in_message = self.in_body = False
        hub = self.hub
        now = self.since = monotonic()
        keep = self.parser.should_keep_alive() and not self.site.closing
        head = b""
        if not keep:
            self.closing = True
            head = responses.CLOSE
        elif self.asks_keep_alive and self.parser.get_http_version() == "1.0":
            head = responses.KEEP_ALIVE
        if self.origin is not None and self._admits_origin():
            head += b"access-control-allow-origin: %b\r\nvary: origin\r\n" % hub.cors
        pieces = self.pieces
        body = b"" if not pieces else bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        self.pieces = []
        request_id = self.request_id
        if request_id is None or not (0 < len(request_id) <= 128 and request_id.isascii()):
            request_id = b"%b-%x" % (_id_prefix, next(_ids))
        exchange = Exchange(self, body, now, request_id, head)
        exchange.accounted = self.accounted
        self.accounted = 0
        self.pending.append(exchange)
        if self.write_paused or self.parked or len(self.pending) > hub.limits.pipeline:
            self.parked.append((exchange, self._request_head()))
            return
        lookup = self.site.lookup
        endpoint = lookup.hot.get(self.url)
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
            exchange.codec = endpoint.codec
            if self.lessons and request_id is not self.request_id and not (head or self.expects):
                self.lessons -= 1
                self.repeated = learn(self.read, len(body), endpoint, lookup)
            endpoint.target.submit(exchange)
        else:
            route(hub, lookup, exchange, self._request_head())

    def take_up(self) -> None:
        """Send parked requests on their way, as far as the client takes answers."""
        parked, pending = self.parked, self.pending
        if self.taking_up:
            return
        self.taking_up = True  # a request may be answered, and lead back here, at once
        limit = self.hub.limits.pipeline
        while parked and not self.write_paused and len(pending) - len(parked) < limit:
            exchange, head = parked.popleft()
            if not exchange.finished:
                route(self.hub, self.site.lookup, exchange, head)
        self.taking_up = False

    def _request_head(self) -> RequestHead:
        return RequestHead(
            method=self.parser.get_method().decode("ascii"),
            url=self.url,
            headers=self.headers,
            host=self.host or b"",
            media_type=(self.ctype or b"").split(b";")[0].strip().lower(),
            encoding=(self.encoding or b"identity").lower(),
            wants_stream=self.wants_stream and self.parser.get_http_version() != "1.0",
            preflight=self._admits_origin(),
            peer=address_of(self.transport),
            scheme="https" if self.transport.get_extra_info("sslcontext") else "http",
        )

    def _admits_origin(self) -> bool:
        return bool(self.origin) and self.hub.cors in {b"*", self.origin}

    # ---- refusing

    def _refuse_head(self) -> None:
        accepted = f"accepted up to {self.hub.limits.head} bytes"
        self._refuse(431, f"request line and headers: {accepted}", "head")

    def _refuse_body(self) -> None:
        self._refuse(413, f"body: accepted up to {self.hub.limits.body} bytes", "body")

    def _refuse(self, status: int, message: str, reason: str, extra: bytes = b"") -> None:
        """Answer with an error after which nothing more is read from this connection."""
        if self.closing:
            return
        wrapped = self.in_message and self.url.startswith(WRAPPED)
        self.refused = self.closing = True
        self.in_message = False
        hub = self.hub
        hub.count_rejected(reason)
        hub.buffered -= self.accounted
        self.accounted = 0
        self.pieces = []
        request_id = b"%b-%x" % (_id_prefix, next(_ids))
        exchange = Exchange(self, b"", monotonic(), request_id, responses.CLOSE)
        if hub.access_log:
            exchange.log = ("", self.url.decode("latin-1"))
        exchange.codec = FLAG_WRAPPED if wrapped else 0
        self.pending.append(exchange)
        exchange.fail(status, message, extra=extra)

    # ---- time

    def check_time(self, now: float) -> None:
        """Called about once a second: end what waits too long."""
        if self.check_taking(now) or not self.in_message or self.read_paused:
            return
        limits = self.hub.limits
        waited = now - self.since
        if not self.in_body:
            if waited > limits.header_timeout_s:
                self._refuse(408, f"the head took longer than {limits.header_timeout_s:g} s",
                             "slow_head")  # fmt: skip
        elif waited > BODY_GRACE_S and self.size < limits.body_min_rate * waited:
            self._refuse(408, f"the body came slower than {limits.body_min_rate} bytes/s",
                         "slow_body")  # fmt: skip
