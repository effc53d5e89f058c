"""The one state that people see of a deployment."""

from __future__ import annotations

import pytest

from modelcloud.control.deployments.deployment_states import Shown, Status, Wanted, shown, status_of
from modelcloud.rollout.records import Kind, Rollout
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.types import GenerationSpec, Observed, State, StrategySpec, WorkerView

SPEC = GenerationSpec(
    service="m", deployment="m/1", generation=1, version=1, target="x", snapshot="", digest=""
)
NOTHING = DeploymentSnapshot(deployment="m/1", replicas=1)
SERVING = DeploymentSnapshot(deployment="m/1", replicas=1, serving=SPEC)


def rollout(step: State) -> Rollout:
    return Rollout(
        id="1", service="m", kind=Kind.INITIAL, strategy=StrategySpec(), target=SPEC,
        accepted_at=0, step=step,
    )  # fmt: skip


def seen(state: State, *, routed: bool = False, restarts: int = 0, degraded: str = "") -> Observed:
    worker = WorkerView(id=1, generation=1, state=state, restarts=restarts)
    return Observed(workers=(worker,), routed={1: (1,)} if routed else {}, degraded=degraded)


@pytest.mark.parametrize(
    ("wanted", "facts", "running", "observed", "expected"),
    [
        (Wanted.ONLINE, NOTHING, rollout(State.BUILDING_ENV), Observed(), State.BUILDING_ENV),
        (Wanted.ONLINE, NOTHING, None, Observed(), State.FAILED),
        (Wanted.ONLINE, SERVING, None, seen(State.SERVING, routed=True), State.SERVING),
        (Wanted.ONLINE, SERVING, rollout(State.LOADING), seen(State.SERVING, routed=True),
         State.SERVING),
        (Wanted.ONLINE, SERVING, None, Observed(), State.PENDING),
        (Wanted.ONLINE, SERVING, None, seen(State.LOADING), State.LOADING),
        (Wanted.ONLINE, SERVING, None, seen(State.LOADING, restarts=2), State.FAILED),
        (Wanted.ONLINE, SERVING, None, Observed(preparing={1: State.FETCHING}), State.FETCHING),
        (Wanted.OFFLINE, NOTHING, None, seen(State.DRAINING), State.DRAINING),
        (Wanted.OFFLINE, NOTHING, None, Observed(), State.STOPPED),
        (Wanted.DELETED, SERVING, None, seen(State.SERVING, routed=True), State.DRAINING),
    ],
)  # fmt: skip
def test_the_state_follows_from_what_is_wanted_decided_and_observed(
    wanted: Wanted,
    facts: DeploymentSnapshot,
    running: Rollout | None,
    observed: Observed,
    expected: State,
) -> None:
    assert shown(wanted, facts, running, observed, "").state is expected


def test_a_failure_says_why_and_a_weak_service_by_how_much() -> None:
    failed = shown(Wanted.ONLINE, NOTHING, None, Observed(), "setup raised ValueError")
    assert failed == Shown(State.FAILED, "setup raised ValueError")
    weak = shown(
        Wanted.ONLINE, SERVING, None, seen(State.SERVING, routed=True, degraded="1 of 2"), ""
    )
    assert weak == Shown(State.SERVING, "1 of 2")


def test_every_state_has_one_of_four_words() -> None:
    words = {state: status_of(state) for state in State}
    assert words[State.SERVING] is Status.SERVING
    assert words[State.FAILED] is Status.FAILED
    assert words[State.STOPPED] is words[State.DRAINING] is Status.OFFLINE
    assert words[State.PENDING] is words[State.CHECKING] is Status.DEPLOYING
