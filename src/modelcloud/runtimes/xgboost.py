"""XGBoost's own files, JSON and UBJSON.

Must never: import xgboost when imported; it is there only in the worker of such a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelcloud.runtimes.model import Told, needed, threads
from modelcloud.runtimes.tensors import Tensor, Values, matrix_inputs, matrix_of


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """Nothing: features and outputs are known once it is loaded."""
    return Told()


def load(main: Path, options: Mapping[str, Any]) -> XgboostModel:
    """Load a booster."""
    return XgboostModel(main)


class XgboostModel:
    """A booster. It gives `prediction`: a number a row, or one for each class."""

    def __init__(self, main: Path) -> None:
        with needed("xgboost"):
            import xgboost
        self._booster = xgboost.Booster(model_file=str(main))
        if threads():
            self._booster.set_param({"nthread": threads()})
        names = self._booster.feature_names or []
        self.inputs = matrix_inputs(names, self._booster.num_features(), "FP32")
        self.outputs: tuple[Tensor, ...] | None = None
        self.library = f"xgboost {xgboost.__version__}"

    def run(self, values: Values) -> Values:
        """Predict for a matrix; NaN stands for what is missing."""
        found = self._booster.inplace_predict(matrix_of(values), validate_features=False)
        return {"prediction": found}
