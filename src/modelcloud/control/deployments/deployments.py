"""Deployments as the store has them, and as people see them: found, listed, added up.

Must never: change one; `deploying` and `lifecycle` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import Field
from sqlalchemy import select

from modelcloud.control.access.permissions import Action, Actor, Resource, allowed, require
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deployment_states import Shown, Status, Wanted, status_of
from modelcloud.control.deployments.generation_specs import Ground, key_of
from modelcloud.control.deployments.quota_sums import Amounts, Bound, amounts
from modelcloud.control.deployments.rollouts import GenerationRecord, RolloutRecord
from modelcloud.errors import NotFound
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.store.tables import Deployment, Group, Label, RolloutRow, Service
from modelcloud.types import LOCAL, Observed, State

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class WorkerRecord(Record):
    """One worker process."""

    id: int
    generation: int
    state: State
    pid: int
    error: str
    restarts: int
    load_s: float
    gpus: list[int]


class DeploymentRecord(Record):
    """A deployment.

    Attributes:
        key: as the node and its log lines name it.
        status: the state in one of four words.
        cpu, memory, gpu: of one replica; memory in bytes.
        options: those given with the deployment, over the version's own.
        engine: where the workers of the generation that serves are; those of the one that is coming
            where none serves yet.
        answers: the versions at whose addresses it may be asked.
        current: the generation that serves.
        previous: the one before, where a rollback leads.
        rollout: the newest one.
        ready: workers that answer requests now.
        degraded: why it is below its strength; empty when it is not.
    """

    id: int
    key: str
    service: str
    group: str
    version: int
    wanted: Wanted
    state: State
    status: Status
    reason: str
    instance_type: str
    cpu: float
    memory: int
    gpu: float
    replicas: int
    threads: int
    dispatch: dict[str, Any]
    strategy: dict[str, Any]
    keep_warm_s: float
    options: dict[str, Any]
    engine: str
    answers: list[int]
    labels: list[str]
    weight: float
    shadow: float
    current: GenerationRecord | None
    previous: GenerationRecord | None
    rollout: RolloutRecord | None
    deployed_by: str
    created_at: Time
    revision: int
    ready: int = 0
    degraded: str = ""
    workers: list[WorkerRecord] = Field(default_factory=list)


class Standing(msgspec.Struct, frozen=True):
    """A row, and its rollouts that are not over, oldest first."""

    row: Deployment
    unfinished: tuple[RolloutRow, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether it has a proven generation, and is to have one."""
        return self.row.wanted == Wanted.ONLINE.value and bool(self.row.facts.get("serving"))

    @property
    def online(self) -> bool:
        """Whether it takes a place: it serves or is about to. One that failed does not."""
        wanted = self.row.wanted == Wanted.ONLINE.value
        return wanted and (self.serves or bool(self.unfinished))

    @property
    def claims(self) -> frozenset[int]:
        """The versions that nobody else may put online now."""
        coming = {rollout.target["version"] for rollout in self.unfinished}
        return frozenset({self.row.version, *coming}) if self.online else frozenset()

    @property
    def back(self) -> int | None:
        """The version that a rollback leads to; None: there is none."""
        previous = self.row.facts.get("previous")
        return previous["version"] if previous else None

    @property
    def needs(self) -> frozenset[int]:
        """The versions that it stands at, goes to, or may go back to."""
        specs = [self.row.facts.get("serving"), self.row.facts.get("previous")]
        specs += [rollout.target for rollout in self.unfinished]
        return frozenset({self.row.version, *(spec["version"] for spec in specs if spec)})

    @property
    def shape(self) -> Amounts:
        """One replica's resources and the number of replicas, as far as they are decided already.

        While a rollout is on its way, that is what it leads to.
        """
        change = self.unfinished[-1].change if self.unfinished else {}
        names = Amounts.__struct_fields__
        return Amounts(**{name: change.get(name, getattr(self.row, name)) for name in names})

    @property
    def engine(self) -> str:
        """Where its workers are, or where those will be that are on their way."""
        coming = self.unfinished[-1].target if self.unfinished else None
        return str((coming or self.row.facts.get("serving") or {}).get("engine") or LOCAL)

    @property
    def uses(self) -> Amounts:
        """What it uses, as far as it is decided already."""
        if not self.online:
            return Amounts()
        shape = self.shape
        return amounts(shape.cpu, shape.memory, shape.gpu, shape.replicas)


