"""Requests for model files and their answers, as TensorFlow Serving has them.

`{"inputs": …}` holds every tensor whole, by name, and is answered with `outputs`;
`{"instances": […]}` holds them row by row, and is answered with `predictions`.

Must never: guess what a body that fits neither form means.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modelcloud.errors import InvalidInput, ModelError, UsageError
from modelcloud.runtimes.arrays import array_of, is_bytes, kind_of
from modelcloud.runtimes.tensors import Tensor, Tensors, Values

INPUTS, INSTANCES = "inputs", "instances"
OUTPUTS, PREDICTIONS = "outputs", "predictions"
ACCEPTED = (
    'accepted: {"inputs": {name: tensor}} or {"instances": [row, …]}; with one input its name may '
    "be left out"
)


def read(body: Any, inputs: Tensors) -> tuple[Values, bool]:
    """The arrays of a request, and whether it came row by row.

    Args:
        body: JSON; values may be numpy arrays already.
        inputs: what the model takes; the arrays come in this order. None: names and types are the
            body's; a value without a name has the name "".

    Raises:
        UsageError: it does not fit.
    """
    if not isinstance(body, Mapping) or len(body) != 1 or not {INPUTS, INSTANCES} & body.keys():
        names = ", ".join(repr(n[:40]) for n in [*body][:8]) if isinstance(body, Mapping) else ""
        raise UsageError(f"body: got {kind_of(body)}{names and f' with {names}'}; {ACCEPTED}")
    by_rows = INSTANCES in body
    named = _columns(body[INSTANCES], inputs) if by_rows else _named(body[INPUTS], inputs)
    if inputs is None:
        inputs = tuple(Tensor(name) for name in named)
    known = {tensor.name: tensor for tensor in inputs}
    for name in named:
        if name not in known:
            raise InvalidInput(name, "an input that the model does not have", ", ".join(known))
    for tensor in inputs:
        if tensor.required and tensor.name not in named:
            raise InvalidInput(tensor.name, "nothing", tensor.words())
    arrays = {name: array_of(named[name], t) for name, t in known.items() if name in named}
    return arrays, by_rows


def _named(value: Any, inputs: Tensors) -> Values:
    if isinstance(value, Mapping) and not is_bytes(value):
        return dict(value)
    if inputs is None:
        return {"": value}
    if len(inputs) == 1:
        return {inputs[0].name: value}
    raise InvalidInput(INPUTS, kind_of(value), f"an object with {_names(inputs)}")


def _columns(rows: Any, inputs: Tensors) -> Values:
    """The values of each input, row after row."""
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise InvalidInput(INSTANCES, kind_of(rows), "an array of at least one row")
    positions = None
    if inputs and len(inputs) > 1 and all(len(tensor.shape or ()) == 1 for tensor in inputs):
        positions = [tensor.name for tensor in inputs]  # the columns of a table, in their order
    first: Values | None = None
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        if positions and isinstance(row, Sequence) and not isinstance(row, str):
            if len(row) != len(positions):
                raise InvalidInput(f"{INSTANCES}[{number}]", f"an array of {len(row)}",
                                   f"one of {len(positions)}: {_names(inputs)}")  # fmt: skip
            named: Values = dict(zip(positions, row, strict=True))
        else:
            try:
                named = _named(row, inputs)
            except InvalidInput as error:
                raise InvalidInput(f"{INSTANCES}[{number}]", kind_of(row),
                                   error.fields["accepted"]) from None  # fmt: skip
        if first is None:
            first, columns = named, {name: [] for name in named}
        elif named.keys() != first.keys():
            raise InvalidInput(f"{INSTANCES}[{number}]", f"a row with {', '.join(named)}",
                               f"the names of the first one: {', '.join(first)}")  # fmt: skip
        for name, value in named.items():
            columns[name].append(value)
    return dict(columns)


def _names(inputs: Tensors) -> str:
    return ", ".join(tensor.name for tensor in inputs or ())


def written(outputs: Values, *, by_rows: bool) -> dict[str, Any]:
    """The answer: `outputs` by name, or with `by_rows` `predictions`, row after row.

    Raises:
        ModelError: rows were asked for, and an output has no rows or another number of them.
    """
    if not by_rows:
        return {OUTPUTS: {name: _out(value) for name, value in outputs.items()}}
    rows_of(outputs)
    columns = [_out(v.tolist() if hasattr(v, "tolist") else v) for v in outputs.values()]
    rows = zip(*columns, strict=True)
    return {PREDICTIONS: [dict(zip(outputs, row, strict=True)) for row in rows]}


def rows_of(values: Values) -> int:
    """How many rows there are.

    Raises:
        ModelError: one has none, or not as many as the others.
    """
    counts = {name: len(value) if _is_long(value) else None for name, value in values.items()}
    found = set(counts.values())
    if len(found) != 1 or None in found:
        raise ModelError(f"the model's tensors have no rows in common: {counts}")
    return int(found.pop() or 0)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) or bool(getattr(value, "shape", ()))


def _out(value: Any) -> Any:
    """As JSON takes it; arrays of numbers are the encoder's own business."""
    if getattr(getattr(value, "dtype", None), "kind", "") in "OSU" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return [_out(item) for item in value] if isinstance(value, list) else value


def run_together(requests: Sequence[Values], run: Callable[[Values], Values]) -> list[Values]:
    """The outputs of each request, asked for in one call for all that fit together.

    Raises:
        InvalidInput: the inputs of a request do not have the same number of rows.
        ModelError: the model gave another number of rows than it got.
    """
    import numpy as np

    groups: dict[object, list[int]] = {}
    for number, values in enumerate(requests):
        alike = tuple((name, str(v.dtype), v.shape[1:]) for name, v in values.items())
        groups.setdefault(alike, []).append(number)
    answers: list[Values] = [{} for _ in requests]
    for numbers in groups.values():
        counts = [check_rows(requests[number]) for number in numbers]
        names = requests[numbers[0]]
        outputs = run({n: np.concatenate([requests[i][n] for i in numbers]) for n in names})
        if rows_of(outputs) != sum(counts):
            raise ModelError(f"the model gave {rows_of(outputs)} rows for {sum(counts)}")
        for number, values in zip(numbers, _split(outputs, counts), strict=True):
            answers[number] = values
    return answers


def check_rows(values: Values) -> int:
    """How many rows a request has.

    Raises:
        InvalidInput: its inputs do not have the same number.
    """
    counts = {name: len(value) if value.shape else 0 for name, value in values.items()}
    found = set(counts.values())
    if len(found) != 1 or found == {0}:
        raise InvalidInput(INPUTS, f"rows {counts}", "at least one row, and as many of each")
    return found.pop()


def _split(outputs: Values, counts: Sequence[int]) -> Iterator[Values]:
    start = 0
    for count in counts:
        yield {name: value[start : start + count] for name, value in outputs.items()}
        start += count
