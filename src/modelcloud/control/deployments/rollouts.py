"""Rollouts as the store has them, and as people see them.

Must never: begin or end one; operations ask for them and reconcilers carry them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace
from pydantic import ConfigDict, Field
from sqlalchemy import func, select

from modelcloud.control.access.permissions import Action, Actor, Resource, allowed
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.deployments.generation_specs import key_of
from modelcloud.errors import InvalidInput, NotFound
from modelcloud.rollout.records import Kind, Rollout, RolloutState, Shape
from modelcloud.store.tables import RolloutRow, Service
from modelcloud.types import GenerationSpec, State, StrategySpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: The states of a rollout that is not over.
UNFINISHED = (RolloutState.PENDING.value, RolloutState.RUNNING.value)


class GenerationRecord(Record):
    """A generation, by its number and that of the version it was started from.

    `revision`: of the options that its running workers were given; 0: those it was started with.
    """

    generation: int
    revision: int = 0
    version: int


class WorkerStandingRecord(Record):
    """A worker of a rollout that is on its way."""

    id: int
    generation: int
    version: int
    state: State


class RolloutRecord(Record):
    """A rollout.

    Attributes:
        deployment: id of the deployment it changes; `key` as the node names it.
        share: percent of the deployment's requests that the target gets now; None: it is not on
            its way.
        reconfigures: it gives the running workers other options; there is no new generation.
        source, target: shown as `from` and `to`.
        workers, log: of one that was on its way since the control plane was last started; the
            deployment log of the service has all lines.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    id: int
    service: str
    deployment: int
    key: str
    kind: Kind
    state: RolloutState
    step: State
    percent: int
    share: float | None = None
    reason: str
    strategy: dict[str, Any]
    reconfigures: bool = False
    source: GenerationRecord | None = Field(serialization_alias="from")
    target: GenerationRecord = Field(serialization_alias="to")
    actor: str
    accepted_at: Time
    started_at: Time | None
    finished_at: Time | None
    workers: list[WorkerStandingRecord] = Field(default_factory=list)
    log: list[str] = Field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self.state.value not in UNFINISHED


