"""An engine in memory, for tests: its workers and gateways move only when told to.

Must never: start a process, read a clock or act by itself. Drive it with `advance`, `acknowledge`,
`reap` (or `settle`, which is all of them until nothing moves) and with `hang`, `fail`, `kill`,
`refuse`.
Where there is one deployment only, no lever needs its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import msgspec

from modelcloud.types import (
    Desired,
    GenerationWish,
    Observed,
    Routing,
    State,
    WorkerView,
    advance,
)

_COMING = (State.PENDING, State.LOADING, State.WARMING, State.CHECKING, State.SERVING)
_NEXT = dict(pairwise(_COMING))


class _Worker(msgspec.Struct, kw_only=True):
    id: int
    deployment: str
    generation: int
    revision: int
    state: State = State.PENDING
    hangs: bool = False
    restarts: int = 0

    @property
    def leaving(self) -> bool:
        return self.state not in _COMING

    def become(self, state: State) -> None:
        self.state = advance(self.state, state)


class _Table(msgspec.Struct, frozen=True):
    """What gateways route to of a deployment: workers by generation, and percentages."""

    workers: dict[int, tuple[int, ...]] = {}
    percents: dict[int, float] = {}


class _Deployment(msgspec.Struct):
    """What is wanted of a deployment and what came of it, beside its workers."""

    desired: Desired
    preparing: dict[int, list[State]] = {}  # what each generation has still to go through
    prepared: set[int] = set()
    failures: dict[int, str] = {}
    offering: set[int] = set()
    routed: _Table = _Table()  # acknowledged

    def wish(self, generation: int) -> GenerationWish | None:
        for wish in self.desired.generations:
            if wish.spec.generation == generation:
                return wish
        return None


class FakeEngine:
    """An `Engine` of any number of deployments.

    Args:
        signature: what every generation offers once one of its workers is ready.
        prepares: what every generation goes through before its first worker starts, such as
            `(State.BUILDING_ENV,)`; `prepare` is the lever.

    Attributes:
        wants: every wish, oldest first.
        routing: the last one.
    """

    def __init__(
        self, signature: dict[str, Any] | None = None, *, prepares: tuple[State, ...] = ()
    ) -> None:
        self.wants: list[Desired] = []
        self.routing = Routing()
        self._signature = signature or {}
        self._prepares = prepares
        self._deployments: dict[str, _Deployment] = {}
        self._workers: dict[int, _Worker] = {}
        self._last_id = 0
        self._callbacks: list[Callable[[str], None]] = []
        self._touched: dict[str, None] = {}  # in order
        self._notice: asyncio.Handle | None = None

    # ---- the seam

    def want(self, desired: Desired) -> None:
        """Take the wish; missing workers appear as `pending`, surplus ones begin to drain."""
        self.wants.append(desired)
        there = self._deployments.setdefault(desired.deployment, _Deployment(desired))
        there.desired = desired
        self._comply(desired.deployment)

    def route(self, routing: Routing) -> None:
        """Keep it for tests to look at."""
        self.routing = routing

    def observe(self, deployment: str) -> Observed:
        """What is there now of a deployment."""
        there = self._deployments.get(deployment)
        if there is None:
            return Observed()
        workers = tuple(
            WorkerView(
                id=w.id,
                generation=w.generation,
                revision=w.revision,
                state=w.state,
                restarts=w.restarts,
            )
            for w in self._of(deployment)
        )
        wanted = sum(wish.replicas for wish in there.desired.generations if wish.routed)
        ready = sum(len(ids) for ids in self._table(deployment).workers.values())
        return Observed(
            workers=workers,
            preparing={generation: steps[0] for generation, steps in there.preparing.items()},
            failures=dict(there.failures),
            routed=dict(there.routed.workers),
            percents=dict(there.routed.percents),
            settled=frozenset({w.generation for w in workers} - set(there.routed.workers)),
            degraded="" if ready >= wanted else f"{ready} of {wanted} workers ready",
            signatures=dict.fromkeys(there.offering, self._signature),
        )

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback` on the running event loop after changes; without a loop, never."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    # ---- the levers

    def prepare(self, generation: int, deployment: str | None = None) -> bool:
        """Move a generation's preparation one step on; False if it is not being prepared."""
        moved = False
        for key, there in self._among(deployment):
            if (steps := there.preparing.get(generation)) is not None:
                moved = True
                steps.pop(0)
                if not steps:
                    del there.preparing[generation]
                    there.prepared.add(generation)
                self._comply(key)
        return moved

    def advance(self, worker: int) -> bool:
        """Move a coming worker one step on; False if it hangs, is ready or is leaving.

        A ready one that has other options than are wanted takes those.
        """
        w = self._workers[worker]
        if self._is_to_change(w):
            wish = self._deployments[w.deployment].wish(w.generation)
            assert wish is not None
            w.revision = wish.spec.revision
            self._changed(w.deployment)
            return True
        if w.hangs or w.state not in _NEXT:
            return False
        w.become(_NEXT[w.state])
        if w.state is State.SERVING:
            self._deployments[w.deployment].offering.add(w.generation)
        self._changed(w.deployment)
        return True

    def acknowledge(self, deployment: str | None = None) -> bool:
        """Let the gateways confirm the newest table; False if they had."""
        moved = False
        for key, there in self._among(deployment):
            if (table := self._table(key)) != there.routed:
                there.routed = table
                self._changed(key)
                self._forget(key)
                moved = True
        return moved

    def reap(self, worker: int) -> bool:
        """Let a leaving worker go; False while the gateways' table still names it."""
        w = self._workers[worker]
        routed = self._deployments[w.deployment].routed.workers
        if not w.leaving or worker in routed.get(w.generation, ()):
            return False
        del self._workers[worker]
        self._comply(w.deployment)
        return True

    def refuse(self, worker: int, reason: str = "reconfigure raised ValueError") -> bool:
        """A ready worker does not take the options that are wanted; False if it has them.

        Where its generation is to go on whatever happens, another takes its place.
        """
        w = self._workers[worker]
        if not self._is_to_change(w):
            return False
        there = self._deployments[w.deployment]
        wish = there.wish(w.generation)
        if wish is not None and wish.restart:
            self.fail(worker, reason)
            return True
        there.failures.setdefault(w.generation, reason)
        self._changed(w.deployment)
        return True

    def hang(self, worker: int) -> None:
        """From now on the worker moves no further."""
        self._workers[worker].hangs = True

    def fail(self, worker: int, reason: str = "setup raised ValueError") -> None:
        """The worker dies with this reason; its generation's wish says whether another comes."""
        w = self._workers.pop(worker)
        there = self._deployments[w.deployment]
        wish = there.wish(w.generation)
        if wish is not None and not w.leaving:
            if wish.restart:
                self._start(w.deployment, w.generation, restarts=w.restarts + 1)
            else:
                there.failures.setdefault(w.generation, reason)
        self._comply(w.deployment)

    def kill(self, worker: int) -> None:
        """The worker dies of SIGKILL."""
        self.fail(worker, "killed by signal 9")

    def fail_preparing(self, generation: int, reason: str, deployment: str | None = None) -> None:
        """The preparation of a generation ends with this reason, and so does the generation."""
        for key, there in self._among(deployment):
            if there.preparing.pop(generation, None) is not None:
                there.failures[generation] = reason
                self._comply(key)

    def settle(self, deployment: str | None = None, *, loads: bool = True) -> None:
        """Prepare and advance (unless `loads` is False), acknowledge and reap while any moves."""
        moved = True
        while moved:
            moved = self.acknowledge(deployment)
            for key, there in self._among(deployment):
                for generation in list(there.preparing) if loads else ():
                    moved |= self.prepare(generation, key)
            for worker in self.workers(deployment=deployment):
                moved |= (loads and self.advance(worker)) or self.reap(worker)

    # ---- looking

    @property
    def desired(self) -> Desired:
        """The newest wish."""
        return self.wants[-1] if self.wants else Desired(deployment="")

    @property
    def deployments(self) -> dict[str, Desired]:
        """The wish for each deployment that is wanted or has workers, by its key."""
        return {key: there.desired for key, there in self._deployments.items()}

    def workers(self, generation: int | None = None, deployment: str | None = None) -> list[int]:
        """Ids of the processes there are, of one generation or of all, oldest first."""
        return [w.id for w in self._of(deployment) if generation in (None, w.generation)]

    def states(self, generation: int, deployment: str | None = None) -> list[State]:
        """States of a generation's workers, oldest first."""
        return [w.state for w in self._of(deployment) if w.generation == generation]

    # ---- inside

    def _among(self, deployment: str | None) -> list[tuple[str, _Deployment]]:
        return [
            (key, there) for key, there in self._deployments.items() if deployment in (None, key)
        ]

    def _of(self, deployment: str | None) -> Iterator[_Worker]:
        return (w for w in self._workers.values() if deployment in (None, w.deployment))

    def _table(self, deployment: str) -> _Table:
        """The newest route table, published; `_Deployment.routed` is the one acknowledged."""
        table = _Table(workers={}, percents={})
        for wish in self._deployments[deployment].desired.generations:
            generation = wish.spec.generation
            ready = tuple(
                w.id
                for w in self._of(deployment)
                if w.generation == generation and w.state is State.SERVING
            )
            if wish.routed and ready:
                table.workers[generation] = ready
                if wish.percent is not None:
                    table.percents[generation] = wish.percent
        return table

    def _is_to_change(self, w: _Worker) -> bool:
        """Whether a ready worker is to take other options, and may: one has not failed of them."""
        there = self._deployments[w.deployment]
        wish = there.wish(w.generation)
        if w.hangs or w.state is not State.SERVING or wish is None:
            return False
        return w.revision != wish.spec.revision and w.generation not in there.failures

    def _start(self, deployment: str, generation: int, *, restarts: int = 0) -> None:
        self._last_id += 1
        wish = self._deployments[deployment].wish(generation)
        self._workers[self._last_id] = _Worker(
            id=self._last_id,
            deployment=deployment,
            generation=generation,
            revision=wish.spec.revision if wish is not None else 0,
            restarts=restarts,
        )

    def _comply(self, deployment: str) -> None:
        there = self._deployments[deployment]
        wanted = {wish.spec.generation: wish for wish in there.desired.generations}
        for generation in list(there.failures):
            if generation not in wanted or wanted[generation].restart:
                del there.failures[generation]
        there.offering &= wanted.keys()
        there.prepared &= wanted.keys()
        there.preparing = {n: steps for n, steps in there.preparing.items() if n in wanted}
        for w in self._of(deployment):
            if not w.leaving and w.generation not in wanted:
                self._leave(w)
        for generation, wish in wanted.items():
            alive = [w for w in self._of(deployment)
                     if w.generation == generation and not w.leaving]  # fmt: skip
            alive.sort(key=lambda w: (w.state is not State.SERVING, w.id))
            for w in alive[wish.replicas :]:
                self._leave(w)
            missing = wish.replicas - len(alive)
            if (
                missing > 0
                and generation not in there.failures
                and self._is_ready(there, generation)
            ):
                for _ in range(missing):
                    self._start(deployment, generation)
        self._changed(deployment)
        self._forget(deployment)

    def _forget(self, deployment: str) -> None:
        """Drop a deployment of which nothing is wanted and nothing is left."""
        there = self._deployments[deployment]
        left = there.desired.generations or there.routed.workers or any(self._of(deployment))
        if not left:
            del self._deployments[deployment]

    def _is_ready(self, there: _Deployment, generation: int) -> bool:
        """Whether a generation was prepared; if not, that begins."""
        if not self._prepares or generation in there.prepared:
            return True
        there.preparing.setdefault(generation, list(self._prepares))
        return False

    @staticmethod
    def _leave(w: _Worker) -> None:
        w.become(State.DRAINING if w.state is State.SERVING else State.STOPPED)

    def _changed(self, deployment: str) -> None:
        if not self._callbacks:
            return
        self._touched[deployment] = None
        if self._notice is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._notice = loop.call_soon(self._notify)

    def _notify(self) -> None:
        self._notice = None
        touched, self._touched = self._touched, {}
        for deployment in touched:
            for callback in list(self._callbacks):
                callback(deployment)
