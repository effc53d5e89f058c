"""One client's connection to the control plane: uvicorn's, with the limits that it lacks.

Must never: know what is asked for; it looks at sizes and at time alone.

Whoever connects is counted against `main.CONCURRENCY` before anybody knows who it is. So a
connection that works on nothing has only so long to ask for something (slow heads, row 32 of the
attacks), and what belongs to no body is held only up to a limit (heads, trailers, chunk
extensions, row 33).
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from urllib.parse import unquote

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelcloud.control.web.browser import is_api

#: From the connection, or an answer, to the end of the next request's head.
HEAD_S = 10.0
#: A request's first line and headers; and what may come in a row that is part of no body.
MAX_HEAD = 32 * 1024
MAX_HEADERS = 100


class Connection(HttpToolsProtocol):
    """What uvicorn makes of each connection."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        self._idle: TimerHandle | None = None
        self._since_body = 0
        self._too_large = False
        self._upgraded = False
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no more."""
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; what is neither a body nor whole is held only up to a limit."""
        self._since_body += len(data)
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            self._stop_watching()
            return
        if self._since_body > MAX_HEAD:
            self._too_large = True
            self.send_400_response("")
        self._watch()

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, though it came at once, and the form that proxies take.

        `http://host/path` names a host beside the Host header: one too many to authorise by.
        """
        if not self.url.startswith(b"/"):
            raise ValueError("target")
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD or len(self.headers) > MAX_HEADERS:
            self._too_large = True
            raise ValueError("head")
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        """Only pages open websockets; the API answers such a request as any other."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        return not is_api(unquote(path)) and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """From now on the connection is another protocol's, which has limits of its own."""
        self._upgraded = True
        self._stop_watching()
        super().handle_websocket_upgrade()

    def on_body(self, body: bytes) -> None:
        """It moves on."""
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Likewise."""
        self._since_body = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """From now on something must be asked for."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it, and hang up."""
        status, title = 400, "Bad Request"
        detail = "malformed request"
        if self._too_large:
            status, title = 431, "Request Header Fields Too Large"
            detail = f"accepted: up to {MAX_HEADERS} headers, {MAX_HEAD} bytes with the first line"
        answer = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        body = msgspec.json.encode(answer)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, title.encode(), len(body), body)
        )
        self.transport.close()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        if self._busy:
            self._stop_watching()
        elif self._idle is None:
            self._idle = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_watching(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _give_up(self) -> None:
        self.transport.close()
