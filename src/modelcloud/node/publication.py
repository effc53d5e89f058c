"""What gateways are told: a route table, made of what is wanted and of what there is.

Must never: start, end or tell anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec.structs import replace

from modelcloud.config import Limits
from modelcloud.dataplane.messages import AdminRoute, RouteTable
from modelcloud.dataplane.routes import DeploymentState, RoutedGeneration, build_table
from modelcloud.node.fleet import Fleet
from modelcloud.types import Routing, ServiceRouting


class Routed(NamedTuple):
    """What requests for a deployment go to.

    Attributes:
        workers: generation → ids of those of its workers that get requests.
        percents: of these generations, those that get a percentage of their own.
    """

    workers: Mapping[int, tuple[int, ...]]
    percents: Mapping[int, float]


NOTHING = Routed({}, {})


class Publication(NamedTuple):
    """A route table, and what it routes to: key of a deployment → its part.

    `routing` is what `Publisher.route` gave for the way in which services are reached by it.
    """

    table: RouteTable
    routed: Mapping[str, Routed]
    routing: int = 0

    def differing(self, other: Publication) -> set[str]:
        """The deployments whose requests go elsewhere with the other."""
        if other is self:
            return set()
        keys = self.routed.keys() | other.routed.keys()
        return {key for key in keys if self.routed.get(key) != other.routed.get(key)}


class Publisher:
    """Makes the table anew when anything that it is made of has changed.

    Attributes:
        due: whether something has, since the last one.

    Args:
        limits: of each pool.
        admin: addresses that the node answers at its own address.
        service_admin: those below the name of each service that is not at the root there.
        port_admin: those at the root of each port that a service has for itself.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        admin: Sequence[AdminRoute],
        service_admin: Sequence[AdminRoute],
        port_admin: Sequence[AdminRoute],
    ) -> None:
        self.due = True
        self._limits = limits
        self._admin = admin
        self._service_admin = service_admin
        self._port_admin = port_admin
        self._routing: Routing | None = None  # nobody has said yet
        self._routings = 0
        self._ports: frozenset[int] = frozenset()
        self._states: dict[str, DeploymentState] = {}

    @property
    def starting(self) -> bool:
        """Whether nobody has said yet how services are reached."""
        return self._routing is None

    @property
    def wanted_ports(self) -> set[int]:
        """Those that services or their routes want."""
        services = () if self._routing is None else self._routing.services
        own = {service.port for service in services}
        return (own | {s.route.port for s in services if s.route is not None}) - {0}

    def route(self, routing: Routing) -> int:
        """Reach the services like this; what is made from now on has this number, or a greater."""
        if routing != self._routing:
            self._routing = routing
            self._routings += 1
            self.due = True
        return self._routings

    def listen_at(self, ports: frozenset[int]) -> None:
        """The gateways have these ports; a table names no others."""
        self.due |= ports != self._ports
        self._ports = ports

    def take(self, fleet: Fleet) -> None:
        """Renew what is known of a deployment."""
        state = _state_of(fleet)
        self.due |= state != self._states.get(fleet.deployment)
        self._states[fleet.deployment] = state

    def drop(self, deployment: str) -> None:
        """There is no such deployment any more."""
        self.due |= self._states.pop(deployment, None) is not None

    def make(self, snapshot: int) -> Publication:
        """The table of this moment: who comes and who goes do so together."""
        self.due = False
        routing = self._routing and Routing(
            services=tuple(_at_ports(service, self._ports) for service in self._routing.services)
        )
        table = build_table(
            snapshot=snapshot,
            routing=routing,
            deployments=self._states,
            limits=self._limits,
            admin=self._admin,
            service_admin=self._service_admin,
            port_admin=self._port_admin,
        )
        routed = {key: _routed_by(state) for key, state in self._states.items()}
        return Publication(table, routed, self._routings)


def _at_ports(service: ServiceRouting, ports: AbstractSet[int]) -> ServiceRouting:
    """How a service is reached while its gateways have these ports, and no others."""
    port, route = service.port, service.route
    if route is not None and route.port and route.port not in ports:
        route = None
    return replace(service, port=port if port in ports else 0, route=route)


def _state_of(fleet: Fleet) -> DeploymentState:
    """What a route table is made of."""
    return DeploymentState(
        service=fleet.service,
        generations=tuple(
            RoutedGeneration(
                number=generation.number,
                version=generation.wish.spec.version,
                signature=generation.signature or fleet.signature,
                workers=tuple(worker.address for worker in generation.ready),
                percent=generation.wish.percent,
            )
            for generation in fleet.routed
        ),
        available=fleet.promising,
        dispatch=fleet.desired.dispatch,
    )


def _routed_by(state: DeploymentState) -> Routed:
    """What requests for the deployment go to."""
    having = [generation for generation in state.generations if generation.workers]
    return Routed(
        {g.number: tuple(worker.id for worker in g.workers) for g in having},
        {g.number: g.percent for g in having if g.percent is not None},
    )
