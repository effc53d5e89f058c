"""The bridge between a node and a cluster: one process, spoken to by the node and by the replicas.

Must never: carry a prediction, or run user code. What the cluster itself is asked for, and what it
answers, is the business of a `Cluster`, whose calls may take long and are made in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from modelcloud.artifacts.snapshot import CHUNK
from modelcloud.dataplane import handshake
from modelcloud.dataplane.messages import Message, MessageReader, encode
from modelcloud.engines.slots import Slots
from modelcloud.node.cluster import APP_PREFIX, instance_of
from modelcloud.node.replicas import (
    Arrived,
    Begin,
    ClusterState,
    Ended,
    Fetch,
    Finish,
    FromReplica,
    Leaving,
    Output,
    Piece,
    Signal,
    StartBridge,
    Tell,
    ToBridge,
    Told,
    Used,
    Whole,
)
from modelcloud.types import MANIFEST, GenerationSpec, Manifest
from modelcloud.waiting import within

log = logging.getLogger(__name__)

#: How often the cluster is compared with what is wanted, when nothing happens.
LOOK_S = 1.0
#: For a replica whose connection broke to call again before its worker counts as lost.
RECALL_S = 2.0
#: Between two tries to reach a cluster that cannot be reached.
RETRY_S = 5.0
FIRST_MESSAGE_S = 10.0
#: Unread bytes beyond which the node, or a replica, counts as dead.
BACKLOG = 64 * 1024 * 1024


class AppState(msgspec.Struct, frozen=True):
    """An application as the cluster has it; `failure` says why it cannot come up.

    `replicas`: None while it is being made, and cannot be given others.
    """

    replicas: int | None
    failure: str = ""


class Cluster(Protocol):
    """What a bridge asks of a cluster. Every call blocks, and may raise anything."""

    def connect(self, address: str, http_port: int) -> str:
        """Reach it; gives the address of this machine inside it."""

    def apps(self, prefix: str) -> dict[str, AppState]:
        """The applications whose names begin so."""

    def run(self, app: str, spec: GenerationSpec, replicas: int, bridge: str, secret: str) -> None:
        """Begin an application; its replicas call `bridge`, holding `secret`."""

    def scale(self, app: str, replicas: int) -> None:
        """Have so many replicas of it, the others being stopped gently."""

    def delete(self, app: str) -> None:
        """Have it no more."""


class _Caller:
    """A replica's connection."""

    def __init__(self, app: str, name: str, writer: asyncio.StreamWriter) -> None:
        self.app = app
        self.name = name
        self._writer = writer

    def send(self, message: Message) -> None:
        if self._writer.transport.get_write_buffer_size() > BACKLOG:
            self._writer.transport.abort()
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def drained(self) -> None:
        await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.transport.abort()


