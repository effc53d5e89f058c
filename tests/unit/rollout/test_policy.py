"""What each strategy wants in each situation, as a table of facts and the wishes they lead to."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelcloud.errors import InvalidInput
from modelcloud.rollout import policy, snapshot
from modelcloud.rollout.policy import MARGIN_S, SWITCH_S, Decision, decide
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import Flight, Outcome, Phase, ServiceSnapshot
from modelcloud.types import (
    GenerationSpec,
    Observed,
    State,
    Strategy,
    StrategySpec,
    WorkerView,
)

BLUE_GREEN = StrategySpec()
RECREATE = StrategySpec(name=Strategy.RECREATE)
ROLLING = StrategySpec(name=Strategy.ROLLING)
SURGE = StrategySpec(name=Strategy.ROLLING, max_surge=1, max_unavailable=0)

LETTERS = {
    "p": State.PENDING,
    "l": State.LOADING,
    "w": State.WARMING,
    "c": State.CHECKING,
    "S": State.SERVING,
    "d": State.DRAINING,
    "x": State.STOPPED,
    "f": State.FAILED,
}


def spec(generation: int) -> GenerationSpec:
    return GenerationSpec(
        service="fib",
        generation=generation,
        version=generation,
        target="model.py",
        snapshot="",
        digest="",
        load_timeout_s=100,
    )


def seen(workers: str, routed: str = "", failed: dict[int, str] | None = None) -> Observed:
    """`seen("1:SS 2:pl", "1")`: two ready workers of generation 1, which is routed; two coming."""
    views = []
    for part in workers.split():
        generation, letters = part.split(":")
        views += [(int(generation), LETTERS[letter]) for letter in letters]
    return Observed(
        workers=tuple(
            WorkerView(id=i, generation=generation, state=state)
            for i, (generation, state) in enumerate(views, 1)
        ),
        routed={int(generation): (1,) for generation in routed.split()},
        failures=failed or {},
    )


def flying(
    strategy: StrategySpec,
    phase: Phase,
    *,
    serving: int | None = 1,
    replicas: int = 2,
    ready: int = 0,
    reason: str = "",
) -> ServiceSnapshot:
    """On the way to generation 2, in this phase since moment 0."""
    return ServiceSnapshot(
        service="fib",
        replicas=replicas,
        serving=spec(serving) if serving else None,
        flight=Flight(
            target=spec(2), strategy=strategy, phase=phase, since=0, ready=ready, reason=reason
        ),
    )


def wishes(decision: Decision) -> str:
    """`"1:2R* 2:2"`: two of 1, routed (R) and restarted (*), two of 2 that are neither."""
    return " ".join(
        f"{w.spec.generation}:{w.replicas}{'R' * w.routed}{'*' * w.restart}"
        for w in decision.desired.generations
    )


CLEARING, LOADING, SWITCHING = Phase.CLEARING, Phase.LOADING, Phase.SWITCHING
SHIFTING, REVERTING = Phase.SHIFTING, Phase.REVERTING


@pytest.mark.parametrize(
    ("strategy", "phase", "observed", "wanted", "next_phase"),
    [
        # blue_green: the old serve on at full count until all of the new are ready, then one wish
        (BLUE_GREEN, CLEARING, seen("1:SS", "1"), "1:2R* 2:2", LOADING),
        (BLUE_GREEN, CLEARING, seen("1:SS 9:SS", "1"), "1:2R*", CLEARING),
        (BLUE_GREEN, CLEARING, seen("1:SS 9:x", "1"), "1:2R*", CLEARING),
        (BLUE_GREEN, LOADING, seen("1:SS 2:pl", "1"), "1:2R* 2:2", LOADING),
        (BLUE_GREEN, LOADING, seen("1:SS 2:Sc", "1"), "1:2R* 2:2", LOADING),
        (BLUE_GREEN, LOADING, seen("1:S 2:Sc", "1"), "1:2R* 2:2", LOADING),
        (BLUE_GREEN, LOADING, seen("1:SS 2:SS", "1"), "2:2R* 1:2", SWITCHING),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:SS", "1"), "2:2R* 1:2", SWITCHING),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:S", "1"), "2:2R* 1:2", SWITCHING),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:SS", "1 2"), "2:2R* 1:2", SWITCHING),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:lp", "1"), "1:2R*", None),  # all new ones lost
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:lp", ""), "1:2R*", REVERTING),
        (BLUE_GREEN, REVERTING, seen("1:SS 2:dd", "2"), "1:2R*", REVERTING),
        # recreate: nothing of the new before the last of the old is gone; requests wait meanwhile
        (RECREATE, CLEARING, seen("1:SS", "1"), "1:0R*", CLEARING),
        (RECREATE, CLEARING, seen("1:d", ""), "1:0R*", CLEARING),
        (RECREATE, CLEARING, seen("", ""), "1:0R* 2:2", LOADING),
        (RECREATE, LOADING, seen("2:Sl", ""), "1:0R* 2:2", LOADING),
        (RECREATE, LOADING, seen("2:SS", ""), "2:2R*", SWITCHING),
        (RECREATE, LOADING, seen("2:S", "", {2: "no"}), "1:1R*", REVERTING),
        (RECREATE, REVERTING, seen("2:xx", ""), "1:0R*", REVERTING),
        (RECREATE, REVERTING, seen("1:p 2:x", ""), "1:1R*", REVERTING),
        (RECREATE, REVERTING, seen("1:Sl", "1"), "1:2R*", REVERTING),
        # rolling, one at a time: one goes, then one comes; a draining process still takes its room
        (ROLLING, SHIFTING, seen("1:SS", "1"), "1:1R* 2:0R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:Sd", "1"), "1:1R* 2:0R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:S", "1"), "1:1R* 2:1R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:S 2:l", "1"), "1:1R* 2:1R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:S 2:S", "1 2"), "1:0R* 2:1R", SHIFTING),
        (ROLLING, SHIFTING, seen("2:Sl", "2"), "1:0R* 2:2R", SHIFTING),
        (ROLLING, SHIFTING, seen("2:SS", "1 2"), "1:0R* 2:2R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:SS 9:S", "1"), "1:1R* 2:0R", SHIFTING),
        (ROLLING, SHIFTING, seen("1:l", ""), "1:1R* 2:1R", SHIFTING),  # a crash stops nothing
        (ROLLING, SHIFTING, seen("1:d 2:S", "2", {2: "no"}), "1:0R* 2:1R", REVERTING),
        (ROLLING, REVERTING, seen("2:S", "2"), "1:1R* 2:1R", REVERTING),
        (ROLLING, REVERTING, seen("1:S 2:S", "1 2"), "1:1R* 2:0R", REVERTING),
        (ROLLING, REVERTING, seen("1:SS", "1 2"), "1:2R* 2:0R", REVERTING),
        # rolling with surge: one comes first, and the old give up only what is covered
        (SURGE, SHIFTING, seen("1:SS", "1"), "1:2R* 2:1R", SHIFTING),
        (SURGE, SHIFTING, seen("1:SS 2:S", "1 2"), "1:1R* 2:1R", SHIFTING),
        (SURGE, SHIFTING, seen("1:S 2:S", "1 2"), "1:1R* 2:2R", SHIFTING),
        (SURGE, SHIFTING, seen("1:S 2:SS", "1 2"), "1:0R* 2:2R", SHIFTING),
        (SURGE, REVERTING, seen("1:l 2:S", "2"), "1:2R* 2:1R", REVERTING),
    ],
)  # fmt: skip
def test_each_phase_wants_what_its_strategy_allows(
    strategy: StrategySpec, phase: Phase, observed: Observed, wanted: str, next_phase: Phase | None
) -> None:
    decision = decide(flying(strategy, phase), observed, 1)
    assert wishes(decision) == wanted
    if next_phase is None:
        assert decision.outcome is not None
    else:
        assert decision.outcome is None
        assert decision.flight is not None
        assert decision.flight.phase is next_phase


@pytest.mark.parametrize("strategy", [BLUE_GREEN, RECREATE])
def test_a_switch_is_done_when_only_the_new_generation_is_acknowledged(
    strategy: StrategySpec,
) -> None:
    facts = flying(strategy, Phase.SWITCHING)
    assert decide(facts, seen("2:SS", "1 2"), 1).outcome is None
    decision = decide(facts, seen("2:SS", "2"), 1)
    assert decision.outcome == Outcome(RolloutState.SUCCEEDED)
    assert (decision.step, decision.percent) == (State.SERVING, 100)


def test_rolling_is_done_when_all_are_ready_and_only_they_are_routed() -> None:
    facts = flying(ROLLING, Phase.SHIFTING)
    assert decide(facts, seen("2:Sl", "2"), 1).outcome is None
    assert decide(facts, seen("1:d 2:SS", "2"), 1).outcome == Outcome(RolloutState.SUCCEEDED)


@pytest.mark.parametrize(
    ("phase", "observed"),
    [
        (LOADING, seen("1:SS 2:S", "1", {2: "setup raised"})),  # one of two failed: no promotion
        (LOADING, seen("1:SS 2:SS", "1", {2: "setup raised"})),
        (LOADING, seen("1:l 2:S", "", {2: "setup raised"})),  # reported even while the old crash
    ],
)
def test_a_failed_candidate_leaves_the_serving_generation_as_it_is(
    phase: Phase, observed: Observed
) -> None:
    decision = decide(flying(BLUE_GREEN, phase), observed, 1)
    assert wishes(decision) == "1:2R*"
    assert decision.outcome == Outcome(RolloutState.FAILED, "setup raised")


def test_a_failed_first_rollout_leaves_nothing_wanted() -> None:
    decision = decide(flying(BLUE_GREEN, LOADING, serving=None), seen("", "", {2: "no"}), 1)
    assert wishes(decision) == ""
    assert decision.outcome == Outcome(RolloutState.FAILED, "no")


@pytest.mark.parametrize(
    ("strategy", "phase", "observed", "budget", "reason"),
    [
        (BLUE_GREEN, CLEARING, seen("1:SS 9:d", "1"), 30 + MARGIN_S, "did not stop"),
        (BLUE_GREEN, LOADING, seen("1:SS 2:Sw", "1"), 100 + MARGIN_S, "still warming"),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:SS", "1"), SWITCH_S, "not acknowledged"),
        (RECREATE, CLEARING, seen("1:d", ""), 30 + MARGIN_S, "did not stop"),
        (RECREATE, LOADING, seen("2:ll", ""), 100 + MARGIN_S, "0 of 2 workers were ready"),
        (ROLLING, SHIFTING, seen("1:S 2:l", "1"), 130 + MARGIN_S, "still loading"),
    ],
)
def test_every_phase_gives_up_at_its_deadline_and_not_before(
    strategy: StrategySpec, phase: Phase, observed: Observed, budget: float, reason: str
) -> None:
    facts = flying(strategy, phase)
    before = decide(facts, observed, budget - 0.5)
    assert before.flight is not None
    assert before.flight.phase is phase
    assert before.wake_at == budget
    after = decide(facts, observed, budget)
    assert after.flight is not None
    assert reason in after.flight.reason
    assert after.outcome or after.flight.phase is Phase.REVERTING


def test_going_back_ends_at_its_deadline_and_says_what_is_missing() -> None:
    facts = flying(ROLLING, REVERTING, ready=1, reason="setup raised")
    decision = decide(facts, seen("1:Sl", "1"), 130 + MARGIN_S)
    assert wishes(decision) == "1:2R*"
    assert decision.outcome == Outcome(
        RolloutState.FAILED,
        "setup raised; going back took too long (1 of 2 earlier workers are ready)",
    )


def test_progress_of_a_rolling_update_grants_the_next_worker_its_own_time() -> None:
    facts = flying(ROLLING, SHIFTING, replicas=3)
    decision = decide(facts, seen("1:S 2:S", "1 2"), 120)
    assert decision.flight is not None
    assert (decision.flight.ready, decision.flight.since) == (1, 120)
    again = decide(replace(facts, flight=decision.flight), seen("1:S 2:S", "1 2"), 200)
    assert again.flight == decision.flight


def test_a_crash_looping_generation_can_be_rolled_away() -> None:
    decision = decide(flying(ROLLING, SHIFTING), seen("", ""), 1)
    assert wishes(decision) == "1:1R* 2:1R"
    decision = decide(flying(ROLLING, SHIFTING), seen("2:S", "2"), 1)
    assert wishes(decision) == "1:0R* 2:2R"


def test_one_replica_rolls_by_going_before_coming() -> None:
    facts = flying(ROLLING, SHIFTING, replicas=1)
    assert wishes(decide(facts, seen("1:S", "1"), 1)) == "1:0R* 2:0R"
    assert wishes(decide(facts, seen("1:d", ""), 1)) == "1:0R* 2:0R"
    assert wishes(decide(facts, seen("", ""), 1)) == "1:0R* 2:1R"


def test_the_previous_generation_stays_warm_until_its_time_and_no_longer() -> None:
    facts = ServiceSnapshot(
        service="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    warm = decide(facts, seen("1:SS 2:SS", "2"), 59)
    assert (wishes(warm), warm.wake_at) == ("2:2R* 1:2", 60)
    cold = decide(facts, seen("1:SS 2:SS", "2"), 60)
    assert (wishes(cold), cold.wake_at) == ("2:2R*", None)


@pytest.mark.parametrize("strategy", [BLUE_GREEN, ROLLING, RECREATE])
def test_rollback_to_a_warm_generation_is_one_switch_whatever_the_strategy(
    strategy: StrategySpec,
) -> None:
    facts = ServiceSnapshot(
        service="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    observed = seen("1:SS 2:SS", "2")
    assert policy.is_warm(facts, observed)
    assert not policy.is_warm(facts, seen("1:S 2:SS", "2"))
    assert not policy.is_warm(facts, replace(observed, failures={1: "died"}))
    decision = decide(snapshot.start(facts, spec(1), strategy, 10), observed, 10)
    assert wishes(decision) == "1:2R* 2:2"


def test_an_update_gives_up_the_warm_generation_before_its_candidate_starts() -> None:
    facts = ServiceSnapshot(
        service="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    facts = snapshot.start(facts, spec(3), BLUE_GREEN, 10)
    assert wishes(decide(facts, seen("1:SS 2:SS", "2"), 10)) == "2:2R*"
    assert wishes(decide(facts, seen("2:SS", "2"), 10)) == "2:2R* 3:2"


def test_only_blue_green_leaves_a_warm_generation_and_failure_changes_nothing() -> None:
    done = Outcome(RolloutState.SUCCEEDED)
    after = snapshot.finish(flying(BLUE_GREEN, SWITCHING), done, 5)
    assert (after.serving, after.previous, after.keep_warm_until) == (spec(2), spec(1), 65)
    after = snapshot.finish(flying(RECREATE, SWITCHING), done, 5)
    assert (after.serving, after.previous, after.keep_warm_until) == (spec(2), spec(1), None)
    after = snapshot.finish(flying(ROLLING, SHIFTING), Outcome(RolloutState.FAILED, "no"), 5)
    assert (after.serving, after.previous, after.flight) == (spec(1), None, None)


@pytest.mark.parametrize(
    ("strategy", "phase", "observed", "expected"),
    [
        (BLUE_GREEN, CLEARING, seen("1:SS 9:d", "1"), True),
        (BLUE_GREEN, LOADING, seen("1:SS 2:Sl", "1"), True),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:SS", "1"), False),
        (RECREATE, LOADING, seen("2:Sl", ""), True),
        (ROLLING, SHIFTING, seen("1:S 2:l", "1"), True),
        (ROLLING, SHIFTING, seen("1:S 2:S", "1"), False),
        (ROLLING, SHIFTING, seen("1:S", "1 2"), False),
        (ROLLING, REVERTING, seen("1:SS", "1"), False),
    ],
)
def test_a_rollout_gives_way_only_while_its_target_cannot_have_answered(
    strategy: StrategySpec, phase: Phase, observed: Observed, expected: bool
) -> None:
    assert policy.supersedable(flying(strategy, phase), observed) is expected


@pytest.mark.parametrize(
    ("strategy", "phase", "observed", "wanted", "over"),
    [
        (BLUE_GREEN, LOADING, seen("1:SS 2:ll", "1"), "1:2R*", True),
        (BLUE_GREEN, SWITCHING, seen("1:SS 2:SS", "1 2"), "1:2R*", False),
        (RECREATE, LOADING, seen("2:ll", ""), "1:0R*", False),
        (ROLLING, SHIFTING, seen("1:S 2:S", "1 2"), "1:1R* 2:0R", False),
    ],
)
def test_a_recalled_rollout_goes_back(
    strategy: StrategySpec, phase: Phase, observed: Observed, wanted: str, over: bool
) -> None:
    decision = decide(snapshot.recall(flying(strategy, phase), "asked"), observed, 1)
    assert wishes(decision) == wanted
    assert decision.outcome == (Outcome(RolloutState.ROLLED_BACK, "asked") if over else None)


def test_percent_and_step_follow_the_workers() -> None:
    facts = flying(BLUE_GREEN, LOADING)
    shown = [
        (decision.step, decision.percent)
        for decision in (
            decide(facts, seen(f"1:SS 2:{letters}", "1"), 1)
            for letters in ("pp", "lp", "ll", "wl", "cc", "Sc")
        )
    ]
    assert [step for step, _ in shown] == [
        State.PENDING, State.PENDING, State.LOADING, State.LOADING, State.CHECKING, State.CHECKING,
    ]  # fmt: skip
    percents = [percent for _, percent in shown]
    assert percents == sorted(set(percents))


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 0), (-1, 1), (1, -1)])
def test_strategy_numbers_that_allow_no_step_are_refused(surge: int, unavailable: int) -> None:
    with pytest.raises(InvalidInput):
        snapshot.check_strategy(
            StrategySpec(name=Strategy.ROLLING, max_surge=surge, max_unavailable=unavailable)
        )
