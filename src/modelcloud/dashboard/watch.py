"""Tells open pages that something has changed, whoever changed it: one look for all of them.

Every operation leaves an entry in the audit log in its own transaction, so the newest entry's id
tells of all that was asked for; what is decided and observed the reconcilers tell themselves.

Must never: look at anything while no page is open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from modelcloud.control.common.changes import Changes
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.state import PlatformState
from modelcloud.errors import ModelcloudError
from modelcloud.store.tables import AuditEntry

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Between two looks at the store, and at least between two tellings: many changes are one.
LOOK_S, REST_S = 1.0, 0.25


class Watcher:
    """One for all pages."""

    def __init__(self, state: PlatformState) -> None:
        self._state = state
        self._changes = Changes()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def followed(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Follow from now on; each await of the result ends with a change since the last one."""
        with self._changes.followed() as changed:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._watch())
            try:
                yield changed
            finally:
                if self._changes.followers == 1 and self._task is not None:
                    self._task.cancel()
                    self._task = None

    async def _watch(self) -> None:
        last: int | None = None
        with self._state.part(Reconcilers).changes.followed() as decided:
            waiting: asyncio.Future[None] | None = None
            try:
                while True:
                    told = waiting is not None and waiting.done()
                    if told:
                        waiting = None
                    with contextlib.suppress(ModelcloudError):  # without a store all stays as it is
                        newest = await self._state.store.read(_newest)
                        told = told or newest != last
                        last = newest
                    if told:
                        self._changes.tell()
                        await asyncio.sleep(REST_S)
                    waiting = waiting or asyncio.ensure_future(decided())
                    await asyncio.wait({waiting}, timeout=LOOK_S)
            finally:
                if waiting is not None:
                    waiting.cancel()


def _newest(tx: Session) -> int:
    return tx.scalar(select(func.max(AuditEntry.id))) or 0
