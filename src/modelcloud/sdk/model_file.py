"""A model file without code as a Backend: the commands `predict` and `metadata`.

Must never: know a model library; `runtimes` holds those, one adapter for each.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelcloud.errors import InvalidInput, ModelcloudError, ModelLoadError, UsageError
from modelcloud.runtimes import bodies, tensors
from modelcloud.runtimes.model import Model, Told, runtime
from modelcloud.runtimes.tensors import Tensor, Tensors, Values
from modelcloud.sdk.contract import MAX_BATCH, Batch, Body, Command, Signature
from modelcloud.sdk.data_types import DataType, array, number, text
from modelcloud.sdk.data_types import any as any_

PREDICT, METADATA = "predict", "metadata"
#: Values of an example that a person can still read.
MAX_EXAMPLE = 1024

_BATCH_SIZE = number(
    min=1, max=MAX_BATCH, step=1, default=1,
    description="Requests whose rows one call of the model takes together; 1: each its own call.",
)  # fmt: skip
_OWN_OPTIONS: dict[str, dict[str, DataType]] = {
    "tensorflow": {
        "signature": text(default="serving_default", description="Signature that is called.")
    },
    "sklearn": {
        "trusted_types": array(
            text, default=[], description="Types that a skops file may hold beside the usual ones."
        )
    },
    "torch": {
        "inputs": any_(
            default=None,
            description="What a TorchScript module takes: a list of objects with name, datatype "
            "and shape.",
        )
    },
}


class ModelFileBackend:
    """A model that a runtime loads.

    Before `load` the signature tells of tensors what the file itself does, afterwards what the
    loaded model does.

    Args:
        name: of the runtime.
        main: the file it is loaded by.
    """

    def __init__(self, name: str, main: Path) -> None:
        self._name, self._main = name, main
        self._runtime = runtime(name)
        self._options = {"batch_size": _BATCH_SIZE, **_OWN_OPTIONS.get(name, {})}
        self._told = self._peeked()
        self._model: Model | None = None
        self._batch: Batch | None = None

    def _peeked(self) -> Told:
        defaults = {name: kind.default for name, kind in self._options.items()}
        try:
            return self._runtime.peek(self._main, defaults)
        except InvalidInput:  # the options of this generation may say otherwise
            return Told()

    @property
    def signature(self) -> Signature:
        """The commands `predict` and `metadata`; the option `batch_size` and the runtime's own."""
        predict = Command(
            name=PREDICT,
            description="Runs the model on named tensors (inputs) or on rows (instances).",
            whole_body=True,
            body=_body(self._told),
            batch=self._batch,
        )
        metadata = Command(
            name=METADATA,
            description="Names, types and shapes of the model's inputs and outputs.",
            whole_body=True,
        )
        return Signature(runtime=self._name, options=self._options, commands=(predict, metadata))

    def load(self, options: dict[str, Any]) -> None:
        """Load the model, and run it once on zeros where the shapes of its inputs are known.

        Raises:
            ModelLoadError: it cannot be loaded, or cannot batch.
        """
        with _loading(self._main):
            model = self._model = self._runtime.load(self._main, options)
        self._told = Told(model.inputs, model.outputs)
        size = options["batch_size"]
        if size > 1:
            if not all(tensor.counts_rows for tensor in model.inputs or ()):
                raise ModelLoadError(
                    "batch_size: the first dimension of the model's inputs is fixed; accepted: 1"
                )
            self._batch = Batch(max_size=size)
        self._try()

    def _try(self) -> None:
        assert self._model is not None
        try:
            values = tensors.zeros(self._model.inputs)
            outputs = self._model.run(values) if values is not None else None
        except Exception as error:  # zeros are a guess; a model may have reasons to refuse them
            print(  # noqa: T201 — the worker's log
                f"a first run on zeros raised {type(error).__name__}: {error}; write warmup.jsonl "
                "to have a better one",
                file=sys.stderr,
                flush=True,
            )
            return
        if outputs is not None and self._model.outputs is None:
            self._told = Told(self._model.inputs, tensors.told_by(outputs))

    def handler(self, command: str) -> Callable[[Any], Any]:
        """The function of a command."""
        if command == METADATA:
            return self._metadata
        return self._predict if self._batch is None else self._predict_many

    def _predict(self, body: Any) -> dict[str, Any]:
        assert self._model is not None
        values, by_rows = bodies.read(body, self._model.inputs)
        return bodies.written(self._model.run(values), by_rows=by_rows)

    def _predict_many(self, requests: list[Any]) -> list[Any]:
        assert self._model is not None
        read = [self._read(body) for body in requests]
        asked = [one for one in read if not isinstance(one, UsageError)]
        found = iter(bodies.run_together([values for values, _ in asked], self._model.run))
        return [
            one if isinstance(one, UsageError) else bodies.written(next(found), by_rows=one[1])
            for one in read
        ]

    def _read(self, body: Any) -> tuple[Values, bool] | UsageError:
        """Of a request among others; one that does not fit fails alone."""
        assert self._model is not None
        try:
            values, by_rows = bodies.read(body, self._model.inputs)
            bodies.check_rows(values)
        except UsageError as error:
            return error
        return values, by_rows

    def _metadata(self, body: Any) -> dict[str, Any]:
        assert self._model is not None
        return {
            "runtime": self._name,
            "library": self._model.library,
            "inputs": _listed(self._told.inputs),
            "outputs": _listed(self._told.outputs),
        }

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Not possible: options go through load.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


