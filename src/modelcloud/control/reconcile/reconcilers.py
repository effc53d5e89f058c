"""Runs a reconciler for each deployment of the store; tells the node how services are reached.

What is wanted is read from the store, at the start and after every operation, by one function:
what a crash left behind is then picked up in the same way as what was just asked for.

Must never: decide what an operation may do, or tell the engine what is not stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from modelcloud.control.common.changes import Changes
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deploying import Accepted
from modelcloud.control.deployments.deployment_states import Shown
from modelcloud.control.reconcile import intents
from modelcloud.control.reconcile.intents import Intents, ServiceIntent
from modelcloud.control.reconcile.journal import StoreJournal
from modelcloud.control.reconcile.live import Live, Observing
from modelcloud.control.reconcile.located import Located
from modelcloud.control.reconcile.rollout_log import RolloutLog
from modelcloud.control.reconcile.routing import reached, routing
from modelcloud.control.reconcile.standing import Standing, Tools
from modelcloud.engines.base import Engine
from modelcloud.errors import ModelcloudError, NotFound, NotReady, StoreUnavailable
from modelcloud.rollout.canary_watch import CanaryWatch
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Rollout
from modelcloud.types import Desired, GenerationSpec, Routing

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from modelcloud.dataplane.messages import Stats
    from modelcloud.node.orders import Counters, WorkerLine
    from modelcloud.store.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

#: For something to be known stored, and for the rest to be stored as the control plane ends.
STORED_S, CLOSE_S = 5.0, 2.0
#: For the gateways to follow a change of how services are reached.
ROUTED_S = 5.0
#: Between tries to follow the store where nobody waits for it.
RETRY_S = 1.0
#: The longest sleep until a token expires; the wall clock may be set meanwhile.
LONGEST_SLEEP_S = 3600.0


class NodeEngine(Engine, Observing, Protocol):
    """What is needed of the node beyond the seam."""

    def deployments(self) -> Collection[str]:
        """The keys of all deployments that it has anything of."""

    async def counters(self) -> Counters:
        """The gateways' counters."""

    async def routed(self, timeout_s: float) -> bool:
        """Whether all gateways follow the last `route`: once they do, or after so long."""


