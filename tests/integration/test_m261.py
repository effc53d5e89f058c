"""The third seed's example: a model trained on libsvm data, asked as the seed asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.markdown import ROOT
from support.server import Server, serve

EXAMPLE = ROOT / "examples" / "m261"

#: As it stands behind `--data` in the seed.
SEED = (
    '{"type":"libsvm","feature_num":"524","data":{"insts":"0 1:0 2:1.0 3:565 4:9 5:6 6:47200.0 '
    '7:15 8:0.48 9:1959200.0 10:-65535.0 11:0.0 12:0.6447333333333334 524:-65535.0"}}'
)
ROW: str = json.loads(SEED)["data"]["insts"]


@pytest.fixture(scope="module")
def m261() -> Iterator[Server]:
    with serve(EXAMPLE) as server:
        yield server


def scores(server: Server, kind: str, rows: Any, **more: Any) -> list[float]:
    answer = server.post("/predict", {"type": kind, "data": {"insts": rows}, **more})
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["insts"]
    return found


def test_the_seeds_request_is_answered_with_a_score(m261: Server) -> None:
    answer = m261.client.post(
        f"{m261.url}/predict", content=SEED, headers={"content-type": "application/json"}
    )
    (score,) = answer.json()["insts"]
    assert 0 < score < 1


def test_several_rows_are_answered_in_order_in_every_form(m261: Server) -> None:
    dense = [0.0] * 524
    for token in ROW.split()[1:]:
        index, value = token.split(":")
        dense[int(index) - 1] = float(value)
    (one,) = scores(m261, "libsvm", ROW, feature_num=524)
    (other,) = scores(m261, "libsvm", "13:4 14:1")
    assert one != other
    assert scores(m261, "libsvm", f"{ROW}\n1 13:4 14:1\n") == [one, other]
    assert scores(m261, "libsvm", [ROW, "13:4 14:1"]) == [one, other]
    assert scores(m261, "dense", dense) == [one]
    assert scores(m261, "dense", [dense, dense]) == [one, one]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "csv"}, "type: got 'csv'; accepted: libsvm or dense"),
        ({"feature_num": "523"}, "feature_num: got '523'; accepted: 524"),
        ({"data": {}}, "data.insts"),
        ({"data": {"insts": f"{ROW}\n0 525:1"}}, "row 2, '525:1'"),
        ({"data": {"insts": "0 1:0 1:1"}}, "row 1, '1:1'"),
        ({"data": {"insts": "0 1:x"}}, "row 1, '1:x': got 'x'; accepted: a finite number"),
        ({"data": {"insts": "0 7"}}, "row 1, '7'"),
        ({"data": {"insts": "0 1:nan"}}, "a finite number"),
        ({"type": "dense", "data": {"insts": [[1, 2]]}}, "row 1: got 2 values; accepted: 524"),
        ({"type": "dense", "data": {"insts": [0.0] * 523 + ["x"]}}, "row 1, value 524: got 'x'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_what_is_accepted(
    m261: Server, changes: dict[str, Any], words: str
) -> None:
    answer = m261.post("/predict", {**json.loads(SEED), **changes})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_the_weights_are_those_that_the_metrics_speak_of() -> None:
    """Small, and of 524 features; `train.py` needs scikit-learn, serving does not."""
    model = json.loads((EXAMPLE / "weights.json").read_text())
    assert (len(model["known"]), len(model["missing"])) == (524, 524)
    assert json.loads((EXAMPLE / "metrics.json").read_text())["auc"] > 0.9
    assert sum(file.stat().st_size for file in EXAMPLE.glob("*.*")) < 100_000
    assert "sklearn" not in (EXAMPLE / "model.py").read_text()
