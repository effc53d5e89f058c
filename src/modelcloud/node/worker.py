"""One worker process: what it has told, whether it is healthy, how it is ended.

Must never: start another, or know what else is wanted.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from modelcloud.dataplane.messages import (
    FromWorker,
    Load,
    LoadFailed,
    Ping,
    Pong,
    Progress,
    Ready,
    Reconfigure,
    Reconfigured,
    Stop,
    WorkerAddress,
)
from modelcloud.node import run_dir
from modelcloud.node.cluster import Cluster, RemoteWorker
from modelcloud.node.isolation import Isolation
from modelcloud.node.logs import Logs, escape
from modelcloud.node.orders import WorkerUsage
from modelcloud.node.preparation import Workshop
from modelcloud.node.processes import UNFIT, Child, command, is_stopped
from modelcloud.node.reaper import Reaper
from modelcloud.node.resources import Devices, variables
from modelcloud.node.usage import Usage
from modelcloud.types import GenerationSpec, State, WorkerView, advance

log = logging.getLogger(__name__)

PING_S = 1.0
#: A worker that a signal stopped is sick after so long.
STOPPED_S = 2.0
#: For a worker to end after Stop, then after SIGTERM; and after it said that loading failed.
STOP_GRACE_S = 5.0
TERM_GRACE_S = 1.0
FAILED_GRACE_S = 2.0
#: A sick worker that is still not gone after so long is replaced all the same.
DYING_S = 5.0
#: For a worker to take other options, what it waits for among it.
RECONFIGURE_S = 30.0
#: Between a hang-up that a gateway saw and the end of the process that it usually means.
SUSPECT_S = 0.5
TAIL_LINES = 10

_LADDER = (
    State.PENDING, State.FETCHING, State.BUILDING_ENV, State.LOADING, State.WARMING,
    State.CHECKING, State.SERVING,
)  # fmt: skip


class Surroundings(NamedTuple):
    """What all workers of a node share.

    Attributes:
        module: its `main(fd)` is a worker.
        run_dir: folder of their sockets.
        secret: kept out of their environment.
        health_timeout_s: a serving worker that has not answered a ping for so long is sick.
        clock: monotonic seconds.
        devices: who has which GPU; None where that is nobody's business (serve mode).
        workshop: where generations are made ready that need it; None: none does (serve mode).
        isolation: what workers may reach; None: what their user may (serve mode).
        cluster: where the workers of generations with an engine run; None: there is none.
    """

    module: str
    run_dir: Path
    reaper: Reaper
    logs: Logs
    secret: str
    health_timeout_s: float
    clock: Callable[[], float]
    devices: Devices | None = None
    workshop: Workshop | None = None
    isolation: Isolation | None = None
    cluster: Cluster | None = None


class Worker:
    """A replica of a generation, from its start to the moment it is reaped.

    Attributes:
        revision: of the options that it has.
        refusal: the last revision that it did not take, and why.

    Args:
        number: unique on the node; its id.
        restarts: deaths in its generation before it was started.
        gpus: the devices it was given; None where that is nobody's business.
        on_change: called after anything observable changed.
        on_exit: called last, when the process is gone. `error` says why, unless it was retired.

    Raises:
        OSError: the process could not be started.
    """

    def __init__(
        self,
        number: int,
        spec: GenerationSpec,
        around: Surroundings,
        *,
        restarts: int,
        gpus: tuple[int, ...] | None = None,
        on_change: Callable[[], None],
        on_exit: Callable[[Worker], None],
    ) -> None:
        self.id = number
        self.spec = spec
        self.restarts = restarts
        self.gpus = gpus
        self.state = State.PENDING
        self.signature: dict[str, Any] = {}
        self.error = ""
        self.revision = spec.revision
        self.refusal: tuple[int, str] | None = None
        self._asked: tuple[GenerationSpec, float] | None = None
        self._around = around
        self._on_change = on_change
        self._on_exit = on_exit
        self._folder = around.run_dir / f"w{number}"
        self._socket = self._folder / "sock"
        files = self._folder / "files"
        #: For a route table.
        self.address = WorkerAddress(number, str(self._socket), spec.generation, spec.version)
        self._load_s = 0.0
        self._retired_at = self._failed_at = 0.0
        self._stop_sent = False
        now = around.clock()
        self._started = self._pinged = self._ponged = now
        self._pings = 0
        self._batches = self._batched = 0
        self._stopped_since: float | None = None
        self._suspicion: tuple[float, str] | None = None
        if spec.engine:
            self._child: Child | RemoteWorker = self._held()
            return
        for folder in (self._folder, files):
            folder.mkdir(mode=0o700, exist_ok=True)
        added, confinement = variables(spec, gpus), None
        if around.isolation is not None:
            added["TMPDIR"] = str(files)
            confinement = around.isolation.of_worker(spec, self._folder)
        self._child = Child(
            f"w{number}",
            command(spec.python or sys.executable, around.module),
            reaper=around.reaper,
            union=FromWorker,
            output=around.logs.worker(spec, number),
            on_message=self._heard,
            on_exit=self._ended,
            secret=around.secret,
            variables=added,
        )
        self._child.send(
            Load(
                spec=spec,
                worker_id=number,
                socket=str(self._socket),
                files=str(files),
                confinement=confinement,
            )
        )
        self._climb(State.LOADING)

    def _held(self) -> RemoteWorker:
        """The worker as the cluster has it: `pending` until a replica is there for it."""
        cluster = self._around.cluster
        if cluster is None:
            raise OSError(
                f"this platform has no engine {self.spec.engine!r}; start it with --engine"
            )
        return cluster.hold(
            self.id,
            self.spec,
            variables=variables(self.spec, None),
            output=self._around.logs.worker(self.spec, self.id),
            on_message=self._heard,
            on_exit=self._ended,
        )

    @property
    def loading(self) -> bool:
        """On its way to being ready."""
        return self.state in _LADDER[:-1]

    @property
    def wanted(self) -> bool:
        """Loading or ready."""
        return self.state in _LADDER

    @property
    def present(self) -> bool:
        """Takes the place of a replica: wanted, or sick and about to be gone.

        One that even SIGKILL does not end (the kernel waits for a device) gives its place up.
        """
        dying = self.state is State.FAILED
        return self.wanted or (dying and self._around.clock() - self._failed_at < DYING_S)

    @property
    def leaving(self) -> bool:
        """Its place is to go: it serves until another one does in its stead."""
        return self._child.leaving

    @property
    def used(self) -> Usage | None:
        """What it uses, as told from elsewhere; None of a process of this machine."""
        return self._child.usage if isinstance(self._child, RemoteWorker) else None

    @property
    def retired(self) -> bool:
        """It was no longer wanted before it ended."""
        return self.state in {State.DRAINING, State.STOPPED}

    @property
    def changing(self) -> bool:
        """It was given other options and has not said yet whether it took them."""
        return self._asked is not None

    @property
    def pid(self) -> int:
        """Of its process, which leads a session and a group of its own."""
        return self._child.pid

    @property
    def view(self) -> WorkerView:
        """For an observer."""
        return WorkerView(
            id=self.id,
            generation=self.spec.generation,
            revision=self.revision,
            state=self.state,
            pid=self.pid,
            error=self.error,
            restarts=self.restarts,
            load_s=self._load_s,
            gpus=self.gpus or (),
        )

    def usage(self, used: Usage) -> WorkerUsage:
        """What its processes use, with what it told of its batches at the last ping."""
        spec = self.spec
        return WorkerUsage(
            worker=self.id,
            deployment=spec.deployment,
            generation=spec.generation,
            version=spec.version,
            memory=used.memory,
            cpu_s=used.cpu_s,
            batches=self._batches,
            batched=self._batched,
        )

    def retire(self) -> None:
        """No longer wanted: a ready one drains, one that is loading is killed."""
        if self.state is State.SERVING:
            self._become(State.DRAINING)
            self._retired_at = self._around.clock()
        else:
            self._become(State.STOPPED)
            self._child.kill()

    def revive(self) -> bool:
        """Wanted again, while it drains; whether that was possible."""
        if self.state is not State.DRAINING or self._stop_sent:
            return False
        self._become(State.SERVING)
        return True

    def reconfigure(self, spec: GenerationSpec) -> None:
        """Give a ready one the options of this spec of its generation."""
        self._asked = spec, self._around.clock()
        self._child.send(Reconfigure(spec=spec))

    def stop_once_drained(self, in_use: bool, drain_s: float) -> None:
        """Tell a draining worker to stop, if no gateway uses it or it has drained for too long."""
        if self.state is not State.DRAINING or self._stop_sent:
            return
        late = self._around.clock() - self._retired_at >= drain_s
        if in_use and not late:
            return
        if in_use:
            log.warning("worker %d is still in use after %g s of draining", self.id, drain_s)
        self._stop_sent = True
        self._child.send(Stop())
        self._child.end((STOP_GRACE_S, signal.SIGTERM), (TERM_GRACE_S, signal.SIGKILL))

    def fail(self, reason: str) -> None:
        """It is sick: dump its stack to its log and kill it."""
        if self.state in {State.FAILED, State.STOPPED}:
            return
        if self.state is State.DRAINING:
            log.warning("worker %d %s while draining", self.id, reason)
            self._become(State.STOPPED)
        else:
            self._fail(f"worker {self.id} {reason}")
        self._child.abort()

    def suspect(self, reason: str) -> None:
        """It is sick, unless its end, which says more, is about to be seen."""
        if self._suspicion is None and self.state in {State.SERVING, State.DRAINING}:
            self._suspicion = (self._around.clock(), reason)

    def kill(self) -> None:
        """End it and what it started at once."""
        self._child.kill()

    def check(self) -> None:
        """Ping it, and see whether it has been silent, stopped or loading for too long."""
        now = self._around.clock()
        limit, cluster = self.spec.load_timeout_s, self._around.cluster
        if self.state is State.BUILDING_ENV and cluster is not None:
            limit += cluster.settings.env_timeout_s
        if self.loading and now - self._started >= limit:
            away = cluster.error if self.spec.engine and cluster is not None else ""
            self.fail(
                f"was still {self.state.value} after {limit:g} s (load_timeout_s)"
                f"; {away or 'its stack is in its log'}"
            )
        if self._asked is not None and now - self._asked[1] >= RECONFIGURE_S:
            self.fail(
                f"did not take its new options within {RECONFIGURE_S:g} s; its stack is in its log"
            )
        if not self._child.heard:
            self.forgive()
        if now - self._pinged >= PING_S:
            self._pinged = now
            self._pings += 1
            self._child.send(Ping(seq=self._pings))
            if not is_stopped(self.pid):
                self._stopped_since = None
            elif self._stopped_since is None:
                self._stopped_since = now
        if self._stopped_since is not None and now - self._stopped_since > STOPPED_S:
            self.fail("was stopped by a signal")
        if self._suspicion is not None and now - self._suspicion[0] > SUSPECT_S:
            self.fail(self._suspicion[1])
        silent_s = now - self._ponged
        # While it loads, a library may rightly hold the interpreter for longer than this.
        answers = self.state in {State.SERVING, State.DRAINING} and not self._stop_sent
        if answers and silent_s > self._around.health_timeout_s:
            self.fail(f"did not answer a ping for {silent_s:.0f} s")

    def forgive(self) -> None:
        """The node itself stood still: start counting the silence anew."""
        self._ponged = self._around.clock()

    def _heard(self, message: FromWorker) -> None:
        match message:
            case Pong(batches=batches, batched=batched):
                self._ponged = self._around.clock()
                self._batches, self._batched = batches, batched
                return
            case Progress(state=state) if self.loading and state in _LADDER[1:-1]:
                if state is not self.state and state is State.LOADING:
                    self._started = self._around.clock()  # what came before has its own limits
                self._climb(state)
            case Ready() if self.loading:
                self.signature = message.signature
                if isinstance(self._child, RemoteWorker):
                    self.address = WorkerAddress(
                        self.id, message.endpoint, self.spec.generation, self.spec.version,
                        self._child.secret,
                    )  # fmt: skip
                self._load_s = message.load_s
                self._ponged = self._around.clock()
                self._climb(State.SERVING)
                log.info(
                    "worker %d of %s, generation %d is ready (%.2f s)",
                    self.id, self.spec.deployment, self.spec.generation, self._load_s,
                )  # fmt: skip
                for warning in message.warnings:
                    self._note(warning)
            case LoadFailed() if self.loading:
                where = f" ({message.file}:{message.line})" if message.file else ""
                known = not where or message.file in message.message
                self._note(message.detail)
                reason = message.message + ("" if known else where)
                self._fail("\n".join(escape(line) for line in reason.split("\n")))
                self._child.end((FAILED_GRACE_S, signal.SIGKILL))
            case Reconfigured() if self._asked is not None:
                self._reconfigured(message, self._asked[0])
            case _:
                return  # too late to matter: it has failed or was retired
        self._on_change()

    def _reconfigured(self, message: Reconfigured, spec: GenerationSpec) -> None:
        self._asked = None
        if not message.error:
            self.spec, self.revision = spec, spec.revision
            self.signature = {**self.signature, "optionValues": message.options}
            return
        self.refusal = message.revision, message.error
        if not message.restored:
            self.fail(f"is of no use any more: {message.error}")

    def _ended(self, how: str) -> None:
        run_dir.clear(self._folder)
        if self.state is State.DRAINING:
            self._become(State.STOPPED)
        elif not self.retired and self.state is not State.FAILED:
            self._fail(self._last_words(how))
        self._on_exit(self)

    def _last_words(self, how: str) -> str:
        tail = self._around.logs.tail(self.id, TAIL_LINES)
        if how.endswith(f"status {UNFIT}") and tail:
            return tail[-1]
        doing = "" if self.state is State.SERVING else f" while {self.state.value}"
        text = f"worker {self.id} {how}{doing}"
        return "\n  ".join([f"{text}; its last output:", *tail]) if tail else text

    def _note(self, text: str) -> None:
        for line in text.splitlines():
            self._around.logs.worker_line(self.spec, self.id, escape(line))

    def _climb(self, goal: State) -> None:
        for step in _LADDER[_LADDER.index(self.state) + 1 : _LADDER.index(goal) + 1]:
            self.state = advance(self.state, step)

    def _fail(self, error: str) -> None:
        # Users know the files by their places in the artifact, and have no business with ours.
        snapshot = self.spec.snapshot
        self.error = error.replace(f"{snapshot}/", "") if snapshot else error
        self._failed_at = self._around.clock()
        self._become(State.FAILED)

    def _become(self, state: State) -> None:
        self.state = advance(self.state, state)
        self._on_change()
