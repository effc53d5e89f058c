"""A raw HTTP/1.1 client: sends exactly the bytes it is given and reads what comes back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

TIMEOUT_S = 30.0


class Answer(NamedTuple):
    """One response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """One connection."""

    def __init__(self, port: int, source: str = "") -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), TIMEOUT_S, (source, 0) if source else None
        )
        self._buffer = b""

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise EOFError(f"closed after {self._buffer!r}")
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise EOFError(f"closed after {self._buffer!r}")
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """The pieces of a chunked body, as they come."""
        while True:
            size = int(self._until(b"\r\n"), 16)
            data = self._exactly(size + 2)[:-2]
            if not size:
                return
            yield data

    def read(self, *, head_only: bool = False) -> Answer:
        """The next whole response."""
        status, headers = self.head()
        if head_only or status in {100, 204}:
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
        else:
            body = self._exactly(int(headers["content-length"]))
        return Answer(status, headers, body)

    def closed(self) -> bool:
        """Wait for the other side to close; True if nothing came before that."""
        try:
            return not self._more()
        except ConnectionResetError:
            return False


@contextmanager
def connect(port: int, *, source: str = "") -> Iterator[Raw]:
    """A connection, closed after the block; `source` is the address that it comes from."""
    raw = Raw(port, source)
    try:
        yield raw
    finally:
        raw.socket.close()


def post(path: str, body: object, *headers: str, host: str = "localhost") -> bytes:
    """The bytes of a JSON POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def get(path: str, *headers: str, method: str = "GET", host: str = "localhost") -> bytes:
    """The bytes of a request without a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
