"""Which runtime a file or folder is: by its name, the names beside it, and its first bytes.

Must never: load, unpack or unpickle what it looks at, or read more than its first bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from modelcloud.errors import ModelLoadError

#: Read of a file.
HEAD = 4096

RUNTIMES = (
    "lightgbm", "mlflow", "onnx", "paddle", "sklearn", "tensorflow", "torch", "xgboost",
)  # fmt: skip
ACCEPTED = (
    "accepted as a model without code: .onnx, .joblib, .skops, .pkl (scikit-learn), .json and .ubj "
    "of XGBoost, LightGBM's text, .pt and .pt2 of PyTorch, a SavedModel, Paddle's inference "
    "format, an MLflow model"
)

#: Loading one of these runs code that it holds. Of PyTorch's archives, some hold pickles.
_PICKLED = {"mlflow", "sklearn", "torch"}
_UNPICKLED_SUFFIX = ".skops"

_BY_SUFFIX = {
    ".onnx": "onnx",
    ".joblib": "sklearn", ".skops": "sklearn",
    ".pt": "torch", ".pth": "torch", ".pt2": "torch", ".torchscript": "torch",
    ".pdmodel": "paddle",
}  # fmt: skip
_PICKLE_SUFFIXES = {".pkl", ".pickle"}
#: A pickle of protocol 2 or later; an older one is text, and not told from others.
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_XGBOOST_JSON = re.compile(rb'\s*\{\s*"(learner"\s*:|version"\s*:\s*\[)')
_XGBOOST_UBJ = re.compile(rb"\{L.{7}\x07learner", re.DOTALL)
_LIGHTGBM = b"tree\n"
_LIGHTGBM_CRLF = b"tree\r\n"

#: Names that say of a whole folder what it is, the surest first.
_FOLDERS = {"MLmodel": "mlflow", "saved_model.pb": "tensorflow", "__model__": "paddle"}
#: Of several model files in a folder, one of this name is the model.
_USUAL = "model"


class Found(NamedTuple):
    """A model: its runtime, and the file that it is loaded by."""

    runtime: str
    main: Path


def detect(path: Path) -> Found | None:
    """What a file or folder is; None if it is no model file and holds none.

    Raises:
        ModelLoadError: a folder holds several, and its user must name one.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return _of_folder(path)
    runtime = _of_file(path) if path.is_file() else ""
    return Found(runtime, path) if runtime else None


def is_pickle_based(path: Path) -> bool:
    """Whether loading what is there runs code of its own, as unpickling does.

    A folder with a `model.py` is code, and none of this function's business.

    Raises:
        ModelLoadError: as `detect`.
        OSError: it cannot be read.
    """
    found = detect(path)
    return (
        found is not None and found.runtime in _PICKLED and found.main.suffix != _UNPICKLED_SUFFIX
    )


def names_folder(main: Path) -> bool:
    """Whether a model is all of the folder that this file of it stands in."""
    return main.name in _FOLDERS


def parts_of(main: Path) -> list[Path]:
    """The files beside a named model file that belong to it: those of its name, up to a dot.

    Such as `model.onnx.data` of `model.onnx`, or `model.pdiparams` of `model.pdmodel`.
    """
    stem = main.name.split(".", 1)[0] + "."
    return sorted(
        entry
        for entry in main.parent.iterdir()
        if entry.name.startswith(stem) and entry.suffix != ".py" and entry.is_file()
    )


def _of_file(path: Path) -> str:
    if path.name in _FOLDERS:
        return _FOLDERS[path.name]
    if path.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix]
    if path.suffix == ".py":
        return ""
    if path.suffix == ".json" and path.with_suffix(".pdiparams").is_file():
        return "paddle"
    with path.open("rb") as file:
        head = file.read(HEAD)
    return of_head(head, pickle=path.suffix in _PICKLE_SUFFIXES)


def of_head(head: bytes, *, pickle: bool) -> str:
    """The runtime of a file that begins like this; empty if it is none's.

    Args:
        head: its first bytes.
        pickle: whether its name says that it is a pickle.
    """
    if pickle and _PICKLE.match(head):
        return "sklearn"
    if _XGBOOST_JSON.match(head) or _XGBOOST_UBJ.match(head):
        return "xgboost"
    if head.startswith((_LIGHTGBM, _LIGHTGBM_CRLF)):
        return "lightgbm"
    return ""


def _of_folder(folder: Path) -> Found | None:
    for name, runtime in _FOLDERS.items():
        if (folder / name).is_file():
            return Found(runtime, folder / name)
    entries = sorted(folder.iterdir())
    candidates = [
        Found(runtime, entry)
        for entry in entries
        if not entry.name.startswith(".") and entry.is_file() and (runtime := _of_file(entry))
    ]
    found = _one_of(candidates)
    if found is None and candidates:
        names = ", ".join(found.main.name for found in candidates[:8])
        raise ModelLoadError(
            f"the folder {folder.name!r} holds several models: {names}; accepted: one named "
            f"{_USUAL}, or its path",
            file=str(folder),
        )
    return found


def _one_of(candidates: Iterable[Found]) -> Found | None:
    """The only one, or the only one of the usual name."""
    found = list(candidates)
    if len(found) > 1:
        found = [one for one in found if one.main.stem == _USUAL]
    return found[0] if len(found) == 1 else None
