"""A control plane that may be killed at any moment, its store, and the engine that lives on.

Facts are stored as bytes, as in a real store: what a restart finds went through JSON. The journal
writes when told to, and answers when told to, so that a kill may come before, between and after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from modelcloud.engines.fake import FakeEngine
from modelcloud.rollout import snapshot
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.journal import Kept
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Kind, Rollout, RolloutState, Shape
from modelcloud.rollout.snapshot import DeploymentSnapshot, Phase
from modelcloud.types import Desired, GenerationSpec, Observed, Routing, State, StrategySpec

KEY = "fib/1"


def row(rollout: Rollout) -> Rollout:
    """What a table has columns for, apart from the object it came from."""
    return replace(rollout, workers=(), log=deque())


class Store:
    """What outlives a control plane: facts, rollouts and the number of replicas asked for."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.generation = 0
        self._facts = b""
        self._rollouts: dict[str, Rollout] = {}

    @property
    def facts(self) -> DeploymentSnapshot | None:
        return snapshot.from_json(msgspec.json.decode(self._facts)) if self._facts else None

    @property
    def rollouts(self) -> list[Rollout]:
        """All of them, oldest first."""
        return [row(rollout) for rollout in self._rollouts.values()]

    def insert(self, rollout: Rollout) -> None:
        self._rollouts[rollout.id] = row(rollout)

    def write(self, kept: Kept) -> None:
        """All of it, in one transaction."""
        self._facts = msgspec.json.encode(snapshot.to_json(kept.facts))
        for rollout in kept.rollouts:
            self.insert(rollout)
            if rollout.state is RolloutState.SUCCEEDED and rollout.shape is not None:
                self.replicas = rollout.shape.replicas


