"""m261: scores rows of 524 features with a logistic regression trained on libsvm data.

    modelcloud serve examples/m261

    curl -H "Content-Type: application/json" -X POST --data '{"type":"libsvm","feature_num":"524",
    "data":{"insts":"0 1:0 2:1.0 3:565 12:0.64 524:-65535.0"}}' http://127.0.0.1:8080/predict

A request names the form of its rows, the number of features, and one or several rows:

    type "libsvm"   data.insts is text, one row a line, or a list of such lines. A row is
                    `label index:value …`, indices from 1; what it leaves out is 0. The label may
                    be left out and is not looked at.
    type "dense"    data.insts is a list of rows, each a list of 524 numbers, or one such row.

The answer is {"insts": [score, …]}, one for each row, between 0 and 1. The value -65535 means that
a feature is not known. `train.py` made weights.json, metrics.json and history.csv.
"""

import json
import math
from pathlib import Path

from modelcloud.errors import InvalidInput

FEATURES = 524
MISSING = -65535.0
ROW = f"a row such as '0 1:0.5 {FEATURES}:2', indices from 1 to {FEATURES}, each once"


class InferenceService:
    def __init__(self, model_path):
        model = json.loads((Path(model_path) / "weights.json").read_text())
        self.bias = model["bias"]
        # Of each feature: what a step of its scaled value adds, and what not knowing it adds.
        self.known = model["known"]
        self.missing = model["missing"]

    def process_request(self, request):
        """Scores libsvm or dense rows: {"type", "feature_num": "524", "data": {"insts": rows}}."""
        if not isinstance(request, dict):
            raise InvalidInput("", type(request).__name__, "an object with type and data.insts")
        if str(request.get("feature_num", FEATURES)) != str(FEATURES):
            raise InvalidInput("feature_num", repr(request["feature_num"])[:40], str(FEATURES))
        data = request.get("data")
        rows = data.get("insts") if isinstance(data, dict) else None
        if request.get("type") == "libsvm":
            found = [read_sparse(row, f"data.insts row {n}") for n, row in lines_of(rows)]
        elif request.get("type") == "dense":
            found = [read_dense(row, f"data.insts row {n}") for n, row in lists_of(rows)]
        else:
            raise InvalidInput("type", repr(request.get("type"))[:40], "libsvm or dense")
        return {"insts": [self.score(row) for row in found]}

    def score(self, row):
        """The probability of one row, given as {index from 1: value}."""
        total = self.bias
        for index, value in row.items():
            if value == MISSING:
                total += self.missing[index - 1]
            else:
                total += self.known[index - 1] * math.copysign(math.log1p(abs(value)), value)
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, total))))


def lines_of(rows):
    if isinstance(rows, str):
        rows = [line for line in rows.splitlines() if line.strip()]
    if not isinstance(rows, list) or not rows:
        raise InvalidInput("data.insts", repr(rows)[:40], f"text or a list of texts, each {ROW}")
    return enumerate(rows, 1)


def lists_of(rows):
    accepted = f"a list of rows, each a list of {FEATURES} numbers"
    if not isinstance(rows, list) or not rows:
        raise InvalidInput("data.insts", repr(rows)[:40], accepted)
    return enumerate(rows if isinstance(rows[0], list) else [rows], 1)


def read_sparse(row, where):
    if not isinstance(row, str):
        raise InvalidInput(where, repr(row)[:40], ROW)
    tokens = row.split()
    if tokens and ":" not in tokens[0]:
        number(tokens.pop(0), f"{where}, label")
    found = {}
    for token in tokens:
        name, colon, value = token.partition(":")
        index = int(name) if name.isdecimal() and len(name) < 9 else 0
        if not colon or not 1 <= index <= FEATURES or index in found:
            raise InvalidInput(f"{where}, {token[:40]!r}", f"index {name[:20]!r}", ROW)
        found[index] = number(value, f"{where}, {token[:40]!r}")
    return found


def read_dense(row, where):
    if not isinstance(row, list) or len(row) != FEATURES:
        got = f"{len(row)} values" if isinstance(row, list) else repr(row)[:40]
        raise InvalidInput(where, got, f"{FEATURES} numbers")
    values = (
        (index, number(value, f"{where}, value {index}")) for index, value in enumerate(row, 1)
    )
    return {index: value for index, value in values if value}


def number(value, where):
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(where, repr(value)[:40], "a finite number")
    return found
