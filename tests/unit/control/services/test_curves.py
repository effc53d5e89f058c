"""What a training left behind: read as far as it can be, with a note on the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelcloud.control.services.curves import (
    MAX_METRICS,
    MAX_POINTS,
    MAX_SERIES,
    check_curves,
    check_metrics,
    read_csv,
    read_json,
)
from modelcloud.errors import InvalidInput


def of_json(**content: Any) -> Any:
    return read_json(json.dumps(content).encode(), "metrics.json")


def test_plain_values_are_metrics_and_lists_are_curves() -> None:
    read = of_json(auc=0.98, best="fold 3", tuned=True, loss=[0.5, 0.25], acc=[[10, 0.5], [5, 0.1]])
    assert read.metrics == {"auc": 0.98, "best": "fold 3", "tuned": True}
    assert read.curves == {"loss": [[0, 0.5], [1, 0.25]], "acc": [[5, 0.1], [10, 0.5]]}
    assert read.notes == ()


def test_curves_may_stand_in_an_object_of_their_own() -> None:
    read = of_json(auc=0.98, history={"loss": [1.0], "val_loss": [2.0]})
    assert read.curves == {"loss": [[0, 1.0]], "val_loss": [[0, 2.0]]}


def test_what_is_neither_is_left_out_with_a_note() -> None:
    read = of_json(auc=0.98, confusion={"a": 1}, mixed=[1, "x"], deep=[[1, 2, 3]], nothing=None)
    assert read.metrics == {"auc": 0.98}
    assert read.curves == {}
    assert len(read.notes) == 4
    assert "'confusion' is neither" in read.notes[0]


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'{"a": NaN}', b"[" * 5000])
def test_a_file_that_is_no_json_object_is_left_out_with_a_note(data: bytes) -> None:
    read = read_json(data, "metrics.json")
    assert (read.metrics, read.curves, len(read.notes)) == ({}, {}, 1)


def test_numbers_that_json_has_no_form_for_are_dropped_with_a_note() -> None:
    read = read_csv("epoch,loss\n1,0.5\n2,nan\n3,inf\n4,0.25\n", "history.csv")
    assert read.curves == {"loss": [[1, 0.5], [4, 0.25]]}
    assert read.notes == ("loss: 2 of 4 values are no finite numbers",)


@pytest.mark.parametrize("first", ["epoch", "Step", "iteration"])
def test_the_first_column_may_be_the_step(first: str) -> None:
    read = read_csv(f"{first},loss,acc\n10,0.5,\n20,0.25,0.9\n", "history.csv")
    assert read.curves == {"loss": [[10, 0.5], [20, 0.25]], "acc": [[20, 0.9]]}
    assert read.notes == ()


def test_without_a_step_the_row_counts() -> None:
    read = read_csv("loss\n0.5\n0.25\n", "history.csv")
    assert read.curves == {"loss": [[0, 0.5], [1, 0.25]]}


def test_a_column_of_texts_is_left_out_with_a_note() -> None:
    read = read_csv('epoch,phase,loss\n1,warm-up,"0.5"\n2,main\n', "history.csv")
    assert read.curves == {"loss": [[1, 0.5]]}
    assert read.notes == ("column 'phase' of history.csv holds no numbers and was left out",)


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "a" * 200_000 + "\n1\n"])
def test_a_table_that_cannot_be_read_is_left_out_with_a_note(text: str) -> None:
    read = read_csv(text, "history.csv")
    assert (read.curves, len(read.notes)) == ({}, 1)


def test_a_long_series_keeps_its_first_and_last_point() -> None:
    read = of_json(loss=list(range(100_000)))
    assert len(read.curves["loss"]) == MAX_POINTS
    assert read.curves["loss"][0] == [0, 0]
    assert read.curves["loss"][-1] == [99_999, 99_999]
    assert "thinned" in read.notes[0]


def test_too_many_of_a_file_are_left_out() -> None:
    read = of_json(**{f"m{n}": n for n in range(MAX_METRICS + 1)})
    assert len(read.metrics) == MAX_METRICS
    read = of_json(**{f"s{n}": [n] for n in range(MAX_SERIES + 1)})
    assert len(read.curves) == MAX_SERIES


@pytest.mark.parametrize(
    "metrics",
    [{"a": [1]}, {"a": {}}, {"a": None}, {"": 1}, {"a": 10**400}, {"a": "x" * 501},
     {"n" * 101: 1}, {str(n): n for n in range(101)}],
)  # fmt: skip
def test_metrics_of_a_request_that_do_not_fit_are_refused(metrics: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="metrics"):
        check_metrics(metrics)


@pytest.mark.parametrize(
    "curves",
    [{"a": 1}, {"a": [[1]]}, {"a": [[1, 2, 3]]}, {"a": ["x"]}, {"a": [True]}, {"": [1]},
     {"a": [10**400]}, {str(n): [n] for n in range(101)}],
)  # fmt: skip
def test_curves_of_a_request_that_do_not_fit_are_refused(curves: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="curves"):
        check_curves(curves)


def test_curves_of_a_request_are_sorted_by_step() -> None:
    assert check_curves({"loss": [[2, 0.1], [1, None], [0, 0.5]]}).curves == {
        "loss": [[0, 0.5], [2, 0.1]]
    }
