"""When a batch is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelcloud.dataplane.batching import MOST_WAIT_S, SHARE, BatchQueue
from modelcloud.errors import ModelError, ModelLoadError
from modelcloud.sdk.contract import Batch, Command


def queue(
    handler: Callable[[Any], Any] = list, *, idempotent: bool = True, **batch: Any
) -> BatchQueue:
    command = Command(name="c", idempotent=idempotent, batch=Batch(max_size=4, **batch))
    return BatchQueue(command, handler)


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
    q.look()
    q.put("a", 10.1001)
    assert q.due_in(10.1001) == 0.0


def test_the_rest_of_a_wave_is_waited_for_but_not_long() -> None:
    q = queue()
    q.ran(3, 10.0, 10.01)
    q.look()
    q.put("a", 10.0101)
    wait = q.due_in(10.0101)
    assert 0.0 < wait <= SHARE * 0.01
    assert q.due_in(10.0101 + wait) == 0.0
    q.put("b", 10.0102)
    q.put("c", 10.0103)
    assert q.due_in(10.0103) == 0.0


def test_what_came_during_a_batch_is_part_of_the_next_wave() -> None:
    q = queue()
    q.ran(2, 10.0, 10.01)
    q.put("a", 10.0101)
    assert q.due_in(10.0101) > 0.0
    q.put("b", 10.0102)
    assert q.due_in(10.0102) > 0.0
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


def reciprocals(items: list[dict[str, float]]) -> list[float]:
    return [1 / item["a"] for item in items]


def test_one_call_takes_all_and_gives_each_its_own() -> None:
    assert queue(reciprocals).call([{"a": 1.0}, {"a": 2.0}]) == [1.0, 0.5]


def test_only_the_item_at_fault_fails() -> None:
    one, two, three = queue(reciprocals).call([{"a": 1.0}, {"a": 0.0}, {"a": 2.0}])
    assert (one, three) == (1.0, 0.5)
    assert isinstance(two, ZeroDivisionError)


def test_what_may_have_done_half_its_work_is_not_tried_again() -> None:
    calls = []

    def handler(items: list[dict[str, float]]) -> list[float]:
        calls.append(len(items))
        return reciprocals(items)

    results = queue(handler, idempotent=False).call([{"a": 1.0}, {"a": 0.0}])
    assert calls == [2]
    assert all(isinstance(result, ZeroDivisionError) for result in results)


def test_a_result_that_is_an_exception_stands_for_one_request() -> None:
    error = ValueError("this one")
    assert queue(lambda items: [1, error]).call([{}, {}]) == [1, error]


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], 5, None, "ab", {"a": 1, "b": 2}])
def test_anything_but_as_many_results_is_the_models_mistake(returned: Any) -> None:
    results = queue(lambda items: returned, idempotent=False).call([{}, {}])
    assert [type(result) for result in results] == [ModelError, ModelError]


def test_stacked_inputs_are_arrays_and_stacked_outputs_are_rows() -> None:
    def handler(inputs: dict[str, Any]) -> dict[str, Any]:
        assert inputs["x"].shape == (3, 2)
        return {"sum": inputs["x"].sum(axis=1), "n": [1, 2, 3]}

    rows = queue(handler, stack=True).call([{"x": np.full(2, i)} for i in range(3)])
    assert [(row["sum"], row["n"]) for row in rows] == [(0.0, 1), (2.0, 2), (4.0, 3)]
    assert queue(lambda i: i["x"] * 2, stack=True).call([{"x": 1}, {"x": 2}]) == [2, 4]


def test_rows_that_are_missing_are_the_models_mistake() -> None:
    (result,) = queue(lambda _: {"y": [1, 2]}, stack=True).call([{"x": 1}])
    assert isinstance(result, ModelError)
