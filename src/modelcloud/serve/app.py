"""The main job: serve one target until told to stop, and replace it while it serves.

Must never: run user code, or keep a rule of its own; it puts the parts together and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.engines.local import LocalEngine
from modelcloud.errors import ModelcloudError, ModelLoadError, NotReady, UsageError
from modelcloud.node.logs import Logs
from modelcloud.node.notify import Notifier
from modelcloud.node.run_dir import RunDir
from modelcloud.node.signals import reasons_to_stop, stop_unless_hurried
from modelcloud.node.supervisor import Supervisor
from modelcloud.rollout.canary_watch import CanaryWatch
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.serve import console, status
from modelcloud.serve.admin import Admin, admin_routes
from modelcloud.serve.settings import checked
from modelcloud.serve.updates import Updates
from modelcloud.serve.watch import Look, look, look_at, watch
from modelcloud.types import DeploymentRoute, Observed, Routing, ServiceRouting, State

log = logging.getLogger(__name__)

#: Where copies of model files go, if it can be written: the run folder may be in memory.
ON_DISK = Path("/var/tmp")  # noqa: S108 — `RunDir` makes a private folder in it


def main(config: ServeConfig, lifeline: int | None = None) -> int:
    """Serve until a signal says to stop; return the exit status: 0, 1 for a failure, 2 for usage.

    Args:
        config: what to serve and how.
        lifeline: a descriptor whose end of file means that the process this one serves for is
            gone; it stops then as for SIGTERM.
    """
    try:
        asyncio.run(_serve(checked(config), lifeline))
    except (ModelcloudError, OSError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"modelcloud: {_words(error)}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _words(error: ModelcloudError | OSError) -> str:
    if isinstance(error, OSError):
        return str(error)
    file, line = error.fields.get("file"), error.fields.get("line")
    where = f"{file}:{line}: " if line else ""
    return f"{where}{error.message}"


async def _serve(config: ServeConfig, lifeline: int | None) -> None:
    with contextlib.ExitStack() as stack:
        run_dir = stack.enter_context(RunDir())
        staged = stack.enter_context(RunDir(ON_DISK))
        logs = Logs(config.log_dir, sys.stdout)
        stack.callback(logs.close)
        notifier = Notifier(os.environ)
        stack.callback(notifier.close)
        server = Server(config, run_dir, staged, logs, notifier)
        reasons = reasons_to_stop(stack, lifeline)
        serving = asyncio.create_task(server.serve())
        asked = asyncio.create_task(reasons.get())
        try:
            await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                log.info("Stopping: %s", asked.result())
        finally:
            asked.cancel()
            await server.stop(serving, reasons)


class Server:
    """The parts of serve mode, and the order in which they start and stop."""

    def __init__(
        self,
        config: ServeConfig,
        run_dir: RunDir,
        staged: RunDir,
        logs: Logs,
        notifier: Notifier,
    ) -> None:
        self._supervisor = Supervisor(
            config,
            run_dir=run_dir,
            logs=logs,
            on_admin=self._answer,
            admin_routes=admin_routes(),
        )
        self._config = config
        self._staged = staged
        self._logs = logs
        self._notifier = notifier
        self._reconciler: Reconciler | None = None
        self._canaries = CanaryWatch(self._supervisor.stats, self._reconcilers)
        self._admin: Admin | None = None

    async def serve(self) -> None:
        """Come up, then update whenever asked; returns only by an error or cancellation.

        Raises:
            Conflict, UsageError: the address cannot be had.
            ModelLoadError: the target cannot be served.
        """
        config = self._config = replace(self._config, port=self._supervisor.bind())
        engine = LocalEngine(self._supervisor)
        engine.route(routing(config.service))
        reconciler = self._reconciler = Reconciler(
            engine,
            config.service,
            replicas=config.replicas,
            strategy=config.strategy,
            keep_warm_s=config.keep_warm_s,
            drain_s=config.drain_s,
        )
        self._logs.subscribe(lambda line: reconciler.append_log(line.generation, line.text))
        updates = Updates(config, reconciler, self._observe, self._staged.path / "snapshots")
        self._admin = Admin(
            config,
            reconciler=reconciler,
            updates=updates,
            observe=self._observe,
            stats=self._supervisor.stats,
            worker_deaths=lambda: self._supervisor.worker_deaths,
        )
        narrator = console.Narrator(self._say, reconciler.rollouts)
        engine.on_change(lambda _: narrator.look())
        engine.on_change(lambda _: self._canaries.look())
        reconciler.on_finished(narrator.finished)
        await self._come_up(reconciler, updates)
        self._stay_watched()
        watches = [self._watch(updates)] if config.watch else []
        if config.timestamp_file:
            watches.append(self._follow(updates, Path(config.timestamp_file)))
        await asyncio.gather(*watches)
        await asyncio.Event().wait()

    async def stop(self, serving: asyncio.Task[None], reasons: asyncio.Queue[str]) -> None:
        """Answer what is under way, end every process; another reason to stop hurries it.

        Raises:
            ModelcloudError: what `serving` ended by, if it did.
        """
        self._notifier.stopping("Stopping: answering what is under way")
        if self._admin is not None:
            self._admin.stopping = True
        if not serving.done():
            serving.cancel()
        failed = (await asyncio.gather(serving, return_exceptions=True))[0]
        self._canaries.close()
        for reconciler in self._reconcilers():
            reconciler.close()
        await stop_unless_hurried(self._supervisor.stop, self._config.drain_s, reasons)
        if isinstance(failed, Exception):
            raise failed
        log.info("Stopped")

    async def _come_up(self, reconciler: Reconciler, updates: Updates) -> None:
        log.info("Initializing model…")
        began = time.monotonic()
        loaded = asyncio.Event()

        def look() -> None:
            if rollout.finished or rollout.step is State.SERVING:
                loaded.set()

        rollout = await updates.begin_first()
        self._supervisor.on_change(lambda _: look())
        reconciler.on_finished(lambda _: look())
        await loaded.wait()
        _check(rollout)
        log.info("Model initialized (%.2fs)", time.monotonic() - began)
        # The switch is done once gateways acknowledge it, so it waits for them.
        await self._supervisor.listen()
        await reconciler.wait(rollout.id, self._config.load_timeout_s)
        _check(rollout)
        signature = self._observe().signatures[rollout.target.generation]
        options = status.options(signature)
        for line in console.banner(self._config, signature["commands"], options):
            log.info("%s", line)
        self._notifier.ready(f"Serving at {console.url_of(self._config)}")

    def _say(self, line: str) -> None:
        log.info("%s", line)
        self._notifier.status(line)

    def _stay_watched(self) -> None:
        """Twice in each period, from the loop that must not stand still."""
        period_s = self._notifier.watchdog_s
        if period_s is None:
            return
        asyncio.get_running_loop().call_later(period_s / 2, self._stay_watched)
        if self._supervisor.answering:
            self._notifier.alive()

    async def _watch(self, updates: Updates) -> None:
        def take_look() -> Look:
            return look(*updates.watched())

        async def changed() -> None:
            try:
                await updates.begin_edited()
            except ModelcloudError as error:
                log.warning("the edited code is not taken: %s", error.message)

        await watch(take_look, changed)

    async def _follow(self, updates: Updates, timestamp: Path) -> None:
        log.info("Following %s", timestamp)

        async def changed() -> None:
            try:
                await updates.begin_arrived()
            except ModelcloudError as error:
                log.warning("the model is not taken: %s; it is tried again when %s changes",
                            error.message, timestamp.name)  # fmt: skip

        await watch(lambda: look_at(timestamp), changed)

    def _reconcilers(self) -> list[Reconciler]:
        return [] if self._reconciler is None else [self._reconciler]

    def _observe(self) -> Observed:
        return self._supervisor.observe(self._config.service)

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        if self._admin is None:
            raise NotReady("the server is starting")
        return await self._admin.answer(request)


def routing(service: str) -> Routing:
    """How the one service is reached: at the root, with one deployment that is named as it is."""
    deployment = DeploymentRoute(deployment=service)
    return Routing(
        services=(ServiceRouting(service=service, deployments=(deployment,), at_root=True),)
    )


def _check(rollout: Rollout) -> None:
    if rollout.finished and rollout.state is not RolloutState.SUCCEEDED:
        raise ModelLoadError(rollout.reason)
