"""Keeps what reconcilers decide in the store, in the background: many deployments, one transaction.

Must never: block the event loop, let a reconciler go on with what is not stored, or give up: while
the store cannot take it, everything stands still and what serves goes on serving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete

from modelcloud.control.deployments.deploying import write_columns
from modelcloud.control.deployments.deployment_states import Shown, Wanted
from modelcloud.control.deployments.generation_specs import id_of
from modelcloud.errors import ModelcloudError, StoreUnavailable
from modelcloud.rollout import snapshot
from modelcloud.rollout.journal import Kept
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.store.tables import Deployment, Label, RolloutRow
from modelcloud.waiting import within

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
#: A store that is away for long is mentioned this often.
COMPLAIN_EVERY_S = 60.0


class _Entry(msgspec.Struct):
    """What is to be written of one deployment: newer facts, or only how it is shown."""

    kept: Kept | None = None
    then: Callable[[], None] | None = None


class StoreJournal:
    """A `rollout.journal.Journal` over the store.

    Args:
        shown: how the deployment of a key is to be shown, asked right before it is written; None:
            leave that as it is.
        changed: called with the key of a deployment whose row a rollout's success has changed, and
            what is to be called once that is followed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        shown: Callable[[str], Shown | None],
        changed: Callable[[str, Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._shown = shown
        self._changed = changed
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._writing: Collection[str] = ()
        self._gone: set[str] = set()
        self._wake = asyncio.Event()
        self._waiting: list[tuple[str | None, asyncio.Future[None]]] = []
        self._one_by_one = False  # after an entry was refused: so that others need not wait for it
        self._complained = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # ---- what reconcilers and their keeper call

    def keep(self, kept: Kept, then: Callable[[], None]) -> None:
        """Store `kept`, then call `then`; once closed, neither happens."""
        entry = self._entries.setdefault(kept.facts.deployment, _Entry())
        entry.kept, entry.then = kept, then
        self._stir()

    def touch(self, key: str) -> None:
        """Write how a deployment is shown now."""
        self._entries.setdefault(key, _Entry())
        self._stir()

    def remove(self, key: str) -> None:
        """Remove the row of a deployment that is deleted and has no worker left."""
        self._gone.add(key)
        self._stir()

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return self._outstanding(None)

    async def stored(self, timeout_s: float, key: str | None = None) -> None:
        """Return once what was to be written of a deployment, or of all, is written.

        Raises:
            StoreUnavailable: that did not happen in time; it will be.
        """
        if not self._outstanding(key):
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, done))
        try:
            await within(done, timeout_s)
        except asyncio.TimeoutError:
            raise StoreUnavailable(
                "The store does not take what is to be kept now; it is tried again."
            ) from None
        finally:
            self._waiting.remove((key, done))

    async def close(self, timeout_s: float) -> None:
        """Write what there is, if that goes quickly; take no more."""
        try:
            await self.stored(timeout_s)
        except StoreUnavailable as error:
            log.warning("stopping: %s", error.message)
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- inside

    def _stir(self) -> None:
        if self._closed:
            return
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        delay = FIRST_RETRY_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._entries or self._gone:
                if await self._write():
                    delay = FIRST_RETRY_S
                else:
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, LAST_RETRY_S)

    def _outstanding(self, key: str | None) -> bool:
        if key is None:
            return bool(self._entries or self._writing or self._gone)
        return key in self._entries or key in self._writing

    async def _write(self) -> bool:
        """Write one batch; whether that went well."""
        keys = list(self._entries)[: 1 if self._one_by_one else None]
        batch = {key: self._entries.pop(key) for key in keys}
        self._writing = batch.keys()
        gone = set(self._gone)
        try:
            rows = [_row(key, entry.kept, self._shown(key)) for key, entry in batch.items()]
            ended = [number for key in gone if (number := id_of(key)) is not None]
            succeeded = await self._store.transact(partial(_write, rows, ended))
        except Exception as error:  # whatever it is, serving must go on and this be tried again
            self._complain(error)
            self._one_by_one = not isinstance(error, StoreUnavailable)
            self._writing = ()
            for key, entry in batch.items():  # behind the others
                newer = self._entries.pop(key, _Entry())
                self._entries[key] = entry if newer.kept is None else newer
            return False
        self._gone -= gone
        self._writing = ()
        if not self._entries:
            self._one_by_one = False
        for key, entry in batch.items():
            go_on = partial(self._go_on, key, entry.then)
            if id_of(key) in succeeded:
                self._changed(key, go_on)
            else:
                go_on()
        for which, done in self._waiting:
            if not done.done() and not self._outstanding(which):
                done.set_result(None)
        return True

    def _go_on(self, key: str, then: Callable[[], None] | None) -> None:
        try:
            if then is not None and not self._closed:
                then()
        except Exception:  # a bug of one is not to hold up the others
            log.exception("%s cannot go on", key)

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if now - self._complained >= COMPLAIN_EVERY_S:
            self._complained = now
            if isinstance(error, ModelcloudError):
                log.warning("rollouts stand still: %s (%s)", error.message, error.detail)
            else:
                log.error("rollouts stand still", exc_info=error)


class _Row(msgspec.Struct, frozen=True):
    """One deployment, as it is written."""

    id: int
    facts: dict[str, Any] | None
    rollouts: tuple[Rollout, ...]
    shown: Shown | None


def _row(key: str, kept: Kept | None, shown: Shown | None) -> _Row:
    number = id_of(key)
    assert number is not None, key
    if kept is None:
        return _Row(number, None, (), shown)
    return _Row(number, snapshot.to_json(kept.facts), kept.rollouts, shown)


def _write(rows: Iterable[_Row], gone: Iterable[int], tx: Session) -> set[int]:
    """Write all; return the ids of deployments that a succeeded rollout changed."""
    succeeded = set()
    for written in rows:
        row = tx.get(Deployment, written.id)
        for rollout in written.rollouts:
            change = _write_rollout(tx, rollout)
            if change is not None and row is not None:
                _apply(tx, row, change)
                succeeded.add(row.id)
        if row is None:  # deleted with its service
            continue
        if written.facts is not None:
            row.facts = written.facts
        if written.shown is not None:
            row.state, row.reason = written.shown.state.value, _clean(written.shown.reason)
    if gone:
        tx.execute(delete(Deployment).where(Deployment.id.in_(list(gone))))
    return succeeded


def _write_rollout(tx: Session, rollout: Rollout) -> dict[str, Any] | None:
    """Write one; return what it changes if it has just succeeded."""
    row = tx.get(RolloutRow, int(rollout.id))
    if row is None:
        return None
    succeeds = rollout.state is RolloutState.SUCCEEDED and row.state != rollout.state.value
    row.state, row.step = rollout.state.value, rollout.step.value
    row.percent, row.reason = rollout.percent, _clean(rollout.reason)
    row.source = None if rollout.source is None else msgspec.to_builtins(rollout.source)
    row.target = msgspec.to_builtins(rollout.target)
    row.started_at, row.finished_at = rollout.started_at, rollout.finished_at
    return row.change if succeeds else None


def _apply(tx: Session, row: Deployment, change: dict[str, Any]) -> None:
    write_columns(row, change)
    row.revision += 1
    label = change.get("label")
    if label is not None and row.wanted == Wanted.ONLINE.value:  # not ended since
        tx.merge(Label(service_id=row.service_id, name=label, deployment_id=row.id))
        row.service.revision += 1


def _clean(text: str) -> str:
    """Without what a database cannot hold: a model's own words may have anything in them."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
