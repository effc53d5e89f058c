"""Stores for tests, on both databases.

`store` and `database_url` are fixtures of `conftest.py`; each test gets an empty store of its own.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from modelcloud.store.store import Store
from support.postgres import Postgres


async def _migrate(url: str) -> None:
    store = Store(url)
    try:
        await store.migrate()
    finally:
        await store.close()


class Databases:
    """Makes databases quickly: each is a copy of one that has the tables.

    Args:
        folder: where the copied SQLite file is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._sqlite = folder / "migrated.db"
        self._postgres = ""

    def sqlite(self, folder: Path) -> str:
        """URL of a migrated SQLite database in `folder`."""
        if not self._sqlite.exists():
            asyncio.run(_migrate(f"sqlite:///{self._sqlite}"))
        path = folder / "modelcloud.db"
        shutil.copy(self._sqlite, path)
        return f"sqlite:///{path}"

    def postgres(self, server: Postgres) -> str:
        """URL of a migrated database of `server`."""
        if not self._postgres:
            self._postgres = server.create()
            asyncio.run(_migrate(server.url(self._postgres)))
        return server.url(server.create(template=self._postgres))
