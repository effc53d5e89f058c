"""Tokens made for a purpose: of one user, for one group or all, up to a level.

A token never opens more than its user may do at that moment; that is `permissions.level_in`.

Must never: show a token a second time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import func, select

from modelcloud.control.access import audit, groups, passwords
from modelcloud.control.access.auth import TOKEN, Holder, holders
from modelcloud.control.access.permissions import (
    Action,
    Actor,
    Level,
    Resource,
    allowed,
    level_in,
    require,
)
from modelcloud.control.common.paging import Page
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.errors import Conflict, NotFound
from modelcloud.store.tables import Group, Token, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Of one user.
MAX_TOKENS = 100

TokenLevel = Literal["predict", "read", "modify", "manage"]


class TokenRecord(Record):
    """A token, or a session (`kind`). `group` None: all the user's groups."""

    id: int
    kind: str
    name: str
    user: str
    group: str | None
    level: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None


class CreatedToken(TokenRecord):
    """A new token, which is shown this once."""

    token: str


class Predictors(NamedTuple):
    """Who may predict where a token is needed.

    Attributes:
        digests: id of each such group → what the gateways know its tokens by.
        until: when the first of them expires, seconds since the epoch; None: never.
    """

    digests: dict[int, tuple[str, ...]]
    until: float | None


def listing(tx: Session, actor: Actor, user: str | None, page: Page) -> Listing[TokenRecord]:
    """One's own tokens and sessions, or for administrators those of `user`, newest first.

    Raises:
        Refused: the actor may not see them.
        NotFound: there is no such user.
    """
    owner = actor.user_id
    if user is not None and user != actor.name:
        require(actor, Action.MANAGE_USERS, Resource(kind="token", name=user))
        found = tx.scalar(select(User.id).where(User.name == user))
        if found is None:
            raise NotFound(f"no user {user!r}")
        owner = found
    else:
        require(actor, Action.OWN_ACCOUNT, Resource(user_id=owner, kind="token"))
    query = (
        select(Token).where(Token.user_id == owner).order_by(Token.id.desc()).limit(page.limit + 1)
    )
    if page.after is not None:
        query = query.where(Token.id < page.after)
    return page.cut(tx.scalars(query).all(), _record, lambda row: row.id)


def create(
    tx: Session,
    actor: Actor,
    *,
    name: str,
    level: TokenLevel,
    group: str | None,
    expires_in_s: float | None,
) -> CreatedToken:
    """Make a token of one's own.

    Raises:
        Refused: the actor presented a token; only who signed in makes more.
        NotFound: there is no such group that the actor may see.
        Conflict: the user has too many.
    """
    require(actor, Action.OWN_ACCOUNT, Resource(user_id=actor.user_id, kind="token", name=name))
    group_id = groups.find(tx, actor, group).id if group is not None else None
    mine = select(func.count()).where(Token.user_id == actor.user_id, Token.kind == TOKEN)
    if (tx.scalar(mine) or 0) >= MAX_TOKENS:
        raise Conflict(f"you have {MAX_TOKENS} tokens already; revoke some that are not used")
    now = time.time()
    secret = passwords.new_token()
    row = Token(
        user_id=actor.user_id,
        group_id=group_id,
        kind=TOKEN,
        name=name,
        level=level,
        digest=passwords.digest(secret),
        created_at=now,
        expires_at=None if expires_in_s is None else now + expires_in_s,
    )
    tx.add(row)
    tx.flush()
    where = f"group {group}" if group else "all groups"
    audit.note(
        tx, actor, "tokens.create", "token", f"{row.id} {name}".rstrip(), group or "",
        detail=f"{level} on {where}",
    )  # fmt: skip
    return CreatedToken(**_record(row).model_dump(), token=secret)


def revoke(tx: Session, actor: Actor, token_id: int) -> None:
    """End a token or session of one's own, or for administrators anybody's.

    Raises:
        NotFound: there is none that the actor may see.
        Refused: it is one's own, but the actor presented a token.
    """
    row = tx.get(Token, token_id)
    if row is None or not (row.user_id == actor.user_id or allowed(actor, Action.MANAGE_USERS)):
        raise NotFound(f"no token {token_id}")
    if not allowed(actor, Action.MANAGE_USERS):
        require(actor, Action.OWN_ACCOUNT, Resource(user_id=row.user_id, kind="token"))
    group = row.group.name if row.group else ""
    name = f"{row.id} {row.name}".rstrip()
    tx.delete(row)
    audit.note(tx, actor, "tokens.delete", row.kind, name, group, detail=f"of {row.user.name}")


def predictors(tx: Session, now: float) -> Predictors:
    """The tokens that open the prediction addresses of groups which are not public.

    Sessions do not: what signs in does not travel to models.
    """
    closed = tx.scalars(select(Group.id).where(Group.public_predictions.is_(False))).all()
    if not closed:
        return Predictors({}, None)
    found = [h for h in holders(tx, now, Token.kind == TOKEN) if not h.actor.must_change_password]
    expiries = [holder.expires_at for holder in found if holder.expires_at is not None]
    return Predictors(
        {
            group_id: tuple(sorted(h.digest for h in found if _predicts(h, group_id)))
            for group_id in closed
        },
        min(expiries, default=None),
    )


def _predicts(holder: Holder, group_id: int) -> bool:
    return level_in(holder.actor, group_id) >= Level.PREDICT


def _record(row: Token) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        kind=row.kind,
        name=row.name,
        user=row.user.name,
        group=row.group.name if row.group else None,
        level=row.level,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
