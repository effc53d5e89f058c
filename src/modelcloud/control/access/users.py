"""Users: made, changed and removed by administrators of the instance.

Must never: see a password, only its hash; or leave the instance without an administrator.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from modelcloud.control.access import audit, groups
from modelcloud.control.access.auth import end_sessions
from modelcloud.control.access.permissions import Action, Actor, Resource, require
from modelcloud.control.common.names import check_name
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.common.revisions import Expected
from modelcloud.errors import Conflict, NotFound
from modelcloud.store.tables import Deployment, Group, Monitor, Service, User, Version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


#: Names of users by which `permissions` tells whose something is.
_OWNERS = (
    Service.created_by,
    Version.created_by,
    Deployment.deployed_by,
    Monitor.created_by,
)


class UserRecord(Record):
    """A user."""

    name: str
    is_admin: bool
    disabled: bool
    must_change_password: bool
    created_at: Time
    revision: int


def listing(tx: Session, actor: Actor, page: Page) -> Listing[UserRecord]:
    """All users, oldest first.

    Raises:
        Refused: the actor is no administrator.
    """
    require(actor, Action.MANAGE_USERS, Resource(kind="user"))
    query = select(User).order_by(User.id).limit(page.limit + 1)
    if page.after is not None:
        query = query.where(User.id > page.after)
    return page.cut(tx.scalars(query).all(), record, lambda row: row.id)


def one(tx: Session, actor: Actor, name: str) -> UserRecord:
    """One of them.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is no such user.
    """
    return record(_find(tx, actor, name))


def create(
    tx: Session, actor: Actor, name: str, hashed: str, *, is_admin: bool, must_change: bool
) -> UserRecord:
    """Make a user, with the group of the same name.

    Raises:
        Refused: the actor is no administrator.
        InvalidInput: it is no name.
        Conflict: a user or a group has it.
    """
    require(actor, Action.MANAGE_USERS, Resource(kind="user", name=name))
    user = add(tx, name, hashed, is_admin=is_admin, must_change=must_change)
    detail = "administrator" if is_admin else ""
    audit.note(tx, actor, "users.create", "user", name, detail=detail)
    return record(user)


def add(tx: Session, name: str, hashed: str, *, is_admin: bool, must_change: bool) -> User:
    """Add a user and their group; whoever calls has checked that this is allowed.

    Raises:
        InvalidInput: it is no name.
        Conflict: a user or a group has it, in whatever case.
    """
    check_name(name)
    taken = tx.scalar(select(User.name).where(func.lower(User.name) == name.lower()))
    if taken is not None:
        raise Conflict(f"the name {name!r} is taken: there is a user {taken!r}")
    user = User(
        name=name,
        password_hash=hashed,
        is_admin=is_admin,
        must_change_password=must_change,
        created_at=time.time(),
    )
    tx.add(user)
    tx.flush()
    groups.add(tx, name, user.id)
    return user


def edit(
    tx: Session,
    actor: Actor,
    name: str,
    changes: dict[str, Any],
    expected: Expected,
    hashed: str | None = None,
) -> UserRecord:
    """Change what is in `changes`, and the password.

    `changes` may hold `is_admin`, `disabled` and `must_change_password`.

    Disabling, or another password, ends the user's sessions. What is left of rights is judged at
    each request, so all of it holds at once.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is no such user.
        Conflict: no administrator would be left, or it is one's own password.
        PreconditionFailed: the user was changed in the meantime.
    """
    user = _find(tx, actor, name)
    expected.check(user.revision, f"user {name!r}")
    for field in ("is_admin", "disabled", "must_change_password"):
        if field in changes:
            setattr(user, field, changes[field])
    if hashed is not None:
        if user.id == actor.user_id:
            raise Conflict("change your own password with the current one: `modelcloud passwd`")
        user.password_hash = hashed
    user.revision += 1
    tx.flush()
    _refuse_no_admin(tx)
    if user.disabled or hashed is not None:
        end_sessions(tx, user.id)
    told = [f"{field} {value}" for field, value in changes.items()]
    detail = ", ".join([*told, *(["password"] if hashed is not None else [])])
    audit.note(tx, actor, Action.MANAGE_USERS, "user", name, detail=detail)
    return record(user)


def delete(tx: Session, actor: Actor, name: str, expected: Expected) -> None:
    """Remove a user, their tokens, and the group of the same name.

    Raises:
        Refused: the actor is no administrator.
        NotFound: there is no such user.
        Conflict: that group has services, or no administrator would be left.
        PreconditionFailed: the user was changed in the meantime.
    """
    user = _find(tx, actor, name)
    expected.check(user.revision, f"user {name!r}")
    group = tx.scalar(select(Group).where(Group.name == name))
    if group is not None:
        groups.refuse_services(tx, group)
        tx.delete(group)
    for column in _OWNERS:  # no later user of this name is to own any of it
        tx.execute(
            update(column.class_).where(column == name).values({column: f"{name} (deleted)"})
        )
    tx.delete(user)
    tx.flush()
    _refuse_no_admin(tx)
    audit.note(tx, actor, "users.delete", "user", name)


def record(user: User) -> UserRecord:
    """The record of a row."""
    return UserRecord(
        name=user.name,
        is_admin=user.is_admin,
        disabled=user.disabled,
        must_change_password=user.must_change_password,
        created_at=user.created_at,
        revision=user.revision,
    )


def _find(tx: Session, actor: Actor, name: str) -> User:
    require(actor, Action.MANAGE_USERS, Resource(kind="user", name=name))
    user = tx.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"no user {name!r}")
    return user


def _refuse_no_admin(tx: Session) -> None:
    """What was done so far is undone by raising."""
    admins = select(func.count()).where(User.is_admin, User.disabled.is_(False))
    if not tx.scalar(admins):
        raise Conflict("this is the last administrator who can sign in; make another one first")
