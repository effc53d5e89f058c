"""What the platform asks of a reconciler: a journal, live changes, stopping, restarts, a canary."""

from __future__ import annotations

import asyncio

import pytest

from modelcloud.engines.fake import FakeEngine
from modelcloud.errors import Conflict, InvalidInput, Superseded
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.policy import SWITCH_S
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Kind, Rollout, RolloutState, Shape
from modelcloud.rollout.snapshot import Phase
from modelcloud.types import (
    CanaryStep,
    Dispatch,
    DispatchPolicy,
    GenerationSpec,
    State,
    Strategy,
    StrategySpec,
)
from support.loops import on_a_loop
from support.plane import KEY, Plane

SURGE = StrategySpec(name=Strategy.ROLLING, max_surge=1, max_unavailable=0)
CANARY = StrategySpec(name=Strategy.CANARY, steps=(CanaryStep(10, 30), CanaryStep(50, 30)))


def serving(plane: Plane) -> Plane:
    """Bring the first generation up."""
    plane.begin()
    plane.settle()
    assert plane.strength() == 2
    return plane


# ---- the journal


@on_a_loop
async def test_the_engine_is_told_nothing_and_nobody_of_an_end_before_it_is_kept() -> None:
    plane = Plane()
    rollout = plane.begin()
    assert plane.engine.desired.generations == ()
    plane.journal.write()
    assert plane.engine.desired.generations == ()
    plane.journal.answer()
    assert plane.engine.desired.generations != ()
    while not rollout.finished:
        plane.move()
    waiting = asyncio.create_task(plane.reconciler.wait(rollout.id, 30))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert plane.told == {}
    plane.settle()
    assert (await waiting).state is RolloutState.SUCCEEDED
    assert plane.told == {rollout.id: RolloutState.SUCCEEDED}


@on_a_loop
async def test_time_in_which_nothing_could_be_kept_misses_no_deadline() -> None:
    plane = serving(Plane(keep_warm_s=60))
    rollout = plane.begin()
    phases = set()
    for _ in range(100):
        if (flight := plane.reconciler.snapshot().flight) is not None:
            phases.add(flight.phase)
        if not plane.journal.write():
            plane.move()
            continue
        plane.now += 10 * SWITCH_S
        plane.journal.answer()
    assert phases >= {Phase.LOADING, Phase.SWITCHING}
    assert rollout.state is RolloutState.SUCCEEDED
    assert plane.reconciler.warm_previous() is not None


@on_a_loop
async def test_what_is_asked_for_while_the_journal_is_slow_is_done_and_the_rest_is_not_told() -> (
    None
):
    plane = serving(Plane())
    first = plane.begin()
    second = plane.begin()  # before the first is kept
    plane.settle()
    assert [first.state, second.state] == [RolloutState.SUPERSEDED, RolloutState.SUCCEEDED]
    wanted = {w.spec.generation for desired in plane.engine.wants for w in desired.generations}
    assert wanted == {1, second.target.generation}


@on_a_loop
async def test_closing_leaves_what_is_kept_as_it_is_and_tells_who_waits_that_it_goes_on() -> None:
    plane = serving(Plane())
    rollout = plane.begin()
    plane.move()
    waiting = asyncio.create_task(plane.reconciler.wait(rollout.id, 30))
    await asyncio.sleep(0)
    plane.kill()
    with pytest.raises(Conflict, match="goes on"):
        await waiting
    assert rollout.id not in plane.told
    plane.settle()
    assert plane.store.rollouts[-1].state is RolloutState.SUCCEEDED


@on_a_loop
async def test_a_rollout_accepted_before_one_that_has_begun_is_not_begun_after_a_restart() -> None:
    plane = serving(Plane())
    late = plane.accept(plane.spec(), None)  # and whoever wrote it down was slow to say so
    plane.begin()
    plane.settle()
    with pytest.raises(Superseded):
        plane.reconciler.begin(late.target, rollout_id=late.id)
    plane.kill()
    plane.settle()
    assert {r.id: r.state for r in plane.store.rollouts}[late.id] is RolloutState.SUPERSEDED
    plane.quiet_end()
    plane.check_one_truth()


@on_a_loop
async def test_restarts_keep_what_is_warm_and_where_a_canary_stood() -> None:
    plane = serving(Plane(keep_warm_s=60))
    plane.begin()
    plane.settle()
    plane.kill()
    assert plane.reconciler.warm_previous() is not None
    plane.begin(CANARY)
    plane.settle()
    plane.answers()
    plane.settle()
    plane.kill()
    assert plane.reconciler.watching == 3
    flight = plane.reconciler.snapshot().flight
    assert flight is not None
    assert flight.baseline == Answers(requests=100, errors=0)
    plane.answers(errors=100)
    plane.settle()
    assert plane.store.rollouts[-1].reason.startswith("at 10 % of the requests, 100.0% of 100")


# ---- a canary


