"""Workers that a cluster holds for the node, spoken to through one bridge process.

Must never: know which cluster it is; lose a worker because the bridge died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modelcloud.dataplane.handshake import frames_secret, secret_of
from modelcloud.dataplane.messages import FromWorker, Message, MessageReader, Ping, encode
from modelcloud.node.brake import Brake
from modelcloud.node.logs import LineCutter, Logs
from modelcloud.node.processes import Child, command
from modelcloud.node.reaper import Reaper
from modelcloud.node.replicas import (
    Begin,
    ClusterState,
    Ended,
    Finish,
    FromBridge,
    Leaving,
    Output,
    Signal,
    StartBridge,
    Tell,
    Told,
    Used,
)
from modelcloud.node.usage import Usage
from modelcloud.types import GenerationSpec

log = logging.getLogger(__name__)

#: For a bridge to have removed its applications, when the platform ends.
FINISH_S = 15.0
#: From SIGABRT, for a stack in the log, to SIGKILL.
ABORT_S = 1.0
#: What the names of all applications of any platform begin with.
APP_PREFIX = "modelcloud-"
_UNFIT_FOR_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class ClusterSettings(NamedTuple):
    """Where the cluster is, and how the workers in it are treated.

    Attributes:
        module: its `main(fd)` is the bridge.
        address: of the cluster.
        http_port: of its own HTTP addresses.
        data: the platform's folder.
        confine: whether workers are kept from what is not theirs.
        env_timeout_s: for building an environment.
    """

    module: str
    address: str
    http_port: int
    data: Path
    confine: bool = True
    env_timeout_s: float = 900.0


def app_name(instance: str, spec: GenerationSpec) -> str:
    """The name of a generation's application, which no other generation or platform has."""
    deployment = _UNFIT_FOR_NAMES.sub("-", spec.deployment)[:120]
    return f"{APP_PREFIX}{instance}-{deployment}-v{spec.version}-g{spec.generation}"


def instance_of(secret: str) -> str:
    """What the applications of one platform have in their names."""
    return secret_of(secret, "instance")[:8]


