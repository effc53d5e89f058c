"""A bridge to a cluster that is made of threads of one process: replicas as Ray has them, no Ray.

Its address is a folder; `away` in it means that the cluster cannot be reached.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from modelcloud.engines import bridge_process
from modelcloud.engines.bridge import AppState
from modelcloud.engines.replica import Replica
from modelcloud.types import GenerationSpec

T = TypeVar("T")
WAIT_S = 30.0


class StubCluster:
    """`engines.bridge.Cluster`; of too many replicas the oldest leaves, as the node would not."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._folder = Path()
        self._apps: dict[str, list[Replica]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._how: dict[str, tuple[str, str]] = {}

    def connect(self, address: str, http_port: int) -> str:
        self._folder = Path(address)
        if (self._folder / "away").exists():
            raise ConnectionError("nobody is there")
        return "127.0.0.1"

    def apps(self, prefix: str) -> dict[str, AppState]:
        return {n: AppState(len(r)) for n, r in self._apps.items() if n.startswith(prefix)}

    def run(self, app: str, spec: GenerationSpec, replicas: int, bridge: str, secret: str) -> None:
        self._how[app] = bridge, secret
        self._apps[app] = []
        self.scale(app, replicas)

    def scale(self, app: str, replicas: int) -> None:
        self._on_loop(self._scale(app, replicas))

    def delete(self, app: str) -> None:
        self.scale(app, 0)
        del self._apps[app]

    async def _scale(self, app: str, replicas: int) -> None:
        there = self._apps[app]
        while len(there) < replicas:
            bridge, secret = self._how[app]
            there.append(Replica(app, bridge, secret, str(self._folder / "kept")))
        while len(there) > replicas:
            task = asyncio.ensure_future(there.pop(0).leave())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)


def main(control_fd: int) -> int:
    bridge_process.run(control_fd, StubCluster())
    return 0
