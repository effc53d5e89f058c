"""Instance types: what one replica may use, by a name.

A deployment takes the numbers over when it is made, so that a change here touches none of those.

Must never: look at what the node has; a type may be larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Action, Actor, Resource, require
from modelcloud.control.common.names import check_name
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record
from modelcloud.control.common.revisions import Expected
from modelcloud.errors import Conflict, NotFound
from modelcloud.store.tables import InstanceType

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class InstanceTypeRecord(Record):
    """A type. `memory` in bytes; 0 does not limit, of `gpu`: none."""

    name: str
    description: str
    cpu: float
    memory: int
    gpu: float
    revision: int


def listing(tx: Session, actor: Actor, page: Page) -> Listing[InstanceTypeRecord]:
    """All of them, oldest first.

    Raises:
        Refused: the actor's token opens predictions only.
    """
    require(actor, Action.READ_INSTANCE, Resource(kind="instance_type"))
    query = select(InstanceType).order_by(InstanceType.id).limit(page.limit + 1)
    if page.after is not None:
        query = query.where(InstanceType.id > page.after)
    return page.cut(tx.scalars(query).all(), _record, lambda row: row.id)


def one(tx: Session, actor: Actor, name: str) -> InstanceTypeRecord:
    """One of them.

    Raises:
        Refused: the actor's token opens predictions only.
        NotFound: there is none of this name.
    """
    return _record(_find(tx, actor, name, Action.READ_INSTANCE))


def create(
    tx: Session, actor: Actor, name: str, *, description: str, cpu: float, memory: int, gpu: float
) -> InstanceTypeRecord:
    """Make one.

    Raises:
        Refused: the actor is no administrator.
        InvalidInput: it is no name.
        Conflict: the name is taken.
    """
    action = Action.MANAGE_INSTANCE_TYPES
    require(actor, action, Resource(kind="instance_type", name=name))
    check_name(name)
    if tx.scalar(select(InstanceType.id).where(InstanceType.name == name)) is not None:
        raise Conflict(f"there is an instance type {name!r} already")
    row = InstanceType(name=name, description=description, cpu=cpu, memory=memory, gpu=gpu)
    tx.add(row)
    tx.flush()
    audit.note(tx, actor, "instance_types.create", "instance_type", name, detail=_words(row))
    return _record(row)


def edit(
    tx: Session, actor: Actor, name: str, changes: dict[str, Any], expected: Expected
) -> InstanceTypeRecord:
    """Change what is in `changes`: `description`, `cpu`, `memory`, `gpu`.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is none of this name.
        PreconditionFailed: it was changed in the meantime.
    """
    row = _find(tx, actor, name, Action.MANAGE_INSTANCE_TYPES)
    expected.check(row.revision, f"instance type {name!r}")
    for field in ("description", "cpu", "memory", "gpu"):
        if field in changes:
            setattr(row, field, changes[field])
    row.revision += 1
    audit.note(tx, actor, Action.MANAGE_INSTANCE_TYPES, "instance_type", name, detail=_words(row))
    return _record(row)


def delete(tx: Session, actor: Actor, name: str, expected: Expected) -> None:
    """Remove one; what is deployed with it stays as it is.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is none of this name.
        PreconditionFailed: it was changed in the meantime.
    """
    row = _find(tx, actor, name, Action.MANAGE_INSTANCE_TYPES)
    expected.check(row.revision, f"instance type {name!r}")
    tx.delete(row)
    audit.note(tx, actor, "instance_types.delete", "instance_type", name)


def _find(tx: Session, actor: Actor, name: str, action: Action) -> InstanceType:
    require(actor, action, Resource(kind="instance_type", name=name))
    row = tx.scalar(select(InstanceType).where(InstanceType.name == name))
    if row is None:
        raise NotFound(f"no instance type {name!r}")
    return row


def _words(row: InstanceType) -> str:
    return f"cpu {row.cpu:g}, memory {row.memory}, gpu {row.gpu:g}"


def _record(row: InstanceType) -> InstanceTypeRecord:
    return InstanceTypeRecord(
        name=row.name,
        description=row.description,
        cpu=row.cpu,
        memory=row.memory,
        gpu=row.gpu,
        revision=row.revision,
    )
