"""Which updates are other options for the workers that run, and what is wanted meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.rollout import snapshot
from modelcloud.rollout.decision import MARGIN_S
from modelcloud.rollout.in_place import target_of
from modelcloud.rollout.policy import decide, supersedable
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import DeploymentSnapshot, Phase
from modelcloud.types import GenerationSpec, Observed, State, Strategy, StrategySpec, WorkerView

BLUE_GREEN = StrategySpec()
SERVING = GenerationSpec(
    service="fib", generation=4, version=2, target="m.py", snapshot="", digest="d",
    options={"config": 1, "depth": 1}, load_timeout_s=100,
)  # fmt: skip


def facts(**more: Any) -> DeploymentSnapshot:
    return DeploymentSnapshot(**{"deployment": "fib", "replicas": 2, "serving": SERVING, **more})


def seen(*revisions: int, light: tuple[str, ...] = ("config",), failed: str = "") -> Observed:
    """Ready workers of the serving generation, with these revisions of its options."""
    return Observed(
        workers=tuple(
            WorkerView(id=n, generation=4, revision=revision, state=State.SERVING)
            for n, revision in enumerate(revisions)
        ),
        routed={4: tuple(range(len(revisions)))},
        failures={4: failed} if failed else {},
        signatures={4: {"lightOptions": list(light)}},
    )


def asked(**more: Any) -> GenerationSpec:
    """A new generation of the same with another `config`, but for what is given."""
    return replace(SERVING, **{"generation": 9, "options": {"config": 2, "depth": 1}, **more})


CHANGED = replace(SERVING, revision=9, options={"config": 2, "depth": 1})


def test_options_that_the_model_takes_lead_to_the_serving_generation_with_others() -> None:
    assert target_of(facts(), seen(0, 0), asked(), BLUE_GREEN) == CHANGED
    assert CHANGED.number == 9
    again = target_of(facts(serving=CHANGED), seen(9, 9), asked(generation=12, options={
        "config": 3, "depth": 1}), BLUE_GREEN)  # fmt: skip
    assert (again.generation, again.revision) == (4, 12)


@pytest.mark.parametrize(
    "more",
    [
        {"options": SERVING.options},
        {"options": {"config": 2, "depth": 2}},
        {"options": {"depth": 1}},
        {"options": {"config": None, "depth": 1}},
        {"digest": "e"},
        {"version": 3},
        {"threads": 2},
        {"python": "/usr/bin/python3"},
        {"model_path": "/zoo"},
    ],
)
def test_anything_else_is_a_new_generation(more: dict[str, Any]) -> None:
    target = asked(**more)
    assert target_of(facts(), seen(0, 0), target, BLUE_GREEN) == target


def test_it_needs_all_workers_a_model_that_takes_them_and_no_canary() -> None:
    target, canary = asked(), StrategySpec(name=Strategy.CANARY)
    for s, o, strategy in (
        (facts(), seen(0), BLUE_GREEN),
        (facts(), seen(0, 3), BLUE_GREEN),
        (facts(), seen(0, 0, light=()), BLUE_GREEN),
        (facts(), Observed(workers=seen(0, 0).workers), BLUE_GREEN),
        (facts(), seen(0, 0), canary),
        (facts(serving=None), seen(0, 0), BLUE_GREEN),
    ):
        assert target_of(s, o, target, strategy) == target
    for name in (Strategy.RECREATE, Strategy.ROLLING):
        assert target_of(facts(), seen(0, 0), target, StrategySpec(name=name)) == CHANGED


def flying() -> DeploymentSnapshot:
    return snapshot.start(facts(), CHANGED, BLUE_GREEN, 0.0)


def test_the_workers_are_wanted_with_the_new_options_and_a_death_is_a_failure() -> None:
    decision = decide(flying(), seen(9, 0), 1.0)
    (wish,) = decision.desired.generations
    assert (wish.spec, wish.replicas, wish.routed, wish.restart) == (CHANGED, 2, True, False)
    assert (decision.outcome, decision.note) == (None, "1 of 2 workers have the new options")


def test_it_is_over_when_all_have_them_and_nothing_stays_warm() -> None:
    decision = decide(flying(), seen(9, 9), 1.0)
    assert decision.outcome is not None
    assert decision.outcome.state is RolloutState.SUCCEEDED
    after = snapshot.finish(replace(flying(), flight=decision.flight), decision.outcome, 1.0)
    assert (after.serving, after.previous, after.keep_warm_until) == (CHANGED, SERVING, None)
    (wish,) = decide(after, seen(9, 9), 2.0).desired.generations
    assert (wish.spec, wish.restart) == (CHANGED, True)


def test_one_that_refuses_or_takes_too_long_has_all_put_back_before_it_is_over() -> None:
    late = "1 of 2 workers have the new options within 100 s"
    flight = flying().flight
    assert flight is not None
    under_way = replace(flying(), flight=replace(flight, ready=1))
    for now, failed, reason in ((1.0, "no such scale", ""), (100 + MARGIN_S, "", late)):
        decision = decide(under_way, seen(9, 0, failed=failed), now)
        (wish,) = decision.desired.generations
        assert (wish.spec, wish.restart, decision.outcome) == (SERVING, True, None)
        back = replace(flying(), flight=decision.flight)
        assert decision.flight is not None
        assert decision.flight.phase is Phase.REVERTING
        assert decide(back, seen(0, 9), now).outcome is None
        assert decide(back, seen(0, 0, failed="no such scale"), now).outcome is None, (
            "the next change would be taken to have failed of this"
        )
        outcome = decide(back, seen(0, 0), now).outcome
        assert outcome == snapshot.Outcome(RolloutState.FAILED, failed or reason)


def test_it_can_be_recalled_and_no_newer_one_takes_its_place() -> None:
    assert not supersedable(flying(), seen(0, 0))
    decision = decide(snapshot.recall(flying(), "asked"), seen(9, 0), 1.0)
    assert [wish.spec for wish in decision.desired.generations] == [SERVING]
