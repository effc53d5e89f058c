"""The two databases that can hold the store, and the words for what goes wrong with them.

Must never: create a database file where one is missing, save in `create`, or let a driver's error
or a password out: whatever fails becomes an error of ours, told apart by what a person can do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from modelcloud.errors import Conflict, StoreUnavailable, UsageError

#: How long a statement waits for a lock that another program holds.
LOCK_WAIT_S = 5
#: The longest statement a PostgreSQL server may work on.
STATEMENT_S = 30
#: Threads, and connections, that read at the same time.
READERS = 4
#: The PostgreSQL advisory lock that makes writers take turns, as SQLite's own lock does.
_WRITER_LOCK = 0x6D6F64656C
#: The one that a running platform holds, so that there is no other on its database.
_PLATFORM_LOCK = _WRITER_LOCK + 1
#: PostgreSQL keeps so many bytes of the name by which a program is known to it.
_NAME_BYTES = 63

_ACCEPTED = "accepted: sqlite:////absolute/path.db, postgresql://user@host/database"


class Database(ABC):
    """Connections to write by and connections to read by."""

    writer: Engine
    reader: Engine

    @abstractmethod
    def create(self) -> None:
        """Make what the first connection needs."""

    @abstractmethod
    def check(self, connection: Connection) -> None:
        """Look for damage.

        Raises:
            StoreUnavailable: there is some.
        """

    @abstractmethod
    def ready(self) -> None:
        """Called before each transaction.

        Raises:
            StoreUnavailable: the database is not there.
        """

    def dispose(self) -> None:
        """Close the connections that nobody uses; new ones are made when asked for."""
        self.writer.dispose()
        self.reader.dispose()

    @contextlib.contextmanager
    def errors_worded(self) -> Iterator[None]:
        """Turn what a driver raises into an error of ours.

        Raises:
            StoreUnavailable: the database is locked, gone, full or damaged.
            Conflict: a rule of the tables was broken: another program wrote the same.
            UsageError: a value that the database cannot hold.
        """
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(
                "This collides with what is stored, or what it belongs to is gone; look again.",
                detail=_driver_text(error),
            ) from None
        except (exc.DataError, OverflowError, UnicodeEncodeError) as error:
            raise UsageError(
                "The store cannot hold a value of this request: a number is too large, or a text "
                "holds what is no Unicode character",
                detail=str(getattr(error, "orig", error)),
            ) from None
        except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
            self.dispose()  # these connections may hold what is no longer so
            detail = _driver_text(error)
            raise StoreUnavailable(_words(detail), detail=detail) from None


class SqliteDatabase(Database):
    """A file. Readers see the last commit while one writer writes (write-ahead log).

    Args:
        path: the file; only its owner may read what `create` makes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self.writer = self._engine("BEGIN IMMEDIATE", connections=1)
        self.reader = self._engine("BEGIN", connections=READERS)
        event.listen(self.reader, "connect", _only_queries)

    def _engine(self, begin: str, connections: int) -> Engine:
        engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=LOCK_WAIT_S,
            hide_parameters=True,
        )
        event.listen(engine, "begin", lambda connection: _execute(connection, begin))
        return engine

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",  # rw: a missing file is an error
            uri=True,
            timeout=LOCK_WAIT_S,
            isolation_level=None,  # transactions begin where the engine says so
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def create(self) -> None:
        """Make the file, with its folder, if it is not there, and switch its log on."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreUnavailable(
                f"The store cannot be made: {error.strerror}", detail=str(error)
            ) from None
        with contextlib.closing(self._connect()) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode = WAL")

    def check(self, connection: Connection) -> None:
        """Read the structure of the whole file."""
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise StoreUnavailable(_DAMAGED, detail=str(found))

    def ready(self) -> None:
        """Drop connections to a file that was removed or replaced: it would take writes in vain."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreUnavailable(
                "The store is gone: its file is not there any more. Put it back.",
                detail=str(error),
            ) from None
        identity = (found.st_dev, found.st_ino)
        if identity != self._identity:
            self.dispose()
            self._identity = identity


