"""All gateways of a node: kept running, and what they agree on.

Must never: call a table acknowledged that a living gateway has not taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from modelcloud.dataplane.messages import RouteTable, Stats
from modelcloud.node import sockets
from modelcloud.node.brake import LIMIT, WINDOW_S
from modelcloud.node.gateway import Gateway, GatewaySetup
from modelcloud.node.publication import NOTHING, Publication, Routed


class Gateways:
    """One gateway per listening socket. They start with `start` and end with `drain`."""

    def __init__(self, setup: GatewaySetup) -> None:
        self._setup = setup
        self._listeners: Sequence[socket.socket] = ()
        self._gateways: list[Gateway] = []
        self._clock = setup.clock
        self._running = False
        self._published = Publication(RouteTable(snapshot=0), {})
        self._acknowledged = self._published
        #: By snapshot: the tables since the acknowledged one.
        self._publications = {0: self._published}
        self._changed: set[str] = set()

    @property
    def listening(self) -> bool:
        """Whether every gateway accepts connections."""
        return bool(self._gateways) and all(gateway.listening for gateway in self._gateways)

    @property
    def answering(self) -> bool:
        """Whether any gateway accepts connections and has been heard of lately."""
        return any(gateway.answering for gateway in self._gateways)

    @property
    def running(self) -> bool:
        """Whether they were started, and are to stay."""
        return self._running

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
    def snapshot(self) -> int:
        """The id of the newest table."""
        return self._published.table.snapshot

    def routed(self, deployment: str) -> Routed:
        """What the newest table that every living gateway has taken routes its requests to."""
        return self._acknowledged.routed.get(deployment, NOTHING)

    @property
    def routing(self) -> int:
        """The number of the routing that the newest table has which every living gateway took."""
        return self._acknowledged.routing

    def uses(self, worker: int) -> bool:
        """Whether some gateway may still send to the worker or await its answer."""
        return any(worker in gateway.uses for gateway in self._gateways)

    def take_changed(self) -> set[str]:
        """The deployments of which `routed` or `uses` may tell something else than last time."""
        changed, self._changed = self._changed, set()
        for gateway in self._gateways:
            changed |= gateway.released
            gateway.released = set()
        return changed

    def forget_all_but(self, workers: set[int]) -> None:
        """Only these workers exist: no answer of another can come any more."""
        for gateway in self._gateways:
            gateway.forget(gateway.uses.keys() - workers)

    def bind(self, listeners: Sequence[socket.socket]) -> None:
        """One gateway is to accept from each of these sockets, which are owned from now on."""
        self._listeners = listeners
        self._gateways = [Gateway(i, sock, self._setup) for i, sock in enumerate(listeners)]

    def start(self) -> None:
        """Start them all, and from now on those that die again."""
        sockets.listen(self._listeners)
        self._running = True
        self.reconcile()

    def listen_at(self, ports: Mapping[int, Sequence[socket.socket]]) -> None:
        """Each is to accept from its socket of these ports too, and of no other port."""
        for number, gateway in enumerate(self._gateways):
            gateway.listen_at({port: found[number] for port, found in ports.items()})

    def publish(self, publication: Publication) -> None:
        """Have all gateways route by it; its snapshot is greater than any before."""
        self._changed |= self._published.differing(publication)
        self._published = publication
        self._publications[self.snapshot] = publication
        for gateway in self._gateways:
            gateway.publish(publication)

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
                gateway.start(self._published)

    def _agree(self) -> None:
        living = [gateway.acknowledged for gateway in self._gateways if gateway.alive]
        if living:
            # A gateway that starts knows no older table, so an answer once given stands.
            newest = self._publications[max(self._acknowledged.table.snapshot, min(living))]
            self._changed |= self._acknowledged.differing(newest)
            self._acknowledged = newest
        for snapshot in [s for s in self._publications if s < self._acknowledged.table.snapshot]:
            del self._publications[snapshot]

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
