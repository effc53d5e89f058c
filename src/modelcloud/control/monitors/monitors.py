"""Monitors as the store has them: made, changed, paused, removed, listed.

Must never: show a credential, or let somebody change what acts in another's name.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from modelcloud.config import PlatformConfig
from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Action, Actor, Resource, readable_groups, require
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments
from modelcloud.control.deployments.deployments import resource_of, service_of
from modelcloud.control.monitors.monitor_forms import (
    MonitorBody,
    MonitorChanges,
    check,
    place_of,
    split,
)
from modelcloud.control.monitors.vault import Vault
from modelcloud.errors import Conflict, InvalidInput, NotFound, UsageError
from modelcloud.store.tables import Deployment, InstanceType, Monitor, Service, User, Version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MAX_OF_A_SERVICE = 20
_OF_THE_SOURCE = (
    "type", "remote_path", "general_host", "fs_name", "ftp_host", "ftp_port", "ftp_username",
    "storage_options", "known_hosts",
)  # fmt: skip


class MonitorRecord(Record):
    """A monitor.

    Attributes:
        place: the remote folder in one line, by which it may be trusted.
        settings: what it was made with, but for credentials.
        secrets: the names of credentials that are kept.
        version: the newest that it brought.
        deployment: the version that is online now where its versions go; None: nowhere yet.
        acts_as: in whose name; None: of nobody any more, and it does nothing.
        error: why its last look failed, since `error_at`; empty: it did not.
        changed_at: when it last brought a version.
        activity: `waiting`, `looking`, `pulling`, `registering`, `deploying`, `rolling out` (until
            the rollout is over it does not look), `paused`; `starting` right after it was made.
        looked_at, next_look_at: of this control plane; None: not yet, or none to come.
    """

    id: int
    service: str
    group: str
    name: str
    type: str
    place: str
    settings: dict[str, Any]
    secrets: list[str]
    paused: bool
    version: int | None
    deployment: int | None
    acts_as: str | None
    error: str
    error_at: Time | None
    changed_at: Time | None
    created_by: str
    created_at: Time
    revision: int
    activity: str = "starting"
    looked_at: Time | None = None
    next_look_at: Time | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What of the platform counts for every monitor."""

    config: PlatformConfig
    vault: Vault


def listing(tx: Session, actor: Actor, service_name: str) -> Listing[MonitorRecord]:
    """The monitors of a service, by name; there are few.

    Raises:
        NotFound: there is no such service that the actor may see.
    """
    service = service_of(tx, actor, service_name)
    query = select(Monitor).where(Monitor.service_id == service.id).order_by(Monitor.name)
    return Listing(items=[_record(tx, row) for row in tx.scalars(query)])


def readable(tx: Session, actor: Actor, page: Page) -> Listing[MonitorRecord]:
    """The monitors of all services that the actor may read, oldest first."""
    query = select(Monitor).order_by(Monitor.id).limit(page.limit + 1)
    groups = readable_groups(actor)
    if groups is not None:
        query = query.join(Monitor.service).where(Service.group_id.in_(groups))
    if page.after is not None:
        query = query.where(Monitor.id > page.after)
    rows = tx.scalars(query).all()
    return page.cut(rows, lambda row: _record(tx, row), lambda row: row.id)


def one(tx: Session, actor: Actor, service_name: str, name: str) -> MonitorRecord:
    """One of them.

    Raises:
        NotFound: there is no such service that the actor may see, or no such monitor.
    """
    return _record(tx, find(tx, service_of(tx, actor, service_name), name))


def find(tx: Session, service: Service, name: str) -> Monitor:
    """The row.

    Raises:
        NotFound: there is none.
    """
    row = tx.scalar(select(Monitor).where(Monitor.service_id == service.id, Monitor.name == name))
    if row is None:
        raise NotFound(f"service {service.name!r} has no monitor {name!r}")
    return row


