"""Runs requests in a worker: frames in, the model's functions called, frames out.

Must never: block on anything but the model itself. All that is waiting in the sockets is read at
once and answered in as few writes as possible; a slow call never holds back finished answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from modelcloud.codecs.media import FLAG_STREAM, FLAG_WRAPPED
from modelcloud.dataplane.batching import BatchQueue
from modelcloud.dataplane.commands import Answer, BoundCommand
from modelcloud.dataplane.frames import MAX_ANSWER
from modelcloud.dataplane.stream import Stream
from modelcloud.sdk.contract import CallKind

if TYPE_CHECKING:
    from modelcloud.dataplane.gateway_link import GatewayLink

#: How long requests are run before the sockets are looked at again.
SLICE_S = 0.001
#: Requests of commands that take one at a time, for each thread: one runs, one is next.
MIN_CREDIT = 2
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
        self._batching = [(c, c.batches) for c in commands if c.batches is not None]
        self._batches_running = 0  # on threads
        self._concurrent = threads
        self.hello = msgspec.msgpack.encode(_hello(commands, threads))
        self.scheduled = False  # `run` is due on the next turn of the event loop
        self._woken: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0  # on threads
        self._held = False

    @property
    def batch_counts(self) -> tuple[int, int]:
        """Calls of batching commands since the start, and the requests they took together."""
        counts = [(batches.calls, batches.called) for _, batches in self._batching]
        return sum(calls for calls, _ in counts), sum(called for _, called in counts)

    async def finish(self) -> None:
        """Answer all that was received, then hang up."""
        while self._waiting() or any(  # noqa: ASYNC110 — work ends in many ways
            link.running or link.streams or link.transport.get_write_buffer_size()
            for link in self.links
        ):
            await asyncio.sleep(0.01)
        for link in list(self.links):
            link.flush()
            link.transport.close()

    async def hold(self, timeout_s: float) -> bool:
        """Begin no further call until `release`, once those that run have ended.

        Returns:
            False: some still ran after `timeout_s`, and nothing is held.
        """
        self._held = True
        end = monotonic() + timeout_s
        while self._running():
            if monotonic() >= end:
                self.release()
                return False
            await asyncio.sleep(0.002)
        for link in self.links:
            link.flush()
        await asyncio.sleep(0)  # whoever blocks the loop now keeps no answer back
        return True

    def release(self) -> None:
        """Go on."""
        self._held = False
        self.run()

    def _running(self) -> bool:
        asked = any(link.running or link.streams for link in self.links)
        return asked or bool(self._calls or self._batches_running or self._tasks)

    def _waiting(self) -> bool:
        batches = any(batches.waiting for _, batches in self._batching)
        return bool(self.jobs or batches or self._batches_running)

    def forget(self, link: GatewayLink, rid: int | None = None) -> bool:
        """Drop what waits from a gateway, all or one request; whether there was anything."""
        found = False
        for waiting in (self.jobs, *(batches.waiting for _, batches in self._batching)):
            for job in [job for job in waiting if job[0] is link and rid in {None, job[1]}]:
                waiting.remove(job)
                found = True
        return found

    def run(self) -> None:
        """Run waiting requests for a slice of time."""
        self.scheduled = self._held
        if self._held:
            return
        now = monotonic()
        end = now + SLICE_S
        jobs = self.jobs
        unwritten = False
        while jobs:
            link, rid, command, codec, body = jobs[0]
            kind = command.kind
            if command.batches is not None:
                command.batches.put(jobs.popleft(), now)
            elif kind is CallKind.VALUE and self._threads is None:
                if unwritten and command.slow:
                    break  # let the event loop write what is finished, then come back
                jobs.popleft()
                began = self.busy_since = now
                link.answer(rid, command.run(codec, body))
                self.busy_since = 0.0
                now = monotonic()
                command.mean_s += (now - began - command.mean_s) * 0.1
                unwritten = True
            else:
                jobs.popleft()
                self._start(link, rid, command, codec, body)
                now = monotonic()
            if now > end:
                break
        for command, batches in self._batching:
            if batches.waiting and not unwritten:
                unwritten = self._batch(command, batches, now)
        for link in self.links:
            link.flush()
        if jobs or (unwritten and self._waiting()):
            self.schedule()

    def _batch(self, command: BoundCommand, batches: BatchQueue, now: float) -> bool:
        """Run a batch if one is due, else look again when it is; whether there are answers."""
        delay = batches.due_in(now)
        if delay > 0:
            if self._woken is None:
                self._woken = self._loop.call_later(delay, self._wake)
            return False
        if self._threads is not None and self._batches_running >= self._concurrent:
            return False  # `_batch_done` looks again
        items: list[Job] = batches.take()
        requests = [(codec, body) for *_, codec, body in items]
        if self._threads is not None:
            self._batches_running += 1
            self._threads.submit(command.run_batch, requests).add_done_callback(
                lambda done: self._loop.call_soon_threadsafe(
                    self._batch_done, batches, items, now, done.result()
                )
            )
            return False
        began = self.busy_since = monotonic()
        answers = command.run_batch(requests)
        self.busy_since = 0.0
        self._answer_batch(batches, items, began, answers)
        return True

    def _batch_done(
        self, batches: BatchQueue, items: list[Job], began: float, answers: list[Answer]
    ) -> None:
        self._batches_running -= 1
        self._answer_batch(batches, items, began, answers)
        self.run()

    def _answer_batch(
        self, batches: BatchQueue, items: list[Job], began: float, answers: list[Answer]
    ) -> None:
        for (link, rid, *_), answer in zip(items, answers, strict=True):
            link.answer(rid, answer)
        batches.ran(len(items), began, monotonic())
        # On the turn after next the sockets have been read once, and nobody can have reacted to
        # these answers yet.
        self._loop.call_soon(self._loop.call_soon, batches.look)

    def _wake(self) -> None:
        self._woken = None
        self.run()

    def schedule(self) -> None:
        """Have `run` called on the next turn of the event loop."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self.run)

    def _start(
        self, link: GatewayLink, rid: int, command: BoundCommand, codec: int, body: Any
    ) -> None:
        """Begin what does not end within the call: coroutines, streams, calls on a thread."""
        stream = codec & FLAG_STREAM and command.command.streams and not codec & FLAG_WRAPPED
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
            self._calls += 1
            future = self._threads.submit(command.run, codec, body)
            link.running[rid] = future
            future.add_done_callback(
                lambda done: self._loop.call_soon_threadsafe(self._thread_done, link, rid, done)
            )

    def _thread_done(self, link: GatewayLink, rid: int, done: Future[Answer]) -> None:
        self._calls -= 1
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
            self._cancelled(link, rid, command, codec, error)
        finally:
            link.running.pop(rid, None)
            link.flush_soon()

    @staticmethod
    def _cancelled(
        link: GatewayLink, rid: int, command: BoundCommand, codec: int,
        error: asyncio.CancelledError,
    ) -> None:  # fmt: skip
        """Tell a request that was given up from a model that let such an error escape."""
        if rid in link.running:
            link.answer(rid, command.failure(error, codec))
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


def _hello(commands: Sequence[BoundCommand], threads: int) -> tuple[list[str], int, list[str]]:
    """What a gateway is to know: names in order, requests to hold at least, blocking commands."""
    credit = MIN_CREDIT * threads
    blocking = []
    for bound in commands:
        if bound.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR}:
            credit = max(credit, ASYNC_CREDIT)
        elif bound.command.batch is not None:
            credit = max(credit, (1 + threads) * bound.command.batch.max_size)
        elif bound.kind is CallKind.VALUE and threads == 1:
            blocking.append(bound.command.name)
    return [bound.command.name for bound in commands], credit, blocking
