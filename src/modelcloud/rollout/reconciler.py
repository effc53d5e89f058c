"""Carries the policy's decisions out for one service: one rollout at a time, newest last.

Must never: decide what to want of the engine; that is `policy`. Everything here runs on one event
loop, and facts are kept before the engine is told what follows from them.

Who gives way to whom: a new rollout takes the place of a queued one, and of the running one as
long as its target cannot have answered a request (`policy.supersedable`). Past that point the
running one is brought to an end first, whichever it is, and only the newest waits behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from modelcloud import errors
from modelcloud.engines.base import Engine
from modelcloud.rollout import policy, snapshot
from modelcloud.rollout.records import Kind, Rollout, RolloutState, WorkerStanding
from modelcloud.rollout.snapshot import Outcome, ServiceSnapshot
from modelcloud.types import Desired, GenerationSpec, Observed, StrategySpec

HISTORY = 100


def renumber(spec: GenerationSpec, generation: int) -> GenerationSpec:
    """The same artifact and options as a new generation."""
    return replace(spec, generation=generation)


class Reconciler:
    """Keeps a service at its serving generation, and takes it to the next on request.

    Args:
        engine: where the workers run.
        service: name of the service.
        replicas: workers to have.
        strategy: for rollouts that name none; `blue_green` when None.
        keep_warm_s: how long the previous generation's workers stay after a switch.
        drain_s: how long the engine lets a worker finish what it received.
        renew: makes an earlier spec a new generation, for a rollback to one no longer warm.
        clock: monotonic seconds, for deadlines.
        wall: seconds since the epoch, for people.
    """

    def __init__(
        self,
        engine: Engine,
        service: str,
        *,
        replicas: int,
        strategy: StrategySpec | None = None,
        keep_warm_s: float = 60.0,
        drain_s: float = 30.0,
        renew: Callable[[GenerationSpec, int], GenerationSpec] = renumber,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._strategy = strategy or StrategySpec()
        snapshot.check_strategy(self._strategy)
        self._renew = renew
        self._clock = clock
        self._wall = wall
        self._snapshot = ServiceSnapshot(
            service=service, replicas=replicas, keep_warm_s=keep_warm_s, drain_s=drain_s
        )
        self._wanted: Desired | None = None
        self._running: Rollout | None = None
        self._queued: Rollout | None = None
        self._history: deque[Rollout] = deque(maxlen=HISTORY)  # newest first
        self._ended: dict[str, asyncio.Event] = {}
        self._callbacks: list[Callable[[Rollout], None]] = []
        self._note = ""  # the running rollout's last
        self._issued = 0  # newest generation number handed out
        self._begun = 0  # newest generation number a rollout was begun with
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        engine.on_change(self.tick)

    # ---- asking for rollouts

    def next_generation(self) -> int:
        """Reserve the next generation number."""
        self._issued += 1
        return self._issued

    def begin(
        self,
        spec: GenerationSpec,
        strategy: StrategySpec | None = None,
        kind: Kind = Kind.UPDATE,
    ) -> Rollout:
        """Accept a rollout to `spec`; it starts now or when the running one has ended.

        Raises:
            InvalidInput: the strategy's numbers allow no step.
            Superseded: a later generation was begun already.
            Conflict: the reconciler is closed.
        """
        self._check_open()
        strategy = strategy or self._strategy
        snapshot.check_strategy(strategy)
        if spec.generation <= self._begun:
            raise errors.Superseded(
                f"generation {spec.generation} came after generation {self._begun} was begun"
            )
        self._begun = spec.generation
        self._issued = max(self._issued, self._begun)
        return self._accept(spec, strategy, kind)

    def rollback(self, strategy: StrategySpec | None = None) -> Rollout:
        """Go back: out of the running rollout, else to the generation that served before.

        A running update is recalled and its own record returned (it ends `rolled_back`); a running
        rollback is simply returned. A previous generation still warm keeps its number and is
        switched in; one no longer warm is started anew with `strategy`, under a new number.

        Raises:
            InvalidInput: the strategy's numbers allow no step.
            Conflict: there is nothing to go back to, or the reconciler is closed.
        """
        self._check_open()
        serving, previous, running = self.serving, self.previous, self._running
        if running is not None and serving is not None:
            if running.kind is not Kind.ROLLBACK:
                self._supersede_queued("a rollback was asked for")
                self._snapshot = snapshot.recall(self._snapshot, "rolled back on request")
                self.tick()
            return running
        if running is not None or previous is None:
            raise errors.Conflict("there is no earlier generation to go back to")
        if policy.is_warm(self._snapshot, self._observe()):
            return self._accept(previous, StrategySpec(), Kind.ROLLBACK)
        return self.begin(self._renew(previous, self.next_generation()), strategy, Kind.ROLLBACK)

    async def wait(self, rollout_id: str, timeout_s: float) -> Rollout:
        """The rollout once it has ended, however it did (see `Rollout.error`).

        Raises:
            NotFound: no such rollout is remembered.
            DeadlineExceeded: it had not ended after `timeout_s`; it goes on.
        """
        rollout = self.rollout(rollout_id)
        if not rollout.finished:
            try:
                await asyncio.wait_for(self._ended[rollout_id].wait(), timeout_s)
            except asyncio.TimeoutError:
                raise errors.DeadlineExceeded(
                    f"rollout {rollout_id} has not ended within {timeout_s:g} s; it goes on",
                    rollout=rollout_id,
                ) from None
        return rollout

    # ---- looking

    @property
    def serving(self) -> GenerationSpec | None:
        """The generation that serves; during a rollout, the one it would fall back to."""
        return self._snapshot.serving

    @property
    def previous(self) -> GenerationSpec | None:
        """The generation that served before: where a rollback leads."""
        return self._snapshot.previous

    def snapshot(self) -> ServiceSnapshot:
        """All facts decisions rest on, beside what the engine observes."""
        return self._snapshot

    def in_use(self) -> tuple[GenerationSpec, ...]:
        """Every generation whose files may still be needed."""
        specs = [self.serving, self.previous]
        specs += [r.target for r in (self._running, self._queued) if r is not None]
        return tuple(spec for spec in specs if spec is not None)

    def rollouts(self) -> list[Rollout]:
        """The last `HISTORY` rollouts, newest first."""
        return list(self._history)

    def rollout(self, rollout_id: str) -> Rollout:
        """One of them.

        Raises:
            NotFound: no such rollout is remembered.
        """
        for rollout in self._history:
            if rollout.id == rollout_id:
                return rollout
        raise errors.NotFound(f"no rollout {rollout_id!r} (the last {HISTORY} are remembered)")

    def on_finished(self, callback: Callable[[Rollout], None]) -> None:
        """Call `callback` on the event loop once a rollout ended, before `wait` returns."""
        self._callbacks.append(callback)

    def append_log(self, generation: int, line: str) -> None:
        """Add a line of a generation's output to its rollout; one that succeeded takes no more."""
        for rollout in self._history:
            if rollout.target.generation == generation:
                if rollout.state is not RolloutState.SUCCEEDED:
                    rollout.add_log(line)
                return

    # ---- the loop

    def tick(self) -> None:
        """Look, decide and act until nothing is left to do now; harmless at any time."""
        if self._closed:
            return
        while True:
            if self._running is None and self._queued is not None:
                self._start_queued()
            observed, now = self._observe(), self._clock()
            decision = policy.decide(self._snapshot, observed, now)
            self._snapshot = replace(self._snapshot, flight=decision.flight)
            if decision.desired != self._wanted:
                self._wanted = decision.desired
                self._engine.want(decision.desired)
            if self._running is None:
                break
            self._record(self._running, decision, observed)
            if decision.outcome is None:
                break
            self._end_running(decision.outcome)
        self._wake_at(decision.wake_at)

    def close(self) -> None:
        """Decide no more, release who waits; the engine is left as it is."""
        self._supersede_queued("the server is stopping")
        if self._running is not None:
            self._end_running(Outcome(RolloutState.FAILED, "the server is stopping"))
        self._closed = True
        self._wake_at(None)

    # ---- inside

    def _check_open(self) -> None:
        if self._closed:
            raise errors.Conflict("the server is stopping")

    def _observe(self) -> Observed:
        return self._engine.observe(self._snapshot.service)

    def _accept(self, target: GenerationSpec, strategy: StrategySpec, kind: Kind) -> Rollout:
        self._count += 1
        rollout = Rollout(
            id=str(self._count),
            service=self._snapshot.service,
            kind=kind,
            strategy=strategy,
            target=target,
            accepted_at=self._wall(),
        )
        self._history.appendleft(rollout)
        self._ended[rollout.id] = asyncio.Event()
        reason = f"rollout {rollout.id} took its place"
        self._supersede_queued(reason)
        if self._running is not None and policy.supersedable(self._snapshot, self._observe()):
            self._end_running(Outcome(RolloutState.SUPERSEDED, reason))
        self._queued = rollout
        self.tick()
        return rollout

    def _start_queued(self) -> None:
        rollout, self._queued = self._queued, None
        assert rollout is not None
        self._running = rollout
        self._note = ""
        self._snapshot = snapshot.start(
            self._snapshot, rollout.target, rollout.strategy, self._clock()
        )
        rollout.state = RolloutState.RUNNING
        rollout.source = self.serving
        rollout.started_at = self._wall()

    def _record(self, rollout: Rollout, decision: policy.Decision, observed: Observed) -> None:
        rollout.step = decision.step or rollout.step
        rollout.percent = max(rollout.percent, decision.percent)
        if decision.note and decision.note != self._note:
            rollout.add_log(decision.note)
        self._note = decision.note
        versions = {
            spec.generation: spec.version for spec in (rollout.source, rollout.target) if spec
        }
        rollout.workers = tuple(
            WorkerStanding(
                id=w.id, generation=w.generation, version=versions[w.generation], state=w.state
            )
            for w in observed.workers
            if w.generation in versions
        )

    def _supersede_queued(self, reason: str) -> None:
        rollout, self._queued = self._queued, None
        if rollout is not None:
            self._end(rollout, Outcome(RolloutState.SUPERSEDED, reason))

    def _end_running(self, outcome: Outcome) -> None:
        rollout, self._running = self._running, None
        assert rollout is not None
        self._snapshot = snapshot.finish(self._snapshot, outcome, self._clock())
        self._end(rollout, outcome)

    def _end(self, rollout: Rollout, outcome: Outcome) -> None:
        rollout.state = outcome.state
        rollout.reason = outcome.reason
        rollout.finished_at = self._wall()
        rollout.add_log(f"{outcome.state.value}: {outcome.reason}".removesuffix(": "))
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback, rollout)
        self._ended.pop(rollout.id).set()  # last: who waited finds the callbacks' work done

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if when is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, when - self._clock()), self.tick)
