"""What the store wants of every deployment, read at once and handed to reconcilers as plain data.

Must never: change a row, or hold an object of the store's session.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select, tuple_

from modelcloud.control.access import tokens
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.generation_specs import key_of
from modelcloud.control.services import service_routes
from modelcloud.rollout.records import Rollout
from modelcloud.store.tables import Deployment, Label, RolloutRow, Service, Version
from modelcloud.types import Dispatch, RouteAddress

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class DeploymentIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment's row.

    Attributes:
        commands: what the version that serves offers, as it was registered.
        facts: as `rollout.snapshot.from_json` reads them; {} before any.
        unfinished: its rollouts that are not over, oldest first.
    """

    id: int
    key: str
    service: str
    version: int
    wanted: Wanted
    reason: str
    replicas: int
    dispatch: Dispatch
    keep_warm_s: float
    answers: tuple[int, ...]
    labels: tuple[str, ...]
    weight: float
    shadow: float
    commands: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    unfinished: tuple[Rollout, ...]


class ServiceIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A service's row, with its deployments. `tokens` None: anyone may predict."""

    name: str
    port: int
    sticky: dict[str, Any] | None
    tokens: tuple[str, ...] | None
    deployments: tuple[DeploymentIntent, ...]
    route: RouteAddress | None = None


class Intents(msgspec.Struct, frozen=True):
    """All that was asked for; `until`: when the first token expires, seconds since the epoch."""

    services: tuple[ServiceIntent, ...]
    until: float | None


def read(tx: Session, now: float, name: str | None = None) -> Intents:
    """What is wanted of the service of this name, or of all."""
    query = select(Service).order_by(Service.id)
    if name is not None:
        query = query.where(Service.name == name)
    services = tx.scalars(query).all()
    numbers = [service.id for service in services]
    rows = tx.scalars(
        select(Deployment).where(Deployment.service_id.in_(numbers)).order_by(Deployment.id)
    ).all()
    labels = tx.scalars(select(Label).where(Label.service_id.in_(numbers))).all()
    unfinished = rollouts.unfinished(tx, numbers)
    offered = _offered(tx, rows)
    closed = tokens.predictors(tx, now)
    return Intents(
        tuple(
            ServiceIntent(
                name=service.name,
                port=service.port or 0,
                sticky=service.sticky,
                tokens=closed.digests.get(service.group_id),
                deployments=tuple(
                    _deployment(service, row, labels, unfinished, offered.get(row.id, ()))
                    for row in rows
                    if row.service_id == service.id
                ),
                route=service_routes.address_of(service),
            )
            for service in services
        ),
        closed.until,
    )


def _offered(tx: Session, rows: Iterable[Deployment]) -> dict[int, tuple[dict[str, Any], ...]]:
    """Id of a deployment that serves → the commands of the version it serves."""
    serving = {
        row.id: (row.service_id, row.facts["serving"]["version"])
        for row in rows
        if row.wanted == Wanted.ONLINE.value and row.facts.get("serving")
    }
    found = tx.execute(
        select(Version.service_id, Version.number, Version.signature).where(
            tuple_(Version.service_id, Version.number).in_(set(serving.values()))
        )
    )
    commands = {(s, number): tuple(what.get("commands", ())) for s, number, what in found}
    return {id_: commands[version] for id_, version in serving.items() if version in commands}


def _deployment(
    service: Service,
    row: Deployment,
    labels: Iterable[Label],
    unfinished: Iterable[RolloutRow],
    commands: tuple[dict[str, Any], ...],
) -> DeploymentIntent:
    key = key_of(service.name, row.id)
    return DeploymentIntent(
        id=row.id,
        key=key,
        service=service.name,
        version=row.version,
        wanted=Wanted(row.wanted),
        reason=row.reason,
        replicas=row.replicas,
        dispatch=msgspec.convert(row.dispatch, Dispatch),
        keep_warm_s=row.keep_warm_s,
        answers=tuple(row.answers),
        labels=tuple(label.name for label in labels if label.deployment_id == row.id),
        weight=row.weight,
        shadow=row.shadow,
        commands=commands,
        facts=row.facts,
        unfinished=tuple(
            rollouts.revive(rollout, service.name, key)
            for rollout in unfinished
            if rollout.deployment_id == row.id
        ),
    )
