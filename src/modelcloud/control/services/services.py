"""Services: their names, groups and ports, and how they stand.

Must never: move a service to another group, or ask once for each of many.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session, contains_eager, load_only

from modelcloud.control.access import audit, groups
from modelcloud.control.access.permissions import Action, Actor, Resource, readable_groups, require
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.deployment_states import Status, Wanted, status_of
from modelcloud.control.deployments.deployments import resource_of, service_of
from modelcloud.control.services import artifacts, service_routes
from modelcloud.control.services.version_forms import NewService, check_service_name
from modelcloud.errors import Conflict, InvalidInput
from modelcloud.store.tables import Deployment, Group, Label, Service, Version
from modelcloud.types import State

#: The word of a service is the first of these that one of its deployments has.
_ORDER = (Status.SERVING, Status.DEPLOYING, Status.FAILED, Status.OFFLINE)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which services; those that are None do not matter. `q`: a part of the name or description."""

    group: str | None = None
    state: str | None = None
    q: str | None = None


class DeployedVersion(Record):
    """A deployment in short. `answers`: the versions at whose addresses it may be asked."""

    version: int
    state: State
    status: Status
    reason: str
    replicas: int
    weight: float
    labels: list[str]
    answers: list[int]


class ServiceRecord(Record):
    """A service.

    Attributes:
        status: `Serving` if a deployment is, else `Deploying` or `Failed` if one is.
        address: where predictions are asked for, below the platform's address.
        port: of its own; None: none. `port_problem`: why it, or the route's, cannot be had; it is
            tried again.
        route: a path, without the leading slash, at which its prediction is asked for too.
        method: `any`, or the only one that the route answers.
        route_port: where the route is; 0: at the platform's address.
        source: what keeps it as it is, such as a conf.ini; empty: people.
        versions: how many are registered; `latest` is the highest number, 0 without any.
        deployments: those that are there, by version.
    """

    name: str
    group: str
    description: str
    status: Status
    address: str
    port: int | None
    port_problem: str = ""
    route: str | None = None
    method: str = "any"
    route_port: int = 0
    source: str = ""
    sticky: dict[str, Any] | None
    versions: int
    latest: int
    deployments: list[DeployedVersion]
    created_by: str
    created_at: Time
    revision: int


def listing(tx: Session, actor: Actor, wanted: Filter, page: Page) -> Listing[ServiceRecord]:
    """The services that the actor may read, by name, with their deployments: four queries.

    Raises:
        InvalidInput: there is no such state.
    """
    query = (
        select(Service)
        .join(Service.group)
        .options(contains_eager(Service.group))
        .order_by(Service.name)
        .limit(page.limit + 1)
    )
    readable = readable_groups(actor)
    if readable is not None:
        query = query.where(Service.group_id.in_(readable))
    if wanted.group is not None:
        query = query.where(Group.name == wanted.group)
    if wanted.q:
        query = query.where(
            Service.name.icontains(wanted.q, autoescape=True)
            | Service.description.icontains(wanted.q, autoescape=True)
        )
    if wanted.state is not None:
        there = (Deployment.service_id == Service.id) & (Deployment.wanted != Wanted.DELETED.value)
        status = _status(wanted.state)
        states = [state.value for state in State if status_of(state) is status]
        found = select(Deployment.id).where(there, Deployment.state.in_(states)).exists()
        none = ~select(Deployment.id).where(there).exists()
        query = query.where(found | none if status is Status.OFFLINE else found)
    if page.cursor is not None:
        query = query.where(Service.name > page.cursor)
    rows = tx.scalars(query).all()
    records = _records(tx, rows[: page.limit])
    return page.cut(rows, lambda row: records[row.id], lambda row: row.name)


def one(tx: Session, actor: Actor, name: str) -> ServiceRecord:
    """One of them.

    Raises:
        NotFound: there is none that the actor may see.
    """
    return record(tx, service_of(tx, actor, name))


def create(
    tx: Session, actor: Actor, asked: NewService, taken_ports: Iterable[int]
) -> ServiceRecord:
    """Make a service without versions. `taken_ports`: at which the platform itself listens.

    Raises:
        NotFound: no such group that the actor may see.
        Refused: the actor may not register there.
        InvalidInput: it is no name, or the port is the platform's.
        Conflict: the name or the port is taken.
    """
    return record(tx, add(tx, actor, asked, taken_ports))


