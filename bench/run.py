"""One peer on one piece of work: start-up, memory, throughput, cost, and an update meanwhile."""

from __future__ import annotations

import json
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import wrk
from bench.apps.work import BODIES
from bench.peers import APPS, WORKERS, Peer, Site
from bench.processes import cpu_s, pss_mb, running
from bench.updates import UpdateFigures, during_update

START_S = 120.0
WARM_UP_S = 1.0
UPDATE_LOAD_S = 3


class Row(NamedTuple):
    """The figures of one peer, one piece of work, one number of connections."""

    peer: str
    work: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    bad: int


class Start(NamedTuple):
    """What it took to be there."""

    first_answer_s: float
    pss_mb: float


def ask(url: str, body: Any, timeout_s: float = 10.0) -> Any:
    """One request; returns the JSON answer.

    Raises:
        OSError: no answer, or no 200.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return json.load(answer)


def free_port() -> int:
    """A port nothing listens on; some servers take the two after it as well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(peer: Peer, work: str, load_s: float = 0) -> Iterator[tuple[int, str, Any, Start]]:
    """A running server: process id, address of the work, request body, what the start took."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(work=work, port=free_port(), folder=Path(folder), bin=peer.prepare())
        env = {"WORK": work, "WORKERS": str(WORKERS), "PORT": str(site.port),
               "LOAD_S": str(load_s), "PYTHONPATH": str(APPS), **peer.env(site)}  # fmt: skip
        url = f"http://127.0.0.1:{site.port}"
        body = None if peer.name == "nginx" else peer.body(work, BODIES[work])
        log = Path(folder) / "log"
        begin = time.monotonic()
        with running(peer.command(site), cwd=APPS, env=env, log=log) as process:
            while True:
                try:
                    ask(url + peer.path(work), body)
                    break
                except (OSError, urllib.error.URLError, ValueError) as error:
                    late = time.monotonic() - begin > START_S
                    if late or process.poll() is not None:
                        text = log.read_text(errors="replace")[-3000:]
                        raise RuntimeError(f"{peer.name} did not start: {error}\n{text}") from None
                    time.sleep(0.02)
            start = Start(time.monotonic() - begin, 0.0)
            for _ in range(20):
                ask(url + peer.path(work), body)
            yield process.pid, url, body, start._replace(pss_mb=pss_mb(process.pid))


def measure(
    peer: Peer, work: str, connections: list[int], seconds: float
) -> tuple[Start, list[Row]]:
    """Throughput and cost at each number of connections."""
    rows = []
    with started(peer, work) as (pid, url, body, start):
        address = url + peer.path(work)
        wrk.drive(address, body, connections=16, seconds=WARM_UP_S)
        for number in connections:
            before = cpu_s(pid)
            figures = wrk.drive(address, body, connections=number, seconds=seconds)
            spent = cpu_s(pid) - before
            rows.append(
                Row(
                    peer=peer.name,
                    work=work,
                    connections=number,
                    per_second=figures.per_second,
                    p50_ms=figures.p50_ms,
                    p99_ms=figures.p99_ms,
                    cpu_us=spent / max(figures.requests, 1) * 1e6,
                    bad=figures.bad,
                )
            )
    return start, rows


def update(peer: Peer, work: str) -> UpdateFigures | None:
    """What clients see while a version that loads for three seconds is brought in."""
    if peer.update is None:
        return None
    with started(peer, work, load_s=UPDATE_LOAD_S) as (pid, url, body, _):
        return during_update(
            url,
            peer.path(work),
            body,
            lambda: peer.update(pid, url),
            UPDATE_LOAD_S,  # type: ignore[misc]
        )
