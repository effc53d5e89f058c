"""The main job: serve one target until told to stop, and replace it while it serves.

Must never: run user code, or keep a rule of its own; it puts the parts together and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time

from msgspec.structs import replace

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.engines.local import LocalEngine
from modelcloud.errors import ModelcloudError, ModelLoadError, NotReady, UsageError
from modelcloud.node.logs import Logs
from modelcloud.node.run_dir import RunDir
from modelcloud.node.supervisor import Supervisor
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.serve import console, status
from modelcloud.serve.admin import Admin, admin_routes
from modelcloud.serve.notify import Notifier
from modelcloud.serve.settings import checked
from modelcloud.serve.updates import Change, Updates
from modelcloud.serve.watch import Look, look, watch
from modelcloud.types import Observed, State

log = logging.getLogger(__name__)

#: What running requests get once a second signal asked for haste.
HURRIED_DRAIN_S = 0.5
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
        logs = Logs(config.log_dir, sys.stdout)
        stack.callback(logs.close)
        notifier = Notifier(os.environ)
        stack.callback(notifier.close)
        server = Server(config, run_dir, logs, notifier)
        signals = _signals(stack, lifeline)
        serving = asyncio.create_task(server.serve())
        asked = asyncio.create_task(signals.get())
        try:
            await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                log.info("Stopping: %s", asked.result())
        finally:
            asked.cancel()
            await server.stop(serving, signals)


def _signals(stack: contextlib.ExitStack, lifeline: int | None) -> asyncio.Queue[str]:
    """A queue of reasons to stop; the handlers do no more than fill it."""
    loop = asyncio.get_running_loop()
    reasons: asyncio.Queue[str] = asyncio.Queue()
    for number in _STOPPING:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        loop.add_signal_handler(number, reasons.put_nowait, number.name)
        stack.callback(loop.remove_signal_handler, number)
    if lifeline is not None:

        def ended() -> None:
            if not os.read(lifeline, 1):
                loop.remove_reader(lifeline)
                reasons.put_nowait("the process it served for has ended")

        loop.add_reader(lifeline, ended)
        stack.callback(loop.remove_reader, lifeline)
    return reasons


class Server:
    """The parts of serve mode, and the order in which they start and stop."""

    def __init__(
        self, config: ServeConfig, run_dir: RunDir, logs: Logs, notifier: Notifier
    ) -> None:
        self._supervisor = Supervisor(
            config,
            run_dir=run_dir,
            logs=logs,
            on_admin=self._answer,
            admin_routes=admin_routes(),
        )
        self._config = config
        self._run_dir = run_dir
        self._logs = logs
        self._notifier = notifier
        self._reconciler: Reconciler | None = None
        self._admin: Admin | None = None

    async def serve(self) -> None:
        """Come up, then update whenever asked; returns only by an error or cancellation.

        Raises:
            Conflict, UsageError: the address cannot be had.
            ModelLoadError: the target cannot be served.
        """
        config = self._config = replace(self._config, port=self._supervisor.bind())
        engine = LocalEngine(self._supervisor)
        reconciler = self._reconciler = Reconciler(
            engine,
            config.service,
            replicas=config.replicas,
            strategy=config.strategy,
            keep_warm_s=config.keep_warm_s,
            drain_s=config.drain_s,
        )
        self._logs.subscribe(lambda line: reconciler.append_log(line.generation, line.text))
        updates = Updates(config, reconciler, self._observe, self._run_dir.path / "snapshots")
        self._admin = Admin(
            config,
            reconciler=reconciler,
            updates=updates,
            observe=self._observe,
            stats=self._supervisor.stats,
            worker_deaths=lambda: self._supervisor.worker_deaths,
        )
        narrator = console.Narrator(self._say, reconciler.rollouts)
        engine.on_change(narrator.look)
        reconciler.on_finished(narrator.finished)
        await self._come_up(reconciler, updates)
        self._stay_watched()
        if config.watch:
            await self._watch(updates)
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
        if self._reconciler is not None:
            self._reconciler.close()
        stopping = asyncio.create_task(self._supervisor.stop(self._config.drain_s))
        hurry = asyncio.create_task(reasons.get())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            log.info("Stopping at once")
            await self._supervisor.stop(HURRIED_DRAIN_S)
        hurry.cancel()
        await stopping
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
        self._supervisor.on_change(look)
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
                if await updates.edited():
                    await updates.begin(Change())
            except ModelcloudError as error:
                log.warning("the edited code is not taken: %s", error.message)

        await watch(take_look, changed)

    def _observe(self) -> Observed:
        return self._supervisor.observe(self._config.service)

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        if self._admin is None:
            raise NotReady("the server is starting")
        return await self._admin.answer(request)


def _check(rollout: Rollout) -> None:
    if rollout.finished and rollout.state is not RolloutState.SUCCEEDED:
        raise ModelLoadError(rollout.reason)
