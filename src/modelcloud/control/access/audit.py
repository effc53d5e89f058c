"""The audit log: who did what to which object, when, from where, and what came of it.

Must never: change or drop an entry, or hold a secret.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from modelcloud.control.access.permissions import (
    Action,
    Actor,
    Refused,
    Resource,
    allowed,
    require,
)
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.errors import NotFound, StoreUnavailable
from modelcloud.store.tables import AuditEntry, Group

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

OK = "ok"
REFUSED = "refused"
FAILED = "failed"

#: A text of an entry is cut here; names are shorter by their own rule.
_LONGEST = 500


class Entry(Record):
    """One entry. `group` is empty for what belongs to the instance."""

    id: int
    at: Time
    actor: str
    action: str
    kind: str
    name: str
    group: str
    peer: str
    outcome: str
    detail: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries; those that are None do not matter. `since` ≤ time < `until`."""

    actor: str | None = None
    action: str | None = None
    kind: str | None = None
    name: str | None = None
    group: str | None = None
    peer: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None


def note(
    tx: Session,
    actor: Actor | str,
    action: Action | str,
    kind: str,
    name: str,
    group: str = "",
    outcome: str = OK,
    detail: str = "",
    *,
    peer: str = "",
) -> None:
    """Add an entry, in the transaction of what it tells of.

    Args:
        tx: that transaction.
        actor: who; a text for what acts by itself, or could not sign in.
        action: of `permissions.Action`.
        kind: what kind of object, by its word: `service`, `user`, …
        name: the object's.
        group: the name of its group.
        outcome: `ok`, `refused` or `failed`.
        detail: what changed, in words; never a secret.
        peer: the address, where `actor` is a text.
    """
    who, where = (actor.name, actor.peer) if isinstance(actor, Actor) else (actor, peer)
    tx.add(
        AuditEntry(
            at=time.time(),
            actor=who[:_LONGEST],
            action=action.value if isinstance(action, Action) else action,
            kind=kind,
            name=name[:_LONGEST],
            group=group,
            peer=where,
            outcome=outcome,
            detail=detail[:_LONGEST],
        )
    )


async def keep_refused(store: Store, refused: Refused) -> None:
    """Add an entry of what somebody may not do; without a store there is none."""
    actor, what = refused.actor, refused.resource
    entry = partial(
        note, actor=actor, action=refused.action, kind=what.kind, name=what.name, group=what.group,
        outcome=REFUSED,
    )  # fmt: skip
    try:
        await store.transact(entry)
    except StoreUnavailable as error:
        log.warning("a refusal could not be kept: %s", error.message)


def entries(tx: Session, actor: Actor, wanted: Filter, page: Page) -> Listing[Entry]:
    """The newest first: of everything for administrators, of a group for who manages it.

    Raises:
        NotFound: no such group, or none that the actor may see.
        Refused: the actor may not read these entries.
    """
    began: float | None = None
    if not allowed(actor, Action.READ_AUDIT):
        if wanted.group is None:
            require(actor, Action.READ_AUDIT, Resource(kind="audit"))
        group_id = tx.scalar(select(Group.id).where(Group.name == wanted.group))
        resource = Resource(group_id=group_id, kind="audit", group=wanted.group or "")
        if group_id is None or not allowed(actor, Action.READ, resource):
            raise NotFound(f"no group {wanted.group!r}")
        require(actor, Action.GROUP_AUDIT, resource)
        began = tx.scalar(select(Group.created_at).where(Group.id == group_id))
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(page.limit + 1)
    if began is not None:  # what came before is of another group that had its name
        query = query.where(AuditEntry.at >= began)
    for column, value in (
        (AuditEntry.actor, wanted.actor),
        (AuditEntry.action, wanted.action),
        (AuditEntry.kind, wanted.kind),
        (AuditEntry.name, wanted.name),
        (AuditEntry.group, wanted.group),
        (AuditEntry.peer, wanted.peer),
        (AuditEntry.outcome, wanted.outcome),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEntry.at < wanted.until)
    if page.after is not None:
        query = query.where(AuditEntry.id < page.after)
    return page.cut(tx.scalars(query).all(), _entry, lambda row: row.id)


def _entry(row: AuditEntry) -> Entry:
    return Entry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        kind=row.kind,
        name=row.name,
        group=row.group,
        peer=row.peer,
        outcome=row.outcome,
        detail=row.detail,
    )
