"""Transactions of the store, on both databases."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from modelcloud.errors import Conflict, ModelcloudError, StoreUnavailable, UsageError
from modelcloud.store import databases as module
from modelcloud.store import store as store_module
from modelcloud.store.store import Store
from modelcloud.store.tables import Group, Member, User
from support.postgres import Postgres

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def user(name: str) -> User:
    return User(name=name, password_hash="", created_at=0.0)


def add(name: str) -> Callable[[Session], None]:
    return lambda tx: tx.add(user(name))


def names(tx: Session) -> list[str]:
    return list(tx.scalars(select(User.name).order_by(User.name)))


def refused(work: Coroutine[Any, Any, object], error: type[ModelcloudError]) -> ModelcloudError:
    with pytest.raises(error) as caught:
        asyncio.run(work)
    return caught.value


def test_what_work_raises_undoes_what_it_did(store: Store) -> None:
    def half(tx: Session) -> None:
        tx.add(user("half"))
        tx.flush()
        raise UsageError("no")

    refused(store.transact(half), UsageError)
    assert asyncio.run(store.read(names)) == []


def test_a_record_is_used_after_its_transaction(store: Store) -> None:
    def work(tx: Session) -> User:
        tx.add(made := user("ann"))
        return made

    made = asyncio.run(store.transact(work))
    assert (made.id, made.name) == (1, "ann")


def test_a_read_cannot_write(store: Store) -> None:
    def work(tx: Session) -> None:
        tx.add(user("ann"))
        tx.flush()

    refused(store.read(work), StoreUnavailable)
    assert asyncio.run(store.read(names)) == []


def test_rows_that_belong_to_a_removed_row_go_with_it(store: Store) -> None:
    def make(tx: Session) -> None:
        member = Member(user=user("ann"), group=Group(name="g", created_at=0.0), level="read")
        tx.add(member)

    def remove(tx: Session) -> int:
        tx.delete(tx.scalars(select(User)).one())
        tx.flush()
        return len(tx.scalars(select(Member)).all())

    asyncio.run(store.transact(make))
    assert asyncio.run(store.transact(remove)) == 0


def test_the_id_of_a_removed_row_is_not_given_again(store: Store) -> None:
    def again(tx: Session) -> tuple[int, int]:
        tx.add(first := user("ann"))
        tx.flush()
        tx.delete(first)
        tx.flush()
        tx.add(second := user("ann"))
        tx.flush()
        return first.id, second.id

    first, second = asyncio.run(store.transact(again))
    assert second > first


def test_writers_of_two_programs_take_turns(store: Store, database_url: str) -> None:
    other = Store(database_url)

    def raise_quota(tx: Session) -> None:
        group = tx.scalars(select(Group)).one()
        group.revision += 1

    async def run() -> int:
        await store.transact(lambda tx: tx.add(Group(name="g", created_at=0.0)))
        await asyncio.gather(*(s.transact(raise_quota) for s in [store, other] * 20))
        await other.close()
        return await store.read(lambda tx: tx.scalars(select(Group.revision)).one())

    assert asyncio.run(run()) == 41


def test_a_reader_sees_one_state_while_a_writer_writes(store: Store) -> None:
    began, written = threading.Event(), threading.Event()

    def twice(tx: Session) -> tuple[list[str], list[str]]:
        first = names(tx)
        began.set()
        assert written.wait(20)
        return first, names(tx)

    async def run() -> tuple[list[str], list[str]]:
        reading = asyncio.ensure_future(store.read(twice))
        await asyncio.to_thread(began.wait, 20)
        await store.transact(add("ann"))
        written.set()
        return await reading

    assert asyncio.run(run()) == ([], [])


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (add("taken"), Conflict),
        (lambda tx: tx.add(Member(user_id=99, group_id=99, level="read")), Conflict),
        (lambda tx: tx.get(User, 10**30), UsageError),
        (add("\ud800"), UsageError),
    ],
)
def test_what_the_database_refuses_is_an_error_of_ours(
    store: Store, work: Callable[[Session], None], error: type[ModelcloudError]
) -> None:
    asyncio.run(store.transact(add("taken")))
    refused(store.transact(work), error)
    assert asyncio.run(store.read(names)) == ["taken"]


def test_a_locked_store_is_unavailable_changes_nothing_and_comes_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_S", 1)
    store, other = Store(database_url), Store(database_url)
    held, free = threading.Event(), threading.Event()

    def hold(tx: Session) -> None:
        tx.flush()
        tx.connection()
        held.set()
        assert free.wait(30)

    async def run() -> None:
        holding = asyncio.ensure_future(other.transact(hold))
        await asyncio.to_thread(held.wait, 20)
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            await store.transact(add("ann"))
        assert await store.read(names) == []
        free.set()
        await holding
        await store.transact(add("ann"))
        assert await store.read(names) == ["ann"]
        await other.close()
        await store.close()

    asyncio.run(run())


def test_a_store_that_is_gone_is_unavailable_until_it_is_back(
    store: Store, database_url: str, request: pytest.FixtureRequest
) -> None:
    asyncio.run(store.transact(add("ann")))
    path = Path(database_url.removeprefix("sqlite:///"))
    away = path.with_suffix(".away")
    if database_url.startswith("sqlite"):
        path.rename(away)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        name = database_url.partition("@/")[2].partition("?")[0]
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
    refused(store.transact(add("bob")), StoreUnavailable)
    refused(store.read(names), StoreUnavailable)
    if database_url.startswith("sqlite"):
        assert not path.exists()
        away.rename(path)
    else:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    asyncio.run(store.transact(add("cyd")))
    assert asyncio.run(store.read(names)) == ["ann", "cyd"]


def test_more_waiting_transactions_than_there_are_places_are_refused(store: Store) -> None:
    free = threading.Event()

    async def run() -> None:
        waiting = [
            asyncio.ensure_future(store.transact(lambda _: free.wait(30)))
            for _ in range(store_module.WAITING)
        ]
        await asyncio.sleep(0)  # each takes its place
        with pytest.raises(StoreUnavailable, match="busy"):
            await store.transact(names)
        assert await store.read(names) == []
        free.set()
        await asyncio.gather(*waiting)
        await store.transact(names)

    asyncio.run(run())


def test_a_transaction_whose_turn_comes_too_late_is_not_begun(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "TURN_WAIT_S", -1.0)
        refused(store.transact(add("late")), StoreUnavailable)
    assert asyncio.run(store.read(names)) == []


def test_a_closed_store_is_unavailable_and_may_be_closed_again(store: Store) -> None:
    asyncio.run(store.close())
    refused(store.transact(names), StoreUnavailable)
    asyncio.run(store.close())


def test_a_password_stays_out_of_every_error() -> None:
    store = Store("postgresql://ann:s3cret@127.0.0.1:1/modelcloud")
    error = refused(store.migrate(), StoreUnavailable)
    assert "s3cret" not in f"{error.message} {error.detail} {error.__cause__}"
    assert "cannot be reached" in error.message
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "cannot be read"),
        ("modelcloud.db", "cannot be read"),
        ("sqlite://", "'sqlite'"),
        ("sqlite:///", "'sqlite'"),
        ("mysql://ann:s3cret@host/db", "'mysql'"),
        ("postgresql://ann:s3cret@host:port/db", "cannot be read"),
    ],
)
def test_a_database_of_another_kind_is_refused_with_what_is_accepted(url: str, says: str) -> None:
    with pytest.raises(UsageError, match="accepted: sqlite:////absolute") as caught:
        Store(url)
    assert says in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_missing_driver_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'modelcloud\[platform,postgresql\]'"):
        Store("postgresql://host/db")


# ---- what only a file can suffer


def test_the_file_is_made_in_any_folder_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a b?c=d#e%20" / "modelcloud.db"
    store = Store(f"sqlite:///{path}")
    before = os.umask(0)
    try:
        asyncio.run(store.migrate())
    finally:
        os.umask(before)
    asyncio.run(store.transact(add("ann")))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    asyncio.run(store.close())


@pytest.mark.parametrize("damage", ["header", "page", "cut"])
def test_a_damaged_file_is_refused_and_left_as_it_is(
    databases: Any, tmp_path: Path, damage: str
) -> None:
    url = databases.sqlite(tmp_path)
    path = Path(url.removeprefix("sqlite:///"))
    content = path.read_bytes()
    broken = {
        "header": b"\xa5" * len(content),
        "page": content[:8192] + b"\xa5" * 4096 + content[12288:],
        "cut": content[: len(content) // 2 // 4096 * 4096],
    }[damage]
    path.write_bytes(broken)
    store = Store(url)
    error = refused(store.migrate(), StoreUnavailable)
    assert "damaged" in error.message
    asyncio.run(store.close())
    assert path.read_bytes() == broken


def test_a_full_disk_is_said_and_undoes_the_transaction(
    databases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = databases.sqlite(tmp_path)
    connect = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    store = Store(url)
    error = refused(store.transact(add("x" * 1_000_000)), StoreUnavailable)
    assert "no space left" in error.message
    assert asyncio.run(store.read(names)) == []
    asyncio.run(store.close())
