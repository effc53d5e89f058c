"""The reconciler over an in-memory engine: who is accepted, who gives way, how each one ends."""

from __future__ import annotations

import asyncio

import pytest

from modelcloud.engines.fake import FakeEngine
from modelcloud.errors import Conflict, DeadlineExceeded, NotFound, Superseded, UpdateFailed
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Kind, Rollout, RolloutState
from modelcloud.types import GenerationSpec, State, Strategy, StrategySpec
from support.loops import on_a_loop

ROLLING = StrategySpec(name=Strategy.ROLLING)
RECREATE = StrategySpec(name=Strategy.RECREATE)
SUCCEEDED, FAILED, SUPERSEDED = (
    RolloutState.SUCCEEDED,
    RolloutState.FAILED,
    RolloutState.SUPERSEDED,
)


class World:
    """A reconciler of two replicas, its engine, and the time it goes by."""

    def __init__(self, *, keep_warm_s: float = 60) -> None:
        self.now = 1000.0
        self.engine = FakeEngine()
        self.reconciler = Reconciler(
            self.engine, "fib", replicas=2, keep_warm_s=keep_warm_s, clock=lambda: self.now
        )
        self.finished: list[Rollout] = []
        self.reconciler.on_finished(self.finished.append)

    def spec(self) -> GenerationSpec:
        generation = self.reconciler.next_generation()
        return GenerationSpec(
            service="fib",
            generation=generation,
            version=generation,
            target="m.py",
            snapshot=f"snapshot-{generation}",
            digest="",
            load_timeout_s=100,
        )

    def begin(self, strategy: StrategySpec | None = None) -> Rollout:
        return self.reconciler.begin(self.spec(), strategy)

    def settle(self, *, loads: bool = True) -> None:
        """Let workers and gateways move until neither they nor the reconciler have more to do."""
        wants = -1
        while wants != len(self.engine.wants):
            wants = len(self.engine.wants)
            self.engine.settle(loads=loads)
            self.reconciler.tick()

    def serve(self) -> Rollout:
        """Bring the first generation up."""
        rollout = self.reconciler.begin(self.spec(), kind=Kind.INITIAL)
        self.settle()
        return rollout

    def standing(self) -> dict[int, list[State]]:
        """States of the workers there are, by generation."""
        generations = sorted({w.generation for w in self.engine.observe("fib").workers})
        return {generation: self.engine.states(generation) for generation in generations}

    def routed(self) -> list[int]:
        return sorted(self.engine.observe("fib").routed)


FULL = [State.SERVING] * 2


@on_a_loop
async def test_the_first_rollout_serves_and_is_recorded() -> None:
    world = World()
    rollout = world.serve()
    assert (rollout.state, rollout.step, rollout.percent) == (SUCCEEDED, State.SERVING, 100)
    assert rollout.source is None
    assert world.reconciler.serving == rollout.target
    assert world.standing() == {1: FULL}
    assert await world.reconciler.wait(rollout.id, 0) is rollout
    await asyncio.sleep(0)
    assert world.finished == [rollout]


@on_a_loop
async def test_who_waits_for_a_rollout_finds_that_its_callbacks_were_called() -> None:
    world = World()
    world.serve()
    rollout = world.begin()

    async def told() -> bool:
        await world.reconciler.wait(rollout.id, 60)
        return rollout in world.finished

    waiting = asyncio.create_task(told())
    await asyncio.sleep(0)
    world.settle()
    assert await waiting


@on_a_loop
async def test_a_first_rollout_that_fails_leaves_nothing_and_a_second_may_succeed() -> None:
    world = World()
    rollout = world.begin()
    world.engine.fail(1, "setup raised")
    world.settle()
    assert (rollout.state, rollout.reason) == (FAILED, "setup raised")
    assert world.reconciler.serving is None
    assert world.standing() == {}
    with pytest.raises(Conflict):
        world.reconciler.rollback()
    second = world.begin()
    world.settle()
    assert second.state is SUCCEEDED


@on_a_loop
async def test_an_engine_change_alone_moves_a_rollout_on() -> None:
    world = World()
    rollout = world.begin()
    waiting = asyncio.ensure_future(world.reconciler.wait(rollout.id, 30))
    while not waiting.done():
        world.engine.settle()
        await asyncio.sleep(0)
    assert waiting.result().state is SUCCEEDED


