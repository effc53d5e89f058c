"""The store: transactions on the tables, run in threads so that an event loop never waits.

Must never: leave a transaction half done, or let a driver's error through (see `databases`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.orm import Session

from modelcloud.errors import StoreUnavailable
from modelcloud.store import schema
from modelcloud.store.databases import READERS, open_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

T = TypeVar("T")

#: A transaction that waited this long for its turn is not begun any more.
TURN_WAIT_S = 10.0
#: Transactions that may wait or run at a time, of writers and of readers; 503 beyond.
WAITING = 256

_BUSY = "The store is busy; nothing was changed. Try again in a moment."


class Store:
    """Transactions on one database.

    One transaction writes at a time, over all programs that use the database; any number read, and
    each sees one state of everything. What `work` returns may be used afterwards, as far as it was
    loaded: the session is closed then.

    Args:
        url: `sqlite:///` and an absolute path, or `postgresql://user@host/database`.
        alone_as: while it is open, no other store on the same PostgreSQL database that has such a
            name can write; its `StoreUnavailable` says this name. Empty: others do not matter.

    Raises:
        UsageError: another kind of URL, or the driver is not installed.
    """

    def __init__(self, url: str, *, alone_as: str = "") -> None:
        self._database = open_database(url, alone_as)
        self._writers = _Lane("store-writer", 1)
        self._readers = _Lane("store-reader", READERS)

    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction of its own; what it raises undoes what it did.

        A caller that is cancelled does not know whether its work was done.

        Raises:
            StoreUnavailable: nothing was changed, because the store is locked, gone or damaged.
            Conflict: another program wrote the same at the same time.
            UsageError: a value that the database cannot hold.
        """
        return await self._writers.run(lambda: self._session(self._database.writer, work))

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` on one unchanging state; it cannot write. Raises as `transact` does."""
        return await self._readers.run(lambda: self._session(self._database.reader, work))

    async def migrate(self) -> None:
        """Make the store if there is none, and bring its tables to those of this version.

        Raises:
            StoreUnavailable: it cannot be reached, or is damaged; it is left as it is.
            Conflict: its tables are newer than this version, or not modelcloud's.
        """
        await self._writers.run(self._migrate)

    async def close(self) -> None:
        """End the threads and connections, once what runs has ended. May be called again."""
        await asyncio.to_thread(self._close)

    def _session(self, engine: Engine, work: Callable[[Session], T]) -> T:
        with self._database.errors_worded():
            self._database.ready()
            with Session(engine, expire_on_commit=False) as session, session.begin():
                return work(session)

    def _migrate(self) -> None:
        with self._database.errors_worded():
            self._database.create()
            self._database.ready()
            with self._database.writer.begin() as connection:
                self._database.check(connection)
                schema.upgrade(connection)

    def _close(self) -> None:
        self._writers.close()
        self._readers.close()
        self._database.dispose()


class _Lane:
    """Threads that take work in order, of which only so much may wait."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(WAITING)

    async def run(self, work: Callable[[], T]) -> T:
        begin_by = monotonic() + TURN_WAIT_S

        def turn() -> T:
            if monotonic() > begin_by:
                raise StoreUnavailable(_BUSY)
            return work()

        if not self._places.acquire(blocking=False):
            raise StoreUnavailable(_BUSY)
        try:
            future: Future[T] = self._threads.submit(turn)
        except RuntimeError:  # shut down
            self._places.release()
            raise StoreUnavailable("The store is closed.") from None
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