# ---- finding


def service_of(tx: Session, actor: Actor, name: str, action: Action = Action.READ) -> Service:
    """The service of this name, which `actor` may do `action` to.

    Raises:
        NotFound: there is none that the actor may see.
        Refused: the actor may not do this.
    """
    service = tx.scalar(select(Service).where(Service.name == name))
    if service is None or not allowed(actor, Action.READ, resource_of(service)):
        raise NotFound(f"no service {name!r}")
    require(actor, action, resource_of(service))
    return service


def resource_of(service: Service, rows: Iterable[Deployment] | None = None) -> Resource:
    """What an action on a service, or on some of its deployments, is about."""
    return Resource(
        group_id=service.group_id,
        owners=None if rows is None else frozenset(row.deployed_by for row in rows),
        kind="service" if rows is None else "deployment",
        name=service.name,
        group=service.group.name,
    )


def standings(tx: Session, service: Service) -> list[Standing]:
    """All deployments of a service that are not deleted, oldest first."""
    rows = tx.scalars(
        select(Deployment)
        .where(Deployment.service_id == service.id, Deployment.wanted != Wanted.DELETED.value)
        .order_by(Deployment.id)
    )
    return _with_unfinished(rows.all(), rollouts.unfinished(tx, [service.id]))


def key(service: Service, row: Deployment) -> str:
    """The key by which the node knows a deployment."""
    return key_of(service.name, row.id)


def find(tx: Session, service: Service, version: int) -> Standing:
    """The deployment whose current version this is: the online one, else the newest.

    Raises:
        NotFound: the version is not deployed; the message says which are.
    """
    found = standings(tx, service)
    of_version = [standing for standing in found if standing.row.version == version]
    if not of_version:
        there = ", ".join(str(s.row.version) for s in found) or "none"
        replaced = [s.row.version for s in found if version in s.row.answers]
        by = f"; version {replaced[0]} has replaced it" if replaced else ""
        raise NotFound(
            f"version {version} of {service.name!r} is not deployed{by}; deployed: {there}"
        )
    return max(of_version, key=lambda standing: (standing.online, standing.row.id))


# ---- showing


def record(
    row: Deployment, service: Service, labels: Iterable[str], rollout: RolloutRow | None
) -> DeploymentRecord:
    """The record of a row; `rollout` is its newest."""
    state = State(row.state)
    return DeploymentRecord(
        id=row.id,
        key=key(service, row),
        service=service.name,
        group=service.group.name,
        version=row.version,
        wanted=Wanted(row.wanted),
        state=state,
        status=status_of(state),
        reason=row.reason,
        instance_type=row.instance_type,
        cpu=row.cpu,
        memory=row.memory,
        gpu=row.gpu,
        replicas=row.replicas,
        threads=row.threads,
        dispatch=row.dispatch,
        strategy=row.strategy,
        keep_warm_s=row.keep_warm_s,
        options=row.options,
        engine=_engine(row, rollout),
        answers=row.answers,
        labels=sorted(labels),
        weight=row.weight,
        shadow=row.shadow,
        current=rollouts.generation(row.facts.get("serving")),
        previous=rollouts.generation(row.facts.get("previous")),
        rollout=None if rollout is None else rollouts.record(rollout, service.name),
        deployed_by=row.deployed_by,
        created_at=row.created_at,
        revision=row.revision,
    )


def _engine(row: Deployment, rollout: RolloutRow | None) -> str:
    spec = row.facts.get("serving") or (rollout.target if rollout is not None else {})
    return spec.get("engine") or LOCAL