class Bridge:
    """See the module.

    Args:
        start: what the node said first.
        cluster: the cluster.
        tell: takes what the node is to hear.
    """

    def __init__(
        self, start: StartBridge, cluster: Cluster, tell: Callable[[Message], None]
    ) -> None:
        self._start = start
        self._cluster = cluster
        self._tell = tell
        self._prefix = f"{APP_PREFIX}{instance_of(start.secret)}-"
        self._slots = Slots(monotonic())
        self._begins: dict[int, Begin] = {}
        self._callers: dict[str, _Caller] = {}
        self._endpoint = ""
        self._found: dict[str, AppState] = {}
        self._deaf: set[str] = set()  # applications that call where nobody listens any more
        self._look = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finishing = False

    async def run(self) -> None:
        """Hold what the node wants in the cluster, until the node says to finish."""
        host = await self._connect()
        if host is None:
            return
        server = await self._listen(host)
        try:
            while not self._finishing or self._found:
                await self._comply()
                self._look.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._look.wait(), LOOK_S)
        finally:
            server.close()

    async def _connect(self) -> str | None:
        """Reach the cluster, however long it takes; None: the end came first."""
        where, port = self._start.address, self._start.http_port
        while not self._finishing:
            try:
                return await asyncio.to_thread(self._cluster.connect, where, port)
            except Exception as error:
                self._unreachable(f"the cluster at {where!r} cannot be reached: {_words(error)}")
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._finish_asked(), RETRY_S)
        return None

    async def _finish_asked(self) -> None:
        while not self._finishing:
            await self._look.wait()
            self._look.clear()

    def take(self, message: ToBridge) -> None:
        """What the node says."""
        match message:
            case Begin(worker=worker, app=app):
                self._begins[worker] = message
                self._slots.begin(worker, app)
                self._match()
            case Tell(worker=worker) | Signal(worker=worker):
                self._order(worker, message)
            case Finish():
                self._finishing = True
        self._look.set()

    def _order(self, worker: int, message: Tell | Signal) -> None:
        caller = self._callers.get(self._slots.replica_of(worker))
        if caller is not None:
            caller.send(message)
        elif isinstance(message, Signal) and worker in self._begins:
            self._end(worker, "was ended before a replica was there for it")

    def _end(self, worker: int, how: str) -> None:
        self._slots.end(worker, monotonic())
        if self._begins.pop(worker, None) is not None:
            self._tell(Ended(worker=worker, how=how))
        self._match()
        self._look.set()

    def _match(self) -> None:
        for worker, name, known in self._slots.match():
            if not known:
                self._callers[name].send(self._begins[worker])

    def _unreachable(self, error: str) -> None:
        self._tell(ClusterState(error=error))
        for worker in [*self._begins]:
            if not self._slots.replica_of(worker):
                self._end(worker, f"could not be started: {error}")

    # ---- the cluster

    async def _comply(self) -> None:
        """Bring the applications closer to what is wanted, one call at a time."""
        cluster = self._cluster
        try:
            self._found = await asyncio.to_thread(cluster.apps, self._prefix)
        except Exception as error:
            self._unreachable(f"the cluster does not answer: {_words(error)}")
            return
        self._tell(ClusterState())
        replicas = {app: state.replicas or 0 for app, state in self._found.items()}
        wanted = {} if self._finishing else self._slots.wanted(replicas, monotonic())
        for app in (self._found.keys() - wanted.keys()) | (self._found.keys() & self._deaf):
            await self._asked(app, cluster.delete, app)
            wanted.pop(app, None)  # it is begun again once it is gone
        self._deaf.clear()
        for app, count in wanted.items():
            state = self._found.get(app)
            if state is None:
                for first in self._slots.workers(app)[:1]:
                    secret = handshake.secret_of(self._start.secret, app)
                    spec = self._begins[first].spec
                    await self._asked(app, cluster.run, app, spec, count, self._endpoint, secret)
            elif state.failure:
                for worker in self._slots.workers(app):
                    if not self._slots.replica_of(worker):
                        self._end(worker, f"could not be started: {state.failure}")
            elif state.replicas not in {None, count}:
                await self._asked(app, cluster.scale, app, count)

    async def _asked(self, app: str, call: Callable[..., None], *arguments: Any) -> None:
        try:
            await asyncio.to_thread(call, *arguments)
        except Exception as error:
            log.exception("%s: %s failed", app, getattr(call, "__name__", call))
            for worker in self._slots.workers(app):
                if not self._slots.replica_of(worker):
                    self._end(worker, f"could not be started: {_words(error)}")

    # ---- the replicas

    async def _listen(self, host: str) -> asyncio.AbstractServer:
        """Take calls at the port of the bridge before this one, which replicas know."""
        state = Path(self._start.state)
        port = _kept_port(state)
        try:
            server = await self._serve(host, port)
        except OSError:
            log.warning("port %d, where replicas call, is taken; they begin anew", port)
            self._deaf = set(await asyncio.to_thread(self._cluster.apps, self._prefix))
            server = await self._serve(host, 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(state.write_text, str(port), "ascii")
        self._endpoint = handshake.endpoint_of(host, port)
        return server

    async def _serve(self, host: str, port: int) -> asyncio.Server:
        def door() -> handshake.Listener:
            names: list[str] = []

            def secret(name: str) -> str:
                names[:] = [name]
                known = name.startswith(self._prefix)
                return handshake.secret_of(self._start.secret, name) if known else ""

            reader = asyncio.StreamReader()
            opened = asyncio.StreamReaderProtocol(
                reader, lambda reading, writing: self._take_call(names[0], reading, writing)
            )
            return handshake.Listener(secret, opened)

        return await asyncio.get_running_loop().create_server(door, host, port, reuse_address=True)

    async def _take_call(
        self, app: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        messages = MessageReader(FromReplica)
        caller: _Caller | None = None
        try:
            while data := await within(
                reader.read(256 * 1024), None if caller else FIRST_MESSAGE_S
            ):
                for message in messages.feed(data):
                    if caller is not None:
                        self._hear(caller, message)
                    elif isinstance(message, Arrived) and message.app == app:
                        caller = self._welcome(message, writer)
                    else:
                        return
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            log.info("a replica of %s: %s", app, error)
        finally:
            writer.transport.abort()
            if caller is not None and self._callers.get(caller.name) is caller:
                self._spawn(self._miss(caller))

    def _welcome(self, arrived: Arrived, writer: asyncio.StreamWriter) -> _Caller:
        earlier = self._callers.get(arrived.replica)
        if earlier is not None:
            earlier.hang_up()
        caller = _Caller(arrived.app, arrived.replica, writer)
        self._callers[arrived.replica] = caller
        worker = self._slots.left(arrived.replica)
        if worker and worker != arrived.worker:  # it lost its worker meanwhile, and this is how
            self._end(worker, "ended while its replica could not be heard")
        self._slots.arrived(arrived.replica, arrived.app, arrived.worker)
        self._match()
        self._look.set()
        return caller

    async def _miss(self, caller: _Caller) -> None:
        """Its connection broke: mostly, its process is gone."""
        await asyncio.sleep(RECALL_S)
        if self._callers.get(caller.name) is not caller:
            return
        del self._callers[caller.name]
        worker = self._slots.left(caller.name)
        if worker:
            self._end(worker, "was lost with its replica or its machine")

    def _hear(self, caller: _Caller, message: Any) -> None:
        if isinstance(message, Arrived):
            return
        worker = self._slots.worker_of(caller.name)
        if not worker or message.worker != worker:
            return  # of a worker that it is no more
        match message:
            case Fetch():
                self._spawn(self._send_artifact(caller, self._begins[worker].spec))
            case Ended(how=how):
                self._end(worker, how)
            case Told() | Output() | Used() | Leaving():
                self._tell(message)

    async def _send_artifact(self, caller: _Caller, spec: GenerationSpec) -> None:
        folder = Path(spec.snapshot)
        try:
            text = await asyncio.to_thread((folder / MANIFEST).read_bytes)
            manifest = msgspec.json.decode(text, type=Manifest)
            for path in (*manifest.files, MANIFEST):
                with (folder / path).open("rb") as file:
                    while True:
                        data = await asyncio.to_thread(file.read, CHUNK)
                        caller.send(Piece(path=path, data=data))
                        await caller.drained()
                        if len(data) < CHUNK:
                            break
        except (OSError, msgspec.MsgspecError) as error:
            caller.send(Whole(error=f"the platform cannot read the artifact: {error}"))
        else:
            caller.send(Whole())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kept_port(state: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(state.read_text("ascii"))
    return 0


def _words(error: Exception) -> str:
    """What went wrong, on one line that is not too long: of a traceback, its last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[-500:]
