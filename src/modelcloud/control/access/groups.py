"""Groups: who shares what with whom. Each user has one of the same name, as long as there is one.

Must never: give anybody a level on a group but by `share`, or when the group is made.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, select

from modelcloud.control.access import audit
from modelcloud.control.access.permissions import (
    Action,
    Actor,
    Level,
    Resource,
    allowed,
    level_in,
    readable_groups,
    require,
)
from modelcloud.control.common.names import check_name
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.common.revisions import Expected
from modelcloud.errors import Conflict, NotFound
from modelcloud.store.tables import Group, Member, Service, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: What a member may hold.
MemberLevel = Literal["read", "modify", "manage"]


class Quota(Record):
    """What a group may use at a time, memory in bytes; None does not limit."""

    cpu: float | None
    memory: int | None
    gpu: float | None
    replicas: int | None


class GroupRecord(Record):
    """A group.

    Attributes:
        public_predictions: whether its models answer without a token.
        level: what who asks may do in it.
    """

    name: str
    description: str
    public_predictions: bool
    quota: Quota
    level: str
    created_at: Time
    revision: int


class MemberRecord(Record):
    """A user and their level on a group."""

    user: str
    level: str


def find(tx: Session, actor: Actor, name: str, action: Action = Action.READ) -> Group:
    """The group of this name, in which `actor` may do `action`.

    Raises:
        NotFound: there is none that the actor may see.
        Refused: the actor may not do this.
    """
    group = tx.scalar(select(Group).where(Group.name == name))
    if group is None or not allowed(actor, Action.READ, resource_of(group)):
        raise NotFound(f"no group {name!r}")
    require(actor, action, resource_of(group))
    return group


def resource_of(group: Group) -> Resource:
    """What an action on a group is about."""
    return Resource(group_id=group.id, kind="group", name=group.name, group=group.name)


def listing(tx: Session, actor: Actor, page: Page) -> Listing[GroupRecord]:
    """The groups that the actor may read, oldest first."""
    query = select(Group).order_by(Group.id).limit(page.limit + 1)
    readable = readable_groups(actor)
    if readable is not None:
        query = query.where(Group.id.in_(readable))
    if page.after is not None:
        query = query.where(Group.id > page.after)
    return page.cut(tx.scalars(query).all(), lambda row: record(actor, row), lambda row: row.id)


def one(tx: Session, actor: Actor, name: str) -> GroupRecord:
    """One of them.

    Raises:
        NotFound: there is none that the actor may see.
    """
    return record(actor, find(tx, actor, name))


def create(tx: Session, actor: Actor, name: str, description: str) -> GroupRecord:
    """Make a group, which who makes it manages.

    Raises:
        Refused: the actor may not.
        InvalidInput: it is no name.
        Conflict: the name is taken.
    """
    require(actor, Action.CREATE_GROUP, Resource(kind="group", name=name, group=name))
    group = add(tx, name, actor.user_id, description)
    audit.note(tx, actor, Action.CREATE_GROUP, "group", name, name)
    return record(actor, group).model_copy(update={"level": Level.MANAGE.word})


def add(tx: Session, name: str, user_id: int, description: str = "") -> Group:
    """Add a group that the user manages; whoever calls has checked that this is allowed.

    Raises:
        InvalidInput: it is no name.
        Conflict: the name is taken, in whatever case.
    """
    check_name(name)
    for table, kind in ((Group, "group"), (User, "user")):
        taken = tx.scalar(select(table.name).where(func.lower(table.name) == name.lower()))
        mine = table is User and tx.scalar(select(User.name).where(User.id == user_id)) == taken
        if taken is not None and not mine:
            raise Conflict(f"the name {name!r} is taken: there is a {kind} {taken!r}")
    group = Group(name=name, description=description, created_at=time.time())
    tx.add(group)
    tx.flush()
    tx.add(Member(group_id=group.id, user_id=user_id, level=Level.MANAGE.word))
    tx.flush()
    return group


def edit(
    tx: Session, actor: Actor, name: str, changes: dict[str, Any], expected: Expected
) -> GroupRecord:
    """Change `description` or `public_predictions`, as far as they are in `changes`.

    Raises:
        NotFound: there is no such group that the actor may see.
        Refused: the actor may not.
        PreconditionFailed: it was changed in the meantime.
    """
    group = find(tx, actor, name, Action.EDIT_GROUP)
    expected.check(group.revision, f"group {name!r}")
    for field in ("description", "public_predictions"):
        if field in changes:
            setattr(group, field, changes[field])
    group.revision += 1
    detail = ", ".join(
        f"{field} {value}" if field == "public_predictions" else field
        for field, value in changes.items()
    )
    audit.note(tx, actor, Action.EDIT_GROUP, "group", name, name, detail=detail)
    return record(actor, group)


def delete(tx: Session, actor: Actor, name: str, expected: Expected) -> None:
    """Remove a group without services; its tokens end.

    Raises:
        NotFound: there is no such group that the actor may see.
        Refused: the actor may not.
        Conflict: it has services, or it is a user's own.
        PreconditionFailed: it was changed in the meantime.
    """
    group = find(tx, actor, name, Action.EDIT_GROUP)
    expected.check(group.revision, f"group {name!r}")
    if tx.scalar(select(User.id).where(User.name == name)) is not None:
        raise Conflict(f"{name!r} is the own group of user {name!r}, and goes when the user does")
    refuse_services(tx, group)
    tx.delete(group)
    audit.note(tx, actor, "groups.delete", "group", name, name)


def refuse_services(tx: Session, group: Group) -> None:
    """Return if the group has no services.

    Raises:
        Conflict: it has; the message names some.
    """
    names = tx.scalars(
        select(Service.name).where(Service.group_id == group.id).order_by(Service.name).limit(6)
    ).all()
    if names:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise Conflict(f"group {group.name!r} still has services; delete them first: {some}")


def record(actor: Actor, group: Group) -> GroupRecord:
    """The record of a row, as `actor` sees it."""
    return GroupRecord(
        name=group.name,
        description=group.description,
        public_predictions=group.public_predictions,
        quota=quota_of(group),
        level=level_in(actor, group.id).word,
        created_at=group.created_at,
        revision=group.revision,
    )


def quota_of(group: Group) -> Quota:
    """What the group may use."""
    return Quota(
        cpu=group.quota_cpu,
        memory=group.quota_memory,
        gpu=group.quota_gpu,
        replicas=group.quota_replicas,
    )


# ---- members


def members(tx: Session, actor: Actor, name: str, page: Page) -> Listing[MemberRecord]:
    """Who shares the group, those it was shared with first first.

    Raises:
        NotFound: there is no such group that the actor may see.
    """
    group = find(tx, actor, name)
    query = (
        select(Member)
        .where(Member.group_id == group.id)
        .order_by(Member.user_id)
        .limit(page.limit + 1)
    )
    if page.after is not None:
        query = query.where(Member.user_id > page.after)
    return page.cut(tx.scalars(query).all(), _member, lambda row: row.user_id)


def share(tx: Session, actor: Actor, name: str, user: str, level: MemberLevel) -> MemberRecord:
    """Give a user a level on the group, in place of the one they had.

    Raises:
        NotFound: there is no such group that the actor may see, or no such user.
        Refused: the actor may not.
        Conflict: it is the user's own group.
    """
    group, person = _group_and_user(tx, actor, name, user)
    member = tx.get(Member, (group.id, person.id))
    if member is None:
        member = Member(group_id=group.id, user_id=person.id, level=level)
        tx.add(member)
    elif person.name == name and level != Level.MANAGE.word:
        raise Conflict(f"{name!r} is the user's own group: its level stays manage")
    member.level = level
    audit.note(tx, actor, Action.SHARE, "group", name, name, detail=f"{user}: {level}")
    return MemberRecord(user=person.name, level=level)


def unshare(tx: Session, actor: Actor, name: str, user: str) -> None:
    """Take a user's level on the group away.

    Raises:
        NotFound: there is no such group that the actor may see, or no such member.
        Refused: the actor may not.
        Conflict: it is the user's own group.
    """
    group, person = _group_and_user(tx, actor, name, user)
    member = tx.get(Member, (group.id, person.id))
    if member is None:
        raise NotFound(f"{user!r} is no member of group {name!r}")
    if person.name == name:
        raise Conflict(f"{name!r} is the user's own group, and stays theirs")
    tx.delete(member)
    audit.note(tx, actor, Action.SHARE, "group", name, name, detail=f"{user}: none")


def _group_and_user(tx: Session, actor: Actor, name: str, user: str) -> tuple[Group, User]:
    group = find(tx, actor, name, Action.SHARE)
    person = tx.scalar(select(User).where(User.name == user))
    if person is None:
        raise NotFound(f"no user {user!r}")
    return group, person


def _member(row: Member) -> MemberRecord:
    return MemberRecord(user=row.user.name, level=row.level)
