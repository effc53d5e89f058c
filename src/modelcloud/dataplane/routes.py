"""The route table: from how services are to be reached, and what runs of them, to paths and pools.

Must never: know connections or processes, or remember anything: equal arguments, equal table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from modelcloud.config import Limits
from modelcloud.dataplane.messages import (
    AdminRoute,
    CommandRoute,
    PoolRoutes,
    RouteTable,
    Share,
    Site,
    WorkerAddress,
)
from modelcloud.types import (
    DeploymentRoute,
    Dispatch,
    RouteAddress,
    Routing,
    ServiceRouting,
)

#: What `/predict/<service>` calls if there is a command of this name; else the first one. A route
#: calls it too, else the only one there is.
PREDICT = "predict"


class RoutedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """A generation that is wanted `routed`.

    Attributes:
        number: of the generation.
        version: of its artifact.
        signature: `Signature.to_dict()`; while its own is not known, that of the generation
            before it in the deployment; empty when there is none either.
        workers: the ready ones.
        percent: of the deployment's requests that it gets; None: it shares what is left.
    """

    number: int
    version: int
    signature: dict[str, Any] = {}
    workers: tuple[WorkerAddress, ...] = ()
    percent: float | None = None


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of one deployment.

    Attributes:
        service: name of its service.
        generations: the routed ones, in any order.
        available: False: it has no worker, and none is to come soon.
        dispatch: how a worker is chosen.
    """

    service: str
    generations: tuple[RoutedGeneration, ...] = ()
    available: bool = True
    dispatch: Dispatch = Dispatch()

    @property
    def main(self) -> list[RoutedGeneration]:
        """The generations without a percentage of their own, oldest first."""
        return sorted((g for g in self.generations if g.percent is None), key=_number)

    @property
    def candidates(self) -> list[RoutedGeneration]:
        """The generations with one, oldest first."""
        return sorted((g for g in self.generations if g.percent is not None), key=_number)

    @property
    def current(self) -> int:
        """The version it stands at: that of its newest main generation; 0 without one."""
        return self.main[-1].version if self.main else 0


def build_table(
    *,
    snapshot: int,
    routing: Routing | None,
    deployments: Mapping[str, DeploymentState],
    limits: Limits,
    admin: Sequence[AdminRoute] = (),
    service_admin: Sequence[AdminRoute] = (),
    port_admin: Sequence[AdminRoute] = (),
) -> RouteTable:
    """The table by which gateways reach `deployments` as `routing` says.

    A service `at_root` has the addresses of serve mode at the main site, and no others there. A
    service with a port has them at the site of that port, beside all others. A web application is
    reached at such a root alone. The route of a service is at the site of its port, whose other
    addresses come before it. Where several deployments of a service answer the same version or
    label, it leads to the one whose current version it is, else to the last of them in `routing`.

    A deployment that `routing` does not name has a pool and no path; one that is not in
    `deployments` has neither, unless `routing` knows its commands: requests wait for it. While a
    deployment is not available, another one that shares its requests gets them all; a generation
    with a percentage gets none while no worker of it is ready.

    Args:
        snapshot: id of this table, greater than any before.
        routing: the services, and the deployments of each from old to new; None: nobody has said.
        deployments: what there is, by key.
        limits: queue length and deadline of each pool.
        admin: addresses at the main site that the node answers.
        service_admin: further ones for each service that is not `at_root`; `/meta` here is
            `/<service>/meta` there.
        port_admin: addresses at the root of a service's own port that the node answers.
    """
    main: list[CommandRoute] = []
    main_admin = list(admin)
    ports: dict[int, list[CommandRoute]] = {}
    roots: set[int] = set()
    services = () if routing is None else routing.services
    deployments = {**_awaited(services), **deployments}
    for service in services:
        reach = _Reach(service, deployments)
        if service.at_root:
            main += reach.at_root()
        else:
            main += reach.by_name()
            main_admin += [
                replace(route, path=f"/{service.service}{route.path}") for route in service_admin
            ]
        if service.port:
            roots.add(service.port)
            ports.setdefault(service.port, []).extend((*reach.by_name(), *reach.at_root()))
    for service in services:
        if service.route is not None:
            at = ports.setdefault(service.route.port, []) if service.route.port else main
            at[:0] = _Reach(service, deployments).at_route(service.route)
    return RouteTable(
        snapshot=snapshot,
        pools=tuple(
            pool for key, state in deployments.items() for pool in _pools(key, state, limits)
        ),
        sites=(
            _site(0, main, main_admin),
            *(
                _site(port, commands, port_admin if port in roots else ())
                for port, commands in ports.items()
            ),
        ),
        token_sets={
            service.service: service.tokens for service in services if service.tokens is not None
        },
        starting=routing is None,
    )