def create(
    tx: Session, actor: Actor, rules: Rules, service_name: str, asked: MonitorBody
) -> MonitorRecord:
    """Make one; it acts in the actor's name.

    Raises:
        NotFound: no such service that the actor may see, or `replaces` is not deployed.
        Refused: the actor may not.
        UsageError: the settings do not fit; the message names the field.
        Conflict: the name is taken, or the service has as many as it may.
    """
    service = service_of(tx, actor, service_name, Action.MONITOR)
    given, secrets = split(asked)
    name, paused = given.pop("name"), given.pop("paused", False)
    check(asked, secrets, rules.config)
    names = tx.scalars(select(Monitor.name).where(Monitor.service_id == service.id)).all()
    if name in names:
        raise Conflict(f"service {service_name!r} has a monitor {name!r} already")
    if len(names) >= MAX_OF_A_SERVICE:
        raise Conflict(f"a service has {MAX_OF_A_SERVICE} monitors at most")
    row = Monitor(
        service=service,
        name=name,
        settings=given,
        acts_as=actor.user_id,
        paused=paused,
        deployment_id=_deployment_id(tx, service, asked.replaces),
        created_by=actor.name,
        created_at=time.time(),
        revision=1,
    )
    _keep_secrets(row, rules.vault, secrets)
    _check_instance_type(tx, row, asked)
    tx.add(row)
    tx.flush()
    _note(tx, actor, row, f"made: {place_of(asked)}")
    return _record(tx, row)


def edit(
    tx: Session,
    actor: Actor,
    rules: Rules,
    service_name: str,
    name: str,
    changes: MonitorChanges,
    expected: Expected,
) -> MonitorRecord:
    """Change settings; from then on it acts in the actor's name.

    With another place what it saw before no longer counts, and credentials are not kept: nobody
    is to have them sent where they were not meant to go.

    Raises:
        NotFound: no such service that the actor may see, no such monitor, or `replaces` is not
            deployed.
        Refused: the actor may not.
        UsageError: the settings do not fit; the message names the field.
        PreconditionFailed: it was changed in the meantime.
    """
    row = _editable(tx, actor, service_name, name)
    expected.check(row.revision, f"monitor {name!r} of {service_name!r}")
    given, new_secrets = split(changes)
    before = settings_of(row)
    settings = {**row.settings, **given}
    now = MonitorBody(name=name, **settings)
    secrets = {} if _asks(now) != _asks(before) else _kept(row, rules.vault, given=new_secrets)
    secrets |= new_secrets
    check(now, secrets, rules.config)
    if _watches(now) != _watches(before):
        row.seen = None
    if "replaces" in given:
        row.deployment_id = _deployment_id(tx, row.service, now.replaces)
    row.settings = settings
    _check_instance_type(tx, row, now)
    _keep_secrets(row, rules.vault, secrets)
    row.acts_as = actor.user_id
    row.error, row.error_at = "", None
    row.revision += 1
    _note(tx, actor, row, ", ".join(sorted(given | new_secrets)))
    tx.flush()
    return _record(tx, row)


def pause(
    tx: Session, actor: Actor, service_name: str, name: str, *, paused: bool
) -> MonitorRecord:
    """Have it rest, or go on; in whose name it acts stays.

    Raises:
        NotFound: no such service that the actor may see, or no such monitor.
        Refused: the actor may not.
    """
    row = _editable(tx, actor, service_name, name)
    if row.paused != paused:
        row.paused = paused
        row.revision += 1
        _note(tx, actor, row, "paused" if paused else "resumed")
    return _record(tx, row)


def delete(tx: Session, actor: Actor, service_name: str, name: str, expected: Expected) -> None:
    """Remove it; the versions that it brought stay.

    Raises:
        NotFound: no such service that the actor may see, or no such monitor.
        Refused: the actor may not; another has made it.
        PreconditionFailed: it was changed in the meantime.
    """
    service = service_of(tx, actor, service_name)
    row = find(tx, service, name)
    resource = _resource(row, owners=frozenset({row.created_by}))
    require(actor, Action.DELETE, resource)
    expected.check(row.revision, f"monitor {name!r} of {service_name!r}")
    tx.delete(row)
    audit.note(tx, actor, Action.DELETE, "monitor", resource.name, service.group.name)


