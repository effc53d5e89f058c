"""A plain caller of a worker's frames, for the one answer at a time that a Serve request needs.

Must never: be on the path of the gateways, whose `dataplane.link` keeps many requests in flight.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, NamedTuple

import msgspec

from modelcloud.codecs.media import FLAG_NAN, Codec
from modelcloud.dataplane import handshake
from modelcloud.dataplane.frames import HEADER_SIZE, MAX_ANSWER, Kind, pack_header, unpack_header
from modelcloud.waiting import within

_hello = msgspec.msgpack.Decoder(tuple[list[str], int, list[str]])
HELLO_S = 10.0


class FrameAnswer(NamedTuple):
    """Status, codec and body."""

    status: int
    codec: int
    body: bytes


class WorkerGone(ConnectionError):
    """The worker hung up, and owes answers."""


class FrameClient(asyncio.Protocol):
    """A connection to one worker; `call` may be awaited by many at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.commands: list[str] = []
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._transport: Any = None
        self._waiting: dict[int, asyncio.Future[FrameAnswer]] = {}
        self._ids = itertools.count(1)
        self._buffer = bytearray()

    async def connect(self, endpoint: str, secret: str) -> None:
        """Connect to a worker that holds the secret.

        Raises:
            OSError: it cannot be reached.
            asyncio.TimeoutError: it did not say hello.
        """
        await handshake.call(endpoint, "", secret, self)
        await within(self._greeted, HELLO_S)

    async def call(self, command: str, codec: int, body: bytes, timeout_s: float) -> FrameAnswer:
        """Call a command that the worker has.

        Raises:
            WorkerGone: it hung up.
            asyncio.TimeoutError: it did not answer in time.
        """
        if self._transport is None or self._transport.is_closing():
            raise WorkerGone("the worker is gone")
        rid = next(self._ids) & 0xFFFFFFFF
        answer = self._waiting[rid] = asyncio.get_running_loop().create_future()
        number = self.commands.index(command)
        self._transport.write(pack_header(len(body), rid, Kind.REQUEST, codec, number) + body)
        try:
            return await within(answer, timeout_s)
        finally:
            self._waiting.pop(rid, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The worker says hello next."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody will answer any more."""
        owed: list[asyncio.Future[Any]] = [self._greeted, *self._waiting.values()]
        for answer in owed:
            if not answer.done():
                answer.set_exception(WorkerGone("the worker is gone"))
                answer.exception()  # asked for, whether or not anybody waits

    def data_received(self, data: bytes) -> None:
        """Frames, in parts or several at once."""
        self._buffer += data
        while len(self._buffer) >= HEADER_SIZE:
            length, rid, kind, codec, status = unpack_header(self._buffer, 0)
            if length > MAX_ANSWER:
                self._transport.abort()
                return
            if len(self._buffer) < HEADER_SIZE + length:
                return
            body = bytes(self._buffer[HEADER_SIZE : HEADER_SIZE + length])
            del self._buffer[: HEADER_SIZE + length]
            self._take(kind, rid, FrameAnswer(status, codec & ~FLAG_NAN, body))

    def _take(self, kind: int, rid: int, answer: FrameAnswer) -> None:
        if kind == Kind.HELLO:
            self.commands = _hello.decode(answer.body)[0]
            if not self._greeted.done():
                self._greeted.set_result(None)
            return
        waiting = self._waiting.get(rid)
        if waiting is None or waiting.done():
            return
        if kind == Kind.RESPONSE:
            waiting.set_result(answer)
        elif kind in {Kind.CHUNK, Kind.END}:
            error = b'{"error":"a stream cannot be had here; ask at the gateway"}'
            waiting.set_result(FrameAnswer(501, Codec.JSON, error))
