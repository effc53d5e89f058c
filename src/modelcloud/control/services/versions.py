"""Versions of services: registered once, immutable in what they run.

Must never: change what a version runs, or remove one that a deployment uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session, defer, load_only

from modelcloud.artifacts.stage import Staged
from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Action, Actor, allowed, require
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments.deployment_states import Status, Wanted, status_of
from modelcloud.control.deployments.deployments import resource_of, service_of, standings
from modelcloud.control.services import artifacts, services
from modelcloud.control.services.curves import Points, check_metrics
from modelcloud.control.services.version_forms import MAX_VERSION, NewService, RegisterBody
from modelcloud.errors import Conflict, NotFound
from modelcloud.store.tables import Artifact, Deployment, Service, Version
from modelcloud.types import State


class VersionSummary(Record):
    """A version in a list.

    Attributes:
        artifact: digest of its files' manifest; `size` is of the files together, in bytes.
        main: the served file, with `:NAME` where one thing of it is.
        runtime: how it is written: `decorated`, `function`, `inference_service` …
        state: of its deployment; None without one.
        address: where predictions are asked for, below the platform's address.
    """

    service: str
    group: str
    version: int
    enabled: bool
    description: str
    runtime: str
    main: str
    artifact: str
    size: int
    metrics: dict[str, Any]
    state: State | None
    status: Status
    address: str
    created_by: str
    created_at: Time
    revision: int


class VersionRecord(VersionSummary):
    """A version.

    Attributes:
        files: how many there are.
        curves: the names of its series.
        signature: commands and options, as `/meta` shows them.
        origin: what it was registered from, and notes on what of that was left out.
    """

    files: int
    options: dict[str, Any]
    requirements: str
    python: str
    model_path: str
    curves: list[str]
    signature: dict[str, Any]
    origin: dict[str, Any]


class CurvesRecord(Record):
    """The training curves of a version: series → [step, value] by step."""

    curves: dict[str, Points]


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What registering a version has found out, beside the request.

    Attributes:
        signature: as the model's process told it.
        options: the request's, those given as text among them.
        origin: see `VersionRecord`.
    """

    staged: Staged
    signature: dict[str, Any]
    options: dict[str, Any]
    requirements: str
    metrics: dict[str, Any]
    curves: dict[str, Points]
    origin: dict[str, Any]


def listing(tx: Session, actor: Actor, service_name: str, page: Page) -> Listing[VersionSummary]:
    """The versions of a service, newest first.

    Raises:
        NotFound: there is no such service that the actor may see.
    """
    service = service_of(tx, actor, service_name)
    query = (
        select(Version, Artifact)
        .join(Artifact, Artifact.digest == Version.artifact)
        .options(defer(Version.curves), defer(Version.signature))
        .where(Version.service_id == service.id)
        .order_by(Version.number.desc())
        .limit(page.limit + 1)
    )
    if page.after is not None:
        query = query.where(Version.number < page.after)
    states = _states(tx, service)
    rows = [(version, artifact) for version, artifact in tx.execute(query)]
    return page.cut(
        rows,
        lambda row: VersionSummary(**_summary(service, *row, states)),
        lambda row: row[0].number,
    )


def one(tx: Session, actor: Actor, service_name: str, number: int) -> VersionRecord:
    """One of them.

    Raises:
        NotFound: there is no such service that the actor may see, or no such version.
    """
    service = service_of(tx, actor, service_name)
    return record(tx, service, find(tx, service, number))


def curves(tx: Session, actor: Actor, service_name: str, number: int) -> CurvesRecord:
    """Its training curves. Raises as `one` does."""
    return CurvesRecord(curves=find(tx, service_of(tx, actor, service_name), number).curves)


def find(tx: Session, service: Service, number: int) -> Version:
    """The row.

    Raises:
        NotFound: there is no such version.
    """
    found = tx.scalar(
        select(Version).where(Version.service_id == service.id, Version.number == number)
    )
    if found is None:
        raise NotFound(f"service {service.name!r} has no version {number}")
    return found


