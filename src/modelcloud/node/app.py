"""The node of a platform: gateways, the workers of all services, and the control plane.

Must never: decide what runs, or read the store; it does what the control plane last said, and
goes on with that while there is no control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from modelcloud.config import PlatformConfig, ServeConfig
from modelcloud.dataplane import confinement
from modelcloud.dataplane.messages import AdminRequest, AdminResponse, AdminRoute
from modelcloud.errors import Conflict, ModelcloudError, NotReady, UsageError
from modelcloud.node import sockets
from modelcloud.node.capacity import capacity
from modelcloud.node.cluster import ClusterSettings
from modelcloud.node.control import ControlPlane, Place
from modelcloud.node.isolation import Isolation
from modelcloud.node.logs import Logs, OutputLine
from modelcloud.node.notify import Notifier
from modelcloud.node.orders import Counters, Standing, WorkerLine
from modelcloud.node.run_dir import RunDir
from modelcloud.node.signals import reasons_to_stop, stop_unless_hurried
from modelcloud.node.supervisor import Supervisor
from modelcloud.node.usage import usage_of

log = logging.getLogger(__name__)

#: How often the control plane is looked after, and how long the gateways have to give counters.
TICK_S = 0.25
COUNTERS_S = 2.0

#: At the gateways' own address the node itself answers this one; all else that is no prediction
#: is for the control plane.
READYZ = AdminRoute(path="/readyz", methods=("GET",))
#: Below a service's name, and at the root of a port of its own.
SERVICE_ADMIN = (
    AdminRoute(path="/setup", methods=("GET", "POST")),
    AdminRoute(path="/meta", methods=("GET",)),
    AdminRoute(path="/docs.json", methods=("GET",), yields=True),
    AdminRoute(path="/redoc", methods=("GET",), yields=True),
    AdminRoute(path="/redoc/*", methods=("GET",), yields=True),
)
PORT_ADMIN = (
    AdminRoute(path="/", methods=("GET",), yields=True),
    *SERVICE_ADMIN,
    AdminRoute(path="/healthcheck", methods=("GET",)),
    READYZ,
    AdminRoute(path="/rollouts", methods=("GET",)),
    AdminRoute(path="/rollouts/*", methods=("GET",)),
    AdminRoute(path="/rollback", methods=("POST",)),
)


def main(config: PlatformConfig) -> int:
    """Run until a signal says to stop; return the exit status: 0, 1 for a failure, 2 for usage."""
    os.umask(0o077)  # what this process and its children make is nobody else's business
    try:
        asyncio.run(_run(config))
    except (ModelcloudError, OSError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"modelcloud: {getattr(error, 'message', error)}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


async def _run(config: PlatformConfig) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three for every worker, and more
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(Path(config.data)))
        run_dir = stack.enter_context(RunDir(Path(config.data)))
        logs = Logs(str(Path(config.data) / "logs"), sys.stdout, by_version=True)
        stack.callback(logs.close)
        notifier = Notifier(os.environ)
        stack.callback(notifier.close)
        reasons = reasons_to_stop(stack)
        node = Node(config, run_dir, logs, notifier)
        running = asyncio.create_task(node.run())
        asked = asyncio.create_task(reasons.get())
        try:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                log.info("Stopping: %s", asked.result())
        finally:
            asked.cancel()
            await node.stop(running, reasons)


@contextlib.contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the data folder: nobody else serves from it meanwhile.

    Raises:
        Conflict: another `modelcloud up` holds it.
        UsageError: it cannot be written to.
    """
    try:
        descriptor = os.open(data / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"the data folder {str(data)!r}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise Conflict(
                f"the data folder {str(data)!r} is in use by another `modelcloud up`"
                + (f" (process {holder})" if holder else "")
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Node:
    """The parts of a platform's node, and the order in which they start and stop."""

    def __init__(
        self, config: PlatformConfig, run_dir: RunDir, logs: Logs, notifier: Notifier
    ) -> None:
        self._config = config
        self._logs = logs
        self._notifier = notifier
        self._run_dir = run_dir
        self._data = Path(config.data).absolute()
        self._capacity = capacity(config)
        self._supervisor = Supervisor(
            _serve_config(config),
            run_dir=run_dir,
            logs=logs,
            on_admin=self._answer,
            admin_routes=(READYZ,),
            service_admin_routes=SERVICE_ADMIN,
            port_admin_routes=PORT_ADMIN,
            gpus=self._capacity.gpus,
            envs=(str(self._data / "envs"), config.env_timeout_s),
            isolation=_isolation(config, self._data, run_dir.path),
            cluster=_cluster(config, self._data),
        )
        self._control: ControlPlane | None = None
        self._banner_told = False

    async def run(self) -> None:
        """Take the addresses, start everything; returns only by an error or cancellation.

        Raises:
            Conflict, UsageError: an address cannot be had.
        """
        config, supervisor = self._config, self._supervisor
        listener = sockets.reserve(config.control_host, config.control_port, 1)[0]
        workspaces = None
        if config.workspaces:
            workspaces = sockets.reserve(config.control_host, config.workspace_port, 1)[0]
        port = supervisor.bind()
        sockets.listen([listener, *filter(None, [workspaces])])
        standing = Standing(
            config=config,
            port=port,
            listen_fd=listener.fileno(),
            control_port=listener.getsockname()[1],
            deployments=0,
            run_dir=str(self._run_dir.path),
            workspace_fd=-1 if workspaces is None else workspaces.fileno(),
            workspace_port=0 if workspaces is None else workspaces.getsockname()[1],
            **msgspec.structs.asdict(self._capacity),
        )
        control = self._control = ControlPlane(
            Place(
                module="modelcloud.control.main",
                listen_fd=listener.fileno(),
                reaper=supervisor.reaper,
                output=self._logs.control,
                clock=time.monotonic,
                standing=lambda: standing,
                deployments=lambda: supervisor.deployments,
                observe=supervisor.observe,
                refused_ports=lambda: supervisor.refused_ports,
                counters=self._counters,
                want=supervisor.want,
                route=supervisor.route,
                routing=lambda: supervisor.routing,
                on_answering=lambda: self._answering(standing),
                further_fds=() if workspaces is None else (workspaces.fileno(),),
            )
        )
        supervisor.on_change(control.changed)
        supervisor.on_ports(control.ports_changed)
        supervisor.on_routing(control.routing_changed)
        self._logs.subscribe(lambda line: control.line(_order_of(line)))
        with contextlib.closing(listener), contextlib.closing(workspaces or listener):
            await supervisor.listen()
            while True:
                control.check()
                self._stay_watched()
                await asyncio.sleep(TICK_S)

    async def stop(self, running: asyncio.Task[None], reasons: asyncio.Queue[str]) -> None:
        """Answer what is under way, end every process; another reason to stop hurries it.

        Raises:
            ModelcloudError: what `running` ended by, if it did.
        """
        self._notifier.stopping("Stopping: answering what is under way")
        if not running.done():
            running.cancel()
        failed = (await asyncio.gather(running, return_exceptions=True))[0]
        if self._control is not None:
            await self._control.stop()  # first: it must not take what ends for trouble
        await stop_unless_hurried(self._supervisor.stop, self._config.drain_s, reasons)
        if isinstance(failed, Exception):
            raise failed
        log.info("Stopped")

    def _answering(self, standing: Standing) -> None:
        if self._banner_told:
            log.info("the control plane answers again")
            return
        self._banner_told = True
        config = self._config
        predictions = sockets.url_of(config.host, standing.port, tls=bool(config.tls_cert))
        api = sockets.url_of(config.control_host, standing.control_port)
        lines = [
            f"Predictions at {predictions}",
            f"Control plane at {api} (API: {api}/api/docs)",
        ]
        if config.workspaces:
            bound = sockets.url_of(config.control_host, standing.workspace_port)
            lines.append(f"Workspaces at {config.workspace_url or bound}")
        for line in lines:
            log.info("%s", line)
        self._notifier.ready(f"Predictions at {predictions}")

    def _stay_watched(self) -> None:
        if self._notifier.watchdog_s is not None and self._supervisor.answering:
            self._notifier.alive()

    async def _counters(self, seq: int) -> Counters:
        gateways = await self._supervisor.stats(COUNTERS_S)
        workers = self._supervisor.workers
        local = await asyncio.to_thread(usage_of, [worker.pid for worker in workers if worker.pid])
        used = [(worker, worker.used or local.get(worker.pid)) for worker in workers]
        return Counters(
            seq=seq,
            gateways=gateways,
            workers=[worker.usage(found) for worker, found in used if found is not None],
        )

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        if request.path == READYZ.path and request.port == 0:
            ready = not self._supervisor.starting
            return AdminResponse(
                id=request.id,
                status=200 if ready else 503,
                body=msgspec.json.encode({"ready": ready}),
            )
        if self._control is None:
            raise NotReady("the node is starting")
        return await self._control.answer(request)


def _order_of(line: OutputLine) -> WorkerLine:
    return WorkerLine(
        deployment=line.deployment, generation=line.generation, worker=line.worker, text=line.text
    )


def _isolation(config: PlatformConfig, data: Path, run_dir: Path) -> Isolation | None:
    """What workers may reach; makes the folders that they are to find there."""
    if not config.confine:
        return None
    if confinement.version() < confinement.LEAST_VERSION:
        log.warning(
            "models are not kept from the platform's files, nor from other processes: this kernel "
            "has no Landlock, or one before Linux 6.2"
        )
    envs = data / "envs"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 — Path's raises without a home
    for folder in (envs, caches):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Isolation((str(data), str(run_dir), *config.hidden), str(envs), str(caches))


def _cluster(config: PlatformConfig, data: Path) -> ClusterSettings | None:
    """Where the workers of the engine `ray` run; None where there is none."""
    if config.engine != "ray":
        return None
    return ClusterSettings(
        module="modelcloud.engines.ray",
        address=config.ray_address,
        http_port=config.ray_http_port,
        data=data,
        confine=config.confine,
        env_timeout_s=config.env_timeout_s,
    )


def _serve_config(config: PlatformConfig) -> ServeConfig:
    """What the supervisor reads of the settings: address, limits and times."""
    return ServeConfig(
        target="",
        host=config.host,
        port=config.port,
        gateways=config.gateways,
        log_dir=str(Path(config.data) / "logs"),
        access_log=config.access_log,
        cors=config.cors,
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
        drain_s=config.drain_s,
        health_timeout_s=config.health_timeout_s,
        limits=config.limits,
    )