class Reconcilers:
    """All of them, by the keys of their deployments. A part of the platform that is `Background`.

    Attributes:
        changes: tells of every change that is decided or observed.
        live: the store's records as they are now.

    Args:
        engine: the node.
        artifacts: folder of the artifact store; absolute.
        write: appends a line to the deployment log of a service.
        forget: removes the logs of a service that is deleted.
        drain_s: how long the node lets a worker finish what it received.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        engine: NodeEngine,
        *,
        artifacts: Path,
        write: Callable[[str, str], None],
        forget: Callable[[str], None] = lambda _service: None,
        drain_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.changes = Changes()
        self.live = Live(engine, self.standing)
        self._store = store
        self._engine = engine
        self._clock = clock
        self._wall = wall
        self._log = RolloutLog(write)
        self._forget = forget
        self._journal = StoreJournal(
            store, shown=self._to_write, changed=self._row_changed, clock=clock
        )
        self._tools = Tools(
            Located(engine, artifacts),
            self._journal,
            self._log,
            drain_s=drain_s,
            finished=self._look_soon,
            refused=self._refused,
            clock=clock,
            wall=wall,
        )
        self._watch = CanaryWatch(self._stats, self._watched)
        self._services: dict[str, ServiceIntent] = {}
        self._standings: dict[str, Standing] = {}
        self._routing: Routing | None = None
        self._reading = asyncio.Lock()  # so that what was read earlier is followed earlier
        self._looks: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], None] | None = None

    # ---- life

    @property
    def started(self) -> bool:
        """Whether everything that the store wants was taken up."""
        return self._unsubscribe is not None

    async def start(self) -> None:
        """Take up everything the store wants, and end what it does not know.

        Raises:
            StoreUnavailable: nobody can tell what is wanted; nothing was touched.
        """
        async with self._reading:
            wanted = await self._store.read(partial(intents.read, now=self._wall()))
            self._unsubscribe = self._engine.on_change(self._look_soon)
            self._apply(wanted, None)
        known = {d.key for service in self._services.values() for d in service.deployments}
        for key in self._engine.deployments():
            if key not in known:
                log.warning("%s runs and is not in the store: it is stopped", key)
                self._engine.want(Desired(deployment=key))

    async def stop(self) -> None:
        """Decide no more; what runs goes on, and so will its rollouts after the next start."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._expiry is not None:
            self._expiry.cancel()
        self._watch.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.close(CLOSE_S)
        for standing in self._standings.values():
            standing.reconciler.close()
        self.changes.tell()

    # ---- after operations

    async def refresh(self, service: str | None = None) -> None:
        """Follow what operations wrote of one service, or of all; call it after their commit.

        Labels, weights, tokens and ports matter as much as deployments. It returns once every
        gateway does as was written: no request that comes later is treated as before. What cannot
        be read now, or takes a gateway more than `ROUTED_S`, is followed later: it is written down.
        """
        await asyncio.shield(self._spawn(self._follow(service)))

    async def carry_out(self, work: Callable[[Session], Accepted]) -> Accepted:
        """Run an operation on a deployment in a transaction, and follow what it wrote.

        Both are done even if who waits for it gives up. Raises what `work` and the store raise.

        Raises:
            NotReady: what runs was not taken up yet; nothing was done.
        """
        if not self.started:
            raise NotReady("the control plane is starting; try again in a moment")

        async def both() -> Accepted:
            accepted = await self._store.transact(work)
            self._log.accepted(accepted)
            await self.refresh(accepted.deployment.service)
            return accepted

        return await asyncio.shield(self._spawn(both()))

    async def recall(self, key: str, reason: str) -> Rollout | None:
        """Have a deployment's running rollout go back; None when none is that could.

        Raises:
            StoreUnavailable: this could not be stored yet.
        """
        standing = self._standings.get(key)
        rollout = None if standing is None else standing.reconciler.recall(reason)
        if rollout is not None:
            await self._journal.stored(STORED_S, key)
        return rollout

    async def wait(self, key: str, rollout_id: int, timeout_s: float) -> Rollout:
        """The rollout of a deployment once it ended. Raises as `Reconciler.wait` does."""
        standing = self._standings.get(key)
        if standing is None:
            raise NotFound(f"no rollout {rollout_id}")
        return await standing.reconciler.wait(str(rollout_id), timeout_s)

    async def idle(self, timeout_s: float) -> None:
        """Return once all that was decided so far is stored and followed.

        Raises:
            StoreUnavailable: that did not happen in time; it will.
        """
        deadline = self._clock() + timeout_s
        while self._tasks or self._looks or self._journal.busy:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=deadline - self._clock())
            await self._journal.stored(deadline - self._clock())
            await asyncio.sleep(0)

    # ---- looking

    def standing(self, key: str) -> Standing | None:
        """A deployment and its reconciler; None when the store wants no such thing."""
        return self._standings.get(key)

    def in_use(self) -> list[GenerationSpec]:
        """All that a worker may still be started from."""
        return [
            spec for standing in self._standings.values() for spec in standing.reconciler.in_use()
        ]

    def take_line(self, line: WorkerLine) -> None:
        """A line of a worker's output, or of the preparation of its generation."""
        standing = self._standings.get(line.deployment)
        if standing is not None:
            standing.reconciler.append_log(line.generation, line.text)
            self._log.take(standing.intent.service, standing.running, line)

    # ---- following the store

    async def _follow(self, service: str | None) -> None:
        try:
            await self._refresh(service)
        except StoreUnavailable:
            self._spawn(self._refresh_patiently(service))
        else:
            if not await self._engine.routed(ROUTED_S):
                log.warning("the gateways do not follow a change within %g s", ROUTED_S)

    async def _refresh(self, service: str | None) -> None:
        async with self._reading:
            if not self.started:  # which will read all of it
                return
            wanted = await self._store.read(partial(intents.read, now=self._wall(), name=service))
            self._apply(wanted, service)

    async def _refresh_patiently(self, service: str | None) -> None:
        while True:
            try:
                return await self._refresh(service)
            except StoreUnavailable:  # noqa: PERF203 — each try is a read of its own
                await asyncio.sleep(RETRY_S)

    def _apply(self, wanted: Intents, service: str | None) -> None:
        """Follow what is wanted of one service, or of all."""
        names = [*self._services] if service is None else [service]
        before = {name for name in names if self._services.pop(name, None) is not None}
        for found in wanted.services:
            self._services[found.name] = found
            for intent in found.deployments:
                standing = self._standings.get(intent.key)
                if standing is not None:
                    standing.follow(intent)
                    continue
                try:
                    self._standings[intent.key] = Standing(intent, self._tools)
                except ModelcloudError as error:
                    log.error(  # noqa: TRY400 — the text says it all
                        "%s is left as it runs: %s", intent.key, error.message
                    )
        there = {d.key for found in self._services.values() for d in found.deployments}
        for key, standing in self._standings.items():
            if key not in there:
                standing.leave("deleted with its service")
            self._look_soon(key)
        for name in before - self._services.keys():
            self._forget(name)  # now, for the name may be taken again; what drains may still write
        self._wake_at(wanted.until)
        self._publish()

    def _row_changed(self, key: str, then: Callable[[], None]) -> None:
        """A rollout's success has changed a row: follow that before anybody is told of it."""

        async def follow() -> None:
            try:
                await self.refresh(key.partition("/")[0])
            except Exception:  # a bug there must not have the deployment stand still
                log.exception("what has changed of %s is not followed", key)
            then()

        self._spawn(follow())

    def _wake_at(self, until: float | None) -> None:
        """Look again when the next token expires."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = None
        if until is not None:
            delay = min(max(0.0, until - self._wall()), LONGEST_SLEEP_S)
            self._expiry = asyncio.get_running_loop().call_later(
                delay, lambda: self._spawn(self._refresh_patiently(None))
            )

    def _refused(self, rollout: Rollout, reason: str) -> None:
        self._log.say(rollout.service, 0, rollout, f"cannot begin: {reason}")
        self._spawn(self._fail(rollout, reason))

    async def _fail(self, rollout: Rollout, reason: str) -> None:
        work = partial(rollouts.fail, rollout_id=int(rollout.id), reason=reason, now=self._wall())
        while True:
            try:
                await self._store.transact(work)
            except StoreUnavailable:  # noqa: PERF203 — likewise
                await asyncio.sleep(RETRY_S)
            else:
                return self.changes.tell()

    # ---- following the node

    def _look_soon(self, key: str) -> None:
        if not self._looks:
            asyncio.get_running_loop().call_soon(self._look)
        self._looks.add(key)

    def _look(self) -> None:
        looks, self._looks = self._looks, set()
        for key in looks:
            standing = self._standings.get(key)
            if standing is None:
                continue
            if standing.gone:
                self._drop(key, standing)
            elif standing.shown() != standing.written:
                self._journal.touch(key)
        self._publish()
        self._watch.look()
        self.changes.tell()

    def _drop(self, key: str, standing: Standing) -> None:
        """Nothing of a deployment is left."""
        standing.reconciler.close()
        del self._standings[key]
        self._journal.remove(key)
        service = standing.intent.service
        others = any(other.intent.service == service for other in self._standings.values())
        if service not in self._services and not others:
            self._forget(service)

    def _to_write(self, key: str) -> Shown | None:
        standing = self._standings.get(key)
        if standing is None:
            return None
        standing.written = standing.shown()
        return standing.written

    async def _stats(self) -> Sequence[Stats]:
        return (await self._engine.counters()).gateways

    def _watched(self) -> Iterable[Reconciler]:
        return [standing.reconciler for standing in self._standings.values()]

    def _publish(self) -> None:
        table = routing(reached(found, self._serves) for found in self._services.values())
        if table != self._routing:
            self._routing = table
            self._engine.route(table)

    def _serves(self, key: str) -> bool | None:
        standing = self._standings.get(key)
        if standing is None:  # its facts cannot be read: it is left as it runs
            return True if self._engine.observe(key).routed else None
        return standing.serves

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