def usable(tx: Session, actor: Actor, service_name: str, name: str) -> Monitor:
    """The row of one that the actor may have look now.

    Raises:
        NotFound: no such service that the actor may see, or no such monitor.
        Refused: the actor may not.
    """
    return _editable(tx, actor, service_name, name)


def settings_of(row: Monitor) -> MonitorBody:
    """What it was made of, but for credentials."""
    return MonitorBody(name=row.name, **row.settings)


def secrets_of(row: Monitor, vault: Vault) -> dict[str, Any]:
    """Its credentials.

    Raises:
        UsageError: they cannot be read.
    """
    return {} if row.secrets is None else vault.open(row.secrets)


# ---- inside


def _editable(tx: Session, actor: Actor, service_name: str, name: str) -> Monitor:
    service = service_of(tx, actor, service_name)
    row = find(tx, service, name)
    require(actor, Action.MONITOR, _resource(row))
    return row


def _resource(row: Monitor, owners: frozenset[str] | None = None) -> Resource:
    return msgspec.structs.replace(
        resource_of(row.service),
        owners=owners,
        kind="monitor",
        name=f"{row.service.name}/{row.name}",
    )


def _check_instance_type(tx: Session, row: Monitor, settings: MonitorBody) -> None:
    """Raise InvalidInput unless a new deployment could be made, where one would be."""
    name = settings.deploy.instance_type
    known = tx.scalars(select(InstanceType.name).order_by(InstanceType.name)).all()
    if name not in known and (row.deployment_id is None or name is not None):
        got = "nothing" if name is None else repr(name[:60])
        raise InvalidInput("deploy.instance_type", got, ", ".join(known) or "none is there")


def _note(tx: Session, actor: Actor, row: Monitor, detail: str) -> None:
    what = f"{row.service.name}/{row.name}"
    audit.note(tx, actor, Action.MONITOR, "monitor", what, row.service.group.name, detail=detail)


def _kept(row: Monitor, vault: Vault, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return secrets_of(row, vault)
    except UsageError:
        if given:  # in place of those that can no longer be read
            return {}
        raise


def _keep_secrets(row: Monitor, vault: Vault, secrets: dict[str, Any]) -> None:
    row.secrets = vault.seal(secrets) if any(secrets.values()) else None
    row.secret_names = sorted(
        name
        for field, value in secrets.items()
        for name in ([f"{field}.{key}" for key in value] if isinstance(value, dict) else [field])
        if value
    )


def _asks(settings: MonitorBody) -> tuple[object, ...]:
    """Whom it asks, and as whom: where a credential goes."""
    return tuple(getattr(settings, name) for name in _OF_THE_SOURCE)


def _watches(settings: MonitorBody) -> tuple[str, ...]:
    return (
        settings.type,
        place_of(settings),
        settings.remote_model_name,
        settings.remote_donefile_name,
        settings.main,
    )


def _deployment_id(tx: Session, service: Service, replaces: int | None) -> int | None:
    return None if replaces is None else deployments.find(tx, service, replaces).row.id


def _record(tx: Session, row: Monitor) -> MonitorRecord:
    settings = settings_of(row)
    newest = tx.scalar(select(func.max(Version.number)).where(Version.monitor_id == row.id))
    online = (
        None
        if row.deployment_id is None
        else tx.scalar(select(Deployment.version).where(Deployment.id == row.deployment_id))
    )
    user = None if row.acts_as is None else tx.get(User, row.acts_as)
    return MonitorRecord(
        id=row.id,
        service=row.service.name,
        group=row.service.group.name,
        name=row.name,
        type=settings.type,
        place=place_of(settings),
        settings={**row.settings, "interval": settings.interval, "keep": settings.keep},
        secrets=row.secret_names,
        paused=row.paused,
        version=newest,
        deployment=online,
        acts_as=None if user is None else user.name,
        error=row.error,
        error_at=row.error_at,
        changed_at=row.changed_at,
        created_by=row.created_by,
        created_at=row.created_at,
        revision=row.revision,
    )
