"""All gateways of a node: kept running, and what they agree on.

Must never: call a table acknowledged that a living gateway has not taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from modelcloud.dataplane.messages import RouteTable, Stats
from modelcloud.node import sockets
from modelcloud.node.brake import LIMIT, WINDOW_S
from modelcloud.node.gateway import Gateway, GatewaySetup


class Gateways:
    """One gateway per listening socket. They start with `start` and end with `drain`."""

    def __init__(self, setup: GatewaySetup) -> None:
        self._setup = setup
        self._listeners: Sequence[socket.socket] = ()
        self._gateways: list[Gateway] = []
        self._clock = setup.clock
        self._running = False
        self._acknowledged = 0
        #: What each table since the acknowledged one routes to: generation → ids of workers.
        self._routes: dict[int, dict[int, tuple[int, ...]]] = {0: {}}
        self.table = RouteTable(snapshot=0)

    @property
    def listening(self) -> bool:
        """Whether every gateway accepts connections."""
        return bool(self._gateways) and all(gateway.listening for gateway in self._gateways)

    @property
    def answering(self) -> bool:
        """Whether any gateway accepts connections and has been heard of lately."""
        return any(gateway.answering for gateway in self._gateways)

    @property
    def alive(self) -> bool:
        """Whether any gateway process is left."""
        return any(gateway.alive for gateway in self._gateways)

    @property
    def deaths(self) -> int:
        """How many gateways have died so far."""
        return sum(gateway.deaths for gateway in self._gateways)

    @property
    def last_death(self) -> str:
        """How a gateway died, of those that are not back yet; empty if none."""
        down = (g.last_death for g in self._gateways if not g.listening and g.last_death)
        return next(down, "")

    @property
    def degraded(self) -> str:
        """Why there are fewer gateways than wanted; empty when the brake is off."""
        braked = [g.last_death for g in self._gateways if g.brake.on]
        if not braked:
            return ""
        return f"{braked[0]}; {LIMIT} or more deaths within {WINDOW_S:.0f} s, restarted slowly"

    @property
    def routed(self) -> dict[int, tuple[int, ...]]:
        """What the newest table that every living gateway has taken routes to."""
        return self._routes[self._acknowledged]

    @property
    def used_generations(self) -> frozenset[int]:
        """Generations that some gateway may still await an answer of."""
        uses = (use for gateway in self._gateways for use in gateway.uses.values())
        return frozenset(generation for generation, _ in uses)

    def uses(self, worker: int) -> bool:
        """Whether some gateway may still send to the worker or await its answer."""
        return any(worker in gateway.uses for gateway in self._gateways)

    def forget_all_but(self, workers: set[int]) -> None:
        """Only these workers exist: no answer of another can come any more."""
        for gateway in self._gateways:
            for worker in gateway.uses.keys() - workers:
                del gateway.uses[worker]

    def bind(self, listeners: Sequence[socket.socket]) -> None:
        """One gateway is to accept from each of these sockets, which are owned from now on."""
        self._listeners = listeners
        self._gateways = [Gateway(i, sock, self._setup) for i, sock in enumerate(listeners)]

    def start(self) -> None:
        """Start them all, and from now on those that die again."""
        sockets.listen(self._listeners)
        self._running = True
        self.reconcile()

    def publish(self, table: RouteTable) -> None:
        """Have all gateways route by `table`; its snapshot is greater than any before."""
        self.table = table
        routes: dict[int, tuple[int, ...]] = {}
        for service in table.services:
            for worker in service.workers:
                routes[worker.generation] = (*routes.get(worker.generation, ()), worker.id)
        self._routes[table.snapshot] = routes
        for gateway in self._gateways:
            gateway.publish(table)

    def reconcile(self, *, stalled: bool = False) -> None:
        """Check those that live, but for what the node itself missed; restart the others."""
        self._agree()
        if not self._running:
            return
        now = self._clock()
        for gateway in self._gateways:
            gateway.brake.relax(now)
            if stalled:
                gateway.forgive()
            if gateway.alive:
                gateway.check()
            elif gateway.brake.starts(now, 1):
                gateway.start(self.table)

    def _agree(self) -> None:
        living = [gateway.acknowledged for gateway in self._gateways if gateway.alive]
        if living:
            # A gateway that starts knows no older table, so an answer once given stands.
            self._acknowledged = max(self._acknowledged, min(living))
        for snapshot in [s for s in self._routes if s < self._acknowledged]:
            del self._routes[snapshot]

    async def stats(self, timeout_s: float) -> list[Stats]:
        """The counters of every gateway that answers in time."""
        found = await asyncio.gather(*(gateway.stats(timeout_s) for gateway in self._gateways))
        return [stats for stats in found if stats is not None]

    def drain(self, deadline_s: float) -> None:
        """Accept nobody any more, answer what is under way, end."""
        self._running = False
        for gateway in self._gateways:
            gateway.drain(deadline_s)

    def kill(self) -> None:
        """End them all at once."""
        for gateway in self._gateways:
            gateway.kill()

    async def close(self) -> None:
        """Cancel what nobody waits for any more."""
        for gateway in self._gateways:
            await gateway.close()
