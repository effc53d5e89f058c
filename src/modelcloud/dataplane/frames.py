"""The binary frames between gateway and worker: a fixed header, then the untouched body.

Must never: look inside a body. Header, little-endian, 12 bytes:

    u32 length of the body | u32 request id | u8 kind | u8 codec | u16 command (in answers: HTTP status)
"""

from __future__ import annotations

import struct
from enum import IntEnum

HEADER = struct.Struct("<IIBBH")
HEADER_SIZE = HEADER.size
pack_header = HEADER.pack
unpack_header = HEADER.unpack_from


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    REQUEST_WITH_META = 2  # u32 length of the msgpack'd RequestMeta, the meta, then the body
    RESPONSE = 3
    CHUNK = 4  # a piece of a streamed answer
    END = 5  # of a streamed answer
    ERROR = 6
    CANCEL = 7
    HELLO = 8  # worker → gateway, once per connection: msgpack'd list of command names


class Codec(IntEnum):
    """How a body is written (low bits); flags are or-ed to it."""

    JSON = 0
    QUERY = 1  # a query string; every value is text
    TEXT = 2
    EVENT_STREAM = 3
    BINARY = 4
    FORM = 5  # application/x-www-form-urlencoded


FLAG_GZIP = 0x40  # the request body is gzip'd
FLAG_STREAM = 0x80  # the client accepts text/event-stream
CODEC_MASK = 0x3F


class FrameTooLarge(Exception):
    """A peer announced a body over the limit; the connection is not to be read further."""
