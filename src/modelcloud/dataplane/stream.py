"""One streamed answer of a worker: values become events, as far as the client takes them.

Must never: call the model; the executor gets the values and hands them over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from modelcloud.codecs.media import Codec
from modelcloud.dataplane.commands import BoundCommand
from modelcloud.dataplane.frames import STREAM_WINDOW, Kind
from modelcloud.errors import ModelError

if TYPE_CHECKING:
    from modelcloud.dataplane.gateway_link import GatewayLink

#: Bytes of one value.
MAX_EVENT = 64 * 1024 * 1024


class Stream:
    """A generator whose values go out one by one, as far as the client takes them."""

    def __init__(self, link: GatewayLink, rid: int, command: BoundCommand, values: Any) -> None:
        self.link = link
        self.rid = rid
        self.command = command
        self.values = values
        self.window = STREAM_WINDOW
        self.started = False
        self.room = asyncio.Event()

    def put(self, value: Any) -> None:
        """Send one value as an event."""
        body, _ = self.command.codec.encode(value)
        if len(body) > MAX_EVENT:
            raise ModelError(f"an event of {len(body)} bytes; accepted up to {MAX_EVENT}")
        self._send(b"data: %b\n\n" % body)

    def fail(self, error: BaseException) -> None:
        """End with an error: a status of its own while nothing was sent, else a last event."""
        status, codec, body = self.command.failure(error)
        if self.started:
            self._send(b"event: error\ndata: %b\n\n" % body)
            self.end()
        else:
            self.link.answer(self.rid, (status, codec, body))

    def end(self) -> None:
        """No more values."""
        if not self.started:
            self._send(b"")
        self.link.frame(self.rid, Kind.END, Codec.EVENT_STREAM, 200, b"")

    def _send(self, event: bytes) -> None:
        self.started = True
        self.window -= len(event)
        self.room.clear()
        self.link.frame(self.rid, Kind.CHUNK, Codec.EVENT_STREAM, 200, event)
