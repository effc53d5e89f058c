"""The migrations make the tables, and touch nothing that they do not know."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from modelcloud.errors import Conflict
from modelcloud.store.schema import REVISION_TABLE
from modelcloud.store.store import Store
from modelcloud.store.tables import Base
from support.postgres import Postgres

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/modelcloud.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.create())


def test_the_migrations_make_the_tables_that_the_code_expects(store: Store) -> None:
    def differences(tx: Session) -> list[object]:
        context = MigrationContext.configure(
            tx.connection(),
            opts={"version_table": REVISION_TABLE, "compare_server_default": True},
        )
        return list(compare_metadata(context, Base.metadata))

    assert asyncio.run(store.read(differences)) == []


def test_on_sqlite_they_make_the_same_statements(tmp_path: Path) -> None:
    def tables(connection: Connection) -> set[tuple[str, ...]]:
        rows = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name != :ours"),
            {"ours": REVISION_TABLE},
        )
        # Constraints may stand in another order.
        return {
            tuple(sorted(" ".join(sql.split()).removesuffix(" )").split(", "))) for (sql,) in rows
        }

    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        Base.metadata.create_all(connection)
        expected = tables(connection)
    engine.dispose()
    store = Store(f"sqlite:///{tmp_path}/modelcloud.db")
    asyncio.run(store.migrate())
    assert asyncio.run(store.read(lambda tx: tables(tx.connection()))) == expected
    asyncio.run(store.close())


def test_migrating_twice_changes_nothing(store: Store) -> None:
    asyncio.run(store.migrate())


def test_a_newer_schema_is_refused_with_what_to_do_and_left_as_it_is(store: Store) -> None:
    def set_revision(tx: Session) -> None:
        tx.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '9999'"))

    def revision(tx: Session) -> str:
        return str(tx.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar_one())

    asyncio.run(store.transact(set_revision))
    with pytest.raises(Conflict, match=r"schema '9999'.*start that version") as caught:
        asyncio.run(store.migrate())
    assert "up to '0001'" in caught.value.message
    assert asyncio.run(store.read(revision)) == "9999"


@pytest.mark.parametrize("table", ["users", "invoices"])
def test_tables_of_somebody_else_are_refused_and_left_as_they_are(
    empty_url: str, table: str
) -> None:
    def count(tx: Session) -> int:
        tables = inspect(tx.connection()).get_table_names()
        assert tables == [table]
        return int(tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    def foreign(tx: Session) -> None:
        tx.execute(text(f"CREATE TABLE {table} (nobody INTEGER)"))
        tx.execute(text(f"INSERT INTO {table} VALUES (1)"))

    async def run() -> int:
        store = Store(empty_url)
        store._database.create()
        await store.transact(foreign)
        with pytest.raises(Conflict, match=rf"did not make \({table}\)"):
            await store.migrate()
        found = await store.read(count)
        await store.close()
        return found

    assert asyncio.run(run()) == 1


_MIGRATE = """
import asyncio, sys
from modelcloud.store.store import Store

async def run():
    store = Store(sys.argv[1])
    sys.stdin.read()
    await store.migrate()
    await store.close()

asyncio.run(run())
"""


def test_programs_that_migrate_at_the_same_time_make_one_store(empty_url: str) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _MIGRATE, empty_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for program in programs:
        assert program.stdin is not None
        program.stdin.close()
        program.stdin = None
    ends = [(program.communicate(timeout=60)[0], program.returncode) for program in programs]
    assert ends == [("", 0)] * 3
    store = Store(empty_url)
    asyncio.run(store.migrate())
    asyncio.run(store.close())