def add(tx: Session, actor: Actor, asked: NewService, taken_ports: Iterable[int]) -> Service:
    """The row of a new service. Raises as `create` does."""
    group = check_new(tx, actor, asked, taken_ports)
    service = Service(
        name=asked.name,
        group=group,
        description=asked.description,
        port=asked.port,
        route=service_routes.clean(asked.route),
        method=asked.method,
        route_port=asked.route_port,
        source=asked.source,
        sticky=None,
        next_version=1,
        next_generation=1,
        created_by=actor.name,
        created_at=time.time(),
        revision=1,
    )
    tx.add(service)
    tx.flush()
    audit.note(tx, actor, "services.create", "service", asked.name, group.name)
    return service


def check_new(tx: Session, actor: Actor, asked: NewService, taken_ports: Iterable[int]) -> Group:
    """The group, if the actor may make such a service in it. Raises as `create` does."""
    group = groups.find(tx, actor, asked.group)
    resource = Resource(group_id=group.id, kind="service", name=asked.name, group=group.name)
    require(actor, Action.REGISTER, resource)
    check_service_name(asked.name)
    taken = tx.scalar(select(Service.name).where(func.lower(Service.name) == asked.name.lower()))
    if taken is not None:
        raise Conflict(f"the name is taken: there is a service {taken!r} on this instance")
    service_routes.refuse_name(tx, asked.name)
    _check_port(tx, asked.port, taken_ports, but=None)
    route = service_routes.clean(asked.route)
    service_routes.check(tx, route, asked.route_port, taken_ports, but=None)
    if asked.route_port and asked.route_port == asked.port:
        raise Conflict(f"port {asked.port} cannot be both the service's own and its route's")
    if route and not asked.route_port and route.partition("/")[0].lower() == asked.name.lower():
        raise Conflict(f"the route {route!r} begins with the name of the service itself")
    return group


def edit(
    tx: Session, actor: Actor, name: str, changes: dict[str, Any], expected: Expected,
    taken_ports: Iterable[int],
) -> ServiceRecord:  # fmt: skip
    """Change description, port, route or source, as far as they are in `changes`.

    Raises:
        NotFound: there is none that the actor may see.
        Refused: the actor may not.
        InvalidInput: the port is the platform's.
        Conflict: the port or the route is another service's, a web application needs the port, or
            a version online has no command for a route.
        PreconditionFailed: it was changed in the meantime.
    """
    service = service_of(tx, actor, name, Action.EDIT_SERVICE)
    expected.check(service.revision, f"service {name!r}")
    if "port" in changes and changes["port"] != service.port:
        _check_port(tx, changes["port"], taken_ports, but=service)
        if changes["port"] is None:
            _refuse_web_application(tx, service)
        service.port = changes["port"]
    if _ROUTE & changes.keys():
        _edit_route(tx, service, changes, taken_ports)
    service.description = changes.get("description", service.description)
    service.source = changes.get("source", service.source)
    service.revision += 1
    detail = ", ".join(
        f"{name} {getattr(service, name)}" if name != "description" else name for name in changes
    )
    audit.note(tx, actor, Action.EDIT_SERVICE, "service", name, service.group.name, detail=detail)
    return record(tx, service)


def delete(tx: Session, actor: Actor, name: str, expected: Expected) -> None:
    """Remove a service with all its versions and deployments.

    What runs of it is then ended by the reconcilers, which are to be told.

    Raises:
        NotFound: there is none that the actor may see.
        Refused: the actor may not; some of it is another's.
        PreconditionFailed: it was changed in the meantime.
    """
    service = service_of(tx, actor, name)
    rows = [standing.row for standing in deployments.standings(tx, service)]
    registrars = tx.scalars(
        select(Version.created_by).where(Version.service_id == service.id).distinct()
    )
    owners = {service.created_by, *registrars, *(row.deployed_by for row in rows)}
    resource = msgspec.structs.replace(resource_of(service), owners=frozenset(owners))
    require(actor, Action.DELETE, resource)
    expected.check(service.revision, f"service {name!r}")
    detail = f"with {len(rows)} deployments"
    audit.note(tx, actor, Action.DELETE, "service", name, service.group.name, detail=detail)
    tx.delete(service)
    tx.flush()
    artifacts.forget_unused(tx)


def record(tx: Session, service: Service) -> ServiceRecord:
    """The record of one service."""
    return _records(tx, [service])[service.id]


