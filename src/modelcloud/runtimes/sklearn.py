"""scikit-learn, and what is called like it: joblib's files, pickles, and skops' files.

Must never: unpickle in any process but a worker, for a pickle runs code; skops' files do not, as
long as only types are trusted that were named.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes.model import Told, needed
from modelcloud.runtimes.tensors import FREE, MATRIX, Tensor, Values

if TYPE_CHECKING:
    import numpy as np


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """Nothing: what is in a pickle is known once it is loaded."""
    return Told()


def load(main: Path, options: Mapping[str, Any]) -> SklearnModel:
    """Load a fitted estimator.

    Args:
        main: the file.
        options: `trusted_types`: names of types that a skops file may hold beside the usual ones.
    """
    with needed("sklearn"):
        import sklearn
    if main.suffix == ".skops":
        estimator = _skops(main, options.get("trusted_types") or [])
    elif main.suffix == ".joblib":
        with needed("sklearn"):
            import joblib
        estimator = joblib.load(main)
    else:
        estimator = _unpickled(main)
    return SklearnModel(estimator, f"scikit-learn {sklearn.__version__}")


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 — in a worker, as the model's code would run


def _skops(main: Path, trusted: list[str]) -> Any:
    with needed("sklearn"):
        import skops.io
    unknown = sorted(set(skops.io.get_untrusted_types(file=main)) - set(trusted))
    if unknown:
        raise ModelLoadError(
            f"{main.name} holds types that are not trusted: {', '.join(unknown)}; accepted: the "
            "usual ones, and those named in the option trusted_types"
        )
    return skops.io.load(main, trusted=trusted)


class SklearnModel:
    """A fitted estimator with `predict` or `transform`.

    A classifier gives `label`, and `probability` if it knows it; a transformer `transformed`;
    anything else `prediction`.

    Raises:
        ModelLoadError: it has neither.
    """

    def __init__(self, estimator: Any, library: str) -> None:
        if not (hasattr(estimator, "predict") or hasattr(estimator, "transform")):
            raise ModelLoadError(
                f"the file holds a {type(estimator).__name__}; accepted: a fitted estimator with "
                "predict or transform"
            )
        self._estimator = estimator
        self.library = library
        self._columns = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        self.inputs = self._told()
        self.outputs = None

    def _told(self) -> tuple[Tensor, ...]:
        if self._columns:
            return tuple(Tensor(name, None, (FREE,)) for name in self._columns)
        count = getattr(self._estimator, "n_features_in_", None)
        # Without a number of features it takes what it was written for: texts, for one.
        return (Tensor(MATRIX) if count is None else Tensor(MATRIX, "FP64", (FREE, count)),)

    def run(self, values: Values) -> Values:
        """Call `predict`, and `predict_proba` of a classifier; else `transform`."""
        given = self._table(values) if self._columns else values[MATRIX]
        estimator = self._estimator
        if not hasattr(estimator, "predict"):
            return {"transformed": _dense(estimator.transform(given))}
        if not hasattr(estimator, "classes_"):
            return {"prediction": estimator.predict(given)}
        labels: Values = {"label": estimator.predict(given)}
        if hasattr(estimator, "predict_proba"):
            labels["probability"] = estimator.predict_proba(given)
        return labels

    def _table(self, values: Values) -> Any:
        with needed("sklearn"):
            import pandas as pd
        return pd.DataFrame({name: values[name] for name in self._columns})


def _dense(found: Any) -> np.ndarray[Any, Any]:
    """What `transform` gives may be a sparse matrix or a table."""
    import numpy as np

    return np.asarray(found.toarray() if hasattr(found, "toarray") else found)
