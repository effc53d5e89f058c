"""The control plane is killed at every moment of a rollout; what it kept leads to one truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from modelcloud.rollout.counts import LEAVING
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import Phase
from modelcloud.types import CanaryStep, State, Strategy, StrategySpec
from support.plane import Plane

BLUE_GREEN = StrategySpec()
RECREATE = StrategySpec(name=Strategy.RECREATE)
ROLLING = StrategySpec(name=Strategy.ROLLING)
SURGE = StrategySpec(name=Strategy.ROLLING, max_surge=1, max_unavailable=0)
CANARY = StrategySpec(
    name=Strategy.CANARY, steps=(CanaryStep(10, 5), CanaryStep(50, 5)), max_error_rate=0.1
)
STRATEGIES = [BLUE_GREEN, RECREATE, ROLLING, SURGE, CANARY]
EVENTS = 250


# ---- every moment of one rollout, one after another


class Ending:
    """How an update of the sweep is to end, and what happens for that."""

    def __init__(self, state: RolloutState, happens: Callable[[Plane], None]) -> None:
        self.state = state
        self.happens = happens


def harm_candidate(plane: Plane) -> None:
    """A worker of the update dies when it is nearly ready."""
    for view in plane.observed.workers:
        if view.generation == 2 and view.state is State.CHECKING:
            plane.engine.kill(view.id)


def recall(plane: Plane) -> None:
    """Asked for when the update could answer, and again where a kill took that back."""
    flight = plane.reconciler.snapshot().flight
    if (
        flight is not None
        and flight.phase in (Phase.WATCHING, Phase.SWITCHING, Phase.SHIFTING)
        and State.SERVING in plane.engine.states(2)
    ):
        plane.reconciler.recall("asked")


ENDINGS = {
    "succeeds": Ending(RolloutState.SUCCEEDED, Plane.answers),
    "fails": Ending(RolloutState.FAILED, harm_candidate),
    "breaks a limit": Ending(RolloutState.FAILED, lambda plane: plane.answers(errors=50)),
    "is recalled": Ending(RolloutState.ROLLED_BACK, recall),
}


def sweep(strategy: StrategySpec, ending: Ending, at: int, kill: Callable[[Plane], None]) -> bool:
    """One update, with a kill at the given moment; False if it was over before."""
    plane = Plane()
    plane.begin()
    plane.settle()
    assert plane.strength() == 2
    plane.told.clear()
    plane.begin(strategy)
    moment = 0
    while moment <= at:
        if strategy in (BLUE_GREEN, CANARY):
            assert plane.strength() >= 2
        ending.happens(plane)
        if not plane.move():
            if not plane.store.rollouts[-1].finished and plane.now < 1_000_100:
                plane.now += 1
                plane.ticked()
                moment += 1
                continue
            return False
        moment += 1
    kill(plane)
    for _ in range(400):
        if strategy in (BLUE_GREEN, CANARY) and kill is not Plane.lose_node:
            assert plane.strength() >= 2
        ending.happens(plane)
        if not plane.move():
            plane.now += 1
            plane.ticked()
    plane.quiet_end()
    plane.check_one_truth()
    rollout = plane.store.rollouts[-1]
    assert rollout.state is ending.state
    serving = plane.reconciler.serving
    assert serving is not None
    assert serving.generation == (2 if rollout.state is RolloutState.SUCCEEDED else 1)
    return True


@pytest.mark.parametrize("kill", [Plane.kill, Plane.lose_node])
@pytest.mark.parametrize(
    ("strategy", "ending"),
    [
        (strategy, ending)
        for strategy in STRATEGIES
        for ending in ENDINGS
        if ending != "breaks a limit" or strategy is CANARY
    ],
)
def test_a_kill_at_any_moment_of_an_update_changes_nothing_of_how_it_ends(
    strategy: StrategySpec, ending: str, kill: Callable[[Plane], None]
) -> None:

    async def scenario() -> int:
        moments = 0
        while sweep(strategy, ENDINGS[ending], moments, kill):
            moments += 1
        return moments

    assert asyncio.run(scenario()) > 10


# ---- random histories


class History:
    """One random history of a deployment on the platform.

    Args:
        crashes: workers that are ready die too, not only candidates coming up.
        stalls: the store is away for long stretches, in which time passes.
        stops: the deployment is taken offline now and then.
        loses_node: the node is killed too.
        lags: what the engine is told and tells is under way for a while.
        light: rollouts bring other options alone, which workers take as they serve, or refuse.
    """

    def __init__(
        self,
        seed: int,
        strategies: list[StrategySpec],
        *,
        crashes: bool = False,
        stalls: bool = False,
        stops: bool = False,
        loses_node: bool = False,
        lags: bool = False,
        light: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.strategies = strategies
        self.crashes = crashes
        self.stalls = stalls
        self.away = False  # the store
        self.plane = Plane(lags=lags, light=light)
        self.plane.begin()
        self.plane.settle()
        self.floor = 2
        self.events: dict[str, int] = {
            "advance": 50, "acknowledge": 15, "reap": 20, "write": 30, "answer": 30,
            "begin": 3, "accept": 1, "rollback": 3, "scale": 2, "answers": 10, "wait": 8,
            "harm": 3, "hang": 1, "kill": 4, "stall": int(stalls), "stop": int(stops),
            "lose node": int(loses_node), "carry": 30 * lags, "report": 30 * lags,
        }  # fmt: skip

    def play(self) -> Iterator[Plane]:
        """Yield after each event."""
        for _ in range(EVENTS):
            names = list(self.events)
            name = self.random.choices(names, [self.events[name] for name in names])[0]
            self.happen(name)
            if self.random.random() < 0.7:
                self.plane.reconciler.tick()
            if self.is_proven_and_there():
                self.floor = self.plane.store.replicas
            yield self.plane
        self.plane.quiet_end()

    def is_proven_and_there(self) -> bool:
        """Whether what serves has all its workers, and no earlier wish is to take one back."""
        plane, serving = self.plane, self.plane.reconciler.serving
        main = set(plane.observed.routed) - set(plane.observed.percents)
        return (
            plane.link.idle
            and serving is not None
            and main == {serving.generation}
            and plane.strength(leaving=False) >= plane.store.replicas
        )

    def happen(self, name: str) -> None:
        plane, engine = self.plane, self.plane.engine
        workers = engine.workers()
        worker = self.random.choice(workers) if workers else None
        if name == "stall":
            self.away = not self.away
        elif name in ("write", "answer"):
            if not self.away:
                getattr(plane.journal, name)()
        elif name in ("carry", "report"):
            getattr(plane.link, name)()
        elif name == "acknowledge":
            engine.acknowledge()
        elif name == "begin":
            plane.begin(self.random.choice(self.strategies))
        elif name == "accept":  # killed after the row was written, before anyone was told
            plane.accept(plane.spec(), self.random.choice(self.strategies))
            plane.kill()
        elif name == "rollback":
            plane.rollback()
        elif name == "scale":
            plane.scale(self.random.choice([1, 2, 3]))
            self.floor = min(self.floor, plane.store.replicas)
        elif name == "answers":
            plane.answers(errors=self.random.choice([0, 0, 0, 30]))
        elif name == "wait":
            plane.now += self.random.choice([0.1, 1, 3, 40 if self.away else 5])
        elif name == "kill":
            plane.kill()
        elif name == "stop":
            plane.reconciler.stop("asked")
        elif name == "lose node":
            plane.lose_node()
        elif worker is not None:
            self.happen_to(worker, name)

    def happen_to(self, worker: int, name: str) -> None:
        engine = self.plane.engine
        if name == "advance":
            engine.advance(worker)
        elif name == "reap":
            engine.reap(worker)
        elif name == "harm" and self.may_refuse(worker):
            engine.refuse(worker)
        elif self.crashes or self.is_coming_candidate(worker):
            (engine.fail if name == "harm" else engine.hang)(worker)

    def may_refuse(self, worker: int) -> bool:
        """Whether a worker could be what a change of options fails of."""
        view = next(w for w in self.plane.observed.workers if w.id == worker)
        wishes = {w.spec.generation: w for w in self.plane.engine.desired.generations}
        wish = wishes.get(view.generation)
        changes = wish is not None and wish.spec.revision != view.revision
        return changes and (self.crashes or not wish.restart)  # type: ignore[union-attr]

    def is_coming_candidate(self, worker: int) -> bool:
        view = next(w for w in self.plane.observed.workers if w.id == worker)
        wishes = {w.spec.generation: w for w in self.plane.engine.desired.generations}
        wish = wishes.get(view.generation)
        return view.state is not State.SERVING and wish is not None and not wish.restart


def check_lengths(plane: Plane) -> None:
    staying = [w for w in plane.observed.workers if w.state not in LEAVING]
    assert len(staying) <= 6  # twice the most that are ever asked for
    assert len(plane.engine.desired.generations) <= 2


@pytest.mark.parametrize(("stalls", "lags"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(100))
def test_blue_green_and_canary_stay_at_full_strength_whenever_the_control_plane_dies(
    seed: int, stalls: bool, lags: bool
) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN, CANARY], stalls=stalls, lags=lags)
        for plane in history.play():
            assert plane.strength() >= history.floor
            if not lags:  # what was just told may not be seen yet
                check_lengths(plane)
            main = set(plane.observed.routed) - set(plane.observed.percents)
            assert len(main) == 1
        await asyncio.sleep(0)
        history.plane.check_one_truth()

    asyncio.run(scenario())


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("loses_node", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_whatever_dies_stalls_or_is_asked_for_it_converges_to_one_truth(
    seed: int, loses_node: bool, lags: bool
) -> None:
    async def scenario() -> None:
        history = History(
            seed, STRATEGIES, crashes=True, stalls=True, stops=True, loses_node=loses_node,
            lags=lags,
        )  # fmt: skip
        for _ in history.play():
            pass
        await asyncio.sleep(0)
        history.plane.check_one_truth()

    asyncio.run(scenario())


# ---- other options for the workers that run


def refuse(plane: Plane) -> None:
    """The second worker does not take them, once the first has."""
    flight, views = plane.reconciler.snapshot().flight, plane.observed.workers
    if flight is not None and flight.phase is Phase.RECONFIGURING and views[0].revision:
        plane.engine.refuse(views[1].id)
        plane.ticked()


def recall_change(plane: Plane) -> None:
    """Asked for while the workers are given them."""
    flight = plane.reconciler.snapshot().flight
    if flight is not None and flight.phase is Phase.RECONFIGURING:
        plane.reconciler.recall("asked")


CHANGES = {
    "succeeds": Ending(RolloutState.SUCCEEDED, lambda _: None),
    "is refused": Ending(RolloutState.FAILED, refuse),
    "is recalled": Ending(RolloutState.ROLLED_BACK, recall_change),
}


def sweep_change(ending: Ending, at: int) -> bool:
    """One change of options with a kill at the given moment; False if it was over before."""
    plane = Plane(light=True)
    plane.begin()
    plane.settle()
    workers = plane.engine.workers()
    plane.told.clear()
    plane.begin()
    for _ in range(at):
        ending.happens(plane)
        if not plane.move():
            return False
    plane.kill()
    for _ in range(100):
        assert plane.strength() == 2
        ending.happens(plane)
        if not plane.move():
            plane.now += 1
            plane.ticked()
    plane.quiet_end()
    plane.check_one_truth()
    rollout = plane.store.rollouts[-1]
    assert rollout.state is ending.state
    assert rollout.target.generation == 1
    assert plane.engine.workers() == workers
    revision = 2 if rollout.state is RolloutState.SUCCEEDED else 0
    assert {view.revision for view in plane.observed.workers} == {revision}
    return True


@pytest.mark.parametrize("ending", CHANGES)
def test_a_kill_at_any_moment_of_a_change_of_options_changes_nothing_of_how_it_ends(
    ending: str,
) -> None:
    async def scenario() -> int:
        moments = 0
        while sweep_change(CHANGES[ending], moments):
            moments += 1
        return moments

    assert asyncio.run(scenario()) > 4


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_changes_of_options_keep_full_strength_whenever_the_control_plane_dies(
    seed: int, lags: bool
) -> None:
    async def scenario() -> None:
        history = History(seed, [BLUE_GREEN], lags=lags, light=True)
        for plane in history.play():
            assert plane.strength() >= history.floor
        await asyncio.sleep(0)
        history.plane.check_one_truth()

    asyncio.run(scenario())


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_changes_of_options_converge_whatever_dies_stalls_or_is_asked_for(
    seed: int, lags: bool
) -> None:
    async def scenario() -> None:
        history = History(
            seed, STRATEGIES, crashes=True, stalls=True, stops=True, loses_node=True, lags=lags,
            light=True,
        )  # fmt: skip
        for _ in history.play():
            pass
        await asyncio.sleep(0)
        history.plane.check_one_truth()
        serving = history.plane.reconciler.serving
        if serving is not None:
            revisions = {view.revision for view in history.plane.observed.workers}
            assert revisions == {serving.revision}

    asyncio.run(scenario())
