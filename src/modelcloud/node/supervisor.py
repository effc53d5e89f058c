"""The node: owns gateways and workers, and keeps both as they were last wanted.

Must never: run user code, hold policy (it is told what to run), or block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import AdminRoute, Stats
from modelcloud.dataplane.routes import build_table
from modelcloud.errors import ModelcloudError
from modelcloud.node import sockets
from modelcloud.node.admin import AdminHandler
from modelcloud.node.fleet import Fleet
from modelcloud.node.gateway import DRAIN_GRACE_S, START_S, GatewaySetup
from modelcloud.node.gateways import Gateways
from modelcloud.node.logs import Logs
from modelcloud.node.reaper import Reaper
from modelcloud.node.run_dir import RunDir
from modelcloud.node.unix_address import UnixAddress
from modelcloud.node.worker import STOP_GRACE_S, TERM_GRACE_S, Surroundings
from modelcloud.types import Desired, Observed

log = logging.getLogger(__name__)

#: How often what only time changes is looked at; all else is looked at when it happens.
TICK_S = 0.25
#: A look that comes later than this shows that the node stood still, not its children.
STALL_S = 1.0
#: For processes to be gone after SIGKILL.
KILL_S = 5.0


def longest_stop_s(drain_s: float) -> float:
    """For so long, in seconds, `Supervisor.stop` may take."""
    return drain_s + 2 * DRAIN_GRACE_S + STOP_GRACE_S + 2 * TERM_GRACE_S + KILL_S


class Supervisor:
    """Runs the gateways and the workers of one service on this machine.

    Everything happens on the running event loop, whose SIGCHLD it takes: a look at everything
    (`_reconcile`) follows every event and every tick, and does what is due.

    Args:
        config: address, limits and times; the fields about the model are not read.
        run_dir: folder of the workers' sockets; its owner closes it after `stop`.
        logs: takes the output of all children.
        on_admin: answers requests for `admin_routes`.
        admin_routes: addresses that the node answers itself.
        worker_module: its `main(fd)` is a worker; another one in tests.
        gateway_module: its `main(fd)` is a gateway; another one in tests.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        run_dir: RunDir,
        logs: Logs,
        on_admin: AdminHandler,
        admin_routes: Sequence[AdminRoute] = (),
        worker_module: str = "modelcloud.dataplane.worker",
        gateway_module: str = "modelcloud.dataplane.gateway",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._admin_routes = tuple(admin_routes)
        self._service = config.service
        self._signature: dict[str, object] = {}
        self._published: object = None
        self._callbacks: list[Callable[[], None]] = []
        self._seen = Observed()
        self._looked = asyncio.Event()
        self._looked_at = time.monotonic()
        self._stopping = False
        self._reaper = Reaper(run_dir.path.name)
        self._fleet = Fleet(
            Surroundings(
                module=worker_module,
                run_dir=run_dir.path,
                reaper=self._reaper,
                logs=logs,
                secret=config.admin_token,
                health_timeout_s=config.health_timeout_s,
                clock=time.monotonic,
            ),
            on_change=self._touch,
        )
        self._gateways = Gateways(
            GatewaySetup(
                module=gateway_module,
                config=config,
                reaper=self._reaper,
                logs=logs,
                clock=time.monotonic,
                on_change=self._touch,
                on_sick=self._fleet.fail,
                on_suspect=self._fleet.suspect,
                on_admin=on_admin,
            )
        )
        self._unix_address: UnixAddress | None = None
        self._touched: asyncio.Handle | None = None
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    @property
    def worker_deaths(self) -> int:
        """How many workers have ended unasked so far."""
        return self._fleet.deaths

    @property
    def answering(self) -> bool:
        """Whether at least one gateway accepts clients and shows that it lives."""
        return self._gateways.answering

    @property
    def gateway_deaths(self) -> int:
        """How many gateways have ended unasked so far."""
        return self._gateways.deaths

    def bind(self) -> int:
        """Reserve the address; nobody can connect yet.

        Returns:
            The port, which matters when 0 was asked for; 0 on a unix socket.

        Raises:
            Conflict, UsageError: it cannot be had; the message names it.
        """
        config = self._config
        if config.uds:
            self._unix_address = UnixAddress(config.uds)
            self._gateways.bind(self._unix_address.listeners(config.gateways))
            return 0
        listeners = sockets.reserve(config.host, config.port, config.gateways)
        self._gateways.bind(listeners)
        return int(listeners[0].getsockname()[1])

    async def listen(self) -> None:
        """Start the gateways; returns once all of them accept connections.

        Raises:
            ModelcloudError: one of them did not start, or `stop` was called meanwhile.
        """
        gateways = self._gateways
        self._reconcile()
        gateways.start()
        await self._until(
            lambda: gateways.listening or self._stopping or bool(gateways.last_death), START_S
        )
        if not gateways.listening:
            raise ModelcloudError(gateways.last_death or "the gateways were not up in time")

    def want(self, desired: Desired) -> None:
        """Make this so; returns at once."""
        if not self._stopping:
            self._service = desired.service
            self._fleet.want(desired)
            self._touch()

    def observe(self, service: str) -> Observed:
        """What is there now; nothing of a service that is not this node's."""
        if service != self._service:
            return Observed()
        used = self._gateways.used_generations
        generations = self._fleet.generations
        degraded = [generation.degraded for generation in generations.values()]
        return Observed(
            workers=tuple(worker.view for worker in self._fleet.workers),
            failures={n: g.failure for n, g in generations.items() if g.named and g.failure},
            routed=self._gateways.routed,
            settled=frozenset(generations) - used,
            degraded="; ".join(filter(None, [self._gateways.degraded, *degraded])),
            signatures={n: g.signature for n, g in generations.items() if g.signature is not None},
        )

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after what `observe` shows has changed, once for many changes."""
        self._callbacks.append(callback)

    async def stats(self, timeout_s: float = 1.0) -> list[Stats]:
        """The counters of every gateway that answers within `timeout_s`."""
        return await self._gateways.stats(timeout_s)

    async def stop(self, drain_s: float) -> None:
        """Answer what is under way for up to `drain_s` seconds, then end every process.

        A second call with fewer seconds hurries the first.
        """
        self._stopping = True
        if self._unix_address is not None:
            self._unix_address.release()  # who connects from here on is for the next server
        self._gateways.drain(drain_s)
        if not await self._until(lambda: not self._gateways.alive, drain_s + 2 * DRAIN_GRACE_S):
            self._gateways.kill()
        self._fleet.want(Desired(service=self._service))
        self._touch()
        if not await self._until(lambda: not self._fleet.workers, STOP_GRACE_S + 2 * TERM_GRACE_S):
            for worker in self._fleet.workers:
                worker.kill()
        if not await self._until(self._nothing_left, KILL_S):
            log.error("some processes did not end, even by SIGKILL")
        self._ticking.cancel()
        await self._gateways.close()
        self._reaper.close()

    def _nothing_left(self) -> bool:
        return not (self._fleet.workers or self._gateways.alive) and self._reaper.clear()

    def _touch(self) -> None:
        if self._touched is None:
            self._touched = self._loop.call_soon(self._reconcile)

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._reaper.reap()  # in case a library took SIGCHLD for itself
        self._reconcile()

    def _reconcile(self) -> None:
        if self._touched is not None:
            self._touched.cancel()
            self._touched = None
        now = time.monotonic()
        stalled = now - self._looked_at > STALL_S
        self._looked_at = now
        self._fleet.reconcile(stalled=stalled)
        self._route()
        self._gateways.reconcile(stalled=stalled)
        workers = self._fleet.workers
        self._gateways.forget_all_but({worker.id for worker in workers})
        for worker in workers:
            worker.stop_once_drained(self._gateways.uses(worker.id), self._config.drain_s)
        self._looked.set()
        seen = self.observe(self._service)
        if seen != self._seen:
            self._seen = seen
            for callback in self._callbacks:
                callback()

    def _route(self) -> None:
        """Publish one table with all that changed: who comes and who goes do so together."""
        routed = [g for _, g in sorted(self._fleet.generations.items()) if g.wish.routed]
        workers = tuple(worker.address for generation in routed for worker in generation.ready)
        for generation in routed:
            # The newest wins; that of a generation before is kept while there is no other.
            self._signature = generation.signature or self._signature
        available = any(generation.promising for generation in self._fleet.generations.values())
        content = (self._service, workers, available, self._signature)
        if content == self._published:
            return
        self._published = content
        self._gateways.publish(
            build_table(
                snapshot=self._gateways.table.snapshot + 1,
                service=self._service,
                signature=self._signature,
                workers=workers,
                available=available,
                limits=self._config.limits,
                admin=self._admin_routes,
            )
        )

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a look at things after which `condition` holds; whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._looked.clear()
            try:
                await asyncio.wait_for(self._looked.wait(), max(deadline - time.monotonic(), 0))
            except asyncio.TimeoutError:
                return condition()
        return True
