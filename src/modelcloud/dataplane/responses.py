"""HTTP/1.1 response heads, and the JSON body of every error a gateway gives.

Must never: decide anything; it turns a status, headers and a body into bytes.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import msgspec

from modelcloud.codecs.media import Codec

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

CONTENT_TYPES: dict[int, bytes] = {
    Codec.JSON: b"application/json",
    Codec.TEXT: b"text/plain; charset=utf-8",
    Codec.EVENT_STREAM: b"text/event-stream",
    Codec.BINARY: b"application/octet-stream",
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"


def error_body(message: str, **fields: Any) -> bytes:
    """`{"error": message, …}`."""
    return msgspec.json.encode({"error": message, **fields})


def http_date() -> bytes:
    """The current time as RFC 9110 writes it."""
    return formatdate(usegmt=True).encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def header_lines(headers: list[tuple[str, str]]) -> bytes:
    """Header lines. A line break inside a value would start a new header.

    Raises:
        ValueError: a name is no token (RFC 9110, 5.6.2), or a value holds a control character.
    """
    out = []
    for name, value in headers:
        line = f"{name}: {value}"
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"header {name!r} has a name or a value that HTTP does not have")
        out.append(line.encode("latin-1", "replace") + b"\r\n")
    return b"".join(out)
