"""Requests whose head is, byte for byte, that of one before on the same connection.

Must never: guess. A client sends the same head again and again, only the length of the body
differs; where all of its other bytes are equal, the parser would say the same as before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from modelcloud.dataplane.lookup import Endpoint, Lookup

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
#: Digits of a body's length that are looked at.
MAX_DIGITS = 9


class RepeatedHead(NamedTuple):
    """A head that was parsed, cut at the digits of its content length, and where it led."""

    before: bytes
    after: bytes
    endpoint: Endpoint
    lookup: Lookup

    def body_of(self, data: bytes) -> bytes | None:
        """The body, if `data` is exactly one request with this head; else None."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        stop = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if stop < 0 or not data.startswith(self.after, stop):
            return None
        digits = data[start:stop]
        body = data[stop + len(self.after) :]
        return body if digits.isdigit() and int(digits) == len(body) else None


def learn(data: bytes, size: int, endpoint: Endpoint, lookup: Lookup) -> RepeatedHead | None:
    """The head of `data`, if that is exactly one request with a body of `size` bytes.

    The request must be one that says nothing but where it goes: no request id, no origin, no
    `expect`, and a connection that is kept.
    """
    end = data.find(_END) + len(_END)
    found = _LENGTH.search(data, 0, end)
    if end + size != len(data) or found is None:
        return None
    start, stop = found.span(1)
    return RepeatedHead(data[:start], data[stop:end], endpoint, lookup)
