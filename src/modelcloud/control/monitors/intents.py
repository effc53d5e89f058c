"""What a monitor is to do now, read from the store; and what it did, written to it.

Must never: wait, or look at a remote place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import select

from modelcloud.control.access.auth import actor_of
from modelcloud.control.access.permissions import Action, Actor, Refused, require
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments, lifecycle
from modelcloud.control.deployments.deploying import Accepted, deploy
from modelcloud.control.deployments.deployment_forms import DeployBody
from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.deployments import Standing
from modelcloud.control.deployments.generation_specs import Ground
from modelcloud.control.monitors import history
from modelcloud.control.monitors.history import Outcome
from modelcloud.control.monitors.monitor_forms import MonitorBody
from modelcloud.control.monitors.monitors import secrets_of, settings_of
from modelcloud.control.monitors.outcome import Decision, Target, Way, decide
from modelcloud.control.monitors.vault import Vault
from modelcloud.control.services import versions
from modelcloud.control.services.versions import VersionRecord
from modelcloud.errors import Conflict, Forbidden, NotFound
from modelcloud.monitors.mark import Seen
from modelcloud.store.tables import Monitor, Version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Newest(NamedTuple):
    """The newest version that a monitor brought, and the digest of its files."""

    number: int
    digest: str


class Intent(NamedTuple):
    """What a monitor is to do.

    Attributes:
        secrets: None where the caller knows them by the revision.
        pending: a version whose rollout is still to be begun.
        decision: how the next version goes online.
        surplus: versions that it brought and that go, newer ones being more than `keep`.
        failing: whether its last look failed, as people are told.
    """

    service: str
    name: str
    revision: int
    settings: MonitorBody
    secrets: dict[str, Any] | None
    paused: bool
    actor: Actor
    seen: Seen | None
    pending: int | None
    decision: Decision
    newest: Newest | None
    surplus: tuple[int, ...]
    failing: bool


def read(tx: Session, monitor_id: int, vault: Vault, known: int | None) -> Intent | None:
    """What it is to do now; None: it is gone.

    Args:
        tx: a transaction that reads.
        monitor_id: which.
        vault: of its credentials.
        known: the revision whose credentials the caller has.

    Raises:
        Forbidden: nobody is left in whose name it could act, or that user may not any more.
        UsageError: its credentials cannot be read.
    """
    row = tx.get(Monitor, monitor_id)
    if row is None:
        return None
    service, settings = row.service, settings_of(row)
    actor = _actor(tx, row)
    found = deployments.standings(tx, service)
    brought = tx.execute(
        select(Version.number, Version.artifact)
        .where(Version.monitor_id == row.id)
        .order_by(Version.number.desc())
    ).all()
    needed = {row.pending}.union(*(standing.needs for standing in found))
    return Intent(
        service=service.name,
        name=row.name,
        revision=row.revision,
        settings=settings,
        secrets=None if row.revision == known else secrets_of(row, vault),
        paused=row.paused,
        actor=actor,
        seen=None if row.seen is None else msgspec.convert(row.seen, Seen),
        pending=row.pending,
        decision=_decide(row, found),
        newest=Newest(*brought[0]) if brought else None,
        surplus=tuple(number for number, _ in brought[settings.keep :] if number not in needed),
        failing=bool(row.error),
    )


def registered(
    tx: Session, monitor_id: int, record: VersionRecord, seen: Seen, at: float, duration_s: float
) -> None:
    """Note a version, in the transaction that adds it; its rollout is then to be begun.

    Raises:
        Conflict: the monitor is gone, and the version is not to be.
        Forbidden: who it acts for may not any more; a pull may have lasted long.
    """
    row = tx.get(Monitor, monitor_id)
    if row is None:
        raise Conflict("the monitor was deleted meanwhile")
    _actor(tx, row)
    version = tx.scalars(
        select(Version).where(
            Version.service_id == row.service_id, Version.number == record.version
        )
    ).one()
    version.monitor_id = row.id
    row.seen, row.pending, row.changed_at = msgspec.to_builtins(seen), record.version, at
    row.error, row.error_at = "", None
    history.add(tx, row, at, duration_s, Outcome.REGISTERED, record.version)


def unchanged(
    tx: Session, monitor_id: int, version: int, seen: Seen, at: float, duration_s: float
) -> None:
    """Note that there were the same files again."""
    row = tx.get(Monitor, monitor_id)
    if row is not None:
        row.seen, row.error, row.error_at = msgspec.to_builtins(seen), "", None
        detail = f"the same files as version {version}"
        history.add(tx, row, at, duration_s, Outcome.UNCHANGED, version, detail)


def failed(tx: Session, monitor_id: int, message: str, at: float, duration_s: float) -> None:
    """Note a failure."""
    row = tx.get(Monitor, monitor_id)
    if row is not None:
        if not row.error:
            row.error_at = at
        row.error = message
        history.add(tx, row, at, duration_s, Outcome.FAILED, detail=message)


def recovered(tx: Session, monitor_id: int) -> None:
    """Note that the failure is over."""
    row = tx.get(Monitor, monitor_id)
    if row is not None:
        row.error, row.error_at = "", None


def put_online(tx: Session, monitor_id: int, ground: Ground, version: int, now: float) -> Accepted:
    """Begin the rollout of the version that is pending.

    Raises:
        Conflict: it cannot be now; the version stays pending.
        Forbidden: who it acts for may not any more.
        ModelcloudError: as `deploying.deploy`.
    """
    row = tx.get(Monitor, monitor_id)
    if row is None or row.pending != version:
        raise Conflict("the monitor was changed meanwhile")
    actor = _actor(tx, row)
    service, settings = row.service, settings_of(row)
    found = deployments.standings(tx, service)
    way = _decide(row, found).way
    if way in {Way.NOT, Way.WAIT}:
        raise Conflict("the deployment of its versions was changed meanwhile")
    if way is Way.REPLACE:
        replaced = _standing(row, found)
        assert replaced is not None
        asked = DeployBody(
            version=version, mode="replace", replaces=replaced.row.version,
            strategy=settings.strategy,
        )  # fmt: skip
    else:
        if way is Way.AFRESH and (failed_one := _standing(row, found)) is not None:
            lifecycle.delete(tx, actor, service.name, failed_one.row.version)
        asked = DeployBody(version=version, **settings.deploy.model_dump(exclude_unset=True))
    accepted = deploy(tx, actor, ground, service.name, asked, now)
    row.pending, row.deployment_id = None, accepted.deployment.id
    event = history.of_version(tx, row, version)
    if event is not None and accepted.rollout is not None:
        event.rollout_id = accepted.rollout.id
    return accepted


def leave_offline(tx: Session, monitor_id: int, version: int, reason: str) -> None:
    """Note that a version stays registered, and why it does not go online."""
    row = tx.get(Monitor, monitor_id)
    if row is not None and row.pending == version:
        row.pending = None
        event = history.of_version(tx, row, version)
        if event is not None:
            event.detail = reason


def prune(tx: Session, intent: Intent) -> list[int]:
    """Remove its surplus; returns what stays all the same, as it is needed or another's."""
    stays = []
    for number in intent.surplus:
        try:  # which changes nothing where it raises
            versions.delete(tx, intent.actor, intent.service, number, Expected())
        except (Conflict, NotFound, Refused):  # noqa: PERF203 — each goes by itself
            stays.append(number)
    return stays


# ---- inside


def _actor(tx: Session, row: Monitor) -> Actor:
    """In whose name it acts, as they stand now."""
    actor = None if row.acts_as is None else actor_of(tx, row.acts_as, f"monitor {row.name}")
    if actor is None:
        raise Forbidden(
            "the user in whose name it acts is gone or disabled; whoever changes the monitor "
            "takes their place"
        )
    for action in (Action.REGISTER, Action.DEPLOY):
        require(actor, action, deployments.resource_of(row.service))
    return actor


def _standing(row: Monitor, found: list[Standing]) -> Standing | None:
    return next((s for s in found if s.row.id == row.deployment_id), None)


def _decide(row: Monitor, found: list[Standing]) -> Decision:
    standing = _standing(row, found)
    target = None
    if standing is not None:
        target = Target(
            version=standing.row.version,
            wanted=Wanted(standing.row.wanted),
            serves=standing.serves,
            moving=bool(standing.unfinished),
        )
    return decide(row.deployment_id is not None, target)
