"""How a version that a monitor brought goes online, by where its deployment stands."""

from __future__ import annotations

import pytest

from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.monitors.outcome import Target, Way, decide


def at(wanted: Wanted = Wanted.ONLINE, *, serves: bool = True, moving: bool = False) -> Target:
    return Target(version=3, wanted=wanted, serves=serves, moving=moving)


def test_the_first_one_goes_online_as_a_new_deployment() -> None:
    assert decide(known=False, target=None).way is Way.NEW


@pytest.mark.parametrize(
    ("target", "way"),
    [
        (at(), Way.REPLACE),
        (at(moving=True), Way.WAIT),
        (at(serves=False, moving=True), Way.WAIT),
        (at(serves=False), Way.AFRESH),
        (at(Wanted.OFFLINE), Way.NOT),
        (at(Wanted.DELETED), Way.NOT),
        (None, Way.NOT),
    ],
)
def test_a_later_one_takes_the_place_of_what_serves_and_of_nothing_else(
    target: Target | None, way: Way
) -> None:
    assert decide(known=True, target=target).way is way


def test_what_a_person_took_offline_is_not_brought_back_and_the_reason_says_so() -> None:
    assert (
        "version 3, whose place it takes, is offline"
        in decide(known=True, target=at(Wanted.OFFLINE)).reason
    )
    assert "was deleted" in decide(known=True, target=None).reason
