"""Bodies become arrays exactly or not at all, and answers have the form of their request."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelcloud.errors import InvalidInput, ModelError, UsageError
from modelcloud.runtimes import bodies
from modelcloud.runtimes.tensors import Tensor, Values

X = Tensor("x", "FP32", (-1, 2))
N = Tensor("n", "INT64", (-1,))
T = Tensor("t", "BYTES", (-1,))


def arrays(body: Any, *inputs: Tensor) -> dict[str, Any]:
    values, _ = bodies.read(body, inputs or None)
    return {name: value.tolist() for name, value in values.items()}


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ({"inputs": {"x": [[1, 2], [3, 4]]}}, (X,), {"x": [[1, 2], [3, 4]]}),
        ({"inputs": [[1, 2]]}, (X,), {"x": [[1, 2]]}),
        ({"instances": [[1, 2], [3, 4]]}, (X,), {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"x": [1, 2]}]}, (X,), {"x": [[1, 2]]}),
        ({"instances": [{"n": 1, "x": [1, 2]}]}, (X, N), {"x": [[1, 2]], "n": [1]}),
        ({"inputs": {"n": [1], "t": ["a"]}}, (N, T), {"n": [1], "t": ["a"]}),
        ({"instances": [[1, "a"], [2, "b"]]}, (N, T), {"n": [1, 2], "t": ["a", "b"]}),
        ({"instances": ["a", {"b64": "/w=="}]}, (T,), {"t": ["a", b"\xff"]}),
        ({"inputs": {"a": [1.5], "b": ["x"]}}, (), {"a": [1.5], "b": ["x"]}),
        ({"instances": [[1], [2]]}, (), {"": [[1], [2]]}),
        ({"inputs": [3.0]}, (N,), {"n": [3]}),
        ({"inputs": [2**63 - 1]}, (N,), {"n": [2**63 - 1]}),
    ],
)
def test_named_tensors_and_rows_become_arrays(
    body: Any, inputs: tuple[Tensor, ...], expected: dict[str, Any]
) -> None:
    assert arrays(body, *inputs) == expected


def test_the_arrays_come_in_the_order_and_type_of_the_inputs() -> None:
    values, by_rows = bodies.read({"inputs": {"n": [1], "x": [[1, 2]]}}, (X, N))
    assert [(name, value.dtype) for name, value in values.items()] == [("x", "f4"), ("n", "i8")]
    assert not by_rows
    given = np.ones((1, 2), "f4")
    assert bodies.read({"inputs": {"x": given}}, (X,))[0]["x"] is given


def test_null_is_a_missing_number_of_floats_only() -> None:
    values, _ = bodies.read({"inputs": [[1, None]]}, (X,))
    assert values["x"].dtype == "f4"
    assert np.isnan(values["x"][0, 1])
    with pytest.raises(InvalidInput):
        bodies.read({"inputs": [1, None]}, (N,))


@pytest.mark.parametrize(
    ("body", "inputs", "field"),
    [
        ({"inputs": [[1, 2, 3]]}, (X,), "x"),
        ({"inputs": [1, 2]}, (X,), "x"),
        ({"inputs": [[1], [2, 3]]}, (X,), "x"),
        ({"inputs": [["1", "2"]]}, (X,), "x"),
        ({"inputs": [[1, "2"]]}, (X,), "x"),
        ({"inputs": [[True, False]]}, (X,), "x"),
        ({"inputs": [[1, {}]]}, (X,), "x"),
        ({"inputs": [[1e39, 0]]}, (X,), "x"),
        ({"inputs": [1.5]}, (N,), "n"),
        ({"inputs": [2**63]}, (N,), "n"),
        ({"inputs": [2**80]}, (N,), "n"),
        ({"inputs": [9.3e18]}, (N,), "n"),
        ({"inputs": [-1]}, (Tensor("u", "UINT8", (-1,)),), "u"),
        ({"inputs": [256]}, (Tensor("u", "UINT8", (-1,)),), "u"),
        ({"inputs": [1]}, (Tensor("b", "BOOL", (-1,)),), "b"),
        ({"inputs": [1]}, (T,), "t"),
        ({"inputs": [{"b64": "%"}]}, (T,), "t"),
        ({"inputs": [[1], {}]}, (Tensor("a"),), "a"),
        ({"inputs": {"y": [[1, 2]]}}, (X,), "y"),
        ({"inputs": {}}, (X,), "x"),
        ({"inputs": [[1, 2]]}, (X, N), "inputs"),
        ({"instances": []}, (X,), "instances"),
        ({"instances": {}}, (X,), "instances"),
        ({"instances": "ab"}, (X,), "instances"),
        ({"instances": [{"n": 1, "t": "a"}, {"n": 1}]}, (N, T), "instances[1]"),
        ({"instances": [[1, "a"], [1]]}, (N, T), "instances[1]"),
        ({"instances": [1]}, (N, X), "instances[0]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    body: Any, inputs: tuple[Tensor, ...], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        bodies.read(body, inputs)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize("body", [None, [], 1, {}, {"x": 1}, {"inputs": [], "instances": []}])
def test_a_body_has_one_of_the_two_forms(body: Any) -> None:
    with pytest.raises(UsageError, match=r"accepted: .*inputs.*instances"):
        bodies.read(body, (X,))


def test_an_optional_input_may_be_left_out() -> None:
    assert arrays({"inputs": {"n": [1]}}, N, Tensor("y", "FP32", (-1,), required=False)) == {
        "n": [1]
    }


def test_an_answer_has_the_form_of_its_request() -> None:
    outputs: Values = {
        "y": np.array([[1.5], [np.nan]], "f4"),
        "label": np.array([b"a", b"\xff"], object),
        "maps": [{"0": 0.5}, {"0": 0.25}],
    }

    def json(by_rows: bool) -> Any:
        answer = bodies.written(outputs, by_rows=by_rows)
        return msgspec.json.decode(msgspec.json.encode(answer, enc_hook=lambda a: a.tolist()))

    assert json(False) == {
        "outputs": {
            "y": [[1.5], [None]], "label": ["a", {"b64": "/w=="}],
            "maps": [{"0": 0.5}, {"0": 0.25}],
        }
    }  # fmt: skip
    assert json(True) == {
        "predictions": [
            {"y": [1.5], "label": "a", "maps": {"0": 0.5}},
            {"y": [None], "label": {"b64": "/w=="}, "maps": {"0": 0.25}},
        ]
    }


@pytest.mark.parametrize("outputs", [{"y": np.float32(1)}, {"y": np.ones(2), "z": np.ones(3)}])
def test_rows_of_a_model_that_gives_none_are_its_own_mistake(outputs: Values) -> None:
    with pytest.raises(ModelError, match="no rows in common"):
        bodies.written(outputs, by_rows=True)


def test_requests_of_one_shape_are_one_call_and_each_gets_its_own_rows() -> None:
    calls: list[tuple[int, ...]] = []

    def double(values: Values) -> Values:
        calls.append(values["x"].shape)
        return {"y": values["x"] * 2, "rows": list(range(len(values["x"])))}

    requests: list[Values] = [
        {"x": np.ones((1, 2))}, {"x": np.ones((1, 3))}, {"x": np.full((2, 2), 5.0)},
    ]  # fmt: skip
    answers = bodies.run_together(requests, double)
    assert sorted(calls) == [(1, 3), (3, 2)]
    assert [answer["y"].tolist() for answer in answers] == [[[2, 2]], [[2, 2, 2]], [[10, 10]] * 2]
    assert answers[2]["rows"] == [1, 2]


def test_a_model_that_loses_rows_answers_nobody() -> None:
    with pytest.raises(ModelError, match="1 rows for 2"):
        bodies.run_together([{"x": np.ones((2, 1))}], lambda _: {"y": np.ones(1)})