@on_a_loop
async def test_the_old_generation_alone_is_routed_until_all_new_workers_are_ready() -> None:
    world = World()
    world.serve()
    rollout = world.begin()
    first, second = world.engine.workers(2)
    world.engine.hang(second)
    world.settle()
    assert world.standing()[2] == [State.SERVING, State.PENDING]
    assert world.routed() == [1]
    assert [(w.generation, w.version) for w in rollout.workers] == [(1, 1), (1, 1), (2, 2), (2, 2)]
    world.engine.fail(first)
    world.settle()
    assert world.standing() == {1: FULL}
    assert isinstance(rollout.error(), UpdateFailed)


@pytest.mark.parametrize("strategy", [StrategySpec(), ROLLING, RECREATE])
@pytest.mark.parametrize("fault", ["raises", "killed", "hangs", "second of two raises"])
def test_a_bad_candidate_ends_with_the_old_generation_at_full_strength(
    strategy: StrategySpec, fault: str
) -> None:
    async def scenario() -> None:
        world = World()
        world.serve()
        rollout = world.begin(strategy)
        while not world.engine.workers(2):
            world.settle(loads=False)
        if fault == "second of two raises":
            worker = world.engine.workers(2)[0]
            while world.engine.advance(worker):
                pass
            while world.engine.workers(2)[-1] == worker:
                world.settle(loads=False)
        worker = world.engine.workers(2)[-1]
        if fault == "hangs":
            world.engine.hang(worker)
            world.settle()
            assert not rollout.finished
            world.now += 1000
            world.reconciler.tick()
        elif fault == "killed":
            world.engine.kill(worker)
        else:
            world.engine.fail(worker, "setup raised ValueError")
        world.settle()
        assert rollout.state is FAILED
        expected = {"killed": "signal 9", "hangs": "of 2 workers were ready"}
        assert expected.get(fault, "setup raised ValueError") in rollout.reason
        assert rollout.log[-1].startswith("failed: ")
        assert world.standing() == {1: FULL}
        assert world.routed() == [1]

    asyncio.run(scenario())


@on_a_loop
async def test_a_serving_worker_that_dies_during_an_update_is_replaced() -> None:
    world = World()
    world.serve()
    rollout = world.begin()
    world.engine.kill(world.engine.workers(1)[0])
    assert world.engine.states(1) == [State.SERVING, State.PENDING]
    world.settle()
    assert rollout.state is SUCCEEDED


@on_a_loop
async def test_of_a_hundred_updates_the_last_wins_and_the_others_are_told() -> None:
    world = World()
    world.serve()
    rollouts = []
    for _ in range(100):
        rollouts.append(world.begin())
        assert len(world.engine.workers()) <= 4
        world.engine.settle(loads=False)
        world.reconciler.tick()
        assert set(world.standing()) <= {1, rollouts[-1].target.generation}
    world.settle()
    assert [r.state for r in rollouts] == [SUPERSEDED] * 99 + [SUCCEEDED]
    assert all(isinstance(r.error(), Superseded) for r in rollouts[:-1])
    assert world.reconciler.serving == rollouts[-1].target


@on_a_loop
async def test_after_the_switch_was_decided_newer_rollouts_wait_and_only_the_newest_stays() -> None:
    world = World()
    world.serve()
    running = world.begin()
    for worker in world.engine.workers(2):
        while world.engine.advance(worker):
            pass
    world.reconciler.tick()
    older, newer = world.begin(), world.begin()
    assert [running.state, older.state, newer.state] == [
        RolloutState.RUNNING,
        SUPERSEDED,
        RolloutState.PENDING,
    ]
    world.settle()
    assert [running.state, newer.state] == [SUCCEEDED, SUCCEEDED]
    assert newer.source == running.target


@on_a_loop
async def test_a_rolling_update_that_answers_already_is_finished_before_the_next() -> None:
    world = World()
    world.serve()
    running = world.begin(ROLLING)
    world.engine.settle()
    world.reconciler.tick()
    world.engine.settle()
    assert world.routed() == [1, 2]
    newer = world.begin(ROLLING)
    assert newer.state is RolloutState.PENDING
    world.settle()
    assert (running.state, newer.state) == (SUCCEEDED, SUCCEEDED)
    assert world.standing() == {3: FULL}


@on_a_loop
async def test_rollback_while_warm_is_one_wish_and_keeps_the_number() -> None:
    world = World()
    first = world.serve()
    world.begin()
    world.settle()
    workers, wants = world.engine.workers(1), len(world.engine.wants)
    rollout = world.reconciler.rollback(RECREATE)
    world.engine.acknowledge()
    world.reconciler.tick()
    assert (rollout.state, rollout.kind) == (SUCCEEDED, Kind.ROLLBACK)
    assert len(world.engine.wants) == wants + 1
    assert world.engine.workers(1) == workers
    assert world.reconciler.serving == first.target
    assert world.begin().target.generation == 3