# ---- registering


def check(
    tx: Session, actor: Actor, name: str, asked: RegisterBody, taken_ports: Iterable[int]
) -> None:
    """Changes nothing, and raises as `add` would."""
    service = _existing(tx, actor, name, asked)
    if service is None:
        services.check_new(tx, actor, _new_service(actor, name, asked), taken_ports)
    else:
        _number(tx, service, asked)


def add(
    tx: Session,
    actor: Actor,
    name: str,
    asked: RegisterBody,
    proposal: Proposal,
    taken_ports: Iterable[int],
) -> VersionRecord:
    """Add a version, and its service where it is new.

    Raises:
        NotFound: no such group that the actor may see.
        Refused: the actor may not register there.
        InvalidInput: the service has to be named with its group, or may not have this name or port.
        Conflict: the number, name or port is taken, or the service is in another group.
    """
    service = _existing(tx, actor, name, asked)
    if service is None:
        service = services.add(tx, actor, _new_service(actor, name, asked), taken_ports)
    number = _number(tx, service, asked)
    service.next_version = max(service.next_version, number + 1)
    artifacts.add(tx, proposal.staged)
    staged = proposal.staged
    version = Version(
        service_id=service.id,
        number=number,
        artifact=staged.digest,
        main=staged.main + (f":{staged.name}" if staged.name else ""),
        runtime=proposal.signature.get("runtime", ""),
        options=proposal.options,
        requirements=proposal.requirements,
        python=asked.python,
        model_path=asked.model_path,
        enabled=asked.enabled,
        description=asked.description,
        metrics=proposal.metrics,
        curves=proposal.curves,
        signature=proposal.signature,
        origin=proposal.origin,
        created_by=actor.name,
        created_at=time.time(),
        revision=1,
    )
    tx.add(version)
    tx.flush()
    audit.note(
        tx, actor, Action.REGISTER, "version", f"{name}/{number}", service.group.name,
        detail=f"artifact {staged.digest[:12]}",
    )  # fmt: skip
    return record(tx, service, version)


def note_failed(tx: Session, actor: Actor, name: str, asked: RegisterBody, reason: str) -> None:
    """Have the audit log say that a version was refused."""
    service = tx.scalar(select(Service).where(Service.name == name))
    group = service.group.name if service is not None else asked.group or ""
    audit.note(tx, actor, Action.REGISTER, "version", name, group, audit.FAILED, reason)


# ---- changing


def edit(
    tx: Session, actor: Actor, service_name: str, number: int, changes: dict[str, Any],
    expected: Expected,
) -> VersionRecord:  # fmt: skip
    """Change `description`, `metrics` or `enabled`, as far as they are in `changes`.

    Raises:
        NotFound: there is no such version that the actor may see.
        Refused: the actor may not.
        InvalidInput: a metric does not fit.
        PreconditionFailed: it was changed in the meantime.
    """
    service = service_of(tx, actor, service_name, Action.EDIT_VERSION)
    version = find(tx, service, number)
    expected.check(version.revision, f"version {number} of {service_name!r}")
    if "metrics" in changes:
        version.metrics = check_metrics(changes["metrics"])
    version.description = changes.get("description", version.description)
    version.enabled = changes.get("enabled", version.enabled)
    version.revision += 1
    audit.note(
        tx, actor, Action.EDIT_VERSION, "version", f"{service_name}/{number}", service.group.name,
        detail=", ".join(sorted(changes)),
    )  # fmt: skip
    return record(tx, service, version)


def delete(tx: Session, actor: Actor, service_name: str, number: int, expected: Expected) -> None:
    """Remove a version that nothing uses; its files go with the last version that has them.

    Raises:
        NotFound: there is no such version that the actor may see.
        Refused: the actor may not; another has registered it.
        Conflict: a deployment uses it, or may go back to it.
        PreconditionFailed: it was changed in the meantime.
    """
    service = service_of(tx, actor, service_name)
    version = find(tx, service, number)
    resource = msgspec.structs.replace(
        resource_of(service),
        owners=frozenset({version.created_by}),
        kind="version",
        name=f"{service_name}/{number}",
    )
    require(actor, Action.DELETE, resource)
    expected.check(version.revision, f"version {number} of {service_name!r}")
    _refuse_needed(tx, service, number)
    tx.delete(version)
    tx.flush()
    artifacts.forget_unused(tx)
    audit.note(tx, actor, Action.DELETE, "version", resource.name, service.group.name)


