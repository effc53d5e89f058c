"""All monitors of the platform: a task for each, and what is known of it beyond the store.

Must never: have a monitor work that the store does not have.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from modelcloud.artifacts.store import remove_tree
from modelcloud.control.common.records import Record, Time
from modelcloud.control.deployments.generation_specs import ground_of
from modelcloud.control.monitors.monitor_forms import MonitorBody, watched_of
from modelcloud.control.monitors.monitors import MonitorRecord, Rules
from modelcloud.control.monitors.vault import KEY_FILE, Vault
from modelcloud.control.monitors.work import Tools, Work
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services.registration import Registration
from modelcloud.control.state import PlatformState
from modelcloud.errors import ModelcloudError, NotFound, TooManyRequests
from modelcloud.monitors.mark import Mark
from modelcloud.monitors.pull import look
from modelcloud.store.tables import Monitor

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Monitors that look, and that pull, at a time; tests of a connection at a time.
LOOKS, PULLS, TESTS = 16, 2, 4
FOLDER = "monitors"


class Found(Record):
    """A file or folder at a remote place, as far as that says it."""

    modified: Time | None
    size: int | None
    tag: str
    folder: bool


class ConnectionRecord(Record):
    """What a test of a connection came to.

    Attributes:
        ok: whether the place answers and both are there; else `error` says what to do.
        done, model: what was found of the done-file and the model.
    """

    ok: bool
    error: str
    done: Found | None
    model: Found | None


class Monitoring:
    """A part of the platform that is `Background`.

    Args:
        state: of the platform, which needs no parts yet.
        registration: the way by which versions come in.
        reconcilers: the way by which they go online.
    """

    def __init__(
        self, state: PlatformState, registration: Registration, reconcilers: Reconcilers
    ) -> None:
        data = state.data.absolute()
        self.rules = Rules(config=state.config, vault=Vault(data / KEY_FILE))
        self._store = state.store
        self._tools = Tools(
            store=state.store,
            registration=registration,
            carry_out=reconcilers.carry_out,
            ground=ground_of(state),
            config=state.config,
            vault=self.rules.vault,
            folder=data / FOLDER,
            looks=asyncio.Semaphore(LOOKS),
            pulls=asyncio.Semaphore(PULLS),
            clock=state.clock,
            wall=state.wall,
        )
        self._works: dict[int, Work] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._tests = 0

    async def start(self) -> None:
        """Remove what an earlier control plane left, and have all monitors begin.

        Raises:
            StoreUnavailable: nobody knows which there are.
        """
        await asyncio.to_thread(_empty, self._tools.folder)
        await self.refresh()

    async def stop(self) -> None:
        """End; a pull that is cut short is made anew after the next start."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self, changed: int | None = None) -> None:
        """Follow what operations wrote; the monitor `changed` sees at once what that is."""
        there = await self._store.read(_ids)
        for monitor_id in there - self._tasks.keys():
            work = self._works[monitor_id] = Work(monitor_id, self._tools)
            task = asyncio.create_task(work.run())
            self._tasks[monitor_id] = task
            task.add_done_callback(partial(self._ended, monitor_id))
        for monitor_id in self._tasks.keys() - there:
            self._tasks[monitor_id].cancel()
        if changed is not None:
            self.wake(changed)

    def wake(self, monitor_id: int) -> None:
        """Have it look now."""
        if (work := self._works.get(monitor_id)) is not None:
            work.wake()

    def live(self, record: MonitorRecord) -> MonitorRecord:
        """The record with what is known now beyond the store."""
        work = self._works.get(record.id)
        if work is None:
            return record
        return record.model_copy(
            update={
                "activity": "paused" if record.paused else work.activity,
                "looked_at": work.looked_at,
                "next_look_at": None if record.paused else work.next_look_at,
            }
        )

    async def test(self, settings: MonitorBody, secrets: dict[str, Any]) -> ConnectionRecord:
        """Look once, and say what came of it; nothing is pulled.

        Raises:
            TooManyRequests: several others are being tested.
        """
        if self._tests >= TESTS:
            raise TooManyRequests(f"{TESTS} connections are being tested; wait for one")
        self._tests += 1
        folder = Path(await asyncio.to_thread(_new_folder, self._tools.folder))
        try:
            source = self._tools.source(settings, secrets, folder)
            try:
                found = await look(source, watched_of(settings), None)
            finally:
                await source.close()
            if found is None:
                raise NotFound(
                    f"the place answers; there is no done-file {settings.remote_donefile_name}"
                )
        except (ModelcloudError, OSError) as error:
            message = error.message if isinstance(error, ModelcloudError) else str(error.strerror)
            return ConnectionRecord(ok=False, error=message, done=None, model=None)
        finally:
            self._tests -= 1
            await asyncio.to_thread(remove_tree, folder)
        seen = found.seen
        missing = "" if seen.model else f"there is no model {settings.remote_model_name}"
        return ConnectionRecord(
            ok=seen.model is not None,
            error=missing,
            done=_found(seen.done),
            model=_found(seen.model),
        )

    def _ended(self, monitor_id: int, task: asyncio.Task[None]) -> None:
        self._works.pop(monitor_id, None)
        self._tasks.pop(monitor_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a monitor ended", exc_info=error)


def _ids(tx: Session) -> set[int]:
    return set(tx.scalars(select(Monitor.id)))


def _empty(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        remove_tree(left)


def _new_folder(folder: Path) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix="test-", dir=folder)


def _found(mark: Mark | None) -> Found | None:
    if mark is None:
        return None
    return Found(modified=mark.modified, size=mark.size, tag=mark.tag, folder=mark.folder)
