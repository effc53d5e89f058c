"""What a rollout's record shows."""

from __future__ import annotations

import json

import pytest

from modelcloud.errors import Superseded, UpdateFailed
from modelcloud.rollout.records import LOG_LINES, Kind, Rollout, RolloutState, WorkerStanding
from modelcloud.types import GenerationSpec, State, StrategySpec


def record() -> Rollout:
    spec = GenerationSpec(
        service="fib", generation=4, version=2, target="m.py", snapshot="/secret", digest=""
    )
    return Rollout(
        id="7",
        service="fib",
        deployment="fib/3",
        kind=Kind.UPDATE,
        strategy=StrategySpec(),
        target=spec,
        accepted_at=0.0,
        workers=(WorkerStanding(id=3, generation=4, version=2, state=State.LOADING),),
    )


def test_its_json_names_generations_workers_and_times_but_no_folder() -> None:
    shown = json.loads(json.dumps(record().to_dict()))
    assert (shown["service"], shown["deployment"]) == ("fib", "fib/3")
    assert shown["from"] is None
    assert shown["to"] == {"generation": 4, "revision": 0, "version": 2}
    assert shown["workers"] == [{"id": 3, "generation": 4, "version": 2, "state": "loading"}]
    assert shown["accepted_at"] == "1970-01-01T00:00:00.000+00:00"
    assert shown["strategy"]["name"] == "blue_green"
    assert "/secret" not in json.dumps(shown)


def test_its_log_keeps_the_last_lines_and_cuts_long_ones() -> None:
    rollout = record()
    for i in range(LOG_LINES + 5):
        rollout.add_log(f"{i}\n")
    rollout.add_log("x" * 100_000)
    assert len(rollout.log) == LOG_LINES
    assert rollout.log[0] == "6"
    assert len(rollout.log[-1]) < 10_000


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (RolloutState.PENDING, None),
        (RolloutState.RUNNING, None),
        (RolloutState.SUCCEEDED, None),
        (RolloutState.FAILED, UpdateFailed),
        (RolloutState.SUPERSEDED, Superseded),
        (RolloutState.ROLLED_BACK, Superseded),
    ],
)
def test_its_end_says_what_to_answer_who_asked_for_it(
    state: RolloutState, error: type[Exception] | None
) -> None:
    rollout = record()
    rollout.state = state
    assert rollout.finished is (state not in (RolloutState.PENDING, RolloutState.RUNNING))
    got = rollout.error()
    assert got is None if error is None else type(got) is error
