"""How the requests for a service are shared out: weights, labels, copies, what keeps clients.

Must never: move a request itself; the node makes routes from what is written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import delete, select

from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Action, Actor
from modelcloud.control.common.records import Record
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.deployment_forms import StickyBody, TrafficBody, check_label
from modelcloud.errors import InvalidInput
from modelcloud.store.tables import Deployment, Label, Service

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")


class TrafficRecord(Record):
    """How requests are shared out; what is at 0 gets those that name it only.

    Attributes:
        weights: version → weight beside the others', of what is online.
        labels: name → version.
        shadow: version → share of the others' requests that is copied to it, where there is one.
        revision: of the service; it changes with each edit.
    """

    weights: dict[str, float]
    labels: dict[str, int]
    shadow: dict[str, float]
    sticky: StickyBody | None
    revision: int


def get(tx: Session, actor: Actor, service_name: str) -> TrafficRecord:
    """How it is now.

    Raises:
        NotFound: there is no such service that the actor may see.
    """
    return _record(tx, deployments.service_of(tx, actor, service_name))


def put(
    tx: Session, actor: Actor, service_name: str, asked: TrafficBody, expected: Expected
) -> TrafficRecord:
    """Change it in one step.

    Raises:
        NotFound: no such service.
        Refused: the actor may not.
        InvalidInput: a version that is not deployed, no weight above 0, a copy to the only version.
        PreconditionFailed: the service was changed since.
    """
    service = deployments.service_of(tx, actor, service_name, Action.UPDATE)
    expected.check(service.revision, f"service {service_name!r}")
    there = _by_version(deployments.standings(tx, service))
    online = {version: row for version, (row, is_online) in there.items() if is_online}
    if asked.weights is not None:
        for row, weight in _named("weights", asked.weights, online):
            row.weight = weight
        if not any(row.weight for row in online.values()):
            raise InvalidInput("weights", "no weight above 0", "at least one of them above 0")
    if asked.labels is not None:
        _put_labels(tx, service, asked.labels, {v: row for v, (row, _) in there.items()})
    if asked.shadow is not None:
        _put_shadow(asked.shadow, online)
    if "sticky" in asked.model_fields_set:
        service.sticky = None if asked.sticky is None else asked.sticky.model_dump()
    service.revision += 1
    audit.note(
        tx, actor, Action.UPDATE, "traffic", service.name, service.group.name,
        detail=asked.model_dump_json(exclude_unset=True),
    )  # fmt: skip
    tx.flush()
    return _record(tx, service)


def _record(tx: Session, service: Service) -> TrafficRecord:
    found = deployments.standings(tx, service)
    versions = {standing.row.id: standing.row.version for standing in found}
    labels = tx.scalars(select(Label).where(Label.service_id == service.id).order_by(Label.name))
    online = [standing.row for standing in found if standing.online]
    return TrafficRecord(
        weights={str(row.version): row.weight for row in online},
        labels={
            label.name: versions[label.deployment_id]
            for label in labels
            if label.deployment_id in versions
        },
        shadow={str(row.version): row.shadow for row in online if row.shadow},
        sticky=None if service.sticky is None else StickyBody(**service.sticky),
        revision=service.revision,
    )


def _by_version(
    found: Iterable[deployments.Standing],
) -> dict[int, tuple[Deployment, bool]]:
    """The deployment at each version, the online one first, and whether it is online."""
    return {
        standing.row.version: (standing.row, standing.online)
        for standing in sorted(found, key=lambda s: (s.online, s.row.id))
    }


def _put_labels(
    tx: Session, service: Service, labels: dict[str, int], there: dict[int, Deployment]
) -> None:
    named = {
        check_label(name): row
        for name, version in labels.items()
        for row, _ in _named("labels", {str(version): None}, there)
    }
    tx.execute(delete(Label).where(Label.service_id == service.id))
    tx.add_all(
        Label(service_id=service.id, name=name, deployment_id=row.id) for name, row in named.items()
    )


def _put_shadow(shadow: dict[str, float], online: dict[int, Deployment]) -> None:
    copied = list(_named("shadow", shadow, online))
    if len(online) < 2 and any(share for _, share in copied):
        raise InvalidInput(
            "shadow", "a copy to the only version online", "a version beside another one"
        )
    for row in online.values():
        row.shadow = 0.0
    for row, share in copied:
        row.shadow = share


def _named(
    field: str, given: dict[str, T], there: dict[int, Deployment]
) -> Iterable[tuple[Deployment, T]]:
    """The deployments that are named by their version, each with what is given for it."""
    for name, value in given.items():
        row = there.get(int(name)) if name.isascii() and name.isdecimal() else None
        if row is None:
            accepted = ", ".join(str(version) for version in sorted(there)) or "none is there"
            raise InvalidInput(field, f"version {name[:40]!r}", f"versions {accepted}")
        yield row, value
