"""Removes files that nothing refers to any more: artifacts, environments, logs, uploads, folders.

Must never: remove what a version, a deployment or a worker may still need. What is looked at is
settled before the store is asked, so that whatever comes meanwhile is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from modelcloud.artifacts import environment
from modelcloud.artifacts.store import remove_tree
from modelcloud.control.identity import Identity
from modelcloud.control.observe.deployment_log import DeploymentLog
from modelcloud.control.services import artifacts, group_folders
from modelcloud.control.services.probing import PREFIX
from modelcloud.control.services.registration import Registration
from modelcloud.errors import ModelcloudError
from modelcloud.store.store import Store
from modelcloud.store.tables import Service, Version
from modelcloud.types import GenerationSpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Between two sweeps; and for how long an environment stays that only a registration asked for.
EVERY_S, SPARED_S = 600.0, 24 * 3600.0


class Sweep:
    """Sweeps from time to time. A part of the platform that is `Background`.

    Args:
        identity: of the store, which has to be the platform's own.
        in_use: what workers may still be started from.
        envs: folder of environments.
        logs: the folder of services' logs.
        data: the folder of everything that is kept.
    """

    def __init__(
        self,
        store: Store,
        registration: Registration,
        *,
        identity: Identity,
        in_use: Callable[[], Iterable[GenerationSpec]],
        envs: Path,
        logs: DeploymentLog,
        data: Path,
    ) -> None:
        self._store = store
        self._registration = registration
        self._identity = identity
        self._in_use = in_use
        self._envs = envs
        self._logs = logs
        self._data = data
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> None:
        """Once.

        Raises:
            StoreUnavailable: nobody can tell what is needed; what was not removed yet stays.
            Conflict: the store is not that of the data folder, so it does not say what is needed.
        """
        await self._identity.confirm()
        self._registration.uploads.expire()
        await self._registration.collect()
        await self._sweep_environments()
        await self._sweep_logs()
        await self._sweep_workspaces()

    async def _sweep_environments(self) -> None:
        specs = tuple(self._in_use())  # first: what was started from it is stored by then
        needed = await self._store.read(artifacts.referenced)
        wanted = {(spec.requirements, spec.python) for spec in specs}
        wanted |= {(found.requirements, found.python) for found in needed}
        removed = await asyncio.to_thread(environment.collect, self._envs, wanted, SPARED_S)
        if removed:
            log.info("%d environments that nothing refers to were removed", removed)

    async def _sweep_logs(self) -> None:
        found = await asyncio.to_thread(self._logs.found)
        known = await self._store.read(_versions)
        for spec in self._in_use():
            known.setdefault(spec.service, set()).add(spec.version)
        known[PREFIX] = {0}
        await asyncio.to_thread(self._logs.keep_only, found, known)

    async def _sweep_workspaces(self) -> None:
        found = await asyncio.to_thread(group_folders.left_in, self._data)
        known = await self._store.read(group_folders.names)
        for folder in found:
            if folder.name not in known:
                await asyncio.to_thread(remove_tree, folder)
                log.info("the workspace folder of a group that is gone was removed")

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (ModelcloudError, OSError) as error:
                log.warning("what nobody needs is not removed now: %s", error)
            except Exception:
                log.exception("what nobody needs is not removed now")
            await asyncio.sleep(EVERY_S)


def _versions(tx: Session) -> dict[str, set[int]]:
    """Service → the numbers of its versions."""
    known: dict[str, set[int]] = {name: set() for name in tx.scalars(select(Service.name))}
    for name, number in tx.execute(
        select(Service.name, Version.number).join(Version, Version.service_id == Service.id)
    ):
        known[name].add(number)
    return known
