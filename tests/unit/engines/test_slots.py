"""Workers of the node and replicas of the cluster find each other; applications are as large."""

from __future__ import annotations

from modelcloud.engines.slots import CLAIM_S, KEEP_S, Match, Slots

#: A time at which nothing from before the start is waited for any more.
LATER = CLAIM_S + 1


def slots(*workers: int, app: str = "a") -> Slots:
    found = Slots(0.0)
    for worker in workers:
        found.begin(worker, app)
    return found


def test_a_worker_becomes_a_replica_of_its_own_application() -> None:
    some = slots(1)
    some.arrived("r-b", "b", 0)
    assert some.match() == []
    some.arrived("r-a", "a", 0)
    assert some.match() == [Match(1, "r-a", known=False)]
    assert some.match() == []
    assert (some.replica_of(1), some.worker_of("r-a")) == ("r-a", 1)


def test_a_replica_that_says_who_it_is_stays_that() -> None:
    some = slots(1, 2)
    some.arrived("first", "a", 2)
    some.arrived("second", "a", 1)
    assert set(some.match()) == {Match(2, "first", known=True), Match(1, "second", known=True)}


def test_a_loaded_model_of_a_platform_before_comes_before_an_empty_replica() -> None:
    some = slots(1)
    some.arrived("empty", "a", 0)
    some.arrived("loaded", "a", 77)
    assert some.match() == [Match(1, "loaded", known=False)]


def test_a_claim_on_a_worker_of_another_application_counts_for_nothing() -> None:
    some = slots(1, app="a")
    some.begin(2, "b")
    some.arrived("r", "b", 1)
    assert some.match() == [Match(2, "r", known=False)]


def test_the_replica_of_a_worker_that_ended_takes_the_next_one() -> None:
    some = slots(1)
    some.arrived("r", "a", 0)
    some.match()
    some.begin(2, "a")
    assert some.match() == []
    some.end(1, 0.0)
    assert some.match() == [Match(2, "r", known=False)]


def test_a_lost_replica_names_its_worker_which_may_have_another() -> None:
    some = slots(1)
    some.arrived("r", "a", 0)
    some.match()
    assert some.left("r") == 1
    assert some.left("r") == 0
    some.arrived("s", "a", 0)
    assert some.match() == [Match(1, "s", known=False)]


def test_an_application_has_as_many_replicas_as_workers() -> None:
    some = slots(1, 2)
    some.begin(3, "b")
    assert some.wanted({}, LATER) == {"a": 2, "b": 1}


def test_a_worker_that_ended_costs_no_replica_at_once_for_another_mostly_follows() -> None:
    some = slots(1, 2)
    some.end(1, LATER)
    assert some.wanted({"a": 2}, LATER) == {"a": 2}
    some.begin(3, "a")
    assert some.wanted({"a": 2}, LATER + KEEP_S) == {"a": 2}
    some.end(3, LATER + KEEP_S)
    assert some.wanted({"a": 2}, LATER + 2 * KEEP_S) == {"a": 1}


def test_many_that_end_one_after_the_other_do_not_add_up() -> None:
    some = slots(1, 2, 3)
    for worker in (1, 2, 3):
        some.end(worker, LATER)
    assert some.wanted({"a": 3}, LATER) == {"a": 3}
    assert some.wanted({"a": 3}, LATER + KEEP_S) == {}


def test_an_application_that_never_came_to_be_is_not_begun_for_workers_that_are_gone() -> None:
    some = slots(1)
    some.end(1, LATER)
    assert some.wanted({}, LATER) == {}


def test_what_a_platform_before_left_waits_a_while_for_its_workers() -> None:
    some = slots()
    assert some.wanted({"old": 2}, CLAIM_S - 1) == {"old": 2}
    some.begin(1, "old")
    assert some.wanted({"old": 2}, CLAIM_S - 1) == {"old": 2}
    assert some.wanted({"old": 2}, LATER) == {"old": 1}