def record(tx: Session, service: Service, version: Version) -> VersionRecord:
    """The record of one version."""
    artifact = tx.get_one(Artifact, version.artifact)
    return VersionRecord(
        **_summary(service, version, artifact, _states(tx, service)),
        files=artifact.files,
        options=version.options,
        requirements=version.requirements,
        python=version.python,
        model_path=version.model_path,
        curves=list(version.curves),
        signature=version.signature,
        origin=version.origin,
    )


# ---- inside


def _existing(tx: Session, actor: Actor, name: str, asked: RegisterBody) -> Service | None:
    """The service to register at; None: it is new, or not for the actor to see."""
    service = tx.scalar(select(Service).where(Service.name == name))
    if service is None or not allowed(actor, Action.READ, resource_of(service)):
        return None
    require(actor, Action.REGISTER, resource_of(service))
    if asked.group not in {None, service.group.name}:
        raise Conflict(
            f"service {name!r} is in group {service.group.name!r}; registering never moves it"
        )
    if asked.port not in {None, service.port}:
        raise Conflict(f"service {name!r} is there; change its port by itself")
    return service


def _new_service(actor: Actor, name: str, asked: RegisterBody) -> NewService:
    return NewService(name=name, group=asked.group or actor.name, port=asked.port)


def _number(tx: Session, service: Service, asked: RegisterBody) -> int:
    if asked.version is None:
        if service.next_version > MAX_VERSION:
            raise Conflict(f"service {service.name!r} has no number left")
        return service.next_version
    if asked.version < service.next_version:
        # Deployments and rollouts may still name a number whose version was deleted.
        there = select(Version.id).where(
            Version.service_id == service.id, Version.number == asked.version
        )
        why = "is there, and versions never change"
        if tx.scalar(there) is None:
            why = "cannot be made any more: numbers only go up, each stands for one version"
        raise Conflict(
            f"version {asked.version} of {service.name!r} {why}; the next is {service.next_version}"
        )
    return asked.version


def _refuse_needed(tx: Session, service: Service, number: int) -> None:
    """Raise Conflict if a deployment stands at the version, goes to it, or may go back to it."""
    for standing in standings(tx, service):
        if number not in standing.needs:
            continue
        at = standing.row.version
        if number == at:
            why = "is deployed"
        elif number == standing.back:
            why = f"is what the deployment of version {at} would go back to"
        else:
            why = f"is needed by the deployment of version {at}"
        raise Conflict(f"version {number} of {service.name!r} {why}; delete the deployment first")


def _states(tx: Session, service: Service) -> dict[int, State]:
    """The state of each version's deployment, of several the newest."""
    rows = tx.scalars(
        select(Deployment)
        .where(Deployment.service_id == service.id, Deployment.wanted != Wanted.DELETED.value)
        .options(load_only(Deployment.version, Deployment.state))
        .order_by(Deployment.id)
    )
    return {row.version: State(row.state) for row in rows}


def _summary(
    service: Service, version: Version, artifact: Artifact, states: dict[int, State]
) -> dict[str, Any]:
    state = states.get(version.number)
    return {
        "service": service.name,
        "group": service.group.name,
        "version": version.number,
        "enabled": version.enabled,
        "description": version.description,
        "runtime": version.runtime,
        "main": version.main,
        "artifact": version.artifact,
        "size": artifact.size,
        "metrics": version.metrics,
        "state": state,
        "status": Status.OFFLINE if state is None else status_of(state),
        "address": f"/predict/{service.name}/{version.number}",
        "created_by": version.created_by,
        "created_at": version.created_at,
        "revision": version.revision,
    }
