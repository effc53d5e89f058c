"""The first start: the data folder, the store, and somebody who may sign in; and the way back in.

Must never: know a password that somebody else could know, or log one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from modelcloud.config import MIB, PlatformConfig
from modelcloud.control.access import audit, passwords, users
from modelcloud.control.access.auth import end_sessions
from modelcloud.control.access.permissions import Action
from modelcloud.errors import StoreUnavailable, UsageError
from modelcloud.node.app import hold
from modelcloud.store.store import Store
from modelcloud.store.tables import InstanceType, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ADMIN = "admin"
_GIB = 1024 * MIB
#: Name → processors and bytes of a replica; two processors have room for several of the small ones.
_INSTANCE_TYPES = {
    "small": ("a quarter of a processor, 1 GiB", 0.25, _GIB),
    "medium": ("1 processor, 4 GiB", 1.0, 4 * _GIB),
    "large": ("4 processors, 16 GiB", 4.0, 16 * _GIB),
    "unlimited": ("as much as there is", 0.0, 0),
}


class FirstStart(NamedTuple):
    """Who signs in first; the password is to be shown once, and is nowhere else.

    Empty: it is the one of the password file.
    """

    user: str
    password: str


def database_url(config: PlatformConfig) -> str:
    """The SQLAlchemy URL of the store."""
    return config.database or f"sqlite:///{_file(config)}"


def _file(config: PlatformConfig) -> Path:
    return Path(config.data).absolute() / "modelcloud.db"


def prepare(config: PlatformConfig, password_file: Path | None = None) -> FirstStart | None:
    """Make what is missing of the data folder and the store; call it before the node starts.

    Args:
        config: the settings of the whole.
        password_file: its first line becomes the first administrator's password.

    Returns:
        The first administrator, if it was the first start.

    Raises:
        Conflict: another `modelcloud up` uses the folder, or the store is newer than this version.
        StoreUnavailable: the store cannot be reached, or is damaged.
        UsageError: the folder cannot be made, or the file holds no password that may be set.
    """
    data = Path(config.data)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--data {config.data}: {error.strerror}") from None
    with hold(data), _cause_told():
        return asyncio.run(_prepare(database_url(config), password_file))


@contextlib.contextmanager
def _cause_told() -> Iterator[None]:
    """Tell who starts the platform what the database's driver said: the host, and what is wrong.

    Drivers put no password in it; clients of the API get none of it all the same.
    """
    try:
        yield
    except StoreUnavailable as error:
        if not error.detail:
            raise
        raise StoreUnavailable(f"{error.message} ({error.detail})") from None


async def _prepare(url: str, password_file: Path | None) -> FirstStart | None:
    store = Store(url)
    try:
        await store.migrate()
        if await store.read(_has_users):
            return None
        given = None if password_file is None else _password_of(password_file)
        password = given or passwords.new_password()
        await store.transact(partial(_fill, passwords.hash_password(password)))
        return FirstStart(ADMIN, password if given is None else "")
    finally:
        await store.close()


def reset(config: PlatformConfig, user: str = ADMIN) -> str:
    """Give an administrator a new random password, and end their sessions; nothing may run.

    Returns:
        The password, which is to be shown once, and is nowhere else.

    Raises:
        Conflict: a `modelcloud up` uses the folder, or the store is newer than this version.
        StoreUnavailable: the store cannot be reached, or is damaged.
        UsageError: there is no platform, or no such administrator.
    """
    data = Path(config.data)
    if not data.is_dir() or not (config.database or _file(config).is_file()):
        raise UsageError(f"--data {config.data}: no platform is there; `modelcloud up` makes one")
    with hold(data), _cause_told():
        return asyncio.run(_reset(database_url(config), user))


async def _reset(url: str, user: str) -> str:
    store = Store(url)
    try:
        await store.migrate()
        password = passwords.new_password()
        hashed = passwords.hash_password(password)
        await store.transact(partial(_set_password, user, hashed))
        return password
    finally:
        await store.close()


def _password_of(file: Path) -> str:
    try:
        password = file.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"the password file {file}: {why}") from None
    passwords.check_password(password, f"the first line of {file}")
    return password


def _has_users(tx: Session) -> bool:
    return tx.scalar(select(User.id).limit(1)) is not None


def _fill(hashed: str, tx: Session) -> None:
    users.add(tx, ADMIN, hashed, is_admin=True, must_change=False)
    for name, (description, cpu, memory) in _INSTANCE_TYPES.items():
        tx.add(InstanceType(name=name, description=description, cpu=cpu, memory=memory))
    audit.note(tx, "modelcloud up", "users.create", "user", ADMIN, detail="first start")


def _set_password(name: str, hashed: str, tx: Session) -> None:
    user = tx.scalar(select(User).where(User.name == name, User.is_admin))
    if user is None:
        there = tx.scalars(select(User.name).where(User.is_admin).order_by(User.name)).all()
        raise UsageError(f"--user {name}: no administrator; accepted: {', '.join(there) or 'none'}")
    enabled = ", enabled" if user.disabled else ""
    user.password_hash, user.disabled, user.must_change_password = hashed, False, False
    user.revision += 1
    end_sessions(tx, user.id)
    audit.note(
        tx, "modelcloud reset-admin", Action.MANAGE_USERS, "user", name, detail=f"password{enabled}"
    )