def _awaited(services: Iterable[ServiceRouting]) -> dict[str, DeploymentState]:
    """A state for each deployment that is known to offer something, as if it were about to come."""
    return {
        route.deployment: DeploymentState(
            service=service.service, generations=(RoutedGeneration(number=0, version=0),)
        )
        for service in services
        for route in service.deployments
        if route.commands
    }


def _site(port: int, commands: Sequence[CommandRoute], admin: Iterable[AdminRoute]) -> Site:
    web_app = any(route.whole_site for route in commands)
    return Site(
        port=port,
        commands=tuple(commands),
        admin=tuple(route for route in admin if not (web_app and route.yields)),
    )


def _number(generation: RoutedGeneration) -> int:
    return generation.number


# ---- pools


def _candidate_pool(key: str, generation: RoutedGeneration) -> str:
    return f"{key}@{generation.number}"


def _pools(key: str, state: DeploymentState, limits: Limits) -> Iterable[PoolRoutes]:
    """The deployment's pool, and one for each generation with a percentage."""

    def pool(name: str, generations: Iterable[RoutedGeneration], heir: str = "") -> PoolRoutes:
        return PoolRoutes(
            name=name,
            service=state.service,
            workers=tuple(worker for generation in generations for worker in generation.workers),
            available=state.available,
            heir=heir,
            dispatch=state.dispatch,
            queue=limits.queue,
            deadline_s=limits.deadline_s,
        )

    yield pool(key, state.main)
    for candidate in state.candidates:
        yield pool(_candidate_pool(key, candidate), [candidate], heir=key)


class _Offer(NamedTuple):
    """A pool as routes see it: its part of the requests, and the commands it knows by name."""

    pool: str
    part: float
    available: bool
    commands: dict[str, dict[str, Any]]

    def times(self, weight: float) -> _Offer:
        """The same with another part of the requests."""
        return self._replace(part=self.part * weight)


def _offers(route: DeploymentRoute, state: DeploymentState) -> list[_Offer]:
    """Those of one deployment, which share 1; its main pool is the last."""
    key = route.deployment
    offers = []
    left = 1.0
    for candidate in state.candidates:
        part = min((candidate.percent or 0.0) / 100, left) if candidate.workers else 0.0
        left -= part
        offers.append(
            _Offer(
                _candidate_pool(key, candidate), part, state.available, _commands(candidate, route)
            )
        )
    main = state.main
    known = _commands(main[-1], route) if main else offers[-1].commands if offers else {}
    return [*offers, _Offer(key, left if main else 0.0, state.available, known)]


def _commands(generation: RoutedGeneration, route: DeploymentRoute) -> dict[str, dict[str, Any]]:
    commands = generation.signature.get("commands", ()) or route.commands
    return {command["name"]: command for command in commands}


# ---- paths


class _Deployment(NamedTuple):
    """One deployment of a service: how it is to be reached, and its pools."""

    route: DeploymentRoute
    state: DeploymentState
    offers: list[_Offer]