@contextmanager
def _loading(main: Path) -> Iterator[None]:
    """Around a library's own code: whatever it raises becomes a ModelLoadError."""
    try:
        yield
    except ModelcloudError:
        raise
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"{main.name} needs {error.name!r}, which is not in the environment that serves it; "
            "accepted: an environment with the packages that it was made with"
        ) from error
    except Exception as error:
        told = str(error).replace(f"{main.parent}/", "").strip().splitlines() or [""]
        raise ModelLoadError(
            f"{main.name} cannot be loaded: {type(error).__name__}: {told[0]}",
            detail=traceback.format_exc(),
        ) from error


def _listed(told: Tensors) -> list[dict[str, Any]] | None:
    return None if told is None else [tensor.to_dict() for tensor in told]


def _body(told: Told) -> Body:
    """The two forms of a request and its answer, and an example of a row."""
    whole = _object(told.inputs, bare=True)
    rows = _object(told.inputs, row=True, bare=True)
    return Body(
        input_schema={
            "oneOf": [
                _field(bodies.INPUTS, whole),
                _field(bodies.INSTANCES, {"type": "array", "minItems": 1, "items": rows}),
            ]
        },
        output_schema={
            "oneOf": [
                _field(bodies.OUTPUTS, _object(told.outputs)),
                _field(
                    bodies.PREDICTIONS,
                    {"type": "array", "items": _object(told.outputs, row=True)},
                ),
            ]
        },
        example=_example(told.inputs),
    )


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def _object(told: Tensors, *, row: bool = False, bare: bool = False) -> dict[str, Any]:
    """By name; with `bare`, a single one may stand without."""
    if told is None:
        return {}
    named = {
        "type": "object",
        "properties": {one.name: tensors.schema_of(one, row=row) for one in told},
        "required": [one.name for one in told if one.required],
        "additionalProperties": False,
    }
    if len(told) != 1 or not bare:
        return named
    return {"anyOf": [named, tensors.schema_of(told[0], row=row)]}


def _example(told: Tensors) -> dict[str, Any]:
    if told is None or any(one.shape is None for one in told) or _size(told) > MAX_EXAMPLE:
        return {}
    values = {one.name: _zero(one) for one in told}
    if all(one.counts_rows for one in told):
        return {bodies.INSTANCES: [{name: value[0] for name, value in values.items()}]}
    return {bodies.INPUTS: values}


def _size(told: tuple[Tensor, ...]) -> int:
    total = 0
    for one in told:
        size = 1
        for length in one.shape or ():
            size *= max(length, 1)
        total += size
    return total


def _zero(tensor: Tensor) -> Any:
    """One row of it, as JSON."""
    kind = tensor.datatype or ""
    value: Any = 0.0 if kind.startswith("FP") or not kind else 0
    value = {"BYTES": "", "BOOL": False}.get(kind, value)
    for length in reversed(tensor.shape or ()):
        value = [value] * max(length, 1)
    return value