class PostgresDatabase(Database):
    """A PostgreSQL server, through psycopg.

    Args:
        url: of the database.
        alone_as: see `store.Store`. The lock is that of the one connection that writes: whenever
            that is lost, and another takes the lock, nothing can be written.

    Raises:
        UsageError: psycopg is not installed.
    """

    def __init__(self, url: URL, alone_as: str) -> None:
        try:
            import psycopg  # noqa: F401 — asked for here, to say how to get it
        except ImportError:
            raise UsageError(
                "a PostgreSQL store needs the extra `postgresql`: "
                "pip install 'modelcloud[platform,postgresql]'"
            ) from None
        self._url = url.set(drivername="postgresql+psycopg")
        self.writer = self._engine(connections=1)
        event.listen(self.writer, "begin", _take_turn)
        if alone_as:
            event.listen(self.writer, "connect", partial(_be_alone, alone_as))
        self.reader = self._engine(
            connections=READERS,
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        )

    def _engine(self, connections: int, **more: Any) -> Engine:
        asked = self._url.query.get("options", "")
        return create_engine(
            self._url,
            connect_args={
                "connect_timeout": LOCK_WAIT_S,
                "tcp_user_timeout": 2 * LOCK_WAIT_S * 1000,
                "options": f"{asked} -c lock_timeout={LOCK_WAIT_S}s "
                f"-c statement_timeout={STATEMENT_S}s",
            },
            pool_size=connections,
            max_overflow=0,
            pool_timeout=LOCK_WAIT_S,
            pool_pre_ping=True,
            hide_parameters=True,
            **more,
        )

    def create(self) -> None:
        """Nothing: the database is made by whoever runs the server."""

    def check(self, connection: Connection) -> None:
        """Nothing: the server looks after its files."""

    def ready(self) -> None:
        """Nothing: the pool asks each connection whether it lives."""


def open_database(url: str, alone_as: str = "") -> Database:
    """The database that `url` names; a file is alone by the folder that it is in.

    Raises:
        UsageError: it is of another kind, or no URL.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        # Taken as it stands: a path may hold what a URL would read as its query.
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")).absolute())
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise UsageError(f"the database URL cannot be read; {_ACCEPTED}") from None
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return PostgresDatabase(parsed, alone_as)
    raise UsageError(f"a store of the kind {parsed.drivername!r} is not known; {_ACCEPTED}")


def _execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _only_queries(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON")


def _take_turn(connection: Connection) -> None:
    _execute(connection, f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")


def _be_alone(name: str, connection: Any, _record: Any) -> None:
    """Take the lock of the platform for as long as the connection lasts.

    Raises:
        StoreUnavailable: another platform has it, which is named.
    """
    from psycopg.errors import LockNotAvailable

    named = name.encode("ascii", "replace")[:_NAME_BYTES].decode()
    try:
        connection.execute("SELECT set_config('application_name', %s, false)", [named])
        connection.execute("SELECT pg_advisory_lock(%s)", [_PLATFORM_LOCK])
        connection.commit()
    except LockNotAvailable:
        connection.rollback()
        holder = connection.execute(_HOLDER, [_PLATFORM_LOCK]).fetchone()
        connection.close()
        raise StoreUnavailable(
            "The database is in use by another platform"
            + (f" ({holder[0]})" if holder and holder[0] else "")
            + ": stop that one, or give this one a database and a data folder of its own."
        ) from None
    except BaseException:
        connection.close()
        raise


_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = %s
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _driver_text(error: Exception) -> str:
    """The driver's own text: no statement, no parameters; drivers put no password in it."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


_DAMAGED = "The store is damaged and was left as it is. Restore its file from a backup."

#: What a driver's text holds → what a person is told.
_WORDS = (
    (("locked", "lock timeout", "statement timeout"),
     "The store is locked by another program; nothing was changed. Try again in a moment."),
    (("malformed", "not a database", "corrupt"), _DAMAGED),
    (("is full", "No space left"), "The store has no space left; nothing was changed."),
    (("readonly", "read-only"), "The store cannot be written to; nothing was changed."),
    (("no such table", "no such column", "does not exist"),
     "The store does not hold what this version of modelcloud expects; restart it to see why."),
    (("unable to open",), "The store's file cannot be opened."),
)  # fmt: skip


def _words(driver_text: str) -> str:
    for signs, words in _WORDS:
        if any(sign in driver_text for sign in signs):
            return words
    return "The store cannot be reached; try again in a moment."