# ---- inside

_ROUTE = {"route", "method", "route_port"}


def _edit_route(
    tx: Session, service: Service, changes: dict[str, Any], taken_ports: Iterable[int]
) -> None:
    route = service_routes.clean(changes.get("route", service.route))
    port = changes.get("route_port", service.route_port if route else 0)
    if (route, port) != (service.route, service.route_port):
        service_routes.check(tx, route, port, taken_ports, but=service)
        if route is not None and service.route is None:
            service_routes.refuse_online(tx, service)
    service.route, service.route_port = route, port
    service.method = changes.get("method", service.method)


def _records(tx: Session, services: Sequence[Service]) -> dict[int, ServiceRecord]:
    """The records of some services, by their ids."""
    ids = [service.id for service in services]
    counts = {
        service_id: (count, latest)
        for service_id, count, latest in tx.execute(
            select(Version.service_id, func.count(), func.max(Version.number))
            .where(Version.service_id.in_(ids))
            .group_by(Version.service_id)
        )
    }
    labels: dict[int, list[str]] = {}
    for label in tx.scalars(select(Label).where(Label.service_id.in_(ids)).order_by(Label.name)):
        labels.setdefault(label.deployment_id, []).append(label.name)
    deployed: dict[int, list[DeployedVersion]] = {}
    for row in tx.scalars(
        select(Deployment)
        .where(Deployment.service_id.in_(ids), Deployment.wanted != Wanted.DELETED.value)
        .options(load_only(*_COLUMNS))
        .order_by(Deployment.version, Deployment.id)
    ):
        deployed.setdefault(row.service_id, []).append(_deployed(row, labels.get(row.id, [])))
    return {
        service.id: _record(service, *counts.get(service.id, (0, 0)), deployed.get(service.id, []))
        for service in services
    }


#: Of a deployment, all that is shown here; its facts are long.
_COLUMNS = (
    Deployment.service_id, Deployment.version, Deployment.state, Deployment.reason,
    Deployment.replicas, Deployment.weight, Deployment.answers,
)  # fmt: skip


def _deployed(row: Deployment, labels: list[str]) -> DeployedVersion:
    state = State(row.state)
    return DeployedVersion(
        version=row.version,
        state=state,
        status=status_of(state),
        reason=row.reason,
        replicas=row.replicas,
        weight=row.weight,
        labels=labels,
        answers=row.answers,
    )


def _record(
    service: Service, versions: int, latest: int, deployed: list[DeployedVersion]
) -> ServiceRecord:
    words = {deployment.status for deployment in deployed}
    return ServiceRecord(
        name=service.name,
        group=service.group.name,
        description=service.description,
        status=next((word for word in _ORDER if word in words), Status.OFFLINE),
        address=f"/predict/{service.name}",
        port=service.port,
        route=service.route,
        method=service.method,
        route_port=service.route_port,
        source=service.source,
        sticky=service.sticky,
        versions=versions,
        latest=latest,
        deployments=deployed,
        created_by=service.created_by,
        created_at=service.created_at,
        revision=service.revision,
    )


def _status(word: str) -> Status:
    for status in Status:
        if word.lower() == status.value.lower():
            return status
    raise InvalidInput("state", repr(word[:40]), ", ".join(status.value for status in Status))


def _check_port(
    tx: Session, port: int | None, taken_ports: Iterable[int], but: Service | None
) -> None:
    if port is None:
        return
    if port in taken_ports:
        raise InvalidInput("port", f"{port}, the platform's own", "any other from 1 to 65535")
    other = tx.scalar(select(Service).where(Service.port == port))
    if other is not None and other is not but:
        raise Conflict(f"port {port} is taken by another service")
    service_routes.refuse_port(tx, port)


def _refuse_web_application(tx: Session, service: Service) -> None:
    signatures = tx.execute(
        select(Version.number, Version.signature)
        .join(
            Deployment,
            (Deployment.service_id == Version.service_id) & (Deployment.version == Version.number),
        )
        .where(Version.service_id == service.id, Deployment.wanted == Wanted.ONLINE.value)
    )
    for number, signature in signatures:
        if any(command.get("wholeSite") for command in signature.get("commands", ())):
            raise Conflict(
                f"version {number} of {service.name!r} is a web application that is online and "
                "needs the port; take it offline first"
            )
