"""The first start makes somebody who may sign in, with a password nobody else knows."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control import bootstrap
from modelcloud.control.access import passwords
from modelcloud.errors import Conflict, InvalidInput, StoreUnavailable, UsageError
from modelcloud.node.app import hold
from modelcloud.store.store import Store
from modelcloud.store.tables import AuditEntry, Group, InstanceType, Token, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def config(folder: Path) -> PlatformConfig:
    return PlatformConfig(data=str(folder))


def hashed(folder: Path) -> str:
    store = Store(bootstrap.database_url(config(folder)))

    async def read() -> str:
        try:
            return await store.read(
                lambda tx: tx.scalars(select(User.password_hash).where(User.name == "admin")).one()
            )
        finally:
            await store.close()

    return asyncio.run(read())


def test_10_two_installs_have_different_passwords_and_keep_only_hashes(tmp_path: Path) -> None:
    first, second = (bootstrap.prepare(config(tmp_path / name)) for name in "ab")
    assert first is not None
    assert second is not None
    assert first.user == second.user == "admin"
    assert first.password != second.password
    assert passwords.is_password(hashed(tmp_path / "a"), first.password)
    assert not passwords.is_password(hashed(tmp_path / "b"), first.password)
    for file in (tmp_path / "a").rglob("*"):
        assert not file.is_file() or first.password.encode() not in file.read_bytes()


def test_a_later_start_changes_nothing(tmp_path: Path) -> None:
    assert bootstrap.prepare(config(tmp_path / "data")) is not None
    before = hashed(tmp_path / "data")
    assert bootstrap.prepare(config(tmp_path / "data")) is None
    assert hashed(tmp_path / "data") == before


def test_the_folder_is_its_owners_alone_and_the_store_has_what_one_needs(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    bootstrap.prepare(config(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store = Store(bootstrap.database_url(config(folder)))

    async def read() -> tuple[list[str], list[str]]:
        try:
            return await store.read(
                lambda tx: (
                    list(tx.scalars(select(Group.name))),
                    list(tx.scalars(select(InstanceType.name).order_by(InstanceType.id))),
                )
            )
        finally:
            await store.close()

    assert asyncio.run(read()) == (["admin"], ["small", "medium", "large", "unlimited"])


def test_a_password_may_come_from_a_file_and_is_then_not_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("chosen by the operator\nsecond line\n")
    first = bootstrap.prepare(config(tmp_path / "data"), file)
    assert first == ("admin", "")
    assert passwords.is_password(hashed(tmp_path / "data"), "chosen by the operator")


@pytest.mark.parametrize("content", [b"short\n", b"", b"\xff\xfe not UTF-8\n"])
def test_a_file_without_a_password_is_refused_and_nobody_is_made(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises((InvalidInput, UsageError)) as refused:
        bootstrap.prepare(config(tmp_path / "data"), file)
    assert "short" not in refused.value.message.replace("too short", "")
    assert bootstrap.prepare(config(tmp_path / "data")) is not None


def test_a_folder_that_is_in_use_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    bootstrap.prepare(config(folder))
    with hold(folder), pytest.raises(Conflict, match=r"data.*in use by another"):
        bootstrap.prepare(config(folder))


# ---- a password that is lost


def rows(folder: Path, work: Callable[[Session], list[Any]]) -> list[Any]:
    store = Store(bootstrap.database_url(config(folder)))

    async def transact() -> list[Any]:
        try:
            return await store.transact(work)
        finally:
            await store.close()

    return asyncio.run(transact())


def test_a_lost_password_is_set_anew_and_ends_what_was_signed_in(tmp_path: Path) -> None:
    first = bootstrap.prepare(config(tmp_path))
    assert first is not None

    def sign_in_and_disable(tx: Session) -> list[Any]:
        user = tx.scalars(select(User)).one()
        user.disabled = user.must_change_password = True
        for kind in ("session", "token"):
            tx.add(Token(user_id=user.id, kind=kind, level="manage", digest=kind, created_at=0.0))
        return []

    rows(tmp_path, sign_in_and_disable)
    password = bootstrap.reset(config(tmp_path))
    assert password != first.password
    assert passwords.is_password(hashed(tmp_path), password)
    user = rows(tmp_path, lambda tx: list(tx.scalars(select(User))))[0]
    assert (user.disabled, user.must_change_password) == (False, False)
    assert rows(tmp_path, lambda tx: list(tx.scalars(select(Token.kind)))) == ["token"]
    last = rows(tmp_path, lambda tx: list(tx.scalars(select(AuditEntry))))[-1]
    assert (last.actor, last.action, last.name, last.detail) == (
        "modelcloud reset-admin", "users.manage", "admin", "password, enabled",
    )  # fmt: skip


def test_only_an_administrator_of_a_platform_that_stands_still_gets_one(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match=r"nowhere: no platform is there"):
        bootstrap.reset(config(nowhere))
    assert not nowhere.exists()
    with pytest.raises(UsageError, match="no platform is there"):
        bootstrap.reset(config(tmp_path))
    bootstrap.prepare(config(tmp_path))
    before = hashed(tmp_path)
    with pytest.raises(UsageError, match="--user ann: no administrator; accepted: admin"):
        bootstrap.reset(config(tmp_path), "ann")
    with hold(tmp_path), pytest.raises(Conflict, match="in use by another"):
        bootstrap.reset(config(tmp_path))
    assert hashed(tmp_path) == before


def test_a_database_that_cannot_be_reached_is_told_with_its_host_and_the_cause(
    tmp_path: Path,
) -> None:
    url = "postgresql://ann:s3cret-word@127.0.0.1:1/platform"
    with pytest.raises(StoreUnavailable) as refused:
        bootstrap.prepare(PlatformConfig(data=str(tmp_path), database=url))
    assert "127.0.0.1" in refused.value.message
    assert "refused" in refused.value.message
    assert "s3cret-word" not in refused.value.message
