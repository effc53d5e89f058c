"""What a monitor did: an event for each look that did something, or failed.

Must never: grow without end, or hold a credential.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from modelcloud.control.access.permissions import Actor
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.deployments.deployments import service_of
from modelcloud.control.monitors.monitors import find
from modelcloud.rollout.records import RolloutState
from modelcloud.store.tables import Monitor, MonitorEvent, RolloutRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Events of one monitor that are kept.
KEPT = 1000
_LONGEST = 2000


class Outcome(str, Enum):
    """What came of a look."""

    REGISTERED = "registered"  # a version; see its rollout for what came of that
    UNCHANGED = "unchanged"  # other marks over the same files
    FAILED = "failed"


class EventRecord(Record):
    """An event.

    Attributes:
        at, last_at, times: a failure that comes again and again is one event.
        duration_s: of the look, with pulling and registering, without the rollout.
        version: that was registered, or that has the same files.
        rollout, rollout_state: what it began; None: nothing, `detail` says why.
    """

    id: int
    at: Time
    last_at: Time
    times: int
    duration_s: float
    outcome: Outcome
    version: int | None
    rollout: int | None
    rollout_state: RolloutState | None
    detail: str


def listing(
    tx: Session, actor: Actor, service_name: str, name: str, page: Page
) -> Listing[EventRecord]:
    """The events of a monitor, newest first.

    Raises:
        NotFound: there is no such service that the actor may see, or no such monitor.
    """
    row = find(tx, service_of(tx, actor, service_name), name)
    query = (
        select(MonitorEvent, RolloutRow.state, RolloutRow.reason)
        .outerjoin(RolloutRow, RolloutRow.id == MonitorEvent.rollout_id)
        .where(MonitorEvent.monitor_id == row.id)
        .order_by(MonitorEvent.id.desc())
        .limit(page.limit + 1)
    )
    if page.after is not None:
        query = query.where(MonitorEvent.id < page.after)
    rows = tx.execute(query).all()
    return page.cut(rows, lambda row: _record(row[0], row[1], row[2]), lambda row: row[0].id)


def add(
    tx: Session,
    row: Monitor,
    at: float,
    duration_s: float,
    outcome: Outcome,
    version: int | None = None,
    detail: str = "",
) -> MonitorEvent:
    """Add an event; a failure that is the newest one again counts up instead."""
    detail = detail[:_LONGEST]
    newest = tx.scalar(
        select(MonitorEvent)
        .where(MonitorEvent.monitor_id == row.id)
        .order_by(MonitorEvent.id.desc())
        .limit(1)
    )
    again = newest is not None and (newest.outcome, newest.detail) == (outcome.value, detail)
    if newest is not None and again and outcome is Outcome.FAILED:
        newest.times += 1
        newest.last_at = at
        return newest
    event = MonitorEvent(
        monitor_id=row.id, at=at, last_at=at, times=1, duration_s=round(duration_s, 3),
        outcome=outcome.value, version=version, detail=detail,
    )  # fmt: skip
    tx.add(event)
    tx.flush()
    oldest = (
        select(MonitorEvent.id)
        .where(MonitorEvent.monitor_id == row.id)
        .order_by(MonitorEvent.id.desc())
        .offset(KEPT)
    )
    tx.execute(delete(MonitorEvent).where(MonitorEvent.id.in_(tx.scalars(oldest).all())))
    return event


def of_version(tx: Session, row: Monitor, version: int) -> MonitorEvent | None:
    """The event that registered a version."""
    return tx.scalar(
        select(MonitorEvent)
        .where(MonitorEvent.monitor_id == row.id, MonitorEvent.version == version)
        .order_by(MonitorEvent.id)
        .limit(1)
    )


def _record(event: MonitorEvent, state: str | None, reason: str | None) -> EventRecord:
    return EventRecord(
        id=event.id,
        at=event.at,
        last_at=event.last_at,
        times=event.times,
        duration_s=event.duration_s,
        outcome=Outcome(event.outcome),
        version=event.version,
        rollout=event.rollout_id,
        rollout_state=None if state is None else RolloutState(state),
        detail=event.detail or reason or "",
    )
