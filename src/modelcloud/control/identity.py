"""Whose data folder and whose store these are: both hold the id of one platform, or are new.

Must never: change either; two that do not belong together are refused, in words.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from modelcloud.control.deployments.generation_specs import ARTIFACTS
from modelcloud.errors import Conflict, UsageError
from modelcloud.store.store import Store
from modelcloud.store.tables import Platform

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: In the data folder; it holds the id.
FILE = "platform-id"


class Identity:
    """Lets nothing act on a store that is not this platform's, or not its alone.

    A part of the platform that is `Background`; the first to be started.

    Args:
        data: the data folder.
    """

    def __init__(self, store: Store, data: Path) -> None:
        self._store = store
        self._data = data

    async def start(self) -> None:
        """Check. Raises as `confirm` does."""
        await self.confirm()

    async def stop(self) -> None:
        """Nothing of it works by itself."""

    async def confirm(self) -> None:
        """Check now.

        Raises:
            StoreUnavailable: the store is away, or in use by another platform.
            Conflict: as `check`.
        """
        # To write, since only the one platform on a database can.
        check(self._data, await self._store.transact(of_store))


def new_id() -> str:
    """An id that no other platform has."""
    return uuid.uuid4().hex


def of_store(tx: Session) -> str | None:
    """That of the store; None: it is new."""
    return tx.scalar(select(Platform.id))


def of_folder(data: Path) -> str | None:
    """That of the data folder; None: it has none.

    Raises:
        UsageError: its file cannot be read.
    """
    try:
        return (data / FILE).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not an id"
        raise UsageError(f"{data / FILE}: {why}") from None


def write(data: Path, platform: str) -> None:
    """Say in a data folder that is new, or whose first start was cut short, whose it is."""
    stage = data / f".{FILE}"
    descriptor = os.open(stage, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{platform}\n")
        file.flush()
        os.fsync(descriptor)
    stage.rename(data / FILE)


def check(data: Path, stored: str | None) -> None:
    """Refuse a store and a data folder that do not belong together.

    Raises:
        Conflict: the store is another platform's, or a new one beside a folder that is not new.
        UsageError: as `of_folder`.
    """
    found = of_folder(data)
    if stored is None and not _used(data):  # new, or killed in its first start: nothing is lost
        return
    if found == stored is not None:
        return
    if stored is None:
        raise Conflict(
            f"the data folder {str(data)!r} is that of a platform, and the store is empty: this is "
            "not the store it had. Nothing was changed. Start it with its own: the --database that "
            "it was started with before, or its modelcloud.db from a backup. For a new platform, "
            "give --data an empty folder"
        )
    whose = "has no id" if found is None else f"is that of platform {found}"
    raise Conflict(
        f"the store is that of platform {stored}, and the data folder {str(data)!r} {whose}: they "
        "do not belong together. Nothing was changed. Start each platform with the --data and the "
        f"--database that it had; a restored folder needs the file {FILE} of its backup"
    )


def _used(data: Path) -> bool:
    artifacts = data / ARTIFACTS
    return artifacts.is_dir() and any(artifacts.iterdir())
