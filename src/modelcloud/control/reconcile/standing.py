"""One deployment of the store and the reconciler that sees to it.

Must never: read or write the store; it is handed what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from modelcloud.control.deployments.deployment_states import Shown, Wanted, shown
from modelcloud.control.reconcile.intents import DeploymentIntent
from modelcloud.control.reconcile.rollout_log import RolloutLog
from modelcloud.engines.base import Engine
from modelcloud.errors import ModelcloudError
from modelcloud.rollout import policy, snapshot
from modelcloud.rollout.journal import Journal
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.types import GenerationSpec

#: A generation this close to the end of its warm time is not relied on.
WARM_MARGIN_S = 1.0


class Tools:
    """What every standing deployment is given.

    Args:
        engine: the node.
        log: the deployment log.
        drain_s: how long the node lets a worker finish what it received.
        finished: called with the key of a deployment whose rollout ended.
        refused: called with a rollout that could not begin, and why.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        log: RolloutLog,
        *,
        drain_s: float,
        finished: Callable[[str], None],
        refused: Callable[[Rollout, str], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.engine = engine
        self.journal = journal
        self.log = log
        self.drain_s = drain_s
        self.finished = finished
        self.refused = refused
        self.clock = clock
        self.wall = wall


class Standing:
    """A deployment: what is wanted of it and who sees to that.

    Raises:
        InvalidInput: the facts that were kept cannot be read.
    """

    def __init__(self, intent: DeploymentIntent, tools: Tools) -> None:
        facts = snapshot.from_json(intent.facts) if intent.facts else None
        self.intent = intent
        self._tools = tools
        self._reason = intent.reason  # of the last failure, or why it is offline
        self._begun = 0  # newest rollout that the reconciler was told of
        self.written: Shown | None = None
        self.reconciler = Reconciler(
            tools.engine,
            intent.key,
            service=intent.service,
            replicas=intent.replicas,
            keep_warm_s=intent.keep_warm_s,
            drain_s=tools.drain_s,
            dispatch=intent.dispatch,
            journal=tools.journal,
            clock=tools.clock,
            wall=tools.wall,
            say=partial(tools.log.say, intent.service, intent.id),
        )
        self.reconciler.on_finished(self._finished)
        if facts is not None:
            self._begun = max((int(r.id) for r in intent.unfinished), default=0)
            self.reconciler.restore(facts, intent.unfinished)
        else:
            self._begin_new()
        if intent.wanted is not Wanted.ONLINE:
            self.reconciler.stop(intent.reason)

    def follow(self, intent: DeploymentIntent) -> None:
        """Take over what is wanted now."""
        before, self.intent = self.intent, intent
        self._reason = intent.reason
        if intent.replicas != before.replicas:
            self.reconciler.scale(intent.replicas)
        if intent.dispatch != before.dispatch:
            self.reconciler.redispatch(intent.dispatch)
        if intent.keep_warm_s != before.keep_warm_s:
            self.reconciler.keep_warm(intent.keep_warm_s)
        for rollout in intent.unfinished:
            self.reconciler.reshape(rollout.id, rollout.shape)
        self._begin_new()
        # However it was before: it may have been started and stopped since anyone looked.
        if intent.wanted is not Wanted.ONLINE:
            self.reconciler.stop(intent.reason)

    def leave(self, reason: str) -> None:
        """End it, since the store no longer has it."""
        self.follow(replace(self.intent, wanted=Wanted.DELETED, reason=reason, unfinished=()))

    @property
    def gone(self) -> bool:
        """Whether it is deleted and nothing of it is left."""
        return self.intent.wanted is Wanted.DELETED and self.reconciler.stopped

    @property
    def serves(self) -> bool:
        """Whether it has a proven generation."""
        return self.reconciler.serving is not None

    @property
    def running(self) -> Rollout | None:
        """The rollout on its way, else the one that waits."""
        unfinished = [r for r in self.reconciler.rollouts() if not r.finished]
        return unfinished[-1] if unfinished else None

    @property
    def recallable(self) -> Rollout | None:
        """The rollout on its way, if there is something to go back to."""
        running = self.running
        under_way = running is not None and running.state is RolloutState.RUNNING
        return running if under_way and self.serves else None

    @property
    def unsupersedable(self) -> Rollout | None:
        """The rollout on its way, if it will be finished before a newer one begins."""
        observed = self._tools.engine.observe(self.intent.key)
        superseded = policy.supersedable(self.reconciler.snapshot(), observed)
        return None if superseded else self.recallable

    @property
    def warm_previous(self) -> GenerationSpec | None:
        """The generation before, while its workers stand by for a while yet."""
        until = self.reconciler.snapshot().keep_warm_until
        if until is None or until - self._tools.clock() < WARM_MARGIN_S:
            return None
        return self.reconciler.warm_previous()

    def shown(self) -> Shown:
        """How it is shown now."""
        return shown(
            self.intent.wanted,
            self.reconciler.snapshot(),
            self.running,
            self._tools.engine.observe(self.intent.key),
            self._reason,
        )

    def _begin_new(self) -> None:
        for rollout in self.intent.unfinished:
            if int(rollout.id) <= self._begun:
                continue
            self._begun = int(rollout.id)
            try:
                self.reconciler.begin(
                    rollout.target,
                    rollout.strategy,
                    rollout.kind,
                    rollout_id=rollout.id,
                    shape=rollout.shape,
                )
            except ModelcloudError as error:  # such as a generation that is no longer warm
                self._reason = error.message
                self._tools.refused(rollout, error.message)

    def _finished(self, rollout: Rollout) -> None:
        self._tools.log.finished(self.intent.service, rollout)
        if rollout.state is RolloutState.FAILED:
            self._reason = rollout.reason
        self._tools.finished(self.intent.key)
