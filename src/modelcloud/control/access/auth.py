"""Who asks: passwords become sessions, tokens become actors, and both end at once when revoked.

A session ends 12 hours after it began, however much it is used: a stolen one is worth no more
than that. Nothing of a token is cached: each request reads the token, its user and the user's
memberships in one query, so that what is revoked opens nothing from that moment on.

Must never: say whether it was the name or the password that was wrong.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace
from sqlalchemy import ColumnElement, delete, or_, select, update

from modelcloud.control.access import audit, passwords
from modelcloud.control.access.password_guesses import PasswordGuesses
from modelcloud.control.access.permissions import Action, Actor, Level, Resource, level_in, require
from modelcloud.control.common.records import Record, Time
from modelcloud.errors import Forbidden, StoreUnavailable, Unauthorized
from modelcloud.serve.guesses import Guesses
from modelcloud.store.tables import Group, Member, Token, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

SESSION_S = 12 * 3600.0
#: Of one user; the oldest one ends when one more begins.
MAX_SESSIONS = 50
#: `last_used_at` is written at most this often.
TOUCH_EVERY_S = 60.0
_TOUCHED = 4096

#: Of a name that nobody has, as the audit log shows it.
LONGEST_NAME = 64

SESSION, TOKEN = "session", "token"


class SignedIn(Record):
    """A new session; the token is shown this once."""

    token: str
    expires_at: Time
    user: str
    must_change_password: bool


class Membership(Record):
    """A group and one's level on it."""

    group: str
    level: str


class Account(Record):
    """Who one is: the user, and what the presented token opens of it."""

    user: str
    is_admin: bool
    must_change_password: bool
    kind: str
    scope_group: str | None
    scope_level: str
    groups: list[Membership]


class Holder(NamedTuple):
    """A valid token: who presents it, what it is kept as, and when it ends."""

    actor: Actor
    digest: str
    expires_at: float | None


class Auth:
    """Signs in, and knows tokens.

    Args:
        store: where users and tokens are.
        wall: seconds since the epoch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hashing = passwords.Hashing()
        self._store = store
        self._wall = wall
        self._clock = clock
        self._wrong_passwords = PasswordGuesses(clock)
        self._wrong_tokens = Guesses("wrong tokens from this address", clock)
        self._touched: OrderedDict[int, float] = OrderedDict()

    async def actor(self, token: str, peer: str) -> Actor:
        """Who a presented token stands for.

        A right one is never refused for what others guessed: 256 bits are not guessed, and the
        limit only keeps guessing from being worth anybody's while.

        Raises:
            Unauthorized: it is unknown, expired or revoked, or its user is disabled or deleted.
            TooManyRequests: likewise, and too many such came from this address.
            StoreUnavailable: nobody can tell.
        """
        found = await self._store.read(partial(_presented, token, self._wall()))
        if found is None:
            self._wrong_tokens.check(peer)
            self._wrong_tokens.add(peer)
            raise Unauthorized("the token is wrong, expired or revoked; sign in again")
        await self._touch(found.token_id)
        return replace(found, peer=peer)

    async def sign_in(self, user: str, password: str, peer: str) -> SignedIn:
        """Begin a session.

        Raises:
            Unauthorized: no such user, another password, or the user is disabled.
            TooManyRequests: see `password_guesses`.
        """
        self._wrong_passwords.begin(user, peer)
        hashed = await self._store.read(partial(_password_hash, user))
        if not await self.hashing.verify(hashed, password):
            named, detail = user, ""
            if hashed is None:
                named, detail = _shown(user), "no such user, or disabled"
            refused = partial(
                audit.note, actor=named, action="session.create", kind="session", name=named,
                outcome=audit.REFUSED, detail=detail, peer=peer,
            )  # fmt: skip
            await self._store.transact(refused)
            raise Unauthorized("the user name or the password is wrong")
        self._wrong_passwords.forgive(user, peer)
        return await self._store.transact(partial(_begin_session, user, hashed, self._wall(), peer))

    async def change_password(self, actor: Actor, current: str, new: str) -> None:
        """Set one's own password; one's other sessions end, and tokens made for a purpose stay.

        Raises:
            Forbidden: the current password is another.
            InvalidInput: the new one is too short, or the current one again.
            TooManyRequests: see `password_guesses`.
        """
        account = Resource(user_id=actor.user_id, kind="user", name=actor.name)
        require(actor, Action.OWN_ACCOUNT, account)
        passwords.check_password(new, "new", other_than=current)
        self._wrong_passwords.begin(actor.name, actor.peer)
        hashed = await self._store.read(partial(_password_hash, actor.name))
        if not await self.hashing.verify(hashed, current):
            raise Forbidden("current: this is not your password")
        self._wrong_passwords.forgive(actor.name, actor.peer)
        new_hash = await self.hashing.hash(new)
        await self._store.transact(partial(_set_own_password, actor, hashed, new_hash))

    async def _touch(self, token_id: int) -> None:
        """Keep when a token was last used; whether that can be kept does not matter to who asks."""
        now = self._clock()
        if now - self._touched.get(token_id, float("-inf")) < TOUCH_EVERY_S:
            return
        self._touched[token_id] = now
        self._touched.move_to_end(token_id)
        if len(self._touched) > _TOUCHED:
            self._touched.popitem(last=False)
        try:
            await self._store.transact(partial(_set_used, token_id, self._wall()))
        except StoreUnavailable as error:
            log.warning("when token %d was used could not be kept: %s", token_id, error.message)


# ---- what runs in transactions


def account(tx: Session, actor: Actor) -> Account:
    """Who `actor` is, with every group it may see something of."""
    levels = {group_id: level for group_id in actor.levels if (level := level_in(actor, group_id))}
    rows = tx.execute(
        select(Group.id, Group.name).where(Group.id.in_(levels)).order_by(Group.name)
    ).all()
    scope = actor.scope_group and tx.get(Group, actor.scope_group)
    return Account(
        user=actor.name,
        is_admin=actor.is_admin,
        must_change_password=actor.must_change_password,
        kind=SESSION if actor.session else TOKEN,
        scope_group=scope.name if scope else None,
        scope_level=actor.scope_level.word,
        groups=[Membership(group=name, level=levels[group_id].word) for group_id, name in rows],
    )


def sign_out(tx: Session, actor: Actor) -> None:
    """End the session that was presented.

    Raises:
        Refused: it is a token made for a purpose; those are revoked under `/tokens`.
    """
    require(actor, Action.OWN_ACCOUNT, Resource(user_id=actor.user_id, kind="session"))
    tx.execute(delete(Token).where(Token.id == actor.token_id))
    audit.note(tx, actor, "session.delete", "session", actor.name)


def end_sessions(tx: Session, user_id: int, but: int = 0) -> None:
    """End the user's sessions, save the one of token `but`."""
    tx.execute(
        delete(Token).where(Token.user_id == user_id, Token.kind == SESSION, Token.id != but)
    )


