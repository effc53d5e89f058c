"""The worker's end of the frames from and to one gateway.

Must never: call the model; whole requests go to the executor, its answers come back here.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Any

import msgspec

from modelcloud.codecs import predict
from modelcloud.codecs.media import FLAG_STREAM, FLAG_WRAPPED, Codec
from modelcloud.dataplane.commands import Answer
from modelcloud.dataplane.executor import Executor
from modelcloud.dataplane.frames import HEADER_SIZE, MAX_ANSWER, Kind, pack_header, unpack_header
from modelcloud.dataplane.messages import LENGTH
from modelcloud.dataplane.request_view import read_plain, read_request
from modelcloud.dataplane.stream import Stream

_REQUEST = int(Kind.REQUEST)  # once: an enumeration's attributes are slow


class GatewayLink(asyncio.Protocol):
    """The frames from and to one gateway."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.transport: Any = None
        self.running: dict[int, asyncio.Task[None] | Future[Answer]] = {}
        self.streams: dict[int, Stream] = {}
        self._out: list[bytes] = []
        self._parts: list[bytes] = []  # of a frame that is not whole yet
        self._have = self._need = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this worker offers."""
        self.transport = transport
        self.executor.links.add(self)
        self.frame(0, Kind.HELLO, Codec.BINARY, 0, self.executor.hello)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The gateway died or retired this worker: nobody waits for what it had asked."""
        executor = self.executor
        executor.links.discard(self)
        self._out.clear()
        executor.forget(self)
        for rid in self.running.keys() | self.streams.keys():
            self.cancel(rid)

    def data_received(self, data: bytes) -> None:
        """Frames, as many as the gateway wrote at once."""
        executor = self.executor
        if self._parts:
            data = self._put_together(data)
        commands = executor.commands
        jobs = executor.jobs
        offset = 0
        size = len(data)
        while size - offset >= HEADER_SIZE:
            length, rid, kind, codec, number = unpack_header(data, offset)
            if length > executor.max_frame:
                self.transport.abort()  # what comes now is no frame of a gateway
                return
            start = offset + HEADER_SIZE
            end = start + length
            if size < end:
                break
            offset = end
            if kind == _REQUEST and number < len(commands):
                jobs.append((self, rid, commands[number], codec, data[start:end]))
            else:
                self._special(kind, rid, codec, number, data[start:end])
        if offset < size:
            rest = data[offset:]
            self._parts = [rest]
            self._have = len(rest)
            self._need = HEADER_SIZE
            if self._have >= HEADER_SIZE:
                self._need += unpack_header(rest, 0)[0]
        if jobs and not executor.scheduled:
            executor.run()

    def _put_together(self, data: bytes) -> bytes:
        """Add to a frame that comes in parts; returns what is to be read now, if anything.

        A large frame seldom comes with another behind it. Its body is then put together without
        its header, and so copied once.
        """
        parts = self._parts
        parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return b""
        self._parts = []
        if self._have > self._need or len(parts[0]) < HEADER_SIZE:
            return b"".join(parts)
        _, rid, kind, codec, number = unpack_header(parts[0], 0)
        parts[0] = parts[0][HEADER_SIZE:]
        self._special(kind, rid, codec, number, b"".join(parts))
        return b""

    def _special(self, kind: int, rid: int, codec: int, number: int, body: bytes) -> None:
        executor = self.executor
        if kind in {Kind.REQUEST, Kind.REQUEST_WITH_META}:
            if number >= len(executor.commands):
                self.unknown(rid, codec)
                return
            command = executor.commands[number]
            if kind == Kind.REQUEST:
                executor.jobs.append((self, rid, command, codec, body))
            elif command.command.with_request:
                request = read_request(body, codec, executor.max_body)
                flags = codec & (FLAG_STREAM | FLAG_WRAPPED)
                executor.jobs.append((self, rid, command, flags, request))
            else:  # it waited for a generation whose command is not what it was routed for
                executor.jobs.append((self, rid, command, *read_plain(body, codec)))
        elif kind == Kind.CANCEL:
            self.cancel(rid)
        elif kind == Kind.CREDIT and rid in self.streams:
            executor.credit(self.streams[rid], LENGTH.unpack(body)[0])

    def cancel(self, rid: int) -> None:
        """Give up a request if it can be given up, and say that it is over."""
        if self.executor.forget(self, rid):
            self.over(rid)
        running = self.running.get(rid)
        if isinstance(running, asyncio.Task):
            del self.running[rid]  # tells it that nobody waits any more
        if running is not None:
            running.cancel()
            return
        stream = self.streams.pop(rid, None)
        if stream is not None:
            with contextlib.suppress(BaseException):  # whatever the generator does at its end
                stream.values.close()
            self.over(rid)
        self.flush_soon()

    def unknown(self, rid: int, codec: int) -> None:
        """No such command: the table and this worker were never of one mind."""
        wrapped = bool(codec & FLAG_WRAPPED)
        self.answer(rid, _refusal(404, "this worker has no such command", wrapped=wrapped))
        self.flush_soon()

    def over(self, rid: int) -> None:
        """Nothing more comes for this request."""
        self.frame(rid, Kind.END, Codec.JSON, 499, b"")

    def answer(self, rid: int, answer: Answer) -> None:
        """A whole answer."""
        status, codec, body = answer
        if len(body) > MAX_ANSWER:  # the gateway would take it for nonsense and give the worker up
            error = f"an answer of {len(body)} bytes; at most {MAX_ANSWER} can be sent"
            status, codec, body = _refusal(500, error, wrapped=predict.is_success(body))
        self._out += (pack_header(len(body), rid, Kind.RESPONSE, codec, status), body)

    def frame(self, rid: int, kind: Kind, codec: int, status: int, body: bytes) -> None:
        """Any other frame."""
        self._out += (pack_header(len(body), rid, kind, codec, status), body)

    def flush(self) -> None:
        """Write all that is due."""
        if self._out:
            if not self.transport.is_closing():
                self.transport.write(b"".join(self._out))
            self._out.clear()

    def flush_soon(self) -> None:
        """Write together with what else finishes in this turn of the event loop."""
        asyncio.get_running_loop().call_soon(self.flush)


def _refusal(status: int, message: str, *, wrapped: bool) -> Answer:
    error = {"error": message}
    body = predict.failure(status, error) if wrapped else msgspec.json.encode(error)
    return status, Codec.JSON, body
