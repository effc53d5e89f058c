"""Reads what a training left behind: metrics (`{"auc": 0.98}`) and curves (series by step).

Must never: ask the store or open a file; let a number through that JSON has no form for.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from modelcloud.errors import InvalidInput

MAX_METRICS = 100
MAX_SERIES = 100
#: Of a series; a longer one keeps every nth point, and its last.
MAX_POINTS = 2_000
MAX_NAME = 100
MAX_TEXT = 500

#: First columns of a table that are steps rather than a series.
STEPS = frozenset({"batch", "epoch", "iter", "iteration", "round", "step"})
#: Objects of `metrics.json` whose members are series of their own.
_NESTED = frozenset({"curves", "history"})

Points: TypeAlias = list[list[float]]
_METRICS = f"an object of up to {MAX_METRICS} numbers, texts or booleans by name"
_SERIES = "series by name, each a list of values, of [step, value] pairs, or null for none"


class Training(msgspec.Struct, frozen=True):
    """What was read.

    Attributes:
        curves: series → [step, value] by step.
        notes: what was left out, in words.
    """

    metrics: dict[str, Any] = {}
    curves: dict[str, Points] = {}
    notes: tuple[str, ...] = ()


def check_metrics(given: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a request, as they are kept.

    Raises:
        InvalidInput: one is no plain value, or there are too many.
    """
    if len(given) > MAX_METRICS:
        raise InvalidInput("metrics", f"{len(given)} of them", _METRICS)
    for name, value in given.items():
        if not name or len(name) > MAX_NAME or not _is_plain(value):
            raise InvalidInput(f"metrics.{name[:MAX_NAME]}", _shown(value), _METRICS)
    return dict(given)


def check_curves(given: Mapping[str, Any]) -> Training:
    """Curves of a request.

    Raises:
        InvalidInput: one is no series, or there are too many.
    """
    if len(given) > MAX_SERIES:
        raise InvalidInput("curves", f"{len(given)} series", f"up to {MAX_SERIES} {_SERIES}")
    read = _Reader()
    for name, values in given.items():
        if not name or len(name) > MAX_NAME or not read.series(name, values):
            raise InvalidInput(f"curves.{name[:MAX_NAME]}", _shown(values), _SERIES)
    return read.training()


def read_json(data: bytes, name: str) -> Training:
    """`metrics.json`: plain values are metrics, lists are curves; what is neither is noted.

    Objects called `history` or `curves` hold curves too. The notes call the file `name`.
    """
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return Training(notes=(f"{name} is not JSON and was left out",))
    if not isinstance(content, dict):
        return Training(notes=(f"{name} is no JSON object and was left out",))
    read = _Reader()
    for key, value in content.items():
        if key in _NESTED and isinstance(value, dict):
            for series, values in value.items():
                read.any_of(series, values, plain=False)
        else:
            read.any_of(key, value, plain=True)
    return read.training()


def read_csv(text: str, name: str) -> Training:
    """`history.csv`: a row of names, then one row a step; the first column may be the step.

    Columns that hold other things than numbers are left out with a note; empty cells without.
    The notes call the file `name`.
    """
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        return Training(notes=(f"{name} cannot be read ({error}) and was left out",))
    if len(rows) < 2:
        return Training(notes=(f"{name} has no rows below its names and was left out",))
    names, rows = [cell.strip() for cell in rows[0]], rows[1:]
    columns = {
        column: [_number(row[place]) if place < len(row) else "" for row in rows]
        for place, column in enumerate(names)
    }
    steps: Sequence[float | str] = range(len(rows))
    if names[0].lower() in STEPS and all(isinstance(n, float) for n in columns[names[0]]):
        steps = columns.pop(names[0])
    read = _Reader()
    for column, values in columns.items():
        points = [[step, value] for step, value in zip(steps, values, strict=True) if value != ""]
        if any(isinstance(value, str) for _, value in points) or not points:
            read.notes.append(f"column {column!r} of {name} holds no numbers and was left out")
        else:
            read.any_of(column, points, plain=False)
    return read.training()


class _Reader:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self._metrics: dict[str, Any] = {}
        self._curves: dict[str, Points] = {}

    def training(self) -> Training:
        return Training(self._metrics, self._curves, tuple(self.notes[:20]))

    def any_of(self, name: str, value: Any, *, plain: bool) -> None:
        """Take a metric or a series of a file; note what it is not."""
        name = name[:MAX_NAME]
        if plain and _is_plain(value):
            if len(self._metrics) < MAX_METRICS:
                self._metrics[name] = value
            else:
                self.notes.append(f"{name!r} is one metric too many and was left out")
        elif len(self._curves) >= MAX_SERIES:
            self.notes.append(f"{name!r} is one series too many and was left out")
        elif not self.series(name, value):
            self.notes.append(f"{name!r} is neither a metric nor a series and was left out")

    def series(self, name: str, values: Any) -> bool:
        """Take a series; whether it is one."""
        if not isinstance(values, list | tuple):
            return False
        points: Points = []
        dropped = 0
        for place, value in enumerate(values):
            pair = isinstance(value, list | tuple)
            if pair and len(value) != 2:
                return False
            step, number = value if pair else (place, value)
            if not (_is_number(step) and (number is None or _is_number(number))):
                return False
            if number is None or not math.isfinite(number) or not math.isfinite(step):
                dropped += 1
            else:
                points.append([step, number])
        if dropped:
            self.notes.append(f"{name}: {dropped} of {len(values)} values are no finite numbers")
        self._curves[name] = _thinned(sorted(points, key=lambda point: point[0]))
        if len(points) > MAX_POINTS:
            self.notes.append(f"{name}: {len(points)} points were thinned out to {MAX_POINTS}")
        return True


def _thinned(points: Points) -> Points:
    if len(points) <= MAX_POINTS:
        return points
    last = len(points) - 1
    return [points[round(n * last / (MAX_POINTS - 1))] for n in range(MAX_POINTS)]


def _number(cell: str) -> float | str:
    """A cell as a number; "" for an empty one, its text for any other."""
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _fits(value)


def _fits(value: float) -> bool:
    """Whether it survives as a double; an integer of a thousand digits does not."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return isinstance(value, bool) or (_is_number(value) and math.isfinite(value))


def _shown(value: Any) -> str:
    return repr(value)[:60]