@on_a_loop
async def test_a_canary_goes_from_step_to_step_and_then_everything_follows() -> None:
    plane = serving(Plane(keep_warm_s=60))
    rollout = plane.begin(CANARY)
    shares = []
    for _ in range(2):
        plane.settle()
        assert plane.reconciler.watching == 2
        shares.append(plane.observed.percents)
        assert rollout.step is State.CHECKING
        plane.now += 30
        plane.answers()
    assert shares == [{2: 10}, {2: 50}]
    plane.settle()
    assert plane.reconciler.watching is None
    assert rollout.state is RolloutState.SUCCEEDED
    assert list(plane.observed.routed) == [2]
    assert plane.reconciler.warm_previous() is not None
    assert [line for line in rollout.log if line.startswith("step")] == [
        "step 1 of 2: 10 % of the requests for 30 s",
        "step 2 of 2: 50 % of the requests for 30 s (before, at 10 %: 0 answers, too few to judge)",
    ]


@on_a_loop
async def test_answers_of_another_generation_are_not_the_candidates() -> None:
    plane = serving(Plane())
    plane.begin(CANARY)
    plane.settle()
    for requests in (0, 1000):
        plane.reconciler.answers(1, Answers(requests=requests, errors=requests))
        plane.settle()
    assert plane.reconciler.watching == 2


@on_a_loop
async def test_a_canary_that_is_recalled_leaves_no_share() -> None:
    plane = serving(Plane())
    rollout = plane.begin(CANARY)
    plane.settle()
    assert plane.reconciler.recall("seen enough") is rollout
    plane.settle()
    assert (rollout.state, rollout.reason) == (RolloutState.ROLLED_BACK, "seen enough")
    assert plane.observed.percents == {}
    assert plane.strength() == 2


@on_a_loop
async def test_a_rollback_is_no_canary_unless_it_is_asked_to_be() -> None:
    engine = FakeEngine()
    reconciler = Reconciler(engine, "fib", replicas=1, strategy=CANARY, keep_warm_s=0)
    for generation in (1, 2):
        reconciler.begin(spec("fib", generation), StrategySpec())
        while reconciler.snapshot().flight is not None:
            engine.settle()
            reconciler.tick()
    assert reconciler.rollback().strategy.name is Strategy.BLUE_GREEN


# ---- live changes


@pytest.mark.parametrize("strategy", [StrategySpec(name=name) for name in Strategy] + [SURGE])
@pytest.mark.parametrize("replicas", [1, 4])
def test_another_number_of_replicas_at_any_moment_of_a_rollout_is_there_after_it(
    strategy: StrategySpec, replicas: int
) -> None:
    async def scenario(at: int) -> bool:
        plane = serving(Plane())
        rollout = plane.begin(strategy)
        for _ in range(at):
            if not plane.move():
                plane.now += 61
                plane.ticked()
        over = rollout.finished
        plane.scale(replicas)
        for _ in range(300):
            if strategy.name not in (Strategy.RECREATE, Strategy.ROLLING) or strategy == SURGE:
                assert plane.strength() >= 1
            if not plane.move():
                plane.now += 10
                plane.ticked()
        assert rollout.state is RolloutState.SUCCEEDED
        plane.quiet_end()
        plane.check_one_truth()
        assert plane.strength() == replicas
        return over

    moments = 0
    while not asyncio.run(scenario(moments)):
        moments += 1
    assert moments > 10


ROUND_ROBIN = Dispatch(DispatchPolicy.ROUND_ROBIN)


@on_a_loop
async def test_what_a_rollout_brings_is_there_with_the_switch_and_not_before() -> None:
    plane = serving(Plane(keep_warm_s=60))
    rollout = plane.begin(shape=Shape(replicas=3, dispatch=ROUND_ROBIN, keep_warm_s=0))
    while (flight := plane.reconciler.snapshot().flight) is None or (
        flight.phase is not Phase.SWITCHING
    ):
        assert [w.replicas for w in plane.engine.desired.generations if w.routed] == [2]
        assert plane.engine.desired.dispatch == Dispatch()
        plane.move()
    assert len([w for w in plane.observed.workers if w.generation == 2]) == 3
    plane.settle()
    assert rollout.state is RolloutState.SUCCEEDED
    (wish,) = plane.engine.desired.generations
    assert (wish.spec.generation, wish.replicas) == (2, 3)
    assert plane.engine.desired.dispatch == ROUND_ROBIN
    assert plane.strength() == 3
    assert plane.reconciler.snapshot().keep_warm_until is None


@on_a_loop
async def test_what_a_rollout_brings_is_not_there_when_it_fails() -> None:
    plane = serving(Plane())
    rollout = plane.begin(shape=Shape(replicas=1, dispatch=ROUND_ROBIN))
    while not any(w.generation == 2 for w in plane.observed.workers):
        plane.move()
    plane.engine.fail(next(w.id for w in plane.observed.workers if w.generation == 2))
    plane.ticked()
    plane.settle()
    assert rollout.state is RolloutState.FAILED
    assert plane.reconciler.snapshot().replicas == 2
    assert plane.engine.desired.dispatch == Dispatch()
    assert plane.strength() == 2