@on_a_loop
async def test_rollback_after_the_warm_time_starts_the_earlier_spec_anew() -> None:
    world = World()
    world.serve()
    world.begin()
    world.settle()
    world.now += 61
    world.settle()
    assert world.standing() == {2: FULL}
    rollout = world.reconciler.rollback()
    world.settle()
    assert rollout.state is SUCCEEDED
    assert (rollout.target.generation, rollout.target.version) == (3, 1)
    assert rollout.target.snapshot == "snapshot-1"


@on_a_loop
async def test_rollback_with_a_warm_worker_lost_starts_anew() -> None:
    world = World()
    world.serve()
    world.begin()
    world.settle()
    world.engine.kill(world.engine.workers(1)[0])
    rollout = world.reconciler.rollback()
    world.settle()
    assert (rollout.state, rollout.target.generation) == (SUCCEEDED, 3)


@pytest.mark.parametrize("strategy", [StrategySpec(), ROLLING, RECREATE])
def test_rollback_recalls_a_running_update(strategy: StrategySpec) -> None:
    async def scenario() -> None:
        world = World()
        world.serve()
        update = world.begin(strategy)
        world.engine.settle()
        world.reconciler.tick()
        assert world.reconciler.rollback() is update
        world.settle()
        assert (update.state, update.reason) == (
            RolloutState.ROLLED_BACK,
            "rolled back on request",
        )
        assert world.standing() == {1: FULL}

    asyncio.run(scenario())


@on_a_loop
async def test_a_second_rollback_on_its_way_is_the_first_one() -> None:
    world = World()
    world.serve()
    world.begin()
    world.settle()
    rollout = world.reconciler.rollback()
    assert world.reconciler.rollback() is rollout
    world.settle()
    assert world.reconciler.serving is not None
    assert world.reconciler.serving.generation == 1


@on_a_loop
async def test_an_update_that_arrives_after_a_later_one_began_is_superseded() -> None:
    world = World()
    early, late = world.spec(), world.spec()
    world.reconciler.begin(late)
    with pytest.raises(Superseded):
        world.reconciler.begin(early)


@on_a_loop
async def test_the_warm_generation_goes_by_itself_when_its_time_is_over() -> None:
    world = World(keep_warm_s=0.05)
    loop = asyncio.get_running_loop()
    start = loop.time()
    world.serve()
    world.begin()
    world.settle()
    assert set(world.standing()) == {1, 2}
    while 1 in world.standing():
        await asyncio.sleep(0.005)
        world.now = 1000 + loop.time() - start
        world.engine.settle()
    assert world.standing() == {2: FULL}


@on_a_loop
async def test_waiting_has_a_deadline_and_unknown_rollouts_are_said_to_be() -> None:
    world = World()
    rollout = world.begin()
    with pytest.raises(DeadlineExceeded):
        await world.reconciler.wait(rollout.id, 0.01)
    with pytest.raises(NotFound):
        await world.reconciler.wait("99", 1)
    assert not rollout.finished


@on_a_loop
async def test_closing_releases_who_waits_and_asks_the_engine_for_nothing_more() -> None:
    world = World()
    world.serve()
    rollout = world.begin()
    waiting = asyncio.ensure_future(world.reconciler.wait(rollout.id, 30))
    await asyncio.sleep(0)
    wants = len(world.engine.wants)
    world.reconciler.close()
    assert (await waiting).state is FAILED
    world.settle()
    assert len(world.engine.wants) == wants
    with pytest.raises(Conflict):
        world.begin()


@on_a_loop
async def test_snapshots_in_use_are_those_of_serving_previous_running_and_queued() -> None:
    world = World()
    for _ in range(3):
        world.begin()
        world.settle()
    world.begin(ROLLING)
    for _ in range(3):
        world.engine.settle()
        world.reconciler.tick()
    world.begin()
    assert sorted(spec.generation for spec in world.reconciler.in_use()) == [2, 3, 4, 5]


@on_a_loop
async def test_a_candidates_own_output_is_in_its_rollouts_log_until_it_serves() -> None:
    world = World()
    world.serve()
    rollout = world.begin()
    world.reconciler.append_log(2, "loading weights\n")
    world.reconciler.append_log(9, "nobody's")
    world.engine.fail(world.engine.workers(2)[0])
    world.settle()
    world.reconciler.append_log(2, "Traceback …")
    assert "loading weights" in rollout.log
    assert rollout.log[-1] == "Traceback …"
    world.reconciler.append_log(1, "a prediction printed this")
    assert "a prediction printed this" not in world.reconciler.rollouts()[-1].log
