"""What each strategy wants in each situation, as a table of facts and the wishes they lead to."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelcloud.errors import InvalidInput
from modelcloud.rollout import policy, snapshot
from modelcloud.rollout.canary import Answers
from modelcloud.rollout.decision import MARGIN_S, PREPARE_S, Decision
from modelcloud.rollout.policy import SWITCH_S, decide
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import DeploymentSnapshot, Flight, Outcome, Phase
from modelcloud.types import (
    CanaryStep,
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
CANARY = StrategySpec(
    name=Strategy.CANARY,
    steps=(CanaryStep(5, 60), CanaryStep(50, 30)),
    max_error_rate=0.1,
    max_p99_ms=100,
    min_requests=20,
)
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


def seen(
    workers: str,
    routed: str = "",
    failed: dict[int, str] | None = None,
    percents: dict[int, float] | None = None,
) -> Observed:
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
        percents=percents or {},
    )


def flying(
    strategy: StrategySpec,
    phase: Phase,
    *,
    serving: int | None = 1,
    replicas: int = 2,
    ready: int = 0,
    reason: str = "",
) -> DeploymentSnapshot:
    """On the way to generation 2, in this phase since moment 0."""
    return DeploymentSnapshot(
        deployment="fib",
        replicas=replicas,
        serving=spec(serving) if serving else None,
        flight=Flight(
            target=spec(2), strategy=strategy, phase=phase, since=0, ready=ready, reason=reason
        ),
    )


def wishes(decision: Decision) -> str:
    """`"1:2R* 2:2"`: two of 1, routed (R) and restarted (*), two of 2 that are neither.

    `"2:2R@5"`: with 5 % of the requests.
    """
    return " ".join(
        f"{w.spec.generation}:{w.replicas}{'R' * w.routed}{'*' * w.restart}"
        + ("" if w.percent is None else f"@{w.percent:g}")
        for w in decision.desired.generations
    )


CLEARING, LOADING, SWITCHING = Phase.CLEARING, Phase.LOADING, Phase.SWITCHING
SHIFTING, REVERTING, WATCHING = Phase.SHIFTING, Phase.REVERTING, Phase.WATCHING


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
        (BLUE_GREEN, SWITCHING, seen("1:S 2:SS", "1"), "2:2R* 1:1", SWITCHING),  # none is started
        (BLUE_GREEN, SWITCHING, seen("2:SS", ""), "2:2R*", SWITCHING),
        # canary: as blue_green, and between loading and switching a share of the requests
        (CANARY, CLEARING, seen("1:SS 9:S", "1"), "1:2R*", CLEARING),
        (CANARY, LOADING, seen("1:SS 2:Sl", "1"), "1:2R* 2:2", LOADING),
        (CANARY, LOADING, seen("1:SS 2:SS", "1"), "1:2R* 2:2R@5", WATCHING),
        (CANARY, LOADING, seen("1:SS 2:S", "1", {2: "no"}), "1:2R*", None),
        (CANARY, WATCHING, seen("1:SS 2:SS", "1 2", percents={2: 5}), "1:2R* 2:2R@5", WATCHING),
        (CANARY, WATCHING, seen("1:SS 2:S", "1 2", {2: "no"}), "1:2R*", REVERTING),
        (CANARY, WATCHING, seen("1:SS 2:lp", "1 2"), "1:2R*", REVERTING),  # all new ones lost
        (CANARY, WATCHING, seen("1:SS 2:S", "1", {2: "no"}), "1:2R*", None),  # never answered
        (CANARY, SWITCHING, seen("1:SS 2:SS", "1 2", percents={2: 50}), "2:2R* 1:2", SWITCHING),
        (CANARY, SWITCHING, seen("1:l 2:SS", "2", percents={2: 50}), "2:2R* 1:1", SWITCHING),
        (CANARY, REVERTING, seen("1:SS 2:dd", "1 2", percents={2: 5}), "1:2R*", REVERTING),
        (CANARY, REVERTING, seen("1:SS 2:dd", "1"), "1:2R*", None),
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
        # more or fewer replicas than there were
        (BLUE_GREEN, CLEARING, seen("1:SSS", "1"), "1:2R* 2:2", LOADING),
        (BLUE_GREEN, CLEARING, seen("1:SSd", "1"), "1:2R*", CLEARING),
        (BLUE_GREEN, LOADING, seen("1:SSS 2:SSS", "1"), "2:2R* 1:2", SWITCHING),
        (BLUE_GREEN, REVERTING, seen("1:S 2:d", "2"), "1:2R*", REVERTING),
        (ROLLING, SHIFTING, seen("1:SSSS 2:S", "1 2"), "1:0R* 2:1R", SHIFTING),
        (ROLLING, SHIFTING, seen("2:SSS", "2"), "1:0R* 2:2R", None),
        (ROLLING, REVERTING, seen("1:S 2:SSS", "1 2"), "1:1R* 2:0R", REVERTING),
        (RECREATE, LOADING, seen("2:SSS", ""), "2:2R*", SWITCHING),
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


@pytest.mark.parametrize("strategy", [BLUE_GREEN, RECREATE, CANARY])
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
        (CANARY, WATCHING, seen("1:SS 2:SS", "1"), SWITCH_S, "share of the requests was not"),
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
    facts = DeploymentSnapshot(
        deployment="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    warm = decide(facts, seen("1:SS 2:SS", "2"), 59)
    assert (wishes(warm), warm.wake_at) == ("2:2R* 1:2", 60)
    cold = decide(facts, seen("1:SS 2:SS", "2"), 60)
    assert (wishes(cold), cold.wake_at) == ("2:2R*", None)


@pytest.mark.parametrize("strategy", [BLUE_GREEN, ROLLING, RECREATE, CANARY])
def test_rollback_to_a_warm_generation_is_one_switch_whatever_the_strategy(
    strategy: StrategySpec,
) -> None:
    facts = DeploymentSnapshot(
        deployment="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    observed = seen("1:SS 2:SS", "2")
    assert policy.is_warm(facts, observed)
    assert not policy.is_warm(facts, seen("1:S 2:SS", "2"))
    assert not policy.is_warm(facts, replace(observed, failures={1: "died"}))
    decision = decide(snapshot.start(facts, spec(1), strategy, 10), observed, 10)
    assert wishes(decision) == "1:2R* 2:2"


def test_an_update_gives_up_the_warm_generation_before_its_candidate_starts() -> None:
    facts = DeploymentSnapshot(
        deployment="fib", replicas=2, serving=spec(2), previous=spec(1), keep_warm_until=60
    )
    facts = snapshot.start(facts, spec(3), BLUE_GREEN, 10)
    assert wishes(decide(facts, seen("1:SS 2:SS", "2"), 10)) == "2:2R*"
    assert wishes(decide(facts, seen("2:SS", "2"), 10)) == "2:2R* 3:2"


def test_only_doubling_strategies_leave_a_warm_generation_and_failure_changes_nothing() -> None:
    done = Outcome(RolloutState.SUCCEEDED)
    after = snapshot.finish(flying(BLUE_GREEN, SWITCHING), done, 5)
    assert (after.serving, after.previous, after.keep_warm_until) == (spec(2), spec(1), 65)
    assert snapshot.finish(flying(CANARY, SWITCHING), done, 5).keep_warm_until == 65
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
        (CANARY, WATCHING, seen("1:SS 2:SS", "1"), False),
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
        (CANARY, WATCHING, seen("1:SS 2:SS", "1 2", percents={2: 5}), "1:2R*", False),
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


# ---- preparing


@pytest.mark.parametrize("strategy", [BLUE_GREEN, CANARY, RECREATE])
def test_a_load_has_its_whole_time_once_its_generation_is_prepared(strategy: StrategySpec) -> None:
    facts = flying(strategy, LOADING)
    preparing = replace(seen("", ""), preparing={2: State.BUILDING_ENV})
    first = decide(facts, preparing, 1)
    assert (first.step, first.note) == (State.BUILDING_ENV, "building_env: 0 of 2 ready")
    assert first.percent > 0
    late = decide(replace(facts, flight=first.flight), preparing, 5000)
    assert late.outcome is None
    assert late.flight == first.flight
    done = decide(replace(facts, flight=late.flight), seen("2:pp", ""), 5001)
    assert done.wake_at == 5001 + 100 + MARGIN_S
    never = decide(replace(facts, flight=first.flight), preparing, 1 + PREPARE_S)
    assert never.flight is not None
    assert "not prepared" in never.flight.reason


def test_a_preparation_that_fails_is_a_candidate_that_fails() -> None:
    decision = decide(flying(BLUE_GREEN, LOADING), seen("1:SS", "1", {2: "no such package"}), 1)
    assert decision.outcome == Outcome(RolloutState.FAILED, "no such package")


# ---- canary

BOUNDS = (0.01, 0.1, 1.0)
WATCHED = seen("1:SS 2:SS", "1 2", percents={2: 5})


def answered(requests: int, errors: int = 0, *buckets: int) -> Answers:
    return Answers(requests=requests, errors=errors, buckets=buckets or (requests, 0, 0, 0))


def watching(since: float = 0, **changes: object) -> DeploymentSnapshot:
    facts = flying(CANARY, WATCHING)
    assert facts.flight is not None
    return replace(facts, flight=replace(facts.flight, since=since, **changes))


def test_a_steps_time_begins_when_its_share_is_acknowledged() -> None:
    waiting = decide(watching(), seen("1:SS 2:SS", "1"), 10, answered(7), BOUNDS)
    assert waiting.flight is not None
    assert (waiting.flight.watched, waiting.wake_at) == (False, SWITCH_S)
    begun = decide(watching(), WATCHED, 10, answered(7), BOUNDS)
    assert begun.flight is not None
    assert (begun.flight.watched, begun.flight.baseline) == (True, answered(7))
    assert begun.wake_at == 70
    again = decide(replace(watching(), flight=begun.flight), WATCHED, 11, answered(9), BOUNDS)
    assert again.flight == begun.flight


def test_each_step_is_judged_by_its_own_answers_and_the_last_leads_to_the_switch() -> None:
    facts = watching(watched=True, baseline=answered(1000, 900))
    good = answered(1040, 901)
    assert decide(facts, WATCHED, 59, good, BOUNDS).wake_at == 60
    second = decide(facts, WATCHED, 60, good, BOUNDS)
    assert wishes(second) == "1:2R* 2:2R@50"
    assert second.note == (
        "step 2 of 2: 50 % of the requests for 30 s "
        "(before, at 5 %: 40 answers, 2.5% errors, p99 9.9 ms)"
    )
    assert second.flight is not None
    assert (second.flight.step, second.flight.watched, second.flight.baseline) == (1, False, None)
    half = seen("1:SS 2:SS", "1 2", percents={2: 50})
    begun = decide(replace(facts, flight=second.flight), half, 62, good, BOUNDS)
    last = decide(replace(facts, flight=begun.flight), half, 92, answered(2000, 950), BOUNDS)
    assert wishes(last) == "2:2R* 1:2"
    percents = [second.percent, begun.percent, last.percent]
    assert percents == sorted(percents)
    assert decide(facts, WATCHED, 1, good, BOUNDS).percent < percents[0]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (answered(20, 3), "15.0% of 20 answers were errors (the limit is 10.0%)"),
        (answered(100, 0, 0, 98, 2, 0), "the 99th percentile of 100 answers was 550 ms"),
        (answered(100, 0, 0, 0, 0, 100), "was 1e+03 ms (the limit is 100 ms)"),
    ],
)
def test_a_broken_limit_leads_back_at_once(answers: Answers, reason: str) -> None:
    decision = decide(watching(watched=True, baseline=answered(0)), WATCHED, 1, answers, BOUNDS)
    assert wishes(decision) == "1:2R*"
    assert decision.flight is not None
    assert decision.flight.phase is REVERTING
    assert decision.flight.reason.startswith("at 5 % of the requests, ")
    assert reason in decision.flight.reason


@pytest.mark.parametrize(
    "answers",
    [None, answered(19, 19), answered(100, 10), answered(100, 0, 99, 1, 0, 0)],
    ids=["nobody counts", "too few to judge", "at the error limit", "below the p99 limit"],
)
def test_a_limit_that_is_not_exceeded_lets_a_step_pass_by_time(answers: Answers | None) -> None:
    facts = watching(watched=True, baseline=answered(0))
    assert wishes(decide(facts, WATCHED, 59, answers, BOUNDS)) == "1:2R* 2:2R@5"
    assert wishes(decide(facts, WATCHED, 60, answers, BOUNDS)) == "1:2R* 2:2R@50"


def test_counts_that_a_lost_gateway_took_with_it_are_begun_anew() -> None:
    facts = watching(watched=True, baseline=answered(1000))
    decision = decide(facts, WATCHED, 1, answered(30, 1), BOUNDS)
    assert decision.flight is not None
    assert decision.flight.baseline == Answers()
    worse = decide(replace(facts, flight=decision.flight), WATCHED, 2, answered(40, 30), BOUNDS)
    assert wishes(worse) == "1:2R*"


def test_a_step_is_not_over_before_all_replicas_asked_for_meanwhile_are_ready() -> None:
    facts = replace(watching(watched=True), replicas=3)
    scaled = seen("1:SSS 2:SSl", "1 2", percents={2: 5})
    decision = decide(facts, scaled, 60)
    assert (wishes(decision), decision.wake_at) == ("1:3R* 2:3R@5", 100 + MARGIN_S)
    late = decide(facts, scaled, 100 + MARGIN_S)
    assert late.flight is not None
    assert "2 of 3 workers were ready" in late.flight.reason
    assert wishes(decide(facts, seen("1:SSS 2:SSS", "1 2", percents={2: 5}), 61)) == "1:3R* 2:3R@50"


def test_the_first_generation_of_a_deployment_is_no_canary() -> None:
    empty = DeploymentSnapshot(deployment="fib", replicas=2)
    decision = decide(snapshot.start(empty, spec(1), CANARY, 0), seen("1:SS"), 1)
    assert wishes(decision) == "1:2R*"


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 0), (-1, 1), (1, -1)])
def test_strategy_numbers_that_allow_no_step_are_refused(surge: int, unavailable: int) -> None:
    with pytest.raises(InvalidInput):
        snapshot.check_strategy(
            StrategySpec(name=Strategy.ROLLING, max_surge=surge, max_unavailable=unavailable)
        )
