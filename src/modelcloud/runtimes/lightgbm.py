"""LightGBM's text files.

Must never: import lightgbm when imported; it is there only in the worker of such a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelcloud.runtimes.model import Told, needed, threads
from modelcloud.runtimes.tensors import Tensor, Values, matrix_inputs, matrix_of

#: What precedes the first tree.
_MAX_HEADER = 4 * 1024 * 1024
#: The names that LightGBM gives features that had none.
_MADE_UP = re.compile(r"Column_\d+")


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """The features, which stand in the file's header."""
    with main.open(encoding="utf-8", errors="replace") as file:
        header, _, _ = file.read(_MAX_HEADER).partition("\nTree=")
    names = re.search(r"^feature_names=(.*)$", header, re.MULTILINE)
    return Told(_features(names[1].split(" "))) if names else Told()


def _features(names: list[str]) -> tuple[Tensor, ...]:
    named = [] if all(map(_MADE_UP.fullmatch, names)) else names
    return matrix_inputs(named, len(names), "FP64")


def load(main: Path, options: Mapping[str, Any]) -> LightgbmModel:
    """Load a booster."""
    return LightgbmModel(main)


class LightgbmModel:
    """A booster. It gives `prediction`: a number a row, or one for each class."""

    def __init__(self, main: Path) -> None:
        with needed("lightgbm"):
            import lightgbm
        self._booster = lightgbm.Booster(model_file=str(main))
        self._settings = {"num_threads": threads()} if threads() else {}
        self.inputs = _features(self._booster.feature_name())
        self.outputs: tuple[Tensor, ...] | None = None
        self.library = f"lightgbm {lightgbm.__version__}"

    def run(self, values: Values) -> Values:
        """Predict for a matrix; NaN stands for what is missing."""
        return {"prediction": self._booster.predict(matrix_of(values), **self._settings)}