@pytest.mark.parametrize("strategy", [StrategySpec(name=name) for name in Strategy] + [SURGE])
@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("meanwhile", ["killed", "reshaped"])
def test_a_rollout_brings_its_replicas_whatever_happens_at_any_moment_of_it(
    strategy: StrategySpec, replicas: int, meanwhile: str
) -> None:
    async def scenario(at: int) -> bool:
        plane = serving(Plane())
        begun = replicas if meanwhile == "killed" else 3
        rollout = plane.begin(strategy, Shape(replicas=begun))
        for _ in range(at):
            if not plane.move():
                plane.now += 61
                plane.ticked()
        over = rollout.finished
        if meanwhile == "killed":
            plane.kill()
        elif not over:
            rollout.shape = Shape(replicas=replicas)
            plane.store.insert(rollout)
            plane.reconciler.reshape(rollout.id, rollout.shape)
        plane.quiet_end()
        plane.check_one_truth()
        assert plane.strength() == (3 if over and meanwhile == "reshaped" else replicas)
        return over

    moments = 0
    while not asyncio.run(scenario(moments)):
        moments += 1
    assert moments > 10


@on_a_loop
async def test_scaling_needs_a_worker_and_says_what_it_did() -> None:
    lines: list[str] = []
    reconciler = Reconciler(
        FakeEngine(), "fib", replicas=2, say=lambda _rollout, line: lines.append(line)
    )
    with pytest.raises(InvalidInput):
        reconciler.scale(0)
    reconciler.scale(2)
    reconciler.scale(5)
    assert lines == ["scaled from 2 to 5"]


@on_a_loop
async def test_another_dispatch_reaches_the_engine_and_is_kept() -> None:
    plane = serving(Plane())
    dispatch = Dispatch(DispatchPolicy.CONSISTENT_HASH, "header:user")
    plane.reconciler.redispatch(dispatch)
    plane.settle()
    assert plane.engine.desired.dispatch == dispatch
    assert plane.store.facts is not None
    assert plane.store.facts.dispatch == dispatch
    assert plane.strength() == 2


# ---- stopping


@pytest.mark.parametrize("running", [False, True])
def test_a_stopped_deployment_has_no_worker_and_can_be_begun_again(running: bool) -> None:
    async def scenario() -> None:
        plane = serving(Plane())
        plane.begin()
        if not running:
            plane.settle()
        previous = plane.reconciler.previous
        stopped = [plane.reconciler.stopped]
        plane.reconciler.stop("taken offline")
        stopped.append(plane.reconciler.stopped)  # nobody was told yet
        plane.settle()
        stopped.append(plane.reconciler.stopped)
        assert stopped == [False, False, True]
        assert plane.engine.deployments == {}
        assert (plane.reconciler.serving, plane.reconciler.previous) == (None, previous)
        last = plane.store.rollouts[-1]
        assert last.state is (RolloutState.SUPERSEDED if running else RolloutState.SUCCEEDED)
        plane.kill()
        plane.settle()
        assert plane.reconciler.stopped
        plane.begin()
        plane.settle()
        assert plane.strength() == 2
        assert plane.reconciler.previous == previous

    asyncio.run(scenario())


# ---- ids, names and what is said


def spec(key: str, generation: int) -> GenerationSpec:
    return GenerationSpec(
        service="m261",
        deployment=key,
        generation=generation,
        version=generation,
        target="m.py",
        snapshot="",
        digest="",
    )


@on_a_loop
async def test_deployments_of_one_service_share_an_engine_and_nothing_else() -> None:
    engine = FakeEngine()
    said: list[tuple[str, str]] = []

    def say(rollout: Rollout | None, line: str) -> None:
        said.append((rollout.id if rollout else "", line))

    first, second = (
        Reconciler(engine, key, service="m261", replicas=2, say=say) for key in ("m261/1", "m261/2")
    )
    rollout = first.begin(spec("m261/1", 7), rollout_id="41", kind=Kind.INITIAL)
    second.begin(spec("m261/2", 7), rollout_id="42", kind=Kind.INITIAL)
    while not (rollout.finished and second.rollout("42").finished):
        engine.settle()
        await asyncio.sleep(0)
    shown = rollout.to_dict()
    assert (shown["id"], shown["service"], shown["deployment"]) == ("41", "m261", "m261/1")
    assert len(engine.workers(7, "m261/1")) == len(engine.workers(7, "m261/2")) == 2
    second.stop("deleted")
    engine.settle()
    assert list(engine.deployments) == ["m261/1"]
    assert [line for id_, line in said if id_ == "41"] == [
        "initial to version 7 (generation 7) by blue_green",
        "pending: 0 of 2 ready",
        "switching",
        "succeeded",
    ]
    assert ("", "stopping: deleted") in said
    assert KEY not in engine.deployments
