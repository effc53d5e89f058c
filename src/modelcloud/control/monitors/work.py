"""One monitor at work: looks, has what changed pulled and registered, begins its rollout, rests.

Each step is written down before the next one, so that a control plane that is killed at any moment
goes on where it was: a version is registered once, and its rollout is begun once.

Must never: pull twice at once, look while its last rollout is on its way (a model that loads
slowly would never come to serve), or end because a source or the store is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelcloud.artifacts.stage import Staged
from modelcloud.artifacts.store import remove_tree
from modelcloud.config import PlatformConfig
from modelcloud.control.deployments.deploying import Accepted
from modelcloud.control.deployments.generation_specs import Ground
from modelcloud.control.monitors import intents
from modelcloud.control.monitors.intents import Intent
from modelcloud.control.monitors.monitor_forms import (
    MonitorBody,
    at,
    golden_of,
    place_of,
    source_spec,
    watched_of,
)
from modelcloud.control.monitors.outcome import Way
from modelcloud.control.monitors.surroundings import around, make_folder
from modelcloud.control.monitors.vault import Vault
from modelcloud.control.services.registration import Add, Files, Registration
from modelcloud.control.services.version_forms import RegisterBody
from modelcloud.control.services.versions import VersionRecord
from modelcloud.errors import ModelcloudError, StoreUnavailable, UsageError
from modelcloud.monitors.mark import Seen
from modelcloud.monitors.pull import Look, Pulled, pull
from modelcloud.monitors.source import Patience
from modelcloud.monitors.source_process import SourceProcess
from modelcloud.monitors.watch import Watch, next_delay
from modelcloud.waiting import within

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

#: Until it sees whether its rollout is over.
ROLLOUT_LOOK_S = 1.0
#: With a longer interval, the process that reads the source ends after each look.
KEEP_PROCESS_S = 30.0
#: A failure that stays the same is written down again after this.
SAME_FAILURE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What all monitors work with.

    Attributes:
        carry_out: runs an operation on a deployment, and has what it wrote followed.
        folder: with one folder per monitor, for what it pulls.
        looks, pulls: how many monitors do that at a time.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    store: Store
    registration: Registration
    carry_out: Callable[[Callable[[Session], Accepted]], Awaitable[Accepted]]
    ground: Ground
    config: PlatformConfig
    vault: Vault
    folder: Path
    looks: asyncio.Semaphore
    pulls: asyncio.Semaphore
    clock: Callable[[], float]
    wall: Callable[[], float]

    @property
    def patience(self) -> Patience:
        """What a pull may take."""
        return Patience(size=self.config.upload_limit)

    def source(self, settings: MonitorBody, secrets: dict[str, Any], folder: Path) -> SourceProcess:
        """What reads a monitor's source, in an empty folder of its own.

        Raises:
            UsageError: the settings are not accepted here any more.
        """
        spec = at(source_spec(settings, secrets, self.config), settings, make_folder(folder))
        surroundings = around(folder, settings.type, self.config)
        return SourceProcess(spec, self.patience, surroundings=surroundings)


class Work:
    """The work of one monitor.

    Attributes:
        activity, looked_at, next_look_at: as `MonitorRecord` has them.
    """

    def __init__(self, monitor_id: int, tools: Tools) -> None:
        self.activity = "starting"
        self.looked_at: float | None = None
        self.next_look_at: float | None = None
        self._id, self._tools = monitor_id, tools
        self._folder = tools.folder / str(monitor_id)
        self._revision: int | None = None
        self._source: SourceProcess | None = None
        self._watch: Watch | None = None
        self._interval = 10.0
        self._wake = asyncio.Event()
        self._told: tuple[str, float] = ("", 0.0)
        self._stays: set[int] = set()
        self._begun = 0.0
        self._name = str(monitor_id)

    def wake(self) -> None:
        """Look now, or see what was changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until the monitor is deleted."""
        failures = 0
        try:
            while True:
                self._begun = self._tools.clock()
                rest: float | None
                try:
                    intent = await self._read()
                    if intent is None:
                        return
                    rest = await self._turn(intent)
                    failures = 0
                except (ModelcloudError, OSError) as error:
                    failures += 1
                    rest = next_delay(failures, self._interval)
                    await self._failed(error)
                except Exception:
                    log.exception("a monitor failed in a way that it should not")
                    failures += 1
                    rest = next_delay(failures, self._interval)
                await self._rest(rest)
        finally:
            await self._forget()
            await asyncio.to_thread(remove_tree, self._folder)

    # ---- one turn

    async def _read(self) -> Intent | None:
        tools = self._tools
        intent = await tools.store.read(
            partial(intents.read, monitor_id=self._id, vault=tools.vault, known=self._revision)
        )
        if intent is not None and intent.secrets is not None:
            await self._forget()
            self._interval = intent.settings.interval
            self._name = f"{intent.name} of {intent.service}"
            source = await asyncio.to_thread(
                tools.source, intent.settings, intent.secrets, self._folder
            )
            self._source = source
            watched = watched_of(intent.settings)
            self._watch = Watch(source, watched, self._interval, intent.seen)
            self._revision = intent.revision
        return intent

    async def _turn(self, intent: Intent) -> float | None:
        """Do what is next; returns how long to rest then, None: until woken."""
        if intent.paused:
            self.activity = "paused"
            await self._end_process()
            return None
        await self._prune(intent)
        if intent.decision.way is Way.WAIT:
            self.activity = "rolling out"
            return min(ROLLOUT_LOOK_S, self._interval)
        if intent.pending is not None:
            self.activity = "deploying"
            await self._put_online(intent, intent.pending)
            return 0.0
        took = await self._look(intent)
        return 0.0 if took else self._interval

    async def _look(self, intent: Intent) -> bool:
        assert self._watch is not None
        async with self._tools.looks:
            self.activity = "looking"
            took = await self._watch.poll(partial(self._take, intent))
        self.looked_at = self._tools.wall()
        if self._interval >= KEEP_PROCESS_S:
            await self._end_process()
        if intent.failing and not took:
            await self._tools.store.transact(partial(intents.recovered, monitor_id=self._id))
        self._told = ("", 0.0)
        return took

    async def _take(self, intent: Intent, found: Look) -> Seen:
        """Pull, and register: in one transaction with what was seen."""
        assert self._source is not None
        work = self._folder / "pull"
        try:
            async with self._tools.pulls:
                self.activity = "pulling"
                await asyncio.to_thread(make_folder, work)
                watched = watched_of(intent.settings)
                pulled = await pull(self._source, watched, found, work)
                self.activity = "registering"
                record = await self._register(intent, pulled)
        finally:
            await asyncio.to_thread(remove_tree, work)
        if record is not None:
            log.info("monitor %s of %s: version %d", intent.name, intent.service, record.version)
        else:
            assert intent.newest is not None
            await self._tools.store.transact(
                partial(
                    intents.unchanged, monitor_id=self._id, version=intent.newest.number,
                    seen=pulled.seen, at=self._tools.wall(), duration_s=self._lasted(),
                )
            )  # fmt: skip
        return pulled.seen

    async def _register(self, intent: Intent, pulled: Pulled) -> VersionRecord | None:
        settings = intent.settings

        def admit(staged: Staged) -> bool:
            _refuse_untrusted(staged, settings)
            return intent.newest is None or intent.newest.digest != staged.digest

        def together(add: Add) -> Add:
            def both(tx: Session) -> VersionRecord:
                record = add(tx)
                intents.registered(
                    tx, self._id, record, pulled.seen, self._tools.wall(), self._lasted()
                )
                return record

            return both

        return await self._tools.registration.register_files(
            intent.actor,
            intent.service,
            RegisterBody(
                main=settings.main,
                options=settings.options,
                options_text={},
                description=settings.description,
                requirements=settings.requirements,
                python=settings.python,
            ),
            Files(pulled.path, "", _origin(intent, pulled), golden_of(settings)),
            together=together,
            admit=admit,
        )

    async def _put_online(self, intent: Intent, version: int) -> None:
        tools = self._tools
        if intent.decision.way is Way.NOT:
            leave = partial(
                intents.leave_offline, monitor_id=self._id, version=version,
                reason=intent.decision.reason,
            )  # fmt: skip
            await tools.store.transact(leave)
            return
        await tools.carry_out(
            partial(
                intents.put_online, monitor_id=self._id, ground=tools.ground,
                version=version, now=tools.wall(),
            )
        )  # fmt: skip

    async def _prune(self, intent: Intent) -> None:
        if set(intent.surplus) <= self._stays:
            return
        self._stays |= set(await self._tools.store.transact(partial(intents.prune, intent=intent)))
        await self._tools.registration.collect()

    # ---- between turns

    async def _rest(self, seconds: float | None) -> None:
        if seconds:
            if self.activity != "rolling out":
                self.activity = "waiting"
            self.next_look_at = self._tools.wall() + seconds
        else:
            self.next_look_at = None
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._wake.wait(), seconds)
        self._wake.clear()

    async def _failed(self, error: ModelcloudError | OSError) -> None:
        """Have the store say so; a failure that stays the same is not written each time."""
        if isinstance(error, ModelcloudError):
            message = error.message
        else:
            message = f"a file could not be read or written: {error.strerror}"
        self.looked_at = self._tools.wall()
        now = self._tools.clock()
        told, since = self._told
        if told == message and now - since < SAME_FAILURE_S:
            return
        self._told = (message, now)
        log.info("monitor %s: %s", self._name, message)
        failed = partial(
            intents.failed, monitor_id=self._id, message=message, at=self._tools.wall(),
            duration_s=self._lasted(),
        )  # fmt: skip
        try:
            await self._tools.store.transact(failed)
        except StoreUnavailable:
            self._told = ("", 0.0)

    def _lasted(self) -> float:
        return self._tools.clock() - self._begun

    async def _end_process(self) -> None:
        if self._source is not None:
            await self._source.close()

    async def _forget(self) -> None:
        await self._end_process()
        self._source = self._watch = self._revision = None


def _origin(intent: Intent, pulled: Pulled) -> dict[str, Any]:
    """Where a version came from, for its record."""
    mark = pulled.seen.model
    return {
        "kind": "monitor",
        "monitor": intent.name,
        "place": place_of(intent.settings),
        "name": intent.settings.remote_model_name,
        "modified": None if mark is None else mark.modified,
        "size": pulled.size,
        "sha256": pulled.sha256,
        "version": pulled.version,
        "verified": pulled.verified,
    }


def _refuse_untrusted(staged: Staged, settings: MonitorBody) -> None:
    """Raise where loading would run code that came from afar, unless that is trusted by name.

    Raises:
        UsageError: it would, and is not.
    """
    place = place_of(settings)
    if settings.trust == place or (staged.runtime and not staged.pickled):
        return
    what = "a format that runs code when it is loaded" if staged.runtime else "Python code"
    raise UsageError(
        f"{staged.main} is {what}: it is accepted only of a place that is trusted by its name; set "
        f"trust to {place!r} if you would run what comes from there"
    )
