"""Runs requests in a worker: frames in, the model's functions called, frames out.

Must never: block on anything but the model itself. All that is waiting in the sockets is read at
once and answered in as few writes as possible; a slow call never holds back finished answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

import msgspec

from modelcloud.codecs.media import FLAG_STREAM, Codec
from modelcloud.dataplane.commands import Answer, BoundCommand
from modelcloud.dataplane.frames import (
    HEADER_SIZE,
    MAX_ANSWER,
    Kind,
    pack_header,
    unpack_header,
)
from modelcloud.dataplane.messages import LENGTH
from modelcloud.dataplane.request_view import read_plain, read_request
from modelcloud.dataplane.stream import Stream
from modelcloud.sdk.contract import CallKind

#: How long requests are run before the sockets are looked at again.
SLICE_S = 0.001
#: Requests a gateway may put into a worker whose commands wait for others (`async def`).
ASYNC_CREDIT = 64

Job = tuple["GatewayLink", int, BoundCommand, int, Any]


class Executor:
    """The commands of one loaded model, and the requests for them from all gateways."""

    def __init__(self, commands: list[BoundCommand], *, threads: int, max_body: int) -> None:
        self.commands = commands
        self.max_body = max_body
        self.max_frame = max(MAX_ANSWER, max_body * 2)  # with room for headers beside the body
        self.links: set[GatewayLink] = set()
        self.jobs: deque[Job] = deque()
        self.busy_since = 0.0  # monotonic; 0 while no call is running
        self._threads = ThreadPoolExecutor(threads, "model") if threads > 1 else None
        waits = any(c.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR} for c in commands)
        credit = ASYNC_CREDIT if waits else 2 * threads
        names = [bound.command.name for bound in commands]
        in_order = [c.command.name for c in commands if c.kind is CallKind.VALUE]
        self.hello = msgspec.msgpack.encode((names, credit, [] if self._threads else in_order))
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def finish(self) -> None:
        """Answer all that was received, then hang up."""
        while self.jobs or any(  # noqa: ASYNC110 — work ends in many ways
            link.running or link.streams or link.transport.get_write_buffer_size()
            for link in self.links
        ):
            await asyncio.sleep(0.01)
        for link in list(self.links):
            link.flush()
            link.transport.close()

    def run(self) -> None:
        """Run waiting requests for a slice of time."""
        self._scheduled = False
        now = monotonic()
        end = now + SLICE_S
        jobs = self.jobs
        unwritten = False
        while jobs:
            link, rid, command, codec, body = jobs[0]
            kind = command.kind
            if kind is CallKind.VALUE and self._threads is None:
                if unwritten and command.slow:
                    break  # let the event loop write what is finished, then come back
                jobs.popleft()
                began = self.busy_since = now
                link.answer(rid, command.run(codec, body))
                self.busy_since = 0.0
                now = monotonic()
                command.took(now - began)
                unwritten = True
            else:
                jobs.popleft()
                self._start(link, rid, command, codec, body)
                now = monotonic()
            if now > end:
                break
        for link in self.links:
            link.flush()
        if jobs:
            self.schedule()

    def schedule(self) -> None:
        """Have `run` called on the next turn of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.run)

    def _start(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        """Begin what does not end within the call: coroutines, streams, calls on a thread."""
        stream = codec & FLAG_STREAM and command.command.streams
        codec &= ~FLAG_STREAM
        if command.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR}:
            work = (
                self._stream_async(link, rid, command, codec, body)
                if stream
                else self._answer_async(link, rid, command, codec, body)
            )
            task = self._loop.create_task(work)
            link.running[rid] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif stream:
            self._stream_sync(link, rid, command, codec, body)
        elif self._threads is None:
            self.busy_since = monotonic()
            link.answer(rid, command.run(codec, body))
            self.busy_since = 0.0
        else:
            future = self._threads.submit(command.run, codec, body)
            link.running[rid] = future
            future.add_done_callback(
                lambda done: self._loop.call_soon_threadsafe(self._thread_done, link, rid, done)
            )

    def _thread_done(self, link: GatewayLink, rid: int, done: Future[Answer]) -> None:
        if link.running.pop(rid, None) is not None:
            if done.cancelled():
                link.over(rid)
            else:
                link.answer(rid, done.result())
            link.flush_soon()

    async def _answer_async(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        try:
            link.answer(rid, await command.run_async(codec, body))
        except asyncio.CancelledError as error:
            self._cancelled(link, rid, command, error)
        finally:
            link.running.pop(rid, None)
            link.flush_soon()

    @staticmethod
    def _cancelled(
        link: GatewayLink, rid: int, command: BoundCommand, error: asyncio.CancelledError
    ) -> None:
        """Tell a request that was given up from a model that let such an error escape."""
        if rid in link.running:
            link.answer(rid, command.failure(error))
        else:
            link.over(rid)

    # ---- streams

    def _stream_sync(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        stream = Stream(link, rid, command, None)
        self.busy_since = monotonic()
        try:
            stream.values = iter(command.call(codec, body))
        except BaseException as error:  # what the model raises is its answer
            stream.fail(error)
            return
        finally:
            self.busy_since = 0.0
        link.streams[rid] = stream
        self._loop.call_soon(self._step, stream)

    def _step(self, stream: Stream) -> None:
        """Send the next value of a stream, then let others have their turn."""
        link, rid = stream.link, stream.rid
        if link.streams.get(rid) is not stream:
            return  # cancelled
        self.busy_since = monotonic()
        try:
            stream.put(next(stream.values))
        except StopIteration:
            del link.streams[rid]
            stream.end()
        except BaseException as error:  # what the model raises is its answer
            del link.streams[rid]
            stream.fail(error)
        else:
            if stream.window > 0:  # otherwise `credit` steps on
                self._loop.call_soon(self._step, stream)
        self.busy_since = 0.0
        link.flush()

    def credit(self, stream: Stream, size: int) -> None:
        """The client took so many bytes."""
        stalled = stream.window <= 0
        stream.window += size
        if stream.window > 0:
            stream.room.set()
            if stalled and isinstance(stream.values, Iterator):
                self._loop.call_soon(self._step, stream)

    async def _stream_async(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        stream = Stream(link, rid, command, None)
        values: AsyncIterator[Any] | None = None
        try:
            values = stream.values = command.call(codec, body)
            link.streams[rid] = stream
            async for value in values:
                stream.put(value)
                link.flush()
                if stream.window <= 0:
                    await stream.room.wait()
            stream.end()
        except BaseException as error:  # what the model raises is its answer
            if isinstance(error, asyncio.CancelledError) and rid not in link.running:
                link.over(rid)
            else:
                stream.fail(error)
        finally:
            link.running.pop(rid, None)
            link.streams.pop(rid, None)
            link.flush_soon()
            with contextlib.suppress(BaseException):  # it may be in the middle
                await values.aclose()  # type: ignore[union-attr]


class GatewayLink(asyncio.Protocol):
    """The frames from and to one gateway."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.transport: Any = None
        self.running: dict[int, asyncio.Task[None] | Future[Answer]] = {}
        self.streams: dict[int, Stream] = {}
        self._out: list[bytes] = []
        self._partial = bytearray()
        self._need = 0

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
        executor.jobs = deque(job for job in executor.jobs if job[0] is not self)
        for rid in self.running.keys() | self.streams.keys():
            self.cancel(rid)

    def data_received(self, data: bytes) -> None:
        """Frames, as many as the gateway wrote at once."""
        partial = self._partial
        if partial:
            partial += data
            if len(partial) < self._need:
                return
            data = bytes(partial)
            partial.clear()
        executor = self.executor
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
            if kind == Kind.REQUEST:
                if number < len(commands):
                    jobs.append((self, rid, commands[number], codec, data[start:end]))
                else:
                    self.unknown(rid)
            else:
                self._special(kind, rid, codec, number, data[start:end])
        if offset < size:
            partial += data[offset:] if offset else data
            self._need = HEADER_SIZE
            if len(partial) >= HEADER_SIZE:
                self._need += unpack_header(partial, 0)[0]
        if jobs and not executor._scheduled:  # noqa: SLF001 — the two halves of one thing
            executor.run()

    def _special(self, kind: int, rid: int, codec: int, number: int, body: bytes) -> None:
        executor = self.executor
        if kind == Kind.REQUEST_WITH_META:
            if number >= len(executor.commands):
                self.unknown(rid)
                return
            command = executor.commands[number]
            if command.command.with_request:
                request = read_request(body, codec, executor.max_body)
                executor.jobs.append((self, rid, command, codec & FLAG_STREAM, request))
            else:  # it waited for a generation whose command is not what it was routed for
                executor.jobs.append((self, rid, command, *read_plain(body, codec)))
        elif kind == Kind.CANCEL:
            self.cancel(rid)
        elif kind == Kind.CREDIT and rid in self.streams:
            executor.credit(self.streams[rid], LENGTH.unpack(body)[0])

    def cancel(self, rid: int) -> None:
        """Give up a request if it can be given up, and say that it is over."""
        for job in self.executor.jobs:
            if job[0] is self and job[1] == rid:
                self.executor.jobs.remove(job)
                self.over(rid)
                break
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

    def unknown(self, rid: int) -> None:
        """No such command: the table and this worker were never of one mind."""
        self.answer(rid, (404, Codec.JSON, b'{"error":"this worker has no such command"}'))
        self.flush_soon()

    def over(self, rid: int) -> None:
        """Nothing more comes for this request."""
        self.frame(rid, Kind.END, Codec.JSON, 499, b"")

    def answer(self, rid: int, answer: Answer) -> None:
        """A whole answer."""
        status, codec, body = answer
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