class _Reach:
    """The routes to one service."""

    def __init__(self, service: ServiceRouting, deployments: Mapping[str, DeploymentState]) -> None:
        self._service = service
        self._deployments = [
            _Deployment(route, state, _offers(route, state))
            for route in service.deployments
            if (state := deployments.get(route.deployment)) is not None
        ]
        self._by_weight = [
            offer.times(deployment.route.weight)
            for deployment in self._deployments
            for offer in deployment.offers
        ]

    def at_root(self) -> list[CommandRoute]:
        """The addresses of serve mode."""
        name = self._service.service
        return [
            route
            for command in _names(self._by_weight)
            for route in self._to(self._by_weight, command, (f"/{command}", f"/{name}/{command}"))
        ]

    def at_route(self, address: RouteAddress) -> list[CommandRoute]:
        """The address that was chosen for it: every request there calls the model, a GET too."""
        names = [command for command, web_app in _names(self._by_weight).items() if not web_app]
        if PREDICT not in names and len(names) != 1:
            return []
        command = PREDICT if PREDICT in names else names[0]
        return [
            replace(route, methods=address.methods, about=b"")
            for route in self._to(self._by_weight, command, [address.path])
        ]

    def by_name(self) -> list[CommandRoute]:
        """The addresses below the service's name and below `/predict`; none of a web application.

        Whoever names a version or a label gets that deployment, whatever its weight.
        """
        routes = self._below([""], self._by_weight)
        owners = _owners(self._deployments)
        for deployment in self._deployments:
            words = [word for word, owner in owners.items() if owner is deployment]
            if words:
                routes += self._below([f"/{word}" for word in words], deployment.offers, deployment)
        return routes

    def _below(
        self, prefixes: Sequence[str], offers: Sequence[_Offer], only: _Deployment | None = None
    ) -> list[CommandRoute]:
        name = self._service.service
        names = [command for command, web_app in _names(offers).items() if not web_app]
        routes = [
            route
            for command in names
            for route in self._to(
                offers, command, [f"/{name}{prefix}/{command}" for prefix in prefixes], only
            )
        ]
        if names:
            first = PREDICT if PREDICT in names else names[0]
            paths = [f"/{PREDICT}/{name}{prefix}" for prefix in prefixes]
            routes += self._to(offers, first, paths, only, wrapped=True)
        return routes

    def _to(
        self, offers: Sequence[_Offer], command: str, paths: Sequence[str],
        only: _Deployment | None = None, *, wrapped: bool = False,
    ) -> list[CommandRoute]:  # fmt: skip
        """The route to a command at those of `offers` that have it; nothing if none gets a part."""
        having = [offer for offer in offers if command in offer.commands and offer.part > 0]
        having = [offer for offer in having if offer.available] or having
        if not having:
            return []
        known = [offer.commands[command] for offer in having]
        streams = any(c["streams"] for c in known)
        with_meta = any(c["withRequest"] for c in known)
        web_app = any(c["wholeSite"] for c in known)
        idempotent = all(c["idempotent"] for c in known)
        copied = idempotent and not (streams or with_meta or web_app)
        service = self._service
        return [
            CommandRoute(
                paths=() if web_app else tuple(paths),
                command=command,
                shares=tuple(Share(offer.pool, offer.part) for offer in having),
                sticky=service.sticky if len(having) > 1 else None,
                shadows=self._shadows(command, only) if copied else (),
                about=b"" if web_app else msgspec.json.encode(known[-1]),
                idempotent=idempotent,
                streams=streams,
                with_meta=with_meta,
                whole_site=web_app,
                wrapped=wrapped,
                tokens="" if service.tokens is None else service.service,
            )
        ]

    def _shadows(self, command: str, only: _Deployment | None) -> tuple[Share, ...]:
        return tuple(
            Share(offer.pool, offer.part * deployment.route.shadow)
            for deployment in self._deployments
            for offer in deployment.offers
            if deployment is not only and deployment.route.shadow * offer.part > 0
            and offer.available and command in offer.commands
            and offer.commands[command]["idempotent"]
        )  # fmt: skip


def _names(offers: Iterable[_Offer]) -> dict[str, bool]:
    """The commands of all offers, the newest's first, and whether each is a web application."""
    newest_first = reversed(list(offers))
    return {
        name: command["wholeSite"]
        for offer in newest_first
        if offer.part > 0
        for name, command in offer.commands.items()
    }


def _owners(deployments: Sequence[_Deployment]) -> dict[str, _Deployment]:
    """Version or label → the deployment it leads to."""
    owners: dict[str, _Deployment] = {}
    for deployment in deployments:  # from old to new
        for version in deployment.route.versions:
            owner = owners.get(str(version))
            if owner is None or owner.state.current != version:
                owners[str(version)] = deployment
        owners.update(dict.fromkeys(deployment.route.labels, deployment))
    return owners
