"""The binary frames between gateway and worker: a fixed header, then the untouched body.

Must never: look inside a body. Header, little-endian, 12 bytes:

    u32 length of the body | u32 request id | u8 kind | u8 codec | u16 command

In answers, `command` carries the HTTP status.
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
    CANCEL = 6  # gateway → worker: nobody waits for this request any more
    CREDIT = 7  # gateway → worker: u32, so many bytes of the stream went out to the client
    #: Worker → gateway, first: msgpack'd (command names, requests it can hold at least, names of
    #: those commands during whose calls it does nothing else).
    HELLO = 8


STREAM_WINDOW = 256 * 1024  #: bytes of a stream that may be on their way to the client

#: Room above the body limit for an answer, whose size the model decides.
MAX_ANSWER = 1024 * 1024 * 1024
