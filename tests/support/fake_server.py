"""A server of scripted answers on a real socket, for what talks to one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

#: As an answer: close the connection without one.
HANG_UP = (0, None)


class Asked(NamedTuple):
    """One request that came."""

    method: str
    path: str
    body: Any
    authorization: str


class FakeServer:
    """Answers `(method, path)` with the next of its answers, the last one again and again."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def on(self, method: str, path: str, *answers: tuple[int, Any]) -> None:
        """Answer this request, path with query, with these statuses and JSON bodies in turn."""
        self.answers[method, path] = list(answers)

    def changes(self) -> list[Asked]:
        """The requests that were no mere reading."""
        return [asked for asked in self.asked if asked.method != "GET"]


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """A running `FakeServer`."""
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            token = self.headers.get("authorization", "")
            fake.asked.append(Asked(self.command, self.path, body, token))
            answers = fake.answers.get((self.command, self.path), [(404, {"error": "no such"})])
            status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if (status, answer) == HANG_UP:
                self.close_connection = True
                return
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 — as it is inherited

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — as it is inherited
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