def live(
    stored: DeploymentRecord, facts: DeploymentSnapshot, observed: Observed, now: Shown
) -> DeploymentRecord:
    """The record with what is decided and observed now."""
    routed = {worker for workers in observed.routed.values() for worker in workers}
    return stored.model_copy(
        update={
            "state": now.state,
            "status": status_of(now.state),
            "reason": now.reason,
            "engine": (facts.serving.engine or LOCAL) if facts.serving else stored.engine,
            "current": rollouts.generation(msgspec.to_builtins(facts.serving)),
            "previous": rollouts.generation(msgspec.to_builtins(facts.previous)),
            "degraded": observed.degraded,
            "ready": sum(w.state is State.SERVING and w.id in routed for w in observed.workers),
            "workers": [
                WorkerRecord(
                    id=w.id,
                    generation=w.generation,
                    state=w.state,
                    pid=w.pid,
                    error=w.error,
                    restarts=w.restarts,
                    load_s=w.load_s,
                    gpus=list(w.gpus),
                )
                for w in observed.workers
            ],
        }
    )


def listing(tx: Session, actor: Actor, service_name: str) -> Listing[DeploymentRecord]:
    """All deployments of a service, oldest first; there are few.

    Raises:
        NotFound: there is no such service that the actor may see.
    """
    service = service_of(tx, actor, service_name)
    return Listing(items=records(tx, service, [s.row for s in standings(tx, service)]))


def one(tx: Session, actor: Actor, service_name: str, version: int) -> DeploymentRecord:
    """One of them.

    Raises:
        NotFound: there is no such service that the actor may see, or the version is not deployed.
    """
    service = service_of(tx, actor, service_name)
    return records(tx, service, [find(tx, service, version).row])[0]


def records(tx: Session, service: Service, rows: list[Deployment]) -> list[DeploymentRecord]:
    """The records of some rows of a service."""
    labels = tx.scalars(select(Label).where(Label.service_id == service.id)).all()
    newest = rollouts.newest(tx, [row.id for row in rows])
    return [
        record(
            row,
            service,
            [label.name for label in labels if label.deployment_id == row.id],
            newest.get(row.id),
        )
        for row in rows
    ]


# ---- adding up


def bounds(tx: Session, ground: Ground, group: Group, engine: str, but: int) -> list[Bound]:
    """What there is for a deployment of a group, and what everything online uses of it.

    The node is a bound only to what runs on it: a cluster knows itself where it has room. The
    deployment of the id `but` is left out of the sums: it is the one that asks.
    """
    online = [standing for standing in _online(tx) if standing.row.id != but]
    here = [standing.uses for standing in online if standing.engine == LOCAL]
    node = Bound(whose="the node", uses=sum(here, Amounts()), has=dict(ground.capacity))
    quota = {
        "cpu": group.quota_cpu,
        "memory": group.quota_memory,
        "gpu": group.quota_gpu,
        "replicas": group.quota_replicas,
    }
    return [
        Bound(
            whose=f"group {group.name}",
            uses=_by_group(online).get(group.id, Amounts()),
            has={name: limit for name, limit in quota.items() if limit is not None},
            strict=True,
        ),
        *([node] if engine == LOCAL else []),
    ]


def usage(tx: Session) -> Mapping[int, Amounts]:
    """What everything online uses, by the id of its group."""
    return _by_group(_online(tx))


def _online(tx: Session) -> list[Standing]:
    rows = tx.scalars(
        select(Deployment).join(Service).where(Deployment.wanted == Wanted.ONLINE.value)
    )
    return _with_unfinished(rows.all(), rollouts.unfinished(tx))


def _by_group(online: Iterable[Standing]) -> Mapping[int, Amounts]:
    used: dict[int, Amounts] = {}
    for standing in online:
        group_id = standing.row.service.group_id
        used[group_id] = used.get(group_id, Amounts()) + standing.uses
    return used


def _with_unfinished(
    rows: Iterable[Deployment], unfinished: Iterable[RolloutRow]
) -> list[Standing]:
    mine: dict[int, list[RolloutRow]] = {}
    for rollout in unfinished:
        mine.setdefault(rollout.deployment_id, []).append(rollout)
    return [Standing(row, tuple(mine.get(row.id, ()))) for row in rows]
