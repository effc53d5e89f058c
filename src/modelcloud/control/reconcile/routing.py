"""How every service is reached, from the rows of the store and what serves: a pure function.

Must never: know gateways or tables of routes; the node makes those from this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.reconcile.intents import ServiceIntent
from modelcloud.types import DeploymentRoute, RouteAddress, Routing, ServiceRouting, Sticky


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment that is wanted online.

    Attributes:
        answers: version numbers at which it may be asked: its own, and those it replaced.
        serves: whether it has a proven generation.
        commands: what that one offers, as it was registered.
    """

    id: int
    key: str
    version: int
    answers: tuple[int, ...]
    labels: tuple[str, ...]
    weight: float
    shadow: float
    serves: bool
    commands: tuple[dict[str, Any], ...] = ()


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `tokens` None: anyone may predict."""

    service: str
    port: int
    sticky: dict[str, Any] | None
    tokens: tuple[str, ...] | None
    places: tuple[Place, ...]
    route: RouteAddress | None = None


def routing(services: Iterable[Reached]) -> Routing:
    """The whole of it, the same for the same facts whatever their order."""
    return Routing(
        services=tuple(_service(s) for s in sorted(services, key=lambda s: s.service) if s.places)
    )


def reached(service: ServiceIntent, serves: Callable[[str], bool | None]) -> Reached:
    """A service with its places; `serves` says of a key whether there is a proven generation.

    None: nothing of this deployment is known to run.
    """
    return Reached(
        service=service.name,
        port=service.port,
        sticky=service.sticky,
        tokens=service.tokens,
        route=service.route,
        places=tuple(
            Place(
                id=intent.id,
                key=intent.key,
                version=intent.version,
                answers=intent.answers,
                labels=intent.labels,
                weight=intent.weight,
                shadow=intent.shadow,
                serves=known,
                commands=intent.commands,
            )
            for intent in service.deployments
            if intent.wanted is Wanted.ONLINE and (known := serves(intent.key)) is not None
        ),
    )


def _service(reached: Reached) -> ServiceRouting:
    places = sorted(reached.places, key=lambda place: place.id)
    versions, weights = _versions(places), _weights(places)
    return ServiceRouting(
        service=reached.service,
        deployments=tuple(
            DeploymentRoute(
                deployment=place.key,
                versions=versions[place.id],
                labels=tuple(sorted(place.labels)),
                weight=weights[place.id],
                shadow=place.shadow if place.serves else 0.0,
                commands=place.commands if place.serves else (),
            )
            for place in places
        ),
        sticky=Sticky(**reached.sticky) if reached.sticky else None,
        port=reached.port,
        tokens=None if reached.tokens is None else tuple(sorted(reached.tokens)),
        route=reached.route,
    )


def _versions(places: Sequence[Place]) -> dict[int, tuple[int, ...]]:
    """Who answers at which version's address.

    That is the deployment which serves the version itself; else one that replaced it, the latest
    deployed first; else one that is still to serve it.
    """
    owner: dict[int, Place] = {}
    for place in places:
        for number in {*place.answers, place.version}:
            if number not in owner or _claim(place, number) > _claim(owner[number], number):
                owner[number] = place
    return {
        place.id: tuple(sorted(n for n, owned in owner.items() if owned is place))
        for place in places
    }


def _claim(place: Place, number: int) -> tuple[bool, bool, int]:
    return place.serves, place.version == number, place.id


def _weights(places: Sequence[Place]) -> dict[int, float]:
    """Weights of those that serve; of all while none does.

    With none above 0 the one deployed first gets every request: an answer is better than none.
    """
    serving = [place for place in places if place.serves] or list(places)
    weights = dict.fromkeys((place.id for place in places), 0.0)
    weights.update({place.id: place.weight for place in serving})
    if not any(weights.values()):
        weights[serving[0].id] = 1.0
    return weights
