"""Random histories of updates, faults and delays; what must hold after each event of each of them.

The seed is the test's parameter: a failing history is replayed by its name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from modelcloud.engines.fake import FakeEngine
from modelcloud.errors import Conflict
from modelcloud.rollout import policy
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Kind, Rollout, RolloutState, Shape
from modelcloud.rollout.snapshot import target_shape
from modelcloud.types import GenerationSpec, Observed, State, Strategy, StrategySpec

EVENTS = 250
BLUE_GREEN = StrategySpec()
RECREATE = StrategySpec(name=Strategy.RECREATE)


class History:
    """One random history.

    Args:
        crashes: workers that are ready die or hang too, not only candidates coming up.
        late: time passes in leaps, so that every deadline is missed now and then.
        most: rollouts bring a number of replicas from 1 to this one; 0: they bring none.
        light: rollouts bring other options alone, which workers take as they serve, or refuse.
    """

    def __init__(
        self,
        seed: int,
        strategies: list[StrategySpec],
        *,
        replicas: int,
        crashes: bool = False,
        late: bool = False,
        most: int = 0,
        light: bool = False,
    ) -> None:
        self.most = most
        self.light = light
        self.random = random.Random(seed)
        self.strategies = strategies
        self.crashes = crashes
        self.leaps = [0.1, 1, 10, 50] if late else [0.1]
        self.now = 0.0
        self.engine = FakeEngine({"lightOptions": ["config"]})
        self.reconciler = Reconciler(
            self.engine,
            "fib",
            replicas=replicas,
            keep_warm_s=0.5,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )
        self.begun: list[Rollout] = []
        self.ended: list[Rollout] = []
        self.reconciler.on_finished(self.ended.append)

    def begin(self) -> None:
        generation = self.reconciler.next_generation()
        spec = GenerationSpec(
            service="fib",
            generation=generation,
            version=1 if self.light else generation,
            target="m.py",
            options={"config": generation} if self.light else {},
            snapshot="",
            digest="",
            load_timeout_s=100,
        )
        strategy = self.random.choice(self.strategies)
        shape = Shape(replicas=self.random.randint(1, self.most)) if self.most else None
        self.begun.append(self.reconciler.begin(spec, strategy, shape=shape))

    def rollback(self) -> None:
        if self.reconciler.snapshot().flight is not None and self.random.random() < 0.7:
            return
        try:
            rollout = self.reconciler.rollback(self.random.choice(self.strategies))
        except Conflict:
            return
        if rollout not in self.begun:
            self.begun.append(rollout)

    def event(self) -> None:
        """One thing happens, or several before the reconciler hears of any."""
        workers = self.engine.workers()
        worker = self.random.choice(workers) if workers else None
        kind = self.random.choices(
            ["advance", "acknowledge", "reap", "begin", "rollback", "harm", "hang", "wait"],
            [50, 15, 20, 3, 3, 3, 1, 5],
        )[0]
        if kind == "acknowledge":
            self.engine.acknowledge()
        elif kind == "begin":
            self.begin()
        elif kind == "rollback":
            self.rollback()
        elif kind == "wait":
            self.now += self.random.choice(self.leaps)
        elif worker is not None:
            if kind == "advance":
                self.engine.advance(worker)
            elif self.light and kind == "harm" and self.random.random() < 0.8:
                self.engine.refuse(worker)
            elif kind == "reap":
                self.engine.reap(worker)
            elif self.crashes or self.is_coming_candidate(worker):
                (self.engine.fail if kind == "harm" else self.engine.hang)(worker)
        if self.random.random() < 0.7:
            self.reconciler.tick()

    def is_coming_candidate(self, worker: int) -> bool:
        view = next(w for w in self.observed.workers if w.id == worker)
        serving = self.reconciler.serving
        return view.state is not State.SERVING and (
            serving is None or view.generation > serving.generation
        )

    def quiet_end(self) -> None:
        """No more faults; time passes until nothing moves."""
        for _ in range(100):
            # What hangs is killed by the engine at its load timeout, or that for other options.
            for view in self.observed.workers:
                specs = [wish.spec for wish in self.engine.desired.generations]
                keeps = any(
                    (view.generation, view.revision) == (s.generation, s.revision) for s in specs
                )
                stands = view.state is State.SERVING and keeps
                if not self.engine.advance(view.id) and not stands:
                    self.engine.kill(view.id)
            self.engine.settle()
            self.now += 20
            self.reconciler.tick()
        self.engine.settle()

    @property
    def observed(self) -> Observed:
        return self.engine.observe("fib")

    def play(self) -> Iterator[None]:
        """Yield after each event."""
        self.begin()
        while not self.crashes and self.reconciler.serving is None:
            self.engine.settle()
            self.reconciler.tick()
        for _ in range(EVENTS):
            self.event()
            yield
        self.quiet_end()


def check_decisions_repeat(history: History) -> None:
    """Deciding twice, or once more on the facts just kept, changes nothing."""
    facts, observed = history.reconciler.snapshot(), history.observed
    first = policy.decide(facts, observed, history.now)
    assert policy.decide(facts, observed, history.now) == first
    if first.outcome is None:
        again = policy.decide(replace(facts, flight=first.flight), observed, history.now)
        assert (again.desired, again.outcome) == (first.desired, None)


def check_end(history: History) -> None:
    """Every rollout ended, once; what serves is at full strength and alone."""
    assert all(rollout.finished for rollout in history.begun)
    assert sorted(map(id, history.begun)) == sorted(map(id, history.ended))
    wanted = {wish.spec.generation for wish in history.engine.desired.generations}
    assert {w.generation for w in history.observed.workers} <= wanted
    serving = history.reconciler.serving
    if serving is None:
        assert not wanted
        return
    replicas = history.reconciler.snapshot().replicas
    assert history.engine.states(serving.generation) == [State.SERVING] * replicas
    assert set(history.observed.routed) == {serving.generation}
    assert {w.revision for w in history.observed.workers} == {serving.revision}
    newest = history.begun[-1]
    if newest.state is RolloutState.SUCCEEDED:
        assert serving == newest.target
    shapes = [r.shape for r in history.ended if r.state is RolloutState.SUCCEEDED and r.shape]
    assert not shapes or replicas == shapes[-1].replicas


def ready_and_routed(history: History) -> int:
    """Workers that can answer by the table the gateways acknowledged."""
    observed = history.observed
    routed = {worker for ids in observed.routed.values() for worker in ids}
    return sum(w.id in routed for w in observed.workers)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("replicas", [1, 3])
def test_blue_green_and_recreate_never_route_two_generations_nor_go_backwards(
    seed: int, replicas: int
) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN, RECREATE], replicas=replicas, crashes=True)
        newest = 0
        rollbacks: set[int] = set()
        for _ in history.play():
            check_decisions_repeat(history)
            assert len(history.observed.routed) <= 1
            assert len(history.observed.workers) <= 2 * replicas
            rollbacks |= {r.target.generation for r in history.begun if r.kind is Kind.ROLLBACK}
            if (serving := history.reconciler.serving) is not None:
                assert serving.generation >= newest or serving.generation in rollbacks
                newest = serving.generation
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(60))
def test_blue_green_keeps_every_serving_worker_answering(seed: int) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN], replicas=2)
        for _ in history.play():
            assert ready_and_routed(history) == 2
            assert len(history.observed.workers) <= 4
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (1, 0), (1, 1), (2, 1), (0, 5)])
def test_rolling_keeps_its_two_limits(seed: int, surge: int, unavailable: int) -> None:
    async def scenario() -> None:
        strategy = StrategySpec(name=Strategy.ROLLING, max_surge=surge, max_unavailable=unavailable)
        history = History(seed, [strategy], replicas=3)
        for _ in history.play():
            check_decisions_repeat(history)
            ready = sum(w.state is State.SERVING for w in history.observed.workers)
            assert ready >= 3 - unavailable
            assert len(history.observed.workers) <= 3 + surge
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(60))
def test_recreate_never_holds_more_than_one_copy_of_each_replica(seed: int) -> None:
    async def scenario() -> None:
        history = History(seed, [RECREATE], replicas=2, crashes=True)
        for _ in history.play():
            assert len(history.observed.workers) <= 2
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_strategies_may_follow_one_another_whatever_fails_or_stalls(seed: int, late: bool) -> None:
    async def scenario() -> None:
        rolling = StrategySpec(name=Strategy.ROLLING, max_surge=1)
        history = History(
            seed, [BLUE_GREEN, RECREATE, rolling], replicas=2, crashes=True, late=late
        )
        for _ in history.play():
            check_decisions_repeat(history)
            assert late or len(history.observed.workers) <= 4
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


def fewer(history: History) -> int:
    """The smaller number of replicas, of those there were and those that are to be."""
    facts = history.reconciler.snapshot()
    return min(facts.replicas, target_shape(facts).replicas)


@pytest.mark.parametrize("seed", range(60))
def test_blue_green_keeps_all_answering_until_another_number_of_workers_takes_over(
    seed: int,
) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN], replicas=2, most=4)
        for _ in history.play():
            check_decisions_repeat(history)
            assert ready_and_routed(history) >= fewer(history)
            assert len(history.observed.workers) <= 8
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (1, 0), (2, 1), (0, 5)])
def test_rolling_keeps_its_two_limits_towards_another_number_of_workers(
    seed: int, surge: int, unavailable: int
) -> None:
    async def scenario() -> None:
        strategy = StrategySpec(name=Strategy.ROLLING, max_surge=surge, max_unavailable=unavailable)
        history = History(seed, [strategy], replicas=3, most=4)
        for _ in history.play():
            check_decisions_repeat(history)
            ready = sum(w.state is State.SERVING for w in history.observed.workers)
            assert ready >= fewer(history) - unavailable
            assert len(history.observed.workers) <= 4 + surge
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_a_rollout_that_succeeds_brings_its_number_of_workers_whatever_fails_or_stalls(
    seed: int, late: bool
) -> None:
    async def scenario() -> None:
        rolling = StrategySpec(name=Strategy.ROLLING, max_surge=1)
        history = History(
            seed, [BLUE_GREEN, RECREATE, rolling], replicas=2, crashes=True, late=late, most=4
        )
        for _ in history.play():
            check_decisions_repeat(history)
            assert late or len(history.observed.workers) <= 8
        await asyncio.sleep(0)
        check_end(history)

    asyncio.run(scenario())


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_other_options_reach_all_workers_or_none_whatever_refuses_dies_or_stalls(
    seed: int, crashes: bool
) -> None:
    async def scenario() -> None:
        history = History(
            seed, [BLUE_GREEN, RECREATE], replicas=3, crashes=crashes, late=crashes, light=True
        )
        for _ in history.play():
            check_decisions_repeat(history)
            facts = history.reconciler.snapshot()
            known = {spec.revision for spec in (facts.serving, facts.previous) if spec}
            known |= {facts.flight.target.revision} if facts.flight else set()
            serving = facts.serving.generation if facts.serving else 0
            there = [w for w in history.observed.workers if w.generation == serving]
            assert crashes or {w.revision for w in there} <= known  # what hangs may be late
        await asyncio.sleep(0)
        check_end(history)
        if not crashes:
            done = [r for r in history.ended if r.state is RolloutState.SUCCEEDED]
            assert any(rollout.reconfigures for rollout in done)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(30))
def test_options_that_no_worker_dies_of_cost_no_worker(seed: int) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN], replicas=3, light=True)
        history.engine.refuse = lambda *_: False  # type: ignore[method-assign]
        first: set[int] = set()
        for _ in history.play():
            first = first or set(history.engine.workers())
            assert set(history.engine.workers()) == first
            assert ready_and_routed(history) == 3
        await asyncio.sleep(0)
        check_end(history)
        assert all(r.reconfigures for r in history.ended[1:] if r.started_at is not None)

    asyncio.run(scenario())
