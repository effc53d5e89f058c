"""The control plane's process: a web server and what works beside it, over the node's socket.

It ends when the node hangs up or says so; the node starts it again when it ends by itself, and
keeps its listening socket meanwhile.

Must never: run a model's code, or hold anything that is not in the store or told by the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import uvicorn
import uvloop
from sse_starlette.sse import AppStatus

from modelcloud.control.app import MakeSite, create_app
from modelcloud.control.bootstrap import open_store
from modelcloud.control.data_plane import DataPlane
from modelcloud.control.deployments.generation_specs import ARTIFACTS
from modelcloud.control.identity import Identity
from modelcloud.control.monitors.monitoring import Monitoring
from modelcloud.control.observe.deployment_log import DeploymentLog
from modelcloud.control.observe.metrics_keeper import MetricsKeeper
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services.registration import Registration
from modelcloud.control.state import PlatformState
from modelcloud.control.sweep import Sweep
from modelcloud.control.web.connection import Connection
from modelcloud.control.workspaces.proxy import Proxy
from modelcloud.control.workspaces.workspaces import Workspaces
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.engines.remote import RemoteEngine
from modelcloud.node.orders import ALIVE_S, Alive, Answering, Standing
from modelcloud.store.store import Store
from modelcloud.workspaces.enter import MAX_MESSAGE as MAX_LAB_MESSAGE

#: For running requests at the end; the node waits a little longer.
GRACE_S = 3
#: Of a page's websocket.
MAX_MESSAGE = 1024 * 1024
#: Connections and requests at a time; 503 beyond.
CONCURRENCY = 512


def main(control_fd: int) -> int:
    """Run until the node ends it; returns the exit status."""
    tie_to_parent()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which drains first
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # The node says what has started, and who sends junk cannot fill the log with it.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # each question to a workspace
    # Of which monitor these lines are nobody could tell; `control.monitors.work` names it.
    logging.getLogger("modelcloud.monitors").setLevel(logging.WARNING)
    return uvloop.run(_run(control_fd))


def _site(module: str) -> MakeSite | None:
    """What makes the pages for browsers: `make_site` of this module; none without a name."""
    if not module:
        return None
    found: MakeSite = importlib.import_module(module).make_site
    return found


def assemble(engine: RemoteEngine, standing: Standing, store: Store) -> PlatformState:
    """The platform, with all its parts."""
    state = PlatformState(store=store, engine=engine, standing=standing)
    identity = Identity(store, state.data)
    deployment_log = DeploymentLog(state.service_logs)
    reconcilers = Reconcilers(
        store,
        engine,
        artifacts=state.data.absolute() / ARTIFACTS,
        write=deployment_log.write,
        forget=deployment_log.remove,
        drain_s=state.config.drain_s,
    )
    registration = Registration(
        store,
        engine,
        standing,
        write=deployment_log.write,
        in_use=reconcilers.in_use,
        clock=state.clock,
    )
    keeper = MetricsKeeper(store, engine.counters)
    sweep = Sweep(
        store,
        registration,
        identity=identity,
        in_use=reconcilers.in_use,
        envs=state.data.absolute() / "envs",
        logs=deployment_log,
        data=state.data.absolute(),
    )
    engine.on_line(reconcilers.take_line)
    engine.on_line(registration.take_line)
    monitoring = Monitoring(state, registration, reconcilers)
    workspaces = Workspaces(state)
    parts = (identity, reconcilers, registration, keeper, sweep, monitoring, workspaces)
    return replace(state, parts=parts)


async def _run(control_fd: int) -> int:
    os.set_inheritable(control_fd, False)
    engine = await RemoteEngine.connect(control_fd)
    showing_life = asyncio.create_task(_show_life(engine))
    standing = await engine.standing()
    for descriptor in (standing.listen_fd, standing.workspace_fd):
        if descriptor >= 0:  # for this process alone, and none that it starts
            os.set_inheritable(descriptor, False)
    os.environ.update(standing.config.database_variables)  # where other processes cannot read them
    store = open_store(standing.config)
    try:
        state = assemble(engine, standing, store)
        app = create_app(state, _site(standing.config.site))
        engine.on_admin(DataPlane(state, app.state.auth).answer)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="websockets-sansio" if standing.config.site else "none",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,  # what is secret and what is not travel together
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the gate knows whose word to take for who asks
            server_header=False,
            limit_concurrency=CONCURRENCY,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = _ControlServer(config, engine)
        app.state.give_up = server.end
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.end)
        engine.lost.add_done_callback(lambda _: server.end())
        async with _workspaces_served(state) as server.beside:
            await server.serve([socket.socket(fileno=standing.listen_fd)])
        return 0 if server.started else 1
    finally:
        showing_life.cancel()
        await store.close()
        await engine.close()


@contextlib.asynccontextmanager
async def _workspaces_served(state: PlatformState) -> AsyncIterator[_Server | None]:
    """Answer at the address of workspaces meanwhile, if there are any."""
    if state.standing.workspace_fd < 0:
        yield None
        return
    config = uvicorn.Config(
        Proxy(state, state.part(Workspaces)),
        http=Connection,
        ws="websockets-sansio",
        ws_max_size=MAX_LAB_MESSAGE,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,  # the labs'
        limit_concurrency=CONCURRENCY,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)
    listener = socket.socket(fileno=state.standing.workspace_fd)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield server
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


async def _show_life(engine: RemoteEngine) -> None:
    """From the loop that must not stand still; a store that is away is no reason to be replaced."""
    while True:
        engine.send(Alive())
        await asyncio.sleep(ALIVE_S)


class _Server(uvicorn.Server):
    """Leaves signals to `_run`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not here."""
        yield


class _ControlServer(_Server):
    """Tells the node once it answers; `beside` ends with it."""

    beside: _Server | None = None

    def __init__(self, config: uvicorn.Config, engine: RemoteEngine) -> None:
        super().__init__(config)
        self._engine = engine

    def end(self) -> None:
        """Answer what is under way and end; who follows something is let go."""
        self.should_exit = True
        if self.beside is not None:
            self.beside.should_exit = True
        AppStatus.should_exit = True  # sse-starlette listens for signals, which are not taken here

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._engine.send(Answering())
