"""A control plane that listens: all its parts over a node in memory, for what speaks HTTP to it.

    with platform_server(folder) as server:
        with server.sign_in() as admin:
            admin.create_group("team")

Workers load by themselves as soon as they are wanted, unless `holding`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, cast

import uvicorn
from msgspec.structs import replace

from modelcloud.config import PlatformConfig
from modelcloud.control import bootstrap
from modelcloud.control.app import create_app
from modelcloud.control.main import assemble
from modelcloud.control.observe import log_files
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.web.connection import Connection
from modelcloud.engines.fake import FakeEngine
from modelcloud.engines.remote import RemoteEngine
from modelcloud.node.orders import WorkerLine
from modelcloud.platform import Platform
from modelcloud.store.store import Store
from modelcloud.types import Observed
from support.control import PASSWORD, standing_of
from support.platform import SIGNATURE, FakeNode

T = TypeVar("T")

DEADLINE_S = 30.0
#: Between two moves of the node.
TICK_S = 0.005


class ListeningNode(FakeNode):
    """A node that moves by itself, and whose workers say nothing but what a test lets them say."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = FakeEngine({"runtime": "function", "optionValues": {"depth": 1}, **SIGNATURE})
        self.holding = False
        self.says: Callable[[WorkerLine], None] = lambda _: None

    def on_line(self, says: Callable[[WorkerLine], None]) -> None:
        """Whom to tell of a worker's line."""
        self.says = says

    def observe(self, deployment: str) -> Observed:
        """What is there, in records of the caller's own, as what came over a socket."""
        seen = self.engine.observe(deployment)
        return replace(seen, signatures=deepcopy(seen.signatures))

    async def move(self) -> None:
        """Let everything move on, again and again."""
        while True:
            self.engine.settle(loads=not self.holding)
            await asyncio.sleep(TICK_S)


class PlatformServer:
    """The control plane, in a thread of its own.

    Attributes:
        url: where it listens.
        data: its folder.
        node: the node in memory; touch it by `call`.
    """

    def __init__(self, folder: Path, *roots: Path) -> None:
        self.data = folder / "data"
        self._config = PlatformConfig(
            data=str(self.data), roots=tuple(map(str, roots)), upload_limit=4 << 20
        )
        password = folder / "password"
        password.write_text(PASSWORD)
        bootstrap.prepare(self._config, password)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.node = ListeningNode()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._serving.wait(DEADLINE_S)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._server.handle_exit, 15, None)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def sign_in(self, user: str = "admin") -> Platform:
        """A connection as this user."""
        platform = Platform(self.url)
        platform.sign_in(user, PASSWORD)
        return platform

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` where the control plane runs."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)

    def log_path(self, service: str, version: int) -> Path:
        """The application log of a version, which the node would write."""
        path = log_files.version_log(self.data / "logs" / "services", service, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        store = Store(bootstrap.database_url(self._config))
        engine = cast("RemoteEngine", self.node)
        state = assemble(engine, standing_of(self._config), store)
        app = create_app(state)
        config = uvicorn.Config(
            app, http=Connection, ws="none", lifespan="on", log_config=None, access_log=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Server(config, self._serving)
        moving = asyncio.create_task(self.node.move())
        try:
            await self._server.serve([self._listener])
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            await store.close()
            write: Any = state.part(Reconcilers)._log._write
            write.__self__.close()  # of the log, which in a process of its own ends with that


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, serving: threading.Event) -> None:
        super().__init__(config)
        self._serving = serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serving.set()


@contextmanager
def platform_server(folder: Path, *roots: Path) -> Iterator[PlatformServer]:
    """One that answers; versions may be registered from below `roots`."""
    server = PlatformServer(folder, *roots)
    try:
        yield server
    finally:
        server.close()


def model_folder(folder: Path, **files: Any) -> Path:
    """A folder to register; what is in `model.py` does not matter to a node in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"model.py": "x = 1\n", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
