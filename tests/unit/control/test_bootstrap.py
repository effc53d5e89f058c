"""The first start makes somebody who may sign in, with a password nobody else knows."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url, select

from modelcloud.config import PlatformConfig
from modelcloud.control import bootstrap, identity
from modelcloud.control.access import passwords, users
from modelcloud.errors import Conflict, InvalidInput, StoreUnavailable, UsageError
from modelcloud.node.app import hold
from modelcloud.store import databases
from modelcloud.store.store import Store
from modelcloud.store.tables import AuditEntry, Group, InstanceType, Token, User
from support.postgres import Postgres

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def config(folder: Path) -> PlatformConfig:
    return PlatformConfig(data=str(folder))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but those of SQLite's log and the lock."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "lock" and not path.name.endswith(("-wal", "-shm"))
    }


def used(folder: Path, database: str = "") -> PlatformConfig:
    """A platform whose folder holds an artifact."""
    made = PlatformConfig(data=str(folder), database=database)
    bootstrap.prepare(made)
    artifact = folder / "artifacts" / ("a" * 64)
    artifact.mkdir(parents=True)
    (artifact / "model.py").write_text("")
    return made


def database_name(platform: PlatformConfig) -> str:
    return str(make_url(platform.database).database)


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


# ---- the store and the folder are one platform's


def test_a_store_that_is_gone_is_not_made_anew_beside_artifacts(tmp_path: Path) -> None:
    platform = used(tmp_path / "data")
    for file in (tmp_path / "data").glob("modelcloud.db*"):
        file.unlink()
    before = everything(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(Conflict, match=r"store is empty.*Nothing was changed.*backup"):
            bootstrap.prepare(platform)
    assert everything(tmp_path / "data") == before


def test_a_first_start_on_a_folder_with_artifacts_of_nobody_is_refused(tmp_path: Path) -> None:
    platform = used(tmp_path / "data")
    for file in (tmp_path / "data").glob("*-*"):
        file.unlink()
    (tmp_path / "data" / "modelcloud.db").unlink()
    assert identity.of_folder(tmp_path / "data") is None
    with pytest.raises(Conflict, match="give --data an empty folder"):
        bootstrap.prepare(platform)


def test_a_platform_on_postgresql_is_not_started_without_its_database(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.url(postgres.create())
    platform = used(tmp_path / "data", url)
    with pytest.raises(Conflict, match=r"the --database that it was started with before"):
        bootstrap.prepare(config(tmp_path / "data"))
    assert not (tmp_path / "data" / "modelcloud.db").exists()
    assert bootstrap.prepare(platform) is None


def test_a_database_serves_the_folder_that_it_was_first_used_with(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.url(postgres.create())
    used(tmp_path / "one", url)
    other = PlatformConfig(data=str(tmp_path / "two"), database=url)
    with pytest.raises(Conflict, match=r"two' has no id: they do not belong together"):
        bootstrap.prepare(other)
    bootstrap.prepare(config(tmp_path / "two"))
    with pytest.raises(Conflict, match=r"two' is that of platform \w+: they do not"):
        bootstrap.prepare(other)


def test_a_first_start_that_fails_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StoreUnavailable("full")

    with monkeypatch.context() as broken:
        broken.setattr(users, "add", fails)
        with pytest.raises(StoreUnavailable):
            bootstrap.prepare(config(tmp_path / "data"))
    assert bootstrap.prepare(config(tmp_path / "data")) is not None


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


def test_a_copy_of_the_folder_is_refused_while_the_first_one_runs(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOCK_WAIT_S", 1)
    first = used(tmp_path / "one", postgres.url(postgres.create()))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = PlatformConfig(data=str(tmp_path / "two"), database=first.database)
    name = f"process {os.getpid()} on {socket.gethostname()}"

    async def run() -> None:
        running, copy = bootstrap.open_store(first), bootstrap.open_store(second)
        await running.transact(identity.of_store)
        with pytest.raises(StoreUnavailable, match=f"in use by another platform .*{name}"):
            await asyncio.to_thread(bootstrap.prepare, second)
        with pytest.raises(StoreUnavailable, match="in use by another platform"):
            await copy.transact(identity.of_store)
        # What the server ends, another may take; then the first one cannot write.
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = "
            f"'{database_name(first)}')"
        )
        await copy.transact(identity.of_store)
        with pytest.raises(StoreUnavailable, match="in use by another platform"):
            await running.transact(identity.of_store)
        await copy.close()
        await running.transact(identity.of_store)
        await running.close()

    asyncio.run(run())
    assert bootstrap.prepare(second) is None


def test_a_database_that_cannot_be_reached_is_told_with_its_host_and_the_cause(
    tmp_path: Path,
) -> None:
    url = "postgresql://ann:s3cret-word@127.0.0.1:1/platform"
    with pytest.raises(StoreUnavailable) as refused:
        bootstrap.prepare(PlatformConfig(data=str(tmp_path), database=url))
    assert "127.0.0.1" in refused.value.message
    assert "refused" in refused.value.message
    assert "s3cret-word" not in refused.value.message
