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
from modelcloud.errors import ModelcloudError
from modelcloud.node import sockets
from modelcloud.node.admin import AdminHandler
from modelcloud.node.cluster import Cluster, ClusterSettings
from modelcloud.node.fleets import Fleets
from modelcloud.node.gateway import DRAIN_GRACE_S, START_S, GatewaySetup
from modelcloud.node.gateways import Gateways
from modelcloud.node.isolation import Isolation
from modelcloud.node.listeners import Listeners, Observers
from modelcloud.node.logs import Logs
from modelcloud.node.memory import MemoryWatch
from modelcloud.node.ports import Ports
from modelcloud.node.preparation import Workshop
from modelcloud.node.publication import Publisher
from modelcloud.node.reaper import Reaper
from modelcloud.node.resources import Devices
from modelcloud.node.run_dir import RunDir
from modelcloud.node.unix_address import UnixAddress
from modelcloud.node.worker import STOP_GRACE_S, TERM_GRACE_S, Surroundings, Worker
from modelcloud.types import Desired, Observed, Routing
from modelcloud.waiting import within

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
    """Runs the gateways of this machine, and the workers of every deployment.

    Everything happens on the running event loop, whose SIGCHLD it takes: a look at what has changed
    (`_look`) follows every event, one at everything follows every tick, and does what is due.

    Attributes:
        reaper: takes every process that ends, so the owner's own children are watched by it too.

    Args:
        config: address, limits and times; the fields about the model are not read.
        run_dir: folder of the workers' sockets; its owner closes it after `stop`.
        logs: takes the output of all children.
        on_admin: answers requests for the addresses that the node answers itself.
        admin_routes: those at its own address.
        service_admin_routes: those below the name of each service that is not at the root there.
        port_admin_routes: those at the root of each port that a service has for itself.
        worker_module: its `main(fd)` is a worker; another one in tests.
        gateway_module: its `main(fd)` is a gateway; another one in tests.
        gpus: devices to give to workers; None where that is nobody's business (serve mode).
        envs: folder of environments, and how long building one may take; None: no generation
            needs any (serve mode).
        isolation: what workers and preparations may reach; None: what their user may.
        cluster: where the workers of generations with an engine run; None: there is none.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        run_dir: RunDir,
        logs: Logs,
        on_admin: AdminHandler,
        admin_routes: Sequence[AdminRoute] = (),
        service_admin_routes: Sequence[AdminRoute] = (),
        port_admin_routes: Sequence[AdminRoute] = (),
        worker_module: str = "modelcloud.dataplane.worker",
        gateway_module: str = "modelcloud.dataplane.gateway",
        gpus: int | None = None,
        envs: tuple[str, float] | None = None,
        isolation: Isolation | None = None,
        cluster: ClusterSettings | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self.reaper = Reaper(run_dir.path.name)
        self._cluster = cluster and Cluster(
            cluster, self.reaper, logs, time.monotonic, self._cluster_changed
        )
        around = Surroundings(
            module=worker_module,
            run_dir=run_dir.path,
            reaper=self.reaper,
            logs=logs,
            secret=config.admin_token,
            health_timeout_s=config.health_timeout_s,
            clock=time.monotonic,
            devices=None if gpus is None else Devices(gpus),
            workshop=envs and Workshop(self.reaper, *envs, run_dir.path, isolation),
            isolation=isolation,
            cluster=self._cluster,
        )
        self._fleets = Fleets(around, self._look_soon)
        self._memory = MemoryWatch(lambda: self.workers)
        self._gateways = Gateways(
            GatewaySetup(
                module=gateway_module,
                config=config,
                reaper=self.reaper,
                logs=logs,
                clock=time.monotonic,
                on_change=self._look_soon,
                on_sick=self._sick,
                on_suspect=self._suspect,
                on_admin=on_admin,
            )
        )
        self._unix_address: UnixAddress | None = None
        self._ports = Ports("", config.gateways, time.monotonic)
        self._publisher = Publisher(
            config.limits,
            admin=admin_routes,
            service_admin=service_admin_routes,
            port_admin=port_admin_routes,
        )
        # What those who listen know.
        self._observers = Observers(self.observe)
        self._port_listeners = Listeners[dict[int, str]]({})
        self._routing_listeners = Listeners(0)
        self._gateways_told = ""
        self._stopping = False
        self._looked = asyncio.Event()
        self._looked_at = time.monotonic()
        self._next_look: asyncio.Handle | None = None
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    @property
    def worker_deaths(self) -> int:
        """How many workers have ended unasked so far."""
        return self._fleets.deaths

    @property
    def answering(self) -> bool:
        """Whether at least one gateway accepts clients and shows that it lives."""
        return self._gateways.answering

    @property
    def starting(self) -> bool:
        """Whether nobody has said yet how services are reached."""
        return self._publisher.starting

    @property
    def gateway_deaths(self) -> int:
        """How many gateways have ended unasked so far."""
        return self._gateways.deaths

    @property
    def deployments(self) -> list[str]:
        """The keys of those that are wanted or not gone yet."""
        return list(self._fleets)

    @property
    def workers(self) -> list[Worker]:
        """Every worker that was not reaped."""
        return self._fleets.workers

    @property
    def refused_ports(self) -> dict[int, str]:
        """The ports that services want and cannot have, and why; they are tried again."""
        return self._ports.refused

    @property
    def routing(self) -> int:
        """Which of the routings all living gateways follow."""
        return self._gateways.routing

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
        host, port, *_ = listeners[0].getsockname()
        self._ports = Ports(host, config.gateways, time.monotonic)
        return int(port)

    async def listen(self) -> None:
        """Start the gateways; returns once all of them accept connections.

        Raises:
            ModelcloudError: one of them did not start, or `stop` was called meanwhile.
        """
        gateways = self._gateways
        self._look()
        gateways.start()
        await self._until(
            lambda: gateways.listening or self._stopping or bool(gateways.last_death), START_S
        )
        if not gateways.listening:
            raise ModelcloudError(gateways.last_death or "the gateways were not up in time")

    def want(self, desired: Desired) -> None:
        """Make this so for one deployment; returns at once."""
        if not self._stopping:
            self._fleets.want(desired)

    def route(self, routing: Routing) -> int:
        """Reach the services like this; returns at once.

        Returns:
            A number that `routing` reaches once every living gateway does so.
        """
        if self._stopping:
            return self.routing
        self._look_soon()
        return self._publisher.route(routing)

    def observe(self, deployment: str) -> Observed:
        """What is there now of a deployment; nothing of one that is not known."""
        fleet = self._fleets.get(deployment)
        if fleet is None:
            return Observed()
        routed, generations = self._gateways.routed(deployment), fleet.generations
        degraded = [generation.degraded for generation in generations.values()]
        return Observed(
            workers=tuple(worker.view for worker in fleet.workers),
            preparing={n: g.preparing for n, g in generations.items() if g.preparing is not None},
            failures={n: g.failure for n, g in generations.items() if g.named and g.failure},
            routed=dict(routed.workers),
            percents=dict(routed.percents),
            settled=frozenset(
                n for n, g in generations.items() if not any(map(self._gateways.uses, g.workers))
            ),
            degraded="; ".join(filter(None, [self._gateways.degraded, *degraded])),
            signatures={n: g.signature for n, g in generations.items() if g.signature is not None},
        )

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` with each deployment of which `observe` shows something new.

        It is called once for many changes.

        Returns:
            A function that ends it.
        """
        return self._observers.add(callback)

    def on_ports(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after `refused_ports` has changed; the result ends that."""
        return self._port_listeners.add(callback)

    def on_routing(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after `routing` has changed; the result ends that."""
        return self._routing_listeners.add(callback)

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
        self._ports.close()
        if not await self._until(lambda: not self._gateways.alive, drain_s + 2 * DRAIN_GRACE_S):
            self._gateways.kill()
        self._fleets.want_nothing()
        if not await self._until(lambda: not self.workers, STOP_GRACE_S + 2 * TERM_GRACE_S):
            for worker in self.workers:
                worker.kill()
        if self._cluster is not None:
            await self._cluster.close()
        if not await self._until(self._nothing_left, KILL_S):
            log.error("some processes did not end, even by SIGKILL")
        self._ticking.cancel()
        await self._memory.close()
        await self._gateways.close()
        self.reaper.close()

    def _nothing_left(self) -> bool:
        return not (self.workers or self._gateways.alive) and self.reaper.clear()

    def _sick(self, worker: int, reason: str) -> None:
        """Have it ended and, where deaths are repaired, replaced."""
        for found in self._with_id(worker):
            found.fail(reason)

    def _suspect(self, worker: int, reason: str) -> None:
        """A gateway lost touch with it: it has just died, or is sick."""
        for found in self._with_id(worker):
            found.suspect(reason)

    def _with_id(self, worker: int) -> list[Worker]:
        """The worker, if it is still there."""
        return [found for found in self.workers if found.id == worker]

    # ---- looks

    def _look_soon(self) -> None:
        if self._next_look is None:
            self._next_look = self._loop.call_soon(self._look)

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self.reaper.reap()  # in case a library took SIGCHLD for itself
        self._memory.look(time.monotonic())
        if self._cluster is not None:
            self._cluster.check()
        self._fleets.touch_all()
        self._look()

    def _cluster_changed(self) -> None:
        self._fleets.touch_all()
        self._look_soon()

    def _look(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        now = time.monotonic()
        stalled = now - self._looked_at > STALL_S
        self._looked_at = now
        if stalled:
            for worker in self.workers:
                worker.forgive()
        self._fleets.reconcile()
        changed = self._take_changes()
        self._take_ports()
        if self._publisher.due:
            self._gateways.publish(self._publisher.make(self._gateways.snapshot + 1))
        self._gateways.reconcile(stalled=stalled)
        workers = self.workers
        self._gateways.forget_all_but({worker.id for worker in workers})
        for worker in workers:
            worker.stop_once_drained(self._gateways.uses(worker.id), self._config.drain_s)
        self._looked.set()
        self._tell(changed | self._gateways.take_changed())

    def _take_changes(self) -> set[str]:
        """The deployments of which something may have changed since the last look."""
        changed = self._fleets.changed()
        for fleet in changed:
            self._publisher.take(fleet)
        gone = self._fleets.forget(lambda key: bool(self._gateways.routed(key).workers))
        for key in gone:
            self._publisher.drop(key)
        return gone | {fleet.deployment for fleet in changed}

    def _take_ports(self) -> None:
        """Listen where services want it; the gateways have a port before a table names it."""
        if not self._gateways.running:
            return
        self._ports.want(self._publisher.wanted_ports)
        if self._ports.reconcile():
            self._gateways.listen_at(self._ports.listening)
            self._publisher.listen_at(frozenset(self._ports.listening))

    def _tell(self, changed: set[str]) -> None:
        if self._gateways.degraded != self._gateways_told:
            self._gateways_told = self._gateways.degraded
            changed = changed.union(self._fleets)
        self._observers.tell(changed)
        self._routing_listeners.tell(self.routing)
        self._port_listeners.tell(self._ports.refused)

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a look at things after which `condition` holds; whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._looked.clear()
            try:
                await within(self._looked.wait(), max(deadline - time.monotonic(), 0))
            except asyncio.TimeoutError:
                return condition()
        return True
