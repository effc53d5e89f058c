"""When dead children may be replaced, on a clock of the test's own."""

from __future__ import annotations

from modelcloud.node.brake import LIMIT, WINDOW_S, Brake


def wait_before_start(brake: Brake, now: float) -> float:
    """How long from `now` until one child may be started, in steps of an eighth of a second."""
    waited = 0.0
    while not brake.starts(now + waited, 1):
        waited += 0.125
    return waited


def test_the_loss_of_every_child_at_once_is_answered_at_once() -> None:
    brake = Brake()
    for _ in range(8):
        brake.died(100.0, children=8)
    assert brake.starts(100.0, 8) == 8
    assert not brake.on


def test_further_deaths_wait_twice_as_long_each() -> None:
    brake = Brake()
    waits = []
    for _ in range(LIMIT - 1):
        brake.died(100.0, children=1)
        waits.append(wait_before_start(brake, 100.0))
    assert waits == [0.0, 0.25, 0.5, 1.0]


def test_a_crash_loop_is_tried_once_after_10_20_and_then_every_30_seconds() -> None:
    brake = Brake()
    for _ in range(LIMIT):
        brake.died(100.0, children=2)
    now, waits = 100.0, []
    for _ in range(4):
        waits.append(wait_before_start(brake, now))
        now += waits[-1]
        assert brake.starts(now, 2) == 1
        brake.started(now)
        assert brake.starts(now, 1) == 0  # the other one waits for its turn
        brake.died(now, children=2)
    assert waits == [10.0, 20.0, 30.0, 30.0]


def test_the_brake_is_off_after_a_window_without_a_death() -> None:
    brake = Brake()
    for second in range(LIMIT):
        brake.died(100.0 + second, children=1)
    last = 100.0 + LIMIT - 1
    states = []
    for now in (last, last + WINDOW_S - 0.1, last + WINDOW_S):
        brake.relax(now)
        states.append(brake.on)
    assert states == [True, True, False]
    brake.died(last + WINDOW_S, children=1)
    assert brake.starts(last + WINDOW_S, 1) == 1


def test_deaths_that_are_far_apart_never_brake() -> None:
    brake = Brake()
    for i in range(100):
        brake.died(i * WINDOW_S / (LIMIT - 1), children=1)
        assert not brake.on
