"""The first start: the data folder, the store, and somebody who may sign in; and the way back in.

Must never: know a password that somebody else could know, or log one; make a new platform where
there was one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from modelcloud.config import MIB, PlatformConfig
from modelcloud.control import identity
from modelcloud.control.access import audit, passwords, users
from modelcloud.control.access.auth import end_sessions
from modelcloud.control.access.permissions import Action
from modelcloud.errors import StoreUnavailable, UsageError
from modelcloud.node.app import hold
from modelcloud.store.store import Store
from modelcloud.store.tables import InstanceType, Platform, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ADMIN = "admin"
#: The SQLite store, in the data folder.
DATABASE = "modelcloud.db"
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
    return Path(config.data).absolute() / DATABASE


def open_store(config: PlatformConfig) -> Store:
    """The store, which no other platform can write to meanwhile.

    Raises:
        UsageError: the URL cannot be read, or the driver is not installed.
    """
    name = f"modelcloud up, process {os.getpid()} on {socket.gethostname()}"
    return Store(database_url(config), alone_as=name)


def prepare(config: PlatformConfig, password_file: Path | None = None) -> FirstStart | None:
    """Make what is missing of the data folder and the store; call it before the node starts.

    Args:
        config: the settings of the whole.
        password_file: its first line becomes the first administrator's password.

    Returns:
        The first administrator, if it was the first start.

    Raises:
        Conflict: another `modelcloud up` uses the folder, the store is newer than this version, or
            the two do not belong together.
        StoreUnavailable: the store cannot be reached, is damaged, or another platform's.
        UsageError: the folder cannot be made, or the file holds no password that may be set.
    """
    data = Path(config.data)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--data {config.data}: {error.strerror}") from None
    with hold(data), _cause_told():
        if not config.database and not (data / DATABASE).exists():
            identity.check(data, None)  # before an empty one lies where a backup belongs
        return asyncio.run(_prepare(open_store(config), data, password_file))


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


async def _prepare(store: Store, data: Path, password_file: Path | None) -> FirstStart | None:
    try:
        await store.migrate()
        stored = await store.read(identity.of_store)
        identity.check(data, stored)
        if stored is not None:
            return None
        given = None if password_file is None else _password_of(password_file)
        password = given or passwords.new_password()
        await _make(store, data, passwords.hash_password(password))
        return FirstStart(ADMIN, password if given is None else "")
    finally:
        await store.close()


def reset(config: PlatformConfig, user: str = ADMIN) -> str:
    """Give an administrator a new random password, and end their sessions; nothing may run.

    Returns:
        The password, which is to be shown once, and is nowhere else.

    Raises:
        Conflict: a `modelcloud up` uses the folder, the store is newer than this version, or the
            two do not belong together.
        StoreUnavailable: the store cannot be reached, or is damaged.
        UsageError: there is no platform, or no such administrator.
    """
    data = Path(config.data)
    if not data.is_dir() or not (config.database or _file(config).is_file()):
        raise UsageError(f"--data {config.data}: no platform is there; `modelcloud up` makes one")
    with hold(data), _cause_told():
        return asyncio.run(_reset(open_store(config), data, user))


async def _reset(store: Store, data: Path, user: str) -> str:
    try:
        await store.migrate()
        identity.check(data, await store.read(identity.of_store))
        password = passwords.new_password()
        hashed = passwords.hash_password(password)
        await store.transact(partial(_set_password, user, hashed))
        return password
    finally:
        await store.close()


async def _make(store: Store, data: Path, hashed: str) -> None:
    platform = identity.new_id()
    identity.write(data, platform)
    try:
        await store.transact(partial(_fill, platform, hashed))
    except BaseException:
        (data / identity.FILE).unlink()
        raise


def _password_of(file: Path) -> str:
    try:
        password = file.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"the password file {file}: {why}") from None
    passwords.check_password(password, f"the first line of {file}")
    return password


def _fill(platform: str, hashed: str, tx: Session) -> None:
    tx.add(Platform(id=platform, created_at=time.time()))
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
