"""An open-loop client: requests leave on schedule whether or not earlier ones were answered.

A closed loop hides stalls, since it waits with the server. Every request that is not answered
with the right body counts, and so does one that was answered late.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

from support.server import wait_for

REQUEST_TIMEOUT_S = 30.0


class Sample(NamedTuple):
    """One request. Times are monotonic seconds; `error` is "" for a 200 with a JSON body."""

    sent: float
    done: float
    kept_alive: bool
    error: str
    generation: int = 0
    version: int = 0
    answer: Any = None

    @property
    def seconds(self) -> float:
        return self.done - self.sent


class Load:
    """Requests per second against one address, half on fresh and half on kept connections."""

    def __init__(
        self, port: int, path: str, body: object, rate: float, method: str = "POST"
    ) -> None:
        self.samples: list[Sample] = []
        self._port, self._rate = port, rate
        data = json.dumps(body).encode()
        self._request = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        ).encode()
        self._data = data
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> list[Sample]:
        """Send no more, wait for what is under way."""
        self._ending.set()
        self._thread.join(REQUEST_TIMEOUT_S * 2)
        assert not self._thread.is_alive(), "the load did not end"
        return self.samples

    async def _main(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        start = time.monotonic()
        number = 0
        while not self._ending.is_set():
            number += 1
            task = asyncio.create_task(self._one(kept_alive=number % 2 == 0))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(max(0.0, start + number / self._rate - time.monotonic()))
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _one(self, *, kept_alive: bool) -> None:
        sent = time.monotonic()
        try:
            sample = await asyncio.wait_for(self._exchange(sent, kept_alive), REQUEST_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError, ValueError, EOFError) as error:
            sample = Sample(sent, time.monotonic(), kept_alive, f"{type(error).__name__}: {error}")
        self.samples.append(sample)

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last; those that the server had idle for too long go."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _exchange(self, sent: float, kept_alive: bool) -> Sample:
        kept = self._kept() if kept_alive else None
        reader, writer = kept or await asyncio.open_connection("127.0.0.1", self._port)
        last = b"\r\n" if kept_alive else b"connection: close\r\n\r\n"
        try:
            writer.write(self._request + last + self._data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            lines = head.split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if kept_alive:
            self._idle.append((reader, writer))
        else:
            writer.close()
        status = lines[0].split()[1]
        if status != "200":
            return Sample(sent, time.monotonic(), kept_alive, f"{status} {body[:200]!r}")
        answer = json.loads(body)
        return Sample(
            sent,
            time.monotonic(),
            kept_alive,
            "",
            int(headers["x-model-generation"]),
            int(headers["x-model-version"]),
            next(iter(answer.values())),
        )


@contextmanager
def load(
    port: int,
    path: str = "/ask",
    body: object = None,
    *,
    rate: float = 100.0,
    method: str = "POST",
) -> Iterator[Load]:
    """Load during the block; ended, and complete, after it."""
    running = Load(port, path, body if body is not None else {"x": 1}, rate, method)
    running.start()
    try:
        yield running
    finally:
        running.finish()


def steady(running: Load) -> None:
    """Wait for some further traffic."""
    enough = len(running.samples) + 50
    wait_for("steady traffic", lambda: len(running.samples) >= enough)


def failures(samples: list[Sample]) -> list[Sample]:
    """Those that were not answered with 200."""
    return [sample for sample in samples if sample.error]


def mixed(samples: list[Sample]) -> list[tuple[Sample, Sample]]:
    """Pairs in which a request sent after a newer generation had answered got an older one.

    Only for load on one gateway and updates forward, where an order of answers exists.
    """
    good = sorted((s for s in samples if not s.error), key=lambda sample: sample.done)
    done = [sample.done for sample in good]
    newest = list(accumulate(good, _newer))
    return [
        (newest[before - 1], later)
        for later in good
        if (before := bisect_left(done, later.sent))
        and newest[before - 1].generation > later.generation
    ]


def _newer(one: Sample, other: Sample) -> Sample:
    return other if other.generation > one.generation else one


def stalls(
    samples: list[Sample], during: Callable[[Sample], bool], beyond_s: float
) -> list[Sample]:
    """Requests of a period that took longer than the slowest outside of it and `beyond_s` more."""
    steady = [s.seconds for s in samples if not during(s) and not s.error]
    assert steady, "no steady state to compare with"
    limit = max(steady) + beyond_s
    return [s for s in samples if during(s) and s.seconds > limit]
