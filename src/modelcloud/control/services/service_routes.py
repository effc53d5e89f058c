"""Routes of services: paths that people choose, each leading to one service's prediction.

Must never: let a path in that is another's: a service's name, a route, an address of the platform.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.routable import refuse_ambiguous
from modelcloud.dataplane.paths import unfit_route
from modelcloud.errors import Conflict, InvalidInput
from modelcloud.store.tables import Deployment, Service, Version
from modelcloud.types import RouteAddress

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_METHODS = {"any": ("GET", "POST"), "GET": ("GET",), "POST": ("POST",)}


def address_of(service: Service) -> RouteAddress | None:
    """Where its route is; None without one."""
    if service.route is None:
        return None
    path, methods = f"/{service.route}", _METHODS[service.method]
    return RouteAddress(path=path, methods=methods, port=service.route_port)


def clean(route: str | None) -> str | None:
    """The path without its leading slash; None for none.

    Raises:
        InvalidInput: it is no path, or one of the platform's own.
    """
    if not route:
        return None
    path = route.removeprefix("/")
    accepted = unfit_route(path)
    if accepted:
        raise InvalidInput("route", repr(route[:80]), accepted)
    return path


def check(
    tx: Session, route: str | None, port: int, taken_ports: Iterable[int], but: Service | None
) -> None:
    """Refuse a route that leads elsewhere already. `taken_ports`: the platform's own.

    Raises:
        InvalidInput: the port is the platform's, or is there without a route.
        Conflict: the route, the first part of its path or the port is another's.
    """
    if route is None:
        if port:
            raise InvalidInput("route_port", f"{port} without a route", "0, or a route beside it")
        return
    if port and port in taken_ports:
        accepted = "0 for the platform's own address, or any other from 1 to 65535"
        raise InvalidInput("route_port", f"{port}, the platform's own", accepted)
    if port and tx.scalar(select(Service.id).where(Service.port == port)) is not None:
        raise Conflict(f"port {port} is a service's own; a route needs one without, or 0")
    same = select(Service).where(Service.route == route, Service.route_port == port)
    other = tx.scalar(same)
    if other is not None and other is not but:
        where = f"port {port}" if port else "the platform's address"
        raise Conflict(f"the route {route!r} at {where} is taken by another service")
    first = route.partition("/")[0]
    if not port and _named(tx, first):
        raise Conflict(f"the route {route!r} begins with the name of a service, {first!r}")


def refuse_name(tx: Session, name: str) -> None:
    """Raise Conflict if a route at the platform's address begins with what is to be a name."""
    routes = tx.scalars(
        select(Service.route).where(
            Service.route_port == 0,
            or_(
                func.lower(Service.route) == name.lower(),
                func.lower(Service.route).startswith(f"{name.lower()}/", autoescape=True),
            ),
        )
    ).first()
    if routes is not None:
        raise Conflict(f"the name is taken: there is a route {routes!r} on this instance")


def refuse_port(tx: Session, port: int) -> None:
    """Raise Conflict if routes are at what is to be a service's own port."""
    if tx.scalar(select(Service.id).where(Service.route_port == port).limit(1)) is not None:
        raise Conflict(f"port {port} is taken by routes of services")


def refuse_online(tx: Session, service: Service) -> None:
    """As `refuse_ambiguous`, for every version of the service that is online."""
    online = tx.execute(
        select(Version.number, Version.signature)
        .join(
            Deployment,
            (Deployment.service_id == Version.service_id) & (Deployment.version == Version.number),
        )
        .where(Version.service_id == service.id, Deployment.wanted == Wanted.ONLINE.value)
    )
    for number, signature in online:
        refuse_ambiguous(service.name, number, signature)


def _named(tx: Session, name: str) -> bool:
    found = select(Service.id).where(func.lower(Service.name) == name.lower())
    return tx.scalar(found) is not None
