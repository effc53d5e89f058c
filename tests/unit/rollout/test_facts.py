"""Facts: which numbers are accepted, and what a store keeps of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from modelcloud.errors import InvalidInput
from modelcloud.rollout import snapshot
from modelcloud.rollout.canary import Answers, percentile
from modelcloud.rollout.snapshot import DeploymentSnapshot, Flight, Phase, check_strategy
from modelcloud.types import (
    CanaryStep,
    Dispatch,
    DispatchPolicy,
    GenerationSpec,
    Resources,
    Strategy,
    StrategySpec,
)


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        ({"steps": ()}, "strategy.steps"),
        ({"steps": tuple(CanaryStep(i) for i in range(1, 22))}, "strategy.steps"),
        ({"steps": (CanaryStep(0),)}, "strategy.steps"),
        ({"steps": (CanaryStep(100.1),)}, "strategy.steps"),
        ({"steps": (CanaryStep(math.nan),)}, "strategy.steps"),
        ({"steps": (CanaryStep(5), CanaryStep(5))}, "strategy.steps"),
        ({"steps": (CanaryStep(50), CanaryStep(5))}, "strategy.steps"),
        ({"steps": (CanaryStep(5, -1),)}, "strategy.steps"),
        ({"steps": (CanaryStep(5, 86_401),)}, "strategy.steps"),
        ({"steps": (CanaryStep(5, math.inf),)}, "strategy.steps"),
        ({"max_error_rate": 1.1}, "strategy.max_error_rate"),
        ({"max_error_rate": -0.1}, "strategy.max_error_rate"),
        ({"max_p99_ms": -1}, "strategy.max_p99_ms"),
        ({"max_p99_ms": math.inf}, "strategy.max_p99_ms"),
        ({"min_requests": 0}, "strategy.min_requests"),
    ],
)
def test_a_canary_whose_numbers_mean_nothing_is_refused_by_name(
    numbers: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_strategy(StrategySpec(name=Strategy.CANARY, **numbers))
    assert caught.value.fields["field"] == field
    assert caught.value.fields["accepted"]


@pytest.mark.parametrize(
    "steps",
    [
        StrategySpec().steps,
        (CanaryStep(0.1, 0),),
        (CanaryStep(100, 86_400),),
        tuple(CanaryStep(5 * i) for i in range(1, 21)),
    ],
)
def test_steps_up_to_their_bounds_are_accepted(steps: tuple[CanaryStep, ...]) -> None:
    check_strategy(StrategySpec(name=Strategy.CANARY, steps=steps))


def facts() -> DeploymentSnapshot:
    def spec(generation: int) -> GenerationSpec:
        return GenerationSpec(
            service="fib",
            deployment="fib/1",
            generation=generation,
            version=1,
            target="m.py",
            snapshot="/artifacts/abc",
            digest="abc",
            options={"layers": [1, 2.5, None, "x"]},
            resources=Resources(cpu=0.5, memory=1 << 40, gpu=0.25),
        )

    return DeploymentSnapshot(
        deployment="fib/1",
        replicas=3,
        dispatch=Dispatch(DispatchPolicy.CONSISTENT_HASH, "header:user"),
        serving=spec(2),
        previous=spec(1),
        keep_warm_until=812.5,
        flight=Flight(
            target=spec(3),
            strategy=StrategySpec(name=Strategy.CANARY, steps=(CanaryStep(0.3, 1.5),)),
            phase=Phase.WATCHING,
            since=777.0,
            watched=True,
            baseline=Answers(requests=10, errors=1, buckets=(4, 6)),
            verdict="5 %: 3 answers, too few to judge",
            recalled=True,
            reason="asked",
        ),
    )


def test_facts_come_back_from_json_as_they_were_but_for_the_time() -> None:
    kept = json.loads(json.dumps(snapshot.to_json(facts())))
    back = snapshot.from_json(kept)
    assert back == snapshot.timeless(facts())
    again = snapshot.anew(back, 5.0)
    assert again.flight is not None
    assert (again.flight.since, again.keep_warm_until) == (5.0, 5.0 + facts().keep_warm_s)
    assert snapshot.timeless(again) == back


def test_without_a_flight_or_a_warm_generation_there_is_no_time_to_restore() -> None:
    empty = DeploymentSnapshot(deployment="fib", replicas=1)
    assert snapshot.from_json(snapshot.to_json(empty)) == empty
    assert snapshot.anew(empty, 5.0) == snapshot.later(empty, 5.0) == empty


@pytest.mark.parametrize("kept", [{}, {"deployment": "fib", "replicas": "three"}])
def test_what_is_no_facts_is_refused(kept: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        snapshot.from_json(kept)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((100, 0, 0), 0.99, 0.99),
        ((50, 50, 0), 0.5, 1.0),
        ((50, 50, 0), 0.75, 1.5),
        ((0, 0, 7), 0.99, 2.0),  # beyond the last bound: no less than that
        ((0, 0, 0), 0.99, 0.0),
        ((), 0.99, 0.0),
    ],
)
def test_percentiles_are_read_from_buckets(
    counts: tuple[int, ...], share: float, expected: float
) -> None:
    assert percentile((1.0, 2.0), counts, share) == pytest.approx(expected)
