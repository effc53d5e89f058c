"""What clients see during an update, with an open loop: requests leave on schedule.

A closed loop such as wrk's waits together with the server and so hides what an update costs.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

RATE = 200
BEFORE_S = 2.0
AFTER_S = 3.0
TIMEOUT_S = 20.0


class UpdateFigures(NamedTuple):
    """Requests of the whole period; times in milliseconds."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    max_before_ms: float


async def _one(host: str, port: int, request: bytes) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return (await reader.read(-1)).split(b" ", 2)[1] == b"200"
    finally:
        writer.close()


async def _sample(
    host: str, port: int, request: bytes, out: list[tuple[float, float, bool]]
) -> None:
    sent = time.monotonic()
    try:
        good = await asyncio.wait_for(_one(host, port, request), TIMEOUT_S)
    except (OSError, asyncio.TimeoutError, IndexError):
        good = False
    out.append((sent, time.monotonic() - sent, good))


async def _load(url: str, path: str, body: Any, ending: threading.Event) -> list[Any]:
    place = urlsplit(url)
    data = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode() + data
    out: list[tuple[float, float, bool]] = []
    tasks = []
    begin = time.monotonic()
    while not ending.is_set():
        tasks.append(
            asyncio.create_task(_sample(place.hostname or "", place.port or 0, request, out))
        )
        await asyncio.sleep(max(0.0, begin + len(tasks) / RATE - time.monotonic()))
    await asyncio.gather(*tasks)
    return out


def during_update(
    url: str, path: str, body: Any, update: Callable[[], None], load_s: float
) -> UpdateFigures:
    """Run a steady load, update after a while, and wait until the new version has long served."""
    ending = threading.Event()
    samples: list[tuple[float, float, bool]] = []
    thread = threading.Thread(
        target=lambda: samples.extend(asyncio.run(_load(url, path, body, ending)))
    )
    thread.start()
    time.sleep(BEFORE_S)
    updated = time.monotonic()
    try:
        update()
        time.sleep(max(0.0, updated + 2 * load_s + AFTER_S - time.monotonic()))
    finally:
        ending.set()
        thread.join()
    times = sorted(seconds * 1000 for _, seconds, _ in samples)
    before = [seconds * 1000 for sent, seconds, _ in samples if sent + seconds < updated]
    return UpdateFigures(
        requests=len(samples),
        failed=sum(not good for *_, good in samples),
        p50_ms=times[len(times) // 2],
        p99_ms=times[int(len(times) * 0.99)],
        max_ms=times[-1],
        max_before_ms=max(before),
    )
