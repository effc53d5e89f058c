"""An MLflow model's folder, called by its `python_function` flavor.

Must never: be loaded in any process but a worker: it may hold pickles and code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelcloud.runtimes.model import Told, needed
from modelcloud.runtimes.tensors import FREE, MATRIX, WORDS, Tensor, Tensors, Values

#: mlflow.types.DataType
_COLUMNS = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64",
    "string": "BYTES", "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip
_OUTPUT = "prediction"


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """The signature that the model was logged with, if there was one."""
    with needed("mlflow"):
        from mlflow.models import Model
    return _told(Model.load(str(main.parent)).signature)


def _told(signature: Any) -> Told:
    if signature is None:
        return Told()
    return Told(_tensors(signature.inputs, MATRIX), _tensors(signature.outputs, _OUTPUT))


def _tensors(schema: Any, unnamed: str) -> Tensors:
    if schema is None:
        return None
    if schema.is_tensor_spec():
        return tuple(
            Tensor(one.name or unnamed, WORDS.get(one.type.name, "BYTES"), tuple(one.shape))
            for one in schema.inputs
        )
    if not schema.has_input_names():
        return None
    return tuple(_column(one) for one in schema.inputs)


def _column(one: Any) -> Tensor:
    word = _COLUMNS.get(getattr(one.type, "name", ""))
    return Tensor(one.name, word, (FREE,) if word else None, required=one.required)


def load(main: Path, options: Mapping[str, Any]) -> MlflowModel:
    """Load it by its `python_function` flavor."""
    return MlflowModel(main)


class MlflowModel:
    """A pyfunc. Named columns come to it as a table, tensors as arrays.

    What it gives without names is `prediction`.
    """

    def __init__(self, main: Path) -> None:
        with needed("mlflow"):
            import mlflow.pyfunc
        self._model = mlflow.pyfunc.load_model(str(main.parent))
        signature = self._model.metadata.signature
        told = _told(signature)
        self.inputs, self.outputs = told.inputs, told.outputs
        self._tensors = signature is not None and signature.inputs.is_tensor_spec()
        self._named = self._tensors and signature.inputs.has_input_names()
        self.library = f"mlflow {mlflow.__version__}"

    def run(self, values: Values) -> Values:
        """Call `predict`."""
        found = self._model.predict(self._given(values))
        if hasattr(found, "columns"):  # a table
            return {str(name): found[name].to_numpy() for name in found.columns}
        if isinstance(found, Mapping):
            return dict(found)
        return {_OUTPUT: found.to_numpy() if hasattr(found, "to_numpy") else found}

    def _given(self, values: Values) -> Any:
        if self._named:
            return values
        if self._tensors or values.keys() == {""}:
            return next(iter(values.values()))
        import pandas as pd

        return pd.DataFrame(values)
