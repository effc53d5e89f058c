"""What runs inside a replica of a cluster: fetches, prepares, and keeps one worker process.

Gateways call that worker directly.

Must never: load the model itself, or carry a gateway's predictions. The worker is the same program
in the same kind of process as on a node, so that no rule of it differs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelcloud.dataplane import confinement, handshake
from modelcloud.dataplane.messages import (
    FromWorker,
    Load,
    LoadFailed,
    Message,
    MessageReader,
    Progress,
    Ready,
    Reconfigured,
    encode,
)
from modelcloud.engines.artifact_cache import ArtifactCache
from modelcloud.engines.replica_process import Process
from modelcloud.errors import ModelLoadError
from modelcloud.node.isolation import Isolation
from modelcloud.node.prepare import FromPreparer, Prepare, Prepared, PrepareFailed, Preparing
from modelcloud.node.processes import command
from modelcloud.node.replicas import (
    Arrived,
    Begin,
    Ended,
    Fetch,
    Leaving,
    Output,
    Piece,
    Signal,
    Tell,
    Told,
    ToReplica,
    Used,
    Whole,
)
from modelcloud.node.usage import usage_of
from modelcloud.types import GenerationSpec, State
from modelcloud.waiting import within

RECALL_S = 0.5
USAGE_S = 5.0
#: For the digests of an artifact to be checked; building an environment has its own time.
VERIFY_S = 600.0
#: For the node to have another replica in place of one that the cluster takes away.
LEAVE_S = 300.0
#: Unsent bytes beyond which output is dropped.
BACKLOG = 4 * 1024 * 1024


class _BridgeLink(asyncio.Protocol):
    """The connection to the bridge."""

    def __init__(self, on_message: Callable[[Any], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_message = on_message
        self._reader = MessageReader(ToReplica)
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            self._on_message(message)


class Replica:
    """One replica of an application.

    Args:
        app: the application's name.
        bridge: where the platform's bridge listens.
        secret: the application's.
        folder: of this machine, for artifacts and environments; "" for the usual place.

    Attributes:
        endpoint: where the worker takes frames; "" while none serves.
        serving: set while one does.
    """

    def __init__(self, app: str, bridge: str, secret: str, folder: str = "") -> None:
        self.endpoint = ""
        self.serving = asyncio.Event()
        self.frames_secret = handshake.frames_secret(secret)
        self._secret = secret
        self._app = app
        self._bridge = bridge
        self._name = uuid.uuid4().hex
        self._kept = Path(folder or _usual_folder())
        self._link: _BridgeLink | None = None
        self._host = ""
        self._worker = self._revision = 0
        self._process: Process | None = None  # of the worker, or what prepares for it
        self._loaded: Process | None = None  # of the worker, once it knows what to load
        self._lives: list[Message] = []  # what the worker has told of its life so far
        self._artifacts = ArtifactCache(self._kept / "artifacts")
        self._artifact = Path()
        self._vacant = asyncio.Event()
        self._vacant.set()
        self._leaving = False
        self._becoming: asyncio.Task[None] | None = None
        self._tasks = [
            asyncio.create_task(self._stay_connected()),
            asyncio.create_task(self._tell_usage()),
        ]

    # ---- the bridge

    async def _stay_connected(self) -> None:
        while True:
            link = _BridgeLink(self._take)
            with contextlib.suppress(OSError):
                await handshake.call(self._bridge, self._app, self._secret, link)
                self._host = link.transport.get_extra_info("sockname")[0]
                self._link = link
                self._send(Arrived(app=self._app, replica=self._name, worker=self._worker))
                self._repeat()
                await link.lost
            self._link = None
            await asyncio.sleep(RECALL_S)

    def _send(self, message: Message) -> None:
        if self._link is not None and not self._link.transport.is_closing():
            self._link.transport.write(encode(message))

    def _repeat(self) -> None:
        """Tell a bridge that may have missed it how far the worker is."""
        for message in self._lives:
            self._tell(message, kept=True)
        if self._leaving and self._worker:
            self._send(Leaving(worker=self._worker))

    def _tell(self, message: Message, *, kept: bool = False) -> None:
        if not kept and isinstance(message, Progress | Ready | LoadFailed):
            self._lives.append(message)
        self._send(Told(worker=self._worker, body=encode(message)))

    def _output(self, data: bytes) -> None:
        link = self._link
        if link is not None and link.transport.get_write_buffer_size() < BACKLOG:
            self._send(Output(worker=self._worker, data=data))

    def _take(self, message: Any) -> None:
        match message:
            case Begin():
                self._begin(message)
            case Tell(worker=worker, body=body) if worker == self._worker and self._loaded:
                self._loaded.send(body)
            case Signal(worker=worker, number=number) if worker == self._worker:
                self._signal(number)
            case Piece() | Whole():
                self._artifacts.take(message)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.signal(number)
        elif number == signal.SIGKILL and self._becoming is not None:
            self._becoming.cancel()

    async def _tell_usage(self) -> None:
        while True:
            await asyncio.sleep(USAGE_S)
            if self._process is not None and self.endpoint:
                used = await asyncio.to_thread(usage_of, [self._process.pid])
                for found in used.values():
                    self._send(Used(worker=self._worker, memory=found.memory, cpu_s=found.cpu_s))

    # ---- the worker

    def _begin(self, begin: Begin) -> None:
        """Become this worker; one that is there already, of a node that is no more, becomes it.

        One with other options than are wanted now makes room first.
        """
        if self._becoming is not None and not self._becoming.done():
            if self._revision == begin.spec.revision:
                self._worker = begin.worker
                self._repeat()
                return
            self._worker = 0  # nobody is to hear how that one ends
            self._becoming.cancel()
            self._becoming.add_done_callback(lambda _: self._begin(begin))
            return
        self._revision = begin.spec.revision
        self._worker = begin.worker
        self._lives.clear()
        self._vacant.clear()
        self._becoming = asyncio.create_task(self._become(begin))

    async def _become(self, begin: Begin) -> None:
        folder = Path(tempfile.mkdtemp(prefix="modelcloud-"))
        how = "was ended"
        try:
            spec = begin.spec
            python = await self._prepared(begin, folder)
            spec = replace(spec, snapshot=str(self._artifact), python=python)
            how = await self._work(begin, spec, folder)
        except (ModelLoadError, OSError) as error:
            reason = getattr(error, "message", str(error))
            self._tell(LoadFailed(state=State.BUILDING_ENV, message=reason))
            how = f"could not be started: {reason}"
        finally:
            self._process = self._loaded = None
            self.serving.clear()
            self.endpoint = ""
            shutil.rmtree(folder, ignore_errors=True)
            worker, self._worker = self._worker, 0
            self._lives.clear()
            if worker:
                self._send(Ended(worker=worker, how=how))
            self._vacant.set()

    async def _work(self, begin: Begin, spec: GenerationSpec, folder: Path) -> str:
        """Run the worker until it ends; gives how."""
        files = folder / "files"
        files.mkdir(mode=0o700)
        isolation = self._isolation(begin)
        variables = dict(begin.variables)
        if isolation is not None:
            variables["TMPDIR"] = str(files)
        process = self._process = Process(
            command(spec.python or sys.executable, "modelcloud.dataplane.worker"),
            FromWorker,
            tag=f"cluster/{self._name}",
            variables=variables,
            on_message=self._worker_said,
            on_output=self._output,
        )
        load = Load(
            spec=spec,
            worker_id=begin.worker,
            socket=handshake.endpoint_of(self._host, 0),
            files=str(files),
            confinement=isolation.of_worker(spec, folder) if isolation else None,
            secret=self.frames_secret,
        )
        process.send(encode(load))
        self._loaded = process
        try:
            return await asyncio.shield(process.ended)
        except asyncio.CancelledError:
            process.signal(signal.SIGKILL)
            raise

    def _worker_said(self, message: Any) -> None:
        if isinstance(message, Ready):
            self.endpoint = message.endpoint
            self.serving.set()
        if isinstance(message, LoadFailed):  # by their places in the artifact, as users know them
            message.message = message.message.replace(f"{self._artifact}/", "")
            message.detail = message.detail.replace(f"{self._artifact}/", "")
            message.file = message.file.replace(f"{self._artifact}/", "")
        if isinstance(message, Reconfigured) and not message.error:
            self._revision = message.revision
            for told in self._lives:
                if isinstance(told, Ready):  # whoever hears it again is to know what holds now
                    told.signature = {**told.signature, "optionValues": message.options}
        self._tell(message)

    async def _prepared(self, begin: Begin, folder: Path) -> str:
        """The artifact is here and whole, the environment built; gives its interpreter."""
        spec = begin.spec
        self._tell(Progress(state=State.FETCHING))
        place = self._artifact = await self._artifacts.have(
            spec.digest, lambda: self._send(Fetch(worker=begin.worker))
        )
        told: list[Any] = []
        steps = [State.FETCHING]

        def said(message: Any) -> None:
            if isinstance(message, Preparing):
                if message.line:
                    self._output(f"{message.line}\n".encode())
                elif message.state is State.BUILDING_ENV:
                    steps.append(message.state)
                    self._tell(Progress(state=message.state))
            else:
                told.append(message)

        isolation = self._isolation(begin)
        process = self._process = Process(
            command(sys.executable, "modelcloud.node.prepare"),
            FromPreparer,
            tag=f"cluster/{self._name}",
            variables={"TMPDIR": str(folder)},
            on_message=said,
            on_output=self._output,
        )
        process.send(
            encode(
                Prepare(
                    snapshot=str(place),
                    verify=True,
                    requirements=spec.requirements,
                    python=spec.python,
                    envs=str(self._kept / "envs"),
                    confinement=(
                        isolation.of_preparation(replace(spec, snapshot=str(place)), folder)
                        if isolation
                        else None
                    ),
                )
            )
        )
        limit_s = VERIFY_S + (begin.env_timeout_s if spec.requirements else 0)
        try:
            done, _ = await asyncio.wait({process.ended}, timeout=limit_s)
        finally:
            process.signal(signal.SIGKILL)
            self._process = None
        match told:
            case [Prepared(python=python), *_]:
                return python
            case [PrepareFailed(message=message), *_]:
                if steps[-1] is State.FETCHING:
                    self._artifacts.drop(spec.digest)
                raise ModelLoadError(message)
        how = process.ended.result() if done else f"did not end within {limit_s:g} s"
        raise ModelLoadError(f"making the artifact and its environment ready {how}")

    def _isolation(self, begin: Begin) -> Isolation | None:
        if not begin.confine or confinement.version() < confinement.LEAST_VERSION:
            return None
        home = Path.home()
        envs = self._kept / "envs"
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        for folder in (envs, caches):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(home / ".ray")
        return Isolation((str(self._kept), token), str(envs), str(caches))

    # ---- the cluster's own words

    async def leave(self) -> None:
        """The cluster takes this place away: serve until the node has another, if there is one."""
        self._leaving = True
        if self._worker:
            self._send(Leaving(worker=self._worker))
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._vacant.wait(), LEAVE_S)
        for task in self._tasks:
            task.cancel()
        if self._process is not None:
            self._process.signal(signal.SIGKILL)


def _usual_folder() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "modelcloud" / "cluster"
