"""The form that brings a version online, and the strategy that comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.control.resources.instance_types import InstanceTypeRecord
from modelcloud.dashboard.parts.deploy_form import deploy_fields, dispatch_from, resources
from modelcloud.dashboard.parts.strategy_fields import number_fields, strategy_from
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput


def test_a_new_version_has_a_weight_and_no_strategy() -> None:
    fields = deploy_fields(Words("en"), {"version": "1"}, [], [], [], None)
    names = [field.name for field in fields]
    assert "weight" in names
    assert "strategy" not in names
    assert next(field for field in fields if field.name == "dispatch").value == "least_loaded"


def test_a_canary_takes_its_numbers_and_leaves_the_rest() -> None:
    values: dict[str, Any] = {
        "strategy.steps": "5:1, 50",
        "strategy.max_error_rate": 0.1,
        "replicas": 2,
    }
    assert strategy_from("canary", values) == {
        "name": "canary",
        "steps": [{"percent": 5.0, "watch_s": 1.0}, {"percent": 50.0, "watch_s": 60.0}],
        "max_error_rate": 0.1,
    }
    assert values == {"replicas": 2}


def test_another_strategy_is_a_name_and_none_is_as_it_was() -> None:
    assert strategy_from("blue_green", {"strategy.max_p99_ms": 1.0}) == "blue_green"
    assert strategy_from(None, {}) is None


def test_rolling_takes_the_numbers_of_its_workers_and_begins_with_those_before() -> None:
    values: dict[str, Any] = {"strategy.max_surge": 2, "strategy.max_unavailable": 0}
    made = strategy_from("rolling", values)
    assert made == {"name": "rolling", "max_surge": 2, "max_unavailable": 0}
    assert [one.value for one in number_fields(Words("en"), "rolling", made)] == [2, 0]
    assert [one.value for one in number_fields(Words("en"), "rolling", {})] == [0, 1]


def test_a_consistent_hash_goes_with_its_key_and_other_policies_without() -> None:
    assert dispatch_from({"dispatch": "consistent_hash", "dispatch.key": "header:x-user"}) == {
        "policy": "consistent_hash",
        "key": "header:x-user",
    }
    assert dispatch_from({"dispatch": "random", "dispatch.key": "header:x-user"}) == "random"
    assert dispatch_from({}) is None
    asked = {"version": "1", "dispatch": "consistent_hash"}
    fields = deploy_fields(Words("en"), asked, [], [], [], None)
    assert "dispatch.key" in [field.name for field in fields]


def test_steps_that_cannot_be_read_name_their_field() -> None:
    with pytest.raises(InvalidInput, match="percent:seconds") as caught:
        strategy_from("canary", {"strategy.steps": "half:60"})
    assert caught.value.fields["field"] == "strategy.steps"


@pytest.mark.parametrize(
    ("cpu", "memory", "gpu", "text"),
    [
        (0, 0, 0, "unlimited"),
        (0.25, 1 << 30, 0, "0.25 CPU, 1.0 GiB"),
        (2, 0, 0.5, "2 CPU, 0.5 GPU"),
    ],
)
def test_resources_in_a_few_words(cpu: float, memory: int, gpu: float, text: str) -> None:
    one = InstanceTypeRecord(name="x", description="", cpu=cpu, memory=memory, gpu=gpu, revision=1)
    assert resources(one) == text