class SlowJournal:
    """Writes and answers in order, each when told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: deque[tuple[Kept, Callable[[], None]]] = deque()
        self._written: deque[Callable[[], None]] = deque()

    def keep(self, kept: Kept, then: Callable[[], None]) -> None:
        assert not self._asked, "a deployment gives one thing to keep at a time"
        assert not self._written
        self._asked.append((kept, then))

    def write(self) -> bool:
        """Store what waits longest; False if nothing does."""
        if not self._asked:
            return False
        kept, then = self._asked.popleft()
        self._store.write(kept)
        self._written.append(then)
        return True

    def answer(self) -> bool:
        """Say that something was stored; False if there is nothing to be said."""
        if not self._written:
            return False
        self._written.popleft()()
        return True


class Link:
    """The way to an engine: holds every wish against what is stored when it is sent.

    Args:
        lags: wishes arrive when `carry` is called, and what is observed when `report` is.
    """

    def __init__(self, engine: FakeEngine, store: Store, *, lags: bool) -> None:
        self._engine = engine
        self._store = store
        self._lags = lags
        self._sent: deque[Desired] = deque()
        self._seen = engine.observe(KEY)

    def want(self, desired: Desired) -> None:
        self._check(desired)
        self._sent.append(desired)
        if not self._lags:
            self.carry()

    def route(self, routing: Routing) -> None:
        self._engine.route(routing)

    def observe(self, deployment: str) -> Observed:
        return self._seen if self._lags else self._engine.observe(deployment)

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._engine.on_change(callback)

    @property
    def idle(self) -> bool:
        """Whether no wish is under way."""
        return not self._sent

    def carry(self) -> bool:
        """The oldest wish under way arrives; False if none is."""
        if not self._sent:
            return False
        self._engine.want(self._sent.popleft())
        return True

    def report(self) -> bool:
        """The engine tells what is there now; False if that is known."""
        before, self._seen = self._seen, self._engine.observe(KEY)
        return self._lags and self._seen != before

    def _check(self, desired: Desired) -> None:
        """Nothing is wanted but what follows from stored facts."""
        facts = self._store.facts
        if facts is None:
            assert not desired.generations
            return
        flight = facts.flight
        stored = [facts.serving, facts.previous, flight.target if flight else None]
        for wish in desired.generations:
            assert wish.spec in stored, "told what is not kept"
            if wish.routed and wish.spec != facts.serving:
                assert flight is not None
                assert flight.target == wish.spec
                watched = flight.phase is Phase.WATCHING
                assert watched is (wish.percent is not None)
                assert flight.phase not in (Phase.CLEARING, Phase.LOADING)


class Plane:
    """One deployment on the platform.

    Args:
        lags: the engine is told, and tells, when the link to it is made to (see `Link`).
        light: rollouts bring other options alone, which workers take as they serve.
    """

    def __init__(
        self,
        *,
        replicas: int = 2,
        keep_warm_s: float = 0.5,
        lags: bool = False,
        light: bool = False,
    ) -> None:
        self.light = light
        self.now = 1000.0
        self.keep_warm_s = keep_warm_s
        self.lags = lags
        self.store = Store(replicas)
        self.engine = self.new_engine()
        self.requests = self.errors = 0  # that whichever generation is watched has answered
        self.told: dict[str, RolloutState] = {}  # ends that were announced to anyone
        self.restarts = 0
        self.start()

    def start(self) -> None:
        self.journal = SlowJournal(self.store)
        self.link = Link(self.engine, self.store, lags=self.lags)
        self.reconciler = Reconciler(
            self.link,
            KEY,
            service="fib",
            replicas=self.store.replicas,
            keep_warm_s=self.keep_warm_s,
            journal=self.journal,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )
        self.reconciler.on_finished(self._finished)
        if self.store.facts is not None or self.store.rollouts:
            facts = self.store.facts or DeploymentSnapshot(deployment=KEY, replicas=1)
            self.reconciler.restore(facts, self.store.rollouts)

    def kill(self) -> None:
        """The control plane dies of SIGKILL, and another one takes its place."""
        self.restarts += 1
        self.reconciler.close()  # which tells nobody anything
        self.now += 5_000_000.0 * (-1) ** self.restarts  # another process, another clock
        self.start()

    def lose_node(self) -> None:
        """The node dies of SIGKILL and all it owned with it; the next `up` starts both."""
        self.engine = self.new_engine()
        self.kill()

    def new_engine(self) -> FakeEngine:
        return FakeEngine({"lightOptions": ["config"] if self.light else []})

    # ---- what users ask for, written down first

    def accept(
        self,
        spec: GenerationSpec,
        strategy: StrategySpec | None,
        kind: Kind = Kind.UPDATE,
        shape: Shape | None = None,
    ) -> Rollout:
        """The row of a rollout that nobody was told of yet."""
        rollout = Rollout(
            id=str(len(self.store.rollouts) + 1),
            service="fib",
            deployment=KEY,
            kind=kind,
            strategy=strategy or StrategySpec(),
            target=spec,
            shape=shape,
            accepted_at=self.now,
        )
        self.store.insert(rollout)
        return rollout

    def begin(self, strategy: StrategySpec | None = None, shape: Shape | None = None) -> Rollout:
        return self._begin(self.accept(self.spec(), strategy, shape=shape))

    def rollback(self) -> Rollout | None:
        if (running := self.reconciler.recall("rolled back on request")) is not None:
            return running
        previous = self.reconciler.warm_previous()
        if previous is None and (earlier := self.reconciler.previous) is not None:
            previous = replace(earlier, generation=self.spec().generation, revision=0)
        if previous is None or self.reconciler.serving is None:
            return None
        return self._begin(self.accept(previous, None, Kind.ROLLBACK))

    def scale(self, replicas: int) -> None:
        self.store.replicas = replicas
        self.reconciler.scale(replicas)

    def answers(self, errors: int = 0) -> None:
        """Of a hundred more answers so many are errors."""
        if (generation := self.reconciler.watching) is not None:
            self.requests += 100
            self.errors += errors
            self.reconciler.answers(generation, Answers(requests=self.requests, errors=self.errors))

    def spec(self) -> GenerationSpec:
        self.store.generation += 1
        return GenerationSpec(
            service="fib",
            deployment=KEY,
            generation=self.store.generation,
            version=1 if self.light else self.store.generation,
            target="m.py",
            options={"config": self.store.generation} if self.light else {},
            snapshot="",
            digest="",
            load_timeout_s=100,
        )

    # ---- looking

    @property
    def observed(self) -> Observed:
        return self.engine.observe(KEY)

    def strength(self, *, leaving: bool = True) -> int:
        """Workers that answer by the acknowledged table, those of a canary not counted.

        Args:
            leaving: whether those count that answer only until a newer table is acknowledged.
        """
        observed = self.observed
        there = {w.id for w in observed.workers if leaving or w.state is State.SERVING}
        return sum(
            worker in there
            for generation, workers in observed.routed.items()
            if generation not in observed.percents
            for worker in workers
        )

    def move(self) -> bool:
        """One thing moves, of all that could: journal, workers, gateways; False if nothing can."""
        if (
            self.journal.write()
            or self.journal.answer()
            or self.link.carry()
            or self.link.report()
            or self.engine.acknowledge()
        ):
            return self.ticked()
        for worker in self.engine.workers():
            if self.engine.reap(worker) or self.engine.advance(worker):
                return self.ticked()
        return False

    def ticked(self) -> bool:
        self.reconciler.tick()
        return True

    def settle(self) -> None:
        """All of it moves until nothing does."""
        while self.move():
            pass

    def quiet_end(self) -> None:
        """No more faults; time passes until nothing moves."""
        for _ in range(60):
            self.settle()
            for view in self.observed.workers:
                wishes = self.engine.desired.generations
                wanted = [(wish.spec.generation, wish.spec.revision) for wish in wishes]
                keeps = (view.generation, view.revision) in wanted
                if view.state is not State.SERVING or not keeps:
                    self.engine.kill(view.id)  # it hangs, and its time is over
            self.now += 20
            self.reconciler.tick()
            self.answers()
        self.settle()

    def check_one_truth(self) -> None:
        """What is stored, decided, wanted and there agree, and nobody was told otherwise."""
        facts = self.reconciler.snapshot()
        stored = self.store.facts
        assert stored is not None
        assert stored == snapshot.timeless(facts)
        assert facts.flight is None
        assert all(rollout.finished for rollout in self.store.rollouts)
        ends = {rollout.id: rollout.state for rollout in self.store.rollouts}
        assert {id_: ends[id_] for id_ in self.told} == self.told
        serving = facts.serving
        wanted = [wish.spec for wish in self.engine.desired.generations]
        assert wanted == ([] if serving is None else [serving])
        views = [(w.generation, w.state.value) for w in self.observed.workers]
        if serving is None:
            assert not views
        else:
            assert views == [(serving.generation, "serving")] * self.store.replicas
            assert set(self.observed.routed) == {serving.generation}
            assert not self.observed.percents

    # ---- inside

    def _begin(self, rollout: Rollout) -> Rollout:
        return self.reconciler.begin(
            rollout.target,
            rollout.strategy,
            rollout.kind,
            rollout_id=rollout.id,
            shape=rollout.shape,
        )

    def _finished(self, rollout: Rollout) -> None:
        assert self.told.setdefault(rollout.id, rollout.state) is rollout.state