def record(row: RolloutRow, service: str) -> RolloutRecord:
    """The record of a row."""
    return RolloutRecord(
        id=row.id,
        service=service,
        deployment=row.deployment_id,
        key=key_of(service, row.deployment_id),
        kind=Kind(row.kind),
        state=RolloutState(row.state),
        step=State(row.step),
        percent=row.percent,
        reason=row.reason,
        strategy=row.strategy,
        reconfigures=bool(row.source and row.source["generation"] == row.target["generation"]),
        source=generation(row.source),
        target=_generation(row.target),
        actor=row.actor,
        accepted_at=row.accepted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def live(stored: RolloutRecord, rollout: Rollout, *, kept: bool) -> RolloutRecord:
    """The record with what a reconciler knows beyond the store.

    An end that is not `kept` yet is not told: what a client then asked for would not be there.
    """
    if rollout.finished and not kept:
        state = RolloutState.PENDING if rollout.started_at is None else RolloutState.RUNNING
        rollout = replace(rollout, state=state, reason="", finished_at=None)
    return stored.model_copy(
        update={
            "state": rollout.state,
            "step": rollout.step,
            "percent": rollout.percent,
            "share": rollout.share,
            "reason": rollout.reason,
            "reconfigures": rollout.reconfigures,
            "source": generation(msgspec.to_builtins(rollout.source)),
            "target": _generation(msgspec.to_builtins(rollout.target)),
            "started_at": rollout.started_at,
            "finished_at": rollout.finished_at,
            "workers": [
                WorkerStandingRecord(
                    id=w.id, generation=w.generation, version=w.version, state=w.state
                )
                for w in rollout.workers
            ],
            "log": list(rollout.log),
        }
    )


def revive(row: RolloutRow, service: str, deployment: str) -> Rollout:
    """The rollout of a row, for a reconciler to go on with; `deployment` is its key."""
    return Rollout(
        id=str(row.id),
        service=service,
        deployment=deployment,
        kind=Kind(row.kind),
        strategy=msgspec.convert(row.strategy, StrategySpec),
        target=msgspec.convert(row.target, GenerationSpec),
        shape=_shape(row.change),
        accepted_at=row.accepted_at,
        source=None if row.source is None else msgspec.convert(row.source, GenerationSpec),
        state=RolloutState(row.state),
        step=State(row.step),
        percent=row.percent,
        reason=row.reason,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _shape(change: dict[str, Any]) -> Shape | None:
    """What a rollout brings the deployment beside its target; all of it, or nothing."""
    if not change.keys() >= {*Shape.__struct_fields__}:
        return None
    return msgspec.convert({name: change[name] for name in Shape.__struct_fields__}, Shape)


def find(tx: Session, actor: Actor, rollout_id: int) -> RolloutRecord:
    """One rollout.

    Raises:
        NotFound: there is none of this id that the actor may see.
    """
    row = tx.get(RolloutRow, rollout_id)
    service = None if row is None else tx.get(Service, row.service_id)
    if row is None or service is None or not _readable(actor, service.group_id):
        raise NotFound(f"no rollout {rollout_id}")
    return record(row, service.name)


def listing(
    tx: Session, actor: Actor, page: Page, *, service: str | None, state: str | None
) -> Listing[RolloutRecord]:
    """The rollouts that the actor may see, newest first.

    Raises:
        InvalidInput: there is no such state.
    """
    if state is not None and state not in {known.value for known in RolloutState}:
        accepted = ", ".join(known.value for known in RolloutState)
        raise InvalidInput("state", repr(state), accepted)
    groups = {
        group_id
        for group_id in tx.scalars(select(Service.group_id).distinct())
        if _readable(actor, group_id)
    }
    query = (
        select(RolloutRow, Service.name)
        .join(Service, Service.id == RolloutRow.service_id)
        .where(Service.group_id.in_(groups))
        .order_by(RolloutRow.id.desc())
        .limit(page.limit + 1)
    )
    if service is not None:
        query = query.where(Service.name == service)
    if state is not None:
        query = query.where(RolloutRow.state == state)
    if page.after is not None:
        query = query.where(RolloutRow.id < page.after)
    rows = tx.execute(query).all()
    return page.cut(rows, lambda row: record(row[0], row[1]), lambda row: row[0].id)


def newest(tx: Session, deployment_ids: Iterable[int]) -> dict[int, RolloutRow]:
    """The newest rollout of each of these deployments, by the deployment's id."""
    last = (
        select(func.max(RolloutRow.id))
        .where(RolloutRow.deployment_id.in_(list(deployment_ids)))
        .group_by(RolloutRow.deployment_id)
    )
    rows = tx.scalars(select(RolloutRow).where(RolloutRow.id.in_(last)))
    return {row.deployment_id: row for row in rows}


def unfinished(tx: Session, service_ids: Iterable[int] | None = None) -> list[RolloutRow]:
    """The rollouts that are not over, oldest first; of these services only, unless None."""
    query = select(RolloutRow).where(RolloutRow.state.in_(UNFINISHED)).order_by(RolloutRow.id)
    if service_ids is not None:
        query = query.where(RolloutRow.service_id.in_(list(service_ids)))
    return list(tx.scalars(query))


def fail(tx: Session, rollout_id: int, reason: str, now: float) -> None:
    """Let a rollout end that could not begin; one that is over stays as it is."""
    row = tx.get(RolloutRow, rollout_id)
    if row is not None and row.state in UNFINISHED:
        row.state, row.reason, row.finished_at = RolloutState.FAILED.value, reason, now


def generation(spec: dict[str, Any] | None) -> GenerationRecord | None:
    """What is shown of a spec that was kept; None for none."""
    return _generation(spec) if spec else None


def _readable(actor: Actor, group_id: int) -> bool:
    return allowed(actor, Action.READ, Resource(group_id=group_id))


def _generation(spec: dict[str, Any]) -> GenerationRecord:
    return GenerationRecord(
        generation=spec["generation"],
        revision=spec.get("revision", 0),
        version=spec["version"],
    )