def holders(tx: Session, now: float, *which: ColumnElement[bool]) -> list[Holder]:
    """The tokens that are valid now, of those that meet all of `which`, and who presents each."""
    rows = tx.execute(
        select(Token, User, Member.group_id, Member.level)
        .join(User, User.id == Token.user_id)
        .outerjoin(Member, Member.user_id == User.id)
        .where(
            User.disabled.is_(False),
            or_(Token.expires_at.is_(None), Token.expires_at > now),
            *which,
        )
    ).all()
    memberships: dict[int, dict[int, Level]] = {}
    for token, _, group_id, level in rows:
        levels = memberships.setdefault(token.id, {})
        if group_id is not None:
            levels[group_id] = Level.of(level)
    return [
        _holder(token, user, memberships[token.id])
        for token, user in {row[0].id: (row[0], row[1]) for row in rows}.values()
    ]


def actor_of(tx: Session, user_id: int, peer: str) -> Actor | None:
    """A user as what acts in their name while they are away; None: gone, or disabled.

    It may do all that the user may now, but for what only somebody who is signed in may.
    """
    user = tx.get(User, user_id)
    if user is None or user.disabled:
        return None
    members = tx.execute(select(Member.group_id, Member.level).where(Member.user_id == user_id))
    return Actor(
        user_id=user.id,
        name=user.name,
        is_admin=user.is_admin,
        levels={group_id: Level.of(level) for group_id, level in members},
        session=False,
        peer=peer,
    )


def _holder(token: Token, user: User, levels: dict[int, Level]) -> Holder:
    actor = Actor(
        user_id=user.id,
        name=user.name,
        is_admin=user.is_admin,
        levels=levels,
        scope_group=token.group_id,
        scope_level=Level.of(token.level),
        session=token.kind == SESSION,
        must_change_password=user.must_change_password,
        token_id=token.id,
    )
    return Holder(actor, token.digest, token.expires_at)


def _presented(token: str, now: float, tx: Session) -> Actor | None:
    found = holders(tx, now, Token.digest == passwords.digest(token))
    return found[0].actor if found else None


def _shown(name: str) -> str:
    """What somebody typed as a name, fit to be looked at: short, and of one line."""
    cut = name[:LONGEST_NAME] + ("…" if len(name) > LONGEST_NAME else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _set_used(token_id: int, now: float, tx: Session) -> None:
    tx.execute(update(Token).where(Token.id == token_id).values(last_used_at=now))


def _password_hash(user: str, tx: Session) -> str | None:
    return tx.scalar(select(User.password_hash).where(User.name == user, User.disabled.is_(False)))


def _begin_session(name: str, hashed: str | None, now: float, peer: str, tx: Session) -> SignedIn:
    user = tx.scalar(select(User).where(User.name == name, User.disabled.is_(False)))
    if user is None or user.password_hash != hashed:  # changed while it was checked
        raise Unauthorized("the user name or the password is wrong")
    tx.execute(delete(Token).where(Token.kind == SESSION, Token.expires_at <= now))
    newest = (
        select(Token.id)
        .where(Token.user_id == user.id, Token.kind == SESSION)
        .order_by(Token.id.desc())
        .offset(MAX_SESSIONS - 1)
    )
    oldest = tx.scalars(newest).all()
    tx.execute(delete(Token).where(Token.id.in_(oldest)))
    token = passwords.new_token()
    tx.add(
        Token(
            user_id=user.id,
            kind=SESSION,
            level=Level.MANAGE.word,
            digest=passwords.digest(token),
            created_at=now,
            expires_at=now + SESSION_S,
        )
    )
    audit.note(tx, name, "session.create", "session", name, peer=peer)
    return SignedIn(
        token=token,
        expires_at=now + SESSION_S,
        user=user.name,
        must_change_password=user.must_change_password,
    )


def _set_own_password(actor: Actor, hashed: str | None, new_hash: str, tx: Session) -> None:
    user = tx.get(User, actor.user_id)
    if user is None or user.password_hash != hashed:
        raise Forbidden("current: this is not your password")
    user.password_hash = new_hash
    user.must_change_password = False
    user.revision += 1
    end_sessions(tx, user.id, but=actor.token_id)
    audit.note(tx, actor, "account.password", "user", user.name)
