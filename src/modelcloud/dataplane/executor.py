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
    STREAM_WINDOW,
    Kind,
    pack_header,
    unpack_header,
)
from modelcloud.dataplane.messages import LENGTH
from modelcloud.dataplane.request_view import read_request
from modelcloud.sdk.contract import CallKind

#: How long requests are run before the sockets are looked at again.
SLICE_S = 0.001
#: Requests a gateway may put into a worker whose commands wait for others (`async def`).
ASYNC_CREDIT = 64

Job = tuple["GatewayLink", int, BoundCommand, int, Any]


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


class Executor:
    """The commands of one loaded model, and the requests for them from all gateways."""

    def __init__(self, commands: list[BoundCommand], *, threads: int, max_body: int) -> None:
        self.commands = commands
        self.max_body = max_body
        self.links: set[GatewayLink] = set()
        self.jobs: deque[Job] = deque()
        self.busy_since = 0.0  # monotonic; 0 while no call is running
        self._threads = ThreadPoolExecutor(threads, "model") if threads > 1 else None
        waits = any(c.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR} for c in commands)
        credit = ASYNC_CREDIT if waits else 2 * threads
        names = [bound.command.name for bound in commands]
        self.hello = msgspec.msgpack.encode((names, credit))
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def finish(self) -> None:
        """Answer all that was received, then hang up."""
        while self.jobs or any(  # noqa: ASYNC110 — work ends in many ways
            link.running or link.streams for link in self.links
        ):
            await asyncio.sleep(0.01)
        for link in list(self.links):
            link.flush()
            link.transport.close()

    def run(self) -> None:
        """Run waiting requests for a slice of time."""
        self._scheduled = False
        end = monotonic() + SLICE_S
        jobs = self.jobs
        unwritten = False
        while jobs:
            link, rid, command, codec, body = jobs[0]
            kind = command.kind
            if kind is CallKind.VALUE and self._threads is None:
                if unwritten and command.slow:
                    break  # let the event loop write what is finished, then come back
                jobs.popleft()
                self.busy_since = monotonic()
                link.answer(rid, command.run(codec, body))
                self.busy_since = 0.0
                unwritten = True
            else:
                jobs.popleft()
                self._start(link, rid, command, codec, body)
            if monotonic() > end:
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
        stream = codec & FLAG_STREAM
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
            link.flush()

    async def _answer_async(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        try:
            link.answer(rid, await command.run_async(codec, body))
        except asyncio.CancelledError:
            link.over(rid)
        finally:
            link.running.pop(rid, None)
            link.flush_soon()

    # ---- streams

    def _stream_sync(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        stream = Stream(link, rid, command, None)
        try:
            stream.values = iter(command.call(codec, body))
        except BaseException as error:  # what the model raises is its answer
            stream.fail(error)
            return
        link.streams[rid] = stream
        self._loop.call_soon(self._step, stream)

    def _step(self, stream: Stream) -> None:
        """Send the next value of a stream, then let others have their turn."""
        link, rid = stream.link, stream.rid
        if link.streams.get(rid) is not stream:
            return  # cancelled
        if stream.window <= 0:
            stream.room.clear()
            return  # `credit` steps on
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
        try:
            values: AsyncIterator[Any] = command.call(codec, body)
            stream.values = values
            link.streams[rid] = stream
            async for value in values:
                stream.put(value)
                link.flush()
                if stream.window <= 0:
                    await stream.room.wait()
            stream.end()
        except asyncio.CancelledError:
            link.over(rid)
        except BaseException as error:  # what the model raises is its answer
            stream.fail(error)
        finally:
            link.running.pop(rid, None)
            link.streams.pop(rid, None)
            link.flush_soon()


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
        for rid in list(self.running) + list(self.streams):
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
            start = offset + HEADER_SIZE
            end = start + length
            if size < end:
                break
            offset = end
            if kind == Kind.REQUEST:
                jobs.append((self, rid, commands[number], codec, data[start:end]))
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
            request = read_request(body, codec, executor.max_body)
            executor.jobs.append((self, rid, executor.commands[number], 0, request))
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
        if running is not None:
            running.cancel()
            return
        stream = self.streams.pop(rid, None)
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.values.close()
            self.over(rid)
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
