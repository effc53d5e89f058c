"""What may be asked of a deployment: rollouts one at a time, back again, more workers, none.

Must never: decide what to want of the engine (`policy`), or tell it (`loop`).

Who gives way to whom: a new rollout takes the place of a queued one, and of the running one as
long as its target cannot have answered a request (`policy.supersedable`). Past that point the
running one is brought to an end first, whichever it is, and only the newest waits behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from modelcloud import errors
from modelcloud.engines.base import Engine
from modelcloud.rollout import policy, snapshot
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.journal import AtOnce, Journal
from modelcloud.rollout.loop import Loop
from modelcloud.rollout.records import Kind, Rollout, RolloutState, Shape
from modelcloud.rollout.snapshot import DeploymentSnapshot, Outcome, Phase
from modelcloud.types import Dispatch, GenerationSpec, Strategy, StrategySpec


def renumber(spec: GenerationSpec, generation: int) -> GenerationSpec:
    """The same artifact and options as a new generation."""
    return replace(spec, generation=generation, revision=0)


class Reconciler:
    """Keeps a deployment at its serving generation, and takes it to the next on request.

    Args:
        engine: where the workers run.
        deployment: its key, as in `GenerationSpec.deployment`.
        service: name of the service; the key when empty.
        replicas: workers to have.
        strategy: for rollouts that name none; `blue_green` when None.
        keep_warm_s: how long the previous generation's workers stay after a switch.
        drain_s: how long the engine lets a worker finish what it received.
        dispatch: how gateways choose among the workers.
        journal: where facts are kept; with None they end with the reconciler.
        renew: makes an earlier spec a new generation, for a rollback to one no longer warm.
        clock: monotonic seconds, for deadlines.
        wall: seconds since the epoch, for people.
        say: gets every line of the deployment's log, with the rollout it belongs to if to any.
    """

    def __init__(
        self,
        engine: Engine,
        deployment: str,
        *,
        service: str = "",
        replicas: int,
        strategy: StrategySpec | None = None,
        keep_warm_s: float = 60.0,
        drain_s: float = 30.0,
        dispatch: Dispatch = Dispatch(),  # noqa: B008 — frozen
        journal: Journal | None = None,
        renew: Callable[[GenerationSpec, int], GenerationSpec] = renumber,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        say: Callable[[Rollout | None, str], None] | None = None,
    ) -> None:
        self._service = service or deployment
        self._strategy = strategy or StrategySpec()
        snapshot.check_strategy(self._strategy)
        snapshot.check_replicas(replicas)
        self._renew = renew
        self._clock = clock
        self._wall = wall
        self._outlived = journal is not None  # by its facts
        self._issued = 0  # newest generation number handed out
        self._begun = 0  # newest generation number a rollout was begun with
        self._closed = False
        facts = DeploymentSnapshot(
            deployment=deployment,
            replicas=replicas,
            dispatch=dispatch,
            keep_warm_s=keep_warm_s,
            drain_s=drain_s,
        )
        self._loop = Loop(
            engine,
            facts,
            journal=journal or AtOnce(),
            clock=clock,
            wall=wall,
            say=say or (lambda _rollout, _line: None),
        )

    def restore(self, facts: DeploymentSnapshot, rollouts: Sequence[Rollout]) -> None:
        """Go on from what was kept, as the first thing after construction.

        Every deadline counts anew, and so does the time a previous generation stays warm. The
        numbers given at construction hold, not those of the time when the facts were kept. Where
        the engine has lost every worker, a candidate that was proven has to be proven again.
        Unfinished rollouts go on under their ids; of several that wait, the newest.

        Args:
            facts: the last that were kept.
            rollouts: those that are not finished and as many of the others as are to be
                remembered, oldest first.
        """
        loop, given = self._loop, self._loop.facts
        now = replace(
            given,
            serving=facts.serving,
            previous=facts.previous,
            keep_warm_until=facts.keep_warm_until,
            flight=facts.flight,
        )
        if policy.is_bare(now, loop.observe()):
            now = snapshot.prove_again(now)
        loop.restore(snapshot.anew(now, self._clock()), kept=facts)
        loop.history.restore(rollouts)
        flight = facts.flight
        self._note_begun(facts.serving, facts.previous, flight.target if flight else None)
        for rollout in rollouts:
            if rollout.finished:
                pass
            elif (
                flight is not None
                and rollout.state is RolloutState.RUNNING
                and rollout.target.number == flight.target.number
            ):
                loop.running = rollout
                loop.facts = snapshot.reshape(loop.facts, rollout.shape, self._clock())
                loop.log(rollout, "going on after a restart")
            elif rollout.target.number > self._begun or self._returns(rollout):
                loop.queue(rollout)
            else:  # accepted before what has begun, but told of after it
                reason = f"generation {self._begun} was begun before it"
                loop.end(rollout, Outcome(RolloutState.SUPERSEDED, reason))
        if loop.running is None:  # nobody is to be told of its end
            loop.facts = replace(loop.facts, flight=None)
        self._note_begun(*(rollout.target for rollout in rollouts))
        self.tick()

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
        *,
        rollout_id: str | None = None,
        shape: Shape | None = None,
    ) -> Rollout:
        """Accept a rollout to `spec`; it starts now or when the running one has ended.

        With its success the deployment has `shape`; None: what it has by then. A rollback may be
        to the `warm_previous` generation as it stands, which is then switched in.

        Raises:
            InvalidInput: the strategy's numbers allow no step.
            Superseded: a later generation was begun already.
            Conflict: the reconciler is closed.
        """
        self._check_open()
        if strategy is None:
            strategy = self._strategy
            if kind is Kind.ROLLBACK and strategy.name is Strategy.CANARY:
                strategy = StrategySpec()  # who wants to get away does not want to be slow
        snapshot.check_strategy(strategy)
        if shape is not None:
            snapshot.check_replicas(shape.replicas)
        returns = kind is Kind.ROLLBACK and spec == self.warm_previous()
        if spec.generation <= self._begun and not returns:
            raise errors.Superseded(
                f"generation {spec.generation} came after generation {self._begun} was begun"
            )
        self._note_begun(spec)
        rollout = Rollout(
            id=rollout_id or self._loop.history.next_id(),
            service=self._service,
            deployment=self._loop.facts.deployment,
            kind=kind,
            strategy=strategy,
            target=spec,
            shape=shape,
            accepted_at=self._wall(),
        )
        self._loop.history.add(rollout)
        self._loop.queue(rollout)
        self.tick()
        return rollout

    def rollback(self, strategy: StrategySpec | None = None) -> Rollout:
        """Go back: out of the running rollout, else to the generation that served before.

        A running update is recalled and its own record returned (it ends `rolled_back`); a running
        rollback is simply returned. A previous generation still warm keeps its number and is
        switched in; one no longer warm is started anew with `strategy`, under a new number.

        Raises:
            InvalidInput: the strategy's numbers allow no step.
            Conflict: there is nothing to go back to, or the reconciler is closed.
        """
        if (running := self.recall("rolled back on request")) is not None:
            return running
        previous = self.previous
        if self._loop.running is not None or previous is None:
            raise errors.Conflict("there is no earlier generation to go back to")
        if self.warm_previous() is None:
            previous = self._renew(previous, self.next_generation())
        return self.begin(previous, strategy, Kind.ROLLBACK)

    def recall(self, reason: str) -> Rollout | None:
        """Have the running update go back to what serves; a running rollback goes on.

        Returns:
            The running rollout; None when there is none, or nothing to go back to.

        Raises:
            Conflict: the reconciler is closed.
        """
        self._check_open()
        running = self._loop.running
        if running is None or self.serving is None:
            return None
        if running.kind is not Kind.ROLLBACK:
            self._loop.supersede_queued("a rollback was asked for")
            self._change(snapshot.recall(self._loop.facts, reason))
        return running

    def scale(self, replicas: int) -> None:
        """Have another number of workers from now on, of a rollout on its way too.

        Raises:
            InvalidInput: fewer than one.
            Conflict: the reconciler is closed.
        """
        self._check_open()
        snapshot.check_replicas(replicas)
        before = self._loop.facts.replicas
        if replicas != before:
            self._loop.log(None, f"scaled from {before} to {replicas}")
            self._change(snapshot.scale(self._loop.facts, replicas, self._clock()))

    def reshape(self, rollout_id: str, shape: Shape | None) -> None:
        """Have a rollout that waits or is on its way lead to another shape.

        Raises:
            Conflict: the reconciler is closed.
        """
        self._check_open()
        loop = self._loop
        for rollout in (loop.running, loop.queued):
            if rollout is not None and rollout.id == rollout_id and rollout.shape != shape:
                rollout.shape = shape
        if loop.running is not None and loop.running.id == rollout_id:
            self._change(snapshot.reshape(loop.facts, shape, self._clock()))

    def redispatch(self, dispatch: Dispatch) -> None:
        """Have gateways choose among the workers in another way from now on.

        Raises:
            Conflict: the reconciler is closed.
        """
        self._check_open()
        self._change(replace(self._loop.facts, dispatch=dispatch))

    def keep_warm(self, seconds: float) -> None:
        """Have the previous generation's workers stay this long after a switch from now on.

        Raises:
            Conflict: the reconciler is closed.
        """
        self._check_open()
        self._change(replace(self._loop.facts, keep_warm_s=seconds))

    def stop(self, reason: str) -> None:
        """Have no worker any more; a rollout on its way is superseded. `begin` starts it again.

        Raises:
            Conflict: the reconciler is closed.
        """
        self._check_open()
        loop = self._loop
        loop.supersede_queued(reason)
        if loop.running is not None:
            loop.end_running(Outcome(RolloutState.SUPERSEDED, reason))
        if loop.facts.serving is not None:
            loop.log(None, f"stopping: {reason}")
        self._change(snapshot.stop(loop.facts))

    async def wait(self, rollout_id: str, timeout_s: float) -> Rollout:
        """The rollout once it has ended, however it did (see `Rollout.error`).

        Raises:
            NotFound: no such rollout is remembered.
            DeadlineExceeded: it had not ended after `timeout_s`; it goes on.
            Conflict: the reconciler was closed; the rollout goes on after a restart.
        """
        return await self._loop.history.wait(rollout_id, timeout_s)

    # ---- looking

    @property
    def service(self) -> str:
        """Name of the service it belongs to."""
        return self._service

    @property
    def serving(self) -> GenerationSpec | None:
        """The generation that serves; during a rollout, the one it would fall back to."""
        return self._loop.facts.serving

    @property
    def previous(self) -> GenerationSpec | None:
        """The generation that served before: where a rollback leads."""
        return self._loop.facts.previous

    def warm_previous(self) -> GenerationSpec | None:
        """The previous generation if it could be switched in as it stands."""
        return self.previous if policy.is_warm(self._loop.facts, self._loop.observe()) else None

    @property
    def stopped(self) -> bool:
        """Whether nothing is wanted, the engine knows it, and no worker is left."""
        loop, observed = self._loop, self._loop.observe()
        if loop.keeping or loop.queued is not None or loop.wanted is None:
            return False
        return not (loop.wanted.generations or observed.workers or observed.preparing)

    @property
    def watching(self) -> int | None:
        """The generation whose canary step is being watched; its `answers` are awaited."""
        flight = self._loop.facts.flight
        if flight is None or flight.phase is not Phase.WATCHING:
            return None
        return flight.target.generation

    def snapshot(self) -> DeploymentSnapshot:
        """All facts decisions rest on, beside what the engine observes."""
        return self._loop.facts

    def in_use(self) -> tuple[GenerationSpec, ...]:
        """Every generation whose files may still be needed, as by a worker about to stop."""
        loop = self._loop
        there = {worker.generation for worker in loop.observe().workers}
        specs = [r.target for r in self.rollouts() if r.target.generation in there]
        specs += [r.target for r in (loop.running, loop.queued) if r is not None]
        specs += [spec for spec in (self.serving, self.previous) if spec is not None]
        return tuple({spec.generation: spec for spec in specs}.values())

    def rollouts(self) -> list[Rollout]:
        """The last rollouts, newest first."""
        return self._loop.history.all()

    def rollout(self, rollout_id: str) -> Rollout:
        """One of them.

        Raises:
            NotFound: no such rollout is remembered.
        """
        return self._loop.history.find(rollout_id)

    def announced(self, rollout_id: str) -> bool:
        """Whether the end of a rollout is kept; one that is not, a restart may take back."""
        return self._loop.history.announced(rollout_id)

    def on_finished(self, callback: Callable[[Rollout], None]) -> None:
        """Call `callback` on the event loop once a rollout ended, before `wait` returns."""
        self._loop.history.on_finished(callback)

    def append_log(self, generation: int, line: str) -> None:
        """Add a line of a generation's output to its rollout; one that succeeded takes no more."""
        for rollout in self._loop.history.all():
            if rollout.target.generation == generation:
                over = rollout.state is RolloutState.SUCCEEDED
                if not (over or (rollout.reconfigures and rollout.finished)):
                    rollout.add_log(line)
                return

    def answers(self, generation: int, answers: Answers) -> None:
        """Tell what a generation has answered since its first request (see `watching`)."""
        self._loop.answers = generation, answers
        self.tick()

    # ---- life

    def tick(self) -> None:
        """Look, decide, keep and act until nothing is left to do now; harmless at any time."""
        self._loop.tick()

    def close(self) -> None:
        """Decide no more, release who waits; the engine and what is kept are left as they are."""
        loop, history = self._loop, self._loop.history
        if not self._outlived:
            loop.supersede_queued("the server is stopping")
            if loop.running is not None:
                loop.end_running(Outcome(RolloutState.FAILED, "the server is stopping"))
            history.publish(history.take_changes())
        history.release()
        self._closed = True
        loop.close()

    # ---- inside

    def _check_open(self) -> None:
        if self._closed:
            raise errors.Conflict("the server is stopping")

    def _change(self, facts: DeploymentSnapshot) -> None:
        self._loop.facts = facts
        self._loop.tick()

    def _note_begun(self, *specs: GenerationSpec | None) -> None:
        self._begun = max([self._begun, *(spec.number for spec in specs if spec is not None)])
        self._issued = max(self._issued, self._begun)

    def _returns(self, rollout: Rollout) -> bool:
        """Whether a rollout leads back to a generation that was kept warm."""
        return rollout.kind is Kind.ROLLBACK and rollout.target == self.previous
