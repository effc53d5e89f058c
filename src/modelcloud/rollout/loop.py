"""Carries the policy's decisions out for one deployment: look, decide, keep, tell, again.

Must never: decide what to want of the engine; that is `policy`. Facts are kept before the engine is
told what follows from them. While the journal keeps some, nothing is decided, so that what is known
here is never more than one step ahead of what a restart would find.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.engines.base import Engine
from modelcloud.rollout import counts, in_place, policy, snapshot
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.decision import Decision
from modelcloud.rollout.history import History
from modelcloud.rollout.journal import Journal, Kept
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.rollout.snapshot import DeploymentSnapshot, Outcome, Phase
from modelcloud.types import Desired, Observed


class Loop:
    """Keeps a deployment at what its facts say. Everything happens on one event loop.

    Args:
        engine: where the workers run.
        facts: what holds at first.
        journal: where facts are kept.
        clock: monotonic seconds, for deadlines.
        wall: seconds since the epoch, for people.
        say: gets every line of the deployment's log, with the rollout it belongs to if to any.

    Attributes:
        facts: replaced as a whole by who asks for something, who then calls `tick`.
        running: the rollout on its way.
        queued: the one that waits for its end.
        history: the rollouts that are remembered.
        answers: what a generation has answered so far.
        keeping: whether the journal has not answered yet.
        wanted: what the engine was last told.
    """

    def __init__(
        self,
        engine: Engine,
        facts: DeploymentSnapshot,
        *,
        journal: Journal,
        clock: Callable[[], float],
        wall: Callable[[], float],
        say: Callable[[Rollout | None, str], None],
    ) -> None:
        self.facts = facts
        self.running: Rollout | None = None
        self.queued: Rollout | None = None
        self.history = History()
        self.answers: tuple[int, Answers] | None = None
        self.keeping = False
        self.wanted: Desired | None = None
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._say = say
        self._kept = snapshot.timeless(facts)
        self._note = ""  # the running rollout's last
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._unsubscribe = engine.on_change(self._changed)

    def restore(self, facts: DeploymentSnapshot, kept: DeploymentSnapshot) -> None:
        """Hold these facts, of which the others are what is kept."""
        self.facts = facts
        self._kept = snapshot.timeless(kept)

    def observe(self) -> Observed:
        """What the engine sees of the deployment."""
        return self._engine.observe(self.facts.deployment)

    def tick(self) -> None:
        """Look, decide, keep and tell until nothing is left to do now; harmless at any time."""
        if self._closed or self.keeping:
            return
        decision = self._decide()
        if self._kept == snapshot.timeless(self.facts) and not self.history.has_changes:
            self._tell(decision)
            return
        self.keeping = True
        kept = Kept(facts=self.facts, rollouts=self.history.take_changes())
        self._journal.keep(kept, partial(self._was_kept, kept, decision, self._clock()))

    def close(self) -> None:
        """Do nothing any more; the engine and what is kept are left as they are."""
        self._closed = True
        self._unsubscribe()
        self._wake_at(None)

    # ---- rollouts

    def queue(self, rollout: Rollout) -> None:
        """Let a rollout wait, in place of the one that does, and of the running one if it may."""
        reason = f"rollout {rollout.id} took its place"
        self.supersede_queued(reason)
        if self.running is not None and policy.supersedable(self.facts, self.observe()):
            self.end_running(Outcome(RolloutState.SUPERSEDED, reason))
        self.queued = rollout
        if self.running is not None:
            rollout.reason = self._what_it_waits_for(self.running)
            self.log(rollout, rollout.reason)
            self.history.changed(rollout)

    def supersede_queued(self, reason: str) -> None:
        """End the rollout that waits, if one does."""
        rollout, self.queued = self.queued, None
        if rollout is not None:
            self.end(rollout, Outcome(RolloutState.SUPERSEDED, reason))

    def end_running(self, outcome: Outcome) -> None:
        """End the rollout on its way."""
        rollout, self.running = self.running, None
        assert rollout is not None
        self.facts = snapshot.finish(self.facts, outcome, self._clock())
        self.end(rollout, outcome)

    def end(self, rollout: Rollout, outcome: Outcome) -> None:
        """Write down how a rollout ended; that is announced once it is kept."""
        rollout.state = outcome.state
        rollout.reason = outcome.reason
        rollout.finished_at = self._wall()
        rollout.share = None
        self.log(rollout, f"{outcome.state.value}: {outcome.reason}".removesuffix(": "))
        self.history.changed(rollout)

    def log(self, rollout: Rollout | None, line: str) -> None:
        """Add a line to the deployment's log, and to the rollout's own."""
        if rollout is not None:
            rollout.add_log(line)
        self._say(rollout, line)

    # ---- inside

    def _what_it_waits_for(self, running: Rollout) -> str:
        """In words; a canary may take hours, and nobody has to wait for its end."""
        flight = self.facts.flight
        if flight is None or flight.phase is not Phase.WATCHING:
            return f"waits for rollout {running.id}"
        return (
            f"waits for rollout {running.id}, a canary that is watched to its end; a rollback "
            "recalls that one, and this one with it"
        )

    def _changed(self, deployment: str) -> None:
        if deployment == self.facts.deployment:
            self.tick()

    def _decide(self) -> Decision:
        """What to want, with every rollout ended and started that this moment ends and starts."""
        while True:
            if self.running is None and self.queued is not None:
                self._start_queued()
            observed = self.observe()
            decision = policy.decide(
                self.facts, observed, self._clock(), self._answers_of_target(), BUCKETS
            )
            self.facts = replace(self.facts, flight=decision.flight)
            if self.running is None:
                return decision
            self._record(self.running, decision, observed)
            if decision.outcome is None:
                return decision
            self.end_running(decision.outcome)

    def _was_kept(self, kept: Kept, decision: Decision, asked_at: float) -> None:
        """Announce and tell what follows from facts that are kept now, then go on deciding."""
        if self._closed:
            return
        self.keeping = False
        self._kept = snapshot.timeless(kept.facts)
        current = self.facts == kept.facts
        self.facts = snapshot.later(self.facts, self._clock() - asked_at)
        self.history.publish(kept.rollouts)
        if current:  # else something was asked for meanwhile, and another decision comes first
            self._tell(decision)
        self.tick()

    def _tell(self, decision: Decision) -> None:
        if decision.desired != self.wanted:
            self.wanted = decision.desired
            self._engine.want(decision.desired)
        self._wake_at(decision.wake_at)

    def _answers_of_target(self) -> Answers | None:
        flight = self.facts.flight
        if flight is None or self.answers is None:
            return None
        generation, answers = self.answers
        return answers if generation == flight.target.generation else None

    def _start_queued(self) -> None:
        rollout, self.queued = self.queued, None
        assert rollout is not None
        self.running = rollout
        self._note = ""
        target = rollout.target = in_place.target_of(
            self.facts, self.observe(), rollout.target, rollout.strategy
        )
        self.facts = snapshot.start(
            self.facts, target, rollout.strategy, self._clock(), rollout.shape
        )
        rollout.state = RolloutState.RUNNING
        rollout.reason, rollout.share = "", 0.0
        rollout.source = self.facts.serving
        rollout.started_at = self._wall()
        self.history.changed(rollout)
        way = f"by {rollout.strategy.name.value}"
        if rollout.reconfigures:
            way = "by other options for its running workers"
        self._say(
            rollout,
            f"{rollout.kind.value} to version {target.version} (generation {target.generation}) "
            f"{way}",
        )

    def _record(self, rollout: Rollout, decision: Decision, observed: Observed) -> None:
        step = decision.step or rollout.step
        percent = max(rollout.percent, decision.percent)
        share = counts.share(observed, rollout.target.generation)
        share = round(share * counts.part(observed, rollout.target), 1)
        if (step, percent, share) != (rollout.step, rollout.percent, rollout.share):
            rollout.step, rollout.percent, rollout.share = step, percent, share
            self.history.changed(rollout)
        if decision.note and decision.note != self._note:
            self.log(rollout, decision.note)
        self._note = decision.note
        rollout.look_at(observed)

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if when is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, when - self._clock()), self.tick)
