"""A really started `modelcloud serve`, driven from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

DEADLINE_S = 60.0


def wait_for(what: str, condition: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Poll until `condition` gives something true; fail with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


class Server:
    """The process, its address, and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self.client = httpx.Client(timeout=60.0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """All that was printed so far, both streams."""
        return "\n".join(self.lines)

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def wait_serving(self) -> None:
        """Until the address is printed."""

        def serving() -> str:
            if match := re.search(r"Serving at ((?:https?://|unix:)\S+)", self.output):
                return match[1]
            assert self.process.poll() is None, self.output
            return ""

        self.url = wait_for("an address in the output", serving)
        if self.url.startswith("unix:"):
            self.client.close()
            transport = httpx.HTTPTransport(uds=self.url.removeprefix("unix:"))
            self.client = httpx.Client(timeout=60.0, transport=transport)
            self.url = "http://localhost"

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.client.get(self.url + path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> httpx.Response:
        return self.client.post(self.url + path, json=json, **kwargs)

    def update(self, **options: Any) -> httpx.Response:
        """A live update by options, waited for."""
        return self.post("/setup", options)

    def children(self) -> dict[int, str]:
        """Process id → command line of the node's live children."""
        out = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                status = (folder / "stat").read_text()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            state, parent = status.rpartition(")")[2].split()[:2]
            if int(parent) == self.process.pid and state != "Z":
                out[int(folder.name)] = line
        return out

    def pids(self, kind: str) -> list[int]:
        """Process ids of the node's children of a kind: `worker` or `gateway`."""
        return sorted(
            pid for pid, line in self.children().items() if f"modelcloud.dataplane.{kind}" in line
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit status once all output is read."""
        status = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status


def start(*arguments: str | Path, cwd: Path | None = None, **env: str) -> Server:
    """Start `modelcloud serve` with these arguments; it may end by itself."""
    command = [sys.executable, "-m", "modelcloud.cli.main", "serve", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Server(process)


@contextmanager
def serve(*arguments: str | Path, cwd: Path | None = None, **env: str) -> Iterator[Server]:
    """A server that answers, on a free port or `--uds`; its end by SIGTERM must give status 0."""
    place = () if {"--uds", "--port"} & {*arguments} else ("--port", "0")
    server = start(*arguments, *place, cwd=cwd, **env)
    try:
        server.wait_serving()
        yield server
        assert server.stop() == 0, server.output
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.wait()
        server.client.close()
