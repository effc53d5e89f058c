"""How the body of a frame is written: a number in its header, with flags or-ed to it.

Must never: hold anything but these numbers; gateway and workers of any version read them.
"""

from __future__ import annotations

from enum import IntEnum


class Codec(IntEnum):
    """The form of a body (low bits)."""

    JSON = 0
    QUERY = 1  # a query string; every value is text
    TEXT = 2
    EVENT_STREAM = 3
    BINARY = 4
    FORM = 5  # application/x-www-form-urlencoded
    SITE = 6  # an answer: u32 length of the msgpack'd headers, the headers, then the body


CODEC_MASK = 0x1F
FLAG_WRAPPED = 0x20  # the answer is to be `{"message": …, "code": …, "data": …}`
FLAG_GZIP = 0x40  # the request body is gzip'd
FLAG_NAN = 0x40  # in an answer: a NaN or infinity became null
FLAG_STREAM = 0x80  # the client accepts text/event-stream