class RemoteWorker:
    """One worker in the cluster, with what `node.worker` needs of a `Child`.

    Attributes:
        pid: 0: it is no process of this machine.
        secret: what who calls it must hold.
        usage: as it last told.
        leaving: its replica is to leave, and will once another one serves.
    """

    pid = 0

    def __init__(
        self,
        cluster: Cluster,
        begin: Begin,
        output: LineCutter,
        on_message: Callable[[Any], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self.alive = True
        self.leaving = False
        self.usage = Usage(0, 0.0)
        self.secret = frames_secret(secret_of(cluster.secret, begin.app))
        self._cluster = cluster
        self._begin = begin
        self._output = output
        self._on_message = on_message
        self._on_exit = on_exit
        self._reader = MessageReader(FromWorker)
        #: What a new bridge must hear again: of each kind the last, for it may not have arrived.
        self._told: dict[object, Message] = {}
        self._ending: asyncio.TimerHandle | None = None

    @property
    def heard(self) -> bool:
        """Whether there is a way to hear from it at all."""
        return self._cluster.bridged

    def send(self, message: Message) -> None:
        """Tell the worker."""
        order = Tell(worker=self._begin.worker, body=encode(message))
        if not isinstance(message, Ping):
            self._told[type(message)] = order
        self._cluster.send(order)

    def kill(self) -> None:
        """End it and what it started."""
        self._signal(signal.SIGKILL)

    def abort(self) -> None:
        """Have it dump its stack, then kill it."""
        self._signal(signal.SIGABRT)
        self.end((ABORT_S, signal.SIGKILL))

    def end(self, *steps: tuple[float, signal.Signals]) -> None:
        """Send each signal after its delay in seconds; in place of what is left of earlier ones."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if steps and self.alive:
            (delay, sign), *rest = steps
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(delay, self._step, sign, rest)

    def _step(self, sign: signal.Signals, rest: list[tuple[float, signal.Signals]]) -> None:
        self._signal(sign)
        self.end(*rest)

    def _signal(self, sign: signal.Signals) -> None:
        if self.alive:
            order = Signal(worker=self._begin.worker, number=sign)
            self._told[Signal] = order
            self._cluster.send(order)
            if sign is signal.SIGKILL and not self._cluster.bridged:
                # Nobody is there to do it; the next bridge knows no such worker, which ends it.
                loop = asyncio.get_running_loop()
                loop.call_soon(self._cluster.give_up, self._begin.worker)

    def orders(self) -> list[Message]:
        """What a bridge that knows nothing yet must be told."""
        return [self._begin, *self._told.values()]

    def take(self, message: Told | Output | Used | Leaving | Ended) -> None:
        """What the bridge has heard of it."""
        match message:
            case Told(body=body):
                for said in self._reader.feed(body):
                    self._on_message(said)
            case Output(data=data):
                self._output.feed(data)
            case Used(memory=memory, cpu_s=cpu_s):
                self.usage = Usage(memory, cpu_s)
            case Leaving():
                self.leaving = True
            case Ended(how=how):
                self.alive = False
                self.end()
                self._output.close()
                self._on_exit(how)


class Cluster:
    """The workers in a cluster, and the bridge of the moment.

    Attributes:
        secret: the platform's, from which that of each application follows.
        error: why the cluster cannot be reached; "" while it can, or nobody has said yet.
    """

    def __init__(
        self, settings: ClusterSettings, reaper: Reaper, logs: Logs, clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self.settings = settings
        self.secret = _kept_secret(settings.data / "cluster-secret")
        self.instance = instance_of(self.secret)
        self.error = ""
        self._reaper = reaper
        self._logs = logs
        self._clock = clock
        self._on_change = on_change
        self._workers: dict[int, RemoteWorker] = {}
        self._brake = Brake()
        self._bridge: Child | None = None
        self._started = 0
        self._finishing = False
        self._gone = asyncio.Event()

    @property
    def bridged(self) -> bool:
        """Whether there is a bridge."""
        return self._bridge is not None

    def hold(
        self,
        worker: int,
        spec: GenerationSpec,
        *,
        variables: Mapping[str, str],
        output: LineCutter,
        on_message: Callable[[Any], None],
        on_exit: Callable[[str], None],
    ) -> RemoteWorker:
        """Have the cluster run a worker of this generation from now on."""
        begin = Begin(
            worker=worker,
            app=app_name(self.instance, spec),
            spec=spec,
            variables=dict(variables),
            confine=self.settings.confine,
            env_timeout_s=self.settings.env_timeout_s,
        )
        held = self._workers[worker] = RemoteWorker(self, begin, output, on_message, on_exit)
        self.send(begin)
        return held

    def send(self, message: Message) -> None:
        """Tell the bridge, if there is one; one that comes later is told all that matters."""
        if self._bridge is not None:
            self._bridge.send(message)

    def give_up(self, worker: int) -> None:
        """Count a worker as gone that nobody can be told to end."""
        held = self._workers.pop(worker, None)
        if held is not None:
            held.take(Ended(worker=worker, how="was given up: there is no way to the cluster"))

    def check(self) -> None:
        """Start the bridge, or start it again, if it is time for that."""
        now = self._clock()
        self._brake.relax(now)
        if self._bridge is None and not self._finishing and self._brake.starts(now, 1):
            self._start(now)

    def _start(self, now: float) -> None:
        self._brake.started(now)
        self._started += 1
        self._gone.clear()
        try:
            self._bridge = Child(
                f"bridge-{self._started}",
                command(sys.executable, self.settings.module),
                reaper=self._reaper,
                union=FromBridge,
                output=self._logs.bridge(),
                on_message=self._heard,
                on_exit=self._ended,
            )
        except OSError as error:
            self._ended(f"could not be started: {error}")
            return
        state = str(self.settings.data / "cluster-port")
        self.send(
            StartBridge(
                address=self.settings.address,
                http_port=self.settings.http_port,
                secret=self.secret,
                state=state,
            )
        )
        for worker in list(self._workers.values()):
            for order in worker.orders():
                self.send(order)

    def _heard(self, message: FromBridge) -> None:
        if isinstance(message, ClusterState):
            if message.error != self.error:
                self.error = message.error
                if self.error:
                    log.error("the cluster: %s", self.error)
                else:
                    log.info("the cluster at %s is there", self.settings.address)
                self._on_change()
            return
        worker = self._workers.get(message.worker)
        if worker is None:
            return
        if isinstance(message, Ended):
            del self._workers[message.worker]
        worker.take(message)
        if isinstance(message, Leaving | Ended):
            self._on_change()

    def _ended(self, how: str) -> None:
        self._bridge = None
        self._gone.set()
        if not self._finishing:
            log.warning("the bridge to the cluster %s; it is started again", how)
            self._brake.died(self._clock(), 1)
        self._on_change()

    async def close(self) -> None:
        """Leave nothing of this platform in the cluster; for `FINISH_S` at most."""
        self._finishing = True
        if self._bridge is not None:
            self.send(Finish())
            self._bridge.end((FINISH_S, signal.SIGKILL))
            await self._gone.wait()


def _kept_secret(path: Path) -> str:
    """The platform's secret for its clusters; made when there is none."""
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        return _kept_secret(path)
