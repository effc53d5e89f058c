"""When a batch is run."""

from __future__ import annotations

import pytest

from modelcloud.dataplane.batching import MOST_WAIT_S, BatchQueue
from modelcloud.errors import ModelLoadError
from modelcloud.sdk.contract import Batch


def queue(**batch: float) -> BatchQueue:
    return BatchQueue(Batch(max_size=4, **batch))  # type: ignore[arg-type]


def test_a_single_request_to_an_idle_worker_never_waits() -> None:
    q = queue()
    q.put("a", 10.0)
    assert q.due_in(10.0) == 0.0
    q.take()
    q.ran(1, 10.0, 10.1)
    q.put("b", 99.0)
    assert q.due_in(99.0) == 0.0


def test_a_client_that_asks_again_at_once_does_not_wait_either() -> None:
    q = queue()
    q.ran(1, 10.0, 10.1)
    q.put("a", 10.1001)
    assert q.due_in(10.1001) == 0.0


def test_the_rest_of_a_wave_is_waited_for_but_not_long() -> None:
    q = queue()
    q.ran(3, 10.0, 10.01)
    q.put("a", 10.0101)
    wait = q.due_in(10.0101)
    assert 0.0 < wait <= 0.1 * 0.01
    assert q.due_in(10.0101 + wait) == 0.0
    q.put("b", 10.0102)
    q.put("c", 10.0103)
    assert q.due_in(10.0103) == 0.0


def test_a_long_batch_does_not_make_a_long_wait() -> None:
    q = queue()
    q.ran(4, 0.0, 60.0)
    q.put("a", 60.0)
    assert q.due_in(60.0) <= MOST_WAIT_S + 1e-9


def test_a_full_batch_is_run_at_once_and_no_batch_is_larger() -> None:
    q = queue(max_wait_ms=1000)
    for number in range(6):
        q.put(number, 1.0)
    assert q.due_in(1.0) == 0.0
    assert q.take() == [0, 1, 2, 3]
    assert q.take() == [4, 5]


def test_a_fixed_wait_counts_from_the_oldest_request() -> None:
    q = queue(max_wait_ms=20)
    q.put("a", 1.0)
    q.put("b", 1.015)
    assert q.due_in(1.015) == pytest.approx(0.005)
    assert q.due_in(1.02) == 0.0


def test_a_fixed_wait_of_nothing_never_waits() -> None:
    q = queue(max_wait_ms=0)
    q.ran(4, 0.0, 1.0)
    q.put("a", 1.0)
    assert q.due_in(1.0) == 0.0


@pytest.mark.parametrize("wrong", [{"max_size": 0}, {"max_size": 2.5}, {"max_wait_ms": -1}])
def test_a_batch_that_cannot_be_is_refused_where_it_is_declared(wrong: dict[str, float]) -> None:
    with pytest.raises(ModelLoadError, match="accepted"):
        Batch(**wrong)  # type: ignore[arg-type]
